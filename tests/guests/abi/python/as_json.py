"""The job of `just bench-abi` in Python, with the request as JSON."""

import json

import layout
from wit_world import exports


class JsonHandler(exports.JsonHandler):
    def handle(self, head: bytes) -> bytes:
        headers = json.loads(head.decode())["headers"]
        if next((value for name, value in headers if name == "x-api-key"), None) != "s3cret":
            return b'{"respond":401}'
        edits = [{"set": ["x-user", "alice"]}, {"remove": "cookie"}, {"set": ["authorization", "Bearer internal"]}]
        return json.dumps({"modify": edits}).encode()


layout.finish(lambda: json.dumps(json.loads(b'{"method": "GET", "query": null, "headers": [["a", "b"], ["c", "d"]]}'.decode())).encode())

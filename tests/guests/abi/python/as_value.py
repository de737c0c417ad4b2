"""The job of `just bench-abi` in Python, with the request by value."""

import layout
from wit_world import exports
from wit_world.exports.value_handler import Action, Action_Modify, Action_Respond, Edit_Remove, Edit_Set, Head, Header
from wit_world.imports.types import Response


class ValueHandler(exports.ValueHandler):
    def handle(self, head: Head) -> Action:
        key = next((header.value for header in head.headers if header.name == "x-api-key"), None)
        if key != "s3cret":
            return Action_Respond(Response(401, [], b""))
        return Action_Modify([Edit_Set(("x-user", "alice")), Edit_Remove("cookie"), Edit_Set(("authorization", "Bearer internal"))])


def _warm() -> None:
    Head("GET", "https", "example.com", "/", None, "192.0.2.1", [Header("a", "b")])
    Action_Modify([Edit_Set(("a", "b")), Edit_Remove("c")])
    Action_Respond(Response(401, [], b""))


layout.finish(_warm)

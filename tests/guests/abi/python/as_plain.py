"""The job of `just bench-abi` in Python, through plain functions."""

import layout
from wit_world import exports
from wit_world.exports.plain_handler import Verdict, Verdict_Proceed, Verdict_Respond
from wit_world.imports import exchange
from wit_world.imports.types import Response


class PlainHandler(exports.PlainHandler):
    def handle(self) -> Verdict:
        if exchange.header("x-api-key") != "s3cret":
            return Verdict_Respond(Response(401, [], b""))
        exchange.set_header("x-user", "alice")
        exchange.remove_header("cookie")
        exchange.set_header("authorization", "Bearer internal")
        return Verdict_Proceed()


layout.finish(lambda: [Verdict_Proceed(), Verdict_Respond(Response(401, [], b""))])

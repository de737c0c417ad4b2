"""gRPC calls with grpcio, without generated code: messages are bytes.

    calls.py serve                     runs a server: prints its address, serves until it is killed
    calls.py calls GATEWAY UPSTREAM    makes the calls through the gateway: prints a line for each,
                                       exits with 1 if a call failed
    calls.py load GATEWAY MESSAGES CALLS
                                       a stream of many small messages, then many calls in turn,
                                       over one connection

The gateway routes three services: `plain` (no filter), `filtered` (a filter that requires an API
key) and `down` (no server). Tests of cancelled calls ask the server directly whether its handler
ended, without the gateway.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

KEY = ("x-api-key", "s3cret")
# google.rpc.Status with code 3 and message "why": the value of grpc-status-details-bin.
DETAILS = bytes([0x08, 0x03, 0x12, 0x03]) + b"why"


# --- the server ---


class Service:
    """The handlers. It records by name which calls began and which ended."""

    def __init__(self) -> None:
        self.events: set[str] = set()
        self.changed = threading.Condition()

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"re: " + request

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-first", "1"), ("x-first-bin", b"\x00\x01\xfe\xff")])
        context.set_trailing_metadata([("x-last", "2"), ("x-last-bin", b"\xff\x00")])
        return f"{sent.get('x-text')} {sent.get('x-raw-bin')!r} {sent.get('x-user')} {sent.get('te')}".encode()

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata([("grpc-status-details-bin", DETAILS)])
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no: é % \n\r done")

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name, done = request.decode(), threading.Event()
        context.add_callback(done.set)
        self.record(f"began {name}")
        done.wait(20)
        self.record(f"ended {name}")
        return b"late"

    def record(self, event: str) -> None:
        with self.changed:
            self.events.add(event)
            self.changed.notify_all()

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Waits until the event was recorded."""
        with self.changed:
            return b"yes" if self.changed.wait_for(lambda: request.decode() in self.events, 5) else b"never"

    def down_stream(self, request: bytes, context: grpc.ServicerContext):
        for number in range(int(request)):
            yield f"{number}".encode()

    def up_stream(self, requests, context: grpc.ServicerContext) -> bytes:
        return str(sum(len(request) for request in requests)).encode()

    def both(self, requests, context: grpc.ServicerContext):
        for request in requests:
            yield b"re: " + request

    def endless(self, request: bytes, context: grpc.ServicerContext):
        context.add_callback(lambda: self.record(f"ended {request.decode()}"))
        while context.is_active():
            yield b"x" * 10_000

    def half(self, request: bytes, context: grpc.ServicerContext):
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "in the middle")


def handlers(service: Service) -> dict[str, grpc.RpcMethodHandler]:
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "Unary": unary(service.unary),
        "Metadata": unary(service.metadata),
        "Fail": unary(service.fail),
        "Hang": unary(service.hang),
        "Wait": unary(service.wait),
        "Down": stream(service.down_stream),
        "Up": grpc.stream_unary_rpc_method_handler(service.up_stream),
        "Both": grpc.stream_stream_rpc_method_handler(service.both),
        "Endless": stream(service.endless),
        "Half": stream(service.half),
    }


LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(64), options=LARGE)
    methods = handlers(Service())
    for name in ("plain", "filtered", "slow", "tiny"):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination(120)


# --- the calls ---


class Caller:
    def __init__(self, channel: grpc.Channel, service: str) -> None:
        self.channel, self.service = channel, service

    def path(self, method: str) -> str:
        return f"/{self.service}/{method}"

    def unary(self, method: str):
        call = self.channel.unary_unary(self.path(method))
        return lambda request, metadata=(), timeout=10, **more: call(request, metadata=(KEY, *metadata), timeout=timeout, **more)

    def down(self, method: str, request: bytes, timeout: float = 10):
        return self.channel.unary_stream(self.path(method))(request, metadata=(KEY,), timeout=timeout)

    def up(self, method: str, requests, timeout: float = 20):
        return self.channel.stream_unary(self.path(method))(requests, metadata=(KEY,), timeout=timeout)

    def both(self, method: str, requests, timeout: float = 10):
        return self.channel.stream_stream(self.path(method))(requests, metadata=(KEY,), timeout=timeout)


def expect_error(run, code: grpc.StatusCode) -> grpc.RpcError:
    try:
        got = run()
    except grpc.RpcError as failure:
        assert failure.code() == code, f"the code is {failure.code()}, not {code}: {failure.details()}"
        return failure
    raise AssertionError(f"the call did not fail but returned {got!r:.60}")


def unary(call: Caller, _: Caller) -> None:
    assert call.unary("Unary")(b"hello") == b"re: hello"


def empty_message(call: Caller, _: Caller) -> None:
    assert call.unary("Unary")(b"") == b"re: "


def many_at_once(call: Caller, _: Caller) -> None:
    method = call.channel.unary_unary(call.path("Unary"))
    waiting = [method.future(f"{n}".encode(), metadata=(KEY,), timeout=10) for n in range(200)]
    assert [one.result() for one in waiting] == [f"re: {n}".encode() for n in range(200)]


def large_messages(call: Caller, _: Caller) -> None:
    message = bytes(range(256)) * (8 << 12)  # 8 MiB
    assert call.unary("Unary")(message) == b"re: " + message


def server_streaming(call: Caller, _: Caller) -> None:
    assert list(call.down("Down", b"1000")) == [f"{n}".encode() for n in range(1000)]


def server_streaming_of_nothing(call: Caller, _: Caller) -> None:
    assert list(call.down("Down", b"0")) == []


def client_streaming(call: Caller, _: Caller) -> None:
    assert call.up("Up", iter([b"x" * 1000] * 500)) == b"500000"


def client_streaming_large(call: Caller, _: Caller) -> None:
    assert call.up("Up", iter([b"x" * (1 << 20)] * 16)) == str(16 << 20).encode()


def bidirectional_interleaved(call: Caller, _: Caller) -> None:
    """Sends each message only after the response to the previous one."""
    answered, done = threading.Semaphore(1), 50

    def requests():
        for number in range(done):
            assert answered.acquire(timeout=5), "the previous message got no response"
            yield f"{number}".encode()

    got = []
    for answer in call.both("Both", requests()):
        got.append(answer)
        answered.release()
    assert got == [f"re: {n}".encode() for n in range(done)]


def bidirectional_side_by_side(call: Caller, _: Caller) -> None:
    answers = call.both("Both", iter([b"x" * 5000] * 400), timeout=20)
    assert sum(len(answer) for answer in answers) == 400 * 5004


def metadata(call: Caller, _: Caller) -> None:
    method = call.channel.unary_unary(call.path("Metadata"))
    sent = (KEY, ("x-text", "a b"), ("x-raw-bin", b"\x00\x80\xff"))
    response, context = method.with_call(b"", metadata=sent, timeout=10)
    user = "alice" if call.service == "filtered" else None
    assert response.startswith(f"a b {bytes([0, 128, 255])!r} {user}".encode()), response
    first, last = dict(context.initial_metadata()), dict(context.trailing_metadata())
    assert (first["x-first"], first["x-first-bin"]) == ("1", b"\x00\x01\xfe\xff"), first
    assert (last["x-last"], last["x-last-bin"]) == ("2", b"\xff\x00"), last


def error_in_trailers_only(call: Caller, _: Caller) -> None:
    failure = expect_error(lambda: call.unary("Fail")(b""), grpc.StatusCode.INVALID_ARGUMENT)
    assert failure.details() == "no: é % \n\r done", repr(failure.details())


def status_details(call: Caller, _: Caller) -> None:
    failure = expect_error(lambda: call.unary("Fail")(b""), grpc.StatusCode.INVALID_ARGUMENT)
    assert dict(failure.trailing_metadata())["grpc-status-details-bin"] == DETAILS


def error_in_the_middle_of_a_stream(call: Caller, _: Caller) -> None:
    got = []
    failure = expect_error(lambda: got.extend(call.down("Half", b"")), grpc.StatusCode.DATA_LOSS)
    assert (got, failure.details()) == ([b"one"], "in the middle")


def unimplemented(call: Caller, _: Caller) -> None:
    expect_error(lambda: call.unary("Nothing")(b""), grpc.StatusCode.UNIMPLEMENTED)


def deadline(call: Caller, direct: Caller) -> None:
    name = f"deadline-{call.service}".encode()
    began = time.monotonic()
    expect_error(lambda: call.unary("Hang")(name, timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - began < 2
    assert direct.unary("Wait")(b"ended " + name) == b"yes", "the upstream's call did not end"


def deadline_of_a_stream(call: Caller, direct: Caller) -> None:
    name = f"stream-deadline-{call.service}".encode()
    expect_error(lambda: [time.sleep(0.01) for _ in call.down("Endless", name, timeout=0.5)], grpc.StatusCode.DEADLINE_EXCEEDED)
    assert direct.unary("Wait")(b"ended " + name) == b"yes", "the upstream's call did not end"


def cancellation(call: Caller, direct: Caller) -> None:
    name = f"cancel-{call.service}".encode()
    waiting = call.channel.unary_unary(call.path("Hang")).future(name, metadata=(KEY,), timeout=15)
    assert direct.unary("Wait")(b"began " + name) == b"yes", "the call did not arrive"
    waiting.cancel()
    assert direct.unary("Wait")(b"ended " + name) == b"yes", "the upstream's call did not end"


def cancellation_of_a_stream(call: Caller, direct: Caller) -> None:
    name = f"cancel-stream-{call.service}".encode()
    stream = call.down("Endless", name, timeout=15)
    assert len(next(stream)) == 10_000
    stream.cancel()
    assert direct.unary("Wait")(b"ended " + name) == b"yes", "the upstream's call did not end"
    assert call.unary("Unary")(b"after") == b"re: after"


CALLS = [
    unary,
    empty_message,
    many_at_once,
    large_messages,
    server_streaming,
    server_streaming_of_nothing,
    client_streaming,
    client_streaming_large,
    bidirectional_interleaved,
    bidirectional_side_by_side,
    metadata,
    error_in_trailers_only,
    status_details,
    error_in_the_middle_of_a_stream,
    unimplemented,
    deadline,
    deadline_of_a_stream,
    cancellation,
    cancellation_of_a_stream,
]


def a_missing_key_is_unauthenticated(gateway: grpc.Channel) -> None:
    """The filter responds with 401."""
    call = gateway.unary_unary("/filtered/Unary")
    expect_error(lambda: call(b"", timeout=5), grpc.StatusCode.UNAUTHENTICATED)


def upstream_down(gateway: grpc.Channel) -> None:
    call = gateway.unary_unary("/down/Unary")
    failure = expect_error(lambda: call(b"", timeout=5), grpc.StatusCode.UNAVAILABLE)
    assert failure.details() == "the upstream cannot be reached", failure.details()


def upstream_too_slow(gateway: grpc.Channel) -> None:
    """The route's timeout is not an HTTP 504, which gRPC maps to UNAVAILABLE and clients repeat."""
    call = gateway.unary_unary("/slow/Hang")
    failure = expect_error(lambda: call(b"slow", timeout=5), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert failure.details() == "the upstream took too long", failure.details()


def message_too_large(gateway: grpc.Channel) -> None:
    call = gateway.unary_unary("/tiny/Unary")
    failure = expect_error(lambda: call(b"x" * 5000, timeout=5), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert failure.details() == "the request body is too large", failure.details()


def no_route(gateway: grpc.Channel) -> None:
    call = gateway.unary_unary("/elsewhere/Unary")
    failure = expect_error(lambda: call(b"", timeout=5), grpc.StatusCode.UNIMPLEMENTED)
    assert failure.details() == "no route for this request", failure.details()


def attempt(name: str, run) -> bool:
    began = time.monotonic()
    try:
        run()
    except Exception as failure:  # any exception fails only this call
        print(f"FAILED {name}: {type(failure).__name__}: {str(failure)[:400]}", flush=True)
        return False
    print(f"ok {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
    return True


def calls(gateway_address: str, upstream_address: str) -> int:
    gateway = grpc.insecure_channel(gateway_address, options=LARGE)
    direct = Caller(grpc.insecure_channel(upstream_address, options=LARGE), "plain")
    results = []
    for service in ("plain", "filtered"):
        caller = Caller(gateway, service)
        results += [attempt(f"{service}: {call.__name__}", lambda call=call: call(caller, direct)) for call in CALLS]
    for call in (a_missing_key_is_unauthenticated, upstream_down, upstream_too_slow, message_too_large, no_route):
        results.append(attempt(call.__name__, lambda call=call: call(gateway)))
    print(f"{sum(results)} of {len(results)} calls passed", flush=True)
    return 0 if all(results) else 1


def load(gateway_address: str, messages: int, calls: int) -> int:
    """Each interruption of the connection would be a change of the channel's state."""
    channel, states = grpc.insecure_channel(gateway_address), []
    channel.subscribe(states.append, try_to_connect=True)
    grpc.channel_ready_future(channel).result(timeout=5)
    caller = Caller(channel, "plain")
    received = sum(1 for _ in caller.down("Down", str(messages).encode(), timeout=300))
    assert received == messages, f"{received} of {messages} messages"
    call = caller.unary("Unary")
    for _ in range(calls):
        assert call(b"hello") == b"re: hello"
    ready = states.count(grpc.ChannelConnectivity.READY)
    assert ready == 1 and states[-1] == grpc.ChannelConnectivity.READY, states
    print(f"ok: {messages} messages and {calls} calls on one connection")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "load":
        sys.exit(load(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        sys.exit(calls(*sys.argv[2:]))

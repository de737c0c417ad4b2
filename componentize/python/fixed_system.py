"""Runs a program for which random numbers, the clock and the times of files are always the same, so
that the same sources become the same component.

The snapshot of a filter contains what CPython asked of the system when it started: the key of its
hashes, and remains of times in memory that it used and freed. On Linux, the kernel lets this module
answer the program's system calls ``getrandom`` and ``statx`` (seccomp, since Linux 5.0), and
``fixed_clock`` stops the program's clock. Elsewhere the program runs as usual, and each build has
other bytes.

Price: who knows all sources of a filter knows the key of its hashes, and could choose keys of a
dictionary that collide. The timeout of a call bounds the damage. Random numbers of calls come from
the gateway. This module does not know: the program.
"""

import ctypes
import hashlib
import os
import platform
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

# The time of all files, and of the clock.
TIME = 1_767_225_600
# The numbers of the system calls seccomp, getrandom and statx.
_CALLS = {"x86_64": (317, 318, 332), "aarch64": (277, 278, 291)}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_NO_NEW_PRIVILEGES = 38
_PARENT_DEATH_SIGNAL = 1
_CURRENT_FOLDER, _EMPTY_PATH = -100, 0x1000
_PATH_BYTES_MAX = 4096
# In the answer of statx: its size, the number of the file, its size, its four times, its devices.
_STATX_BYTES, _INODE, _SIZE, _TIMES, _DEVICES = 256, 32, 40, (64, 80, 96, 112), 128


def run(
    command: list[str], folder: Path, environment: dict[str, str], seconds: float, seed: bytes
) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run`` with captured output. On Linux the program ends with this process."""
    outcome: list[subprocess.CompletedProcess[str] | BaseException] = []
    listener: list[int] = []
    is_ready = threading.Event()

    def start() -> None:
        # A filter holds for one thread and the processes that it starts, so this one must not make
        # these calls itself.
        try:
            try:
                listener.append(_listen())
            except OSError:
                pass
            is_ready.set()
            outcome.append(
                subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=seconds,
                    preexec_fn=end_with_parent,
                )
            )
        except BaseException as failure:
            outcome.append(failure)

    thread = threading.Thread(target=start)
    thread.start()
    is_ready.wait()
    if listener:
        _answer(listener[0], thread, seed)
        os.close(listener[0])
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends. Nothing outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _listen() -> int:
    """Makes the system calls of this thread questions to the result, a file."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        raise OSError("no seccomp")
    seccomp, getrandom, statx = _CALLS[platform.machine()]
    # Load the number of the call; if it is one of the two, notify, else allow.
    code = b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in [
            (0x20, 0, 0, 0),
            (0x15, 1, 0, getrandom),
            (0x15, 0, 1, statx),
            (0x06, 0, 0, _NOTIFY),
            (0x06, 0, 0, _ALLOW),
        ]
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


def _answer(listener: int, thread: threading.Thread, seed: bytes) -> None:
    """Answers each question until the thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    statx = _CALLS[platform.machine()][2]
    numbers: dict[bytes, int] = {}
    while thread.is_alive():
        if not poll.poll(50):
            continue
        question = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), question) != 0:
            continue
        identity, process, _, call = struct.unpack_from("<QIIi", question.raw)
        arguments = struct.unpack_from("<6Q", question.raw, 32)
        try:
            if call == statx:
                value = 0
                _write(libc, process, arguments[4], _file_status(libc, process, arguments, numbers))
            else:
                # The same bytes each time: the order in which threads ask must not matter.
                value = min(arguments[1], 1 << 16)
                _write(libc, process, arguments[0], hashlib.shake_256(seed).digest(value))
            reply = struct.pack("<QqiI", identity, value, 0, 0)
        except OSError as failure:
            reply = struct.pack("<QqiI", identity, 0, -(failure.errno or 5), 0)
        libc.ioctl(listener, ctypes.c_ulong(_SEND), ctypes.create_string_buffer(reply, 24))


def _file_status(libc: ctypes.CDLL, process: int, arguments: tuple[int, ...], numbers: dict[bytes, int]) -> bytes:
    """The result of ``statx`` with fixed times. Files are numbered in the order of the calls."""
    folder = struct.unpack("<i", struct.pack("<Q", arguments[0])[:4])[0]
    path = _read_path(libc, process, arguments[1])
    flags, mask = arguments[2], arguments[3]
    base = f"/proc/{process}/cwd" if folder == _CURRENT_FOLDER else f"/proc/{process}/fd/{folder}"
    if path == b"":
        # The link leads to the open file.
        target, flags = base.encode(), flags & ~(_EMPTY_PATH | 0x100)
    else:
        target = path if path.startswith(b"/") else base.encode() + b"/" + path
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    number = ctypes.c_int(_CURRENT_FOLDER)
    if libc.statx(number, target, ctypes.c_int(flags), ctypes.c_uint(mask), buffer) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    status = bytearray(buffer.raw)
    identity = bytes(status[_INODE:_SIZE] + status[_DEVICES + 8 : _DEVICES + 16])
    struct.pack_into("<Q", status, _INODE, numbers.setdefault(identity, len(numbers) + 1))
    for offset in _TIMES:
        struct.pack_into("<qI", status, offset, TIME, 0)
    return bytes(status)


def _read_path(libc: ctypes.CDLL, process: int, address: int) -> bytes:
    """The text at an address of the process, up to its NUL. It may end before a page does."""
    path = b""
    while b"\0" not in path and len(path) < _PATH_BYTES_MAX:
        size = 256 - (address + len(path)) % 256
        local = ctypes.create_string_buffer(size)
        here = struct.pack("@PN", ctypes.addressof(local), size)
        if libc.process_vm_readv(process, here, 1, struct.pack("@PN", address + len(path), size), 1, 0) != size:
            raise OSError(14, "process_vm_readv")
        path += local.raw
    return path.partition(b"\0")[0]


def _write(libc: ctypes.CDLL, process: int, address: int, data: bytes) -> None:
    local = ctypes.create_string_buffer(data, len(data))
    here = struct.pack("@PN", ctypes.addressof(local), len(data))
    if libc.process_vm_writev(process, here, 1, struct.pack("@PN", address, len(data)), 1, 0) != len(data):
        raise OSError(14, "process_vm_writev")

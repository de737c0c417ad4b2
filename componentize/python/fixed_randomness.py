"""Runs a program whose random numbers depend only on a seed, so that the same sources become the
same component.

CPython takes the key of its hashes from the system when it starts, and the snapshot of a filter
contains it: the order of sets and the place of every object depend on it. On Linux, the kernel lets
this module answer the program's system call ``getrandom`` (seccomp, since Linux 5.0). Elsewhere the
program runs as usual, and each build has other bytes.

Price: who knows all sources of a filter knows the key, and could choose keys of a dictionary that
collide. The timeout of a call bounds the damage. This module does not know: the program.
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

# The numbers of the system calls seccomp and getrandom.
_CALLS = {"x86_64": (317, 318), "aarch64": (277, 278)}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_NO_NEW_PRIVILEGES = 38
_PARENT_DEATH_SIGNAL = 1


def run(
    command: list[str], folder: Path, environment: dict[str, str], seconds: float, seed: bytes
) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run`` with captured output. On Linux the program ends with this process."""
    outcome: list[subprocess.CompletedProcess[str] | BaseException] = []
    listener: list[int] = []
    is_ready = threading.Event()

    def start() -> None:
        # A filter holds for one thread and the processes that it starts, so this one must not need
        # random numbers itself.
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
                    preexec_fn=_end_with_parent,
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


def _end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _listen() -> int:
    """Makes ``getrandom`` of this thread a question to the result, a file."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        raise OSError("no seccomp")
    seccomp, getrandom = _CALLS[platform.machine()]
    # Load the number of the call; if it is getrandom, notify, else allow.
    code = b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in [(0x20, 0, 0, 0), (0x15, 0, 1, getrandom), (0x06, 0, 0, _NOTIFY), (0x06, 0, 0, _ALLOW)]
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


def _answer(listener: int, thread: threading.Thread, seed: bytes) -> None:
    """Answers each question with the same bytes, until the thread ends: the order in which the
    threads of the program ask must not matter."""
    libc = ctypes.CDLL(None, use_errno=True)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while thread.is_alive():
        if not poll.poll(50):
            continue
        question = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), question) != 0:
            continue
        identity, process = struct.unpack_from("<QI", question.raw)
        address, length = struct.unpack_from("<QQ", question.raw, 32)
        length = min(length, 1 << 16)
        data = hashlib.shake_256(seed).digest(length)
        local = ctypes.create_string_buffer(data, length)
        here = struct.pack("@PN", ctypes.addressof(local), length)
        there = struct.pack("@PN", address, length)
        written = libc.process_vm_writev(process, here, 1, there, 1, 0)
        reply = struct.pack("<QqiI", identity, max(written, 0), 0 if written >= 0 else -5, 0)
        libc.ioctl(listener, ctypes.c_ulong(_SEND), ctypes.create_string_buffer(reply, 24))

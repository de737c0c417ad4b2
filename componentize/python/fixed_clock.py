"""Runs componentize-py with a clock that stands still, so that no time of the build is in a filter.

The clock is a function that the kernel maps into every process (the vDSO), because reading it must
not cost a system call. This module overwrites that function in its own process. On other systems
and processors it does nothing, and each build has other bytes. This module does not know: filters.
"""

import ctypes
import platform
import re
import struct
import sys
from pathlib import Path

from fixed_system import TIME

_NAMES = (b"__vdso_clock_gettime", b"__kernel_clock_gettime")
# Tags of the dynamic section, and kinds of segments.
_SYMBOLS, _STRINGS = 6, 5
_LOAD, _DYNAMIC = 1, 2


def main() -> None:
    try:
        _stop_clock()
    except (OSError, LookupError, struct.error):
        pass
    from componentize_py import script

    sys.argv[0] = "componentize-py"
    sys.exit(script())


def _stop_clock() -> None:
    """Replaces ``clock_gettime``."""
    code = {"x86_64": _code_x86_64, "aarch64": _code_aarch64}[platform.machine()]()
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", maps, re.MULTILINE)
    if found is None:
        raise LookupError("no vDSO")
    start, end = int(found[1], 16), int(found[2], 16)
    target = start + _offset(ctypes.string_at(start, end - start))
    # A debugger sets its breakpoints in the same way: the write makes a copy of the page.
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(target)
        memory.write(code)


def _code_x86_64() -> bytes:
    """``mov qword [rsi], TIME; mov qword [rsi + 8], 0; xor eax, eax; ret``"""
    return b"\x48\xc7\x06" + struct.pack("<i", TIME) + b"\x48\xc7\x46\x08\0\0\0\0" + b"\x31\xc0\xc3"


def _code_aarch64() -> bytes:
    """``movz x2, low; movk x2, high, lsl 16; stp x2, xzr, [x1]; mov w0, 0; ret``"""
    low, high = TIME & 0xFFFF, TIME >> 16
    return struct.pack("<5I", 0xD2800002 | low << 5, 0xF2A00002 | high << 5, 0xA9007C22, 0x52800000, 0xD65F03C0)


def _offset(image: bytes) -> int:
    """Where the function begins in the image, an ELF file of 64 bits."""
    (headers,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    loaded, table = 0, 0
    for index in range(count):
        kind, _, offset, address = struct.unpack_from("<IIQQ", image, headers + index * size)
        if kind == _LOAD:
            loaded = address - offset
        elif kind == _DYNAMIC:
            table = offset
    entries: dict[int, int] = {}
    while True:
        tag, value = struct.unpack_from("<qQ", image, table)
        if tag == 0:
            break
        entries[tag] = value - loaded
        table += 16
    symbols, strings = entries[_SYMBOLS], entries[_STRINGS]
    for at in range(symbols, strings if strings > symbols else len(image) - 24, 24):
        name, _, _, section, value = struct.unpack_from("<IBBHQ", image, at)
        if section != 0 and image[strings + name : image.index(b"\0", strings + name)] in _NAMES:
            return int(value - loaded)
    raise LookupError("no clock in the vDSO")


if __name__ == "__main__":
    main()

"""Describes an exception in one line for the gateway's log, with its causes and the author's
places.

``KeyError: 'id' (filter.py:9 in user); caused by ValueError: … (filter.py:3 in on_request)``.
This module does not know: filters, the gateway.
"""

import sys
from types import FunctionType, TracebackType

from witgate._check import without_surrogates

_TEXT_MAX = 3800
_PART_MAX = 1200
_CAUSES_MAX = 6
_GROUP_MAX = 4
_GROUP_DEPTH_MAX = 4

# The folder of the author's source in the component, with a slash at its end. Empty in unit tests.
author_root = ""


def describe(failure: BaseException, handler: object = None) -> str:
    """Returns the exception in one line. Without a frame in the author's source, the place is where
    ``handler`` is defined."""
    parts: list[str] = []
    seen: set[int] = set()
    joint = ""
    current: BaseException | None = failure
    while current is not None and id(current) not in seen and len(parts) < _CAUSES_MAX:
        seen.add(id(current))
        place = author_place(current) or (_definition(handler) if current is failure else "")
        parts.append(f"{joint}{_text(current)}{place and f' ({place})'}")
        if current.__cause__ is not None:
            current, joint = current.__cause__, "; caused by "
        else:
            current, joint = None if current.__suppress_context__ else current.__context__, "; while handling "
    return without_surrogates("".join(parts))[:_TEXT_MAX]


def _text(failure: BaseException, depth: int = 0) -> str:
    """The type and the message of one exception, its notes and the exceptions of a group."""
    name = type(failure).__name__
    try:
        message = str(failure)
    except BaseException as error:
        message = f"<its __str__ raised {type(error).__name__}>"
    if isinstance(failure, SystemExit):
        message = f"{message}: a filter cannot end the process; return a reply or None"
    parts = [f"{name}: {message}"[:_PART_MAX] if message else name]
    if isinstance(failure, BaseExceptionGroup) and depth < _GROUP_DEPTH_MAX:
        inner = [f"{_text(one, depth + 1)}{_in_brackets(author_place(one))}" for one in failure.exceptions[:_GROUP_MAX]]
        parts.append(" [" + " | ".join(inner) + "]")
    notes = getattr(failure, "__notes__", None)
    if isinstance(notes, (list, tuple)):
        parts += [f"; note: {_note(note)}" for note in notes[:_GROUP_MAX]]
    return "".join(parts)


def _note(note: object) -> str:
    try:
        return str(note)[:_PART_MAX]
    except BaseException as error:
        return f"<its __str__ raised {type(error).__name__}>"


def _in_brackets(place: str) -> str:
    return place and f" ({place})"


def author_place(failure: BaseException) -> str:
    """The innermost place in the author's source: ``filter.py:12 in on_request``."""
    if isinstance(failure, SyntaxError) and failure.filename and (file := author_file(failure.filename)):
        return f"{file}:{failure.lineno}"
    frames = author_frames(failure.__traceback__)
    return f"{frames[-1][0]}:{frames[-1][1]} in {frames[-1][2]}" if frames else ""


def author_frames(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    """File, line and function of each frame in the author's source, the outermost first."""
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if file := author_file(code.co_filename):
            frames.append((file, trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    return frames


def author_file(file: str) -> str:
    """The name of an author's file relative to the filter's folder. Empty for another file."""
    if author_root:
        return file[len(author_root) :] if file.startswith(author_root) else ""
    is_library = "/witgate/" in file or "/python3" in file or file.startswith("<") or "/site-packages/" in file
    return "" if is_library else file.rsplit("/", 1)[-1]


def _definition(handler: object) -> str:
    if not isinstance(handler, FunctionType):
        return ""
    code = handler.__code__
    file = author_file(code.co_filename)
    return file and f"{file}:{code.co_firstlineno} in {code.co_name}"


def report(failure: BaseException) -> str:
    """Describes an exception of the build in several lines: message, place, and the lines of the
    author's source that led there."""
    lines = [_first_lines(describe(failure))]
    sources: dict[str, list[str]] = {}
    for file, line, function in author_frames(failure.__traceback__)[-8:]:
        if file not in sources:
            try:
                with open(author_root + file, encoding="utf-8", errors="replace") as source:
                    sources[file] = source.read().splitlines()
            except OSError:
                sources[file] = []
        shown = sources[file][line - 1].strip() if line <= len(sources[file]) else ""
        lines.append(f"  {file}:{line} in {function}: {shown}")
    return "\n".join(lines)


def _first_lines(text: str) -> str:
    """The first line of each part of a long text, with the places."""
    lines = text.splitlines()
    return text if len(lines) < 4 else f"{lines[0]} … {lines[-1].strip()}"


def unraisable(line: object) -> None:
    """Writes a line to the error output of the build, which the sandbox replaces for filters."""
    print(line, file=sys.__stderr__, flush=True)

"""Prepares the memory of a filter for its snapshot. The entry that ``componentize`` generates calls
this module last.

Gain: a call of the filter writes fewer pages, and each written page must be copied back. Price: the
build takes longer, and the garbage collector is off. An instance serves one call, or as many as the
operator allows, and reference counts still free objects without cycles.
"""

import gc
import logging

from witgate import _coroutines, _encodings, _files, _image, _late_imports, _locks, _sandbox, _warmup


def finish() -> None:
    """Prepares the memory. The order of the steps matters: each one leaves holes or garbage that a
    later one handles."""
    _late_imports.load()
    _locks.replace_queue()
    _encodings.keep()
    _files.keep()
    _files.install()
    _coroutines.install()
    _late_imports.close()
    # The time at which logging was imported would make each build different.
    setattr(logging, "_startTime", 0)
    _sandbox.finish()
    _sandbox.running = True
    try:
        _arrange()
    except BaseException:
        # There is no gateway whose log could take the traceback.
        _sandbox.running = False
        raise


def _arrange() -> None:
    gc.collect()
    # The collector marks every object that it visits, and the marks would have to be copied back.
    gc.disable()
    is_supported = _image.is_supported()
    if is_supported:
        _image.fill_holes()
        _image.gather_code()
    _warmup.run()
    if is_supported:
        _image.request_immortality()
    gc.freeze()
    if is_supported:
        # The steps above have left new holes.
        _image.fill_holes()

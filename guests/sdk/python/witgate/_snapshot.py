"""Prepares the memory of a filter for its snapshot. The entry that ``componentize`` generates calls
this module last.

Gain: a call of the filter writes fewer pages, and each written page must be copied back. Price: the
build takes longer, and the garbage collector is off. An instance serves one call, or as many as the
operator allows, and reference counts still free objects without cycles.
"""

import gc

from witgate import _image, _sandbox, _warmup


def finish() -> None:
    """Prepares the memory. The order of the steps matters: each one leaves holes or garbage that a
    later one handles."""
    _sandbox.running = True
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

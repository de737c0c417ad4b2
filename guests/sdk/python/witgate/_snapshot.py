"""The end of a build: called last by the generated entry, it leaves the filter's memory as calls should find it."""

import gc

from witgate import _image, _rehearsal, _sandbox


def finish() -> None:
    """Everything. The collector stays off: an instance lives for one call, and what the collector marks would have to be copied back."""
    _sandbox.running = True
    gc.collect()
    gc.disable()
    known = _image.is_known()
    if known:
        _image.fill()
        _image.gather_code()
    _rehearsal.rehearse()
    if known:
        _image.pin()
    gc.freeze()
    if known:
        # Again: what all this left over.
        _image.fill()

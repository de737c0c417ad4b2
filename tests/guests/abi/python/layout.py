"""The end of a build, as the SDK ends that of a filter (guests/sdk/python/witgate/_snapshot.py), without the gateway's interface."""

import gc
from collections.abc import Callable

# Of the SDK.
import _image


def finish(warm: Callable[[], object]) -> None:
    """`warm` runs what an SDK would run of its own for this shape, and nothing of the handler."""
    gc.collect()
    gc.disable()
    _image.fill()
    _image.gather_code()
    for _ in range(20):
        warm()
    _image.pin()
    gc.freeze()
    _image.fill()

"""Saving and restoring the random streams that the order of samples depends on.

The saved form is plain data (bytes, numbers), so that a checkpoint which holds it can be
read without trusting the file.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ....runtime import random as streams

__all__ = ["restore_streams", "save_streams"]


def save_streams(*, shared: bool) -> dict[str, Any]:
    """The default stream; with `shared` also Python's and NumPy's, where they are in use."""
    state: dict[str, Any] = {"lampion": streams.default_stream().get_state().tobytes()}
    if shared and "random" in sys.modules:
        version, words, gauss = sys.modules["random"].getstate()
        state["python"] = (version, np.array(words, np.uint32).tobytes(), gauss)
    if shared and "numpy.random" in sys.modules:
        name, key, *rest = np.random.get_state(legacy=True)
        if name == "MT19937":
            state["numpy"] = (np.asarray(key).tobytes(), *rest)
    return state


def restore_streams(state: dict[str, Any], *, shared: bool) -> None:
    """Put the streams back where `save_streams` found them."""
    streams.default_stream().set_state(np.frombuffer(state["lampion"], np.uint8))
    if shared and "python" in state:
        import random

        version, words, gauss = state["python"]
        random.setstate((version, tuple(np.frombuffer(words, np.uint32).tolist()), gauss))
    if shared and "numpy" in state:
        key, *rest = state["numpy"]
        np.random.set_state(("MT19937", np.frombuffer(key, np.uint32), *rest))

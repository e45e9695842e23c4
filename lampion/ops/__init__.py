"""Every operator. Importing this room fills the public namespaces (`record.PUBLIC`)."""

from __future__ import annotations

from typing import Any

from ..debug import INSTRUMENTS
from . import (  # noqa: F401
    activation,
    attention,
    calculus,
    classify,
    compare,
    complex_numbers,
    contraction,
    conv,
    convert,
    copies,
    creation,
    decompositions,
    distance,
    dropout,
    elementwise,
    embedding,
    fft,
    gamma_draws,
    indexing,
    joining,
    launchers,
    linalg,
    loss,
    norm,
    operators,
    pad,
    pickling,
    pool,
    product_launchers,
    reduce,
    resize,
    rnn,
    sampling,
    sorting,
    special,
    view,
    windows,
)
from .record import PUBLIC
from .results import RETURN_TYPES

__all__ = ["PUBLIC", "RETURN_TYPES"]

# `ops.zeros` is `torch.zeros`; a function wins over the file of the same name.
globals().update(PUBLIC["torch"])


def _instrument(timer: Any) -> Any:
    from .instrument import instrument  # only a program that is profiled needs it

    return instrument(timer)


INSTRUMENTS.append(_instrument)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.{name} yet")

"""Dropout: elements or channels set to zero at random, the rest scaled up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor.dtype import bool_, float32, float64
from ..tensor.tensor import INFERENCE, Tensor
from .creation import empty_like, make
from .native import SINGLE
from .random import bernoulli_like
from .record import op

# Of SELU: what alpha dropout sets elements to is -_ALPHA (its scale times alpha).
_ALPHA = 1.7580993408473766
_PLAIN = (float32, float64)


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drop(input: Tensor, p: float, train: bool, *, channels: bool = False, alpha: bool = False,
          inplace: bool = False) -> Tensor:
    """What all forms share: `input` times a noise of zeros and equal numbers."""
    _check_probability(p)
    if p == 0 or not train or input._a.size == 0:
        return input
    multiply = input.mul_ if inplace else input.mul
    if p == 1:
        return multiply(make((), 0, input._dtype, input.device, False, "dropout"))
    noise = bernoulli_like(_noise(input, channels), 1 - p)
    if not alpha:
        a = noise._a
        if a.__class__ is np.ndarray and a.size < SINGLE and not INFERENCE[0] and (
                noise._dtype in _PLAIN):
            np.divide(a, 1 - p, a)  # nobody else holds it yet
            return multiply(noise)
        return multiply(noise.div_(1 - p))
    scale = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    shift = noise.add(-1).mul_(_ALPHA * scale).add_(_ALPHA * scale * p)
    return multiply(noise.mul_(scale)).add_(shift)


def _noise(input: Tensor, channels: bool) -> Tensor:
    if not channels:
        return empty_like(input)
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input: received "
                           f"shape {list(input.shape)}")
    size = (*input.shape[:2], *(1,) * (input.ndim - 2))
    return make(size, None, input._dtype, input.device, False, "dropout")


def _forms(name: str, doc: str, **how: bool) -> tuple[Any, Any]:
    """`torch.name(input, p, train)` and `torch.name_`."""
    def call(input: Tensor, p: float, train: bool) -> Tensor:
        return _drop(input, p, train, **how)

    def in_place(input: Tensor, p: float, train: bool) -> Tensor:
        return _drop(input, p, train, inplace=True, **how)
    for fn, label in ((call, name), (in_place, name + "_")):
        fn.__name__ = fn.__qualname__ = label
        fn.__doc__ = doc
        op("torch")(fn)
    return call, in_place


_plain = _forms("dropout", "Zeroes elements with probability `p`, scales the rest by 1/(1-p).")
_channels = _forms("feature_dropout", "Dropout of whole channels (dimension 1).", channels=True)
_alpha = _forms("alpha_dropout", "Dropout that keeps mean and variance of SELU's outputs.",
                alpha=True)
_alpha_channels = _forms("feature_alpha_dropout", "Alpha dropout of whole channels.",
                         channels=True, alpha=True)


@op("torch")
def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Dropout and the mask of what was kept."""
    _check_probability(p)
    if train is False or input._a.size == 0:
        mask = make(input.shape, 1, bool_, input.device, False, "native_dropout")
        return input.clone(), mask
    mask = bernoulli_like(empty_like(input, dtype=bool_), 1.0 - p)
    scale = 0.0 if p == 1 else 1.0 / (1.0 - p)
    return input.mul(mask).mul_(scale), mask


def _functional(name: str, forms: tuple[Any, Any], default: float, doc: str) -> None:
    """`nn.functional.name(input, p, training, inplace)`."""
    def call(input: Tensor, p: float = default, training: bool = name == "dropout",
             inplace: bool = False) -> Tensor:
        _check_value(p)
        return forms[bool(inplace)](input, p, training)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    op("F")(call)


def _check_value(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


_functional("dropout", _plain, 0.5, """Zeroes elements with probability `p` in training.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.nn.functional.dropout(torch.ones(4), 0.5)
    tensor([0., 0., 2., 0.])
    """)
_functional("alpha_dropout", _alpha, 0.5, "Dropout that keeps mean and variance after SELU.")
_functional("feature_alpha_dropout", _alpha_channels, 0.5, "Alpha dropout of whole channels.")


def _drop_channels(input: Tensor, p: float, training: bool, inplace: bool,
                   batched: bool) -> Tensor:
    """Channel dropout; an input without a batch dimension gets one for the while."""
    form = _channels[bool(inplace)]
    if batched:
        return form(input, p, training)
    out = form(input.unsqueeze(0), p, training)
    return input if inplace else out.squeeze(0)


@op("F")
def dropout1d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of an (N, C, L) or (C, L) input with probability `p`."""
    _check_value(p)
    if input.ndim not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D "
                           "input: (C, L) or (N, C, L)")
    return _drop_channels(input, p, training, inplace, input.ndim == 3)


@op("F")
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of an (N, C, H, W) input with probability `p`."""
    _check_value(p)
    if input.ndim not in (3, 4):
        _warn_dims("dropout2d", input.ndim, "4-D")
    elif input.ndim == 3:
        _warn("dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D "
              "dropout behavior is desired - input is interpreted as shape (N, C, L), where C is "
              "the channel dim. Use dropout1d for that.")
    return _drop_channels(input, p, training, inplace, True)


@op("F")
def dropout3d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of an (N, C, D, H, W) or (C, D, H, W) input with probability `p`."""
    _check_value(p)
    if input.ndim not in (4, 5):
        _warn_dims("dropout3d", input.ndim, "5-D")
    return _drop_channels(input, p, training, inplace, input.ndim == 5)


def _warn_dims(name: str, ndim: int, expected: str) -> None:
    _warn(f"{name}: Received a {ndim}-D input to {name}, which is deprecated and will result in an "
          f"error in a future release. Expected {expected}; use dropout for other shapes.")


def _warn(message: str) -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn(message, UserWarning, stacklevel=user_stack_level())

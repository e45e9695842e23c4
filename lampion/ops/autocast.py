"""Autocast: which operators compute in the reduced type, which in float32."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from ..tensor.dtype import FLOAT, dtype, float32, float64
from ..tensor.tensor import Tensor

__all__ = ["ACTIVE", "adjust", "set_dtype", "switch", "whole"]

# Single operators: their arguments are converted where they are called.
REDUCED = frozenset((
    "mm", "bmm", "addmm", "baddbmm", "linear", "matmul", "scaled_dot_product_attention"))
EXACT = frozenset((
    "avg_pool3d", "binary_cross_entropy", "binary_cross_entropy_with_logits", "ctc_loss",
    "huber_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "nll_loss",
    "nll_loss2d", "prod", "smooth_l1_loss", "soft_margin_loss",
    "adaptive_max_pool3d_with_indices", "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d_with_indices", "max_pool3d_with_indices", "max_unpool2d",
    "max_unpool3d", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d"))

# Functions of several operators: their arguments are converted, and inside autocast is off.
REDUCED_WHOLE = frozenset((
    "addbmm", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "lstm", "prelu", "rnn_relu", "rnn_tanh", "vecdot"))
EXACT_WHOLE = frozenset((
    "adaptive_avg_pool3d", "bilinear", "cdist", "cosine_embedding_loss", "cross_entropy",
    "grid_sample", "grid_sampler", "hinge_embedding_loss", "kl_div", "l1_loss",
    "margin_ranking_loss", "nanquantile", "poisson_nll_loss", "polar", "quantile", "stft",
    "trace", "triplet_margin_loss", "view_as_complex", "cholesky", "cholesky_ex",
    "cholesky_inverse", "cholesky_solve", "cond", "eig", "eigh", "eigvals", "eigvalsh",
    "geqrf", "householder_product", "inv", "inv_ex", "inverse", "lstsq", "lu_solve",
    "matrix_rank", "orgqr", "ormqr", "pinverse", "qr", "solve", "svd", "svdvals", "tensorinv",
    "tensorsolve", "triangular_solve", "fft", "fft2", "fftn", "hfft", "hfft2", "hfftn", "ifft",
    "ifft2", "ifftn", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft",
    "rfft2", "rfftn"))


class _Switch(threading.local):
    dtype: dtype | None = None


switch = _Switch()
ACTIVE = [0]  # how many threads have autocast on: read by every operator call


def set_dtype(d: dtype | None) -> None:
    """Turns autocast on (with a reduced type) or off in this thread."""
    ACTIVE[0] += (d is not None) - (switch.dtype is not None)
    switch.dtype = d


def adjust(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands of an operator in the type that autocast wants."""
    d = switch.dtype
    target = d if name in REDUCED else float32 if name in EXACT else None
    if d is None or target is None:
        return args
    return tuple([_convert(a, target) for a in args])


def whole(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of several operators as autocast wants it; most are left as they are."""
    if name not in REDUCED_WHOLE and name not in EXACT_WHOLE:
        return fn

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        d = switch.dtype if ACTIVE[0] else None
        if d is None:
            return fn(*args, **kwargs)
        target = d if name in REDUCED_WHOLE else float32
        args = tuple([_convert(a, target) for a in args])
        kwargs = {k: _convert(a, target) for k, a in kwargs.items()}
        set_dtype(None)
        try:
            return fn(*args, **kwargs)
        finally:
            set_dtype(d)
    return call


def _convert(value: Any, target: dtype) -> Any:
    if isinstance(value, Tensor):
        converts = value._dtype.kind == FLOAT and value._dtype is not float64
        return Tensor._cast(value, target) if converts else value
    if value.__class__ in (list, tuple):
        return value.__class__(_convert(a, target) for a in value)
    return value

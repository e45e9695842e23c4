"""Window functions: weights that fade a frame of a signal in and out."""

from __future__ import annotations

import math
from typing import Any

from ..tensor.dtype import FLOAT, dtype, get_default_dtype
from ..tensor.formats import strided
from ..tensor.tensor import Tensor
from .creation import arange, check_dtype, empty, ones
from .record import op

__all__: list[str] = []


def _angles(length: int, periodic: bool, d: dtype, device: Any) -> Tensor:
    """`length` angles from 0 on; the full circle ends at the last, or one step after it."""
    steps = length if periodic else length - 1
    return arange(length, dtype=d, device=device) * (2 * math.pi / steps)


def _float(name: str, d: Any) -> dtype:
    found = check_dtype(d) or get_default_dtype()
    if found.kind != FLOAT:
        raise RuntimeError(f"{name} expects floating point dtypes, got: {found}")
    return found


def _made(name: str, length: int, periodic: bool, weights: Any, dtype: Any, device: Any,
          requires_grad: bool) -> Tensor:
    """The window of `weights(angles)`, with the short cases that have no angles."""
    d = _float(name, dtype)
    if length < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got "
                           f"window_length={length}")
    if length == 0:
        t = empty(0, dtype=d, device=device)
    elif length == 1:
        t = ones(1, dtype=d, device=device)
    else:
        t = weights(_angles(length, periodic, d, device))
    return t.requires_grad_() if requires_grad else t


def _cosines(coefficients: Any) -> Any:
    """Weights a0 - a1 cos(x) + a2 cos(2x) - ..."""
    def weights(x: Tensor) -> Tensor:
        total = x * 0
        for k, a in enumerate(coefficients):
            total = total + (-1) ** k * a * (k * x).cos()
        return total
    return weights


def _triangle(x: Tensor) -> Tensor:
    return 1 - (x / math.pi - 1).abs()


def _plain(name: str, weights: Any, doc: str) -> None:
    def call(window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None,
             device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
        return _made(name, window_length, periodic, weights, dtype, device, requires_grad)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    op("torch")(call)


_plain("hann_window", _cosines((0.5, 0.5)), "A raised cosine that reaches zero.")
_plain("bartlett_window", _triangle, "A triangle.")
_plain("blackman_window", _cosines((0.42, 0.5, 0.08)), "Three cosine terms with low side lobes.")


@op("torch")
def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, *, dtype: Any = None, layout: Any = None,
                   device: Any = None, pin_memory: bool = False,
                   requires_grad: bool = False) -> Tensor:
    """A raised cosine `alpha - beta * cos`, which does not reach zero."""
    return _made("hamming_window", window_length, periodic, _cosines((alpha, beta)), dtype, device,
                 requires_grad)


def _kaiser(beta: float) -> Any:
    def weights(x: Tensor) -> Tensor:
        inside = 1 - (x / math.pi - 1).square()
        bottom = inside.new_tensor(beta).i0()
        return (beta * inside.clamp(min=0).sqrt()).i0() / bottom
    return weights


@op("torch")
def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *,
                  dtype: Any = None, layout: Any = None, device: Any = None,
                  pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """Kaiser's window; `beta` trades the main lobe's width for lower side lobes."""
    return _made("kaiser_window", window_length, periodic, _kaiser(beta), dtype, device,
                 requires_grad)


# --- torch.signal.windows: symmetric unless asked -------------------------------------------------


def _checked(name: str, M: int, weights: Any, sym: bool, dtype: Any, layout: Any, device: Any,
             requires_grad: bool) -> Tensor:
    if layout is not None and layout is not strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    d = check_dtype(dtype) or get_default_dtype()
    if d.name not in ("float32", "float64"):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {d}")
    return _made(name, M, not sym, weights, d, device, requires_grad)


def _signal(name: str, weights: Any, doc: str) -> None:
    def call(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
        return _checked(name, M, weights, sym, dtype, layout, device, requires_grad)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    op("signal.windows")(call)


_signal("hann", _cosines((0.5, 0.5)), "A raised cosine that reaches zero.")
_signal("hamming", _cosines((0.54, 0.46)), "A raised cosine that does not reach zero.")
_signal("blackman", _cosines((0.42, 0.5, 0.08)), "Three cosine terms with low side lobes.")
_signal("nuttall", _cosines((0.3635819, 0.4891775, 0.1365995, 0.0106411)),
        "Four cosine terms with very low side lobes.")
_signal("bartlett", _triangle, "A triangle.")


@op("signal.windows")
def general_cosine(M: int, *, a: Any, sym: bool = True, dtype: Any = None, layout: Any = None,
                   device: Any = None, requires_grad: bool = False) -> Tensor:
    """A sum of cosines with the coefficients `a` and alternating signs."""
    if not hasattr(a, "__iter__"):
        raise TypeError("Coefficients must be a list/tuple")
    if not a:
        raise ValueError("Coefficients cannot be empty")
    return _checked("general_cosine", M, _cosines(a), sym, dtype, layout, device, requires_grad)


@op("signal.windows")
def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None,
                    layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A raised cosine `alpha - (1 - alpha) * cos`."""
    return general_cosine(M, a=[alpha, 1 - alpha], sym=sym, dtype=dtype, layout=layout,
                          device=device, requires_grad=requires_grad)


@op("signal.windows")
def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, layout: Any = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Kaiser's window; `beta` trades the main lobe's width for lower side lobes."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    return _checked("kaiser", M, _kaiser(beta), sym, dtype, layout, device, requires_grad)


def _steps(weights: Any, M: int, sym: bool) -> Any:
    """Turns a function of the sample's number into one of its angle."""
    scale = (M - 1 if sym else M) / (2 * math.pi)
    return lambda x: weights(x * scale)


@op("signal.windows")
def cosine(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """Half a period of a sine."""
    width = M if sym else M + 1
    return _checked("cosine", M, _steps(lambda k: ((k + 0.5) * (math.pi / width)).sin(), M, sym),
                    sym, dtype, layout, device, requires_grad)


@op("signal.windows")
def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
                dtype: Any = None, layout: Any = None, device: Any = None,
                requires_grad: bool = False) -> Tensor:
    """`exp(-|k - center| / tau)`."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    middle = (M if not sym and M > 1 else M - 1) / 2 if center is None else center
    return _checked("exponential", M, _steps(lambda k: (-(k - middle).abs() / tau).exp(), M, sym),
                    sym, dtype, layout, device, requires_grad)


@op("signal.windows")
def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """A bell of the standard deviation `std`."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    middle = (M if not sym and M > 1 else M - 1) / 2
    return _checked("gaussian", M, _steps(
        lambda k: (-((k - middle) / (std * math.sqrt(2))).square()).exp(), M, sym), sym, dtype,
        layout, device, requires_grad)

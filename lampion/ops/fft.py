"""Discrete Fourier transforms, over any dimensions, with PyTorch's three normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.dtype import COMPLEX, FLOAT
from ..tensor.tensor import Tensor
from .creation import arange
from .errors import argument_type, wrap_dim, wrap_dims
from .families import Array
from .pad import constant_pad_nd
from .promotion import cast, float_dtype
from .record import leaf, op
from .view import slice_dim

__all__: list[str] = []

# The adjoint of a transform goes the other way with the same factor.
_FLIPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _complex_dtype(d: Any) -> Any:
    return np.result_type(d, np.complex64)


@leaf({"input": lambda g, dims, inverse, norm: _c2c(g, dims, not inverse, _FLIPPED[norm])},
      name="fft_c2c", shape=lambda a, *_: (a.shape, a.dtype))
def _c2c(input: Array, dims: Any, inverse: bool, norm: str) -> Array:
    return _innermost(np.fft.ifftn if inverse else np.fft.fftn, input, dims, norm=norm)


def _innermost(transform: Any, a: Array, dims: Any, **how: Any) -> Array:
    """The transform with its dimensions innermost in memory, as PyTorch leaves them."""
    places = tuple(range(-len(dims), 0))
    moved = transform(np.moveaxis(a, dims, places), axes=places, **how)
    return np.moveaxis(np.ascontiguousarray(moved), places, dims)


def _half(n: int) -> int:
    return n // 2 + 1


def _r2c_shape(a: Any, dims: Any, norm: str) -> Any:
    last = dims[-1]
    shape = (*a.shape[:last], _half(a.shape[last]), *a.shape[last + 1:])
    return shape, _complex_dtype(a.dtype)


def _r2c_grad(g: Any, input_shape: Any, dims: Any, norm: str) -> Any:
    last = dims[-1]
    full = _resized(g, (last,), (input_shape[last],))
    return _c2c(full, dims, True, _FLIPPED[norm]).real


@leaf({"input": _r2c_grad}, name="fft_r2c", shape=_r2c_shape)
def _r2c(input: Array, dims: Any, norm: str) -> Array:
    return _innermost(np.fft.rfftn, input, dims, norm=norm)


def _c2r_grad(g: Any, dims: Any, size: int, norm: str) -> Any:
    last = dims[-1]
    gi = _r2c(g, dims, _FLIPPED[norm])
    twice = slice_dim(gi, last, 1, 1 + size - _half(size), 1)
    first = slice_dim(gi, last, 0, 1, 1)
    rest = slice_dim(gi, last, 1 + size - _half(size), None, 1)
    return Tensor._cat([first, twice * 2, rest], last)


def _c2r_shape(a: Any, dims: Any, size: int, norm: str) -> Any:
    last = dims[-1]
    return (*a.shape[:last], size, *a.shape[last + 1:]), np.zeros((), a.dtype).real.dtype


@leaf({"input": _c2r_grad}, name="fft_c2r", shape=_c2r_shape)
def _c2r(input: Array, dims: Any, size: int, norm: str) -> Array:
    sizes = (*(input.shape[d] for d in dims[:-1]), size)
    return _innermost(np.fft.irfftn, input, dims, s=sizes, norm=norm)


# --- arguments ------------------------------------------------------------------------------------


def _norm(norm: Any) -> str:
    if norm is None:
        return "backward"
    if norm not in _FLIPPED:
        raise RuntimeError(f'Invalid normalization mode: "{norm}": expected "forward", "backward" '
                           'or "ortho"')
    return str(norm)


def _operand(name: str, x: Any, complex_input: bool | None = None) -> Tensor:
    """The input in a dtype that can be transformed; True: complex, False: real, None: either."""
    if not isinstance(x, Tensor):
        raise argument_type(name, "input", "Tensor", x)
    if complex_input is False and x._dtype.kind == COMPLEX:
        raise RuntimeError(f"{name} expects a real input tensor, but got "
                           f"{x._dtype.name}; use fft()")
    x = cast(x, float_dtype(x._dtype))
    if x._dtype.is_reduced:
        raise RuntimeError(f"Unsupported dtype {x._dtype.name}: {name}() takes float32 and "
                           "float64; convert with .float()")
    return cast(x, x._dtype.to_complex()) if complex_input and x._dtype.kind == FLOAT else x


def _resized(x: Tensor, dims: Any, sizes: Any) -> Tensor:
    """Cut or padded with zeros at the ends of `dims`."""
    for d, n in zip(dims, sizes, strict=True):
        have = x._a.shape[d]
        if n < have:
            x = slice_dim(x, d, 0, n, 1)
        elif n > have:
            x = constant_pad_nd(x, [0, 0] * (x._a.ndim - d - 1) + [0, n - have])
    return x


def _check_sizes(sizes: Any) -> None:
    for n in sizes:
        if n < 1:
            raise RuntimeError(f"Invalid number of data points ({n}) specified")


def _one(name: str, x: Tensor, n: int | None, dim: int) -> tuple[int, int]:
    d = wrap_dim(dim, x._a.ndim, name)
    if x._a.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions: {name}() "
                         "needs at least one")
    size = x._a.shape[d] if n is None else int(n)
    _check_sizes((size,))
    return d, size


def _several(name: str, x: Tensor, s: Any, dim: Any) -> tuple[tuple[int, ...], list[int]]:
    """Dimensions and the sizes to transform; -1 among the sizes keeps one."""
    ndim = x._a.ndim
    s = (s,) if isinstance(s, int) else s
    if dim is not None:
        dims = wrap_dims(dim, ndim, name)
        if s is not None and len(s) != len(dims):
            raise RuntimeError("When given, dim and shape arguments must have the same length: "
                               f"{name}() received {list(dims)} and {list(s)}")
    elif s is not None:
        if len(s) > ndim:
            raise RuntimeError(f"Got shape with {len(s)} values but input tensor only has {ndim} "
                               "dimensions.")
        dims = tuple(range(ndim - len(s), ndim))
    else:
        dims = tuple(range(ndim))
    sizes = [x._a.shape[d] for d in dims]
    if s is not None:
        sizes = [n if m == -1 else int(m) for n, m in zip(sizes, s, strict=True)]
    _check_sizes(sizes)
    return dims, sizes


# --- complex to complex ---------------------------------------------------------------------------


def _fft_one(name: str, inverse: bool) -> Any:
    def call(input: Tensor, n: int | None = None, dim: int = -1, norm: Any = None) -> Tensor:
        x = _operand(name, input, True)
        d, size = _one(name, x, n, dim)
        return _c2c(_resized(x, (d,), (size,)), (d,), inverse, _norm(norm))
    return _publish(name, call, f"The {'inverse ' * inverse}discrete Fourier transform of `n` "
                                "points along `dim`.")


def _publish(name: str, call: Any, doc: str) -> Any:
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return op("fft", out=True)(call)


def _fft_many(name: str, inverse: bool, default: Any) -> Any:
    def call(input: Tensor, s: Any = None, dim: Any = default, norm: Any = None) -> Tensor:
        x = _operand(name, input, True)
        dims, sizes = _several(name, x, s, dim)
        x = _resized(x, dims, sizes)
        return _c2c(x, dims, inverse, _norm(norm)) if dims else x.clone()
    return _publish(name, call, f"The {'inverse ' * inverse}discrete Fourier transform over "
                                "several dimensions.")


fft = _fft_one("fft", False)
ifft = _fft_one("ifft", True)
fftn, fft2 = _fft_many("fftn", False, None), _fft_many("fft2", False, (-2, -1))
ifftn, ifft2 = _fft_many("ifftn", True, None), _fft_many("ifft2", True, (-2, -1))


# --- real input or output -------------------------------------------------------------------------


def _forward_real(name: str, x: Tensor, dims: Any, sizes: Any, norm: str) -> Tensor:
    """rfft, or for the names with an h its conjugate with the factor of the inverse."""
    x = _resized(x, dims, sizes)
    return _r2c(x, dims, _FLIPPED[norm]).conj() if "h" in name else _r2c(x, dims, norm)


def _real_one(name: str) -> Any:
    def call(input: Tensor, n: int | None = None, dim: int = -1, norm: Any = None) -> Tensor:
        x = _operand(name, input, False)
        d, size = _one(name, x, n, dim)
        return _forward_real(name, x, (d,), (size,), _norm(norm))
    return _publish(name, call, "The half of the spectrum that is not redundant for real input.")


def _real_many(name: str, default: Any) -> Any:
    def call(input: Tensor, s: Any = None, dim: Any = default, norm: Any = None) -> Tensor:
        x = _operand(name, input, False)
        dims, sizes = _several(name, x, s, dim)
        if not dims:
            raise RuntimeError(f"{name} must transform at least one axis")
        return _forward_real(name, x, dims, sizes, _norm(norm))
    return _publish(name, call, "The half of the spectrum of real input over several dimensions.")


def _backward_real(name: str, x: Tensor, dims: Any, sizes: Any, norm: str) -> Tensor:
    x = _resized(x, dims, (*sizes[:-1], _half(sizes[-1])))
    if name.startswith("h"):
        x, norm = x.conj(), _FLIPPED[norm]
    return _c2r(x, dims, sizes[-1], norm)


def _to_real_one(name: str) -> Any:
    def call(input: Tensor, n: int | None = None, dim: int = -1, norm: Any = None) -> Tensor:
        x = _operand(name, input, True)
        d = wrap_dim(dim, x._a.ndim, name)
        size = 2 * (x._a.shape[d] - 1) if n is None and x._a.ndim else n
        d, size = _one(name, x, size, dim)
        return _backward_real(name, x, (d,), (size,), _norm(norm))
    return _publish(name, call, "The real signal of `n` points from half of a Hermitian spectrum.")


def _to_real_many(name: str, default: Any) -> Any:
    def call(input: Tensor, s: Any = None, dim: Any = default, norm: Any = None) -> Tensor:
        x = _operand(name, input, True)
        dims, sizes = _several(name, x, s, dim)
        if not dims:
            raise RuntimeError(f"{name} must transform at least one axis")
        if s is None or s[-1] == -1:
            sizes[-1] = 2 * (x._a.shape[dims[-1]] - 1)
            _check_sizes(sizes)
        return _backward_real(name, x, dims, sizes, _norm(norm))
    return _publish(name, call, "The real signal from half of a Hermitian spectrum over several "
                                "dimensions.")


rfft, ihfft = _real_one("rfft"), _real_one("ihfft")
rfftn, rfft2 = _real_many("rfftn", None), _real_many("rfft2", (-2, -1))
ihfftn, ihfft2 = _real_many("ihfftn", None), _real_many("ihfft2", (-2, -1))
irfft, hfft = _to_real_one("irfft"), _to_real_one("hfft")
irfftn, irfft2 = _to_real_many("irfftn", None), _to_real_many("irfft2", (-2, -1))
hfftn, hfft2 = _to_real_many("hfftn", None), _to_real_many("hfft2", (-2, -1))


# --- frequencies ----------------------------------------------------------------------------------


def _scaled_bins(bins: Tensor, n: int, d: float, requires_grad: bool) -> Tensor:
    t = bins * (1.0 / (n * d))
    return t.requires_grad_() if requires_grad else t


@op("fft", out=True)
def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None, layout: Any = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """The frequencies of the bins of `fft` for n samples `d` apart."""
    t = arange(n, dtype=dtype or _default(), device=device)
    t = t.where(t < (n + 1) // 2, t - n)
    return _scaled_bins(t, n, d, requires_grad)


@op("fft", out=True)
def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The frequencies of the bins of `rfft` for n samples `d` apart."""
    return _scaled_bins(arange(_half(n), dtype=dtype or _default(), device=device), n, d,
                        requires_grad)


def _default() -> Any:
    from ..tensor.dtype import get_default_dtype

    return get_default_dtype()


def _shifted(name: str, input: Tensor, dim: Any, back: bool) -> Tensor:
    dims = tuple(range(input._a.ndim)) if dim is None else wrap_dims(dim, input._a.ndim, name)
    sizes = [input._a.shape[d] for d in dims]
    return input.roll([(n + 1) // 2 if back else n // 2 for n in sizes], dims) if dims else (
        input.clone())


@op("fft")
def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Bins reordered so that frequency 0 is in the middle."""
    return _shifted("fftshift", input, dim, False)


@op("fft")
def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _shifted("ifftshift", input, dim, True)


# --- short-time transforms ------------------------------------------------------------------------


def _window(name: str, window: Any, n_fft: int, win_length: Any, x: Tensor) -> Tensor:
    """The window, in the middle of `n_fft` samples."""
    length = n_fft if win_length is None else win_length
    if not 0 < length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={length} "
                           f"and n_fft={n_fft}")
    if window is None:
        window = x.real.new_ones(length) if x._dtype.kind == COMPLEX else x.new_ones(length)
    elif window._a.ndim != 1 or window._a.shape[0] != length:
        raise RuntimeError(f"{name}: expected a 1D window tensor of size equal to "
                           f"win_length={length}, but got window with size "
                           f"{list(window._a.shape)}")
    left = (n_fft - length) // 2
    return constant_pad_nd(window, [left, n_fft - length - left]) if length < n_fft else window


def _warn_no_window(name: str) -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn(f"A window was not provided. A rectangular window will be applied, which is "
                  f"known to cause spectral leakage. Other windows such as torch.hann_window or "
                  f"torch.hamming_window are recommended to reduce spectral leakage. Pass "
                  f"window=torch.ones(...) to {name}() to keep the rectangle without this warning.",
                  UserWarning, stacklevel=user_stack_level())


@op()
def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Any = None, center: bool = True, pad_mode: str = "reflect",
         normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """Spectra of overlapping frames of a signal (..., time): (..., frequency, frame)."""
    x = input
    if return_complex is None:
        if x._dtype.kind != COMPLEX and (window is None or window._dtype.kind != COMPLEX):
            raise RuntimeError("stft requires the return_complex parameter be given for real "
                               "inputs, and will further require that return_complex=True in a "
                               "future PyTorch release.")
        return_complex = True
    hop = n_fft // 4 if hop_length is None else hop_length
    _check_signal(x, n_fft, hop)
    if window is None:
        _warn_no_window("stft")
    w = _window("stft", window, n_fft, win_length, x)
    batched = x._a.ndim == 2
    x = x if batched else x.unsqueeze(0)
    if center:
        x = _centred(x, n_fft // 2, pad_mode)
    if n_fft > x._a.shape[-1]:
        raise RuntimeError(f"stft(): expected 0 < n_fft < {x._a.shape[-1]}, but got n_fft={n_fft}")
    out = _spectra(x.unfold(-1, n_fft, hop) * w, n_fft, onesided, normalized)
    out = out.transpose(1, 2)
    out = out if batched else out.squeeze(0)
    if return_complex:
        return out
    from .view import view_as_real

    return view_as_real(out)


def _check_signal(x: Tensor, n_fft: int, hop: int) -> None:
    if x._dtype.kind < FLOAT or x._a.ndim not in (1, 2):
        raise RuntimeError("stft: expected a 1D or 2D tensor of floating point or complex values, "
                           f"but got {x._a.ndim}D of {x._dtype.name}")
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    if n_fft <= 0:
        raise RuntimeError(f"stft: expected n_fft > 0, but got n_fft={n_fft}")


def _centred(x: Tensor, pad: int, mode: str) -> Tensor:
    from .pad import pad as pad_function

    return pad_function(x.unsqueeze(1), [pad, pad], mode).squeeze(1)


def _spectra(frames: Tensor, n_fft: int, onesided: bool | None, normalized: bool) -> Tensor:
    norm = "ortho" if normalized else "backward"
    last = (frames._a.ndim - 1,)
    if frames._dtype.kind == COMPLEX:
        if onesided:
            raise RuntimeError("Cannot have onesided output if window or input is complex")
        return _c2c(frames, last, False, norm)
    if onesided is False:
        return _c2c(cast(frames, frames._dtype.to_complex()), last, False, norm)
    return _r2c(frames, last, norm)


@op()
def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Any = None, center: bool = True, normalized: bool = False,
          onesided: bool | None = None, length: int | None = None,
          return_complex: bool = False) -> Tensor:
    """The signal whose `stft` with the same window comes nearest to `input`."""
    _check_spectrum(input, n_fft, onesided)
    hop = n_fft // 4 if hop_length is None else hop_length
    size = n_fft if win_length is None else win_length
    if not 0 < hop <= size:
        raise RuntimeError(f"istft: expected 0 < hop_length <= win_length: received {hop} and "
                           f"{size}")
    if window is None:
        _warn_no_window("istft")
    w = _window("istft", window, n_fft, win_length, input)
    batched = input._a.ndim == 3
    spectra = (input if batched else input.unsqueeze(0)).transpose(1, 2)
    frames = _frames(spectra, n_fft, onesided, normalized, return_complex) * w
    y = _overlap_added(frames, hop)
    envelope = _overlap_added((w * w).expand((1, *frames._a.shape[1:])), hop)
    y, envelope = (_cut(t, n_fft, length, center) for t in (y, envelope))
    if bool(envelope.abs().min() < 1e-11):
        raise RuntimeError("window overlap add min: 1: istft() needs a window whose squares, "
                           "overlapped at hop_length, are nowhere zero")
    y = y / envelope
    if length is not None and y._a.shape[1] < length:
        y = constant_pad_nd(y, [0, length - y._a.shape[1]])
    return y if batched else y.squeeze(0)


def _check_spectrum(x: Tensor, n_fft: int, onesided: bool | None) -> None:
    if x._dtype.kind != COMPLEX:
        raise RuntimeError("istft requires a complex-valued input tensor matching the output from "
                           f"stft with return_complex=True: received {x._dtype}")
    if x._a.ndim not in (2, 3) or 0 in x._a.shape:
        raise RuntimeError("istft: expected a tensor with 2 or 3 dimensions and elements, but got "
                           f"shape {list(x._a.shape)}")
    bins = x._a.shape[-2]
    expected = n_fft if onesided is False else _half(n_fft)
    if bins != (expected if onesided is not None or bins != n_fft else n_fft):
        raise RuntimeError(f"istft: expected the frequency dimension (3rd to the last) of the input"
                           f" tensor to match n_fft / 2 + 1 when onesided=True, but got {bins} for "
                           f"n_fft={n_fft}")


def _frames(x: Tensor, n_fft: int, onesided: bool | None, normalized: bool,
            return_complex: bool) -> Tensor:
    norm = "ortho" if normalized else "backward"
    last = (x._a.ndim - 1,)
    whole = x._a.shape[-1] == n_fft if onesided is None else not onesided
    if return_complex:
        if not whole:
            raise RuntimeError("Cannot have onesided output if window or input is complex: istft() "
                               "with return_complex=True needs all frequencies")
        return _c2c(x, last, True, norm)
    half = slice_dim(x, x._a.ndim - 1, 0, _half(n_fft), 1) if whole else x
    return _c2r(half, last, n_fft, norm)


def _overlap_added(frames: Tensor, hop: int) -> Tensor:
    """(batch, frame, sample) laid over each other `hop` samples apart."""
    batch, count, size = frames._a.shape
    places = arange(count).unsqueeze(1) * hop + arange(size)
    out = frames.new_zeros((batch, size + hop * (count - 1)))
    return out.index_add(1, places.reshape(-1), frames.reshape((batch, count * size)))


def _cut(t: Tensor, n_fft: int, length: int | None, center: bool) -> Tensor:
    start = n_fft // 2 if center else 0
    if length is not None:
        end = start + length
    else:
        end = t._a.shape[1] - start if center else t._a.shape[1]
    return slice_dim(t, 1, start, min(end, t._a.shape[1]), 1)



"""Vectors and samples: cross and dot products, covariance, integrals and slopes of samples."""

from __future__ import annotations

from typing import Any

from ..tensor.dtype import COMPLEX, FLOAT, bool_
from ..tensor.tensor import Tensor
from .creation import ones_like
from .errors import argument_type, wrap_dim, wrap_dims
from .families import broadcast_shape, conj
from .promotion import cast, float_dtype, result_dtype
from .record import op
from .reduce import vector_norm
from .view import slice_dim

# --- products of vectors --------------------------------------------------------------------------


def _cross(a: Tensor, b: Tensor, dim: int) -> Tensor:
    d = result_dtype(a, b)
    a, b = cast(a, d), cast(b, d)
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)


@op("linalg", out=True, name="cross")
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of 3 elements along `dim`."""
    if input._a.ndim != other._a.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions: received "
                           f"{input._a.ndim} and {other._a.ndim}")
    d = wrap_dim(dim, input._a.ndim, "linalg.cross")
    if input._a.shape[d] != 3 or other._a.shape[d] != 3:
        raise RuntimeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got "
                           f"{input._a.shape[d]} and {other._a.shape[d]}")
    shape = broadcast_shape("linalg.cross", input._a.shape, other._a.shape)
    return _cross(input.expand(shape), other.expand(shape), d)


@op(out=True)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along `dim` (by default the first dimension of size 3)."""
    if dim is not None:
        return linalg_cross(input, other, dim=dim)
    if 3 not in input._a.shape:
        raise RuntimeError("no dimension of size 3 in input: cross() received shape "
                           f"{list(input._a.shape)}")
    return linalg_cross(input, other, dim=input._a.shape.index(3))


@op("linalg", out=True)
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products along `dim`, the first vector conjugated."""
    for t in (x, y):
        if t._dtype.kind < FLOAT:
            raise RuntimeError("linalg.vecdot: Expected a floating point or complex tensor as "
                               f"input. Got {t._dtype.name}")
    return (conj(x) * y).sum(dim)


@op("linalg", name="diagonal")
def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonal of matrices."""
    return A.diagonal(offset, dim1, dim2)


@op()
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input._a.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input._a.ndim}")
    return input.diagonal().sum()


def _powers(x: Tensor, n: int) -> Tensor:
    """x**0 to x**(n-1) in a new last dimension."""
    from .joining import cat

    if n == 0:
        return x.new_empty((*x._a.shape, 0))
    one = ones_like(x.unsqueeze(-1))
    if n == 1:
        return one
    wide = x.unsqueeze(-1).expand((*x._a.shape, n - 1))
    return cat([one, wide.cumprod(-1)], -1)


@op("linalg", name="vander")
def linalg_vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Vandermonde matrices: the powers 0 to N - 1 of every element."""
    x = x.reshape(1) if x._a.ndim == 0 else x
    n = x._a.shape[-1] if N is None else N
    if N is not None and N <= 1:
        raise RuntimeError("N must be greater than 1.")
    return _powers(x, n)


@op("torch")
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix of a vector, powers falling (or rising) from left to right."""
    if x._a.ndim != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor: received {x._a.ndim} dims")
    n = x._a.shape[0] if N is None else N
    if n < 0:
        raise RuntimeError(f"N must be non-negative: received {n}")
    powers = _powers(x if x._dtype.kind >= FLOAT else x.long(), n)
    return powers if increasing else powers.flip((-1,))


# --- distances ------------------------------------------------------------------------------------


@op(inplace=True, out=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along `dim` with a p-norm above `maxnorm` scaled down to it."""
    if input._a.ndim < 2:
        raise RuntimeError("renorm: input needs at least 2 dimensions, got "
                           f"{input._a.ndim} dimensions")
    if p <= 0:
        raise RuntimeError(f"renorm: non-positive-norm not supported: received p={p}")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    d = wrap_dim(dim, input._a.ndim, "renorm")
    rest = [e for e in range(input._a.ndim) if e != d]
    size = vector_norm(input, p, rest, True)
    scale = (maxnorm / (size + 1e-7)).masked_fill(size <= maxnorm, 1)
    return input * scale


@op(out=True)
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of `input - other`."""
    return vector_norm(input - other, p)


# --- covariance -----------------------------------------------------------------------------------


def _check_weights(label: str, w: Any, n: int, kind: str) -> None:
    if w._a.ndim > 1:
        raise RuntimeError(f"cov(): expected {label} to have one or fewer dimensions but got "
                           f"{label} with {w._a.ndim} dimensions")
    if (w._dtype.kind >= FLOAT) is (kind == "integral"):
        raise RuntimeError(f"cov(): expected {label} to have {kind} dtype but got {label} with "
                           f"{w._dtype.name} dtype")
    if w._a.size != n:
        raise RuntimeError(f"cov(): expected {label} to have the same numel as there are "
                           f"observations in the input but got {w._a.size} numel, expected {n}")
    if bool((w < 0).any()):
        raise RuntimeError(f"cov(): {label} cannot be negative")


def _weights(n: int, fweights: Any, aweights: Any) -> Any:
    for label, w, kind in (("fweights", fweights, "integral"),
                           ("aweights", aweights, "floating point")):
        if w is not None:
            _check_weights(label, w, n, kind)
    if fweights is None or aweights is None:
        return fweights if aweights is None else aweights
    return fweights * aweights


@op()
def cov(input: Tensor, *, correction: int = 1, fweights: Any = None,
        aweights: Any = None) -> Tensor:
    """The covariance matrix of variables in rows, observations in columns."""
    if input._a.ndim > 2:
        raise RuntimeError("cov(): expected input to have two or fewer dimensions but got an input "
                           f"with {input._a.ndim} dimensions")
    if input._dtype is bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = input.reshape((1, -1)) if input._a.ndim < 2 else input
    n = x._a.shape[1]
    w = _weights(n, fweights, aweights)
    x = cast(x, float_dtype(x._dtype))
    if w is not None:
        w = w.reshape(-1)
        total = w.sum()
        mean = (x * w).sum(1, keepdim=True) / total
        freedom = _freedom(total, w, aweights, correction)
    else:
        mean, freedom = x.mean(1, keepdim=True), x.new_tensor(max(n - correction, 0)).real
    if bool(freedom <= 0):
        _warn_freedom()
        freedom = freedom * 0
    centred = x - mean
    product = (centred * w if w is not None else centred) @ conj(centred.t())
    return (product / freedom).squeeze()


def _freedom(total: Any, w: Any, aweights: Any, correction: int) -> Any:
    if correction == 0:
        return total
    if aweights is None:
        return total - correction
    return total - correction * (w * aweights.reshape(-1)).sum() / total


def _warn_freedom() -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn("cov(): degrees of freedom is <= 0. Correction should be strictly less than the "
                  "number of observations.", UserWarning, stacklevel=user_stack_level())


@op()
def corrcoef(input: Tensor) -> Tensor:
    """Correlation coefficients of variables in rows, observations in columns."""
    if input._a.ndim > 2:
        raise RuntimeError("corrcoef(): expected input to have two or fewer dimensions but got an "
                           f"input with {input._a.ndim} dimensions")
    c = cov(input)
    if c._a.ndim == 0:
        return c / c
    d = c.diagonal()
    scale = (d.real if d._dtype.kind == COMPLEX else d).sqrt()
    c = c / scale.unsqueeze(0) / scale.unsqueeze(1)
    if c._dtype.kind == COMPLEX:
        from .complex_numbers import complex as make_complex

        return make_complex(c.real.clamp(-1, 1), c.imag.clamp(-1, 1))
    return c.clamp(-1, 1)


# --- samples of a function ------------------------------------------------------------------------


def _neighbours(y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    n = y._a.shape[dim]
    return y.narrow(dim, 0, max(n - 1, 0)), y.narrow(dim, min(1, n), max(n - 1, 0))


def _strips(name: str, y: Tensor, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas of all strips between neighbours, twice."""
    if not isinstance(y, Tensor):
        raise argument_type(name, "y", "Tensor", y)
    if y._dtype is bool_:
        raise RuntimeError(f"{name}: received a bool input for `y`, but bool is not supported")
    d = wrap_dim(dim, y._a.ndim, name)
    if x is None:
        low, high = _neighbours(y, d)
        return (low + high) * dx, d
    width = _widths(name, y, x, d)
    d -= y._a.ndim
    if x._a.ndim > y._a.ndim:
        y = y.reshape((1,) * (x._a.ndim - y._a.ndim) + y._a.shape)
    low, high = _neighbours(y, d % y._a.ndim)
    strips = (low + high) * width
    return strips, d % strips._a.ndim


def _widths(name: str, y: Tensor, x: Tensor, d: int) -> Tensor:
    if x._dtype is bool_:
        raise RuntimeError(f"{name}: received a bool input for `x`, but bool is not supported")
    if x._a.ndim == 1:
        if x._a.shape[0] != y._a.shape[d]:
            raise RuntimeError(f"{name}: There must be one `x` value for each sample point: got"
                               f" {x._a.shape[0]} and {y._a.shape[d]}")
        step = x.diff()
        return step.reshape(step._a.shape + (1,) * (y._a.ndim - d - 1))
    low, high = _neighbours(x, (d - y._a.ndim) % x._a.ndim)
    return high - low


@op("torch", aliases="trapz")
def trapezoid(y: Tensor, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of samples `y` along `dim` by the trapezoid rule."""
    if y._a.ndim and y._a.shape[wrap_dim(dim, y._a.ndim, "trapezoid")] == 0:
        d = wrap_dim(dim, y._a.ndim, "trapezoid")
        return y.new_zeros(y._a.shape[:d] + y._a.shape[d + 1:])
    strips, d = _strips("trapezoid", y, x, dx, dim)
    return strips.sum(d) / 2


@op("torch")
def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integrals from the first sample up to each of the others."""
    strips, d = _strips("cumulative_trapezoid", y, x, dx, dim)
    return strips.cumsum(d) / 2


@op("torch")
def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None,
             edge_order: int = 1) -> tuple[Tensor, ...]:
    """Slopes along each dimension by central differences, second order in the spacing."""
    if edge_order not in (1, 2):
        raise RuntimeError(f"torch.gradient only supports edge_order=1 and edge_order=2: received "
                           f"{edge_order}")
    n = input._a.ndim
    dims = tuple(range(n)) if dim is None else wrap_dims(dim, n, "gradient")
    steps = _spacings(spacing, dims)
    for d in dims:
        if input._a.shape[d] < edge_order + 1:
            raise RuntimeError("torch.gradient expected each dimension size to be at least "
                               f"edge_order+1: received {list(input._a.shape)}")
    return tuple(_slope(input, d, step, edge_order) for d, step in zip(dims, steps, strict=True))


def _spacings(spacing: Any, dims: tuple[int, ...]) -> list[Any]:
    if not isinstance(spacing, (list, tuple)):
        return [1 if spacing is None else spacing] * len(dims)
    if len(spacing) != len(dims):
        raise RuntimeError("torch.gradient expected spacing to be unspecified, a scalar or a list "
                           f"of length {len(dims)}, but got a list of length {len(spacing)}")
    return list(spacing)


def _slope(f: Tensor, d: int, step: Any, edge_order: int) -> Tensor:
    """Weights of three neighbours for their distances (Fornberg 1988); one-sided at the edges."""
    from .joining import cat

    n = f._a.shape[d]
    if isinstance(step, Tensor) and step._a.ndim:
        if step._a.shape[0] != n:
            raise RuntimeError("torch.gradient expected each element of spacing to have as many "
                               f"coordinates as the input has samples: received {step._a.shape[0]} "
                               f"and {n}")
        h = step.diff().reshape((-1,) + (1,) * (f._a.ndim - d - 1))
    else:
        h = f.new_ones((n - 1,) + (1,) * (f._a.ndim - d - 1)) * step
    low, high = h[:-1], h[1:]

    def at(start: int, count: int) -> Tensor:
        return slice_dim(f, d, start, start + count, 1)
    inner = (-high / (low * (low + high)) * at(0, n - 2)
             + (high - low) / (low * high) * at(1, n - 2)
             + low / (high * (low + high)) * at(2, n - 2)) if n > 2 else at(0, 0)
    if edge_order == 1:
        first, last = (at(1, 1) - at(0, 1)) / h[:1], (at(n - 1, 1) - at(n - 2, 1)) / h[-1:]
    else:
        first = _one_sided(at(0, 1), at(1, 1), at(2, 1), h[:1], h[1:2])
        last = -_one_sided(at(n - 1, 1), at(n - 2, 1), at(n - 3, 1), h[-1:], h[-2:-1])
    return cat([first, inner, last], d)


def _one_sided(f0: Tensor, f1: Tensor, f2: Tensor, h0: Tensor, h1: Tensor) -> Tensor:
    total = h0 + h1
    return (-(h0 + total) / (h0 * total) * f0 + total / (h0 * h1) * f1 - h0 / (h1 * total) * f2)

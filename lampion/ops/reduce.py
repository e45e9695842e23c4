"""Reductions and scans: sum, mean, max, norm, softmax, cumsum, ..."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime import memory
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.dtype import COMPLEX, FLOAT, bool_, dtype, float32, float64, int64, uint8
from ..tensor.names import scalar_type
from ..tensor.tensor import Tensor, wrap
from .creation import check_dtype
from .errors import argument_type, not_implemented_for, wrap_dim, wrap_dims
from .families import Array, conj
from .indexing import gather_backward
from .native import SINGLE
from .promotion import cast
from .record import leaf, not_differentiable, op, same_shape
from .reference.along import put_along, take_along
from .results import result_tuple

__all__ = ["all_dims", "reduced_shape", "unreduce"]


def all_dims(input: Tensor, dim: Any, name: str) -> tuple[int, ...]:
    """The dimensions meant by `dim`: None and () mean all."""
    n = input._a.ndim
    if dim is None:
        return tuple(range(n))
    if dim.__class__ is int:
        return (wrap_dim(dim, n, name),) if n else _no_dims(dim, name)
    dims = wrap_dims(dim, n, name)
    return (dims if n else ()) if dims else tuple(range(n))


def _no_dims(dim: int, name: str) -> tuple[int, ...]:
    wrap_dim(dim, 0, name)
    return ()


def reduced_shape(shape: tuple[int, ...], dims: Any, keepdim: bool) -> tuple[int, ...]:
    """The shape after reducing `dims` (None: all of them)."""
    if dims is None:
        return (1,) * len(shape) if keepdim else ()
    return tuple(1 if d in dims else n for d, n in enumerate(shape) if keepdim or d not in dims)


def _reduced(a: Any, dims: Any, keepdim: bool, *_: Any) -> Any:
    return reduced_shape(a.shape, dims, keepdim), a.dtype


def _reduced_bool(a: Any, dims: Any, keepdim: bool) -> Any:
    return reduced_shape(a.shape, dims, keepdim), np.dtype(np.bool_)


def unreduce(g: Tensor, shape: tuple[int, ...], dims: Any, keepdim: bool) -> Tensor:
    """`g` with the reduced dimensions back, at size 1."""
    return g if keepdim or not shape else g.reshape(reduced_shape(shape, dims, True))


def _expand_back(g: Any, input_shape: Any, dims: Any, keepdim: Any) -> Any:
    if dims is None and not keepdim:
        return g.expand(input_shape)
    return unreduce(g, input_shape, dims, keepdim).expand(input_shape)


@leaf({"input": _expand_back}, name="sum", shape=_reduced, node=lambda tensors, attrs: (
    f"SumBackward{int(attrs[0] is not None)}"))
def _sum(input: Array, dims: Any, keepdim: bool) -> Array:
    return input.sum(dims, dtype=input.dtype, keepdims=keepdim)


def _sum_dtype(input: Tensor, d: dtype | None) -> Tensor:
    """Operand of a sum: in `d`, or integers and bools in int64."""
    if d is None:
        return input if input._dtype.kind >= FLOAT else cast(input, int64)
    return cast(input, d)


_NATIVE = frozenset((float32, float64, int64))
_add_reduce: Any = np.add.reduce
_empty, _ndarray = np.empty, np.ndarray


@op(out=True)
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
        axis: Any = None, keepdims: bool | None = None) -> Tensor:
    """The sum of all elements, or over the dimensions `dim`.

    >>> import lampion as torch
    >>> torch.tensor([[1, 2], [3, 4]]).sum(0)
    tensor([4, 6])
    """
    if not isinstance(input, Tensor):
        raise argument_type("sum", "input", "Tensor", input)
    if dim is None and dtype is None and axis is None and not (
            keepdim or input._rg or input._base is not None):
        a, d = input._a, input._dtype
        if a.__class__ is _ndarray and d in _NATIVE and a.size < SINGLE:
            # Into a 0-d array: cheaper than making one of the scalar that NumPy would return.
            total = _empty((), a.dtype)
            token = enter(IGNORE)
            try:
                _add_reduce(a, None, None, total)
            finally:
                leave(token)
            return wrap(total, d)
    dims = dim if axis is None else axis
    dims = None if dims is None else all_dims(input, dims, "sum")
    return _sum(_sum_dtype(input, check_dtype(dtype)), dims,
                keepdim if keepdims is None else keepdims)


@op(out=True)
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum with NaN counted as zero."""
    if input._dtype.kind == COMPLEX:
        raise RuntimeError("nansum does not support complex inputs")
    return sum(input.masked_fill(input.isnan(), 0), dim, keepdim, dtype=dtype)


def _count(shape: Any, dims: Any) -> int:
    return math.prod(shape if dims is None else (shape[d] for d in dims))


def _by_dims(name: str) -> Any:
    """Node names of a reduction: of everything, or over dimensions."""
    return lambda tensors, attrs: f"{name}Backward{int(attrs[0] is not None)}"


@leaf({"input": lambda g, input_shape, dims, keepdim: _expand_back(
    g, input_shape, dims, keepdim) / _count(input_shape, dims)}, name="mean", shape=_reduced,
    node=_by_dims("Mean"))
def _mean(input: Array, dims: Any, keepdim: bool) -> Array:
    return input.sum(dims, keepdims=keepdim) / np.asarray(
        _count(input.shape, dims)).astype(input.dtype)


@op(out=True)
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
         axis: Any = None, keepdims: bool | None = None) -> Tensor:
    """The mean of all elements, or over the dimensions `dim`; floating point only."""
    x = input if dtype is None else cast(input, check_dtype(dtype))  # type: ignore[arg-type]
    if x._dtype.kind < FLOAT:
        raise RuntimeError("mean(): could not infer output dtype. Input dtype must be either a "
                           f"floating point or complex dtype. Got: {scalar_type(x._dtype)}; "
                           "convert it with .float()")
    dims = dim if axis is None else axis
    dims = None if dims is None else all_dims(x, dims, "mean")
    return _mean(x, dims, keepdim if keepdims is None else keepdims)


@op(out=True)
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *,
            dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / (~input.isnan()).sum(dim, keepdim)


# --- products -------------------------------------------------------------------------------------


def _prod_grad(g: Any, input: Any, dims: Any, keepdim: Any) -> Any:
    """Products of all the other elements, from both sides, so that zeros are no trouble."""
    g = unreduce(g, input._a.shape, dims, keepdim)
    x = input.reshape(-1) if dims is None or not dims else input
    d = dims[0] if dims else 0
    if x._a.shape[d] == 0:
        return input * g
    one = x.narrow(d, 0, 1) * 0 + 1
    n = x._a.shape[d]
    before = Tensor._cat([one, x.narrow(d, 0, n - 1)], d).cumprod(d)
    after = Tensor._cat([one, x.flip((d,)).narrow(d, 0, n - 1)], d).cumprod(d).flip((d,))
    return g * conj((before * after).reshape(input._a.shape))


@leaf({"input": _prod_grad}, name="prod", shape=_reduced, node=_by_dims("Prod"))
def _prod(input: Array, dims: Any, keepdim: bool) -> Array:
    return input.prod(dims, dtype=input.dtype, keepdims=keepdim)


@op(out=True)
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *,
         dtype: Any = None) -> Tensor:
    """The product of all elements, or along `dim`."""
    x = _sum_dtype(input, check_dtype(dtype))
    return _prod(x, None if dim is None else all_dims(x, dim, "prod"), keepdim)


# --- truth ----------------------------------------------------------------------------------------


def _truth(name: str, kernel: Callable[..., Any]) -> Any:
    def reference(input: Array, dims: Any, keepdim: bool) -> Array:
        return kernel(input.astype(bool), dims, keepdims=keepdim)
    reference.__name__ = name
    truth_leaf = leaf(not_differentiable("the result is bool"), shape=_reduced_bool,
                      exact=True)(reference)

    def call(input: Tensor, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Tensor:
        if not isinstance(input, Tensor):
            raise argument_type(name, "input", "Tensor", input)
        found = dim if axis is None else axis
        dims = () if found == () and found is not None else all_dims(input, found, name)
        out = truth_leaf(input, dims, keepdim)
        return cast(out, uint8) if input._dtype is uint8 else out
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Whether {name} elements are nonzero, altogether or along `dim`."
    return op(out=True)(call)


all = _truth("all", np.all)
any = _truth("any", np.any)


@op()
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero."""
    return (input != 0).sum(dim)


# --- extremes -------------------------------------------------------------------------------------


def _check_not_empty(input: Tensor, dims: Any, name: str) -> None:
    shape = input._a.shape
    for d in dims:
        if shape and shape[d] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {d} to have non-zero size; "
                             f"received shape {list(shape)}")
    if not dims and 0 in shape:
        raise RuntimeError(f"{name}(): Expected reduction dim to be specified for input.numel() == "
                           "0. Specify the reduction dim with the 'dim' argument.")


def _check_real(name: str, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    if input._dtype.kind == COMPLEX:
        raise not_implemented_for(name, input._dtype, "complex numbers have no order")
    if input._dtype is bool_ and name in ("argmax", "argmin"):
        raise not_implemented_for(name, input._dtype)


def _share_ties(g: Any, input: Any, out: Any, dims: Any, keepdim: Any) -> Any:
    """Gradient of an extreme value: shared evenly among the elements that reach it."""
    shape = input._a.shape
    mask = input == unreduce(out, shape, dims, keepdim)
    return mask * (unreduce(g, shape, dims, keepdim) / mask.sum(dims, keepdim=True))


def _extreme_value(name: str, kernel: Callable[..., Any]) -> Any:
    def reference(input: Array, dims: Any, keepdim: bool) -> Array:
        return kernel(input, dims, keepdims=keepdim)
    reference.__name__ = name
    return leaf({"input": _share_ties}, shape=_reduced)(reference)


_amax, _amin = _extreme_value("amax", np.max), _extreme_value("amin", np.min)


def _extreme_op(name: str, value: Any) -> Any:
    def call(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        _check_real(name, input)
        dims = all_dims(input, dim, name)
        if 0 in input._a.shape:
            _check_not_empty(input, dims if dim != () else (), name)
        return value(input, dims, keepdim)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The {'largest' if name == 'amax' else 'smallest'} elements over `dim`; " \
                   "gradients are shared among equal ones."
    return op(out=True)(call)


amax, amin = _extreme_op("amax", _amax), _extreme_op("amin", _amin)


@op(out=True)
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest elements together."""
    both = [fn(input, () if dim is None else dim, keepdim) for fn in (amin, amax)]
    return result_tuple("aminmax", "min max")(*both)


@leaf({"src": lambda g, index, dim: g.gather(dim, index)}, name="placed", exact=True,
      shape=lambda src, index, shape, dim: (shape, src.dtype))
def placed(src: Array, index: Any, shape: Any, dim: int) -> Array:
    """Zeros of a shape, with `src` at the places of `index` along `dim`."""
    out = memory.empty(tuple(shape), src.dtype)
    out.fill(0)
    put_along(out, index._a, src, dim)
    return out


def _value_selecting_grad(g: Any, out1: Any, input_shape: Any, dim: int, keepdim: bool) -> Any:
    """Gradient of a value picked by index along `dim`."""
    grad, index = g[0], out1
    if not input_shape:
        return grad
    if not keepdim:
        grad, index = grad.unsqueeze(dim), index.unsqueeze(dim)
    return placed(grad, index, input_shape, dim)


def _pair_shape(a: Any, dim: int, keepdim: bool) -> Any:
    shape = reduced_shape(a.shape, (dim,), keepdim)
    return [(shape, a.dtype), (shape, np.dtype(np.int64))]


def _arg_extreme(name: str, find: Callable[..., Any]) -> Any:
    def reference(input: Array, dim: int, keepdim: bool) -> Any:
        if input.ndim == 0:
            return input.copy(), np.zeros((), np.int64)
        index = find(input, dim)
        index = index.reshape((*input.shape[:dim], 1, *input.shape[dim + 1:]))
        value = take_along(input, index, dim)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))
    reference.__name__ = name + "_dim"
    return leaf({"input": _value_selecting_grad}, node=name.capitalize() + "Backward0",
                shape=_pair_shape, exact=True)(reference)


def _argmax(a: Array, dim: int) -> Array:
    return np.argmax(a, dim).astype(np.int64, copy=False)


def _argmin(a: Array, dim: int) -> Array:
    return np.argmin(a, dim).astype(np.int64, copy=False)


def _max_op(name: str, value: Any, arg: Callable[..., Any], pairwise: str) -> Any:
    along = _arg_extreme(name, arg)
    names = result_tuple(name, "values indices")

    def reference(input: Array) -> Array:
        return input.max() if name == "max" else input.min()
    reference.__name__ = name
    whole = leaf({"input": lambda g, input, out: _share_ties(
        g, input, out, tuple(range(input._a.ndim)), False)},
        shape=lambda a: ((), a.dtype), node=name.capitalize() + "Backward1")(reference)

    def call(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None,
             axis: Any = None, keepdims: bool | None = None) -> Any:
        _check_real(name, input)
        dim = dim if axis is None else axis
        if isinstance(dim, Tensor) or other is not None:
            return getattr(input, pairwise)(dim if other is None else other)
        if dim is None:
            _check_not_empty(input, (), name)
            return whole(input)
        d = wrap_dim(dim, input._a.ndim, name)
        _check_not_empty(input, (d,), name)
        return names(*along(input, d, keepdim if keepdims is None else keepdims))
    call.__name__ = call.__qualname__ = name
    side = "largest" if name == "max" else "smallest"
    call.__doc__ = f"The {side} element; along `dim` with its index; or of two tensors."
    return op(out=True)(call)


max = _max_op("max", _amax, _argmax, "maximum")
min = _max_op("min", _amin, _argmin, "minimum")


def _arg_op(name: str, find: Callable[..., Any]) -> Any:
    def reference(input: Array, dim: int, keepdim: bool) -> Array:
        if input.ndim == 0:
            return np.zeros((), np.int64)
        index = find(input, dim)
        return np.expand_dims(index, dim) if keepdim else index
    reference.__name__ = name
    index_leaf = leaf(not_differentiable("the result is an index"), exact=True,
                      shape=lambda a, d, k: (reduced_shape(a.shape, (d,), k),
                                             np.dtype(np.int64)))(reference)

    def call(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        _check_real(name, input)
        if dim is None:
            _check_not_empty(input, (), name)
            index = index_leaf(input.reshape(-1), 0, False)
            return index.reshape((1,) * input._a.ndim) if keepdim else index
        d = wrap_dim(dim, input._a.ndim, name)
        _check_not_empty(input, (d,), name)
        return index_leaf(input, d, keepdim)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The index of the {'largest' if name == 'argmax' else 'smallest'} element."
    return op(out=True)(call)


argmax, argmin = _arg_op("argmax", _argmax), _arg_op("argmin", _argmin)

# --- spread ---------------------------------------------------------------------------------------


def _var_grad(g: Any, input: Any, dims: Any, correction: Any, keepdim: Any) -> Any:
    n = _count(input._a.shape, dims)
    scale = 2.0 / (n - correction) if n != correction else math.nan
    return unreduce(g, input._a.shape, dims, keepdim) * (
        scale * (input - input.mean(dims or None, keepdim=True)))


def _std_grad(g: Any, input: Any, out: Any, dims: Any, correction: Any, keepdim: Any) -> Any:
    g = (g / (out * 2)).masked_fill(out == 0, 0)
    return _var_grad(g, input, dims, correction, keepdim)


def _variance(a: Array, dims: Any, correction: Any, keepdim: bool) -> Array:
    wide = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    center = wide - wide.mean(dims, keepdims=True)
    total = (center * center.conj()).real.sum(dims, keepdims=keepdim)
    real = np.dtype(a.real.dtype)
    left = np.float64(_count(a.shape, dims)) - correction
    return (total / (left if left > 0 else np.float64(0))).astype(real)


def _spread_shape(a: Any, dims: Any, correction: Any, keepdim: bool) -> Any:
    return reduced_shape(a.shape, dims, keepdim), np.zeros((), a.dtype).real.dtype


@leaf({"input": _var_grad}, name="var", shape=_spread_shape)
def _var(input: Array, dims: Any, correction: Any, keepdim: bool) -> Array:
    return _variance(input, dims, correction, keepdim)


@leaf({"input": _std_grad}, name="std", shape=_spread_shape)
def _std(input: Array, dims: Any, correction: Any, keepdim: bool) -> Array:
    return np.sqrt(_variance(input, dims, correction, keepdim))


def _spread(name: str, spread_leaf: Any, with_mean: bool = False) -> Any:
    def call(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None, axis: Any = None) -> Any:
        dim = dim if axis is None else axis
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if input._dtype.kind < FLOAT:
            raise RuntimeError(f"{name} only support floating point and complex dtypes, received "
                               f"{input._dtype}; convert it with .float()")
        by = correction if correction is not None else 1 if unbiased in (None, True) else 0
        dims = all_dims(input, dim, name)
        out = spread_leaf(input, dims, by, keepdim)
        if with_mean:
            return out, input.mean(dims or None, keepdim)
        return out
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`{name}` over `dim`, divided by n - correction (default 1)."
    return op("torch" if with_mean else "torch Tensor", out=not with_mean)(call)


var, std = _spread("var", _var), _spread("std", _std)
var_mean, std_mean = _spread("var_mean", _var, True), _spread("std_mean", _std, True)

# --- softmax and log-sum-exp ----------------------------------------------------------------------


def _safe_max(a: Array, dims: Any) -> Array:
    top = a.max(dims, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(top), top, np.zeros((), a.dtype))


@leaf({"input": lambda g, input, out, dims, keepdim: unreduce(
    g, input._a.shape, dims, keepdim) * conj((input - unreduce(
        out, input._a.shape, dims, keepdim)).exp())}, name="logsumexp", shape=_reduced)
def _logsumexp(input: Array, dims: Any, keepdim: bool) -> Array:
    if input.dtype.kind == "c":
        return np.log(np.exp(input).sum(dims, keepdims=keepdim))
    top = _safe_max(input, dims)
    total = np.log(np.exp(input - top).sum(dims, keepdims=True)) + top
    return total if keepdim else total.squeeze(dims)


@op("torch Tensor special", out=True)
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of exponentials over `dim`, without overflow."""
    from .promotion import float_dtype

    x = cast(input, float_dtype(input._dtype))
    return _logsumexp(x, all_dims(x, dim, "logsumexp"), keepdim)


@leaf({"input": lambda g, out, dim: (g - (g * out).sum(dim, keepdim=True)) * out},
      name="softmax", shape=same_shape)
def _softmax(input: Array, dim: int) -> Array:
    if input.ndim == 0:
        return np.ones_like(input)
    e = np.exp(input - input.max(dim, keepdims=True, initial=-np.inf))
    e *= np.reciprocal(e.sum(dim, keepdims=True))  # the sum is at least 1: one division a row
    return e


@leaf({"input": lambda g, out, dim: g - out.exp() * g.sum(dim, keepdim=True)},
      name="log_softmax", shape=same_shape)
def _log_softmax(input: Array, dim: int) -> Array:
    if input.ndim == 0:
        return np.zeros_like(input)
    x = input - input.max(dim, keepdims=True, initial=-np.inf)
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


def _softmax_op(name: str, softmax_leaf: Any, doc: str) -> Any:
    def compute(input: Tensor, dim: int, dtype: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise argument_type(name, "input", "Tensor", input)
        x = input if dtype is None else cast(input, check_dtype(dtype))  # type: ignore[arg-type]
        if x._dtype.kind != FLOAT:
            raise not_implemented_for(f"{name}_lastdim_kernel_impl", x._dtype,
                                      "it takes floating point tensors")
        return softmax_leaf(x, wrap_dim(dim, x._a.ndim, name))

    def call(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
        return compute(input, dim, dtype)

    def functional(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
                   dtype: Any = None) -> Tensor:
        return compute(input, _implicit_dim(name, input) if dim is None else dim, dtype)
    for fn in (call, functional):
        fn.__name__ = fn.__qualname__ = name
        fn.__doc__ = doc
    op("F")(functional)
    return op("torch Tensor special", out=True)(call)


def _implicit_dim(name: str, input: Tensor) -> int:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to "
                  "include dim=X as an argument.", UserWarning, stacklevel=user_stack_level())
    return 0 if input._a.ndim in (0, 1, 3) else 1


softmax = _softmax_op("softmax", _softmax, "Exponentials normalised to sum to 1 along `dim`.")
log_softmax = _softmax_op("log_softmax", _log_softmax, "The logarithm of softmax along `dim`.")

# --- norms ----------------------------------------------------------------------------------------


def _norm_grad(g: Any, input: Any, out: Any, p: Any, dims: Any, keepdim: Any) -> Any:
    shape = input._a.shape
    g, n = unreduce(g, shape, dims, keepdim), unreduce(out, shape, dims, keepdim)
    if p == 0:
        return input * 0
    if p == 2:
        return input * (g / n).masked_fill(n == 0, 0)
    if p == 1:
        return input.sgn() * g
    if math.isinf(p):
        mask = input.abs() == n
        return input.sgn() * (mask / mask.sum(dims, keepdim=True)) * g
    scaled = input.sgn() * input.abs() ** (p - 1) * (g / n ** (p - 1))
    return scaled.masked_fill((n == 0) | (input == 0), 0) if p >= 1 else scaled.masked_fill(
        input == 0, 0)


def _vector_norm_shape(a: Any, p: Any, dims: Any, keepdim: bool) -> Any:
    return reduced_shape(a.shape, dims, keepdim), np.zeros((), a.dtype).real.dtype


@leaf({"input": _norm_grad}, name="linalg_vector_norm", shape=_vector_norm_shape)
def _vector_norm(input: Array, p: Any, dims: Any, keepdim: bool) -> Array:
    size = np.abs(input)
    if p == 2:
        return np.sqrt((size * size).sum(dims, keepdims=keepdim))
    if p == 1:
        return size.sum(dims, keepdims=keepdim)
    if p == 0:
        return (size != 0).sum(dims, keepdims=keepdim).astype(size.dtype)
    if math.isinf(p):
        return (size.max if p > 0 else size.min)(dims, keepdims=keepdim)
    return np.power(np.power(size, p).sum(dims, keepdims=keepdim), 1.0 / p)


@op("linalg", out=True)
def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """The p-norm of all elements, or over the dimensions `dim`, seen as vectors."""
    x = x if dtype is None else cast(x, check_dtype(dtype))  # type: ignore[arg-type]
    if x._dtype.kind < FLOAT:
        raise RuntimeError("linalg.vector_norm: Expected a floating point or complex tensor as "
                           f"input. Got {x._dtype.name.capitalize()}; convert it with .float()")
    dims = all_dims(x, dim, "linalg.vector_norm")
    if (ord < 0 or math.isinf(ord)) and _count(x._a.shape, dims) == 0:
        raise RuntimeError(f"linalg.vector_norm cannot compute the {ord} norm on an empty tensor "
                           "because the operation does not have an identity")
    return _vector_norm(x, float(ord), dims, keepdim)


@op(out=True)
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False,
         dtype: Any = None) -> Tensor:
    """The p-norm; "fro" is the 2-norm of all elements, "nuc" the sum of singular values."""
    if p == "nuc":
        from .decompositions import matrix_norm

        return matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim)
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


# --- scans ----------------------------------------------------------------------------------------


@leaf({"input": lambda g, dim, reverse: _cumsum(g, dim, not reverse)}, name="cumsum",
      shape=same_shape)
def _cumsum(input: Array, dim: int, reverse: bool) -> Array:
    return _accumulated(np.add, input, dim, reverse)


def _accumulated(function: np.ufunc, input: Array, dim: int, reverse: bool = False) -> Array:
    """A scan of floats in float64, as PyTorch makes it, and of others in their own type."""
    wide = np.float64 if input.dtype == np.float32 else input.dtype
    return _scanned(function, input, dim, reverse, wide).astype(input.dtype, copy=False)


def _scanned(function: np.ufunc, input: Array, dim: int, reverse: bool, wide: Any) -> Array:
    """`function` of all elements up to and including each along `dim`; reverse: of those after."""
    if input.ndim == 0:
        return input.copy()
    if reverse:
        return np.flip(_scanned(function, np.flip(input, dim), dim, False, wide), dim).copy()
    return function.accumulate(input, dim, dtype=wide)


@op(inplace=True, out=True)
def cumsum(input: Tensor, dim: int | None = None, *, dtype: Any = None,
           axis: int | None = None) -> Tensor:
    """Sums of the elements up to and including each, along `dim`."""
    d = wrap_dim(dim if axis is None else axis, input._a.ndim, "cumsum")
    return _cumsum(_sum_dtype(input, check_dtype(dtype)), d, False)


def _cumprod_grad(g: Any, input: Any, out: Any, dim: int) -> Any:
    if not bool((input == 0).any()):
        return _cumsum(g * conj(out), dim, True) / conj(input)
    total = None
    for i in range(input._a.shape[dim]):
        # d out[k] / d input[i] = product of the other inputs up to k, for k >= i
        rest = input.narrow(dim, i, 1) * 0 + 1
        if i:
            rest = rest * input.narrow(dim, 0, i).prod(dim, keepdim=True)
        later = input.narrow(dim, i + 1, input._a.shape[dim] - i - 1)
        chain = Tensor._cat([rest, rest * later.cumprod(dim)], dim)
        part = (g.narrow(dim, i, chain._a.shape[dim]) * conj(chain)).sum(dim, keepdim=True)
        total = part if total is None else Tensor._cat([total, part], dim)
    return total


@leaf({"input": _cumprod_grad}, name="cumprod", shape=same_shape)
def _cumprod(input: Array, dim: int) -> Array:
    return _accumulated(np.multiply, input, dim)


@op(inplace=True, out=True)
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Products of the elements up to and including each, along `dim`."""
    return _cumprod(_sum_dtype(input, check_dtype(dtype)),
                    wrap_dim(dim, input._a.ndim, "cumprod"))


def _logcumsumexp_grad(g: Any, input: Any, out: Any, dim: int, reverse: bool) -> Any:
    """Both signs of g apart, so that the sums stay in the logarithmic domain."""
    if g._a.ndim == 0:
        return g

    def part(positive: Any) -> Any:
        absent = positive <= 0
        logs = positive.masked_fill(absent, 1).log().masked_fill(absent, -1e30) - out
        return (_logcumsumexp(logs, dim, not reverse) + input).exp()
    return part(g.clamp(min=0)) - part((-g).clamp(min=0))


@leaf({"input": _logcumsumexp_grad}, name="logcumsumexp", shape=same_shape)
def _logcumsumexp(input: Array, dim: int, reverse: bool) -> Array:
    return _scanned(np.logaddexp, input, dim, reverse, input.dtype)


@op(out=True)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Logarithms of the cumulative sums of exponentials along `dim`."""
    return _logcumsumexp(input, wrap_dim(dim, input._a.ndim, "logcumsumexp"), False)


def _cum_extreme(name: str, ufunc: Any, better: Any) -> Any:
    def reference(input: Array, dim: int) -> Any:
        if input.ndim == 0:
            return input.copy(), np.zeros((), np.int64)
        values = ufunc.accumulate(input, dim)
        shape = [1] * input.ndim
        shape[dim] = -1
        places = np.arange(input.shape[dim]).reshape(shape)
        hit = np.where((input == values) | (np.isnan(input) if input.dtype.kind == "f" else False),
                       places, 0)
        return values, np.maximum.accumulate(hit, dim).astype(np.int64)
    reference.__name__ = name

    def grad(g: Any, out1: Any, dim: int, input_shape: Any) -> Any:
        if not input_shape:
            return g[0]
        return gather_backward(g[0], input_shape, dim, out1)
    scan = leaf({"input": grad}, shape=lambda a, d: [(a.shape, a.dtype), (
        a.shape, np.dtype(np.int64))], exact=True)(reference)
    names = result_tuple(name, "values indices")

    def call(input: Tensor, dim: int) -> Any:
        return names(*scan(input, wrap_dim(dim, input._a.ndim, name)))
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The {better} element so far along `dim`, with its index."
    return op(out=True)(call)


cummax = _cum_extreme("cummax", np.maximum, "largest")
cummin = _cum_extreme("cummin", np.minimum, "smallest")


@op(out=True)
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None,
         append: Any = None) -> Tensor:
    """Differences of neighbours along `dim`, taken `n` times."""
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    if input._a.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    d = wrap_dim(dim, input._a.ndim, "diff")
    parts = [t for t in (prepend, input, append) if t is not None]
    x = Tensor._cat(parts, d) if len(parts) > 1 else input
    if n == 0:
        return input.clone()
    for _ in range(n):
        m = x._a.shape[d]
        if m == 0:
            return x
        high, low = x.narrow(d, 1, m - 1), x.narrow(d, 0, m - 1)
        x = high ^ low if x._dtype is bool_ else high - low
    return x


"""Pooling: maxima (with indices), averages, power averages, adaptive and fractional windows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..tensor.tensor import Tensor
from .errors import argument_type, not_implemented_for
from .families import Array
from .record import Leaf, leaf, op
from .reference import pool as reference
from .resize import adaptive_mean

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

Ints = tuple[int, ...]
_INDEX = np.dtype(np.int64)


# -- leaves: values at places of a plane, and back


@leaf(
    {"input": lambda g, index, input_shape: scatter_planes(g, index, input_shape[2:])},
    shape=lambda input, index: (index.shape, input.dtype),
    exact=True,
)
def gather_planes(input: Array, index: Array) -> Any:
    """Elements of each (N, C) plane at flat positions."""
    return reference.gather_planes(input, index)


@leaf(
    {"values": lambda g, index: gather_planes(g, index)},
    shape=lambda values, index, spatial: ((*values.shape[:2], *spatial), values.dtype),
)
def scatter_planes(values: Array, index: Array, spatial: Ints) -> Any:
    """Zeros with values added at flat positions of their (N, C) plane."""
    return reference.scatter_planes(values, index, spatial)


def _unpool(values: Array, index: Array, spatial: Ints) -> Any:
    """Zeros with values written at flat positions of their (N, C) plane."""
    return reference.place_planes(values, index, spatial)


def _unpool_leaf(dims: int) -> Leaf:
    return leaf(
        {"values": lambda g, index: gather_planes(g, index)},
        name=f"max_unpool{dims}d",
        node=f"MaxUnpool{dims}DBackward0",
        shape=lambda values, index, spatial: ((*values.shape[:2], *spatial), values.dtype),
        exact=True,
    )(_unpool)


def _max_gradient(g: Any, out1: Tensor, input_shape: Ints) -> Tensor:
    found: Tensor = scatter_planes(g[0], out1, input_shape[2:])
    return found


def _max_shape(
    input: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Any:
    size = reference.pool_size(input.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    shape = (*input.shape[:2], *size)
    return [(shape, input.dtype), (shape, _INDEX)]


def _max(
    input: Array, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Any:
    """Maximum of each window, and where it was."""
    return reference.max_pool(input, kernel, stride, padding, dilation, ceil_mode)


def _adaptive_shape(input: Any, size: Ints) -> Any:
    shape = (*input.shape[:2], *size)
    return [(shape, input.dtype), (shape, _INDEX)]


def _adaptive(input: Array, size: Ints) -> Any:
    """Maximum of each adaptive window, and where it was."""
    return reference.adaptive_max_pool(input, size)


def _fractional_shape(input: Any, samples: Any, size: Ints, kernel: Ints) -> Any:
    return _adaptive_shape(input, size)


def _fractional(input: Array, samples: Array, size: Ints, kernel: Ints) -> Any:
    """Maximum of pseudo-random windows, and where it was."""
    return reference.fractional_max_pool(input, samples, size, kernel)


def _max_leaf(kernel: Any, stem: str, dims: int, shape: Any) -> Leaf:
    node = {
        "max_pool": f"MaxPool{dims}DWithIndices",
        "adaptive_max_pool": f"AdaptiveMaxPool{dims}D",
    }
    name = node.get(stem, f"FractionalMaxPool{dims}D") + "Backward0"
    rules = {"input": _max_gradient}
    return leaf(rules, name=f"{stem}{dims}d_with_indices", node=name, shape=shape)(kernel)


_DIMS = (1, 2, 3)
_MAX = {d: _max_leaf(_max, "max_pool", d, _max_shape) for d in _DIMS}
_ADAPTIVE = {d: _max_leaf(_adaptive, "adaptive_max_pool", d, _adaptive_shape) for d in _DIMS}
_FRACTIONAL = {
    d: _max_leaf(_fractional, "fractional_max_pool", d, _fractional_shape) for d in (2, 3)
}
_UNPOOL = {d: _unpool_leaf(d) for d in _DIMS}


# -- averages: window sums times a constant per output cell


def _sum_shape(
    input: Any, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, *_: Any
) -> Any:
    ones = (1,) * len(kernel)
    size = reference.pool_size(input.shape[2:], kernel, stride, padding, ones, ceil_mode)
    return (*input.shape[:2], *size), input.dtype


@lru_cache(64)
def divisors(
    spatial: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    include: bool,
    override: int | None,
) -> Any:
    """What window sums are divided by: a number, or one for each cell of the output."""
    if override is not None:
        return override
    counts = reference.window_counts(spatial, kernel, stride, padding, ceil_mode, include)
    return (
        counts[(0,) * counts.ndim] if counts.size and (counts == counts.flat[0]).all() else counts
    )


def _divide(x: Any, divisor: Any) -> Any:
    if x.dtype.kind in "iu":
        return (x / divisor).astype(x.dtype)
    return x / (
        divisor.astype(x.dtype) if isinstance(divisor, np.ndarray) else x.dtype.type(divisor)
    )


def _avg(
    input: Array,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    include: bool,
    override: int | None,
) -> Any:
    """Mean of each window."""
    divisor = divisors(input.shape[2:], kernel, stride, padding, ceil_mode, include, override)
    return _divide(reference.window_sums(input, kernel, stride, padding, ceil_mode), divisor)


@leaf(
    {
        "grad": lambda g, kernel, stride, padding, ceil_mode, include, override: _AVG[len(kernel)](
            g, kernel, stride, padding, ceil_mode, include, override
        )
    },
    shape=lambda grad, spatial, *_: ((*grad.shape[:2], *spatial), grad.dtype),
)
def avg_pool_backward(
    grad: Array,
    spatial: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    include: bool,
    override: int | None,
) -> Any:
    """Gradient of an average pooling for its input of size `spatial`."""
    divisor = divisors(spatial, kernel, stride, padding, ceil_mode, include, override)
    return reference.window_sums_transpose(_divide(grad, divisor), spatial, kernel, stride, padding)


def _avg_gradient(
    g: Tensor,
    input_shape: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    include: bool,
    override: int | None,
) -> Tensor:
    found: Tensor = avg_pool_backward(
        g, input_shape[2:], kernel, stride, padding, ceil_mode, include, override
    )
    return found


_AVG = {
    d: leaf(
        {"input": _avg_gradient},
        name=f"avg_pool{d}d",
        node=f"AvgPool{d}DBackward0",
        shape=_sum_shape,
    )(_avg)
    for d in _DIMS
}


# -- arguments


def window(value: Any, dims: int, name: str, argument: str) -> Ints:
    """An int or a sequence of one or `dims` ints as a tuple."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * dims
    try:
        found = tuple(int(v) for v in value)
    except (TypeError, ValueError):
        raise argument_type(name, argument, "int or tuple of ints", value) from None
    if len(found) == 1:
        return found * dims
    if len(found) != dims:
        counts = {1: "one int", 2: "two ints", 3: "three ints"}
        raise RuntimeError(
            f"{name}: {argument} must either be a single int, or a tuple of {counts[dims]}; "
            f"received {tuple(value)}"
        )
    return found


def _batched(name: str, input: Any, dims: int) -> Tensor:
    """The input with a batch dimension; sizes of 0 are allowed for the batch alone."""
    if not isinstance(input, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    unbatched = input.ndim == dims + 1
    if input.ndim not in (dims + 1, dims + 2) or 0 in input.shape[-dims - 1 :]:
        raise RuntimeError(
            f"{name}: Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 dim "
            f"batch size for input, but got:{list(input.shape)}; non-empty {dims + 1}D or "
            f"{dims + 2}D (batch mode) tensor expected for input"
        )
    return input.unsqueeze(0) if unbatched else input


def _unbatch(input: Tensor, dims: int, result: Any) -> Any:
    if input.ndim == dims + 2:
        return result
    return tuple(r.squeeze(0) for r in result) if isinstance(result, tuple) else result.squeeze(0)


def _windows(
    name: str,
    dims: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[Ints, Ints, Ints, Ints]:
    kernel = window(kernel_size, dims, name, "kernel_size")
    steps = kernel if stride is None or stride == () else window(stride, dims, name, "stride")
    pads = window(padding, dims, name, "padding")
    rate = window(dilation, dims, name, "dilation")
    if min(kernel) <= 0:
        word = "stride should not be zero" if stride is None else "kernel size should be positive"
        raise RuntimeError(f"{word}: {name}() received kernel_size={kernel}")
    if min(steps) <= 0:
        raise RuntimeError(f"stride should not be zero: {name}() received stride={steps}")
    if min(rate) <= 0:
        raise RuntimeError(
            f"dilation should be greater than zero, but got dilation={rate} in {name}()"
        )
    for p, k, d in zip(pads, kernel, rate, strict=True):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                "pad should be at most half of effective kernel size, but got "
                f"pad={p}, kernel_size={k} and dilation={d}"
            )
    size = reference.pool_size(x._a.shape[2:], kernel, steps, pads, rate, ceil_mode)
    if min(size) < 1:
        given = "x".join(str(n) for n in x.shape[1:])
        out = "x".join(str(n) for n in (x.shape[1], *(max(n, 0) for n in size)))
        raise RuntimeError(
            f"Given input size: ({given}). Calculated output size: ({out}). "
            "Output size is too small"
        )
    return kernel, steps, pads, rate


def _max_pool(
    name: str,
    dims: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    indices: bool,
) -> Any:
    x = _batched(name, input, dims)
    kernel, steps, pads, rate = _windows(
        name, dims, x, kernel_size, stride, padding, dilation, ceil_mode
    )
    if x._dtype.is_complex or x._dtype.name == "bool":
        raise not_implemented_for(name, x._dtype)
    both = _unbatch(input, dims, _MAX[dims](x, kernel, steps, pads, rate, bool(ceil_mode)))
    return both if indices else both[0]


def _avg_pool(
    name: str,
    dims: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    include: bool,
    override: int | None,
) -> Tensor:
    x = _batched(name, input, dims)
    kernel, steps, pads, _ = _windows(name, dims, x, kernel_size, stride, padding, 1, ceil_mode)
    if override == 0:
        raise RuntimeError(f"divisor must be not zero: {name}() received divisor_override=0")
    if x._dtype.is_complex or x._dtype.name == "bool":
        raise not_implemented_for(name, x._dtype)
    out = _AVG[dims](x, kernel, steps, pads, bool(ceil_mode), bool(include), override)
    found: Tensor = _unbatch(input, dims, out)
    return found


# -- maxima


@op("F")
def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, L) or (C, L).

    >>> import lampion as torch
    >>> torch.nn.functional.max_pool1d(torch.tensor([[1., 3., 2., 0.]]), 2).tolist()
    [[3.0, 2.0]]
    """
    return _max_pool(
        "max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@op("F")
def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, H, W) or (C, H, W); with indices if asked."""
    return _max_pool(
        "max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@op("F")
def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of (N, C, D, H, W) or (C, D, H, W); with indices if asked."""
    return _max_pool(
        "max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@op("torch F")
def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool1d` with indices."""
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


@op("F")
def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool2d` with indices."""
    return max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


@op("F")
def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool3d` with indices."""
    return max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def _publish_torch_forms() -> None:
    """`torch.max_pool2d` and its kin have no `return_indices`."""
    for function in (max_pool1d, max_pool2d, max_pool3d):
        op("torch")(_without_indices(function))


def _without_indices(function: Any) -> Any:
    def call(
        input: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        return function(input, kernel_size, stride, padding, dilation, ceil_mode)

    call.__name__ = call.__qualname__ = function.__name__
    call.__doc__ = function.__doc__
    return call


_publish_torch_forms()


# -- averages


@op("torch F")
def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean over windows of (N, C, L) or (C, L)."""
    return _avg_pool(
        "avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None
    )


@op("F")
def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of (N, C, H, W) or (C, H, W).

    >>> import lampion as torch
    >>> torch.nn.functional.avg_pool2d(torch.ones(1, 4, 4), 2).shape
    torch.Size([1, 2, 2])
    """
    return _avg_pool(
        "avg_pool2d",
        2,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


@op("F")
def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W)."""
    return _avg_pool(
        "avg_pool3d",
        3,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def _lp_pool(
    dims: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Tensor:
    kernel = window(kernel_size, dims, f"lp_pool{dims}d", "kernel_size")
    average = (avg_pool1d, avg_pool2d, avg_pool3d)[dims - 1]
    mean = average(input.pow(norm_type), kernel, stride, 0, ceil_mode)
    total = mean.sign() * mean.abs().relu() * float(np.prod(kernel))
    return total.pow(1.0 / norm_type)


@op("F")
def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """Power average over windows: (sum of x^p)^(1/p)."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@op("F")
def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """Power average over windows: (sum of x^p)^(1/p)."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@op("F")
def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """Power average over windows: (sum of x^p)^(1/p)."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# -- adaptive


def _output_size(name: str, input: Tensor, dims: int, output_size: Any) -> Ints:
    listed = tuple(output_size) if isinstance(output_size, (list, tuple)) else (output_size,) * dims
    if len(listed) != dims:
        raise RuntimeError(f"{name}: output_size must be {dims}, received {tuple(listed)}")
    if input.ndim not in (dims + 1, dims + 2):
        if input.ndim <= dims and isinstance(output_size, (list, tuple)):
            raise ValueError(f"Input dimension should be at least {dims + 1}")
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got {list(input.shape)}"
        )
    spatial = input.shape[-dims:]
    found = tuple(s if n is None else int(n) for s, n in zip(spatial, listed, strict=True))
    if min(found) < 0:
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0 but received "
            f"{{{', '.join(str(n) for n in found)}}}"
        )
    for dim in range(input.ndim - dims, input.ndim):
        if input.shape[dim] == 0:
            raise RuntimeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but "
                f"input has sizes {list(input.shape)} with dimension {dim} being empty"
            )
    return found


def _adaptive_avg(dims: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{dims}d"
    size = _output_size(name, input, dims, output_size)
    if not input._dtype.is_floating_point:
        raise NotImplementedError(str(not_implemented_for(name, input._dtype)))
    if dims > 1 and set(size) == {1}:
        return input.mean(list(range(-dims, 0)), keepdim=True)
    x = input if input.ndim == dims + 2 else input.unsqueeze(0)
    out: Tensor = _unbatch(input, dims, adaptive_mean(x, size))
    return out


def _adaptive_max(dims: int, input: Tensor, output_size: Any, indices: bool) -> Any:
    size = _output_size(f"adaptive_max_pool{dims}d", input, dims, output_size)
    x = input if input.ndim == dims + 2 else input.unsqueeze(0)
    both = _unbatch(input, dims, _ADAPTIVE[dims](x, size))
    return both if indices else both[0]


@op("torch F")
def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over windows chosen to give `output_size` cells."""
    return _adaptive_avg(1, input, output_size)


@op("F")
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over windows chosen to give `output_size` cells; None keeps a dimension.

    >>> import lampion as torch
    >>> torch.nn.functional.adaptive_avg_pool2d(torch.ones(1, 2, 5, 7), (1, None)).shape
    torch.Size([1, 2, 1, 7])
    """
    return _adaptive_avg(2, input, output_size)


@op("F")
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over windows chosen to give `output_size` cells; None keeps a dimension."""
    return _adaptive_avg(3, input, output_size)


@op("F")
def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size` cells."""
    return _adaptive_max(1, input, output_size, return_indices)


@op("F")
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size` cells; None keeps a dimension."""
    return _adaptive_max(2, input, output_size, return_indices)


@op("F")
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size` cells; None keeps a dimension."""
    return _adaptive_max(3, input, output_size, return_indices)


@op("F")
def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool1d` with indices."""
    return _adaptive_max(1, input, output_size, True)


@op("F")
def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool2d` with indices."""
    return _adaptive_max(2, input, output_size, True)


@op("F")
def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool3d` with indices."""
    return _adaptive_max(3, input, output_size, True)


op("torch", name="adaptive_max_pool1d")(adaptive_max_pool1d_with_indices)


# -- unpooling


def _unpool_size(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Ints:
    name = f"max_unpool{dims}d"
    kernel = window(kernel_size, dims, name, "kernel_size")
    steps = kernel if stride is None else window(stride, dims, name, "stride")
    pads = window(padding, dims, name, "padding")
    sizes = zip(input.shape[-dims:], kernel, steps, pads, strict=True)
    default = tuple((n - 1) * t + k - 2 * p for n, k, t, p in sizes)
    if output_size is None:
        return default
    given = tuple(output_size)[-dims:]
    if len(tuple(output_size)) not in (dims, dims + 1, dims + 2):
        raise ValueError(
            f"output_size should be a sequence containing {dims} or {dims + 2} elements, but it "
            f"has a length of '{len(output_size)}'"
        )
    for d, (n, want, t) in enumerate(zip(given, default, steps, strict=True)):
        if not want - t < n < want + t:
            raise ValueError(
                f'invalid output_size "{given}" (dim {d} must be between {want - t} and {want + t})'
            )
    return tuple(int(n) for n in given)


def _max_unpool(
    dims: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
) -> Tensor:
    if indices.dtype.name != "int64":
        raise RuntimeError(
            f"elements in indices should be type int64 but got: {indices.dtype.name}"
        )
    if input.shape != indices.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor "
            f"({list(input.shape)}) but got indices tensor with shape: {list(indices.shape)}"
        )
    if input.ndim not in (dims + 1, dims + 2) or 0 in input.shape[-dims - 1 :]:
        raise RuntimeError(
            f"Input to max_unpooling{dims}d should be a {dims + 1}d or {dims + 2}d Tensor with "
            f"non-zero dimensions, but got {list(input.shape)}"
        )
    size = _unpool_size(dims, input, kernel_size, stride, padding, output_size)
    _check_places(indices, size)
    x, where = (t if t.ndim == dims + 2 else t.unsqueeze(0) for t in (input, indices))
    out: Tensor = _unbatch(input, dims, _UNPOOL[dims](x, where, size))
    return out


def _check_places(indices: Tensor, size: Ints) -> None:
    cells = int(np.prod(size))
    if type(indices._a) is not np.ndarray or not indices._a.size:
        return
    worst = indices._a.min() if indices._a.min() < 0 else indices._a.max()
    if not 0 <= worst < cells:
        raise RuntimeError(
            f"Found an invalid max index: {worst} (output volumes are of size "
            f"{'x'.join(str(n) for n in size)})"
        )


@op("F")
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Inverse of `max_pool1d`: maxima back at their places, zeros elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@op("F")
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Inverse of `max_pool2d`: maxima back at their places, zeros elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@op("F")
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Inverse of `max_pool3d`: maxima back at their places, zeros elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


# -- fractional


def _fractional_pool(
    dims: int,
    input: Tensor,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    samples: Tensor | None,
    indices: bool,
) -> Any:
    name = f"fractional_max_pool{dims}d"
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    kernel = window(kernel_size, dims, name, "kernel_size")
    x = _batched(name, input, dims)
    if output_size is None:
        ratio = output_ratio if isinstance(output_ratio, (list, tuple)) else (output_ratio,) * dims
        size = tuple(int(s * r) for s, r in zip(x.shape[2:], ratio, strict=True))
    else:
        size = window(output_size, dims, name, "output_size")
    if any(n + k - 1 > s for n, k, s in zip(size, kernel, x.shape[2:], strict=True)):
        raise RuntimeError(
            f"{name}(): pool size {kernel} too large relative to input size {list(x.shape[2:])} "
            f"for output size {size}"
        )
    if samples is None:
        samples = x.new_empty((x.shape[0], x.shape[1], dims)).uniform_()
    both = _unbatch(input, dims, _FRACTIONAL[dims](x, samples, size, kernel))
    return both if indices else both[0]


@op("F")
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Maximum over windows whose steps are drawn at random."""
    return _fractional_pool(
        2, input, kernel_size, output_size, output_ratio, _random_samples, return_indices
    )


@op("F")
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Maximum over windows whose steps are drawn at random."""
    return _fractional_pool(
        3, input, kernel_size, output_size, output_ratio, _random_samples, return_indices
    )


@op("F")
def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = True,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool2d` with indices."""
    return fractional_max_pool2d(
        input, kernel_size, output_size, output_ratio, True, _random_samples
    )


@op("F")
def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = True,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool3d` with indices."""
    return fractional_max_pool3d(
        input, kernel_size, output_size, output_ratio, True, _random_samples
    )

"""Convolution, transposed convolution, sliding windows (unfold/fold)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor.names import scalar_type
from ..tensor.tensor import Tensor
from .errors import argument_type
from .families import Array, OptArray, conj
from .record import leaf, op
from .reference import conv as reference

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "correlate_input",
    "correlate_weight",
    "fold",
    "spatial",
    "unfold",
]

Ints = tuple[int, ...]


# -- leaves. `correlate_input` is both the gradient for the input and the transposed convolution.


def _correlate_shape(input: Any, weight: Any, bias: Any, stride: Ints, padding: Ints,
                     dilation: Ints, groups: int) -> Any:
    size = reference.output_size(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return (input.shape[0], weight.shape[0], *size), input.dtype


def _sum_channels(g: Tensor) -> Tensor:
    return g.sum([0, *range(2, g.ndim)])


@leaf(
    {
        "input": lambda g, input_shape, weight, stride, padding, dilation, groups: correlate_input(
            g, conj(weight), None, input_shape[2:], stride, padding, dilation, groups
        ),
        "weight": lambda g, input, weight_shape, stride, padding, dilation, groups: (
            correlate_weight(g, conj(input), weight_shape[2:], stride, padding, dilation, groups)
        ),
        "bias": lambda g: _sum_channels(g),
    },
    name="convolution",
    shape=_correlate_shape,
)
def correlate(input: Array, weight: Array, bias: OptArray, stride: Ints, padding: Ints,
              dilation: Ints, groups: int) -> Any:
    """Convolution of (N, C, *S) with (O, C/groups, *K)."""
    out = reference.convolve(input, weight, stride, padding, dilation, groups)
    return _add_bias(out, bias)


def _add_bias(out: Any, bias: Any) -> Any:
    if bias is not None:
        out += bias.reshape(-1, *(1,) * (out.ndim - 2))
    return out


def _cropped(t: Tensor, shape: Ints) -> Tensor:
    """Cells that only output padding makes room for are cut off."""
    for dim, n in enumerate(shape):
        if t._a.shape[dim] != n:
            t = t.narrow(dim, 0, n)
    return t


def _input_shape(grad: Any, weight: Any, bias: Any, size: Ints, stride: Ints, padding: Ints,
                 dilation: Ints, groups: int) -> Any:
    return (grad.shape[0], weight.shape[1] * groups, *size), grad.dtype


@leaf(
    {
        "grad": lambda g, grad_shape, weight, stride, padding, dilation, groups: _cropped(
            correlate(g, conj(weight), None, stride, padding, dilation, groups), grad_shape
        ),
        "weight": lambda g, grad, weight_shape, stride, padding, dilation, groups: (
            correlate_weight(conj(grad), g, weight_shape[2:], stride, padding, dilation, groups)
        ),
        "bias": lambda g: _sum_channels(g),
    },
    node="ConvolutionBackward0",
    shape=_input_shape,
)
def correlate_input(grad: Array, weight: Array, bias: OptArray, size: Ints, stride: Ints,
                    padding: Ints, dilation: Ints, groups: int) -> Any:
    """Transpose of `correlate` for its input, whose spatial size is `size`."""
    out = reference.input_gradient(grad, weight, size, stride, padding, dilation, groups)
    return _add_bias(out if out.flags.owndata else out.copy("K"), bias)  # a window has gaps


def _weight_shape(grad: Any, input: Any, kernel: Ints, stride: Ints, padding: Ints,
                  dilation: Ints, groups: int) -> Any:
    return (grad.shape[1], input.shape[1] // groups, *kernel), grad.dtype


@leaf(
    {
        "grad": lambda g, input, stride, padding, dilation, groups: correlate(
            conj(input), g, None, stride, padding, dilation, groups
        ),
        "input": lambda g, grad, input_shape, stride, padding, dilation, groups: correlate_input(
            conj(grad), g, None, input_shape[2:], stride, padding, dilation, groups
        ),
    },
    node="ConvolutionBackwardBackward0",
    shape=_weight_shape,
)
def correlate_weight(grad: Array, input: Array, kernel: Ints, stride: Ints, padding: Ints,
                     dilation: Ints, groups: int) -> Any:
    """Transpose of `correlate` for its weight, whose spatial size is `kernel`."""
    return reference.weight_gradient(grad, input, kernel, stride, padding, dilation, groups)


# -- arguments


def spatial(value: Any, dims: int, name: str, argument: str) -> Ints:
    """An int or a sequence of `dims` ints as a tuple."""
    if type(value) is int:
        return (value,) * dims
    if type(value) is not tuple:
        value = _as_ints(value, name, argument)
    if len(value) == 1:
        return tuple(int(v) for v in value) * dims
    if len(value) != dims:
        raise RuntimeError(
            f"expected {argument} to be a single integer value or a list of {dims} values to "
            f"match the convolution dimensions, but got {argument}={list(value)} in {name}()"
        )
    return tuple(int(v) for v in value)


def _as_ints(value: Any, name: str, argument: str) -> Ints:
    try:
        if isinstance(value, (float, str)):
            raise TypeError
        return tuple(value) if isinstance(value, Sequence) else (int(value.__index__()),)
    except (TypeError, AttributeError):
        raise argument_type(name, argument, "tuple of ints", value) from None


def _check_tensors(name: str, input: Any, weight: Any, bias: Any) -> None:
    for label, value in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (label == "bias" and value is None):
            raise argument_type(name, label, "Tensor", value)
    if bias is not None and bias._dtype is not input._dtype:
        raise RuntimeError(
            f"Input type ({input._dtype.name}) and bias type ({bias._dtype.name}) should be the "
            f"same in {name}(): convert one of them with .to()"
        )
    if weight._dtype is not input._dtype:
        raise RuntimeError(
            f"expected scalar type {scalar_type(input._dtype)} but found "
            f"{scalar_type(weight._dtype)}: {name}() needs input and weight of one dtype, convert "
            "one of them with .to()"
        )


def _batched(name: str, input: Tensor, dims: int) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it had one."""
    if input.ndim == dims + 2:
        return input, True
    if input.ndim == dims + 1:
        return input.unsqueeze(0), False
    raise RuntimeError(
        f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
        f"input of size: {list(input.shape)}"
    )


def _check_sizes(input: Tensor, weight: Tensor, bias: Any, groups: int, transposed: bool) -> None:
    w, x = weight._a.shape, input._a.shape
    given = f"Given transposed={1}" if transposed else f"Given groups={groups}"
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported: received groups={groups}")
    if w[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{list(w)}] instead"
        )
    expected = w[0] if transposed else w[1] * groups
    if x[1] != expected:
        raise RuntimeError(
            f"{given}, weight of size {list(w)}, expected input{list(x)} to have {expected} "
            f"channels, but got {x[1]} channels instead"
        )
    out = w[1] * groups if transposed else w[0]
    if bias is not None and bias._a.shape != (out,):
        given = f"{given}, weight" if transposed else "Given weight"
        raise RuntimeError(
            f"{given} of size {list(w)}, expected bias to be 1-dimensional with {out} elements, "
            f"but got bias of size {list(bias._a.shape)} instead"
        )


def _check_steps(stride: Ints, padding: Ints, dilation: Ints) -> None:
    if min(padding) < 0:
        raise RuntimeError(f"negative padding is not supported: received {list(padding)}")
    if min(stride) <= 0:
        raise RuntimeError(f"non-positive stride is not supported: received {list(stride)}")
    if min(dilation) <= 0:
        raise RuntimeError(f"dilation should be greater than zero, but got {list(dilation)}")


def _check_kernel(input: Tensor, weight: Tensor, padding: Ints, dilation: Ints) -> None:
    padded = [s + 2 * p for s, p in zip(input._a.shape[2:], padding, strict=True)]
    kernel = [d * (k - 1) + 1 for k, d in zip(weight._a.shape[2:], dilation, strict=True)]
    if any(p < k for p, k in zip(padded, kernel, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel "
            f"size: ({' x '.join(map(str, kernel))}). Kernel size can't be greater than actual "
            "input size"
        )


def _same_padding(input: Tensor, weight: Tensor, mode: str, stride: Ints, dilation: Ints,
                  ) -> tuple[Tensor, Ints]:
    """Padding for the mode 'same' or 'valid'; an odd total is padded once more on the right."""
    if mode == "valid":
        return input, (0,) * len(stride)
    if mode != "same":
        raise RuntimeError(f"Invalid padding string: '{mode}'")
    if max(stride) > 1:
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for k, d in zip(weight._a.shape[2:], dilation, strict=True)]
    if any(t % 2 for t in totals):
        from .pad import pad

        input = pad(input, [v for t in reversed(totals) for v in (0, t % 2)])
    return input, tuple(t // 2 for t in totals)


def _conv(name: str, dims: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any,
          dilation: Any, groups: int) -> Tensor:
    _check_tensors(name, input, weight, bias)
    if weight.ndim != dims + 2:
        raise RuntimeError(
            f"Expected {dims + 2}-dimensional weight for a convolution over {dims} dimensions, but "
            f"got weight of size {list(weight.shape)}"
        )
    x, batched = _batched(name, input, dims)
    steps, rate = spatial(stride, dims, name, "stride"), spatial(dilation, dims, name, "dilation")
    if isinstance(padding, str):
        x, pads = _same_padding(x, weight, padding, steps, rate)
    else:
        pads = spatial(padding, dims, name, "padding")
    _check_steps(steps, pads, rate)
    _check_sizes(x, weight, bias, groups, False)
    _check_kernel(x, weight, pads, rate)
    out: Tensor = correlate(x, weight, bias, steps, pads, rate, groups)
    return out if batched else out.squeeze(0)


def _conv_transpose(name: str, dims: int, input: Any, weight: Any, bias: Any, stride: Any,
                    padding: Any, output_padding: Any, groups: int, dilation: Any) -> Tensor:
    _check_tensors(name, input, weight, bias)
    if weight.ndim != dims + 2:
        raise RuntimeError(
            f"Expected {dims + 2}-dimensional weight for a convolution over {dims} dimensions, but "
            f"got weight of size {list(weight.shape)}"
        )
    x, batched = _batched(name, input, dims)
    steps, rate = spatial(stride, dims, name, "stride"), spatial(dilation, dims, name, "dilation")
    pads = spatial(padding, dims, name, "padding")
    extra = spatial(output_padding, dims, name, "output_padding")
    _check_steps(steps, pads, rate)
    _check_sizes(x, weight, bias, groups, True)
    if any(e >= s and e >= d for e, s, d in zip(extra, steps, rate, strict=True)):
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding={list(extra)}, stride={list(steps)}, dilation={list(rate)}"
        )
    sizes = zip(x._a.shape[2:], weight._a.shape[2:], steps, pads, rate, extra, strict=True)
    size = tuple((n - 1) * t - 2 * p + d * (k - 1) + e + 1 for n, k, t, p, d, e in sizes)
    if min(size) <= 0:
        raise RuntimeError(
            f"Given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {list(size)}. Output size is too small"
        )
    out: Tensor = correlate_input(x, weight, bias, size, steps, pads, rate, groups)
    return out if batched else out.squeeze(0)


# -- public functions


@op("torch F")
def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Convolution of (N, C, L) or (C, L) with (O, C/groups, K).

    >>> import lampion as torch
    >>> torch.nn.functional.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2)).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@op("torch F")
def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Convolution of (N, C, H, W) or (C, H, W) with (O, C/groups, KH, KW).

    `padding` is an int, a pair, 'valid' or 'same' (stride 1 only).

    >>> import lampion as torch
    >>> torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)).shape
    torch.Size([1, 4, 6, 6])
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@op("torch F")
def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Convolution of (N, C, D, H, W) or (C, D, H, W) with (O, C/groups, KD, KH, KW)."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


@op("torch F")
def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """Transposed convolution of (N, C, L) with (C, O/groups, K)."""
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, stride, padding,
                           output_padding, groups, dilation)


@op("torch F")
def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """Transposed convolution of (N, C, H, W) with (C, O/groups, KH, KW).

    >>> import lampion as torch
    >>> x, w = torch.ones(1, 3, 4, 4), torch.ones(3, 2, 2, 2)
    >>> torch.nn.functional.conv_transpose2d(x, w, stride=2).shape
    torch.Size([1, 2, 8, 8])
    """
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, stride, padding,
                           output_padding, groups, dilation)


@op("torch F")
def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """Transposed convolution of (N, C, D, H, W) with (C, O/groups, KD, KH, KW)."""
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, stride, padding,
                           output_padding, groups, dilation)


@op("torch")
def convolution(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                dilation: Any, transposed: bool, output_padding: Any, groups: int) -> Tensor:
    """Convolution or transposed convolution over as many dimensions as the weight has."""
    dims = weight.ndim - 2
    if transposed:
        return _conv_transpose("convolution", dims, input, weight, bias, stride, padding,
                               output_padding, groups, dilation)
    return _conv("convolution", dims, input, weight, bias, stride, padding, dilation, groups)


@op("torch F")
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Convolution of (time, batch, channels) with (K, channels, O)."""
    out = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return out.permute(2, 0, 1)


# -- sliding windows


def _unfold_shape(input: Any, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    size = reference.output_size(input.shape[2:], kernel, stride, padding, dilation)
    rows = input.shape[1] * int(np.prod(kernel))
    return (input.shape[0], rows, int(np.prod(size))), input.dtype


@leaf(
    {
        "input": lambda g, input_shape, kernel, dilation, padding, stride: _col2im(
            g, input_shape[2:], kernel, dilation, padding, stride
        )
    },
    name="im2col",
    node="Im2ColBackward0",
    shape=_unfold_shape,
)
def _im2col(input: Array, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Any:
    """Sliding blocks of an image as columns."""
    return reference.unfold(input, kernel, stride, padding, dilation)


def _fold_shape(input: Any, size: Ints, kernel: Ints, *_: Any) -> Any:
    return (input.shape[0], input.shape[1] // int(np.prod(kernel)), *size), input.dtype


@leaf(
    {
        "input": lambda g, kernel, dilation, padding, stride: _im2col(
            g, kernel, dilation, padding, stride
        )
    },
    name="col2im",
    node="Col2ImBackward0",
    shape=_fold_shape,
)
def _col2im(input: Array, size: Ints, kernel: Ints, dilation: Ints, padding: Ints,
            stride: Ints) -> Any:
    """Sum of columns laid back over the image they came from."""
    return reference.fold(input, size, kernel, stride, padding, dilation)


def _window_arguments(name: str, *values: Any) -> list[Ints]:
    labels = ("kernel_size", "dilation", "padding", "stride")
    found = [spatial(v, 2, name, label) for v, label in zip(values, labels, strict=True)]
    for label, value, least in zip(labels, found, (1, 1, 0, 1), strict=True):
        if min(value) < least:
            word = "greater than zero" if least else "non-negative"
            raise RuntimeError(f"{label} should be {word}, but got {list(value)} in {name}()")
    return found


@op("F")
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Tensor:
    """Sliding blocks of (N, C, H, W) as columns (N, C*KH*KW, L)."""
    window = _window_arguments("unfold", kernel_size, dilation, padding, stride)
    if input.ndim not in (3, 4) or 0 in input.shape[-3:]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(input.shape)}"
        )
    x = input if input.ndim == 4 else input.unsqueeze(0)
    kernel, rate, pads, steps = window
    size = reference.output_size(x._a.shape[2:], kernel, steps, pads, rate)
    if min(size) < 1:
        raise RuntimeError(
            f"Given input with spatial size {tuple(x.shape[2:])}, kernel_size={kernel}, "
            f"dilation={rate}, padding={pads}, calculated shape of the array of sliding blocks as "
            f"{tuple(size)}, but its components must be at least one."
        )
    out: Tensor = _im2col(x, kernel, rate, pads, steps)
    return out if input.ndim == 4 else out.squeeze(0)


@op("F")
def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Tensor:
    """Sum of sliding blocks (N, C*KH*KW, L) laid over an image of `output_size`."""
    size = spatial(output_size, 2, "fold", "output_size")
    kernel, rate, pads, steps = _window_arguments("fold", kernel_size, dilation, padding, stride)
    if input.ndim not in (2, 3) or 0 in input.shape[-2:]:
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and "
            f"non-zero dimensions for input, but got: {list(input.shape)}"
        )
    x = input if input.ndim == 3 else input.unsqueeze(0)
    blocks = int(np.prod(kernel))
    if x.shape[1] % blocks:
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={x.shape[1]} and kernel_size={kernel}."
        )
    cells = int(np.prod(reference.output_size(size, kernel, steps, pads, rate)))
    if x.shape[2] != cells:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={kernel}, dilation={rate}, padding={pads}, "
            f"stride={steps}, expected size of input's dimension 2 to match the calculated number "
            f"of sliding blocks {cells}, but got input.size(2)={x.shape[2]}."
        )
    out: Tensor = _col2im(x, size, kernel, rate, pads, steps)
    return out if input.ndim == 3 else out.squeeze(0)

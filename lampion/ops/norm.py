"""Normalisations: batch, layer, group, instance, RMS, local response."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..autograd.modes import no_grad, state
from ..tensor.dtype import finfo
from ..tensor.tensor import Tensor
from .errors import argument_type, not_implemented_for
from .families import Array, OptArray
from .forms import check_writable, write
from .pad import pad
from .pool import avg_pool2d, avg_pool3d
from .promotion import cast
from .record import leaf, not_differentiable, op, same_shape

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "native_batch_norm",
    "native_group_norm",
    "native_layer_norm",
    "rms_norm",
]

Ints = tuple[int, ...]


def _moments(x: Any, axes: Ints) -> tuple[Any, Any]:
    """Mean and biased variance over `axes`, kept as dimensions of size 1."""
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    return mean, (centred * centred).mean(axes, keepdims=True)


def _live_moments(x: Tensor, dims: list[int], eps: float, mean: Tensor, rstd: Tensor) -> Any:
    """Saved statistics; computed again from the input where their own gradient may be asked for."""
    if not state.grad:
        return mean, rstd
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    return mean, ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()


def _centred_gradient(gy: Tensor, xhat: Tensor, rstd: Tensor, dims: list[int]) -> Tensor:
    """Gradient through (x - mean) * rstd for the gradient `gy` of the normalised values."""
    pull = gy.mean(dims, keepdim=True) + xhat * (gy * xhat).mean(dims, keepdim=True)
    return (gy - pull) * rstd


def _alike(gy: Tensor, input: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradient and input in the precision of the parameters, which may be wider than theirs."""
    if weight is None or weight._dtype is input._dtype:
        return gy, input
    return gy.to(weight._dtype), input.to(weight._dtype)


def _sum_to(t: Tensor, dims: list[int]) -> Tensor:
    return t.sum(dims) if dims else t


# -- layer norm


def _layer_norm_grad(g: Any, needs: Any, input: Tensor, weight: Tensor | None, dims: int,
                     eps: float, out1: Tensor, out2: Tensor) -> Any:
    gy, x = _alike(g[0], input, weight)
    inner, outer = list(range(x.ndim - dims, x.ndim)), list(range(x.ndim - dims))
    mean, rstd = _live_moments(x, inner, eps, out1, out2)
    xhat = (x - mean) * rstd
    gx = gw = gb = None
    if needs[0]:
        scaled = gy if weight is None else gy * weight
        gx = _centred_gradient(scaled, xhat, rstd, inner).to(input._dtype)
    if needs[1]:
        gw = _sum_to(gy * xhat, outer)
    if needs[2]:
        gb = _sum_to(gy, outer)
    return gx, gw, gb


def _layer_norm_shape(input: Any, weight: Any, bias: Any, dims: int, eps: float) -> Any:
    outer = (*input.shape[: len(input.shape) - dims], *(1,) * dims)
    return [(input.shape, input.dtype), (outer, input.dtype), (outer, input.dtype)]


@leaf(_layer_norm_grad, shape=_layer_norm_shape, name="native_layer_norm")
def _layer_norm(input: Array, weight: OptArray, bias: OptArray, dims: int, eps: float) -> Any:
    """(x - mean) / sqrt(variance + eps) over the last `dims` dimensions; mean, 1/deviation."""
    axes = tuple(range(input.ndim - dims, input.ndim))
    mean = input.mean(axes, keepdims=True)
    out = input - mean
    var = (out * out).mean(axes, keepdims=True)
    rstd = np.reciprocal(np.sqrt(var + input.dtype.type(eps)))
    out *= rstd
    if weight is not None:
        out *= weight
    if bias is not None:
        out += bias
    return out, mean, rstd


def _normalized_shape(name: str, input: Any, shape: Any, *parameters: Any) -> Ints:
    if not isinstance(input, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    found = tuple(int(n) for n in ([shape] if isinstance(shape, int) else shape))
    if not found:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            f"element, but got normalized_shape = {list(found)}"
        )
    for label, p in zip(("weight", "bias"), parameters, strict=False):
        if p is not None and p._a.shape != found:
            raise RuntimeError(
                f"Expected {label} to be of same shape as normalized_shape, but got {label} of "
                f"shape {list(p.shape)} and normalized_shape = {list(found)}"
            )
    if input._a.shape[-len(found):] != found:  # which has as many dimensions then
        raise RuntimeError(
            f"Given normalized_shape={list(found)}, expected input with shape [*, "
            f"{', '.join(str(n) for n in found)}], but got input of size{list(input.shape)}"
        )
    _check_floating("rms_norm" if name == "rms_norm" else "LayerNormKernelImpl", input)
    return found


def _check_floating(name: str, input: Tensor) -> None:
    if input._dtype.kind < 2:
        raise not_implemented_for(name, input._dtype)


@op("torch F")
def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5, cudnn_enable: bool = True) -> Tensor:
    """Normalise over the last dimensions, of shape `normalized_shape`.

    >>> import lampion as torch
    >>> torch.nn.functional.layer_norm(torch.tensor([[1., 3.]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    dims = len(_normalized_shape("layer_norm", input, normalized_shape, weight, bias))
    return _layer_norm(input, weight, bias, dims, eps)[0]


@op("torch")
def native_layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None,
                      bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm` with the mean and the inverse deviation."""
    dims = len(_normalized_shape("native_layer_norm", input, normalized_shape, weight, bias))
    return _layer_norm(input, weight, bias, dims, eps)


# -- RMS norm


def _rms_grad(g: Any, needs: Any, input: Tensor, weight: Tensor | None, dims: int,
              eps: float, out1: Tensor) -> Any:
    inner = list(range(input.ndim - dims, input.ndim))
    gy, x = _alike(g[0], input, weight)
    rrms = out1 if not state.grad else ((x * x).mean(inner, keepdim=True) + eps).rsqrt()
    xhat = x * rrms
    gx = gw = None
    if needs[0]:
        scaled = gy if weight is None else gy * weight
        pull = xhat * (scaled * xhat).mean(inner, keepdim=True)
        gx = ((scaled - pull) * rrms).to(input._dtype)
    if needs[1]:
        gw = _sum_to(gy * xhat, list(range(input.ndim - dims)))
    return gx, gw


@leaf(_rms_grad, name="rms_norm", node="MulBackward0",
      shape=lambda input, weight, dims, eps: _layer_norm_shape(input, weight, None, dims, eps)[:2])
def _rms_norm(input: Array, weight: OptArray, dims: int, eps: float) -> Any:
    """x / sqrt(mean of squares + eps) over the last `dims` dimensions; 1/that root."""
    axes = tuple(range(input.ndim - dims, input.ndim))
    square = (input * input).mean(axes, keepdims=True)
    rrms = np.reciprocal(np.sqrt(square + input.dtype.type(eps)))
    out = input * rrms
    return (out if weight is None else out * weight), rrms


@op("torch F")
def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / sqrt(mean of squares + eps) over the last dimensions; eps defaults to the dtype's."""
    dims = len(_normalized_shape("rms_norm", input, normalized_shape, weight))
    if eps is None:
        eps = float(finfo(input.dtype).eps)
    if weight is not None and weight.dtype != input.dtype:
        return _rms_norm(input, None, dims, eps)[0] * weight
    return _rms_norm(input, weight, dims, eps)[0]


# -- batch norm


def _per_channel(t: Any, ndim: int) -> Any:
    return t.reshape((1, -1) + (1,) * (ndim - 2))


def _batch_dims(ndim: int) -> list[int]:
    return [0, *range(2, ndim)]


def _batch_norm_grad(g: Any, needs: Any, input: Tensor, weight: Tensor | None,
                     running_mean: Any, running_var: Any, training: bool, eps: float, out1: Tensor,
                     out2: Tensor) -> Any:
    gy, x = _alike(g[0], input, weight)
    dims = _batch_dims(x.ndim)
    if training:
        saved = [_per_channel(t, input.ndim) for t in (out1, (out2 + eps).rsqrt())]
        mean, rstd = _live_moments(x, dims, eps, *saved)
    else:
        mean = _per_channel(running_mean, input.ndim)
        rstd = _per_channel((running_var + eps).rsqrt(), input.ndim)
    xhat = (x - mean) * rstd if training or needs[1] else None
    gx = gw = gb = None
    if needs[0]:
        scaled = gy if weight is None else gy * _per_channel(weight, input.ndim)
        gx = scaled * rstd if not training else _centred_gradient(
            scaled, xhat, rstd, dims)  # type: ignore[arg-type]
        gx = gx.to(input._dtype)
    if needs[1]:
        gw = (gy * xhat).sum(dims)
    if needs[2]:
        gb = gy.sum(dims)
    return gx, gw, gb, None, None


def _batch_norm_shape(input: Any, weight: Any, *_: Any) -> Any:
    channels = ((input.shape[1],), input.dtype)
    return [(input.shape, input.dtype), channels, channels]


@leaf(_batch_norm_grad, name="native_batch_norm", shape=_batch_norm_shape)
def _batch_norm(input: Array, weight: OptArray, bias: OptArray, running_mean: OptArray,
                running_var: OptArray, training: bool, eps: float) -> Any:
    """Normalise each channel; also the mean and the (biased) variance that were used."""
    per_channel = (1, -1, *(1,) * (input.ndim - 2))
    if training:
        mean, var = _moments(input, (0, *range(2, input.ndim)))
    else:
        mean, var = (t.astype(input.dtype).reshape(per_channel)
                     for t in (running_mean, running_var))
    out = input - mean
    scale = np.reciprocal(np.sqrt(var + input.dtype.type(eps)))
    out *= scale if weight is None else scale * weight.reshape(per_channel)
    if bias is not None:
        out += bias.reshape(per_channel)
    return out, mean.reshape(-1), var.reshape(-1)


def _check_channels(input: Tensor, **parameters: Tensor | None) -> None:
    for label, p in parameters.items():
        if p is not None and p.numel() != input.shape[1]:
            raise RuntimeError(
                f"{label} should contain {input.shape[1]} elements not {p.numel()}: batch_norm() "
                f"received an input of shape {list(input.shape)}"
            )


def _verify_spread(size: Sequence[int]) -> None:
    count = prod(size[:1]) * prod(size[2:])
    if count == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size}"
        )


@op("F")
def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalise each channel by the batch's statistics (training) or the running ones.

    In training the running statistics, where given, move by `momentum`.
    """
    if not isinstance(input, Tensor):
        raise argument_type("batch_norm", "input", "Tensor", input)
    if training:
        _verify_spread(input.shape)
        if eps <= 0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    elif running_mean is None or running_var is None:
        missing = "running_mean" if running_mean is None else "running_var"
        raise RuntimeError(f"Expected {missing} to be defined: batch_norm() in evaluation mode")
    return _batch_norm_of(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _batch_norm_of(input: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any,
                   training: bool, momentum: float, eps: float) -> Tensor:
    if input.ndim < 2:
        if input.numel() == 0:
            return input.clone()
        raise RuntimeError(
            f"batch_norm(): expected an input with at least 2 dimensions, got {list(input.shape)}"
        )
    _check_channels(input, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    _check_floating("batch_norm", input)
    stats = (None, None) if training else (running_mean, running_var)
    out, mean, var = _batch_norm(input, weight, bias, *stats, training, eps)
    if training and running_mean is not None and input.numel():
        count = input.numel() // max(input.shape[1], 1)
        with no_grad():
            _move(running_mean, mean, momentum)
            _move(running_var, var * (count / max(count - 1, 1)), momentum)
    return out


def _move(running: Tensor, found: Tensor, momentum: float) -> None:
    check_writable(running, "batch_norm")
    moved = _moved(running, cast(found, running._dtype), 1 - momentum, momentum)
    write(running, moved, "batch_norm")


@leaf(not_differentiable("statistics have no history"), name="move_average", shape=same_shape)
def _moved(running: Array, found: Array, keep: Array, momentum: Array) -> Array:
    """An average of which `keep` stays and `momentum` is new."""
    return running * keep + found * momentum


def _torch_batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                      running_mean: Tensor | None, running_var: Tensor | None, training: bool,
                      momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """`torch.batch_norm`: the functional one with its arguments in another order."""
    return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


op("torch", name="batch_norm")(_torch_batch_norm)


@op("torch")
def native_batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                      running_mean: Tensor | None, running_var: Tensor | None, training: bool,
                      momentum: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm` with the batch's mean and inverse deviation (empty in evaluation)."""
    out = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return out, input.new_empty(0), input.new_empty(0)
    dims = _batch_dims(input.ndim)
    x = input.detach()
    return out, x.mean(dims), (x.var(dims, correction=0) + eps).rsqrt()


# -- group and instance norm


def _grouped(t: Tensor, groups: int) -> Tensor:
    return t.reshape(t.shape[0], groups, prod(t.shape[1:]) // groups)


def _group_norm_grad(g: Any, needs: Any, input: Tensor, weight: Tensor | None, groups: int,
                     eps: float, out1: Tensor, out2: Tensor) -> Any:
    gy, whole = _alike(g[0], input, weight)
    x = _grouped(whole, groups)
    mean, rstd = _live_moments(x, [2], eps, out1.unsqueeze(2), out2.unsqueeze(2))
    xhat = (x - mean) * rstd
    dims = _batch_dims(input.ndim)
    gx = gw = gb = None
    if needs[0]:
        scaled = gy if weight is None else gy * _per_channel(weight, input.ndim)
        gx = _centred_gradient(_grouped(scaled, groups), xhat, rstd, [2])
        gx = gx.reshape(input.shape).to(input._dtype)
    if needs[1]:
        gw = (gy * xhat.reshape(input.shape)).sum(dims)
    if needs[2]:
        gb = gy.sum(dims)
    return gx, gw, gb


def _group_norm_shape(input: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
    stats = ((input.shape[0], groups), input.dtype)
    return [(input.shape, input.dtype), stats, stats]


@leaf(_group_norm_grad, name="native_group_norm", shape=_group_norm_shape)
def _group_norm(input: Array, weight: OptArray, bias: OptArray, groups: int, eps: float) -> Any:
    """Normalise each group of channels of each sample; the mean and the inverse deviation."""
    x = input.reshape(input.shape[0], groups, prod(input.shape[1:]) // groups)
    mean, var = _moments(x, (2,))
    rstd = np.reciprocal(np.sqrt(var + x.dtype.type(eps)))
    out = ((x - mean) * rstd).reshape(input.shape)
    if weight is not None:
        out = out * _per_channel(weight, input.ndim)
    if bias is not None:
        out = out + _per_channel(bias, input.ndim)
    return out, mean.reshape(x.shape[:2]), rstd.reshape(x.shape[:2])


def _check_group_norm(input: Any, num_groups: int, weight: Any, bias: Any) -> None:
    if not isinstance(input, Tensor):
        raise argument_type("group_norm", "input", "Tensor", input)
    if input.ndim < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.ndim}"
        )
    channels = input.shape[1]
    if num_groups <= 0 or channels % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(input.shape)} and num_groups={num_groups}"
        )
    for label, p in (("weight", weight), ("bias", bias)):
        if p is not None and tuple(p.shape) != (channels,):
            raise RuntimeError(
                f"Expected {label} to be a vector of size equal to the number of channels in "
                f"input, but got {label} of shape {list(p.shape)} and input of shape "
                f"{list(input.shape)}"
            )
    _check_floating("GroupNormKernelImpl", input)


@op("F")
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalise each of `num_groups` groups of channels of each sample."""
    _check_group_norm(input, num_groups, weight, bias)
    if isinstance(input, Tensor):
        _verify_spread([input.shape[0] * input.shape[1] // num_groups, num_groups,
                        *input.shape[2:]])
    return _group_norm(input, weight, bias, num_groups, eps)[0]


@op("torch", name="group_norm")
def _torch_group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
                      bias: Tensor | None = None, eps: float = 1e-5,
                      cudnn_enabled: bool = True) -> Tensor:
    """`torch.group_norm`."""
    _check_group_norm(input, num_groups, weight, bias)
    return _group_norm(input, weight, bias, num_groups, eps)[0]


@op("torch")
def native_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int,
                      HxW: int, group: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm` with the mean and the inverse deviation of each group."""
    _check_group_norm(input, group, weight, bias)
    return _group_norm(input, weight, bias, group, eps)


@op("F")
def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
                  eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each sample (or by the running statistics)."""
    if use_input_stats and prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {input.shape}"
        )
    if not use_input_stats and (running_mean is None or running_var is None):
        raise RuntimeError(
            "Expected running_mean and running_var to be defined when use_input_stats is false"
        )
    n, c = input.shape[:2]
    flat = input.reshape(1, n * c, *input.shape[2:])
    copies = [None if p is None else p.repeat(n) for p in (running_mean, running_var)]
    scales = [None if p is None else p.repeat(n) for p in (weight, bias)]
    tensors: list[Any] = [*copies, *scales]
    settings = {"training": use_input_stats, "momentum": momentum, "eps": eps}
    out = _batch_norm_of(flat, *tensors, **settings)  # type: ignore[arg-type]
    for running, copied in zip((running_mean, running_var), copies, strict=True):
        if use_input_stats and running is not None and copied is not None:
            with no_grad():
                running.copy_(copied.view(n, c).mean(0))
    return out.view(input.shape)


@op("torch", name="instance_norm")
def _torch_instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                         running_mean: Tensor | None, running_var: Tensor | None,
                         use_input_stats: bool, momentum: float, eps: float,
                         cudnn_enabled: bool) -> Tensor:
    """`torch.instance_norm`: the functional one with its arguments in another order."""
    return instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum,
                         eps)


# -- local response


@op("F")
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Tensor:
    """Divide by a power of the mean square over `size` neighbouring channels."""
    if input.ndim < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality                          input (got "
            f"{input.ndim} dimensions)"
        )
    if input.numel() == 0:
        return input
    sides = (size // 2, (size - 1) // 2)
    square = (input * input).unsqueeze(1)
    if input.ndim == 3:
        mean = avg_pool2d(pad(square, (0, 0, *sides)), (size, 1), stride=1).squeeze(1)
    else:
        shape = input.shape
        planes = square.view(shape[0], 1, shape[1], shape[2], -1)
        padded = pad(planes, (0, 0, 0, 0, *sides))
        mean = avg_pool3d(padded, (size, 1, 1), stride=1).squeeze(1).view(shape)
    return input / (mean * alpha + k).pow(beta)

"""Changing the size of images: interpolate, grid_sample, pixel shuffling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor.tensor import Tensor, wrap
from .families import Array
from .record import Leaf, leaf, op
from .reference import grid as sampling
from .reference import resample as reference

__all__ = [
    "adaptive_mean",
    "affine_grid",
    "channel_shuffle",
    "grid_sample",
    "grid_sampler",
    "interpolate",
    "native_channel_shuffle",
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

Ints = tuple[int, ...]
Factors = tuple[float | None, ...]


# -- separable resampling


def _resample_shape(input: Any, kind: str, size: Ints, *_: Any) -> Any:
    return (*input.shape[:2], *size), input.dtype


def _resample(input: Array, kind: str, size: Ints, align: bool, factors: Factors) -> Any:
    """Weighted sums of a few input cells per output cell, one axis after the other."""
    if kind == "mean":
        quick = reference.block_mean(input, size)
        if quick is not None:
            return quick
    tables = reference.tables(kind, input.shape[2:], size, align, factors, input.dtype)
    if input.dtype != np.uint8 or kind.startswith("nearest"):
        return reference.resample(input, tables)
    out = reference.resample(input.astype(np.float32), tables)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _gradient(g: Tensor, input_shape: Ints, kind: str, align: bool, factors: Factors) -> Tensor:
    found: Tensor = _resample_transpose(g, kind, input_shape[2:], align, factors)
    return found


def _transpose_shape(grad: Any, kind: str, spatial: Ints, *_: Any) -> Any:
    return (*grad.shape[:2], *spatial), grad.dtype


def _regrade(g: Tensor, grad_shape: Ints, kind: str, align: bool, factors: Factors) -> Tensor:
    found: Tensor = RESAMPLE[kind, len(grad_shape) - 2](g, kind, grad_shape[2:], align, factors)
    return found


@leaf({"grad": _regrade}, name="resample_transpose", shape=_transpose_shape)
def _resample_transpose(grad: Array, kind: str, spatial: Ints, align: bool,
                        factors: Factors) -> Any:
    """Gradient of a resampling for its input of size `spatial`."""
    tables = reference.tables(kind, spatial, grad.shape[2:], align, factors, grad.dtype)
    return reference.resample_transpose(grad, tables, spatial)


_NODES = {
    ("nearest", 1): "UpsampleNearest1D",
    ("nearest", 2): "UpsampleNearest2D",
    ("nearest", 3): "UpsampleNearest3D",
    ("nearest-exact", 1): "UpsampleNearestExact1D",
    ("nearest-exact", 2): "UpsampleNearestExact2D",
    ("nearest-exact", 3): "UpsampleNearestExact3D",
    ("linear", 1): "UpsampleLinear1D",
    ("linear", 2): "UpsampleBilinear2D",
    ("linear", 3): "UpsampleTrilinear3D",
    ("cubic", 2): "UpsampleBicubic2D",
    ("linear-aa", 2): "UpsampleBilinear2DAa",
    ("cubic-aa", 2): "UpsampleBicubic2DAa",
    ("lanczos-aa", 2): "UpsampleLanczos2DAa",
    ("mean", 1): "AdaptiveAvgPool1D",
    ("mean", 2): "AdaptiveAvgPool2D",
    ("mean", 3): "AdaptiveAvgPool3D",
}


def _resample_leaf(kind: str, dims: int, node: str) -> Leaf:
    name = f"resample_{kind.replace('-', '_')}{dims}d"
    rules = {"input": _gradient}
    return leaf(rules, name=name, node=node + "Backward0", shape=_resample_shape)(_resample)


RESAMPLE = {key: _resample_leaf(*key, node) for key, node in _NODES.items()}


def adaptive_mean(x: Tensor, size: Ints) -> Tensor:
    """Mean over adaptive windows of (N, C, *S)."""
    out: Tensor = RESAMPLE["mean", len(size)](x, "mean", size, False, (None,) * len(size))
    return out


# -- interpolate

_KINDS = {
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
    "lanczos": ("lanczos", (2,)),
    "area": ("mean", (1, 2, 3)),
}


@op("F")
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resize (N, C, *S) to `size` or by `scale_factor`.

    mode: nearest, nearest-exact, area, linear (3-D), bilinear and bicubic (4-D), trilinear (5-D).

    >>> import lampion as torch
    >>> x = torch.tensor([[[1., 2.]]])
    >>> torch.nn.functional.interpolate(x, scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    _check_mode(input, mode, align_corners, antialias)
    dims = input.ndim - 2
    out, factors = _target(input, size, scale_factor, dims)
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    if mode == "area" or recompute_scale_factor:
        factors = (None,) * dims
    kind, allowed = _KINDS[mode]
    if dims not in allowed:
        raise NotImplementedError(
            f"Got {input.ndim}D input, but {mode} mode needs "
            f"{' or '.join(f'{d + 2}D' for d in allowed)} input"
        )
    if antialias or mode == "lanczos":
        kind += "-aa"
    if min(out) <= 0 or 0 in input.shape[1:]:
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input "
            f"{list(input.shape)} and output size {list(out)}"
        )
    return RESAMPLE[kind, dims](input, kind, out, bool(align_corners), factors)


def _check_mode(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode not in _KINDS:
        raise NotImplementedError(f"interpolate(): unknown mode '{mode}', use one of {[*_KINDS]}")
    if mode in ("nearest", "nearest-exact", "area") and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear "
            "| bicubic | trilinear"
        )
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and input.ndim == 4):
        raise ValueError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires "
            "a 4-D tensor as input"
        )


def _target(input: Tensor, size: Any, scale: Any, dims: int) -> tuple[Ints, Factors]:
    """Output size, and the factors that positions are computed with where the caller gave them."""
    if size is not None and scale is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale is None:
        raise ValueError("either size or scale_factor should be defined")
    given = size if size is not None else scale
    word = "output_size" if size is not None else "scale_factor"
    listed = tuple(given) if isinstance(given, (list, tuple)) else (given,) * dims
    if len(listed) != dims:
        raise ValueError(
            f"Input and {word} must have the same number of spatial dimensions, but got input "
            f"with spatial dimensions of {list(input.shape[2:])} and {word} of {given}. Please "
            f"provide input tensor in (N, C, d1, d2, ...,dK) format and {word} in (o1, o2, "
            "...,oK) format."
        )
    if size is not None:
        if not all(isinstance(n, (int, np.integer)) for n in listed):
            raise TypeError(
                f"expected size to be one of int or Tuple[int] or Tuple[int, int] or Tuple[int, "
                f"int, int], but got size with types {[type(n) for n in listed]}"
            )
        return tuple(int(n) for n in listed), (None,) * dims
    found = tuple(float(f) for f in listed)
    out = tuple(math.floor(s * f) for s, f in zip(input.shape[2:], found, strict=True))
    return out, found


@op("F")
def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """Old name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@op("F")
def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Old name of `interpolate` with mode 'nearest'."""
    return interpolate(input, size, scale_factor, "nearest")


@op("F")
def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Old name of `interpolate` with mode 'bilinear' and aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


# -- grid_sample


def _grid_gradients(g: Tensor, needs: Any, input: Tensor, grid: Tensor, mode: str, padding: str,
                    align: bool) -> Any:
    return _grid_backward(g, input, grid, mode, padding, align)


def _grid_shape(input: Any, grid: Any, *_: Any) -> Any:
    return (*input.shape[:2], *grid.shape[1:-1]), input.dtype


def _sample(input: Array, grid: Array, mode: str, padding: str, align: bool) -> Any:
    """Values of the image at the positions of the grid."""
    return sampling.sample(input, grid, sampling.Rule(input.shape[2:], mode, padding, align))


_GRID = {
    dims: leaf(_grid_gradients, name=f"grid_sampler_{dims}d", node=f"GridSampler{dims}DBackward0",
               shape=_grid_shape)(_sample)
    for dims in (2, 3)
}


@leaf(
    {},
    name="grid_sampler_backward",
    shape=lambda grad, input, grid, *_: [(input.shape, input.dtype), (grid.shape, grid.dtype)],
)
def _grid_backward(grad: Array, input: Array, grid: Array, mode: str, padding: str,
                   align: bool) -> Any:
    """Gradients of `grid_sample` for the image and for the positions."""
    return sampling.gradients(grad, input, grid,
                              sampling.Rule(input.shape[2:], mode, padding, align))


@op("F")
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """Values of (N, C, H, W) at `grid` (N, OH, OW, 2): (x, y) positions in [-1, 1].

    mode: bilinear, nearest, bicubic (images only). padding_mode: zeros, border, reflection.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', "
            f"but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    _check_grid(input, grid, mode)
    leaf_ = _GRID[input.ndim - 2]
    return leaf_(input, grid, mode, padding_mode, bool(align_corners))


def _check_grid(input: Tensor, grid: Tensor, mode: str) -> None:
    name = "grid_sampler()"
    shapes = f"input {list(input.shape)} and grid {list(grid.shape)}"
    if input.ndim not in (4, 5) or input.ndim != grid.ndim:
        raise RuntimeError(
            f"{name}: expected 4D or 5D input and grid with same number of dimensions, but got "
            f"input with sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError(f"{name}: expected grid and input to have same batch size, got {shapes}")
    if grid.shape[-1] != input.ndim - 2:
        raise RuntimeError(
            f"{name}: expected grid to have size {input.ndim - 2} in last dimension, got {shapes}"
        )
    if 0 in input.shape[2:]:
        raise RuntimeError(
            f"{name}: expected input to have non-empty spatial dimensions, got {shapes}"
        )
    if mode == "bicubic" and input.ndim == 5:
        raise RuntimeError(f"{name}: bicubic interpolation only supports 4D input")
    if input._dtype is not grid._dtype:
        raise RuntimeError(
            f"{name}: expected input and grid to have same dtype, but input has {input.dtype} and "
            f"grid has {grid.dtype}"
        )


@op("torch")
def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                 align_corners: bool) -> Tensor:
    """`grid_sample` with modes given by number."""
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    border = ("zeros", "border", "reflection")[padding_mode]
    return grid_sample(input, grid, mode, border, align_corners)


@op("F")
def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """Grid for `grid_sample` from affine matrices (N, 2, 3) or (N, 3, 4) and an image size."""
    dims = len(size) - 2
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if dims not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {tuple(size)}"
        )
    if tuple(theta.shape[1:]) != (dims, dims + 1) or theta.ndim != 3:
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size "
            f"{tuple(size)}. Got {tuple(theta.shape)}."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {tuple(size)}")
    base = wrap(_base_grid(tuple(size[2:]), bool(align_corners)).astype(theta._dtype.np))
    flat = base.expand(size[0], *base.shape) @ theta.transpose(1, 2)
    return flat.view(size[0], *size[2:], dims)


def _base_grid(spatial: Ints, align: bool) -> Any:
    """Rows (x, y, [z,] 1) of every output cell."""
    axes = []
    for n in spatial:
        line = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        axes.append(line if align else line * (n - 1) / n)
    mesh = np.meshgrid(*axes, indexing="ij")
    columns = [m.ravel() for m in reversed(mesh)]
    return np.stack([*columns, np.ones(columns[0].size)], 1)


# -- moving channels


@leaf({"input": lambda g, r: _pixel_unshuffle(g, r)}, name="pixel_shuffle", exact=True)
def _pixel_shuffle(input: Array, r: int) -> Any:
    """Blocks of r*r channels as blocks of r*r cells."""
    *lead, c, h, w = input.shape
    n = len(lead)
    split = input.reshape(*lead, c // (r * r), r, r, h, w)
    moved = split.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return moved.reshape(*lead, c // (r * r), h * r, w * r)


@leaf({"input": lambda g, r: _pixel_shuffle(g, r)}, name="pixel_unshuffle", exact=True)
def _pixel_unshuffle(input: Array, r: int) -> Any:
    """Blocks of r*r cells as blocks of r*r channels."""
    *lead, c, h, w = input.shape
    n = len(lead)
    split = input.reshape(*lead, c, h // r, r, w // r, r)
    moved = split.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return moved.reshape(*lead, c * r * r, h // r, w // r)


@leaf(
    {"input": lambda g, groups: _channel_shuffle(g, g._a.shape[1] // groups)},
    name="channel_shuffle",
    exact=True,
)
def _channel_shuffle(input: Array, groups: int) -> Any:
    """Channels of all groups, interleaved."""
    n, c, *spatial = input.shape
    split = input.reshape(n, groups, c // groups, *spatial)
    return split.swapaxes(1, 2).reshape(n, c, *spatial)


@op("torch F")
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C*r*r, H, W) to (*, C, H*r, W*r).

    >>> import lampion as torch
    >>> torch.nn.functional.pixel_shuffle(torch.zeros(1, 8, 2, 2), 2).shape
    torch.Size([1, 2, 4, 4])
    """
    r = upscale_factor
    if input.ndim < 3:
        raise RuntimeError(
            "pixel_shuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.ndim} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    c = input.shape[-3]
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={c} is not divisible by {r * r}"
        )
    return _pixel_shuffle(input, r)


@op("torch F")
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H*r, W*r) to (*, C*r*r, H, W)."""
    r = downscale_factor
    if input.ndim < 3:
        raise RuntimeError(
            "pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.ndim} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    h, w = input.shape[-2:]
    if h % r or w % r:
        word, value = ("height", h) if h % r else ("width", w)
        raise RuntimeError(
            f"pixel_unshuffle expects {word} to be divisible by downscale_factor, but "
            f"input.size({-2 if h % r else -1})={value} is not divisible by {r}"
        )
    return _pixel_unshuffle(input, r)


@op("torch F")
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Interleave the channels (dimension 1) of `groups` groups."""
    if input.ndim < 3:
        raise RuntimeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes "
            f"{list(input.shape)}"
        )
    if groups <= 0:
        raise RuntimeError(
            f"Number of groups to divide channels in must be positive. Value of groups:{groups}"
        )
    c = input.shape[1]
    if c % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups."
        )
    return _channel_shuffle(input, groups)


@op("torch F")
def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Another name of `channel_shuffle`."""
    return channel_shuffle(input, groups)

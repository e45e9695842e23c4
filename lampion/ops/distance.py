"""Distances, similarities and unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.tensor import INFERENCE, Tensor, wrap
from .errors import argument_type
from .native import SINGLE
from .record import op

__all__ = ["cosine_similarity", "normalize", "one_hot", "pairwise_distance", "pdist"]


def _common(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for label, t in (("x1", a), ("x2", b)):
        if not isinstance(t, Tensor):
            raise argument_type(name, label, "Tensor", t)
    if a.shape == b.shape:
        return a, b
    try:
        shape = np.broadcast_shapes(a._a.shape, b._a.shape)
    except ValueError:
        raise RuntimeError(
            f"{name}(): inputs must be broadcastable, but x1 is {list(a.shape)} and x2 is "
            f"{list(b.shape)}"
        ) from None
    return a.expand(shape), b.expand(shape)


@op("torch F")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) * max(|x2|, eps)) along `dim`.

    >>> import lampion as torch
    >>> torch.nn.functional.cosine_similarity(torch.ones(4), torch.ones(4), dim=0)
    tensor(1.)
    """
    a, b = _common("cosine_similarity", x1, x2)
    for t in (a, b):
        if not t.is_floating_point() and not t.is_complex():
            raise RuntimeError(
                f"expected common dtype to be floating point, yet common dtype is {t.dtype}"
            )
    lengths = [_length(t, dim).clamp_min(eps) for t in (a, b)]
    return (a / lengths[0] * (b / lengths[1])).sum(dim)


def _length(t: Tensor, dim: int) -> Tensor:
    return t.norm(2, dim, keepdim=True)


@op("torch F")
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Tensor:
    """p-norm of x1 - x2 + eps over the last dimension."""
    a, b = _common("pairwise_distance", x1, x2)
    return (a - b + eps).norm(p, -1, keepdim)


@op("torch F")
def pdist(input: Tensor, p: float = 2) -> Tensor:
    """Distances between all pairs of rows (i < j), in order."""
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    first, second = (wrap(i.astype(np.int64)) for i in np.triu_indices(input.shape[0], 1))
    return (input[first] - input[second]).norm(p, -1)


@op("F")
def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12,
              out: Tensor | None = None) -> Tensor:
    """Divide by the p-norm along `dim`, at least eps.

    >>> import lampion as torch
    >>> torch.nn.functional.normalize(torch.tensor([3., 4.]), dim=0)
    tensor([0.6000, 0.8000])
    """
    size = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    result = input / size
    return result if out is None else out.copy_(result)


@op("F")
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A last dimension with 1 at the class index and 0 elsewhere.

    >>> import lampion as torch
    >>> torch.nn.functional.one_hot(torch.tensor([0, 2])).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    if not isinstance(tensor, Tensor):
        raise argument_type("one_hot", "tensor", "Tensor", tensor)
    if tensor._dtype.name != "int64":
        raise RuntimeError(
            "one_hot is only applicable to index tensor of type LongTensor, received "
            f"{tensor.dtype}: convert it with .long()"
        )
    classes = _class_count(tensor, num_classes)
    a = tensor._a
    if a.__class__ is np.ndarray and a.size * classes < SINGLE and not INFERENCE[0]:
        return wrap((a[..., None] == np.arange(classes)).astype(np.int64), tensor._dtype)
    from .creation import arange

    return (tensor.unsqueeze(-1) == arange(classes, device=tensor.device)).to(tensor._dtype)


def _class_count(tensor: Tensor, num_classes: int) -> int:
    if num_classes == 0 or num_classes < -1:
        raise RuntimeError(f"num_classes should be positive, received {num_classes}")
    if tensor.numel() == 0:
        if num_classes <= 0:
            raise RuntimeError(
                "Can not infer total number of classes from empty tensor: give num_classes"
            )
        return num_classes
    if tensor.is_meta:
        if num_classes == -1:
            raise NotImplementedError("one_hot() of a meta tensor needs num_classes")
        return num_classes
    few = type(tensor._a) is np.ndarray and tensor._a.size < SINGLE and not INFERENCE[0]
    values = tensor._a if few else tensor
    least, most = int(values.min()), int(values.max())
    if least < 0:
        raise RuntimeError(f"Class values must be non-negative, received {least}")
    if num_classes == -1:
        return most + 1
    if most >= num_classes:
        raise RuntimeError(
            f"Class values must be smaller than num_classes: received {most}, num_classes is "
            f"{num_classes}"
        )
    return num_classes

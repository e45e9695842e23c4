"""Whether the types that a graph's text states are those that its operators give.

Texts come from files. No kernel runs on sizes that its operator's own rules do not confirm: shape
rules are applied anew, and operators with a template are checked as their public functions do, or
by their references on zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..graph.node import Graph, Node
from ..graph.parser import GraphError
from ..ops.native import TEMPLATES
from ..ops.reference import conv as reference
from ..tensor import Tensor
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import wrap

__all__ = ["check_types"]

_LARGEST = 2 ** 47  # bytes of one value
_CHECKS: dict[str, Callable[..., bool]] = {}


def check_types(graph: Graph) -> None:
    """Raises GraphError where a node is not of the type that its operator gives."""
    known: dict[str, Any] = {}
    with no_grad():
        for node in graph.nodes():
            if node.shape is not None and _bytes(node) > _LARGEST:
                raise GraphError(f"a value of {node.dtype}{list(node.shape)}")
            if node.kind == "input":
                known[node.digest] = _meta(node)
            elif node.kind == "result":
                known[node.digest] = _result(node, known)
            elif node.kind == "number":
                known[node.digest] = 0.5
            else:
                known[node.digest] = _call(node, known)
    if any(n.shape is None for n in (*graph.outputs, *(w.node for w in graph.writes))):
        raise GraphError("several results in the place of one")
    for w in graph.writes:
        if w.what != "data":
            raise GraphError("a program that leaves gradients")


def _bytes(node: Node) -> int:
    size = int(node.dtype.itemsize)  # type: ignore[union-attr]
    for n in node.shape:
        size *= n
    return size


def _meta(node: Node) -> Tensor:
    assert node.dtype is not None
    return wrap(AbstractArray(tuple(node.shape), node.dtype))


def _result(node: Node, known: dict[str, Any]) -> Tensor:
    assert node.args[0] is not None
    many = known[node.args[0].digest]
    place = node.attrs[0]
    if not isinstance(many, tuple) or not 0 <= place < len(many):
        raise GraphError(f"{node.args[0].op.name} has no result {place}")
    return _same(node, many[place], node.args[0].op.name)


def _same(node: Node, found: Any, name: str) -> Tensor:
    if not isinstance(found, Tensor) or (tuple(found._a.shape), found._a.dtype) != (
            node.shape, node.dtype):
        told = f"{found._a.dtype}{list(found._a.shape)}" if isinstance(found, Tensor) else "several"
        raise GraphError(f"{name} gives {told}, the text says {node.dtype}"
                         f"{list(node.shape or ())}")
    return _meta(node)


def _call(node: Node, known: dict[str, Any]) -> Any:
    op = node.op
    args = _values(node.args, known)
    attrs = _values(node.attrs[1:] if node.kind == "draw" else node.attrs, known)
    try:
        found = op(list(args), *attrs) if op.takes_list else op(*args, *attrs)
        if not _is_legal(op, args, attrs):
            raise ValueError("sizes and attributes do not fit together")
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(f"{op.name}: {error}") from None
    if isinstance(found, tuple):
        if node.shape is not None:
            raise GraphError(f"{op.name} has {len(found)} results")
        return found
    if found._a.ndim and min(found._a.shape) < 0:
        raise GraphError(f"{op.name}: the sizes of its operands do not fit")
    return _same(node, found, op.name)


def _values(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, Node):
        return known[value.digest]
    if isinstance(value, (tuple, list)):
        return tuple(_values(v, known) for v in value)
    return value


# --- operators whose kernels trust what they are given --------------------------------------------


def _is_legal(op: Any, args: Any, attrs: Any) -> bool:
    check = _CHECKS.get(op.name)
    if check is not None:
        return check(*[getattr(a, "_a", a) for a in args], *attrs)
    if op.name not in TEMPLATES:
        return True
    arrays = [_zeros(a) for a in args]
    rest = [wrap(_zeros(a)) if isinstance(a, Tensor) else a for a in attrs]
    with np.errstate(all="ignore"):
        op.kernel(arrays, *rest) if op.takes_list else op.kernel(*arrays, *rest)
    return True


def _zeros(value: Any) -> Any:
    return np.zeros(value._a.shape, value._a.dtype) if isinstance(value, Tensor) else value


def _check(*names: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    def keep(fn: Callable[..., bool]) -> Callable[..., bool]:
        _CHECKS.update(dict.fromkeys(names, fn))
        return fn
    return keep


def _alike(*arrays: Any) -> bool:
    """Whether all have one element type."""
    return len({a.dtype for a in arrays if a is not None}) == 1


@_check("read_window")
def _read_window(a: Any, size: Any, stride: Any, offset: int) -> bool:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    return offset >= 0 and min((*size, *stride), default=0) >= 0 and (0 in size or last < a.size)


@_check("write_window")
def _write_window(a: Any, src: Any, size: Any, stride: Any, offset: int) -> bool:
    return _alike(a, src) and src.shape == tuple(size) and _read_window(a, size, stride, offset)


@_check("mm", "bmm")
def _product(a: Any, b: Any) -> bool:
    return _alike(a, b) and a.ndim == b.ndim and a.ndim in (2, 3) and (
        a.shape[:-2], a.shape[-1]) == (b.shape[:-2], b.shape[-2])


@_check("addmm", "baddbmm")
def _add_product(added: Any, a: Any, b: Any, beta: Any, alpha: Any) -> bool:
    shape = (*a.shape[:-1], b.shape[-1])
    return _product(a, b) and _alike(added, a) and np.broadcast_shapes(
        added.shape, shape) == shape and all(isinstance(v, (int, float)) for v in (beta, alpha))


@_check("linear")
def _linear(x: Any, weight: Any, bias: Any) -> bool:
    return _alike(x, weight, bias) and weight.ndim == 2 and x.ndim >= 1 and (
        x.shape[-1] == weight.shape[1]) and (bias is None or bias.shape == weight.shape[:1])


@_check("convolution")
def _convolution(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
                 groups: int) -> bool:
    return _windows(x, weight, stride, padding, dilation, groups) and _alike(x, weight, bias) and (
        x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0) and (
        bias is None or bias.shape == weight.shape[:1])


def _windows(x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    n = x.ndim - 2
    return x.ndim == weight.ndim and n >= 1 and type(groups) is int and groups >= 1 and all(
        len(v) == n and all(type(i) is int for i in v) for v in (stride, padding, dilation)) and (
        min((*stride, *dilation)) >= 1 and min(padding) >= 0)


@_check("correlate_input")
def _transposed(grad: Any, weight: Any, bias: Any, size: Any, stride: Any, padding: Any,
                dilation: Any, groups: int) -> bool:
    return _windows(grad, weight, stride, padding, dilation, groups) and (
        _alike(grad, weight, bias) and grad.shape[1] == weight.shape[0]
        and weight.shape[0] % groups == 0 and tuple(reference.output_size(
            tuple(size), weight.shape[2:], stride, padding, dilation)) == grad.shape[2:]) and (
        bias is None or bias.shape == (weight.shape[1] * groups,))


@_check("scaled_dot_product_attention")
def _attention(query: Any, key: Any, value: Any, mask: Any, causal: bool, scale: float) -> bool:
    scores = (*query.shape[:-1], key.shape[-2])
    return _alike(query, key, value) and query.ndim >= 2 and (
        query.ndim == key.ndim == value.ndim) and query.shape[-1] == key.shape[-1] and (
        key.shape[:-1] == value.shape[:-1]) and isinstance(causal, bool) and (
        np.broadcast_shapes(query.shape[:-2], key.shape[:-2]) == query.shape[:-2]) and (
        mask is None or np.broadcast_shapes(mask.shape, scores) == scores)


@_check("embedding")
def _embedding(weight: Any, indices: Any, padding: int, by_frequency: bool) -> bool:
    return weight.ndim == 2 and indices.dtype.kind in "iu"


@_check("clone", "cat", "stack")
def _by_rule(*values: Any) -> bool:
    """Its shape rule says it all; parts must be of one type."""
    return True

"""What a body gives by its operators' NumPy references, as the eager path would run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph.node import Node
from ..ops.optimize import Scalars, Update, update_arrays
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.tensor import wrap
from .body import Body

__all__ = ["run_body"]

_F32 = np.dtype(np.float32)


def run_body(body: Body, arrays: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
    """The roots for these inputs and numbers."""
    known = {n.digest: a for n, a in zip((*body.inputs, *body.numbers), (*arrays, *numbers),
                                         strict=True)}
    token = enter(IGNORE)
    try:
        for call in body.calls:
            _run(call, known)
        return [_value(r, known) for r in body.roots]
    finally:
        leave(token)


def _run(call: Node, known: dict[str, Any]) -> None:
    args = [_value(a, known) for a in call.args]
    attrs = _value(call.attrs[1:] if call.kind == "draw" else call.attrs, known, True)
    if isinstance(call.op, Update):
        result = _updated(call.op, args, *attrs)
    else:
        result = _by_kernel(call.op, args, attrs)
    known[call.digest] = result if call.shape is None else result[0]


def _by_kernel(leaf: Any, args: list[Any], attrs: Any) -> tuple[Any, ...]:
    """A reference's results; narrow floats are computed in float32."""
    narrow = None if leaf.exact else next((a.dtype for a in args if _is_narrow(a)), None)
    if narrow is not None:
        args = [a.astype(_F32) if _is_narrow(a) else a for a in args]
    result = leaf.kernel(args, *attrs) if leaf.takes_list else leaf.kernel(*args, *attrs)
    many = result if result.__class__ is tuple else (result,)
    return tuple(np.asarray(r) if narrow is None or r.dtype != _F32 else
                 np.asarray(r).astype(narrow) for r in many)


def _is_narrow(a: Any) -> bool:
    return a.__class__ is np.ndarray and a.dtype.kind in "fV" and a.dtype.itemsize < 4


def _updated(update: Update, args: list[Any], negate: bool, scalars: Any) -> tuple[Any, ...]:
    p, g, *state = args
    new = [a.copy() for a in (p, *state)]
    update_arrays(update, [new[0], g, *new[1:]], Scalars(scalars, p.dtype), negate=negate)
    return tuple(new)


def _value(value: Any, known: dict[str, Any], in_attributes: bool = False) -> Any:
    """An argument; index arrays among attributes are tensors there."""
    if isinstance(value, Node):
        found = known.get(value.digest)
        if found is None:
            found = known[value.digest] = _derived(value, known)
        return wrap(found) if in_attributes and found.__class__ is np.ndarray else found
    if value.__class__ in (tuple, list):
        return value.__class__(_value(v, known, in_attributes) for v in value)
    return value


def _derived(node: Node, known: dict[str, Any]) -> Any:
    """A result, or a view."""
    first = _value(node.args[0], known)
    if node.kind == "result":
        return first[node.attrs[0]]
    if node.op.name in ("view", "unsqueeze", "squeeze"):
        return first.reshape(node.shape)
    return node.op.kernel(first, *node.attrs)


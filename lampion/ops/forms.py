"""Forms derived from a public operator: in place (`name_`) and `out=`."""

from __future__ import annotations

import warnings
from operator import attrgetter
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import OUTPUT, Node, OpNode, edge_of, new_node, next_seq, refresh
from ..debug.frames import user_code, user_stack_level
from ..debug.knobs import knobs
from ..tensor.abstract import AbstractArray
from ..tensor.dtype import FLOAT, dtype
from ..tensor.names import scalar_type
from ..tensor.tensor import INFERENCE, Tensor, storage_of, wrap
from .native import SINGLE

__all__ = [
    "bump",
    "can_cast",
    "check_memory",
    "check_overlap",
    "check_writable",
    "convert_array",
    "in_place_form",
    "keep_old_value",
    "out_form",
    "write",
]


def bump(t: Tensor, name: str) -> None:
    """Counts a write to `t`'s memory and notes who wrote, for later error messages."""
    st = t._st
    if st is None:
        st = storage_of(t)
    st.count_write()
    st.writer = (name, *user_code(3))


def check_writable(t: Tensor, name: str) -> None:
    """An error if an in-place operation on `t` would lose gradients; called before the write."""
    if INFERENCE[0] and state.recorder is not None:
        state.recorder.watch(t)
    if INFERENCE[1] and not state.inference and t.is_inference():
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed: "
            f"{name}() on a tensor made under inference_mode. Write to a .clone()")
    if not state.grad:
        return
    if t._base is not None:
        refresh(t)
        base = t._base
        if base._rg and base._fn is None and t._dtype.kind >= FLOAT:
            raise RuntimeError(
                "a view of a leaf Variable that requires grad is being used in an in-place "
                f"operation: {name}(); write under torch.no_grad(), or to a .clone()")
        if base._rg and not t._rg and t._dtype.kind >= FLOAT:
            raise RuntimeError(
                "A view was created in no_grad mode and is being modified inplace with grad mode "
                f"enabled: {name}() would lose the gradient of its base. Make the view where "
                "gradients are recorded, or write under torch.no_grad()")
    if t._rg and t._fn is None:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place "
                           f"operation: {name}(); write under torch.no_grad(), or to a .clone()")


def in_place_form(fn: Any, base: str, last: tuple[Any, ...] = ()) -> Any:
    """`name_`: computes, then writes the result into the first argument.

    last: operators of which one is the last that `fn` calls, if it calls any of them; its kernel
    may write where the result belongs, so nothing is copied.
    """
    name = base + "_"

    def call(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, name)
        start = next_seq() if state.grad else 0
        if last and self._a.size >= SINGLE and _may_be_written_at_once(
                self, (*args, *kwargs.values()), last):
            state.into = last, self._a
            try:
                result = fn(self, *args, **kwargs)
            finally:
                state.into = None
        else:
            result = fn(self, *args, **kwargs)
        if result._rg and state.grad and result._a is not self._a:
            keep_old_value(self, result, start)
        return write(self, result, name)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"In-place form of `{base}`: the result is written to the tensor."
    return call


def _may_be_written_at_once(t: Tensor, args: tuple[Any, ...], last: tuple[Any, ...]) -> bool:
    """Whether nobody needs the old value of `t` or would have refused to write to it."""
    a = t._a
    if a.__class__ is not np.ndarray or not (a.flags.forc and a.flags.writeable) or knobs.check:
        return False
    if not state.grad or not any(
            isinstance(x, Tensor) and (x._rg or x._base is not None) for x in (t, *args)):
        return True
    return not (state.saved_hooks or any(leaf.keeps_first for leaf in last)
                or any(x is t for x in args))


def keep_old_value(t: Tensor, result: Tensor, start: int) -> None:
    """Nodes recorded since `start` that saved `t` get a copy of it, as it will be overwritten."""
    if type(t._a) is AbstractArray and t._a.recorder and t._a.recorder.level:
        t._a.recorder.keep_old_value(t, result, start)
    old = None
    stack, seen = [result._fn], set()
    while stack:
        node = stack.pop()
        if not isinstance(node, OpNode) or node.seq <= start or node in seen:
            continue
        seen.add(node)
        stack.extend(node.edges)
        for i, entry in enumerate(node.saved or ()):
            if type(entry) is tuple and len(entry) == 2 and entry[0] is t:
                old = _frozen(t) if old is None else old
                node.saved[i] = (old, 0)  # type: ignore[index]


def _frozen(t: Tensor) -> Tensor:
    """The value of `t` now, at its place in the history."""
    a = t._a
    if type(a) is AbstractArray:
        node = a.recorder.frozen(t) if a.recorder else None
        out = wrap(AbstractArray(a.shape, a.dtype, recorder=a.recorder, value=node), t._dtype)
    else:
        out = wrap(a.copy("K"), t._dtype)
    out._fn, out._nr, out._rg = t._fn, t._nr, t._rg
    return out


def write(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Writes `result` into the memory of `target`, which takes over its place in the history."""
    if result._a.shape != target._a.shape:
        raise RuntimeError(
            f"output with shape {list(target._a.shape)} doesn't match the broadcast shape "
            f"{list(result._a.shape)} in {name}(): an in-place result must fit its first operand")
    _check_cast(result._dtype, target._dtype)
    check_overlap(target, name)
    if result._a is not target._a:
        copy_array(target, result)
    bump(target, name)
    if state.grad:
        if result._rg:
            _take_history(target, result)
        elif target._rg:
            _take_history(target, _constant(target, name))
    return target


def check_overlap(t: Tensor, name: str) -> None:
    """An error if elements of `t` lie on one another, as in an expanded tensor."""
    a = t._a
    if 0 in a.strides and a.size and any(
            n > 1 and s == 0 for n, s in zip(a.shape, a.strides, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            f"single memory location: {name}() received an expanded tensor of shape "
            f"{list(a.shape)}. Please clone() the tensor before performing the operation.")


def copy_array(target: Tensor, source: Tensor) -> None:
    """Writes the elements of `source` (broadcast, converted) into `target`."""
    a, b = target._a, source._a
    recorders = [x.recorder for x in (a, b) if type(x) is AbstractArray and x.recorder]
    if recorders:
        max(recorders, key=attrgetter("level")).note_write(target, source)
    elif type(a) is np.ndarray:
        check_memory(a)
        _store(a, b)


def check_memory(a: np.ndarray[Any, Any]) -> None:
    """RuntimeError where memory may only be read; a kernel that writes to it ends the process."""
    if not a.flags.writeable:
        raise RuntimeError("the tensor shares memory with a read-only NumPy array and cannot "
                           "be written to; make a .clone()")


def _store(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    if a.dtype.num == b.dtype.num:
        a[...] = b
    else:
        with np.errstate(all="ignore"):
            a[...] = convert_array(b, a.dtype)


def convert_array(b: np.ndarray[Any, Any], target: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Elements converted as C++ does on the usual machines: floats to ints by truncation."""
    if b.dtype.kind == "c" and target.kind != "c":
        b = b.real
    if b.dtype.num > 255 or (target.num > 255 and b.dtype.itemsize > 4):
        b = b.astype(np.float32)
    if target.num > 255 and target.name == "float8_e4m3fn":
        b = np.clip(b, -448, 448)  # has no infinity: PyTorch saturates
    if b.dtype.kind == "f" and target.kind in "iu" and target.num != np.dtype(np.int32).num:
        # Through int64: what PyTorch's CPU does for values outside the narrow range.
        return b.astype(np.int64).astype(target)
    return b.astype(target)


def _check_cast(source: dtype, target: dtype) -> None:
    if not can_cast(source, target):
        raise RuntimeError(f"result type {scalar_type(source)} can't be cast to the desired output "
                           f"type {scalar_type(target)}: convert the operands with .to(), or write "
                           "to a tensor of the result type")


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether a result of one dtype may be stored in another: never down a category.

    >>> import lampion as torch
    >>> torch.can_cast(torch.float32, torch.int64)
    False
    """
    return from_.kind <= to.kind


def _take_history(target: Tensor, result: Tensor) -> None:
    """After an in-place write: the history of `result` becomes that of `target`."""
    node = result._fn
    if result._dtype is not target._dtype:
        result = Tensor._cast(result, target._dtype)
        node = result._fn
    st = storage_of(target)
    if isinstance(node, OpNode) and node.saved is not None:
        for i, (kind, _) in enumerate(node.plan.spec):
            if kind == OUTPUT and type(node.saved[i]) is tuple:
                # The output that the rule needs lives in the target now.
                node.saved[i] = (target._a, target._dtype, st, st.version)
    base = target._base
    st.history += 1
    if base is None:
        retained = _retained(target)
        target._fn, target._nr, target._rg = node, result._nr, True
        if retained:
            target.retain_grad()
        return
    copy = new_node(CopySlices, *zip(edge_of(base), edge_of(result), strict=True))
    copy.view, copy.out_st = (target._a.shape, target.stride(), target.storage_offset()), None
    copy.base = (base._a.shape, base.stride(), base.storage_offset())
    base._fn, base._nr, base._rg = copy, 0, True
    refresh(target)


def _retained(t: Tensor) -> bool:
    """Whether backward keeps the gradient of `t`; if so, its present node stops doing that."""
    if not t._retains_grad or t._fn is None:
        return False
    t._fn.hooks.retain.pop(t._nr, None)
    t._retains_grad = False
    return True


class Overwritten(Node):
    """History of a write of constants: no gradient passes to what was there before."""

    __slots__ = ()

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        g = grads[0]
        return (g.new_zeros(g._a.shape),)


_overwritten: dict[str, type[Overwritten]] = {}


def _constant(target: Tensor, name: str) -> Tensor:
    """The tensor as a write of constants leaves it; its node is named after the writer."""
    cls = _overwritten.get(name)
    if cls is None:
        label = "".join(part.capitalize() for part in name.split("_"))
        label += "Backwards" if name == "copy_" else "Backward0"
        cls = _overwritten[name] = type(label, (Overwritten,), {"__slots__": ()})
    edge, nr = edge_of(target)
    out = wrap(target._a, target._dtype)
    out._fn, out._rg = new_node(cls, (edge,), (nr,)), True
    out._fn.out_st = None
    return out


class CopySlices(Node):
    """History of a write through a view: the base with one window replaced."""

    __slots__ = ("base", "view")

    view: tuple[Any, ...]
    base: tuple[Any, ...]

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        return Tensor._split_window(grads[0], self.base, self.view)


def out_form(fn: Any, name: str) -> Any:
    """The function with PyTorch's `out=`: the result goes into a given tensor."""
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return fn(*args, **kwargs)
        return deliver(out, fn(*args, **kwargs), name)
    call.__name__ = call.__qualname__ = fn.__name__
    call.__doc__, call.__module__ = fn.__doc__, fn.__module__
    call.__wrapped__ = fn  # type: ignore[attr-defined]
    return call


def deliver(out: Any, result: Any, name: str) -> Any:
    """Copies `result` (a tensor or a tuple of them) into `out`, resizing where needed."""
    if isinstance(result, Tensor):
        return _deliver_one(out, result, name)
    if not isinstance(out, (tuple, list)) or len(out) != len(result):
        raise TypeError(f"{name}(): argument 'out' must be a tuple of {len(result)} Tensors")
    parts = [_deliver_one(o, r, name) for o, r in zip(out, result, strict=True)]
    return type(result)(parts) if type(result) is tuple else type(result)(*parts)


def _deliver_one(out: Any, result: Tensor, name: str) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if state.grad and (out.requires_grad or result._rg):
        raise RuntimeError(f"{name}(): functions with out=... arguments don't support automatic "
                           "differentiation, but one of the arguments requires grad.")
    if out.device != result.device:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}() computed on "
                           f"{result.device}, but out= is on {out.device}")
    _check_cast(result._dtype, out._dtype)
    if out._a.shape != result._a.shape:
        _resize_out(out, result)
    check_overlap(out, name)
    if state.recorder is not None:
        state.recorder.watch(out)
    copy_array(out, result)
    bump(out, f"{name}(out=...)")
    return out


def _resize_out(out: Tensor, result: Tensor) -> None:
    if out._a.size:
        warnings.warn(
            f"An output with one or more elements was resized since it had shape "
            f"{list(out._a.shape)}, which does not match the required output shape "
            f"{list(result._a.shape)}. This behavior is deprecated: pass an empty tensor or one "
            "of the right shape.", UserWarning, stacklevel=user_stack_level())
    out.resize_(result._a.shape)

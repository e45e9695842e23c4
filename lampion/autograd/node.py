"""Nodes of the recorded history and how an operation is recorded.

An edge of a node is the node that made the input, or the leaf tensor itself, or None. No tensor is
kept alive by an edge except leaves; what a gradient rule needs is in `saved`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from ..tensor.tensor import INFERENCE, Tensor, storage_of, wrap
from .hooks import RemovableHandle
from .modes import WATCHED, state

__all__ = ["LEAST", "AccumulateGrad", "Node", "OpNode", "Plan", "record", "refresh"]

next_seq = count(1).__next__

LEAST = 1024  # elements from which a kernel may pay: below, NumPy is as quick

# Kinds of things a gradient rule can ask for.
INPUT, OUTPUT, ATTR, SHAPE, DTYPE = range(5)


class Node:
    """One recorded operation; `grad_fn` of its outputs."""

    __slots__ = ("__weakref__", "_metadata", "edges", "hooks", "nrs", "out_st", "seq", "trace")

    edges: Sequence[Any]  # per input: Node, leaf Tensor or None
    nrs: Sequence[int]  # per input: which output of the edge's node it was
    seq: int
    hooks: NodeHooks | None
    trace: str | None  # where the forward ran, in anomaly mode
    out_st: Any  # storage of the output, once it is shared

    def name(self) -> str:
        """The name PyTorch prints, such as `AddBackward0`."""
        return type(self).__name__

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dictionary for the user's notes."""
        if not hasattr(self, "_metadata"):
            self._metadata: dict[Any, Any] = {}
        return self._metadata

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that made the inputs; leaves appear as `AccumulateGrad`."""
        return tuple((AccumulateGrad.of(e) if isinstance(e, Tensor) else e, nr)
                     for e, nr in zip(self.edges, self.nrs, strict=True))

    def output_count(self) -> int:
        """How many outputs the operation had."""
        return 1

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        """Gradients of the inputs from those of the outputs."""
        raise NotImplementedError

    def release(self) -> None:
        """Drops what was saved for backward."""

    def register_hook(self, fn: Callable[..., Any]) -> Any:
        """Calls `fn(grad_inputs, grad_outputs)` after this node ran; a result replaces them."""
        return _hooks_of(self).add("post", fn)

    def register_prehook(self, fn: Callable[..., Any]) -> Any:
        """Calls `fn(grad_outputs)` before this node runs; a result replaces them."""
        return _hooks_of(self).add("pre", fn)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class NodeHooks:
    """Hooks of a node: on its outputs' gradients, before it runs, after it ran."""

    __slots__ = ("post", "pre", "retain", "tensor")

    def __init__(self) -> None:
        self.tensor: dict[int, dict[int, Callable[..., Any]]] = {}
        self.pre: dict[int, Callable[..., Any]] = {}
        self.post: dict[int, Callable[..., Any]] = {}
        self.retain: dict[int, Any] = {}

    def add(self, kind: str, fn: Callable[..., Any]) -> Any:
        """Registers `fn`; the handle's `remove()` takes it back."""
        return RemovableHandle.add(getattr(self, kind), fn)

    def add_tensor(self, nr: int, fn: Callable[..., Any]) -> Any:
        """Registers `fn` on the gradient of output `nr`."""
        return RemovableHandle.add(self.tensor.setdefault(nr, {}), fn)


def _hooks_of(node: Node) -> NodeHooks:
    if node.hooks is None:
        node.hooks = NodeHooks()
    return node.hooks


class AccumulateGrad(Node):
    """Stands for a leaf in `next_functions`."""

    __slots__ = ("variable",)

    variable: Tensor

    @staticmethod
    def of(leaf: Tensor) -> AccumulateGrad:
        """The node of a leaf; the same object for as long as the leaf lives."""
        found: AccumulateGrad | None = leaf.__dict__.get("_accumulate")
        if found is None:
            found = AccumulateGrad()
            found.edges, found.nrs, found.seq, found.hooks = (), (), 0, None
            found.variable = leaf
            leaf.__dict__["_accumulate"] = found
        return found


class Plan:
    """For one operator and one set of inputs that need gradients: what to save, which rules run.

    `spec` lists (kind, index) of the things to save; `calls` lists (input, rule, the rule as one
    kernel if it can be one, places in spec).
    """

    __slots__ = ("calls", "in_order", "joint", "needs", "saves_tensors", "spec")

    def __init__(self, spec: list[tuple[int, int]],
                 calls: list[tuple[int, Any, Any, tuple[int, ...]]],
                 joint: bool, needs: tuple[bool, ...]) -> None:
        self.spec, self.calls, self.joint, self.needs = spec, calls, joint, needs
        self.saves_tensors = any(kind in (INPUT, OUTPUT) for kind, _ in spec)
        every = tuple(range(len(spec)))  # whether each rule takes all that is saved as it lies
        self.in_order = all(places == every for *_, places in calls)


class OpNode(Node):
    """The node of an operator record; subclasses are named after the operator."""

    __slots__ = ("outs", "plan", "saved", "shapes")

    op: Any
    plan: Plan
    saved: list[Any] | None
    shapes: Sequence[tuple[int, ...]] | None  # of the inputs, where they were broadcast
    outs: tuple[tuple[tuple[int, ...], Any], ...] | None  # shape and dtype of several outputs

    def output_count(self) -> int:
        return 1 if self.outs is None else len(self.outs)

    def release(self) -> None:
        if self.plan.saves_tensors:
            self.saved = None

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        plan, shapes = self.plan, self.shapes
        values = self.unpack() if plan.spec else _NOTHING
        g: Any = grads[0] if self.outs is None else self._fill(grads)
        size = g._a.size if self.outs is None else 1  # of one element, others may be large
        if plan.joint:
            _, rule, fused, places = plan.calls[0]
            args = g, plan.needs, *[values[p] for p in places]
            suits = fused is not None and fused.suits(size, args)
            if state.recorder is not None and not state.grad:
                told = g if self.outs is None else (self.outs, *grads)
                return tuple(state.recorder.rules.call(rule, args, (told, *args[1:])))
            return tuple((fused if suits else rule)(*args))
        result: list[Any] = [None] * len(self.edges)
        recorder = None if state.grad else state.recorder
        for i, rule, fused, places in plan.calls:
            args = (g, *values) if plan.in_order else (g, *[values[p] for p in places])
            if fused is not None and (fused.small or not 1 < size < fused.least) and fused.suits(
                    size, args):
                rule = fused
                if shapes is not None and shapes[i] != g._a.shape:
                    rule = fused.to(shapes[i])
            r = rule(*args) if recorder is None else recorder.rules.call(rule, args)
            if shapes is not None and r is not None and r._a.shape != shapes[i]:
                r = r.sum_to_size(shapes[i])
            result[i] = r
        return tuple(result)

    def _fill(self, grads: list[Any]) -> tuple[Any, ...]:
        """Zeros for the outputs that no gradient reached."""
        assert self.outs is not None
        return tuple(
            wrap(np.zeros(shape, d.np), d) if g is None and d.kind > 1 else g
            for g, (shape, d) in zip(grads, self.outs, strict=True))

    def unpack(self) -> list[Any]:
        """The saved values, checked for being unchanged."""
        if self.saved is None:
            raise RuntimeError(
                f"Trying to backward through the graph a second time ({self.name()}): its saved "
                "values were freed by the first backward. Specify retain_graph=True in the first "
                "call of .backward() or autograd.grad() if you need to backward again.")
        values = []
        for source, entry in zip(self.plan.spec, self.saved):
            if source[0] > OUTPUT:
                values.append(entry)
            elif source[0] == INPUT and entry.__class__ is tuple:
                tensor, version = entry
                st = tensor._st
                if st is not None and st.version != version:
                    raise overwritten(self, tensor, st, version)
                values.append(tensor)
            else:
                values.append(self._unpack_one(source, entry))
        return values

    def _unpack_one(self, source: tuple[int, int], entry: Any) -> Any:
        kind, index = source
        if kind > OUTPUT:
            return entry
        if type(entry) is Hooked:
            return entry.unpack(self)
        if kind == INPUT:
            if type(entry) is list:
                return [self._unpack_one(source, e) for e in entry]
            if type(entry) is not tuple:
                return entry  # None or a Python number
            tensor, version = entry
            if tensor._version != version:
                raise overwritten(self, tensor, tensor._st, version)
            return tensor
        array, dtype, st, version = entry
        st = self.out_st if st is None else st
        out = wrap(array, dtype)
        out._fn, out._nr, out._rg, out._st = self, index, dtype.kind > 1, st
        if st is not None and st.version != version:
            raise overwritten(self, out, st, version)
        return out


def overwritten(node: Node, tensor: Tensor, st: Any, version: int) -> RuntimeError:
    """The error for a saved tensor that was changed in place: names the writer's line."""
    from ..debug.frames import describe
    from ..tensor.names import type_name

    made_by = "" if tensor._fn is None else (
        f", which is output {tensor._nr} of {tensor._fn.name()},")
    name, code, offset = st.writer or ("an in-place operation", None, 0)
    return RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [{type_name(tensor)} {list(tensor._a.shape)}]{made_by} is at version "
        f"{st.version}; expected version {version} instead. {node.name()} saved it; {name} "
        f"overwrote it at {describe(code, offset)}. Use the out-of-place form there, or write to "
        "a .clone().")


class Hooked:
    """A saved tensor that went through `saved_tensors_hooks`."""

    __slots__ = ("fn", "leaf", "nr", "packed", "unpack_hook")

    def __init__(self, tensor: Tensor) -> None:
        pack, self.unpack_hook = state.saved_hooks[-1]
        self.fn, self.nr = tensor._fn, tensor._nr
        self.leaf = tensor if tensor._rg and tensor._fn is None else None
        hooks, state.saved_hooks = state.saved_hooks, ()
        grad, state.grad = state.grad, False
        try:
            self.packed = pack(tensor.detach())
        finally:
            state.saved_hooks, state.grad = hooks, grad

    def unpack(self, node: Node) -> Tensor:
        """The tensor that the unpack hook returns, put back into its place in the history."""
        result = self.unpack_hook(self.packed)
        if not isinstance(result, Tensor):
            raise TypeError("Output of saved tensor unpack_hook expected to be a Tensor but got "
                            f"result of type {type(result).__name__}")
        if self.fn is not None:
            result = result.detach()
            result._fn, result._nr, result._rg = self.fn, self.nr, True
        elif self.leaf is not None:
            result = result.detach()
            result._fn, result._rg = new_node(ToLeaf, (self.leaf,), (0,)), True
        return result


class ToLeaf(Node):
    """Stands between a leaf that went through saved-tensor hooks and the leaf itself."""

    __slots__ = ()

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        return tuple(grads)


def refresh(t: Tensor) -> None:
    """Brings a view's place in the history up to date after its base was written to."""
    st, base = t._st, t._base
    if base is None or st is None or t._epoch == st.history:
        return
    t._epoch = st.history
    if base._rg:
        view = Tensor._view_of_base(base, t)
        t._fn, t._nr, t._rg = view._fn, view._nr, view._rg


NOT_TENSORS = frozenset((float, int, type(None), bool, complex))
_new = object.__new__


def record(op: Any, outputs: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> None:
    """Records `outputs = op(*tensors, *attrs)` if any of the tensors requires grad.

    `outputs` is a tensor or a tuple of tensors; `tensors` may hold None and Python numbers.
    """
    edges: Any = []
    nrs: Any = []
    mask, bit = 0, 1
    for t in tensors:
        edge, nr = None, 0
        if t.__class__ not in NOT_TENSORS:
            if t._base is not None and t._epoch != t._st.history:
                refresh(t)
            if t._rg:
                mask |= bit
                edge = t._fn
                if edge is None:
                    edge = t
                else:
                    nr = t._nr
        edges.append(edge)
        nrs.append(nr)
        bit <<= 1
    if not mask:
        return
    if op.takes_list:
        mask |= bit  # lists of other lengths have other plans
    plan = op.plans.get(mask)
    if plan is None:
        plan = op.plan(mask, len(tensors))
    if plan is None:
        return
    cls = op.node_class if op.node_rule is None else op.node_class_for(tensors, attrs)
    node = _new(cls)
    node.edges = edges
    node.nrs = nrs
    node.seq = next_seq()
    node.plan = plan
    node.hooks = node.shapes = node.outs = node.out_st = node.trace = None
    if op.broadcasts:
        node.shapes = _broadcast_shapes(tensors)
    if outputs.__class__ is Tensor:
        outputs._fn = node
        outputs._rg = True
    else:
        _attach_many(node, outputs)
    node.saved = save(plan, tensors, outputs, attrs) if plan.spec else _NOTHING
    if WATCHED[0] and state.anomaly:
        node.trace = _forward_trace()


_NOTHING: list[Any] = []


def record_pointwise(op: Any, out: Tensor, a: Any, b: Any = None) -> None:
    """`record` for the eager path of one or two operands: the same, without loops."""
    first = second = None
    mask = nr1 = nr2 = 0
    lead, pair = a.__class__ not in NOT_TENSORS, b.__class__ not in NOT_TENSORS
    if lead:
        if a._base is not None and a._epoch != a._st.history:
            refresh(a)
        if a._rg:
            mask, first, nr1 = 1, a._fn, a._nr
            if first is None:
                first = a
    if pair:
        if b._base is not None and b._epoch != b._st.history:
            refresh(b)
        if b._rg:
            mask, second, nr2 = mask + 2, b._fn, b._nr
            if second is None:
                second = b
    if not mask:
        return
    plan, cls = op.plans.get(mask), op.cls
    if plan is None or cls is None or WATCHED[0]:
        record(op, out, (a,) if b is None else (a, b), ())
        return
    if INFERENCE[1]:
        _refuse_inference(plan, (a, b))
    node = _new(cls)
    if b is None:
        node.edges, node.nrs = (first,), (nr1,)
    else:
        node.edges, node.nrs = (first, second), (nr1, nr2)
    node.seq, node.plan = next_seq(), plan
    node.hooks = node.shapes = node.outs = node.out_st = node.trace = None
    if pair and lead:
        shape, other = a._a.shape, b._a.shape
        if shape != other:
            node.shapes = (shape, other)
    elif b is not None:
        node.shapes = _broadcast_shapes((a, b))
    out._fn, out._rg = node, True
    node.saved = saved = []
    for kind, i in plan.spec:
        t = a if i == 0 else b
        if kind == INPUT and t.__class__ not in NOT_TENSORS:
            st = t._st
            saved.append((t, 0 if st is None else st.version))
        else:
            node.saved = save(plan, (a, b), out, ())
            break


def _broadcast_shapes(tensors: tuple[Any, ...]) -> Any:
    """Shapes of the operands, or None where they are all one."""
    shapes = [t._a.shape if t.__class__ not in NOT_TENSORS else () for t in tensors]
    first = shapes[0]
    for shape in shapes:
        if shape != first:
            return shapes
    return None


def _attach_many(node: OpNode, outputs: Any) -> None:
    many = (outputs,) if isinstance(outputs, Tensor) else outputs
    if many is outputs:
        node.outs = tuple((o._a.shape, o._dtype) for o in many)
    for nr, o in enumerate(many):
        if o._dtype.kind > 1:
            o._fn, o._nr, o._rg = node, nr, True


def save(plan: Plan, tensors: tuple[Any, ...], outputs: Any, attrs: tuple[Any, ...]) -> list[Any]:
    """The values that `plan` wants kept until backward."""
    saved: list[Any] = []
    if INFERENCE[1]:
        _refuse_inference(plan, tensors)
    for kind, i in plan.spec:
        if kind == INPUT and i >= 0 and not WATCHED[0]:
            t = tensors[i]
            if t.__class__ in NOT_TENSORS:
                saved.append(t)
            else:
                st = t._st
                saved.append((t, 0 if st is None else st.version))
        elif kind == ATTR:
            saved.append(attrs[i])
        elif kind == SHAPE:
            saved.append(_shapes(tensors[i]) if i >= 0 else [_shapes(t) for t in tensors])
        elif kind == DTYPE:
            saved.append(tensors[i]._dtype)
        elif kind == INPUT:
            saved.append([_save_input(t) for t in tensors] if i < 0 else _save_input(tensors[i]))
        else:
            saved.append(save_output(outputs if isinstance(outputs, Tensor) else outputs[i]))
    return saved


def _refuse_inference(plan: Plan, tensors: tuple[Any, ...]) -> None:
    wanted = {i for kind, i in plan.spec if kind == INPUT}
    for i, t in enumerate(tensors):
        if isinstance(t, Tensor) and t.is_inference() and (i in wanted or -1 in wanted):
            raise RuntimeError(
                "Inference tensors cannot be saved for backward: operand "
                f"{i} of shape {list(t._a.shape)} was made under inference_mode. Make a .clone() "
                "outside of it, or use torch.no_grad() there")


def _shapes(t: Any) -> Any:
    return t._a.shape if isinstance(t, Tensor) else ()


def _save_input(t: Any) -> Any:
    if not isinstance(t, Tensor):
        return t
    if WATCHED[0] and state.saved_hooks:
        return Hooked(t)
    st = t._st
    return t, (0 if st is None else st.version)


def save_output(out: Tensor) -> Any:
    """What is kept of an output: not the tensor, which would make a cycle with its node."""
    if WATCHED[0] and state.saved_hooks:
        return Hooked(out)
    st = out._st if out._fn is None or out._fn.outs is None else storage_of(out)
    return out._a, out._dtype, st, (0 if st is None else st.version)


def _forward_trace() -> str:
    import traceback

    return "".join(traceback.format_stack()[:-2])


def new_node(cls: type[Node], edges: tuple[Any, ...], nrs: tuple[int, ...]) -> Any:
    """A node outside the operator records (custom functions, in-place writes through views)."""
    node = cls.__new__(cls)
    node.edges, node.nrs, node.seq, node.hooks = edges, nrs, next_seq(), None
    node.trace = _forward_trace() if state.anomaly else None
    return node


def edge_of(t: Any) -> tuple[Any, int]:
    """The edge that leads to `t`, and its output number there."""
    if not isinstance(t, Tensor):
        return None, 0
    if t._base is not None:
        refresh(t)
    if not t._rg:
        return None, 0
    return (t, 0) if t._fn is None else (t._fn, t._nr)


Tensor._refresh_history = staticmethod(refresh)  # type: ignore[assignment]

"""`autograd.Function`: operations with a gradient written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor.dtype import FLOAT
from ..tensor.tensor import Tensor, wrap
from .modes import followed, state
from .node import Hooked, Node, edge_of, new_node, overwritten

__all__ = ["Function", "FunctionCtx", "once_differentiable", "BackwardCFunction",
           "NestedIOFunction", "InplaceFunction"]


class BackwardNode(Node):
    """The node of a custom function; it is the `ctx` that forward and backward receive."""

    __slots__ = ("__dict__", "saved", "inputs_meta", "outs", "needs_input_grad",
                 "materialize_grads", "function")

    function: type[Function]
    saved: tuple[Any, ...] | None
    outs: tuple[Any, ...]
    inputs_meta: list[Any]  # shape and dtype of every tensor input
    needs_input_grad: tuple[bool, ...]
    materialize_grads: bool

    def output_count(self) -> int:
        return len(self.outs)

    def name(self) -> str:
        return self.function.__name__ + "Backward"

    # --- what forward may call ------------------------------------------------------------------

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps inputs or outputs for backward, guarded against later in-place writes."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError("save_for_backward can only save variables, but argument is of "
                                f"type {type(t).__name__}; set other values as attributes of ctx")
        self._to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Accepted; forward mode does not use custom functions yet."""

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says that forward changed these inputs in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says that these outputs carry no gradient."""
        self._no_grad = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing output gradients arrive as zeros (default) or as None."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept; RuntimeError if freed or overwritten since."""
        if self.saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved "
                "tensors after they have already been freed). Specify retain_graph=True if you "
                "need to backward through the graph a second time.")
        return tuple(self._unpack(entry) for entry in self.saved)

    def _unpack(self, entry: Any) -> Any:
        if entry is None:
            return None
        if type(entry) is Hooked:
            return entry.unpack(self)
        kind, value, version = entry
        if kind == "output":
            array, d, st, nr = value
            out = wrap(array, d)
            out._fn, out._nr, out._rg, out._st = self, nr, True, st
            value = out
        st = value._st
        if st is not None and st.version != version:
            raise overwritten(self, value, st, version)
        return value

    # --- running --------------------------------------------------------------------------------

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        if self.materialize_grads:
            grads = [_zeros(out) if g is None and out[2] else g
                     for g, out in zip(grads, self.outs, strict=True)]
        result = followed(self.function.backward)(self, *grads)
        given = result if isinstance(result, tuple) else (result,)
        n = len(self.inputs_meta)
        if len(given) > n and all(g is None for g in given[n:]):
            given = given[:n]
        if len(given) != n:
            raise RuntimeError(f"function {self.name()} returned an incorrect number of gradients "
                               f"(expected {n}, got {len(given)})")
        return tuple(self._checked(i, g) for i, g in enumerate(given))

    def _checked(self, i: int, g: Any) -> Any:
        """A gradient that fits its input: shape (summed if broadcast) and dtype."""
        meta = self.inputs_meta[i]
        if g is None or meta is None:
            if g is not None:
                raise RuntimeError(f"function {self.name()} returned a gradient different than "
                                   f"None at position {i + 1}, but the corresponding forward "
                                   "input was not a Variable")
            return None
        shape, d = meta
        if not isinstance(g, Tensor):
            raise TypeError(f"expected Variable or None (got {type(g).__name__}) from backward of "
                            f"{self.name()}")
        if g._a.shape != shape:
            try:
                g = g.sum_to_size(shape)
            except (RuntimeError, ValueError):
                raise RuntimeError(
                    f"Function {self.name()} returned an invalid gradient at index {i} - got "
                    f"{list(g._a.shape)} but expected shape compatible with {list(shape)}"
                ) from None
        return g if g._dtype is d else Tensor._cast(g, d)

    def release(self) -> None:
        self.saved = None


FunctionCtx = BackwardNode
BackwardCFunction = BackwardNode


def _zeros(out: tuple[Any, ...]) -> Tensor:
    shape, d, _ = out
    return wrap(np.zeros(shape, d.np), d)


class Function:
    """Base of custom operations: define static methods `forward` and `backward`.

    >>> import lampion as torch
    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * 2
    >>> x = torch.ones(2, requires_grad=True)
    >>> Double.apply(x).sum().backward()
    >>> x.grad
    tensor([2., 2.])
    """

    generate_vmap_rule = False
    _node_class: type[BackwardNode]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"{type(self).__name__} should not be instantiated: call "
                           f"{type(self).__name__}.apply(...)")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._node_class = type(cls.__name__ + "Backward", (BackwardNode,),
                               {"__slots__": (), "function": cls})

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs; receives ctx first unless `setup_context` is defined."""
        raise NotImplementedError("You must implement the forward function for custom "
                                  "autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves what backward needs, when `forward` takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of the inputs from those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD.")

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Forward mode; not used yet."""
        raise NotImplementedError("You must implement the jvp function for custom "
                                  "autograd.Function to use it with forward mode AD.")

    vjp = backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and records the node."""
        ctx = _context(cls, args)
        grad, state.grad = state.grad, False
        try:
            if cls.setup_context is not Function.setup_context:
                outputs = followed(cls.forward)(*args, **kwargs)
                followed(cls.setup_context)(ctx, args, outputs)
            else:
                outputs = followed(cls.forward)(ctx, *args, **kwargs)
        finally:
            state.grad = grad
        return _record(ctx, args, outputs)


def _context(cls: type[Function], args: tuple[Any, ...]) -> BackwardNode:
    edges = [edge_of(a) for a in args]
    ctx = new_node(cls._node_class, tuple(e for e, _ in edges), tuple(n for _, n in edges))
    ctx.saved, ctx.out_st, ctx.outs = (), None, ()
    ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
    ctx.inputs_meta = [(a._a.shape, a._dtype) if isinstance(a, Tensor) else None for a in args]
    ctx.materialize_grads = True
    ctx._to_save = ctx._dirty = ctx._no_grad = ()
    return ctx  # type: ignore[no-any-return]


def _record(ctx: Any, args: tuple[Any, ...], outputs: Any) -> Any:
    """Attaches the node to the outputs of forward."""
    many = outputs if isinstance(outputs, tuple) else (outputs,)
    needs = state.grad and any(ctx.needs_input_grad)
    dirty, inputs = _ids(ctx._dirty), _ids(a for a in args if isinstance(a, Tensor))
    plain = _ids(ctx._no_grad)
    results = []
    for o in many:
        if isinstance(o, Tensor) and id(o) in inputs and id(o) not in dirty:
            o = o.view_as(o) if needs else o
            o = o.detach() if needs else o
        results.append(o)
    if needs:
        ctx.outs = tuple((o._a.shape, o._dtype, True) if isinstance(o, Tensor)
                         else ((), None, False) for o in results)
        for nr, (o, original) in enumerate(zip(results, many, strict=True)):
            if isinstance(o, Tensor) and o._dtype.kind >= FLOAT and id(original) not in plain:
                _attach(ctx, o, nr, id(original) in dirty)
        ctx.saved = tuple(_keep(ctx, t, many, results) for t in ctx._to_save)
    ctx._to_save = ctx._dirty = ctx._no_grad = ()
    return tuple(results) if isinstance(outputs, tuple) else results[0]


def _ids(tensors: Any) -> set[int]:
    return {id(t) for t in tensors}


def _attach(ctx: Any, out: Tensor, nr: int, dirty: bool) -> None:
    if dirty and out._rg and out._fn is None and out.is_leaf:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place "
                           f"operation: {ctx.name()}")
    out._fn, out._nr, out._rg = ctx, nr, True
    if dirty and out._st is not None:
        out._st.history += 1


def _keep(ctx: Any, t: Any, many: tuple[Any, ...], results: list[Any]) -> Any:
    if t is None:
        return None
    if state.saved_hooks:
        return Hooked(t)
    for nr, original in enumerate(many):
        if t is original and isinstance(results[nr], Tensor) and results[nr]._fn is ctx:
            from ..tensor.tensor import storage_of

            out = results[nr]
            st = storage_of(out)
            return "output", (out._a, out._dtype, st, nr), st.version
    return "input", t, t._version


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a `backward` that cannot itself be differentiated."""
    from functools import wraps

    @wraps(fn)
    def once(ctx: Any, *grads: Any) -> Any:
        recording, state.grad = state.grad, False
        try:
            outputs = fn(ctx, *grads)
        finally:
            state.grad = recording
        if not recording or not any(isinstance(g, Tensor) and g._rg for g in grads):
            return outputs
        many = outputs if isinstance(outputs, tuple) else (outputs,)
        blocked = tuple(_Once.apply(o, *grads) if isinstance(o, Tensor) else o for o in many)
        return blocked if isinstance(outputs, tuple) else blocked[0]
    return once


class _Once(Function):
    """The identity, whose backward is an error."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Any) -> Tensor:  # type: ignore[override]
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with "
                           "@once_differentiable")


class InplaceFunction(Function):
    """Old base of functions with an `inplace` flag."""


NestedIOFunction = InplaceFunction

"""Operator records: what an operator is, declared once.

Two kinds of record make up everything PyTorch-named:

* `Leaf`: a graph-level operator. It has a NumPy reference (`kernel`) on arrays, a shape rule, and
  gradient rules written in public operators. Calling it on tensors runs the reference, records
  history, works on the meta device and under capture. Arguments are positional: tensors first,
  attributes after. Declared with `@leaf(...)` above the kernel.
* `op`: a public function with PyTorch's signature, whose body normalises arguments and composes
  leaves or other operators. `@op(...)` derives the method, the in-place and `out=` forms and the
  place in the public namespaces.

Gradient rules name what they need: parameters of the kernel (saved inputs and attributes), `out`
(or `out0`, `out1`), `<input>_shape`, `<input>_dtype`. Nothing else is kept for backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import (
    ATTR,
    DTYPE,
    INPUT,
    NOT_TENSORS,
    OUTPUT,
    SHAPE,
    OpNode,
    Plan,
    record,
)
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.abstract import AbstractArray, AbstractOperand
from ..tensor.dtype import _BY_NUM, dtype, from_numpy_dtype
from ..tensor.tensor import INFERENCE, Tensor, share
from .autocast import ACTIVE, adjust, whole
from .errors import out_of_memory
from .layout import DENSE, ROWS, in_rows, settled
from .native import (
    LEAST,
    OFTEN,
    TEMPLATES,
    FusedRule,
    calls_left,
    launch,
    launch_list,
    pays_when_small,
)

__all__ = ["LEAVES", "PUBLIC", "Leaf", "leaf", "not_differentiable", "op", "same_shape"]

LEAVES: dict[str, Leaf] = {}
PUBLIC: dict[str, dict[str, Any]] = {}  # namespace -> name -> function

Kernel = Callable[..., Any]
ShapeRule = Callable[..., Any]
_F32 = np.dtype(np.float32)
_new = object.__new__


class not_differentiable:
    """In the place of gradient rules: the operator has none, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Leaf:
    """A graph-level operator; see the module's first lines."""

    __slots__ = (
        "_classes",
        "cls",
        "broadcasts",
        "exact",
        "failures",
        "grads",
        "joint",
        "keeps_first",
        "kernel",
        "launches",
        "least",
        "n_tensors",
        "name",
        "node_name", "node_rule",
        "params",
        "plans",
        "rows",
        "shape",
        "small",
        "takes_list",
        "view",
    )

    def __init__(self, name: str, kernel: Kernel, params: tuple[str, ...], n_tensors: int,
                 takes_list: bool, grad: Any, shape: ShapeRule | None, node: Any,
                 view: bool, broadcasts: bool, exact: bool) -> None:
        self.name, self.kernel, self.params = name, kernel, params
        self.n_tensors, self.takes_list, self.shape = n_tensors, takes_list, shape
        self.view, self.broadcasts, self.exact = view, broadcasts, exact
        self.joint = callable(grad)
        self.grads = grad
        self.plans: dict[int, Plan | None] = {}
        # Kernels by the facts of their arguments; None: the reference serves always. Views have
        # nothing to compute, drawing has an order to keep.
        by_reference = view or "generator" in params or name == "to_device"
        self.launches: dict[Any, Any] | None = None if by_reference else {}
        self.rows = name in ROWS
        self.keeps_first = self.joint or any(
            params[0] in _argument_names(r) for r in self.grads.values()) if not isinstance(
            grad, not_differentiable) else False  # whether gradients need the first input
        self.failures = 0
        self.least = LEAST  # elements of the largest argument from which a kernel may pay
        self.small = 0 if by_reference else OFTEN  # calls until smaller ones are considered
        self._classes: dict[str, type[OpNode]] = {}
        self.cls: type[OpNode] | None = None  # of the nodes, once there is one and only one
        # A rule where PyTorch has several nodes for one operator: by overload.
        self.node_rule = node if callable(node) else None
        self.node_name = node if isinstance(node, str) else _camel(name) + "Backward0"
        _check_rules(self)
        LEAVES[name] = self

    def __repr__(self) -> str:
        return f"<operator {self.name}({', '.join(self.params)})>"

    @property
    def node_class(self) -> type[OpNode]:
        """The class of this operator's nodes in the history."""
        if self.cls is None:
            self.cls = self._named_class(self.node_name)
        return self.cls

    def node_class_for(self, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> type[OpNode]:
        """The class of the node for these arguments, where it depends on them."""
        assert self.node_rule is not None
        name = self.node_rule(tensors, attrs)
        found = self._classes.get(name)
        return self._named_class(name) if found is None else found

    def _named_class(self, name: str) -> type[OpNode]:
        made = self._classes[name] = type(name, (OpNode,), {"__slots__": (), "op": self})
        return made

    # --- calling --------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        if ACTIVE[0]:
            args = adjust(self.name, args)
        if self.takes_list:
            return self._on_list(tuple(args[0]), args[1:])
        n = self.n_tensors
        tensors, attrs = args[:n], args[n:]
        arrays: list[Any] = []
        reduced, recorded, large = None, False, False
        for t in tensors:
            if t.__class__ in NOT_TENSORS:
                arrays.append(t)
                continue
            a = t._a
            if a.__class__ is AbstractArray:
                return self._abstract(tensors, attrs)
            arrays.append(a)
            if a.size >= self.least:
                large = True
            if t._dtype.is_reduced:
                reduced = t._dtype
            if t._rg or t._base is not None:
                recorded = True
        if self.view:
            return self._as_view(tensors, attrs, self.kernel(arrays[0], *attrs))
        reduced = None if self.exact else reduced
        if self.rows:
            arrays[0] = in_rows(arrays[0])
        if self.small and not large:
            large = self.suits_small(arrays, attrs)
        token = enter(IGNORE)
        try:
            result = launch(self, arrays, attrs) if large and self.launches is not None else None
            if result is None:
                result = (self.kernel(*arrays, *attrs) if reduced is None
                          else self.kernel(*map(_widen, arrays), *attrs))
                if large and self.launches is not None and self.name != "clone":
                    dense = self.name in TEMPLATES or self.name in DENSE
                    result = settled(result, arrays, dense)
            out = _wrap(result, reduced) if result.__class__ is not tuple else tuple(
                [_wrap(r, reduced) for r in result])
        except AbstractOperand:  # an index tensor without elements
            return self._abstract(tensors, attrs)
        except MemoryError as error:
            raise out_of_memory(self.name, error) from None
        finally:
            leave(token)
        if recorded and state.grad:
            record(self, out, tensors, attrs)
        return out

    def suits_small(self, arrays: list[Any], attrs: tuple[Any, ...]) -> bool:
        """Counts a call on small arrays; the last one finds out whether they are worth a kernel."""
        self.small = calls_left(self.small)
        if not self.small and pays_when_small(self, arrays, attrs):
            self.least = 1
        return self.least == 1 and all(getattr(a, "size", 1) for a in arrays)

    def _on_list(self, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        """A call whose tensors come as one list."""
        arrays = []
        for t in tensors:
            if t._a.__class__ is AbstractArray:
                return self._abstract(tensors, attrs)
            arrays.append(t._a)
        reduced = None if self.exact else _reduced(tensors)
        token = enter(IGNORE)
        try:
            result = launch_list(self, arrays, attrs)
            if result is None:
                result = self.kernel(arrays if reduced is None else list(map(_widen, arrays)),
                                     *attrs)
                result = settled(result, arrays, self.name in TEMPLATES)
            out = _wrap(result, reduced)
        except MemoryError as error:
            raise out_of_memory(self.name, error) from None
        finally:
            leave(token)
        if state.grad:
            record(self, out, tensors, attrs)
        return out

    def _as_view(self, tensors: tuple[Any, ...], attrs: tuple[Any, ...], result: Any) -> Any:
        base = tensors[0]
        if result.__class__ is tuple:
            out: Any = tuple(share(base, r) for r in result)
        else:
            same = result.dtype is base._a.dtype or result.dtype == base._a.dtype
            out = share(base, result, None if same else from_numpy_dtype(result.dtype))
        if state.grad and (base._rg or base._base is not None):
            record(self, out, tensors, attrs)
        return out

    # --- without data ---------------------------------------------------------------------------

    def _abstract(self, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        from .abstract import run

        return run(self, tensors, attrs)

    # --- gradient -------------------------------------------------------------------------------

    def plan(self, mask: int, n: int) -> Plan | None:
        """What to save and which rules to run when the inputs in `mask` need gradients."""
        made = None if isinstance(self.grads, not_differentiable) else self._make_plan(mask, n)
        self.plans[mask] = made
        return made

    def _make_plan(self, mask: int, n: int) -> Plan:
        needs = tuple(bool(mask >> i & 1) for i in range(n))
        spec: list[tuple[int, int]] = []
        calls = []
        if self.joint:
            calls.append((0, self.grads, self._fused(self.grads),
                          self._places(self.grads, 2, spec)))
        else:
            for i, need in enumerate(needs):
                rule = self.grads.get(self.params[i]) if need else None
                if need and rule is None:
                    raise NotImplementedError(
                        f"the derivative of {self.name}() with respect to argument "
                        f"'{self.params[i]}' is not implemented: add it to the record of "
                        f"{self.name} in {self.kernel.__code__.co_filename}")
                if rule is not None:
                    calls.append((i, rule, self._fused(rule), self._places(rule, 1, spec)))
        return Plan(spec, calls, self.joint, needs)

    def _fused(self, rule: Any) -> Any:
        """The rule as a kernel; the gradient of a view is a view and has nothing to fuse."""
        return None if self.view else FusedRule(self.name, rule)

    def _places(self, rule: Any, skip: int, spec: list[tuple[int, int]]) -> tuple[int, ...]:
        places = []
        for name in _argument_names(rule)[skip:]:
            source = self._source(name)
            if source not in spec:
                spec.append(source)
            places.append(spec.index(source))
        return tuple(places)

    def _source(self, name: str) -> tuple[int, int]:
        if name in self.params:
            i = self.params.index(name)
            if i >= self.n_tensors:
                return ATTR, i - self.n_tensors
            return INPUT, -1 if self.takes_list else i
        if name.startswith("out") and (name == "out" or name[3:].isdigit()):
            return OUTPUT, int(name[3:] or 0)
        base, _, what = name.rpartition("_")
        if base in self.params and what in ("shape", "dtype"):
            i = -1 if self.takes_list else self.params.index(base)
            return (SHAPE if what == "shape" else DTYPE), i
        raise TypeError(f"gradient rule of {self.name} asks for '{name}': use a parameter of the "
                        "kernel, out, out0.., or <input>_shape / <input>_dtype")


class Draw(Leaf):
    """A random operator: under capture every run of the program draws anew."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        recorder, tensors = state.recorder, args[:self.n_tensors]
        if state.batcher is not None:
            return state.batcher.draw(self, tensors, args[self.n_tensors:])
        if recorder is None:
            return super().__call__(*args)
        for t in tensors:
            recorder.value_of(t)  # lifts what is no recorded tensor yet
        return self._abstract(tensors, args[self.n_tensors:])


def _argument_names(fn: Any) -> tuple[str, ...]:
    code = fn.__code__
    return tuple(code.co_varnames[:code.co_argcount])


def _check_rules(record_: Leaf) -> None:
    """Every rule must be readable when the record is made, not at the first backward."""
    if isinstance(record_.grads, not_differentiable):
        return
    rules = [(record_.grads, 2)] if record_.joint else [(r, 1) for r in record_.grads.values()]
    for rule, skip in rules:
        for name in _argument_names(rule)[skip:]:
            record_._source(name)
    if not record_.joint:
        unknown = set(record_.grads) - set(record_.params[:record_.n_tensors])
        if unknown:
            raise TypeError(f"gradient rules of {record_.name} for {sorted(unknown)}, which are "
                            f"not its tensor arguments {record_.params[:record_.n_tensors]}")


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _reduced(tensors: Sequence[Any]) -> dtype | None:
    for t in tensors:
        if isinstance(t, Tensor) and t._dtype.is_reduced:
            return t._dtype
    return None


def _widen(a: Any) -> Any:
    if type(a) is np.ndarray and a.dtype.kind in "fV" and a.dtype.itemsize < 4:
        return a.astype(_F32)
    return a


def _wrap(r: Any, reduced: dtype | None) -> Tensor:
    if r.__class__ is not np.ndarray:
        r = np.asarray(r)
    if reduced is not None and r.dtype == _F32:
        r = r.astype(reduced.np)
    t = _new(Tensor)
    t._a = r
    d = _BY_NUM.get(r.dtype.num)
    t._dtype = from_numpy_dtype(r.dtype) if d is None else d
    t._rg = False
    t._fn = t._st = t._grad = t._base = None
    t._nr = t._epoch = 0
    if INFERENCE[0]:
        Tensor._note_birth(t)
    return t


def leaf(grad: Any, *, name: str | None = None, shape: ShapeRule | None = None,
         node: Any = None, view: bool = False, broadcasts: bool = False,
         exact: bool = False) -> Callable[[Kernel], Leaf]:
    """Declares a graph-level operator above its NumPy reference.

    grad: {input name: rule(g, ...)}; or one joint rule(g, needs, ...) that returns the gradients
      of all tensor inputs (None where not needed); or `not_differentiable("why")`. For several
      outputs `g` is the tuple of their gradients, zeros where none arrived.
    shape: rule on abstract arrays, giving a shape, (shape, dtype), or a list of these; without
      it the reference runs on zeros that take no memory.
    view: the kernel returns a window on the memory of the first input.
    broadcasts: gradients are summed back to the shapes of the inputs.
    exact: moves bits only; reduced-precision floats are not widened to float32.
    node: the name of its nodes (default: from `name`), or a rule(tensors, attrs) that gives it.

    Tensor inputs are the parameters annotated `Array`, `OptArray` or (a list) `Arrays`.
    """
    def make(kernel: Kernel) -> Leaf:
        params = _argument_names(kernel)
        kinds = [kernel.__annotations__.get(p, "") for p in params]
        n = sum(k in ("Array", "OptArray", "Arrays") for k in kinds)
        takes_list = "Arrays" in kinds
        if takes_list and n != 1:
            raise TypeError(f"{kernel.__name__}: a list of arrays must be the only tensor input")
        cls = Draw if "generator" in params else Leaf
        return cls(name or kernel.__name__.strip("_"), kernel, params, n, takes_list, grad, shape,
                   node, view, broadcasts, exact)
    return make


def data_dependent(*_: Any) -> Any:
    """Shape rule of results whose size depends on the elements: there is none without data."""
    raise AssertionError("data_dependent is a mark, not a rule")


def same_shape(input: Any, *_: Any) -> Any:
    """Shape rule: like the first input."""
    return input.shape, input.dtype


# --- public operators -------------------------------------------------------------------------


def op(places: str = "torch Tensor", *, name: str | None = None,
       inplace: bool | Leaf | tuple[Leaf, ...] = False, out: bool = False,
       aliases: str = "") -> Callable[[Any], Any]:
    """Declares a public operator above its body.

    places: namespaces it belongs to: torch, Tensor (as a method), F (nn.functional), linalg, fft,
      special, nn.init, ... separated by blanks.
    inplace: derive `name_`; the operators that the body may call last, and none after, say that
      their kernels may write the result where it belongs. out: derive the `out=` argument.
      aliases: further names.
    """
    def make(fn: Any) -> Any:
        from .forms import in_place_form, out_form

        base = name or fn.__name__
        last = inplace if isinstance(inplace, tuple) else (inplace,)
        in_place = in_place_form(fn, base, () if inplace is True else last) if inplace else None
        function = whole(base, out_form(fn, base) if out else fn)
        for label in (base, *aliases.split()):
            for place in places.split():
                method = place == "Tensor"
                publish(place, label, whole(base, fn) if method else function)
                if in_place is not None and place in ("torch", "Tensor"):
                    publish(place, label + "_", in_place)
        return function
    return make


def publish(place: str, name: str, fn: Any) -> None:
    """Puts a function into a public namespace."""
    PUBLIC.setdefault(place, {})[name] = fn
    if place == "Tensor":
        setattr(Tensor, name, fn)

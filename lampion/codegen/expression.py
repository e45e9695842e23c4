"""Array expressions: what a NumPy reference computes, recorded by running it on symbols.

A `Symbol` stands where an ndarray stands. NumPy's functions, operators and reductions on it make
nodes instead of numbers, so the same reference that defines an operator becomes its kernel.
Whatever has no node raises `Untraceable`, and the reference keeps serving the operator.

Axes are matched as broadcasting matches them: every axis longer than 1 of an argument is an axis
of the iteration space, and axes that meet at one place are one. A reshape cuts axes into parts and
takes parts together; an axis with parts stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..runtime.recording import PLAIN
from .types import F32, I1, U8, Type, of_numpy

__all__ = ["Node", "Symbol", "Trace", "Untraceable", "pointwise"]


class Untraceable(TypeError):
    """A reference does something that has no node; the message says what."""


class Node:
    """One array of an expression.

    op: "input", "number" (a scalar given at run time), "const", "reduce", or a pointwise
    operation of `bodies`. axes: the axes of the space that it varies along.
    """

    __slots__ = ("args", "attr", "axes", "kind", "number", "op")

    def __init__(self, op: str, args: tuple[Node, ...], attr: Any, kind: Type,
                 axes: frozenset[int], number: int) -> None:
        self.op, self.args, self.attr, self.kind = op, args, attr, kind
        self.axes, self.number = axes, number


class Trace:
    """The nodes of one expression, each made once; sizes and identity of the axes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.known: dict[Any, Node] = {}
        self.parents: list[int] = []  # of axes: those that met are one
        self.sizes: list[int] = []
        self.parts: list[tuple[int, ...]] = []  # of axes that were cut, outermost first
        self.inputs: list[Node] = []
        self.places: list[int] = []  # of the inputs, among the arguments
        self.input_axes: list[tuple[int | None, ...]] = []  # by dimension of each input
        self.numbers: list[Any] = []  # Python values, in the order of the kernel's parameters

    def axis(self, size: int, parts: tuple[int, ...] = ()) -> int:
        """A new axis; one with parts is those, taken together."""
        self.parents.append(len(self.parents))
        self.sizes.append(size)
        self.parts.append(parts)
        return len(self.parents) - 1

    def root(self, axis: int) -> int:
        """The axis that stands for all those that `axis` met."""
        while self.parents[axis] != axis:
            axis = self.parents[axis]
        return axis

    def atoms(self, axis: int) -> tuple[int, ...]:
        """The axes without parts that an axis consists of, outermost first."""
        axis = self.root(axis)
        if not self.parts[axis]:
            return (axis,)
        return tuple(x for part in self.parts[axis] for x in self.atoms(part))

    def meet(self, a: int, b: int) -> int:
        """Makes two axes one."""
        a, b = sorted((self.root(a), self.root(b)))
        if a == b:
            return a
        if self.parts[a] or self.parts[b]:
            self.cut([a], [b])
            for x, y in zip(self.atoms(a), self.atoms(b), strict=True):
                if x != y:
                    self.meet(x, y)
        else:
            self.parents[b] = a
        return a

    def cut(self, first: list[int], second: list[int]) -> None:
        """Cuts the atoms of two rows of axes until both rows have atoms of the same sizes."""
        ends = _ends([self.sizes[x] for a in first for x in self.atoms(a)]) | _ends(
            [self.sizes[x] for a in second for x in self.atoms(a)])
        wanted = sorted(ends)
        if any(n % m for m, n in pairwise(wanted)):
            raise Untraceable("a reshape across axes that have no common parts")
        for row in (first, second):
            inner = 1
            for x in reversed([x for a in row for x in self.atoms(a)]):
                outer = inner * self.sizes[x]
                self.divide(x, [n // inner for n in wanted if inner <= n <= outer])
                inner = outer

    def divide(self, atom: int, ends: list[int]) -> None:
        """Gives an axis parts that end at these numbers of elements from its innermost on."""
        if len(ends) > 2:
            sizes = [n // m for m, n in pairwise(ends)]
            self.parts[atom] = tuple(self.axis(n) for n in reversed(sizes))

    def reshaped(self, dims: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """The axes of a reshape to these sizes; neither side has axes of size 1."""
        found: list[int] = []
        left, wanted = list(dims), list(sizes)
        while wanted:
            taken, made = [left.pop(0)], [wanted.pop(0)]
            while (a := prod(self.sizes[x] for x in taken)) != (b := prod(made)):
                if a < b:
                    taken.append(left.pop(0))
                else:
                    made.append(wanted.pop(0))
            found += taken if len(taken) == len(made) == 1 else self.regrouped(taken, made)
        return found

    def regrouped(self, dims: list[int], sizes: list[int]) -> list[int]:
        """Axes of these sizes made of the parts of others."""
        self.cut(dims, [self.axis(n) for n in sizes])
        parts = [x for d in dims for x in self.atoms(d)]
        found = []
        for size in sizes:
            taken = [parts.pop(0)]
            while prod(self.sizes[x] for x in taken) < size:
                taken.append(parts.pop(0))
            found.append(taken[0] if len(taken) == 1 else self.axis(size, tuple(taken)))
        return found

    def node(self, op: str, args: tuple[Node, ...], attr: Any, kind: Type,
             axes: frozenset[int]) -> Node:
        """The node of this content."""
        key = (op, tuple(a.number for a in args), attr, str(attr), kind)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Node(op, args, attr, kind, axes, len(self.nodes))
            self.nodes.append(found)
        return found

    def input(self, array: Any, place: int) -> Symbol:
        """The symbol of an argument, the `place`th; only its shape and dtype are used."""
        dims = tuple(self.axis(n) if n != 1 else None for n in array.shape)
        kind = U8 if array.dtype == _BOOL else kind_of(array.dtype)
        node = self.node("input", (), len(self.inputs), kind,
                         frozenset(d for d in dims if d is not None))
        self.inputs.append(node)
        self.places.append(place)
        self.input_axes.append(dims)
        symbol = Symbol(self, node, dims, tuple(array.shape), array.dtype)
        return symbol._point("nonzero", np.dtype(np.bool_)) if array.dtype == bool else symbol

    def number(self, value: Any, kind: Type) -> Node:
        """A scalar that is given at run time, so that another value needs no other kernel."""
        self.numbers.append(value)
        return self.node("number", (), len(self.numbers) - 1, kind, frozenset())

    def const(self, value: Any, kind: Type) -> Node:
        """A scalar constant; all but the plainest are passed at run time."""
        if isinstance(value, (bool, np.bool_)) or kind.is_bool:
            return self.node("const", (), bool(value), kind, frozenset())
        if value != value or value in PLAIN:
            plain = float(value) if kind.is_float else int(value)
            return self.node("const", (), plain, kind, frozenset())
        key = ("given", float(value) if kind.is_float else int(value), kind)
        if key not in self.known:
            self.known[key] = self.number(key[1], kind)
        return self.known[key]


def _ends(sizes: Sequence[int]) -> set[int]:
    """Where axes end, in elements from the innermost on."""
    found, total = {1}, 1
    for n in reversed(sizes):
        total *= n
        found.add(total)
    return found


# NumPy's functions that have bodies: of floats only, of all numbers, with bool results.
_MATHS = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan",
          "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
          "true_divide", "arctan2", "rint", "reciprocal", "floor", "ceil", "trunc", "copysign",
          "power", "fabs", "logaddexp", "hypot", "fmod", "floor_divide")
_PLAIN = ("add", "subtract", "multiply", "negative", "absolute", "square", "maximum", "minimum",
          "fmax", "fmin", "sign", "bitwise_and", "bitwise_or", "bitwise_xor", "invert")
_TO_BOOL = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isnan",
            "isinf", "isfinite")
_LOGICAL = ("logical_and", "logical_or", "logical_not", "logical_xor")
_UFUNCS = {getattr(np, n): n for n in (*_MATHS, *_PLAIN, *_TO_BOOL, *_LOGICAL)}
_REDUCTIONS = {np.add: "add", np.multiply: "mul", np.maximum: "max", np.minimum: "min",
               np.logical_or: "or", np.logical_and: "and"}
_FLOAT_ONLY = frozenset(_MATHS)
_SINGLE_ONLY = frozenset(("fmod", "floor_divide"))
_BOOL = np.dtype(np.bool_)


class Symbol(NDArrayOperatorsMixin):
    """An array of an expression under construction."""

    def __init__(self, trace: Trace, node: Node, dims: tuple[int | None, ...],
                 shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.trace, self.node, self.dims = trace, node, dims
        self.shape, self.dtype = shape, dtype
        self.shared = False  # has views: may not be written to

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def T(self) -> Symbol:
        return self.transpose()

    # --- NumPy's protocols ------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None,
                        where: Any = True, dtype: Any = None, **more: Any) -> Any:
        if where is not True or (out is not None and len(out) != 1):
            raise Untraceable(f"{ufunc.__name__} with where= or several outputs")
        if method == "reduce":
            axis, keepdims = more.get("axis", 0), bool(more.get("keepdims"))
            if ufunc in (np.maximum, np.minimum):
                return self._extreme(_REDUCTIONS[ufunc], axis, keepdims)
            return self._reduced(_REDUCTIONS.get(ufunc), axis, keepdims, dtype)
        if method != "__call__" or ufunc not in _UFUNCS or more.keys() - {"casting"}:
            raise Untraceable(f"{ufunc.__name__}.{method}")
        result = self._call(ufunc, inputs, dtype)
        return result if out is None else out[0]._write(result)

    def _call(self, ufunc: Any, inputs: tuple[Any, ...], dtype: Any) -> Symbol:
        name = _UFUNCS[ufunc]
        given = [_weak(x) for x in inputs]
        signature = (*([None] * len(given)), dtype) if dtype is not None else None
        loop = ufunc.resolve_dtypes((*given, None), **(
            {} if signature is None else {"signature": signature}))
        if any(d.kind == "c" for d in loop) or (name in _FLOAT_ONLY and loop[0].kind != "f"):
            raise Untraceable(f"{name} of {loop[0]}")
        if name in _SINGLE_ONLY and loop[0].itemsize > 4:
            raise Untraceable(f"{name} of {loop[0]}")
        if name in _LOGICAL:
            loop = (_BOOL,) * len(loop)
        parts = [self._operand(x, d) for x, d in zip(inputs, loop[:-1], strict=True)]
        return pointwise(self.trace, name, parts, loop[-1])

    def _operand(self, x: Any, dtype: np.dtype[Any]) -> Symbol:
        """Any operand as a symbol of that dtype."""
        if isinstance(x, Symbol):
            return x.astype(dtype)
        if isinstance(x, np.ndarray) and x.ndim == 0:
            x = x[()]
        if not isinstance(x, (int, float, bool, np.generic)):
            raise Untraceable(f"an operand of type {type(x).__name__}")
        return _scalar(self.trace, x, dtype)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        rule = _FUNCTIONS.get(func.__name__)
        if rule is None:
            raise Untraceable(f"numpy.{func.__name__}")
        return rule(self, *args, **kwargs)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Untraceable("its elements")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = __index__ = __array__  # type: ignore[assignment]

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, Symbol) and index.dtype == _BOOL:
            self._write(_where(self, index, self._operand(value, self.dtype), self))
            return
        if index is not Ellipsis:
            raise Untraceable("a write to a part of an array")
        self._write(_broadcast_to(self, self._operand(value, self.dtype), self.shape))

    def special(self, name: str) -> Symbol:
        """A function of `bodies` that NumPy lacks."""
        return self._point(name, self.dtype)

    # --- methods ----------------------------------------------------------------------------------

    def astype(self, dtype: Any, copy: bool = True, order: str = "K") -> Symbol:
        """Converted, element by element."""
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self._like(self.node, dtype) if copy else self
        if dtype.kind == "c":
            raise Untraceable("complex numbers")
        if dtype.kind in "iu" and self.node.kind.is_float:
            raise Untraceable("floats to integers, which differ by platform out of range")
        return self._point("nonzero" if dtype == _BOOL else "cast", dtype)

    def copy(self, order: str = "K") -> Symbol:
        return self._like(self.node, self.dtype)

    def view(self, *args: Any) -> Symbol:
        raise Untraceable("a view of the bits")

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None,
            keepdims: bool = False) -> Symbol:
        return self._reduced("add", axis, keepdims, dtype)

    def prod(self, axis: Any = None, dtype: Any = None, out: Any = None,
             keepdims: bool = False) -> Symbol:
        return self._reduced("mul", axis, keepdims, dtype)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False,
            initial: float = -np.inf) -> Symbol:
        if initial != -np.inf:
            raise Untraceable("max() from an initial value")
        return self._extreme("max", axis, keepdims)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False,
            initial: float = np.inf) -> Symbol:
        if initial != np.inf:
            raise Untraceable("min() from an initial value")
        return self._extreme("min", axis, keepdims)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Symbol:
        return self.astype(_BOOL)._reduced("or", axis, keepdims, None)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Symbol:
        return self.astype(_BOOL)._reduced("and", axis, keepdims, None)

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None,
             keepdims: bool = False) -> Symbol:
        if self.dtype.kind != "f":
            raise Untraceable(f"mean of {self.dtype}")
        count = self.size // max(_kept_size(self.shape, axis), 1)
        return self.sum(axis, dtype, None, keepdims) / count  # type: ignore[no-any-return]

    def clip(self, low: Any = None, high: Any = None, out: Any = None) -> Symbol:
        raised = self if low is None else np.maximum(self, low)
        limited: Any = raised if high is None else np.minimum(raised, high)
        return limited if out is None else out._write(limited)  # type: ignore[no-any-return]

    def conj(self) -> Symbol:
        return self

    @property
    def real(self) -> Symbol:
        return self

    def reshape(self, *shape: Any) -> Symbol:
        """Axes are cut and taken together."""
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        wanted = np.broadcast_to(np.int8(0), self.shape).reshape(wanted).shape
        long, kept = ([n for n in sizes if n != 1] for sizes in (self.shape, wanted))
        if long != kept and 0 in long:
            raise Untraceable(f"a reshape from {self.shape} to {wanted}")
        dims = [d for d in self.dims if d is not None]
        left = iter(dims if long == kept else self.trace.reshaped(dims, kept))
        return self._view(tuple(None if n == 1 else next(left) for n in wanted), wanted)

    def transpose(self, *axes: Any) -> Symbol:
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = tuple(order) if order else tuple(reversed(range(self.ndim)))
        return self._view(tuple(self.dims[i] for i in order), tuple(self.shape[i] for i in order))

    def squeeze(self, axis: Any = None) -> Symbol:
        drop = _axes(axis, self.ndim) if axis is not None else {
            i for i, n in enumerate(self.shape) if n == 1}
        keep = [i for i in range(self.ndim) if i not in drop]
        return self._view(tuple(self.dims[i] for i in keep), tuple(self.shape[i] for i in keep))

    def __getitem__(self, index: Any) -> Symbol:
        """New axes, full slices and an ellipsis only."""
        parts = index if isinstance(index, tuple) else (index,)
        if any(p is not None and p is not Ellipsis and p != slice(None) for p in parts):
            raise Untraceable("indexing")
        return self.reshape(np.broadcast_to(np.int8(0), self.shape)[parts].shape)

    # --- making -----------------------------------------------------------------------------------

    def _like(self, node: Node, dtype: np.dtype[Any]) -> Symbol:
        return Symbol(self.trace, node, self.dims, self.shape, dtype)

    def _view(self, dims: tuple[int | None, ...], shape: tuple[int, ...]) -> Symbol:
        self.shared = True
        made = Symbol(self.trace, self.node, dims, shape, self.dtype)
        made.shared = True
        return made

    def _point(self, name: str, dtype: np.dtype[Any]) -> Symbol:
        return pointwise(self.trace, name, [self], dtype)

    def _write(self, value: Symbol) -> Symbol:
        """`out=`: this symbol becomes `value`, in its own dtype."""
        if self.shared or value.shape != self.shape:
            raise Untraceable("writing to an array that has views, or into another shape")
        value = value.astype(self.dtype)
        self.node, self.dims = value.node, value.dims
        return self

    def _extreme(self, op: str, axis: Any, keepdims: bool) -> Symbol:
        """The largest or smallest; NaN if there is one.

        NaNs are looked for beside the comparison: two short chains are quicker than a long one.
        """
        found = self._reduced(op, axis, keepdims, None)
        if not found.node.kind.is_float:
            return found
        missing = self._point("isnan", _BOOL)._reduced("or", axis, keepdims, None)
        return _where(self, missing, self.dtype.type(np.nan), found)

    def _reduced(self, op: str | None, axis: Any, keepdims: bool, dtype: Any) -> Symbol:
        if op is None:
            raise Untraceable("this reduction")
        source = self.astype(_sum_dtype(self.dtype, dtype)) if op in ("add", "mul") else self
        drop = _axes(axis, self.ndim)
        trace, node = self.trace, source.node
        dropped = [d for i, d in enumerate(source.dims) if i in drop and d is not None]
        axes = tuple(sorted(x for d in dropped for x in trace.atoms(d)))
        if axes:
            kept = frozenset(x for a in node.axes for x in trace.atoms(a)).difference(axes)
            wide = _cast(trace, node, _wide(node.kind))
            node = _cast(trace, trace.node("reduce", (wide,), (op, axes), wide.kind, kept),
                         node.kind)
        dims = tuple(None if i in drop else d for i, d in enumerate(self.dims))
        shape = tuple(1 if i in drop else n for i, n in enumerate(self.shape))
        if not keepdims:
            dims = tuple(d for i, d in enumerate(dims) if i not in drop)
            shape = tuple(n for i, n in enumerate(shape) if i not in drop)
        return Symbol(trace, node, dims, shape, source.dtype)


def kind_of(dtype: np.dtype[Any]) -> Type:
    """The loop-level type that values of a dtype have while they are computed with."""
    try:
        return I1 if dtype == _BOOL else of_numpy(dtype.name)
    except KeyError:
        raise Untraceable(f"elements of {dtype}") from None


def _scalar(trace: Trace, x: Any, dtype: np.dtype[Any]) -> Symbol:
    with np.errstate(all="ignore"):
        value = np.asarray(x).astype(dtype)
    return Symbol(trace, trace.const(value.item(), kind_of(dtype)), (), (), dtype)


def _weak(x: Any) -> Any:
    """An operand as `resolve_dtypes` wants it: Python numbers by type, others by dtype."""
    weak = getattr(x, "weak", type(x))
    if weak in (int, float, bool, complex):
        return weak if weak is not bool else _BOOL
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


def _sum_dtype(dtype: np.dtype[Any], wanted: Any) -> np.dtype[Any]:
    if wanted is not None:
        return np.dtype(wanted)
    return np.dtype(np.int64) if dtype.kind in "bi" else dtype


def _axes(axis: Any, ndim: int) -> set[int]:
    if axis is None:
        return set(range(ndim))
    return {int(a) % ndim for a in ((axis,) if isinstance(axis, (int, np.integer)) else axis)}


def _kept_size(shape: tuple[int, ...], axis: Any) -> int:
    drop = _axes(axis, len(shape))
    return int(np.prod([n for i, n in enumerate(shape) if i not in drop], dtype=np.int64))


def pointwise(trace: Trace, name: str, parts: Sequence[Symbol], dtype: np.dtype[Any]) -> Symbol:
    """An operation of `bodies` on symbols, broadcast."""
    shape = np.broadcast_shapes(*(p.shape for p in parts))
    dims: list[int | None] = [None] * len(shape)
    for part in parts:
        for place, d in enumerate(part.dims, len(shape) - part.ndim):
            if d is not None:
                before = dims[place]
                dims[place] = trace.root(d) if before is None else trace.meet(before, d)
    axes = frozenset().union(*(p.node.axes for p in parts))
    kind, nodes = kind_of(dtype), [p.node for p in parts]
    if name in _MOVES:
        node = trace.node(name, tuple(nodes), None, kind, axes)
    else:  # 16-bit floats compute in float32
        wide = tuple(_cast(trace, n, _wide(n.kind)) for n in nodes)
        node = _cast(trace, trace.node(name, wide, None, _wide(kind), axes), kind)
    return Symbol(trace, node, tuple(dims), shape, dtype)


_MOVES = frozenset(("cast", "where"))  # read and write values of any type


def _wide(kind: Type) -> Type:
    return F32 if kind.is_float and kind.bits == 16 else kind


def _cast(trace: Trace, node: Node, kind: Type) -> Node:
    return node if node.kind == kind else trace.node("cast", (node,), None, kind, node.axes)


# --- NumPy functions that are no ufuncs -------------------------------------------------------


def _where(self: Symbol, condition: Any, yes: Any, no: Any) -> Symbol:
    dtype = np.result_type(*(x.dtype if isinstance(x, Symbol) else x for x in (yes, no)))
    parts = [self._operand(x, d) for x, d in ((condition, _BOOL), (yes, dtype), (no, dtype))]
    return pointwise(self.trace, "where", parts, dtype)


def _method(name: str) -> Callable[..., Any]:
    return lambda self, a, *args, **kwargs: getattr(a, name)(*args, **kwargs)


def _nan_to_num(self: Symbol, a: Symbol, copy: bool = True, nan: float = 0.0, **limits: Any) -> Any:
    if limits or not a.node.kind.is_float:
        raise Untraceable("nan_to_num of infinities")
    top = np.finfo(a.dtype).max
    return np.where(np.isnan(a), a.dtype.type(nan), np.clip(a, -top, top))


def _result_type(self: Symbol, *parts: Any) -> np.dtype[Any]:
    """As NumPy's, for symbols, dtypes and numbers (those among the arguments as well)."""
    weak = [getattr(p, "weak", None) for p in parts]
    return np.result_type(*(w(0) if w is not None else getattr(p, "dtype", p)
                            for p, w in zip(parts, weak, strict=True)))


def _full_like(value: Any) -> Callable[..., Any]:
    def make(self: Symbol, a: Symbol, dtype: Any = None, **_: Any) -> Symbol:
        return _broadcast_to(a, _scalar(self.trace, value, np.dtype(dtype or a.dtype)), a.shape)
    return make


def _broadcast_to(self: Symbol, a: Symbol, shape: Any, **_: Any) -> Symbol:
    shape = tuple(np.broadcast_shapes(a.shape, tuple(shape)))
    dims: list[int | None] = [*[None] * (len(shape) - a.ndim), *a.dims]
    return a._view(tuple(
        self.trace.axis(n) if d is None and n != 1 else d
        for d, n in zip(dims, shape, strict=True)), shape)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": _where, "clip": _method("clip"), "mean": _method("mean"), "sum": _method("sum"),
    "prod": _method("prod"), "max": _method("max"), "amax": _method("max"), "min": _method("min"),
    "amin": _method("min"), "any": _method("any"), "all": _method("all"),
    "broadcast_to": _broadcast_to, "reshape": _method("reshape"), "squeeze": _method("squeeze"),
    "transpose": _method("transpose"), "zeros_like": _full_like(0), "ones_like": _full_like(1),
    "copy": _method("copy"), "result_type": _result_type, "nan_to_num": _nan_to_num,
    "conjugate": lambda self, a: a,
    "expand_dims": lambda self, a, axis: a.reshape(
        np.expand_dims(np.broadcast_to(np.int8(0), a.shape), axis).shape),
    "ndim": lambda self, a: a.ndim, "shape": lambda self, a: a.shape,
}

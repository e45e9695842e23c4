"""From a reference and its arguments to a launch: trace, axes in memory order, kernel, numbers.

A `Plan` holds for arguments of these shapes, strides and dtypes. Its kernel takes sizes and
strides at run time, so a new batch size makes a new plan (cheap) and no new kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..runtime import memory
from ..runtime.recording import PLAIN, Number
from . import service
from .bodies import DIRECT, OWN
from .expression import Node, Symbol, Trace, Untraceable, kind_of, pointwise
from .interpret import numpy_type
from .nest import Nest, Operand, build
from .types import U8, Type, of_numpy

__all__ = ["Given", "Plan", "Program", "Split", "Untraceable", "assemble", "plan", "reachable",
           "reduced_axes", "symbols_of", "traced"]

_F32 = np.dtype(np.float32)
Array = Any


class Plan:
    """A kernel with everything but its arrays."""

    __slots__ = ("fills", "kernel", "key", "name", "nest", "numbers", "outputs", "tail", "takes")

    def __init__(self, name: str, nest: Nest, outputs: list[Any], numbers: list[Any],
                 tail: tuple[int, ...], takes: tuple[int, ...]) -> None:
        self.name, self.outputs, self.numbers = name, outputs, numbers
        self.nest: Nest | None = nest  # until the kernel is there
        self.tail, self.takes = tail, takes  # takes: which arrays, by place
        self.fills = any(n.__class__ is Place for n in numbers)
        self.key: tuple[str, str] | None = (name, _text(nest))
        self.kernel: Callable[..., None] | None = None

    def find(self) -> Callable[..., None] | None:
        """The kernel, or None as long as there is none."""
        nest, key = self.nest, self.key
        if nest is None or key is None:  # another thread was first
            return self.kernel
        self.kernel = service.kernel(key, partial(build, nest))
        if self.kernel is not None:
            self.nest = self.key = None  # a program may have very many plans
        return self.kernel

    def run(self, arguments: Sequence[Any], outs: Sequence[Array] | None = None) -> Any:
        """The results, or None as long as there is no kernel. outs: where to put them."""
        kernel = self.kernel or self.find()
        if kernel is None:
            return None
        if outs is None:
            outs = [o.make() for o in self.outputs]
        numbers = self.numbers if not self.fills else [
            arguments[n.place] if n.__class__ is Place else n for n in self.numbers]
        kernel(*outs, *[arguments[i] for i in self.takes], *numbers, *self.tail)
        return outs


class Split:
    """A long reduction in two kernels: partial results of windows, then one result of those."""

    __slots__ = ("first", "second")

    def __init__(self, first: Plan, second: Plan) -> None:
        self.first, self.second = first, second

    def run(self, arguments: Sequence[Any], outs: Sequence[Array] | None = None) -> Any:
        """As `Plan.run`."""
        partial = self.first.run(arguments)
        return None if partial is None else self.second.run(partial, outs)


class Program:
    """Plans for all results of one reference; one plan unless they reduce different axes.

    operations: about how many passes of NumPy it stands for.
    """

    __slots__ = ("operations", "parts", "places", "single")

    def __init__(self, parts: list[tuple[Plan | Split, tuple[int, ...]]], single: bool,
                 operations: int) -> None:
        self.parts, self.single, self.operations = parts, single, operations
        self.places = sum((places for _, places in parts), ())

    def __call__(self, arguments: Sequence[Any]) -> Any:
        """An array, or a tuple of them; None as long as a kernel is missing."""
        found: list[Any] = []
        for part, _ in self.parts:
            outs = part.run(arguments)
            if outs is None:
                return None
            found += outs
        if self.single:
            return found[0]
        return tuple(found[self.places.index(i)] for i in range(len(found)))


class Output:
    """How to make a result: its shape and the order of its axes in memory."""

    __slots__ = ("back", "dtype", "shape", "stored")

    def __init__(self, shape: tuple[int, ...], order: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype
        self.stored = tuple(shape[i] for i in order)
        plain = order == tuple(range(len(shape)))
        self.back = None if plain else tuple(int(i) for i in np.argsort(order))

    def make(self) -> Array:
        """A new array, not initialised."""
        made = memory.empty(self.stored, self.dtype)
        return made if self.back is None else made.transpose(self.back)

    def strides(self) -> tuple[int, ...]:
        """In elements."""
        steps, step = [], 1
        for n in reversed(self.stored):
            steps.append(step)
            step *= n
        steps.reverse()
        return tuple(steps) if self.back is None else tuple(steps[i] for i in self.back)


class Existing:
    """A result that goes into an array that exists."""

    def __init__(self, array: Array) -> None:
        self.steps = tuple(s // array.itemsize for s in array.strides)

    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return self.steps


class Place:
    """Stands for a number among the arguments."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class Given(Symbol):
    """A Python number among the arguments: takes the dtype of what it meets, as in NumPy."""

    def __init__(self, trace: Trace, place: int, kind: type) -> None:
        nothing = trace.const(0, of_numpy("int64"))
        super().__init__(trace, nothing, (), (), np.dtype(kind))
        self.place, self.weak = Place(place), kind

    def astype(self, dtype: Any, copy: bool = True, order: str = "K") -> Symbol:
        kind = kind_of(np.dtype(dtype))
        key = ("given number", self.place.place, kind)
        node = self.trace.known.get(key)
        if node is None:
            node = self.trace.known[key] = self.trace.number(self.place, kind)
        return Symbol(self.trace, node, (), (), np.dtype(dtype))


def plan(name: str, reference: Callable[..., Any], arguments: Sequence[Any],
         attributes: Sequence[Any] = (), wide: bool = True, into: Array | None = None) -> Program:
    """Plans a reference for ndarrays and Python numbers; Untraceable where it cannot be.

    wide: bfloat16 and float16 compute in float32 and results are rounded back. into: an array that
    takes the one result, in the reference's shape and dtype and without reductions.
    """
    trace = Trace()
    symbols, narrow = symbols_of(trace, arguments, wide)
    result = traced(name, reference, symbols, attributes)
    single = not isinstance(result, tuple)
    roots = [result] if single else list(result)
    for i, r in enumerate(roots):
        if not isinstance(r, Symbol):
            raise Untraceable(f"a result of type {type(r).__name__}")
        if r.node.op == "input":
            raise Untraceable("a result that is an argument")
        if narrow is not None and r.dtype == _F32:
            roots[i] = r.astype(narrow)
    if into is None:
        return assemble(name, trace, roots, arguments, single)
    if not single or (roots[0].shape, roots[0].dtype) != (into.shape, into.dtype) or (
            reduced_axes(trace, roots)):
        raise Untraceable("a result that does not fit its place")
    return assemble(name, trace, roots, arguments, single, [into])


def traced(name: str, reference: Callable[..., Any], symbols: Sequence[Any],
           attributes: Sequence[Any]) -> Any:
    """What a reference gives for symbols."""
    direct = DIRECT[name].get(tuple(attributes)) if name in DIRECT else None
    if direct is not None and symbols[0].node.kind.is_float:
        return symbols[0].special(direct)
    with np.errstate(all="ignore"):
        return reference(*symbols, *attributes)


def symbols_of(trace: Trace, arguments: Sequence[Any], wide: bool,
               baked: bool = True) -> tuple[list[Any], Any]:
    """Symbols for the arguments, and the narrow float dtype among them, if any.

    baked: plain numbers become constants of the kernel; otherwise every number is passed to it.
    """
    symbols: list[Any] = []
    narrow = None
    for place, a in enumerate(arguments):
        if not isinstance(a, np.ndarray):
            known = a is None or isinstance(a, bool) or (baked and a in PLAIN)
            kind = float if a.__class__ is Number else type(a)
            symbols.append(a if known else Given(trace, place, kind))
            continue
        symbol = trace.input(a, place)
        if wide and symbol.node.kind.is_float and symbol.node.kind.bits == 16:
            narrow, symbol = a.dtype, symbol.astype(_F32)
        symbols.append(symbol)
    return symbols, narrow


def assemble(name: str, trace: Trace, roots: list[Symbol], arguments: Sequence[Any],
             single: bool, into: Sequence[Array | None] | None = None,
             together: bool = False) -> Program:
    """Plans for the roots; those that reduce different axes go to different kernels.

    into: arrays that will take the results, where they exist already. together: one kernel.
    """
    groups: dict[Any, list[int]] = {}
    for i, r in enumerate(roots):
        groups.setdefault(together or reduced_axes(trace, [r]), []).append(i)
    parts: list[tuple[Plan | Split, tuple[int, ...]]] = []
    for places in groups.values():
        layout = _Layout(trace, [roots[i] for i in places], arguments,
                         None if into is None else [into[i] for i in places])
        parts.append((_split(name, layout) or layout.plan(name), tuple(places)))
    operations = sum(0 if n.op in _GIVEN else _MANY if n.op in OWN else 1
                     for n in reachable([r.node for r in roots]))
    return Program(parts, single, operations)


_GIVEN, _MANY = ("input", "number", "const"), 10
LONG = 1 << 17  # elements of a reduction that is worth two kernels
_WINDOW = 1 << 14  # elements reduced at once
FEW = 512  # results that give too few tasks
COLUMNS = 8192  # results of neighbouring columns that are better added row by row


def _split(name: str, layout: _Layout) -> Split | None:
    """Two plans for a long reduction to few results, None for others."""
    kept = [a for a in layout.order if a not in layout.reduced]
    results, longest = (prod(layout.trace.sizes[a] for a in axes)
                        for axes in (kept, layout.reduced))
    most = COLUMNS if layout.order and layout.order[-1] in kept and longest >= 256 else FEW
    if not layout.reduced or results > most or results * longest < LONG:
        return None
    inner = {n.number for n in layout.nodes if n.op == "reduce"}
    if any(not follows(r.node, inner) for r in layout.roots):
        return None
    chosen = sorted(inner)
    nodes = [n for n in layout.nodes if n.number in inner]
    if any(layout.roots_of(n) != frozenset(kept) for n in nodes) or any(
            isinstance(layout.trace.numbers[n.attr], Place) for n in layout.nodes
            if n.op == "number"):
        return None
    first = layout.windows(name, nodes, max(_WINDOW // max(results, 1), 64))
    partial = [o.make() for o in first.outputs]
    trace = Trace()
    inputs = [trace.input(a, i) for i, a in enumerate(partial)]
    for other in inputs[1:]:  # the same windows and kept axes
        for a, b in zip(inputs[0].dims, other.dims, strict=True):
            if a is not None and b is not None:
                trace.meet(a, b)
    totals = {n: symbol._reduced(op.attr[0], 0, False, symbol.dtype)
              for n, symbol, op in zip(chosen, inputs, nodes, strict=True)}
    roots = [_follow(r.node, trace, layout.trace, totals) for r in layout.roots]
    placed = [_placed(r, old, kept, layout.trace) for r, old in zip(
        roots, layout.roots, strict=True)]
    return Split(first, _Layout(trace, placed, partial, layout.into).plan(name))


def follows(node: Node, reductions: set[int]) -> bool:
    """Whether a result follows from reductions of pointwise values, and numbers, alone."""
    if node.number in reductions:
        return not any(n.op == "reduce" for n in reachable(node.args))
    return node.op != "input" and all(follows(a, reductions) for a in node.args)


def _follow(node: Node, trace: Trace, old: Trace, totals: dict[int, Symbol]) -> Symbol:
    """What follows on the totals, in a new trace."""
    if node.number in totals:
        return totals[node.number]
    dtype = numpy_type(node.kind)
    if node.op in ("const", "number"):
        made = trace.const(node.attr, node.kind) if node.op == "const" else trace.number(
            old.numbers[node.attr], node.kind)
        return Symbol(trace, made, (), (), dtype)
    return pointwise(trace, node.op, [_follow(a, trace, old, totals) for a in node.args], dtype)


def _placed(symbol: Symbol, old: Symbol, kept: list[int], trace: Trace) -> Symbol:
    """A result over the kept axes, as the result that was asked for lies."""
    wanted = [x for d in old.dims if d is not None for x in trace.atoms(d)]
    return symbol.transpose(tuple(kept.index(a) for a in wanted)).reshape(old.shape)


def reduced_axes(trace: Trace, roots: Sequence[Symbol]) -> frozenset[int]:
    """The axes that every reduction reduces: all must reduce the same."""
    sets = {frozenset(x for a in n.attr[1] for x in trace.atoms(a))
            for n in reachable([r.node for r in roots]) if n.op == "reduce"}
    if len(sets) > 1:
        raise Untraceable("reductions over different axes")
    return sets.pop() if sets else frozenset()


class _Axis(NamedTuple):
    """An axis of a nest: its size, and the step along it of every operand that has it."""

    size: int
    reduced: bool
    steps: list[int | None]


def _operand(kind: Type, steps: list[int | None]) -> Operand:
    has = tuple(s is not None for s in steps)
    if not has or not has[-1]:
        return Operand(kind, has, "0")
    return Operand(kind, has, "1" if steps[-1] == 1 else "s")


class _Layout:
    """The axes of an expression in the order of memory, neighbours merged where possible."""

    def __init__(self, trace: Trace, roots: list[Symbol], arguments: Sequence[Any],
                 into: Sequence[Array | None] | None) -> None:
        self.trace, self.roots = trace, roots
        self.into = [None] * len(roots) if into is None else into
        self.nodes = reachable([r.node for r in roots])
        self.used = sorted(n.attr for n in self.nodes if n.op == "input")
        self.arrays = {i: arguments[trace.places[i]] for i in self.used}
        self.strides = {i: self.input_strides(i, a) for i, a in self.arrays.items()}
        self.reduced = reduced_axes(trace, roots)
        self.order = self.axis_order()

    def input_strides(self, number: int, array: Array) -> dict[int, int]:
        """By axis, in elements; without axes along which one element stands for all."""
        if any(step % array.itemsize for step in array.strides):
            raise Untraceable("elements that overlap in part")
        found = self.walked(self.trace.input_axes[number],
                            [step // array.itemsize for step in array.strides])
        return {axis: step for axis, step in found.items() if step}

    def walked(self, dims: Sequence[int | None], steps: Sequence[int]) -> dict[int, int]:
        """By axis: the steps of an array that has these dimensions."""
        found: dict[int, int] = {}
        for d, step in zip(dims, steps, strict=True):
            for axis in reversed(self.trace.atoms(d)) if d is not None else ():
                if axis in found:
                    raise Untraceable("one axis twice in one array")
                found[axis] = step
                step *= self.trace.sizes[axis]
        return found

    def atoms(self, axes: Iterable[int | None]) -> list[int]:
        """What axes consist of."""
        return [x for a in axes if a is not None for x in self.trace.atoms(a)]

    def axis_order(self) -> list[int]:
        """Outermost first: as the largest dense argument lies in memory, else as written."""
        space: dict[int, None] = {}
        for r in sorted(self.roots, key=lambda r: -r.ndim):
            space.update((a, None) for a in self.atoms(r.dims))
        for n in self.nodes:
            space.update((a, None) for a in self.atoms(sorted(n.axes)))
        space.update((a, None) for a in sorted(self.reduced))
        order = self.as_written(list(space))
        best = max(self.used, key=lambda i: (len(self.strides[i]), -i), default=None)
        if best is None or len(self.strides[best]) < len(order):
            return order
        steps = self.strides[best]
        dense = sorted((steps[a] for a in order), reverse=True)
        if dense and dense[-1] == 1 and self.arrays[best].size == _span(
                self.arrays[best]):
            return sorted(order, key=lambda a: -steps[a])
        return order

    def as_written(self, space: list[int]) -> list[int]:
        """By the dimensions of the array (argument or result) that has the most of them."""
        tables = [self.atoms(self.trace.input_axes[i]) for i in self.used]
        tables += [self.atoms(r.dims) for r in self.roots]
        longest = max(tables, key=len, default=[])
        return [a for a in space if a not in longest] + [a for a in longest if a in space]

    def plan(self, name: str) -> Plan:
        outputs: list[Any] = [self.output(r) if a is None else Existing(a)
                              for r, a in zip(self.roots, self.into, strict=True)]
        out_steps = [self.walked(r.dims, o.strides())
                     for r, o in zip(self.roots, outputs, strict=True)]
        every = out_steps + list(self.strides.values())
        groups = self.merged(every)
        axes = [_Axis(self.size(g), g[-1] in self.reduced, [s.get(g[-1]) for s in every])
                for g in groups]
        return self.assembled(name, [r.node for r in self.roots], outputs, axes,
                              [_element(r.dtype) for r in self.roots], self.places(groups))

    def windows(self, name: str, nodes: list[Node], length: int) -> Plan:
        """The plan of partial results: reductions over windows of the first reduced axis."""
        kept = [a for a in self.order if a not in self.reduced]
        steps, step = {}, 1
        for a in reversed(kept):
            steps[a] = step
            step *= self.trace.sizes[a]
        every = [steps for _ in nodes] + list(self.strides.values())
        groups = self.merged(every)
        axes, at = [], next(i for i, g in enumerate(groups) if g[-1] in self.reduced)
        inner = prod(self.size(g) for g in groups[at + 1:] if g[-1] in self.reduced)
        length = max(length // inner, 1)
        for i, g in enumerate(groups):
            walks = [s.get(g[-1]) for s in every]
            if i == at:
                count = -(-self.size(g) // length)
                jumps = [None if w is None else w * length for w in walks]
                jumps[:len(nodes)] = [step] * len(nodes)
                axes.append(_Axis(count, False, jumps))
            axes.append(_Axis(length if i == at else self.size(g), g[-1] in self.reduced, walks))
        shape = (axes[at].size, *(self.trace.sizes[a] for a in kept))
        outputs = [Output(shape, tuple(range(len(shape))), numpy_type(n.kind)) for n in nodes]
        places = {n: frozenset(i + (i >= at) for i in found) | ({at} if at in found else set())
                  for n, found in self.places(groups).items()}
        for n in nodes:
            places[n.number] |= {at}
        return self.assembled(name + "_windows", nodes, outputs, axes,
                              [_element(o.dtype) for o in outputs], places,
                              (at, at + 1), self.size(groups[at]))

    def assembled(self, name: str, nodes: list[Node], outputs: list[Any], axes: list[_Axis],
                  out_kinds: list[Type], of: dict[int, frozenset[int]],
                  window: tuple[int, int] | None = None, total: int = 0) -> Plan:
        """The plan of these results over these axes."""
        kinds = out_kinds + [self.trace.inputs[i].kind for i in self.used]
        operands = [_operand(kind, [a.steps[i] for a in axes]) for i, kind in enumerate(kinds)]
        used = sorted({n.attr for n in self.nodes if n.op == "number"})
        kind_of = {n.attr: n.kind for n in self.nodes if n.op == "number"}
        place = {**{("input", n): i for i, n in enumerate(self.used)},
                 **{("number", n): i for i, n in enumerate(used)}}
        nest = Nest(name, tuple(a.reduced for a in axes), tuple(operands[len(outputs):]),
                    tuple(operands[:len(outputs)]), tuple(nodes),
                    tuple(kind_of[i] for i in used), of, place, window)
        strides = [a.steps[i] for i, operand in enumerate(operands) for n, a in enumerate(axes)
                   if operand.axes[n] and (n != len(axes) - 1 or operand.inner == "s")]
        tail = [*(a.size for a in axes), *([total] if window else ()), *strides]
        return Plan(name, nest, outputs, [self.trace.numbers[i] for i in used], tuple(tail),
                    tuple(self.trace.places[i] for i in self.used))

    def roots_of(self, node: Node) -> frozenset[int]:
        """The axes that a node varies along."""
        return frozenset(self.atoms(node.axes))

    def output(self, root: Symbol) -> Output:
        """Results with all kept axes lie as the space does, others as written."""
        rank = {a: i for i, a in enumerate(self.order)}
        places = [i for i, d in enumerate(root.dims) if d is not None]
        whole = not self.reduced or not self.reduced.isdisjoint(self.atoms(root.dims))
        in_memory = sorted(places, key=lambda i: rank[self.atoms([root.dims[i]])[0]])
        order = list(range(root.ndim))
        if whole:
            for i, j in zip(places, in_memory, strict=True):
                order[i] = j
        return Output(root.shape, tuple(order), root.dtype)

    def merged(self, every: list[dict[int, int]]) -> list[list[int]]:
        """Neighbouring axes that every operand walks as one."""
        groups: list[list[int]] = []
        for a in self.order:
            if groups and self.mergeable(groups[-1][-1], a, every):
                groups[-1].append(a)
            else:
                groups.append([a])
        return groups

    def mergeable(self, outer: int, inner: int, every: list[dict[int, int]]) -> bool:
        if (outer in self.reduced) != (inner in self.reduced):
            return False
        for n in self.nodes:
            axes = set(self.atoms(n.axes))
            if (outer in axes) != (inner in axes):
                return False
        return all((outer in s) == (inner in s) and (
            outer not in s or s[outer] == s[inner] * self.trace.sizes[inner]) for s in every)

    def size(self, group: list[int]) -> int:
        total = 1
        for a in group:
            total *= self.trace.sizes[a]
        return total

    def places(self, groups: list[list[int]]) -> dict[int, frozenset[int]]:
        """The merged axes that every node varies along."""
        place = {a: i for i, g in enumerate(groups) for a in g}
        found: dict[int, frozenset[int]] = {}
        for n in self.nodes:  # operands first
            if n.op == "input":
                found[n.number] = frozenset(place[a] for a in self.strides[n.attr])
                continue
            axes = frozenset(place[a] for a in self.atoms(n.axes))
            found[n.number] = axes & frozenset().union(*(found[a.number] for a in n.args))
        return found


def _element(dtype: Any) -> Type:
    return U8 if dtype == np.bool_ else of_numpy(dtype.name)


def _span(array: Array) -> int:
    """Elements between the first and the last of an array in memory."""
    return 1 + sum((n - 1) * abs(s) // array.itemsize
                   for n, s in zip(array.shape, array.strides, strict=True))


def reachable(roots: Sequence[Node]) -> list[Node]:
    """Every term that the roots need, operands first."""
    found: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.number not in found:
            found[node.number] = node
            stack.extend(node.args)
    return sorted(found.values(), key=lambda n: n.number)


def _text(nest: Nest) -> str:
    """Everything that determines the kernel, as text that is the same in every process."""
    nodes = reachable(nest.roots)
    place = nest.place
    number = {n.number: i for i, n in enumerate(nodes)}
    lines = [f"{n.op}({','.join(str(number[a.number]) for a in n.args)})"
             f"{'' if n.op == 'reduce' else place.get((n.op, n.attr), n.attr)}:{n.kind}"
             f"{n.attr[0] if n.op == 'reduce' else ''}@{sorted(nest.of[n.number])}"
             for n in nodes]
    operands = [f"{o.element}{''.join('.x'[has] for has in o.axes)}{o.inner}"
                for o in (*nest.outputs, *nest.inputs)]
    reduced = "".join("ar"[r] for r in nest.reduced)
    if nest.window:
        reduced += f"w{nest.window[0]}"
    return ";".join([reduced, *operands, *map(str, nest.numbers), *lines,
                     *(str(number[r.number]) for r in nest.roots)])

"""From an expression to a kernel: loops over its axes, vectors along the last one.

Axes are kept ("outer" loops, one result each) or reduced. The last axis carries the vectors:

* kept: lanes are independent results; reduced axes are plain loops inside ("columns");
* reduced: lanes are partial results, combined in a fixed tree at the end ("rows").

A reduction ends a stage; what depends on it is computed in the next stage, from the memory again.
Tasks are groups of results, so no two threads ever add to the same place, and the order of every
sum depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .bodies import BODIES, COMBINE, COST, identity
from .expression import Node
from .ir import Kernel, Value
from .target import Target
from .types import F32, F64, I1, U8, Type

__all__ = ["Nest", "Operand", "build", "schedule"]

_ROWS = 4  # rows that are added to partial results at once
GRAIN = 1 << 17  # instructions' worth of elements in a task
_SMALLEST = 1 << 13  # elements: handing less to another thread costs more than it saves


@dataclass(frozen=True)
class Operand:
    """How an array lies in the space: which axes it has, how the last one steps.

    inner: "1" next to each other, "s" a run-time step, "0" it does not vary along the last axis.
    """

    element: Type
    axes: tuple[bool, ...]
    inner: str


@dataclass(frozen=True)
class Nest:
    """An expression with its axes in order, ready to become a kernel.

    reduced: by axis. Axes of nodes are places in this order. `of` gives a node's axes.
    """

    name: str
    reduced: tuple[bool, ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    roots: tuple[Node, ...]
    numbers: tuple[Type, ...]
    of: dict[int, frozenset[int]]  # by node number
    place: dict[tuple[str, int], int]  # of inputs and numbers of the trace, in the lists above
    window: tuple[int, int] | None = None  # a kept axis of windows, the reduced axis within one


def build(nest: Nest, target: Target) -> Kernel:
    """The kernel: outputs, inputs, numbers, sizes of the axes, strides of the operands."""
    return _Builder(nest, target).build()


def schedule(nest: Nest, target: Target) -> list[str]:
    """How the kernel is arranged, for people: axes, operands, the stages of its expression."""
    b = _Builder(nest, target)
    kinds = ["reduced" if r else "kept" for r in nest.reduced]
    lanes = f"{b.width} lanes x {b.unroll}"
    axes = [f"n{a} {kind}" + (f" ({lanes})" if a == b.last else "") for a, kind in enumerate(kinds)]
    lines = [f"{nest.name}: {', '.join(axes) or 'one element'}"]
    for what, operands in (("out", nest.outputs), ("in", nest.inputs)):
        for i, o in enumerate(operands):
            along = " ".join(f"n{a}" for a, has in enumerate(o.axes) if has)
            step = {"1": "", "s": ", a step along the last axis", "0": ""}[o.inner]
            lines.append(f"  {what}{i}: {o.element}[{along}]{step}")
    names = {n.number: f"v{i}" for i, n in enumerate(b.nodes)}
    for n in b.nodes:
        names[n.number] = _written(n, names, nest)
        if len(names[n.number]) > 60 or n.op == "reduce":
            stage, text = b.ready[n.number], names[n.number]
            names[n.number] = f"v{n.number}"
            lines.append(f"  stage {stage}: v{n.number} = {text}")
    return lines + [f"  stage {b.ready[r.number]}: out{i} = {names[r.number]}"
                    for i, r in enumerate(nest.roots)]


def _written(node: Node, names: dict[int, str], nest: Nest) -> str:
    """A node as an expression of named ones."""
    if node.op in ("input", "number"):
        return f"{'in' if node.op == 'input' else 'x'}{nest.place[node.op, node.attr]}"
    if node.op == "const":
        return str(node.attr)
    args = ", ".join(names[a.number] for a in node.args)
    return f"{'reduce ' + node.attr[0] if node.op == 'reduce' else node.op}({args})"


class _Scope:
    """Values known at one depth of the nest: kernel, row, block of columns, point."""

    def __init__(self, parent: _Scope | None, lanes: int = 1) -> None:
        self.parent, self.lanes = parent, lanes
        self.memo: dict[int, Value] = {}
        self.pointers: list[Value] = [] if parent is None else parent.pointers
        self.index: Value | None = None if parent is None else parent.index
        self.mask: Value | None = None if parent is None else parent.mask

    def find(self, node: Node) -> Value | None:
        scope: _Scope | None = self
        while scope is not None:
            found = scope.memo.get(node.number)
            if found is not None:
                return found
            scope = scope.parent
        return None


class _Builder:
    def __init__(self, nest: Nest, target: Target) -> None:
        self.nest, self.target = nest, target
        self.k = Kernel(nest.name)
        self.k.plain_addresses = True
        self.last = len(nest.reduced) - 1
        self.rows = bool(nest.reduced) and nest.reduced[-1]
        self.kept = [a for a, r in enumerate(nest.reduced) if not r and a != self.last]
        self.looped = [a for a, r in enumerate(nest.reduced) if r and a != self.last]
        self.nodes = _reachable(nest.roots)
        self.width = target.lanes(_widest(self.nodes))
        self.unroll = _unroll(self.nodes)
        self.ready = _stages(self.nodes)
        self.reductions = [n for n in self.nodes if n.op == "reduce"]
        self.stages = 1 + max((self.ready[n.number] for n in nest.roots), default=0)
        self.stage = 0
        self.kept_values = self.keepers()

    # --- parameters ---------------------------------------------------------------------------

    def build(self) -> Kernel:
        k, nest = self.k, self.nest
        operands = (*nest.outputs, *nest.inputs)
        names = [f"out{i}" for i in range(len(nest.outputs))] + [
            f"in{i}" for i in range(len(nest.inputs))]
        arrays = [k.array(n, o.element) for n, o in zip(names, operands, strict=True)]
        self.numbers = [k.number(f"x{i}", kind) if kind.is_float else k.integer(f"x{i}").cast(kind)
                        for i, kind in enumerate(nest.numbers)]
        self.sizes = [k.integer(f"n{a}") for a in range(len(nest.reduced))]
        self.total = k.integer("total") if nest.window else None
        self.strides = [{a: k.integer(f"{n}_s{a}") for a in _strided(o, self.last)}
                        for n, o in zip(names, operands, strict=True)]
        top = _Scope(None)
        top.pointers = [a.ptr for a in arrays]
        self.prepare(top, nest.roots, 0)
        self.tasks(top)
        return k

    def product(self, axes: Sequence[int]) -> Value:
        """Elements over some axes."""
        total = self.k.index(1)
        for a in axes:
            total = self.sizes[a] if total.op == "const" else total * self.sizes[a]
        return total

    # --- tasks --------------------------------------------------------------------------------

    def tasks(self, top: _Scope) -> None:
        """Groups of rows; blocks of columns where a row is long."""
        k, inner = self.k, self.product(self.looped + [self.last] * self.rows)
        grain = k.index(max(GRAIN // max(self.cost(), 4), _SMALLEST))
        share = k.max(grain / k.max(inner, 1), 1)  # results of one task
        if self.rows or self.last < 0:
            self.groups(top, share, None)
            return
        step, size = self.width * self.unroll, self.sizes[self.last]
        length = (share + (step - 1)) / step * step
        blocks = k.max((size + (length - 1)) / length, 1)
        if not self.kept:
            with k.parallel(blocks) as (block, _):
                low = block * length
                self.row(top, k.index(0), (low, k.min(low + length, size)))
            return
        share = k.select(k.index(1) < blocks, k.index(1), k.max(length / k.max(size, 1), 1))
        self.groups(top, share, (blocks, length, size))

    def groups(self, top: _Scope, share: Value, split: tuple[Value, Value, Value] | None) -> None:
        """Tasks of `share` rows each, times blocks (how many, their length, all columns)."""
        k, outer = self.k, self.product(self.kept)
        count = (outer + (share - 1)) / share
        with k.parallel(count if split is None else count * split[0]) as (task, _):
            group = task if split is None else task / split[0]
            span = None
            if split is not None:
                low = (task - group * split[0]) * split[1]
                span = (low, k.min(low + split[1], split[2]))
            start = group * share
            with k.loop(start, k.min(start + share, outer)) as row:
                self.row(top, row, span)

    def cost(self) -> int:
        return sum(COST.get(n.op, 1) for n in self.nodes if n.op not in ("input", "number"))

    def row(self, top: _Scope, row: Value, span: tuple[Value, Value] | None) -> None:
        scope = _Scope(top)
        places = self.places(row, self.kept)
        scope.pointers = self.moved(top.pointers, self.kept, places)
        self.bound = self.window_size(places)
        self.prepare(scope, self.nest.roots, 1)
        if span is None:
            self.results(scope)
            return
        low, high = span
        if self.nest.window is not None and len(self.looped) == 1:
            self.accumulate(scope, low, high)
            return
        self.vectors(low, high, lambda i, lanes, unroll, mask: self.block(
            scope, i, lanes, unroll, mask))

    def window_size(self, places: list[Value]) -> Value | None:
        """Elements of this window: the last one may be shorter."""
        if self.nest.window is None or self.total is None:
            return None
        kept, reduced = self.nest.window
        place, length = places[self.kept.index(kept)], self.sizes[reduced]
        return self.k.min(length, self.total - place * length)

    def extent(self, axis: int) -> Value:
        """How far a loop along a reduced axis goes."""
        if self.nest.window is not None and axis == self.nest.window[1]:
            assert self.bound is not None
            return self.bound
        return self.sizes[axis]

    def places(self, flat: Value, axes: list[int]) -> list[Value]:
        """The index along each axis of a flat index over all of them."""
        found: list[Value] = []
        for a in reversed(axes[1:]):
            rest = flat / self.sizes[a]
            found.append(flat - rest * self.sizes[a])
            flat = rest
        return [flat, *reversed(found)] if axes else []

    def moved(self, pointers: list[Value], axes: list[int], places: list[Value]) -> list[Value]:
        """Pointers of the operands at these places."""
        moved = []
        for pointer, strides in zip(pointers, self.strides, strict=True):
            for a, place in zip(axes, places, strict=True):
                if a in strides:
                    pointer = self.k.offset(pointer, place * strides[a])
            moved.append(pointer)
        return moved

    def vectors(self, low: Value, high: Value, body: Callable[..., None]) -> None:
        """`body(index, lanes, unroll, mask)` along the last axis: whole vectors, then the tail."""
        k, step = self.k, self.width * self.unroll
        whole = low + (high - low) / step * step
        with k.loop(low, whole, step) as i:
            body(i, self.width, self.unroll, None)
        lanes = self.width if self.target.has_masks else 1
        with k.loop(whole, high, lanes) as i:
            body(i, lanes, 1, k.mask(high - i, lanes) if lanes > 1 else None)

    # --- lanes as results -----------------------------------------------------------------------

    def block(self, row: _Scope, index: Value, lanes: int, unroll: int, mask: Value | None) -> None:
        """Some columns: their stages, each a loop over the reduced axes."""
        points = self.points(row, index, lanes, unroll, mask)
        for stage in range(self.stages):
            for p in points:
                self.prepare(p, self.nest.roots, 2, stage)
            self.column_stage(points, stage)
        for p in points:
            self.store_all(p, self.finals())

    def points(self, parent: _Scope, index: Value, lanes: int, unroll: int,
               mask: Value | None) -> list[_Scope]:
        """Neighbouring vectors along the last axis."""
        made = []
        for u in range(unroll):
            point = _Scope(parent, lanes)
            point.index, point.mask = index + u * lanes, mask
            made.append(point)
        return made

    def column_stage(self, points: list[_Scope], stage: int) -> None:
        self.stage = stage
        found = [n for n in self.reductions if self.ready[n.number] == stage + 1]
        outs = self.full_outputs(stage)
        if not found and not outs:
            return
        if not any(self.nest.reduced):
            for p in points:
                self.store_all(p, outs)
            return
        starts = [self.start(n, p.lanes) for n in found for p in points]

        def inside(places: list[Value], totals: Sequence[Value]) -> list[Value]:
            new = []
            inner = [self.at(p, places) for p in points]
            for j, n in enumerate(found):
                for u, point in enumerate(inner):
                    new.append(self.add(n, totals[j * len(points) + u], point))
            for point in inner:
                self.keep(point)
                self.store_all(point, outs)
            return new
        totals = self.loops(self.looped, starts, inside)
        for j, n in enumerate(found):
            for u, point in enumerate(points):
                point.memo[n.number] = totals[j * len(points) + u]

    def at(self, point: _Scope, places: list[Value]) -> _Scope:
        """A point moved along the looped axes."""
        inner = _Scope(point, point.lanes)
        inner.index, inner.mask = point.index, point.mask
        inner.pointers = self.moved(point.pointers, self.looped, places)
        return inner

    # --- sums of many rows, row by row ------------------------------------------------------------

    def accumulate(self, scope: _Scope, low: Value, high: Value) -> None:
        """Windows of columns: partial results stay in the output, rows are read as they lie.

        Column by column, a row would be left after a few elements, and memory is slow at that.
        """
        k, rows = self.k, self.extent(self.looped[0])

        def begin(index: Value, lanes: int, unroll: int, mask: Value | None) -> None:
            for point in self.points(scope, index, lanes, unroll, mask):
                for i, node in enumerate(self.nest.roots):
                    self.put(i, self.start(node, lanes), point)
        self.vectors(low, high, begin)
        whole = rows / _ROWS * _ROWS
        with k.loop(0, whole, _ROWS) as r:
            self.add_rows(scope, low, high, [r + n for n in range(_ROWS)])
        with k.loop(whole, rows) as r:
            self.add_rows(scope, low, high, [r])

    def add_rows(self, scope: _Scope, low: Value, high: Value, places: list[Value]) -> None:
        """Adds some rows to the partial results."""
        rows = []
        for place in places:
            row = _Scope(scope)
            row.pointers = self.moved(scope.pointers, self.looped, [place])
            rows.append(row)
            for node in self.nodes:
                if self.last not in self.nest.of[node.number] and node.op != "reduce":
                    self.value(node, row)

        def add(index: Value, lanes: int, unroll: int, mask: Value | None) -> None:
            for point in self.points(scope, index, lanes, unroll, mask):
                inner = [self.beside(point, row) for row in rows]
                for i, node in enumerate(self.nest.roots):
                    assert point.index is not None
                    total = self.k.load(scope.pointers[i], point.index, lanes, mask).cast(
                        node.kind)
                    for p in inner:
                        total = self.join(node, total, self.k.like(
                            total, self.value(node.args[0], p)))
                    self.put(i, total, point)
        self.vectors(low, high, add)

    def beside(self, point: _Scope, row: _Scope) -> _Scope:
        """The same columns in another row."""
        other = _Scope(row, point.lanes)
        other.index, other.mask = point.index, point.mask
        return other

    def put(self, number: int, value: Value, point: _Scope) -> None:
        """Writes neighbouring elements of an output."""
        assert point.index is not None
        if value.type.is_bool:
            value = value.cast(U8)
        self.k.store(point.pointers[number], point.index, value, point.mask)

    # --- lanes as partial results -----------------------------------------------------------------

    def results(self, row: _Scope) -> None:
        """One result of each output: stages of loops over all reduced axes."""
        if self.last < 0:
            self.store_all(row, [i for i, _ in enumerate(self.nest.outputs)])
            return
        for stage in range(self.stages):
            self.prepare(row, self.nest.roots, 1, stage)
            self.row_stage(row, stage)
        self.store_all(row, self.finals())

    def row_stage(self, row: _Scope, stage: int) -> None:
        self.stage = stage
        found = [n for n in self.reductions if self.ready[n.number] == stage + 1]
        outs = self.full_outputs(stage)
        if not found and not outs:
            return
        tail = self.width if self.target.has_masks else 1
        needed = self.needed(stage)
        unroll = _unroll([n for n in self.nodes if n.number in needed and self.level(n) == 3])
        starts = [self.start(n, self.width) for n in found for _ in range(unroll)]
        starts += [self.start(n, tail) for n in found]
        split = len(found) * unroll

        def inside(places: list[Value], totals: Sequence[Value]) -> list[Value]:
            moved = self.at(row, places)
            whole = self.k.index(0)
            step = self.width * unroll
            size = self.extent(self.last)
            end = whole + size / step * step
            ahead = self.ahead(moved, needed) if self.looped and stage == 0 else []
            main = self.run(moved, found, outs, whole, end, totals[:split], self.width, unroll,
                            False, ahead)
            return main + self.run(moved, found, outs, end, size, totals[split:], tail, 1, True)
        totals = self.loops(self.looped, starts, inside)
        for j, n in enumerate(found):
            parts = totals[j * unroll:(j + 1) * unroll]
            row.memo[n.number] = self.combined(n, self.tree(n, list(parts)), totals[split + j])

    def ahead(self, row: _Scope, needed: set[int]) -> list[Value]:
        """Where arrays go on after this row: elsewhere in memory, so nobody else fetches that."""
        axis, many = self.looped[-1], len(self.nest.outputs)
        read = [many + self.nest.place["input", n.attr] for n in self.nodes
                if n.op == "input" and n.number in needed]
        return [self.k.offset(row.pointers[p], self.strides[p][axis]) for p in read
                if axis in self.strides[p] and self.nest.inputs[p - many].inner == "1"]

    def run(self, row: _Scope, found: list[Node], outs: list[int], low: Value, high: Value,
            totals: Sequence[Value], lanes: int, unroll: int, last: bool,
            ahead: Sequence[Value] = ()) -> list[Value]:
        """One loop along the last axis; the partial results after it."""
        k = self.k
        loop = k.loop(low, high, lanes * unroll, totals)
        with loop as given:
            index, inner = (given, ()) if not totals else (given[0], given[1:])
            mask = k.mask(high - index, lanes) if last and lanes > 1 else None
            points = self.points(row, index, lanes, unroll, mask)
            for pointer in ahead:
                for p in points:
                    assert p.index is not None
                    k.prefetch(pointer, p.index)
            new = [self.add(n, inner[j * unroll + u], p)
                   for j, n in enumerate(found) for u, p in enumerate(points)]
            for p in points:
                self.keep(p)
                self.store_all(p, outs)
            loop.next(*new)
        return list(loop.results)

    # --- reductions -------------------------------------------------------------------------------

    def loops(self, axes: list[int], totals: list[Value],
              inside: Callable[[list[Value], Sequence[Value]], list[Value]],
              places: tuple[Value, ...] = ()) -> list[Value]:
        """Nested loops over axes that carry the partial results."""
        if len(places) == len(axes):
            return inside(list(places), totals)
        loop = self.k.loop(0, self.extent(axes[len(places)]), 1, totals)
        with loop as given:
            index, inner = (given[0], given[1:]) if totals else (given, ())
            loop.next(*self.loops(axes, list(inner), inside, (*places, index)))
        return list(loop.results)

    def start(self, node: Node, lanes: int) -> Value:
        return self.k.const(identity(node.attr[0], node.kind), node.kind.vector(lanes))

    def add(self, node: Node, total: Value, point: _Scope) -> Value:
        """The partial result with one more vector; a sum of products is rounded once a term."""
        of = node.args[0]
        if (node.attr[0] == "add" and of.op == "multiply" and of.kind in (F32, F64)
                and point.find(of) is None):
            a, b = (self.k.like(total, self.value(x, point)) for x in of.args)
            new = self.k.fma(a, b, total)
        else:
            value = self.k.like(total, self.value(of, point))
            new = COMBINE[node.attr[0]](self.k, node.kind, total, value)
        return new if point.mask is None else self.k.select(point.mask, new, total)

    def tree(self, node: Node, parts: list[Value]) -> Value:
        """Neighbours first: the same order whatever the sizes."""
        while len(parts) > 1:
            parts = [self.join(node, a, b)
                     for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def join(self, node: Node, a: Value, b: Value) -> Value:
        return COMBINE[node.attr[0]](self.k, node.kind, a, b)

    def combined(self, node: Node, main: Value, tail: Value) -> Value:
        """Both parts, lanes by halves."""
        if main.type.lanes == tail.type.lanes:
            return self.folded(node, self.join(node, main, tail))
        return self.join(node, self.folded(node, main), tail)

    def folded(self, node: Node, a: Value) -> Value:
        while a.type.lanes > 1:
            half = a.type.lanes // 2
            if half == 1:
                return self.join(node, self.k.extract(a, 0), self.k.extract(a, 1))
            a = self.join(node, self.k.shuffle(a, a, range(half)),
                          self.k.shuffle(a, a, range(half, 2 * half)))
        return a

    # --- values that a later stage needs again ----------------------------------------------------

    def keepers(self) -> dict[int, tuple[int, int]]:
        """Dear values of several stages: the output whose memory keeps each, and the first stage.

        Softmax computes its exponentials once: they wait in the result's memory for their sum.
        """
        free = [i for i, r in enumerate(self.nest.roots) if self.inside(self.nest.outputs[i])
                and self.nest.outputs[i].inner == "1" and self.ready[r.number] > 0]
        kept: dict[int, tuple[int, int]] = {}
        for node in self.nodes:
            stages = [s for s in range(self.stages) if node.number in self.needed(s)]
            if len(stages) < 2 or COST.get(node.op, 1) < 15 or self.level(node) != 3:
                continue
            out = next((i for i in free if self.nest.outputs[i].element == node.kind
                        and self.ready[self.nest.roots[i].number] >= stages[-1]), None)
            if out is not None:
                free.remove(out)
                kept[node.number] = (out, stages[0])
        return kept

    def needed(self, stage: int) -> set[int]:
        """The nodes that a stage computes point by point."""
        stack = [n.args[0] for n in self.reductions if self.ready[n.number] == stage + 1]
        stack += [self.nest.roots[i] for i in self.full_outputs(stage)]
        found: set[int] = set()
        while stack:
            node = stack.pop()
            if node.number not in found and node.op != "reduce":
                found.add(node.number)
                stack.extend(node.args)
        return found

    def keep(self, point: _Scope) -> None:
        """Writes what a later stage will read."""
        for node in self.nodes:
            place = self.kept_values.get(node.number)
            if place is not None and place[1] == self.stage:
                value = self.k.splat(self.value(node, point), point.lanes)
                assert point.index is not None
                self.k.store(point.pointers[place[0]], point.index, value, point.mask)

    # --- values -----------------------------------------------------------------------------------

    def level(self, node: Node) -> int:
        """0 constant, 1 by row, 2 by column, 3 by point."""
        axes = self.nest.of[node.number]
        if node.op == "reduce":
            axes = frozenset(a for a in axes if not self.nest.reduced[a])
        if any(self.nest.reduced[a] for a in axes):
            return 3
        if self.last in axes:
            return 2
        return 1 if axes else 0

    def prepare(self, scope: _Scope, roots: Sequence[Node], level: int, stage: int = 0) -> None:
        """Values that vary no further inside are computed here, before the loops begin."""
        for node in self.nodes:
            if (self.level(node) <= level and self.ready[node.number] <= stage
                    and node.op not in ("const", "number") and scope.find(node) is None
                    and node.op != "reduce"):
                self.value(node, scope)

    def value(self, node: Node, scope: _Scope) -> Value:
        found = scope.find(node)
        if found is None:
            found = scope.memo[node.number] = self.compute(node, scope)
        return found

    def compute(self, node: Node, scope: _Scope) -> Value:
        if node.op == "input":
            return self.load(self.nest.place["input", node.attr], scope)
        if node.op == "number":
            return self.numbers[self.nest.place["number", node.attr]]
        if node.op == "const":
            return self.k.const(node.attr, node.kind)
        kept = self.kept_values.get(node.number)
        if kept is not None and kept[1] < self.stage and scope.index is not None:
            return self.k.load(scope.pointers[kept[0]], scope.index, scope.lanes, scope.mask)
        args = [self.value(a, scope) for a in node.args]
        return BODIES[node.op](self.k, node.kind, *args)

    def load(self, number: int, scope: _Scope) -> Value:
        operand = self.nest.inputs[number]
        place = len(self.nest.outputs) + number
        pointer = scope.pointers[place]
        if operand.inner == "0" or scope.index is None:
            return self.k.load(pointer, 0)
        if operand.inner == "1":
            return self.k.load(pointer, scope.index, scope.lanes, scope.mask)
        step = self.strides[place][self.last]
        return self.k.gather(pointer, self.steps(scope, step), scope.mask)

    def steps(self, scope: _Scope, step: Value) -> Value:
        assert scope.index is not None
        return (self.k.iota(scope.lanes) + scope.index) * step

    def full_outputs(self, stage: int) -> list[int]:
        """Outputs that vary along the reduced axes (or all, where nothing is reduced)."""
        return [i for i, r in enumerate(self.nest.roots)
                if self.ready[r.number] == stage and self.inside(self.nest.outputs[i])]

    def inside(self, operand: Operand) -> bool:
        reduced = self.nest.reduced
        return not any(reduced) or any(
            has and r for has, r in zip(operand.axes, reduced, strict=True))

    def finals(self) -> list[int]:
        return [i for i, o in enumerate(self.nest.outputs) if not self.inside(o)]

    def store_all(self, point: _Scope, outs: list[int]) -> None:
        """Everything is read before anything is written: outputs may be inputs, or keep values."""
        for i in outs:
            self.value(self.nest.roots[i], point)
        for i in outs:
            self.store(i, point)

    def store(self, number: int, point: _Scope) -> None:
        k, operand = self.k, self.nest.outputs[number]
        value = self.value(self.nest.roots[number], point)
        if operand.element == U8 and value.type.is_bool:
            value = value.cast(U8)
        pointer = point.pointers[number]
        if operand.inner == "0" or point.index is None:
            k.store(pointer, 0, value)
            return
        value = k.splat(value, point.lanes)
        if operand.inner == "1":
            k.store(pointer, point.index, value, point.mask)
        else:
            step = self.strides[number][self.last]
            k.scatter(pointer, self.steps(point, step), value, point.mask)


def _strided(operand: Operand, last: int) -> list[int]:
    """The axes along which an operand's stride is an argument."""
    return [a for a, has in enumerate(operand.axes)
            if has and (a != last or operand.inner == "s")]


def _reachable(roots: Sequence[Node]) -> list[Node]:
    """Every node that the roots need, operands first."""
    found: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if node.number not in found:
            for a in node.args:
                visit(a)
            found[node.number] = node
    for r in roots:
        visit(r)
    return list(found.values())


def _stages(nodes: Sequence[Node]) -> dict[int, int]:
    """How many reductions lie, one after another, before each node is known."""
    ready: dict[int, int] = {}
    for n in nodes:
        ready[n.number] = max((ready[a.number] for a in n.args), default=0) + (n.op == "reduce")
    return ready


def _widest(nodes: Sequence[Node]) -> Type:
    kinds = [n.kind for n in nodes if n.kind != I1 and n.op not in ("const", "number")]
    floats = [t for t in kinds if t.is_float and t.bits >= 32]
    return max(floats or kinds or [F32], key=lambda t: t.bits)


def _unroll(nodes: Sequence[Node]) -> int:
    cost = sum(COST.get(n.op, 1) for n in nodes if n.op not in ("input", "const", "number"))
    return 4 if cost <= 8 else 2 if cost <= 16 else 1

"""Products with few rows where both operands run along k: every element is a dot product.

This is a linear layer on few rows, `x @ W.T`, and a matrix times a vector: B is read once, as it
lies, and nothing is packed. A vector register is a stretch of k; a tile has as many elements of C
as a register has lanes, so that its sums are added up together in a tree. One or two rows take the
columns of B singly: all the time goes into reading B, and memory answers one stream at twice the
speed of several. Each element is summed in one order, which depends on k alone for each of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from .gemm_factors import SHIFT
from .gemm_kernel import Variant
from .gemm_tiles import multiply_add
from .ir import Kernel, Value
from .target import Target

__all__ = ["SINGLE_ROWS", "build_dot", "sums_of"]

SINGLE_ROWS = 2
"""Rows, at most, that take columns of B singly."""

_STREAMS = 8  # columns of B that are read at a time: caches keep no more lines a page apart


def build_dot(target: Target, variant: Variant, single: bool = False) -> Kernel:
    """The kernel of one variant without batch axes; single: for at most SINGLE_ROWS rows.

    Its arguments, in order:

    out (m, n), whose rows are contiguous; a (m, k) and b (k, n), each contiguous along k; bias;
    task_columns: columns of a task, n >= lanes of a register; add: not 0 to add to what `out`
    holds. alpha: of a scaled variant only.
    """
    return _Dot(target, variant, single).build()


class _Dot:
    def __init__(self, target: Target, variant: Variant, single: bool) -> None:
        self.k = k = Kernel("gemm_dot", True)
        self.single, self.chains = single, 2 if single else 1
        self.target, self.variant = target, variant
        self.factors = factors = variant.factors
        result, self.sum = variant.result or factors.sum, factors.sum
        self.lanes = target.lanes(self.sum)
        self.out, self.a = k.array("out", result), k.array("a", factors.in_a)
        self.b, self.bias = k.array("b", factors.in_b), k.array("bias", result)
        self.task_columns, self.add = k.integer("task_columns"), k.integer("add")
        if variant.scaled:
            self.alpha = k.number("alpha", self.sum)
        self.m, self.n, self.depth = self.out.size(0), self.out.size(1), self.a.size(1)
        self.whole = self.depth - self.depth % self.lanes

    def build(self) -> Kernel:
        """A task is some columns; within it blocks of as many columns as a register has lanes."""
        k, lanes = self.k, self.lanes
        with k.parallel((self.n + self.task_columns - 1) / self.task_columns) as (task, _):
            self.tail = k.scratch(self.sum, (lanes + 4) * lanes)
            self.kept = k.scratch(self.sum, SINGLE_ROWS * lanes * lanes)
            start = task * self.task_columns
            stop = k.min(start + self.task_columns, self.n)
            with k.loop(start, stop, lanes) as j:
                self._block(j)
        return k

    def _block(self, j: Value) -> None:
        """All rows against a block of columns; the last block reaches back, and skips those."""
        k = self.k
        start = k.min(j, self.n - self.lanes)
        self.skip = j - start
        rows, i = min(SINGLE_ROWS if self.single else 4, max(self.lanes // 4, 1)), k.index(0)
        while rows:
            stop = self.m - (self.m - i) % rows if rows > 1 else self.m
            with k.loop(i, stop, rows) as row:
                if self.single:
                    self._columns(row, start, rows)
                else:
                    self._tiles(row, start, rows)
            i, rows = stop, rows // 2

    def _columns(self, i: Value, start: Value, rows: int) -> None:
        """The elements of C of the block in `rows` rows from i, column by column of B."""
        k, lanes = self.k, self.lanes
        a = [k.offset(self.a.ptr, (i + r) * self.a.stride(0)) for r in range(rows)]
        with k.loop(0, lanes) as c:
            b = k.offset(self.b.ptr, (start + c) * self.b.stride(1))
            for r, total in enumerate(self._sums(a, [b])):
                k.store(self.kept, (c + r * lanes) * lanes, total)
        for r in range(rows):
            vectors = [k.load(self.kept, (r * lanes + c) * lanes, lanes) for c in range(lanes)]
            self._finish(i + r, start, sums_of(k, vectors), self.skip)

    def _tiles(self, i: Value, start: Value, rows: int) -> None:
        columns = self.lanes // rows
        with self.k.loop(0, self.lanes, columns) as c:
            self._tile(i, start, c, rows, columns)

    def _tile(self, i: Value, start: Value, c: Value, rows: int, columns: int) -> None:
        """The elements of C in `rows` rows from i and `columns` columns from start + c."""
        k = self.k
        a = [k.offset(self.a.ptr, (i + r) * self.a.stride(0)) for r in range(rows)]
        b = [k.offset(self.b.ptr, (start + c + x) * self.b.stride(1)) for x in range(columns)]
        sums = [v for first in range(0, columns, _STREAMS)
                for v in self._sums(a, b[first:first + _STREAMS])]
        values = sums_of(k, sums)
        for r in range(rows):
            part = k.shuffle(values, values, range(r * columns, (r + 1) * columns))
            self._finish(i + r, start + c, part, self.skip - c)

    def _sums(self, a: Sequence[Value], b: Sequence[Value]) -> Sequence[Value]:
        """For each row of a and column of b, their products summed lane by lane."""
        k, lanes, count = self.k, self.lanes, len(a) * len(b)
        zero = k.const(0, self.sum.vector(lanes))
        even = self.whole - self.whole % (self.chains * lanes)
        loop = k.loop(0, even, self.chains * lanes, [zero] * (count * self.chains))
        with loop as (p, *sums):
            loop.next(*(x for c in range(self.chains) for x in self._step(
                a, b, p + c * lanes, sums[c * count:(c + 1) * count])))
        sums = list(loop.results[:count])
        if self.chains == 2:
            sums = self._last(a, b, even, [x + y for x, y in zip(sums, loop.results[count:])])
        branch = k.choose(self.whole < self.depth)
        with branch.then:
            branch.give(*self._rest(a, b, sums))
        with branch.otherwise:
            branch.give(*sums)
        return branch.results

    def _last(self, a: Sequence[Value], b: Sequence[Value], p: Value, sums: Sequence[Value]
              ) -> list[Value]:
        """The last whole vector of k, where their number is odd."""
        branch = self.k.choose(p < self.whole)
        with branch.then:
            branch.give(*self._step(a, b, p, sums))
        with branch.otherwise:
            branch.give(*sums)
        return list(branch.results)

    def _step(self, a: Sequence[Value], b: Sequence[Value], p: Value, sums: Sequence[Value]
              ) -> list[Value]:
        """A vector of k from p on."""
        k, lanes = self.k, self.lanes
        return self._products([k.load(x, p, lanes).cast(self.sum) for x in a],
                              [self._of_b(k.load(x, p, lanes)) for x in b], sums)

    def _of_b(self, value: Value) -> Value:
        """Elements of B as they are multiplied."""
        return value ^ SHIFT if self.factors.is_shifted else value.cast(self.sum)

    def _products(self, a: Sequence[Value], b: Sequence[Value], sums: Sequence[Value]
                  ) -> list[Value]:
        pairs = [(x, y) for x in a for y in b]
        return [multiply_add(self.k, self.factors, x, y, s)
                for (x, y), s in zip(pairs, sums, strict=True)]

    def _rest(self, a: Sequence[Value], b: Sequence[Value], sums: Sequence[Value]) -> list[Value]:
        """The last part of k, less than a register, with zeros behind it."""
        k, lanes, rest = self.k, self.lanes, self.depth - self.whole
        if self.target.has_masks:
            mask = k.mask(rest, lanes)
            first, second = ([k.load(x, self.whole, lanes, mask) for x in side] for side in (a, b))
            ends = [*(v.cast(self.sum) for v in first), *map(self._of_b, second)]
        else:
            ends = [self._padded(slot, ptr, rest) for slot, ptr in enumerate((*a, *b))]
        return self._products(ends[:len(a)], ends[len(a):], sums)

    def _padded(self, slot: int, ptr: Value, rest: Value) -> Value:
        """The last `rest` elements of a run, with zeros behind them."""
        k, lanes = self.k, self.lanes
        memory = k.offset(self.tail, slot * lanes)
        k.store(memory, 0, k.const(0, self.sum.vector(lanes)))
        with k.loop(0, rest) as p:
            k.store(memory, p, k.load(ptr, self.whole + p).cast(self.sum))
        return k.load(memory, 0, lanes)

    def _finish(self, i: Value, j: Value, value: Value, skip: Value) -> None:
        """Stores elements of one row, but not the first `skip` ones."""
        k, columns = self.k, value.type.lanes
        c = k.offset(self.out.ptr, i * self.out.stride(0) + j)
        if self.target.has_masks:
            mask = ~k.mask(skip, columns)
            self._store(i, j, c, value, mask)
            return
        for x in range(columns):
            with k.when(skip <= x):
                self._store(i, j + x, k.offset(c, x), k.extract(value, x), None)

    def _store(self, i: Value, j: Value, c: Value, value: Value, mask: Value | None) -> None:
        """With alpha, what C held, and bias."""
        k, lanes, variant = self.k, value.type.lanes, self.variant
        if variant.scaled:
            value = value * self.alpha
        branch = k.choose(self.add.ne(0))
        with branch.then:
            branch.give(value + k.load(c, 0, lanes, mask).cast(self.sum))
        with branch.otherwise:
            branch.give(value)
        value = branch.results[0]
        if variant.bias == "column":
            value = value + k.load(self.bias.ptr, j, lanes, mask).cast(self.sum)
        elif variant.bias == "row":
            value = value + k.load(self.bias.ptr, i).cast(self.sum)
        k.store(c, 0, value.cast(self.out.element), mask)


def sums_of(k: Kernel, vectors: Sequence[Value]) -> Value:
    """Lane x of the result is the sum of the lanes of vector x; as many vectors as lanes.

    A tree over halves, as `reduce` adds: all vectors go through it together, two in one register.
    """
    level, width = _bit_reversed(list(vectors)), len(vectors)
    while len(level) > 1:
        level = [_folded(k, level[i], level[i + 1], width) for i in range(0, len(level), 2)]
        width //= 2
    return level[0]


def _bit_reversed(items: list[Value]) -> list[Value]:
    if len(items) == 1:
        return items
    return _bit_reversed(items[::2]) + _bit_reversed(items[1::2])


def _folded(k: Kernel, a: Value, b: Value, width: int) -> Value:
    """Groups of `width` lanes folded in half, those of a and b alternately."""
    lanes, half = a.type.lanes, width // 2
    low = [lane + side * lanes for group in range(0, lanes, width) for side in (0, 1)
           for lane in range(group, group + half)]
    return k.shuffle(a, b, low) + k.shuffle(a, b, [lane + half for lane in low])

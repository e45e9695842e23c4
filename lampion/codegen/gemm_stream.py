"""Products with very few rows and a B whose rows are contiguous: B is read once, in order.

A vector times a matrix takes as long as reading the matrix. A few rows of B at a time are added,
scaled, to sums that stay in a near cache; memory sees streams of whole rows. Each element is summed
in the same order as in `gemm_kernel.py`.
"""

from __future__ import annotations

from .gemm_kernel import Variant
from .gemm_pack import each_vector
from .gemm_tiles import multiply_add
from .ir import Kernel, Value
from .target import Target
from .types import I64

__all__ = ["MOST_ROWS", "build_stream"]

MOST_ROWS = 32
_SUMS = 1 << 14  # elements of C whose sums are kept at a time
_TOGETHER = 4  # rows of B: caches keep few lines that are pages apart


def build_stream(target: Target, variant: Variant) -> Kernel:
    """The kernel of one variant without batch axes; its arguments, in order:

    out (m, n) of contiguous rows, m <= MOST_ROWS; a (m, k); b (k, n) of contiguous rows; bias;
    task_columns; block: rows of B whose products are summed before they are added to C; add: not 0
    to add to what `out` holds. alpha: of a scaled variant only.
    """
    return _Stream(target, variant).build()


class _Stream:
    def __init__(self, target: Target, variant: Variant) -> None:
        self.k = k = Kernel("gemm_stream", True)
        self.target, self.variant, factors = target, variant, variant.factors
        result, self.sum = variant.result or factors.sum, factors.sum
        self.out, self.a = k.array("out", result), k.array("a", factors.a)
        self.b, self.bias = k.array("b", factors.b), k.array("bias", result)
        names = ("task_columns", "block", "add")
        self.task_columns, self.block, self.add = (k.integer(n) for n in names)
        if variant.scaled:
            self.alpha = k.number("alpha", self.sum)
        self.m, self.n, self.depth = self.out.size(0), self.out.size(1), self.a.size(1)

    def build(self) -> Kernel:
        """A task is some columns; within it segments whose sums are kept."""
        k = self.k
        with k.parallel((self.n + self.task_columns - 1) / self.task_columns) as (task, _):
            # With many rows the arithmetic takes time in which to fetch the next rows of B.
            self.ahead = k.select(self.m <= 8, k.const(0, I64), self.b.stride(0) * _TOGETHER)
            self.sums = k.scratch(self.sum, _SUMS)
            # Columns at a time: rows of B that are read once should be long, others near.
            self.segment = k.select(self.m <= 4, k.const(_SUMS // 4, I64), _SUMS // MOST_ROWS)
            start = task * self.task_columns
            stop = k.min(start + self.task_columns, self.n)
            with k.loop(start, stop, self.segment) as j:
                self.j, self.columns = j, k.min(stop - j, self.segment)
                with k.loop(0, k.max(self.depth, 1), self.block) as p:
                    self._block(p)
        return k

    def _block(self, p: Value) -> None:
        """One block of k for all rows of a segment."""
        k = self.k
        self.first, self.last = p.eq(0), self.depth <= p + self.block
        end = k.min(p + self.block, self.depth)
        with k.loop(0, self.m) as i:
            self._clear(self._sums(i))
        whole = end - (end - p) % _TOGETHER
        with k.loop(p, whole, _TOGETHER) as q:
            self._all_rows(q)
        with k.loop(whole, end) as q, k.loop(0, self.m) as i:
            self._add(i, 1, q, 1)
        with k.loop(0, self.m) as i:
            self._finish(i)

    def _clear(self, sums: Value) -> None:
        k = self.k
        each_vector(k, self.target, self.sum, self.columns, lambda x, lanes, mask: k.store(
            sums, x, k.const(0, self.sum.vector(lanes)), mask))

    def _sums(self, i: Value) -> Value:
        return self.k.offset(self.sums, i * self.segment)

    def _all_rows(self, q: Value) -> None:
        """The rows of B from q on, for several rows of A at once, as far as registers go."""
        k, start = self.k, self.k.index(0)
        for rows in (4, 2, 1) if self.target.registers == 32 else (2, 1):
            stop = self.m - (self.m - start) % rows if rows > 1 else self.m
            with k.loop(start, stop, rows) as i:
                self._add(i, rows, q, _TOGETHER)
            start = stop

    def _add(self, i: Value, rows: int, q: Value, count: int) -> None:
        """Adds `count` rows of B from q on, scaled by elements of `rows` rows of A from i on."""
        k, factors = self.k, self.variant.factors
        scales = []
        for r in range(rows):
            a = k.offset(self.a.ptr, (i + r) * self.a.stride(0) + q * self.a.stride(1))
            scales.append([k.load(a, self.a.stride(1) * c).cast(self.sum) for c in range(count)])
        sums = [self._sums(i + r) for r in range(rows)]
        given = [k.offset(self.b.ptr, (q + c) * self.b.stride(0) + self.j) for c in range(count)]

        def step(x: Value, lanes: int, mask: Value | None) -> None:
            totals = [k.load(s, x, lanes, mask) for s in sums]
            for c, ptr in enumerate(given):
                row = k.load(ptr, x, lanes, mask).cast(self.sum)
                k.prefetch(ptr, self.ahead + x)
                totals = [multiply_add(k, factors, k.splat(scales[r][c], lanes), row, t)
                          for r, t in enumerate(totals)]
            for s, t in zip(sums, totals, strict=True):
                k.store(s, x, t, mask)
        each_vector(k, self.target, self.sum, self.columns, step)

    def _finish(self, i: Value) -> None:
        """The sums of a block into C, with bias in the last one."""
        k, variant, sums = self.k, self.variant, self._sums(i)
        c = k.offset(self.out.ptr, i * self.out.stride(0) + self.j)

        def step(x: Value, lanes: int, mask: Value | None) -> None:
            value = k.load(sums, x, lanes, mask)
            if variant.scaled:
                value = value * self.alpha
            old = k.choose(~self.first | self.add.ne(0))
            with old.then:
                old.give(value + k.load(c, x, lanes, mask).cast(self.sum))
            with old.otherwise:
                old.give(value)
            done = k.choose(self.last)
            with done.then:
                done.give(self._applied(i, x, old.results[0], mask))
            with done.otherwise:
                done.give(old.results[0])
            k.store(c, x, done.results[0].cast(self.out.element), mask)
        each_vector(k, self.target, self.sum, self.columns, step)

    def _applied(self, i: Value, x: Value, value: Value, mask: Value | None) -> Value:
        k, variant = self.k, self.variant
        if variant.bias == "column":
            bias = k.load(self.bias.ptr, self.j + x, value.type.lanes, mask)
            value = value + bias.cast(self.sum)
        elif variant.bias == "row":
            value = value + k.load(self.bias.ptr, i).cast(self.sum)
        return value

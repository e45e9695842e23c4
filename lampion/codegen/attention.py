"""Attention, softmax(q k^T scale + mask) v, in tiles with an online softmax: memory linear in T.

Forward (T. Dao et al., "FlashAttention", 2022; M. Milakov and N. Gimelshein, "Online normalizer
calculation for softmax", 2018). A task owns a group of queries of one head and keeps them in the
lanes of vectors: scores, maxima, sums and the output of a group are transposed, so the softmax
never works across lanes, and both products are the same loop, one broadcast element of k or v
times a row of vectors. Keys and values are read where they lie.

Backward recomputes the weights from the kept logarithm of each row's sum. A task owns one head of
keys and values with all queries that read it, holds a group of keys in the lanes, and adds up dk
and dv in its own memory and dq in place: no two tasks write the same element, and the order of all
sums depends on sizes alone.

Everything that is exponentiated is in base 2: q is scaled by log2(e) as it is packed, and `lse`
holds base-2 logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from . import service
from .fused import Fused, fill
from .gemm_pack import transpose
from .ir import ArrayParam, Kernel, Value
from .math import exp2_flushed, log2
from .target import Target, target
from .types import Type, dtype_name, of_numpy

__all__ = ["LARGEST_HEAD", "Attention", "Strided", "Variant", "attention_backward",
           "attention_forward", "build_backward", "build_forward"]

Array = np.ndarray[Any, Any]

LARGEST_HEAD = 256
"""Elements of a head, at most: the accumulators of a group lie on the stack."""

_VECTOR = {"float32": 16, "float64": 8}  # elements of the widest registers
LOG2E = 1.4426950408889634
_ROWS = {"avx512": 8, "avx2": 4, "sse": 4, "neon": 8}  # of a register tile, two vectors wide
_SQUARE = 4  # elements are turned from rows into lanes by squares of this side
_BLOCK = 96  # keys between two looks at the maximum, queries between two sums, at most


class Variant(NamedTuple):
    """What is fixed when a kernel is compiled."""

    element: Type
    head: int  # elements of a query and a key
    value_head: int
    causal: bool
    masked: bool
    dropped: bool = False
    vectors: int = 2  # lanes of a group; 1 where much of the last two would be idle


class Strided(NamedTuple):
    """A matrix in memory whose rows are contiguous."""

    ptr: Value
    row: Value


class Attention:
    """What all kernels of attention share: sizes, register tiles, packing."""

    def __init__(self, target: Target, variant: Variant, name: str) -> None:
        self.k, self.variant = Kernel(name), variant
        self.lanes = target.lanes(variant.element)
        self.wide = max(variant.vectors, _SQUARE // self.lanes)  # lanes are packed by squares
        self.width = self.wide * self.lanes
        self.rows = _ROWS[target.name]

    def arrays(self, names: str) -> list[ArrayParam]:
        return [self.k.array(name, self.variant.element) for name in names.split()]

    def number(self, value: float) -> Value:
        """A vector of one number."""
        return self.k.const(value, self.variant.element.vector(self.lanes))

    def matrix(self, array: ArrayParam, batch: Value, head: Value) -> Strided:
        """The rows of one head."""
        at = batch * array.stride(0) + head * array.stride(1)
        return Strided(self.k.offset(array.ptr, at), array.stride(2))

    def vectors(self, ptr: Value, at: Value | int) -> list[Value]:
        """One row of `width` elements."""
        return [self.k.load(ptr, self.k.index(at) + v * self.lanes, self.lanes)
                for v in range(self.wide)]

    def even(self, count: Value) -> Value:
        """A number of rows, whole tiles and at most `_BLOCK`, that splits `count` about evenly."""
        k, rows = self.k, self.rows
        blocks = k.max((count + _BLOCK - 1) / _BLOCK, 1)
        return k.max(((count + blocks - 1) / blocks + rows - 1) / rows * rows, rows)

    def put(self, ptr: Value, at: Value | int, row: Sequence[Value]) -> None:
        for v, value in enumerate(row):
            self.k.store(ptr, self.k.index(at) + v * self.lanes, value)

    def product(self, rows: Sequence[Value], step: Value | int, b: Strided, steps: Value | int,
                start: Sequence[Value] | None = None) -> list[list[Value]]:
        """A register tile: tile[r] = start[r] + sum over p of rows[r][p * step] * b[p]."""
        k = self.k
        start = [self.number(0.0)] * (len(rows) * self.wide) if start is None else start
        loop = k.loop(0, steps, 1, start)
        with loop as (p, *sums):
            vectors = self.vectors(b.ptr, p * b.row)
            new = []
            for r, row in enumerate(rows):
                a = k.splat(k.load(row, p * step), self.lanes)
                new += [k.fma(a, x, sums[r * self.wide + v]) for v, x in enumerate(vectors)]
            loop.next(*new)
        return [list(loop.results[i:i + self.wide]) for i in range(0, len(new), self.wide)]

    def clamped_rows(self, matrix: Strided, first: Value, end: Value) -> list[Value]:
        """The rows of a tile; past the end the last one again, so that no read is outside."""
        k = self.k
        last = end - 1
        return [k.offset(matrix.ptr, k.min(first + r, last) * matrix.row)
                for r in range(self.rows)]

    def tiles(self, size: int, step: int) -> Iterator[tuple[Value, int]]:
        """(first, count) of every `step` of `size`: a loop over whole ones, then the rest.

        What the caller writes for one is written for all: take the pairs in a `for`.
        """
        whole = size - size % step
        if whole:
            with self.k.loop(0, whole, step) as first:
                yield first, step
        if size % step:
            yield self.k.index(whole), size % step

    def pack(self, into: Value, matrix: Strided, first: Value, end: Value, size: int,
             factor: Value | None = None) -> None:
        """Rows first.. of a matrix as the lanes of `size` rows; past the end the last again."""
        k, last = self.k, end - 1
        with k.loop(0, self.width, _SQUARE) as column:
            rows = [k.offset(matrix.ptr, k.min(first + column + r, last) * matrix.row)
                    for r in range(_SQUARE)]
            for d, inside in self.tiles(size, _SQUARE):
                for c, value in enumerate(self.turned(rows, d, inside)):
                    if factor is not None:
                        value = value * factor
                    k.store(into, (d + c) * self.width + column, value)

    def turned(self, rows: Sequence[Value], at: Value, inside: int) -> list[Value]:
        """The columns of `inside` elements of each row."""
        k = self.k
        if inside == _SQUARE:
            return transpose(k, [k.load(row, at, _SQUARE) for row in rows])
        zero = k.const(0.0, self.variant.element.vector(_SQUARE))
        columns = [zero] * inside
        for r, row in enumerate(rows):
            columns = [k.emit("insert", (column, k.load(row, at + c)), r)
                       for c, column in enumerate(columns)]
        return columns

    def part(self, ptr: Value, at: Value | int, inside: int) -> Value:
        """A vector of which only `inside` lanes may be read."""
        return self.k.load(ptr, at, self.lanes, self.lanes_below(inside))

    def lanes_below(self, count: int) -> Value | None:
        if count == self.lanes:
            return None
        return self.k.mask(self.k.index(count), self.lanes)

    def unpack(self, into: Strided, first: Value, end: Value, packed: Value, size: int) -> None:
        """`pack` the other way round.

        What lies past the end is written to the last row, and that row after it.
        """
        k, last = self.k, end - 1
        with k.loop(0, self.width, _SQUARE) as column, k.when(first + column < end):
            rows = [k.min(first + column + r, last) * into.row for r in range(_SQUARE)]
            for d, inside in self.tiles(size, _SQUARE):
                lanes = [k.load(packed, (d + min(c, inside - 1)) * self.width + column, _SQUARE)
                         for c in range(_SQUARE)]
                for row, value in reversed(list(zip(rows, transpose(k, lanes), strict=True))):
                    for c in range(inside if inside < _SQUARE else 0):
                        k.store(into.ptr, row + d + c, k.extract(value, c))
                    if inside == _SQUARE:
                        k.store(into.ptr, row + d, value)

    def clear(self, ptr: Value, count: int) -> None:
        with self.k.loop(0, count, self.lanes) as i:
            self.k.store(ptr, i, self.number(0.0))

    def additive(self, mask: Value) -> Value:
        """A mask's value in base 2. The lowest finite numbers stay finite, as programs use them
        for rows that may attend to nothing and expect the mean of all values."""
        lowest = -np.finfo(f"f{mask.type.scalar.size}").max.item() * 0.65
        finite = self.k.max(self.k.const(lowest, mask.type), mask) * LOG2E
        return self.k.select(mask.eq(-np.inf), -np.inf, finite)


# --- forward ----------------------------------------------------------------------------------


def build_forward(target: Target, variant: Variant) -> Kernel:
    """The forward kernel; its arguments, in order:

    out (B, H, T, Ev), lse (B, H, T), q (B, H, T, E), k (B, G, S, E), v (B, G, S, Ev): the last
    axis contiguous, G divides H. mask, drop: (B, H, T, S) of any strides, or None; drop holds
    factors of the weights. factor: scale * log2(e).
    """
    return _Forward(target, variant).build()


class _Forward(Attention):
    def __init__(self, target: Target, variant: Variant) -> None:
        super().__init__(target, variant, "attention")
        (self.out, self.lse, self.q, self.key, self.value, self.mask,
         self.drop) = self.arrays("out lse q k v mask drop")
        self.factor = self.k.number("factor", variant.element)
        self.queries, self.keys = self.q.size(2), self.key.size(2)

    def build(self) -> Kernel:
        """A task is one group of queries of one head; the last groups, with most keys, first."""
        k = self.k
        blocks = (self.queries + self.width - 1) / self.width
        heads = self.q.size(1)
        with k.parallel(self.q.size(0) * heads * blocks) as (task, _):
            self.head, self.batch = (task / blocks) % heads, task / (blocks * heads)
            self.first = (blocks - 1 - task % blocks) * self.width
            self.group()
        return k

    def group(self) -> None:
        k, element, variant = self.k, self.variant.element, self.variant
        self.packed = k.scratch(element, variant.head * self.width)
        self.scores = k.scratch(element, (_BLOCK + self.rows) * self.width)
        self.sums = k.scratch(element, variant.value_head * self.width)
        query = self.matrix(self.q, self.batch, self.head)
        factor = k.splat(self.factor, _SQUARE)
        self.pack(self.packed, query, self.first, self.queries, variant.head, factor)
        self.clear(self.sums, variant.value_head * self.width)
        shared = self.head / (self.q.size(1) / self.key.size(1))
        self.keys_of, self.values_of = (self.matrix(a, self.batch, shared)
                                        for a in (self.key, self.value))
        end = k.min(self.keys, self.first + self.width) if variant.causal else self.keys
        n, lowest = self.wide, -np.finfo(f"f{element.size}").max.item()
        start = [self.number(lowest)] * n + [self.number(0.0)] * n
        step = self.even(end)
        loop = k.loop(0, end, step, start)
        with loop as (j0, *carried):
            loop.next(*self.block(j0, k.min(j0 + step, end), carried[:n], carried[n:]))
        self.finish(loop.results[:n], loop.results[n:])

    def block(self, j0: Value, j1: Value, top: Sequence[Value], total: Sequence[Value]
              ) -> list[Value]:
        """A block of keys: the new maxima and sums of the group."""
        k = self.k
        self.score(j0, j1)
        new = self.maxima(j0, j1, top)
        shrink = [exp2_flushed(a - b) for a, b in zip(top, new, strict=True)]
        sums = self.weights(j0, j1, new)
        self.accumulate(j0, j1, shrink)
        return [*new, *(k.fma(t, s, x) for t, s, x in zip(total, shrink, sums, strict=True))]

    def score(self, j0: Value, j1: Value) -> None:
        """Scores of all keys of the block, in base 2."""
        k = self.k
        b = Strided(self.packed, k.index(self.width))
        with k.loop(j0, j1, self.rows) as j:
            rows = self.clamped_rows(self.keys_of, j, j1)
            for r, row in enumerate(self.product(rows, 1, b, self.variant.head)):
                self.put(self.scores, (j - j0 + r) * self.width, row)

    def maxima(self, j0: Value, j1: Value, top: Sequence[Value]) -> list[Value]:
        """The maxima so far, after the mask was put on the scores."""
        k = self.k
        loop = k.loop(j0, j1, 1, list(top))
        with loop as (j, *best):
            at = (j - j0) * self.width
            row = self.vectors(self.scores, at)
            if self.variant.masked or self.variant.causal:
                row = [self.masked(v, j, x) for v, x in enumerate(row)]
                self.put(self.scores, at, row)
            loop.next(*(k.max(a, b) for a, b in zip(best, row, strict=True)))
        return list(loop.results)

    def masked(self, v: int, j: Value, score: Value) -> Value:
        """The scores of one vector of queries with key j."""
        k = self.k
        if self.variant.masked:
            score = score + self.additive(self.elements(self.mask, v, j))
        if self.variant.causal:
            seen = k.splat(j - self.first, self.lanes) <= k.iota(self.lanes) + v * self.lanes
            score = k.select(seen, score, -np.inf)
        return score

    def elements(self, array: ArrayParam, v: int, j: Value) -> Value:
        """array[batch, head, queries of vector v, j]; of absent queries 0."""
        k = self.k
        first = self.first + v * self.lanes
        at = (self.batch * array.stride(0) + self.head * array.stride(1)
              + first * array.stride(2) + j * array.stride(3))
        places = k.iota(self.lanes) * k.splat(array.stride(2), self.lanes)
        return k.gather(k.offset(array.ptr, at), places, k.mask(self.queries - first, self.lanes))

    def weights(self, j0: Value, j1: Value, top: Sequence[Value]) -> tuple[Value, ...]:
        """Scores become weights; their sums."""
        k = self.k
        loop = k.loop(j0, j1, 1, [self.number(0.0)] * self.wide)
        with loop as (j, *sums):
            at = (j - j0) * self.width
            row = [exp2_flushed(x - m)
                   for x, m in zip(self.vectors(self.scores, at), top, strict=True)]
            loop.next(*(s + x for s, x in zip(sums, row, strict=True)))
            if self.variant.dropped:
                row = [x * self.elements(self.drop, v, j) for v, x in enumerate(row)]
            self.put(self.scores, at, row)
        return loop.results

    def accumulate(self, j0: Value, j1: Value, shrink: Sequence[Value]) -> None:
        """sums = sums * shrink + weights times values."""
        k = self.k
        b = Strided(self.scores, k.index(self.width))
        values = k.offset(self.values_of.ptr, j0 * self.values_of.row)
        for first, count in self.tiles(self.variant.value_head, self.rows):
            old = [x * s for r in range(count) for x, s in zip(
                self.vectors(self.sums, (first + r) * self.width), shrink, strict=True)]
            rows = [k.offset(values, first + r) for r in range(count)]
            for r, row in enumerate(self.product(rows, self.values_of.row, b, j1 - j0, old)):
                self.put(self.sums, (first + r) * self.width, row)

    def finish(self, top: Sequence[Value], total: Sequence[Value]) -> None:
        """The output and the logarithm of each row's sum; a row without keys is zero."""
        k = self.k
        some = [t > 0.0 for t in total]
        inverse = [k.select(s, 1.0 / t, t * 0.0) for s, t in zip(some, total, strict=True)]
        with k.loop(0, self.variant.value_head) as d:
            row = self.vectors(self.sums, d * self.width)
            self.put(self.sums, d * self.width,
                     [x * i for x, i in zip(row, inverse, strict=True)])
        out = self.matrix(self.out, self.batch, self.head)
        self.unpack(out, self.first, self.queries, self.sums, self.variant.value_head)
        rows = self.batch * self.lse.stride(0) + self.head * self.lse.stride(1)
        for v in range(self.wide):
            first = self.first + v * self.lanes
            logarithm = k.select(some[v], top[v] + log2(total[v]), np.inf)
            k.store(k.offset(self.lse.ptr, rows), first, logarithm,
                    k.mask(self.queries - first, self.lanes))


# --- backward ---------------------------------------------------------------------------------


def build_backward(target: Target, variant: Variant) -> Kernel:
    """The backward kernel; its arguments, in order:

    dq, dk, dv, dout, out, lse, delta, q, k, v, mask, drop: as in `build_forward`, gradients shaped
    like what they belong to, the last axis of all but the masks contiguous; delta like lse, for
    the sums over rows of dout * out. factor: scale * log2(e); scale.
    """
    return _Backward(target, variant).build()


class _Backward(Attention):
    def __init__(self, target: Target, variant: Variant) -> None:
        super().__init__(target, variant, "attention_backward")
        (self.dq, self.dk, self.dv, self.dout, self.out, self.lse, self.delta, self.q, self.key,
         self.value, self.mask, self.drop) = self.arrays(
             "dq dk dv dout out lse delta q k v mask drop")
        self.factor = self.k.number("factor", variant.element)
        self.scale = self.k.number("scale", variant.element)
        self.queries, self.keys = self.q.size(2), self.key.size(2)

    def build(self) -> Kernel:
        """A task is one head of keys and values with the heads of queries that share it."""
        k = self.k
        shared = self.key.size(1)
        each = self.q.size(1) / shared
        with k.parallel(self.q.size(0) * shared) as (task, _):
            self.batch, self.shared = task / shared, task % shared
            self.make_scratch()
            with k.loop(self.shared * each, (self.shared + 1) * each) as head:
                self.prepare(head)
            with k.loop(0, self.keys, self.width) as j0:
                self.group(j0, self.shared * each, each)
        return k

    def make_scratch(self) -> None:
        k, element, variant = self.k, self.variant.element, self.variant
        heads = variant.head, variant.value_head
        self.packed, self.packed_values = (k.scratch(element, h * self.width) for h in heads)
        self.key_sums, self.value_sums = (k.scratch(element, h * self.width) for h in heads)
        count = (_BLOCK + self.rows) * self.width
        self.weights, self.slopes = k.scratch(element, count), k.scratch(element, count)

    def prepare(self, head: Value) -> None:
        """dq = 0, delta = the sums of dout * out."""
        k, size = self.k, self.variant.value_head
        dq, dout, out = (self.matrix(a, self.batch, head) for a in (self.dq, self.dout, self.out))
        rows = self.batch * self.delta.stride(0) + head * self.delta.stride(1)
        with k.loop(0, self.queries) as i:
            total = self.number(0.0)
            for d in range(0, size, self.lanes):
                inside = min(self.lanes, size - d)
                a, b = (self.part(k.offset(m.ptr, i * m.row), d, inside) for m in (dout, out))
                total = k.fma(a, b, total)
            k.store(k.offset(self.delta.ptr, rows), i, k.reduce("add", total))
            for d in range(0, self.variant.head, self.lanes):
                inside = min(self.lanes, self.variant.head - d)
                k.store(dq.ptr, i * dq.row + d, self.number(0.0), self.lanes_below(inside))

    def group(self, j0: Value, first_head: Value, each: Value) -> None:
        """One group of keys with all queries that see it."""
        k, variant = self.k, self.variant
        self.j0 = j0
        self.keys_of, self.values_of = (self.matrix(a, self.batch, self.shared)
                                        for a in (self.key, self.value))
        factor = k.splat(self.factor, _SQUARE)
        self.pack(self.packed, self.keys_of, j0, self.keys, variant.head, factor)
        self.pack(self.packed_values, self.values_of, j0, self.keys, variant.value_head)
        self.clear(self.key_sums, variant.head * self.width)
        self.clear(self.value_sums, variant.value_head * self.width)
        with k.loop(first_head, first_head + each) as head:
            self.head = head
            start = k.min(j0, self.queries) if variant.causal else k.index(0)
            step = self.even(self.queries - start)
            with k.loop(start, self.queries, step) as i0:
                self.block(i0, k.min(i0 + step, self.queries))
        for array, sums, size in ((self.dk, self.key_sums, variant.head),
                                  (self.dv, self.value_sums, variant.value_head)):
            into = self.matrix(array, self.batch, self.shared)
            self.unpack(into, j0, self.keys, sums, size)

    def block(self, i0: Value, i1: Value) -> None:
        """A block of queries: its weights and their slopes, then the three sums of products."""
        k, variant = self.k, self.variant
        query, dout, dq = (self.matrix(a, self.batch, self.head)
                           for a in (self.q, self.dout, self.dq))
        with k.loop(i0, i1, self.rows) as i:
            self.tile(query, dout, i, i0, i1)
        for matrix, sums, b, size in (
                (dout, self.value_sums, self.weights, variant.value_head),
                (query, self.key_sums, self.slopes, variant.head)):
            self.accumulate(matrix, sums, b, size, i0, i1)
        with k.loop(i0, i1, self.rows) as i:
            self.query_tile(dq, i, i0, i1)

    def tile(self, query: Strided, dout: Strided, i: Value, i0: Value, i1: Value) -> None:
        """Weights and slopes of a few queries with the group of keys."""
        k, variant = self.k, self.variant
        lse, delta = (k.offset(a.ptr, self.batch * a.stride(0) + self.head * a.stride(1))
                      for a in (self.lse, self.delta))
        width = k.index(self.width)
        places = [k.min(i + r, i1 - 1) for r in range(self.rows)]
        rows = self.clamped_rows(query, i, i1)
        scores = self.product(rows, 1, Strided(self.packed, width), variant.head)
        for r, row in enumerate(scores):
            logarithm = k.splat(k.load(lse, places[r]), self.lanes)
            row = [self.weight(v, places[r], x, logarithm) for v, x in enumerate(row)]
            self.put(self.weights, (i - i0 + r) * self.width, row)
        rows = self.clamped_rows(dout, i, i1)
        inner = self.product(rows, 1, Strided(self.packed_values, width), variant.value_head)
        scale = k.splat(self.scale, self.lanes)
        for r, row in enumerate(inner):
            at = (i - i0 + r) * self.width
            mean = k.splat(k.load(delta, places[r]), self.lanes)
            kept = self.vectors(self.weights, at)
            if variant.dropped:
                factors = [self.elements(self.drop, v, places[r]) for v in range(self.wide)]
                row = [x * f for x, f in zip(row, factors, strict=True)]
                self.put(self.weights, at, [w * f for w, f in zip(kept, factors, strict=True)])
            slopes = [(x - mean) * (w * scale) for x, w in zip(row, kept, strict=True)]
            self.put(self.slopes, at, slopes)

    def weight(self, v: int, i: Value, score: Value, logarithm: Value) -> Value:
        """The softmax weights of query i with one vector of keys; 0 where it sees none."""
        k = self.k
        if self.variant.masked:
            score = score + self.additive(self.elements(self.mask, v, i))
        last = k.min(i, self.keys - 1) if self.variant.causal else self.keys - 1
        place = k.iota(self.lanes) + v * self.lanes
        seen = place <= k.splat(last - self.j0, self.lanes)
        return k.select(seen, exp2_flushed(score - logarithm), 0.0)

    def elements(self, array: ArrayParam, v: int, i: Value) -> Value:
        """array[batch, head, i, keys of vector v]; of absent keys 0."""
        k = self.k
        first = self.j0 + v * self.lanes
        at = (self.batch * array.stride(0) + self.head * array.stride(1)
              + i * array.stride(2) + first * array.stride(3))
        places = k.iota(self.lanes) * k.splat(array.stride(3), self.lanes)
        return k.gather(k.offset(array.ptr, at), places, k.mask(self.keys - first, self.lanes))

    def accumulate(self, matrix: Strided, sums: Value, b: Value, size: int, i0: Value,
                   i1: Value) -> None:
        """sums += the transposed rows i0 to i1 of the matrix times those of b."""
        k = self.k
        start = k.offset(matrix.ptr, i0 * matrix.row)
        for first, count in self.tiles(size, self.rows):
            old = [x for r in range(count)
                   for x in self.vectors(sums, (first + r) * self.width)]
            rows = [k.offset(start, first + r) for r in range(count)]
            found = self.product(rows, matrix.row, Strided(b, k.index(self.width)), i1 - i0, old)
            for r, row in enumerate(found):
                self.put(sums, (first + r) * self.width, row)

    def query_tile(self, dq: Strided, i: Value, i0: Value, i1: Value) -> None:
        """dq of a few queries += their slopes times the group's keys.

        Past the end the last query stands again: it is read before it is written, and written
        several times with one result.
        """
        k, size = self.k, self.variant.head
        count = k.min(self.keys - self.j0, self.width)
        places = [k.min(i + r, i1 - 1) for r in range(self.rows)]
        start = k.offset(self.keys_of.ptr, self.j0 * self.keys_of.row)
        slopes = [k.offset(self.slopes, (p - i0) * self.width) for p in places]
        for d, some in self.tiles(size, self.width):
            inside = [min(self.lanes, some - at) for at in range(0, some, self.lanes)]
            self.query_part(dq, places, slopes, Strided(k.offset(start, d), self.keys_of.row),
                            count, d, inside)

    def query_part(self, dq: Strided, places: Sequence[Value], slopes: Sequence[Value],
                   keys: Strided, count: Value, d: Value, inside: Sequence[int]) -> None:
        k = self.k
        targets = [k.offset(dq.ptr, p * dq.row + d) for p in places]
        old = [self.part(t, v * self.lanes, n) for t in targets for v, n in enumerate(inside)]
        loop = k.loop(0, count, 1, old)
        with loop as (p, *sums):
            row = k.offset(keys.ptr, p * keys.row)
            vectors = [self.part(row, v * self.lanes, n) for v, n in enumerate(inside)]
            new = []
            for r, slope in enumerate(slopes):
                a = k.splat(k.load(slope, p), self.lanes)
                new += [k.fma(a, x, sums[r * len(inside) + v]) for v, x in enumerate(vectors)]
            loop.next(*new)
        for i, x in enumerate(loop.results):
            r, v = divmod(i, len(inside))
            k.store(targets[r], v * self.lanes, x, self.lanes_below(inside[v]))


# --- launchers --------------------------------------------------------------------------------


def attention_forward(out: Array, lse: Array, q: Array, k: Array, v: Array,
                      mask: Array | None = None, causal: bool = False,
                      scale: float | None = None, drop: Array | None = None) -> bool:
    """out = softmax(q @ k.T * scale + mask) * drop @ v; False where there is no kernel (yet).

    q (B, H, T, E), k (B, G, S, E), v (B, G, S, Ev), out (B, H, T, Ev) with any strides but a
    contiguous last axis; G divides H. lse (B, H, T), its last axis contiguous: for
    `attention_backward`. mask: bool (True: may attend) or added to the scores; mask and drop
    broadcast to (B, H, T, S). ValueError where shapes do not fit.
    """
    _check_shapes(out, lse, q, k, v)
    if not q.size or not k.size:
        fill(out, 0)
        fill(lse, np.inf)
        return True
    masks = [_spread(m, (*q.shape[:3], k.shape[2]), q.dtype) for m in (mask, drop)]
    variant = _variant(q, v, causal, q.shape[2], *masks)
    if variant is None or not all(map(_is_plain, (out, lse, q, k, v))):
        return False
    kernel = _forward_kernel(variant, q.shape[2])
    if kernel is None:
        return False
    kernel(out, lse, q, k, v, *masks, _scale(q, scale) * LOG2E)
    return True


def _forward_kernel(variant: Variant, queries: int) -> Any:
    """The kernel, or None while it is being made; with `invariant_rows` one for all lengths."""
    from .attention_single import build_single, is_single

    if is_single(target(knobs.target), variant, queries) and not knobs.invariant_rows:
        return service.kernel(("attention single", *_name(variant)),
                              partial(build_single, variant=variant))
    return service.kernel(("attention", *_name(variant)), partial(build_forward, variant=variant))


def attention_backward(dq: Array, dk: Array, dv: Array, dout: Array, out: Array, lse: Array,
                       q: Array, k: Array, v: Array, mask: Array | None = None,
                       causal: bool = False, scale: float | None = None,
                       drop: Array | None = None) -> bool:
    """dq, dk, dv from the gradient of `attention_forward`'s output; False without a kernel.

    The arguments of the forward call, and its results; ValueError where shapes do not fit.
    """
    _check_shapes(out, lse, q, k, v)
    for name, gradient, given in (("dq", dq, q), ("dk", dk, k), ("dv", dv, v), ("dout", dout, out)):
        if gradient.shape != given.shape or gradient.dtype != given.dtype:
            raise ValueError(f"attention: {name} is {gradient.dtype} {gradient.shape}, expected "
                             f"{given.dtype} {given.shape}")
    if not q.size or not k.size:
        for gradient in (dq, dk, dv):
            fill(gradient, 0)
        return True
    masks = [_spread(m, (*q.shape[:3], k.shape[2]), q.dtype) for m in (mask, drop)]
    variant = _variant(q, v, causal, k.shape[2], *masks)
    arrays = (dq, dk, dv, dout, out, lse, q, k, v)
    if variant is None or not all(map(_is_plain, arrays)):
        return False
    kernel = service.kernel(("attention_backward", *_name(variant)),
                            partial(build_backward, variant=variant))
    if kernel is None:
        return False
    factor = _scale(q, scale)
    kernel(dq, dk, dv, dout, out, lse, memory.empty(lse.shape, lse.dtype), q, k, v, *masks,
           factor * LOG2E, factor)
    return True


def _check_shapes(out: Array, lse: Array, q: Array, k: Array, v: Array) -> None:
    if {a.ndim for a in (out, q, k, v)} != {4}:
        raise ValueError("attention: out, q, k and v are (batch, heads, length, size)")
    if len({a.dtype for a in (out, lse, q, k, v)}) != 1:
        raise ValueError("attention: out, lse, q, k and v have one dtype")
    batch, heads, queries, size = q.shape
    shared, keys, value_size = v.shape[1:]
    if k.shape != (batch, shared, keys, size) or v.shape[0] != batch:
        raise ValueError(f"attention: k {k.shape} and v {v.shape} do not fit q {q.shape}")
    if heads and (shared == 0 or heads % shared):
        raise ValueError(f"attention: {heads} heads of q, {shared} of k and v: not a multiple")
    if out.shape != (batch, heads, queries, value_size) or lse.shape != q.shape[:3]:
        raise ValueError(f"attention: out {out.shape} and lse {lse.shape} do not fit q {q.shape}")


def _is_plain(array: Array) -> bool:
    """Elements of the last axis are neighbours, and all steps are whole elements."""
    size = array.itemsize
    return (array.shape[-1] < 2 or array.strides[-1] == size) and not any(
        s % size for s in array.strides) and array.flags.aligned


def _spread(mask: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """A mask as numbers to be added, with stride 0 along the axes that it does not have."""
    if mask is None:
        return None
    if mask.dtype != dtype:
        added = memory.empty(mask.shape, dtype)
        (_FORBID if mask.dtype == np.bool_ else _CAST[dtype.name])([mask], [added])
        mask = added
    return np.broadcast_to(mask, shape)


_FORBID = Fused(lambda may: (np.where(may, 0.0, -np.inf),), "forbid")
_CAST = {name: Fused(lambda mask, name=name: (mask.astype(name),), f"to_{name}")
         for name in ("float32", "float64")}


def _variant(q: Array, v: Array, causal: bool, grouped: int, mask: Array | None,
             drop: Array | None) -> Variant | None:
    """grouped: how many queries or keys share out the lanes."""
    name, sizes = dtype_name(q.dtype), (q.shape[3], v.shape[3])
    if name not in ("float32", "float64"):
        return None
    if not 0 < min(sizes) <= max(sizes) <= LARGEST_HEAD:
        return None
    return Variant(of_numpy(name), *sizes, causal, mask is not None, drop is not None,
                   1 if -(-grouped // _VECTOR[name]) in (1, 3, 5) else 2)


def _name(variant: Variant) -> tuple[Any, ...]:
    return (variant.element.name, *map(int, variant[1:]))


def _scale(q: Array, scale: float | None) -> float:
    return q.shape[3] ** -0.5 if scale is None else scale

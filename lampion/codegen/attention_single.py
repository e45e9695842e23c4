"""Attention of one query a head: a step of generation against a cache of keys and values.

All the time goes into reading keys and values, which lie as rows of vectors. A task owns one head
and reads both once, in order: a score is a dot product along the row of a key, as many of them
together as a register has lanes; the output is the sum of the rows of values times their weights.
Between blocks of keys the maximum is looked at again (the online softmax of `attention.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .attention import Attention, Strided, Variant
from .gemm_dot import sums_of
from .ir import Kernel, Value
from .math import exp2_flushed, log2
from .target import Target

__all__ = ["build_single", "is_single"]

_KEYS = 256  # between two looks at the maximum


def is_single(target: Target, variant: Variant, queries: int) -> bool:
    """Whether the kernel of this room computes it: rows of whole vectors, no dropout."""
    lanes = target.lanes(variant.element)
    return (queries == 1 and not (variant.causal or variant.dropped)
            and variant.head % lanes == 0 == variant.value_head % lanes)


def build_single(target: Target, variant: Variant) -> Kernel:
    """The forward kernel for one query; its arguments are those of `attention.build_forward`."""
    return _Single(target, variant).build()


class _Single(Attention):
    def __init__(self, target: Target, variant: Variant) -> None:
        super().__init__(target, variant, "attention_single")
        (self.out, self.lse, self.q, self.key, self.value, self.mask,
         self.drop) = self.arrays("out lse q k v mask drop")
        self.factor = self.k.number("factor", variant.element)
        self.parts = variant.value_head // self.lanes
        self.chains = max(1, 4 // self.parts)  # additions that are under way at a time

    def build(self) -> Kernel:
        k = self.k
        heads = self.q.size(1)
        with k.parallel(self.q.size(0) * heads) as (task, _):
            self.batch, self.head = task / heads, task % heads
            self.scores = k.scratch(self.variant.element, _KEYS)
            self.rows_of_scores = k.scratch(self.variant.element, self.lanes * self.lanes)
            self._head()
        return k

    def _head(self) -> None:
        k, n = self.k, self.parts
        shared = self.head / (self.q.size(1) / self.key.size(1))
        self.keys, self.values = (self.matrix(a, self.batch, shared)
                                  for a in (self.key, self.value))
        query = self.matrix(self.q, self.batch, self.head).ptr
        factor = k.splat(self.factor, self.lanes)
        self.query = [k.load(query, at, self.lanes) * factor
                      for at in range(0, self.variant.head, self.lanes)]
        self.count = self.key.size(2)
        lowest = -np.finfo(f"f{self.variant.element.size}").max.item()
        loop = k.loop(0, self.count, _KEYS, [self.number(lowest), *[self.number(0.0)] * (n + 1)])
        with loop as (j0, top, total, *sums):
            loop.next(*self._block(j0, k.min(j0 + _KEYS, self.count), top, total, sums))
        top, total, *sums = loop.results
        self._finish(top, total, sums)

    def _block(self, j0: Value, j1: Value, top: Value, total: Value, sums: Sequence[Value]
               ) -> list[Value]:
        """The maximum so far, the sums of weights lane by lane, and those of weighted values."""
        k = self.k
        new = self._score(j0, j1, top)
        shrink = exp2_flushed(top - new)
        loop = k.loop(0, j1 - j0, self.lanes, [total * shrink])
        with loop as (at, found):
            weights = exp2_flushed(k.load(self.scores, at, self.lanes) - new)
            k.store(self.scores, at, weights)
            loop.next(found + weights)
        return [new, *loop.results, *self._weighted(j0, j1, [x * shrink for x in sums])]

    def _score(self, j0: Value, j1: Value, top: Value) -> Value:
        """Scores of a block in base 2, lanes past the end -inf; the largest, in every lane."""
        k, lanes = self.k, self.lanes
        loop = k.loop(j0, j1, lanes, [top])
        with loop as (j, best):
            with k.loop(0, lanes) as r:
                row = k.offset(self.keys.ptr, k.min(j + r, j1 - 1) * self.keys.row)
                k.store(self.rows_of_scores, r * lanes, self._products(row))
            score = sums_of(k, [k.load(self.rows_of_scores, r * lanes, lanes)
                                for r in range(lanes)])
            inside = k.mask(j1 - j, lanes)
            if self.variant.masked:
                score = score + self.additive(self._mask(j, inside))
            score = k.select(inside, score, -np.inf)
            k.store(self.scores, j - j0, score)
            loop.next(k.max(best, score))
        return k.splat(k.reduce("max", loop.results[0]), lanes)

    def _products(self, row: Value) -> Value:
        """The products of the query with a key, summed lane by lane."""
        k = self.k
        first, *rest = (k.load(row, i * self.lanes, self.lanes) for i in range(len(self.query)))
        total = first * self.query[0]
        for key, query in zip(rest, self.query[1:], strict=True):
            total = k.fma(key, query, total)
        return total

    def _mask(self, j: Value, inside: Value) -> Value:
        """A vector of the mask, which mostly lies as it is read."""
        k, mask, step = self.k, self.mask, self.mask.stride(3)
        row = self.batch * mask.stride(0) + self.head * mask.stride(1)
        ptr = k.offset(mask.ptr, row + j * step)
        near = k.choose(step.eq(1) & (j + self.lanes <= self.count))
        with near.then:
            near.give(k.load(ptr, 0, self.lanes))
        with near.otherwise:
            near.give(k.gather(ptr, k.iota(self.lanes) * k.splat(step, self.lanes), inside))
        return near.results[0]

    def _weighted(self, j0: Value, j1: Value, sums: Sequence[Value]) -> list[Value]:
        """sums plus the rows of values times their weights; several rows at a time."""
        k, n = self.k, self.chains
        more = [self.number(0.0)] * (self.parts * (n - 1))
        whole = j1 - (j1 - j0) % n if n > 1 else j1
        loop = k.loop(j0, whole, n, [*sums, *more])
        with loop as (j, *state):
            loop.next(*(x for c in range(n) for x in self._plus_row(
                j + c, j0, state[c * self.parts:(c + 1) * self.parts])))
        state = list(loop.results)
        while len(state) > self.parts:
            half = len(state) // 2
            state = [a + b for a, b in zip(state[:half], state[half:], strict=True)]
        if n == 1:
            return state
        rest = k.loop(whole, j1, 1, state)
        with rest as (j, *state):
            rest.next(*self._plus_row(j, j0, state))
        return list(rest.results)

    def _plus_row(self, j: Value, j0: Value, sums: Sequence[Value]) -> list[Value]:
        k = self.k
        row = k.offset(self.values.ptr, j * self.values.row)
        weight = k.splat(k.load(self.scores, j - j0), self.lanes)
        return [k.fma(weight, k.load(row, i * self.lanes, self.lanes), x)
                for i, x in enumerate(sums)]

    def _finish(self, top: Value, total: Value, sums: Sequence[Value]) -> None:
        """The output and the logarithm of the sum; a row that attends to nothing is zero."""
        k, lanes = self.k, self.lanes
        whole = k.splat(k.reduce("add", total), lanes)
        some = whole > 0.0
        inverse = k.select(some, 1.0 / whole, whole * 0.0)
        out: Strided = self.matrix(self.out, self.batch, self.head)
        for i, x in enumerate(sums):
            k.store(out.ptr, i * lanes, x * inverse)
        logarithm = k.select(some, top + log2(whole), np.inf)
        at = self.batch * self.lse.stride(0) + self.head * self.lse.stride(1)
        k.store(self.lse.ptr, at, k.extract(logarithm, 0))

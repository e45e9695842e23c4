"""The matrix product as a kernel: tiles within blocks that fit the caches, blocks within tasks.

Around the micro-kernel (`gemm_tiles.py`) are three loops: blocks of k, panels of B (a block of one
fits the first-level cache), tiles of rows (a block of A fits the second level). B is packed
(`gemm_pack.py`), or used itself where its rows are contiguous. The scheme is Goto and van de
Geijn's, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34 (2008).

Every element of C is summed in one order, which depends on k alone: within a block of k one chain
of fused multiply-adds, then the sums of the blocks in turn. So neither the number of threads nor
the other rows and columns change a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_factors import Factors
from .gemm_pack import Panels
from .gemm_tiles import A_BLOCK, K_BLOCK, Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["Variant", "build"]


class Variant(NamedTuple):
    """What is fixed when a product is compiled; sizes, strides and blocks are arguments."""

    factors: Factors
    bias: str = ""  # "column": one element for each column of C; "row": for each row
    scaled: bool = False  # alpha * A @ B
    axes: int = 0  # leading batch axes of out, a and b
    b: str = "panels"  # or how a task packs the panels that it needs: see `Panels.along`
    result: Type | None = None  # of out and bias: that of the sums, or one that they are cast to


def build(target: Target, variant: Variant) -> Kernel:
    """The kernel of one variant; its arguments, in order:

    out, a, b, bias: ndarrays; b is packed panels of any shape, or B; bias may be None.
    b_row, b_panel, b_batch: steps in elements between rows, panels and matrices of packed panels;
    b_panel 0: B itself, by its own strides, whose rows are contiguous. Only a target with masks
    can use it so; for others tasks pack.
    task_rows, task_columns, block: the part of C that is one task, and of k that is one block.
    pack: not 0 to copy blocks of A, which then has a unit stride, into memory of the task.
    add: not 0 to add to what `out` holds. alpha: of a scaled variant only, one for each part.

    Columns are those of real parts. Blocks of A are always copied where its elements are cast. A
    float that is narrower than the sums takes them from one block of k only.
    """
    return _Gemm(target, variant).build()


class _Gemm(Tiles):
    def __init__(self, target: Target, variant: Variant) -> None:
        k, factors, axes = Kernel("gemm", True), variant.factors, variant.axes
        self.axes, self.source = axes, variant.b
        result = variant.result or factors.sum
        self.out = k.array("out", result)
        self.a = k.array("a", factors.in_a)
        self.b, bias = k.array("b", self._in_memory(factors)), k.array("bias", result)
        names = "b_row b_panel b_batch task_rows task_columns block pack add"
        (self.b_row, self.b_panel, self.b_batch, self.task_rows, self.task_columns, self.block,
         self.pack, self.add) = (k.integer(n) for n in names.split())
        scales = ["alpha", "alpha_imaginary"][:factors.parts if variant.scaled else 0]
        alpha = [k.number(n, factors.sum) for n in scales]
        super().__init__(k, target, factors.element, variant.bias, alpha, factors, result)
        self.bias_ptr, self.out_row = bias.ptr, self.out.stride(axes)
        self.m, self.n = self.out.size(axes), self.out.size(axes + 1) * factors.parts
        self.depth = self.a.size(axes + 1)
        self.itself = self.b_panel.eq(0)
        self.b_step = k.select(self.itself, self.b.stride(axes), self.b_row)
        self.b_panel = k.select(self.itself, k.const(self.tile.width, I64), self.b_panel)

    def _in_memory(self, factors: Factors) -> Type:
        """What the array b holds."""
        if self.source == "panels":
            return factors.element
        return factors.b if self.source == "groups" else factors.in_b

    def build(self) -> Kernel:
        """All tasks: blocks of rows within blocks of columns within matrices of the batch."""
        k = self.k
        row_blocks = _parts(self.m, self.task_rows)
        blocks = row_blocks * _parts(self.n, self.task_columns)
        sizes = [self.out.size(axis) for axis in range(self.axes)]
        count = blocks
        for size in sizes:
            count = count * size
        with k.parallel(count) as (task, _):
            self._batch(task / blocks if sizes else task, sizes)
            at = task % blocks if sizes else task
            self.i0 = (at % row_blocks) * self.task_rows
            j0 = (at / row_blocks) * self.task_columns
            self.i1 = k.min(self.i0 + self.task_rows, self.m)
            self._blocks(j0, k.min(j0 + self.task_columns, self.n))
        return k

    def _batch(self, index: Value, sizes: Sequence[Value]) -> None:
        """The pointers of one matrix of the batch."""
        k = self.k
        b = k.offset(self.b.ptr, index * self.b_batch) if sizes else self.b.ptr
        out, a = self.out.ptr, self.a.ptr
        for axis in reversed(range(len(sizes))):
            place, index = index % sizes[axis], index / sizes[axis]
            out = k.offset(out, place * self.out.stride(axis))
            a = k.offset(a, place * self.a.stride(axis))
            b = k.offset(b, place * k.select(self.itself, self.b.stride(axis), 0))
        self.out_ptr, self.a_ptr, self.b_ptr = out, a, b

    def _blocks(self, j0: Value, j1: Value) -> None:
        """The blocks of k; one, of no elements, where k is 0."""
        k, row, column = self.k, self.a.stride(self.axes), self.a.stride(self.axes + 1)
        store = k.scratch(self.element, A_BLOCK // self.element.size)
        if self.source != "panels":
            self.own = k.scratch(self.element, K_BLOCK * self.tile.width)
        self.reserve()
        with k.loop(0, k.max(self.depth, 1), self.block) as p:
            self.length = k.min(self.depth - p, self.block)
            self.first, self.last = p.eq(0), self.depth <= p + self.block
            a = Strided(k.offset(self.a_ptr, self.i0 * row + p * column), row, column)
            self.rows = self._block_of(a, store)
            with k.loop(j0, j1, self.tile.width) as j:
                panel, row = self._source(p, j)
                if self.source == "panels":
                    step = k.select(self.itself, k.const(0, I64), self.b_panel)
                    self.next_panel = k.offset(panel, step)
                self.panel(j, self.n - j, panel, row)

    def _block_of(self, a: Strided, store: Value) -> Strided:
        """A block of A: a copy where that was asked for, or where it must be cast."""
        if self.factors.is_cast:
            return self.copied(a, self.task_rows, self.block, store)
        branch = self.k.choose(self.pack.ne(0))
        with branch.then:
            branch.give(*self.copied(a, self.task_rows, self.block, store))
        with branch.otherwise:
            branch.give(*a)
        return Strided(*branch.results)

    def _source(self, p: Value, j: Value) -> tuple[Value, Value]:
        """Where the panel at column j begins in row p of B, and the step between its rows."""
        k, axes, width = self.k, self.axes, self.tile.width
        if self.source == "panels":
            return k.offset(self.b_ptr, (j / width) * self.b_panel + p * self.b_step), self.b_step
        packer = Panels(k, self.target, self.factors, self.source, self.b.stride(axes),
                        self.b.stride(axes + 1))
        first = p * self.factors.group if self.source == "groups" else p
        packer.rows_of_b = self.b.size(axes) - first
        start = packer.at_column(k.offset(self.b_ptr, first * packer.row), j)
        packer.fill(self.own, start, k.index(0), self.length, self.n - j)
        return self.own, k.const(width, I64)


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part

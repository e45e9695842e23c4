"""Groups of neighbours along k as elements of 32 bits, which one instruction multiplies and adds.

Two of bfloat16 or of 16 bits, four of 8 bits. Operands that run along k are groups as they lie in
memory; others are grouped by a copy, or by packing.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from ..runtime import memory
from . import service
from .fused import Fused, copy, fill
from .interpret import numpy_type
from .ir import Kernel
from .target import Target
from .types import I8, I32, U8, Type

__all__ = ["as_groups", "build_corrections", "corrections"]

Array = np.ndarray[Any, Any]
_CAST = Fused(lambda a: (a,), "cast")
_WORD = np.dtype(np.int32)


def as_groups(x: Array, source: Type, member: Type) -> Array:
    """Neighbours along the last axis as one element; zeros at the end where some are missing.

    source: what x holds, whatever its dtype says of signs; member: what a group holds.
    """
    group, held = 4 // member.size, x.shape[-1]
    whole_words = not any(s % 4 for n, s in zip(x.shape[:-1], x.strides, strict=False) if n > 1)
    if source.size == member.size and held % group == 0 and x.strides[-1] == x.itemsize and (
            whole_words):
        return x.view(_WORD)
    if not source.is_float:
        x = x.view(numpy_type(source))
    if x.strides[-2] == x.itemsize and x.size:
        return _rows_as_groups(x.swapaxes(-1, -2), group).swapaxes(-1, -2)
    kind = x.dtype if source.is_float else numpy_type(member)
    whole = memory.empty((*x.shape[:-1], -(-held // group) * group), kind)
    if source.size == member.size:
        copy(whole[..., :held], x.view(kind))
    else:
        _CAST([x], [whole[..., :held]])
    fill(whole[..., held:], 0)
    return whole.view(_WORD)


def _rows_as_groups(x: Array, group: int) -> Array:
    """Each row beside the next ones as one of groups."""
    *batch, rows, columns = x.shape
    x = x if x.dtype.kind in "iu" else x.view(np.uint16)
    out = memory.empty((*batch, -(-rows // group), columns), _WORD)
    whole, rest = divmod(rows, group)
    if whole:
        members = [x[..., r:whole * group:group, :] for r in range(group)]
        _interleaved(group, group)(members, [out[..., :whole, :]])
    if rest:
        members = [x[..., whole * group + r, :] for r in range(rest)]
        _interleaved(rest, group)(members, [out[..., -1, :]])
    return out


@cache
def _interleaved(count: int, group: int) -> Fused:
    """The first `count` of a group's members, the others zero."""
    bits = 32 // group

    def together(*members: Array) -> Any:
        total = members[0].astype(np.int32) & (1 << bits) - 1
        for place, member in enumerate(members[1:], 1):
            low = member.astype(np.int32) & (1 << bits) - 1
            total = total | low * np.int32((1 << bits * place) - (1 << 32) * (bits * place == 31))
        return (total,)
    return Fused(together, f"groups {count} {group}")


# --- bytes with signs ---------------------------------------------------------------------------


def corrections(a: Array) -> Array | None:
    """-128 times the sums of the rows of A, groups of int8: what panels with 128 added lack.

    A is contiguous along k or along its rows. None while the kernel is being made.
    """
    along_k = a.strides[-1] == a.itemsize
    kernel = service.kernel(("gemm corrections", along_k), partial(build_corrections,
                                                                   along_k=along_k))
    if kernel is None:
        return None
    out = memory.empty(a.shape[:-1], _WORD)
    kernel(out, a, 64)
    return out


def build_corrections(target: Target, along_k: bool = True) -> Kernel:
    """The kernel; its arguments: out (m), a (m, k) of groups, task_rows."""
    k = Kernel("gemm_corrections", True)
    out, a = k.array("out", I32), k.array("a", I32)
    task_rows = k.integer("task_rows")
    rows, length, lanes = a.size(0), a.size(1), target.lanes(I32)
    ones, zero = k.const(1, U8.vector(4 * lanes)), k.const(0, I32.vector(lanes))
    with k.parallel((rows + task_rows - 1) / task_rows) as (task, _):
        start = task * task_rows
        stop = k.min(start + task_rows, rows)
        with k.loop(start, stop, 1 if along_k else lanes) as i:
            loop = k.loop(0, length, lanes if along_k else 1, [zero])
            with loop as (p, total):
                mask = k.mask(length - p if along_k else stop - i, lanes)
                groups = k.load(a.ptr, i * a.stride(0) + p * a.stride(1), lanes, mask)
                bytes = k.emit("bitcast", (groups,), I8.vector(4 * lanes))
                loop.next(k.emit("dot", (total, ones, bytes)))
            total = loop.results[0] * -128
            if along_k:
                k.store(out.ptr, i, k.reduce("add", total))
            else:
                k.store(out.ptr, i, total, k.mask(stop - i, lanes))
    return k

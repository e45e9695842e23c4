"""A kernel for people: its expression, schedule, loops, LLVM IR and assembly, and its roofline.

Everything is made anew from what builds the kernel, so one that came from disk can be read as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from ..debug.knobs import knobs
from .ceilings import ceilings
from .compile import CompileError, assembly
from .count import Work, count
from .emit import emit
from .ir import Kernel, Region, Value
from .nest import Nest, schedule
from .printer import to_text
from .target import Target, target

__all__ = ["LEVELS", "PRODUCTS", "Roof", "Subject"]

LEVELS = {2: "loops", 3: "schedule", 4: "LLVM IR", 5: "assembly"}  # of LAMPION_DEBUG
Facts = tuple[tuple[int, ...], tuple[int, ...], int, Any]  # shape, strides, element size, values


class Roof(NamedTuple):
    """One launch against the machine: bytes, floating point operations, the least seconds."""

    read: float
    written: float
    flops: float
    seconds: float
    bound: str  # what takes the least seconds: "memory" or "arithmetic"


def _product(arguments: Sequence[Any]) -> float:
    """`out (..., m, n)`, `a (..., m, k)`: one multiplication and one addition a step."""
    out, a = arguments[0][0], arguments[1][0]
    total = 2.0 * a[-1]
    for n in out:
        total *= n
    return total


# Kernels whose operations are known better than their loops say, by name.
PRODUCTS: dict[str, Callable[[Sequence[Any]], float]] = {
    "gemm": _product, "gemm dot": _product, "gemm stream": _product}


class Subject:
    """One kernel of this process and how it was made."""

    def __init__(self, key: Any, build: Callable[[Target], Kernel], seconds: float,
                 compiled: bool) -> None:
        self.name = str(key[0] if isinstance(key, tuple) else key)
        self.key, self.build, self.seconds, self.compiled = key, build, seconds, compiled
        self.target = target(knobs.target)

    @cached_property
    def kernel(self) -> Kernel:
        """At the loop level."""
        return self.build(self.target)

    def text(self, level: int) -> str:
        """What LAMPION_DEBUG shows at a level, see LEVELS."""
        if level == 2:
            return to_text(self.kernel)
        if level == 3:
            return self._schedule()
        llvm = emit(self.kernel, self.target)
        return llvm if level == 4 else _assembly(llvm, self.target)

    def _schedule(self) -> str:
        build = self.build
        nest = build.args[0] if isinstance(build, partial) and build.args else None
        lines = schedule(nest, self.target) if isinstance(nest, Nest) else [repr(self.key)]
        return "\n".join([*lines, *_skeleton(self.kernel.body, 0)]) + "\n"

    def label(self, arguments: Sequence[Any]) -> str:
        """Name and sizes of a launch: those of a product, or of the largest array."""
        arrays = [a[0] for a in arguments if a.__class__ is tuple]
        if self.name in PRODUCTS and len(arrays) > 1:
            *batch, m, n = arrays[0]
            return f"{self.name} {_sizes((*batch, m, arrays[1][-1]))} @ {arrays[1][-1]}x{n}"
        largest = max(arrays, key=math.prod, default=())
        return f"{self.name} {_sizes(largest)}"

    def roof(self, arguments: Sequence[Any]) -> Roof:
        """Of a launch with these arguments, arrays given as `Facts`."""
        work = count(self.kernel, self.target, arguments)
        known = PRODUCTS.get(self.name)
        if known is not None:
            _correct(work, known(arguments))
        read, written = self._bytes(work, arguments)
        limits, lanes = ceilings(), self.target.vector_bytes // 4
        memory = limits.seconds(read, written)
        steps = max(work.multiplies, (work.multiplies + work.others) / 2)
        arithmetic = steps / (limits.fma["f32"] / lanes)
        bound = "memory" if memory >= arithmetic else "arithmetic"
        return Roof(read, written, work.flops, max(memory, arithmetic), bound)

    def _bytes(self, work: Work, arguments: Sequence[Any]) -> tuple[float, float]:
        """Bytes that must be read and written: each element once, if it is used at all."""
        extents = {name: _extent(a) for (what, name, _), a in zip(
            self.kernel.params, arguments, strict=True) if what == "array" and a is not None}
        return tuple(sum(min(size, extents.get(name, 0.0)) for name, size in sizes.items())  # type: ignore[return-value]
                     for sizes in (work.loaded, work.stored))


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _correct(work: Work, flops: float) -> None:
    """Work whose operations are known: partial tiles and tasks are not counted as whole ones."""
    if work.flops:
        work.multiplies *= flops / work.flops
        work.others *= flops / work.flops
    work.flops = flops


def _extent(facts: Facts) -> float:
    """Bytes of an array's elements, those that stand for several places counted once."""
    shape, strides, size, _ = facts
    total = float(size)
    for n, s in zip(shape, strides, strict=True):
        total *= n if s else min(n, 1)
    return total


def _assembly(llvm: str, chosen: Target) -> str:
    try:
        return assembly(llvm, chosen)
    except CompileError as error:
        return f"{error}\n"


# --- loops without their operations -----------------------------------------------------------


def _skeleton(region: Region, depth: int) -> list[str]:
    """The loops, and how many operations of which width each turn does."""
    lines: list[str] = []
    done: Counter[str] = Counter()
    for value in region.values:
        if value.regions:
            lines += _flushed(done, depth) + _control(value, depth)
        else:
            done.update(_operation(value))
    return lines + _flushed(done, depth)


def _control(value: Value, depth: int) -> list[str]:
    pad = "    " * depth
    if value.op == "branch":
        lines = [f"{pad}if:", *_skeleton(value.regions[0], depth + 1)]
        rest = _skeleton(value.regions[1], depth + 1)
        return [*lines, f"{pad}else:", *rest] if rest else lines
    if value.op == "parallel":
        head = "tasks on all threads:"
    else:
        step = value.args[2]
        by = f", {step.attr[0]} at a time" if step.op == "const" and step.attr[0] != 1 else ""
        head = f"loop{by}:"
    return [pad + head, *_skeleton(value.regions[0], depth + 1)]


def _operation(value: Value) -> list[str]:
    kind = value.args[2].type if value.op in ("store", "scatter") else value.kind
    if value.op in ("load", "store", "gather", "scatter") and kind is not None:
        return [f"{value.op} {kind}"]
    vector = kind is not None and kind.lanes > 1 and not kind.pointer
    return [f"compute {kind}"] if vector and value.op not in ("const", "splat", "iota") else []


def _flushed(done: Counter[str], depth: int) -> list[str]:
    lines = [", ".join(f"{n} x {what}" for what, n in done.items())] if done else []
    done.clear()
    return ["    " * depth + line for line in lines]

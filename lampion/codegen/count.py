"""What a launch does at least: bytes, floating point operations, vector instructions.

The loops of a kernel are walked with the sizes of one launch. Bounds are evaluated, bodies are
counted once and multiplied, so the cost is that of the text and not of the data: of a loop whose
bounds depend on an outer index the first turn stands for all, of parallel tasks the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .ir import Kernel, Region, Value
from .target import Target
from .types import Type

__all__ = ["Work", "count"]

_SLOW = {"div": 5.0, "sqrt": 5.0}  # turns of the multipliers, roughly
_MULTIPLIES = {"mul": 1.0, "fma": 1.0, "dot": 1.0, "scale": 1.0}
_FLOPS = {"add": 1, "sub": 1, "mul": 1, "div": 1, "min": 1, "max": 1, "fma": 2, "sqrt": 1,
          "neg": 1, "abs": 1, "rint": 1, "floor": 1, "ceil": 1, "trunc": 1, "reduce": 1, "scale": 1}
_FREE = frozenset(("const", "iota", "param", "index", "result", "offset", "view", "bitcast",
                   "prefetch", "scratch", "splat", "load", "store", "gather", "scatter"))


@dataclass
class Work:
    """Of one launch. loaded and stored: bytes by array argument, each access counted."""

    flops: float = 0.0
    multiplies: float = 0.0  # vector instructions of the multipliers; slow ones count more
    others: float = 0.0  # all other vector instructions on floats
    loaded: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)

    def add(self, other: Work, times: float) -> None:
        """Adds `other`, so many times."""
        self.flops += times * other.flops
        self.multiplies += times * other.multiplies
        self.others += times * other.others
        for mine, theirs in ((self.loaded, other.loaded), (self.stored, other.stored)):
            for name, size in theirs.items():
                mine[name] = mine.get(name, 0.0) + times * size


def count(kernel: Kernel, target: Target, arguments: Sequence[Any]) -> Work:
    """The work of one launch.

    arguments: as the kernel is called, with (shape, strides in bytes, element size, values or
    None) or None for every array; values are those of short arrays of sizes and steps.
    """
    given = {name: a for (_, name, _), a in zip(kernel.params, arguments, strict=True)}
    walk = _Walk(target)
    for v in kernel.inputs:
        walk.read(v, given[v.attr[2]])
    return walk.region(kernel.body)


class _Walk:
    """Integers that are known, and the array that every pointer came from."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.numbers: dict[int, int] = {}
        self.origin: dict[int, tuple[str, int | None]] = {}  # with the offset, where it is known
        self.values: dict[str, tuple[int, ...]] = {}

    def read(self, value: Value, argument: Any) -> None:
        what, kind, name, *rest = value.attr
        if what == "data":
            self.origin[id(value)] = name, 0
            if argument is not None and argument[3]:
                self.values[name] = argument[3]
        elif argument is None or kind.is_float:
            return
        elif what == "scalar":
            self.numbers[id(value)] = int(argument)
        elif rest[0] < len(argument[0]):  # packed operands have one axis, and sizes nobody uses
            number = argument[0 if what == "size" else 1][rest[0]]
            self.numbers[id(value)] = number // (1 if what == "size" else rest[1])

    def number(self, value: Value) -> int | None:
        if value.op == "const":
            return int(value.attr[0]) if isinstance(value.attr[0], (int, bool)) else None
        return self.numbers.get(id(value))

    # --- control ------------------------------------------------------------------------------

    def region(self, region: Region) -> Work:
        total = Work()
        for value in region.values:
            if value.regions:
                self.control(value, total)
            else:
                self.plain(value, total)
        return total

    def control(self, value: Value, total: Work) -> None:
        if value.op == "branch":
            condition = self.number(value.args[0])
            total.add(self.region(value.regions[1 if condition == 0 else 0]), 1)
            return
        region = value.regions[0]
        if value.op == "parallel":
            first, turns = 0, self.number(value.args[0]) or 0
        else:
            first, turns = self.turns(value)
        self.numbers[id(region.params[0])] = first
        for inside, outside in zip(region.params[1:], value.args[3:], strict=False):
            self.pass_on(outside, inside)
        if turns > 0:
            total.add(self.region(region), turns)
        for result, give in zip(value.results, region.gives, strict=True):
            self.pass_on(give, result)

    def turns(self, loop: Value) -> tuple[int, int]:
        """The first index of a loop and how often it runs; once where that is not known."""
        start, stop, step = (self.number(a) for a in loop.args[:3])
        if start is None or stop is None or not step:
            return start or 0, 1
        return start, max(0, -(-(stop - start) // step))

    def pass_on(self, source: Value, target: Value) -> None:
        """Which array a pointer came from; what integers become in a loop is not known."""
        if id(source) in self.origin:
            self.origin[id(target)] = self.origin[id(source)]

    # --- operations ---------------------------------------------------------------------------

    def plain(self, value: Value, total: Work) -> None:
        if value.op in ("load", "gather"):
            self.access(value.args[0], value.type, total.loaded)
            self.element(value)
        elif value.op in ("store", "scatter"):
            self.access(value.args[0], value.args[2].type, total.stored)
        elif value.op in ("offset", "view"):
            self.offset(value)
        elif value.kind is not None and value.kind.lanes == 1 and value.kind.kind in "iub":
            self.integer(value)
        if value.op not in _FREE and value.args:
            self.cost(value, total)

    def access(self, pointer: Value, kind: Type, sizes: dict[str, float]) -> None:
        name, _ = self.origin.get(id(pointer), (None, None))
        if name is not None:
            sizes[name] = sizes.get(name, 0.0) + kind.size * kind.lanes

    def offset(self, value: Value) -> None:
        """A pointer into the same array."""
        name, start = self.origin.get(id(value.args[0]), (None, None))
        if name is not None:
            step = self.number(value.args[1]) if value.op == "offset" else None
            self.origin[id(value)] = name, None if None in (start, step) else start + step  # type: ignore[operator]

    def element(self, load: Value) -> None:
        """An integer of an array whose values are known."""
        name, start = self.origin.get(id(load.args[0]), ("", None))
        index, values = self.number(load.args[1]), self.values.get(name, ())
        if start is not None and index is not None and 0 <= start + index < len(values):
            self.numbers[id(load)] = values[start + index]

    def cost(self, value: Value, total: Work) -> None:
        kind = max((a.type for a in value.args if not a.type.pointer),
                   key=lambda t: t.lanes * t.bits, default=None)
        if kind is None or not kind.is_float:
            return
        registers = max(1.0, kind.lanes * kind.size / self.target.vector_bytes)
        multiplies = _SLOW.get(value.op, _MULTIPLIES.get(value.op, 0.0))
        total.multiplies += registers * multiplies
        total.others += registers * (not multiplies)
        total.flops += _FLOPS.get(value.op, 0) * kind.lanes

    def integer(self, value: Value) -> None:
        """Integers that follow from known ones."""
        args = [self.number(a) for a in value.args]
        rule = _RULES.get(value.op)
        if rule is None or None in args:
            return
        try:
            self.numbers[id(value)] = int(rule(*args))
        except (ZeroDivisionError, ValueError):
            return


def _quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_RULES: dict[str, Any] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": _quotient, "min": min, "max": max,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b, "select": lambda c, a, b: a if c else b, "cast": lambda a: a,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "not": lambda a: not a,
    "neg": lambda a: -a, "shl": lambda a, b: a << b, "shr": lambda a, b: a >> b,
    "xor": lambda a, b: a ^ b,
}

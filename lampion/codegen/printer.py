"""Kernels as text that reads like Python."""

from __future__ import annotations

from typing import Any

from .ir import Kernel, Region, Value
from .types import I64, Type

__all__ = ["to_text"]

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|",
          "xor": "^", "shl": "<<", "shr": ">>", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}


def to_text(kernel: Kernel) -> str:
    """The whole kernel, one operation a line; two kernels with the same text are the same."""
    return _Printer().kernel(kernel)


class _Printer:
    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.lines: list[str] = []

    def kernel(self, kernel: Kernel) -> str:
        params = ", ".join(f"{name}: {kind}{'*' if what == 'array' else ''}"
                           for what, name, kind in kernel.params)
        self.lines.append(f"def {kernel.name}({params}):")
        for v in kernel.inputs:
            self.names[id(v)] = _input_name(v.attr)
        self.region(kernel.body, 1)
        return "\n".join(self.lines) + "\n"

    def name(self, value: Value) -> str:
        if value.op == "const":
            return _number(*value.attr)
        found = self.names.get(id(value))
        if found is None:
            found = self.names[id(value)] = f"v{len(self.names)}"
        return found

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def region(self, region: Region, depth: int, results: tuple[Value, ...] = ()) -> None:
        before = len(self.lines)
        for value in region.values:
            if value.op != "const":
                self.value(value, depth)
        for target, given in zip(results, region.gives, strict=True):
            self.line(depth, f"{self.name(target)} = {self.name(given)}")
        if len(self.lines) == before:
            self.line(depth, "pass")

    def value(self, value: Value, depth: int) -> None:
        write = getattr(self, "_" + value.op, None)
        if write is not None:
            write(value, depth)
            return
        text = self.expression(value)
        if value.kind is not None:
            text = f"{self.name(value)}: {value.kind} = {text}"
        self.line(depth, text)

    def expression(self, value: Value) -> str:
        args = [self.name(a) for a in value.args]
        if value.op in _INFIX:
            return f"{args[0]} {_INFIX[value.op]} {args[1]}"
        attr = _attribute(value.attr)
        return f"{value.op}({', '.join(args + attr)})"

    def _loop(self, value: Value, depth: int) -> None:
        region = value.regions[0]
        for given, init in zip(value.results, value.args[3:], strict=True):
            self.line(depth, f"{self.name(given)}: {given.kind} = {self.name(init)}")
        for inside, result in zip(region.params[1:], value.results, strict=True):
            self.names[id(inside)] = self.name(result)
        i = self.name(region.params[0])
        bounds = ", ".join(self.name(a) for a in value.args[:3])
        self.line(depth, f"for {i} in range({bounds}):")
        self.region(region, depth + 1, value.results)

    def _branch(self, value: Value, depth: int) -> None:
        self.line(depth, f"if {self.name(value.args[0])}:")
        self.region(value.regions[0], depth + 1, value.results)
        if value.regions[1].values or value.results:
            self.line(depth, "else:")
            self.region(value.regions[1], depth + 1, value.results)

    def _parallel(self, value: Value, depth: int) -> None:
        task, worker = (self.name(p) for p in value.regions[0].params)
        count = self.name(value.args[0])
        self.line(depth, f"for {task} in parallel({count}):  # on thread {worker}")
        self.region(value.regions[0], depth + 1)


def _number(number: Any, kind: Type) -> str:
    """A constant; its type is that of the operands beside it, unless it is no i64 or vector."""
    return str(number) if kind == I64 or kind.lanes > 1 else f"{kind}({number})"


def _input_name(attr: tuple[Any, ...]) -> str:
    if attr[0] in ("size", "stride"):
        return f"{attr[2]}.{attr[0]}({attr[3]})"
    name: str = attr[2]
    return name


def _attribute(attr: Any) -> list[str]:
    if attr is None:
        return []
    if isinstance(attr, tuple) and attr and isinstance(attr[0], Type):
        return [str(a) for a in attr]
    return [str(list(attr)) if isinstance(attr, tuple) else str(attr)]

"""The text of a graph back as a graph; nothing in it is ever executed.

`parse(to_text(graph), operators, constants)` is `graph` again. Where a whole number stands, a size
may stand in braces, as in `float32[{batch}, 10]` or `size=({batch}, {2*batch+1})`: `sizes` says
what its names are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

from .node import Graph, Interner, Node, Write
from .spec import IllegalGraph, check

__all__ = ["TOKEN", "GraphError", "evaluate", "parse"]

_DEEPEST = 16  # tuples in tuples
TOKEN = re.compile(r"""\s*(?:
    (?P<value>%(?:[\w.]+|"(?:[^"\\]|\\.)*"))
  | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<constant>torch\.\w+)
  | (?P<complex>complex\([^()%]*\))
  | (?P<float>-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|inf\b|nan\b))
  | (?P<int>-?\d+)
  | (?P<size>\{[^{}]*\})
  | (?P<word>[A-Za-z_]\w*)
  | (?P<mark><-|[()\[\],:=]))""", re.X)
_HEADER = re.compile(r"graph ([^\s(]+)\((.*)\):")
_TERM = re.compile(r"\s*([+-]?)\s*((?:\d+(?:\.\d*)?|[A-Za-z_]\w*)(?:\*(?:\d+|[A-Za-z_]\w*))*)")
_WORDS = {"None": None, "True": True, "False": False}


class GraphError(ValueError):
    """A text that is no graph; the message names the line."""


def evaluate(text: str, sizes: Mapping[str, int]) -> Any:
    """The value of a sum of products, as in `2*batch+1`."""
    total: Any = 0
    place = 0
    while place < len(text):
        found = _TERM.match(text, place)
        if found is None:
            raise GraphError(f"{{{text}}} is no size")
        product: Any = -1 if found[1] == "-" else 1
        for factor in found[2].split("*"):
            product *= _factor(factor, text, sizes)
        total, place = total + product, found.end()
    return total


def _factor(factor: str, text: str, sizes: Mapping[str, int]) -> Any:
    if factor[0].isdigit():
        return float(factor) if "." in factor else int(factor[:20])
    if factor not in sizes:
        raise GraphError(f"{{{text}}} names a size {factor!r} that is not known")
    return sizes[factor]


def parse(text: str, operators: Mapping[str, Any], constants: Mapping[str, Any],
          sizes: Mapping[str, int] | None = None) -> Graph:
    """The graph that the text is of; GraphError, which names the line, where it is of none.

    operators: the records by name. constants: what is written torch.NAME, by name; element types
    have their NumPy dtype as `.np`.
    """
    parser = _Parser(operators, constants, sizes or {})
    try:
        for parser.number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                parser.line(line.strip())
        return parser.graph()
    except (GraphError, IllegalGraph) as error:
        raise GraphError(f"line {parser.number} of the graph: {error}") from None


class _Line:
    """The tokens of one line, one after the other."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place, text = 0, text.rstrip()
        while place < len(text):
            found = TOKEN.match(text, place)
            if found is None:
                raise GraphError(f"unexpected {text[place:place + 20]!r}")
            self.tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            place = found.end()
        self.place = 0

    def next(self) -> tuple[str, str]:
        """The next token; ("end", "") after the last."""
        self.place += 1
        return self.tokens[self.place - 1] if self.place <= len(self.tokens) else ("end", "")

    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place][1] if place < len(self.tokens) else ""

    def expect(self, mark: str) -> None:
        kind, found = self.next()
        if found != mark or kind == "text":
            raise GraphError(f"expected {mark!r}, found {found!r}")

    def takes(self, mark: str) -> bool:
        """Whether the next token is `mark`, which is then passed."""
        if self.peek() != mark:
            return False
        self.place += 1
        return True

    def end(self) -> None:
        if self.place < len(self.tokens):
            raise GraphError(f"unexpected {self.peek()!r}")


class _Parser:
    def __init__(self, operators: Mapping[str, Any], constants: Mapping[str, Any],
                 sizes: Mapping[str, int]) -> None:
        self.operators, self.constants, self.sizes = operators, constants, sizes
        self.interner = Interner()
        self.values: dict[str, Node] = {}
        self.made: Graph | None = None
        self.ended = False
        self.number = 0

    def graph(self) -> Graph:
        if self.made is None or not self.ended:
            raise GraphError("the text ends before its 'return'")
        check(self.made)
        return self.made

    def line(self, text: str) -> None:
        if self.ended:
            raise GraphError("text after the 'return'")
        if self.made is None:
            self.header(text)
            return
        line = _Line(text)
        if line.peek() == "return":
            self.outputs(line)
        elif line.peek() == "write":
            self.write(line)
        else:
            self.node(line)
        line.end()

    def header(self, text: str) -> None:
        found = _HEADER.fullmatch(text)
        if found is None:
            raise GraphError("expected 'graph NAME(...):'")
        self.made = Graph(found[1], [], [], [], [])
        line = _Line(found[2])
        while line.place < len(line.tokens):
            if self.made.inputs or self.made.numbers:
                line.expect(",")
            self.given(line, self.made)

    def given(self, line: _Line, graph: Graph) -> None:
        """An input with its type, or a number."""
        name = self.fresh(line)
        if line.takes(":"):
            shape, dtype = self.type(line)
            node = self.interner.make("input", None, (), (len(graph.inputs),), shape, dtype)
            graph.inputs.append(node)
            graph.names.append(name)
        else:
            node = self.interner.make("number", None, (), (len(graph.numbers),), (),
                                      self.constants["float64"].np)
            graph.numbers.append(node)
        self.values[name] = node

    def fresh(self, line: _Line) -> str:
        kind, text = line.next()
        if kind != "value":
            raise GraphError(f"expected a name with %, found {text!r}")
        name = _name(text)
        if name in self.values:
            raise GraphError(f"%{name} is there twice")
        return name

    def known(self, text: str) -> Node:
        found = self.values.get(_name(text))
        if found is None:
            raise GraphError(f"{text} is used before it is made")
        return found

    def type(self, line: _Line) -> tuple[tuple[int, ...], Any]:
        """`float32[3, 4]`"""
        _, name = line.next()
        if not hasattr(self.constants.get(name), "np"):
            raise GraphError(f"unknown element type {name!r}")
        line.expect("[")
        shape = self.items(line, "]", 0)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise GraphError(f"{list(shape)} is no shape")
        return tuple(shape), self.constants[name].np

    # --- values ---------------------------------------------------------------------------------

    def items(self, line: _Line, close: str, depth: int) -> list[Any]:
        """Values with commas between, up to `close`."""
        found: list[Any] = []
        while not line.takes(close):
            if found:
                line.expect(",")
            found.append(self.value(line, depth + 1))
        return found

    def value(self, line: _Line, depth: int = 0) -> Any:
        kind, text = line.next()
        if text == "(" and kind == "mark" and depth < _DEEPEST:
            return tuple(self.items(line, ")", depth))
        read = _READERS.get(kind)
        if read is not None:
            return read(self, text)
        raise GraphError(f"expected a value, found {text!r}")

    def word(self, text: str) -> Any:
        if text not in _WORDS:
            raise GraphError(f"unknown value {text!r}")
        return _WORDS[text]

    def constant(self, text: str) -> Any:
        found = self.constants.get(text[len("torch."):])
        if found is None:
            raise GraphError(f"unknown value {text}")
        return found

    def complex(self, text: str) -> complex:
        parts = text[len("complex("):-1].split(",")
        if len(parts) != 2:
            raise GraphError(f"{text} is no complex number")
        return complex(_number(parts[0]), _number(parts[1]))

    # --- lines ----------------------------------------------------------------------------------

    def node(self, line: _Line) -> None:
        name = self.fresh(line)
        line.expect("=")
        kind, text = line.next()
        if kind == "value":
            made = self.result(line, self.known(text))
        elif kind == "word":
            made = self.call(line, text)
        else:
            raise GraphError(f"expected an operator, found {text!r}")
        self.values[name] = made

    def result(self, line: _Line, call: Node) -> Node:
        line.expect("[")
        place = self.items(line, "]", 0)
        line.expect(":")
        if len(place) != 1 or type(place[0]) is not int or call.kind != "call":
            raise GraphError("expected the number of a result")
        return self.interner.make("result", None, (call,), (place[0],), *self.type(line))

    def call(self, line: _Line, name: str) -> Node:
        op = self.operators.get(name)
        if op is None:
            raise GraphError(f"unknown operator {name!r}")
        line.expect("(")
        args, named = self.arguments(line, op)
        wanted = list(op.params[op.n_tensors:])
        if [k for k, _ in named] != wanted or not (op.takes_list or len(args) == op.n_tensors):
            raise GraphError(f"{name} takes {op.n_tensors} tensors and the attributes {wanted}")
        shape, dtype = self.type(line) if line.takes(":") else (None, None)
        attrs = tuple(v for _, v in named)
        if "generator" not in op.params:
            return self.interner.make("call", op, tuple(args), attrs, shape, dtype)
        assert self.made is not None
        node = self.interner.make("draw", op, tuple(args), (len(self.made.draws), *attrs), shape,
                                  dtype)
        self.made.draws.append(node)
        return node

    def arguments(self, line: _Line, op: Any) -> tuple[list[Any], list[tuple[str, Any]]]:
        args: list[Any] = []
        named: list[tuple[str, Any]] = []
        if op.takes_list:
            line.expect("[")
            args = self.items(line, "]", 0)
        first = not op.takes_list
        while not line.takes(")"):
            if not first:
                line.expect(",")
            first = False
            if line.peek(1) == "=":
                key = line.next()[1]
                line.expect("=")
                named.append((key, self.value(line)))
            else:
                args.append(self.value(line))
        if op.takes_list and not all(isinstance(a, Node) for a in args):
            raise GraphError(f"{op.name} takes a list of tensors")
        return args, named

    def write(self, line: _Line) -> None:
        line.next()
        _, text = line.next()
        line.expect("<-")
        node = self.known(line.next()[1])
        assert self.made is not None
        name, what = _name(text), "data"
        if name not in self.made.names and name.endswith(".grad"):
            name, what = name[:-len(".grad")], "grad"
        if name not in self.made.names:
            raise GraphError(f"a write to {text}, which is no input")
        self.made.writes.append(Write(what, self.made.names.index(name), node))

    def outputs(self, line: _Line) -> None:
        line.next()
        assert self.made is not None
        while line.place < len(line.tokens):
            if self.made.outputs:
                line.expect(",")
            self.made.outputs.append(self.known(line.next()[1]))
        self.ended = True


def _name(text: str) -> str:
    """The name behind a %."""
    return str(_literal(text[1:])) if text[1:2] == '"' else text[1:]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise GraphError(f"{text[:40]} is no text") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise GraphError(f"{text[:40]!r} is no number") from None


def _whole(parser: _Parser, text: str) -> int:
    if len(text) > 20:
        raise GraphError(f"{text[:20]}... has too many digits")
    return int(text)


_READERS: dict[str, Callable[[_Parser, str], Any]] = {
    "value": _Parser.known, "word": _Parser.word, "constant": _Parser.constant,
    "complex": _Parser.complex, "int": _whole,
    "float": lambda parser, text: _number(text),
    "text": lambda parser, text: _literal(text),
    "size": lambda parser, text: evaluate(text[1:-1], parser.sizes),
}

"""Graphs as text and back: the same graph, for everything that is captured."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import lampion as torch
from lampion.capture import capture
from lampion.graph.node import Graph
from lampion.graph.parser import GraphError, evaluate, parse
from lampion.graph.printer import to_text
from lampion.ops.record import LEAVES
from lampion.tensor import formats
from lampion.tensor.dtype import DTYPES

CONSTANTS = {**DTYPES, **{n: v for n, v in vars(formats).items() if n.endswith("_format")}}


def _common() -> Any:
    path = Path(__file__).resolve().parent.parent / "passes" / "common_graphs.py"
    spec = importlib.util.spec_from_file_location("common_graphs_to_parse", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMON = _common()


def again(graph: Graph) -> Graph:
    text = to_text(graph)
    made = parse(text, LEAVES, CONSTANTS)
    assert to_text(made) == text
    assert [n.digest for n in made.nodes()] == [n.digest for n in graph.nodes()]
    assert [n.digest for n in made.outputs] == [n.digest for n in graph.outputs]
    assert [(w.what, w.target, w.node.digest) for w in made.writes] == [
        (w.what, w.target, w.node.digest) for w in graph.writes]
    assert (made.names, made.name) == (graph.names, graph.name)
    return made


@pytest.mark.parametrize("name", COMMON.FUNCTIONS)
def test_functions(name: str) -> None:
    again(COMMON.captured(name)[0].graph)


@pytest.mark.parametrize("name", COMMON.MODELS)
def test_training_steps(name: str) -> None:
    again(COMMON.training(name)[0].graph)


def test_draws_keep_their_turn() -> None:
    graph = capture(lambda x: (torch.rand(3) * x + torch.rand_like(x), torch.bernoulli(x)),
                    torch.ones(3)).graph
    assert [d.attrs[0] for d in again(graph).draws] == [0, 1, 2]


def test_attributes_of_all_kinds() -> None:
    def fn(x: Any) -> Any:
        y = x.to(torch.bfloat16).float().clamp(-float("inf"), 1e-30) * float("nan") + 1e300
        z = x * (2 - 3j) + complex("inf")
        return y, z, x.sum((0, 1)), torch.nn.functional.pad(x, (1, 0, 2, 0), value=-0.0)
    again(capture(fn, torch.ones(2, 2)).graph)


def test_names_of_all_kinds() -> None:
    module = torch.nn.Module()
    module.register_buffer("a \"b\" %c,", torch.ones(2))
    module.register_buffer("5", torch.ones(2))
    module.register_buffer("größe", torch.ones(2))
    graph = capture(lambda x: (x * 2 + sum(module.buffers())) * 3, torch.ones(2),
                    state=[module]).graph
    assert again(graph).names[1:] == ["a \"b\" %c,", "5", "größe"]


def test_sizes() -> None:
    text = ("graph f(%x: float32[{n}, 3]):\n  %1 = view(%x, size=({3*n})) : float32[{3*n}]\n"
            "  return %1")
    assert [n.shape for n in parse(text, LEAVES, CONSTANTS, {"n": 4}).nodes()] == [(4, 3), (12,)]
    with pytest.raises(GraphError, match=r"line 1 .*names a size 'n'"):
        parse(text, LEAVES, CONSTANTS)
    assert evaluate("2*a*b-3+a", {"a": 5, "b": 2}) == 22
    assert evaluate("1.5*a", {"a": 3}) == 4.5
    for wrong in ("a+", "a b", "(a)", "a**2", "__import__"):
        with pytest.raises(GraphError):
            evaluate(wrong, {"a": 1})


GOOD = ("graph f(%x: float32[2, 3]):\n  %1 = sum(%x, dims=(1), keepdim=False) : float32[2]\n"
        "  return %1\n")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("graph f", "def f", r"line 1 .*expected 'graph NAME"),
    ("sum(", "os.system(", "unexpected '.system"),
    ("sum(", "boom(", r"line 2 .*unknown operator 'boom'"), ("%x,", "%y,", "before it is made"),
    ("(1)", "[1]", "expected a value"), ("keepdim=False", "keep=False", "takes 1 tensors"),
    ("keepdim=False", "keepdim=__x__", "unknown value '__x__'"), ("return %1", "", "ends before"),
    ("float32[2, 3]", "float33[2, 3]", "unknown element type"), ("%1 =", "%x =", "there twice"),
    ("[2, 3]", "[-2, 3]", "is no shape"), ("[2, 3]", "[2.0, 3]", "is no shape"),
    ("(1)", "(" * 40 + "1" + ")" * 40, "expected a value"), ("(1)", "9" * 30, "too many digits"),
    ("(1)", "`id`", "unexpected '`id`"), ("return %1", "return %1 %1", "expected ','"),
    ("  return", "  write %q <- %1\n  return", "no input"), ("%x: float32[2, 3]", "%x", "number"),
])
def test_damaged_texts(old: str, new: str, message: str) -> None:
    again(parse(GOOD, LEAVES, CONSTANTS))
    if message == "number":  # an attribute may be a number, a tensor is not
        parse(GOOD.replace(old, new), LEAVES, CONSTANTS)
        return
    with pytest.raises(GraphError, match=message):
        parse(GOOD.replace(old, new, 1), LEAVES, CONSTANTS)


def test_cut_texts() -> None:
    text = to_text(COMMON.training("mlp")[0].graph)
    for end in range(0, len(text) - 1, 97):
        with pytest.raises(GraphError):
            parse(text[:end], LEAVES, CONSTANTS)
    for i in range(0, len(text), 53):
        changed = text[:i] + re.sub(r"\w", "9", text[i:i + 2]) + text[i + 2:]
        try:
            parse(changed, LEAVES, CONSTANTS)
        except GraphError:
            pass

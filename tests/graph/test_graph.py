"""The graph level: interning, content hashes, printing, legality, interpretation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lampion as torch
from lampion.capture import capture
from lampion.graph.interpret import interpret
from lampion.graph.node import Graph, Interner, Node, Write
from lampion.graph.spec import IllegalGraph, check
from lampion.ops.record import LEAVES

F32 = np.dtype(np.float32)
ADD, EXP, SOFTMAX = LEAVES["add"], LEAVES["exp"], LEAVES["softmax"]


def make_input(interner: Interner, number: int = 0, shape=(2,)) -> Node:
    return interner.make("input", None, (), (number,), shape, F32)


def add(interner: Interner, a: Node, b: Node) -> Node:
    return interner.make("call", ADD, (a, b), (), a.shape, F32)


def test_equal_content_is_one_node():
    interner = Interner()
    a, b = make_input(interner), make_input(interner, 1)
    assert make_input(interner) is a
    assert add(interner, a, b) is add(interner, a, b)
    assert add(interner, a, b) is not add(interner, b, a)
    assert interner.make("call", SOFTMAX, (a,), (0,), (2,), F32) is not interner.make(
        "call", SOFTMAX, (a,), (1,), (2,), F32)


def test_attributes_of_different_type_differ():
    interner = Interner()
    a = make_input(interner)
    digests = {interner.make("call", SOFTMAX, (a,), (v,), (2,), F32).digest
               for v in (1, 1.0, True, "1", (1,))}
    assert len(digests) == 5


def test_shape_and_dtype_are_part_of_the_content():
    interner = Interner()
    nodes = {interner.make("input", None, (), (0,), shape, np.dtype(d)).digest
             for shape in ((2,), (3,), (2, 1)) for d in (np.float32, np.float64)}
    assert len(nodes) == 6


def test_captured_duplicates_are_shared():
    program = capture(lambda x: x.exp() + x.exp(), torch.ones(2))
    assert sum(n.op is EXP for n in program.graph.nodes() if n.op) == 1


CODE = """
import lampion as torch
from lampion.capture import capture
def f(x, w):
    return torch.softmax(x @ w, -1)[:, 1:], x[torch.tensor([1, 0])]
program = capture(f, torch.ones(2, 3), torch.ones(3, 4))
print(*[n.digest for n in program.graph.nodes()])
print(program)
"""


def test_content_hash_is_stable_across_processes():
    root = Path(__file__).resolve().parents[2]
    outputs = []
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        outputs.append(subprocess.run([sys.executable, "-c", CODE], env=env, check=True,
                                      capture_output=True, text=True).stdout)
    assert outputs[0] == outputs[1] and len(outputs[0].split()) > 10


def test_print():
    def attention(q, k):
        return torch.softmax(q @ k.t(), -1)

    text = str(capture(attention, torch.ones(2, 3), torch.ones(4, 3)))
    assert text == """\
graph attention(%arg0: float32[2, 3], %arg1: float32[4, 3]):
  %2 = t(%arg1) : float32[3, 4]
  %3 = mm(%arg0, %2) : float32[2, 4]
  %4 = softmax(%3, dim=1) : float32[2, 4]
  return %4"""


def test_print_of_several_results_and_writes():
    counter = torch.zeros(1)

    def run(x):
        counter.add_(1)
        return x.topk(2)

    text = str(capture(run, torch.ones(4), state=counter))
    assert "[0] : float32[2]" in text and "[1] : int64[2]" in text
    assert "write %state0 <- " in text


def test_nodes_come_after_their_operands():
    interner = Interner()
    a, b = make_input(interner), make_input(interner, 1)
    c = add(interner, a, b)
    d = add(interner, c, c)
    graph = Graph("g", [a, b], ["a", "b"], [d], [])
    order = graph.nodes()
    assert order.index(c) < order.index(d) and len(order) == 4
    check(graph)


def test_long_graph_needs_no_recursion():
    interner = Interner()
    node = make_input(interner)
    first = node
    for _ in range(5_000):
        node = add(interner, node, first)
    graph = Graph("long", [first], ["x"], [node], [])
    check(graph)
    assert len(graph.nodes()) == 5_001
    assert str(graph).count("\n") == 5_001


def legal() -> tuple[Interner, Node, Node]:
    interner = Interner()
    return interner, make_input(interner), make_input(interner, 1)


def test_check_refuses_an_unlisted_input():
    interner, a, b = legal()
    with pytest.raises(IllegalGraph, match="does not list"):
        check(Graph("g", [a], ["a"], [add(interner, a, b)], []))


def test_check_refuses_wrong_numbers_of_operands_and_attributes():
    interner, a, _ = legal()
    with pytest.raises(IllegalGraph, match="takes 2 tensors, got 1"):
        check(Graph("g", [a], ["a"], [interner.make("call", ADD, (a,), (), (2,), F32)], []))
    with pytest.raises(IllegalGraph, match="attributes"):
        check(Graph("g", [a], ["a"], [interner.make("call", SOFTMAX, (a,), (), (2,), F32)], []))


def test_check_refuses_a_result_of_no_call():
    interner, a, _ = legal()
    with pytest.raises(IllegalGraph, match="result must belong to one call"):
        check(Graph("g", [a], ["a"], [interner.make("result", None, (a,), (0,), (2,), F32)], []))


def test_check_refuses_unknown_kinds():
    interner, a, _ = legal()
    with pytest.raises(IllegalGraph, match="unknown kind"):
        check(Graph("g", [a], ["a"], [interner.make("thing", None, (a,), (), (2,), F32)], []))


def test_check_refuses_wrong_writes():
    interner, a, b = legal()
    wide = make_input(interner, 2, (5,))
    with pytest.raises(IllegalGraph, match="write to input 7"):
        check(Graph("g", [a, b], ["a", "b"], [], [Write("data", 7, a)]))
    with pytest.raises(IllegalGraph, match=r"float32\[5\]"):
        check(Graph("g", [a, wide], ["a", "w"], [], [Write("data", 0, wide)]))


def numpy_apply(op, args, attrs):
    return op.kernel(*args, *attrs)


def test_interpret_over_numpy():
    interner, a, b = legal()
    c = interner.make("call", EXP, (add(interner, a, b),), (), (2,), F32)
    graph = Graph("g", [a, b], ["a", "b"], [c, a], [Write("data", 1, c)])
    values = [np.array([0.0, 1.0], np.float32), np.array([1.0, 1.0], np.float32)]
    outputs, written = interpret(graph, values, numpy_apply)
    np.testing.assert_allclose(outputs[0], np.exp([1.0, 2.0]), rtol=1e-6)
    assert outputs[1] is values[0] and written[0] is outputs[0]


def test_interpret_counts_its_inputs():
    interner, a, b = legal()
    graph = Graph("g", [a, b], ["a", "b"], [add(interner, a, b)], [])
    with pytest.raises(ValueError, match="takes 2 inputs, received 1"):
        interpret(graph, [np.ones(2)], numpy_apply)


def test_every_value_is_computed_once():
    calls = []

    def counting(op, args, attrs):
        calls.append(op.name)
        return numpy_apply(op, args, attrs)

    interner, a, _ = legal()
    c = interner.make("call", EXP, (a,), (), (2,), F32)
    graph = Graph("g", [a], ["a"], [add(interner, c, c), c], [])
    interpret(graph, [np.zeros(2, np.float32)], counting)
    assert calls == ["exp", "add"]

"""Graphs with numbers that every run brings along, optimizers' updates and random draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion.capture import capture
from lampion.codegen import service
from lampion.graph.node import Graph, Interner, Write
from lampion.ops.optimize import UPDATES, Scalars, update_arrays
from lampion.ops.record import LEAVES
from lampion.passes import compile_graph

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")
F32 = np.dtype(np.float32)


class Maker:
    """Writes graphs by hand."""

    def __init__(self) -> None:
        self.interner = Interner()
        self.inputs: list[Any] = []
        self.numbers: list[Any] = []

    def input(self, *shape: int) -> Any:
        node = self.interner.make("input", None, (), (len(self.inputs),), shape, F32)
        self.inputs.append(node)
        return node

    def number(self) -> Any:
        node = self.interner.make("number", None, (), (len(self.numbers),), (), np.dtype(float))
        self.numbers.append(node)
        return node

    def call(self, name: str, args: Any, attrs: Any, shape: Any) -> Any:
        return self.interner.make("call", LEAVES[name], tuple(args), tuple(attrs), shape, F32)

    def update(self, name: str, args: Any, scalars: Any) -> list[Any]:
        call = self.interner.make("call", UPDATES[name], tuple(args), (False, tuple(scalars)),
                                  None, None)
        return [self.interner.make("result", None, (call,), (i,), a.shape, a.dtype)
                for i, a in enumerate([args[0], *args[2:]])]

    def graph(self, outputs: Any, writes: Any = ()) -> Graph:
        return Graph("by_hand", self.inputs, [f"x{i}" for i in range(len(self.inputs))],
                     list(outputs), [Write("data", i, n) for i, n in writes], self.numbers)


def arrays(*shapes: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.random(s).astype(np.float32) + 0.1 for s in shapes]


def test_a_number_is_given_at_each_run():
    m = Maker()
    a = m.input(3, 4)
    node = m.call("mul", (a, m.number()), (), (3, 4))
    executable = compile_graph(m.graph([node]), [np.ones((3, 4), np.float32)])
    given, = arrays((3, 4))
    for value in (2.0, 0.0, -0.5):
        found, = executable.run([given], [value])
        np.testing.assert_array_equal(found, given * np.float32(value))


def test_a_number_reaches_operators_that_run_in_python():
    m = Maker()
    a = m.input(8)
    node = m.call("quantile", (a,), (m.number(),), (8,)) if "quantile" in LEAVES else m.call(
        "round", (a,), (m.number(),), (8,))
    node = m.call("add", (node, m.number()), (), (8,))
    executable = compile_graph(m.graph([node]), arrays(8))
    assert any(s.is_host for s in executable.launches)


@pytest.mark.parametrize("shape", [(5,), (40, 30)])
def test_an_update_is_one_kernel_in_place(shape):
    m = Maker()
    p, g, mean, square = (m.input(*shape) for _ in range(4))
    numbers = [m.number() for _ in range(6)]
    scalars = (numbers[0], None, numbers[1], 0.9, 0.1, *numbers[2:5])
    doubled = m.call("mul", (g, 0.5), (), shape)
    new = m.update("adam", (p, doubled, mean, square), scalars)
    writes = list(zip((0, 2, 3), new, strict=True))
    given = arrays(*[shape] * 4)
    executable = compile_graph(m.graph([], writes), given)
    assert len(executable.launches) == 1 and executable.arena_bytes == 0
    expected = [a.copy() for a in given]
    for step in range(1, 4):
        values = [0.99, 0.1, 1.0 + step, 1e-8, 0.01 * step, 0.0]
        fixed = [values[0], None, values[1], 0.9, 0.1, *values[2:5]]
        executable.run(given, values)
        update_arrays(UPDATES["adam"], [expected[0], expected[1] * np.float32(0.5), *expected[2:]],
                      Scalars(fixed, F32))
        for a, b in zip(given, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)


def test_an_old_value_is_read_before_it_is_written():
    """The parameter is an output too, and another value reads it after the update."""
    m = Maker()
    p, g = m.input(6), m.input(6)
    new, = m.update("sgd", (p, g), (m.number(), None))
    late = m.call("mul", (new, p), (), (6,))
    given = arrays(6, 6)
    old = [a.copy() for a in given]
    executable = compile_graph(m.graph([late, p, new], [(0, new)]), given)
    found = executable.run(given, [0.5])
    fresh = old[0] - np.float32(0.5) * old[1]
    for a, b in zip([*found, given[0]], [fresh * old[0], old[0], fresh, fresh], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_draws_continue_the_stream():
    def noisy(a):
        return F.dropout(a, 0.5) + torch.randn(4, 5), F.dropout(a * 2, 0.25)
    a = torch.ones(4, 5)
    torch.manual_seed(3)
    expected = [noisy(a) for _ in range(3)]
    after = torch.rand(2)
    program = capture(noisy, a)
    given = [t._a for t in (a, *program.state)]
    executable = compile_graph(program.graph, given)
    torch.manual_seed(3)
    for wanted in expected:
        found = executable.run(given)
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y._a, rtol=1e-6)
    assert torch.equal(torch.rand(2), after)

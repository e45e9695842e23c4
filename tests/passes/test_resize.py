"""What passes gave for a graph, at other sizes: the same values, and never where more differs."""

from __future__ import annotations

import numpy as np
import pytest
from common_graphs import MODELS, r, step_of
from test_programs import run_both

import lampion as torch
import lampion.nn.functional as F
from lampion import passes
from lampion.capture import capture
from lampion.codegen import service
from lampion.graph import check
from lampion.graph.node import Node
from lampion.passes.fused import Fused
from lampion.passes.resize import _OF_AXES, Known

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


@pytest.fixture
def found(monkeypatch):
    """What every look for a known graph gave, from an empty table on."""
    answers = []
    find = Known.find

    def noting(self, structure, graph):
        answers.append(find(self, structure, graph))
        return answers[-1]
    monkeypatch.setattr(passes, "_known", Known())
    monkeypatch.setattr(Known, "find", noting)
    return answers


def run_at(fn, *shapes_of_args):
    """Captures and runs a function on arguments of each list of shapes."""
    for shapes in shapes_of_args:
        args = [r(*s) if isinstance(s, tuple) else s for s in shapes]
        run_both(capture(fn, *args), args)


def attention(x, w):
    b, t, c = x.shape
    q, k, v = (p.view(b, t, 2, c // 2).transpose(1, 2) for p in (x @ w).split(c, dim=2))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
    return F.layer_norm(x + y, (c,)).flatten(0, 1).relu() * (1 / t)


def test_new_sizes_need_no_passes(found, monkeypatch):
    run_at(attention, [(3, 9, 22), (22, 66)])
    monkeypatch.setattr(passes, "PASSES", [])
    run_at(attention, *[[(b, t, 22), (22, 66)] for b, t in ((3, 8), (4, 7), (4, 9))])
    assert found[0] is None and None not in found[1:]
    for graph, hosts in found[1:]:
        check(graph)
        assert hosts == 0


@pytest.mark.parametrize("name", MODELS)
def test_training_steps(name, found):
    torch.manual_seed(0)
    model, x, y = MODELS[name]()
    step, rows = step_of(model), 1 if name == "lstm" else 0
    each = len(y) // x.shape[rows]
    x, y = torch.cat([x] * 5, rows), torch.cat([y] * 5)
    for batch in (7, 9, 1, 3, 11):
        args = [x.narrow(rows, 0, batch).clone(), y[:each * batch].clone()]
        run_both(capture(step, *args, state=[model]), args)
    assert any(a is not None for a in found[1:])


CASES = {
    "rows of one": (lambda a, b: ((a + b) * 2).sum(0), [(5, 4), (5, 4)], [(6, 4), (6, 4)],
                    [(1, 4), (1, 4)], [(6, 4), (1, 4)], [(0, 4), (0, 4)], [(4, 4), (4, 4)]),
    "turned squares": (lambda a: (a.view(a.shape[1], a.shape[0]) * 2, a.t().exp()), [(4, 4)],
                       [(4, 6)], [(6, 4)], [(6, 6)], [(5, 7)], [(7, 5)]),
    "one over the size": (lambda a: (a * 0.125 + 1, a.clone() * (1 / a.shape[0]) + 1),
                          [(8, 3)], [(16, 3)], [(8, 3)], [(5, 3)], [(1, 3)]),
    "a number among sizes": (lambda a: a.narrow(0, a.shape[0] - 3, 3).sum() + a[2:4].sum(),
                             [(5, 3)], [(6, 3)], [(7, 3)], [(4, 3)]),
    "parts": (lambda a: torch.cat([p.exp() * 2 for p in a.split(3)], 1), [(6, 2)], [(6, 3)],
              [(6, 5)], [(3, 5)]),
    "expanded": (lambda a, b: (a.expand(b.shape) * b, b + a), [(1, 4), (3, 4)], [(1, 4), (5, 4)],
                 [(5, 4), (5, 4)], [(1, 4), (1, 4)]),
    "written": (lambda a, b: (a[1:].mul_(2), a.add_(b), b.t().reshape(-1) * 2),
                [(3, 4), (4,)], [(5, 4), (4,)], [(2, 4), (4,)], [(4, 4), (4,)]),
    "means": (lambda a: (a.mean(0), a.var(1), a.softmax(0)), [(6, 40)], [(7, 40)], [(7, 41)],
              [(90, 40)], [(40, 40)]),
    "joined axes": (lambda a: (a.flatten(0, 1).relu() + 1).view(a.shape[1], -1).tanh(),
                    [(4, 6, 5)], [(5, 7, 3)], [(6, 4, 5)], [(2, 9, 5)]),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_change_what_passes_may_do(name, found):
    fn, *shapes = CASES[name]
    run_at(fn, *shapes)
    run_at(fn, *reversed(shapes))


def test_graphs_that_differ_in_more_are_left_to_the_passes(found):
    x = (6, 10)
    run_at(lambda a: (a * 2).view(-1, 5).sum(1), [x], [(7, 10)], [(5, 10)], [(10, 10)], [(1, 10)])
    hits = [a is not None for a in found]
    assert hits == [False, True, False, False, False]
    found.clear()
    for number in (2.0, 3.0, 1.0, 0.0):
        run_at(lambda a, n=number: a.exp() * n, [x])
    assert [a is not None for a in found] == [False, True, False, False]


def numbers_in(nodes):
    """(operator, its numbers) of calls and of what is inside of fused ones."""
    found = set()
    for n in nodes:
        if isinstance(n.op, Fused):
            found |= numbers_in(n.op.body.calls)
        elif n.kind == "call" and n.op.name not in (*_OF_AXES, "view"):
            found.add((n.op.name, repr(list(leaves((n.args, n.attrs))))))
    return found


def leaves(value):
    """What is nested in tuples and lists, but for nodes."""
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from leaves(v)
    elif not isinstance(value, Node):
        yield value


@pytest.mark.parametrize("name", [*MODELS, "attention"])
def test_passes_make_no_numbers_of_their_own(name):
    """Mapping what passes gave rests on that: a number that they computed has no counterpart."""
    torch.manual_seed(0)
    if name == "attention":
        graph = capture(attention, r(3, 9, 22), r(22, 66)).graph
    else:
        model, x, y = MODELS[name]()
        graph = capture(step_of(model), x, y, state=[model]).graph
    before = numbers_in(graph.nodes())
    for p in passes.PASSES:
        graph = p.run(graph)
        assert numbers_in(graph.nodes()) <= before, p.name


def test_structures_are_forgotten(found, monkeypatch):
    monkeypatch.setattr("lampion.passes.resize._MOST", 2)
    for count in range(4):
        run_at(lambda a, n=count: [a := a.exp() for _ in range(n + 1)][-1].sum(), [(5, 4)])
    assert len(passes._known.table) == 2


def test_numbers_of_equal_nodes_are_told_apart(found):
    """A constant that happens to be one over the size stays what it is at other sizes."""
    def fn(a):
        return a * 0.25, a.clone() * (1.0 / a.shape[0])
    for rows in (4, 8, 4, 16):
        a = torch.ones(rows, 3)
        program = capture(fn, a)
        _, _, got = run_both(program, [a])
        np.testing.assert_array_equal(got[0], np.full((rows, 3), 0.25, np.float32))
        np.testing.assert_array_equal(got[1], np.full((rows, 3), 1 / rows, np.float32))

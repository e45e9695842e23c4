"""What passes promise: their conditions, on many graphs; what they take out; what they fuse."""

from __future__ import annotations

import numpy as np
import pytest
from common_graphs import FUNCTIONS, MODELS, captured, r, training

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.capture import capture
from lampion.codegen import service
from lampion.graph import check
from lampion.passes import PASSES, compile_graph
from lampion.passes.fuse import fuse
from lampion.passes.fused import Fused
from lampion.passes.simplify import merge_equal, simplify

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


def operators(graph):
    """The names of the calls, those of a group in parentheses."""
    return [tuple(c.op.name for c in n.op.body.calls) if isinstance(n.op, Fused) else n.op.name
            for n in graph.nodes() if n.kind == "call" and not n.op.view]


def simple(fn, *args):
    return operators(simplify(capture(fn, *args).graph))


@pytest.mark.parametrize("name", [*FUNCTIONS, *MODELS])
def test_conditions_hold_before_and_after_every_pass(name):
    program, _ = training(name) if name in MODELS else captured(name)
    graph = program.graph
    for p in PASSES:
        for condition in p.requires:
            condition(graph)
        made = p.run(graph)
        for condition in p.ensures:
            condition(made)
        assert [w.target for w in made.writes] == [w.target for w in graph.writes]
        assert [(n.shape, n.dtype) for n in made.outputs] == [
            (n.shape, n.dtype) for n in graph.outputs]
        graph = made


def test_what_changes_no_bit_is_taken_out():
    assert simple(lambda a: (a.clone() * 1 / 1 - 0).neg().neg().t().t(), r(3, 4)) == []
    assert simple(lambda a: a.view(12).view(2, 6).view(3, 4), r(3, 4)) == []
    assert simple(lambda a: a + 0, r(3)) == ["add"]  # of -0.0 it makes 0.0
    assert simple(lambda a: a * -1, r(3)) == ["mul"]


def test_a_turned_product_is_multiplied_the_other_way_around():
    graph = simplify(capture(lambda a, b: (a @ b).t(), r(3, 4), r(4, 5)).graph)
    assert operators(graph) == ["mm"]
    assert graph.outputs[0].shape == (5, 3)


def test_sums_in_both_orders_are_one():
    program = capture(lambda a, b: (a + b) * (b + a), r(3), r(3))
    assert operators(merge_equal(program.graph)) == ["add", "mul"]


def test_an_input_written_with_itself_is_not_written():
    program = capture(lambda a: a.copy_(a.clone() * 1), r(3))
    assert program.graph.writes and not simplify(program.graph).writes


def fused(fn, *args):
    graph = fuse(simplify(capture(fn, *args).graph))
    check(graph)
    return operators(graph)


def test_a_chain_is_one_kernel():
    assert fused(lambda a, b: torch.tanh(a * b + 1).sum(1), r(3, 4), r(4)) == [
        ("mul", "add", "tanh", "sum")]


def test_views_between_are_part_of_a_kernel():
    assert fused(lambda a, b: ((a * 2).view(6, 5) + b).view(2, 15).sum(1), r(2, 3, 5), r(6, 5)) == [
        ("mul", "add", "sum")]


def test_reductions_over_different_axes_stay_apart():
    assert len(fused(lambda a: ((a * 2).sum(0), (a * 2).sum(1)), r(6, 5))) == 2


def test_no_group_waits_for_itself():
    """The product lies between two operators that would fit into one kernel."""
    found = fused(lambda a, b: (c := torch.exp(a), c + c @ b), r(4, 4), r(4, 4))
    assert found == ["exp", "mm", "add"]


def test_cheap_values_are_computed_by_each_reader():
    def fn(a, b, w):
        c = a - b
        return (c @ w).sum(), (c * 2).sum(0), (c * 3).sum(1)

    def without_product(a, b, w):
        return fn(a, b, w)[1:]
    found = fused(fn, r(64, 8), r(64, 1), r(8, 8))
    assert sorted(map(str, found)) == [
        "('mul', 'sum')", "('sub', 'mul', 'sum')", "mm", "sum"]
    found = fused(without_product, r(64, 8), r(64, 1), r(8, 8))
    assert sorted(found) == [("sub", "mul", "sum"), ("sub", "mul", "sum")]


def test_cross_entropy_and_its_gradient_are_three_kernels():
    def fn(x, t):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(x, t)
        return loss, torch.autograd.grad(loss, x)
    program = capture(fn, r(8, 5), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]))
    assert len(operators(fuse(simplify(program.graph)))) == 3


def test_batch_norm_and_what_follows_is_one_kernel():
    m = nn.BatchNorm2d(16)
    program = capture(lambda x, y: F.relu(m(x) + y), r(2, 16, 4, 4), r(2, 16, 4, 4), state=[m])
    found = operators(fuse(simplify(program.graph)))
    assert any({"native_batch_norm", "add", "relu"} <= set(group) for group in found)


def test_fusion_saves_launches_and_memory_traffic(capsys):
    """A transformer's training step."""
    program, args = training("transformer")
    arrays = [t._a for t in (*args, *program.state)]
    plain, whole = (compile_graph(program.graph, arrays, drop) for drop in (
        [p.name for p in PASSES], ()))
    count, size = ([sum(f(s) for s in e.launches) for e in (plain, whole)]
                   for f in (lambda s: 1, lambda s: s.bytes))
    with capsys.disabled():
        print(f"\n  launches {count[0]} -> {count[1]}, bytes {size[0]:,} -> {size[1]:,}, "
              f"arena {plain.arena_bytes:,} -> {whole.arena_bytes:,}")
    assert count[1] < 0.6 * count[0] and size[1] < 0.75 * size[0]


def test_launches_tell_operators_and_lines():
    program = capture(lambda a, b: torch.tanh(a * b).sum(0), r(3, 4), r(4))
    arrays = [t._a for t in (r(3, 4), r(4))]
    step, = compile_graph(program.graph, arrays).launches
    assert step.operators == ("mul", "tanh", "sum") and not step.is_host
    assert step.bytes == 4 * (12 + 4 + 4)


def test_writes_are_done_in_the_inputs_memory():
    def update(p, g, m):
        m.mul_(0.9).add_(g)
        p.sub_(m, alpha=0.1)
    program = capture(update, r(64), r(64), r(64, seed=1))
    arrays = [np.ones(64, np.float32) for _ in range(3)]
    executable = compile_graph(program.graph, arrays)
    assert len(executable.launches) == 1 and executable.arena_bytes == 0
    executable.run(arrays)
    np.testing.assert_allclose(arrays[2], 1.9, rtol=1e-6)
    np.testing.assert_allclose(arrays[0], 0.81, rtol=1e-6)

"""Values that are made again instead of kept: results stay, memory falls."""

from __future__ import annotations

import sys

import pytest
from common_graphs import FUNCTIONS, MODELS, captured, step_of, training
from test_programs import run_both

import lampion as torch
from lampion import nn
from lampion.capture import capture
from lampion.codegen import service
from lampion.graph import check
from lampion.passes import PASSES, compile_graph
from lampion.passes.fused import Fused

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    module = sys.modules["lampion.passes.recompute"]
    monkeypatch.setattr(module, "_LEAST", 0)


def made_again(graph):
    for p in PASSES:
        graph = p.run(graph)
    check(graph)
    return [n.op.name for n in graph.nodes() if n.kind == "call" and isinstance(n.op, Fused)
            and n.op.again]


@pytest.mark.parametrize("name", MODELS)
def test_training_step(name):
    program, args = training(name)
    run_both(program, args)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    program, args = captured(name)
    run_both(program, args)


def _deep():
    torch.manual_seed(0)
    layers = [part for _ in range(6) for part in (nn.Linear(32, 32), nn.GELU())]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    x, y = torch.randn(64, 32), torch.arange(64) % 4
    return capture(step_of(model), x, y, state=[model]), (x, y)


def test_memory_falls():
    program, args = _deep()
    assert any("gelu" in name for name in made_again(program.graph))
    arrays = [t._a.copy() for t in (*args, *program.state)]
    kept = compile_graph(program.graph, arrays, ("recompute",)).arena_bytes
    assert compile_graph(program.graph, arrays).arena_bytes < 0.85 * kept
    run_both(program, args)


def test_small_programs_keep_everything(monkeypatch):
    monkeypatch.undo()
    assert made_again(_deep()[0].graph) == []

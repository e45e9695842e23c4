"""The profiler: what it sees, what it leaves behind, its tables and traces."""

from __future__ import annotations

import gzip
import json

import pytest

import lampion as torch
from lampion.autograd.profiler import profile as older_profile
from lampion.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)


def counts(prof) -> dict[str, int]:
    return {e.key: e.count for e in prof.key_averages()}


def test_sees_functions_methods_operators_layers_and_backward() -> None:
    model = torch.nn.Linear(4, 3)
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        with record_function("forward"):
            out = model(torch.randn(2, 4))
        (out * 2).relu().sum().backward()
        torch.exp(out.detach())
    seen = counts(prof)
    for name in ("forward", "aten::randn", "aten::linear", "aten::mul", "aten::relu", "aten::sum",
                 "aten::exp", "autograd::engine::evaluate_function: AddmmBackward0"):
        assert seen[name] >= 1, name
    forward = next(e for e in prof.events() if e.name == "forward")
    assert "aten::linear" in {c.name for c in forward.cpu_children}
    assert forward.cpu_time_total >= sum(c.cpu_time_total for c in forward.cpu_children) > 0


def test_leaves_nothing_behind() -> None:
    from lampion.autograd.node import OpNode
    from lampion.ops.record import Leaf

    places = [(torch, "exp"), (torch.Tensor, "exp"), (torch.Tensor, "__add__"),
              (torch.nn.functional, "relu"), (Leaf, "__call__"), (OpNode, "backward")]
    before = [getattr(*place) for place in places]
    with pytest.raises(KeyError), profile():
        assert [getattr(*place) for place in places] != before
        raise KeyError
    assert [getattr(*place) for place in places] == before
    with profile() as prof:
        pass
    torch.ones(1).exp()
    assert len(prof.events()) == 0


def test_one_at_a_time() -> None:
    with profile(), pytest.raises(RuntimeError, match="already enabled"):
        older_profile().__enter__()


def test_table() -> None:
    with profile(record_shapes=True) as prof:
        for _ in range(3):
            torch.ones(2, 3).exp()
    table = prof.key_averages().table(sort_by="count", row_limit=1)
    lines = table.splitlines()
    assert [c.strip() for c in lines[1].split("  ") if c.strip()] == [
        "Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "# of Calls",
        "Input Shapes"]
    assert len(lines) == 6 and lines[-1].startswith("Self CPU time total: ")
    assert lines[3].split()[-2:] != []
    shapes = {e.key: e.input_shapes for e in prof.key_averages(group_by_input_shape=True)}
    assert shapes["aten::exp"] == [[2, 3]]
    with pytest.raises(AttributeError, match="cannot sort by"):
        prof.key_averages().table(sort_by="colour")
    total = prof.key_averages().self_cpu_time_total
    assert total == pytest.approx(prof.events().total_average().cpu_time_total)


def test_chrome_trace(tmp_path) -> None:
    with profile() as prof, record_function("outer"):
        torch.ones(2).exp()
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    assert [e["name"] for e in events] == ["outer", "aten::ones", "aten::exp"]
    outer, inner = events[0], events[2]
    assert outer["cat"] == "user_annotation" and outer["ph"] == "X"
    assert outer["ts"] <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1e-3


def test_schedule() -> None:
    plan = schedule(wait=1, warmup=1, active=2, repeat=1, skip_first=1)
    none, warm, record, save = ProfilerAction
    assert [plan(i) for i in range(7)] == [none, none, warm, record, save, none, none]
    with pytest.raises(ValueError):
        schedule(wait=0, warmup=0, active=0)


def test_steps_and_handler(tmp_path) -> None:
    ready = []
    with profile(schedule=schedule(wait=1, warmup=0, active=2, repeat=2),
                 on_trace_ready=lambda p: ready.append(counts(p))) as prof:
        for _ in range(8):
            torch.ones(1)
            prof.step()
    assert len(ready) == 2
    assert ready[0]["aten::ones"] == 2 and "ProfilerStep#1" in ready[0]
    assert {"ProfilerStep#4", "ProfilerStep#5"} <= ready[1].keys()
    with profile(on_trace_ready=tensorboard_trace_handler(str(tmp_path), use_gzip=True)):
        torch.ones(1)
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".pt.trace.json.gz")
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def test_older_profile_and_decorator() -> None:
    @record_function("step")
    def step() -> None:
        torch.ones(1)

    step()
    with older_profile() as prof:
        step()
        step()
    assert {e.key: e.count for e in prof.key_averages()} == {"step": 2, "aten::ones": 2}
    assert "step" in prof.table() and prof.self_cpu_time_total > 0
    with older_profile(enabled=False) as off:
        step()
    assert len(off.function_events) == 0

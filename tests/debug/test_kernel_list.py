"""LAMPION_DEBUG: the table of kernels, their loops, schedules, IR and assembly; what they cost."""

import os
import subprocess
import sys
from pathlib import Path
from types import BuiltinFunctionType

import numpy as np
import pytest

import lampion as torch
from lampion.codegen import ceilings, service
from lampion.codegen.count import count
from lampion.codegen.inspect import Subject
from lampion.codegen.ir import Kernel
from lampion.codegen.target import TARGETS, host
from lampion.codegen.types import F32, I64
from lampion.debug import kernels
from lampion.debug.knobs import override

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import lampion as torch
x = torch.ones(100, 300)
for _ in range(3):
    torch.softmax(x, 1)
x @ x.T
torch.special.bessel_j0(x)
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache with the program's kernels, and the table of the run that made them."""
    cache = str(tmp_path_factory.mktemp("kernels"))
    return cache, run(cache, 1)


def run(cache, debug, **knobs):
    environment = {f"LAMPION_{name.upper()}": value for name, value in knobs.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=dict(os.environ, LAMPION_DEBUG=str(debug), LAMPION_CACHE_DIR=cache,
                 LAMPION_KERNELS="sync", **environment))
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


def test_the_table(compiled):
    lines = compiled[1].splitlines()
    assert lines[0].split() == ["kernel", "calls", "ms", "us/call", "GB/s", "GFLOP/s", "ceiling",
                                "made"]
    rows = {line.split()[0]: line for line in lines[1:]}
    softmax = rows["softmax"].split()
    assert softmax[1:3] == ["100x300", "3"] and rows["softmax"].endswith(" ms")
    assert any(line.startswith("gemm 100x300 @ 300x100") for line in lines)
    assert any("kernels," in line and "launches" in line for line in lines)
    assert any(line.startswith("no fused kernel for ") for line in lines)
    assert max(map(len, lines)) <= 200


def test_every_level_shows_more(compiled):
    marks = ["def softmax(out0: f32*, in0: f32*", "stage 1: v", "define ",
             "%zmm" if host().name == "avx512" else ".text"]
    for level, shown in ((2, 1), (5, 4)):
        text = run(compiled[0], level)
        assert "--- kernel softmax, from disk in" in text
        assert [mark in text for mark in marks] == [True] * shown + [False] * (4 - shown)


def test_the_last_level_shows_launches(compiled):
    assert "lampion: softmax float32[100, 300] float32[100, 300] " in run(compiled[0], 6)


def test_without_debugging_kernels_are_the_native_functions():
    service.forget()
    with override(kernels="sync", debug=0):
        torch.special.expit(torch.ones(123, 456)).prod(0)
    assert len(service._ready) >= 1
    assert all(isinstance(f, BuiltinFunctionType) for f in service._ready.values())


def test_a_report_without_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "LAUNCHES", [])
    assert kernels.table() == "no kernel ran: LAMPION_DEBUG=1 watches them"


def test_failures_are_in_the_table(monkeypatch):
    monkeypatch.setattr(kernels, "LAUNCHES", [])
    key, build = scaled()
    with override(debug=0, kernels="sync"), monkeypatch.context() as patch:
        patch.setattr(kernels, "JOURNAL", [[]])
        native = service.kernel(key, build)
        native(np.zeros(16, np.float32), np.ones(16, np.float32))
        patch.setattr(service, "_failed", {("odd kernel", 1): "SpecError: no such thing"})
        assert "no kernel for odd kernel: SpecError: no such thing" in kernels.table()
    service._ready.pop(key)
    service.made.pop(key)


def scaled():
    def build(target):
        k = Kernel("scaled")
        out, x = k.array("out", F32), k.array("x", F32)
        k.store(out.ptr, 0, k.load(x.ptr, 0, 16) * 3.0)
        return k
    return ("test of the kernel list",), build


# --- what a launch costs at least -------------------------------------------------------------


def facts(*arrays):
    return [kernels.facts_of(a) for a in arrays]


def axpy():
    k = Kernel("axpy")
    y, x, n = k.array("y", F32), k.array("x", F32), k.integer("n")
    with k.parallel(n / 64) as (task, _), k.loop(task * 64, (task + 1) * 64, 16) as i:
        k.store(y.ptr, i, k.fma(k.load(x.ptr, i, 16), 2.0, k.load(y.ptr, i, 16)))
    return k


@pytest.mark.parametrize("name, registers", [("avx512", 1), ("avx2", 2), ("sse", 4)])
def test_counting(name, registers):
    y, x = (np.zeros(640, np.float32) for _ in range(2))
    work = count(axpy(), TARGETS[name], [*facts(y, x), 640])
    assert work.flops == 1280
    assert work.multiplies == 40 * registers and work.others == 0
    assert work.loaded == {"x": 2560, "y": 2560} and work.stored == {"y": 2560}


def test_sizes_in_an_array_are_read():
    k = Kernel("by plan")
    out, plan = k.array("out", F32), k.array("plan", I64)
    ptr = k.offset(plan.ptr, 1)
    with k.loop(0, k.load(ptr, 1), 16) as i:
        k.store(out.ptr, i, k.const(1.0, F32.vector(16)))
    out = np.zeros(160, np.float32)
    work = count(k, host(), facts(out, np.array([7, 8, 160])))
    assert work.stored == {"out": 640}


@pytest.fixture
def known(monkeypatch):
    """A machine that reads 10 GB/s, writes 5, and does 1000 million multiply-adds a second."""
    sizes = (1 << 15, 1 << 26)
    machine = ceilings.Ceilings(1, sizes, (1e10, 1e10), (5e9, 5e9), (8e9, 8e9),
                                {"f32": 1e9, "f64": 5e8})
    monkeypatch.setattr("lampion.codegen.inspect.ceilings", lambda: machine)
    return machine


def test_the_roof_is_that_of_the_slower_of_memory_and_arithmetic(known):
    with override(kernels="sync"):
        subject = Subject(("axpy",), lambda target: axpy(), 0.0, True)
        y, x = (np.zeros(6400, np.float32) for _ in range(2))
        roof = subject.roof([*facts(y, x), 6400])
    assert (roof.read, roof.written, roof.flops, roof.bound) == (51200, 25600, 12800, "memory")
    assert roof.seconds == pytest.approx(known.seconds(51200, 25600))
    assert known.seconds(51200, 25600) == pytest.approx(51200 / 8e9 + 25600 / 1e10)


def test_elements_that_stand_for_many_count_once(known):
    subject = Subject(("axpy",), lambda target: axpy(), 0.0, True)
    y = np.zeros(6400, np.float32)
    x = np.broadcast_to(np.zeros(1, np.float32), 6400)
    assert subject.roof([*facts(y, x), 6400]).read == 25600 + 4


def test_ceilings_are_kept_and_only_get_better(tmp_path, monkeypatch):
    slow = ceilings.Ceilings(1, (1, 2), (1.0, 3.0), (1.0, 1.0), (2.0, 2.0), {"f32": 1.0})
    fast = ceilings.Ceilings(1, (1, 2), (2.0, 2.0), (1.0, 1.0), (1.0, 5.0), {"f32": 4.0})
    measured = iter([slow, fast])
    monkeypatch.setattr(ceilings, "_measure", lambda threads: next(measured))
    with override(cache_dir=str(tmp_path)):
        assert ceilings.ceilings(1, fresh=True) == slow
        both = ceilings.ceilings(1, fresh=True)
        assert both == ceilings._from_disk(1)
    assert (both.read, both.copy, both.fma["f32"]) == ((2.0, 3.0), (2.0, 5.0), 4.0)
    assert both.measurements == 2


def test_measured_ceilings_are_plausible():
    found = ceilings._measure(1)
    assert min(*found.read, *found.write, *found.copy) > 1e8
    assert found.fma["f32"] > found.fma["f64"] > 1e8
    assert found.seconds(1 << 20, 1 << 20) > found.seconds(1 << 19, 1 << 19) > 0

"""AArch64 objects through the real loader, run on an emulated processor."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from lampion.codegen import allocator, pool
from lampion.codegen.compile import compile_object
from lampion.codegen.emit import emit
from lampion.codegen.target import TARGETS

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
import emulator  # skips this file where there is none
import native_modules
import test_emitted_code as emitted


def machine(text):
    return emulator.Machine(compile_object(text, TARGETS["neon"]))


def test_code_constants_variables_and_calls_out():
    arm = machine(native_modules.MIXED)
    assert [arm.call("chosen", i) for i in range(6)] == [7, 91, 1, 1, 13, 5]
    assert [arm.call("chosen", 2) for _ in range(3)] == [2, 3, 4]
    arm.call("scaled", 2)
    result = arm.processor.reg_read(emulator.arm64.UC_ARM64_REG_S0)
    assert struct.unpack("<f", struct.pack("<I", result))[0] == 10.5
    out = np.zeros(1)
    arm.entry("entry", out, 1, 0.5)
    assert out[0] == 91.5
    assert {"fmodf", "PyLong_AsLongLong", "PyFloat_AsDouble"} <= set(arm.calls)


def test_parallel_regions_and_nested_ones():
    arm = machine(native_modules.TASKS)
    out = np.full(64, 3, np.int64)
    arm.entry("entry", out, 64)
    assert (out == 0).all()
    out[:] = 5
    arm.entry("nested", out)
    assert (out == 0).all()


def test_the_pool_runs_a_job_alone_while_it_has_no_workers():
    joined = native_modules.TASKS.replace("declare void @lampion_parallel(ptr, ptr, i64)\n", "")
    names = {line.split("@")[1].split("(")[0] for line in joined.splitlines()
             if line.startswith("declare")}
    own = "\n".join(line for line in pool.text(TARGETS["neon"]).splitlines() if not (
        line.startswith("declare") and line.split("@")[1].split("(")[0] in names))
    arm = machine(joined + own)
    arm.call("lampion_pool_reset", 10, 0)
    out = np.full(16, 3, np.int64)
    arm.entry("entry", out, 16)
    assert (out == 0).all()
    arm.call("lampion_pool_spin", 100)


def test_blocks_of_the_memory_pool():
    arm = machine(allocator.text(TARGETS["neon"]))
    blocks = [emulator.HEAP + 4096 * i for i in range(1, 4)]
    assert arm.call("pop", 9) == 0
    for block in blocks:
        arm.call("push", 9, block)
    assert [arm.call("pop", 9) for _ in range(4)] == [*blocks[::-1], 0]
    assert arm.call("pop", 8) == 0


@pytest.fixture
def on_neon(monkeypatch):
    """Kernels of `emitted` run on the emulated processor."""
    def make(kernel, target=None):
        arm = machine(emit(kernel, TARGETS["neon"]))
        return lambda *args: arm.entry("entry", *args)

    monkeypatch.setattr(emitted.service, "make", make)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "min", "max", "and", "xor"])
def test_pairs(op, on_neon):
    emitted.test_pairs(op, "neon")


@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_casts(lanes, on_neon):
    emitted.test_casts(lanes, "neon")


@pytest.mark.parametrize("op", ["add", "mul", "min", "max"])
def test_reductions(op, on_neon):
    emitted.test_reductions_in_a_fixed_tree(op, "neon")


def test_fma_masks_and_gathers(on_neon):
    emitted.test_fma_rounds_once_where_the_target_can("neon")
    emitted.test_gather_and_scatter("neon")
    for n in (0, 1, 17):
        emitted.test_masked_tails_touch_nothing_outside(n, "neon")

"""The loop level: what the builder makes, what is refused, what printer and interpreter do."""

import numpy as np
import pytest

from lampion.codegen import spec
from lampion.codegen.interpret import MemoryError_, interpret
from lampion.codegen.ir import Kernel
from lampion.codegen.printer import to_text
from lampion.codegen.types import F32, I32, I64


def axpy(lanes=4):
    k = Kernel("axpy")
    y, x, n, a = k.array("y", F32), k.array("x", F32), k.integer("n"), k.number("a", F32)
    with k.parallel((n + 7) / 8) as (task, _):
        start = task * 8
        stop = k.min(start + 8, n)
        with k.loop(start, stop, lanes) as i:
            mask = k.mask(stop - i, lanes)
            old = k.load(y.ptr, i, lanes, mask)
            k.store(y.ptr, i, k.fma(k.load(x.ptr, i, lanes, mask), a, old), mask)
    return k


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 30])
def test_a_kernel_is_legal_and_means_what_it_says(n):
    k = axpy()
    spec.check(k)
    x, y = np.arange(n, dtype="f"), np.ones(n, "f")
    interpret(k, y, x, n, 2.0)
    assert np.array_equal(y, 2 * np.arange(n, dtype="f") + 1)


def test_text_reads_like_python():
    text = to_text(axpy())
    assert text.startswith("def axpy(y: f32*, x: f32*, n: i64, a: f32):\n")
    assert "in parallel(" in text and "fma(" in text
    assert text == to_text(axpy())


def test_carried_values():
    k = Kernel("sum")
    out, x, n = k.array("out", F32), k.array("x", F32), k.integer("n")
    loop = k.loop(0, n, 1, [k.const(0.0, F32)])
    with loop as (i, total):
        loop.next(total + k.load(x.ptr, i))
    k.store(out.ptr, 0, loop.results[0])
    spec.check(k)
    out_ = np.zeros(1, "f")
    interpret(k, out_, np.arange(10, dtype="f"), 10)
    assert out_[0] == 45
    assert "for" in to_text(k)


def test_branch_results():
    k = Kernel("pick")
    out, n = k.array("out", I64), k.integer("n")
    branch = k.choose(n < 3)
    with branch.then:
        branch.give(n + 10)
    with branch.otherwise:
        branch.give(n - 10)
    k.store(out.ptr, 0, branch.results[0])
    spec.check(k)
    for n, expected in ((2, 12), (5, -5)):
        got = np.zeros(1, np.int64)
        interpret(k, got, n)
        assert got[0] == expected


def test_reads_outside_raise():
    k = Kernel("outside")
    x = k.array("x", F32)
    k.store(x.ptr, 0, k.load(x.ptr, 5))
    with pytest.raises(MemoryError_, match="element 5"):
        interpret(k, np.zeros(4, "f"))


def test_sizes_and_strides_come_from_the_array():
    k = Kernel("stride")
    out, x = k.array("out", I64), k.array("x", F32)
    k.store(out.ptr, 0, x.size(1))
    k.store(out.ptr, 1, x.stride(0))
    got = np.zeros(2, np.int64)
    interpret(k, got, np.zeros((6, 10), "f")[::2, ::5])
    assert got.tolist() == [2, 20]


@pytest.mark.parametrize("build, why", [
    (lambda k: k.emit("add", (k.const(1, I64), k.const(1.0, F32))), "two operands of one type"),
    (lambda k: k.emit("frobnicate"), "no operation 'frobnicate'"),
    (lambda k: k.load(k.const(0, I64), 0), "a pointer"),
    (lambda k: k.extract(k.const(0, I32.vector(4)), 4), "a lane below 4"),
])
def test_illegal_operations_are_refused_when_made(build, why):
    with pytest.raises(spec.SpecError, match=why):
        build(Kernel("bad"))


def test_a_value_used_outside_its_region_is_refused():
    k = Kernel("escape")
    x = k.array("x", F32)
    with k.loop(0, 4) as i:
        inside = k.load(x.ptr, i)
    k.store(x.ptr, 0, inside)
    with pytest.raises(spec.SpecError, match="not defined there"):
        spec.check(k)


def test_the_language_is_small():
    assert len(spec.OPS) <= 50

"""Emitted machine code does what the interpreter says, on every instruction set that runs here."""

import numpy as np
import pytest
from common import RUNNABLE

from lampion.codegen import service, spec
from lampion.codegen.compile import assembly
from lampion.codegen.emit import emit
from lampion.codegen.interpret import interpret, numpy_type
from lampion.codegen.ir import Kernel
from lampion.codegen.target import TARGETS, host
from lampion.codegen.types import BF16, F16, F32, F64, I1, I8, I16, I32, I64, U8, U16, U32


def both(kernel, *args, target="native"):
    """The arguments after the interpreter and after machine code."""
    spec.check(kernel)
    mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    native = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    interpret(kernel, *mine)
    chosen = host() if target == host().name else TARGETS[target]
    service.make(kernel, chosen)(*native)
    return mine, native


def pairwise(op, kind, lanes):
    k = Kernel("pair")
    out, x, y = k.array("out", kind), k.array("x", kind), k.array("y", kind)
    a, b = k.load(x.ptr, 0, lanes), k.load(y.ptr, 0, lanes)
    k.store(out.ptr, 0, k.emit(op, (a, b)))
    return k


def sample(kind, lanes, rng, positive=False):
    dtype = numpy_type(kind)
    if kind.is_float:
        return (rng.standard_normal(lanes) * 3).astype(dtype)
    high = min(np.iinfo(dtype).max, 100)
    return rng.integers(1 if positive or kind.kind == "u" else -high, high, lanes).astype(dtype)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "min", "max", "and", "xor"])
def test_pairs(op, target):
    rng = np.random.default_rng(0)
    kinds = [I8, I16, I32, I64, U8, U16, U32] + [F32, F64] * (op not in ("and", "xor"))
    for kind in kinds:
        lanes = 16
        x, y = sample(kind, lanes, rng), sample(kind, lanes, rng, positive=True)
        if kind.is_float:
            x[3], y[5] = np.nan, np.nan
        y[y == 0] = 1
        k = pairwise(op, kind, lanes)
        mine, native = both(k, np.zeros(lanes, x.dtype), x, y, target=target)
        np.testing.assert_array_equal(mine[0], native[0])


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_casts(lanes, target):
    rng = np.random.default_rng(1)
    for old in (BF16, F16, F32, F64, I8, I32, I64, U8):
        for new in (BF16, F16, F32, F64, I8, I16, I32, I64):
            k = Kernel("cast")
            out, x = k.array("out", new), k.array("x", old)
            k.store(out.ptr, 0, k.load(x.ptr, 0, lanes).cast(new))
            given = sample(old, lanes, rng)
            mine, native = both(k, np.zeros(lanes, numpy_type(new)), given, target=target)
            np.testing.assert_array_equal(mine[0], native[0], err_msg=f"{old} to {new}")


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("op", ["add", "mul", "min", "max"])
def test_reductions_in_a_fixed_tree(op, target):
    rng = np.random.default_rng(2)
    for kind, lanes in ((F32, 16), (F32, 4), (F64, 8), (I32, 8)):
        k = Kernel("reduce")
        out, x = k.array("out", kind), k.array("x", kind)
        k.store(out.ptr, 0, k.reduce(op, k.load(x.ptr, 0, lanes)))
        mine, native = both(k, np.zeros(1, numpy_type(kind)), sample(kind, lanes, rng),
                            target=target)
        assert mine[0][0] == native[0][0]


@pytest.mark.parametrize("target", RUNNABLE)
def test_fma_rounds_once_where_the_target_can(target):
    if not TARGETS[target].has_fma:
        pytest.skip("this instruction set rounds the product too")
    rng = np.random.default_rng(3)
    k = Kernel("fma")
    out, *xs = (k.array(name, F32) for name in "oabc")
    k.store(out.ptr, 0, k.fma(*(k.load(x.ptr, 0, 16) for x in xs)))
    for _ in range(20):
        args = [sample(F32, 16, rng) for _ in range(3)]
        args[2] = -(args[0] * args[1])  # cancels, so the rounding of the product shows
        mine, native = both(k, np.zeros(16, "f"), *args, target=target)
        np.testing.assert_array_equal(mine[0], native[0])


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("n", [0, 1, 5, 16, 17, 100])
def test_masked_tails_touch_nothing_outside(n, target):
    k = Kernel("double")
    x, size = k.array("x", F32), k.integer("n")
    with k.loop(0, size, 16) as i:
        mask = k.mask(size - i, 16)
        k.store(x.ptr, i, k.load(x.ptr, i, 16, mask) * 2.0, mask)
    given = np.arange(n + 20, dtype="f")
    mine, native = both(k, given, n, target=target)
    np.testing.assert_array_equal(mine[0], native[0])
    np.testing.assert_array_equal(native[0][n:], given[n:])


@pytest.mark.parametrize("target", RUNNABLE)
def test_gather_and_scatter(target):
    k = Kernel("permute")
    out, x, places = k.array("out", F32), k.array("x", F32), k.array("p", I64)
    at, mask = k.load(places.ptr, 0, 8), k.mask(k.const(6, I64), 8)
    got = k.gather(x.ptr, at, mask)
    k.scatter(out.ptr, k.iota(8), got, mask)
    rng = np.random.default_rng(4)
    mine, native = both(k, np.zeros(8, "f"), sample(F32, 50, rng), rng.integers(0, 50, 8),
                        target=target)
    np.testing.assert_array_equal(mine[0], native[0])
    assert (native[0][6:] == 0).all()


@pytest.mark.parametrize("lanes", [4, 16])
def test_dot_products(lanes):
    rng = np.random.default_rng(5)
    for acc, a, b, group in ((F32, BF16, BF16, 2), (I32, U8, I8, 4)):
        k = Kernel("dot")
        out, x, y = k.array("out", acc), k.array("x", a), k.array("y", b)
        total = k.emit("dot", (k.load(out.ptr, 0, lanes), k.load(x.ptr, 0, lanes * group),
                               k.load(y.ptr, 0, lanes * group)))
        k.store(out.ptr, 0, total)
        args = (sample(acc, lanes, rng), sample(a, lanes * group, rng),
                sample(b, lanes * group, rng))
        mine, native = both(k, *args, target=host().name)
        np.testing.assert_allclose(mine[0], native[0], rtol=1e-6)


@pytest.mark.parametrize("target", RUNNABLE)
def test_masks_from_the_bits_of_integers(target):
    for kind, lanes in ((U8, 8), (U16, 16)):
        k = Kernel("bits")
        out, x, words = k.array("out", F32), k.array("x", F32), k.array("words", kind)
        with k.loop(0, words.size(0)) as i:
            mask = k.emit("bitcast", (k.load(words.ptr, i),), I1.vector(lanes))
            k.store(out.ptr, i * lanes, k.load(x.ptr, 0, lanes, mask), mask)
        rng = np.random.default_rng(6)
        words = rng.integers(0, 1 << lanes, 20).astype(numpy_type(kind))
        mine, native = both(k, np.full(20 * lanes, -1, "f"), sample(F32, lanes, rng), words,
                            target=target)
        np.testing.assert_array_equal(mine[0], native[0])
        bits = np.unpackbits(words.view("u1"), bitorder="little").astype(bool)
        np.testing.assert_array_equal(native[0] != -1, bits)


def test_none_is_a_null_pointer_and_refcounts_stay():
    import sys

    k = Kernel("nothing")
    x, n = k.array("x", F32), k.integer("n")
    with k.when(n > 0):
        k.store(x.ptr, 0, k.const(1.0, F32))
    f = service.make(k)
    before = sys.getrefcount(None)
    for _ in range(1000):
        assert f(None, 0) is None
    assert abs(sys.getrefcount(None) - before) < 100


def test_every_target_compiles_the_same_kernel():
    k = pairwise("add", F32, 16)
    for name, mnemonic in (("sse", "addps"), ("avx2", "vaddps"), ("avx512", "zmm"),
                           ("neon", "fadd")):
        assert mnemonic in assembly(emit(k, TARGETS[name]), TARGETS[name])


@pytest.mark.parametrize("target", RUNNABLE)
def test_tables_of_constants(target):
    for kind, numbers in ((F64, (1.5, -0.0, 3e300)), (I32, (7, -1, 5)), (F32, (0.1, 2.0, -3.0))):
        k = Kernel("table")
        out, places = k.array("out", kind), k.array("p", I64)
        table = k.emit("const", (), (numbers, kind.to()))
        k.store(out.ptr, 0, k.gather(table, k.load(places.ptr, 0, 8)))
        args = np.zeros(8, numpy_type(kind)), np.array([2, 1, 0, 0, 2, 1, 1, 2])
        mine, native = both(k, *args, target=target)
        np.testing.assert_array_equal(mine[0], native[0])
        np.testing.assert_array_equal(native[0], np.array(numbers)[args[1]].astype(args[0].dtype))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("normal", [False, True])
def test_scale_by_a_power_of_two(target, normal):
    for kind, lanes, most in ((F32, 16, 126), (F32, 4, 126), (F64, 8, 1022), (F32, 1, 126)):
        k = Kernel("scale")
        out, x, y = (k.array(name, kind) for name in "oxy")
        a, n = (k.load(v.ptr, 0, lanes) for v in (x, y))
        k.store(out.ptr, 0, k.scale(a, n, normal))
        reach = most if normal else 2 * most
        n = np.linspace(-reach, reach, lanes).round().astype(numpy_type(kind))
        a = np.linspace(1.0, 1.9, lanes).astype(n.dtype)
        a[-1] = n[-1] = np.nan
        mine, native = both(k, np.zeros(lanes, a.dtype), a, n, target=target)
        np.testing.assert_array_equal(mine[0], native[0])

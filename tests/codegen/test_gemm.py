"""The generated matrix product against NumPy in float64: shapes, layouts, tails, batches."""

import itertools
import re
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from lampion.codegen import gemm as launcher
from lampion.codegen.compile import assembly
from lampion.codegen.emit import emit
from lampion.codegen.gemm import Repeated, bmm, gemm
from lampion.codegen.gemm_dot import build_dot
from lampion.codegen.gemm_factors import factors, plain
from lampion.codegen.gemm_kernel import Variant, build
from lampion.codegen.gemm_pack import build_pack, tile_of, transpose
from lampion.codegen.gemm_problem import Problem
from lampion.codegen.gemm_stream import MOST_ROWS, build_stream
from lampion.codegen.interpret import interpret
from lampion.codegen.ir import Kernel
from lampion.codegen.target import TARGETS, host
from lampion.codegen.types import F32, F64
from lampion.debug.knobs import override
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
SIZES = [(1, 1, 1), (5, 7, 3), (14, 32, 8), (15, 33, 17), (64, 64, 64), (29, 65, 401), (3, 300, 2),
         (90, 130, 500), (131, 117, 97)]


def matrix(rng, rows, columns, layout, dtype):
    """Random numbers laid out by rows, by columns, with steps, or backwards."""
    if layout == "columns":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if layout == "steps":
        return rng.standard_normal((2 * rows, 3 * columns)).astype(dtype)[::2, ::3]
    x = rng.standard_normal((rows, columns)).astype(dtype)
    return x[::-1, ::-1] if layout == "backwards" else x


def tolerance(dtype, depth):
    return np.finfo(dtype).eps * (8 + 4 * np.sqrt(depth))


def check(out, expected, depth, scale=1):
    bound = tolerance(out.dtype, depth) * scale
    np.testing.assert_allclose(out, expected, rtol=bound, atol=bound * np.sqrt(depth + 1))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_layouts_and_tails(instructions, dtype):
    rng = np.random.default_rng(0)
    layouts = itertools.product(["rows", "columns", "steps", "backwards"], repeat=2)
    for (m, n, k), (first, second) in itertools.product(SIZES, layouts):
        a, b = matrix(rng, m, k, first, dtype), matrix(rng, k, n, second, dtype)
        out = np.full((m, n), np.nan, dtype)
        assert gemm(out, a, b)
        check(out, a.astype("f8") @ b.astype("f8"), k)


@pytest.mark.parametrize("layout", ["rows", "columns", "steps"])
def test_bias_alpha_accumulate_into_any_layout(layout):
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        a, b = matrix(rng, m, k, "rows", "f4"), matrix(rng, k, n, "columns", "f4")
        bias, out = matrix(rng, n, 1, "steps", "f4")[:, 0], matrix(rng, m, n, layout, "f4")
        wide = [x.astype("f8") for x in (a, b, bias, out)]
        gemm(out, a, b, bias, accumulate=True, alpha=0.25)
        check(out, wide[0] @ wide[1] * 0.25 + wide[2] + wide[3], k, 2)


@pytest.mark.parametrize("layout", ["rows", "columns", "steps"])
def test_a_matrix_that_is_packed_once(layout):
    """For any number of rows and any layout."""
    rng = np.random.default_rng(2)
    for k, n in ((300, 515), (20, 9)):
        b = matrix(rng, k, n, layout, "f4")
        repeated = Repeated(b)
        for m in (1, 5, 32, 33):
            a, out = matrix(rng, m, k, "steps", "f4"), matrix(rng, m, n, "rows", "f4")
            expected = out + a.astype("f8") @ b
            assert repeated.launch(out, a, True)
            check(out, expected, k, 2)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_large_matrix_is_packed_in_parts(layout, monkeypatch):
    """The same bits as packed at once: the order of sums depends on their length alone."""
    rng, results = np.random.default_rng(3), []
    a, b = matrix(rng, 150, 300, "rows", "f4"), matrix(rng, 300, 333, layout, "f4")
    bias, old = matrix(rng, 333, 1, "rows", "f4")[:, 0], matrix(rng, 150, 333, "rows", "f4")
    for most in (1 << 30, 1 << 15):
        monkeypatch.setattr(launcher, "_PACKED", most)
        monkeypatch.setattr(launcher, "_recipes", {})
        out = old.copy()
        assert gemm(out, a, b, bias, accumulate=True)
        results.append(out)
    check(results[0], a.astype("f8") @ b + bias + old, 300, 2)
    np.testing.assert_array_equal(*results)


def test_empty_products():
    out = np.ones((3, 4), "f4")
    gemm(out, np.ones((3, 0), "f4"), np.ones((0, 4), "f4"))
    assert (out == 0).all()
    gemm(out, np.ones((3, 0), "f4"), np.ones((4, 0), "f4").T, np.arange(4, dtype="f4"))
    assert (out == np.arange(4)).all()
    for m, n in ((0, 4), (3, 0), (0, 0)):
        gemm(np.ones((m, n), "f4"), np.ones((m, 5), "f4"), np.ones((5, n), "f4"))


def test_not_finite():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((20, 40)).astype("f4"), rng.standard_normal((40, 50)).astype("f4")
    a[3, 5], b[7, 9], b[8, 49] = np.inf, np.nan, -np.inf
    out = np.empty((20, 50), "f4")
    gemm(out, a, b)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [(1,), (5,), (2, 3), (0,), (2, 0)])
def test_batches(batch):
    rng = np.random.default_rng(3)
    for m, n, k in ((4, 5, 6), (33, 40, 17), (20, 70, 1100)):
        a, b = rng.standard_normal((*batch, m, k)), rng.standard_normal((*batch, n, k))
        out = np.empty((*batch, m, n))
        bmm(out, a, b.swapaxes(-1, -2))
        check(out, a @ b.swapaxes(-1, -2), k)


def test_batches_that_share_an_operand():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((3, 4, 20, 90)), rng.standard_normal((4, 90, 1000))
    out = np.empty((3, 4, 20, 1000))
    wide = np.broadcast_to(b, (3, *b.shape))
    bmm(out, a, wide)
    check(out, a @ b, 90)
    bmm(out, a, np.broadcast_to(b[0], wide.shape))
    check(out, a @ b[0], 90)
    bmm(out, np.broadcast_to(a[0, 0], a.shape), wide)
    check(out, a[0, 0] @ np.broadcast_to(b, (3, *b.shape)), 90)


def test_views_of_heads():
    """What attention multiplies: heads taken out of the last axis."""
    rng = np.random.default_rng(5)
    q, k = (rng.standard_normal((2, 9, 3, 8)).transpose(0, 2, 1, 3) for _ in range(2))
    out = np.empty((2, 3, 9, 9))
    bmm(out, q, k.swapaxes(-1, -2))
    check(out, q @ k.swapaxes(-1, -2), 8)


def test_pairs_of_bfloat16():
    rng = np.random.default_rng(11)
    layouts = itertools.product(["rows", "columns", "steps"], repeat=2)
    for (m, n, k), (first, second) in itertools.product(SIZES, layouts):
        a, b = (matrix(rng, *s, "f4").astype(ml_dtypes.bfloat16)
                for s in ((m, k, first), (k, n, second)))
        out, bias = np.full((m, n), np.nan, "f4"), rng.standard_normal(n).astype("f4")
        if not gemm(out, a, b, bias):
            assert not host().has_bf16_dot
            pytest.skip("this processor has no products of bfloat16")
        check(out, a.astype("f8") @ b.astype("f8") + bias, k)
    a, b = (rng.standard_normal((3, 20, 30)).astype(ml_dtypes.bfloat16) for _ in range(2))
    out = np.empty((3, 20, 20), "f4")
    bmm(out, a, b.swapaxes(1, 2))
    check(out, a.astype("f8") @ b.astype("f8").swapaxes(1, 2), 30)


def test_pairs_stay_inside():
    rng = np.random.default_rng(12)
    chosen = replace(TARGETS["avx512"], has_bf16_dot=True)
    pairs_of = factors("bfloat16", "bfloat16", "float32", chosen)
    for m, n, k in ((15, 35, 5), (3, 16, 4)):
        a, b = (rng.standard_normal(s).astype(ml_dtypes.bfloat16) for s in ((m, k), (k, n)))
        panels = np.full(-(-n // 32) * ((k + 1) // 2) * 32, -1, "i4")
        interpret(build_pack(chosen, pairs_of, "groups"), panels, b, 2, 1)
        pairs = np.zeros((m, (k + 1) // 2 * 2), a.dtype)
        pairs[:, :k] = a
        out = np.full((m, n), np.nan, "f4")
        interpret(build(chosen, Variant(pairs_of)), out, pairs.view("i4"), panels, None, 32,
                  (k + 1) // 2 * 32, 0, 14, 32, 2, 0, 0)
        check(out, a.astype("f8") @ b.astype("f8"), k)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_rows_do_not_depend_on_the_others(layout):
    rng = np.random.default_rng(7)
    b = matrix(rng, 700, 200, layout, "f4")
    a, bias = rng.standard_normal((100, 700)).astype("f4"), rng.standard_normal(200).astype("f4")
    with override(invariant_rows=True):
        whole = np.empty((100, 200), "f4")
        gemm(whole, a, b, bias)
        for rows in (1, 2, 5, 13, 15, 33, 64):
            part = np.empty((rows, 200), "f4")
            gemm(part, a[:rows], b, bias)
            np.testing.assert_array_equal(part, whole[:rows])
        for rows in (1, 40):
            column = np.empty((rows, 1), "f4")
            gemm(column, a[:rows], b[:, 3:4])
            gemm(whole, a, b)
            np.testing.assert_array_equal(column, whole[:rows, 3:4])


def test_the_same_bits_with_any_number_of_threads():
    rng = np.random.default_rng(8)
    a, b = (rng.standard_normal(s).astype("f4") for s in ((300, 900), (250, 900)))
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            out = np.empty((300, 250), "f4")
            gemm(out, a, b.T)
            results.append(out)
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_arguments_that_do_not_fit():
    x = np.ones((3, 4), "f4")
    with pytest.raises(ValueError, match=r"product of \(3, 4\) and \(3, 4\)"):
        gemm(np.empty((3, 4), "f4"), x, x)
    with pytest.raises(ValueError, match="float64"):
        gemm(np.empty((3, 3), "f4"), x, x.T.astype("f8"))
    with pytest.raises(ValueError, match="int32"):
        gemm(np.ones((2, 2), "f4"), *(np.ones((2, 2), "i4") for _ in range(2)))
    with pytest.raises(ValueError, match="uint16"):
        gemm(*(np.ones((2, 2), "u2") for _ in range(3)))
    with pytest.raises(ValueError, match="neither bias nor factor"):
        gemm(*(np.ones((2, 2), "i4") for _ in range(3)), alpha=2.0)
    with pytest.raises(ValueError, match="bias"):
        gemm(np.empty((3, 3), "f4"), x, x.T, np.ones(2, "f4"))
    uneven = np.ones(3, np.dtype([("x", "f4"), ("y", "i2")]))["x"][:, None]
    with pytest.raises(ValueError, match="multiples of the element size"):
        gemm(np.empty((3, 3), "f4"), uneven, x[:1, :3])


# --- in the interpreter, where every access is checked -----------------------------------------


def small_product(name, m, n, k, add, scaled):
    """A product by packed panels in two blocks of k, and by B itself where the target can."""
    rng = np.random.default_rng(9)
    chosen = TARGETS[name]
    rows, _, lanes = tile = tile_of(chosen, F32)
    a, b, bias = (rng.standard_normal(s).astype("f4") for s in ((m, k), (k, n), n))
    panels = np.full(-(-n // tile.width) * tile.width * k, np.nan, "f4")
    interpret(build_pack(chosen, plain(F32), "rows"), panels, b, 2, 1)
    start = rng.standard_normal((m, n)).astype("f4")
    expected = (a @ b) * (0.5 if scaled else 1) + bias + add * start
    numbers = (0.5,) if scaled else ()
    variant = Variant(plain(F32), "column", scaled)

    def run(kernel, *args):
        out = start.copy()
        interpret(kernel, out, *args, add, *numbers)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)

    for along, given in (("panels", panels), ("panels", b), ("rows", b), ("any", b)):
        steps = (tile.width, tile.width * k, 0) if given is panels else (0, 0, 0)
        if chosen.has_masks or along != "panels" or given is panels:
            kernel = build(chosen, variant._replace(b=along))
            for pack in (0, 1):
                run(kernel, a, given, bias, *steps, rows, tile.width, -(-k // 2), pack)
    if m <= MOST_ROWS:
        run(build_stream(chosen, variant), a, b, bias, 512, -(-k // 2))
    if n >= lanes:
        columns = b.T.copy().T
        for single in (False, True):
            run(build_dot(chosen, variant, single), a, columns, bias, lanes)
        kernel = build(chosen, variant._replace(b="columns"))
        run(kernel, a, columns, bias, 0, 0, 0, rows, tile.width, -(-k // 2), 0)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_stays_inside_its_arrays(name):
    rows = tile_of(TARGETS[name], F32).rows
    small_product(name, rows + 3, 9, 4, 1, True)
    small_product(name, 3, 18, 19, 1, False)
    small_product(name, 1, 40, 3, 0, False)
    small_product(name, 2, 36, 2 * TARGETS[name].lanes(F32) + 3, 0, False)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("along", ["rows", "columns", "any"])
def test_packing_stays_inside(name, along):
    rng = np.random.default_rng(10)
    chosen = TARGETS[name]
    width = tile_of(chosen, F64).width
    for k, n in ((1, 1), (9, width + 3), (5, width)):
        b = rng.standard_normal((2, k, n))
        if along == "columns":
            b = b.swapaxes(1, 2).copy().swapaxes(1, 2)
        if along == "any":
            b = rng.standard_normal((2, 2 * k, 2 * n))[:, ::2, ::2]
        panels = np.full((2, -(-n // width), k, width), np.nan)
        interpret(build_pack(chosen, plain(F64), along, 1), panels.reshape(-1), b, 4, 1)
        expected = np.zeros((2, k, -(-n // width) * width))
        expected[..., :n] = b
        np.testing.assert_array_equal(
            panels, expected.reshape(2, k, -1, width).transpose(0, 2, 1, 3))


def test_transpose_in_registers():
    for element, dtype, lanes in ((F32, "f4", 4), (F32, "f4", 8), (F32, "f4", 16),
                                  (F64, "f8", 2), (F64, "f8", 4), (F64, "f8", 8)):
        k = Kernel("transpose")
        out, x = k.array("out", element), k.array("x", element)
        rows = [k.load(x.ptr, r * lanes, lanes) for r in range(lanes)]
        for r, row in enumerate(transpose(k, rows)):
            k.store(out.ptr, r * lanes, row)
        given = np.arange(lanes * lanes, dtype=dtype).reshape(lanes, lanes)
        made = np.zeros_like(given)
        interpret(k, made.reshape(-1), given.reshape(-1))
        np.testing.assert_array_equal(made, given.T)


@pytest.mark.parametrize("name, registers", [("avx512", "zmm"), ("avx2", "ymm"), ("sse", "xmm")])
def test_the_micro_kernel_stays_in_registers(name, registers):
    """The loop with the most multiplications is a whole tile; no vector goes to the stack."""
    chosen, tile = TARGETS[name], tile_of(TARGETS[name], F32)
    text = assembly(emit(build(chosen, Variant(plain(F32), "column")), chosen), chosen)
    blocks = re.split(r"\n(?=\.LBB)", text)
    inner = max(blocks, key=lambda b: len(re.findall(r"fmadd\w*ps|mulps", b)))
    assert len(re.findall(r"fmadd\w*ps|mulps", inner)) == tile.rows * tile.vectors
    assert registers in inner
    assert not [line for line in inner.splitlines() if "mm" in line and "(%rsp)" in line]


def test_a_block_of_a_fits_its_memory():
    for m, n, k in itertools.product((1, 50, 500, 5000), (64, 5000), (1, 300, 500, 5000)):
        for name in ("float32", "float64", "float16", "complex64", "complex128"):
            found = factors(name, name, name, host())
            problem = Problem(found, (), m, n, k, (n, 1), (4096, 1), (n, 1), False, "", False,
                              found.sum)
            rows, _, block, pack = launcher._plan(problem)
            if pack:
                rows, parts = min(rows, m), found.parts
                need = max(rows * (block * parts + 31), block * (rows * parts + 31))
                assert need * found.element.size <= launcher.A_BLOCK

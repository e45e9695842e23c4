"""Products of complex numbers, narrow floats and integers beside NumPy in wider types.

Half a minute where no kernel is known: there are many.
"""

import itertools
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from lampion.codegen import gemm as launcher
from lampion.codegen.compile import assembly, compile_object
from lampion.codegen.emit import emit
from lampion.codegen.gemm import bmm, gemm
from lampion.codegen.gemm_factors import Factors, factors
from lampion.codegen.gemm_groups import as_groups, build_corrections
from lampion.codegen.gemm_kernel import Variant, build
from lampion.codegen.gemm_pack import build_pack
from lampion.codegen.interpret import interpret, numpy_type
from lampion.codegen.target import TARGETS, host
from lampion.codegen.types import I8, I16, I32, U8
from lampion.debug.knobs import override
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
BF16 = np.dtype(ml_dtypes.bfloat16)
SIZES = [(1, 1, 1), (5, 7, 3), (15, 33, 17), (64, 64, 64), (29, 65, 401), (3, 300, 2),
         (37, 70, 1100), (1, 300, 300), (300, 1, 41)]
LAYOUTS = ["rows", "columns", "steps", "backwards"]
# Of a, b and the result.
DTYPES = [("c8", "c8", "c8"), ("c16", "c16", "c16"), ("f2", "f2", "f2"), ("f2", "f2", "f4"),
          (BF16, BF16, BF16), ("i1", "i1", "i1"), ("i1", "i1", "i4"), ("u1", "u1", "u1"),
          ("u1", "i1", "i4"), ("i2", "i2", "i2"), ("i2", "i2", "i4"), ("i4", "i4", "i4"),
          ("i8", "i8", "i8")]
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def numbers(rng, shape, dtype):
    """Normal numbers; integers of the whole range."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype)


def matrix(rng, rows, columns, layout, dtype):
    """Laid out by rows, by columns, with steps, or backwards."""
    if layout == "columns":
        return numbers(rng, (columns, rows), dtype).T
    if layout == "steps":
        return numbers(rng, (2 * rows, 3 * columns), dtype)[::2, ::3]
    x = numbers(rng, (rows, columns), dtype)
    return x[::-1, ::-1] if layout == "backwards" else x


def wide(x):
    return x.astype({"i": "i8", "u": "i8", "c": "c16"}.get(x.dtype.kind, "f8"))


def check(out, expected, depth, scale=1):
    """Integers modulo their size. Floats: rounded once, summed in the wider type."""
    if out.dtype.kind in "iu":
        np.testing.assert_array_equal(out, expected.astype(out.dtype))
        return
    sums = np.finfo("f8" if out.dtype == "c16" else "f4").eps * (8 + 4 * np.sqrt(depth))
    bound = (sums + ROUNDING.get(out.dtype.name, 0)) * scale
    np.testing.assert_allclose(wide(out), expected, rtol=bound,
                               atol=sums * scale * 2 * np.sqrt(depth + 1))


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_layouts_and_tails(instructions, dtypes):
    rng = np.random.default_rng(0)
    sizes = SIZES if instructions == host().name else SIZES[2::2]
    for turn, ((m, n, k), first) in enumerate(itertools.product(sizes, LAYOUTS)):
        second = LAYOUTS[(turn + turn // 4) % 4]
        a, b = matrix(rng, m, k, first, dtypes[0]), matrix(rng, k, n, second, dtypes[1])
        out = matrix(rng, m, n, "columns" if turn % 5 == 0 else "rows", dtypes[2])
        assert gemm(out, a, b)
        check(out, wide(a) @ wide(b), k)


@pytest.mark.parametrize("dtype", ["c8", "c16", "f2", BF16], ids=str)
def test_bias_alpha_accumulate(dtype):
    rng = np.random.default_rng(1)
    for turn, (m, n, k) in enumerate(SIZES[2:]):
        alpha = 0.25 - 0.5j if np.dtype(dtype).kind == "c" else 0.25
        a, b = (matrix(rng, *s, LAYOUTS[turn % 2], dtype) for s in ((m, k), (k, n)))
        bias, out = numbers(rng, 2 * n, dtype)[::2], matrix(rng, m, n, LAYOUTS[turn % 3], dtype)
        expected = wide(a) @ wide(b) * alpha + wide(bias) + wide(out)
        assert gemm(out, a, b, bias, accumulate=True, alpha=alpha)
        check(out, expected, k, 2)


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_batches(dtypes):
    rng = np.random.default_rng(2)
    for batch in ((5,), (2, 3), (0,)):
        for m, n, k in ((4, 5, 6), (33, 40, 17)):
            a, b = (numbers(rng, (*batch, *s), d) for s, d in zip(((m, k), (n, k)), dtypes))
            out = numbers(rng, (*batch, m, n), dtypes[2])
            assert bmm(out, a, b.swapaxes(-1, -2))
            check(out, wide(a) @ wide(b).swapaxes(-1, -2), k)
            shared = np.broadcast_to(b[:1, ...], b.shape)
            if batch[0] and len(batch) == 1:
                assert bmm(out, a, shared.swapaxes(-1, -2))
                check(out, wide(a) @ wide(shared).swapaxes(-1, -2), k)


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_empty_products(dtypes):
    a, b, result = dtypes
    out = np.ones((3, 4), result)
    assert gemm(out, np.ones((3, 0), a), np.ones((0, 4), b))
    assert (out == 0).all()
    for m, n in ((0, 4), (3, 0), (0, 0)):
        assert gemm(np.ones((m, n), result), np.ones((m, 5), a), np.ones((5, n), b))


@pytest.mark.parametrize("dtype", ["c8", "c16", "f2", BF16], ids=str)
def test_not_finite(dtype):
    rng = np.random.default_rng(3)
    a, b = numbers(rng, (20, 40), dtype), numbers(rng, (40, 50), dtype)
    a[3, 5], b[7, 9], b[8, 49] = np.inf, np.nan, -np.inf
    out = np.empty((20, 50), dtype)
    assert gemm(out, a, b)
    a, b, out = map(wide, (a, b, out))
    with np.errstate(invalid="ignore", over="ignore"):
        expected = [(out, a @ b)] if out.dtype.kind == "f" else [
            (out.real, a.real @ b.real - a.imag @ b.imag),
            (out.imag, a.real @ b.imag + a.imag @ b.real)]
    for got, true in expected:
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(true))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(true))


def test_the_largest_numbers_of_float16():
    """Sums beyond its range are infinite only in the end, and small ones keep their last bits."""
    a = np.full((16, 600), 200, "f2")
    b = np.full((600, 48), 200, "f2")
    b[300:] = -200
    out = np.empty((16, 48), "f2")
    assert gemm(out, a, b) and (out == 0).all()
    assert gemm(out, a, np.abs(b)) and np.isinf(out).all()
    tiny = np.full((600, 48), 2.0**-24, "f2")
    assert gemm(out, np.ones_like(a), tiny)
    np.testing.assert_array_equal(out, np.float16(600 * 2.0**-24))


def test_both_parts_are_as_exact_as_real_products():
    """An imaginary part far below the real one keeps its digits: the bound is part by part."""
    rng = np.random.default_rng(4)
    re, im = rng.standard_normal((64, 300)), rng.standard_normal((64, 300)) * 1e-9
    a, b = (re + 1j * im).astype("c8"), rng.standard_normal((300, 64)).astype("c8")
    out = np.empty((64, 64), "c8")
    assert gemm(out, a, b)
    for part in ("real", "imag"):
        true = getattr(a, part).astype("f8") @ b.real.astype("f8")
        size = np.abs(getattr(a, part)).astype("f8") @ np.abs(b.real).astype("f8")
        assert (np.abs(getattr(out, part) - true) <= size * 300 * 2.0**-24).all()


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_the_same_bits_with_any_number_of_threads(dtypes):
    rng = np.random.default_rng(5)
    a, b = numbers(rng, (200, 700), dtypes[0]), numbers(rng, (150, 700), dtypes[1]).T
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            out = np.empty((200, 150), dtypes[2])
            assert gemm(out, a, b)
            results.append(out.tobytes())
    finally:
        set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", ["c8", "c16", "f2"])
def test_a_large_matrix_is_packed_in_parts(dtype, monkeypatch):
    rng, results = np.random.default_rng(6), []
    a, b = numbers(rng, (50, 300), dtype), numbers(rng, (133, 300), dtype).T
    for most in (1 << 30, 1 << 14):
        monkeypatch.setattr(launcher, "_PACKED", most)
        monkeypatch.setattr(launcher, "_recipes", {})
        out = np.empty((50, 133), dtype)
        assert gemm(out, a, b)
        results.append(out)
    check(results[0], wide(a) @ wide(b), 300)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_few_rows_of_complex_numbers(instructions, dtype):
    """By real products of their parts, in front of a B that is read in order."""
    rng = np.random.default_rng(11)
    for m, (n, k), layout in itertools.product((1, 3, 4), ((130, 101), (97, 233)), LAYOUTS[:2]):
        a, b = matrix(rng, m, k, "steps", dtype), matrix(rng, k, n, layout, dtype)
        out = numbers(rng, (m, n), dtype)
        expected = wide(out) + wide(a) @ wide(b)
        assert gemm(out, a, b, accumulate=True)
        check(out, expected, k, 2)
        assert gemm(out, a, b)
        check(out, wide(a) @ wide(b), k)
        column, x = np.empty((k, 1), dtype), numbers(rng, (n, 1), dtype)
        assert gemm(column, b, x)
        check(column, wide(b) @ wide(x), n)


@pytest.mark.parametrize("dtype", ["c8", "f2", BF16, "i1"], ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_rows_do_not_depend_on_the_others(dtype, layout):
    rng = np.random.default_rng(12)
    a, b = numbers(rng, (70, 1100), dtype), matrix(rng, 1100, 130, layout, dtype)
    with override(invariant_rows=True):
        whole = np.empty((70, 130), dtype)
        assert gemm(whole, a, b)
        for rows in (1, 2, 5, 15, 33):
            part = np.empty((rows, 130), dtype)
            assert gemm(part, a[:rows], b)
            np.testing.assert_array_equal(part, whole[:rows])


def test_a_column_of_any_stride_as_a_matrix():
    """An axis of one element may have any stride, also where blocks of A are copied."""
    for dtype in ("f4", "f2", "c8"):
        source = numbers(np.random.default_rng(7), (40, 1024), dtype)
        a, b = source[:, 3][:, None], numbers(np.random.default_rng(8), (1, 300), dtype)
        out = np.empty((40, 300), dtype)
        assert gemm(out, a, b)
        check(out, wide(a) @ wide(b), 1)


# --- in the interpreter, where every access is checked -----------------------------------------


CHOSEN = {"avx512": replace(TARGETS["avx512"], has_bf16_dot=True, has_i8_dot=True),
          "avx2": TARGETS["avx2"], "sse": TARGETS["sse"], "neon": TARGETS["neon"]}


def variants(name):
    for a, b, result in DTYPES:
        names = [np.dtype(d).name for d in (a, b, result)]
        found = factors(*names, CHOSEN[name])
        assert isinstance(found, Factors)
        yield found, a, b, result


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_stays_inside_its_arrays(name):
    rng, chosen = np.random.default_rng(9), CHOSEN[name]
    for (found, first, second, result), (m, n, k) in zip(
            variants(name), itertools.cycle([(3, 9, 5), (9, 5, 3), (2, 18, 9)])):
        a, b = numbers(rng, (m, k), first), numbers(rng, (k, n), second)
        groups = a if found.members is None else as_groups(a, found.a, found.members[0])
        along = "rows" if found.members is None else "groups"
        kernel = build(chosen, Variant(found, b=along, result=_kind(found, result)))
        out = numbers(rng, (m, n), result)
        bias = None
        if found.is_shifted:
            bias = np.empty(m, "i4")
            for turned in (groups, groups.T.copy().T):
                interpret(build_corrections(chosen, turned.strides[-1] == 4), bias, turned, 2)
                np.testing.assert_array_equal(bias, -128 * wide(a).sum(1))
            kernel = build(chosen, Variant(found, "row", b=along, result=_kind(found, result)))
        interpret(kernel, out, groups, b, bias, 0, 0, 0, 6, 32, 512, 0, 0)
        check(out, wide(a) @ wide(b), k)


def _kind(found, result):
    return next(t for t in (found.sum, found.a, U8, I8, I16, I32) if found.parts == 2
                or numpy_type(t) == result)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("along", ["columns", "any"])
def test_packing_stays_inside(name, along):
    """Complex numbers side by side, transposed and one by one."""
    rng, chosen = np.random.default_rng(10), CHOSEN[name]
    for dtype in ("c8", "c16", "f2"):
        kind = np.dtype(dtype).name
        found = factors(kind, kind, kind, chosen)
        width = chosen.lanes(found.element) * 2 // found.parts
        held = {"c8": "c8", "c16": "c16", "f2": "f4"}[dtype]
        for k, n in ((1, 1), (9, width + 3), (5, width)):
            b = matrix(rng, k, n, "columns" if along == "columns" else "steps", dtype)
            panels = np.full((-(-n // width), k, width), np.nan, held)
            interpret(build_pack(chosen, found, along), panels.reshape(-1), b, 4, 1)
            expected = np.zeros((k, -(-n // width) * width), held)
            expected[:, :n] = b
            np.testing.assert_array_equal(panels, expected.reshape(k, -1, width).transpose(
                1, 0, 2))


def test_compiles_for_neon():
    for found, *_ in variants("neon"):
        along = "any" if found.members is None else "groups"
        for kernel in (build(CHOSEN["neon"], Variant(found, b=along)),
                       build_pack(CHOSEN["neon"], found, along)):
            assert compile_object(emit(kernel, CHOSEN["neon"]), CHOSEN["neon"])


@pytest.mark.parametrize("name, dtype, result, instruction", [
    ("avx512", "int8", "int32", "vpdpbusd"), ("avx2", "int8", "int32", "vpmaddwd"),
    ("sse", "int16", "int16", "pmaddwd"), ("avx512", "bfloat16", "bfloat16", "vdpbf16ps"),
    ("avx2", "float16", "float16", "vcvtph2ps")])
def test_the_instructions_that_are_meant(name, dtype, result, instruction):
    chosen = CHOSEN[name]
    features = chosen.features + ",+avx512bf16,+avx512vnni" * (name == "avx512")
    chosen = replace(chosen, features=features)
    found = factors(dtype, dtype, result, chosen)
    kernel = build(chosen, Variant(found, b="rows" if found.members is None else "groups"))
    assert instruction in assembly(emit(kernel, chosen), chosen)

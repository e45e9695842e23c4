"""Attention kernels against NumPy in float64: forward, backward, masks, layouts, threads."""

import numpy as np
import pytest

from lampion.codegen.attention import (
    LARGEST_HEAD,
    Variant,
    attention_backward,
    attention_forward,
    build_backward,
    build_forward,
)
from lampion.codegen.attention_single import build_single
from lampion.codegen.interpret import interpret
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32
from lampion.debug.knobs import override
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
# batch, heads, shared heads, queries, keys, size, size of values
SHAPES = [(1, 1, 1, 1, 1, 1, 1), (1, 2, 1, 33, 70, 20, 12), (2, 4, 2, 70, 33, 16, 24),
          (1, 2, 2, 7, 5, 3, 5), (1, 3, 3, 130, 129, 64, 64), (2, 1, 1, 64, 64, 32, 32),
          (1, 6, 2, 31, 97, 8, 40)]


def reference(q, k, v, mask, causal, scale, drop, dout):
    """Output and the three gradients in float64."""
    q, k, v, dout = (a.astype(np.float64) for a in (q, k, v, dout))
    group = q.shape[1] // k.shape[1]
    k_all, v_all = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = q @ k_all.swapaxes(-1, -2) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores[..., np.arange(k.shape[2]) > np.arange(q.shape[2])[:, None]] = -np.inf
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    drop = 1.0 if drop is None else drop
    out = (weights * drop) @ v_all
    slopes = dout @ v_all.swapaxes(-1, -2) * drop - (dout * out).sum(-1, keepdims=True)
    slopes = weights * slopes * scale

    def together(x):
        return x.reshape(x.shape[0], -1, group, *x.shape[2:]).sum(2)
    dv = together((weights * drop).swapaxes(-1, -2) @ dout)
    return out, slopes @ k_all, together(slopes.swapaxes(-1, -2) @ q), dv


def problem(shape, dtype="f", seed=0):
    batch, heads, shared, queries, keys, size, value_size = shape
    rng = np.random.default_rng(seed)
    sizes = ((heads, queries, size), (shared, keys, size), (shared, keys, value_size),
             (heads, queries, value_size))
    return rng, [rng.standard_normal((batch, *s)).astype(dtype) for s in sizes]


def mask_of(kind, shape, rng):
    batch, heads, _, queries, keys, *_ = shape
    return {"none": None, "bool": rng.random((queries, keys)) > 0.3,
            "padding": rng.random((batch, 1, 1, keys)) > 0.3,
            "added": rng.standard_normal((batch, heads, queries, keys)).astype("f")}[kind]


def run(q, k, v, dout, mask=None, causal=False, scale=None, drop=None):
    """Output and gradients by the kernels, in arrays that held something else."""
    out = np.full((*q.shape[:3], v.shape[3]), 7, q.dtype)
    lse = np.full(q.shape[:3], 7, q.dtype)
    assert attention_forward(out, lse, q, k, v, mask, causal, scale, drop)
    gradients = [np.full_like(a, 7) for a in (q, k, v)]
    assert attention_backward(*gradients, dout, out, lse, q, k, v, mask, causal, scale, drop)
    return out, *gradients


def check(found, expected, dtype="f"):
    for got, exact in zip(found, expected, strict=True):
        bound = 40 * np.finfo(dtype).eps * max(1.0, np.abs(exact).max())
        np.testing.assert_allclose(got, exact, rtol=0, atol=bound)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, instructions):
    _, arrays = problem(shape)
    for causal in (False, True) if shape[5] < 32 else (True,):
        q, k, v, dout = arrays
        expected = reference(q, k, v, None, causal, q.shape[3] ** -0.5, None, dout)
        check(run(*arrays, causal=causal), expected)


@pytest.mark.parametrize("kind", ["bool", "padding", "added"])
def test_masks(kind, instructions):
    shape = SHAPES[1]
    rng, arrays = problem(shape)
    mask = mask_of(kind, shape, rng)
    check(run(*arrays, mask=mask), reference(*arrays[:3], mask, False, 20**-0.5, None, arrays[3]))


ONE_QUERY = [(1, 2, 2, 1, 1, 16, 16), (2, 4, 2, 1, 300, 64, 32), (1, 1, 1, 1, 513, 32, 128)]


@pytest.mark.parametrize("kind", ["none", "bool", "padding", "added"])
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_one_query(kind, dtype, instructions):
    """A step of generation has a kernel of its own; masks lie as they are read, or do not."""
    for shape in ONE_QUERY:
        rng, arrays = problem(shape, dtype)
        mask = mask_of(kind, shape, rng)
        q, k, v, dout = arrays
        check(run(*arrays, mask=mask),
              reference(q, k, v, mask, False, q.shape[3] ** -0.5, None, dout), dtype)
        if mask is not None:
            turned = np.asfortranarray(mask)
            np.testing.assert_array_equal(run(*arrays, mask=turned)[0], run(*arrays, mask=mask)[0])


def test_one_query_that_may_attend_to_nothing_or_sees_nan():
    _, arrays = problem(ONE_QUERY[1])
    out = run(*arrays, mask=np.zeros((1, 300), bool))[0]
    assert (out == 0).all()
    arrays[1][0, 0, 299, 3] = np.nan
    out = run(*arrays)[0]
    assert np.isnan(out[0, :2]).all() and np.isfinite(out[0, 2:]).all()


def test_one_query_is_a_row_of_many_where_rows_must_not_depend_on_others():
    _, (q, k, v, dout) = problem((1, 2, 2, 3, 70, 16, 16))
    with override(invariant_rows=True):
        whole, part = run(q, k, v, dout)[0], run(q[:, :, 2:], k, v, dout[:, :, 2:])[0]
    np.testing.assert_array_equal(whole[:, :, 2:], part)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("kind", ["none", "padding"])
def test_one_query_stays_inside_its_arrays(name, kind):
    shape = (1, 2, 1, 1, 19, 16, 32)
    rng, (q, k, v, dout) = problem(shape)
    mask = mask_of(kind, shape, rng)
    added = None if mask is None else np.broadcast_to(
        np.where(mask, 0, -np.inf).astype("f"), (1, 2, 1, 19))
    out, lse = np.zeros((1, 2, 1, 32), "f"), np.zeros((1, 2, 1), "f")
    kernel = build_single(TARGETS[name], Variant(F32, 16, 32, False, mask is not None))
    interpret(kernel, out, lse, q, k, v, added, None, 0.25 * np.log2(np.e))
    expected = run(q, k, v, dout, mask)[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_dropped_weights_and_scale():
    shape = SHAPES[2]
    rng, arrays = problem(shape)
    drop = (rng.random((2, 4, 70, 33)) > 0.2).astype("f") / 0.8
    for scale in (0.7, -0.3):
        check(run(*arrays, scale=scale, drop=drop, causal=True),
              reference(*arrays[:3], None, True, scale, drop, arrays[3]))


def test_float64():
    _, arrays = problem(SHAPES[1], "d")
    check(run(*arrays, causal=True),
          reference(*arrays[:3], None, True, 20**-0.5, None, arrays[3]), "d")


def test_heads_may_lie_between_positions():
    """(batch, length, heads, size) in memory, as projections of one product lie."""
    _, arrays = problem(SHAPES[4])
    q, k, v, dout = (np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
                     for a in arrays)
    out = np.empty((1, 130, 3, 64), "f").transpose(0, 2, 1, 3)
    lse = np.empty((1, 3, 130), "f")
    assert attention_forward(out, lse, q, k, v)
    gradients = [np.empty_like(a) for a in (q, k, v)]
    assert attention_backward(*gradients, dout, out, lse, q, k, v)
    check((out, *gradients), reference(q, k, v, None, False, 1 / 8, None, dout))


def test_any_number_of_threads_gives_the_same_bits():
    _, arrays = problem((2, 3, 3, 150, 150, 16, 16))
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            found.append(run(*arrays, causal=True))
    finally:
        set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    _, (q, k, v, dout) = problem((1, 2, 2, 70, 70, 16, 16))
    whole = run(q, k, v, dout)[0]
    part = run(q[:, :, 32:], k, v, dout[:, :, 32:])[0]
    np.testing.assert_array_equal(whole[:, :, 32:], part)


def test_rows_that_may_attend_to_nothing():
    _, arrays = problem(SHAPES[3])
    nothing = np.ones((7, 5), bool)
    nothing[2] = False
    out, dq, *_ = run(*arrays, mask=nothing)
    assert (out[:, :, 2] == 0).all() and (dq[:, :, 2] == 0).all()
    check((out,), reference(*arrays[:3], nothing, False, 3**-0.5, None, arrays[3])[:1])
    lowest = np.where(nothing, 0, np.finfo("f").min).astype("f")
    out = run(*arrays, mask=lowest)[0]
    np.testing.assert_allclose(out[:, :, 2], arrays[2].mean(2), rtol=1e-5, atol=1e-6)


def test_scores_of_any_size():
    """Weights are made of differences to the largest score, so nothing overflows."""
    _, arrays = problem(SHAPES[1])
    arrays[0] *= np.float32(300)
    got = run(*arrays)
    expected = reference(*arrays[:3], None, False, 20**-0.5, None, arrays[3])
    np.testing.assert_allclose(got[0], expected[0], atol=3e-3)


def test_nan_reaches_the_rows_that_see_it():
    _, arrays = problem(SHAPES[5])
    arrays[1][0, 0, 20, 3] = np.nan
    out = run(*arrays, causal=True)[0]
    assert np.isnan(out[0, 0, 20:]).all()
    assert np.isfinite(out[0, 0, :20]).all() and np.isfinite(out[1]).all()


def test_nothing_at_all():
    for shape in ((0, 2, 2, 3, 3, 4, 4), (1, 2, 2, 0, 3, 4, 4), (1, 2, 2, 3, 0, 4, 4)):
        _, arrays = problem(shape)
        for array in run(*arrays):
            assert (array == 0).all()


@pytest.mark.parametrize(("masked", "dropped"), [(False, False), (True, True)])
def test_machine_code_is_what_the_interpreter_says(masked, dropped):
    """The interpreter checks every access against the bounds of the arrays."""
    shape = (1, 2, 1, 5, 3, 3, 2)
    rng, (q, k, v, dout) = problem(shape)
    mask = rng.standard_normal((1, 2, 5, 3)).astype("f") if masked else None
    drop = rng.random((1, 2, 5, 3)).astype("f") if dropped else None
    variant = Variant(F32, 3, 2, True, masked, dropped)
    target = TARGETS["sse"]
    forward, backward = build_forward(target, variant), build_backward(target, variant)
    out, lse = np.zeros((1, 2, 5, 2), "f"), np.zeros((1, 2, 5), "f")
    interpret(forward, out, lse, q, k, v, mask, drop, 0.5 * np.log2(np.e))
    gradients = [np.zeros_like(a) for a in (q, k, v)]
    interpret(backward, *gradients, dout, out, lse, np.zeros_like(lse), q, k, v, mask, drop,
              0.5 * np.log2(np.e), 0.5)
    found = run(q, k, v, dout, mask, True, 0.5, drop)
    check(found, (out, *gradients))
    check(found, reference(q, k, v, mask, True, 0.5, drop, dout))


def test_what_has_no_kernel_is_left_to_the_reference():
    for size, dtype in ((LARGEST_HEAD + 1, "f"), (8, np.float16)):
        _, (q, k, v, _) = problem((1, 1, 1, 4, 4, size, 8), dtype)
        assert not attention_forward(np.empty((1, 1, 4, 8), dtype), np.empty((1, 1, 4), dtype),
                                     q, k, v)
    _, (q, k, v, _) = problem((1, 1, 1, 4, 4, 8, 8))
    assert not attention_forward(np.empty_like(q), np.empty((1, 1, 4), "f"), q[..., ::-1], k, v)


def test_shapes_that_do_not_fit_are_refused():
    _, (q, k, v, dout) = problem((1, 4, 2, 6, 5, 8, 8))
    out, lse = np.empty_like(q), np.empty((1, 4, 6), "f")
    with pytest.raises(ValueError, match="do not fit q"):
        attention_forward(out, lse, q, k[..., :4], v)
    with pytest.raises(ValueError, match="not a multiple"):
        attention_forward(out[:, :3], lse[:, :3], q[:, :3], k, v)
    with pytest.raises(ValueError, match="one dtype"):
        attention_forward(out, lse, q, k, v.astype("d"))
    with pytest.raises(ValueError, match=r"\(batch, heads, length, size\)"):
        attention_forward(out[0], lse, q, k, v)
    with pytest.raises(ValueError, match="dk is float32"):
        attention_backward(q, q, v, dout, out, lse, q, k, v)

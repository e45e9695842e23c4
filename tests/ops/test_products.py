"""Matrix products of every dtype through the public API: kernels, gradients, autocast, programs."""

import numpy as np
import pytest
from references import both
from replaying import replayed

import lampion as torch
from lampion.debug.knobs import override

FLOATS = ["complex64", "complex128", "float16", "bfloat16"]
INTEGERS = ["int8", "uint8", "int16", "int32", "int64"]


@pytest.fixture(autouse=True)
def kernels_at_once():
    with override(kernels="sync"):
        yield


def numbers(*shape, dtype):
    """Normal numbers; integers of the whole range."""
    d = getattr(torch, dtype)
    if dtype in INTEGERS:
        info = np.iinfo(dtype)
        drawn = np.random.default_rng(sum(shape)).integers(info.min, info.max, shape, dtype)
        return torch.from_numpy(drawn)
    x = torch.randn(*shape, dtype=torch.float64)
    return (torch.complex(x, torch.randn_like(x)) if d.is_complex else x).to(d)


CASES = {
    "mm": lambda r: r(33, 65) @ r(47, 65).t(),
    "mm of columns": lambda r: r(65, 33).t() @ r(65, 47),
    "mv": lambda r: r(65, 33).t() @ r(65),
    "mv of rows": lambda r: r(97, 65) @ r(130)[::2],
    "bmm": lambda r: r(5, 33, 17) @ r(5, 17, 40),
    "batches that share": lambda r: r(5, 33, 17) @ r(17, 40),
    "linear": lambda r: torch.nn.functional.linear(r(2, 20, 65), r(40, 65), r(40)),
    "linear without bias": lambda r: torch.nn.functional.linear(r(33, 65), r(40, 65)),
    "addmm": lambda r: torch.addmm(r(33, 40), r(33, 65), r(65, 40), beta=2, alpha=3),
    "addmm of a row": lambda r: torch.addmm(r(40), r(33, 65), r(65, 40)),
    "baddbmm": lambda r: torch.baddbmm(r(5, 33, 40), r(5, 33, 17), r(5, 17, 40), beta=0, alpha=2),
    "einsum": lambda r: torch.einsum("bij,bkj->bik", r(3, 20, 33), r(3, 33, 33)),
}
TOLERANCE = {"complex64": 1e-5, "complex128": 1e-13, "float16": 4e-3, "bfloat16": 3e-2}


def close(expected, got, tolerance):
    for a, b in zip(expected, got, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        wide = torch.complex128 if a.dtype.is_complex else torch.float64
        a, b = a.detach().to(wide), b.detach().to(wide)
        assert float((a - b).abs().max()) <= tolerance * float(a.abs().max())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_floats_by_kernels(name, dtype):
    def run():
        return CASES[name](lambda *shape: numbers(*shape, dtype=dtype))
    expected, got = both(run)
    close([expected], [got], TOLERANCE[dtype])
    torch.manual_seed(0)
    with replayed() as report:
        run()
    by_blas = name.startswith("mv") and dtype.startswith("complex")
    assert bool(report.replayed) != by_blas and not report.in_python


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", CASES)
def test_integers_wrap_around(name, dtype):
    """To the last bit, with sums far beyond the range."""
    def run():
        return CASES[name](lambda *shape: numbers(*shape, dtype=dtype))
    expected, got = both(run)
    assert (expected.dtype, expected.shape) == (got.dtype, got.shape)
    assert torch.equal(expected, got)
    with replayed() as report:
        run()
    assert report.replayed and not report.in_python


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients(dtype):
    def run():
        x, w, b = (numbers(*s, dtype=dtype).requires_grad_() for s in ((40, 65), (33, 65), (33,)))
        z = torch.nn.functional.linear(x, w, b)
        z = torch.addmm(z, z @ w, x.t() @ z, alpha=0.5) if dtype[0] == "c" else z @ w @ x.t()
        (z.abs() * torch.arange(z.shape[1])).mean().backward()
        return [z, x.grad, w.grad, b.grad]
    close(*both(run), 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_autocast(dtype):
    def run():
        layer, x = torch.nn.Linear(65, 40), torch.randn(50, 65)
        with torch.autocast("cpu", getattr(torch, dtype)):
            out = layer(x)
        out.float().pow(2).mean().backward()
        return [out, layer.weight.grad, layer.bias.grad]
    close(*both(run), 2 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_programs_launch_the_same_kernels(dtype):
    def step(x, w):
        return x @ w.t(), torch.bmm(x[None], w.t()[None])
    compiled = torch.compile(step, mode="wait")
    for seed in range(3):
        torch.manual_seed(seed)
        x, w = numbers(40, 65, dtype=dtype), numbers(33 + 0 * seed, 65, dtype=dtype)
        for a, b in zip(step(x, w), compiled(x, w), strict=True):
            assert torch.equal(a, b)
    assert (compiled.programs, compiled.reasons) == (1, [])
    assert "gemm" in str(compiled.explain()) and "Python" not in str(compiled.explain())


def test_a_complex_training_step_as_a_program():
    def made():
        torch.manual_seed(0)
        w = numbers(65, 33, dtype="complex64").requires_grad_()

        def step(x):
            loss = torch.view_as_real(x @ w).pow(2).mean()
            loss.backward()
            with torch.no_grad():
                w.sub_(w.grad, alpha=0.1)
            w.grad = None
            return loss
        return w, step
    (w, plain), (v, other) = made(), made()
    compiled = torch.compile(other, mode="wait")
    for _ in range(4):
        x = numbers(40, 65, dtype="complex64")
        expected, got = plain(x), compiled(x)
        assert torch.allclose(expected, got, rtol=1e-5)
    assert torch.allclose(w, v, rtol=1e-4, atol=1e-5)


# --- int8 into int32 --------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["int8", "uint8"])
def test_products_of_bytes_are_exact(first):
    for m, k, n in ((1, 1, 1), (17, 33, 40), (1, 2000, 5), (64, 64, 64), (70, 4096, 33), (5, 0, 3)):
        a, b = numbers(m, k, dtype=first), numbers(n, k, dtype="int8").t()
        for x, y in ((a, b), (a.t().contiguous().t(), b.contiguous())):
            expected, got = both(lambda x=x, y=y: torch._int_mm(x, y))
            assert got.dtype == torch.int32
            assert torch.equal(got, x.long() @ y.long())
            assert torch.equal(expected, got)


def test_products_of_bytes_in_a_program_and_into_out():
    a, b = numbers(70, 65, dtype="int8"), numbers(40, 65, dtype="int8").t()
    with replayed() as report:
        expected = torch._int_mm(a, b)
    assert report.replayed["_int_mm"] and not report.in_python
    out = torch.empty(70, 40, dtype=torch.int32)
    assert torch._int_mm(a, b, out=out) is out and torch.equal(out, expected)
    assert torch.equal(torch.compile(torch._int_mm, mode="wait")(a, b), expected)


BAD = {
    "bytes without signs": lambda t, i: t._int_mm(i(3, 4), i(4, 5).to(t.uint8)),
    "sizes": lambda t, i: t._int_mm(i(3, 4), i(5, 5)),
    "three axes": lambda t, i: t._int_mm(i(3, 4, 2), i(4, 5)),
    "three axes of the second": lambda t, i: t._int_mm(i(3, 4), i(4, 5, 2)),
    "one axis": lambda t, i: t._int_mm(i(3), i(3, 5)),
    "int32": lambda t, i: t._int_mm(i(3, 3).int(), i(3, 5)),
    "float32": lambda t, i: t._int_mm(i(3, 3).float(), i(3, 5)),
    "out of int64": lambda t, i: t._int_mm(i(3, 3), i(3, 5), out=t.empty(3, 5, dtype=t.int64)),
    "out of another size": lambda t, i: t._int_mm(
        i(3, 3), i(3, 5), out=t.empty(2, dtype=t.int32)),
    "out by columns": lambda t, i: t._int_mm(
        i(3, 3), i(3, 5), out=t.empty(5, 3, dtype=t.int32).t()),
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_that_do_not_fit(name):
    oracle = pytest.importorskip("torch")
    texts = []
    for library in (oracle, torch):
        with pytest.raises(RuntimeError) as error:
            BAD[name](library, lambda *s, t=library: t.ones(s, dtype=t.int8))
        texts.append(str(error.value))
    assert texts[0] == texts[1]

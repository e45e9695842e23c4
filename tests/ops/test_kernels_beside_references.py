"""Every operator that has a kernel gives what its NumPy reference gives, over many layouts."""

import zlib
from pathlib import Path

import numpy as np
import pytest

import lampion as torch
from lampion.codegen.expression import Untraceable
from lampion.codegen.interpret import interpret
from lampion.codegen.nest import build
from lampion.codegen.plan import plan
from lampion.codegen.target import TARGETS, host
from lampion.debug.check import compare
from lampion.debug.knobs import override
from lampion.ops.record import LEAVES

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, 1.0, -1.0]
ATTRIBUTES = {
    "gate": (0.0, 6.0), "hardtanh": (-1.0, 1.0), "threshold": (0.1, 20.0),
    "slope_where_negative": (0.01,), "leaky_relu": (0.01,), "linear_gate": (1 / 6,),
    "outside": (0.5,), "softshrink": (0.5,), "hardshrink": (0.5,), "elu": (1.0, 1.0, 1.0),
    "celu": (1.3,), "gelu": (False,), "softplus": (1.0, 20.0), "sum": ((0,), False),
    "mean": ((1,), True), "prod": ((1,), False), "all": ((1,), False), "any": ((0,), False),
    "amax": ((1,), False), "amin": ((0,), True), "var": ((1,), 1, False),
    "std": ((0,), 1, False), "logsumexp": ((1,), False), "softmax": (1,), "log_softmax": (0,),
    "clamp": (-0.5, 0.7), "native_layer_norm": (1, 1e-5), "rms_norm": (1, 1e-6),
    "mse_loss": ("mean", 0.0), "smooth_l1_loss": ("sum", 1.0), "huber_loss": ("none", 1.0),
    "addcmul": (0.5,), "addcdiv": (0.5,),
}
SHAPES = [(3, 5), (1, 7), (17, 1), (33, 65), (2, 130), (64, 16)]


def layouts(shape, rng, dtype=np.float32):
    """Arrays of one shape that lie differently in memory."""
    rows, columns = shape
    yield rng.standard_normal(shape).astype(dtype)
    yield rng.standard_normal((columns, rows)).astype(dtype).T
    yield rng.standard_normal((rows * 2, columns * 3)).astype(dtype)[::2, ::3]
    yield rng.standard_normal(shape).astype(dtype)[::-1, ::-1]
    yield np.broadcast_to(rng.standard_normal((1, columns)).astype(dtype), shape)


def traceable():
    """Pointwise, reducing and normalising leaves whose arguments we know how to make."""
    found = []
    for leaf in LEAVES.values():
        attrs = ATTRIBUTES.get(leaf.name, ())
        if leaf.launches is None or leaf.takes_list or len(leaf.params) != (
                leaf.n_tensors + len(attrs)):
            continue
        arrays = [np.ones((33, 65), np.float32)] * leaf.n_tensors
        if leaf.name in ("native_layer_norm", "rms_norm"):
            arrays[1:] = [np.ones(65, np.float32)] * (leaf.n_tensors - 1)
        try:
            plan(leaf.name, leaf.kernel, arrays, attrs, not leaf.exact)
        except (Untraceable, TypeError, ValueError, AttributeError, IndexError):
            continue
        found.append(leaf.name)
    return found


NAMES = traceable()


def test_most_pointwise_operators_have_kernels():
    assert len(NAMES) >= 80
    assert {"add", "mul", "exp", "gelu", "relu", "softmax", "native_layer_norm", "sum",
            "mse_loss", "where", "silu", "var"} <= set(NAMES)


def arguments(leaf, shape, pick):
    rng = np.random.default_rng(zlib.crc32(repr((leaf.name, shape)).encode()))
    made = []
    for i in range(leaf.n_tensors):
        choices = list(layouts(shape, rng))
        a = choices[(pick + i) % len(choices)]
        if leaf.name in ("log", "log2", "log10", "sqrt", "rsqrt", "log1p", "pow"):
            a = np.abs(a)
        if i == 0 and a.flags.writeable and leaf.name not in ("var", "std") and pick == 0:
            a.reshape(-1)[:a.size // 2:3][:len(SPECIAL)] = SPECIAL[:len(a.reshape(-1)[
                :a.size // 2:3])]
        if leaf.name == "where" and i == 0:
            a = a > 0
        made.append(a)
    if leaf.name in ("native_layer_norm", "rms_norm"):
        made[1:] = [rng.standard_normal(shape[1]).astype("f") for _ in made[1:]]
    return made


@pytest.mark.parametrize("name", NAMES)
def test_kernel_beside_reference(name):
    leaf, attrs = LEAVES[name], ATTRIBUTES.get(name, ())
    with override(kernels="sync"), np.errstate(all="ignore"):
        for pick, shape in enumerate(SHAPES):
            arrays = arguments(leaf, shape, pick)
            try:
                program = plan(name, leaf.kernel, arrays, attrs, not leaf.exact)
            except Untraceable as why:  # reducing one element gives the argument itself
                assert "result that is an argument" in str(why) and 1 in shape
                continue
            compare(name, arrays, attrs, program(arrays), leaf.kernel(*arrays, *attrs))


@pytest.mark.parametrize("name", ["add", "relu", "exp", "softmax", "native_layer_norm", "sum"])
@pytest.mark.parametrize("target", ["sse", "avx2"])
def test_other_instruction_sets(name, target):
    if host().name not in ("avx512", target):
        pytest.skip(f"{host().name} does not run {target}")
    leaf, attrs = LEAVES[name], ATTRIBUTES.get(name, ())
    with override(kernels="sync", target=target):
        for pick, shape in enumerate(SHAPES[3:5]):
            arrays = arguments(leaf, shape, pick + 1)
            program = plan(name, leaf.kernel, arrays, attrs, not leaf.exact)
            compare(name, arrays, attrs, program(arrays), leaf.kernel(*arrays, *attrs))


@pytest.mark.parametrize("name", ["add", "softmax", "native_layer_norm", "sum", "amax"])
def test_the_interpreter_agrees_and_stays_in_bounds(name):
    leaf, attrs = LEAVES[name], ATTRIBUTES.get(name, ())
    for shape in ((3, 5), (4, 19)):
        for pick in range(4):
            arrays = arguments(leaf, shape, pick + 1)
            program = plan(name, leaf.kernel, arrays, attrs)
            for part, _ in program.parts:
                outs = [o.make() for o in part.outputs]
                for target in ("avx512", "sse"):
                    interpret(build(part.nest, TARGETS[target]), *outs,
                              *[arrays[i] for i in part.takes], *part.numbers, *part.tail)
                    result = outs[0] if program.single else tuple(outs)
                    compare(name, arrays, attrs, result, leaf.kernel(*arrays, *attrs))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_floats_compute_in_float32(dtype):
    with override(kernels="sync"):
        torch.manual_seed(0)
        x = torch.randn(64, 65).to(getattr(torch, dtype))
        with override(kernels="off"):
            expected = torch.nn.functional.gelu(x), x.softmax(-1), x * x
        for want, got in zip(expected, (torch.nn.functional.gelu(x), x.softmax(-1), x * x),
                             strict=True):
            assert got.dtype == want.dtype
            assert torch.allclose(got.float(), want.float(), rtol=1e-2, atol=1e-3)


def test_a_new_size_needs_no_new_kernel():
    from lampion.codegen import service

    with override(kernels="sync"):
        torch.nn.functional.silu(torch.ones(70, 130)).softmax(-1)
        before = len(service.made)
        for n in (71, 97, 300):
            torch.nn.functional.silu(torch.ones(n, 131)).softmax(-1)
        assert len(service.made) == before


def test_another_scalar_needs_no_new_kernel():
    from lampion.codegen import service

    x = torch.ones(100, 100)
    with override(kernels="sync"):
        x * 1.7
        before = len(service.made)
        assert float((x * 3.7)[0, 0]) == np.float32(3.7)
        assert len(service.made) == before


def test_first_calls_are_served_by_the_reference():
    from lampion.codegen import service

    with override(kernels="auto"):
        x = torch.full((123, 77), 0.5)
        first = torch.special.expit(x * 0.123)
        assert service.wait()
        assert torch.allclose(first, torch.special.expit(x * 0.123))


def test_a_seeded_miscompile_is_caught():
    """A kernel that computes something else is found when it runs, and the file repeats it."""
    from lampion.codegen import bodies, service
    from lampion.debug.check import KernelMismatch

    right = bodies.BODIES["negative"]
    service.forget()
    try:
        bodies.BODIES["negative"] = lambda k, kind, a: -a + 1e-3
        with override(kernels="sync", check=True, cache_mb=0):
            x = torch.ones(41, 401)
            torch_leaf = LEAVES["neg"]
            torch_leaf.launches.clear()
            with pytest.raises(KernelMismatch, match="kernel of neg") as info:
                torch.neg(x)
        place = str(info.value).split(" are in ")[1].split(" ")[0]
        with np.load(place) as saved:
            assert np.array_equal(saved["expected"], -saved["argument0"])
            assert not np.array_equal(saved["got"], saved["expected"])
        Path(place).unlink()
    finally:
        bodies.BODIES["negative"] = right
        service.forget()
        LEAVES["neg"].launches.clear()


@pytest.mark.parametrize("shape, dims", [
    ((700, 1001), (0, 1)), ((40000, 7), (0,)), ((500, 7, 103), (0, 2)), ((3, 90001), (1,)),
])
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "any"])
def test_long_reductions_in_windows(name, shape, dims):
    from lampion.codegen.plan import Split

    leaf = LEAVES[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for array in (x, x[::-1], x[..., ::-1]):
        with override(kernels="sync"):
            program = plan(name, leaf.kernel, [array], (dims, True))
            assert any(isinstance(part, Split) for part, _ in program.parts)
            compare(name, [array], (dims, True), program([array]),
                    leaf.kernel(array, dims, True))


def test_results_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    x, w = torch.randn(300, 517), torch.randn(517)
    before = torch.get_num_threads()
    results = []
    try:
        with override(kernels="sync"):
            for n in (1, 2, 3):
                torch.set_num_threads(n)
                y = torch.nn.functional.layer_norm(x, (517,), w)
                results.append([t.numpy().tobytes() for t in (
                    y, y.softmax(-1), y.sum(), y.sum(0), y.mean(1), (y * x).std())])
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_deterministic_programs_wait_for_their_kernels():
    from lampion.debug.knobs import knobs

    with override(kernels="auto"):
        torch.use_deterministic_algorithms(True)
        assert knobs.kernels == "sync"
        torch.use_deterministic_algorithms(False)
        assert knobs.kernels == "auto"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["isnan", "isfinite", "isinf", "signbit", "amax"])
def test_exact_operators_of_narrow_floats(name, dtype):
    x = torch.randn(40, 65).to(getattr(torch, dtype))
    x[3, 5:9] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    with override(kernels="off"):
        expected = getattr(torch, name)(x, *((0,) if name == "amax" else ()))
    with override(kernels="sync"):
        got = getattr(torch, name)(x, *((0,) if name == "amax" else ()))
    assert torch.allclose(got.float(), expected.float(), equal_nan=True)


def test_references_that_compare_a_number_with_a_number():
    index = torch.arange(2000)
    with override(kernels="sync"):
        assert torch.equal(index % 7, torch.tensor([i % 7 for i in range(2000)]))


@pytest.mark.parametrize("name, dtype", [("fmax", "bool"), ("fmin", "bool"), ("neg", "uint8")])
def test_booleans_and_unsigned_integers(name, dtype):
    x = torch.arange(10_000).to(getattr(torch, dtype))
    args = (x,) if name == "neg" else (x, x.flip(0))
    with override(kernels="off"):
        expected = getattr(torch, name)(*args)
    with override(kernels="sync"):
        assert torch.equal(getattr(torch, name)(*args), expected)


def test_gelu_of_infinities():
    x = torch.tensor([-float("inf"), float("inf"), -3e38, 3e38, -0.0, float("nan")] * 500)
    with override(kernels="off"):
        expected = torch.nn.functional.gelu(x)
    with override(kernels="sync"):
        got = torch.nn.functional.gelu(x)
    assert torch.isnan(got[0]) and torch.isnan(expected[0])  # -inf * 0, as in PyTorch
    assert torch.equal(got[1:5], expected[1:5])


@pytest.mark.parametrize("function", [
    lambda x, n: x * n, lambda x, n: x / n, lambda x, n: (x - 3).clamp(min=n),
    lambda x, n: x.masked_fill(x > 0, n), lambda x, n: torch.where(x > 0, n, x),
    lambda x, n: torch.nn.functional.threshold(x, 2.0, n)])
def test_plans_tell_zeros_apart(function):
    x = torch.ones(10_000)
    for number in (0.0, -0.0, float("nan")):
        with override(kernels="off"):
            expected = function(x, number)
        with override(kernels="sync"):
            got = function(x, number)
        assert np.array_equal(got.signbit().numpy(), expected.signbit().numpy())
        assert np.array_equal(got.numpy(), expected.numpy(), equal_nan=True)


def test_plans_tell_integers_floats_and_bools_apart():
    i = torch.arange(10_000)
    with override(kernels="sync"):
        assert [(i + n).dtype for n in (1, 1.0, True)] == [torch.int64, torch.float32, torch.int64]


def test_numbers_that_are_nan_do_not_make_new_plans():
    x = torch.ones(10_000)
    with override(kernels="sync"):
        x * float("nan")
        before = len(LEAVES["mul"].launches)
        for _ in range(3):
            x * float("nan")
        assert len(LEAVES["mul"].launches) == before

"""Values, dtypes and strides of the core operators beside PyTorch's."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
          "float64", "complex64", "complex128"]
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-6, "complex64": 4e-6,
             "float64": 1e-12, "complex128": 1e-12}


def both(values, name: str):
    """The same tensor in lampion and in PyTorch."""
    return (lampion.tensor(values).to(getattr(lampion, name)),
            torch.tensor(values).to(getattr(torch, name)))


def as_numpy(t):
    t = t.detach()
    name = str(t.dtype)
    if name.endswith("bfloat16"):
        t = t.float()
    if name.endswith("complex32"):
        t = t.to(torch.complex64)
    return t.numpy()


def dtype_name(t) -> str:
    """PyTorch has half-precision complex numbers, lampion has not: a known gap."""
    return str(t.dtype).replace("complex32", "complex64")


def assert_same(ours, theirs) -> None:
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
        return
    if not isinstance(theirs, torch.Tensor):
        assert ours == theirs
        return
    assert dtype_name(ours) == dtype_name(theirs)
    assert tuple(ours.shape) == tuple(theirs.shape)
    tol = TOLERANCE.get(str(theirs.dtype).partition(".")[2], 0)
    np.testing.assert_allclose(as_numpy(ours), as_numpy(theirs), rtol=tol, atol=tol)


def outcome(fn):
    """The result, or the type of the exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return fn()
        except Exception as error:
            return type(error)


def compare(ours, theirs) -> None:
    a, b = outcome(ours), outcome(theirs)
    if isinstance(b, type):
        assert isinstance(a, type), f"PyTorch raises {b.__name__}, lampion returned {a}"
        assert issubclass(a, b) or issubclass(b, a)
    else:
        assert not isinstance(a, type), f"lampion raises {a}"
        assert_same(a, b)


VALUES = [[0.0, 1.0, 3.0], [2.0, 5.0, 1.0]]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(DTYPES, DTYPES)))
def test_promotion_of_two_tensors(first: str, second: str) -> None:
    for dims in itertools.product((0, 1), (0, 1)):
        ours = [lampion.ones((2,) * d).to(getattr(lampion, n))
                for n, d in zip((first, second), dims, strict=True)]
        theirs = [torch.ones((2,) * d).to(getattr(torch, n))
                  for n, d in zip((first, second), dims, strict=True)]
        expected = str(torch.result_type(*theirs)).replace("complex32", "complex64")
        assert str(lampion.result_type(*ours)) == expected
        compare(lambda o=ours: o[0] + o[1], lambda t=theirs: t[0] + t[1])


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("number", [True, 2, 2.5, 1 + 2j])
def test_promotion_with_numbers(name: str, number) -> None:
    if name == "float16" and isinstance(number, complex):
        pytest.skip("complex32, which lampion does not have")
    for dims in (0, 1):
        a, b = both(np.ones((3,) * dims).tolist(), name)
        compare(lambda a=a: a + number, lambda b=b: b + number)
        compare(lambda a=a: number * a, lambda b=b: number * b)
        compare(lambda a=a: a / number, lambda b=b: b / number)
        compare(lambda a=a: a < number, lambda b=b: b < number)


BINARY = ["add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum",
          "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "bitwise_and", "bitwise_or",
          "bitwise_xor", "atan2", "fmax", "bitwise_left_shift"]


@pytest.mark.parametrize("fn", BINARY)
@pytest.mark.parametrize("name", DTYPES)
def test_binary(fn: str, name: str) -> None:
    a, b = both(VALUES, name)
    c, d = both([1.0, 2.0, 3.0], name)
    compare(lambda: getattr(lampion, fn)(a, c), lambda: getattr(torch, fn)(b, d))


UNARY = ["abs", "neg", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "floor",
         "ceil", "round", "trunc", "sign", "sgn", "square", "reciprocal", "isnan", "isfinite",
         "isinf", "logical_not", "bitwise_not", "expm1", "log1p", "frac", "signbit", "angle",
         "exp2", "atan", "positive"]


@pytest.mark.parametrize("fn", UNARY)
@pytest.mark.parametrize("name", DTYPES)
def test_unary(fn: str, name: str) -> None:
    a, b = both(VALUES, name)
    compare(lambda: getattr(lampion, fn)(a), lambda: getattr(torch, fn)(b))


REDUCTIONS = ["sum", "mean", "prod", "max", "min", "any", "all", "std", "var", "argmax", "argmin",
              "amax", "amin", "cumsum", "cumprod", "count_nonzero", "median", "sort", "logsumexp",
              "norm", "unique", "nonzero", "nansum", "softmax", "log_softmax", "mode"]


@pytest.mark.parametrize("fn", REDUCTIONS)
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_reduction(fn: str, name: str, dim) -> None:
    a, b = both(VALUES, name)
    args = () if dim is None else (dim,)
    if fn in ("nonzero", "norm", "unique") and dim is not None:
        args = ()
    compare(lambda: getattr(a, fn)(*args), lambda: getattr(b, fn)(*args))


CASTS = [-300.7, -1.5, 0.0, 0.5, 1.99, 127.6, 255.4, 300.2, 70000.0]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(DTYPES, DTYPES)))
def test_casts(source: str, target: str) -> None:
    a, b = both(CASTS, source)
    compare(lambda: a.to(getattr(lampion, target)), lambda: b.to(getattr(torch, target)))


VIEWS = {
    "transpose": lambda x: x.transpose(0, 2), "permute": lambda x: x.permute(1, 2, 0),
    "view": lambda x: x.view(6, 4), "reshape": lambda x: x.reshape(4, -1),
    "slice": lambda x: x[:, 1:, ::2], "select": lambda x: x.select(1, 2), "none": lambda x: x[None],
    "unsqueeze": lambda x: x.unsqueeze(-1), "squeeze": lambda x: x[:1].squeeze(0),
    "expand": lambda x: x[:, :1].expand(2, 3, 4), "narrow": lambda x: x.narrow(2, 1, 2),
    "diagonal": lambda x: x.diagonal(0, 1, 2), "unfold": lambda x: x.unfold(2, 2, 1),
    "as_strided": lambda x: x.as_strided((2, 3), (1, 5), 2), "movedim": lambda x: x.movedim(0, 2),
    "T": lambda x: x[0].T, "mT": lambda x: x.mT, "flatten": lambda x: x.flatten(1),
    "chunk": lambda x: x.chunk(2, 2)[1], "split": lambda x: x.split(2, 1)[0],
    "unbind": lambda x: x.unbind(2)[3], "swapaxes": lambda x: x.swapaxes(0, 1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)), "ellipsis": lambda x: x[..., 1],
    "chain": lambda x: x.transpose(0, 1)[1:, :, ::3].unsqueeze(1).permute(3, 0, 1, 2),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_alias_and_have_pytorch_strides(name: str) -> None:
    data = np.arange(24.0).reshape(2, 3, 4).tolist()
    a, b = both(data, "float32")
    x, y = VIEWS[name](a), VIEWS[name](b)
    assert_same(x, y)
    # Strides of dimensions of size 1 mean nothing.
    assert [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1] == [
        s for s, n in zip(y.stride(), y.shape, strict=True) if n > 1]
    assert x.storage_offset() == y.storage_offset()
    assert x.is_contiguous() == y.is_contiguous()
    if name not in ("expand", "unfold"):
        x.mul_(10)
        y.mul_(10)
        assert_same(a, b)
        assert a._version == b._version == x._version
    a.fill_(-1)
    assert bool((x == -1).all())


INDICES = [
    "x[0]", "x[-1]", "x[1:2]", "x[::2]", "x[:, 1]", "x[..., 0]", "x[None, 1]", "x[1, 2, 3]",
    "x[1, ..., None]", "x[:, None, 1:, ::3]", "x[[0, 1]]", "x[[0, 1], [2, 0]]", "x[:, [0, 2]]",
    "x[[[0, 1], [1, 0]]]", "x[:, [0, 2], [1, 3]]", "x[[0, 1], :, [1, 3]]", "x[0, [0, 2]]",
    "x[..., [0, 3]]", "x[[1, 0], None, [2, 1]]", "x[x > 5]", "x[x[:, :, 0] > 4]",
    "x[:, m.tensor([True, False, True])]", "x[m.tensor([1, 0])]", "x[m.tensor(1)]",
    "x[m.tensor([0, 1]), :, m.tensor([0, 1])]", "x[True]", "x[False]", "x[...]", "x[()]",
    "x[m.tensor([[0], [1]]), m.tensor([0, 2])]", "x[[-1, 0]]", "x[m.tensor([], dtype=m.int64)]",
    "x[0, m.tensor([True, False, True]), 1:3]", "x[:, :, m.tensor(2)]", "x[1:1]", "x[5:]",
    "x[-5:1]", "x[(0, slice(None), [1, 2])]", "x[m.tensor([1, 0], dtype=m.int32)]",
    # errors
    "x[2]", "x[0, 0, 0, 0]", "x[[0, 5]]", "x[1.5]", "x['a']", "x[::-1]", "x[m.tensor([1.0])]",
    "x[m.tensor([True, False, True])]", "x[..., ..., 0]", "x[[0, 1], [0, 1, 2]]",
]


@pytest.mark.parametrize("text", INDICES)
def test_getitem(text: str) -> None:
    a, b = both(np.arange(24.0).reshape(2, 3, 4).tolist(), "float32")
    compare(lambda: eval(text, {"x": a, "m": lampion}), lambda: eval(text, {"x": b, "m": torch}))


@pytest.mark.parametrize("text", INDICES)
@pytest.mark.parametrize("value", ["7.0", "x[:1, :1, :1] * 0 - 1", "m.arange(4.0)"])
def test_setitem(text: str, value: str) -> None:
    a, b = both(np.arange(24.0).reshape(2, 3, 4).tolist(), "float32")

    def assign(x, m):
        exec(f"{text} = {value}", {"x": x, "m": m})
        return x
    compare(lambda: assign(a, lampion), lambda: assign(b, torch))


FACTORIES = [
    "arange(5)", "arange(1, 4)", "arange(0, 1, 0.1)", "arange(5, 1, -2)", "arange(3.0)",
    "arange(0, 5, 2, dtype=m.float64)", "linspace(0, 1, 5)", "linspace(3, -2, 7)",
    "linspace(0, 10, 1)", "linspace(0, 9, 4, dtype=m.int64)", "logspace(0, 2, 3)", "eye(3)",
    "eye(2, 4)", "zeros(2, 3)", "zeros((2, 3), dtype=m.int32)", "ones(())", "full((2,), 3)",
    "full((2,), 1.5)", "full((2,), True)", "full((2, 2), 1j)", "tensor([1, 2])", "tensor(1.5)",
    "tensor([[True], [False]])", "tensor([1, 2.5])", "tensor([])", "tensor([[], []])",
    "tensor(3, dtype=m.uint8)", "tensor([1 + 2j])", "as_tensor([1, 2])", "tril_indices(3, 3)",
    "triu_indices(2, 4, 1)", "Tensor([1, 2])", "FloatTensor([1, 2])", "LongTensor([1, 2])",
    "meshgrid(m.arange(2), m.arange(3), indexing='ij')", "cartesian_prod(m.arange(2), m.arange(2))",
    "zeros_like(m.ones(2, 3).t())", "combinations(m.arange(4), 2)", "scalar_tensor(2)",
    "zeros(-1)", "tensor([[1], [1, 2]])", "tensor(['a'])", "arange(0, 5, 0)", "eye(-1)",
    "full((2,), 'x')", "linspace(0, 1, -1)", "tensor([1, [2]])", "zeros('a')", "arange()",
]


@pytest.mark.parametrize("text", FACTORIES)
def test_factories(text: str) -> None:
    compare(lambda: eval("m." + text, {"m": lampion}), lambda: eval("m." + text, {"m": torch}))


CONTRACTIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)), ("i,i->", (3,), (3,)),
    ("ij->ji", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("...ij,...jk", (2, 2, 3), (3, 2)),
    ("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)), ("i,j,k->ijk", (2,), (3,), (2,)),
    ("ij,ij->", (2, 3), (2, 3)), ("ij,j->i", (2, 3), (3,)), ("ijk->", (2, 2, 2)),
    ("ab,cb,cd->ad", (2, 3), (4, 3), (4, 2)),
]


@pytest.mark.parametrize("case", CONTRACTIONS, ids=lambda c: c[0])
def test_einsum(case) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s) for s in case[1:]]
    assert_same(lampion.einsum(case[0], *map(lampion.from_numpy, arrays)),
                torch.einsum(case[0], *map(torch.from_numpy, arrays)))


def test_grad_fn_names() -> None:
    for text in ["x + 1", "x * 2", "x - x", "x / 2", "-x", "x ** 2", "x.exp()", "x.sum()",
                 "x.mean()", "x @ x", "x.t()", "x[0]", "x[:1]", "x[[0]]", "x.view(4)", "x.relu()",
                 "x.clone()", "x.max()", "x.max(0)[0]", "m.cat([x, x])", "m.stack([x])",
                 "x.double()", "x.softmax(0)", "x.norm()", "x.permute(1, 0)", "x.unsqueeze(0)",
                 "m.nn.functional.linear(x, x, x[0])", "x.clamp(0)", "x.std()", "x.expand(2, 2)",
                 "x.unbind()[0]", "x.split(1)[0]", "m.where(x > 0, x, x)", "x.abs()",
                 "x.sigmoid()"]:
        ours = eval(text, {"x": lampion.ones(2, 2, requires_grad=True), "m": lampion})
        theirs = eval(text, {"x": torch.ones(2, 2, requires_grad=True), "m": torch})
        assert ours.grad_fn.name() == theirs.grad_fn.name(), text

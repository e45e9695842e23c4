"""assert_close and make_tensor beside PyTorch's: same verdict, same message, same elements."""

from __future__ import annotations

import itertools

import pytest

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

VALUES = [0.0, 1.0, 1.0000011, 1.001, -3.5, float("nan"), float("inf"), 6e4]
DTYPES = ["float16", "bfloat16", "float32", "float64", "int32", "complex64"]


def outcome(library, a, b, **options) -> str:
    try:
        library.testing.assert_close(a, b, **options)
    except (AssertionError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "close"


def pair(library, name: str, a, b):
    dtype = getattr(library, name)
    return library.tensor(a).to(dtype), library.tensor(b).to(dtype)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("equal_nan", [False, True])
def test_verdicts_and_messages(name: str, equal_nan: bool) -> None:
    finite = [v for v in VALUES if name != "int32" or abs(v) < 1e9]
    for a, b in itertools.product(finite, repeat=2):
        for values in (([a, 2.0], [b, 2.0]), (a, b)):
            ours = outcome(lampion, *pair(lampion, name, *values), equal_nan=equal_nan)
            theirs = outcome(torch, *pair(torch, name, *values), equal_nan=equal_nan)
            assert ours == theirs, (name, a, b)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(
    [1, 2, 1.0, 1.0 + 1e-9, 2.5, 1 + 1j, None, [1], [1, 2], (1,), {"k": 1}, {"k": 2.0}], repeat=2)))
def test_plain_values(a, b) -> None:
    assert outcome(lampion, a, b) == outcome(torch, a, b)


@pytest.mark.parametrize("name", [
    "bool", "uint8", "int8", "int64", "float16", "bfloat16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("options", [
    {}, {"low": -2, "high": 3}, {"exclude_zero": True}, {"noncontiguous": True}])
def test_make_tensor(name: str, options) -> None:
    made = []
    for library in (lampion, torch):
        library.manual_seed(3)
        t = library.testing.make_tensor(
            (4, 5), dtype=getattr(library, name), device="cpu", **options)
        made.append((t.tolist(), t.stride(), str(t.dtype)))
    assert made[0] == made[1]


@pytest.mark.parametrize("options", [
    {"low": 3, "high": 2}, {"low": float("nan")}, {"noncontiguous": True, "memory_format": "x"}])
def test_make_tensor_refuses(options) -> None:
    for library in (lampion, torch):
        with pytest.raises(ValueError):
            library.testing.make_tensor(2, dtype=library.float32, device="cpu", **options)
    for library in (lampion, torch):
        with pytest.raises(ValueError):
            library.testing.make_tensor(2, dtype=library.int64, device="cpu", requires_grad=True)

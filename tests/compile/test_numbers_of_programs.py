"""Numbers that vary or are read from tensors do in programs what they do eagerly, in every dtype.

What a tensor of the number would round or wrap (16 bits, small integers) is a constant instead.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import lampion as torch

OPERATIONS = {
    "product": lambda x, v: x * v,
    "reversed": lambda x, v: v - x,
    "in place": lambda x, v: x.clone().mul_(v),
    "fill_": lambda x, v: x.clone().fill_(v),
    "alpha": lambda x, v: x.add(x, alpha=v),
    "lerp": lambda x, v: x.lerp(x * 2, v),
    "value": lambda x, v: x.addcmul(x, x, value=v),
    "an item": lambda x, v: _with_item(x.clone(), v),
    "of one element": lambda x, v: x[0] * v,
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32,
          torch.uint8, torch.bool]


def _with_item(x, v):
    x[1] = v
    return x


def outcome(call):
    try:
        with np.errstate(over="ignore"):
            found = call()
    except (RuntimeError, OverflowError, TypeError) as error:
        return type(error).__name__
    return found.dtype, found.tolist()


def test_truth_of_a_fraction():
    assert torch.zeros(2, dtype=torch.bool).fill_(0.1).tolist() == [True, True]
    assert torch.full((2,), float("nan"), dtype=torch.bool).tolist() == [True, True]
    assert torch.full((2,), 0.0, dtype=torch.bool).tolist() == [False, False]


@pytest.mark.filterwarnings("ignore::lampion.compiler.compiled.CompileWarning")
@pytest.mark.parametrize("values", [(0.1, 0.3, 0.7, -1.3, 0.2), (2, 3, 5, 300, -1, 1 << 31)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_numbers_do_what_they_do_eagerly(name, dtype, values):
    operation, box = OPERATIONS[name], SimpleNamespace()
    kind = torch.float64 if isinstance(values[0], float) else torch.int64
    by_attribute = torch.compile(lambda x: operation(x, box.value), mode="wait")
    by_argument = torch.compile(operation, mode="wait")
    by_reading = torch.compile(lambda x, t: operation(x, t.item()), mode="wait")
    x = (torch.arange(6) * 37 % 11 - 3).to(dtype)
    for value in values:
        want = outcome(lambda value=value: operation(x, value))
        box.value, t = value, torch.tensor(value, dtype=kind)
        assert outcome(lambda: by_attribute(x)) == want
        assert outcome(lambda value=value: by_argument(x, value)) == want
        assert outcome(lambda t=t: by_reading(x, t)) == want


WRITES = {
    "fill_": lambda x, t: x.fill_(t),
    "an item": lambda x, t: _with_item(x, t),
    "a window": lambda x, t: x[1:4].copy_(t),
    "all": lambda x, t: x.copy_(t),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WRITES)
def test_one_element_is_written_to_many_of_another_dtype(name, dtype, given, own):
    def write(x, t):
        x = x.clone() if own else x
        WRITES[name](x, t)
        return x + 0 if dtype is not torch.bool else x | x
    compiled, t = torch.compile(write, mode="wait"), torch.tensor(2.75).to(given)
    for _ in range(2):
        x, y = torch.arange(6).to(dtype), torch.arange(6).to(dtype)
        found, want = compiled(x, t), write(y, t)
        assert found.dtype is want.dtype and found.tolist() == want.tolist()
        assert x.tolist() == y.tolist()


@pytest.mark.parametrize("bounds", [{"max": float("nan")}, {"min": float("nan")},
                                    {"min": 1.0, "max": float("nan")}])
def test_bounds_that_are_no_numbers(bounds):
    compiled = torch.compile(lambda x: x.clamp(**bounds) * 2, mode="wait")
    assert compiled(torch.randn(100)).isnan().all()


def test_integers_that_are_read_never_wrap():
    compiled = torch.compile(lambda t: t.item() - 1, mode="wait")
    for value in (5, 7, -(1 << 63), (1 << 62), 8):
        assert compiled(torch.tensor(value)) == value - 1


def test_int_of_a_fraction_has_none():
    compiled = torch.compile(lambda x, t: (x * int(t.item()), x + int(t)), mode="wait")
    for value in (0.4, -1.7, 2.5, 1e30, 3.0):
        product, total = compiled(torch.ones(2), torch.tensor(value))
        assert product.tolist() == [float(np.float32(int(np.float32(value))))] * 2
        assert total.tolist() == (torch.ones(2) + int(np.float32(value))).tolist()

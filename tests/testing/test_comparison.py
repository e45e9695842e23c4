"""assert_close: what passes, what fails, and what the messages say."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
from lampion.testing import assert_allclose, assert_close

T = torch.tensor


@pytest.mark.parametrize(("a", "b"), [
    (T([1.0]), T([1.0 + 1e-6])), (T([1, 2]), T([1, 2])), (T([True]), T([True])),
    ([T([1.0]), 2], (T([1.0]), 2)), ({"a": T(1)}, {"a": T(1)}), (None, None), (True, True),
    (T([], dtype=torch.float32), T([])), (1.0, 1.0 + 1e-8), (np.float64(1), 1.0),
    (np.ones(2), np.ones(2)), (torch.nn.Parameter(T([1.0])), T([1.0])),
    (T([1.0]).to("meta"), T([2.0]).to("meta")),
    (T([1.0], dtype=torch.bfloat16), T([1.008], dtype=torch.bfloat16)),
    (T([float("inf")]), T([float("inf")])),
])
def test_close(a, b) -> None:
    assert_close(a, b)


@pytest.mark.parametrize(("a", "b", "text"), [
    (T([1.0, 2.0]), T([1.0, 3.0]), "Mismatched elements: 1 / 2 (50.0%)\nGreatest absolute "
     "difference: 1.0 at index (1,) (up to 1e-05 allowed)\nGreatest relative difference: "
     "0.3333333432674408 at index (1,) (up to 1.3e-06 allowed)"),
    (T([1, 2]), T([1, 3]), "not equal!\n\nMismatched elements: 1 / 2 (50.0%)\nGreatest absolute "
     "difference: 1 at index (1,)\n"),
    (T([1], dtype=torch.uint8), T([200], dtype=torch.uint8), "difference: 199 at index (0,)"),
    (1, 2, "Scalars are not equal!\n\nExpected 2 but got 1.\nAbsolute difference: 1\n"),
    (1, 1.0, "The (d)types do not match: <class 'int'> != <class 'float'>."),
    (True, False, "Booleans mismatch: True is not False"),
    (T([1]), T([1.0]), "attribute 'dtype' do not match: torch.int64 != torch.float32."),
    (T([1]), T([[1]]), "attribute 'shape' do not match: torch.Size([1]) != torch.Size([1, 1])."),
    ([1], [1, 2], "The length of the sequences mismatch: 1 != 2"),
    ({"a": 1}, {"b": 1}, "Missing keys in the actual mapping: ['b']"),
    ([[1, {"a": T([1])}]], [[1, {"a": T([2])}]], "The failure occurred for item [0][1]['a']"),
    (T([float("nan")]), T([float("nan")]), "Greatest absolute difference: nan at index (0,)"),
    (None, 1, "None mismatch: None is not 1"),
])
def test_not_close(a, b, text) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_close(a, b)
    assert text in str(caught.value)


def test_switches() -> None:
    assert_close(T([1]), T([1.0]), check_dtype=False)
    assert_close(T([float("nan")]), T([float("nan")]), equal_nan=True)
    assert_close(float("nan"), float("nan"), equal_nan=True)
    assert_close(T([1.0]), T([1.5]), rtol=0.5, atol=0)
    square = torch.ones(2, 2)
    assert_close(square, square.t())
    with pytest.raises(AssertionError, match=r"'stride\(\)' do not match"):
        assert_close(square, square.t(), check_stride=True)
    with pytest.raises(AssertionError, match=r"^mine$"):
        assert_close(1, 2, msg="mine")
    with pytest.raises(AssertionError, match=r"^seen: Scalars"):
        assert_close(1, 2, msg=lambda text: "seen: " + text)


@pytest.mark.parametrize(("a", "b"), [
    (T([1.0]), 1.0), ("a", "a"), (object(), object()), (np.ones(1), [1.0]), ({1}, {1})])
def test_unrelated_kinds(a, b) -> None:
    with pytest.raises(TypeError, match="No comparison pair was able to handle"):
        assert_close(a, b)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="but got no atol"):
        assert_close(1, 1, rtol=0)
    with pytest.raises(ValueError, match="atol must be"):
        assert_close(1, 1, rtol=0, atol=-1)
    with pytest.raises(TypeError):
        assert_close(torch.nn.Parameter(T([1.0])), T([1.0]), allow_subclasses=False)


def test_assert_allclose_warns_and_is_wider() -> None:
    with pytest.warns(FutureWarning, match="assert_close"):
        assert_allclose([1.0, 2.0], T([1.0, 2.0001], dtype=torch.float64))

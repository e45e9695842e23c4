"""Comparison of tensors, numbers and containers of them, with messages that say where."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import ops
from ..tensor import Tensor, float32, int64, promote_types

__all__ = ["assert_allclose", "assert_close"]

Message = str | Callable[[str], str] | None

# Relative and absolute tolerance by dtype; exact where a dtype is not listed.
_TOLERANCES = {
    "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7), "complex32": (1e-3, 1e-5), "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}  # fmt: skip
_OLDER_TOLERANCES = {"float16": (1e-3, 1e-3), "float32": (1e-4, 1e-5), "float64": (1e-5, 1e-8)}
_OF_NUMBER = {float: "float64", complex: "complex128"}


class _Rules(NamedTuple):
    """How to compare: the keyword arguments of `assert_close`."""

    allow_subclasses: bool
    rtol: float | None
    atol: float | None
    equal_nan: bool
    device: bool
    dtype: bool
    layout: bool
    stride: bool
    msg: Message

    def tolerances(self, *dtypes: str) -> tuple[float, float]:
        """Those given, or the wider of the defaults of two dtypes."""
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        pairs = [_TOLERANCES.get(name, (0, 0)) for name in dtypes]
        return max(r for r, _ in pairs), max(a for _, a in pairs)

    def fail(self, text: str, path: tuple[Any, ...]) -> NoReturn:
        """Raises AssertionError with `text` and the place in the container."""
        text += _place(path)
        raise AssertionError(self.msg(text) if callable(self.msg) else self.msg or text)


def _place(path: tuple[Any, ...]) -> str:
    if not path:
        return ""
    return "\n\nThe failure occurred for item " + "".join(f"[{key!r}]" for key in path)


def assert_close(
    actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
    atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
    check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
    msg: Message = None,
) -> None:
    """Raises AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Tensors, arrays, numbers, booleans, None, and sequences and mappings of them. Without
    tolerances those of the dtype are used; give both or none. `msg` replaces the message, or is
    a function from the message to another one.

    >>> import lampion as torch
    >>> torch.testing.assert_close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-7]))
    >>> torch.testing.assert_close([1.0], [1.5], msg="not the loss we had")
    Traceback (most recent call last):
    AssertionError: not the loss we had
    """
    _check_both_or_none(rtol, atol)
    rules = _Rules(allow_subclasses, rtol, atol, equal_nan, check_device, check_dtype,
                   check_layout, check_stride, msg)
    _compare(actual, expected, (), rules)


def assert_allclose(
    actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
    equal_nan: bool = True, msg: str = "",
) -> None:
    """The older `assert_close`: compares across dtypes, with wider tolerances. Deprecated."""
    warnings.warn("`torch.testing.assert_allclose()` is deprecated since 1.12: use "
                  "`torch.testing.assert_close()` instead.", FutureWarning, stacklevel=2)
    if not isinstance(actual, Tensor):
        actual = ops.tensor(actual)
    if not isinstance(expected, Tensor):
        expected = ops.tensor(expected, dtype=actual.dtype)
    if rtol is None and atol is None:
        pairs = [_OLDER_TOLERANCES.get(t.dtype.name, (0.0, 0.0)) for t in (actual, expected)]
        rtol, atol = max(r for r, _ in pairs), max(a for _, a in pairs)
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=False,
                 msg=msg or None)


def _check_both_or_none(rtol: float | None, atol: float | None) -> None:
    if (rtol is None) != (atol is None):
        raise ValueError("Both 'rtol' and 'atol' must be either specified or omitted, but got no "
                         f"{'rtol' if rtol is None else 'atol'}.")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be greater than or equal to zero, but got {value}")


# --- by kind of value -----------------------------------------------------------------------------


def _compare(actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules) -> None:
    if _both(_is_sequence, actual, expected):
        _compare_sequences(actual, expected, path, rules)
    elif _both(lambda v: isinstance(v, Mapping), actual, expected):
        _compare_mappings(actual, expected, path, rules)
    elif actual is None or expected is None:
        if actual is not expected:
            rules.fail(f"None mismatch: {actual} is not {expected}", path)
    elif _both(_is_bool, actual, expected):
        if bool(actual) is not bool(expected):
            rules.fail(f"Booleans mismatch: {bool(actual)} is not {bool(expected)}", path)
    elif _both(_is_number, actual, expected):
        _compare_numbers(_plain(actual), _plain(expected), path, rules)
    else:
        _compare_tensors(*_as_tensors(actual, expected, path, rules), path, rules)


def _both(test: Callable[[Any], bool], a: Any, b: Any) -> bool:
    return test(a) and test(b)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, complex, np.number, np.bool_))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _compare_sequences(actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules) -> None:
    if len(actual) != len(expected):
        rules.fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", path)
    for i, (a, e) in enumerate(zip(actual, expected)):
        _compare(a, e, (*path, i), rules)


def _compare_mappings(actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules) -> None:
    missing, extra = expected.keys() - actual.keys(), actual.keys() - expected.keys()
    if missing or extra:
        rules.fail("The keys of the mappings do not match:\n"
                   f"Missing keys in the actual mapping: {sorted(missing, key=str)}\n"
                   f"Additional keys in the actual mapping: {sorted(extra, key=str)}", path)
    for key in actual:
        _compare(actual[key], expected[key], (*path, key), rules)


def _as_tensors(actual: Any, expected: Any, path: tuple[Any, ...],
                rules: _Rules) -> tuple[Tensor, Tensor]:
    related = type(actual) is type(expected) or (rules.allow_subclasses and (
        isinstance(actual, type(expected)) or isinstance(expected, type(actual))))
    if related and _both(lambda v: isinstance(v, (Tensor, np.ndarray)), actual, expected):
        return ops.as_tensor(actual).detach(), ops.as_tensor(expected).detach()
    raise TypeError(f"No comparison pair was able to handle inputs of type {type(actual)} and "
                    f"{type(expected)}.{_place(path)}")


# --- numbers --------------------------------------------------------------------------------------


def _compare_numbers(actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules) -> None:
    if rules.dtype and type(actual) is not type(expected):
        rules.fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.", path)
    rtol, atol = rules.tolerances(*(_OF_NUMBER.get(type(v), "") for v in (actual, expected)))
    if not _is_close(actual, expected, rtol, atol, rules.equal_nan):
        rules.fail(_scalar_report(actual, expected, rtol, atol), path)


def _is_close(actual: Any, expected: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    if actual == expected or (equal_nan and actual != actual and expected != expected):
        return True
    distance = abs(actual - expected)
    return math.isfinite(distance) and distance <= atol + rtol * abs(expected)


def _scalar_report(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    distance = abs(actual - expected)
    relative = distance / abs(expected) if expected != 0 else math.inf
    exact = rtol == atol == 0
    return (f"Scalars are not {'equal' if exact else 'close'}!\n\n"
            f"Expected {expected} but got {actual}.\n"
            f"Absolute difference: {distance}{_allowed(atol, exact)}\n"
            f"Relative difference: {relative}{_allowed(rtol, exact)}")


def _allowed(tolerance: float, exact: bool) -> str:
    return "" if exact else f" (up to {tolerance} allowed)"


# --- tensors --------------------------------------------------------------------------------------


def _compare_tensors(actual: Tensor, expected: Tensor, path: tuple[Any, ...],
                     rules: _Rules) -> None:
    for name, a, e in _attributes(actual, expected, rules):
        if a != e:
            rules.fail(f"The values for attribute '{name}' do not match: {a} != {e}.", path)
    if actual.is_meta or expected.is_meta:
        return
    rtol, atol = rules.tolerances(actual.dtype.name, expected.dtype.name)
    actual, expected = _same_type(actual, expected)
    matches = ops.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=rules.equal_nan)
    if bool(ops.all(matches)):
        return
    if actual.dim() == 0:
        rules.fail(_scalar_report(actual.item(), expected.item(), rtol, atol), path)
    rules.fail(_tensor_report(actual, expected, matches, rtol, atol), path)


def _attributes(actual: Tensor, expected: Tensor, rules: _Rules) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = [("shape", actual.shape, expected.shape)]
    if rules.device:
        found.append(("device", actual.device, expected.device))
    if rules.dtype:
        found.append(("dtype", actual.dtype, expected.dtype))
    if rules.layout:
        found.append(("layout", actual.layout, expected.layout))
    if rules.stride:
        found.append(("stride()", actual.stride(), expected.stride()))
    return found


def _same_type(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common type; integers in int64, where differences cannot wrap around."""
    common = promote_types(actual.dtype, expected.dtype)
    if common.itemsize == 1 and common.is_floating_point:
        common = float32  # no arithmetic on 8 bits
    elif not common.is_floating_point and not common.is_complex:
        common = int64
    return actual.to(common), expected.to(common)


def _tensor_report(actual: Tensor, expected: Tensor, matches: Tensor, rtol: float,
                   atol: float) -> str:
    wrong, total = matches.numel() - int(ops.sum(matches)), matches.numel()
    distance = ops.abs(actual - expected)
    relative = distance / ops.abs(expected)
    exact = rtol == atol == 0
    return (f"Tensor-likes are not {'equal' if exact else 'close'}!\n\n"
            f"Mismatched elements: {wrong} / {total} ({wrong / total:.1%})\n"
            f"{_greatest('absolute', distance, matches, _allowed(atol, exact))}\n"
            f"{_greatest('relative', relative, matches, _allowed(rtol, exact))}")


def _greatest(kind: str, differences: Tensor, matches: Tensor, allowed: str) -> str:
    differences = differences.masked_fill(matches, 0)
    i = int(ops.argmax(differences))
    index = tuple(int(k) for k in np.unravel_index(i, tuple(differences.shape)))
    value = differences.flatten()[i].item()
    return f"Greatest {kind} difference: {value} at index {index}{allowed}"

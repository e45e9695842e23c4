"""LAMPION_CHECK: every kernel's result beside the reference's, and files that repeat a mismatch.

    python -m lampion.debug.check FILE

runs the kernel and the reference again on the arguments of a mismatch, with the same values,
strides and alignment.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import REPLAY

__all__ = ["Case", "KernelMismatch", "Tagged", "compare", "compare_case", "difference", "replay",
           "tolerance"]

# By element type: relative, and as a share of the largest expected value. Sums are taken in
# another order than NumPy's, so the error grows with their length; these bounds hold for the
# sizes that programs use and are far below what a wrong kernel gives.
_TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 4e-3, "bfloat16": 4e-2,
              "complex128": 1e-10, "complex64": 2e-5}


Exactly = Callable[[float], Sequence[Any]]


class KernelMismatch(AssertionError):
    """A kernel's result is not the reference's."""


class Tagged(NamedTuple):
    """A value of a room above: what it is and what it is made of."""

    tag: str
    value: Any


class Case(NamedTuple):
    """What ran: enough to run it again.

    kind: a key of `debug.REPLAY`. arguments: ndarrays, numbers, strings, None, dtypes, tuples
    and `Tagged` values of these.
    """

    kind: str
    name: str
    arguments: tuple[Any, ...]


def tolerance(dtype: np.dtype[Any]) -> float:
    """How far a kernel may be from the reference; 0 for integers and bools."""
    return _TOLERANCE.get(dtype.name, 0.0)


def compare(name: str, arguments: Any, attributes: Any, result: Any, expected: Any) -> None:
    """KernelMismatch, with a file that repeats it, unless an operator's results agree."""
    case = Case("operator", name, (tuple(arguments), tuple(attributes)))
    compare_case(case, _many(result), _many(expected))


def compare_case(case: Case, results: Sequence[Any], expected: Sequence[Any],
                 exactly: Exactly | None = None) -> None:
    """KernelMismatch, with a file that repeats it, unless all results agree.

    exactly: gives the reference's results in float64, for arguments that are changed at random
    by so much, relatively; asked where the two are far apart.
    """
    found = _first_difference(results, expected, exactly)
    if found is not None:
        place = _save(case, results[found[0]], np.asarray(expected[found[0]]))
        raise KernelMismatch(
            f"the kernel of {case.name} differs from its reference: {found[1]}. Arguments and "
            f"both results are in {place} (numpy.load); python -m lampion.debug.check {place} "
            "runs both again; LAMPION_KERNELS=off runs without kernels")


def _first_difference(results: Sequence[Any], expected: Sequence[Any],
                      exactly: Exactly | None) -> tuple[int, str] | None:
    for i, (got, want) in enumerate(zip(results, expected, strict=True)):
        problem = difference(got, np.asarray(want))
        if problem and not (exactly and _is_noise(got, np.asarray(want), i, exactly)):
            return i, problem
    return None


def _is_noise(got: Any, want: Any, which: int, exactly: Exactly) -> bool:
    """Whether a difference is rounding: sums that cancel have few correct digits, or none.

    The kernel may be four times as far from the truth as the reference is, or as far as the truth
    moves when every argument is changed at random by the tolerance.
    """
    near = tolerance(got.dtype)
    truth = exactly(0.0)[which]
    if got.shape != np.shape(truth) or not near:
        return False
    with np.errstate(all="ignore"):
        ours, theirs, moved = (np.abs(_wide(x) - truth).max(initial=0.0)
                               for x in (got, want, np.asarray(exactly(near)[which])))
    return bool(ours <= max(4 * theirs, moved))  # False where one is NaN


def _wide(x: Any) -> Any:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _many(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) else (result,)


def difference(got: Any, want: Any) -> str:
    """How two arrays differ by more than the tolerance; empty where they do not."""
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    near = tolerance(got.dtype)
    with np.errstate(all="ignore"):
        # As wide as the result is: the reference is in float32 where that one overflows.
        a, b = (_wide(x.astype(got.dtype)) if near else x for x in (got, want))
        if not near:
            bad = a != b
        else:
            finite = np.isfinite(b)
            scale = np.abs(b[finite]).max(initial=0.0)
            bad = ~((np.abs(a - b) <= near * (np.abs(b) + scale)) | (a == b) | (
                np.isnan(a) & np.isnan(b)))
    if not bad.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return (f"{int(bad.sum())} of {bad.size} elements, first at {where}: got {got[where]}, "
            f"expected {want[where]}")


# --- files ------------------------------------------------------------------------------------


def _save(case: Case, got: Any, want: Any) -> str:
    handle, place = tempfile.mkstemp(prefix=f"lampion-{case.name.replace(':', '-')}-",
                                     suffix=".npz")
    arrays: list[Any] = []
    text = json.dumps([case.kind, case.name, _pack(case.arguments, arrays)])
    named = {f"argument{i}": a for i, a in enumerate(arrays)}
    with os.fdopen(handle, "wb") as file:
        np.savez(file, allow_pickle=False, got=got, expected=want, case=np.array(text), **named)
    return place


def load(path: str) -> Case:
    """The case that a file repeats."""
    with np.load(path, allow_pickle=False) as file:
        kind, name, arguments = json.loads(str(file["case"]))
        return Case(kind, name, _unpack(arguments, file))


def _pack(value: Any, arrays: list[Any]) -> Any:
    """A value as JSON; arrays go into the list, where they lie in memory is noted."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1, "dtype": value.dtype.name, "strides": value.strides,
                "from": value.ctypes.data % 64}
    if isinstance(value, Tagged):
        return {"tag": value.tag, "value": _pack(value.value, arrays)}
    if isinstance(value, (tuple, list)):
        return [_pack(v, arrays) for v in value]
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": value.dtype.name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"opaque": repr(value)}


def _unpack(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpack(v, file) for v in value)
    if not isinstance(value, dict):
        return value
    if "opaque" in value:
        raise ValueError(f"an argument cannot be made again: {value['opaque']}")
    if "tag" in value:
        return Tagged(value["tag"], _unpack(value["value"], file))
    dtype = _dtype(value["dtype"])
    if "scalar" in value:
        return dtype.type(value["scalar"])
    if "array" in value:
        return _laid_out(file[f"argument{value['array']}"], dtype, value)
    return dtype


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def _laid_out(data: Any, dtype: np.dtype[Any], how: dict[str, Any]) -> Any:
    """An array with these values, strides and alignment."""
    strides = tuple(how["strides"])
    reach = [(n - 1) * s for n, s in zip(data.shape, strides, strict=True)]
    below = -sum(r for r in reach if r < 0)
    size = sum(abs(r) for r in reach) + dtype.itemsize if data.size else 0
    raw = np.zeros(size + 128, np.uint8)
    start = (how["from"] - below - raw.ctypes.data) % 64 + below
    made = np.ndarray(data.shape, dtype, raw.data, start, strides)
    made[...] = data.view(dtype) if data.dtype.kind == "V" else data
    return made


def replay(path: str) -> str:
    """Runs the kernel and the reference of a file again; says what came out.

    Raises KernelMismatch where they still differ, ValueError where the file does not say enough.
    """
    case = load(path)
    results, expected, exactly = REPLAY[case.kind](case.name, case.arguments)
    if results is None:
        return f"{case.name}: no kernel serves these arguments here"
    found = _first_difference(results, expected, exactly)
    if found is not None:
        raise KernelMismatch(f"the kernel of {case.name} differs from its reference: {found[1]}")
    return f"{case.name}: the kernel and its reference agree"


def main(arguments: Sequence[str]) -> int:
    """The command: repeats each file; the status is 1 where one still differs."""
    status = 0
    for path in arguments:
        try:
            print(replay(path))
        except KernelMismatch as error:
            print(error)
            status = 1
    return status


if __name__ == "__main__":
    from lampion.debug import check  # the module that everyone else knows

    raise SystemExit(check.main(sys.argv[1:]))

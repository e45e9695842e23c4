"""Runs a random program in several ways and says where two runs differ."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from programs import Program

from lampion.debug.check import difference, tolerance


class Fact(NamedTuple):
    """What is known of a result or gradient."""

    what: str
    values: Any
    dtype: str
    strides: tuple[int, ...]
    history: str  # requires_grad, the node's name, "shared" for memory of an argument


class Outcome(NamedTuple):
    """What a program gave, or the type of its error."""

    facts: list[Fact]
    error: str = ""


def outcome(program: Program, fw: Any, **change: Any) -> Outcome:
    """Runs it forward and backward."""
    fw.manual_seed(program.seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        tensors = program.tensors(fw, **change)
        try:
            made = program.run(fw, tensors)
            results = list(made) if isinstance(made, (tuple, list)) else [made]
            given = {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
            facts = [_fact(fw, f"result {i}", t, given) for i, t in enumerate(results)]
            _backward(fw, results)
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            return Outcome([], f"{type(error).__name__}: {error}")
        facts += [_fact(fw, f"gradient {i}", t.grad) for i, t in enumerate(tensors)
                  if t.grad is not None]
        facts += [_fact(fw, f"input {i}", t) for i, t in enumerate(tensors)]
    return Outcome(facts)


def _backward(fw: Any, results: list[Any]) -> None:
    total = None
    for r in results:
        if r.requires_grad and r.grad_fn is not None:
            weights = fw.arange(r.numel()).to(r.dtype).reshape(r.shape) % 7 - 2.5
            part = (r * weights).sum()
            total = part if total is None else total + part.to(total.dtype)
    if total is not None:
        total.backward()


def _fact(fw: Any, what: str, t: Any, given: Any = ()) -> Fact:
    history = f"{t.requires_grad} {t.grad_fn.name() if t.grad_fn is not None else None}"
    history += " shared" * (t.numel() > 0 and t.untyped_storage().data_ptr() in given)
    plain = t.detach()
    narrow = plain.dtype == fw.bfloat16
    values = np.array((plain.float() if narrow else plain).numpy())
    return Fact(what, values, str(t.dtype).rpartition(".")[2], tuple(t.stride()), history)


def layout(fact: Fact) -> tuple[int, ...]:
    """Strides that matter: of axes longer than 1, of arrays that are not empty."""
    if not fact.values.size:
        return ()
    return tuple(s for s, n in zip(fact.strides, fact.values.shape) if n > 1)


def disagreement(program: Program, got: Outcome, want: Outcome, fw: Any,
                 strict: bool = True) -> str:
    """How two runs differ by more than rounding; empty where they do not.

    fw: whose run in float64 tells how exact the expected values are. strict: strides and the
    names of nodes are compared, and the words of errors.
    """
    if got.error or want.error:
        same = got.error == want.error if strict else bool(got.error) == bool(want.error)
        return "" if same else f"error {got.error!r}, expected {want.error!r}"
    if [f.what for f in got.facts] != [f.what for f in want.facts]:
        return f"{[f.what for f in got.facts]}, expected {[f.what for f in want.facts]}"
    for i, (a, b) in enumerate(zip(got.facts, want.facts)):
        if a.dtype != b.dtype or (strict and a.history != b.history):
            return f"{a.what}: {a.dtype} {a.history}, expected {b.dtype} {b.history}"
        if a.values.shape != b.values.shape or (
                strict and layout(a) != layout(b)):
            return (f"{a.what}: shape {a.values.shape} strides {a.strides}, expected "
                    f"{b.values.shape} {b.strides}")
        near = tolerance_of(b.dtype)
        problem = difference(a.values, b.values) if near else _exactly(a.values, b.values)
        if problem and not (near and _is_noise(program, a, b, i, near, fw)):
            return f"{a.what} ({b.dtype}): {problem}"
    return ""


def tolerance_of(dtype: str) -> float:
    return 4e-2 if dtype == "bfloat16" else tolerance(np.dtype(dtype))


def _exactly(a: Any, b: Any) -> str:
    return "" if np.array_equal(a, b) else f"{int((a != b).sum())} of {a.size} elements"


def _is_noise(program: Program, got: Fact, want: Fact, place: int, near: float, fw: Any) -> bool:
    """Whether got is as near to the truth as want, or as the rounding of inputs allows."""
    exact = outcome(program, fw, dtype="float64")
    moved = outcome(program, fw, dtype="float64", shake=near)
    if exact.error or moved.error or len(exact.facts) <= place:
        return False
    truth, other = (o.facts[place].values.astype(np.float64) for o in (exact, moved))
    if truth.shape != got.values.shape:
        return False
    a, b = (np.asarray(f.values, np.float64) for f in (got, want))
    same = (np.isfinite(a) == np.isfinite(b)) & ((a == b) | np.isfinite(a) | (a != a) & (b != b))
    if not same.all():
        return False
    with np.errstate(all="ignore"):
        keep = np.isfinite(a) & np.isfinite(truth) & np.isfinite(other)
        ours, theirs, room = (np.abs(np.where(keep, x - truth, 0)).max(initial=0.0)
                              for x in (a, b, other))
        scale = np.abs(np.where(keep, truth, 0)).max(initial=0.0)
    return bool(ours <= max(4 * theirs, 4 * room, near * scale, 64 * _step(want) * _largest(exact)))


def _step(fact: Fact) -> float:
    """The rounding of a number near 1."""
    return 2.0**-7 if fact.dtype == "bfloat16" else float(np.finfo(fact.dtype).eps)


def _largest(run: Outcome) -> float:
    """The largest finite number that a program met: what rounding is relative to."""
    return max(float(np.abs(f.values[np.isfinite(f.values)]).max(initial=0.0))
               for f in run.facts if f.values.dtype.kind == "f")


def identical(one: Outcome, other: Outcome) -> str:
    """What is not the same to the bit."""
    if one.error != other.error:
        return f"{one.error!r} and {other.error!r}"
    for a, b in zip(one.facts, other.facts, strict=True):
        if a.values.tobytes() != b.values.tobytes() or a.strides != b.strides:
            return a.what
    return ""


@contextmanager
def threads(fw: Any, count: int) -> Any:
    before = fw.get_num_threads()
    fw.set_num_threads(count)
    try:
        yield
    finally:
        fw.set_num_threads(before)

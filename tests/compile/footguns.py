"""Foot-guns of compiling: stories that are played eagerly and compiled, and must end the same.

A story is a generator of a file `footguns_*.py`. It gets `compiled`, which makes a function or
module compiled (or leaves it alone), calls it several times with changes in between, and yields
what is to be compared. A comment "# here" marks the line that a reason or an error must name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import inspect
import io
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from what_happened import Served, served, watched


class Expect(NamedTuple):
    """outcome: "compiled" (programs serve every call), "correct" (served in any way), "raises"
    (a RuntimeError that names the marked line). most: programs that may be made, if bounded."""

    outcome: str
    most: int | None = None


def footgun(outcome: str, most: int | None = None) -> Callable[[Any], Any]:
    """Marks a story."""
    def mark(story: Any) -> Any:
        story.expect = Expect(outcome, most)
        return story
    return mark


def stories(module: Any) -> dict[str, Any]:
    return {name: f for name, f in vars(module).items() if hasattr(f, "expect")}


class Played(NamedTuple):
    """What a story has shown: at every yield, and of the same objects once more at its end."""

    shown: list[Any]
    error: BaseException | None
    served: Served


def play(story: Any, library: Any, compiling: bool) -> Played:
    library.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    shown, objects = [], []
    with watched(library) as made, _surroundings() as printed:
        try:
            for thing in story(_compiler(library) if compiling else _unchanged):
                objects.append(thing)
                shown.append((describe(thing), _random_states(library), printed.getvalue()))
            error = None
        except (RuntimeError, IndexError, TypeError, ValueError) as raised:
            error = raised
        shown.append([describe(thing) for thing in objects])
        return Played(shown, error, served(made))


@contextlib.contextmanager
def _surroundings() -> Iterator[io.StringIO]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield printed


def _unchanged(fn: Any = None, **options: Any) -> Any:
    return (lambda f: f) if fn is None else fn


def _compiler(library: Any) -> Any:
    """`library.compile`, which waits for programs where it can: what is tested are they."""
    modes = getattr(getattr(library, "compiler", None), "_MODES", ())

    def compiled(fn: Any = None, **options: Any) -> Any:
        if "wait" in modes and "mode" not in options:
            options["mode"] = "wait"
        if fn is None:
            return lambda f: compiled(f, **options)
        return library.compile(fn, **options)
    return compiled


def _random_states(library: Any) -> Any:
    return (library.get_rng_state().numpy().tobytes(), random.getstate(),
            np.random.get_state()[1].tobytes(), np.random.get_state()[2])


# --- what is seen of an object ---------------------------------------------------------------


class Array(NamedTuple):
    """A tensor, or an array of NumPy. memory: which tensor of the same yield it shares with."""

    kind: str
    dtype: str
    values: Any
    strides: tuple[int, ...] = ()
    history: str = ""
    memory: int = 0
    grad: Any = None


def describe(thing: Any, seen: dict[Any, int] | None = None) -> Any:
    """Plain values that say all that is visible of it."""
    seen = {} if seen is None else seen
    if hasattr(thing, "untyped_storage"):
        return _tensor(thing, seen)
    if isinstance(thing, np.ndarray):
        return Array("ndarray", str(thing.dtype), thing.copy())
    if hasattr(thing, "named_parameters"):
        return _module(thing, seen)
    if isinstance(thing, BaseException):
        return type(thing).__name__, Words(str(thing))
    if isinstance(thing, dict):
        return {str(k): describe(v, seen) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [type(thing).__name__, *(describe(v, seen) for v in thing)]
    if isinstance(thing, set):
        return sorted(map(str, thing))
    if hasattr(thing, "state_dict"):
        return type(thing).__name__, describe(thing.state_dict(), seen)
    return _other(thing, seen)


class Words(str):
    """Text of an error, which differs between libraries."""


def _other(thing: Any, seen: dict[Any, int]) -> Any:
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes, enum.Enum)):
        return type(thing).__name__, thing if not isinstance(thing, enum.Enum) else thing.name
    if dataclasses.is_dataclass(thing) or (hasattr(thing, "__dict__") and not callable(thing)):
        return type(thing).__name__, describe(dict(vars(thing)), seen)
    return type(thing).__name__, str(thing).rpartition(".")[2] if not callable(thing) else ""


def _tensor(t: Any, seen: dict[Any, int]) -> Array:
    plain = t.detach()
    narrow = "float16" in str(t.dtype)  # bfloat16 too
    values = np.array((plain.float() if narrow else plain).numpy())
    where = t.untyped_storage().data_ptr() if t.numel() else id(t)
    strides = tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1)
    node = t.grad_fn.name() if t.grad_fn is not None else None
    history = f"{t.requires_grad} {t.is_leaf} {node}"
    grad = describe(t.grad, seen) if t.is_leaf and t.grad is not None else None
    return Array(type(t).__name__, str(t.dtype).rpartition(".")[2], values,
                 strides if values.size else (), history, seen.setdefault(where, len(seen)), grad)


def _module(m: Any, seen: dict[Any, int]) -> Any:
    names = [(name, type(part).__name__, part.training) for name, part in m.named_modules()]
    tensors = {**dict(m.named_parameters(remove_duplicate=False)), **dict(m.named_buffers())}
    return names, describe(tensors, seen), sorted(m.state_dict())


# --- comparison ------------------------------------------------------------------------------


# Tensors this small are computed by NumPy eagerly and by kernels in programs, which add up in
# another order; normalised batches and gradients that cancel make up to ten times more of it.
TOLERANCE = {"bfloat16": 1e-2, "float16": 1e-3, "float32": 2e-5, "complex64": 2e-5}


def difference(got: Any, want: Any, strict: bool = True, path: str = "") -> str:
    """The first place where two descriptions differ; empty where they are the same.

    strict: layouts, names of nodes and the words of errors are compared, and float32 to 2e-5 of the
    largest element; otherwise, between libraries, to 1e-4.
    """
    if isinstance(want, Array) and isinstance(got, Array):
        return _array_difference(got, want, strict, path)
    if isinstance(want, Words) and not strict:
        return ""
    if isinstance(want, dict) and isinstance(got, dict):
        if list(got) != list(want):
            return f"{path}: {list(got)}, expected {list(want)}"
        return _first(difference(got[k], want[k], strict, f"{path}.{k}") for k in want)
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        if len(got) != len(want):
            return f"{path}: {len(got)} parts, expected {len(want)}: {got}, {want}"
        return _first(difference(g, w, strict, f"{path}[{i}]")
                      for i, (g, w) in enumerate(zip(got, want, strict=True)))
    if isinstance(want, float) and isinstance(got, float):
        near = abs(got - want) <= (2e-5 if strict else 1e-4) * max(abs(want), 1e-3)
        return "" if near or got == want or (got != got and want != want) else (
            f"{path}: {got!r}, expected {want!r}")
    return "" if type(got) is type(want) and got == want else f"{path}: {got!r}, expected {want!r}"


def _first(found: Iterator[str]) -> str:
    return next((text for text in found if text), "")


def _array_difference(got: Array, want: Array, strict: bool, path: str) -> str:
    if got.values.shape != want.values.shape:
        return f"{path}: shape {got.values.shape}, expected {want.values.shape}"
    if got.values.size and not _near(got.values, want.values, want.dtype, strict):
        return f"{path}: {got.values}, expected {want.values}"
    found = difference(got.grad, want.grad, strict, f"{path}.grad")
    for field in ("kind", "dtype", *(("strides", "history") if strict else ()), "memory"):
        if getattr(got, field) != getattr(want, field):
            found = found or (f"{path}: {field} {getattr(got, field)}, expected "
                              f"{getattr(want, field)}")
    return found


def _near(got: Any, want: Any, dtype: str, strict: bool) -> bool:
    if want.dtype.kind not in "fc":
        return np.array_equal(got, want)
    finite = np.isfinite(want)
    if not np.array_equal(np.where(finite, 0, got), np.where(finite, 0, want), equal_nan=True):
        return False
    scale = np.abs(want[finite]).max(initial=1e-3)  # below, differences are noise
    bound = TOLERANCE.get(dtype, 1e-12) * (1 if strict else 5)
    return bool(np.abs(got[finite] - want[finite]).max(initial=0) <= bound * scale)


def marked_lines(story: Any) -> list[str]:
    """`file.py:line` of the lines marked "# here"."""
    lines, first = inspect.getsourcelines(story)
    file = Path(inspect.getsourcefile(story)).name
    return [f"{file}:{first + i}" for i, line in enumerate(lines)
            if line.rstrip().endswith("# here")]

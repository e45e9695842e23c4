"""LAMPION_CHECK: kernels of operators, gradient rules and updates beside what they stand for.

Each check also says how its case is run again from a file (`debug/check.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..debug.check import Case, Tagged, compare_case
from ..debug.knobs import override
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.dtype import DTYPES, FLOAT, dtype, float64
from ..tensor.tensor import Tensor, wrap

__all__ = ["check_gradient", "check_operator", "repeat", "run_update"]

Both = tuple[Any, Any, Any]  # of kernel and reference, and what gives the reference's in float64

_lock = threading.RLock()


@contextmanager
def _without_kernels() -> Iterator[None]:
    token = enter(IGNORE)
    try:
        with _lock, override(kernels="off"):
            yield
    finally:
        leave(token)


# --- operators --------------------------------------------------------------------------------


def check_operator(leaf: Any, arrays: Sequence[Any], attrs: tuple[Any, ...], result: Any) -> None:
    """The result of an operator's kernel."""
    case = Case("operator", leaf.name, (tuple(arrays), _boxed(attrs)))
    compare_case(case, _many(result), _reference(leaf, arrays, attrs),
                 lambda shake: _reference(leaf, _precise(arrays, shake), attrs))


def _precise(arrays: Sequence[Any], shake: float) -> list[Any]:
    """Arrays of floats and complex numbers in double precision, changed at random by so much."""
    rng = np.random.default_rng(0)
    return [a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
            * (1 + shake * rng.uniform(-1, 1, a.shape))
            if isinstance(a, np.ndarray) and a.dtype.kind in "fVc" else a for a in arrays]


def _reference(leaf: Any, arrays: Sequence[Any], attrs: Sequence[Any]) -> Sequence[Any]:
    with _without_kernels():
        wide = [_widened(a, leaf) for a in arrays]
        return _many(leaf.kernel(wide, *attrs) if leaf.takes_list else leaf.kernel(*wide, *attrs))


def _many(result: Any) -> Sequence[Any]:
    return result if result.__class__ is tuple else (result,)


def _widened(a: Any, leaf: Any) -> Any:
    narrow = isinstance(a, np.ndarray) and a.dtype.kind in "fV" and a.dtype.itemsize < 4
    return a.astype(np.float32) if narrow and not leaf.exact else a


def _repeat_operator(name: str, arguments: tuple[Any, ...]) -> Both:
    from .native import launch, launch_list
    from .record import LEAVES

    leaf, arrays, attrs = LEAVES[name], list(arguments[0]), _unboxed(arguments[1])
    result = (launch_list if leaf.takes_list else launch)(leaf, arrays, attrs)
    return (None if result is None else _many(result), _reference(leaf, arrays, attrs),
            lambda shake: _reference(leaf, _precise(arrays, shake), attrs))


# --- gradient rules ---------------------------------------------------------------------------


def check_gradient(fused: Any, args: tuple[Any, ...], result: Any) -> None:
    """The result of a gradient rule's kernel beside the rule, run as it is written."""
    case = Case("gradient", _rule_name(fused), _boxed(args))
    compare_case(case, _arrays(result), _ruled(fused.rule, args),
                 lambda shake: _ruled(fused.rule, _precise_tensors(args, shake)))


def _ruled(rule: Any, args: tuple[Any, ...]) -> list[Any]:
    with _without_kernels():
        return _arrays(rule(*args))


def _precise_tensors(value: Any, shake: float) -> Any:
    """Tensors of floats as `_precise` makes arrays."""
    if isinstance(value, Tensor) and value._dtype.kind == FLOAT:
        return wrap(_precise([value._a], shake)[0], float64)
    is_tuple = value.__class__ is tuple
    return tuple(_precise_tensors(v, shake) for v in value) if is_tuple else value


def _rule_name(fused: Any) -> str:
    """The operator, the input whose gradient the rule gives (`*`: all), the shape it is summed to.

    Such as `mul:other:3x1`.
    """
    from .record import LEAVES

    leaf = LEAVES[fused.name]
    name = "*" if leaf.joint else next(p for p, r in leaf.grads.items() if r is fused.whole)
    shape = "" if fused.shape is None else ":" + "x".join(map(str, fused.shape))
    return f"{fused.name}:{name}{shape}"


def _arrays(result: Any) -> list[Any]:
    """A gradient may stand for many equal elements: each is compared as it is."""
    return [t._a for t in _many(result) if t is not None]


def _repeat_gradient(name: str, arguments: tuple[Any, ...]) -> Both:
    from .native import FusedRule
    from .record import LEAVES

    operator, which, *sizes = name.split(":")
    leaf = LEAVES[operator]
    rule = leaf.grads if which == "*" else leaf.grads[which]
    shape = tuple(int(n) for n in sizes[0].split("x") if n) if sizes else None
    fused, args = FusedRule(operator, rule, shape), _unboxed(arguments)
    result = fused.launch(args)
    return (None if result is None else _arrays(result[0]), _ruled(fused.rule, args),
            lambda shake: _ruled(fused.rule, _precise_tensors(args, shake)))


# --- updates of optimizers --------------------------------------------------------------------


def run_update(update: Any, plan: Any, arrays: Sequence[Any], scalars: Any, negate: bool) -> bool:
    """Runs an update by its kernel and beside it by NumPy, on copies; False without a kernel."""
    before = tuple(np.array(a, order="K") for a in arrays)
    done: bool = plan(arrays, scalars.raw)
    if done:
        case = Case("update", update.name, (before, tuple(scalars.raw), negate))
        compare_case(case, arrays, _updated(update, before, scalars, negate),
                     lambda shake: _updated(update, _precise(before, shake), scalars, negate))
    return done


def _updated(update: Any, before: Sequence[Any], scalars: Any, negate: bool) -> list[Any]:
    from .optimize import update_arrays

    copies = [np.array(a, order="K") for a in before]
    with _without_kernels():
        update_arrays(update, copies, scalars, negate=negate)
    return copies


def _repeat_update(name: str, arguments: tuple[Any, ...]) -> Both:
    from .native import launch_update
    from .optimize import UPDATES, Scalars

    before, raw, negate = arguments
    update, scalars = UPDATES[name], Scalars(raw, before[0].dtype)
    expected = _updated(update, before, scalars, negate)
    kept = [np.array(a) for a in before]
    done = launch_update(update, before, scalars, negate)
    return (before if done else None, expected,
            lambda shake: _updated(update, _precise(kept, shake), scalars, negate))


# --- files ------------------------------------------------------------------------------------

_REPEAT = {"operator": _repeat_operator, "gradient": _repeat_gradient, "update": _repeat_update}


def repeat(kind: str, name: str, arguments: tuple[Any, ...]) -> Both:
    """Both results of a case from a file, the kernel's None where there is none."""
    before, state.grad = state.grad, False
    try:
        with _lock, override(kernels="sync", check=False):
            return _REPEAT[kind](name, arguments)
    finally:
        state.grad = before


def _boxed(value: Any) -> Any:
    """Tensors and dtypes as what a file can hold."""
    if isinstance(value, Tensor):
        return Tagged("tensor", (value._a, value._dtype.name))
    if isinstance(value, dtype):
        return Tagged("dtype", value.name)
    return tuple(map(_boxed, value)) if isinstance(value, (tuple, list)) else value


def _unboxed(value: Any) -> Any:
    if isinstance(value, Tagged):
        if value.tag == "dtype":
            return DTYPES[value.value]
        array, name = value.value
        return wrap(array, DTYPES[name])
    return tuple(map(_unboxed, value)) if isinstance(value, tuple) else value

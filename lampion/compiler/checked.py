"""compile(checked=True): every call eagerly and compiled, side by side.

Results, parameters, buffers, gradients, optimizer state and the random stream are compared after
each call; the eager ones stay. At a difference the program's operators are run one by one against
their references, and the first kernel that is beyond its bound is written to a file that repeats
it alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..capture.program import apply_eagerly
from ..debug.check import Case, compare_case, difference
from ..debug.knobs import override
from ..graph.interpret import interpret
from ..ops.generator import default_generator
from ..passes.arrays import launch_body
from ..passes.fused import Fused
from ..passes.reference import run_body
from ..tensor.tensor import Tensor, wrap
from .inputs import tensor_of
from .program import Program
from .trace import Leaves, flatten

__all__ = ["ProgramMismatch", "run_checked"]


class ProgramMismatch(AssertionError):
    """A program's effects or results are not those of the eager run."""


class _State:
    """Everything that a call may change, as it is now."""

    def __init__(self, program: Program, arguments: Sequence[Tensor]) -> None:
        captured = program.captured
        self.tensors: dict[str, Tensor] = {}
        for source, name in zip(captured.sources, captured.graph.names, strict=True):
            if source.kind in ("tensor", "argument"):
                self.tensors[name] = tensor_of(source, arguments)
        for source in (*captured.dropped, *(s for s, _ in captured.grads)):
            t = tensor_of(source, arguments)
            self.tensors.setdefault(f"tensor{id(t)}", t)
        self.arrays = {n: t._a.copy("K") for n, t in self.tensors.items()}
        self.grads = {n: (t._grad, None if t._grad is None else t._grad._a.copy("K"))
                      for n, t in self.tensors.items()}
        self.counts = [(c, c._a.copy()) for u in captured.updates for c in u.counts]
        self.schedulers = [(s, copy.deepcopy(s.state_dict()), [dict(g) for g in
                            s.optimizer.param_groups]) for s, _ in captured.after]
        self.scalers = [(s.scaler, s.scaler.state_dict(), dict(s.scaler._stages),
                         dict(s.scaler._found_inf)) for s in captured.scalings]
        self.counters = [(table, name, table[name]) for table, name, _ in captured.counts]
        self.take_back = captured.effects.saved()
        self.random = default_generator.get_state()

    def restore(self) -> None:
        """Makes all as it was."""
        for name, t in self.tensors.items():
            t._a[...] = self.arrays[name]
            grad, array = self.grads[name]
            t._grad = grad
            if grad is not None:
                grad._a[...] = array
        for count, was in self.counts:
            count._a[...] = was
        for table, name, was in self.counters:
            table[name] = was
        self.take_back()
        for scaler, was, stages, found in self.scalers:
            scaler.load_state_dict(was)
            for table, entries in ((scaler._stages, stages), (scaler._found_inf, found)):
                table.clear()
                table.update(entries)
        for scheduler, state, groups in self.schedulers:
            scheduler.load_state_dict(state)
            for group, was in zip(scheduler.optimizer.param_groups, groups, strict=True):
                group.update(was)
        default_generator.set_state(self.random)

    def against(self, other: _State, before: _State) -> str:
        """Where this state differs from the eager one; empty if nowhere."""
        noise = _NOISE * max((_largest(g) for _, g in other.grads.values()), default=0.0)
        longest = max((_moved(a, before.arrays[n]) for n, a in other.arrays.items()), default=0.0)
        for name, a in self.arrays.items():
            grad = other.grads[name][1]
            vague = grad is None or _largest(grad) <= noise
            step = longest if vague else _moved(other.arrays[name], before.arrays[name])
            problem = _moved_difference(a, other.arrays[name], step * (2 if vague else _OF_A_STEP))
            problem = problem or _grad_difference(self.grads[name][1], grad, noise)
            if problem:
                return f"{name}: {problem}"
        for (_, a), (_, b) in zip(self.counts, other.counts, strict=True):
            if a != b:
                return f"a step count: {a}, expected {b}"
        for (s, a, _), (_, b, _) in zip(self.schedulers, other.schedulers, strict=True):
            if repr(a) != repr(b):
                return f"{type(s).__name__}: {a}, expected {b}"
        for (_, a, *rest), (_, b, *others) in zip(self.scalers, other.scalers, strict=True):
            if (a, rest) != (b, others):
                return f"GradScaler: {a}, expected {b}"
        if not np.array_equal(self.random._a, other.random._a):
            return "the random stream is at another place"
        return ""


# Adam and its like divide by the size of the gradient, so where that is next to nothing a step of
# full length follows from its rounding: so much of the largest step of a tensor may differ. Where
# the whole gradient is rounding (of a bias before a batch norm) or is not there to look at, it may
# be the longest step of all, there and back.
_OF_A_STEP = 0.01
_NOISE = 2e-5  # of the largest gradient: sums that cancel are of this size


def _moved(now: Any, before: Any) -> float:
    """How far a call has moved a tensor."""
    if now.dtype.kind != "f":
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(np.abs(now - before)).max(initial=0.0))


def _moved_difference(got: Any, want: Any, allowed: float) -> str:
    """How a tensor that was written to differs by more than it may."""
    problem = difference(got, want)
    if not problem or want.dtype.kind != "f" or not want.size:
        return problem
    with np.errstate(all="ignore"):
        return "" if np.abs(got - want).max() <= allowed else problem


def _largest(a: Any) -> float:
    return 0.0 if a is None else float(np.abs(a).max(initial=0.0))


def _grad_difference(got: Any, want: Any, noise: float) -> str:
    if (got is None) != (want is None):
        return f"a gradient of {'None' if got is None else got.shape}, expected " + (
            "None" if want is None else str(want.shape))
    if got is None or (got.shape == want.shape and _largest(got - want) <= noise):
        return ""
    problem = difference(got, want)
    return f"the gradient: {problem}" if problem else ""


def run_checked(function: Any, program: Program, leaves: Leaves, numbers: list[float], args: Any,
                kwargs: Any) -> Any:
    """The eager result; ProgramMismatch or KernelMismatch where the program gives another."""
    before = _State(program, leaves.tensors)
    compiled = program.run(leaves.tensors, numbers)
    ours = _State(program, leaves.tensors)
    before.restore()
    result = function(*args, **kwargs)
    theirs = _State(program, leaves.tensors)
    problem = ours.against(theirs, before) or _result_difference(compiled, result)
    if problem:
        before.restore()
        _blame(program, leaves.tensors, numbers)
        raise ProgramMismatch(
            f"{program.captured.graph.name} compiled differs from its eager run: {problem}. Every "
            "kernel for itself agrees with its reference, so the program that lampion made of "
            "them is at fault: please report it, with this function")
    return result


def _result_difference(got: Any, want: Any) -> str:
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    flatten(got, ours)
    flatten(want, theirs)
    if len(ours) != len(theirs):
        return f"a result with {len(ours)} tensors, expected {len(theirs)}"
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if problem := difference(np.asarray(getattr(a, "_a", a)), np.asarray(getattr(b, "_a", b))):
            return f"tensor {i} of the result: {problem}"
    return ""


def _blame(program: Program, arguments: Sequence[Tensor], numbers: list[float]) -> None:
    """KernelMismatch, with its file, if some kernel differs from its reference on its own."""
    values = [wrap(tensor_of(s, arguments)._a.copy("K")) for s in program.captured.sources]
    made = program.native.executable
    with override(check=True, kernels="sync"):
        interpret(program.captured.graph, values, apply_eagerly, numbers)
        if made is not None:
            interpret(made.graph, values, _fused_or_eager, numbers)


def _fused_or_eager(op: Any, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
    """A group's kernel beside its references; other operators eagerly."""
    if not isinstance(op, Fused):
        return apply_eagerly(op, args, attrs)
    wanted = op(*args, *attrs)
    arrays = [t._a for t in args]
    found = launch_body(op.body, arrays, attrs, [None] * len(wanted), True)

    def exactly(shake: float) -> Sequence[Any]:
        return run_body(op.body, [_precise(a, shake) for a in arrays], attrs)
    if found is not None:
        operators = " ".join(c.op.name for c in op.body.calls)
        case = Case("operator", f"the group {operators}", (tuple(arrays), tuple(attrs)))
        compare_case(case, found, [t._a for t in wanted], exactly)
    return wanted


def _precise(a: Any, shake: float) -> Any:
    """An array in float64, changed at random by so much."""
    if a.dtype.kind != "f":
        return a
    wide = a.astype(np.float64)
    return wide * (1 + shake * np.random.default_rng(0).uniform(-1, 1, a.shape)) if shake else wide

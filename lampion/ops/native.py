"""Where operators meet kernels: launches of single operators and of whole gradient rules.

A leaf's NumPy reference is traced into one kernel (`codegen/plan.py`); a gradient rule, written
in public operators, is run once on symbols and becomes one kernel too. Launches are found by the
shapes, strides and dtypes of the arguments. What cannot be traced stays with the reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import LEAST
from ..debug import REPLAY
from ..debug.kernels import REASONS, planning
from ..debug.knobs import knobs
from ..runtime.recording import PLAIN, recording, recording_here
from ..tensor.abstract import AbstractArray, AbstractOperand
from ..tensor.tensor import Tensor, wrap

__all__ = ["LEAST", "OFTEN", "SINGLE", "TEMPLATES", "FusedRule", "Launcher", "calls_left",
           "explained", "launch", "launch_list", "launch_update", "pays_when_small", "renamed",
           "template", "update_plan"]

SINGLE = 8192  # the same for one pass of a NumPy function, which is hard to beat when small
_MOST_PLANS = 1 << 14  # of the whole program; then the oldest goes
OFTEN = 100  # calls on small arrays, after which a kernel for those is considered
_SELDOM = 16  # calls for which no plan is made: that takes as long as some tens of small calls
_LARGE, _TWICE = 1 << 14, 2  # elements from which the first call gets one; calls, for fewer
_PASSES = 3  # of NumPy, which take longer than a launch however small the arrays are
_MOST_FAILURES = 8  # shapes of one operator that no kernel can serve; then none is tried
_ndarray = np.ndarray

Launcher = Callable[..., Any]
TEMPLATES: dict[str, Launcher] = {}  # by operator
QUICK: set[str] = set()  # templates that are quicker than their references for any size


def template(name: str, quick: bool = False) -> Callable[[Launcher], Launcher]:
    """Declares the launcher of an operator whose kernel is no plain loop nest.

    It takes the arguments of the reference and returns its result, or None where the reference
    must serve. quick: it takes less time than that on small arrays too.
    """
    def add(function: Launcher) -> Launcher:
        TEMPLATES[name] = function
        if quick:
            QUICK.add(name)
        return function
    return add


def launch(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    """The result of an operator by its kernel; None where the reference must serve."""
    if knobs.kernels == "off":
        return None
    special = TEMPLATES.get(leaf.name)
    if special is None:
        into = state.into
        result = (_by_plan(leaf, arrays, attrs) if into is None or leaf not in into[0]
                  else _written_at_once(leaf, arrays, attrs, into[1]))
    elif recording() is None:
        result = special(*arrays, *attrs)
    else:
        result = explained(leaf, special, arrays, attrs)
    if knobs.check and result is not None and recording_here() is None:
        from .checked import check_operator

        check_operator(leaf, arrays, attrs, result)
    return result


def launch_list(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    """`launch` of an operator on a list of arrays."""
    special = TEMPLATES.get(leaf.name)
    if special is None or knobs.kernels == "off" or sum(a.size for a in arrays) < SINGLE:
        return None
    result = special(arrays, *attrs)
    if knobs.check and result is not None and recording_here() is None:
        from .checked import check_operator

        check_operator(leaf, arrays, attrs, result)
    return result


def explained(leaf: Any, special: Launcher, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    """A launch that may be recorded: an index that turns out bad is told by the reference."""
    here = recording_here()
    if here is None or leaf.takes_list:
        return special(arrays, *attrs) if leaf.takes_list else special(*arrays, *attrs)
    places = [a for a in arrays if a.__class__ is _ndarray]

    def told(*given: Any) -> None:
        found = iter(given)
        again = [next(found) if a.__class__ is _ndarray else a for a in arrays]
        leaf.kernel(*again, *_refilled(attrs, found))
    with here.explain(told, [*places, *(t._a for t in _tensors_in(attrs))]):
        return special(*arrays, *attrs)


def _tensors_in(value: Any) -> list[Tensor]:
    """Tensors among attributes, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [t for x in value for t in _tensors_in(x)] if isinstance(value, (tuple, list)) else []


def _refilled(value: Any, found: Iterator[Any]) -> Any:
    """Attributes with tensors of other arrays, in the same order."""
    if isinstance(value, Tensor):
        return wrap(next(found), value._dtype)
    if isinstance(value, (tuple, list)):
        return tuple(_refilled(x, found) for x in value)
    return value


def _by_plan(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    """By a kernel made of the reference."""
    plan = _find(leaf, arrays, attrs)
    return None if plan is None else plan(arrays)


def _written_at_once(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...], target: Any) -> Any:
    """The result in the memory of an argument, where each element follows from its own place."""
    state.into = None  # for this call alone
    if any(a is not target and a.__class__ is _ndarray and np.may_share_memory(a, target)
           for a in arrays):
        return _by_plan(leaf, arrays, attrs)
    key = ("into", tuple([_number(a) for a in attrs]), *[_facts(a) for a in (target, *arrays)])
    plan = leaf.launches.get(key, leaf)
    if plan is leaf:
        plan = _remember(leaf.launches, key, _make_plan(leaf, arrays, attrs, target))
    if plan is None:
        return _by_plan(leaf, arrays, attrs)
    found = plan.parts[0][0].run(arrays, [target])
    return None if found is None else target


def _find(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...], seldom: bool = True) -> Any:
    """The plan for these arguments; None where there is none, or while small ones are seldom."""
    try:
        key = (tuple([_number(a) for a in attrs]), *[_facts(a) for a in arrays])
        plan = leaf.launches.get(key, 0)
    except TypeError:  # attributes that hold tensors or lists
        return None
    if plan.__class__ is not int:
        return plan
    if seldom and _is_seldom(leaf.launches, key, plan, arrays):
        return None
    return _plan(leaf, arrays, attrs, key)


def _is_seldom(table: dict[Any, Any], key: Any, met: int, arrays: Iterable[Any]) -> bool:
    """Whether arguments of such sizes were met too few times, which is counted, for a plan."""
    if met >= _SELDOM or knobs.kernels == "sync" or recording_here() is not None:
        return False
    size = max([a.size for a in arrays if a.__class__ is _ndarray], default=0)
    if size >= _LARGE or (size >= LEAST and met >= _TWICE):
        return False
    if met:
        table[key] = met + 1
    else:
        _remember(table, key, 1)
    return True


def _is_barren(table: dict[Any, Any]) -> bool:
    """Whether no plan could be made for any arguments."""
    return all(plan is None or plan.__class__ is int for plan in table.values())


def calls_left(before: int) -> int:
    """Calls on small arrays until kernels for those are considered; waiting for kernels, none."""
    return 0 if knobs.kernels == "sync" else before - 1


def pays_when_small(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> bool:
    """Whether an operator's kernel is quicker than its reference on small arrays too."""
    if leaf.launches is None or knobs.kernels == "off":
        return False
    if leaf.name in TEMPLATES:
        return leaf.name in QUICK
    plan = _find(leaf, arrays, attrs, seldom=False)
    return plan is not None and plan.operations >= _PASSES


def _facts(a: Any) -> Any:
    """What a plan depends on."""
    if a.__class__ is _ndarray:
        return a.shape, a.strides, a.dtype.num
    return float if a.__class__ is float and a not in PLAIN else _number(a)


def _number(a: Any) -> Any:
    """A key for anything but arrays: 1, 1.0 and True are equal, and so are 0.0 and -0.0."""
    if a.__class__ is float and (not a or a != a):
        return str(a)
    return a.__class__, a


def _plan(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...], key: Any) -> Any:
    if any(isinstance(a, Tensor) for a in attrs):
        leaf.launches = None  # index tensors change; operators that take them have templates
        return None
    made = _make_plan(leaf, arrays, attrs)
    _remember(leaf.launches, key, made)
    if made is None:
        leaf.failures += 1
        if leaf.failures >= _MOST_FAILURES and _is_barren(leaf.launches):
            leaf.launches = None
    return made


def _remember(table: dict[Any, Any], key: Any, plan: Any) -> Any:
    """Keeps a plan for arguments like these; the oldest of all goes when there are too many."""
    table[key] = plan
    _oldest.append((table, key))
    if len(_oldest) > _MOST_PLANS:
        other, old = _oldest.popleft()
        other.pop(old, None)
    return plan


_oldest: deque[tuple[dict[Any, Any], Any]] = deque()


def _make_plan(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...], into: Any = None) -> Any:
    from ..codegen import service
    from ..codegen.plan import Untraceable, plan

    if not service.available():
        return None
    try:
        with planning():
            return plan(leaf.name, leaf.kernel, arrays, attrs, not leaf.exact, into)
    except (Untraceable, AbstractOperand) as error:
        REASONS[leaf.name] = str(error)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        REASONS[leaf.name] = f"its reference needs an array: {error}"
    return None


# --- updates of optimizers --------------------------------------------------------------------


def launch_update(update: Any, arrays: Any, scalars: Any, negate: bool) -> bool:
    """Runs an optimizer's update on its arrays as one kernel; False where it cannot."""
    plan = update_plan(update, arrays, scalars, negate)
    if plan is None:
        return False
    if knobs.check and recording_here() is None:
        from .checked import run_update

        return run_update(update, plan, arrays, scalars, negate)
    return plan(arrays, scalars.raw)


def update_plan(update: Any, arrays: Any, scalars: Any, negate: bool) -> Any:
    """What launches an optimizer's update on arrays of these layouts: plan(arrays, numbers)."""
    if knobs.kernels == "off":
        return None
    key = (negate, scalars.key, *[(a.shape, a.strides, a.dtype.num) for a in arrays])
    plan = update.launches.get(key, update)
    if plan is update:
        plan = _remember(update.launches, key, _update_plan(update, arrays, scalars, negate))
    return plan


def _update_plan(update: Any, arrays: Any, scalars: Any, negate: bool) -> Any:
    from ..codegen import service
    from ..codegen.plan import Untraceable

    if not service.available():
        return None
    try:
        with planning():
            return _UpdatePlan(update, arrays, scalars, negate)
    except (Untraceable, TypeError) as error:
        REASONS[update.name] = str(error)
        return None


class _UpdatePlan:
    """A kernel that writes into some of its arguments."""

    __slots__ = ("plan", "written")

    def __init__(self, update: Any, arrays: Any, scalars: Any, negate: bool) -> None:
        from ..codegen.expression import Trace
        from ..codegen.plan import assemble, symbols_of

        trace = Trace()
        symbols, narrow = symbols_of(trace, [*arrays, *scalars.raw], True, baked=False)
        before = [s.node for s in symbols[:len(arrays)]]
        p, g, *rest = symbols
        with np.errstate(all="ignore"):
            update.body(np, p, -g if negate else g, *rest)
        self.written = [i for i, (s, node) in enumerate(zip(symbols, before, strict=False))
                        if s.node is not node]
        roots = [symbols[i] if narrow is None else symbols[i].astype(narrow)
                 for i in self.written]
        program = assemble(update.name, trace, roots, arrays, False,
                           into=[arrays[i] for i in self.written])
        (self.plan, _), = program.parts

    def __call__(self, arrays: Any, numbers: Any) -> bool:
        return self.plan.run([*arrays, *numbers], [arrays[i] for i in self.written]) is not None


# --- gradient rules ---------------------------------------------------------------------------


class FusedRule:
    """A gradient rule that runs as one kernel where it can."""

    __slots__ = ("failures", "least", "name", "plans", "rule", "shape", "small", "summed", "whole")

    def __init__(self, name: str, rule: Any, shape: tuple[int, ...] | None = None) -> None:
        """shape: what the rule's result is summed to; None: it is taken as it is."""
        self.name, self.whole, self.shape = name, rule, shape
        self.rule = rule if shape is None else _summed(rule, shape)
        self.plans: dict[Any, Any] | None = {}
        self.summed: dict[Any, FusedRule] = {}
        self.failures = 0
        self.least = LEAST  # elements from which a kernel may pay
        self.small = OFTEN  # calls until smaller ones are considered

    def to(self, shape: tuple[int, ...]) -> FusedRule:
        """The rule with its result summed to the shape of an operand that was broadcast."""
        found = self.summed.get(shape)
        if found is None:
            found = _remember(self.summed, shape, FusedRule(self.name, self.whole, shape))
        found.least = self.least
        return found

    def suits(self, size: int, args: tuple[Any, ...]) -> bool:
        """Whether a kernel may pay for a gradient of so many elements."""
        return not 1 < size < self.least or (self.small > 0 and self._suits_small(args))

    def _suits_small(self, args: tuple[Any, ...]) -> bool:
        """As `Leaf.suits_small`."""
        self.small = calls_left(self.small)
        if not self.small and self.plans is not None and not state.grad and (
                knobs.kernels != "off" and _worth(args, 1)):
            plan = self._find(args, seldom=False)
            if plan is not None and plan.program.operations >= _PASSES:
                self.least = 1
        return self.least == 1

    def __call__(self, *args: Any) -> Any:
        result = self.launch(args)
        return self.rule(*args) if result is None else result[0]

    def launch(self, args: tuple[Any, ...]) -> Any:
        """A list with the rule's result by its kernel; None where the rule must run itself."""
        if self.plans is None or state.grad or knobs.kernels == "off" or not (
                _worth(args, self.least) or (self.small and self._suits_small(args))):
            return None
        plan = self._find(args)
        result = None if plan is None else plan(args)
        if knobs.check and result is not None and recording_here() is None:
            from .checked import check_gradient

            check_gradient(self, args, result[0])
        return result

    def _find(self, args: tuple[Any, ...], seldom: bool = True) -> Any:
        """As the function `_find`."""
        assert self.plans is not None
        try:
            key = tuple([_rule_facts(a) for a in args])
            plan = self.plans.get(key, 0)
        except TypeError:
            return None
        if plan.__class__ is not int:
            return plan
        if seldom and _is_seldom(self.plans, key, plan, (
                t._a for t in _flat(args) if isinstance(t, Tensor))):
            return None
        return self._plan(args, key)

    def _plan(self, args: tuple[Any, ...], key: Any) -> Any:
        assert self.plans is not None
        plan = _rule_plan(self.name, self.rule, args)
        if plan is not None and plan.program.operations <= 1:
            self.plans = None  # one operator, which needs no plan for each of its numbers
            return None
        _remember(self.plans, key, plan)
        if plan is None:
            self.failures += 1
            if self.failures >= _MOST_FAILURES and _is_barren(self.plans):
                self.plans = None
        return plan


def _summed(rule: Any, shape: tuple[int, ...]) -> Any:
    def summed(*args: Any) -> Any:
        result = rule(*args)
        return None if result is None else result.sum_to_size(shape)
    return summed


def _worth(args: tuple[Any, ...], least: int) -> bool:
    """Whether all arrays have data (those of a capture have none) and one is large enough."""
    large = False
    for a in args:
        for t in a if a.__class__ is tuple else (a,):
            if isinstance(t, Tensor):
                if t._a.__class__ is not _ndarray:
                    return False
                large = large or t._a.size >= least
    return large


def _rule_facts(a: Any) -> Any:
    if isinstance(a, Tensor):
        return a._a.shape, a._a.strides, a._a.dtype.num
    if a.__class__ is tuple:
        return tuple([_rule_facts(x) for x in a])
    return _number(a)


def _rule_plan(name: str, rule: Any, args: tuple[Any, ...]) -> Any:
    from ..codegen import service

    if not service.available():
        return None
    try:
        with planning():
            return _RulePlan(name, rule, args)
    except Exception as error:  # what a rule does that symbols cannot: it runs as it is written
        REASONS[name + "_backward"] = str(error)
        return None


class _RulePlan:
    """One kernel (or a few) for a rule, and how its results follow from them."""

    __slots__ = ("many", "program", "results", "tensors")

    def __init__(self, name: str, rule: Any, args: tuple[Any, ...]) -> None:
        from ..codegen.expression import Trace
        from ..codegen.plan import assemble

        trace = Trace()
        recorder = _SymbolRecorder(trace)
        self.tensors = [t for t in _flat(args) if isinstance(t, Tensor)]
        arrays = [t._a for t in self.tensors]
        stand_ins = iter([recorder.stand_in(t, i) for i, t in enumerate(self.tensors)])
        result = rule(*_replaced(args, stand_ins))
        self.many = result.__class__ is tuple
        self.results: list[Any] = []
        roots: list[Any] = []
        for r in result if self.many else (result,):
            self.results.append(self._place(r, recorder, roots))
        if not roots:
            raise NotImplementedError("nothing to compute")
        self.program = assemble(name + "_backward", trace, roots, arrays, False)
        self.tensors = []

    def _place(self, r: Any, recorder: _SymbolRecorder, roots: list[Any]) -> Any:
        """None, ("same", argument) or ("made", output, dtype)."""
        if r is None:
            return None
        symbol = recorder.symbol(r)
        if symbol.node.op == "input":
            place = recorder.trace.places[symbol.node.attr]
            if r._a.shape != self.tensors[place]._a.shape:
                raise NotImplementedError("a view, which costs nothing as it is written")
            return "same", place
        roots.append(symbol)
        return "made", len(roots) - 1, r._dtype

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """A list with the rule's result; None as long as a kernel is missing."""
        tensors = [t for t in _flat(args) if isinstance(t, Tensor)]
        found = self.program([t._a for t in tensors])
        if found is None:
            return None
        results = [None if r is None else tensors[r[1]] if r[0] == "same"
                   else wrap(found[r[1]], r[2]) for r in self.results]
        return [tuple(results)] if self.many else results


def _flat(args: Any) -> Any:
    for a in args:
        if a.__class__ is tuple:
            yield from _flat(a)
        else:
            yield a


def _replaced(args: tuple[Any, ...], stand_ins: Any) -> tuple[Any, ...]:
    return tuple(_replaced(a, stand_ins) if a.__class__ is tuple else
                 next(stand_ins) if isinstance(a, Tensor) else a for a in args)


class _SymbolRecorder:
    """Runs operators on symbols: tensors hold arrays without data whose value is a symbol."""

    level = 0

    def __init__(self, trace: Any) -> None:
        self.trace = trace

    def stand_in(self, t: Tensor, place: int) -> Tensor:
        a = t._a
        symbol = self.trace.input(a, place)
        return wrap(AbstractArray(a.shape, a.dtype, recorder=self, value=symbol), t._dtype)

    def symbol(self, t: Any) -> Any:
        """The symbol behind a tensor; a real tensor of one element is a constant."""
        if not isinstance(t, Tensor):
            return t
        if t._a.__class__ is AbstractArray:
            return t._a.value
        if t._a.size != 1:
            raise NotImplementedError("a tensor from outside the rule")
        return t._a.reshape(())[()]

    def note(self, leaf: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...],
             outs: list[Tensor], many: bool) -> None:
        """Called by the operators: `outs = leaf(*tensors, *attrs)`, be it one tensor or a tuple."""
        symbols = [self.symbol(t) for t in tensors]
        if leaf.view:
            results = (renamed(leaf.name, symbols[0], attrs, outs[0]._a.shape),)
        else:
            results = self._results(leaf, symbols, attrs)
        for o, r in zip(outs, results, strict=True):
            if r.dtype != o._a.dtype:  # narrow floats are computed in float32
                r = r.astype(o._a.dtype)
            if r.shape != o._a.shape:
                raise NotImplementedError("a shape that differs from the shape rule's")
            o._a.recorder, o._a.value = self, r

    def _results(self, leaf: Any, symbols: list[Any], attrs: tuple[Any, ...]) -> Any:
        from ..codegen.plan import traced

        if not leaf.exact:
            symbols = [s.astype(np.float32) if hasattr(s, "node") and s.dtype.itemsize < 4
                       and s.node.kind.is_float else s for s in symbols]
        result = leaf.kernel(symbols, *attrs) if leaf.takes_list else traced(
            leaf.name, leaf.kernel, symbols, attrs)
        return result if result.__class__ is tuple else (result,)


def renamed(name: str, symbol: Any, attrs: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """Views of a symbol that only rename its axes, cut them or take them together."""
    if name == "expand":
        return np.broadcast_to(symbol, shape)
    if name in ("view", "unsqueeze", "squeeze", "alias"):
        return symbol.reshape(shape)
    order = list(range(symbol.ndim))
    if name == "permute":
        return symbol.transpose(tuple(d % symbol.ndim for d in attrs[0]))
    if name not in ("t", "transpose"):
        raise NotImplementedError(f"the view {name}")
    a, b = (0, -1) if name == "t" else attrs
    order[a], order[b] = order[b], order[a]
    return symbol.transpose(tuple(order))


# --- files of LAMPION_CHECK -------------------------------------------------------------------


def _repeat(kind: str) -> Callable[[str, tuple[Any, ...]], tuple[Any, Any, Any]]:
    def again(name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        from .checked import repeat

        return repeat(kind, name, arguments)
    return again


REPLAY.update({kind: _repeat(kind) for kind in ("operator", "gradient", "update")})

"""Every launch of a program once more: recorded, and replayed with other values.

Within `replayed()` each operator, gradient rule and update that runs as kernels is recorded on
arrays without values, replayed with values of a third kind, then with other values of the same
layout, and compared to the bit with the launch on those.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from unittest import mock

import numpy as np

from lampion.codegen.stream import Recording, recording_here
from lampion.ops import native, optimize, record
from lampion.tensor.tensor import Tensor, wrap


class Report:
    """What was replayed and what was left to Python, by name."""

    def __init__(self):
        self.replayed, self.in_python = Counter(), Counter()


def other(a, turn):
    """An array of the same layout with the same elements in another order."""
    if not a.size:
        return a
    low, high = np.lib.array_utils.byte_bounds(a)
    held = np.empty(high - low, np.uint8)
    made = np.ndarray(a.shape, a.dtype, held, a.__array_interface__["data"][0] - low, a.strides)
    distinct = tuple(slice(None, 1 if s == 0 else None) for s in a.strides)
    values = a[distinct]
    if turn == 0:
        made[distinct] = values
    else:
        made[distinct] = np.roll(values.reshape(-1), turn * 7).reshape(values.shape)
    return made


def arrays_in(value):
    """The arrays of arguments, those of tensors and in lists too."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Tensor):
        return arrays_in(value._a)
    if isinstance(value, (list, tuple)):
        return [a for v in value for a in arrays_in(v)]
    return []


def with_arrays(value, arrays):
    """The arguments with other arrays, from an iterator, in the places of theirs."""
    if isinstance(value, np.ndarray):
        return next(arrays)
    if isinstance(value, Tensor):
        return wrap(with_arrays(value._a, arrays), value._dtype)
    if isinstance(value, (list, tuple)):
        return type(value)([with_arrays(v, arrays) for v in value])
    return value


def bits(a):
    return np.ascontiguousarray(a).tobytes()


def replay(report, name, launch, args):
    """`launch(*args)` gives the arrays that it computes, or None."""
    given = arrays_in(args)
    sets = [[other(a, turn) for a in given] for turn in (1, 2)]
    expected = launch(*with_arrays(args, iter([np.array(a, order="K") if not a.size else other(
        a, 0) for a in sets[0]])))
    if expected is None:
        return
    with Recording() as r:
        planned = [r.input(a) for a in given]
        results = r.attempt(lambda: launch(*with_arrays(args, iter(planned))))
        if results is None:
            report.in_python[name] += 1
            return
        stream = r.finish(results)
    constants = [a for step in stream._steps for a in step.kept]
    before = [bits(a) for a in constants]
    for turn in (1, 0):
        got = stream([other(a, 0) for a in sets[turn]])
    for a, b in zip(expected, got, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert bits(a) == bits(b), f"{name} replayed differs from {name} launched"
    assert before == [bits(a) for a in constants], f"{name} writes into a constant"
    report.replayed[name] += 1


def _operator(report, original):
    def launch(leaf, arrays, attrs):
        result = original(leaf, arrays, attrs)
        if result is not None and recording_here() is None:
            def once(arrays, attrs):
                found = original(leaf, arrays, attrs)
                return None if found is None else list(found) if isinstance(
                    found, tuple) else [found]
            replay(report, leaf.name, once, (arrays, attrs))
        return result
    return launch


def _rule(report, original):
    def launch(self, args):
        result = original(self, args)
        if result is not None and recording_here() is None:
            def once(*args):
                found = original(self, args)
                return None if found is None else arrays_in(found)
            replay(report, self.name + "_backward", once, args)
        return result
    return launch


def _update(report, original):
    def launch(update, arrays, scalars, negate):
        if recording_here() is None:
            def once(arrays):
                done = original(update, arrays, scalars, negate)
                return list(arrays) if done else None
            replay(report, update.name, once, (list(arrays),))
        return original(update, arrays, scalars, negate)
    return launch


@contextmanager
def replayed():
    report = Report()
    operator, several = _operator(report, native.launch), _operator(report, native.launch_list)
    with mock.patch.object(record, "launch", operator), \
            mock.patch.object(record, "launch_list", several), \
            mock.patch.object(native.FusedRule, "launch", _rule(
                report, native.FusedRule.launch)), \
            mock.patch.object(optimize, "launch_update", _update(
                report, native.launch_update)):
        yield report

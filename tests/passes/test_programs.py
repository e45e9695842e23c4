"""Compiled graphs beside their interpretation: values, writes, layout, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from common_graphs import FUNCTIONS, MODELS, captured, r, training

import lampion as torch
from lampion.capture import Program, capture
from lampion.capture.program import apply_eagerly
from lampion.codegen import service
from lampion.graph import interpret
from lampion.passes import PASSES, compile_graph

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")

# Sums of kernels and of NumPy are in another order, and a product and a sum may be rounded once.
SUMS = {"rtol": 2e-5, "atol": 2e-6}
NARROW = {"rtol": 1e-2, "atol": 1e-2}  # one unit of a bfloat16's or a half's last place


def assert_near(found: Any, wanted: Any) -> None:
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    bound = NARROW if found.itemsize == 2 else SUMS
    wide = [a.astype(np.float32) if a.itemsize == 2 else a for a in (found, wanted)]
    np.testing.assert_allclose(*wide, **bound)


def run_both(program: Program, args: Any, drop: Any = ()) -> Any:
    """The executable after a run that gave, and wrote, what the interpreter does."""
    tensors = [*args, *program.state]
    arrays = [t._a.copy("K") for t in tensors]
    executable = compile_graph(program.graph, arrays, drop)
    wanted, written = interpret(program.graph, [t.detach() for t in tensors], apply_eagerly)
    writes = program.graph.writes
    wanted += [v for w, v in zip(writes, written, strict=True) if w.what == "grad"]
    found = executable.run(arrays)
    for a, t in zip(found, wanted, strict=True):
        assert_near(a, t._a)
    changed = {w.target: v for w, v in zip(writes, written, strict=True) if w.what == "data"}
    for i, a in enumerate(arrays):
        assert_near(a, changed.get(i, tensors[i])._a)
    return executable, arrays, found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    program, args = captured(name)
    run_both(program, args)


@pytest.mark.parametrize("name", MODELS)
def test_training_step(name):
    program, args = training(name)
    run_both(program, args)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_lie_as_eager_ones_and_alone(name):
    fn, *args = FUNCTIONS[name]
    program = capture(fn, *args)
    arrays = [t._a.copy("K") for t in (*args, *program.state)]
    found = compile_graph(program.graph, arrays).run(arrays)
    eager = fn(*(t.clone() for t in args))
    wanted: list[Any] = []
    _flatten(eager, wanted)
    for i, (a, t) in enumerate(zip(found, wanted, strict=True)):
        assert a.flags.writeable and not any(np.shares_memory(a, b) for b in (
            *arrays, *found[:i]))
        if t._base is None:  # a view shows its base; a program's result is its own
            assert a.strides == t._a.strides


def _flatten(value: Any, found: list[Any]) -> None:
    if isinstance(value, tuple):
        for v in value:
            _flatten(v, found)
    else:
        found.append(value)


@pytest.mark.parametrize("dropped", [p.name for p in PASSES])
@pytest.mark.parametrize("name", ["transformer", "convolutions"])
def test_dropping_a_pass_changes_nothing(name, dropped):
    program, args = training(name)
    run_both(program, args, (dropped,))


@pytest.mark.parametrize("put", [
    lambda cache, at, rows: cache.index_copy_(1, at, rows),
    lambda cache, at, rows: cache.index_put_((None, at), rows),
])
def test_rows_are_put_into_a_cache_where_it_lies(put):
    def fn(cache, at, rows):
        put(cache, at, rows)
        return cache.sum(2)
    args = r(3, 40, 8), torch.tensor([7, 2]), r(3, 2, 8, seed=1)
    executable, arrays, _ = run_both(capture(fn, *args), args)
    names = [launch.name for launch in executable.launches]
    assert "put_rows" in names and "copy" not in names
    before = arrays[0].copy()
    with pytest.raises(IndexError):  # and the cache is as it was
        executable.run([arrays[0], np.array([1, 40]), arrays[2]])
    assert (arrays[0] == before).all()


def test_arguments_that_begin_to_share_memory_are_refused():
    program = capture(lambda a, b: a.add_(b), r(4), r(4))
    a, b = r(4)._a.copy(), r(4, seed=1)._a.copy()
    executable = compile_graph(program.graph, [a, b])
    executable.run([a, b])
    with pytest.raises(ValueError, match="shares memory"):
        executable.run([a, a])


def test_arguments_that_share_memory_from_the_start():
    """Both hold old values until every reader has run."""
    program = capture(lambda a, b: (a.mul_(2), b + 1)[1], r(4), r(4))
    both = np.arange(5, dtype=np.float32)
    executable = compile_graph(program.graph, [both[:4], both[1:]])
    found, = executable.run([both[:4], both[1:]])
    assert found.tolist() == [2, 3, 4, 5]
    assert both.tolist() == [0, 2, 4, 6, 4]

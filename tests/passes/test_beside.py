"""Launches side by side: what may move, what may not, and that no bit and no memory changes."""

from __future__ import annotations

import os
import threading

import pytest
from common_graphs import FUNCTIONS, MODELS, captured, r, training

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.capture import capture
from lampion.codegen import service
from lampion.graph.spec import IllegalGraph
from lampion.passes import BESIDE, beside, compile_graph
from lampion.passes.beside import Arrangement, Launches, check_arrangement, side_by_side
from lampion.runtime.stream import Group

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def everything(monkeypatch):
    """Whatever may run together does, however little that saves."""
    monkeypatch.setattr(beside, "_PAYS", 0.0)
    monkeypatch.setattr(beside, "_WAKES", 0.0)


def executables(program, tensors):
    """With the pass, and without it."""
    arrays = [t._a.copy("K") for t in tensors]
    return [compile_graph(program.graph, arrays, drop) for drop in ((), (BESIDE.name,))]


def ran(executable, tensors):
    """The bytes of outputs, and of what was written to."""
    arrays = [t._a.copy("K") for t in tensors]
    found = executable.run(arrays)
    return [a.tobytes() for a in (*found, *arrays)]


@pytest.mark.parametrize("name", [*FUNCTIONS, *MODELS])
def test_no_bit_changes_whatever_runs_side_by_side(name, everything):
    program, args = training(name) if name in MODELS else captured(name)
    tensors = [*args, *program.state]
    grouped, plain = executables(program, tensors)
    assert not plain.stream.groups
    assert grouped.stream.groups or name in FUNCTIONS
    assert grouped.stream.least_bytes <= plain.stream.least_bytes
    wanted = ran(plain, tensors)
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        for _ in range(5):
            assert ran(grouped, tensors) == wanted


@pytest.mark.parametrize("name", [*FUNCTIONS, *MODELS])
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_conditions_hold_before_and_after(name, threads, everything, monkeypatch):
    given = []

    def noted(launches, _):
        given.append(launches)
        return side_by_side(launches, 1)
    monkeypatch.setattr("lampion.passes.BESIDE", BESIDE._replace(run=noted))
    program, args = training(name) if name in MODELS else captured(name)
    compile_graph(program.graph, [t._a for t in (*args, *program.state)])
    for condition in BESIDE.requires:
        condition(given[0])
    found = BESIDE.run(given[0], threads)
    for condition in BESIDE.ensures:
        condition(given[0], found)


def test_one_thread_runs_what_it_ran():
    torch.set_num_threads(1)
    program, args = training("transformer")
    grouped, plain = executables(program, [*args, *program.state])
    assert not grouped.stream.groups
    assert [s.name for s in grouped.launches] == [s.name for s in plain.launches]


# --- what runs together -----------------------------------------------------------------------


def names(fn, *args, state=()):
    """The operators of every group."""
    program = capture(fn, *args, state=list(state))
    found = compile_graph(program.graph, [t._a for t in (*args, *program.state)])
    return [sorted(" ".join(s.operators) for s in found.launches[g.first:g.first + g.size])
            for g in found.stream.groups]


def test_products_that_share_an_operand():
    weights = [r(64, 64, seed=i) for i in range(3)]
    assert names(lambda x, q, k, v: (x @ q, x @ k, x @ v), r(128, 64), *weights) == [
        ["mm", "mm", "mm"]]


def test_a_product_and_the_one_that_needs_it_do_not():
    assert names(lambda x, a, b: x @ a @ b, r(128, 64), r(64, 64), r(64, 64)) == []


def test_large_launches_are_shared_out_by_themselves():
    assert names(lambda a, b: (a @ b, b @ a), r(512, 512), r(512, 512)) == []


def test_updates_of_all_parameters_gather_at_the_end():
    model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(64, 64, False), nn.Tanh())))
    optimizer = torch.optim.Adam(model.parameters())

    @torch.compile(mode="wait")
    def step(x):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for _ in range(3):
        step(r(64, 64))
    (kind,) = step.kinds.values()
    executable = kind.programs[0].native.executable
    last = executable.stream.groups[-1]
    assert last.first + last.size == len(executable.launches)
    assert [s.name for s in executable.launches[last.first:]] == ["adam"] * 4
    assert "1 x (4 adam)" in str(step.explain())


# --- what stays -------------------------------------------------------------------------------


def launches_of(fn, *args):
    """The steps of a function as they were recorded."""
    found = []

    def noted(launches, _):
        found.append(launches)
        return side_by_side(launches, 1)
    program = capture(fn, *args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lampion.passes.BESIDE", BESIDE._replace(run=noted))
        compile_graph(program.graph, [t._a for t in args])
    return found[0]


def test_nothing_passes_a_launch_that_may_raise(everything):
    """Elements are taken only where their places have been checked."""
    launches = launches_of(lambda a, i, b: (a * 2, F.embedding(i, a), b * 3, b @ b), r(64, 64),
                           torch.arange(8), r(64, 64, seed=1))
    flagged = [i for i, s in enumerate(launches.steps) if getattr(s, "flag", None) is not None]
    assert flagged
    found = side_by_side(launches, 4)
    check_arrangement(launches, found)
    turn = {step: i for i, step in enumerate(found.order)}
    for f in flagged:
        assert all(turn[i] > turn[f] for i in range(f + 1, len(launches.steps)))


def test_a_bad_index_is_told_and_changes_nothing(everything):
    table, index = r(10, 64), torch.arange(4)

    def fn(table, index, x):
        rows = F.embedding(index, table)
        table.mul_(2)
        x.add_(1)
        return rows @ x, (x * 3).sum(), x @ x
    tensors = [table, index, r(64, 64)]
    program = capture(fn, *tensors)
    executable = compile_graph(program.graph, [t._a for t in tensors])
    arrays = [t._a.copy() for t in tensors]
    before = [a.copy() for a in arrays]
    arrays[1][2] = 10
    for _ in range(20):
        with pytest.raises(IndexError):
            executable.run(arrays)
        assert all((a == b).all() for a, b in zip(arrays[::2], before[::2], strict=True))
    arrays[1][2] = 2
    executable.run(arrays)


def test_inputs_that_share_memory_depend_on_one_another(everything):
    def fn(a, b, c):
        first = c @ c
        a.mul_(2)
        return first, b @ c, a @ c
    program = capture(fn, r(40, 64), r(44, 64), r(64, 64))
    whole, other = r(64, 64, seed=1)._a, r(64, 64, seed=2)._a
    grouped, plain = (compile_graph(program.graph, [whole[:40], whole[20:], other], drop)
                      for drop in ((), (BESIDE.name,)))

    def outcome(executable):
        base = whole.copy()
        found = executable.run([base[:40], base[20:], other])
        return [a.tobytes() for a in (*found, base)]
    wanted = outcome(plain)
    assert all(outcome(grouped) == wanted for _ in range(20))


@pytest.mark.parametrize("order,groups,message", [
    ([0, 0, 1], [], "no permutation"), ([2, 1, 0], [], "comes no later"),
    ([0, 1, 2], [Group(0, 2, False)], "comes no later")])
def test_wrong_arrangements_are_found(order, groups, message):
    launches = launches_of(lambda a, b: a @ b @ b @ b, r(64, 64), r(64, 64))
    assert len(launches.steps) == 3
    with pytest.raises(IllegalGraph, match=message):
        check_arrangement(launches, Arrangement(order, groups))


def test_a_read_before_a_write_is_found():
    launches = launches_of(lambda a, b: a @ b @ b, r(64, 64), r(64, 64))
    with pytest.raises(IllegalGraph, match="no step has written"):
        BESIDE.requires[0](Launches(launches.steps[::-1]))


# --- under stress -----------------------------------------------------------------------------


def heads():
    """A program of many small groups, its inputs, and what it gives."""
    weights = [r(32, 32, seed=i) for i in range(8)]
    tensors = [r(32, 32), *weights]
    program = capture(lambda x, *ws: [torch.tanh(x @ w) @ w for w in ws], *tensors)
    grouped, plain = executables(program, tensors)
    return grouped, [t._a for t in tensors], ran(plain, tensors)


def test_many_runs_from_several_threads(everything):
    executable, arrays, wanted = heads()
    wrong = []

    def work():
        for _ in range(200):
            found = [a.tobytes() for a in (*executable.run(arrays), *arrays)]
            if found != wanted:
                wrong.append(found)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert executable.stream.groups and not wrong


def test_threads_come_and_go(everything):
    executable, arrays, wanted = heads()
    for threads in [1, 2, 4, 3] * 5:
        torch.set_num_threads(threads)
        assert [a.tobytes() for a in (*executable.run(arrays), *arrays)] == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_groups_run_after_a_fork(everything):
    executable, arrays, wanted = heads()
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = all([a.tobytes() for a in (*executable.run(arrays), *arrays)] == wanted
                     for _ in range(20))
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [a.tobytes() for a in (*executable.run(arrays), *arrays)] == wanted

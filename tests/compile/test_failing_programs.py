"""A run that fails leaves everything as the eager run leaves it that fails at the same place."""

from __future__ import annotations

import numpy as np
import pytest
from footguns import describe, difference

import lampion as torch
from lampion import nn
from lampion.debug.knobs import override
from lampion.nn import functional as F
from lampion.runtime import stream


class Net(nn.Module):
    """State of every kind: a counter, statistics, parameters that indices pick from."""

    def __init__(self, classes=12, p=0.0, decompose=False):
        super().__init__()
        self.table = nn.Embedding(classes, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(p)
        self.out = nn.Linear(8, classes)
        self.decompose = decompose
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, index, target):
        self.calls.add_(1)
        x = self.drop(self.norm(self.table(index)))
        x = self.out(x)
        if self.decompose:  # a step in Python, which fails where the matrix is not definite
            x = x + torch.linalg.cholesky(x.T @ x + torch.eye(12) * target.float().mean())[0]
        return F.cross_entropy(x, target)


def good(n=16):
    return torch.randint(0, 12, (n,)), torch.randint(0, 12, (n,))


def bad_index(index, target):
    index[3] = 12
    return index, target


def bad_class(index, target):
    target[-1] = 99
    return index, target


def not_definite(index, target):
    return index, torch.full_like(target, -100)


def trained(compiling, spoil, p=0.0, decompose=False):
    """What two good steps, two bad ones and a good one leave behind."""
    torch.manual_seed(0)
    net = Net(p=p, decompose=decompose)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(index, target):
        optimizer.zero_grad()
        loss = net(index, target)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        return loss

    run = torch.compile(step, mode="wait") if compiling else step
    seen = []
    for spoiled in (False, False, True, True, False):
        given = spoil(*good()) if spoiled else good()
        try:
            seen.append(describe(run(*given)))
        except Exception as error:
            seen.append(describe(error))
        seen.append(describe([net, optimizer, scheduler, torch.get_rng_state()]))
    if compiling:
        assert (run.programs, run.reasons) == (1, [])
    return seen


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("spoil, decompose", [
    (bad_index, False), (bad_class, False), (bad_class, True), (not_definite, True)])
def test_a_failing_step_changes_what_it_changes_eagerly(spoil, decompose, p):
    with override(kernels="sync"):
        want, got = (trained(c, spoil, p, decompose) for c in (False, True))
    assert want[4][0].endswith("Error")
    found = difference(got, want)
    assert not found, found


def test_a_write_that_a_later_check_needs_is_made_aside():
    """The index is looked up in a table that is written to before: no order would do."""
    def play(compiling):
        table, counts = torch.arange(6.0), torch.zeros(3)

        def fn(x, index):
            table.add_(x)
            counts.add_(table[index].sum())
            return (counts * table.sum())[(table[:2] > 0).long() + index[:2]]
        run = torch.compile(fn, mode="wait") if compiling else fn
        seen = []
        for at in (0, 1, 2, 9, 1):
            try:
                seen.append(describe(run(torch.ones(6), torch.tensor([at, at, 0]))))
            except IndexError:
                seen.append(["IndexError"])
            seen.append(describe([table, counts]))
        return seen
    with override(kernels="sync"):
        found = difference(play(True), play(False))
    assert not found, found


def test_an_error_after_the_program_is_not_run_again():
    """A scheduler's own function fails when the step has been made."""
    def play(compiling):
        w = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        factors = [1.0, 0.5, 0.25]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: factors[i])

        def step(x):
            optimizer.zero_grad()
            (w * x).sum().backward()
            optimizer.step()
            scheduler.step()
        run = torch.compile(step, mode="wait") if compiling else step
        seen = []
        for _ in range(4):
            try:
                run(torch.ones(3))
            except IndexError as error:
                seen.append(str(error))
            seen.append(describe([w, scheduler]))
        return seen
    with override(kernels="sync"):
        found = difference(play(True), play(False))
    assert not found, found


def test_the_eager_run_may_capture():
    """After a failure: compiled functions inside are called as such."""
    inner = torch.compile(lambda x: x * 2, mode="wait")
    table = torch.arange(4.0)

    @torch.compile(mode="wait")
    def outer(index):
        return inner(table[index])

    with override(kernels="sync"):
        assert outer(torch.tensor([1])).tolist() == [2.0]
        with pytest.raises(IndexError):
            outer(torch.tensor([7]))
        assert outer(torch.tensor([3])).tolist() == [6.0]


def checking(step, *args):
    """The names of the kernels whose flags the only program of a compiled function looks at."""
    step(*args)
    step(*args)
    (kind,) = step.kinds.values()
    return [s.code.name for s in kind.programs[0].native.executable.stream._steps
            if getattr(s, "flag", None) is not None]


def test_indices_are_checked_once():
    """The backward of a lookup has the indices that were checked before."""
    table = nn.Embedding(12, 8)

    @torch.compile(mode="wait")
    def step(index, target):
        loss = F.cross_entropy(table(index) + table(index.reshape(4, 4)).reshape(16, 8), target)
        loss.backward()
        return loss

    with override(kernels="sync"):
        index, target = good()
        found = checking(step, index, target % 8)
    assert found == ["take", "nll_backward"]


def test_indices_that_were_written_to_are_checked_again():
    table = torch.arange(4.0)

    @torch.compile(mode="wait")
    def fn(index):
        first = table[index]
        index.add_(1)
        return first + table[index]

    with override(kernels="sync"):
        index = torch.tensor([0, 1])
        for expected in ([1.0, 3.0], [3.0, 5.0]):
            assert fn(index).tolist() == expected
        assert fn.programs == 1
        with pytest.raises(IndexError):
            fn(index)
        assert index.tolist() == [3, 4]


def test_too_little_memory_is_told_by_what_takes_it(monkeypatch):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 4)

    @torch.compile(mode="wait")
    def step(x):
        net(x).square().sum().backward()

    def none_left(shape, dtype):
        raise MemoryError("no room")

    with override(kernels="sync"):
        step(x)
        step(x)
        before = [p.grad.clone() for p in net.parameters()]
        with monkeypatch.context() as patched, pytest.raises(MemoryError) as told:
            patched.setattr(stream.memory, "empty", none_left)
            step(x)
    assert "no room" in str(told.value)
    assert "step: " in str(told.value) and "parameters" in str(told.value)
    assert "0.weight" in str(told.value)
    for p, g in zip(net.parameters(), before, strict=True):
        assert np.array_equal(p.grad.numpy(), g.numpy())

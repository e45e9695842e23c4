"""What people ask a compiled function: explain, memory, checked runs, modes, names of PyTorch's."""

from __future__ import annotations

import copy
import gc
import importlib
import io
import itertools
import pickle
import threading
import time

import numpy as np
import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.capture.recorder import Recorder
from lampion.compiler.checked import ProgramMismatch
from lampion.compiler.compiled import CompileWarning
from lampion.compiler.guards import Guards
from lampion.compiler.instrument import NoSource, instrumented


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        return self.last(F.relu(self.norm(self.first(x))))


def batch(n: int = 32):
    g = torch.Generator().manual_seed(n)
    return torch.randn(n, 8, generator=g), torch.randint(0, 4, (n,), generator=g)


def trained(**options):
    """A compiled step after its first call, which is eager, and a second one."""
    torch.manual_seed(0)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    compiled = torch.compile(step, mode="wait", **options)
    compiled(*batch())
    compiled(*batch())
    return net, opt, compiled


def test_explain_names_kernels_lines_and_changes():
    net, _, step = trained()
    net.eval()
    step(*batch())
    text = step.explain()
    assert text.startswith("step: 2 programs")
    assert "linear" in text and "adam" in text and "GFLOP/s" in text
    assert "in step: loss.backward()" in text
    assert "captured again because" in text and "training was True, is False" in text


def test_explain_tells_what_is_kept_for_backward_by_module():
    net = torch.nn.Sequential()
    net.add_module("wide", torch.nn.Linear(16, 64))
    net.add_module("tanh", torch.nn.Tanh())
    net.add_module("out", torch.nn.Linear(64, 1))

    def step(x):
        loss = net(x).square().mean()
        loss.backward()
        return loss

    compiled = torch.compile(step, mode="wait")
    compiled(torch.ones(100, 16))
    text = compiled.explain()
    kept = text[text.index("for backward"):]
    assert "keeps 26." in text  # tanh's result, 100 by 64 floats, and the last layer's
    assert "tanh" in kept and "25.6 KB" in kept and "wide" not in kept


def test_explaining_changes_nothing():
    net, opt, step = trained()
    before = [p.clone() for p in net.parameters()]
    counts = [opt.state[p]["step"].item() for p in net.parameters()]
    random = torch.get_rng_state()
    step.explain()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert counts == [opt.state[p]["step"].item() for p in net.parameters()]
    assert torch.equal(random, torch.get_rng_state())


def test_memory_is_known_before_a_call_by_kind_and_name():
    net, _, step = trained()
    before = [p.clone() for p in net.parameters()]
    table = step.memory(*batch(64))
    size = sum(p.nbytes for p in net.parameters())
    assert table.of("parameters") == size
    assert table.of("gradients") == size
    assert table.of("arguments") == 64 * 8 * 4 + 64 * 8
    assert table.of("optimizer state") == 2 * size
    assert table.of("activations") > 0
    text = str(table)
    assert "first.weight" in text and "first.weight.exp_avg" in text
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_the_largest_batch_follows_from_two_sizes():
    _, _, step = trained()
    table = step.memory(*batch(64))
    rows = table.largest_batch(10_000_000)
    x, y = torch.empty(rows, 8), torch.zeros(rows, dtype=torch.int64)
    assert step.memory(x, y).total == pytest.approx(10_000_000, rel=0.02)


def test_arguments_without_a_common_size_have_no_largest_batch():
    table = torch.compile(lambda a, b: a.sum() + b.sum()).memory(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="no first size in common"):
        table.largest_batch(1000)


def test_checked_runs_end_as_eager_ones():
    plain, checked = (trained(backend=b, checked=b == "inductor")[2] for b in ("eager", "inductor"))
    for _ in range(3):
        assert torch.equal(plain(*batch()), checked(*batch()))
    assert checked.programs == 1


def test_a_program_that_goes_wrong_is_found_by_name():
    _, _, step = trained(checked=True)
    (kind,) = step.kinds.values()
    program = kind.programs[0]
    right = program._run

    def wrong(arrays, numbers, is_prepared):
        found = right(arrays, numbers, is_prepared)
        arrays[0][...] += 1  # a weight
        return found

    program._run = wrong
    program.captured.graph.names[0] = "the changed one"
    with pytest.raises(ProgramMismatch, match="the changed one"):
        step(*batch())


def test_a_program_takes_over_with_the_same_numbers():
    torch.manual_seed(3)
    net = Net().eval()
    eager, compiled = net(batch()[0]), torch.compile(net)
    first = compiled(batch()[0])  # eager while the program is made
    assert torch.equal(first, eager)
    impl = compiled._compiled_call_impl
    (kind,) = impl.kinds.values()
    kind.programs[0].native.thread.join()
    torch.testing.assert_close(compiled(batch()[0]), eager, rtol=1e-5, atol=1e-6)


def test_more_threads_than_when_it_was_made():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fn = torch.compile(lambda x: (x @ x.t()).relu().sum(1), mode="wait")
        x = torch.randn(70, 40)
        first = fn(x)
        torch.set_num_threads(2)
        assert torch.equal(fn(x), first)
    finally:
        torch.set_num_threads(before)


def test_full_graph_raises_with_the_line():
    seen = [1]

    @torch.compile(fullgraph=True)
    def fn(x):
        seen.pop()  # the line
        return x * 2

    with pytest.raises(RuntimeError, match=r"list.pop\(\) of an object from outside.*the line"):
        fn(torch.ones(2))
    assert seen == [1]


def test_a_reason_is_said_once():
    seen = []

    @torch.compile
    def fn(x):
        seen.append(len(seen))
        return x * 2

    with pytest.warns(CompileWarning, match="fn runs eagerly") as said:
        for _ in range(5):
            fn(torch.ones(2))
    assert len(said) == 1 and seen == [0, 1, 2, 3, 4]
    assert len(fn.reasons) == 1


def test_disabled_functions_and_stances():
    @torch.compiler.disable
    def outside(x):
        return x.sin()

    fn = torch.compile(lambda x: outside(x) + 1, mode="wait")
    with pytest.warns(CompileWarning, match="kept out"):
        fn(torch.ones(2))
    plain = torch.compile(lambda x: x + 1, mode="wait")
    with torch.compiler.set_stance("force_eager"):
        plain(torch.ones(2))
    assert plain.programs == 0
    plain(torch.ones(2))
    assert plain.programs == 1
    torch.compiler.reset()
    assert plain.programs == 0


def test_is_compiling_is_true_only_meanwhile():
    found = []

    def look(flag):
        found.append(flag)

    fn = torch.compile(lambda x: x * 2 if torch.compiler.is_compiling() else x * 3, mode="wait")
    assert torch.equal(fn(torch.ones(1)), torch.tensor([2.0]))
    assert not torch.compiler.is_compiling()


def test_names_of_dynamo_and_inductor():
    x = torch.ones(2, 3)
    torch._dynamo.mark_dynamic(x, 0)
    torch._dynamo.config.suppress_errors = True
    torch._inductor.config.coordinate_descent_tuning = True
    assert torch._dynamo.explain(lambda x: x * 2)(x).startswith("<lambda>: 1 program")
    torch._dynamo.reset()


def test_modules_keep_their_class_names_and_files():
    net = torch.compile(Net(), mode="wait")
    assert isinstance(net, Net) and type(net).__name__ == "Net"
    assert list(net.state_dict()) == list(net._orig_mod.state_dict())
    assert not any(k.startswith("_orig_mod") for k in net.state_dict())
    twin = copy.deepcopy(net)
    assert twin.first.weight is not net.first.weight
    net.eval()
    net(batch()[0])
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    Net().load_state_dict(torch.load(file))
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again.first.weight, net.first.weight)


def test_compiling_in_place():
    net = Net().eval()
    want = net(batch()[0])
    net.compile(mode="wait")
    torch.testing.assert_close(net(batch()[0]), want, rtol=1e-5, atol=1e-6)
    assert net._compiled_call_impl.programs == 1


def test_options_are_checked():
    with pytest.raises(RuntimeError, match="Unrecognized mode"):
        torch.compile(lambda x: x, mode="fast")
    with pytest.raises(RuntimeError, match="Invalid backend"):
        torch.compile(lambda x: x, backend="tvm")
    with pytest.raises(TypeError, match="function or a module"):
        torch.compile(3)


def test_a_module_called_by_a_thread_while_another_captures():
    net = torch.compile(Net().eval(), mode="wait")
    want = net._orig_mod(batch()[0])
    found: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(net(batch()[0]))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    for got in found:
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_guards_compare_by_identity_then_by_value():
    table, values = {"a": 1000.5, "b": [1]}, [1, 2]
    guards = Guards()
    guards.entry(table, "a", table["a"], "a")
    guards.entry(table, "b", table["b"], "b")
    guards.absent(table, "c", "c")
    guards.contents(values, "values")
    guards.close()
    assert guards.hold()
    table["a"] = float("1000.5")  # another object, the same value
    assert guards.hold()
    before, table["b"] = table["b"], [1]
    assert not guards.hold() and "b was a list" in guards.change()
    table["b"] = before
    values.append(3)
    assert not guards.hold() and "values" in guards.change()


def test_guards_on_empty_tables_allow_other_entries():
    guards, table = Guards(), {}
    guards.absent(table, "a", "a")
    guards.close()
    table["b"] = 1
    assert guards.hold() and guards.hold()
    table["a"] = 2
    assert not guards.hold() and "a was absent, is 2" in guards.change()
    del table["a"], table["b"]
    assert guards.hold()


def test_zero_and_its_negative_differ():
    guards, table = Guards(), {"a": 0.0}
    guards.entry(table, "a", 0.0, "a")
    guards.close()
    table["a"] = -0.0
    assert not guards.hold()


def test_source_that_does_not_fit_is_refused():
    space: dict[str, object] = {}
    exec("def fn(x):\n    return x", space)
    with pytest.raises(NoSource):
        instrumented(space["fn"], None)  # type: ignore[arg-type]


def test_arguments_in_numpy_run_eagerly_with_the_repair():
    fn = torch.compile(lambda a: torch.from_numpy(a) * 2)
    with pytest.warns(CompileWarning, match="from_numpy"):
        assert fn(np.ones(2, np.float32)).tolist() == [2.0, 2.0]


@pytest.fixture
def each_look_at_the_clock_is_a_second(monkeypatch):
    """So an eager call takes one, and planning two: for the capture, and for what follows it."""
    seconds = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: float(next(seconds)))


@pytest.mark.usefixtures("each_look_at_the_clock_is_a_second")
def test_many_kinds_of_arguments_must_run_eagerly_for_as_long_as_planning_takes():
    fn = torch.compile(lambda x: x.cumsum(0) * 2, mode="wait")

    def all_lengths():
        for n in range(1, 13):
            assert fn(torch.ones(n))[-1] == 2 * n
        return fn.programs
    assert [all_lengths() for _ in range(5)] == [8] * 2 + [12] * 3


def test_programs_let_go_of_their_capture():
    """With branches, effects and a scaler, which are kept for the runs."""
    def recorders():
        return {id(found) for found in gc.get_objects() if type(found) is Recorder}

    before = recorders()
    net, losses = nn.Linear(4, 3), []
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")

    @torch.compile(mode="wait")
    def step(x):
        opt.zero_grad()
        loss = net(x).square().mean()
        loss = loss / 2 if loss > 100 else loss
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())

    step(torch.randn(5, 4))
    step(torch.randn(5, 4))
    gc.collect()
    assert step.programs and len(losses) == 2
    assert recorders() <= before


@pytest.mark.usefixtures("each_look_at_the_clock_is_a_second")
def test_programs_for_many_sizes_are_bounded(monkeypatch):
    compiled_module = importlib.import_module("lampion.compiler.compiled")
    monkeypatch.setattr(compiled_module, "MOST_PROGRAMS", 10)
    step = torch.compile(lambda x: (x * 2).sum(), mode="wait")
    for n in range(1, 31):
        for _ in range(3):
            assert step(torch.ones(n)) == 2 * n
    assert step.programs == 10 and len(step.kinds) == 30
    for _ in range(20):
        for n in (9, 10, 20, 21, 22):
            assert step(torch.ones(n)) == 2 * n
        assert step.programs <= 10
    served = [k.programs != [] for k in step.kinds.values()]
    assert step.programs == 10 and served[-5:] == [True] * 5  # those that came last

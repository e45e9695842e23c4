"""What programs compute from weights alone is kept, until somebody writes to the weights."""

import copy
import ctypes

import numpy as np
import pytest

import lampion as torch
from lampion import nn
from lampion.nn.utils import parameters_to_vector, vector_to_parameters

pytestmark = pytest.mark.usefixtures("kernels_at_once")


@pytest.fixture
def kernels_at_once():
    from lampion.debug.knobs import override

    with override(kernels="sync"):
        yield


class Model(nn.Module):
    """Products that pack their weights: 64 rows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(48, 80), nn.Linear(80, 64)
        self.norm = nn.BatchNorm1d(80)

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x))))


def prepared():
    """A model, its compiled inference, inputs; two calls were made, the second with what the
    first had prepared."""
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(64, 48)
    forward = torch.compile(model.forward, mode="wait")
    with torch.no_grad():
        for _ in range(3):
            forward(x)
    program = next(iter(forward.kinds.values())).programs[0]
    return model, forward, x, program


def keeps(program):
    """Whether the next call would use what was prepared."""
    return program.steady.holds(program.steady.look())


def agrees(model, forward, x):
    with torch.no_grad():
        torch.testing.assert_close(forward(x), model(x), rtol=1e-4, atol=1e-5)


def test_weights_are_packed_once():
    model, forward, x, program = prepared()
    launches = program.native.executable.launches
    assert [s.name for s in launches if s.is_prepared][:2] == ["gemm pack"] * 2
    assert not any(s.name == "gemm pack" for s in launches if not s.is_prepared)
    assert program.native.executable.stream.kept_bytes >= 4 * (48 * 80 + 80 * 64)
    assert keeps(program)
    agrees(model, forward, x)
    agrees(model, forward, x + 1)
    assert keeps(program)


def test_explain_and_memory_tell():
    model, forward, x, program = prepared()
    kept = program.native.executable.stream.kept_bytes
    with torch.no_grad():
        assert forward.memory(x).of("prepared") == kept > 0
    assert "once for weights that stay as they are: 2 launches" in forward.explain()
    agrees(model, forward, x)  # what was measured on other weights is not kept


@pytest.mark.parametrize("size", [(1, 32, 14, 14), (2, 32, 12, 12), (1, 32, 33, 29)])
def test_weights_of_convolutions(size):
    """A transformed weight that is kept pays for fewer positions than one made at each call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 32, 3)).eval()
    x = torch.randn(*size)
    forward = torch.compile(model.forward, mode="wait")
    with torch.no_grad():
        for scale in (1.0, 0.5):
            model[0].weight.mul_(scale)
            for _ in range(3):
                expected = copy.deepcopy(model).double()(x.double()).float()
                torch.testing.assert_close(forward(x), expected, rtol=1e-3, atol=1e-4)
    program = next(iter(forward.kinds.values())).programs[0]
    assert [s.name for s in program.native.executable.launches if s.is_prepared] == [
        "winograd weight"] * 2


def test_other_runs_of_a_program_keep_nothing():
    """Such as those with copies, which look for the kernel that is to blame."""
    model, forward, x, program = prepared()
    executable = program.native.executable
    before = keeps(program)
    executable.run(program.native.copies(), program.native.some_numbers())
    assert before and keeps(program)
    agrees(model, forward, x)


def _step(model, x):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def _compiled_step(model, x):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    @torch.compile(mode="wait")
    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss
    for _ in range(3):
        step(x)


def _under_no_grad(write):
    def change(model, x):
        with torch.no_grad():
            write(model.first.weight)
    return change


def _replace(model, x):
    model.first.weight.data = torch.randn(80, 48)


def _vector(model, x):
    vector_to_parameters(parameters_to_vector(model.parameters()).detach() * 2, model.parameters())


def _train_statistics(model, x):
    model.train()
    model(x + 3)
    model.eval()


CHANGES = {
    "in place": _under_no_grad(lambda w: w.mul_(2)),
    "init": lambda model, x: nn.init.normal_(model.first.weight),
    "a view": _under_no_grad(lambda w: w[3:5].zero_()),
    "a view of a view": _under_no_grad(lambda w: w.view(-1)[7:700].add_(1)),
    "an item": _under_no_grad(lambda w: w.__setitem__((0, slice(None)), 5.0)),
    "out=": _under_no_grad(lambda w: torch.add(w, 1, out=w)),
    "detach": lambda model, x: model.first.weight.detach().mul_(2),
    "data": lambda model, x: model.first.weight.data.mul_(2),
    "a view of data": lambda model, x: model.first.weight.data[2].fill_(2),
    "data copy": lambda model, x: model.first.weight.data.copy_(torch.ones(80, 48)),
    "data replaced": _replace,
    "load_state_dict": lambda model, x: model.load_state_dict(Model().state_dict()),
    "state_dict entry": lambda model, x: model.state_dict()["first.weight"].mul_(2),
    "optimizer": _step,
    "compiled optimizer": _compiled_step,
    "vector": _vector,
    "foreach": _under_no_grad(lambda w: torch._foreach_mul_([w], 2.0)),
    "clip": _under_no_grad(lambda w: w.clamp_(-0.01, 0.01)),
    "random": _under_no_grad(lambda w: w.normal_()),
    "set_": _under_no_grad(lambda w: w.set_(torch.randn(80, 48))),
    "new parameter": lambda model, x: setattr(model.first, "weight",
                                              nn.Parameter(torch.randn(80, 48))),
    "statistics": _train_statistics,
    "buffer": lambda model, x: model.norm.running_mean.add_(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(change):
    model, forward, x, _ = prepared()
    CHANGES[change](model, x)
    for _ in range(3):
        agrees(model, forward, x)
    CHANGES[change](model, x)
    agrees(model, forward, x)


def _write_by_pointer(w):
    cell = ctypes.c_float.from_address(w.data_ptr())

    def write():
        cell.value += 5
    return write


def _write_by_storage(w):
    storage = w.untyped_storage()

    def write():
        storage[2], storage[3] = 128, 63
    return write


def _adder(array):
    def write():
        array[...] += 1
    return write


OUTSIDE = {
    "numpy": lambda w: _adder(w.detach().numpy()),
    "asarray": lambda w: _adder(np.asarray(w.detach())),
    "numpy of data": lambda w: _adder(w.data.numpy()),
    "numpy of a view": lambda w: _adder(w.detach()[4:9].numpy()),
    "dlpack": lambda w: _adder(np.from_dlpack(w.detach())),
    "pointer": _write_by_pointer,
    "storage": _write_by_storage,
}


@pytest.mark.parametrize("way", OUTSIDE)
@pytest.mark.parametrize("early", [False, True])
def test_writes_that_nobody_counts(way, early):
    """Weights whose memory somebody else has got are packed at every call."""
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(64, 48)
    write = OUTSIDE[way](model.first.weight) if early else None
    forward = torch.compile(model.forward, mode="wait")
    for _ in range(3):
        agrees(model, forward, x)
    write = write or OUTSIDE[way](model.first.weight)
    for _ in range(3):
        write()
        agrees(model, forward, x)


def test_weights_on_memory_of_numpy():
    torch.manual_seed(0)
    array = np.random.default_rng(0).standard_normal((80, 48)).astype(np.float32)
    model, x = Model().eval(), torch.randn(64, 48)
    model.first.weight = nn.Parameter(torch.from_numpy(array))
    forward = torch.compile(model.forward, mode="wait")
    for _ in range(4):
        agrees(model, forward, x)
        array += 0.1


def test_what_the_program_writes_itself_is_not_prepared():
    """The weight changes between two products of one call, through a view of it."""
    torch.manual_seed(0)
    w = torch.randn(80, 48)
    part, x = w[:40], torch.randn(64, 48)

    @torch.compile(mode="wait")
    def fn(x):
        first = x @ w.t()
        part.mul_(0.5)
        return first, x @ w.t()

    with torch.no_grad():
        for _ in range(4):
            before = w.clone()
            first, second = fn(x)
            torch.testing.assert_close(first, x @ before.t())
            torch.testing.assert_close(second, x @ w.t())


def test_training_keeps_nothing():
    torch.manual_seed(0)
    model, x = Model(), torch.randn(64, 48)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(mode="wait")
    def step(x):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for _ in range(3):
        step(x)
    program = next(iter(step.kinds.values())).programs[0]
    assert program.native.executable.stream.kept_bytes == 0


def test_models_that_share_weights_with_a_training_step():
    """Inference between the steps of a training loop sees every step."""
    model, forward, x, _ = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        agrees(model, forward, x)
        agrees(model, forward, x)

"""All parameters in one launch: the same bits as one by one, whatever they look like."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest
from optim_cases import CASES

import lampion as torch
from lampion.codegen import service
from lampion.codegen.stream import Recording
from lampion.debug.knobs import override
from lampion.ops import optimize, together
from lampion.ops.together import Together
from lampion.optim import elementwise

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")
SHAPES = [(3,), (), (40, 50), (1000,), (0,), (8, 4, 3, 3), (130_001,), (64, 64)]


@pytest.fixture(autouse=True)
def kernels_at_once(monkeypatch):
    """Small tensors too, so that the order of rounding is the same."""
    monkeypatch.setattr(optimize, "LEAST", 0)
    before = torch.get_num_threads()
    with override(kernels="sync", check=False):
        yield
    torch.set_num_threads(before)


def normal(shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def parameters(shapes=SHAPES, dtype=torch.float32):
    """One of them lies in memory with its last axis outside."""
    found = [normal(s, i, dtype) for i, s in enumerate(shapes)]
    found = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in found]
    return [torch.nn.Parameter(t) for t in found]


def trained(make, params, steps=7, change=lambda optimizer, i: None):
    """The bytes of parameters and state after some steps."""
    optimizer = make(params)
    for i in range(steps):
        for n, p in enumerate(params):
            p.grad = normal(p.shape, 100 * i + n, p.dtype)
        change(optimizer, i)
        optimizer.step()
    return optimizer, bits(optimizer, params)


def bits(optimizer, params):
    state = [v for p in params for v in optimizer.state[p].values()]
    return [t.numpy().tobytes() if t.dtype != torch.bfloat16 else t.float().numpy().tobytes()
            for t in (p.detach() if isinstance(p, torch.nn.Parameter) else p
                      for p in (*params, *state)) if isinstance(t, torch.Tensor)]


def one_by_one(monkeypatch):
    monkeypatch.setattr(Together, "launched", lambda *_: False)


def streams(optimizer):
    return [s for t in elementwise._together[optimizer].values() for s in t.streams.values()]


@pytest.mark.parametrize("kind,options", [c for c in CASES if c[0] != "Adafactor"],
                         ids=lambda c: str(c))
def test_every_optimizer_gives_the_same_bits(kind, options, monkeypatch):
    def make(params):
        return getattr(torch.optim, kind)(params, **options)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        optimizer, after = trained(make, parameters())
        assert streams(optimizer)
        found.append(after)
    one_by_one(monkeypatch)
    _, wanted = trained(make, parameters())
    assert found == [wanted, wanted]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype, monkeypatch):
    torch.set_num_threads(2)
    optimizer, found = trained(torch.optim.Adam, parameters(dtype=dtype))
    assert streams(optimizer)
    one_by_one(monkeypatch)
    assert found == trained(torch.optim.Adam, parameters(dtype=dtype))[1]


def test_complex_numbers_stay_with_numpy():
    params = [torch.nn.Parameter(torch.ones(3, dtype=torch.complex64)) for _ in range(2)]
    optimizer = torch.optim.Adam(params, lr=0.1)
    for _ in range(20):
        for p in params:
            p.grad = torch.ones_like(p) * 1j
        optimizer.step()
    assert not streams(optimizer)
    np.testing.assert_allclose(params[1].detach().numpy(), np.full(3, 1 - 2j), rtol=1e-4)


def test_large_tensors_are_cut_and_run_side_by_side():
    torch.set_num_threads(2)
    optimizer, _ = trained(torch.optim.Adam, parameters([(500, 600), (300_007,), (10,)]))
    (stream,) = streams(optimizer)
    (group,) = stream.groups
    assert group.size == len(stream.launches) > 12
    sizes = [launch.arguments[0][0] for launch in stream.launches]
    assert sum(int(np.prod(s)) for s in sizes) == 300_000 + 300_007 + 10
    assert max(int(np.prod(s)) for s in sizes) <= 600_017 // 16 + 64


def test_rates_and_groups_change(monkeypatch):
    def make(params):
        return torch.optim.SGD([{"params": params[:4], "lr": 0.1}, {"params": params[4:]}],
                               lr=0.01, momentum=0.9)

    def change(optimizer, i):
        optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        optimizer.param_groups[1]["weight_decay"] = 0.1 * (i > 8)
    found = trained(make, parameters(), 20, change)[1]
    one_by_one(monkeypatch)
    assert found == trained(make, parameters(), 20, change)[1]


def test_gradients_come_by_turns_and_in_other_layouts(monkeypatch):
    def change(optimizer, i):
        params = optimizer.param_groups[0]["params"]
        if i % 2:
            params[3].grad = None
        if i > 12:
            params[2].grad = params[2].grad.t().contiguous().t()
        torch.set_num_threads(1 + i % 3)
    found = trained(torch.optim.Adam, parameters(), 24, change)[1]
    one_by_one(monkeypatch)
    assert found == trained(torch.optim.Adam, parameters(), 24, change)[1]


def test_parameters_that_share_memory_are_updated_in_order(monkeypatch):
    def run():
        whole = normal((3000,), 1)
        params = [torch.nn.Parameter(normal((2000,), 2)) for _ in range(2)]
        params[0].data, params[1].data = whole[:2000], whole[1000:]
        optimizer, _ = trained(torch.optim.Adam, params, 12)
        return optimizer, whole.numpy().tobytes()
    _, found = run()
    one_by_one(monkeypatch)
    assert found == run()[1]


def test_a_gradient_that_is_another_parameter(monkeypatch):
    def change(optimizer, i):
        a, b = optimizer.param_groups[0]["params"]
        b.grad = a.data
    torch.set_num_threads(2)
    found = trained(torch.optim.SGD, parameters([(9000,), (9000,)]), 12, change)[1]
    one_by_one(monkeypatch)
    assert found == trained(torch.optim.SGD, parameters([(9000,), (9000,)]), 12, change)[1]


def test_state_that_is_loaded_copied_or_pickled():
    optimizer, _ = trained(torch.optim.Adam, params := parameters())
    twin = copy.deepcopy(optimizer)
    again = pickle.loads(pickle.dumps(optimizer))
    for other in (twin, again):
        for p, q in zip(params, other.param_groups[0]["params"], strict=True):
            q.data.copy_(p.data)
            q.grad = p.grad.clone()
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for o in (optimizer, twin, again):
        for _ in range(6):
            o.step()
    wanted = bits(optimizer, params)
    assert bits(twin, twin.param_groups[0]["params"]) == wanted
    assert bits(again, again.param_groups[0]["params"]) == wanted


def test_step_counts_are_those_of_float32():
    p = parameters([(4,)])[0]
    optimizer = torch.optim.Adam([p])
    p.grad = torch.ones(4)
    optimizer.step()
    for start in (0.0, 7.0, 2.0**24 - 1, 2.0**24):
        optimizer.state[p]["step"].fill_(start)
        optimizer.step()
        assert optimizer.state[p]["step"].item() == np.float32(start) + np.float32(1)


def test_a_recording_of_another_thread_is_not_waited_for():
    inside, go = threading.Event(), threading.Event()

    def record():
        with Recording():
            inside.set()
            go.wait(20)
    other = threading.Thread(target=record)
    other.start()
    assert inside.wait(20)
    optimizer, _ = trained(torch.optim.Adam, parameters())
    assert not streams(optimizer)
    go.set()
    other.join()


def test_checked_kernels_run_one_by_one():
    with override(check=True):
        optimizer, _ = trained(torch.optim.Adam, parameters())
    assert not streams(optimizer)


def test_memory_that_may_only_be_read_is_refused():
    params = parameters([(2000,), (2000,)])
    optimizer, _ = trained(torch.optim.SGD, params)
    array = np.ones(2000, np.float32)
    params[1].data = torch.from_numpy(array)
    array.flags.writeable = False
    params[1]._a.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        optimizer.step()
    assert (array == 1).all()


def test_an_optimizer_that_dies_leaves_nothing():
    before = len(elementwise._together)
    optimizer, _ = trained(torch.optim.Adam, parameters())
    assert len(elementwise._together) == before + 1
    del optimizer
    assert len(elementwise._together) == before


def test_kinds_of_steps_are_bounded():
    params = parameters([(2000,)] * 12)
    optimizer, _ = trained(torch.optim.SGD, params)
    for n in range(12):
        for i, p in enumerate(params):
            p.grad = torch.ones_like(p) if i <= n else None
        for _ in range(5):
            optimizer.step()
        (known,) = elementwise._together[optimizer].values()
        assert len(known.streams) <= len(known.seen) <= together._KINDS + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_steps_after_a_fork():
    torch.set_num_threads(2)
    optimizer, _ = trained(torch.optim.Adam, params := parameters())
    child = os.fork()
    if child == 0:
        ok = False
        try:
            before = params[2].detach().clone()
            for _ in range(5):
                optimizer.step()
            ok = bool((params[2] != before).any())
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    optimizer.step()

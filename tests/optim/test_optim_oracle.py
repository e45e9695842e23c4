"""Optimizers and schedules step by step beside PyTorch's."""

import warnings

import numpy as np
import pytest
from optim_cases import CASES, SCHEDULES, make_optimizer

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
LIBRARIES = (torch, lampion)
SHAPES = [(5, 4), (3,), (), (300, 7)]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_updates_and_states(name, options, dtype):
    if dtype == "complex64" and name == "Adafactor":
        pytest.skip("PyTorch takes no complex parameters here")
    rng = np.random.default_rng(0)

    def numbers():
        values = [rng.standard_normal(shape) for shape in SHAPES]
        if dtype == "complex64":
            values = [v + 1j * rng.standard_normal(v.shape) for v in values]
        return [np.asarray(v, dtype) for v in values]

    start, slopes = numbers(), [numbers() for _ in range(5)]
    ends, states = [], []
    for lib in LIBRARIES:
        params = [lib.tensor(p.copy()).requires_grad_(True) for p in start]
        optimizer = getattr(lib.optim, name)(params, **options)
        for slope in slopes:
            for p, g in zip(params, slope):
                p.grad = lib.tensor(g.copy())
            optimizer.step()
        ends.append([p.detach().numpy() for p in params])
        states.append(optimizer.state_dict())
        assert repr(optimizer) == repr(getattr(torch.optim, name)([torch.ones(1)], **options))
    tolerance = 1e-10 if dtype == "float64" else 2e-4
    for want, got in zip(*ends):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for want, got in zip(states[0]["state"].values(), states[1]["state"].values()):
        assert {k: str(v.dtype) for k, v in want.items()} == {
            k: str(v.dtype) for k, v in got.items()
        }


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.filterwarnings("ignore:Detected call")  # PyTorch, when it nests
def test_schedules(name, kind):
    traces, keys = [], []
    for lib in LIBRARIES:
        optimizer = make_optimizer(lib, kind)
        scheduler = SCHEDULES[name](lib.optim.lr_scheduler, optimizer)
        trace = []
        for _ in range(25):
            optimizer.step()
            scheduler.step()
            for group in optimizer.param_groups:
                trace += [group["lr"], group.get("momentum", 0), *group.get("betas", ())]
        traces.append(trace)
        keys.append(list(scheduler.state_dict()))
    assert traces[1] == pytest.approx(traces[0], rel=1e-10)
    assert keys[0] == keys[1]


@pytest.mark.parametrize("options", [
    {"line_search_fn": "strong_wolfe"}, {"lr": 0.5}, {"lr": 0.1, "history_size": 2},
])  # fmt: skip
def test_lbfgs_takes_the_same_path(options):
    paths = []
    for lib in LIBRARIES:
        x = lib.tensor([-1.5, 1.2, 0.3, 2.0], dtype=lib.float64, requires_grad=True)
        optimizer = lib.optim.LBFGS([x], max_iter=12, **options)
        losses = []

        def closure(x=x, optimizer=optimizer, losses=losses):
            optimizer.zero_grad()
            loss = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
            loss.backward()
            losses.append(loss.item())
            return loss

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step(closure)
            optimizer.step(closure)
        paths.append(losses)
    assert len(paths[0]) == len(paths[1])
    assert paths[1] == pytest.approx(paths[0], rel=1e-6)

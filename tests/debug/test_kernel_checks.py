"""LAMPION_CHECK: wrong kernels are found as they run, and a file repeats each mismatch alone."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import lampion as torch
from lampion.codegen import bodies, service
from lampion.debug.check import KernelMismatch, Tagged, _laid_out, _pack, _unpack, load, replay
from lampion.debug.knobs import override
from lampion.ops.optimize import UPDATES
from lampion.ops.record import LEAVES

ROOT = Path(__file__).resolve().parents[2]


def forget():
    """Kernels and plans are made anew."""
    service.forget()
    for leaf in ("atan2", "mul", "tanh", "sinh"):
        LEAVES[leaf].plans.clear()
        LEAVES[leaf].launches.clear()
    UPDATES["sgd"].launches.clear()


@pytest.fixture(autouse=True)
def checked():
    forget()
    with override(kernels="sync", check=True, cache_mb=0):
        yield
    forget()


@contextmanager
def wrong(monkeypatch, name):
    """A body that is wrong by a little."""
    right = bodies.BODIES[name]
    with monkeypatch.context() as patch:
        patch.setitem(bodies.BODIES, name,
                      lambda k, kind, *args: right(k, kind, *args) + 1e-3)
        yield


def run_operator():
    torch.sinh(torch.linspace(-1, 1, 20_011)[3:])


def run_gradient():
    x = torch.linspace(-1, 1, 20_000).reshape(100, 200).t().requires_grad_()
    torch.tanh(x).sum().backward()


def run_summed_gradient():
    x, y = torch.linspace(-1, 1, 20_000).reshape(100, 200), torch.ones(100, 1, requires_grad=True)
    torch.atan2(x, y).sum().backward()


def run_update():
    p = torch.ones(20_000, requires_grad=True)
    p.grad = torch.linspace(0, 1, 20_000)
    torch.optim.SGD([p], lr=0.25).step()


@pytest.mark.parametrize("run, body, name", [
    (run_operator, "sinh", "sinh"), (run_gradient, "subtract", "tanh:input"),
    (run_summed_gradient, "multiply", "atan2:other:100x1"),
    (run_update, "multiply", "sgd")])
def test_a_wrong_kernel_is_found_and_repeated(monkeypatch, run, body, name):
    with wrong(monkeypatch, body):
        with pytest.raises(KernelMismatch, match=f"kernel of {name} .* elements, first at") as info:
            run()
        place = str(info.value).split(" are in ")[1].split(" ")[0]
        forget()
        with pytest.raises(KernelMismatch, match=f"kernel of {name}"):
            replay(place)
    forget()
    run()
    assert replay(place) == f"{name}: the kernel and its reference agree"
    done = subprocess.run([sys.executable, "-m", "lampion.debug.check", place], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (
        f"{name}: the kernel and its reference agree\n", "")
    Path(place).unlink()


def test_files_keep_where_arrays_lie(monkeypatch):
    x = torch.linspace(-1, 1, 20_011)[3:]
    with wrong(monkeypatch, "sinh"), pytest.raises(KernelMismatch) as info:
        torch.sinh(x)
    place = str(info.value).split(" are in ")[1].split(" ")[0]
    (array,), attributes = load(place).arguments
    assert array.shape == (20_008,) and attributes == ()
    assert array.ctypes.data % 64 == x.data_ptr() % 64
    Path(place).unlink()


@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: x.T, lambda x: x[::-1, ::2], lambda x: x[1:, 3:4],
    lambda x: np.broadcast_to(x[:1], (5, 8)), lambda x: x[:0], lambda x: x[2, 2],
    lambda x: x[::-2, ::-1].T])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "bfloat16"])
def test_layouts_are_made_again(make, dtype):
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    x = np.asarray(make((np.arange(48).reshape(6, 8) % 7).astype(kind)))
    how = _pack(x, [])
    made = _laid_out(x, x.dtype, how)
    assert made.dtype == x.dtype and np.array_equal(made, x)
    assert made.strides == x.strides or x.size == 0
    assert (made.ctypes.data - x.ctypes.data) % 64 == 0 or x.size == 0


def test_values_are_made_again():
    given = (1, 2.5, float("inf"), None, True, "mean", (1, (2, 3)), np.float32(0.1),
             np.dtype("int8"), Tagged("dtype", "float32"))
    assert _unpack(_pack(given, []), {}) == given
    with pytest.raises(ValueError, match="cannot be made again: <object object"):
        _unpack(_pack((object(),), []), {})


def test_sums_that_cancel_are_no_mismatch():
    x = torch.randn(64, 64, 20, requires_grad=True)
    torch.nn.functional.batch_norm(x * 3, None, None, training=True).sum().backward()
    assert float(x.grad.abs().max()) < 1e-3


def test_training_is_checked_throughout():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.LayerNorm(128),
                                torch.nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        x, y = torch.randn(96, 64), torch.randint(10, (96,))
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)

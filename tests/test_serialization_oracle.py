"""Files that PyTorch reads and writes."""

import io
import warnings

import numpy as np
import pytest

import lampion
from lampion.utils.data import DataLoader, TensorDataset

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle


def tensors(lib):
    base = lib.arange(12.0).reshape(3, 4)
    parts = {
        "base": base, "row": base[1], "turned": base.t(), "strided": base[:, ::2],
        "scalar": lib.tensor(3.0), "empty": lib.zeros(0, 3), "stretched": lib.ones(1).expand(3),
        "parameter": lib.nn.Parameter(lib.ones(2)), "size": lib.Size([1, 2]), "d": lib.float64,
        "device": lib.device("cpu"), "meta": lib.empty(2, 3, device="meta"),
        "last": lib.ones(1, 2, 3, 3).to(memory_format=lib.channels_last),
    }  # fmt: skip
    for name in ("float16", "bfloat16", "float8_e5m2", "uint16", "uint64", "int8", "bool",
                 "complex64"):  # fmt: skip
        parts[name] = lib.tensor([0.0, 1.0]).to(getattr(lib, name))
    return parts


def described(values):
    out = {}
    for name, value in values.items():
        if isinstance(value, (torch.Tensor, lampion.Tensor)):
            numbers = None if value.is_meta else value.tolist()
            value = (type(value).__name__, str(value.dtype), tuple(value.shape), value.stride(),
                     value.requires_grad, numbers)  # fmt: skip
        out[name] = value if isinstance(value, tuple) else repr(value)
    return out


@pytest.mark.parametrize("zipped", [True, False])
def test_reading_pytorchs_files(zipped):
    file = io.BytesIO()
    torch.save(tensors(torch), file, _use_new_zipfile_serialization=zipped)
    file.seek(0)
    back = lampion.load(file)
    assert described(back) == described(tensors(torch))
    back["base"][1, 0] = 99
    assert back["row"][0] == 99 and back["turned"][0, 1] == 99


@pytest.mark.parametrize("mmap", [False, True])
def test_pytorch_reads_ours(tmp_path, mmap):
    path = tmp_path / "ours.pt"
    ours = tensors(lampion)
    lampion.save(ours, path)
    back = torch.load(path, weights_only=True, mmap=mmap)
    for name, value in described(tensors(lampion)).items():
        if name != "strided":
            assert described(back)[name] == value
    back["base"][1, 0] = 99
    assert back["row"][0] == 99 and back["turned"][0, 1] == 99


def test_training_state_goes_both_ways():
    states = []
    for lib in (torch, lampion):
        model = lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.BatchNorm1d(3))
        optimizer = lib.optim.Adam(model.parameters())
        model(lib.ones(4, 2) * lib.arange(4.0)[:, None]).square().sum().backward()
        optimizer.step()
        file = io.BytesIO()
        lib.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        states.append((file, model, optimizer))
    for lib, (file, _, _), (_, model, optimizer) in zip((lampion, torch), states, states[::-1]):
        file.seek(0)
        saved = lib.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        assert optimizer.state_dict()["state"][0]["step"].item() == 1


def test_whole_modules_go_both_ways():
    x = np.ones((3, 2), np.float32)
    for here, there in ((torch, lampion), (lampion, torch)):
        model = here.nn.Sequential(here.nn.Linear(2, 3), here.nn.ReLU())
        file = io.BytesIO()
        here.save(model, file)
        file.seek(0)
        other = there.load(file, weights_only=False)
        want = model(here.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(other(there.from_numpy(x)).detach().numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"batch_size": 4, "drop_last": True}])
def test_loaders_shuffle_alike(workers, options):
    orders = []
    for lib, loader, dataset in (
        (torch, torch.utils.data.DataLoader, torch.utils.data.TensorDataset),
        (lampion, DataLoader, TensorDataset),
    ):
        lib.manual_seed(7)
        batches = loader(dataset(lib.arange(23)), shuffle=True, num_workers=workers, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's worker processes warn about forking
            epochs = [[b[0].tolist() for b in batches] for _ in range(2)]
        orders.append((epochs, lib.rand(1).item()))
    assert orders[0] == orders[1]

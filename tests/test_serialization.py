"""torch.save and torch.load: round trips, sharing, sizes, locations, formats."""

import io
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

import lampion as torch
from lampion import nn


def reload(obj, **kwargs):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file, **kwargs)


DTYPES = [
    "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "int16",
    "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name):
    dtype = getattr(torch, name)
    t = torch.tensor([[0.0, 1.0, 2.0]]).to(dtype)
    for back in (reload(t), pickle.loads(pickle.dumps(t))):
        assert back.dtype is dtype and back.shape == (1, 3)
        assert back.to(torch.complex64).tolist() == t.to(torch.complex64).tolist()


@pytest.mark.parametrize("t", [
    torch.tensor(3.0), torch.zeros(0, 3), torch.arange(6.0).reshape(2, 3).t(),
    torch.ones(1).expand(4), torch.arange(24.0).reshape(1, 2, 3, 4)[:, :, 1:, ::2],
    torch.ones(2, requires_grad=True), nn.Parameter(torch.ones(2), requires_grad=False),
])  # fmt: skip
def test_shapes_and_kinds(t):
    back = reload(t)
    assert type(back) is type(t) and back.shape == t.shape and back.tolist() == t.tolist()
    assert back.requires_grad == t.requires_grad


def test_strides_of_dense_tensors_stay():
    t = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert reload(t).stride() == t.stride()
    meta = reload(torch.empty(3, 2, device="meta"))
    assert meta.is_meta and meta.shape == (3, 2)


@pytest.mark.parametrize("value", [
    None, True, 2**70, -1.5, "text", b"bytes", (1, (2, [3])), {1, 2}, frozenset([3]), 1j,
    OrderedDict(a=1), Counter("aab"), slice(1, 2), torch.Size([1, 2]), torch.float32,
    torch.channels_last, torch.strided, np.float32(2.5), np.int64(3), bytearray(b"x"),
])  # fmt: skip
def test_plain_values(value):
    back = reload([value])[0]
    assert back == value and type(back) is type(value)


def test_more_values():
    assert reload(torch.device("cpu")) == torch.device("cpu")
    assert reload(defaultdict(list, a=[1]))["b"] == []
    back = reload(np.arange(6, dtype="<i2").reshape(2, 3))
    assert back.dtype == np.int16 and back.tolist() == [[0, 1, 2], [3, 4, 5]]
    shared = [1]
    first, second = reload((shared, shared))
    assert first is second


def test_views_stay_shared_and_others_apart():
    base = torch.arange(6.0)
    back = reload({"base": base, "part": base[2:4], "flat": base.view(2, 3), "own": base.clone()})
    back["base"][2] = 99
    assert back["part"][0] == 99 and back["flat"][0, 2] == 99 and back["own"][2] == 2


def test_overlapping_slices_are_shared_without_their_base():
    base = torch.arange(1000.0)
    a, b, far = reload((base[10:20], base[15:25], base[900:901]))
    a[5] = -1
    assert b[0] == -1 and far.item() == 900


def test_views_of_another_dtype_stay_shared():
    bits = torch.tensor([1.0, 2.0])
    a, b = reload((bits, bits.view(torch.int32)))
    a[0] = 0
    assert b.tolist() == [0, 0x40000000]


@pytest.mark.parametrize("view", [
    lambda t: t[5:15], lambda t: t.reshape(1000, 1000)[:10, 3], lambda t: t[::100_000],
])  # fmt: skip
def test_only_bytes_in_use_are_written(view):
    t = view(torch.arange(1_000_000.0))
    file = io.BytesIO()
    torch.save(t, file)
    assert len(file.getvalue()) < 3000
    file.seek(0)
    assert torch.load(file).tolist() == t.tolist()


def test_module_and_optimizer_states():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    state = reload({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    other.load_state_dict(state["model"])
    again = torch.optim.Adam(other.parameters())
    again.load_state_dict(state["optimizer"])
    for p, q in zip(model.parameters(), other.parameters()):
        assert torch.equal(p, q)
        assert torch.equal(optimizer.state[p]["exp_avg"], again.state[q]["exp_avg"])
    assert again.param_groups[0]["lr"] == 0.1


def test_whole_modules():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with pytest.raises(pickle.UnpicklingError, match=r"torch.nn.modules.container.Sequential"):
        reload(model)
    x = torch.randn(4, 2)
    assert torch.equal(reload(model, weights_only=False)(x), model(x))


class Point:
    def __init__(self, x):
        self.x = x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)


def test_unknown_classes_are_refused_by_name():
    with pytest.raises(pickle.UnpicklingError, match=r"GLOBAL .*Point was not an allowed global"):
        reload({"p": Point(1)})


def test_classes_can_be_allowed():
    with torch.serialization.safe_globals([Point]):
        assert reload(Point(3)).x == 3
        assert torch.serialization.get_safe_globals() == [Point]
    with pytest.raises(pickle.UnpicklingError):
        reload(Point(3))
    torch.serialization.add_safe_globals([(Point, f"{__name__}.Point"), pathlib.PurePosixPath])
    try:
        assert reload([Point(2)])[0].x == 2
        assert reload(pathlib.PurePosixPath("a/b")) == pathlib.PurePosixPath("a/b")
    finally:
        torch.serialization.clear_safe_globals()


def test_unknown_classes_become_records_when_asked():
    with pytest.warns(UserWarning, match=r"inert records: .*Point"):
        back = reload({"p": Point(1), "t": torch.ones(1)}, weights_only=False)
    assert repr(back["p"]).startswith("<unknown ") and back["p"].state == {"x": 1}
    assert back["t"].item() == 1
    assert isinstance(reload(Net(), weights_only=False), Net)


def test_paths(tmp_path):
    path = tmp_path / "model.v1.pt"
    torch.save(torch.ones(2), path)
    assert torch.load(str(path)).tolist() == [1, 1]
    assert zipfile.ZipFile(path).namelist()[0] == "model.v1/data.pkl"
    assert os.listdir(tmp_path) == ["model.v1.pt"]
    with pytest.raises(RuntimeError, match=r"Parent directory .* does not exist"):
        torch.save(1, tmp_path / "none" / "x.pt")
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "none.pt")


def test_links_and_modes_stay(tmp_path):
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    torch.save(1, real)
    os.chmod(real, 0o640)
    link.symlink_to(real)
    torch.save(2, link)
    assert link.is_symlink() and torch.load(real) == 2
    assert os.stat(real).st_mode & 0o777 == 0o640


def test_mmap(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.arange(1000.0), "e": torch.zeros(0)}, path)
    back = torch.load(path, mmap=True)
    back["a"][0] = 5  # a private copy of the page
    assert torch.load(path)["a"][0] == 0 and back["a"][999] == 999
    with pytest.raises(ValueError, match="f must be a file path"):
        torch.load(io.BytesIO(), mmap=True)


def test_data_is_aligned(tmp_path):
    path = tmp_path / "m.pt"
    torch.save([torch.ones(n) for n in (1, 3, 17)], path)
    raw = path.read_bytes()
    for info in zipfile.ZipFile(path).infolist():
        names = raw[info.header_offset + 26 : info.header_offset + 30]
        extra = int.from_bytes(names[:2], "little") + int.from_bytes(names[2:], "little")
        assert (info.header_offset + 30 + extra) % 64 == 0


@pytest.mark.parametrize("where", [
    "cpu", torch.device("cpu"), {"cpu": "cpu"}, {}, lambda storage, location: storage,
    lambda storage, location: None,
])  # fmt: skip
def test_map_location(where):
    assert reload(torch.ones(2), map_location=where).tolist() == [1, 1]


def test_map_location_elsewhere():
    assert reload(torch.ones(2), map_location="meta").is_meta
    with pytest.raises(RuntimeError, match=r"torch.cuda.is_available\(\) is False"):
        reload(torch.ones(2), map_location="cuda:0")


def test_files_of_several_kinds(tmp_path):
    with pytest.raises(AttributeError, match="'write' attribute"):
        torch.save(1, 3)
    with pytest.raises(AttributeError, match="file that is seekable"):
        torch.load(3)
    path = tmp_path / "two"
    with open(path, "wb") as file:
        file.write(b"before")
        torch.save([1, 2], file)
    with open(path, "rb") as file:
        file.seek(6)
        assert torch.load(file) == [1, 2]


KILLED = """
import os, signal, sys
import lampion as torch
from lampion.serialization import archive

plain, count = archive.Writer.write, 0

def write(self, name, data):
    plain(self, name, data)
    if name == "data/1":
        self._zip.fp.flush()
        os.kill(os.getpid(), signal.SIGKILL)

archive.Writer.write = write
torch.save([torch.zeros(1000), torch.zeros(500)[:300], torch.ones(7)], sys.argv[1])
"""


def test_a_program_killed_while_saving_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"old": torch.arange(3)}, path)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=env, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert torch.load(path)["old"].tolist() == [0, 1, 2]


def test_an_error_while_saving_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(1, path)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        torch.save({"bad": lambda: 0}, path)
    assert torch.load(path) == 1 and os.listdir(tmp_path) == ["m.pt"]


def test_options_that_are_taken():
    file = io.BytesIO()
    torch.save(torch.ones(1), file, pickle, pickle_protocol=4)
    file.seek(0)
    assert torch.load(file, None, pickle, weights_only=True, encoding="utf-8").item() == 1
    with pytest.raises(RuntimeError, match="can be read but not written"):
        torch.save(1, file, _use_new_zipfile_serialization=False)


def test_no_warnings_for_ordinary_files():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reload({"a": torch.ones(2)}, weights_only=False)

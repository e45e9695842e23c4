"""Downloads: cached, checked, complete or absent."""

import hashlib
import os

import pytest

import lampion as torch
from lampion import hub


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.ones(2)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    good, bad = tmp_path / f"net-{digest}.pt", tmp_path / "net-00000000.pt"
    good.write_bytes(path.read_bytes())
    bad.write_bytes(path.read_bytes())
    return good, bad


def test_downloads_once(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.setattr(hub, "_dir", str(tmp_path / "hub"))
    url = weights[0].as_uri()
    state = hub.load_state_dict_from_url(url, check_hash=True, progress=False)
    assert state["w"].tolist() == [1, 1] and "Downloading:" in capsys.readouterr().err
    weights[0].unlink()
    assert hub.load_state_dict_from_url(url)["w"].tolist() == [1, 1]
    named = hub.load_state_dict_from_url(
        weights[1].as_uri(), model_dir=str(tmp_path / "own"), file_name="x.pt", progress=False
    )
    assert named["w"].tolist() == [1, 1] and os.listdir(tmp_path / "own") == ["x.pt"]


def test_a_wrong_hash_leaves_nothing(tmp_path, weights):
    folder = tmp_path / "hub"
    with pytest.raises(RuntimeError, match="invalid hash value"):
        hub.load_state_dict_from_url(
            weights[1].as_uri(), str(folder), check_hash=True, progress=False
        )
    assert os.listdir(folder) == []


def test_folders(monkeypatch):
    monkeypatch.setattr(hub, "_dir", None)
    monkeypatch.setenv("TORCH_HOME", "/somewhere")
    assert hub.get_dir() == os.path.join("/somewhere", "hub")
    hub.set_dir("weights")
    assert hub.get_dir() == "weights"

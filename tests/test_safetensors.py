"""The safetensors library's own PyTorch interface works under `lampion run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("safetensors")

PROGRAM = """
import sys, torch
from safetensors.torch import load, load_file, save, save_file
tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16),
           "c": torch.tensor([1, 2])}
save_file(tensors, sys.argv[1])
for found in (load_file(sys.argv[1]), load(save(tensors))):
    for name, t in tensors.items():
        assert found[name].dtype is t.dtype and torch.equal(found[name], t), name
print("same")
"""


def test_files_go_both_ways(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "lampion", "run", "-c", PROGRAM,
                           str(tmp_path / "x.safetensors")], capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr


def test_a_storage_maps_a_file(tmp_path: Path) -> None:
    import lampion as torch

    path = tmp_path / "bytes"
    path.write_bytes(bytes([1, 2, 3]))
    storage = torch.UntypedStorage.from_file(str(path), False, 3)
    assert storage.tolist() == [1, 2, 3]
    assert torch.asarray(storage, dtype=torch.uint8).tolist() == [1, 2, 3]
    storage[0] = 9
    assert path.read_bytes() == bytes([1, 2, 3])
    assert len(torch.UntypedStorage.from_file(str(path), False, 0)) == 0

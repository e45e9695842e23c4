"""Files that are damaged or made to harm: a clear error, never a crash, never code that runs."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lampion as torch
from lampion import nn
from lampion.export import ExportError, export, load

pytest.importorskip("safetensors")


def parts_of(folder: Path, model: nn.Module, *args: Any) -> dict[str, bytes]:
    export(model, args).save(folder / "made.zip")
    with zipfile.ZipFile(folder / "made.zip") as archive:
        return {n: archive.read(n) for n in archive.namelist()}


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, bytes]:
    return parts_of(tmp_path, nn.Linear(3, 2), torch.ones(4, 3))


def file_of(folder: Path, parts: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "changed.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def changed(parts: dict[str, bytes], name: str, change: Callable[[str], str]) -> dict[str, bytes]:
    return {**parts, name: change(parts[name].decode()).encode()}


GRAPHS: list[tuple[str, str, str]] = [
    ("linear(", "os_system(", "unknown operator"),
    ("%weight: float32[2, 3]", "%weight: float32[2, 4]", "sizes and attributes do not fit|linear"),
    ("%weight: float32[2, 3]", "%wait: float32[2, 3]", "before it is made|no weight"),
    ("[{batch}, 2]\n", "[{batch}, 20000]\n", "the text says"),
    ("[{batch}, 2]\n", "[{batch*99999999999999999}, 2]\n", "the text says|a value of"),
    ("[{batch}, 2]\n", "[{other}, 2]\n", "names a size 'other'"),
    ("float32[{batch}, 2]\n", "float64[{batch}, 2]\n", "the text says"),
    ("linear(%input, %weight, %bias)",
     "read_window(%input, size=(9, 9), stride=(99, -7), offset=3)", "do not fit|says"),
    ("linear(%input, %weight, %bias)",
     "as_strided(%input, size=(9, 9), stride=(1, 1), storage_offset=0, base=0)", "as_strided"),
    ("return", "write %weight.grad <- %weight\n  return", "leaves gradients"),
    ("graph Linear", "import os; graph Linear", "line 1 "),
]


@pytest.mark.parametrize(("old", "new", "message"), GRAPHS)
def test_graphs(old: str, new: str, message: str, parts: Any, tmp_path: Path) -> None:
    assert old in parts["graph.txt"].decode()
    path = file_of(tmp_path, changed(parts, "graph.txt", lambda t: t.replace(old, new)))
    with pytest.raises(ExportError, match=f"no exported program that can be used: .*({message})"):
        load(path)


SIGNATURES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: [], "version"), (lambda s: {**s, "version": 2}, "version"),
    (lambda s: {**s, "inputs": {"tensor": 9}}, "inputs"), (lambda s: {**s, "inputs": 3}, "inputs"),
    (lambda s: {**s, "inputs": {"tuple": [{"tuple": []}, {"dict": []}]}}, "inputs"),
    (lambda s: {**s, "names": [3]}, "names"),
    (lambda s: {**s, "sizes": [["b", "1", 2, 3]]}, "size"),
    (lambda s: {**s, "sizes": []}, "names a size"), (lambda s: {**s, "weights": [3]}, "weight"),
    (lambda s: {**s, "weights": [["x", True]]}, "holds no 'x'"),
    (lambda s: {**s, "growing": {"weight": "run"}}, "grows"),
    (lambda s: {**s, "outputs": {"call": "os.system"}}, "outputs"),
    (lambda s: {**s, "outputs": {"tensor": 7}}, "outputs"),
    (lambda s: {**s, "fixed_because": 3}, "fixed_because"),
]


@pytest.mark.parametrize(("change", "message"), SIGNATURES)
def test_signatures(change: Any, message: str, parts: Any, tmp_path: Path) -> None:
    path = file_of(tmp_path, changed(parts, "signature.json",
                                     lambda t: json.dumps(change(json.loads(t)))))
    with pytest.raises(ExportError, match=message):
        load(path)


def test_archives(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    for data in (b"", b"PK\x03\x04", b"hello" * 99):
        path.write_bytes(data)
        with pytest.raises(ExportError, match="no exported program"):
            load(path)
    with pytest.raises(ExportError, match="compressed"):
        load(file_of(tmp_path, parts, zipfile.ZIP_DEFLATED))
    with pytest.raises(ExportError, match=r"holds no graph\.txt"):
        load(file_of(tmp_path, {"a": b""}))
    with pytest.raises(ExportError, match=r"PyTorch's torch\.export"):
        load(file_of(tmp_path, {"archive/archive_format": b"pt2"}))
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    whole = file_of(tmp_path, parts).read_bytes()
    for end in range(0, len(whole), 211):
        path.write_bytes(whole[:end])
        with pytest.raises(ExportError):
            load(path)
    for text in (b"{", b"[" * 100000, b"\xff\xfe"):
        with pytest.raises(ExportError):
            load(file_of(tmp_path, {**parts, "signature.json": text}))
        with pytest.raises(ExportError):
            load(file_of(tmp_path, {**parts, "weights.safetensors": text}))


class Varied(nn.Module):
    """Operators with templates of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(2, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.words, self.layer = nn.Embedding(7, 4), nn.GRU(4, 3, batch_first=True)
        self.scale = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Any, words: Any) -> Any:
        y = self.scale(self.back(torch.max_pool2d(self.conv(x).relu(), 2)))
        z = self.words(words)
        z = nn.functional.scaled_dot_product_attention(z, z, z) + z.cumsum(1)
        h = self.layer(z)[0].sort(1)[0]
        return y.softmax(-1).flatten(1) @ torch.cat([y.flatten(1), y.flatten(1)]).t(), torch.bmm(
            h, h.mT).topk(2)[0], z.gather(1, words[..., None]), y[:, :, ::2].roll(1, -1)


FUZZ = """
import sys, warnings
import lampion as torch
warnings.simplefilter("ignore")
torch.manual_seed(0)
x, words = torch.randn(3, 2, 4, 4), torch.randint(0, 5, (3, 5))
good = 0
for path in sys.argv[1:]:
    try:
        torch.export.load(path)(x, words)
        good += 1
    except torch.export.ExportError:
        pass
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError, ZeroDivisionError) as e:
        pass
print("survived", good)
"""


def mutated(text: str, rng: random.Random) -> str:
    """The text with a few of its numbers, names or operators changed."""
    for _ in range(rng.randint(1, 3)):
        spots = list(re.finditer(r"-?\d+(\.\d+)?|True|False|%[\w.]+|\b[a-z_]+(?=\()", text))
        spot = rng.choice(spots)
        others = [s[0] for s in spots if s[0][:1].isalpha() == spot[0][:1].isalpha()
                  and (s[0][0] == "%") == (spot[0][0] == "%")]
        numbers = ["0", "1", "-1", "3", "7", "64", "-9", "1000000", "4611686018427387904", "0.5"]
        new = rng.choice(others if spot[0][0] == "%" or rng.random() < 0.3 else numbers)
        text = text[:spot.start()] + new + text[spot.end():]
    return text


def test_mutated_graphs_never_crash(tmp_path: Path) -> None:
    x, words = torch.randn(3, 2, 4, 4), torch.randint(0, 5, (3, 5))
    parts = parts_of(tmp_path, Varied().eval(), x, words)
    rng, paths = random.Random(5), []
    for i in range(120):
        folder = tmp_path / str(i)
        folder.mkdir()
        paths.append(str(file_of(folder, changed(parts, "graph.txt", lambda t: mutated(t, rng)))))
    done = subprocess.run([sys.executable, "-c", FUZZ, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0

"""Exported programs: same results without the source, at other sizes, from files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.export import Dim, ExportedProgram, ExportError, dims, export, load, save
from lampion.testing import assert_close

pytest.importorskip("safetensors")


class Block(nn.Module):
    def __init__(self, size: int = 16, longest: int = 32) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(size), nn.Linear(size, 3 * size), nn.Linear(
            size, size)
        self.register_buffer("mask", torch.ones(longest, longest).tril().bool())

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = (p.view(b, t, 2, c // 2).transpose(1, 2)
                   for p in self.qkv(self.norm(x)).split(c, 2))
        scores = (q @ k.transpose(-2, -1)) / (c // 2) ** 0.5
        scores = scores.masked_fill(~self.mask[:t, :t], -float("inf"))
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c)
        return x + self.out(y)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 16), nn.Embedding(32, 16)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Any) -> Any:
        assert tokens.shape[1] <= 32
        places = torch.arange(tokens.shape[1])
        return self.head(self.blocks(self.words(tokens) + self.places(places)))


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=2), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Dropout(), nn.Linear(8, 5)).eval()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer, self.head = kind(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(x)[0][:, -1])


torch.manual_seed(0)
MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), (4, 6)),
    "images": (images, (2, 3, 8, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 4, 5)),
    "gru": (lambda: Recurrent(nn.GRU), (3, 4, 5)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (2, 4, 8)),
    "upsampling": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.Upsample(
        scale_factor=2, mode="bilinear"), nn.GroupNorm(3, 3)), (2, 2, 4, 4)),
}


def again(program: ExportedProgram, folder: Path) -> ExportedProgram:
    """The program through a file; saving it again gives the same bytes."""
    first, second = folder / "a.zip", folder / "b.zip"
    save(program, first)
    loaded = load(str(first))
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert str(loaded) == str(program)
    return loaded


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model = make()
    program = export(model, (torch.randn(shape),))
    loaded = again(program, tmp_path)
    for rows in (shape[0], 1, 6):
        x = torch.randn(rows, *shape[1:])
        with torch.no_grad():
            want = model(x)
        for p in (program, loaded, loaded.module()):
            assert_close(p(x), want, rtol=1e-4, atol=1e-5)
    assert program.range_constraints == {"batch": (1, None)}


def test_two_sizes_and_tensors_that_grow(tmp_path: Path) -> None:
    model = Language()
    batch, length = Dim("batch"), Dim("length", max=32)
    tokens = torch.randint(0, 11, (3, 8))
    program = export(model, (tokens,), dynamic_shapes={"tokens": {0: batch, 1: length}})
    loaded = again(program, tmp_path)
    for shape in ((3, 8), (1, 2), (5, 32), (2, 16), (16, 16)):
        x = torch.randint(0, 11, shape)
        with torch.no_grad():
            assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ExportError, match=r"length=33 is outside of .*: 1 to 32"):
        loaded(torch.zeros(1, 33, dtype=torch.int64))
    with pytest.raises(ExportError, match=r"fails with sizes .*AssertionError.*Dim\(name"):
        export(model, (tokens,), dynamic_shapes=({0: batch, 1: Dim("length")},))


def test_arguments_and_results_of_all_kinds(tmp_path: Path) -> None:
    def fn(x: Any, pair: Any, *, scale: float = 1.0, flag: bool = True) -> Any:
        y = x * scale + pair["a"] - pair["b"][0]
        return {"y": y, "parts": [y.sum(), (None, 3, x)]} if flag else y
    x, a, b = torch.randn(2, 3), torch.randn(2, 3), torch.randn(3)
    program = again(export(fn, (x, {"a": a, "b": (b,)}), {"scale": 2.5, "flag": True}), tmp_path)
    got = program(x, {"a": a, "b": (b,)}, flag=True, scale=2.5)
    assert_close(got["y"], fn(x, {"a": a, "b": (b,)}, scale=2.5)["y"])
    assert got["parts"][1][:2] == (None, 3) and torch.equal(got["parts"][1][2], x)
    for args, kwargs in (((x,), {}), ((x, {"a": a, "b": (b,)}), {"scale": 2.0, "flag": True}),
                         ((x, {"a": a, "b": [b]}), {"scale": 2.5, "flag": True})):
        with pytest.raises(ExportError, match="it was exported for"):
            program(*args, **kwargs)
    with pytest.raises(ExportError, match="Arguments of a program are tensors"):
        export(fn, (x, object()))


def test_arguments_that_do_not_fit() -> None:
    program = export(nn.Linear(3, 2), (torch.ones(4, 3),))
    with pytest.raises(ExportError, match=r"argument input: expected float32\[\{batch\}, 3\]"):
        program(torch.ones(4, 4))
    with pytest.raises(ExportError, match="received float64"):
        program(torch.ones(4, 3, dtype=torch.float64))
    fixed = export(nn.Linear(3, 2), (torch.ones(4, 3),), dynamic_shapes=({0: None},))
    with pytest.raises(ExportError, match=r"\[4, 3\]; sizes that vary are named in"):
        fixed(torch.ones(5, 3))
    two = export(lambda x, y: x + y, (torch.ones(4), torch.ones(4)))
    with pytest.raises(ExportError, match=r"expected float32\[\{batch\}\] with batch=5"):
        two(torch.ones(5), torch.ones(6))


def test_sizes_that_cannot_vary() -> None:
    def by_size(x: Any) -> Any:
        return x * 2 if x.shape[0] > 12 else x
    program = export(by_size, (torch.ones(4),))
    assert not program.range_constraints and "something else" in program.fixed_because
    with pytest.raises(ExportError, match="the batch cannot vary: "):
        program(torch.ones(5))
    with pytest.raises(ExportError, match="does something else than"):
        export(by_size, (torch.ones(4),), dynamic_shapes=({0: Dim("n")},))
    with pytest.raises(ExportError, match="no sum of products"):
        export(lambda x: x * (1 / x.shape[0]), (torch.ones(4),), dynamic_shapes=({0: "n"},))
    at_one = export(lambda x: x + torch.arange(float(x.shape[0])) if x.shape[0] > 1 else x * 2,
                    (torch.ones(4),))
    assert at_one.range_constraints == {"batch": (2, 1024)}
    assert_close(at_one(torch.zeros(900)), torch.arange(900.0))


def test_sizes_in_numbers() -> None:
    fn = lambda x: x.sum() / x.shape[0] + x.view(-1)[: 2 * x.shape[0] - 1].sum() * x.shape[0]
    program = export(fn, (torch.randn(4, 3),))
    x = torch.randn(9, 3)
    assert_close(program(x), fn(x), rtol=1e-4, atol=1e-4)
    assert "{2*batch-1}" in str(program)


def test_dims() -> None:
    a, b = dims("a", "b", max=9)
    assert (a.__name__, b.max) == ("a", 9)
    with pytest.raises(ValueError, match="inconsistent"):
        Dim("a", min=3, max=2)
    with pytest.raises(ValueError, match="a name"):
        Dim("a b")
    x = torch.ones(4, 5)
    with pytest.raises(ExportError, match="stands for sizes 4 and 5"):
        export(lambda x: x, (x,), dynamic_shapes={"x": {0: a, 1: a}})
    program = export(lambda x: x * 2, (x,), dynamic_shapes={"x": (Dim.AUTO, Dim.STATIC)})
    assert program.range_constraints == {"s4": (1, None)}


def test_what_cannot_be_exported_names_the_line() -> None:
    def reads(x: Any) -> Any:
        return x if x.sum() > 0 else -x
    with pytest.raises(ExportError, match=r"reading a value with bool.*return x if x.sum"):
        export(reads, (torch.ones(2),))
    with pytest.raises(ExportError, match="args` to be a tuple"):
        export(nn.ReLU(), torch.ones(2))
    with pytest.raises(ValueError, match="Expected `mod` to be"):
        export(3, ())


def test_buffers_that_the_program_writes(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Any) -> Any:
            self.total += x.sum(0)
            return self.total * 1

    model = Counter()
    program = again(export(model, (torch.ones(2, 3),)), tmp_path)
    assert torch.equal(model.total, torch.zeros(3))
    program(torch.ones(2, 3))
    assert_close(program(torch.ones(3, 3)), torch.full((3,), 5.0))
    assert_close(program.state_dict["total"], torch.full((3,), 5.0))


def test_dropout_draws() -> None:
    program = export(nn.Dropout(), (torch.ones(4, 100),))
    torch.manual_seed(1)
    got = program(torch.ones(2, 100))
    torch.manual_seed(1)
    assert torch.equal(got, F.dropout(torch.ones(2, 100)))


def test_gradients_transforms_and_compile() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    program, x = export(model, (torch.ones(2, 3),)), torch.randn(5, 3)
    module = program.module()
    assert not module(x).requires_grad
    for p in module.parameters():
        p.requires_grad_()
    module(x).sum().backward()
    model(x).sum().backward()
    assert_close(dict(module.named_parameters())["0.weight"].grad, model[0].weight.grad)
    slope = torch.func.grad(lambda x: program(x[None]).sum())
    compiled = torch.compile(lambda x: module(x) * 2, mode="wait")
    assert_close(compiled(x), model(x) * 2)
    assert compiled.programs == 1
    assert_close(torch.func.vmap(slope)(x), torch.func.grad(lambda x: model(x).sum())(x))


def test_names_of_torch_export() -> None:
    model = nn.Linear(3, 2)
    program = torch.export.export(model, (torch.ones(4, 3),))
    assert isinstance(program, torch.export.ExportedProgram)
    assert isinstance(torch.export(model, (torch.ones(4, 3),)), ExportedProgram)
    assert set(program.state_dict) == {"weight", "bias"}
    assert [n for n, _ in program.named_parameters()] == ["weight", "bias"]
    assert str(program.graph).startswith("graph Linear(%input: float32[4, 3]")
    module = program.module()
    assert set(module.state_dict()) == {"weight", "bias"}
    with pytest.raises(NotImplementedError, match="eval"):
        module.eval()
    seen: list[bool] = []
    export(lambda x: (seen.append(torch.compiler.is_exporting()), x * 2)[1], (torch.ones(2),))
    assert all(seen) and not torch.compiler.is_exporting()


SCRIPT = """
import sys, torch
program = torch.export.load(sys.argv[1])
print(program(torch.arange(6.0).view(2, 3)).tolist())
"""


def test_a_file_runs_without_the_source(tmp_path: Path) -> None:
    model, path = nn.Linear(3, 1, dtype=torch.float32), tmp_path / "linear.zip"
    with torch.no_grad():
        model.weight.fill_(1)
        model.bias.fill_(0.5)
    export(model, (torch.ones(1, 3),)).save(path)
    done = subprocess.run([sys.executable, "-m", "lampion", "run", "-c", SCRIPT, str(path)],
                          capture_output=True, text=True)
    assert done.stdout.strip() == "[[3.5], [12.5]]", done.stderr
    from safetensors.numpy import load as load_weights

    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["graph.txt", "signature.json", "weights.safetensors"]
        assert load_weights(archive.read("weights.safetensors"))["bias"].tolist() == [0.5]


def test_weights_of_other_types(tmp_path: Path) -> None:
    model = nn.Linear(3, 2, dtype=torch.bfloat16)
    program = export(model, (torch.ones(2, 3, dtype=torch.bfloat16),))
    x = torch.randn(4, 3).bfloat16()
    with torch.no_grad():
        assert torch.equal(again(program, tmp_path)(x), program(x))


def test_without_safetensors(monkeypatch, tmp_path: Path) -> None:
    program = export(nn.ReLU(), (torch.ones(2),))
    program.save(tmp_path / "a.zip")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: program.save(tmp_path / "b.zip"), lambda: load(tmp_path / "a.zip")):
        with pytest.raises(ExportError, match=r"pip install 'lampion\[safetensors\]'"):
            call()


def test_an_example_of_one_row_stands_for_more() -> None:
    model = Recurrent(nn.LSTM)
    program, x = export(model, (torch.randn(1, 4, 5),)), torch.randn(3, 4, 5)
    with torch.no_grad():
        assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)

"""Exported models give what the model gives, run by ONNX's own reference evaluator."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import lampion as torch
from lampion import nn

F = nn.functional


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 3, bias=False)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.embedding(ids))
        x = F.gelu(x) + F.silu(x) * 2 - F.leaky_relu(x, 0.1).clamp(-1, 0.5)
        weights = torch.softmax(x @ x.transpose(1, 2) / 2, -1)
        y = self.linear(weights @ x)
        return torch.cat([y, y[:, :1].expand(-1, 2, -1)], 1).permute(0, 2, 1), y.mean(1)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, groups=2), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(4, 3), nn.LogSoftmax(-1))


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Sigmoid()),
            lambda: torch.randn(3, 4)),
    "convolutional": (convolutional, lambda: torch.randn(2, 1, 8, 8)),
    "mixed": (Mixed, lambda: torch.randint(0, 7, (2, 5))),
}


@pytest.mark.parametrize("name", CASES)
def test_same_results(name: str, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    model, x = CASES[name][0](), CASES[name][1]()
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, input_names=["x"])
    assert model.training
    session = ReferenceEvaluator(onnx.load(path))
    found = session.run(None, {"x": x.numpy()})
    expected = model.eval()(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found):
        np.testing.assert_allclose(theirs, ours.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_names_files_and_weights() -> None:
    pytest.importorskip("onnx")
    model, buffer = nn.Linear(2, 1), io.BytesIO()
    made = torch.onnx.export(model, torch.randn(3, 2), buffer, input_names=["features"],
                             output_names=["score"])
    graph = made.model_proto.graph
    assert [i.name for i in graph.input] == ["features"]
    assert [o.name for o in graph.output] == ["score"]
    assert {"weight", "bias"} <= {t.name for t in graph.initializer}
    assert buffer.getvalue() == made.model_proto.SerializeToString()
    assert not torch.onnx.is_in_onnx_export()


def test_what_has_no_translation_says_so() -> None:
    pytest.importorskip("onnx")
    with pytest.raises(torch.onnx.OnnxExporterError, match="operator cumsum to ONNX"):
        torch.onnx.export(lambda x: x.cumsum(0), torch.ones(3))
    with pytest.raises(torch.onnx.OnnxExporterError, match="opset_version must be at least"):
        torch.onnx.export(nn.Linear(1, 1), torch.ones(1, 1), opset_version=9)
    with pytest.raises(NotImplementedError, match="dynamic sizes"):
        torch.onnx.export(nn.Linear(1, 1), torch.ones(1, 1), dynamic_axes={"x": [0]})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "lampion.onnx.writer", raising=False)
    with pytest.raises(torch.onnx.OnnxExporterError, match="pip install onnx"):
        torch.onnx.export(nn.Linear(1, 1), torch.ones(1, 1))

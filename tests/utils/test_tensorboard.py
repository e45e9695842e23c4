"""SummaryWriter over tensorboardX."""

import os
import sys

import pytest

import lampion as torch
from lampion.utils.tensorboard import SummaryWriter


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "lampion\[tensorboard\]"'):
        SummaryWriter()


@pytest.mark.filterwarnings("ignore")
def test_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", torch.tensor(1.5), 1)
        writer.add_scalars("both", {"a": torch.ones(()), "b": 2.0}, 1)
        writer.add_histogram("h", torch.randn(10).bfloat16(), 1)
        writer.add_image("i", torch.rand(3, 4, 4))
        writer.add_text("t", "text")
        writer.add_pr_curve("p", torch.tensor([0, 1]), torch.tensor([0.1, 0.9]))
        writer.add_hparams({"lr": 0.1}, {"accuracy": torch.tensor(0.5)})
        writer.flush()
        assert writer.get_logdir() == str(tmp_path)
        with pytest.raises(NotImplementedError, match="add_graph"):
            writer.add_graph(None)
    files = [name for name in os.listdir(tmp_path) if name.startswith("events.out")]
    raw = b"".join((tmp_path / name).read_bytes() for name in files)
    assert b"loss" in raw and b"accuracy" not in os.fsencode(str(tmp_path))

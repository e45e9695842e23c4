"""The programs in examples/ run under `lampion run`, and print what they print under PyTorch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(p.name for p in (ROOT / "examples").glob("*.py"))
NEEDS_DATA = {"digits_cnn.py", "digits_mlp.py", "digits_vae.py"}


@cache
def output(name: str, *command: str) -> str:
    if name in NEEDS_DATA:
        pytest.importorskip("sklearn")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *command, f"examples/{name}"], cwd=ROOT, timeout=120,
                          env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_lampion(name: str) -> str:
    return output(name, "-m", "lampion", "run")


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs(name):
    text = on_lampion(name)
    assert text.strip()
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d+)", text)]
    assert not losses or losses[-1] < losses[0]


@pytest.mark.oracle
@pytest.mark.parametrize("name", EXAMPLES)
def test_prints_what_pytorch_prints(name):
    pytest.importorskip("torch")
    assert on_lampion(name) == output(name)

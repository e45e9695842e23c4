"""A seeded training reproduces PyTorch's loss curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training import TRAININGS

import lampion
import lampion.optim
import lampion.utils.data

RECORDED = json.loads(Path(__file__).with_name("recorded_loss_curves.json").read_text())


@pytest.mark.parametrize("name", TRAININGS)
def test_curve_equals_the_recorded_one(name):
    losses = TRAININGS[name](lampion)
    assert losses == pytest.approx(RECORDED[name], rel=1e-4)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.oracle
@pytest.mark.parametrize("name", TRAININGS)
def test_curve_equals_pytorchs(name):
    torch = pytest.importorskip("torch")
    assert TRAININGS[name](lampion, 30) == pytest.approx(TRAININGS[name](torch, 30), rel=1e-4)

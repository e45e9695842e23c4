"""Averaged models and batch norm statistics."""

import pytest

import lampion as torch
from lampion import nn
from lampion.optim import swa_utils


def model(value):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(value)
    return net


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.0),
        ({"avg_fn": swa_utils.get_ema_avg_fn(0.5)}, 2.25),
        ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.5)}, 2.25),
        ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, 2.0),
    ],
)
def test_averages(options, expected):
    averaged = swa_utils.AveragedModel(model(0.0), **options)
    for value in (1.0, 2.0, 3.0):
        averaged.update_parameters(model(value))
    assert all(p.tolist() == torch.full_like(p, expected).tolist() for p in averaged.parameters())
    assert averaged.n_averaged.item() == 3
    assert "module.0.weight" in averaged.state_dict() and "n_averaged" in averaged.state_dict()
    assert averaged(torch.ones(3, 2)).shape == (3, 2)


def test_errors():
    with pytest.raises(ValueError, match="Invalid decay value 2"):
        swa_utils.get_ema_avg_fn(2)
    both = {"avg_fn": lambda a, b, n: b, "multi_avg_fn": lambda a, b, n: None}
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn"):
        swa_utils.AveragedModel(model(1.0), **both)


def test_update_bn():
    net = model(1.0).eval()
    swa_utils.update_bn([(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), 0), (torch.ones(2, 2), 1)], net)
    assert net[1].running_mean.tolist() == [3.0, 3.0]
    assert net[1].momentum == 0.1 and not net.training
    swa_utils.update_bn([], nn.Linear(1, 1))

"""Random programs of views and in-place writes: values and gradients equal PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
from view_programs import run_program

import lampion

torch = pytest.importorskip("torch")


def _first(lib, array: np.ndarray, seed: int, create_graph: bool = False):
    x = lib.tensor(array.tolist(), dtype=lib.float64, requires_grad=True)
    y = run_program(lib, x, seed)
    return x, y, lib.autograd.grad(y, x, create_graph=create_graph)[0]


def _second(lib, array: np.ndarray, seed: int):
    x, _, g = _first(lib, array, seed, create_graph=True)
    return lib.autograd.grad((g * g).sum() + (x * 0).sum(), x)[0]


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(100))
def test_program(seed):
    array = np.linspace(0.5, 1.5, 12).reshape(3, 4)
    (_, y, g), (_, expected_y, expected_g) = (_first(lib, array, seed) for lib in (lampion, torch))
    np.testing.assert_allclose(y.item(), expected_y.item(), rtol=1e-9)
    np.testing.assert_allclose(g.tolist(), expected_g.tolist(), rtol=1e-9, atol=1e-12)
    ours = _second(lampion, array, seed).tolist()
    try:
        theirs = _second(torch, array, seed).tolist()
    except RuntimeError:  # PyTorch's own backward of CopySlices writes to a leaf
        return
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)

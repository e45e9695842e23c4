"""Reshapes inside of a kernel: axes are cut into parts and taken together."""

from __future__ import annotations

import numpy as np
import pytest

from lampion.codegen import service
from lampion.codegen.plan import Untraceable, plan

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    from lampion.debug.knobs import knobs

    monkeypatch.setattr(knobs, "kernels", "sync")


def r(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


CASES = {
    "axes taken together": (lambda a, b: a.reshape(6, 5) * b, r(2, 3, 5), r(6, 5)),
    "an axis cut": (lambda a, b: a.reshape(2, 3, 5) * b, r(6, 5), r(2, 3, 5)),
    "cut after it met another": (lambda a, b: (a + b).reshape(2, 3) * 2.0, r(6), r(6)),
    "cut in two ways": (lambda a: a.reshape(2, 6, 5).reshape(4, 3, 5) + 1.0, r(12, 5)),
    "across a cut": (lambda a, b: a.reshape(3, 8) + b.reshape(3, 8), r(6, 4), r(12, 2)),
    "a sum over parts": (lambda a: (a * 2).reshape(4, 15).sum(1), r(4, 3, 5)),
    "a sum over some parts": (lambda a: a.reshape(4, 3, 5).sum(1), r(12, 5)),
    "softmax of merged rows": (
        lambda a: np.exp(a.reshape(6, 5) - a.reshape(6, 5).max(1, keepdims=True)), r(2, 3, 5)),
    "turned, then merged": (lambda a, b: a.transpose(1, 0, 2).reshape(6, 5) * b, r(2, 3, 5),
                            r(6, 5)),
    "with axes of one element": (lambda a, b: a.reshape(1, 6, 1, 5) * b, r(2, 3, 5), r(6, 4, 1)),
    "a long sum": (lambda a: (a.reshape(-1, 6) * 2.0).sum(0), r(512, 128, 6)),
    "a long sum of turned axes": (lambda a: (a * 1.0).reshape(-1, 2, 3).sum(0), r(70000, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_numpy(name):
    fn, *arrays = CASES[name]
    found = plan("reshapes", fn, arrays)(arrays)
    wanted = fn(*arrays)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-4 * np.abs(wanted).max())


def test_axes_without_common_parts_are_refused():
    with pytest.raises(Untraceable, match="no common parts"):
        plan("reshapes", lambda a, b: a.reshape(6) + b.reshape(6), [r(2, 3), r(3, 2)])

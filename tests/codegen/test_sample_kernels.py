"""Kernels of grid_sample against the NumPy reference, corner by corner."""

import numpy as np
import pytest

from lampion.codegen.sample import dots, read, spread
from lampion.ops.reference import grid as reference
from lampion.ops.reference.pool import gather_planes, scatter_planes

pytestmark = pytest.mark.usefixtures("kernels_at_once")


def problem(dtype, channels, cells, count):
    rng = np.random.default_rng(0)
    image, values = (rng.standard_normal((2, channels, n)).astype(dtype) for n in (35, cells))
    places = rng.integers(0, 35, (count, 2, cells)).astype("d")
    return image, values, places, rng.standard_normal((count, 2, cells)).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("channels", "cells", "count"), [(1, 1, 1), (4, 300, 4), (7, 33, 8)])
def test_beside_reference(dtype, channels, cells, count, instructions):
    image, values, places, weights = problem(dtype, channels, cells, count)
    where = [np.broadcast_to(p[:, None].astype(int), values.shape) for p in places]
    seen = np.stack([gather_planes(image, w) for w in where])
    close = {"rtol": 1e-4 if dtype == "f4" else 1e-12, "atol": 1e-5 if dtype == "f4" else 1e-13}

    out, found = np.full_like(values, 7), np.full_like(weights, 7)
    assert read(out, image, places, weights)
    np.testing.assert_allclose(out, (seen * weights[:, :, None]).sum(0), **close)
    assert dots(found, values, image, places)
    np.testing.assert_allclose(found, (seen * values).sum(2), **close)
    total = np.zeros_like(image)
    assert spread(total, values, places, weights)
    expected = sum(scatter_planes(values * w[:, None], at, (35,))
                   for w, at in zip(weights, where, strict=True))
    np.testing.assert_allclose(total, expected, **close)


def test_shapes_that_do_not_fit():
    image, values, places, weights = problem("f4", 2, 5, 4)
    for wrong in ((values[:, :1], image, places, weights), (values, image, places[:3], weights),
                  (values, image, places.astype(int), weights)):
        with pytest.raises(ValueError, match="sample_read"):
            read(*wrong)


def test_every_place_is_inside():
    coords = [np.array([[np.nan, np.inf, -np.inf, 1e30, -1e30, 0.3, -1, 1]], "f")] * 2
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border"):
            rule = reference.Rule((5, 7), mode, padding, False)
            with np.errstate(all="ignore"):
                found = list(reference.corners(coords, rule))
            assert all(((c.place >= 0) & (c.place < 35)).all() for c in found)

"""Random tensors printed by PyTorch and by lampion under random options."""

import random

import numpy as np
import pytest

from lampion.tensor import set_printoptions, wrap

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool", "complex64"]


@pytest.fixture(autouse=True)
def default_options():
    yield
    set_printoptions(profile="default")
    torch.set_printoptions(profile="default")


def random_array(rng):
    shape = tuple(rng.choice([0, 1, 2, 3, 5, 7, 12]) for _ in range(rng.randint(0, 4)))
    noise = np.random.RandomState(rng.randrange(2**31))
    values = noise.standard_normal(shape) * 10.0 ** noise.uniform(-3, rng.choice([3, 9]), shape)
    if rng.random() < 0.3:
        values = np.round(values)
    special = rng.choice([0.0, -0.0, np.nan, np.inf])
    values = np.where(noise.random_sample(shape) < 0.1, special, values)
    dtype = rng.choice(DTYPES)
    if dtype[0] in "iub":
        values = np.nan_to_num(values, posinf=100.0)
    with np.errstate(all="ignore"):
        if dtype == "complex64":
            values = values + 1j * noise.permutation(values.ravel()).reshape(shape)
        return np.array(values).astype(dtype)


def random_options(rng):
    options = {"profile": rng.choice(["default", "short", "full"])}
    if rng.random() < 0.5:
        options["precision"] = rng.randint(0, 8)
    if rng.random() < 0.5:
        options["threshold"] = rng.choice([0, 5, 50])
    if rng.random() < 0.5:
        options["edgeitems"] = rng.randint(0, 4)
    if rng.random() < 0.5:
        options["linewidth"] = rng.choice([1, 20, 60, 200])
    if rng.random() < 0.3:
        options["sci_mode"] = rng.choice([True, False])
    return options


@pytest.mark.parametrize("seed", range(300))
def test_same_text(seed):
    rng = random.Random(seed)
    array, options = random_array(rng), random_options(rng)
    set_printoptions(**options)
    torch.set_printoptions(**options)
    assert repr(wrap(array)) == repr(torch.from_numpy(array.copy()))

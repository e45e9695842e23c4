"""Random operators beside PyTorch's: the same calls from the same seed give the same tensors."""

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")

SIZES = [(), (0,), (1,), (15,), (16,), (17,), (3, 7), (4, 4, 5), (1000,), (33, 40)]

# Each takes the library and a size; transposed and strided tensors fill in memory order.
CALLS = {
    "rand": lambda t, s: t.rand(s),
    "rand_double": lambda t, s: t.rand(s, dtype=t.float64),
    "rand_complex": lambda t, s: t.rand(s, dtype=t.complex64),
    "randn": lambda t, s: t.randn(s),
    "randn_half": lambda t, s: t.randn(s, dtype=t.float16),
    "randn_complex": lambda t, s: t.randn(s, dtype=t.complex64),
    "randn_complex_double": lambda t, s: t.randn(s, dtype=t.complex128),
    "randint": lambda t, s: t.randint(-5, 100, s),
    "randint_wide": lambda t, s: t.randint(0, 2**40, s),
    "randint_float": lambda t, s: t.randint(0, 50, s, dtype=t.float32),
    "randint_half": lambda t, s: t.empty(s, dtype=t.float16).random_(-2000, 2000),
    "random_half_limit": lambda t, s: t.empty(s, dtype=t.float16).random_(5, None),
    "random_int_up": lambda t, s: t.empty(s, dtype=t.int32).random_(7, None),
    "random_long_up": lambda t, s: t.empty(s, dtype=t.int64).random_(7, None),
    "random_all": lambda t, s: t.empty(s, dtype=t.int64).random_(-(2**63), None),
    "random": lambda t, s: t.empty(s, dtype=t.int16).random_(),
    "randint_uint16": lambda t, s: t.randint(0, 60000, s, dtype=t.uint16),
    "uniform_": lambda t, s: t.empty(s).uniform_(-0.3, 0.9),
    "normal_": lambda t, s: t.empty(s).normal_(2.0, 0.1),
    "bernoulli_": lambda t, s: t.empty(s).bernoulli_(0.3),
    "bernoulli": lambda t, s: t.bernoulli(t.rand(s)),
    "bernoulli_p": lambda t, s: t.bernoulli(t.rand(s), 0.2),
    "bernoulli_tensor": lambda t, s: t.empty(s, dtype=t.int64).bernoulli_(t.tensor(0.4)),
    "exponential_": lambda t, s: t.empty(s).exponential_(2.0),
    "geometric_": lambda t, s: t.empty(s, dtype=t.int64).geometric_(0.2),
    "cauchy_": lambda t, s: t.empty(s).cauchy_(1.0, 2.0),
    "log_normal_": lambda t, s: t.empty(s).log_normal_(),
    "normal_mean": lambda t, s: t.normal(t.rand(s), 0.5),
    "normal_std": lambda t, s: t.normal(2.0, t.rand(s)),
    "normal_both": lambda t, s: t.normal(t.rand(s), t.rand(s)),
    "normal_both_mixed": lambda t, s: t.normal(t.rand(s), t.rand(s, dtype=t.float64)),
    "poisson": lambda t, s: t.poisson(t.rand(s) * 12),
    "binomial": lambda t, s: t.binomial(t.full(s, 30.0), t.rand(s)),
    "rand_like": lambda t, s: t.rand_like(t.empty(s)),
    "randint_like": lambda t, s: t.randint_like(t.empty(s), 3, 9),
    "dropout": lambda t, s: t.nn.functional.dropout(t.ones(s), 0.3),
    "dropout_bf16": lambda t, s: t.nn.functional.dropout(t.ones(s, dtype=t.bfloat16), 0.3).float(),
    "alpha_dropout": lambda t, s: t.nn.functional.alpha_dropout(t.ones(s), 0.3, True),
    "native_dropout": lambda t, s: t.native_dropout(t.ones(s), 0.3, True)[0],
    "gumbel": lambda t, s: t.nn.functional.gumbel_softmax(t.ones((*s, 3))),
    "strided_uniform": lambda t, s: t.zeros((*s, 2))[..., 0].uniform_(),
    "strided_normal": lambda t, s: t.zeros((*s, 2))[..., 0].normal_(),
    "turned_normal": lambda t, s: t.empty((2, *s, 3)).transpose(0, -1).normal_(),
    "turned_bernoulli": lambda t, s: t.zeros((2, *s, 3)).transpose(0, -1).bernoulli_(
        t.rand((3, *s, 2))),
    "turned_rand_like": lambda t, s: t.rand_like(t.empty((2, *s, 3)).transpose(0, -1)),
    "turned_dropout": lambda t, s: t.nn.functional.dropout(
        t.ones((2, *s, 3)).transpose(0, -1), 0.5),
}  # fmt: skip
# Sums of several float32 operations; the rest is equal to the last bit of float32.
LOOSE = {"gumbel", "cauchy_", "log_normal_", "exponential_", "alpha_dropout"}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_same_tensor(name, size):
    for seed in (0, 77):
        torch.manual_seed(seed)
        lampion.manual_seed(seed)
        expected, mine = CALLS[name](torch, size), CALLS[name](lampion, size)
        assert str(mine.dtype) == str(expected.dtype)
        assert mine.stride() == expected.stride() or mine.numel() < 2 or 1 in mine.shape
        if name in LOOSE:
            np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(mine.numpy(), expected.numpy())
        assert lampion.get_rng_state().tolist() == torch.get_rng_state().tolist()


CHANNELS = {
    "dropout1d": (4, 6, 5), "dropout2d": (4, 6, 3, 3), "dropout3d": (2, 5, 2, 3, 2),
    "feature_alpha_dropout": (3, 6, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANNELS)
def test_channel_dropout(name):
    torch.manual_seed(3)
    lampion.manual_seed(3)
    shape = CHANNELS[name]
    expected = getattr(torch.nn.functional, name)(torch.ones(shape), 0.4, True)
    mine = getattr(lampion.nn.functional, name)(lampion.ones(shape), 0.4, True)
    np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("samples", [1, 3, 10])
def test_multinomial(samples, replacement):
    for shape in [(10,), (4, 12), (1, 500)]:
        torch.manual_seed(samples)
        lampion.manual_seed(samples)
        expected = torch.multinomial(torch.rand(shape), samples, replacement)
        mine = lampion.multinomial(lampion.rand(shape), samples, replacement)
        assert mine.tolist() == expected.tolist()


def test_generators_exchange_states():
    theirs, mine = torch.Generator().manual_seed(5), lampion.Generator()
    torch.randn(3, generator=theirs)
    mine.set_state(lampion.from_numpy(theirs.get_state().numpy()))
    expected = torch.randn(21, generator=theirs)
    np.testing.assert_array_equal(lampion.randn(21, generator=mine).numpy(), expected.numpy())
    theirs.set_state(torch.from_numpy(mine.get_state().numpy()))
    np.testing.assert_array_equal(
        lampion.rand(5, generator=mine).numpy(), torch.rand(5, generator=theirs).numpy()
    )

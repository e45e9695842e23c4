"""Random operators: figures recorded from PyTorch 2.13, arguments, history, errors."""

import copy
import pickle

import numpy as np
import pytest

import lampion as torch
from lampion import nn

F = nn.functional


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def close(tensor, values, atol=5e-5):
    np.testing.assert_allclose(tensor.detach().numpy(), values, atol=atol)


# --- recorded -------------------------------------------------------------------------------------


def test_first_numbers():
    close(torch.rand(3), [0.4963, 0.7682, 0.0885])
    torch.manual_seed(0)
    close(torch.randn(2), [1.5410, -0.2934])
    torch.manual_seed(0)
    assert torch.randint(0, 10, (5,)).tolist() == [4, 9, 3, 0, 3]
    torch.manual_seed(0)
    assert torch.randperm(10).tolist() == [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]


def test_sixteen_normals_come_from_the_other_path():
    close(torch.randn(16)[:4], [-1.1258, -1.1524, -0.2506, -0.4339])


def test_default_initialisation():
    row = [-0.0026, 0.1897, -0.2910, -0.2602, -0.1362, 0.0948, -0.0070, 0.2803]
    close(nn.Linear(8, 4).weight[0], row)


def test_dropout_masks():
    assert F.dropout(torch.ones(10), 0.5).tolist() == [0, 0, 2, 0, 0, 0, 2, 2, 0, 2]
    torch.manual_seed(0)
    assert F.dropout2d(torch.ones(2, 3, 2, 2), 0.5).flatten()[:9].tolist() == [0] * 8 + [2]
    torch.manual_seed(0)
    low, high = -0.7791939377784729, 1.6655988693237305
    mask = [low, low, high, low, low, low, high, high, low]
    close(F.alpha_dropout(torch.ones(24), 0.5, True)[:9], mask, atol=1e-6)
    torch.manual_seed(0)
    out = F.dropout(torch.ones(8, dtype=torch.bfloat16), 0.3)
    assert out.float().tolist() == [0, 0, 1.4296875, 0, 1.4296875, 0, 1.4296875, 1.4296875]


# --- generators -----------------------------------------------------------------------------------


def test_generators_have_streams_of_their_own():
    g = torch.Generator().manual_seed(0)
    first = torch.rand(4, generator=g)
    torch.rand(9)
    assert not torch.equal(torch.rand(4, generator=g), first)
    assert torch.equal(torch.rand(4, generator=g.manual_seed(0)), first)
    assert torch.Generator().initial_seed() == 67280421310721
    assert str(g.device) == "cpu"


def test_states_copies_and_pickles():
    g = torch.Generator().manual_seed(7)
    torch.randn(3, generator=g)
    twins = [g.clone_state(), copy.deepcopy(g), pickle.loads(pickle.dumps(g))]
    twins.append(torch.Generator().set_state(g.get_state()))
    expected = torch.randn(5, generator=g)
    for twin in twins:
        assert torch.equal(torch.randn(5, generator=twin), expected)
        assert twin.initial_seed() == 7


def test_default_state():
    state = torch.get_rng_state()
    assert state.dtype is torch.uint8 and state.shape == (5056,)
    first = torch.rand(3)
    torch.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    assert torch.initial_seed() == torch.default_generator.initial_seed() == 0
    assert torch.seed() == torch.initial_seed() != 0


def test_fork_rng():
    expected = torch.rand(2)
    torch.manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(0)
    with torch.random.fork_rng(enabled=False):
        torch.rand(3)
    assert not torch.equal(torch.rand(2), expected)


def test_fork_rng_restores_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), torch.random.fork_rng():
        torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_generators():
    with pytest.raises(RuntimeError, match="expected a long, but got str"):
        torch.Generator().manual_seed("3")
    with pytest.raises(RuntimeError, match="cuda"):
        torch.Generator("cuda")
    with pytest.raises(TypeError, match=r"'generator' must be torch\.Generator, not int"):
        torch.rand(2, generator=3)
    with pytest.raises(TypeError, match=r"expected a torch\.ByteTensor, but got list"):
        torch.set_rng_state([1])
    with pytest.raises(TypeError, match=r"must be a torch\.ByteTensor"):
        torch.set_rng_state(torch.zeros(5056))
    with pytest.raises(RuntimeError, match="does not use offset"):
        torch.Generator().get_offset()
    with pytest.raises(ValueError, match="Overflow"):
        torch.manual_seed(2**64)


# --- arguments ------------------------------------------------------------------------------------


def test_sizes():
    for made in [torch.rand(2, 3), torch.rand((2, 3)), torch.rand([2, 3]), torch.rand(size=(2, 3)),
                 torch.randint(4, (2, 3)), torch.randint(high=4, size=(2, 3)),
                 torch.randint(1, 4, size=(2, 3)), torch.normal(0.0, 1.0, (2, 3))]:
        assert made.shape == (2, 3)
    assert torch.rand(()).shape == () and torch.rand(0, 3).shape == (0, 3)


def test_dtypes():
    assert torch.rand(2, dtype=torch.float64).dtype is torch.float64
    assert torch.randn(2, dtype=torch.complex64).dtype is torch.complex64
    assert torch.randint(3, (2,)).dtype is torch.int64
    assert torch.randint(3, (2,), dtype=torch.float16).dtype is torch.float16
    assert torch.randperm(5, dtype=torch.int32).dtype is torch.int32
    x = torch.ones(2, 3, dtype=torch.float64)
    assert torch.rand_like(x).dtype is torch.float64
    assert torch.randint_like(x, 3, 9, dtype=torch.int8).dtype is torch.int8
    assert torch.randn_like(x.int(), dtype=torch.float32).shape == (2, 3)


def test_out():
    given = torch.empty(3, dtype=torch.float64)
    assert torch.rand(3, out=given) is given
    assert ((given >= 0) & (given < 1)).all()
    assert torch.randperm(4, out=torch.empty(0)).dtype is torch.float32
    assert torch.multinomial(torch.ones(3), 2, out=torch.empty(0, dtype=torch.int64)).shape == (2,)
    with pytest.raises(RuntimeError, match="does not match dtype of out"):
        torch.rand(2, dtype=torch.float32, out=given)
    with pytest.raises(RuntimeError, match="multinomial expects Long tensor out, got: Float"):
        torch.multinomial(torch.ones(3), 1, out=torch.empty(0))


def test_fresh_tensors_count_no_write():
    x = torch.ones(3)
    for fresh in [torch.rand(2), torch.randn(2), torch.randint(3, (2,)), torch.randperm(3),
                  torch.rand_like(x), torch.normal(0.0, 1.0, (2,)), torch.bernoulli(x, 0.5)]:
        assert fresh._version == 0
    assert torch.rand(3, out=x)._version == 1


def test_requires_grad():
    assert torch.rand(2, requires_grad=True).is_leaf
    assert torch.randn_like(torch.ones(2), requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="floating point"):
        torch.randint(3, (2,), requires_grad=True)


def test_in_place_keywords():
    assert (torch.empty(50).uniform_(to=0.5) < 0.5).all()
    assert (torch.empty(50).uniform_(**{"from": 0.9}) >= 0.9).all()
    assert torch.empty(50).random_(to=3).max() == 2
    assert torch.empty(200, dtype=torch.int64).random_(5, 7).unique().tolist() == [5, 6]
    assert torch.empty(9, dtype=torch.int8).random_(-3, None).min() >= -3


META = {
    "rand": lambda: torch.rand(2, 3, device="meta"),
    "randint": lambda: torch.randint(0, 3, (2, 3), device="meta"),
    "rand_like": lambda: torch.rand_like(torch.empty(2, 3, device="meta")),
    "uniform_": lambda: torch.empty(2, 3, device="meta").uniform_(),
    "normal_": lambda: torch.empty(2, 3, device="meta").normal_(),
    "random_": lambda: torch.empty(2, 3, device="meta").random_(),
    "bernoulli_": lambda: torch.empty(2, 3, device="meta").bernoulli_(),
    "bernoulli": lambda: torch.bernoulli(torch.empty(2, 3, device="meta")),
    "normal": lambda: torch.normal(torch.empty(2, 3, device="meta"), 1.0),
    "multinomial": lambda: torch.multinomial(torch.empty(2, 5, device="meta"), 3),
    "poisson": lambda: torch.poisson(torch.empty(2, 3, device="meta")),
    "dropout": lambda: F.dropout(torch.empty(2, 3, device="meta")),
    "exponential_": lambda: torch.empty(2, 3, device="meta").exponential_(),
}


@pytest.mark.parametrize("name", META)
def test_meta_draws_nothing(name):
    state = torch.get_rng_state()
    out = META[name]()
    assert out.is_meta and out.shape == (2, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_order():
    torch.manual_seed(1)
    flat = torch.rand(12)
    torch.manual_seed(1)
    turned = torch.empty(3, 4).t().uniform_()
    assert torch.equal(turned.t().reshape(-1), flat)
    torch.manual_seed(1)
    like = torch.rand_like(torch.empty(3, 4).t())
    assert like.stride() == (1, 4) and torch.equal(like.t().reshape(-1), flat)


# --- history --------------------------------------------------------------------------------------


FILLS = {
    "uniform_": (), "normal_": (), "random_": (5,), "bernoulli_": (0.5,), "exponential_": (),
    "geometric_": (0.5,), "cauchy_": (), "log_normal_": (),
}  # fmt: skip


@pytest.mark.parametrize("name", FILLS)
def test_fills_count_as_writes_and_cut_gradients(name):
    x = torch.ones(3, requires_grad=True)
    y = x * 1
    version = y._version
    assert getattr(y, name)(*FILLS[name]) is y
    assert y._version == version + 1
    assert type(y.grad_fn).__name__.startswith(name.title().replace("_", "") + "Backward")
    y.backward(torch.tensor([1.0, float("inf"), float("nan")]))
    assert x.grad.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        getattr(x, name)(*FILLS[name])


def test_node_names():
    x = torch.full((2, 3), 0.5, requires_grad=True)
    names = {
        "NormalBackward1": torch.normal(x, 1.0), "NormalBackward2": torch.normal(0.0, x),
        "NormalBackward3": torch.normal(x, x), "BernoulliBackward0": torch.bernoulli(x),
        "PoissonBackward0": torch.poisson(x), "MulBackward0": F.dropout(x),
        "AddBackward0": F.alpha_dropout(x, training=True),
        "BernoulliBackward1": (x * 1).bernoulli_(x.detach()),
    }  # fmt: skip
    assert {name: type(t.grad_fn).__name__ for name, t in names.items()} == {n: n for n in names}


def test_a_fill_of_a_saved_tensor_is_noticed():
    x = torch.rand(3, requires_grad=True)
    y = x.exp()
    y.detach().uniform_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_dropout_gradient_is_the_mask():
    x = torch.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert set(y.tolist()) == {0.0, float(np.float32(1) / np.float32(0.75))}


def test_dropout_that_does_nothing_returns_its_input():
    x = torch.ones(3)
    assert F.dropout(x, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert torch.dropout(x, 0.5, False) is x
    assert F.dropout(x, 1.0).tolist() == [0, 0, 0]


def test_dropout_in_place():
    x = torch.ones(100)
    y = F.dropout(x, 0.5, inplace=True)
    assert y is x and set(x.tolist()) == {0.0, 2.0}
    z = torch.ones(4, 8)
    assert F.dropout1d(z, 0.5, inplace=True) is z and z.shape == (4, 8)


def test_channel_dropout():
    out = F.dropout3d(torch.ones(2, 8, 2, 3, 4), 0.5)
    assert ((out == out[:, :, :1, :1, :1]).all()) and set(out.unique().tolist()) == {0.0, 2.0}
    assert F.dropout1d(torch.ones(8, 5), 0.5).shape == (8, 5)
    with pytest.raises(RuntimeError, match="dropout1d: Expected 2D or 3D input"):
        F.dropout1d(torch.ones(2))
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        torch.feature_dropout(torch.ones(2), 0.5, True)
    with pytest.warns(UserWarning, match="dropout2d: Received a 2-D input"):
        F.dropout2d(torch.ones(2, 3))
    with pytest.warns(UserWarning, match=r"assuming that channel-wise\s+1D"):
        F.dropout2d(torch.ones(2, 3, 4))


def test_native_dropout():
    out, mask = torch.native_dropout(torch.ones(50), 0.5, True)
    assert mask.dtype is torch.bool and torch.equal(out, mask * 2.0)
    out, mask = torch.native_dropout(torch.ones(5), 0.5, False)
    assert mask.all() and out.tolist() == [1] * 5


def test_gumbel_and_multinomial_rows():
    weights = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert torch.multinomial(weights, 1).tolist() == [[1], [0]]
    assert torch.multinomial(weights, 4, replacement=True).tolist() == [[1] * 4, [0] * 4]
    assert sorted(torch.multinomial(torch.ones(6), 6).tolist()) == list(range(6))


# --- errors ---------------------------------------------------------------------------------------


ERRORS = [
    (lambda: torch.rand(3, dtype=torch.int64), NotImplementedError, "not implemented for 'Long'"),
    (lambda: torch.rand(-1), RuntimeError, "negative dimension -1"),
    (lambda: torch.rand("a"), TypeError, "must be tuple of ints, not str"),
    (lambda: torch.rand(), TypeError, "invalid combination of arguments"),
    (lambda: torch.randint(3), TypeError, "invalid combination of arguments"),
    (lambda: torch.randint(2.5, (2,)), TypeError, "must be int, not float"),
    (lambda: torch.randint(5, 2, (2,)), RuntimeError, "'from' to be less than 'to'"),
    (lambda: torch.randint(0, 300, (2,), dtype=torch.uint8), RuntimeError,
     "to - 1 is out of bounds for unsigned char"),
    (lambda: torch.randint(-1, 3, (2,), dtype=torch.uint8), RuntimeError,
     "from is out of bounds for unsigned char"),
    (lambda: torch.randint(0, 2**63, (2,)), ValueError, "Overflow"),
    (lambda: torch.randperm(-1), RuntimeError, "negative dimension"),
    (lambda: torch.randperm(2.0), TypeError, "must be int, not float"),
    (lambda: torch.randperm(300, dtype=torch.uint8), RuntimeError, "without overflow"),
    (lambda: torch.randperm(3000, dtype=torch.float16), RuntimeError, "greater than 2049 for Half"),
    (lambda: torch.empty(3).uniform_(2, 1), RuntimeError, r"\[from, to\) range"),
    (lambda: torch.empty(3).uniform_(-3e38, 3e38), RuntimeError, "to exceed the limit"),
    (lambda: torch.empty(3).uniform_(0, 1e39), RuntimeError, "to is out of bounds for float"),
    (lambda: torch.empty(3).uniform_(0, 1, 2), TypeError, "invalid combination"),
    (lambda: torch.empty(3).uniform_(high=2), TypeError, "invalid combination"),
    (lambda: torch.empty(3).normal_(0, -1), RuntimeError, "std >= 0.0, but found std -1"),
    (lambda: torch.normal(torch.ones(3), -torch.ones(3)), RuntimeError, "all elements of std"),
    (lambda: torch.normal(torch.ones(3), torch.ones(2)), RuntimeError, r"tensor a \(3\) must"),
    (lambda: torch.normal(0, 1), TypeError, "invalid combination"),
    (lambda: torch.empty(3).bernoulli_(1.5), RuntimeError, r"p to be in \[0, 1\], but got p=1.5"),
    (lambda: torch.empty(3).bernoulli_(torch.tensor(2.0)), RuntimeError, "p_in >= 0 && p_in <= 1"),
    (lambda: torch.bernoulli(torch.ones(3).long()), NotImplementedError, "for 'Long'"),
    (lambda: torch.empty(3).exponential_(0), RuntimeError, "lambda > 0.0, but found lambda=0"),
    (lambda: torch.ones(3).long().exponential_(), RuntimeError, "continuous probability"),
    (lambda: torch.empty(3).geometric_(1), RuntimeError, r"p to be in \(0, 1\)"),
    (lambda: torch.empty(3).cauchy_(0, 0), RuntimeError, "sigma > 0.0"),
    (lambda: torch.empty(3).log_normal_(0, 0), RuntimeError, "std > 0.0"),
    (lambda: torch.multinomial(torch.ones(3), 0), RuntimeError, "n_sample <= 0"),
    (lambda: torch.multinomial(torch.ones(3), 4), RuntimeError, "without replacement"),
    (lambda: torch.multinomial(-torch.ones(3), 1), RuntimeError, "element < 0"),
    (lambda: torch.multinomial(torch.zeros(3), 1), RuntimeError, r"sum of probabilities <= 0"),
    (lambda: torch.multinomial(torch.tensor([float("nan"), 1]), 1), RuntimeError, "`nan`"),
    (lambda: torch.multinomial(torch.ones(2, 2, 2), 1), RuntimeError, "1 or 2 dim"),
    (lambda: torch.multinomial(torch.ones(0), 1, True), RuntimeError, "nothing to draw"),
    (lambda: torch.poisson(-torch.ones(2)), RuntimeError, "invalid Poisson rate"),
    (lambda: torch.binomial(torch.ones(2).long(), torch.ones(2)), ValueError, "got: Long"),
    (lambda: torch.binomial(torch.ones(2), torch.ones(2).double()), RuntimeError, "Found dtype"),
    (lambda: F.dropout(torch.ones(2), 1.5), ValueError, "between 0 and 1, but got 1.5"),
    (lambda: torch.dropout(torch.ones(2), -0.1, True), RuntimeError, "between 0 and 1"),
    (lambda: F.dropout(torch.ones(2).long()), RuntimeError, "result type Float can't be cast"),
    (lambda: torch.ones(3).expand(2, 3).uniform_(), RuntimeError, "more than one element"),
]


@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_errors(case):
    call, kind, words = ERRORS[case]
    state = torch.get_rng_state()
    with pytest.raises(kind, match=words):
        call()
    if not any(word in words for word in ("p_in", "Poisson", "result type")):  # these draw first
        assert torch.equal(torch.get_rng_state(), state)


def test_bounds_beyond_a_mantissa_warn():
    with pytest.warns(UserWarning, match="to - 1 is out of bounds"):
        torch.empty(3).random_(0, 2**25)

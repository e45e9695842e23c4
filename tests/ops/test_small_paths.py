"""Quick ways of small tensors: the results and the errors of the ways they go around."""

import math

import numpy as np
import pytest

import lampion as torch
from lampion.debug.knobs import override
from lampion.ops.reference.along import put_along, take_along
from lampion.runtime.later import Later

DRAWS = {
    "rand": lambda: torch.rand(3, 5),
    "rand of float64": lambda: torch.rand(7, dtype=torch.float64),
    "randn": lambda: torch.randn([4, 9]),
    "few normals": lambda: torch.randn(5),
    "randint": lambda: torch.randint(-3, 9, (4,)),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(4, 6), 0.3),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_small_draws_are_one_stream_with_and_without_kernels(draw):
    torch.manual_seed(3)
    with override(kernels="off"):
        expected = [draw().tolist() for _ in range(120)]
    torch.manual_seed(3)
    with override(kernels="sync"):
        torch.rand(1 << 13)  # starts the kernels
        torch.manual_seed(3)
        assert [draw().tolist() for _ in range(120)] == expected


def test_draws_of_odd_arguments_still_tell_what_is_wrong():
    with pytest.raises(RuntimeError, match="negative dimension"):
        torch.rand(2, -1)
    with pytest.raises(TypeError, match="tuple of ints"):
        torch.rand(2.5)
    with pytest.raises(RuntimeError, match="expects 'from' to be less than 'to'"):
        torch.randint(4, 4, (2,))
    assert torch.rand(2, device="meta").is_meta
    assert torch.arange(3.0).dtype is torch.float32


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (6,), (2, 3, 4, 2)])
def test_elements_along_an_axis(shape):
    rng = np.random.default_rng(0)
    a = rng.normal(size=shape)
    for axis in range(len(shape)):
        index = rng.integers(0, shape[axis], (*shape[:axis], 2, *shape[axis + 1:]))
        for lies in (a, np.asfortranarray(a)):
            expected = np.take_along_axis(a, index, axis)
            assert np.array_equal(take_along(lies, index, axis), expected)
        out, expected = np.zeros(shape), np.zeros(shape)
        put_along(out, index, 1.0, axis)
        np.put_along_axis(expected, index, 1.0, axis)
        assert np.array_equal(out, expected)


def test_an_index_smaller_than_its_tensor():
    x = torch.arange(12.0).reshape(3, 4)
    index = torch.tensor([[2, 0]])
    assert x.gather(0, index).tolist() == [[8.0, 1.0]]
    assert x.gather(1, index).tolist() == [[2.0, 0.0]]
    for y in (torch.zeros(3, 4), torch.zeros(4, 3).t()):
        y.scatter_add_(1, torch.tensor([[1, 1], [3, 0]]), torch.ones(2, 3))
        assert y.tolist() == [[0, 2, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("wrong", [-1, 4])
def test_places_outside_are_refused(wrong):
    x, index = torch.zeros(2, 4, requires_grad=True), torch.tensor([[wrong]])
    with pytest.raises(RuntimeError, match=f"index {wrong} is out of bounds for dimension 1"):
        x.gather(1, index)
    with pytest.raises(RuntimeError, match="out of bounds"):
        x.scatter_add(1, index, torch.ones(1, 1))


@pytest.mark.parametrize("shape", [(3, 4), (3, 0)])
def test_rows_outside_are_refused(shape):
    x = torch.zeros(shape)
    for wrong in (-4, 3):
        rows = torch.tensor([0, wrong])
        with pytest.raises(IndexError, match=f"index {wrong} is out of bounds for dimension 0"):
            x[rows]
        with pytest.raises(IndexError, match=f"index {wrong} is out of bounds for dimension 0"):
            x.index_put((rows,), torch.zeros(2, shape[1]), accumulate=True)


def test_rows_that_repeat_add_up_in_the_gradient():
    x = torch.zeros(3, 2, requires_grad=True)
    x[torch.tensor([0, -3, 2])].sum().backward()
    assert x.grad.tolist() == [[2, 2], [0, 0], [1, 1]]


def test_one_hot_of_few_and_of_many():
    few = torch.tensor([[2, 0], [1, 1]])
    assert torch.nn.functional.one_hot(few).tolist() == [
        [[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]]
    many = few.repeat(3000, 1)
    assert torch.nn.functional.one_hot(many)[-2:].tolist() == torch.nn.functional.one_hot(
        few).tolist()
    with pytest.raises(RuntimeError, match="smaller than num_classes"):
        torch.nn.functional.one_hot(few, 2)


def test_padding_keeps_the_sign_of_zero():
    padded = torch.nn.functional.pad(torch.ones(1), (1, 0), value=-0.0)
    assert math.copysign(1, padded[0].item()) == -1


def test_running_statistics_of_small_batches():
    norm = torch.nn.BatchNorm1d(2)
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    version = norm.running_mean._version
    norm(x)
    assert norm.running_mean.tolist() == pytest.approx([0.2, 0.4])
    assert norm.running_var.tolist() == pytest.approx([1.1, 1.7])
    assert norm.running_mean._version == version + 1


def test_attention_with_dropout_of_rows_without_a_key():
    q = torch.ones(1, 2, 4)
    mask = torch.tensor([[True, True], [False, False]])
    attend = torch.nn.functional.scaled_dot_product_attention
    assert attend(q, q, q, mask, dropout_p=1e-9)[0].tolist() == [[1.0] * 4, [0.0] * 4]
    assert attend(q, q, q, dropout_p=1e-9)[0].tolist() == [[1.0] * 4] * 2


def test_a_module_that_is_imported_later():
    later = Later("fractions")
    assert "Fraction" not in vars(later)
    assert later.Fraction(1, 2) + later.Fraction(1, 2) == 1
    with pytest.raises(AttributeError):
        later.no_such_name

"""Integers stay in the dtype that was asked for, by reference, kernel and in programs."""

import pytest

import lampion as torch
from lampion.debug.knobs import override

SMALL = [torch.int8, torch.uint8, torch.int16, torch.int32]


def by_all(call, *tensors):
    with override(kernels="off"):
        yield call(*tensors)
    with override(kernels="sync"):
        yield call(*tensors)
        yield torch.compile(call)(*tensors)


@pytest.mark.parametrize("shape", [(3, 50), (4, 150_001)], ids=["short", "long"])
@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_sums_wrap_around_in_their_dtype(dtype, shape):
    x = torch.ones(shape, dtype=torch.int32) * 3
    expected = (x.long().sum(1)).to(dtype)
    for found in by_all(lambda t: t.sum(1, dtype=dtype), x):
        assert found.dtype == dtype and torch.equal(found, expected)


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_products_wrap_around_in_their_dtype(dtype):
    x = torch.tensor([[5, 7, 11], [1, 2, 3]])
    for found in by_all(lambda t: t.prod(1, dtype=dtype), x):
        assert found.dtype == dtype and torch.equal(found, torch.tensor([385, 6]).to(dtype))


def test_sums_in_bool_say_whether_any_holds():
    for found in by_all(lambda t: t.sum(1, dtype=torch.bool), torch.tensor([[2, 0, 4], [0, 0, 0]])):
        assert found.dtype == torch.bool and found.tolist() == [True, False]


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_contractions_that_sum_keep_their_dtype(dtype):
    a, b = torch.full((2, 3, 1), 100).to(dtype), torch.full((2, 1, 3), 2).to(dtype)
    total = torch.addbmm(torch.ones(3, 3, dtype=dtype), a, b)
    assert total.dtype == dtype and torch.equal(total, torch.full((3, 3), 401).to(dtype))
    assert torch.inner(a[0], a[1]).dtype == torch.tensordot(a[0], b[0], 1).dtype == dtype
    spread = torch.tensordot(a[0].view(1, 3), b[0, :, :1], 1)  # 3 against 1: summed first
    assert spread.dtype == dtype and torch.equal(spread, torch.tensor([[600]]).to(dtype))


@pytest.mark.parametrize("inplace", [False, True])
def test_limits_are_numbers_of_the_dtype(inplace):
    def threshold(x, *numbers):
        return torch.nn.functional.threshold(x, *numbers, inplace=inplace)
    counts = torch.arange(9000, dtype=torch.int32)
    for limit, value in ((2**31, 0), (1, 2**40)):
        with pytest.raises(RuntimeError, match="cannot be converted to type int32"):
            threshold(counts, limit, value)
    assert threshold(torch.arange(3), -0.5, 7.9).tolist() == [7, 1, 2]


@pytest.mark.parametrize("bounds", [(0.5, None), (None, 2.0), (None, None, 1.5), ("a", None)],
                         ids=str)
def test_slices_take_whole_numbers_alone(bounds):
    x = torch.arange(6.0)
    with pytest.raises(TypeError, match="slice indices must be integers"):
        x[slice(*bounds)]
    with pytest.raises(TypeError, match="slice indices must be integers"):
        x[slice(*bounds)] = 1
    assert x[torch.tensor(1):torch.tensor(3)].tolist() == [1, 2]


def test_transposed_convolutions_leave_no_gaps():
    x, w = torch.ones(1, 4), torch.ones(1, 2, 3)
    for found in by_all(lambda a, b: torch.nn.functional.conv_transpose1d(
            a, b, stride=2, padding=1, output_padding=1), x, w):
        assert found.stride() == (8, 1) and found.view(-1).shape == (16,)

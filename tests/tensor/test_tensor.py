"""The tensor itself: aliasing, versions, formats, copies, Python protocols, conversions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lampion as torch

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16,
          torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
          torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2]


# --- views alias -----------------------------------------------------------------------------


VIEWS = {
    "view": lambda x: x.view(6), "reshape": lambda x: x.reshape(3, 2), "t": lambda x: x.t(),
    "T": lambda x: x.T, "transpose": lambda x: x.transpose(0, 1), "permute": lambda x: x.permute(
        1, 0), "index": lambda x: x[0], "slice": lambda x: x[:, 1:], "step": lambda x: x[:, ::2],
    "None": lambda x: x[None], "ellipsis": lambda x: x[..., 0], "expand": lambda x: x.expand(
        2, 2, 3), "narrow": lambda x: x.narrow(1, 1, 2), "select": lambda x: x.select(1, 2),
    "unsqueeze": lambda x: x.unsqueeze(1), "squeeze": lambda x: x[None].squeeze(0),
    "flatten": lambda x: x.flatten(), "ravel": lambda x: x.ravel(), "diagonal": lambda x:
    x.diagonal(), "unfold": lambda x: x.unfold(1, 2, 1), "as_strided": lambda x: x.as_strided(
        (2, 2), (3, 1)), "chunk": lambda x: x.chunk(2)[1], "split": lambda x: x.split(1)[0],
    "unbind": lambda x: x.unbind(1)[2], "detach": lambda x: x.detach(), "view_as": lambda x:
    x.view_as(x), "movedim": lambda x: x.movedim(0, 1), "swapaxes": lambda x: x.swapaxes(0, 1),
    "expand_as": lambda x: x.expand_as(torch.ones(2, 2, 3)), "data": lambda x: x.data,
    "view dtype": lambda x: x.view(torch.int32), "unflatten": lambda x: x.unflatten(1, (3, 1)),
    "contiguous": lambda x: x.contiguous(), "hsplit": lambda x: torch.hsplit(x, 3)[0],
    "broadcast_to": lambda x: x.broadcast_to(4, 2, 3), "mT": lambda x: x.mT,
    "tensor_split": lambda x: x.tensor_split(2)[0], "atleast_3d": torch.atleast_3d,
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_shares_memory(name):
    x = torch.arange(6.0).reshape(2, 3)
    x = x.clone()
    view = VIEWS[name](x)
    before = view.clone()
    x.add_(1)
    assert not torch.equal(view, before)
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    if name not in ("expand", "expand_as", "broadcast_to", "unfold", "view dtype"):
        view.fill_(-5)
        assert (x == -5).any()


COPIES = {
    "clone": lambda x: x.clone(), "add": lambda x: x + 0, "to": lambda x: x.to(torch.float64),
    "index tensor": lambda x: x[torch.tensor([0, 1])], "mask": lambda x: x[x > -1],
    "cat": lambda x: torch.cat([x]), "repeat": lambda x: x.repeat(1, 1), "flip": lambda x:
    x.flip(0), "transposed contiguous": lambda x: x.t().contiguous(), "tensor": lambda x:
    torch.tensor(x.tolist()), "reshape of a transpose": lambda x: x.t().reshape(6),
    "deepcopy": copy.deepcopy, "to copy": lambda x: x.to(torch.float32, copy=True),
    "gather": lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", COPIES)
def test_copy_does_not_share_memory(name):
    x = torch.arange(6.0).reshape(2, 3)
    made = COPIES[name](x)
    before = made.clone()
    x.add_(100)
    assert torch.equal(made, before)


def test_conversion_to_the_same_type_is_the_same_object():
    x = torch.ones(2)
    assert x.to(torch.float32) is x and x.float() is x and x.contiguous() is x and x.cpu() is x
    assert x.type(torch.float32) is x and x.to("cpu") is x


def test_storage_offset_and_strides():
    x = torch.arange(24.0).reshape(2, 3, 4)
    view = x[1, :, 1:].t()
    assert (view.storage_offset(), view.stride(), tuple(view.shape)) == (13, (1, 4), (3, 3))
    assert not view.is_contiguous() and view.t().is_contiguous() is False
    assert x.data_ptr() + 13 * 4 == view.data_ptr()


def test_versions_are_shared_by_views_and_not_by_data():
    x = torch.zeros(4)
    view, data, other = x[1:], x.data, x.detach()
    view.add_(1)
    assert (x._version, view._version, data._version, other._version) == (1, 1, 0, 1)
    data.add_(1)
    assert (x._version, data._version) == (1, 1)
    assert x.clone()._version == 0


def test_is_set_to_and_data_assignment():
    x, y = torch.ones(2), torch.zeros(3)
    x.data = y
    assert x.tolist() == [0, 0, 0]
    y[0] = 7
    assert x[0].item() == 7


def test_resize_keeps_the_elements():
    x = torch.arange(4.0)
    x.resize_(2)
    assert x.tolist() == [0, 1]
    x.resize_(2, 2)
    assert x.tolist() == [[0, 1], [2, 3]]
    x.resize_(3, 2)
    assert x.flatten()[:4].tolist() == [0, 1, 2, 3]


# --- memory formats --------------------------------------------------------------------------


def test_channels_last():
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    y = x.contiguous(memory_format=torch.channels_last)
    assert y.stride() == (60, 1, 15, 3)
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    assert torch.equal(x, y)
    assert (y + 1).stride() == y.stride() and y.clone().stride() == y.stride()
    assert y.relu().stride() == y.stride() and torch.empty_like(y).stride() == y.stride()
    assert y.contiguous().stride() == x.stride()
    assert y.clone(memory_format=torch.contiguous_format).stride() == x.stride()
    assert torch.empty(2, 3, 4, 5, memory_format=torch.channels_last).stride() == (60, 1, 15, 3)


def test_preserve_format_of_a_transpose():
    x = torch.ones(2, 3).t()
    assert x.clone().stride() == (1, 3) and torch.zeros_like(x).stride() == (1, 3)
    assert x.to(torch.float64).stride() == (1, 3)


# --- copies and pickles ----------------------------------------------------------------------


def test_deepcopy_keeps_sharing():
    base = torch.arange(4.0)
    group = {"base": base, "view": base[1:], "again": base}
    twin = copy.deepcopy(group)
    twin["base"][1] = 50
    assert twin["view"][0].item() == 50 and base[1].item() == 1
    assert twin["again"] is twin["base"]


def test_deepcopy_keeps_grad_and_attributes():
    x = torch.ones(2, requires_grad=True)
    x.grad = torch.full((2,), 3.0)
    x.note = "mine"
    twin = copy.deepcopy(x)
    assert twin.requires_grad and twin.grad.tolist() == [3, 3] and twin.note == "mine"
    assert twin.grad is not x.grad


def test_deepcopy_of_a_computed_tensor_is_refused():
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(torch.ones(2, requires_grad=True) * 2)


def test_shallow_copy_shares_memory():
    x = torch.ones(2)
    twin = copy.copy(x)
    twin[0] = 5
    assert x[0].item() == 5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickle(dtype, protocol):
    x = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(dtype)
    back = pickle.loads(pickle.dumps(x, protocol))
    assert back.dtype == dtype and back.tolist() == x.tolist()


def test_pickle_keeps_strides_and_requires_grad():
    base = torch.arange(6.0).reshape(2, 3)
    a, b = pickle.loads(pickle.dumps((base, base.t())))
    assert a.tolist() == base.tolist() and b.stride() == (1, 3) and b.tolist() == base.t().tolist()
    leaf = pickle.loads(pickle.dumps(torch.ones(1, requires_grad=True)))
    assert leaf.requires_grad and leaf.is_leaf


# --- NumPy, DLPack, buffers ------------------------------------------------------------------


def test_numpy_both_ways_without_copy():
    array = np.arange(6.0).reshape(2, 3)
    t = torch.from_numpy(array)
    t[0, 0] = 5
    assert array[0, 0] == 5
    back = t.numpy()
    back[1, 1] = 7
    assert t[1, 1].item() == 7 and np.shares_memory(back, array)
    assert np.shares_memory(torch.as_tensor(array).numpy(), array)
    assert not np.shares_memory(torch.tensor(array).numpy(), array)


def test_numpy_of_views():
    array = np.arange(12).reshape(3, 4)
    t = torch.from_numpy(array.T[1:])
    assert t.stride() == (1, 4) and t.tolist() == array.T[1:].tolist()
    assert np.shares_memory(t.t().numpy(), array)
    with pytest.raises(ValueError, match="negative"):
        torch.from_numpy(array[::-1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32,
                                   np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.bool_,
                                   np.complex64, np.complex128])
def test_numpy_dtypes(dtype):
    array = np.array([0, 1, 1], dtype)
    assert torch.from_numpy(array).numpy().dtype == dtype
    assert torch.tensor(array).tolist() == array.tolist()


def test_numpy_functions_take_tensors():
    x = torch.arange(3.0)
    assert np.asarray(x).tolist() == [0, 1, 2] and np.sum(np.array(x)) == 3
    assert np.asarray(x, dtype=np.int64).dtype == np.int64
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert isinstance(x + np.ones(3, np.float32), torch.Tensor)
    assert isinstance(x * np.float64(2), torch.Tensor)


def test_from_numpy_of_something_else():
    for wrong in ([1, 2], 3.0, torch.ones(1)):
        with pytest.raises(TypeError, match=r"expected np\.ndarray"):
            torch.from_numpy(wrong)
    with pytest.raises(TypeError, match="can't convert"):
        torch.from_numpy(np.array(["a"]))


def test_dlpack():
    x = torch.arange(6.0).reshape(2, 3)
    y = torch.from_dlpack(x.t())
    y[0, 0] = 9
    assert x[0, 0].item() == 9 and y.stride() == (1, 3)
    assert np.shares_memory(np.from_dlpack(x), x.numpy())
    array = np.arange(3)
    assert torch.from_dlpack(array).tolist() == [0, 1, 2]
    assert x.__dlpack_device__()[0] == 1


def test_frombuffer():
    data = bytearray(b"\x01\x00\x02\x00\x03\x00")
    t = torch.frombuffer(data, dtype=torch.int16)
    data[0] = 9
    assert t.tolist() == [9, 2, 3]
    assert torch.frombuffer(data, dtype=torch.int16, count=1, offset=2).tolist() == [2]
    for wrong in ({"count": 9}, {"offset": 7}, {"offset": 5}, {"offset": -1}):
        with pytest.raises((ValueError, RuntimeError)):
            torch.frombuffer(data, dtype=torch.int16, **wrong)


# --- Python protocols ------------------------------------------------------------------------


def test_iteration_len_and_in():
    x = torch.arange(6).reshape(3, 2)
    assert [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]] and len(x) == 3
    assert 3 in x and 9 not in x and torch.tensor(2) in x
    _, middle, _ = x
    assert middle.tolist() == [2, 3] and next(r.tolist() for r in reversed(x)) == [4, 5]
    assert dict(enumerate(torch.arange(2)))[1].item() == 1


def test_hash_and_equality():
    x, y = torch.ones(2), torch.ones(2)
    assert hash(x) != hash(y) and len({x, y, x}) == 2 and {x: 1}[x] == 1
    assert (x == y).all() and (x == 1).all() and not (x != y).any()
    assert (x == None) is False and (x != "a") is True  # noqa: E711
    assert (torch.tensor([1, 3]) >= torch.tensor([2, 3])).tolist() == [False, True]


def test_chained_comparison_and_truth():
    assert bool(torch.tensor([[1.0]])) and not torch.tensor(0) and not torch.tensor([False])
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(torch.zeros(2))
    with pytest.raises(RuntimeError, match="no values"):
        bool(torch.zeros(0))


def test_scalars():
    x = torch.tensor(3)
    assert (int(x), float(x), complex(x), x.item(), [10, 20, 30, 40][x]) == (3, 3.0, 3 + 0j, 3, 40)
    assert type(torch.tensor(2.0).item()) is float and type(torch.tensor(True).item()) is bool
    assert type(torch.tensor(1j).item()) is complex and "a" * x == "aaa"
    assert f"{torch.tensor(2.5):.2f}" == "2.50"
    assert int(torch.tensor(2.9)) == 2 and list(range(torch.tensor(2))) == [0, 1]
    with pytest.raises(TypeError, match="only integer tensors"):
        range(torch.tensor(3.0))
    assert torch.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert divmod(7, 2) == tuple(int(v) for v in (torch.tensor(7) // 2, torch.tensor(7) % 2))


def test_operators_with_python_numbers():
    x = torch.tensor([1.0, 2.0])
    assert (1 - x).tolist() == [0, -1] and (2 / x).tolist() == [2, 1]
    assert (2 ** x).tolist() == [2, 4]
    assert (7 // torch.tensor([2])).tolist() == [3] and (7 % torch.tensor([4])).tolist() == [3]
    assert (-x).tolist() == [-1, -2] and (+x).tolist() == [1, 2] and abs(-x).tolist() == [1, 2]
    assert (~torch.tensor([True])).tolist() == [False] and (1 << torch.tensor(3)).item() == 8


# --- defaults --------------------------------------------------------------------------------


def test_default_dtype():
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.ones(1).dtype == torch.tensor(1.5).dtype == torch.float64
        assert torch.tensor(1j).dtype == torch.complex128 and torch.tensor(1).dtype == torch.int64
        assert (torch.ones(1, dtype=torch.int32) / 2).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(TypeError):
        torch.set_default_dtype(torch.int32)
    assert torch.get_default_dtype() == torch.float32


def test_default_device():
    with torch.device("meta"):
        assert torch.ones(2).is_meta and torch.rand(2).is_meta
        assert torch.nn.Linear(2, 2).weight.is_meta
        assert torch.ones(2, device="cpu").is_cpu
    assert torch.ones(2).is_cpu
    same = torch.device("meta")
    with same, same:
        pass
    assert torch.ones(2).is_cpu
    try:
        torch.set_default_device("meta")
        assert torch.get_default_device() == torch.device("meta") and torch.zeros(1).is_meta
    finally:
        torch.set_default_device(None)
    assert torch.zeros(1).is_cpu


# --- dtype, device, Size ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_objects(dtype):
    assert repr(dtype).startswith("torch.") and getattr(torch, str(dtype)[6:]) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype and copy.deepcopy(dtype) is dtype
    assert hash(dtype) == hash(pickle.loads(pickle.dumps(dtype))) and dtype != "float32"
    assert dtype.itemsize == torch.zeros(1, dtype=dtype).element_size()
    assert sum((dtype.is_floating_point, dtype.is_complex)) <= 1


def test_dtype_aliases():
    assert torch.float is torch.float32 and torch.double is torch.float64
    assert torch.half is torch.float16 and torch.long is torch.int64 and torch.int is torch.int32
    assert torch.cfloat is torch.complex64 and torch.short is torch.int16


def test_device_objects():
    cpu = torch.device("cpu")
    assert (cpu.type, cpu.index, str(cpu), repr(cpu)) == ("cpu", None, "cpu", "device(type='cpu')")
    assert torch.device("cuda:1").index == 1 and torch.device("cuda", 1) == torch.device("cuda:1")
    assert torch.device("cpu") == cpu and hash(torch.device("cpu")) == hash(cpu) and cpu != "cpu"
    assert pickle.loads(pickle.dumps(torch.device("cuda:1"))) == torch.device("cuda:1")
    assert torch.device(cpu) == cpu and torch.ones(1, device=cpu).device == cpu
    for wrong in ("gpu", "cpu:x", "", 3.5, None):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            torch.device(wrong)


def test_size_objects():
    size = torch.ones(2, 3).shape
    assert isinstance(size, tuple) and size == (2, 3) and repr(size) == "torch.Size([2, 3])"
    assert size.numel() == 6 and type(size[:1]) is torch.Size and size[0] == 2
    assert type(size + (4,)) is torch.Size and pickle.loads(pickle.dumps(size)) == size
    assert torch.Size([1, 2]) == (1, 2) and hash(size) == hash((2, 3)) and size[-1] == 3
    assert torch.zeros(size).shape == size and torch.ones(0).shape.numel() == 0


def test_finfo_and_iinfo():
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps
    assert torch.finfo().bits == 32 and torch.finfo(torch.bfloat16).max == 3.3895313892515355e38
    assert torch.iinfo(torch.int8).min == -128 and torch.iinfo(torch.uint8).max == 255
    with pytest.raises(TypeError):
        torch.finfo(torch.int32)
    with pytest.raises(TypeError):
        torch.iinfo(torch.float32)


# --- without data ----------------------------------------------------------------------------


def test_meta_tensors_have_shapes_only():
    x = torch.empty(4, 5, device="meta")
    y = torch.nn.functional.linear(x, torch.empty(3, 5, device="meta"))
    assert y.shape == (4, 3) and y.is_meta and x.t().stride() == (1, 5)
    for read in (x.tolist, x.item, x.numpy, lambda: float(x.sum()), lambda: bool(x[0, 0] > 0)):
        with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
            read()
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        x.to("cpu")
    with pytest.raises(RuntimeError, match="device"):
        x + torch.ones(4, 5)
    assert torch.empty_like(x, device="cpu").is_cpu


@pytest.mark.parametrize("name", ["indices", "values", "coalesce", "is_coalesced"])
def test_sparse_accessors_refuse_dense_tensors(name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name} expected sparse .*layout but got Strided"):
        getattr(torch.ones(2), name)()


def test_products_in_a_wider_dtype() -> None:
    a = torch.full((1, 2), 257.0, dtype=torch.bfloat16)
    assert torch.mm(a, a.t(), out_dtype=torch.float32).dtype is torch.float32
    assert torch.ones(2).to_dense(torch.float64).dtype is torch.float64

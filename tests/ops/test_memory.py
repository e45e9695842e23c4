"""Storages as objects."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import lampion as torch
from lampion.ops import memory


@pytest.fixture(autouse=True)
def _warned_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_warned", True)


def test_views_share_one_storage() -> None:
    t = torch.arange(6.0).view(2, 3)
    row = t[1]
    assert row.untyped_storage() == t.untyped_storage()
    assert row.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() == t.data_ptr()
    assert row.data_ptr() == t.data_ptr() + 3 * 4 == row.untyped_storage().data_ptr() + 12
    assert hash(row.untyped_storage()) == hash(t.untyped_storage())
    assert t.clone().untyped_storage() != t.untyped_storage()
    assert row.untyped_storage().nbytes() == 24 == len(t.untyped_storage())


def test_bytes_are_the_tensors_memory() -> None:
    t = torch.arange(3, dtype=torch.int32)
    s = t.untyped_storage()
    assert s.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0] == list(s)
    s[4] = 7
    assert t.tolist() == [0, 7, 2] and s[4] == 7 and s[0:3].nbytes() == 3
    other = s.clone().fill_(0)
    assert other.data_ptr() != s.data_ptr()
    s.copy_(other)
    assert t.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="size does not match"):
        s.copy_(torch.UntypedStorage(3))
    with pytest.raises(IndexError, match="index 100 out of range for storage of size 12"):
        s[100]


def test_construction_and_printing() -> None:
    assert torch.UntypedStorage([1, 2]).tolist() == [1, 2]
    assert torch.UntypedStorage(3).nbytes() == 3
    assert repr(torch.UntypedStorage([7])) == (
        " 7\n[torch.storage.UntypedStorage(device=cpu) of size 1]")
    with pytest.raises(RuntimeError, match="negative"):
        torch.UntypedStorage(-1)
    big = torch.UntypedStorage.from_buffer(
        np.arange(2, dtype=">i4").tobytes(), byte_order="big", dtype=torch.int32)
    assert torch.empty(0, dtype=torch.int32).set_(big).tolist() == [0, 1]


def test_resize() -> None:
    t = torch.ones(2)
    s = t.untyped_storage()
    s.resize_(12)
    assert s.nbytes() == 12 and torch.empty(0).set_(s).tolist() == [1.0, 1.0, 0.0]
    assert t.tolist() == [1.0, 1.0]
    s.resize_(4)
    assert torch.empty(0).set_(s).tolist() == [1.0]
    with pytest.raises(RuntimeError, match="not resizable"):
        torch.frombuffer(bytearray(8), dtype=torch.float32).untyped_storage().resize_(1)


def test_meta() -> None:
    s = torch.empty(3, device="meta").untyped_storage()
    assert (s.nbytes(), s.device.type, s.data_ptr()) == (12, "meta", 0)
    with pytest.raises(NotImplementedError, match="Not available for 'meta' device storage"):
        s[0]


def test_typed() -> None:
    t = torch.arange(4.0)
    s = t.storage()
    assert isinstance(s, torch.TypedStorage) and isinstance(s, torch.FloatStorage)
    assert not isinstance(s, torch.LongStorage)
    assert (len(s), s.nbytes(), s.element_size(), s.dtype) == (4, 16, 4, torch.float32)
    s[1] = 9
    assert t[1] == 9 and s.tolist() == [0.0, 9.0, 2.0, 3.0]
    assert s.type() == "torch.FloatStorage" and t.storage_type() is torch.FloatStorage
    assert s.long().tolist() == [0, 9, 2, 3] and s.float() is s
    assert s.untyped() == t.untyped_storage()
    with pytest.raises(RuntimeError, match="slices are only supported in UntypedStorage"):
        s[0:2]
    assert repr(torch.IntStorage([5])) == (
        " 5\n[torch.storage.TypedStorage(dtype=torch.int32, device=cpu) of size 1]")
    assert torch.HalfStorage(2).nbytes() == 4
    assert torch.TypedStorage([1, 2], dtype=torch.bfloat16).tolist() == [1.0, 2.0]
    with pytest.raises(TypeError, match="takes a size"):
        torch.FloatStorage(t.untyped_storage().nbytes)


def test_typed_storages_warn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_warned", False)
    with pytest.warns(UserWarning, match="TypedStorage is deprecated"):
        torch.ones(1).storage()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.ones(1).storage()


def test_copies_and_pickles() -> None:
    t = torch.arange(3.0)
    s, typed = t.untyped_storage(), t.storage()
    assert copy.deepcopy(s) != s and copy.deepcopy(s).tolist() == s.tolist()
    a, b = copy.deepcopy((s, t[1:].untyped_storage()))
    assert a == b
    assert pickle.loads(pickle.dumps(s)).tolist() == s.tolist()
    assert pickle.loads(pickle.dumps(typed)).tolist() == [0.0, 1.0, 2.0]

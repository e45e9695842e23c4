"""Helpers under private names that programs use: lists of tensors, checks, trees."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.testing import assert_close
from lampion.utils import _pytree

T = torch.tensor


def test_foreach() -> None:
    a, b = [T([1.0, 4.0]), T(9.0)], [T([1.0, 2.0]), T(3.0)]
    assert_close(torch._foreach_add(a, b), [T([2.0, 6.0]), T(12.0)])
    assert_close(torch._foreach_add(a, b, alpha=2), [T([3.0, 8.0]), T(15.0)])
    assert_close(torch._foreach_mul(a, 2), [T([2.0, 8.0]), T(18.0)])
    assert_close(torch._foreach_div(a, [1, 3]), [T([1.0, 4.0]), T(3.0)])
    assert_close(torch._foreach_sqrt(a), [T([1.0, 2.0]), T(3.0)])
    assert_close(torch._foreach_lerp(a, b, 0.5), [T([1.0, 3.0]), T(6.0)])
    assert_close(torch._foreach_addcmul(a, b, b, 2), [T([3.0, 12.0]), T(27.0)])
    assert_close(torch._foreach_norm(a), [T(17.0).sqrt(), T(9.0)])
    assert_close(torch._foreach_maximum(a, 2), [T([2.0, 4.0]), T(9.0)])
    assert_close(torch._foreach_clamp_max(a, 2), [T([1.0, 2.0]), T(2.0)])
    assert_close(torch._foreach_pow(2.0, b), [T([2.0, 4.0]), T(8.0)])
    with pytest.raises(RuntimeError, match="same number of tensors"):
        torch._foreach_add(a, b[:1])
    with pytest.raises(AttributeError, match=r"lampion has no torch\._foreach_juggle yet"):
        torch._foreach_juggle


def test_foreach_in_place() -> None:
    a = [T([1.0, 4.0]), T(9.0)]
    kept = list(a)
    torch._foreach_mul_(a, 2)
    torch._foreach_sub_(a, [T([1.0, 1.0]), T(1.0)])
    torch._foreach_addcdiv_(a, [T(1.0), T(1.0)], [T(2.0), T(2.0)], value=2)
    assert a[0] is kept[0]
    assert_close(a, [T([2.0, 8.0]), T(18.0)])
    torch._foreach_copy_(a, [T([0.0, 1.0]), T(2.0)])
    assert_close(a[0], T([0.0, 1.0]))
    torch._foreach_zero_(a)
    assert_close(a[1], T(0.0))


def test_checks() -> None:
    torch._check(True)
    torch._assert(T(True), "no")
    with pytest.raises(RuntimeError, match="bad size"):
        torch._check(False, lambda: "bad size")
    with pytest.raises(ValueError, match="Expected cond to be True"):
        torch._check_value(False)
    with pytest.raises(AssertionError, match="no"):
        torch._assert(T(False), "no")
    with pytest.raises(TypeError, match="callable"):
        torch._check(False, "text")


def test_flat_tensors() -> None:
    parts = [torch.ones(2, 2), torch.zeros(3)]
    flat = torch._utils._flatten_dense_tensors(parts)
    assert flat.shape == (7,)
    assert_close(list(torch._utils._unflatten_dense_tensors(flat, parts)), parts)


def test_registered_tree_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair:
        def __init__(self, a, b) -> None:
            self.a, self.b = a, b

    monkeypatch.setattr(_pytree, "SUPPORTED_NODES", {})
    _pytree.register_pytree_node(Pair, lambda p: ([p.a, p.b], None), lambda c, _: Pair(*c))
    doubled = _pytree.tree_map(lambda x: 2 * x, {"p": Pair(1, [2])})
    assert (doubled["p"].a, doubled["p"].b) == (2, [4])


def test_device_modules() -> None:
    assert torch.get_device_module() is torch.cpu and torch.cpu.is_available()
    assert torch.get_device_module("cuda") is torch.cuda
    with pytest.raises(RuntimeError, match="corresponding module"):
        torch.get_device_module("meta")
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    assert torch.cpu.device_count() == 1 and torch.cpu.current_device() == "cpu"


def test_missing_hub_names_say_so() -> None:
    with pytest.raises(AttributeError, match=r"lampion has no torch\.hub\.load yet"):
        torch.hub.load

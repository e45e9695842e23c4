"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from collections import OrderedDict

import pytest

import lampion as torch
from lampion import nn


def test_sequential_edits():
    s = nn.Sequential(nn.ReLU(), nn.Tanh())
    s.append(nn.Sigmoid()).insert(1, nn.GELU()).extend([nn.SiLU()])
    assert [type(m).__name__ for m in s] == ["ReLU", "GELU", "Tanh", "Sigmoid", "SiLU"]
    del s[1]
    assert list(s._modules) == ["0", "1", "2", "3"]
    assert isinstance(s.pop(-1), nn.SiLU) and len(s) == 3
    assert [type(m).__name__ for m in s[1:]] == ["Tanh", "Sigmoid"]
    assert len(s + nn.Sequential(nn.ReLU())) == 4 and len(s * 2) == 6
    s[0] = nn.ELU()
    assert isinstance(s[0], nn.ELU)
    with pytest.raises(IndexError, match="index 7 is out of range"):
        s[7]
    with pytest.raises(ValueError, match="Non-positive multiplication factor 0"):
        s * 0


def test_sequential_of_named_modules():
    s = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh()))
    assert list(s._modules) == ["a", "b"] and isinstance(s.b, nn.Tanh)


def test_module_list_edits():
    items = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])
    items.insert(0, nn.Tanh())
    items += [nn.ReLU()]
    assert [type(m).__name__ for m in items] == ["Tanh", "Linear", "ReLU", "ReLU"]
    del items[0]
    assert list(items.state_dict()) == ["0.weight", "0.bias"]
    assert repr(items).count("(1-2): 2 x ReLU()") == 1
    assert len(items[:2]) == 2 and len(items + [nn.ReLU()]) == 4
    with pytest.raises(TypeError, match="should be called with an iterable, but got int"):
        items.extend(3)


def test_module_dict():
    d = nn.ModuleDict({"a": nn.ReLU()})
    d.update([("b", nn.Tanh())])
    assert list(d) == ["a", "b"] and "b" in d and isinstance(d.pop("a"), nn.ReLU)
    with pytest.raises(ValueError, match="has length 3; 2 is required"):
        d.update([("x", 1, 2)])
    with pytest.raises(TypeError, match="is not a Module subclass"):
        d["n"] = 3


def test_parameter_list_turns_tensors_into_parameters():
    params = nn.ParameterList([torch.ones(2), nn.Parameter(torch.zeros(1)), "note"])
    assert isinstance(params[0], nn.Parameter) and params[2] == "note"
    assert [n for n, _ in params.named_parameters()] == ["0", "1"]
    params.append(torch.ones(3))
    assert len(params) == 4 and len(params[1:3]) == 2


def test_parameter_dict():
    d = nn.ParameterDict({"b": torch.ones(1), "a": torch.ones(2)})
    assert list(d) == ["a", "b"]
    assert d.get("zz") is None and d.setdefault("c", torch.ones(1)).shape == (1,)
    merged = d | nn.ParameterDict({"d": torch.ones(1)})
    assert list(merged) == ["a", "b", "c", "d"]
    assert d.popitem()[0] == "c"
    d.clear()
    assert len(d) == 0

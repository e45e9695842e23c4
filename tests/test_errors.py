"""Wrong programs raise PyTorch's exception type, and the message helps to repair them."""

from __future__ import annotations

import warnings

import pytest
from wrong_programs import PROGRAMS

import lampion as torch
from lampion import nn


@pytest.mark.parametrize("name", PROGRAMS)
def test_wrong_program(name):
    program = PROGRAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(program.error) as caught:
            program.run(torch)
    text = str(caught.value)
    assert [part for part in program.says if part not in text] == [], text
    assert "lampion/" not in text


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.heads = nn.ModuleDict({"a": nn.Linear(2, 3)})

    def forward(self, x):
        return self.heads["a"](self.layers(x).repeat(1, 2))


def message(fn, error=RuntimeError) -> str:
    with pytest.raises(error) as caught:
        fn()
    notes = getattr(caught.value, "__notes__", [])
    return "\n".join([str(caught.value), *notes])


def test_module_path_and_operands_are_named():
    text = message(lambda: Classifier()(torch.ones(5, 4)))
    assert "5x4 and 2x3" in text
    assert "heads.a (Linear" in text
    assert "[5, 4]" in text


def test_module_path_through_sequential():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(3, 1)))
    text = message(lambda: net(torch.ones(1, 2)))
    assert "1.1 (Linear" in text


def test_module_error_names_shape_and_dtype_of_the_input():
    text = message(lambda: nn.Sequential(nn.Linear(2, 2))(torch.ones(3, 7, dtype=torch.float64)))
    assert "float64[3, 7]" in text


def test_users_own_exception_passes_unchanged():
    class Mine(Exception):
        def __init__(self, code, reason):
            super().__init__(code, reason)
            self.code = code

    class Net(nn.Module):
        def forward(self, x):
            raise Mine(7, "mine")

    with pytest.raises(Mine) as caught:
        nn.Sequential(Net())(torch.ones(1))
    assert caught.value.code == 7 and caught.value.args == (7, "mine")


def test_error_type_is_kept_inside_modules():
    net = nn.Sequential(nn.Embedding(3, 2))
    text = message(lambda: net(torch.tensor([5])), IndexError)
    assert "5" in text and "0 (Embedding" in text


def test_index_error_of_each_dimension():
    x = torch.zeros(2, 3, 4)
    for dim, index in ((0, (2,)), (1, (slice(None), 3)), (2, (0, slice(None), -5)),
                       (2, (Ellipsis, 4))):
        text = message(lambda index=index: x[index], IndexError)
        wrong = next(i for i in index if isinstance(i, int) and not -2 <= i < 2)
        assert f"index {wrong} is out of bounds for dimension {dim} " in text
        assert f"size {x.shape[dim]}" in text and "[2, 3, 4]" in text


def test_index_error_of_a_tensor_names_its_place():
    text = message(lambda: torch.zeros(4)[torch.tensor([[0, 1], [2, 9]])], IndexError)
    assert "index 9" in text and "[1, 1]" in text and "size 4" in text


def test_error_leaves_the_tensor_as_it_was():
    x = torch.arange(4.0)
    for write in (lambda: x.add_(torch.ones(3)), lambda: x.__setitem__(9, 1.0),
                  lambda: x.copy_(torch.ones(5)), lambda: x.div_(torch.ones(2, 4))):
        with pytest.raises((RuntimeError, IndexError)):
            write()
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0] and x._version == 0


def test_missing_names_say_so():
    with pytest.raises(AttributeError, match=r"lampion has no torch\.not_there yet"):
        torch.not_there
    with pytest.raises(AttributeError, match="not_there"):
        torch.ones(1).not_there

"""Printed tensors against texts recorded from PyTorch 2.13."""

import json
import warnings
from pathlib import Path

import numpy as np
import printing_cases as cases
import pytest

import lampion as torch
from lampion.tensor import printing, wrap

RECORDED = json.loads(Path(__file__).with_name("recorded_prints.json").read_text())
ARRAYS = dict(cases.arrays())
OPTIONS = {name: (options, array) for name, options, array in cases.with_options()}


@pytest.fixture(autouse=True)
def default_options():
    yield
    torch.set_printoptions(profile="default")
    torch.set_default_dtype(torch.float32)


def test_every_case_is_recorded():
    assert set(RECORDED["arrays"]) == set(ARRAYS)
    assert set(RECORDED["options"]) == set(OPTIONS)
    assert len(ARRAYS) + len(OPTIONS) > 400


@pytest.mark.parametrize("name", RECORDED["arrays"])
def test_array(name):
    assert repr(wrap(ARRAYS[name])) == RECORDED["arrays"][name]


@pytest.mark.parametrize("name", RECORDED["options"])
def test_with_options(name):
    options, array = OPTIONS[name]
    torch.set_printoptions(**options)
    assert repr(wrap(array)) == RECORDED["options"][name]


@pytest.mark.parametrize("name", RECORDED["default64"])
def test_with_another_default_dtype(name):
    torch.set_default_dtype(torch.float64)
    assert repr(wrap(ARRAYS[name])) == RECORDED["default64"][name]


def suffixed(name):
    kind, digits = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz") or 0)
    if kind == "wrap":
        return torch.full((digits,), 7, dtype=torch.int32)
    dtype = torch.float64 if kind == "wrapdtype" else torch.float32
    return torch.ones(digits, dtype=dtype, requires_grad=True) * 2


@pytest.mark.parametrize("name", [n for n in RECORDED["suffixed"] if n.startswith("wrap")])
def test_suffixes_wrap(name):
    assert repr(suffixed(name)) == RECORDED["suffixed"][name]


def test_history_and_meta():
    texts = RECORDED["suffixed"]
    x = torch.ones(3, requires_grad=True)
    assert repr(x) == texts["requires_grad"]
    assert repr(x * 2) == texts["grad_fn"]
    table = torch.ones(5, 5, dtype=torch.float64, requires_grad=True) * 2
    assert repr(table) == texts["both lines"]
    for kind in (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64):
        empty = torch.empty(2, 3, device="meta", dtype=kind)
        assert repr(empty) == texts[f"meta{kind}"]
    assert repr(torch.empty(2, device="meta", requires_grad=True)) == texts["metagrad"]


def test_subclasses_print_their_name():
    class Scaled(torch.Tensor):
        pass

    assert repr(torch.ones(2).as_subclass(Scaled)) == "Scaled([1., 1.])"


def test_parameters():
    parameter = torch.nn.Parameter(torch.ones(2))
    assert repr(parameter) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"


def test_format():
    assert f"{torch.tensor(3.14159):.2f}" == "3.14"
    assert f"{torch.tensor(2.5, requires_grad=True):.1f}" == "2.5"
    assert f"{torch.tensor(7):03d}" == "007"
    assert f"{torch.tensor(1.5, dtype=torch.bfloat16)}" == "1.5"
    assert f"{torch.ones(2)}" == "tensor([1., 1.])"
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{torch.ones(2):.2f}"


def test_str_is_repr():
    assert str(torch.ones(2, 2)) == repr(torch.ones(2, 2))


def test_options_are_read_back_and_restored():
    before = printing.get_printoptions()
    assert before == {
        "precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None
    }  # fmt: skip
    with printing.printoptions(precision=1, sci_mode=True):
        assert printing.get_printoptions()["sci_mode"] is True
        assert repr(torch.tensor([1.0])) == "tensor([1.0e+00])"
    assert printing.get_printoptions() == before


def test_sci_mode_returns_to_automatic():
    torch.set_printoptions(sci_mode=True)
    torch.set_printoptions(precision=3)
    assert printing.get_printoptions()["sci_mode"] is None


def test_html():
    html = torch.ones(2, 3, requires_grad=True)._repr_html_()
    assert "(2, 3)" in html and "torch.float32" in html and "requires_grad=True" in html
    assert html.count("<td>1.</td>") == 6 and html.count("<tr>") == 2
    assert (torch.ones(2) * 1)._repr_html_().count("<td>") == 2
    assert "&lt;MulBackward0&gt;" in (torch.ones(2, requires_grad=True) * 1)._repr_html_()
    assert "<pre>" in torch.ones(2, 2, 2)._repr_html_()
    assert "Tensor, ()" in torch.tensor(1.5)._repr_html_()
    assert "meta" in torch.empty(3, device="meta")._repr_html_()
    assert torch.ones(100, 100)._repr_html_().count("<tr>") == 7


def test_warnings_stay_away():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repr(torch.tensor([1e308, 1e-308], dtype=torch.float64))
        repr(torch.tensor([np.nan, np.inf]))

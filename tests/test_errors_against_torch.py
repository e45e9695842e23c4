"""Wrong programs raise in lampion what they raise in PyTorch."""

from __future__ import annotations

import warnings

import pytest
from wrong_programs import PROGRAMS

import lampion

torch = pytest.importorskip("torch")


def _error(name, lib):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            PROGRAMS[name].run(lib)
        except Exception as error:
            return type(error)
    return None


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_exception(name):
    theirs = _error(name, torch)
    assert theirs is not None, "PyTorch runs this program"
    ours = _error(name, lampion)
    assert ours is not None and issubclass(ours, theirs)

"""Fixtures of kernels: made at once, for each instruction set."""

from __future__ import annotations

import pytest
from common import RUNNABLE

from lampion.codegen import service
from lampion.codegen.target import host
from lampion.debug.knobs import override


@pytest.fixture
def kernels_at_once():
    with override(kernels="sync"):
        yield


@pytest.fixture(params=RUNNABLE)
def instructions(request, kernels_at_once):
    """Each instruction set in turn; kernels of another one are not taken over."""
    name = request.param
    service.forget()
    with override(target="native" if name == host().name else name):
        yield name
    service.forget()

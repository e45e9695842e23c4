"""Shared by all tests: a fresh random stream, and NumPy as the way between frameworks."""

from __future__ import annotations

import pytest

import lampion


@pytest.fixture(autouse=True)
def seeded() -> None:
    lampion.manual_seed(0)

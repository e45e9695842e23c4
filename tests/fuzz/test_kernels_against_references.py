"""Random programs through the public API give the same with kernels as without.

LAMPION_FUZZ=1000 runs that many seeds, LAMPION_FUZZ=5000:1000 those from 5000 on;
LAMPION_FUZZ_RECIPE names the only recipe to draw from.
"""

from __future__ import annotations

import os

import pytest
from comparison import disagreement, identical, outcome, threads
from programs import RECIPES, random_program

import lampion
from lampion.debug.knobs import override

_FIRST, _, _COUNT = os.environ.get("LAMPION_FUZZ", "").rpartition(":")
_ONLY = os.environ.get("LAMPION_FUZZ_RECIPE")
PROGRAMS = [(_ONLY, seed) for seed in range(int(_FIRST or 0), int(_FIRST or 0) + int(_COUNT or 0))
            ] or [(name, seed) for name in RECIPES for seed in (1, 2, 3)]


@pytest.mark.parametrize("name, seed", PROGRAMS)
def test_kernels_beside_references(name, seed):
    """Values, dtypes, strides, history, gradients; the same bits for any number of threads."""
    program = random_program(seed, name)
    with override(kernels="off"):
        want = outcome(program, lampion)
    with override(kernels="sync"):
        got, *others = [_with_threads(program, n) for n in (1, 2, 3)]
    with override(kernels="off"):
        assert not disagreement(program, got, want, lampion)
    assert not any(identical(got, other) for other in others)


def _with_threads(program, count):
    with threads(lampion, count):
        return outcome(program, lampion)


@pytest.mark.oracle
@pytest.mark.parametrize("name, seed", PROGRAMS)
def test_kernels_beside_pytorch(name, seed):
    torch = pytest.importorskip("torch")
    program = random_program(seed, name)
    want = outcome(program, torch)
    with override(kernels="sync"):
        got = outcome(program, lampion)
    with override(kernels="off"):
        assert not disagreement(program, got, want, lampion, strict=False)

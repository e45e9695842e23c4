"""Random programs do the same compiled as eagerly, over several calls, to the last bit of state.

LAMPION_FUZZ=2000 runs that many seeds, LAMPION_FUZZ=5000:1000 those from 5000 on. A failure is
made smaller as long as it fails, and its text, which runs alone, is part of the message.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from either_library import load_program
from footguns import Array, Played, difference, play
from random_programs import Program, program, source

import lampion
from lampion.debug.knobs import override

_FIRST, _, _COUNT = os.environ.get("LAMPION_FUZZ", "").rpartition(":")
SERVED: list[bool] = []  # of the programs that have run compiled, where this is told
SEEDS = range(int(_FIRST or 0), int(_FIRST or 0) + int(_COUNT or 60))


def run(made: Program, seed: int, folder: Path, library: Any = lampion, compiling: bool = False,
        shake: float = 0.0) -> Played:
    """Plays the program from a file, so that its source can be read."""
    text = source(made, seed)
    path = folder / f"random_program_{seed}_{zlib.crc32(text.encode()):x}.py"
    path.write_text(text)
    module = load_program(path, library.__name__)
    module.SHAKE = shake
    with np.errstate(all="ignore"), override(kernels="sync"):
        return play(module.story, library, compiling)


def arrays(shown: Any) -> list[Array]:
    if isinstance(shown, Array):
        return [shown, *arrays(shown.grad)]
    if isinstance(shown, dict):
        shown = list(shown.values())
    return [a for part in shown for a in arrays(part)] if isinstance(shown, (list, tuple)) else []


def is_noise(got: Played, want: Played, shaken: list[Played]) -> bool:
    """Whether results differ by no more than after a change of the inputs in the sixth digit."""
    rows = [arrays(p.shown) for p in (got, want, *shaken)]
    if len({len(row) for row in rows}) != 1:
        return False
    for a, b, *others in zip(*rows, strict=True):
        if any(o.values.shape != b.values.shape for o in (a, *others)):
            return False
        with np.errstate(all="ignore"):
            room = max(_distance(o.values, b.values) for o in others)
            scale = np.abs(np.nan_to_num(b.values.astype(float))).max(initial=1e-3)
            if _distance(a.values, b.values) > 8 * room + 2e-5 * scale:
                return False
    return True


def _distance(a: Any, b: Any) -> float:
    a, b = a.astype(np.complex128), b.astype(np.complex128)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.abs(np.where(same, 0, a - b)).max(initial=0))


def problem(made: Program, seed: int, folder: Path, library: Any = lampion,
            served: list[bool] | None = None) -> str:
    """How the program differs from its run on lampion, eagerly; empty if it does not.

    served: where it is noted whether programs served the compiled run.
    """
    want = run(made, seed, folder)
    got = run(made, seed, folder, library, compiling=library is lampion)
    if served is not None and got.served.known:
        served.append(got.served.programs > 0)
    if type(got.error) is not type(want.error):
        return f"{got.error!r}, expected {want.error!r}"
    found = difference(got.shown, want.shown, strict=library is lampion)
    if not found:
        return ""
    step = 4e-3 if "bfloat16" in source(made, seed) else 1e-6
    shaken = [run(made, seed, folder, shake=s) for s in (step, -step)]
    return "" if is_noise(got, want, shaken) else found


def smaller(made: Program, seed: int, folder: Path) -> Program:
    """The program without statements that its failure does not need."""
    for field in ("changes", "results", "body"):
        for i in reversed(range(len(getattr(made, field)))):
            rest = getattr(made, field)
            less = made._replace(**{field: rest[:i] + rest[i + 1:]})
            try:
                made = less if problem(less, seed, folder) else made
            except NameError:  # a later statement needs this one
                continue
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_as_eagerly(seed, tmp_path):
    made = program(seed)
    found = problem(made, seed, tmp_path, served=SERVED)
    if found:
        least = smaller(made, seed, tmp_path)
        pytest.fail(f"seed {seed}: {found}\nmade smaller: {problem(least, seed, tmp_path)}\n"
                    f"{source(least, seed)}", pytrace=False)


def test_most_are_served_by_programs():
    """So that what is compared above is worth comparing."""
    assert sum(SERVED) >= 0.5 * len(SERVED)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", SEEDS[:40])
def test_eagerly_as_pytorch(seed, tmp_path):
    torch = pytest.importorskip("torch")
    found = problem(program(seed), seed, tmp_path, torch)
    assert not found, found


def test_a_wrong_compiler_is_noticed(tmp_path):
    """One that forgets what the function does besides returning."""
    class Forgetful:
        manual_seed, get_rng_state = lampion.manual_seed, lampion.get_rng_state
        compile = staticmethod(lambda fn, **options: lambda *args, **kwargs: args[0] * 2)

    for seed in range(20):
        want = run(program(seed), seed, tmp_path)
        (path,) = tmp_path.glob(f"random_program_{seed}_*")
        module = load_program(path, "lampion")
        got = play(module.story, Forgetful, True)
        assert difference(got.shown, want.shown)


def test_most_programs_run_to_their_end(tmp_path):
    errors = [run(program(seed), seed, tmp_path).error for seed in range(100)]
    assert errors.count(None) >= 90

"""Every foot-gun ends compiled as it does eagerly, and eagerly as on PyTorch.

More than two hundred stories, each played several times: most of a minute.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from either_library import load_program
from footguns import Played, difference, marked_lines, play, stories

import lampion
from lampion.debug.knobs import override

FILES = sorted(Path(__file__).parent.glob("footguns_*.py"))
CASES = [(path, name) for path in FILES for name in stories(load_program(path, "lampion"))]


@cache
def played(path: Path, name: str, library: Any, compiling: bool) -> Played:
    story = stories(load_program(path, library.__name__))[name]
    with override(kernels="sync"):
        return play(story, library, compiling)


@pytest.mark.parametrize("path, name", CASES, ids=lambda v: getattr(v, "stem", v))
def test_compiled_as_eagerly(path, name):
    story = stories(load_program(path, "lampion"))[name]
    eager, compiled = (played(path, name, lampion, compiling) for compiling in (False, True))
    if story.expect.outcome == "raises" and compiled.served.known:
        assert compiled.error is not None
        assert all(line in str(compiled.error) for line in marked_lines(story))
        return
    assert eager.error is None
    if compiled.error is not None:
        raise compiled.error
    found = difference(compiled.shown, eager.shown)
    assert not found, found
    if compiled.served.known:
        assert_served(story, compiled)


def assert_served(story: Any, found: Played) -> None:
    """That the compiler did what is expected of it, where it tells."""
    lines, said = marked_lines(story), "\n".join(found.served.reasons)
    if story.expect.outcome == "compiled":
        assert found.served.programs > 0
        assert not said
    if story.expect.most is not None:
        assert found.served.programs <= story.expect.most
    if said and lines:
        assert any(line in said for line in lines), f"{said} names none of {lines}"


@pytest.mark.oracle
@pytest.mark.parametrize("path, name", CASES, ids=lambda v: getattr(v, "stem", v))
def test_eagerly_as_pytorch(path, name):
    torch = pytest.importorskip("torch")
    ours, theirs = played(path, name, lampion, False), played(path, name, torch, False)
    assert type(ours.error) is type(theirs.error)
    found = difference(ours.shown, theirs.shown, strict=False)
    assert not found, found


def test_there_are_enough():
    assert len(CASES) >= 200
    assert len({name for _, name in CASES}) == len(CASES)


def test_a_wrong_compiler_is_noticed():
    """One that repeats its first results, as a replay that bakes everything in."""
    class Frozen:
        manual_seed, get_rng_state = lampion.manual_seed, lampion.get_rng_state

        @staticmethod
        def compile(fn, **options):
            kept = []
            return lambda *args, **kwargs: kept[0] if kept else kept.append(
                fn(*args, **kwargs)) or kept[0]

    missed = 0
    for path, name in CASES:
        story = stories(load_program(path, "lampion"))[name]
        if story.expect.outcome == "raises":
            continue
        eager = played(path, name, lampion, False)
        try:
            frozen = play(story, Frozen, True)
        except Exception:
            continue
        missed += not difference(frozen.shown, eager.shown)
    assert missed <= 6

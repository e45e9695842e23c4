"""What became of compiled functions: served by programs, or run eagerly and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Served(NamedTuple):
    """Of all functions compiled meanwhile. known: whether this library tells."""

    known: bool
    programs: int
    reasons: list[str]


@contextmanager
def watched(library: Any) -> Iterator[list[Any]]:
    """Collects what `library.compile` returns."""
    plain, made = library.compile, []

    def compile(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda fn: compile(fn, **options)
        made.append(plain(model, **options))
        return made[-1]

    library.compile = compile
    try:
        yield made
    finally:
        library.compile = plain


def served(made: list[Any]) -> Served:
    """Sums up over compiled functions; `.programs` and `.reasons` are where this is told."""
    counts = [getattr(f, "programs", None) for f in made]
    known = bool(counts) and all(isinstance(n, int) for n in counts)
    reasons = [str(r) for f in made for r in getattr(f, "reasons", ())]
    return Served(known, sum(counts) if known else 0, reasons)

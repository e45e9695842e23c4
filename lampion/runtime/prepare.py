"""Which launches of a program follow from steady inputs alone, such as weights that are packed.

They are put first, and what others read of their results is kept from run to run; see
`stream.py:Stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from .stream import Buffer, Host, Noted, Site, used

__all__ = ["keep", "split"]

Step = Noted | Host


def split(steps: Sequence[Step], written: Callable[[Step], list[Site]],
          results: Collection[int]) -> list[int]:
    """The launches that read steady inputs, constants and one another's results alone.

    written: the sites that a step writes. results: ids of buffers that a run gives out.
    """
    if not any(_reads_steady(s) for s in steps):
        return []
    writes = [[s.buffer for s in written(step)] for step in steps]
    found = {i for i, step in enumerate(steps) if isinstance(step, Noted) and step.flag is None
             and not step.numbers and step.code.tells and writes[i]}
    while True:
        shared = {id(b) for i, some in enumerate(writes) if i not in found for b in some}
        shared |= set(results)
        less = {i for i in found if all(b.steady or (b.kind == "arena" and id(b) not in shared)
                                        for b in used(steps[i]))}
        less = {i for i in less if not any(b.steady for b in writes[i])}
        if less == found:
            return sorted(found)
        found = less


def keep(buffers: Iterable[Buffer], steps: Sequence[Step], prepared: int) -> None:
    """Marks what the first `prepared` launches leave to the others."""
    later = {id(b) for step in steps[prepared:] for b in used(step)}
    for b in buffers:
        if b.kind == "arena" and 0 <= b.first < prepared and id(b) in later:
            b.kind = "kept"


def _reads_steady(step: Step) -> bool:
    return isinstance(step, Noted) and any(site.buffer.steady for _, site in step.arrays)

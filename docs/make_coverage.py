"""Writes coverage.md: which of PyTorch's public names exist here, by namespace and tier.

    python docs/make_coverage.py

`tests/data/api_names.json` holds PyTorch 2.13's public names, ranked by how many of 71 popular
packages and programs use them: tier 1 by at least ten, tier 2 by three to nine, tier 3 by fewer.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import json
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMES = ROOT / "tests" / "data" / "api_names.json"
PAGE = ROOT / "docs" / "coverage.md"
TIERS = ("1", "2", "3")


def resolve(name: str) -> Any:
    """The object that lampion has under PyTorch's dotted `name`; AttributeError if there is none.

    Members that only instances have count as existing when the class declares or sets them.
    """
    found: Any = importlib.import_module("lampion")
    path = "lampion"
    for part in name.split(".")[1:]:
        path += "." + part
        try:
            found = _member(found, part, path)
        except (AttributeError, ImportError):
            raise AttributeError(f"lampion has no {name}") from None
    return found


def _member(owner: Any, part: str, path: str) -> Any:
    if isinstance(owner, type):
        return _class_member(owner, part)
    try:
        return getattr(owner, part)
    except AttributeError:
        return importlib.import_module(path)


def _class_member(cls: type, part: str) -> Any:
    if hasattr(cls, part):
        return getattr(cls, part)
    if any(part in inspect.get_annotations(b) or part in _stored(b) for b in cls.__mro__):
        return None
    raise AttributeError(part)


@cache
def _stored(cls: type) -> frozenset[str]:
    """The attributes that methods of `cls` assign."""
    functions = [f for f in vars(cls).values() if inspect.isfunction(f)]
    return frozenset(i.argval for f in functions for i in dis.get_instructions(f)
                     if i.opname == "STORE_ATTR")


def exists(name: str) -> bool:
    """Whether `resolve` finds it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            resolve(name)
        except AttributeError:
            return False
    return True


def namespace(name: str) -> str:
    """The module (or `torch.Tensor`) under which `name` is counted."""
    parts = name.split(".")[:-1]
    if parts[:2] == ["torch", "Tensor"]:
        return "torch.Tensor"
    while len(parts) > 1 and parts[-1][:1].isupper():
        parts.pop()
    return ".".join(parts)


def counts() -> dict[str, dict[str, list[int]]]:
    """namespace -> tier -> [names that exist, names]."""
    table: dict[str, dict[str, list[int]]] = {}
    for tier, names in json.loads(NAMES.read_text()).items():
        for name in names:
            cell = table.setdefault(namespace(name), {t: [0, 0] for t in TIERS})[tier]
            cell[0] += exists(name)
            cell[1] += 1
    return table


def page() -> str:
    """The text of coverage.md."""
    table = counts()
    total = {t: [sum(row[t][i] for row in table.values()) for i in (0, 1)] for t in TIERS}
    ranked = sorted(table, key=lambda n: (-table[n]["1"][1], -table[n]["2"][1], n))
    lines = ["# Coverage", "",
             "Written by `docs/make_coverage.py`; a test checks that it is current. Each cell is "
             "names that", "exist here / public names of PyTorch 2.13, methods and members of "
             "classes included. Tier 1: used by", "at least 10 of 71 popular packages and "
             "programs (94.6 % of their calls); tier 2: by 3 to 9 (together", "98.9 %); tier 3: "
             "the rest, most of them used by none.", "",
             "| namespace | tier 1 | tier 2 | tier 3 |", "| --- | --- | --- | --- |",
             _line("**all**", total), *(_line(f"`{n}`", table[n]) for n in ranked), ""]
    return "\n".join(lines)


def _line(label: str, row: dict[str, list[int]]) -> str:
    cells = [f"{row[t][0]} / {row[t][1]}" if row[t][1] else "" for t in TIERS]
    return f"| {label} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page())

"""The rules of the house: imports point down, files stay short, the architecture page is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lampion"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top floor to the ground; a room may import from those after it.
ORDER = ["floor", "capture", "passes", "ops", "autograd", "tensor", "graph", "codegen", "runtime",
         "debug"]


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in ORDER else "floor"


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports, late imports included."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = parts[:len(parts) - node.level] + tuple((node.module or "").split("."))
        names = [p for p in base if p]
        targets = [names] if names else [[alias.name] for alias in node.names]
        found |= {t[0] if t[0] in ORDER else "floor" for t in targets}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    place = ORDER.index(room_of(path))
    above = [r for r in imported_rooms(path) if ORDER.index(r) < place]
    assert not above, f"{path.name} in {room_of(path)} imports from {above}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_and_never_import_torch(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 1000
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert all(a.name.split(".")[0] != "torch" for a in node.names)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] != "torch"


def test_functions_are_short() -> None:
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in FILES for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno)
    assert lengths[len(lengths) // 2] < 10
    assert lengths[int(len(lengths) * 0.95)] <= 40


def named_places() -> list[str]:
    page = (ROOT / "docs" / "architecture.md").read_text()
    return sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", page)))


@pytest.mark.parametrize("place", named_places())
def test_architecture_names_exist(place: str) -> None:
    file, _, name = place.partition(":")
    tree = ast.parse((PACKAGE / file).read_text())
    scope: list[ast.stmt] = tree.body
    for part in name.split("."):
        found = [n for n in ast.walk(ast.Module(scope, [])) if isinstance(
            n, (ast.FunctionDef, ast.ClassDef)) and n.name == part]
        assert found, f"docs/architecture.md names {place}, which does not exist"
        scope = found[0].body


def test_import_is_light() -> None:
    code = ("import sys, lampion; heavy = {'scipy', 'llvmlite', 'multiprocessing', 'asyncio', "
            "'torch', 'matplotlib', 'sklearn'} & set(sys.modules); print(sorted(heavy))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_glossary_is_short() -> None:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()
            if line.startswith("| ") and not line.startswith(("| word", "| ---"))]
    assert 10 <= len(rows) <= 40

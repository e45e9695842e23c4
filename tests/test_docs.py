"""Every example in a docstring and in the README runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import linecache
import pkgutil
import re
from pathlib import Path

import pytest

import lampion
from lampion.codegen import service
from lampion.debug.knobs import override
from lampion.ops.record import LEAVES, PUBLIC

ROOT = Path(__file__).resolve().parent.parent
# Modules that run a program when they are imported, or need an extra.
SKIPPED = {"lampion.__main__", "lampion.demo"}
MODULES = sorted(m.name for m in pkgutil.walk_packages(lampion.__path__, "lampion.")
                 if m.name not in SKIPPED)


def run_examples(examples: list[doctest.DocTest]) -> int:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for example in examples:
        lampion.manual_seed(0)
        runner.run(example)
    assert runner.failures == 0
    return runner.tries


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Examples that write files write them here."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_a_module(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    with override(kernels="sync"):  # a kernel that is being made answers "not yet"
        run_examples(doctest.DocTestFinder(exclude_empty=True).find(module, name))


def public_functions() -> dict[str, object]:
    """Public functions that are made by factories, which no module holds under their name."""
    found = {}
    for place, names in PUBLIC.items():
        for name, fn in names.items():
            if ">>>" in (getattr(fn, "__doc__", None) or ""):
                found[f"{place}.{name}"] = fn
    return found


@pytest.mark.parametrize("name", sorted(public_functions()))
def test_docstring_of_a_public_function(name):
    text = public_functions()[name].__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert run_examples([example]) > 0


def forget_kernels() -> None:
    """As in a new process: a page shows the kernels that its own lines made."""
    service.wait()
    service.forget()
    for leaf in LEAVES.values():
        if leaf.launches:
            leaf.launches.clear()


def blocks() -> list[tuple[str, str]]:
    """Python blocks of the README and of the pages, each with its page and number."""
    pages = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if p.exists()]
    return [(f"{page.name} {number}", block) for page in pages for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), re.S))]


@pytest.mark.parametrize("name, block", blocks(), ids=[name for name, _ in blocks()])
def test_block_of_a_page(name, block):
    forget_kernels()
    block = block.replace("import torch\n", "import lampion as torch\n").replace(
        "from torch", "from lampion")
    if ">>>" in block:
        example = doctest.DocTestParser().get_doctest(block, {}, name, None, 0)
        assert run_examples([example]) > 0
    else:
        linecache.cache[name] = len(block), None, block.splitlines(True), name  # for captures
        exec(compile(block, name, "exec"), {"__name__": "page"})

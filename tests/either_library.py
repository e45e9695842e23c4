"""Loads a program that says `import torch`, with either library in torch's place."""

from __future__ import annotations

import itertools
import re
import sys
import types
from pathlib import Path

_IMPORT = re.compile(r"^(\s*)(import|from) torch\b(.*)$", re.MULTILINE)
_numbers = itertools.count()


def load_program(path: Path, library: str) -> types.ModuleType:
    """A new module made of the file; line numbers are the file's, so its source can be read.

    library: "torch" or "lampion".
    """
    text = path.read_text()
    if library != "torch":
        text = _IMPORT.sub(lambda found: _renamed(library, *found.groups()), text)
    module = types.ModuleType(f"{path.stem}_on_{library}_{next(_numbers)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # as an import does: classes can be pickled
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def _renamed(library: str, indent: str, word: str, rest: str) -> str:
    bare = word == "import" and not rest.strip()
    return f"{indent}{word} {library}{' as torch' if bare else rest}"

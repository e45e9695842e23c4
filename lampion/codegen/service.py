"""Where kernels come from: from memory, from the cache on disk, or newly made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..runtime.loader import load
from ..runtime.native import array_layout, function
from .emit import emit
from .ir import Kernel
from .spec import check
from .target import Target, host

__all__ = ["make"]


def make(kernel: Kernel, target: Target | None = None) -> Callable[..., None]:
    """A built kernel as a native Python function of its parameters; compiled here and now."""
    from .compile import compile_object

    array_layout()
    target = host() if target is None else target
    check(kernel)
    image = load(compile_object(emit(kernel, target), target))
    return function(image.symbols["entry"], kernel.name, image)

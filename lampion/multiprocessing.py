"""`torch.multiprocessing`: Python's `multiprocessing`; tensors travel as copies."""

from __future__ import annotations

import multiprocessing as _mp
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [*_mp.__all__, "set_sharing_strategy", "get_sharing_strategy",  # type: ignore[attr-defined]
           "get_all_sharing_strategies", "spawn"]


def get_all_sharing_strategies() -> set[str]:
    """How tensors can travel: as copies."""
    return {"file_system", "file_descriptor"}


def get_sharing_strategy() -> str:
    """The name that PyTorch programs expect."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepted: tensors travel as copies in any case."""
    if new_strategy not in get_all_sharing_strategies():
        raise AssertionError(f"unknown sharing strategy {new_strategy!r}")


def spawn(fn: Any, args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
          daemon: bool = False, start_method: str = "spawn") -> Any:
    """Runs `fn(i, *args)` in `nprocs` processes; an exception in one is raised here."""
    context = _mp.get_context(start_method)
    with context.Pool(nprocs) as pool:
        pool.starmap(fn, [(i, *args) for i in range(nprocs)], 1)

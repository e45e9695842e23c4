"""Calling a module with other tensors in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...autograd.modes import state
from ...tensor import Tensor
from ..modules.module import Module

__all__ = ["functional_call"]


def _holder(module: Module, name: str) -> tuple[dict[str, Any], str]:
    """The table that holds the dotted `name`, and the key there."""
    path, _, key = name.rpartition(".")
    owner = module.get_submodule(path)
    for table in (owner._parameters, owner._buffers):
        if key in table:
            return table, key  # type: ignore[return-value]
    return owner.__dict__, key


def _tied_names(module: Module) -> dict[str, set[str]]:
    """Names that lead to one tensor, by each of the names."""
    groups: dict[int, set[str]] = {}
    members = (*module.named_parameters(remove_duplicate=False),
               *module.named_buffers(remove_duplicate=False))
    for name, t in members:
        groups.setdefault(id(t), set()).add(name)
    return {name: names for names in groups.values() for name in names}


def _check_names(module: Module, given: dict[str, Tensor], tied: dict[str, set[str]],
                 strict: bool) -> None:
    covered = set().union(*(tied.get(name, {name}) for name in given)) if given else set()
    unexpected = sorted(set(given) - set(tied))
    missing = sorted(set(tied) - covered)
    if strict and (unexpected or missing):
        raise RuntimeError(
            f"Error(s) when swapping members of {type(module).__name__}: unexpected "
            f"{unexpected}, missing {missing}"
        )


@contextmanager
def reparametrize(module: Module, given: dict[str, Tensor], tie_weights: bool = True,
                  strict: bool = False) -> Iterator[None]:
    """Within the block, `module` uses the given tensors."""
    tied = _tied_names(module)
    _check_names(module, given, tied, strict)
    wanted: dict[str, Tensor] = {}
    for name, value in given.items():
        for alias in tied.get(name, {name}) if tie_weights else {name}:
            if alias in given and given[alias] is not value:
                raise ValueError(
                    f"functional_call got multiple values for keys {sorted(tied[name])}, which are "
                    "tied. Consider using tie_weights=False"
                )
            wanted[alias] = value
    places = [(*_holder(module, name), value) for name, value in wanted.items()]
    kept = [table[key] for table, key, _ in places if key in table]
    if len(kept) != len(places):
        raise AttributeError(f"{type(module).__name__} has no tensors under some of {[*wanted]}")
    watcher = None if state.recorder is None else state.recorder.watcher
    lent = [] if watcher is None else watcher.lend(places)
    for table, key, value in places:
        table[key] = value
    try:
        yield
    finally:
        if watcher is not None:
            watcher.lent.difference_update(lent)
        for (table, key, _), value in zip(places, kept, strict=True):
            table[key] = value


def functional_call(module: Module, parameters_and_buffers: dict[str, Tensor], args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """Call `module` with the given tensors under the given names; the module is left as it was."""
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    with reparametrize(module, parameters_and_buffers, tie_weights, strict):
        return module(*positional, **(kwargs or {}))

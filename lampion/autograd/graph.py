"""Looking at and changing what the recorded history keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor.tensor import Tensor, storage_of
from .modes import WATCHED, state
from .node import AccumulateGrad, Node

__all__ = ["Node", "saved_tensors_hooks", "save_on_cpu", "disable_saved_tensors_hooks",
           "increment_version", "get_gradient_edge", "GradientEdge"]


class saved_tensors_hooks:
    """Inside, what operations save for backward goes through `pack_hook`, and back through
    `unpack_hook` when backward needs it."""

    def __init__(self, pack_hook: Callable[[Tensor], Any],
                 unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pair = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        disabled = getattr(state, "hooks_disabled", None)
        if disabled is not None:
            raise RuntimeError(disabled)
        state.saved_hooks = (*state.saved_hooks, self.pair)
        WATCHED[0] += 1

    def __exit__(self, *exc: object) -> None:
        state.saved_hooks = state.saved_hooks[:-1]
        WATCHED[0] -= 1


class save_on_cpu(saved_tensors_hooks):
    """Keeps saved tensors in main memory: here they always are, so they are copied."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda t: t.clone(), lambda t: t)


class disable_saved_tensors_hooks:
    """Inside, entering `saved_tensors_hooks` raises with the given message."""

    def __init__(self, error_message: str) -> None:
        self.message = error_message

    def __enter__(self) -> None:
        self.previous = getattr(state, "hooks_disabled", None)
        state.hooks_disabled = self.message  # type: ignore[attr-defined]

    def __exit__(self, *exc: object) -> None:
        state.hooks_disabled = self.previous  # type: ignore[attr-defined]


class GradientEdge(tuple[Any, int]):
    """A node and the number of one of its outputs."""

    __slots__ = ()

    @property
    def node(self) -> Any:
        """The node."""
        return self[0]

    @property
    def output_nr(self) -> int:
        """Which output."""
        return self[1]


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The place of `tensor` in the recorded history."""
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not "
                           "require gradients")
    fn = tensor.grad_fn
    return GradientEdge((AccumulateGrad.of(tensor), 0) if fn is None else (fn, tensor._nr))


def increment_version(tensor: Any) -> None:
    """Counts a write that lampion could not see, so that backward checks find it."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        storage_of(t).count_write()

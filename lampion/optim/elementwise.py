"""The step of optimizers whose update treats every element by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import ops
from ..autograd import enable_grad, set_grad_enabled
from ..ops.forms import check_memory
from ..ops.optimize import Scalars, Update, note_writes
from ..ops.together import Job, Together
from ..tensor import Tensor, float32
from .optimizer import Optimizer

__all__ = ["ElementwiseOptimizer", "check_betas", "check_lr", "check_range", "check_switches",
           "new_count", "scalar_lr", "zeros_of"]  # fmt: skip


_together: WeakKeyDictionary[Any, dict[int, Together]] = WeakKeyDictionary()


class ElementwiseOptimizer(Optimizer):
    """Runs one `Update` record per parameter.

    Subclasses say which (`_update_for`), how its state begins (`_begin`) and what its
    scalars are in this step (`_scalars`).
    """

    _counts_steps = True
    _scalars_differ = False  # whether parameters with equal step counts share their scalars

    def _update_for(self, group: dict[str, Any]) -> Update:
        raise NotImplementedError

    def _begin(self, p: Tensor, group: dict[str, Any], update: Update) -> dict[str, Any]:
        """The state of `p` before its first step: by default zeros."""
        state: dict[str, Any] = {"step": new_count()} if self._counts_steps else {}
        for name in update.state:
            state[name] = zeros_of(p)
        return state

    def _begins_with_zeros(self, group: dict[str, Any]) -> bool:
        """Whether a first step is like any other, from the state that `_begin` makes."""
        return True

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def _note_step(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> None:
        """Moves on numbers in the state that belong to one parameter, after `_scalars`."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; `closure` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        known = _together.setdefault(self, {})
        for i, group in enumerate(self.param_groups):
            self._step_group(group, known.setdefault(i, Together()))
        return loss

    def _step_group(self, group: dict[str, Any], together: Together) -> None:
        update, lr = self._update_for(group), scalar_lr(group)
        written: list[Tensor] = []
        jobs: list[Job] = []
        last: Any = None
        arrays: list[Any] = []
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            if type(p._a) is np.ndarray:
                check_memory(p._a)
            count, state = self._advance(p, grad, group, update)
            if not (type(p._a) is type(grad._a) is np.ndarray) or group["differentiable"]:
                self._step_tensors(update, p, grad, group, lr, count, state)
                continue
            if last != (count, p._dtype) or self._scalars_differ:
                last = (count, p._dtype)
                scalars = Scalars(self._scalars(group, lr, count, state), p._a.dtype)
                self._note_step(group, lr, count, state)
                arrays = []
                jobs.append((scalars, arrays))
            arrays.append([p._a, grad._a, *[state[name]._a for name in update.state]])
            written.append(p)
        together.run(update, jobs, group["maximize"])
        note_writes(written, f"{type(self).__name__}.step")

    def _advance(
        self, p: Tensor, grad: Tensor, group: dict[str, Any], update: Update
    ) -> tuple[float, dict[str, Any]]:
        """The step number of `p`, counted up, and its state, made if there is none."""
        if grad.is_sparse:
            raise RuntimeError(
                f"{type(self).__name__} does not support sparse gradients, please consider "
                "SparseAdam instead"
            )
        state: dict[str, Any] = self.state[p]
        if not state:
            state.update(self._begin(p, group, update))
        if not self._counts_steps:
            return 0.0, state
        steps = state["step"]._a
        steps.fill(steps.item() + 1)  # a tenth of what `steps += 1` takes
        return steps.item(), state

    def _step_tensors(
        self, update: Update, p: Tensor, grad: Tensor, group: dict[str, Any], lr: Any,
        count: float, state: dict[str, Any],
    ) -> None:
        """The same update by recorded operations: differentiable, or being captured."""
        scalars = self._scalars(group, lr, count, state)
        self._note_step(group, lr, count, state)
        with set_grad_enabled(bool(group["differentiable"])):
            if group["differentiable"]:
                for name in update.state:
                    state[name] = state[name].clone()  # the history keeps the old value
            grad = -grad if group["maximize"] else grad
            tensors = [p, grad, *(state[name] for name in update.state)]
            if not p.is_complex():
                update.body(ops, *tensors, *scalars)
                return
            reals = [ops.view_as_real(t).clone() for t in tensors]
            update.body(ops, *reals, *scalars)
            for tensor, real in zip(tensors, reals):
                if tensor is not grad:
                    tensor.copy_(ops.view_as_complex(real))


def scalar_lr(group: dict[str, Any]) -> Any:
    """The learning rate as a number, or as a tensor where it may get a gradient."""
    lr = group["lr"]
    return float(lr) if isinstance(lr, Tensor) and not group["differentiable"] else lr


def zeros_of(p: Tensor) -> Tensor:
    """Zeros like `p`, in its memory format and outside any history."""
    return ops.zeros_like(p.detach())


def new_count() -> Tensor:
    """A step count of zero."""
    return ops.zeros((), dtype=float32)


def check_lr(lr: Any, *, foreach: bool | None = None, capturable: bool = False) -> None:
    """ValueError for a negative learning rate or one that is no scalar."""
    if isinstance(lr, Tensor):
        if foreach and not capturable:
            raise ValueError(
                "lr as a Tensor is not supported for capturable=False and foreach=True"
            )
        if lr.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, but has shape {tuple(lr.shape)}")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")


def check_range(what: str, value: Any, low: float = 0.0, below: float = float("inf")) -> None:
    """ValueError unless ``low <= value < below``."""
    if not low <= value < below:
        raise ValueError(f"Invalid {what}: {value}")


def check_betas(betas: Any, *, foreach: bool | None = None, capturable: bool = False) -> None:
    """ValueError unless both betas are in [0, 1)."""
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ValueError("betas must be either both floats or both Tensors")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and foreach and not capturable:
            raise ValueError(
                f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True"
            )
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element")
        check_range(f"beta parameter at index {i}", beta, below=1.0)


def check_switches(
    foreach: bool | None, fused: bool | None, differentiable: bool
) -> None:
    """RuntimeError for switches that exclude each other. The update is always fused here."""
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

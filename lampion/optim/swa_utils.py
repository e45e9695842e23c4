"""Weight averaging: SWA and exponential moving averages."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from .. import ops
from ..autograd import no_grad
from ..nn import Module
from ..nn.modules.batchnorm import _BatchNorm
from ..tensor import Tensor, int64
from .lr_scheduler.base import LRScheduler, _per_group
from .lr_scheduler.cyclic import _STRATEGIES, _known_strategy
from .optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

AverageFunction = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverageFunction = Callable[[list[Tensor], list[Tensor], Any], None]


def get_ema_avg_fn(decay: float = 0.999) -> AverageFunction:
    """The function ``(average, value, count)`` of an exponential moving average."""
    _check_decay(decay)

    def average(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return average


def get_swa_avg_fn() -> AverageFunction:
    """The function ``(average, value, count)`` of an equal average."""

    def average(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return averaged + (current - averaged) / (num_averaged + 1)

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFunction:
    """Like ``get_ema_avg_fn``, on lists of tensors in place."""
    return _in_place(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAverageFunction:
    """Like ``get_swa_avg_fn``, on lists of tensors in place."""
    return _in_place(get_swa_avg_fn())


def _in_place(average: AverageFunction) -> MultiAverageFunction:
    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for mean, value in zip(averaged, current):
                if mean.is_floating_point() or mean.is_complex():
                    mean.copy_(average(mean, value, num_averaged))
                else:
                    mean.copy_(value)

    return update


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1].")


class AveragedModel(Module):
    """A copy of `model` whose parameters are the average of those seen by ``update_parameters``.

    Args:
        avg_fn: ``(average, value, count)`` to the new average; the equal average if not
            given.
        multi_avg_fn: the same on lists, in place.
        use_buffers: average the buffers too; otherwise they are copied.

    >>> import lampion as torch
    >>> model = torch.nn.Linear(1, 1)
    >>> averaged = torch.optim.swa_utils.AveragedModel(model)
    >>> averaged.update_parameters(model)
    >>> averaged.n_averaged
    tensor(1)
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: AverageFunction | None = None,
        multi_avg_fn: MultiAverageFunction | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", ops.tensor(0, dtype=int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model gives."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the average."""
        averaged = [p.detach() for p in self._averaged_tensors(self.module)]
        current = [p.detach() for p in self._averaged_tensors(model)]
        count = int(self.n_averaged)
        if count == 0:
            for mean, value in zip(averaged, current):
                mean.copy_(value)
        elif self.multi_avg_fn is not None:
            self.multi_avg_fn(averaged, current, count)
        else:
            _in_place(self.avg_fn or get_swa_avg_fn())(averaged, current, count)
        if not self.use_buffers:
            for mine, other in zip(self.module.buffers(), model.buffers()):
                mine.detach().copy_(other.detach())
        self.n_averaged += 1

    def _averaged_tensors(self, model: Module) -> Iterable[Tensor]:
        if not self.use_buffers:
            return model.parameters()
        return itertools.chain(model.parameters(), model.buffers())


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the statistics of `model`'s batch norms anew over all batches of `loader`.

    A batch is a tensor, or a list or tuple whose first member is the input.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an equal average over the batches
    model.train()
    try:
        with no_grad():
            for batch in loader:
                inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.train(training)


class SWALR(LRScheduler):
    """Goes to the constant rate `swa_lr` in `anneal_epochs` steps ("cos" or "linear")."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = _per_group(optimizer, swa_lr, "swa_lr")
        for group, rate in zip(optimizer.param_groups, rates):
            group["swa_lr"] = rate
        self._anneal_strategy = _known_strategy(anneal_strategy)
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(
                f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}"
            )
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """The rates of this step, from those of the step before."""
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, "
                "please use `get_last_lr()`.",
                UserWarning,
                stacklevel=2,
            )
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._done(step - 1), self._done(step)
        rates = []
        for group in self.optimizer.param_groups:
            goal, rate = group["swa_lr"], group["lr"]
            start = goal if before == 1 else (rate - before * goal) / (1 - before)
            rates.append(goal * now + start * (1 - now))
        return rates

    def _done(self, step: int) -> float:
        """The share of the way to `swa_lr` at `step`."""
        share = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return float(_STRATEGIES[self._anneal_strategy](0.0, 1.0, share))

"""Schedules with restarts and cycles, of the momentum too."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, _per_group, _require_optimizer, _set_value

__all__ = ["CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that starts again after `T_0` epochs, then `T_mult` times as many.

    ``step`` also takes fractions of an epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, (float, int)):
            raise ValueError(
                f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}"
            )
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_if_called_directly()
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch, or to `epoch`, which may be a fraction."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._locate(epoch)
        self.last_epoch = math.floor(epoch)
        self._get_lr_called_within_step = True
        try:
            values = self.get_lr()
        finally:
            self._get_lr_called_within_step = False
        self._apply(values)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.step(epoch)

    def _locate(self, epoch: float) -> None:
        """The cycle that `epoch` falls in, and the place there."""
        if epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        self.T_i, self.T_cur = self.T_0, epoch
        if epoch < self.T_0:
            return
        if self.T_mult == 1:
            self.T_cur = epoch % self.T_0
            return
        growth = self.T_mult - 1
        cycle = int(math.log(epoch / self.T_0 * growth + 1, self.T_mult))
        self.T_cur = epoch - self.T_0 * (self.T_mult**cycle - 1) / growth
        self.T_i = self.T_0 * self.T_mult**cycle


def _uses_beta1(optimizer: Optimizer) -> bool:
    """Whether momentum is the first beta; ValueError where there is neither."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        )
    return "betas" in optimizer.defaults


def _set_momentum(group: dict[str, Any], value: Any, use_beta1: bool) -> None:
    if use_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class CyclicLR(LRScheduler):
    """Goes up from `base_lr` to `max_lr` and down again, over and over.

    Args:
        mode: "triangular", "triangular2" (half as high each time) or "exp_range" (height
            ``gamma ** iteration``); `scale_fn` with `scale_mode` ("cycle" or "iterations")
            in place of it.
        cycle_momentum: move momentum (or Adam's first beta) the other way.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        groups = _require_optimizer(optimizer).param_groups
        base_lrs = _per_group(optimizer, base_lr, "base_lr")
        if last_epoch == -1:
            for group, rate in zip(groups, base_lrs):
                _set_value(group, "lr", rate)
        self.max_lrs = _per_group(optimizer, max_lr, "max_lr")
        up = float(step_size_up)
        down = up if step_size_down is None else float(step_size_down)
        self.total_size = up + down
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        modes = {"triangular": "cycle", "triangular2": "cycle", "exp_range": "iterations"}
        self.scale_mode = modes[mode] if scale_fn is None else scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._take_momenta(base_momentum, max_momentum, optimizer, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def _take_momenta(self, base: Any, top: Any, optimizer: Optimizer, last_epoch: int) -> None:
        self.use_beta1 = _uses_beta1(optimizer)
        self.base_momentums = _per_group(optimizer, base, "base_momentum")
        self.max_momentums = _per_group(optimizer, top, "max_momentum")
        if last_epoch != -1:
            return
        for group, high, low in zip(
            optimizer.param_groups, self.max_momentums, self.base_momentums
        ):
            _set_momentum(group, high, self.use_beta1)
            group["max_momentum"], group["base_momentum"] = high, low

    def scale_fn(self, x: float) -> float:
        """The height of cycle (or iteration) `x`."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x

    def get_lr(self) -> list[Any]:
        self._warn_if_called_directly()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        if x <= self.step_ratio:
            height = x / self.step_ratio
        else:
            height = (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            self._move_momenta(height, scale)
        bases = self.base_lrs
        return [base + (top - base) * height * scale for base, top in zip(bases, self.max_lrs)]

    def _move_momenta(self, height: float, scale: float) -> None:
        for group, low, high in zip(
            self.optimizer.param_groups, self.base_momentums, self.max_momentums
        ):
            _set_momentum(group, high - (high - low) * height * scale, self.use_beta1)

    def state_dict(self) -> dict[str, Any]:
        """A `scale_fn` is not saved; of a callable object, its attributes are."""
        state = super().state_dict()
        function = state.pop("_scale_fn_custom")
        plain = function is None or isinstance(function, types.FunctionType)
        return state | {"_scale_fn_custom": None if plain else dict(vars(function))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; a `scale_fn` stays."""
        rest = dict(state_dict)
        values = rest.pop("_scale_fn_custom", None)
        if values is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(values)
        self.__dict__.update(rest)


class OneCycleLR(LRScheduler):
    """One cycle: up from ``max_lr / div_factor`` to `max_lr`, then down to almost nothing.

    Steps after every batch. The number of steps is `total_steps`, or `epochs` times
    `steps_per_epoch`; stepping further raises ValueError.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        _require_optimizer(optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        self._schedule_phases = _one_cycle_phases(self.total_steps, pct_start, three_phase)
        self._anneal_func_type = _known_strategy(anneal_strategy)
        tops = _per_group(optimizer, max_lr, "max_lr")
        if last_epoch == -1:
            for group, top in zip(optimizer.param_groups, tops):
                group["initial_lr"] = top / div_factor
                group["max_lr"] = top
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._take_momenta(base_momentum, max_momentum, optimizer, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _take_momenta(self, base: Any, top: Any, optimizer: Optimizer, last_epoch: int) -> None:
        self.use_beta1 = _uses_beta1(optimizer)
        if last_epoch != -1:
            return
        highs = _per_group(optimizer, top, "max_momentum")
        lows = _per_group(optimizer, base, "base_momentum")
        for group, high, low in zip(optimizer.param_groups, highs, lows):
            _set_momentum(group, high, self.use_beta1)
            group["max_momentum"], group["base_momentum"] = high, low

    def get_lr(self) -> list[Any]:
        self._warn_if_called_directly()
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"Tried to step {step} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        phase, done = self._phase(step)
        blend = _STRATEGIES[self._anneal_func_type]
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(blend(group[phase["start_lr"]], group[phase["end_lr"]], done))
            if self.cycle_momentum:
                ends = group[phase["start_momentum"]], group[phase["end_momentum"]]
                _set_momentum(group, blend(*ends, done), self.use_beta1)
        return rates

    def _phase(self, step: int) -> tuple[dict[str, Any], float]:
        """The phase of `step` and how much of it is done."""
        start = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if step <= end or phase is self._schedule_phases[-1]:
                break
            start = end
        return phase, (step - start) / (end - start)


def _cosine_blend(start: Any, end: Any, done: float) -> Any:
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def _linear_blend(start: Any, end: Any, done: float) -> Any:
    return (end - start) * done + start


_STRATEGIES = {"cos": _cosine_blend, "linear": _linear_blend}


def _known_strategy(name: str) -> str:
    if name not in _STRATEGIES:
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {name}")
    return name


def _total_steps(total: int | None, epochs: int | None, per_epoch: int | None) -> int:
    if total is not None:
        _require_positive("total_steps", total)
        return total
    if epochs is None or per_epoch is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    _require_positive("epochs", epochs)
    _require_positive("steps_per_epoch", per_epoch)
    return epochs * per_epoch


def _require_positive(name: str, value: Any) -> None:
    if value <= 0 or not isinstance(value, int):
        raise ValueError(f"Expected positive integer {name}, but got {value}")


def _one_cycle_phases(total: int, pct_start: float, three: bool) -> list[dict[str, Any]]:
    if pct_start < 0 or pct_start > 1 or not isinstance(pct_start, float):
        raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
    peak = float(pct_start * total) - 1
    if three:
        return [
            _phase(peak, "initial_lr", "max_lr", "max", "base"),
            _phase(float(2 * pct_start * total) - 2, "max_lr", "initial_lr", "base", "max"),
            _phase(total - 1, "initial_lr", "min_lr", "max", "max"),
        ]
    return [
        _phase(peak, "initial_lr", "max_lr", "max", "base"),
        _phase(total - 1, "max_lr", "min_lr", "base", "max"),
    ]


def _phase(end: float, start_lr: str, end_lr: str, start: str, stop: str) -> dict[str, Any]:
    return {
        "end_step": end, "start_lr": start_lr, "end_lr": end_lr,
        "start_momentum": f"{start}_momentum", "end_momentum": f"{stop}_momentum",
    }  # fmt: skip

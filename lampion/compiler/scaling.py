"""`GradScaler` inside a captured step: a program takes the gradients to be finite.

The scale is a number of every run. A check in the program sees whether all gradients are finite;
where one is not, nothing has been changed, and the function runs eagerly: it skips the step. The
scaler's own books (stages, growth) are kept after the run.
"""

from __future__ import annotations

from typing import Any

from ..amp.grad_scaler import GradScaler
from ..autograd.modes import no_grad
from ..ops import isfinite
from ..tensor.dtype import float32, float64
from ..tensor.tensor import Tensor
from .varying import as_tensor, varying

__all__ = ["Scaling"]

_READY, _UNSCALED, _STEPPED = range(3)


class Scaling:
    """One scaler in one capture."""

    def __init__(self, watcher: Any, scaler: GradScaler) -> None:
        self.watcher, self.steps, self.scaler = watcher, watcher.steps, scaler
        own = scaler.__dict__
        watcher.guards.entry(own, "_enabled", own["_enabled"], "whether the scaler is enabled")
        for table in ("_stages", "_found_inf"):
            watcher.guards.entry(own, table, own[table], f"the scaler's {table}")
            watcher.guards.contents(own[table], "the state of a GradScaler between two updates")
        self.stages, self.updated = dict(scaler._stages), False

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """`scaler.name(...)`"""
        found: Any = getattr(self, f"_{name}" if self.scaler._enabled else f"_plain_{name}", None)
        if found is None or (self.updated and name != "get_scale"):
            self.watcher.refuse(f"GradScaler.{name}()" + (" after update()" if found else ""))
        return found(*args, **kwargs)

    def release(self) -> None:
        """The capture is over: lets go of what it recorded."""
        self.watcher = self.steps = None

    def commit(self) -> None:
        """After a run: what the scaler notes of steps that were made."""
        scaler = self.scaler
        scaler._found_inf.update(dict.fromkeys(self.stages, False))
        scaler._stages.update(self.stages)
        if self.updated:
            scaler.update()

    # --- a scaler that is switched off

    @staticmethod
    def _plain_scale(outputs: Any) -> Any:
        return outputs

    def _plain_step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        return self.watcher.call(self.watcher.attribute(optimizer, "step"), *args, **kwargs)

    @staticmethod
    def _plain_unscale_(optimizer: Any) -> None:
        return None

    @staticmethod
    def _plain_update(new_scale: Any = None) -> None:
        return None

    @staticmethod
    def _plain_get_scale() -> float:
        return 1.0

    # --- one that is on

    def _number(self, name: str, read: Any) -> Any:
        place = id(self.scaler), name
        numbers = self.watcher.numbers
        if place not in numbers:
            numbers[place] = varying(read(()), read)
            self.watcher.every.append(numbers[place])
        return numbers[place]

    def _get_scale(self) -> Any:
        if self.updated:
            return self._number("next scale", lambda _: self._next())
        return self._number("scale", lambda _: self.scaler._scale)

    def _next(self) -> float:
        """The scale after a step without overflow."""
        grows = self.scaler._growth_tracker + 1 == self.scaler._growth_interval
        return self.scaler._scale * (self.scaler._growth_factor if grows else 1.0)

    def _scale(self, outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            self._check(outputs)
            return outputs * as_tensor(self._get_scale(), outputs, self.steps.recorder)
        return type(outputs)([self._scale(o) for o in outputs])

    def _check(self, t: Tensor) -> None:
        if t._dtype not in (float32, float64):
            self.watcher.refuse(f"GradScaler with tensors of {t._dtype}")

    def _unscale_(self, optimizer: Any) -> None:
        if self.stages.get(id(optimizer), _READY) != _READY:
            self.watcher.refuse("GradScaler.unscale_() twice, or after step()")
        self.stages[id(optimizer)] = _UNSCALED
        inverse = self._number("inverse", lambda _: 1.0 / self.scaler._scale)
        self.steps.watch_groups(self.watcher, optimizer)
        with no_grad():
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                grad = self.steps.grad_of(p)
                if grad is not None:
                    self._check(grad)
                    grad.mul_(as_tensor(inverse, grad, self.steps.recorder))
                    self.steps.recorder.decisions.expect(isfinite(grad))

    def _step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        if "closure" in kwargs or self.stages.get(id(optimizer)) == _STEPPED:
            self.watcher.refuse("GradScaler.step() with a closure, or twice")
        if self.stages.get(id(optimizer), _READY) == _READY:
            self._unscale_(optimizer)
        result = self._plain_step(optimizer, *args, **kwargs)
        self.stages[id(optimizer)] = _STEPPED
        return result

    def _update(self, new_scale: Any = None) -> None:
        if new_scale is not None or not self.stages:
            self.watcher.refuse("GradScaler.update() with a new scale, or before a step")
        self.updated = True

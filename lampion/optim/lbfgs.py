"""L-BFGS, with an optional line search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd import enable_grad, no_grad
from ..tensor import Tensor
from .elementwise import check_lr
from .line_search import strong_wolfe
from .optimizer import Optimizer, Params

__all__ = ["LBFGS"]

Closure = Callable[[], Any]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of the gradient.

    Takes one parameter group. ``step(closure)`` runs up to `max_iter` iterations and
    calls the closure, which recomputes loss and gradients, up to `max_eval` times.
    `line_search_fn` is None or "strong_wolfe".

    >>> import lampion as torch
    >>> w = torch.tensor([4.0], requires_grad=True)
    >>> optimizer = torch.optim.LBFGS([w])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - 1) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    >>> round(w.item(), 4)
    1.0
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_lr(lr)
        max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        defaults = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._params = self.param_groups[0]["params"]

    def step(self, closure: Closure) -> Any:  # type: ignore[override]
        """Run up to `max_iter` iterations; returns the first loss."""
        with no_grad():
            return _Run(self, _with_grad(closure)).run()

    def _flat_grad(self) -> Tensor:
        parts = [_reals(_dense_grad(p)).reshape(-1) for p in self._params]
        return ops.cat(parts, 0)

    def _add(self, size: Any, direction: Tensor) -> None:
        """Move the parameters by ``size * direction``."""
        offset = 0
        for p in self._params:
            real = _reals(p)
            n = real.numel()
            real.add_(direction[offset : offset + n].view_as(real), alpha=float(size))
            offset += n

    def _copy(self) -> list[Tensor]:
        return [p.clone() for p in self._params]

    def _restore(self, values: list[Tensor]) -> None:
        for p, value in zip(self._params, values):
            p.copy_(value)


def _reals(t: Tensor) -> Tensor:
    return ops.view_as_real(t) if t.is_complex() else t


def _dense_grad(p: Tensor) -> Tensor:
    return ops.zeros_like(p) if p._grad is None else p._grad


def _with_grad(closure: Closure) -> Closure:
    def evaluate() -> Any:
        with enable_grad():
            return closure()

    return evaluate


class _Run:
    """One call of `step`: the loop's variables, kept in the optimizer's state between calls."""

    def __init__(self, optimizer: LBFGS, closure: Closure) -> None:
        self.optimizer, self.closure = optimizer, closure
        self.group = optimizer.param_groups[0]
        self.lr = self.group["lr"]
        self.state = optimizer.state[optimizer._params[0]]
        self.state.setdefault("func_evals", 0)
        self.state.setdefault("n_iter", 0)

    def run(self) -> Any:
        state = self.state
        first_loss = self.closure()
        self.loss, self.evals = float(first_loss), 1
        state["func_evals"] += 1
        self.grad = self.optimizer._flat_grad()
        if float(self.grad.abs().max()) <= self.group["tolerance_grad"]:
            return first_loss
        self._load()
        for iteration in range(1, self.group["max_iter"] + 1):
            state["n_iter"] += 1
            if not self._iterate(last=iteration == self.group["max_iter"]):
                break
        self._save()
        return first_loss

    def _load(self) -> None:
        state = self.state
        self.direction = state.get("d")
        self.size = state.get("t")
        self.old_dirs = state.get("old_dirs")
        self.old_steps = state.get("old_stps")
        self.inverses = state.get("ro")
        self.scale = state.get("H_diag")
        self.previous_grad = state.get("prev_flat_grad")
        self.previous_loss = state.get("prev_loss")
        self.alphas = state.get("al")

    def _save(self) -> None:
        self.state.update(
            d=self.direction, t=self.size, old_dirs=self.old_dirs, old_stps=self.old_steps,
            ro=self.inverses, H_diag=self.scale, prev_flat_grad=self.previous_grad,
            prev_loss=self.previous_loss,
        )  # fmt: skip
        if self.alphas is not None:
            self.state["al"] = self.alphas

    def _iterate(self, last: bool) -> bool:
        """One quasi-Newton step; False when it is time to stop."""
        first = self.state["n_iter"] == 1
        if first:
            self._start()
        else:
            self._update_memory()
            self._choose_direction()
        if self.previous_grad is None:
            self.previous_grad = self.grad.clone()
        else:
            self.previous_grad.copy_(self.grad)
        self.previous_loss = self.loss
        start = min(1.0, 1.0 / self.grad.abs().sum()) * self.lr if first else self.lr
        self.size = start
        slope = float(self.grad.dot(self.direction))
        if slope > -self.group["tolerance_change"]:
            return False
        self._move(start, slope, last)
        return not last and not self._converged()

    def _start(self) -> None:
        self.direction = self.grad.neg()
        self.old_dirs, self.old_steps, self.inverses = [], [], []
        self.scale = 1

    def _update_memory(self) -> None:
        """Remember the last step, if the gradient changed along it."""
        change = self.grad.sub(self.previous_grad)
        step = self.direction.mul(self.size)
        curvature = change.dot(step)
        if float(curvature) <= 1e-10:
            return
        if len(self.old_dirs) == self.group["history_size"]:
            for memory in (self.old_dirs, self.old_steps, self.inverses):
                memory.pop(0)
        self.old_dirs.append(change)
        self.old_steps.append(step)
        self.inverses.append(1.0 / curvature)
        self.scale = curvature / change.dot(change)

    def _choose_direction(self) -> None:
        """The two-loop recursion: the inverse Hessian estimate times the gradient."""
        if self.alphas is None:
            self.alphas = [None] * self.group["history_size"]
        q = self.grad.neg()
        count = len(self.old_dirs)
        for i in range(count - 1, -1, -1):
            self.alphas[i] = self.old_steps[i].dot(q) * self.inverses[i]
            q.add_(self.old_dirs[i], alpha=-float(self.alphas[i]))
        self.direction = r = q.mul(self.scale)
        for i in range(count):
            beta = self.old_dirs[i].dot(r) * self.inverses[i]
            r.add_(self.old_steps[i], alpha=float(self.alphas[i] - beta))

    def _move(self, start: Any, slope: float, last: bool) -> None:
        evals = 0
        if self.group["line_search_fn"] == "strong_wolfe":
            evals = self._search(start, slope)
        else:
            self.optimizer._add(start, self.direction)
            if not last:
                self.loss = float(self.closure())
                self.grad = self.optimizer._flat_grad()
                evals = 1
        self.flat = float(self.grad.abs().max()) <= self.group["tolerance_grad"]
        self.evals += evals
        self.state["func_evals"] += evals

    def _search(self, start: Any, slope: float) -> int:
        optimizer = self.optimizer
        origin = optimizer._copy()

        def evaluate(size: float) -> tuple[float, Tensor]:
            optimizer._add(size, self.direction)
            loss = float(self.closure())
            grad = optimizer._flat_grad()
            optimizer._restore(origin)
            return loss, grad

        self.loss, self.grad, self.size, evals = strong_wolfe(
            evaluate, float(start), self.direction, self.loss, self.grad, slope
        )
        optimizer._add(self.size, self.direction)
        return evals

    def _converged(self) -> bool:
        tolerance = self.group["tolerance_change"]
        return (
            self.evals >= self.group["max_eval"]
            or self.flat
            or float(self.direction.mul(self.size).abs().max()) <= tolerance
            or abs(self.loss - self.previous_loss) < tolerance
        )

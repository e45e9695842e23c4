"""Random programs of views and in-place writes, the same for lampion and PyTorch."""

from __future__ import annotations

import random
from typing import Any

Views = list[tuple[str, Any]]


def _views(pick: random.Random, t: Any) -> Any:
    """One random view of `t`."""
    choices = [lambda: t.view_as(t), lambda: t.unsqueeze(pick.randrange(t.dim() + 1))]
    if t.dim() >= 1:
        dim = pick.randrange(t.dim())
        size = t.shape[dim]
        start = pick.randrange(size)
        choices += [
            lambda: t.select(dim, start), lambda: t.narrow(dim, start, size - start),
            lambda: t[tuple([slice(None)] * dim + [slice(start % 2, None, 2)])]
            if size > 1 else t.narrow(dim, 0, 1),
            lambda: t.transpose(dim, pick.randrange(t.dim())),
            lambda: t.permute(*pick.sample(range(t.dim()), t.dim())),
            lambda: t.unfold(dim, 1, 1) if t.dim() < 4 else t.squeeze(),
        ]
    if t.dim() >= 2:
        choices += [lambda: t.diagonal(), lambda: t.flatten() if t.is_contiguous() else t.t()
                    if t.dim() == 2 else t.squeeze()]
    return pick.choice(choices)()


def _write(pick: random.Random, lib: Any, t: Any, x: Any) -> None:
    """One random write to `t`, often with a part of `x`."""
    factor = pick.choice([0.5, 2.0, -1.5])
    one = x.reshape(-1)[pick.randrange(x.numel())]
    pick.choice([
        lambda: t.mul_(factor), lambda: t.add_(one), lambda: t.mul_(one), lambda: t.sin_(),
        lambda: t.copy_(one.expand(t.shape) * 2), lambda: t.fill_(factor),
        lambda: t.add_(t.clone(), alpha=0.5), lambda: t.__setitem__(Ellipsis, one * factor),
        lambda: t.addcmul_(one.expand(t.shape), one.cos().expand(t.shape)),
        lambda: t.__setitem__(0, one) if t.dim() else t.exp_(),
    ])()


def run_program(lib: Any, x: Any, seed: int) -> Any:
    """Views of one buffer, written to in turn; the buffer and one early view come out."""
    pick = random.Random(seed)
    base = x * 1.25 if pick.random() < 0.7 else lib.ones_like(x.detach())
    live = [base]
    for _ in range(12):
        source = pick.choice(live)
        if pick.random() < 0.55:
            view = _views(pick, source)
            if view.numel() > 0 and view.dim() < 5:
                live.append(view)
        else:
            _ = source.grad_fn  # PyTorch refuses a stale view that nobody has looked at
            _write(pick, lib, source, x)
    last = pick.choice(live)
    return (base * base.cos()).sum() + (last * 3).sin().sum() + (x * 0).sum()

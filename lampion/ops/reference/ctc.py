"""Connectionist temporal classification: the loss of each sequence and its gradient.

Log probabilities (T, N, C); the recursion runs over time, vectorised over batch and states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any


def extend_targets(targets: Array, lengths: Sequence[int], blank: int) -> tuple[Array, Array]:
    """Targets (N, S) with blanks between, (N, 2S+1), and where a state may be skipped."""
    n, longest = targets.shape[0], max([0, *lengths])
    states = np.full((n, 2 * longest + 1), blank, np.int64)
    states[:, 1::2] = targets[:, :longest]
    skip = np.zeros(states.shape, bool)
    skip[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    return states, skip


class _Step:
    """log of the sum over staying, stepping by one and (where allowed) by two, of all states."""

    def __init__(self, skip: Array, dtype: Any) -> None:
        self.two = np.where(skip, 0, -np.inf).astype(dtype)
        self.ways = np.full((3, *skip.shape), -np.inf, dtype)

    def __call__(self, a: Array) -> Array:
        ways = self.ways
        ways[0] = a
        ways[1, :, 1:] = a[:, :-1]
        np.add(a[:, :-2], self.two[:, 2:], out=ways[2, :, 2:])
        top = np.maximum(ways.max(0), np.finfo(a.dtype).min)  # a difference of infinities is NaN
        return np.log(np.exp(ways - top).sum(0)) + top


def _emitted(logp: Array, states: Array) -> Array:
    """Log probability of the symbol of each state, (T, N, states)."""
    return np.take_along_axis(logp, np.broadcast_to(states, (len(logp), *states.shape)), 2)


def forward(
    logp: Array, states: Array, skip: Array, inputs: Array, lengths: Array
) -> tuple[Array, Array]:
    """Negative log likelihood (N,) and log alpha (N, T, states)."""
    steps, n = logp.shape[:2]
    alpha = np.full((n, steps, states.shape[1]), -np.inf, logp.dtype)
    emitted, step = _emitted(logp, states), _Step(skip, logp.dtype)
    if steps:
        reached = np.arange(min(2, states.shape[1])) < 2 * lengths[:, None] + 1
        alpha[:, 0, :2] = np.where(reached, emitted[0, :, :2], -np.inf)
    with np.errstate(divide="ignore"):
        for t in range(1, steps):
            alpha[:, t] = step(alpha[:, t - 1]) + emitted[t]
    return likelihood(alpha, inputs, lengths), alpha


def likelihood(alpha: Array, inputs: Array, lengths: Array) -> Array:
    """Negative log likelihood from log alpha: paths end in the last label or the blank after."""
    rows, last = np.arange(len(inputs)), np.maximum(inputs - 1, 0)
    if alpha.shape[1] == 0:
        return np.where(lengths > 0, np.inf, 0).astype(alpha.dtype)
    end = alpha[rows, last, 2 * lengths]
    before = np.where(lengths > 0, alpha[rows, last, np.maximum(2 * lengths - 1, 0)], -np.inf)
    loss = -np.logaddexp(end, before)
    return np.asarray(np.where(inputs > 0, loss, np.where(lengths > 0, np.inf, 0)), alpha.dtype)


def backward(
    grad: Array,
    logp: Array,
    states: Array,
    skip: Array,
    inputs: Array,
    lengths: Array,
    loss: Array,
    alpha: Array,
) -> Array:
    """Gradient for the log probabilities, of `grad` (N,)."""
    emitted = _emitted(logp, states)
    beta = _beta(emitted, skip, inputs, lengths)
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.exp(alpha.transpose(1, 0, 2) + beta - emitted + loss[:, None])
        posterior = _by_class(share, states, logp.shape[2])
        posterior[:, np.isinf(loss)] = posterior[np.isneginf(logp)] = np.nan
        result = (np.exp(logp) - posterior) * grad[None, :, None]
    result[np.arange(len(logp))[:, None] >= inputs[None, :]] = 0
    return np.asarray(result, logp.dtype)


def _beta(emitted: Array, skip: Array, inputs: Array, lengths: Array) -> Array:
    """Log probability of all that follows from a state on, (T, N, states)."""
    state = np.arange(skip.shape[1])
    ends = (state >= 2 * lengths[:, None] - 1) & (state <= 2 * lengths[:, None])
    ahead = np.zeros_like(skip)
    ahead[:, :-2] = skip[:, 2:]
    step, beta = _Step(ahead[:, ::-1], emitted.dtype), np.empty_like(emitted)
    current = np.full(skip.shape, -np.inf, emitted.dtype)
    with np.errstate(divide="ignore"):
        for t in range(len(emitted) - 1, -1, -1):
            last = (inputs == t + 1)[:, None]
            following = np.where(last, np.where(ends, 0, -np.inf), step(current[:, ::-1])[:, ::-1])
            beta[t] = current = following + emitted[t]
    return beta


def _by_class(share: Array, states: Array, classes: int) -> Array:
    """Sums (T, N, classes) of (T, N, states) over the states of one symbol."""
    rows = np.arange(share.shape[0] * share.shape[1]).reshape(*share.shape[:2], 1)
    found = np.bincount((rows * classes + states).ravel(), share.ravel(), rows.size * classes)
    return found.reshape(*share.shape[:2], classes)

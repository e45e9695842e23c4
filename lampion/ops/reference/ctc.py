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


def _shift(a: Array, by: int) -> Array:
    out = np.full_like(a, -np.inf)
    if by < a.shape[1]:
        out[:, by:] = a[:, : a.shape[1] - by]
    return out


def _three(a: Array, skip: Array) -> Array:
    """log of the sum over staying, stepping by one and (where allowed) by two."""
    two = np.where(skip, _shift(a, 2), -np.inf)
    return np.logaddexp(np.logaddexp(a, _shift(a, 1)), two)


def forward(
    logp: Array, states: Array, skip: Array, inputs: Array, lengths: Array
) -> tuple[Array, Array]:
    """Negative log likelihood (N,) and log alpha (N, T, states)."""
    steps, n = logp.shape[:2]
    alpha = np.full((n, steps, states.shape[1]), -np.inf, logp.dtype)
    if steps:
        first = np.take_along_axis(logp[0], states[:, :2], 1)
        alpha[:, 0, :2] = np.where(
            np.arange(first.shape[1]) < 2 * lengths[:, None] + 1, first, -np.inf
        )
    for t in range(1, steps):
        alpha[:, t] = _three(alpha[:, t - 1], skip) + np.take_along_axis(logp[t], states, 1)
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
    steps, n, classes = logp.shape
    beta = np.full(alpha.shape, -np.inf, logp.dtype)
    state = np.arange(states.shape[1])
    ends = (state >= 2 * lengths[:, None] - 1) & (state <= 2 * lengths[:, None])
    ahead = np.zeros_like(skip)
    ahead[:, :-2] = skip[:, 2:]
    current = np.full(states.shape, -np.inf, logp.dtype)
    for t in range(steps - 1, -1, -1):
        emit = np.take_along_axis(logp[t], states, 1)
        step = _three(current[:, ::-1], ahead[:, ::-1])[:, ::-1] + emit
        current = np.where((inputs == t + 1)[:, None], np.where(ends, emit, -np.inf), step)
        beta[:, t] = current
    total = np.full((steps, n, classes), -np.inf, logp.dtype)
    both = (alpha + beta).transpose(1, 0, 2)
    rows = np.arange(n)
    for s in range(states.shape[1]):
        cells = (slice(None), rows, states[:, s])
        total[cells] = np.logaddexp(total[cells], both[:, :, s])
    with np.errstate(over="ignore", invalid="ignore"):
        posterior = np.exp(total + loss[None, :, None] - logp)
        result = (np.exp(logp) - posterior) * grad[None, :, None]
    result[np.arange(steps)[:, None] >= inputs[None, :]] = 0
    return np.asarray(result, logp.dtype)

"""One recurrent layer in one direction over packed steps, and its gradient through time.

Steps are packed: `data` (total, I) holds step after step, `sizes[t]` rows of step t, longest
sequences first. An ordinary batch is the case of equal sizes. A state keeps a row per sequence;
a step touches the first `sizes[t]` of them, so a sequence that has ended keeps its last state and
(in reverse) one that has not begun keeps its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any
Saved = tuple[Array, ...]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return np.reciprocal(1 + np.exp(-x))


def _steps(sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """(first row, rows) of every step in the order of time."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist() if sizes else []
    steps = list(zip(starts, sizes, strict=True))
    return steps[::-1] if reverse else steps


def _project(x: Array, w: Array, b: Array | None) -> Array:
    out = x @ w.T
    if b is not None:
        out += b
    return out


def lstm(data: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
         b_hh: Array | None, w_hr: Array | None, sizes: Sequence[int], reverse: bool) -> Saved:
    """(outputs, last h, last c, gates, previous h, cells, previous c)."""
    both = None if b_ih is None or b_hh is None else b_ih + b_hh
    gates, n = _project(data, w_ih, both), c0.shape[1]
    h, c = h0.copy(), c0.copy()
    out = np.empty((len(data), h.shape[1]), data.dtype)
    before_h, before_c = np.empty_like(out), np.empty((len(data), n), data.dtype)
    cells = np.empty_like(before_c)
    turned = w_hh.T
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before_h[at], before_c[at] = h[:rows], c[:rows]
        g = gates[at]
        g += h[:rows] @ turned
        g[:, : 2 * n] = sigmoid(g[:, : 2 * n])
        g[:, 2 * n : 3 * n] = np.tanh(g[:, 2 * n : 3 * n])
        g[:, 3 * n :] = sigmoid(g[:, 3 * n :])
        cell = g[:, n : 2 * n] * c[:rows] + g[:, :n] * g[:, 2 * n : 3 * n]
        new = g[:, 3 * n :] * np.tanh(cell)
        cells[at] = c[:rows] = cell
        out[at] = h[:rows] = new if w_hr is None else new @ w_hr.T
    return out, h, c, gates, before_h, cells, before_c


def lstm_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, w_hr: Array | None,
                  saved: Saved, sizes: Sequence[int], reverse: bool) -> Saved:
    """Gradients for data, h0, c0, w_ih, w_hh, the bias, w_hr."""
    gates, before_h, cells, before_c = saved
    gy, gh, gc = grads[0], grads[1].copy(), grads[2].copy()
    n = gc.shape[1]
    slopes = np.empty_like(gates)
    inner = np.tanh(cells)
    full = np.empty((len(data), gh.shape[1]), gh.dtype) if w_hr is not None else None
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        g, tc = gates[at], inner[at]
        i, f, cand, o = g[:, :n], g[:, n : 2 * n], g[:, 2 * n : 3 * n], g[:, 3 * n :]
        dh = gh[:rows] + gy[at]
        if w_hr is not None and full is not None:
            full[at] = dh
            dh = dh @ w_hr
        dc = gc[:rows] + dh * o * (1 - tc * tc)
        s = slopes[at]
        s[:, :n] = dc * cand * i * (1 - i)
        s[:, n : 2 * n] = dc * before_c[at] * f * (1 - f)
        s[:, 2 * n : 3 * n] = dc * i * (1 - cand * cand)
        s[:, 3 * n :] = dh * tc * o * (1 - o)
        gc[:rows] = dc * f
        gh[:rows] = s @ w_hh
    hidden = gates[:, 3 * n :] * inner
    projected = np.zeros(0) if full is None else full.T @ hidden
    return (slopes @ w_ih, gh, gc, slopes.T @ data, slopes.T @ before_h, slopes.sum(0), projected)


def gru(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
        sizes: Sequence[int], reverse: bool) -> Saved:
    """(outputs, last h, gates r z n, previous h, hidden part of n)."""
    gates, n = _project(data, w_ih, b_ih), h0.shape[1]
    h = h0.copy()
    out = np.empty((len(data), n), data.dtype)
    before, inner = np.empty_like(out), np.empty_like(out)
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before[at] = h[:rows]
        g, hidden = gates[at], _project(h[:rows], w_hh, b_hh)
        g[:, : 2 * n] = sigmoid(g[:, : 2 * n] + hidden[:, : 2 * n])
        inner[at] = hidden[:, 2 * n :]
        g[:, 2 * n :] = np.tanh(g[:, 2 * n :] + g[:, :n] * hidden[:, 2 * n :])
        z, new = g[:, n : 2 * n], g[:, 2 * n :]
        out[at] = h[:rows] = new + z * (h[:rows] - new)
    return out, h, gates, before, inner


def gru_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                 sizes: Sequence[int], reverse: bool) -> Saved:
    """Gradients for data, h0, w_ih, w_hh, b_ih, b_hh."""
    gates, before, inner = saved
    gy, gh = grads[0], grads[1].copy()
    n = gh.shape[1]
    slopes, hidden = np.empty_like(gates), np.empty_like(gates)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        g, s = gates[at], slopes[at]
        r, z, new = g[:, :n], g[:, n : 2 * n], g[:, 2 * n :]
        dh = gh[:rows] + gy[at]
        s[:, 2 * n :] = dh * (1 - z) * (1 - new * new)
        s[:, n : 2 * n] = dh * (before[at] - new) * z * (1 - z)
        s[:, :n] = s[:, 2 * n :] * inner[at] * r * (1 - r)
        hidden[at] = s
        hidden[at, 2 * n :] = s[:, 2 * n :] * r
        gh[:rows] = dh * z + hidden[at] @ w_hh
    return (slopes @ w_ih, gh, slopes.T @ data, hidden.T @ before, slopes.sum(0), hidden.sum(0))


def simple(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
           b_hh: Array | None, sizes: Sequence[int], reverse: bool, relu: bool) -> Saved:
    """(outputs, last h, previous h) of h = tanh or relu of the two projections."""
    both = None if b_ih is None or b_hh is None else b_ih + b_hh
    out, h = _project(data, w_ih, both), h0.copy()
    before = np.empty_like(out)
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before[at] = h[:rows]
        total = out[at] + h[:rows] @ w_hh.T
        out[at] = h[:rows] = np.maximum(total, 0) if relu else np.tanh(total)
    return out, h, before


def simple_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                    sizes: Sequence[int], reverse: bool, relu: bool) -> Saved:
    """Gradients for data, h0, w_ih, w_hh, the bias."""
    out, before = saved
    gy, gh = grads[0], grads[1].copy()
    slopes = np.empty_like(out)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        dh = gh[:rows] + gy[at]
        slopes[at] = dh * ((out[at] > 0) if relu else (1 - out[at] * out[at]))
        gh[:rows] = slopes[at] @ w_hh
    return slopes @ w_ih, gh, slopes.T @ data, slopes.T @ before, slopes.sum(0)

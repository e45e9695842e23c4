"""One recurrent layer in one direction over packed steps, and its gradient through time.

Steps are packed: `data` (total, I) holds step after step, `sizes[t]` rows of step t, longest
sequences first. An ordinary batch is the case of equal sizes. A state keeps a row per sequence;
a step touches the first `sizes[t]` of them, so a sequence that has ended keeps its last state and
(in reverse) one that has not begun keeps its first.

What happens to one element is a function of its own (`lstm_cell`, ...). `run` says who computes:
`Plain` NumPy here, kernels in `ops/launchers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any
Saved = tuple[Array, ...]


class Plain:
    """Computes with NumPy."""

    def product(self, a: Array, b: Array, out: Array, add: bool = False) -> None:
        """`out = a @ b`, or `out += a @ b`."""
        if add:
            out += a @ b
        else:
            np.matmul(a, b, out=out)

    def apply(self, cell: Callable[..., Any], arrays: Sequence[Array],
              into: Sequence[Array]) -> None:
        """`into = cell(*arrays)`, element by element."""
        for target, value in zip(into, cell(*arrays), strict=True):
            target[...] = value


PLAIN = Plain()


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return np.reciprocal(1 + np.exp(-x))


# --- cells: one element each, the gates in the order of their weights -------------------------


def lstm_cell(i: Array, f: Array, g: Array, o: Array, c: Array) -> Saved:
    """(i, f, g, o after their functions, new cell, new output)."""
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    cell = f * c + i * g
    return i, f, g, o, cell, o * np.tanh(cell)


def lstm_slopes(i: Array, f: Array, g: Array, o: Array, cell: Array, before: Array, gh: Array,
                gc: Array) -> Saved:
    """(gradients of the four sums before their functions, of the previous cell)."""
    inner = np.tanh(cell)
    dc = gc + gh * o * (1 - inner * inner)
    return (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g),
            gh * inner * o * (1 - o), dc * f)


def gru_cell(r: Array, z: Array, n: Array, hr: Array, hz: Array, hn: Array, h: Array) -> Saved:
    """(r, z, n after their functions, new state)."""
    r, z = sigmoid(r + hr), sigmoid(z + hz)
    n = np.tanh(n + r * hn)
    return r, z, n, n + z * (h - n)


def gru_slopes(r: Array, z: Array, n: Array, hn: Array, h: Array, gh: Array) -> Saved:
    """(gradients of the three sums, of the hidden part of n, of h not through the gates)."""
    dn = gh * (1 - z) * (1 - n * n)
    return dn * hn * r * (1 - r), gh * (h - n) * z * (1 - z), dn, dn * r, gh * z


def tanh_cell(x: Array) -> Saved:
    return (np.tanh(x),)


def relu_cell(x: Array) -> Saved:
    return (np.maximum(x, 0),)


def tanh_slopes(out: Array, gh: Array) -> Saved:
    return (gh * (1 - out * out),)


def relu_slopes(out: Array, gh: Array) -> Saved:
    return (np.where(out > 0, gh, np.zeros((), gh.dtype)),)


# --- layers -----------------------------------------------------------------------------------


def _steps(sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """(first row, rows) of every step in the order of time."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist() if sizes else []
    steps = list(zip(starts, sizes, strict=True))
    return steps[::-1] if reverse else steps


def _project(run: Plain, x: Array, w: Array, b: Array | None) -> Array:
    out = np.empty((len(x), len(w)), x.dtype)
    if b is not None:
        out[...] = b
    run.product(x, w.T, out, b is not None)
    return out


def _gates(array: Array, n: int) -> list[Array]:
    """Equal parts of the columns."""
    return [array[:, k : k + n] for k in range(0, array.shape[1], n)]


def lstm(data: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
         b_hh: Array | None, w_hr: Array | None, sizes: Sequence[int], reverse: bool,
         run: Plain = PLAIN) -> Saved:
    """(outputs, last h, last c, gates, previous h, cells, previous c)."""
    both = None if b_ih is None or b_hh is None else b_ih + b_hh
    gates, n = _project(run, data, w_ih, both), c0.shape[1]
    h, c = h0.copy(), c0.copy()
    out = np.empty((len(data), h.shape[1]), data.dtype)
    hidden = out if w_hr is None else np.empty((len(data), n), data.dtype)
    before_h, before_c = np.empty_like(out), np.empty((len(data), n), data.dtype)
    cells = np.empty_like(before_c)
    turned = np.ascontiguousarray(w_hh.T)
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before_h[at], before_c[at] = h[:rows], c[:rows]
        g = gates[at]
        run.product(before_h[at], turned, g, True)
        parts = _gates(g, n)
        run.apply(lstm_cell, [*parts, before_c[at]], [*parts, cells[at], hidden[at]])
        if w_hr is not None:
            run.product(hidden[at], w_hr.T, out[at])
        c[:rows], h[:rows] = cells[at], out[at]
    return out, h, c, gates, before_h, cells, before_c


def lstm_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, w_hr: Array | None,
                  saved: Saved, sizes: Sequence[int], reverse: bool, run: Plain = PLAIN) -> Saved:
    """Gradients for data, h0, c0, w_ih, w_hh, the bias, w_hr."""
    gates, before_h, cells, before_c = saved
    gy, gh, gc = grads[0], grads[1].copy(), grads[2].copy()
    n = gc.shape[1]
    slopes = np.empty_like(gates)
    full = None if w_hr is None else np.empty((len(data), gh.shape[1]), gh.dtype)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        dh = gh[:rows] + gy[at]
        if full is not None:
            full[at] = dh
            dh = dh @ w_hr
        parts = _gates(slopes[at], n)
        run.apply(lstm_slopes, [*_gates(gates[at], n), cells[at], before_c[at], dh, gc[:rows]],
                  [*parts, gc[:rows]])
        run.product(slopes[at], w_hh, gh[:rows])
    projected = np.zeros(0)
    if full is not None:
        projected = full.T @ (gates[:, 3 * n :] * np.tanh(cells))
    return (*_weights(run, slopes, slopes, data, before_h, w_ih, (gh, gc)), projected)


def _weights(run: Plain, slopes: Array, hidden: Array, data: Array, before: Array, w_ih: Array,
             states: tuple[Array, ...]) -> Saved:
    """Gradients for data, the states as given, w_ih, w_hh and the bias of the input."""
    gx = np.empty_like(data)
    run.product(slopes, w_ih, gx)
    g_ih, g_hh = (np.empty((slopes.shape[1], a.shape[1]), data.dtype) for a in (data, before))
    run.product(slopes.T, data, g_ih)
    run.product(hidden.T, before, g_hh)
    return gx, *states, g_ih, g_hh, slopes.sum(0)


def gru(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
        sizes: Sequence[int], reverse: bool, run: Plain = PLAIN) -> Saved:
    """(outputs, last h, gates r z n, previous h, hidden part of n)."""
    gates, n = _project(run, data, w_ih, b_ih), h0.shape[1]
    h = h0.copy()
    out = np.empty((len(data), n), data.dtype)
    before, inner = np.empty_like(out), np.empty_like(out)
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before[at] = h[:rows]
        parts, hidden = _gates(gates[at], n), _project(run, before[at], w_hh, b_hh)
        inner[at] = hidden[:, 2 * n :]
        run.apply(gru_cell, [*parts, *_gates(hidden, n), before[at]], [*parts, out[at]])
        h[:rows] = out[at]
    return out, h, gates, before, inner


def gru_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                 sizes: Sequence[int], reverse: bool, run: Plain = PLAIN) -> Saved:
    """Gradients for data, h0, w_ih, w_hh, b_ih, b_hh."""
    gates, before, inner = saved
    gy, gh = grads[0], grads[1].copy()
    n = gh.shape[1]
    slopes, hidden = np.empty_like(gates), np.empty_like(gates)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        dh = gh[:rows] + gy[at]
        parts = _gates(slopes[at], n)
        run.apply(gru_slopes, [*_gates(gates[at], n), inner[at], before[at], dh],
                  [*parts, hidden[at, 2 * n :], gh[:rows]])
        hidden[at, : 2 * n] = slopes[at, : 2 * n]
        run.product(hidden[at], w_hh, gh[:rows], True)
    return (*_weights(run, slopes, hidden, data, before, w_ih, (gh,)), hidden.sum(0))


def simple(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
           b_hh: Array | None, sizes: Sequence[int], reverse: bool, relu: bool,
           run: Plain = PLAIN) -> Saved:
    """(outputs, last h, previous h) of h = tanh or relu of the two projections."""
    both = None if b_ih is None or b_hh is None else b_ih + b_hh
    out, h = _project(run, data, w_ih, both), h0.copy()
    before, turned = np.empty_like(out), np.ascontiguousarray(w_hh.T)
    for start, rows in _steps(sizes, reverse):
        at = slice(start, start + rows)
        before[at] = h[:rows]
        run.product(before[at], turned, out[at], True)
        run.apply(relu_cell if relu else tanh_cell, [out[at]], [out[at]])
        h[:rows] = out[at]
    return out, h, before


def simple_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                    sizes: Sequence[int], reverse: bool, relu: bool, run: Plain = PLAIN) -> Saved:
    """Gradients for data, h0, w_ih, w_hh, the bias."""
    out, before = saved
    gy, gh = grads[0], grads[1].copy()
    slopes = np.empty_like(out)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        dh = gh[:rows] + gy[at]
        run.apply(relu_slopes if relu else tanh_slopes, [out[at], dh], [slopes[at]])
        run.product(slopes[at], w_hh, gh[:rows])
    return _weights(run, slopes, slopes, data, before, w_ih, (gh,))

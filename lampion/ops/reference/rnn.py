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
    """Computes with NumPy. Nothing else here touches an element."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """New memory of the dtype of `like`."""
        return np.empty(shape, like.dtype)

    def copy(self, into: Array, a: Array) -> None:
        """`into[...] = a`."""
        into[...] = a

    def contiguous(self, a: Array) -> Array:
        """`a`, or a copy that is C-contiguous."""
        return np.ascontiguousarray(a)

    def repeated(self, b: Array) -> Any:
        """`b`, as `product` takes it when it comes again and again."""
        return self.contiguous(b)

    def sum_rows(self, a: Array) -> Array:
        """The sum of the rows."""
        return a.sum(0)

    def product(self, a: Array, b: Any, out: Array, add: bool = False) -> None:
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


def copied(run: Plain, a: Array) -> Array:
    """A copy of a matrix."""
    out = run.empty(a.shape, a)
    run.copy(out, a)
    return out


def added(a: Array, b: Array) -> Saved:
    return (a + b,)


def _sum_of(run: Plain, a: Array | None, b: Array | None) -> Array | None:
    """Of two biases; None without them."""
    if a is None or b is None:
        return None
    out = run.empty(a.shape, a)
    run.apply(added, [a, b], [out])
    return out


# --- cells: one element each, the gates in the order of their weights -------------------------


def lstm_cell(i: Array, f: Array, g: Array, o: Array, c: Array) -> Saved:
    """(i, f, g, o after their functions, new cell, new output)."""
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    cell = f * c + i * g
    return i, f, g, o, cell, o * np.tanh(cell)


def lstm_slopes(i: Array, f: Array, g: Array, o: Array, cell: Array, before: Array, gh: Array,
                gy: Array, gc: Array) -> Saved:
    """(gradients of the four sums before their functions, of the previous cell).

    The gradient for the output comes in two parts, here and below.
    """
    gh = gh + gy
    inner = np.tanh(cell)
    dc = gc + gh * o * (1 - inner * inner)
    return (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g),
            gh * inner * o * (1 - o), dc * f)


def gru_cell(r: Array, z: Array, n: Array, hr: Array, hz: Array, hn: Array, h: Array) -> Saved:
    """(r, z, n after their functions, new state)."""
    r, z = sigmoid(r + hr), sigmoid(z + hz)
    n = np.tanh(n + r * hn)
    return r, z, n, n + z * (h - n)


def gru_slopes(r: Array, z: Array, n: Array, hn: Array, h: Array, gh: Array, gy: Array) -> Saved:
    """(gradients of the three sums, of the hidden part of n, of h not through the gates)."""
    gh = gh + gy
    dn = gh * (1 - z) * (1 - n * n)
    return dn * hn * r * (1 - r), gh * (h - n) * z * (1 - z), dn, dn * r, gh * z


def tanh_cell(x: Array) -> Saved:
    return (np.tanh(x),)


def relu_cell(x: Array) -> Saved:
    return (np.maximum(x, 0),)


def tanh_slopes(out: Array, gh: Array, gy: Array) -> Saved:
    return ((gh + gy) * (1 - out * out),)


def relu_slopes(out: Array, gh: Array, gy: Array) -> Saved:
    return (np.where(out > 0, gh + gy, np.zeros((), gh.dtype)),)


def shown(o: Array, cell: Array) -> Saved:
    """What an LSTM shows of its cell."""
    return (o * np.tanh(cell),)


# --- layers -----------------------------------------------------------------------------------


def _steps(sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """(first row, rows) of every step in the order of time."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist() if sizes else []
    steps = list(zip(starts, sizes, strict=True))
    return steps[::-1] if reverse else steps


class _States:
    """A state before and after every step, each packed as the data.

    Where all steps have the same rows, what one leaves is what the next finds, in one memory:
    neither array may be shown to those who could write to it.
    """

    def __init__(self, run: Plain, first: Array, steps: Sequence[tuple[int, int]], reverse: bool
                 ) -> None:
        self.run, self.steps, rows = run, steps, len(first)
        total = sum(n for _, n in steps)
        self.together = bool(steps) and all(n == rows for _, n in steps)
        if self.together:
            whole = run.empty((total + rows, first.shape[1]), first)
            ends = whole[:total], whole[rows:]
            self.before, self.after = ends[::-1] if reverse else ends
            run.copy(self.before[_rows(steps[0])], first)
        else:
            self.before, self.after = (run.empty((total, first.shape[1]), first)
                                       for _ in range(2))
            self.state = copied(run, first)

    def begin(self, at: slice) -> None:
        """Before a step: its rows of the state."""
        if not self.together:
            self.run.copy(self.before[at], self.state[: at.stop - at.start])

    def end(self, at: slice) -> None:
        """After a step."""
        if not self.together:
            self.run.copy(self.state[: at.stop - at.start], self.after[at])

    def last(self) -> Array:
        """The state after all steps, in memory of its own."""
        return copied(self.run, self.after[_rows(self.steps[-1])]) if self.together else self.state


def _rows(step: tuple[int, int]) -> slice:
    return slice(step[0], step[0] + step[1])


def _project(run: Plain, x: Array, w: Array, b: Array | None) -> Array:
    out = _based(run, (len(x), len(w)), x, b)
    run.product(x, w.T, out, b is not None)
    return out


def _based(run: Plain, shape: tuple[int, int], like: Array, b: Array | None) -> Array:
    """New memory that holds the bias, if there is one."""
    out = run.empty(shape, like)
    if b is not None:
        run.copy(out, b)
    return out


def _gates(array: Array, n: int) -> list[Array]:
    """Equal parts of the columns."""
    return [array[:, k : k + n] for k in range(0, array.shape[1], n)]


def lstm(data: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
         b_hh: Array | None, w_hr: Array | None, sizes: Sequence[int], reverse: bool,
         run: Plain = PLAIN) -> Saved:
    """(outputs, last h, last c, gates, previous h, cells, previous c)."""
    both, steps = _sum_of(run, b_ih, b_hh), _steps(sizes, reverse)
    gates, n = _project(run, data, w_ih, both), c0.shape[1]
    h, c = (_States(run, a, steps, reverse) for a in (h0, c0))
    hidden = h.after if w_hr is None else run.empty((len(data), n), data)
    turned = run.repeated(w_hh.T)
    for at in map(_rows, steps):
        h.begin(at)
        c.begin(at)
        run.product(h.before[at], turned, gates[at], True)
        parts = _gates(gates[at], n)
        run.apply(lstm_cell, [*parts, c.before[at]], [*parts, c.after[at], hidden[at]])
        if w_hr is not None:
            run.product(hidden[at], w_hr.T, h.after[at])
        h.end(at)
        c.end(at)
    return copied(run, h.after), h.last(), c.last(), gates, h.before, c.after, c.before


def lstm_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, w_hr: Array | None,
                  saved: Saved, sizes: Sequence[int], reverse: bool, asks: bool,
                  run: Plain = PLAIN) -> Saved:
    """Gradients for data (empty if nobody asks), h0, c0, w_ih, w_hh, the bias, w_hr."""
    gates, before_h, cells, before_c = saved
    gy, gh, gc = grads[0], copied(run, grads[1]), copied(run, grads[2])
    n = gc.shape[1]
    slopes, weight = run.empty(gates.shape, gates), run.repeated(w_hh)
    full = None if w_hr is None else run.empty(gy.shape, gh)
    zero = np.zeros((1, 1), gh.dtype)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        both = gh[:rows], gy[at]
        if full is not None:
            run.apply(added, both, [full[at]])
            both = run.empty((rows, n), gh), zero
            run.product(full[at], w_hr, both[0])
        parts = _gates(slopes[at], n)
        run.apply(lstm_slopes, [*_gates(gates[at], n), cells[at], before_c[at], *both, gc[:rows]],
                  [*parts, gc[:rows]])
        run.product(slopes[at], weight, gh[:rows])
    projected = run.empty((0,) if full is None else (gh.shape[1], n), gh)
    if full is not None:
        hidden = run.empty(cells.shape, gh)
        run.apply(shown, [gates[:, 3 * n :], cells], [hidden])
        run.product(full.T, hidden, projected)
    return (*_weights(run, slopes, slopes, data, before_h, w_ih, (gh, gc), asks), projected)


def _weights(run: Plain, slopes: Array, hidden: Array, data: Array, before: Array, w_ih: Array,
             states: tuple[Array, ...], asks: bool) -> Saved:
    """Gradients for data, the states as given, w_ih, w_hh and the bias of the input."""
    gx = run.empty(data.shape if asks else (0,), data)
    if asks:
        run.product(slopes, w_ih, gx)
    g_ih, g_hh = (run.empty((slopes.shape[1], a.shape[1]), data) for a in (data, before))
    run.product(slopes.T, data, g_ih)
    run.product(hidden.T, before, g_hh)
    return gx, *states, g_ih, g_hh, run.sum_rows(slopes)


def gru(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None,
        sizes: Sequence[int], reverse: bool, run: Plain = PLAIN) -> Saved:
    """(outputs, last h, gates r z n, previous h, hidden part of n)."""
    gates, n, steps = _project(run, data, w_ih, b_ih), h0.shape[1], _steps(sizes, reverse)
    h, turned = _States(run, h0, steps, reverse), run.repeated(w_hh.T)
    inner = run.empty((len(data), n), data)
    for at in map(_rows, steps):
        h.begin(at)
        parts, hidden = _gates(gates[at], n), _based(run, (at.stop - at.start, 3 * n), data, b_hh)
        run.product(h.before[at], turned, hidden, b_hh is not None)
        run.copy(inner[at], hidden[:, 2 * n :])
        run.apply(gru_cell, [*parts, *_gates(hidden, n), h.before[at]], [*parts, h.after[at]])
        h.end(at)
    return copied(run, h.after), h.last(), gates, h.before, inner


def gru_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                 sizes: Sequence[int], reverse: bool, asks: bool, run: Plain = PLAIN) -> Saved:
    """Gradients for data (empty if nobody asks), h0, w_ih, w_hh, b_ih, b_hh."""
    gates, before, inner = saved
    gy, gh = grads[0], copied(run, grads[1])
    n = gh.shape[1]
    slopes, hidden = (run.empty(gates.shape, gates) for _ in range(2))
    weight = run.repeated(w_hh)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        parts = _gates(slopes[at], n)
        run.apply(gru_slopes, [*_gates(gates[at], n), inner[at], before[at], gh[:rows], gy[at]],
                  [*parts, hidden[at, 2 * n :], gh[:rows]])
        run.copy(hidden[at, : 2 * n], slopes[at, : 2 * n])
        run.product(hidden[at], weight, gh[:rows], True)
    return (*_weights(run, slopes, hidden, data, before, w_ih, (gh,), asks), run.sum_rows(hidden))


def simple(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
           b_hh: Array | None, sizes: Sequence[int], reverse: bool, relu: bool,
           run: Plain = PLAIN) -> Saved:
    """(outputs, last h, previous h) of h = tanh or relu of the two projections."""
    sums, steps = _project(run, data, w_ih, _sum_of(run, b_ih, b_hh)), _steps(sizes, reverse)
    h, turned = _States(run, h0, steps, reverse), run.repeated(w_hh.T)
    for at in map(_rows, steps):
        h.begin(at)
        run.product(h.before[at], turned, sums[at], True)
        run.apply(relu_cell if relu else tanh_cell, [sums[at]], [h.after[at]])
        h.end(at)
    return copied(run, h.after), h.last(), h.before


def simple_backward(grads: Saved, data: Array, w_ih: Array, w_hh: Array, saved: Saved,
                    sizes: Sequence[int], reverse: bool, relu: bool, asks: bool,
                    run: Plain = PLAIN) -> Saved:
    """Gradients for data (empty if nobody asks), h0, w_ih, w_hh, the bias."""
    out, before = saved
    gy, gh = grads[0], copied(run, grads[1])
    slopes, weight = run.empty(out.shape, out), run.repeated(w_hh)
    for start, rows in reversed(_steps(sizes, reverse)):
        at = slice(start, start + rows)
        run.apply(relu_slopes if relu else tanh_slopes, [out[at], gh[:rows], gy[at]],
                  [slopes[at]])
        run.product(slopes[at], weight, gh[:rows])
    return _weights(run, slopes, slopes, data, before, w_ih, (gh,), asks)

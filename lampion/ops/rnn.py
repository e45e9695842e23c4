"""Recurrent networks: cells, and whole stacks of layers over padded or packed sequences.

One layer in one direction is one operator (`lstm_layer`, `gru_layer`, `rnn_layer`) with its own
gradient through time. Where that gradient must itself be differentiated, the layer is computed
again from cells written in public operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.modes import enable_grad, state
from ..tensor.tensor import Tensor
from .contraction import linear
from .families import Array, OptArray
from .joining import cat, stack
from .record import leaf, op
from .reference import rnn as reference

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "run_layers",
]

Sizes = tuple[int, ...]


# -- cells in public operators


def _lstm_step(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any,
               w_hr: Any = None) -> tuple[Tensor, Tensor]:
    gates = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else linear(h, w_hr)), c


def _gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    xr, xz, xn = linear(x, w_ih, b_ih).chunk(3, -1)
    hr, hz, hn = linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (h - n)


def _simple_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any,
                 relu: bool) -> Tensor:
    total = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)
    return total.relu() if relu else total.tanh()


def _check_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor) -> None:
    if x.shape[-1] != w_ih.shape[-1]:
        raise RuntimeError(
            f"input has inconsistent input_size: got {x.shape[-1]} expected {w_ih.shape[-1]}"
        )
    if h.shape[-1] != w_hh.shape[-1]:
        raise RuntimeError(
            f"hidden has inconsistent hidden_size: got {h.shape[-1]}, expected {w_hh.shape[-1]}"
        )
    if x.ndim == 2 and x.shape[0] != h.shape[0]:
        raise RuntimeError(
            f"Input batch size {x.shape[0]} doesn't match hidden batch size {h.shape[0]}"
        )


@op("torch")
def lstm_cell(input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor,
              b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the new (h, c)."""
    if len(hx) != 2:
        raise RuntimeError("lstm_cell expects two hidden states")
    _check_cell(input, hx[0], w_ih, w_hh)
    return _lstm_step(input, hx[0], hx[1], w_ih, w_hh, b_ih, b_hh)


@op("torch")
def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """One step of a GRU: the new h."""
    _check_cell(input, hx, w_ih, w_hh)
    return _gru_step(input, hx, w_ih, w_hh, b_ih, b_hh)


@op("torch")
def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """One step of a simple RNN with tanh: the new h."""
    _check_cell(input, hx, w_ih, w_hh)
    return _simple_step(input, hx, w_ih, w_hh, b_ih, b_hh, False)


@op("torch")
def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """One step of a simple RNN with ReLU: the new h."""
    _check_cell(input, hx, w_ih, w_hh)
    return _simple_step(input, hx, w_ih, w_hh, b_ih, b_hh, True)


# -- one layer, one direction, from cells


def _composed(step: Callable[..., Any], data: Tensor, states: Sequence[Tensor], sizes: Sizes,
              reverse: bool) -> tuple[Tensor, ...]:
    """(outputs, last states) of a step function over packed data."""
    parts: dict[int, Tensor] = {}
    for start, rows in reference._steps(sizes, reverse):
        found = step(data[start : start + rows], *(s[:rows] for s in states))
        new = found if isinstance(found, tuple) else (found,)
        parts[start] = new[0]
        states = [n if rows == s.shape[0] else cat((n, s[rows:]))
                  for n, s in zip(new, states, strict=True)]
    out = cat([parts[start] for start in sorted(parts)])
    return (out, *states)


def _through_cells(g: Any, needs: Any, inputs: tuple[Any, ...], run: Callable[..., Any]) -> Any:
    """Differentiable gradients of `run(*inputs)`."""
    from ..autograd.engine import grad

    with enable_grad():
        outs = run(*inputs)
        wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
        found = iter(grad(outs, wanted, list(g[: len(outs)]), create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _state_shapes(data: Any, h0: Any, *extra: Any) -> list[Any]:
    return [((data.shape[0], h0.shape[1]), data.dtype), (h0.shape, data.dtype), *extra]


# -- LSTM


def _lstm_grad(g: Any, needs: Any, data: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor,
               w_hh: Tensor, b_ih: Any, b_hh: Any, w_hr: Any, sizes: Sizes, reverse: bool,
               out3: Tensor, out4: Tensor, out5: Tensor, out6: Tensor) -> Any:
    if state.grad:
        def run(d: Tensor, h: Tensor, c: Tensor, *weights: Any) -> Any:
            return _composed(lambda x, a, b: _lstm_step(x, a, b, *weights), d, (h, c), sizes,
                             reverse)

        return _through_cells(g, needs, (data, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr), run)
    gx, gh, gc, gw, gu, gb, gr = _lstm_backward(
        *g[:3], data, w_ih, w_hh, w_hr, out3, out4, out5, out6, sizes, reverse, needs[0])
    gx, gr = gx if needs[0] else None, gr if w_hr is not None else None
    return gx, gh, gc, gw, gu, gb, gb, gr


def _lstm_shape(data: Any, h0: Any, c0: Any, *_: Any) -> Any:
    total, n = data.shape[0], c0.shape[1]
    wide = [((total, 4 * n), data.dtype), ((total, h0.shape[1]), data.dtype)]
    cells = ((total, n), data.dtype)
    return _state_shapes(data, h0, (c0.shape, data.dtype), *wide, cells, cells)


@leaf(_lstm_grad, shape=_lstm_shape, node="MkldnnRnnLayerBackward0")
def lstm_layer(data: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: OptArray,
               b_hh: OptArray, w_hr: OptArray, sizes: Sizes, reverse: bool) -> Any:
    """One LSTM layer in one direction over packed steps."""
    return reference.lstm(data, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, sizes, reverse)


@leaf({})
def _lstm_backward(gy: Array, gh: Array, gc: Array, data: Array, w_ih: Array, w_hh: Array,
                   w_hr: OptArray, gates: Array, before_h: Array, cells: Array, before_c: Array,
                   sizes: Sizes, reverse: bool, asks: bool) -> Any:
    """Gradient of `lstm_layer` through time."""
    saved = (gates, before_h, cells, before_c)
    return reference.lstm_backward((gy, gh, gc), data, w_ih, w_hh, w_hr, saved, sizes, reverse,
                                   asks)


# -- GRU


def _gru_grad(g: Any, needs: Any, data: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any,
              b_hh: Any, sizes: Sizes, reverse: bool, out2: Tensor, out3: Tensor,
              out4: Tensor) -> Any:
    if state.grad:
        def run(d: Tensor, h: Tensor, *weights: Any) -> Any:
            return _composed(lambda x, a: _gru_step(x, a, *weights), d, (h,), sizes, reverse)

        return _through_cells(g, needs, (data, h0, w_ih, w_hh, b_ih, b_hh), run)
    gx, *rest = _gru_backward(*g[:2], data, w_ih, w_hh, out2, out3, out4, sizes, reverse, needs[0])
    return gx if needs[0] else None, *rest


def _gru_shape(data: Any, h0: Any, *_: Any) -> Any:
    total, n = data.shape[0], h0.shape[1]
    flat = ((total, n), data.dtype)
    return _state_shapes(data, h0, ((total, 3 * n), data.dtype), flat, flat)


@leaf(_gru_grad, shape=_gru_shape)
def gru_layer(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: OptArray, b_hh: OptArray,
              sizes: Sizes, reverse: bool) -> Any:
    """One GRU layer in one direction over packed steps."""
    return reference.gru(data, h0, w_ih, w_hh, b_ih, b_hh, sizes, reverse)


@leaf({})
def _gru_backward(gy: Array, gh: Array, data: Array, w_ih: Array, w_hh: Array, gates: Array,
                  before: Array, inner: Array, sizes: Sizes, reverse: bool, asks: bool) -> Any:
    """Gradient of `gru_layer` through time."""
    saved = (gates, before, inner)
    return reference.gru_backward((gy, gh), data, w_ih, w_hh, saved, sizes, reverse, asks)


# -- simple RNN


def _rnn_grad(g: Any, needs: Any, data: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any,
              b_hh: Any, sizes: Sizes, reverse: bool, relu: bool, out0: Tensor,
              out2: Tensor) -> Any:
    if state.grad:
        def run(d: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Any, c: Any) -> Any:
            return _composed(lambda x, a: _simple_step(x, a, w, u, b, c, relu), d, (h,), sizes,
                             reverse)

        return _through_cells(g, needs, (data, h0, w_ih, w_hh, b_ih, b_hh), run)
    gx, *rest = _rnn_backward(*g[:2], data, w_ih, w_hh, out0, out2, sizes, reverse, relu, needs[0])
    return gx if needs[0] else None, *rest, rest[-1]


def _rnn_shape(data: Any, h0: Any, *_: Any) -> Any:
    return _state_shapes(data, h0, ((data.shape[0], h0.shape[1]), data.dtype))


@leaf(_rnn_grad, shape=_rnn_shape)
def rnn_layer(data: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: OptArray, b_hh: OptArray,
              sizes: Sizes, reverse: bool, relu: bool) -> Any:
    """One simple recurrent layer in one direction over packed steps."""
    return reference.simple(data, h0, w_ih, w_hh, b_ih, b_hh, sizes, reverse, relu)


@leaf({})
def _rnn_backward(gy: Array, gh: Array, data: Array, w_ih: Array, w_hh: Array, out: Array,
                  before: Array, sizes: Sizes, reverse: bool, relu: bool, asks: bool) -> Any:
    """Gradient of `rnn_layer` through time."""
    saved = (out, before)
    return reference.simple_backward((gy, gh), data, w_ih, w_hh, saved, sizes, reverse, relu, asks)


# -- stacks of layers


def _layer(kind: str, data: Tensor, states: list[Tensor], weights: Sequence[Any], sizes: Sizes,
           reverse: bool) -> tuple[Tensor, list[Tensor]]:
    if kind == "lstm":
        out, h, c, *_ = lstm_layer(data, *states, *weights, sizes, reverse)
        return out, [h, c]
    if kind == "gru":
        out, h, *_ = gru_layer(data, *states, *weights[:4], sizes, reverse)
    else:
        out, h, _ = rnn_layer(data, *states, *weights[:4], sizes, reverse, kind == "rnn_relu")
    return out, [h]


def _weights_of(flat: Sequence[Tensor], biases: bool, projected: bool) -> list[list[Any]]:
    """The flat list cut into (w_ih, w_hh, b_ih, b_hh, w_hr) per layer and direction."""
    step = 2 + 2 * biases + projected
    groups = []
    for i in range(0, len(flat), step):
        part: list[Any] = list(flat[i : i + step])
        hr = part.pop() if projected else None
        groups.append([*part[:2], *(part[2:4] if biases else (None, None)), hr])
    return groups


def run_layers(kind: str, data: Tensor, sizes: Sizes, hx: Sequence[Tensor], flat: Sequence[Tensor],
               biases: bool, layers: int, dropout: float, train: bool,
               bidirectional: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers over packed data (total, I); output (total, directions * H) and last states."""
    directions = 2 if bidirectional else 1
    projected = kind == "lstm" and hx[0].shape[2] != hx[1].shape[2]
    weights = _weights_of(flat, biases, projected)
    finals: list[list[Tensor]] = []
    for layer in range(layers):
        outs = []
        for d in range(directions):
            i = layer * directions + d
            out, last = _layer(kind, data, [s[i] for s in hx], weights[i], sizes, d == 1)
            outs.append(out)
            finals.append(last)
        data = outs[0] if directions == 1 else cat(outs, 1)
        if dropout > 0 and train and layer < layers - 1:
            from .record import PUBLIC

            data = PUBLIC["F"]["dropout"](data, dropout, True)
    return data, tuple(stack(column) for column in zip(*finals, strict=True))


def _padded(kind: str, input: Tensor, hx: Any, params: Sequence[Tensor], has_biases: bool,
            num_layers: int, dropout: float, train: bool, bidirectional: bool,
            batch_first: bool) -> tuple[Tensor, ...]:
    x = input.transpose(0, 1) if batch_first else input
    steps, batch = x.shape[:2]
    states = list(hx) if kind == "lstm" else [hx]
    data = x.reshape(steps * batch, x.shape[2])
    out, last = run_layers(kind, data, (batch,) * steps, states, params, has_biases, num_layers,
                           dropout, train, bidirectional)
    out = out.view(steps, batch, -1)
    return (out.transpose(0, 1) if batch_first else out, *last)


def _packed(kind: str, data: Tensor, batch_sizes: Tensor, hx: Any, params: Sequence[Tensor],
            has_biases: bool, num_layers: int, dropout: float, train: bool,
            bidirectional: bool) -> tuple[Tensor, ...]:
    states = list(hx) if kind == "lstm" else [hx]
    sizes = tuple(int(n) for n in batch_sizes.tolist())
    out, last = run_layers(kind, data, sizes, states, params, has_biases, num_layers, dropout,
                           train, bidirectional)
    return (out, *last)


def _stack_of(kind: str, doc: str) -> Any:
    """`torch.lstm` and its kin: over padded input, or (data, batch_sizes) of packed input."""
    def call(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        # Padded: (input, hx, params, ...). Packed: (data, batch_sizes, hx, params, ...).
        sizes_follow = len(args) > 2 and isinstance(args[2], (list, tuple))
        run = _packed if sizes_follow else _padded
        return run(kind, input, *args, **kwargs)

    call.__name__ = call.__qualname__ = kind
    call.__doc__ = doc
    return op("torch")(call)


lstm = _stack_of("lstm", "Long short-term memory over a sequence: (output, h_n, c_n).")
gru = _stack_of("gru", "Gated recurrent units over a sequence: (output, h_n).")
rnn_tanh = _stack_of("rnn_tanh", "Simple recurrent network with tanh: (output, h_n).")
rnn_relu = _stack_of("rnn_relu", "Simple recurrent network with ReLU: (output, h_n).")

"""Recurrent layers and cells."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from ...ops import rnn as functions
from ...tensor import Tensor
from .. import init
from ..parameter import Parameter
from ..utils.rnn import PackedSequence
from .linear import empty_parameter
from .module import Module

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_FUNCTIONS = {
    "LSTM": functions.lstm,
    "GRU": functions.gru,
    "RNN_TANH": functions.rnn_tanh,
    "RNN_RELU": functions.rnn_relu,
}


def apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """Deprecated: `tensor.index_select(dim, permutation)`."""
    warnings.warn(
        "apply_permutation is deprecated, please use tensor.index_select(dim, permutation) "
        "instead",
        FutureWarning,
        stacklevel=2,
    )
    return tensor.index_select(dim, permutation)


class RNNBase(Module):
    """Parameters and the call that RNN, LSTM and GRU share."""

    __constants__ = [
        "mode",
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    ]

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_arguments(dropout)
        self._flat_weights_names: list[str] = []
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for direction in range(2 if bidirectional else 1):
                self._add_layer(layer, direction, device, dtype)
        self.reset_parameters()

    def _check_types(self) -> None:
        for name, kind in (("input_size", int), ("hidden_size", int), ("bias", bool),
                           ("batch_first", bool)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} should be of type {kind.__name__}, got: {type(value).__name__}"
                )
        if self.input_size <= 0:
            raise ValueError("input_size must be greater than zero")

    def _check_arguments(self, dropout: Any) -> None:
        self._check_types()
        number = isinstance(dropout, numbers.Number) and not isinstance(dropout, bool)
        if not number or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                "dropout expects num_layers greater than 1, but got "
                f"dropout={dropout} and num_layers={self.num_layers}",
                stacklevel=4,
            )
        if self.hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if self.num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if self.proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")

    def _add_layer(self, layer: int, direction: int, device: Any, dtype: Any) -> None:
        rows = _GATES[self.mode] * self.hidden_size
        state = self.proj_size or self.hidden_size
        width = self.input_size if layer == 0 else state * (2 if self.bidirectional else 1)
        shapes: list[tuple[str, Any]] = [("weight_ih", (rows, width)), ("weight_hh", (rows, state))]
        if self.bias:
            shapes += [("bias_ih", (rows,)), ("bias_hh", (rows,))]
        if self.proj_size:
            shapes.append(("weight_hr", (self.proj_size, self.hidden_size)))
        suffix = f"_l{layer}{'_reverse' if direction else ''}"
        names = [stem + suffix for stem, _ in shapes]
        for name, (_, shape) in zip(names, shapes, strict=True):
            setattr(self, name, empty_parameter(shape, device, dtype))
        self._flat_weights_names.extend(names)
        self._all_weights.append(names)

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Nothing to do: parameters need no special layout here."""

    def reset_parameters(self) -> None:
        """Draw everything from U(-1/sqrt(hidden), 1/sqrt(hidden))."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """RuntimeError unless rank and size fit; ValueError for another dtype."""
        weight = self._flat_weights[0]
        if input.dtype != weight.dtype:
            raise ValueError(
                "RNN input dtype does not match weight dtype: "
                f"{input.dtype} vs {weight.dtype}, convert one with .to()"
            )
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got "
                f"{input.size(-1)}"
            )

    def get_expected_hidden_size(self, input: Tensor,
                                 batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """(layers * directions, batch, H) for the initial state."""
        return self._state_shape(input, batch_sizes, self.proj_size or self.hidden_size)

    def _state_shape(self, input: Tensor, batch_sizes: Any, width: int) -> tuple[int, int, int]:
        if batch_sizes is not None:
            batch = int(batch_sizes[0])
        else:
            batch = input.size(0) if self.batch_first else input.size(1)
        return self.num_layers * (2 if self.bidirectional else 1), batch, width

    def check_hidden_size(self, hx: Tensor, expected_hidden_size: tuple[int, int, int],
                          msg: str = "Expected hidden size {}, got {}") -> None:
        """RuntimeError unless the state has the expected shape."""
        if tuple(hx.size()) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(expected_hidden_size, list(hx.size())))

    def _check_state_shape(self, hidden: Any, input: Tensor, batch_sizes: Any) -> None:
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The states of the sequences in another order."""
        if permutation is None:
            return hx
        if isinstance(hx, tuple):
            return tuple(h.index_select(1, permutation) for h in hx)
        return hx.index_select(1, permutation)

    def extra_repr(self) -> str:
        """Sizes, and settings that differ from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        shown = [("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                 ("dropout", 0), ("bidirectional", False)]
        parts += [f"{n}={getattr(self, n)}" for n, d in shown if getattr(self, n) != d]
        return ", ".join(parts)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """(output, last state); a PackedSequence gives a PackedSequence."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{self._label()}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
        hx = self._initial(input, None, self._batch_state(hx, batched))
        self.check_input(input, None)
        self._check_state_shape(hx, input, None)
        out, state = self._run(input, hx, self.batch_first)
        if batched:
            return out, state
        return out.squeeze(0 if self.batch_first else 1), _map(state, lambda s: s.squeeze(1))

    def _label(self) -> str:
        return "RNN" if self.mode.startswith("RNN") else self.mode

    def _batch_state(self, hx: Any, batched: bool) -> Any:
        """The given state with a batch dimension."""
        if hx is None:
            return None
        for h in hx if isinstance(hx, tuple) else (hx,):
            if h.dim() != 2 + batched:
                word = "batched 3-D" if batched else "unbatched 2-D"
                raise RuntimeError(
                    f"For {word} input, hx should also be {2 + batched}-D but got {h.dim()}-D "
                    "tensor"
                )
        return hx if batched else _map(hx, lambda h: h.unsqueeze(1))

    def _initial(self, input: Tensor, batch_sizes: Any, hx: Any) -> Any:
        """The given state, or zeros."""
        if hx is not None:
            return hx
        return input.new_zeros(self.get_expected_hidden_size(input, batch_sizes))

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, sizes, order, back = packed
        if hx is None:
            hx = self._initial(data, sizes, None)
        else:
            hx = self.permute_hidden(hx, order)
        self.check_input(data, sizes)
        self._check_state_shape(hx, data, sizes)
        out, state = self._run(data, hx, None, sizes)
        return PackedSequence(out, sizes, order, back), self.permute_hidden(state, back)

    def _run(self, input: Tensor, hx: Any, batch_first: Any, sizes: Any = None) -> Any:
        common = (self._flat_weights, self.bias, self.num_layers, self.dropout, self.training,
                  self.bidirectional)
        function = _FUNCTIONS[self.mode]
        if sizes is not None:
            out, *state = function(input, sizes, hx, *common)
        else:
            out, *state = function(input, hx, *common, batch_first)
        return out, state[0] if len(state) == 1 else tuple(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("proj_size", 0)


def _map(value: Any, fn: Any) -> Any:
    return tuple(fn(v) for v in value) if isinstance(value, tuple) else fn(value)


class RNN(RNNBase):
    """Simple recurrent layers: h = tanh or relu of W x + b + U h + c.

    >>> import lampion as torch
    >>> out, h = torch.nn.RNN(4, 3)(torch.ones(5, 2, 4))
    >>> out.shape, h.shape
    (torch.Size([5, 2, 3]), torch.Size([1, 2, 3]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent units.

    >>> import lampion as torch
    >>> out, h = torch.nn.GRU(4, 3, batch_first=True)(torch.ones(2, 5, 4))
    >>> out.shape, h.shape
    (torch.Size([2, 5, 3]), torch.Size([1, 2, 3]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)


class LSTM(RNNBase):
    """Long short-term memory; the state is (h, c), `proj_size` projects h.

    >>> import lampion as torch
    >>> out, (h, c) = torch.nn.LSTM(4, 3, num_layers=2)(torch.ones(5, 2, 4))
    >>> out.shape, c.shape
    (torch.Size([5, 2, 3]), torch.Size([2, 2, 3]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def get_expected_cell_size(self, input: Tensor,
                               batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """(layers * directions, batch, hidden) for the initial cells."""
        return self._state_shape(input, batch_sizes, self.hidden_size)

    def _initial(self, input: Tensor, batch_sizes: Any, hx: Any) -> Any:
        if hx is not None:
            return hx
        return (input.new_zeros(self.get_expected_hidden_size(input, batch_sizes)),
                input.new_zeros(self.get_expected_cell_size(input, batch_sizes)))

    def _batch_state(self, hx: Any, batched: bool) -> Any:
        if hx is not None and any(h.dim() != 2 + batched for h in hx):
            word = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {word} input, hx and cx should also be {2 + batched}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        return super()._batch_state(None if hx is None else tuple(hx), batched)

    def _check_state_shape(self, hidden: Any, input: Tensor, batch_sizes: Any) -> None:
        self.check_hidden_size(hidden[0], self.get_expected_hidden_size(input, batch_sizes),
                               "Expected hidden[0] size {}, got {}")
        self.check_hidden_size(hidden[1], self.get_expected_cell_size(input, batch_sizes),
                               "Expected hidden[1] size {}, got {}")


class RNNCellBase(Module):
    """Parameters that the cells share."""

    __constants__ = ["input_size", "hidden_size", "bias"]

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = empty_parameter((rows, input_size), device, dtype)
        self.weight_hh = empty_parameter((rows, hidden_size), device, dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, empty_parameter(rows, device, dtype) if bias else None)
        self.reset_parameters()

    def extra_repr(self) -> str:
        """Sizes, and settings that differ from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.__dict__.get("nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text

    def reset_parameters(self) -> None:
        """Draw everything from U(-1/sqrt(hidden), 1/sqrt(hidden))."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _prepare(self, input: Tensor, hx: Any, states: int) -> tuple[Tensor, list[Tensor], bool]:
        """Input and states with a batch dimension, and whether the input had one."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        given = [] if hx is None else list(hx) if states == 2 else [hx]
        for i, h in enumerate(given):
            if h.dim() not in (1, 2):
                which = f"hx[{i}]" if states == 2 else "hidden"
                raise ValueError(f"{name}: Expected {which} to be 1D or 2D, got {h.dim()}D instead")
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if not given:
            zeros = x.new_zeros(x.size(0), self.hidden_size)
            given = [zeros] * states
        elif not batched:
            given = [h.unsqueeze(0) for h in given]
        return x, given, batched


class RNNCell(RNNCellBase):
    """One step of a simple RNN."""

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The new state."""
        x, (h,), batched = self._prepare(input, hx, 1)
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        relu = self.nonlinearity == "relu"
        cell = functions.rnn_relu_cell if relu else functions.rnn_tanh_cell
        out = cell(x, h, *self._weights())
        return out if batched else out.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of an LSTM."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The new state (h, c)."""
        x, state, batched = self._prepare(input, hx, 2)
        h, c = functions.lstm_cell(x, state, *self._weights())
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of a GRU."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The new state."""
        x, (h,), batched = self._prepare(input, hx, 1)
        out = functions.gru_cell(x, h, *self._weights())
        return out if batched else out.squeeze(0)

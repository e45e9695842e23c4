"""Programs that were exported: run at any sizes they allow, as native programs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np

from ..autograd.modes import no_grad, state
from ..capture.program import apply_eagerly
from ..compiler.program import Native, Options
from ..debug.knobs import knobs
from ..graph.interpret import interpret
from ..graph.node import Graph
from ..graph.parser import GraphError, parse
from ..nn import Module, Parameter
from ..ops.optimize import note_writes
from ..ops.record import LEAVES
from ..tensor import Tensor, formats
from ..tensor.dtype import DTYPES
from ..tensor.tensor import wrap
from .dims import Range
from .errors import ExportError
from .legal import check_types
from .structure import Structure, flattened, rebuilt, well_formed

__all__ = ["ExportedProgram", "graph_at"]

_CONSTANTS = {**DTYPES, **{n: v for n, v in vars(formats).items() if n.endswith("_format")}}
_MOST_PLANS = 16  # sizes that are kept ready; then the one used longest ago goes


def graph_at(text: str, sizes: dict[str, int]) -> Graph:
    """The graph that a text is of at some sizes; GraphError where it is of none."""
    return parse(text, LEAVES, _CONSTANTS, sizes)


class ExportedProgram:
    """What a function computes: a graph as text, and weights by name.

    Call it as the function that was exported; results are new tensors. It runs as one native
    program; where gradients are wanted (a weight or an argument requires grad), and inside
    `torch.compile` or `torch.func`, operator by operator. Weights do not require grad at first.
    Arguments of other types, other plain values, or sizes that may not vary raise ExportError.
    """

    def __init__(self, text: str, weights: dict[str, Tensor], growing: dict[str, str],
                 inputs: Structure, outputs: Structure, names: list[str],
                 ranges: dict[str, Range], examples: dict[str, int]) -> None:
        self.text, self.weights, self.growing = text, weights, growing
        self.inputs, self.outputs, self.names = inputs, outputs, names
        self.ranges, self.examples = ranges, examples
        self.fixed_because = ""  # why the batch may not vary, where it was tried
        self.plans: OrderedDict[tuple[int, ...], _Plan] = OrderedDict()
        self.lock = threading.Lock()
        self.patterns = _patterns(text, len(names))
        made = self.plan(tuple(examples.values()))
        if not well_formed(outputs, len(made.graph.outputs)):
            raise ExportError("the program is damaged: its outputs are not those of its graph")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors = self.arguments(args, kwargs)
        return rebuilt(self.outputs, self.plan(self.sizes(tensors)).run(tensors))

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call, whose other arguments must be those of the export."""
        found: list[Tensor] = []
        order = [k for k, _ in self.inputs["tuple"][1]["dict"]]
        given = {k: kwargs[k] for k in sorted(kwargs, key=lambda k: (
            order.index(k) if k in order else len(order)))}
        structure = flattened((args, given), found, "Arguments")
        if structure != self.inputs:
            raise ExportError(
                "arguments other than tensors are part of the program, and so is how many there "
                f"are: it was exported for {_said(self.inputs)}, received {_said(structure)}")
        return found

    def sizes(self, tensors: list[Tensor]) -> tuple[int, ...]:
        """What the names of sizes mean for these arguments."""
        found: dict[str, int] = {}
        for t, name, (dtype, pattern) in zip(tensors, self.names, self.patterns, strict=True):
            fits = t.dtype.name == dtype and t.dim() == len(pattern)
            for n, wanted in zip(t.shape, pattern, strict=False) if fits else ():
                fits = fits and n == (found.setdefault(wanted, n) if isinstance(wanted, str)
                                      else wanted)
            if not fits:
                raise ExportError(
                    f"argument {name}: expected {dtype}{_shape(pattern)}{self.hint(found)}, "
                    f"received {t.dtype.name}{list(t.shape)}")
        for name, n in found.items():
            low, high = self.ranges[name]
            if n < low or (high is not None and n > high):
                raise ExportError(f"size {name}={n} is outside of what the program was exported "
                                  f"for: {low} to {'any' if high is None else high}")
        return tuple(found[n] for n in self.ranges)

    def hint(self, known: dict[str, int]) -> str:
        if known:
            return f" with {', '.join(f'{k}={v}' for k, v in known.items())}"
        reason = f" (the batch cannot vary: {self.fixed_because})" if self.fixed_because else ""
        return f"{reason}; sizes that vary are named in export(..., dynamic_shapes=...)"

    def plan(self, sizes: tuple[int, ...]) -> _Plan:
        """The program at some sizes."""
        with self.lock:
            found = self.plans.get(sizes)
            if found is None:
                found = self.plans[sizes] = _Plan(self, dict(zip(self.ranges, sizes, strict=True)))
                if len(self.plans) > _MOST_PLANS:
                    self.plans.popitem(last=False)
            self.plans.move_to_end(sizes)
            return found

    # --- looking at it --------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.text

    @property
    def graph(self) -> Graph:
        """The graph at the sizes of the example."""
        return graph_at(self.text, self.examples)

    @property
    def range_constraints(self) -> dict[str, Range]:
        """The smallest and the largest size (None: any), by name."""
        return dict(self.ranges)

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The parameters and buffers."""
        return {n: t for n, t in self.weights.items() if not _is_constant(n)}

    @property
    def constants(self) -> dict[str, Tensor]:
        """Tensors that were neither arguments nor the module's."""
        return {n: t for n, t in self.weights.items() if _is_constant(n)}

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that are no buffers."""
        yield from ((n, t) for n, t in self.state_dict.items() if isinstance(t, Parameter))

    def parameters(self) -> Iterator[Tensor]:
        """The same without their names."""
        yield from (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that are no parameters."""
        yield from ((n, t) for n, t in self.state_dict.items() if not isinstance(t, Parameter))

    def buffers(self) -> Iterator[Tensor]:
        """The same without their names."""
        yield from (t for _, t in self.named_buffers())

    def module(self, check_guards: bool = True) -> Module:
        """A module that runs the program, with its weights under their names."""
        return _ProgramModule(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a file that `lampion.export.load` reads; needs the safetensors library."""
        from .file import save

        save(self, path)


def _is_constant(name: str) -> bool:
    return name.startswith("constant") and name[8:].rstrip("_").isdigit()


def _patterns(text: str, count: int) -> list[tuple[str, list[Any]]]:
    """For each argument its element type, and its sizes or their names."""
    from ..graph.parser import TOKEN

    found: list[tuple[str, list[Any]]] = []
    tokens = [(str(m.lastgroup), m[str(m.lastgroup)]) for m in TOKEN.finditer(
        text.splitlines()[0].partition("(")[2])] if text else []
    for i, (kind, token) in enumerate(tokens):
        if kind == "word" and tokens[i - 1][1] == ":":
            found.append((token, []))
        elif kind in ("int", "size") and found:
            found[-1][1].append(int(token) if kind == "int" else token[1:-1])
    return found[:count]


def _shape(pattern: list[Any]) -> str:
    return f"[{', '.join(f'{{{n}}}' if isinstance(n, str) else str(n) for n in pattern)}]"


def _said(structure: Structure) -> str:
    """A structure in few words."""
    (kind, what), = structure.items()
    if kind == "tensor":
        return "tensor"
    if kind in ("value", "float"):
        return what if kind == "float" else repr(what)
    if kind == "dict":
        return "{" + ", ".join(f"{k}: {_said(v)}" for k, v in what) + "}"
    return "(" + ", ".join(map(_said, what)) + ")"


class _Plan:
    """A program at given sizes."""

    def __init__(self, program: ExportedProgram, sizes: dict[str, int]) -> None:
        try:
            self.graph = graph_at(program.text, sizes)
            check_types(self.graph)
        except GraphError as error:
            raise ExportError(f"the program is damaged: {error}") from None
        count = len(program.names)
        missing = [n for n in self.graph.names[count:] if n not in program.weights]
        if missing:
            raise ExportError(f"the program is damaged: no weight {missing[0]!r}")
        self.weights = [self.weight(program, name, node.shape, node.dtype) for name, node in zip(
            self.graph.names[count:], self.graph.inputs[count:], strict=True)]
        self.native: Native | None = None

    def weight(self, program: ExportedProgram, name: str, shape: Any, dtype: Any) -> Tensor:
        t, how = program.weights[name], program.growing.get(name)
        if how == "fill" and t.dim() == len(shape):
            t = t.expand(shape)
        elif how == "crop" and t.dim() == len(shape):
            t = t[tuple(slice(n) for n in shape)]
        if (t._a.shape, t._a.dtype) != (shape, dtype):
            raise ExportError(f"the program is damaged: weight {name!r} is {t._a.dtype}"
                              f"{list(t._a.shape)}, its graph takes {dtype}{list(shape)}")
        return t

    def run(self, arguments: list[Tensor]) -> list[Tensor]:
        """The results, after what the function writes."""
        tensors = [*arguments, *self.weights]
        if state.recorder is not None:
            for t in tensors:
                if type(t._a) is np.ndarray:
                    state.recorder.value_of(t)  # which makes it an input of what is recorded
        if any(type(t._a) is not np.ndarray for t in tensors) or (
                state.grad and any(t.requires_grad for t in tensors)):
            return self.one_by_one(tensors)
        arrays = [np.ascontiguousarray(t._a).reshape(t._a.shape) for t in arguments]
        arrays += [t._a for t in self.weights]
        if self.native is None:
            self.native = Native(self.graph, Options(wait=True, interpret=knobs.kernels == "off"))
        found = self.native(arrays)
        written = [w.target for w in self.graph.writes]
        for target in written:
            if arrays[target] is not tensors[target]._a:
                tensors[target]._a[...] = arrays[target]
        if written:
            note_writes([tensors[target] for target in written], self.graph.name)
        return [wrap(a) for a in found]

    def one_by_one(self, tensors: list[Tensor]) -> list[Tensor]:
        """The same by public operators, which are recorded for whoever records."""
        found, values = interpret(self.graph, tensors, _apply)
        with no_grad():
            for w, value in zip(self.graph.writes, values, strict=True):
                tensors[w.target].copy_(value)
        return [t.view_as(t) if any(t is given for given in tensors) else t for t in found]


def _apply(op: Any, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
    if not state.grad and all(type(t._a) is np.ndarray for t in args if isinstance(t, Tensor)):
        return apply_eagerly(op, args, attrs)
    args = tuple(t.contiguous() if op.view else t for t in args)
    return op(list(args), *attrs) if op.takes_list else op(*args, *attrs)


class _ProgramModule(Module):
    """An exported program as a module."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self._program = program
        for name, t in program.state_dict.items():
            *path, last = name.split(".")
            owner: Module = self
            for part in path:
                owner = owner._modules.setdefault(part, Module())  # type: ignore[assignment]
            if isinstance(t, Parameter):
                owner.register_parameter(last, t)
            else:
                owner.register_buffer(last, t)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._program(*args, **kwargs)

    def train(self, mode: bool = True) -> Any:
        """An exported program is in the mode that it was exported in: NotImplementedError."""
        raise NotImplementedError(f"Calling {'train' if mode else 'eval'}() is not supported.")

    def eval(self) -> Any:
        """As `train`."""
        raise NotImplementedError("Calling eval() is not supported.")

    def extra_repr(self) -> str:
        return self._program.text



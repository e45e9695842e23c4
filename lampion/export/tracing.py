"""`export`: runs a function on recording tensors, at several sizes where sizes may vary.

A size that varies is found by comparing the texts of graphs captured at different sizes: a number
that differs is a sum of products of the sizes, or the size cannot vary. What was found is checked
at further sizes, where the text must give the captured graph exactly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .. import compiler
from ..autograd import no_grad
from ..capture import CaptureError, capture
from ..capture.program import apply_eagerly
from ..func._batch import SHAPED
from ..graph.interpret import interpret
from ..graph.node import Graph, Node
from ..graph.parser import TOKEN, GraphError
from ..graph.printer import to_text
from ..nn import Module, Parameter
from ..ops import zeros
from ..tensor import Tensor
from ..tensor.tensor import wrap
from .dims import Range, Requested, requested
from .errors import ExportError
from .legal import check_types
from .program import ExportedProgram, graph_at
from .structure import Structure, flattened, places, rebuilt

__all__ = ["export"]

_TRIED = (7, 11, 13, 61, 5, 3, 17, 2, 4, 1)  # sizes, those first that are seldom sizes of weights
_MOST_SIZES = 3  # that vary: each doubles the captures
_FAR = 1024  # up to which tensors that grow with a size are kept


def export(mod: Callable[..., Any], args: Any, kwargs: dict[str, Any] | None = None, *,
           dynamic_shapes: Any = None, strict: bool = False,
           preserve_module_call_signature: Any = (), prefer_deferred_runtime_asserts_over_guards:
           bool = False) -> ExportedProgram:
    """What `mod(*args, **kwargs)` computes, as a program that needs no source.

    Parameters and buffers become named weights; Python values (sizes of layers, `training`) are
    what they are now, and so are other arguments than tensors. Reading a value raises ExportError
    with the user's line. dynamic_shapes: which sizes may vary, by argument: {dimension: Dim}. By
    default the first one of all tensors that share it ("batch"), where that is possible.

    Differs from PyTorch: functions may be exported too; the batch may vary without being asked
    for; the sizes between those that were tried are taken to behave alike.

    >>> import lampion as torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> program = torch.export.export(model, (torch.ones(2, 3),))
    >>> torch.equal(program(torch.ones(5, 3)), model(torch.ones(5, 3)))
    True
    """
    if not callable(mod):
        raise ValueError("Expected `mod` to be an instance of `torch.nn.Module` or a function, got "
                         f"{type(mod)}.")
    if not isinstance(args, tuple):
        raise ExportError(f"Expecting `args` to be a tuple of example positional inputs, got "
                          f"{type(args)}")
    tensors: list[Tensor] = []
    inputs = flattened((args, kwargs or {}), tensors, "Arguments")
    call = _Traced(mod, inputs, [t.dtype for t in tensors])
    wanted = requested(dynamic_shapes, call.argument_places(), [tuple(t.shape) for t in tensors])
    with _exporting():
        exact = call.at([tuple(t.shape) for t in tensors])
        try:
            return _program(call, wanted, exact)
        except ExportError as error:
            if dynamic_shapes is not None:
                raise
            fixed = Requested(wanted.shapes)
            made = _program(call, fixed, exact)
            made.fixed_because = str(error)
            return made


@contextmanager
def _exporting() -> Iterator[None]:
    compiler.exporting.append(None)
    try:
        with no_grad():
            yield
    finally:
        compiler.exporting.pop()


class _Sample(NamedTuple):
    """A capture: the graph, the real tensors behind its inputs, what it returned."""

    graph: Graph
    state: dict[str, Tensor]
    outputs: Structure


class _Traced:
    """A function and its arguments, ready to be captured at any sizes."""

    def __init__(self, mod: Any, inputs: Structure, dtypes: list[Any]) -> None:
        self.mod, self.inputs, self.dtypes = mod, inputs, dtypes
        self.name = type(mod).__name__ if isinstance(mod, Module) else getattr(
            mod, "__name__", "program")
        self.own = {} if not isinstance(mod, Module) else dict(
            (*mod.named_parameters(), *mod.named_buffers()))
        self.names = self.argument_names()

    def signature(self) -> list[str]:
        """The names of positional parameters."""
        try:
            call = self.mod.forward if isinstance(self.mod, Module) else self.mod
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):
            return []
        return [p.name for p in parameters
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def argument_places(self) -> list[tuple[Any, ...]]:
        """The way to each tensor, from the argument on: (index, name) of every step."""
        names, found = self.signature(), []
        count = len(self.inputs["tuple"][0]["tuple"])
        for (where, _), (index, key), *rest in places(self.inputs):
            if where == 0:
                key = names[index] if index < len(names) else f"args_{index}"
            else:
                index += count
            found.append(((index, key), *rest))
        return found

    def argument_names(self) -> list[str]:
        """A name for every tensor among the arguments, unlike those of weights."""
        found: list[str] = []
        for place in self.argument_places():
            name = "_".join(str(key) for _, key in place)
            while name in self.own or name in found:
                name += "_"
            found.append(name)
        return found

    def at(self, shapes: list[tuple[int, ...]]) -> _Sample:
        """A capture with arguments of these shapes."""
        given = [zeros(s, dtype=d) for s, d in zip(shapes, self.dtypes, strict=True)]
        outputs: list[Structure] = []

        def call(values: Any) -> Any:
            args, kwargs = values
            found: list[Tensor] = []
            outputs.append(flattened(self.mod(*args, **kwargs), found, "Results"))
            return tuple(found)
        call.__name__ = self.name
        try:
            program = capture(call, rebuilt(self.inputs, given), state=[self.mod] if isinstance(
                self.mod, Module) else [])
        except CaptureError as error:
            raise ExportError(f"{self.name} cannot be exported: {error}") from error
        return self.sample(program.graph, program.state, outputs[0])

    def sample(self, graph: Graph, state: list[Tensor], outputs: Structure) -> _Sample:
        if any(w.what == "grad" for w in graph.writes):
            raise ExportError(f"{self.name} cannot be exported: it leaves gradients (backward())")
        by_id = {id(t): name for name, t in self.own.items()}
        taken = {*self.own, *self.names}
        names = list(self.names)
        for i, t in enumerate(state):
            name = by_id.get(id(t), f"constant{i}")
            while name not in self.own and name in taken:
                name += "_"
            names.append(name)
        graph.name, graph.names = self.name, names
        text = to_text(graph.pruned(len(self.names))[0])
        try:
            read = graph_at(text, {})
        except GraphError as error:
            raise ExportError(f"{self.name} cannot be exported: {error}") from None
        found = dict(zip(names[len(self.names):], state, strict=True))
        return _Sample(read, found, outputs)


# --- sizes ----------------------------------------------------------------------------------------


def _program(call: _Traced, wanted: Requested, exact: _Sample) -> ExportedProgram:
    samples: dict[tuple[int, ...], _Sample] = {}
    names = list(wanted.ranges)
    if len(names) > _MOST_SIZES:
        raise ExportError(f"{len(names)} sizes vary; at most {_MOST_SIZES} can")

    def sample(sizes: tuple[int, ...]) -> _Sample:
        if sizes not in samples:
            samples[sizes] = _tried(call, wanted, dict(zip(names, sizes, strict=True)))
        return samples[sizes]
    base, text = exact, to_text(exact.graph)
    if names:
        first, checked = _chosen(wanted, names)
        text = _template([(dict(zip(names, s, strict=True)), to_text(sample(s).graph))
                          for s in product(*first)])
        base = sample(next(iter(product(*first))))
        samples[tuple(wanted.examples[n] for n in names)] = exact
    ranges = dict(wanted.ranges)
    for sizes in checked if names else ():
        _check(call, text, dict(zip(names, sizes, strict=True)), sample, ranges)
    weights, growing = _weights(call, base, samples, sample, names, ranges)
    return ExportedProgram(text, weights, growing, call.inputs, base.outputs, call.names,
                           ranges, dict(wanted.examples))


def _chosen(wanted: Requested, names: list[str]) -> tuple[list[list[int]], list[tuple[int, ...]]]:
    """For each size the two that it is found by; and all sizes together that are tried after."""
    first, further = [], []
    for name in names:
        low, high = wanted.ranges[name]
        fit = [n for n in _TRIED if n >= low and (high is None or n <= high)]
        fit += [n for n in (low, high) if n is not None and n not in fit and n <= _FAR]
        if len(fit) < 2:
            raise ExportError(f"Dim {name!r} has no two sizes between {low} and {high}")
        first.append(fit[:2])
        further.append([*fit[2:4], max(low, 1), *([high] if high and high <= _FAR else [])])
    rounds = max(map(len, further), default=0)
    checked = [tuple(f[i % len(f)] for f in further) for i in range(rounds)]
    return first, [tuple(wanted.examples[n] for n in names), *checked]


def _tried(call: _Traced, wanted: Requested, sizes: dict[str, int]) -> _Sample:
    shapes = [tuple(sizes[axes[d]] if d in axes else n for d, n in enumerate(shape))
              for axes, shape in zip(wanted.axes, wanted.shapes, strict=True)]
    try:
        return call.at(shapes)
    except Exception as error:
        raise ExportError(
            f"{call.name} fails with sizes {sizes}: {type(error).__name__}: {error}. If it takes "
            "only some sizes, say which: Dim(name, min=..., max=...)") from error


def _check(call: _Traced, text: str, sizes: dict[str, int], sample: Callable[[Any], _Sample],
           ranges: dict[str, Range]) -> None:
    """Compares what the text says for these sizes with a capture."""
    ones = [n for n, size in sizes.items() if size == 1 and ranges[n][0] <= 1]
    try:
        wanted = sample(tuple(sizes.values()))
        graph = graph_at(text, sizes)
        same = _equal(graph, wanted.graph) or _agree(graph, wanted)
    except (ExportError, GraphError):
        if not ones:
            raise
        same = False
    if not same and not ones:
        raise ExportError(f"with sizes {sizes} the function does something else than with others, "
                          "so these sizes cannot vary")
    if not same:  # what has one element broadcasts: that size is left out
        ranges.update({n: (2, ranges[n][1]) for n in ones})


def _agree(graph: Graph, wanted: _Sample) -> bool:
    """Whether two graphs compute the same of random numbers: views may be taken otherwise."""
    if graph.names != wanted.graph.names or graph.draws or any(
            a.shape != b.shape for a, b in zip(graph.inputs, wanted.graph.inputs, strict=True)):
        return False
    check_types(graph)
    rng = np.random.default_rng(0)
    values = [wanted.state[name] if name in wanted.state else _some(n, rng)
              for n, name in zip(graph.inputs, graph.names, strict=True)]
    ours, theirs = (interpret(g, values, apply_eagerly) for g in (graph, wanted.graph))
    return all(np.allclose(a._a, b._a, rtol=1e-3, atol=1e-5, equal_nan=True)
               for i in (0, 1) for a, b in zip(ours[i], theirs[i], strict=True))


def _some(node: Node, rng: np.random.Generator) -> Tensor:
    """Random numbers, or ones, which are indices of almost everything."""
    dtype: Any = node.dtype
    return wrap(rng.standard_normal(node.shape).astype(dtype) if dtype.kind in "fcV" else np.ones(
        node.shape, dtype))


def _equal(a: Graph, b: Graph) -> bool:
    return [n.digest for n in a.outputs] == [n.digest for n in b.outputs] and [
        (w.target, w.node.digest) for w in a.writes] == [
        (w.target, w.node.digest) for w in b.writes]


def _template(texts: list[tuple[dict[str, int], str]]) -> str:
    """One text for all sizes."""
    lines = [text.splitlines() for _, text in texts]
    if len({len(each) for each in lines}) != 1:
        raise ExportError("the number of operators depends on a size")
    sizes = [s for s, _ in texts]
    return "\n".join(_line(sizes, row) for row in zip(*lines, strict=True))


def _line(sizes: list[dict[str, int]], row: tuple[str, ...]) -> str:
    if len(set(row)) == 1:
        return row[0]
    found = [list(TOKEN.finditer(text)) for text in row]
    kinds = {tuple(m.lastgroup for m in each) for each in found}
    if len(kinds) != 1:
        raise ExportError(f"what runs depends on a size: {row[0].strip()!r} is "
                          f"{row[-1].strip()!r} at another")
    made, place = "", 0
    for tokens in zip(*found, strict=True):
        values = [str(m[str(m.lastgroup)]) for m in tokens]
        if len(set(values)) > 1:
            start = tokens[0].start(str(tokens[0].lastgroup))
            made += row[0][place:start] + _size(sizes, values, row[0])
            place = tokens[0].end()
    return made + row[0][place:]


def _size(sizes: list[dict[str, int]], values: list[str], line: str) -> str:
    """Numbers that differ as a sum of products of sizes, in braces."""
    try:
        numbers = [int(v) for v in values] if all(v.lstrip("-").isdigit() for v in values) else [
            float(v) for v in values]
    except ValueError:
        numbers = []
    names = list(sizes[0])
    terms = [t for n in range(len(names) + 1) for t in _products(names, n)]
    rows = [[float(np.prod([s[n] for n in t])) for t in terms] for s in sizes]
    found = np.linalg.solve(np.array(rows), np.array(numbers, float)) if numbers else [0.5]
    whole = [round(float(c)) for c in found]
    if not np.allclose(found, whole, rtol=0, atol=1e-6):
        raise ExportError(f"a number that is no sum of products of the sizes: {values} in "
                          f"{line.strip()!r} with sizes {sizes}")
    suffix = "" if isinstance(numbers[0], int) else ".0"
    parts = [_term(c, t, suffix) for c, t in zip(whole, terms, strict=True) if c]
    text = "+".join(reversed(parts)).replace("+-", "-")
    return f"{{{text}}}"


def _products(names: list[str], count: int) -> list[tuple[str, ...]]:
    from itertools import combinations

    return list(combinations(names, count))


def _term(factor: int, names: tuple[str, ...], suffix: str) -> str:
    if names and factor in (1, -1) and not suffix:
        return ("-" if factor < 0 else "") + "*".join(names)
    return "*".join((f"{factor}{suffix}", *names))


# --- tensors that are neither arguments nor of the module -----------------------------------------


def _weights(call: _Traced, base: _Sample, samples: Mapping[tuple[int, ...], _Sample],
             sample: Callable[[Any], _Sample], names: list[str],
             ranges: dict[str, Range]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights by name; and how those that grow with a size are had at any ("fill", "crop")."""
    weights = {n: _copied(t) for n, t in call.own.items()}
    growing: dict[str, str] = {}
    used = set(base.graph.names)
    alike = [s for s in samples.values() if s.graph.names == base.graph.names]
    for name, t in base.state.items():
        if name in call.own or name not in used:
            continue
        arrays = [s.state[name]._a for s in alike]
        if all(a.shape == t._a.shape and a.tobytes() == t._a.tobytes() for a in arrays):
            weights[name] = t.detach().clone()
        elif _only_shape(base.graph, name):
            weights[name], growing[name] = t.new_zeros((1,) * t.dim()), "fill"
        elif all(a.size and (a == arrays[0].flat[0]).all() for a in arrays):
            weights[name], growing[name] = t.new_full((1,) * t.dim(), arrays[0].flat[0]), "fill"
        else:
            weights[name], growing[name] = _grown(name, arrays, sample, names, ranges), "crop"
    return weights, growing


def _copied(t: Tensor) -> Tensor:
    """A weight as it is now, of the same kind."""
    copy = t.detach().clone()
    return Parameter(copy, requires_grad=False) if isinstance(t, Parameter) else copy


def _only_shape(graph: Graph, name: str) -> bool:
    """Whether only the shape of an input matters: of what random numbers are written to."""
    node = graph.inputs[graph.names.index(name)]
    users = [n for n in graph.nodes() if any(a is node for a in n.operands())]
    return bool(users) and all(n.kind == "draw" and n.op.name in SHAPED for n in users)


def _grown(name: str, arrays: list[Any], sample: Callable[[Any], _Sample], names: list[str],
           ranges: dict[str, Range]) -> Tensor:
    """A tensor at the largest sizes, of which those for smaller ones are the first part."""
    ends = tuple(_FAR if high is None else min(high, _FAR) for _, high in
                 (ranges[n] for n in names))
    largest = sample(ends).state[name]
    for a in arrays:
        corner = largest._a[tuple(slice(n) for n in a.shape)]
        if corner.shape != a.shape or corner.tobytes() != a.tobytes():
            raise ExportError("a tensor that the function makes depends on a size in its values: "
                              f"{list(a.shape)} elements")
    for n, end in zip(names, ends, strict=True):
        ranges[n] = ranges[n][0], end
    return largest.detach().clone()

"""`capture`: runs a function once on recording tensors and gives the program it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..graph.interpret import interpret
from ..graph.node import Graph, Node, Write
from ..graph.spec import check
from ..tensor.tensor import Tensor, wrap
from .recorder import Recorder

__all__ = ["apply_eagerly", "capture", "Program"]


class Program:
    """A captured function: a graph, and the real tensors that its inputs stand for.

    Call it with new arguments; tensors found during the capture (parameters, buffers) are read
    and written by reference.
    """

    def __init__(self, graph: Graph, n_args: int, state: list[Tensor], shape: Any) -> None:
        self.graph, self.n_args, self.state, self._shape = graph, n_args, state, shape

    def __str__(self) -> str:
        return str(self.graph)

    def __call__(self, *args: Any) -> Any:
        """Runs the program with the reference interpreter and applies its writes."""
        given = [a for a in _flatten(args) if isinstance(a, Tensor)]
        if len(given) != self.n_args:
            raise TypeError(f"{self.graph.name} was captured with {self.n_args} tensor arguments, "
                            f"received {len(given)}")
        tensors = [*given, *self.state]
        for t, node, name in zip(tensors, self.graph.inputs, self.graph.names, strict=True):
            if (tuple(t._a.shape), t._a.dtype) != (node.shape, node.dtype):
                raise TypeError(f"{self.graph.name}: input {name} was captured as "
                                f"{node.dtype}{list(node.shape)}, received "
                                f"{t._a.dtype}{list(t._a.shape)}; capture it again")
        values = [t.detach() for t in tensors]
        outputs, written = interpret(self.graph, values, apply_eagerly)
        for w, value in zip(self.graph.writes, written, strict=True):
            _write(tensors[w.target], w.what, value)
        return self._shape(iter([o.detach() for o in outputs]))


def apply_eagerly(op: Any, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
    """One operator on real tensors, outside any history, never aliasing its inputs."""
    from ..autograd.modes import no_grad

    with no_grad():
        if op.view:  # of values, whose layout is not said
            args = tuple(a.contiguous() for a in args)
        out = op(list(args), *attrs) if op.takes_list else op(*args, *attrs)
        if not op.view:
            return out
        return tuple(o.clone() for o in out) if isinstance(out, tuple) else out.clone()


def _write(target: Tensor, what: str, value: Tensor) -> None:
    from ..autograd.modes import no_grad

    with no_grad():
        if what == "data":
            target.copy_(value)
        else:
            target._grad = wrap(value._a.copy("K"), value._dtype)


def _flatten(value: Any) -> Iterable[Any]:
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from _flatten(v)
    elif isinstance(value, dict):
        yield from _flatten(list(value.values()))
    else:
        yield value


def _like(sequence: Any, parts: list[Any]) -> Any:
    """A sequence of the same kind (named tuples take their parts one by one)."""
    kind = type(sequence)
    return kind(*parts) if hasattr(sequence, "_fields") else kind(parts)


def _template(value: Any, found: list[Tensor]) -> Callable[[Any], Any]:
    """How to rebuild the structure of `value` around new tensors."""
    if isinstance(value, Tensor):
        found.append(value)
        return next
    if isinstance(value, (tuple, list)):
        parts = [_template(v, found) for v in value]
        return lambda it: _like(value, [p(it) for p in parts])
    if isinstance(value, dict):
        items = {k: _template(v, found) for k, v in value.items()}
        return lambda it: {k: p(it) for k, p in items.items()}
    return lambda it: value


def _state_tensors(state: Any) -> Iterable[tuple[str, Tensor]]:
    """Named tensors of modules, dicts and sequences."""
    for i, part in enumerate(state if isinstance(state, (tuple, list)) else [state]):
        if isinstance(part, Tensor):
            yield f"state{i}", part
        elif hasattr(part, "named_parameters"):
            yield from part.named_parameters()
            yield from part.named_buffers()


def capture(fn: Callable[..., Any], *args: Any, state: Any = ()) -> Program:
    """Runs `fn(*args)` once on recording tensors; returns the program.

    Tensors among `args` become its arguments. Tensors of `state` (modules, tensors), and any other
    tensor that meets one of them, become inputs by reference; in-place writes and gradients
    accumulated by `backward()` become writes of the program; tensors that `fn` makes without
    their help are constants; random numbers are drawn anew at every run. Reading a value raises
    CaptureError with the user's line. Nothing outside is changed by the capture.
    """
    recorder = Recorder()
    names: dict[int, str] = {}
    given = [a for a in _flatten(args) if isinstance(a, Tensor)]
    stand_ins = {id(t): t.detach().requires_grad_(t.requires_grad) if t._dtype.kind > 1
                 else t.detach() for t in given}
    try:
        for i, t in enumerate(given):
            recorder.lift(stand_ins[id(t)])
            names[i] = f"arg{i}"
        for name, t in _state_tensors(state):
            if id(t) not in recorder.places:
                names[len(recorder.inputs)] = name
                recorder.lift(t)
        with recorder:
            result = fn(*_replace(args, stand_ins))
        found: list[Tensor] = []
        shape = _template(result, found)
        outputs = [recorder.value_of(t) for t in found]
        writes = _writes(recorder)
    finally:
        recorder.restore()
    labels = [names.get(i, f"tensor{i}") for i in range(len(recorder.inputs))]
    graph = Graph(getattr(fn, "__name__", "program"), recorder.inputs, labels, outputs, writes,
                  recorder.numbers, recorder.draws)
    check(graph)
    return Program(graph, len(given), recorder.tensors[len(given):], shape)


def _replace(value: Any, stand_ins: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return stand_ins[id(value)]
    if isinstance(value, (tuple, list)):
        return _like(value, [_replace(v, stand_ins) for v in value])
    if isinstance(value, dict):
        return {k: _replace(v, stand_ins) for k, v in value.items()}
    return value


def _writes(recorder: Recorder) -> list[Write]:
    """In-place writes to inputs, and gradients that backward left on them."""
    found: list[Write] = []
    for number, (t, original) in enumerate(zip(list(recorder.tensors), list(recorder.originals),
                                               strict=True)):
        if number in recorder.constants:
            continue
        if number in recorder.written:
            found.append(Write("data", number, recorder.value_of(t)))
        if t._grad is not None and t._grad is not original[2]:
            node: Node = recorder.value_of(t._grad)
            found.append(Write("grad", number, node))
    return found

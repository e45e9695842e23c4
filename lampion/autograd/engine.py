"""The engine: runs the recorded history backward.

Nodes are numbered as they are recorded, so every consumer of a node has a higher number: popping
the highest number first visits each node after all of its consumers, without counting them.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.dtype import float32
from ..tensor.tensor import INFERENCE, Tensor, storage_of, wrap
from .modes import followed, state
from .node import Node, NodeHooks, edge_of

__all__ = ["backward", "grad", "run_backward"]

Grads = Sequence[Any]


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, inputs: Any = None) -> None:
    """Accumulates the gradients of `tensors` into the `.grad` of the leaves.

    `grad_tensors` are the vectors of the vector-Jacobian products (default: 1 for scalars).
    """
    roots = _as_tuple(tensors)
    if not roots:
        raise RuntimeError("backward() received no tensors: the first argument is empty")
    targets = None if inputs is None else _as_tuple(inputs)
    if targets is not None and not targets:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    starts = _start_grads(roots, _grad_tuple(grad_tensors, len(roots)), create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    run_backward(roots, starts, retain, create_graph, targets, accumulate=True)


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """The gradients of the sum of `outputs` with respect to each of `inputs`, as a tuple.

    >>> import lampion as torch
    >>> x = torch.tensor(3., requires_grad=True)
    >>> torch.autograd.grad(x ** 2, x)
    (tensor(6.),)
    """
    roots, targets = _as_tuple(outputs), _as_tuple(inputs)
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when "
                         "materialize_grads=True, but got: allow_unused=False.")
    given = _grad_tuple(grad_outputs, len(roots))
    retain = create_graph if retain_graph is None else retain_graph
    if is_grads_batched:
        return _batched(roots, targets, given, create_graph, allow_unused, materialize_grads)
    starts = _start_grads(roots, given, create_graph)
    found = run_backward(roots, starts, retain, create_graph, targets, accumulate=False)
    if materialize_grads:
        return tuple(wrap(np.zeros(t._a.shape, t._dtype.np)) if g is None else g
                     for g, t in zip(found, targets, strict=True))
    if not allow_unused and any(g is None for g in found):
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. Set "
            "allow_unused=True if this is the desired behavior: input "
            f"{[g is None for g in found].index(True)} was not used.")
    return tuple(found)


def _batched(roots: Any, targets: Any, given: Any, create_graph: bool, allow_unused: bool | None,
             materialize: bool) -> tuple[Any, ...]:
    """One backward per row of the given gradients, results stacked."""
    rows = [grad(roots, targets, [None if g is None else g[i] for g in given], True, create_graph,
                 True, allow_unused, False, materialize) for i in range(len(given[0]))]
    return tuple(None if column[0] is None else Tensor._stack(column)
                 for column in zip(*rows, strict=True))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _grad_tuple(given: Any, n: int) -> tuple[Any, ...]:
    grads = (None,) * n if given is None else _as_tuple(given)
    if len(grads) != n:
        raise RuntimeError(f"got {n} tensors and {len(grads)} gradients")
    return grads


def _start_grads(roots: tuple[Any, ...], given: tuple[Any, ...], create_graph: bool) -> list[Any]:
    starts = []
    for i, (root, g) in enumerate(zip(roots, given, strict=True)):
        if not isinstance(root, Tensor):
            raise TypeError(f"backward() expects tensors, received {type(root).__name__}")
        if not root.requires_grad:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a "
                               "grad_fn: make an input with requires_grad=True, and do not detach "
                               "on the way")
        starts.append(_implicit_grad(root) if g is None else _check_start(root, g, create_graph))
    return starts


def _implicit_grad(root: Tensor) -> Tensor:
    if root._a.size != 1:
        raise RuntimeError("grad can be implicitly created only for scalar outputs; received an "
                           f"output of shape {tuple(root._a.shape)}: reduce it, for example with "
                           ".sum(), or pass gradient=")
    if root._dtype.kind != 2:
        raise RuntimeError("grad can be implicitly created only for real scalar outputs but got "
                           f"{root._dtype}")
    if type(root._a) is not np.ndarray:
        return Tensor._ones_like(root)
    if not root._a.ndim and root._dtype is float32:
        return wrap(_ONE.copy(), float32)
    return wrap(np.ones(root._a.shape, root._dtype.np), root._dtype)


_ONE = np.ones((), np.float32)  # to be copied, which costs a fifth of making it


def _check_start(root: Tensor, g: Any, create_graph: bool) -> Tensor:
    if not isinstance(g, Tensor):
        raise TypeError("gradients can be either Tensors or None, but got "
                        f"{type(g).__name__}")
    if g._a.shape != root._a.shape:
        raise RuntimeError(f"Mismatch in shape: grad_output has a shape of {g.shape} and output "
                           f"has a shape of {root.shape}.")
    if (g._dtype.kind == 3) != (root._dtype.kind == 3):
        raise RuntimeError("For complex Tensors, both grad_output and output are required to have "
                           f"the same dtype. Mismatch in dtype: grad_output has dtype {g._dtype} "
                           f"and output has dtype {root._dtype}.")
    return g if create_graph else g.detach()


class _Run:
    """State of one backward."""

    __slots__ = ("buffers", "captured", "heap", "leaves", "needed", "wanted")

    def __init__(self) -> None:
        self.heap: list[tuple[int, Node]] = []
        self.buffers: dict[Node, list[Any]] = {}
        self.leaves: dict[int, list[Any]] = {}
        self.wanted: dict[Any, list[int]] = {}
        self.captured: dict[int, Any] = {}
        self.needed: set[Node] | None = None

    def send(self, edge: Any, nr: int, g: Any) -> None:
        """Adds gradient `g` for output `nr` of `edge`."""
        if not isinstance(edge, Node):
            cell = self.leaves.get(id(edge))
            if cell is None:
                self.leaves[id(edge)] = [edge, g]
            else:
                cell[1] = cell[1] + g
            return
        if self.needed is not None and edge not in self.needed:
            return
        buffer = self.buffers.get(edge)
        if buffer is None:
            buffer = self.buffers[edge] = [None] * edge.output_count()
            heapq.heappush(self.heap, (-edge.seq, edge))
        held = buffer[nr]
        buffer[nr] = g if held is None else held + g


def run_backward(roots: tuple[Any, ...], starts: Grads, retain: bool, create_graph: bool,
                 targets: tuple[Any, ...] | None, accumulate: bool) -> list[Any]:
    """Runs the history from `roots`; returns the gradients of `targets` (if given)."""
    run = _Run()
    if targets is not None:
        _want(run, roots, targets)
    previous, recorder = state.grad, state.recorder
    outside = "" if recorder is None else recorder.rename("backward")
    state.grad = create_graph
    try:
        for root, g in zip(roots, starts, strict=True):
            run.send(*edge_of(root), g)
        _loop(run, retain)
        return _finish(run, targets, accumulate, create_graph)
    finally:
        state.grad = previous
        if recorder is not None:
            recorder.rename(outside)


def _want(run: _Run, roots: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
    """Notes which gradients to catch and which nodes lead there."""
    for i, t in enumerate(targets):
        if not isinstance(t, Tensor):
            raise TypeError(f"inputs must be tensors, received {type(t).__name__}")
        if not t.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad: input "
                               f"{i} of shape {tuple(t._a.shape)}")
        edge, nr = edge_of(t)
        run.wanted.setdefault((id(edge), nr), []).append(i)
    run.needed = _nodes_towards(run, roots)


def _nodes_towards(run: _Run, roots: tuple[Any, ...]) -> set[Node]:
    """Every node from which a wanted edge can be reached."""
    wanted_ids = {key[0] for key in run.wanted}
    order: list[Node] = []
    seen: set[int] = set()
    stack = [edge_of(r)[0] for r in roots]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in seen:
            seen.add(id(node))
            order.append(node)
            stack.extend(node.edges)
    needed: set[Node] = set()
    for node in sorted(order, key=lambda n: n.seq):
        if id(node) in wanted_ids or any(
                (e in needed) if isinstance(e, Node) else id(e) in wanted_ids
                for e in node.edges if e is not None):
            needed.add(node)
    return needed


def _loop(run: _Run, retain: bool) -> None:
    heap, buffers, send, pop = run.heap, run.buffers, run.send, heapq.heappop
    while heap:
        node = pop(heap)[1]
        grads = buffers.pop(node)
        hooks = node.hooks
        if hooks is not None:
            _before(hooks, grads)
        if run.wanted:
            _capture(run, node, grads)
        results = node.backward(grads) if node.trace is None else _traced(node, grads)
        if hooks is not None and hooks.post:
            results = _after(hooks, results, grads)
        if not retain:
            node.release()
        for edge, nr, r in zip(node.edges, node.nrs, results):
            if r is not None and edge is not None:
                send(edge, nr, r)


def _before(hooks: NodeHooks, grads: list[Any]) -> None:
    """Hooks on the gradients that arrive at a node."""
    for nr, table in hooks.tensor.items():
        if grads[nr] is not None:
            grads[nr] = call_tensor_hooks(table, grads[nr])
    for fn in tuple(hooks.pre.values()):
        changed = followed(fn)(tuple(grads))
        if changed is not None:
            grads[:] = changed if isinstance(changed, (tuple, list)) else (changed,)
    for nr, reference in hooks.retain.items():
        tensor = reference()
        if tensor is not None and grads[nr] is not None:
            accumulate_into(tensor, grads[nr], state.grad)


def call_tensor_hooks(table: dict[int, Any], g: Any) -> Any:
    """Runs the hooks of one tensor on its gradient; each may replace it."""
    for fn in tuple(table.values()):
        changed = followed(fn)(g)
        if changed is not None:
            if not isinstance(changed, Tensor):
                raise TypeError("hook must return a Tensor or None, received "
                                f"{type(changed).__name__}")
            g = changed
    return g


def _after(hooks: NodeHooks, results: tuple[Any, ...], grads: list[Any]) -> tuple[Any, ...]:
    for fn in tuple(hooks.post.values()):
        changed = followed(fn)(results, tuple(grads))
        if changed is not None:
            results = changed if isinstance(changed, tuple) else (changed,)
    return results


def _capture(run: _Run, node: Node, grads: list[Any]) -> None:
    for nr, g in enumerate(grads):
        for i in run.wanted.get((id(node), nr), ()):
            run.captured[i] = g


def _traced(node: Node, grads: list[Any]) -> tuple[Any, ...]:
    """Backward of one node in anomaly mode: failures name the forward call."""
    import warnings

    try:
        results = node.backward(grads)
    except Exception:
        warnings.warn(f"Error detected in {node.name()}. Traceback of forward call that caused "
                      f"the error:\n{node.trace}", UserWarning, stacklevel=2)
        raise
    for i, r in enumerate(results):
        if (state.anomaly_check_nan and r is not None and r._dtype.kind > 1
                and bool(np.isnan(r._a).any())):
            warnings.warn(f"Error detected in {node.name()}. Traceback of forward call that "
                          f"caused the error:\n{node.trace}", UserWarning, stacklevel=2)
            raise RuntimeError(f"Function '{node.name()}' returned nan values in its {i}th output.")
    return results


def _finish(run: _Run, targets: tuple[Any, ...] | None, accumulate: bool,
            create_graph: bool) -> list[Any]:
    """Hands the gradients of leaves over: into `.grad`, or to the caller."""
    for key in list(run.leaves):
        leaf, g = run.leaves[key]
        places = run.wanted.get((key, 0), ())
        if targets is not None and not places:
            continue
        if leaf._hooks:
            g = call_tensor_hooks(leaf._hooks, g)
            run.leaves[key][1] = g
        for i in places:
            run.captured[i] = g
    if not accumulate:
        return [run.captured.get(i) for i in range(len(targets or ()))]
    for key in list(run.leaves):
        leaf, g = run.leaves.pop(key)
        if targets is None or (key, 0) in run.wanted:
            accumulate_into(leaf, g, create_graph)
            _post_accumulate(leaf)
    if targets is not None:
        for i, t in enumerate(targets):
            if t._fn is not None and i in run.captured and not t._retains_grad:
                accumulate_into(t, run.captured[i], create_graph)
    return []


def _post_accumulate(leaf: Tensor) -> None:
    if leaf._post_hooks:
        for fn in tuple(leaf._post_hooks.values()):
            followed(fn)(leaf)
    node = leaf.__dict__.get("_accumulate")
    if node is not None and node.hooks is not None:
        _after(node.hooks, (), [leaf._grad])


def accumulate_into(leaf: Tensor, g: Tensor, create_graph: bool) -> None:
    """Adds `g` to `leaf.grad`; a gradient that nobody else holds is taken as it is."""
    if g._dtype is not leaf._dtype:  # of a parameter used with activations of another precision
        g = g.to(leaf._dtype)
    if INFERENCE[0] and state.recorder is not None:
        state.recorder.watch(leaf)
        state.recorder.read_grad(leaf)
    held = leaf._grad
    if held is None:
        if create_graph or (_is_exclusive(g) and _lies_as(g._a, leaf._a)):
            leaf._grad = g
        else:
            leaf._grad = g.clone() if type(g._a) is not np.ndarray else wrap(
                _copied_as(g._a, leaf._a), g._dtype)
    elif state.recorder is not None and not create_graph and held._dtype is g._dtype:
        state.recorder.note_write(held, held + g)
        storage_of(held).count_write()
    elif (create_graph or type(held._a) is not np.ndarray or type(g._a) is not np.ndarray
          or held._dtype is not g._dtype):
        leaf._grad = held + g
    else:
        token = enter(IGNORE)
        try:
            np.add(held._a, g._a, held._a)
        finally:
            leave(token)
        storage_of(held).count_write()


def _lies_as(a: Any, like: Any) -> bool:
    """Whether a gradient lies in memory as its leaf does, or in rows if that is not dense."""
    if type(like) is not np.ndarray or a.strides == like.strides:
        return True  # a gradient that holds its memory is dense
    kept = [(n, s, t) for n, s, t in zip(a.shape, a.strides, like.strides, strict=True) if n > 1]
    if not a.size or all(s == t for _, s, t in kept):
        return True
    return bool(a.flags.c_contiguous) and not _is_dense(like)


def _is_dense(a: Any) -> bool:
    """Whether elements lie side by side in some order of the axes."""
    step = a.itemsize
    for s, n in sorted((s, n) for n, s in zip(a.shape, a.strides, strict=True) if n > 1):
        if s != step:
            return False
        step *= n
    return True


def _copied_as(a: Any, like: Any) -> Any:
    """A copy that lies as `_lies_as` wants."""
    same = type(like) is np.ndarray and _is_dense(like)
    made = np.empty_like(like, a.dtype) if same else np.empty(a.shape, a.dtype)
    made[...] = a
    return made


def _is_exclusive(g: Tensor) -> bool:
    a = g._a
    return (g._st is None and type(a) is np.ndarray and a.base is None
            and sys.getrefcount(g) <= _REFS[0] and sys.getrefcount(a) <= _REFS[1])


_REFS = (sys.maxsize, sys.maxsize)


def _calibrate() -> tuple[int, int]:
    """Reference counts of a gradient that only the engine holds, on this interpreter."""
    seen: list[tuple[int, int]] = []

    def look(g: Tensor) -> bool:
        a = g._a
        seen.append((sys.getrefcount(g), sys.getrefcount(a)))
        return True

    def accumulate(leaf: Tensor, g: Tensor, create_graph: bool) -> None:
        held = leaf._grad
        if held is None and (create_graph or look(g)):
            leaf._grad = g

    def finish(run: _Run) -> None:
        for key in list(run.leaves):
            leaf, g = run.leaves.pop(key)
            if (key, 0) not in run.wanted:
                accumulate(leaf, g, False)

    run = _Run()
    leaf = wrap(np.zeros(1, np.float32))
    run.leaves[0] = [leaf, wrap(np.zeros(1, np.float32))]
    finish(run)
    return seen[0]


_REFS = _calibrate()

"""Mapping a function over a dimension of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

from .. import ops
from ..autograd.modes import followed, made, state
from ..tensor import Tensor
from ..tensor.abstract import AbstractOperand
from ..utils._pytree import tree_flatten, tree_map, tree_unflatten
from ._batch import Batcher, NeedsLoop, NoDraws

__all__ = ["vmap"]

InDims = int | tuple[Any, ...] | list[Any]


def vmap(func: Callable[..., Any], in_dims: InDims = 0, out_dims: Any = 0,
         randomness: str = "error", *, chunk_size: int | None = None) -> Callable[..., Any]:
    """A function that maps `func` over a dimension of its inputs.

    in_dims: the mapped dimension of each input, None for an input that all calls share; one for
      all inputs, or the structure of the inputs. out_dims: where it stands in the outputs.
    randomness: 'different' draws for each element, 'same' once for all, 'error' refuses to draw.

    chunk_size: how many elements are computed together (None: all).

    `func` is called once, on tensors that stand for one element each, and every operator runs once
    for the whole batch; operators without a rule for that run in a loop. Where `func` asks for the
    value of an element (`.item()`, a branch on it) it is called anew for one element after the
    other, which PyTorch refuses; what it does beside its result may then happen more often.

    >>> import lampion as torch
    >>> torch.vmap(torch.dot)(torch.ones(3, 2), torch.ones(3, 2))
    tensor([2., 2., 2.])
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError("Only allowed values for randomness are 'error', 'different', or 'same'."
                           f" Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        label = f"vmap({getattr(func, '__name__', repr(func))}"
        leaves, spec = tree_flatten(args)
        dims = _dims_of(label, in_dims, args, leaves)
        size = _batch_size(label, leaves, dims)

        def call(case: list[Any]) -> Any:
            return followed(func)(*made(tree_unflatten(case, spec)), **kwargs)
        mapped = _Mapped(label, call, dims, out_dims, randomness)
        return mapped.run(leaves, size) if chunk_size is None or not size else mapped.in_chunks(
            leaves, size, chunk_size)
    return wrapped


class _Mapped:
    """A function of a list of leaves, and how it is mapped over them."""

    def __init__(self, label: str, call: Callable[[list[Any]], Any], dims: list[Any],
                 out_dims: Any, randomness: str) -> None:
        self.label, self.call, self.dims = label, call, dims
        self.out_dims, self.randomness = out_dims, randomness

    def run(self, leaves: list[Any], size: int) -> Any:
        """All elements at once; one by one where the function asks for the value of one."""
        draws = self.randomness != "error"
        before = ops.get_rng_state() if draws and state.recorder is None else None
        batcher = Batcher(size, self.randomness)
        if size:
            try:
                return self.at_once(leaves, batcher)
            except NeedsLoop as asked:
                if asked.batcher is not batcher:
                    raise
            except AbstractOperand:  # NumPy was called on an element
                pass
            if before is not None:
                ops.set_rng_state(before)
            elif draws:
                raise state.recorder.draw("vmap, one element after the other")
        results = _run(self.call, _cases(leaves, self.dims, size), self.randomness)
        stacked = _stacked(self.label, results, self.out_dims)
        return stacked if size else tree_map(lambda t: _emptied(t, self.out_dims), stacked)

    def at_once(self, leaves: list[Any], batcher: Batcher) -> Any:
        with batcher:
            result = self.call([leaf if d is None else batcher.element(leaf.movedim(d, 0))
                                for leaf, d in zip(leaves, self.dims)])
        found, spec = tree_flatten(result)
        places = _out_dims_of(self.label, self.out_dims, result)
        return tree_unflatten([_unwrapped(self.label, batcher, t, d)
                               for t, d in zip(found, places)], spec)

    def in_chunks(self, leaves: list[Any], size: int, chunk: int) -> Any:
        parts = [self.run([leaf if d is None else leaf.narrow(d, i, min(chunk, size - i))
                           for leaf, d in zip(leaves, self.dims)], min(chunk, size - i))
                 for i in range(0, size, chunk)]
        columns = [tree_flatten(part)[0] for part in parts]
        places = _out_dims_of(self.label, self.out_dims, parts[0])
        return tree_unflatten([c[0] if d is None else ops.cat(c, d)
                               for c, d in zip(zip(*columns), places)], tree_flatten(parts[0])[1])


def _out_dims_of(label: str, out_dims: Any, result: Any) -> list[Any]:
    try:
        return _spread(out_dims, result)
    except ValueError:
        raise ValueError(f"{label}, ..., out_dims={out_dims})(<inputs>): out_dims is not "
                         "compatible with the structure of `outputs`") from None


def _unwrapped(label: str, batcher: Batcher, value: Any, dim: int | None) -> Any:
    """A result for the caller, with the batch where it belongs."""
    if dim is None:
        if batcher.holds(value):
            raise ValueError(f"{label}, ...): `{label[5:]}` can not return a BatchedTensor when "
                             "out_dim is None")
        return value
    if not isinstance(value, Tensor):
        raise _not_a_tensor(label, value)
    return batcher.full(value).movedim(0, dim)


def _spread(dims: Any, tree: Any) -> list[Any]:
    """One entry of `dims` for each leaf of `tree`; ValueError where the structures differ."""
    if dims is None or isinstance(dims, int):
        return [dims] * len(tree_flatten(tree)[0])
    if isinstance(tree, dict) and isinstance(dims, dict) and tree.keys() == dims.keys():
        pairs = [(dims[key], tree[key]) for key in tree]
    elif isinstance(tree, (tuple, list)) and isinstance(dims, (tuple, list)) and len(
            tree) == len(dims):
        pairs = list(zip(dims, tree))
    else:
        raise ValueError
    return [d for pair in pairs for d in _spread(*pair)]


def _dims_of(label: str, in_dims: Any, args: tuple[Any, ...], leaves: list[Any]) -> list[Any]:
    if not isinstance(in_dims, (int, tuple, list)):
        raise ValueError(f"{label}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to be "
                         "int or a (potentially nested) tuple matching the structure of inputs, "
                         f"got: {type(in_dims)}.")
    if not leaves:
        raise ValueError(f"{label})(<inputs>): got no inputs. Maybe you forgot to add inputs, or "
                         "you are trying to vmap over a function with no inputs. The latter is "
                         "unsupported.")
    try:
        found = _spread(tuple(in_dims) if isinstance(in_dims, list) else in_dims, args)
    except ValueError:
        raise ValueError(f"{label}, in_dims={in_dims}, ...)(<inputs>): in_dims is not compatible "
                         f"with the structure of `inputs`: {len(args)} inputs") from None
    return [_checked(label, in_dims, leaf, d) for leaf, d in zip(leaves, found)]


def _checked(label: str, in_dims: Any, leaf: Any, dim: int | None) -> int | None:
    if dim is None:
        return None
    call = f"{label}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for"
    if not isinstance(leaf, Tensor):
        raise ValueError(f"{call} an input but the input is of type {type(leaf)}. We cannot vmap "
                         "over non-Tensor arguments, please use None as the respective in_dim")
    if not -leaf.dim() <= dim < leaf.dim():
        raise ValueError(f"{call} some input, but that input is a Tensor of dimensionality "
                         f"{leaf.dim()} so expected in_dim to satisfy -{leaf.dim()} <= in_dim < "
                         f"{leaf.dim()}.")
    return dim


def _batch_size(label: str, leaves: list[Any], dims: list[Any]) -> int:
    sizes = [leaf.shape[d] for leaf, d in zip(leaves, dims) if d is not None]
    if not sizes:
        raise ValueError(f"{label})(<inputs>): no input has a mapped dimension: give one an in_dim "
                         "that is not None")
    if len(set(sizes)) > 1:
        raise ValueError("vmap: Expected all tensors to have the same size in the mapped dimension,"
                         f" got sizes {sizes} for the mapped dimension")
    return sizes[0]


def _cases(leaves: list[Any], dims: list[Any], size: int) -> list[list[Any]]:
    """The leaves of each call. An empty batch is tried on zeros, for the shape of its results."""
    parts = [None if d is None else leaf.unbind(d) if size else
             [leaf.new_zeros([n for i, n in enumerate(leaf.shape) if i != d % leaf.dim()])]
             for leaf, d in zip(leaves, dims)]
    return [[leaf if part is None else part[i] for leaf, part in zip(leaves, parts)]
            for i in range(max(size, 1))]


def _run(call: Callable[[list[Any]], Any], cases: list[list[Any]], randomness: str) -> list[Any]:
    """One element after the other."""
    before = ops.get_rng_state() if randomness == "same" else None
    results: list[Any] = []
    with NoDraws() if randomness == "error" else nullcontext():
        for case in cases:
            if results and before is not None:
                ops.set_rng_state(before)
            results.append(call(case))
    return results


def _stacked(label: str, results: list[Any], out_dims: Any) -> Any:
    columns = [tree_flatten(result)[0] for result in results]
    dims = _out_dims_of(label, out_dims, results[0])
    return tree_unflatten([_join(label, parts, d) for parts, d in zip(zip(*columns), dims)],
                          tree_flatten(results[0])[1])


def _join(label: str, parts: tuple[Any, ...], dim: int | None) -> Any:
    if dim is None:
        return parts[0]
    if not isinstance(parts[0], Tensor):
        raise _not_a_tensor(label, parts[0])
    return ops.stack(parts, dim)


def _not_a_tensor(label: str, value: Any) -> ValueError:
    return ValueError(f"{label}, ...): the function must only return Tensors, got type "
                      f"{type(value)}. Did you mean to set out_dims= to None for output?")


def _emptied(value: Any, out_dims: Any) -> Any:
    if not isinstance(value, Tensor) or not isinstance(out_dims, int):
        return value
    return value.narrow(out_dims, 0, 0)

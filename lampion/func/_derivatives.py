"""Derivatives as functions of functions.

Every transform differentiates with respect to fresh inputs of its own. Where the outputs also
depend on tensors outside that require gradients (those of an enclosing transform, or parameters),
its results are recorded too, so transforms nest to any depth and mix with `backward`.

Forward products come from two reverse passes: the product with a cotangent is linear in the
cotangent, and its derivative with respect to it is the forward product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from .. import autograd, ops
from ..autograd import enable_grad, is_grad_enabled
from ..autograd.modes import followed, made
from ..tensor import Tensor
from ..utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from ._vmap import vmap

__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp"]

Argnums = int | tuple[int, ...]


class _Level:
    """One call of a function on inputs of its own, ready to be differentiated."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                 argnums: Argnums, has_aux: bool) -> None:
        self.outer = is_grad_enabled()
        chosen = _chosen(args, argnums)
        given, self.in_spec = tree_flatten(chosen)
        _check_tensors(given)
        with enable_grad():
            self.inputs = [self._fresh(t) for t in given]
            fresh = made(tree_unflatten(self.inputs, self.in_spec))
            self.result = followed(func)(*_replaced(args, argnums, fresh), **kwargs)
        self.aux: Any = None
        if has_aux:
            self.result, self.aux = _pair(self.result)
        self.flat, self.out_spec = tree_flatten(self.result)

    def _fresh(self, t: Tensor) -> Tensor:
        return t.view_as(t) if self.outer and t.requires_grad else t.detach().requires_grad_()

    def recorded(self, *also: Tensor) -> bool:
        """Whether derivatives are to be recorded for someone outside."""
        return self.outer and (any(t.requires_grad for t in also)
                               or _reaches_outside(self.flat, self.inputs))

    def released(self, value: Any, keep: bool) -> Any:
        """`value` for the caller, who knows nothing of our inputs."""
        return tree_map_only(Tensor, lambda t: t if keep else t.detach(), value)

    def pull(self, cotangents: Sequence[Any], keep: bool) -> list[Any]:
        """The gradients of the inputs, zeros where nothing leads to one; cotangents may be None."""
        pairs = [(o, c) for o, c in zip(self.flat, cotangents, strict=True)
                 if o.requires_grad and c is not None]
        found = [None] * len(self.inputs) if not pairs else autograd.grad(
            [o for o, _ in pairs], self.inputs, [c for _, c in pairs], retain_graph=True,
            create_graph=keep, allow_unused=True)
        return [ops.zeros_like(t) if g is None else g for g, t in zip(found, self.inputs)]

    def push(self) -> Callable[[Sequence[Any], bool], list[Any]]:
        """A function from tangents of the inputs to those of the outputs."""
        with enable_grad():
            dummies = [ops.zeros_like(o, requires_grad=True) if o.requires_grad else None
                       for o in self.flat]
            back = self.pull(dummies, keep=True)
        linked = [d for d in dummies if d is not None]

        def forward(tangents: Sequence[Any], keep: bool) -> list[Any]:
            pairs = [(b, t) for b, t in zip(back, tangents, strict=True)
                     if b.requires_grad and t is not None]
            found = iter([None] * len(linked) if not pairs else autograd.grad(
                [b for b, _ in pairs], linked, [t for _, t in pairs], retain_graph=True,
                create_graph=keep, allow_unused=True))
            products = [None if d is None else next(found) for d in dummies]
            return [ops.zeros_like(o) if p is None else p
                    for p, o in zip(products, self.flat, strict=True)]
        return forward


def _reaches_outside(outputs: Sequence[Any], own: Sequence[Tensor]) -> bool:
    """Whether the history leads to a leaf that is not one of ours."""
    seen = {id(t) for t in own if t.is_leaf}
    stack = [t for t in outputs if isinstance(t, Tensor) and t.requires_grad]
    while stack:
        place: Any = stack.pop()
        if place is None or id(place) in seen:
            continue
        seen.add(id(place))
        if isinstance(place, Tensor):
            if place.is_leaf:
                return True
            place = place.grad_fn
        stack += place.edges
    return False


def _positions(args: tuple[Any, ...], argnums: Argnums) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise RuntimeError(f"Got argnum={n}, but only {len(args)} positional inputs")
    if len({n % len(args) for n in numbers}) != len(numbers) or not numbers:
        raise RuntimeError(f"argnums elements must be unique and at least one, but got {argnums}")
    return tuple(n % len(args) for n in numbers)


def _chosen(args: tuple[Any, ...], argnums: Argnums) -> Any:
    places = _positions(args, argnums)
    return args[places[0]] if isinstance(argnums, int) else tuple(args[i] for i in places)


def _replaced(args: tuple[Any, ...], argnums: Argnums, chosen: Any) -> list[Any]:
    places = _positions(args, argnums)
    values = [chosen] if isinstance(argnums, int) else chosen
    replaced = list(args)
    for i, value in zip(places, values, strict=True):
        replaced[i] = value
    return replaced


def _check_tensors(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ValueError("Thing passed to transform API must be Tensor, got "
                             f"{type(leaf)}: only tensors have derivatives")


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise RuntimeError("with has_aux=True the function must return a tuple of (output, aux), "
                           f"but it returned {type(result).__name__}")
    return result


def _check_outputs(level: _Level, name: str) -> None:
    for value in level.flat:
        if not isinstance(value, Tensor):
            raise RuntimeError(f"{name}: Expected f(*args) to return only tensors, got "
                               f"{type(value)}")


# --- reverse --------------------------------------------------------------------------------------


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0,
                   has_aux: bool = False) -> Callable[..., tuple[Any, Any]]:
    """A function that gives the gradient of a scalar function, and its value.

    With `has_aux` the function returns (output, aux), and the value is (output, aux) too.
    """
    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        level = _Level(func, args, kwargs, argnums, has_aux)
        out = level.result
        if not isinstance(out, Tensor):
            raise RuntimeError("grad_and_value(f)(*args): Expected f(*args) to return a Tensor, "
                               f"got {type(out)}")
        if out.dim() != 0:
            raise RuntimeError(
                "grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor "
                f"with {out.dim()} dims. Maybe you wanted to use the vjp or jacrev APIs instead?")
        keep = level.recorded()
        gradients = tree_unflatten(level.pull([ops.ones_like(out)], keep), level.in_spec)
        value = level.released(out, keep)
        return gradients, (value, level.released(level.aux, keep)) if has_aux else value
    return wrapped


def grad(func: Callable[..., Any], argnums: Argnums = 0,
         has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of a scalar function with respect to `argnums`.

    With `has_aux` the function returns (output, aux), and the result is (gradient, aux).

    >>> import lampion as torch
    >>> torch.func.grad(torch.sin)(torch.tensor(0.0))
    tensor(1.)
    >>> torch.func.grad(torch.func.grad(lambda x: x ** 3))(torch.tensor(2.0))
    tensor(12.)
    """
    both = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        gradients, value = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients
    return wrapped


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The outputs at `primals`, and a function from cotangents to gradients of the inputs.

    With `has_aux` also the second of what the function returns.
    """
    level = _Level(func, primals, {}, tuple(range(len(primals))), has_aux)
    _check_outputs(level, "vjp(f, *primals)")
    keep = level.recorded()

    def pullback(cotangents: Any, *more: Any, retain_graph: bool = True,
                 create_graph: bool | None = None) -> Any:
        given, spec = tree_flatten((cotangents, *more) if more else cotangents)
        if spec != level.out_spec:
            raise RuntimeError("vjp_fn: Expected the cotangents to have the structure of the "
                               f"outputs, but got {len(given)} leaves for {len(level.flat)}")
        _check_shapes("grad_output", given, "output", level.flat)
        wanted = is_grad_enabled() and (keep or any(t.requires_grad for t in given))
        return tree_unflatten(level.pull(given, wanted), level.in_spec)

    out = level.released(level.result, keep)
    return (out, pullback, level.released(level.aux, keep)) if has_aux else (out, pullback)


def _check_shapes(what: str, given: Sequence[Tensor], name: str, like: Sequence[Tensor]) -> None:
    for i, (g, t) in enumerate(zip(given, like, strict=True)):
        if g.shape != t.shape:
            raise RuntimeError(f"Mismatch in shape: {what}[{i}] has a shape of {g.shape} and "
                               f"{name}[{i}] has a shape of {t.shape}.")


def jacrev(func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False,
           chunk_size: int | None = None,
           _preallocate_and_copy: bool = False) -> Callable[..., Any]:
    """A function that gives the Jacobian: one reverse pass, mapped over the outputs' elements.

    Its blocks have the shape of the output, then that of the input. chunk_size: how many elements
    of the outputs are treated together (None: all).

    >>> import lampion as torch
    >>> torch.func.jacrev(lambda x: x ** 2)(torch.tensor([1., 2.]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        level = _Level(func, args, kwargs, argnums, has_aux)
        _check_outputs(level, "jacrev(f)(*args)")
        keep = level.recorded()
        blocks = [tree_unflatten(_rows(level, i, keep, chunk_size), level.in_spec)
                  for i in range(len(level.flat))]
        jacobian = tree_unflatten(blocks, level.out_spec)
        return (jacobian, level.released(level.aux, keep)) if has_aux else jacobian
    return wrapped


def _rows(level: _Level, i: int, keep: bool, chunk_size: int | None) -> list[Tensor]:
    """The blocks of output `i`, one for each input."""
    out = level.flat[i]
    if not out.numel():
        return [t.new_zeros((*out.shape, *t.shape)) for t in level.inputs]

    def pull(cotangent: Tensor) -> list[Tensor]:
        return level.pull(_alone(level.flat, i, cotangent), keep)
    rows = vmap(pull, chunk_size=chunk_size)(_units(out))
    return [r.reshape((*out.shape, *t.shape)) for r, t in zip(rows, level.inputs, strict=True)]


def _alone(places: Sequence[Any], i: int, value: Any) -> list[Any]:
    """`value` at place `i`, None elsewhere."""
    return [value if j == i else None for j in range(len(places))]


def _units(like: Tensor) -> Tensor:
    """Tensors like this one, each with a single one among zeros."""
    n = like.numel()
    return ops.eye(n, dtype=like.dtype).reshape(n, *like.shape)  # type: ignore[no-any-return]


# --- forward --------------------------------------------------------------------------------------


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False,
        has_aux: bool = False) -> Any:
    """The outputs at `primals`, and the product of the Jacobian with `tangents`.

    >>> import lampion as torch
    >>> torch.func.jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
    (tensor(0.), tensor(2.))
    """
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple):
            raise RuntimeError(f"jvp(f, primals, tangents): Expected {name} to be a tuple. E.g. it "
                               "should be valid to call f(*primals).")
    level, push = _linear("jvp(f, primals, tangents)", func, primals, has_aux)
    if strict and not all(o.requires_grad for o in level.flat):
        raise RuntimeError("jvp(f, primals, tangents, strict=True): The output of f is independent "
                           "of the inputs. This is not allowed with strict=True.")
    out, product, keep = level.result, *push(tangents)
    out = level.released(out, keep)
    return (out, product, level.released(level.aux, keep)) if has_aux else (out, product)


def _linear(name: str, func: Callable[..., Any], primals: tuple[Any, ...],
            has_aux: bool) -> tuple[_Level, Callable[[Any], tuple[Any, bool]]]:
    """The call, and a function from tangents to (product, whether it is recorded)."""
    level = _Level(func, primals, {}, tuple(range(len(primals))), has_aux)
    _check_outputs(level, name)
    forward = level.push()

    def push(tangents: Any) -> tuple[Any, bool]:
        given, spec = tree_flatten(tangents)
        if spec != level.in_spec:
            raise RuntimeError(f"{name}: Expected primals and tangents to have the same structure")
        _check_shapes("tangents", given, "primals", level.inputs)
        keep = is_grad_enabled() and level.recorded(*given)
        return tree_unflatten(forward(given, keep), level.out_spec), keep
    return level, push


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The outputs at `primals`, and the linear function from tangents to their product."""
    level, push = _linear("linearize(f, *primals)", func, primals, False)
    return level.released(level.result, level.recorded()), lambda *tangents: push(tangents)[0]


def jacfwd(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *,
           randomness: str = "error") -> Callable[..., Any]:
    """As `jacrev`: one forward product, mapped over the inputs' elements."""
    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        level = _Level(func, args, kwargs, argnums, has_aux)
        _check_outputs(level, "jacfwd(f)(*args)")
        keep = level.recorded()
        forward = level.push()
        columns = [_columns(level, forward, j, keep) for j in range(len(level.inputs))]
        blocks = [tree_unflatten([column[i] for column in columns], level.in_spec)
                  for i in range(len(level.flat))]
        jacobian = tree_unflatten(blocks, level.out_spec)
        return (jacobian, level.released(level.aux, keep)) if has_aux else jacobian
    return wrapped


def _columns(level: _Level, forward: Callable[..., list[Any]], j: int,
             keep: bool) -> list[Tensor]:
    """The blocks of input `j`, one for each output."""
    like = level.inputs[j]
    if not like.numel():
        return [o.new_zeros((*o.shape, *like.shape)) for o in level.flat]

    def push(tangent: Tensor) -> list[Any]:
        return forward(_alone(level.inputs, j, tangent), keep)
    columns = vmap(push, out_dims=-1)(_units(like))
    return [c.reshape((*o.shape, *like.shape)) for c, o in zip(columns, level.flat, strict=True)]


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that gives all second derivatives.

    >>> import lampion as torch
    >>> torch.func.hessian(lambda x: (x ** 3).sum())(torch.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)

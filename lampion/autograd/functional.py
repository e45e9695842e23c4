"""Jacobians, Hessians and products with them, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor.tensor import Tensor
from .engine import grad
from .modes import enable_grad

__all__ = ["vjp", "jvp", "jacobian", "hessian", "vhp", "hvp"]

Tensors = tuple[Tensor, ...]


def _tuple(value: Any, name: str, fn: str) -> tuple[bool, Tensors]:
    """Whether a tuple was given, and a tuple."""
    many = isinstance(value, (tuple, list))
    found = tuple(value) if many else (value,)
    for i, t in enumerate(found):
        if not isinstance(t, Tensor):
            place = f"element {i} of the {name}" if many else f"the {name}"
            raise TypeError(f"{fn}: {place} must be a Tensor, got {type(t).__name__}")
    return many, found


def _leaves(inputs: Tensors, create_graph: bool) -> Tensors:
    """Fresh inputs to differentiate with respect to."""
    if create_graph:
        return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
                     for t in inputs)
    return tuple(t.detach().requires_grad_() for t in inputs)


def _zeros_where_none(grads: Any, like: Tensors, strict: bool, what: str) -> Tensors:
    out = []
    for i, (g, t) in enumerate(zip(grads, like, strict=True)):
        if g is None and strict:
            raise RuntimeError(f"The {what} is independent of input {i}. This is not allowed in "
                               "strict mode.")
        out.append(t.new_zeros(t._a.shape) if g is None else g)
    return tuple(out)


def _call(fn: Callable[..., Any], inputs: Tensors, name: str) -> tuple[bool, Tensors]:
    return _tuple(fn(*inputs), "outputs of the user-provided function", name)


def _shape_like(many: bool, values: Tensors) -> Any:
    return values if many else values[0]


def _done(values: Any, create_graph: bool) -> Any:
    if create_graph:
        return values
    return tuple(_done(v, False) for v in values) if isinstance(values, tuple) else values.detach()


def _vector(v: Any, like: Tensors, name: str) -> Tensors:
    if v is None:
        if len(like) != 1 or like[0]._a.size != 1:
            raise RuntimeError(f"The vector v can only be None if the user-provided function "
                               f"returns a single Tensor with a single element ({name})")
        return tuple(t.new_ones(t._a.shape) for t in like)
    _, given = _tuple(v, "v", name)
    if len(given) != len(like) or any(a._a.shape != b._a.shape for a, b in zip(
            given, like, strict=False)):
        raise RuntimeError(f"{name}: v has shapes {[list(t._a.shape) for t in given]}, expected "
                           f"{[list(t._a.shape) for t in like]}")
    return given


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The outputs of `func` and the product of `v` with its Jacobian."""
    with enable_grad():
        many_in, given = _tuple(inputs, "inputs", "vjp")
        leaves = _leaves(given, create_graph)
        many_out, outputs = _call(func, leaves, "vjp")
        vector = _vector(v, outputs, "vjp")
        grads = _zeros_where_none(_grad(outputs, leaves, vector, create_graph), leaves, strict,
                                  "output of the function")
    return (_done(_shape_like(many_out, outputs), create_graph),
            _done(_shape_like(many_in, grads), create_graph))


def _grad(outputs: Any, inputs: Any, vectors: Any, create_graph: bool) -> Any:
    pairs = [(o, g) for o, g in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    return grad([o for o, _ in pairs], inputs, [g for _, g in pairs], retain_graph=True,
                create_graph=create_graph, allow_unused=True)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The outputs of `func` and the product of its Jacobian with `v` (by two reverse passes)."""
    with enable_grad():
        _, given = _tuple(inputs, "inputs", "jvp")
        leaves = _leaves(given, create_graph)
        many_out, outputs = _call(func, leaves, "jvp")
        vector = _vector(v, leaves, "jvp")
        # The product with a dummy is linear in it: its gradient is the forward product.
        dummies = tuple(o.new_zeros(o._a.shape).requires_grad_() for o in outputs)
        back = _zeros_where_none(_grad(outputs, leaves, dummies, True), leaves, strict,
                                 "output of the function")
        found = _grad(back, dummies, vector, create_graph)
        products = _zeros_where_none(found, outputs, strict, "output of the function")
    return (_done(_shape_like(many_out, outputs), create_graph),
            _done(_shape_like(many_out, products), create_graph))


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
             strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Any:
    """All derivatives of the outputs of `func`: shape of the output, then of the input.

    >>> import lampion as torch
    >>> torch.autograd.functional.jacobian(lambda x: x ** 2, torch.tensor([1., 2.]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    with enable_grad():
        many_in, given = _tuple(inputs, "inputs", "jacobian")
        leaves = _leaves(given, create_graph)
        many_out, outputs = _call(func, leaves, "jacobian")
        rows = tuple(_shape_like(many_in, _jacobian_of(o, leaves, create_graph, strict))
                     for o in outputs)
    return _done(_shape_like(many_out, rows), create_graph)


def _jacobian_of(output: Tensor, leaves: Tensors, create_graph: bool, strict: bool) -> Tensors:
    flat = output.reshape(-1)
    rows = []
    for i in range(flat._a.shape[0]):
        one = flat.new_zeros(flat._a.shape)
        one[i] = 1
        rows.append(_zeros_where_none(_grad((flat,), leaves, (one,), create_graph), leaves, strict,
                                      "output of the function"))
    if not rows:
        return tuple(t.new_zeros((*output._a.shape, *t._a.shape)) for t in leaves)
    return tuple(Tensor._stack(column, 0).reshape((*output._a.shape, *t._a.shape))
                 for column, t in zip(zip(*rows, strict=True), leaves, strict=True))


def _scalar(func: Callable[..., Any], name: str) -> Callable[..., Tensor]:
    def checked(*args: Tensor) -> Tensor:
        out = func(*args)
        if not isinstance(out, Tensor) or out._a.size != 1:
            raise RuntimeError("The Tensor returned by the function given to "
                               f"{name} should contain a single element")
        return out.reshape(())  # type: ignore[no-any-return]
    return checked


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
            strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """All second derivatives of a scalar function."""
    many, _ = _tuple(inputs, "inputs", "hessian")
    checked = _scalar(func, "hessian")

    def gradient(*args: Tensor) -> Any:
        found = jacobian(checked, args, create_graph=True, strict=strict)
        return found if many else found[0]
    return jacobian(gradient, inputs, create_graph, strict)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The value of a scalar function and the product of `v` with its Hessian."""
    many, given = _tuple(inputs, "inputs", "vhp")
    with enable_grad():
        leaves = _leaves(given, create_graph)
        output = _scalar(func, "vhp")(*leaves)
        vector = _vector(v, leaves, "vhp")
        first = _zeros_where_none(_grad((output,), leaves, (output.new_ones(()),), True), leaves,
                                  strict, "output of the function")
        second = _zeros_where_none(_grad(first, leaves, vector, create_graph), leaves, strict,
                                   "jacobian of the function")
    return _done(output, create_graph), _done(_shape_like(many, second), create_graph)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The value of a scalar function and the product of its Hessian with `v` (symmetric)."""
    return vhp(func, inputs, v, create_graph, strict)

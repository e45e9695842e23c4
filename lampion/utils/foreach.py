"""`torch._foreach_*`: one operation on every tensor of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import ops
from ..tensor import Tensor

__all__: list[str] = []

Tensors = Sequence[Tensor]

# Operators of one tensor.
_ONE = (
    "abs", "acos", "asin", "atan", "ceil", "clone", "cos", "cosh", "erf", "erfc", "exp", "expm1",
    "floor", "frac", "lgamma", "log", "log10", "log1p", "log2", "neg", "reciprocal", "round",
    "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
_TWO = ["add", "sub", "mul", "div", "maximum", "minimum", "clamp_max", "clamp_min", "pow"]


def _second(other: Any, n: int) -> Sequence[Any]:
    """The second operand of each: a list, or one number or tensor for all."""
    if not isinstance(other, (list, tuple)):
        return [other] * n
    if len(other) != n:
        raise RuntimeError("Tensor lists must have the same number of tensors, got "
                           f"{n} and {len(other)}")
    return other


def _method(name: str) -> Callable[..., Any]:
    # PyTorch's clamp by a bound is the elementwise maximum or minimum, of tensors too.
    name = {"clamp_max": "minimum", "clamp_min": "maximum"}.get(name, name)

    def call(t: Tensor, *args: Any, **kwargs: Any) -> Any:
        if name in ("minimum", "maximum") and not isinstance(args[0], Tensor):
            args = (ops.as_tensor(args[0], dtype=t.dtype),)
        if name == "pow" and not isinstance(t, Tensor):
            return ops.pow(t, *args)
        return getattr(t, name)(*args, **kwargs)
    return call


def _pairwise(name: str) -> Callable[..., Any]:
    call = _method(name)

    def foreach(self: Tensors, other: Any, **kwargs: Any) -> list[Tensor]:
        if not isinstance(self, (list, tuple)):  # pow: a number to the power of each
            return [call(self, t) for t in other]
        return [call(t, o, **kwargs) for t, o in zip(self, _second(other, len(self)))]
    return foreach


def _in_place(foreach: Callable[..., Any]) -> Callable[..., Any]:
    def change(self: Tensors, *args: Any, **kwargs: Any) -> None:
        for t, result in zip(self, foreach(self, *args, **kwargs)):
            t.copy_(result)
    return change


def _lerp(self: Tensors, tensors1: Tensors, weight: Any) -> list[Tensor]:
    weights = _second(weight, len(self))
    return [t.lerp(e, w) for t, e, w in zip(self, _second(tensors1, len(self)), weights)]


def _product(name: str) -> Callable[..., Any]:
    def foreach(self: Tensors, tensor1: Tensors, tensor2: Tensors, value: Any = 1,
                scalars: Any = None) -> list[Tensor]:
        values = value if scalars is None else scalars
        factors = values.tolist() if isinstance(values, Tensor) else values
        return [getattr(t, name)(a, b, value=v) for t, a, b, v in zip(
            self, tensor1, tensor2, _second(factors, len(self)))]
    return foreach


def _norm(self: Tensors, ord: Any = 2, dtype: Any = None) -> list[Tensor]:
    return [t.norm(ord) if dtype is None else t.norm(ord, dtype=dtype) for t in self]


def _copy_(self: Tensors, src: Tensors, non_blocking: bool = False) -> None:
    for t, s in zip(self, _second(src, len(self))):
        t.copy_(s)


def _zero_(self: Tensors) -> None:
    for t in self:
        t.zero_()


def _unary(name: str) -> Callable[..., Any]:
    def foreach(self: Tensors) -> list[Tensor]:
        return [getattr(t, name)() for t in self]
    return foreach


def _table() -> dict[str, Callable[..., Any]]:
    new: dict[str, Callable[..., Any]] = {
        name: _unary(name) for name in _ONE}
    new |= {name: _pairwise(name) for name in _TWO}
    new |= {"lerp": _lerp, "addcmul": _product("addcmul"), "addcdiv": _product("addcdiv")}
    changing = {f"{name}_": _in_place(f) for name, f in new.items() if name != "clone"}
    others: dict[str, Callable[..., Any]] = {
        "norm": _norm, "max": _unary("max"), "copy_": _copy_, "zero_": _zero_}
    return {f"_foreach_{name}": f for name, f in (new | changing | others).items()}


globals().update(_table())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.{name} yet")

"""Random programs over the public API, the same for every framework with that API.

A `Program` holds NumPy values, how they lie in memory, and a function `run(fw, tensors)` that
returns tensors. `random_program(seed)` makes one; nothing of it depends on the framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Run = Callable[..., Any]

SIZES = (1, 2, 3, 5, 7, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 101, 127, 128, 251)
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 1.0, -1.0, 88.8, -104.0)
WIDE, NARROW = ("float32", "float64"), ("bfloat16", "float16")


_LAYOUTS = ("plain", "plain", "plain", "turned", "steps", "inside", "spread", "last")


class Input(NamedTuple):
    """Values as they are stored, their dtype, and the views that lead to the tensor."""

    values: Any
    dtype: str
    views: tuple[tuple[str, Any], ...] = ()
    grad: bool = False

    def tensor(self, fw: Any, dtype: str | None = None) -> Any:
        """A new leaf with these strides."""
        t = fw.tensor(self.values).to(getattr(fw, dtype or self.dtype))
        for name, args in self.views:
            t = t[args] if name == "index" else getattr(t, name)(*args)
        t = t.detach()
        return t.requires_grad_() if self.grad else t


class Program(NamedTuple):
    """What to run on what."""

    name: str
    inputs: list[Input]
    run: Run
    seed: int

    def tensors(self, fw: Any, dtype: str | None = None, shake: float = 0.0) -> list[Any]:
        """The arguments; floats in another dtype, and changed at random by so much."""
        rng = np.random.default_rng(1)
        made = []
        for i in self.inputs:
            real = i.dtype in WIDE + NARROW
            if real and shake:
                i = i._replace(values=i.values * (1 + shake * rng.uniform(-1, 1, i.values.shape)))
            made.append(i.tensor(fw, dtype if real else None))
        return made


class Draw:
    """A seeded source of sizes, tensors and choices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs: list[Input] = []

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def whole(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def number(self) -> float:
        """A scalar of a program: plain ones, which kernels contain, and others."""
        return self.pick((0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 1.7, -0.3, 1e-3, 6.0))

    def shape(self, dims: int, least: int = 1024, most: int = 60_000) -> tuple[int, ...]:
        """Sizes whose product lies between the two, where a few tries find them."""
        for _ in range(60):
            shape = tuple(self.pick(SIZES) for _ in range(dims))
            if least <= math.prod(shape) <= most:
                return shape
        return (*(1 for _ in range(dims - 1)), least + 3)

    def any_shape(self) -> tuple[int, ...]:
        """Now and then empty, small or very large."""
        kind = self.rng.random()
        dims = self.whole(1, 4)
        if kind < 0.04:
            return (*(self.pick(SIZES[:6]) for _ in range(dims - 1)), 0)
        if kind < 0.12:
            return self.shape(dims, 1, 1100)
        if kind < 0.17:
            return self.pick(((211_003,), (643, 401), (3, 90_001), (70_001, 3), (500, 7, 103)))
        return self.shape(dims) if kind < 0.6 else self.shape(dims, 8193)

    def float_type(self) -> str:
        return self.pick((*WIDE, "float32", "float32", "float32", *NARROW))

    def real(self, shape: Sequence[int], dtype: str | None = None, grad: bool | None = None,
             special: bool = False, positive: bool = False, layout: bool = True,
             scale: float = 1.0) -> int:
        """Adds floats; returns their place among the inputs."""
        dtype = self.float_type() if dtype is None else dtype
        stored, views = self.layout(tuple(shape)) if layout else (tuple(shape), ())
        values = self.rng.standard_normal(stored) * scale
        values = np.abs(values) + 0.1 if positive else values
        if special and values.size:
            count = self.whole(1, 1 + min(values.size // 3, 40))
            values.reshape(-1)[self.rng.integers(values.size, size=count)] = [
                self.pick(SPECIAL) for _ in range(count)]
        kind = "float64" if dtype == "float64" else "float32"
        with np.errstate(all="ignore"):
            values = values.astype(kind)
        wants = self.chance(0.7) if grad is None else grad
        return self._add(Input(values, dtype, views, wants))

    def ints(self, shape: Sequence[int], high: int, low: int = 0, dtype: str = "int64",
             layout: bool = True) -> int:
        """Adds whole numbers from low to high - 1."""
        stored, views = self.layout(tuple(shape)) if layout else (tuple(shape), ())
        return self._add(Input(self.rng.integers(low, max(high, low + 1), stored).astype(
            np.int64), dtype, views))

    def bools(self, shape: Sequence[int]) -> int:
        stored, views = self.layout(tuple(shape))
        return self._add(Input(self.rng.random(stored) < 0.6, "bool", views))

    def _add(self, made: Input) -> int:
        self.inputs.append(made)
        return len(self.inputs) - 1

    def layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
        """The shape that is stored, and the views that lead from it to `shape`."""
        kind = self.pick(_LAYOUTS)
        n = len(shape)
        if kind == "turned" and n > 1:
            order = [int(i) for i in self.rng.permutation(n)]
            return tuple(shape[i] for i in order), (("permute", tuple(
                int(i) for i in np.argsort(order))),)
        if kind == "steps":
            steps = [self.pick((1, 1, 2, 3)) for _ in shape]
            return tuple(s * k for s, k in zip(shape, steps)), (
                ("index", tuple(slice(None, None, k) for k in steps)),)
        if kind == "inside":
            before = [self.pick((0, 0, 1, 3)) for _ in shape]
            return tuple(s + b + self.pick((0, 1)) for s, b in zip(shape, before)), (
                ("index", tuple(slice(b, b + s) for s, b in zip(shape, before))),)
        if kind == "spread" and 0 not in shape:
            kept = tuple(1 if self.chance(0.4) else s for s in shape)
            return kept, (("expand", shape),)
        if kind == "last" and n == 4:
            return (shape[0], *shape[2:], shape[1]), (("permute", (0, 3, 1, 2)),)
        return shape, ()


# --- pointwise --------------------------------------------------------------------------------

UNARY = ("neg", "abs", "exp", "expm1", "log1p", "tanh", "sigmoid", "sin", "cos", "erf", "square",
         "floor", "round", "sign", "relu", "reciprocal", "atan", "sinh", "asinh", "trunc", "exp2",
         "isnan_float", "erfc", "cosh", "tan", "ceil", "frac", "nan_to_num", "logit_of_sigmoid")
ACTIVATIONS = ("gelu", "silu", "softplus", "mish", "elu", "selu", "hardswish", "hardsigmoid",
               "leaky_relu", "relu6", "softsign", "tanhshrink", "logsigmoid", "celu", "hardtanh",
               "hardshrink", "softshrink")
POSITIVE = ("log", "log2", "log10", "sqrt", "rsqrt", "lgamma")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "atan2", "hypot", "logaddexp", "fmax",
          "fmin", "copysign")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
INTEGER = ("add", "mul", "maximum", "minimum")


def _unary(fw: Any, name: str, x: Any) -> Any:
    if name == "isnan_float":
        return x.isnan().to(x.dtype)
    if name == "logit_of_sigmoid":
        return x.tanh().mul(0.4).add(0.5).logit()
    if name in ACTIVATIONS:
        return getattr(fw.nn.functional, name)(x)
    if name in POSITIVE:
        return getattr(x.abs() + 0.5, name)()
    return getattr(x, name)()


def pointwise(d: Draw) -> Run:
    """A chain of operations on one to three tensors that broadcast."""
    shape = d.any_shape()
    dtype = d.float_type()
    special = d.chance(0.3)
    d.real(shape, dtype, special=special)
    for _ in range(d.whole(0, 2)):
        other = tuple(1 if d.chance(0.25) else n for n in shape)[d.whole(0, len(shape) - 1):]
        d.real(other, d.pick((dtype, dtype, dtype, d.float_type())), special=special)
    steps = [_step(d) for _ in range(d.whole(1, 4))]

    def run(fw: Any, tensors: list[Any]) -> Any:
        x = tensors[0]
        for k, step in enumerate(steps):
            x = step(fw, x, tensors[k % len(tensors)])
        return x
    return run


def _step(d: Draw) -> Run:
    kind, number = d.rng.random(), d.number()
    name = d.pick(UNARY + ACTIVATIONS + POSITIVE)
    if kind < 0.5:
        return lambda fw, x, y: _unary(fw, name, x)
    if kind < 0.7:
        pair = d.pick(BINARY)
        return lambda fw, x, y: getattr(fw, pair)(*fw.broadcast_tensors(x, y)) if pair in (
            "hypot", "atan2") and x.dtype != y.dtype else getattr(fw, pair)(x, y)
    if kind < 0.8:
        op = d.pick(("add", "mul", "sub", "div", "pow"))
        return lambda fw, x, y: getattr(x.abs() if op == "pow" else x, op)(number)
    if kind < 0.87:
        low, high = sorted((d.number(), d.number() + 0.7))
        bounds = d.pick(((low, high), (low, None), (None, high)))
        return lambda fw, x, y: x.clamp(*bounds)
    return _mixed_step(d, number)


def _mixed_step(d: Draw, number: float) -> Run:
    """Conditions, in-place writes, fused products."""
    kind, compare = d.whole(0, 4), d.pick(COMPARE)
    if kind == 0:
        return lambda fw, x, y: fw.where(getattr(y, compare)(number), x, y)
    if kind == 1:
        return lambda fw, x, y: x.clone().mul_(number).add_(number)
    if kind == 2:
        return lambda fw, x, y: x.masked_fill(getattr(y, compare)(number), number)
    if kind == 3:
        return lambda fw, x, y: fw.lerp(x, y.to(x.dtype), 0.3)
    return lambda fw, x, y: fw.addcmul(x, y.to(x.dtype), y.to(x.dtype), value=number)


def single(d: Draw) -> Run:
    """One operation on one tensor with special values."""
    name = d.pick(UNARY + ACTIVATIONS + POSITIVE)
    d.real(d.any_shape(), special=True)
    return lambda fw, tensors: _unary(fw, name, tensors[0])


def integers(d: Draw) -> Run:
    """Whole numbers and bools."""
    shape, kinds = d.any_shape(), ("int64", "int32", "uint8", "bool", "int16", "int8")
    a, b = d.pick(kinds[:3]), d.pick(kinds)
    d.ints(shape, 200 if a == "uint8" else 1000, 0 if a == "uint8" else -1000, a)
    d.ints(shape, 2 if b == "bool" else 100, 0, b)
    name, compare, how = d.pick(INTEGER), d.pick(COMPARE), d.whole(0, 5)
    dim = d.whole(-1, len(shape) - 1)

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, y = tensors
        z = getattr(fw, name)(x, y)
        if how == 0:
            return z, getattr(x, compare)(y)
        if how == 1:
            return z.sum(dim), z.float() * 0.5
        if how == 2:
            return fw.where(getattr(x, compare)(3), x, y), z.abs()
        if how == 3:
            return z.float().exp2().nan_to_num(), x.bool() & y.bool(), z.to(fw.int32)
        if how == 4:
            return z + 1.5, z * 2, (z > 3).sum(dim), (z > 3).any(dim)
        return x.clone().add_(3), x == y, z.float().mean()
    return run


def out_arguments(d: Draw) -> Run:
    """out= into given memory, in-place operators, writes through views."""
    shape, dtype = d.shape(2), d.pick(WIDE)
    for _ in range(3):
        d.real(shape, dtype, grad=False)
    name, flavour = d.pick(("exp", "tanh", "sigmoid", "neg")), d.whole(0, 3)

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, y, z = tensors
        z = z.clone()
        if flavour == 0:
            getattr(fw, name)(x, out=z)
        elif flavour == 1:
            fw.add(x, y, alpha=0.3, out=z.t().t())
        elif flavour == 2:
            z[:, ::2].copy_(x[:, ::2]).mul_(2.5)
        else:
            z.t().sub_(x.t()).div_(3.0)
        return z, x, y
    return run


# --- reductions -------------------------------------------------------------------------------

REDUCTIONS = ("sum", "mean", "amax", "amin", "var", "std", "prod", "logsumexp", "norm", "argmax",
              "argmin", "max", "min", "median", "any", "all", "var_mean", "count_nonzero")
_ONE_DIM = ("argmax", "argmin", "max", "min", "median", "prod")


def reduction(d: Draw) -> Run:
    """One reduction, after and before a pointwise operation."""
    shape, name = d.any_shape(), d.pick(REDUCTIONS)
    if 0 in shape and name not in ("sum", "mean", "prod", "any", "all"):
        shape = tuple(max(n, 1) for n in shape)
    d.real(shape, special=d.chance(0.15), scale=0.1 if name == "prod" else 1.0)
    n = len(shape)
    dims: Any = sorted(int(i) for i in d.rng.permutation(n)[:d.whole(1, n)])
    keep, before = d.chance(0.4), d.pick((None, "exp", "abs", "square", "isfinite_only"))
    if name in (*_ONE_DIM, "any", "all") or (name == "norm" and n > 2):
        dims = dims[0]
    everything = d.chance(0.25) and name not in ("logsumexp", "norm", "median")

    def run(fw: Any, tensors: list[Any]) -> Any:
        x = tensors[0]
        if before == "isfinite_only":
            x = fw.where(x.isfinite(), x, fw.zeros_like(x))
        elif before and name not in ("median",):
            x = getattr(x, before)()
        if everything:
            return getattr(fw, name)(x)
        if name == "count_nonzero":
            return fw.count_nonzero(x, dims), x.sum(dims) * 0.5
        if name == "norm":
            return x.norm(dim=dims, keepdim=keep)
        return getattr(fw, name)(x, dims, keepdim=keep)
    return run


def softmax(d: Draw) -> Run:
    shape = d.any_shape()
    d.real(shape, special=d.chance(0.1), scale=3.0)
    dim, name = d.whole(-1, len(shape) - 1), d.pick(("softmax", "log_softmax", "softmin"))
    return lambda fw, tensors: getattr(fw.nn.functional, name)(tensors[0], dim=dim)


def norms(d: Draw) -> Run:
    """layer, rms, batch, group and instance normalisation."""
    kind, dtype = d.pick(("layer", "rms", "batch", "group", "instance", "local")), d.pick(
        (*WIDE, "float32", *NARROW))
    if kind in ("layer", "rms"):
        shape = d.shape(d.whole(2, 3))
        inner = shape[-1:] if d.chance(0.7) else shape[-2:]
        d.real(shape, dtype, layout=False)  # of a constant row all digits cancel
        affine = d.chance(0.7)
        d.real(inner, dtype)
        d.real(inner, dtype)
        eps = d.pick((1e-5, 1e-3))

        def rows(fw: Any, tensors: list[Any]) -> Any:
            x, w, b = tensors
            w, b = (w, b) if affine else (None, None)
            if kind == "rms":
                return fw.nn.functional.rms_norm(x, inner, w, eps)
            return fw.nn.functional.layer_norm(x, inner, w, b, eps)
        return rows
    groups = d.pick((1, 2, 4))
    shape = (d.pick((2, 3, 7)), groups * d.pick((1, 3, 4, 8)), *d.pick(((65,), (17, 9), (8, 16))))
    training, momentum = d.chance(0.6), d.pick((0.1, 0.3))
    dtype = dtype if dtype in WIDE else "float32"
    d.real(shape, dtype)
    for positive in (False, False, False, True):
        d.real(shape[1:2], dtype, grad=None if len(d.inputs) < 3 else False, positive=positive,
               layout=False)

    def channels(fw: Any, tensors: list[Any]) -> Any:
        x, w, b, mean, var = tensors
        f = fw.nn.functional
        if kind == "group":
            return f.group_norm(x, groups, w, b)
        if kind == "instance":
            return f.instance_norm(x, weight=w, bias=b)
        if kind == "local":
            return f.local_response_norm(x, 3)
        mean, var = mean.clone(), var.clone()
        return f.batch_norm(x, mean, var, w, b, training, momentum), mean, var
    return channels


# --- losses -----------------------------------------------------------------------------------

PAIRS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss",
         "binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss",
         "cosine_embedding_loss", "gaussian_nll_loss")


def loss(d: Draw) -> Run:
    reduction_of = d.pick(("mean", "sum", "none"))
    dtype = d.pick((*WIDE, "float32"))
    if d.chance(0.5):
        return _class_loss(d, reduction_of, dtype)
    name, shape = d.pick(PAIRS), d.shape(2)
    d.real(shape, dtype)
    d.real(shape, dtype)

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, y = tensors
        f = getattr(fw.nn.functional, name)
        if name == "cosine_embedding_loss":
            return f(x, y, (y[:, 0] > 0).to(y.dtype) * 2 - 1, reduction=reduction_of)
        if name == "gaussian_nll_loss":
            return f(x, y, y.abs() + 0.1, reduction=reduction_of)
        if name == "soft_margin_loss":
            return f(x, y.detach().sign(), reduction=reduction_of)
        if name.startswith("binary"):
            x = x.sigmoid() if name == "binary_cross_entropy" else x
            return f(x, y.detach().sigmoid(), reduction=reduction_of)
        if name == "kl_div":
            return f(x, y.abs() + 0.1, reduction=reduction_of)
        return f(x, y, reduction=reduction_of)
    return run


def _class_loss(d: Draw, reduction_of: str, dtype: str) -> Run:
    classes, extra = d.pick((2, 10, 17, 65)), d.pick(((), (), (5,), (4, 9)))
    n = d.pick((1, 3, 33, 130, 257))
    d.real((n, classes, *extra), dtype)
    d.ints((n, *extra), classes)
    d.real((classes,), dtype, grad=False, positive=True)
    weighted, smooth = d.chance(0.3), d.pick((0.0, 0.0, 0.1))
    ignore = d.pick((-100, -100, 1))

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, target, weight = tensors
        return fw.nn.functional.cross_entropy(
            x, target, weight if weighted else None, reduction=reduction_of, ignore_index=ignore,
            label_smoothing=smooth)
    return run


# --- products ---------------------------------------------------------------------------------


def product(d: Draw) -> Run:
    """mm, bmm, linear, addmm, baddbmm, matmul by broadcasting, einsum."""
    dtype = d.float_type()
    m, k, n = (d.pick(SIZES) for _ in range(3))
    if d.chance(0.05):
        m, k, n = d.pick(((0, k, n), (m, 0, n), (m, k, 0)))
    batch = d.pick((1, 2, 5))
    kind = d.pick(("mm", "bmm", "linear", "addmm", "baddbmm", "matmul", "mv", "einsum", "dot"))
    lead = {"bmm": (batch,), "baddbmm": (batch,), "matmul": (batch, 2)}.get(kind, ())
    d.real((*lead, m, k), dtype)
    right = {"linear": (n, k), "mv": (k,), "dot": (k,), "matmul": (k, n)}.get(kind, (*lead, k, n))
    d.real(right, dtype)
    d.real(d.pick(((n,), (*lead, m, n), (1, n))), dtype)
    beta, alpha = d.pick((1, 1, 0, 0.5)), d.pick((1, 1, 2, -0.7))
    biased = d.chance(0.6)

    def run(fw: Any, tensors: list[Any]) -> Any:
        a, b, c = tensors
        if kind == "linear":
            return fw.nn.functional.linear(a, b, c.reshape(-1)[:n] if biased else None)
        if kind in ("addmm", "baddbmm"):
            return getattr(fw, kind)(c, a, b, beta=beta, alpha=alpha)
        if kind == "einsum":
            return fw.einsum("ij,jk->ki", a, b)
        if kind == "dot":
            return fw.dot(a[0] if m else b, b)
        return getattr(fw, "matmul" if kind == "mv" else kind)(a, b)
    return run


def convolution(d: Draw) -> Run:
    dims, turned = d.whole(1, 3), d.chance(0.3)
    groups = d.pick((1, 1, 1, 2, 4))
    cin, cout = groups * d.pick((1, 2, 3, 8, 16)), groups * d.pick((1, 2, 5, 16))
    if d.chance(0.15):
        groups = cin
        cout = cin * d.pick((1, 2))
    kernel = tuple(d.pick((1, 2, 3, 3, 5)) for _ in range(dims))
    size = tuple(k + d.pick(((9, 30, 63), (4, 9, 15), (2, 5))[dims - 1]) for k in kernel)
    stride = tuple(d.pick((1, 1, 2, 3)) for _ in range(dims))
    dilation = tuple(d.pick((1, 1, 1, 2)) for _ in range(dims))
    padding: Any = tuple(d.whole(0, k // 2 + 1) for k in kernel)
    if not turned and d.chance(0.15) and set(stride) == {1}:
        padding = d.pick(("same", "valid"))
    more = tuple(d.whole(0, max(s, 1) - 1) for s in stride)
    dtype = d.pick((*WIDE, "float32", "float32", "bfloat16"))
    d.real((d.pick((1, 2, 5)), cin, *size), dtype)
    d.real((cin, cout // groups, *kernel) if turned else (cout, cin // groups, *kernel), dtype)
    d.real((cout,), dtype)
    biased = d.chance(0.6)

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, w, b = tensors
        b = b if biased else None
        f = fw.nn.functional
        if turned:
            return getattr(f, f"conv_transpose{dims}d")(
                x, w, b, stride, padding, more, groups, dilation)
        return getattr(f, f"conv{dims}d")(x, w, b, stride, padding, dilation, groups)
    return run


def pooling(d: Draw) -> Run:
    dims = d.whole(1, 3)
    kind = d.pick(("max", "avg", "adaptive_avg", "adaptive_max", "lp"))
    dims = min(dims, 2) if kind == "lp" else dims
    size = tuple(d.pick((7, 16, 17, 33)) if dims < 3 else d.pick((5, 8)) for _ in range(dims))
    kernel = tuple(d.pick((1, 2, 3)) for _ in range(dims))
    stride = tuple(d.pick((1, 2, 3)) for _ in range(dims))
    padding = tuple(d.whole(0, k // 2) for k in kernel)
    wanted = tuple(d.pick((1, 3, 5)) for _ in range(dims))
    ceil, include = d.chance(0.3), d.chance(0.5)
    dilation = d.pick((1, 1, 2))
    d.real((d.pick((1, 2, 5)), d.pick((1, 3, 8)), *size), d.pick((*WIDE, "float32")))

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, f = tensors[0], fw.nn.functional
        if kind == "max":
            return getattr(f, f"max_pool{dims}d")(x, kernel, stride, padding, dilation, ceil,
                                                  return_indices=True)
        if kind == "avg":
            return getattr(f, f"avg_pool{dims}d")(x, kernel, stride, padding, ceil, include)
        if kind == "lp":
            return getattr(f, f"lp_pool{dims}d")(x.abs() + 0.1, 2.0, kernel if dims > 1 else
                                                 kernel[0], stride if dims > 1 else stride[0])
        return getattr(f, f"{kind}_pool{dims}d")(x, wanted)
    return run


def interpolate(d: Draw) -> Run:
    dims = d.whole(1, 3)
    modes = [("nearest", "linear"), ("nearest", "bilinear", "bicubic", "nearest-exact"),
             ("nearest", "trilinear")][dims - 1]
    mode = d.pick((*modes, "area"))
    size = tuple(d.pick((7, 16, 17)) if dims < 3 else d.pick((4, 6)) for _ in range(dims))
    wanted = tuple(d.pick((1, 5, 16, 31)) if dims < 3 else d.pick((3, 9)) for _ in range(dims))
    align = d.chance(0.5) if mode.endswith(("linear", "cubic")) else None
    d.real((d.pick((1, 2)), d.pick((1, 3, 8)), *size), d.pick((*WIDE, "float32")))
    return lambda fw, tensors: fw.nn.functional.interpolate(
        tensors[0], wanted, mode=mode, align_corners=align)


def attention(d: Draw) -> Run:
    batch, heads, dtype = d.pick((1, 2)), d.pick((2, 4)), d.pick((*WIDE, "float32", "bfloat16"))
    length, other = (d.pick((1, 7, 16, 33, 65, 130)) for _ in range(2))
    size, value_size = d.pick((8, 16, 17, 64)), d.pick((8, 16, 33))
    mask = d.pick((None, None, "bool", "float", "causal"))
    grouped = mask in (None, "causal") and d.chance(0.3)
    turned = d.chance(0.4)
    for n, s, h in ((length, size, heads), (other, size, heads // 2 if grouped else heads),
                    (other, value_size, heads // 2 if grouped else heads)):
        shape = (batch, n, h, s) if turned else (batch, h, n, s)
        d.real(shape, dtype, layout=d.chance(0.3))
    if mask == "bool":
        d.bools(d.pick(((length, other), (batch, 1, 1, other))))
    if mask == "float":
        d.real((length, other), dtype)
    scale = d.pick((None, None, 0.3))

    def run(fw: Any, tensors: list[Any]) -> Any:
        q, k, v = (t.transpose(1, 2) if turned else t for t in tensors[:3])
        more = {"enable_gqa": True} if grouped else {}
        return fw.nn.functional.scaled_dot_product_attention(
            q, k, v, tensors[3] if mask in ("bool", "float") else None,
            is_causal=mask == "causal", scale=scale, **more)
    return run


# --- indices, scans, joins --------------------------------------------------------------------


def indexing(d: Draw) -> Run:
    kind = d.pick(("embedding", "gather", "scatter_add", "index_add", "index_select", "take",
                   "masked", "bag", "onehot", "scatter"))
    dtype = d.pick((*WIDE, "float32", "bfloat16", "int64"))
    shape = d.shape(d.whole(1, 3), 1024)
    dim = d.whole(0, len(shape) - 1)
    count = d.pick((0, 1, 5, 33, 70))
    if dtype == "int64":
        d.ints(shape, 100)
    else:
        d.real(shape, dtype)
    like = tuple(count if i == dim else n for i, n in enumerate(shape))
    width, rows = d.pick((1, 7, 33, 64)), d.pick((1, 5, 65))
    d.ints(like if kind in ("gather", "scatter_add", "scatter") else (count,), shape[dim])
    d.real(like, dtype if dtype != "int64" else "float32")
    d.real((rows, width), dtype if dtype in WIDE else "float32")
    d.ints((d.pick((3, 40)), d.pick((1, 31))), rows)
    pad = d.pick((None, None, 0))

    def run(fw: Any, tensors: list[Any]) -> Any:
        x, index, source, table, words = tensors
        if kind == "embedding":
            return fw.nn.functional.embedding(words, table, pad)
        if kind == "bag":
            return fw.nn.functional.embedding_bag(words, table, mode="mean")
        if kind in ("scatter_add", "index_add", "scatter"):
            return getattr(x, kind)(dim, index, source.to(x.dtype))
        if kind == "take":
            return fw.take(x, index % max(x.numel(), 1))
        if kind == "masked":
            return x[x > 0], x.flip(0)
        if kind == "onehot":
            return fw.nn.functional.one_hot(words, rows), x.roll(2, dim)
        return getattr(fw, kind)(x, dim, index)
    return run


def scans(d: Draw) -> Run:
    name = d.pick(("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "topk", "sort",
                   "argsort", "kthvalue", "diff"))
    shape = d.any_shape() if name in ("cumsum", "cummax", "cummin") else d.shape(d.whole(1, 3))
    if d.chance(0.2) and name not in ("logcumsumexp", "cumprod"):
        d.ints(shape, 1000, -1000, d.pick(("int64", "int32")))
    else:
        d.real(shape, special=d.chance(0.15) and name in ("cumsum", "cummax", "cummin", "topk"),
               scale=0.3)
    dim = d.whole(-1, len(shape) - 1)
    k, largest = d.whole(1, max(shape[dim], 1)), d.chance(0.5)

    def run(fw: Any, tensors: list[Any]) -> Any:
        x = tensors[0]
        if name == "topk":
            return fw.topk(x, k, dim, largest)[0]
        if name in ("sort", "argsort"):
            return getattr(fw, name)(x, dim=dim, descending=largest, stable=True)
        if name == "kthvalue":
            return fw.kthvalue(x, k, dim)[0]
        return getattr(fw, name)(x, dim=dim)
    return run


def joins(d: Draw) -> Run:
    kind = d.pick(("cat", "stack", "clone", "contiguous", "repeat", "pad", "where", "to", "tril"))
    shape, dtype = d.shape(d.whole(2, 4)), d.float_type()
    dim = d.whole(0, len(shape) - 1)
    for _ in range(3):
        other = list(shape)
        if kind == "cat":
            other[dim] = d.pick((0, 1, 5, 17))
        d.real(other, d.pick((dtype, dtype, dtype, d.float_type())))
    turn = tuple(int(i) for i in d.rng.permutation(len(shape)))
    last = d.chance(0.4) and len(shape) == 4
    target = d.pick(("float32", "float64", "bfloat16", "float16", "int64", "bool"))

    def run(fw: Any, tensors: list[Any]) -> Any:
        x = tensors[0]
        form = {"memory_format": fw.channels_last} if last else {}
        if kind in ("cat", "stack"):
            return getattr(fw, kind)(tensors, dim)
        if kind == "clone":
            return x.permute(turn).clone(**form)
        if kind == "contiguous":
            return x.permute(turn).contiguous(**form)
        if kind == "repeat":
            return x.repeat(*(2 for _ in shape)), x.permute(turn).reshape(-1)
        if kind == "pad":
            return fw.nn.functional.pad(x, (1, 2), value=1.5)
        if kind == "tril":
            return x.tril(1), x.triu(-1)
        if kind == "to":
            return x.permute(turn).to(getattr(fw, target))
        return fw.where(tensors[1] > 0, x, tensors[2])
    return run


# --- layers, optimizers, random numbers -------------------------------------------------------


def recurrent(d: Draw) -> Run:
    kind, dtype = d.pick(("LSTM", "GRU", "RNN")), d.pick((*WIDE, "float32"))
    inner, hidden = d.pick((3, 16, 33)), d.pick((5, 16, 65))
    options = {"num_layers": d.pick((1, 2)), "bidirectional": d.chance(0.4),
               "batch_first": d.chance(0.5), "bias": d.chance(0.8)}
    if kind == "LSTM" and d.chance(0.2):
        options["proj_size"] = d.pick((2, 4))
    if kind == "RNN":
        options["nonlinearity"] = d.pick(("tanh", "relu"))
    d.real((d.pick((1, 5, 9)), d.pick((1, 4, 33)), inner), dtype)

    def run(fw: Any, tensors: list[Any]) -> Any:
        layer = getattr(fw.nn, kind)(inner, hidden, **options).to(tensors[0].dtype)
        y, state = layer(tensors[0])
        return (y, *(state if kind == "LSTM" else (state,)))
    return run


OPTIMIZERS = {
    "SGD": ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            {"momentum": 0.5, "dampening": 0.3, "maximize": True}),
    "Adam": ({}, {"amsgrad": True}, {"weight_decay": 0.1, "maximize": True}),
    "AdamW": ({}, {"amsgrad": True}, {"maximize": True}), "Adamax": ({}, {"weight_decay": 0.1}),
    "NAdam": ({}, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    "RAdam": ({}, {"weight_decay": 0.1}), "Rprop": ({}, {"maximize": True}),
    "RMSprop": ({}, {"centered": True, "momentum": 0.9}, {"weight_decay": 0.1}),
    "Adagrad": ({}, {"lr_decay": 0.1, "weight_decay": 0.1}), "Adadelta": ({}, {"maximize": True}),
    "ASGD": ({}, {"weight_decay": 0.1}), "Adafactor": ({}, {"weight_decay": 0.1}),
}


def optimizer(d: Draw) -> Run:
    name = d.pick(sorted(OPTIMIZERS))
    options, dtype = d.pick(OPTIMIZERS[name]), d.pick((*WIDE, "float32", "bfloat16"))
    steps = d.whole(1, 4)
    for shape in (d.shape(2), d.shape(1, 1024, 9000)):
        d.real(shape, dtype, grad=False, layout=False)
        d.real(shape, dtype, grad=False)

    def run(fw: Any, tensors: list[Any]) -> Any:
        parameters = [t.clone().requires_grad_() for t in tensors[::2]]
        made = getattr(fw.optim, name)(parameters, lr=0.01, **options)
        for step in range(steps):
            for p, g in zip(parameters, tensors[1::2]):
                p.grad = g.clone() * (1.0 - 0.4 * step)
            made.step()
        return [p.detach() for p in parameters]
    return run


def dropout(d: Draw) -> Run:
    shape = d.any_shape()
    d.real(shape, d.pick((*WIDE, "float32")))
    p, kind = d.pick((0.0, 0.1, 0.5, 1.0)), d.pick(("dropout", "alpha_dropout", "randn", "rand"))

    def run(fw: Any, tensors: list[Any]) -> Any:
        x = tensors[0]
        if kind in ("randn", "rand"):
            return getattr(fw, kind)(shape, dtype=x.dtype) + x
        return getattr(fw.nn.functional, kind)(x, p, training=True)
    return run


RECIPES = {f.__name__: f for f in (
    pointwise, single, integers, out_arguments, reduction, softmax, norms, loss, product,
    convolution, pooling, interpolate, attention, indexing, scans, joins, recurrent, optimizer,
    dropout)}
_OFTEN = ("pointwise", "pointwise", "reduction", "product", "convolution")


def random_program(seed: int, name: str | None = None) -> Program:
    """The program of a seed, of one recipe if it is named."""
    d = Draw(seed)
    name = d.pick((*RECIPES, *_OFTEN)) if name is None else name
    return Program(name, d.inputs, RECIPES[name](d), seed)

"""Random operators: tensors filled in place, factories, draws with a parameter per element.

Each distribution is one leaf whose first argument is the tensor to be filled: it gives shape,
dtype and the order in memory, in which PyTorch consumes its stream.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..debug.knobs import knobs
from ..runtime import random as draws
from ..runtime import rejection
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor import devices
from ..tensor.dtype import (
    BOOL,
    COMPLEX,
    FLOAT,
    INT,
    dtype,
    finfo,
    float32,
    float64,
    get_default_dtype,
    int64,
)
from ..tensor.names import scalar_type
from ..tensor.strides import memory_order
from ..tensor.tensor import INFERENCE, Tensor, wrap
from .creation import check_dtype, empty_like, make, zeros_like
from .errors import argument_type, broadcast_mismatch, not_implemented_for
from .families import Array
from .forms import check_overlap, check_writable, deliver, write
from .generator import stream_of
from .record import Leaf, leaf, not_differentiable, op, same_shape
from .view import as_size

__all__ = ["bernoulli_like"]

_C_NAMES = {"float16": "c10::Half", "bfloat16": "c10::BFloat16", "float32": "float",
            "float64": "double", "int8": "signed char", "uint8": "unsigned char",
            "int16": "short", "int32": "int", "int64": "int64_t", "bool": "bool",
            "uint16": "unsigned short", "uint32": "unsigned int", "uint64": "unsigned long"}
_WIDE_UNSIGNED = ("uint16", "uint32", "uint64")
_MANTISSA = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# The names by which PyTorch's messages call the kernels.
_UNIFORM_KERNEL, _NORMAL_KERNEL = "check_uniform_bounds", "normal_kernel_cpu"
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


# --- leaves ---------------------------------------------------------------------------------------


@cache
def _largest_float(d: dtype) -> float:
    return finfo(d).max


def _nothing(g: Any) -> Any:
    """What was overwritten has no influence, whatever gradient arrives (inf and nan too)."""
    return zeros_like(g)


_OVERWRITTEN = {"input": _nothing}


_SERVICE = __package__.removesuffix("ops") + "codegen.service"
_mersenne: Any = None  # the module, once it is wanted


def _kernels(count: int) -> Any:
    """The functions that draw `count` values by kernels; None where no kernels are wanted.

    Few values are not worth the start of the kernels, which takes some hundredths of a second.
    """
    global _mersenne
    if knobs.kernels == "off":
        return None
    if _mersenne is None and (count >= 4096 or _SERVICE in sys.modules):
        from ..codegen import mersenne as _mersenne
    return _mersenne


draws.draw_by(_kernels)


def _in_order(flat: Array, like: Array) -> Array:
    """`flat` as an array with the shape of `like`, filled in the order of its memory."""
    if like.ndim < 2 or like.flags.c_contiguous:
        return flat.reshape(like.shape)
    order = memory_order(like)
    return flat.reshape([like.shape[d] for d in order]).transpose(np.argsort(order))


def _fill(input: Array, draw: Any, *parameters: Any) -> Array:
    """`draw(count, *parameters, dtype)` in the shape of `input`; complex numbers take two each."""
    if input.dtype.kind != "c":
        return _in_order(draw(input.size, *parameters, input.dtype), input)
    real = np.empty(0, input.dtype).real.dtype
    return _in_order(draw(2 * input.size, *parameters, real).view(input.dtype), input)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True)
def _uniform(input: Array, low: float, high: float, generator: Any) -> Array:
    stream = stream_of(generator, "uniform_")
    return _fill(input, lambda *a: draws.uniform(stream, *a), low, high)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True)
def _normal(input: Array, mean: float, std: float, generator: Any) -> Array:
    stream = stream_of(generator, "normal_")
    std = std / math.sqrt(2.0) if input.dtype.kind == "c" else std
    dense = bool(input.flags.c_contiguous)
    return _fill(input, lambda *a: draws.normal(stream, *a, contiguous=dense), mean, std)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True, node="RandomBackward0")
def _random(input: Array, low: int | None, high: int | None, generator: Any) -> Array:
    stream = stream_of(generator, "random_")
    if low is None:
        return _fill(input, lambda *a: draws.random_any(stream, *a))
    if high is None:
        return _fill(input, lambda *a: draws.random_64(stream, *a))
    return _fill(input, lambda *a: draws.randint(stream, *a), low, high)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True, node="BernoulliBackward2")
def _bernoulli(input: Array, p: float, generator: Any) -> Array:
    """Ones with probability `p`, zeros else."""
    stream = stream_of(generator, "bernoulli_")
    return _fill(input, lambda *a: draws.bernoulli(stream, *a), p)


def _overwriting(name: str, draw: Any) -> Leaf:
    """A leaf of a distribution with number parameters, which `draw` of the streams implements."""

    def kernel(input: Array, parameters: tuple[float, ...], generator: Any) -> Array:
        stream = stream_of(generator, name + "_")
        return _fill(input, lambda *a: draw(stream, *a), *parameters)
    kernel.__doc__ = f"Values of the {name} distribution."
    return leaf(_OVERWRITTEN, shape=same_shape, exact=True, name=name)(kernel)


_exponential = _overwriting("exponential", draws.exponential)
_geometric = _overwriting("geometric", draws.geometric)
_cauchy = _overwriting("cauchy", draws.cauchy)
_log_normal = _overwriting("log_normal", draws.log_normal)


@leaf({"input": _nothing, "p": _nothing}, shape=same_shape, exact=True, broadcasts=True,
      node="BernoulliBackward1", name="bernoulli_each")
def _bernoulli_each(input: Array, p: Array, generator: Any) -> Array:
    """Ones with the probabilities `p`, broadcast to the shape of `input`."""
    order = memory_order(input)
    flat = np.broadcast_to(p, input.shape).transpose(order).reshape(-1)
    if not ((flat >= 0) & (flat <= 1)).all():
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false: bernoulli "
                           "received probabilities outside [0, 1]")
    values = draws.bernoulli_each(stream_of(generator, "bernoulli"), flat, input.dtype)
    return _in_order(values, input)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True, node="BernoulliBackward0", name="bernoulli_of")
def _bernoulli_of(input: Array, generator: Any) -> Array:
    """Ones with the probabilities `input`."""
    return _bernoulli_each.kernel(np.empty(input.shape, input.dtype), input, generator)


@leaf(_OVERWRITTEN, shape=same_shape, exact=True, name="poisson")
def _poisson(input: Array, generator: Any) -> Array:
    values = rejection.poisson(stream_of(generator, "poisson"), input.reshape(-1))
    return values.reshape(input.shape)


@leaf(not_differentiable("counts have no gradient"), exact=True, name="binomial")
def _binomial(count: Array, prob: Array, generator: Any) -> Array:
    shape = np.broadcast_shapes(count.shape, prob.shape)
    pairs = [np.broadcast_to(x, shape).reshape(-1) for x in (count, prob)]
    return rejection.binomial(stream_of(generator, "binomial"), *pairs).reshape(shape)


def _sample_shape(input: Any, samples: int, *_: Any) -> Any:
    return (*input.shape[:-1], samples), np.dtype(np.int64)


@leaf(not_differentiable("the result is indices"), shape=_sample_shape, exact=True,
      name="multinomial")
def _multinomial(input: Array, samples: int, replacement: bool, generator: Any) -> Array:
    rows = input.reshape(-1, input.shape[-1])
    _check_weights(rows)
    # A single draw needs no replacement, and PyTorch takes it by the cheaper race.
    draw = draws.multinomial if replacement and samples > 1 else draws.multinomial_distinct
    picked = draw(stream_of(generator, "multinomial"), rows, samples)
    return picked.reshape(*input.shape[:-1], samples)


def _check_weights(rows: Array) -> None:
    if not ((rows >= 0) & (rows < np.inf)).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0: "
                           "multinomial() expects weights in [0, inf)")
    if (rows.sum(1) == 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0): every "
                           "row that multinomial() receives needs a weight above 0")


# --- in place -------------------------------------------------------------------------------------


def _overwrite(self: Tensor, name: str, drawing: Leaf, *attrs: Any) -> Tensor:
    """Fills `self` with what `drawing` gives."""
    check_writable(self, name)
    check_overlap(self, name)
    return write(self, drawing(self, *attrs), name)


def _needs_floats(self: Tensor, kernel: str, complex_too: bool = False) -> None:
    d = self._dtype
    if d.name not in _MANTISSA and not (complex_too and d.kind == COMPLEX):
        raise not_implemented_for(kernel, d)


def _needs_numbers(self: Tensor, kernel: str, bool_too: bool = True) -> None:
    d = self._dtype
    if d.name in _MANTISSA or (d.kind == BOOL and bool_too):
        return
    if d.kind != INT or d.name in _WIDE_UNSIGNED:
        raise not_implemented_for(kernel, d)


@op("Tensor")
def uniform_(self: Tensor, *args: Any, generator: Any = None, **named: Any) -> Tensor:
    """Fills the tensor with values from [`from`, `to`), [0, 1) if not given."""
    low, high = _two(args, named, ("from", 0.0), ("to", 1.0), "uniform_")
    _needs_floats(self, _UNIFORM_KERNEL, complex_too=True)
    _check_uniform(float(low), float(high), self._dtype.to_real())
    return _overwrite(self, "uniform_", _uniform, float(low), float(high), generator)


def _two(args: tuple[Any, ...], named: dict[str, Any], first: tuple[str, Any],
         second: tuple[str, Any], name: str) -> tuple[Any, Any]:
    """Two optional arguments, one of which has a name that is a keyword in Python."""
    slots = (first, second)
    if not named and len(args) < 3:
        return (args or (first[1],))[0], args[1] if len(args) == 2 else second[1]
    given = dict(zip((slot[0] for slot in slots), args, strict=False))
    extra = sorted(named.keys() - {slot[0] for slot in slots})
    if len(args) > 2 or extra or given.keys() & named.keys():
        raise TypeError(f"{name}() received an invalid combination of arguments: expected "
                        f"({first[0]}, {second[0]}), received {[*args, *sorted(named)]}")
    given.update(named)
    return given.get(*first), given.get(*second)


def _check_uniform(low: float, high: float, d: dtype) -> None:
    top = _largest_float(d)
    for value, label in ((low, "from"), (high, "to")):
        if not -top <= value <= top:
            raise RuntimeError(f"{label} is out of bounds for {_C_NAMES[d.name]}: uniform_() "
                               f"received {value}, the range is {-top} to {top}")
    if not low <= high:
        raise RuntimeError("uniform_ expects to return a [from, to) range, but found "
                           f"from={low:g} > to={high:g}")
    if high - low > top:
        raise RuntimeError(f"uniform_ expects to-from <= std::numeric_limits<{scalar_type(d)}>::"
                           f"max(), but found to={high:g} and from={low:g} which result in to-from "
                           "to exceed the limit")


@op("Tensor")
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills the tensor with normal values of the given mean and standard deviation."""
    _check_normal(self, std)
    return _overwrite(self, "normal_", _normal, float(mean), float(std), generator)


def _check_normal(self: Tensor, std: float) -> None:
    _check_std(std)
    _needs_floats(self, _NORMAL_KERNEL, complex_too=True)


def _check_std(std: float) -> None:
    if not std >= 0.0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")


@op("Tensor")
def random_(self: Tensor, *args: Any, generator: Any = None, **named: Any) -> Tensor:
    """Fills the tensor with integers from [`from`, `to`).

    `random_()` covers the dtype: [0, max] for integers, [0, 2**mantissa] for floats;
    `random_(to)` starts from 0; `to=None` means up to the largest number of the dtype.
    """
    if not args and not named:
        _needs_numbers(self, "random_kernel_cpu")
        return _overwrite(self, "random_", _random, None, None, generator)
    one = len(args) + len(named) == 1 and "from" not in named
    low, high = _two((0, *args) if one and args else args, named, ("from", 0), ("to", None),
                     "random_")
    for value in (low, high):
        if value is not None and not hasattr(value, "__index__"):
            raise TypeError("random_() received an invalid combination of arguments: 'from' and "
                            f"'to' must be ints, received {type(value).__name__}")
    bounds = _bounds(int(low), None if high is None else int(high), self._dtype)
    return _overwrite(self, "random_", _random, *bounds, generator)


def _bounds(low: int, high: int | None, d: dtype) -> tuple[int, int | None]:
    """[low, high), in bounds that the dtype can hold; high is None for all 64-bit integers."""
    _check_int64(low, high)
    if high is None and low == _INT64_MIN:
        if d not in (int64, float64) and d.name not in ("float32", "bfloat16"):
            raise not_implemented_for("random_full_64_bits_range_kernel_cpu", d,
                                      "it handles only int64, double, float and bfloat16")
        return low, None
    if d.kind == COMPLEX or d.name.startswith("float8"):
        raise RuntimeError("check_random_bounds handles only integral, floating-point and boolean "
                           f"types: random_() received {d}")
    low, high = _representable(low, _largest(d) + 1 if high is None else high, d)
    _check_in_range(low, high - 1, d)
    return low, high


def _check_int64(*bounds: int | None) -> None:
    for bound in bounds:
        if bound is not None and not _INT64_MIN <= bound <= _INT64_MAX:
            raise ValueError("Overflow when unpacking long long: random bounds must fit in 64 bits,"
                             f" received {bound}")


def _largest(d: dtype) -> int:
    """The largest integer that `random_(from, None)` draws."""
    if d.kind == FLOAT:
        return 1 << _MANTISSA[d.name]
    return 1 if d.kind == BOOL else min(int(np.iinfo(d.np).max), _INT64_MAX)


def _representable(low: int, high: int, d: dtype) -> tuple[int, int]:
    """Bounds moved inwards to numbers of a floating point dtype, so that rounding stays inside."""
    if low >= high:
        raise RuntimeError("random_ expects 'from' to be less than 'to', but got "
                           f"from={low} >= to={high}")
    if d.kind != FLOAT:
        return low, high
    digits = _MANTISSA[d.name]
    above, below = _rounded(low + 1, d), _rounded(high - 1, d)
    if above < low:
        low = above + (1 << max(abs(low + 1).bit_length() - digits, 0))
    if below >= high:
        high = below - (1 << max(abs(high - 1).bit_length() - digits, 0))
    if low >= high:
        raise RuntimeError("random_ expects 'from' casted to dtype to be less than 'to' casted to "
                           f"dtype, but got from={low} >= to={high}")
    return low, high


def _rounded(value: int, d: dtype) -> int:
    wide = np.float64(value) if d is float64 else np.float32(value)
    with np.errstate(over="ignore"):
        near = float(wide.astype(d.np))
    return int(near) if math.isfinite(near) else value


def _check_in_range(low: int, last: int, d: dtype) -> None:
    least, most = _range_of(d)
    for value, label in ((low, "from"), (last, "to - 1")):
        if not least <= value <= most:
            raise RuntimeError(f"{label} is out of bounds for {_C_NAMES[d.name]}: random_() "
                               f"received {value}, {d} holds {least:g} to {most:g}")
        if d.kind == FLOAT and abs(value) > 1 << _MANTISSA[d.name]:
            _warn_imprecise(label, d)


def _range_of(d: dtype) -> tuple[float, float]:
    if d.kind == BOOL:
        return 0, 1
    if d.kind == INT:
        info = np.iinfo(d.np)
        return int(info.min), min(int(info.max), _INT64_MAX)
    return -_largest_float(d), _largest_float(d)


def _warn_imprecise(label: str, d: dtype) -> None:
    import warnings

    from ..debug.frames import user_stack_level

    digits = _MANTISSA[d.name]
    warnings.warn(
        f"{label} is out of bounds [-(2^{digits}), 2^{digits}]. Due to precision limitations "
        f"{_C_NAMES[d.name]} can support discrete uniform distribution only within this range.",
        UserWarning, stacklevel=user_stack_level())


@op("Tensor")
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Fills the tensor with ones of probability `p` (a number or a tensor) and zeros."""
    if isinstance(p, Tensor):
        return _bernoulli_tensor(self, p, generator)
    _check_bernoulli(self, p)
    return _overwrite(self, "bernoulli_", _bernoulli, float(p), generator)


def _check_bernoulli(self: Tensor, p: float) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
    _needs_numbers(self, "bernoulli_scalar_cpu_")


def bernoulli_like(t: Tensor, p: float, generator: Any = None) -> Tensor:
    """A new tensor like `t` of ones with probability `p` and zeros."""
    _check_bernoulli(t, p)
    a = t._a
    if a.__class__ is np.ndarray and a.size <= _MOST_AT_ONCE and not (
            INFERENCE[0] or state.batcher is not None):
        return wrap(_bernoulli.kernel(a, float(p), generator), t._dtype)
    return _bernoulli(t, float(p), generator)


def _bernoulli_tensor(self: Tensor, p: Tensor, generator: Any) -> Tensor:
    _needs_numbers(self, "bernoulli_tensor_cpu_self_")
    _needs_floats(p, "bernoulli_tensor_cpu_p_")
    if p._a.shape != self._a.shape:
        p = p.expand(self._a.shape)
    return _overwrite(self, "bernoulli_", _bernoulli_each, p, generator)


@op("Tensor")
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills the tensor with exponential values of rate `lambd`."""
    if not lambd > 0.0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
    _needs_continuous(self, "Exponential")
    return _overwrite(self, "exponential_", _exponential, (float(lambd),), generator)


def _needs_continuous(self: Tensor, name: str) -> None:
    if self._dtype.name not in _MANTISSA:
        raise RuntimeError(f"{name} distribution is a continuous probability distribution. dtype "
                           f"must be a floating point but you specified {scalar_type(self._dtype)}")


@op("Tensor")
def geometric_(self: Tensor, p: float, *, generator: Any = None) -> Tensor:
    """Fills the tensor with numbers of trials up to the first success of probability `p`."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
    _needs_numbers(self, "geometric_cpu", bool_too=False)
    return _overwrite(self, "geometric_", _geometric, (float(p),), generator)


@op("Tensor")
def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *,
            generator: Any = None) -> Tensor:
    """Fills the tensor with Cauchy values."""
    if not sigma > 0.0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
    _needs_continuous(self, "Cauchy")
    return _overwrite(self, "cauchy_", _cauchy, (float(median), float(sigma)), generator)


@op("Tensor")
def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *,
                generator: Any = None) -> Tensor:
    """Fills the tensor with values whose logarithm is normal."""
    if not std > 0.0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
    _needs_floats(self, "log_normal_cpu")
    return _overwrite(self, "log_normal_", _log_normal, (float(mean), float(std)), generator)


# --- factories ------------------------------------------------------------------------------------


def _target(size: Any, out: Any, d: Any, device: Any, name: str) -> Tensor:
    """The tensor to fill: a new one, or `out` resized."""
    d = check_dtype(d, name)
    if out is None:
        return make(size, None, d, device, False, name)
    if d is not None and d is not out._dtype:
        raise RuntimeError(f"dtype {scalar_type(d)} does not match dtype of out parameter "
                           f"({scalar_type(out._dtype)}) in {name}()")
    shape = as_size(tuple(size), name)
    return out if out._a.shape == shape else out.resize_(shape)


def _draw(t: Tensor, out: Any, name: str, drawing: Leaf, *attrs: Any) -> Tensor:
    """What `drawing` gives: a new tensor like `t`, or `t` itself overwritten if it is an `out=`."""
    return drawing(t, *attrs) if out is None else _overwrite(t, name, drawing, *attrs)


_FLOATS = (float32, float64)
_MOST_AT_ONCE = 1 << 16  # elements


def _drawn(size: tuple[Any, ...], d: dtype, device: Any, drawing: Leaf, *attrs: Any
           ) -> Tensor | None:
    """A small tensor of plain sizes, straight from its kernel; None: there is more to look at."""
    if (device is not None or INFERENCE[0] or state.batcher is not None
            or devices._default.device is not devices.CPU):
        return None
    shape = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    count = 1
    for n in shape:
        if n.__class__ is not int or n < 0:
            return None
        count *= n
    if count > _MOST_AT_ONCE:
        return None
    token = enter(IGNORE)
    try:
        return wrap(drawing.kernel(np.empty(shape, d.np), *attrs), d)
    finally:
        leave(token)


def _sized(name: str, drawing: Leaf, kernel: str, doc: str) -> Any:
    """`rand` or `randn`: sizes as several numbers or one sequence."""

    def call(*size: Any, generator: Any = None, out: Any = None, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False,
             pin_memory: bool = False, **named: Any) -> Tensor:
        if size and out is None and not named:
            d = get_default_dtype() if dtype is None else dtype
            drawn = _drawn(size, d, device, drawing, 0.0, 1.0, generator) if d in _FLOATS else None
            if drawn is not None:
                return _leaf_tensor(drawn, requires_grad)
        if "size" in named and not size:
            size = (named.pop("size"),)
        if named or not size:
            raise TypeError(f"{name}() received an invalid combination of arguments: expected "
                            f"(size, ...), received {[*size, *sorted(named)]}")
        t = _target(size, out, dtype, device, name)
        _needs_floats(t, kernel, complex_too=True)
        return _leaf_tensor(_draw(t, out, name, drawing, 0.0, 1.0, generator), requires_grad)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return op("torch")(call)


def _leaf_tensor(t: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        Tensor._require_grad(t, True)
    return t


rand = _sized("rand", _uniform, _UNIFORM_KERNEL, """Values from [0, 1).

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.rand(2, 2)
    tensor([[0.4963, 0.7682],
            [0.0885, 0.1320]])
    """)
randn = _sized("randn", _normal, _NORMAL_KERNEL, """Values from the standard normal distribution.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.randn(2)
    tensor([ 1.5410, -0.2934])
    """)


@op("torch")
def randint(*args: Any, generator: Any = None, out: Any = None, dtype: Any = None,
            layout: Any = None, device: Any = None, requires_grad: bool = False,
            pin_memory: bool = False, **named: Any) -> Tensor:
    """Integers from [`low`, `high`): `randint(high, size)` or `randint(low, high, size)`.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.randint(3, 10, (2,))
    tensor([7, 6])
    """
    low, high, size = _randint_arguments(args, named)
    if dtype is None and out is None and _INT64_MIN <= low < high <= _INT64_MAX:
        drawn = _drawn((size,), int64, device, _random, low, high, generator)
        if drawn is not None:
            return _leaf_tensor(drawn, requires_grad)
    d = dtype if dtype is not None or out is not None else int64
    t = _target((tuple(size),), out, d, device, "randint")
    bounds = _bounds(low, high, t._dtype)
    return _leaf_tensor(_draw(t, out, "randint", _random, *bounds, generator), requires_grad)


def _randint_arguments(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[int, int, Any]:
    if not named and len(args) == 2 and args[0].__class__ is int:
        return 0, *args
    rest = [name for name in ("low", "high", "size") if name not in named]
    if len(args) < len(rest) and rest[:1] == ["low"]:
        rest = rest[1:]
    if len(args) != len(rest) or named.keys() - {"low", "high", "size"}:
        raise TypeError("randint() received an invalid combination of arguments: expected "
                        f"(high, size) or (low, high, size), received {[*args, *sorted(named)]}")
    given = {"low": 0, **dict(zip(rest, args, strict=True)), **named}
    return _integer(given["low"], "low"), _integer(given["high"], "high"), given["size"]


def _integer(value: Any, argument: str) -> int:
    if isinstance(value, float) or not hasattr(value, "__index__"):
        raise argument_type("randint", argument, "int", value)
    return int(value)


@op("torch")
def randperm(n: int, *, generator: Any = None, out: Any = None, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False,
             pin_memory: bool = False) -> Tensor:
    """A random order of the integers from 0 to `n - 1`.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.randperm(4)
    tensor([0, 1, 3, 2])
    """
    if not hasattr(n, "__index__"):
        raise argument_type("randperm", "n", "int", n)
    d = dtype if dtype is not None or out is not None else int64
    t = _target((n,), out, d, device, "randperm")
    _check_holds(int(n), t._dtype)
    return _leaf_tensor(_draw(t, out, "randperm", _permutation, generator), requires_grad)


@leaf(not_differentiable("the result is integers"), shape=same_shape, exact=True,
      name="permutation")
def _permutation(input: Array, generator: Any) -> Array:
    """A random order of the indices of `input`."""
    return draws.randperm(stream_of(generator, "randperm"), input.size, input.dtype)


def _check_holds(n: int, d: dtype) -> None:
    if d.kind in (BOOL, COMPLEX) or d.name.startswith("float8") or d.name in _WIDE_UNSIGNED:
        raise not_implemented_for("randperm", d)
    if d.kind == INT and n > int(np.iinfo(d.np).max) + 1:
        raise RuntimeError(f"value cannot be converted to type {d.name}_t without overflow: "
                           f"randperm() received n={n}")
    if d.kind == FLOAT and d.name != "bfloat16" and n > (1 << _MANTISSA[d.name]) + 1:
        raise RuntimeError(f"n cannot be greater than {(1 << _MANTISSA[d.name]) + 1} for "
                           f"{scalar_type(d)} type.")


def _like(name: str, drawing: Leaf, kernel: str, doc: str) -> None:
    def call(input: Tensor, *, generator: Any = None, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
             memory_format: Any = None) -> Tensor:
        t = empty_like(input, dtype=dtype, device=device, memory_format=memory_format)
        _needs_floats(t, kernel, complex_too=True)
        return _leaf_tensor(drawing(t, 0.0, 1.0, generator), requires_grad)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    op("torch")(call)


_like("rand_like", _uniform, _UNIFORM_KERNEL,
      "Values from [0, 1) in the shape, dtype and layout of `input`.")
_like("randn_like", _normal, _NORMAL_KERNEL,
      "Normal values in the shape, dtype and layout of `input`.")


@op("torch")
def randint_like(input: Tensor, *args: Any, generator: Any = None, dtype: Any = None,
                 layout: Any = None, device: Any = None, requires_grad: bool = False,
                 pin_memory: bool = False, memory_format: Any = None, **named: Any) -> Tensor:
    """Integers from [`low`, `high`) in the shape and dtype of `input`."""
    low, high, _ = _randint_arguments((*args, ()) if args else (), named if args else {
        **named, "size": ()})
    t = empty_like(input, dtype=dtype, device=device, memory_format=memory_format)
    return _leaf_tensor(_random(t, *_bounds(low, high, t._dtype), generator), requires_grad)


# --- parameters in tensors ------------------------------------------------------------------------


@op("torch")
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None,
           out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """Normal values: a mean and a deviation for each element, or numbers and a `size`."""
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if not isinstance(size, (tuple, list)):
            raise TypeError("normal() received an invalid combination of arguments: numbers for "
                            "mean and std need a size, a tuple of ints")
        t = _target((tuple(size),), out, dtype, device, "normal")
        _check_normal(t, std)
        drawn = _draw(t, out, "normal", _normal, float(mean), float(std), generator)
        return _leaf_tensor(drawn, requires_grad)
    drawn = _normal_with_tensors(mean, std, generator)
    return drawn if out is None else deliver(out, drawn, "normal")


def _normal_with_tensors(mean: Any, std: Any, generator: Any) -> Tensor:
    d = (mean if isinstance(mean, Tensor) else std)._dtype
    if d.name not in _MANTISSA and d.kind != COMPLEX:
        raise not_implemented_for(_NORMAL_KERNEL, d)
    if not isinstance(std, Tensor):
        _check_std(std)
        return _normal_mean(mean, float(std), generator)
    if std._dtype.kind == COMPLEX:
        raise RuntimeError("normal expects standard deviation to be non-complex")
    if not isinstance(mean, Tensor):
        return _normal_std(std, float(mean), generator)
    try:
        return _normal_both(mean, std, generator)
    except ValueError:
        raise broadcast_mismatch("normal", (mean._a.shape, std._a.shape)) from None


@leaf({"mean": _nothing}, exact=True, node="NormalBackward1",
      shape=lambda mean, *_: (mean.shape, mean.dtype))
def _normal_mean(mean: Array, std: float, generator: Any) -> Array:
    """Normal values around `mean`."""
    return _normal.kernel(np.empty(mean.shape, mean.dtype), 0.0, std, generator) + mean


@leaf({"std": _nothing}, exact=True, node="NormalBackward2",
      shape=lambda std, *_: (std.shape, std.dtype))
def _normal_std(std: Array, mean: float, generator: Any) -> Array:
    """Normal values around one number with the deviations `std`."""
    _check_stds(std)
    values = _normal.kernel(np.empty(std.shape, std.dtype), 0.0, 1.0, generator) * std
    return values + std.dtype.type(mean)


def _both_shape(mean: Any, std: Any, *_: Any) -> Any:
    return np.broadcast_shapes(mean.shape, std.shape), mean.dtype


@leaf({"mean": _nothing, "std": _nothing}, exact=True, broadcasts=True, node="NormalBackward3",
      shape=_both_shape)
def _normal_both(mean: Array, std: Array, generator: Any) -> Array:
    """Normal values with a mean and a deviation for each element."""
    _check_stds(std)
    shape = np.broadcast_shapes(mean.shape, std.shape)
    values = _normal.kernel(np.empty(shape, mean.dtype), 0.0, 1.0, generator)
    return (values * std).astype(mean.dtype) + mean


def _check_stds(std: Array) -> None:
    if not (std >= 0).all():
        raise RuntimeError("normal expects all elements of std >= 0.0")


@op(out=True)
def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in `input` (or all with probability `p`), zeros else."""
    if isinstance(p, Tensor):
        return empty_like(input.contiguous()).bernoulli_(p, generator=generator)
    if p is not None:
        return bernoulli_like(empty_like(input.contiguous()), p, generator)
    _needs_floats(input, "bernoulli_tensor_cpu_p_")
    return _bernoulli_of(input, generator)


@op()
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Any = None, out: Any = None) -> Tensor:
    """`num_samples` indices from each row of weights in `input`; without replacement, distinct.

    >>> import lampion as torch
    >>> torch.multinomial(torch.tensor([0., 1., 0.]), 1)
    tensor([1])
    """
    _check_multinomial(input, num_samples, replacement)
    if out is not None and out._dtype is not int64:
        raise RuntimeError("multinomial expects Long tensor out, got: "
                           f"{scalar_type(out._dtype)}")
    picked = _multinomial(input, int(num_samples), bool(replacement), generator)
    return picked if out is None else deliver(out, picked, "multinomial")


def _check_multinomial(input: Tensor, num_samples: int, replacement: bool) -> None:
    a = input._a
    if not 1 <= a.ndim <= 2:
        raise RuntimeError(f"prob_dist must be 1 or 2 dim: multinomial() received {a.ndim} dims")
    if input._dtype.name not in _MANTISSA:
        raise RuntimeError("multinomial only supports floating-point dtypes for input, got: "
                           f"{scalar_type(input._dtype)}")
    if num_samples <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples: received {num_samples}")
    if not replacement and num_samples > a.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without "
                           f"replacement: received {num_samples} for {a.shape[-1]} weights")
    if a.shape[-1] == 0:
        raise RuntimeError("multinomial() received rows without weights: there is nothing to draw")


@op("torch")
def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Poisson counts with the rates in `input`."""
    _needs_floats(input, "poisson_cpu")
    return _poisson(input, generator)


@op("torch")
def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """Numbers of successes in `count` trials of probability `prob`, broadcast."""
    if count._dtype.name not in _MANTISSA:
        raise ValueError("binomial only supports floating-point dtypes for count, got: "
                         f"{scalar_type(count._dtype)}")
    if count._dtype is not prob._dtype:
        raise RuntimeError(f"Found dtype {scalar_type(prob._dtype)} but expected "
                           f"{scalar_type(count._dtype)}: binomial() needs count and prob alike")
    if count._dtype.is_reduced:
        raise not_implemented_for("binomial_cpu", count._dtype)
    return _binomial(count, prob, generator)

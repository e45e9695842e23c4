"""What is legal at the loop level: every operation, its operands and the type of its result.

`OPS` is the whole language. `result_type` is asked when a value is made, so an illegal kernel
cannot be built; `check` walks a finished kernel again and also proves that every value is used
only where it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .types import F32, I1, I16, I32, I64, Type

if TYPE_CHECKING:
    from .ir import Kernel, Region, Value

__all__ = ["OPS", "PURE", "SpecError", "check", "result_type"]


class SpecError(TypeError):
    """A kernel that is not legal; the message names the operation and its operands."""


Rule = Callable[[Sequence[Type], Any], Type | None]
_R = TypeVar("_R", bound=Rule)
OPS: dict[str, Rule] = {}


def _rule(names: str) -> Callable[[_R], _R]:
    def add(rule: _R) -> _R:
        for name in names.split():
            OPS[name] = rule
        return rule
    return add


def _need(holds: bool, why: str) -> None:
    if not holds:
        raise SpecError(why)


@_rule("const")
def _const(args: Sequence[Type], attr: Any) -> Type:
    number, kind = attr
    table = isinstance(number, tuple) and len(number) > 0
    _need(not args and kind.pointer == table, "a number, or a tuple and the pointer to its copy")
    return kind  # type: ignore[no-any-return]


@_rule("param")
def _param(args: Sequence[Type], attr: Any) -> Type:
    kind: Type = attr[1]
    return kind


@_rule("index result")
def _given(args: Sequence[Type], attr: Any) -> Type:
    kind: Type = attr[1]  # of a region's parameter or of one result of a loop or branch
    return kind


@_rule("iota")
def _iota(args: Sequence[Type], attr: Any) -> Type:
    _need(attr.kind in "iu", "iota of integers")
    return attr  # type: ignore[no-any-return]


def _wide(kind: Type) -> None:
    _need(not kind.is_float or kind.bits >= 32, "f32 or f64: cast narrow floats first")


@_rule("add sub mul min max")
def _arithmetic(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 2 and args[0] == args[1], "two operands of one type")
    _need(not args[0].is_bool and not args[0].pointer, "numbers")
    _wide(args[0])
    return args[0]


@_rule("div")
def _div(args: Sequence[Type], attr: Any) -> Type:
    return _arithmetic(args, attr)


@_rule("neg abs")
def _sign(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 1 and args[0].kind in "if" and not args[0].pointer, "one signed number")
    return args[0]


@_rule("sqrt floor ceil trunc rint")
def _float_unary(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 1 and args[0].is_float and args[0].bits >= 32, "one f32 or f64")
    return args[0]


@_rule("fma")
def _fma(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 3 and args[0] == args[1] == args[2], "three operands of one type")
    return _float_unary(args[:1], attr)


@_rule("scale")
def _scale(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 2 and args[0] == args[1] and isinstance(attr, bool),
          "a number, an exponent of its type, and whether the power of 2 is a normal number")
    return _float_unary(args[:1], attr)


@_rule("and or xor")
def _bits(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 2 and args[0] == args[1], "two operands of one type")
    _need(args[0].kind in "iub" and not args[0].pointer, "integers or bools")
    return args[0]


@_rule("not")
def _not(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 1 and args[0].kind in "iub", "one integer or bool")
    return args[0]


@_rule("shl shr")
def _shift(args: Sequence[Type], attr: Any) -> Type:
    _need(args[0].kind in "iu", "integers")
    return _arithmetic(args, attr)


@_rule("lt le eq ne")
def _compare(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 2 and args[0] == args[1], "two operands of one type")
    _wide(args[0])
    return I1.vector(args[0].lanes)


@_rule("select")
def _select(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 3 and args[1] == args[2], "a condition and two operands of one type")
    _need(args[0] == I1.vector(args[1].lanes), "as many conditions as lanes")
    return args[1]


@_rule("cast")
def _cast(args: Sequence[Type], attr: Any) -> Type:
    _need(not args[0].pointer and attr.lanes == args[0].lanes, "as many lanes as before")
    return attr  # type: ignore[no-any-return]


@_rule("bitcast")
def _bitcast(args: Sequence[Type], attr: Any) -> Type:
    _need(args[0].bits * args[0].lanes == attr.bits * attr.lanes, "as many bits as before")
    return attr  # type: ignore[no-any-return]


@_rule("splat")
def _splat(args: Sequence[Type], attr: Any) -> Type:
    _need(args[0].lanes == 1 and not args[0].pointer, "one scalar")
    return args[0].vector(attr)


@_rule("extract")
def _extract(args: Sequence[Type], attr: Any) -> Type:
    _need(0 <= attr < args[0].lanes, f"a lane below {args[0].lanes}")
    return args[0].scalar


@_rule("insert")
def _insert(args: Sequence[Type], attr: Any) -> Type:
    _need(args[1] == args[0].scalar and 0 <= attr < args[0].lanes, "a scalar and its lane")
    return args[0]


@_rule("shuffle")
def _shuffle(args: Sequence[Type], attr: Any) -> Type:
    _need(len(args) == 2 and args[0] == args[1], "two vectors of one type")
    _need(all(0 <= lane < 2 * args[0].lanes for lane in attr), "lanes of the two vectors")
    return args[0].vector(len(attr))


@_rule("reduce")
def _reduce(args: Sequence[Type], attr: Any) -> Type:
    _need(attr in ("add", "mul", "min", "max", "and", "or"), "reduce by add mul min max and or")
    return args[0].scalar


@_rule("dot")
def _dot(args: Sequence[Type], attr: Any) -> Type:
    acc, a, b = args
    pairs = (acc.scalar == F32 and a.brain and b.brain and a.lanes == b.lanes == 2 * acc.lanes)
    quads = (acc.scalar == I32 and a.bits == b.bits == 8 and a.kind == "u" and b.kind == "i"
             and a.lanes == b.lanes == 4 * acc.lanes)
    words = (acc.scalar == I32 and a.scalar == b.scalar == I16
             and a.lanes == b.lanes == 2 * acc.lanes)
    _need(pairs or quads or words,
          "f32 += pairs of bf16, i32 += fours of u8 times i8 or pairs of i16")
    return acc


def _pointer(kind: Type) -> None:
    _need(kind.pointer, "a pointer")


@_rule("offset")
def _offset(args: Sequence[Type], attr: Any) -> Type:
    _pointer(args[0])
    _need(args[1] == I64, "an index of type i64")
    return args[0]


@_rule("load")
def _load(args: Sequence[Type], attr: Any) -> Type:
    _pointer(args[0])
    _need(args[1] == I64, "an index of type i64")
    _need(len(args) == 2 or args[2] == I1.vector(attr), "as many mask bits as lanes")
    return args[0].pointee.vector(attr)


@_rule("store")
def _store(args: Sequence[Type], attr: Any) -> None:
    _pointer(args[0])
    _need(args[1] == I64 and args[2].scalar == args[0].pointee, "pointer, i64 index, its element")
    _need(len(args) == 3 or args[3] == I1.vector(args[2].lanes), "as many mask bits as lanes")


@_rule("gather")
def _gather(args: Sequence[Type], attr: Any) -> Type:
    _pointer(args[0])
    _need(args[1].scalar in (I64, I32), "indices of type i64 or i32")
    _need(len(args) == 2 or args[2] == I1.vector(args[1].lanes), "as many mask bits as lanes")
    return args[0].pointee.vector(args[1].lanes)


@_rule("scatter")
def _scatter(args: Sequence[Type], attr: Any) -> None:
    _pointer(args[0])
    _need(args[1].scalar in (I64, I32), "indices of type i64 or i32")
    _need(args[2] == args[0].pointee.vector(args[1].lanes), "as many elements as indices")
    _need(len(args) == 3 or args[3] == I1.vector(args[1].lanes), "as many mask bits as lanes")


@_rule("prefetch")
def _prefetch(args: Sequence[Type], attr: Any) -> None:
    _offset(args, attr)


@_rule("view")
def _view(args: Sequence[Type], attr: Any) -> Type:
    _pointer(args[0])
    return attr.to()  # type: ignore[no-any-return]


@_rule("scratch")
def _scratch(args: Sequence[Type], attr: Any) -> Type:
    kind, count = attr
    _need(0 < kind.size * count <= 1 << 18, "at most 256 KiB of scratch, known when it is built")
    return kind.to()  # type: ignore[no-any-return]


@_rule("loop")
def _loop(args: Sequence[Type], attr: Any) -> None:
    _need(len(args) >= 3 and all(a == I64 for a in args[:3]), "start, stop and step of type i64")


@_rule("branch")
def _branch(args: Sequence[Type], attr: Any) -> None:
    _need(args[0] == I1, "one condition")


@_rule("parallel")
def _parallel(args: Sequence[Type], attr: Any) -> None:
    _need(args[0] == I64, "a count of type i64")


# Values of these may be shared and moved: they depend on their operands only.
PURE = frozenset(OPS) - {"load", "store", "gather", "scatter", "prefetch", "scratch", "loop",
                         "branch", "parallel", "index", "result", "param"}


def result_type(op: str, args: Sequence[Type], attr: Any) -> Type | None:
    """The type of the result, None for an operation without one; SpecError if it is not legal."""
    rule = OPS.get(op)
    if rule is None:
        raise SpecError(f"no operation '{op}': the loop level has {', '.join(OPS)}")
    try:
        return rule(args, attr)
    except SpecError as error:
        got = ", ".join(map(str, args))
        raise SpecError(f"{op}({got}): expected {error}") from None


def check(kernel: Kernel) -> None:
    """SpecError unless every operation is legal and every value is used where it is defined."""
    defined = set(map(id, kernel.inputs))
    _check_region(kernel.body, defined, 0)


def _check_region(region: Region, outside: set[int], depth: int) -> None:
    defined = outside | set(map(id, region.params))
    for value in region.values:
        _check_value(value, defined, depth)
        defined.add(id(value))
        defined.update(map(id, value.results))
    for value in region.gives:
        _need(id(value) in defined, f"{value.op} is given by a region that does not define it")


def _check_value(value: Value, defined: set[int], depth: int) -> None:
    for a in value.args:
        _need(id(a) in defined, f"{value.op} uses a value ({a.op}) that is not defined there")
    made = result_type(value.op, [a.type for a in value.args], value.attr)
    _need(made == value.kind, f"{value.op} has type {value.kind}, its rule gives {made}")
    _need(value.op != "parallel" or depth == 0, "parallel stands in the outermost region only")
    for region in value.regions:
        given = [v.type for v in region.gives]
        _need(given == [r.type for r in value.results],
              f"a region of {value.op} gives {given}, not the types of its results")
        _check_region(region, defined, depth + 1)

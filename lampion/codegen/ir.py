"""The loop level: kernels as loops over typed scalars and vectors, built by plain Python.

A `Kernel` is a builder and what it built. Its values form regions (the body, loop bodies,
branches, parallel tasks); loops carry values from one turn to the next, so nothing is ever
assigned twice. Writing a kernel reads like the kernel:

    k = Kernel("axpy")
    x, y, n = k.array("x", F32), k.array("y", F32), k.integer("n")
    a = k.splat(k.number("a", F32), 16)
    with k.loop(0, n, 16) as i:
        k.store(y.ptr, i, k.fma(a, k.load(x.ptr, i, 16), k.load(y.ptr, i, 16)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .spec import PURE, SpecError, result_type
from .types import F64, I32, I64, Type

__all__ = ["ArrayParam", "Branch", "Kernel", "Loop", "Region", "Value"]

Number = int | float | bool


class Value:
    """One operation and, if it has one, its result."""

    __slots__ = ("args", "attr", "kernel", "kind", "op", "regions", "results")

    def __init__(self, kernel: Kernel, op: str, kind: Type | None, args: tuple[Value, ...],
                 attr: Any) -> None:
        self.kernel, self.op, self.kind, self.args, self.attr = kernel, op, kind, args, attr
        self.regions: tuple[Region, ...] = ()
        self.results: tuple[Value, ...] = ()

    @property
    def type(self) -> Type:
        """The type of the result; SpecError for an operation without one."""
        if self.kind is None:
            raise SpecError(f"{self.op} has no result")
        return self.kind

    def __add__(self, other: Value | Number) -> Value:
        return self.kernel.binary("add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Value | Number) -> Value:
        return self.kernel.binary("sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.kernel.like(self, other) - self

    def __mul__(self, other: Value | Number) -> Value:
        return self.kernel.binary("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | Number) -> Value:
        return self.kernel.binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.kernel.like(self, other) / self

    __floordiv__ = __truediv__  # of integers: towards zero

    def __mod__(self, other: Value | int) -> Value:
        """Of integers, with the sign of the dividend."""
        if self.type.is_float:
            raise SpecError(f"the remainder of {self.type}: integers only")
        return self - self / other * other

    def __and__(self, other: Value | Number) -> Value:
        return self.kernel.binary("and", self, other)

    def __or__(self, other: Value | Number) -> Value:
        return self.kernel.binary("or", self, other)

    def __xor__(self, other: Value | Number) -> Value:
        return self.kernel.binary("xor", self, other)

    def __lshift__(self, other: Value | Number) -> Value:
        return self.kernel.binary("shl", self, other)

    def __rshift__(self, other: Value | Number) -> Value:
        """Shift right; the sign is kept for signed integers."""
        return self.kernel.binary("shr", self, other)

    def __invert__(self) -> Value:
        return self.kernel.unary("not", self)

    def __neg__(self) -> Value:
        return self.kernel.unary("neg", self)

    def __lt__(self, other: Value | Number) -> Value:
        return self.kernel.binary("lt", self, other)

    def __le__(self, other: Value | Number) -> Value:
        return self.kernel.binary("le", self, other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.kernel.like(self, other) < self

    def __ge__(self, other: Value | Number) -> Value:
        return self.kernel.like(self, other) <= self

    def eq(self, other: Value | Number) -> Value:
        """Whether equal, lane by lane."""
        return self.kernel.binary("eq", self, other)

    def ne(self, other: Value | Number) -> Value:
        """Whether different (NaN differs from all), lane by lane."""
        return self.kernel.binary("ne", self, other)

    def cast(self, scalar: Type) -> Value:
        """Converted to another scalar type, lane by lane; floats to integers towards zero."""
        if scalar == self.type.scalar:
            return self
        return self.kernel.emit("cast", (self,), scalar.vector(self.type.lanes))

    def bits(self, scalar: Type) -> Value:
        """The same bits as another scalar type of the same width."""
        return self.kernel.emit("bitcast", (self,), scalar.vector(self.type.lanes))


class Region:
    """Operations in order, with parameters at their head and values given at their end."""

    __slots__ = ("gives", "known", "params", "values")

    def __init__(self, params: Sequence[Value] = ()) -> None:
        self.params = tuple(params)
        self.values: list[Value] = []
        self.gives: tuple[Value, ...] = ()
        self.known: dict[Any, Value] = {}  # pure values already here, by content


class ArrayParam:
    """An ndarray argument: its data pointer, sizes and strides are run-time values."""

    def __init__(self, kernel: Kernel, name: str, element: Type) -> None:
        self.kernel, self.name, self.element = kernel, name, element
        self.ptr = kernel.input(("data", element.to(), name))

    def size(self, axis: int) -> Value:
        """Elements along `axis`, an i64."""
        return self.kernel.input(("size", I64, self.name, axis))

    def stride(self, axis: int) -> Value:
        """Step along `axis` in elements, an i64."""
        return self.kernel.input(("stride", I64, self.name, axis, self.element.size))


class Loop:
    """A counted loop under construction; see `Kernel.loop`."""

    def __init__(self, kernel: Kernel, value: Value, carried: int) -> None:
        self.kernel, self.value, self.carried = kernel, value, carried

    def __enter__(self) -> Any:
        region = self.value.regions[0]
        self.kernel.open(region)
        return region.params if self.carried else region.params[0]

    def next(self, *values: Value) -> None:
        """The carried values of the next turn."""
        self.value.regions[0].gives = values

    def __exit__(self, *error: object) -> None:
        self.kernel.close()
        if error[0] is None and len(self.value.regions[0].gives) != self.carried:
            raise SpecError(f"a loop that carries {self.carried} values ends without next()")

    @property
    def results(self) -> tuple[Value, ...]:
        """The carried values after the last turn."""
        return self.value.results


class Branch:
    """A branch under construction; see `Kernel.choose`."""

    def __init__(self, kernel: Kernel, value: Value) -> None:
        self.kernel, self.value = kernel, value

    @contextmanager
    def _side(self, side: int) -> Iterator[None]:
        self.kernel.open(self.value.regions[side])
        try:
            yield
        finally:
            self.kernel.close()

    @property
    def then(self) -> Any:
        """`with branch.then:` what happens where the condition holds."""
        return self._side(0)

    @property
    def otherwise(self) -> Any:
        """`with branch.otherwise:` what happens where it does not."""
        return self._side(1)

    def give(self, *values: Value) -> None:
        """The results of the side that is being written."""
        self.kernel.region.gives = values

    @property
    def results(self) -> tuple[Value, ...]:
        """What the side that ran gave; both sides must have given as many, of the same types."""
        if not self.value.results:
            kernel, gives = self.kernel, self.value.regions[0].gives
            self.value.results = tuple(
                Value(kernel, "result", v.type, (), (i, v.type)) for i, v in enumerate(gives))
        return self.value.results


class Kernel:
    """A kernel: parameters and a body of operations; the builder of both."""

    def __init__(self, name: str, plain_addresses: bool = False) -> None:
        self.name = name
        self.params: list[tuple[str, str, Type]] = []  # (kind, name, type), as called from Python
        self.inputs: list[Value] = []  # what the body reads of them
        self.body = Region()
        # Whether addresses are computed as they are written: then LLVM's loop strength reduction
        # is skipped, which takes half of the time to compile. It pays for loops of many pointers.
        self.plain_addresses = plain_addresses
        self._stack = [self.body]
        self._inputs: dict[Any, Value] = {}

    @property
    def region(self) -> Region:
        """Where the next operation goes."""
        return self._stack[-1]

    def open(self, region: Region) -> None:
        """Operations go into `region` until `close`."""
        self._stack.append(region)

    def close(self) -> None:
        """Operations go where they went before `open`."""
        self._stack.pop()

    # --- parameters -----------------------------------------------------------------------------

    def array(self, name: str, element: Type) -> ArrayParam:
        """The next parameter: an ndarray of `element` (or None: a null pointer)."""
        self.params.append(("array", name, element))
        return ArrayParam(self, name, element)

    def integer(self, name: str) -> Value:
        """The next parameter: a Python int, an i64 here."""
        self.params.append(("integer", name, I64))
        return self.input(("scalar", I64, name))

    def number(self, name: str, kind: Type = F64) -> Value:
        """The next parameter: a Python float, rounded to `kind`."""
        self.params.append(("number", name, kind))
        return self.input(("scalar", kind, name))

    def input(self, attr: tuple[Any, ...]) -> Value:
        """A fact about a parameter, read once at the entry."""
        found = self._inputs.get(attr)
        if found is None:
            found = self._inputs[attr] = Value(self, "param", attr[1], (), attr)
            self.inputs.append(found)
        return found

    # --- making values --------------------------------------------------------------------------

    def emit(self, op: str, args: tuple[Value, ...] = (), attr: Any = None) -> Value:
        """Any operation of the spec; pure ones that are known already are not made twice."""
        key = None
        if op in PURE:
            key = (op, tuple(map(id, args)), attr, str(attr) if op == "const" else "")
            for region in reversed(self._stack):
                found = region.known.get(key)
                if found is not None:
                    return found
        value = Value(self, op, result_type(op, [a.type for a in args], attr), args, attr)
        region = self.region
        region.values.append(value)
        if key is not None:
            region.known[key] = value
        return value

    def const(self, value: Number, kind: Type) -> Value:
        """A constant; of a vector type: the same in every lane."""
        return self.emit("const", (), (value, kind))

    def like(self, other: Value, value: Value | Number) -> Value:
        """`value` as an operand beside `other`: numbers become constants, scalars are spread."""
        if not isinstance(value, Value):
            return self.const(value, other.type)
        if value.type.lanes == 1 < other.type.lanes:
            return self.splat(value, other.type.lanes)
        return value

    def unary(self, op: str, a: Value) -> Value:
        """neg abs sqrt floor ceil trunc rint not."""
        return self.emit(op, (a,))

    def binary(self, op: str, a: Value, b: Value | Number) -> Value:
        """Any operation of two operands of one type; a number or scalar may stand for either."""
        b = self.like(a, b)
        a = self.like(b, a)
        folded = self._fold(op, a, b)
        return self.emit(op, (a, b)) if folded is None else folded

    def _fold(self, op: str, a: Value, b: Value) -> Value | None:
        """Integer address arithmetic on constants is done here."""
        if a.type.kind != "i" or a.type.lanes != 1 or (a.op != "const" != b.op):
            return None
        if a.op == "const" and op in ("add", "mul"):
            a, b = b, a
        if b.op != "const":
            return None
        y = b.attr[0]
        if (y == 0 and op in ("add", "sub")) or (y == 1 and op in ("mul", "div")):
            return a
        if a.op != "const" or op not in _FOLDS or (op == "div" and y == 0):
            return None
        return self.const(_FOLDS[op](a.attr[0], y), a.type)

    def fma(self, a: Value, b: Value | Number, c: Value | Number) -> Value:
        """`a * b + c`, rounded once where the target can."""
        wide = next((v for v in (a, b, c) if isinstance(v, Value) and v.type.lanes > 1), a)
        return self.emit("fma", (self.like(wide, a), self.like(wide, b), self.like(wide, c)))

    def min(self, a: Value, b: Value | Number) -> Value:
        """`a if a < b else b`: the second operand where either is NaN."""
        return self.binary("min", a, b)

    def max(self, a: Value, b: Value | Number) -> Value:
        """`a if b < a else b`: the second operand where either is NaN."""
        return self.binary("max", a, b)

    def abs(self, a: Value) -> Value:
        """Without its sign."""
        return self.unary("abs", a)

    def sqrt(self, a: Value) -> Value:
        """The square root, correctly rounded."""
        return self.unary("sqrt", a)

    def scale(self, a: Value, n: Value, normal: bool = False) -> Value:
        """`a * 2**n`, rounded once; n whole, at most twice the type's exponents; NaN if both are.

        normal: 2**n is a normal number.
        """
        return self.emit("scale", (a, n), normal)

    def select(self, condition: Value, yes: Value | Number, no: Value | Number) -> Value:
        """`yes` where the condition holds, else `no`, lane by lane."""
        if not isinstance(yes, Value):
            if not isinstance(no, Value):
                raise SpecError("select between two numbers: make one of them a const()")
            yes = self.like(no, yes)
        no = self.like(yes, no)
        lanes = max(condition.type.lanes, no.type.lanes)
        yes, no = self.splat(yes, lanes), self.splat(no, lanes)
        return self.emit("select", (self.splat(condition, lanes), yes, no))

    def splat(self, a: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if a.type.lanes == lanes:
            return a
        if a.op == "const":
            return self.const(a.attr[0], a.type.vector(lanes))
        return self.emit("splat", (a,), lanes)

    def iota(self, lanes: int, kind: Type = I64) -> Value:
        """0, 1, 2, ... in the lanes."""
        return self.emit("iota", (), kind.vector(lanes)) if lanes > 1 else self.const(0, kind)

    def extract(self, a: Value, lane: int) -> Value:
        """One lane."""
        return self.emit("extract", (a,), lane)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from `a` followed by `b`."""
        return self.emit("shuffle", (a, b), tuple(lanes))

    def reduce(self, op: str, a: Value) -> Value:
        """All lanes by add mul min max and or, in a fixed tree: halves first."""
        return a if a.type.lanes == 1 else self.emit("reduce", (a,), op)

    # --- memory ---------------------------------------------------------------------------------

    def index(self, value: Value | int) -> Value:
        """An i64."""
        return value if isinstance(value, Value) else self.const(value, I64)

    def offset(self, ptr: Value, index: Value | int) -> Value:
        """The pointer `index` elements on."""
        index = self.index(index)
        if index.op == "const" and index.attr[0] == 0:
            return ptr
        return self.emit("offset", (ptr, index))

    def load(self, ptr: Value, index: Value | int = 0, lanes: int = 1,
             mask: Value | None = None) -> Value:
        """`lanes` elements from `ptr[index]` on; zero where the mask does not hold."""
        more = () if mask is None else (mask,)
        return self.emit("load", (ptr, self.index(index), *more), lanes)

    def store(self, ptr: Value, index: Value | int, value: Value,
              mask: Value | None = None) -> None:
        """Writes the lanes of `value` from `ptr[index]` on, where the mask holds."""
        more = () if mask is None else (mask,)
        self.emit("store", (ptr, self.index(index), value, *more))

    def gather(self, ptr: Value, indices: Value, mask: Value | None = None) -> Value:
        """`ptr[indices]`, lane by lane; zero where the mask does not hold."""
        return self.emit("gather", (ptr, indices) if mask is None else (ptr, indices, mask))

    def scatter(self, ptr: Value, indices: Value, value: Value, mask: Value | None = None) -> None:
        """`ptr[indices] = value`, lanes in order."""
        more = () if mask is None else (mask,)
        self.emit("scatter", (ptr, indices, value, *more))

    def prefetch(self, ptr: Value, index: Value | int) -> None:
        """Asks for the cache line of `ptr[index]`; any address is harmless."""
        self.emit("prefetch", (ptr, self.index(index)))

    def view(self, ptr: Value, element: Type) -> Value:
        """The same address as a pointer to another element type."""
        return self.emit("view", (ptr,), element)

    def scratch(self, element: Type, count: int) -> Value:
        """Memory of this task alone, 64-byte aligned, not initialised; not inside loops."""
        return self.emit("scratch", (), (element, count))

    # --- control --------------------------------------------------------------------------------

    def loop(self, start: Value | int, stop: Value | int, step: Value | int = 1,
             carried: Sequence[Value] = ()) -> Loop:
        """`for i in range(start, stop, step)`, step > 0.

        `with k.loop(0, n, 16, [acc]) as (i, acc): ...; loop.next(new)`, then `loop.results`.
        Without carried values `with ... as i`.
        """
        args = (self.index(start), self.index(stop), self.index(step), *carried)
        value = self.emit("loop", args)
        kinds = (I64, *(c.type for c in carried))
        value.regions = (Region([Value(self, "index", t, (), (i, t))
                                 for i, t in enumerate(kinds)]),)
        value.results = tuple(Value(self, "result", c.type, (), (i, c.type))
                              for i, c in enumerate(carried))
        return Loop(self, value, len(carried))

    def choose(self, condition: Value) -> Branch:
        """Two sides of which one runs; `with branch.then:`, `with branch.otherwise:`."""
        value = self.emit("branch", (condition,))
        value.regions = (Region(), Region())
        return Branch(self, value)

    def when(self, condition: Value) -> Any:
        """`with k.when(c):` what happens only where the scalar condition holds."""
        return self.choose(condition).then

    @contextmanager
    def parallel(self, count: Value | int) -> Iterator[tuple[Value, Value]]:
        """`with k.parallel(n) as (task, worker):` n independent tasks on the thread pool.

        worker: which thread runs it, below the number of threads. Outermost region only; what
        follows runs after all tasks. Results must not depend on who runs what.
        """
        value = self.emit("parallel", (self.index(count),))
        region = Region([Value(self, "index", I64, (), (i, I64)) for i in range(2)])
        value.regions = (region,)
        self.open(region)
        try:
            yield region.params[0], region.params[1]
        finally:
            self.close()

    def mask(self, count: Value, lanes: int) -> Value:
        """The first `count` lanes (an i64, any value)."""
        if lanes == 1:
            return count > 0
        small = self.min(self.max(count, 0), lanes).cast(I32)
        return self.emit("lt", (self.iota(lanes, I32), self.splat(small, lanes)))


_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "min": min, "max": max,
    "div": lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1),
}

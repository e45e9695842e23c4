"""From the loop level to LLVM IR: one module per kernel.

The module defines `body`, the kernel on an array of words (an ndarray's address, an integer, the
bits of a float64), one function per parallel region, and `entry`, a CPython METH_FASTCALL function
that makes words of its arguments and runs the body, or hands both to a recorder (see `stream.py`).
"""

from __future__ import annotations

import struct
from typing import Any

from .compile import PLAIN_ADDRESSES
from .effects import written
from .ir import Kernel, Region, Value
from .target import Target
from .types import F32, F64, I16, I32, I64, Type

__all__ = ["emit"]

HEADER = object.__basicsize__  # an ndarray's fields follow the object's head
_DATA, _DIMENSIONS, _STRIDES = HEADER, HEADER + 16, HEADER + 24

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor",
        "shl": "shl"}
_PAIRS_OF_WORDS = {16: "llvm.x86.sse2.pmadd.wd", 32: "llvm.x86.avx2.pmadd.wd",
                   64: "llvm.x86.avx512.pmaddw.d.512"}  # by bytes of a vector
_COMPARE = {"lt": ("olt", "lt"), "le": ("ole", "le"), "eq": ("oeq", "eq"), "ne": ("une", "ne")}


def emit(kernel: Kernel, target: Target) -> str:
    """The LLVM IR of a kernel for one instruction set."""
    module = _Module(target)
    _Body(module).write(kernel)
    _Entry(module).write(kernel)
    return PLAIN_ADDRESSES * kernel.plain_addresses + module.text(kernel.name)


def type_text(kind: Type) -> str:
    """LLVM's name of a type; bfloat16 is carried as its bits."""
    if kind.pointer:
        return "ptr"
    scalar = ("i16" if kind.brain else {16: "half", 32: "float", 64: "double"}[kind.bits]
              if kind.is_float else f"i{kind.bits}")
    return scalar if kind.lanes == 1 else f"<{kind.lanes} x {scalar}>"


def suffix(kind: Type) -> str:
    """The part of an intrinsic's name that stands for a type."""
    if kind.pointer:
        return "p0"
    scalar = f"{'f' if kind.is_float and not kind.brain else 'i'}{kind.bits}"
    return scalar if kind.lanes == 1 else f"v{kind.lanes}{scalar}"


def literal(number: Any, kind: Type) -> str:
    """A scalar constant as LLVM reads it: floats by their bits."""
    if kind.is_bool:
        return "true" if number else "false"
    if not kind.is_float:
        return str(int(number))
    if kind.brain:
        bits = struct.unpack("<I", struct.pack("<f", number))[0]
        return str((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    if kind.bits == 16:
        return f"0xH{struct.unpack('<H', struct.pack('<e', number))[0]:04X}"
    if kind.bits == 32 and abs(number) != float("inf"):
        number = struct.unpack("<f", struct.pack("<f", number))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def constant(number: Any, kind: Type) -> str:
    """A constant of a scalar or vector type."""
    text = literal(number, kind)
    return text if kind.lanes == 1 else f"splat ({type_text(kind.scalar)} {text})"


class _Module:
    """What all functions of one module share: declarations and finished functions."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declarations: dict[str, None] = {}
        self.tables: dict[str, str] = {}  # constant memory, by content
        self.functions: list[str] = []

    def declare(self, name: str, result: str, args: str) -> None:
        self.declarations[f"declare {result} @{name}({args})"] = None

    def table(self, numbers: tuple[Any, ...], kind: Type) -> str:
        """The name of constant memory that holds `numbers`."""
        text = type_text(kind.pointee)
        inside = ", ".join(f"{text} {literal(n, kind.pointee)}" for n in numbers)
        content = f"[{len(numbers)} x {text}] [{inside}]"
        return self.tables.setdefault(content, f"@table{len(self.tables)}")

    def text(self, name: str) -> str:
        head = [f'source_filename = "{name}"', "@_Py_NoneStruct = external global i8",
                "@lampion_recorder = external global ptr"]
        head += [f"{table} = internal constant {content}, align 64"
                 for content, table in self.tables.items()]
        return "\n".join([*head, *self.declarations, *self.functions]) + "\n"


class _Function:
    """One LLVM function under construction."""

    def __init__(self, module: _Module, names: dict[int, str] | None = None) -> None:
        self.module, self.target = module, module.target
        self.names = {} if names is None else names
        self.head: list[str] = []  # allocations, at the start of the function
        self.lines: list[str] = []
        self.count = 0
        self.block = "entry"

    # --- text -----------------------------------------------------------------------------------

    def fresh(self, base: str = "t") -> str:
        self.count += 1
        return f"{base}{self.count}"

    def put(self, text: str) -> str:
        """An instruction with a result; its name."""
        name = "%" + self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def call(self, name: str, result: str, *args: tuple[str, str]) -> str:
        """A call of an external function or intrinsic of (type, operand) pairs."""
        self.module.declare(name, result, ", ".join(kind for kind, _ in args))
        text = f"call {result} @{name}({', '.join(f'{k} {a}' for k, a in args)})"
        if result == "void":
            self.do(text)
            return ""
        return self.put(text)

    def intrinsic(self, name: str, kind: Type, *operands: str) -> str:
        """A call of an LLVM intrinsic whose operands and result have one type."""
        text = type_text(kind)
        return self.call(f"llvm.{name}.{suffix(kind)}", text, *((text, o) for o in operands))

    def operand(self, value: Value) -> str:
        """How a value is written where it is used."""
        if value.op == "const":
            number, kind = value.attr
            return self.module.table(number, kind) if kind.pointer else constant(number, kind)
        if value.op == "iota":
            scalar = type_text(value.type.scalar)
            lanes = ", ".join(f"{scalar} {i}" for i in range(value.type.lanes))
            return f"<{lanes}>"
        return self.names[id(value)]

    def typed(self, value: Value) -> str:
        return f"{type_text(value.type)} {self.operand(value)}"

    # --- regions --------------------------------------------------------------------------------

    def region(self, region: Region) -> None:
        for value in region.values:
            if value.op not in ("const", "iota"):
                self.value(value)

    def value(self, value: Value) -> None:
        emit_one = getattr(self, "_" + value.op, None)
        if emit_one is None:
            emit_one = _BY_OP[value.op].__get__(self)
        name = emit_one(value)
        if value.kind is not None:
            self.names[id(value)] = name

    def _loop(self, value: Value) -> None:
        region = value.regions[0]
        start, stop, step = (self.operand(a) for a in value.args[:3])
        inits = [self.operand(a) for a in value.args[3:]]
        head, body, done = (self.fresh(b) for b in ("head", "loop", "done"))
        self.do(f"br label %{head}")
        self.label(head)
        first = self.put(f"icmp slt i64 {start}, {stop}")
        self.do(f"br i1 {first}, label %{body}, label %{done}")
        self.label(body)
        place = len(self.lines)  # the phis are written when the last values are known
        params = ["%" + self.fresh("i") for _ in region.params]
        for param, name in zip(region.params, params, strict=True):
            self.names[id(param)] = name
        self.region(region)
        gives = [self.operand(g) for g in region.gives]
        following = self.put(f"add nsw i64 {params[0]}, {step}")
        again = self.put(f"icmp slt i64 {following}, {stop}")
        latch = self.block
        self.do(f"br i1 {again}, label %{body}, label %{done}")
        starts, nexts = [start, *inits], [following, *gives]
        self.lines[place:place] = [
            f"  {name} = phi {type_text(p.type)} [{s}, %{head}], [{n}, %{latch}]"
            for p, name, s, n in zip(region.params, params, starts, nexts, strict=True)]
        self.label(done)
        for result, init, give in zip(value.results, inits, gives, strict=True):
            self.names[id(result)] = self.put(
                f"phi {type_text(result.type)} [{init}, %{head}], [{give}, %{latch}]")

    def _branch(self, value: Value) -> None:
        yes, no, done = (self.fresh(b) for b in ("then", "else", "done"))
        self.do(f"br i1 {self.operand(value.args[0])}, label %{yes}, label %{no}")
        ends = []
        for label, region in zip((yes, no), value.regions, strict=True):
            self.label(label)
            self.region(region)
            ends.append(([self.operand(g) for g in region.gives], self.block))
            self.do(f"br label %{done}")
        self.label(done)
        for i, result in enumerate(value.results):
            pairs = ", ".join(f"[{gives[i]}, %{block}]" for gives, block in ends)
            self.names[id(result)] = self.put(f"phi {type_text(result.type)} {pairs}")

    def _parallel(self, value: Value) -> None:
        region, count = value.regions[0], self.operand(value.args[0])
        captured = _captured(region)
        context = "{ " + ", ".join(type_text(v.type) for v in captured) + " }"
        memory = "%" + self.fresh("context")
        self.head.append(f"  {memory} = alloca {context}, align 64")
        for i, v in enumerate(captured):
            place = self.put(f"getelementptr {context}, ptr {memory}, i32 0, i32 {i}")
            self.do(f"store {self.typed(v)}, ptr {place}")
        name = f"task{len(self.module.functions)}"
        self.module.functions.append("")  # keeps the place; tasks have no parallel regions inside
        self.module.functions[-1] = _task(self.module, name, region, captured, context)
        many, one, done = (self.fresh(b) for b in ("many", "one", "done"))
        several = self.put(f"icmp sgt i64 {count}, 1")
        self.do(f"br i1 {several}, label %{many}, label %{one}")
        self.label(many)
        self._shared(name, memory, count)
        self.do(f"br label %{done}")
        self.label(one)
        self.do(f"call void @{name}(ptr {memory}, i64 0, i64 {count}, i64 0)")
        self.do(f"br label %{done}")
        self.label(done)

    def _shared(self, name: str, memory: str, count: str) -> None:
        """Tasks on all threads, meanwhile without the interpreter's lock if the caller holds it."""
        job = ("ptr", "@" + name), ("ptr", memory), ("i64", count)
        release, run, end = (self.fresh(b) for b in ("release", "run", "end"))
        held = self.put("icmp ne i64 %held, 0")
        self.do(f"br i1 {held}, label %{release}, label %{run}")
        self.label(release)
        state = self.call("PyEval_SaveThread", "ptr")
        self.call("lampion_parallel", "void", *job)
        self.call("PyEval_RestoreThread", "void", ("ptr", state))
        self.do(f"br label %{end}")
        self.label(run)
        self.call("lampion_parallel", "void", *job)
        self.do(f"br label %{end}")
        self.label(end)

    # --- arithmetic -----------------------------------------------------------------------------

    def _pair(self, value: Value) -> str:
        kind = value.type
        name = _FLOAT[value.op] if kind.is_float else _INT[value.op]
        a, b = map(self.operand, value.args)
        return self.put(f"{name} {type_text(kind)} {a}, {b}")

    def _sign_of(self, value: Value) -> str:
        return "u" if value.args[0].type.kind in "ub" else "s"

    def _div(self, value: Value) -> str:
        if value.type.is_float:
            return self._pair(value)
        a, b = map(self.operand, value.args)
        return self.put(f"{self._sign_of(value)}div {type_text(value.type)} {a}, {b}")

    def _shr(self, value: Value) -> str:
        a, b = map(self.operand, value.args)
        name = "lshr" if self._sign_of(value) == "u" else "ashr"
        return self.put(f"{name} {type_text(value.type)} {a}, {b}")

    def _extreme(self, value: Value) -> str:
        kind, (a, b) = value.type, map(self.operand, value.args)
        if not kind.is_float:
            return self.intrinsic(self._sign_of(value) + value.op, kind, a, b)
        text = type_text(kind)
        order = (a, b) if value.op == "min" else (b, a)
        holds = self.put(f"fcmp olt {text} {order[0]}, {order[1]}")
        return self.put(f"select {type_text(_ones(kind))} {holds}, {text} {a}, {text} {b}")

    def _neg(self, value: Value) -> str:
        text, a = type_text(value.type), self.operand(value.args[0])
        return self.put(f"fneg {text} {a}" if value.type.is_float
                        else f"sub {text} {constant(0, value.type)}, {a}")

    def _abs(self, value: Value) -> str:
        kind, a = value.type, self.operand(value.args[0])
        if kind.is_float:
            return self.intrinsic("fabs", kind, a)
        text = type_text(kind)
        return self.call(f"llvm.abs.{suffix(kind)}", text, (text, a), ("i1", "false"))

    def _rounding(self, value: Value) -> str:
        return self.intrinsic(value.op, value.type, self.operand(value.args[0]))

    def _fma(self, value: Value) -> str:
        kind, (a, b, c) = value.type, map(self.operand, value.args)
        if self.target.has_fma:
            return self.intrinsic("fma", kind, a, b, c)
        text = type_text(kind)
        return self.put(f"fadd {text} {self.put(f'fmul {text} {a}, {b}')}, {c}")

    def _scale(self, value: Value) -> str:
        kind, (a, n) = value.type, map(self.operand, value.args)
        text = type_text(kind)
        if self.target.name != "avx512" or kind.lanes * kind.size != 64:
            return self._scaled_by_bits(value, a, n)
        name = f"llvm.x86.avx512.mask.scalef.p{'s' if kind.bits == 32 else 'd'}.512"
        return self.call(name, text, (text, a), (text, n), (text, "zeroinitializer"),
                         (f"i{kind.lanes}", "-1"), ("i32", "4"))  # 4: round as usual

    def _scaled_by_bits(self, value: Value, a: str, n: str) -> str:
        """A product with powers of 2 made of their bits: two of them, unless 2**n is normal."""
        kind = value.type
        text = type_text(kind)
        fraction, whole = (23, I32) if kind.bits == 32 else (52, I64)
        whole = whole.vector(kind.lanes)
        given = self.put(f"fptosi {text} {n} to {type_text(whole)}")
        given = self.put(f"freeze {type_text(whole)} {given}")  # where n is NaN, so is a
        parts = [given]
        if not value.attr:
            half = self.put(f"ashr {type_text(whole)} {given}, {constant(1, whole)}")
            parts = [half, self.put(f"sub {type_text(whole)} {given}, {half}")]
        for part in parts:
            bias = constant((1 << kind.bits - fraction - 2) - 1, whole)
            bits = self.put(f"add {type_text(whole)} {part}, {bias}")
            bits = self.put(f"shl {type_text(whole)} {bits}, {constant(fraction, whole)}")
            factor = self.put(f"bitcast {type_text(whole)} {bits} to {text}")
            a = self.put(f"fmul {text} {a}, {factor}")
        return a

    def _not(self, value: Value) -> str:
        ones = constant(True if value.type.is_bool else -1, value.type)
        return self.put(f"xor {self.typed(value.args[0])}, {ones}")

    def _compare(self, value: Value) -> str:
        kind, (a, b) = value.args[0].type, map(self.operand, value.args)
        ordered, plain = _COMPARE[value.op]
        if kind.is_float:
            return self.put(f"fcmp {ordered} {type_text(kind)} {a}, {b}")
        sign = "" if plain in ("eq", "ne") else self._sign_of(value)
        return self.put(f"icmp {sign}{plain} {type_text(kind)} {a}, {b}")

    def _select(self, value: Value) -> str:
        return self.put("select " + ", ".join(map(self.typed, value.args)))

    # --- conversions ----------------------------------------------------------------------------

    def _cast(self, value: Value) -> str:
        return self.convert(self.operand(value.args[0]), value.args[0].type, value.type)

    def convert(self, a: str, old: Type, new: Type) -> str:
        """The operand `a` of type `old` as `new`; narrow floats go through f32."""
        if old == new:
            return a
        if old.is_float and old.bits == 16:
            return self.convert(self._widen(a, old), F32.vector(old.lanes), new)
        if new.is_float and new.bits == 16:
            single = F32.vector(new.lanes)
            return self._narrow(self.convert(a, old, single), single, new)
        if new.is_bool:
            test = "fcmp une" if old.is_float else "icmp ne"
            return self.put(f"{test} {type_text(old)} {a}, {constant(0, old)}")
        name = _conversion(old, new)
        made = self.put(f"{name} {type_text(old)} {a} to {type_text(new)}")
        # Beyond the range the result is any value, but one value.
        return self.put(f"freeze {type_text(new)} {made}") if name.startswith("fpto") else made

    def _widen(self, a: str, old: Type) -> str:
        single = type_text(F32.vector(old.lanes))
        if not old.brain:
            return self.put(f"fpext {type_text(old)} {a} to {single}")
        wide = _bits(old.lanes)
        up = self.put(f"zext {type_text(old)} {a} to {wide}")
        moved = self.put(f"shl {wide} {up}, {_splat(16, old.lanes)}")
        return self.put(f"bitcast {wide} {moved} to {single}")

    def _narrow(self, a: str, single: Type, new: Type) -> str:
        """From f32; bfloat16 by hand, to nearest even: the instruction drops denormals."""
        text = type_text(single)
        if not new.brain:
            return self.put(f"fptrunc {text} {a} to {type_text(new)}")
        lanes, wide = single.lanes, _bits(single.lanes)
        raw = self.put(f"bitcast {text} {a} to {wide}")
        top = self.put(f"lshr {wide} {raw}, {_splat(16, lanes)}")
        odd = self.put(f"and {wide} {top}, {_splat(1, lanes)}")
        bias = self.put(f"add {wide} {odd}, {_splat(0x7FFF, lanes)}")
        summed = self.put(f"add {wide} {raw}, {bias}")
        rounded = self.put(f"lshr {wide} {summed}, {_splat(16, lanes)}")
        nan = self.put(f"fcmp uno {text} {a}, {a}")
        quiet = self.put(f"or {wide} {top}, {_splat(0x40, lanes)}")
        ones = type_text(_ones(single))
        kept = self.put(f"select {ones} {nan}, {wide} {quiet}, {wide} {rounded}")
        return self.put(f"trunc {wide} {kept} to {type_text(new)}")

    def _bitcast(self, value: Value) -> str:
        return self.put(f"bitcast {self.typed(value.args[0])} to {type_text(value.type)}")

    # --- lanes ----------------------------------------------------------------------------------

    def _splat(self, value: Value) -> str:
        vector = type_text(value.type)
        one = self.put(f"insertelement {vector} poison, {self.typed(value.args[0])}, i32 0")
        zeros = f"<{value.type.lanes} x i32> zeroinitializer"
        return self.put(f"shufflevector {vector} {one}, {vector} poison, {zeros}")

    def _extract(self, value: Value) -> str:
        return self.put(f"extractelement {self.typed(value.args[0])}, i32 {value.attr}")

    def _insert(self, value: Value) -> str:
        a, b = map(self.typed, value.args)
        return self.put(f"insertelement {a}, {b}, i32 {value.attr}")

    def _shuffle(self, value: Value) -> str:
        a, b = map(self.typed, value.args)
        return self.shuffled(a, b, value.attr)

    def shuffled(self, a: str, b: str, lanes: Any) -> str:
        """`shufflevector` of two typed operands."""
        mask = ", ".join(f"i32 {i}" for i in lanes)
        return self.put(f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{mask}>")

    def _reduce(self, value: Value) -> str:
        a, kind = self.operand(value.args[0]), value.args[0].type
        while kind.lanes > 1:
            half, text = kind.vector(kind.lanes // 2), type_text(kind)
            low, high = (self._part(f"{text} {a}", text, half, side) for side in (0, 1))
            a, kind = self.combine(value.attr, half, low, high), half
        return a

    def _part(self, typed: str, text: str, half: Type, side: int) -> str:
        if half.lanes == 1:
            return self.put(f"extractelement {typed}, i32 {side}")
        start = side * half.lanes
        return self.shuffled(typed, f"{text} poison", range(start, start + half.lanes))

    def combine(self, op: str, kind: Type, a: str, b: str) -> str:
        """One step of a reduction."""
        text = type_text(kind)
        if op in ("min", "max"):
            if not kind.is_float:
                return self.intrinsic(("u" if kind.kind in "ub" else "s") + op, kind, a, b)
            order = (a, b) if op == "min" else (b, a)
            holds = self.put(f"fcmp olt {text} {order[0]}, {order[1]}")
            return self.put(f"select {type_text(_ones(kind))} {holds}, {text} {a}, {text} {b}")
        name = _FLOAT[op] if kind.is_float else _INT[op]
        return self.put(f"{name} {text} {a}, {b}")

    def _dot(self, value: Value) -> str:
        acc, a, b = value.args
        bf16, whole = a.type.brain, value.type.lanes == 16
        if a.type.scalar == I16 and 4 * value.type.lanes in _PAIRS_OF_WORDS:
            return self._pairs_of_words(value)
        if a.type.size == 1 and self.target.has_i8_dot and whole:
            operands = [(type_text(v.type), self.operand(v)) for v in value.args]
            return self.call("llvm.x86.avx512.vpdpbusd.512", "<16 x i32>", *operands)
        if bf16 and self.target.has_bf16_dot and whole:
            wide = "<32 x bfloat>"
            x, y = (self.put(f"bitcast {self.typed(v)} to {wide}") for v in (a, b))
            return self.call("llvm.x86.avx512bf16.dpbf16ps.512", "<16 x float>",
                             ("<16 x float>", self.operand(acc)), (wide, x), (wide, y))
        return self._dot_by_parts(value)

    def _pairs_of_words(self, value: Value) -> str:
        """Multiply-add of 16 bits, where the target has it in this width."""
        acc, a, b = value.args
        size = 4 * value.type.lanes
        if self.target.name == "neon" or size > self.target.vector_bytes:
            return self._dot_by_parts(value)
        text = type_text(value.type)
        operands = [(type_text(v.type), self.operand(v)) for v in (a, b)]
        sums = self.call(_PAIRS_OF_WORDS[size], text, *operands)
        return self.put(f"add {text} {self.operand(acc)}, {sums}")

    def _dot_by_parts(self, value: Value) -> str:
        """Without the instruction: products of every group's members, added in order."""
        acc, a, b = value.args
        lanes, group = acc.type.lanes, a.type.lanes // acc.type.lanes
        total = self.operand(acc)
        for member in range(group):
            picks = range(member, a.type.lanes, group)
            x, y = (self._picked(v, picks, lanes, acc.type) for v in (a, b))
            text = type_text(acc.type)
            plus, times = ("fadd", "fmul") if acc.type.is_float else ("add", "mul")
            total = self.put(f"{plus} {text} {total}, {self.put(f'{times} {text} {x}, {y}')}")
        return total

    def _picked(self, v: Value, picks: range, lanes: int, kind: Type) -> str:
        text = type_text(v.type)
        if lanes == 1:
            part = self.put(f"extractelement {self.typed(v)}, i32 {picks[0]}")
        else:
            part = self.shuffled(self.typed(v), f"{text} poison", picks)
        return self.convert(part, v.type.vector(lanes), kind)

    # --- memory ---------------------------------------------------------------------------------

    def place(self, ptr: Value, index: Value) -> str:
        """The address of an element."""
        if index.op == "const" and index.attr[0] == 0:
            return self.operand(ptr)
        element = type_text(ptr.type.pointee)
        if ptr.type.is_bool:
            element = "i8"
        return self.put(f"getelementptr {element}, ptr {self.operand(ptr)}, "
                        f"i64 {self.operand(index)}")

    def _offset(self, value: Value) -> str:
        return self.place(*value.args)

    def _view(self, value: Value) -> str:
        return self.operand(value.args[0])

    def _scratch(self, value: Value) -> str:
        kind, count = value.attr
        name = "%" + self.fresh("scratch")
        self.head.append(f"  {name} = alloca [{count} x {type_text(kind)}], align 64")
        return name

    def _prefetch(self, value: Value) -> str:
        place = self.place(*value.args)
        return self.call("llvm.prefetch.p0", "void", ("ptr", place), ("i32", "0"), ("i32", "3"),
                         ("i32", "1"))

    def _mask(self, value: Value) -> str:
        """A mask as a vector, also of one lane."""
        operand = self.operand(value)
        return operand if value.type.lanes > 1 else self.put(
            f"insertelement <1 x i1> poison, i1 {operand}, i32 0")

    def _load(self, value: Value) -> str:
        ptr, index, *mask = value.args
        place, kind = self.place(ptr, index), value.type
        if not mask:
            return self.put(f"load {type_text(kind)}, ptr {place}, align {kind.size}")
        lanes, text = kind.lanes, _vector_text(kind)
        made = self.call(f"llvm.masked.load.{_vector_suffix(kind)}.p0", text,
                         (f"ptr align {kind.size}", place),
                         (f"<{lanes} x i1>", self._mask(mask[0])), (text, "zeroinitializer"))
        return made if lanes > 1 else self.put(f"extractelement {text} {made}, i32 0")

    def _store(self, value: Value) -> str:
        ptr, index, given, *mask = value.args
        place, kind = self.place(ptr, index), given.type
        if not mask:
            self.do(f"store {self.typed(given)}, ptr {place}, align {kind.size}")
            return ""
        lanes, text, operand = kind.lanes, _vector_text(kind), self.operand(given)
        if lanes == 1:
            operand = self.put(f"insertelement {text} poison, {self.typed(given)}, i32 0")
        return self.call(f"llvm.masked.store.{_vector_suffix(kind)}.p0", "void", (text, operand),
                         (f"ptr align {kind.size}", place),
                         (f"<{lanes} x i1>", self._mask(mask[0])))

    def _places(self, ptr: Value, indices: Value) -> str:
        lanes, element = indices.type.lanes, type_text(ptr.type.pointee)
        index = type_text(indices.type)
        return self.put(f"getelementptr {element}, ptr {self.operand(ptr)}, "
                        f"{index} {self.operand(indices)}") if lanes > 1 else self.place(
                            ptr, indices)

    def _held(self, mask: list[Value], lanes: int) -> str:
        return self._mask(mask[0]) if mask else "splat (i1 true)"

    def _gather(self, value: Value) -> str:
        ptr, indices, *mask = value.args
        lanes, kind = indices.type.lanes, value.type
        if lanes == 1:
            return self._load(value) if mask else self.put(
                f"load {type_text(kind)}, ptr {self.place(ptr, indices)}, align {kind.size}")
        places, text = self._places(ptr, indices), type_text(kind)
        return self.call(f"llvm.masked.gather.{suffix(kind)}.v{lanes}p0", text,
                         (f"<{lanes} x ptr> align {kind.size}", places),
                         (f"<{lanes} x i1>", self._held(mask, lanes)), (text, "zeroinitializer"))

    def _scatter(self, value: Value) -> str:
        ptr, indices, given, *mask = value.args
        lanes, kind = indices.type.lanes, given.type
        if lanes == 1:
            return self._store(value)
        places = self._places(ptr, indices)
        return self.call(f"llvm.masked.scatter.{suffix(kind)}.v{lanes}p0", "void",
                         (type_text(kind), self.operand(given)),
                         (f"<{lanes} x ptr> align {kind.size}", places),
                         (f"<{lanes} x i1>", self._held(mask, lanes)))


_BY_OP: dict[str, Any] = {
    **dict.fromkeys(("add", "sub", "mul", "and", "or", "xor", "shl"), _Function._pair),
    **dict.fromkeys(("min", "max"), _Function._extreme),
    **dict.fromkeys(("sqrt", "floor", "ceil", "trunc", "rint"), _Function._rounding),
    **dict.fromkeys(_COMPARE, _Function._compare),
}


# Code around the loops is not worth LLVM's time: without, simple kernels compile a quarter sooner.
_GLUE = " noinline optnone"


def _runs_once(region: Region) -> bool:
    """Whether no loop is outside of the tasks."""
    return all(v.op == "parallel" or (v.op != "loop" and all(map(_runs_once, v.regions)))
               for v in region.values)


class _Body(_Function):
    """The kernel, without Python: it may run with the interpreter's lock released."""

    def write(self, kernel: Kernel) -> None:
        """`body(words, held)`; held: whether the caller holds the interpreter's lock."""
        places = {name: i for i, (_, name, _) in enumerate(kernel.params)}
        self.objects: dict[str, str] = {}
        for value in kernel.inputs:
            self.names[id(value)] = self._input(value.attr, places[value.attr[2]])
        self.region(kernel.body)
        quick = _GLUE if _runs_once(kernel.body) else ""
        lines = [f"define internal void @body(ptr %words, i64 %held){quick} {{", "entry:",
                 *self.head, *self.lines, "  ret void", "}"]
        self.module.functions.append("\n".join(lines))

    def _input(self, attr: tuple[Any, ...], place: int) -> str:
        what, kind, name = attr[:3]
        if what == "scalar":
            word = self._word(place, "double" if kind.is_float else "i64")
            return self.convert(word, F64, kind) if kind.is_float else word
        obj = self.objects.get(name)
        if obj is None:
            obj = self.objects[name] = self._word(place, "ptr")
        if what == "data":
            data = self.put(f"load ptr, ptr {self._field(obj, _DATA)}")
            none = self.put(f"icmp eq ptr {obj}, @_Py_NoneStruct")
            return self.put(f"select i1 {none}, ptr null, ptr {data}")
        field = _DIMENSIONS if what == "size" else _STRIDES
        table = self.put(f"load ptr, ptr {self._field(obj, field)}")
        number = self.put(f"load i64, ptr {self._field(table, 8 * attr[3])}")
        return number if what == "size" else self.put(f"sdiv exact i64 {number}, {attr[4]}")

    def _word(self, place: int, kind: str) -> str:
        return self.put(f"load {kind}, ptr {self._field('%words', 8 * place)}")

    def _field(self, obj: str, offset: int) -> str:
        return self.put(f"getelementptr i8, ptr {obj}, i64 {offset}")


class _Entry(_Function):
    """The function that Python calls."""

    def write(self, kernel: Kernel) -> None:
        """Words of the arguments; then the body, or whoever records the launches."""
        self.do(f"%words = alloca [{len(kernel.params)} x i64], align 16")
        read = {value.attr[2]: value.attr[1] for value in kernel.inputs
                if value.attr[0] == "scalar"}
        for i, (_, name, _) in enumerate(kernel.params):
            self._argument(i, read.get(name))
        self.module.declare("Py_IncRef", "void", "ptr")
        self.module.functions.append("\n".join([
            f"define ptr @entry(ptr %self, ptr %args, i64 %count){_GLUE} {{", "entry:", *self.lines,
            _DISPATCH]))
        names = written(kernel)
        mask = sum(1 << i for i, (_, name, _) in enumerate(kernel.params) if name in names)
        table = self.module.table(tuple(
            _signed(mask >> shift) for shift in range(0, len(kernel.params), 64)), I64.to())
        self.module.functions.append(_WRITTEN.format(table))

    def _argument(self, i: int, scalar: Type | None) -> None:
        place = self.put(f"getelementptr ptr, ptr %args, i64 {i}")
        word = self.put(f"load ptr, ptr {place}")
        kind = "ptr"
        if scalar is not None:
            name, kind = (("PyFloat_AsDouble", "double") if scalar.is_float
                          else ("PyLong_AsLongLong", "i64"))
            word = self.call(name, kind, ("ptr", word))
        self.do(f"store {kind} {word}, ptr {self.put(f'getelementptr i64, ptr %words, i64 {i}')}")


def _signed(bits: int) -> int:
    """The low 64 bits as an i64."""
    return (bits + (1 << 63)) % (1 << 64) - (1 << 63)


# Bits of a table: which arguments the body stores to.
_WRITTEN = "define ptr @written() {{ ret ptr {} }}"

_DISPATCH = """\
  %recorder = load ptr, ptr @lampion_recorder
  %eager = icmp eq ptr %recorder, null
  br i1 %eager, label %run, label %record
run:
  call void @body(ptr %words, i64 1)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
record:
  %answer = call ptr %recorder(ptr %self, ptr %args, i64 %count, ptr %words, ptr @body)
  ret ptr %answer
}"""


def _task(module: _Module, name: str, region: Region, captured: list[Value],
          context: str) -> str:
    """The function that runs tasks `first` to `last` of a parallel region."""
    fn = _Function(module)
    for i, v in enumerate(captured):
        place = fn.put(f"getelementptr {context}, ptr %context, i32 0, i32 {i}")
        fn.names[id(v)] = fn.put(f"load {type_text(v.type)}, ptr {place}")
    fn.do("br label %head")
    fn.label("head")
    task, worker = region.params
    fn.names[id(task)], fn.names[id(worker)] = "%task", "%worker"
    fn.do("%some = icmp slt i64 %first, %last")
    fn.do("br i1 %some, label %turn, label %over")
    fn.label("turn")
    turn = len(fn.lines)
    fn.region(region)
    fn.do("%following = add nsw i64 %task, 1")
    fn.do("%again = icmp slt i64 %following, %last")
    latch = fn.block
    fn.do("br i1 %again, label %turn, label %over")
    fn.lines.insert(turn, f"  %task = phi i64 [%first, %head], [%following, %{latch}]")
    lines = [f"define internal void @{name}(ptr noalias %context, i64 %first, i64 %last, "
             "i64 %worker) {", "entry:", *fn.head, *fn.lines, "over:", "  ret void", "}"]
    return "\n".join(lines)


def _captured(region: Region) -> list[Value]:
    """The values that a region uses and does not define, in order of first use."""
    used: dict[int, Value] = {}
    defined: set[int] = set()

    def walk(part: Region) -> None:
        defined.update(map(id, part.params))
        for value in part.values:
            for a in value.args:
                used.setdefault(id(a), a)
            for inner in value.regions:
                walk(inner)
            defined.add(id(value))
            defined.update(map(id, value.results))
        for g in part.gives:
            used.setdefault(id(g), g)
    walk(region)
    return [v for key, v in used.items() if key not in defined and v.op not in ("const", "iota")]


def _conversion(old: Type, new: Type) -> str:
    """LLVM's instruction between two different number types of 1, 8 to 64 bits."""
    if old.is_float and new.is_float:
        return "fpext" if new.bits > old.bits else "fptrunc"
    if old.is_float:
        return "fptosi" if new.kind == "i" else "fptoui"
    if new.is_float:
        return "sitofp" if old.kind == "i" else "uitofp"
    if new.bits > old.bits:
        return "sext" if old.kind == "i" else "zext"
    return "trunc" if new.bits < old.bits else "bitcast"


def _ones(kind: Type) -> Type:
    return Type("b", 1, kind.lanes)


def _bits(lanes: int) -> str:
    return "i32" if lanes == 1 else f"<{lanes} x i32>"


def _splat(number: int, lanes: int) -> str:
    return str(number) if lanes == 1 else f"splat (i32 {number})"


def _vector_text(kind: Type) -> str:
    return type_text(kind) if kind.lanes > 1 else f"<1 x {type_text(kind)}>"


def _vector_suffix(kind: Type) -> str:
    return suffix(kind) if kind.lanes > 1 else "v1" + suffix(kind)

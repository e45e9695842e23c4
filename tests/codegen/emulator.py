"""Runs AArch64 kernels on any machine: object, loader and relocations are the real ones.

The processor is emulated (Unicorn). Arrays are copied in with a struct like NumPy's in front of
them and copied back; the C API and libm are answered in Python.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lampion.runtime import loader
from lampion.runtime.elf import ObjectFile

unicorn = pytest.importorskip("unicorn")
arm64 = pytest.importorskip("unicorn.arm64_const")

CODE, OUTSIDE, HEAP, STACK = 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x8000_0000
NONE, RECORDER, RETURN = OUTSIDE + 0x8000, OUTSIDE + 0x8800, OUTSIDE + 0xFFF0
X = [getattr(arm64, f"UC_ARM64_REG_X{i}") for i in range(29)]


class Machine:
    """An AArch64 processor with one object loaded."""

    def __init__(self, data: bytes, heap: int = 1 << 24) -> None:
        self.processor = uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm64.UC_CPU_ARM64_MAX)
        self.names: list[str] = []
        parsed = ObjectFile(data)
        layout = loader.plan(parsed, 4096)
        image, self.symbols = loader.link(parsed, layout, CODE, self._outside)
        uc.mem_map(CODE, layout.size)
        uc.mem_map(OUTSIDE, 0x10000)
        uc.mem_map(HEAP, heap)
        uc.mem_map(STACK - (1 << 20), 1 << 20)
        uc.mem_write(CODE, bytes(image))
        uc.mem_write(OUTSIDE, struct.pack("<I", 0xD65F03C0) * 0x4000)  # ret
        uc.mem_write(RECORDER, bytes(8))  # nobody records
        uc.hook_add(unicorn.UC_HOOK_CODE, self._answer, begin=OUTSIDE, end=OUTSIDE + 0x7FFF)
        uc.reg_write(arm64.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # vector registers on
        self.top = HEAP
        self.calls: list[str] = []
        self.failure: Exception | None = None

    def _outside(self, name: str) -> int:
        if name == "_Py_NoneStruct":
            return NONE
        if name == "lampion_recorder":
            return RECORDER
        self.names.append(name)
        return OUTSIDE + 16 * (len(self.names) - 1)

    def call(self, name: str, *words: int) -> int:
        """Calls a function with integer or pointer arguments."""
        uc = self.processor
        for register, word in zip(X, words):
            uc.reg_write(register, word & 0xFFFFFFFFFFFFFFFF)
        uc.reg_write(arm64.UC_ARM64_REG_SP, STACK - 4096)
        uc.reg_write(arm64.UC_ARM64_REG_X30, RETURN)
        uc.emu_start(self.symbols[name], RETURN)
        if self.failure is not None:
            raise self.failure
        return uc.reg_read(X[0])

    def entry(self, name: str, *arguments: Any) -> None:
        """Calls a METH_FASTCALL entry; arrays are changed in place, as by a kernel."""
        self.top, self.objects = HEAP, {}
        placed = [self._place(argument) for argument in arguments]
        array = self._allocate(8 * len(placed) + 8)
        self.processor.mem_write(array, struct.pack(f"<{len(placed)}Q", *placed))
        assert self.call(name, 0, array, len(placed)) == NONE
        for argument, address in zip(arguments, placed):
            if isinstance(argument, np.ndarray):
                self._copy_back(argument, address)

    def _allocate(self, size: int) -> int:
        place = self.top
        self.top += -(-size // 64) * 64 + 64
        return place

    def _place(self, argument: Any) -> int:
        """An object in the machine's memory."""
        if argument is None:
            return NONE
        head = self._allocate(128)
        self.objects[head] = argument
        if isinstance(argument, np.ndarray):
            low, high = np.lib.array_utils.byte_bounds(argument)
            data = self._allocate(high - low) + 0
            self.objects[head] = (data, low)
            memory = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * (high - low))
                                           .from_address(low)) if high > low else b""
            self.processor.mem_write(data, bytes(memory))
            sizes = self._allocate(16 * argument.ndim + 16)
            self.processor.mem_write(sizes, struct.pack(
                f"<{2 * argument.ndim}q", *argument.shape, *argument.strides))
            self.processor.mem_write(head + object.__basicsize__, struct.pack(
                "<QqQQ", data + argument.ctypes.data - low, argument.ndim, sizes,
                sizes + 8 * argument.ndim))
        return head

    def _copy_back(self, array: np.ndarray[Any, Any], head: int) -> None:
        if not array.flags.writeable or not array.size:
            return
        data, low = self.objects[head]
        size = np.lib.array_utils.byte_bounds(array)[1] - low
        content = self.processor.mem_read(data, size)
        np.ctypeslib.ctypes.memmove(low, bytes(content), size)

    def _answer(self, uc: Any, address: int, size: int, _: Any) -> None:
        """Does what an external function would; the code there is only a return."""
        name = self.names[(address - OUTSIDE) // 16]
        self.calls.append(name)
        try:
            ANSWERS[name](self) if name in ANSWERS else self._mathematics(name)
        except Exception as error:
            self.failure = error
            uc.emu_stop()

    def _mathematics(self, name: str) -> None:
        single = name.endswith("f") and name[:-1] in dir(math)
        function: Callable[..., float] = getattr(math, name[:-1] if single else name)
        count = 2 if name.startswith(("fmod", "pow", "atan2", "remainder")) else 1
        letter, form = ("S", "f") if single else ("D", "d")
        words = [self.processor.reg_read(getattr(arm64, f"UC_ARM64_REG_{letter}{i}"))
                 for i in range(count)]
        numbers = [struct.unpack_from("<" + form, struct.pack("<Q", word))[0] for word in words]
        result = struct.pack("<" + form, function(*numbers))
        self.processor.reg_write(getattr(arm64, f"UC_ARM64_REG_{letter}0"),
                                 int.from_bytes(result, "little"))

    def words(self, count: int) -> list[int]:
        return [self.processor.reg_read(X[i]) for i in range(count)]

    def give(self, word: int) -> None:
        self.processor.reg_write(X[0], word & 0xFFFFFFFFFFFFFFFF)


def _parallel(machine: Machine) -> None:
    """All tasks at once, on this thread: a jump to fn(ctx, 0, count, 0)."""
    fn, ctx, count = machine.words(3)
    for register, word in zip(X, (ctx, 0, count, 0)):
        machine.processor.reg_write(register, word)
    machine.processor.reg_write(arm64.UC_ARM64_REG_PC, fn)


def _integer(machine: Machine) -> None:
    machine.give(int(machine.objects[machine.words(1)[0]]))


def _double(machine: Machine) -> None:
    value = float(machine.objects[machine.words(1)[0]])
    machine.processor.reg_write(arm64.UC_ARM64_REG_D0,
                                int.from_bytes(struct.pack("<d", value), "little"))


def _move(machine: Machine) -> None:
    to, source, size = machine.words(3)
    machine.processor.mem_write(to, bytes(machine.processor.mem_read(source, size)))


def _fill(machine: Machine) -> None:
    to, byte, size = machine.words(3)
    machine.processor.mem_write(to, bytes([byte & 255]) * size)


def _malloc(machine: Machine) -> None:
    machine.give(machine._allocate(machine.words(1)[0]))


ANSWERS: dict[str, Callable[[Machine], None]] = {
    "PyLong_AsLongLong": _integer, "PyLong_AsSsize_t": _integer, "PyFloat_AsDouble": _double,
    "PyEval_SaveThread": lambda machine: machine.give(0),
    "PyEval_RestoreThread": lambda machine: None, "PyErr_Occurred": lambda machine: machine.give(0),
    "Py_IncRef": lambda machine: None, "memcpy": _move, "memmove": _move, "memset": _fill,
    "pthread_mutex_init": lambda machine: machine.give(0),
    "pthread_cond_init": lambda machine: machine.give(0), "malloc": _malloc,
    "free": lambda machine: None, "lampion_parallel": _parallel,
}

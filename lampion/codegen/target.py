"""Instruction sets: what kernels are made for, found out without asking a compiler."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

from .types import Type

__all__ = ["TARGETS", "Target", "host", "target"]


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction set: the width of its vectors and what LLVM is told about it."""

    name: str
    vector_bytes: int
    registers: int  # vector registers
    has_fma: bool
    triple: str
    cpu: str
    features: str
    has_masks: bool = False  # loads and stores under a mask are one instruction
    has_bf16_dot: bool = False
    has_i8_dot: bool = False

    def lanes(self, element: Type) -> int:
        """Elements of a vector register."""
        return self.vector_bytes // element.size


_X86 = "x86_64-unknown-linux-gnu"
_ARM = "aarch64-unknown-linux-gnu"
_SSE = "+sse4.2,+popcnt,+cx16"
_AVX2 = _SSE + ",+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_AVX512 = _AVX2 + ",+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl,-prefer-256-bit"

TARGETS = {
    "sse": Target("sse", 16, 16, False, _X86, "x86-64", _SSE),
    "avx2": Target("avx2", 32, 16, True, _X86, "x86-64-v3", _AVX2),
    "avx512": Target("avx512", 64, 32, True, _X86, "x86-64-v4", _AVX512, True),
    "neon": Target("neon", 16, 32, True, _ARM, "generic", "+neon,+reserve-x18"),
}
_NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "fma", "f16c", "bmi2"},
    "avx2": {"avx2", "fma", "f16c", "bmi1", "bmi2"},
}


def target(name: str) -> Target:
    """The target of that name; "native" is the best that this processor has."""
    if name == "native":
        return host()
    if name not in TARGETS:
        raise ValueError(f"no instruction set '{name}': expected native, {', '.join(TARGETS)}")
    return TARGETS[name]


@cache
def host() -> Target:
    """The best target that this processor runs."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return TARGETS["neon"]
    flags = processor_flags()
    for name, needed in _NEEDS.items():
        if needed <= flags:
            return _with_extras(TARGETS[name], flags)
    return TARGETS["sse"]


def _with_extras(base: Target, flags: frozenset[str]) -> Target:
    """The target with the dot products that the processor has beyond its level."""
    bf16 = base.name == "avx512" and "avx512_bf16" in flags
    i8 = base.name == "avx512" and "avx512_vnni" in flags
    features = base.features + ",+avx512bf16" * bf16 + ",+avx512vnni" * i8
    return Target(base.name, base.vector_bytes, base.registers, base.has_fma, base.triple,
                  base.cpu, features, base.has_masks, bf16, i8)


@cache
def processor_flags() -> frozenset[str]:
    """The processor's feature flags by Linux's names; empty where they cannot be found out."""
    try:
        if sys.platform == "darwin":
            return _mac_flags()
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            line = next((text for text in file if text.startswith("flags")), "")
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def _mac_flags() -> frozenset[str]:
    names = ["machdep.cpu.features", "machdep.cpu.leaf7_features"]
    text = subprocess.run(["sysctl", "-n", *names], capture_output=True, text=True, timeout=5,
                          check=False).stdout
    return frozenset(text.lower().replace("avx1.0", "avx").split())

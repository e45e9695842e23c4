"""LLVM text to machine code: a relocatable ELF object, or assembly to read.

llvmlite is imported when the first kernel must be compiled, never before. Kernels arrive with
explicit vectors and loops, so no mid-level pass runs: over 120 kernels simplifycfg, instcombine
and gvn together took a sixth more time for 1 % fewer instructions, LLVM's O1 more than twice the
time for 7 % more instructions. Code generation itself does common subexpressions, loop invariants
and addresses.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

from ..runtime import cache

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

    from .target import Target

__all__ = ["PLAIN_ADDRESSES", "CompileError", "assembly", "cached_object", "closed",
           "compile_object"]

PLAIN_ADDRESSES = "; plain addresses\n"  # text that begins so skips loop strength reduction


class CompileError(RuntimeError):
    """LLVM refused a module: the text is malformed, or the target cannot do what it asks."""


class _Gate:
    """One thread at a time is inside LLVM, and none while the process forks or ends.

    A child that is forked in the middle of a compilation inherits LLVM's locks as they are then.
    """

    lock = threading.Lock()
    held = False  # by a fork that is under way
    closed = ""  # why nothing can be compiled any more


_PATIENCE = 5.0  # seconds that a fork, and the end of the process, wait for a compilation


def closed() -> str:
    """Why this process cannot compile any more; empty where it can."""
    return _Gate.closed


def _alone() -> threading.Lock:
    if _Gate.closed:
        raise CompileError(_Gate.closed)
    return _Gate.lock


def _before_fork() -> None:
    _Gate.held = _Gate.lock.acquire(timeout=_PATIENCE)


def _after_fork_in_parent() -> None:
    if _Gate.held:
        _Gate.lock.release()


def _after_fork_in_child() -> None:
    _Gate.lock = threading.Lock()
    if not _Gate.held:
        _Gate.closed = "the process was forked in the middle of a compilation"


def _at_exit() -> None:
    _Gate.closed = "the interpreter ends"
    _Gate.lock.acquire(timeout=_PATIENCE)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)


def compile_object(text: str, target: Target, opt: int = 2) -> bytes:
    """The ELF object of a module of LLVM `text`, position independent, for `runtime.loader.load`.

    `opt` is LLVM's code generation level, 0 to 3. Raises CompileError where LLVM refuses.
    """
    with _alone():
        return _object(text, target, opt)


def _object(text: str, target: Target, opt: int) -> bytes:
    machine, module = _prepared(text, target, opt)
    try:
        return machine.emit_object(module)
    except RuntimeError as error:
        raise CompileError(f"code generation for {target.cpu}: {error}") from None


def cached_object(name: str, text: str, target: Target) -> bytes:
    """What `compile_object` makes of `text`, from the cache on disk where it is."""
    digest = hashlib.blake2b(f"{target!r}{text}".encode(), digest_size=20).hexdigest()
    found = cache.get(f"{name}-{digest}")
    if found is None:
        found = compile_object(text, target)
        cache.put(f"{name}-{digest}", found)
    return found


def assembly(text: str, target: Target, opt: int = 2) -> str:
    """The assembly of a module of LLVM `text`: the same instructions as `compile_object` emits."""
    with _alone():
        return _assembly(text, target, opt)


def _assembly(text: str, target: Target, opt: int) -> str:
    machine, module = _prepared(text, target, opt)
    return machine.emit_assembly(module)


def _prepared(text: str, target: Target, opt: int) -> tuple[TargetMachine, ModuleRef]:
    """The target machine, and `text` parsed and verified."""
    import llvmlite.binding as llvm

    if " asm " in text:  # LLVM ends the process where it has no assembler for the target
        raise CompileError("kernels may not contain inline assembly")
    machine = _machine(target.triple, target.cpu, target.features, opt)
    _Passes.choose(text.startswith(PLAIN_ADDRESSES))
    try:
        module = llvm.parse_assembly(text, context=llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise CompileError(_with_line(str(error), text)) from None
    return machine, module


class _Passes:
    """LLVM's options are one set for the process."""

    plain = False

    @classmethod
    def choose(cls, plain: bool) -> None:
        import llvmlite.binding as llvm

        if plain is not cls.plain:
            llvm.set_option("", f"-disable-lsr={str(plain).lower()}")
            cls.plain = plain


@functools.lru_cache(maxsize=16)
def _machine(triple: str, cpu: str, features: str, opt: int) -> Any:
    import llvmlite.binding as llvm

    _initialize(triple)
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise CompileError(f"LLVM has no target {triple!r}: {error}") from None
    # Small code model: an image is one mapping, far below 2 GiB.
    return target.create_target_machine(cpu=cpu, features=features, opt=opt, reloc="pic",
                                        codemodel="small")


@functools.lru_cache(maxsize=8)
def _initialize(triple: str) -> None:
    """The native target alone where that is enough: all targets take several milliseconds."""
    import llvmlite.binding as llvm

    if triple.split("-")[0] == llvm.get_default_triple().split("-")[0]:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def _with_line(message: str, text: str) -> str:
    """LLVM's message, with the line of `text` that it names."""
    parts = message.split(":")
    for part in parts[:4]:
        if part.strip().isdigit():
            lines = text.splitlines()
            number = int(part)
            line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
            return f"LLVM refused line {number}: {line}{os.linesep}{message}"
    return f"LLVM refused the module: {message}"

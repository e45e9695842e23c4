"""LLVM text to objects and assembly, and what is said when LLVM refuses."""

import subprocess
import sys
from dataclasses import replace

import pytest

from lampion.codegen.compile import CompileError, assembly, compile_object
from lampion.codegen.target import TARGETS, host
from lampion.runtime.elf import ObjectFile

ADD = """define void @add(ptr %out, ptr %x) {
  %v = load <16 x float>, ptr %x, align 4
  %s = fadd <16 x float> %v, %v
  store <16 x float> %s, ptr %out, align 4
  ret void
}
"""


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_gives_an_elf_object(name):
    found = ObjectFile(compile_object(ADD, TARGETS[name]))
    assert [s.name for s in found.symbols if s.is_function] == ["add"]


def test_the_same_text_gives_the_same_object():
    assert compile_object(ADD, host()) == compile_object(ADD, host())


def test_assembly_is_what_the_object_holds():
    assert "add:" in assembly(ADD, host())
    assert "fadd\tv" in assembly(ADD, TARGETS["neon"])


@pytest.mark.parametrize("text, words", [
    ("define void @f() {\n  ret i32 0\n}", "line 2: ret i32 0"),
    ("define i32 @f() {\n  %a = add i32 %b, 1\n  %b = add i32 1, 2\n  ret i32 %a\n}",
     "does not dominate all uses"),
    ("define void @f() {\n  call void asm sideeffect \"pause\", \"\"()\n  ret void\n}",
     "inline assembly"),
])
def test_refusals_say_what_and_where(text, words):
    with pytest.raises(CompileError, match=words):
        compile_object(text, host())


def test_unknown_targets_are_named():
    with pytest.raises(CompileError, match="no target 'z80-none-none'"):
        compile_object(ADD, replace(host(), triple="z80-none-none"))


def test_nothing_is_imported_before_the_first_kernel():
    code = ("import sys, lampion.codegen.compile, lampion.codegen.pool; "
            "print('llvmlite' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Objects become executable memory: relocations, rights, lifetime; damaged ones are refused."""

import ctypes
import gc
import random
import struct
import sys
import weakref
from pathlib import Path

import native_modules
import numpy as np
import pytest

from lampion.codegen.compile import compile_object
from lampion.codegen.target import TARGETS, host
from lampion.runtime import loader, relocate
from lampion.runtime.elf import AARCH64, X86_64, BadObject, ObjectFile
from lampion.runtime.native import function


def made(text, target=None):
    return compile_object(text, target or host())


@pytest.fixture(scope="module")
def mixed():
    return made(native_modules.MIXED)


def test_code_constants_variables_and_calls_out(mixed):
    image = loader.load(mixed)
    assert set(image.symbols) == {"chosen", "scaled", "fill", "entry"}
    assert "chosen" in repr(image)
    chosen = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(image.symbols["chosen"])
    assert [chosen(i) for i in range(6)] == [7, 91, 1, 1, 13, 5]
    assert [chosen(2) for _ in range(3)] == [2, 3, 4]  # a variable of the image
    scaled = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(image.symbols["scaled"])
    assert [scaled(i) for i in range(4)] == [3.5, 7.0, 10.5, 14.0]
    memory = (ctypes.c_uint8 * 100)()
    fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(image.symbols["fill"])
    fill(ctypes.addressof(memory), 99)
    assert bytes(memory) == b"\x07" * 99 + b"\0"


def test_two_images_of_one_object_share_nothing(mixed):
    one, two = loader.load(mixed), loader.load(mixed)
    count = [ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(image.symbols["chosen"])
             for image in (one, two)]
    assert [count[0](2), count[0](2), count[1](2)] == [1, 2, 1]


def test_entry_as_a_python_function(mixed):
    image = loader.load(mixed)
    entry, out = function(image.symbols["entry"], "entry", image), np.zeros(1)
    assert entry(out, 1, 0.5) is None
    assert out[0] == 91.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of mappings")
def test_memory_is_never_writable_and_executable_and_goes_with_the_image(mixed):
    def rights(image):
        found = {}
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            for page in range(image.address, image.address + image.size, 4096):
                if first <= page < last:
                    found[page - image.address] = line.split()[1]
        return found

    image = loader.load(mixed)
    assert set(rights(image).values()) == {"r-xp", "r--p", "rw-p"}
    gone, address = weakref.ref(image), image.address
    entry = function(image.symbols["entry"], "entry", image)
    del image
    gc.collect()
    assert gone() is not None  # the function holds it
    entry(np.zeros(1), 1, 0.5)
    del entry
    gc.collect()
    assert gone() is None
    assert not any(line.startswith(f"{address:x}-") and "x" in line.split()[1]
                   for line in Path("/proc/self/maps").read_text().splitlines())


def test_names_that_kernels_may_not_use():
    text = "declare i32 @system(ptr)\ndefine i32 @f(ptr %p) {\n %r = call i32 @system(ptr %p)\n" \
           " ret i32 %r\n}"
    with pytest.raises(loader.UnknownSymbol, match="'system' is not among the functions"):
        loader.load(made(text))


def test_every_allowed_name_is_one_that_a_process_has_or_the_error_says_so():
    for name in sorted(loader._PYTHON | loader._SYSTEM):
        if name != "bzero" or sys.platform == "darwin":
            assert loader.resolve(name)
    with pytest.raises(loader.UnknownSymbol):
        loader.resolve("no_such_function")


def test_providers_are_asked_once(monkeypatch):
    asked = []
    monkeypatch.setitem(loader.PROVIDERS, "provided", lambda: asked.append(1) or 4711)
    try:
        assert [loader.resolve("provided") for _ in range(3)] == [4711] * 3
        assert asked == [1]
    finally:
        del loader.EXTERNALS["provided"]


def test_other_processors_objects_are_refused():
    other = "neon" if host().name != "neon" else "sse"
    with pytest.raises(BadObject, match="object for ELF machine"):
        loader.load(made("define void @f() {\n ret void\n}", TARGETS[other]))


def test_thread_local_variables_are_refused():
    text = "@v = thread_local global i64 0\ndefine ptr @f() {\n ret ptr @v\n}"
    with pytest.raises(BadObject, match="not supported"):
        loader.load(made(text))


def test_writable_code_is_refused(mixed):
    damaged = bytearray(mixed)
    table, = struct.unpack_from("<Q", mixed, 40)
    text = next(at for at in range(table, len(mixed), 64)
                if struct.unpack_from("<Q", mixed, at + 8)[0] == 6)  # read and execute
    struct.pack_into("<Q", damaged, text + 8, 7)
    with pytest.raises(BadObject, match="writable and executable"):
        loader.load(bytes(damaged))


def linked(data):
    """Everything but the mapping."""
    parsed = ObjectFile(data)
    return loader.link(parsed, loader.plan(parsed), 0x10000000, lambda name: 0x7F0012345670)


@pytest.mark.parametrize("target", ["sse", "neon"])
def test_damaged_objects_are_refused_or_harmless(target):
    whole = made(native_modules.MIXED, TARGETS[target])
    linked(whole)
    rng = random.Random(0)
    for size in range(0, len(whole), 7):
        with pytest.raises(BadObject):
            linked(whole[:size])
    refused = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 127, 128, 255))
        try:
            linked(bytes(damaged))
        except BadObject:
            refused += 1
    assert refused > 100


def test_headers_that_lie():
    whole = made(native_modules.MIXED)
    for offset, form, value in ((0, "<B", 0), (4, "<B", 1), (16, "<H", 2), (18, "<H", 3),
                                (40, "<Q", 1 << 40), (58, "<H", 63), (60, "<H", 60000),
                                (62, "<H", 60000)):
        damaged = bytearray(whole)
        struct.pack_into(form, damaged, offset, value)
        with pytest.raises(BadObject):
            linked(bytes(damaged))


def written(machine, kind, value, place, start=0):
    image = bytearray(struct.pack("<Q", start))
    relocate.KINDS[machine][kind][1](image, 0, value, place)
    return struct.unpack("<Q", image)[0]


def test_x86_relocations():
    assert written(X86_64, 1, 0x123456789ABC, 0) == 0x123456789ABC
    assert written(X86_64, 2, 0x1000, 0x1004) == 0xFFFFFFFC
    assert written(X86_64, 11, -2, 0) == 0xFFFFFFFE
    assert written(X86_64, 24, 0x1000, 0x1008) == 0xFFFFFFFFFFFFFFF8
    for kind, value in ((2, 1 << 31), (2, -(1 << 31) - 1), (11, 1 << 31), (10, 1 << 32),
                        (10, -1)):
        with pytest.raises(BadObject, match="does not fit"):
            written(X86_64, kind, value, 0)


def test_arm_relocations():
    adrp, add, ldr, branch = 0x90000010, 0x91000210, 0xF9400211, 0x94000000
    assert written(AARCH64, 275, 0x12345678, 0x12340FFF, adrp) == adrp | 1 << 29 | 1 << 5
    assert written(AARCH64, 275, 0x1000, 0x2000, adrp) == adrp | 3 << 29 | 0x7FFFF << 5
    assert written(AARCH64, 277, 0x12345678, 0, add) == add | 0x678 << 10
    assert written(AARCH64, 286, 0x12345678, 0, ldr) == ldr | 0xCF << 10
    assert written(AARCH64, 299, 0x12345670, 0, ldr) == ldr | 0x67 << 10
    assert written(AARCH64, 283, 0x1000, 0x2000, branch) == branch | 0x3FFFC00
    for kind, value in ((275, 1 << 33), (283, 1 << 27), (283, 2), (286, 0x1004), (274, 1 << 20)):
        with pytest.raises(BadObject):
            written(AARCH64, kind, value, 0)

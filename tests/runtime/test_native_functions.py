"""Native functions behave as builtins; the layout of ndarray is checked before it is relied on."""

import ctypes
import gc
import sys
import weakref

import native_modules
import numpy as np
import pytest

from lampion.codegen.compile import compile_object
from lampion.codegen.target import host
from lampion.runtime import loader, native


@pytest.fixture(scope="module")
def image():
    return loader.load(compile_object(native_modules.MIXED, host()))


def test_a_native_function_is_a_builtin(image):
    entry = native.function(image.symbols["entry"], "add_up", image)
    assert type(entry) is type(len)
    assert (entry.__name__, entry.__module__) == ("add_up", "lampion")
    assert "add_up" in repr(entry) and "add_up" in repr(entry.__self__)
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        entry(np.zeros(1), 1, y=0.5)


def test_names_and_references_stay_as_they_are(image):
    out, number = np.zeros(1), 1.25
    names = [f"kernel_{i}" for i in range(50)]
    functions = [native.function(image.symbols["entry"], name, image) for name in names]
    before = sys.getrefcount(out), sys.getrefcount(number), sys.getrefcount(None)
    for _ in range(20):
        for entry in functions:
            entry(out, 1, number)
    assert [f.__name__ for f in functions] == names
    assert (sys.getrefcount(out), sys.getrefcount(number)) == before[:2]
    assert abs(sys.getrefcount(None) - before[2]) < 50


def test_functions_are_freed(image):
    alive = weakref.WeakSet()
    for i in range(20):
        entry = native.function(image.symbols["entry"], f"k{i}", image)
        alive.add(entry)
    del entry
    gc.collect()
    assert not alive


def test_addresses_outside_the_image_are_refused(image):
    with pytest.raises(ValueError, match="is not within"):
        native.function(image.address + image.size, "stray", image)


def test_the_layout_of_arrays_is_found():
    layout = native.array_layout()
    assert layout.data == object.__basicsize__
    array = np.zeros((3, 4, 5), "f")[:, ::2]
    found = native._read(array, layout)
    assert found == (array.ctypes.data, (3, 2, 5), array.strides)


def test_another_layout_is_an_error_not_a_crash(monkeypatch):
    native.array_layout.cache_clear()
    monkeypatch.setattr(native, "_read", lambda array, layout: None)
    with pytest.raises(native.KernelsUnavailable, match="run on NumPy alone"):
        native.array_layout()
    monkeypatch.undo()
    assert native.array_layout().nd == object.__basicsize__ + 8


def test_the_collector_may_take_code_apart_before_its_function(image):
    """As at the end of the interpreter: what a function is made of must outlive it."""
    entry = native.function(image.symbols["entry"], "last", image)
    definition = ctypes.c_size_t.from_address(id(entry) + object.__basicsize__).value
    flags = definition + native._MethodDef.flags.offset
    met, array = [], np.zeros(1)

    def cleared(_):
        kept = [i + 0.5 for i in range(10_000)]  # takes what memory has been freed
        met.append((ctypes.c_int.from_address(flags).value, len(kept)))
    watcher = weakref.ref(array, cleared)  # NumPy's, so it is called amid the collector's work
    entry.__self__.watched = array
    ring = [entry]
    ring.append(ring)
    del entry, ring, array
    gc.collect()
    assert watcher() is None
    assert met == [(0x80, 10_000)]

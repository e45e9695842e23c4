"""Pooled memory behind ordinary arrays: ownership, reuse, bounds, threads, forks, exit."""

import ctypes
import gc
import itertools
import os
import pickle
import random
import subprocess
import sys
import threading
import weakref

import ml_dtypes
import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

from lampion.codegen import allocator
from lampion.codegen.compile import compile_object
from lampion.codegen.target import TARGETS
from lampion.debug.knobs import override
from lampion.runtime import memory

F32 = np.dtype("f4")
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def pool():
    if not allocator.install():
        pytest.skip("this NumPy is laid out otherwise")
    yield memory._State.pool
    memory.trim()


def fresh(*shape, dtype=F32):
    return memory.empty(shape, dtype)


def pooled(array):
    return get_handler_name(array) == "lampion"


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "i8", "f2", "f4", "f8", "F", "D", ">f4",
                                   ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("shape", [(3000,), (40, 50), (7, 1, 300), (2, 3, 4, 5, 60), (5000, 1)])
def test_arrays_are_ordinary(dtype, shape):
    kind = np.dtype(dtype)
    ours, theirs = memory.empty(shape, kind), np.empty(shape, kind)
    assert type(ours) is np.ndarray
    assert (ours.dtype, ours.shape, ours.strides) == (theirs.dtype, theirs.shape, theirs.strides)
    assert ours.dtype is kind
    assert str(ours.flags) == str(theirs.flags)
    assert ours.base is None
    assert ours.ctypes.data % 64 == 0
    assert pooled(ours) == (ours.nbytes >= 1024)
    theirs.fill(1)
    ours[...] = theirs
    assert (ours == theirs).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 1000), (1,), (100,), (1,) * 32])
def test_small_and_empty_ones_are_numpys(shape):
    array = memory.empty(shape, F32)
    assert array.shape == shape
    assert not pooled(array)


def test_what_is_not_plain_is_left_to_numpy():
    assert memory.empty([200, 300], F32).shape == (200, 300)
    assert memory.empty((200, np.int64(300)), np.float32).shape == (200, 300)
    assert memory.empty(5000, F32).shape == (5000,)
    assert memory.empty((3000,), np.dtype(object))[0] is None
    record = np.dtype([("a", "f4"), ("b", "i8")])
    assert memory.empty((3000,), record).dtype == record
    assert memory.empty((10,), np.dtype("(200,)f4")).shape == (10, 200)
    assert memory.empty((3000,), np.dtype("S7")).itemsize == 7
    for shape, dtype, error in (((2, -1), F32, ValueError), ((1 << 40, 1 << 40), F32, ValueError),
                                ((1 << 62,), F32, ValueError), ((2.5,), F32, TypeError),
                                ((2,), "no type", TypeError), ((1,) * 70, F32, ValueError)):
        with pytest.raises(error):
            memory.empty(shape, dtype)
    with pytest.raises(TypeError):
        memory.empty()


def test_more_than_there_is_raises_as_numpy_does():
    with pytest.raises(MemoryError):
        fresh(1 << 43)
    assert pooled(fresh(MEGABYTE))


@pytest.mark.parametrize("size", [2000, 100_000, 3 * MEGABYTE, 9 * MEGABYTE])
def test_memory_is_used_again(size):
    array = fresh(size)
    place = array.ctypes.data
    del array
    again = fresh(size)
    assert again.ctypes.data == place
    if again.nbytes >= 256 * 1024:
        assert place % 4096 == 0
    if again.nbytes >= 2 * MEGABYTE:
        assert place % (2 * MEGABYTE) == 0


def test_views_keep_the_memory():
    array = fresh(1000, 1000)
    place = array.ctypes.data
    array[:] = 5
    view = array[10:20].T
    assert view.base is array
    del array
    other = fresh(1000, 1000)
    other[:] = 6
    assert other.ctypes.data != place
    assert (view == 5).all()


def test_everything_numpy_does_with_an_owner():
    array = fresh(5000)
    array[:] = range(5000)
    copies = [array.copy(), pickle.loads(pickle.dumps(array)), np.sort(array)]
    assert all((c == array).all() for c in copies)
    assert not any(pooled(c) for c in copies)  # user arrays are NumPy's own
    array.resize((50, 100), refcheck=False)
    array.resize((60, 100), refcheck=False)  # within the block
    array.resize((600, 1000), refcheck=False)  # beyond it
    assert pooled(array) and array.shape == (600, 1000)
    assert (array.ravel()[:5000] == range(5000)).all() and not array.ravel()[5000:].any()
    array.resize((10,), refcheck=False)
    array.__setstate__(copies[0].__reduce__()[2])
    assert (array == copies[0]).all()
    assert memoryview(array).nbytes == 20_000
    reference = weakref.ref(array)
    del array
    gc.collect()
    assert reference() is None


def test_user_arrays_are_untouched():
    before = get_handler_name(np.empty(5000))
    kept = [fresh(5000) for _ in range(10)]
    assert get_handler_name(np.empty(5000)) == before != get_handler_name(kept[0])


def test_references_are_balanced():
    dtype, shape = np.dtype("f4"), (5000,)
    counts = sys.getrefcount(dtype), sys.getrefcount(shape), sys.getrefcount(None)
    for _ in range(1000):
        memory.empty(shape, dtype)
    assert abs(sys.getrefcount(dtype) - counts[0]) < 5
    assert sys.getrefcount(shape) == counts[1]
    assert abs(sys.getrefcount(None) - counts[2]) < 50


@pytest.fixture
def no_collection():
    """Arrays of other tests do not die in the middle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_statistics(no_collection):
    memory.reset_peak_memory_stats()
    before = memory.memory_allocated()
    assert memory.max_memory_allocated() == before
    array = fresh(MEGABYTE)
    assert memory.memory_allocated() == before + 4 * MEGABYTE
    del array
    assert memory.memory_allocated() == before
    assert memory.max_memory_allocated() == before + 4 * MEGABYTE
    assert memory.memory_reserved() >= 4 * MEGABYTE
    memory.reset_peak_memory_stats()
    assert memory.max_memory_allocated() == before
    memory.trim()
    held = memory.memory_reserved()
    array = fresh(MEGABYTE)
    assert memory.memory_reserved() == held + 4 * MEGABYTE
    memory.trim()  # what arrays hold stays
    assert memory.memory_reserved() == held + 4 * MEGABYTE
    array[:] = 1


def test_size_classes_waste_at_most_an_eighth():
    for bytes_ in [*range(1024, 70_000, 97), *(int(1.7 ** i) for i in range(14, 40))]:
        array = memory.empty((bytes_,), np.dtype("u1"))
        number, size = (ctypes.c_int64 * 2).from_address(array.ctypes.data - 64)
        assert size == memory.capacity(number)
        assert bytes_ <= size <= 2 * (bytes_ * 9 / 8 + 64)  # a larger block may have been free
    sizes = [memory.capacity(number) for number in range(80, memory.CLASSES)]
    assert all(small < large <= small * 9 / 8 for small, large in itertools.pairwise(sizes))


def test_free_memory_is_bounded():
    memory.trim()
    gc.collect()
    memory.reset_peak_memory_stats()
    rng = random.Random(0)
    for _ in range(300):
        array = fresh(rng.randrange(MEGABYTE, 8 * MEGABYTE))
        most = max(memory.max_memory_allocated(), array.nbytes)
        assert memory.memory_reserved() <= most * 9 // 8 + memory._SPARE + 2 * memory._CHUNK
        del array


def test_a_larger_free_block_serves_and_returns_to_its_class():
    memory.trim()
    large = fresh(2 * MEGABYTE)
    place = large.ctypes.data
    del large
    held = memory.memory_reserved()
    smaller = fresh(3 * MEGABYTE // 2)
    assert smaller.ctypes.data == place
    assert memory.memory_allocated() >= 8 * MEGABYTE
    del smaller
    assert fresh(2 * MEGABYTE).ctypes.data == place
    assert memory.memory_reserved() == held


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def soak(seed, rounds):
    """Arrays of random sizes that live for random times, with their contents checked."""
    rng, alive = random.Random(seed), {}
    for number in range(rounds):
        size = int(2 ** rng.uniform(8, 20))
        alive[number] = fresh(size)
        alive[number][0] = alive[number][-1] = number
        if len(alive) > 40:
            key = rng.choice(list(alive))
            array = alive.pop(key)
            assert array[0] == array[-1] == key
    for key, array in alive.items():
        assert array[0] == array[-1] == key


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's statistics")
def test_a_soak_does_not_grow():
    gc.collect()
    before = memory.memory_allocated()
    for _ in range(3):
        soak(1, 3000)
    reserved, real = memory.memory_reserved(), resident()
    for _ in range(6):
        soak(1, 3000)
    assert memory.memory_allocated() == before
    assert memory.memory_reserved() <= reserved * 1.05
    assert resident() <= real * 1.1 + 8 * MEGABYTE


def test_threads_allocate_and_free_each_others_arrays():
    shared, failures = [], []

    def work(seed):
        rng = random.Random(seed)
        try:
            for number in range(4000):
                array = fresh(rng.randrange(256, 60_000))
                array[0] = array[-1] = number
                shared.append((number, array))
                if len(shared) > 30:
                    number, array = shared.pop(rng.randrange(20))
                    assert array[0] == array[-1] == number
        except BaseException as error:
            failures.append(error)

    gc.collect()
    before = memory.memory_allocated()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    shared.clear()
    assert memory.memory_allocated() == before


def test_a_forked_child_goes_on_alone():
    array = fresh(MEGABYTE)
    array[:] = 3
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            array[:] = 4
            soak(2, 300)
            memory.trim()
            status = 0 if (array == 4).all() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (array == 3).all()


@pytest.mark.parametrize("ending", [
    "", "import sys; sys.modules['__main__'].cycle = [array]; cycle.append(cycle)",
    "class Late:\n    def __init__(self, a): self.a = a\n    def __del__(self): self.a[:] = 1\n"
    "late = Late(array); late.me = late",
    "import atexit; atexit.register(lambda: memory.empty((10**6,), np.dtype('f4')).fill(2))",
    "import builtins; builtins.kept = array"])
def test_arrays_outlive_modules_at_exit(ending):
    program = ("import numpy as np\nfrom lampion.codegen import allocator\n"
               "from lampion.runtime import memory\nassert allocator.install()\n"
               "array = memory.empty((10**6,), np.dtype('f4'))\narray[:] = 1\n" + ending)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True,
                          text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_switched_off_or_laid_out_otherwise_everything_is_numpys(monkeypatch):
    def no_native_half():
        raise AssertionError("not asked for")

    monkeypatch.setattr(memory._State, "pool", None)
    with override(pool=False):
        assert not memory.adopt(no_native_half)
    assert memory.memory_allocated() == memory.memory_reserved() == 0
    monkeypatch.setattr(memory._State, "refused", False)
    monkeypatch.setattr(memory, "layout", lambda: memory.ObjectLayout(0, 0, 0, 0, 0))
    assert not memory.adopt(no_native_half)
    monkeypatch.setattr(memory._State, "refused", False)


def test_the_native_half_is_compiled_for_every_processor():
    for target in TARGETS.values():
        assert len(compile_object(allocator.text(target), target)) > 1000


def test_statistics_as_users_see_them():
    import lampion as torch
    from lampion.debug.knobs import override

    with override(kernels="sync"):
        x = torch.ones(300, 1000)
        y = x * 3.25  # the pool is up
        torch.cpu.reset_peak_memory_stats()
        before = torch.cpu.memory_allocated()
        z = y * 3.25
        assert torch.cpu.memory_allocated() - before >= z.nbytes
        del z
        assert torch.cpu.memory_allocated() == before
        assert torch.cpu.max_memory_allocated() >= before + x.nbytes
        assert torch.cpu.memory_reserved() >= torch.cpu.memory_allocated()

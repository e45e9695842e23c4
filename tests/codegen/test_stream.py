"""Launch streams: what is noted, what runs, with which memory, in which thread."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lampion as torch
from lampion.codegen import service
from lampion.codegen.effects import written
from lampion.codegen.gemm import gemm
from lampion.codegen.ir import Kernel
from lampion.codegen.stream import Recording, RecordingError, recording_here
from lampion.codegen.types import F32, I64
from lampion.debug import kernels
from lampion.debug.knobs import override
from lampion.runtime import arena, memory, stream
from lampion.runtime.recording import raised

pytestmark = pytest.mark.usefixtures("kernels_at_once")
SINGLE = np.dtype(np.float32)


def build_scaled(_=None):
    """out = x * factor, on all threads."""
    k = Kernel("scaled")
    out, x, factor = k.array("out", F32), k.array("x", F32), k.number("factor", F32)
    with k.parallel(x.size(0)) as (i, _):
        k.store(out.ptr, i * out.stride(0), k.load(x.ptr, i * x.stride(0)) * factor)
    return k


@pytest.fixture(scope="module")
def scaled():
    return service.make(build_scaled())


def times(kernel, x, factor):
    out = memory.empty(x.shape, x.dtype)
    kernel(out, x, factor)
    return out


def doubled(kernel, like):
    """The stream of `2 * input`."""
    with Recording() as r:
        return r.finish([times(kernel, r.input(like), 2.0)])


A = np.arange(5, dtype=np.float32)


# --- noting and running -----------------------------------------------------------------------


def test_launches_are_noted_and_run_with_other_arrays(scaled):
    with Recording() as r:
        x = r.input(A)
        y = times(scaled, times(scaled, x, 2.0), r.number(3.0))
        stream = r.finish([y])
    assert [launch.name for launch in stream.launches] == ["scaled", "scaled"]
    assert stream([A], [3.0])[0].tolist() == [0, 6, 12, 18, 24]
    assert stream([A + 1], [0.5])[0].tolist() == [1, 2, 3, 4, 5]


def test_what_nobody_reads_is_left_out(scaled):
    with Recording() as r:
        x = r.input(A)
        times(scaled, times(scaled, x, 5.0), 5.0)  # neither is needed
        y = times(scaled, x, 2.0)
        times(scaled, y, 7.0)
        scaled(x, x, 3.0)  # an input is what the caller sees
        stream = r.finish([y])
    assert r.left_out == [0, 1, 3] and len(stream.launches) == 2
    given = A.copy()
    assert stream([given])[0].tolist() == [0, 2, 4, 6, 8]
    assert given.tolist() == [0, 3, 6, 9, 12]


def test_products_run_as_without_recording():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((70, 300), (300, 90)))
    expected = np.empty((70, 90), np.float32)
    assert gemm(expected, a, b)
    with Recording() as r:
        out = memory.empty((70, 90), SINGLE)
        assert gemm(out, r.input(a), r.input(b))
        stream = r.finish([out])
    assert stream([a, b])[0].tobytes() == expected.tobytes()


def test_results_are_new_at_every_call(scaled):
    stream = doubled(scaled, A)
    first, second = stream([A])[0], stream([A + 1])[0]
    assert first.tolist() == (A * 2).tolist() and second.tolist() == (A * 2 + 2).tolist()
    assert not np.shares_memory(first, second)


def test_views_and_layouts(scaled):
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    part = a[::-1, 1::2]
    with Recording() as r:
        x = r.input(part)
        y = times(scaled, x[1], 2.0)
        stream = r.finish([y[::-1], y, x[:2]])
    turned, plain, given = stream([part])
    assert plain.tolist() == (part[1] * 2).tolist() and turned.tolist() == plain.tolist()[::-1]
    assert np.shares_memory(turned, plain)
    assert given.tolist() == part[:2].tolist() and np.shares_memory(given, a)


@pytest.mark.parametrize("like", [
    np.zeros(0, np.float32), np.broadcast_to(np.float32(2), (4,)), np.ones(9, np.float32)[8:2:-3],
    np.ones((3, 0), np.float32)[:, 0:0].reshape(-1)])
def test_odd_layouts(scaled, like):
    assert doubled(scaled, like)([like])[0].tolist() == (like * 2).tolist()


def test_inputs_are_written_in_place(scaled):
    with Recording() as r:
        x = r.input(A)
        scaled(x, x, r.number(0.0))
        stream = r.finish([])
    a = A.copy()
    for _ in range(2):
        assert stream([a], [2.0]) == []
    assert a.tolist() == (A * 4).tolist()


def test_constants_are_read_where_they_are(scaled):
    table = np.ones(5, np.float32)
    with Recording() as r:
        stream = r.finish([times(scaled, table, 3.0)])
    table[2] = 5
    assert stream([])[0].tolist() == [3, 3, 15, 3, 3]


def test_steps_in_python(scaled):
    seen = []

    def turn(reads, writes):
        seen.append(reads[0].tolist())
        writes[0][...] = reads[0][::-1]

    with Recording() as r:
        x = r.input(A)
        y, z = times(scaled, x, 2.0), memory.empty((5,), SINGLE)
        r.host(turn, [y], [z], "turn")
        stream = r.finish([times(scaled, z, 0.5)])
    assert [launch.is_host for launch in stream.launches] == [False, True, False]
    assert stream([A])[0].tolist() == [4, 3, 2, 1, 0] and seen == [[0, 2, 4, 6, 8]]
    assert len(stream.profile([A])) == 3


def test_an_exception_in_a_step_leaves_the_stream_as_it_was(scaled):
    def fail(reads, writes):
        if reads[0][0]:
            raise KeyboardInterrupt
    with Recording() as r:
        x = r.input(A)
        r.host(fail, [x], [], "fail")
        stream = r.finish([times(scaled, x, 2.0)])
    with pytest.raises(KeyboardInterrupt):
        stream([A + 1])
    assert stream([A])[0].tolist() == (A * 2).tolist()


def test_a_raised_flag_ends_the_run(scaled):
    k = Kernel("negative")
    found, x = k.array("found", I64), k.array("x", F32)
    k.store(found.ptr, 0, (k.load(x.ptr, 0) < 0).cast(I64))
    negative = service.make(k)

    def explain(x):
        raise ValueError(f"negative: {x[0]}")

    with Recording() as r:
        x, y = r.input(A), r.input(A)
        with pytest.raises(RecordingError, match="nothing explains"):
            raised(lambda flag: negative(flag, x), x)
        with r.explain(explain, [x]):
            assert not raised(lambda flag: negative(flag, x), x)
        scaled(y, y, 2.0)
        stream = r.finish([])
    target = np.ones(5, np.float32)
    with pytest.raises(ValueError, match=r"negative: -3\.0"):
        stream([A - 3, target])
    assert target.tolist() == [1] * 5
    stream([A, target])
    assert target.tolist() == [2] * 5
    assert raised(lambda flag: negative(flag, A - 1), A - 1) and not raised(
        lambda flag: negative(flag, A), A)


def test_what_was_checked_is_not_checked_again_until_it_is_written_to(scaled):
    k = Kernel("below")
    found, x, least = k.array("found", I64), k.array("x", F32), k.number("least")
    k.store(found.ptr, 0, (k.load(x.ptr, 0) < least.cast(F32)).cast(I64))
    below = service.make(k)
    with Recording() as r:
        x, y = r.input(A.reshape(5, 1)), r.input(A)
        with r.explain(ValueError, []):
            for looked_at, least in ((x, 0.0), (x, 1.0), (x.reshape(-1), 0.0), (x[1:], 0.0)):
                raised(lambda flag, a=looked_at, b=least: below(flag, a.reshape(-1), b), looked_at,
                       "below", least)
            assert not r.late_failures()
            scaled(x.reshape(-1), y, 1.0)
            raised(lambda flag: below(flag, x.reshape(-1), 0.0), x, "below", 0.0)
        assert [s.flag is not None for s in r._steps] == [True, True, False, True, False, True]
        assert r.late_failures() == [0, 1, 3, 5]
        r.host(lambda reads, writes: None, [x], [y], "safe", can_fail=False)
        r.host(lambda reads, writes: None, [x], [], "unsafe")
        assert r.late_failures() == [0, 1, 3, 5, 7]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong, numbers, error", [
    ([A.astype(np.float64)], [], r"input 0 .* expected float32\[5\].* got float64\[5\]"),
    ([A[:4]], [], "input 0"), ([np.ones(10, np.float32)[::2]], [], "strides"), ([None], [], "None"),
    ([A, A], [], "1 arrays and 0 numbers was given 2 and 0"), ([A], [1.0], "given 1 and 1"),
    ([], [], "given 0 and 0")])
def test_other_inputs_are_refused(scaled, wrong, numbers, error):
    with pytest.raises(ValueError, match=error):
        doubled(scaled, A)(wrong, numbers)


def test_equal_dtypes_and_subclasses_will_do(scaled):
    import pickle

    class Other(np.ndarray):
        pass

    stream = doubled(scaled, A)
    for a in (pickle.loads(pickle.dumps(A)), A.view(Other), A.view(np.dtype(SINGLE, copy=True))):
        assert stream([a])[0].tolist() == (A * 2).tolist()


def test_a_number_may_not_be_read():
    with Recording() as r:
        number, other = r.number(1.0), r.number(2.0)
        assert number != 1.0 and number == other and number not in (0, 1, 2.0)
        for read in (float, int, bool, abs, lambda n: n + 1, lambda n: 2 / n, lambda n: n < 3,
                     lambda n: np.ones(2) * n):
            with pytest.raises(RecordingError):
                read(number)
        with pytest.raises(TypeError):
            np.multiply(np.ones(2), number)


def test_values_that_do_not_exist_yet_may_not_be_read():
    with Recording() as r:
        x = r.input(np.ones((3, 2), np.float32))
        x.sum()
        with pytest.raises(RecordingError, match=r"input 0 float32\[3, 2\]"):
            r.finish([])


def test_an_attempt_that_reads_leaves_nothing_behind(scaled):
    def careless():
        y = times(scaled, x, 2.0)
        return y.copy()

    with Recording() as r:
        x = r.input(A)
        assert r.attempt(careless) is None
        assert r.attempt(lambda: times(scaled, x, float(r.number(1.0)))) is None
        stream = r.finish([r.attempt(lambda: times(scaled, x, 3.0))])
    assert len(stream.launches) == 1
    assert stream([A], [0.0])[0].tolist() == (A * 3).tolist()


def test_memory_of_others_is_not_written(scaled):
    with Recording() as r:
        with pytest.raises(RecordingError, match=r"scaled writes .* float32\[5\]"):
            scaled(np.empty(5, np.float32), r.input(A), 2.0)
        for unwritten in (np.ones(3), memory.empty((3,), SINGLE)):
            with pytest.raises(RecordingError, match="no launch has written"):
                r.finish([unwritten])


def test_more_threads_than_there_is_scratch_memory_for(scaled):
    before, stream = torch.get_num_threads(), doubled(scaled, A)
    try:
        torch.set_num_threads(before + 1)
        assert not stream.is_current
        with pytest.raises(RuntimeError, match="record it again"):
            stream([A])
    finally:
        torch.set_num_threads(before)
    assert stream([A])[0].tolist() == (A * 2).tolist()


# --- threads and processes --------------------------------------------------------------------


def in_thread(function):
    """What the function returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_other_threads_run_while_one_records(scaled):
    plain = memory.empty
    with Recording() as r:
        x = r.input(A)
        assert recording_here() is r and in_thread(recording_here) is None
        assert in_thread(lambda: times(scaled, A, 2.0).tolist()) == (A * 2).tolist()
        stream = r.finish([times(scaled, x, 2.0)])
    assert len(stream.launches) == 1
    assert memory.empty is plain
    assert times(scaled, A, 2.0).tolist() == (A * 2).tolist()


def test_recordings_take_turns(scaled):
    with Recording() as r:
        with pytest.raises(RecordingError, match="records already"), Recording():
            pass
        other = threading.Thread(target=lambda: done.append(doubled(scaled, A)([A])))
        done = []
        other.start()
        assert not done
        r.finish([])
    other.join()
    assert done[0][0].tolist() == (A * 2).tolist()


def test_a_stream_may_be_called_from_several_threads():
    a = np.eye(40, dtype=np.float32)
    with Recording() as r:
        x, outs = r.input(a), [memory.empty((40, 40), SINGLE) for _ in range(20)]
        for source, out in zip([x, *outs], outs, strict=False):
            assert gemm(out, source, x)
        stream = r.finish(outs[-1:])
    wrong = []

    def call(scale):
        wrong.extend(scale for _ in range(50) if not np.array_equal(
            stream([a * scale])[0], a * scale ** 21))

    threads = [threading.Thread(target=call, args=(scale,)) for scale in (-1, 0, 1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_streams_and_recordings_survive_a_fork(scaled):
    stream = doubled(scaled, A)
    inside, go = threading.Event(), threading.Event()

    def record():
        with Recording(), stream._lock:
            inside.set()
            go.wait(20)

    other = threading.Thread(target=record)
    other.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = (stream([A])[0] == A * 2).all() and (doubled(scaled, A)([A])[0] == A * 2).all()
        finally:
            os._exit(0 if ok else 1)
    go.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_thread_may_wait_for_its_kernels():
    with override(kernels="auto", cache_mb=0):
        key = ("scaled for a thread that waits",)
        with service.waiting():
            assert service.kernel(key, build_scaled) is not None
        assert service.kernel(("scaled for one that does not",), build_scaled) is None
        with service.waiting():
            assert service.kernel(("impossible",), lambda target: 1 / 0) is None
        assert "ZeroDivisionError" in service.failures()[("impossible",)]
        assert service.wait()


def test_watched_kernels_count_what_streams_run():
    journal = []
    kernels.JOURNAL.append(journal)
    try:
        watched = service.kernel(("scaled and watched",), build_scaled)
        stream = doubled(watched, A)
        counted = [run for run, _ in journal if run is not None]
        assert not counted
        stream([A])
        counted = [run for run, _ in journal if run is not None]
        assert [run.subject.name for run in counted] == ["scaled and watched"]
    finally:
        kernels.JOURNAL.remove(journal)


# --- the arena --------------------------------------------------------------------------------


def test_values_that_never_live_together_share_memory():
    size = 64 * 1024
    a = np.eye(128, dtype=np.float32)
    with Recording() as r:
        x = r.input(a)
        for _ in range(10):
            out = memory.empty((128, 128), SINGLE)
            assert gemm(out, x, r.input(a))
            x = out
        stream = r.finish([x])
    assert stream.arena_bytes == stream.least_bytes == 2 * size


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 30), st.integers(0, 9)),
                max_size=40))
def test_placement(given):
    buffers = [arena.Lifetime(size, first, first + length) for size, first, length in given]
    offsets, total = arena.place(buffers)
    assert total >= arena.least(buffers)
    placed = list(zip(buffers, offsets, strict=True))
    for i, (b, offset) in enumerate(placed):
        assert offset % 64 == 0 and offset + b.size <= total
        for other, at in placed[:i]:
            apart = offset + b.size <= at or at + other.size <= offset
            assert apart or b.last < other.first or other.last < b.first


def test_placement_is_near_what_is_needed():
    rng = np.random.default_rng(0)
    buffers = []
    for step in range(150):  # values of a forward pass, kept for the backward pass, and others
        size = int(2 ** rng.uniform(12, 20))
        buffers += [arena.Lifetime(size, step, 300 - step), arena.Lifetime(
            size, 300 - step, 301 - step)]
        buffers += [arena.Lifetime(int(2 ** rng.uniform(10, 20)), step, step + 2)]
    assert arena.place(buffers)[1] <= 1.02 * arena.least(buffers)


def test_written_arrays_are_found_through_loops():
    k = Kernel("carried")
    a, b, c = (k.array(name, F32) for name in "abc")
    loop = k.loop(0, 2, 1, [a.ptr, b.ptr])
    with loop as (i, first, second):
        k.store(first, 0, k.load(c.ptr, i))
        loop.next(second, first)
    assert written(k) == {"a", "b"}


def test_threads_share_one_native_half(monkeypatch):
    real, loads = stream.NATIVE[0], []

    def slow():
        loads.append(threading.get_ident())
        time.sleep(0.05)
        return real()

    monkeypatch.setattr(stream._Loaded, "half", None)
    monkeypatch.setattr(stream, "NATIVE", [slow])
    found = []
    threads = [threading.Thread(target=lambda: found.append(stream.native())) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(loads) == 1
    assert len({id(half) for half in found}) == 1

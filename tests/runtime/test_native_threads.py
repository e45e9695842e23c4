"""The thread pool under stress: launches, sizes, threads, forks, exits."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import native_modules
import numpy as np
import pytest

from lampion.codegen import pool
from lampion.codegen.compile import compile_object
from lampion.codegen.target import TARGETS, host
from lampion.debug.knobs import override
from lampion.runtime import loader, native, threads

HERE = Path(__file__).parent


def kernels():
    image = loader.load(compile_object(native_modules.TASKS, host()))
    return [native.function(image.symbols[name], name, image)
            for name in ("entry", "nested", "counted")]


@pytest.fixture(scope="module")
def entry():
    return kernels()[0]


@pytest.fixture(autouse=True)
def two_threads():
    before = threads.get_num_threads()
    threads.set_num_threads(2)
    yield
    threads.set_num_threads(before)


def job(entry, tasks=16, turns=20_000):
    """The numbers of the workers that ran each task."""
    out = np.full(tasks, turns, np.int64)
    entry(out, tasks)
    return out


def shared(entry, seconds=20.0):
    """Whether another thread helps, sooner or later: the machine may be busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if job(entry).any():
            return True
    return False


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("lampion-worker")]


def test_tasks_are_shared(entry):
    assert shared(entry)
    assert set(job(entry, 1000, 10)) <= {0, 1}
    assert len(workers()) == 1


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 15, 16, 17, 1000, 12345])
def test_every_task_runs_once(tasks):
    counted = kernels()[2]
    out, launches = np.zeros(tasks + 1, np.int64), 300
    for _ in range(launches):
        counted(out, tasks)
    assert out[tasks] == 0
    assert (out[:tasks] == launches).all()


def test_a_hundred_thousand_launches():
    counted, out = kernels()[2], np.zeros(4, np.int64)
    for _ in range(100_000):
        counted(out, 4)
    assert (out == 100_000).all()


def test_one_thread_starts_nothing_and_runs_alone(entry):
    threads.set_num_threads(1)
    assert not workers()
    assert not job(entry).any()


def test_sizes_change_between_launches(entry):
    for n in (1, 4, 2, 8, 1, 3, 2):
        threads.set_num_threads(n)
        assert threads.get_num_threads() == n
        assert len(workers()) == n - 1
        assert job(entry, 64, 100).max() < n
        time.sleep(0.002)  # workers park
        assert job(entry, 64, 100).max() < n


def test_sizes_change_while_jobs_run(entry):
    done, failures = threading.Event(), []

    def launch():
        while not done.is_set():
            out = job(entry, 32, 300)
            if not ((out >= 0) & (out < 5)).all():
                failures.append(out)

    launcher = threading.Thread(target=launch)
    launcher.start()
    for i in range(150):
        threads.set_num_threads(1 + i % 5)
    done.set()
    launcher.join()
    assert not failures


def test_two_python_threads_launch_at_once(entry):
    failures = []

    def launch():
        for _ in range(3000):
            out = job(entry, 8, 50)
            if not ((out == 0) | (out == 1)).all():
                failures.append(out)

    launchers = [threading.Thread(target=launch) for _ in range(4)]
    for t in launchers:
        t.start()
    for t in launchers:
        t.join()
    assert not failures


def test_python_threads_that_fail_leave_the_pool_whole(entry):
    caught = []

    def launch():
        try:
            for _ in range(100):
                job(entry, 8, 50)
            raise KeyError("gone")
        except KeyError:
            caught.append(1)

    launchers = [threading.Thread(target=launch) for _ in range(8)]
    for t in launchers:
        t.start()
    for t in launchers:
        t.join()
    assert len(caught) == 8
    assert shared(entry)


def test_jobs_within_jobs_run_on_their_thread():
    nested = kernels()[1]
    for _ in range(200):
        out = np.full(64, 10, np.int64)
        nested(out)
        assert not out.any()  # an inner job is run by its launcher, as worker 0 of that job


def in_child(check):
    """The exit status of `check` in a forked child, which is killed if it hangs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def test_a_forked_child_gets_its_own_workers(entry):
    assert shared(entry)
    assert in_child(lambda: not workers() and shared(entry) and len(workers()) == 1) == 0
    assert shared(entry)  # and the parent's come back
    assert len(workers()) == 1


def test_a_forked_loader_worker_with_one_thread(entry):
    def check():
        threads.set_num_threads(1)
        return not any(job(entry).any() for _ in range(50)) and not workers()

    assert in_child(check) == 0


def test_children_of_children(entry):
    assert in_child(lambda: shared(entry) and in_child(lambda: shared(entry)) == 0) == 0


def test_forks_while_other_threads_launch(entry):
    done = threading.Event()

    def launch():
        while not done.is_set():
            job(entry, 16, 500)

    launchers = [threading.Thread(target=launch) for _ in range(2)]
    for t in launchers:
        t.start()
    try:
        for _ in range(25):
            assert in_child(lambda: bool((job(entry, 64, 100) >= 0).all())) == 0
    finally:
        done.set()
        for t in launchers:
            t.join()
    assert shared(entry)


def test_stopped_pools_run_alone_and_start_again(entry):
    threads.stop()
    assert not workers()
    assert not job(entry).any()
    threads.set_num_threads(2)
    assert shared(entry)


PROGRAM = """
import sys, threading, time
sys.path[:0] = {paths!r}
from test_native_threads import job, kernels, shared, workers
from lampion.runtime import threads
threads.set_num_threads(3)
entry = kernels()[0]
assert shared(entry)
{ending}
"""


@pytest.mark.parametrize("ending, status", [
    ("", 0),
    ("time.sleep(0.01)", 0),  # workers are parked
    ("sys.exit(3)", 3),
    ("raise KeyError", 1),
    ("import atexit; atexit.register(lambda: job(entry))", 0),  # runs after the workers' end
    ("threading.Thread(target=lambda: [job(entry) for _ in range(300)]).start()", 0),
    ("threading.Thread(target=lambda: [job(entry) for _ in range(10**9)], daemon=True).start()",
     0),
], ids=["idle", "parked", "exit", "error", "atexit", "launching", "daemon"])
def test_the_interpreter_ends_cleanly(ending, status):
    program = PROGRAM.format(paths=[str(HERE), str(HERE.parents[1])], ending=ending)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert ("KeyError" in done.stderr) == (status == 1)
    assert "Fatal" not in done.stderr


def test_a_program_with_one_thread_never_starts_the_pool():
    program = PROGRAM.format(paths=[str(HERE), str(HERE.parents[1])], ending="").replace(
        "(3)", "(1)").replace("shared(entry)", "not job(entry).any() and not workers()")
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_the_number_of_threads_comes_from_the_environment(monkeypatch):
    with override(threads=7):
        assert threads._default() == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads._default() == 3
    for text in ("", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert 1 <= threads._default() <= (os.cpu_count() or 1)
    with pytest.raises(ValueError, match="at least one thread"):
        threads.set_num_threads(0)


def test_the_pool_is_compiled_for_every_processor():
    for target in TARGETS.values():
        assert len(compile_object(pool.text(target), target)) > 1000

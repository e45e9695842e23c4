"""Where kernels come from: background, disk, other processes, forks in the middle, failures."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lampion.codegen import compile as compiler
from lampion.codegen import service
from lampion.codegen.ir import Kernel
from lampion.codegen.types import F32
from lampion.debug.knobs import override
from lampion.runtime import cache

ROOT = Path(__file__).resolve().parents[2]


def scaled(factor):
    """A kernel of 16 elements and its key."""
    def build(target):
        k = Kernel("scaled")
        out, x = k.array("out", F32), k.array("x", F32)
        k.store(out.ptr, 0, k.load(x.ptr, 0, 16) * float(factor))
        return k
    return ("test of the service", factor), build


def refused(target):
    raise ZeroDivisionError("no such kernel")


def works(native, factor):
    out, x = np.zeros(16, np.float32), np.arange(16, dtype=np.float32)
    native(out, x)
    return bool((out == x * factor).all())


@pytest.fixture(autouse=True)
def own_cache(tmp_path):
    """Kernels of other tests are neither used nor lost."""
    before = dict(service._ready), dict(service._failed), dict(service.made)
    with override(cache_dir=str(tmp_path), kernels="auto"):
        yield tmp_path
    assert service.wait()
    service.forget()
    for table, old in zip((service._ready, service._failed, service.made), before, strict=True):
        table.update(old)


def after_waiting(key, build):
    assert service.wait()
    return service.kernel(key, build)


def child(run, seconds=30):
    """The exit status of a forked child that runs `run`; it is killed if it hangs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if run() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def test_the_first_call_does_not_wait():
    key, build = scaled(2)
    assert service.kernel(key, build) is None
    native = after_waiting(key, build)
    assert works(native, 2)
    assert service.kernel(key, build) is native
    assert service.made[key].compiled and service.made[key].seconds > 0


def test_sync_waits_and_off_never_asks():
    key, build = scaled(3)
    with override(kernels="off"):
        assert service.kernel(key, refused) is None
    with override(kernels="sync"):
        assert works(service.kernel(key, build), 3)


def test_what_is_on_disk_is_not_made_again():
    key, build = scaled(4)
    service.kernel(key, build)
    after_waiting(key, build)
    service.forget()
    native = service.kernel(key, refused)
    assert works(native, 4)
    assert not service.made[key].compiled


def test_an_object_that_does_not_load_is_made_anew():
    key, build = scaled(5)
    cache.put(service._disk_key(key), b"no object at all")
    assert service.kernel(key, build) is None
    assert works(after_waiting(key, build), 5)


def test_a_failure_in_the_background_is_noted_and_disturbs_nobody(capfd):
    key, build = ("test of the service", "fails"), refused
    assert service.kernel(key, build) is None
    assert after_waiting(key, build) is None
    assert service.failures() == {key: "ZeroDivisionError: no such kernel"}
    assert service.kernel(*scaled(6)) is None  # the worker lives on
    assert works(after_waiting(*scaled(6)), 6)
    assert capfd.readouterr() == ("", "")


def test_a_failure_is_raised_once_where_the_caller_waits():
    key = ("test of the service", "fails at once")
    with override(kernels="sync"):
        with pytest.raises(ZeroDivisionError):
            service.kernel(key, refused)
        assert service.kernel(key, refused) is None
    assert "no such kernel" in service.failures()[key]


@pytest.fixture
def slow(monkeypatch):
    """Every compilation takes a while; the event is set when the first is under way."""
    inside, real = threading.Event(), compiler._object

    def compile_slowly(*args):
        inside.set()
        time.sleep(0.3)
        return real(*args)
    monkeypatch.setattr(compiler, "_object", compile_slowly)
    return inside


def test_a_child_forked_while_its_parent_compiles_makes_its_own(slow):
    first, second = scaled(7), scaled(8)
    assert service.kernel(*first) is None
    slow.wait()

    def run():
        asked = service.kernel(*first), service.kernel(*second)
        return (None in asked and works(after_waiting(*first), 7)
                and works(after_waiting(*second), 8))
    assert child(run) == 0
    assert works(after_waiting(*first), 7)


def test_a_child_forked_inside_the_compiler_uses_what_is_on_disk(slow, monkeypatch):
    monkeypatch.setattr(compiler, "_PATIENCE", 0.01)
    key, build = scaled(9)
    service.kernel(key, build)
    after_waiting(key, build)
    service.forget()
    slow.clear()
    service.kernel(*scaled(10))
    slow.wait()

    def run():
        with override(kernels="sync"):
            waited = service.kernel(*scaled(12)) is None
        return (works(service.kernel(key, build), 9) and waited
                and service.kernel(*scaled(11)) is None and not service._waiting)
    assert child(run) == 0


def test_forks_all_the_time(monkeypatch):
    for i in range(8):
        service.kernel(*scaled(20 + i))
        assert child(lambda i=i: works(
            after_waiting(*scaled(20 + i)) or after_waiting(*scaled(20 + i)), 20 + i)) == 0


WORKERS = """
import sys, numpy as np
import lampion as torch
from torch.utils.data import DataLoader, Dataset
class Rows(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        x = torch.full((40, 500), float(i))
        return torch.tanh(x) * 2 + x.exp().sum() * 0
if __name__ == "__main__":
    for epoch in range(2):
        x = torch.ones(100, 300)
        for f in ("sin", "cos", "tanh", "sinh", "cosh", "sigmoid", "log1p", "expm1"):
            getattr(torch, f)(x)  # asked for, not there yet
        seen = sum(float(batch.sum()) for batch in DataLoader(Rows(), 8, num_workers=2))
        x = torch.arange(64.).tanh().sum() * 2 * 20000
        assert abs(seen - float(x)) < 1, (seen, float(x))
    print("done")
"""


def run_program(text, folder, **environment):
    """Its output; the program must succeed and be silent."""
    program = "import lampion, sys; sys.modules['torch'] = lampion\n" + text
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT,
        env=dict(os.environ, LAMPION_CACHE_DIR=str(folder), **environment))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_data_workers_forked_while_kernels_are_made(own_cache):
    text = WORKERS.replace("from torch.utils", "from lampion.utils")
    assert run_program(text, own_cache) == "done\n"


FORKS = """
import os, signal, time
import lampion as torch
x = torch.ones(200, 100)
def run(f):
    return getattr(torch, f)(x)
for f in ("sin", "cos", "tanh", "sinh", "cosh", "sigmoid", "log1p", "expm1", "exp", "log"):
    run(f)
    time.sleep(0.003)
    pid = os.fork()
    if pid == 0:
        from lampion.codegen import service
        signal.alarm(20)
        run(f)
        service.wait()
        run(f)
        os._exit(0 if (run("tanh") > 0.7).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_forks_while_the_first_kernels_are_made(own_cache):
    assert run_program(FORKS, own_cache) == ""


POOL = """
import os, signal, threading, time
import lampion
from lampion.codegen import pool
from lampion.runtime import threads
inside = threading.Event()
def image():
    inside.set()
    time.sleep(0.2)  # until the fork holds the compiler
    return pool._image()
bringing = threading.Thread(target=threads.pool_function, args=("lampion_parallel", image))
bringing.start()
inside.wait()
signal.alarm(60)
pid = os.fork()
if pid == 0:
    os._exit(0 if pool.address("lampion_parallel") else 1)
assert os.waitpid(pid, 0)[1] == 0
bringing.join()
assert threads._State.pool is not None
"""


def test_a_fork_while_another_thread_brings_up_the_pool(own_cache):
    assert run_program(POOL, own_cache) == ""


MANY = """
import lampion as torch
x = torch.ones(200, 100)
for f in ("sin", "cos", "tanh", "sinh", "cosh", "sigmoid", "log1p", "expm1", "exp", "log"):
    getattr(torch, f)(x)
"""
TELL = """
from lampion.codegen import service
service.wait()
print(sum(m.compiled for m in service.made.values()), len(service.made),
      any(name.startswith("llvmlite") for name in sys.modules))
"""


def test_a_program_may_end_while_kernels_are_made(own_cache):
    assert run_program(MANY, own_cache) == ""


def test_a_second_process_compiles_nothing(own_cache):
    assert run_program(MANY + TELL, own_cache) == "10 10 True\n"
    assert run_program(MANY + TELL, own_cache) == "0 10 False\n"

"""The cache of kernels on disk: whole, private, bounded, shared by many processes."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from lampion.codegen import service
from lampion.debug.knobs import override
from lampion.runtime import cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    service.wait()  # what other tests had compiled in the background must not come here
    with override(cache_dir=tmp_path / "kernels"):
        forget()
        yield tmp_path / "kernels"
    forget()


def forget():
    """As in a new process."""
    cache._State.setting, cache._State.warned = None, False


def files():
    return sorted(p for p in cache.folder().iterdir())


def test_what_is_put_is_got_and_nothing_else(place):
    assert cache.get("add") is None
    cache.put("add", b"machine code")
    cache.put("empty", b"")
    assert cache.get("add") == b"machine code"
    assert cache.get("empty") == b""
    assert cache.get("sub") is None
    cache.put("add", b"other code")
    forget()
    assert cache.get("add") == b"other code"
    assert len(files()) == 2


def test_folder_and_files_are_private(place):
    old = os.umask(0)
    try:
        cache.put("add", b"code")
    finally:
        os.umask(old)
    assert stat.S_IMODE(cache.folder().stat().st_mode) == 0o700
    assert [stat.S_IMODE(p.stat().st_mode) for p in files()] == [0o600]


def test_a_folder_that_others_may_use_is_made_private(place):
    cache.put("add", b"code")
    cache.folder().chmod(0o777)
    forget()
    assert stat.S_IMODE(cache.folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [
    lambda b: b"", lambda b: b[:-1], lambda b: b[:40], lambda b: b + b"x",
    lambda b: b"X" + b[1:], lambda b: b[:-3] + b"XYZ", lambda b: b[:10] + b"\xff" + b[11:],
    lambda b: b[:41] + b"\xff" + b[42:], lambda b: b"\0" * len(b)])
def test_damaged_entries_are_dropped(place, damage):
    cache.put("add", b"machine code")
    [file] = files()
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("add") is None
    assert not files()
    cache.put("add", b"machine code")
    assert cache.get("add") == b"machine code"


def test_every_flipped_bit_is_noticed(place):
    cache.put("add", b"code")
    [file] = files()
    whole = file.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        assert cache._unpack(bytes(damaged), "add") is None


def test_an_entry_of_another_key_is_dropped(place):
    cache.put("add", b"code")
    [file] = files()
    file.rename(cache._place("sub"))
    assert cache.get("sub") is None
    assert not files()


def test_entries_that_others_could_have_written_are_dropped(place, tmp_path):
    cache.put("add", b"code")
    [file] = files()
    file.chmod(0o666)
    assert cache.get("add") is None
    cache.put("add", b"code")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert cache.get("add") is None
    os.mkfifo(cache._place("pipe"), 0o600)
    assert cache.get("pipe") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_entries_and_folders_of_others_are_refused(place):
    cache.put("add", b"code")
    os.chown(files()[0], 12345, 12345)
    assert cache.get("add") is None
    os.chown(cache.folder(), 12345, 12345)
    forget()
    with pytest.warns(RuntimeWarning, match="not a folder of this user"):
        assert cache.folder() is None


def test_a_folder_that_cannot_be_made_means_memory_only_and_one_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with override(cache_dir=tmp_path / "file" / "kernels"):
        forget()
        with pytest.warns(RuntimeWarning, match="not kept on disk") as caught:
            for _ in range(3):
                cache.put("add", b"code")
                assert cache.get("add") is None
        assert len(caught) == 1
    forget()


def test_a_user_without_a_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with override(cache_dir=""):
        forget()
        with pytest.warns(RuntimeWarning, match="home directory"):
            assert cache.get("add") is None
    forget()


def test_a_disk_that_fails_is_said_once(place, monkeypatch):
    cache.put("add", b"code")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", fail)
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        cache.put("sub", b"code")
        cache.put("mul", b"code")
    assert len(caught) == 1
    assert len(files()) == 1  # nothing half-written stays


def test_no_cache_at_all(place):
    with override(cache_mb=0), warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("add", b"code")
        assert cache.get("add") is None
    assert not place.exists()


def test_the_unused_go_first_and_the_size_stays_bounded(place):
    data = bytes(1 << 16)
    with override(cache_mb=1):
        for i in range(12):
            cache.put(f"old {i}", data)
        for i, file in enumerate(files()):
            os.utime(file, (1000 + i, 1000 + i))
        assert cache.get("old 5") == data  # used again
        for i in range(10):
            cache.put(f"new {i}", data)
            assert sum(p.stat().st_size for p in files()) <= 1 << 20
        assert cache.get("old 5") == data
        assert all(cache.get(f"new {i}") == data for i in range(10))
        assert len(files()) < 16
        cache.put("too large", bytes(2 << 20))
        assert cache.get("too large") is None


def test_what_died_processes_left_is_removed(place):
    cache.put("add", b"code")
    old, young = (cache.folder() / f"part-1-1-{name}" for name in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    with override(cache_mb=1):
        forget()
        for i in range(20):
            cache.put(str(i), bytes(1 << 16))
    assert not old.exists()
    assert young.exists()


def test_the_default_folder_is_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with override(cache_dir=""):
        forget()
        found = cache.folder()
        if sys.platform == "darwin":
            assert found.parent == tmp_path / "Library" / "Caches" / "lampion"
        else:
            assert found.parent == tmp_path / "xdg" / "lampion"
        assert str(cache.FOLDER_VERSION) in found.name
    forget()


def test_a_fork_while_another_thread_writes(place):
    cache.put("add", b"code")
    with cache._lock:  # as the thread that writes would
        pid = os.fork()
        if pid == 0:
            cache.put("sub", b"code")
            os._exit(0 if cache.get("sub") == b"code" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


WORKER = """
import random, sys
sys.path.insert(0, {root!r})
from lampion.runtime import cache
rng = random.Random(int(sys.argv[1]))
print("ready", flush=True)
for _ in range(100_000):
    key = str(rng.randrange(40))
    expected = key.encode() * 3000
    found = cache.get(key)
    assert found is None or found == expected, "a torn entry"
    if found is None or rng.random() < 0.3:
        cache.put(key, expected)
"""


def test_twenty_processes_some_of_them_killed(place):
    environment = dict(os.environ, LAMPION_CACHE_DIR=str(place), LAMPION_CACHE_MB="1",
                       PYTHONWARNINGS="error")
    program = WORKER.format(root=str(ROOT))
    processes = [subprocess.Popen([sys.executable, "-c", program, str(i)], env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for i in range(20)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        rng, end = random.Random(0), time.monotonic() + 1.5
        alive = list(processes)
        while time.monotonic() < end:
            time.sleep(0.05)
            if len(alive) > 8:
                victim = alive.pop(rng.randrange(len(alive)))
                victim.send_signal(signal.SIGKILL)
                victim.wait()
        assert all(process.poll() is None for process in alive), "one ended with an error"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for key in map(str, range(40)):
        assert cache.get(key) in (None, key.encode() * 3000)
    assert sum(p.stat().st_size for p in files()) < 3 << 20

"""DataLoader in one process, with worker processes and with worker threads."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import lampion as torch
from lampion.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

WORKERS = ["process", "thread"]


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i, torch.full((3,), float(i * i))


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(start, self.n, step))


class Calls(Dataset):
    """Calls a function of the index."""

    def __init__(self, function, n=4):
        self.function, self.n = function, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.function(i)


def indices(loader):
    return [batch[0].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("worker_type", WORKERS)
def test_batches_in_order(workers, worker_type):
    loader = DataLoader(Squares(7), 3, num_workers=workers, worker_type=worker_type)
    got = list(loader)
    assert [b[0].tolist() for b in got] == [[0, 1, 2], [3, 4, 5], [6]]
    assert got[1][1].tolist() == [[9.0] * 3, [16.0] * 3, [25.0] * 3]
    assert len(loader) == 3 and indices(loader) == indices(loader)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_shuffling_gives_pytorchs_order(workers):
    torch.manual_seed(7)
    loader = DataLoader(Squares(10), 4, shuffle=True, num_workers=workers)
    assert [indices(loader), indices(loader)] == SHUFFLED
    assert torch.randint(1 << 30, ()).item() == AFTER


def test_shuffling_with_a_generator():
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(Squares(10), 4, shuffle=True, generator=generator)
    assert indices(loader) == SHUFFLED_BY_GENERATOR


SHUFFLED = [[[3, 2, 7, 8], [6, 1, 5, 9], [0, 4]], [[1, 3, 5, 2], [8, 9, 6, 7], [4, 0]]]
AFTER = 249162937
SHUFFLED_BY_GENERATOR = [[1, 3, 5, 7], [9, 4, 6, 2], [8, 0]]


def test_tensor_dataset_is_read_by_columns():
    data = TensorDataset(torch.arange(10), torch.arange(20.0).reshape(10, 2))
    batches = list(DataLoader(data, 4))
    assert isinstance(batches[0], list) and batches[2][0].tolist() == [8, 9]
    assert batches[1][1].tolist() == [[8, 9], [10, 11], [12, 13], [14, 15]]
    batches[0][1].zero_()
    assert data.tensors[1][0].tolist() == [0, 1] and data.tensors[1][1].tolist() == [2, 3]


def test_batch_size_none_and_batch_sampler():
    assert [x for x, _ in DataLoader(Squares(3), batch_size=None)] == [0, 1, 2]
    loader = DataLoader(Squares(5), batch_sampler=[[4, 0], [1]])
    assert indices(loader) == [[4, 0], [1]] and loader.batch_size is None
    assert [b.tolist() for b in DataLoader([1, 2, 3], 2, collate_fn=torch.tensor)] == [[1, 2], [3]]


def test_getitems_is_preferred():
    class Many(Squares):
        def __getitems__(self, wanted):
            return [(-i, torch.zeros(1)) for i in wanted]

    assert indices(DataLoader(Many(3), 3)) == [[0, -1, -2]]


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"num_workers": -1}, ValueError, "num_workers option should be non-negative"),
        ({"timeout": -1}, ValueError, "timeout option should be non-negative"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor option could only be specified"),
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs"),
        ({"shuffle": True, "sampler": [0]}, ValueError, "mutually exclusive with shuffle"),
        ({"batch_size": 2, "batch_sampler": [[0]]}, ValueError, "batch_sampler option is mutually"),
        ({"batch_size": None, "drop_last": True}, ValueError, "disables auto-batching"),
        ({"batch_size": 0}, ValueError, "batch_size should be a positive integer value"),
        ({"multiprocessing_context": "fork"}, ValueError, "multi-process loading"),
        ({"num_workers": 1, "multiprocessing_context": "no"}, ValueError, "valid start method"),
        ({"num_workers": 1, "multiprocessing_context": 3}, TypeError, "valid context object"),
        ({"worker_type": "fibre"}, ValueError, "worker_type should be 'process' or 'thread'"),
    ],
)
def test_constructor_errors(kwargs, error, text):
    with pytest.raises(error, match=text):
        DataLoader(Squares(3), **kwargs)


@pytest.mark.parametrize("option", ["shuffle", "sampler", "batch_sampler"])
def test_streams_have_no_indices(option):
    with pytest.raises(ValueError, match=f"expected unspecified {option} option"):
        DataLoader(Stream(3), **{option: True if option == "shuffle" else [[0]]})


def test_attributes_that_stay():
    loader = DataLoader(Squares(3))
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 2
    with pytest.warns(UserWarning, match="will create 999 worker processes"):
        DataLoader(Squares(3), num_workers=999)
    with pytest.warns(UserWarning, match="no accelerator is found"):
        list(DataLoader(Squares(1), pin_memory=True))


@pytest.mark.parametrize("worker_type", WORKERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_streams(workers, worker_type):
    loader = DataLoader(Stream(11), 2, num_workers=workers, worker_type=worker_type)
    batches = [b.tolist() for b in loader]
    if workers == 0:
        assert batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    else:  # two halves in turn
        assert batches == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9]]


def test_stream_longer_than_its_length_warns():
    class Wrong(Stream):
        def __len__(self):
            return 2

    loader = DataLoader(Wrong(3), batch_size=None)
    assert len(loader) == 2
    with pytest.warns(UserWarning, match="was reported to be 2"):
        assert list(loader) == [0, 1, 2]


def seeds(_):
    info = get_worker_info()
    drawn = round(torch.rand(1).item(), 4), random.random(), np.random.rand()
    return info.id, info.seed, torch.initial_seed(), *drawn


def test_worker_seeds_are_pytorchs():
    torch.manual_seed(0)
    got = list(DataLoader(Calls(seeds, 2), batch_size=None, num_workers=2))
    base = 900450186894289455
    assert [row[:3] for row in got] == [[0, base, base], [1, base + 1, base + 1]]
    assert [row[4] for row in got] == [0.21315340548154382, 0.7733861492043289]
    assert [row[5] for row in got] == [0.8371640508861415, 0.6702704958690073]


def test_threads_draw_from_their_own_streams():
    rows = []
    for worker_type in WORKERS:
        torch.manual_seed(0)
        loader = DataLoader(
            Calls(seeds, 6), batch_size=None, num_workers=2, worker_type=worker_type
        )
        rows.append([row[:4] for row in loader])
        rows[-1].append(torch.rand(1).item())
    assert rows[0] == rows[1]


@pytest.mark.parametrize("worker_type", WORKERS)
def test_worker_init_fn_and_info(worker_type):
    seen = threading.local() if worker_type == "thread" else {}

    def start(worker):
        if worker_type == "thread":
            seen.value = worker + 10
        else:
            seen["value"] = worker + 10

    def read(_):
        info = get_worker_info()
        value = seen.value if worker_type == "thread" else seen["value"]
        return info.id + 10 == value, info.num_workers, info.worker_method

    loader = DataLoader(
        Calls(read), batch_size=None, num_workers=2, worker_init_fn=start, worker_type=worker_type
    )
    method = "thread" if worker_type == "thread" else "multiprocessing"
    assert list(loader) == [[True, 2, method]] * 4
    assert get_worker_info() is None


def fail(i):
    if i == 2:
        raise KeyError("no such key")
    return i


@pytest.mark.parametrize("worker_type", WORKERS)
def test_exceptions_carry_the_workers_traceback(worker_type):
    loader = DataLoader(Calls(fail), batch_size=None, num_workers=2, worker_type=worker_type)
    iterator = iter(loader)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(KeyError) as caught:
        next(iterator)
    text = str(caught.value)
    assert f"Caught KeyError in DataLoader worker {worker_type} 0." in text
    assert "Original Traceback" in text and "in fail" in text and "\n" in text
    assert next(iterator) == 3  # the other requests go on


class Local(Exception):
    def __init__(self, a, b):
        super().__init__(a)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [(lambda: ValueError("x"), ValueError), (lambda: Local(1, 2), RuntimeError),
     (lambda: StopIteration(), RuntimeError), (lambda: SystemExit(3), RuntimeError)],
)  # fmt: skip
@pytest.mark.parametrize("worker_type", WORKERS)
def test_kinds_of_exceptions(raised, kind, worker_type):
    def throw(_):
        raise raised()

    loader = DataLoader(Calls(throw), batch_size=None, num_workers=1, worker_type=worker_type)
    with pytest.raises(kind, match="Original Traceback"):
        list(loader)


def test_failing_worker_init_fn():
    def start(worker):
        raise ValueError("no start")

    with pytest.raises(ValueError, match="no start"):
        list(DataLoader(Squares(2), num_workers=1, worker_init_fn=start))


def test_data_that_does_not_pickle():
    with pytest.raises((pickle.PicklingError, AttributeError), match="worker process 0"):
        list(DataLoader(Calls(lambda i: lambda: i), batch_size=None, num_workers=1))


def test_a_dead_worker_is_noticed():
    def die(i):
        os.kill(os.getpid(), signal.SIGKILL)

    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"exited unexpectedly: worker 0 was killed by SIGKILL"):
        list(DataLoader(Calls(die), batch_size=None, num_workers=1))
    with pytest.raises(RuntimeError, match=r"exited unexpectedly.*exit code 3"):
        list(DataLoader(Calls(lambda i: os._exit(3)), batch_size=None, num_workers=1))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("worker_type", WORKERS)
def test_timeout(worker_type):
    loader = DataLoader(
        Calls(lambda i: time.sleep(1)), batch_size=None, num_workers=1, timeout=0.1,
        worker_type=worker_type,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0.1 seconds"):
        next(iter(loader))


@pytest.mark.parametrize("worker_type", WORKERS)
def test_persistent_workers_stay(worker_type):
    ident = threading.get_ident if worker_type == "thread" else os.getpid
    loader = DataLoader(
        Calls(lambda i: ident()), batch_size=None, num_workers=2, persistent_workers=True,
        worker_type=worker_type,
    )  # fmt: skip
    first, second = set(loader), set(loader)
    assert first == second and len(first) == 2
    next(iter(loader))  # an epoch left early
    assert len(list(loader)) == 4


def test_workers_end_with_their_iterator():
    iterator = iter(DataLoader(Squares(100), num_workers=2))
    next(iterator)
    workers, gone = iterator._pool.workers, weakref.ref(iterator)
    del iterator
    assert gone() is None
    assert not any(process.is_alive() for process in workers)


def test_two_loaders_at_once_end_quickly():
    first = iter(DataLoader(Squares(50), num_workers=1))
    second = iter(DataLoader(Squares(50), num_workers=1))
    next(first), next(second)
    started = time.monotonic()
    first._shutdown_workers()
    second._shutdown_workers()
    assert time.monotonic() - started < 4
    assert list(first) == []


@pytest.mark.parametrize("size", [10, 100_000])
def test_large_batches_are_writable(size):
    loader = DataLoader(Calls(lambda i: np.full(size, i)), batch_size=1, num_workers=1)
    kept = list(loader)  # all at once: no file descriptor is held per batch
    for i, batch in enumerate(kept):
        batch.add_(1)
        assert batch[0, -1].item() == i + 1


def test_many_kept_batches_hold_no_descriptors():
    loader = DataLoader(Calls(lambda i: np.zeros(20_000), 60), num_workers=1)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    kept = list(loader)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert len(kept) == 60 and after - before < 10


def test_large_indices_do_not_block():
    sampler = [list(range(20_000)) for _ in range(6)]
    loader = DataLoader(
        range(20_000), batch_sampler=sampler, num_workers=1, prefetch_factor=6, collate_fn=str
    )
    assert len(list(loader)) == 6


def test_out_of_order():
    loader = DataLoader(
        Calls(lambda i: time.sleep(0.3 if i == 0 else 0) or i), batch_size=None, num_workers=2,
        in_order=False,
    )  # fmt: skip
    got = list(loader)
    assert sorted(got) == [0, 1, 2, 3] and got[0] != 0


SPAWNED = """
import lampion as torch
from lampion.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    data = TensorDataset(torch.arange(6))
    loader = DataLoader(data, 2, num_workers=2, multiprocessing_context="spawn")
    print([batch[0].tolist() for batch in loader])
"""

LEFT_RUNNING = """
import time
import lampion as torch
from lampion.utils.data import DataLoader

class Slow(torch.utils.data.Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i):
        time.sleep(0.01)
        return i

loader = DataLoader(Slow(), num_workers=2, worker_type="{kind}")
iterator = iter(loader)
next(iterator)
print("left", flush=True)
{after}
"""


def run_program(tmp_path, text, **kwargs):
    path = tmp_path / "program.py"
    path.write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=env, **kwargs,
    )  # fmt: skip


def test_spawned_workers(tmp_path):
    out, err = run_program(tmp_path, SPAWNED).communicate(timeout=60)
    assert out.strip() == "[[0, 1], [2, 3], [4, 5]]" and err == ""


@pytest.mark.parametrize("kind", WORKERS)
def test_a_program_ends_with_workers_running(tmp_path, kind):
    program = run_program(tmp_path, LEFT_RUNNING.format(kind=kind, after=""))
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0 and out == "left\n" and err == ""


@pytest.mark.parametrize("kind", WORKERS)
def test_ctrl_c_ends_a_program_cleanly(tmp_path, kind):
    after = "for _ in iterator: time.sleep(0.01)"
    text = LEFT_RUNNING.format(kind=kind, after=after)
    # A shell's background jobs ignore the signal; the program must not inherit that.
    text = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + text
    program = run_program(tmp_path, text, start_new_session=True)
    assert program.stdout.readline() == "left\n"
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert err.count("KeyboardInterrupt") == 1 and err.count("Traceback") == 1

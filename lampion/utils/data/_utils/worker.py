"""What a worker does: seed itself, fetch what it is asked for, report failures."""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from ....runtime import random as streams
from ...threads import set_num_threads
from .fetch import Fetcher, IterableFetcher, MapFetcher
from .state import restore_streams, save_streams

__all__ = ["WorkerInfo", "get_worker_info"]


class WorkerInfo:
    """Who is loading: `id`, `num_workers`, `seed`, the worker's `dataset`, and
    `worker_method` ("multiprocessing" or "thread").
    """

    def __init__(
        self, id: int, num_workers: int, seed: int, dataset: Any, worker_method: str
    ) -> None:
        self.id = id
        self.num_workers = num_workers
        self.seed = seed
        self.dataset = dataset
        self.rng = None
        self.worker_method = worker_method

    def __repr__(self) -> str:
        return "WorkerInfo(" + ", ".join(f"{k}={v!r}" for k, v in vars(self).items()) + ")"


_process_info: WorkerInfo | None = None
_thread = threading.local()


def get_worker_info() -> WorkerInfo | None:
    """The worker this code runs in; None in the program's own thread.

    >>> import lampion as torch
    >>> torch.utils.data.get_worker_info() is None
    True
    """
    info: WorkerInfo | None = getattr(_thread, "info", _process_info)
    return info


class Job(NamedTuple):
    """What every worker of a loader needs to know."""

    dataset: Any
    iterable: bool
    auto_collation: bool
    collate_fn: Callable[..., Any]
    drop_last: bool
    base_seed: int
    num_workers: int
    init_fn: Callable[[int], Any] | None
    method: str  # "multiprocessing" or "thread"

    def fetcher(self) -> Fetcher:
        """A reader of the dataset from its beginning."""
        if self.iterable:
            return IterableFetcher(
                self.dataset, self.auto_collation, self.collate_fn, self.drop_last
            )
        return MapFetcher(self.dataset, self.auto_collation, self.collate_fn)


class Start(NamedTuple):
    """Begin an epoch; `skip` are the requests already served, `state` the state then."""

    epoch: int
    skip: list[Any]
    state: dict[str, Any] | None


class Request(NamedTuple):
    """Fetch `index` as the epoch's task number `task`."""

    epoch: int
    task: int
    index: Any


class Reply(NamedTuple):
    """The answer to a Request, and the worker's state after it."""

    epoch: int
    task: int
    worker: int
    data: Any
    state: dict[str, Any] | None


class End:
    """In place of data: this worker's stream has ended."""


class Failure:
    """In place of data: the exception that the user's code raised."""

    def __init__(self, error: BaseException, where: str) -> None:
        self.kind = type(error)
        trace = "".join(traceback.format_exception(error))
        self.text = f"Caught {self.kind.__name__} in {where}.\nOriginal {trace}"

    def portable(self) -> Failure:
        """Itself, as a RuntimeError if the exception's class cannot leave the worker."""
        try:
            pickle.loads(pickle.dumps(self.kind))
        except Exception:
            self.kind = RuntimeError
        return self

    def reraise(self) -> None:
        """Raise the same kind of exception with the worker's traceback as its text."""
        if issubclass(self.kind, StopIteration) or not issubclass(self.kind, Exception):
            raise RuntimeError(self.text)  # the loop or the program would end silently
        text = _Verbatim(self.text) if issubclass(self.kind, KeyError) else self.text
        try:
            error = self.kind(text)
        except Exception:
            raise RuntimeError(self.text) from None
        raise error


class _Verbatim(str):
    """Text that a KeyError prints with its line breaks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Worker:
    """The state of one worker; `serve` answers messages until there are no more."""

    def __init__(self, job: Job, id: int) -> None:
        self.job, self.id = job, id
        kind = "process" if job.method == "multiprocessing" else "thread"
        self._where = f"DataLoader worker {kind} {id}"
        self._fetcher: Fetcher | None = None
        self._failure: Failure | None = None
        self._guard(self._prepare)

    def _prepare(self) -> None:
        global _process_info
        job, seed = self.job, self.job.base_seed + self.id
        info = WorkerInfo(self.id, job.num_workers, seed, job.dataset, job.method)
        if job.method == "thread":
            _thread.info = info
            streams.use_own_stream(seed)
        else:
            _process_info = info
            _seed_process(seed, job.base_seed, self.id)
            set_num_threads(1)  # the processors belong to the training process
        if job.init_fn is not None:
            job.init_fn(self.id)

    def _guard(self, action: Callable[..., None], *args: Any) -> None:
        """Run `action`; keep its failure for the next request."""
        try:
            action(*args)
        except BaseException as error:
            self._failure = Failure(error, self._where)

    def start(self, message: Start) -> None:
        """Begin an epoch."""
        if not self._failure:
            self._guard(self._start, message)

    def _start(self, message: Start) -> None:
        resumed = restore_state(self.job, message.state)
        self._fetcher = self.job.fetcher()
        if isinstance(self._fetcher, IterableFetcher) and not resumed:
            skip_requests(self._fetcher, message.skip)
            restore_state(self.job, message.state)  # the skipped samples may have drawn

    def answer(self, request: Request) -> Reply:
        """Do what `request` asks."""
        data = self._failure or self._fetch(request.index)
        self._failure = None
        state = None if isinstance(data, (End, Failure)) else save_state(self.job)
        return Reply(request.epoch, request.task, self.id, data, state)

    def _fetch(self, index: Any) -> Any:
        assert self._fetcher is not None
        try:
            return self._fetcher.fetch(index)
        except BaseException as error:  # also SystemExit: silence would hang the program
            if isinstance(error, StopIteration) and self.job.iterable:
                return End()
            return Failure(error, self._where)


def skip_requests(fetcher: IterableFetcher, requests: list[Any]) -> None:
    """Read and drop what `requests` were given."""
    try:
        for index in requests:
            fetcher.skip(index)
    except StopIteration:
        pass  # a shorter stream than before: the next request finds its end


def _seed_process(seed: int, base_seed: int, id: int) -> None:
    """Seed Python's, lampion's and NumPy's generators as PyTorch's workers do."""
    import random

    import numpy as np

    random.seed(seed)
    streams.default_stream().manual_seed(seed)
    entropy = [id, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    np.random.seed(np.random.SeedSequence(entropy).generate_state(4))


def save_state(job: Job) -> dict[str, Any]:
    """The generators and a stream's own place, for an exact continuation."""
    state = save_streams(shared=job.method == "multiprocessing")
    if job.iterable and hasattr(job.dataset, "state_dict"):
        state["dataset"] = job.dataset.state_dict()
    return state


def restore_state(job: Job, state: dict[str, Any] | None) -> bool:
    """Take over a saved state; whether the dataset took its place from it."""
    if state is None:
        return False
    restore_streams(state, shared=job.method == "multiprocessing")
    if "dataset" not in state:
        return False
    job.dataset.load_state_dict(state["dataset"])
    return True

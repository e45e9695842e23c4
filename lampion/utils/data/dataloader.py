"""DataLoader: batches from a dataset, in this process, in worker processes or in threads."""

from __future__ import annotations

import itertools
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ._utils.collate import default_collate, default_convert
from ._utils.fetch import Fetcher
from ._utils.pool import Pool, ProcessPool, ThreadPool
from ._utils.position import Position
from ._utils.worker import (
    End,
    Failure,
    Job,
    Reply,
    Request,
    Start,
    get_worker_info,
    skip_requests,
)
from .dataset import Dataset, IterableDataset
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

T_co = TypeVar("T_co", covariant=True)
_FIXED = frozenset(
    {"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"}
)


class _Endless(Sampler[None]):
    """The requests to an IterableDataset, which has no indices."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Iterates over a dataset in batches.

    All of PyTorch's arguments, with the same order of samples for the same seed, and:

    Args:
        worker_type: ``"process"`` (default) or ``"thread"``. Threads share the dataset
            instead of copying it, need no pickling, and pay where the dataset's code
            releases the interpreter lock (decoding, NumPy, files) or there is none.

    ``state_dict`` and ``load_state_dict`` continue in the middle of an epoch with
    exactly the samples that are left, for any number of workers.

    Batches from processes travel in anonymous memory: /dev/shm is not used.
    `pin_memory` is accepted; there is no device that would profit from it.

    >>> import lampion as torch
    >>> list(torch.utils.data.DataLoader(range(5), batch_size=2))
    [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """

    dataset: Dataset[T_co]
    batch_size: int | None
    num_workers: int
    sampler: Any
    batch_sampler: Any

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        worker_type: str = "process",
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, worker_type)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.worker_type = worker_type
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            _check_stream(shuffle, sampler, batch_sampler)
        shuffled = bool(shuffle)
        _check_sampling(batch_size, shuffled, sampler, batch_sampler, drop_last)
        self._choose_sampling(batch_size, shuffled, sampler, batch_sampler, drop_last, generator)
        self.generator = generator
        self.collate_fn = collate_fn or (
            default_collate if self._auto_collation else default_convert
        )
        self.persistent_workers = persistent_workers
        self._warned_length: int | None = None
        self._iterator: _BaseDataLoaderIter | None = None
        self._position = Position()
        self._resume: Position | None = None
        self._initialized = True
        _warn_many_workers(num_workers)

    def _choose_sampling(
        self,
        batch_size: int | None,
        shuffle: bool,
        sampler: Any,
        batch_sampler: Any,
        drop_last: bool,
        generator: Any,
    ) -> None:
        if sampler is None and self._iterable:
            sampler = _Endless()
        elif sampler is None and shuffle:
            sampler = RandomSampler(self.dataset, generator=generator)  # type: ignore[arg-type]
        elif sampler is None:
            sampler = SequentialSampler(self.dataset)  # type: ignore[arg-type]
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.drop_last = batch_size, drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    @property
    def multiprocessing_context(self) -> Any:
        """How worker processes start: a multiprocessing context, or None."""
        return self.__dict__["multiprocessing_context"]

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        self.__dict__["multiprocessing_context"] = _context(context, self.num_workers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and self.__dict__.get("_initialized"):
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    def __iter__(self) -> _BaseDataLoaderIter:
        if not (self.persistent_workers and self.num_workers > 0):
            return self._new_iterator()
        if self._iterator is None:
            self._iterator = self._new_iterator()
        else:
            self._iterator._reset(self)
        return self._iterator

    def _new_iterator(self) -> _BaseDataLoaderIter:
        if self.num_workers == 0:
            return _SingleProcessDataLoaderIter(self)
        return _MultiProcessingDataLoaderIter(self)

    def __len__(self) -> int:
        if not self._iterable:
            return len(self._index_sampler)
        length: int = len(self.dataset)  # type: ignore[arg-type]
        self._warned_length = length
        if self.batch_size is None:
            return length
        whole, rest = divmod(length, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def state_dict(self) -> dict[str, Any]:
        """The place in the current epoch, as plain data for a checkpoint.

        It counts the batches handed out by the newest iterator; between two epochs it
        stands at the beginning of the next. The default generator's own state is not part of
        it (save ``torch.get_rng_state()``, as for everything else in the program).
        """
        position = self._resume or self._position
        return position.state_dict(self.num_workers, self.persistent_workers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iteration continue where `state_dict` was taken.

        Exact for any `num_workers`; the random streams of the workers continue too
        when the number is the same. An IterableDataset needs the same number, since
        each worker reads its own part.
        """
        position = Position.from_state_dict(state_dict)
        if position.begun and self._iterable and position.num_workers != self.num_workers:
            raise ValueError(
                f"the state was saved with num_workers={position.num_workers}, but this loader "
                f"has num_workers={self.num_workers}: each worker reads its own part of an "
                "IterableDataset, so continuing needs the same number"
            )
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # their streams have moved on
        self._resume = position

    def _begin(self, base_seed: int | None = None) -> Position:
        """The position at which an iterator starts; `base_seed` of workers that live on."""
        position, self._resume = self._resume, None
        position = position or self._position.following(base_seed)
        if position.base_seed is None:
            position.base_seed = draw_seed(self.generator)
        position.begin(self)
        self._position = position
        return position


def _check_workers(
    num_workers: int, timeout: float, prefetch: int | None, persistent: bool, worker_type: str
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; "
            "use num_workers=0 to disable multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing."
            "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch is not None and prefetch < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
    if worker_type not in ("process", "thread"):
        raise ValueError(f"worker_type should be 'process' or 'thread', but got {worker_type!r}")


def _check_stream(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    """Options that need indices, which an IterableDataset does not have."""
    wrong = {"sampler": sampler, "batch_sampler": batch_sampler}
    given = {name: value for name, value in wrong.items() if value is not None}
    if shuffle not in (False, None):
        given = {"shuffle": shuffle}
    for name, value in given.items():
        raise ValueError(
            f"DataLoader with IterableDataset: expected unspecified {name} option, "
            f"but got {name}={value}"
        )


def _check_sampling(
    batch_size: int | None, shuffle: bool, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None and (
        batch_size != 1 or shuffle or sampler is not None or drop_last
    ):
        raise ValueError(
            "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
            "and drop_last"
        )
    if batch_sampler is None and batch_size is None and drop_last:
        raise ValueError(
            "batch_size=None option disables auto-batching and is mutually exclusive "
            "with drop_last"
        )


def _context(context: Any, num_workers: int) -> Any:
    """The multiprocessing context that `context` (or its name) stands for."""
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading "
            f"(num_workers > 0), but got num_workers={num_workers}"
        )
    import multiprocessing

    if isinstance(context, str):
        known = multiprocessing.get_all_start_methods()
        if context not in known:
            raise ValueError(
                "multiprocessing_context option should specify a valid start method in "
                f"{known!r}, but got multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string "
            f"specifying the start method, but got multiprocessing_context={context}"
        )
    return context


def _warn_many_workers(num_workers: int) -> None:
    if num_workers == 0:
        return
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count()
    if cores and num_workers > cores:
        warnings.warn(
            f"This DataLoader will create {num_workers} worker processes in total. Our suggested "
            f"max number of worker in current system is {cores}, which is smaller than what this "
            "DataLoader is going to create. Please be aware that excessive worker creation might "
            "get DataLoader running slow or even freeze, lower the worker number to avoid "
            "potential slowness/freeze if necessary.",
            stacklevel=3,
        )


class _BaseDataLoaderIter:
    """One pass over a loader's batches."""


    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._position = loader._begin()
        assert self._position.base_seed is not None
        self._job = Job(
            loader.dataset,
            loader._iterable,
            loader._auto_collation,
            loader.collate_fn,
            loader.drop_last,
            self._position.base_seed,
            loader.num_workers,
            loader.worker_init_fn,
            "thread" if loader.worker_type == "thread" else "multiprocessing",
        )
        self._fresh_sampler(loader)
        if loader.pin_memory:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, "
                "then device pinned memory won't be used.",
                stacklevel=4,
            )

    def _fresh_sampler(self, loader: DataLoader[Any]) -> None:
        self._sampler_iter = iter(loader._index_sampler)
        self._num_yielded = self._position.yielded
        self._skipped = self._position.skip(self._sampler_iter)

    def _reset(self, loader: DataLoader[Any]) -> None:
        """Begin the next epoch with the same workers."""
        self._position = loader._begin(self._position.base_seed)
        self._fresh_sampler(loader)

    def __iter__(self) -> _BaseDataLoaderIter:
        return self

    def __len__(self) -> int:
        return len(self._loader._index_sampler)

    def __next__(self) -> Any:
        try:
            data = self._next_data()
        except StopIteration:
            self._position.finish()
            raise
        self._num_yielded += 1
        self._warn_length()
        return data

    def _next_data(self) -> Any:
        raise NotImplementedError

    def _shutdown_workers(self) -> None:
        """End the workers, if there are any."""

    def _warn_length(self) -> None:
        """Warn when a stream gives more than the length that the program was told."""
        loader = self._loader
        expected = loader._warned_length
        if not loader._iterable or expected is None or self._num_yielded <= expected:
            return
        hint = (
            " For multiprocessing data-loading, this could be caused by not properly configuring "
            "the IterableDataset replica at each worker: see get_worker_info()."
        )
        warnings.warn(
            f"Length of IterableDataset {loader.dataset} was reported to be {expected}"
            f"(when accessing len(dataloader)), but {self._num_yielded} samples have been "
            f"fetched.{hint if loader.num_workers else ''}",
            stacklevel=3,
        )


class _SingleProcessDataLoaderIter(_BaseDataLoaderIter):
    """Fetches in the program's own thread, when asked."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._fetcher: Fetcher = self._job.fetcher()
        if self._skipped and loader._iterable:
            skip_requests(self._fetcher, self._skipped)  # type: ignore[arg-type]
        self._position.restored()

    def _next_data(self) -> Any:
        data = self._fetcher.fetch(next(self._sampler_iter))
        self._position.passed(self._position.yielded, 0, None)
        return data


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """Keeps workers busy ahead of the program and hands out replies in order.

    Task numbers count the epoch's requests. `_waiting` maps a number to the worker that
    has it, `_arrived` to its reply.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._workers = loader.num_workers
        self._pool = _make_pool(self._job, loader)
        # Not __del__: this also runs, once, when the interpreter ends.
        self._finalizer = weakref.finalize(self, self._pool.stop)
        self._epoch = 0
        self._start_epoch()

    def _reset(self, loader: DataLoader[Any]) -> None:
        super()._reset(loader)
        self._epoch += 1
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._waiting: dict[int, int] = {}
        self._arrived: dict[int, Reply] = {}
        self._sent = self._next = self._position.first_task
        self._active = [True] * self._workers
        self._turn = self._position.first_worker(self._workers)
        for worker in range(self._workers):
            skip, state = self._position.for_worker(worker, self._skipped, self._workers)
            self._pool.send(worker, Start(self._epoch, skip, state))
        for _ in range(self._workers * (self._loader.prefetch_factor or 1)):
            self._request()
        self._position.restored()

    def _request(self) -> None:
        """Give the next index to the next worker whose stream has not ended."""
        worker = self._next_worker()
        if worker is None:
            return
        while self._position.is_done(self._sent):  # came out of order before a resume
            if next(self._sampler_iter, self) is self:
                return
            self._sent += 1
        index = next(self._sampler_iter, self)
        if index is self:
            return
        self._turn = worker + 1
        self._pool.send(worker, Request(self._epoch, self._sent, index))
        self._waiting[self._sent] = worker
        self._sent += 1

    def _next_worker(self) -> int | None:
        order = (w % self._workers for w in range(self._turn, self._turn + self._workers))
        return next((w for w in order if self._active[w]), None)

    def _next_data(self) -> Any:
        if not self._finalizer.alive:
            raise StopIteration
        reply = self._next_reply()
        if reply is None:
            if not self._loader.persistent_workers:
                self._shutdown_workers()
            raise StopIteration
        self._request()
        if isinstance(reply.data, Failure):
            reply.data.reraise()
        self._position.passed(reply.task, reply.worker, reply.state)
        return reply.data

    def _next_reply(self) -> Reply | None:
        """The reply to hand out next; None at the end of the epoch."""
        while self._waiting or self._arrived:
            reply = self._pick()
            if reply is not None:
                return reply
            if self._waiting:
                self._wait()
        return None

    def _pick(self) -> Reply | None:
        """An arrived reply whose turn it is; any, when order does not matter."""
        if not self._loader.in_order and self._arrived:
            return self._arrived.pop(next(iter(self._arrived)))
        while self._next < self._sent:
            if self._next in self._arrived:
                self._next += 1
                return self._arrived.pop(self._next - 1)
            if self._next in self._waiting:
                return None
            self._next += 1
        return None

    def _wait(self) -> None:
        """Take one reply from the workers and file it."""
        reply = self._receive()
        if reply.epoch != self._epoch or reply.task not in self._waiting:
            return  # of an epoch that was left early, or of a stream that had ended
        del self._waiting[reply.task]
        if isinstance(reply.data, End):
            self._stream_ended(reply.worker)
        else:
            self._arrived[reply.task] = reply

    def _receive(self) -> Reply:
        timeout = self._loader.timeout
        try:
            reply = self._pool.receive(timeout or None)
        except BaseException:
            self._shutdown_workers()
            raise
        if reply is None:
            raise RuntimeError(
                f"DataLoader timed out after {timeout} seconds: no worker answered; "
                "raise timeout or look for what blocks in the dataset"
            )
        return reply

    def _stream_ended(self, worker: int) -> None:
        """Forget the requests that an ended worker cannot serve; ask another."""
        self._active[worker] = False
        self._waiting = {task: w for task, w in self._waiting.items() if w != worker}
        self._request()

    def _shutdown_workers(self) -> None:
        """End the workers; the iterator is exhausted afterwards."""
        self._finalizer()
        if self._loader._iterator is self:
            self._loader._iterator = None


def _make_pool(job: Job, loader: DataLoader[Any]) -> Pool:
    if job.method == "thread":
        return ThreadPool(job)
    import multiprocessing

    return ProcessPool(job, loader.multiprocessing_context or multiprocessing.get_context())

"""A loader's workers, as processes or as threads, behind one face.

A pool takes a message for one worker (`send`), gives the next reply of any (`receive`)
and ends them all (`stop`).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from .transport import receive, send
from .worker import Failure, Job, Reply, Request, Start, Worker

__all__ = ["Pool", "ProcessPool", "ThreadPool"]

_PATIENCE = 5.0  # seconds that `stop` gives the workers to finish what they are doing


class Pool(Protocol):
    """What the loader's iterator needs of its workers."""

    def send(self, worker: int, message: Start | Request) -> None:
        """Hand `message` to one worker."""

    def receive(self, timeout: float | None) -> Reply | None:
        """The next reply; None when `timeout` seconds have passed."""

    def stop(self) -> None:
        """End all workers; safe to call twice."""


class ThreadPool:
    """Workers that are threads: one copy of the dataset, nothing is pickled."""

    def __init__(self, job: Job) -> None:
        self._replies: SimpleQueue[Reply] = SimpleQueue()
        self._inboxes: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(job.num_workers)]
        self._stopped = threading.Event()
        self.workers = [self._thread(job, id) for id in range(job.num_workers)]
        for thread in self.workers:
            thread.start()

    def _thread(self, job: Job, id: int) -> threading.Thread:
        arguments = (job, id, self._inboxes[id], self._replies, self._stopped)
        return threading.Thread(
            target=_thread_main, args=arguments, name=f"DataLoader worker {id}", daemon=True
        )

    def send(self, worker: int, message: Start | Request) -> None:
        self._inboxes[worker].put(message)

    def receive(self, timeout: float | None) -> Reply | None:
        try:
            return self._replies.get(timeout=timeout)
        except Empty:
            return None

    def stop(self) -> None:
        self._stopped.set()
        for inbox in self._inboxes:
            inbox.put(None)
        deadline = time.monotonic() + _PATIENCE
        for thread in self.workers:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))


def _thread_main(
    job: Job, id: int, inbox: SimpleQueue[Any], replies: SimpleQueue[Reply], stopped: Any
) -> None:
    worker = Worker(job, id)
    while (message := inbox.get()) is not None and not stopped.is_set():
        if isinstance(message, Start):
            worker.start(message)
        else:
            replies.put(worker.answer(message))


class ProcessPool:
    """Workers that are processes, each at the end of its own two-way pipe.

    A worker that dies closes its pipe, so its death is noticed at once and without
    polling; a program that dies closes all pipes, so no worker outlives it.
    """

    def __init__(self, job: Job, context: Any) -> None:
        self._pipes: list[Any] = []
        self.workers: list[Any] = []
        self._ready: deque[Any] = deque()
        self._owner = os.getpid()
        try:
            for id in range(job.num_workers):
                self._launch(job, id, context)
        except BaseException:
            self.stop()
            raise

    def _launch(self, job: Job, id: int, context: Any) -> None:
        ours, theirs = context.Pipe(duplex=True)
        self._pipes.append(ours)
        # A forked child inherits the program's ends; kept open, they would hide its death.
        inherited = list(self._pipes) if context.get_start_method() == "fork" else []
        process = context.Process(
            target=_process_main, args=(job, id, theirs, inherited), daemon=True
        )
        process.start()
        theirs.close()
        self.workers.append(process)

    def send(self, worker: int, message: Start | Request) -> None:
        try:
            send(self._pipes[worker], message)
        except OSError:
            raise self._death(worker) from None

    def receive(self, timeout: float | None) -> Reply | None:
        from multiprocessing.connection import wait

        if not self._ready:
            self._ready.extend(wait(self._pipes, timeout))
        if not self._ready:
            return None
        pipe = self._ready.popleft()
        try:
            reply: Reply = receive(pipe)
        except (EOFError, OSError):
            raise self._death(self._pipes.index(pipe)) from None
        return reply

    def _death(self, worker: int) -> RuntimeError:
        """The error that says how `worker` ended."""
        process = self.workers[worker]
        process.join(_PATIENCE)
        return RuntimeError(
            f"DataLoader worker (pid(s) {process.pid}) exited unexpectedly: worker {worker} "
            f"{_ending(process.exitcode)}"
        )

    def stop(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked copy of the program: these are not its children
        for pipe in self._pipes:
            _hang_up(pipe)
        deadline = time.monotonic() + _PATIENCE
        for process in self.workers:
            process.join(max(0.0, deadline - time.monotonic()))
        for end in ("terminate", "kill"):
            alive = [process for process in self.workers if process.is_alive()]
            for process in alive:
                getattr(process, end)()
            for process in alive:
                process.join(1.0)


def _hang_up(pipe: Any) -> None:
    """End the connection even where another forked process still holds a copy of it."""
    import socket

    if not pipe.closed and hasattr(socket, "AF_UNIX"):
        with socket.socket(fileno=os.dup(pipe.fileno())) as end:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the worker has gone first
    pipe.close()


def _ending(code: int | None) -> str:
    """An exit code in words, with the usual cause."""
    if code is None:
        return "closed its pipe but is still running; a dataset must not close file descriptors"
    if code >= 0:
        return f"left with exit code {code}; does the dataset call os._exit or sys.exit?"
    import signal

    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (often the system's out-of-memory killer)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}; try fewer workers or worker_type='thread'"


def _process_main(job: Job, id: int, pipe: Any, inherited: list[Any]) -> None:
    import signal

    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to handle
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    worker = Worker(job, id)
    epoch = 0
    while (message := inbox.get()) is not None:
        if isinstance(message, Start):
            epoch = message.epoch
            worker.start(message)
        elif message.epoch == epoch and not _answer(worker, message, pipe):
            return


def _listen(pipe: Any, inbox: SimpleQueue[Any]) -> None:
    """Keep the pipe empty, so that the program never blocks on a busy worker."""
    try:
        while True:
            inbox.put(receive(pipe))
    except (EOFError, OSError):
        inbox.put(None)


def _answer(worker: Worker, request: Request, pipe: Any) -> bool:
    """Send the reply to `request`; False when nobody listens any more."""
    reply = worker.answer(request)
    if isinstance(reply.data, Failure):
        reply.data.portable()
    try:
        send(pipe, reply)
    except OSError:
        return False
    except Exception as error:  # the data does not pickle
        failure = Failure(error, f"DataLoader worker process {worker.id}").portable()
        send(pipe, reply._replace(data=failure, state=None))
    return True

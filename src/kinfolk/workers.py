"""Do work here or in processes of one thread each.

A worker is a fresh interpreter (start method *spawn*) at the other end of a pipe. It takes items one at a
time; the parent alone decides what comes next. Nothing is lost when a worker dies: its item is done again.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import reprlib
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, resource_tracker
from typing import Any

from kinfolk.exceptions import WorkerDied
from kinfolk.processes import serve

ATTEMPTS = 3  # an item is begun so often before a worker that dies of it is no accident
# One thread per process: results must not depend on the number of cores, and processes use the cores.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# glibc would return big buffers to the system and ask for them again at every step. 32 MiB is the most that older
# versions take; a user's own value goes first.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


def available_cores() -> int:
    """How many cores this process may use.

    >>> available_cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    workers: int,
    done: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """`function` of each item, in the order of the items.

    Parameters
    ----------
    function
        Called with one item. With more than one worker it must be importable, and it, the items and the
        results must be picklable.
    items
        Taken in order, each when a worker is free.
    workers
        1: everything happens in this process. More: so many processes of one thread each.
    done
        Called here with an item's number and its result, as each is finished.

    Raises
    ------
    BaseException
        What `function` raised; the other items are given up.
    WorkerDied
        When the worker of one item died three times, or workers cannot start: a RuntimeError.

    Examples
    --------
    >>> map(abs, [-1, 2, -3], workers=1)
    [1, 2, 3]
    """

    def report(index: int, result: Any) -> None:
        if done is not None:
            done(index, result)

    return run(function, items, workers=workers, done=report)


def run(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    workers: int,
    done: Callable[[int, Any], Iterable[Any] | None],
) -> list[Any]:
    """Like :func:`map`, but `done` may return more items, which are appended.

    >>> run(abs, [-2], workers=1, done=lambda index, result: [result - 1] if result else None)
    [2, 1, 0]
    """
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1. Got {workers}.")
    if workers > 1 and multiprocessing.current_process().daemon:
        raise RuntimeError(
            "A worker process must not start workers of its own; use `workers=1` there. If this is a script that "
            'calls Kinfolk, the call must stand under `if __name__ == "__main__":`.'
        )
    queue = _Queue(items)
    results: dict[int, Any] = {}
    finished = _here(function, queue) if workers == 1 else _elsewhere(function, queue, workers)
    try:
        for index, result in finished:
            results[index] = result
            queue.append(done(index, result) or ())
    finally:
        finished.close()
    return [results[index] for index in sorted(results)]


_END = object()


class _Queue:
    """Items with their numbers, taken in order; more may be appended."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._first = iter(items)
        self._more: deque[Any] = deque()
        self._numbers = itertools.count()

    def append(self, items: Iterable[Any]) -> None:
        self._more.extend(items)

    def take(self) -> tuple[int, Any] | None:
        item = next(self._first, _END)
        if item is _END:
            if not self._more:
                return None
            item = self._more.popleft()
        return next(self._numbers), item


def _here(function: Callable[[Any], Any], queue: _Queue) -> Generator[tuple[int, Any], None, None]:
    while (taken := queue.take()) is not None:
        yield taken[0], function(taken[1])


def _elsewhere(function: Callable[[Any], Any], queue: _Queue, workers: int) -> Generator[tuple[int, Any], None, None]:
    pool = _Pool(pickle.dumps(function), queue, workers)
    try:
        pool.assign()
        while busy := pool.busy():
            connection.wait([channel for worker in busy for channel in (worker.pipe, worker.process.sentinel)])
            for worker in busy:
                yield from pool.collect(worker)
            pool.assign()  # what `done` appended
        pool.dismiss()
    finally:
        pool.kill()


class _Pool:
    """The workers, and who does what."""

    def __init__(self, function: bytes, queue: _Queue, size: int) -> None:
        self._function = function
        self._script = _script()
        self._queue = queue
        self._size = size
        self._workers: list[_Worker] = []

    def busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job is not None]

    def assign(self) -> None:
        """Give items to workers that have none; start workers while there are items."""
        while len(self.busy()) < self._size and (taken := self._queue.take()) is not None:
            idle = [worker for worker in self._workers if worker.job is None]
            worker = idle[0] if idle else self._start()
            worker.give(_Job(*taken))

    def collect(self, worker: _Worker) -> Iterator[tuple[int, Any]]:
        """A worker's result, if it has one. A dead worker is replaced, and its item done again."""
        job = worker.job
        message = worker.receive()
        if job is None or message is None:
            return
        kind, value = message
        if kind == "died":
            self._workers.remove(worker)
            worker.kill()
            job = job.again(worker)
            self._start().give(job)
        elif kind == "raised":
            raise value
        elif kind == "result":
            worker.job = None
            self.assign()  # first, so that no worker waits while `done` works
            yield job.index, value

    def dismiss(self) -> None:
        """Let idle workers end by themselves."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.join(timeout=5)

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _start(self) -> _Worker:
        with _starting():  # known to the pool before Ctrl-C can come through
            worker = _Worker(self._function, self._script)
            self._workers.append(worker)
        return worker


@dataclass(frozen=True)
class _Job:
    """An item, its number, and how many workers have died of it."""

    index: int
    item: Any
    deaths: int = 0

    def again(self, worker: _Worker) -> _Job:
        """The job after `worker` died of it; RuntimeError when that was no accident."""
        if self.deaths + 1 < ATTEMPTS:
            return replace(self, deaths=self.deaths + 1)
        code = worker.process.exitcode or 0
        how = (
            f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
        )
        if not worker.ready:
            raise WorkerDied(f"A worker process could not start: it {how}, {ATTEMPTS} times. Use one worker.")
        raise WorkerDied(
            f"The worker process of item {self.index}, {reprlib.repr(self.item)}, {how}, {ATTEMPTS} times. "
            "The usual reason is too little memory; use fewer workers."
        )


class _Worker:
    """The parent's end of a worker process."""

    def __init__(self, function: bytes, script: tuple[str, str] | None) -> None:
        self.job: _Job | None = None
        self.ready = False  # it has started and read the function
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # A daemon, so that it does not keep an interpreter that ends from ending.
        self.process = context.Process(target=serve, args=(theirs, os.getpid(), script), daemon=True)
        self.process.start()
        theirs.close()  # the pipe ends with the worker
        self._send(function)

    def give(self, job: _Job) -> None:
        self.job = job
        if self.ready:  # else when it says so: a big item would block us while the worker imports
            self._send(pickle.dumps(job.item))

    def receive(self) -> tuple[str, Any] | None:
        """What the worker says: "result" or "raised" with a value, or that it died; None if nothing is there."""
        alive = self.process.is_alive()  # asked first: it may answer and die at once
        try:
            if not self.pipe.poll():
                return None if alive else ("died", None)
            content = self.pipe.recv_bytes()
        except (EOFError, OSError):
            return "died", None
        kind, value = pickle.loads(content)  # noqa: S301 - a pipe between our own processes
        if kind == "ready":
            self.ready = True
            if self.job is not None:
                self._send(pickle.dumps(self.job.item))
        return kind, value

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()

    def _send(self, content: bytes) -> None:
        with suppress(OSError):  # it died; `receive` says so
            self.pipe.send_bytes(content)


@contextmanager
def _starting() -> Iterator[None]:
    """What a process that is started here inherits: one thread, memory settings, deafness to Ctrl-C."""
    settings = THREADS | {name: os.environ.get(name, value) for name, value in MEMORY.items()}
    before = {name: os.environ.get(name) for name in settings}
    main = sys.modules["__main__"]
    mask = None
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # its start, otherwise within ours, would lift the mask
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(settings)
    # A worker would run the user's script again, up to its call of us. It does so only if it needs it.
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _script() -> tuple[str, str] | None:
    """The user's script: ("module", its name) or ("path", its file); None in an interactive session."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", os.path.abspath(path))

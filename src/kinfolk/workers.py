"""Do work here, in processes of one thread each, or on a Ray cluster.

A worker is a fresh interpreter (start method *spawn*) at the other end of a pipe, or several of them that do each item
together. It takes items one at a time; the parent alone decides what comes next. Nothing is lost when a worker dies:
its item is done again. Ray, an optional dependency, keeps to the same when one of its machines is lost.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import connection
from typing import Any, Literal

from kinfolk.exceptions import InputError, WorkerDied
from kinfolk.processes import one_thread
from kinfolk.teams import ATTEMPTS, Job, Team, script, starting

Workers = int | Literal["ray"]


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
    workers: Workers,
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
        1: everything happens in this process. More: so many processes of one thread each. ``"ray"``: as many as there
        are cores in the Ray cluster that `RAY_ADDRESS` names or that runs on this machine, otherwise in a new one here.
    done
        Called here with an item's number and its result, as each is finished.

    Raises
    ------
    BaseException
        What `function` raised; the other items are given up.
    WorkerDied
        When the worker of one item died three times, or workers cannot start: a RuntimeError.
    InputError
        When Ray is asked for and not installed.

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
    workers: Workers,
    done: Callable[[int, Any], Iterable[Any] | None],
    team: int = 1,
) -> list[Any]:
    """Like :func:`map`, but `done` may return more items, which are appended.

    With a `team` of more than one, each worker is so many processes. They call `function` with the same item; what it
    returns in the first of them is the result. :func:`kinfolk.processes.place` tells a process which one it is.

    >>> run(abs, [-2], workers=1, done=lambda index, result: [result - 1] if result else None)
    [2, 1, 0]
    """
    _check(workers, team)
    queue = _Queue(items)
    results: dict[int, Any] = {}
    if workers == "ray":
        finished = _on_ray(function, queue)
    else:
        finished = _here(function, queue) if workers * team == 1 else _elsewhere(function, queue, workers, team)
    try:
        for index, result in finished:
            results[index] = result
            queue.append(done(index, result) or ())
    finally:
        finished.close()
    return [results[index] for index in sorted(results)]


def _check(workers: Workers, team: int) -> None:
    if workers == "ray" and team > 1:
        raise ValueError(f"On Ray a `team` must be 1. Got {team}.")
    for name, count in (("workers", 1 if workers == "ray" else workers), ("team", team)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1. Got {count}.")
    if workers != "ray" and workers * team > 1 and multiprocessing.current_process().daemon:
        raise RuntimeError(
            "A worker process must not start workers of its own; use `workers=1` there. If this is a script that "
            'calls Kinfolk, the call must stand under `if __name__ == "__main__":`.'
        )


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
        with one_thread():
            result = function(taken[1])
        yield taken[0], result


def _elsewhere(
    function: Callable[[Any], Any], queue: _Queue, workers: int, team: int
) -> Generator[tuple[int, Any], None, None]:
    with tempfile.TemporaryDirectory(prefix="kinfolk-") as folder:
        pool = _Pool(pickle.dumps(function), queue, workers, team, folder)
        try:
            pool.assign()
            while busy := pool.busy():
                connection.wait([channel for worker in busy for channel in worker.channels()])
                for worker in busy:
                    yield from pool.collect(worker)
                pool.assign()  # what `done` appended
            pool.dismiss()
        finally:
            pool.kill()


class _Pool:
    """The workers, and who does what."""

    def __init__(self, function: bytes, queue: _Queue, size: int, team: int, folder: str) -> None:
        self._function = function
        self._script = script()
        self._queue = queue
        self._size = size
        self._team = team
        self._folder = folder
        self._workers: list[Team] = []

    def busy(self) -> list[Team]:
        return [worker for worker in self._workers if worker.job is not None]

    def assign(self) -> None:
        """Give items to workers that have none; start workers while there are items."""
        while len(self.busy()) < self._size and (taken := self._queue.take()) is not None:
            idle = [worker for worker in self._workers if worker.job is None]
            worker = idle[0] if idle else self._start()
            worker.give(Job(*taken))

    def collect(self, worker: Team) -> Iterator[tuple[int, Any]]:
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
            worker.dismiss()

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _start(self) -> Team:
        number = min(set(range(self._size)) - {worker.number for worker in self._workers})
        with starting():  # known to the pool before Ctrl-C can come through
            worker = Team(self._function, self._script, number, self._team, self._folder)
            self._workers.append(worker)
        return worker


# ---- on a Ray cluster

AHEAD = 2  # items per core that Ray knows of at a time


def _on_ray(function: Callable[[Any], Any], queue: _Queue) -> Generator[tuple[int, Any], None, None]:
    """Each item is a task of one core and one thread; Ray does it again when its process or its machine is lost."""
    ray = _ray()
    task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_one_thread)
    shared, most = ray.put(function), AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: dict[Any, int] = {}
    try:
        while True:
            while len(waiting) < most and (taken := queue.take()) is not None:
                waiting[task.remote(shared, taken[1])] = taken[0]
            if not waiting:
                return
            for done in ray.wait(list(waiting), num_returns=1)[0]:
                index = waiting.pop(done)
                yield index, _from_ray(ray, done, index)
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def _one_thread(function: Callable[[Any], Any], item: Any) -> Any:
    with one_thread():
        return function(item)


def _from_ray(ray: Any, done: Any, index: int) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as error:
        why = str(error).splitlines()[0]
        raise WorkerDied(f"The worker of item {index} on Ray died {ATTEMPTS} times: {why}") from error


def _ray() -> Any:
    """Ray, connected to a cluster."""
    try:
        import ray
    except ImportError:
        raise InputError("--workers ray needs Ray. Install it: pip install 'kinfolk[ray]'.") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return ray

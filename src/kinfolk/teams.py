"""The parent's end of worker processes: of one, or of several that do each item together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import reprlib
import signal
import sys
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, resource_tracker
from typing import Any

from kinfolk.exceptions import WorkerDied
from kinfolk.processes import Place, serve

ATTEMPTS = 3  # an item is begun so often before a worker that dies of it is no accident
GRACE = 1.0  # seconds until the death is known of a process of which another one complains
# One thread per process: results must not depend on the number of cores, and processes use the cores.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# glibc would return big buffers to the system and ask for them again at every step. 32 MiB is the most that older
# versions take; a user's own value goes first.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


@dataclass(frozen=True)
class Job:
    """An item, its number, and how many workers have died of it."""

    index: int
    item: Any
    deaths: int = 0

    def again(self, team: Team) -> Job:
        """The job after `team` died of it; RuntimeError when that was no accident."""
        if self.deaths + 1 < ATTEMPTS:
            return replace(self, deaths=self.deaths + 1)
        member = team.dead()
        code = member.process.exitcode or 0
        how = (
            f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
        )
        if not member.ready:
            raise WorkerDied(f"A worker process could not start: it {how}, {ATTEMPTS} times. Use one worker.")
        raise WorkerDied(
            f"The worker process of item {self.index}, {reprlib.repr(self.item)}, {how}, {ATTEMPTS} times. "
            "The usual reason is too little memory; use fewer workers."
        )


class Team:
    """The parent's end of a worker: of its one process, or of several that do each item together.

    Parameters
    ----------
    function
        Pickled; every process calls it with every item.
    script
        From :func:`script`.
    number
        The worker's among those that work at the same time, from 0.
    size
        How many processes it has.
    folder
        Where the processes of a worker can meet.
    """

    def __init__(
        self, function: bytes, script: tuple[str, str] | None, number: int = 0, size: int = 1, folder: str = ""
    ) -> None:
        self.job: Job | None = None
        self.number = number
        self._value: Any = None
        self._members: list[_Member] = []
        meeting = os.path.join(folder, uuid.uuid4().hex)
        for rank in range(size):
            self._members.append(_Member(function, script, Place(number, rank, size, meeting)))

    def channels(self) -> list[Any]:
        """What to wait for."""
        return [channel for member in self._members for channel in (member.pipe, member.process.sentinel)]

    def give(self, job: Job) -> None:
        """An item for every process."""
        self.job = job
        for member in self._members:
            member.give(job)

    def receive(self) -> tuple[str, Any] | None:
        """The first process's result when all are done, or else at once that one raised something or died."""
        for rank, member in enumerate(self._members):
            kind, value = member.receive() or ("", None)
            if kind == "raised" and self._one_died(member):
                return "died", None
            if kind in ("raised", "died"):
                return kind, value
            if kind == "result" and rank == 0:
                self._value = value
        if any(member.job is not None for member in self._members):
            return None
        return "result", self._value

    def dead(self) -> _Member:
        """The process that died, or the first one."""
        return next((member for member in self._members if member.died), self._members[0])

    def dismiss(self) -> None:
        """Let them end by themselves."""
        for member in self._members:
            member.pipe.close()
        for member in self._members:
            member.process.join(timeout=5)

    def kill(self) -> None:
        """End them."""
        for member in self._members:
            member.kill()

    def _one_died(self, member: _Member) -> bool:
        """Whether what a process raised is only that another one has gone."""
        others = [other for other in self._members if other is not member and other.job is not None]
        for gone in connection.wait([other.process.sentinel for other in others], GRACE) if others else ():
            next(other for other in others if other.process.sentinel == gone).died = True
        return any(other.died for other in others)


class _Member:
    """The parent's end of one process."""

    def __init__(self, function: bytes, script: tuple[str, str] | None, place: Place) -> None:
        self.job: Job | None = None
        self.ready = False  # it has started and read the function
        self.died = False  # by itself
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # A daemon, so that it does not keep an interpreter that ends from ending.
        self.process = context.Process(target=serve, args=(theirs, os.getpid(), script, place), daemon=True)
        self.process.start()
        theirs.close()  # the pipe ends with the process
        self._send(function)

    def give(self, job: Job) -> None:
        self.job = job
        if self.ready:  # else when it says so: a big item would block us while it imports
            self._send(pickle.dumps(job.item))

    def receive(self) -> tuple[str, Any] | None:
        """What it says: "result" or "raised" with a value, or that it died; None if nothing is there."""
        alive = self.process.is_alive()  # asked first: it may answer and die at once
        try:
            if not self.pipe.poll():
                self.died = not alive
                return None if alive else ("died", None)
            content = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.died = True
            return "died", None
        kind, value = pickle.loads(content)  # noqa: S301 - a pipe between our own processes
        if kind == "ready":
            self.ready = True
            if self.job is not None:
                self._send(pickle.dumps(self.job.item))
        else:
            self.job = None
        return kind, value

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()

    def _send(self, content: bytes) -> None:
        with suppress(OSError):  # it died; `receive` says so
            self.pipe.send_bytes(content)


@contextmanager
def starting() -> Iterator[None]:
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


def script() -> tuple[str, str] | None:
    """The user's script: ("module", its name) or ("path", its file); None in an interactive session."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", os.path.abspath(path))

"""What runs in a worker process; :mod:`kinfolk.teams` is its other end."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import runpy
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any


@dataclass(frozen=True)
class Place:
    """Which worker process this is; by default the only one.

    Attributes
    ----------
    worker
        The worker's number among those that work at the same time, from 0.
    rank, size
        The process's number among those that do each item together, and how many these are.
    meeting
        The name of a file, not there yet, by which they can find each other.
    """

    worker: int = 0
    rank: int = 0
    size: int = 1
    meeting: str = ""


_place = Place()


def place() -> Place:
    """Which worker process this is.

    >>> place().size
    1
    """
    return _place


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch has one thread inside, as in every worker process: so results do not depend on where they were computed."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def serve(pipe: connection.Connection, parent: int, script: tuple[str, str] | None, place: Place) -> None:
    """A worker's life: reads the function, then items until the pipe ends."""
    global _place
    _place = place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    function: Any = None

    def read_function(content: bytes) -> None:
        nonlocal function
        function = _loads(content, script)

    try:
        pipe.send_bytes(_outcome(read_function, pipe.recv_bytes(), "ready"))
        while True:
            pipe.send_bytes(_outcome(lambda content: function(_loads(content, script)), pipe.recv_bytes(), "result"))
    except (EOFError, OSError):  # the parent needs us no more, or is gone
        return


def _watch(parent: int) -> None:
    """End this process when its parent has gone, even by a kill -9; otherwise it would work on for nobody."""
    process = multiprocessing.parent_process()
    channels = [] if process is None else [process.sentinel]
    # The sentinel stays open if something the parent started holds it too; its number does not lie, but on Windows.
    while os.getppid() == parent and not connection.wait(channels, timeout=0.25):
        continue
    os._exit(1)


def _outcome(function: Callable[[bytes], Any], content: bytes, kind: str) -> bytes:
    try:
        return pickle.dumps((kind, function(content)))
    except BaseException as error:  # noqa: BLE001 - the end of the process: the parent raises it, whatever it is
        return pickle.dumps(("raised", _sendable(error)))


def _sendable(error: BaseException) -> BaseException:
    """`error` with its traceback as a note, or a RuntimeError that tells of it if it cannot be sent."""
    told = "In a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        error.add_note(told)
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - a constructor of any form may raise anything
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(told)
    return error


def _loads(content: bytes, script: tuple[str, str] | None) -> Any:
    return _Unpickler(io.BytesIO(content), script).load()


class _Unpickler(pickle.Unpickler):
    """Runs the user's script, as a module, if something that is defined in it is read."""

    def __init__(self, file: io.BytesIO, script: tuple[str, str] | None) -> None:
        super().__init__(file)
        self._script = script

    def find_class(self, module: str, name: str) -> Any:
        loaded = sys.modules["__main__"].__name__ == "__mp_main__"
        if module == "__main__" and self._script is not None and not loaded:
            _load_script(*self._script)
        return super().find_class(module, name)


def _load_script(kind: str, where: str) -> None:
    # The same names that multiprocessing uses: what is under `if __name__ == "__main__":` does not run, and the
    # parent finds classes of results by them.
    module = types.ModuleType("__mp_main__")
    run_script = runpy.run_module if kind == "module" else runpy.run_path
    module.__dict__.update(run_script(where, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module

"""Trainings that are kept on the disk while they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from torch import Tensor

from kinfolk import distributed
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.training.loop import Training

SECONDS = 30.0  # between two checkpoints


def run(training: Training, folder: Folder | None, name: str, deadline: float | None = None) -> None:
    """Trains to the end, or to the deadline, from the checkpoint `name` in `folder` if there is one.

    Parameters
    ----------
    training
        What is trained; a new one, of the same arguments as the one that wrote the checkpoint.
    folder
        Where a checkpoint is written every 30 s, or None.
    name
        Of its file.
    deadline
        As of :meth:`kinfolk.training.loop.Training.run`.

    Raises
    ------
    InputError
        When the checkpoint is damaged.
    """
    if folder is not None and folder.has(name):
        training.load(_read(folder, name))
    training.run(None, deadline, _keeper(folder, name))


def _keeper(folder: Folder | None, name: str) -> Callable[[Training], None] | None:
    if folder is None or distributed.rank() > 0:
        return None
    return partial(_keep, folder, name, [time.monotonic()])


def _keep(folder: Folder, name: str, last: list[float], training: Training) -> None:
    if time.monotonic() - last[0] < SECONDS:
        return
    from safetensors.torch import save

    folder.write_bytes(name, save({n: t.contiguous().cpu().clone() for n, t in training.state().items()}))
    last[0] = time.monotonic()


def _read(folder: Folder, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(folder.read_bytes(name))
    except SafetensorError as error:
        raise InputError(f"The checkpoint {name} in {folder} is damaged ({error}). Remove it to train anew.") from error

"""``kinfolk.fit``: a table with several targets in, a verdict and a model out."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kinfolk.conclusion import conclude, write_tables
from kinfolk.data.encoding import expected_columns
from kinfolk.data.splits import labelled_rows, unlabelled_rows
from kinfolk.data.tables import Roles, Table, make_table, read
from kinfolk.data.unlabelled import with_unlabelled
from kinfolk.evidence.compare import compare, prepare
from kinfolk.evidence.estimate import announcement
from kinfolk.evidence.fitting import Comparing, encoded
from kinfolk.evidence.plan import Plan, plan_for
from kinfolk.evidence.verdict import Verdict
from kinfolk.exceptions import InputError
from kinfolk.handing import hand_over
from kinfolk.identity import command, identity, require_same
from kinfolk.model import Model, load
from kinfolk.runs import Folder, open_run

MOST_SETTINGS = 6


@dataclass(frozen=True)
class Options:
    """How to compare; None leaves it to the size of the table.

    Attributes
    ----------
    arms
        Texts of network arms and opponents that replace the default ones.
    add
        Texts that are added to them.
    repeats, folds, inner, settings
        See :class:`~kinfolk.evidence.plan.Plan`.
    seed
        Of everything.
    device
        Of networks, as torch names it.
    one_network
        Hand over a single network instead of a blend.
    """

    arms: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    repeats: int | None = None
    folds: int | None = None
    inner: int | None = None
    settings: int | None = None
    seed: int = 0
    device: str = "cpu"
    one_network: bool = False


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes
    ----------
    verdict
        Whether sharing helps, task by task, and what to use.
    comparison
        A row per arm, outer split and task.
    model
        The model that is handed over.
    path
        The run folder.
    """

    verdict: Verdict
    comparison: pd.DataFrame
    model: Model
    path: Path

    def predict(self, frame: pd.DataFrame, proba: bool = False) -> pd.DataFrame:
        """Predictions of the model, a column per main task; see :meth:`kinfolk.model.Model.predict`."""
        return self.model.predict(frame, proba)

    def save(self, path: Path | str) -> None:
        """Writes the model into a folder, for :func:`kinfolk.load` and ``kinfolk predict``."""
        self.model.save(path)


def fit(
    table: pd.DataFrame | Path | str,
    targets: Sequence[str],
    *,
    auxiliary: Sequence[str] = (),
    ignore: Sequence[str] = (),
    group: str | None = None,
    weight: str | None = None,
    split: str | None = None,
    test: pd.DataFrame | Path | str | None = None,
    unlabelled: pd.DataFrame | Path | str | None = None,
    errors: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    options: Options | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    budget: float | None = None,
    processes: int = 1,
    devices: int = 1,
    announce: Callable[[list[str]], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Compares ways to learn several targets of a table, and hands over a model.

    Parameters
    ----------
    table
        A CSV or Parquet file, or a DataFrame.
    targets
        Columns to learn, each ``NAME`` or ``NAME:KIND`` (regression, binary, multiclass; one_vs_rest: a binary task
        for each class).
    auxiliary
        Columns that only help training, in the same form.
    ignore, group, weight, split
        Columns that are left out, whose rows stay in one fold, that weigh rows, that mark test rows.
    test
        A table of test rows.
    unlabelled
        A table of rows without labels, with the feature columns of the other. As rows of the table that have no label,
        they feed arms with a task that needs none, see :mod:`kinfolk.evidence.unlabelled`.
    errors
        Target, or task -> name of the error by which it is judged.
    missing
        Cells that also mean *missing*.
    options
        Arms, splits, settings, seed.
    out
        The run folder; by default a temporary one.
    resume
        Go on with the run that ``out`` holds.
    budget
        Seconds in all, of this call; the model comes first, and what is left judges it.
    processes
        Worker processes; more than one needs ``if __name__ == "__main__":`` in a script.
    devices
        How many devices they share: ``cuda:0`` and so on, or processes of a CPU. With at least as many worker processes
        each has one; with fewer, several devices train each network together, a share of the rows each.
    announce
        Called with what is going to be done, before it is.
    progress
        Called with the share that is done.

    Raises
    ------
    InputError
        For a mistake in the table, a column, an option or the folder.
    """
    began = time.time()
    given = Roles(tuple(targets), tuple(auxiliary), tuple(ignore), group, weight, split, dict(errors or {}))
    made = _table(table, given, test, unlabelled, missing)
    plan = _plan(made, options or Options())
    _check_devices(plan.device, devices)
    comparing = replace(prepare(made, plan, Path(out or ".")), devices=devices)
    if out is None:  # only now, so that a mistake leaves nothing behind
        comparing = replace(comparing, path=Path(tempfile.mkdtemp(prefix="kinfolk-")))
    with open_run(comparing.path, resume) as run:
        about = identity(comparing)
        require_same(run, about)
        if announce is not None:
            announce(announcement(comparing, processes))
        run.write_json("plan.json", about | {"command": command(), "threads": processes, "devices": devices})
        with _timed(run, began) as seconds:
            left = None if budget is None else budget - (time.time() - began)
            not_tried = compare(comparing, processes=processes, budget=left, progress=progress)
            return _finish(run, comparing, not_tried, seconds)


@contextmanager
def _timed(run: Folder, began: float) -> Iterator[Callable[[], float]]:
    """Gives the seconds spent on a run so far; they are kept when it is stopped, and added up when it goes on."""
    before = run.read_json("seconds.json") if run.has("seconds.json") else 0.0
    try:
        yield lambda: before + time.time() - began
    finally:
        run.write_json("seconds.json", before + time.time() - began)


def _finish(run: Folder, comparing: Comparing, not_tried: list[str], seconds: Callable[[], float]) -> Fitted:
    model = hand_over(comparing)
    encoded.cache_clear()  # it holds the table
    _replace_model(run, model)
    lacking = [task.name for task in comparing.table.tasks if task.main and task.name not in model.blend]
    notes = [f"No arm could be fitted to '{name}': the model does not predict it." for name in lacking]
    warnings = [*run.read_json("plan.json")["warnings"], *notes]
    outcome = {"not_tried": not_tried, "seconds": seconds(), "blend": model.blend, "warnings": warnings}
    write_tables(run, comparing, outcome)
    verdict = conclude(run.path)
    return Fitted(verdict, run.read_frame("comparison.parquet"), load(run.path / "model"), run.path)


def _replace_model(run: Folder, model: Model) -> None:
    """Writes the model beside its place first: a model folder is there whole or not at all."""
    place, beside = run.path / "model", run.path / "model.unfinished"
    shutil.rmtree(beside, ignore_errors=True)
    model.save(beside)
    if place.exists():
        shutil.rmtree(place)
    beside.rename(place)


def _table(
    table: pd.DataFrame | Path | str,
    roles: Roles,
    test: pd.DataFrame | Path | str | None,
    unlabelled: pd.DataFrame | Path | str | None,
    missing: Sequence[str],
) -> Table:
    name = "DataFrame" if isinstance(table, pd.DataFrame) else Path(table).name
    frame, held, extra = (
        one if one is None or isinstance(one, pd.DataFrame) else read(one, missing) for one in (table, test, unlabelled)
    )
    frames = [one for one in (frame, held) if one is not None]
    made = make_table(frames[0], roles, held, name)
    return made if extra is None else with_unlabelled(made, extra, roles, frames)


def _plan(table: Table, options: Options) -> Plan:
    main = sum(task.main for task in table.tasks)
    if table.test is not None and (options.repeats, options.folds) != (None, None):
        given = "x".join(str(n) for n in (options.repeats, options.folds) if n is not None)
        raise InputError(
            f"Test rows are the only outer split, so --splits must not be given beside them. Got --splits {given}. "
            "Leave out --splits, or the test rows (--test, --split)."
        )
    labelled = labelled_rows(table)
    rows = len(labelled) if table.test is None else int((~table.test[labelled]).sum())
    plan = plan_for(rows, expected_columns(table.features), main, len(unlabelled_rows(table)))
    arms = (*(options.arms or plan.arms), *options.add)
    plan = plan.changed(
        arms=arms, repeats=options.repeats, folds=options.folds, settings=options.settings, seed=options.seed,
        device=options.device, one_network=options.one_network,
    )  # fmt: skip
    if options.inner is not None:
        plan = plan.changed(inner=options.inner, held=options.inner)
    for name, value, least in (("repeats", plan.repeats, 1), ("folds", plan.folds, 2), ("inner", plan.inner, 2)):
        if value < least:
            raise InputError(f"`{name}` must be at least {least}. Got {value}.")
    if not 1 <= plan.settings <= MOST_SETTINGS:
        raise InputError(f"`settings` must be between 1 and {MOST_SETTINGS}. Got {plan.settings}.")
    _check_device(plan.device)
    return plan


def _check_device(device: str) -> None:
    import torch

    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch's words for an unknown and for an absent device
        first = str(error).splitlines()[0]
        raise InputError(
            f"`device` must be one that torch has here, as cpu or cuda. Got '{device}': {first}"
        ) from error


def _check_devices(device: str, devices: int) -> None:
    if devices < 1:
        raise InputError(f"`devices` must be at least 1. Got {devices}.")
    if devices == 1 or device == "cpu":
        return
    if device != "cuda":
        raise InputError(f"Several devices are 'cuda', all GPUs from the first, or 'cpu'. Got '{device}'.")
    import torch

    if devices > (there := torch.cuda.device_count()):
        raise InputError(f"`devices` must be at most the number of GPUs here, {there}. Got {devices}.")

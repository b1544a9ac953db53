"""One arm inside one outer split: all its settings on all inner folds, and what they predict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kinfolk.data.encoding import Encoder, check_memory
from kinfolk.data.splits import Split, fold_numbers, stop_rows
from kinfolk.data.tables import Table
from kinfolk.evidence.jobs import Fits, Job, Learner, Predictor, Rows, Surroundings
from kinfolk.evidence.learners import average, learner, save
from kinfolk.evidence.plan import Plan
from kinfolk.processes import place
from kinfolk.runs import Folder


@dataclass(frozen=True, eq=False)  # one object per comparison: tables are not compared
class Comparing:
    """All that a process needs to know to fit any arm in any split.

    Attributes
    ----------
    table, plan
        What is compared, and how.
    splits
        The outer splits; the last one is the model's own, of all rows, with no row held out, unless the user has
        test rows (then the model is that of the only split).
    path
        The run folder.
    devices
        How many devices the worker processes share: :func:`device_of` says which is whose.
    """

    table: Table
    plan: Plan
    splits: tuple[Split, ...]
    path: Path
    devices: int = 1

    @property
    def model(self) -> int:
        """The split whose fits are handed over."""
        return len(self.splits) - 1

    def folder(self, split: int, arm: int | None = None) -> Folder:
        """Where the fits of a split, or of one arm in it, lie."""
        name = "model" if split == self.model else f"{self.splits[split].repeat}-{self.splits[split].fold}"
        return Folder(self.path).folder(f"splits/{name}" + ("" if arm is None else f"/{arm}"))


@dataclass(frozen=True)
class Item:
    """One arm in one split, and when it must end (a time of the system's clock, or None)."""

    split: int
    arm: int
    deadline: float | None = None


@lru_cache(maxsize=1)
def encoded(comparing: Comparing, split: int) -> tuple[Encoder, Rows, np.ndarray]:
    """The encoder fitted on a split's training rows, these rows, and the encoded rows that are held out.

    Rows without any label are encoded and fit nothing: what reads them not is the same with them and without.
    """
    table, one = comparing.table, comparing.splits[split]
    encoder = Encoder(comparing.plan.seed).fit(table.features.iloc[one.train])
    inputs = encoder.transform(table.features.iloc[one.train])
    held = encoder.transform(table.features.iloc[one.test]) if len(one.test) else np.zeros((0, inputs.shape[1]))
    rows = Rows(inputs, table.labels[one.train], table.weight[one.train], table.tasks)
    if len(one.unlabelled):
        check_memory(len(table.labels), inputs.shape[1])
        extra = encoder.transform(table.features.iloc[one.unlabelled])
        rows = replace(rows, unlabelled=extra, unlabelled_weight=table.weight[one.unlabelled])
    return encoder, rows, held


def jobs_of(comparing: Comparing, split: int, rows: Rows, settings: int) -> tuple[np.ndarray, list[Job]]:
    """The inner fold of each row (-1: none, it has no label), and a job for each fold held out and setting.

    There are fewer folds than planned where there are fewer rows or groups.
    """
    table, plan, one = comparing.table, comparing.plan, comparing.splits[split]
    groups = None if table.groups is None else table.groups[one.train]
    labelled = np.flatnonzero(~np.isnan(rows.labels).all(1) & (rows.weight > 0))
    numbers = np.full(len(rows.labels), -1)
    seed = plan.seed + 1000 * (one.repeat + 1) + one.fold
    inner_groups = None if groups is None else groups[labelled]
    folds = min(plan.inner, len(labelled if inner_groups is None else np.unique(inner_groups)))
    numbers[labelled] = fold_numbers(rows.labels[labelled], table.tasks, inner_groups, folds, seed)
    jobs = []
    for fold in range(min(plan.held, folds)):
        others = np.flatnonzero((numbers != fold) & (numbers >= 0))
        train, stop = stop_rows(others, rows.labels, table.tasks, groups, seed + fold)
        extra = _unlabelled(table, one, np.concatenate([np.flatnonzero(numbers == fold), stop]))
        jobs += [Job(train, stop, setting, seed + fold, extra) for setting in range(settings)]
    return numbers, jobs


def _unlabelled(table: Table, one: Split, judging: np.ndarray) -> np.ndarray:
    """Positions among a split's rows without labels, but those of groups that judge or stop."""
    extra = np.arange(len(one.unlabelled))
    if table.groups is None:
        return extra
    return extra[~np.isin(table.groups[one.unlabelled], table.groups[one.train[judging]])]


def device_of(comparing: Comparing) -> str:
    """Where the networks of this process are: on the device that was asked for, or on its share of several."""
    device = comparing.plan.device
    if comparing.devices == 1 or not device.startswith("cuda"):
        return device
    here = place()
    return f"cuda:{(here.worker * here.size + here.rank) % comparing.devices}"


def fit_arm(comparing: Comparing, item: Item) -> None:
    """Fits an arm in a split and writes what it predicts; what is there already is not done again.

    A fit that a deadline ended too early is written too, and goes on when there is time again. Of several processes
    that train together all train the networks, and the first one does the rest.
    """
    folder = comparing.folder(item.split, item.arm)
    before = folder.read_json("result.json") if folder.has("result.json") else {"cut": True, "seconds": 0.0}
    late = _late(comparing, item)
    if not before["cut"] or (late and folder.has("result.json")):
        return
    arm, first = learner(comparing.plan.arms[item.arm], comparing.plan), place().rank == 0
    if not first and arm.role == "opponent":
        return
    began = time.monotonic()
    encoder, rows, held = encoded(comparing, item.split)
    numbers, jobs = jobs_of(comparing, item.split, rows, len(arm.settings))
    fits = arm.fit(rows, jobs, _around(comparing, item, folder))
    if first:
        done = {"seconds": before["seconds"] + time.monotonic() - began, "features": len(encoder.names)}
        _write(comparing, item, arm, fits, jobs, (numbers, rows, held), done)


def _late(comparing: Comparing, item: Item) -> bool:
    """Whether the deadline has passed; processes that train together meet here, and say the same."""
    late, here = item.deadline is not None and time.time() >= item.deadline, place()
    if here.size == 1:
        return late
    from kinfolk import distributed

    distributed.join(here.rank, here.size, here.meeting, device_of(comparing))
    return distributed.agree(late)


def _write(
    comparing: Comparing,
    item: Item,
    arm: Learner,
    fits: Fits,
    jobs: Sequence[Job],
    data: tuple[np.ndarray, Rows, np.ndarray],
    done: dict[str, Any],
) -> None:
    """Writes predictions, models and, last of all, ``result.json``."""
    folder = comparing.folder(item.split, item.arm)
    arrays, members = _predictions(arm, fits, jobs, *data, comparing.plan)
    if item.split == comparing.model:
        _keep_models(folder, members, comparing.plan)
        if fits.history:
            import pandas as pd

            folder.write_frame("history.parquet", pd.DataFrame(fits.history))
        if len(fits.learned):
            folder.write_frame("learned.parquet", fits.learned)
    folder.write_arrays("predictions.npz", arrays)
    result = {
        "arm": arm.text,
        "role": arm.role,
        "settings": list(arm.settings),
        "predict_seconds_per_1000_rows": _per_thousand(members, data[1], comparing.plan),
        "parameters": next((m[0].parameters for m in members.values()), None),
        "epochs": {str(s): float(np.mean([m.epochs for m in of])) for s, of in members.items()},
        "failed": [f | {"split": folder.path.parent.name} for f in fits.failed],
        "tried": sorted(members),
        "cut": fits.cut,
    }
    folder.write_json("result.json", result | done)
    if not fits.cut:
        _clean(folder)


def finished(comparing: Comparing, split: int) -> list[int]:
    """The arms that are fitted in a split, and were not cut short."""
    folders = {arm: comparing.folder(split, arm) for arm in range(len(comparing.plan.arms))}
    return [a for a, f in folders.items() if f.has("result.json") and not f.read_json("result.json")["cut"]]


def _around(comparing: Comparing, item: Item, folder: Folder) -> Surroundings:
    left = None if item.deadline is None else time.monotonic() + item.deadline - time.time()
    return Surroundings(folder, device_of(comparing), left, comparing.plan.one_network)


def _predictions(
    arm: Learner, fits: Fits, jobs: Sequence[Job], numbers: np.ndarray, rows: Rows, held: np.ndarray, plan: Plan
) -> tuple[dict[str, np.ndarray], dict[int, list[Predictor]]]:
    """For each setting that was fitted on every fold: ``inner/setting/task``, NaN where not held out, and ``outer``.

    Main tasks that every fold's fit predicts.
    """
    arrays: dict[str, np.ndarray] = {}
    kept: dict[int, list[Predictor]] = {}
    for setting in range(len(arm.settings)):
        own = [fits.predictors[j] for j in range(len(jobs)) if jobs[j].setting == setting]
        members = [p for p in own if p is not None]
        if not members or len(members) < len(own):
            continue
        kept[setting] = members
        at = [np.flatnonzero(numbers == fold) for fold in range(len(members))]
        inner = [member.predict(rows.inputs[own]) for member, own in zip(members, at, strict=True)]
        outer = _used(members, plan).predict(held) if len(held) else None
        for t, task in enumerate(rows.tasks):
            parts = [part for one in inner if (part := one[t]) is not None]
            if not task.main or len(parts) < len(members):
                continue
            whole = arrays[f"inner/{setting}/{t}"] = np.full((len(rows.labels), task.size), np.nan)
            for own, part in zip(at, parts, strict=True):
                whole[own] = part
            if outer is not None and (part := outer[t]) is not None:
                arrays[f"outer/{setting}/{t}"] = part
    return arrays, kept


def _used(members: Sequence[Predictor], plan: Plan) -> Predictor:
    """What is handed over of the fits of one setting: their mean, or the first fold's network."""
    return average(members[:1] if plan.one_network else members)


def _keep_models(folder: Folder, members: dict[int, list[Predictor]], plan: Plan) -> None:
    for setting, predictors in members.items():
        save(_used(predictors, plan), folder, f"setting{setting}")


def _per_thousand(members: dict[int, list[Predictor]], rows: Rows, plan: Plan) -> float | None:
    if not members:
        return None
    some = np.resize(rows.inputs, (1000, rows.inputs.shape[1]))
    predictor = _used(next(iter(members.values())), plan)
    began = time.perf_counter()
    predictor.predict(some)
    return time.perf_counter() - began


def _clean(folder: Folder) -> None:
    for path in folder.path.glob("checkpoint*.safetensors"):
        folder.remove(path.name)

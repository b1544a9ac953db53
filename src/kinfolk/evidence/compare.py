"""The nested procedure: arms x outer splits, in worker processes, with everything finished kept on disk.

For each outer split every arm is fitted with every setting on every inner fold; settings, arms and the blend are
chosen on the inner rows left out, and judged on the outer rows. The model that is handed over comes from the same
procedure once more, on all rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kinfolk import workers
from kinfolk.data.splits import Split, outer_splits
from kinfolk.data.tables import Table
from kinfolk.evidence.fitting import Comparing, Item, fit_arm
from kinfolk.evidence.judging import judge_split
from kinfolk.evidence.learners import learner
from kinfolk.evidence.plan import Plan
from kinfolk.runs import Folder

COMPARISON = ["arm", "role", "setting", "chosen", "repeat", "fold", "task", "error_name", "error"]
COMPARISON += ["train_rows", "judged_rows", "epochs", "seconds"]  # columns where nothing was judged
PREDICTIONS = ["arm", "role", "repeat", "fold", "task", "row", "target", "weight", "baseline", "prediction"]
HISTORY = ["arm", "setting", "task", "update", "stop_loss", "train_loss", "weight"]
MODEL_SHARE = 0.5  # of a time budget: the model comes first, what is left judges it


@dataclass(frozen=True)
class Judging:
    """A split of which every arm is fitted."""

    split: int


@dataclass
class Outcome:
    """What was left out."""

    not_tried: list[str] = field(default_factory=list)


def prepare(table: Table, plan: Plan, path: Path) -> Comparing:
    """Splits the rows, and checks every arm.

    Raises
    ------
    InputError
        If an arm is not one, or rows or groups are too few for the folds.
    """
    splits = outer_splits(table, plan.repeats, plan.folds, plan.seed)
    if table.test is None:
        everything = np.arange(len(table.labels))
        splits.append(Split(plan.repeats, 0, everything, everything[:0]))
    roles = {text: learner(text, plan).role for text in plan.arms}
    if len(table.tasks) == 1:  # there is nothing to share
        plan = plan.changed(arms=tuple(text for text in plan.arms if roles[text] != "sharing"))
    return Comparing(table, plan, tuple(splits), path)


def compare(
    comparing: Comparing,
    *,
    processes: int = 1,
    budget: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Fits and judges everything that is not on disk yet.

    Parameters
    ----------
    comparing
        From :func:`prepare`.
    processes
        How many worker processes, of one thread each.
    budget
        Seconds in all; None: as long as it takes.
    progress
        Called with the share that is done, in [0, 1].
    """
    schedule = _Schedule(comparing, processes, budget)
    whole = schedule.whole
    finished = 0.0

    def done(index: int, item: Item | Judging) -> Sequence[Item | Judging]:
        nonlocal finished
        if isinstance(item, Item):
            finished += schedule.cost(item.arm)
            if progress is not None:
                progress(min(1.0, finished / whole))
        return schedule.done(item)

    workers.run(partial(_work, comparing), schedule.items(), workers=processes, done=done)
    return Outcome(schedule.not_tried)


def _work(comparing: Comparing, item: Item | Judging) -> Item | Judging:
    if isinstance(item, Judging):
        if not comparing.folder(item.split).has("comparison.parquet"):
            judge_split(comparing, item.split)
    else:
        fit_arm(comparing, item)
    return item


class _Schedule:
    """Which item comes next: the model's split first, then outer splits as long as the budget lasts."""

    def __init__(self, comparing: Comparing, processes: int, budget: float | None) -> None:
        self.comparing, self.processes, self.budget = comparing, processes, budget
        self.began = time.time()
        self.not_tried: list[str] = []
        self.roles = [learner(text, comparing.plan).role for text in comparing.plan.arms]
        self.open: dict[int, set[int]] = {}
        self.started: dict[int, float] = {}
        self.seconds: dict[int, float] = {}
        self.whole = len(comparing.splits) * sum(map(self.cost, range(len(self.roles))))

    def cost(self, arm: int) -> float:
        """About how long an arm takes beside the others."""
        tasks = sum(task.main for task in self.comparing.table.tasks)
        return {"opponent": 0.5, "sharing": 1.0, "single-task": 0.7 * tasks}[self.roles[arm]]

    def items(self) -> Iterator[Item | Judging]:
        model = self.comparing.model
        costly_first = sorted(range(len(self.roles)), key=self.cost, reverse=self.budget is None)
        self.open[model] = set(costly_first)
        for arm in costly_first:
            if self._late(MODEL_SHARE):
                self.open[model].discard(arm)
                self.not_tried.append(f"{self.comparing.plan.arms[arm]}: the time budget was spent before it began")
            else:
                self.started[arm] = time.time()
                yield Item(model, arm, self._deadline(MODEL_SHARE))
        tried = [arm for arm in costly_first if arm in self.started]
        for split in range(model):
            if self.budget is not None and self._seconds_of_split() > self.began + self.budget - time.time():
                self.not_tried.append(f"{model - split} of {model} outer splits: the time budget would not have lasted")
                return
            self.open[split] = set(tried)
            for arm in tried:
                yield Item(split, arm, self._deadline(1.0))

    def done(self, item: Item | Judging) -> list[Item | Judging]:
        """Notes a result; a split is judged when its last arm is in."""
        if isinstance(item, Judging):
            return []
        if item.split == self.comparing.model:
            self.seconds[item.arm] = time.time() - self.started[item.arm]
        self.open[item.split].discard(item.arm)
        judged = len(self.comparing.splits[item.split].test) > 0
        return [Judging(item.split)] if judged and not self.open[item.split] else []

    def _late(self, share: float) -> bool:
        deadline = self._deadline(share)
        return deadline is not None and time.time() >= deadline and bool(self.started)

    def _deadline(self, share: float) -> float | None:
        return None if self.budget is None else self.began + share * self.budget

    def _seconds_of_split(self) -> float:
        """How long one more split will take, by what the model's fits took."""
        running = (time.time() - self.started[arm] for arm in self.started if arm not in self.seconds)
        return (sum(self.seconds.values()) + sum(running)) / self.processes


def collect(comparing: Comparing) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The comparison, the predictions, and the learning curves of the model's networks, from all splits."""
    judged = [comparing.folder(split) for split in range(len(comparing.splits))]
    judged = [folder for folder in judged if folder.has("comparison.parquet")]
    curves = [comparing.folder(comparing.model, arm) for arm in range(len(comparing.plan.arms))]
    curves = [folder for folder in curves if folder.has("history.parquet")]
    return (
        _joined(judged, "comparison.parquet", COMPARISON),
        _joined(judged, "predictions.parquet", PREDICTIONS),
        _joined(curves, "history.parquet", HISTORY),
    )


def _joined(folders: Sequence[Folder], name: str, columns: Sequence[str]) -> pd.DataFrame:
    frames = [folder.read_frame(name) for folder in folders]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))

"""The nested procedure: arms x outer splits, in worker processes, with everything finished kept on disk.

For each outer split every arm is fitted with every setting on every inner fold; settings, arms and the blend are
chosen on the inner rows left out, and judged on the outer rows. The model that is handed over comes from the same
procedure once more, on all rows.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from kinfolk import workers
from kinfolk.data.encoding import expected_columns
from kinfolk.data.splits import outer_splits, whole_split
from kinfolk.data.tables import Table
from kinfolk.evidence.fitting import Comparing, Item, finished, fit_arm
from kinfolk.evidence.jobs import LEARNED
from kinfolk.evidence.judging import judge_split, judged
from kinfolk.evidence.learners import check, learner
from kinfolk.evidence.plan import Plan
from kinfolk.evidence.unlabelled import PADDED, SEMI
from kinfolk.exceptions import InputError, WorkerDied
from kinfolk.processes import place
from kinfolk.runs import Folder

# Columns where nothing was judged.
COMPARISON = ["arm", "role", "setting", "chosen", "repeat", "fold", "task", "error_name", "error"]
COMPARISON += ["train_rows", "judged_rows", "epochs", "seconds"]
PREDICTIONS = ["arm", "role", "repeat", "fold", "task", "row", "target", "weight", "baseline", "prediction"]
HISTORY = ["arm", "setting", "task", "update", "stop_loss", "train_loss", "weight"]
MODEL_SHARE = 0.3  # of a time budget: the model comes first; a verdict needs two more splits at least


@dataclass(frozen=True)
class Judging:
    """A split of which every arm is fitted."""

    split: int


def prepare(table: Table, plan: Plan, path: Path) -> Comparing:
    """Splits the rows, and checks every arm.

    Raises
    ------
    InputError
        If an arm is not one or does not fit the tasks, if rows or groups are too few for the folds, or if a single
        network is asked for and no arm makes one.
    """
    splits = outer_splits(table, plan.repeats, plan.folds, plan.seed, plan.unlabelled)
    if table.test is None:
        splits.append(whole_split(table, plan.repeats, plan.seed, plan.unlabelled))
    learners = [learner(text, plan) for text in plan.arms]
    for one in learners:
        check(one, table.tasks, expected_columns(table.features))
    roles = {one.text: one.role for one in learners}  # an arm that is given twice, in whatever spelling, counts once
    if len(table.tasks) == 1:  # there is nothing to share
        roles = {text: role for text, role in roles.items() if role != "sharing"} or roles
    wanted = {"sharing", SEMI, PADDED}
    if sum(task.main for task in table.tasks) == 1:
        wanted.add("single-task")
    if plan.one_network and wanted.isdisjoint(roles.values()):
        raise InputError(
            f"--one-network needs an arm whose tasks share a network, as hard. Got {', '.join(roles)}. Add --arm +hard."
        )
    return Comparing(table, plan.changed(arms=tuple(roles)), tuple(splits), path)


def compare(
    comparing: Comparing,
    *,
    processes: int = 1,
    budget: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Fits and judges everything that is not on disk yet.

    Parameters
    ----------
    comparing
        From :func:`prepare`.
    processes
        How many things are done at the same time, each in a worker process of one thread. Where there are more devices
        than that, a worker is several processes, a device each, that train its networks together.
    budget
        Seconds in all; None: as long as it takes. Opponents end when they are done.
    progress
        Called with the share that is done, in [0, 1].

    Returns
    -------
    list
        What the budget did not last for, in words.

    Raises
    ------
    InputError
        When the memory is too small for so many processes.
    """
    schedule = _Schedule(comparing, processes, budget)
    done = 0.0

    def note(index: int, item: Item | Judging) -> Sequence[Item | Judging]:
        nonlocal done
        if isinstance(item, Item):
            done += schedule.cost(item.arm)
            if progress is not None:
                progress(min(1.0, done / schedule.whole))
        return schedule.done(item)

    try:
        team = max(1, comparing.devices // processes)
        workers.run(partial(_work, comparing), schedule.items(), workers=processes, done=note, team=team)
    except WorkerDied as error:
        raise InputError(
            f"{error} What is finished is kept in {comparing.path}: go on with --resume and --workers 1."
        ) from error
    return schedule.not_tried()


def _work(comparing: Comparing, item: Item | Judging) -> Item | Judging:
    if isinstance(item, Item):
        fit_arm(comparing, item)
        return item
    if place().rank > 0:
        return item
    arms = finished(comparing, comparing.model)
    complete = set(arms) <= set(finished(comparing, item.split))  # what was cut short is not judged beside the others
    if arms and complete and not judged(comparing, item.split, arms):
        judge_split(comparing, item.split, arms)
    return item


class _Schedule:
    """Which item comes next: the model's split first, then outer splits as long as the budget lasts.

    A split is judged when its arms and those of the model are in, by the arms that the model has.
    """

    def __init__(self, comparing: Comparing, processes: int, budget: float | None) -> None:
        self.comparing, self.processes, self.budget = comparing, processes, budget
        self.began = time.time()
        self.roles = [learner(text, comparing.plan).role for text in comparing.plan.arms]
        self.whole = len(comparing.splits) * sum(map(self.cost, range(len(self.roles))))
        self.late: list[int] = []
        self.cut: list[int] = []
        self.open: dict[int, set[int]] = {}
        self.judged: set[int] = set()
        self.started: dict[int, float] = {}
        self.seconds: dict[int, float] = {}

    def cost(self, arm: int) -> float:
        """About how long an arm takes beside the others."""
        tasks = sum(task.main for task in self.comparing.table.tasks)
        longer = 1 + self.comparing.plan.unlabelled / len(self.comparing.splits[self.comparing.model].train)
        costs = {"opponent": 0.5, "sharing": 1.0, "single-task": 0.7 * tasks}
        return costs.get(self.roles[arm], min(4.0, longer))

    def items(self) -> Iterator[Item | Judging]:
        """Items in order; what comes next is decided when it is asked for."""
        yield from self._of_model()
        for split in range(self.comparing.model):
            tried = [arm for arm in self.started if arm not in self.cut]
            if not tried or (self.budget is not None and self._seconds_of_split(tried) > self._left(1.0)):
                break
            self.open[split] = set(tried)
            for arm in tried:
                if arm not in self.cut:  # it may have been cut by now
                    yield Item(split, arm, self._deadline(1.0))
        yield from self._ready()

    def _of_model(self) -> Iterator[Item | Judging]:
        arms = self._order()
        model, there = self.comparing.model, finished(self.comparing, self.comparing.model)
        self.open[model] = set(arms)
        for arm in arms:
            if self._left(MODEL_SHARE) <= 0 and self.started and arm not in there:
                self.late.append(arm)
                self.open[model].discard(arm)
            else:
                self.started[arm] = time.time()
                yield Item(model, arm, self._deadline(MODEL_SHARE))
        yield from self._ready()

    def _order(self) -> list[int]:
        """Costly ones first; under a budget the first of each role, then the second, cheap ones first."""
        arms = range(len(self.roles))
        if self.budget is None:
            return sorted(arms, key=self.cost, reverse=True)
        return sorted(arms, key=lambda arm: (self.roles[:arm].count(self.roles[arm]), self.cost(arm)))

    def done(self, item: Item | Judging) -> list[Item | Judging]:
        """Notes a result."""
        if isinstance(item, Judging):
            return []
        self.open[item.split].discard(item.arm)
        if item.split == self.comparing.model:
            result = self.comparing.folder(item.split, item.arm).read_json("result.json")
            self.seconds[item.arm] = result["seconds"]
            if result["cut"]:
                self.cut.append(item.arm)
                for waiting in self.open.values():
                    waiting.discard(item.arm)
        return self._ready()

    def _ready(self) -> list[Item | Judging]:
        """Splits that can be judged by now."""
        if self.open[self.comparing.model]:
            return []
        ready = [s for s, waiting in self.open.items() if not waiting and s not in self.judged]
        self.judged |= set(ready)
        return [Judging(split) for split in ready if len(self.comparing.splits[split].test)]

    def _deadline(self, share: float) -> float | None:
        return None if self.budget is None else self.began + share * self.budget

    def _left(self, share: float) -> float:
        return math.inf if self.budget is None else self.began + share * self.budget - time.time()

    def _seconds_of_split(self, arms: Sequence[int]) -> float:
        """How long one more split will take, by what the model's fits took."""
        return sum(self.seconds.get(arm, time.time() - self.started[arm]) for arm in arms) / self.processes

    def not_tried(self) -> list[str]:
        """What the budget did not last for."""
        if self.budget is None:
            return []
        arms, model = self.comparing.plan.arms, self.comparing.model
        there = finished(self.comparing, model)
        cut = "its training was cut short by the time budget, and it is " + ("left out" if there else "used as it is")
        notes = [f"{arms[arm]}: the time budget was spent before it began" for arm in self.late]
        notes += [f"{arms[arm]}: {cut}" for arm in self.cut]
        left = sum(not judged(self.comparing, split, there) for split in range(model))
        return notes + ([f"{left} of {model} outer splits: the time budget did not last"] if left else [])


def collect(comparing: Comparing, run: Folder) -> None:
    """Writes the comparison and the predictions, from all splits, and how the model's networks learned, and what.

    Splits that were judged by other arms than the model has (with less time, before) are left out.
    """
    arms = finished(comparing, comparing.model)
    splits = range(len(comparing.splits))
    found = [comparing.folder(s) for s in splits if not arms or judged(comparing, s, arms)]
    found = [folder for folder in found if folder.has("comparison.parquet")]
    model = [comparing.folder(comparing.model, arm) for arm in range(len(comparing.plan.arms))]
    _join(run, found, "comparison.parquet", COMPARISON)
    _join(run, found, "predictions.parquet", PREDICTIONS)
    for name, columns in (("history.parquet", HISTORY), ("learned.parquet", LEARNED)):
        _join(run, [folder for folder in model if folder.has(name)], name, columns)


def _join(run: Folder, folders: Sequence[Folder], name: str, columns: Sequence[str]) -> None:
    """One table of many, by Arrow: as DataFrames the predictions of a large table would fill the memory."""
    import pyarrow
    from pyarrow import parquet

    if not folders:
        run.write_frame(name, pd.DataFrame(columns=list(columns)))
        return
    whole = pyarrow.concat_tables([parquet.read_table(folder.path / name) for folder in folders])
    content = io.BytesIO()
    parquet.write_table(whole, content, write_page_checksum=True)
    run.write_bytes(name, content.getvalue())

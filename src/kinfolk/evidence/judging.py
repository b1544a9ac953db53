"""One outer split judged: settings, arms and the blend are chosen on inner rows, errors are taken on outer rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kinfolk.data.errors import error, scores
from kinfolk.data.tasks import Task
from kinfolk.evidence.blend import blend
from kinfolk.evidence.fitting import Comparing, finished
from kinfolk.evidence.jobs import setting_text
from kinfolk.evidence.unlabelled import PADDED, SEMI, WITHOUT

PROCEDURES: dict[str, tuple[str, ...]] = {  # each chooses among the arms of some roles
    "single-task": ("single-task",),
    "sharing": ("sharing",),
    SEMI: (SEMI,),
    PADDED: (PADDED,),
    WITHOUT: ("single-task", "sharing"),
}
RANKED_ROWS = 3000  # up to so many a blend judged by AUC is also chosen by it: better, and slower than by log loss


@dataclass(frozen=True)
class Candidate:
    """One setting of one arm."""

    arm: int
    setting: int


@dataclass(frozen=True)
class Choice:
    """What was chosen for one task on the inner rows.

    Attributes
    ----------
    settings
        Arm -> its best candidate.
    procedures
        Name of a procedure -> the best candidate among the arms of its roles.
    weights
        Candidate -> its weight in the hand-over.
    """

    settings: dict[int, Candidate]
    procedures: dict[str, Candidate]
    weights: dict[Candidate, float]


class SplitFits:
    """What all arms predicted in one split, read from the run folder.

    Parameters
    ----------
    comparing
        What is compared.
    split
        The number of the split.
    arms
        Which arms; None: those that are finished, or, where none is, those that were cut short.
    """

    def __init__(self, comparing: Comparing, split: int, arms: Sequence[int] | None = None) -> None:
        self.comparing, self.split = comparing, comparing.splits[split]
        table = comparing.table
        self.tasks = table.tasks
        self.labels, self.weight = table.labels[self.split.train], table.weight[self.split.train]
        arms = arms or finished(comparing, split) or range(len(comparing.plan.arms))
        folders = {arm: comparing.folder(split, arm) for arm in arms}
        self._folders = {arm: folder for arm, folder in folders.items() if folder.has("result.json")}
        self.results = {arm: folder.read_json("result.json") for arm, folder in self._folders.items()}

    @cached_property
    def arrays(self) -> dict[int, dict[str, np.ndarray]]:
        """The predictions of each arm."""
        return {arm: folder.read_arrays("predictions.npz") for arm, folder in self._folders.items()}

    def candidates(self, task: int) -> list[Candidate]:
        """Every setting of every arm that predicts a task."""
        return [
            Candidate(arm, setting)
            for arm, result in self.results.items()
            for setting in result["tried"]
            if f"inner/{setting}/{task}" in self.arrays[arm]
        ]

    def inner(self, one: Candidate, task: int) -> np.ndarray:
        """``[row, size]`` for the split's training rows, NaN where not held out."""
        return self.arrays[one.arm][f"inner/{one.setting}/{task}"]

    def outer(self, one: Candidate, task: int) -> np.ndarray:
        """``[row, size]`` for the rows that judge."""
        return self.arrays[one.arm][f"outer/{one.setting}/{task}"]

    def name(self, one: Candidate) -> str:
        """How a candidate is called in the verdict."""
        result = self.results[one.arm]
        return f"{result['arm']} · {setting_text(result['settings'][one.setting])}"

    def choose(self, task: int) -> Choice:
        """Chooses settings, arms and the blend for one task, by predictions for rows that fitted none of them."""
        candidates = self.candidates(task)
        one, plan = self.tasks[task], self.comparing.plan
        at = self._judging_rows(task, candidates)
        target, weight = self.labels[at, task], self.weight[at]
        baseline = self.baseline(task)
        inner = {c: self.inner(c, task)[at] for c in candidates}
        errors = {c: _finite(error(one, target, inner[c], weight, baseline)) for c in candidates}
        # Where no row can tell, all are infinite, and an arm's first setting, the best known one, is taken.
        settings = {arm: _best(errors, [c for c in candidates if c.arm == arm]) for arm in {c.arm for c in candidates}}
        procedures = {}
        semi = any(self.results[c.arm]["role"] == SEMI for c in candidates)
        for name, roles in PROCEDURES.items():
            own = [c for c in candidates if self.results[c.arm]["role"] in roles]
            if own and (semi or name != WITHOUT):  # which is there to be compared with
                procedures[name] = _best(errors, own)
        if plan.one_network:
            return Choice(settings, procedures, {})
        if not len(at):
            return Choice(settings, procedures, {c: 1 / len(settings) for c in settings.values()})
        ranked = one.error == "1-auc" and len(at) <= RANKED_ROWS and len(np.unique(target)) > 1
        by = one.error if ranked else None
        predictions = {str(i): inner[c] for i, c in enumerate(candidates)}
        weights = blend(one, target, predictions, weight, baseline, by=by, seed=plan.seed)
        return Choice(settings, procedures, {candidates[int(i)]: w for i, w in weights.items()})

    def choose_network(self) -> Candidate | None:
        """The sharing network that is best for all main tasks together, each task's error relative to its best."""
        served = [task for task in range(len(self.tasks)) if self.learnable(task)]
        networks = [set(filter(self._shares, self.candidates(task))) for task in served]
        every = sorted(set.intersection(*networks), key=lambda c: (c.arm, c.setting)) if networks else []
        relative: dict[Candidate, list[float]] = {c: [] for c in every}
        for task in served:
            one, at, baseline = self.tasks[task], self._judging_rows(task, every), self.baseline(task)
            target, weight = self.labels[at, task], self.weight[at]
            errors = {c: error(one, target, self.inner(c, task)[at], weight, baseline) for c in every}
            least = min((e for e in errors.values() if math.isfinite(e)), default=math.nan)
            for c, e in errors.items():
                relative[c].append(_finite(e / least if least > 0 else e))
        judged = {
            c: float(np.mean([e for e in errors if e < math.inf] or [math.inf])) for c, errors in relative.items()
        }
        return min(judged, key=lambda c: judged[c]) if judged else None

    def _shares(self, one: Candidate) -> bool:
        """Whether it is one network for all main tasks."""
        role = self.results[one.arm]["role"]
        several = role in ("sharing", SEMI, PADDED)
        return several or (role == "single-task" and sum(task.main for task in self.tasks) == 1)

    def learnable(self, task: int) -> bool:
        """Whether a task is judged, has a label to train on, and something was fitted to it."""
        return self.tasks[task].main and not math.isnan(self.baseline(task)) and bool(self.candidates(task))

    def baseline(self, task: int) -> float:
        """The mean label of the split's training rows; NaN where there is none."""
        known = ~np.isnan(self.labels[:, task]) & (self.weight > 0)
        return float(np.average(self.labels[known, task], weights=self.weight[known])) if known.any() else math.nan

    def _judging_rows(self, task: int, candidates: Sequence[Candidate]) -> np.ndarray:
        held = ~np.isnan(self.labels[:, task]) & (self.weight > 0)
        for c in candidates:
            held &= ~np.isnan(self.inner(c, task)[:, 0])
        return np.flatnonzero(held)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _best(errors: dict[Candidate, float], among: Sequence[Candidate]) -> Candidate:
    return min(among, key=lambda c: errors[c])


def judge_split(comparing: Comparing, split: int, arms: Sequence[int] | None = None) -> None:
    """Writes the comparison and the predictions of one outer split, as verdict and report read them.

    Parameters
    ----------
    comparing, split
        What is judged.
    arms
        Which arms; None: all that are finished in this split.
    """
    fits = SplitFits(comparing, split, arms)
    network = fits.choose_network() if comparing.plan.one_network else None
    comparison: list[dict[str, Any]] = []
    predictions: list[pd.DataFrame] = []
    for task, one in enumerate(fits.tasks):
        if fits.learnable(task):
            for row, prediction in _judged(fits, task, one, network):
                comparison.append(row)
                predictions.append(_prediction_frame(fits, row, task, prediction))
    if comparison:
        folder = comparing.folder(split)
        folder.write_frame("predictions.parquet", pd.concat(predictions, ignore_index=True))
        folder.write_frame("comparison.parquet", pd.DataFrame(comparison))
        folder.write_json("judged.json", sorted(fits.results))


def judged(comparing: Comparing, split: int, arms: Sequence[int]) -> bool:
    """Whether a split is judged, by these arms."""
    folder = comparing.folder(split)
    return folder.has("judged.json") and folder.read_json("judged.json") == sorted(arms)


def _judged(
    fits: SplitFits, task: int, one: Task, network: Candidate | None
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """(row of the comparison, outer predictions) of every arm, procedure and the hand-over for one task."""
    choice = fits.choose(task)
    for arm, candidate in choice.settings.items():
        result = fits.results[arm]
        setting = json.dumps(result["settings"][candidate.setting])
        chosen = {"arm": result["arm"], "role": result["role"], "setting": setting, "chosen": ""}
        yield _row(fits, task, one, chosen, [candidate], fits.outer(candidate, task)), fits.outer(candidate, task)
    for role, candidate in choice.procedures.items():
        result = fits.results[candidate.arm]
        setting = json.dumps(result["settings"][candidate.setting])
        chosen = {"arm": role, "role": "procedure", "setting": setting, "chosen": result["arm"]}
        yield _row(fits, task, one, chosen, [candidate], fits.outer(candidate, task)), fits.outer(candidate, task)
    weights = {network: 1.0} if network is not None else choice.weights
    if not weights:  # one network was asked for, and none could be trained
        return
    prediction = np.sum([w * fits.outer(c, task) for c, w in weights.items()], 0)
    named = json.dumps({fits.name(c): w for c, w in weights.items()}, ensure_ascii=False)
    arms = {fits.results[c.arm]["arm"] for c in weights}
    chosen = {
        "arm": "hand-over",
        "role": "procedure",
        "setting": named,
        "chosen": arms.pop() if len(arms) == 1 else "blend",
    }
    yield _row(fits, task, one, chosen, list(weights), prediction), prediction


def _row(
    fits: SplitFits, task: int, one: Task, chosen: dict[str, str], used: Sequence[Candidate], prediction: np.ndarray
) -> dict[str, Any]:
    split, table = fits.split, fits.comparing.table
    target, weight, baseline = table.labels[split.test, task], table.weight[split.test], fits.baseline(task)
    epochs = [fits.results[c.arm]["epochs"].get(str(c.setting)) for c in used]
    known = [e for e in epochs if e is not None]
    arms = {c.arm for c in used}
    return chosen | {
        "repeat": split.repeat,
        "fold": split.fold,
        "task": one.name,
        "error_name": one.error,
        "error": error(one, target, prediction, weight, baseline),
        **scores(one, target, prediction, weight, baseline),
        "train_rows": int((~np.isnan(fits.labels[:, task])).sum()),
        "judged_rows": int((~np.isnan(target)).sum()),
        "epochs": float(np.mean(known)) if known else math.nan,
        "seconds": float(sum(fits.results[arm]["seconds"] for arm in arms)),
    }


def _prediction_frame(fits: SplitFits, row: dict[str, Any], task: int, prediction: np.ndarray) -> pd.DataFrame:
    split, table = fits.split, fits.comparing.table
    known = np.flatnonzero(~np.isnan(table.labels[split.test, task]))
    common = {name: row[name] for name in ("arm", "role", "repeat", "fold", "task")}
    if table.groups is not None:
        common["group"] = table.groups[split.test[known]]
    return pd.DataFrame(
        {
            "row": split.test[known],
            "target": table.labels[split.test[known], task],
            "weight": table.weight[split.test[known]],
            "baseline": fits.baseline(task),
            "prediction": list(prediction[known].astype(np.float64)),
        }
    ).assign(**common)

"""From the stored tables to evidence: a task's differences over outer splits, or over resamples of its test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinfolk.data.errors import error
from kinfolk.data.tasks import Task
from kinfolk.evidence.intervals import CorrectedT, Evidence, Judged, Percentile, bootstrap
from kinfolk.evidence.unlabelled import PADDED, SEMI, WITHOUT

SINGLE, SHARING, HAND_OVER = "single-task", "sharing", "hand-over"
SPLIT = ["repeat", "fold"]
BESIDE_CHANCE = {"regression": "r2", "binary": "auc", "multiclass": "macro_auc", "ranking": "concordance"}
RESAMPLES = 2000
Frame = Any  # a DataFrame or Series: by pandas' own annotations a column may be either, so pyright is told neither
SAME = 1e-12  # errors that differ by less than this share are the same: nothing but rounding


def recompute(comparison: pd.DataFrame, predictions: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """The comparison with every error taken anew from the stored predictions, by ``task.error``; scores stay."""
    by_name = {task.name: task for task in tasks}
    keys = ["arm", "role", *SPLIT, "task"]
    found = {
        key: error(by_name[key[-1]], *_arrays(part), _baseline(part))
        for key, part in predictions.groupby(keys, sort=False)
        if isinstance(key, tuple) and key[-1] in by_name
    }
    places = comparison[keys].itertuples(index=False, name=None)
    names = [by_name[task].error if task in by_name else "" for task in comparison["task"]]
    return comparison.assign(error=[found.get(place, math.nan) for place in places], error_name=names)


@dataclass(frozen=True)
class Outcome:
    """One main task over the outer splits.

    Attributes
    ----------
    task
        The task.
    rows
        The rows of the comparison in the splits that count.
    left_out
        How many splits do not count: an error of a procedure is undefined there.
    shared
        Whether an arm that shares was tried, in any split.
    """

    task: Task
    rows: Frame
    left_out: int
    shared: bool

    @classmethod
    def of(cls, comparison: Frame, task: Task) -> Outcome:
        """The task's part of a comparison; of an empty one too."""
        if not len(comparison):
            return cls(task, pd.DataFrame(columns=["arm", "role", *SPLIT, "error", "setting", "chosen"]), 0, True)
        rows = comparison[comparison["task"] == task.name].set_index(SPLIT, drop=False)
        rows.index.names = ["at", "of"]
        judged = rows[(rows["role"] == "procedure") & rows["arm"].isin((SINGLE, SHARING, HAND_OVER))]
        judged = judged.pivot(columns="arm", values="error", index=SPLIT)
        counts = judged.index[np.isfinite(judged.to_numpy(float)).all(axis=1)]
        tried = rows if len(rows) else comparison  # nothing could be fitted to a task without rows
        return cls(
            task,
            rows[rows.index.isin(counts)],
            rows.index.nunique() - len(counts),
            bool((tried["role"] == SHARING).any()),
        )

    @cached_property
    def errors(self) -> Frame:
        """Errors of the procedures, [split, procedure]."""
        judged = self.rows[self.rows["role"] == "procedure"]
        return judged.pivot(index=SPLIT, columns="arm", values="error")

    @cached_property
    def test_to_train(self) -> float:
        """Rows judged on over rows trained on, mean over splits."""
        own = self.rows.drop_duplicates(SPLIT)  # the same for all arms
        return float((own["judged_rows"] / own["train_rows"]).mean())

    @property
    def labelled_rows(self) -> int:
        """Rows with a label, trained or judged on."""
        both = self.rows["train_rows"] + self.rows["judged_rows"] if len(self.rows) else pd.Series([0])
        return int(both.max())

    def procedure(self, arm: str) -> Frame:
        """The rows of one procedure."""
        return self.rows[(self.rows["arm"] == arm) & (self.rows["role"] == "procedure")]

    def chosen(self, arm: str) -> str:
        """What a procedure chose most often (at a tie, first)."""
        chosen = self.procedure(arm)["chosen"]
        return str(chosen.value_counts(sort=True).index[0]) if len(chosen) else ""

    def means(self, role: str) -> dict[str, float]:
        """Mean error over the splits of each arm of a role."""
        own = self.rows[self.rows["role"] == role]
        return {str(arm): float(e) for arm, e in own.groupby("arm", sort=False)["error"].mean().items()}

    def scores(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Mean scores over the splits of each arm and procedure; those of other kinds of task are left out."""
        known = [name for name in names if name in self.rows and self.rows[name].notna().any()]
        table: Frame = self.rows.groupby("arm", sort=False)[known].mean() if known else pd.DataFrame()
        return {str(arm): {n: float(row[n]) for n in known if pd.notna(row[n])} for arm, row in table.iterrows()}

    def beats_baseline(self) -> bool | None:
        """Whether the hand-over is better than the mean of the training rows, or ranks better than chance."""
        own = self.procedure(HAND_OVER)
        name = BESIDE_CHANCE[self.task.kind]
        if self.task.error == "rrse" and len(own):
            return bool(own["error"].mean() < 1)
        if name not in own or not own[name].notna().any():
            return None
        return bool(own[name].mean() > (0 if name == "r2" else 0.5))

    def has(self, arm: str) -> bool:
        """Whether a procedure was judged."""
        return len(self.errors) > 0 and arm in self.errors

    def differences(self, arm: str, against: str = SINGLE) -> Frame:
        """Error of another procedure minus that of a procedure, per split; empty where one of them is lacking."""
        if not (self.has(against) and self.has(arm)):
            return pd.Series(dtype=float)
        single, other = self.errors[against], self.errors[arm]
        found = (single - other)[np.isfinite(single) & np.isfinite(other)]
        return found.where(found.abs() > SAME * (single.abs() + other.abs()), 0.0)


class OverSplits:
    """Evidence from the differences over outer splits."""

    name = "corrected resampled t-test"

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = {outcome.task.name: outcome for outcome in outcomes}

    def of(self, task: str, arm: str) -> Evidence:
        """About one task."""
        outcome = self.outcomes[task]
        differences = outcome.differences(arm)
        return CorrectedT(tuple(differences), outcome.test_to_train if len(differences) else math.nan)

    def delta_m(self, tasks: Sequence[str], arm: str, against: str = SINGLE) -> Evidence:
        """About the mean over tasks of differences in percent."""
        # By the mean error over splits: one split with hardly any error would drown all others.
        one = self.outcomes
        percent = {t: 100 * one[t].differences(arm, against) / one[t].errors[against].mean() for t in tasks}
        ratio = float(np.mean([self.outcomes[t].test_to_train for t in tasks])) if tasks else math.nan
        return CorrectedT(tuple(pd.DataFrame(percent).mean(axis=1)), ratio)


class OnTestRows:
    """Evidence from resamples of the user's own test rows, of one split."""

    name = "paired bootstrap over test rows"

    def __init__(self, outcomes: Sequence[Outcome], predictions: Frame, seed: int, level: float) -> None:
        self.seed, self.arms = seed, (SINGLE, SHARING, HAND_OVER, SEMI, PADDED, WITHOUT)
        self.resamples = max(RESAMPLES, math.ceil(4 * len(outcomes) / level))  # Holm looks far into the tails
        self.judged: dict[str, tuple[Judged, tuple[str, ...]]] = {}
        judged = predictions[predictions["role"] == "procedure"] if len(predictions) else predictions
        unit = "group" if "group" in judged else "row"
        self.grouped = unit == "group"
        for outcome in outcomes:
            if any(map(outcome.has, self.arms)):
                part = judged[judged["task"] == outcome.task.name]
                arms = tuple(arm for arm in self.arms if outcome.has(arm))
                self.judged[outcome.task.name] = (_judged(outcome.task, part, unit, arms), arms)
        self._drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, task: str, arm: str) -> Evidence:
        """About one task: drawn within classes, so that each keeps its rows."""
        if task not in self.judged or not {SINGLE, arm} <= {*self.judged[task][1]}:
            return Percentile(math.nan, ())
        one, arms = self.judged[task]
        if task not in self._drawn:
            codes, unit = np.unique(one.unit, return_inverse=True)
            strata = np.zeros(len(codes), np.intp)
            if not one.task.numeric and not self.grouped:
                strata[unit] = one.target.astype(np.intp)
            self._drawn[task] = bootstrap([replace(one, unit=unit)], strata, self.resamples, self.seed)
        whole, draws = self._drawn[task]
        at = arms.index(arm)
        return _percentile(whole[0, 0] - whole[0, at], draws[:, 0, 0] - draws[:, 0, at])

    def delta_m(self, tasks: Sequence[str], arm: str, against: str = SINGLE) -> Evidence:
        """About the mean over tasks of differences in percent; a row is drawn for all tasks at once."""
        if not tasks:
            return Percentile(math.nan, ())
        judged = [self._pair(task, arm, against) for task in tasks]
        codes, unit = np.unique(np.concatenate([one.unit for one in judged]), return_inverse=True)
        ends = np.cumsum([len(one.unit) for one in judged])[:-1]
        judged = [replace(one, unit=u) for one, u in zip(judged, np.split(unit, ends), strict=True)]
        whole, draws = bootstrap(judged, np.zeros(len(codes), np.intp), self.resamples, self.seed)
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have no error: it is dropped
            relative = 100 * (1 - draws[..., 1] / draws[..., 0])
        return _percentile(float((100 * (1 - whole[:, 1] / whole[:, 0])).mean()), relative.mean(axis=1))

    def _pair(self, task: str, arm: str, against: str) -> Judged:
        one, arms = self.judged[task]
        return replace(one, predictions=tuple(one.predictions[arms.index(name)] for name in (against, arm)))


def _percentile(mean: float, draws: NDArray[np.float64]) -> Percentile:
    """Resamples in which an error is undefined say nothing and are dropped."""
    return Percentile(0.0 if abs(mean) < SAME else float(mean), tuple(draws[np.isfinite(draws)].tolist()))


def _judged(task: Task, part: Frame, unit: str, arms: Sequence[str]) -> Judged:
    """Predictions of several procedures for the same rows, in the same order."""
    by_arm = [part[part["arm"] == arm].sort_values("row", kind="stable") for arm in arms]
    first = by_arm[0]
    if any(not np.array_equal(other["row"], first["row"]) for other in by_arm):
        raise ValueError(f"Predictions of task {task.name!r} must be for the same rows in all procedures.")
    target, _, weight = _arrays(first)
    predictions = tuple(_arrays(other)[1] for other in by_arm)
    return Judged(task, first[unit].to_numpy(np.intp), target, weight, _baseline(first), predictions)


def _arrays(part: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Target [row], prediction [row, size], weight [row]."""
    prediction = np.stack([np.asarray(p, np.float64) for p in part["prediction"]])
    return part["target"].to_numpy(np.float64), prediction, part["weight"].to_numpy(np.float64)


def _baseline(part: Frame) -> float:
    return float(part["baseline"].iloc[0])

"""What a comparison concludes, per task and over all. Needs the stored predictions, no torch and no training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from kinfolk import __version__
from kinfolk.data.errors import check_error
from kinfolk.data.tasks import Task
from kinfolk.evidence import wording
from kinfolk.evidence.intervals import holm, interval_levels
from kinfolk.evidence.paired import HAND_OVER, SHARING, SINGLE, SPLIT, Frame, OnTestRows, Outcome, OverSplits, recompute
from kinfolk.evidence.unlabelled import PADDED, SEMI, WITHOUT

__all__ = ["Verdict", "judge", "recompute"]

FORMAT = 1
SCORES = ("rmse", "mae", "r2", "accuracy", "auc", "macro_auc", "log_loss", "brier", "concordance")
MEMBERS = 8  # of a blend that is averaged over splits
Found = tuple[float, float, tuple[float, float]]  # p-value, adjusted p-value, interval
NOT_FOUND: Found = (math.nan, math.nan, (math.nan, math.nan))


@dataclass(frozen=True)
class Verdict:
    """The conclusion: what ``verdict.json`` holds, as plain values (None where a number is not known).

    Attributes
    ----------
    tasks
        Main task -> errors, difference with interval, adjusted p-value, verdict, hand-over, arms, scores.
    overall
        delta-m (mean over main tasks of 100 (single - arm) / single, higher is better; single is the mean over
        splits) of sharing and of the hand-over with intervals, tasks helped and hurt, recommendation, costs, and
        what rows without labels did, where arms read them.
    statistics
        How it was tested.
    failed, not_tried, warnings
        What a reader has to know.
    data, plan, versions, seed, threads, command, seconds, kinfolk
        What was done, as it was given to :func:`judge`.
    """

    tasks: dict[str, dict[str, Any]]
    overall: dict[str, Any]
    statistics: dict[str, Any]
    failed: list[Any] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    threads: int | None = None
    command: str = ""
    seconds: float | None = None
    kinfolk: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON takes it."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Verdict:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            If it was written in another format.
        """
        values = dict(stored)
        if (found := values.pop("format", None)) != FORMAT:
            raise ValueError(f"A verdict must have format {FORMAT}. Got {found!r}: judge the run again.")
        return cls(**values)

    def rows(self) -> list[dict[str, str]]:
        """A table for the terminal: heading -> text, one row per main task."""
        return wording.rows(self.tasks)

    def sentence(self) -> str:
        """The conclusion in plain words: does sharing help, what to use, and what to know about it."""
        told = [wording.sharing(self.tasks, self.not_tried), self.overall["recommendation"]]
        if unlabelled := self.overall.get("unlabelled"):
            told.insert(1, wording.unlabelled(unlabelled))
        return " ".join(told)


def judge(
    comparison: pd.DataFrame,
    predictions: pd.DataFrame,
    tasks: Sequence[Task],
    *,
    level: float = 0.05,
    meta: Mapping[str, Any] | None = None,
    errors: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge, per main task, whether sharing helps and how good the hand-over is.

    Over two or more outer splits: the corrected resampled t-test. On the user's own test rows
    (``meta["data"]["test_rows"]``): a paired bootstrap over these rows. Holm over main tasks, and intervals at
    the adjusted level, so that an interval excludes 0 if, and only if, the verdict is *helped* or *hurt*. A split
    in which an error is undefined is left out for that task.

    Parameters
    ----------
    comparison
        A row per arm, outer split and task (``comparison.parquet``).
    predictions
        Every outer prediction (``predictions.parquet``); a column ``group`` keeps its rows together in the bootstrap.
    tasks
        All tasks; the main ones are judged.
    level
        The chance of a false *helped* or *hurt* anywhere among the tasks.
    meta
        What else stands in the verdict: data, plan, versions, seed, threads, command, seconds, failed, not_tried,
        warnings, costs, encoded_features, and blend (task -> member -> weight, of the model handed over).
    errors
        Task -> another error to judge by; errors are taken anew from the predictions.
    seed
        Of the bootstrap.
    """
    meta = meta or {}
    if errors:
        tasks = [_judged_by(task, errors) for task in tasks]
        comparison = recompute(comparison, predictions, tasks)
    held_out = (meta.get("data") or {}).get("test_rows") is not None
    outcomes = [Outcome.of(comparison, task) for task in tasks if task.main]
    evidence = OnTestRows(outcomes, predictions, seed, level) if held_out else OverSplits(outcomes)
    sharing, handed = (_adjusted(outcomes, evidence, arm, level) for arm in (SHARING, HAND_OVER))
    blends = meta.get("blend") or {}
    entries = {
        one.task.name: _entry(one, sharing[one.task.name], handed[one.task.name], blends.get(one.task.name), level)
        for one in outcomes
    }
    overall, notes = _overall(outcomes, entries, evidence, level)
    overall["costs"] = dict(meta.get("costs") or {})
    if any(one.has(SEMI) for one in outcomes):
        rows = (meta.get("plan") or {}).get("unlabelled")
        overall["unlabelled"] = _unlabelled(outcomes, evidence, level) | {"rows": rows}
    return _verdict(entries, overall, _statistics(comparison, evidence.name, level), meta, notes)


def _judged_by(task: Task, errors: Mapping[str, str]) -> Task:
    return replace(task, error=check_error(task.name, errors.get(task.name, task.error), task.kind))


def _adjusted(
    outcomes: Sequence[Outcome], evidence: OverSplits | OnTestRows, arm: str, level: float
) -> dict[str, Found]:
    """For each task p-value, Holm's, and the interval at the level that agrees with Holm's."""
    each = [evidence.of(one.task.name, arm) for one in outcomes]
    p_values = [one.p_value for one in each]
    adjusted = holm(p_values)
    alphas = interval_levels(p_values, adjusted, level)
    found = zip(outcomes, each, p_values, adjusted, alphas, strict=True)
    return {o.task.name: (p, float(holms), e.interval(float(alpha))) for o, e, p, holms, alpha in found}


def _entry(
    one: Outcome, sharing: Found, handed: Found, blend: Mapping[str, float] | None, level: float
) -> dict[str, Any]:
    """What the verdict says about one task."""
    mean = {arm: float(one.errors[arm].mean()) if one.has(arm) else math.nan for arm in (SINGLE, SHARING, HAND_OVER)}
    p_value, adjusted, interval = sharing
    difference = float(one.differences(SHARING).mean()) if one.has(SHARING) else math.nan
    better = float(one.differences(HAND_OVER).mean()) if one.has(HAND_OVER) else math.nan
    opponents = one.means("opponent")
    arms = {arm: mean for role in (SINGLE, SHARING, SEMI, PADDED) for arm, mean in one.means(role).items()}
    return {
        "kind": one.task.kind,
        "main": True,
        "classes": [c.item() if isinstance(c, np.generic) else c for c in one.task.classes],
        "error_name": one.task.error,
        "single_task": mean[SINGLE],
        "best_arm": one.chosen(SHARING),
        "best": mean[SHARING],
        "difference": difference,
        "interval": list(interval),
        "p_value": adjusted,
        "p_value_raw": p_value,
        "verdict": _word(one, difference, adjusted, level),
        "chosen_arm": "blend" if blend and len(blend) > 1 else one.chosen(HAND_OVER),
        "hand_over": mean[HAND_OVER],
        "hand_over_difference": better,
        "hand_over_interval": list(handed[2]),
        "blend": dict(blend) if blend else _mean_blend(one),
        "opponents": opponents,
        "arms": arms,
        "scores": one.scores(SCORES),
        "baseline_beaten": one.beats_baseline(),
        "splits": len(one.errors),
        "splits_left_out": one.left_out,
        "labelled_rows": one.labelled_rows,
    }


def _word(one: Outcome, difference: float, adjusted: float, level: float) -> str:
    if not one.shared:
        return "nothing to share"
    if math.isnan(adjusted):
        return "not judged"
    if adjusted > level:
        return "no clear difference"
    return "helped" if difference > 0 else "hurt"


def _mean_blend(one: Outcome) -> dict[str, float]:
    """The blend's weights, mean over splits, the largest few: how the model was chosen, where its own are not known."""
    parts = [json.loads(text) for text in one.procedure(HAND_OVER)["setting"]]
    total: dict[str, float] = {}
    for part in parts:
        for member, weight in part.items():
            total[member] = total.get(member, 0.0) + weight
    largest = sorted(total.items(), key=lambda item: -item[1])[:MEMBERS]
    whole = sum(weight for _, weight in largest)
    return {member: round(weight / whole, 3) for member, weight in largest}


def _overall(
    outcomes: Sequence[Outcome], entries: Mapping[str, dict[str, Any]], evidence: OverSplits | OnTestRows, level: float
) -> tuple[dict[str, Any], list[str]]:
    """delta-m, who is helped, what to use; and what is to be known about it."""
    judged = [one for one in outcomes if one.has(SINGLE)]
    zero = [one.task.name for one in judged if (one.errors[SINGLE] <= 0).any()]
    names = {
        arm: [o.task.name for o in judged if o.has(arm) and o.task.name not in zero] for arm in (SHARING, HAND_OVER)
    }
    shared, handed = (evidence.delta_m(names[arm], arm) for arm in (SHARING, HAND_OVER))
    notes = []
    if zero:
        notes.append(f"Single-task learning makes no error in {', '.join(zero)}: left out of the mean over tasks.")
    overall = {
        "delta_m_percent": shared.mean,
        "interval": list(shared.interval(level)),
        "hand_over_delta_m_percent": handed.mean,
        "hand_over_interval": list(handed.interval(level)),
        "helped": [name for name, entry in entries.items() if entry["verdict"] == "helped"],
        "hurt": [name for name, entry in entries.items() if entry["verdict"] == "hurt"],
    }
    return overall | {"recommendation": wording.recommendation(_plain(entries), _plain(overall), level)}, notes


def _unlabelled(outcomes: Sequence[Outcome], evidence: OverSplits | OnTestRows, level: float) -> dict[str, Any]:
    """Whether rows without labels helped: beside the padded baseline, and beside the best arm without them.

    The first tells what the rows did, apart from how batches with them are drawn; the second, whether it pays.
    """
    found: dict[str, Any] = {"level": level}
    ends = {}
    for against in (PADDED, WITHOUT):
        both = [one for one in outcomes if len(one.differences(SEMI, against))]
        names = [one.task.name for one in both if (one.errors[against].dropna() > 0).all()]
        mean = evidence.delta_m(names, SEMI, against)
        ends[against] = mean.interval(level)
        found[against] = {"percent": mean.mean, "interval": list(ends[against])}
    (low, high), (lowest, _) = ends[PADDED], ends[WITHOUT]
    better = "helped" if lowest > 0 else "taught"
    word = better if low > 0 else "hurt" if high < 0 else "no clear difference"
    return _plain(found | {"verdict": "not judged" if math.isnan(low) else word})


def _statistics(comparison: pd.DataFrame, test: str, level: float) -> dict[str, Any]:
    splits: Frame = comparison[SPLIT].drop_duplicates() if len(comparison) else pd.DataFrame(columns=SPLIT)
    return {
        "test": test,
        "splits": len(splits),
        "repeats": int(splits["repeat"].nunique()),
        "folds": int(splits["fold"].nunique()),
        "level": level,
        "correction": "Holm",
    }


def _verdict(
    entries: Mapping[str, Any],
    overall: Mapping[str, Any],
    statistics: Mapping[str, Any],
    meta: Mapping[str, Any],
    notes: list[str],
) -> Verdict:
    data = dict(meta.get("data") or {})
    data.setdefault("encoded_features", meta.get("encoded_features"))
    return Verdict(
        tasks=_plain(entries),
        overall=_plain(overall),
        statistics=_plain(statistics),
        failed=_plain(list(meta.get("failed") or [])),
        not_tried=list(meta.get("not_tried") or []),
        warnings=[*(meta.get("warnings") or []), *notes],
        data=_plain(data),
        plan=_plain(dict(meta.get("plan") or {})),
        versions=_plain(dict(meta.get("versions") or {})),
        seed=meta.get("seed"),
        threads=meta.get("threads"),
        command=meta.get("command") or "",
        seconds=meta.get("seconds"),
        kinfolk=meta.get("kinfolk") or __version__,
    )


def _plain(value: Any) -> Any:
    """Values that strict JSON takes, and gives back as they were; None for a number that is not known."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

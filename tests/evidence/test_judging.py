"""One split judged: what is chosen on inner rows, and what is said where nothing can be chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kinfolk.data.tables import Roles, make_table
from kinfolk.evidence.compare import prepare
from kinfolk.evidence.fitting import Comparing
from kinfolk.evidence.judging import Candidate, SplitFits, judge_split
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import Plan
from kinfolk.evidence.verdict import judge
from kinfolk.exceptions import InputError
from kinfolk.handing import hand_over

ARMS = ("independent", "hard", "ridge")
ROLES = ("single-task", "sharing", "opponent")


def comparing(path: Path, one_network: bool = False, rows: int = 40) -> Comparing:
    x = np.random.default_rng(0).normal(size=rows)
    frame = pd.DataFrame({"x": x, "a": x * 3, "b": np.where(x > 0, "yes", "no"), "help": x - 1})
    table = make_table(frame, Roles(("a", "b"), auxiliary=("help",)))
    return prepare(table, Plan(ARMS, 1, 2, 2, 2, 2, Length(), 4, one_network=one_network), path)


def pretend(
    whole: Comparing, split: int, errors: dict[tuple[int, int], tuple[float, float]], shown: slice = slice(None)
) -> None:
    """Writes fits whose predictions for the two tasks are wrong by so much, (arm, setting) -> errors."""
    one, labels = whole.splits[split], whole.table.labels
    for arm, (text, role) in enumerate(zip(ARMS, ROLES, strict=True)):
        arrays: dict[str, np.ndarray] = {}
        tried = sorted(setting for a, setting in errors if a == arm)
        for setting in tried:
            for task, wrong in enumerate(errors[arm, setting]):
                for part, rows in (("inner", one.train), ("outer", one.test)):
                    truth = labels[rows, task]
                    off = truth + wrong if task == 0 else np.abs(truth - wrong)
                    found = np.full((len(rows), 1), np.nan)
                    found[shown if part == "inner" else slice(None), 0] = off[shown if part == "inner" else slice(None)]
                    if np.isfinite(wrong):
                        arrays[f"{part}/{setting}/{task}"] = found
        folder = whole.folder(split, arm)
        folder.write_arrays("predictions.npz", arrays)
        result = {"arm": text, "role": role, "settings": [{"rate": 0.1}, {"rate": 0.2}], "seconds": 1.0, "tried": tried}
        result |= {"epochs": {str(s): 3.0 for s in tried}, "failed": [], "features": 1, "cut": False, "parameters": 5}
        folder.write_json("result.json", result)


GOOD = {(0, 0): (2.0, 0.1), (0, 1): (1.0, 0.2), (1, 0): (0.5, 0.3), (1, 1): (3.0, 0.4), (2, 0): (4.0, 0.4)}


def test_settings_arms_and_procedures_are_those_that_are_best_on_inner_rows(tmp_path: Path):
    whole = comparing(tmp_path)
    pretend(whole, 0, GOOD)
    choice = SplitFits(whole, 0).choose(0)
    assert choice.settings == {0: Candidate(0, 1), 1: Candidate(1, 0), 2: Candidate(2, 0)}
    assert choice.procedures == {"single-task": Candidate(0, 1), "sharing": Candidate(1, 0)}
    assert choice.weights == {Candidate(1, 0): 1.0}  # all are wrong to the same side: a mean is no better


def test_what_is_judged_is_written_for_verdict_and_report(tmp_path: Path):
    whole = comparing(tmp_path)
    pretend(whole, 0, GOOD)
    judge_split(whole, 0)
    comparison = whole.folder(0).read_frame("comparison.parquet")
    assert set(comparison["task"]) == {"a", "b"}  # auxiliary tasks are not judged
    hand_over = comparison[(comparison["arm"] == "hand-over") & (comparison["task"] == "a")].iloc[0]
    assert json.loads(hand_over["setting"]) == {"hard · rate 0.1": 1.0}
    assert hand_over["chosen"] == "hard"
    assert hand_over["rmse"] == pytest.approx(0.5)
    predictions = whole.folder(0).read_frame("predictions.parquet")
    assert set(predictions["row"]) == set(whole.splits[0].test)


def test_a_task_without_a_judging_row_takes_the_best_known_settings(tmp_path: Path):
    whole = comparing(tmp_path)
    pretend(whole, 0, GOOD, shown=slice(0, 0))
    choice = SplitFits(whole, 0).choose(1)
    assert choice.weights == {Candidate(arm, 0): pytest.approx(1 / 3) for arm in range(3)}
    assert choice.procedures["sharing"] == Candidate(1, 0)


def test_the_one_network_is_best_for_all_tasks_together(tmp_path: Path):
    whole = comparing(tmp_path, one_network=True)
    pretend(whole, 0, GOOD)
    fits = SplitFits(whole, 0)
    assert fits.choose_network() == Candidate(1, 0)
    assert not fits.choose(0).weights
    judge_split(whole, 0)
    comparison = whole.folder(0).read_frame("comparison.parquet")
    assert set(comparison.loc[comparison["arm"] == "hand-over", "chosen"]) == {"hard"}


def test_a_network_that_failed_for_one_task_does_not_serve_all(tmp_path: Path):
    whole = comparing(tmp_path, one_network=True)
    pretend(whole, 0, GOOD | {(1, 0): (0.5, np.nan)})
    assert SplitFits(whole, 0).choose_network() == Candidate(1, 1)


def test_a_task_to_which_nothing_could_be_fitted_is_not_judged(tmp_path: Path):
    whole = comparing(tmp_path)
    for split in (0, 1):
        pretend(whole, split, {key: (wrong, np.nan) for key, (wrong, _) in GOOD.items()})
        judge_split(whole, split)
    frames = [
        pd.concat(whole.folder(split).read_frame(f"{name}.parquet") for split in (0, 1))
        for name in ("comparison", "predictions")
    ]
    verdict = judge(frames[0], frames[1], whole.table.tasks)
    assert verdict.tasks["b"]["verdict"] == "not judged"
    assert verdict.tasks["a"]["difference"] == pytest.approx(verdict.tasks["a"]["single_task"] / 2)
    assert "Not judged: b." in verdict.sentence()


def test_a_model_of_nothing_is_refused(tmp_path: Path):
    whole = comparing(tmp_path)
    pretend(whole, whole.model, {})
    with pytest.raises(InputError, match="every setting of every arm failed"):
        hand_over(whole)


def test_without_a_single_task_arm_the_verdict_says_so(tmp_path: Path):
    whole = comparing(tmp_path)
    for split in (0, 1):
        pretend(whole, split, {key: wrong for key, wrong in GOOD.items() if key[0] > 0})
        judge_split(whole, split)
    frames = [
        pd.concat(whole.folder(split).read_frame(f"{name}.parquet") for split in (0, 1))
        for name in ("comparison", "predictions")
    ]
    sentence = judge(frames[0], frames[1], whole.table.tasks).sentence()
    assert "not judged: no single-task arm was fitted" in sentence

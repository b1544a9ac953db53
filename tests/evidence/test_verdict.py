"""From comparison and predictions to a verdict: what it says, that its parts agree, and that JSON takes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfolk.data.errors import error, scores
from kinfolk.data.tasks import Task
from kinfolk.evidence.intervals import CorrectedT, holm
from kinfolk.evidence.verdict import Verdict, judge, recompute
from kinfolk.evidence.wording import listed, number, recommendation, rows, sharing
from kinfolk.exceptions import InputError

ROLES = {"alone": "single-task", "hard": "sharing", "ridge": "opponent", "trees": "opponent"}
G1, G2 = Task("G1", "regression"), Task("G2", "regression")
PASSES = Task("passes", "binary", ("no", "yes"))
COLOUR = Task("colour", "multiclass", ("blue", "green", "red"))


def predict(task: Task, target: np.ndarray, skill: float, rng: np.random.Generator) -> np.ndarray:
    """Predictions that are better, the higher the skill; 0 is nothing."""
    if task.kind == "regression":
        return (skill * target + rng.normal(0, 1 - skill + 0.05, len(target)))[:, None]
    odds = rng.normal(size=(len(target), len(task.classes)))
    odds[np.arange(len(target)), target.astype(int)] += 3 * skill
    p = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    return p[:, 1:] if task.kind == "binary" else p


def run(
    tasks: Sequence[Task], gains: Sequence[float], splits: int = 10, size: int = 60, seed: int = 0, share: bool = True
) -> tuple[Any, Any]:
    """A comparison and its predictions: sharing adds a gain in skill, the hand-over a little more."""
    rng = np.random.default_rng(seed)
    comparison, predictions = [], []
    for task, gain in zip(tasks, gains, strict=True):
        for at in range(splits):
            target = rng.normal(size=size) if task.kind == "regression" else rng.integers(0, len(task.classes), size)
            target = target.astype(float)
            skills = {"alone": 0.5, "hard": 0.5 + gain, "ridge": 0.4, "trees": 0.45}
            made = {arm: (ROLES[arm], "", predict(task, target, skill, rng)) for arm, skill in skills.items()}
            made["single-task"] = ("procedure", "alone", made["alone"][2])
            made["sharing"] = ("procedure", "hard", made["hard"][2])
            blend = 0.5 * made["alone"][2] + 0.5 * made["hard"][2]
            made["hand-over"] = ("procedure", "blend", blend)
            for arm, (role, chosen, p) in made.items():
                if not share and "sharing" in (arm, role):
                    continue
                own = {"arm": arm, "role": role, "repeat": at // 5, "fold": at % 5, "task": task.name}
                setting = json.dumps({"alone · a": 0.5, "hard · b": 0.5}) if arm == "hand-over" else "{}"
                comparison.append(
                    own | {"error_name": task.error, "error": error(task, target, p, baseline=0.0), "setting": setting,
                           "chosen": chosen, "train_rows": 4 * size, "judged_rows": size, "epochs": 3.0, "seconds": 1.0}
                    | scores(task, target, p, baseline=0.0)
                )  # fmt: skip
                predictions.append(
                    pd.DataFrame(
                        {"row": at * size + np.arange(size), "target": target, "weight": 1.0, "baseline": 0.0,
                         "prediction": list(p.astype(np.float32))}
                    ).assign(**own)
                )  # fmt: skip
    return pd.DataFrame(comparison), pd.concat(predictions, ignore_index=True)


def only(frame: Any, task: str) -> Any:
    return frame[frame["task"] == task]


def test_three_answers():
    tasks = (G1, G2, PASSES, COLOUR)
    comparison, predictions = run(tasks, (0.2, -0.2, 0.0, 0.3))
    verdict = judge(comparison, predictions, tasks, meta={"seed": 3, "warnings": ["a"], "encoded_features": 9})
    assert [entry["verdict"] for entry in verdict.tasks.values()] == ["helped", "hurt", "no clear difference", "helped"]
    assert verdict.overall["helped"] == ["G1", "colour"]
    assert verdict.overall["hurt"] == ["G2"]
    counted = {"splits": 10, "repeats": 2, "folds": 5, "level": 0.05}
    assert verdict.statistics == {"test": "corrected resampled t-test", "correction": "Holm"} | counted
    one = verdict.tasks["G1"]
    assert one["difference"] == pytest.approx(one["single_task"] - one["best"])
    assert (one["best_arm"], one["chosen_arm"], one["labelled_rows"], one["splits"]) == ("hard", "blend", 300, 10)
    assert one["blend"] == {"alone · a": 0.5, "hard · b": 0.5}
    assert set(one["opponents"]) == {"ridge", "trees"}
    assert set(one["arms"]) == {"alone", "hard"}
    assert set(one["scores"]["hand-over"]) == {"rmse", "mae", "r2"}
    assert set(verdict.tasks["passes"]["scores"]["single-task"]) == {"accuracy", "auc", "log_loss", "brier"}
    assert set(verdict.tasks["colour"]["scores"]["hard"]) == {"accuracy", "macro_auc", "log_loss"}
    assert (verdict.seed, verdict.warnings, verdict.data["encoded_features"]) == (3, ["a"], 9)
    assert "Sharing helps G1 and colour and hurts G2; no clear difference for passes." in verdict.sentence()


def test_numbers_are_those_of_the_statistics():
    tasks = (G1, G2)
    comparison, predictions = run(tasks, (0.1, 0.02))
    verdict = judge(comparison, predictions, tasks, level=0.1)
    wide = comparison.pivot(index=["task", "repeat", "fold"], columns="arm", values="error")
    tests = [CorrectedT(tuple(w["single-task"] - w["sharing"]), 0.25) for _, w in wide.groupby(level=0)]
    adjusted = holm([t.p_value for t in tests])
    for entry, test, p in zip(verdict.tasks.values(), tests, adjusted, strict=True):
        assert entry["p_value_raw"] == pytest.approx(test.p_value)
        assert entry["p_value"] == pytest.approx(p)
        assert entry["interval"] == pytest.approx(test.interval(0.1 * test.p_value / p))
    single = wide["single-task"].groupby(level=0).transform("mean")
    percent = 100 * (wide["single-task"] - wide["sharing"]) / single
    delta = CorrectedT(tuple(percent.groupby(level=[1, 2]).mean()), 0.25)
    assert verdict.overall["delta_m_percent"] == pytest.approx(delta.mean)
    assert verdict.overall["interval"] == pytest.approx(delta.interval(0.1))


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 1000), st.integers(2, 4), st.lists(st.sampled_from([-0.2, 0.0, 0.05, 0.2]), min_size=1, max_size=4)
)
def test_interval_excludes_zero_where_the_verdict_is_clear(seed, splits, gains):
    tasks = [Task(f"t{i}", "regression", error="mae") for i in range(len(gains))]
    verdict = judge(*run(tasks, gains, splits, size=12, seed=seed), tasks)
    for entry in verdict.tasks.values():
        low, high = entry["interval"]
        assert (entry["verdict"] == "helped") == (low > 0)
        assert (entry["verdict"] == "hurt") == (high < 0)
        assert low <= entry["difference"] <= high
        assert (entry["p_value"] <= 0.05) == (entry["verdict"] in ("helped", "hurt"))


def test_json_and_back():
    tasks = (G1, Task("binary", "binary", (0, 1)))
    verdict = judge(*run(tasks, (0.1, 0.0), splits=1), tasks, meta={"costs": {"hard": {"parameters": None}}})
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text)) == verdict
    assert verdict.to_dict()["format"] == 1
    assert verdict.tasks["binary"]["classes"] == [0, 1]
    with pytest.raises(ValueError, match=r"format 1\. Got 2"):
        Verdict.from_dict(verdict.to_dict() | {"format": 2})


def test_one_split_is_not_judged():
    verdict = judge(*run((G1, G2), (0.2, 0.2), splits=1), (G1, G2), meta={"not_tried": ["9 of 10 outer splits"]})
    assert {entry["verdict"] for entry in verdict.tasks.values()} == {"not judged"}
    assert verdict.tasks["G1"]["interval"] == [None, None]
    assert verdict.tasks["G1"]["p_value"] is None
    assert verdict.overall["delta_m_percent"] > 0
    assert verdict.sentence().startswith(
        "Whether sharing helps was not judged: fewer than two outer splits finished within the time budget."
    )
    assert "How sure that is could not be judged." in verdict.sentence()


def test_nothing_finished():
    verdict = judge(pd.DataFrame(), pd.DataFrame(), (G1,), meta={"blend": {"G1": {"alone · a": 1.0}}})
    entry = verdict.tasks["G1"]
    assert (entry["verdict"], entry["single_task"], entry["splits"]) == ("not judged", None, 0)
    assert entry["blend"] == {"alone · a": 1.0}
    assert "How good it is was not measured" in verdict.sentence()
    assert len(verdict.rows()) == 1
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_one_task_has_nothing_to_share():
    verdict = judge(*run((G1,), (0.3,), share=False), (G1,))
    entry = verdict.tasks["G1"]
    assert (entry["verdict"], entry["best"], entry["best_arm"], entry["difference"]) == (
        "nothing to share",
        None,
        "",
        None,
    )
    assert entry["hand_over_interval"][0] < entry["hand_over_difference"] < entry["hand_over_interval"][1]
    assert verdict.overall["delta_m_percent"] is None
    assert verdict.sentence().startswith("There is one task: nothing to share. Use the hand-over: ")
    assert "sharing" not in verdict.rows()[0]


def test_a_split_in_which_an_error_is_undefined_is_left_out():
    comparison, predictions = run((PASSES, G1), (0.2, 0.2))
    undefined = (comparison["task"] == "passes") & (comparison["repeat"] == 0) & (comparison["fold"] == 2)
    comparison.loc[undefined, "error"] = math.nan
    verdict = judge(comparison, predictions, (PASSES, G1))
    assert (verdict.tasks["passes"]["splits"], verdict.tasks["passes"]["splits_left_out"]) == (9, 1)
    assert (verdict.tasks["G1"]["splits"], verdict.tasks["G1"]["splits_left_out"]) == (10, 0)
    rest = comparison[~undefined & (comparison["task"] == "passes") & (comparison["arm"] == "trees")]
    assert verdict.tasks["passes"]["opponents"]["trees"] == pytest.approx(rest["error"].mean())


def test_an_arm_that_failed_in_a_split_leaves_the_split_in():
    comparison, predictions = run((G1,), (0.2,))
    lost = (comparison["arm"] == "ridge") & (comparison["fold"] == 2)
    assert judge(comparison[~lost], predictions, (G1,)).tasks["G1"]["splits"] == 10


def test_arms_that_are_the_same_do_not_differ():
    comparison, predictions = run((G1,), (0.2,))
    own = comparison["arm"] == "single-task"
    rounding = 1 + 1e-15 * np.arange(own.sum())
    comparison.loc[comparison["arm"] == "sharing", "error"] = comparison.loc[own, "error"].to_numpy() * rounding
    entry = judge(comparison, predictions, (G1,)).tasks["G1"]
    assert (entry["difference"], entry["interval"], entry["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert entry["verdict"] == "no clear difference"


def test_a_task_without_error_is_left_out_of_the_mean():
    comparison, predictions = run((G1, G2), (0.2, 0.1))
    comparison.loc[(comparison["task"] == "G2") & (comparison["arm"] == "single-task"), "error"] = 0.0
    verdict = judge(comparison, predictions, (G1, G2))
    alone = judge(only(comparison, "G1"), only(predictions, "G1"), (G1,))
    assert verdict.overall["delta_m_percent"] == pytest.approx(alone.overall["delta_m_percent"])
    assert verdict.warnings == ["Single-task learning makes no error in G2: left out of the mean over tasks."]


def test_auxiliary_tasks_are_not_judged():
    comparison, predictions = run((G1,), (0.2,))
    verdict = judge(comparison, predictions, (G1, Task("G2", "regression", main=False)))
    assert list(verdict.tasks) == ["G1"]


def test_other_errors_without_training():
    comparison, predictions = run((G1, PASSES), (0.2, 0.1))
    verdict = judge(comparison, predictions, (G1, PASSES), errors={"G1": "mae", "passes": "accuracy"})
    assert verdict.tasks["G1"]["error_name"] == "mae"
    own = comparison[(comparison["arm"] == "hand-over") & (comparison["task"] == "G1")]
    assert verdict.tasks["G1"]["hand_over"] == pytest.approx(own["mae"].mean(), rel=1e-5)
    assert verdict.tasks["passes"]["error_name"] == "1-accuracy"
    same = recompute(comparison, predictions, (G1, PASSES))
    np.testing.assert_allclose(same["error"], comparison["error"], rtol=1e-5)
    with pytest.raises(InputError, match="'auc' does not"):
        judge(comparison, predictions, (G1, PASSES), errors={"G1": "auc"})


HELD = {"data": {"test_rows": 300}}


def test_the_users_own_test_rows_are_judged_by_a_bootstrap():
    tasks = (G1, G2, PASSES, COLOUR)
    comparison, predictions = run(tasks, (0.25, -0.25, 0.0, 0.3), splits=1, size=300)
    verdict = judge(comparison, predictions, tasks, meta=HELD)
    assert verdict.statistics["test"] == "paired bootstrap over test rows"
    assert [entry["verdict"] for entry in verdict.tasks.values()] == ["helped", "hurt", "no clear difference", "helped"]
    for entry in verdict.tasks.values():
        low, high = entry["interval"]
        assert low < entry["difference"] < high
        assert (low > 0 or high < 0) == (entry["p_value"] <= 0.05)
    low, high = verdict.overall["hand_over_interval"]
    assert low < verdict.overall["hand_over_delta_m_percent"] < high
    assert verdict == judge(comparison, predictions, tasks, meta=HELD)


def test_groups_are_drawn_whole():
    comparison, predictions = run((G1,), (0.1,), splits=1, size=200)
    rows_wide = judge(comparison, predictions, (G1,), meta=HELD).tasks["G1"]["interval"]
    of_two = predictions.assign(group=predictions["row"] // 50)
    groups_wide = judge(comparison, of_two, (G1,), meta=HELD).tasks["G1"]["interval"]
    assert rows_wide != groups_wide
    single = predictions.assign(group=0)
    assert judge(comparison, single, (G1,), meta=HELD).tasks["G1"]["interval"][0] == pytest.approx(
        judge(comparison, predictions, (G1,), meta=HELD).tasks["G1"]["difference"], rel=1e-4
    )


def test_predictions_for_different_rows_are_refused():
    comparison, predictions = run((G1,), (0.1,), splits=1)
    lost = (predictions["arm"] == "sharing") & (predictions["row"] == 3)
    with pytest.raises(ValueError, match="the same rows in all procedures"):
        judge(comparison, predictions[~lost], (G1,), meta=HELD)


def test_nothing_beats_the_mean():
    rng = np.random.default_rng(0)
    comparison, predictions = run((G1, G2), (0.0, 0.0))
    noise = (comparison["task"] == "G1") & (comparison["role"] == "procedure")
    comparison.loc[noise, "error"] = 1.03 + 0.01 * rng.normal(size=noise.sum())
    verdict = judge(comparison, predictions, (G1, G2))
    assert verdict.tasks["G1"]["baseline_beaten"] is False
    assert verdict.tasks["G2"]["baseline_beaten"] is True
    assert "But nothing predicts G1 better than the mean of the training rows does." in verdict.sentence()
    alone = judge(only(comparison, "G1"), only(predictions, "G1"), (G1,))
    assert "Use none of the models: nothing predicts G1 better than the mean" in alone.sentence()


def test_nothing_ranks_better_than_chance():
    comparison, predictions = run((PASSES,), (0.0,))
    comparison["auc"] = 0.48
    verdict = judge(comparison, predictions, (PASSES,))
    assert verdict.tasks["passes"]["baseline_beaten"] is False
    assert "nothing ranks the rows of passes better than chance" in verdict.sentence()


@pytest.mark.parametrize(
    ("percent", "ends", "says"),
    [
        (4.0, [1.0, 7.0], "Use the hand-over: its error is 4 % below that of single-task learning ({} [1, 7])."),
        (-2.0, [-3.0, -1.0], "Use single-task learning: the hand-over's error is 2 % above its own ({} [1, 3])."),
        (1.0, [-1.0, 3.0], "not clearly different from single-task learning, its error is 1 % below ({} [-1, 3])"),
    ],
)
def test_what_to_use(percent, ends, says):
    tasks = {"G1": {"baseline_beaten": True, "hand_over": 0.5}}
    overall = {"hand_over_delta_m_percent": percent, "hand_over_interval": ends}
    assert says.format("95 % interval") in recommendation(tasks, overall, 0.05)


def test_words():
    entry = {"verdict": "no clear difference", "splits": 5, "splits_left_out": 0}
    assert sharing({"a": entry, "b": entry}) == "Sharing makes no clear difference to a and b."
    unjudged = entry | {"verdict": "not judged", "splits": 0, "splits_left_out": 5}
    assert sharing({"a": entry, "b": unjudged}).endswith("to a. Not judged: b.")
    assert sharing({"b": unjudged}) == (
        "Whether sharing helps was not judged: its error is defined in too few outer splits."
    )
    assert sharing({"a": entry | {"verdict": "hurt"}}) == "Sharing hurts a."
    none = {name: entry | {"verdict": "nothing to share"} for name in "ab"}
    assert sharing(none) == "No arm that shares was tried."
    assert listed(list("abcdefghi")) == "a, b, c, d, e and 4 other tasks"
    assert [number(v) for v in (0.0, 1e-5, 123456.0, -0.5, math.nan)] == ["0", "1e-05", "123000", "-0.5", "–"]


def test_the_table():
    comparison, predictions = run((G1, PASSES), (0.2, 0.0))
    verdict = judge(comparison, predictions, (G1, PASSES))
    table = rows(verdict.tasks)
    assert [row["task"] for row in table] == ["G1", "passes"]
    assert table[0]["verdict"] == "helped"
    assert re.fullmatch(r"\+0\.\d+ \[0\.\d+, 0\.\d+\]", table[0]["difference"])
    assert table[0]["best opponent"].endswith("trees")
    numbers = ["single-task", "sharing", "difference", "verdict", "hand-over", "best opponent"]
    assert list(table[0]) == ["task", "error", *numbers]

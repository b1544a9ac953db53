"""Rows without labels in ``kinfolk.fit``: who reads them, what stays as it was, what is said about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kinfolk
from kinfolk import fitted as fitting
from kinfolk.evidence import unlabelled as extra
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import plan_for
from kinfolk.evidence.unlabelled import PADDED, SEMI, WITHOUT
from kinfolk.exceptions import InputError
from kinfolk.fitted import Fitted, Options

SEMI_ARMS = ("hard + reconstruction + evolving(schedule=exponential, sigma=2.0, alternate=True)",)
PADDED_ARMS = ("hard + reconstruction + evolving(schedule=constant, share=0.0, alternate=True)",)
ARMS = ("ridge", "independent", "hard")
OPTIONS = Options(arms=(*ARMS, *SEMI_ARMS, *PADDED_ARMS), repeats=1, folds=2, inner=2, settings=1)


def frame(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    made = pd.DataFrame({"x": x, "z": x + 0.3 * random.normal(size=rows)})
    made["colour"] = random.choice(["red", "blue", "green"], rows)
    made["price"] = 3 * x + (made["colour"] == "red") + 0.1 * random.normal(size=rows)
    made["sold"] = np.where(x + 0.3 * random.normal(size=rows) > 0, "yes", "no")
    return made


def unlabelled(rows: int = 60) -> pd.DataFrame:
    return frame(rows, seed=5).drop(columns=["price", "sold"])


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Networks train for a moment only."""
    with pytest.MonkeyPatch.context() as patched:
        quick = Length(epochs=6, updates=12, batch=16, patience=1.0)
        patched.setattr(fitting, "plan_for", lambda *sizes: replace(plan_for(*sizes), length=quick, width=4))
        yield


@pytest.fixture(scope="module")
def fitted(short: None, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    out = tmp_path_factory.mktemp("runs") / "a"
    return kinfolk.fit(frame(), ["price", "sold"], unlabelled=unlabelled(), options=OPTIONS, out=out)


def test_arms_that_read_them_have_roles_and_procedures_of_their_own(fitted: Fitted):
    made = fitted.comparison
    roles = dict(zip(made["arm"], made["role"], strict=True))
    assert roles[SEMI_ARMS[0]] == SEMI
    assert roles[PADDED_ARMS[0]] == PADDED
    procedures = {arm for arm, role in roles.items() if role == "procedure"}
    assert procedures == {"single-task", "sharing", "hand-over", SEMI, PADDED, WITHOUT}
    chosen = made[made["arm"] == WITHOUT]["chosen"]
    assert set(chosen) <= {"independent", "hard"}
    assert set(made[made["arm"] == "sharing"]["chosen"]) == {"hard"}


def test_the_verdict_and_the_report_say_whether_they_helped(fitted: Fitted):
    found = fitted.verdict.overall["unlabelled"]
    assert found["rows"] == 60
    assert found["verdict"] in ("helped", "taught", "hurt", "no clear difference")
    assert "60 rows without labels" in fitted.verdict.sentence()
    assert "the padded baseline (95 % interval [" in fitted.verdict.sentence()
    assert "Do the rows without labels help?" in (fitted.path / "report.html").read_text()
    about = json.loads((fitted.path / "run.json").read_text())["data"]
    assert (about["rows"], about["unlabelled_rows"]) == (40, 60)


def test_who_does_not_read_them_learns_as_if_they_were_not_there(fitted: Fitted, tmp_path: Path):
    alone = kinfolk.fit(frame(), ["price", "sold"], options=replace(OPTIONS, arms=ARMS), out=tmp_path / "run")
    keys = ["arm", "fold", "task"]
    one, two = (f.comparison.query("arm in @ARMS").sort_values(keys) for f in (alone, fitted))
    assert one["error"].tolist() == two["error"].tolist()


def test_rows_of_the_table_without_any_label_are_the_same_thing(fitted: Fitted, tmp_path: Path):
    whole = pd.concat([frame(), unlabelled().assign(price=np.nan, sold=None)])
    again = kinfolk.fit(whole, ["price", "sold"], options=OPTIONS, out=tmp_path / "run")
    keys = ["arm", "fold", "task"]
    one, two = (f.comparison.sort_values(keys) for f in (fitted, again))
    assert one["error"].tolist() == two["error"].tolist()
    assert again.verdict.data["rows"] == 100
    assert again.verdict.data["unlabelled_rows"] == 60


def test_a_run_goes_on_with_the_same_rows_only(fitted: Fitted):
    def go_on(rows: pd.DataFrame) -> Fitted:
        out = fitted.path
        return kinfolk.fit(frame(), ["price", "sold"], unlabelled=rows, options=OPTIONS, out=out, resume=True)

    pd.testing.assert_frame_equal(go_on(unlabelled()).comparison, fitted.comparison)
    with pytest.raises(InputError, match="same table"):
        go_on(unlabelled().assign(x=1.0))


def test_the_model_predicts_without_what_only_helped_to_train(fitted: Fitted, tmp_path: Path):
    fitted.save(tmp_path / "kept")
    pd.testing.assert_frame_equal(kinfolk.load(tmp_path / "kept").predict(unlabelled(5)), fitted.predict(unlabelled(5)))


def test_one_target_is_enough(tmp_path: Path):
    told: list[str] = []
    found = kinfolk.fit(
        frame(), ["price"], ignore=["sold"], unlabelled=unlabelled(), options=OPTIONS, out=tmp_path / "run",
        announce=told.extend,
    )  # fmt: skip
    assert "hard" not in set(found.comparison["arm"])
    assert found.verdict.overall["unlabelled"]["rows"] == 60
    assert any("60 rows without labels: read by 1 arms" in line for line in told)


def test_test_rows_of_the_user_judge_them_by_a_bootstrap(tmp_path: Path):
    options = replace(OPTIONS, repeats=None, folds=None)
    found = kinfolk.fit(
        frame(),
        ["price", "sold"],
        test=frame(20, seed=3),
        unlabelled=unlabelled(),
        options=options,
        out=tmp_path / "run",
    )
    low, high = found.verdict.overall["unlabelled"][PADDED]["interval"]
    assert low < high


def test_few_rows_add_no_arm_and_the_plan_says_how():
    told: list[str] = []

    def stop(lines: list[str]) -> None:
        told.extend(lines)
        raise KeyboardInterrupt

    few = replace(OPTIONS, arms=())
    for rows in (10, 60):
        with pytest.raises(KeyboardInterrupt):
            kinfolk.fit(frame(), ["price", "sold"], unlabelled=unlabelled(rows), options=few, announce=stop)
    assert any("10 rows without labels: no arm reads them. One that does: --arm" in line for line in told)
    assert any("60 rows without labels: read by 2 arms" in line for line in told)


def test_plans_know_of_rows_without_labels():
    plain, more = plan_for(130, 70, 3), plan_for(130, 70, 3, 519)
    assert plain.unlabelled == 0
    assert more.unlabelled == 519
    assert set(more.arms) - set(plain.arms) == set(extra.arms(more.length, 600))
    assert more.settings * more.held * more.repeats * more.folds < plain.settings * plain.held * plain.repeats * 5
    assert plan_for(130, 70, 3, 10**6).unlabelled == 2000
    assert plan_for(1000, 70, 3, 100).arms == plan_for(1000, 70, 3).arms

"""``kinfolk.fit`` from Python, and the model that it gives: kept, read again, damaged, foreign."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kinfolk
from kinfolk import fitted as fitting
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import plan_for
from kinfolk.exceptions import InputError
from kinfolk.fitted import Fitted, Options
from kinfolk.model import Model, load

OPTIONS = Options(arms=("ridge", "mlp(width=4) + hard", "independent"), repeats=1, folds=2, inner=2, settings=1)


def frame(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    made = pd.DataFrame({"x": x, "colour": random.choice(["red", "blue", "green"], rows)}, index=np.arange(rows) + 7)
    made["price"] = 3 * x + (made["colour"] == "red") + 0.1 * random.normal(size=rows)
    made["sold"] = np.where(x + 0.3 * random.normal(size=rows) > 0, "yes", "no")
    return made


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Networks train for a moment only."""
    with pytest.MonkeyPatch.context() as patched:
        quick = Length(epochs=30, updates=30, batch=16)
        patched.setattr(fitting, "plan_for", lambda *sizes: replace(plan_for(*sizes), length=quick, width=8))
        yield


@pytest.fixture(scope="module")
def fitted(short: None, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return kinfolk.fit(frame(), ["price", "sold"], options=OPTIONS, out=tmp_path_factory.mktemp("runs") / "a")


def test_a_frame_in_and_verdict_comparison_and_model_out(fitted: Fitted):
    assert list(fitted.verdict.tasks) == ["price", "sold"]
    assert set(fitted.comparison["role"]) == {"single-task", "sharing", "opponent", "procedure"}
    assert (fitted.path / "report.html").exists()
    assert fitted.verdict.data["name"] == "DataFrame"
    assert fitted.verdict.seconds is not None
    assert fitted.verdict.seconds > 0


def test_predictions_keep_the_index_and_need_no_targets(fitted: Fitted):
    new = frame(9, seed=1)
    found = fitted.predict(new)
    assert found.index.equals(new.index)
    assert list(found) == ["price", "sold"]
    assert np.corrcoef(found["price"], new["price"])[0, 1] > 0.9
    pd.testing.assert_frame_equal(found, fitted.predict(new[["colour", "x"]].assign(other=1)))
    proba = fitted.predict(new, proba=True)
    assert list(proba) == ["price", "sold: no", "sold: yes"]


def test_a_saved_model_predicts_the_same(fitted: Fitted, tmp_path: Path):
    fitted.save(tmp_path / "kept")
    pd.testing.assert_frame_equal(kinfolk.load(tmp_path / "kept").predict(frame(9, 1)), fitted.predict(frame(9, 1)))


def test_a_file_gives_what_a_frame_gives(fitted: Fitted, tmp_path: Path):
    frame().to_csv(tmp_path / "table.csv", index=False)
    again = kinfolk.fit(tmp_path / "table.csv", ["price", "sold"], options=OPTIONS)
    keys = ["arm", "fold", "task"]
    one, two = (f.comparison.sort_values(keys)["error"].to_numpy() for f in (fitted, again))
    assert one == pytest.approx(two, rel=1e-6)


def test_a_finished_run_goes_on_to_the_same_result_and_its_seconds_add_up(fitted: Fitted):
    before = json.loads((fitted.path / "run.json").read_text())
    (fitted.path / "model" / "model.json").unlink()  # as if it had been killed while the model was replaced
    again = kinfolk.fit(frame(), ["price", "sold"], options=OPTIONS, out=fitted.path, resume=True)
    pd.testing.assert_frame_equal(again.comparison, fitted.comparison)
    pd.testing.assert_frame_equal(again.predict(frame(9, 1)), fitted.predict(frame(9, 1)))
    assert json.loads((fitted.path / "run.json").read_text())["seconds"] > before["seconds"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: f.assign(x=f["x"] + 1), "same table"),
        (lambda f: f.rename(columns={"price": "cost"}), "Unknown target"),
        (lambda f: f.assign(sold=f["sold"].replace("no", "never")), "same targets"),
    ],
)
def test_another_table_does_not_go_on_with_the_run(fitted: Fitted, change: Callable[[Any], Any], what: str):
    with pytest.raises(InputError, match=what):
        kinfolk.fit(change(frame()), ["price", "sold"], options=OPTIONS, out=fitted.path, resume=True)


@pytest.mark.parametrize(
    "given",
    [
        {"options": Options(arms=("harrd",))},
        {"options": Options(folds=1)},
        {"options": Options(repeats=3, folds=5), "test": frame(8, seed=1)},
        {"options": Options(settings=7)},
        {"options": Options(device="warp")},
        {"options": Options(arms=("independent",), one_network=True)},
        {"targets": ["prise"]},
        {"errors": {"price": "auc"}},
    ],
)
def test_a_mistake_leaves_no_folder_behind(tmp_path: Path, given: dict[str, Any]):
    with pytest.raises(InputError):
        kinfolk.fit(frame(), **{"targets": ["price", "sold"], "out": tmp_path / "run", **given})
    assert not (tmp_path / "run").exists()


def test_an_interruption_before_training_leaves_no_folder_behind(tmp_path: Path):
    def interrupt(lines: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kinfolk.fit(frame(), ["price", "sold"], options=OPTIONS, out=tmp_path / "run", announce=interrupt)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_end_keeps_the_seconds_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(run: object, model: object) -> None:
        raise KeyboardInterrupt

    options = Options(arms=("ridge",), repeats=1, folds=2, inner=2, settings=1)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "_replace_model", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kinfolk.fit(frame(), ["price"], ignore=["sold"], options=options, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/seconds.json").read_text()) > 0
    again = kinfolk.fit(frame(), ["price"], ignore=["sold"], options=options, out=tmp_path / "run", resume=True)
    assert again.verdict.tasks["price"]["verdict"] == "nothing to share"


def test_weights_groups_and_few_rows(tmp_path: Path):
    small = frame(24).assign(who=np.arange(24) // 3, heavy=np.where(np.arange(24) % 6 == 0, 0, 1))
    options = Options(arms=("ridge", "mlp(width=4) + hard", "independent"), repeats=1, folds=2, settings=1)
    found = kinfolk.fit(small, ["price", "sold"], group="who", weight="heavy", options=options, out=tmp_path / "run")
    judged = pd.read_parquet(tmp_path / "run/predictions.parquet")
    assert (judged["weight"].to_numpy() > 0).all()
    assert found.predict(small).notna().all().all()


# ---- the model folder


@pytest.fixture
def folder(fitted: Fitted, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    stored = json.loads((folder / "model.json").read_text())
    change(stored)
    (folder / "model.json").write_text(json.dumps(stored))


CRAFTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no tasks": lambda s: s.update(tasks=[]),
    "another kind": lambda s: s["tasks"][0].update(kind="multiclass", classes=["a", "b", "c"]),
    "a task more": lambda s: s["tasks"].append(dict(s["tasks"][0], name="more")),
    "an unknown member": lambda s: s["blend"]["price"].update(ghost=1.0),
    "weights of text": lambda s: s["blend"].update(price={s["members"][0]["name"]: "all"}),
    "negative weights": lambda s: s["blend"].update(price={s["members"][0]["name"]: -1.0}),
    "a list for a blend": lambda s: s.update(blend=[1, 2]),
    "no members": lambda s: s.update(members=[]),
    "no encoder": lambda s: s.pop("encoder"),
    "an arm of nothing": lambda s: s["members"][0].update(arm="harrd"),
    "another arm": lambda s: s["members"][0].update(arm="mlp(width=3) + hard"),
    "another version": lambda s: s.update(format=99),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_description_is_an_input_error(folder: Path, what: str):
    changed(folder, CRAFTED[what])
    with pytest.raises(InputError):
        load(folder).predict(frame(5))


@pytest.mark.parametrize("cut", [0, 10, -20])
def test_a_damaged_file_is_an_input_error(folder: Path, cut: int):
    files = [path for path in folder.iterdir() if path.suffix in (".skops", ".safetensors", ".json")]
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            load(folder)
        path.write_bytes(whole)
    assert isinstance(load(folder), Model)


def test_a_file_that_lacks_and_a_folder_that_is_none(folder: Path, fitted: Fitted):
    with pytest.raises(InputError, match="Did you mean"):
        load(fitted.path)
    for path in [p for p in folder.iterdir() if p.name.startswith("member")]:
        kept = path.rename(path.with_suffix(".kept"))
        with pytest.raises(InputError, match="member"):
            load(folder)
        kept.rename(path)


def test_a_file_of_another_model_is_refused(folder: Path, tmp_path: Path):
    options = Options(arms=("ridge", "mlp(width=4) + hard", "independent"), repeats=1, folds=2, inner=2, settings=1)
    wide = frame().assign(**{f"z{i}": np.arange(40.0) ** i for i in range(1, 4)})
    kinfolk.fit(wide, ["price", "sold"], options=options, out=tmp_path / "run").save(tmp_path / "other")
    for path in folder.glob("member*"):
        other = next(iter((tmp_path / "other").glob(f"*{path.suffix}")), None)
        if path.suffix == ".safetensors" and other is not None:
            shutil.copy(other, path)
            with pytest.raises(InputError):
                load(folder)


def test_what_a_table_lacks_is_said(fitted: Fitted):
    with pytest.raises(InputError, match="lacks 'x'"):
        fitted.predict(frame().drop(columns="x"))
    with pytest.raises(InputError, match="x"):
        fitted.predict(frame().assign(x="many"))
    found, notes = fitted.model.predict_with_notes(frame(4).assign(colour="pink"))
    assert len(found) == 4
    assert any("pink" in note for note in notes)
    assert len(fitted.predict(frame().iloc[:0])) == 0

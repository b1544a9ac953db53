"""The command line as a stranger uses it: what works, and what a mistake gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

KINFOLK = [str(Path(sys.executable).with_name("kinfolk"))]
SMALL = ["--splits", "1x2", "--inner", "2", "--settings", "1", "--workers", "1"]
QUICK = ["--arm", "independent", "--arm", "mlp(width=8) + hard", "--arm", "ridge"]


def kinfolk(*words: object, folder: Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*KINFOLK, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if check is not None:
        assert done.returncode == check, done.stderr + done.stdout
    return done


def pupils(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    hours, school = random.normal(size=rows), random.choice(["north", "south", "west"], rows)
    frame = pd.DataFrame({"hours": hours.round(3), "school": school, "age": random.integers(15, 19, rows)})
    frame["math"] = (3 * hours + (school == "north") + random.normal(size=rows)).round(2)
    frame["reading"] = (2 * hours + random.normal(size=rows)).round(2)
    frame["passes"] = np.where(hours + 0.5 * random.normal(size=rows) > 0, "yes", "no")
    frame.loc[::7, "math"] = np.nan
    frame.loc[::5, "age"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a finished run of it and rows to predict."""
    folder = tmp_path_factory.mktemp("pupils")
    pupils().to_csv(folder / "pupils.csv", index=False)
    pupils(9, seed=1).drop(columns=["math", "reading", "passes"]).to_csv(folder / "new.csv", index=False)
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--target", "passes", "--out", "runs/a"]
    done = kinfolk(*words, *SMALL, *QUICK, folder=folder)
    (folder / "fit.txt").write_text(done.stdout + done.stderr)
    return folder


def test_fit_says_what_it_does_and_what_it_found(folder: Path):
    text = (folder / "fit.txt").read_text()
    assert "pupils.csv: 60 rows, 3 feature columns" in text
    assert "target math: regression, 51 labels, error rrse" in text
    assert "1 x 2 outer splits" in text
    assert "Estimated time" in text
    assert "report.html" in text


def test_fit_writes_what_the_documentation_names(folder: Path):
    run = folder / "runs/a"
    verdict = json.loads((run / "verdict.json").read_text())
    assert list(verdict["tasks"]) == ["math", "reading", "passes"]
    for task in verdict["tasks"].values():
        assert {"single_task", "best_arm", "best", "difference", "interval", "p_value", "verdict"} <= set(task)
        assert sum(task["blend"].values()) == pytest.approx(1, abs=0.01)
    comparison = pd.read_parquet(run / "comparison.parquet")
    assert set(comparison["arm"]) == {
        "independent",
        "mlp(width=8) + hard",
        "ridge",
        "single-task",
        "sharing",
        "hand-over",
    }
    assert not comparison["error"].isna().to_numpy().any()
    assert len(pd.read_parquet(run / "history.parquet"))
    assert (run / "report.html").stat().st_size > 10_000
    assert "independent" in verdict["command"]


def test_predict_gives_a_row_for_a_row(folder: Path):
    kinfolk("predict", "runs/a/model", "new.csv", "--out", "predictions.csv", folder=folder)
    found = pd.read_csv(folder / "predictions.csv")
    assert list(found) == ["math", "reading", "passes"]
    assert len(found) == 9
    assert set(found["passes"]) <= {"yes", "no"}
    proba = kinfolk("predict", "runs/a/model", "new.csv", "--proba", folder=folder).stdout
    shown = pd.read_csv(__import__("io").StringIO(proba))
    assert list(shown) == ["math", "reading", "passes: no", "passes: yes"]
    assert (shown["passes: no"] + shown["passes: yes"]).to_numpy() == pytest.approx(np.ones(9), abs=1e-6)


def test_report_is_written_again_without_training(folder: Path):
    before = (folder / "runs/a/verdict.json").read_bytes()
    (folder / "runs/a/report.html").unlink()
    kinfolk("report", "runs/a", folder=folder)
    assert (folder / "runs/a/report.html").exists()
    assert (folder / "runs/a/verdict.json").read_bytes() == before
    kinfolk("report", "runs/a", "--error", "math=mae", folder=folder)
    assert json.loads((folder / "runs/a/verdict.json").read_text())["tasks"]["math"]["error_name"] == "mae"
    kinfolk("report", "runs/a", folder=folder)


def test_a_second_fit_into_the_same_folder_is_refused_and_resume_trains_nothing(folder: Path):
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--target", "passes", "--out", "runs/a"]
    done = kinfolk(*words, *SMALL, *QUICK, folder=folder, check=2)
    assert "--resume" in done.stderr
    before = (folder / "runs/a/comparison.parquet").read_bytes()
    kinfolk(*words, *SMALL, *QUICK, "--resume", folder=folder)
    assert (folder / "runs/a/comparison.parquet").read_bytes() == before
    done = kinfolk(*words, *SMALL, *QUICK, "--resume", "--seed", 1, folder=folder, check=2)
    assert "same plan" in done.stderr


def test_same_seed_same_result_whatever_the_number_of_workers(folder: Path):
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--target", "passes", "--out", "runs/b"]
    kinfolk(*words, *SMALL[:-1], "2", *QUICK, folder=folder)
    one, two = (pd.read_parquet(folder / f"runs/{name}/predictions.parquet") for name in "ab")
    assert np.array_equal(np.concatenate(one["prediction"].to_numpy()), np.concatenate(two["prediction"].to_numpy()))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been_stopped(folder: Path, how: signal.Signals):
    name = f"runs/stopped-{how.name}"
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--target", "passes", "--out", name]
    process = subprocess.Popen([*KINFOLK, *words, *SMALL, *QUICK], cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((folder / name).glob("splits/*/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, how)
    errors = process.communicate(timeout=60)[1]
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in errors
        assert "Traceback" not in errors
    assert not (folder / name / "verdict.json").exists()
    assert "not finished" in kinfolk("report", name, folder=folder, check=2).stderr
    kinfolk(*words, *SMALL, *QUICK, "--resume", folder=folder)
    one, two = (pd.read_parquet(folder / f"{run}/predictions.parquet") for run in ("runs/a", name))
    assert np.array_equal(np.concatenate(one["prediction"].to_numpy()), np.concatenate(two["prediction"].to_numpy()))


def test_a_budget_gives_an_answer_and_says_what_was_not_tried(folder: Path):
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--ignore", "passes", "--budget", "1s"]
    kinfolk(*words, "--out", "runs/budget", *SMALL, folder=folder)
    verdict = json.loads((folder / "runs/budget/verdict.json").read_text())
    assert verdict["not_tried"]
    assert all(task["verdict"] == "not judged" for task in verdict["tasks"].values())
    kinfolk("predict", "runs/budget/model", "new.csv", folder=folder)


def test_one_target_has_nothing_to_share(folder: Path):
    words = ["--ignore", "reading", "--ignore", "passes", "--out", "runs/one"]
    kinfolk("fit", "pupils.csv", "--target", "math", *words, *SMALL, *QUICK, folder=folder)
    verdict = json.loads((folder / "runs/one/verdict.json").read_text())
    assert verdict["tasks"]["math"]["verdict"] == "nothing to share"
    kinfolk("predict", "runs/one/model", "new.csv", folder=folder)


def test_one_network_is_handed_over_and_test_rows_judge(folder: Path):
    words = ["fit", "pupils.csv", "--target", "math", "--target", "reading", "--auxiliary", "passes"]
    more = ["--test", "pupils.csv", "--one-network", "--out", "runs/network"]
    kinfolk(*words, *more, *SMALL[2:], *QUICK, folder=folder)
    stored = json.loads((folder / "runs/network/model/model.json").read_text())
    assert len(stored["members"]) == 1
    assert "hard" in stored["members"][0]["arm"]
    verdict = json.loads((folder / "runs/network/verdict.json").read_text())
    assert verdict["statistics"]["test"] == "paired bootstrap over test rows"
    assert list(verdict["tasks"]) == ["math", "reading"]


MISTAKES = {
    "no such file": (["fit", "absent.csv", "--target", "math"], "absent.csv"),
    "unknown target": (["fit", "pupils.csv", "--target", "maths"], "Did you mean 'math'"),
    "unknown arm": (["fit", "pupils.csv", "--target", "math", "--arm", "harrd"], "harrd"),
    "two sharings": (["fit", "pupils.csv", "--target", "math", "--arm", "hard + independent"], "one of sharing"),
    "unknown argument": (["fit", "pupils.csv", "--target", "math", "--arm", "mlp(widht=3) + hard"], "width"),
    "splits": (["fit", "pupils.csv", "--target", "math", "--splits", "many"], "3x5"),
    "splits beside test rows": (
        ["fit", "pupils.csv", "--target", "math", "--test", "pupils.csv", "--splits", "3x5"],
        "Got --splits 3x5",
    ),
    "more folds than rows": (["fit", "pupils.csv", "--target", "math", "--splits", "1x50"], "labelled rows"),
    "budget": (["fit", "pupils.csv", "--target", "math", "--budget", "soon"], "10m"),
    "error": (["fit", "pupils.csv", "--target", "math", "--error", "math=auc"], "auc"),
    "workers": (["fit", "pupils.csv", "--target", "math", "--workers", "0"], "at least 1"),
    "devices": (["fit", "pupils.csv", "--target", "math", "--devices", "0"], "at least 1. Got 0"),
    "device": (["fit", "pupils.csv", "--target", "math", "--device", "warp"], "warp"),
    "settings": (["fit", "pupils.csv", "--target", "math", "--settings", "99"], "settings"),
    "model folder": (["predict", "runs", "new.csv"], "model.json"),
    "run instead of model": (["predict", "runs/a", "new.csv"], "Did you mean"),
    "report of nothing": (["report", "nowhere"], "finished run"),
    "unknown catalogue": (["list", "sharring"], "Did you mean 'sharing'"),
    "lacking column": (["predict", "runs/a/model", "narrow.csv"], "hours"),
    "changed type": (["predict", "runs/a/model", "typed.csv"], "hours"),
    "out is a file": (["fit", "pupils.csv", "--target", "math", "--out", "pupils.csv"], "--out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, mistake: str):
    new = pd.read_csv(folder / "new.csv")
    new.drop(columns="hours").to_csv(folder / "narrow.csv", index=False)
    new.assign(hours="plenty").to_csv(folder / "typed.csv", index=False)
    words, expected = MISTAKES[mistake]
    if words[0] == "fit" and "--out" not in words:
        words = [*words, "--out", "runs/mistake"]
    done = kinfolk(*words, folder=folder, check=2)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "runs/mistake").exists()


def test_an_unseen_category_is_predicted_with_a_warning(folder: Path):
    pd.read_csv(folder / "new.csv").assign(school="east").to_csv(folder / "east.csv", index=False)
    done = kinfolk("predict", "runs/a/model", "east.csv", folder=folder)
    assert "school" in done.stderr
    assert "east" in done.stderr


@pytest.mark.parametrize("file", ["model.json", "member0.skops", "member0.safetensors", "member1.safetensors"])
def test_a_damaged_model_is_one_line(folder: Path, tmp_path: Path, file: str):
    import shutil

    shutil.copytree(folder / "runs/a/model", tmp_path / "model")
    damaged = tmp_path / "model" / file
    if not damaged.exists():
        pytest.skip("the blend has no such member")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    done = kinfolk("predict", tmp_path / "model", "new.csv", folder=folder, check=2)
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_of_another_version_is_refused(folder: Path, tmp_path: Path):
    import shutil

    shutil.copytree(folder / "runs/a/model", tmp_path / "model")
    stored = json.loads((tmp_path / "model/model.json").read_text())
    (tmp_path / "model/model.json").write_text(json.dumps(stored | {"format": 99, "kinfolk": "9.9"}))
    assert "9.9" in kinfolk("predict", tmp_path / "model", "new.csv", folder=folder, check=2).stderr


def test_list_names_every_method(folder: Path):
    text = kinfolk("list", folder=folder).stdout
    assert all(name in text for name in ("mlp", "hard", "independent", "uncertainty", "fixed", "digits"))

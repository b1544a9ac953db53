"""Running studies: how long, resuming, deaths, Ctrl-C, what is written; with a toy made for these tests."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import browser
from kinfolk.exceptions import InputError
from kinfolk.studies import results, running
from kinfolk.studies.base import Finding, Trial
from toy_study import Toy


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} - {".lock"}


# ---- findings


def test_the_interval_is_that_of_t():
    found = Finding("x", 1.0, (1.0, 2.0, 4.0))
    values = np.array([1.0, 2.0, 4.0])
    half = 4.302652729911275 * values.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


@pytest.mark.parametrize(
    ("published", "values", "claim", "verdict"),
    [
        (2.0, (1.9, 2.2, 2.0), "", "reproduced"),
        (3.0, (1.9, 2.2, 2.0), "", "not reproduced"),
        (3.0, (1.9, 2.2, 2.0), "positive", "direction only"),
        (-3.0, (1.9, 2.2, 2.0), "negative", "not reproduced"),
        (None, (-1.9, -2.2, -2.0), "negative", "direction only"),
        (None, (-1.0, 1.1), "positive", "not reproduced"),
        (None, (1.0, 1.0), "positive", "direction only"),
        (None, (1.0, 2.0), "", ""),
        (1.0, (1.0,), "", "not judged"),
        (1.0, (), "positive", "not judged"),
        (1.0, (math.nan, 1.0), "positive", "not reproduced"),
    ],
)
def test_verdicts(published: float | None, values: tuple[float, ...], claim: str, verdict: str):
    assert Finding("x", published, values, "", claim).verdict == verdict


def test_a_claim_is_a_sign():
    with pytest.raises(ValueError, match="`claim` must be"):
        Finding("x", 1.0, (1.0,), claim="lower")


# ---- running


def test_it_leaves_all_that_a_reader_needs(tmp_path: Path):
    said: list[str] = []
    shares: list[float] = []
    result = running.run(Toy(), tmp_path / "a", announce=said.append, progress=lambda part, _: shares.append(part))
    assert said == ["About 1 second with 1 worker, 3 trials."]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert files(tmp_path / "a") == {
        *("config.json", "figure.svg", "findings.json", "study.html"),
        *("table.csv", "table.md", "table.parquet", "trials"),
    }
    rows = pd.read_csv(tmp_path / "a/table.csv")
    assert list(rows.columns) == ["arm", "seed", "measure", "value"]
    assert rows["seed"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a/table.parquet"), result.rows, check_dtype=False)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["study"] == "toy-study"
    assert config["options"] == {"shift": 0.0, "wait": 0.0, "dies": -1, "fails": False}
    assert {"command", "sessions", "seconds", "seeds"} <= set(config)
    assert [set(session) for session in config["sessions"]] == [{"machine", "versions", "workers", "threads"}]
    found = json.loads((tmp_path / "a/findings.json").read_text())
    assert [f["verdict"] for f in found["findings"]] == ["reproduced", "not reproduced", ""]
    assert "| mean | 0 points |" in (tmp_path / "a/table.md").read_text()
    assert result.summary() == "Of 2 published results: 1 reproduced, 1 not reproduced."
    assert ElementTree.parse(tmp_path / "a/figure.svg").getroot().tag.endswith("svg")
    assert not [place for place in (tmp_path / "a/trials").iterdir() if place.is_dir()]


def test_the_result_does_not_depend_on_the_workers(tmp_path: Path):
    alone = running.run(Toy(), tmp_path / "a", seeds=4)
    both = running.run(Toy(), tmp_path / "b", seeds=4, processes=2)
    pd.testing.assert_frame_equal(alone.rows, both.rows)


def test_one_process_keeps_the_order_of_the_study(tmp_path: Path):
    class Longer(Toy):
        def seconds(self, trial: Trial) -> float:
            return 1.0 + trial.arguments["seed"]

    told: list[str] = []
    running.run(Longer(), tmp_path / "a", progress=lambda share, name: told.append(name))
    assert told == ["seed 0", "seed 1", "seed 2"]


def test_a_finished_study_is_drawn_again_without_training(tmp_path: Path):
    first = running.run(Toy(), tmp_path / "a")
    before = {place: place.stat().st_mtime_ns for place in (tmp_path / "a/trials").iterdir()}
    (tmp_path / "a/study.html").unlink()
    said: list[str] = []
    again = running.run(Toy(), tmp_path / "a", resume=True, announce=said.append)
    assert said == ["All 3 trials are finished; table, figure and page are made again."]
    assert {place: place.stat().st_mtime_ns for place in (tmp_path / "a/trials").iterdir()} == before
    assert again.findings == first.findings
    assert (tmp_path / "a/study.html").exists()


def test_only_what_is_left_is_done(tmp_path: Path):
    running.run(Toy(), tmp_path / "a")
    lost = sorted((tmp_path / "a/trials").glob("seed-1*.json"))
    lost[0].unlink()
    said: list[str] = []
    running.run(Toy(wait=0.0), tmp_path / "a", resume=True, announce=said.append)
    assert said == ["About 1 second with 1 worker, 1 trial; 2 of 3 are finished already."]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"seeds": 2}, "seeds=3. Got seeds=2: give the same to go on, or another --out"),
        ({"quick": True, "seeds": 3}, "holds a study with quick=False. Got quick=True:"),
        ({"shift": 1.0}, r"with shift=0.0. Got shift=1.0:"),
    ],
)
def test_another_study_is_refused(tmp_path: Path, how: dict, text: str):
    running.run(Toy(), tmp_path / "a", seeds=3)
    shift = how.pop("shift", 0.0)
    with pytest.raises(InputError, match=text):
        running.run(Toy(shift=shift), tmp_path / "a", resume=True, **how)
    with pytest.raises(InputError, match=r"holds a run already. Use --resume"):
        running.run(Toy(), tmp_path / "a")


def test_a_run_that_is_no_study_is_refused(tmp_path: Path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run that is no study"):
        running.run(Toy(), tmp_path, resume=True)


def test_a_mistake_in_a_trial_comes_through(tmp_path: Path):
    with pytest.raises(InputError, match="There are no data"):
        running.run(Toy(fails=True), tmp_path / "a", processes=2)


def test_trials_have_names_of_their_own(tmp_path: Path):
    class Twice(Toy):
        def trials(self, seeds: int, quick: bool) -> list[Trial]:
            return [Trial("a"), Trial("a")]

    with pytest.raises(ValueError, match="'a' would be trained twice"):
        running.run(Twice(), tmp_path / "a")


def test_rows_have_seed_measure_and_value():
    with pytest.raises(ValueError, match="without measure"):
        results.frame([{"seed": 0, "value": 1.0}])
    rows = results.frame([{"seed": 0, "measure": "x", "value": None}])
    assert rows["value"].isna().tolist() == [True]


# ---- how long


def test_the_estimate(tmp_path: Path):
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run(Toy(wait=90.0), tmp_path / "a", seeds=5, processes=1, announce=stop)
    assert said == ["About 8 minutes with 1 worker, 5 trials."]
    assert not (tmp_path / "a").exists(), "nothing was written, so nothing is left"


# ---- deaths


def test_a_killed_worker_loses_nothing(tmp_path: Path):
    """The worker dies in the middle of a trial; another one goes on from what the trial had kept."""
    whole = running.run(Toy(), tmp_path / "a")
    killed = running.run(Toy(dies=1, wait=0.2), tmp_path / "b", processes=2)
    pd.testing.assert_frame_equal(killed.rows, whole.rows)


def test_a_killed_worker_goes_on_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running.shutil, "rmtree", lambda *_, **__: None)  # to look at the trial's folder
    running.run(Toy(dies=1), tmp_path / "b", processes=2)
    (folder,) = [place for place in (tmp_path / "b/trials").glob("seed-1*") if place.is_dir()]
    made = [re.fullmatch(r"made-(\d+)-(\d+)", name) for name in files(folder) if name.startswith("made")]
    done = sorted((int(m[1]), int(m[2])) for m in made if m)
    assert [i for i, _ in done] == list(range(40)), "each step once"
    assert len({process for _, process in done}) == 2


STOPPED = "import sys; sys.path.insert(0, {here!r}); import toy_study; toy_study.run_here({out!r}, wait=4, resume=True)"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_goes_on(tmp_path: Path, how: signal.Signals):
    out = tmp_path / "a"
    code = STOPPED.format(here=str(Path(__file__).parents[1]), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("trials/*/half.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(60)
    time.sleep(0.6)  # workers see that their parent has gone
    assert not (out / "study.html").exists()
    half = [len(json.loads(place.read_text())) for place in out.glob("trials/*/half.json")]
    assert half
    assert all(0 < n < 40 for n in half)
    whole = running.run(Toy(), tmp_path / "b")
    again = running.run(Toy(wait=4.0), out, resume=True, processes=3)
    pd.testing.assert_frame_equal(again.rows, whole.rows)


def test_what_computed_trials_is_kept_when_a_run_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = running.run(Toy(), tmp_path / "a")
    sessions = json.loads((whole.path / "config.json").read_text())["sessions"]
    monkeypatch.setattr(running, "__version__", "99.0")
    running.run(Toy(), tmp_path / "a", resume=True)  # nothing is left to compute
    assert json.loads((whole.path / "config.json").read_text())["sessions"] == sessions
    next((whole.path / "trials").glob("*.json")).unlink()
    running.run(Toy(), tmp_path / "a", resume=True)
    config = json.loads((whole.path / "config.json").read_text())
    assert [session["versions"]["kinfolk"] for session in config["sessions"]][1:] == ["99.0"]
    assert "; then " in (whole.path / "study.html").read_text()


# ---- the page


@pytest.mark.skipif(browser.find() is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_screen_and_asks_for_nothing(tmp_path: Path, width: int):
    result = running.run(Toy(), tmp_path / "a", quick=True)
    for name in ("study.html", "table.md"):
        assert "This is the quick form" in (result.path / name).read_text()
    with browser.Browser(tmp_path / "profile") as page:
        for dark in (False, True):
            page.open((result.path / "study.html").absolute(), width, dark, phone=width < 500)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert not page.requests()
            assert not page.complaints()

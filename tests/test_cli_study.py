"""`kinfolk study` and `kinfolk list` as a stranger uses them, with a study made for tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kinfolk.studies
from kinfolk.cli import main
from toy_study import Toy

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kinfolk_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command line in an empty folder, with one more study: exit code, standard output and standard error."""
    monkeypatch.setattr(Toy, "__module__", "kinfolk.studies.toy_study")
    monkeypatch.setattr(kinfolk.studies, "Toy", Toy, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kinfolk", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


ALONE = ("--workers", 1)


def test_a_study_says_how_long_and_what_it_found(kinfolk_: Command):
    code, out, err = kinfolk_("study", "toy-study", *ALONE)
    assert code == 0
    assert "About 1 second with 1 worker, 3 trials." in err
    assert re.search(r"what +published +ours +95 % interval +seeds +verdict", out)
    assert re.search(r"mean +0 points .* 3 +reproduced", out)
    assert "Of 2 published results: 1 reproduced, 1 not reproduced." in out
    assert "Numbers were drawn, not measured." in out
    assert "Page: runs/study-toy-study/study.html" in out
    assert Path("runs/study-toy-study/study.html").is_file()


def test_again_it_asks_for_resume(kinfolk_: Command):
    assert kinfolk_("study", "toy_study", "--quick", *ALONE)[0] == 0
    assert Path("runs/study-toy-study-quick").is_dir()
    code, _, err = kinfolk_("study", "toy-study", "--quick", *ALONE)
    assert code == 2
    assert err.count("\n") == 1
    assert "holds a run already. Use --resume to go on" in err
    code, out, err = kinfolk_("study", "toy-study", "--quick", "--resume", *ALONE)
    assert code == 0
    assert "All 2 trials are finished" in err
    assert "Page:" in out


def test_options(kinfolk_: Command):
    code, out, _ = kinfolk_("study", "toy-study", "--set", "shift=5", "--set", "fails=False", "--out", "x", *ALONE)
    assert code == 0
    assert re.search(r"mean +0 points +[45]\.\d\d points", out)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["study", "toystudy"], "Unknown study 'toystudy'. Did you mean 'toy-study'"),
        (
            ["study", "toy-study", "--set", "shfit=1"],
            "Unknown option 'shfit'. Did you mean 'shift'? Options of",
        ),
        (
            ["study", "toy-study", "--set", "shift"],
            "--set must be OPTION=VALUE. Got 'shift'. Options of",
        ),
        (["study", "toy-study", "--set", "shift=a-b"], "'a-b' is no value"),
        (["study", "toy-study", "--set", "shift=word"], "`shift` of 'toy_study' must be float. Got word"),
        (["study", "toy-study", "--set", "shift=1", "--set", "shift=2"], "--set gives 'shift' twice"),
        (["study", "amtfl-deep", "--set", "awa2=/no/such-place"], "Got '/no/such-place', and there is no file"),
        (["study", "toy-study", "--seeds", "0"], "--seeds must be at least 1. Got 0"),
        (["study", "toy-study", "--workers", "many"], "--workers must be a number of at least 1, or 'ray'. Got 'many'"),
        (["study", "toy-study", "--set", "fails=True", *map(str, ALONE)], "There are no data."),
        (["list", "toy-stud"], "Unknown catalogue, study or method 'toy-stud'. Did you mean 'toy-study'"),
    ],
)
def test_a_mistake_is_one_line(kinfolk_: Command, words: list[str], text: str):
    code, out, err = kinfolk_(*words)
    assert code == 2
    assert out == ""
    assert text in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("kinfolk:")]) == 1


def test_ray_that_is_not_there(kinfolk_: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = kinfolk_("study", "toy-study", "--workers", "ray")
    assert code == 2
    assert "pip install 'kinfolk[ray]'" in err


def test_ctrl_c_says_how_to_go_on(kinfolk_: Command, monkeypatch: pytest.MonkeyPatch):
    run = Toy.run

    def interrupted(self: Toy, trial: Any, folder: Any) -> Any:
        if trial.arguments["seed"] == 1:
            raise KeyboardInterrupt
        return run(self, trial, folder)

    monkeypatch.setattr(Toy, "run", interrupted)
    code, out, err = kinfolk_("study", "toy-study", *ALONE)
    assert code == 130
    assert out == ""
    kept = "What is finished is kept in runs/study-toy-study: the same command goes on with --resume."
    assert err.splitlines()[-1] == f"Stopped. {kept}"
    monkeypatch.setattr(Toy, "run", run)
    code, out, err = kinfolk_("study", "toy-study", "--resume", *ALONE)
    assert code == 0
    assert "2 trials; 1 of 3 are finished already" in err


def test_list_names_studies_and_describes_one(kinfolk_: Command):
    code, out, _ = kinfolk_("list", "studies")
    assert code == 0
    assert re.search(r"toy-study\n +The mean of some numbers\n +A. Author \(1999\)", out)
    assert "toy-study" in kinfolk_("list")[1]
    code, out, _ = kinfolk_("list", "toy-study")
    assert code == 0
    assert "kinfolk study toy-study [--quick] [--set OPTION=VALUE]" in out
    assert re.search(r"shift=0.0\n +What is added.", out)
    code, out, _ = kinfolk_("list", "gradnorm")
    assert code == 0
    assert re.search(r"gradnorm \(balancing\)\n", out)
    assert "alpha=" in out

"""What holds for every study that is exported, by existing. Its quick form runs in its own test."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from kinfolk.catalogue import STUDIES
from kinfolk.studies.base import Study

ROOT = Path(__file__).parents[2]
NAMES = STUDIES.names()


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> Any:
    return STUDIES.get(request.param)


def test_there_are_studies():
    folder = ROOT / "src/kinfolk/studies"
    written = {file.stem for file in folder.glob("*.py") if "(Study):" in file.read_text(encoding="utf-8")}
    assert set(NAMES) == written, "a study is exported by one line in studies/__init__.py"


def test_it_says_what_it_is(kind: Any):
    assert issubclass(kind, Study)
    assert not inspect.isabstract(kind)
    assert len(kind.title) <= 90
    assert "\n" not in kind.title + kind.paper
    assert any(c.isdigit() for c in kind.paper), "authors, year, title"
    assert kind.seeds >= 2, "one seed has no interval"
    (method,) = [m for m in STUDIES.describe() if m.name == kind.__module__.rpartition(".")[2]]
    assert method.summary
    assert method.reference, "a section References in the docstring"


def test_options_have_defaults_and_are_said(kind: Any):
    (method,) = [m for m in STUDIES.describe() if m.name == kind.__module__.rpartition(".")[2]]
    study = kind()
    for parameter in method.parameters:
        assert parameter.default is not None, parameter.name
        assert parameter.description, f"`{parameter.name}` has no line in the docstring"
        assert parameter.annotation, parameter.name
        value = getattr(study, parameter.name)
        assert json.loads(json.dumps(value)) == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("quick", [False, True])
def test_trials_are_items_of_work(kind: Any, quick: bool):
    study = kind()
    trials = study.trials(2 if quick else study.seeds, quick)
    names = [trial.name for trial in trials]
    assert names
    assert len(set(names)) == len(names)
    for trial in trials:
        assert json.loads(json.dumps(dict(trial.arguments))) == dict(trial.arguments)
    again = study.trials(2 if quick else study.seeds, quick)
    assert [(t.name, dict(t.arguments)) for t in again] == [(t.name, dict(t.arguments)) for t in trials]
    if quick:
        assert len(trials) <= 24


def test_it_has_a_page_and_a_test(kind: Any):
    name = kind.__module__.rpartition(".")[2]
    page = ROOT / f"docs/studies/{name.replace('_', '-')}.md"
    assert (ROOT / f"tests/studies/test_{name}.py").is_file()
    assert page.is_file()
    assert f"kinfolk study {name.replace('_', '-')}" in page.read_text(encoding="utf-8")

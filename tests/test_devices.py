"""A fit on several devices: which is whose, what processes that train together find, and what a mistake gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer

import kinfolk
from kinfolk import cli, processes
from kinfolk import fitted as fitting
from kinfolk.evidence.fitting import Comparing, device_of
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import plan_for
from kinfolk.exceptions import InputError
from kinfolk.fitted import Fitted, Options

OPTIONS = Options(arms=("ridge", "mlp(width=4) + hard", "independent"), repeats=1, folds=2, inner=2, settings=1)


def frame(rows: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    made = pd.DataFrame({"x": x, "price": 3 * x + random.normal(size=rows)})
    made["sold"] = np.where(x + 0.3 * random.normal(size=rows) > 0, "yes", "no")
    made.loc[::5, "price"] = np.nan
    return made


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Networks train for a moment only."""
    with pytest.MonkeyPatch.context() as patched:
        quick = Length(epochs=10, updates=10, batch=7)
        patched.setattr(fitting, "plan_for", lambda *sizes: replace(plan_for(*sizes), length=quick, width=8))
        yield


@pytest.fixture(scope="module")
def one(short: None, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return kinfolk.fit(frame(), ["price", "sold"], options=OPTIONS, out=tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def two(short: None, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    out = tmp_path_factory.mktemp("runs") / "two"
    return kinfolk.fit(frame(), ["price", "sold"], options=OPTIONS, out=out, devices=2, budget=600.0)


def test_two_processes_find_what_one_finds(one: Fitted, two: Fitted) -> None:
    keys = ["arm", "fold", "task"]
    errors = [fitted.comparison.sort_values(keys)["error"].to_numpy() for fitted in (one, two)]
    np.testing.assert_allclose(errors[1], errors[0], rtol=1e-4)
    for name, task in one.verdict.tasks.items():
        assert two.verdict.tasks[name]["verdict"] == task["verdict"]
        assert two.verdict.tasks[name]["difference"] == pytest.approx(task["difference"], abs=1e-4)
    assert two.verdict.not_tried == []


def test_the_model_and_the_record_are_written_once(one: Fitted, two: Fitted) -> None:
    pd.testing.assert_frame_equal(two.predict(frame()), one.predict(frame()), rtol=1e-3, atol=1e-3)
    assert json.loads((two.path / "plan.json").read_text())["devices"] == 2
    names = [sorted(str(p.relative_to(f.path)) for p in f.path.rglob("*")) for f in (one, two)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("devices", "place", "device"),
    [
        (1, processes.Place(worker=3), "cuda"),
        (4, processes.Place(worker=2), "cuda:2"),
        (4, processes.Place(worker=5), "cuda:1"),
        (4, processes.Place(worker=1, rank=1, size=2), "cuda:3"),
    ],
)
def test_which_gpu_is_whose(monkeypatch: pytest.MonkeyPatch, devices: int, place: processes.Place, device: str) -> None:
    monkeypatch.setattr(processes, "_place", place)
    plan = replace(plan_for(10), device="cuda")
    comparing = Comparing.__new__(Comparing)
    comparing.__dict__.update(plan=plan, devices=devices)
    assert device_of(comparing) == device
    comparing.__dict__.update(plan=replace(plan, device="cpu"))
    assert device_of(comparing) == "cpu"


@pytest.mark.parametrize(
    ("device", "devices", "said"),
    [
        ("cpu", 0, "at least 1. Got 0"),
        ("cuda", 4, "at most the number of GPUs here, 3. Got 4"),
        ("cuda:1", 2, "'cuda:1'"),
    ],
)
def test_mistakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, devices: int, said: str) -> None:
    monkeypatch.setattr(fitting, "_check_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    options = replace(OPTIONS, device=device)
    with pytest.raises(InputError, match=said):
        kinfolk.fit(frame(), ["price", "sold"], options=options, devices=devices, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_under_torchrun_the_first_process_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli._devices(None) == 1
    assert cli._devices(3) == 3
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert cli._devices(None) == 2
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(typer.Exit) as left:
        cli._devices(None)
    assert left.value.exit_code == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(InputError, match="one machine"):
        cli._devices(None)

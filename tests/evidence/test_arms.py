"""Network arms: what they are made of, stacks, checkpoints, failures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinfolk.data.tasks import Task
from kinfolk.evidence.arms import SETTINGS, NetworkArm
from kinfolk.evidence.jobs import Job, Rows, Surroundings
from kinfolk.evidence.length import Length
from kinfolk.evidence.networks import NetworkPredictor, from_state, mean
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.training import checkpoints

SHORT = Length(epochs=4, updates=12, batch=8)


def rows(n: int = 48, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(n, 4)).astype(np.float32)
    inputs[::9, 1] = np.nan
    labels = np.stack(
        [3 * inputs[:, 0] + 7, (inputs[:, 2] > 0).astype(float), np.arange(n) % 3.0, -2 * inputs[:, 0]], 1
    )
    labels[random.random(labels.shape) < 0.2] = np.nan
    tasks = (
        Task("a", "regression"),
        Task("b", "binary", ("no", "yes")),
        Task("c", "multiclass", ("x", "y", "z")),
        Task("d", "regression"),
    )
    return Rows(inputs, labels, np.ones(n), tasks)


def jobs(n: int = 48, settings: int = 2, folds: int = 2) -> list[Job]:
    order = np.random.default_rng(1).permutation(n)
    halves = np.array_split(order, folds)
    made = []
    for fold, held in enumerate(halves):
        train = np.setdiff1d(order, held)
        made += [Job(train[6:], train[:6], setting, fold) for setting in range(settings)]
    return made


def predictions(arm: NetworkArm, of: list[Job], around: Surroundings | None = None) -> list[list[np.ndarray | None]]:
    return [p.predict(rows().inputs) if p is not None else [] for p in arm.fit(rows(), of, around).predictors]


@pytest.mark.parametrize("text", ["hard", "hard + uncertainty", "independent", "independent + uncertainty"])
def test_an_arm_predicts_every_task_in_its_own_terms(text: str):
    for a, b, c, d in predictions(NetworkArm(text, 2, SHORT, 8), jobs()):
        assert a is not None and b is not None and c is not None and d is not None  # noqa: PT018 - for the types
        assert a.shape == b.shape == d.shape == (48, 1)
        assert abs(a.mean() - 7) < 4  # in the target's unit
        assert ((b > 0) & (b < 1)).all()
        assert c.sum(1) == pytest.approx(np.ones(48), abs=1e-5)


@pytest.mark.parametrize("text", ["hard + uncertainty", "independent"])
def test_a_job_alone_is_the_job_among_others(text: str):
    arm = NetworkArm(text, 2, SHORT, 8)
    together = predictions(arm, jobs())
    for job, expected in zip(jobs(), together, strict=True):
        (alone,) = predictions(arm, [job])
        for x, y in zip(alone, expected, strict=True):
            assert x == pytest.approx(y, rel=1e-4, abs=1e-4)


def test_independent_does_not_care_for_the_other_tasks():
    arm, whole = NetworkArm("independent", 1, SHORT, 8), rows()
    (both,) = arm.fit(whole, jobs(settings=1)[:1]).predictors
    one = replace(whole, labels=whole.labels[:, :1], tasks=whole.tasks[:1])
    (alone,) = arm.fit(one, jobs(settings=1)[:1]).predictors
    assert both is not None
    assert alone is not None
    assert both.predict(whole.inputs)[0] == pytest.approx(alone.predict(whole.inputs)[0], rel=1e-4, abs=1e-4)


def test_auxiliary_tasks_help_hard_and_are_not_trained_alone():
    whole = rows()
    tasks = (*whole.tasks[:3], replace(whole.tasks[3], main=False))
    (fitted,) = NetworkArm("independent", 1, SHORT, 8).fit(replace(whole, tasks=tasks), jobs(settings=1)[:1]).predictors
    assert fitted is not None
    assert fitted.predict(whole.inputs)[3] is None


def test_roles_and_texts():
    assert NetworkArm("hard").role == "sharing"
    assert NetworkArm("independent + uncertainty").role == "single-task"
    assert NetworkArm("mlp( width = 8 )+hard").text == "mlp(width=8) + hard"
    for text in ("harrd", "hard + independent", "hard + digits", "mlp(width=0) + hard", "mlp(breadth=3)"):
        with pytest.raises(InputError):
            NetworkArm(text)


def test_what_the_text_gives_is_no_setting():
    arm = NetworkArm("mlp(width=6, dropout=0.25) + hard", 4, SHORT, 64)
    assert {s["dropout"] for s in arm.settings} == {0.25}
    (fitted,) = arm.fit(rows(), jobs(settings=1)[:1]).predictors
    assert fitted is not None
    assert fitted.parameters is not None
    assert fitted.parameters < 1000


LENET = "lenet(shape=[1, 2, 2], kernel=1, channels=[3], hidden=4)"


@pytest.mark.parametrize(
    ("trunk", "dropout"), [(LENET, [0.0, 0.3]), ("resnet(blocks=[1], width=2, shape=[4, 1, 1])", [0.0, 0.0])]
)
def test_a_trunk_for_images_reads_columns_as_they_are(trunk: str, dropout: list[float]):
    """No piecewise features and no indicators of gaps, which column 1 has."""
    arm = NetworkArm(f"{trunk} + hard", 6, SHORT)
    assert [(s["encoding"], s["dropout"]) for s in arm.settings] == [("plain", share) for share in dropout]
    arm.check(rows().tasks, 4)
    with pytest.raises(InputError, match=r"does not fit this table: .* = 4\. Got 5"):
        arm.check(rows().tasks, 5)
    for fitted in arm.fit(rows(), jobs()[:2]).predictors:
        assert fitted is not None
        assert all(p is not None and np.isfinite(p).all() for p in fitted.predict(rows().inputs))


def test_settings_name_dropout_only_where_a_trunk_has_it():
    lenet = NetworkArm("lenet(shape=[1, 2, 2], dropout=0.2)", 6).make(NetworkArm("hard").settings[5]).trunk
    assert vars(lenet)["dropout"] == 0.2
    assert vars(NetworkArm("lenet(shape=[1, 2, 2])").make({"dropout": 0.3}).trunk)["dropout"] == 0.3


def test_a_network_whose_loss_is_not_finite_is_named_and_the_others_go_on():
    wild = {"encoding": "standard", "rate": 1e30, "decay": 0.0, "dropout": 0.0}
    fits = NetworkArm("hard", (SETTINGS[3], wild), SHORT, 8).fit(rows(), jobs())
    assert [p is None for p in fits.predictors] == [False, True, False, True]
    assert {f["arm"] for f in fits.failed} == {"hard"}
    assert all(f["task"] in "abcd" and "NaN" in f["why"] for f in fits.failed)


def test_state_round_trip_and_mean():
    arm = NetworkArm("hard", 1, SHORT, 8)
    members = [p for p in arm.fit(rows(), jobs(settings=1)).predictors if isinstance(p, NetworkPredictor)]
    both = mean(members)
    again = from_state(both.state(), rows().tasks, arm.make(arm.settings[0]))
    single = [m.predict(rows().inputs) for m in members]
    for t, found in enumerate(again.predict(rows().inputs)):
        average = np.mean([np.asarray(one[t]) for one in single], 0)
        assert found == pytest.approx(average, rel=1e-5, abs=1e-5)


def test_together_keeps_one_epoch_for_all_tasks():
    (fitted,) = NetworkArm("hard", 1, SHORT, 8).fit(rows(), jobs()[:1], Surroundings(together=True)).predictors
    assert isinstance(fitted, NetworkPredictor)
    for tensor in fitted.parts[0].model.parameters():
        copies = tensor.unflatten(0, (len(rows().tasks), -1))
        assert torch.equal(copies[0], copies[1])


def test_a_run_that_goes_on_from_a_checkpoint_is_the_run_that_was_not_stopped(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    arm = NetworkArm("hard + uncertainty", 2, SHORT, 8)
    whole = predictions(arm, jobs())
    cut = Surroundings(Folder(tmp_path), deadline=time.monotonic())  # one epoch of each stack, then the time is up
    assert arm.fit(rows(), jobs(), cut).cut
    resumed = predictions(arm, jobs(), Surroundings(Folder(tmp_path)))
    for x, y in zip(whole, resumed, strict=True):
        assert all(np.array_equal(np.asarray(p), np.asarray(q)) for p, q in zip(x, y, strict=True))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_arms as t
t.checkpoints.SECONDS = 0.0
arm = t.NetworkArm("hard", 2, t.Length(epochs=120, updates=12, batch=8, patience=1.0), 8)
found = t.predictions(arm, t.jobs(), t.Surroundings(t.Folder(Path(sys.argv[1]))))
t.np.savez(sys.argv[1] + "/found.npz", *[p for one in found for p in one])
"""


def test_kill_9_loses_nothing_but_time(tmp_path: Path):
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    run = [sys.executable, "-c", script]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    subprocess.run([*run, str(tmp_path / "whole")], check=True, timeout=1200)
    process = subprocess.Popen([*run, str(tmp_path / "killed")])
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoint*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/found.npz").exists()
    subprocess.run([*run, str(tmp_path / "killed")], check=True, timeout=1200)
    with np.load(tmp_path / "whole/found.npz") as whole, np.load(tmp_path / "killed/found.npz") as again:
        assert whole.files == again.files
        assert all(np.array_equal(whole[name], again[name]) for name in whole.files)

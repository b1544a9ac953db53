"""Rendered faces, and the study of auxiliary tasks in little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kinfolk.balancing import TaskStopping
from kinfolk.runs import Folder
from kinfolk.studies.auxiliary_tasks import (
    ALONE,
    ARMS,
    BEST,
    ERROR,
    RELATED,
    SHUFFLED,
    STOPPED,
    STOPPING,
    AuxiliaryTasks,
)
from kinfolk.studies.base import Trial
from kinfolk.studies.faces import SIDE, Rendered, render
from kinfolk.studies.results import Result


def test_faces_depend_on_the_seed_alone() -> None:
    one, again, other = render(5, 0), render(5, 0), render(5, 1)
    assert one.pictures.shape == (5, 1, SIDE, SIDE)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.landmarks, other.landmarks)


def test_landmarks_are_where_a_face_has_them() -> None:
    faces = render(500, 0)
    eyes, nose, mouth = faces.landmarks[:, :2], faces.landmarks[:, 2], faces.landmarks[:, 3:]
    assert bool((eyes[:, 0, 0] < eyes[:, 1, 0]).all())
    assert bool((mouth[:, 0, 0] < mouth[:, 1, 0]).all())
    assert bool((eyes.mean(1)[:, 1] < nose[:, 1]).all())
    assert float((nose[:, 1] < mouth.mean(1)[:, 1]).mean()) > 0.99
    assert float((np.abs(faces.landmarks) < 0.5).mean()) > 0.99  # inside of the picture
    between = eyes.mean(1)
    grey = [_grey(faces.pictures, points).mean() for points in (eyes[:, 0], eyes[:, 1], between)]
    assert max(grey[:2]) < 0.8 * grey[2]  # eyes are dark


def _grey(pictures: np.ndarray, points: np.ndarray) -> np.ndarray:
    column, row = ((points + 0.5) * SIDE).astype(int).clip(0, SIDE - 1).T
    return pictures[np.arange(len(points)), 0, row, column]


def test_attributes_tell_something_of_landmarks() -> None:
    faces = render(2000, 0)
    of = dict(zip(Rendered.classes, faces.attributes.T, strict=True))
    assert [len(np.unique(codes)) for codes in of.values()] == list(Rendered.classes.values())
    left, right = faces.landmarks[:, 0, 0], faces.landmarks[:, 1, 0]
    off = faces.landmarks[:, 2, 0] - (left + right) / 2  # the nose, from between the eyes
    means = [off[of["pose"] == i].mean() for i in range(5)]
    assert means == sorted(means)
    wide = np.linalg.norm(faces.landmarks[:, 3] - faces.landmarks[:, 4], axis=1)
    assert wide[of["smile"] == 1].mean() > 1.1 * wide[of["smile"] == 0].mean()


def trial(arm: str) -> Trial:
    return Trial(arm, {"arm": arm, "seed": 0, "faces": 50, "epochs": 3})


def test_arms_differ_in_what_they_say() -> None:
    study = AuxiliaryTasks()
    trainings = {arm: study._training(trial(arm), 3) for arm in ARMS}
    assert [len(trainings[arm].tasks) for arm in ARMS] == [1, 6, 6, 6]
    assert isinstance(trainings[STOPPING].network.balancing, TaskStopping)
    related, shuffled = (trainings[arm].problem.targets for arm in (RELATED, SHUFFLED))
    assert torch.equal(related[0], shuffled[0])
    for mine, theirs in zip(related[1:], shuffled[1:], strict=True):
        assert torch.equal(mine.sort().values, theirs.sort().values)
        assert not torch.equal(mine, theirs)
    assert all(torch.equal(trainings[arm].problem.inputs, trainings[ALONE].problem.inputs) for arm in ARMS)


def test_the_quick_form(quick: Callable[[str], Result]) -> None:
    result = quick("auxiliary-tasks")
    errors = result.rows[result.rows["measure"].isin([ERROR, BEST])]
    assert set(errors["arm"]) == set(ARMS)
    assert bool(np.isfinite(errors["value"]).all())
    assert all(1 <= value <= 200 for value in errors["value"])
    told = {finding.what: finding for finding in result.findings}
    assert told[f"{RELATED} - {ALONE}, {ERROR}"].claim == "negative"
    assert told[f"{SHUFFLED} - {ALONE}, {ERROR}"].claim == ""


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="`faces` must be at least 50"):
        AuxiliaryTasks(faces=3)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"weight": 0}, "`weight` must be positive"),
        ({"k": 0}, "`k` must be at least 1"),
        ({"epochs": 1}, "`epochs` must be at least 2"),
        ({"rate": -0.1}, "`rate` must be positive"),
    ]
    for options, said in bad:
        with pytest.raises(ValueError, match=said):
            AuxiliaryTasks(**options)


def test_failed_networks_are_missing_values(quick: Callable[[str], Result], tmp_path: Path) -> None:
    study, whole = AuxiliaryTasks(rate=1e30), quick("auxiliary-tasks").rows
    (trial,) = [one for one in study.trials(1, quick=True) if one.arguments["arm"] == STOPPING]
    rows = pd.DataFrame(study.run(trial, Folder(tmp_path)))
    assert rows["measure"].tolist() == [ERROR, BEST, STOPPED]
    assert bool(rows["value"].isna().all())
    mixed: Any = pd.concat([rows, whole[(whole["arm"] != STOPPING) | (whole["seed"] != 0)]])
    told = {finding.what: finding.values for finding in study.findings(mixed)}
    assert len(told[f"{STOPPING} - {ALONE}, {ERROR}"]) == 1
    assert len(told[f"{RELATED} - {ALONE}, {ERROR}"]) == 2

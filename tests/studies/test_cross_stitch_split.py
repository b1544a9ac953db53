"""Where to split, in little and on made-up pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kinfolk import datasets
from kinfolk.datasets.base import Images
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.sharing import CrossStitch, Hard, Nddr
from kinfolk.studies import cross_stitch_split, running
from kinfolk.studies.base import Trial
from kinfolk.studies.cross_stitch_split import ARMS, ENSEMBLE, ONE, CrossStitchSplit, chosen, pictures
from kinfolk.studies.results import Result


def made_up(seed: int) -> Images:
    """Noise with a bright patch whose place is the class."""
    draws = np.random.default_rng(seed)
    labels, test_labels = draws.permutation(np.arange(8000) % 10), np.arange(1000) % 10

    def images(of: np.ndarray) -> np.ndarray:
        found = draws.integers(0, 60, (len(of), 28, 28), dtype=np.uint8)
        for image, k in zip(found, of, strict=True):
            image[5 * (k // 3) : 5 * (k // 3) + 6, 9 * (k % 3) : 9 * (k % 3) + 8] += 190
        return found

    return Images(images(labels), labels, images(test_labels), test_labels, tuple("0123456789"))


@pytest.fixture(scope="module", autouse=True)
def data() -> Iterator[tuple[Images, Images]]:
    both = made_up(0), made_up(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "mnist", lambda: both[0])
        patch.setattr(datasets, "fashion_mnist", lambda: both[1])
        yield both


@pytest.fixture(scope="module")
def result(data: tuple[Images, Images], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(CrossStitchSplit(), tmp_path_factory.mktemp("split") / "run", quick=True)


def test_pictures_show_both(data: tuple[Images, Images]) -> None:
    digits, garments = (one.inputs[:3] for one in data)
    blend, beside = (pictures(digits, garments, canvas) for canvas in ("blend", "beside"))
    assert blend.shape == (3, 1, 14, 14)
    assert beside.shape == (3, 1, 14, 28)
    first = digits[0, :2, :2].mean() / 255, garments[0, :2, :2].mean() / 255
    assert blend[0, 0, 0, 0] == pytest.approx(sum(first) / 2)
    assert (beside[0, 0, 0, 0], beside[0, 0, 0, 14]) == pytest.approx(first)


def test_classes_have_as_many_rows_as_asked() -> None:
    labels = np.arange(1000) % 10
    rows = chosen(labels, np.arange(10), np.random.default_rng(0))
    assert np.bincount(labels[rows], minlength=10).tolist() == list(range(10))
    assert len(set(rows.tolist())) == len(rows)


@pytest.mark.parametrize("starved", [0, 1])
def test_one_task_is_starved_in_half_of_its_classes(starved: int) -> None:
    study = CrossStitchSplit(starved=("digit", "garment")[starved], few=20, many=400)
    given = study._train_rows(0, False)
    assert len(given.labels) == 5 * 420 + cross_stitch_split.STOP
    train = given.labels[: -cross_stitch_split.STOP]
    counts = np.bincount(train[:, starved], minlength=10)
    assert counts[1::2].mean() == pytest.approx(20, abs=3)
    assert counts[::2].mean() == pytest.approx(400, abs=3)
    assert np.bincount(train[:, 1 - starved], minlength=10).min() > 150
    assert not np.array_equal(study._train_rows(1, False).inputs, given.inputs)


def test_every_arm_has_its_network_and_as_many_updates() -> None:
    study, kinds = CrossStitchSplit(updates=40), {}
    for arm in ARMS:
        training = study._training(Trial(arm, {"arm": arm, "seeds": 1, "quick": True}), 40)
        assert training.last == 40, arm
        kinds[arm] = training.network.model
        assert training.replicas == 1 + (arm == ONE)
    shared: list[Any] = [kinds[arm] for arm in (ONE, *cross_stitch_split.SPLITS, cross_stitch_split.SHARED)]
    assert all(isinstance(model, Hard) for model in shared)
    assert [len(model.trunk) for model in shared] == [0, 1, 2, 3, 4]
    assert isinstance(kinds[cross_stitch_split.STITCH], CrossStitch)
    assert isinstance(kinds[cross_stitch_split.NDDR], Nddr)
    sizes = {arm: sum(p.numel() for p in model.parameters()) for arm, model in kinds.items()}
    sizes[ONE] //= 2  # there are two, for the ensemble
    assert sizes[cross_stitch_split.STITCH] == sizes[ONE] + 4 * 4
    assert sizes[cross_stitch_split.WIDE] == pytest.approx(sizes[ONE], rel=0.1)


def test_all_is_measured_and_told(result: Result) -> None:
    rows = result.rows
    assert set(rows["arm"]) == {*ARMS, ENSEMBLE}
    assert bool(rows["value"].between(0, 100).all())
    assert len(rows) == 2 * 4 * (len(ARMS) + 1)
    told = {finding.what: finding for finding in result.findings}
    rare = told["cross-stitch against one-task, rare classes"]
    table = rows[rows["measure"] == "rare classes"].pivot(index="seed", columns="arm", values="value")
    assert rare.values == pytest.approx(tuple(table["cross-stitch"] - table["one-task"]))
    assert rare.claim == "negative"
    assert sum(finding.claim != "" for finding in result.findings) == 10


def test_errors_are_told_apart_by_the_starved_task() -> None:
    labels = np.array([[0, 1], [0, 3], [0, 2], [0, 4]])
    right = torch.eye(10)
    shares = [right[torch.zeros(4, dtype=torch.int64)], right[torch.tensor([1, 0, 2, 4])]]
    found = CrossStitchSplit()._errors(shares, labels)
    assert found == {"digit": 0.0, "garment": 25.0, "rare classes": 50.0, "frequent classes": 0.0}


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"`canvas` must be 'blend' or 'beside'\. Got 'above'"):
        CrossStitchSplit(canvas="above")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"few": 0}, "`few` must be at least 1"),
        ({"updates": 1}, "`updates` must be at least 2"),
        ({"factor": -1}, "`factor` must be at least 0"),
        ({"rate": 0}, "`rate` must be positive"),
    ]
    for options, said in bad:
        with pytest.raises(ValueError, match=said):
            CrossStitchSplit(**options)


def test_more_rows_than_a_class_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"ask for 85. images of class 0, .* there are 800 to train"):
        CrossStitchSplit(many=800)._train_rows(0, False)


def test_failed_networks_are_missing_values(result: Result, tmp_path: Path) -> None:
    study = CrossStitchSplit(rate=1e30)
    trials = [trial for trial in study.trials(2, quick=True) if trial.name in (ONE, cross_stitch_split.STITCH)]
    rows = pd.DataFrame([row for trial in trials for row in study.run(trial, Folder(tmp_path))])
    assert len(rows) == 2 * 4 * 3
    assert bool(rows["value"].isna().all())
    mixed: Any = pd.concat([rows, result.rows[~result.rows["arm"].isin(rows["arm"])]])
    told = {finding.what: finding for finding in study.findings(mixed)}
    assert told["cross-stitch against one-task, rare classes"].values == ()
    assert len(told["all shared, error, digit"].values) == 2
    assert study.figure(mixed).axes

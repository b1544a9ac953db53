"""Half a digit from the other, in little and on made-up digits."""

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
from kinfolk.sharing.base import reach
from kinfolk.studies import evolving_structured, running
from kinfolk.studies.base import of_each
from kinfolk.studies.evolving_structured import ARMS, PADDED, SUPERVISED, EvolvingStructured
from kinfolk.studies.halves import PIXELS, halves
from kinfolk.studies.results import Result


@pytest.fixture(scope="module", autouse=True)
def digits() -> Iterator[Images]:
    """Images whose right half is the left one, mirrored."""
    draws = np.random.default_rng(0)
    left = draws.integers(0, 256, (160, 28, 14), dtype=np.uint8)
    both = np.concatenate([left, left[:, :, ::-1]], 2)
    images = Images(both[:120], np.zeros(120, np.int64), both[120:], np.zeros(40, np.int64), tuple("0123456789"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "mnist", lambda: images)
        evolving_structured.pool.cache_clear()
        yield images
    evolving_structured.pool.cache_clear()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(EvolvingStructured(), tmp_path_factory.mktemp("structured") / "run", quick=True, processes=1)


def trial_of(arm: str) -> dict[str, Any]:
    (trial,) = [t for t in EvolvingStructured().trials(2, quick=True) if t.arguments["arm"] == arm]
    return dict(trial.arguments)


def test_all_is_measured_and_told(result: Result) -> None:
    rows: Any = result.rows
    assert set(rows["arm"]) == set(ARMS)
    assert bool(np.isfinite(rows["value"]).all())
    claims = {finding.what: finding.claim for finding in result.findings}
    assert claims[f"+ inputs - {PADDED}"] == claims[f"+ inputs + outputs - {PADDED}"] == "negative"
    assert claims[f"{SUPERVISED} - {PADDED}"] == ""


def test_halves_are_known_apart(digits: Images) -> None:
    one = trial_of(PADDED)
    problem = EvolvingStructured()._problem(one)
    assert problem.observed.sum(0).tolist() == [40, 120, 120]
    left, right = problem.inputs[:, :PIXELS].any(1), problem.inputs[:, PIXELS:].any(1)
    assert torch.equal(problem.observed, torch.stack([left & right, left, right], 1))
    torch.testing.assert_close(problem.targets[0][:20], problem.inputs[:20, PIXELS:])
    assert halves(digits.inputs[:3])[:, :14].mul(255).round().tolist() == digits.inputs[:3, 0, :14].tolist()


def test_who_trains_what() -> None:
    study, one = EvolvingStructured(), trial_of("+ inputs + outputs")
    training = study._training(study._problem(one), one, 10)
    served = reach(training.network.model, training.problem.inputs[:4].expand(2, 4, -1))
    tasks = {name: found[0].tolist() for name, found in served.items()}
    assert tasks["inner.whole.trunk.0.0.weight"] == [True, True, False]
    assert tasks["inner.whole.heads.layers.0.weight"] == [True, False, True]
    assert tasks["auxiliary.0.reconstruction.decoders.0.weight"] == [False, True, False]
    assert tasks["auxiliary.1.encoder.weight"] == [False, False, True]


def test_arms_see_the_same_batches_from_the_same_weights() -> None:
    study, begun = EvolvingStructured(), []
    for arm in ARMS:
        one = trial_of(arm)
        training = study._training(study._problem(one), one, 10)
        names = dict(training.network.model.named_parameters())
        weight = names["inner.whole.trunk.0.0.weight"].detach().clone()
        begun.append((arm, training.network.rows(), weight, training.schedule.every))
    for arm, rows, weight, every in begun:
        assert torch.equal(weight, begun[0][2])
        if arm != SUPERVISED:
            assert torch.equal(rows, begun[1][1])
            assert every == 5


@pytest.mark.parametrize("schedule", ["exponential", "windows"])
def test_the_weights_of_reconstruction_fall(schedule: str) -> None:
    study = EvolvingStructured(schedule=schedule, epochs=100)
    one = trial_of("+ inputs + outputs") | {"epochs": 100}
    balancing = study._training(study._problem(one), one, 100).network.balancing
    factors = []
    for epoch in (0, 10, 30, 50, 70, 99):
        balancing.at_epoch(epoch, None, None)
        factors.append(balancing.get_buffer("factor")[:3].tolist())
    if schedule == "windows":
        expected = [[1, 1, 1], [1, 1, 1], [1, 0.5, 2 / 3], [1, 0, 1 / 3], [1, 0, 0], [1, 0, 0]]
        np.testing.assert_allclose(factors, expected, atol=1e-6)
    else:
        np.testing.assert_allclose(np.sum(factors, 1), 1, rtol=1e-6)
        assert factors[0] == [0, 0.5, 0.5]
        assert factors[-1][1] < 0.05


def test_refuses() -> None:
    with pytest.raises(ValueError, match="`schedule` must be exponential or windows"):
        EvolvingStructured(schedule="stairs")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"pairs": 3}, "`pairs` must be at least 10"),
        ({"others": 30_000}, "`pairs` and twice `others` must be at most 60000 images together.* Got 60500"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"rate": 0.0}, "`rate` must be positive"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\)"),
        ({"corruption_of_outputs": 1.5}, r"`corruption_of_outputs` must be in \[0, 1\)"),
        ({"corruption": []}, "`corruption` must be in"),
        ({"corruption": [1.5]}, "`corruption` must be in"),
        ({"width": []}, "`width` and `depth` must be at least 1"),
        ({"init": "normal"}, "`init` must be one of"),
        ({"sigma": 0.0}, "`sigma` must be positive"),
    ]
    for options, said in bad:
        with pytest.raises(ValueError, match=said):
            EvolvingStructured(**options)


def test_more_rows_than_there_are_images_are_refused(digits: Images) -> None:
    one = trial_of(PADDED) | {"pairs": 41}
    with pytest.raises(InputError, match=f"must be at most {len(digits.inputs)} images together.* Got 121"):
        EvolvingStructured()._problem(one)


@pytest.mark.parametrize(("width", "shares"), [([8], [0.2]), ([8, 6, 4], [0.2, 0.01, 0.01])])
def test_networks_of_any_depth_are_trained(width: list[int], shares: list[float]) -> None:
    study, one = EvolvingStructured(width=width), trial_of("+ inputs")
    masks = study._training(study._problem(one), one, 10).network.model.get_submodule(
        "auxiliary.0.reconstruction.masks"
    )
    assert [mask.share for mask in masks.children()] == shares


def test_a_quick_form_has_as_many_seeds_as_asked() -> None:
    assert all(trial.arguments["seeds"] == [0, 1, 2] for trial in EvolvingStructured().trials(3, quick=True))


def test_networks_that_are_left_keep_their_place() -> None:
    study, one = EvolvingStructured(), trial_of(PADDED)
    training = study._training(study._problem(one), one, 10)
    assert of_each(training, lambda: ["a", "b"], "failed") == ["a", "b"]
    training.keep(torch.tensor([False, True]))
    assert of_each(training, lambda: ["b"], "failed") == ["failed", "b"]
    training.keep(torch.tensor([False]))
    assert of_each(training, list[str], "failed") == ["failed", "failed"]


def test_failed_networks_are_missing_values(tmp_path: Path) -> None:
    study = EvolvingStructured(rate=1e30)
    rows = [row for trial in study.trials(2, quick=True) for row in study.run(trial, Folder(tmp_path))]
    assert [(row["seed"], np.isnan(row["value"])) for row in rows] == [(0, True), (1, True)] * len(ARMS)
    assert all(not finding.values for finding in study.findings(pd.DataFrame(rows)))

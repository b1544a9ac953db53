"""Learned weights against a grid: the tasks, the errors, the choice on validation rows, the quick form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kinfolk.balancing.fixed import Fixed
from kinfolk.balancing.uncertainty import Uncertainty
from kinfolk.runs import Folder
from kinfolk.sharing.hard import Hard
from kinfolk.studies.results import Result
from kinfolk.studies.uncertainty import GRID, LEARNED, SINGLE, STARTS, UncertaintyWeights
from kinfolk.studies.weightings import Errors, places, problem, relative
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks.mlp import Mlp


def test_tasks_have_their_scales_and_noise() -> None:
    made = problem(3, 2, 4000, 20.0, 0.1)
    far, near, classes = (target[:4000] for target in made.targets)
    assert float(far.std()) == pytest.approx(20 * np.hypot(1, 0.5), rel=0.05)
    assert float(near.std()) == pytest.approx(0.1 * np.hypot(1, 0.2), rel=0.05)
    assert set(classes.tolist()) == {0, 1, 2, 3, 4}
    assert made.complete
    assert not torch.equal(made.inputs[:4000], made.inputs[4000:])


def test_two_tasks_are_two_of_the_three() -> None:
    two, three = problem(2, 1, 50, 20.0, 0.1), problem(3, 1, 50, 20.0, 0.1)
    assert torch.equal(two.targets[0], three.targets[0])
    assert torch.equal(two.targets[1], three.targets[2])


def test_the_rows_of_seeds_do_not_meet() -> None:
    parts = [part for seed in range(3) for part in places(seed, [5, 3, 2])]
    assert torch.cat(parts).tolist() == list(range(30))


@torch.no_grad()
def test_a_constant_prediction_has_an_error_of_100_percent() -> None:
    made = problem(2, 1, 600, 20.0, 0.1)
    rows = torch.arange(600)
    training = Training(
        made,
        lambda: Parts(Mlp(4, 1), Hard(), Fixed()),
        [Replica(rows, rows, (0, 1), 0, 0.1, 0.0)],
        Schedule(1, 1, 9, 9, 0),
    )
    counts = torch.bincount(made.targets[1].long()).float()
    for name, tensor in training.network.model.named_parameters():
        tensor.zero_()
        if name.endswith("bias") and tensor.shape[-1] == 1:
            tensor.fill_(float(made.targets[0].mean()))
        if name.endswith("bias") and tensor.shape[-1] == 5:
            tensor.copy_((counts / counts.sum()).log().view_as(tensor))
    found = relative(training, rows[None], rows[None], (0, 1))
    torch.testing.assert_close(found, torch.full((1, 2), 100.0))


def frame(values: dict[tuple[int, float], tuple[float, float]]) -> pd.DataFrame:
    """Rows of a grid of one seed: errors on validation and test rows, by point and rate, alike for both tasks."""
    rows: list[dict[str, Any]] = []
    for (point, rate), both in values.items():
        for measure, value in zip(("validation", "test"), both, strict=True):
            for task in ("far", "class"):
                told = {"tasks": 2, "arm": GRID, "point": point, "rate": rate, "speed": 1.0, "seed": 0, "task": task}
                rows.append({**told, "measure": measure, "value": value, "log10 weight of far": -1.0 * point})
    return pd.DataFrame(rows)


def test_rates_and_points_are_chosen_on_validation_rows() -> None:
    errors = Errors(frame({(0, 0.1): (5, 9), (0, 0.2): (6, 1), (1, 0.1): (np.nan, np.nan), (1, 0.2): (4, 8)}), 2)
    assert errors.of(GRID)[:, 0].tolist() == [[9, 9], [8, 8]]
    assert errors.chosen(GRID).tolist() == [[8, 8]]
    assert errors.grid(GRID) == [(0.0,), (-1.0,)]


def test_a_grid_of_weights_is_one_stack() -> None:
    study = UncertaintyWeights()
    trial = study.trials(2, True)[0]
    training = study._training(trial.arguments, (0, 1))
    assert training.replicas == 8, "two seeds, two points, two rates"
    factor = training.network.get_buffer("balancing.factor").view(8, 2)
    torch.testing.assert_close(factor.sum(1), torch.ones(8))
    torch.testing.assert_close((factor[:, 0] / factor[:, 1]).log10()[:4], torch.tensor([-2.0, 0, -2, 0]))
    first = training.network.model.get_parameter("heads.layers.0.weight")
    assert torch.equal(first[0], first[1]), "a seed starts all weightings from the same weights"
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize(("arm", "start"), [(LEARNED, 0.0), *STARTS.items()])
def test_log_variances_start_where_the_arm_says(arm: str, start: float) -> None:
    study = UncertaintyWeights(speeds=[2])
    (trial,) = [t for t in study.trials(2, True) if t.name == f"3 tasks, {arm}, speed 2"]
    balancing = study._training(trial.arguments, (0, 1, 2)).network.balancing
    assert isinstance(balancing, Uncertainty)
    assert balancing.rates() == {"log_variance": 2.0}
    assert set(balancing.log_variance.tolist()) == {start}


def test_failed_networks_are_missing_values(tmp_path: Any) -> None:
    study = UncertaintyWeights(far=1e20)
    (trial,) = [t for t in study.trials(2, True) if t.name == "2 tasks, grid"]
    rows: Any = pd.DataFrame(study.run(trial, Folder(tmp_path)))
    assert len(rows) == 8 * 2 * 3
    assert rows["value"].isna().all()


def test_refuses() -> None:
    with pytest.raises(ValueError, match="`optimizer` must be one of sgd, adam"):
        UncertaintyWeights(optimizer="rmsprop")
    with pytest.raises(ValueError, match="must be positive"):
        UncertaintyWeights(speeds=[1, 0])
    with pytest.raises(ValueError, match="`speeds` must have one at least"):
        UncertaintyWeights(speeds=[])
    with pytest.raises(ValueError, match="`updates` must be at least 1"):
        UncertaintyWeights(updates=0)


def test_a_speed_that_is_given_twice_counts_once() -> None:
    assert UncertaintyWeights(speeds=[10, 1, 10.0]).speeds == (10.0, 1.0)


def test_quick(quick: Callable[[str], Result]) -> None:
    result = quick("uncertainty")
    rows: Any = result.rows
    assert rows.groupby(["tasks", "arm", "point", "seed"])["value"].count().min() > 0, "a rate that fails is one of two"
    assert set(rows["seed"]) == {0, 1}
    assert set(rows[rows["arm"] == SINGLE]["task"]) == {"far", "near", "class"}
    weights = rows[(rows["measure"] == "weight") & (rows["arm"] == SINGLE)]
    assert (weights["value"].dropna() == 1).all(), "a task alone has nothing to balance"
    assert len(result.findings) == 2 * 7 + 4 * (2 + 3)
    assert all(len(finding.values) == 2 for finding in result.findings)

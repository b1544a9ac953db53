"""GradNorm's toy: the tasks as the paper writes them, and what holds in the quick form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kinfolk.studies.gradnorm_toy import COLOURS, GRADNORM, GradnormToy
from kinfolk.studies.results import Result


def test_tasks_are_one_function_on_scales() -> None:
    toy = GradnormToy().toy(2, 50, 3)
    assert toy.inputs.shape == (50, 250)
    assert toy.targets.shape == (2, 50, 100)
    np.testing.assert_allclose(np.linalg.norm(toy.inputs, axis=1), 1, rtol=1e-5)
    assert toy.scales.tolist() == [1, 100]
    one, hundred = toy.targets[0], toy.targets[1] / 100
    assert np.abs(one).max() <= 1
    assert np.abs(hundred).max() <= 1
    # Maps with entries B + e, B of deviation 10 and e of 3.5: the tasks agree about most signs, not about all.
    assert 0.8 < (np.sign(one) == np.sign(hundred)).mean() < 0.98


def test_two_seeds_have_two_functions() -> None:
    first, second = (GradnormToy().toy(10, 20, seed) for seed in (0, 1))
    assert len(set(first.scales.tolist())) == 10
    assert not np.array_equal(first.scales, second.scales)
    np.testing.assert_array_equal(first.targets, GradnormToy().toy(10, 20, 0).targets)


@pytest.mark.parametrize(("inputs", "share"), [("unit", (0.0, 0.2)), ("cube", (0.8, 1.0))])
def test_inputs_that_are_not_scaled_saturate_the_targets(inputs: str, share: tuple[float, float]) -> None:
    toy = GradnormToy(inputs=inputs, spread="variance").toy(2, 200, 0)
    low, high = share
    assert low <= (np.abs(toy.targets[0]) > 0.9999).mean() <= high


def test_logarithmic_scales() -> None:
    np.testing.assert_allclose(GradnormToy(scales="logarithmic").toy(10, 5, 0).scales, np.geomspace(1, 100, 10))


def test_refuses() -> None:
    with pytest.raises(ValueError, match="`spread` must be one of deviation, variance"):
        GradnormToy(spread="range")
    with pytest.raises(ValueError, match="`alpha` must be at least 0"):
        GradnormToy(alpha=-1)
    with pytest.raises(ValueError, match="`weight_rate` must be positive"):
        GradnormToy(weight_rate=0)
    with pytest.raises(ValueError, match=r"`updates` must be at least 4\. Got 3"):
        GradnormToy(updates=3)


def test_quick(quick: Callable[[str], Result]) -> None:
    result = quick("gradnorm_toy")
    rows: Any = result.rows
    assert set(rows["arm"]) == set(COLOURS)
    assert set(rows["seed"]) == {0, 1}
    assert rows["value"].notna().all()
    before = rows[(rows["update"] == 0) & (rows["measure"] == "normalised loss")]
    assert (before["value"] == before["tasks"]).all(), "before training each loss is itself"
    weights = rows[(rows["measure"] == "weight") & (rows["arm"] == GRADNORM)]
    sums = weights.groupby(["tasks", "seed", "update"])["value"].sum()
    np.testing.assert_allclose(sums, sums.index.get_level_values("tasks"), rtol=1e-4)
    last = weights[(weights["update"] == weights["update"].max()) & (weights["tasks"] == 2)]
    assert (last[last["scale"] == 1]["value"].to_numpy() > last[last["scale"] == 100]["value"].to_numpy()).all()
    parts = rows[(rows["measure"] == "normalised loss of a task") & (rows["arm"] == GRADNORM)]
    whole = rows[(rows["measure"] == "normalised loss") & (rows["arm"] == GRADNORM) & (rows["update"] > 0)]
    keys = ["tasks", "seed", "update"]
    np.testing.assert_allclose(parts.groupby(keys)["value"].sum(), whole.groupby(keys)["value"].sum(), rtol=1e-5)
    assert len(result.findings) == 18
    assert all(np.isfinite(finding.values).all() and len(finding.values) == 2 for finding in result.findings)

"""Statistics: golden numbers, agreement of interval and p-value, and honest error rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from kinfolk.data.errors import error
from kinfolk.data.tasks import Task
from kinfolk.evidence.intervals import CorrectedT, Evidence, Judged, Percentile, bootstrap, holm, interval_levels

DIFFERENCE = st.floats(-1, 1, allow_nan=False).map(lambda d: round(d, 4))
SEVERAL = st.lists(DIFFERENCE, min_size=2, max_size=20)


def test_golden_number_by_hand():
    # mean 2, s^2 = 2.5, variance (1/5 + 1/4) * 2.5 = 1.125, t = 2 / 1.0607 = 1.8856 on 4 degrees of freedom
    test = CorrectedT((0.0, 1.0, 2.0, 3.0, 4.0), 0.25)
    assert test.standard_error == pytest.approx(math.sqrt(1.125))
    assert test.p_value == pytest.approx(0.1324, abs=5e-5)
    low, high = test.interval(0.05)
    assert (low, high) == pytest.approx((2 - 2.7764 * 1.06066, 2 + 2.7764 * 1.06066), abs=1e-3)


@given(SEVERAL)
def test_without_overlap_it_is_the_t_test(differences):
    assume(np.std(differences) > 1e-6)
    theirs: Any = stats.ttest_1samp(differences, 0)
    ours = CorrectedT(tuple(differences), 0.0)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-9)
    assert ours.interval(0.1) == pytest.approx(tuple(theirs.confidence_interval(0.9)), abs=1e-9)


@given(SEVERAL, st.floats(0.01, 1), st.floats(0.001, 0.5))
def test_the_interval_excludes_zero_where_p_is_small(differences, ratio, alpha):
    test = CorrectedT(tuple(differences), ratio)
    low, high = test.interval(alpha)
    assume(min(abs(low), abs(high)) > 1e-9 or test.standard_error == 0)
    assert (low > 0 or high < 0) == (test.p_value <= alpha)
    assert low <= test.mean <= high


@given(SEVERAL, st.floats(0.01, 1))
def test_signs_mirror_and_overlap_widens(differences, ratio):
    test, mirrored = CorrectedT(tuple(differences), ratio), CorrectedT(tuple(-d for d in differences), ratio)
    low, high = test.interval(0.05)
    assert mirrored.interval(0.05) == pytest.approx((-high, -low))
    assert test.p_value == pytest.approx(mirrored.p_value)
    assert test.p_value >= CorrectedT(tuple(differences), 0.0).p_value - 1e-12


def test_no_variance_and_too_few_splits():
    nothing = CorrectedT((0.0, 0.0, 0.0), 0.25)
    assert (nothing.p_value, nothing.interval(0.05)) == (1.0, (0.0, 0.0))
    few, many = CorrectedT((0.1,) * 3, 0.25), CorrectedT((0.1,) * 15, 0.25)
    assert few.p_value == 0.25
    assert few.interval(0.05) == (0.0, pytest.approx(0.2))
    assert many.p_value == 2.0**-14
    assert many.interval(0.05) == (pytest.approx(0.1), pytest.approx(0.1))
    for short in (CorrectedT((), 0.25), CorrectedT((0.3,), 0.25)):
        assert math.isnan(short.p_value)
        assert all(math.isnan(end) for end in short.interval(0.05))
        assert isinstance(short, Evidence)


def test_holm_golden_numbers():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") = 0.04 0.06 0.06 0.06
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.04]), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.4, 0.001, 0.4]), [0.8, 0.003, 0.8])
    np.testing.assert_allclose(holm([0.0, 0.0, 1.0, math.nan]), [0, 0, 1, math.nan])
    assert holm([]).shape == (0,)


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 1.0, math.nan])), max_size=12))
def test_adjusted_levels_say_what_holm_says(p_values):
    adjusted = holm(p_values)
    alphas = interval_levels(p_values, adjusted, 0.05)
    for p, adj, alpha in zip(p_values, adjusted, alphas, strict=True):
        if math.isnan(p):
            assert math.isnan(adj)
            continue
        assert p <= adj <= 1
        assert 0.05 / len(p_values) * (1 - 1e-12) <= alpha <= 0.05 * (1 + 1e-12)
        if abs(adj - 0.05) > 1e-9:
            assert (p <= alpha) == (adj <= 0.05)


@settings(max_examples=60)
@given(st.integers(0, 500), st.sampled_from([19, 199, 999, 2000]), st.floats(0.0005, 0.5), st.floats(-3, 3))
def test_percentile_interval_and_p_agree(seed, size, alpha, shift):
    draws = np.random.default_rng(seed).normal(shift, 1, size)
    test = Percentile(shift, tuple(draws))
    low, high = test.interval(alpha)
    assert (low > 0 or high < 0) == (test.p_value <= alpha)
    assert 0 < test.p_value <= 1
    assert isinstance(test, Evidence)


def test_percentile_of_no_difference_and_of_nothing():
    assert Percentile(0.0, (0.0,) * 99).p_value == 1.0
    assert Percentile(0.0, (0.0,) * 99).interval(0.05) == (0.0, 0.0)
    assert math.isnan(Percentile(math.nan, ()).p_value)
    assert all(math.isnan(end) for end in Percentile(0.1, ()).interval(0.05))


def judged(task: Task, rows: int = 80, seed: int = 0, better: float = 0.0) -> Judged:
    rng = np.random.default_rng(seed)
    if task.kind == "regression":
        target = rng.normal(size=rows)
        arms = tuple((target + rng.normal(0, s, rows))[:, None] for s in (1.0, 1.0 - better))
    else:
        target = (np.arange(rows) % 10 == 0).astype(float)
        arms = tuple(1 / (1 + np.exp(-rng.normal(target, 1, rows)[:, None])) for _ in range(2))
    return Judged(task, np.arange(rows), target, np.ones(rows), 0.0, arms)


def test_bootstrap_of_a_mean_has_its_standard_error():
    one = judged(Task("t", "regression", error="mae"), rows=400)
    whole, draws = bootstrap([one], np.zeros(400, np.intp), 2000)
    loss = np.abs(one.target - one.predictions[0][:, 0])
    assert whole[0, 0] == pytest.approx(loss.mean())
    assert draws.shape == (2000, 1, 2)
    assert draws[:, 0, 0].std() == pytest.approx(loss.std() / 20, rel=0.1)
    paired = loss - np.abs(one.target - one.predictions[1][:, 0])
    assert (draws[:, 0, 0] - draws[:, 0, 1]).std() == pytest.approx(paired.std() / 20, rel=0.1)


def test_strata_keep_both_classes_and_units_stay_together():
    task = Task("t", "binary", ("no", "yes"))
    one = judged(task, rows=30)
    _, draws = bootstrap([one], one.target.astype(np.intp), 500)
    assert np.isfinite(draws).all()
    rare = Judged(task, np.arange(30), (np.arange(30) == 0).astype(np.float64), np.ones(30), None, one.predictions)
    _, loose = bootstrap([rare], np.zeros(30, np.intp), 500)
    assert np.isnan(loose[:, 0, 0]).mean() == pytest.approx(math.exp(-1), abs=0.1)  # the one row was not drawn
    group = np.arange(30) // 10  # three groups: a draw of all of one group is possible, of a part is not
    pairs = Judged(
        Task("t", "regression", error="mae"), group, group.astype(np.float64), np.ones(30), None, (np.zeros((30, 1)),)
    )
    _, whole = bootstrap([pairs], np.zeros(3, np.intp), 300)
    assert set(np.round(whole[:, 0, 0] * 3).astype(int)) == set(range(7))
    np.testing.assert_allclose(whole * 3, np.round(whole * 3), atol=1e-9)


def test_bootstrap_is_seeded_and_takes_weights_and_chunks(monkeypatch):
    one = judged(Task("t", "regression"), rows=50)
    weighted = Judged(one.task, one.unit, one.target, np.arange(50.0), 0.3, one.predictions)
    strata = np.zeros(50, np.intp)
    whole, draws = bootstrap([weighted], strata, 40, seed=1)
    assert whole[0, 1] == pytest.approx(error(one.task, one.target, one.predictions[1], np.arange(50.0), 0.3))
    np.testing.assert_array_equal(draws, bootstrap([weighted], strata, 40, seed=1)[1])
    assert not np.array_equal(draws, bootstrap([weighted], strata, 40, seed=2)[1])
    monkeypatch.setattr("kinfolk.evidence.intervals.CHUNK", 350)
    np.testing.assert_allclose(draws, bootstrap([weighted], strata, 40, seed=1)[1], rtol=1e-12)


def test_false_alarms_are_as_rare_as_promised():
    """Two arms that are equally good: 5 % of bootstraps may call the difference clear (binomial, 200 trials)."""
    clear = 0
    for seed in range(200):
        one = judged(Task("t", "regression", error="mse"), rows=60, seed=seed)
        whole, draws = bootstrap([one], np.zeros(60, np.intp), 200, seed)
        test = Percentile(float(whole[0, 0] - whole[0, 1]), tuple(draws[:, 0, 0] - draws[:, 0, 1]))
        clear += test.p_value <= 0.05
    assert clear <= stats.binom.ppf(0.999, 200, 0.07)

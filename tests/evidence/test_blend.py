"""The blend: what it chooses, that it is at least as good as the best candidate, and that it can be read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from kinfolk.data.errors import error
from kinfolk.data.tasks import Task
from kinfolk.evidence.blend import LogLoss, blend, greedy, mix, objective, prune

REGRESSION = Task("t", "regression", error="mse")
BINARY = Task("t", "binary", ("no", "yes"))
MULTI = Task("t", "multiclass", ("a", "b", "c"))


def problem(task: Task, rows: int = 120, candidates: int = 6, seed: int = 0):
    """A target and candidates that are the truth with more and more noise."""
    rng = np.random.default_rng(seed)
    if task.kind == "regression":
        target = rng.normal(5, 2, rows)
        made = {f"c{i}": (target + rng.normal(0, 0.5 + 0.2 * i, rows))[:, None] for i in range(candidates)}
        return target, made
    target = rng.integers(0, len(task.classes), rows).astype(float)
    made = {}
    for i in range(candidates):
        odds = rng.normal(size=(rows, len(task.classes)))
        odds[np.arange(rows), target.astype(int)] += 2 - 0.2 * i
        p = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
        made[f"c{i}"] = p[:, 1:] if task.kind == "binary" else p
    return target, made


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([REGRESSION, BINARY, MULTI]), st.integers(0, 1000), st.integers(1, 9), st.integers(3, 60))
def test_weights_are_a_small_mean(task, seed, candidates, rows):
    target, made = problem(task, rows, candidates, seed)
    weights = blend(task, target, made, most=4)
    assert math.isclose(sum(weights.values()), 1)
    assert all(w > 0 and w == round(w, 3) for w in weights.values())
    assert list(weights.values()) == sorted(weights.values(), reverse=True)
    assert 1 <= len(weights) <= min(4, candidates)
    assert set(weights) <= set(made)


@pytest.mark.parametrize("task", [REGRESSION, BINARY, MULTI], ids=lambda task: task.kind)
def test_one_selection_is_at_least_as_good_as_the_best_candidate(task):
    target, made = problem(task)
    goal = objective(
        Task("t", task.kind, task.classes, error="mse" if task.kind == "regression" else "log_loss"),
        target,
        list(made.values()),
        np.ones(len(target)),
    )
    alone = goal.added(np.zeros(len(made)))
    counts = greedy(goal, len(made), 30, 1)
    assert goal.at(counts / counts.sum()) < alone.min()


def test_the_mean_of_two_opposite_errors_is_found():
    target = np.linspace(0, 1, 20)
    made = {"bad": (target * 0)[:, None], "low": (target - 0.3)[:, None], "high": (target + 0.1)[:, None]}
    weights = blend(REGRESSION, target, made, bags=0)
    assert weights == {"high": 0.75, "low": 0.25}
    np.testing.assert_allclose(mix(weights, made)[:, 0], target, atol=1e-12)


def test_many_rounds_approach_the_convex_least_squares_solution():
    target, made = problem(REGRESSION, rows=300)
    matrix = np.concatenate(list(made.values()), axis=1)
    heavy = 1e4 * np.ones((1, matrix.shape[1]))  # makes the weights sum to 1
    exact, _ = nnls(np.vstack([matrix, heavy]), np.r_[target, 1e4])
    weights = blend(REGRESSION, target, made, bags=0, rounds=400)
    np.testing.assert_allclose([weights.get(name, 0) for name in made], exact, atol=0.01)


@pytest.mark.parametrize(
    ("task", "by"),
    [(REGRESSION, "mse"), (BINARY, "log_loss"), (BINARY, "brier"), (MULTI, "log_loss")],
)
def test_fast_forms_equal_the_error_itself(task, by):
    target, made = problem(task, rows=50)
    weight = np.random.default_rng(1).uniform(0.2, 3, 50)
    named = Task("t", task.kind, task.classes, error=by)
    goal = objective(named, target, list(made.values()), weight)
    counts = np.array([2.0, 0, 1, 0, 0, 0])
    expected = [error(named, target, (2 * made["c0"] + made["c2"] + extra) / 4, weight) for extra in made.values()]
    np.testing.assert_allclose(goal.added(counts), expected, rtol=1e-9)
    assert goal.at(counts / 3) == pytest.approx(error(named, target, (2 * made["c0"] + made["c2"]) / 3, weight))


def test_chunks_do_not_change_the_log_loss(monkeypatch):
    target, made = problem(MULTI)
    happened = np.stack([p[np.arange(len(target)), target.astype(int)] for p in made.values()])
    goal = LogLoss(happened, np.full(len(target), 1 / len(target)))
    whole = goal.added(np.arange(6.0))
    monkeypatch.setattr("kinfolk.evidence.blend.CHUNK", 2 * len(target))
    np.testing.assert_allclose(goal.added(np.arange(6.0)), whole, rtol=1e-12)


@pytest.mark.parametrize("by", ["1-auc", "1-accuracy", "log_loss", "brier", "auc"])
def test_the_caller_may_choose_by_another_error(by):
    target, made = problem(BINARY)
    weights = blend(BINARY, target, made, by=by, bags=3, rounds=8)
    named = Task("t", "binary", ("no", "yes"), error="1-auc" if by == "auc" else by)
    worst = max(error(named, target, p) for p in made.values())
    assert error(named, target, mix(weights, made)) < worst


def test_mae_chooses_the_median_and_squared_error_the_mean():
    target = np.r_[np.zeros(9), 10.0]
    made = {"median": np.zeros((10, 1)), "mean": np.ones((10, 1))}
    assert blend(REGRESSION, target, made, by="mae", bags=0) == {"median": 1.0}
    assert blend(REGRESSION, target, made, bags=0) == {"mean": 1.0}


def test_bags_without_a_learner_that_stands_out_do_not_spoil_the_blend():
    rng = np.random.default_rng(0)
    target = rng.normal(size=300)
    made = {f"weak{i}": (target + rng.normal(0, 2, 300))[:, None] for i in range(9)}
    made["strong"] = (target + rng.normal(0, 0.05, 300))[:, None]
    assert blend(REGRESSION, target, made)["strong"] > 0.95
    assert blend(REGRESSION, target, made, worse=math.inf, tolerance=math.inf)["strong"] < 0.8


def test_alike_learners_are_averaged_over_more_of_them_by_bags():
    target, made = problem(BINARY, rows=60, candidates=20, seed=3)
    assert len(blend(BINARY, target, made, most=20, tolerance=math.inf)) > len(
        blend(BINARY, target, made, most=20, bags=0)
    )


def test_ties_go_to_the_earlier_and_the_same_seed_gives_the_same():
    target, made = problem(REGRESSION)
    twins = {"first": made["c0"], "second": made["c0"].copy()}
    assert blend(REGRESSION, target, twins, bags=0) == {"first": 1.0}
    assert blend(REGRESSION, target, made, seed=4) == blend(REGRESSION, target, made, seed=4)
    assert blend(REGRESSION, target, {"only": made["c3"]}) == {"only": 1.0}
    np.testing.assert_array_equal(prune(np.array([0.2, 0.2, 0.2, 0.4]), 2), [1 / 3, 0, 0, 2 / 3])


@pytest.mark.parametrize("task", [REGRESSION, MULTI], ids=lambda task: task.kind)
def test_rows_without_label_or_weight_do_not_count(task):
    target, made = problem(task)
    some = np.arange(len(target)) % 3 > 0
    gaps, weight = np.where(some, target, np.nan), np.where(np.arange(len(target)) % 3 == 1, 1.0, 0.0)
    kept = weight > 0
    expected = blend(task, target[kept], {k: p[kept] for k, p in made.items()})
    assert blend(task, gaps, made, weight) == expected


def test_whole_weights_equal_copies_of_rows():
    target, made = problem(REGRESSION, rows=40)
    weight = np.random.default_rng(2).integers(1, 4, 40)
    copies = {k: np.repeat(p, weight, axis=0) for k, p in made.items()}
    assert blend(REGRESSION, target, made, weight, bags=0) == blend(
        REGRESSION, np.repeat(target, weight), copies, bags=0
    )


def test_what_cannot_be_blended_is_refused():
    with pytest.raises(ValueError, match="must have a candidate"):
        blend(REGRESSION, [1.0], {})
    with pytest.raises(ValueError, match="must have a row with a label"):
        blend(REGRESSION, [math.nan], {"a": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="must have a member"):
        mix({}, {})

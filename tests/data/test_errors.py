"""Errors and scores: scikit-learn is the reference; undefined is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from kinfolk.data.errors import ALIASES, ERRORS, LEAST_PROBABILITY, auc, check_error, error, resampled, scores
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError

CLASSES = {"regression": (), "ranking": (), "binary": ("no", "yes"), "multiclass": ("a", "b", "c", "d")}
SERVED = [(name, kind) for name, measure in ERRORS.items() for kind in measure.kinds]


def make(kind: str, name: str = "", rows: int = 200, seed: int = 0, rounded: bool = True):
    """A task with targets, predictions and weights; rounded predictions have ties."""
    rng = np.random.default_rng(seed)
    task = Task("t", kind, CLASSES[kind], error=name)
    if task.numeric:
        target = rng.normal(3, 2, rows)
        prediction = (target + rng.normal(size=rows))[:, None]
    else:
        target = rng.integers(0, len(CLASSES[kind]), rows).astype(float)
        prediction = rng.dirichlet(np.ones(len(CLASSES[kind])), rows)
        prediction = prediction[:, 1:] if kind == "binary" else prediction
        prediction = prediction.round(1) if rounded and kind == "binary" else prediction
    return task, target, prediction, rng.uniform(0.1, 3, rows)


def lowest(y: np.ndarray, score: np.ndarray, w: np.ndarray, share: float) -> float:
    """By lifting the lowest scores one by one, equal ones together."""
    left = wanted = share * w.sum()
    found = 0.0
    for value in np.unique(score):
        at = score == value
        taken = min(left, w[at].sum())
        found += taken * np.average(y[at], weights=w[at])
        left -= taken
    return found / wanted


def by_scikit_learn(name: str, kind: str, y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    one = p[:, 0]
    if name == "1-concordance":  # scikit-learn has no weighted one
        pairs = (y[:, None] > y) * w[:, None] * w
        return (pairs * ((one[:, None] < one) + 0.5 * (one[:, None] == one))).sum() / pairs.sum()
    if name.startswith("fop"):
        return lowest(y, one, w, int(name[4:]) / 100)
    if kind != "regression":
        both = np.c_[1 - one, one] if kind == "binary" else p
        both = np.clip(both, LEAST_PROBABILITY, 1)
        guess = (one > 0.5) if kind == "binary" else p.argmax(1)
        area = (
            metrics.roc_auc_score(y, one, sample_weight=w)
            if kind == "binary"
            else np.mean([metrics.roc_auc_score(y == c, p[:, c], sample_weight=w) for c in range(p.shape[1])])
        )
        return {
            "1-auc": lambda: 1 - area,
            "log_loss": lambda: metrics.log_loss(y, both / both.sum(1, keepdims=True), sample_weight=w),
            "brier": lambda: metrics.brier_score_loss(y, one, sample_weight=w),
            "1-accuracy": lambda: 1 - metrics.accuracy_score(y, guess, sample_weight=w),
        }[name]()
    return {
        "rmse": lambda: metrics.root_mean_squared_error(y, one, sample_weight=w),
        "mse": lambda: metrics.mean_squared_error(y, one, sample_weight=w),
        "mae": lambda: metrics.mean_absolute_error(y, one, sample_weight=w),
        "1-r2": lambda: 1 - metrics.r2_score(y, one, sample_weight=w),
        "rrse": lambda: math.sqrt(np.sum(w * (y - one) ** 2) / np.sum(w * (y - 2.5) ** 2)),
    }[name]()


@pytest.mark.parametrize(("name", "kind"), SERVED)
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(name, kind, seed):
    task, y, p, w = make(kind, name, seed=seed)
    assert error(task, y, p, w, baseline=2.5) == pytest.approx(by_scikit_learn(name, kind, y, p, w), rel=1e-5)


@pytest.mark.parametrize(("name", "kind"), SERVED)
def test_weights_are_copies_of_rows_and_resamples_agree(name, kind):
    task, y, p, _ = make(kind, name, rows=60)
    counts = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
    by_copies = [
        error(task, np.repeat(y, c.astype(int)), np.repeat(p, c.astype(int), axis=0), baseline=1.0) for c in counts
    ]
    np.testing.assert_allclose(resampled(task, y, p, counts, 1.0), by_copies, rtol=1e-9)


@pytest.mark.parametrize(("name", "kind"), SERVED)
def test_rows_that_are_not_observed_do_not_count(name, kind):
    task, y, p, w = make(kind, name)
    gaps = y.copy()
    gaps[::3] = np.nan
    p[0] = np.nan  # a prediction for a row without a label may be anything
    seen = np.isfinite(gaps)
    assert error(task, gaps, p, w, 0.0) == error(task, y[seen], p[seen], w[seen], 0.0)


@pytest.mark.parametrize(("name", "kind"), SERVED)
def test_perfect_predictions_have_no_error_and_no_rows_are_undefined(name, kind):
    task, y, p, w = make(kind, name)
    perfect = np.eye(4)[y.astype(int)] if kind == "multiclass" else y[:, None]
    least = lowest(y, y, w, int(name[4:]) / 100) if name.startswith("fop") else 0
    assert error(task, y, perfect, w, 0.0) == pytest.approx(least, abs=1e-12)
    assert math.isnan(error(task, [], np.zeros((0, task.size)), [], 0.0))
    assert math.isnan(error(task, np.full(200, np.nan), p, w, 0.0))


def test_undefined_is_nan():
    binary = Task("t", "binary", ("no", "yes"))
    assert math.isnan(error(binary, [1, 1], [[0.2], [0.3]]))
    shown = scores(binary, [1, 1], [[0.2], [0.7]])
    assert math.isnan(shown["auc"])
    assert shown["accuracy"] == 0.5
    constant = Task("t", "regression", error="1-r2")
    assert math.isnan(error(constant, [0.1, 0.1, 0.1], [[0.0], [1.0], [2.0]]))
    assert math.isnan(error(Task("t", "regression"), [2.0, 2.0], [[0.0], [1.0]], baseline=2.0))
    many = Task("t", "multiclass", ("a", "b"), error="1-auc")
    assert math.isnan(error(many, [1, 1], [[0.2, 0.8], [0.3, 0.7]]))


def test_macro_auc_is_over_the_classes_that_are_there():
    task = Task("t", "multiclass", ("a", "b", "c"), error="1-auc")
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.2, 0.3], [0.4, 0.4, 0.2]])
    y = np.array([0.0, 1.0, 0.0, 1.0])  # no c; both others are ranked rightly
    assert error(task, y, p) == 0
    assert scores(task, y, p)["macro_auc"] == 1


def test_log_loss_of_what_was_thought_impossible_is_bounded():
    task = Task("t", "multiclass", ("a", "b"))
    assert error(task, [1], [[1.0, 0.0]]) == pytest.approx(-math.log(LEAST_PROBABILITY))
    assert error(task, [0], np.array([[1.0 + 1e-7, 0.0]], np.float32)) == 0


def test_golden_numbers():
    rrse = Task("t", "regression")
    assert error(rrse, [1.0, 3.0], [[2.0], [3.0]], baseline=1.0) == 0.5  # sqrt(1 / 4)
    assert error(rrse, [1.0, 3.0], [[2.0], [3.0]], [3.0, 1.0], 0.0) == pytest.approx(0.5)  # sqrt(3 / 12)
    assert float(auc([0, 1, 1], [1, 1, 2], [1, 1, 1])) == 0.75
    three = Task("t", "multiclass", ("a", "b", "c"))
    assert error(three, [0, 2], [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]) == pytest.approx(math.log(2))
    assert set(scores(three, [0, 2], np.full((2, 3), 1 / 3))) == {"accuracy", "macro_auc", "log_loss"}
    assert set(scores(rrse, [0, 2], [[1], [1]])) == {"rmse", "mae", "r2"}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.booleans())
def test_auc_is_invariant_and_mirrored(seed, rows, ties):
    rng = np.random.default_rng(seed)
    y = np.r_[0.0, 1.0, rng.integers(0, 2, rows - 2)]
    s = rng.integers(0, 4, rows).astype(float) if ties else rng.normal(size=rows)
    w = rng.uniform(0.1, 2, rows)
    area = float(auc(y, s, w))
    assert area == pytest.approx(float(auc(y, np.exp(s), w)))
    assert area == pytest.approx(1 - float(auc(y, -s, w)))
    assert area == pytest.approx(metrics.roc_auc_score(y, s, sample_weight=w))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SERVED))
def test_the_scale_and_the_order_of_weights_do_not_matter(seed, served):
    name, kind = served
    task, y, p, w = make(kind, name, rows=30, seed=seed)
    mixed = np.random.default_rng(seed).permutation(30)
    expected = error(task, y, p, w, 1.0)
    assert error(task, y[mixed], p[mixed], 7 * w[mixed], 1.0) == pytest.approx(expected, nan_ok=True)


def test_names():
    assert check_error("t", " Logloss ", "binary") == "log_loss"
    assert check_error("t", "log-loss", "multiclass") == "log_loss"
    assert check_error("t", "error-rate", "multiclass") == "1-accuracy"
    assert all(name in ERRORS for name in ALIASES.values())
    assert all(check_error("t", name, kind) == name for name, kind in SERVED)
    with pytest.raises(InputError, match=r"regression task, and 'auc' does not. Choose one of rrse, rmse"):
        check_error("t", "auc", "regression")
    with pytest.raises(InputError, match=r"Did you mean.*'rmse'"):
        check_error("t", "rmsee", "regression")


def test_what_does_not_fit_is_refused():
    task = Task("t", "regression", error="mae")
    with pytest.raises(ValueError, match="must be finite"):
        error(task, [1.0], [[math.nan]])
    with pytest.raises(ValueError, match=r"must be \[2, 1\]"):
        error(task, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="`baseline` must be"):
        error(Task("t", "regression"), [1.0], [[1.0]])

"""Opponents: each task on its own labelled rows, whatever is missing; one prediction per job, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import Ridge as SklearnRidge

from kinfolk import persistence
from kinfolk.data.tasks import Task
from kinfolk.evidence import opponents, taskwise
from kinfolk.evidence.jobs import Job, Rows
from kinfolk.evidence.opponents import ExtraTrees, HistGradientBoosting, Opponent, OpponentPredictor, Ridge

ARMS = (Ridge, HistGradientBoosting, ExtraTrees)
TASKS = (
    Task("price", "regression"),
    Task("sold", "binary", ("no", "yes")),
    Task("kind", "multiclass", ("a", "b", "c")),
)


def problem(rows: int = 150, tasks: tuple[Task, ...] = TASKS, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, 5)).astype(np.float32)
    signal = inputs[:, 0] + np.abs(inputs[:, 1]) + 0.1 * random.normal(size=rows)
    inputs[random.random((rows, 5)) < 0.1] = np.nan
    of = {"regression": 100 + 5 * signal, "binary": signal > 1, "multiclass": np.digitize(signal, [0.0, 1.0])}
    labels = np.column_stack([of[task.kind] for task in tasks]).astype(float)
    labels[random.random(labels.shape) < 0.2] = np.nan
    return Rows(inputs, labels, np.ones(rows), tasks)


def job(setting: int = 0, train: slice = slice(0, 90), stop: slice = slice(90, 110), seed: int = 0) -> Job:
    everything = np.arange(10_000)
    return Job(everything[train], everything[stop], setting, seed)


def fit(arm: Opponent, rows: Rows, jobs: list[Job]) -> list[OpponentPredictor]:
    predictors = arm.fit(rows, jobs).predictors
    assert all(isinstance(predictor, OpponentPredictor) for predictor in predictors)
    return [predictor for predictor in predictors if isinstance(predictor, OpponentPredictor)]


def predict(predictor: OpponentPredictor, inputs: np.ndarray) -> list[np.ndarray]:
    return [prediction for prediction in predictor.predict(inputs) if prediction is not None]


def check_form(tasks: tuple[Task, ...], predictions: list[np.ndarray], rows: int) -> None:
    for task, prediction in zip(tasks, predictions, strict=True):
        assert prediction.shape == (rows, task.size)
        assert np.isfinite(prediction).all()
        if task.kind != "regression":
            assert prediction.min() > 0
            assert prediction.max() < 1
        if task.kind == "multiclass":
            np.testing.assert_allclose(prediction.sum(axis=1), 1)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("count", [1, 6])
def test_every_setting_is_fitted_and_learns(arm: type[Opponent], count: int) -> None:
    rows, learner = problem(), arm(count)
    assert len(learner.settings) == count
    for predictor in fit(learner, rows, [job(setting) for setting in range(count)]):
        predictions = predict(predictor, rows.inputs[110:])
        check_form(TASKS, predictions, 40)
        target = problem().labels[110:]
        price, sold = (~np.isnan(target[:, column]) for column in (0, 1))
        assert np.corrcoef(predictions[0][price, 0], target[price, 0])[0, 1] > 0.5
        assert predictions[1][sold & (target[:, 1] == 1)].mean() > predictions[1][sold & (target[:, 1] == 0)].mean()


@pytest.mark.parametrize("arm", ARMS)
def test_settings_are_distinct_and_bounded(arm: type[Opponent]) -> None:
    assert len({str(setting) for setting in arm.grid}) == len(arm.grid) >= 6
    for wrong in (0, len(arm.grid) + 1):
        with pytest.raises(ValueError, match="`settings` must be between"):
            arm(wrong)


@pytest.mark.parametrize("arm", ARMS)
def test_a_task_knows_nothing_of_the_others(arm: type[Opponent]) -> None:
    rows = problem()
    together = predict(fit(arm(2), rows, [job(1)])[0], rows.inputs)
    for column, task in enumerate(TASKS):
        alone = Rows(rows.inputs, rows.labels[:, [column]], rows.weight, (task,))
        np.testing.assert_array_equal(predict(fit(arm(2), alone, [job(1)])[0], rows.inputs)[0], together[column])


@pytest.mark.parametrize("arm", ARMS)
def test_a_job_is_fitted_alone_as_beside_others_on_the_same_rows(arm: type[Opponent]) -> None:
    """Logistic regression starts at its neighbour's solution, so it agrees only up to its tolerance."""
    rows, jobs = problem(), [job(0), job(1), job(2)]
    beside = fit(arm(3), rows, jobs)
    for one, predictor in zip(jobs, beside, strict=True):
        alone = fit(arm(3), rows, [one])[0]
        for a, b in zip(predict(alone, rows.inputs), predict(predictor, rows.inputs), strict=True):
            np.testing.assert_allclose(a, b, atol=0.005 if arm is Ridge else 0)


@pytest.mark.parametrize("arm", ARMS)
def test_the_same_jobs_give_the_same_bits(arm: type[Opponent]) -> None:
    rows, jobs = problem(), [job(0), job(1), job(0, slice(20, 110), slice(110, 130), seed=3)]
    for first, second in zip(fit(arm(2), rows, jobs), fit(arm(2), rows, jobs), strict=True):
        for a, b in zip(predict(first, rows.inputs), predict(second, rows.inputs), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("arm", ARMS)
def test_rows_without_a_label_or_weight_and_rows_of_others_do_not_matter(arm: type[Opponent]) -> None:
    rows = problem()
    weight = rows.weight.copy()
    weight[10:20] = 0
    before = predict(fit(arm(1), Rows(rows.inputs, rows.labels, weight, TASKS), [job()])[0], rows.inputs)
    inputs, labels = rows.inputs.copy(), rows.labels.copy()
    inputs[110:] = labels[110:] = 0
    inputs[10:20], labels[10:20] = 50.0, 1.0
    after = predict(fit(arm(1), Rows(inputs, labels, weight, TASKS), [job()])[0], rows.inputs)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("arm", ARMS)
def test_a_scale_of_the_weights_does_not_matter_but_weights_do(arm: type[Opponent]) -> None:
    rows = problem()
    weight = np.where(rows.labels[:, 0] > np.nanmedian(rows.labels[:, 0]), 4.0, 1.0)
    means = []
    for each in (rows.weight, weight, weight * 1024):
        predictor = fit(arm(1), Rows(rows.inputs, rows.labels, each, TASKS), [job()])[0]
        means.append(predict(predictor, rows.inputs)[0].mean())
    assert means[1] > means[0]
    np.testing.assert_allclose(means[1], means[2], rtol=1e-6)


@pytest.mark.parametrize("arm", ARMS)
def test_classes_that_the_rows_lack_get_a_small_probability(arm: type[Opponent]) -> None:
    rows = problem()
    rows.labels[:110, 2] = np.where(rows.labels[:110, 2] == 1, 0, rows.labels[:110, 2])  # class b only outside
    rows.labels[90:95, 2] = 1  # and among the rows that stop
    rows.labels[:110, 1] = np.where(np.isnan(rows.labels[:110, 1]), np.nan, 1)  # one class of two
    predictions = predict(fit(arm(1), rows, [job()])[0], rows.inputs[110:])
    check_form(TASKS, predictions, 40)
    assert (predictions[1] > 0.9).all()
    none = Rows(rows.inputs, np.where(rows.labels == 1, 0, rows.labels), rows.weight, TASKS)
    probability = predict(fit(arm(1), none, [job()])[0], rows.inputs[110:])[2]
    np.testing.assert_allclose(probability[:, 1], taskwise.LEAST_PROBABILITY, rtol=1e-4)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("labelled", [0, 1, 3, 6])
def test_few_labelled_rows_give_a_prediction(arm: type[Opponent], labelled: int) -> None:
    rows = problem()
    rows.labels[labelled:] = np.nan
    check_form(TASKS, predict(fit(arm(2), rows, [job(1)])[0], rows.inputs), 150)


@pytest.mark.parametrize("arm", ARMS)
def test_odd_columns_and_an_empty_stop_set_do_no_harm(arm: type[Opponent]) -> None:
    rows = problem()
    rows.inputs[:, 2] = np.nan  # no number at all
    rows.inputs[:, 3] = 7  # constant
    rows.inputs[:, 4] = rows.inputs[:, 0]  # twice the same
    rows.inputs[:110, 1] = np.abs(rows.inputs[:110, 1])
    rows.inputs[110:, 0] = np.nan  # missing only later
    learner = arm(6)
    jobs = [job(setting, stop=slice(90, 90)) for setting in range(6)]
    for predictor in fit(learner, rows, jobs):
        check_form(TASKS, predict(predictor, rows.inputs[110:]), 40)
    assert arm(2).fit(rows, []).predictors == []


def test_ridge_is_the_ridge_of_scikit_learn() -> None:
    rows = problem()
    complete = np.nan_to_num(rows.inputs).astype(float)
    predictor = fit(Ridge(1), Rows(complete.astype(np.float32), rows.labels, rows.weight, TASKS), [job()])[0]
    train = np.flatnonzero(~np.isnan(rows.labels[:110, 0]))
    scaled = (complete - complete[train].mean(axis=0)) / complete[train].std(axis=0)
    expected = SklearnRidge(alpha=10.0).fit(scaled[train], rows.labels[train, 0]).predict(scaled)
    np.testing.assert_allclose(predict(predictor, complete)[0][:, 0], expected, rtol=1e-6)
    assert predictor.parameters == 6 + 6 + 3 * 6


def test_slim_trees_decide_as_those_of_scikit_learn() -> None:
    rows = problem(400)
    known = ~np.isnan(rows.labels[:, 0])
    for kind, target in (
        (ExtraTreesRegressor, rows.labels[known, 0]),
        (ExtraTreesClassifier, rows.labels[known, 0] > 105),
    ):
        forest = kind(20, random_state=0).fit(rows.inputs[known], target)
        expected = [forest.apply(rows.inputs), forest.predict(rows.inputs)]
        slim = opponents._slim(forest)
        np.testing.assert_array_equal(slim.apply(rows.inputs), expected[0])
        np.testing.assert_allclose(slim.predict(rows.inputs), expected[1], rtol=1e-6)


def test_boosting_keeps_no_tree_after_its_best() -> None:
    predictor = fit(HistGradientBoosting(1), problem(), [job()])[0]
    for model in predictor.estimators:
        assert model.n_iter_ == max(int(np.argmax(model.validation_score_)), 1)


def test_the_mean_of_fits_is_the_mean_of_their_predictions() -> None:
    rows = problem()
    for arm in ARMS:
        folds = fit(arm(1), rows, [job(), job(0, slice(20, 120), slice(0, 20), seed=1)])
        both = opponents.mean(folds)
        assert both.members == 2
        for column, prediction in enumerate(predict(both, rows.inputs)):
            expected = np.mean([predict(fold, rows.inputs)[column] for fold in folds], axis=0)
            np.testing.assert_allclose(prediction, expected)
    with pytest.raises(ValueError, match="at least one"):
        opponents.mean([])


def test_on_large_tables_settings_that_lose_a_short_race_are_dropped_from_all_jobs() -> None:
    rows = problem(3500, TASKS[:2])
    for arm in (HistGradientBoosting, ExtraTrees):
        jobs = [
            job(setting, train, slice(2100, 2400), seed)
            for seed, train in enumerate((slice(0, 2100), slice(50, 2100)))
            for setting in range(4)
        ]
        predictors = arm(4).fit(rows, jobs).predictors
        kept = [[p is not None for p in predictors[first : first + 4]] for first in (0, 4)]
        assert sum(kept[0]) == opponents.RACE_KEEPS
        assert kept[0] == kept[1]
        assert None not in arm(3).fit(rows, jobs[:3]).predictors


@pytest.mark.parametrize("arm", ARMS)
def test_fits_come_back_from_a_file(arm: type[Opponent], tmp_path: Path) -> None:
    rows = problem()
    rows.labels[:110, 1] = 1  # a constant
    mean = opponents.mean(fit(arm(2), rows, [job(0), job(0, slice(20, 110), seed=2)]))
    persistence.save_sklearn(mean.estimators, tmp_path / "arm.skops")
    loaded = OpponentPredictor(TASKS, persistence.load_sklearn(tmp_path / "arm.skops", features=5))
    for a, b in zip(predict(mean, rows.inputs), predict(loaded, rows.inputs), strict=True):
        np.testing.assert_array_equal(a, b)

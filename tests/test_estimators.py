"""The estimators: scikit-learn's own checks, gaps, mixed kinds, model selection, and clear errors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from kinfolk import MultiTaskClassifier, MultiTaskEstimator, MultiTaskKFold, MultiTaskRegressor
from kinfolk.balancing import Uncertainty
from kinfolk.evidence.arms import SETTINGS
from kinfolk.evidence.jobs import LEARNED
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import plan_for
from kinfolk.exceptions import InputError
from kinfolk.quantities import Quantity

# Short trainings: the checks ask for what was learned on three easy problems only.
SHORT: dict[str, Any] = {"epochs": 3, "updates": 60, "width": 16, "learning_rate": 0.03, "random_state": 0}
EVERY = [MultiTaskRegressor, MultiTaskClassifier, MultiTaskEstimator]

UNEQUAL = {
    "check_sample_weight_equivalence_on_dense_data": "to a network that is trained on random batches and stopped on "
    "held-out rows, a row of weight 2 is not two rows; scikit-learn expects its own MLPRegressor to fail it too"
}


@parametrize_with_checks([estimator(**SHORT) for estimator in EVERY], expected_failed_checks=lambda estimator: UNEQUAL)
def test_scikit_learn_accepts(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Two regression tasks on 90 rows that share their features."""
    rng = np.random.default_rng(1)
    X, factors = rng.normal(size=(90, 5)), rng.uniform(20, 80, size=(5, 2))
    return X, X @ factors + rng.normal(scale=5, size=(90, 2))


@pytest.fixture
def frame(numbers: tuple[np.ndarray, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A task of each kind, with gaps, and named columns."""
    X, y = numbers
    third = np.digitize(y[:, 1], np.quantile(y[:, 1], [0.33, 0.67]))
    labels = pd.DataFrame(
        {"size": y[:, 0], "large": np.where(y[:, 0] > 0, "yes", "no"), "level": np.array(["a", "b", "c"])[third]}
    )
    labels.loc[::4, "size"] = np.nan
    labels.loc[1::4, "large"] = None
    return pd.DataFrame(X, columns=list("uvwxy")), labels


# ---- parameters


@pytest.mark.parametrize("estimator", EVERY)
def test_defaults_are_the_best_known_setting(estimator: Any) -> None:
    default = estimator()
    best = SETTINGS[0]
    assert (default.encoding, default.learning_rate) == (best["encoding"], best["rate"])
    assert (default.weight_decay, default.dropout) == (best["decay"], best["dropout"])


def test_length_and_width_follow_from_the_number_of_rows_unless_given() -> None:
    for rows in (100, 50_000):
        arm, plan = MultiTaskRegressor()._arm(rows), plan_for(rows)
        assert (arm.length.epochs, arm.length.batch, arm.width) == (plan.length.epochs, plan.length.batch, plan.width)
        given = MultiTaskRegressor(epochs=7, updates=8, batch_size=9, patience=0.5, width=10)._arm(rows)
        assert (given.length.epochs, given.length.updates, given.length.batch) == (7, 8, 9)
        assert (given.length.patience, given.width) == (0.5, 10)


@pytest.mark.parametrize("estimator", EVERY)
def test_parameters_are_set_and_cloned(estimator: Any) -> None:
    model = estimator(sharing="independent").set_params(balancing="uncertainty(initial=0.1)", members=2)
    copied: Any = clone(model)
    assert copied.get_params() == model.get_params()
    assert copied.sharing == "independent"
    assert copied.balancing == "uncertainty(initial=0.1)"


WRONG = [
    ({"sharing": "hrad"}, "hrad.*'hard'"),
    ({"sharing": "uncertainty"}, "Unknown name in sharing 'uncertainty'"),
    ({"sharing": "hard + uncertainty"}, "`sharing` must be one method"),
    ({"sharing": None}, "`sharing` must be the text of a method"),
    ({"balancing": "uncertainty(inital=0.1)"}, "inital.*'initial'"),
    ({"trunk": "mlp(depth=0)"}, "`depth` must be at least 1"),
    ({"width": -1}, "`width` must be a whole number of at least 1, or None. Got -1"),
    ({"width": 2.5}, "`width` must be a whole number"),
    ({"members": 0}, "`members` must be a whole number of at least 1. Got 0"),
    ({"members": True}, "`members` must be a whole number"),
    ({"learning_rate": 0.0}, "`learning_rate` must be a number above 0. Got 0.0"),
    ({"learning_rate": "fast"}, "`learning_rate` must be a number"),
    ({"learning_rate": float("nan")}, "`learning_rate` must be a number"),
    ({"weight_decay": -0.1}, "`weight_decay` must be a number of at least 0"),
    ({"dropout": 1.0}, "`dropout` must be a number of at least 0 and below 1. Got 1.0"),
    ({"encoding": "onehot"}, "`encoding` must be one of standard, piecewise"),
    ({"device": "abacus"}, "`device` must be one that torch can use"),
]


EVOLVING: dict[str, Any] = {"auxiliary": "reconstruction", "balancing": "evolving(schedule=exponential, sigma=2.0)"}


@pytest.mark.parametrize("sharing", ["hard", "independent", "mmoe"])
def test_rows_without_labels_train_a_task_that_needs_none(numbers: tuple[np.ndarray, np.ndarray], sharing: str) -> None:
    X, y = numbers
    more, gaps = np.vstack([X, X[::-1] + 0.1]), np.vstack([y, np.full_like(y, np.nan)])
    given = SHORT | {"sharing": sharing, "batch_size": 32}
    predicted = lambda X, y, **other: MultiTaskRegressor(**given | other).fit(X, y).predict(numbers[0])  # noqa: E731
    np.testing.assert_array_equal(predicted(more, gaps), predicted(X, y))  # nobody reads them
    two = MultiTaskRegressor(**given | EVOLVING).fit(more, gaps)
    assert two.n_outputs_ == 2
    assert two.predict(X).shape == y.shape
    assert {row["task"] for row in two.history_} == {"task 0", "task 1", "reconstruction"}
    assert not np.allclose(two.predict(X), predicted(X, y, **EVOLVING))


def test_classes_without_labels_train_a_task_that_needs_none(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    labels = (y > 0).astype(int)
    labels[::2] = -1
    model = MultiTaskClassifier(**SHORT | EVOLVING, members=2).fit(X, labels)
    assert [list(classes) for classes in model.classes_] == [[0, 1], [0, 1]]
    assert len(model.predict_proba(X)) == 2


def test_a_batch_grows_with_rows_without_labels_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2100, 2)), rng.normal(size=(2100, 1))
    y[50:] = np.nan
    seen: list[int] = []
    schedule = Length.schedule
    monkeypatch.setattr(Length, "schedule", lambda self, rows: seen.append(self.batch) or schedule(self, rows))
    for size, batch in ((None, 64), (16, 16)):
        brief: dict[str, Any] = {"epochs": 1, "updates": 1, "width": 4, "batch_size": size}
        MultiTaskRegressor(auxiliary="reconstruction", random_state=0, **brief).fit(X, y)
        assert seen[-1] == batch


def test_a_target_has_another_name_than_the_task_that_is_added(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    y = pd.Series(numbers[1][:, 0], name="reconstruction")
    with pytest.raises(ValueError, match=r"adds a task 'reconstruction'\. Give that target another name"):
        MultiTaskRegressor(**SHORT, auxiliary="reconstruction").fit(numbers[0], y)


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(given) for given, _ in WRONG])
def test_wrong_parameters_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MultiTaskRegressor(**given).fit(np.eye(9), np.arange(9.0))
    assert "\n" not in str(caught.value)


# ---- regression


def test_gaps_in_numbers(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    y[::3, 0] = np.nan
    y[0] = np.nan  # a row without any label
    model = MultiTaskRegressor(learning_rate=0.01, updates=300, width=32, random_state=0).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == y.shape
    assert np.isfinite(predicted).all()
    expected = []
    for t in (0, 1):
        seen = ~np.isnan(y[:, t])
        expected.append(r2_score(y[seen, t], predicted[seen, t]))
    assert model.score(X, y) == pytest.approx(np.mean(expected))
    assert min(expected) > 0.7
    assert model.score(X[:1], y[:1]) != model.score(X[:1], y[:1])  # nothing to judge: NaN


def test_score_of_complete_labels_is_that_of_scikit_learn(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    weight = np.linspace(0.1, 1, len(X))
    model = MultiTaskRegressor(**SHORT).fit(X, y)
    assert model.score(X, y, weight) == pytest.approx(r2_score(y, model.predict(X), sample_weight=weight))


@pytest.mark.parametrize("shape", [(90,), (90, 1)])
def test_predictions_have_the_shape_of_y(numbers: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...]) -> None:
    X, y = numbers
    model = MultiTaskRegressor(**SHORT).fit(X, y[:, 0].reshape(shape))
    assert model.predict(X[:7]).shape == (7, *shape[1:])
    assert model.predict(X).dtype == np.float64


def test_equal_seeds_are_equal_and_a_row_is_predicted_alone(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    first, again = (MultiTaskRegressor(**SHORT).fit(X, y).predict(X) for _ in range(2))
    other = MultiTaskRegressor(**{**SHORT, "random_state": 1}).fit(X, y)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other.predict(X))
    np.testing.assert_allclose(np.vstack([other.predict(x[None]) for x in X]), other.predict(X), rtol=1e-10)


def test_rows_that_weigh_nothing_are_as_no_rows(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    weight = np.where(np.arange(len(X)) < 60, 2.0, 0.0)
    weighted = MultiTaskRegressor(**SHORT).fit(X, y, weight)
    without = MultiTaskRegressor(**SHORT).fit(X[:60], y[:60])
    np.testing.assert_allclose(weighted.predict(X), without.predict(X), rtol=1e-4)


@pytest.mark.parametrize("weight", [np.ones(3), -np.ones(90), np.full(90, np.nan), np.zeros(90)])
def test_weights_are_checked(numbers: tuple[np.ndarray, np.ndarray], weight: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`sample_weight` must"):
        MultiTaskRegressor(**SHORT).fit(*numbers, weight)


def test_gaps_in_inputs_are_taken(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    X[::5, 0] = np.nan
    model = MultiTaskRegressor(**SHORT).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    assert np.isfinite(model.predict(np.full((2, 5), np.nan))).all()


@pytest.mark.parametrize("sharing", ["hard", "independent"])
def test_members_are_averaged(numbers: tuple[np.ndarray, np.ndarray], sharing: str) -> None:
    X, y = numbers
    model = MultiTaskRegressor(**{**SHORT, "members": 3, "sharing": sharing}).fit(X, y)
    assert model.predictor_.members == 3
    jobs = model._jobs(_rows(X, y), seed=0)
    assert len(jobs) == 3
    held = np.concatenate([job.stop for job in jobs])
    assert len(np.unique(held)) == len(held)  # each member stops on rows of its own
    for job in jobs:
        assert np.array_equal(np.sort(np.concatenate([job.train, job.stop])), np.arange(len(X)))
        assert len(job.stop) == pytest.approx(len(X) / 7, abs=2)


def _rows(X: np.ndarray, y: np.ndarray) -> Any:
    from kinfolk.data.tasks import Task
    from kinfolk.evidence.jobs import Rows

    return Rows(X, y, np.ones(len(X)), tuple(Task(str(t), "regression") for t in range(y.shape[1])))


def test_what_methods_learn_is_kept(numbers: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    def factors(self: Uncertainty) -> dict[str, Quantity]:
        return {"log variance": Quantity(self.log_variance.detach().view(-1, 1, 2), ("task",), ("one", "two"))}

    assert MultiTaskRegressor(**SHORT).fit(*numbers).learned_.empty
    monkeypatch.setattr(Uncertainty, "learned", factors)
    found = MultiTaskRegressor(balancing="uncertainty", members=2, **SHORT).fit(*numbers).learned_
    assert list(found.columns) == LEARNED
    assert set(found["column"]) == {"one", "two"}


def test_more_members_than_rows(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    model = MultiTaskRegressor(**{**SHORT, "members": 5}).fit(X[:3], y[:3])
    assert model.predictor_.members == 5


BAD_NUMBERS = [
    (np.column_stack([np.arange(9.0), np.full(9, np.nan)]), "Each task needs labels. All of task 'task 1' are missing"),
    (np.array([*"abcdefghi"]), "Labels of task 'task 0' must be numbers"),
    (np.array([np.inf, *range(8)]), "must be finite. Row 0 is infinite"),
    (np.zeros((9, 2, 2)), r"`y` must be \[row\] or \[row, task\]"),
    (np.zeros((9, 0)), "with at least one task"),
    (np.zeros(8), "inconsistent numbers of samples"),
    (None, "requires y to be passed"),
]


@pytest.mark.parametrize(("y", "message"), BAD_NUMBERS, ids=[message for _, message in BAD_NUMBERS])
def test_bad_numbers(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiTaskRegressor(**SHORT).fit(np.eye(9), y)


def test_a_training_that_fails_says_so(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    with pytest.raises(ValueError, match=r"networks failed, task 'task 0' in epoch .* smaller `learning_rate`"):
        MultiTaskRegressor(**{**SHORT, "learning_rate": 1e30}).fit(X, y)


def test_some_members_that_fail_are_left_out_with_a_warning(
    numbers: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinfolk.evidence.arms import NetworkArm

    real = NetworkArm.fit

    def fit(self: Any, *given: Any) -> Any:
        fits = real(self, *given)
        fits.predictors[0] = None
        fits.failed.append({"task": "task 0", "epoch": 2, "why": "the loss became NaN or infinite"})
        return fits

    monkeypatch.setattr(NetworkArm, "fit", fit)
    with pytest.warns(ConvergenceWarning, match="1 of 2 networks failed"):
        model = MultiTaskRegressor(**{**SHORT, "members": 2}).fit(*numbers)
    assert model.predictor_.members == 1


# ---- classes


def test_gaps_in_integers(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = numbers
    complete = np.column_stack([np.digitize(z[:, 0], [-60, 60]) + 5, z[:, 1] > 0])
    y = complete.copy()
    y[::3, 0] = -1
    model = MultiTaskClassifier(learning_rate=0.01, updates=300, width=32, random_state=0).fit(X, y)
    assert isinstance(model.classes_, list)
    assert [c.tolist() for c in model.classes_] == [[5, 6, 7], [0, 1]]
    assert [task.kind for task in model.tasks_] == ["multiclass", "binary"]
    predicted = model.predict(X)
    assert predicted.dtype.kind == "i"
    proba = model.predict_proba(X)
    assert [p.shape for p in proba] == [(90, 3), (90, 2)]
    np.testing.assert_allclose([p.sum(1) for p in proba], 1)
    seen = y[:, 0] != -1
    expected = [accuracy_score(y[seen, 0], predicted[seen, 0]), accuracy_score(y[:, 1], predicted[:, 1])]
    assert model.score(X, y) == pytest.approx(np.mean(expected))
    assert min(expected) > 0.7


def test_gaps_in_texts_and_columns_of_different_types(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = numbers
    y = np.empty((90, 3), dtype=object)
    y[:, 0] = np.where(z[:, 0] > 0, "high", "low")
    y[:, 1] = (z[:, 1] > 0).astype(int)
    y[:, 2] = z[:, 0] > z[:, 1]
    y[::3, 0], y[1::3, 1], y[2::9, 2] = None, -1, None
    model = MultiTaskClassifier(**SHORT).fit(X, y)
    assert isinstance(model.classes_, list)
    assert [c.tolist() for c in model.classes_] == [["high", "low"], [0, 1], [False, True]]
    predicted = model.predict(X)
    assert predicted.dtype == object
    assert set(predicted[:, 0]) <= {"high", "low"}
    assert 0 <= model.score(X, y) <= 1
    framed = MultiTaskClassifier(**SHORT).fit(X, pd.DataFrame(y, columns=[f"task {t}" for t in range(3)]))
    assert np.array_equal(framed.predict(X), predicted)
    assert [task.name for task in framed.tasks_] == [task.name for task in model.tasks_]
    listed = MultiTaskClassifier(**SHORT).fit(X.tolist(), y.tolist())
    assert np.array_equal(listed.predict(X), predicted)


@pytest.mark.parametrize("dtype", ["category", "Int64", "float", "str"])
def test_types_of_pandas(numbers: tuple[np.ndarray, np.ndarray], dtype: str) -> None:
    X, z = numbers
    values = pd.Series((z[:, 0] > 0).astype(int), name="large")
    values = (values.map({0: "no", 1: "yes"}) if dtype == "str" else values).astype(dtype)
    values[::4] = None
    y = pd.DataFrame({"large": values, "other": (z[:, 1] > 0).astype(int)})
    model = MultiTaskClassifier(**SHORT).fit(X, y)
    assert [len(c) for c in model.classes_] == [2, 2]
    assert model.score(X, y) > 0.5


def test_one_task_is_as_with_any_classifier(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = numbers
    y = np.where(z[:, 0] > 0, "high", "low")
    model = MultiTaskClassifier(**SHORT).fit(X, y)
    assert isinstance(model.classes_, np.ndarray)
    assert model.predict(X).shape == (90,)
    proba = model.predict_proba(X)
    assert isinstance(proba, np.ndarray)
    assert proba.shape == (90, 2)
    assert model.score(X, y) == accuracy_score(y, model.predict(X))


def test_minus_one_and_one_alone_are_classes_of_a_single_task_only(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = numbers
    y = np.where(z[:, 0] > 0, 1, -1)
    model = MultiTaskClassifier(**SHORT).fit(X, y)
    assert model.score(X, y) == accuracy_score(y, model.predict(X))
    assert model.score(X[y == -1], y[y == -1]) == np.mean(model.predict(X[y == -1]) == -1)
    with pytest.raises(ValueError, match=r"at least two classes.*one class, 1.*-1 means not observed"):
        MultiTaskClassifier(**SHORT).fit(X, np.column_stack([y, y]))


BAD_CLASSES = [
    (np.linspace(0, 1, 9), "Unknown label type: continuous"),
    (np.column_stack([np.arange(9) % 2, np.full(9, -1)]), "at least two classes. It has no label in task 'task 1'"),
    (np.zeros(9, dtype=int), "at least two classes. It has one class, 0 in task 'task 0'"),
    (np.array([1, "a"] * 4 + [None], dtype=object), "must be of one type. Got int, str"),
    (np.array([b"a", b"b", b"b"] * 3), "must hold integers, truth values or texts"),
]


@pytest.mark.parametrize(("y", "message"), BAD_CLASSES, ids=[message for _, message in BAD_CLASSES])
def test_bad_classes(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiTaskClassifier(**SHORT).fit(np.eye(9), y)


# ---- mixed kinds


def test_mixed_kinds_of_a_frame(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    X.index = pd.Index(range(100, 190))
    model: Any = MultiTaskEstimator(learning_rate=0.01, updates=300, width=32, random_state=0).fit(X, y)
    assert [task.kind for task in model.tasks_] == ["regression", "binary", "multiclass"]
    predicted = model.predict(X)
    assert isinstance(predicted, pd.DataFrame)
    assert list(predicted.columns) == list(y.columns)
    assert predicted.index.equals(X.index)
    assert predicted["size"].dtype == np.float64
    proba = model.predict_proba(X)
    assert proba[0] is None
    assert [p.shape for p in proba[1:] if p is not None] == [(90, 2), (90, 3)]
    assert 0.5 < model.score(X, y) <= 1
    assert list(model.feature_names_in_) == list("uvwxy")


def test_score_of_mixed_kinds_is_one_minus_the_mean_error(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    model = MultiTaskEstimator(**SHORT).fit(X, y[["size"]])
    seen = y["size"].notna().to_numpy()
    truth, predicted = y["size"][seen], model.predict(X)["size"][seen]
    rrse = np.sqrt(((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert model.score(X, y[["size"]]) == pytest.approx(1 - rrse)


def test_mixed_kinds_of_an_array_of_objects(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    y.columns = [f"task {t}" for t in range(3)]  # heads start from weights that depend on the task's name
    framed: Any = MultiTaskEstimator(**SHORT).fit(X, y)
    array = MultiTaskEstimator(**SHORT).fit(X.to_numpy(), y.to_numpy(dtype=object))
    predicted = array.predict(X.to_numpy())
    assert predicted.dtype == object
    assert predicted.tolist() == framed.predict(X).to_numpy(dtype=object).tolist()
    one: Any = MultiTaskEstimator(**SHORT).fit(X, y["task 2"])
    assert one.predict(X).shape == (90,)
    assert one.predict_proba(X).shape == (90, 3)
    assert not hasattr(MultiTaskEstimator(**SHORT).fit(X, y["task 0"]), "predict_proba")


@pytest.mark.parametrize("kinds", [{"level": "multiclass"}, [None, "multiclass"]])
def test_given_kinds(kinds: Any) -> None:
    X = np.arange(60.0).reshape(30, 2)
    y = pd.DataFrame({"size": X[:, 0], "level": np.arange(30) % 3})
    assert [t.kind for t in MultiTaskEstimator(**SHORT).fit(X, y).tasks_] == ["regression", "regression"]
    model = MultiTaskEstimator(kinds, **SHORT).fit(X, y)
    assert [t.kind for t in model.tasks_] == ["regression", "multiclass"]
    assert set(model.predict(X)["level"]) <= {0, 1, 2}


BAD_KINDS = [
    ({"levle": "binary"}, "Unknown task in `kinds` 'levle'. Did you mean 'level'"),
    (["regression"], "`kinds` must have one kind per task. Got 1 for 2"),
    ("regression", "`kinds` must have one kind per task"),
    (["regression", "multi"], "Unknown kind of task 'multi'"),
]


@pytest.mark.parametrize(("kinds", "message"), BAD_KINDS, ids=[str(kinds) for kinds, _ in BAD_KINDS])
def test_bad_kinds(kinds: Any, message: str) -> None:
    y = pd.DataFrame({"size": np.arange(9.0), "level": np.arange(9) % 3})
    with pytest.raises(ValueError, match=message):
        MultiTaskEstimator(kinds, **SHORT).fit(np.eye(9), y)


def test_a_class_that_fit_has_not_seen_is_left_out_of_the_score(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    model = MultiTaskEstimator(**SHORT).fit(X, y)
    strange = y.copy()
    strange.loc[0, "level"] = "z"
    gap = y.copy()
    gap.loc[0, "level"] = None
    with pytest.warns(UserWarning, match=r"Classes of task 'level' that `fit` has not seen: \['z'\]"):
        assert model.score(X, strange) == model.score(X, gap)


def test_bad_labels_of_mixed_kinds() -> None:
    with pytest.raises(InputError, match="Target 'b' must vary"):
        MultiTaskEstimator(**SHORT).fit(np.eye(9), pd.DataFrame({"a": np.arange(9.0), "b": 1.0}))


# ---- beside scikit-learn's own tools


@pytest.mark.parametrize("estimator", EVERY)
def test_pickle_and_joblib_keep_the_predictions(estimator: Any, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(30, 3))
    model = estimator(**{**SHORT, "members": 2}).fit(X, (X[:, 0] > 0).astype(int))
    joblib.dump(model, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):  # noqa: S301 - made here
        assert np.array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("estimator", EVERY)
def test_unfitted_is_said(estimator: Any) -> None:
    with pytest.raises(NotFittedError):
        estimator().predict(np.eye(3))
    with pytest.raises(NotFittedError):
        estimator().score(np.eye(3), np.arange(3))


def test_grid_search_over_sharing_and_balancing_in_a_pipeline(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    y[::5, 1] = np.nan
    grid = {
        "multitaskregressor__sharing": ["hard", "independent"],
        "multitaskregressor__balancing": ["fixed", "uncertainty"],
    }
    pipeline = make_pipeline(StandardScaler(), MultiTaskRegressor(**SHORT))
    search = GridSearchCV(pipeline, grid, cv=MultiTaskKFold(2, random_state=0)).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    assert search.predict(X).shape == y.shape


def test_cross_validation_with_gaps_in_classes(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    labels = y[["large", "level"]]
    folds = MultiTaskKFold(3, random_state=0)
    assert np.isfinite(cross_val_score(MultiTaskClassifier(**SHORT), X, labels, cv=folds)).all()
    mixed = MultiTaskEstimator(**SHORT)
    assert np.isfinite(cross_val_score(mixed, X, y, cv=folds)).all()
    held: Any = cross_val_predict(MultiTaskClassifier(**SHORT), X, labels, cv=folds)
    assert held.shape == (90, 2)


@pytest.mark.parametrize("estimator", EVERY)
def test_score_wants_the_tasks_and_rows_that_it_knows(estimator: Any) -> None:
    X, y = np.arange(40.0).reshape(20, 2), np.column_stack([np.arange(20) % 2, np.arange(20) > 9])
    model = estimator(**SHORT).fit(X, y)
    for wrong in (y[:, 0], y[:5], np.column_stack([y, y])):
        with pytest.raises(ValueError, match=r"a row for each of 20 in `X` and a column for each of 2 tasks\. Got"):
            model.score(X, wrong)


def test_tasks_have_different_names() -> None:
    y = pd.DataFrame(np.arange(18.0).reshape(9, 2), columns=["a", "a"])
    with pytest.raises(ValueError, match="Columns of `y` must have different names"):
        MultiTaskEstimator(**SHORT).fit(np.eye(9), y)


# ---- folds


def test_folds_part_the_rows_and_spread_labels_and_gaps(frame: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    X, y = frame
    folds = MultiTaskKFold(4, random_state=3)
    parts = list(folds.split(X, y))
    assert folds.get_n_splits() == len(parts) == 4
    assert np.array_equal(np.sort(np.concatenate([test for _, test in parts])), np.arange(90))
    for train, test in parts:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(90))
        for name, values in [("large", ["yes", "no"]), ("level", ["a", "b", "c"])]:
            for value in values:
                share = (y[name] == value).sum() / 4
                assert abs((y[name].iloc[test] == value).sum() - share) < 3
        assert abs(y["size"].iloc[test].isna().sum() - y["size"].isna().sum() / 4) < 3
    again = list(MultiTaskKFold(4, random_state=3).split(X, y))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(parts, again, strict=True))


def test_folds_of_other_labels(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    rank = np.arange(90)
    integers = np.column_stack([rank % 3, np.where(rank % 2, 1, -1)])
    signs = np.where(rank < 45, -1, 1)
    for labels in (y, y[:, 0], integers, signs, rank + 200, pd.Series(["a", None, "b"] * 30), integers.tolist()):
        parts = [test for _, test in MultiTaskKFold(3, random_state=0).split(X, labels)]
        assert sorted(np.concatenate(parts).tolist()) == rank.tolist()
    held = [test for _, test in MultiTaskKFold(3, random_state=0).split(X, signs)]
    assert [int((signs[test] == 1).sum()) for test in held] == [15, 15, 15]


def test_groups_stay_together(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    groups = np.array([f"group {i // 6}" for i in range(90)])
    for train, test in MultiTaskKFold(5, random_state=0).split(X, y, groups):
        assert not set(groups[train]) & set(groups[test])
    model = MultiTaskRegressor(**SHORT)
    assert len(cross_val_score(model, X, y, groups=groups, cv=MultiTaskKFold(2, random_state=0))) == 2


@pytest.mark.parametrize("n_splits", [1, 2.5, True, "5"])
def test_a_wrong_number_of_folds(n_splits: Any) -> None:
    with pytest.raises(ValueError, match="`n_splits` must be a whole number of at least 2"):
        MultiTaskKFold(n_splits)


def test_fewer_rows_or_groups_than_folds(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = numbers
    with pytest.raises(ValueError, match=r"at least as many rows as folds, 5. There are 3"):
        next(MultiTaskKFold(5).split(X[:3], y[:3]))
    with pytest.raises(ValueError, match=r"at least as many groups as folds, 5. There are 2"):
        next(MultiTaskKFold(5).split(X, y, np.arange(90) % 2))
    assert "n_splits=5" in repr(MultiTaskKFold())

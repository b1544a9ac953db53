"""Files of fitted estimators: what goes in comes out; what is damaged, foreign or crafted is refused in one line."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from kinfolk import trees
from kinfolk.data.encoding import Encoder
from kinfolk.exceptions import InputError
from kinfolk.persistence import NOTE, load_sklearn, save_sklearn


def inputs(rows: int = 120) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(rows, 4))
    values[::7, 2] = np.nan
    return values


def targets(kind: str) -> np.ndarray:
    signal = inputs()[:, 0] + inputs()[:, 1] ** 2
    cuts = {"regression": None, "binary": [0.5], "multiclass": [0.0, 1.0]}[kind]
    return signal if cuts is None else np.digitize(signal, cuts).astype(float)


def fitted(name: str) -> Any:
    regression, binary, multiclass = (targets(kind) for kind in ("regression", "binary", "multiclass"))
    prepare = (SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    return {
        "ridge": lambda: make_pipeline(*prepare, Ridge()).fit(inputs(), regression),
        "logistic": lambda: make_pipeline(*prepare, LogisticRegression()).fit(inputs(), multiclass),
        "dummy": lambda: DummyRegressor().fit(inputs(), regression),
        "forest": lambda: ExtraTreesRegressor(5, random_state=0).fit(inputs(), regression),
        "forest of classes": lambda: ExtraTreesClassifier(5, random_state=0).fit(inputs(), multiclass),
        "forest, best first": lambda: ExtraTreesRegressor(5, max_leaf_nodes=9, random_state=0).fit(
            inputs(), regression
        ),
        "boosting": lambda: HistGradientBoostingRegressor(max_iter=9).fit(inputs(), regression),
        "boosting, binary": lambda: HistGradientBoostingClassifier(max_iter=9).fit(inputs(), binary),
        "boosting, classes": lambda: HistGradientBoostingClassifier(max_iter=9).fit(inputs(), multiclass),
        "boosting, a leaf": lambda: HistGradientBoostingRegressor(min_samples_leaf=100).fit(inputs(), regression),
    }[name]()


NAMES = [
    "ridge", "logistic", "dummy", "forest", "forest of classes", "forest, best first", "boosting", "boosting, binary",
    "boosting, classes", "boosting, a leaf",
]  # fmt: skip


def predictions(model: Any) -> np.ndarray:
    unseen = np.random.default_rng(1).normal(size=(300, 4)) * 2
    unseen[::5, 0] = unseen[::9, 3] = np.nan
    return model.predict_proba(unseen) if hasattr(model, "predict_proba") else model.predict(unseen)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_predicts_the_same_after_a_round_trip(name: str, tmp_path: Path) -> None:
    model = fitted(name)
    save_sklearn([model, model], tmp_path / "model.skops")
    first, second = load_sklearn(tmp_path / "model.skops", features=4)
    for loaded in (first, second):
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(predictions(loaded), predictions(model))
        np.testing.assert_array_equal(getattr(loaded, "classes_", 0), getattr(model, "classes_", 0))


def test_a_loaded_estimator_can_be_saved_again(tmp_path: Path) -> None:
    for name in ("forest of classes", "boosting, classes"):
        model = fitted(name)
        for _ in range(2):
            save_sklearn(model, tmp_path / "model.skops")
            model = load_sklearn(tmp_path / "model.skops")
        np.testing.assert_array_equal(predictions(model), predictions(fitted(name)))


def mixed_table() -> pd.DataFrame:
    rows = 60
    words = [f"word{i} other {i % 7} text{i * 3}" for i in range(rows)]
    frame = pd.DataFrame(
        {
            "number": np.r_[np.nan, np.arange(rows - 1.0)],
            "category": ["a", None, "c"] * 20,
            "two": ["yes", "no"] * 30,
            "date": pd.date_range("2020-01-01", periods=rows, freq="31D").strftime("%Y-%m-%d"),
            "words": words,
        }
    )
    return frame.astype(dict.fromkeys(("category", "two", "date", "words"), "str"))


def test_an_encoder_of_a_mixed_table_encodes_the_same_after_a_round_trip(tmp_path: Path) -> None:
    frame = mixed_table()
    encoder = Encoder().fit(frame)
    assert set(encoder.columns.values()) == {"numeric", "category", "date", "text"}
    save_sklearn(encoder.sklearn, tmp_path / "encoder.skops")
    loaded = Encoder.from_state(json.loads(json.dumps(encoder.state())), load_sklearn(tmp_path / "encoder.skops"))
    unseen = frame.assign(category=(["a", "new", "c"] * 20), words=frame["words"].iloc[::-1].tolist())
    for table in (frame, unseen.astype({"category": "str", "words": "str"})):
        np.testing.assert_array_equal(loaded.transform(table), encoder.transform(table))


def test_trees_are_small(tmp_path: Path) -> None:
    model = fitted("forest of classes")
    save_sklearn(model, tmp_path / "ours.skops")
    skops.io.dump(model, tmp_path / "theirs.skops", compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "ours.skops").stat().st_size < (tmp_path / "theirs.skops").stat().st_size / 3


def write(value: Any, path: Path, note: dict[str, Any] | None = None) -> Path:
    """A skops file of anything, with the note that kinfolk writes: what an attacker would make."""
    if note is None:
        save_sklearn(DummyRegressor().fit([[0.0]], [0.0]), path)
        with zipfile.ZipFile(path) as archive:
            note = json.loads(archive.read(NOTE))
    skops.io.dump(value, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NOTE, json.dumps(note))
    return path


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran",)


def scaler_with(value: Any) -> StandardScaler:
    scaler = StandardScaler().fit(inputs())
    scaler.extra = value  # pyright: ignore[reportAttributeAccessIssue]
    return scaler


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (functools.partial(print, "x"), "functools.partial"),
        (os.system, "system"),
        (scaler_with(os.system), "system"),
        (scaler_with({"deep": [(os.system,)]}), "system"),
        (SimpleImputer().fit, "MethodNode"),
        (operator.attrgetter("x"), "attrgetter"),
        (FunctionTransformer(np.log), "FunctionTransformer|log"),
        (np.random.default_rng(0), "Generator"),
        (np.add, "add"),
        (Path("x"), "Path"),
    ],
)
def test_a_type_that_is_not_on_the_list_is_refused(value: Any, named: str, tmp_path: Path) -> None:
    path = write(value, tmp_path / "model.skops")
    with pytest.raises(
        InputError, match=f"(?s)model.skops could run code: it holds .*({named}).*not allowed"
    ) as caught:
        load_sklearn(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["forest", "boosting"])
def test_trees_as_objects_are_refused(name: str, tmp_path: Path) -> None:
    """skops would build them, and scikit-learn would follow whatever their nodes say."""
    with pytest.raises(InputError, match="not allowed"):
        load_sklearn(write(fitted(name), tmp_path / "model.skops"))


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="FunctionTransformer"):
        save_sklearn(FunctionTransformer().fit(inputs()), tmp_path / "model.skops")
    categories: Any = HistGradientBoostingRegressor(max_iter=3)
    categories.fit(inputs(), targets("regression"))
    categories._predictors[0][0].nodes["is_categorical"] = 1
    with pytest.raises(TypeError, match="categor"):
        save_sklearn(categories, tmp_path / "model.skops")
    assert not (tmp_path / "model.skops").exists()


def test_a_loader_cannot_be_given_a_type_of_another(tmp_path: Path) -> None:
    """A type that may be an object may not be called as a function, and the reverse."""
    path = write(StandardScaler().fit(inputs()), tmp_path / "model.skops")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(parts["schema.json"])
    for change in ({"__loader__": "FunctionNode"}, {"__loader__": "MethodNode"}, {"protocol": 0}, {"__module__": "os"}):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (parts | {"schema.json": json.dumps(schema | change).encode()}).items():
                archive.writestr(name, content)
        with pytest.raises(InputError, match="not allowed"):
            load_sklearn(path)


def test_a_pickle_in_disguise_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"model\.skops is damaged or was not written by kinfolk"):
        load_sklearn(path)
    write(inputs(), path)  # and a pickle where skops looks for an array
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    array = io.BytesIO()
    np.save(array, np.array([Evil()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, array.getvalue() if name.endswith(".npy") else content)
    with pytest.raises(InputError, match="damaged"):
        load_sklearn(path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    save_sklearn(fitted("forest"), path)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged"):
            load_sklearn(path)
    expected, random = predictions(fitted("forest")), np.random.default_rng(0)
    for place in random.integers(0, len(whole), size=40):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            loaded = load_sklearn(path)
        except InputError:
            continue
        np.testing.assert_array_equal(predictions(loaded), expected)  # a byte that means nothing, a date for one
    with pytest.raises(InputError, match="no file"):
        load_sklearn(tmp_path / "other.skops")


def test_a_deep_file_is_an_input_error(tmp_path: Path) -> None:
    path = write([1], tmp_path / "model.skops")
    with zipfile.ZipFile(path) as archive:
        note = archive.read(NOTE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NOTE, note)
        archive.writestr("schema.json", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="damaged"):
        load_sklearn(path)


@pytest.mark.parametrize("library", ["scikit-learn", "skrub"])
def test_another_minor_version_is_refused(library: str, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    model = DummyRegressor().fit([[0.0]], [0.0])
    save_sklearn(model, path)
    with zipfile.ZipFile(path) as archive:
        note = json.loads(archive.read(NOTE))
    note["versions"][library] = "0.3.1"
    with pytest.raises(InputError, match=f"written with {library} 0.3.1, here is"):
        load_sklearn(write(model, path, note))
    with pytest.raises(InputError, match="must have format 1"):
        load_sklearn(write(model, path, note | {"format": 2}))


def test_the_number_of_columns_is_compared(tmp_path: Path) -> None:
    for name in ("ridge", "forest", "boosting"):
        save_sklearn([fitted(name)], tmp_path / "model.skops")
        with pytest.raises(InputError, match="reads 4 columns, the table has 5"):
            load_sklearn(tmp_path / "model.skops", features=5)


def crafted(name: str, key: str, change: Any) -> dict[str, Any]:
    packed = trees.pack(fitted(name))
    value = packed[key]
    packed[key] = change(value.copy() if isinstance(value, np.ndarray) else value)
    return packed


def put(place: int, number: float) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = number
        return array

    return change


@pytest.mark.parametrize("name", ["forest", "forest of classes", "boosting", "boosting, classes"])
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("left", put(0, 10_000_000)),  # outside of all nodes
        ("right", put(0, 10_000_000)),
        ("right", put(0, 2_147_483_647)),
        ("left", put(0, -1)),  # before its parent
        ("right", put(1, -1)),  # back to the root: a cycle
        ("left", put(0, 2)),  # two parents, or none
        ("left", put(0, 0)),  # one child
        ("right", lambda right: np.where(right > 0, 1, 0)),  # both children the same
        ("left", lambda left: left[:-1]),
        ("left", lambda left: left.astype(float)),
        ("left", lambda left: left.astype(object)),
        ("left", lambda left: left[:, None]),
        ("left", lambda left: left.tolist()),
        ("feature", put(0, 4)),
        ("feature", put(0, -3)),
        ("feature", put(0, 2_000_000_000)),
        ("features", lambda _: 0),
        ("features", lambda _: 10**12),
        ("features", lambda _: "4"),
        ("threshold", lambda threshold: threshold[:-1]),
        ("missing", lambda missing: missing[:-1]),
        ("value", lambda value: value[:-1]),
        ("value", lambda value: np.hstack([value, value])),
        ("value", lambda value: value[:, 0]),
        ("value", put(0, np.nan)),
        ("sizes", put(0, 1)),
        ("sizes", put(0, -1)),
        ("sizes", lambda sizes: sizes[:0]),
        ("sizes", lambda sizes: np.array([sizes.sum()], dtype=np.int32)),  # one tree of many roots
        ("trees", lambda _: "RandomForestRegressor"),
        ("trees", lambda _: None),
    ],
)
def test_a_crafted_tree_is_refused_before_scikit_learn_reads_it(
    name: str, key: str, change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write([crafted(name, key, change)], tmp_path / "model.skops")
    for kind in (ExtraTreesRegressor, ExtraTreesClassifier):
        monkeypatch.setattr(kind, "predict", lambda *_: pytest.fail("predicted from a crafted tree"))
    with pytest.raises(InputError, match="damaged or was not written by kinfolk"):
        load_sklearn(path)


@pytest.mark.parametrize("name", ["forest of classes", "boosting, classes"])
@pytest.mark.parametrize(
    "classes", [None, np.zeros(3), np.arange(2.0), np.arange(4.0), np.arange(3.0)[::-1], np.zeros((3, 1)), [0, 1, 2]]
)
def test_classes_that_do_not_fit_are_refused(name: str, classes: Any, tmp_path: Path) -> None:
    path = write(crafted(name, "classes", lambda _: classes), tmp_path / "model.skops")
    with pytest.raises(InputError, match="damaged"):
        load_sklearn(path)


@pytest.mark.parametrize("baseline", [np.zeros(3), np.zeros((1, 2)), np.full((1, 3), np.nan), None])
def test_a_baseline_that_does_not_fit_is_refused(baseline: Any, tmp_path: Path) -> None:
    path = write(crafted("boosting, classes", "baseline", lambda _: baseline), tmp_path / "model.skops")
    with pytest.raises(InputError, match="damaged"):
        load_sklearn(path)


def one_hot() -> OneHotEncoder:
    frame = np.array([["a", "x"], ["b", "y"], ["c", "x"]], dtype=object)
    return OneHotEncoder(drop="if_binary", sparse_output=False).fit(frame)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_n_features_outs", [1, 1]),  # columns of a sparse matrix outside of it
        ("_n_features_outs", [3]),
        ("_drop_idx_after_grouping", np.array([None, 7], dtype=object)),
        ("_drop_idx_after_grouping", np.array([None], dtype=object)),
        ("_infrequent_enabled", True),
        ("categories_", [np.array([3.0, 1.0, 2.0]), np.array(["x", "y"], dtype=object)]),
    ],
)
def test_a_crafted_one_hot_encoder_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    encoder = one_hot()
    save_sklearn(encoder, tmp_path / "model.skops")
    load_sklearn(tmp_path / "model.skops")
    setattr(encoder, name, value)
    with pytest.raises(InputError, match="one-hot"):
        load_sklearn(write(make_pipeline(encoder), tmp_path / "model.skops"))


@pytest.mark.parametrize("column", [10**9, -1, 0])
def test_a_crafted_vocabulary_is_refused(column: int, tmp_path: Path) -> None:
    vectorizer = TfidfVectorizer(use_idf=False).fit(["some words", "other words"])
    vectorizer.vocabulary_ = {word: int(place) for word, place in vectorizer.vocabulary_.items()}
    vectorizer.vocabulary_["words"] = column
    with pytest.raises(InputError, match="vocabulary"):
        load_sklearn(write([vectorizer], tmp_path / "model.skops"))


def test_sizes_inside_a_pipeline_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = fitted("ridge")
    model[-1].coef_ = np.zeros(9)
    with pytest.raises(InputError, match="damaged"):
        load_sklearn(write([model], tmp_path / "model.skops"))

"""Columns find their parts, targets their kinds, and what cannot be learned is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfolk.data.tables import Roles, Table, make_table, read
from kinfolk.exceptions import InputError

ROWS = 12
AT = np.arange(ROWS)


def frame(**columns: object) -> pd.DataFrame:
    base = {
        "size": AT**2 / 7,
        "colour": np.array(["red", "blue", "green"])[AT % 3],
        "price": AT * 1.5,
        "passes": np.array(["yes", "no"])[AT % 2],
        "kind": np.array(["c", "a", "b"])[AT % 3],
        "digit": AT % 4,
        "Jitter:RAP": (AT * 7 % 12) / 3,
    }
    return pd.DataFrame({**base, **columns})


def table(*targets: str, test: pd.DataFrame | None = None, columns: dict | None = None, **roles: object) -> Table:
    return make_table(frame(**(columns or {})), Roles(targets or ("price",), **roles), test)  # type: ignore[arg-type]


def refused(*parts: str, at: tuple[str, ...] = ("price",), **options: object) -> None:
    with pytest.raises(InputError) as caught:
        table(*at, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# Kinds


def test_kinds_by_values() -> None:
    out = table("price", "passes", "kind", "digit", auxiliary=("Jitter:RAP",))
    assert [t.kind for t in out.tasks] == ["regression", "binary", "multiclass", "regression", "regression"]
    assert [t.main for t in out.tasks] == [True] * 4 + [False]
    assert [t.classes for t in out.tasks[:3]] == [(), ("no", "yes"), ("a", "b", "c")]
    np.testing.assert_array_equal(out.labels[:, 0], AT * 1.5)
    np.testing.assert_array_equal(out.labels[:, 1], 1.0 - AT % 2)
    np.testing.assert_array_equal(out.labels[:3, 2], [2, 0, 1])
    assert list(out.features) == ["size", "colour"]
    assert out.labels.dtype == np.float64
    assert out.weight.tolist() == [1.0] * ROWS


@pytest.mark.parametrize(
    ("spec", "values", "kind", "classes"),
    [
        ("y", AT % 2 == 0, "binary", (False, True)),
        ("y", pd.array([True, None, False] * 4, "boolean"), "binary", (False, True)),
        ("y", AT % 2 * 3 - 1, "binary", (-1, 2)),
        ("y", AT % 2 + 0.5, "binary", (0.5, 1.5)),
        ("y:regression", AT % 2, "regression", ()),
        ("y:multiclass", AT % 2, "multiclass", (0, 1)),
        ("y:multiclass", AT % 4, "multiclass", (0, 1, 2, 3)),
        ("y:multiclass", np.where(AT == 0, np.nan, AT % 3), "multiclass", (0, 1, 2)),
        ("y:regression", [f"{v}.5" for v in AT], "regression", ()),
        ("y", pd.Categorical(AT % 3), "multiclass", ("0", "1", "2")),
        ("y", [" b", "a ", "?"] * 4, "binary", ("a", "b")),
        ("y", ["1", "2", "3a", "x"] * 3, "multiclass", ("1", "2", "3a", "x")),
    ],
)
def test_kind_of_a_column(spec: str, values: object, kind: str, classes: tuple) -> None:
    task = table(spec, columns={"y": values}).tasks[0]
    assert (task.name, task.kind, task.classes) == ("y", kind, classes)
    assert [type(c) for c in task.classes] == [type(c) for c in classes]


def test_missing_labels_are_not_observed_and_rows_without_any_stay() -> None:
    out = table("y", columns={"y": [1.0, np.nan, 2.5] * 4})
    assert out.labels.shape == (ROWS, 1)
    assert np.isnan(out.labels[:, 0]).tolist() == [False, True, False] * 4


def test_names_with_colons() -> None:
    assert table("Jitter:RAP").tasks[0].name == "Jitter:RAP"
    assert table("Jitter:RAP:regression").tasks[0].name == "Jitter:RAP"
    both = {"a": AT, "a:binary": AT % 2}
    assert table("a:binary", columns=both).tasks[0].name == "a:binary"
    refused("kind of target price", "'regression'", at=("price:regresion",))
    refused("Unknown target 'prize'", "'price'", at=("prize:regression",))


def test_error_of_a_task() -> None:
    assert table("price", errors={"price": "mae"}).tasks[0].error == "mae"
    refused("'prise'", "'price'", errors={"prise": "mae"})
    refused("price", errors={"price": "1-auc"})


# Roles


def test_weight_group_ignore() -> None:
    columns = {"w": AT / 2, "g": np.array(["x", "y"])[AT % 2]}
    out = table(columns=columns, weight="w", group="g", ignore=("kind", "digit"))
    np.testing.assert_array_equal(out.weight, AT / 2)
    assert out.groups is not None
    np.testing.assert_array_equal(out.groups, AT % 2)
    assert list(out.features) == ["size", "colour", "passes", "Jitter:RAP"]


def test_weights_written_as_text() -> None:
    assert table(columns={"w": [f"{v}" for v in AT]}, weight="w").weight.tolist() == AT.tolist()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"at": ("prise",)}, ("Unknown target 'prise'", "'price'")),
        ({"auxiliary": ("coluor",)}, ("'coluor'", "'colour'")),
        ({"weight": "sizes"}, ("weight column 'sizes'", "'size'")),
        ({"group": "Kind"}, ("group column 'Kind'", "'kind'")),
        ({"split": "digits"}, ("split column 'digits'", "'digit'")),
        ({"ignore": ("sise",)}, ("ignored column 'sise'", "'size'")),
        ({"at": ("price", "price:regression")}, ("'price' is both target and target",)),
        ({"auxiliary": ("price",)}, ("'price' is both",)),
        ({"weight": "price"}, ("'price' is both target and weight column",)),
        ({"ignore": ("kind",), "group": "kind"}, ("'kind' is both",)),
        ({"ignore": ("size", "colour", "passes", "kind", "digit", "Jitter:RAP")}, ("At least one feature",)),
    ],
)
def test_roles_that_cannot_be(options: dict, parts: tuple[str, ...]) -> None:
    refused(*parts, **options)


def test_a_target_is_needed() -> None:
    with pytest.raises(InputError, match="At least one target"):
        make_table(frame(), Roles(()))


def test_duplicate_and_odd_column_names() -> None:
    with pytest.raises(InputError, match="'a'"):
        make_table(pd.DataFrame([[1, 2, 3]] * 4, columns=["a", " a", "b"]), Roles(("b",)))
    numbered = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 3)))
    assert list(make_table(numbered, Roles(("2",))).features) == ["0", "1"]


# Targets that cannot be learned


@pytest.mark.parametrize(
    ("spec", "values", "parts"),
    [
        ("y", [1] * ROWS, ("must vary", "'1'")),
        ("y", ["a", None] * 6, ("must vary", "'a'")),
        ("y", [None] * ROWS, ("All 12 are missing",)),
        ("y", ["?"] * ROWS, ("missing",)),
        ("y", ["1", "2", "3", "x7"] * 3, ("Data row 4", "'x7'", "--missing 'x7'")),
        ("y:regression", ["a", "b", "c"] * 4, ("Data row 1", "'a'")),
        ("y", [1.0, np.inf, 2.0] * 4, ("finite", "Data row 2")),
        ("y:binary", AT % 3, ("two values", "3: '0', '1', '2'")),
        ("y", [f"id{i}" for i in AT], ("identifier", "12")),
        ("y:multiclass", AT, ("identifier",)),
        ("y", pd.date_range("2020-01-01", periods=ROWS), ("dates",)),
        ("y", [[1], [2]] * 6, ("'y'", "list")),
        ("y", AT + 1j, ("'y'", "complex")),
    ],
)
def test_targets_that_cannot_be_learned(spec: str, values: object, parts: tuple[str, ...]) -> None:
    refused("'y'", *parts, at=(spec,), columns={"y": values})


def test_too_many_classes() -> None:
    many = pd.DataFrame({"a": np.arange(303) ** 2, "y": [f"c{i % 101}" for i in range(303)]})
    with pytest.raises(InputError, match=r"at most 100 classes\. It has 101"):
        make_table(many, Roles(("y",)))


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (np.where(AT == 3, np.nan, 1.0), ("missing in data row 4",)),
        (np.where(AT == 3, -1.0, 1.0), ("negative in data row 4",)),
        (np.where(AT == 3, np.inf, 1.0), ("infinite in data row 4",)),
        (["1"] * 11 + ["x"], ("numbers", "Data row 12", "'x'")),
        (np.zeros(ROWS), ("above 0",)),
        ([""] * ROWS, ("missing in data row 1",)),
    ],
)
def test_weights_that_cannot_be(values: object, parts: tuple[str, ...]) -> None:
    refused("Weight column 'w'", *parts, columns={"w": values}, weight="w")


def test_groups_that_cannot_be() -> None:
    refused("Group column 'g'", "Data row 2", columns={"g": ["a", None, "b"] * 4}, group="g")
    refused("Group column 'g'", "one, 'a'", columns={"g": ["a"] * ROWS}, group="g")


# Features


def test_constant_empty_infinite_and_counting_features() -> None:
    columns = {"same": 1, "none": None, "far": np.where(AT == 2, np.inf, AT / 3), "Unnamed: 0": AT, "id": AT + 1}
    out = table(columns=columns)
    assert not {"same", "none", "Unnamed: 0"} & set(out.features)
    assert np.isnan(out.features["far"][2])
    text = "\n".join(out.warnings)
    assert all(part in text for part in ("'same'", "'none'", "'far'", "data row 3", "'Unnamed: 0'", "--ignore id"))
    assert table().warnings == ()


def test_text_features_that_are_numbers_become_numbers() -> None:
    assert table(columns={"n": [f" {i}.5" for i in AT]}).features["n"].tolist() == (AT + 0.5).tolist()


# Test rows


@pytest.mark.parametrize(
    "values",
    [["test", "train", "Train "], [1, 0, 0], [True, False, False], ["yes", "no", "no"], ["TRUE", "False", "0"]],
)
def test_split_column(values: list) -> None:
    out = table(columns={"part": values * 4}, split="part")
    assert out.test is not None
    assert out.test.tolist() == [True, False, False] * 4
    assert "part" not in out.features


def test_split_columns_that_cannot_be() -> None:
    refused("Split column 'p'", "Data row 3", "'valid'", columns={"p": ["test", "train", "valid"] * 4}, split="p")
    refused("Split column 'p'", "holds nothing", columns={"p": ["test", "train", None] * 4}, split="p")
    refused("Split column 'p'", "All are 'train'", columns={"p": "train"}, split="p")


def test_test_table_is_appended() -> None:
    more = frame(extra=1).drop(columns=["digit"]).iloc[:5]
    out = table("price", "kind", ignore=("digit",), test=more)
    assert out.test is not None
    assert out.test.tolist() == [False] * ROWS + [True] * 5
    assert out.features.shape == (ROWS + 5, 4)
    assert out.features.index.tolist() == list(range(ROWS + 5))
    np.testing.assert_array_equal(out.labels[:5], out.labels[ROWS:])


def test_test_tables_that_cannot_be() -> None:
    refused("test table", "'size'", test=frame().rename(columns={"size": "sizes"}))
    refused("test table", "'price'", test=frame().drop(columns=["price"]))
    refused("'size'", "numbers", "data row 2", test=frame(size=["1", "x"] * 6))
    refused("test rows", "'price'", test=frame(price=None))
    refused("rows", test=frame().iloc[:0])


def test_test_table_keeps_the_types_of_the_other() -> None:
    codes = {"code": np.array(["1", "2", "A"])[AT % 3]}
    out = table(columns=codes, test=frame(code=AT % 2 + 1.0, size=[str(v) for v in AT]))
    assert out.features["code"].tolist()[ROWS:][:2] == ["1", "2"]
    assert out.features["size"].dtype == float


def test_a_class_of_test_rows_only_is_named() -> None:
    out = table("kind", test=frame(kind=np.array(["a", "b", "new"])[AT % 3]))
    assert out.tasks[0].classes == ("a", "b", "c", "new")
    assert any("'new'" in text for text in out.warnings)
    refused("must vary in the training rows", test=frame(), columns={"price": 1.0})


# Properties

cell = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["1", "x", "?", "2020-1-1"]),
)


@given(
    columns=st.dictionaries(st.text(min_size=1, max_size=3), st.lists(cell, min_size=6, max_size=6), max_size=4),
    target=st.lists(cell, min_size=6, max_size=6),
    kind=st.sampled_from(["", ":regression", ":binary", ":multiclass"]),
    role=st.sampled_from(["weight", "group", "split", "test", ""]),
)
@settings(deadline=None, max_examples=60)
def test_no_frame_ends_in_anything_but_a_table_or_a_line(columns: dict, target: list, kind: str, role: str) -> None:
    random = pd.DataFrame({**columns, "target": pd.Series(target, dtype=object)})
    extra = {role: next(iter(columns))} if columns and role not in ("", "test") else {}
    try:
        out = make_table(random, Roles((f"target{kind}",), **extra), random if role == "test" else None)
    except InputError:
        return
    assert out.labels.shape == (len(out.features), 1)
    assert not np.isinf(out.labels).any()
    assert not np.isinf(out.features.select_dtypes("number").to_numpy(float)).any()


# Real files


def test_real_files(data_folder: Path) -> None:
    adult = data_folder / "adult"
    roles = Roles(("classification", "marital-status", "occupation"))
    out = make_table(read(adult / "adult.data"), roles, read(adult / "adult.test"), name="adult.data")
    assert [t.size for t in out.tasks] == [1, 7, 14]
    assert out.features.shape == (48842, 12)
    assert out.test is not None
    assert out.test.sum() == 16281
    parkinsons = read(data_folder / "parkinsons_telemonitoring" / "parkinsons_updrs.data")
    out = make_table(parkinsons, Roles(("motor_UPDRS", "total_UPDRS"), ("Jitter:RAP",), group="subject#"))
    assert out.groups is not None
    assert len(np.unique(out.groups)) == 42
    tox = make_table(read(data_folder / "moleculenet" / "tox21.csv"), Roles(("NR-AR", "SR-p53")))
    assert [t.kind for t in tox.tasks] == ["binary", "binary"]
    assert np.isnan(tox.labels).any()

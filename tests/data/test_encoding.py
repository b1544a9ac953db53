"""Encoding learns from the fitted rows alone, always gives finite numbers or NaN, and knows its columns again."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfolk.data import memory
from kinfolk.data.columns import tidy
from kinfolk.data.encoding import Encoder, check_memory, expected_columns
from kinfolk.data.reading import read
from kinfolk.data.tables import Roles, make_table
from kinfolk.exceptions import InputError

ROWS = 90
AT = np.arange(ROWS)


def frame(rows: int = ROWS) -> pd.DataFrame:
    out = pd.DataFrame(
        {
            "colour": np.array(["red", "blue", "green", None], dtype=object)[AT % 4],
            "size": np.where(AT % 5 == 0, np.nan, AT / 3),
            "on": AT % 2 == 0,
            "maybe": pd.array([True, None, False] * (ROWS // 3), "boolean"),
            "day": [f"2021-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in AT],
            "remark": [f"word{i} and number {i * 37 % 91}" for i in AT],
            "answer": np.array(["yes", "no"])[AT % 2],
            "empty": [np.nan] * ROWS,
            "stamp": pd.date_range("2020-01-01", periods=ROWS, freq="7h"),
        }
    )
    return out.iloc[:rows].reset_index(drop=True)


def test_kinds_names_and_values() -> None:
    encoder = Encoder().fit(frame())
    assert encoder.columns == {
        "colour": "category",
        "size": "numeric",
        "on": "numeric",
        "maybe": "numeric",
        "day": "date",
        "remark": "text",
        "answer": "category",
        "stamp": "date",
    }
    assert encoder.names[:3] == ("size", "on", "maybe")
    assert {"colour_blue", "colour_nan", "answer_yes", "day_year", "stamp_hour", "remark_0"} <= set(encoder.names)
    assert "answer_no" not in encoder.names
    out = pd.DataFrame(encoder.transform(frame()), columns=list(encoder.names))
    assert set(out.dtypes) == {np.dtype("float32")}
    np.testing.assert_allclose(out["size"], frame()["size"].astype(np.float32))
    np.testing.assert_array_equal(out["on"], 1.0 - AT % 2)
    assert np.isnan(out["maybe"].tolist()[1])
    np.testing.assert_array_equal(out["colour_red"], AT % 4 == 0)
    np.testing.assert_array_equal(out["colour_nan"], AT % 4 == 3)
    np.testing.assert_array_equal(out["day_month"], 1 + AT % 12)
    assert not out.drop(columns=["size", "maybe"]).isna().to_numpy().any()
    assert len(encoder.names) <= expected_columns(frame())


def test_every_feature_knows_its_column() -> None:
    made = frame().assign(on_off=np.array(["yes", "no"])[AT % 2])
    encoder = Encoder().fit(made)
    found = Encoder.from_state(encoder.state(), encoder.sklearn).origins
    assert tuple(found) == encoder.names
    assert found["size"] == ("size", "")
    assert found["colour_nan"] == ("colour", "nan")
    assert found["on_off_yes"] == ("on_off", "yes")
    assert found["stamp_total_seconds"] == ("stamp", "total_seconds")
    assert list(dict.fromkeys(column for column, _ in found.values())) == sorted(
        encoder.columns, key=lambda name: encoder.columns[name] != "numeric"
    )


def test_the_same_twice_and_for_any_rows() -> None:
    encoder, again = Encoder().fit(frame()), Encoder().fit(frame())
    np.testing.assert_array_equal(encoder.transform(frame()), again.transform(frame()))
    part = frame().iloc[20:30].reset_index(drop=True)
    np.testing.assert_allclose(encoder.transform(part), encoder.transform(frame())[20:30], rtol=1e-5, atol=1e-6)


def test_other_rows_change_nothing_that_was_fitted() -> None:
    odd = frame().assign(colour="pink", size=1e9, answer="perhaps", on=False)
    encoder = Encoder().fit(frame())
    before = encoder.transform(frame())
    out = pd.DataFrame(encoder.transform(odd), columns=list(encoder.names))
    assert not out.filter(like="colour_").to_numpy().any()
    assert not out["answer_yes"].to_numpy().any()
    np.testing.assert_array_equal(encoder.transform(frame()), before)


def test_missing_everywhere_in_the_rows_to_transform() -> None:
    encoder = Encoder().fit(frame())
    blank = frame(4)
    for name in blank:
        blank[name] = None
    out = pd.DataFrame(encoder.transform(blank), columns=list(encoder.names))
    assert out[["size", "on", "day_year"]].isna().to_numpy().all()
    assert np.isfinite(out.filter(regex="colour|remark|answer").to_numpy()).all()
    checked, notes = encoder.check(blank)
    np.testing.assert_array_equal(encoder.transform(checked), out.to_numpy())
    assert notes == []


def test_numbers_only_need_no_vectorizer() -> None:
    encoder = Encoder().fit(pd.DataFrame({"b": [1, 2], "a": [0.5, np.nan]}))
    assert encoder.sklearn is None
    assert encoder.names == ("b", "a")


def test_no_value_at_all() -> None:
    with pytest.raises(InputError, match="At least one feature"):
        Encoder().fit(pd.DataFrame({"a": [None, None]}))


def test_names_that_clash_stay_apart() -> None:
    columns = {"a": ["b_c", "x", "y"] * 9, "a_b": ["c", "x", "y"] * 9, "a_b_c": np.arange(27)}
    encoder = Encoder().fit(pd.DataFrame(columns))
    assert len(set(encoder.names)) == len(encoder.names) == 7
    assert encoder.names == Encoder().fit(pd.DataFrame(columns)).names
    np.testing.assert_array_equal(encoder.transform(pd.DataFrame(columns))[:, 0], np.arange(27))


def test_numbers_that_float32_would_round_off() -> None:
    large = pd.DataFrame({"t": 1.7e18 + AT * 1e9, "tiny": AT * 1e-42, "huge": (AT - 40) * 1e306, "flat": 3e12})
    out = Encoder().fit(large).transform(large)
    assert np.isfinite(out).all()
    assert all(len(np.unique(out[:, at])) == ROWS for at in range(3))
    assert (np.diff(out[:, :3], axis=0) > 0).all()
    far = Encoder().fit(large).transform(large.assign(t=np.inf, huge=-1e308))
    assert not np.isinf(far).any()


def test_small_tables_do_not_get_a_column_for_each_text() -> None:
    names = pd.DataFrame({"name": [f"pupil {i}" for i in range(20)], "size": range(20)})
    encoder = Encoder().fit(names)
    assert encoder.columns["name"] == "text"
    assert encoder.transform(names).shape == (20, 3)


# Predictions


def test_check_takes_what_means_the_same() -> None:
    encoder = Encoder().fit(frame())
    new = frame(9)[["answer", "colour", "stamp", "remark", "day", "maybe", "on", "size"]].assign(more=1)
    new["size"] = [" 1.5", "?", "2", "3", "4", "5", "6", "7", "1e1"]
    new["on"] = np.arange(9) % 2
    new["maybe"] = ["True", "", "false"] * 3
    new["day"] = pd.to_datetime(new["day"])
    checked, notes = encoder.check(new)
    assert notes == []
    out = pd.DataFrame(encoder.transform(checked), columns=list(encoder.names))
    np.testing.assert_array_equal(out["size"], [1.5, np.nan, 2, 3, 4, 5, 6, 7, 10])
    assert np.isnan(out["maybe"][1])
    np.testing.assert_array_equal(out["day_month"], 1 + AT[:9] % 12)


def test_numbers_for_categories() -> None:
    encoder = Encoder().fit(pd.DataFrame({"code": ["1", "2", "A"] * 10}))
    checked, notes = encoder.check(pd.DataFrame({"code": [1.0, 2.0, np.nan]}))
    assert notes == []
    np.testing.assert_array_equal(encoder.transform(checked), [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_unseen_categories_warn() -> None:
    encoder = Encoder().fit(frame())
    checked, notes = encoder.check(frame(8).assign(colour=["pink", "red"] * 4))
    assert len(notes) == 1
    assert all(part in notes[0] for part in ("'colour'", "'pink'", "4 rows"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(encoder.transform(checked)[:, encoder.names.index("colour_red")]).all()


def test_infinities_warn() -> None:
    encoder = Encoder().fit(frame())
    checked, notes = encoder.check(frame(4).assign(size=[1, np.inf, 2, 3]))
    assert "'size' is infinite" in notes[0]
    assert np.isnan(checked["size"][1])


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda f: f.drop(columns=["size"]).assign(Size=1), ("lacks 'size'", "'Size'")),
        (lambda f: f[["size"]], ("lacks 'colour' and 6 more",)),
        (lambda f: f.assign(size=["1", "x", "2", "3"]), ("'size'", "numbers", "Data row 2", "'x'")),
        (lambda f: f.assign(on="perhaps"), ("'on'", "numbers", "'perhaps'")),
        (lambda f: f.assign(size=pd.Timestamp("2020-01-01")), ("'size'", "numbers")),
        (lambda f: f.assign(day=["2021-01-01", "soon", "", "?"]), ("'day'", "dates", "Data row 2", "'soon'")),
        (lambda f: f.assign(stamp=[1, 2, 3, "x"]), ("'stamp'", "dates")),
    ],
)
def test_tables_that_do_not_fit_the_model(
    change: Callable[[pd.DataFrame], pd.DataFrame], parts: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        Encoder().fit(frame()).check(change(frame(4)))
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_columns_that_were_empty_are_not_asked_for() -> None:
    checked, _ = Encoder().fit(frame()).check(frame(4).drop(columns=["empty"]))
    assert "empty" not in checked


# Saving


def test_state_and_vectorizer_hold_the_encoder(tmp_path: Path) -> None:
    import skops.io

    encoder = Encoder().fit(frame())
    path = tmp_path / "encoder.skops"
    skops.io.dump(encoder.sklearn, path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    types = skops.io.get_untrusted_types(file=path)
    assert all(name.startswith("skrub.") for name in types)
    state = json.loads(json.dumps(encoder.state()))
    again = Encoder.from_state(state, skops.io.load(path, trusted=types))
    np.testing.assert_array_equal(again.transform(frame()), encoder.transform(frame()))
    assert (again.names, again.schema) == (encoder.names, encoder.schema)


# Memory


def test_a_table_too_wide_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    check_memory(1000, 1000)
    with pytest.raises(InputError, match=r"need about 12 GB; 1 GB are free") as caught:
        check_memory(10**6, 1000)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="memory"):
        Encoder().fit(frame())
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_memory(10**9, 10**6)


def test_memory_is_known_here() -> None:
    there = memory.available_memory()
    assert there is None or there > 0


# Properties

cell = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4))
columns = st.dictionaries(
    st.text(min_size=1, max_size=3), st.lists(cell, min_size=12, max_size=12), min_size=1, max_size=3
)


@given(columns=columns, other=st.lists(cell, min_size=12, max_size=12))
@settings(deadline=None, max_examples=40)
def test_any_frame_encodes_to_finite_numbers_or_is_refused(columns: dict, other: list) -> None:
    try:
        raw = tidy(pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()}))
        encoder = Encoder().fit(raw)
    except InputError:
        return
    out = encoder.transform(raw)
    assert out.shape == (12, len(encoder.names))
    assert not np.isinf(out).any()
    np.testing.assert_array_equal(out, Encoder().fit(raw).transform(raw))
    first = next(iter(encoder.columns))
    try:
        checked, _ = encoder.check(raw.assign(**{first: pd.Series(other, dtype=object)}))
    except InputError:
        return
    assert not np.isinf(encoder.transform(checked)).any()


# Real files


def test_real_files(data_folder: Path) -> None:
    roles = Roles(("classification", "marital-status", "occupation"))
    adult = make_table(read(data_folder / "adult" / "adult.data"), roles)
    encoder = Encoder().fit(adult.features)
    out = encoder.transform(adult.features)
    assert out.shape == (32561, len(encoder.names))
    assert np.isfinite(out).all()
    assert encoder.columns["native-country"] == "category"

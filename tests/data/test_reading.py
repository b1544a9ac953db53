"""Files of every form are read alike, and what is no table ends in one line that says why."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinfolk.data.columns import MISSING
from kinfolk.data.reading import read, sniff
from kinfolk.exceptions import InputError

FRAME = pd.DataFrame(
    {
        "name": ["Ann, M.", "Bjørn; O", "Çelik", 'say "hi"'],
        "size": [1.5, -2e-7, np.nan, 1e300],
        "count": [1, -2, 3, 40],
        "on": [True, False, True, True],
    }
)
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# Forms


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_pandas_writes_is_read_back(tmp_path: Path, separator: str, quoting: int, end: str) -> None:
    path = tmp_path / "a.csv"
    FRAME.to_csv(path, sep=separator, quoting=quoting, index=False, lineterminator=end)
    pd.testing.assert_frame_equal(read(path), FRAME)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("compress", [False, True])
def test_encodings_and_gzip(tmp_path: Path, encoding: str, compress: bool) -> None:
    data = FRAME.to_csv(index=False).encode(encoding)
    # The content decides, not the name.
    path = write(tmp_path / "a.txt", gzip.compress(data) if compress else data)
    pd.testing.assert_frame_equal(read(path), FRAME)


def test_bytes_that_windows_1252_lacks_are_latin_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"a,b\n\xe9\x81,1\n")
    assert read(path)["a"].tolist() == ["é\x81"]


def test_spaces_are_stripped_and_marks_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a , b, c\n 1 ,  x,?\nNA, ?,  2\n 3,none,  unknown \n")
    frame = read(path, missing=["unknown"])
    assert list(frame) == ["a", "b", "c"]
    np.testing.assert_array_equal(frame["a"], [1, np.nan, 3])
    assert frame["b"].isna().tolist() == [False, True, False]
    np.testing.assert_array_equal(frame["c"], [np.nan, 2, np.nan])


@pytest.mark.parametrize("mark", sorted(MISSING))
def test_every_mark_of_missing(tmp_path: Path, mark: str) -> None:
    frame = read(write(tmp_path / "a.csv", f"a,b\n1,x\n{mark},{mark}\n"))
    assert frame.isna().to_numpy().tolist() == [[False, False], [True, True]]


def test_column_types(tmp_path: Path) -> None:
    text = "int,gap,float,exp,true,text,mixed,huge\n1,1,.5,1e3,TRUE,2020-01-01,1,123456789012345678901\n"
    text += "-2,,-1.,+2E-2,false,x,y,2\n"
    frame = read(write(tmp_path / "a.csv", text))
    kinds = ["int64", "float64", "float64", "float64", "bool", "str", "str", "float64"]
    assert frame.dtypes.astype(str).tolist() == kinds
    assert frame["exp"].tolist() == [1000.0, 0.02]


def test_decimal_commas_where_semicolons_separate(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.csv", "a;b\n1,5;x, y\n-2;z\n"))
    assert frame["a"].tolist() == [1.5, -2.0]
    assert frame["b"].tolist() == ["x, y", "z"]


def test_separator_is_that_of_the_header_not_of_the_texts(tmp_path: Path) -> None:
    text = "id;remark;value\n" + "".join(f"{i};one, two, three, four;{i}\n" for i in range(9))
    assert read(write(tmp_path / "a.csv", text)).shape == (9, 3)
    assert sniff(["a,b;c|d", "1;2", "3;4"]) == ";"


def test_one_column(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.csv", 'remark\n"good, cheap"\nbad\n""\n'))
    assert frame["remark"].tolist()[:2] == ["good, cheap", "bad"]
    assert len(frame) == 3


def test_blank_lines_trailing_separators_excel_hint_and_newlines_in_cells(tmp_path: Path) -> None:
    text = 'sep=;\n\na;b;\n1;"two\nlines";\n\n   \n3;x;\n'
    frame = read(write(tmp_path / "a.csv", text))
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1, 3], "b": ["two\nlines", "x"]}))


def test_rows_that_are_each_one_quoted_string(tmp_path: Path) -> None:
    text = 'name;age;job\n"""Ann"";18;""at; home"""\n"""Bob"";17;""none"""\n'
    frame = read(write(tmp_path / "a.csv", text))
    expected = {"name": ["Ann", "Bob"], "age": [18, 17], "job": ["at; home", "none"]}
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected))
    whole = '"a,b"\n"1,x"\n"2,y"\n'
    pd.testing.assert_frame_equal(read(write(tmp_path / "b.csv", whole)), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))


def test_a_quoted_column_is_not_unwrapped(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.csv", '"remark"\n"a, b"\n"c, d"\n'))
    assert frame["remark"].tolist() == ["a, b", "c, d"]


def test_parquet(tmp_path: Path) -> None:
    frame = FRAME.assign(day=pd.to_datetime(["2020-01-01"] * 4), whole=pd.array([1, None, 3, 4], "Int64"))
    frame.to_parquet(tmp_path / "a.parquet")
    out = read(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(out.loc[:, list(FRAME)], FRAME)
    np.testing.assert_array_equal(out["whole"], [1, np.nan, 3, 4])
    assert out["day"].dtype.kind == "M"


# Bad input


def test_no_such_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "pupils.csv", "a,b\n1,2\n")
    refused(tmp_path / "pupil.csv", "No such file", "Did you mean 'pupils.csv'?")
    refused(tmp_path / "none" / "x.csv", "No such file")
    refused(tmp_path, "directory")


@pytest.mark.parametrize("data", [b"", b"  \n\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, gzip.compress(b"", mtime=0)])
def test_empty(tmp_path: Path, data: bytes) -> None:
    refused(write(tmp_path / "a.csv", data), "empty")


def test_header_only(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "a,b,c\n"), "header and no rows")
    pd.DataFrame({"a": []}).to_parquet(tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "rows")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytes(range(256)) * 20, "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary"),
        (b"PK\x03\x04rest", "Excel"),
        (b"@relation x\n@data\n1,2\n", "ARFF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PAR1 but not really", "damaged Parquet"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "damaged gzip"),
        (b"\xff\xfea", "marked as utf-16"),
    ],
)
def test_not_a_table(tmp_path: Path, data: bytes, says: str) -> None:
    refused(write(tmp_path / "a.csv", data), says)


def test_ragged_rows_name_the_line(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "a,b,c\n1,2,3\n4,5\n"), "Line 3 has 2", "3 cells")
    refused(write(tmp_path / "b.csv", 'a,b\n1,"x\ny"\n\n4,5,6\n'), "Line 5 has 3")
    refused(write(tmp_path / "c.csv", "sep=;\na;b\n1;2\n3\n"), "Line 4 has 1")


def test_a_quote_that_never_closes(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", 'a,b\n1,2\n3,"x\n4,5\n6,7\n'), "line 3", "quote")


def test_duplicate_columns(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "a,b, a\n1,2,3\n"), "Columns 1, 3", "'a'")
    refused(write(tmp_path / "b.csv", "1,1\n1,2\n"), "Is the first line a header?")


def test_cells_that_are_lists(tmp_path: Path) -> None:
    pd.DataFrame({"a": [[1], [2]], "b": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "'a'", "single")


# Properties

cells = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["", "?", "NA", " x ", '"', '""', "a,b", "1;2", "\n", "é", "true", "inf", "2020-01-01", "'"]),
    st.text(max_size=8),
)


@given(
    rows=st.lists(st.lists(cells, max_size=4), max_size=6),
    separator=st.sampled_from([",", ";", "\t", "|", " "]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1", "cp037", "utf-7"]),
    cut=st.integers(0, 3),
    squeeze=st.booleans(),
)
@quick
def test_no_text_ends_in_anything_but_a_table_or_a_line(
    tmp_path: Path, rows: list[list[str]], separator: str, encoding: str, cut: int, squeeze: bool
) -> None:
    data = "\n".join(separator.join(row) for row in rows).encode(encoding, "replace")
    data = data[: len(data) - cut] if cut else data
    reads_or_refuses(tmp_path, gzip.compress(data) if squeeze else data)


@given(data=st.binary(max_size=200))
@quick
def test_no_bytes_end_in_anything_but_a_table_or_a_line(tmp_path: Path, data: bytes) -> None:
    reads_or_refuses(tmp_path, data)
    reads_or_refuses(tmp_path, b"PAR1" + data)
    reads_or_refuses(tmp_path, b"\x1f\x8b" + data)


def reads_or_refuses(folder: Path, data: bytes) -> None:
    try:
        frame = read(write(folder / "random.csv", data))
    except InputError:
        return
    assert min(frame.shape) > 0
    assert set(frame.dtypes.astype(str)) <= {"str", "int64", "float64", "bool", "boolean"}


letters = st.text(st.characters(categories=["L"], max_codepoint=0x2FF), min_size=1, max_size=5)
plain = letters.filter(lambda t: t not in MISSING and t.lower() not in {"true", "false", "inf", "infinity"})


@given(
    table=st.integers(1, 8).flatmap(
        lambda rows: st.tuples(
            st.lists(plain, min_size=rows, max_size=rows),
            st.lists(st.floats(allow_infinity=False), min_size=rows, max_size=rows),
            st.lists(st.integers(-(10**17), 10**17), min_size=rows, max_size=rows),
            st.lists(st.booleans(), min_size=rows, max_size=rows),
        )
    ),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@quick
def test_round_trip(tmp_path: Path, table: tuple, separator: str, quoting: int, encoding: str) -> None:
    texts, floats, integers, truth = table
    frame = pd.DataFrame({"text": texts, "float": floats, "int": integers, "truth": truth})
    path = tmp_path / "round.csv"
    frame.to_csv(path, sep=separator, quoting=quoting, index=False, encoding=encoding)
    out = read(path)
    assert out["text"].tolist() == texts
    np.testing.assert_array_equal(out["float"].astype(float), floats)  # bit for bit
    assert out["int"].tolist() == integers
    assert out["truth"].tolist() == truth


# Real files


def test_real_files(data_folder: Path) -> None:
    path = data_folder / "student_performance" / "student-mat-original.csv"
    lines = path.read_text().splitlines()
    unwrapped = [lines[0]] + [line[1:-1].replace('""', '"') for line in lines[1:]]
    expected = pd.read_csv(io.StringIO("\n".join(unwrapped)), sep=";")
    assert expected.shape == (395, 33)
    pd.testing.assert_frame_equal(read(path), expected)
    adult = read(data_folder / "adult" / "adult.data")
    assert adult.shape == (32561, 15)
    assert adult["workclass"].isna().to_numpy().sum() == 1836
    assert sorted(set(adult["classification"])) == ["<=50K", ">50K"]
    parkinsons = read(data_folder / "parkinsons_telemonitoring" / "parkinsons_updrs.data")
    assert parkinsons.shape == (5875, 22)
    assert "Jitter:RAP" in parkinsons
    assert not any(str(t) == "str" for t in parkinsons.dtypes)

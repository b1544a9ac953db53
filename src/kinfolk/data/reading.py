"""Reading a table from a file, whatever separator, quoting, encoding or compression it has."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa

from kinfolk.data.columns import check_unique, parse_numbers, tidy
from kinfolk.exceptions import InputError

SEPARATORS = ("\t", ";", ",", "|")
_NO_SEPARATOR = "\x1f"  # the ASCII unit separator: for a file of one column
_SAMPLE = 500  # lines that the separator is guessed from
_CHUNK = 20_000  # rows that are held as Python text at a time
_LONGEST_CELL = 10_000_000  # characters; longer ones come from a quote that is not closed
_WRAPPED = re.compile(r'^\s*"((?:[^"]|"")*)"\s*$')
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TABLES = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"ARROW1", "a Feather file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB 5", "a MATLAB file"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"%PDF", "a PDF document"),
    (b"<?xml", "an XML file"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"@relation", "an ARFF file"),
    (b"@RELATION", "an ARFF file"),
)


def read(path: Path | str, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table from CSV (separated by comma, semicolon, tab or bar; also gzip) or Parquet.

    The first line that is not blank is the header. Cells are stripped of spaces; those that hold a mark of
    :data:`kinfolk.data.columns.MISSING` or of `missing` are missing. A column is numeric if all its cells are
    numbers, boolean if all are true or false (in any case), else text. Decimal commas are read where
    semicolons separate. UTF-8, UTF-16 and UTF-32 are recognised, anything else is taken for Windows-1252.
    Lines that are each one quoted string, as a spreadsheet writes a table that it did not split, are unwrapped.

    Parameters
    ----------
    path
        The file. Its content decides how it is read, not its name.
    missing
        More texts that mean "missing".

    Raises
    ------
    InputError
        If there is no such file, or if it holds no table: what is wrong, in which line.
    """
    path = Path(path)
    data = _load(path)
    if data.startswith(b"PAR1"):
        frame = tidy(_parquet(data, path), missing)
    else:
        text, separator = _delimited(_decode(data, path), path)
        texts = tidy(text, missing).items()
        frame = pd.DataFrame({str(name): parse_numbers(column, separator == ";") for name, column in texts})
    blank = [name for name, column in frame.items() if _unnamed(name) and column.isna().all()]
    frame = frame.drop(columns=blank)  # what a separator at the end of each line leaves
    if frame.empty:
        raise InputError(f"{path.name} must hold a header and rows. It has {frame.shape[0]} by {frame.shape[1]} cells.")
    return frame


def _unnamed(name: object) -> bool:
    return str(name).startswith("Unnamed: ")


def _load(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"A file is needed. {path} is a directory; name the file in it.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"No such file: {path}.{_nearest(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path.name} is a damaged gzip file ({error}). Compress it again.") from None
    if not data.strip():
        raise InputError(f"{path.name} is empty. A table needs a header line and rows.")
    what = next((what for mark, what in _NOT_TABLES if data.lstrip().startswith(mark)), None)
    if what is not None:
        raise InputError(f"{path.name} must be CSV or Parquet. It is {what}; export the table as CSV.")
    return data


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _parquet(data: bytes, path: Path) -> pd.DataFrame:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(pa.BufferReader(data)).to_pandas()
    # pandas' KeyError and TypeError come from metadata that do not fit the columns.
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} is a damaged Parquet file: {str(error).splitlines()[0]}.") from None


def _decode(data: bytes, path: Path) -> str:
    marked = [name for mark, name in _BOMS if data.startswith(mark)][:1]
    encodings = marked or [_without_bom(data), "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        break
    else:
        raise InputError(f"{path.name} is damaged: it is marked as {encodings[0]} but is not. Save it as UTF-8.")
    text = text.removesuffix("\x1a")  # the end-of-file mark of DOS
    odd = sum(text[:100_000].count(chr(code)) for code in range(32) if chr(code) not in "\t\n\r\x0b\x0c")
    if "\x00" in text or odd > len(text[:100_000]) / 100:
        raise InputError(f"{path.name} must be CSV or Parquet. It holds binary data; export the table as CSV.")
    if not text.strip("\ufeff \t\r\n"):
        raise InputError(f"{path.name} is empty. A table needs a header line and rows.")
    return text


def _without_bom(data: bytes) -> str:
    """UTF-16 without a mark has a zero in every other byte wherever it holds Latin letters and digits."""
    head = data[:2000]
    if head[1::2].count(0) > len(head) / 5:
        return "utf-16-le"
    return "utf-16-be" if head[::2].count(0) > len(head) / 5 else "utf-8"


def _delimited(text: str, path: Path) -> tuple[pd.DataFrame, str]:
    """The cells of a text file, all as text, and the separator."""
    lines = list(io.StringIO(text, newline=""))  # ends a line at \n, \r or \r\n, and nowhere else
    hint = re.fullmatch(r'"?sep=(.)"?\s*', lines[0])  # the line that Excel reads its separator from
    first = 1 if hint else 0
    lines = lines[:first] + _unwrap(lines[first:])
    separator = hint[1] if hint else sniff(lines)
    rows = _rows(lines, separator, path, first)
    header = next(rows, (0, []))[1]
    names = [name or f"Unnamed: {at}" for at, name in enumerate(cell.strip() for cell in header)]
    check_unique(names)
    parts: list[list[pa.Array]] = [[] for _ in names]
    checked = (_fit(cells, line, len(names), separator, path) for line, cells in rows)
    while chunk := list(islice(checked, _CHUNK)):
        for part, cells in zip(parts, zip(*chunk, strict=True), strict=True):
            part.append(pa.array(cells, pa.large_string()))
    if not parts or not parts[0]:
        raise InputError(f"{path.name} has a header and no rows. A table needs rows.")
    columns = {name: pd.Series(pa.chunked_array(part), dtype="str") for name, part in zip(names, parts, strict=True)}
    return pd.DataFrame(columns), separator


def sniff(lines: Sequence[str]) -> str:
    """The separator that divides the header and most rows into the same number of cells.

    >>> sniff(["name;price", "pear, green;1,5"])
    ';'
    """
    best, best_score = _NO_SEPARATOR, 0.0
    sample = list(islice((line for line in lines if line.strip()), _SAMPLE))
    for separator in SEPARATORS:
        widths = [len(row) for row in _lenient(sample, separator)]
        width, others = (widths or [1])[0], widths[1:]
        share = sum(w == width for w in others) / max(len(others), 1)
        # A header that alone is divided (no row agrees) still says what separates: the rows are ragged.
        score = (share + 1e-3) * (1 - 1 / max(width, 1))
        if score > best_score:
            best, best_score = separator, score
    return best


def _lenient(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    """Rows until the first that cannot be read."""
    try:
        yield from csv.reader(lines, delimiter=separator, skipinitialspace=True)
    except csv.Error:
        return


def _unwrap(lines: list[str]) -> list[str]:
    """Lines that are each one quoted string, without these quotes if a table lies within; else the lines."""
    sample = [line for line in islice(lines, _SAMPLE) if line.strip()]
    if sum(bool(_WRAPPED.match(line)) for line in sample[1:]) <= len(sample[1:]) / 2:
        return lines
    inner = [_WRAPPED.sub(lambda m: m[1].replace('""', '"') + "\n", line) for line in lines]
    sample = [line for line in islice(inner, _SAMPLE) if line.strip()]
    widths = [len(row) for row in _lenient(sample, sniff(sample))]
    divided = len(widths) > 1 and widths[0] > 1 and sum(w == widths[0] for w in widths) > len(widths) / 2
    return inner if divided else lines


def _rows(lines: list[str], separator: str, path: Path, first: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its first line in the file."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines[first:], delimiter=separator, skipinitialspace=True)
    line = 0
    while True:
        start = line
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path.name}, line {first + start + 1}: {error}. Is a quote not closed?") from None
        if cells is None:
            return
        line = reader.line_num
        if line > start + 1 and first + line == len(lines):
            _check_closed(lines[first + start :], separator, path, first + start + 1)
        if len(cells) > 1 or (cells and (cells[0].strip() or '"' in lines[first + start])):
            yield first + start + 1, cells


def _check_closed(lines: list[str], separator: str, path: Path, line: int) -> None:
    """Refuse a quote that opens in the last row and never closes: it would swallow rows without a word."""
    try:
        list(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise InputError(f"{path.name}, line {line}: a quote opens and never closes. Close or remove it.") from None


def _fit(cells: list[str], line: int, width: int, separator: str, path: Path) -> list[str]:
    if len(cells) == width:
        return cells
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return cells[:width]  # separators at the end of the line
    name = {"\t": "a tab", _NO_SEPARATOR: "none"}.get(separator, f"'{separator}'")
    raise InputError(
        f"Every line of {path.name} must have {width} cells, as the header has. Line {line} has {len(cells)} "
        f"(the separator is {name}). Fix that line, or quote cells that hold the separator."
    )

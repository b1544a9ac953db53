"""Fitted scikit-learn and skrub objects in files, so that loading them never runs code.

The format is that of skops, with three additions. Before anything is built, every node of the file is compared
with a short list of types and ways to build them: what is not on it, is refused. Trees are not written as
objects but as plain arrays, and are built again from them only after the arrays were checked: scikit-learn
follows child and feature indices without looking, and a crafted index would read foreign memory. The versions
that wrote the file stand in it, because attributes of fitted estimators change between versions.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kinfolk import trees
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder

FORMAT = 1
NOTE = "kinfolk.json"
LARGEST = 2**32
"""Bytes that a file may hold once uncompressed; more is an attack or a mistake."""

# skops' way to build a node -> the types that it may build. What scikit-learn 1.9 and skrub 0.11 need for the encoder
# and the opponents; nothing here can call a function that the file names.
_SKRUB = """
    _apply_to_each_col.ApplyToEachCol _check_input.CheckInputDataFrame _clean_categories.CleanCategories
    _clean_null_strings.CleanNullStrings _datetime_encoder.DatetimeEncoder _drop_uninformative.DropUninformative
    _duration_to_float.DurationToFloat _string_encoder.StringEncoder _table_vectorizer.PassThrough
    _table_vectorizer.TableVectorizer _to_datetime.ToDatetime _to_float.ToFloat _to_str.ToStr selectors._base.All
"""
_SKLEARN = """
    decomposition._truncated_svd.TruncatedSVD dummy.DummyClassifier dummy.DummyRegressor
    feature_extraction.text.TfidfTransformer feature_extraction.text.TfidfVectorizer impute._base.MissingIndicator
    impute._base.SimpleImputer linear_model._logistic.LogisticRegression linear_model._ridge.Ridge pipeline.Pipeline
    preprocessing._data.StandardScaler preprocessing._encoders.OneHotEncoder
"""
_NUMBERS = ("bool", "int32", "int64", "float32", "float64")
ALLOWED: dict[str, frozenset[str]] = {
    "JsonNode": frozenset({"builtins.str"}),
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": frozenset(
        {f"builtins.{t}" for t in ("str", "int", "float", "bool")} | {f"numpy.{t}" for t in _NUMBERS}
    ),
    "NdArrayNode": frozenset({"numpy.ndarray", *(f"numpy.{t}" for t in _NUMBERS)}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "ObjectNode": frozenset({f"sklearn.{t}" for t in _SKLEARN.split()} | {f"skrub.{t}" for t in _SKRUB.split()}),
}
# What reading a damaged or crafted archive, and building objects from a crafted schema, raises.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError,
    ImportError, NotImplementedError, RecursionError, MemoryError, OverflowError, ArithmeticError,
)  # fmt: skip


def save_sklearn(obj: Any, path: Path | str) -> None:
    """Write a fitted estimator, or a list of them, compressed.

    Raises
    ------
    TypeError
        If it holds a type that :func:`load_sklearn` would refuse.
    InputError
        If the file cannot be written.
    """
    import skops.io

    path, buffer = Path(path), io.BytesIO()
    skops.io.dump(_packed(obj), buffer, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        if (bad := _refused(json.loads(archive.read("schema.json")))) is not None:
            raise TypeError(f"`obj` must consist of types that can be loaded safely. It holds {bad}.")
        archive.writestr(NOTE, json.dumps({"format": FORMAT, "versions": _versions()}))
    Folder(path.parent).write_bytes(path.name, buffer.getvalue())


def load_sklearn(path: Path | str, features: int | None = None) -> Any:
    """Read what :func:`save_sklearn` wrote; runs no code that the file names.

    Parameters
    ----------
    path
        The file.
    features
        How many columns the estimators must read, where that is known.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, was written by other versions, holds a type that is not allowed,
        or a tree that points outside of itself.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        return _read(path, features)
    except InputError:
        raise
    except _DAMAGED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} is damaged or was not written by kinfolk: {why[:300]}. Train the model again."
        ) from error


def _read(path: Path, features: int | None) -> Any:
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise ValueError(f"it holds more than {LARGEST >> 30} GiB")
        _check_versions(path, json.loads(archive.read(NOTE)))
        schema = json.loads(archive.read("schema.json"))
    if (bad := _refused(schema)) is not None:
        raise InputError(
            f"{path} could run code: it holds {bad}, which is not allowed. Load only models that kinfolk wrote."
        )
    with warnings.catch_warnings():
        # The versions were compared above; another bug-fix release is no reason to warn.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        found = skops.io.loads(content, trusted=sorted(frozenset().union(*ALLOWED.values())))
    for part in _parts(found):
        _check_part(part)
    return _unpacked(found, features)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("scikit-learn", "skrub", "skops", "numpy")}


def _check_versions(path: Path, note: Any) -> None:
    """Refuse another format, or another minor version of the libraries whose attributes the file holds."""
    if note["format"] != FORMAT:
        raise InputError(f"{path} must have format {FORMAT}. It has {note['format']!r}. Train the model again.")
    for name, ours in _versions().items():
        theirs = str(note["versions"][name])
        if name in ("scikit-learn", "skrub") and theirs.split(".")[:2] != ours.split(".")[:2]:
            raise InputError(
                f"{path} was written with {name} {theirs}, here is {ours}. Train the model again, or install {theirs}."
            )


def _refused(schema: Any) -> str | None:
    """The first node of a skops file that is not on the list, or None. Walks without recursion."""
    from skops.io._protocol import PROTOCOL

    if schema["protocol"] != PROTOCOL:
        return f"the skops protocol {schema['protocol']!r}"
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict):
            continue
        waiting += node.values()
        if "__loader__" in node or "__class__" in node:
            name, loader = f"{node.get('__module__')}.{node.get('__class__')}", str(node.get("__loader__"))
            if name not in ALLOWED.get(loader, ()):
                return f"the type {name} ({loader})"
    return None


def _parts(value: Any) -> Iterator[Any]:
    """Every estimator inside a loaded object."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        elif type(part).__module__.partition(".")[0] in ("sklearn", "skrub"):
            yield part
            waiting += vars(part).values()


def _check_part(part: Any) -> None:
    """Check the numbers that compiled code takes for positions, outside of trees: columns of sparse matrices."""
    kind = type(part).__name__
    if kind == "TfidfVectorizer" and hasattr(part, "vocabulary_"):
        if sorted(part.vocabulary_.values()) != list(range(len(part.vocabulary_))):
            raise ValueError("the columns of a vocabulary are not 0, 1, 2, ...")
    elif kind == "OneHotEncoder" and hasattr(part, "categories_"):
        dropped = part._drop_idx_after_grouping
        dropped = [None] * len(part.categories_) if dropped is None else list(dropped)
        if part._infrequent_enabled or len(dropped) != len(part.categories_):
            raise ValueError("a one-hot encoder has columns that do not fit its categories")
        widths = []
        for categories, drop in zip(part.categories_, dropped, strict=True):
            exact = categories.dtype.kind in "OUS" or bool(np.all(np.diff(categories) > 0))
            if not exact or not (drop is None or 0 <= int(drop) < len(categories)):
                raise ValueError("a one-hot encoder has categories out of order, or drops one that is not there")
            widths.append(len(categories) - (drop is not None))
        if list(part._n_features_outs) != widths:
            raise ValueError("a one-hot encoder has columns that do not fit its categories")


def _packed(obj: Any) -> Any:
    """An object, or a list of objects, with trees as arrays."""
    if isinstance(obj, list):
        return [_packed(one) for one in obj]
    return trees.pack(obj) if type(obj).__name__ in trees.KINDS else obj


def _unpacked(found: Any, features: int | None) -> Any:
    """What :func:`_packed` was given; estimators are tried on one row, so that sizes that do not fit are found here."""
    if isinstance(found, list):
        return [_unpacked(one, features) for one in found]
    estimator: Any = trees.unpack(found) if isinstance(found, dict) else found
    reads = getattr(estimator, "n_features_in_", None)
    if features is not None and reads != features:
        raise ValueError(f"an estimator reads {reads} columns, the table has {features}")
    if hasattr(estimator, "predict") and estimator is found:
        if not isinstance(reads, int) or not 0 < reads <= trees.MOST_FEATURES:
            raise ValueError(f"an estimator reads {reads} columns")
        estimator.predict(np.full((1, reads), 0.5))
    return estimator

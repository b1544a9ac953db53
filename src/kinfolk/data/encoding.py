"""Raw feature columns -> numbers: fitted inside a split, and checked before a prediction."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from kinfolk.data.columns import as_text, column_of, shown, tidy
from kinfolk.data.kinds import TEXT_COMPONENTS, Column, dates, describe, numbers, width
from kinfolk.data.memory import check_memory
from kinfolk.exceptions import InputError, unknown

__all__ = ["Column", "Encoder", "check_memory", "expected_columns"]

_MOST_NGRAMS = 1000  # the most frequent ones; their components are what a saved text encoder weighs
# Float32 resolves 1 in 16 million: columns beyond these magnitudes are standardised in float64 first.
_LARGE, _SMALL = 1e6, 1e-6
_FARTHEST = 1e18  # its square is a float32


class Encoder:
    """Encode feature columns as numbers; nothing is learned but from the rows given to :meth:`fit`.

    Numbers pass (missing cells stay NaN, truth values are 0 and 1), texts of at most 60 distinct values become
    one-hot columns (a category that was not in the fitted rows: all zero), longer texts the leading components of
    their character n-grams, dates year, month, day, hour and seconds: skrub's ``TableVectorizer`` with the kinds
    fixed here, so that they cannot change between :meth:`fit` and :meth:`transform`.

    Parameters
    ----------
    seed
        Of the randomised decomposition of texts.

    Attributes
    ----------
    schema
        Column -> :class:`Column`, in the order of the fitted table.
    names
        Of the encoded features, numeric ones first.
    sklearn
        The fitted ``TableVectorizer`` of the columns that are not numeric, or None where all are.

    Examples
    --------
    >>> frame = pd.DataFrame({"size": [1.5, None, 3.0], "colour": ["red", "blue", "green"]})
    >>> encoder = Encoder().fit(frame)
    >>> encoder.names
    ('size', 'colour_blue', 'colour_green', 'colour_red')
    >>> encoder.transform(frame)[0].tolist()
    [1.5, 0.0, 0.0, 1.0]
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.schema: dict[str, Column] = {}
        self.names: tuple[str, ...] = ()
        self.sklearn: Any = None
        self._scales: dict[str, tuple[float, float, float]] = {}

    @property
    def columns(self) -> dict[str, str]:
        """Column -> kind, of the columns that are encoded."""
        return {name: column.kind for name, column in self.schema.items() if column.kind != "empty"}

    @property
    def origins(self) -> dict[str, tuple[str, str]]:
        """Encoded feature -> its column, and what of it: a category, a part of a date ...; nothing for a number."""
        found = [(name, "") for name, kind in self.columns.items() if kind == "numeric"]
        if self.sklearn is not None:
            names = [name for name, kind in self.columns.items() if kind != "numeric"]
            found += [_origin(short, names) for short in self.sklearn.all_outputs_]
        return dict(zip(self.names, found, strict=True))

    def fit(self, features: pd.DataFrame) -> Encoder:
        """Learn kinds, categories and scales from these rows.

        Raises
        ------
        InputError
            If no column has a value, or the encoded table would not fit into memory.
        """
        features = _as_tidy(features)
        self.schema = {str(name): describe(column) for name, column in features.items()}
        if not self.columns:
            raise InputError("At least one feature must have values. All are missing in the rows to learn from.")
        check_memory(len(features), width(self.schema.values()))
        self._fit_vectorizer(features)
        self._scales, self.names = {}, ()
        encoded = self._encoded(features)
        self.names = tuple(_unique([name for name, _ in encoded]))
        scales = {name: _scale(column) for name, (_, column) in zip(self.names, encoded, strict=True)}
        self._scales = {name: scale for name, scale in scales.items() if scale is not None}
        return self

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """Encode rows of a table with the fitted columns.

        Returns
        -------
        Float32 [row, feature]; NaN where a number or a date is missing, never infinite.

        Raises
        ------
        InputError
            For a column that lacks, or whose type has changed.
        """
        features = _as_tidy(features)
        self._check_columns(features)
        encoded = self._encoded(features)
        out = np.empty((len(features), len(encoded)), np.float32)
        for at, (name, (_, column)) in enumerate(zip(self.names, encoded, strict=True)):
            out[:, at] = _scaled(column, self._scales.get(name))
        return out

    def check(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """Prepare a user's table for :meth:`transform`.

        Returns
        -------
        features, warnings
            The fitted columns in their order (others are dropped), and a warning for each column with
            categories that were not in the fitted rows, or with infinities (taken for missing).

        Raises
        ------
        InputError
            For a column that lacks, or whose type has changed.
        """
        frame = tidy(frame)
        notes: list[str] = []
        self._check_columns(frame)
        checked = {name: self._checked(column_of(frame, name), notes) for name in self.columns}
        return pd.DataFrame(checked, index=frame.index), notes

    def state(self) -> dict[str, Any]:
        """What JSON can hold of a fitted encoder: all but :attr:`sklearn`."""
        schema = {name: asdict(column) for name, column in self.schema.items()}
        scales = {name: list(scale) for name, scale in self._scales.items()}
        return {"seed": self.seed, "schema": schema, "names": list(self.names), "scales": scales}

    @classmethod
    def from_state(cls, state: dict[str, Any], sklearn: Any) -> Encoder:
        """The encoder that :meth:`state` and :attr:`sklearn` came from."""
        encoder = cls(seed=int(state["seed"]))
        encoder.schema = {
            name: Column(column["kind"], tuple(column["categories"]), column["format"])
            for name, column in state["schema"].items()
        }
        encoder.names = tuple(state["names"])
        encoder._scales = {name: (s[0], s[1], s[2]) for name, s in state["scales"].items()}
        encoder.sklearn = sklearn
        return encoder

    def _check_columns(self, frame: pd.DataFrame) -> None:
        lacking = [name for name in self.columns if name not in frame]
        if not lacking:
            return
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        near = str(unknown("column", lacking[0], [str(name) for name in frame])).partition(". ")[2]
        raise InputError(
            f"The table must have the columns that the model was trained on. It lacks '{lacking[0]}'{more}. {near}"
        )

    def _checked(self, column: pd.Series, notes: list[str]) -> pd.Series:
        name = str(column.name)
        how = self.schema[name]
        if how.kind == "numeric":
            column = numbers(column)
            if (bad := np.isinf(column.to_numpy())).any():
                notes.append(f"Column '{name}' is infinite in {bad.sum()} cells; they are taken for missing.")
            return column.mask(bad)
        if how.kind == "date":
            return dates(column, how.format)
        column = as_text(column)
        unseen = column.loc[column.notna() & ~column.isin(list(how.categories))]
        if how.kind == "category" and len(unseen):
            values = shown(sorted(unseen.unique().tolist()))
            notes.append(
                f"Column '{name}' holds categories that were not there in training: {values} ({len(unseen)} rows). "
                "They are encoded as none of the known ones."
            )
        return column

    def _fit_vectorizer(self, features: pd.DataFrame) -> None:
        """Fit skrub's vectorizer on the columns that are not numeric, each with the encoder of its kind."""
        raw = self._not_numeric(features)
        self.sklearn = None
        if raw.empty:
            return
        import skrub
        from sklearn.preprocessing import OneHotEncoder

        kinds = [kind for kind in self.columns.values() if kind != "numeric"]
        of = {kind: [f"c{at}" for at, k in enumerate(kinds) if k == kind] for kind in kinds}
        one_hot = OneHotEncoder(drop="if_binary", handle_unknown="ignore", sparse_output=False)
        parts = [(one_hot, of.get("category", [])), (skrub.DatetimeEncoder(), of.get("date", []))]
        parts += [(_text_encoder(column_of(raw, name), self.seed), [name]) for name in of.get("text", [])]
        used = [part for part in parts if part[1]]
        self.sklearn = _slim(skrub.TableVectorizer(specific_transformers=used).fit(raw))

    def _not_numeric(self, features: pd.DataFrame) -> pd.DataFrame:
        # Short names of their own: where encoded names clash skrub would draw random ones.
        columns = [column_of(features, name) for name, kind in self.columns.items() if kind != "numeric"]
        formats = [self.schema[str(column.name)] for column in columns]
        return pd.DataFrame(
            {
                f"c{at}": dates(column, how.format) if how.kind == "date" else as_text(column)
                for at, (column, how) in enumerate(zip(columns, formats, strict=True))
            },
            index=features.index,
        )

    def _encoded(self, features: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
        """Encoded features, float [row] each, with their names; numeric ones first."""
        kinds = self.columns
        out = [(n, numbers(column_of(features, n)).to_numpy()) for n, kind in kinds.items() if kind == "numeric"]
        if self.sklearn is None:
            return out
        names = [name for name, kind in kinds.items() if kind != "numeric"]
        with warnings.catch_warnings():
            # Unseen categories are expected between the parts of a split; `check` tells of them in predictions.
            warnings.filterwarnings("ignore", message="Found unknown categories")
            encoded = self.sklearn.transform(self._not_numeric(features))
        for short, column in encoded.items():
            name, rest = _origin(short, names)
            out.append((f"{name}_{rest}" if rest else name, column.to_numpy(float)))
        return out


def expected_columns(features: pd.DataFrame) -> int:
    """How many columns these features have once encoded, at most; for :func:`check_memory`."""
    return width(describe(column) for _, column in _as_tidy(features).items())


def _origin(short: object, names: list[str]) -> tuple[str, str]:
    """The column that the vectorizer knows by a short name such as ``c0_red``, and what it made of it."""
    at, _, rest = str(short).partition("_")
    return names[int(at[1:])], rest


def _slim(vectorizer: Any) -> Any:
    """The vectorizer without its records of how it was fitted, which `transform` does not read.

    Saved by skops it is a seventh as large: the selectors of its steps hold copies of all steps before them.
    """
    from skrub import selectors

    records = ("_preprocessors", "_encoders", "_named_encoders", "_specific_transformers", "_postprocessors")
    for record in (*records, "all_processing_steps_"):
        vars(vectorizer).pop(record, None)
    vectorizer.transformers_ = {}
    for _, step in vectorizer._pipeline.steps:
        if hasattr(step, "cols"):
            step.cols = selectors.all()
    return vectorizer


def _text_encoder(column: pd.Series, seed: int) -> Any:
    """Few components of few n-grams: as many as the rows can tell apart, and a model that stays small."""
    from sklearn.feature_extraction.text import CountVectorizer
    from skrub import StringEncoder

    grams = CountVectorizer(analyzer="char_wb", ngram_range=(3, 4), max_features=_MOST_NGRAMS).fit(column.dropna())
    vocabulary = sorted(grams.vocabulary_)
    components = max(1, min(TEXT_COMPONENTS, len(column) // 10, len(vocabulary) - 1))
    return StringEncoder(n_components=components, vocabulary=vocabulary, random_state=seed)


def _scale(column: np.ndarray) -> tuple[float, float, float] | None:
    """(magnitude, centre, spread) of a column whose numbers float32 would round off; else None."""
    finite = column[np.isfinite(column)]
    magnitude = float(np.abs(finite).max(initial=0.0))
    if magnitude == 0 or _SMALL <= magnitude <= _LARGE:
        return None
    unit = finite / magnitude  # first, or squares of the largest numbers would overflow
    return magnitude, float(np.median(unit)), float(unit.std()) or 1.0


def _scaled(column: np.ndarray, scale: tuple[float, float, float] | None) -> np.ndarray:
    if scale is not None:
        magnitude, centre, spread = scale
        with np.errstate(over="ignore"):  # infinities are clipped below
            column = (column / magnitude - centre) / spread
    return np.clip(column, -_FARTHEST, _FARTHEST)


def _unique(names: list[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        while name in seen:
            seen[name] += 1
            name = f"{name}_{seen[name]}"
        seen[name] = 1
        out.append(name)
    return out


def _as_tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame itself if it comes from a Table, else a tidy copy."""
    plain = {"bool", "boolean", "int64", "float64", "str"}
    known = all(str(t) in plain or pd.api.types.is_datetime64_dtype(t) for t in frame.dtypes)
    return frame if known and all(isinstance(name, str) for name in frame) and frame.columns.is_unique else tidy(frame)

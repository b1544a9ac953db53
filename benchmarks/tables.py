"""The tables on which quality and time are measured, read from the folder that KINFOLK_DATA names."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kinfolk.data.tables import read


@dataclass(frozen=True)
class Source:
    """A table and its targets."""

    load: Callable[[], pd.DataFrame]
    targets: tuple[str, ...] | int
    group: str | None = None


def _folder() -> Path:
    if "KINFOLK_DATA" not in os.environ:
        raise SystemExit("Set KINFOLK_DATA to the folder of the data sets.")
    return Path(os.environ["KINFOLK_DATA"])


def _arff(name: str) -> pd.DataFrame:
    from scipy.io import arff

    rows, _ = arff.loadarff(_folder() / name)
    frame = pd.DataFrame(rows)
    return pd.DataFrame({name: c.str.decode("utf-8") if c.dtype == object else c for name, c in frame.items()})


def _matlab(name: str) -> pd.DataFrame:
    from scipy.io import loadmat

    found = next(v for k, v in loadmat(_folder() / name).items() if not k.startswith("__"))
    names = [f"x{i}" for i in range(21)] + [f"torque{i}" for i in range(1, 8)]
    return pd.DataFrame(found, columns=names)


def _mulan(kind: str, name: str, targets: int) -> Source:
    return Source(lambda: _arff(f"{kind}/{name}.arff"), targets)


TABLES: dict[str, Source] = {
    "andro": _mulan("mtr_mulan", "andro", 6),
    "slump": _mulan("mtr_mulan", "slump", 3),
    "edm": _mulan("mtr_mulan", "edm", 2),
    "jura": _mulan("mtr_mulan", "jura", 3),
    "enb": _mulan("mtr_mulan", "enb", 2),
    "flags": _mulan("multilabel_mulan", "flags", 7),
    "emotions": _mulan("multilabel_mulan", "emotions", 6),
    "yeast": _mulan("multilabel_mulan", "yeast", 14),
    "student-por": Source(lambda: read(_folder() / "student_performance/student-por.csv"), ("G1", "G2", "G3")),
    "sarcos": Source(lambda: _matlab("sarcos/sarcos_inv_test.mat"), tuple(f"torque{i}" for i in range(1, 8))),
    "adult": Source(lambda: read(_folder() / "adult/adult.data"), ("classification", "marital-status", "occupation")),
}


def targets_of(source: Source, frame: pd.DataFrame) -> tuple[str, ...]:
    """The names of a table's targets: given, or its last columns."""
    if isinstance(source.targets, int):
        return tuple(str(name) for name in frame.columns[-source.targets :])
    return source.targets

"""What makes a run this run and no other: its table, plan, tasks and versions."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.core.util.hashing import hash_pandas_object

from kinfolk import __version__
from kinfolk.data.splits import rare_classes, unlabelled_rows
from kinfolk.data.tables import Table
from kinfolk.evidence.fitting import Comparing
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder

LIBRARIES = ("torch", "numpy", "pandas", "scikit-learn", "skrub", "skops")


def identity(comparing: Comparing) -> dict[str, Any]:
    """What makes a run this run and no other, and what the report says about it."""
    table, plan = comparing.table, comparing.plan
    return {
        "kinfolk": __version__,
        "fingerprint": _fingerprint(table),
        "plan": plan.to_dict(),
        "tasks": [asdict(task) for task in table.tasks],
        "data": {
            "name": table.name,
            "rows": len(table.labels) - table.added,
            "features": table.features.shape[1],
            "groups": None if table.groups is None else len(np.unique(table.groups)),
            "test_rows": None if table.test is None else int(table.test.sum()),
            "unlabelled_rows": len(unlabelled_rows(table)),
        },
        "warnings": [*table.warnings, *rare_classes(table, plan.folds)],
        "versions": _versions(),
        "seed": plan.seed,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version(), "kinfolk": __version__} | {name: version(name) for name in LIBRARIES}


def _fingerprint(table: Table) -> str:
    """Of the contents of a table, so that a run is not resumed with another."""
    digest = hashlib.sha256()
    for frame in (table.features, pd.DataFrame(table.labels), pd.DataFrame({"weight": table.weight})):
        digest.update(repr(list(frame.columns)).encode())
        digest.update(np.asarray(hash_pandas_object(frame, index=False)).tobytes())
    for part in (table.groups, table.test):
        digest.update(b"" if part is None else part.tobytes())
    return digest.hexdigest()


def require_same(run: Folder, about: dict[str, Any]) -> None:
    """Raises InputError when the folder holds a run of other data or another plan."""
    if not run.has("plan.json"):
        return
    before = run.read_json("plan.json")
    for what in ("fingerprint", "plan", "tasks"):
        if before.get(what) != json.loads(json.dumps(about[what])):
            name = {"fingerprint": "table", "plan": "plan (arms, splits, settings, seed)", "tasks": "targets"}[what]
            raise InputError(f"--resume needs the same {name} as the run in {run.path}. Use another --out.")


def command() -> str:
    """How to do the same again, as far as that is known."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join([name, *sys.argv[1:]])

"""From the fits in a run folder to tables, verdict and report. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kinfolk import report
from kinfolk.data.targets import chosen_errors
from kinfolk.data.tasks import Task
from kinfolk.evidence.compare import collect
from kinfolk.evidence.fitting import Comparing
from kinfolk.evidence.verdict import Verdict, judge
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder


def write_tables(run: Folder, comparing: Comparing, outcome: Mapping[str, Any]) -> None:
    """Writes comparison, predictions, learning curves, and ``run.json``: what was done and what it cost.

    Parameters
    ----------
    run
        The run folder, with a ``plan.json``.
    comparing
        What was compared.
    outcome
        What is to stand in ``run.json`` beside plan, failures and costs.
    """
    collect(comparing, run)
    run.write_json("run.json", run.read_json("plan.json") | _costs(comparing) | dict(outcome))


def conclude(path: Path | str, errors: Mapping[str, str] | None = None) -> Verdict:
    """Writes verdict and report of a finished run again.

    Parameters
    ----------
    path
        The run folder.
    errors
        Target -> name of another error to judge by; settings and blends stay as they were chosen.

    Raises
    ------
    InputError
        If the folder holds no finished run, or for an unknown target or error.
    """
    folder = Folder(path)
    if not folder.has("run.json"):
        unfinished = folder.has("plan.json")
        hint = "Its run is not finished: go on with --resume." if unfinished else "Give the --out of a `kinfolk fit`."
        raise InputError(f"{folder.path} must be the folder of a finished run. {hint}")
    about = folder.read_json("run.json")
    tasks = tuple(Task(**{**task, "classes": tuple(task["classes"])}) for task in about["tasks"])
    checked = chosen_errors(tasks, errors or {})
    wanted = checked or about["data"]["test_rows"] is not None  # else the errors in the comparison say all
    predictions = folder.read_frame("predictions.parquet") if wanted else pd.DataFrame()
    verdict = judge(folder.read_frame("comparison.parquet"), predictions, tasks, meta=about, errors=checked)
    folder.write_json("verdict.json", verdict.to_dict())
    report.write(folder)
    return verdict


def _costs(comparing: Comparing) -> dict[str, Any]:
    """Failures in all splits, and what each arm of the model cost."""
    failed: list[dict[str, Any]] = []
    costs: dict[str, dict[str, Any]] = {}
    encoded = 0
    for split in range(len(comparing.splits)):
        for arm in range(len(comparing.plan.arms)):
            folder = comparing.folder(split, arm)
            if not folder.has("result.json"):
                continue
            result = folder.read_json("result.json")
            failed += result["failed"]
            if split == comparing.model:
                encoded = result["features"]
                costs[result["arm"]] = {
                    "parameters": result["parameters"],
                    "train_seconds": result["seconds"],
                    "predict_seconds_per_1000_rows": result["predict_seconds_per_1000_rows"],
                }
    return {"failed": failed, "costs": costs, "encoded_features": encoded}

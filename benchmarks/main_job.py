"""The main job as a user does it: time, memory, size of the model and error, beside scikit-learn's own learners.

    KINFOLK_DATA=... python benchmarks/main_job.py student-por sarcos adult [--workers 2] [--fit "--splits 1x2 ..."]

For each table: ``kinfolk fit`` by its default plan, as a process of its own; then, on the outer splits of the first
repeat and on the columns as Kinfolk encodes them there, scikit-learn's network (columns imputed and standardised),
histogram gradient boosting and extra trees by their defaults, a learner per target. Errors are means over targets and
splits (rrse, 1 - AUC or log loss). Prints rows for README.md.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import TABLES, targets_of

from kinfolk.data.encoding import Encoder
from kinfolk.data.errors import error
from kinfolk.data.splits import Split, outer_splits
from kinfolk.data.tables import Roles, Table, make_table
from kinfolk.runs import Folder


def _network(kind: type) -> Callable[[], Any]:
    return lambda: make_pipeline(
        SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler(), kind(random_state=0)
    )


LEARNERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "MLP": (_network(MLPRegressor), _network(MLPClassifier)),
    "HistGradientBoosting": (
        lambda: HistGradientBoostingRegressor(random_state=0),
        lambda: HistGradientBoostingClassifier(random_state=0),
    ),
    "ExtraTrees": (lambda: ExtraTreesRegressor(random_state=0), lambda: ExtraTreesClassifier(random_state=0)),
}


def fitted(table: Path, targets: tuple[str, ...], out: Path, options: list[str]) -> tuple[float, float]:
    """Runs ``kinfolk fit``: wall seconds, and the most memory that its processes had together, in GB."""
    words = [str(Path(sys.executable).with_name("kinfolk")), "fit", str(table), "--out", str(out)]
    words += [word for target in targets for word in ("--target", target)]
    began, most = time.perf_counter(), 0.0
    process = subprocess.Popen([*words, *options], stdout=sys.stderr, start_new_session=True)
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"kinfolk fit ended with {process.returncode}.")
    return time.perf_counter() - began, most


def memory_of(session: int) -> float:
    """GB of all processes of a session together; what they share counts once. 0 where /proc does not tell."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
    return total / 1e6


def judged(table: Table, split: Split, inputs: tuple[np.ndarray, np.ndarray], name: str) -> list[float]:
    """The error of a learner for each target of one split, by its defaults."""
    errors = []
    for t, task in enumerate(table.tasks):
        known = ~np.isnan(table.labels[split.train, t])
        target = table.labels[split.train, t][known]
        learner = LEARNERS[name][task.kind != "regression"]()
        learner.fit(inputs[0][known], target)
        if task.kind == "regression":
            found = learner.predict(inputs[1]).reshape(-1, 1)
        else:
            found = np.zeros((len(inputs[1]), len(task.classes)))
            found[:, learner.classes_.astype(int)] = learner.predict_proba(inputs[1])
            found = found[:, 1:] if task.kind == "binary" else found
        errors.append(error(task, table.labels[split.test, t], found, baseline=float(target.mean())))
    return errors


def opponents(table: Table, splits: list[Split]) -> dict[str, tuple[float, float]]:
    """Each learner's seconds and mean error over targets and splits."""
    seconds, errors = dict.fromkeys(LEARNERS, 0.0), {name: [] for name in LEARNERS}
    for split in splits:
        encoder = Encoder().fit(table.features.iloc[split.train])
        inputs = (
            encoder.transform(table.features.iloc[split.train]),
            encoder.transform(table.features.iloc[split.test]),
        )
        for name in LEARNERS:
            began = time.perf_counter()
            errors[name] += judged(table, split, inputs, name)
            seconds[name] += time.perf_counter() - began
    return {name: (seconds[name], float(np.nanmean(errors[name]))) for name in LEARNERS}


def measured(name: str, out: Path, options: list[str]) -> list[str]:
    """The rows of one table."""
    source = TABLES[name]
    frame = source.load()
    targets = targets_of(source, frame)
    path = out / f"{name}.parquet"
    frame.to_parquet(path)
    wall, memory = fitted(path, targets, out / name, options)
    run = Folder(out / name)
    size = sum(file.stat().st_size for file in (run.path / "model").iterdir()) / 1e6
    comparison, plan = run.read_frame("comparison.parquet"), run.read_json("plan.json")["plan"]
    first = comparison.query("repeat == 0 and role == 'procedure'")
    means = {str(arm): float(part["error"].to_numpy().mean()) for arm, part in first.groupby("arm")}
    splits = plan["repeats"] * plan["folds"]
    rows = [f"| {name} | {arm} | | | | {means[arm]:.3f} |" for arm in ("single-task", "sharing") if arm in means]
    rows.append(
        f"| {name} | kinfolk fit, {splits} + 1 splits: the hand-over | {wall:.0f} | {memory:.2f} | {size:.1f} "
        f"| {means['hand-over']:.3f} |"
    )
    table = make_table(frame, Roles(targets, group=source.group), name=name)
    own = outer_splits(table, 1, plan["folds"], plan["seed"])
    for learner, (seconds, mean) in opponents(table, own).items():
        rows.append(f"| {name} | scikit-learn's {learner}, {plan['folds']} splits | {seconds:.1f} | | | {mean:.3f} |")
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fit", default="", help="more options for kinfolk fit, in one text")
    parser.add_argument("--keep", type=Path, help="folder in which the runs are kept")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's network ends after 200 epochs by default
    print("| table | what | seconds | GB, all processes | MB of the model | error, mean over targets |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.tables:
            options = ["--workers", str(given.workers), *shlex.split(given.fit)]
            print("\n".join(measured(name, given.keep or Path(folder), options)), flush=True)


if __name__ == "__main__":
    main()

"""How good is what is handed over? Errors of arms, opponents and the hand-over on outer rows, per table.

    KINFOLK_DATA=... python benchmarks/quality.py --workers 2 [--tables andro slump ...] [--repeats 1]

Prints two Markdown tables: the mean over a table's targets of the error (rrse for regression, 1 - AUC or log loss
for classes), and ranks. The procedure is that of ``kinfolk fit`` without its last step (the model on all rows).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
from tables import TABLES, targets_of

from kinfolk import workers
from kinfolk.data.encoding import expected_columns
from kinfolk.data.tables import Roles, make_table
from kinfolk.evidence.compare import collect, prepare
from kinfolk.evidence.fitting import Comparing, Item, fit_arm
from kinfolk.evidence.judging import judge_split
from kinfolk.evidence.plan import plan_for
from kinfolk.runs import Folder

SMALL = ["andro", "slump", "edm", "jura", "flags", "emotions", "student-por", "enb"]


def work(comparing: Comparing, item: Item | int) -> Item | int:
    """Fits an arm, or judges a split."""
    if isinstance(item, Item):
        fit_arm(comparing, item)
    else:
        judge_split(comparing, item)
    return item


def measured(name: str, processes: int, repeats: int | None, folder: Path) -> tuple[pd.Series, float]:
    """Mean error over targets and outer splits of each arm, and the seconds it took."""
    source = TABLES[name]
    frame = source.load()
    table = make_table(frame, Roles(targets_of(source, frame), group=source.group), name=name)
    plan = plan_for(len(table.labels), expected_columns(table.features), len(table.tasks)).changed(repeats=repeats)
    comparing = prepare(table, plan, folder / name)
    began = time.perf_counter()
    splits = range(comparing.model)
    items: list[Item | int] = [Item(split, arm) for split in splits for arm in range(len(plan.arms))]
    workers.map(partial(work, comparing), items, workers=processes)
    workers.map(partial(work, comparing), list(splits), workers=processes)
    seconds = time.perf_counter() - began
    run = Folder(folder / name)
    collect(comparing, run)
    comparison = run.read_frame("comparison.parquet")
    return pd.Series({arm: part["error"].mean() for arm, part in comparison.groupby("arm")}), seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", nargs="*", default=SMALL)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder in which fits are kept and found again")
    given = parser.parse_args()
    columns: dict[str, pd.Series] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.tables:
            columns[name], seconds[name] = measured(name, given.workers, given.repeats, given.keep or Path(folder))
            print(f"{name}: {seconds[name]:.0f} s", flush=True)
    errors = pd.DataFrame(columns)
    errors["mean rank"] = errors.drop(index=["single-task", "sharing"], errors="ignore").rank().mean(axis=1)
    errors.loc["seconds"] = pd.Series(seconds)
    print(errors.round(3).fillna("").to_markdown())


if __name__ == "__main__":
    main()

"""Made-up but plausible run folders, by the schemas of the files, for everything that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SINGLE, HARD, WEIGHTED = "mlp(width=128) + independent", "mlp(width=128) + hard", "mlp(width=128) + hard + uncertainty"
LOSS_FORM = "mlp(width=128) + independent + uncertainty"
OPPONENTS = ("ridge", "hist_gradient_boosting", "extra_trees")
ROLES = {SINGLE: "single-task", LOSS_FORM: "single-task", HARD: "sharing", WEIGHTED: "sharing"} | dict.fromkeys(
    OPPONENTS, "opponent"
)
ODD_NAMES = (
    "<script>document.title='run'</script>",
    "cost ($) and gain ($)",
    "a name that is much longer than any column of a report should ever have to hold: µg/m³",
    "温度 (次日)",
    "a&b \"quoted\" 'twice'",
    "tab\there\nand a line",
    "x_1^2 \\frac{a}{b}",
    "{{ 7 * 7 }}",
    "passes",
    "colour",
    "tissue",
    "rare",
)
ERROR = {"regression": "rrse", "binary": "1-auc", "multiclass": "log_loss"}
SETTING = {"learning_rate": 0.003, "weight_decay": 0.1}


def regression_run() -> dict[str, Any]:
    """Three regression tasks, three repeats of five folds, all files."""
    kinds = {"G1": ("regression", 0.30), "G2": ("regression", 0.02), "G3": ("regression", -0.11)}
    return _run(kinds, rows=649, splits=15, name="student-por.csv")


def mixed_run(tasks: int = 12) -> dict[str, Any]:
    """Tasks of all kinds with odd names, some not judged, with failures, warnings and an empty history."""
    random = np.random.default_rng(1)
    kinds = ["regression", "binary", "multiclass"]
    names = [*ODD_NAMES, *(f"school {at}" for at in range(len(ODD_NAMES), tasks))][:tasks]
    run = _run(
        {n: (kinds[at % 3], random.normal(0.03, 0.1)) for at, n in enumerate(names)}, 300, 5, "mixed <b>.parquet"
    )
    entry = run["verdict"]["tasks"][names[-1]]
    nothing = ("best", "difference", "p_value", "single_task", "hand_over", "hand_over_difference")
    entry |= dict.fromkeys(nothing) | {
        "verdict": "not judged",
        "interval": [None, None],
        "hand_over_interval": [None, None],
    }
    entry |= {"scores": {}, "arms": {}, "opponents": {}, "splits": 0, "splits_left_out": 5}
    why = "the loss became NaN; the other replicas went on"
    run["verdict"]["failed"] = [{"arm": WEIGHTED, "task": names[0], "split": 2, "epoch": 7, "why": why}]
    run["verdict"]["not_tried"] = ["extra_trees on 2 of 5 outer splits (time budget)"]
    run["verdict"]["warnings"] = ["Class 'violet' of task colour has 3 rows: it cannot be judged in every fold."]
    run["history"] = run["history"].iloc[:0]
    return run


def single_run() -> dict[str, Any]:
    """One target alone: there is nothing to share."""
    run = _run({"price": ("regression", 0.0)}, 200, 5, "houses.csv")
    entry = run["verdict"]["tasks"]["price"]
    entry |= dict.fromkeys(("best", "difference", "p_value")) | {
        "verdict": "nothing to share",
        "interval": [None, None],
    }
    entry |= {
        "arms": {SINGLE: entry["arms"][SINGLE]},
        "scores": {k: v for k, v in entry["scores"].items() if k != "sharing"},
    }
    run["verdict"]["overall"] |= {"delta_m_percent": None, "interval": [None, None]}
    for key in ("comparison", "predictions", "history", "learned"):
        run[key] = run[key][~run[key]["arm"].isin(["sharing", HARD, WEIGHTED])]
    return run


def write(run: dict[str, Any], folder: Path) -> Path:
    """Write the five files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verdict.json").write_text(json.dumps(run["verdict"]), encoding="utf-8")
    for name in ("comparison", "predictions", "history", "learned"):
        run[name].to_parquet(folder / f"{name}.parquet")
    return folder


def _run(kinds: dict[str, tuple[str, float]], rows: int, splits: int, name: str) -> dict[str, Any]:
    random = np.random.default_rng(0)
    tasks = {task: _task(random, kind, gain, splits, rows) for task, (kind, gain) in kinds.items()}
    return {
        "verdict": _verdict(tasks, name, rows, splits),
        "comparison": _comparison(random, tasks, splits),
        "predictions": pd.concat([_predictions(random, t, e, rows) for t, e in tasks.items()], ignore_index=True),
        "history": pd.concat([_history(random, task) for task in tasks], ignore_index=True),
        "learned": _learned(random, list(tasks)),
    }


def _task(random: np.random.Generator, kind: str, gain: float, splits: int, rows: int) -> dict[str, Any]:
    single = float(random.uniform(0.15, 0.8))
    best, hand_over = single * (1 - gain), single * min(1 - gain, 0.98) * 0.97
    half = single * float(random.uniform(0.03, 0.1))
    difference, over = single - best, single - hand_over
    clear = abs(difference) > half
    arms = {arm: best * float(random.uniform(0.99, 1.04)) for arm in (HARD, WEIGHTED)} | {
        SINGLE: single,
        LOSS_FORM: single * 1.01,
    }
    opponents = {o: single * float(random.uniform(0.9, 1.25)) for o in OPPONENTS}
    members = (f"{WEIGHTED} · {json.dumps(SETTING)}", f"{SINGLE} · {json.dumps(SETTING)}", 'extra_trees · {"leaf": 2}')
    names = {
        "regression": ("rmse", "mae", "r2"),
        "binary": ("accuracy", "auc"),
        "multiclass": ("accuracy", "macro_auc", "log_loss"),
    }
    classes = {"regression": [], "binary": ["no", "yes"], "multiclass": ["blue", "green", "red", "<i>violet</i>"]}
    values = {"single-task": single, "sharing": best, "hand-over": hand_over}
    return {
        "kind": kind,
        "main": True,
        "classes": classes[kind],
        "error_name": ERROR[kind],
        "single_task": single,
        "best_arm": WEIGHTED,
        "best": best,
        "difference": difference,
        "interval": [difference - half, difference + half],
        "p_value": 0.01 if clear else 0.4,
        "p_value_raw": 0.005,
        "verdict": ("helped" if gain > 0 else "hurt") if clear else "no clear difference",
        "chosen_arm": "blend",
        "hand_over": hand_over,
        "hand_over_difference": over,
        "hand_over_interval": [over - half * 0.8, over + half * 0.8],
        "blend": dict(zip(members, (0.5, 0.3, 0.2), strict=True)),
        "opponents": opponents,
        "arms": arms,
        "scores": {who: dict.fromkeys(names[kind], 1 - error / 2) for who, error in values.items()},
        "baseline_beaten": True,
        "splits": splits,
        "splits_left_out": 0,
        "labelled_rows": rows,
    }


def _verdict(tasks: dict[str, Any], name: str, rows: int, splits: int) -> dict[str, Any]:
    gains = [100 * entry["difference"] / entry["single_task"] for entry in tasks.values()]
    mean, helped = float(np.mean(gains)), [n for n, e in tasks.items() if e["verdict"] == "helped"]
    costs = {
        arm: {
            "parameters": None if role == "opponent" else 54_321,
            "train_seconds": 12.345,
            "predict_seconds_per_1000_rows": 0.0123,
        }
        for arm, role in ROLES.items()
    }
    return {
        "format": 1,
        "kinfolk": "0.1.0",
        "tasks": tasks,
        "overall": {
            "delta_m_percent": mean,
            "interval": [mean - 3, mean + 3],
            "hand_over_delta_m_percent": mean + 4,
            "hand_over_interval": [mean, mean + 8],
            "helped": helped,
            "hurt": [n for n, e in tasks.items() if e["verdict"] == "hurt"],
            "recommendation": "Use the hand-over: on every task its error is at most that of single-task learning.",
            "costs": costs,
        },
        "statistics": {
            "test": "corrected resampled t-test",
            "splits": splits,
            "repeats": splits // 5,
            "folds": 5,
            "level": 0.05,
            "correction": "Holm",
        },
        "failed": [],
        "not_tried": [],
        "warnings": [],
        "data": {"name": name, "rows": rows, "features": 30, "encoded_features": 58, "groups": None, "test_rows": None},
        "plan": {"outer": f"{splits // 5} x 5 splits", "inner": 5, "settings": 6, "arms": list(ROLES)},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "scikit-learn": "1.7.2"},
        "seed": 0,
        "threads": 1,
        "command": f"kinfolk fit '{name}' --target {' --target '.join(list(tasks)[:3])} --out runs/example",
        "seconds": 187.6,
    }


def _comparison(random: np.random.Generator, tasks: dict[str, Any], splits: int) -> pd.DataFrame:
    rows = []
    for task, entry in tasks.items():
        procedures = {"single-task": entry["single_task"], "sharing": entry["best"], "hand-over": entry["hand_over"]}
        arms = [(a, "procedure", e) for a, e in procedures.items()]
        arms += [(a, ROLES[a], e) for a, e in (entry["arms"] | entry["opponents"]).items()]
        for at in range(splits):
            luck = random.normal(0, 0.03)
            for arm, role, error in arms:
                error = error * (1 + luck + random.normal(0, 0.02))
                rows.append(
                    {
                        "arm": arm,
                        "role": role,
                        "repeat": at // 5,
                        "fold": at % 5,
                        "task": task,
                        "error_name": entry["error_name"],
                        "error": error,
                        "setting": json.dumps(SETTING),
                        "chosen": "",
                        "train_rows": 500,
                        "judged_rows": 120,
                        "epochs": 40.0,
                        "seconds": 1.2,
                    }
                )
    return pd.DataFrame(rows)


def _predictions(random: np.random.Generator, task: str, entry: dict[str, Any], rows: int) -> pd.DataFrame:
    chance = random.beta(0.7, 0.9, rows)
    if entry["kind"] == "regression":
        target = np.round(random.normal(11, 3, rows))
        prediction = list((target + random.normal(0, 1.5, rows))[:, None].astype(np.float32))
    elif entry["kind"] == "binary":
        target, prediction = (random.random(rows) < chance**1.2).astype(float), list(chance[:, None].astype(np.float32))
    else:
        size = len(entry["classes"])
        shares = random.dirichlet(np.ones(size) * 0.4, rows)
        target = np.array([random.choice(size, p=share) for share in shares], float)
        prediction = list(shares.astype(np.float32))
    common = {
        "role": "procedure",
        "repeat": 0,
        "fold": np.arange(rows) % 5,
        "task": task,
        "row": np.arange(rows),
        "target": target,
    }
    common |= {"weight": 1.0, "baseline": float(target.mean()), "prediction": prediction}
    return pd.concat(
        [pd.DataFrame({"arm": arm} | common) for arm in ("single-task", "sharing", "hand-over")], ignore_index=True
    )


def _history(random: np.random.Generator, task: str) -> pd.DataFrame:
    update, parts = np.arange(0, 1500, 25), []
    for arm in (SINGLE, LOSS_FORM, HARD, WEIGHTED):
        for rate in (0.001, 0.003):
            floor, speed = random.uniform(0.25, 0.4), random.uniform(60, 150)
            loss = floor + np.exp(-update / speed) + 4e-8 * update**2 + random.normal(0, 0.006, len(update))
            moving = (
                1 + random.uniform(-0.5, 0.5) * (1 - np.exp(-update / 400))
                if "uncertainty" in arm
                else np.ones(len(update))
            )
            parts.append(
                pd.DataFrame(
                    {
                        "arm": arm,
                        "setting": json.dumps({"learning_rate": rate}),
                        "task": task,
                        "update": update,
                        "stop_loss": loss,
                        "train_loss": loss * 0.8,
                        "weight": moving,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _learned(random: np.random.Generator, tasks: list[str]) -> pd.DataFrame:
    """Stitch matrices, gates and covariances of sharing, and a log variance of each task for both losses by it."""
    count, experts = len(tasks), [f"expert {at}" for at in range(4)]
    tables = {
        (HARD, "stitch after stage 1"): (tasks, tasks, np.eye(count), 0.15 * random.normal(size=(count, count))),
        (WEIGHTED, "gates"): (tasks, experts, 0.25, random.dirichlet(np.ones(4), count) - 0.25),
        (WEIGHTED, "covariance"): (tasks, tasks, 0.0, 0.01 * np.cov(random.normal(size=(count, 5)))),
        (LOSS_FORM, "log variance"): (["log variance"], tasks, 0.0, random.normal(-1, 0.5, (1, count))),
    }
    parts = []
    for (arm, quantity), (lines, columns, start, change) in tables.items():
        for rate in (0.001, 0.003):
            for update in range(0, 1500, 75 if count < 20 else 700):
                values = start + np.atleast_2d(change) * (1 - np.exp(-update * rate))
                labels = {"line": np.repeat(lines, len(columns)), "column": np.tile(columns, len(lines))}
                about = {"arm": arm, "setting": json.dumps({"learning_rate": rate}), "update": update}
                parts.append(pd.DataFrame({**about, "quantity": quantity, **labels, "value": values.reshape(-1)}))
    return pd.concat(parts, ignore_index=True)

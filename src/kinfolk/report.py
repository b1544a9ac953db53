"""A run folder in, one self-contained HTML page out: the verdict first, then what it rests on.

Everything on the page comes from the files of the folder (verdict, comparison, predictions, history); nothing is
trained or predicted here. The page needs no network and no JavaScript.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfolk import plots
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
PANELS = 12  # how many tasks are drawn one by one; the tables hold all of them
ROWS = 40  # how many tasks one figure with a row per task holds, so that it fits on a printed page
SIGNS = {"helped": "▲", "hurt": "▼", "no clear difference": "●", "nothing to share": "–", "not judged": "–"}
NAMES = {
    "rrse": "RRSE",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "r2": "R²",
    "1-r2": "1 − R²",
    "auc": "AUC",
    "1-auc": "1 − AUC",
    "macro_auc": "macro AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "1-accuracy": "1 − accuracy",
}
BESIDE = {"rrse": "r2", "1-r2": "r2", "1-auc": "auc", "log_loss": "accuracy", "1-accuracy": "accuracy"}
WORDS = {
    "rrse": "root squared error relative to predicting the mean of the training rows; 0 is perfect, 1 is that mean.",
    "rmse": "root of the mean squared error, in the target's unit.",
    "mae": "mean absolute error, in the target's unit.",
    "mse": "mean squared error, in the target's unit squared.",
    "1-r2": "the share of the variance that is not explained; 0 is perfect.",
    "1-auc": "AUC is how often a random positive row is ranked above a random negative one; 0.5 is chance, 1 is perfect."
    " The error is 1 minus it.",
    "log_loss": "mean of −log of the probability that was given to the class that came true; 0 is perfect.",
    "brier": "mean squared difference between the predicted probability and what came true; 0 is perfect.",
    "1-accuracy": "the share of rows that are put into a wrong class.",
}


def write(folder: Folder | Path | str) -> Path:
    """Write ``report.html`` of a run folder from its other files, and return its path.

    Raises
    ------
    InputError
        When the folder holds no verdict, or one of another format.
    """
    folder = folder if isinstance(folder, Folder) else Folder(Path(folder))
    if not folder.has("verdict.json"):
        raise InputError(
            f"A report needs verdict.json. {folder.path} has none: let `kinfolk fit` come to its end first."
        )
    names = ("comparison.parquet", "predictions.parquet", "history.parquet")
    frames = [folder.read_frame(name) if folder.has(name) else None for name in names]
    page = render(folder.read_json("verdict.json"), *frames, folder=str(folder.path))
    folder.write_bytes("report.html", page.encode("utf-8", "replace"))
    return folder.path / "report.html"


def render(
    verdict: Mapping[str, Any],
    comparison: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
    history: pd.DataFrame | None = None,
    folder: str = "FOLDER",
) -> str:
    """Make the page as text; frames that are missing or empty leave their sections out.

    Parameters
    ----------
    verdict
        What ``verdict.json`` holds.
    comparison, predictions, history
        The frames of the run folder.
    folder
        Its name, for the command that writes the report again.
    """
    if verdict.get("format") != FORMAT:
        raise InputError(
            f"verdict.json must have format {FORMAT}. Got {verdict.get('format')!r}: fit again, or use its Kinfolk."
        )
    comparison, predictions, history = (
        f if f is not None and len(f) else None for f in (comparison, predictions, history)
    )
    tasks = _sorted(verdict["tasks"])
    roles = _roles(tasks, comparison)
    arms = plots.marks(roles)
    page = {
        "verdict": verdict,
        "tasks": tasks,
        "answers": answers(verdict),
        "counts": [(word, sum(e["verdict"] == word for e in tasks.values())) for word in SIGNS],
        "errors": [name for name in WORDS if any(e.get("error_name") == name for e in tasks.values())],
        "attention": attention(verdict, tasks),
        "arms": [(arm, role, arms[arm]) for arm, role in roles.items()],
        "overviews": list(_overviews(tasks, arms, _split_differences(comparison))),
        "predictions": list(_predictions(tasks, predictions)),
        "learning": list(_curves(tasks, history, arms, "stop_loss")),
        "weights": list(_curves(tasks, _moving(history), arms, "weight")),
        "blends": {name: _blend(e) for name, e in tasks.items() if e.get("blend")},
        "score_names": [
            name for name in NAMES if any(name in s for e in tasks.values() for s in (e.get("scores") or {}).values())
        ],
        "folder": folder,
        "panels": PANELS,
    }
    page["total_blend"] = _total_blend(page["blends"])
    return _template().render(page)


def _template() -> Any:
    import jinja2

    loader = jinja2.PackageLoader("kinfolk", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "interval": interval,
        "plain": plain,
        "listed": listed,
    }
    environment.globals |= {
        "SIGNS": SIGNS,
        "NAMES": NAMES,
        "WORDS": WORDS,
        "BESIDE": BESIDE,
        "in_percent": plots.percent,
    }
    return environment.get_template("report.html.j2")


# --- numbers and words -------------------------------------------------------------------------------------------


def number(value: float | None, sign: bool = False) -> str:
    """Write a number with 3 significant digits; what is not known as a dash.

    >>> number(0.123456), number(12345), number(-0.5), number(None), number(2e-7)
    ('0.123', '12,300', '−0.500', '–', '2.00e−07')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits, exponent = f"{value:+.2e}".split("e")
    if -5 < int(exponent) < 7:
        digits, exponent = f"{float(f'{value:.2e}'):+,.{max(0, 2 - int(exponent))}f}", ""
    text = digits + (f"e{exponent}" if exponent else "")
    return (text if sign else text.removeprefix("+")).replace("-", "−")


def percent(value: float | None) -> str:
    """Write a number of percent with its sign."""
    text = number(value, sign=True)
    return text if text == "–" else f"{text} %"


def interval(value: Sequence[float | None] | None, unit: str = "") -> str:
    """Write an interval as ``[lo, hi]``.

    >>> interval([-0.01, 2.5]), interval(None)
    ('[−0.0100, 2.50]', '–')
    """
    if value is None or any(v is None or not math.isfinite(v) for v in value):
        return "–"
    return f"[{', '.join(number(v) for v in value)}]{unit}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Join names as in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], most=2)
    ('a, b and c', 'a, b and 2 more')
    """
    names = [str(name) for name in names]
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def plain(value: Any) -> str:
    """Write a free value of the plan (numbers, lists, dicts) as words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {plain(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return (
        f"{value:,}"
        if isinstance(value, int) and abs(value) > 9999
        else number(value)
        if isinstance(value, float)
        else str(value)
    )


# --- what the page says ------------------------------------------------------------------------------------------


def answers(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Answer the three questions of a user, in plain sentences."""
    overall, judged = verdict["overall"], verdict["tasks"]
    groups = {word: [name for name, e in judged.items() if e["verdict"] == word] for word in SIGNS}
    which = [
        f"{word.capitalize()}: {listed(names)}."
        for word, names in groups.items()
        if names and word != "nothing to share"
    ]
    if not groups["helped"] and not groups["hurt"] and groups["no clear difference"]:
        which = ["No single task shows a clear difference."] + which[1:]
    result = [("Does sharing help?", _helps(overall, groups))]
    result += [("Which tasks?", " ".join(which))] if which else []
    return result + [
        ("What to use?", overall.get("recommendation") or "The hand-over: it was chosen without the judged rows.")
    ]


def _helps(overall: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> str:
    mean, ends = overall.get("delta_m_percent"), overall.get("interval") or (None, None)
    if mean is None or not math.isfinite(mean):
        alone = "There is only one task, so there is nothing to share." if groups["nothing to share"] else ""
        return alone or "That could not be judged: no task has enough labelled rows."
    change = f"{number(abs(mean))} % {'lower' if mean >= 0 else 'higher'} than single-task"
    change = f"Over all tasks, the error with sharing is {change} {interval(ends, ' %')}"
    if None in ends or not all(map(math.isfinite, ends)):
        return f"{change}; how sure that is could not be judged."
    if ends[0] > 0 or ends[1] < 0:
        return f"{'Yes' if ends[0] > 0 else 'No, it harms'}. {change}."
    return f"{'For some tasks' if groups['helped'] else 'Not clearly'}. {change}; the interval includes zero."


def attention(verdict: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Collect what a reader has to know before trusting the numbers: a heading and its sentences."""
    failed = [
        f"{f['arm']}, task {f['task']}"
        + "".join(f", {k} {f[k]}" for k in ("split", "epoch") if f.get(k) is not None)
        + f": {f['why']}"
        for f in verdict.get("failed") or ()
    ]
    mean = [name for name, e in tasks.items() if e.get("baseline_beaten") is False]
    facts = [f"Nothing predicts better than the mean of the training rows: {listed(mean)}."] if mean else []
    facts += [
        f"{name}: {e['splits_left_out']} of {e['splits'] + e['splits_left_out']} outer splits are left out; its error is not defined there."
        for name, e in tasks.items()
        if e.get("splits_left_out")
    ]
    found = [
        ("Failed", failed),
        ("Not tried", verdict.get("not_tried") or []),
        ("Warnings", [*(verdict.get("warnings") or ()), *facts]),
    ]
    return [(heading, [str(item) for item in items]) for heading, items in found if items]


def _sorted(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tasks by their difference in percent, the largest gain first; those without one last, as they came."""
    gains = {name: plots.percent(entry, "difference")[0] for name, entry in tasks.items()}
    return dict(sorted(tasks.items(), key=lambda item: -gains[item[0]] if math.isfinite(gains[item[0]]) else math.inf))


def _roles(tasks: Mapping[str, Mapping[str, Any]], comparison: pd.DataFrame | None) -> dict[str, str]:
    """The role of each arm, in the order single-task, sharing, opponent."""
    roles = {arm: "opponent" for e in tasks.values() for arm in e.get("opponents") or {}}
    roles |= {arm: "sharing" for e in tasks.values() for arm in e.get("arms") or {}}
    if comparison is not None:
        known = comparison[comparison["role"] != "procedure"].drop_duplicates("arm")
        roles |= dict(zip(known["arm"], known["role"], strict=True))
    return {arm: role for wanted in plots.SHAPES for arm, role in roles.items() if role == wanted}


# --- figures -----------------------------------------------------------------------------------------------------


def _split_differences(comparison: pd.DataFrame | None) -> dict[str, list[float]]:
    """Per task the difference of every outer split, in percent of the mean single-task error."""
    if comparison is None:
        return {}
    rows = comparison[(comparison["role"] == "procedure") & comparison["arm"].isin(["single-task", "sharing"])]
    wide = rows.pivot_table(index=["task", "repeat", "fold"], columns="arm", values="error")
    if not {"single-task", "sharing"} <= set(wide.columns):
        return {}
    means = wide["single-task"].groupby(level="task").transform("mean")
    shown = (100 * (wide["single-task"] - wide["sharing"]) / means).dropna()
    return {str(name): list(part) for name, part in shown.groupby(level="task")}


def _overviews(
    tasks: Mapping[str, Any], arms: Mapping[str, plots.Mark], splits: Mapping[str, Sequence[float]]
) -> Iterator[tuple[str, str]]:
    """Pairs of figures with a row per task: differences with intervals, and all arms."""
    shown = {name: e for name, e in tasks.items() if e.get("single_task") and e.get("hand_over") is not None}
    names = list(shown)
    for start in range(0, len(names), ROWS):
        part = {name: shown[name] for name in names[start : start + ROWS]}
        which = f"tasks {start + 1} to {start + len(part)}" if len(names) > ROWS else "all tasks"
        words = "; ".join(
            f"{name} {percent(plots.percent(e, 'difference')[0])}, {e['verdict']}" for name, e in part.items()
        )
        yield (
            plots.svg(
                plots.differences(part, splits),
                f"Difference of sharing to single-task with interval, {which}: {words}.",
            ),
            plots.svg(plots.errors(part, arms, legend=False), f"Error of every arm relative to single-task, {which}."),
        )


def _predictions(tasks: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame | None) -> Iterator[dict[str, str]]:
    """A panel per task for the first tasks: what the hand-over predicted for rows that it had not seen."""
    if predictions is None:
        return
    for name, entry in list(tasks.items())[:PANELS]:
        rows = predictions[(predictions["task"] == name) & (predictions["arm"] == "hand-over")]
        if not len(rows):
            continue
        values = np.stack([np.asarray(p, float) for p in rows["prediction"]])
        target, weight = rows["target"].to_numpy(float), rows["weight"].to_numpy(float)
        if entry["kind"] == "regression":
            figure, what = plots.predicted(target, values[:, 0]), "Predicted against true values"
        elif entry["kind"] == "binary":
            figure, what = (
                plots.calibration(target, values[:, 0], weight),
                f"Calibration of the probability of {entry['classes'][1]}",
            )
        else:
            figure, what = plots.confusion(target, values, entry["classes"]), "Which classes are taken for which"
        scores = (entry.get("scores") or {}).get("hand-over") or {}
        words = ", ".join(
            f"{NAMES.get(k, k)} {number(v)}" for k, v in scores.items() if v is not None and math.isfinite(v)
        )
        yield {"task": name, "what": what, "words": words, "svg": plots.svg(figure, f"{what}, task {name}. {words}")}


def _moving(history: pd.DataFrame | None) -> pd.DataFrame | None:
    """The history of the arms whose task weights change."""
    if history is None or "weight" not in history:
        return None
    spread = history.groupby(["arm", "setting", "task"])["weight"].transform(lambda w: w.max() - w.min())
    moving = history[history["arm"].isin(history.loc[spread > 1e-6 * history["weight"].abs().max(), "arm"])]
    return moving if len(moving) else None


def _curves(
    tasks: Mapping[str, Any], history: pd.DataFrame | None, arms: Mapping[str, plots.Mark], value: str
) -> Iterator[dict[str, str]]:
    """A panel per task for the first tasks: the loss on the stopping rows, or the task's weight, against the update."""
    what = {"stop_loss": "Learning curves", "weight": "Task weight"}[value]
    for name in list(tasks)[:PANELS] if history is not None else ():
        rows = history[history["task"] == name].dropna(subset=[value, "stop_loss"])
        if len(rows):
            yield {
                "task": name,
                "svg": plots.svg(plots.learning(rows, arms, value, legend=False), f"{what}, task {name}."),
            }


def _blend(entry: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """The members of a blend, the heaviest first: arm, settings in words, percent."""
    total = sum(entry["blend"].values()) or 1.0
    found = []
    for member, weight in sorted(entry["blend"].items(), key=lambda item: -item[1]):
        arm, _, setting = member.partition(" · ")
        found.append((arm, _setting(setting), 100 * weight / total))
    return found


def _setting(text: str) -> str:
    try:
        return plain(json.loads(text))
    except ValueError:  # settings that are words already
        return text


def _total_blend(blends: Mapping[str, Sequence[tuple[str, str, float]]]) -> list[tuple[str, float]]:
    """The mean weight of each arm over the tasks, in percent, the heaviest first."""
    total: dict[str, float] = {}
    for members in blends.values():
        for arm, _, share in members:
            total[arm] = total.get(arm, 0.0) + share / len(blends)
    return sorted(total.items(), key=lambda item: -item[1])

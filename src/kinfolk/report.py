"""A run folder in, one self-contained HTML page out: the verdict first, then what it rests on.

Everything on the page comes from the files of the folder (verdict, comparison, predictions, history, learned);
nothing is trained or predicted here. The page needs no network and no JavaScript.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinfolk import numerals, panels, plots
from kinfolk.evidence import wording
from kinfolk.evidence.unlabelled import PADDED, SEMI
from kinfolk.exceptions import InputError
from kinfolk.numerals import Number, interval, number
from kinfolk.runs import Folder

if TYPE_CHECKING:
    import jinja2
    import pandas

FORMAT = 1
SIGNS = {"helped": "▲", "hurt": "▼", "no clear difference": "●", "nothing to share": "–", "not judged": "–"}


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
    tables: dict[str, dict[str, str]] = {"comparison": {}, "predictions": {"arm": "hand-over"}, "history": {}}
    tables |= {"learned": {}}
    frames = [folder.read_frame(f"{n}.parquet", **w) if folder.has(f"{n}.parquet") else None for n, w in tables.items()]
    page = render(folder.read_json("verdict.json"), *frames, folder=str(folder.path))
    folder.write_bytes("report.html", page.encode("utf-8", "replace"))
    return folder.path / "report.html"


def render(
    verdict: Mapping[str, Any],
    comparison: pandas.DataFrame | None = None,
    predictions: pandas.DataFrame | None = None,
    history: pandas.DataFrame | None = None,
    learned: pandas.DataFrame | None = None,
    folder: str = "FOLDER",
) -> str:
    """Make the page as text, from the files of a run `folder`; an empty or missing frame leaves a section out."""
    if verdict.get("format") != FORMAT:
        raise InputError(f"verdict.json must have format {FORMAT}. Got {verdict.get('format')!r}: make the run again.")
    tasks = _sorted(verdict["tasks"])
    roles = _roles(tasks, comparison)
    arms = plots.marks(roles)
    blends = {name: _blend(entry["blend"]) for name, entry in tasks.items() if entry.get("blend")}
    page = {
        "verdict": verdict,
        "tasks": tasks,
        "answers": answers(verdict),
        "counts": _count(tasks),
        "attention": attention(verdict, tasks),
        "arms": [(arm, role, arms[arm]) for arm, role in roles.items()],
        "overviews": list(panels.overviews(tasks, arms, plots.split_differences(comparison))),
        "predictions": list(panels.predictions(tasks, predictions)),
        "learning": list(panels.curves(tasks, history, arms, "stop_loss")),
        "weights": list(panels.curves(tasks, plots.moving(history), arms, "weight")),
        "learned": (made := panels.learned(tasks, learned, history)),
        "parts": any(one.parts for _, drawn in made.values() for one in drawn),
        "blends": blends,
        "total_blend": _total(blends),
        "folder": folder,
        "panels": panels.PANELS,
    }
    return _template().render(page)


def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.PackageLoader("kinfolk", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.undefined = jinja2.StrictUndefined
    environment.filters |= {name: getattr(numerals, name) for name in ("number", "percent", "interval", "plain")}
    environment.globals |= {"SIGNS": SIGNS, "COLOURS": plots.VERDICT_COLOURS, "in_percent": plots.percent}
    return environment.get_template("report.html.j2")


# --- what the page says ------------------------------------------------------------------------------------------


def answers(verdict: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Answer the questions of a user: question, answer in a few words, answer in plain sentences."""
    words, told = _count(verdict["tasks"]), wording.sharing(verdict["tasks"], verdict.get("not_tried") or ())
    result = [("Does sharing help?", *_helps(verdict["overall"], words, told))]
    if words["helped"] or words["hurt"] or words["no clear difference"]:
        found = " and ".join(f"{words[word]} {word}" for word in ("helped", "hurt") if words[word])
        result.append(("Which tasks?", f"{found} of {len(verdict['tasks'])}" if found else "None clearly", told))
    if unlabelled := verdict["overall"].get("unlabelled"):
        leads = {"helped": "Yes", "hurt": "No, they harm", "not judged": "Not judged"}
        lead = leads.get(unlabelled["verdict"], "Not clearly")
        result.append(("Do the rows without labels help?", lead, wording.unlabelled(unlabelled)))
    advice = str(verdict["overall"].get("recommendation") or "Use the hand-over.")
    first, *rest = re.split(r"[.:] ", advice, maxsplit=1)
    if len(first) > 50:
        return [*result, ("What to use?", "", advice)]
    return [*result, ("What to use?", first.rstrip("."), "".join(part[:1].upper() + part[1:] for part in rest))]


def _count(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    return {word: sum(entry["verdict"] == word for entry in tasks.values()) for word in SIGNS}


def _helps(overall: Mapping[str, Any], words: Mapping[str, int], told: str) -> tuple[str, str]:
    mean = _known(overall.get("delta_m_percent"))
    low, high = map(_known, overall.get("interval") or (None, None))
    if math.isnan(mean):
        return "Nothing to share" if words["nothing to share"] else "Not judged", told
    raises = mean < 0
    told = f"Over all tasks, sharing {'raises' if raises else 'lowers'} the error by {number(abs(mean))} %"
    if math.isnan(low + high):
        return "Not judged", f"{told}. How sure that is could not be judged."
    told = f"{told}, interval {interval([-high, -low] if raises else [low, high])}."
    if low > 0 or high < 0:
        return ("Yes" if not words["hurt"] else "Yes, on average") if low > 0 else "No, it harms", told
    return ("For some tasks" if words["helped"] else "Not clearly"), f"{told} That includes zero."


def _known(value: Number | None) -> float:
    return math.nan if value is None else float(value)


def attention(verdict: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Collect what a reader has to know before trusting the numbers: a heading and its sentences."""
    failed = []
    for failure in verdict.get("failed") or ():
        where = [f"{key} {failure[key]}" for key in ("task", "split", "epoch") if failure.get(key) is not None]
        failed.append(f"{', '.join([str(failure['arm']), *where])}: {failure['why']}")
    warned = [*(verdict.get("warnings") or ())]
    for name, entry in tasks.items():
        if out := entry.get("splits_left_out"):
            warned.append(
                f"{name}: {out} of {entry['splits'] + out} splits are left out: its error is not defined there."
            )
    found = {"Failed": failed, "Not tried": verdict.get("not_tried") or [], "Warnings": warned}
    return [(heading, [str(item) for item in items]) for heading, items in found.items() if items]


def _sorted(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tasks by their difference in percent, the largest gain first; those without one last, as they came."""
    gains = {name: plots.percent(entry, "difference")[0] for name, entry in tasks.items()}
    return dict(sorted(tasks.items(), key=lambda item: -gains[item[0]] if math.isfinite(gains[item[0]]) else math.inf))


def _roles(tasks: Mapping[str, Mapping[str, Any]], comparison: pandas.DataFrame | None) -> dict[str, str]:
    """The role of each arm, in the order in which roles are drawn."""
    roles = {arm: "opponent" for entry in tasks.values() for arm in entry.get("opponents") or {}}
    roles |= {arm: "sharing" for entry in tasks.values() for arm in entry.get("arms") or {} if arm not in roles}
    if comparison is not None:
        found = dict(zip(comparison["arm"], comparison["role"], strict=True))
        roles |= {arm: role for arm, role in found.items() if role != "procedure"}
    order = ("single-task", "sharing", SEMI, PADDED, "opponent")
    return {arm: role for wanted in order for arm, role in roles.items() if role == wanted}


def _blend(blend: Mapping[str, Number]) -> list[tuple[str, str, float]]:
    """The members of a blend, the heaviest first: arm, settings in words, percent."""
    total = sum(blend.values()) or 1.0
    parts = [(*member.partition(" · ")[::2], weight) for member, weight in sorted(blend.items(), key=lambda m: -m[1])]
    return [(arm, _setting(setting), 100 * weight / total) for arm, setting, weight in parts]


def _setting(text: str) -> str:
    try:
        return numerals.plain(json.loads(text))
    except ValueError:  # settings that are words already
        return text


def _total(blends: Mapping[str, Sequence[tuple[str, str, float]]]) -> list[tuple[str, float]]:
    """The mean weight of each arm over the tasks, in percent, the heaviest first."""
    total: dict[str, float] = {}
    for members in blends.values():
        for arm, _, share in members:
            total[arm] = total.get(arm, 0.0) + share / len(blends)
    return sorted(total.items(), key=lambda item: -item[1])

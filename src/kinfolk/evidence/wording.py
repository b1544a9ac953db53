"""A verdict in words: a table for the terminal, and plain sentences. Everything comes from the verdict's own values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kinfolk.evidence.unlabelled import PADDED, WITHOUT

Entry = Mapping[str, Any]
NAMED = 6  # so many tasks are named in a sentence, more are counted


def number(value: float | None, signed: bool = False) -> str:
    """Three significant digits; a dash where the number is not known.

    >>> number(0.123456), number(12345.6), number(0.02, signed=True), number(None)
    ('0.123', '12300', '+0.02', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    rounded = float(f"{value:.3g}")
    return f"{rounded:{'+' if signed and rounded else ''}.10g}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(names) > NAMED:
        return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} other tasks"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def rows(tasks: Mapping[str, Entry]) -> list[dict[str, str]]:
    """Heading -> text, one row per main task; columns that no task has are left out."""
    table = [_row(name, entry) for name, entry in tasks.items()]
    empty = {heading for row in table for heading in row} - {
        h for row in table for h, text in row.items() if text != "–"
    }
    return [{heading: text for heading, text in row.items() if heading not in empty} for row in table]


def decimals(errors: Sequence[float | None]) -> int:
    """How many decimals show the smallest of some errors to three digits.

    >>> decimals([0.8512, 0.849, None]), decimals([12.34, 120.0])
    (3, 1)
    """
    known = [abs(e) for e in errors if e is not None and math.isfinite(e) and e]
    return 2 - math.floor(math.log10(min(known))) if known else 3


def fixed(value: float | None, places: int, signed: bool = False) -> str:
    """So many decimals (below 0: rounded to tens, hundreds ...); very small and very large numbers as powers.

    >>> fixed(-0.00712, 3), fixed(0.0022, 3, signed=True), fixed(1234.5, -1), fixed(None, 3)
    ('-0.007', '+0.002', '1230', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if places > 6 or places < -6:
        return number(value, signed)
    rounded = round(value, places) or 0.0  # no minus zero
    return f"{rounded:{'+' if signed and rounded else ''}.{max(0, places)}f}"


def _row(name: str, entry: Entry) -> dict[str, str]:
    places = decimals([entry["single_task"], entry["best"], entry["hand_over"]])
    low, high = entry["interval"]
    difference = fixed(entry["difference"], places, signed=True)
    if low is not None:
        difference += f" [{fixed(low, places)}, {fixed(high, places)}]"
    opponents = {arm: e for arm, e in entry["opponents"].items() if e is not None}
    best = min(opponents, key=lambda arm: opponents[arm]) if opponents else ""
    return {
        "task": name,
        "error": entry["error_name"],
        "single-task": fixed(entry["single_task"], places),
        "sharing": fixed(entry["best"], places),
        "difference": difference,
        "verdict": entry["verdict"],
        "hand-over": fixed(entry["hand_over"], places),
        "best opponent": f"{fixed(opponents[best], places)} {best}" if best else "–",
    }


def sharing(tasks: Mapping[str, Entry], not_tried: Sequence[str] = ()) -> str:
    """Which tasks sharing helps, hurts, or neither."""
    by = {word: [name for name, entry in tasks.items() if entry["verdict"] == word] for word in _WORDS}
    if len(by["nothing to share"]) == len(tasks):
        alone = len(tasks) == 1
        return "There is one task: nothing to share." if alone else "No arm that shares was tried."
    if len(by["not judged"]) == len(tasks):
        within = " within the time budget" if not_tried else ""
        few = all(entry.get("splits", 0) + entry.get("splits_left_out", 0) < 2 for entry in tasks.values())
        why = f"fewer than two outer splits finished{within}" if few else "its error is defined in too few outer splits"
        if any(entry.get("splits") for entry in tasks.values()):
            for column, arms in (("single_task", "no single-task arm was"), ("best", "no arm that shares was")):
                if all(entry.get(column) is None for entry in tasks.values()):
                    why = f"{arms} fitted{within}"
        return f"Whether sharing helps was not judged: {why}."
    clear = [f"{verb} {listed(by[word])}" for word, verb in (("helped", "helps"), ("hurt", "hurts")) if by[word]]
    unclear, rest = by["no clear difference"], [*by["not judged"], *by["nothing to share"]]
    if not clear:
        text = f"Sharing makes no clear difference to {listed(unclear)}."
    else:
        text = f"Sharing {' and '.join(clear)}" + (f"; no clear difference for {listed(unclear)}." if unclear else ".")
    return f"{text} Not judged: {listed(rest)}." if rest else text


_WORDS = ("helped", "hurt", "no clear difference", "nothing to share", "not judged")


def recommendation(tasks: Mapping[str, Entry], overall: Mapping[str, Any], level: float) -> str:
    """What to use, how good that is beside single-task learning, and where nothing is worth using."""
    useless = [name for name, entry in tasks.items() if entry["baseline_beaten"] is False]
    if useless and len(useless) == len(tasks):
        return f"Use none of the models: {_useless(tasks, useless)}"
    return " ".join([_hand_over(tasks, overall, level), *([f"But {_useless(tasks, useless)}"] if useless else [])])


def unlabelled(found: Entry) -> str:
    """Whether rows without labels helped; ``found`` is the verdict's own entry about them."""
    rows = f"the {found['rows']} rows without labels"
    beside = [("the padded baseline", found[PADDED]), ("the best arm without them", found[WITHOUT])]
    sure = f"{100 * (1 - found['level']):g} % interval "
    parts = []
    for name, one in beside:
        if one["percent"] is None:
            continue
        low, high = one["interval"]
        ends = (low, high) if one["percent"] >= 0 else (None if high is None else -high, None if low is None else -low)
        interval = "" if low is None else f" ({sure}[{number(ends[0])}, {number(ends[1])}])"
        parts.append(f"{_beside(one['percent'])} that of {name}{interval}")
        sure = ""
    told = f": with them the error is {' and '.join(parts)}." if parts else "."
    lead = {
        "helped": f"{rows} helped",
        "taught": f"{rows} taught the networks something, though not clearly more than the best arm knows without them",
        "hurt": f"{rows} hurt",
        "not judged": f"whether {rows} helped could not be judged",
    }.get(found["verdict"], f"it is not clear that {rows} helped")
    return f"{lead[0].upper()}{lead[1:]}{told}"


def _useless(tasks: Mapping[str, Entry], names: Sequence[str]) -> str:
    numbers = [name for name in names if tasks[name]["kind"] == "regression"]
    classes = [name for name in names if name not in numbers]
    parts = []
    if numbers:
        parts.append(f"nothing predicts {listed(numbers)} better than the mean of the training rows does")
    if classes:
        parts.append(f"nothing ranks the rows of {listed(classes)} better than chance")
    return f"{', and '.join(parts)}."


def _hand_over(tasks: Mapping[str, Entry], overall: Mapping[str, Any], level: float) -> str:
    percent, (low, high) = overall["hand_over_delta_m_percent"], overall["hand_over_interval"]
    if all(entry["hand_over"] is None for entry in tasks.values()):
        return "Use the hand-over: a blend of what was fitted. How good it is was not measured."
    mean = ", mean over tasks" if len(tasks) > 1 else ""
    if percent is None:
        return "Use the hand-over: a blend of what was fitted."
    if low is None:
        return (
            f"Use the hand-over: its error is {_beside(percent)} that of single-task learning{mean}. "
            "How sure that is could not be judged."
        )
    ends = (low, high) if percent >= 0 else (-high, -low)
    sure = f"{100 * (1 - level):g} % interval [{number(ends[0])}, {number(ends[1])}]"
    if high < 0:
        return f"Use single-task learning: the hand-over's error is {_beside(percent)} its own{mean} ({sure})."
    if low > 0:
        return f"Use the hand-over: its error is {_beside(percent)} that of single-task learning{mean} ({sure})."
    return (
        "Use the hand-over: it is not clearly different from single-task learning, "
        f"its error is {_beside(percent)}{mean} ({sure})."
    )


def _beside(percent: float) -> str:
    return f"{number(abs(percent))} % {'below' if percent >= 0 else 'above'}"

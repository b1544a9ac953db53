"""How a verdict looks in a terminal, and where the output is read by a program."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 110  # columns of a screen on which the names of opponents fit beside everything else
NARROW = {"single-task": "single-\ntask", "hand-over": "hand-\nover", "best opponent": "best\nopponent"}
COLOURS = {
    "helped": "bold green",
    "hurt": "bold red",
    "reproduced": "bold green",
    "direction only": "bold yellow",
    "not reproduced": "bold red",
}


def console_of_output() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is folded for a screen that is not there."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def verdict_table(rows: list[dict[str, str]], width: int) -> Table:
    """The verdict, a row per task.

    On a narrow screen an opponent is its error alone: the report has its name.
    """
    errors = {row["error"] for row in rows}
    one = f"Error: {', '.join(errors)}" if len(errors) == 1 else "Errors"
    title = f"{one} (lower is better). Difference: single-task minus sharing."
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=width < WIDE)
    for heading in (h for h in (rows[0] if rows else ()) if h != "error"):
        text = heading in ("task", "verdict") or (heading == "best opponent" and width >= WIDE)
        named, least = (
            heading if width >= WIDE else NARROW.get(heading, heading),
            {"verdict": 10, "task": 8}.get(heading),
        )
        align = "left" if text else "right"
        shown.add_column(named, justify=align, overflow="fold", no_wrap=not text, min_width=least)
    for row in rows:
        cells = {h: text for h, text in row.items() if h != "error"}
        if len(errors) > 1:
            cells["task"] += f" ({row['error']})"
        if width < WIDE and "best opponent" in cells:
            cells["best opponent"] = cells["best opponent"].partition(" ")[0]
        shown.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in cells.values()))
    return shown


def findings_table(rows: list[dict[str, str]], width: int) -> Table:
    """The findings of a study, a row each; where numbers come from is shown on a wide screen only."""
    shown = Table(box=None, pad_edge=False, collapse_padding=width < WIDE)
    headings = [h for h in (rows[0] if rows else ()) if h != "source" or width >= WIDE]
    for heading in headings:
        text = heading in ("what", "verdict", "source")
        shown.add_column(
            heading,
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
            min_width={"what": 16, "verdict": 10}.get(heading),
        )
    for row in rows:
        shown.add_row(*(Text(row[heading], COLOURS.get(row[heading], "")) for heading in headings))
    return shown

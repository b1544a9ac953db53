"""What a study leaves behind: rows, the table of findings, the figure, and a page with all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kinfolk import drawing
from kinfolk.exceptions import InputError
from kinfolk.numerals import interval, number, plain
from kinfolk.runs import Folder
from kinfolk.studies.base import DIRECTION, MISSED, REPRODUCED, UNJUDGED, Finding, Study

if TYPE_CHECKING:
    import jinja2

VERDICTS = (REPRODUCED, DIRECTION, MISSED, UNJUDGED)
QUICK = (
    "This is the quick form: it shows that everything runs, and is no evidence. Sizes that are named with the results "
    "are those of the full form."
)
CLAIMS = {"negative": "below 0", "positive": "above 0"}


@dataclass(frozen=True)
class Result:
    """A study that has come to its end.

    Attributes
    ----------
    path
        The run folder.
    rows
        What was measured, from all trials.
    findings, remarks
        The table, and the sentences under it.
    """

    path: Path
    rows: pd.DataFrame
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]

    def table(self) -> list[dict[str, str]]:
        """The table as it is read: a row per finding, what it says by heading."""
        return [_cells(finding) for finding in self.findings]

    def summary(self) -> str:
        """How many findings came to which verdict, in one sentence."""
        said = [finding.verdict for finding in self.findings]
        counts = [f"{said.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in said]
        return f"Of {len(said) - said.count('')} published results: {', '.join(counts)}." if counts else ""


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of all trials as one table, ``seed`` whole and ``value`` a number (NaN where a training failed).

    Raises
    ------
    ValueError
        When a row lacks one of the columns that every row has.
    """
    if not rows:
        raise InputError("Every training of the study failed: there is nothing to tell.")
    for row in rows:
        if missing := [name for name in ("seed", "measure", "value") if name not in row]:
            raise ValueError(f"A row must have seed, measure and value. Got {dict(row)}, without {missing[0]}.")
    return pd.DataFrame(list(rows)).astype({"seed": "int64", "value": "float64"})


def write(study: Study, rows: pd.DataFrame, about: Mapping[str, Any], folder: Folder) -> Result:
    """Writes all that follows from the rows: tables, findings, figure, page.

    Raises
    ------
    InputError
        When a value is missing in every row, so that nothing can be said.
    """
    if rows["value"].isna().to_numpy().all():
        raise InputError(f"Every training of the study failed: all values in {folder.path} are missing.")
    remarks = ([QUICK] if about["quick"] else []) + study.remarks(rows)
    result = Result(folder.path, rows, tuple(study.findings(rows)), tuple(remarks))
    folder.write_frame("table.parquet", rows)
    folder.write_bytes("table.csv", rows.to_csv(index=False).encode())
    folder.write_json("findings.json", {**_told(study), "findings": [_values(f) for f in result.findings]})
    with drawing.style():
        drawn = study.figure(rows)
    figure = drawing.svg(drawn, study.title)
    folder.write_bytes("figure.svg", _alone(figure).encode())
    folder.write_bytes("table.md", _markdown(study, result).encode())
    made = {"about": about, "facts": _facts(about), "figure": figure, "verdicts": VERDICTS}
    page = _template().render(study=study, result=result, **made)
    folder.write_bytes("study.html", page.encode("utf-8", "replace"))
    return result


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(0.4), duration(59.0), duration(64.0), duration(4000.0), duration(30000.0)
    ('1 second', '59 seconds', '1 minute', '67 minutes', '8 hours')
    """
    for unit, size, most in (("second", 1, 60), ("minute", 60, 5400), ("hour", 3600, float("inf"))):
        if seconds < most:
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "forever"


def _told(study: Study) -> dict[str, Any]:
    return {"title": study.title, "paper": study.paper}


def _values(finding: Finding) -> dict[str, Any]:
    made = {name: getattr(finding, name) for name in ("ours", "low", "high", "verdict")}
    return {**asdict(finding), **made}


def _cells(finding: Finding) -> dict[str, str]:
    published = CLAIMS.get(finding.claim, "") if finding.published is None else number(finding.published)
    unit = f" {finding.unit}" if finding.unit else ""
    return {
        "what": finding.what,
        "published": f"{published}{unit if finding.published is not None else ''}",
        "ours": f"{number(finding.ours)}{unit}",
        "95 % interval": interval((finding.low, finding.high)),
        "seeds": str(len(finding.values)),
        "verdict": finding.verdict,
        "source": finding.source,
    }


def _markdown(study: Study, result: Result) -> str:
    rows = result.table()
    lines = [f"# {study.title}", "", study.paper, ""]
    headings = list(rows[0]) if rows else []
    told = [headings, ["---"] * len(headings), *([*row.values()] for row in rows)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in told]
    lines += ["", result.summary(), "", *(f"- {remark}" for remark in result.remarks)]
    return "\n".join(lines).rstrip() + "\n"


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader has to know of a run, from its config."""
    machines = [one["machine"] for one in about["sessions"]]
    return [
        ("options", plain(about["options"]) or "none"),
        ("seeds", str(about["seeds"])),
        ("trials", f"{about['trials']}, {duration(about['seconds'])} one after the other"),
        ("machine", _each(f"{m['processor']}, {m['cores']} cores, {m['system']}" for m in machines)),
        ("threads", _each(f"{one['threads']} per worker, workers: {one['workers']}" for one in about["sessions"])),
        ("versions", _each(plain(one["versions"]) for one in about["sessions"])),
    ]


def _each(said: Iterable[str]) -> str:
    """What sessions say, once; several where a run went on with another machine or other versions."""
    return "; then ".join(dict.fromkeys(said))


def _alone(figure: str) -> str:
    """An inline SVG as a file of its own, on white."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head, rest = figure.split(">", 1)
    return f"{head.replace('<svg', f'<svg {names}', 1)}><style>svg {{ background: #fff; color: #1c2430 }}</style>{rest}"


def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.PackageLoader("kinfolk", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.undefined = jinja2.StrictUndefined
    return environment.get_template("study.html.j2")

"""Runs a study in a run folder: how long it will take, its trials over workers, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from kinfolk import __version__, signatures, workers
from kinfolk.exceptions import InputError
from kinfolk.identity import LIBRARIES, command
from kinfolk.processes import one_thread
from kinfolk.runs import Folder, open_run
from kinfolk.studies import results
from kinfolk.studies.base import Study, Trial
from kinfolk.studies.results import Result, duration

TIMING = 20.0  # seconds that an estimate may take
SHOWN = 60  # letters of a trial's name in the names of its files


@dataclass(frozen=True)
class Work:
    """A trial, and where it keeps its checkpoints."""

    study: Study
    trial: Trial
    folder: Folder


def run(
    study: Study,
    out: Path | str,
    *,
    seeds: int | None = None,
    quick: bool = False,
    processes: int | Literal["ray"] = 1,
    resume: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Runs a study, or goes on with it, and writes what follows from it.

    Parameters
    ----------
    study
        What is run.
    out
        The run folder.
    seeds
        How many; default: as many as the study says, with `quick` two.
    quick
        The same code on little.
    processes
        How many trials are computed at the same time, each in a process of one thread; or ``"ray"``.
    resume
        Go on with the run in `out`: finished trials are kept, half-done ones go on from their checkpoints.
    announce
        Called with what is going to be done and how long it will take, before it is.
    progress
        Called with the share that is done and the name of the trial that was finished.

    Raises
    ------
    InputError
        When the folder holds something else, or the data are not there.
    """
    seeds = seeds or (2 if quick else study.seeds)
    trials = study.trials(seeds, quick)
    _check_names(trials)
    with open_run(out, resume) as folder:
        about = _about(study, seeds, quick, len(trials))
        _require_same(folder, about)
        left = [trial for trial in trials if not folder.has(_result(trial))]
        about |= _origin(folder, processes, bool(left))
        seconds = _estimate(study, left, quick)
        if announce is not None:
            announce(f"{f'{results.QUICK} ' if quick else ''}{_announcement(len(trials), seconds, processes)}")
        folder.write_json("config.json", about)
        _work(study, folder, left, seconds, processes, progress)
        done = [folder.read_json(_result(trial)) for trial in trials]
        about["seconds"] = sum(one["seconds"] for one in done)
        folder.write_json("config.json", about)
        return results.write(study, results.frame([row for one in done for row in one["rows"]]), about, folder)


def do(work: Work) -> dict[str, Any]:
    """Computes a trial: its rows, and the seconds that they took."""
    began = time.monotonic()
    rows = work.study.run(work.trial, work.folder)
    return {"trial": work.trial.name, "seconds": time.monotonic() - began, "rows": rows}


def name_of(study: Study) -> str:
    """The name of its command: that of its file, with dashes.

    >>> from kinfolk.catalogue import STUDIES
    >>> all(name_of(STUDIES.get(name)()) == name.replace("_", "-") for name in STUDIES.names())
    True
    """
    return type(study).__module__.rpartition(".")[2].replace("_", "-")


def _work(
    study: Study,
    folder: Folder,
    trials: Sequence[Trial],
    seconds: Sequence[float],
    processes: int | Literal["ray"],
    progress: Callable[[float, str], None] | None,
) -> None:
    """Computes trials; each result is kept when it is there.

    One process takes them in the study's order, which has the telling ones first. Several take the longest first, so
    that none is left to wait for at the end.
    """
    order = list(range(len(trials)))
    if processes != 1:
        order.sort(key=lambda i: -seconds[i])
    queue = [Work(study, trials[i], Folder(folder.folder(_place(trials[i])).path.absolute())) for i in order]
    spent = 0.0

    def done(index: int, result: dict[str, Any]) -> None:
        nonlocal spent
        folder.write_json(_result(queue[index].trial), result)
        shutil.rmtree(queue[index].folder.path, ignore_errors=True)
        spent += seconds[order[index]]
        if progress is not None:
            progress(spent / (sum(seconds) or 1.0), queue[index].trial.name)

    workers.map(do, queue, workers=processes, done=done)


# ---- how long


def _estimate(study: Study, trials: Sequence[Trial], quick: bool) -> list[float]:
    """Seconds of each trial; of those for which there is no time, the mean of the others."""
    deadline = time.monotonic() + (TIMING / 10 if quick else TIMING)
    found: dict[int, float] = {}
    with one_thread():
        for i in _spread(len(trials)):
            if found and time.monotonic() > deadline:
                break
            found[i] = max(1e-3, float(study.seconds(trials[i])))
    mean = sum(found.values()) / len(found) if found else 0.0
    return [found.get(i, mean) for i in range(len(trials))]


def _spread(count: int) -> list[int]:
    """The numbers below `count`, so that the first ones lie far from each other.

    >>> _spread(5)
    [0, 4, 2, 1, 3]
    """
    found: list[int] = []
    for parts in (2**i for i in range(count.bit_length() + 1)):
        found += [at for at in (round(j * (count - 1) / parts) for j in range(parts + 1)) if 0 <= at < count]
    return list(dict.fromkeys([*found, *range(count)]))


def _announcement(trials: int, seconds: Sequence[float], processes: int | Literal["ray"]) -> str:
    if not seconds:
        return f"All {trials} trials are finished; table, figure and page are made again."
    kept = f"; {trials - len(seconds)} of {trials} are finished already" if len(seconds) < trials else ""
    work = f"{len(seconds)} trial{'s' if len(seconds) > 1 else ''}{kept}"
    if processes == "ray":
        return f"About {duration(sum(seconds))} of one core, spread over the cores that Ray has, {work}."
    together = min(processes, len(seconds), workers.available_cores())
    whole = max(max(seconds), sum(seconds) / together)
    return f"About {duration(whole)} with {processes} worker{'s' if processes > 1 else ''}, {work}."


# ---- what makes a run this run


def _about(study: Study, seeds: int, quick: bool, trials: int) -> dict[str, Any]:
    options = {name: getattr(study, name) for name in signatures.parameters(type(study))}
    names = {"study": name_of(study), "title": study.title, "paper": study.paper}
    return names | {"options": json.loads(json.dumps(options)), "seeds": seeds, "quick": quick, "trials": trials}


def _require_same(folder: Folder, about: dict[str, Any]) -> None:
    """Raises InputError when the folder holds another study, or the same with other options."""
    if not folder.has("config.json"):
        if any(folder.path.glob("*.json")):
            raise InputError(f"{folder.path} holds a run that is no study. Give another --out.")
        return
    before, now = _flat(folder.read_json("config.json")), _flat(about)
    differs = [name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)]
    differs = ["study"] if "study" in differs else differs
    if differs:
        there, here = (", ".join(f"{n}={side.get(n)}" for n in differs) for side in (before, now))
        raise InputError(
            f"{folder.path} holds a study with {there}. Got {here}: give the same to go on, or another --out."
        )


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same to go on."""
    return {name: about.get(name) for name in ("study", "seeds", "quick")} | dict(about.get("options") or {})


def _origin(folder: Folder, processes: int | Literal["ray"], working: bool) -> dict[str, Any]:
    """The command, and the sessions that computed trials, as far as they differ: a run may go on elsewhere."""
    before = folder.read_json("config.json") if folder.has("config.json") else {}
    sessions, now = before.get("sessions", []), _session(processes)
    if now not in sessions and (working or not sessions):
        sessions = [*sessions, now]
    return {"command": before.get("command", command().replace(" --resume", "")), "sessions": sessions}


def _session(processes: int | Literal["ray"]) -> dict[str, Any]:
    return {
        "machine": {"processor": _processor(), "cores": workers.available_cores(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "kinfolk": __version__}
        | {name: version(name) for name in LIBRARIES},
        "workers": processes,
        "threads": 1,
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", path.read_text(errors="replace")) if os.path.exists(path) else None
    return found[1].strip() if found else platform.processor() or platform.machine()


# ---- files


def _check_names(trials: Sequence[Trial]) -> None:
    names = [trial.name for trial in trials]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"'{min(twice)}' would be trained twice. Name each value of an option once.")


def _place(trial: Trial) -> str:
    """Where a trial's files are: by its name, and by a mark that changes with its arguments."""
    mark = hashlib.sha256(json.dumps([trial.name, dict(trial.arguments)], sort_keys=True).encode()).hexdigest()[:8]
    return f"trials/{re.sub(r'[^A-Za-z0-9.]+', '-', trial.name)[:SHOWN].strip('-.')}-{mark}"


def _result(trial: Trial) -> str:
    return f"{_place(trial)}.json"

"""A study made for the tests of what runs studies: a line is learned, slowly if that is asked for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.studies.base import Finding, Study, Trial


class Toy(Study):
    """The mean of some numbers.

    Parameters
    ----------
    shift
        What is added.
    wait
        Seconds that a trial takes.
    dies
        Seed of the trial whose process is killed, once, in its middle; none: -1.
    fails
        Whether trials raise.
    """

    title = "The mean of some numbers"
    paper = "A. Author (1999). On means. Journal of Examples."
    seeds = 3

    def __init__(self, *, shift: float = 0.0, wait: float = 0.0, dies: int = -1, fails: bool = False) -> None:
        self.shift, self.wait, self.dies, self.fails = shift, wait, dies, fails

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        return [Trial(f"seed {seed}", {"seed": seed, "count": 4 if quick else 40}) for seed in range(seeds)]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        seed, count = trial.arguments["seed"], trial.arguments["count"]
        if self.fails:
            raise InputError("There are no data.")
        done: list[float] = folder.read_json("half.json") if folder.has("half.json") else []
        for i in range(len(done), count):
            done.append(float(np.random.default_rng((seed, i)).normal()))
            time.sleep(self.wait / count)
            folder.write_json("half.json", done)
            folder.write_bytes(f"made-{i}-{os.getpid()}", b"")
            if seed == self.dies and i == count // 2 and not folder.has("died"):
                folder.write_bytes("died", b"")
                os.kill(os.getpid(), signal.SIGKILL)
        value = float(np.mean(done)) + self.shift
        return [{"arm": "mean", "seed": seed, "measure": "error", "value": value}]

    def seconds(self, trial: Trial) -> float:
        return self.wait

    def findings(self, rows: pd.DataFrame) -> list[Finding]:
        values = tuple(float(value) for value in rows.sort_values(by="seed")["value"])
        return [
            Finding("mean", 0.0, values, "points", source="Author 1999, table 1"),
            Finding("mean, less than", None, values, "points", "negative", "Author 1999, section 2"),
            Finding("a control", None, values),
        ]

    def figure(self, rows: pd.DataFrame) -> Figure:
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().plot(rows["seed"], rows["value"], "o")
        return figure

    def remarks(self, rows: pd.DataFrame) -> list[str]:
        return ["Numbers were drawn, not measured."]


def run_here(out: str, **how: Any) -> None:
    """For a process that the tests stop: the study of `wait` seconds a trial, two workers."""
    from kinfolk.studies import running

    running.run(Toy(wait=float(how.get("wait", 0.0))), Path(out), processes=2, resume=bool(how.get("resume")))

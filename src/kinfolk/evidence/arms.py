"""Network arms: ways to learn the tasks, with a text form such as ``mlp(width=64) + hard + uncertainty``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from kinfolk.auxiliary.base import WithAuxiliary, tasks_of, with_tasks
from kinfolk.catalogue import CATALOGUES, Term, find, parse
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.jobs import (
    LEARNED,
    Fits,
    Job,
    Predictor,
    Rows,
    Setting,
    Surroundings,
    nothing_learned,
    setting_text,
)
from kinfolk.evidence.length import Length
from kinfolk.evidence.networks import NetworkPredictor, Part
from kinfolk.evidence.stacks import Stack, problem_of, target_scale, train_together
from kinfolk.evidence.unlabelled import length_with
from kinfolk.evidence.unlabelled import role as unlabelled_role
from kinfolk.exceptions import InputError
from kinfolk.replicas import key
from kinfolk.training.network import Network, Parts, Replica

SETTINGS: tuple[Setting, ...] = (
    {"encoding": "piecewise", "rate": 3e-3, "decay": 0.01, "dropout": 0.0},
    {"encoding": "piecewise", "rate": 1e-2, "decay": 0.01, "dropout": 0.0},
    {"encoding": "piecewise", "rate": 3e-3, "decay": 0.1, "dropout": 0.1},
    {"encoding": "standard", "rate": 3e-3, "decay": 0.01, "dropout": 0.0},
    {"encoding": "standard", "rate": 1e-3, "decay": 0.1, "dropout": 0.3},
    {"encoding": "piecewise", "rate": 1e-3, "decay": 0.1, "dropout": 0.3},
)
"""What a network may choose from, best known first: each was the best of some table that was measured."""


MLP = Term("mlp", ())


class NetworkArm:
    """A trunk, a sharing, a balancing and perhaps penalties, with settings to choose from.

    Parameters
    ----------
    text
        Terms joined by ``+``. What is left out is ``mlp``, ``hard`` and ``fixed``.
    settings
        How many of :data:`SETTINGS` it may choose from, or the settings themselves.
    length
        How long its networks train.
    width
        Width of the trunk where the text does not say.
    unlabelled
        Whether there are rows without labels: they feed its auxiliary tasks, and its role says so.

    Raises
    ------
    InputError
        For an unknown term or argument, or two terms of one catalogue.
    """

    def __init__(
        self,
        text: str,
        settings: int | Sequence[Setting] = 6,
        length: Length | None = None,
        width: int = 128,
        unlabelled: bool = False,
    ) -> None:
        self.terms, self.penalties, self.auxiliary = _by_catalogue(text)
        self.text = " + ".join(str(term) for term in parse(text))
        self.length = length or Length()
        self.width = width
        self.unlabelled = unlabelled
        self.settings: tuple[Setting, ...] = self._offered(settings)
        self.make({"dropout": 0.0})  # unknown arguments are found now

    @property
    def role(self) -> str:
        """Single-task where every task is a problem of its own, else sharing; another one with rows without labels."""
        if self.unlabelled and self.auxiliary:
            balancing = self.terms.get("balancing", Term("fixed", ()))
            return unlabelled_role(balancing.name, balancing.arguments)
        two = (Task("a", "regression"), Task("b", "regression"))
        parts = self.make({"dropout": 0.0})
        return "single-task" if len(parts.sharing.problems((*two, *self.added))) > 1 else "sharing"

    def _offered(self, settings: int | Sequence[Setting]) -> tuple[Setting, ...]:
        """The settings that its trunk can have: one that reads an image needs an input for each of its numbers."""
        term = self.terms.get("trunks", MLP)
        given = dict(term.arguments)
        offered = SETTINGS if isinstance(settings, int) else settings
        if given.get("shape") is not None:
            offered = [s for s in offered if s["encoding"] == "standard"] or offered
            offered = [{**s, "encoding": "plain"} for s in offered]
        if "dropout" in given or not _has_dropout(term):
            offered = [{**s, "dropout": given.get("dropout", 0.0)} for s in offered]
        return tuple(offered[:settings] if isinstance(settings, int) else offered)

    def _trunk_term(self, dropout: float) -> Term:
        term = self.terms.get("trunks", MLP)
        defaults = {"width": self.width} if term.name == "mlp" else {}
        defaults |= {"dropout": dropout} if dropout else {}
        return Term(term.name, tuple((defaults | dict(term.arguments)).items()))

    @property
    def added(self) -> tuple[Task, ...]:
        """The tasks that its auxiliary terms add to a problem's own."""
        return tasks_of([CATALOGUES["auxiliary"].make(term) for term in self.auxiliary])

    def make(self, setting: Setting) -> Parts:
        """Fresh parts of one replica in training."""
        parts = self.handed_over(setting)
        if not self.auxiliary:
            return parts
        made = [CATALOGUES["auxiliary"].make(term) for term in self.auxiliary]
        return replace(parts, sharing=WithAuxiliary(parts.sharing, made))

    def handed_over(self, setting: Setting) -> Parts:
        """Fresh parts of one replica, without what only helps to train it."""
        made: dict[str, Any] = {"sharing": Term("hard", ()), "balancing": Term("fixed", ())}
        made |= self.terms | {"trunks": self._trunk_term(setting["dropout"])}
        made = {title: CATALOGUES[title].make(term) for title, term in made.items()}
        belonging = parse(made["sharing"].penalty) if made["sharing"].penalty else ()
        named = {term.name for term in self.penalties}
        wanted = (*self.penalties, *(term for term in belonging if term.name not in named))
        penalties = tuple(CATALOGUES["penalties"].make(term) for term in wanted)
        return Parts(made["trunks"], made["sharing"], made["balancing"], penalties)

    def check(self, tasks: Sequence[Task], features: int) -> None:
        """Refuses what cannot be trained on such a table, before anything is.

        Parameters
        ----------
        tasks
            Its tasks.
        features
            About how many encoded columns it has.

        Raises
        ------
        InputError
            If a part of the arm does not fit the tasks or another part.
        """
        self.check_names(tasks)
        rows = with_tasks(Problem.from_arrays(np.zeros((1, features)), np.zeros((1, len(tasks))), tasks), self.added)
        tasks = rows.tasks
        first = torch.zeros(1, dtype=torch.int64)
        for alike in _shapes(self.make(self.settings[0]).sharing.problems(tasks), tuple(tasks)):
            try:
                Network(rows, self.make(self.settings[0]), Replica(first, first, alike[0], 0, 1e-3, 0.0), 1, 1)
            except ValueError as error:
                raise InputError(f"The arm '{self.text}' does not fit this table: {error}") from error

    def check_names(self, tasks: Sequence[Task]) -> None:
        """Refuses a task that is named as one that the arm adds."""
        if clash := {task.name for task in self.added} & {task.name for task in tasks}:
            raise InputError(f"The arm '{self.text}' adds a task '{clash.pop()}'. Give that target another name.")

    def fit(self, rows: Rows, jobs: Sequence[Job], around: Surroundings | None = None) -> Fits:
        """Trains all jobs, those of one encoding and kind of trunk as replicas of one stack."""
        around = around or Surroundings()
        stacks = self.stacks(rows, jobs, around.device)
        train_together(stacks, around)
        networks = [stack.networks() for stack in stacks]
        predictors = [self._predictor(rows, stacks, networks, j) for j in range(len(jobs))]
        cut = any(not stack.training.done for stack in stacks)
        return Fits(predictors, self._failed(stacks, jobs), self._history(stacks), self._learned(stacks), cut)

    def stacks(self, rows: Rows, jobs: Sequence[Job], device: str = "cpu") -> list[Stack]:
        """The stacks in which the jobs are to be trained."""
        scale = target_scale(rows)
        preparations = {
            e: Preparation(e).fit(rows.inputs) for e in {self.settings[j.setting]["encoding"] for j in jobs}
        }
        if self.auxiliary and rows.unlabelled is not None:  # they stand below the others
            jobs = [replace(j, train=np.concatenate([j.train, len(rows.labels) + j.unlabelled])) for j in jobs]
        else:
            rows = replace(rows, unlabelled=None)
        problems = {e: with_tasks(problem_of(rows, p, scale, device), self.added) for e, p in preparations.items()}
        tasks = (*rows.tasks, *self.added)
        shapes = _shapes(self.make(self.settings[0]).sharing.problems(tasks), tasks)
        made = []
        for same in self._same(jobs):
            encoding = self.settings[jobs[same[0]].setting]["encoding"]
            made += [self._stack(problems[encoding], preparations[encoding], jobs, same, shape) for shape in shapes]
        return [stack for stack in made if stack.members]

    def _predictor(
        self, rows: Rows, stacks: Sequence[Stack], networks: Sequence[dict[int, list[Part]]], job: int
    ) -> Predictor | None:
        """What was trained for a job; None where nothing usable was."""
        parts = [part for found in networks for part in found.get(job, [])]
        if not parts:
            return None
        preparation = next(stack.preparation for stack in stacks if stack.of(job))
        epochs = float(np.mean([e for stack in stacks for e in stack.epochs(job)]))
        ordered = tuple(sorted(parts, key=lambda part: part.columns))
        return NetworkPredictor(ordered, preparation, rows.tasks, target_scale(rows), epochs=epochs)

    def _same(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Jobs that can be stacked, those of one setting side by side. One with dropout would make all pay."""
        groups: dict[tuple[str, bool], list[int]] = {}
        for j in sorted(range(len(jobs)), key=lambda j: jobs[j].setting):
            setting = self.settings[jobs[j].setting]
            groups.setdefault((setting["encoding"], setting["dropout"] > 0), []).append(j)
        return list(groups.values())

    def _stack(
        self,
        problem: Problem,
        preparation: Preparation,
        jobs: Sequence[Job],
        same: list[int],
        shape: list[tuple[int, ...]],
    ) -> Stack:
        found = [(j, self._replica(problem, jobs[j], columns)) for j in same for columns in shape]
        members = [(j, member) for j, member in found if member is not None]
        longest = max((len(member.train) for _, member in members), default=1)
        makers = [partial(self.make, self.settings[jobs[j].setting]) for j, _ in members]
        settings = [jobs[j].setting for j, _ in members]
        whole = length_with(self.length, longest) if any(len(jobs[j].unlabelled) for j in same) else self.length
        return Stack(problem, preparation, makers, members, whole.schedule(longest), settings)

    def _replica(self, problem: Problem, job: Job, columns: tuple[int, ...]) -> Replica | None:
        """A job's replica for some tasks, on the rows that have a label of one; None where there is none."""
        labelled = problem.observed.cpu()[:, list(columns)].any(1).numpy()
        train = job.train[labelled[job.train]]
        stop = job.stop[labelled[job.stop]]
        own = [c for c in columns if problem.tasks[c].kind != "loss"]
        if not problem.observed.cpu()[job.train][:, own].any():
            return None
        setting = self.settings[job.setting]
        seed = key(job.seed, job.setting, *columns) % 2**31
        to = partial(torch.as_tensor, dtype=torch.int64)
        return Replica(to(train), to(stop), columns, seed, setting["rate"], setting["decay"])

    def _failed(self, stacks: Sequence[Stack], jobs: Sequence[Job]) -> list[dict[str, Any]]:
        why = "the loss became NaN or infinite"
        return [
            {"arm": self.text, "setting": jobs[j].setting, "task": task, "epoch": epoch, "why": why}
            for stack in stacks
            for j, task, epoch in stack.failures()
        ]

    def _history(self, stacks: Sequence[Stack]) -> list[dict[str, Any]]:
        rows = [row for stack in stacks for row in stack.curves()]
        return [row | {"arm": self.text, "setting": setting_text(self.settings[row["setting"]])} for row in rows]

    def _learned(self, stacks: Sequence[Stack]) -> pd.DataFrame:
        found = [rows for stack in stacks if len(rows := stack.learned())]
        if not found:
            return nothing_learned()
        rows = pd.concat(found, ignore_index=True)
        said = [setting_text(self.settings[i]) for i in rows["setting"]]
        return rows.assign(arm=self.text, setting=said).reindex(columns=LEARNED)


def _by_catalogue(text: str) -> tuple[dict[str, Term], list[Term], list[Term]]:
    """The terms of trunk, sharing and balancing by catalogue, all penalties, and all auxiliary tasks."""
    found: dict[str, Term] = {}
    several: dict[str, list[Term]] = {"penalties": [], "auxiliary": []}
    for term in parse(text):
        title, _ = find(term.name)
        if title not in ("trunks", "sharing", "balancing", *several):
            raise InputError(
                f"An arm is made of trunk, sharing, auxiliary tasks, balancing and penalties. "
                f"'{term.name}' is of {title}."
            )
        if title in several:
            several[title].append(term)
        elif title in found:
            raise InputError(f"An arm has one of {title}. Got '{found[title].name}' and '{term.name}' in '{text}'.")
        else:
            found[title] = term
    names = [term.name for terms in several.values() for term in terms]
    if len(set(names)) < len(names):
        raise InputError(f"An arm has each penalty and auxiliary task once. Got {', '.join(names)} in '{text}'.")
    return found, several["penalties"], several["auxiliary"]


def _has_dropout(term: Term) -> bool:
    return "dropout" in inspect.signature(CATALOGUES["trunks"].get(term.name)).parameters


def _shapes(problems: list[tuple[int, ...]], tasks: tuple[Task, ...]) -> list[list[tuple[int, ...]]]:
    """Problems of which each can be a replica beside the others: tasks alike, place by place."""
    groups: dict[tuple[tuple[str, str, int], ...], list[tuple[int, ...]]] = {}
    for columns in problems:
        groups.setdefault(tuple((tasks[c].kind, tasks[c].loss, tasks[c].size) for c in columns), []).append(columns)
    return list(groups.values())

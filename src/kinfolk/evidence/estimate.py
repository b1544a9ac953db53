"""What is going to be done, and about how long it takes, from a few timed updates on this machine."""

from __future__ import annotations

import time

import numpy as np

from kinfolk.data.splits import labelled_rows, rare_classes, unlabelled_rows
from kinfolk.evidence.fitting import Comparing, encoded, jobs_of
from kinfolk.evidence.jobs import Rows
from kinfolk.evidence.learners import OPPONENTS, learner
from kinfolk.evidence.plan import STOPPED_EARLY
from kinfolk.evidence.unlabelled import PADDED, SEMI
from kinfolk.evidence.unlabelled import arms as semi_supervised
from kinfolk.processes import one_thread

LISTED = 12  # so many tasks are named, more are counted
OPPONENT_SECONDS = 4e-5  # per row, output, setting and inner fold: the mean of the opponents on the same tables


def announcement(comparing: Comparing, processes: int) -> list[str]:
    """Rows, tasks, arms, splits and time, a line each."""
    table, plan = comparing.table, comparing.plan
    lines = [f"{table.name}: {len(table.labels) - table.added} rows, {table.features.shape[1]} feature columns"]
    lines += [*_tasks(comparing), *_unlabelled(comparing)]
    lines.append(f"Arms: {', '.join(plan.arms)}")
    if table.test is None:
        splits = f"{plan.repeats} x {plan.folds} outer splits"
    else:
        splits = f"judged on your {int(table.test.sum())} test rows"
    inner = f"{plan.inner} inner folds" if plan.held == plan.inner else f"{plan.held} of {plan.inner} inner folds"
    lines.append(f"Plan: {splits}, {inner}, {plan.settings} settings per arm, seed {plan.seed}")
    workers = "1 worker" if processes == 1 else f"{processes} workers"
    if comparing.devices > 1:
        workers += f", {comparing.devices} devices"
    lines.append(f"Estimated time: {spoken(seconds_of(comparing) / processes)} on {workers}")
    return lines + [f"Note: {note}" for note in (*table.warnings, *rare_classes(table, plan.folds))]


def _unlabelled(comparing: Comparing) -> list[str]:
    """How many rows have no label, and what is done with them."""
    table, plan = comparing.table, comparing.plan
    there = len(unlabelled_rows(table))
    if not there:
        return []
    text = f"  {there} rows without labels"
    text += f", {table.added} of them of the unlabelled table" if 0 < table.added < there else ""
    text += f", of which {plan.unlabelled} are drawn" if plan.unlabelled < there else ""
    roles = [learner(arm, plan).role for arm in plan.arms]
    arms = semi_supervised(plan.length, len(labelled_rows(table)) + plan.unlabelled)
    if SEMI not in roles:
        return [f"{text}: no arm reads them. One that does: --arm '+{arms[0]}', beside --arm '+{arms[2]}'"]
    said = f"{text}: read by {roles.count(SEMI)} arms, by evolving weights of a task that needs no label"
    if arms[0] in plan.arms:
        said += " (sigma epochs, half the patience, until its weight is 1/e)"
    return [f"{said}; {roles.count(PADDED)} padded baselines see the same batches and give it no weight"]


def _tasks(comparing: Comparing) -> list[str]:
    """A line per task; where they are many, how many of each kind."""
    told: dict[str, list[int]] = {}
    lines = []
    for label, task in zip(comparing.table.labels.T, comparing.table.tasks, strict=True):
        classes = f" ({len(task.classes)} classes)" if task.kind == "multiclass" else ""
        known, role = int((~np.isnan(label)).sum()), "target" if task.main else "auxiliary"
        error = f", error {task.error}" if task.main else ""
        lines.append(f"  {role} {task.name}: {task.kind}{classes}, {known} labels{error}")
        told.setdefault(f"{role}, {task.kind}{error}", []).append(known)
    if len(lines) <= LISTED:
        return lines
    return [f"  {len(k)} tasks ({what}), {min(k)} to {max(k)} labels" for what, k in told.items()]


def seconds_of(comparing: Comparing) -> float:
    """Seconds of work in all: each arm's networks times the splits, and the opponents."""
    with one_thread():
        try:
            rows = encoded(comparing, comparing.model)[1]
            one = sum(_arm(comparing, rows, text) for text in comparing.plan.arms)
        finally:
            encoded.cache_clear()  # this process fits nothing itself when there are workers
    return one * len(comparing.splits)


def _arm(comparing: Comparing, rows: Rows, text: str) -> float:
    plan = comparing.plan
    if text in OPPONENTS:
        outputs = sum(task.size for task in rows.tasks if task.main)
        return OPPONENT_SECONDS * len(rows.inputs) * outputs * plan.settings * plan.held
    from kinfolk.evidence.arms import NetworkArm

    arm = NetworkArm(text, plan.settings, plan.length, plan.width)
    jobs = jobs_of(comparing, comparing.model, rows, len(arm.settings))[1]
    stacks = arm.stacks(rows, jobs)
    one = stacks[0]  # stands for all: they differ in encoding and dropout only
    one.training.run(1)  # the first epoch also makes what is made once
    began = time.perf_counter()
    one.training.run(one.training.updates + 1)
    per_update = (time.perf_counter() - began) / one.schedule.every / len(one.members)
    phases = one.training.network.model.phases - 1 + STOPPED_EARLY  # networks end early in the last one only
    return per_update * phases * sum(len(stack.members) * stack.schedule.updates for stack in stacks)


def spoken(seconds: float) -> str:
    """A duration in words.

    >>> spoken(250.0)
    'about 4 min'
    """
    if seconds < 50:
        return "less than a minute"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"

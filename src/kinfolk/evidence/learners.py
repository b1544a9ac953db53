"""Arms and opponents by their text, and their fitted forms in files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from kinfolk import persistence
from kinfolk.data.tasks import Task
from kinfolk.evidence import opponents
from kinfolk.evidence.jobs import Learner, Predictor, Setting
from kinfolk.evidence.plan import Plan
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder

if TYPE_CHECKING:
    from kinfolk.evidence import arms, networks

OPPONENTS = {kind.text: kind for kind in (opponents.Ridge, opponents.HistGradientBoosting, opponents.ExtraTrees)}


def learner(text: str, plan: Plan) -> Learner:
    """The arm or opponent of a text, with the settings and length of a plan.

    Raises
    ------
    InputError
        For a text that names nothing.
    """
    if text.strip() in OPPONENTS:
        return cast(Learner, OPPONENTS[text.strip()](plan.settings))  # the protocol's attributes are only read
    from kinfolk.evidence.arms import NetworkArm

    return NetworkArm(text, plan.settings, plan.length, plan.width, plan.unlabelled > 0)


def check(one: Learner, tasks: Sequence[Task], features: int) -> None:
    """Refuses a network arm that does not fit the tasks of a table, or whose parts do not fit each other.

    Raises
    ------
    InputError
        With what it needs.
    """
    if one.role != "opponent":
        cast("arms.NetworkArm", one).check(tasks, features)


def average(predictors: Sequence[Predictor]) -> Predictor:
    """The mean of fits of one learner and setting."""
    if isinstance(predictors[0], opponents.OpponentPredictor):
        return opponents.mean(cast(Sequence[opponents.OpponentPredictor], predictors))
    from kinfolk.evidence import networks

    return networks.mean(cast(Sequence[networks.NetworkPredictor], predictors))


def save(predictor: Predictor, folder: Folder, name: str) -> None:
    """Writes a fitted learner: ``name.skops`` (scikit-learn) or ``name.safetensors`` (network)."""
    if isinstance(predictor, opponents.OpponentPredictor):
        folder.path.mkdir(parents=True, exist_ok=True)
        persistence.save_sklearn(predictor.estimators, folder.path / f"{name}.skops")
        return
    from safetensors.numpy import save as to_bytes

    state = cast("networks.NetworkPredictor", predictor).state()
    folder.write_bytes(f"{name}.safetensors", to_bytes({k: np.array(a, order="C") for k, a in state.items()}))


def load(
    text: str, setting: Setting, width: int, tasks: tuple[Task, ...], features: int, folder: Folder, name: str
) -> Predictor:
    """Reads what :func:`save` wrote.

    Parameters
    ----------
    text, setting, width
        Of the learner.
    tasks
        Of the problem.
    features
        How many encoded columns it reads.
    folder, name
        Where it lies.

    Raises
    ------
    InputError
        For a file that is damaged or unsafe, or that does not fit the learner.
    """
    if text in OPPONENTS:
        file = folder.path / f"{name}.skops"
        estimators = persistence.load_sklearn(file, features)
        if not isinstance(estimators, list) or not estimators or len(estimators) % len(tasks):
            raise InputError(f"{file} must hold an estimator for each of {len(tasks)} tasks.")
        for estimator, task in zip(estimators, itertools.cycle(tasks)):
            if hasattr(estimator, "predict_proba") == task.numeric:
                raise InputError(f"{file} must hold a {task.kind} estimator for task '{task.name}'.")
        return opponents.OpponentPredictor(tasks, estimators)
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    from kinfolk.evidence.arms import NetworkArm
    from kinfolk.evidence.networks import from_state

    try:
        state = from_bytes(folder.read_bytes(f"{name}.safetensors"))
        predictor = from_state(state, tasks, NetworkArm(text, width=width).handed_over(setting))
        if len(predictor.preparation.shift) != features:
            raise ValueError(f"it reads {len(predictor.preparation.shift)} columns, the encoder gives {features}")
        return predictor
    except (SafetensorError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder.path / name}.safetensors must hold the network '{text}': {error}.") from error

"""``--target risk:ranking`` from the table to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import kinfolk
from kinfolk.balancing.fixed import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError
from kinfolk.fitted import Options
from kinfolk.sharing.hard import Hard
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks.mlp import Mlp

OPTIONS = Options(arms=("ridge", "mlp(width=4) + hard", "independent"), repeats=1, folds=2, inner=2, settings=1)


def frame(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    made = pd.DataFrame({"x": x[:, 0], "y": x[:, 1]})
    made["risk"] = (x[:, 0] + 0.3 * random.normal(size=rows) > 0.5).astype(int)
    made["stay"] = np.exp(x[:, 0] + 0.3 * random.normal(size=rows))
    return made


def test_a_ranking_is_fitted_judged_and_predicted(tmp_path: Path) -> None:
    found = kinfolk.fit(
        frame(), ["risk:ranking", "stay:ranking"], errors={"risk": "fop_50"}, options=OPTIONS, out=tmp_path / "a"
    )
    assert [found.verdict.tasks[name]["error_name"] for name in ("risk", "stay")] == ["fop_50", "1-concordance"]
    new = frame(40, seed=1)
    scores: Any = found.predict(new)
    low, high = (scores["risk"].to_numpy()[new["risk"].to_numpy() == label] for label in (0, 1))
    assert high.mean() > low.mean()
    pd.testing.assert_frame_equal(kinfolk.load(found.path / "model").predict(new), scores)


def test_texts_have_no_order(tmp_path: Path) -> None:
    table = frame()
    table["risk"] = np.where(table["risk"] > 0, "high", "low")
    with pytest.raises(InputError, match="must hold numbers to be a ranking"):
        kinfolk.fit(table, ["risk:ranking", "stay"], options=OPTIONS, out=tmp_path / "a")


@pytest.mark.parametrize("loss", ["pairwise", "rankprop"])
def test_both_losses_learn_an_order(loss: str) -> None:
    table = frame(80)
    task = Task("risk", "ranking", loss=loss)
    labels = np.where(np.arange(80) % 5 == 0, np.nan, table["risk"])[:, None]  # some are not observed
    problem = Problem.from_arrays(table[["x", "y"]].to_numpy(copy=True), labels, [task])
    members = [Replica(torch.arange(60 - 20 * r), torch.arange(60, 80), (0,), r, 1e-2, 0.0) for r in range(2)]
    training = Training(
        problem, lambda: Parts(Mlp(width=8, depth=1), Hard(), Fixed()), members, Schedule(120, 40, 20, 120, 1)
    )
    training.run()
    score = training.network.model(problem.inputs.expand(2, -1, -1)).tasks[0].squeeze(-1)
    positive = problem.targets[0] > 0
    assert bool((score[:, positive].mean(1) > score[:, ~positive].mean(1)).all())
    assert not training.failures

"""Every sharing in an arm: trained, written, read again, and the same predictions, together and each member alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_arms import SHORT, jobs, rows

from kinfolk.catalogue import CATALOGUES
from kinfolk.evidence import learners
from kinfolk.evidence.arms import NetworkArm
from kinfolk.evidence.networks import NetworkPredictor
from kinfolk.runs import Folder

TEXTS = [*CATALOGUES["sharing"].names(), "cross_stitch(start=independent)", "nddr(start=independent, shortcut=True)"]
TEXTS += ["adapters(frozen=True)", "hard(branch={a: 1})", "hard + tensor_normal", "dselect_k(per_example=True)"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_saved_arm_predicts_what_it_predicted(text: str, tmp_path: Path):
    arm, whole = NetworkArm(f"mlp(norm=batch) + {text}", 1, SHORT, width=6), rows()
    members = [p for p in arm.fit(whole, jobs(settings=1)).predictors if isinstance(p, NetworkPredictor)]
    both = learners.average(members)
    learners.save(both, Folder(tmp_path), "fit")
    again = learners.load(arm.text, arm.settings[0], 6, whole.tasks, whole.inputs.shape[1], Folder(tmp_path), "fit")
    apart = [member.predict(whole.inputs) for member in members]
    for t, (one, other) in enumerate(zip(both.predict(whole.inputs), again.predict(whole.inputs), strict=True)):
        assert np.array_equal(np.asarray(one), np.asarray(other))
        mean = np.mean([np.asarray(alone[t]) for alone in apart], 0)
        assert np.asarray(one) == pytest.approx(mean, rel=1e-5, abs=1e-5)

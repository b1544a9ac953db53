"""Arms that no network can be made of on a table: refused by name in one line, before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kinfolk import cli

BAD = {
    # What the constructor sees.
    "cross_stitch(same=1.5) + hard": "An arm has one of sharing",
    "cross_stitch(same=1.5)": "`same` must be in [0, 1]. Got 1.5",
    "nddr(other=-0.1)": "`other` must be in [0, 1]. Got -0.1",
    "sluice(subspaces=0)": "`subspaces` must be at least 1. Got 0",
    "mmoe(experts=0)": "`experts` must be at least 1. Got 0",
    "mmoe(experts=-2)": "Got -2",
    "dselect_k(experts=2, k=3)": "`k`",
    "ple(experts=0, shared=0)": "`experts` and `shared`",
    "mtan(reduction=0)": "`reduction` must be at least 1. Got 0",
    "adapters(size=0)": "`size` of adapters must be at least 1. Got 0",
    "cascade(order={a: [b], b: [a]})": "circle",
    "cascade(order={a: [a]})": "circle",
    "hard(branch={a: 0})": "stages from 1 on. Got 0",
    "branching(depth=0)": "`depth` must be at least 1",
    "learned_branching(temperature=0)": "`temperature` must be positive",
    "soft + soft_sharing(strength=-1)": "`strength` must not be negative. Got -1",
    "soft + soft_sharing(norm=l3)": "`norm` must be one of l2, l1, trace",
    # What the tasks, the trunk or the columns tell.
    "hard(branch={maths: 1})": "`branch` must name tasks. Got 'maths'; tasks are 'a', 'b'",
    "hard(branch={a: 3})": "2 stages. Got 3 for 'a'",
    "mlp(depth=1) + hard(branch={a: 2})": "1 stages. Got 2 for 'a'",
    "cascade(order=[a, c])": "`order` must name tasks. Got 'c'; tasks are 'a', 'b'",
    "cascade(order={a: [c]})": "`order` must name tasks. Got 'c'",
    "cross_stitch(stages=[2])": "the trunk's 2 stages, 0 to 1. Got [2]",
    "nddr(stages=[])": "the trunk's 2 stages, 0 to 1. Got []",
    "branching(depth=3)": "`depth` must be at most the trunk's 2 stages. Got 3",
    "mlp(width=4) + sluice(subspaces=5)": "`subspaces` must be at most the channels of each stage, 4. Got 5",
    "ple(levels=3)": "`levels`",
    "soft + soft_sharing(stages=[7])": "0 to 1. Got [7]",
    "hard + soft_sharing": "a sharing with a trunk per task: soft, cross_stitch, nddr. Got Hard",
    "lenet + hard": "Flat ones need a `shape`, such as shape=(1, 2, 2)",
    "lenet(shape=[1, 28, 28]) + hard": "1 x 28 x 28 = 784. Got 4",
    "lenet(shape=[1, 2, 2]) + hard": "Images must be large enough",
    "resnet(shape=[3, 4, 4]) + independent": "3 x 4 x 4 = 48. Got 4",
    "resnet(shape=[4, 4]) + hard": "`shape` must be channels, height and width",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    random = np.random.default_rng(0)
    pixels = random.normal(size=(40, 4))
    frame = pd.DataFrame(pixels, columns=["p0", "p1", "p2", "p3"]).assign(a=pixels[:, 0], b=pixels[:, 1] > 0)
    frame.loc[::5, "p3"] = np.nan
    frame.to_csv(folder / "pixels.csv", index=False)
    return folder


@pytest.mark.parametrize("arm", BAD)
def test_a_bad_arm_is_one_line_before_training(arm: str, folder: Path, monkeypatch, capsys):
    words = ["fit", "pixels.csv", "--target", "a", "--target", "b", "--out", "run", "--splits", "1x2", "--workers", "1"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["kinfolk", *words, "--arm", "independent", "--arm", arm])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("kinfolk: ")
    assert len(said.strip().splitlines()) == 1
    assert BAD[arm] in said
    assert not (folder / "run").exists()

"""Work on a Ray cluster, here one of this machine; and what is said where Ray is not installed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kinfolk import workers
from kinfolk.exceptions import InputError, WorkerDied
from kinfolk.studies import running
from toy_study import Toy


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'kinfolk\[ray\]'"):
        workers.map(abs, [-1], workers="ray")


def test_a_team_is_of_local_processes():
    with pytest.raises(ValueError, match="On Ray a `team` must be 1"):
        workers.run(abs, [-1], workers="ray", done=lambda *_: None, team=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on this machine, with two cores."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'kinfolk[ray]'")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of what a later version will do
        changed.setenv("PYTHONPATH", str(Path(__file__).parent))  # of its processes, which read functions from here
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, address="local")
        yield ray
        ray.shutdown()


def work(job: tuple[str, str]) -> tuple[str, str]:
    how, marker = job
    if how == "always" or (how == "die" and not os.path.exists(marker)):
        Path(marker).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise InputError("`x` must be good.")
    if how == "slow":
        time.sleep(0.3)
    return how, os.environ.get("OMP_NUM_THREADS", "")


def test_results_are_in_the_order_of_the_items_and_the_dead_are_done_again(cluster: Any, tmp_path: Path):
    marker = str(tmp_path / "died")
    seen: list[int] = []
    jobs = [("slow", ""), ("die", marker), ("plain", "")]
    found = workers.map(work, jobs, workers="ray", done=lambda index, _: seen.append(index))
    assert found == [("slow", "1"), ("die", "1"), ("plain", "1")], "one thread each"
    assert sorted(seen) == [0, 1, 2]
    assert Path(marker).exists()


def test_results_may_bring_more_items(cluster: Any):
    def done(index: int, result: int) -> list[int]:
        return [result - 1] if result else []

    assert workers.run(abs, [-2], workers="ray", done=done) == [2, 1, 0]


def test_what_an_item_raises_comes_through(cluster: Any):
    with pytest.raises(InputError, match=r"^`x` must be good.$"):
        workers.map(work, [("slow", ""), ("raise", ""), ("slow", "")], workers="ray")


def test_a_study_on_ray_is_the_study_here(cluster: Any, tmp_path: Path):

    here, there = (running.run(Toy(), tmp_path / str(how), processes=how) for how in (1, "ray"))
    pd.testing.assert_frame_equal(here.rows, there.rows)


def test_a_worker_that_always_dies_is_no_accident(cluster: Any, tmp_path: Path):
    with pytest.raises(WorkerDied, match=r"item 1 on Ray died 3 times"):
        workers.map(work, [("plain", ""), ("always", str(tmp_path / "x"))], workers="ray")

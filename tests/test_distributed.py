"""Two processes that train together compute what one process computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

import two_processes
from kinfolk import distributed
from two_processes import Computed

Outcome = tuple[Computed, dict[str, dict[str, Tensor] | str]]
METHODS = [f"{name}, {where}" for name in two_processes.BALANCINGS for where in (*two_processes.NORMS, "loop")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Outcome]:
    yield two_processes.compute()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """One launch for all tests: to start processes takes seconds."""
    folder = tmp_path_factory.mktemp("two_processes")
    spawn(two_processes.process, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def one(alone: Outcome) -> Computed:
    return alone[0]


@pytest.fixture
def two(together: list[Outcome]) -> list[Computed]:
    return [outcome[0] for outcome in together]


def assert_alike(mine: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float, atol: float) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        said = partial("{}: {}".format, name)
        torch.testing.assert_close(tensor, theirs[name], rtol=rtol, atol=atol, equal_nan=True, msg=said)


@pytest.mark.parametrize("arm", two_processes.ARMS)
def test_two_processes_are_one(arm: str, one: Computed, two: list[Computed]) -> None:
    for computed in two:
        # Adam moves a bias before a batch norm by rounding alone: its gradient is 0.
        assert_alike(computed[arm], one[arm], 1e-10, 1e-7 if arm == "batch norm" else 1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_every_balancing_gives_what_one_process_gives(method: str, alone: Outcome, together: list[Outcome]) -> None:
    mine = alone[1][method]
    assert isinstance(mine, dict), mine
    assert mine.get("updates") in (None, two_processes.SHORT.updates)
    assert not len(mine.get("failures", ()))
    for _, methods in together:
        theirs = methods[method]
        assert isinstance(theirs, dict), theirs
        assert_alike(theirs, mine, 1e-6, 1e-6)


def test_the_clock_of_one_process_stops_all(one: Computed, two: list[Computed]) -> None:
    for computed in two:
        assert computed["cut"]["updates"] == one["cut"]["updates"] == two_processes.LONG.every


@pytest.mark.parametrize("arm", two_processes.ARMS)
def test_processes_agree_to_the_last_bit(arm: str, two: list[Computed]) -> None:
    """They decide alike which replicas retire, or they would wait for each other for ever."""
    for name, tensor in two[0][arm].items():
        assert torch.equal(tensor.nan_to_num(), two[1][arm][name].nan_to_num()), name


def test_a_replica_retired_meanwhile(one: Computed) -> None:
    assert any(len(one[arm]["network/number"]) < 2 for arm in two_processes.ARMS)


def test_sums(one: Computed, two: list[Computed]) -> None:
    for computed in two:
        for name, tensor in computed["sums"].items():
            torch.testing.assert_close(tensor, one["sums"][name], rtol=1e-12, atol=1e-12)


def test_one_process_hands_through() -> None:
    part = torch.ones(3)
    assert distributed.processes() == 1
    assert distributed.share() == slice(None)
    assert distributed.total(part) is part
    assert distributed.mean(part) is part

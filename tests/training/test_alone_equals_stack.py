"""A replica equals the run with its rows, seed and settings alone, whatever is stacked beside it or has retired."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_trainings import (
    COMBINATIONS,
    PATIENT,
    SCHEDULE,
    assert_equal_but_for_rounding,
    groups,
    histories,
    member,
    mixed,
    parts,
    short,
    train,
)

from kinfolk.balancing import Fixed, Uncertainty
from kinfolk.data.problem import Problem
from kinfolk.sharing import Hard, Independent
from kinfolk.training.loop import Replica


@pytest.mark.parametrize(("sharing", "balancing", "trunk"), COMBINATIONS)
def test_alone_equals_stack(sharing, balancing, trunk: str) -> None:
    problem = mixed()
    stacks = groups(sharing, problem.tasks)
    for columns in stacks[:1] if trunk == "from modules" else stacks:  # copies of a user's module run one by one
        members = [member(problem, c, seed) for seed in range(3 if len(columns) == 1 else 2) for c in columns]
        make = parts(sharing, balancing, trunk)
        schedule = short(problem, make, members[0])
        together = train(problem, make, members, schedule)
        for i, one in enumerate(members):
            assert_equal_but_for_rounding(together, i, train(problem, make, [one], schedule))


def test_others_retire_meanwhile() -> None:
    """What the tests above go through: replicas that end at different times."""
    problem = mixed()
    columns = tuple(range(5))
    for balancing in (Fixed, Uncertainty):
        together = train(problem, parts(Hard, balancing), [member(problem, columns, seed) for seed in range(3)])
        lengths = [len(history) for history in histories(together).values()]
        assert len(set(lengths)) > 1, lengths


@pytest.mark.parametrize("weighted", [False, True])
def test_complete_problems_too(weighted: bool) -> None:
    problem = mixed(0, weighted)
    members = [member(problem, tuple(range(5)), seed) for seed in range(3)]
    together = train(problem, parts(Hard, Fixed), members)
    for i, one in enumerate(members):
        assert_equal_but_for_rounding(together, i, train(problem, parts(Hard, Fixed), [one]))


def only(problem: Problem, column: int, rows: torch.Tensor) -> Problem:
    """A problem of one task that knows of no other: its task, and no row without its label."""
    return Problem(
        problem.inputs[rows], [problem.targets[column][rows]], problem.observed[rows, column : column + 1],
        problem.weight[rows], (problem.tasks[column],),
    )  # fmt: skip


@pytest.mark.parametrize("balancing", [Fixed, Uncertainty])
def test_independent_is_training_the_tasks_one_by_one(balancing) -> None:
    problem = mixed()
    for columns in groups(Independent, problem.tasks):
        members = [member(problem, c, seed=0) for c in columns]
        together = train(problem, parts(Independent, balancing), members)
        for i, one in enumerate(members):
            column = one.columns[0]
            rows = torch.cat([one.train, one.stop[problem.observed[one.stop, column]]])
            alone = dataclasses.replace(one, train=torch.arange(len(one.train)), columns=(0,))
            alone = dataclasses.replace(alone, stop=torch.arange(len(one.train), len(rows)))
            small = only(problem, column, rows)
            assert_equal_but_for_rounding(together, i, train(small, parts(Independent, balancing), [alone]))


def test_independent_is_hard_sharing_of_one_task() -> None:
    problem = mixed()
    one = member(problem, (2,), 1)
    single = train(problem, parts(Independent, Fixed), [one])
    assert_equal_but_for_rounding(train(problem, parts(Hard, Fixed), [one]), 0, single)


def test_order_in_the_stack_does_not_matter() -> None:
    problem = mixed()
    members = [member(problem, tuple(range(5)), seed) for seed in range(3)]
    forth = histories(train(problem, parts(Hard, Fixed), members, PATIENT))
    back = histories(train(problem, parts(Hard, Fixed), members[::-1], PATIENT))
    for i in range(3):
        for update, shown in forth[i].items():
            for one, other in zip(shown, back[2 - i][update], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, equal_nan=True)


def test_same_seed_same_bits() -> None:
    problem = mixed()
    members = [member(problem, tuple(range(5)), seed) for seed in range(2)]
    one = train(problem, parts(Hard, Fixed), members).state()
    torch.rand(3)  # what was drawn before does not matter
    other = train(problem, parts(Hard, Fixed), members).state()
    assert one.keys() == other.keys()
    assert all(torch.equal(t.nan_to_num(), other[name].nan_to_num()) for name, t in one.items())


def test_a_stack_needs_like_tasks() -> None:
    problem = mixed()
    with pytest.raises(ValueError, match=r"equal kinds and sizes.*binary \(1\) against regression \(1\)"):
        train(problem, parts(Independent, Fixed), [member(problem, (c,), 0) for c in (0, 2)], SCHEDULE)
    with pytest.raises(ValueError, match="equal kinds and sizes"):
        train(problem, parts(Hard, Fixed), [])


def test_rows_of_a_replica_stay_its_own() -> None:
    """A row that one replica may not see is not in any of its updates, and moves nothing."""
    problem = mixed(0, weighted=False)
    columns = tuple(range(5))
    half = [Replica(torch.arange(s, 40, 2), torch.arange(40, 60), columns, 0, 1e-2, 0.0) for s in range(2)]
    before = histories(train(problem, parts(Hard, Fixed), half, PATIENT))
    problem.inputs[1:40:2] = 7.0
    after = histories(train(problem, parts(Hard, Fixed), half, PATIENT))
    assert all(torch.equal(a, b) for u in before[0] for a, b in zip(before[0][u], after[0][u], strict=True))
    assert not any(torch.equal(before[1][u][0], after[1][u][0]) for u in before[1])

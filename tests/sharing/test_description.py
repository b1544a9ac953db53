"""What is told of the pattern of a sharing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import kinfolk.sharing
from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Independent, describe
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.heads import Heads
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = [
    Task("read", "regression"),
    Task("write", "multiclass", ("x", "y", "z")),
    Task("math", "regression"),
    Task("help", "regression", main=False),
]
INPUTS = torch.Size([5])
FOUND: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]


def line(text: str, name: str) -> str:
    """The line of a part, without the tree before it and with single spaces."""
    found = [" ".join(one.lstrip("│├└─ ").split()) for one in text.splitlines()[1:]]
    return next(one for one in found if one.startswith(f"{name} "))


def test_hard_shares_its_stages_and_no_head() -> None:
    text = describe(Hard().setup(Mlp(8, norm="layer"), TASKS, INPUTS))
    total = (5 * 8 + 8 + 16) + (8 * 8 + 8 + 16) + 6 * 9
    first = f"hard · 4 tasks (read, write, math, help: auxiliary) · {total} parameters"
    assert text.splitlines()[0] == first
    assert line(text, "0") == "0 Chain shared by all 64"
    assert line(text, "1") == "1 Chain shared by all 88"
    assert line(text, "0 Linear") == "0 Linear 3 slices, one per task: read, math, help 27"
    assert line(text, "1 Linear") == "1 Linear for write 27"


def test_a_stack_is_told_as_one_replica_of_it() -> None:
    one = describe(Hard().setup(Mlp(8), TASKS, INPUTS))
    many = describe(replicas.stack([Hard().setup(Mlp(8), TASKS, INPUTS) for _ in range(3)]))
    assert many.splitlines()[0] == f"{one.splitlines()[0]} in each of 3 replicas"
    assert many.splitlines()[1:] == one.splitlines()[1:]


def test_one_task() -> None:
    text = describe(Independent().setup(Mlp(8), TASKS[:1], INPUTS))
    assert text.startswith("independent · 1 task (read) · 129 parameters")
    assert "shared" not in text


def test_looped_stages_are_called_so() -> None:
    modules = [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(32, 4))]
    text = describe(Hard().setup(FromModules(modules), TASKS, torch.Size([1, 6, 6])))
    assert line(text, "0") == "0 Looped Conv2d shared by all 20"
    assert line(text, "1") == "1 Looped ReLU no parameters"
    assert line(text, "2") == "2 Looped Sequential shared by all 132"
    assert "run once per copy" in text.splitlines()[-1]
    assert "Looped" not in describe(Hard().setup(Mlp(8), TASKS, INPUTS))


class Groups(Sharing):
    """A user's own: a number for each task, one for the first two, one for nobody."""

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Groups:
        self.heads = Heads(tasks, inputs[0])
        self.mixed = nn.Parameter(torch.ones(len(tasks) + 2, 1))
        self.twice = nn.Parameter(torch.ones(2 * len(tasks), 1))
        self.some = nn.Parameter(torch.ones(2, 1))
        self.tied = self.some
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        outputs = self.heads([inputs] * 4)
        mixed, twice, some = (p.unflatten(0, (len(inputs), -1)) for p in (self.mixed, self.twice, self.some))
        tasks = [
            one * mixed[:, i, None] * twice[:, 2 * i, None] * twice[:, 2 * i + 1, None]
            for i, one in enumerate(outputs.tasks)
        ]
        for i in (0, 1):
            tasks[i] = tasks[i] + mixed[:, 4, None] + some.sum(1, keepdim=True)
        return Outputs(tasks, outputs.features)


def test_slices_that_serve_different_tasks_are_told_in_groups() -> None:
    text = describe(Groups().setup(Mlp(8), TASKS, INPUTS))
    assert text.startswith("Groups · 4 tasks")
    assert line(text, "mixed") == (
        "mixed parameter 6 slices: 1 for read, 1 for write, 1 for math, 1 for help and 2 more 6"
    )
    assert line(text, "twice") == "twice parameter 8 slices, 2 per task 8"
    assert line(text, "some") == "some parameter 2 slices, each shared by read, write 2"
    assert "tied" not in text


def test_what_is_not_set_up_is_refused() -> None:
    with pytest.raises(ValueError, match="Call its `setup` first"):
        describe(Hard())


@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)
def test_every_sharing_is_described(kind: type[Sharing]) -> None:
    """Counts add up, every task is named or counted, and the network is left as it was, its last gates too."""
    for columns in kind().problems(TASKS):
        tasks = [TASKS[i] for i in columns]
        model = replicas.stack([kind().setup(Mlp(6), tasks, INPUTS) for _ in range(2)])
        before = {name: t.clone() for name, t in model.state_dict().items()}
        learned = model.learned()
        text = describe(model)
        total = sum(p.numel() for p in model.parameters()) // 2
        assert re.search(rf"{len(tasks)} tasks? .* · {total:,} parameters in each of 2 replicas$", text.splitlines()[0])
        tops = [one for one in text.splitlines()[1:] if one[0] in "├└"]
        assert sum(int(one.split()[-1].replace(",", "")) for one in tops) == total
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        assert all(torch.equal(q.values, model.learned()[name].values) for name, q in learned.items())
        assert model.training

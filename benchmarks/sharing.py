# (plain torch modules are written shortly here, and their parts are called without telling what they are)
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false
"""What architectures cost: against a loop over torch's modules, per task as tasks become many, and against ``hard``.

    python benchmarks/sharing.py loop tasks heads kinds --rounds 7

- loop: soft, cross_stitch and nddr with 10 tasks against the same network, one ``nn.Module`` per task, layer and head.
- tasks: their cost per task from 2 to 40 tasks.
- heads: ``hard`` with 40 linear heads against a loop over the heads.
- kinds: every architecture with 10 tasks of mlp 3x128: parameters, time and memory, beside ``hard``.

Whole updates (forward, backward, AdamW) of networks of three SiLU layers for regression tasks on 60 inputs, 128 rows
each: CPU milliseconds of one thread. The contestants take turns, so that what else the machine does hits all of them;
shown are medians over rounds with the spread (lowest to highest). A ratio is the median of the ratios within rounds.
Memory is the rise of a process's peak by set-up and 20 updates, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.balancing import Fixed
from kinfolk.catalogue import CATALOGUES
from kinfolk.data.problem import Problem
from kinfolk.sharing.base import Sharing
from kinfolk.terms import Term, parse
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp
from training import Contestant, lines, regressions, timed

INPUTS, ROWS, BATCH, DEPTH = 60, 1280, 128, 3
METHODS = ("soft", "cross_stitch", "nddr")
BOUNDS = {64: 0.6, 256: 1.0}
COUNTS = (2, 5, 10, 20, 40)


def rows_of(tasks: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, INPUTS, generator=generator), torch.randn(ROWS, tasks, generator=generator)


def training_of(name: str, tasks: int, width: int, updates: int) -> Training:
    """Kinfolk's own, with every label there."""
    inputs, labels = rows_of(tasks)
    problem = Problem.from_arrays(inputs.numpy(), labels.numpy(), regressions(tasks))
    rows = torch.arange(ROWS)

    def parts() -> Parts:
        sharing: Sharing = CATALOGUES["sharing"].make(Term(name, ()))
        penalties = [CATALOGUES["penalties"].make(one) for one in parse(sharing.penalty)] if sharing.penalty else []
        return Parts(Mlp(width, depth=DEPTH), sharing, Fixed(), tuple(penalties))

    members = [Replica(rows, rows[:1], columns, 0, 3e-3, 0.01) for columns in parts().sharing.problems(problem.tasks)]
    schedule = Schedule(updates, every=updates, batch=BATCH, patience=updates, warmup=10)
    return Training(problem, parts, members, schedule)


def ours(name: str, tasks: int, width: int, updates: int) -> float:
    return timed(training_of(name, tasks, width, updates)) / updates


# ---- what one writes by hand


class Stitch(nn.Module):
    """Alphas between the trunks of all tasks."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((tasks, tasks), 0.1 / (tasks - 1)).fill_diagonal_(0.9))

    def forward(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.einsum("ts,snc->tnc", self.alpha, torch.stack(list(xs))).unbind()


class Fuse(nn.Module):
    """A linear map of all tasks' features for each task, with batch norm."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(tasks * width, width, bias=False) for _ in range(tasks)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(tasks)])

    def forward(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        beside = torch.cat(list(xs), 1)
        return [norm(one(beside)) for one, norm in zip(self.maps, self.norms, strict=True)]


MIXES = {"cross_stitch": Stitch, "nddr": Fuse}


class ByHand(nn.Module):
    """A trunk and a head for each task, as modules in lists."""

    def __init__(self, name: str, tasks: int, width: int) -> None:
        super().__init__()
        sizes = [INPUTS] + [width] * DEPTH
        layer = lambda a, b: nn.Sequential(nn.Linear(a, b), nn.SiLU())  # noqa: E731
        self.stages = nn.ModuleList(nn.ModuleList(layer(a, b) for _ in range(tasks)) for a, b in pairwise(sizes))
        self.mixes = nn.ModuleList(MIXES[name](tasks, width) for _ in range(DEPTH)) if name in MIXES else None
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> list[Tensor]:
        xs: Sequence[Tensor] = [x] * len(self.heads)
        for i, stage in enumerate(self.stages):
            xs = [layer(x) for layer, x in zip(stage, xs, strict=True)]
            xs = xs if self.mixes is None else self.mixes[i](xs)
        return [head(x) for head, x in zip(self.heads, xs, strict=True)]

    def deviations(self) -> Tensor:
        """Soft sharing: how far the weights are from their mean over tasks."""
        same = [torch.stack(ps) for stage in self.stages for ps in zip(*(m.parameters() for m in stage), strict=True)]
        return torch.stack([(w - w.mean(0)).square().sum() for w in same]).sum()


class OneTrunk(nn.Module):
    """A shared trunk, and a loop over heads."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        sizes = [INPUTS] + [width] * DEPTH
        self.trunk = nn.Sequential(*(m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())))
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.trunk(x)
        return [head(x) for head in self.heads]


def by_hand(make: Callable[[], nn.Module], tasks: int, updates: int, fused: bool = False) -> float:
    inputs, labels = rows_of(tasks)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)
    start, at = time.process_time(), 0
    for _ in range(updates):
        if not at:
            order = torch.randperm(ROWS)
        rows = order[at : at + BATCH]
        at = (at + BATCH) % ROWS
        optimizer.zero_grad()
        target = labels[rows]
        outputs = model(inputs[rows])
        loss = torch.stack([F.mse_loss(y.squeeze(-1), target[:, t]) for t, y in enumerate(outputs)]).sum()
        if isinstance(model, ByHand) and model.mixes is None:
            loss = loss + 0.01 * model.deviations()
        loss.backward()
        optimizer.step()
    return (time.process_time() - start) / updates


def against(kinfolk: Contestant, make: Callable[[], nn.Module], tasks: int, updates: int) -> dict[str, Contestant]:
    return {
        "kinfolk": kinfolk,
        "loop": partial(by_hand, make, tasks, updates),
        "loop, fused AdamW": partial(by_hand, make, tasks, updates, fused=True),
    }


# ---- tables


def loop(rounds: int) -> Iterator[str]:
    yield "| network | ms per update | against | ratio | at most |\n|---|---|---|---|---|"
    for width, bound in BOUNDS.items():
        updates = 60 if width < 128 else 12
        for name in METHODS:
            own = partial(ours, name, 10, width, updates)
            contestants = against(own, partial(ByHand, name, 10, width), 10, updates)
            yield from lines(f"{name}, 10 tasks of 3x{width}", contestants, bound, rounds)


def tasks(rounds: int) -> Iterator[str]:
    yield f"| ms per update and task | {' | '.join(f'{n} tasks' for n in COUNTS)} |\n|---|{'---|' * len(COUNTS)}"
    for name in METHODS:
        seconds: dict[int, list[float]] = {n: [] for n in COUNTS}
        for turn in range(rounds + 1):
            for n in COUNTS:
                spent = ours(name, n, 64, max(10, 120 // n)) / n
                seconds[n] += [spent] if turn else []
        shown = [f"{median(s)} ({min(s) * 1e3:.3f} to {max(s) * 1e3:.3f})" for s in seconds.values()]
        yield f"| {name}, 3x64 | {' | '.join(shown)} |"


def heads(rounds: int) -> Iterator[str]:
    yield "| network | ms per update | against | ratio | at most |\n|---|---|---|---|---|"
    contestants = against(partial(ours, "hard", 40, 64, 100), partial(OneTrunk, 40, 64), 40, 100)
    yield from lines("hard, 40 heads on 3x64", contestants, 1.0, rounds)


def kinds(rounds: int) -> Iterator[str]:
    yield "| architecture | parameters | ms per update | times hard | peak MB |\n|---|---|---|---|---|"
    names = CATALOGUES["sharing"].names()
    for name in sorted(names, key=lambda name: name != "hard"):
        model = training_of(name, 10, 128, 1).network.model
        parameters = sum(p.numel() for p in model.parameters())
        pairs = [(ours(name, 10, 128, 20), ours("hard", 10, 128, 20)) for _ in range(rounds + 1)][1:]
        ratios = [a / b for a, b in pairs]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"| {name} | {parameters:,} | {median([a for a, _ in pairs])} | {ratio} | {memory_of(name)} |"


def median(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.3f}"


def memory_of(name: str) -> str:
    """Measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def rise(name: str) -> float:
    """MB by which the peak rises, of a process that has trained something small."""
    ours("hard", 2, 8, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(name, 10, 128, 20)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


TABLES = {"loop": loop, "tasks": tasks, "heads": heads, "kinds": kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(f"{rise(chosen.memory):.0f}")
        return
    for name in chosen.tables:
        for line in TABLES[name](chosen.rounds):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()

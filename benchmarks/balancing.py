# (plain torch modules are written shortly here, and their parts are called without telling what they are)
# pyright: reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false
"""What balancing costs beside the plain sum of losses: time per update, extra memory, and solving for the weights.

    python benchmarks/balancing.py --net mlp --tasks 8 --methods upgrad nash_mtl --at features --every 10 --seconds 10
    python benchmarks/balancing.py --memory --net mlp --tasks 40 --methods upgrad
    python benchmarks/balancing.py --solve --tasks 8 40

Networks are an mlp (784 inputs, four ReLU layers of 1024, 600 rows) and a lenet (28 x 28, convolutions of 10 and 20
channels, 50 dense units, 100 rows) with a linear head of 10 classes per task, on random rows and labels, moved by Adam.

Contestants take turns, so that what else the machine does hits all of them: a loop in plain torch with
``sum(losses).backward()``, the same loop with the method in that line ("loop"), the same loop with torchjd, the least
that one would write by hand for a rule on Gramians ("floor"), and Kinfolk's own network in its training with the method
("training") and with ``fixed``. A turn is one update of the mlp and ten of the lenet, ``--every`` if these are more.

A ratio is the median of ratios within turns, with the spread (lowest to highest). One thread, CPU time; ``--threads 2``
is wall time. Memory is the rise of the process's peak when the method follows upon what it is compared with. Each row,
and each number of memory, has a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, pairwise, product
from pathlib import Path

import torch
import torchjd.aggregation
import torchjd.scalarization
from torch import Tensor, nn
from torch.nn import functional as F
from torchjd.autojac import jac_to_grad, mtl_backward

from kinfolk import replicas
from kinfolk.balancing import Fixed, Losses
from kinfolk.balancing.base import Balancing
from kinfolk.balancing.gramian import Gramian
from kinfolk.catalogue import CATALOGUES
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.terms import Term, parse
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import LeNet, Mlp
from kinfolk.trunks.base import Trunk

CLASSES, RATE = 10, 1e-3
Update = Callable[[], object]
"""Makes one update."""


@dataclass(frozen=True)
class Net:
    """A trunk in plain torch and as Kinfolk's own; ``turn`` updates at least are timed at once."""

    turn: int
    rows: int
    shape: tuple[int, ...]
    width: int
    plain: Callable[[], nn.Sequential]
    own: Trunk


def mlp() -> nn.Sequential:
    sizes = [784, 1024, 1024, 1024, 1024]
    layers = (layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU()))
    return nn.Sequential(*layers)


def lenet() -> nn.Sequential:
    first = [nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(320, 50), nn.ReLU())


NETS = {
    "mlp": Net(1, 600, (784,), 1024, mlp, Mlp(1024, 4, activation="relu")),
    "lenet": Net(10, 100, (1, 28, 28), 50, lenet, LeNet((10, 20), 5, 50)),
}


@dataclass(frozen=True)
class Cell:
    """One row of the table: a network, a number of tasks, and a method's text."""

    net: str
    tasks: int
    term: Term

    def method(self) -> Balancing:
        return CATALOGUES["balancing"].make(self.term)

    @cached_property
    def every(self) -> int:
        """After how many updates a method does the same again."""
        return int(getattr(self.method(), "every", 1))

    @property
    def turn(self) -> int:
        """Updates that are timed at once: all that a method does in turn is then seen in each."""
        return self.every * math.ceil(NETS[self.net].turn / self.every)

    @cached_property
    def at(self) -> str:
        method = self.method()
        return getattr(method, "at", "parameters" if "shared" in method.needs else ", ".join(method.needs))


def named(tasks: int) -> list[Task]:
    return [Task(f"t{i}", "multiclass", tuple(range(CLASSES))) for i in range(tasks)]


# ---- loops of one's own


class Loop:
    """What one writes by hand: one batch, a trunk, a list of heads, torch's Adam."""

    def __init__(self, cell: Cell) -> None:
        torch.manual_seed(0)
        net = NETS[cell.net]
        self.trunk = net.plain()
        self.heads = nn.ModuleList([nn.Linear(net.width, CLASSES) for _ in range(cell.tasks)])
        self.inputs = torch.randn(net.rows, *net.shape)
        self.labels = torch.randint(CLASSES, (cell.tasks, net.rows))
        self.moved = [*self.trunk.parameters(), *self.heads.parameters()]

    @cached_property
    def optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.moved, lr=RATE)

    def losses(self, features: Tensor | Sequence[Tensor]) -> list[Tensor]:
        read = [features] * len(self.heads) if isinstance(features, Tensor) else features
        return [F.cross_entropy(head(z), y) for head, z, y in zip(self.heads, read, self.labels, strict=True)]


def plain(cell: Cell) -> Update:
    loop = Loop(cell)

    def update() -> None:
        loop.optimizer.zero_grad()
        sum(loop.losses(loop.trunk(loop.inputs))).backward()
        loop.optimizer.step()

    return update


def begun(method: Balancing, values: Tensor) -> Balancing:
    """A method in the epochs in which it does something."""
    for epoch in range(3):
        method.at_epoch(epoch, *(None, None) if epoch == 0 else (values / epoch, values / epoch))
    return method


def by_hand(cell: Cell) -> Update:
    """The plain loop with the method in the line of the backward pass."""
    loop = Loop(cell)
    method = begun(cell.method().setup(named(cell.tasks)), torch.ones(cell.tasks))
    loop.moved += method.parameters()
    shared = list(loop.trunk.parameters())

    def forward(tasks: Tensor | None = None) -> Losses:
        features = loop.trunk(loop.inputs)
        value = torch.stack(loop.losses(features))
        value = value if tasks is None else torch.where(tasks, value, 0)
        return Losses(value, tasks, None, shared, shared[-2:], [features] * cell.tasks)

    def update() -> None:
        if type(method).step is not Balancing.step:
            method.step(forward, loop.optimizer)
        else:
            loop.optimizer.zero_grad()
            features = loop.trunk(loop.inputs)
            given = {"shared": shared, "last": shared[-2:], "features": features}
            needs = method.needs if cell.at != "features" else ("features",)
            method.backward(loop.losses(features), **{need: given[need] for need in needs})
            loop.optimizer.step()
        replicas.tick(method)

    return update


# ---- torchjd


def rule(name: str, tasks: int) -> nn.Module | None:
    """torchjd's aggregator or scalariser of this name; what it gives no default is that of the papers."""
    values = {"n_tasks": tasks, "shape": tasks, "c": 0.5, "alpha": 1.0, "mu": 0.1, "trim_number": 1, "n_byzantine": 1}
    values |= {"weights": torch.ones(tasks) / tasks, "theta": 5.0, "lambda_": 1.0}
    for package in (torchjd.aggregation, torchjd.scalarization):
        for theirs in package.__all__:
            if theirs.lower() == name.replace("_", "").replace("uncertainty", "uw"):
                kind = getattr(package, theirs)
                lacking = [p for p, q in inspect.signature(kind).parameters.items() if q.default is q.empty]
                return kind(**{p: values[p] for p in lacking})
    return None


def torchjd_loop(cell: Cell) -> Update | None:
    """The plain loop with torchjd's rule; what it has no counterpart of is left out."""
    theirs = rule(cell.term.name, cell.tasks)
    if theirs is None or cell.every > 1:
        return None
    if isinstance(theirs, torchjd.scalarization.Scalarizer):
        return scalarized(Loop(cell), theirs)
    return aggregated_features(Loop(cell), theirs) if cell.at == "features" else aggregated(Loop(cell), theirs)


def scalarized(loop: Loop, theirs: nn.Module) -> Update:
    loop.moved += [] if hasattr(theirs, "update") else list(theirs.parameters())
    values = torch.ones(len(loop.heads))
    if hasattr(theirs, "step"):  # counts epochs
        for _ in range(2):
            theirs(values)
            theirs.step()

    def update() -> None:
        loop.optimizer.zero_grad()
        theirs(torch.stack(loop.losses(loop.trunk(loop.inputs)))).backward()
        loop.optimizer.step()
        if hasattr(theirs, "update"):
            with torch.no_grad():
                after = torch.stack(loop.losses(loop.trunk(loop.inputs)))
            theirs.update(after)

    return update


def aggregated(loop: Loop, theirs: nn.Module) -> Update:
    shared = list(loop.trunk.parameters())

    def update() -> None:
        loop.optimizer.zero_grad()
        features = loop.trunk(loop.inputs)
        mtl_backward(loop.losses(features), features=features, shared_params=shared)
        jac_to_grad(shared, theirs)
        loop.optimizer.step()

    return update


def aggregated_features(loop: Loop, theirs: nn.Module) -> Update:
    own = [list(head.parameters()) for head in loop.heads]

    def update() -> None:
        loop.optimizer.zero_grad()
        features = loop.trunk(loop.inputs)
        leaf = features.detach().requires_grad_()
        mtl_backward(loop.losses(leaf), features=leaf, tasks_params=own, shared_params=[leaf])
        jac_to_grad([leaf], theirs)
        features.backward(leaf.grad)
        loop.optimizer.step()

    return update


# ---- floors


def floor(cell: Cell) -> Update | None:
    """The least that one would write by hand for a rule on Gramians: all heads in one pass, then a loop over tasks.

    At parameters the trunk is gone back through once per task; the eigenvalues of the Gramian stand for the rule.
    """
    if cell.at not in ("parameters", "features"):
        return None
    loop = Loop(cell)
    shared = list(loop.trunk.parameters())

    def combined(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        wide = [torch.stack([one.flatten() for one in part]) for part in zip(*rows, strict=True)]
        weights = torch.linalg.eigh(sum(one @ one.T for one in wide)).eigenvalues.softmax(0)
        return [weights @ one for one in wide]

    def update() -> None:
        loop.optimizer.zero_grad()
        features = loop.trunk(loop.inputs)
        leaves = [features.detach().requires_grad_() for _ in loop.heads]
        torch.stack(loop.losses(leaves)).sum().backward()
        if cell.at == "features":
            features.backward(combined([[leaf.grad] for leaf in leaves])[0].view_as(features))
        else:
            back = lambda leaf: torch.autograd.grad(features, shared, leaf.grad, retain_graph=True)  # noqa: E731
            for parameter, gradient in zip(shared, combined([back(leaf) for leaf in leaves]), strict=True):
                parameter.grad = gradient.view_as(parameter)
        loop.optimizer.step()

    return update


# ---- Kinfolk's own network


def training(cell: Cell, make: Callable[[], Balancing]) -> Update:
    torch.manual_seed(0)
    net, rows = NETS[cell.net], torch.arange(NETS[cell.net].rows)
    labels = torch.randint(CLASSES, (net.rows, cell.tasks)).double().numpy()
    problem = Problem.from_arrays(torch.randn(net.rows, *net.shape), labels, named(cell.tasks))
    member = Replica(rows, rows[:1], tuple(range(cell.tasks)), 0, RATE, 0.0)
    schedule = Schedule(10**6, every=10**6, batch=net.rows, patience=10**6, warmup=1)
    one = Training(problem, lambda: Parts(net.own, Hard(), make()), [member], schedule)
    begun(one.network.balancing, torch.ones(1, cell.tasks))
    return one._update


FIRST = {"loop": "plain loop", "torchjd": "plain loop", "floor": "plain loop", "training": "fixed in training"}
"""The contestants, and what each is compared with."""

MAKE: dict[str, Callable[[Cell], Update | None]] = {
    "plain loop": plain,
    "loop": by_hand,
    "torchjd": torchjd_loop,
    "floor": floor,
    "fixed in training": lambda cell: training(cell, Fixed),
    "training": lambda cell: training(cell, cell.method),
}


def contestants(cell: Cell, wanted: Sequence[str]) -> dict[str, Update]:
    names = [who for who in MAKE if who in wanted or who in (FIRST[one] for one in wanted)]
    made = {who: MAKE[who](cell) for who in names}
    return {who: update for who, update in made.items() if update is not None}


# ---- measuring


def seconds_of(runs: dict[str, Update], turn: int, budget: float, clock: Callable[[], float]) -> dict[str, list]:
    """Seconds per update of each contestant, turn by turn, until the budget is spent; at least three turns."""
    found: dict[str, list[float]] = {who: [] for who in runs}
    for update in runs.values():  # does not count
        update()
        update()
    end = time.monotonic() + budget
    while time.monotonic() < end or len(found[next(iter(runs))]) < 3:
        for who, update in runs.items():
            start = clock()
            for _ in range(turn):
                update()
            found[who].append((clock() - start) / turn)
    return found


def spread(values: Sequence[float], form: str = ".2f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(cell: Cell, wanted: Sequence[str], budget: float, clock: Callable[[], float]) -> list[str]:
    """The columns of a row: milliseconds of what is compared with, and ratios."""
    found = seconds_of(contestants(cell, wanted), cell.turn, budget, clock)
    ms = [f"{statistics.median(found[who]) * 1e3:.1f}" if who in found else "" for who in dict.fromkeys(FIRST.values())]
    shown = []
    for who, first in (*FIRST.items(), ("training", "plain loop")):
        pairs = [a / b for a, b in zip(found.get(who, ()), found.get(first, ()), strict=False)]
        shown.append(spread(pairs) if pairs else "")
    return [*ms, *shown, str(len(next(iter(found.values()))))]


def peak() -> float:
    """MB that this process has had at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def extra(cell: Cell, who: str) -> float:
    """MB by which the peak rises when the method follows upon the sum."""
    peaks = []
    for one in (FIRST[who], who):
        update = MAKE[one](cell)
        if update is None:
            return math.nan
        for _ in range(3):
            update()
        peaks.append(peak())
        del update
        gc.collect()
    return peaks[1] - peaks[0]


def apart(cell: Cell, what: str, chosen: argparse.Namespace) -> list[str]:
    """Columns of a row, from a process of its own: what was allocated before has no part in them."""
    options = ["--net", cell.net, "--tasks", str(cell.tasks), "--methods", str(cell.term), "--apart", what]
    options += ["--seconds", str(chosen.seconds), "--threads", str(chosen.threads), "--contestants"]
    run = [sys.executable, "-W", "ignore", __file__, *options, *chosen.contestants]
    done = subprocess.run(run, check=False, capture_output=True, text=True)
    if done.returncode:
        return [f"not run: {done.stderr.strip().splitlines()[-1]}"]
    return done.stdout.rstrip("\n").split("\t")


# ---- solving for the weights


def gramians(tasks: int, many: int = 8) -> list[Tensor]:
    """Of random gradients; their matrices have twice as many columns as rows, so that many conflict."""
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(tasks, 2 * tasks, generator=g) for _ in range(many)]
    return [one @ one.T for one in rows]


def solvers(cell: Cell) -> dict[str, Update]:
    """The weights of one Gramian after the other: Kinfolk's method, and torchjd's rule where it has one."""
    own, theirs = cell.method().setup(named(cell.tasks)), rule(cell.term.name, cell.tasks)
    found, present = gramians(cell.tasks), torch.ones(1, cell.tasks, dtype=torch.bool)
    turns = {who: cycle(found) for who in ("kinfolk", "torchjd")}
    runs: dict[str, Update] = {"kinfolk": lambda: own.weights(next(turns["kinfolk"]).unsqueeze(0), present)}
    if hasattr(theirs, "gramian_weighting"):
        runs["torchjd"] = lambda: theirs.gramian_weighting(next(turns["torchjd"]))
    elif hasattr(theirs, "weighting"):  # reads a matrix: one that has the Gramian
        turns["torchjd"] = cycle([torch.linalg.cholesky(one) for one in found])
        runs["torchjd"] = lambda: theirs.weighting(next(turns["torchjd"]))
    return runs


def milliseconds(cell: Cell, budget: float, clock: Callable[[], float]) -> list[str]:
    found = seconds_of(solvers(cell), 8, budget, clock)
    aim = {"nash_mtl": "5", "pcgrad": "2", "cagrad": "2", "upgrad": "6.5"}.get(cell.term.name, "")
    shown = [spread([s * 1e3 for s in found[who]]) if who in found else "" for who in ("kinfolk", "torchjd")]
    return [*shown, aim if cell.tasks == 40 else ""]


# ---- the tables


def bound(cell: Cell) -> str:
    """What the ratio is to be at most, where something was aimed at."""
    few, name, needs = cell.tasks <= 8, cell.term.name, cell.method().needs
    if not needs:
        return "1.35" if name == "famo" else "1.05"
    if cell.every >= 10:
        return ("1.1" if few else "1.25") if name == "gradnorm" else ("1.5" if few else "2.8")
    if name == "gradnorm":
        return "1.7" if few else "2.7"
    if cell.at == "features":
        return "1.1" if few else "1.3"
    return {("mlp", 8): "5.0", ("mlp", 40): "18", ("lenet", 8): "3.9", ("lenet", 40): "15"}.get(
        (cell.net, cell.tasks), ""
    )


def cells(chosen: argparse.Namespace) -> Iterator[Cell]:
    """The cells that were asked for; ``--at`` and ``--every`` go to the methods that have them."""
    catalogue, seen = CATALOGUES["balancing"], set()
    for net, tasks, text, at, every in product(
        chosen.net, chosen.tasks, chosen.methods or catalogue.names(), chosen.at, chosen.every
    ):
        (term,) = parse(text)
        has = inspect.signature(catalogue.get(term.name)).parameters
        given = {name: v for name, v in (("at", at), ("every", every)) if name in has and v is not None}
        term = Term(term.name, tuple((given | dict(term.arguments)).items()))
        if (key := (net, tasks, str(term))) not in seen:
            seen.add(key)
            yield Cell(net, tasks, term)


HEADS = {
    "time": [
        "plain ms",
        "fixed ms",
        "loop / plain",
        "torchjd / plain",
        "floor / plain",
        "training / fixed",
        "training / plain",
        "turns",
        "at most",
    ],
    "solve": ["kinfolk, ms", "torchjd, ms", "at most"],
    "memory": ["loop, extra MB", "torchjd, extra MB", "floor, extra MB", "training, extra MB"],
}


def head(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def measured(cell: Cell, what: str, chosen: argparse.Namespace) -> list[str]:
    """What :func:`apart` prints."""
    clock = time.process_time if chosen.threads == 1 else time.perf_counter
    if what == "solve":
        return milliseconds(cell, chosen.seconds, clock)
    if what == "time":
        return ratios(cell, chosen.contestants, chosen.seconds, clock)
    more = extra(cell, what)
    return ["" if math.isnan(more) else f"{more:.0f}"]


def row(cell: Cell, wide: str, chosen: argparse.Namespace) -> list[str]:
    if wide == "memory":
        return [one for who in FIRST for one in (apart(cell, who, chosen) if who in chosen.contestants else [""])]
    return [*apart(cell, wide, chosen), *([bound(cell)] if wide == "time" else [])]


def table(chosen: argparse.Namespace) -> Iterator[str]:
    wide = "memory" if chosen.memory else "solve" if chosen.solve else "time"
    yield head(["network", "tasks", "method", *HEADS[wide]])
    for cell in cells(chosen):
        if wide != "solve" or isinstance(cell.method(), Gramian):
            yield f"| {cell.net} | {cell.tasks} | {cell.term} | {' | '.join(row(cell, wide, chosen))} |"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--net", nargs="+", choices=list(NETS), default=list(NETS))
    made.add_argument("--tasks", nargs="+", type=int, default=[2, 8, 40])
    made.add_argument("--methods", nargs="+", help="as in the text of an arm; default: all")
    made.add_argument("--at", nargs="+", choices=["parameters", "features"], default=[None])
    made.add_argument("--every", nargs="+", type=int, default=[None])
    made.add_argument("--contestants", nargs="+", choices=list(FIRST), default=list(FIRST))
    made.add_argument("--seconds", type=float, default=10.0, help="per row")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--memory", action="store_true", help="extra memory instead of time")
    made.add_argument("--solve", action="store_true", help="solving for the weights alone instead of updates")
    made.add_argument("--apart", choices=["time", "solve", *FIRST], help=argparse.SUPPRESS)
    return made


def main() -> None:
    chosen = parser().parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.apart:
        print("\t".join(measured(next(cells(chosen)), chosen.apart, chosen)))
        return
    for line in table(chosen):
        print(line, flush=True)


if __name__ == "__main__":
    main()

"""Many seeds at the price of one: a stack of replicas against the same replicas one after the other.

    python benchmarks/replicas.py [--rounds N] [--device cpu] [--only TEXT]

Time per update of one replica, and what a stack of R takes over R runs one after the other. On a CPU it is CPU time of
one thread; "two processes" compares wall time instead: one stack in one process of two threads against its halves in
two processes of one thread, which is what studies do with two cores. On a GPU it is wall time, with the device
waited for. Contestants take turns, so that what else the machine does hits all of them; shown are medians over rounds
with the spread (lowest to highest), and a ratio is the median of the ratios within rounds. Set-up is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import LeNet, Mlp
from kinfolk.trunks.base import Trunk

IMAGES = 2_000  # of noise: what they show costs nothing


@dataclass(frozen=True)
class Case:
    """A network, how it is trained, how many are stacked at most, and updates that are timed."""

    name: str
    trunk: Callable[[], Trunk]
    batch: int
    replicas: tuple[int, ...]
    updates: int
    sgd: bool = False


CASES = (
    Case("NN1, 784-50-10, batch 600, SGD", partial(Mlp, 50, depth=1), 600, (2, 5, 10), 20, sgd=True),
    Case("784-50-10, batch 100, SGD", partial(Mlp, 50, depth=1), 100, (10,), 60, sgd=True),
    Case("784-50-10, batch 10, SGD", partial(Mlp, 50, depth=1), 10, (10,), 150, sgd=True),
    Case("lenet, batch 100, AdamW", partial(LeNet, shape=(1, 28, 28)), 100, (2, 5), 3),
    Case("lenet, batch 10, AdamW", partial(LeNet, shape=(1, 28, 28)), 10, (5,), 15),
    Case("784-500-10, batch 100, AdamW", partial(Mlp, 500, depth=1), 100, (5,), 10),
    Case("60-64-64-10, batch 32, AdamW", partial(Mlp, 64), 32, (10, 30), 60),
)


def stack(case: Case, replicas: int, device: str) -> Training:
    """A training of so many replicas, ready for its first update."""
    random = np.random.default_rng(0)
    features = 60 if case.name.startswith("60") else 784
    inputs = random.random((IMAGES, features), dtype=np.float32)
    digits = random.integers(10, size=(IMAGES, 1)).astype(float)
    problem = Problem.from_arrays(inputs, digits, [Task("digit", "multiclass", tuple(range(10)))], device=device)
    rows = torch.arange(IMAGES)
    members = [Replica(rows, rows[:1], (0,), seed, 0.01, 0.0) for seed in range(replicas)]
    schedule = Schedule(10**6, every=case.updates, batch=case.batch, patience=10**6, warmup=0, shape="constant")
    parts = partial(Parts, case.trunk(), optimizer=Sgd) if case.sgd else partial(Parts, case.trunk())
    return Training(problem, lambda: parts(sharing=Hard(), balancing=Fixed()), members, schedule)


def train(one: Training, updates: int) -> None:
    """Updates alone, without looks at stop rows."""
    for _ in range(updates):
        one._update()


def seconds(trainings: list[Training], updates: int, wall: bool) -> float:
    """What so many updates of each take, one after the other."""
    device = trainings[0].problem.inputs.device
    now = time.perf_counter if wall else time.process_time
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    began = now()
    for one in trainings:
        train(one, updates)
    wait()
    return now() - began


def rounds_of(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant, in turns; a first round does not count."""
    found = {who: [run()][:0] for who, run in contestants.items()}
    for _ in range(rounds):
        for who, run in contestants.items():
            found[who].append(run())
    return found


def line(name: str, replicas: int, case: Case, found: dict[str, list[float]]) -> str:
    """A row of the table: milliseconds per update of one replica, and the first contestant over the second."""
    per = 1e3 / case.updates / replicas
    shown = [f"{statistics.median(s) * per:.3f} ({min(s) * per:.3f} to {max(s) * per:.3f})" for s in found.values()]
    ratios = [a / b for a, b in zip(*found.values(), strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return (
        f"| {name} | {replicas} | {' | '.join(shown)} | {ratio} | {'yes' if statistics.median(ratios) < 1 else 'no'} |"
    )


def side_by_side(case: Case, rounds: int, device: str) -> Iterator[str]:
    """One stack against as many trainings one after the other."""
    for replicas in case.replicas:
        together = [stack(case, replicas, device)]
        alone = [stack(case, 1, device) for _ in range(replicas)]
        wall = device != "cpu"
        contestants = {
            "stack": partial(seconds, together, case.updates, wall),
            "one after the other": partial(seconds, alone, case.updates, wall),
        }
        yield line(case.name, replicas, case, rounds_of(contestants, rounds))


class Worker:
    """A process that trains so many replicas when it is told to, and answers when it is done."""

    def __init__(self, case: int, replicas: int, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", str(case), str(replicas), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.wait()

    def start(self) -> None:
        """Lets it begin."""
        if self.process.stdin is not None:
            self.process.stdin.write("go\n")

    def wait(self) -> None:
        """Until it is done."""
        if self.process.stdout is not None and not self.process.stdout.readline():
            raise RuntimeError("A worker has ended.")

    def stop(self) -> None:
        """Ends it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def work(case: Case, replicas: int, threads: int) -> None:
    """What a worker does."""
    torch.set_num_threads(threads)
    training = stack(case, replicas, "cpu")
    train(training, 2)
    print("ready", flush=True)
    for _ in sys.stdin:
        train(training, case.updates)
        print("done", flush=True)


def at_once(workers: list[Worker]) -> float:
    """Wall seconds until all are done."""
    began = time.perf_counter()
    for one in workers:
        one.start()
    for one in workers:
        one.wait()
    return time.perf_counter() - began


def two_cores(number: int, rounds: int) -> str:
    """One stack on two threads against its halves in two processes of one thread."""
    case = CASES[number]
    replicas = case.replicas[-1]
    one, two = [Worker(number, replicas, 2)], [Worker(number, n, 1) for n in (replicas - replicas // 2, replicas // 2)]
    try:
        found = rounds_of({"stack": partial(at_once, one), "processes": partial(at_once, two)}, rounds)
    finally:
        for worker in (*one, *two):
            worker.stop()
    return line(case.name, replicas, case, found)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Many seeds at the price of one.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(CASES[given.worker[0]], *given.worker[1:])
        return
    torch.set_num_threads(1)
    head = "| {} | R | ms, stack | ms, {} | stack over the other | stacking pays |\n|---|---|---|---|---|---|"
    print(head.format(f"network, {given.device}", "one after the other"))
    numbers = [i for i, case in enumerate(CASES) if given.only in case.name]
    for number in numbers:
        for text in side_by_side(CASES[number], given.rounds, given.device):
            print(text, flush=True)
    if given.device == "cpu":
        print("\n" + head.format("network, two cores, wall time", "two processes"))
        for number in numbers:
            print(two_cores(number, given.rounds), flush=True)


if __name__ == "__main__":
    main()

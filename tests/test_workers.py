"""Work in processes: order, errors, deaths, Ctrl-C, and no process that outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kinfolk import workers
from kinfolk.exceptions import InputError, WorkerDied
from kinfolk.processes import Place, place

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


# ---- items, which worker processes import from here


def square(x: int) -> int:
    return x * x


def slow_square(x: int) -> int:
    time.sleep(0.05 * (3 - x))
    return x * x


def process_of(_: Any) -> int:
    time.sleep(0.2)
    return os.getpid()


def threads(item: int) -> int:
    return torch.get_num_threads()


def environment(_: Any) -> dict[str, str]:
    return dict(os.environ)


def length(x: bytes) -> tuple[int, bytes]:
    return len(x), x[::-1]


class OddError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail(x: Any) -> Any:
    if x == "input":
        raise InputError("`x` must be good.")
    if x == "odd":
        raise OddError(1, 2)
    if x == "exit":
        raise SystemExit(3)
    if x == "interrupt":
        raise KeyboardInterrupt
    if x == "result":
        return lambda: 1
    time.sleep(30)
    return x


def die_once(job: tuple[str, str]) -> str:
    how, marker = job
    if how != "live" and not os.path.exists(marker):
        Path(marker).write_text("")
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def die(job: str) -> None:
    with open(job, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def nested(x: int) -> list[int]:
    return workers.map(square, [x], workers=1 if x else 2)


def where(x: int) -> tuple[int, Place]:
    return x, place()


def second_fails(how: str) -> None:
    partner = Path(f"{place().meeting}-partner")
    if place().rank == 0:
        if how == "complain":  # as one does whose partner has gone
            while not partner.exists():
                time.sleep(0.01)
            wait_until_gone([int(partner.read_text())], 10)
            raise ConnectionError("closed by peer")
        time.sleep(60)
    if how == "raise":
        raise InputError("`x` must be good.")
    beside = partner.with_suffix(".new")
    beside.write_text(str(os.getpid()))
    beside.rename(partner)  # whole from the first moment
    os._exit(9)


class DiesWhenRead:
    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return os._exit, (5,)


# ---- the same here and in processes


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_in_the_order_of_the_items(count: int) -> None:
    seen: list[tuple[int, int]] = []
    found = workers.map(slow_square, iter(range(4)), workers=count, done=lambda i, r: seen.append((i, r)))
    assert found == [0, 1, 4, 9]
    assert sorted(seen) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert workers.map(square, [], workers=count) == []


@pytest.mark.parametrize("count", [1, 2])
def test_results_may_bring_more_items(count: int) -> None:
    def done(index: int, result: int) -> list[int] | None:
        return [index + 10] if index < 3 else None

    found = workers.run(square, [1, 2], workers=count, done=done)
    assert sorted(found) == [1, 4, 100, 121, 144]
    assert found[:2] == [1, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_items_are_taken_when_they_are_needed(count: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for x in range(6):
            taken.append(x)
            yield x

    ahead: list[int] = []
    workers.map(square, items(), workers=count, done=lambda *_: ahead.append(len(taken) - len(ahead)))
    assert max(ahead) <= count + 1


def test_processes_are_used_and_used_again() -> None:
    found = workers.map(process_of, range(6), workers=2)
    assert os.getpid() not in found
    assert len(set(found)) == 2
    assert set(workers.map(process_of, range(1), workers=1)) == {os.getpid()}


def test_big_items_and_results() -> None:
    items = [bytes([n]) * 3_000_000 for n in range(4)]
    found = workers.map(length, items, workers=2)
    assert [n for n, _ in found] == [3_000_000] * 4
    assert [content for _, content in found] == items


def test_workers_have_one_thread_and_the_parent_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "12345")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    main = sys.modules["__main__"]
    (found,) = workers.map(environment, [0], workers=2)
    assert dict(os.environ) == before
    assert sys.modules["__main__"] is main
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "1"
    assert int(found["MALLOC_MMAP_THRESHOLD_"]) > 1 << 20
    assert "MALLOC_TRIM_THRESHOLD_" in found
    assert found["MALLOC_TOP_PAD_"] == "12345"


def test_one_worker_has_one_thread_too_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert workers.map(threads, [0], workers=1) == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_from_another_thread() -> None:
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(workers.map(square, [1, 2, 3], workers=2)))
    thread.start()
    thread.join()
    assert found == [[1, 4, 9]]


def test_wrong_numbers_of_workers() -> None:
    with pytest.raises(ValueError, match=r"`workers` must be at least 1\. Got 0"):
        workers.map(square, [1], workers=0)


def test_cores() -> None:
    assert 1 <= workers.available_cores() <= (os.cpu_count() or 1)


# ---- errors


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("item", "kind"), [("input", InputError), ("exit", SystemExit), ("interrupt", KeyboardInterrupt)]
)
def test_an_error_keeps_its_type_and_ends_the_others(count: int, item: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind) as raised:
        workers.map(fail, [item, "slow", "slow"], workers=count)
    assert not multiprocessing.active_children()
    if item == "input":
        assert str(raised.value) == "`x` must be good."
        if count > 1:
            assert "in fail" in raised.value.__notes__[0]


def test_errors_and_results_that_cannot_be_sent() -> None:
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        workers.map(fail, ["odd"], workers=2)
    with pytest.raises((AttributeError, TypeError, ValueError), match="lambda"):
        workers.map(fail, ["result"], workers=2)


def test_functions_and_items_that_cannot_be_sent() -> None:
    with pytest.raises((AttributeError, TypeError, ValueError), match="lambda"):
        workers.map(lambda x: x, [1], workers=2)
    with pytest.raises((AttributeError, TypeError, ValueError), match="lambda"):
        workers.map(square, [lambda: 1], workers=2)


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_done_or_in_the_items(count: int) -> None:
    def done(index: int, result: int) -> None:
        raise OddError(index, result)

    with pytest.raises(OddError, match="0 and 4"):
        workers.map(square, [2], workers=count, done=done)
    with pytest.raises(ZeroDivisionError):
        workers.map(square, (1 // x for x in (1, 0)), workers=count)


def test_a_worker_has_no_workers() -> None:
    assert workers.map(nested, [2, 3], workers=2) == [[4], [9]]
    with pytest.raises(RuntimeError, match="`workers=1`"):
        workers.map(nested, [0], workers=2)


# ---- deaths


@posix
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_dead_worker_is_replaced(tmp_path: Path, how: str) -> None:
    jobs = [("live", "")] * 2 + [(how, str(tmp_path / "a")), (how, str(tmp_path / "b"))] + [("live", "")] * 3
    seen: list[int] = []
    found = workers.map(die_once, jobs, workers=2, done=lambda index, _: seen.append(index))
    assert found == [how for how, _ in jobs]
    assert sorted(seen) == list(range(len(jobs)))


@posix
def test_an_item_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    marker = tmp_path / "a"
    with pytest.raises(RuntimeError, match=r"item 0, .*a', was killed by signal 9 \(Killed\), 3 times.*memory"):
        workers.map(die, [str(marker)], workers=2)
    assert marker.read_text() == "xxx"


def test_an_item_that_kills_its_reader() -> None:
    with pytest.raises(RuntimeError, match=r"item 0, .* ended with exit code 5, 3 times"):
        workers.map(square, [DiesWhenRead()], workers=2)


# ---- several processes that do each item together


def nothing_more(index: int, result: Any) -> None:
    return None


def test_the_result_is_the_first_process_s() -> None:
    assert workers.run(where, [5], workers=1, done=nothing_more) == [(5, Place())]
    found = workers.run(where, [5, 6, 7], workers=1, team=2, done=nothing_more)
    assert [(x, at.worker, at.rank, at.size) for x, at in found] == [(5, 0, 0, 2), (6, 0, 0, 2), (7, 0, 0, 2)]
    meetings = {at.meeting for _, at in found}
    assert len(meetings) == 1
    assert not Path(meetings.pop()).parent.exists()


def test_each_worker_has_a_number() -> None:
    found = workers.run(where, range(4), workers=2, done=nothing_more)
    assert {at.worker for _, at in found} == {0, 1}


@posix
@pytest.mark.parametrize("how", ["die", "complain", "raise"])
def test_a_lone_failure_is_an_error_and_no_hang(how: str) -> None:
    kind, said = (InputError, "`x` must be good") if how == "raise" else (WorkerDied, "ended with exit code 9, 3 times")
    with pytest.raises(kind, match=said):
        workers.run(second_fails, [how], workers=1, team=2, done=nothing_more)
    assert not multiprocessing.active_children()


# ---- scripts

SCRIPT = """
import os, signal, sys, time
from kinfolk import workers

def say(text):  # in one piece, as several processes write to one pipe: print may write the end of a line later
    os.write(1, f"{{text}}\\n".encode())

say("script")

class Value:
    def __init__(self, x):
        self.x = x

def double(value):
    return Value(2 * value.x)

def sleep(seconds):
    say(os.getpid())
    time.sleep(seconds)

if __name__ == "__main__":
    {what}
"""


def start(tmp_path: Path, what: str, *, guard: bool = True) -> subprocess.Popen[str]:
    text = SCRIPT.format(what=what)
    (tmp_path / "script.py").write_text(text if guard else text.replace('if __name__ == "__main__"', "if True"))
    return subprocess.Popen(
        [sys.executable, "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


def wait_until_gone(processes: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(is_running(process) for process in processes):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # one that nobody has buried is gone too
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_what_a_script_defines_can_be_used(tmp_path: Path) -> None:
    what = "print([v.x for v in workers.map(double, [Value(1), Value(2)], workers=2)])"
    out, err = start(tmp_path, what).communicate(timeout=60)
    assert out.splitlines()[0] == "script"
    assert out.splitlines()[-1] == "[2, 4]"
    assert err == ""


def test_a_script_is_not_run_again_for_nothing(tmp_path: Path) -> None:
    out, err = start(tmp_path, "print(workers.map(abs, [-1, -2], workers=2))", guard=False).communicate(timeout=60)
    assert out.splitlines() == ["script", "[1, 2]"]
    assert err == ""


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    process = start(tmp_path, "workers.map(double, [Value(1)], workers=2)", guard=False)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'the call must stand under `if __name__ == "__main__":`' in err


@posix
@pytest.mark.parametrize("call", ["map(sleep, [60, 60], workers=2)", "run(sleep, [60], workers=1, team=2, done=max)"])
def test_ctrl_c_ends_all_at_once_and_quietly(tmp_path: Path, call: str) -> None:
    what = f"""
    try:
        workers.{call}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    (tmp_path / "script.py").write_text(SCRIPT.format(what=what))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    children = read_numbers(process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=20)
    assert out.splitlines()[-1] == "interrupted"
    assert err == ""
    assert process.returncode == 0
    wait_until_gone(children, 0.5)


@posix
@pytest.mark.parametrize("pause", [0.0, 0.03, 0.06, 0.1, 0.2])
def test_ctrl_c_while_workers_start(tmp_path: Path, pause: float) -> None:
    what = "print('begin', flush=True); workers.map(sleep, [0.5] * 4, workers=2); time.sleep(30)"
    (tmp_path / "script.py").write_text(SCRIPT.format(what=what))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "begin\n":
        continue
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert err.count("Traceback") == 1  # the parent's own
    assert err.endswith("KeyboardInterrupt\n")
    wait_until_gone([int(line) for line in out.splitlines() if line.isdigit()], 0.5)


@posix
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, "workers.map(sleep, [60, 60], workers=2)") as process:
        children = read_numbers(process, 2)
        assert all(map(is_running, children))
        process.kill()
        wait_until_gone(children, 5)  # about half a second, on a machine that has nothing else to do


def read_numbers(process: subprocess.Popen[str], count: int) -> list[int]:
    """The process numbers that workers print, among what else is printed."""
    assert process.stdout is not None
    found: list[int] = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        if line.strip().isdigit():
            found.append(int(line))
    return found

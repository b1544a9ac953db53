"""A run folder: whole files or none, one process at a time, and clear words about damage."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.exceptions import InputError
from kinfolk.runs import Folder, RunFolder, open_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_and_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = Folder(tmp_path_factory.mktemp("json"))
    folder.write_json("a/b.json", value)
    assert repr(folder.read_json("a/b.json")) == repr(value)


def test_json_is_strict_and_keeps_order(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    value = {
        "z": math.nan,
        "a": [math.inf, (np.float32(0.5), np.int64(3), np.bool_(True))],
        "n": np.array([[1.0, np.nan]]),
        "t": "é\udc80",
    }
    folder.write_json("x.json", value)
    expected = '{\n  "z": null,\n  "a": [\n    null,\n    [\n      0.5,\n      3,\n      true\n    ]\n  ],'
    assert (tmp_path / "x.json").read_bytes().startswith(expected.encode())
    again = folder.read_json("x.json")
    assert list(again) == ["z", "a", "n", "t"]
    assert again["n"] == [[1.0, None]]
    assert again["t"] == "é\udc80"
    for wrong in ({1: 2}, {"a": {1}}, {"a": Path()}):
        with pytest.raises(TypeError):
            folder.write_json("x.json", wrong)
    assert folder.read_json("x.json") == again


def test_arrays_and_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    arrays = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 2)),
        "a b/ü": np.array("text"),
        "scalar": np.float64(1.5),
        "f": np.asfortranarray(np.eye(3, dtype=bool)),
    }
    folder.write_arrays("a.npz", {name: np.asarray(array) for name, array in arrays.items()})
    again = folder.read_arrays("a.npz")
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == np.asarray(array).dtype
    content = folder.read_bytes("a.npz")
    folder.write_arrays("b.npz", again)
    assert folder.read_bytes("b.npz") == content
    with np.load(tmp_path / "a.npz", allow_pickle=False) as numpys:  # it is NumPy's own format
        np.testing.assert_array_equal(numpys["file"], arrays["file"])


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        folder.write_arrays("a.npz", {"a": np.array([object()])})
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        folder.read_arrays("a.npz")


def test_frames_and_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    frame = pd.DataFrame(
        {
            "arm": ["a", None],
            "error": [0.5, np.nan],
            "prediction": [np.ones(2, np.float32), np.ones(1, np.float32)],
            "n": [1, 2],
        },
        index=[5, 6],
    )
    folder.write_frame("f.parquet", frame)
    again = folder.read_frame("f.parquet")
    pd.testing.assert_frame_equal(again, frame.reset_index(drop=True))
    assert again["prediction"][0].dtype == np.float32


def test_a_half_written_file_is_none(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_bytes("a", b"old")
    writing = folder._writing("a")
    writing.__enter__().write(b"new")
    assert len(os.listdir(tmp_path)) == 2
    writing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert folder.read_bytes("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    Folder(tmp_path).write_bytes("a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/a", "."])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="inside the run folder"):
        Folder(tmp_path).write_bytes(name, b"")


def test_small_things(tmp_path: Path) -> None:
    inner = Folder(tmp_path).folder("a/b")
    assert type(inner) is Folder
    assert inner.path == tmp_path / "a" / "b"
    assert not inner.has("c")
    inner.write_bytes("c", b"1")
    assert inner.has("c")
    inner.remove("c")
    inner.remove("c")
    assert not inner.has("c")


# ---- damage


def filled(path: Path) -> Folder:
    folder = Folder(path)
    folder.write_json("x.json", {"a": [1, 2, "text"]})
    folder.write_arrays("x.npz", {"a": np.arange(20.0), "b": np.array(["x", "yz"])})
    folder.write_frame("x.parquet", pd.DataFrame({"a": np.arange(20.0), "b": ["text"] * 20}))
    return folder


READERS = {"x.json": Folder.read_json, "x.npz": Folder.read_arrays, "x.parquet": Folder.read_frame}


@pytest.mark.parametrize("name", READERS)
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    folder = filled(tmp_path)
    whole = folder.read_bytes(name)
    for length in {0, 1, 10, len(whole) // 2, len(whole) - 3}:
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{name} cannot be read") as raised:
            READERS[name](folder, name)
        assert "\n" not in str(raised.value)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="There is no file"):
        READERS[name](folder, name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        READERS[name](folder, name)


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_a_changed_byte_is_found_or_changes_nothing(tmp_path: Path, name: str) -> None:
    folder = filled(tmp_path)
    whole = folder.read_bytes(name)
    before = READERS[name](folder, name)
    for place in range(0, len(whole), 1 if name == "x.npz" else 7):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        (tmp_path / name).write_bytes(changed)
        with contextlib.suppress(InputError):
            after = READERS[name](folder, name)
            if name == "x.npz":
                assert list(after) == list(before)
                assert all(np.array_equal(after[key], before[key]) for key in before)


def test_random_bytes_are_no_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    generator = np.random.default_rng(0)
    for start in (b"", b"PK\x03\x04", b"PAR1", b"\x93NUMPY", b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff\xfe"):
        folder.write_bytes("x", start + (generator.bytes(200) if len(start) < 9 else b""))
        for reader in READERS.values():
            with pytest.raises(InputError, match="x cannot be read"):
                reader(folder, "x")


def test_an_array_of_a_shape_that_no_file_has(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content.getvalue())
    with pytest.raises(InputError, match="cannot be read"):
        Folder(tmp_path).read_arrays("x.npz")


# ---- opening


def test_a_run_is_begun_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "students"
    with open_run(path, resume=False) as run:
        run.write_json("plan.json", {})
    with pytest.raises(InputError, match=r"holds a run already\. Use --resume to go on, or another --out\."):
        open_run(path, resume=False)
    with open_run(path, resume=True) as run:
        assert run.read_json("plan.json") == {}
    with open_run(tmp_path / "new", resume=True) as run:
        run.write_bytes("a", b"")


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with open_run(tmp_path / "a", resume=False):
        assert (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(InputError, match="files that no run wrote"):
        open_run(tmp_path, resume=False)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_out_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        for resume in (False, True):
            with pytest.raises(InputError, match="must be a folder"):
                open_run(path, resume)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_out_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be"):
        open_run(tmp_path, resume=False)
    with pytest.raises(InputError, match="cannot be made"):
        open_run(tmp_path / "a", resume=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="a cannot be written: No space left on device"):
        Folder(tmp_path).write_bytes("a", b"x")
    assert not list(tmp_path.iterdir())


def test_a_copy_for_another_process_is_a_plain_folder(tmp_path: Path) -> None:
    with open_run(tmp_path / "a", resume=False) as run:
        sent = copy.copy(run)  # as pickle does it
        assert type(sent) is Folder
        sent.write_bytes("b", b"1")
        assert isinstance(run, RunFolder)
        assert run.read_bytes("b") == b"1"


HOLDER = """
import sys, time
from kinfolk.runs import open_run
run = open_run(sys.argv[1], resume=True)
run.write_bytes("a", b"whole")
writing = run._writing("sub/a")
file = writing.__enter__()
file.write(b"ha")
file.flush()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_one_process_at_a_time_and_none_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="Another process is working in"):
                open_run(path, resume)
        assert len(os.listdir(path / "sub")) == 1
        process.kill()
    with open_run(path, resume=True) as run:
        assert run.read_bytes("a") == b"whole"
        assert not os.listdir(path / "sub")
        with pytest.raises(InputError, match="Another process is working in"):
            open_run(path, resume=True)


WRITER = """
import sys
from kinfolk.runs import Folder
folder, n = Folder(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    folder.write_json("x.json", {"numbers": [n] * 5000})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for pause in (0.05, 0.11, 0.17):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while not folder.has("x.json"):
                time.sleep(0.01)
            time.sleep(pause)
            process.kill()
        numbers = folder.read_json("x.json")["numbers"]
        assert len(numbers) == 5000
        assert len(set(numbers)) == 1

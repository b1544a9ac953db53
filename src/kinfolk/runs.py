"""A run folder: write atomically, read, lock, resume."""

from __future__ import annotations

import io
import json
import math
import os
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from kinfolk.exceptions import InputError

if TYPE_CHECKING:
    import numpy
    import pandas

LOCK = ".lock"
UNFINISHED = (".unfinished-", ".tmp")  # how the name of a file begins and ends while it is being written


class Folder:
    """A folder of a run: reads and writes its files.

    A file is there whole or not at all: it is written beside its place, flushed to the disk and renamed, so
    a process that is killed leaves the old file or the new one. It is only a path, so it can be sent to
    another process, which may write into it too.

    Parameters
    ----------
    path
        Where the folder is. It need not exist before something is written.

    Notes
    -----
    A file's name may contain ``/``; the folders between are made. Names that lead out of the folder raise
    ValueError. Whatever cannot be read (not there, damaged) or written (no permission, disk full) raises
    :class:`~kinfolk.exceptions.InputError` that names the file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def folder(self, name: str) -> Folder:
        """The folder `name` inside this one; it has no lock of its own."""
        return Folder(self._place(name))

    def has(self, name: str) -> bool:
        """Whether there is a file or folder `name`."""
        return self._place(name).exists()

    def remove(self, name: str) -> None:
        """Remove the file `name`, if it is there."""
        self._place(name).unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as strict JSON: NaN and infinities become null.

        NumPy's numbers and arrays become numbers and lists, tuples become lists. Keys must be text and stay in
        their order, which may carry a meaning (tasks come as the user named them).

        Raises
        ------
        TypeError
            For a value that JSON does not have, or a key that is not text.
        """
        text = json.dumps(_strict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Names from odd files may hold a lone surrogate, which UTF-8 does not have; as \udc80 it is valid JSON.
        self.write_bytes(name, text.encode("utf-8", "backslashreplace"))

    def read_json(self, name: str) -> Any:
        """What :meth:`write_json` wrote."""
        with self._reading(name) as file:
            return json.loads(file.read().decode("utf-8"), parse_constant=_refuse_constant)

    def write_bytes(self, name: str, value: bytes) -> None:
        """Write `value` as it is."""
        with self._writing(name) as file:
            file.write(value)

    def read_bytes(self, name: str) -> bytes:
        """The content of the file `name`."""
        with self._reading(name) as file:
            return file.read()

    def write_arrays(self, name: str, arrays: Mapping[str, numpy.ndarray]) -> None:
        """Write arrays as NumPy's .npz, in which nothing is pickled.

        Raises
        ------
        ValueError
            For an array of objects.
        """
        import numpy as np

        with self._writing(name) as file, zipfile.ZipFile(file, "w") as archive:
            for key, array in arrays.items():
                # ZipInfo has a fixed date: the same arrays make the same bytes.
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.comment = str(len(arrays)).encode()  # damage to a zip's table of contents can hide a member

    def read_arrays(self, name: str) -> dict[str, numpy.ndarray]:
        """What :meth:`write_arrays` wrote."""
        import numpy as np

        arrays = {}
        with self._reading(name) as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                # Read whole first: that compares the checksum before the header's shape is believed.
                content = io.BytesIO(archive.read(member))
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
            if archive.comment != str(len(arrays)).encode():
                raise ValueError("its table of contents does not tell of every array")
        return arrays

    def write_frame(self, name: str, frame: pandas.DataFrame) -> None:
        """Write a frame as Parquet, with checksums. Its index is not kept."""
        content = io.BytesIO()
        frame.to_parquet(content, engine="pyarrow", index=False, write_page_checksum=True)
        self.write_bytes(name, content.getvalue())

    def read_frame(self, name: str, **where: str) -> pandas.DataFrame:
        """What :meth:`write_frame` wrote; of it the rows in which each named column has the given value."""
        import pandas as pd

        rows = [(column, "==", value) for column, value in where.items()] or None
        with self._reading(name) as file:
            return pd.read_parquet(io.BytesIO(file.read()), filters=rows, page_checksum_verification=True)

    def _place(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or Path(name).drive:
            raise ValueError(f"`name` must be a path inside the run folder. Got {name!r}.")
        return self.path.joinpath(*parts)

    @contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        place = self._place(name)
        try:
            with place.open("rb") as file:
                yield file
        except FileNotFoundError:
            raise InputError(f"There is no file {place}. The run may not have come that far, or is no run.") from None
        # ValueError: JSON, text encodings, array headers, pyarrow. MemoryError: a shape that no file has.
        except (ValueError, OSError, EOFError, KeyError, *_DAMAGED) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{place} cannot be read: {why}. It may be damaged; remove it to do that part again."
            ) from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        place = self._place(name)
        begin, end = UNFINISHED
        beside = place.parent / f"{begin}{uuid.uuid4().hex}{end}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beside.open("xb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, place)
            finally:
                beside.unlink(missing_ok=True)
            _keep_names(place.parent)
        except OSError as error:
            raise InputError(f"{place} cannot be written: {error.strerror or error}.") from error


class RunFolder(Folder):
    """A run's own folder, locked while it is open; see :func:`open_run`.

    The lock is the operating system's: it ends with its process, however that ends. In another process a
    copy of this is a plain :class:`Folder`: whoever opened the run keeps the lock.
    """

    def __init__(self, path: Path | str, lock: FileLock) -> None:
        super().__init__(path)
        self._lock = lock

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (str(self.path),)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. A folder in which nothing was written is removed."""
        if self._lock.is_locked and not _content(self.path):
            # While the lock is held; one who waits for it finds its file gone and tries anew.
            (self.path / LOCK).unlink(missing_ok=True)
            self._lock.release()
            _remove_empty(self.path)
        else:
            self._lock.release()


def open_run(path: Path | str, resume: bool) -> RunFolder:
    """Open a run folder for writing, lock it, and clear away what a killed process left half-written.

    Parameters
    ----------
    path
        The folder; it is made if it is not there.
    resume
        Whether to go on with the run that the folder holds. Where it holds none, this begins one.

    Returns
    -------
    RunFolder
        To be used in a `with` statement, which gives the lock back.

    Raises
    ------
    InputError
        When the folder holds a run or other files and `resume` is False, when it is a file or cannot be
        written, and when another process is working in it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"--out must be a folder. {folder} is, or lies in, a file. Give another --out.") from None
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}. Give another --out.") from error
    was_run = (folder / LOCK).exists()
    run = RunFolder(folder, _lock(folder))
    _clear_unfinished(folder)
    if _content(folder) and not resume:
        run.close()
        if not was_run:
            (folder / LOCK).unlink(missing_ok=True)
            raise InputError(f"{folder} holds files that no run wrote. Give another --out.")
        raise InputError(f"{folder} holds a run already. Use --resume to go on, or another --out.")
    return run


# What the readers raise on a damaged file, beyond ValueError, OSError, EOFError and KeyError. RuntimeError and
# NotImplementedError: a zip file that claims to be encrypted or packed in an unknown way.
_DAMAGED = (zipfile.BadZipFile, zlib.error, RecursionError, MemoryError, RuntimeError, NotImplementedError)


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"Another process is working in {folder}. Wait for its end, or give another --out.") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"The folder {folder} cannot be written or locked: {why}. Give another --out.") from error
    return lock


def _strict(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays, without an import of NumPy
        value = value.tolist()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"A key in JSON must be text. Got {key!r}.")
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _content(folder: Path) -> bool:
    return any(entry.name != LOCK for entry in folder.iterdir())


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # someone wrote into it just now, or it is the working directory
        return


def _clear_unfinished(folder: Path) -> None:
    begin, end = UNFINISHED
    for place in folder.rglob(f"{begin}*{end}"):
        place.unlink(missing_ok=True)


def _keep_names(folder: Path) -> None:
    """Flush a folder's list of names to the disk, without which a renaming may not outlive a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot; the file itself is there
        return
    finally:
        os.close(handle)

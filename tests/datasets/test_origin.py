"""Files of data sets: from the user's folder, from the cache, downloaded with a checksum; and what a mistake gets."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from kinfolk.datasets import fashion_mnist, idx, mnist, origin
from kinfolk.exceptions import InputError


def packed(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(
        head + array.astype(np.uint8).tobytes(), mtime=0
    )  # the same at every collection: it names tests


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of data sets, and an empty cache."""
    monkeypatch.setenv("KINFOLK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server on this machine, and the folder that it offers."""
    offered = tmp_path / "offered"
    offered.mkdir()
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(offered)))
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", offered
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.parametrize("loader", [mnist, fashion_mnist])
def test_the_real_files(loader, data_folder: Path):
    images = loader()
    assert images.inputs.shape == (60000, 28, 28)
    assert images.test_inputs.shape == (10000, 28, 28)
    assert np.bincount(images.test_labels).sum() == 10000
    assert len(images.classes) == len(np.unique(images.labels)) == 10
    if loader is mnist:
        assert images.labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert images.inputs.mean() == pytest.approx(255 * 0.1307, abs=0.02)


def test_files_of_ones_own_in_the_same_form(own: Path):
    made = {"train-images-idx3": (5, 28, 28), "train-labels-idx1": (5,), "t10k-images-idx3": (2, 28, 28)}
    made |= {"t10k-labels-idx1": (2,)}
    (own / "mnist").mkdir(parents=True)
    for name, shape in made.items():
        (own / f"mnist/{name}-ubyte.gz").write_bytes(packed(np.full(shape, 7)))
    images = mnist()
    assert images.inputs.shape == (5, 28, 28)
    assert images.test_labels.tolist() == [7, 7]
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", packed(np.zeros(9))[:-12], gzip.compress(b"\0\0\x0d\x01abcd", mtime=0)]
)
def test_a_damaged_file_is_one_line(own: Path, content: bytes):
    own.mkdir()
    (own / "x.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"x.gz cannot be read: .*remove it to have it anew") as caught:
        idx.read(own / "x.gz")
    assert "\n" not in str(caught.value)


def test_a_download_is_kept_and_checked(own: Path, server: tuple[str, Path]):
    address, offered = server
    (offered / "x.txt").write_text("right")
    right = hashlib.sha256(b"right").hexdigest()
    dead = "http://127.0.0.1:9"
    path = origin.file("some", "x.txt", right, (dead, address))
    assert path.read_text() == "right"
    (offered / "x.txt").unlink()
    assert origin.file("some", "x.txt", right, (dead, address)) == path
    (offered / "y.txt").write_text("wrong")
    with pytest.raises(InputError, match="could not be downloaded"):
        origin.file("some", "y.txt", right, (address,))
    assert not list(path.parent.glob("y.txt"))
    (own / "some").mkdir(parents=True)
    (own / "some/y.txt").write_text("my own")
    assert origin.file("some", "y.txt", right, (address,)).read_text() == "my own"


def test_without_a_network_it_says_what_to_do(own: Path):
    with pytest.raises(InputError, match=r"x.txt of the data set 'some' could not be downloaded .*set KINFOLK_DATA to"):
        origin.file("some", "x.txt", "0" * 64, ("http://127.0.0.1:9",))
    with pytest.raises(InputError, match=r"x.txt cannot be downloaded: set KINFOLK_DATA"):
        origin.file("some", "x.txt")

"""Where the files of a data set are: in the user's folder of data sets, in the cache, or at their origin."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kinfolk.exceptions import InputError

VARIABLE = "KINFOLK_DATA"
"""Names a folder with a folder per data set; what is in there is not downloaded."""


def file(folder: str, name: str, sha256: str = "", mirrors: Sequence[str] = ()) -> Path:
    """The path of a file of a data set, which is downloaded once if it is nowhere.

    Parameters
    ----------
    folder
        The data set's folder inside ``$KINFOLK_DATA`` and inside the user's cache.
    name
        Of the file, there and at its origin.
    sha256
        What a download is checked against. A file in the user's own folder is taken as it is.
    mirrors
        Addresses of folders that offer the file, tried in turn. None: only users who have the file can use it.

    Raises
    ------
    InputError
        When the file is not there and cannot be had.
    """
    named = os.environ.get(VARIABLE, "")
    own = Path(named, folder, name)
    if named and own.is_file():
        return own
    searched = f"There is no {own}. " if named else ""
    if not mirrors:
        raise InputError(f"{searched}{name} cannot be downloaded: set {VARIABLE} to a folder with {folder}/{name}.")
    failed = []
    for mirror in mirrors:
        try:
            return _download(f"{mirror}/{name}", folder, name, sha256)
        except (OSError, ValueError) as error:  # no network; another content
            failed.append(f"{mirror}: {type(error).__name__}")
    raise InputError(
        f"{searched}{name} of the data set '{folder}' could not be downloaded ({'; '.join(failed)}). Try again with a "
        f"network, or set {VARIABLE} to a folder that holds {folder}/{name}."
    )


def files(folder: str, sha256: Mapping[str, str], mirrors: Sequence[str] = ()) -> list[Path]:
    """The paths of several files, of which the checksums are given by name, in their order."""
    return [file(folder, name, checksum, mirrors) for name, checksum in sha256.items()]


def _download(address: str, folder: str, name: str, sha256: str) -> Path:
    import pooch

    found = pooch.retrieve(address, f"sha256:{sha256}", name, Path(pooch.os_cache("kinfolk")) / folder)
    return Path(found)

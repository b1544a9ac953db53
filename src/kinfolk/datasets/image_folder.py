"""A folder with a folder of pictures for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinfolk.datasets.pictures import Pictures
from kinfolk.exceptions import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def image_folder(path: Path | str) -> Pictures:
    """The pictures in a folder of classes, ``path/CLASS/.../NAME.jpg``; classes and files in the order of their names.

    Parameters
    ----------
    path
        The folder, with a folder for each class; pictures may lie in folders of these.

    Raises
    ------
    InputError
        If there is no such folder, or fewer than two folders of pictures are in it.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"There must be a folder {root}, with a folder for each class. There is none.")
    found = {folder.name: _pictures(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    found = {name: paths for name, paths in found.items() if paths}
    if len(found) < 2:
        raise InputError(f"{root} must hold a folder of pictures for each of two classes or more. It has {len(found)}.")
    sizes = [len(paths) for paths in found.values()]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Pictures(tuple(path for paths in found.values() for path in paths), labels, tuple(found))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())

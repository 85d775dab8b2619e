"""Data sets of the literature on this machine: added from any file, or downloaded, and verified.

``get`` downloads a data set, ``add`` finds it in a file, a folder or an archive of any of the usual
formats; ``verify`` checks what is there. The content decides: arrays have the digests that
``sources.py`` lists, or are refused. Nothing is ever unpickled or extracted, and nothing is half
written. Suites name data sets as ``[data] name = "mnist"``.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from gradbench.core.errors import GradbenchError
from gradbench.suites.datasets import cache
from gradbench.suites.datasets.download import download_files
from gradbench.suites.datasets.search import Search
from gradbench.suites.datasets.sources import find_source

__all__ = ["add", "get", "load", "verify"]


def add(name: str, path: str | os.PathLike[str]) -> Path:
    """Find a data set in a file, a folder or an archive, and keep it on this machine.

    Args:
        name: the data set, such as "mnist".
        path: what holds it: the published files, a folder of them such as a cache of torchvision or
            Keras, or a zip archive, wheel, tarball or npz that has the same content somewhere.

    Returns:
        The file that it is kept in.

    Raises:
        GradbenchError: there is no such data set or path, a part of it is not there or not as
            published, or an archive is damaged or dangerous. Nothing is written then.
    """
    name, source = find_source(name)
    search = Search(source.parts)
    search.look_into(Path(path))
    if search.missing:
        raise search.error(name, Path(path))
    parts = {part.name: search.found[part.name] for part in source.parts}
    with cache.locked(name):
        return cache.write(name, source, source.make(parts))


def get(name: str, progress: bool = True) -> Path:
    """Download a data set from where it is published, unless it is on this machine.

    Args:
        name: the data set, such as "mnist".
        progress: whether to show bars.

    Returns:
        The file that it is kept in.

    Raises:
        GradbenchError: there is no such data set, no host can be reached, or what is there is not
            as published.
    """
    name, source = find_source(name)
    folder = cache.data_folder() / "downloads" / name
    if verify(name) is None:
        _remove(folder)  # of a download that was interrupted at its end
        return cache.entry(name)
    with cache.locked(f"{name}-download"):
        download_files(name, source, folder, progress)
        path = add(name, folder)
        _remove(folder)
    return path


def _remove(folder: Path) -> None:
    """Remove the files of a download, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # there is none, or another data set is downloaded
        folder.parent.rmdir()


def verify(name: str) -> str | None:
    """Return what is wrong with a data set on this machine, None where all is as published.

    Args:
        name: the data set, such as "mnist".

    Raises:
        GradbenchError: there is no such data set.
    """
    name, source = find_source(name)
    try:
        cache.read(name, source)
    except GradbenchError as error:
        return str(error)
    return None


def load(name: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the arrays of a data set on this machine.

    Args:
        name: the data set, such as "mnist".

    Returns:
        ``train_inputs`` [n, ...] and ``train_targets`` [n], ``test_inputs`` [m, ...] and
        ``test_targets`` [m], as published: bytes of pixels, or counts of words, and the numbers of
        classes. Documents also have ``words`` and ``classes``, the bytes of a text with one a line.

    Raises:
        GradbenchError: it is unknown, not on this machine, or damaged; the sentence says what to
            type.
    """
    return dict(cache.read(*find_source(name)))

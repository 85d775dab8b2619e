"""Files that come from anyone: read as a whole, or refused before they take time or memory.

A pipe in the place of a file would never end. Of an archive of arrays, npz, a few kilobytes can say
gigabytes of zeros: the sizes that it declares are looked at first, and no more than these is
unpacked.
"""

import errno
import io
import math
import os
import stat
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**31  # of a file, also when it is unpacked: more is an attack
_SMALL = 2**26  # bytes that any archive may unpack to
_MOST_RATIO = 200  # of the sizes after and before unpacking, beyond that: that of zeros is 1000


def read_plain_file(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """Return the content of a file; what is no plain file, such as a pipe, is not waited for.

    Args:
        path: the file.
        most: the number of bytes that it may have.

    Raises:
        OSError: it cannot be read, is no plain file, or is larger.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(Path(path), "rb", opener=at_once) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if facts.st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
        return file.read()


def read_arrays(content: bytes, most: int = MOST_BYTES) -> dict[str, NDArray[Any]]:
    """Return the arrays in the content of an npz, by name.

    Args:
        content: the bytes of the file.
        most: the number of bytes that all arrays together may have.

    Raises:
        ValueError: they would have more, or one is not an array of numbers or text as numpy's
            ``savez`` writes it. Damaged archives raise errors of several other kinds.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > most or (size > _SMALL and size > _MOST_RATIO * len(content)):
            raise ValueError(f"{size:,} bytes when it is unpacked")
        return {
            part.filename.removesuffix(".npy"): _array(_unpacked(archive, part))
            for part in archive.infolist()
        }


def _unpacked(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    """Return a part of an archive; without a size, ``read`` would unpack more than is declared."""
    with archive.open(part) as file:
        return file.read(part.file_size)


def _array(content: bytes) -> NDArray[Any]:
    """Return the array in the content of an npy; its header, which many share, is read once."""
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, transposed, kind = _header(content[:start])
    if kind.hasobject:
        raise ValueError("objects")
    flat = np.frombuffer(content, kind, math.prod(shape), start).copy()
    return flat.reshape(shape, order="F" if transposed else "C")


@lru_cache(maxsize=256)
def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of the array whose npy begins like this."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of npy than 1.0")
    return np.lib.format.read_array_header_1_0(file)

"""Arrays of numpy's files, npy and npz, from anyone: bounded before unpacking, and no pickles."""

import math
import os
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gradbench.core.archives import read_arrays, read_plain_file
from gradbench.core.atomic import no_memory
from gradbench.core.errors import GradbenchError

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_KINDS = "biuf"  # of numbers: booleans, whole numbers with and without sign, floats


def read_npy(file: IO[bytes], most: int) -> NDArray[Any]:
    """Return the array of real numbers in an npy, which is all that is left of ``file``.

    Its header is looked at first: an array of more than ``most`` bytes is never read.

    Raises:
        ValueError: it is no such array, too large, or shorter or longer than its header says.
    """
    major, _ = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if major not in read:
        raise ValueError(f"it is an npy of version {major}, not 1 or 2")
    try:
        shape, transposed, kind = read[major](file, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # of any kind: NumPy reads a header as Python's own literals
        raise ValueError(f"its header is damaged ({' '.join(str(error).split())})") from error
    if kind.kind not in _KINDS or kind.hasobject:
        raise ValueError(f"it is an array of {kind}, not of real numbers")
    size = math.prod(shape) * kind.itemsize
    if any(length < 0 for length in shape) or size > most:
        raise ValueError(f"it unpacks to {size} bytes, more than {most}")
    content = file.read(size)
    if len(content) != size or file.read(1):
        raise ValueError(f"it is {'shorter' if len(content) != size else 'longer'} than it says")
    return np.frombuffer(content, kind).reshape(shape, order="F" if transposed else "C")


def read_npz(path: str | os.PathLike[str], most: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of real numbers of an npz by their names; nothing is unpickled.

    Args:
        path: the file.
        most: the bytes that all arrays together may take. A file that says it holds more is refused
            before anything is unpacked.

    Raises:
        GradbenchError: the file cannot be read, is no npz of numbers, or is too large or damaged.
    """
    try:
        arrays = read_arrays(read_plain_file(path, most), most)
        for name, array in arrays.items():
            if array.dtype.kind not in _KINDS:
                raise ValueError(f"{name} is an array of {array.dtype}")
    except OSError as error:
        reason = error.strerror or error
        raise GradbenchError(f"cannot read {os.fspath(path)!r}: {reason}; check the path") from None
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # of any kind: a damaged zip archive makes its reader raise them all
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GradbenchError(
            f"{os.fspath(path)!r} is no npz of real numbers ({reason}); write one by numpy.savez"
        ) from None
    return arrays

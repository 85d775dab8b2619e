"""Data sets on this machine: one npz each, in the folder ``data`` of ``compiling.user_cache()``."""

import io
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from gradbench.core.atomic import guard, remove_partials, write_file
from gradbench.core.compiling import user_cache
from gradbench.core.errors import GradbenchError
from gradbench.core.npy import read_npz
from gradbench.suites.datasets.content import digest_of_all, short
from gradbench.suites.datasets.source import Arrays, Source

_MOST = 2**29  # bytes of the arrays of a data set


def data_folder() -> Path:
    """Return the folder of the data sets on this machine."""
    return user_cache() / "data"


def entry(name: str) -> Path:
    """Return the file of a data set."""
    return data_folder() / f"{name}.npz"


def locked(name: str) -> FileLock:
    """Return the lock for writing a data set, which waits for another process.

    Raises:
        GradbenchError: the folder cannot be made.
    """
    with guard("write", data_folder()):
        data_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(data_folder() / f".{name}.lock", mode=0o644)


def write(name: str, source: Source, arrays: Arrays) -> Path:
    """Write the arrays of a data set as a whole or not at all, and return the file.

    The lock of the data set has to be held.

    Raises:
        GradbenchError: the file cannot be written, or the arrays are not those of the data set.
    """
    if (found := digest_of_all(arrays)) != source.digest:
        raise _other(name, source.digest, found, "the parts", "report this as a fault of gradbench")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in sorted(arrays.items()):
            member = zipfile.ZipInfo(f"{key}.npy")  # of 1980, so that equal data are equal files
            member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, content.getbuffer(), compresslevel=1)
    path = entry(name)
    with guard("write", path):
        remove_partials(path.parent, path.name)
    write_file(path, buffer.getvalue())
    return path


def read(name: str, source: Source) -> Arrays:
    """Return the arrays of a data set, which nobody may write into.

    Raises:
        GradbenchError: it is not there, or damaged; the sentence says what to type.
    """
    path = entry(name)
    if not path.is_file():
        raise GradbenchError(
            f"the data set {name!r} is not on this machine; type 'gradbench data get {name}', or "
            f"offline 'gradbench data add {name} PATH' with a file, folder or archive that holds it"
        )
    with guard("read", path):
        facts = path.stat()
    return _read(path, facts.st_mtime_ns, facts.st_size, name, source.digest)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int, name: str, digest: str) -> Arrays:
    remedy = f"type 'gradbench data get {name}' or 'gradbench data add {name} PATH' to replace it"
    try:
        arrays = read_npz(path, _MOST)
    except GradbenchError:
        raise GradbenchError(f"{str(path)!r} is damaged and no npz any more; {remedy}") from None
    found = digest_of_all(arrays)
    if found != digest:
        raise _other(name, digest, found, repr(str(path)), remedy)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _other(name: str, wanted: str, found: str, what: str, remedy: str) -> GradbenchError:
    return GradbenchError(
        f"{what} of {name!r} give the digest {short(found)}, not {short(wanted)}; {remedy}"
    )

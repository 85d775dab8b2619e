"""Files of results: written as a whole, verified when read, failing in one sentence.

A file is written beside its place and renamed into it, so it is there as a whole or not at all; it
carries a digest of its content, so damage is found; equal content gives equal bytes.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gradbench.core.errors import GradbenchError

SCHEMA = 2  # of everything on disk; readers refuse newer ones and read older ones
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Json = dict[str, Any]
_PARTIAL = ".gradbench-partial"


class CorruptFile(GradbenchError):
    """The content of a file is not what was written; the message names the file."""


def encode(label: str) -> str:
    """Return a readable file name for a label; ``urllib.parse.unquote`` is the way back.

    Raises:
        GradbenchError: the label is empty or too long.
    """
    name = re.sub(r"^\.", "%2E", quote(label, safe="()=,[]+"))
    if not 1 <= len(name) <= 200:
        raise GradbenchError(
            f"the name {label!r} does not fit into a file name; use 1 to 200 plain letters"
        )
    return name


def to_json(value: object) -> str:
    """Return canonical JSON; numbers and arrays of numpy and JAX are written as those of Python."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=lambda x: x.tolist())


def plain(value: object) -> Any:
    """Return a value as it comes back from a file."""
    return json.loads(to_json(value))


def digest(data: bytes) -> str:
    """Return a hash of the content of a file, 16 hexadecimal digits."""
    return hashlib.blake2b(data).hexdigest()[:16]


def pack(arrays: Mapping[str, Any], layers: int, info: Mapping[str, Any]) -> bytes:
    """Return an npz of float64 arrays and a note, with a digest of both."""
    floats = {key: np.asarray(array, np.float64, order="C") for key, array in arrays.items()}
    note = to_json({"schema": SCHEMA, "layers": layers, "info": dict(info)})
    buffer = io.BytesIO()
    members: Json = {"note": note, "digest": _content(floats, note), **floats}
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def unpack(path: Path) -> tuple[dict[str, Floats], int, Json]:
    """Return the arrays, the number of layers and the facts of a verified npz.

    Raises:
        CorruptFile: it is not what was written.
    """
    with guard("read", path):
        data = path.read_bytes()
    try:
        arrays = dict(np.load(io.BytesIO(data)))
        text, stored = str(arrays.pop("note")), str(arrays.pop("digest"))
        if _content(arrays, text) != stored:
            raise ValueError("digest")
        note = json.loads(text)
    except Exception as error:  # of any kind: a damaged zip archive makes its reader raise them all
        raise CorruptFile(f"{str(path)!r} is corrupted; delete it and run again") from error
    refuse_newer(path, note["schema"])
    return arrays, note["layers"], note["info"]


def _content(arrays: Mapping[str, Floats], note: str) -> str:
    parts = [f"{key}{array.shape}".encode() + array.tobytes() for key, array in arrays.items()]
    return digest(b"".join([note.encode(), *parts]))


def refuse_newer(path: Path, schema: int) -> None:
    """Refuse a file that a newer gradbench has written.

    Raises:
        GradbenchError: names the file and both schemas.
    """
    if schema > SCHEMA:
        raise GradbenchError(
            f"{str(path)!r} has schema {schema}, newer than this gradbench reads ({SCHEMA}); "
            "update gradbench"
        )


def partial(path: Path) -> Path:
    """Return the name of a file while it is being written."""
    return path.with_name(f".{path.name}{_PARTIAL}")


def remove_partials(directory: Path) -> None:
    """Delete files that a killed process left half written; only for the holder of the lock."""
    for path in directory.rglob(f".*{_PARTIAL}"):
        path.unlink()


def write_file(path: Path, data: bytes) -> None:
    """Write a file, and its directory, as a whole or not at all.

    Raises:
        GradbenchError: it cannot be written.
    """
    begun = partial(path)
    with guard("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(begun, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(begun, path)
        finally:
            with contextlib.suppress(OSError):
                begun.unlink()
        if os.name != "nt":  # Windows cannot open directories
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)  # makes the new name last, not only the content
            finally:
                os.close(directory)


def locked(directory: Path) -> FileLock:
    """Return the lock of a directory, held until it is released or the process ends.

    Raises:
        GradbenchError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / ".lock", timeout=0, mode=0o644, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise GradbenchError(
            f"another process is writing to {str(directory)!r}; wait for it, or choose another "
            "directory with --out"
        ) from None
    return lock


@contextlib.contextmanager
def guard(verb: str, path: Path) -> Iterator[None]:
    """Tell the failures of the operating system in one sentence, as a GradbenchError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))  # no such on Windows
        remedy = "free some space" if full else "check the path and its permissions"
        raise GradbenchError(
            f"cannot {verb} {str(path)!r}: {error.strerror or error}; {remedy} and run again, "
            "earlier results are intact"
        ) from error

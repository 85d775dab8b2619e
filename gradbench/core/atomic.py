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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gradbench.core.archives import MOST_BYTES, read_arrays, read_plain_file
from gradbench.core.errors import GradbenchError

# Of everything on disk; readers refuse newer ones and read older ones. From 3 on every file says
# what it belongs to.
SCHEMA = 3
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Json = dict[str, Any]
_PARTIAL = ".gradbench-partial"


class CorruptFile(GradbenchError):
    """The content of a file is not what was written; the message names the file."""


def to_json(value: object) -> str:
    """Return canonical JSON; numbers and arrays of numpy and JAX are written as those of Python."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=lambda x: x.tolist())


def plain(value: object) -> Any:
    """Return a value as it comes back from a file."""
    return json.loads(to_json(value))


def digest(data: bytes) -> str:
    """Return a hash of the content of a file, 16 hexadecimal digits."""
    return hashlib.blake2b(data).hexdigest()[:16]


def pack(
    arrays: Mapping[str, Any],
    layers: int,
    info: Mapping[str, Any],
    whose: Mapping[str, Any] | None = None,
) -> bytes:
    """Return an npz of float64 arrays and a note, with a digest of both.

    ``whose`` says what the file belongs to: it is refused where something else is expected.
    """
    floats = {key: np.asarray(array, np.float64, order="C") for key, array in arrays.items()}
    facts = {"schema": SCHEMA, "layers": layers, "info": dict(info)}
    note = to_json(facts if whose is None else facts | {"whose": dict(whose)})
    buffer = io.BytesIO()
    members: Json = {"note": note, "digest": _content(floats, note), **floats}
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def unpack(
    path: Path, whose: Mapping[str, Any] | None = None, schema: int = SCHEMA
) -> tuple[dict[str, Floats], int, Json]:
    """Return the arrays, the number of layers and the facts of a verified npz.

    Args:
        path: the file.
        whose: what the file has to belong to, if that is known. A file of a schema before 3 does
            not say it: it is taken where the results around it are as old.
        schema: that of the results around it.

    Raises:
        CorruptFile: it is not what was written, or belongs elsewhere.
    """
    data = read_file(path)
    try:
        arrays = read_arrays(data)
        text, stored = str(arrays.pop("note")), str(arrays.pop("digest"))
        if _content(arrays, text) != stored:
            raise ValueError("digest")
        note = json.loads(text)
        written = whole(note["schema"], 1)
        if written <= SCHEMA:
            if any(array.dtype != np.float64 for array in arrays.values()):
                raise ValueError("numbers")
            layers, info, owner = whole(note["layers"]), note["info"], note.get("whose")
            if not isinstance(info, dict):
                raise ValueError("info")
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # of any kind: a damaged zip archive makes its reader raise them all
        raise CorruptFile(f"{str(path)!r} is corrupted; delete it and run again") from error
    refuse_newer(path, written)
    if whose is not None and (written >= 3 or schema >= 3):
        refuse_foreign(path, owner, whose, "delete it and run again")
    return arrays, layers, info


def no_memory(path: str | os.PathLike[str]) -> GradbenchError:
    """Return the error of a file that is not read for want of memory, and may be as it was."""
    return GradbenchError(
        f"there is not enough memory to read {os.fspath(path)!r}; end other programs, and run again"
    )


def refuse_foreign(path: Path, found: Any, wanted: Mapping[str, Any], remedy: str) -> None:
    """Refuse a file that says it belongs elsewhere, or does not say it.

    Raises:
        CorruptFile: names the file, what differs, and the remedy.
    """
    if to_json(found) == to_json(wanted):  # 1 == True
        return
    wanted = plain(wanted)
    found = found if isinstance(found, dict) else {}
    other = [f"{key} = {_told(found.get(key))}" for key in wanted if found.get(key) != wanted[key]]
    what = f"({', '.join(other)})" if found and other else "(it does not say to which)"
    raise CorruptFile(f"{str(path)!r} belongs to another cell or another run {what}; {remedy}")


def _told(value: Any) -> str:
    """Return a value of someone else's file for a sentence: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def whole(value: Any, least: int = 0, most: int = 2**53) -> int:
    """Return a value that is a whole number in a range.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"not a whole number from {least} to {most}")
    return value


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        GradbenchError: it cannot be read, is no plain file, or is larger than any of results.
    """
    try:
        return read_plain_file(path, MOST_BYTES)
    except OSError as error:
        wrong = {errno.EINVAL: "is not a file", errno.EISDIR: "is not a file"}
        wrong |= {errno.EFBIG: "is larger than any results"}
        if error.errno in wrong:
            remedy = "delete it and run again"
            raise CorruptFile(f"{str(path)!r} {wrong[error.errno]}; {remedy}") from None
        with guard("read", path):
            raise


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
    """Return the name of a file while this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


def is_partial(name: str, of: str) -> bool:
    """Return whether a ``name`` is that of the file ``of`` while some process writes it."""
    return name.startswith(f".{of}.") and name.endswith(_PARTIAL)


def remove_partials(directory: Path, of: str | None = None) -> None:
    """Delete what killed processes left half written; only for the holder of the lock.

    Args:
        directory: where files are.
        of: the name of a file in it, if the lock is for that alone; all in and below by default.
    """
    for path in directory.rglob(f".*{_PARTIAL}") if of is None else directory.iterdir():
        if of is None or is_partial(path.name, of):
            path.unlink()


def refuse_other_than_file(path: Path) -> None:
    """Refuse to write where there is something else, such as a device, which would be no more.

    Raises:
        GradbenchError: names the path.
    """
    with guard("write", path):
        if path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, "it is there, and is not a file")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, and its directory, as a whole or not at all.

    Raises:
        GradbenchError: it cannot be written.
    """
    begun = partial(path)
    with guard("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_other_than_file(path)
        try:
            begun.unlink(missing_ok=True)  # what a killed process left, or a link to elsewhere
            with open(begun, "xb") as file:
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

"""The files of a folder or an archive, one after another; nothing is ever written to the disk.

Taken are files, folders, zip archives (wheels and npz are such) and tar archives, plain or by gzip.
Files by gzip are unpacked as they are read. Archives in a folder are looked into, archives in
archives are not.
"""

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gradbench.core.errors import GradbenchError

MOST_BYTES = 2**31  # of an archive, unpacked: what is larger is no data set of here
MOST_FILES = 100_000
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_TAR = (257, b"ustar")  # where a tar archive has its mark
# What the readers of damaged archives raise, beside OSError.
DAMAGE = (
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class Member(NamedTuple):
    """A file: where it is, its size where that is known, and how it is opened, once."""

    where: str
    size: int | None
    open: Callable[[], Any]


def members(path: Path) -> Iterator[Member]:
    """Yield the files at a path; each has to be read before the next one is asked for.

    Raises:
        GradbenchError: there is nothing, an archive is damaged or unpacks to too much, or a name in
            it leads out of it.
    """
    if path.is_dir():
        files = _files(path)
    elif path.is_file():
        files = iter([path])
    else:
        found = "is no file or folder" if path.exists() else "does not exist"
        raise GradbenchError(f"{str(path)!r} {found}; give the path of a file, folder or archive")
    for count, file in enumerate(files):
        _refuse_many(count, path)
        yield from _members_of(file)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (file for name in sorted(names) if (file := Path(place, name)).is_file())


def _members_of(file: Path) -> Iterator[Member]:
    with _told(str(file)):
        with open(file, "rb") as opened:
            head = opened.read(512)
        if head.startswith(_ZIP):
            yield from _in_zip(file)
        elif _is_tar(head):
            with open(file, "rb") as opened:
                yield from _in_tar(file, opened)
        elif head.startswith(_GZIP) and _holds_tar(file):
            with gzip.open(file) as opened:
                yield from _in_tar(file, opened)
        else:
            yield Member(str(file), file.stat().st_size, partial(open, file, "rb"))


def _holds_tar(file: Path) -> bool:
    try:
        with gzip.open(file) as opened:
            return _is_tar(opened.read(512))
    except (OSError, *DAMAGE):
        return False  # of a damaged file, which is told when it is read


def _is_tar(head: bytes) -> bool:
    return head[_TAR[0] :].startswith(_TAR[1])


def _in_zip(file: Path) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        _refuse_many(len(parts), file)
        _refuse_large(sum(part.file_size for part in parts), file)
        for part in parts:
            _refuse_name(part.filename, file)
            if stat.S_ISLNK(part.external_attr >> 16):
                raise _link(part.filename, file)
        for part in parts:
            if not part.is_dir():
                where = f"{file}: {part.filename}"
                yield Member(where, part.file_size, partial(archive.open, part))


def _in_tar(file: Path, opened: io.BufferedIOBase) -> Iterator[Member]:
    counted = _Counted(opened, file)
    with tarfile.open(fileobj=counted, mode="r|", errorlevel=2) as archive:
        for count, part in enumerate(archive):
            _refuse_many(count, file)
            _refuse_name(part.name, file)
            _refuse_large(part.size, file)
            if not (part.isfile() or part.isdir()):
                raise _link(part.name, file)
            if part.isfile():
                where = f"{file}: {part.name}"
                yield Member(where, part.size, partial(archive.extractfile, part))


class _Counted(io.RawIOBase):
    """What a tar archive unpacks to, until it is too much."""

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        self.file, self.path, self.count = file, path, 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        _refuse_large(self.count, self.path)
        return data


def unzipped(file: Any) -> tuple[io.BufferedIOBase, bool]:
    """Return a file, unpacked as it is read where it is one by gzip, and whether it is."""
    buffered = io.BufferedReader(file)
    if buffered.peek(2).startswith(_GZIP):
        return gzip.GzipFile(fileobj=buffered), True
    return buffered, False


def is_archive(head: bytes) -> bool:
    """Return whether a file begins like an archive, which is not looked into inside another."""
    return head.startswith(_ZIP) or _is_tar(head)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Tell what is wrong with an archive in one sentence, as a GradbenchError."""
    try:
        yield
    except GradbenchError:
        raise
    except (OSError, *DAMAGE) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise GradbenchError(
            f"{name!r} cannot be read ({reason}); give a whole archive, such as a fresh download"
        ) from None


def _refuse_name(name: str, file: Path) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise GradbenchError(
            f"{str(file)!r} holds the name {name!r}, which leads out of the archive; it is not "
            "read, give one from a source that you trust"
        )


def _link(name: str, file: Path) -> GradbenchError:
    return GradbenchError(
        f"{str(file)!r} holds {name!r}, which is a link or a device and no file; pack it anew "
        "without"
    )


def _refuse_large(size: int, file: Path) -> None:
    if size > MOST_BYTES:
        raise GradbenchError(
            f"{str(file)!r} unpacks to more than {MOST_BYTES // 2**30} GiB, which no data set of "
            "here does; give an archive of the data alone"
        )


def _refuse_many(count: int, path: Path) -> None:
    if count > MOST_FILES:
        raise GradbenchError(
            f"{str(path)!r} holds more than {MOST_FILES} files; give the folder or archive of the "
            "data alone"
        )

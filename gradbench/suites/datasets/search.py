"""The parts of a data set, found by their digests wherever and in whatever format they lie."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradbench.core.errors import GradbenchError
from gradbench.suites.datasets.archives import DAMAGE, Member, is_archive, members, unzipped
from gradbench.suites.datasets.content import Content, Part, digest_of, short, size_of
from gradbench.suites.datasets.formats import FORMATS, HEAD

_MOST = 2**28  # bytes of a file, unpacked
_MOST_TOLD = 3  # files that could not be read


class _Likeness(NamedTuple):
    """A content that is not the part it may have been meant for."""

    where: str
    size: str
    digest: str
    parts: frozenset[str]  # the names of the parts of its kind
    whole: bool  # or some rows of a longer array


class Search:
    """The search for the parts of a data set; ``found`` has those found, by name."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.found: dict[str, Content] = {}
        self.likenesses: list[_Likeness] = []
        self.faults: list[str] = []  # of files that are not what they begin like
        self.damage: list[str] = []  # of files that cannot be unpacked
        self.archives = 0

    @property
    def missing(self) -> list[Part]:
        """The parts that are not found yet."""
        return [part for part in self.parts if part.name not in self.found]

    def look_into(self, path: Path) -> None:
        """Look for parts in a file, a folder or an archive, until all are found.

        Raises:
            GradbenchError: see ``archives.members``.
        """
        for member in members(path):
            try:
                for content in self._decoded(member):
                    self._compare(member.where, content)
            except (OSError, *DAMAGE) as error:
                if isinstance(error, GradbenchError):
                    raise
                reason = " ".join(str(error).split()) or type(error).__name__
                told = self.faults if type(error) is ValueError else self.damage
                told.append(f"{member.where!r} cannot be used: {reason}")
            if not self.missing:
                return

    def _decoded(self, member: Member) -> Iterator[Content]:
        with member.open() as opened:
            file, packed = unzipped(opened)
            head = read_fully(file, HEAD)
            size = None if packed else member.size
            self.archives += is_archive(head)
            for kind in FORMATS:
                most = kind.most(head, size)
                if most is None:
                    continue
                most = min(most, _MOST)
                if size is None or size <= most:
                    head += read_fully(file, most + 1 - len(head))
                    size = len(head)
                if size > most:
                    raise ValueError(f"it unpacks to more than {most} bytes")
                yield from kind.read(head)
                return

    def _compare(self, where: str, content: Content) -> None:
        """Keep what is a part, and remember what is like one."""
        known = {part.digest: part for part in self.parts}
        kinds: dict[tuple[int, Any], frozenset[str]] = {}
        for part in self.missing:
            key = (part.rows, part.shape)
            kinds[key] = kinds.get(key, frozenset()) | {part.name}
        for (rows, shape), names in kinds.items():
            for block in _blocks(content, rows, shape):
                found = [(one, digest_of(one)) for one in _readings(block, shape)]
                parts = {known[d].name: one for one, d in found if d in known}
                if found and not parts.keys() - self.found.keys():
                    first, digest = found[0]
                    whole = len(block) == len(content)
                    self.likenesses.append(_Likeness(where, size_of(first), digest, names, whole))
                self.found |= parts

    def error(self, name: str, path: Path) -> GradbenchError:
        """Return the sentence about what is missing, with the digests that are and should be."""
        first, *others = sorted(self.missing, key=lambda part: not self._likeness(part))
        like, wanted = self._likeness(first), f"{first.name} {first.size} of {name!r}"
        if self.damage:
            said = f"{self.damage[0]}, and {wanted} with the digest {short(first.digest)} is in no "
            said += "other file"
        elif like:
            said = f"{wanted} has the digest {short(first.digest)}, but {like.where!r} {like.size} "
            said += f"has {short(like.digest)}"
        else:
            said = f"{str(path)!r} holds nothing like {wanted}"
        if others:
            said += f", and {len(others)} more part{'s are' if others[1:] else ' is'} missing"
        said += "; nothing is added, give the data as they are published"
        unclear = not self.damage and not all(map(self._likeness, self.missing))
        lines = self.faults[:_MOST_TOLD] if unclear else []
        if unclear and self.archives:
            lines = [*lines, "archives inside of it were not looked into: unpack it first"]
        return GradbenchError("\n".join([said, *lines]))

    def _likeness(self, part: Part) -> _Likeness | None:
        """Return what may have been meant for a part: best of its size, and not a piece."""
        like = [one for one in self.likenesses if part.name in one.parts]
        return min(like, key=lambda one: (one.size != part.size, not one.whole), default=None)


def read_fully(file: io.BufferedIOBase, size: int) -> bytes:
    """Return so many bytes, fewer only at the end of the file."""
    parts = []
    while size > 0 and (data := file.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _blocks(content: Content, rows: int, shape: tuple[int, ...] | None) -> Iterator[Content]:
    """Yield the runs of so many rows, as all batches in one array are; what is shorter is one."""
    if isinstance(content, list):
        if shape is None:
            yield content
        return
    if shape is None or content.ndim == 0 or content.size != len(content) * int(np.prod(shape)):
        return
    if len(content) < rows:
        yield content
    for first in range(0, len(content) - rows + 1, rows):
        yield content[first : first + rows]


def _readings(content: Content, shape: tuple[int, ...] | None) -> Iterator[Content]:
    """Yield a block as bytes of the shape of a part, with its channels last and first."""
    if isinstance(content, list) or shape is None:
        yield content
        return
    data = _as_bytes(content)
    if data is None:
        return
    yield data.reshape(-1, *shape)
    if len(shape) == 3:
        height, width, channels = shape
        yield np.moveaxis(data.reshape(-1, channels, height, width), 1, -1)


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return an array of whole numbers from 0 to 255 as bytes, None of any other."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(invalid="ignore"):
        data = array.astype(np.uint8)
    return data if (data == array).all() else None

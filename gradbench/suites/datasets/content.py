"""What files hold once they are decoded, arrays and documents, and the digest of each."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# An array of numbers, or documents: the class of each, a tab and its words.
Content: TypeAlias = NDArray[Any] | list[str]


class Part(NamedTuple):
    """A part of a data set: its ``name``, the ``shape`` of the decoded array and its ``digest``.

    ``shape`` is [n, ...] of an array of bytes, and ``None`` of documents, of which ``rows`` says
    the number in both cases.
    """

    name: str
    rows: int
    shape: tuple[int, ...] | None
    digest: str

    @property
    def size(self) -> str:
        """The size in words, as "[60000, 28, 28]" or "11293 documents"."""
        return said(None if self.shape is None else (self.rows, *self.shape), self.rows)


def digest_of(content: Content) -> str:
    """Return the digest of an array, with its shape and type, or of documents: SHA-256 in hex."""
    if isinstance(content, list):
        return hashlib.sha256("\n".join(content).encode()).hexdigest()
    facts = f"{content.dtype.str}{content.shape}".encode()
    return hashlib.sha256(facts + np.ascontiguousarray(content).tobytes()).hexdigest()


def digest_of_all(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the digest of several arrays with their names, SHA-256 in hex."""
    lines = [f"{name} {digest_of(array)}" for name, array in sorted(arrays.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def size_of(content: Content) -> str:
    """Return the size of a content in words."""
    if isinstance(content, list):
        return said(None, len(content))
    return said(content.shape, 0)


def said(shape: tuple[int, ...] | None, documents: int) -> str:
    """Return a shape in words, or the number of documents where there is none."""
    return f"{documents} documents" if shape is None else f"[{', '.join(map(str, shape))}]"


def short(digest: str) -> str:
    """Return the beginning of a digest, by which sentences tell it from others."""
    return digest[:16]

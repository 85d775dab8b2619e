"""Arrays of numpy; an npz is an archive of these."""

import io

from gradbench.core.npy import MAGIC, read_npy
from gradbench.suites.datasets.content import Content

MOST = 2**28  # bytes of an array: 60000 images of CIFAR-10 have 184 million


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that a file which begins like this may have, None where it is no npy."""
    return MOST if head.startswith(MAGIC) else None


def read(data: bytes) -> list[Content]:
    """Return the array of a file.

    Raises:
        ValueError: it is not one of numbers, or not as large as its header says.
    """
    return [read_npy(io.BytesIO(data), MOST)]

"""Classes as a JSON list of whole numbers."""

import json
import re

import numpy as np

from gradbench.suites.datasets.content import Content

_MOST = 2**22
_BEGIN = re.compile(rb"\s*\[\s*\d{1,3}\s*[,\]][\s\d,\]]*")


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that such a file may have, None where it begins otherwise."""
    return _MOST if _BEGIN.fullmatch(head) else None


def read(data: bytes) -> list[Content]:
    """Return classes [n].

    Raises:
        ValueError: it is no list of numbers from 0 to 255.
    """
    found = json.loads(data)
    if not all(type(number) is int and 0 <= number <= 255 for number in found):
        raise ValueError("it is no list of whole numbers from 0 to 255")
    return [np.array(found, np.uint8)]

"""Documents as text: on each line a class, a tab and words of small letters."""

import re

from gradbench.suites.datasets.content import Content

_MOST = 2**26
_LINE = re.compile(r"[\w.-]+\t *[a-z]+(?: +[a-z]+)* *")
_BEGIN = re.compile(r"(?:Category\tText\nd\tstring\nclass\t *\n\s*)?[\w.-]+\t *[a-z]+ ")
_HEADER = ("Category\tText", "d\tstring", "class")  # of files made for Orange


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that such a file may have, None where it begins otherwise."""
    return _MOST if _BEGIN.match(head.decode("ascii", "replace").replace("\r\n", "\n")) else None


def read(data: bytes) -> list[Content]:
    """Return the documents, each as its class, a tab and its words with one space between.

    Raises:
        ValueError: a line is none.
    """
    lines = [line.strip() for line in data.decode("ascii").splitlines()]
    if tuple(lines[:3]) == _HEADER:
        lines = lines[3:]
    found: list[str] = []
    for number, line in enumerate(filter(None, lines), start=1):
        if not _LINE.fullmatch(line):
            raise ValueError(f"its document {number} is not a class, a tab and small letters")
        kind, _, words = line.partition("\t")
        found.append(f"{kind}\t{' '.join(words.split())}")
    return [found]

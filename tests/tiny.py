"""Suites that a test can run in a second, in a folder of its own, and what is compared of runs."""

import hashlib
from pathlib import Path

import numpy as np

from gradbench.results.store import Results

PROBLEM = """\
title = "A tiny problem"

[data]
name = "overlapping_classes"
points = 8

[network]
hidden = [2]
noise = "logistic"
states = [0, 1]
objective = "logistic_loss"
initialisation = "normalised"

[training]
estimator = "reinforce"
rate = 0.05
momentum = 0.9
batch = 4
checkpoints = [0, 10]
"""

# 71 draws are 35 blocks of two and one of a single draw.
SUITE = """\
title = "A tiny suite"
problems = ["tiny.toml"]
estimators = ["reinforce", "arm", "straight_through", "psa"]
draws = 71
averages = [3, 10]
"""


def write(folder: Path, suite: str = SUITE, **problems: str) -> Path:
    """The path of a suite in a folder, with its problems, `tiny` unless others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (problems or {"tiny": PROBLEM}).items():
        (folder / f"{name}.toml").write_text(content)
    (folder / "suite.toml").write_text(suite)
    return folder / "suite.toml"


def changed(text: str, *replacements: tuple[str, str]) -> str:
    """A text with parts of it replaced, each of which must be there."""
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


def numbers(directory: Path) -> dict[tuple, list]:
    """Every bit of the blocks that are stored, by cell."""
    return {
        (*cell.place, cell.estimator): [
            (block.index, *(np.asarray(x).tobytes() for layer in block.layers for x in layer))
            for block in cell.load()[1]
        ]
        for cell in Results.open(directory).cells()
    }


def files(directory: Path) -> dict[str, tuple]:
    """Content and time of every file of a directory, but for locks: some filelocks touch them."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def damage(path: Path) -> None:
    """Inverts the middle of a file, its length kept."""
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 3, 2 * len(data) // 3)
    data[middle] = bytes(255 - byte for byte in data[middle])
    path.write_bytes(data)

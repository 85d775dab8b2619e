"""What the tests of files, shards and results share: blocks, and comparisons."""

import numpy as np
from hypothesis import strategies as st

from gradbench.blocks import BINS, Block, LayerBlock
from gradbench.shards import Place

PLACE = Place("psa", 0, "100")
META = {"block": 4, "averages": [1, 2], "head_sizes": [3]}
FLOATS = st.floats(allow_infinity=False, allow_nan=False, allow_subnormal=True)


def block(index, layers=2, seed=0):
    generator = np.random.default_rng([index, seed])
    return Block(
        index,
        tuple(
            LayerBlock(
                4,
                generator.standard_normal(3),
                generator.random(3),
                generator.standard_normal((1, 3)),
                np.array([4, 2]),
                generator.random(2),
                generator.random(2),
                generator.poisson(0.1, (2, BINS)),
            )
            for _ in range(layers)
        ),
    )


def contents(directory):
    """The bytes of all files below a directory, by relative path."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def damaged(content, data):
    """The bytes of a file, one of them changed by Hypothesis or the rest cut off."""
    offset = data.draw(st.integers(0, len(content) - 1))
    flipped = content[offset] ^ data.draw(st.integers(1, 255))
    cut = data.draw(st.booleans())
    return content[:offset] + (b"" if cut else bytes([flipped]) + content[offset + 1 :])


def assert_same_blocks(left, right):
    assert [b.index for b in left] == [b.index for b in right]
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a.layers, b.layers, strict=True):
            for name, u, v in zip(LayerBlock._fields, x, y, strict=True):
                assert np.shape(u) == np.shape(v), name
                assert np.asarray(u).tobytes() == np.asarray(v).tobytes(), name


def assert_one_sentence(error, *parts):
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    for part in parts:
        assert str(part) in text

"""What the tests of files, shards, results and metrics share: blocks, and comparisons."""

from unittest import mock

import numpy as np
from hypothesis import strategies as st

from gradbench.measure.blocks import BINS, ROUNDING, Block, LayerBlock
from gradbench.metrics import Measurement
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results

PLACE = CheckpointId("psa", 0, "100")
META = {"block": 4, "averages": [1, 2], "head_sizes": [3]}
FLOATS = st.floats(allow_infinity=False, allow_nan=False, allow_subnormal=True)


def suite(name="psa", **more):
    """What the manifest of a small suite has."""
    problem = {"name": name, "title": name, "base": name, "label": None, "training": None}
    return {
        "name": name,
        "title": f"The suite {name}",
        "problems": [problem],
        "estimators": ["psa", "reinforce"],
        "draws": 100,
        "averages": [],
        "replicates": 1,
        "dtype": "float64",
        "figure": "accuracy",
        "by": None,
    } | more


def block(index, layers=2, seed=0, network=True):
    """A block of random numbers, as a measurement of several layers would store it."""
    generator = np.random.default_rng([index, seed])

    def layer(size):
        return LayerBlock(
            4,
            generator.standard_normal(size),
            generator.random(size),
            generator.standard_normal((1, size)),
            np.array([4, 2]),
            generator.random(2),
            generator.random(2),
            generator.poisson(0.1, (2, BINS)),
            generator.random(2),
            generator.random(2),
        )

    return Block(index, tuple(layer(3) for _ in range(layers)), layer(0) if network else None)


def statistics(draws, gradient, averages=(), heads=()):
    """The statistics of a block of draws [n, P] of one layer, in plain NumPy."""
    rows = [_directions(draws, gradient, average) for average in averages]
    cosines, signs = ([row[k] for row in rows] for k in (0, 1))
    mean = draws.mean(0)
    return LayerBlock(
        count=len(draws),
        mean=mean,
        m2=((draws - mean) ** 2).sum(0),
        heads=np.array([draws[:r].sum(0) for r in heads]).reshape(len(heads), len(mean)),
        groups=np.array([len(c) for c in cosines]),
        cosine=np.array([c.sum() for c in cosines]),
        cosine_sq=np.array([c @ c for c in cosines]),
        histogram=np.array(
            [np.histogram(np.arccos(c), BINS, (0, np.pi))[0] for c in cosines]
        ).reshape(len(averages), BINS),
        signs=np.array([s.sum() for s in signs]),
        signs_sq=np.array([s @ s for s in signs]),
    )


def _directions(draws, gradient, average):
    """Cosine and agreement of signs of the means of groups."""
    groups = len(draws) // average
    means = draws[: groups * average].reshape(groups, average, len(gradient)).mean(1)
    lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(gradient)
    cosine = np.divide(means @ gradient, lengths, np.zeros(groups), where=lengths > 0)
    known = np.abs(gradient) > ROUNDING * np.abs(gradient).max(initial=0.0)
    agree = (np.sign(means) == np.sign(gradient))[:, known]
    return np.clip(cosine, -1, 1), agree.sum(1) / max(known.sum(), 1)


def drawn(draws, gradient, size=64, averages=(1, 4), heads=(), long=(), **more):
    """The cell that these draws give: [N, P] of one layer and its gradient [P], or a list of each.

    Several layers have the groups of the network too, as ``measure`` stores them.
    """
    if isinstance(draws, np.ndarray):
        draws, gradient = [draws], [gradient]
    several = len(draws) > 1
    rows, whole = np.concatenate(draws, axis=1), np.concatenate(gradient)
    blocks = []
    for index, start in enumerate(range(0, len(rows), size)):
        cut = slice(start, start + size)
        layers = zip(draws, gradient, strict=True)
        network = statistics(rows[cut], whole, averages, heads)
        network = network._replace(
            mean=np.zeros(0), m2=np.zeros(0), heads=np.zeros((len(heads), 0))
        )
        parts = tuple(statistics(layer[cut], g, averages, heads) for layer, g in layers)
        blocks.append(Block(index, parts, network if several else None))
    names = [f"layer {n + 1}" for n in range(len(draws))]
    return Measurement(
        **{"problem": "toy", "replicate": 0, "checkpoint": "epoch 100", "estimator": "psa"}
        | {"layer_names": names, "blocks": blocks, "gradient": gradient, "averages": averages}
        | {"head_sizes": heads, "block_size": size, "long_averages": long}
        | more
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


def as_bytes(block):
    """Every bit of a block, its network last."""
    layers = block.layers if block.network is None else (*block.layers, block.network)
    return [np.asarray(field).tobytes() for layer in layers for field in layer]


def assert_same_blocks(left, right):
    assert [b.index for b in left] == [b.index for b in right]
    for a, b in zip(left, right, strict=True):
        assert (a.network is None) == (b.network is None)
        assert len(a.layers) == len(b.layers)
        for x, y in zip((*a.layers, a.network), (*b.layers, b.network), strict=True):
            for name, u, v in zip(LayerBlock._fields, x or (), y or (), strict=bool(x)):
                assert np.shape(u) == np.shape(v), name
                assert np.asarray(u).tobytes() == np.asarray(v).tobytes(), name


def assert_one_sentence(error, *parts):
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    for part in parts:
        assert str(part) in text


RUN_META = {
    "draws": 64,
    "block": 16,
    "averages": [1, 4],
    "head_sizes": [8],
    "larger": [24, 32],
    "layer_names": ["layer 1", "output"],
}


def write_run(
    directory,
    seed=0,
    problems=("a", "b"),
    replicates=2,
    checkpoints=(1, 30),
    draws=64,
    names=None,
    estimators=("psa", "reinforce"),
):
    """A finished run with random numbers in files of every kind, without JAX and its provenance."""
    training = {"checkpoints": list(checkpoints)}
    several = [suite(name)["problems"][0] | {"training": training} for name in problems]
    more = {"draws": draws, "replicates": replicates, "estimators": list(estimators)}
    content = suite("several", problems=several, **more)
    with (
        mock.patch("gradbench.results.manifest.provenance", lambda: {"device": "cpu"}),
        Results.open_or_create(
            directory, content, seed, draws, {"psa": "psa"}, names=names
        ) as results,
    ):
        for place in places_of(results):
            _write_place(results, place, draws)
    return directory


def places_of(results):
    """The places of a run."""
    content = results.manifest["suite"]
    return [
        CheckpointId(problem["name"], replicate, f"epoch {epoch}")
        for problem in content["problems"]
        for replicate in range(content["replicates"])
        for epoch in problem["training"]["checkpoints"]
    ]


def _write_place(results, place, draws):
    generator = np.random.default_rng(list("/".join(map(str, place)).encode()))
    results.save_checkpoint(place, [{"weight": generator.random((2, 3))}, ()])
    gradient = [generator.standard_normal(size) for size in (3, 2)]
    agreement = {"finite difference": 1e-9, "brute force": 1e-12}
    info = {"route": "layers", "agreement": agreement}
    results.save_reference(place, generator.random(), gradient, info)
    for spec in results.manifest["suite"]["estimators"]:
        samples = [g + generator.standard_normal((draws, len(g))) for g in gradient]
        blocks = drawn(samples, gradient, size=16, heads=[8]).blocks
        results.cell(*place, spec).append(blocks, RUN_META | {"draws": draws})
        results.save_moments(place, spec, gradient, [np.ones_like(g) for g in gradient])
        cost = {"seconds": generator.random(), "spread": 0.2, "repeats": 9, "latency": 1.0}
        cost |= {"evaluations": 2, "latency_spread": 0.0, "machine": "cpu, 2 cores"}
        results.save_cost(place, spec, cost)

"""The noise of a reference, computed without rows as large as the reference: it is that of rows."""

import numpy as np
import pytest

from gradbench.measure.blocks import Blocks
from gradbench.metrics.reference_noise import Noise, trace_of_square


@pytest.mark.parametrize("coordinates", [3, 40])
def test_the_noise_of_a_part_is_that_of_its_rows(coordinates):
    rng = np.random.default_rng(1)
    means = rng.normal(size=(9, coordinates)) * np.geomspace(1, 9, coordinates)
    counts = np.array([16.0] * 8 + [5.0])
    noise = Noise.of(Blocks(counts, means, np.ones_like(means)))
    unit = rng.normal(size=coordinates)
    unit /= np.linalg.norm(unit)
    rows = 0.7 * (noise.deviations - np.outer(noise.deviations @ unit, unit))
    made, turned = Noise(rows, (rows**2).sum(0)), noise.turned(unit, 0.7)
    assert turned.variances == pytest.approx(made.variances)
    assert turned.trace == pytest.approx(made.trace)
    other, slopes = rng.normal(size=(5, coordinates)), rng.normal(size=(coordinates, 2))
    assert turned.shared(other) == pytest.approx(made.shared(other))
    assert turned.moved(slopes) == pytest.approx(made.moved(slopes))
    for one in (noise, made, turned):
        of = noise if one is noise else made
        expected = trace_of_square(of.deviations * np.sqrt(of.dof), 1.0, of.variances)
        assert one.square == pytest.approx(expected)
    assert noise.largest == pytest.approx(np.linalg.norm(noise.deviations, 2) ** 2)


def test_what_blocks_add_to_a_variance_sums_to_it():
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(6, 16, 4))
    means = draws.mean(1)
    blocks = Blocks(np.full(6, 16.0), means, ((draws - means[:, None]) ** 2).sum(1))
    total, squares = blocks.additions
    whole = ((draws - draws.mean((0, 1))) ** 2).sum((0, 1))
    assert total == pytest.approx(whole / 96**2)
    each = ((draws - draws.mean((0, 1))) ** 2).sum(1) / 96**2
    assert squares == pytest.approx((each**2).sum(0))

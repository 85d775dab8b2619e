"""A few draws of each candidate before a long run: its time, its noise, and what they predict."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.run import sites_of
from gradbench.estimators import get_estimator, make_estimator
from gradbench.estimators.exactness import EXACTNESS
from gradbench.measure.blocks import Blocks
from gradbench.measure.cell import Cell, prepare
from gradbench.measure.draws import make_plan
from gradbench.measure.timing import Timed, time_draws

# One of each kind, as each is compiled: a baseline from the batch, one from other samples, flips of
# one, some and all units, and, for the models that they are made for, PSA and VIMCO. None of them
# has anything to learn or needs the derivative of the objective.
CANDIDATES = (
    "reinforce_leave_one_out",
    "rloo(samples=4)",
    "disarm",
    "arms(samples=4)",
    "ram",
    "psa",
    "vimco",
)
DRAWS = 256  # of each candidate
_SECONDS = 0.1  # that each is timed for, all in turns


class Pilot(NamedTuple):
    """The prediction of how long a reference by an ``estimator``, a spec, would take.

    ``draws`` is the number predicted to reach the relative standard error that is asked for in
    every layer, at ``seconds_per_draw``, and ``seconds`` is the time of all of them.
    """

    estimator: str
    seconds_per_draw: float
    draws: float
    seconds: float


def unbiased_cell(
    spec: str, model: Model, params: Params, batch: Batch, *, key: Array, fit_key: Array
) -> Cell:
    """Return an unbiased estimator of a model, ready to be drawn.

    Raises:
        GradbenchError: the estimator is unknown, not unbiased, or does not take the model.
    """
    entry, arguments = get_estimator(spec)
    claim = entry.claim(**arguments)
    if claim == "exact":
        raise GradbenchError(f"estimator {spec!r} draws nothing; give method='exact' for it")
    layers = len(sites_of(model, params, batch))
    if claim != "unbiased" and not (claim == "one layer" and layers == 1):
        raise GradbenchError(
            f"estimator {spec!r} is exact for {EXACTNESS[claim]}, and the sampled reference of "
            f"a model of {layers} layer{'s' * (layers != 1)} needs one that is unbiased; take "
            "another one, such as 'rloo(samples=4)'"
        )
    loss = make_estimator(spec, model)
    return prepare(loss, params, batch, key=key, fit_key=fit_key, name=repr(spec))


def compare_candidates(
    cells: Mapping[str, Cell], rel_se: float, call: int, least: int
) -> tuple[Pilot, ...]:
    """Return the predicted time of each candidate, the quickest first.

    So few draws may not determine the norm of the gradient. The norm is common to all candidates,
    so that an error of it changes no order but the one between layers. For each layer it is taken
    from the candidate of the least variance, and is at least the noise of that.

    Args:
        cells: the candidates, by spec.
        rel_se: the relative standard error to be reached in every layer.
        call: draws of a call of compiled code.
        least: draws that a long run makes at least.

    Raises:
        GradbenchError: a draw is not finite.
    """
    plan = make_plan(DRAWS)._replace(block=call)
    noises, squares = [], []
    for cell in cells.values():
        _, *parts = zip(*cell.moments(range(0, DRAWS, call), call), strict=True)
        layers = [Blocks.stack([block for blocks in layer for block in blocks]) for layer in parts]
        noise = np.array([layer.variances().sum() for layer in layers])
        noises.append(noise)
        squares.append([np.sum(layer.mean() ** 2) for layer in layers] - noise)
    spread = np.array(noises)
    quietest = (spread.argmin(0), np.arange(spread.shape[1]))
    square = np.maximum(np.array(squares)[quietest], spread[quietest])
    times = time_draws([Timed(cell, plan) for cell in cells.values()], _SECONDS, latency=False)
    # The noise is that of the mean of the pilot's draws.
    needed = np.divide(spread, square, out=np.zeros_like(spread), where=square > 0)
    draws = np.maximum(needed.max(1) * DRAWS / rel_se**2, least)
    rows = [
        Pilot(spec, time.seconds, float(count), float(time.seconds * count))
        for spec, time, count in zip(cells, times, draws, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: row.seconds))

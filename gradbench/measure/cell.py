"""One driver for all measurements: an estimator at fixed parameters and data, ready to be drawn.

Suites, recommendations, diagnoses and sampled references take the same steps, and take them here:

    cell = prepare(loss, params, batch, key=key, fit_key=fit_key, name="'psa'")  # shapes, fit
    moments = cell.exact_moments(work)              # where they can be had within a limit of work
    plan = cell.plan(draws)                         # how the draws are cut into blocks
    for block in cell.blocks(gradient, plan): ...   # measured as they are asked for, all finite
    cost = cell.cost(spec, model)                   # of one draw, in evaluations

How long a draw takes is measured apart, of all cells in turns: ``gradbench.measure.timing``.
``Cell.measured`` collects what ``gradbench.metrics.Measurement.stored`` is made from.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.atomic import Floats
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import is_finite as all_finite
from gradbench.core.programs import parts
from gradbench.core.pytrees import layer_names, layers_of
from gradbench.core.run import sites_of
from gradbench.estimators.adaptive import fitted
from gradbench.estimators.registry import evaluations
from gradbench.measure.blocks import Block, Moments, is_finite
from gradbench.measure.draws import (
    BLOCKS,
    Plan,
    chunk_of,
    draw,
    draw_block,
    layer_moments,
    make_plan,
    measure,
)

REMEDY = "check the objective at all states that the units can take"
LayerMoments = tuple[tuple[Floats, Floats], ...]  # exact mean [P] and variance [P] of each layer


class MeasuredCell(NamedTuple):
    """The measurement of a cell; the fields are arguments of ``Measurement.stored``.

    ``meta`` holds the constants of the cell: its plan and the names of its layers. ``moments`` are
    the exact mean and variance of a draw, for each layer, or None. ``cost`` is the price of a draw,
    see ``Cell.cost``; its time is added where it is measured.
    """

    meta: dict[str, Any]
    blocks: list[Block]
    moments: LayerMoments | None
    cost: dict[str, float]


class Cell(NamedTuple):
    """An estimator at fixed parameters and data: what its draws depend on.

    Draw i is ``jax.grad(loss)(params, fold_in(key, i), batch)``. ``name`` stands for the estimator
    in sentences, such as "'psa' at 'quick/0/epoch 1'", and ``remedy`` says what to do where its
    draws are not finite.
    """

    loss: Loss
    params: Params
    batch: Batch
    key: Array
    name: str = "the loss"
    remedy: str = REMEDY

    def cast(self, dtype: str) -> "Cell":
        """Return the cell with real parameters and data of a type, such as "float32"."""

        def cast(leaf: Any) -> Array:
            known = jnp.result_type(leaf)
            return jnp.asarray(leaf, dtype if jnp.issubdtype(known, jnp.floating) else known)

        params, batch = jax.tree.map(cast, (self.params, self.batch))
        return self._replace(params=params, batch=batch)

    def plan(self, draws: int, averages: Sequence[int] = (), blocks: int = BLOCKS) -> Plan:
        """Return how so many draws are cut into blocks, see ``make_plan``."""
        return make_plan(draws, averages, coordinates_of(self.params), blocks)

    def meta(self, plan: Plan) -> dict[str, Any]:
        """Return the constants that are stored with the blocks: the plan and the layers."""
        return {**plan._asdict(), "layer_names": layer_names(self.params)}

    def exact_moments(self, work: float) -> LayerMoments | None:
        """Return the exact mean and variance of a draw per layer, None where they are much work.

        To be called inside ``float64()``. ``work`` is the most that it may take, in draws of one
        example.

        Raises:
            GradbenchError: they are not finite.
        """
        found = layer_moments(self.loss, self.params, self.batch, work)
        exact: LayerMoments | None = jax.tree.map(np.asarray, found)
        if not all_finite(exact):
            raise self.not_finite()
        return exact

    def cost(self, spec: str, model: Model, *, chain: bool = True) -> dict[str, float]:
        """Return the cost of a draw that is counted: its "evaluations" per example.

        ``spec`` and ``model`` are what the estimator was made from; ``chain`` says whether the
        model is one, see ``gradbench.core.contract.is_chain``.
        """
        units = [site.size for site in sites_of(model, self.params, self.batch)]
        return {"evaluations": evaluations(spec, units, chain)}

    def blocks(
        self, gradient: Params, plan: Plan, numbers: Iterable[int] | None = None
    ) -> Iterator[Block]:
        """Yield the blocks of a plan, or those of these ``numbers``, as they are measured.

        Args:
            gradient: the true gradient, with the structure of the parameters.
            plan: how the draws are cut.
            numbers: of the blocks to measure, such as those that are not stored yet.

        Raises:
            GradbenchError: a block is not finite.
        """
        measured = measure(self.loss, self.params, self.batch, gradient, self.key, plan, numbers)
        for block in measured:
            if not is_finite(block):
                raise self.not_finite()
            yield block

    def measured(
        self,
        gradient: Params,
        plan: Plan,
        numbers: Iterable[int] | None = None,
        *,
        moments: LayerMoments | None = None,
        cost: dict[str, float] | None = None,
    ) -> MeasuredCell:
        """Measure blocks, as ``blocks`` does, and return them with all that is known of the cell.

        Raises:
            GradbenchError: a block is not finite.
        """
        blocks = list(self.blocks(gradient, plan, numbers))
        return MeasuredCell(self.meta(plan), blocks, moments, cost or {})

    def draws(self, numbers: range) -> Iterator[tuple[Array, tuple[Array, ...]]]:
        """Yield the values [n] and, for each layer, the gradients [n, P] of n draws at a time.

        ``numbers`` are those of the first draw of each call of compiled code; n is its step, a
        power of two. Draws may not be finite.
        """
        size = numbers.step
        chunk = chunk_of(self.loss, self.params, self.batch, size)
        for first in numbers:
            yield draw_block(
                self.loss, size, chunk, self.params, self.batch, self.key, np.uint32(first)
            )

    def moments(self, numbers: range, size: int) -> Iterator[list[list[Moments]]]:
        """Yield the moments of ``draws``, in blocks of ``size``: of the values, then per layer.

        To be called inside ``float64()``.

        Raises:
            GradbenchError: a draw is not finite.
        """
        for values, gradients in self.draws(numbers):
            found = [np.asarray(rows) for rows in (values[:, None], *gradients)]
            if not all(np.isfinite(rows).all() for rows in found):
                raise self.not_finite()
            pieces = [rows.reshape(-1, min(size, len(rows)), rows.shape[1]) for rows in found]
            yield [[Moments.of(rows) for rows in blocks] for blocks in pieces]

    def not_finite(self) -> GradbenchError:
        """Return the error for draws that are not finite."""
        return GradbenchError(f"draws of {self.name} are not finite; {self.remedy}")


def prepare(
    loss: Loss,
    params: Params,
    batch: Batch,
    *,
    key: Array,
    fit_key: Array,
    name: str,
    remedy: str = REMEDY,
) -> Cell:
    """Return the cell of an estimator, whose gradient has been checked and learned parts fitted.

    Args:
        loss: an estimator; one with learned parts is fitted at ``params`` and frozen.
        params: the parameters.
        batch: examples along the first axis of its leaves.
        key: of the draws.
        fit_key: of the fit.
        name: of the estimator, in sentences.
        remedy: what to do where its draws are not finite.

    Raises:
        GradbenchError: the estimator does not take the model. Only shapes are computed before.
    """
    make, numbers = parts(loss)
    jax.eval_shape(partial(draw, make), numbers, params, key, batch)
    return Cell(fitted(loss, params, fit_key, batch), params, batch, key, name, remedy)


def coordinates_of(params: Params) -> int:
    """Return the number of coordinates of a gradient, over all layers."""
    return sum(leaf.size for _, leaves in layers_of(params) for leaf in leaves)

"""How good the gradient in use is, asked from inside a training loop."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.blocks import Blocks, is_finite
from gradbench.counterpart import UNBIASED, counterpart
from gradbench.errors import GradbenchError
from gradbench.estimators import make_estimator
from gradbench.estimators.registry import at_least, get_estimator
from gradbench.exact import Reference, is_small, route_of
from gradbench.measure import (
    chunk_of,
    draw_block,
    from_vectors,
    layer_names,
    layer_vectors,
    make_plan,
    measure,
)
from gradbench.metrics import METRICS, Cell, LayerMetrics
from gradbench.metrics import layers_of as metrics_of
from gradbench.model import Batch, Loss, Model, Params
from gradbench.parameters import closed
from gradbench.precision import float64
from gradbench.table import digits
from gradbench.text import aligned
from gradbench.uniforms import check_key

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 64
REFERENCE_DRAWS = 256
_BLOCKS = 32
_WORK = 1e8  # multiply-adds of an enumeration that is cheaper than so many draws
_SHOWN = ("bias", "std", "cosine", "descent_probability")


@dataclass(frozen=True)
class Diagnosis:
    """Bias, variance and direction of one draw of an estimator, per layer.

    ``layers`` maps the name of each layer, and "network" where there are several, to its metrics:
    ``found.layers["layer 1"].estimate("cosine")`` has ``value``, ``se``, ``low`` and ``high``, a 95
    % interval. All are relative to the norm of the true gradient of the layer; those of a layer
    whose gradient cannot be told from zero are NaN. ``truth`` says what they are compared with.
    """

    layers: Mapping[str, LayerMetrics]
    draws: int
    truth: str
    seconds: float  # that it took, compilation included

    def scalars(self) -> dict[str, float]:
        """Every metric as a number for a logger: {"layer 1/bias": 0.12, "layer 1/std": ...}."""
        return {
            f"{layer}/{name}": found.estimate(name).value
            for layer, found in self.layers.items()
            for name in METRICS
        }

    def frame(self) -> "pd.DataFrame":
        """A row per layer: every metric of one draw, with ``_se``, ``_low`` and ``_high``."""
        import pandas as pd

        return pd.DataFrame([{"layer": name} | found.row(1) for name, found in self.layers.items()])

    def __str__(self) -> str:
        rows = [
            [layer, *(digits(*found.estimate(name)[:2]) for name in _SHOWN)]
            for layer, found in self.layers.items()
        ]
        head = ["layer", *(METRICS[name].title for name in _SHOWN)]
        source = f"{self.draws} draws against {self.truth}, in {self.seconds:.2g} s"
        return "\n".join([*aligned([head, *rows], right=1), source])


def diagnose(
    loss: Loss,
    params: Params,
    batch: Batch,
    key: Array | None = None,
    *,
    draws: int = DRAWS,
    reference: Reference | None = None,
    unbiased: str | Loss | None = None,
    reference_draws: int = REFERENCE_DRAWS,
    by_example: bool = True,
) -> Diagnosis:
    """Bias, variance, cosine and descent probability of the gradient in use, at these parameters.

    One call inside a training loop, every few hundred steps: the loss stays as it is. The truth is

    - ``reference``, where it is given (see ``gradbench.reference``);
    - for an estimator of ``gradbench.estimators``, the exact gradient where the model can be
      enumerated in about the time of the draws, else the mean of draws of ``unbiased``;
    - for a loss of your own that calls ``gradbench.binarize`` or ``gradbench.expectation``, the
      mean of draws of its unbiased counterpart: the same function with the score function, 4
      samples and their leave-one-out baseline in the place of ``binarize``. States are binary
      there: the truth of ``hard=False`` is that of the binary network.

    A sampled truth is noisy: every metric is corrected for that and has it in its interval. More
    ``reference_draws`` make it narrower, and help more than more ``draws`` where the bias matters.

    It costs ``draws`` gradients of the loss, and ``reference_draws`` of the unbiased one where the
    truth is not exact (``disarm``: L + 1 evaluations for L layers and one backward pass, about as
    long as a gradient of the loss; the counterpart: 8 evaluations), all vmapped. ``make bench``
    prints it in steps of training. The first call for a loss compiles, so that it has to be the
    same function each time.

    Args:
        loss: ``loss(params, key, batch) -> scalar``, whose JAX gradient is one draw.
        params: any pytree of real arrays; its layers are as ``gradbench.parameters`` says.
        batch: examples along the first axis of its leaves.
        key: of the draws.
        draws: of the estimator in use, at least 32.
        reference: the gradient that is known already, of the same parameters and batch.
        unbiased: an estimator without bias, as a spec ("disarm" unless given), or a loss as
            ``loss`` of which E grad is right.
        reference_draws: of a sampled truth, at least 64.
        by_example: whether the loss is the mean of the losses of its examples, so that the
            counterpart may run them one by one, with far less noise.

    Raises:
        GradbenchError: no key, too few draws, parameters that are not real, draws that are not
            finite, a loss of which the truth is not known, or one without noise.
    """
    begin = time.perf_counter()
    check_key(key)
    assert key is not None
    count = at_least(_BLOCKS, "draws", draws)
    _check_real(params)
    params, batch = closed(params, numbers=True), jax.tree.map(jnp.asarray, batch)
    own, other = jax.random.split(key)
    gradient, blocks, truth = _truth(
        loss, params, batch, other, reference, unbiased, reference_draws, by_example
    )
    vectors = layer_vectors(params)
    plan = make_plan(count, coordinates=sum(vector.size for vector in vectors))
    found = list(measure(loss, params, batch, gradient, own, plan))
    if not all(map(is_finite, found)):
        raise GradbenchError("draws of the loss are not finite; see where, with jax.debug_nans()")
    cell = Cell.stored(
        ("training", 0, "now"),
        "loss",
        {**plan._asdict(), "layer_names": layer_names(params)},
        found,
        [np.asarray(vector) for vector in layer_vectors(gradient)],
        reference=blocks,
    )
    layers = {layer.layer: layer for layer in metrics_of(cell)}
    return Diagnosis(layers, count, truth, time.perf_counter() - begin)


Truth = tuple[Params, tuple[Blocks, ...] | None, str]  # gradient, its blocks, in words


def _truth(
    loss: Loss,
    params: Params,
    batch: Batch,
    key: Array,
    reference: Reference | None,
    unbiased: str | Loss | None,
    draws: int,
    by_example: bool,
) -> Truth:
    """What the loss is compared with."""
    if reference is not None:
        words = "the exact gradient"
        if reference.samples:
            words = f"{reference.samples.draws} draws of {reference.samples.estimator}"
        return reference.gradient, reference.blocks, words
    model = getattr(loss, "model", None)
    if model is not None and unbiased is None and is_small(model, params, batch, work=_WORK):
        return _exact(model, params, batch), None, "the exact gradient"
    other, name = _unbiased(loss, model, unbiased, by_example)
    mean, blocks = _sampled(other, params, batch, key, draws)
    return mean, blocks, f"{blocks[0].draws} draws of {name}"


def _unbiased(
    loss: Loss, model: Model | None, unbiased: str | Loss | None, by_example: bool
) -> tuple[Loss, str]:
    """A loss with an unbiased gradient, the same object each time, and its name."""
    if callable(unbiased):
        return unbiased, getattr(unbiased, "__name__", "the unbiased loss")
    if model is None:
        if unbiased is not None:
            raise GradbenchError(
                f"unbiased is {unbiased!r}, and the loss is no estimator of gradbench.estimators, "
                "so that there is no model to make it of; give a loss"
            )
        return _counterpart(loss, by_example), "its unbiased counterpart"  # type: ignore[arg-type]
    spec = unbiased or UNBIASED
    entry, arguments = get_estimator(spec)
    if entry.claim(**arguments) != "unbiased":
        raise GradbenchError(f"unbiased is {spec!r}, which is not; take one such as {UNBIASED!r}")
    return _made(spec, model), spec


# What is compiled is kept by these objects: they have to be the same in each call.
_counterpart = lru_cache(counterpart)
_made = lru_cache(make_estimator)


@partial(jax.jit, static_argnums=0)
def _exact(model: Model, params: Params, batch: Batch) -> Params:
    return jax.grad(partial(route_of(model), model))(params, batch)


def _sampled(
    loss: Loss, params: Params, batch: Batch, key: Array, draws: int
) -> tuple[Params, tuple[Blocks, ...]]:
    """The mean of draws, with the structure of the parameters, and the moments of blocks."""
    size = at_least(2 * _BLOCKS, "reference_draws", draws) // _BLOCKS
    size = 1 << (size.bit_length() - 1)
    chunk = chunk_of(loss, params, batch, size)
    found = []
    for first in range(0, draws, size):
        _, gradients = draw_block(loss, size, chunk, params, batch, key, np.uint32(first))
        with float64():
            found.append([_moments(rows) for rows in gradients])
    blocks = tuple(
        Blocks(*(np.stack(part) for part in zip(*layer, strict=True)))
        for layer in zip(*found, strict=True)
    )
    if not all(np.isfinite(layer.means).all() for layer in blocks):
        raise GradbenchError("draws of the unbiased estimator are not finite; take another one")
    with float64():
        return from_vectors([layer.mean() for layer in blocks], params), blocks


@jax.jit
def _moments(rows: Array) -> tuple[Array, Array, Array]:
    """Number, mean and sum of squared deviations of some draws [n, P]; inside ``float64()``."""
    rows = rows.astype(float)
    mean = jnp.mean(rows, axis=0)
    return jnp.float64(len(rows)), mean, jnp.sum((rows - mean) ** 2, axis=0)


def _check_real(params: Params) -> None:
    """Refuses parameters that hold anything but real arrays, as far as they are arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise GradbenchError(
                f"the parameters hold {leaf.dtype} at {jax.tree_util.keystr(path)}; keep what is "
                "not trained out of them, by equinox.partition or flax.nnx.split"
            )

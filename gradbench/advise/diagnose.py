"""Diagnose the gradient in use, from inside a training loop."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.advise.truth import BLOCKS, check_options, find_truth
from gradbench.core.arguments import at_least
from gradbench.core.callables import check_loss
from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import check_data, check_finite, checked, refuse_traced
from gradbench.core.pytrees import closed, layer_vectors
from gradbench.core.text import aligned
from gradbench.measure.cell import Cell
from gradbench.measure.reference import Reference
from gradbench.measure.sample import as_estimator
from gradbench.metrics import METRICS, Estimate, Measurement, check_metrics, layers_of
from gradbench.metrics.intervals import digits
from gradbench.metrics.measurement import Sample
from gradbench.metrics.sampled_truth import known_with

if TYPE_CHECKING:
    import pandas as pd


DRAWS = 64
REFERENCE_DRAWS = 256
_SHOWN = ("bias", "std", "cosine", "descent_probability")


@dataclass(frozen=True)
class LayerDiagnosis:
    """A layer: the norm of its true gradient, and every metric of one draw relative to it.

    ``unknown`` says why there are no metrics, and what would do; it is empty where there are.
    """

    gradient_norm: float
    metrics: Mapping[str, Estimate]
    unknown: str = ""

    def estimate(self, metric: str) -> Estimate:
        """Return a metric by its name, see ``gradbench list metrics``.

        Raises:
            GradbenchError: there is no such metric.
        """
        check_metrics([metric])
        return self.metrics[metric]


@dataclass(frozen=True)
class Diagnosis:
    """Bias, variance and direction of one draw of an estimator, per layer.

    ``layers`` maps the name of each layer, and "network" where there are several, to its metrics:
    ``found.layers["layer 1"].estimate("cosine")`` has ``value``, ``se``, ``low`` and ``high``, the
    ends of a 95 % interval. All are relative to the norm of the true gradient of the layer, and NaN
    if that cannot be told from zero. ``truth`` says in words what the draws are compared with.
    """

    layers: Mapping[str, LayerDiagnosis]
    draws: int
    truth: str
    seconds: float  # taken by the diagnosis, compilation included

    def scalars(self) -> dict[str, float]:
        """Return every metric for a logger: {"layer 1/bias": 0.12, "layer 1/std": ...}."""
        return {
            f"{layer}/{name}": estimate.value
            for layer, found in self.layers.items()
            for name, estimate in found.metrics.items()
        }

    def frame(self) -> "pd.DataFrame":
        """Return a row per layer: every metric, with ``_se``, ``_low`` and ``_high``."""
        import pandas as pd

        rows = []
        for name, found in self.layers.items():
            row: dict[str, Any] = {"layer": name, "gradient_norm": found.gradient_norm}
            for metric, (value, se, low, high) in found.metrics.items():
                row |= {metric: value, f"{metric}_se": se}
                row |= {f"{metric}_low": low, f"{metric}_high": high}
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        rows = [
            [layer, *(_value_or_limit(name, found.metrics[name]) for name in _SHOWN)]
            for layer, found in self.layers.items()
        ]
        head = ["layer", *(METRICS[name].title for name in _SHOWN)]
        source = f"{self.draws} draws against {self.truth}, in {self.seconds:.2g} s"
        why = [f"{name}: {found.unknown}" for name, found in self.layers.items() if found.unknown]
        return "\n".join([*aligned([head, *rows], right=1), source, *why])


def _value_or_limit(metric: str, found: Estimate) -> str:
    """Return a metric as text: its value, or a limit where no more is known."""
    if metric == "bias" and found.low <= 0.0 < found.high:
        return f"< {found.high:.2g}"
    if metric == "descent_probability" and found.value == 1.0 and found.low < 1.0:
        return f"> {found.low:.2g}"
    return digits(found.value, found.se)


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
    """Return bias, variance, cosine and descent probability of the gradient in use.

    Call it inside a training loop, every few hundred steps; the loss stays as it is. The truth is

    - ``reference``, if it is given (see ``gradbench.reference``);
    - for an estimator of ``gradbench.estimators``, the exact gradient if the model can be
      enumerated in about the time of the draws, else the mean of draws of ``unbiased``;
    - for a loss of your own that calls ``gradbench.binarize`` or ``gradbench.expectation``, the
      mean of draws of its unbiased counterpart: the same function with the score function, 4
      samples and their leave-one-out baseline instead of ``binarize``. Its states are binary, so
      that the truth of ``hard=False`` is the gradient of the binary network. All randomness that
      depends on the parameters must come from these two functions, each call must have noise of its
      own, and the loss must be differentiable in the states and linear in the expectations.

    A sampled truth is noisy. Every metric is corrected for its noise and includes it in the
    interval. More ``reference_draws`` make intervals narrower; where the bias matters they help
    more than more ``draws``.

    The cost is ``draws`` gradients of the loss and, if the truth is sampled, ``reference_draws``
    gradients of the unbiased loss, all vmapped. One of ``disarm`` takes L + 1 evaluations for L
    layers and one backward pass, about as long as a gradient of the loss; one of the counterpart
    takes 8 evaluations. ``make bench`` prints the cost in training steps. Memory, while it runs, is
    some thousand times the size of the parameters, less for large models; nothing is kept. The
    first call for a loss compiles: pass the same function each time, because a new one is compiled
    again and stays in memory.

    With so few draws the intervals are rough: those of the cosine cover the truth in some 88 to 93
    % of cases instead of 95 % where draws are very skewed.

    Args:
        loss: ``loss(params, key, batch) -> scalar``, whose JAX gradient is one draw.
        params: any pytree of real arrays; ``gradbench.core.pytrees`` says what its layers are.
        batch: examples along the first axis of its leaves.
        key: of the draws.
        draws: of the gradient in use, at least 16.
        reference: the true gradient of the same parameters and batch, if it is known already.
        unbiased: an unbiased estimator, as a spec ("disarm" by default) or as a loss like ``loss``
            whose gradient has the right mean.
        reference_draws: of a sampled truth, at least 32.
        by_example: whether the loss is the mean of the losses of its examples. The counterpart may
            then run them one by one, with far less noise.

    Raises:
        GradbenchError: no key, too few draws, parameters that are not real, draws that are not
            finite, a loss whose truth is not known, or a loss without randomness.
    """
    begin = time.perf_counter()
    check_loss(loss)
    count = at_least(BLOCKS, "draws", draws)
    at_least(2 * BLOCKS, "reference_draws", reference_draws)
    if not isinstance(by_example, bool | np.bool_):
        raise GradbenchError(f"by_example is {by_example!r}; give True or False")
    check_options(loss, reference, unbiased, params)
    check_data(params, batch, key, differentiated=True)
    assert key is not None
    refuse_traced("diagnose", params, key, batch)
    check_finite("parameters", params)
    if hasattr(loss, "model"):
        checked(loss.model, params, batch, key, differentiated=True)
    params, batch = closed(params, numbers=True), jax.tree.map(jnp.asarray, batch)
    loss = as_estimator(loss)
    _check_loss(loss, params, key, batch)
    own, other = jax.random.split(key)
    truth = find_truth(loss, params, batch, other, reference, unbiased, reference_draws, by_example)
    # The loss is measured as it is used: what it has learned is not fitted first.
    cell = Cell(loss, params, batch, own, "the loss", "find out where with jax.debug_nans()")
    found = cell.measured(truth.gradient, cell.plan(count, blocks=BLOCKS))
    measurement = Measurement.stored(
        ("training", 0, "now"),
        "loss",
        gradient=[np.asarray(vector) for vector in layer_vectors(truth.gradient)],
        reference=truth.blocks,
        **found._asdict(),
    )
    # Only the estimates are kept, not the blocks that they are made of.
    layers = {
        layer.layer: LayerDiagnosis(
            layer.sample.norm,
            {name: layer.estimate(name) for name in METRICS},
            _unknown(layer.sample),
        )
        for layer in layers_of(measurement)
    }
    return Diagnosis(layers, count, truth.description, time.perf_counter() - begin)


def _unknown(sample: Sample) -> str:
    """Return why nothing is known relative to the gradient of a layer, empty where it is."""
    if not sample.zero:
        return ""
    if sample.reference is None or sample.noise is None:
        return "the true gradient is 0, to which nothing is relative"
    draws = sample.reference.draws
    factor = known_with(sample.direction, sample.noise)
    said = f"the true gradient cannot be told from 0 by {draws} draws"
    if not math.isfinite(factor):
        return f"{said}, and may be 0; give 16 times the reference_draws to see more"
    return f"{said}; give reference_draws={_rounded(draws * max(factor, 1.0))}"


def _rounded(draws: float) -> int:
    """Return the next power of two above a number of draws and a quarter of it."""
    return int(2 ** math.ceil(math.log2(1.25 * draws)))


def _check_loss(loss: Loss, params: Params, key: Array, batch: Batch) -> None:
    """Refuse a loss that does not run, or is not a real scalar."""
    try:
        value = scalar_of(jax.eval_shape(loss, params, key, batch))
    except GradbenchError:
        raise
    except Exception as error:  # of any kind: the loss is the user's
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        raise GradbenchError(
            f"the loss does not run on these parameters and this batch ({type(error).__name__}: "
            f"{said}); make them fit it"
        ) from error
    real = isinstance(value, jax.ShapeDtypeStruct) and jnp.issubdtype(value.dtype, jnp.floating)
    if not real or value.shape != ():
        what = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(type(value))
        raise GradbenchError(f"the loss returns {what}; give one that returns one real number")

"""How good the gradient in use is, asked from inside a training loop."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.advise.truth import _BLOCKS, _as_estimator, _truth
from gradbench.core.arguments import at_least
from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import closed, layer_names, layer_vectors
from gradbench.core.run import batch_size
from gradbench.core.text import aligned
from gradbench.core.uniforms import check_key
from gradbench.measure.blocks import is_finite
from gradbench.measure.draws import make_plan, measure
from gradbench.measure.exact_reference import Reference
from gradbench.metrics import METRICS, Estimate, Measurement, check_metrics
from gradbench.metrics import layers_of as metrics_of
from gradbench.metrics.intervals import digits

if TYPE_CHECKING:
    import pandas as pd


DRAWS = 64
REFERENCE_DRAWS = 256
_SHOWN = ("bias", "std", "cosine", "descent_probability")


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer: the norm of its true gradient, and every metric of one draw relative to it."""

    gradient_norm: float
    metrics: Mapping[str, Estimate]

    def estimate(self, metric: str) -> Estimate:
        """A ``metric`` by name, as ``gradbench list metrics`` has them.

        Raises:
            GradbenchError: there is no such metric.
        """
        check_metrics([metric])
        return self.metrics[metric]


@dataclass(frozen=True)
class Diagnosis:
    """Bias, variance and direction of one draw of an estimator, per layer.

    ``layers`` maps the name of each layer, and "network" where there are several, to its metrics:
    ``found.layers["layer 1"].estimate("cosine")`` has ``value``, ``se``, ``low`` and ``high``, a 95
    % interval. All are relative to the norm of the true gradient of the layer; those of a layer
    whose gradient cannot be told from zero are NaN. ``truth`` says what they are compared with.
    """

    layers: Mapping[str, LayerDiagnosis]
    draws: int
    truth: str
    seconds: float  # that it took, compilation included

    def scalars(self) -> dict[str, float]:
        """Every metric as a number for a logger: {"layer 1/bias": 0.12, "layer 1/std": ...}."""
        return {
            f"{layer}/{name}": estimate.value
            for layer, found in self.layers.items()
            for name, estimate in found.metrics.items()
        }

    def frame(self) -> "pd.DataFrame":
        """A row per layer: every metric of one draw, with ``_se``, ``_low`` and ``_high``."""
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
            [layer, *(_told(name, found.metrics[name]) for name in _SHOWN)]
            for layer, found in self.layers.items()
        ]
        head = ["layer", *(METRICS[name].title for name in _SHOWN)]
        source = f"{self.draws} draws against {self.truth}, in {self.seconds:.2g} s"
        return "\n".join([*aligned([head, *rows], right=1), source])


def _told(metric: str, found: Estimate) -> str:
    """A metric in a table; a limit where nothing else is known of it."""
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
    """Bias, variance, cosine and descent probability of the gradient in use, at these parameters.

    One call inside a training loop, every few hundred steps: the loss stays as it is. The truth is

    - ``reference``, where it is given (see ``gradbench.reference``);
    - for an estimator of ``gradbench.estimators``, the exact gradient where the model can be
      enumerated in about the time of the draws, else the mean of draws of ``unbiased``;
    - for a loss of your own that calls ``gradbench.binarize`` or ``gradbench.expectation``, the
      mean of draws of its unbiased counterpart: the same function with the score function, 4
      samples and their leave-one-out baseline in the place of ``binarize``. States are binary
      there: the truth of ``hard=False`` is that of the binary network. All randomness that depends
      on the parameters has to be that of these two, each call with noise of its own, and the loss
      has to differentiate through the states, and to be linear in the values of expectations.

    A sampled truth is noisy: every metric is corrected for that and has it in its interval. More
    ``reference_draws`` make it narrower, and help more than more ``draws`` where the bias matters.

    It costs ``draws`` gradients of the loss, and ``reference_draws`` of the unbiased one where the
    truth is not exact (``disarm``: L + 1 evaluations for L layers and one backward pass, about as
    long as a gradient of the loss; the counterpart: 8 evaluations), all vmapped. ``make bench``
    prints it in steps of training. It takes some thousand times the memory of the parameters while
    it runs, less where they are many; nothing of it is kept. The first call for a loss compiles, so
    that it has to be the same function each time; a new one each time is also kept in memory.

    With so few draws intervals are rough: those of the cosine cover some 88 to 93 % instead of 95
    where draws are very skewed.

    Args:
        loss: ``loss(params, key, batch) -> scalar``, whose JAX gradient is one draw.
        params: any pytree of real arrays; its layers are as ``gradbench.parameters`` says.
        batch: examples along the first axis of its leaves.
        key: of the draws.
        draws: of the estimator in use, at least 16.
        reference: the gradient that is known already, of the same parameters and batch.
        unbiased: an estimator without bias, as a spec ("disarm" unless given), or a loss as
            ``loss`` of which E grad is right.
        reference_draws: of a sampled truth, at least 32.
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
    at_least(2 * _BLOCKS, "reference_draws", reference_draws)
    _check_real(params)
    batch_size(batch)
    params, batch = closed(params, numbers=True), jax.tree.map(jnp.asarray, batch)
    loss = _as_estimator(loss)
    _check_loss(loss, params, key, batch)
    own, other = jax.random.split(key)
    gradient, blocks, truth = _truth(
        loss, params, batch, other, reference, unbiased, reference_draws, by_example
    )
    vectors = layer_vectors(params)
    coordinates = sum(vector.size for vector in vectors)
    plan = make_plan(count, coordinates=coordinates, blocks=_BLOCKS)
    found = list(measure(loss, params, batch, gradient, own, plan))
    if not all(map(is_finite, found)):
        raise GradbenchError("draws of the loss are not finite; see where, with jax.debug_nans()")
    cell = Measurement.stored(
        ("training", 0, "now"),
        "loss",
        {**plan._asdict(), "layer_names": layer_names(params)},
        found,
        [np.asarray(vector) for vector in layer_vectors(gradient)],
        reference=blocks,
    )
    # Estimates alone are kept, not the blocks that they are made of.
    layers = {
        layer.layer: LayerDiagnosis(
            layer.sample.norm, {name: layer.estimate(name) for name in METRICS}
        )
        for layer in metrics_of(cell)
    }
    return Diagnosis(layers, count, truth, time.perf_counter() - begin)


def _check_real(params: Params) -> None:
    """Refuses parameters that hold anything but real arrays, as far as they are arrays, or none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise GradbenchError(
                f"the parameters hold {leaf.dtype} at {jax.tree_util.keystr(path)}; keep what is "
                "not trained out of them, by equinox.partition or flax.nnx.split"
            )
    if not layer_names(closed(params, numbers=True)):
        raise GradbenchError(
            f"the parameters, of type {type(params).__name__}, hold no real array; give those of "
            "the loss"
        )


def _check_loss(loss: Loss, params: Params, key: Array, batch: Batch) -> None:
    """Refuses what is no real scalar, or is called where no number is known."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, key, batch))):
        raise GradbenchError("diagnose() is called inside a transformation; call it outside of jit")
    value = jax.eval_shape(loss, params, key, batch)
    real = isinstance(value, jax.ShapeDtypeStruct) and jnp.issubdtype(value.dtype, jnp.floating)
    if not real or value.shape != ():
        what = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(type(value))
        raise GradbenchError(f"the loss returns {what}; give one that returns one real number")

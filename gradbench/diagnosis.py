"""How good the gradient in use is, asked from inside a training loop."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

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
from gradbench.metrics import METRICS, Cell, Estimate, check_metrics
from gradbench.metrics import layers_of as metrics_of
from gradbench.model import Batch, Loss, Model, Params, batch_size
from gradbench.parameters import closed, opened
from gradbench.precision import float64
from gradbench.table import digits
from gradbench.text import aligned
from gradbench.uniforms import check_key

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 64
REFERENCE_DRAWS = 256
_BLOCKS = 16  # that both are kept as: memory is so many times that of the parameters, and more
_FORWARD = 32  # values of a loss that are compared with those of its examples
_TOO_FAR = 6.0  # standard errors of their difference
_WORK = 1e8  # multiply-adds of an enumeration that is cheaper than so many draws
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
    cell = Cell.stored(
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
        _check_reference(reference, params)
        words = "the exact gradient"
        if reference.samples:
            words = f"{reference.samples.draws} draws of {reference.samples.estimator}"
        return reference.gradient, reference.blocks, words
    model = getattr(loss, "model", None)
    if model is not None and unbiased is None and is_small(model, params, batch, work=_WORK):
        return _exact(model, params, batch), None, "the exact gradient"
    other, name = _unbiased(loss, model, unbiased, by_example)
    if model is None and unbiased is None and by_example and batch_size(batch) > 1:
        _check_mean(loss, params, batch, key)
    mean, blocks = _sampled(other, params, batch, key, draws)
    return mean, blocks, f"{blocks[0].draws} draws of {name}"


def _unbiased(
    loss: Loss, model: Model | None, unbiased: str | Loss | None, by_example: bool
) -> tuple[Loss, str]:
    """A loss with an unbiased gradient, the same object each time, and its name."""
    if callable(unbiased):
        return _as_estimator(unbiased), getattr(unbiased, "__name__", "the unbiased loss")
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


def _as_estimator(loss: Loss) -> Loss:
    """A loss of the user's gets its parameters as it knows them, an estimator does that itself."""
    if hasattr(loss, "model"):
        return loss
    try:
        return _opening(loss)  # type: ignore[arg-type]
    except TypeError as error:
        raise GradbenchError(
            f"the loss of type {type(loss).__name__} has no hash, which compiled functions are "
            "kept by; give a function"
        ) from error


@lru_cache
def _opening(loss: Loss) -> Loss:
    def opening(params: Params, key: Array, batch: Batch) -> Array:
        return loss(opened(params), key, batch)

    return opening


def _check_mean(loss: Loss, params: Params, batch: Batch, key: Array) -> None:
    """Refuses a loss that is not the mean of the losses of its examples, as far as draws tell."""
    keys = jax.random.split(jax.random.fold_in(key, 1), _FORWARD)
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    try:
        jax.eval_shape(loss, params, key, one)
    except Exception as error:  # of any kind: the loss is the user's
        raise GradbenchError(
            f"the loss does not run on one example ({type(error).__name__}); give by_example=False"
        ) from error
    whole, parts = (
        np.asarray(_values(_unbiased(loss, None, None, each)[0], params, batch, keys), np.float64)
        for each in (False, True)
    )
    spread = math.sqrt((whole.var(ddof=1) + parts.var(ddof=1)) / _FORWARD)
    rounding = 1e-5 * max(abs(whole.mean()), abs(parts.mean()))
    if abs(whole.mean() - parts.mean()) > _TOO_FAR * spread + rounding:
        raise GradbenchError(
            f"the loss of the batch, {whole.mean():.4g}, is not the mean of the losses of its "
            f"examples, {parts.mean():.4g}; give by_example=False"
        )


@partial(jax.jit, static_argnums=0)
def _values(loss: Loss, params: Params, batch: Batch, keys: Array) -> Array:
    return jax.vmap(loss, (None, 0, None))(params, keys, batch)


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


def _check_reference(reference: Reference, params: Params) -> None:
    """Refuses what is no reference, or that of other parameters."""
    if not isinstance(reference, Reference):
        raise GradbenchError(
            f"reference is of type {type(reference).__name__}; give what gradbench.reference gives"
        )
    theirs, ours = (
        [vector.size for vector in layer_vectors(tree)] for tree in (reference.gradient, params)
    )
    if theirs != ours:
        raise GradbenchError(
            f"the reference has layers of {theirs} parameters and the loss of {ours}; give that of "
            "the same model"
        )

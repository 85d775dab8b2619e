"""The gradient of a large model, by a long run of an unbiased estimator."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from warnings import warn

import jax
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from gradbench.core.atomic import Json, pack, plain, unpack, write_file
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.pytrees import from_vectors, layer_names, layer_vectors, opened
from gradbench.core.run import sites_of
from gradbench.core.specs import canonical
from gradbench.estimators import get_estimator, make_estimator
from gradbench.estimators.adaptive import fitted
from gradbench.estimators.registry import EXACTNESS
from gradbench.measure.blocks import Blocks, Moments, merge
from gradbench.measure.draws import chunk_of, draw_block, make_plan, seconds_per_draw
from gradbench.measure.exact_reference import Pilot, Reference, Samples
from gradbench.measure.fingerprint import _fingerprint, _fingerprint_of_model

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
MOST_DRAWS = 1 << 20  # by default: a quarter of an hour at a millisecond each
_BLOCKS = 64  # that the draws are kept as
_FIRST = 1024  # draws before the first look at the error
_CALL = 128  # draws of one call of compiled code, at most
_PILOT = 256  # draws of each estimator to choose from
_ENTRIES = 1 << 23  # gradient coordinates of the draws of a call
_FILE = "reference.npz"


class _State(NamedTuple):
    """A run so far: of the values, and of each layer, 64 blocks or, before the first draw, none."""

    estimator: str
    pilot: tuple[Pilot, ...]
    draws: int
    parts: list[list[Moments]]  # the values first, then the layers; blocks of each

    def errors(self) -> list[float]:
        """The relative standard error of each layer; infinite before the first draw."""
        return [relative_error(stacked(layer)) for layer in self.parts[1:]] or [math.inf]

    def add(self, draws: list[Moments], size: int) -> None:
        """Adds a block of the next draws, and merges what makes blocks of up to ``size`` draws."""
        for blocks, block in zip(self.parts, draws, strict=True):
            blocks.append(block)
            while len(blocks) > 1 and blocks[-2].count == blocks[-1].count < size:
                last = blocks.pop()
                blocks.append(merge(blocks.pop(), last))


def stacked(blocks: Sequence[Moments]) -> Blocks:
    """Blocks of draws, as arrays over all of them."""
    counts, means, m2 = (np.array(part, np.float64) for part in zip(*blocks, strict=True))
    return Blocks(counts, means, m2)


def relative_error(blocks: Blocks) -> float:
    """sqrt(tr Cov r) / |G| of the mean r of all draws, where |r|^2 - tr Cov r estimates |G|^2.

    Infinite where that is not positive, and the gradient not told from zero; 0 where there is no
    randomness.
    """
    mean, noise = blocks.mean(), float(blocks.variances().sum())
    square = float(mean @ mean)
    if noise <= np.finfo(float).eps ** 2 * square:
        return 0.0
    return math.sqrt(noise / (square - noise)) if square > noise else math.inf


class _Task(NamedTuple):
    """What a reference is asked of; in float64."""

    model: Model
    params: Params
    batch: Batch
    key: Array
    estimators: Sequence[str] | None

    def keys(self) -> Array:
        """Of the fit, of the pilot, and of the run."""
        return jax.random.split(self.key, 3)

    def specs(self) -> list[str]:
        """The estimators to choose from, in their canonical form."""
        return [canonical(spec) for spec in (self.estimators or CANDIDATES)]

    # ------------------------------------------------------------------- choosing an estimator

    def chosen(self, rel_se: float) -> tuple[_State, Loss]:
        """The start of a run of the estimator that is predicted to take the least time."""
        sites_of(self.model, self.params, self.batch)  # what is wrong with the model itself
        specs = self.specs()
        fitting: list[tuple[str, Loss]] = []
        for spec in specs:
            try:
                fitting.append((spec, self.loss(spec)))
            except Exception as error:  # of any kind: the model is the user's
                if self.estimators is None:
                    continue
                if isinstance(error, GradbenchError):
                    raise
                raise GradbenchError(
                    f"estimator {spec!r} does not run on the model ({type(error).__name__}: "
                    f"{str(error).partition(chr(10))[0]}); take another one"
                ) from error
        if not fitting:
            raise GradbenchError(
                f"none of {', '.join(specs)} runs on the model; name unbiased estimators that do"
            )
        if len(fitting) == 1:
            return _State(fitting[0][0], (), 0, []), fitting[0][1]
        pilot = self.pilot(fitting, rel_se)
        return _State(pilot[0].estimator, pilot, 0, []), dict(fitting)[pilot[0].estimator]

    def loss(self, spec: str) -> Loss:
        """The estimator, fitted.

        Raises:
            GradbenchError: it is not unbiased, or does not take the model.
        """
        entry, arguments = get_estimator(spec)
        claim = entry.claim(**arguments)
        if claim == "exact":
            raise GradbenchError(f"estimator {spec!r} draws nothing; give method='exact' for it")
        sites = len(sites_of(self.model, self.params, self.batch))
        if claim != "unbiased" and not (claim == "one layer" and sites == 1):
            raise GradbenchError(
                f"estimator {spec!r} is exact for {EXACTNESS[claim]}, and the sampled reference of "
                f"a model of {sites} layer{'s' * (sites != 1)} needs one that is unbiased; take "
                "another one, such as 'rloo(samples=4)'"
            )
        loss = make_estimator(spec, self.model)
        fit_key, _, run_key = self.keys()
        jax.eval_shape(jax.grad(loss), self.params, run_key, self.batch)  # refuses it at once
        return fitted(loss, self.params, fit_key, self.batch)

    def pilot(self, fitting: Sequence[tuple[str, Loss]], rel_se: float) -> tuple[Pilot, ...]:
        """What each estimator would take, the quickest first.

        So few draws may not tell the norm of the gradient. It is common to all, so that an error of
        it changes no order but that between layers: in each layer that of the estimator of the
        least variance counts, or its noise where that is larger.
        """
        key, call = self.keys()[1], self.call()
        plan = make_plan(_PILOT)._replace(block=call)
        seconds, noises, squares = [], [], []
        for spec, loss in fitting:
            seconds.append(seconds_per_draw(loss, self.params, self.batch, key, plan, 0.1))
            start = _State(spec, (), 0, [])
            drawn = self.extended(start, loss, key, _PILOT, call).parts[1:]
            layers = [stacked(layer) for layer in drawn]
            noise = np.array([layer.variances().sum() for layer in layers])
            noises.append(noise)
            squares.append([np.sum(layer.mean() ** 2) for layer in layers] - noise)
        spread = np.array(noises)
        least = (spread.argmin(0), np.arange(spread.shape[1]))
        square = np.maximum(np.array(squares)[least], spread[least])
        # The noise is that of the mean of the pilot's draws.
        needed = np.divide(spread, square, out=np.zeros_like(spread), where=square > 0)
        draws = np.maximum(needed.max(1) * _PILOT / rel_se**2, _FIRST)
        rows = [
            Pilot(spec, float(time), float(count), float(time * count))
            for (spec, _), time, count in zip(fitting, seconds, draws, strict=True)
        ]
        return tuple(sorted(rows, key=lambda row: row.seconds))

    # --------------------------------------------------------------------------- the long run

    def call(self) -> int:
        """The draws of a call of compiled code, a power of two."""
        coordinates = sum(vector.size for vector in layer_vectors(self.params))
        return 1 << (max(1, min(_CALL, _ENTRIES // coordinates)).bit_length() - 1)

    def extended(
        self,
        state: _State,
        loss: Loss,
        key: Array,
        draws: int,
        size: int,
        bar: tqdm | None = None,
    ) -> _State:
        """The state after so many draws in all, in blocks of ``size``; those it has are merged.

        Raises:
            GradbenchError: a draw that is not finite.
        """
        call = self.call()
        chunk = chunk_of(loss, self.params, self.batch, call)
        layers = len(layer_names(self.params))
        new = _State(state.estimator, state.pilot, draws, [[] for _ in range(1 + layers)])
        for blocks in zip(*state.parts, strict=True):
            new.add(list(blocks), size)
        for first in range(state.draws, draws, call):
            values, gradients = draw_block(
                loss, call, chunk, self.params, self.batch, key, np.uint32(first)
            )
            found = [np.asarray(rows) for rows in (values[:, None], *gradients)]
            if not all(np.isfinite(rows).all() for rows in found):
                raise GradbenchError(
                    f"draws of {state.estimator!r} are not finite; check the objective at all "
                    "states that the units can take"
                )
            pieces = [rows.reshape(-1, min(size, call), rows.shape[1]) for rows in found]
            for blocks in zip(*pieces, strict=True):
                new.add([_moments(rows) for rows in blocks], size)
            if bar is not None:
                bar.update(call)
        return new

    def run(
        self,
        state: _State,
        loss: Loss | None,
        rel_se: float,
        most: int,
        path: Path | None,
        progress: bool,
    ) -> _State:
        """The state when every layer is known well enough, or the next draws would be too many."""
        text = {"desc": state.estimator, "unit": " draws"}
        with tqdm(initial=state.draws, disable=not progress, **text) as bar:
            while max(state.errors()) > rel_se and 2 * state.draws <= most:
                loss = loss or self.loss(state.estimator)  # what was fitted is not saved
                draws = 2 * state.draws or _FIRST
                state = self.extended(state, loss, self.keys()[2], draws, draws // _BLOCKS, bar)
                bar.set_postfix(rel_se=f"{max(state.errors()):.2g}")
                if path:
                    self.save(path, state)
        return state

    def result(self, state: _State, rel_se: float) -> Reference:
        """What the draws say, with a warning where that is less than was asked for."""
        names = layer_names(self.params)
        value, *layers = map(stacked, state.parts)
        errors = dict(zip(names, state.errors(), strict=True))
        short = [
            f"{name} to {error:.2g}" if error < math.inf else f"{name} cannot be told from zero"
            for name, error in errors.items()
            if error > rel_se
        ]
        if short:
            warn(
                f"after {state.draws} draws of {state.estimator} the reference is not known to a "
                f"relative standard error of {rel_se:g} in every layer ({', '.join(short)}); "
                "raise most_draws, or take it as it is, with its blocks in the metrics",
                GradbenchWarning,
                stacklevel=3,
            )
        gradient, standard_error = (
            from_vectors(vectors, self.params)
            for vectors in (
                [layer.mean() for layer in layers],
                [np.sqrt(layer.variances()) for layer in layers],
            )
        )
        entry, arguments = get_estimator(state.estimator)
        known = entry.estimates_value(**arguments)
        samples = Samples(
            state.estimator,
            state.draws,
            names,
            tuple(layers),
            errors,
            opened(standard_error),
            float(np.sqrt(value.variances()[0])) if known else math.nan,
            state.pilot,
        )
        mean = float(value.mean()[0]) if known else math.nan
        return Reference(mean, opened(gradient), "sampled", {}, samples)

    # ------------------------------------------------------------------------------ on disk

    def settings(self) -> Json:
        """What a run depends on, by the words in which a difference is told."""
        return {
            "other parameters": _fingerprint(self.params),
            "other data": _fingerprint(self.batch),
            "another model": _fingerprint_of_model(self.model, self.params, self.batch),
            "another key": _fingerprint(self.key),
            "other estimators": self.specs(),
        }

    def save(self, path: Path, state: _State) -> None:
        """Writes the state as a whole."""
        arrays = {
            f"{number} {name}": array
            for number, layer in enumerate(state.parts)
            for name, array in stacked(layer)._asdict().items()
        }
        note = {"settings": self.settings()} | {"estimator": state.estimator, "pilot": state.pilot}
        write_file(path, pack(arrays, len(state.parts), note))

    def load(self, path: Path) -> _State:
        """The state that was saved.

        Raises:
            GradbenchError: the file is corrupted, or of a run of something else.
        """
        arrays, layers, note = unpack(path)
        settings = self.settings()
        for name in settings:  # in this order: the model is asked at the parameters
            if note["settings"].get(name) != plain(settings)[name]:
                raise GradbenchError(
                    f"{str(path)!r} holds a reference of {name}; give what it was begun with, or "
                    "another directory"
                )
        parts = []
        for number in range(layers):
            counts, means, m2 = (arrays[f"{number} {name}"] for name in Blocks._fields)
            rows = zip(map(int, counts), means, m2, strict=True)
            parts.append([Moments(*row) for row in rows])
        pilot = tuple(Pilot(*row) for row in note["pilot"])
        return _State(note["estimator"], pilot, sum(block.count for block in parts[0]), parts)


def _moments(rows: np.ndarray) -> Moments:
    mean = rows.mean(0)
    return Moments(len(rows), mean, ((rows - mean) ** 2).sum(0))

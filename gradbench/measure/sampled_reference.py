"""The gradient of a large model, by a long run of an unbiased estimator.

Which estimator is measured: a pilot takes the time and the noise of each candidate, and the one
that is predicted to reach the precision first runs. Its draws are kept as the moments of 64 blocks.
The number of draws doubles, and neighbouring blocks are merged, until the relative standard error
of every layer is small enough. The error is looked at after 1024, 2048, 4096, ... draws only, a few
times in all, so that the stopping rule hardly biases the mean (see the tests of references).
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from warnings import warn

import jax
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from gradbench.core.atomic import Json, pack, plain, unpack, write_file
from gradbench.core.contract import Batch, Model, Params, is_chain
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.pytrees import from_vectors, layer_names, opened
from gradbench.core.run import batch_size, sites_of
from gradbench.core.specs import canonical
from gradbench.estimators import get_estimator
from gradbench.estimators.registry import evaluations
from gradbench.measure.blocks import Blocks, Moments, merge
from gradbench.measure.cell import Cell, coordinates_of
from gradbench.measure.fingerprint import fingerprint, model_fingerprint
from gradbench.measure.pilot import CANDIDATES, DRAWS, Pilot, compare_candidates, unbiased_cell
from gradbench.measure.reference_types import Reference, Samples

MOST_DRAWS = 1 << 20  # by default: a quarter of an hour at a millisecond each
FIRST_DRAWS = 1024  # before the first look at the error
FILE = "reference.npz"
_BLOCKS = 64  # that the draws are kept as
_PILOT = 1 << 36  # multiply-adds of the draws of a candidate in the pilot
_CALL = 128  # draws of a call of compiled code, at most
_ENTRIES = 1 << 23  # gradient coordinates of the draws of a call


class State(NamedTuple):
    """A run so far. ``parts`` holds blocks of draws: of the values first, then of each layer."""

    estimator: str
    pilot: tuple[Pilot, ...]
    draws: int
    parts: list[list[Moments]]  # empty before the first draw

    def errors(self) -> list[float]:
        """Return the relative standard error of each layer; infinite before the first draw."""
        return [Blocks.stack(layer).relative_error() for layer in self.parts[1:]] or [math.inf]

    def add(self, draws: Sequence[Moments], size: int) -> None:
        """Add a block of the next draws, and merge equal neighbours up to ``size`` draws."""
        for blocks, block in zip(self.parts, draws, strict=True):
            blocks.append(block)
            while len(blocks) > 1 and blocks[-2].count == blocks[-1].count < size:
                last = blocks.pop()
                blocks.append(merge(blocks.pop(), last))


class Limits(NamedTuple):
    """When a run ends: at a relative standard error, before too many draws, or before ``end``.

    ``end`` is a time of ``time.monotonic``; None is never.
    """

    rel_se: float
    draws: int
    end: float | None = None

    def leave(self, state: State, last: float | None) -> bool:
        """Return whether a run ends here, whose last draws, half of all, took so many seconds."""
        if max(state.errors()) <= self.rel_se or 2 * state.draws > self.draws:
            return True
        if self.end is None or last is None:
            return False
        return time.monotonic() + 2 * last > self.end  # the next are twice as many


class SampledReference(NamedTuple):
    """The model and the candidates of a reference; to be used inside ``float64()``."""

    model: Model
    params: Params
    batch: Batch
    key: Array
    estimators: Sequence[str] | None  # CANDIDATES if None

    def keys(self) -> Array:
        """Return the keys of the fit, of the pilot and of the run."""
        return jax.random.split(self.key, 3)

    def specs(self) -> list[str]:
        """Return the candidates in their canonical form."""
        return [canonical(spec) for spec in (self.estimators or CANDIDATES)]

    def cell(self, spec: str) -> Cell:
        """Return an unbiased estimator, ready for the run.

        Raises:
            GradbenchError: as ``unbiased_cell``.
        """
        fit_key, _, run_key = self.keys()
        return unbiased_cell(
            spec, self.model, self.params, self.batch, key=run_key, fit_key=fit_key
        )

    def begin(self, rel_se: float) -> tuple[State, Cell]:
        """Return the start of a run of the candidate that is predicted to take the least time.

        Raises:
            GradbenchError: a candidate that was asked for does not run, or none does.
        """
        units = [site.size for site in sites_of(self.model, self.params, self.batch)]
        cells: dict[str, Cell] = {}
        for spec in self.specs():
            if self.estimators is None and cells and self._is_dear(spec, units):
                continue
            try:
                cells[spec] = self.cell(spec)
            except Exception as error:  # of any kind: the model is the user's
                if self.estimators is None:
                    continue
                if isinstance(error, GradbenchError):
                    raise
                raise GradbenchError(
                    f"estimator {spec!r} does not run on the model ({type(error).__name__}: "
                    f"{str(error).partition(chr(10))[0]}); take another one"
                ) from error
        if not cells:
            raise GradbenchError(
                f"none of {', '.join(self.specs())} runs on the model; name unbiased estimators "
                "that do"
            )
        if len(cells) == 1:
            ((spec, cell),) = cells.items()
            return State(spec, (), 0, []), cell
        piloted = {spec: cell._replace(key=self.keys()[1]) for spec, cell in cells.items()}
        pilot = compare_candidates(piloted, rel_se, self.call(), FIRST_DRAWS)
        return State(pilot[0].estimator, pilot, 0, []), cells[pilot[0].estimator]

    def _is_dear(self, spec: str, units: Sequence[int]) -> bool:
        """Return whether the pilot of a candidate alone would take minutes."""
        work = coordinates_of(self.params) * batch_size(self.batch)
        return evaluations(spec, units, is_chain(self.model)) * work * DRAWS > _PILOT

    def call(self) -> int:
        """Return the draws of a call of compiled code, a power of two."""
        draws = max(1, min(_CALL, _ENTRIES // coordinates_of(self.params)))
        return 1 << (draws.bit_length() - 1)

    def draw_until(
        self,
        state: State,
        cell: Cell | None,
        limits: Limits,
        path: Path | None,
        progress: bool,
    ) -> State:
        """Draw until every layer is known well enough, or the next draws would be too many.

        Args:
            state: the run so far.
            cell: its estimator; prepared when it is needed if None.
            limits: when the run ends.
            path: the file where the state is saved at first, with the choice of the estimator, and
                whenever the draws have doubled.
            progress: whether to show a bar.

        Returns:
            The state at the end.
        """
        text = {"desc": f"reference: {state.estimator}", "unit": " draws"}
        last: float | None = None
        if path and not path.exists():
            self.save(path, state)
        with tqdm(initial=state.draws, disable=not progress, **text) as bar:
            while not limits.leave(state, last):
                began = time.monotonic()
                cell = cell or self.cell(state.estimator)
                draws = 2 * state.draws or FIRST_DRAWS
                # The first draws are as many as the second, but compile as well.
                state = self._extend(state, cell, draws, draws // _BLOCKS, bar)
                last = (time.monotonic() - began) / (2 if draws == FIRST_DRAWS else 1)
                bar.set_postfix(rel_se=f"{max(state.errors()):.2g}")
                if path:
                    self.save(path, state)
        return state

    def _extend(self, state: State, cell: Cell, draws: int, size: int, bar: tqdm) -> State:
        """Return the state after so many draws in all, in blocks of ``size`` draws."""
        layers = len(layer_names(self.params))
        new = State(state.estimator, state.pilot, draws, [[] for _ in range(1 + layers)])
        for blocks in zip(*state.parts, strict=True):
            new.add(blocks, size)
        call = self.call()
        for parts in cell.moments(range(state.draws, draws, call), size):
            for blocks in zip(*parts, strict=True):
                new.add(blocks, size)
            bar.update(call)
        return new

    def result(self, state: State, rel_se: float, seconds: float | None = None) -> Reference:
        """Return the mean of the draws, with a warning where it is less precise than asked for."""
        names = layer_names(self.params)
        value, *layers = map(Blocks.stack, state.parts)
        errors = dict(zip(names, state.errors(), strict=True))
        _warn_of_errors(
            state, errors, rel_se, "most_draws" if seconds is None else "seconds and most_draws"
        )
        gradient, standard_error = (
            opened(from_vectors(vectors, self.params))
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
            standard_error,
            float(np.sqrt(value.variances()[0])) if known else math.nan,
            state.pilot,
        )
        mean = float(value.mean()[0]) if known else math.nan
        return Reference(mean, gradient, "sampled", {}, samples)

    # ------------------------------------------------------------------------------ on disk

    def settings(self) -> Json:
        """Return what a run depends on, by the words in which a difference is told."""
        return {
            "other parameters": fingerprint(self.params),
            "other data": fingerprint(self.batch),
            "another model": model_fingerprint(self.model, self.params, self.batch),
            "another key": fingerprint(self.key),
            "other estimators": self.specs(),
        }

    def save(self, path: Path, state: State) -> None:
        """Write the state to a file, as a whole."""
        arrays = {
            f"{number} {name}": array
            for number, layer in enumerate(state.parts)
            for name, array in Blocks.stack(layer)._asdict().items()
        }
        note = {"settings": self.settings()} | {"estimator": state.estimator, "pilot": state.pilot}
        write_file(path, pack(arrays, len(state.parts), note))

    def load(self, path: Path) -> State:
        """Read the state that was saved.

        Raises:
            GradbenchError: the file is corrupted, or belongs to a run of something else.
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
        draws = sum(block.count for block in parts[0]) if parts else 0
        return State(note["estimator"], pilot, draws, parts)


def _warn_of_errors(state: State, errors: dict[str, float], rel_se: float, limit: str) -> None:
    """Warn, at the call of ``gradbench.reference``, of layers that are not known well enough."""
    short = [
        f"{name} to {error:.2g}" if error < math.inf else f"{name} cannot be told from zero"
        for name, error in errors.items()
        if error > rel_se
    ]
    if short:
        warn(
            f"after {state.draws} draws of {state.estimator} the reference is not known to a "
            f"relative standard error of {rel_se:g} in every layer ({', '.join(short)}); "
            f"raise {limit}, or use it as it is: the metrics take its blocks into account",
            GradbenchWarning,
            stacklevel=4,
        )

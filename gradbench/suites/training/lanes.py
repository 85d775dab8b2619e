"""What decides runs that are trained side by side: their problem, method, rates and seeds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.atomic import Json
from gradbench.core.contract import Loss
from gradbench.models.optimisers import for_weights
from gradbench.results import runs
from gradbench.results.quantities import read_quantity
from gradbench.suites.instance import ProblemInstance, estimator
from gradbench.suites.plan import Biases, Plan, read_optimiser
from gradbench.suites.problem import as_json
from gradbench.suites.train import OPTIMISERS, Optimiser
from gradbench.suites.training.engine import Make, State, begin
from gradbench.suites.training.evaluate import curves_of
from gradbench.suites.training.judge import Judge
from gradbench.suites.training.several import trained_model
from gradbench.suites.weight_optimisers import WEIGHT_OPTIMISERS

_LATER = ("evaluated", "bound_samples")  # entries of an identity where they are given


@dataclass(frozen=True)
class Group:
    """Runs of one problem, estimator and optimiser, at several rates and seeds.

    ``built`` is the problem; seeds are numbers of its replicates, which differ in their initial
    parameters, batches and draws, not in the data. ``phase`` is "search" or "report", and ``plan``
    the plan of the runs of that phase. Runs that ``begin_after`` others are of the phase
    "continue", and trained with ``with_estimator``.
    """

    built: ProblemInstance
    estimator: str
    optimiser: str
    phase: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    plan: Plan
    dtype: str
    judge: Judge | None = None
    begin_after: "Group | None" = None
    with_estimator: str = ""

    @property
    def identity(self) -> Json:
        """All that decides the runs, to the bit on one machine."""
        plan = self.plan
        found: Json = {
            "problem": self.built.problem.name,
            "problem_is": as_json(self.built.problem),
            "seed": self.built.seed,
            "estimator": self.estimator,
            "optimiser": self.optimiser,
            "phase": self.phase,
            "rates": list(self.rates),
            "seeds": list(self.seeds),
            "steps": plan.steps,
            "batch": plan.batch,
            "points": list(plan.recorded),
            "kept": list(self.kept),
            "samples": plan.samples,
            "dtype": self.dtype,
            **{key: n for key in _LATER if (n := getattr(plan, key)) is not None},
        }
        if read_optimiser(self.optimiser).weights is not None and plan.biases is not None:
            found["biases"] = asdict(plan.biases)
        if self.judged:
            found["result"] = plan.result
        if self.goes_on:
            found["goes_on"] = True
        if self.begin_after is not None:
            after = runs.identifier(self.begin_after.identity)
            found |= {"after": after, "with_estimator": self.with_estimator}
        return found

    @property
    def judged(self) -> bool:
        """Whether the result of the suite is recorded, which the search may not know."""
        return self.plan.result is not None and self.phase != "search"

    @property
    def curves(self) -> tuple[str, ...]:
        """The names of the curves that are recorded."""
        result = self.plan.result if self.judged else None
        own = () if result is None else (read_quantity(result).name,)
        return tuple(dict.fromkeys((*curves_of(self.built.network), *own)))

    @property
    def goes_on(self) -> bool:
        """Whether others begin where these end, so that their last state is kept."""
        return self.plan.continuation is not None and self.phase == "report"

    def continued(self) -> "Group":
        """Return the runs that begin where these end, with the estimator of the continuation."""
        then = self.plan.continuation
        assert then is not None
        plan = replace(self.plan, steps=then.steps, search_steps=None, continuation=None)
        return replace(
            self, phase="continue", plan=plan, begin_after=self, with_estimator=then.estimator
        )

    @property
    def offset(self) -> int:
        """The steps that were made before the first of these."""
        return 0 if self.begin_after is None else self.begin_after.plan.steps

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps whose parameters are kept."""
        return self.plan.measured_steps if self.phase == "report" else ()

    @property
    def lanes(self) -> list[tuple[float, int]]:
        """The rate and the seed of each run, in order."""
        return [(rate, seed) for rate in self.rates for seed in self.seeds]

    @property
    def loss(self) -> Loss:
        """The estimator that they are trained with."""
        spec = self.with_estimator or self.estimator
        return estimator(spec, trained_model(spec, self.built.network, self.plan.bound_samples))

    @property
    def keys(self) -> Array:
        """The keys of batches and draws, one for each run."""
        purpose = "training" if self.begin_after is None else "continuation"
        return self.stacked(lambda built: built.key(purpose))

    def stacked(self, each: Callable[[ProblemInstance], Any]) -> Any:
        """Return what a function gives for each run, stacked along a first axis."""
        of = {seed: each(replace(self.built, replicate=seed)) for seed in self.seeds}
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(of[s] for _, s in self.lanes))

    def begin(self, initial: Array) -> State:
        """Return the state before the first step, given the ``initial`` losses [runs]."""
        make, numbers = self.make
        params = self.stacked(lambda built: built.initial())
        return begin(self.loss, make, numbers, params, initial, self.built.data, self.plan.batch)

    @property
    def make(self) -> tuple[Make, Any]:
        """What makes the optimiser, and its hyper-parameters beside the rate."""
        name, numbers, weights = read_optimiser(self.optimiser)
        # As arrays they are no constants of the compiled program, which all values share.
        arrays = {key: jnp.asarray(number) for key, number in numbers.items()}
        if weights is None:
            return OPTIMISERS.find(name), arrays.get("momentum", 0.0)
        assert self.plan.biases is not None
        return _WithBiases(name, self.built.network, self.plan.biases), arrays


@dataclass(frozen=True)
class _WithBiases:
    """Makes an optimiser of binary weights beside that of the biases."""

    name: str
    network: Any
    biases: Biases

    def __call__(self, rate: Any, numbers: dict[str, Any]) -> Optimiser:
        name, given, _ = read_optimiser(self.biases.optimiser)
        real = OPTIMISERS.find(name)(self.biases.rate, given.get("momentum", 0.0))
        latent = WEIGHT_OPTIMISERS.find(self.name).make(rate, self.network.noise, **numbers)
        return for_weights(self.network, latent, real)

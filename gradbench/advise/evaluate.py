"""Measure estimators on a model of one's own, with all that ``run`` gives of a suite."""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from gradbench.advise.measuring import GIVEN, Run
from gradbench.advise.preselect import Chosen, choose, default_draws, name_of, names_of
from gradbench.advise.results import Results, readable
from gradbench.core.arguments import at_least, limit, positive
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.devices import default_dtype
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import check_hash, checked, refuse_traced
from gradbench.core.names import file_name, visible
from gradbench.core.platform import check_platform
from gradbench.core.precision import doubled, float64
from gradbench.core.pytrees import closed
from gradbench.core.run import batch_size, sites_of
from gradbench.core.seeds import named_generator
from gradbench.estimators.registry import claims_of, families_of
from gradbench.metrics.budget import Budget
from gradbench.metrics.budget import budget as read_budget
from gradbench.results import store
from gradbench.suites.given import GivenInstance
from gradbench.suites.problem import Sampled
from gradbench.suites.runner import run as run_suite
from gradbench.suites.suite import Suite

TIME_LIMIT = 300.0  # seconds: with its report, a large model is done in ten minutes
REL_SE = 0.02  # of a sampled gradient: far below the differences that are told
_SHARE = 1 / 3  # of the time limit, which a sampled gradient may take

run = readable(run_suite)


def evaluate(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    estimators: Sequence[str] | None = None,
    draws: int | None = None,
    budget: str | Budget | None = None,
    checkpoints: Mapping[str, Params] | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    rel_se: float = REL_SE,
    time_limit: float | None = TIME_LIMIT,
    seed: int = 0,
    progress: bool = True,
) -> Results:
    """Measure estimators on a model of your own, at its parameters and on a batch.

        results = gradbench.evaluate(model, params, batch, out="results/mine")
        results.rank()  # the best estimators at equal cost; .summary(), .curves(), .compare(other)
        results.report()  # the whole story, as an HTML file; .plot() draws figures for a paper

    Draws are compared with the exact gradient where the model can be enumerated. Else they are
    compared with a sampled one, the mean of many draws of an unbiased estimator, whose noise every
    interval includes (``gradbench.reference``). Bias and variance are exact where they can be
    enumerated in about a second, else estimated from the draws.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays: a tuple with an entry per layer, the state of a module of
            Flax, a module of Equinox. None if all are in ``checkpoints``.
        batch: examples along the first axis of its leaves. The gradient is that of their mean loss.
        estimators: specs such as "psa" or "concrete(temperature=0.5)"; results that are there
            already are kept beside theirs. By default all that take the model and whose draws cost
            no more than the budget and not too long: first one of each family, the best known and
            the cheapest first.
        draws: of each estimator, at least 2; by default 2048, and fewer of a large model.
        budget: the cost of one gradient that estimators may have, such as "100-evaluations", where
            they are not named. By default 1000 evaluations of the objective per example.
        checkpoints: other parameters to measure at, by name, such as those along a training. With
            names such as "epoch 10" figures are drawn along training.
        out: the directory of the results. What is there of the same model, parameters and batch is
            continued: an interrupted call, or one that its time limit has ended, goes on when it is
            repeated, and ends in the same bits. By default the results are in a temporary
            directory, which is deleted with the object that is returned.
        name: what tables and figures call the problem; by default the name of the function.
        rel_se: the relative standard error to which a sampled gradient is known in every layer.
        time_limit: the seconds after which no further draws are begun, of which a sampled gradient
            may take a third; None for no limit. What was not measured is told by a warning and in
            ``left_out``.
        seed: of all random numbers.
        progress: whether to show a bar.

    Returns:
        The results, which are those of ``run`` with one problem. ``left_out`` says which estimators
        were not measured, and why: those that do not take the model, cost too much, or were not
        reached in time.

    Raises:
        GradbenchError: a model, parameters or a batch that do not fit each other; a gradient of
            zero; an unknown estimator or budget; no estimator that takes the model, or none that
            is measured in time; or a directory of another model, other parameters, another batch or
            other settings.
    """
    asked = None if estimators is None else names_of(estimators)
    allowed = None if budget is None else read_budget(budget)
    draws = None if draws is None else at_least(2, "draws", draws)
    positive("rel_se", rel_se)
    limit("time_limit", 1.0 if time_limit is None else time_limit)
    named_generator(seed)  # refuses what is no seed
    end = None if time_limit is None else time.monotonic() + time_limit
    points = _points(model, params, batch, checkpoints)
    check_platform()
    sampled = Sampled(rel_se, 1e9 if time_limit is None else _SHARE * time_limit)
    with float64():
        points, batch = doubled((points, batch))
        built = GivenInstance(name or name_of(model), model, batch, points, sampled, seed)
        file_name(built.name)
        how = _Settings(built, asked, draws, allowed)
        directory = Path(tempfile.mkdtemp(prefix="gradbench-") if out is None else out)
        try:
            found = _evaluate(how, directory, end, progress)
        except BaseException:
            if out is None:
                shutil.rmtree(directory, ignore_errors=True)
            raise
    if out is None:
        found.delete_at_exit()
    return found


def _points(
    model: Model, params: Params | None, batch: Batch, checkpoints: Mapping[str, Params] | None
) -> dict[str, Params]:
    """Return the parameters of each checkpoint, by name, after a check of all that was given."""
    points = dict(checkpoints or {})
    if params is not None:
        if GIVEN in points:
            raise GradbenchError(
                f"a checkpoint is called {GIVEN!r}, as are those parameters that have no name; "
                "give it another name"
            )
        points[GIVEN] = params
    if not points:
        raise GradbenchError("there are no parameters; give params, or checkpoints by name")
    refuse_traced("evaluate", *points.values(), batch)
    check_hash(model)
    found = {name: closed(own, numbers=True) for name, own in points.items()}
    forms = {str(jax.tree.structure(own)): name for name, own in found.items()}
    if len(forms) > 1:
        one, other, *_ = forms.values()
        raise GradbenchError(
            f"the parameters {one!r} and {other!r} are of different form; evaluate each alone"
        )
    for name, own in points.items():
        file_name(name)
        checked(model, own, batch, finite=True, differentiated=True, own=True)
    return found


class _Settings(NamedTuple):
    """What is asked for: a model, and perhaps estimators, draws and a budget."""

    built: GivenInstance
    estimators: list[str] | None
    draws: int | None
    budget: Budget | None


def _evaluate(how: _Settings, directory: Path, end: float | None, progress: bool) -> Results:
    """Measure what is left, and return the results."""
    built = how.built
    draws, known, chosen = _choose(how, directory)
    names = list(built.checkpoints)
    along = len(names) > 1 and all(name.startswith("epoch ") for name in names)
    suite = Suite(
        built.name,
        f"{built.name}: {_in_words(built)}",
        problems=(),
        estimators=tuple(dict.fromkeys([*known, *chosen.estimators])),
        draws=draws,
        dtype=default_dtype(),
        figure="training" if along else "accuracy",
    )
    described = suite.as_dict() | {"problems": [built.described(suite.title)]}
    facts = families_of(suite.estimators), claims_of(suite.estimators)
    results = store.Results.open_or_create(directory, described, built.seed, draws, *facts)
    with results:
        left_out = {spec: visible(why) for spec, why in chosen.left_out.items()}
        results.record(readout=built.readout(), left_out=left_out)
        late = Run(results, suite, built, chosen.estimators, end, progress).finish()
        results.record(left_out=left_out | {spec: visible(why) for spec, why in late.items()})
    return Results(directory, results.manifest)


def _choose(how: _Settings, directory: Path) -> tuple[int, list[str], Chosen]:
    """Return how many draws to make, the estimators that a directory has, and those to measure.

    By default the latter are those of the directory, if it has some. Those that are named are added
    to them.
    """
    known: list[str] = []
    told: dict[str, str] = {}
    draws = how.draws
    if (directory / "manifest.json").is_file():
        manifest = store.Results.open(directory).manifest
        if manifest["suite"]["problems"][0].get("given"):  # else it is refused
            draws = draws or manifest["draws"]
            known = list(manifest["suite"]["estimators"])
            told = manifest.get("left_out", {})
    draws = draws or default_draws(how.built)
    if how.estimators is None and known:
        chosen = Chosen(known, {})
    else:
        chosen = choose(how.built, how.estimators, draws, how.budget)
    others = {spec: why for spec, why in told.items() if spec not in chosen.estimators}
    return draws, known, Chosen(chosen.estimators, others | chosen.left_out)


def _in_words(built: GivenInstance) -> str:
    """Return the size of a model in words."""
    sites = sites_of(built.network, built.shapes(), built.batch)
    units, count = "-".join(str(site.size) for site in sites), batch_size(built.batch)
    return f"{units} binary units, {count} example{'s' * (count != 1)}"

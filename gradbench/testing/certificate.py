"""Certificates: the classes of exactness that estimators claim, checked on small problems."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradbench.core import plugins
from gradbench.core.arguments import at_least
from gradbench.core.callables import check_maker
from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import outlines_kept
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64
from gradbench.core.progress import step
from gradbench.core.text import aligned
from gradbench.estimators import ESTIMATORS, get_estimator
from gradbench.estimators.exactness import DEPTHS, EXACTNESS, Exactness
from gradbench.estimators.registry import Entry
from gradbench.testing.bias import POWER, RARE, Finding
from gradbench.testing.conduct import conduct, takes_black_box
from gradbench.testing.definitions import definition_checks
from gradbench.testing.depth import depth_checks
from gradbench.testing.draws import DRAWS
from gradbench.testing.objectives import OBJECTIVES
from gradbench.testing.problems import problems, special_problems
from gradbench.testing.requirement import Check
from gradbench.testing.trial import places, real_draws, try_all


@dataclass(frozen=True)
class Certificate:
    """The class of exactness that an estimator claims and the one that was found, with evidence.

    Attributes:
        name: the name of the estimator.
        claimed: the class that it claims, see ``check_estimator``; None if it claims nothing.
        found: the class that was found.
        findings: about its bias, one for each problem and class of objectives.
        checks: about its conduct as a function.
        refused: the problems that the estimator does not take, each with the reason.
    """

    name: str
    claimed: Exactness | None
    found: Exactness
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    refused: dict[str, str]

    @property
    def passed(self) -> bool:
        """True if it is at least as exact as it claims, and meets every requirement."""
        order = list(EXACTNESS)
        meets = self.claimed is None or order.index(self.found) <= order.index(self.claimed)
        return meets and all(check.passed for check in self.checks)

    @property
    def exact(self) -> bool:
        """True if every bias was enumerated, and none only tested."""
        return all(finding.exact for finding in self.findings)

    @property
    def bound(self) -> float:
        """The relative size of a bias that every test that found none would have detected."""
        return max((f.bound for f in self.findings if f.unbiased and not f.exact), default=0.0)

    @property
    def evidence(self) -> str:
        """How the absence of bias was established: by enumeration, or by tests of some power.

        No test sees events that are so rare that they did not happen in its draws.
        """
        if not self.bound:
            return "enumerated"
        return f"tested, {_limit_in_words(self.bound)}, but nothing rarer than {RARE:.0e}"

    @property
    def failed(self) -> list[str]:
        """The names of the requirements that are not met."""
        return [check.name for check in self.checks if not check.passed]

    def __str__(self) -> str:
        claim = f"claims {self.claimed}" if self.claimed else "claims nothing"
        header = ["problem", "objective", "relative bias", "by"]
        rows = [
            [
                f.problem,
                f.objective,
                "none" if f.unbiased else f"{f.bias:.2g}",
                "enumeration" if f.exact else f"test, {_limit_in_words(f.bound)}",
            ]
            for f in self.findings
        ]
        return "\n".join(
            [
                f"{self.name}: {claim}, found {self.found} ({EXACTNESS[self.found]})",
                "",
                *aligned([header, *rows]),
                *(f"{name}: refused ({reason})" for name, reason in self.refused.items()),
                *_limits(self.findings),
                "",
                *(
                    f"{c.name}: {'passed' if c.passed else f'FAILED, {c.seen}'}"
                    for c in self.checks
                ),
                "passed" if self.passed else "FAILED",
            ]
        )


def _limit_in_words(bound: float) -> str:
    return "its limit is not known" if bound == math.inf else f"would see {bound:.1%}"


def _limits(found: Sequence[Finding]) -> list[str]:
    """Return in words what no draws can tell."""
    lines = []
    if any(not f.exact for f in found):
        lines.append(
            f"A test sees nothing rarer than {RARE:.0e} a draw, however large. Its limit is "
            "not known where single draws have much of the variance."
        )
    if any(f.exact for f in found):
        lines.append(
            f"{DRAWS} real draws stand for the enumeration: what is rarer than "
            f"{-math.log(1 - POWER) / DRAWS:.0e} a draw may be missed if it is no function of the "
            "states or uniforms that were enumerated."
        )
    return lines


def check_all(seed: int = 0, say: Callable[[str], None] = lambda line: None) -> bool:
    """Check every estimator of the registry, installed plugins included.

    Args:
        seed: of problems and draws.
        say: is called with each line of a table, as the checks proceed.

    Returns:
        True if all have passed.

    Raises:
        GradbenchError: an estimator takes none of the problems.
    """
    plugins.load_installed("estimators")
    width = max(map(len, ESTIMATORS))
    form = f"{{:{width}}}  {{:11}}  {{:11}}  {{:48}}  {{}}"
    say(form.format("estimator", "claims", "found", "no bias is", "requirements"))
    passed = True
    for name in sorted(ESTIMATORS):
        step(f"check of {name}")
        found = check_estimator(name, seed=seed)
        requirements = f"FAILED: {', '.join(found.failed)}" if found.failed else "all met"
        claim = found.claimed or "nothing"
        say(form.format(name, claim, found.found, found.evidence, requirements))
        passed &= found.passed
    say("all passed" if passed else "FAILED")
    return passed


def check_estimator(
    estimator: str | Callable[..., Loss],
    claim: Exactness | None = None,
    seed: int = 0,
    depth: Sequence[str] | None = None,
) -> Certificate:
    """Find out what an estimator is exact for, and check how it behaves as a function.

    The mean of a draw is compared with the exact gradient on small random problems: one to four
    layers of up to five units, dense, convolutions, skip connections, binary weights, states -1 and
    +1 or 0 and 1, all noises, units whose rarer state has a probability down to 1e-12, objectives
    with terms of every layer and parameter; linear, multilinear, quadratic, cubic and other
    objectives. Where possible the mean is computed by enumeration of all paths or by integration
    over the uniforms, and must agree to 1e-10 (to 1e-6 for smooth draws), for every unit. Else it
    is tested by a z-test with a false-alarm rate of 1e-8, whose power is stated. Learned parts are
    fitted on the first problem and at their initial state on the others. Problems that can no
    longer change the class are left out.

    Real draws of the whole loss, on batches of five and one, in double and single precision, must
    have the mean and the variance that were enumerated. What the registry claims for networks of
    several layers (``DEPTHS``) is enumerated on networks of these kinds, and draws are compared
    with the definition of the estimator where there is one.

    A draw must be a pure function of its arguments, be the same under jit and vmap, have the
    structure and types of the parameters, and be finite where units saturate. Its value must
    estimate the loss.

    Args:
        estimator: a spec of the registry such as ``"concrete(temperature=0.1)"``; the place of a
            function as ``"module:function"``; or a function ``make(model) -> loss``.
        claim: a class of exactness (``unbiased``, ``one layer``, ``quadratic``, ``multilinear``,
            ``linear``, ``biased``) to check instead of the registry's.
        seed: of problems and draws.
        depth: names of ``DEPTHS`` to check instead of the registry's.

    Returns:
        The certificate, whether passed or not.

    Raises:
        GradbenchError: an unknown estimator or claim, an estimator that takes no problem, or a
            platform that computes wrong values.
    """
    if claim is not None and claim not in list(EXACTNESS):
        raise GradbenchError(f"the claim is {claim!r}; give one of {', '.join(EXACTNESS)}")
    at_least(0, "seed", seed)
    name, make, entry, arguments = _resolve(estimator)
    check_maker(make)
    check_platform()
    if depth is None:
        depth = entry.claim_in_depth(**arguments) if entry and claim is None else ()
    if unknown := [d for d in depth if d not in DEPTHS]:
        raise GradbenchError(
            f"the claim in depth is {unknown[0]!r}; give some of {', '.join(DEPTHS)}"
        )
    with float64(), outlines_kept():
        tried = try_all(make, problems(seed), seed)
        if not tried.taken:
            tried = try_all(make, special_problems(seed), seed)
        if not tried.taken:
            reason = next(iter(tried.refused.values()))
            raise GradbenchError(
                f"estimator {name!r} takes none of the problems of the check: {reason}"
            )
        where = places(make, tried)
        checks = conduct(make, where[0].problem, where[0].called)
        checks += real_draws(where, seed)
        checks += depth_checks(make, depth, seed, tried.moments)
        if entry is not None and not arguments:
            checks += definition_checks(make, entry.name, seed, tried.losses)
        black_box = takes_black_box(make, tried.taken)
    found = tried.found
    if entry is None or entry.estimates_value(**arguments):
        valued = all(finding.value_unbiased for finding in found)
        checks.append(Check("value", valued, "it does not estimate the loss"))
    claimed = claim
    if entry is not None:
        claimed = claim or entry.claim(**arguments)
        checks += _check_entry(entry, arguments, black_box, tried.refused)
    return Certificate(name, claimed, _classify(found), tuple(found), tuple(checks), tried.refused)


def _resolve(
    estimator: str | Callable[..., Loss],
) -> tuple[str, Callable[[Model], Loss], Entry | None, dict[str, Any]]:
    """Return the name, the maker and, if it is registered, the entry and the hyper-parameters."""
    if isinstance(estimator, str) and ":" in estimator.partition("(")[0]:
        path = estimator
        estimator = plugins.imported(path, "estimator")
        if not callable(estimator):
            raise GradbenchError(f"{path!r} is {estimator!r}; give a function of a model")
    if isinstance(estimator, str):
        known, arguments = get_estimator(estimator)
        return estimator, partial(known.make, **arguments), known, arguments
    check_maker(estimator)
    entry = next((e for e in ESTIMATORS.values() if e.make is estimator), None)
    return getattr(estimator, "__name__", repr(estimator)), estimator, entry, {}


def _check_entry(
    entry: Entry, arguments: dict[str, Any], black_box: bool | None, refused: dict[str, str]
) -> list[Check]:
    """Check what the registry says of the objective and of the number of layers."""
    checks = []
    if black_box is not None:
        word = "a black box" if black_box else "only a differentiable one"
        agrees = black_box != entry.needs_derivative(**arguments)
        checks.append(Check("objective", agrees, f"it takes {word}"))
    if entry.layers == "one":
        deep = {problem.name for problem in problems(0) if problem.deep}
        checks.append(Check("depth", deep <= set(refused), "it is for one layer and takes several"))
    elif not entry.needs:
        checks.append(Check("depth", not refused, f"it refuses {', '.join(refused)}"))
    return checks


def _classify(found: Sequence[Finding]) -> Exactness:
    """Return the best class of exactness that all findings agree with."""

    def without(objectives: Sequence[str], deep: bool) -> bool:
        """Return whether there is no bias on these objectives, with several layers or one."""
        return all(f.unbiased for f in found if f.deep == deep and f.objective in objectives)

    names = list(OBJECTIVES)
    if without(names, False) and without(names, True):
        return "unbiased" if any(f.random for f in found) else "exact"
    if all(f.deep for f in found):
        return "biased"
    if without(names, False):
        return "one layer"
    for best in ("quadratic", "multilinear", "linear"):
        if without(names[: names.index(best) + 1], False):
            return best
    return "biased"

"""How well the gradients are known that estimators are compared with."""

from collections.abc import Sequence

from gradbench.core.atomic import Json
from gradbench.core.specs import label
from gradbench.results.store import Results


def agreement(results: Results) -> str:
    """Return a line that tells how well the gradients that all is measured against are known."""
    places = dict.fromkeys(cell.place for cell in results.cells())
    found = [results.load_reference(place) for place in places]
    references = [reference for reference in found if reference is not None]
    samples = [one.info["samples"] for one in references if one.blocks is not None]
    exact = [one.info.get("agreement") for one in references if one.blocks is None]
    parts = [_sampled_line(samples, len(references))] if samples else []
    if exact or not samples:
        parts.append(_exact_line([one for one in exact if one is not None]))
    return "; ".join(parts)


def _sampled_line(samples: Sequence[Json], total: int) -> str:
    """Return how precisely sampled gradients are known, at worst, and what they are means of."""
    errors = [error for one in samples for error in one["rel_se"].values()]
    worst = max((error for error in errors if error is not None), default=None)
    known = "known to no precision" if worst is None else f"known to {100 * worst:.2g} % or better"
    if None in errors:
        known += ", in some layers not told from zero"
    draws, names = (
        max(one["draws"] for one in samples),
        {label(one["estimator"]) for one in samples},
    )
    where = "" if len(samples) == total else f" (at {len(samples)} of {total} places)"
    most = "" if len(samples) == 1 else "at most "
    return (
        f"sampled gradients{where}: {known} in every layer, from {most}{draws:,} draws of "
        f"{' and '.join(sorted(names))}; every interval includes their noise"
    )


def _exact_line(known: Sequence[Json]) -> str:
    """Return how well exact gradients were confirmed, at worst."""
    if not known:
        return "exact gradients: no check of them is stored"
    differences = max(one["finite difference"] for one in known)
    line = f"exact gradients: finite differences agree to {differences:.0e}"
    # None where a network is too large for the second route.
    routes = [one["brute force"] for one in known if one.get("brute force") is not None]
    if routes:
        where = "" if len(routes) == len(known) else f" (at {len(routes)} of {len(known)} places)"
        line = (
            f"exact gradients: two routes agree to {max(routes):.0e}{where}, "
            f"finite differences to {differences:.0e}"
        )
    return f"{line}, relative"

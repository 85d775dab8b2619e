"""The report of a suite of training: does a smaller error train better, and who trains best."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from gradbench import metrics
from gradbench.metrics.training import quantity_of
from gradbench.metrics.training_tables import tables_of
from gradbench.metrics.untrained import unfinished_runs
from gradbench.plots import drawings
from gradbench.plots.parts import chosen
from gradbench.plots.registry import FIGURES
from gradbench.plots.style import in_order
from gradbench.report.answer import answer, best_methods, continued_methods
from gradbench.report.figures import Wide
from gradbench.report.numbers import with_code
from gradbench.report.svg import embedded
from gradbench.results.quantities import LOSS
from gradbench.results.store import Results

_MOST = 30  # figures
_PIXELS = 110  # of an inch


def parts_of_page(results: Results) -> dict[str, Any]:
    """Return what the template ``training.html`` shows, besides what is on every page.

    Raises:
        GradbenchError: no run is finished, or files are damaged.
    """
    suite = results.manifest["suite"]
    plan = suite["plan"]
    ranked = metrics.trained(results)
    quantity = quantity_of(ranked)
    figures, left_out = _figures(results)
    seeds, steps = suite["replicates"], plan["steps"]
    optimisers = f"{len(plan['optimisers'])} optimiser" + "s" * (len(plan["optimisers"]) > 1)
    searched = "Rates were searched for each method with seeds that are not reported."
    return {
        "rates": searched if len(plan["rates"]) > 1 else f"The rate is {plan['rates'][0]:g}.",
        "lede": f"{len(suite['estimators'])} estimators, {optimisers}, "
        f"{seeds} seeds, {steps:,} steps of {plan['batch']} examples.",
        "unfinished": with_code(unfinished_runs(results)),
        "answer": _answer(results),
        "best": best_methods(ranked),
        "continued": continued_methods(ranked, plan.get("continuation")),
        "judged": f"They are judged by the {quantity.title}, of which {quantity.better} is better. "
        * (quantity != LOSS),
        "wide": figures,
        "left_out": left_out,
        "tables": tables_of(ranked),
    }


def _answer(results: Results) -> list[Markup]:
    """Return the sentences on errors and results, none where no error was to be measured."""
    if not results.manifest["suite"]["plan"]["measured"]:
        return []
    return answer(metrics.correlation(results), metrics.correlation(results, path="exact"))


def _figures(results: Results) -> tuple[list[Wide], str]:
    suite = results.manifest["suite"]
    frames: dict[str, Any] = {"learning": metrics.learning(results)}
    numbers = {name: k for k, name in enumerate(in_order(frames["learning"]))}
    every = list(drawings(suite, frames["learning"]))
    found = []
    # The answer first: the figures are in the order of their making otherwise.
    for k, drawing in enumerate(sorted(every, key=lambda one: one.function != "correlations")):
        if k == _MOST:
            break
        kind = FIGURES[drawing.function]
        if kind.data not in frames:
            read: Callable[[Results], Any] = getattr(metrics, kind.data)
            frames[kind.data] = read(results)
        rows = chosen(frames[kind.data], drawing.rows)
        if rows.empty:  # such as errors that were not measured
            continue
        figure = kind.draw(rows, **drawing.arguments)
        title = drawing.arguments.get("title", kind.name)
        svg = embedded(figure, f"w{k}", numbers, f"{title}. {kind.caption}")
        found.append(Wide(title, kind.caption, round(_PIXELS * figure.get_figwidth()), svg))
    more = len(every) - len(found)
    return found, f"{more} more of this kind: gradbench plot." if more else ""

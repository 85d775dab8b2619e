"""Put the tables that commands and published results print into the pages: ``make tables``."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "notebooks" / "site"))

import measure  # noqa: E402  # of notebooks/site

from gradbench.cli.main import main  # noqa: E402
from gradbench.core.specs import label  # noqa: E402
from gradbench.core.text import markdown  # noqa: E402
from gradbench.metrics.decision import decide  # noqa: E402
from gradbench.metrics.decisions import Case  # noqa: E402

BUDGETS = (10, 100, 1000)
TABLE = re.compile(
    r"(<!-- printed by: (?P<by>[^>]*?) -->\n).*?(?:(?<=\n)|\n)(<!-- the table ends here -->)",
    re.DOTALL,
)


def errors(frame: pd.DataFrame, budget: float) -> pd.Series:
    """Return the relative RMSE that a budget of evaluations pays for, by estimator, best first."""
    draws = np.floor(frame["evaluations"].rdiv(budget))
    squared = frame["bias2"].clip(lower=0) + frame["variance"] / draws
    found = pd.Series(np.sqrt(squared).to_numpy(), frame["estimator"])
    return found[(draws >= 1).to_numpy()].sort_values()


def verdict(layers: Sequence[str] = ("layer 1", "layer 2", "layer 3", "output", "network")) -> str:
    """Return which estimator is the best at equal cost, per layer and checkpoint of psa."""
    found = decide(measure.published_cells(), layers=layers)
    rows = [["layer", "epochs", *(f"{budget:,} evaluations" for budget in BUDGETS)]]
    for layer in layers:
        for place in found.places:
            cases = {case.budget: case for case in found.of(layer, place)}
            cells = [_best(cases[budget]) for budget in BUDGETS]
            rows.append([layer, str(place[2]).removeprefix("epoch "), *cells])
    return "\n".join(markdown(rows))


def _best(case: Case) -> str:
    return f"{', '.join(f'`{label(name)}`' for name in case.best)}: {case.rmse:.2g}"


def rebar() -> str:
    """Return bias and deviation of REBAR and its rivals, and their errors at equal cost."""
    frame = pd.read_csv(measure.HERE / "psa.csv")
    chosen = ("rebar", "dynamic_rebar", "disarm", "st_gumbel_softmax", "concrete(temperature=0.1)")
    titles = ["estimator", "evaluations", "bias", "std of a draw"]
    rows = [["layer", *titles, *(f"RMSE at {budget:,}" for budget in BUDGETS)]]
    first = frame[(frame["checkpoint"] == "epoch 1") & frame["estimator"].isin(chosen)]
    for layer in ("layer 1", "network"):
        part = first[first["layer"] == layer]
        for _, one in part.sort_values("variance", ascending=False).iterrows():
            own = part[part["estimator"] == one["estimator"]]
            cells = [errors(own, budget) for budget in BUDGETS]
            numbers = [f"{cell.iloc[0]:.2g}" if len(cell) else "" for cell in cells]
            bias = f"{np.sqrt(max(one['bias2'], 0)):.2g}"
            if one["bias_source"] == "test" and one["bias2_low"] <= 0:
                bias = f"< {np.sqrt(one['bias2_high']):.2g}"
            std = f"{np.sqrt(one['variance']):.2g}"
            rows.append(
                [layer, f"`{one['estimator']}`", f"{one['evaluations']:g}", bias, std, *numbers]
            )
    return "\n".join(markdown(rows))


TABLES: dict[str, Callable[[], str]] = {
    "make tables, verdict": verdict,
    "make tables, verdict of three": partial(verdict, ("layer 1", "layer 3", "network")),
    "make tables, rebar": rebar,
}


def pages() -> list[Path]:
    """Return the README and the pages of the guide."""
    return [ROOT / "README.md", *sorted((ROOT / "notebooks" / "guide").glob("*.md"))]


def with_tables(page: str) -> str:
    """Return a page with each table as its command prints it now."""
    return TABLE.sub(lambda found: f"{found[1]}{printed(found['by'])}\n{found[3]}", page)


def printed(command: str) -> str:
    """Return what one of ``TABLES``, or a command of gradbench, prints."""
    if command in TABLES:
        return TABLES[command]()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(command.removeprefix("gradbench ").split())
    return out.getvalue().rstrip("\n")


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_tables(page.read_text()))

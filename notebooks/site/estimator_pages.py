"""A page for each estimator, from the registry and from what was measured on networks of psa."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from measure import TABLE, why_not

from gradbench.cli.catalogue import facts
from gradbench.core.display import display_name
from gradbench.core.specs import format_spec, parse_spec
from gradbench.estimators import ESTIMATORS, Entry
from gradbench.plots.style import SETTINGS, styles

_LAYERS = ("layer 1", "layer 2", "layer 3", "network")
_BUDGETS = np.geomspace(1, 1e5, 61)
_SYMBOLS = r"""Here $a$ is the pre-activation of a unit and $z$ its noise with the distribution
function $F$; $x = \operatorname{sign}(a - z)$ is the state, $b = (x + 1) / 2$ the same as a bit,
$p = F(a)$ the probability of $b = 1$, $\ell$ the logit of $p$, $\sigma$ the logistic function, $u$
uniform on $(0, 1)$, and $f$ the objective. $g$ is one draw of the gradient in $a$, $g_\ell$ the one
in $\ell$, and := gives a derivative or a value in the place of the true one. $x^{(i)}$ are the
states with unit $i$ flipped."""


def measured() -> pd.DataFrame:
    """Return bias and variance of each estimator per checkpoint and layer, see ``measure.py``."""
    return pd.read_csv(TABLE)


def error(row: pd.Series, budgets: np.ndarray) -> np.ndarray:
    """Return the relative RMSE of as many draws as a budget of evaluations pays for.

    It is NaN where that is less than one draw, and where a bias that was not seen could matter: a
    test found none, and its upper limit exceeds the deviation.
    """
    draws = np.floor(budgets / row["evaluations"])
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = row["variance"] / draws
        squared = max(row["bias2"], 0.0) + deviation
        unknown = (row["bias_source"] == "test") & (row["bias2_low"] <= 0)
        hidden = (draws < 1) | (unknown & (row["bias2_high"] > deviation))
    return np.where(hidden, np.nan, np.sqrt(squared))


def curve(name: str, frame: pd.DataFrame) -> Figure:
    """Return the figure of an estimator: RMSE at equal cost, beside all others in grey."""
    own = [spec for spec in frame["estimator"].unique() if parse_spec(spec)[0] == name]
    measured_at = frame[frame["estimator"].isin(own)].groupby("checkpoint", sort=False)["estimator"]
    epochs = [at for at, specs in measured_at if specs.nunique() == len(own)]
    lines = ("-", "--", ":", "-.")
    with rc_context(SETTINGS):
        figure = Figure(figsize=(8.2, 0.6 + 1.9 * len(epochs)), layout="constrained")
        shape = len(epochs), len(_LAYERS)
        axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        color = styles([name])[name].color
        for row, epoch in zip(axes, epochs, strict=True):
            for ax, layer in zip(row, _LAYERS, strict=True):
                part = frame[(frame["checkpoint"] == epoch) & (frame["layer"] == layer)]
                others = []
                for _, one in part.iterrows():
                    values = error(one, _BUDGETS)
                    if one["estimator"] not in own:
                        others.append(np.column_stack([_BUDGETS, values])[np.isfinite(values)])
                        continue
                    kind = lines[own.index(one["estimator"]) % 4]
                    name = display_name(one["estimator"])
                    ax.plot(_BUDGETS, values, ls=kind, color=color, lw=2.0, zorder=3, label=name)
                ax.add_collection(LineCollection(others, colors="0.85", lw=1.0))
                ax.set(xscale="log", yscale="log", ylim=(1e-3, 1e3))
                ax.set_title(layer if epoch == epochs[0] else "")
                ax.minorticks_off()
            row[0].set_ylabel(f"relative RMSE, {epoch}")
        for ax in axes[-1]:
            ax.set_xlabel("evaluations")
        if len(own) > 1:
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(own))
    return figure


def page(name: str, drawn: bool) -> str:
    """Return the page of an estimator, in Markdown."""
    entry = ESTIMATORS[name]
    known = {fact: _marked(text) for fact, text in facts(name)}
    source, paper = known.pop("source"), known.pop("paper", "")
    rows = [("spec", f"`{format_spec(name, entry.hyperparameters)}`"), *known.items()]
    first, *others = source.split("; ")
    cited = "; ".join([f"[{first}]({paper})" if paper else first, *others])
    table = "\n".join(f"| {fact} | {text} |" for fact, text in [*rows, ("source", cited)])
    figure = (
        f"![Relative RMSE of {name}]({name}.svg)\n\n{_CURVE}" if drawn else _without_curve(entry)
    )
    return "\n".join(
        [
            f"# {display_name(name)}",
            "",
            f"`{name}`: **{entry.full_name}**, exact for {entry.describe().exact_for}.",
            "",
            f"$$\n{entry.formula}\n$$",
            "",
            figure,
            "",
            "| | |",
            "|---|---|",
            table,
            "",
            "```{eval-rst}",
            f".. autofunction:: gradbench.estimators.{name}",
            "```",
            "",
            f"**Symbols.** {_SYMBOLS}",
            "",
        ]
    )


_CURVE = (
    "In colour, its relative RMSE at equal cost on the networks of the suite "
    "[psa](../../guide/suites.md); in grey the others that were measured there. A curve levels off "
    "at its bias. It begins where the budget pays for one draw, and ends where a bias that was not "
    "seen could matter."
)


def _without_curve(entry: Entry) -> str:
    """Return why an estimator has no curve."""
    why = why_not(entry.name) or "it has not been measured there"
    if entry.needs:
        why = f"it needs {entry.needs}"
    elif entry.layers == "one":
        why = "it is for one layer, and these have three"
    return f"It has no curve on the networks of the suite [psa](../../guide/suites.md): {why}."


def _marked(text: str) -> str:
    """Return a text of a table cell."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", text)


def index(names: list[str]) -> str:
    """Return the page that lists all estimators."""
    rows = [
        f"| [{display_name(name)}]({name}.md), {ESTIMATORS[name].full_name} | "
        f"${ESTIMATORS[name].formula.replace('|', chr(92) + 'vert ')}$ |"
        for name in names
    ]
    return "\n".join(
        [
            "# Estimators",
            "",
            f"All {len(names)} estimators of the package; [the table](../../guide/estimators.md) "
            "compares class, cost and needs, and [the FAQ](../../guide/faq.md) says which to use.",
            "",
            "| estimator | formula |",
            "|---|---|",
            *rows,
            "",
            f"**Symbols.** {_SYMBOLS}",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            "/guide/estimators",
            *names,
            "```",
            "",
        ]
    )


def write(folder: Path) -> list[Path]:
    """Write the pages of all estimators and their figures into a folder, and return the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = measured()
    with_curve = {parse_spec(spec)[0] for spec in frame["estimator"]}
    names = sorted(ESTIMATORS)
    for name in names:
        file = folder / f"{name}.svg"
        drawn = file.exists() and file.stat().st_mtime > TABLE.stat().st_mtime
        if name in with_curve and not drawn:
            curve(name, frame).savefig(file, metadata={"Date": None})
        (folder / f"{name}.md").write_text(page(name, name in with_curve))
    (folder / "index.md").write_text(index(names))
    return [folder / f"{name}.md" for name in ("index", *names)]

"""The report: one self-contained HTML file on which estimator to use, and why.

It loads nothing: styles, script and figures are inside. Without JavaScript it shows everything,
one part below the other.
"""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gradbench import metrics
from gradbench.core.atomic import refuse_other_than_file, write_file
from gradbench.core.display import display_names
from gradbench.core.progress import step
from gradbench.core.specs import label
from gradbench.metrics import all_metrics
from gradbench.metrics.agreement import agreement
from gradbench.metrics.directory import Cells, Directory, read_cells
from gradbench.metrics.frames import MOST, Frames
from gradbench.metrics.left_out import reasons
from gradbench.metrics.places import member
from gradbench.metrics.untrained import is_training
from gradbench.metrics.verdict_text import judged, layer_text, main_layers
from gradbench.plots import MANY
from gradbench.plots.style import families_in, family_of, in_order, styles
from gradbench.report.choices import Choice, choices
from gradbench.report.figures import pictures, wide_figures
from gradbench.report.formulas import mathml
from gradbench.report.glossary import TERMS, entries, full_name
from gradbench.report.numbers import about, marked, with_code
from gradbench.report.places import places_of, rivals
from gradbench.report.svg import swatch
from gradbench.report.tables import bias_grid, rows_of, shown_metrics
from gradbench.report.training import parts_of_page
from gradbench.report.words import words
from gradbench.results.published import beside
from gradbench.results.store import Results

__all__ = ["write_report"]
_COSTS = {  # of which the first is the one that the verdict is by
    "evaluations": "Evaluations of the objective",
    "seconds": "Measured time",
    "draws": "Draws (no equal cost)",
}
_AXES = {
    "evaluations": "evaluations of the objective",
    "seconds": "measured time",
    "draws": "number of draws M",
}


def write_report(directory: Directory | Cells, out: str | Path | None = None) -> Path:
    """Write the report of a directory of results.

    Args:
        directory: a directory of results, its path, or some of its cells. The run may be
            unfinished; the report then tells what is missing.
        out: the file, ``report.html`` in the directory by default.

    Returns:
        The path of the file.

    Raises:
        GradbenchError: there are no results, files are damaged (the sentence names them), no cell
            is finished, or the file cannot be written.
    """
    cells = read_cells(directory)
    path = Path(out) if out is not None else beside(cells.results) / "report.html"
    refuse_other_than_file(path)  # before the work of minutes
    step("report")
    page = html(cells)
    write_file(path, page.encode())
    return path


def html(results: Directory | Cells) -> str:
    """Return the page as text.

    Cells are read once, and of their draws only the moments are kept.

    Raises:
        GradbenchError: files are damaged (the sentence names them), or no cell is finished.
    """
    read = read_cells(results)
    found = read.results
    suite = found.manifest["suite"]
    if is_training(found.manifest):
        made = found.manifest["provenance"]
        return _template("training.html").render(
            title=suite["title"],
            css=_part("report.css"),
            origin=_origin(found),
            version=made.get("gradbench") or "unknown",
            **parts_of_page(found),
        )
    table = Frames(["curves", "coordinates"])
    for cell in read:
        table.add(cell)
    frames = table.frames()
    some = [cell for cell in table.cells if rivals([cell.estimator])]
    curves = frames["curves"]
    summary = curves[curves["M"] == 1].reset_index(drop=True)
    places = places_of(summary)
    names = in_order(summary)
    numbers = {name: number for number, name in enumerate(names)}
    costs = [cost for cost in _COSTS if cost == "draws" or summary[cost].notna().any()]
    frames["summary"] = summary
    figures, left_out = pictures(frames, places, numbers, costs)
    if table.wide:
        left_out += f" Layers of more than {MOST} coordinates have no map of their biases."
    wide, wide_left_out = wide_figures(suite, frames, numbers)
    rows, every_layer = rows_of(summary, places)
    bias = metrics.unbiasedness(some)
    bias = bias[bias["verdict"] != "zero gradient"] if len(bias) else bias
    bias_layers, bias_rows = bias_grid(bias) if len(bias) else ([], {})
    verdicts = {cost: metrics.decide(some, cost) for cost in _COSTS} if some else {}
    verdict = verdicts.get("evaluations", metrics.Verdict("evaluations", {}, {}, ()))
    main = main_layers(verdict)
    others = [layer for layer in verdict.layers if layer not in main]
    known = {cost: one for cost, one in verdicts.items() if cost in costs}
    network = choices(known, places, main)
    families: dict[str, list[int]] = {}
    for name in names:
        families.setdefault(family_of(name, families_in(summary)), []).append(numbers[name])
    made = found.manifest["provenance"]
    return _template().render(
        title=suite["title"],
        lede=_lede(found, names),
        css=_part("report.css"),
        js=_part("report.js"),
        unfinished=with_code(read.unfinished()),
        not_measured=reasons(found.manifest.get("left_out", {})),
        marked=marked,
        words=words(verdict, some, summary, places, bias, made.get("device") or "unknown"),
        judged=judged(verdict),
        layer_text=layer_text,
        network=network,
        ticked=_ticked(names, network),
        by_layer=choices(known, places, others) if every_layer else [],
        agreement=_sentence(agreement(found)),
        costs={cost: _COSTS[cost] for cost in costs},
        axes=_AXES,
        places=places,
        layers=list(dict.fromkeys(layer for place in places for layer in place.layers)),
        names=names,
        numbers=numbers,
        labels=list(display_names(names, metrics.names_in(summary)).values()),
        full_names=[full_name(name) for name in names],
        specs=[label(name) for name in names],
        glossary=entries(names, numbers),
        terms=TERMS,
        formulas={name: mathml(one.formula, one.meaning) for name, one in all_metrics().items()},
        file=re.sub(r"[^a-z0-9]+", "-", suite["name"].lower()).strip("-")[:40] or "results",
        swatches=[swatch(look) for look in styles(summary).values()],
        families=families,
        wide=wide,
        wide_left_out=wide_left_out,
        figures=figures,
        left_out=left_out,
        columns=_columns(),
        rows=rows,
        every_layer=every_layer,
        bias_layers=bias_layers,
        bias_rows=bias_rows,
        tests=int(bias["p"].notna().sum()) if len(bias) else 0,
        origin=_origin(found),
        metrics=all_metrics(),
        version=made.get("gradbench") or "unknown",
    )


def _ticked(names: Sequence[str], network: Sequence[Choice]) -> set[int]:
    """Return the estimators that figures show at first: all or, of many, those best somewhere."""
    shown = (one for choice in network for ranges in choice.ranges.values() for one in ranges)
    best = {name for one in shown for name in one.best}
    chosen = best if best and len(names) > MANY else set(names)
    return {number for number, name in enumerate(names) if name in chosen}


def _template(name: str = "report.html") -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_part(name))


def _part(name: str) -> Markup:
    return Markup(resources.files(__package__).joinpath(name).read_text("utf-8"))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


_FIRST = ("rmse", "bias", "std", "cosine")  # metrics that the main table shows at first


def _columns() -> list[dict[str, Any]]:
    cost = {"better": "low", "more": False}
    alone = "time of a draw that is made alone"
    return [
        *(
            {"title": one.title, "meaning": one.meaning, "better": one.better}
            | {"more": name not in _FIRST}
            for name, one in shown_metrics().items()
        ),
        {"title": "evaluations", "meaning": "of the objective, per draw and example", **cost},
        {"title": "time", "meaning": "measured, of a draw among many, of the whole batch", **cost},
        {"title": "single draw", "meaning": alone, "better": "low", "more": True},
    ]


def _lede(found: Results, names: Sequence[str]) -> str:
    suite = found.manifest["suite"]
    titles = list(dict.fromkeys(problem["title"] for problem in suite["problems"]))
    shown = "; ".join(titles[:3]) + ("; …" if len(titles) > 3 else "")
    return f"{shown}. {len(names)} estimators, {about(found.manifest['draws'])} draws of each."


def _origin(found: Results) -> list[tuple[str, Any]]:
    """Return what a reader needs to reproduce these numbers."""
    manifest = found.manifest
    made, suite = manifest["provenance"], manifest["suite"]
    terms = [
        ("suite", suite["name"]),
        ("problems", ", ".join(member(problem["name"]) for problem in suite["problems"])),
        ("seed", manifest["seed"]),
        ("draws per cell", manifest["draws"]),
        ("replicates", suite["replicates"]),
        ("precision", suite["dtype"]),
        ("begun", manifest["created"]),
        *_versions(made),
    ]
    terms += [
        (f"continued {later['created']}", _in_line(_versions(later["provenance"])))
        for later in manifest.get("continued", [])
    ]
    return terms


def _versions(made: dict[str, Any]) -> list[tuple[str, str]]:
    """Return versions, device and commit of a run."""
    commit = made.get("commit")
    if commit and made.get("modified"):
        commit += ", with uncommitted changes"
    device = f"{made.get('device')} ({made.get('platform')}, {made.get('cores')} cores)"
    packages = ("gradbench", "jax", "jaxlib", "numpy", "python")
    terms = [
        ("versions", ", ".join(f"{name} {made[name]}" for name in packages if made.get(name))),
        ("device", device),
        ("commit", commit or "unknown"),
    ]
    if made.get("plugins"):
        terms.append(("plugins", ", ".join(map(str, made["plugins"]))))
    return terms


def _in_line(terms: list[tuple[str, str]]) -> str:
    return "; ".join(f"{term}: {text}" for term, text in terms)

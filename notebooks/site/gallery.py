"""The gallery: every figure that a suite draws, with the script that draws it anew.

    python notebooks/site/gallery.py [SUITE ...]  # measures suites again: some minutes for all

The results of small suites, in gallery_suites, are kept in gallery_results. The site is drawn from
these, so that its figures are those of the present code.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib import rc_context

import gradbench
from gradbench import metrics, plots
from gradbench.results.store import Results

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "gallery_results"
SUITES = ("accuracy", "along", "width", "temperature")
_KEPT = ("manifest.json", "checkpoints", "references", "moments", "costs", "shards")


def section(folder: Path, name: str) -> Iterator[str]:
    """Draw the figures of a suite into a folder, and yield the lines of its section."""
    results = Results.open(RESULTS / name)
    suite = results.manifest["suite"]
    frames = {
        kind: getattr(metrics, kind)(results) for kind in ("summary", "curves", "coordinates")
    }
    yield f"## {suite['title']}\n"
    for drawing in plots.drawings(suite, frames["summary"]):
        rows = frames[drawing.data]
        for column, values in drawing.rows.items():
            rows = rows[rows[column].isin(values)]
        own = f"{name}-{drawing.name}"
        figure = getattr(plots, drawing.function)(rows, **drawing.arguments)
        with rc_context(plots.SETTINGS):
            figure.savefig(folder / f"{own}.svg", metadata={"Date": None})
        (folder / f"{own}.txt").write_text(drawing.script(RESULTS / name / "figures"))
        yield f"### {drawing.name.replace('-', ' ')}\n\n![{own}](gallery/{own}.svg)\n"
        yield f"```{{literalinclude}} gallery/{own}.txt\n:language: python\n```\n"


def write(folder: Path) -> list[Path]:
    """Write the page and its figures into a folder, and return the page."""
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery\n\nFigures of small suites, as `gradbench plot` draws them, each above the "
        "short script that is written beside it and draws it anew through `gradbench.plots`. The "
        "suites are in `notebooks/site/gallery_suites`.\n"
    ]
    for name in SUITES:
        lines += section(folder / "gallery", name)
    page = folder / "gallery.md"
    page.write_text("\n".join(lines))
    return [page]


def measure(name: str) -> None:
    """Measure a suite, and keep its results."""
    with TemporaryDirectory() as temporary:
        made = Path(temporary, name)
        gradbench.run(str(HERE / "gallery_suites" / f"{name}.toml"), made)
        keep(made)


def keep(made: Path) -> None:
    """Copy results, without figures, to where the gallery reads them."""
    target = RESULTS / made.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for part in _KEPT:
        if (made / part).is_dir():
            shutil.copytree(made / part, target / part)
        elif (made / part).exists():
            shutil.copyfile(made / part, target / part)


if __name__ == "__main__":
    for suite in sys.argv[1:] or SUITES:
        measure(suite)

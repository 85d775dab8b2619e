"""The guide to figures for a paper: its options, figures and names exist."""

import re
from pathlib import Path

from gradbench import plots
from gradbench.core.display import display_name
from gradbench.core.specs import canonical
from gradbench.estimators import ESTIMATORS
from gradbench.plots.view import OPTIONS, WIDTHS

PAGE = (Path(__file__).parents[2] / "notebooks" / "guide" / "figures.md").read_text("utf-8")


def test_the_options_and_names_of_the_guide_exist():
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(re.findall(r"^ +(\w+):", OPTIONS, re.MULTILINE)) <= set(table)
    assert {"title", "relative"} <= set(table)
    for name, inches in WIDTHS.items():
        assert re.search(rf'"{name}"`? \({inches:g}', PAGE)
    for name in re.findall(r"--figure (\w+)", PAGE):
        assert callable(getattr(plots, name))
    for spec, text in re.findall(r"display_name\(\"(.*?)\"\)\)  # (.*)", PAGE):
        assert display_name(spec) == text
    for spec in re.findall(r"--estimator \"?([\w]+)", PAGE):
        assert canonical(spec) in ESTIMATORS

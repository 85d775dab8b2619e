"""The guide to figures for a paper: its code runs, its options and commands exist."""

import re
from pathlib import Path

import pytest
from stored import write_run

from gradbench import plots
from gradbench.core.specs import canonical
from gradbench.estimators import ESTIMATORS
from gradbench.plots.view import OPTIONS, WIDTHS

PAGE = (Path(__file__).parents[2] / "notebooks" / "guide" / "figures.md").read_text("utf-8")


@pytest.mark.slow
def test_the_code_of_the_guide_runs_on_results_of_these_estimators(tmp_path, monkeypatch, capsys):
    write_run(
        tmp_path / "results" / "quick",
        problems=["a"],
        replicates=1,
        checkpoints=[1],
        estimators=["psa", "straight_through", "concrete(temperature=1)"],
    )
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    for name in ("rmse", "plane", "cost"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert r"\begin{tabular}" in capsys.readouterr().out
    for text in re.findall(r"display_name\(\"(.*?)\"\)\)  # (.*)", PAGE):
        assert names["display_name"](text[0]) == text[1]


def test_the_options_and_names_of_the_guide_exist():
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(re.findall(r"^ +(\w+):", OPTIONS, re.MULTILINE)) <= set(table)
    assert {"title", "relative"} <= set(table)
    for name, inches in WIDTHS.items():
        assert re.search(rf'"{name}"`? \({inches:g}', PAGE)
    for name in re.findall(r"--figure (\w+)", PAGE):
        assert callable(getattr(plots, name))
    for spec in re.findall(r"--estimator \"?([\w]+)", PAGE):
        assert canonical(spec) in ESTIMATORS

"""The notebooks: each runs in a fresh kernel, and the committed outputs are those of that run."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
sys.path.insert(0, str(ROOT / "notebooks" / "site"))
from execute import METADATA, WIDGET, digest, execute, notebooks  # noqa: E402  # of that folder
from reference_pages import PAGES  # noqa: E402

NAMES = {"explorer", "papers", "quickstart", "your_estimator", "your_model"}
EXAMPLES = sorted((ROOT / "notebooks" / "examples").rglob("*.py"))
LARGEST = 300_000  # bytes
MEND = "look at what has changed, then `make notebooks`"
# Cells that are run after those of a notebook, which would fail if a control moved nothing.
PROBES = {
    "explorer": """
depth = next(w for w in controls.children if getattr(w, "description", "") == "depth")
before = controls.result
depth.value = 1
assert controls.result is not before
assert [ax.get_title() for ax in controls.result.axes] == ["layer 1", "output"]
"""
}
every_notebook = pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """What an output says in words; those of a picture are its size."""
    if output.output_type == "stream":
        return [output.text]
    if "image/png" in output.data:
        return []
    return [output.data[kind] for kind in ("text/plain", "text/html") if kind in output.data]


def kinds(output):
    return output.output_type, output.get("name"), sorted(output.get("data", {}))


def same(one, two):
    """Whether two texts are equal, numbers up to a unit in the last place or to rounding."""
    number = re.compile(r"-?\d+(?:\.(?P<digits>\d+))?(?P<power>e[+-]?\d+)?")
    if number.sub("#", " ".join(one.split())) != number.sub("#", " ".join(two.split())):
        return False
    for a, b in zip(number.finditer(one), number.finditer(two), strict=True):
        unit = float(f"1{a['power'] or ''}") * 10.0 ** -len(a["digits"] or "")
        if abs(float(a[0]) - float(b[0])) > max(1.001 * unit, 1e-9):
            return False
    return True


def test_all_notebooks_are_there():
    assert {path.stem for path in notebooks()} == NAMES


@every_notebook
@pytest.mark.slow
def test_a_fresh_kernel_gives_the_committed_outputs_and_no_warning(path):
    committed, fresh = code(read(path)), read(path)
    probes = [nbformat.v4.new_code_cell(PROBES[path.stem])] if path.stem in PROBES else []
    fresh.cells += probes
    execute(fresh)  # raises what a cell raises
    assert not [o.text for cell in code(fresh) for o in cell.outputs if o.get("name") == "stderr"]
    for old, new in zip(committed + probes, code(fresh), strict=True):
        where = f"cell {new.id}: {MEND}"
        assert list(map(kinds, old.outputs)) == list(map(kinds, new.outputs)), where
        for before, after in zip(old.outputs, new.outputs, strict=True):
            for one, two in zip(texts(before), texts(after), strict=True):
                assert same(one, two), f"{where}\n{one}\n{two}"


@every_notebook
def test_it_is_committed_as_executed_from_top_to_bottom(path):
    cells = code(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)


@every_notebook
def test_it_is_small_and_tells_nothing_of_the_machine_it_was_made_on(path):
    notebook = read(path)
    assert path.stat().st_size < LARGEST
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z-]*", cell.id)  # named, so that differences stay readable
        assert not cell.metadata
        words = [cell.source, *(t for output in cell.get("outputs", []) for t in texts(output))]
        assert not [w for w in words if re.search(r"/(home|root|tmp|usr|var|work|Users)\b", w)]
        assert not any(WIDGET in output.get("data", {}) for output in cell.get("outputs", []))
    assert notebook.metadata == METADATA | {"executed": notebook.metadata["executed"]}


@every_notebook
def test_its_outputs_are_of_its_code(path):
    notebook = read(path)
    assert notebook.metadata["executed"] == digest(notebook), MEND
    code(notebook)[0].source += " "
    assert notebook.metadata["executed"] != digest(notebook)


def internal(source):
    """The modules of gradbench that some source imports though they are not public."""
    found = []
    for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module)
    return [name for name in found if name.startswith("gradbench") and name not in PAGES]


@every_notebook
def test_it_imports_what_is_public_alone(path):
    for cell in code(read(path)):
        assert internal(cell.source) == []


@every_notebook
def test_its_figures_are_those_of_gradbench(path):
    for cell in code(read(path)):
        source = re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE)
        assert "matplotlib" not in source
        assert not re.search(r"\b(plt|ax|axes)\.", source)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_what_is_public_alone(path):
    assert internal(path.read_text()) == []


def test_an_internal_module_would_be_seen():
    assert internal("from gradbench.core.run import sampled") == ["gradbench.core.run"]
    assert internal("import gradbench.plots.style") == ["gradbench.plots.style"]
    assert internal("from gradbench.core import sampled\nfrom gradbench import plots") == []


def test_every_claim_of_the_papers_is_followed_by_its_check():
    cells = read(ROOT / "notebooks" / "papers.ipynb").cells
    claims = [k for k, cell in enumerate(cells) if re.search(r"\*\*Claims?\b", cell.source)]
    assert len(claims) == 6
    for k in claims:
        assert "**Check.**" in cells[k].source
        assert re.search(r"^ *(assert |np\.testing\.)", cells[k + 1].source, re.MULTILINE)


def test_without_its_extra_the_explorer_says_in_a_sentence_what_to_install(monkeypatch):
    source = next(c.source for c in code(read(ROOT / "notebooks" / "explorer.ipynb")))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    sentence = r"needs ipywidgets .*pip install 'gradbench\[notebooks\]'"
    with pytest.raises(ImportError, match=sentence):
        exec(source.replace("%matplotlib inline", ""), {})


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        ("bias 0.25, 3e-16", "bias  0.26, 8e-16", True),
        ("bias 0.25", "bias 0.27", False),
        ("std 1.242(10)", "std 1.242(11)", True),
        ("found biased", "found unbiased", False),
        ("50 draws", "52 draws", False),
    ],
)
def test_texts_are_compared_up_to_their_last_digit(one, two, equal):
    assert same(one, two) == equal

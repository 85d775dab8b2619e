"""The pages of the guide tell the truth: code runs, links lead somewhere, the site builds.

A block of Python is run, those of a page one after the other; a block that begins with the name of
a file is that file. Commands are run in the same folder. ``NOT_RUN`` says what is not run, and why.
"""

import ast
import importlib
import re
import subprocess
import sys
import tomllib

import click
import nbformat
import pytest
from pages import NOTEBOOKS, PAGES, ROOT, blocks, commands, headings, links, name, prose

from gradbench.cli.group import cli
from gradbench.cli.main import main
from gradbench.core.specs import parse_spec
from gradbench.estimators import ESTIMATORS
from gradbench.report.formulas import convert, parts

sys.path[:0] = [str(NOTEBOOKS), str(NOTEBOOKS / "site")]
import readme_tables  # noqa: E402  # of these folders
import reference_pages  # noqa: E402

NOT_RUN = {
    "yaml": "a workflow of a server: its commands are parsed",
    "bash": "a script of a cluster: its commands are parsed",
    "": "what a command prints, or commands that other blocks run",
}
RUN = ("python", "console", "toml")
# Pages whose code has tests of its own.
ELSEWHERE = {
    "add_your_own": "test_extending.py",
    "command_line": "cli/test_guide.py",
    "data": "cli/test_data_command.py",
    "training": "test_training_page.py",
}
run_here = [page for page in PAGES if page.stem not in ELSEWHERE]
every_page = pytest.mark.parametrize("page", PAGES, ids=name)
every_page_of_these = pytest.mark.parametrize("page", run_here, ids=name)
with_code = [page for page in run_here if any(b.language in RUN for b in blocks(page))]


def run(page, folder):
    """Run the Python of a page in a folder, and then its commands; return its names."""
    names = {"__name__": page.stem}
    own = {}
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.language == "python":
            before = set(ESTIMATORS)
            exec(compile(block.text, f"{page.stem}.md", "exec"), names)
            own |= dict.fromkeys(set(ESTIMATORS) - before, block.file)
    for estimator in own:  # a plugin is loaded anew where a command asks for it
        del ESTIMATORS[estimator]
    for block in blocks(page):
        if block.language == "console":
            for command in commands(block.text):
                assert main(command) == 0, command
    for estimator in own:
        if estimator in ESTIMATORS.names():
            del ESTIMATORS[estimator]
    return names


@pytest.mark.parametrize("page", with_code, ids=name)
@pytest.mark.slow
# A loaded machine may need more time than a page allows.
@pytest.mark.filterwarnings("ignore:.*within the time limit")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGER", "cat")
    run(page, tmp_path)


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_a_page_that_is_not_run_here_is_run_there(page, test):
    source = (ROOT / "tests" / test).read_text()
    assert re.search(rf'"guide" / "{page}\.md"', source)


@every_page_of_these
def test_every_block_of_a_page_is_run_or_has_a_reason(page):
    for block in blocks(page):
        assert block.language in (*RUN, *NOT_RUN), block.text
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "python":
            ast.parse(block.text)
        if block.language == "console":
            lines = block.text.strip().splitlines()
            assert all(line.startswith("$ gradbench ") for line in lines), block.text


@every_page_of_these
def test_every_command_of_a_page_is_one_with_these_options(page):
    for words in commands(page.read_text()):
        known = cli
        if not words[0].startswith("-"):
            known = cli.get_command(click.Context(cli), words[0])
        assert known is not None, words
        options = {
            option for param in known.get_params(click.Context(known)) for option in param.opts
        }
        asked = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert asked <= options, words


@pytest.mark.parametrize("wrong", ["gradbench rum psa", "gradbench run psa --drows 3"])
def test_a_wrong_command_would_be_seen(wrong, tmp_path):
    (tmp_path / "page.md").write_text(f"```console\n$ {wrong}\n```\n")
    with pytest.raises(AssertionError):
        test_every_command_of_a_page_is_one_with_these_options(tmp_path / "page.md")


# ------------------------------------------------------------------------------------------ links


def generated():
    """The pages that are written when the site is built."""
    folder = NOTEBOOKS / "generated"
    names = [f"estimators/{name}.md" for name in ("index", *sorted(ESTIMATORS))]
    names += [f"api/{name}.md" for name in ("index", *reference_pages.PAGES)]
    return {folder / name for name in (*names, "gallery.md")}


def broken(path, text):
    """The links of a text in a file that lead nowhere; of those to elsewhere only the form."""
    found = []
    for link in links(text):
        if re.match(r"\w+:", link):
            good = re.fullmatch(r"https://[\w.-]+\.\w+(/[^\s<>]*)?", link)
        else:
            target, _, anchor = link.partition("#")
            there = (path.parent / target).resolve() if target else path
            good = there in generated() or there.is_file()
            good = good and (not anchor or anchor in headings(there))
        if not good:
            found.append(link)
    return found


@every_page
def test_the_links_of_a_page_lead_somewhere(page):
    assert broken(page, prose(page)) == []


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=name)
def test_the_links_of_a_notebook_lead_somewhere(path):
    cells = nbformat.read(path, as_version=4).cells
    texts = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert broken(path, texts) == []


def test_a_broken_link_would_be_seen():
    page = NOTEBOOKS / "guide" / "start.md"
    wrong = ["gone.md", "faq.md#gone", "http://plain.org", "../generated/estimators/gone.md"]
    assert broken(page, " ".join(f"[a]({link})" for link in wrong)) == wrong
    right = ["#install", "faq.md#which-one-should-i-use", "../generated/estimators/psa.md"]
    assert broken(page, " ".join(f"[a]({link})" for link in right)) == []


def test_every_page_is_in_the_table_of_contents():
    contents = (NOTEBOOKS / "index.md").read_text()
    for page in PAGES[2:]:
        if page.stem != "estimators":  # below the pages of estimators
            assert f"\nguide/{page.stem}\n" in contents, page.stem


# ------------------------------------------------------------------------------ what they say is so


@every_page
def test_the_tables_of_a_page_are_what_its_commands_print(page):
    text = page.read_text()
    assert readme_tables.with_tables(text) == text, "make tables"


def test_a_table_that_is_old_would_be_seen():
    page = (NOTEBOOKS / "guide" / "faq.md").read_text()
    assert readme_tables.with_tables(page.replace("| layer 1 | 1 |", "| layer 9 | 1 |")) == page


@every_page
def test_functions_files_and_targets_of_a_page_exist(page):
    text = page.read_text()
    for path in re.findall(r"gradbench((?:\.\w+)+)\(", text):
        thing = importlib.import_module("gradbench")
        for part in path.split(".")[1:]:
            thing = getattr(thing, part)
        assert callable(thing), path
    for path in re.findall(r"`((?:gradbench|notebooks|tests|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path.replace("/SUITE", "/psa")).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)|^    make (\w+)", text):
        assert f"\n{''.join(target)}:" in makefile, target


def test_every_formula_can_be_drawn():
    for estimator, entry in ESTIMATORS.items():
        assert entry.formula, estimator
        drawn = convert(entry.formula)
        assert "\\" not in drawn and drawn.startswith("<math"), estimator
        assert ":" not in re.sub(r'xmlns="[^"]*"', "", drawn), estimator  # := is one sign


def test_a_formula_is_broken_at_wide_spaces_and_between_terms_alone():
    assert parts(r"a = b, \quad c = -d + e") == [["a = b,"], ["c = -d", "+ e"]]
    assert parts(r"a = (b - c)\,\text{d \quad e}") == [[r"a = (b - c)\,\text{d \quad e}"]]
    cases = r"\begin{cases} a & b - c \\ d & e \end{cases}"
    assert parts(cases) == [[cases]]
    for estimator, entry in ESTIMATORS.items():
        found = parts(entry.formula)
        whole = r" \quad ".join(" ".join(terms) for terms in found)
        assert whole.replace(" ", "") == entry.formula.replace(" ", ""), estimator
        for term in (term for terms in found for term in terms):
            assert all(term.count(a) == term.count(b) for a, b in ("{}", "()")), term


def test_the_curves_of_the_pages_of_estimators_are_those_of_the_package():
    import measure
    import pandas as pd

    stored = pd.read_csv(measure.HERE / "psa.csv")
    found = measure.published()
    both = found.merge(stored, on=["estimator", "checkpoint", "layer"])
    assert len(both) == len(found)
    assert both["variance_y"].to_numpy() == pytest.approx(both["variance_x"].to_numpy(), rel=1e-3)
    assert both["evaluations_y"].tolist() == both["evaluations_x"].tolist()


def without_curve(frame):
    """The estimators that have no curve in a frame."""
    return set(ESTIMATORS) - {parse_spec(spec)[0] for spec in frame["estimator"]}


def test_an_estimator_has_a_curve_on_psa_or_these_networks_are_not_for_it():
    import estimator_pages
    import measure

    frame = estimator_pages.measured()
    left_out = without_curve(frame)
    assert left_out and all(map(measure.why_not, left_out))
    assert not measure.why_not("arm")
    assert "arm" in without_curve(frame[~frame["estimator"].str.startswith("arm")])
    for left in left_out:
        (told,) = re.findall("It has no curve on .*: (.+)", estimator_pages.page(left, drawn=False))
        assert told.endswith(".") and "not been measured" not in told


# --------------------------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", folder / "doctrees"]
    command += ["-c", NOTEBOOKS / "site", NOTEBOOKS, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        html = page.read_text()
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"?(https?:)?//", html)
        assert not re.search(r"(@import|url\()[\"' ]*(https?:)?//", html)


@pytest.mark.slow
def test_every_public_name_and_every_estimator_is_on_its_page(site):
    for module in reference_pages.PAGES:
        html = (site / "generated" / "api" / f"{module}.html").read_text()
        for public, thing in reference_pages.public(importlib.import_module(module)).items():
            estimator = module == "gradbench.estimators" and public in ESTIMATORS
            elsewhere = reference_pages.home_of(module, public, thing)
            assert f'id="{module}.{public}"' in html or estimator or elsewhere, public
    for estimator, entry in ESTIMATORS.items():
        html = (site / "generated" / "estimators" / f"{estimator}.html").read_text()
        assert "<math" in html and f'id="gradbench.estimators.{estimator}"' in html
        assert entry.paper in html and entry.full_name in html.replace(
            "\N{RIGHT SINGLE QUOTATION MARK}", "'"
        )

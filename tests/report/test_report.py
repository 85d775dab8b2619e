"""The report: what it says, that it stands alone, and how it behaves in a browser."""

import csv
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import tiny

from gradbench import metrics
from gradbench.cli.main import main
from gradbench.core import index
from gradbench.core.display import display_name
from gradbench.core.errors import GradbenchError
from gradbench.metrics import METRICS, NETWORK, coordinates, curves, summary, verdict_text
from gradbench.metrics.directory import read_cells
from gradbench.metrics.sentences import Name
from gradbench.report import figures as _figures
from gradbench.report import html as reporting
from gradbench.report.formulas import lines, mathml
from gradbench.report.html import _COSTS
from gradbench.report.numbers import about, duration
from gradbench.report.places import places_of
from gradbench.report.svg import embedded
from gradbench.results.store import Results

HOSTILE = """</title><script>alert("1")</script> & 'quotes' <b>"""
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NETWORKLESS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking"
NETWORKLESS += " --disable-component-update --disable-sync"


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory):
    """The report of the tiny suite: two checkpoints, two layers and the network."""
    with pytest.MonkeyPatch.context() as patch:  # two kinds of figures: they take most of the time
        some = [kind for kind in _figures.panels() if kind.name in ("rmse", "plane")]
        patch.setattr(_figures, "panels", lambda: some)
        path = tmp_path_factory.mktemp("report") / "report.html"
        return reporting.write_report(finished_run / "results", path)


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of anything else, as they take most of the time."""
    monkeypatch.setattr(reporting, "pictures", lambda *arguments: ([], ""))


class Elements(HTMLParser):
    """The elements of a page as (tag, attributes); refuses what is not closed as it was opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names)
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


# --- what it is ---


@pytest.mark.slow
def test_every_element_is_closed_and_every_reference_has_its_only_target(page):
    found = Elements(page.read_text()).found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) > 20 and len(set(ids)) == len(ids)
    for tag, attributes in found:
        for key, value in attributes.items():
            if key == "href" and tag != "link" and not value.startswith("https://"):
                assert value.startswith("#") and value[1:] in ids
            if key in ("aria-labelledby", "for"):
                assert value in ids
            for target in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert target in ids


@pytest.mark.slow
def test_nothing_is_loaded_from_anywhere(page):
    text = page.read_text()
    for tag, attributes in Elements(text).found:
        assert tag not in {"img", "iframe", "object", "embed", "base", "form", "audio", "video"}
        assert not {"src", "srcset", "action", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text and "fetch(" not in text
    assert re.findall(r"url\((?!#)", text) == []
    links = [one for tag, one in Elements(text).found if tag == "a" and "://" in one["href"]]
    assert {one["href"] for one in links} <= {x.paper for x in index.descriptions().values()}
    assert {one["rel"] for one in links} == {"noopener noreferrer"}
    elsewhere = set(re.findall(r"https?://[^\s\"'<>]+", text)) - {one["href"] for one in links}
    assert elsewhere <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
    assert "default-src 'none'" in text


def test_the_page_names_no_path_of_the_machine(page, finished_run):
    assert str(finished_run) not in page.read_text()


@pytest.mark.slow
def test_titles_of_a_users_suite_are_text_whatever_is_in_them(finished_run, no_figures):
    results = Results.open(finished_run / "results")
    results.manifest["suite"]["title"] = HOSTILE
    results.manifest["suite"]["problems"][0]["title"] = HOSTILE
    text = reporting.html(results)
    found = Elements(text)
    assert [tag for tag, _ in found.found].count("script") == 2  # its own
    assert found.text.count(HOSTILE) == 3  # title, heading, problem
    assert HOSTILE not in text


def test_names_of_estimators_are_text_whatever_is_in_them(finished_run):
    name = """concrete(mode='</svg><script>&"')"""
    from matplotlib.figure import Figure

    figure = Figure()
    (line,) = figure.subplots().plot([1, 2])
    line.set_gid(f"estimator={name}#3")
    svg = embedded(figure, "f1", {name: 7}, name)
    found = Elements(svg).found
    assert found[0][1]["aria-label"] == name
    assert [attributes["data-e"] for _, attributes in found if "data-e" in attributes] == ["7"]
    assert "script" not in {tag for tag, _ in found}


def test_svg_of_two_figures_shares_no_id_and_styles_nothing_else(finished_run):
    from matplotlib.figure import Figure

    ids = []
    for prefix in ("f1", "f2"):
        figure = Figure()
        figure.subplots().plot([1, 2, 4], marker="o")
        svg = embedded(figure, prefix, {}, "")
        assert "<style" not in svg and "<metadata" not in svg
        ids.append(
            {attributes["id"] for _, attributes in Elements(svg).found if "id" in attributes}
        )
    assert ids[0] and not ids[0] & ids[1]


# --- what it says ---


def shown_as(sentence):
    """A sentence with the display names of estimators, as far as blanks go in ``Elements``."""
    words = (f" {display_name(x)} " if isinstance(x, Name) else x for x in sentence)
    return " ".join("".join(words).split())


def test_the_box_is_the_verdict_at_equal_evaluations(page, finished_run):
    verdict = metrics.decide(finished_run / "results")
    text = Elements(page.read_text()).text
    answer = shown_as(verdict_text.headline(verdict))
    assert f"Which estimator? {answer} " in text
    for sentence in verdict_text.explanation(verdict):
        assert shown_as(sentence).replace(" ,", ",") in text.replace(" ,", ",")
    assert "Draws (no equal cost)" in text


def test_the_table_of_budgets_has_the_ranges_of_the_verdict(page, finished_run):
    table = page.read_text().split('<table class="choices" id="best">')[1].split("</table>")[0]
    rows = table.split("<tr>")[2:]
    layers = [NETWORK, "layer 1"]
    assert len(rows) == 2 * len(layers)
    verdicts = [metrics.decide(finished_run / "results", cost) for cost in _COSTS]
    for number, row in enumerate(rows):
        place = verdicts[0].places[number // 2]
        for verdict, part in zip(verdicts, row.split("<td")[1:], strict=True):
            expected = verdict.ranges(layers[number % 2], place)
            lines = part.split("<li")[1:]
            assert len(lines) == len(expected) > 0
            for line, one in zip(lines, expected, strict=True):
                found = re.findall(r"<b>(.*?)</b>", line.split("<small>")[0])
                assert found == [display_name(name) for name in one.best]
                assert ("can be afforded" in line) == (not one.is_choice)


@pytest.mark.slow
def test_suites_of_training_show_its_figures(finished_run, no_figures):
    results = Results.open(finished_run / "results")
    results.manifest["suite"]["figure"] = "training"
    found = Elements(reporting.html(results))
    assert [one["class"] for tag, one in found.found if tag == "figure"] == ["card wide"] * 2
    assert "The exact expected loss along training." in found.text


def test_every_cell_has_a_row_with_its_numbers(page, finished_run):
    frame = summary(finished_run / "results")
    text = page.read_text()
    body = text[text.index('<table id="main"') :].split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr ") == len(frame)
    first = frame[frame["checkpoint"].eq("epoch 0") & frame["layer"].eq("network")]
    for value in first["rmse"]:
        assert f'data-v="{value:.6g}"' in body


def test_figures_are_marked_by_place_layer_cost_and_estimator(page, finished_run):
    found = Elements(page.read_text()).found
    names = summary(finished_run / "results")["estimator"].nunique()
    figures = [attributes for tag, attributes in found if tag == "figure"]
    keys = {(one["data-kind"], one["data-place"], one["data-layer"]) for one in figures}
    layers = ("network", "layer 1", "output")
    assert keys == {(k, p, layer) for k in ("rmse", "plane") for p in "01" for layer in layers}
    owned = {attributes["data-e"] for _, attributes in found if "data-e" in attributes}
    assert owned == set(map(str, range(names)))


@pytest.mark.slow
def test_every_kind_of_figure_marks_all_estimators(finished_run):
    frame = summary(finished_run / "results")
    numbers = {name: number for number, name in enumerate(frame["estimator"].unique())}
    lines = curves(finished_run / "results")
    last = [places_of(frame)[-1]._replace(layers=("layer 1",))]
    bias = coordinates(read_cells(finished_run / "results"))
    frames = {"summary": frame, "curves": lines, "coordinates": bias}
    found, note = _figures.pictures(frames, last, numbers, ["draws", "evaluations"])
    assert note == ""
    assert {picture.kind for picture in found} == {kind.name for kind in _figures.panels()}
    for picture in found:
        marks = {attributes.get("data-e") for _, attributes in Elements(picture.svg).found}
        assert marks - {None} == set(map(str, numbers.values())), picture.kind


def test_too_many_figures_are_left_out_and_said(finished_run, monkeypatch):
    drawn = []
    monkeypatch.setattr(_figures, "_drawn", lambda *arguments: drawn.append(arguments) or "")
    frame = summary(finished_run / "results")
    lines, places = curves(finished_run / "results"), places_of(frame)
    for most, expected in ((24, 2 * 3), (23, 2), (7, 1)):
        monkeypatch.setattr(_figures, "_MOST", most)
        frames = {"summary": frame, "curves": lines, "coordinates": lines}
        found, note = _figures.pictures(frames, places, {}, ["draws"])
        shown = {(picture.place, picture.layer) for picture in found}
        assert len(shown) == expected
        assert ("gradbench plot" in note) == (expected < 6)
    assert shown == {(1, "network")}


def test_what_metrics_mean_and_how_the_run_was_made_is_said(page, finished_run):
    text = Elements(page.read_text()).text
    labels = [
        one["aria-label"]
        for tag, one in Elements(page.read_text()).found
        if tag == "math" and "aria-label" in one
    ]
    for metric in METRICS.values():
        assert (
            metric.meaning in labels
            if metric.formula
            else f"{metric.title} {metric.meaning}" in text
        )
    manifest = json.loads((finished_run / "results" / "manifest.json").read_text())
    made = manifest["provenance"]
    for word in (made["jax"], made["numpy"], made["commit"], manifest["created"], "seed 0"):
        assert word is None or word in text
    assert "finite differences" in text


@pytest.mark.slow
def test_cells_that_are_not_finished_are_said(finished, no_figures):
    results = finished / "results"
    (cell,) = results.glob("shards/*/*/epoch%2010/arm")
    shutil.rmtree(cell)
    text = Elements(reporting.write_report(results).read_text()).text
    assert "Not finished: 1 of 8 cells is not finished" in text


def test_a_pipe_in_the_place_of_the_file_is_refused_before_the_work(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(reporting, "read_cells", lambda directory: directory)
    monkeypatch.setattr(reporting, "html", lambda cells: pytest.fail("the work was done"))
    with pytest.raises(GradbenchError, match="it is there, and is not a file"):
        reporting.write_report("results", tmp_path / "pipe")


def test_a_finished_run_is_not_called_unfinished(page):
    assert "Not finished" not in page.read_text()


def test_results_of_an_older_gradbench_have_no_costs_and_say_so(finished, no_figures):
    results = finished / "results"
    shutil.rmtree(results / "costs")
    text = Elements(reporting.write_report(results).read_text()).text
    assert "The costs of draws were not stored" in text
    assert "Evaluations of the objective" not in text


@pytest.mark.parametrize("kind", ["empty", "half", "damaged"])
def test_a_directory_without_results_is_refused_in_a_sentence(kind, finished, tmp_path, capsys):
    results = finished / "results"
    if kind == "empty":
        results = tmp_path / "empty"
        results.mkdir()
    elif kind == "half":
        shutil.rmtree(results / "shards")
    else:
        tiny.damage(next(results.glob("references/*/*/*.npz")))
    assert main(["report", str(results)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and "Traceback" not in error
    assert not (results / "report.html").exists()


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_refused_in_a_sentence(finished_run, tmp_path, no_figures):
    (tmp_path / "file").write_text("")
    with pytest.raises(GradbenchError, match="cannot write"):
        reporting.write_report(finished_run / "results", tmp_path / "file" / "report.html")


@pytest.mark.slow
def test_the_command_says_which_file_to_open(finished, capsys, no_figures):
    results = finished / "results"
    assert main(["report", str(results)]) == 0
    assert capsys.readouterr().out == f"open {results / 'report.html'}\n"
    assert main(["report", str(results), "--out", str(finished / "other.html")]) == 0
    assert (finished / "other.html").read_text() == (results / "report.html").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.03455, "0.035"), (1.0, "1"), (13_569.0, "14\u202f000"), (99.7, "1e+02")],
)
def test_numbers_in_sentences_have_two_digits(value, text):
    assert about(value) == {"1e+02": "100"}.get(text, text)


def test_times_are_told_in_their_unit():
    assert [duration(s) for s in (2.0, 0.0034, 1.23e-5, 4e-9)] == ["2 s", "3.4 ms", "12 µs", "4 ns"]


# --- in a browser ---


@pytest.fixture(scope="module")
def browser():
    """One for all tests; only here may a machine lack something, unless it says it must not."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = "no Chromium was found; install it, as apt-get install chromium"
        (pytest.fail if os.environ.get("GRADBENCH_BROWSER") == "required" else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    arguments = ["--headless", "--no-sandbox", *NETWORKLESS.split()]
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=arguments)
        yield running
        running.close()


@pytest.fixture
def visit(browser, page):
    """Opens the report in a window; at the end there was no error and no other request."""
    contexts, errors, requests = [], [], []

    def visit(width=1280, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=True, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(5000)
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        return tab

    yield visit
    for context in contexts:
        context.close()
    assert errors == []
    assert {url for url in requests if not url.startswith("blob:")} == {page.as_uri()}


def shown(tab, selector):
    """How many elements of a selector are visible."""
    return tab.locator(selector).locator("visible=true").count()


def column(tab, number):
    """The sort keys of the visible rows of the main table, top down."""
    return tab.evaluate(
        "number => [...document.querySelectorAll('#main tbody tr')].filter(row => !row.hidden)"
        ".map(row => Number(row.cells[number].dataset.v))",
        number,
    )


def test_a_header_sorts_by_click_and_by_key_in_both_directions(visit):
    tab = visit()
    tab.select_option("#filter-place", "")
    tab.select_option("#filter-layer", "")
    header = tab.locator("#main thead th", has_text="RMSE")
    number = header.evaluate("header => header.cellIndex")
    before = column(tab, number)
    assert before not in (sorted(before), sorted(before, reverse=True))
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(tab, number) == sorted(before)
    tab.keyboard.press("Enter")  # the button has the focus
    assert header.get_attribute("aria-sort") == "descending"
    assert column(tab, number) == sorted(before, reverse=True)
    cosine = tab.locator("#main thead th", has_text="cosine")
    cosine.locator("button").click()
    assert cosine.get_attribute("aria-sort") == "descending"  # more is better
    assert tab.locator("[aria-sort]").count() == 1


@pytest.mark.slow
def test_the_table_is_filtered_by_place_layer_and_name(visit):
    tab = visit()
    assert shown(tab, "#main tbody tr") == 4
    assert tab.locator("#row-count").inner_text() == "4 of 24 rows shown."
    tab.select_option("#filter-place", "")
    tab.select_option("#filter-layer", "output")
    assert shown(tab, "#main tbody tr") == 8
    assert (shown(tab, "#main th.of-place"), shown(tab, "#main th.of-layer")) == (1, 0)
    tab.fill("#filter-name", "ARM")
    assert shown(tab, "#main tbody tr") == 2
    assert set(tab.locator("#main tbody tr:visible td:nth-child(3)").all_inner_texts()) == {
        "output"
    }


def test_intervals_are_shown_on_demand(visit):
    tab = visit()
    assert shown(tab, "#main small") == 0
    tab.check("#intervals")
    assert shown(tab, "#main small") > 8
    assert " to " in tab.locator("#main small:visible").first.inner_text() or shown(tab, "small")


@pytest.mark.slow
def test_pickers_show_the_figures_of_a_place_layer_and_cost(visit):
    tab = visit()
    places = tab.locator("#pick-place option").all_inner_texts()
    assert places == ["epoch 0", "epoch 10"]
    assert shown(tab, "figure[data-kind=rmse]") == 1
    for place, layer, cost in (("0", "layer 1", "evaluations"), ("1", "output", "seconds")):
        tab.select_option("#pick-place", place)
        tab.select_option("#pick-layer", layer)
        tab.select_option("#pick-cost", cost)
        figure = tab.locator("figure[data-kind=rmse]:visible")
        assert figure.count() == 1
        for key, value in {"place": place, "layer": layer, "cost": cost}.items():
            assert figure.get_attribute(f"data-{key}") == value
    assert shown(tab, "#no-figure") == 0


def test_unticked_estimators_vanish_from_figures_and_come_back(visit):
    tab = visit()
    box = tab.locator("label:has(input[data-estimator])", has_text="psa")
    number = box.locator("input").get_attribute("data-estimator")
    own, others = f".gallery [data-e='{number}']", f".gallery [data-e]:not([data-e='{number}'])"
    drawn = shown(tab, own), shown(tab, others)
    assert min(drawn) > 0
    box.locator("input").uncheck()
    assert (shown(tab, own), shown(tab, others)) == (0, drawn[1])
    tab.click("[data-pick=none]")
    assert shown(tab, ".gallery [data-e]") == 0
    # Figures of the whole suite are outside of the gallery, and have a line for each estimator.
    copy = "document.querySelector('.gallery figure:not([hidden]) > svg').cloneNode(true)"
    tab.evaluate(f"document.body.append({copy})")
    whole = tab.locator("body > svg [data-e]")
    assert shown(tab, "body > svg [data-e]") == whole.count() > 0
    tab.click("[data-pick=all]")
    assert (shown(tab, own), shown(tab, others)) == drawn


def test_pointing_at_a_point_shows_the_name_of_its_estimator_and_its_values(visit):
    tab = visit()
    part = tab.locator("figure[data-kind=rmse]:visible [data-p]").last
    x, y, across, up = part.get_attribute("data-p").split()[0].split(",")
    svg = tab.locator("figure[data-kind=rmse]:visible > svg")
    svg.scroll_into_view_if_needed()
    box, view = svg.bounding_box(), svg.get_attribute("viewBox").split()
    scale = box["width"] / float(view[2])
    tab.mouse.move(box["x"] + float(x) * scale, box["y"] + float(y) * scale)
    number = part.get_attribute("data-e")
    name = tab.locator(f"label:has(input[data-estimator='{number}'])").inner_text().strip()
    axis = part.get_attribute("data-x")
    value, place = f"{float(up):g}", f"{float(across):g}"
    assert tab.locator(".tip").inner_text().split("\n") == [
        name,
        f"relative RMSE: {value}",
        f"{axis}: {place}",
    ]
    tab.mouse.move(2, 2)
    assert shown(tab, ".tip") == 0


def test_figures_and_tables_are_saved_as_they_are_shown(visit, tmp_path):
    tab = visit()
    box = tab.locator("label:has(input[data-estimator])", has_text="psa")
    box.locator("input").uncheck()

    def saved(selector):
        with tab.expect_download() as found:
            tab.locator(selector).locator("visible=true").first.click()
        found.value.save_as(tmp_path / "saved")
        return found.value.suggested_filename, (tmp_path / "saved").read_text()

    name, text = saved("figure[data-kind=rmse] button[data-svg]")
    assert re.fullmatch(r"[a-z0-9-]+\.svg", name)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("}svg") and root.get("width").endswith("pt")
    drawn = tab.locator("figure[data-kind=rmse]:visible [data-e]:visible").count()
    assert drawn > 0 and "data-e" not in text and "PSA" not in text

    name, text = saved("button[data-csv=main]")
    rows = list(csv.reader(io.StringIO(text)))
    assert re.fullmatch(r"[a-z0-9-]+\.csv", name)
    assert len(rows) == 1 + shown(tab, "#main tbody tr") and len({len(row) for row in rows}) == 1
    assert rows[1][0] == "REINFORCE" and float(rows[1][3]) > 0.0
    _, text = saved("button[data-csv=best]")
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[:2] for row in rows[1:3]] == [["epoch 0", "whole network"], ["epoch 0", "layer 1"]]


def test_the_glossary_has_full_names_formulas_and_papers(page):
    found = Elements(page.read_text())
    for name in ("psa", "arm", "reinforce", "straight_through"):
        one = index.descriptions()[name]
        assert one.full_name[1:] in found.text and one.source in found.text
    formulas = [one for tag, one in found.found if tag == "math"]
    assert len(formulas) >= 4 + 10


@pytest.mark.parametrize("formula", ["\\frac{", "</math><script>", "\\unknown{<b>}", "x" * 99])
def test_formulas_are_inert_whatever_is_in_them(formula):
    words = '"><script>'
    found = Elements(f"<p>{mathml(formula, words)}{lines(formula)}</p>").found
    assert not {"script", "b"} & {tag for tag, _ in found}


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_never_scrolls_sideways(visit, width):
    tab = visit(width)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    tab.check("#intervals")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    wide = tab.locator("#main").evaluate("table => table.scrollWidth")
    assert width > 600 or wide > width  # the table itself does, in its box
    assert width < 600 or wide <= tab.locator("#main").evaluate("x => x.parentElement.clientWidth")


CONTRASTS = """() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].reduce((sum, part, k) => {
    const x = part / 255;
    const linear = x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    return sum + [0.2126, 0.7152, 0.0722][k] * linear;
  }, 0);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = channels(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest("script, option, title")) continue;
    if (!element.checkVisibility()) continue;
    const drawn = element.closest("svg");
    if (drawn && element.closest("[data-e]")) continue; // named in the colour of its line
    const style = getComputedStyle(element);
    const pair = [light(channels(drawn ? style.fill : style.color)), light(behind(element))];
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), texts.currentNode.data]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_all_text_has_the_contrast_of_wcag_aa_in_both_schemes(visit, scheme):
    tab = visit(color_scheme=scheme)
    tab.check("#intervals")
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 150
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    page_color = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (page_color == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.slow
def test_without_script_all_figures_and_rows_are_there_and_no_dead_controls(visit):
    tab = visit(java_script_enabled=False)
    total = tab.locator("figure").count()
    assert shown(tab, "figure") == total > 20
    assert shown(tab, "#main tbody tr") == 24
    assert shown(tab, "select, button, input") == 0


@pytest.mark.slow
def test_print_has_no_controls(visit):
    tab = visit()
    tab.emulate_media(media="print")
    assert shown(tab, "nav, select, [data-pick]") == 0
    assert shown(tab, "figure") > 1

"""Figures as parts of a page: small SVG with ids of its own, whose parts name their estimator."""

import io
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from gradbench.core.names import visible, visible_lines
from gradbench.plots.style import PLAIN, Style

SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_OWNER = "estimator="  # the gid of an artist of an estimator; "#2" may follow
_MOST_POINTS = 100  # of an artist: more are no points to be read off one by one
_NUMBERS = {"d", "x", "y", "transform", "points", "style"}
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_FONT = re.compile(r"font-family:[^;]*;?\s*")  # the page has its own, and loads no file


ElementTree.register_namespace("", SVG)


def embedded(figure: Figure, prefix: str, numbers: Mapping[str, int], what: str) -> Markup:
    """Return a figure as an ``<svg>`` element of a page.

    Args:
        figure: a figure of ``gradbench.plots``: the artists of an estimator have the gid
            "estimator=NAME".
        prefix: what its ids begin with, different for each figure of a page.
        numbers: the number of each estimator, which its artists get as the attribute ``data-e``.
        what: the figure in words, for readers who do not see it.
    """
    text = io.StringIO()
    figure.patch.set_visible(False)
    for ax in figure.axes:
        ax.patch.set_visible(False)
    with rc_context(
        {**PLAIN, "svg.fonttype": "none", "svg.hashsalt": prefix, "image.composite_image": False}
    ):
        figure.savefig(text, format="svg", metadata={"Date": None})
    points = _points(figure)
    root = ElementTree.fromstring(visible_lines(text.getvalue()))
    for tag in ("metadata", "defs"):  # one of the latter has a style for the whole page
        for one in root.findall(f"{{{SVG}}}{tag}"):
            if tag == "metadata" or one.find(f"{{{SVG}}}style") is not None:
                root.remove(one)
    ids = _references(root)
    for one in root.iter():
        if found := points.get(one.get("id", "")):
            one.attrib |= found
        _tidy(one, prefix, ids, numbers)
    width, height = (root.attrib.pop(key).removesuffix("pt") for key in ("width", "height"))
    root.attrib |= {
        "role": "img",
        "aria-label": visible(what),
        "viewBox": f"0 0 {width} {height}",
        "stroke-linejoin": "round",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _points(figure: Figure) -> dict[str, dict[str, str]]:
    """Return the data of the points of each artist of an estimator, for tooltips, by its gid.

    ``data-p`` has the place of each point on the page of the figure and its coordinates, ``data-x``
    and ``data-y`` say what these are.
    """
    found = {}
    height = 72.0 * figure.get_figheight()
    for ax in figure.axes:
        for artist in (*ax.lines, *ax.collections):
            gid = artist.get_gid() or ""
            if not gid.startswith(_OWNER) or artist.get_transform() == ax.transAxes:
                continue
            if isinstance(artist, Line2D):
                if artist.get_transform() != ax.transData:
                    continue
                data = np.asarray(artist.get_xydata(), float)
            elif isinstance(artist, PathCollection):
                data = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
            else:
                continue
            data = data[np.isfinite(data).all(1)]
            if not 0 < len(data) <= _MOST_POINTS:
                continue
            places = ax.transData.transform(data) * 72.0 / figure.dpi
            rows = zip(places, data, strict=True)
            text = (f"{x:.1f},{height - y:.1f},{a:.4g},{b:.4g}" for (x, y), (a, b) in rows)
            found[gid] = {"data-p": " ".join(text)}
            for axis, label in (("x", ax.get_xlabel()), ("y", ax.get_ylabel())):
                unit = " (s)" if label.endswith("time") else ""
                found[gid][f"data-{axis}"] = f"{visible(label)}{unit}"
    return found


def _references(root: ElementTree.Element) -> dict[str, str]:
    """Return the ids that something refers to, with a short one for each."""
    found: dict[str, str] = {}
    for one in root.iter():
        values = [one.get(_HREF, ""), *(f"#{x}" for x in re.findall(r"url\(#(\w+)\)", _all(one)))]
        for value in values:
            if value.startswith("#"):
                found.setdefault(value[1:], str(len(found)))
    return found


def _all(one: ElementTree.Element) -> str:
    return " ".join(one.attrib.values())


def _tidy(
    one: ElementTree.Element, prefix: str, ids: Mapping[str, str], numbers: Mapping[str, int]
) -> None:
    """Give an element its own id and its estimator's number, and shorten its numbers and text."""
    gid = one.attrib.pop("id", "")
    if gid in ids:
        one.set("id", f"{prefix}-{ids[gid]}")
    elif gid.startswith(_OWNER):
        name = re.sub(r"#\d+$", "", gid.removeprefix(_OWNER))
        known = {visible(own): number for own, number in numbers.items()}
        if name in known:
            one.set("data-e", str(known[name]))
    for key, value in list(one.attrib.items()):
        if key == _HREF:
            del one.attrib[key]
            inside = value.startswith("#")  # or the data of an image
            one.set("href", f"#{prefix}-{ids[value[1:]]}" if inside else value)
        elif "url(#" in value:
            one.set(key, re.sub(r"url\(#(\w+)\)", lambda m: f"url(#{prefix}-{ids[m[1]]})", value))
        elif key in _NUMBERS:
            short = _NUMBER.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
            one.set(key, " ".join(_FONT.sub("", short).split()))
    if not one.tag.endswith(("text", "tspan")):
        one.text = None
    if not one.tag.endswith("tspan"):
        one.tail = None
    uses = list(one)
    looks = {use.get("style") for use in uses}
    if len(uses) > 1 and len(looks) == 1 and all(use.tag.endswith("}use") for use in uses):
        if style := looks.pop():  # the look of all markers, once
            one.set("style", style)
        for use in uses:
            use.attrib.pop("style", None)


def swatch(look: Style) -> Markup:
    """Return the line and marker of an estimator as the figures show them."""
    dashes = {"-": "", "-.": "6 1.6 1 1.6", ":": "1 1.6", "--": "4 1.6"}
    dash = dashes[look.line] if isinstance(look.line, str) else " ".join(map(str, look.line[1]))
    marker = ""
    if look.marker:
        style = MarkerStyle(look.marker)
        place = style.get_transform() + Affine2D().scale(8, -8).translate(15, 7)
        shapes = style.get_path().transformed(place).to_polygons(closed_only=False)
        points = (" ".join(f"{x:.1f},{y:.1f}" for x, y in np.asarray(shape)) for shape in shapes)
        marker = "".join(f'<polygon points="{text}"/>' for text in points)
    return Markup(
        f'<svg class="swatch" viewBox="0 0 30 14" aria-hidden="true" fill="{look.color}" '
        f'stroke="{look.color}"><path d="M1 7H29" stroke-width="1.6" stroke-dasharray="{dash}"/>'
        f'<g stroke="none">{marker}</g></svg>'
    )

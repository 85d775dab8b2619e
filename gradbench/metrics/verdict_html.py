"""A verdict as notebooks show it."""

from html import escape

from gradbench.core.display import display_name
from gradbench.metrics.decisions import Decisions
from gradbench.metrics.places import place_names
from gradbench.metrics.sentences import Name, Sentence
from gradbench.metrics.verdict_text import (
    explanation,
    headline,
    judged,
    layer_text,
    main_layers,
    range_text,
    winners,
)


def html(verdict: Decisions) -> str:
    """Return a verdict as HTML: the headline, why, and the best by budget at each place."""
    parts = [f"<p><strong>{_marked(headline(verdict))}.</strong></p>"]
    parts += [f"<p>{_marked(sentence)}</p>" for sentence in explanation(verdict)]
    rows = [
        (name, layer_text(layer), range_text(one, verdict.cost), _marked(winners(one)))
        for place, name in place_names(verdict.places).items()
        for layer in main_layers(verdict)
        for one in verdict.ranges(layer, place)
        if one.is_choice
    ]
    if rows:
        first = 0 if len(verdict.places) > 1 else 1
        head = ("place", "layer", "budget of an estimate", "smallest RMSE")[first:]
        cells = "".join(f"<th>{title}</th>" for title in head)
        lines = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*map(escape, row[:3]), row[3])[first:])
            for row in rows
        )
        parts.append(f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>")
        parts.append(f"<p>{escape(judged(verdict))}</p>")
    return "\n".join(parts)


def _marked(sentence: Sentence) -> str:
    """Return a sentence in which estimators are set apart."""
    return "".join(
        f"<b>{escape(display_name(part))}</b>" if isinstance(part, Name) else escape(part)
        for part in sentence
    )

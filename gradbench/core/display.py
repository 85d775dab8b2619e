"""What figures and tables call an estimator: "PSA", or "Concrete, t = 0.1".

    display_name("concrete(temperature=0.1)")  # "Concrete, t = 0.1"
    display_names(["psa", "arm"])  # {"psa": "PSA", "arm": "ARM"}, never two alike

An estimator says its ``display_name`` where it is registered: a text, in which a hyper-parameter in
braces stands for its value. Hyper-parameters that a spec gives, and that the text has not, follow
it. What has no such text is called by its spec. Names are read without JAX. They are one line of
plain text, which may come from anyone: each output makes it inert as it does with any text.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gradbench.core import index
from gradbench.core.errors import GradbenchError
from gradbench.core.names import visible
from gradbench.core.specs import INNER, Value, format_value, label, parse_spec, parse_specs

# Hyper-parameters that are not said as "name = value".
_WORDS = {
    "temperature": "t = {}",
    "descendants": "{} tails",
    "samples": "{} samples",
    "draws": "{} draws",
    "states": "{} states",
    "runs": "{} runs",
    **{name: f"{{}} {name}" for name in ("proxy", "signals", "coupling", "relaxation", "copula")},
}
_FIELD = re.compile(r"\{(\w+)\}")


def display_name(spec: str, known: Mapping[str, str] = {}) -> str:
    """Return what figures and tables call the estimator of a spec.

    Args:
        spec: the estimator, in canonical form, such as ``"concrete(temperature=0.1)"``.
        known: names by spec that take precedence, such as those that results keep of the
            estimators of plugins (``gradbench.metrics.names_in`` of a frame).
    """
    return visible(known.get(spec) or _by_template(spec, installed=True))


def display_names(several: Iterable[str], known: Mapping[str, str] = {}) -> dict[str, str]:
    """Return what figures and tables call some estimators, by spec.

    No two have the same name: those that would are called by their specs.

    Args:
        several: the specs.
        known: as of ``display_name``.
    """
    found = {spec: display_name(spec, known) for spec in several}
    count = Counter(found.values())
    return {spec: name if count[name] == 1 else label(spec) for spec, name in found.items()}


def names_to_keep(several: Iterable[str]) -> dict[str, str]:
    """Return the names of those estimators that the package itself would call otherwise, by spec.

    They are of plugins: results keep them, since the plugin may be missing where they are read.
    """
    found = {spec: _by_template(spec, installed=True) for spec in several}
    return {spec: name for spec, name in found.items() if name != _by_template(spec, False)}


def _by_template(spec: str, installed: bool) -> str:
    """Return the name by the text that an estimator is registered with.

    Where ``installed`` is false, estimators of plugins are unknown.
    """
    try:
        name, arguments = parse_spec(spec)
        text, defaults = _registered(name, installed)
        if not text:
            return label(spec)
        fields = _FIELD.findall(text)
        values = {
            key: _value(name, key, value, installed)
            for key, value in {**defaults, **arguments}.items()
            if key in fields or key in arguments
        }
    except GradbenchError:  # a malformed spec, which results of others may have
        return spec
    inserted = _FIELD.sub(lambda found: values.get(found[1], found[0]), text)
    more = (_said(key, value, values[key]) for key, value in arguments.items() if key not in fields)
    return ", ".join([inserted, *more])


def _registered(name: str, installed: bool) -> tuple[str, Mapping[str, Any]]:
    """Return the text that an estimator is registered with, and the defaults of its arguments."""
    if found := index.displays().get(name):
        return found
    module = sys.modules.get("gradbench.estimators.registry") if installed else None
    entry = module.ESTIMATORS.get(name) if module else None
    return (entry.display_name, entry.hyperparameters) if entry else ("", {})


def _value(name: str, key: str, value: Value, installed: bool) -> str:
    """Return the value of a hyper-parameter as text; that of an estimator inside is its name."""
    if not isinstance(value, str):
        return format_value(value)
    if key not in INNER.get(name, ()) or key == "baseline":
        return value
    inner = parse_specs(value) if key == "layers" else (value,)
    return " / ".join(_by_template(one, installed) for one in inner)


def _said(key: str, value: Value, text: str) -> str:
    """Return a hyper-parameter in words."""
    words = key.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if value is None:
        return f"no {words}"
    if key not in _WORDS:
        return f"{words} = {text}"
    form = _WORDS[key].removesuffix("s") if value == 1 else _WORDS[key]
    return form.format(text)

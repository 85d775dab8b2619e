"""JSON Schemas of the files of suites and problems, from which editors complete and check them."""

from typing import Any

from pydantic import TypeAdapter

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.suites.problem import ProblemTable
from gradbench.suites.suite import SuiteTable

TABLES = {"suite": SuiteTable, "problem": ProblemTable}


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a kind of TOML file, with all that plugins have registered so far.

    Args:
        kind: "suite" or "problem".

    Raises:
        GradbenchError: another kind.
    """
    if kind not in TABLES:
        raise GradbenchError(f"there is no schema of {kind!r}; {did_you_mean(kind, TABLES)}")
    found = _closed(TypeAdapter(TABLES[kind]).json_schema())
    if kind == "suite":
        # [quick] has the keys of the suite, and dotted keys of its problems.
        parts = {k: {"$ref": f"#/properties/{k}"} for k in found["properties"] if k != "quick"}
        found["properties"]["quick"] = {
            "type": "object",
            "properties": parts,
            "patternProperties": {r"\.": {}},
            "additionalProperties": False,
            "description": "what differs in the quick form of the suite",
        }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | found | {"title": f"gradbench {kind}"}


def _closed(part: Any) -> Any:
    """Return the schema with unknown keys refused in every struct, and without null, as in TOML."""
    if isinstance(part, list):
        return [_closed(each) for each in part if each != {"type": "null"}]
    if not isinstance(part, dict):
        return part
    found = {key: _closed(value) for key, value in part.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if found.get("default", 0) is None:
        del found["default"]
    return found

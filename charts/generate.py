#!/usr/bin/env python3
"""Makes values.yaml and the README's table of values from values.schema.json, the one source.

Prints the folder's files that it would change with --check, and fails if there are any.
"""

import json
import pathlib
import re
import sys
import textwrap

CHART = pathlib.Path(__file__).parent / "tiktok-shop-operator"
BEGIN, END = "<!-- values: made by 'make generate' -->", "<!-- end of values -->"


def scalar(value):
    """A value on one line; a JSON string is one of YAML, too."""
    plain = r"(?!(true|false|yes|no|on|off|null|y|n)$)[A-Za-z][\w./:-]*|\d+[a-zA-Z]+"
    if isinstance(value, str) and re.fullmatch(plain, value, re.IGNORECASE):
        return value
    return json.dumps(value)


def lines(value, indent):
    """A value below its key, as block YAML."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield f"{indent}{key}:"
            yield from lines(inner, indent + "  ")
        else:
            yield f"{indent}{key}: {scalar(inner)}"


def values_yaml(properties, indent=""):
    for key, schema in properties.items():
        if "default" not in schema and "properties" not in schema:
            continue
        if not indent:
            yield ""
        width = 100 - len(indent) - 2
        yield from (f"{indent}# {line}" for line in textwrap.wrap(schema["description"], width))
        if "properties" in schema:
            yield f"{indent}{key}:"
            yield from values_yaml(schema["properties"], indent + "  ")
        else:
            yield from lines({key: schema["default"]}, indent)


def table(properties, path=""):
    for key, schema in properties.items():
        if "properties" in schema:
            yield f"| **`{path}{key}`** | | {cell(schema['description'])} |"
            yield from table(schema["properties"], f"{path}{key}.")
        elif "default" in schema:
            default = json.dumps(schema["default"])
            if schema["default"] in ("", None):
                default = ""
            text = schema["description"]
            if "enum" in schema and not all(word in text for word in schema["enum"]):
                text += " One of " + ", ".join(schema["enum"]) + "."
            yield f"| `{path}{key}` | {f'`{cell(default)}`' if default else ''} | {cell(text)} |"


def cell(text):
    return text.replace("|", "\\|")


def main():
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = "# Made from values.schema.json by 'make generate'; do not edit.\n"
    values += "\n".join(values_yaml(properties)) + "\n"
    readme = (CHART / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = "\n".join(["| value | default | |", "|---|---|---|", *table(properties)])
    readme = f"{before}{BEGIN}\n\n{rows}\n\n{END}{after}"
    stale = []
    for name, text in (("values.yaml", values), ("README.md", readme)):
        path = CHART / name
        if not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(CHART.parent.parent)))
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        sys.exit(f"{', '.join(stale)}: out of date, run 'make generate'")


main()

#!/usr/bin/env python3
"""Renders every case of chat_cases.json with Jinja2, set up as transformers does, and writes what it gives: the text, or null where it raises.

  record_chats.py        needs jinja2 (3.1.6 when the file was last made)

A case is {"template": text or the name of a file in templates/, "variables": object or absent for the common ones, "output": ...}.
"""
import copy
import json
from pathlib import Path

import jinja2.exceptions
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).resolve().parent


class Generation(jinja2.ext.Extension):
    """{% generation %}: a scope of its own whose text is printed."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(template, variables):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(template).render(**copy.deepcopy(variables))
    except Exception:  # whatever Python raises, the template has no text
        return None


def main():
    path = HERE / "chat_cases.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    for case in recorded["cases"]:
        template = case["template"]
        if template.endswith(".jinja"):
            template = (HERE / "templates" / template).read_text(encoding="utf-8")
        case["output"] = render(template, case.get("variables", recorded["variables"]))
    lines = ",\n".join(json.dumps(c) for c in recorded["cases"])
    path.write_text('{"variables": ' + json.dumps(recorded["variables"]) + ',\n"cases": [\n' + lines + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

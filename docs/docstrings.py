"""Docstrings as the site shows them: examples as code, and names that share a line one by one."""

from __future__ import annotations

import re

import griffe


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **kwargs):
        del kwargs
        if obj.docstring:
            obj.docstring.value = apart(fenced(obj.docstring.value))


def fenced(text: str) -> str:
    """Puts every doctest into a fence; else `>>>` is a quotation in Markdown."""
    lines, indent = [], None
    for line in [*text.splitlines(), ""]:
        prompt = re.match(r"( *)>>> ", line)
        if indent is None and prompt:
            indent = prompt[1]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    return "\n".join(lines[:-1])


def apart(text: str) -> str:
    """Gives each of the attributes `a, b: text` a line; Griffe takes ", b" for the type of a."""
    head, mark, section = text.partition("Attributes:\n")
    section, end, rest = section.partition("\n\n")
    item = re.compile(
        r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) .*)*)", re.M
    )

    def each(found):
        names = found["names"].split(", ")
        return "\n".join(f"{found['indent']}{name}: {found['text']}" for name in names)

    return head + mark + item.sub(each, section) + end + rest

"""What `mkdocs build` generates: the pictures of the losses, their defaults, the configuration."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import make_pictures  # noqa: E402

from jaxrobust import config as configuration  # noqa: E402
from jaxrobust import losses  # noqa: E402


def on_pre_build(config):
    del config
    make_pictures.main(Path(__file__).parent / "images" / "losses")


def on_page_markdown(markdown, page, config, files):
    del page, config, files
    markdown = re.sub(r"<!-- loss: (\w+) -->", lambda m: loss(m[1]), markdown)
    markdown = re.sub(r"<!-- settings: (.+?) -->", lambda m: some_settings(m[1]), markdown)
    return markdown.replace("<!-- configuration -->", settings())


def loss(name: str) -> str:
    """What a loss's page says that the code knows better: defaults, picture, docstring."""
    function = losses.get(name)
    defaults = losses.settings(name)
    rows = [f"| `loss.{key}` | `{value}` |" for key, value in defaults.items()]
    table = "\n".join(["| setting | default |", "| --- | --- |", *rows]) if rows else "None."
    return "\n\n".join([
        f"![Loss and gradient weight of {name}](../images/losses/{name}.svg)",
        "## Hyper-parameters", table,
        "## In a program", f"```python\nfrom jaxrobust import losses\n\nloss = losses.get({name!r})"
        f"   # losses.{function.__name__}\n```",
        f"On the command line: `--config=digits_losses:{name}`.",
        f"::: jaxrobust.losses.{function.__name__}",
    ])


def row(key: str, setting) -> str:
    """A row of a table of settings: name, default, meaning with the rule."""
    rule = f" ({setting.rule.text})" if setting.rule else ""
    text = f"{setting.doc}{rule}".replace("|", "\\|")
    return f"| `{key}` | `{setting.default}` | {text} |"


HEAD = "| setting | default | meaning |\n| --- | --- | --- |"


def some_settings(names: str) -> str:
    """A table of the settings of these full names, "method.hidden, method.base"."""
    known = dict(configuration.settings())
    return "\n".join([HEAD, *(row(key, known[key]) for key in names.split(", "))])


def settings() -> str:
    """A table of every setting, group by group, from the schema."""
    parts, group = [], None
    for key, setting in configuration.settings():
        if key.rpartition(".")[0] != group:
            group = key.rpartition(".")[0]
            parts.append(f"\n## {group or 'The run'}\n\n{HEAD}")
        parts.append(row(key, setting))
    return "\n".join(parts)

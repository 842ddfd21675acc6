"""What `mkdocs build` generates: the pictures of the losses, their defaults, the configuration."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import make_pictures  # noqa: E402

from jaxrobust import config as configuration  # noqa: E402
from jaxrobust import losses  # noqa: E402
from jaxrobust.training.metric_table import METRICS  # noqa: E402


def on_pre_build(config):
    del config
    make_pictures.main(Path(__file__).parent / "images" / "losses")


def on_page_markdown(markdown, page, config, files):
    del page, config, files
    markdown = re.sub(r"<!-- loss: (\w+) -->", lambda m: loss(m[1]), markdown)
    markdown = markdown.replace("<!-- metrics -->", metrics_table())
    return re.sub(r"<!-- settings: (.+?) -->", lambda m: some_settings(m[1]), markdown)


RECIPES = {
    "cifar10": "recipes for CIFAR-10 and digits",
    "cifar100": "CIFAR-100",
    "webvision": "WebVision",
}
CAPTION = """Of an example of ten classes, by the probability of its given label; the other classes
share the rest. The gradient weight is the slope of the loss in the given label's logit, ∂ℓ/∂z_y,
without its sign: how hard the example pulls."""


def on_config(config):
    """Adds a page per loss to the navigation: what is in the tables needs no line in mkdocs.yml."""
    for section in config["nav"]:
        for title, pages in section.items():
            if "losses/index.md" in pages:
                section[title] = [*pages, *loss_pages()]
    return config


def loss_pages() -> list[str]:
    """The pages of all losses, in the order of the tables."""
    tables = (losses.LOSSES, losses.MEMORY_LOSSES, losses.VIEW_LOSSES)
    return [f"losses/{name}.md" for table in tables for name in table]


def loss(name: str) -> str:
    """What a loss's page says that the code knows better: defaults, picture, docstring."""
    drawn, trained = name in losses.LOSSES, name not in losses.VIEW_LOSSES
    parts = []
    if drawn:
        parts += [f"![Loss and gradient weight of {name}](../images/losses/{name}.svg)", CAPTION]
    if trained:
        defaults = losses.settings(name)
        recipes = [configuration.load(f"{data}_losses:{name}").loss for data in RECIPES]
        rows = [
            f"| `loss.{key}` | `{value}` | "
            + " | ".join(f"`{value if r[key] is None else r[key]}`" for r in recipes)
            + " |"
            for key, value in defaults.items()
        ]
        head = ["setting", "default", *RECIPES.values()]
        table = "\n".join([f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *rows])
        parts += [
            "## Hyper-parameters",
            table if rows else "None.",
            f"On the command line: `--config=digits_losses:{name}`.",
        ]
    names = (
        (name, f"{name}_update") if name in losses.MEMORY_LOSSES else (losses.get(name).__name__,)
    )
    uses = "\n".join(f"losses.{function}" for function in names)
    parts += ["## In a program", f"```python\nfrom jaxrobust import losses\n\n{uses}\n```"]
    return "\n\n".join([*parts, *(f"::: jaxrobust.losses.{function}" for function in names)])


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


def metrics_table() -> str:
    """The table of metrics: name in results.json, column heading, direction, meaning."""
    rows = [
        f"| `{name}` | {m.heading} | {'higher' if m.higher_is_better else 'lower'} | {m.meaning} |"
        for name, m in METRICS.items()
    ]
    return "\n".join(["| metric | column | better | meaning |", "| --- | --- | --- | --- |", *rows])


def settings() -> str:
    """Tables of every setting, group by group, from the schema: the end of configuration.md."""
    parts, group = [], None
    for key, setting in configuration.settings():
        if key.rpartition(".")[0] != group:
            group = key.rpartition(".")[0]
            parts.append(f"\n## {group or 'The run'}\n\n{HEAD}")
        parts.append(row(key, setting))
    return "\n".join(parts)


PAGE = Path(__file__).with_name("configuration.md")
MARK = "<!-- made by docs/hooks.py from jaxrobust/schema.py -->\n"


def configuration_page() -> str:
    """The text of configuration.md with the tables made anew."""
    return PAGE.read_text().partition(MARK)[0] + MARK + settings() + "\n"


if __name__ == "__main__":  # python docs/hooks.py: writes configuration.md
    PAGE.write_text(configuration_page())

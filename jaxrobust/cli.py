"""What the command line needs beside the configuration: its flags, its help, its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxrobust.config import find, recipes, settings, unknown_key
from jaxrobust.errors import UserError, check, nearest


def split_argv(argv: list[str]) -> tuple[str | None, list[str]]:
    """Takes `--config=NAME` (or `--config NAME`) out of a command line; returns both."""
    name, rest, words = None, argv[:1], iter(argv[1:])
    for word in words:
        flag, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == "config":
            name = value if equals else next(words, "")
            check(name, "--config needs a recipe's name, a .py file or a config.json.")
        else:
            rest.append(word)
    return name, rest


def explain(error: Exception, argv: list[str], flags: Sequence[str]) -> UserError:
    """Turns what absl or ml_collections said about a command line into one clear line."""
    known = [key for key, _ in settings()]
    for word in argv[1:]:
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            continue
        if flag.startswith("config."):
            key = flag.removeprefix("config.")
            if key not in known:
                return unknown_key(key)
            if equals and key in str(error):
                kind = dict(settings())[key].kind.__name__
                return UserError(f"{key}={value!r}: expected {kind}.")
        elif flag not in flags and not flag.startswith("no"):
            return UserError(f"Unknown flag --{flag}.{nearest(flag, flags)}")
    return UserError(str(error).splitlines()[0])


def usage() -> str:
    """The text of `--help`: flags, then every setting with its default."""
    lines = [
        "python -m jaxrobust.main --config=NAME --workdir=FOLDER [--config.SETTING=VALUE …]",
        "  --config   a recipe's name (" + ", ".join(recipes()) + "), a .py file, a config.json",
        "  --sweep    a .py file with a grid of runs, instead of --config",
        "  --workdir  folder of the run (else runs/NAME); the same command again resumes it",
        "  --mode     train, evaluate, predict (--input=… [--output=…] [--which=selected|last]),",
        "             audit ([--config.audit.folds=5] [--write_corrected=labels.csv])",
        "  --distributed=auto (TPU, Slurm) or HOST:PORT,COUNT,ID: one of several processes",
        "  --dry_run  show configuration, data and sizes; train nothing, write nothing",
        "",
        "Settings:",
    ]
    for key, setting in settings():
        rule = f" [{setting.rule.text}]" if setting.rule else ""
        lines.append(f"  --config.{key}={setting.default}  {setting.doc}{rule}")
    return "\n".join(lines)


def default_workdir(name: str) -> str | None:
    """Returns runs/RECIPE or runs/RECIPE_ARGUMENT; None for the configuration of a run."""
    text, _, argument = name.partition(":")
    return f"runs/{Path(text).stem}_{argument}".rstrip("_") if find(text).suffix == ".py" else None

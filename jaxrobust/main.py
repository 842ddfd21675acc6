"""The command line: `python -m jaxrobust.main --config=… --workdir=…`."""

from __future__ import annotations

import sys

from absl import flags
from ml_collections import config_flags

from jaxrobust import cli, process
from jaxrobust import config as configuration
from jaxrobust.errors import RunError, UserError, check, nearest, report

MODES = ("train", "evaluate", "predict", "audit")
STRINGS = {"workdir": None, "mode": "train", "distributed": None, "input": None, "output": None,
           "which": "selected", "write_corrected": None, "sweep": None}
FLAGS = ("config", "dry_run", *STRINGS)


def parse(argv: list[str]) -> flags.FlagValues:
    """Parses a command line into flags; `flags.config` is the configuration with overrides.

    Raises:
      UserError: one line that names the wrong flag, setting or value, and the nearest right one.
    """
    name, rest = cli.split_argv(argv)
    values = flags.FlagValues()
    for flag, default in STRINGS.items():
        flags.DEFINE_string(flag, default, "see --help", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "show what would be done, and stop", flag_values=values)
    config = configuration.load(name) if name else configuration.default_config()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        left = values(rest)[1:]
    except (flags.Error, KeyError, TypeError, ValueError) as error:
        raise cli.explain(error, rest, FLAGS) from None
    check(not left, f"Unexpected argument {left[0]!r}; flags begin with --." if left else "")
    check(values.mode in MODES,
          f"--mode={values.mode}: one of {', '.join(MODES)}.{nearest(values.mode, MODES)}")
    check(values.which in ("selected", "last"), f"--which={values.which}: selected or last.")
    check((name is None) != (values.sweep is None) or values.mode != "train",
          "Name a configuration: --config=digits_dal, a .py file or a config.json; or a --sweep.")
    if values.workdir is None and values.mode == "train" and name:
        values.workdir = cli.default_workdir(name)
    check(values.dry_run or values.workdir, "Name a folder for the run: --workdir=runs/NAME.")
    return values


def run(argv: list[str]) -> int:
    """Does what a command line says; returns the exit code."""
    if any(a in ("-h", "--help", "-help") for a in argv[1:]):
        print(cli.usage())
        return 0
    try:
        values = parse(argv)
        from jaxrobust.runs import commands
        from jaxrobust.training import sharding  # Import JAX: once the flags are right.

        if values.distributed:
            sharding.start_processes(values.distributed)
        return commands.run(values)
    except (UserError, RunError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def entry() -> None:
    """The console script."""
    process.prepare()
    process.end(lambda: run(sys.argv))


if __name__ == "__main__":
    entry()

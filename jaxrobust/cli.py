"""Flags, help, error lines, and one function per `--mode`.

JAX and the rest of the package are imported by the functions that use them, so that help and
mistakes in a flag are answered at once.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from jaxrobust import config as configuration
from jaxrobust.config import find, recipes, settings, unknown_key
from jaxrobust.errors import RunError, UserError, check, nearest, report
from jaxrobust.process import say, tell, was_interrupted

STRINGS = {
    "workdir": None,
    "mode": "train",
    "distributed": None,
    "input": None,
    "output": None,
    "which": "selected",
    "write_corrected": None,
    "decisions": None,
    "export": None,
    "fail_on": None,
    "sweep": None,
}
_DEVICE_FLAGS = ("gpu", "gpus", "device", "cuda", "cpu", "tpu", "platform")
FLAGS = ("config", "dry_run", "force", "verbose", *STRINGS)
_DATA = ("data.path", "data.data_dir", "data.labels_file", "data.manifest")
_SPEED = ("data.residency", "data.workers", "eval.batch_size", "train.devices")
_FLAGS_OF = {
    "audit": ("decisions", "export", "write_corrected"),
    "predict": ("input",),
}
TAKES = {
    "evaluate": (*_DATA, *_SPEED),
    "predict": (*_DATA, *_SPEED, "data.on_unreadable"),
    "audit": (*_DATA, *_SPEED, "audit.folds"),
}
"""Settings that a mode takes for a run that is there: where its data are now, and what changes no
result. All others are the run's own."""


def run(argv: list[str]) -> int:
    """Does what a command line says.

    Args:
      argv: the program's name and its arguments.

    Returns:
      The exit code: 0; 1 for a run that failed, 2 for wrong use, 130 for Ctrl-C, 143 for SIGTERM.
    """
    if any(a in ("-h", "--help", "-help") for a in argv[1:]):
        print(usage())
        return 0
    try:
        _check_here()
        return command(parse(argv))
    except (UserError, RunError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        say("Stopped.")
        return 130


def _check_here() -> None:
    """Raises `UserError` if the current folder, which relative paths begin at, is gone."""
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The current folder does not exist any more: change to one that does."
        ) from None


def command(values: flags.FlagValues) -> int:
    """Runs the command of parsed flags; returns the exit code."""
    if values.mode == "predict":
        check(values.input, "Name what to predict: --input=FOLDER, .npy, .npz or .csv.")
    if values.config_name and values.mode == "train":
        configuration.validate(values.config)  # A mistake is told before JAX is imported.
    _start_jax(values.distributed)
    if was_interrupted():
        raise KeyboardInterrupt
    if values.sweep:
        from jaxrobust.runs import sweep

        return sweep.run(values.sweep, Path(values.workdir), given(values), values.dry_run)
    if values.dry_run:
        from jaxrobust.runs import predict as inference

        print(inference.describe(values.config, values.verbose))
        return 0
    return MODES[values.mode](values, Path(values.workdir))


def _start_jax(distributed: str | None) -> None:
    """Joins the other processes, if there are any, finds the devices and the compiled programs.

    Raises:
      UserError: the platform of JAX_PLATFORMS is not there.
    """
    import jax

    from jaxrobust import compile_cache
    from jaxrobust.training import sharding

    compile_cache.enable()
    if distributed:
        sharding.start_processes(distributed)
    try:
        jax.devices()
    except Exception as error:  # of many types, by plugin
        wanted = os.environ.get("JAX_PLATFORMS")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        named = f"JAX_PLATFORMS={wanted}: " if wanted else ""
        raise UserError(
            f"{named}JAX finds no such device here ({reason}). "
            "Leave JAX_PLATFORMS out, or set it to cpu."
        ) from None


def train(values: flags.FlagValues, workdir: Path) -> int:
    """`--mode=train`: trains, or goes on, and prints the results."""
    from jaxrobust.runs import audit as auditing
    from jaxrobust.runs import results
    from jaxrobust.runs.train import FILES, check_workdir
    from jaxrobust.runs.train import train as run_training
    from jaxrobust.training.signals import Interrupted

    finished = check_workdir(configuration.validate(values.config), workdir, quiet=True)
    try:
        outcome = run_training(values.config, workdir)
    except Interrupted as stop:
        say(stop.farewell())
        return stop.code
    if finished is not None:
        tell(f"{workdir} is finished already; its results:")
    tell(results.table({workdir.name: outcome}))
    if "audit" in outcome:
        tell(auditing.sentence(outcome["audit"]))
    names = (
        "results.json",
        "metrics.jsonl",
        "model.npz",
        "blend.pkl",
        "features.npz",
        "noise.npz",
        "matrices.npz",
        "checkpoints",
        "tensorboard",
        "figures",
        *FILES,
    )
    found = [str(workdir / n) for n in names if (workdir / n).exists()]
    tell("Wrote " + ", ".join(found) + ".")
    return _failed(values.fail_on, outcome.get("audit", outcome))


def evaluate(values: flags.FlagValues, workdir: Path) -> int:
    """`--mode=evaluate`: measures the last and the selected parameters again."""
    from jaxrobust.runs import predict as inference
    from jaxrobust.runs import results

    measured = inference.evaluate(workdir, run_settings(values, workdir), say=say, save=False)
    print(results.table({workdir.name: measured}))
    try:
        results.write_json(workdir / "evaluation.json", measured)
    except OSError as error:
        say(f"note: {workdir / 'evaluation.json'} was not written: {error.strerror or error}.")
        return 0
    print(f"Wrote {workdir / 'evaluation.json'}.")
    return 0


def predict(values: flags.FlagValues, workdir: Path) -> int:
    """`--mode=predict`: predicts the classes of new examples."""
    from jaxrobust.runs import predict as inference
    from jaxrobust.runs.workdir import check_output

    own = run_settings(values, workdir)
    check_output(workdir, "output", values.output, [values.input])
    path = inference.predict(workdir, values.input, values.output, values.which, own, say=say)
    tell(f"Wrote {path}.")
    return 0


def audit(values: flags.FlagValues, workdir: Path) -> int:
    """`--mode=audit`: finds the label issues of a finished run again."""
    from jaxrobust.audit import export
    from jaxrobust.runs import audit as auditing
    from jaxrobust.runs import corrections
    from jaxrobust.runs import workdir as workdirs
    from jaxrobust.training.signals import Interrupted

    corrected, output = values.write_corrected, values.output
    if corrected:
        export.check_target(corrected)
    write_export = _exporter(values.export)
    auditing.check_finished(workdir)
    chosen = run_settings(values, workdir)
    named = configuration.flat(workdirs.read_config(workdir)) | chosen
    for flag in ("write_corrected", "export"):
        read = [values.decisions, *(named[key] for key in _DATA)]
        workdirs.check_output(workdir, flag, getattr(values, flag), read)
    folds = chosen.pop("audit.folds", None)
    try:
        found = auditing.remake(
            workdir,
            folds,
            say=say,
            settings=chosen,
            reviewed=values.decisions,
            output=output,
            elsewhere=bool(corrected or values.export),
        )
    except Interrupted as stop:
        say(f"Stopped by {stop}. Nothing was written.")
        return stop.code
    tell(auditing.sentence(found.summary))
    if found.folder is not None:
        tell("Wrote " + ", ".join(str(found.folder / name) for name in auditing.FILES) + ".")
    if corrected:
        changed, note = corrections.write_corrected(
            workdir, found.every, corrected, chosen, values.decisions, values.force
        )
        if note:
            say(f"note: {note}")
        planted = workdirs.read_config(workdir).data.noise.kind != "none"
        without = " --config.data.noise.kind=none --config.data.noise.rate=0" if planted else ""
        tell(
            f"Wrote {corrected}: {changed} labels replaced. Give it to another run: "
            f"--config.data.labels_file={corrected}{without}"
        )
    if write_export is not None:
        tell(f"Wrote {write_export(found.every)}.")
    return _failed(values.fail_on, found.summary)


def _exporter(target: str | None) -> Callable[[Any], Path] | None:
    """Returns what writes label issues for another tool, of `--export=TOOL:FILE`.

    Raises:
      UserError: no such tool, or no file.
    """
    from jaxrobust.audit import export

    if target is None:
        return None
    tool, _, path = target.partition(":")
    tools = {"label_studio": export.write_label_studio, "fiftyone": export.write_fiftyone}
    check(
        tool in tools and bool(path),
        f"--export={target}: write label_studio:tasks.json or "
        f"fiftyone:samples.csv.{nearest(tool, tools)}",
    )
    return lambda issues: tools[tool](issues, path)


def _failed(fail_on: str | None, summary: dict[str, Any]) -> int:
    """Returns 1 where an audit's codes hold one of `--fail_on=CODE,…`, else 0.

    Raises:
      UserError: a code that does not exist.
    """
    from jaxrobust.audit.checks import CHECKS

    asked = [code for code in (fail_on or "").split(",") if code]
    for code in asked:
        check(
            code in CHECKS,
            f"--fail_on={code}: no such code.{nearest(code, CHECKS)} Known: {', '.join(CHECKS)}.",
        )
    hit = [code for code in asked if code in summary.get("codes", ())]
    if hit:
        say(f"failed: {', '.join(hit)} (--fail_on).")
    return 1 if hit else 0


MODES: dict[str, Callable[[flags.FlagValues, Path], int]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "audit": audit,
}


def given(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the settings that the command line gave (`--config.SETTING=VALUE`), by full name."""
    found = {key: values[f"config.{key}"] for key, _ in settings() if f"config.{key}" in values}
    return {key: flag.value for key, flag in found.items() if flag.present}


def run_settings(values: flags.FlagValues, workdir: Path) -> dict[str, Any]:
    """Returns the settings that a mode is to use instead of the workdir's own.

    Raises:
      UserError: there is no run; or the command line gives a setting, or a configuration, that
        differs from the run's own and that the mode does not take.
    """
    from jaxrobust.runs import workdir as workdirs

    own = configuration.flat(workdirs.read_config(workdir))
    check(
        not own["train.seeds"],
        f"--workdir={workdir} holds a run per seed: name one of them, "
        f"--workdir={workdir / 'seed_'}{(*own['train.seeds'], '')[0]}.",
    )
    named = configuration.flat(values.config) if values.config_name else given(values)
    changed = {key: value for key, value in named.items() if value != own.get(key)}
    takes = TAKES[values.mode]
    for key, value in changed.items():
        check(
            key in takes,
            f"{key}={value!r} was given, but --mode={values.mode} uses the run's own settings "
            f"({key}={own.get(key)!r} in {workdir}). It takes {', '.join(takes)}.",
        )
    if values.mode == "audit" and "audit.folds" in given(values):
        changed["audit.folds"] = given(values)["audit.folds"]
    return changed


def parse(argv: list[str]) -> flags.FlagValues:
    """Parses a command line into flags.

    Returns:
      The flags by name; `config` is the configuration with overrides, `config_name` what --config
      named, or None.

    Raises:
      UserError: one line that names the wrong flag, setting or value, and the nearest right one.
    """
    name, rest = split_argv(argv)
    check_flags(rest)
    values = flags.FlagValues()
    for flag, default in STRINGS.items():
        flags.DEFINE_string(flag, default, "see --help", flag_values=values)
    flags.DEFINE_string("config_name", name, "what --config named", flag_values=values)
    flags.DEFINE_boolean("verbose", False, "see --help", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "show what would be done, and stop", flag_values=values)
    flags.DEFINE_boolean("force", False, "see --help", flag_values=values)
    config = configuration.load(name) if name else configuration.default_config()
    recipe = copy.deepcopy(config)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        left = values(rest)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise explain(error, rest) from None
    configuration.check_benchmark(recipe, values.config, given(values))
    check(not left, f"Unexpected argument {left[0]!r}; flags begin with --." if left else "")
    check(
        values.mode in MODES,
        f"--mode={values.mode}: one of {', '.join(MODES)}.{nearest(values.mode, MODES)}",
    )
    which = ("selected", "last", "ema", "label_wave")
    check(values.which in which, f"--which={values.which}: one of {', '.join(which)}.")
    check(
        (name is None) != (values.sweep is None) or values.mode != "train",
        "Name a configuration: --config=digits_dal, a .py file or a config.json; or a --sweep.",
    )
    if values.workdir is None and values.mode == "train" and name:
        values.workdir = default_workdir(name)
    for mode, own in _FLAGS_OF.items():
        for flag in own:
            check(
                getattr(values, flag) is None or values.mode == mode or values.sweep is not None,
                f"--{flag} is for --mode={mode}.",
            )
    check(
        values.output is None or values.mode in ("predict", "audit") or values.sweep is not None,
        "--output is for --mode=predict and --mode=audit.",
    )
    check(not values.force or values.write_corrected, "--force is for --write_corrected.")
    if values.fail_on:
        _failed(values.fail_on, {})  # Codes that do not exist are named now.
    check(values.dry_run or values.workdir, "Name a folder for the run: --workdir=runs/NAME.")
    return values


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


def check_flags(argv: list[str]) -> None:
    """Checks the names of the flags of a command line without its `--config`.

    Raises:
      UserError: a flag or a setting that does not exist; names the nearest that does.
    """
    known = dict(settings())
    for word in argv[1:]:
        flag = word.lstrip("-").partition("=")[0]
        if not word.startswith("-") or not flag[:1].isalpha():  # a value: a negative number
            continue
        key = flag.removeprefix("no") if flag.startswith("noconfig.") else flag
        if key.startswith("config."):
            key = key.removeprefix("config.")
            if key not in known:
                raise unknown_key(key)
        elif flag not in FLAGS and flag not in ("nodry_run", "noforce", "noverbose"):
            raise UserError(f"Unknown flag --{flag}.{_nearest_flag(flag, list(known))}")


def _nearest_flag(flag: str, keys: list[str]) -> str:
    """Returns " Did you mean …?" for a flag that does not exist: settings may lack their prefix."""
    if flag.lower() in _DEVICE_FLAGS:
        return " The device is JAX's choice: set JAX_PLATFORMS=cpu, cuda or tpu."
    if inside := configuration.named_like(flag):
        return f" Did you mean {' or '.join(f'--config.{key}' for key in inside[:4])}?"
    last = {key.rpartition(".")[2]: key for key in keys}
    names = {f"--config.{key}": key for key in keys}
    hint = nearest(flag, [*FLAGS, *last], 0.6) or nearest(f"--config.{flag}", names, 0.85)
    for name, key in last.items():
        hint = hint.replace(f"'{name}'", f"'--config.{key}'")
    return hint


def explain(error: Exception, argv: list[str]) -> UserError:
    """Turns what absl or ml_collections said about a command line into one clear line."""
    known = dict(settings())
    for word in argv[1:]:
        flag, equals, value = word.lstrip("-").partition("=")
        key = flag.removeprefix("config.")
        if word.startswith("-") and equals and key in known and key in str(error):
            return UserError(f"{key}={value!r}: expected {known[key].kind.__name__}.")
    return UserError((str(error).splitlines() or [type(error).__name__])[0])


def usage() -> str:
    """The text of `--help`: flags, then every setting with its default."""
    lines = [
        "python -m jaxrobust.main --config=NAME --workdir=FOLDER [--config.SETTING=VALUE …]",
        "  --config   a recipe's name (" + ", ".join(recipes()) + "), a .py file, a config.json",
        "  --sweep    a .py file with a grid of runs, instead of --config",
        "  --workdir  folder of the run (else runs/NAME); the same command again resumes it",
        "  --mode     train, evaluate, predict (--input=… [--output=…] [--which=last]),",
        "             audit ([--config.audit.folds=5] [--output=FOLDER]",
        "             [--write_corrected=labels.csv]); the last three use the workdir's own",
        "             settings, and --config.data.path= for data that have moved",
        "  --decisions=decisions.csv  audit: those saved from the report; --write_corrected then",
        "             applies exactly these",
        "  --force    audit: --write_corrected replaces also what the evidence does not support",
        "  --export=label_studio:tasks.json or fiftyone:samples.csv  audit: files for them",
        "  --fail_on=CODE,…  train and audit: exit code 1 where the audit's notes have such a code",
        "  --distributed=auto (TPU, Slurm) or HOST:PORT,COUNT,ID: one of several processes",
        "  --dry_run  show data, sizes and the expected time; train nothing, write nothing",
        "  --verbose  dry run: also the whole configuration and the size of every class",
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

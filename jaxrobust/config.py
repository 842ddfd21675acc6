"""Loading, overriding, validating and writing of a run's configuration."""

from __future__ import annotations

import json
import math
import re
import runpy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from jaxrobust import files
from jaxrobust.errors import UserError, check, choose, nearest
from jaxrobust.schema import SCHEMA, Setting

XLA_OPTIONS = frozenset(
    (
        "xla_allow_excess_precision xla_backend_optimization_level xla_cpu_enable_fast_math "
        "xla_cpu_enable_fast_min_max xla_cpu_experimental_xnn_fusion_type "
        "xla_cpu_experimental_ynn_fusion_type xla_cpu_experimental_onednn_fusion_type "
        "xla_cpu_experimental_xnn_graph_fusion_mode xla_cpu_max_isa "
        "xla_cpu_parallel_codegen_split_count xla_cpu_prefer_vector_width xla_cpu_use_onednn "
        "xla_cpu_use_xnnpack xla_disable_hlo_passes xla_gpu_autotune_level "
        "xla_gpu_deterministic_ops xla_gpu_enable_command_buffer "
        "xla_gpu_enable_latency_hiding_scheduler xla_gpu_enable_triton_gemm "
        "xla_gpu_exclude_nondeterministic_ops xla_gpu_triton_gemm_any "
        "xla_llvm_disable_expensive_passes xla_tpu_scoped_vmem_limit_kib"
    ).split()
)
"""Compiler options that a configuration may hold: none of them names a file. A `config.json` may
come from somebody else; whatever else XLA can do is for the environment variable XLA_FLAGS."""


def default_config() -> ConfigDict:
    """Returns every setting at its default, as a locked `ConfigDict` to change and hand on."""

    def build(node: Any) -> Any:
        if isinstance(node, Setting):
            return config_dict.placeholder(node.kind) if node.default is None else node.default
        return {name: build(child) for name, child in node.items()}

    return ConfigDict(build(SCHEMA)).lock()


def settings(node: dict = SCHEMA, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yields `("data.noise.rate", Setting)` for every setting."""
    for name, child in node.items():
        if isinstance(child, Setting):
            yield prefix + name, child
        else:
            yield from settings(child, f"{prefix}{name}.")


_USUAL = {
    "lr": "learning_rate", "bs": "batch_size", "batchsize": "batch_size", "wd": "weight_decay",
    "decay": "weight_decay", "epoch": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "ratio": "rate", "noise_rate": "rate", "noise": "rate", "random_state": "seed",
    "model": "network.name", "arch": "network.name", "dataset": "data.name",
    "imbalance_ratio": "factor", "gamma_lr": "gamma",
}  # fmt: skip
"""What other programs call settings, and how they end here."""


def named_like(key: str) -> list[str]:
    """Returns the settings that are meant by what others call them, or by their last word.

    Args:
      key: such as "optimizer.lr" or "learning_rate".

    Returns:
      Full names; where there are some in the key's own group, these only.
    """
    group, _, last = key.lower().replace("-", "_").rpartition(".")
    known = [name for name, _ in settings()]
    word = _USUAL.get(last, last)
    found = [name for name in known if name == word or name.endswith(f".{word}")]
    return [name for name in found if group and name.startswith(f"{group}.")] or found


def unknown_key(key: str) -> UserError:
    """The error for a setting that does not exist, with the nearest one that does."""
    known = [k for k, _ in settings()]
    inside = [k.removeprefix(key + ".") for k in known if k.startswith(key + ".")]
    if inside:
        return UserError(f"{key!r} is a group; set one of its settings: {', '.join(inside)}.")
    like = named_like(key)
    meant = f" Did you mean {' or '.join(map(repr, like[:4]))}?" if like else ""
    usual = key.rpartition(".")[2] in _USUAL
    hint = meant if usual else nearest(key, known, 0.8) or meant or nearest(key, known)
    return UserError(f"No setting {key!r}.{hint}")


def from_mapping(values: dict[str, Any]) -> ConfigDict:
    """Returns the default configuration with `values`, a nested mapping, put over it.

    Raises:
      UserError: a key that is no setting, or a value of the wrong type.
    """
    config = default_config()
    known = dict(settings())

    def put(target: Any, mapping: Any, prefix: str) -> Any:
        for name, value in mapping.items():
            key = prefix + name
            group = "." not in name and name in target and key not in known
            if isinstance(value, dict) and group:
                put(target[name], value, key + ".")
            elif key not in known:
                raise unknown_key(key)
            else:
                target.update_from_flattened_dict({name: _cast(key, known[key], value)})

    put(config, values, "")
    return config


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Puts values, by full name ("data.noise.rate"), into a configuration; returns it.

    Raises:
      UserError: a key that is no setting, or a value of the wrong type.
    """
    known = dict(settings())
    for key, value in values.items():
        if key not in known:
            raise unknown_key(key)
        config.update_from_flattened_dict({key: _cast(key, known[key], value)})
    return config


def cast(key: str, value: Any) -> Any:
    """Returns a value as the setting `key` takes it: NumPy's numbers as Python's, lists as tuples.

    Raises:
      UserError: a value of the wrong type.
    """
    return _cast(key, dict(settings())[key], value)


def _cast(key: str, setting: Setting, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        value = type(value)(v.item() if isinstance(v, np.generic) else v for v in value)
    if value is None and setting.default is None:
        return None
    if setting.kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if setting.kind is tuple and isinstance(value, list):
        return tuple(value)
    plain = setting.kind is bool or not isinstance(value, bool)
    right = plain and isinstance(value, setting.kind)
    check(right, f"{key}={value!r}: expected {setting.kind.__name__}.")
    return value


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every value against the schema, and those that must fit together.

    Raises:
      UserError: names the setting, its value and what it takes.
    """
    values = flat(config)
    for key, setting in settings():
        check(
            key in values,
            f"The configuration lacks {key!r}: begin with jaxrobust.config.default_config(), "
            "which has every setting, and change what differs.",
        )
        value = values.pop(key)
        if value is None:
            continue
        value = _cast(key, setting, value)
        finite = not isinstance(value, float) or math.isfinite(value)
        check(finite, f"{key}={value!r}: must be a finite number.")
        if setting.rule is not None and not setting.rule.holds(value):
            hint = nearest(value, setting.rule.choices) if setting.rule.choices else ""
            part = key.rpartition(".")[2]
            if setting.kind is float and 1 < value <= 100 and setting.rule.holds(value / 100):
                hint = (
                    f" {value:g} % is {value / 100:g}."
                    if "rate" in part or "fraction" in part
                    else ""
                )
            raise UserError(f"{key}={value!r}: must be {setting.rule.text}.{hint}")
    for key in values:
        raise unknown_key(key)
    _check_together(config)
    return config


def _check_together(config: ConfigDict) -> None:
    noise, imbalance, loss = config.data.noise, config.data.imbalance, config.loss
    check(
        noise.kind in ("none", "matrix") or noise.rate > 0,
        f"data.noise.kind={noise.kind!r} needs data.noise.rate > 0.",
    )
    check(
        noise.kind != "none" or noise.rate == 0,
        f"data.noise.rate={noise.rate:g} needs data.noise.kind, e.g. symmetric.",
    )
    check(
        imbalance.kind != "none" or imbalance.factor == 1,
        f"data.imbalance.factor={imbalance.factor:g} needs data.imbalance.kind: "
        "exponential or step.",
    )
    check(
        (noise.kind == "matrix") == (noise.matrix is not None),
        "data.noise.kind=matrix and data.noise.matrix=FILE go together.",
    )
    check(
        config.eval.few_below <= config.eval.many_above,
        f"eval.few_below={config.eval.few_below} must not exceed "
        f"eval.many_above={config.eval.many_above}.",
    )
    network_only = {
        "train.ema": config.train.ema is not None,
        "train.mixup_alpha": config.train.mixup_alpha is not None,
        "eval.label_wave": config.eval.label_wave,
    }
    for name, is_set in network_only.items():
        check(
            not is_set or config.method.name != "blend",
            f"{name} is of a network's training: method.name=blend trains none. Leave it out.",
        )
    for option in config.train.xla_options:
        if config.train.xla_options == ("auto",):
            break
        name = option.partition("=")[0]
        check(
            name in XLA_OPTIONS,
            f"train.xla_options={option!r}: not among the compiler options that a configuration "
            f"may set.{nearest(name, XLA_OPTIONS)} Set it in the environment: XLA_FLAGS=--{option}",
        )
    warm, epochs = config.optimizer.warmup_epochs, config.train.epochs
    check(warm < epochs, f"optimizer.warmup_epochs={warm} must be below train.epochs={epochs}.")
    check(
        config.probe_workdir is None or config.method.curves_file is None,
        "probe_workdir and method.curves_file both name curves: choose one.",
    )
    if loss.name == "dal" and loss.q_start is not None and loss.q_end is not None:
        check(loss.q_start <= loss.q_end, "loss.q_start must not exceed loss.q_end.")


def flat(config: ConfigDict) -> dict[str, Any]:
    """Returns every setting of a configuration by its full name ("data.noise.rate")."""
    return _flat(config.to_dict())


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def difference(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns a line `key: old -> new` for every setting in which two configurations differ."""
    a, b = _flat(json.loads(to_json(old))), _flat(json.loads(to_json(new)))
    return [f"{k}: {a.get(k)!r} -> {b.get(k)!r}" for k in sorted(a | b) if a.get(k) != b.get(k)]


def to_json(config: ConfigDict) -> str:
    """Returns what `config.json` holds: every setting, as nested JSON."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def load(name: str) -> ConfigDict:
    """Loads a configuration.

    Args:
      name: a Python file with `get_config()`, a `config.json`, or the bare name of a recipe
        (`digits_dal`). A Python file may be followed by `:argument` for `get_config(argument)`.

    Raises:
      UserError: no such file, no `get_config`, an argument it does not take, bad JSON.
    """
    text, _, argument = (name, "", "") if Path(name).is_file() else name.partition(":")
    path = find(text)
    if path.suffix == ".json":
        return from_mapping(files.read_json(path))
    config = call(path, "get_config", *([argument] if argument else []))
    check(isinstance(config, ConfigDict), f"{path}: get_config() must return a ConfigDict.")
    return config


def call(path: Path, name: str, *arguments: str) -> Any:
    """Returns what the function `name` of a Python file does; raises `UserError` if it fails."""
    try:
        function = runpy.run_path(str(path)).get(name)
        if not callable(function):
            raise UserError(f"{path} defines no {name}().")
        return function(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        text = str(error).replace("\\n", "\n").strip("'\"")
        if match := re.match(r"Key \"(\w+)\" does not exist", text):
            raise UserError(f"{path}: {unknown_key(match[1])}") from None
        line = (text.splitlines() or [""])[0]
        raise UserError(f"{path}: {type(error).__name__}: {line}") from None


def recipes_folder() -> Path:
    """Returns the folder of the recipes, in the wheel or beside the package in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def recipes() -> dict[str, Path]:
    """Returns the recipes that come with the package, by bare name."""
    return {path.stem: path for path in sorted(recipes_folder().glob("*.py"))}


PLANTED = {
    "data.noise.kind": "label noise",
    "data.imbalance.kind": "a long tail",
    "data.metadata.kind": "a meta set",
    "data.validation.clean": "validation data with true labels",
    "data.num_classes": "the first classes alone",
    "data.subset": "a subset",
}
OWN_DATA = {"folder": "images", "npz": "arrays", "csv": "table"}
"""Recipe for data of one's own, by data.name."""


def check_benchmark(recipe: ConfigDict, config: ConfigDict, given: Iterable[str]) -> None:
    """Checks that what a recipe does to its own benchmark data is not done to other data.

    Args:
      recipe: the configuration as it was loaded.
      config: with what the user has set.
      given: full names of the settings that the user has set.

    Raises:
      UserError: names what would be planted or cut, and the recipe for data of one's own.
    """
    before, after = flat(recipe), flat(config)
    default = flat(default_config())
    if before["data.name"] == after["data.name"]:
        return
    left = {
        key: text
        for key, text in PLANTED.items()
        if after[key] != default[key] and after[key] == before[key] and key not in given
    }
    own = OWN_DATA.get(after["data.name"])
    advice = (
        f"For data of your own use --config={own}."
        if own
        else f"Set {', '.join(f'--config.{key}=…' for key in left)} yourself to do so."
    )
    check(
        not left,
        f"This recipe puts {', '.join(left.values())} into its benchmark data "
        f"({before['data.name']}), which is not meant for data.name={after['data.name']}. {advice}",
    )


def find(text: str) -> Path:
    """Returns the file that a name, a path or a run's folder stands for; errors as in `load`."""
    path = Path(text)
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.is_file() and path.suffix in (".py", ".json"):
        return path
    known = recipes()
    if path.stem in known and (path.name == path.stem or path.parent.name == "configs"):
        return known[path.stem]
    raise UserError(
        f"No configuration {text!r}: neither a .py or .json file nor a recipe."
        f"{nearest(path.stem, known)}"
    )


def set_loss(config: ConfigDict, name: str, hyper_parameters: dict[str, dict[str, Any]]) -> None:
    """Sets a loss and its hyper-parameters from a recipe's table; for `configs/`.

    Args:
      config: changed in place.
      name: of the loss; one that the table does not hold keeps its own defaults.
      hyper_parameters: by loss, values of `loss.*`; keys with a dot are full names of others,
        as "optimizer.l1".

    Raises:
      UserError: there is no such loss.
    """
    config.loss.name = choose("loss", name, SCHEMA["loss"]["name"].rule.choices)
    for key, value in hyper_parameters.get(name, {}).items():
        group, _, setting = ("loss." + key if "." not in key else key).partition(".")
        config[group][setting] = value


def l1(weight: float, clip_norm: float | None = None) -> dict[str, Any]:
    """Returns settings of an L1 penalty instead of weight decay, for a table of `set_loss`.

    Args:
      weight: of the penalty.
      clip_norm: bound on the gradient's norm, or None.
    """
    made = {"optimizer.l1": weight, "optimizer.weight_decay": 0.0}
    return made if clip_norm is None else made | {"optimizer.clip_norm": clip_norm}


def load_values(recipe: str, name: str) -> Any:
    """Returns the variable `name` of another recipe; for `configs/`."""
    return runpy.run_path(str(recipes()[recipe]))[name]

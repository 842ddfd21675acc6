"""Configurations: defaults, overrides, checks, files."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxrobust import config, losses, main
from jaxrobust.errors import UserError
from jaxrobust.schema import SCHEMA, Setting

ALL_LOSSES = [*losses.LOSSES, *losses.MEMORY_LOSSES]


def test_every_setting_has_a_default_that_passes_its_own_rule_and_a_text():
    for key, setting in config.settings():
        assert setting.doc, key
        if setting.default is not None:
            assert isinstance(setting.default, setting.kind), key
            assert setting.rule is None or setting.rule.holds(setting.default), key
    assert config.validate(config.default_config()).seed == 0


def test_the_losses_and_their_hyper_parameters_are_all_settings():
    assert SCHEMA["loss"]["name"].rule.choices == tuple(ALL_LOSSES)
    known = set(SCHEMA["loss"]) - {"name", "reweight_from", "reweight_beta", "logit_clip"}
    assert known == {key for name in ALL_LOSSES for key in losses.settings(name)}
    for name in ALL_LOSSES:
        for key, default in losses.settings(name).items():
            kind = SCHEMA["loss"][key].kind
            assert kind is float or isinstance(default, kind), (name, key)
            assert name in SCHEMA["loss"][key].doc


@pytest.mark.parametrize("recipe", sorted(config.recipes()))
def test_every_recipe_is_valid_and_reads_back_the_same(recipe, tmp_path):
    made = config.validate(config.load(recipe))
    path = tmp_path / "config.json"
    path.write_text(config.to_json(made))
    assert config.difference(config.load(str(path)), made) == []


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "webvision"])
@pytest.mark.parametrize("loss", sorted(ALL_LOSSES))
def test_every_loss_has_a_recipe_on_every_data_set(data, loss):
    made = config.validate(config.load(f"{data}_losses:{loss}"))
    assert made.loss.name == loss


def test_the_published_regularizers_go_with_their_losses():
    made = config.load("cifar10_losses:jal_ce")
    assert (made.loss.alpha, made.loss.beta, made.loss.a) == (1.0, 1.0, 30.0)
    o = made.optimizer
    assert (o.l1, o.weight_decay, o.clip_norm) == (5e-5, 0.0, None)
    o = config.load("cifar100_losses:anl_ce").optimizer
    assert (o.l1, o.weight_decay, o.clip_norm) == (5e-7, 0.0, 5.0)
    o = config.load("webvision_losses:jal_ce").optimizer
    assert (o.l1, o.weight_decay) == (0.0, 3e-5)
    o = config.load("cifar10_losses:gce").optimizer
    assert (o.l1, o.weight_decay) == (0.0, 1e-4)


def test_the_published_dal_recipe():
    made = config.load("cifar10_dal")
    assert (made.network.name, made.train.epochs, made.train.batch_size) == ("resnet18", 150, 128)
    o = made.optimizer
    assert (o.learning_rate, o.momentum, o.weight_decay) == (0.01, 0.9, 1e-4)
    assert (o.schedule, o.per_step, o.nesterov) == ("cosine", False, False)
    assert (made.loss.q_start, made.loss.q_end) == (0.6, 1.5)
    assert made.data.validation.fraction == 0.0


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("length, epochs", [("published", 325), ("short", 60)])
def test_the_published_dynamic_loss_recipe(data, length, epochs):
    made = config.load(f"{data}_dynamic_loss:{length}")
    assert (made.data.name, made.network.name, made.method.name) == (
        data,
        "resnet32",
        "dynamic_loss",
    )
    t, o, m = made.train, made.optimizer, made.method
    assert (t.batch_size, t.epochs, m.warmup_epochs) == (512, epochs, 5)
    assert (o.learning_rate, o.momentum, o.weight_decay) == (0.1, 0.9, 5e-4)
    assert (o.schedule, o.per_step, o.nesterov) == ("cosine", False, False)
    assert (o.warmup_epochs, o.warmup_start, o.warmup) == (5, 0.01, "factor")
    assert (made.augment.kind, made.augment.pad, made.augment.cutout) == ("strong", 4, 16)
    assert made.augment.cutout_kind == "gray" and not m.repeat_metadata
    assert (m.weak_view, m.mixup_alpha, m.fine_tune) == ("none", None, True)
    assert (m.meta_learning_rate, m.meta_weight_decay, m.meta_batch_size) == (3e-3, 0.0, None)
    assert (m.num_ranks, m.hidden, m.fit_steps) == (100, 64, 2000)
    assert (m.candidates, m.kept, m.by_loss, m.shared_weight) == (0.5, 0.5, True, False)
    assert (m.corrector, m.margin, m.meta_every, m.look_ahead_steps) == (True, True, 1, 1)
    assert (m.hypergradient, m.skip_stages, made.loss.name) == ("exact", 0, "ce")
    assert (made.data.metadata.kind, made.data.validation.fraction) == ("none", 0.0)


@pytest.mark.parametrize("data, per_class", [("cifar10", 100), ("cifar100", 10)])
def test_the_published_curvenet_recipe(data, per_class):
    made = config.load(f"{data}_curvenet")
    assert (made.data.name, made.network.name, made.method.name) == (data, "resnet32", "curvenet")
    t, o, m = made.train, made.optimizer, made.method
    assert (t.batch_size, t.epochs, m.probe_epochs, m.probe_batch_divisor) == (128, 200, 300, 8)
    assert (o.learning_rate, o.momentum, o.nesterov, o.weight_decay) == (0.1, 0.9, True, 5e-4)
    assert (o.schedule, o.milestones, o.gamma, o.warmup_epochs) == ("step", (80, 100), 0.1, 4)
    assert (m.freeze_epoch, m.weight_smoothing, m.probe_learning_rate) == (None, 1.0, None)
    assert (m.meta_learning_rate, m.meta_weight_decay) == (1e-3, 1e-4)
    assert (m.hidden, m.weight_factor, m.weight_bias) == (64, 1.0, 0.02)
    assert (m.skip_stages, m.hypergradient, m.base, made.loss.name) == (0, "exact", "loss", "ce")
    assert (made.augment.pad, made.augment.pad_mode) == (4, "reflect")
    metadata = made.data.metadata
    assert (metadata.kind, metadata.per_class) == ("clean", per_class)
    assert (made.data.validation.fraction, made.loss.reweight_beta) == (0.0, 0.9999)
    short = config.load(f"{data}_curvenet:short")
    assert (short.method.probe_epochs, short.train.epochs) == (60, 50)
    assert short.optimizer.milestones == (20, 35) and short.train.batch_size == 128


def test_a_written_configuration_reads_back_the_same(tmp_path):
    made = config.load("digits_dal")
    made.data.noise.kind, made.data.noise.rate, made.optimizer.milestones = "symmetric", 0.4, (3,)
    path = tmp_path / "config.json"
    path.write_text(config.to_json(made))
    assert config.difference(config.load(str(path)), made) == []
    assert config.difference(config.load(str(tmp_path)), made) == []
    made.seed = 3
    assert config.difference(config.load(str(path)), made) == ["seed: 0 -> 3"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"data": {"noise": {"rate": 1.0}}}, "data.noise.rate=1.0: must be in [0, 1)"),
        ({"data": {"noise": {"rate": -0.1}}}, "data.noise.rate=-0.1"),
        ({"loss": {"name": "gcee"}}, "Did you mean 'gce'?"),
        ({"network": {"name": "resnett32"}}, "Did you mean 'resnet32'?"),
        ({"method": {"name": "supervized"}}, "Did you mean 'supervised'?"),
        ({"train": {"epochs": 0}}, "train.epochs=0: must be at least 1"),
        ({"data": {"noise": {"kind": "symmetric"}}}, "needs data.noise.rate > 0"),
        ({"data": {"noise": {"rate": 0.4}}}, "needs data.noise.kind"),
        ({"data": {"imbalance": {"factor": 0.1}}}, "needs data.imbalance.kind"),
        ({"optimizer": {"milestones": [80, 60]}}, "increasing"),
        ({"optimizer": {"milestones": [60, 60]}}, "increasing"),
        ({"optimizer": {"milestones": [5, "a"]}}, "increasing numbers"),
        ({"optimizer": {"milestones": ["a"]}}, "increasing numbers"),
        ({"optimizer": {"milestones": [-3, 5]}}, "at least 1"),
        ({"optimizer": {"milestones": [0]}}, "at least 1"),
        ({"train": {"xla_options": ["foo"]}}, "train.xla_options=('foo',): must be of texts"),
        ({"train": {"xla_options": ["=1"]}}, "'name=value'"),
        ({"train": {"xla_options": [3]}}, "'name=value'"),
        ({"eval": {"few_below": 200}}, "must not exceed"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(UserError) as error:
        config.validate(config.from_mapping(values))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"data": {"nois": {}}}, "Did you mean 'data.noise"),
        ({"sed": 1}, "Did you mean 'seed'?"),
        ({"train": {"epochs": "many"}}, "expected int"),
        ({"train": {"epochs": 2.5}}, "expected int"),
        ({"seed": True}, "expected int"),
    ],
)
def test_unknown_keys_and_wrong_types_are_named(values, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        config.from_mapping(values)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config=digits_dall"], "Did you mean 'digits_dal'?"),
        (["--config=nowhere/x.py"], "No configuration 'nowhere/x.py'"),
        (["--config=digits_losses:gcee"], "Did you mean 'gce'?"),
        (["--config=digits_dal", "--config.data.nois.rate=1"], "Did you mean 'data.noise.rate'?"),
        (["--config=digits_dal", "--config.data.noise=1"], "'data.noise' is a group"),
        (["--config=digits_dal", "--config.seed=abc"], "seed='abc': expected int."),
        (["--config=digits_ce", "--config.optimizer.lr=0.1"], "No setting 'optimizer.lr'."),
        (["--config=digits_ce", "--config.train.epochs.x=1"], "No setting 'train.epochs.x'."),
        (["--config=digits_ce", "--config.los.name=ce"], "Did you mean 'loss.name'?"),
        (["--config=digits_ce", "--config.sede=1"], "Did you mean 'seed'?"),
        (["--config=digits_ce", "--epochs=5"], "Did you mean --config.train.epochs?"),
        (["--config=digits_ce", "--epoch=5"], "Did you mean --config.train.epochs?"),
        (["--config=digits_ce", "--learning_rate", "0.1"], "--config.optimizer.learning_rate"),
        (["--config=digits_ce", "--train.epochs=5"], "Did you mean --config.train.epochs?"),
        (
            ["--config=digits_ce", "--config.train.xla_options=('xla_dump_to=/x',)"],
            "train.xla_options='xla_dump_to=/x': not among the compiler options",
        ),
        (["--config=digits_dal", "--workdr=x"], "Did you mean 'workdir'?"),
        (["--config=digits_dal", "--mode=trian"], "Did you mean 'train'?"),
        (["--config=digits_dal", "stray"], "Unexpected argument 'stray'"),
        (["--mode=evaluate"], "Name a folder for the run"),
        (["--sweep=digits"], "Name a folder for the run"),
        (["--workdir=x"], "Name a configuration"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_exit_code_2(arguments, message, capsys):
    assert main.run(["main", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said


def test_a_run_without_a_workdir_is_named_after_its_recipe(tmp_path):
    assert main.parse(["main", "--config=digits_dal"]).workdir == "runs/digits_dal"
    assert main.parse(["main", "--config=digits_losses:gce"]).workdir == "runs/digits_losses_gce"
    recipe = config.recipes()["digits_dal"]
    assert main.parse(["main", f"--config={recipe}"]).workdir == "runs/digits_dal"
    saved = tmp_path / "config.json"
    saved.write_text(config.to_json(config.load("digits_dal")))
    with pytest.raises(UserError, match="Name a folder for the run"):
        main.parse(["main", f"--config={saved}"])


def test_overrides_reach_the_configuration():
    values = main.parse(
        [
            "main",
            "--config=digits_dal",
            "--workdir=w",
            "--config.data.noise.kind=symmetric",
            "--config.data.noise.rate=0.4",
            "--config.loss.q_end=2",
            "--config.train.epochs",
            "7",
            "--config.optimizer.milestones=(3,5)",
            "--nodry_run",
        ]
    )
    made = config.validate(values.config)
    assert (made.data.noise.rate, made.loss.q_end, made.train.epochs) == (0.4, 2.0, 7)
    assert made.optimizer.milestones == (3, 5) and values.workdir == "w"


def test_broken_configuration_files_are_named(tmp_path):
    for name, text, message in [
        ("a.json", "{", "not valid JSON"),
        ("b.json", "[1]", "does not hold a JSON object"),
        ("c.py", "x = 1", "defines no get_config"),
        ("d.py", "def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        ("e.py", "def get_config():\n    return {}", "must return a ConfigDict"),
        ("f.json", json.dumps({"seeed": 1}), "Did you mean 'seed'?"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as error:
            config.load(str(tmp_path / name))
        assert message in str(error.value)


@pytest.mark.parametrize("value", [np.int64(7), np.int32(7), np.uint8(7)])
def test_numbers_of_numpy_are_numbers(value):
    made = config.override(config.default_config(), {"train.epochs": value, "seed": value})
    assert made.train.epochs == 7 and type(made.train.epochs) is int
    made = config.override(
        made,
        {
            "optimizer.learning_rate": np.float32(0.5),
            "optimizer.milestones": [np.int64(3), np.int64(5)],
        },
    )
    assert made.optimizer.learning_rate == 0.5 and made.optimizer.milestones == (3, 5)
    assert json.loads(config.to_json(made))["optimizer"]["milestones"] == [3, 5]
    with pytest.raises(UserError, match="epochs=1.5: expected int"):
        config.cast("train.epochs", np.float64(1.5))


def test_a_configuration_from_somebody_else_cannot_have_files_written(tmp_path):
    values = json.loads(config.to_json(config.load("digits_ce")))
    for option in ("xla_dump_to=/x", "xla_gpu_kernel_cache_file=/x", "made_up=1"):
        values["train"]["xla_options"] = [option]
        (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match="Set it in the environment: XLA_FLAGS=--"):
            config.validate(config.load(str(tmp_path)))
    values["train"]["xla_options"] = ["xla_backend_optimization_level=0"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    config.validate(config.load(str(tmp_path)))


@pytest.mark.parametrize("content", [b"{", b"\xff{}", b"", b"[" * 100_000, b"5"])
def test_json_that_is_damaged_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json is damaged") as error:
        config.load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_mistake_in_a_flag_and_help_need_no_jax():
    code = """
import sys
from jaxrobust import main
assert main.run(["main", "--config=digits_ce", "--config.sede=1"]) == 2
assert main.run(["main", "--help"]) == 0
assert "jax" not in sys.modules and "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_setting(capsys):
    assert main.run(["main", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"--config.{key}=" in said for key, _ in config.settings())


def test_a_setting_is_described_once():
    assert isinstance(SCHEMA["seed"], Setting)
    keys = [key for key, _ in config.settings()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optimizer.lr", "'optimizer.learning_rate'"),
        ("train.learning_rate", "'optimizer.learning_rate'"),
        ("train.num_epochs", "'train.epochs'"),
        ("data.noise.ratio", "'data.noise.rate'"),
        ("weight_decay", "'optimizer.weight_decay'"),
        ("Optimizer.Momentum", "'optimizer.momentum'"),
    ],
)
def test_settings_by_the_names_of_other_programs_are_recognized(key, meant):
    assert f"Did you mean {meant}" in str(config.unknown_key(key))


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--lr=0.1", "--config.optimizer.learning_rate?"),
        ("--epochs=3", "--config.train.epochs?"),
        ("--gpu=0", "set JAX_PLATFORMS=cpu, cuda or tpu"),
        ("--zigzag", "Unknown flag --zigzag.\n"),
        ("--config.loss.name=CE", "Did you mean 'ce'?"),
        ("--config.data.noise.rate=40", "40 % is 0.4."),
        ("--config.optimizer.learning_rate=inf", "must be a finite number"),
        ("--config.seed=99999999999999999999", "at least 0 and below 2**32"),
        ("--input=photos", "--input is for --mode=predict"),
        ("--output=a.csv", "--output is for --mode=predict"),
    ],
)
def test_mistakes_in_flags_and_values_name_what_was_meant(flag, hint, capsys):
    assert main.run(["jaxrobust", "--config=digits_ce", "--workdir=unused", flag]) == 2
    assert hint in capsys.readouterr().err


def test_a_json_file_may_name_settings_in_full(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"train.epochs": 7, "data": {"noise.rate": 0.2, "noise": {"kind": "pair_flip"}}}'
    )
    made = config.load(str(path))
    assert (made.train.epochs, made.data.noise.rate) == (7, 0.2)
    path.write_text('{"train.epoch": 7}')
    with pytest.raises(UserError, match="Did you mean 'train.epochs'"):
        config.load(str(path))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from jaxrobust.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.train.epochz = 3\n    return c",
            "No setting 'epochz'. Did you mean 'train.epochs'",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'train': {'epochs': 3}})",
            r"lacks 'seed': begin with jaxrobust.config.default_config\(\)",
        ),
    ],
)
def test_configuration_programs_that_fail_are_one_line(tmp_path, code, message):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(UserError, match=message) as caught:
        config.validate(config.load(str(path)))
    assert "\n" not in str(caught.value)

"""`train.xla_options=auto`: tried on the run's own step, stored with the run, remembered."""

import json

import jax
import numpy as np
import pytest

import jaxrobust
from jaxrobust import compile_cache
from jaxrobust import config as configuration
from jaxrobust.errors import UserError
from jaxrobust.runs import compiler_options
from jaxrobust.runs.compiler_options import settle
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.fit import init_state, options_of
from jaxrobust.training import variants

OTHER = ("xla_backend_optimization_level=0",)  # computes the same but for rounding
SETTINGS = {
    "network.name": "mlp",
    "train.loop": "step",
    "train.epochs": 1,
    "data.subset": 200,
    "log.tensorboard": False,
    "log.figures": False,
}


def config_of(**settings):
    return configuration.override(configuration.load("digits_ce"), SETTINGS | settings)


@pytest.fixture
def worth_it(monkeypatch, tmp_path):
    """A run of which it pays to try options, with a cache folder of its own."""
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "cache" / "programs"))
    monkeypatch.setattr(compiler_options, "_may_pay", lambda experiment: True)
    return tmp_path


def test_the_choice_is_stored_and_remembered(worth_it, monkeypatch, capsys):
    experiment = assemble(config_of())
    state = init_state(experiment)
    before = jax.tree.map(np.array, state.params)
    asked = []

    def choose(step_with, start, candidates=(), rounds=3):
        asked.append(tuple(candidates))
        trial = variants.Trial(OTHER if candidates else (), {(): 1.0, OTHER: 0.5})
        for options in ((), *candidates):
            after = step_with(options)(jax.tree.map(jax.numpy.copy, start))
            assert int(after.step) == 1  # it is the run's own step
        return trial

    monkeypatch.setattr(variants, "choose", choose)
    first, second = worth_it / "first", worth_it / "second"
    first.mkdir()
    second.mkdir()
    settled = settle(experiment, state, first, (OTHER,), 0.0)
    assert options_of(settled) == {"xla_backend_optimization_level": "0"}
    assert options_of(experiment) is None and asked == [(), (OTHER,)]
    assert json.loads((first / compiler_options.NAME).read_text()) == {"xla_options": [*OTHER]}
    assert "Compiler options: xla_backend_optimization_level=0 (a step:" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, before, state.params)
    assert settle(experiment, state, first, (OTHER,), 0.0).options == OTHER
    assert len(asked) == 2  # read from the workdir, nothing tried
    assert settle(experiment, state, second, (OTHER,), 0.0).options == OTHER
    assert asked[2:] == [()]  # found in the cache folder


def test_a_short_run_keeps_the_default(worth_it):
    experiment = assemble(config_of())
    settled = settle(experiment, init_state(experiment), worth_it, (OTHER,), 1e6)
    assert settled.options == () and (worth_it / compiler_options.NAME).is_file()


def test_a_run_is_the_same_to_the_bit_after_the_choice(worth_it, monkeypatch):
    monkeypatch.setattr(compiler_options, "LONG_ENOUGH", 0.0)
    found = []
    for name in ("a", "b"):
        jaxrobust.train(config_of(), worth_it / name)
        found.append((worth_it / name / "results.json").read_text())
        assert (worth_it / name / compiler_options.NAME).is_file()
    a, b = (json.loads(text)["last"] for text in found)
    assert a == b


def test_given_options_and_changed_choices(worth_it):
    given = assemble(config_of(**{"train.xla_options": OTHER}))
    assert settle(given, None, worth_it, (), 0.0) is given
    assert options_of(given) == {"xla_backend_optimization_level": "0"}
    (worth_it / compiler_options.NAME).write_text('{"xla_options": ["xla_dump_to=/x"]}')
    with pytest.raises(UserError, match="does not hold options that auto chooses"):
        settle(assemble(config_of()), None, worth_it)


def test_small_data_are_not_worth_a_trial(tmp_path):
    experiment = assemble(config_of())
    assert settle(experiment, None, tmp_path) is experiment
    assert not (tmp_path / compiler_options.NAME).exists()

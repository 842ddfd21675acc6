"""Names, imports and examples of the package."""

import subprocess
import sys

import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

SHORT_NAMES = """ce mae rce nce gce sce tce agce nce_rce nce_agce js bi_tempered ce_sr nlnl dal
ldam logit_adjusted balanced_softmax focal""".split()


def test_every_short_name_is_a_public_function():
    assert sorted(losses.LOSSES) == sorted(SHORT_NAMES)
    for name in SHORT_NAMES:
        loss = losses.get(name)
        assert getattr(losses, loss.__name__) is loss and loss.__name__ in losses.__all__
        assert loss.__doc__
    assert all(hasattr(losses, name) for name in losses.__all__)


def test_the_list_of_public_names_is_complete():
    helpers = {"LOSSES", "SCHEDULES", "at_epoch", "ce_sr_schedule", "dal_schedule",
               "deferred_weights", "effective_number_weights", "get", "mean", "needs", "settings"}
    functions = {loss.__name__ for loss in losses.LOSSES.values()}
    assert len(functions) == len(losses.LOSSES)
    assert set(losses.__all__) == helpers | functions
    assert len(losses.__all__) == len(set(losses.__all__))


def test_an_unknown_name_says_the_nearest_one():
    with pytest.raises(UserError, match="Unknown loss 'bitempered'. Did you mean 'bi_tempered'"):
        losses.get("bitempered")


def test_importing_the_losses_imports_jax_and_nothing_else():
    heavy = "flax optax orbax tensorflow_datasets tensorflow torch matplotlib ml_collections chex"
    program = (
        "import sys, jax; before = set(sys.modules); import jaxrobust.losses;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        f"print(sorted((new | set(sys.modules)) & set({heavy.split()})),"
        "sorted(new - {'jaxrobust', 'jax', 'numpy'} - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split() == ["[]", "[]"], run.stdout + run.stderr

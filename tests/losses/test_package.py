"""Names, tables, imports and examples of the package."""

import inspect
import re
import subprocess
import sys

import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

TABLES = (losses.LOSSES, losses.VIEW_LOSSES)


def test_every_loss_is_a_public_function_by_both_of_its_names():
    for table in TABLES:
        for name in table:
            loss = losses.get(name)
            assert loss.__name__ == table.function(name) and loss.__doc__
            assert getattr(losses, loss.__name__) is losses.get(loss.__name__) is loss
            assert loss.__name__ in losses.__all__, f"add {loss.__name__} to __all__"
    functions = [table.function(name) for table in TABLES for name in table]
    assert len(functions) == len(set(functions))


def test_every_loss_with_a_memory_has_its_functions():
    for name in losses.MEMORY_LOSSES:
        for function in (name, f"{name}_update"):
            assert function in losses.__all__ and getattr(losses, function).__doc__
        assert isinstance(losses.MEMORY_LOSSES[name], losses.Memory)


def test_every_public_name_is_there_once():
    assert all(hasattr(losses, name) for name in losses.__all__)
    assert len(losses.__all__) == len(set(losses.__all__))
    assert dir(losses) == sorted(losses.__all__)
    with pytest.raises(AttributeError, match="no attribute 'cross_entropie'"):
        losses.cross_entropie  # noqa: B018


def test_the_tables_list_the_hyper_parameters_that_the_losses_take():
    for table in (losses.LOSSES, losses.MEMORY_LOSSES):
        for name in table:
            assert set(table.settings(name)) == set(losses.settings(name)), (
                f"the table's line of {name} should end in: {' '.join(losses.settings(name))}"
            )


def test_type_checkers_see_the_same_names():
    source = inspect.getsource(losses)
    guarded = source[source.index("if TYPE_CHECKING") : source.index("LOSSES = ")]
    for table in TABLES:
        for name in table:
            assert re.search(rf"\b{table.function(name)}\b", guarded), table.function(name)


def test_an_unknown_name_says_the_nearest_one():
    with pytest.raises(UserError, match="Unknown loss 'bitempered'. Did you mean 'bi_tempered'"):
        losses.get("bitempered")


def test_importing_the_losses_imports_jax_and_nothing_else():
    heavy = "flax optax orbax tensorflow_datasets tensorflow torch matplotlib ml_collections chex"
    program = (
        "import sys, jax; before = set(sys.modules); import jaxrobust.losses as losses;"
        "[losses.get(name) for name in losses.LOSSES]; losses.elr;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        f"print(sorted((new | set(sys.modules)) & set({heavy.split()})),"
        "sorted(new - {'jaxrobust', 'jax', 'numpy'} - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split() == ["[]", "[]"], run.stdout + run.stderr


def test_the_names_and_the_schema_are_read_without_jax_or_scikit_learn():
    program = (
        "import sys; from jaxrobust import losses, schema;"
        "names = schema.SCHEMA['loss']['name'].rule.choices;"
        "assert names == (*losses.LOSSES, *losses.MEMORY_LOSSES);"
        "print({'jax', 'sklearn', 'flax', 'numpy'} & set(sys.modules) or 'none')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "none\n", run.stdout + run.stderr

"""Ranks and hierarchical sampling: the program's numbers, and the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import objectives
from jaxrobust.data import sampling as former_home
from jaxrobust.methods import sampling
from jaxrobust.objectives import ranks_by_class


@pytest.mark.golden
def test_ranks_and_choice_are_the_programs(golden, x64):
    file = np.load(golden("hierarchical_sampling.npz"))
    labels, losses = jnp.asarray(file["labels"]), jnp.asarray(file["losses"])
    k, ranks = int(labels.max()) + 1, int(file["rank_num"])
    np.testing.assert_array_equal(ranks_by_class(losses, labels, k, ranks), file["rank"])
    chosen = np.zeros(len(labels), bool)
    chosen[file["preselected"]] = True
    drawn, kept = sampling.metadata_sizes(np.bincount(file["labels"]))
    assert drawn == np.bincount(file["labels"][file["preselected"]]).min()
    found = sampling.keep_lowest(losses, labels, jnp.asarray(chosen), k, kept)
    meta, rest = sampling.split_rows(found, len(file["meta_index"]))
    np.testing.assert_array_equal(np.sort(meta), np.sort(file["meta_index"]))
    assert sorted(np.concatenate([meta, rest])) == list(range(len(labels)))


def test_ranks_follow_the_definition_with_ties_and_an_empty_class():
    labels = np.array([2, 0, 2, 2, 0, 2, 2])
    losses = np.array([0.5, 3.0, 0.1, 0.5, 1.0, 9.0, 0.2], np.float32)
    found = ranks_by_class(jnp.asarray(losses), jnp.asarray(labels), 3, 10)
    np.testing.assert_array_equal(found, [3, 3, 0, 5, 0, 6, 1])


def test_the_choice_is_balanced_of_low_loss_and_new_for_every_key():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [40, 24, 60])  # Class 2 is empty.
    losses = rng.random(len(labels)).astype(np.float32)
    counts = np.bincount(labels, minlength=4)
    drawn, kept = sampling.metadata_sizes(counts)
    assert (drawn, kept) == (12, 6)
    assert sampling.metadata_sizes(np.array([100]), 0.29, 1.0) == (29, 29)  # Not 28.99…
    choose = jax.jit(
        lambda key: sampling.hierarchical_sampling(
            key,
            jnp.asarray(losses),
            jnp.asarray(labels),
            num_classes=4,
            candidates=drawn,
            kept=kept,
            size=18,
        )
    )
    meta, rest = (np.asarray(a) for a in choose(jax.random.key(0)))
    np.testing.assert_array_equal(np.bincount(labels[meta], minlength=4), [6, 6, 0, 6])
    assert sorted([*meta, *rest]) == list(range(len(labels)))
    assert losses[meta].mean() < 0.75 * losses.mean()
    again = np.asarray(choose(jax.random.key(1))[0])
    assert set(again) != set(meta)


def test_without_noise_the_choice_ignores_the_loss():
    labels = jnp.zeros((400,), jnp.int32)
    losses = jnp.arange(400.0)
    meta, _ = sampling.hierarchical_sampling(
        jax.random.key(0),
        losses,
        labels,
        num_classes=1,
        candidates=200,
        kept=100,
        size=100,
        by_loss=False,
    )
    assert 170 < float(losses[meta].mean()) < 230


def test_the_former_home_still_has_every_name():
    assert former_home.ranks_by_class is ranks_by_class
    for name in dir(former_home):
        home = objectives.ranks if "class" in name else sampling
        assert getattr(former_home, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no attribute 'ranks'"):
        former_home.ranks  # noqa: B018

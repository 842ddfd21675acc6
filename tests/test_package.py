"""The package as a newcomer meets it: `dir`, attributes, names of losses and objectives."""

import importlib

import pytest

import jaxrobust
from jaxrobust import bilevel, losses, objectives

NAMES = {"RobustClassifier", "find_label_issues", "load", "train"}


def test_dir_shows_what_there_is_and_no_more():
    assert {*dir(jaxrobust)} >= NAMES | {"audit", "bilevel", "data", "losses", "objectives"}
    assert not {"Any", "TYPE_CHECKING", "importlib"} & {*dir(jaxrobust)}
    for name in dir(jaxrobust):
        assert getattr(jaxrobust, name) is not None


@pytest.mark.parametrize("package", [losses, objectives, bilevel])
def test_public_functions_are_found_by_name(package):
    for name in package.__all__:
        if name not in dir(jaxrobust):
            assert getattr(jaxrobust, name) == getattr(package, name), name


def test_losses_are_found_by_their_short_names():
    for name in losses.LOSSES:
        assert getattr(jaxrobust, name) is losses.get(name)


def test_modules_of_the_package_and_of_its_data_are_attributes():
    for name in ("config", "data", "methods", "networks", "runs"):
        assert getattr(jaxrobust, name) is importlib.import_module(f"jaxrobust.{name}")
    for name in ("label_noise", "long_tail", "manifest", "prepare", "sources"):
        assert getattr(jaxrobust.data, name) is importlib.import_module(f"jaxrobust.data.{name}")


def test_a_wrong_name_is_an_attribute_error_that_names_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'RobustClasifier'. Did you mean"):
        _ = jaxrobust.RobustClasifier
    assert not hasattr(jaxrobust, "__wrapped__") and not hasattr(jaxrobust.data, "nothing")

"""Values and gradients of the papers' released programs."""

import functools
import json

import jax
import numpy as np
import pytest

from jaxrobust import losses

# Where the source adds 1e-6 inside a logarithm: (absolute for values, for gradients).
EXACT = (1e-10, 1e-10)
GUARDED = {"dal": (5e-5, 1e-8), "bi_tempered": (1e-5, 1e-5)}


FILES = ("losses", "league_losses", "league_extreme")


def evaluate(golden, dtype, file):
    """(case, value, gradient, value and gradient to reproduce) of every case of a file."""
    listed = json.loads(golden(f"{file}.json").read_text())
    arrays = np.load(golden(f"{file}.npz"))
    assert listed
    for classes in {case["num_classes"] for case in listed}:
        cases = [case for case in listed if case["num_classes"] == classes]
        labels = arrays[f"labels_c{classes}"]

        # One program for all losses, which share much of their work, compiled in a hurry.
        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def run(logits, cases=cases, labels=labels):
            def total(logits, case):
                values = losses.get(case["loss"])(logits, labels, **case["params"])
                return losses.mean(values), values

            return [jax.grad(total, has_aux=True)(logits, case) for case in cases]

        results = run(arrays[f"logits_c{classes}"].astype(dtype))
        for case, (gradient, value) in zip(cases, results, strict=True):
            key = case["key"]
            yield case, value, gradient, arrays[f"{key}_value"], arrays[f"{key}_grad"]


@pytest.mark.golden
@pytest.mark.parametrize("file", FILES)
def test_losses_reproduce_the_released_programs_in_float64(golden, x64, file):
    for case, value, gradient, expected, expected_gradient in evaluate(golden, np.float64, file):
        atol, gradient_atol = GUARDED.get(case["loss"], EXACT)
        named = {"rtol": 1e-10, "err_msg": case["key"]}
        np.testing.assert_allclose(value, expected, atol=atol, **named)
        np.testing.assert_allclose(gradient, expected_gradient, atol=gradient_atol, **named)


@pytest.mark.golden
@pytest.mark.parametrize("file", FILES[:2])
def test_losses_reproduce_the_released_programs_in_float32(golden, file):
    for case, value, gradient, expected, expected_gradient in evaluate(golden, np.float32, file):
        atol, _ = GUARDED.get(case["loss"], (1e-5, None))
        named = {"rtol": 1e-5, "err_msg": case["key"]}
        np.testing.assert_allclose(value, expected, atol=atol, **named)
        scale = np.abs(expected_gradient).max()
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5 * scale, **named)


def groups(golden, file):
    """(name of a group, its arrays by the rest of their name) of an archive of sequences."""
    with np.load(golden(file)) as arrays:
        names = sorted({name.split("/")[0] for name in arrays})
        for group in names:
            yield group, {n.split("/")[1]: arrays[n] for n in arrays if n.startswith(f"{group}/")}


UPDATES = {
    "elr": (losses.elr_update, {"beta": "beta"}, {"lamb": "lamb"}),
    "selc": (losses.selc_update, {"momentum": "momentum"}, {}),
}


@pytest.mark.golden
@pytest.mark.parametrize("name", UPDATES)
def test_memories_move_and_losses_follow_as_in_the_released_programs(golden, x64, name):
    update, of_update, of_loss = UPDATES[name]
    memory = losses.MEMORY_LOSSES[name]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    for group, file in groups(golden, f"{name}.npz"):
        classes, batches = file["targets_before_0"].shape[1], 0
        state = memory.init(file["noisy_labels"], classes).astype(np.float64)
        moved_by = {key: float(file[k]) for key, k in of_update.items()}
        hyper = moved_by | {key: float(file[k]) for key, k in of_loss.items()}
        hyper |= {"es": int(file["es"])} if "es" in file else {}
        while f"index_{batches}" in file:
            index, logits, labels, epoch, before, after, value, mean, gradient = (
                file[f"{key}_{batches}"]
                for key in (
                    "index",
                    "logits",
                    "labels",
                    "epoch",
                    "targets_before",
                    "targets_after",
                    "value",
                    "loss",
                    "grad",
                )
            )
            close(state, before, err_msg=group)
            epoch = int(epoch) - ("es" in file)  # SELC's epochs count from one.
            rows = memory.update(state[index], logits, epoch=epoch, **hyper)

            def total(z, rows=rows, labels=labels, epoch=epoch, hyper=hyper):
                each = memory.loss(z, labels, rows=rows, epoch=epoch, **hyper)
                return losses.mean(each), each

            (found_mean, found), slope = jax.value_and_grad(total, has_aux=True)(logits)
            state = state.at[index].set(rows)
            close(state, after)
            close(found, value)
            close(found_mean, mean)
            close(slope, gradient)
            if not np.array_equal(before, after):
                close(update(before[index], logits, **moved_by), after[index])
            batches += 1
        assert batches > 1


@pytest.mark.golden
def test_divergences_of_views_are_the_released_programs(golden, x64):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    for case, file in groups(golden, "gjs.npz"):
        for prefix, scaled in (("", True), ("unscaled_", False)):

            def total(z, file=file, scaled=scaled):
                value = losses.generalized_jensen_shannon(
                    z, file["labels"], weights=file["weights"], scaled=scaled
                )
                return losses.mean(value), value

            gradient, value = jax.grad(total, has_aux=True)(file["logits"])
            close(value, file[f"{prefix}value"], err_msg=case)
            close(gradient, file[f"{prefix}grad"], err_msg=case)
        if len(file["logits"]) == 1:
            close(
                losses.jensen_shannon(
                    file["logits"][0], file["labels"], pi=float(file["weights"][0])
                ),
                file["value"],
            )

"""CurveNet and its relatives as methods: stages, what each leaves alone, reuse, composition."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Killed

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import losses, networks
from jaxrobust.errors import UserError
from jaxrobust.methods._curvenet import curve_slice, curves_of
from jaxrobust.objectives import class_centred, curve_weighted
from jaxrobust.runs import build_method, experiment, predict, train
from jaxrobust.training.evaluation import make_forward
from jaxrobust.training.loop import Feed, Place, Runner
from jaxrobust.training.metrics_log import read_rows


def plain(key, x):
    del key
    return x


def settings(**overrides):
    """A recipe in small; `a__b` sets a.b."""
    made = configuration.load("digits_curvenet:ce")
    small = {
        "network.name": "mlp",
        "network.width": 16,
        "train.epochs": 4,
        "train.batch_size": 16,
        "optimizer.milestones": (2,),
        "method.probe_epochs": 3,
        "method.meta_batch_size": 8,
        "method.hidden": 8,
        "method.meta_learning_rate": 0.03,
        "method.curves_dtype": "float32",
        "log.figures": False,
        "log.tensorboard": False,
        "checkpoint.every_seconds": 0.0,
        "data.noise.kind": "none",
        "data.noise.rate": 0.0,
        "data.imbalance.kind": "none",
        "data.imbalance.factor": 1.0,
    }
    chosen = {key.replace("__", "."): value for key, value in overrides.items()}
    made.update_from_flattened_dict(small | chosen)
    return made


class Small:
    """A method on 60 points in the plane, 12 of them with a wrong label, and 9 clean ones."""

    def __init__(self, loop="epoch", curves=None, held_out=9, **overrides):
        rng = np.random.default_rng(0)
        self.true = np.arange(60 + held_out) % 3
        angle = 2 * np.pi * self.true / 3
        x = rng.normal(size=(len(angle), 2)) + 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
        self.x, self.labels = x.astype(np.float32), self.true.astype(np.int32)
        self.labels[:12] = (self.labels[:12] + 1) % 3
        self.config = settings(**overrides)
        self.network = networks.make("mlp", 3, hidden=(8,))
        make_optimizer = functools.partial(experiment.make_optimizer, self.config)
        self.optimizer = make_optimizer(((self.config.train.epochs, 4),))
        self.method = build_method.make(
            self.config,
            self.network,
            make_optimizer,
            lambda kind=None: plain,
            example=jnp.zeros((16, 2)),
            labels=jnp.asarray(self.labels[:60]),
            num_classes=3,
            held_out=held_out,
            curves=curves,
        )
        feed = Feed({"x": jnp.asarray(self.x), "labels": jnp.asarray(self.labels)})
        forward = make_forward(self.network, plain, 60)
        self.runner = Runner(self.method, feed, forward, jax.random.key(0), loop=loop)
        self.state = jax.jit(self.method.init)(jax.random.key(1))
        self.place = Place()

    def epochs(self, count):
        for _ in range(count):
            self.state, row = self.runner.epoch(self.state, self.place, lambda *_: None)
        return row

    def kept(self):
        return jax.device_get(self.state)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_the_slice_of_a_curve_is_the_released_one_in_proportion():
    assert curve_slice(300) == (5, 299) and curve_slice(60) == (1, 60) and curve_slice(3) == (0, 3)
    assert curve_slice(300, 0, 200) == (0, 200)


def test_what_curvenet_reads_is_the_centred_curve_of_its_rows():
    rng = np.random.default_rng(0)
    curves = jnp.asarray(rng.normal(size=(20, 6)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 20), jnp.int32)
    centred = class_centred(curves, labels, 3)
    means = (curves - centred)[jnp.array([int(jnp.argmax(labels == k)) for k in range(3)])]
    rows = jnp.array([4, 19, 4, 0])
    batch = {"index": rows, "labels": labels[rows]}
    found = curves_of(1, 5)({"curves": curves, "class_means": means}, batch)
    np.testing.assert_allclose(found["curve"], centred[rows, 1:5], atol=1e-6)


@pytest.fixture(scope="module")
def walked():
    """The method after all its epochs, and its states on the way: [e] after e epochs."""
    made = Small()
    states, rows = [made.kept()], []
    for _ in range(made.method.epochs):
        rows.append(made.epochs(1))
        states.append(made.kept())
    return made, states, rows


def test_the_probe_learns_nothing_but_the_network_and_the_allocation_starts_afresh(walked):
    made, states, rows = walked
    assert [(s.name, s.epochs, s.result) for s in made.method.stages] == [
        ("probe", 1, False),
        ("probe_cycles", 2, False),
        ("allocate", 2, True),
        ("keep_weights", 2, True),
    ]
    first, probed = states[0], states[3]
    assert same(first.meta_params, probed.meta_params)
    assert (probed.memory["weights"] == 1).all() and (probed.memory["curves"][:60] > 0).all()
    assert int(probed.step) == 4 + 2 * 8
    probed = jax.tree.map(jnp.asarray, probed)
    begun = jax.device_get(made.method.stages[2].start(probed, jax.random.key(5)))
    counts = [leaf for leaf in jax.tree.leaves(begun.opt_state) if leaf.dtype == np.int32]
    assert counts and all(count == 0 for count in counts)
    assert begun.step == states[3].step
    assert not same(first.params, begun.params) and not same(states[3].params, begun.params)
    np.testing.assert_array_equal(begun.memory["curves"], states[3].memory["curves"])


def test_weights_are_learned_and_then_stay(walked):
    made, states, rows = walked
    learned = [(states[e].meta_params, states[e].meta_opt_state) for e in (4, 5, 7)]
    one, two, end = (states[e].memory for e in (4, 5, 7))
    assert not same(learned[0][0], learned[1][0]) and not same(one["weights"], two["weights"])
    assert ((two["weights"] > 0.02) & (two["weights"] < 1.02)).all()
    assert same(learned[1], learned[2])
    for name in ("weights", "curves", "class_means"):
        assert same(two[name], end[name]), name
    assert not same(states[6].params, states[7].params)
    assert rows[4]["train_meta_grad_norm"] > 0 and "train_meta_loss" not in rows[5]
    report = made.method.report(made.state)
    assert report["curves"] is made.state.memory["curves"]  # 0.6 GB: no copy, every epoch.
    assert report["curves"].shape[1] == 3 and report["weights"].shape == (60,)


def one_step(made, stage, epoch):
    """One step of a stage by itself, from the method's state: before, after, batch and info."""
    pass_ = made.method.stages[stage].passes[0]
    order = pass_.order(made.state, jax.random.key(0), epoch)
    rows = order.index[-1]  # The short one: 12 examples, and 4 that fill it up.
    batch = {
        "x": jnp.asarray(made.x)[rows],
        "labels": jnp.asarray(made.labels)[rows],
        "index": rows,
        "where": order.where[-1],
    }
    meta = None
    if order.meta_index is not None:
        chosen = order.meta_index[0]
        assert (np.asarray(chosen) >= 60).all()  # The hold-out.
        meta = {
            "x": jnp.asarray(made.x)[chosen],
            "labels": jnp.asarray(made.labels)[chosen],
            "where": jnp.ones(len(chosen), bool),
        }
    before = made.kept()
    after, info = jax.jit(pass_.step)(made.state, batch, meta, jax.random.key(1), epoch)
    assert int(batch["where"].sum()) == 12
    return before, after, batch, info


@pytest.mark.parametrize("loss", ["ce", "dal"])
def test_a_step_with_kept_weights_is_the_weighted_loss_over_the_batch_size(loss):
    """The schedule of DAL counts the epochs of the allocation: epoch 6 of all is 3 of 4 there."""
    made = Small(loss__name=loss)
    made.state.memory["weights"] = jnp.linspace(0, 1, 60)
    before, after, batch, info = one_step(made, 3, 6)
    rows = np.asarray(batch["index"])[:12]
    weights, labels = np.linspace(0, 1, 60)[rows], made.labels[rows]
    hyper = losses.at_epoch(loss, {}, 3, 4)

    def mean(params):
        logits, _ = made.network.apply(params, before.network_state, made.x[rows], True)
        return jnp.sum(weights * losses.get(loss)(logits, labels, **hyper)) / 12

    value, grads = jax.value_and_grad(mean)(before.params)
    updates, _ = made.optimizer.update(grads, before.opt_state, before.params)
    np.testing.assert_allclose(info.scalars["loss"], value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.params,
        optax.apply_updates(before.params, updates),
    )


@pytest.mark.parametrize("epoch, by_class", [(1, (1, 1, 1)), (2, (0.2405, 0.3673, 2.3922))])
def test_classes_are_reweighted_from_the_chosen_epoch_of_the_allocation(epoch, by_class):
    """(1 - beta) / (1 - beta^n), normalized to sum K; what counts epochs is shown above."""
    config = settings(loss__reweight_from=2, loss__reweight_beta=0.9)
    setup = build_method.Setup(
        network=None,
        make_optimizer=None,
        views=None,
        example=None,
        labels=None,
        class_counts=np.array([50, 10, 1]),
    )
    batch = {
        "labels": jnp.arange(3),
        "where": jnp.ones(3, bool),
        "epoch": jnp.int32(epoch),
        "key": jax.random.key(0),
    }
    objective = build_method._base(config, setup).objective
    value = objective.loss({}, jnp.zeros((3, 3)), batch)
    np.testing.assert_allclose(value, np.log(3) * np.array(by_class), rtol=1e-3)


def test_a_learning_step_smooths_the_weights_of_its_examples_and_no_others():
    made = Small(method__weight_smoothing=0.25)
    made.state.memory["weights"] = jnp.full((60,), 0.5)
    curves = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    made.state.memory["curves"] = jnp.asarray(curves)
    _, after, batch, _ = one_step(made, 2, 3)
    weigher = curve_weighted(3, 3, 8)
    seen = {"curve": curves[batch["index"]], "labels": batch["labels"]}
    new = weigher.weights(after.meta_params["weigher"], None, seen)
    expected = np.full(60, 0.5, np.float32)
    expected[batch["index"][:12]] = 0.75 * 0.5 + 0.25 * np.asarray(new)[:12]
    np.testing.assert_allclose(after.memory["weights"], expected, rtol=1e-5)


def test_curvenet_on_the_dynamic_loss_learns_all_three_parts():
    curves = np.random.default_rng(0).normal(size=(60, 3))
    made = Small(curves=curves, method__base="dynamic_loss", method__num_ranks=5)
    made.state.memory["rank"] = jnp.arange(60) % 5
    before, made.state, _, _ = one_step(made, 0, 0)
    phi, now = before.meta_params, made.kept().meta_params
    for name in ("corrector", "margin"):
        assert not same(phi["base"][name], now["base"][name])
    assert not same(phi["weigher"], now["weigher"])
    _, after, _, info = one_step(made, 1, 2)
    assert same(now, after.meta_params) and info.scalars["loss"] > 0
    logits = jax.random.normal(jax.random.key(0), (60, 3))
    ranked = made.method.stages[1].passes[0].prepare(after, logits, jax.random.key(0), 2)
    assert sorted(np.bincount(ranked.memory["rank"])) == [9, 12, 12, 12, 15]  # 20 a class.
    assert {"weights", "curves", "rank", "rank_weights", "margins"} == set(
        made.method.report(ranked)
    )


def test_meta_weight_net_weighs_by_the_loss_of_the_real_step():
    made = Small(method__name="meta_weight_net", method__freeze_epoch=3, loss__name="dal")
    assert [(s.name, s.epochs) for s in made.method.stages] == [
        ("allocate", 3),
        ("keep_weights", 1),
    ]
    before, after, batch, info = one_step(made, 0, 0)
    value = np.asarray(losses.cross_entropy(info.logits, batch["labels"]))
    net = jax.device_get(after.meta_params["weigher"])
    hidden = np.maximum(value[:, None] @ net["dense_0"]["kernel"] + net["dense_0"]["bias"], 0)
    score = (hidden @ net["dense_1"]["kernel"] + net["dense_1"]["bias"])[:, 0]
    expected = np.ones(60, np.float32)
    expected[batch["index"][:12]] = 1 / (1 + np.exp(-score[:12]))
    np.testing.assert_allclose(after.memory["weights"], expected, rtol=1e-5)
    assert not same(before.meta_params, after.meta_params)


def test_learning_to_reweight_shares_the_examples_that_count_out_anew():
    made = Small(
        method__name="learning_to_reweight", method__base="dynamic_loss", method__num_ranks=5
    )
    before, after, batch, info = one_step(made, 0, 0)
    rows = np.asarray(batch["index"])[:12]
    weights = np.asarray(after.memory["weights"])
    assert (weights[rows] >= 0).all() and 0 < (weights[rows] > 0).sum() < 12
    np.testing.assert_allclose(weights[rows].sum(), 12, rtol=1e-4)
    assert (np.delete(weights, rows) == 1).all()
    # The learned base keeps its own optimizer: it moves by its learning rate at most.
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), before.meta_params["base"], after.meta_params["base"]
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.0301


def test_skipped_layers_and_fewer_meta_steps_still_learn_to_classify():
    made = Small(method__skip_stages=1, method__meta_every=2, method__curves_dtype="float16")
    norms = [made.epochs(1).get("train_meta_grad_norm") for _ in range(7)]
    assert norms[3] > 0 and norms[4] == 0 and norms[5] is None
    logits = made.runner._all_logits(made.state)
    assert (np.argmax(logits, -1) == made.true).mean() > 0.8
    assert made.state.memory["curves"].dtype == jnp.float16


def test_metadata_of_low_loss_and_curves_of_another_training():
    """Neither hold-out nor probe: both from outside the training."""
    score = np.random.default_rng(0).permutation(60)
    curves = score[:, None] + np.zeros((60, 9))
    made = Small(
        held_out=0,
        curves=curves,
        method__low_loss_metadata=True,
        method__curve_start=2,
        method__curve_end=7,
    )
    assert [s.name for s in made.method.stages] == ["allocate", "keep_weights"]
    made.epochs(1)
    np.testing.assert_allclose(made.state.memory["curves"][:60], curves, rtol=1e-6)
    assert made.state.meta_params["weigher"]["curve_net"]["dense_0"]["kernel"].shape[0] == 5
    rows = np.asarray(made.method.report(made.state)["metadata"])
    given = made.labels[rows]
    np.testing.assert_array_equal(np.bincount(given), [5, 5, 5])  # A quarter of 20.
    for k in range(3):
        of_class = np.sort(score[made.labels == k])
        assert score[rows[given == k]].max() <= of_class[-6]  # Ten were drawn, five kept.
    made.epochs(1)
    assert set(rows) != set(np.asarray(made.method.report(made.state)["metadata"]))


@pytest.mark.parametrize("name, setting", [("ce_sr", {}), ("nlnl", {"num_negatives": 1})])
@pytest.mark.parametrize("method", ["dynamic_loss", "curvenet"])
def test_the_dynamic_loss_takes_losses_that_change_or_draw(method, name, setting):
    """As a method, and as what CurveNet weights; the numbers are those of the steps' tests."""
    chosen = {f"loss__{key}": value for key, value in setting.items()}
    chosen |= {"method__num_ranks": 5, "method__warmup_epochs": 1, "loss__reweight_from": 2}
    if method == "dynamic_loss":
        made = Small(method__name=method, held_out=0, loss__name=name, **chosen)
    else:
        curves = np.random.default_rng(0).normal(size=(60, 3))
        made = Small(method__base="dynamic_loss", curves=curves, loss__name=name, **chosen)
    before = made.kept()
    made.epochs(3)  # A loss that is not finite would stop them.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.kept().params))
    assert not same(before.meta_params, made.kept().meta_params)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"held_out": 0}, "needs metadata: set data.metadata.kind=clean"),
        ({"method__low_loss_metadata": True}, "are both set; use one"),
        ({"method__curve_start": 3}, "curve_start=3 .*length 3"),
        ({"method__curve_end": 4}, "curve_end=4.*length 3"),
        ({"method__skip_stages": 2}, "2 stages .hidden1, head."),
        ({"method__name": "dynamic_loss"}, "held out by data.metadata.kind"),
        ({"train__drop_last": True}, "drop_last is for method.name=supervised; curvenet"),
        (
            {"method__name": "dynamic_loss", "held_out": 0, "method__warmup_epochs": 9},
            "method.warmup_epochs=9 must be below",
        ),
    ],
    ids=str,
)
def test_what_cannot_work_is_said(options, message):
    with pytest.raises(UserError, match=message):
        Small(**options)


@pytest.fixture(scope="module")
def noisy():
    def make(**overrides):
        usual = {
            "data__noise__kind": "symmetric",
            "data__noise__rate": 0.4,
            "method__base": "dynamic_loss",
            "method__num_ranks": 10,
            "method__curves_dtype": "float16",
            "train__batch_size": 256,
            "train__loop": "step",
            "checkpoint__every_steps": 1,
        }
        return settings(**usual | overrides)

    return make


@pytest.fixture(scope="module")
def whole(noisy, tmp_path_factory):
    """A run on the dynamic loss on digits, saved after every step: its folder, its results."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, jaxrobust.train(noisy(log__figures=True), folder)


def test_a_run_keeps_its_probe_and_never_selects_from_it(whole):
    folder, results = whole
    with np.load(folder / "curves.npz") as file, np.load(folder / "noise.npz") as noise:
        assert file["curves"].shape == (len(noise["index"]), 3)
        np.testing.assert_array_equal(file["index"], noise["index"])
        np.testing.assert_array_equal(file["given_labels"], noise["given_labels"])
    state = predict.open_workdir(folder)[1]["state"]
    assert "curves" in str(jax.tree_util.tree_structure(state.memory))
    assert 4 <= results["selected"]["epoch"] <= 7 and results["epochs"] == 7
    rows = read_rows(folder / "metrics.jsonl")
    assert ["weight_auroc" in row for row in rows] == [False] * 3 + [True] * 4
    assert rows[-1]["weight_clean"] == rows[-2]["weight_clean"] != rows[3]["weight_clean"]
    assert len(rows[-1]["weight_clean_by_class"]) == 10


def test_a_run_draws_what_it_learned_and_its_audit_reads_it(whole):
    folder, results = whole
    figures = {path.name for path in (folder / "figures").glob("*.png")}
    assert {
        "curves.png",
        "weights.png",
        "weight_by_class.png",
        "weight_against_loss.png",
        "weight_by_rank.png",
        "margins.png",
        "learned.png",
    } <= figures
    assert {"curvenet", "dynamics"} <= set(results["audit"]["sources"])


@pytest.mark.slow
def test_killed_within_every_stage_it_ends_the_same(noisy, whole, tmp_path, monkeypatch):
    folder, results = whole
    save, saved = train.Checkpoints.save, []
    stages = ["probe", *["probe_cycles"] * 2, *["allocate"] * 2, *["keep_weights"] * 2]

    def save_then_die(self, step, arrays, place):
        if stages[place["epoch"]] not in saved and place["position"] > 1:
            saved.append(stages[place["epoch"]])
            save(self, step, arrays, place)
            raise Killed

    monkeypatch.setattr(train.Checkpoints, "save", save_then_die)
    for _ in range(4):
        with pytest.raises(Killed):
            jaxrobust.train(noisy(), tmp_path)
    assert saved == ["probe", "probe_cycles", "allocate", "keep_weights"]
    monkeypatch.setattr(train.Checkpoints, "save", save)
    assert jaxrobust.train(noisy(), tmp_path)["last"] == results["last"]
    assert read_rows(tmp_path / "metrics.jsonl") == read_rows(folder / "metrics.jsonl")
    with np.load(tmp_path / "curves.npz") as mine, np.load(folder / "curves.npz") as theirs:
        np.testing.assert_array_equal(mine["curves"], theirs["curves"])
    assert_same_state(tmp_path, folder)


def assert_same_state(one, other):
    """Parameters, optimizers, phi, weights, curves: everything that a run ends with."""
    one, other = (predict.open_workdir(folder)[1]["state"] for folder in (one, other))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


@pytest.mark.slow
def test_a_probe_serves_another_run(noisy, whole, tmp_path):
    folder, _ = whole
    other = noisy(probe_workdir=str(folder), train__loop="epoch", method__base="loss")
    results = jaxrobust.train(other, tmp_path)
    assert results["epochs"] == 4 and not (tmp_path / "curves.npz").exists()
    state = predict.open_workdir(tmp_path)[1]["state"]
    kept = predict.open_workdir(folder)[1]["state"]
    curves, theirs = (
        next(
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(s.memory)
            if "curves" in jax.tree_util.keystr(path)
        )
        for s in (state, kept)
    )
    np.testing.assert_array_equal(curves, theirs)


def test_curves_that_do_not_fit_are_refused_in_a_line(noisy, whole, tmp_path, program):
    folder, _ = whole

    def refuses(message, **overrides):
        with pytest.raises(UserError, match=message):
            experiment.assemble(configuration.validate(noisy(**overrides)))

    refuses("holds no finished probe", probe_workdir=str(tmp_path))
    refuses("choose one", probe_workdir="a", method__curves_file="b")
    refuses(
        "are read by method.name=curvenet, not by supervised",
        probe_workdir=str(folder),
        method__name="supervised",
    )
    refuses(r"lacks the curves of \d+ of", probe_workdir=str(folder), seed=1)
    with np.load(folder / "curves.npz") as file:
        arrays = dict(file)
    path = tmp_path / "c.npz"

    def external(**changed):
        np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
        return {"method__curves_file": str(path)}

    refuses("other data", **external(fingerprint="x"))
    shifted = np.where(
        np.arange(len(arrays["index"])) < 7, 9 - arrays["given_labels"], arrays["given_labels"]
    )
    refuses("other labels for 7 training", **external(given_labels=shifted))
    bare = {"fingerprint": None, "given_labels": None}
    refuses("not finite", **external(curves=arrays["curves"] * np.nan))
    refuses("expected numbers", **external(curves=arrays["curves"][0]))
    refuses("does not hold curves", **external(index=None))
    shuffled = np.random.default_rng(0).permutation(len(arrays["index"]))
    moved = {k: arrays[k][shuffled] for k in ("curves", "index")}
    data = experiment.load_data(noisy())
    found = experiment.load_curves(noisy(**external(**moved, **bare)), data)
    np.testing.assert_array_equal(found, arrays["curves"])
    path.write_text("no archive")
    made = noisy(method__curves_file=str(path))
    (tmp_path / "config.json").write_text(json.dumps(made.to_dict()))
    done = program("--config=config.json", "--workdir=w")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "does not hold curves" in done.stderr

"""Construction of a run's method from its settings. No file below this one sees a configuration.

To add a method: write a function that returns a `Method`, a builder that hands it the settings it
needs, and put the builder into `METHODS`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxrobust import objectives
from jaxrobust.bilevel import Bilevel, make_bilevel
from jaxrobust.data import batches
from jaxrobust.errors import check
from jaxrobust.losses import MEMORY_LOSSES
from jaxrobust.methods import metadata
from jaxrobust.methods._agreement import Consistency, agreement
from jaxrobust.methods._curvenet import Probe, curve_slice, curvenet, curves_of, mean_of_curves
from jaxrobust.methods._dynamic_loss import dynamic_loss, dynamic_loss_steps
from jaxrobust.methods._supervised import LossOfEpoch, make_loss, make_memory, supervised
from jaxrobust.methods.method import Method, Pass, TrainState
from jaxrobust.methods.reweighting import Allocation, Base, allocation
from jaxrobust.networks import Network
from jaxrobust.runs import METHODS

MIXING = ("supervised", "dynamic_loss", "agreement")  # methods that mix examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What a builder is given in addition to the configuration.

    Attributes:
      network: see `jaxrobust.networks`.
      make_optimizer: `make_optimizer(stages, **options)`, see `runs.experiment`.
      views: `views(kind)` makes a view; `views()` the configured one.
      example: one raw batch, for its shape.
      labels: int32 [N], given labels of the training data.
      class_counts: int [K], their numbers.
      held_out: M, metadata rows that follow the training rows; 0 if there are none.
      curves: [N, T], recorded before, or None.
    """

    network: Network
    make_optimizer: Callable[..., optax.GradientTransformation]
    views: Callable[..., Any]
    example: jax.Array
    labels: jax.Array
    class_counts: np.ndarray
    held_out: int = 0
    curves: np.ndarray | None = None


def loss_of(config: ConfigDict, class_counts: jax.Array) -> LossOfEpoch:
    """Returns the loss that a configuration names, see `make_loss`."""
    general = {key: config.loss[key] for key in ("reweight_from", "reweight_beta", "logit_clip")}
    name, hyper = _named_loss(config)
    return make_loss(
        name, hyper, epochs=config.train.epochs, class_counts=jnp.asarray(class_counts), **general
    )


def _named_loss(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """Returns the loss's name, and the hyper-parameters that are set."""
    values = config.loss.to_dict()
    general = ("name", "reweight_from", "reweight_beta", "logit_clip")
    hyper = {k: v for k, v in values.items() if v is not None and k not in general}
    return values["name"], hyper


def supervised_method(config: ConfigDict, setup: Setup) -> Method:
    t, num_examples = config.train, len(setup.labels)
    steps = batches.num_steps(num_examples, t.batch_size, t.drop_last)
    return supervised(
        setup.network,
        loss_of(config, setup.class_counts),
        setup.make_optimizer(((t.epochs, steps),)),
        setup.views(),
        example=setup.example,
        num_examples=num_examples,
        batch_size=t.batch_size,
        epochs=t.epochs,
        drop_last=t.drop_last,
        memory=make_memory(*_named_loss(config), setup.labels, len(setup.class_counts)),
        mixup_alpha=t.mixup_alpha,
    )


def agreement_method(config: ConfigDict, setup: Setup) -> Method:
    m, t, num_examples = config.method, config.train, len(setup.labels)
    steps = batches.num_steps(num_examples, t.batch_size)
    default = max(t.epochs // 2, min(m.warmup_epochs, t.epochs))
    return agreement(
        setup.network,
        loss_of(config, setup.class_counts),
        setup.make_optimizer(((t.epochs, steps),)),
        setup.views(m.weak_view),
        setup.views(),
        example=setup.example,
        num_examples=num_examples,
        num_classes=len(setup.class_counts),
        batch_size=t.batch_size,
        epochs=t.epochs,
        warmup_epochs=m.warmup_epochs,
        first_epochs=default if m.consistency_from is None else m.consistency_from,
        networks=m.networks,
        settings=Consistency(
            m.average_decay, m.marginal_momentum, m.confidence, m.consistency_weight
        ),
        mixup_alpha=t.mixup_alpha,
    )


def _dynamic_objective(config: ConfigDict, setup: Setup) -> objectives.DynamicLoss:
    m = config.method
    return objectives.example_weighted(
        objectives.dynamic_loss(
            len(setup.class_counts),
            m.num_ranks,
            m.hidden,
            corrector=m.corrector,
            margin=m.margin,
            shared_weight=m.shared_weight,
            base_loss=loss_of(config, setup.class_counts),
            reads=("epoch", "key"),
        )
    )


def _sampling(config: ConfigDict) -> metadata.Sampling:
    m = config.method
    return metadata.Sampling(m.candidates, m.kept, m.by_loss)


def _meta_batch_size(config: ConfigDict, size: int) -> int:
    """Returns the examples of a batch of a meta set that has `size`."""
    wanted = config.method.meta_batch_size or config.train.batch_size
    return wanted if config.method.repeat_metadata else min(wanted, size)


def _meta_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam, with weight decay added to the gradient."""
    m = config.method
    adam = optax.adam(m.meta_learning_rate)
    if m.meta_weight_decay == 0:
        return adam
    return optax.chain(optax.add_decayed_weights(m.meta_weight_decay), adam)


def _apart(
    optimizer: optax.GradientTransformation, objective: objectives.DynamicLoss
) -> optax.GradientTransformation:
    """Gives the label corrector and the margin generator an optimizer state each.

    Adam's count of the margins then starts with the first meta-step, as in the program of Jiang
    et al. 2023, and not while the corrector alone is fitted.
    """
    parts = jax.eval_shape(objective.init, jax.random.key(0))
    return optax.partition({name: optimizer for name in parts}, {name: name for name in parts})


def _bilevel(config: ConfigDict, network: Network, objective: Any, *optimizers: Any) -> Bilevel:
    m = config.method
    return make_bilevel(
        network,
        objective,
        *optimizers,
        steps=m.look_ahead_steps,
        mode=m.hypergradient,
        skip=m.skip_stages,
        bottom_batch_norm=m.bottom_batch_norm,
    )


def dynamic_loss_method(config: ConfigDict, setup: Setup) -> Method:
    m, t = config.method, config.train
    check(
        setup.held_out == 0,
        "method.name=dynamic_loss takes its metadata from the training data: the examples held out "
        f"by data.metadata.kind={config.data.metadata.kind} would not be used; set it to none.",
    )
    stages = dynamic_loss_steps(
        len(setup.labels),
        setup.class_counts,
        batch_size=t.batch_size,
        epochs=t.epochs,
        warmup_epochs=m.warmup_epochs,
        chosen=_sampling(config),
        fine_tune=m.fine_tune,
    )
    objective = _dynamic_objective(config, setup)
    optimizers = setup.make_optimizer(stages), _apart(_meta_optimizer(config), objective)
    return dynamic_loss(
        setup.network,
        _bilevel(config, setup.network, objective, *optimizers),
        objective,
        *optimizers,
        setup.views(m.weak_view),
        setup.views(),
        example=setup.example,
        labels=setup.labels,
        class_counts=setup.class_counts,
        batch_size=t.batch_size,
        meta_batch_size=_meta_batch_size(
            config, metadata.sizes(setup.class_counts, _sampling(config))[1]
        ),
        epochs=t.epochs,
        warmup_epochs=m.warmup_epochs,
        fit_steps=m.fit_steps,
        num_ranks=m.num_ranks,
        chosen=_sampling(config),
        fine_tune=m.fine_tune,
        mixup_alpha=t.mixup_alpha if m.mixup_alpha is None else m.mixup_alpha,
        meta_every=m.meta_every,
    )


def _base(config: ConfigDict, setup: Setup) -> Base:
    """What the weights are put on: a loss, with its schedule, or the dynamic loss."""
    if config.method.base == "dynamic_loss":
        return Base(_dynamic_objective(config, setup), config.method.num_ranks)
    loss = loss_of(config, setup.class_counts)

    def of_batch(logits: jax.Array, batch: dict[str, Any]) -> jax.Array:
        return loss(
            logits, batch["labels"], epoch=batch["epoch"], key=batch["key"], where=batch["where"]
        )

    return Base(objectives.example_weighted(objectives.fixed(of_batch)))


def _metadata(config: ConfigDict, setup: Setup) -> metadata.Metadata:
    name, own = config.method.name, config.method.low_loss_metadata
    check(
        setup.held_out > 0 or own,
        f"method.name={name} needs metadata: set data.metadata.kind=clean (held out with true "
        "labels), or method.low_loss_metadata=true (chosen from the training data).",
    )
    check(
        setup.held_out == 0 or not own,
        "data.metadata.kind and method.low_loss_metadata are both set; use one.",
    )
    if own:
        return metadata.low_loss(setup.labels, setup.class_counts, _sampling(config))
    return metadata.held_out(len(setup.labels), setup.held_out)


def _allocation(
    config: ConfigDict,
    setup: Setup,
    weigher: objectives.Objective,
    meta_optimizer: optax.GradientTransformation,
    *,
    first_epoch: int = 0,
    attributes: Callable[..., Any] | None = None,
    scores: Callable[..., jax.Array] | None = None,
) -> Allocation:
    """Returns the training with the weights of `weigher`; the rest see `allocation`."""
    m, t, base = config.method, config.train, _base(config, setup)
    steps = batches.num_steps(len(setup.labels), t.batch_size)
    optimizer, meta = setup.make_optimizer(((t.epochs, steps),)), _metadata(config, setup)
    objective = objectives.weighted(weigher, base.objective, m.weight_smoothing)
    bilevel = _bilevel(config, setup.network, objective, optimizer, meta_optimizer)
    return allocation(
        setup.network,
        bilevel,
        base,
        optimizer,
        setup.views(),
        example=setup.example,
        labels=setup.labels,
        num_classes=len(setup.class_counts),
        metadata=meta,
        batch_size=t.batch_size,
        meta_batch_size=_meta_batch_size(config, meta.size),
        meta_every=m.meta_every,
        first_epoch=first_epoch,
        attributes=attributes,
        scores=scores,
    )


def _learn_epochs(config: ConfigDict, default: int) -> int:
    chosen = config.method.freeze_epoch
    return min(default if chosen is None else chosen, config.train.epochs)


def curvenet_method(config: ConfigDict, setup: Setup) -> Method:
    m, t, o, n = config.method, config.train, config.optimizer, len(setup.labels)
    num_classes = len(setup.class_counts)
    length = m.probe_epochs if setup.curves is None else setup.curves.shape[1]
    start, end = curve_slice(length, m.curve_start, m.curve_end)
    check(
        start < end <= length,
        f"method.curve_start={start} and method.curve_end={end}: must be some epochs of a curve "
        f"of length {length}.",
    )
    weigher = objectives.curve_weighted(
        num_classes, end - start, m.hidden, factor=m.weight_factor, bias=m.weight_bias
    )
    probe = probe_optimizer = None
    if setup.curves is None:
        small = max(1, t.batch_size // m.probe_batch_divisor)
        probe = Probe(m.probe_epochs, t.batch_size, small)
        probe_optimizer = setup.make_optimizer(
            probe.steps(n), cycle=probe.cycle, learning_rate=m.probe_learning_rate
        )
    drops = o.milestones if o.schedule == "step" else ()
    allocate = _allocation(
        config,
        setup,
        weigher,
        _meta_optimizer(config),
        first_epoch=0 if probe is None else probe.epochs,
        attributes=curves_of(start, end),
        scores=mean_of_curves(n, start, end),
    )
    return curvenet(
        setup.network,
        allocate,
        setup.views(),
        labels=setup.labels,
        num_classes=num_classes,
        epochs=t.epochs,
        learn_epochs=_learn_epochs(config, *drops[:1] or (t.epochs,)),
        probe=probe,
        probe_optimizer=probe_optimizer,
        curves=setup.curves,
        curves_dtype=m.curves_dtype,
    )


def _reweighted(config: ConfigDict, allocate: Allocation) -> Method:
    epochs = config.train.epochs
    stages = allocate.stages(epochs, _learn_epochs(config, epochs))
    return Method(allocate.init, stages, allocate.report)


def meta_weight_net_method(config: ConfigDict, setup: Setup) -> Method:
    weigher = objectives.meta_weight_net(config.method.hidden)
    return _reweighted(config, _allocation(config, setup, weigher, _meta_optimizer(config)))


def learning_to_reweight_method(config: ConfigDict, setup: Setup) -> Method:
    weigher, set_weights = objectives.learning_to_reweight(config.train.batch_size)
    parts = {"weigher": set_weights, "base": _meta_optimizer(config)}
    meta_optimizer = optax.partition(parts, {name: name for name in parts})
    return _reweighted(config, _allocation(config, setup, weigher, meta_optimizer))


def make(
    config: ConfigDict,
    network: Network,
    make_optimizer: Callable[..., optax.GradientTransformation],
    views: Callable[..., Any],
    *,
    example: jax.Array,
    labels: jax.Array,
    num_classes: int,
    held_out: int = 0,
    curves: np.ndarray | None = None,
) -> Method:
    """Builds the method that a configuration names; `labels` int32 [N], the rest see `Setup`.

    Raises:
      UserError: settings that do not fit the data, the loss or each other.
    """
    check(
        not config.train.drop_last or config.method.name == "supervised",
        f"train.drop_last is for method.name=supervised; {config.method.name} meets every example "
        "in every epoch: leave it out.",
    )
    check(
        config.loss.name not in MEMORY_LOSSES or config.method.name == "supervised",
        f"loss.name={config.loss.name} has a memory per example, which only "
        f"method.name=supervised keeps; not {config.method.name}.",
    )
    check(
        config.train.mixup_alpha is None or config.method.name in MIXING,
        f"train.mixup_alpha: method.name={config.method.name} gives each example a weight of its "
        f"own, which a mixture of two has not. Leave it out, or use one of {', '.join(MIXING)}.",
    )
    check(
        config.train.mixup_alpha is None or config.method.mixup_alpha is None,
        "train.mixup_alpha and method.mixup_alpha are both set; use one.",
    )
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    setup = Setup(
        network=network,
        make_optimizer=make_optimizer,
        views=views,
        example=example,
        labels=labels,
        class_counts=counts,
        held_out=held_out,
        curves=curves,
    )
    module, function = METHODS[config.method.name].split(":")
    made = getattr(importlib.import_module(module), function)(config, setup)
    return _balanced(made, setup, config.data.balance)


_POWERS = {"sqrt": 0.5, "class": 0.0}


def _balanced(method: Method, setup: Setup, balance: str) -> Method:
    """Returns a method whose training passes meet classes more evenly, see `data.balance`.

    Probes, which record a loss of every example, and passes over metadata stay as they are.
    """
    if balance == "none":
        return method
    labels, k, power = jnp.asarray(setup.labels), len(setup.class_counts), _POWERS[balance]

    def of(pass_: Pass) -> Pass:
        def order(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
            found = pass_.order(state, key, epoch)
            return batches.balanced(jax.random.fold_in(key, 1), found, labels, k, power)

        return pass_._replace(order=order) if pass_.name == "train" else pass_

    stages = [
        stage._replace(passes=tuple(map(of, stage.passes))) if stage.result else stage
        for stage in method.stages
    ]
    return method._replace(stages=tuple(stages))

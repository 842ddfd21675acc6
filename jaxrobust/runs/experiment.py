"""Construction of the parts of a run from its configuration: data, network, views, method.

Configurations are read in `runs` and by the estimator; everything below takes plain values.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxrobust import networks
from jaxrobust.augment import views as augment
from jaxrobust.data import sources
from jaxrobust.data.examples import Joined, Source
from jaxrobust.data.prepare import Prepared, prepare
from jaxrobust.data.statistics import statistics
from jaxrobust.errors import check
from jaxrobust.methods.method import Method
from jaxrobust.networks.layers import Head
from jaxrobust.runs import build_method, image_features, loss_curves
from jaxrobust.training import evaluation, schedules
from jaxrobust.training.loop import Feed
from jaxrobust.training.sharding import Layout, make_layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The parts of a run.

    Attributes:
      config: the settings, validated.
      data: prepared; training, validation and test parts.
      network: see `jaxrobust.networks`.
      method: see `methods.method`.
      feed: the data as the loop takes them.
      forward: `forward(params, batch_stats, x) -> logits [N, K]`, in evaluation mode.
      loop: "epoch" (one compiled call per epoch) or "step".
      layout: of the data over the devices.
      key: PRNG key of the seed.
      scale: mean and standard deviation of the training examples, see `statistics`.
      options: of the compiler, for which `train.xla_options=auto` stands.
    """

    config: ConfigDict
    data: Prepared
    network: networks.Network
    method: Method
    feed: Feed
    forward: Callable
    loop: str
    layout: Layout
    key: jax.Array
    scale: tuple[np.ndarray, np.ndarray]
    options: tuple[str, ...] = ()

    def with_arrays(self, **arrays: np.ndarray) -> Experiment:
        """Returns the experiment with more arrays [N, ...] whose rows enter the batches."""
        arrays = self.feed.arrays | self.layout.put(arrays)
        return dataclasses.replace(self, feed=self.feed._replace(arrays=arrays))


def load_source(config: ConfigDict) -> Source:
    """Loads the data set that a configuration names, as it is. Raises `UserError`."""
    d = config.data
    return sources.load(
        d.name,
        path=d.path,
        data_dir=d.data_dir,
        label_key=d.label_key,
        label_column=d.label_column,
        group_column=d.group_column,
        unlabeled=d.unlabeled,
        annotators=d.annotators,
        consensus=d.consensus,
        image_size=d.image_size,
        on_unreadable=d.on_unreadable,
        test_fraction=d.test_fraction,
        num_classes=d.num_classes,
    )


def data_seed(config: ConfigDict) -> int:
    """Returns the seed of label noise, long tail, splits and folds."""
    if config.data.seed is not None:
        return config.data.seed
    return config.train.seeds[0] if config.train.seeds else config.seed


def load_data(config: ConfigDict) -> Prepared:
    """Loads and prepares the data that a configuration names. Raises `UserError`."""
    d = config.data
    return prepare(
        load_source(config),
        seed=data_seed(config),
        labels_path=d.labels_file,
        check_labels=d.check_labels,
        manifest_path=d.manifest,
        subset=d.subset,
        noise_kind=d.noise.kind,
        noise_rate=d.noise.rate,
        noise_map=d.noise.map,
        noise_matrix=d.noise.matrix,
        imbalance_kind=d.imbalance.kind,
        imbalance_factor=d.imbalance.factor,
        metadata_kind=d.metadata.kind,
        metadata_per_class=d.metadata.per_class,
        validation_fraction=d.validation.fraction,
        validation_clean=d.validation.clean,
    )


def make_network(config: ConfigDict, num_classes: int) -> networks.Network:
    """Returns the network that a configuration names; of a frozen pretrained one the linear layer
    on its features. Raises `UserError`."""
    name, width = config.network.name, config.network.width
    if config.network.pretrained is not None:
        return _pretrained(config, num_classes)
    extra = {} if width is None else networks.width_of(name, width)
    if config.network.init is not None and name == "resnet32":
        extra["init"] = config.network.init
    return networks.make(name, num_classes, dtype=jnp.dtype(config.network.dtype), **extra)


def _pretrained(config: ConfigDict, num_classes: int) -> networks.Network:
    name, dtype = config.network.name, jnp.dtype(config.network.dtype)
    check(
        config.network.width is None and config.network.init is None,
        "network.pretrained fixes the network: leave out network.width and network.init.",
    )
    which = image_features.from_config(config)
    if image_features.is_head(config):
        return networks.from_linen({"head": Head(num_classes, dtype, flatten=True)})
    from jaxrobust.networks import pretrained

    network = pretrained.build(name, num_classes, dtype=dtype)
    return pretrained.with_weights(network, name, which.weights)


def assemble(
    config: ConfigDict,
    data: Prepared | None = None,
    network: networks.Network | None = None,
    *,
    workdir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Experiment:
    """Builds the parts of a run; checks all that can be checked without compiling.

    Args:
      data, network: instead of those that the configuration names.
      workdir: where features of images are kept, for a frozen pretrained network.
      say: called with lines while these are computed.

    Raises:
      UserError: settings that do not fit the data, the loss or each other.
    """
    data = load_data(config) if data is None else data
    data = image_features.with_features(config, data, workdir, say)
    n, num_classes = len(data.train.labels), len(data.class_names)
    check(n > 0, "No training examples are left. Lower data.validation.fraction or metadata.")
    batch_size = config.train.batch_size
    check(
        batch_size <= n,
        f"train.batch_size={batch_size} exceeds the {n} training examples. "
        f"Use --config.train.batch_size={2 ** int(math.log2(n))} or less.",
    )
    layout = make_layout(batch_size, config.train.devices)
    scale = statistics(data.train.x)
    if config.network.pretrained is not None and not image_features.is_head(config):
        scale = _published_scale(config)
    if data.encoder is not None:  # which scales the features itself
        scale = (np.zeros_like(scale[0]), np.ones_like(scale[1]))
    views, view = make_views(config, data, *scale)
    network = make_network(config, num_classes) if network is None else network
    example = _example(data.train.x, batch_size)
    method = build_method.make(
        config,
        network,
        functools.partial(make_optimizer, config),
        views,
        example=example,
        labels=jnp.asarray(data.train.labels, jnp.int32),
        num_classes=num_classes,
        held_out=0 if data.metadata is None else len(data.metadata.labels),
        curves=load_curves(config, data),
    )
    forward = evaluation.make_forward(
        network, view, config.eval.batch_size, config.data.workers, layout
    )
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    x = jax.eval_shape(lambda x: view(jax.random.key(0), x), example)
    _check_outputs(network, shapes, x, num_classes)
    feed = make_feed(config, data, layout)
    return Experiment(
        config=config,
        data=_on_device(data, feed, layout),
        network=network,
        method=method,
        feed=feed,
        forward=forward,
        loop=_loop(config, network, shapes, x),
        layout=layout,
        key=jax.random.key(config.seed),
        scale=scale,
    )


def _published_scale(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation, in 0..1, of the images that a network was pretrained with."""
    from jaxrobust.networks import pretrained

    mean, std = pretrained.normalization(config.network.name)
    return mean / np.float32(255), std / np.float32(255)


def _check_outputs(network: networks.Network, shapes: Any, x: Any, num_classes: int) -> None:
    apply = functools.partial(network.apply, train=False)
    logits, _ = jax.eval_shape(apply, shapes.params, shapes.network_state, x)
    check(
        logits.shape == (x.shape[0], num_classes),
        f"The network gives {list(logits.shape[1:])} outputs an example; there are {num_classes} "
        "classes.",
    )


def _example(x: Any, batch_size: int) -> jax.Array:
    first = np.asarray(x[0])
    return jnp.broadcast_to(jnp.asarray(first)[None], (batch_size, *first.shape))


def load_curves(config: ConfigDict, data: Prepared) -> np.ndarray | None:
    """Returns the loss curves [N, T] that another training recorded, if a run is given any."""
    probe, path = config.probe_workdir, config.method.curves_file
    if probe is None and path is None:
        return None
    check(
        config.method.name == "curvenet",
        "probe_workdir and method.curves_file are read by method.name=curvenet, not by "
        f"{config.method.name}: leave them out.",
    )
    if path is None:
        path = Path(probe) / "curves.npz"
        check(path.is_file(), f"probe_workdir={probe} holds no finished probe (no curves.npz).")
    return loss_curves.load(path, data.manifest)


def make_optimizer(
    config: ConfigDict,
    stages: Sequence[tuple[int, int]],
    *,
    cycle: tuple[int, int] | None = None,
    learning_rate: float | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer of the network.

    Args:
      stages: as `schedules.make_schedule` has them.
      cycle: the learning rate cycles, instead of what is configured; see there.
      learning_rate: the peak, instead of what is configured.
    """
    o = config.optimizer
    peak = learning_rate or o.learning_rate
    if cycle is not None:
        schedule = schedules.make_schedule("cyclic", peak, stages=stages, cycle=cycle)
    else:
        schedule = schedules.make_schedule(
            o.schedule,
            peak,
            stages=stages,
            per_step=o.per_step,
            gamma=o.gamma,
            warmup_epochs=o.warmup_epochs,
            warmup_start=o.warmup_start,
            warmup=o.warmup,
            milestones=o.milestones,
        )
    return schedules.make_optimizer(
        o.name,
        schedule,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
        l1=o.l1,
    )


def _large(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape[:2]) >= 96


def evaluation_view(
    shape: tuple[int, ...], mean: np.ndarray, std: np.ndarray, *, as_is: bool = False
) -> augment.View:
    """Returns the view that nothing random enters, for examples of `shape`, see `statistics`.

    Args:
      shape, mean, std: of the examples.
      as_is: large images are not resized to 224 pixels.
    """
    large = _large(shape) and not as_is
    return augment.make_view(
        "imagenet_eval" if large else "none",
        mean=mean,
        std=std,
        image_size=224 if large else None,
    )


def make_views(
    config: ConfigDict, data: Prepared, mean: np.ndarray, std: np.ndarray
) -> tuple[Callable[..., augment.View], augment.View]:
    """Returns `(views, evaluation view)`; `views(kind)` makes a training view by name."""
    a, shape = config.augment, np.asarray(data.train.x[0]).shape
    images, large = len(shape) == 3, _large(shape)
    plain = images and not large and config.data.name != "digits"
    default = "imagenet" if large else "crop_flip" if plain else "none"
    flip = config.data.name != "digits" if a.flip is None else a.flip
    own = min(shape[:2]) if images else None  # Small images are evaluated as they are.
    fine_tuned = config.network.pretrained is not None
    side = own if fine_tuned else 224

    def view(kind: str | None = None) -> augment.View:
        name: str = kind or a.kind or default
        size = side if large else own if name.startswith("imagenet") else None
        return augment.make_view(
            name,
            mean=mean,
            std=std,
            image_size=size,
            pad=a.pad,
            pad_mode=a.pad_mode,
            cutout=a.cutout,
            cutout_kind=a.cutout_kind,
            flip=flip,
        )

    return view, evaluation_view(shape, mean, std, as_is=fine_tuned)


def make_feed(config: ConfigDict, data: Prepared, layout: Layout) -> Feed:
    """Puts labels, and examples that fit, on the device. Metadata rows follow the training rows."""
    parts = [data.train] + ([data.metadata] if data.metadata is not None else [])
    labels = np.concatenate([p.labels for p in parts]).astype(np.int32)
    truth = None
    if data.truth_known:
        truth = np.concatenate([p.true_labels for p in parts]).astype(np.int32)
    arrays = layout.put({"labels": labels})
    truth = None if truth is None else layout.put(truth)
    x = data.train.x
    if streams(config, x):
        return Feed(arrays, Joined([p.x for p in parts]), truth, config.data.workers)
    x = np.concatenate([np.asarray(p.x) for p in parts]) if len(parts) > 1 else np.asarray(x)
    return Feed(arrays | layout.put({"x": x}), None, truth)


def _on_device(data: Prepared, feed: Feed, layout: Layout) -> Prepared:
    """Keeps one copy of the examples, on the device, unless they are streamed.

    The training part then holds the feed's array, in which metadata follow the training rows.
    """
    if feed.host_x is not None:
        return data
    parts = {"train": data.train._replace(x=feed.arrays["x"])}
    for name in ("validation", "test"):
        part = getattr(data, name)
        if part is not None:
            parts[name] = part._replace(x=layout.put(np.asarray(part.x)))
    if data.metadata is not None:
        parts["metadata"] = data.metadata._replace(x=feed.arrays["x"][len(data.train.labels) :])
    return data._replace(**parts)


def streams(config: ConfigDict, x: Any) -> bool:
    """Says whether examples are streamed: by choice, or because they would fill the device."""
    if config.data.residency != "auto":
        return config.data.residency == "stream"
    if not isinstance(x, np.ndarray):
        return True
    stats = jax.local_devices()[0].memory_stats() or {}
    return x.nbytes > 0.4 * stats.get("bytes_limit", math.inf)


def _loop(config: ConfigDict, network: networks.Network, shapes: Any, x: Any) -> str:
    """Chooses one call an epoch, or one a step.

    XLA runs convolutions within loops many times slower on CPU (jax-ml/jax#12868).
    """
    if config.train.loop != "auto":
        return config.train.loop
    if jax.default_backend() != "cpu":
        return "epoch"
    jaxpr = jax.make_jaxpr(lambda p, s, x: network.apply(p, s, x, True))(
        shapes.params, shapes.network_state, x
    )
    return "step" if "conv_general_dilated" in str(jaxpr) else "epoch"

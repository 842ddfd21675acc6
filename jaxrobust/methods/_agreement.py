"""Agreement with consistency: train where an averaged network confirms the given label.

Modeled on the literature's family of selection and consistency, not a reproduction of one paper:
selection by agreement of prediction and label (SSR, Feng et al. 2022, arXiv 2111.11288), prediction
of an averaged network (mean teacher, Tarvainen & Valpola 2017, arXiv 1703.01780), division by the
moving marginal of the predictions (distribution alignment, ReMixMatch, Berthelot et al. 2020, arXiv
1911.09785), pseudo-labels of a weak view for a strong one (FixMatch, Sohn et al. 2020, arXiv
2001.07685), and two networks that select for each other (co-teaching, Han et al. 2018, arXiv
1804.06872; DivideMix, Li et al. 2020, arXiv 2002.07394).

Symbols: N examples, B batch, K classes; p, prediction of the average of a network's weights on the
weak view; m, moving mean of p; q = (p / m) / sum(p / m).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.augment.views import mix, mixup_pairs
from jaxrobust.data import batches
from jaxrobust.errors import check
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState, View
from jaxrobust.methods.updates import fresh_network, mean_loss, plain_start, plain_update, put_rows
from jaxrobust.networks import Network

LossOfEpoch = Callable[..., jax.Array]


class Consistency(NamedTuple):
    """Settings of the selection and of the second stage.

    Attributes:
      average: decay of each network's average, in [0, 1); in step t at most 1 - 1/t, as in mean
        teacher's program, so that the average follows from the first step on.
      marginal: momentum of m, in [0, 1); likewise.
      confidence: largest entry of q from which an example that is not selected trains on its
        pseudo-label, in [0, 1].
      weight: of such an example's loss; a selected one's is 1.
    """

    average: float = 0.99
    marginal: float = 0.99
    confidence: float = 0.8
    weight: float = 1.0


def aligned(p: jax.Array, marginal: jax.Array) -> jax.Array:
    """Returns q [B, K]: p [B, K] divided by the moving marginal [K], each row summing to one.

    What a class is predicted too often for, by that much it must be predicted more surely.
    """
    q = p / jnp.maximum(marginal, 1e-6)[None]
    return q / jnp.sum(q, axis=-1, keepdims=True)


def targets(
    q: jax.Array, labels: jax.Array, settings: Consistency, trusts_all: jax.Array, second: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the label that each example trains on, its weight, and whether it is selected.

    Args:
      q: [B, K], see above.
      labels: int [B], given.
      settings: see `Consistency`.
      trusts_all: bool [], whether every given label counts as confirmed (warm-up).
      second: whether the examples left over train on their pseudo-label.

    Returns:
      int [B]; float [B], 0 where the example is left out; bool [B].
    """
    named = jnp.argmax(q, axis=-1).astype(labels.dtype)
    selected = (named == labels) | trusts_all
    weight = selected.astype(q.dtype)
    if second:
        sure = ~selected & (jnp.max(q, axis=-1) >= settings.confidence)
        weight = jnp.where(sure, settings.weight, weight)
    return jnp.where(selected, labels, named), weight, selected


def agreement(
    network: Network,
    loss: LossOfEpoch,
    optimizer: optax.GradientTransformation,
    weak: View,
    strong: View,
    *,
    example: jax.Array,
    num_examples: int,
    num_classes: int,
    batch_size: int,
    epochs: int,
    warmup_epochs: int,
    first_epochs: int,
    networks: int = 1,
    settings: Consistency | None = None,
    mixup_alpha: float | None = None,
) -> Method:
    """Returns training in two stages.

    First, an example trains on its given label where argmax q is that label, and not at all
    elsewhere; during the warm-up all do. Then the others as well, on argmax q where max q is large
    enough. A step is one gradient step per network on the strong view, the mean over the whole
    batch, and one more forward pass per network, of its average on the weak view. With two
    networks each learns from the selection of the other; the first is the run's result.

    Args:
      network: see `jaxrobust.networks`.
      loss: of logits and labels, see `make_loss`.
      optimizer: any optax optimizer.
      weak, strong: views for p; for the gradient step.
      example: one batch of raw examples [B, ...], for its shape.
      num_examples: N; rows 0 ... N-1 of the data are trained on.
      num_classes: K.
      batch_size: B.
      epochs: in all; `warmup_epochs` of them warm-up, and `first_epochs` the first stage, warm-up
        included.
      networks: 1 or 2.
      settings: see `Consistency`; None: the defaults.
      mixup_alpha: mixes strong views, and the losses to both labels, each with its weight; None:
        no mixup.

    Raises:
      UserError: a batch larger than the data; stages that do not fit into the epochs.
    """
    check(batch_size <= num_examples, f"batch_size={batch_size} exceeds {num_examples} examples.")
    check(
        warmup_epochs <= first_epochs <= epochs,
        f"method.warmup_epochs={warmup_epochs}, method.consistency_from={first_epochs} and "
        f"train.epochs={epochs} must not decrease in this order.",
    )
    settings = Consistency() if settings is None else settings

    def init(key):
        keys = [key, jax.random.fold_in(key, 1)]
        state = plain_start(network, optimizer, strong, example, keys[0])
        copy = jax.tree.map(jnp.copy, (state.params, state.network_state))
        memory: dict[str, Any] = {
            "teacher": copy,
            "marginal": jnp.full((networks, num_classes), 1 / num_classes),
            "agreement": jnp.ones((num_examples,), jnp.float32),
        }
        if networks == 2:
            params, stats = fresh_network(network, strong, example, keys[1])
            memory["second"] = (params, stats, optimizer.init(params))
            memory["second_teacher"] = jax.tree.map(jnp.copy, (params, stats))
        return state._replace(memory=memory)

    def order(state, key, epoch):
        del state, epoch
        return batches.shuffled(key, jnp.arange(num_examples, dtype=jnp.int32), batch_size)

    def pass_(second):
        step = _step(network, loss, optimizer, weak, strong, settings, mixup_alpha)
        return Pass("train", lambda *args: step(*args, warmup_epochs, second), order)

    stages = (
        Stage("agreement", first_epochs, (pass_(False),)),
        Stage("consistency", epochs - first_epochs, (pass_(True),)),
    )
    return Method(init, stages, lambda state: {"weights": state.memory["agreement"]})


def _step(network, loss, optimizer, weak, strong, settings, mixup_alpha):
    """Returns `step(state, batch, meta_batch, key, epoch, warmup_epochs, second)`."""

    def at_most(decay, step):
        return jnp.minimum(decay, 1 - 1 / (step.astype(jnp.float32) + 1))

    def judged(teacher, marginal, x, where, step):
        """Returns q [B, K] of an average, and the marginal moved by its predictions."""
        p = jax.nn.softmax(network.apply(*teacher, x, False)[0])
        mean = jnp.sum(p * where[:, None], axis=0) / jnp.maximum(jnp.sum(where), 1)
        decay = at_most(settings.marginal, step)
        moved = decay * marginal + (1 - decay) * mean
        return jax.lax.stop_gradient(aligned(p, moved)), moved

    def trained(student, x, chosen, batch, key, epoch):
        labels, weight = chosen[:2]
        loss_key, mix_key = jax.random.split(key)
        partner = share = None
        if mixup_alpha is not None:
            partner, share = mixup_pairs(mix_key, x.shape[0], mixup_alpha)
            x = mix(x, partner, share)

        def objective(logits):
            def value_of(labels, weight):
                value = loss(logits, labels, epoch=epoch, key=loss_key, where=batch["where"])
                return weight * value

            value = value_of(labels, weight)
            if partner is not None and share is not None:
                other = value_of(labels[partner], weight[partner])
                value = share * value + (1 - share) * other
            return mean_loss(value, batch)

        return plain_update(network, optimizer, student, x, objective)

    def follow(teacher, student, step):
        decay, now = at_most(settings.average, step), (student.params, student.network_state)
        return jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, teacher, now)

    def step(state, batch, meta_batch, key, epoch, warmup_epochs, second):
        del meta_batch
        memory, where = dict(state.memory), batch["where"]
        keys = [key, jax.random.fold_in(key, 1)]
        teachers = [memory["teacher"]]
        students: list[TrainState] = [state]
        if "second" in memory:
            teachers.append(memory["second_teacher"])
            params, stats, opt_state = memory["second"]
            students.append(state._replace(params=params, network_state=stats, opt_state=opt_state))
        weak_x = weak(jax.random.fold_in(key, 2), batch["x"])
        found = [
            judged(t, memory["marginal"][i], weak_x, where, state.step)
            for i, t in enumerate(teachers)
        ]
        memory["marginal"] = jnp.stack([marginal for _, marginal in found])
        chosen = [
            targets(q, batch["labels"], settings, epoch < warmup_epochs, second) for q, _ in found
        ]
        ends = []
        for i, student in enumerate(students):
            view_key, train_key = jax.random.split(keys[i])
            x = strong(view_key, batch["x"])
            ends.append(trained(student, x, chosen[-1 - i], batch, train_key, epoch))
        memory["teacher"] = follow(teachers[0], ends[0][0], state.step)
        if "second" in memory:
            other = ends[1][0]
            memory["second"] = (other.params, other.network_state, other.opt_state)
            memory["second_teacher"] = follow(teachers[1], other, state.step)
        labels, weight, selected = chosen[0]
        kept = 0.5 * memory["agreement"][batch["index"]] + 0.5 * selected
        memory["agreement"] = put_rows(memory["agreement"], batch, kept)
        after, value, logits = ends[0]
        scalars = {
            "loss": value,
            "selected": losses.mean(selected.astype(jnp.float32), where=where),
            "used": losses.mean((weight > 0).astype(jnp.float32), where=where),
        }
        return after._replace(memory=memory), StepInfo(logits, scalars)

    return step

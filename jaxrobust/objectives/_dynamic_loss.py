"""The dynamic loss: a label corrector and a margin generator (Jiang et al. 2023, arXiv 2211.12506).

The rank r of an example, by its loss among those of the same given label, determines how far the
label is trusted: the corrected label is w * onehot(label) + (1 - w) * prediction, w = g[r, label].
A margin m per class is added to the logits. Both are learned. Symbols as in `base`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust import losses
from jaxrobust.errors import check
from jaxrobust.objectives.base import BaseLoss, Batch, Perceptron, _array


class LabelCorrector(nn.Module):
    """How far each (rank, class) is trusted: g [R, K] in (0, 1).

    Source: Jiang et al. 2023, arXiv 2211.12506.

    A learned embedding per rank, a perceptron h -> h -> h -> K, a sigmoid. With `per_class`
    False there is one weight per rank, the same for all classes.
    """

    num_classes: int
    num_ranks: int = 100
    hidden: int = 64
    per_class: bool = True

    @nn.compact
    def __call__(self) -> jax.Array:
        xavier = nn.initializers.xavier_uniform()
        embedding = self.param("rank_embedding", xavier, (self.num_ranks, self.hidden))
        outputs = self.num_classes if self.per_class else 1
        net = Perceptron((self.hidden, self.hidden, outputs), 3.98, name="rank_weight_net")
        return jnp.broadcast_to(nn.sigmoid(net(embedding)), (self.num_ranks, self.num_classes))


class MarginGenerator(nn.Module):
    """An additive margin per class: m [K], the margin generator of Jiang et al. 2023.

    Source: Jiang et al. 2023, arXiv 2211.12506.

    One learned embedding [1, h] and a perceptron h -> h -> h -> K; margins start near 1.
    """

    num_classes: int
    hidden: int = 64

    @nn.compact
    def __call__(self) -> jax.Array:
        xavier = nn.initializers.xavier_uniform()
        embedding = self.param("class_embedding", xavier, (1, self.hidden))
        net = Perceptron((self.hidden, self.hidden, self.num_classes), 1.0, name="margin_net")
        return net(embedding)[0]


class DynamicLoss(NamedTuple):
    """An `Objective` and the parts of the dynamic loss that its stages need one by one.

    Attributes:
      init, loss, observe, weights, restart: see `Objective`.
      rank_weights: `rank_weights(phi) -> g [R, K]`; ones without corrector.
      margins: `margins(phi) -> m [K]`; zeros without margin generator.
      corrected_labels: `corrected_labels(phi, batch) -> [B, K]`, from "labels", "rank" and
        "pseudo_labels" (int [B] or distributions [B, K]).
      margin_loss: `margin_loss(phi, logits, labels, batch={}) -> [B]`, base loss of z + m to any
        labels, "where" and what else the base loss reads from the batch; with the given labels
        this is the fine-tuning loss.
      fitting_loss: `fitting_loss(phi, logits, batch) -> [B]`, fits the corrector in the warm-up:
        - log(corrected label of the given class + 1e-8), corrected with softmax(logits).
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, jax.Array, Batch], jax.Array]
    observe: Callable[[jax.Array, jax.Array, Batch], Batch] | None
    weights: Callable[[Any, jax.Array, Batch], jax.Array] | None
    restart: Callable[[Any], Any] | None
    rank_weights: Callable[[Any], jax.Array]
    margins: Callable[[Any], jax.Array]
    corrected_labels: Callable[[Any, Batch], jax.Array]
    margin_loss: Callable[..., jax.Array]
    fitting_loss: Callable[[Any, jax.Array, Batch], jax.Array]


def dynamic_loss(
    num_classes: int,
    num_ranks: int = 100,
    hidden: int = 64,
    *,
    corrector: bool = True,
    margin: bool = True,
    base_loss: BaseLoss = losses.cross_entropy,
    reads: Sequence[str] = (),
    shared_weight: bool = False,
) -> DynamicLoss:
    """Returns the dynamic loss, base_loss(z + m, corrected label).

    Source: Jiang et al. 2023, arXiv 2211.12506.

    The batch holds "labels" int [B], "rank" int [B], and "index" int [B] (position in the data:
    it seeds the draw of each example's pseudo-label, so that the draw does not depend on how the
    batch is spread over devices). For mixup, "mix_partner" int [B] and "mix_share" float [B]
    say that an example's target is share * its own + (1 - share) * its partner's corrected label.

    Args:
      num_classes: K.
      num_ranks: R.
      hidden: h, width of the perceptrons and embeddings.
      corrector: without it the given label is the target.
      margin: without it nothing is added to the logits.
      base_loss: any loss of `jaxrobust.losses`, its hyper-parameters bound.
      reads: what of the batch the base loss takes by keyword: the hyper-parameters of one that
        changes while training (DAL's "q" and "lamb"), the "key" of one that draws.
      shared_weight: one weight per rank instead of one per rank and class.

    Raises:
      UserError: both parts are switched off, or sizes are not positive.
    """
    check(corrector or margin, "dynamic_loss: corrector and margin are both off: nothing to learn.")
    check(min(num_classes, num_ranks, hidden) > 0, "dynamic_loss: sizes must be positive.")
    init, rank_weights, margins = _learned_parts(
        LabelCorrector(num_classes, num_ranks, hidden, not shared_weight) if corrector else None,
        MarginGenerator(num_classes, hidden) if margin else None,
        (num_ranks, num_classes),
    )

    def weights(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        del logits
        return rank_weights(phi)[batch["rank"], batch["labels"]]

    def corrected_labels(phi: Any, batch: Batch) -> jax.Array:
        if not corrector:
            return jax.nn.one_hot(batch["labels"], num_classes)
        w = rank_weights(phi)[batch["rank"], batch["labels"]]
        return _corrected(w, batch["labels"], batch["pseudo_labels"], num_classes)

    def margin_loss(
        phi: Any, logits: jax.Array, labels: jax.Array, batch: Batch = MappingProxyType({})
    ) -> jax.Array:
        if margin:
            logits = logits + margins(phi)[None, :]
        read = {name: batch[name] for name in reads}
        return base_loss(logits, labels, where=batch.get("where"), **read)

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        target = batch["labels"]
        if corrector or "mix_share" in batch:
            target = corrected_labels(phi, batch)
        if "mix_share" in batch:
            share = batch["mix_share"][:, None]
            target = share * target + (1 - share) * target[batch["mix_partner"]]
        return margin_loss(phi, logits, target, batch)

    def observe(key: jax.Array, logits: jax.Array, batch: Batch) -> Batch:
        return batch | {"pseudo_labels": sample_labels(key, logits, batch.get("index"))}

    def fitting_loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        check(corrector, "dynamic_loss: without corrector there is nothing to fit.")
        prediction = jax.lax.stop_gradient(jax.nn.softmax(logits))
        w = weights(phi, logits, batch)
        target = _corrected(w, batch["labels"], prediction, num_classes)
        of_given = jnp.take_along_axis(target, batch["labels"][:, None], axis=1)[:, 0]
        return -jnp.log(of_given + 1e-8)

    return DynamicLoss(
        init,
        loss,
        observe if corrector else None,
        weights if corrector else None,
        None,
        rank_weights,
        margins,
        corrected_labels,
        margin_loss,
        fitting_loss,
    )


def _learned_parts(
    corrector: LabelCorrector | None, generator: MarginGenerator | None, shape: tuple[int, int]
) -> tuple[Callable[[jax.Array], Any], Callable[[Any], jax.Array], Callable[[Any], jax.Array]]:
    """Returns `init(key) -> phi`, `rank_weights(phi)` and `margins(phi)` of `DynamicLoss`.

    Without corrector the weights are 1, without generator the margins 0; `shape` is (R, K).
    """

    def init(key: jax.Array) -> Any:
        key_c, key_m = jax.random.split(key)
        phi = {} if corrector is None else {"corrector": corrector.init(key_c)["params"]}
        return phi | ({} if generator is None else {"margin": generator.init(key_m)["params"]})

    def rank_weights(phi: Any) -> jax.Array:
        if corrector is None:
            return jnp.ones(shape)
        return _array(corrector.apply({"params": phi["corrector"]}))

    def margins(phi: Any) -> jax.Array:
        if generator is None:
            return jnp.zeros(shape[1:])
        return _array(generator.apply({"params": phi["margin"]}))

    return init, rank_weights, margins


def _corrected(
    w: jax.Array, labels: jax.Array, prediction: jax.Array, num_classes: int
) -> jax.Array:
    """Returns w * onehot(label) + (1 - w) * prediction, [B, K], for int [B] or [B, K] ones."""
    if prediction.ndim == 1:
        prediction = jax.nn.one_hot(prediction, num_classes, dtype=w.dtype)
    given = jax.nn.one_hot(labels, num_classes, dtype=w.dtype)
    return w[:, None] * given + (1 - w)[:, None] * prediction


def sample_labels(key: jax.Array, logits: jax.Array, index: jax.Array | None = None) -> jax.Array:
    """Draws a class from softmax(logits) per example: hard Gumbel-softmax, temperature 1.

    Args:
      logits: [B, K].
      index: int [B], folded into `key` for each draw; default: the position in the batch.

    Returns:
      int32 [B], without gradient.
    """
    index = jnp.arange(logits.shape[0]) if index is None else index
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    draw = jax.vmap(lambda k, z: jax.random.categorical(k, z))
    return draw(keys, jax.lax.stop_gradient(logits)).astype(jnp.int32)

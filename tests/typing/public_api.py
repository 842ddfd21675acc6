"""What a user's type checker sees of the public functions; checked by `make lint`, never run."""
# pyright: basic, reportArgumentType=true, reportCallIssue=true, reportOptionalMemberAccess=true
# pyright: reportAttributeAccessIssue=true

from pathlib import Path
from typing import Any, assert_type

import jax
import numpy as np
import optax

import jaxrobust
from jaxrobust import RobustClassifier, audit, bilevel, config, losses, networks, objectives


def use_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    q, lamb = losses.dal_schedule(3, 150, q_start=0.6, q_end=1.5)
    each = losses.dynamics_aware(logits, labels, q=q, lamb=lamb)
    assert_type(each, jax.Array)
    also = losses.get("gce")(logits, labels, q=0.7, where=labels >= 0)
    return losses.mean(each + also, where=labels >= 0)


def use_bilevel(key: jax.Array, batch: dict[str, Any]) -> bilevel.Info:
    network = networks.make("small_cnn", 10, width=8)
    params, state = network.init(key, batch["x"])
    objective = objectives.meta_weight_net()
    init, step = bilevel.make_bilevel(network, objective, optax.sgd(0.1), optax.adam(1e-3))
    _, info = step(init(key, params, state), batch, batch, key)
    return info


def use_training(workdir: Path) -> dict[str, Any]:
    settings = config.load("digits_dal")
    settings.train.epochs = 3
    return jaxrobust.train(config.override(settings, {"loss.q_end": 1.8}), workdir)


def use_estimator(x: np.ndarray, y: list[str]) -> np.ndarray:
    model = RobustClassifier("dynamic_loss", network="mlp", epochs=5, random_state=0)
    assert_type(model.fit(x, y), RobustClassifier)
    issues = model.label_issues_
    assert_type(issues, audit.LabelIssues)
    return model.predict_proba(x[issues.indices])


def use_audit(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    found = audit.find_label_issues(labels, probabilities=probabilities)
    return found.indices[:10]

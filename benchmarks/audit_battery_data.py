"""Data sets, label noise and out-of-sample predictions of the battery's cells."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

# name: (classes, features, distance of the class centers in standard deviations)
GAUSSIANS = {
    "2 Gaussians, apart": (2, 5, 4.0),
    "2 Gaussians, near": (2, 5, 2.0),
    "3 Gaussians, apart": (3, 2, 5.0),
    "3 Gaussians, near": (3, 2, 2.5),
    "5 Gaussians, apart": (5, 8, 5.0),
    "10 Gaussians, apart": (10, 10, 5.0),
    "10 Gaussians, near": (10, 10, 3.5),
    "32 Gaussians, apart": (32, 20, 5.5),
    "100 Gaussians, apart": (100, 40, 6.0),
    "4 Gaussians, near": (4, 6, 3.0),
    "6 Gaussians, apart": (6, 4, 4.5),
    "20 Gaussians, apart": (20, 12, 5.0),
}
SETS = (
    "digits",
    "wine",
    "breast cancer",
    "iris",
    "2 Gaussians, apart",
    "2 Gaussians, near",
    "3 Gaussians, apart",
    "3 Gaussians, near",
    "5 Gaussians, apart",
    "10 Gaussians, apart",
    "10 Gaussians, near",
    "32 Gaussians, apart",
    "100 Gaussians, apart",
)
OTHER_SETS = (
    "digits",
    "digits in 12 components",
    "breast cancer",
    "rings",
    "4 Gaussians, near",
    "6 Gaussians, apart",
    "20 Gaussians, apart",
    "2 Gaussians, near",
)
MOST = 3000  # rows of a table
SLOW = {
    "gradient boosting": 1000,
    "SVC": 1000,
    "perceptron": 3000,
    "random forest": 3000,
    "bagged trees": 1000,
    "large perceptron": 1000,
    "extra trees": 3000,
}  # at most so many examples of made-up data
FOLDS = 5
EMBEDDING, SIDE = "efficientnet_lite0", 96  # network and pixels


def make(cell: Any, folder: Path | None) -> dict[str, np.ndarray]:
    """Returns labels [N], true [N], p [N, K] and the true noise matrix [K, K] of a cell."""
    rng, density = np.random.default_rng(cell.seed), None
    if cell.data == "CIFAR-10":
        x, true, labels = photographs(folder, cell, rng)
    elif cell.kind == "given" or cell.data not in (*SETS, *OTHER_SETS):
        if folder is None:
            raise ValueError(f"{cell.data} is a table: name the folder with --data.")
        x, true, labels = table(folder / "tables" / cell.data, rng)
        labels = true if cell.kind == "none" else labels
    else:
        x, true, density = load(cell, rng)
        labels, kept = noisy(cell, x, true, density, rng)
        x, true, labels = x[kept], true[kept], labels[kept]
        density = None if density is None else density[kept]
    k = int(max(true.max(), labels.max())) + 1
    joint = np.zeros((k, k))
    np.add.at(joint, (true, labels), 1)
    matrix = np.where(
        joint.sum(1, keepdims=True) > 0,
        joint / np.maximum(joint.sum(1, keepdims=True), 1),
        np.eye(k),
    )
    p = (
        density @ matrix
        if cell.classifier == "exact"
        else out_of_sample(cell.classifier, x, labels, k, int(rng.integers(1 << 30)))
    )
    return {
        "labels": labels.astype(np.int32),
        "true": true.astype(np.int32),
        "p": p.astype(np.float32),
        "matrix": matrix,
    }


def load(cell: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns x [N, D], true [N], and of Gaussians the posterior of the true label [N, K]."""
    from sklearn import datasets, decomposition

    if cell.data in GAUSSIANS:
        k, d, apart = GAUSSIANS[cell.data]
        n = max(cell.size, 10 * k)
        share = shares(k, cell.tail)
        true = np.sort(rng.choice(k, n, p=share)) if cell.tail < 1 else np.arange(n) % k
        centers = rng.normal(size=(k, d))
        gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + 1e9 * np.eye(k)
        centers *= apart / np.median(gaps.min(1))
        x = centers[true] + rng.normal(size=(n, d))
        logits = (
            x @ centers.T
            - (centers**2).sum(1) / 2
            + np.log(np.bincount(true, minlength=k) / n + 1e-12)
        )
        q = np.exp(logits - logits.max(1, keepdims=True))
        return x, true, q / q.sum(1, keepdims=True)
    if cell.data == "rings":
        k, n = 3, cell.size or 2000
        true = rng.integers(0, k, n)
        angle, radius = rng.random(n) * 2 * np.pi, 1 + true + 0.25 * rng.normal(size=n)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), true, None
    name = {"breast cancer": "breast_cancer"}.get(cell.data, cell.data.split()[0])
    x, true = getattr(datasets, f"load_{name}")(return_X_y=True)
    if "components" in cell.data:
        x = decomposition.PCA(12, random_state=0).fit_transform(x)
    rows = rng.permutation(len(x))
    return x[rows], true[rows], None


def shares(k: int, factor: float) -> np.ndarray:
    """Returns exponentially falling shares of k classes, the last `factor` times the first."""
    weights = factor ** (np.arange(k) / max(k - 1, 1))
    return weights / weights.sum()


def noisy(cell: Any, x, true, density, rng) -> tuple[np.ndarray, np.ndarray]:
    """Returns given labels [N] and the rows to keep (a long tail of real data)."""
    k, n = int(true.max()) + 1, len(true)
    kept = np.arange(n)
    if cell.tail < 1 and density is None:
        fall = shares(k, cell.tail)
        count = np.bincount(true, minlength=k)
        most = np.floor(fall * (count / fall).min()).clip(5).astype(int)
        kept = np.concatenate([np.flatnonzero(true == c)[: most[c]] for c in range(k)])
        kept = rng.permutation(kept)
    if cell.kind == "none":
        return true.copy(), kept
    if cell.kind == "instance":
        given = true.copy()
        given[kept] = confused(
            x[kept], true[kept], None if density is None else density[kept], cell.rate, rng
        )
        return given, kept
    matrix = transition(cell.kind, cell.rate, k, rng)
    u = rng.random(n)
    given = (matrix[true].cumsum(1) < u[:, None]).sum(1).clip(0, k - 1)
    return given, kept


def transition(kind: str, rate: float, k: int, rng: np.random.Generator) -> np.ndarray:
    """Returns T[true, given]; of "one class" and "asymmetric" only some rows are not the identity,
    with the rate, for the mean over the classes is what is asked (at most .45 in a class)."""
    matrix, order = np.eye(k), rng.permutation(k)
    if kind == "symmetric":
        return (1 - rate) * matrix + rate * (1 - matrix) / (k - 1)
    rate = min(rate, 0.45) if kind != "pair" else rate
    noisy_classes = {"pair": k, "one class": 1, "asymmetric": max(k // 2, 1)}[kind]
    for i in range(noisy_classes):
        a, b = order[i], order[(i + 1) % k]
        matrix[a, a], matrix[a, b] = 1 - rate, rate
    return matrix


def confused(x, true, density, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Returns labels that are wrong likelier, and named, where a logistic regression confuses."""
    k = int(true.max()) + 1
    s = density
    if s is None:
        s = out_of_sample("weak logistic regression", x, true, k, int(rng.integers(1 << 30)))
    s = s + 0.01 / k
    own = s[np.arange(len(true)), true] / s.sum(1)
    weight = (1 - own).clip(1e-6)
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        few = (middle * weight).clip(0, 0.8).mean() < rate
        low, high = (middle, high) if few else (low, middle)
    flip = rng.random(len(true)) < (low * weight).clip(0, 0.8)
    s = s.copy()
    s[np.arange(len(true)), true] = 0
    s /= s.sum(1, keepdims=True)
    other = (s.cumsum(1) < rng.random((len(true), 1))).sum(1).clip(0, k - 1)
    return np.where(flip, other, true)


def table(folder: Path, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns x [N, D], true and given labels of a real table: medians for missing numbers, a
    column per category."""
    import pandas as pd

    train, truth = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "truth.csv")
    names = np.unique(truth["true_label"].astype(str))
    true = np.searchsorted(names, truth["true_label"].astype(str))
    given = np.searchsorted(names, train["label"].astype(str))
    x = train.drop(columns="label")
    numbers = x.select_dtypes("number")
    others = x.drop(columns=numbers.columns)
    x = numbers.fillna(numbers.median())
    if others.shape[1]:
        x = pd.concat([x, pd.get_dummies(others, dtype=float)], axis=1)
    rows = rng.permutation(len(x))[:MOST]
    return x.to_numpy(np.float64)[rows], true[rows], given[rows]


def photographs(folder: Path, cell: Any, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns some photographs of CIFAR-10, as they are or as EfficientNet-Lite0 sees them, their
    true labels and those of `cifar10_labels/KIND.npy` (people's, of CIFAR-10N)."""
    import tensorflow_datasets as tfds

    from jaxrobust.networks import pretrained

    records = tfds.data_source("cifar10", split="train", data_dir=folder / "tfds")
    chosen = [records[int(i)] for i in rng.permutation(len(records))[: cell.size]]
    images = np.stack([record["image"] for record in chosen])
    rows = np.array([int(record["id"].decode().split("_")[1]) for record in chosen])
    true = np.array([record["label"] for record in chosen], np.int64)
    labels = np.load(folder / "cifar10_labels" / f"{cell.kind}.npy")[rows].astype(np.int64)
    if cell.classifier == "logistic regression":
        images = pretrained.features(EMBEDDING, images, image_size=SIDE, batch_size=64)
    return images, true, labels


def classifier(name: str, seed: int):
    """Returns a scikit-learn classifier by the battery's name of it."""
    from sklearn import (
        discriminant_analysis,
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        svm,
    )
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "our network":
        from jaxrobust import RobustClassifier

        return RobustClassifier(loss="ce", epochs=20, random_state=seed)
    made = {
        "logistic regression": lambda: linear_model.LogisticRegression(max_iter=200),
        "weak logistic regression": lambda: linear_model.LogisticRegression(C=0.01, max_iter=100),
        "k-NN 5": lambda: neighbors.KNeighborsClassifier(5),
        "k-NN 15": lambda: neighbors.KNeighborsClassifier(15),
        "k-NN 25": lambda: neighbors.KNeighborsClassifier(25),
        "random forest": lambda: ensemble.RandomForestClassifier(100, random_state=seed),
        "extra trees": lambda: ensemble.ExtraTreesClassifier(
            100, min_samples_leaf=2, random_state=seed
        ),
        "gradient boosting": lambda: ensemble.HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=15, random_state=seed
        ),
        "naive Bayes": lambda: naive_bayes.GaussianNB(var_smoothing=1e-3),
        "SVC": lambda: svm.SVC(probability=True, random_state=seed),
        "perceptron": lambda: neural_network.MLPClassifier((50,), max_iter=60, random_state=seed),
        "discriminant analysis": lambda: discriminant_analysis.LinearDiscriminantAnalysis(),
        "k-NN 10": lambda: neighbors.KNeighborsClassifier(10),
        "bagged trees": lambda: ensemble.BaggingClassifier(n_estimators=30, random_state=seed),
        "large perceptron": lambda: neural_network.MLPClassifier(
            (100,), max_iter=40, alpha=1e-2, random_state=seed
        ),
    }[name]()
    return make_pipeline(StandardScaler(), made)


def out_of_sample(name: str, x, labels, k: int, seed: int) -> np.ndarray:
    """Returns predictions [N, K] of five stratified folds; classes not seen get 0."""
    from sklearn.model_selection import StratifiedKFold

    p = np.zeros((len(x), k))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % (1 << 31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for train, test in folds.split(x, labels):
            model = classifier(name, seed % (1 << 31)).fit(x[train], labels[train])
            p[np.ix_(test, model.classes_.astype(int))] = model.predict_proba(x[test])
    return p

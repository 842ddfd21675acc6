"""The training examples of a source while they are being dealt out to a run's parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxrobust.data import flip_maps, label_noise, long_tail, splits, tabular
from jaxrobust.data.examples import Source, in_memory, rows_of, thumbnails
from jaxrobust.data.manifest import Rows
from jaxrobust.errors import check


class Pool:
    """Positions in a training split that are still free, and the labels given to all of it.

    Each step draws with its own key, so that changing one step leaves the draws of the others.

    Attributes:
      free: int64 [M], positions not yet held out or dropped, ascending.
      given, true: int32 [N], labels of the whole split.
      notes: what the user should know of the steps taken.
    """

    def __init__(self, source: Source, seed: int):
        self.source, self.seed, self.notes = source, seed, []
        self.names = source.class_names
        self.given = source.train.labels.copy()
        self.true = self.given.copy() if source.true_labels is None else source.true_labels
        self.free = np.arange(len(self.given))
        self.groups = source.train.groups

    def _key(self, purpose: int) -> jax.Array:
        return splits.key_for(self.seed, purpose)

    def _take_out(self, chosen: np.ndarray) -> np.ndarray:
        out, self.free = self.free[chosen], self.free[~chosen]
        return out

    def _drop_groups_of(self, out: np.ndarray) -> None:
        """Leaves out what shares a group with examples that are held out."""
        if self.groups is None:
            return
        shared = np.isin(self.groups[self.free], self.groups[out])
        if shared.any():
            self.free = self.free[~shared]
            self.notes.append(
                f"{shared.sum()} training examples share a group with metadata and are left out."
            )

    def keep(self, total: int) -> None:
        """Keeps a stratified subset of `total` examples."""
        check(0 < total <= len(self.free), f"subset={total}: there are {len(self.free)} examples.")
        key = self._key(splits.SUBSET)
        self.free = self.free[splits.stratified(self.true[self.free], total, len(self.names), key)]

    def metadata(self, per_class: int, *, clean: bool) -> np.ndarray:
        """Holds out `per_class` examples of every true class (clean) or given class."""
        check(per_class >= 1, f"Metadata of {per_class} a class: use 1 or more.")
        labels = (self.true if clean else self.given)[self.free]
        out = self._take_out(
            splits.balanced(labels, per_class, self.names, self._key(splits.METADATA))
        )
        self._drop_groups_of(out)
        if clean:
            self.given[out] = self.true[out]
        return out

    def validation(self, fraction: float, *, clean: bool) -> np.ndarray:
        """Holds out a share of every true class (clean) or given class."""
        labels = (self.true if clean else self.given)[self.free]
        total = round(fraction * len(labels))
        key, groups = self._key(splits.VALIDATION), self.groups
        groups = None if groups is None else groups[self.free]
        out = self._take_out(
            splits.stratified(labels, total, len(self.names), key, leave=1, groups=groups)
        )
        check(
            len(out) > 0,
            f"A validation fraction of {fraction:g} of {len(labels)} examples is none: set "
            "--config.data.validation.fraction=0, or a larger one.",
        )
        if clean:
            self.given[out] = self.true[out]
        return out

    def unbalance(self, kind: str, factor: float) -> None:
        """Cuts the true classes to a long tail; see `long_tail.class_counts`."""
        labels = self.true[self.free]
        have = np.bincount(labels, minlength=len(self.names))
        wanted = long_tail.class_counts(kind, factor, len(self.names), int(have.max()))
        if kind == "none":
            check(factor == 1, f"Imbalance factor {factor:g} needs a kind: exponential or step.")
            return
        self.free = self.free[long_tail.subsample(labels, wanted, self._key(splits.IMBALANCE))]
        short = np.flatnonzero(have < wanted)
        if len(short):
            c = short[0]
            self.notes.append(
                f"Imbalance: fewer examples than the profile asks for in {len(short)} of "
                f"{len(have)} classes, e.g. {self.names[c]!r}: {have[c]} of {wanted[c]}."
            )

    def rows(self, positions: np.ndarray) -> Rows:
        """Returns the rows at `positions` as a manifest records them."""
        index = rows_of(self.source.train)[positions]
        return Rows(index, self.given[positions], self.true[positions])

    def add_noise(
        self,
        kind: str,
        rate: float,
        flips: str | Mapping | None,
        matrix: np.ndarray | str | Path | None,
    ) -> None:
        """Draws the given labels of all that is free from the true ones; see `label_noise`."""
        if kind == "none":
            check(rate == 0, f"Noise rate {rate:g} needs a kind of noise, e.g. symmetric.")
            return
        true, key = self.true[self.free], self._key(splits.NOISE)
        num_classes = len(self.names)
        if kind == "instance":
            x = self.source.train.x
            x = x[self.free] if in_memory(x) else thumbnails(x, self.free)
            x = tabular.fit(x).transform(x) if isinstance(x, tabular.Table) else x
            noisy = label_noise.instance_dependent(x, true, rate, num_classes, key)
        else:
            flip_map = None
            if kind == "asymmetric":
                flip_map = (
                    flip_maps.parse(flips, self.names) if flips else flip_maps.usual(self.names)
                )
            transitions = label_noise.transition_matrix(
                kind,
                rate,
                num_classes,
                class_counts=np.bincount(true, minlength=num_classes),
                flip_map=flip_map,
                matrix=matrix,
            )
            noisy = label_noise.corrupt(true, transitions, key)
        self.given[self.free] = np.asarray(noisy)

"""Data parallelism: batches spread over the devices, everything else copied to each.

Under `jax.jit` this is all it takes: the compiler inserts the sums over devices, and batch norm
sees the whole batch. Several processes: `start_processes`, then the same program in each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrobust.errors import RunError, check


class Layout(NamedTuple):
    """How arrays lie on the devices; `mesh` is None for a single device."""

    mesh: Mesh | None

    def shard(self, batch: Any) -> Any:
        """Within jit: spreads the leading axis of every array of a batch over the devices.

        Arrays whose leading axis is no multiple of the number of devices stay as they are.
        """
        mesh = self.mesh
        if mesh is None:
            return batch
        spread = NamedSharding(mesh, PartitionSpec("data"))

        def over_devices(a: Any) -> Any:
            even = a.shape[0] % mesh.size == 0
            return jax.lax.with_sharding_constraint(a, spread) if even else a

        return jax.tree.map(over_devices, batch)

    def put(self, tree: Any) -> Any:
        """Copies every array to every device."""
        if self.mesh is None:
            return jax.tree.map(jax.numpy.asarray, tree)
        copied = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, copied)

        def everywhere(a: Any) -> Any:
            a = np.asarray(a)
            return jax.make_array_from_callback(a.shape, copied, lambda index: a[index])

        return jax.tree.map(everywhere, tree)

    def over_rows(self, shapes: Any, names: tuple[str, ...]) -> Any:
        """Returns shardings for `jax.jit(out_shardings=...)`: copies, but for what `names` names.

        Entries of dictionaries with these names are spread over the devices by leading axis. With
        several processes they are copies too: each process writes all of what it saves.

        Args:
          shapes: pytree of arrays or shapes.
        """
        mesh = self.mesh
        if mesh is None:
            return None
        spread = NamedSharding(mesh, PartitionSpec("data"))

        def sharding(path: Any, leaf: Any) -> Any:
            named = any(getattr(key, "key", None) in names for key in path)
            even = leaf.ndim > 0 and leaf.shape[0] % mesh.size == 0
            return spread if named and even and jax.process_count() == 1 else self.copies()

        return jax.tree_util.tree_map_with_path(sharding, shapes)

    def of(self, tree: Any) -> Any:
        """Returns the shardings that the arrays of a pytree have, or None for a single device."""
        return None if self.mesh is None else jax.tree.map(lambda a: a.sharding, tree)

    def copies(self) -> Any:
        """The sharding of what every device holds, for `jax.jit(out_shardings=...)`."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())


ONE_DEVICE = Layout(None)


def make_layout(batch_size: int, devices: int | None = None) -> Layout:
    """Lays out data over the devices.

    Args:
      batch_size: must be a multiple of the number of devices.
      devices: how many to use; None for all there are.

    Raises:
      UserError: not so many devices, or a batch that cannot be divided among them.
    """
    found = jax.devices()
    check(
        devices is None or devices <= len(found),
        f"train.devices={devices}, but there are {len(found)}.",
    )
    check(
        devices is None or jax.process_count() == 1 or devices == len(found),
        "With several processes all devices are used: leave out train.devices.",
    )
    count = len(found) if devices is None else devices
    if count == 1:
        return ONE_DEVICE
    check(
        batch_size % count == 0,
        f"train.batch_size={batch_size} is not a multiple of the {count} devices. "
        f"Use {batch_size // count * count or count}, or --config.train.devices=1.",
    )
    mesh = Mesh(np.asarray(found[:count]), ("data",), axis_types=(AxisType.Auto,))
    return Layout(mesh)


def start_processes(value: str) -> None:
    """Joins the processes of a distributed run; must come before JAX is used.

    Args:
      value: "auto" where JAX finds out by itself (TPU pods, Slurm, Open MPI), else
        "HOST:PORT,COUNT,ID" of the first process, the number of processes, and this one's.

    Raises:
      UserError: malformed. RunError: the others could not be reached.
    """
    options = {}
    if value != "auto":
        parts = value.split(",")
        right = len(parts) == 3 and ":" in parts[0] and all(p.isdigit() for p in parts[1:])
        check(right, f"--distributed={value}: expected auto or HOST:PORT,COUNT,ID.")
        options = {
            "coordinator_address": parts[0],
            "num_processes": int(parts[1]),
            "process_id": int(parts[2]),
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"--distributed={value}: {str(error).splitlines()[0]}") from error


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0

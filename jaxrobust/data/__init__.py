"""Data: sources, label noise, long tails, splits, augmentation and batches.

Modules are imported one by one, so that using one costs only what it needs:

- `sources`: `load(name, ...)` reads a data set into memory, or makes it readable by index.
- `label_noise`, `long_tail`: how labels are made wrong and classes unequally frequent.
- `prepare`: source -> labels file -> imbalance -> noise -> disjoint parts, from one seed.
- `manifest`: what was done, saved so that it can be checked and replayed.
"""

from jaxrobust import files as files  # its place before other packages used it

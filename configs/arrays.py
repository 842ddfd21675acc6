"""Your own features or embeddings: an .npz file with x [N, D] and labels y [N].

    python -m jaxrobust.main --config=arrays --config.data.path=embeddings.npz

Nothing is known or asked about how many labels are wrong, nothing is planted, and no example is
held out: each is judged by models that have not seen it. Writes label_issues.csv and report.html,
and a classifier that --mode=predict uses. Measured defaults: docs/own_data.md.

An array that names the group of each example (video, patient): --config.data.group_column=NAME.
"""

from jaxrobust.config import default_config


def get_config():
    config = default_config()
    config.data.name = "npz"
    config.data.test_fraction = 0.0
    config.data.validation.fraction = 0.0
    config.method.name = "blend"
    return config

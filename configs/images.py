"""Your own images: a folder with a sub-folder per class, or a CSV file of paths and labels.

    python -m jaxrobust.main --config=images --config.data.path=photos

Nothing is known or asked about how many labels are wrong, nothing is planted, and no example is
held out: each is judged by models that have not seen it. Writes label_issues.csv and report.html,
and a classifier that --mode=predict uses. Measured defaults: docs/own_data.md.

Images that cannot be read are an error that names the setting which skips them.
"""

from jaxrobust.config import default_config


def get_config():
    config = default_config()
    config.data.name = "folder"
    config.data.test_fraction = 0.0
    config.data.validation.fraction = 0.0
    config.method.name = "blend"
    return config

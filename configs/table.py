"""Your own table: a CSV file with mixed columns and missing values, one of them the label.

    python -m jaxrobust.main --config=table --config.data.path=patients.csv

Nothing is known or asked about how many labels are wrong, nothing is planted, and no example is
held out: each is judged by models that have not seen it. Writes label_issues.csv and report.html,
and a classifier that --mode=predict uses. Measured defaults: docs/own_data.md.

Name the column of labels if it is not called label, class or target, nor the last:
--config.data.label_column=diagnosis; a column of groups (patients) that no fold may part:
--config.data.group_column=patient.
"""

from jaxrobust.config import default_config


def get_config():
    config = default_config()
    config.data.name = "csv"
    config.data.test_fraction = 0.0
    config.data.validation.fraction = 0.0
    config.method.name = "blend"
    return config

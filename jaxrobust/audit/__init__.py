"""The audit: which labels are wrong, from whatever evidence there is; tables and a report of it.

`find_label_issues` needs nothing but NumPy and works on anyone's predictions, loss curves or
weights; the trainer calls it at the end of every run.
"""

from jaxrobust.audit.issues import LabelIssues, find_label_issues
from jaxrobust.audit.recorder import Recorder

__all__ = ["LabelIssues", "Recorder", "find_label_issues"]

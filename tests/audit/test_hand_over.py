"""Label issues handed over to Label Studio and FiftyOne: their documented formats."""

import csv
import json
import xml.etree.ElementTree as ET

import jsonschema
import numpy as np
import pytest

from jaxrobust.audit import export, find_label_issues
from jaxrobust.errors import UserError

NAMES = ("ant & bee", 'the "cat"', "dog")
# The part of Label Studio's task format that an import with predictions needs
# (labelstud.io/guide/predictions and /guide/task_format).
TASKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "object"},
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["result"],
                    "properties": {
                        "model_version": {"type": "string"},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "result": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["from_name", "to_name", "type", "value"],
                                "properties": {
                                    "type": {"const": "choices"},
                                    "value": {
                                        "type": "object",
                                        "required": ["choices"],
                                        "properties": {
                                            "choices": {
                                                "type": "array",
                                                "items": {"type": "string"},
                                            }
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def made(paths=True):
    true = np.arange(60) % 3
    given = np.where(np.arange(60) < 6, (true + 1) % 3, true)
    names = [f"{i}.png" for i in range(60)] if paths else None
    return find_label_issues(
        given, probabilities=0.8 * np.eye(3)[true] + 0.2 / 3, class_names=NAMES, paths=names
    )


@pytest.mark.parametrize("paths", [True, False])
def test_label_studio_gets_the_flagged_with_the_suggestion_as_prediction(tmp_path, paths):
    issues = made(paths)
    file = export.write_label_studio(issues, tmp_path / "tasks.json", root="s3://bucket/")
    tasks = json.loads(file.read_text())
    jsonschema.validate(tasks, TASKS)
    assert len(tasks) == issues.num_issues == 6
    view = ET.fromstring((tmp_path / "tasks.xml").read_text())
    tag, item = view.find("Choices"), view[0]
    assert [c.get("value") for c in tag] == list(NAMES) and tag.get("toName") == item.get("name")
    for task in tasks:
        [prediction] = task["predictions"]
        [result] = prediction["result"]
        i = task["data"]["index"]
        assert (result["from_name"], result["to_name"]) == (tag.get("name"), item.get("name"))
        assert result["value"]["choices"] == [NAMES[i % 3]]  # the true class
        assert item.get("value").strip("$") in task["data"]
        if paths:
            assert task["data"]["image"] == f"s3://bucket/{i}.png"


def test_label_studios_own_interface_takes_configuration_and_tasks():
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    issues = made()
    view = interface.LabelInterface(export.label_studio_config(issues))
    for task in export.label_studio_tasks(issues):
        assert view.validate_task({"data": task["data"]})
        assert all(map(view.validate_prediction, task["predictions"]))


def test_fiftyone_gets_a_field_per_sample_for_every_example(tmp_path):
    issues = made()
    with export.write_fiftyone(issues, tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == export.FIFTYONE_FIELDS and len(rows) == 60
    assert [r["label_rank"] for r in rows] == [str(i + 1) for i in range(60)]
    flagged = {r["filepath"] for r in rows if r["is_label_issue"] == "True"}
    assert flagged == {f"{i}.png" for i in range(6)}


def test_what_cannot_be_handed_over_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no paths"):
        export.write_fiftyone(made(paths=False), tmp_path / "f.csv")
    with pytest.raises(UserError, match=".json file"):
        export.write_label_studio(made(), tmp_path / "f.csv")
    with pytest.raises(UserError, match="no folder"):
        export.write_label_studio(made(), tmp_path / "none" / "f.json")

"""Our files in other programs' readers and writers: datumaro (CVAT), pycocotools (COCO).

They lie in a folder of their own (`make test-labelstudio`), or where ``MADBAL_READERS`` says: the
Python that has them.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runs.hand_made import CLASSES, picture, take, written

PYTHON = Path(os.environ.get("MADBAL_READERS", ".readers/bin/python"))

CVAT = """
import json, sys
import datumaro

data = datumaro.Dataset.import_from(sys.argv[1], "cvat")
(item,) = data
print(json.dumps({m.attributes["query_id"]: [list(m.points), m.attributes["class"]]
                  for m in item.annotations}))
words = json.loads(sys.argv[3])
for mark in item.annotations:
    mark.attributes["class"] = words[mark.attributes["query_id"]]
data.export(sys.argv[2], "cvat", save_media=False)
"""

COCO = """
import json, sys
from pycocotools.coco import COCO

sys.stdout, out = sys.stderr, sys.stdout
data = COCO(sys.argv[1])
found = {data.loadCats(one["category_id"])[0]["name"]: [one["keypoints"], one["area"]]
         for one in data.loadAnns(data.getAnnIds(imgIds=[1]))}
print(json.dumps([found, len(data.getAnnIds(catIds=data.getCatIds(catNms=["__undefined__"])))]),
      file=out)
"""

pytestmark = pytest.mark.readers


def told(program, *words):
    """Return what a program of the other Python prints, which is JSON."""
    if not PYTHON.is_file():
        pytest.skip(f"datumaro and pycocotools are not installed ({PYTHON}): make test-labelstudio")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(PYTHON.absolute()), "-W", "ignore", "-c", program, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_datumaro_reads_what_goes_to_cvat_and_we_read_what_it_writes(asked, tmp_path):
    folder = tmp_path / "cvat"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "=1+1.png").write_bytes(picture())
    written(asked, folder / "annotations.xml", "cvat")
    (folder / "annotations.labels.json").unlink()
    words = dict(
        zip([f"q{i}" for i in range(6)], [*CLASSES, "void", "skip", "dragon"], strict=True)
    )
    found = told(CVAT, folder, tmp_path / "back", json.dumps(words))
    assert found == {f"q{i}": [[3.5, 2 * i + 0.5], "__undefined__"] for i in range(6)}
    (back,) = (tmp_path / "back").rglob("*.xml")
    report = take(asked, back, "cvat")
    assert report.taken == 5
    (refusal,) = report.refused
    assert "got class 'dragon'" in str(refusal)
    states = asked.states()
    assert [states[f"q{i}"].settled.class_name for i in range(3)] == list(CLASSES)
    assert [states[f"q{i}"].settled.status for i in (3, 4)] == ["void", "skipped"]


def test_pycocotools_reads_what_goes_out_as_coco(asked, tmp_path):
    found, waiting = told(COCO, written(asked, tmp_path / "ask.json", "coco"))
    assert found == {"__undefined__": [[3.5, 10.5, 2], 1]}
    assert waiting == 6

"""A folder of pictures without masks, and people who answer as hidden masks say."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import madbal_ray
from madbal_ray.config.data import DataConfig
from madbal_ray.data.synthetic import open_dataset
from madbal_ray.errors import AnswersPending
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.state.storage import Folder
from tests.conftest import frozen_config


def picture_folder(folder, *, num_images=6, splits=False):
    """Write images and classes.yaml; return (folder, image_id -> hidden mask, class names)."""
    hidden = folder / "hidden"
    config = DataConfig(
        synthetic={"num_train": num_images, "num_val": 4, "height": 48, "width": 64}
    )
    dataset = open_dataset(config, Folder(hidden))
    root, masks = folder / "pictures", {}
    for record in dataset.records:
        if record.split != "train" and not splits:
            continue
        name = f"{record.split}-{Path(record.image_uri).name}"
        name = f"images/{record.split}/{name}" if splits else f"images/{name}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((hidden / record.image_uri).read_bytes())
        masks[name] = np.asarray(Image.open(hidden / record.mask_uri))
    listed = [{"name": name} for name in dataset.class_names]
    listed[0]["color"] = [70, 130, 180]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": listed}))
    return root, masks, dataset.class_names


def people_config(root, **changes):
    """The tiny frozen run on a folder of pictures, answered by people."""
    return frozen_config(
        name="people", oracle="people", data={"name": "folder", "root": str(root)}, **changes
    )


def waiting_run(folder):
    """Return a run of one round that waits for 30 answers, hidden masks and class names."""
    root, masks, names = picture_folder(folder)
    with pytest.raises(AnswersPending):
        madbal_ray.run(people_config(root, num_rounds=1), run_dir=folder / "run", engine="local")
    return folder / "run", masks, names


def truth(query, masks, names):
    """Return status and class of a query on the original image."""
    value = int(masks[query.image_id][query.image_y, query.image_x])
    return ("labelled", names[value]) if value < len(names) else ("void", None)


def answer_waiting(run_dir, masks, names, *, by="ada", most=None, milliseconds=2000):
    """Answer what waits as the hidden masks say; return how many queries that were."""
    with AnswerStore.open(str(Path(run_dir) / "answers.sqlite")) as store:
        queries = store.queries()  # before the states: more may be posted in between
        states = store.states()
        waiting = [query for query in queries if states[query.query_id].settled is None][:most]
        store.append(
            [
                NewAnswer(
                    query_id=query.query_id,
                    annotator=by,
                    status=status,
                    class_name=class_name,
                    milliseconds=milliseconds,
                    source="test",
                )
                for query in waiting
                for status, class_name in [truth(query, masks, names)]
            ]
        )
    return len(waiting)

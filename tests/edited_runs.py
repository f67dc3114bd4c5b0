"""Copies of finished runs whose files may be changed, with or without mending the hashes."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from madbal_ray.loop.verify import verify_run
from madbal_ray.state import tables
from madbal_ray.state.marker import Marker
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import MARKER_NAME


class Copy:
    """A copy of a finished run and its pool, whose files may be changed."""

    def __init__(self, original, folder):
        shutil.copytree(Path(original.folder.uri).parent, folder)
        self.path = folder / Path(original.folder.uri).name

    def verify(self, **options):
        return list(verify_run(RunDir(self.path), **options))

    def pointer(self, stage, round_index):
        name = f"pool/{stage}.json"
        if round_index is not None:
            name = f"rounds/{round_index:03d}/{stage}/_CURRENT.json"
        return self.path / name

    def folder(self, stage, round_index):
        """Return a stage's folder: pointers are relative to the run's."""
        pointer = json.loads(self.pointer(stage, round_index).read_text())
        return Path(os.path.normpath(self.path / pointer["folder"]))

    def change_marker(self, stage, round_index, /, **values):
        """Change a marker, and the pointer that names its digest."""
        path = self.folder(stage, round_index) / MARKER_NAME
        content = json.loads(path.read_text()) | values
        path.write_text(json.dumps(content))
        pointer = self.pointer(stage, round_index)
        digest = Marker.from_json(path.read_bytes()).digest
        pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"digest": digest}))

    def change_table(self, stage, round_index, table, change, *, shard=0):
        """Let a function change the rows of a table's shard, and mend its marker."""
        folder, name = self.folder(stage, round_index), f"{table}/{shard:05d}.parquet"
        rows = pq.read_table(folder / name).to_pylist()
        changed = change(rows) or rows
        marker = json.loads((folder / MARKER_NAME).read_text())
        data = tables.encode(table, tables.from_rows(table, changed), key=marker["key"])
        (folder / name).write_bytes(data)
        for record in marker["files"]:
            if record["path"] == name:
                record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                record["rows"] = len(changed)
        self.change_marker(stage, round_index, files=marker["files"])

    def change_file(self, stage, round_index, name, change):
        """Let a function change the bytes of a file, and mend its marker."""
        folder = self.folder(stage, round_index)
        data = change((folder / name).read_bytes())
        (folder / name).write_bytes(data)
        marker = json.loads((folder / MARKER_NAME).read_text())
        for record in marker["files"]:
            if record["path"] == name:
                record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        self.change_marker(stage, round_index, files=marker["files"])

    def change_config(self, section, **values):
        path = self.path / "config.json"
        node = content = json.loads(path.read_text())
        for part in filter(None, section.split(".")):
            node = node[part]
        node.update(values)
        path.write_text(json.dumps(content))

"""A run of a commit before stages had revisions: it opens and verifies, and is not carried on."""

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import yaml

import madbal_ray
from madbal_ray import api
from madbal_ray.errors import ConfigError
from tests.conftest import tiny_config

ROOT = Path(__file__).parents[2]
OLDER = "3aa26973f76e"
"""The last commit with loop/ as one room; its runs hold `train.select` and no revisions."""


@pytest.fixture(scope="module")
def older_run(tmp_path_factory):
    """A finished run that the older commit itself made."""
    archive = subprocess.run(
        ["git", "archive", OLDER, "madbal_ray"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"commit {OLDER} is not in this checkout: {archive.stderr.decode()[:100]}")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder / "code", filter="data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_config()))
    code = f"import sys; sys.path.insert(0, {str(folder / 'code')!r}); import madbal_ray as m; "
    code += f"assert m.__file__.startswith({str(folder)!r}); "
    code += f"m.run({str(folder / 'tiny.yaml')!r}, run_dir={str(folder / 'run')!r}, engine='local')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=os.environ)
    return folder / "run"


def test_it_opens_reports_and_verifies(older_run, tmp_path):
    run = madbal_ray.open_run(older_run)
    assert run.config.train.keep_epoch == "last"
    assert len(run.metrics()) == 2
    assert run.table("labels")["class_map"].null_count == run.table("labels").num_rows == 60
    lines = list(api.verify(older_run))
    assert lines[0] == "files: 54 match their markers"
    assert "round 1: selection replayed from the stored scores" in lines
    _, written = api.report([older_run], out=tmp_path / "report", warn=lambda line: None)
    assert written[0].exists()
    assert api.status(older_run).is_finished


def test_it_is_not_carried_on_and_the_sentence_names_the_stages(older_run):
    config = madbal_ray.open_run(older_run).config.model_copy(update={"num_rounds": 3})
    with pytest.raises(ConfigError) as caught:
        madbal_ray.run(config, run_dir=older_run, engine="local")
    text = str(caught.value)
    assert text.count("\n") == 0
    assert "superpixels (revision 0, now 3)" in text
    assert "phase2 (revision 0, now 1)" in text
    assert "it still opens, reports and verifies" in text
    assert madbal_ray.open_run(older_run).config.num_rounds == 2  # nothing was changed

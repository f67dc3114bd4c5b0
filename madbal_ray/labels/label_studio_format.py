"""Queries as tasks of Label Studio, raw JSON: crops to classify, or whole images with points.

``label-studio`` writes a task a query, a crop inside it; ``label-studio-keypoints`` a task an
image, which Label Studio serves from its local storage, points in percent. Beside ``ask.json``
lies ``ask.config.xml``, the labeling interface. Answers come back as the export *JSON*; both forms
are read by either name.
"""

from __future__ import annotations

from madbal_ray.labels.label_studio_answers import read
from madbal_ray.labels.label_studio_tasks import write_crops, write_keypoints
from madbal_ray.labels.request_format import RequestFormat

LABEL_STUDIO = RequestFormat(name="label-studio", write=write_crops, read=read)
LABEL_STUDIO_KEYPOINTS = RequestFormat(
    name="label-studio-keypoints", write=write_keypoints, read=read
)

"""The declared tables: every hand-over between stages, with keys, units and version.

A table is written as one Parquet file per shard (and round). Its schema metadata holds
the table's name, `SCHEMA_VERSION` and the key of the stage that wrote it. Older files
get null columns; newer ones are refused. ``docs/data-formats.md`` is this page in prose.

Longer than our usual 300 lines on purpose: one place for every table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from madbal_ray.errors import IntegrityError

SCHEMA_VERSION = 2

HALF_WIDTH = 0.02
"""Of the interval that `points_needed` of table `point_metrics` speaks of."""

_string, _int32, _int64, _float32, _float64 = (
    pa.string(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
)


def _fields(**columns: pa.DataType | tuple[pa.DataType, str]) -> pa.Schema:
    """Build a schema; a tuple gives the unit or meaning beside the type."""
    fields = []
    for name, spec in columns.items():
        dtype, unit = spec if isinstance(spec, tuple) else (spec, "")
        fields.append(pa.field(name, dtype, metadata={"unit": unit} if unit else None))
    return pa.schema(fields)


SCHEMAS: Mapping[str, pa.Schema] = {
    "images": _fields(
        image_id=(_string, "POSIX path relative to the data root"),
        shard_id=_int32,
        image_uri=(_string, "relative to the data root"),
        mask_uri=(_string, "relative to the data root; null: no ground truth"),
        split=_string,
        num_bytes=(_int64, "size of the image file when the pool was indexed"),
        height=(_int32, "pixels, original after EXIF"),
        width=(_int32, "pixels, original after EXIF"),
        input_height=(_int32, "pixels"),
        input_width=(_int32, "pixels"),
        work_height=(_int32, "pixels"),
        work_width=(_int32, "pixels"),
        image_sha256=(_string, "of the encoded image; null before it was inspected"),
        mask_sha256=(_string, "of the encoded mask; null: not inspected, or no mask"),
    ),
    "superpixels": _fields(
        image_id=_string,
        num_superpixels=_int32,
        label_map=(pa.binary(), "zlib-compressed little-endian uint16, work_height x work_width"),
    ),
    "superpixel_features": _fields(
        image_id=_string,
        superpixel_id=_int32,
        feature=(pa.list_(pa.float16()), "length D, the same for every row"),
    ),
    "backbone_features": _fields(
        image_id=_string,
        shape=(pa.list_(_int32), "height, width, channels of each tap, shallow first"),
        taps=(pa.large_binary(), "little-endian float16, each tap height x width x channels"),
        boundary=(pa.binary(), "delta, eight pixels a byte, work_height x work_width"),
    ),
    "tap_sums": _fields(
        shard_id=_int32,
        num_images=_int32,
        tap=(_int32, "from 0, shallow first"),
        count=(_int64, "cells of the tap"),
        total=(pa.list_(_float64), "of each channel"),
        total_square=(pa.list_(_float64), "of each channel"),
    ),
    "tap_statistics": _fields(
        tap=(_int32, "from 0, shallow first"),
        mean=(pa.list_(_float64), "of each channel"),
        deviation=(pa.list_(_float64), "of each channel"),
    ),
    "point_features": _fields(
        round=_int32,
        image_id=_string,
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        is_boundary=(pa.bool_(), "delta"),
        features=(
            pa.binary(),
            "little-endian float16: the taps at the point, one after another; mirrored ones follow",
        ),
    ),
    "superpixel_clusters": _fields(image_id=_string, superpixel_id=_int32, cluster_id=_int32),
    "centroids": _fields(cluster_id=_int32, centroid=pa.list_(_float32)),
    "kmeans_inertia": _fields(
        shard_id=_int32,
        num_superpixels=_int64,
        inertia=(_float64, "sum of squared distances to the nearest centroids"),
    ),
    "superpixel_scores": _fields(
        image_id=_string,
        superpixel_id=_int32,
        cluster_id=_int32,
        num_pixels=(_int32, "unasked pixels"),
        mean_score=(_float64, "mean u(x) over unasked pixels (Eq. 4); 0 where there are none"),
        dominant_class=(_int32, "-1: no unasked pixel"),
        top_y=(pa.list_(_int32), "working grid; -1: missing"),
        top_x=(pa.list_(_int32), "working grid; -1: missing"),
        top_score=(pa.list_(_float32), "-inf: missing"),
    ),
    "pixel_candidates": _fields(
        image_id=_string,
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        superpixel_id=_int32,
        cluster_id=_int32,
        score=_float32,
        predicted_class=_int32,
        rank=(_int32, "order of choice within the image, from 0"),
    ),
    "thumbnails": _fields(
        image_id=_string,
        pixels=(pa.binary(), "64 x 64 x 3 uint8, row-major: the whole image, however proportioned"),
    ),
    "image_scores": _fields(
        image_id=_string,
        score=(_float64, "mean pixel score of the image; familiarity: 1 - P(it is labelled)"),
        feature=(
            pa.list_(_float32),
            "deepest features, averaged over the image; familiarity: its code",
        ),
    ),
    "cluster_statistics": _fields(
        shard_id=_int32,
        num_clusters=_int32,
        num_classes=_int32,
        count=(pa.list_(_int64), "K x C, row-major"),
        score_sum=(pa.list_(_int64), "K x C, row-major, sum of round(mean_score * 2**32)"),
    ),
    "cluster_budgets": _fields(
        round=_int32,
        cluster_id=_int32,
        num_superpixels=_int64,
        score=(_float64, "u(cl), Eq. 7"),
        share=(_float64, "of the sum of scores"),
        budget=(_int64, "pixels in each image (scope image) or in the pool (scope pool)"),
        class_share=(pa.list_(_float64), "P_k(c), Eq. 5"),
    ),
    "score_digits": _fields(
        shard_id=_int32,
        lap=(_int32, "which pixel of its superpixel, from 0"),
        cluster_id=_int32,
        digit=(_int32, "16 bits of u(s) as float64; which ones, the pass says"),
        count=(_int64, "pixels offered"),
    ),
    "pool_cuts": _fields(
        round=_int32,
        lap=(_int32, "which pixel of its superpixel, from 0"),
        cluster_id=_int32,
        take=(_int64, "pixels asked for"),
        lowest=(_int64, "bits of the least u(s) that may be taken, as float64"),
        inside=(_int64, "offers that share the digits of `lowest` known so far"),
        left=(_int64, "how many of those are taken; all above are"),
        tie_shard=(_int32, "shard in which equal scores run out of budget; -1: none do"),
        ties=(_int64, "how many of that shard's equal scores are taken"),
    ),
    "queries": _fields(
        round=_int32,
        image_id=_string,
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        unit=(_string, "pixel | superpixel | image"),
        superpixel_id=_int32,
        cluster_id=_int32,
        score=(_float32, "u(x); null in round 0"),
        rank=(_int32, "order of the choice within its image, from 0"),
    ),
    "labels": _fields(
        round=_int32,
        image_id=_string,
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        unit=_string,
        superpixel_id=_int32,
        num_pixels=(
            _int32,
            "working-grid pixels that this answer covers; 0 where an earlier row counts them",
        ),
        image_y=(_int32, "original grid"),
        image_x=(_int32, "original grid"),
        class_id=(_int32, "null unless status is labelled, and for a whole image"),
        class_map=(
            pa.binary(),
            "unit image: zlib-compressed uint8, work_height x work_width, 255 void; else null",
        ),
        status=(_string, "labelled | void | skipped | unsure | waiting"),
        oracle=(_string, "name of what answered: oracle.kind"),
        annotator=(_string, "who answered; null: nobody in particular"),
        seconds=(_float32, "that the answer took; null: not known"),
        revision=(_int32, "highest wins"),
    ),
    "answers": _fields(
        round=(_int32, "that asked; rows of earlier rounds are answers that came later"),
        image_id=_string,
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        unit=_string,
        query_id=_string,
        class_id=(_int32, "null unless status is labelled"),
        status=(_string, "labelled | void | skipped | unsure | waiting"),
        annotator=(_string, "who said so; several: joined by a comma"),
        seconds=(_float32, "that all answers to the query took, so far; null: not known"),
        revision=(_int32, "answers to the query, so far"),
    ),
    "class_loss_thresholds": _fields(
        round=_int32,
        class_id=_int32,
        num_labels=_int64,
        threshold=(_float64, "tau_c: mean phase I loss, nats; null without labels"),
    ),
    "confusion": _fields(
        round=_int32,
        split=_string,
        selection=(_string, "epoch that was measured: last | best"),
        epoch=(_int32, "of phase I, from 1"),
        class_id=(_int32, "true class"),
        counts=(pa.list_(_int64), "pixels by predicted class, evaluation grid"),
        num_images=_int64,
    ),
    "predictions": _fields(
        image_id=_string,
        height=(_int32, "pixels, original after EXIF"),
        width=(_int32, "pixels, original after EXIF"),
        mean_confidence=(_float64, "mean over the pixels of the largest class probability"),
        class_pixels=(pa.list_(_int64), "predicted pixels of each class"),
    ),
    "metrics": _fields(
        round=_int32,
        split=_string,
        selection=(_string, "epoch that was measured: last | best (train.keep_epoch)"),
        epoch=(_int32, "of phase I, from 1"),
        num_labels=(_int64, "asked pixels, void ones included, up to this round"),
        num_regions=(_int64, "answers: pixels, superpixels or images"),
        num_clicks=(_int64, "one a pixel or superpixel; as many as pixels for a whole image"),
        num_void=(_int64, "clicks that were answered void"),
        labels_per_image=(_float64, "asked pixels per pool image"),
        clicks_per_image=(_float64, "clicks per pool image"),
        percent_labelled=(_float64, "of the pool's working-grid pixels"),
        miou=(_float64, "0..1, classes absent from prediction and truth excluded"),
        pixel_accuracy=(_float64, "0..1"),
        class_iou=(pa.list_(_float64), "0..1; null: absent"),
        num_images=_int64,
    ),
    "point_metrics": _fields(
        round=_int32,
        split=_string,
        selection=(_string, "epoch that was measured: last | best (train.keep_epoch)"),
        measure=(_string, "miou | pixel_accuracy | class_iou"),
        class_id=(_int32, "of class_iou, else null"),
        value=(_float64, "0..1, estimated from points; null: no point says anything"),
        low=(_float64, "lower end of the 95 % interval; null: the points give none"),
        high=(_float64, "upper end of the 95 % interval"),
        num_points=(_int64, "answered with a class; of class_iou: of that class"),
        num_images=(_int64, "that hold them"),
        points_needed=(_int64, f"about how many would narrow the interval to +- {HALF_WIDTH}"),
    ),
    "timings": _fields(
        round=(_int32, "null: pool preparation"),
        stage=_string,
        seconds=_float64,
        images_per_second=_float64,
        peak_memory=(_int64, "bytes, largest process"),
    ),
    "quarantine": _fields(
        image_id=_string,
        uri=_string,
        reason=_string,
        sha256=(_string, "of the encoded image; null: it could not be read"),
    ),
    "pixel_requests": _fields(
        query_id=(_string, "identifies run, round and pixel"),
        image_id=_string,
        image_uri=(_string, "relative to the pool's root"),
        image_height=(_int32, "pixels, original"),
        image_width=(_int32, "pixels, original"),
        image_y=(_int32, "original grid"),
        image_x=(_int32, "original grid"),
        y=(_int32, "working grid"),
        x=(_int32, "working grid"),
        unit=(_string, "pixel | superpixel | image"),
        rank=(_int32, "order of the choice within its image, from 0"),
        score=(_float32, "u(x)"),
        superpixel_id=_int32,
        cluster_id=_int32,
    ),
}

SORT_KEYS: Mapping[str, tuple[str, ...]] = {
    "images": ("image_id",),
    "superpixels": ("image_id",),
    "superpixel_features": ("image_id", "superpixel_id"),
    "backbone_features": ("image_id",),
    "tap_sums": ("shard_id", "tap"),
    "tap_statistics": ("tap",),
    "point_features": ("round", "image_id", "y", "x"),
    "superpixel_clusters": ("image_id", "superpixel_id"),
    "centroids": ("cluster_id",),
    "kmeans_inertia": ("shard_id",),
    "superpixel_scores": ("image_id", "superpixel_id"),
    "pixel_candidates": ("image_id", "rank"),
    "thumbnails": ("image_id",),
    "image_scores": ("image_id",),
    "cluster_statistics": ("shard_id",),
    "cluster_budgets": ("round", "cluster_id"),
    "score_digits": ("shard_id", "lap", "cluster_id", "digit"),
    "pool_cuts": ("round", "lap", "cluster_id"),
    "queries": ("round", "image_id", "rank"),
    "labels": ("round", "image_id", "y", "x"),
    "answers": ("round", "image_id", "y", "x"),
    "class_loss_thresholds": ("round", "class_id"),
    "confusion": ("round", "split", "selection", "class_id"),
    "predictions": ("image_id",),
    "metrics": ("round", "split", "selection"),
    "point_metrics": ("round", "split", "selection", "measure", "class_id"),
    "timings": (),
    "quarantine": ("image_id",),
    "pixel_requests": ("image_id", "rank"),
}


ROW_BY_ROW = frozenset({"backbone_features"})
"""Tables of which one row is read at a time: a row group each, as fast to read as raw bytes."""


def schema(name: str) -> pa.Schema:
    """Return the schema of a table; KeyError lists the tables that exist."""
    if name not in SCHEMAS:
        raise KeyError(f"no table {name!r}; tables: {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table from dictionaries; a missing column is null."""
    return pa.Table.from_pylist(list(rows), schema=schema(name))


def from_columns(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """Build a table from columns (arrays or lists) that name every field of the schema."""
    wanted = schema(name)
    return pa.Table.from_arrays(
        [_as_array(columns[field.name], field.type) for field in wanted], schema=wanted
    )


def _as_array(values: Any, dtype: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values if values.type == dtype else values.cast(dtype)
    if pa.types.is_list(dtype) and getattr(values, "ndim", 1) == 2:
        rows, width = values.shape
        offsets = pa.array(range(0, rows * width + 1, width) if width else [0] * (rows + 1), _int32)
        return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), dtype.value_type))
    return pa.array(values, dtype)


def empty(name: str) -> pa.Table:
    """Return a table without rows."""
    return schema(name).empty_table()


def concat(name: str, parts: Iterable[pa.Table]) -> pa.Table:
    """Join tables of one schema; none at all gives an empty table."""
    given = list(parts)
    return pa.concat_tables(given) if given else empty(name)


def in_order(name: str, table: pa.Table) -> pa.Table:
    """Return a table as it is stored: its schema's columns, sorted by its key."""
    wanted = schema(name)
    table = table.select(wanted.names).cast(wanted)
    if SORT_KEYS[name] and table.num_rows > 1:
        table = table.sort_by([(column, "ascending") for column in SORT_KEYS[name]])
    return table


def encode(name: str, table: pa.Table, *, key: str) -> bytes:
    """Return the Parquet bytes of a table, sorted by its key.

    The same rows and `key` give the same bytes, whoever writes them.
    """
    table = in_order(name, table)
    metadata = {
        "madbal.table": name,
        "madbal.schema_version": str(SCHEMA_VERSION),
        "madbal.key": key,
    }
    layout: dict[str, Any] = {"compression": "zstd"}
    if name in ROW_BY_ROW:
        layout = {
            "compression": "none",
            "row_group_size": 1,
            "use_dictionary": False,
            "write_statistics": False,
        }
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, store_schema=True, **layout)
    return sink.getvalue().to_pybytes()


def footer_key(source: Any) -> str | None:
    """Return the key in a Parquet footer, None where the file is torn or not ours."""
    try:
        metadata = pq.ParquetFile(source).schema_arrow.metadata or {}
    except (pa.ArrowException, OSError):
        return None
    key = metadata.get(b"madbal.key")
    return key.decode() if key else None


def decode(name: str, source: Any, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table back, with null columns for what an older file lacks.

    Raises:
        IntegrityError: the file is of a newer schema version or of another table.
    """
    handle = pq.ParquetFile(source)
    metadata = handle.schema_arrow.metadata or {}
    written = metadata.get(b"madbal.table", b"").decode()
    if written != name:
        raise IntegrityError(
            f"expected a file of table {name!r}, got {written or 'a foreign file'!r}"
        )
    version = int(metadata.get(b"madbal.schema_version", b"0"))
    if version > SCHEMA_VERSION:
        raise IntegrityError(
            f"table {name!r} has schema version {version}, this program reads up to "
            f"{SCHEMA_VERSION}; install a newer madbal_ray"
        )
    wanted = schema(name)
    names = list(columns) if columns is not None else wanted.names
    if not handle.metadata.num_rows:  # Parquet gives columns without chunks, which trip Arrow
        return empty(name).select(names)
    present = [column for column in names if column in handle.schema_arrow.names]
    table = handle.read(columns=present).replace_schema_metadata(None)
    arrays = [
        table.column(column).cast(wanted.field(column).type)
        if column in present
        else pa.nulls(table.num_rows, wanted.field(column).type)
        for column in names
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema([wanted.field(n) for n in names]))


def count_rows(source: Any) -> int:
    """Return the rows of a Parquet file, from its footer."""
    return pq.ParquetFile(source).metadata.num_rows

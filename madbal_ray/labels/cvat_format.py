"""Queries as *CVAT for images 1.1*: one label ``query``, its class an attribute that is chosen.

Beside ``ask.xml`` lies ``ask.labels.json``, the labels for a new task (its tab *Raw*). CVAT gives
answers back as XML or as a zip with ``annotations.xml``; both are read.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from madbal_ray.errors import DataError
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.exchange import Words, by_image, finite, image_said, shown, words_for
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook, RequestFormat
from madbal_ray.state.storage import Folder

LABEL = "query"
MOST_TAG = 40
"""Characters of a foreign element's name in a message."""

MEMBER = "annotations.xml"
MOST_BYTES = 2**30
"""Of the XML, unpacked."""

BROKEN = (ValueError, EOFError, OSError, RuntimeError)
"""What a damaged, encrypted or unknown kind of zip raises besides its own errors."""

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, escaped or not."""


def write(book: RequestBook, out: Path) -> None:
    """Write the points, and beside them the labels that a task for them needs."""
    words = words_for(book.class_names)
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    images = by_image(book.queries)
    _write_meta(root, words, len(images))
    for frame, (uri, queries) in enumerate(images):
        height, width = book.image_sizes[queries[0].image_id]
        size = {"width": str(width), "height": str(height)}
        image = SubElement(root, "image", {"id": str(frame), "name": _plain(uri), **size})
        for query in queries:
            place = f"{query.image_x + 0.5:.2f},{query.image_y + 0.5:.2f}"
            drawn = {"label": LABEL, "source": "file", "occluded": "0", "points": place}
            points = SubElement(image, "points", {**drawn, "z_order": "0"})
            for name, text in (("query_id", query.query_id), ("class", words.undefined)):
                SubElement(points, "attribute", {"name": name}).text = _plain(text)
    ElementTree.indent(root)
    folder = Folder(out.absolute().parent)
    labels = json.dumps(_labels(words), ensure_ascii=False, indent=2)
    folder.write(f"{out.stem}.labels.json", labels.encode())
    folder.write(out.name, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _labels(words: Words) -> list[dict]:
    choice = {"mutable": True, "input_type": "select", "values": list(words.choices)}
    identity = {"mutable": False, "input_type": "text", "values": [""]}
    attributes = [
        {"name": "class", "default_value": words.undefined, **choice},
        {"name": "query_id", "default_value": "", **identity},
    ]
    return [{"name": LABEL, "type": "points", "attributes": attributes}]


def _write_meta(root: Element, words: Words, num_images: int) -> None:
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "size").text = str(num_images)
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for declared in _labels(words):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = declared["name"]
        SubElement(label, "type").text = declared["type"]
        attributes = SubElement(label, "attributes")
        for item in declared["attributes"]:
            attribute = SubElement(attributes, "attribute")
            SubElement(attribute, "name").text = item["name"]
            SubElement(attribute, "mutable").text = str(item["mutable"])
            SubElement(attribute, "input_type").text = item["input_type"]
            SubElement(attribute, "default_value").text = item["default_value"]
            SubElement(attribute, "values").text = "\n".join(map(_plain, item["values"]))


def _plain(text: str) -> str:
    if NO_XML.search(text):
        raise DataError(f"{text!r} holds a character that XML cannot; export as csv, or rename it")
    return text


def read(path: Path, book: RequestBook) -> Iterator[Reply | Refusal]:
    """Yield what every shape says; only points with the label ``query`` are answers."""
    words = words_for(book.class_names)
    known = {query.query_id: query for query in book.queries}
    root = _parse(path, _document(path))
    if root.tag != "annotations":
        raise DataError(
            f"{path}: the document is <{root.tag[:MOST_TAG]}>; expected <annotations>, CVAT for "
            "images 1.1"
        )
    for frame, image in enumerate(child for child in root if child.tag not in ("version", "meta")):
        if image.tag != "image":
            got = f"<{image.tag[:MOST_TAG]}>"
            yield Refusal(f"element {frame + 1}", got, "<image>: export CVAT for images 1.1")
            continue
        name = image.get("name", "")
        for index, shape in enumerate(image, 1):
            where = f"image {frame + 1} ({shown(name)}), shape {index}"
            yield _reply(where, name, shape, words, known)


def _reply(
    where: str, name: str, shape: Element, words: Words, known: dict[str, StoredQuery]
) -> Reply | Refusal:
    label = shape.get("label", "")
    if shape.tag != "points" or label != LABEL:
        got = f"<{shape.tag[:MOST_TAG]}> with label {shown(label)}"
        return Refusal(where, got, f"<points> with label {LABEL!r}")
    attributes: dict[str, str] = {}
    for child in shape:
        key = child.get("name", "")
        if key in attributes:
            return Refusal(where, f"attribute {shown(key)} twice", "once")
        attributes[key] = child.text or ""
    missing = [key for key in ("query_id", "class") if key not in attributes]
    if missing:
        return Refusal(where, f"no attribute {' and no '.join(missing)}", "query_id and class")
    place = _place(shape.get("points", ""))
    if place is None:
        return Refusal(where, f"points {shown(shape.get('points', ''))}", "one point, x,y")
    query_id = attributes["query_id"].strip()
    word = attributes["class"]
    status, class_name = words.meaning(word if word in words.choices else word.strip())
    return Reply(
        where=where,
        query_id=query_id,
        image_id=image_said(known.get(query_id), name),
        x=place[0],
        y=place[1],
        status=status,
        class_name=class_name,
    )


def _place(text: str) -> tuple[float, float] | None:
    found = [finite(part) for part in text.split(",")]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def _document(path: Path) -> bytes:
    """Return the XML of a file or of the zip that it is in."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: more than {MOST_BYTES} bytes; import it in parts")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(MEMBER) as file:
            inside = file.read(MOST_BYTES + 1)
    except KeyError:
        raise DataError(f"{path}: no {MEMBER} in it; export as CVAT for images 1.1") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, *BROKEN) as error:
        raise DataError(f"{path}: a zip that cannot be unpacked ({error}); export again") from None
    if len(inside) > MOST_BYTES:
        raise DataError(f"{path}: {MEMBER} has more than {MOST_BYTES} bytes; import it in parts")
    return inside


class _NoDoctype(ElementTree.TreeBuilder):
    """Without a DTD there are no entities: none to expand without end, none to fetch."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"a document type ({name[:MOST_TAG]}) in it; CVAT writes none")


def _parse(path: Path, data: bytes) -> Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(data)
        return parser.close()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: no XML ({error}); expected CVAT for images 1.1") from None


CVAT = RequestFormat(name="cvat", write=write, read=read)

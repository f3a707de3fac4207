"""Metadata of an exported set in Croissant 1.0, a vocabulary of JSON-LD for machine learning data.

Source: Akhtar et al. 2024, Croissant; the specification of version 1.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.sets.dataset import DistilledSet
from distill.sets.exchange.card import UNKNOWN
from distill.sets.exchange.export_formats import Written
from distill.store.files import digest_file

CROISSANT = "croissant.json"

# Identifiers, not addresses to ask.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_KINDS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".parquet": "application/x-parquet",
    ".py": "text/x-python",
    ".yaml": "application/yaml",
}


def croissant(data: DistilledSet, written: Written, folder: Path, licence: str) -> dict[str, Any]:
    """The JSON-LD of a set that was exported to a folder, without the card and this file.

    Every file has its digest; pictures in folders are one set of files. A table of pictures is
    described column by column, and the classes are listed.

    Args:
        data: the set.
        written: its files.
        folder: where they are.
        licence: an SPDX identifier, or `UNKNOWN`.
    """
    n, c, h, w = data.images.shape
    source = data.manifest["source"]["name"] or "unnamed real images"
    names = data.manifest["class_names"]
    records = [_classes(names)]
    if written.table:
        records.append(_images(written.table))
    stated = {} if licence == UNKNOWN else {"license": licence}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"limbeck-{n}-images",
        "description": f"{n} synthetic images of {h}x{w} pixels and {c} channels that stand for "
        f"the {len(names)} classes of {source}, distilled with Limbeck. README.md says how they "
        "are loaded, what was measured, and whence they come.",
        **stated,
        "version": "1.0.0",
        "citeAs": f"{n} images distilled from {source} with Limbeck, recipe "
        f"{data.manifest['recipe_digest']}",
        "keywords": ["dataset distillation", "image classification"],
        "isBasedOn": source,
        "distribution": _distribution(folder),
        "recordSet": records,
    }


def _distribution(folder: Path) -> list[dict[str, Any]]:
    """A file object for each file, and one file set for all pictures."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [_file(path, folder) for path in files if path.suffix != ".png"]
    pictures = [path for path in files if path.suffix == ".png"]
    if pictures:
        below = pictures[0].relative_to(folder).parts[:-2]
        found.append(
            {
                "@type": "cr:FileSet",
                "@id": "pictures",
                "name": "pictures",
                "description": "a folder for each class",
                "encodingFormat": "image/png",
                "includes": "/".join((*below, "*", "*.png")),
            }
        )
    return found


def _file(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _KINDS.get(path.suffix, "application/octet-stream"),
        "sha256": digest_file(path),
    }


def _classes(names: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "the names of the classes by their numbers",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/number"},
        "field": [
            _field("classes/number", "sc:Integer", "the class in labels"),
            _field("classes/name", "sc:Text", "its name"),
        ],
        "data": [
            {"classes/number": number, "classes/name": name} for number, name in enumerate(names)
        ],
    }


def _images(table: str) -> dict[str, Any]:
    def column(name: str) -> dict[str, Any]:
        return {"fileObject": {"@id": table}, "extract": {"column": name}}

    picture = {**column("image"), "transform": {"jsonPath": "bytes"}}
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "a row for each synthetic image",
        "field": [
            _field("images/image", "sc:ImageObject", "8-bit PNG", source=picture),
            _field(
                "images/label",
                "sc:Integer",
                "its class",
                source=column("label"),
                references={"field": {"@id": "classes/number"}},
            ),
            _field(
                "images/soft_label",
                "sc:Float",
                "a probability for each class",
                source=column("soft_label"),
                repeated=True,
            ),
        ],
    }


def _field(name: str, kind: str, what: str, **more: Any) -> dict[str, Any]:
    known = {"name": name, "description": what, "dataType": kind}
    return {"@type": "cr:Field", "@id": name, **known, **more}

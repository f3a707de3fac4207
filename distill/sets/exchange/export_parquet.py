"""Writer of a set as one Parquet table, whose pictures the Hugging Face hub and `datasets` show."""

from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import Archive
from distill.sets.exchange.export_formats import Written
from distill.sets.exchange.export_pictures import pictures_of

TABLE = "data/train-00000-of-00001.parquet"

# Rows of a group, which is read at once.
_ROWS = 100


def write_parquet(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """One table: PNG pictures, classes and soft labels, in the order of the set.

    The columns' features stand in the schema as the package `datasets` writes them, so that it,
    and the hub, take `image` for pictures and `label` for named classes.

    Raises:
        WorkError: without pyarrow, or for images that are neither gray nor RGB.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise WorkError(
            "the format parquet needs the package pyarrow, which is not installed; install "
            "limbeck[parquet]"
        ) from None
    schema = _schema(pyarrow, data.manifest["class_names"])
    pictures, start = pictures_of(data), 0
    (folder / TABLE).parent.mkdir()
    with (
        (folder / TABLE).open("wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as table,
    ):
        while group := list(islice(pictures, _ROWS)):
            rows = slice(start, start + len(group))
            columns = {
                "image": [{"bytes": _png(picture), "path": None} for picture in group],
                "label": data.hard[rows].tolist(),
                "soft_label": data.labels[rows].float().tolist(),
            }
            table.write_batch(pyarrow.record_batch(columns, schema=schema))
            start += len(group)
    return Written(
        {TABLE: "rows of an 8-bit PNG (image), its class (label) and probabilities (soft_label)"},
        "from datasets import load_dataset\n"
        f'data = load_dataset("parquet", data_files="{TABLE}", split="train")\n'
        'image, label = data[0]["image"], data[0]["label"]',
        table=TABLE,
    )


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _schema(pyarrow: Any, classes: list[str]) -> Any:
    # `datasets` refuses a name that comes twice, as two classes of ImageNet do.
    apart = len(set(classes)) == len(classes)
    names = classes if apart else [f"{label} {name}" for label, name in enumerate(classes)]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
        # What version 4 calls List; it reads this too.
        "soft_label": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
    }
    stated = json.dumps({"info": {"features": features}})
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    soft = pyarrow.list_(pyarrow.float32())
    return pyarrow.schema(
        [("image", image), ("label", pyarrow.int64()), ("soft_label", soft)],
        metadata={"huggingface": stated},
    )

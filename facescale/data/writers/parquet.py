"""Write Parquet files of image rows, as Hugging Face's library reads them (needs the extra ``parquet``)."""

import json
from itertools import islice
from pathlib import Path

from facescale.data.readers.base import Reader, identity_names
from facescale.data.readers.info_file import data_info
from facescale.data.readers.parquet import HUGGINGFACE, INFO_KEY
from facescale.data.writers.base import EncodedImage, Written, encoded_images
from facescale.files import one_line

_GROUP = 64  # rows of a group: one random row costs reading as many
_FILE = 64_000  # rows of a file


def write_parquet(reader: Reader, folder: Path) -> Written:
    """Files train-00000.parquet, ...: columns image (bytes, path) and label, names as those of ClassLabel.

    Raises:
        ValueError: pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            "writing Parquet needs pyarrow; install it with: pip install 'facescale[parquet]'"
        ) from None
    bad: dict[str, str] = {}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.int64()),
        ],
        _metadata(reader),
    )
    images, number = encoded_images(reader, bad), 0
    group = list(islice(images, _GROUP))
    while group:
        path = folder / f"train-{number:05d}.parquet"
        # The images are compressed already; their bytes stay as they are.
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            for _ in range(_FILE // _GROUP):
                if not group:
                    break
                file.write_batch(
                    pyarrow.RecordBatch.from_pylist([_row(reader, one) for one in group], schema)
                )
                group = list(islice(images, _GROUP))
        number += 1
    return Written(len(reader) - len(bad), reader.num_ids, bad)


def _row(reader: Reader, image: EncodedImage) -> dict[str, object]:
    path = one_line(reader.key(image.number)).encode("utf-8", "backslashreplace").decode()
    return {"image": {"bytes": image.data, "path": path}, "label": image.identity}


def _metadata(reader: Reader) -> dict[bytes, bytes]:
    names = [name.encode("utf-8", "backslashreplace").decode() for name in identity_names(reader)]
    label = {"names": names, "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    tables = {HUGGINGFACE: {"info": {"features": features}}, INFO_KEY: data_info(reader)}
    return {key: json.dumps(value).encode() for key, value in tables.items() if value}

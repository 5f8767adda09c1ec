"""The most that is read of files that may come from anywhere, all in one place.

Each limit is far above what real files need and low enough that the largest allowed file is read in seconds.
A file beyond a limit is refused in a sentence that says which file, what it holds, and what to do.
"""

MB = 1 << 20

CONFIG_BYTES = 1 * MB
"""Of a TOML file. The longest config of this project has 4 KB; a list of 10,000 sources has 0.5 MB."""

CONFIG_FILES = 64
"""Read for one config, with all that it extends."""

CONFIG_MISTAKES = 20
"""Mistakes of one config that are told one by one; the rest are counted."""

CARD_BYTES = 16 * MB
"""Of the header of a safetensors file, its card included. A network of 2,000 layers needs 0.2 MB."""

JSON_BYTES = 512 * MB
"""Of a JSON file. The names of 20 million identities take 400 MB."""

LIST_BYTES = 1024 * MB
"""Of a text list (pairs, landmarks, labels). IJB-C's 15.7 million template pairs take 250 MB."""

IMAGE_BYTES = 256 * MB
"""Of one encoded image."""

IMAGE_PIXELS = 64_000_000
"""Of one aligned image: a file of a few kilobytes can claim gigapixels, and 64 megapixels take 192 MB."""

PHOTO_PIXELS = 100_000_000
"""Of one photo from a camera: phones take 50 megapixels."""

VIDEO_FRAMES = 50_000_000
"""Of one video: nine days at 60 a second. Their times take 400 MB."""

JPEG_SCANS = 1000
"""Scans of one JPEG. Progressive encoders write about 10; each one visits every pixel again."""

JPEG_SCANNED_PIXELS = 1_000_000_000
"""Pixels times scans of one JPEG: 64 megapixels in 15 scans, about 2 seconds of decoding."""

BIN_BYTES = 4096 * MB
"""Of a verification .bin. That of 100,000 images has 1 GB."""

PICKLE_BYTES = 64 * MB
"""Of the pickle in a checkpoint (its tensors lie beside it). That of an AdaFace .ckpt has 0.3 MB."""

PICKLE_STEPS = 2_000_000
"""Instructions of one pickle: 3 per image in a .bin of bytes, 25 in one of arrays. Two seconds."""

INDEX_BYTES = 8192 * MB
"""Of a .idx file: 300 million records."""

ONNX_BYTES = 2048 * MB
"""Of an .onnx file, by the limit of its own format."""

ONNX_NODES = 200_000
"""Of an ONNX graph. A network of 2,000 layers has 10,000."""

FOLDER_DEPTH = 64
"""Folders within folders below a data set."""

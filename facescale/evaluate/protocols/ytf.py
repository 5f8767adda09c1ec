"""YouTube Faces (YTF): pairs of videos, each with the mean embedding of its frames, in ten official splits.

Wolf, Hassner and Maoz, "Face recognition in unconstrained videos with matched background similarity", CVPR
2011. ``splits.txt`` has a header and lines "1, PERSON/VIDEO, PERSON/VIDEO, 1" (the last number says whether
they are the same person); the frames of a video are the pictures in PERSON/VIDEO.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.pictures import is_picture
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.protocols.file_images import FileImages
from facescale.evaluate.protocols.pair_lists import list_text
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.rows import unit_rows
from facescale.evaluate.verification import verified
from facescale.evaluate.verification_result import DEFAULT_RULE, VerificationResult

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FRAMES = ("aligned_images_DB", "frame_images_DB")


@dataclass(frozen=True)
class Videos:
    """Pairs of videos.

    Attributes:
        pairs: of videos; the image of a video is its middle frame.
        frames: all frames.
        first: int64 (V + 1,), the frames of video v are ``first[v]`` to ``first[v + 1] - 1``.
    """

    pairs: Pairs
    frames: FileImages
    first: IntArray

    def limited(self, limit: int | None) -> "Videos":
        """The first pairs of each kind in every split, ``limit`` in all; all pairs without a limit.

        Raises:
            ValueError: so few pairs that only one kind or one split is left.
        """
        return replace(self, pairs=self.pairs.limited(limit))


def read_ytf(folder: Path, root: Path | None = None) -> Videos:
    """Read ``splits.txt`` of a folder and find the frames.

    Args:
        folder: with ``splits.txt``.
        root: folder of the videos; by default ``aligned_images_DB`` or ``frame_images_DB`` in ``folder``.

    Raises:
        ValueError: the list is missing or damaged, or a video has no frame.
    """
    list_file = folder / "splits.txt"
    rows = [[word.strip() for word in line.split(",")] for line in list_text(list_file).splitlines()]
    rows = [row for row in rows if row[0].isdecimal()]  # without the header
    if not rows or any(len(row) < 4 or row[-1] not in ("0", "1") for row in rows):
        raise ValueError(
            f"{list_file}: its lines must be 'SPLIT, PERSON/VIDEO, PERSON/VIDEO, 1', or 0 for two people"
        )
    root = root or next((folder / name for name in FRAMES if (folder / name).is_dir()), folder)
    videos = list(dict.fromkeys(video for row in rows for video in row[1:3]))
    number = {video: index for index, video in enumerate(videos)}
    of_video = [_frames(root, video) for video in videos]
    first = np.cumsum([0, *map(len, of_video)])
    middles = [frames[len(frames) // 2] for frames in of_video]
    pairs = Pairs(
        source=str(list_file),
        images=FileImages(root, middles, str(list_file)),
        a=np.array([number[row[1]] for row in rows], np.int64),
        b=np.array([number[row[2]] for row in rows], np.int64),
        is_same=np.array([row[-1] == "1" for row in rows]),
        fold=np.array([int(row[0]) for row in rows], np.int64),
    )
    return Videos(pairs, FileImages(root, [f for frames in of_video for f in frames], str(list_file)), first)


def _frames(root: Path, video: str) -> list[str]:
    place = root / video
    inside = not video.startswith("/") and ".." not in video.split("/") and place.is_dir()
    frames = sorted(file for file in os.listdir(place) if is_picture(place / file)) if inside else []
    if not frames:
        raise ValueError(
            f"the video '{video}' has no pictures in '{root}'; complete the folder, or name another one: "
            "PATH?root=FOLDER"
        )
    return [f"{video}/{frame}" for frame in frames]


@dataclass(frozen=True)
class VideoVerification(ImageEvaluator):
    """An evaluator: verification of pairs of videos.

    The unit embeddings of the frames of a video are averaged; the cosine of two means is the score.

    Attributes:
        name: of the protocol.
        videos: what `read_ytf` gave.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        rule: how a fold takes its threshold from the others: a key of `PAIR_RULES`.
    """

    name: str
    videos: Videos = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    rule: str = DEFAULT_RULE

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> VerificationResult:
        """Embed every frame of the videos in the pairs once, and score the pairs.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read, embeddings are not finite, the network is in training mode.
        """
        pairs, first = self.videos.pairs, self.videos.first
        used, row = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
        frames = np.concatenate([np.arange(first[video], first[video + 1]) for video in used])
        embedded = self._embedded(embed, self.videos.frames, frames.tolist(), extraction)
        counts = np.diff(first)[used]
        starts = np.cumsum(counts) - counts
        means = np.add.reduceat(embedded.unit_ND, starts, axis=0) / counts[:, None]
        norm_U = np.add.reduceat(embedded.norm_N, starts) / counts
        result = verified(
            self.name,
            pairs,
            unit_rows(means),
            row,
            embedded,
            self.rule,
            flip=self.flip,
            size=self.size,
            norm_U=norm_U,
        )
        note = f"{len(frames):,} frames of {len(used):,} videos; a video is the mean of its frames"
        return replace(result, pairs=replace(pairs, remarks=(*pairs.remarks, note)))

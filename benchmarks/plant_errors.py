"""Plant known errors into a folder of identities: label flips, copies, splits, merges, people of a test set.

Used by ``clean.py``. The set is written as a folder of identities with neutral names; ``planted.json`` beside
it says what was planted where. Random draws have a fixed seed, so the same photos give the same set.
"""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FLIPS, COPIES = 0.02, 0.01  # fractions of the images
SHARED, SPLITS, MERGES = 20, 10, 10  # identities
COPY_KINDS = ("exact", "saved", "cropped", "mirrored")
_ENOUGH = 12  # images of an identity that is split or merged
_OF_TEST = 4  # images of a person of the test set that is shared


class _Names:
    """Writes images under running numbers, so that no name tells where an image is from."""

    def __init__(self, root: Path) -> None:
        self._root, self._counts = root, dict[str, int]()

    def write(self, identity: str, content: bytes) -> str:
        number = self._counts[identity] = self._counts.get(identity, 0) + 1
        key = f"{identity}/{number:03d}.jpg"
        (self._root / identity).mkdir(parents=True, exist_ok=True)
        (self._root / key).write_bytes(content)
        return key


def plant(train: Sequence[Path], test: Path, out: Path, seed: int = 0) -> dict[str, list[list[str]]]:
    """Write ``out/train`` and ``out/test`` with errors.

    Args:
        train: folders of identities.
        test: folder of the identities of a test set.
        out: folder to make.
        seed: of all draws.

    Returns:
        By kind, the entries: flips (image, its identity), copies (image, original, kind), splits and merges
        (identity, identity or images), shared (identity in training, name in the test set, images that are
        in both).
    """
    rng = np.random.default_rng(seed)
    people = [sorted(folder.iterdir()) for root in train for folder in sorted(root.iterdir())]
    order = rng.permutation(len(people))
    names, planted = (
        _Names(out / "train"),
        {kind: [] for kind in ("flips", "copies", "splits", "merges", "shared")},
    )
    rich = [int(n) for n in order if len(people[n]) >= _ENOUGH]
    split, merged = rich[:SPLITS], rich[SPLITS : SPLITS + 2 * MERGES]
    plain = sorted(set(range(len(people))) - set(split) - set(merged))
    label = {int(n): f"p{place:05d}" for place, n in enumerate(order)}
    total = sum(map(len, people))
    images = [(n, path) for n in plain for path in people[n]]
    drawn = rng.permutation(len(images))
    flips = {int(i) for i in drawn[: round(FLIPS * total)]}
    copies = drawn[len(flips) :][: round(COPIES * total)]
    written: dict[int, str] = {}
    for i, (n, path) in enumerate(images):
        home = label[n]
        if i in flips:
            home = label[int(rng.choice([other for other in plain if other != n]))]
        written[i] = names.write(home, path.read_bytes())
        if i in flips:
            planted["flips"].append([written[i], label[n]])
    for place, i in enumerate(copies.tolist()):
        n, path = images[i]
        kind = COPY_KINDS[place % len(COPY_KINDS)]
        across = place % 2 == 1 if len(COPY_KINDS) % 2 else (place // len(COPY_KINDS)) % 2 == 1
        home = label[int(rng.choice([other for other in plain if other != n]))] if across else label[n]
        key = names.write(home, copied(path.read_bytes(), kind, rng))
        planted["copies"].append([key, written[i], kind])
    _plant_identities(people, label, split, merged, names, planted, rng)
    _plant_shared(test, out, names, planted, rng)
    (out / "planted.json").write_text(json.dumps(planted, indent=1))
    return planted


def _plant_identities(people, label, split, merged, names, planted, rng) -> None:
    for n in split:
        shuffled = [people[n][i] for i in rng.permutation(len(people[n]))]
        halves = label[n], f"{label[n]}b"
        for place, path in enumerate(shuffled):
            names.write(halves[place % 2], path.read_bytes())
        planted["splits"].append(list(halves))
    for first, second in zip(merged[::2], merged[1::2], strict=True):
        for path in people[first]:
            names.write(label[first], path.read_bytes())
        minority = [names.write(label[first], path.read_bytes()) for path in people[second][:8]]
        planted["merges"].append([label[first], *minority])


def _plant_shared(test: Path, out: Path, names: _Names, planted, rng) -> None:
    """Half of the people share other photos of them, half the same photos, re-saved."""
    people = [folder for folder in sorted(test.iterdir()) if len(list(folder.iterdir())) >= _OF_TEST]
    chosen = {people[int(i)].name: place for place, i in enumerate(rng.permutation(len(people))[:SHARED])}
    for folder in sorted(test.iterdir()):
        paths = sorted(folder.iterdir())
        if folder.name not in chosen:
            shutil.copytree(folder, out / "test" / folder.name)
            continue
        half, name = len(paths) // 2, f"s{chosen[folder.name]:05d}"
        same = chosen[folder.name] % 2 == 1
        (out / "test" / folder.name).mkdir(parents=True)
        for path in paths[:half] if not same else paths:
            shutil.copy(path, out / "test" / folder.name / path.name)
        shown = []
        for path in paths[half:]:
            key = names.write(name, copied(path.read_bytes(), "saved", rng) if same else path.read_bytes())
            shown += [key] if same else []
        planted["shared"].append([name, folder.name, *shown])


def copied(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A copy of an encoded image, as they spread on the web.

    exact: equal bytes. saved: scaled to 50 to 90 % and back, saved at quality 40 to 85. cropped: up to 8 %
    cut off at each side, scaled back, up to 10 % brighter or darker, saved again. mirrored: left and right
    exchanged, saved again.
    """
    if kind == "exact":
        return content
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if kind == "saved":
        scale = rng.uniform(0.5, 0.9)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    elif kind == "cropped":
        left, top, right, bottom = rng.uniform(0, 0.08, 4) * [width, height, width, height]
        image = image.crop(tuple(round(v) for v in (left, top, width - right, height - bottom)))
        image = (
            image.point(lambda value: min(255, round(value * gain)))
            if (gain := rng.uniform(0.9, 1.1))
            else image
        )
    else:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=int(rng.integers(40, 86)))
    return out.getvalue()

"""From a trained run to a name for a photo, by the commands a user types; right and wrong answers by format.

    python benchmarks/walk.py RUN --lfw lfw --raw raw --out runs/walk

Exports RUN as fp32, fp16 and int8 ONNX, enrols people with each file and searches photos of four kinds. Of
LFW: aligned faces of PEOPLE people with five photos or more, half of their photos enrolled and the others
searched, and one photo each of as many people who are not enrolled. Of ``--raw`` (a folder of photos for each
person, in which the face must be found): every second person is enrolled with half of the photos; the others
are strangers. Who is enrolled is drawn with ``--seed``. A file that the export refuses is named.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PEOPLE = 100
FORMATS = {"fp32": [], "fp16": ["--precision", "fp16"], "int8": ["--precision", "int8"]}


def facescale(*words: str | Path) -> dict[str, Any]:
    """Run a command and read its JSON."""
    command = [sys.executable, "-m", "facescale", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sort_photos(lfw: Path, raw: Path, out: Path, seed: int) -> None:
    """Links to photos: ``enrolled``, and by kind those to search; a link's name begins with the person's."""
    rng = np.random.default_rng(seed)
    photos = {path.name: sorted(path.iterdir()) for path in sorted(lfw.iterdir())}
    known = rng.permutation([name for name, files in photos.items() if len(files) >= 5])[:PEOPLE].tolist()
    others = rng.permutation(sorted(photos.keys() - set(known)))[:PEOPLE].tolist()
    _divide({name: photos[name] for name in known}, out, "faces")
    _link("faces, strangers", {name: photos[name][:1] for name in others}, out)
    people = {path.name: sorted(path.iterdir()) for path in sorted(raw.iterdir())}
    order = rng.permutation(sorted(people)).tolist()
    _divide({name: people[name] for name in order[::2]}, out, "raw photos")
    _link("raw photos, strangers", {name: people[name] for name in order[1::2]}, out)


def _divide(people: dict[str, list[Path]], out: Path, kind: str) -> None:
    for name, files in people.items():
        half = len(files) // 2
        for file in files[:half]:
            _symlink(out / "enrolled" / name / file.name, file)
        _link(f"{kind}, enrolled", {name: files[half:]}, out)


def _link(kind: str, people: dict[str, Sequence[Path]], out: Path) -> None:
    for name, files in people.items():
        for file in files:
            _symlink(out / "searched" / kind / f"{name}__{file.name}", file)


def _symlink(link: Path, file: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(file.absolute())


def answers(gallery: Path, folder: Path, far: float) -> dict[str, float]:
    """Shares of the photos of one kind: nearest person right, named rightly, named wrongly, no face found."""
    found = facescale("search", gallery, folder, "--far", str(far))
    rows = found["photos"]
    owners = [Path(row["photo"]).name.split("__")[0] for row in rows]
    total = len(rows) + len(found["left_out"])
    pairs = list(zip(rows, owners, strict=True))
    return {
        "photos": total,
        "nearest": sum(row["best"][0]["name"] == owner for row, owner in pairs) / total,
        "right": sum(row["who"] == owner for row, owner in pairs) / total,
        "wrong": sum(row["who"] not in (owner, None) for row, owner in pairs) / total,
        "no face": len(found["left_out"]) / total,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with images/ and pairs.txt")
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--far", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out = arguments.out
    sort_photos(arguments.lfw / "images", arguments.raw, out, arguments.seed)
    for name, options in FORMATS.items():
        file, gallery = out / f"{name}.onnx", out / f"{name}.gallery"
        try:
            if not file.exists():
                report = facescale("export", arguments.run, "--out", file, *options)
                print(f"{name}: {json.dumps(report)}", flush=True)
        except RuntimeError as error:
            print(f"{name}: {error}", flush=True)
            continue
        if not gallery.exists():
            words = ("enrol", gallery, out / "enrolled", "--model", file, "--far", str(arguments.far))
            done = facescale(*words)
            print(f"{name}: {len(done['people'])} people, {done['num_photos']} photos enrolled", flush=True)
        for kind in sorted((out / "searched").iterdir()):
            found = answers(gallery, kind, arguments.far)
            shown = ", ".join(f"{key} {value:.1%}" for key, value in found.items() if key != "photos")
            print(f"{name}, {kind.name}: {found['photos']} photos, {shown}", flush=True)


if __name__ == "__main__":
    main()

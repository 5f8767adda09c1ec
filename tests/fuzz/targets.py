"""What is fuzzed: a small valid file of every format, and the call that reads it."""

import contextlib
import io
import json
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from facescale import backbones
from facescale.centres import sharded_checkpoint
from facescale.centres.options import StoreOptions
from facescale.centres.store import CentreStore
from facescale.checksums import Checksums
from facescale.checksums.manifest import MANIFEST, write_manifest
from facescale.convert.foreign import convert
from facescale.data import open_reader
from facescale.data.identities import old_numbers
from facescale.data.loading.decode import decode, decode_into
from facescale.data.readers.recordio import RecordReader
from facescale.data.writers.recordio import write_records
from facescale.distributed import Dist
from facescale.evaluate.protocols.devkit import read_feature, read_list
from facescale.evaluate.protocols.ijb_lists import read_ijb
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.gallery.gallery import Face, Gallery
from facescale.guard.reading import read_text
from facescale.inference.load import load
from facescale.inference.weights import save_model
from facescale.model_card import Contract
from facescale.plan.check import read_config
from facescale.prepare.landmarks import read_landmarks
from facescale.prepare.photos import open_photo
from facescale.prepare.scan import scan
from facescale.recipes.foreign_config import read_settings
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.tensors import save_tensors
from tests.fuzz.packed import packed

SIZE = 24


@dataclass(frozen=True)
class Target:
    """A file and how it is read.

    Attributes:
        name: of the target.
        folder: holds valid files.
        victim: the file in it that is damaged.
        read: reads it, given the folder.
        kind: of structure, for ``mutate.mutated``.
    """

    name: str
    folder: Path
    victim: str
    read: Callable[[Path], Any]
    kind: str = "bytes"


def picture(number: int, form: str = "JPEG", **options: Any) -> bytes:
    """A drawn picture as a file."""
    pixels = (np.indices((SIZE, SIZE)).sum(0) * (number + 3) % 256).astype(np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(np.stack([pixels, pixels.T, 255 - pixels], axis=2))
    if form == "GIF":
        image = image.convert("P")
    image.save(out, form, **options)
    return out.getvalue()


def all_targets(root: Path) -> list[Target]:
    """Every target, its files below ``root``."""
    makers = (
        _pictures,
        _checkpoints,
        _models,
        _pairs,
        _lists,
        _records,
        _packed,
        _configs,
        _galleries,
        _runs,
        _tables,
    )
    return [target for maker in makers for target in maker(root)]


def _folder(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    return folder


def _pictures(root: Path) -> Iterator[Target]:
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "jpeg": ("JPEG", {}),
        "jpeg progressive": ("JPEG", {"progressive": True}),
        "png": ("PNG", {}),
        "bmp": ("BMP", {}),
        "webp": ("WEBP", {"lossless": True}),
        "gif": ("GIF", {}),
        "tiff": ("TIFF", {"compression": "tiff_lzw"}),
    }

    def read(folder: Path) -> None:
        data = (folder / "x").read_bytes()
        out = np.empty((SIZE, SIZE, 3), np.uint8)
        sentences = []
        calls = (
            decode,
            open_photo,
            lambda d: decode_into(out, d),
            lambda d: decode_into(out, d, resize=True),
        )
        for call in calls:
            try:
                call(data)
            except ValueError as error:
                sentences.append(error)
        if sentences:
            raise sentences[0]

    for name, (form, options) in forms.items():
        folder = _folder(root, name)
        (folder / "x").write_bytes(picture(1, form, **options))
        yield Target(name, folder, "x", read)


def _checkpoints(root: Path) -> Iterator[Target]:
    torch.manual_seed(0)
    state = {"features.weight": torch.randn(4, 3), "features.bias": torch.zeros(4)}
    content = {
        "epoch": 3,
        "state_dict": state,
        "optimizer": {"state": {0: {"m": torch.zeros(2)}}, "lr": (0.1, 1)},
    }
    for name, archive in (("pth zip", True), ("pth row", False)):
        folder = _folder(root, name)
        torch.save(content, folder / "x.pth", _use_new_zipfile_serialization=archive)
        yield Target(name, folder, "x.pth", lambda f: convert(f / "x.pth"), "zip" if archive else "bytes")
    folder = _folder(root, "foreign safetensors")
    save_file(state, folder / "x.safetensors")
    yield Target(folder.name, folder, "x.safetensors", lambda f: convert(f / "x.safetensors"), "safetensors")


def _models(root: Path) -> Iterator[Target]:
    folder = _folder(root, "model")
    spec = {"name": "mbf_s", "embedding_size": 16, "options": {"input_size": SIZE}}
    state = backbones.build("mbf_s", 16, input_size=SIZE).state_dict()
    save_model(folder / "x.safetensors", state, spec, Contract(size=SIZE), info={"data": "x"})
    yield Target("model", folder, "x.safetensors", lambda f: load(f / "x.safetensors", "cpu"), "safetensors")
    folder = _folder(root, "onnx")
    (folder / "x.onnx").write_bytes(_onnx())

    def embed(folder: Path) -> None:
        load(folder / "x.onnx", "cpu").embed(np.zeros((2, SIZE, SIZE, 3), np.uint8))

    yield Target("onnx", folder, "x.onnx", embed)


def _onnx() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = np.ones((3 * SIZE * SIZE, 4), np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _pairs(root: Path) -> Iterator[Target]:
    images = [picture(number) for number in range(8)]
    arrays = [np.frombuffer(image, np.uint8) for image in images]
    labels = [True, False, True, False]
    for protocol in (0, 2, 4):
        for name, content in (("bytes", (images, labels)), ("arrays", (arrays, np.array(labels)))):
            folder = _folder(root, f"bin {name} {protocol}")
            (folder / "x.bin").write_bytes(pickle.dumps(content, protocol))
            yield Target(folder.name, folder, "x.bin", lambda f: read_bin(f / "x.bin"))


def _people(folder: Path) -> None:
    for person in ("Ann", "Bob", "Cyd"):
        (folder / person).mkdir()
        for number in (1, 2, 3):
            (folder / person / f"{person}_{number:04d}.jpg").write_bytes(picture(number))


def _lists(root: Path) -> Iterator[Target]:
    folder = _folder(root, "lfw")
    _people(folder)
    pairs = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\nBob\t1\t2\nBob\t3\tCyd\t1\n"
    (folder / "pairs.txt").write_text(pairs, "utf-8")
    yield Target("lfw", folder, "pairs.txt", lambda f: open_protocol(str(f)), "text")
    folder = _folder(root, "csv pairs")
    _people(folder)
    a, b, c = "Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg"
    rows = [f"{a},{b},1,0", f"{a},{c},0,0", f"{b},{a},1,1", f"{c},{b},0,1"]
    (folder / "p.csv").write_text("\n".join(["a,b,same,fold", *rows]), "utf-8")
    yield Target("csv pairs", folder, "p.csv", lambda f: open_protocol(str(f / "p.csv")), "text")
    folder = _folder(root, "labels csv")
    (folder / "photos").mkdir()
    _people(folder / "photos")
    (folder / "l.csv").write_text(f"path,identity\n{a},Ann\n{b},Ann\n{c},'=Bob\n", "utf-8")
    yield Target("labels csv", folder, "l.csv", lambda f: scan(f / "photos", labels=f / "l.csv"), "text")
    folder = _folder(root, "landmarks")
    (folder / "l.txt").write_text("a.jpg 1 2 3 4 5 6 7 8 9 10 0.9\nb.jpg,1,2,3,4,5,6,7,8,9,10\n", "utf-8")
    yield Target("landmarks", folder, "l.txt", lambda f: read_landmarks(f / "l.txt"), "text")
    lists = {
        "ijbc_face_tid_mid.txt": "1.jpg 1 1\n2.jpg 1 2\n3.jpg 2 3\n4.jpg 3 4\n",
        "ijbc_name_5pts_score.txt": "".join(f"{n}.jpg 1 2 3 4 5 6 7 8 9 10 0.9\n" for n in range(1, 5)),
        "ijbc_template_pair_label.txt": "1 2 1\n1 3 0\n",
        "ijbc_1N_gallery_G1.csv": "TEMPLATE_ID,SUBJECT_ID\n1,1\n2,2\n",
        "ijbc_1N_probe_mixed.csv": "TEMPLATE_ID,SUBJECT_ID\n3,1\n",
    }
    for victim in lists:
        folder = _folder(root, f"ijb {victim}")
        (folder / "meta").mkdir()
        for name, text in lists.items():
            (folder / "meta" / name).write_text(text, "utf-8")
        yield Target(folder.name, folder, f"meta/{victim}", read_ijb, "text")
    folder = _folder(root, "devkit list")
    (folder / "l.json").write_text(json.dumps({"path": ["a/1.jpg", "b/2.jpg"]}), "utf-8")
    yield Target("devkit list", folder, "l.json", lambda f: read_list(f / "l.json"), "text")
    folder = _folder(root, "devkit feature")
    (folder / "x.bin").write_bytes(np.array([4, 1, 4, 5], "<i4").tobytes() + np.ones(4, "<f4").tobytes())
    yield Target("devkit feature", folder, "x.bin", lambda f: read_feature(f / "x.bin"))


class _Memory:
    """A few pictures as a reader."""

    num_ids = 3
    names = ("Ann", "Bob", "Cyd")

    def __init__(self) -> None:
        self.ids = np.repeat(np.arange(3), 3)

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return picture(index), int(self.ids[index])

    def key(self, index: int) -> str:
        return f"{self.names[self.ids[index]]}/{index}.jpg"


def _records(root: Path) -> Iterator[Target]:
    def read(folder: Path) -> None:
        reader = RecordReader(folder / "train.rec")
        for index in range(min(len(reader), 20)):
            with contextlib.suppress(ValueError):
                reader[index]

    def open_named(folder: Path) -> None:
        reader = open_reader(str(folder))
        assert len(getattr(reader, "original_names", [])) <= 100

    for layout in ("insightface", "im2rec"):
        for victim in ("train.rec", "train.idx"):
            folder = _folder(root, f"{layout} {victim}")
            write_records(_Memory(), folder, layout=layout)  # type: ignore[arg-type]
            yield Target(folder.name, folder, victim, read, "text" if victim == "train.idx" else "bytes")
    folder = _folder(root, "rec alone")
    write_records(_Memory(), folder, layout="im2rec")  # type: ignore[arg-type]
    (folder / "train.idx").unlink()
    yield Target("rec alone", folder, "train.rec", read)
    folder = _folder(root, "labels.json")
    write_records(_Memory(), folder, layout="im2rec")  # type: ignore[arg-type]
    (folder / "labels.json").write_text(json.dumps({"0": "Ann", "1": "Bob", "2": "Cyd"}), "utf-8")
    yield Target("labels.json", folder, "labels.json", open_named, "text")


def _packed(root: Path) -> Iterator[Target]:
    yield from packed(root, _Memory(), Target, _folder)


def _configs(root: Path) -> Iterator[Target]:
    folder = _folder(root, "toml")
    text = (
        '[data]\ntrain = "a"\nworkers = 2\n[backbone]\nname = "r18"\nembedding_size = 128\ndropout = 0.1\n'
        '[head]\nname = "partial_fc"\nrate = 0.1\n[head.margin]\nname = "arcface"\nm = 0.5\n'
        '[optim]\nlr = 0.1\n[train]\nduration = "20 epochs"\nbatch_size = 128\n[eval.sets]\nlfw = "b"\n'
    )
    (folder / "c.toml").write_text(text, "utf-8")
    yield Target("toml", folder, "c.toml", lambda f: read_config(f / "c.toml"), "text")
    foreign = {
        "c.py": "from easydict import EasyDict as edict\nconfig = edict()\nconfig.network = 'r50'\n"
        "config.lr = 0.1\nconfig.batch_size = 128 * 2\nconfig.margin_list = (1.0, 0.5, 0.0)\n",
        "c.sh": "NET=ir50\npython main.py --net_type=${NET} --batch_size=64\n",
        "c.json": '{"lr": ["float", "0.1"], "steps": ["list", "1,2"]}',
    }
    for name, text in foreign.items():
        folder = _folder(root, f"foreign {name}")
        (folder / name).write_text(text, "utf-8")
        yield Target(folder.name, folder, name, lambda f, name=name: read_settings(f / name), "text")


def _galleries(root: Path) -> Iterator[Target]:
    folder = _folder(root, "gallery")
    made = Gallery.create(folder / "x.db", "f" * 32, 8, "m")
    for name in ("Ann", "Bob"):
        made.add(name, [Face(f"{name}/{n}.jpg", np.full(8, 8**-0.5, np.float32)) for n in range(3)])

    def read(folder: Path) -> None:
        found = Gallery(folder / "x.db")
        found.people()
        found.templates()
        found.faces("Ann")

    yield Target("gallery", folder, "x.db", read)
    folder = _folder(root, "gallery as sql")
    with sqlite3.connect(root / "gallery" / "x.db") as db:
        (folder / "x.sql").write_text("\n".join(db.iterdump()), "utf-8")

    def read_sql(folder: Path) -> None:
        (folder / "x.db").unlink(missing_ok=True)
        try:
            with sqlite3.connect(folder / "x.db") as db:
                db.execute("PRAGMA application_id = 1178682181")
                db.executescript((folder / "x.sql").read_text("utf-8", "replace"))
        except (sqlite3.Error, ValueError):
            raise ValueError("facescale was not asked") from None
        finally:
            db.close()
        read(folder)

    yield Target("gallery as sql", folder, "x.sql", read_sql, "text")


def _runs(root: Path) -> Iterator[Target]:
    folder = _folder(root, "run")
    run = RunDir(folder)
    run.create()
    dist, step = Dist(), run.snapshot(5)
    (folder / "config.toml").write_text("[train]\nseed = 1\n", "utf-8")
    (folder / "plan.json").write_text('{"lr": 0.1, "steps": [1, 2]}', "utf-8")
    (folder / "identities.json").write_text('{"source": "", "num_ids": 2, "names": ["a", "b"]}', "utf-8")
    (folder / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1}\n{"kind": "eval", "step": 2}\n', "utf-8"
    )
    run.best_file.write_text('{"step": 5, "name": "lfw/accuracy", "value": 0.5}', "utf-8")
    step.mkdir()
    store = CentreStore(40, 8, dist, StoreOptions())
    sharded_checkpoint.prepare(store, step, copy=False).write()
    save_tensors({"cpu": torch.get_rng_state()}, step / "random_0.pt")
    save_tensors({"optimizer": {"state": {0: {"m": torch.zeros(3)}}}, "n": 1}, step / "state.pt")
    (step / "meta.json").write_text('{"step": 5, "world_size": 1, "seconds": 1.5}', "utf-8")
    Checksums().write_part(step, [path for path in step.rglob("*") if path.is_file()], 0)
    write_manifest(step, 1)
    for name, read, kind in _run_readers():
        copy = root / f"run {name}"
        shutil.copytree(folder, copy)
        for victim in copy.rglob(name):
            yield Target(copy.name, copy, victim.relative_to(copy).as_posix(), read, kind)
            break


def _run_readers() -> Iterator[tuple[str, Callable[[Path], Any], str]]:
    def load_checkpoint(folder: Path) -> Any:
        return checkpoint.load(RunDir(folder).snapshot(5), Dist())

    def load_centres(folder: Path) -> None:
        sharded_checkpoint.load(CentreStore(40, 8, Dist(), StoreOptions()), RunDir(folder).snapshot(5))

    def identities(folder: Path) -> Any:
        return old_numbers(folder / "identities.json", read_config(), _Memory())  # type: ignore[arg-type]

    def metrics(folder: Path) -> None:
        RunDir(folder).read_metrics("train")
        RunDir(folder).truncate_metrics(1)

    def whole(folder: Path) -> None:
        checkpoint.newest_whole(RunDir(folder), Dist(), Checksums())

    yield "config.toml", lambda f: read_config(f / "config.toml"), "text"
    yield "identities.json", identities, "text"
    yield "metrics.jsonl", metrics, "text"
    yield "best.json", lambda f: RunDir(f).best(), "text"
    yield "meta.json", load_checkpoint, "text"
    yield "state.pt", load_checkpoint, "zip"
    yield "random_0.pt", load_checkpoint, "zip"
    yield "centres.json", load_centres, "text"
    yield "rows-*.safetensors", load_centres, "safetensors"
    yield MANIFEST, whole, "text"


def _tables(root: Path) -> Iterator[Target]:
    folder = _folder(root, "text")
    (folder / "x.txt").write_text("a\tb\nc\td\n", "utf-8")
    yield Target("text", folder, "x.txt", lambda f: read_text(f / "x.txt", "the text", 1 << 20), "text")

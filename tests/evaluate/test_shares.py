"""Evaluation on several processes: every figure is that of one process, bit for bit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale import backbones
from facescale.data.images import IndexedImages
from facescale.data.loading.decode import encode_jpeg
from facescale.distributed import Dist
from facescale.evaluate import EVALS, shares
from facescale.evaluate.embedding import Extraction, embed_set
from facescale.evaluate.feature_cache import FeatureCache
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.shares import EvaluationStoppedError, computed_in_shares
from tests.distributed.spawn import run_processes
from tests.evaluate.protocols.test_ijb_lists import small, write_lists
from tests.evaluate.protocols.test_megaface import write_images, write_release
from tests.evaluate.protocols.test_released_lists import WRITERS
from tests.pictures import picture

SIZE, BATCH = 48, 5  # no set below is a multiple of it
SETS = {
    "verification": "synthetic:pairs=12,folds=2",
    "identification": "identification:synthetic:ids=6,images=3,size=48",
    "all_pairs": "all_pairs:synthetic:ids=6,images=3,size=48",
    "ijb": "ijb:FOLDER/ijb",
    "megaface": "megaface:FOLDER/megaface",
    **{kind: f"{kind}:FOLDER/{kind}" for kind in WRITERS},
}  # FOLDER: what ``released`` writes


def ijb_folder(path: Path) -> Path:
    """Eight images of five templates, some photos of another size than the faces."""
    lists = small(
        templates=[1, 1, 2, 3, 3, 4, 5, 5],
        medias=[10, 10, 11, 12, 12, 13, 14, 15],
        scores=[0.9, 0.8, 0.7, 1.0, 0.6, 0.9, 0.8, 0.7],
        pairs=[(1, 2), (1, 3), (2, 3), (3, 5), (2, 4), (1, 5)],
        same=[True, False, False, False, True, False],
        people={"gallery_G1": [(1, 70), (3, 71)], "probe_mixed": [(2, 70), (5, 71), (4, 99)]},
    )
    folder = write_lists(path, "ijbc", lists)
    (folder / "loose_crop").mkdir()
    for number in range(8):
        (folder / "loose_crop" / f"{number + 1}.jpg").write_bytes(encode_jpeg(picture(number, 112)))
    return folder


def released(folder: Path) -> Path:
    """The layouts that protocols of more than one file have."""
    folder.mkdir()
    ijb_folder(folder / "ijb")
    write_images(write_release(folder / "megaface"))
    for kind, write in WRITERS.items():
        write(folder / kind)
    return folder


def measured(kind: str, folder: str, extraction: Extraction | None) -> str:
    torch.manual_seed(0)
    net = backbones.build("mbf_s", 16, input_size=SIZE).eval()
    protocol = open_protocol(SETS[kind].replace("FOLDER", folder), SIZE, batch_size=BATCH, name="set")
    result = protocol.measure(lambda images: net((images / 255).permute(0, 3, 1, 2)), extraction)
    exact = {key: value.tobytes().hex() for key, value in vars(result).items() if hasattr(value, "tobytes")}
    return json.dumps([result.to_dict(), list(result.figures()), exact, getattr(result, "scaled", {})])


def check_equal(dist: Dist, folder: str) -> None:
    for kind in SETS:
        assert measured(kind, folder, Extraction(dist=dist)) == measured(kind, folder, None), kind


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_every_protocol_has_the_figures_of_one_process(world_size: int, tmp_path: Path) -> None:
    assert SETS.keys() == EVALS.keys(), "give the new kind a set"
    run_processes(world_size, check_equal, str(released(tmp_path / "released")))


def embedded(dist: Dist | None, images: Any, count: int) -> tuple[Any, list[int]]:
    batches: list[int] = []

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        batches.append(len(pixels))
        # Depends on the batch, a little: a convolution may sum in another order for another batch
        return pixels.float().mean(dim=(1, 2)) + 0.001 * len(pixels)

    rows = embed_set(
        *(embed, images, range(count)), size=24, flip=False, batch_size=4, extraction=Extraction(dist=dist)
    )
    return rows, batches


def check_whole_batches(dist: Dist) -> None:
    images = IndexedImages([encode_jpeg(picture(i)) for i in range(11)], [str(i) for i in range(11)])
    for count in (11, 3, 1):  # fewer batches than processes, too
        (alone, all_batches), (shared, own) = embedded(None, images, count), embedded(dist, images, count)
        for field in dataclasses.fields(alone):
            assert np.array_equal(getattr(alone, field.name), getattr(shared, field.name))
        num_batches = -(-count // 4)
        num_own = len(range(dist.rank, num_batches, dist.world_size))
        checks = len([size for size in all_batches if size == 2])
        assert len(own) <= num_own + checks, "each embeds its share only"


def test_batches_are_dealt_out_whole() -> None:
    run_processes(3, check_whole_batches)


def check_failures(dist: Dist) -> None:
    good = encode_jpeg(picture(0))
    images = IndexedImages([good, good, b"not an image", good], list("abcd"))
    with pytest.raises(ValueError, match="image 'c' of the protocol cannot be read"):
        embed_set(
            *(lambda x: x.float().mean(dim=(1, 2)), images, range(4)),
            **{"size": 24, "flip": True, "batch_size": 1, "extraction": Extraction(dist=dist)},
        )

    def out_of_memory(part: Any) -> Any:
        if dist.rank == 1:
            raise MemoryError("no memory")
        return [np.zeros((len(part), 2))]

    with pytest.raises(RuntimeError, match="rank 1 failed in the evaluation: no memory"):
        computed_in_shares(dist, range(8), 2, out_of_memory)


def test_what_one_process_cannot_read_ends_the_evaluation_on_all() -> None:
    run_processes(2, check_failures)


def check_gathering(dist: Dist) -> None:
    rows = np.full((dist.rank * 2, 3), dist.rank, np.float64)
    parts = dist.gather_rows(rows)
    assert [part.tolist() for part in parts] == [[[rank] * 3] * 2 * rank for rank in range(3)]
    assert dist.gather_text("ü" * dist.rank) == ["", "ü", "üü"]
    value = torch.tensor([dist.rank + 5])
    assert dist.broadcast(value) is value and value.tolist() == [5]


def test_rows_and_texts_of_any_length_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facescale.distributed.dist._PIECE", 4)  # several rounds
    run_processes(3, check_gathering)
    alone = Dist()
    assert alone.gather_text("x") == ["x"] and alone.broadcast(torch.ones(1)).tolist() == [1]


def check_cache(dist: Dist, folder: str) -> None:
    images = IndexedImages([encode_jpeg(picture(i)) for i in range(7)], [str(i) for i in range(7)])
    calls: list[int] = []

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return pixels.float().mean(dim=(1, 2))

    # Only the main process sees what was kept before, as on a host without the run's disk
    cache = FeatureCache(Path(folder, str(dist.rank)), {"weights": "0"})
    how = {"size": 24, "flip": False, "batch_size": 2, "extraction": Extraction(cache, dist)}
    alone = embed_set(embed, images, range(7), **{**how, "extraction": None})
    for part, num_calls in ((range(3), 2), (range(7), 4), (range(7), 0)):
        calls.clear()
        rows = embed_set(embed, images, part, **how)
        assert np.array_equal(rows.unit_ND, alone.unit_ND[: len(part)])
        assert len(calls) <= -(-num_calls // 2)
    assert not list(Path(folder, "1").glob("*"))


def test_the_cache_of_the_main_process_serves_all(tmp_path: Path) -> None:
    run_processes(2, check_cache, str(tmp_path))


def _stopped(dist: Dist) -> None:
    images = IndexedImages([encode_jpeg(picture(i)) for i in range(40)], [str(i) for i in range(40)])
    batches: list[int] = []

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        batches.append(len(pixels))
        return pixels.float().mean(dim=(1, 2))

    asked = dist.world_size == 1 or dist.rank == 1
    how = Extraction(dist=dist, stop_asked=lambda: asked and len(batches) >= 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(EvaluationStoppedError):
        patch.setattr(shares, "ROUND", 2)
        embed_set(embed, images, range(40), size=SIZE, flip=False, batch_size=2, extraction=how)
    assert len(batches) == (2 if asked else 4), "of twenty, or of ten each; another process ends its round"


@pytest.mark.parametrize("world_size", [1, 2])
def test_one_process_that_is_asked_to_stop_stops_all(world_size: int) -> None:
    if world_size == 1:
        _stopped(Dist())
    else:
        run_processes(world_size, _stopped)

"""facescale.inference.embed_parts: jobs or the workers of a cluster write what one machine writes."""

import os
import signal
from pathlib import Path

import pytest
import torch

from facescale import backbones
from facescale.data import open_reader
from facescale.data.loading.decode import encode_jpeg
from facescale.inference import embed_parts
from facescale.inference.embed_files import embed_to_file
from facescale.inference.embed_parts import EmbedJob, embed_in_steps, embed_into, embed_on_cluster, embed_part
from facescale.inference.load import load
from facescale.inference.weights import save_model
from facescale.jobs import Part
from facescale.jobs.lock import lock_folder
from facescale.model_card import Contract
from tests.pictures import picture

SPEC = {"name": "mbf_s", "embedding_size": 64, "options": {}}


def open_folder(size: int, path: str):
    return open_reader(path)


@pytest.fixture
def job(tmp_path: Path) -> EmbedJob:
    """18 images of three people, of which one is broken, in batches of 4."""
    for n in range(18):
        file = tmp_path / "people" / "abc"[n // 6] / f"{n}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"broken" if n == 7 else encode_jpeg(picture(n, 112)))
    torch.manual_seed(0)
    network = backbones.build("mbf_s", 64).eval()
    save_model(tmp_path / "model.safetensors", network.state_dict(), SPEC, Contract())
    return EmbedJob((str(tmp_path / "model.safetensors"), "cpu"), open_folder, (str(tmp_path / "people"),), 4)


@pytest.fixture
def model(job):
    return load(*job.model)


@pytest.fixture
def whole(job, model, tmp_path) -> bytes:
    """What one machine writes."""
    embed_to_file(model, job.images[0], tmp_path / "whole.npz", batch_size=4)
    return (tmp_path / "whole.npz").read_bytes()


def do(job, model, tmp_path: Path, number: int, count: int = 3):
    return embed_part(model, job, tmp_path / "e.npz", Part(number, count))


def test_the_job_that_ends_last_joins_the_parts_to_what_one_machine_writes(job, model, whole, tmp_path):
    assert [str(part) for part in do(job, model, tmp_path, 3).waiting] == ["1/3", "2/3"]
    do(job, model, tmp_path, 1)
    last = do(job, model, tmp_path, 2)
    assert last.joined.num_images == 17 and list(last.joined.bad) == ["b/7.jpg"]
    assert (tmp_path / "e.npz").read_bytes() == whole
    assert not (tmp_path / ".e.npz.parts").exists()


def test_a_part_that_is_done_is_kept_and_one_that_was_cut_is_repeated(
    job, model, whole, tmp_path, monkeypatch
):
    asked, embed = [], type(model).embed

    def counted(self, images, size):
        asked.append(len(images))
        return embed(self, images, size)

    monkeypatch.setattr(type(model), "embed", counted)
    do(job, model, tmp_path, 1, 2)
    do(job, model, tmp_path, 1, 2)
    assert asked == [4, 4]
    file = tmp_path / ".e.npz.parts" / "1-of-2.npz"
    file.write_bytes(file.read_bytes()[:-50])
    assert [str(part) for part in do(job, model, tmp_path, 2, 2).waiting] == ["1/2"]
    assert do(job, model, tmp_path, 1, 2).joined
    assert asked == [4, 4, 3, 4, 2, 4, 4]
    assert (tmp_path / "e.npz").read_bytes() == whole


def test_parts_of_another_model_or_of_other_images_do_not_count(job, model, tmp_path):
    do(job, model, tmp_path, 1, 2)
    (tmp_path / "people" / "c" / "99.jpg").write_bytes(encode_jpeg(picture(99, 112)))
    assert [str(part) for part in do(job, model, tmp_path, 2, 2).waiting] == ["1/2"]
    torch.manual_seed(1)
    network = backbones.build("mbf_s", 64).eval()
    save_model(tmp_path / "model.safetensors", network.state_dict(), SPEC, Contract())
    assert [str(part) for part in do(job, load(*job.model), tmp_path, 1, 2).waiting] == ["2/2"]


def test_one_job_joins_while_others_end(job, model, whole, tmp_path):
    pytest.importorskip("fcntl")
    for number in range(1, 5):
        do(job, model, tmp_path, number, 5)
    with lock_folder(tmp_path / ".e.npz.parts"):
        ended = do(job, model, tmp_path, 5, 5)
        assert ended.joined is None and not (tmp_path / "e.npz").exists()
        with pytest.raises(ValueError, match="another process joins the parts in"):
            embed_on_cluster(model, job, tmp_path / "e.npz", "unused: all five batches are done")
    assert do(job, model, tmp_path, 5, 5).joined
    assert (tmp_path / "e.npz").read_bytes() == whole


def test_another_suffix_is_refused_before_any_work(job, model, tmp_path):
    with pytest.raises(ValueError, match=r"the name must end in \.npz, \.parquet, \.faiss"):
        embed_part(model, job, tmp_path / "e.csv", Part(1, 2))


def test_a_worker_that_sees_other_files_is_named(job, tmp_path):
    with pytest.raises(ValueError, match=r"'.*parts' is missing on the worker .*; images, model and result"):
        embed_into(job, "", tmp_path / "parts", Part(1, 2))
    with pytest.raises(ValueError, match=r"the worker .* finds another model or other images"):
        embed_into(job, "another", tmp_path, Part(1, 2))


def test_a_cluster_that_loses_a_worker_writes_what_one_machine_writes(cluster, job, model, whole, tmp_path):
    seen = []

    def kill_one(done: int, total: int) -> None:
        if not seen:
            os.kill(cluster.workers[1].pid, signal.SIGKILL)
        seen.append((done, total))

    report = embed_on_cluster(model, job, tmp_path / "e.npz", cluster.scheduler_address, kill_one)
    assert seen == [(n, 5) for n in range(1, 6)] and report.num_images == 17
    assert (tmp_path / "e.npz").read_bytes() == whole


def test_the_command_embeds_a_part(facescale, job, whole, tmp_path):
    words = ["embed", tmp_path / "model.safetensors", tmp_path / "people", "--out", tmp_path / "e.npz"]
    words += ["--batch-size", "4", "--device", "cpu", "--shard"]
    status, out, _ = facescale(*words, "2/2")
    assert status == 0 and "not done yet: 1/2" in out
    status, out, _ = facescale(*words, "1/2")
    assert status == 0 and "17 embeddings in" in out
    assert (tmp_path / "e.npz").read_bytes() == whole


class TestOnOneMachine:
    def test_a_small_set_is_embedded_at_once(self, job, model, whole, tmp_path):
        told = []
        done = embed_in_steps(model, job, tmp_path / "e.npz", lambda *images: told.append(images))
        assert done.num_images == 17 and told == [(0, 18), (18, 18)]
        assert (tmp_path / "e.npz").read_bytes() == whole

    def test_what_was_interrupted_continues_and_gives_the_same_bytes(
        self, job, model, whole, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(embed_parts, "_BATCHES", 2)
        told, embed, left = [], type(model).embed, [4]

        def interrupted(self, images, size):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return embed(self, images, size)

        monkeypatch.setattr(type(model), "embed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed_in_steps(model, job, tmp_path / "e.npz")
        assert not (tmp_path / "e.npz").exists()
        left[0] = 2  # the batches of the last part
        embed_in_steps(model, job, tmp_path / "e.npz", lambda *images: told.append(images))
        assert told == [(0, 18), (4, 18), (12, 18), (18, 18)]
        assert (tmp_path / "e.npz").read_bytes() == whole
        assert not (tmp_path / ".e.npz.parts").exists()

    def test_while_another_process_joins_the_parts_it_is_told(self, job, model, tmp_path, monkeypatch):
        monkeypatch.setattr(embed_parts, "_BATCHES", 2)
        folder = tmp_path / ".e.npz.parts"
        folder.mkdir()
        with lock_folder(folder), pytest.raises(ValueError, match=r"another process joins the parts in"):
            embed_in_steps(model, job, tmp_path / "e.npz")

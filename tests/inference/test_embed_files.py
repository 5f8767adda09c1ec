"""An embedding file holds one unit row for each readable image, and says which model made it."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.loose import NO_ID
from facescale.data.synthetic.faces import SyntheticFaces
from facescale.inference.embed_files import embed_to_file
from facescale.inference.model import Model
from facescale.model_card import Card, Contract


class Blocks(nn.Module):
    """Embeds an image as its 2x2 block means, 12 numbers."""

    embedding_size = 12
    input_size = 32

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.of(Blocks(), Card(Contract(size=32)), "cpu")


@pytest.fixture
def folder(tmp_path):
    """Three identities with 3, 2, 1 images."""
    root = tmp_path / "people"
    faces = SyntheticFaces(6, 1, size=32)
    for index, path in enumerate(("ann/1", "ann/2", "ann/3", "bob/1", "bob/2", "eve/1")):
        file = root / f"{path}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(faces[index][0]))
    return root


def test_a_folder_becomes_one_row_an_image_with_its_key_identity_and_name(model, folder, tmp_path):
    report = embed_to_file(model, folder, tmp_path / "e.npz", batch_size=4)
    assert report.num_images == 6
    assert report.bad == {}
    with np.load(tmp_path / "e.npz") as file:
        assert file["keys"].tolist()[2:4] == ["ann/3.jpg", "bob/1.jpg"]
        assert file["ids"].tolist() == [0, 0, 0, 1, 1, 2]
        assert file["ids"].dtype == np.int64
        assert file["names"].tolist() == ["ann"] * 3 + ["bob"] * 2 + ["eve"]
        assert file["embeddings"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"], axis=1), 1, atol=1e-6)


def test_the_rows_are_those_of_the_model_in_the_readers_order(model, tmp_path):
    reader = SyntheticFaces(3, 3, size=32)
    embed_to_file(model, reader, tmp_path / "e.npz", batch_size=2)
    images = np.stack([reader[index][0] for index in range(9)])
    with np.load(tmp_path / "e.npz") as file:
        np.testing.assert_allclose(file["embeddings"], model.embed(images), atol=1e-6)


def test_the_file_names_the_model_and_its_contract(model, folder, tmp_path):
    report = embed_to_file(model, folder, tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        assert str(file["fingerprint"]) == report.fingerprint == model.fingerprint
        assert Contract.from_dict(json.loads(str(file["contract"]))) == model.contract


def test_parquet_holds_the_same(model, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    embed_to_file(model, str(folder), tmp_path / "e.npz")
    embed_to_file(model, str(folder), tmp_path / "e.parquet")
    table = parquet.read_table(tmp_path / "e.parquet")
    with np.load(tmp_path / "e.npz") as file:
        np.testing.assert_array_equal(
            np.array(table["embedding"].to_pylist(), np.float32), file["embeddings"]
        )
        for column in ("key", "id", "name"):
            assert table[column].to_pylist() == file[f"{column}s"].tolist()
        assert table.schema.metadata[b"fingerprint"].decode() == str(file["fingerprint"])
        assert table.schema.metadata[b"contract"].decode() == str(file["contract"])


def test_parquet_without_pyarrow_names_the_extra_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow; .*facescale\[parquet\]"):
        embed_to_file(model, "absent", tmp_path / "e.parquet")


def test_a_faiss_file_is_a_flat_index_with_the_names_beside_it(model, folder, tmp_path):
    faiss = pytest.importorskip("faiss")
    for name in ("e.npz", "e.faiss"):
        assert embed_to_file(model, folder, tmp_path / name).num_images == 6
    index = faiss.read_index(str(tmp_path / "e.faiss"))
    beside = json.loads((tmp_path / "e.faiss.json").read_text())
    with np.load(tmp_path / "e.npz") as file:
        rows = file["embeddings"]
        assert np.array_equal(index.reconstruct_n(0, 6), rows)
        for column in ("key", "id", "name"):
            assert beside[column] == file[f"{column}s"].tolist()
        assert beside["fingerprint"] == str(file["fingerprint"])
        assert beside["contract"] == str(file["contract"])
    cosine, place = index.search(rows[3:4], 1)
    assert (place[0, 0], cosine[0, 0]) == (3, pytest.approx(1)), "an inner product is the cosine"


def test_faiss_that_is_missing_is_told_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"a \.faiss file needs faiss; .*facescale\[index\]"):
        embed_to_file(model, "absent", tmp_path / "e.faiss")


def test_another_suffix_is_refused(model, folder, tmp_path):
    with pytest.raises(ValueError, match=r"'.*e\.csv'; the name must end in \.npz, \.parquet, \.faiss"):
        embed_to_file(model, folder, tmp_path / "e.csv")


def test_bad_images_are_left_out_and_named(model, folder, tmp_path):
    (folder / "ann" / "2.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "bob" / "2.jpg").write_bytes(encode_jpeg(SyntheticFaces(1, 1, size=40)[0][0]))
    report = embed_to_file(model, folder, tmp_path / "e.npz", batch_size=2)
    assert report.num_images == 4
    assert list(report.bad) == ["ann/2.jpg", "bob/2.jpg"]
    assert "damaged JPEG" in report.bad["ann/2.jpg"]
    assert "40x40 pixels where 32x32" in report.bad["bob/2.jpg"]
    with np.load(tmp_path / "e.npz") as file:
        assert file["keys"].tolist() == ["ann/1.jpg", "ann/3.jpg", "bob/1.jpg", "eve/1.jpg"]
        assert file["ids"].tolist() == [0, 0, 1, 2]
        assert file["embeddings"].shape == (4, 12)


def test_images_of_another_size_are_resized_on_request(model, tmp_path):
    report = embed_to_file(model, SyntheticFaces(2, 1, size=48), tmp_path / "e.npz", resize=True)
    assert report.num_images == 2


def test_images_of_another_size_are_resized_where_the_contract_says_so(tmp_path):
    model = Model.of(Blocks(), Card(Contract(size=32, resize="area")), "cpu")
    source = SyntheticFaces(2, 1, size=48)
    assert embed_to_file(model, source, tmp_path / "e.npz").num_images == 2
    with pytest.raises(ValueError, match="48x48 pixels where 32x32 is wanted"):
        embed_to_file(model, source, tmp_path / "e.npz", resize=False)


def test_a_flat_folder_of_photos_has_no_identities(model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "b.jpg").write_bytes(encode_jpeg(SyntheticFaces(1, 1, size=32)[0][0]))
    (photos / "a.JPG").write_bytes((photos / "b.jpg").read_bytes())
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden.jpg").write_text("not an image")
    report = embed_to_file(model, photos, tmp_path / "e.npz")
    assert report.bad == {}
    with np.load(tmp_path / "e.npz") as file:
        assert file["keys"].tolist() == ["a.JPG", "b.jpg"]
        assert file["ids"].tolist() == [NO_ID, NO_ID]
        assert file["names"].tolist() == ["", ""]


def test_links_out_of_a_flat_folder_are_refused(model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").symlink_to("/elsewhere.jpg")
    with pytest.raises(ValueError, match="is a link"):
        embed_to_file(model, photos, tmp_path / "e.npz")


def test_a_source_without_a_readable_image_is_refused_and_writes_nothing(model, folder, tmp_path):
    for file in folder.glob("*/*.jpg"):
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"none of 6 images can be embedded: 'ann/1\.jpg': not a JPEG"):
        embed_to_file(model, folder, tmp_path / "out" / "e.npz")
    assert not (tmp_path / "out").exists()


def test_a_diverged_model_is_named_as_such(folder, tmp_path):
    class Diverged(Blocks):
        def forward(self, x):
            return super().forward(x) * torch.tensor([[1.0], [torch.nan]]).repeat(len(x), 1)[: len(x)]

    model = Model.of(Diverged(), Card(Contract(size=32)), "cpu")
    with pytest.raises(
        ValueError, match=r"the embedding of 'ann/2\.jpg' is not finite: the model has diverged"
    ):
        embed_to_file(model, folder, tmp_path / "e.npz")


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_names_of_any_bytes_can_be_written(model, folder, tmp_path, suffix: str):
    name = os.fsdecode(b"J\xfcr\ngen")
    (folder / "ann").rename(folder / name)
    out = tmp_path / f"e.{suffix}"
    embed_to_file(model, folder, out)
    if suffix == "npz":
        with np.load(out) as file:
            assert file["names"].tolist().count(name) == 3
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        names = parquet.read_table(out)["name"].to_pylist()
        assert names.count(name.encode("utf-8", "backslashreplace").decode()) == 3


def test_a_folder_of_pictures_without_suffix_can_be_embedded(model, folder, tmp_path):
    (tmp_path / "loose").mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        path.rename(tmp_path / "loose" / f"photo {number}")
    (tmp_path / "loose" / "@eaDir").mkdir()
    assert embed_to_file(model, tmp_path / "loose", tmp_path / "e.npz").num_images == 6

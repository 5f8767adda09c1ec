"""Training batches: which images, whatever the workers, processes, resumes and damaged records."""

import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from facescale.data.loading.batch import Batch
from facescale.data.loading.decode import decode
from facescale.data.loading.iterate import iter_images
from facescale.data.loading.prefetch import Buffers, in_order
from facescale.data.loading.train_loader import TrainLoader

IDS = [i % 7 for i in range(50)]


def loader(reader, **options) -> TrainLoader:
    return TrainLoader(reader, **{"batch_size": 8, "seed": 3, "workers": 2, "size": 24} | options)


def same(a: Batch, b: Batch) -> bool:
    return (
        a.epoch == b.epoch
        and torch.equal(a.images, b.images)
        and torch.equal(a.ids, b.ids)
        and torch.equal(a.index, b.index)
        and torch.equal(a.random, b.random)
    )


def copied(batches) -> list[Batch]:
    return [replace(batch, images=batch.images.clone()) for batch in batches]


def test_a_batch_holds_the_images_of_its_indices(make_reader):
    reader = make_reader(IDS)
    for batch in loader(reader).epoch(2):
        assert batch.epoch == 2
        assert batch.images.shape == (1, 8, 24, 24, 3)
        assert batch.images.dtype == torch.uint8
        assert batch.ids.dtype == batch.index.dtype == torch.int64
        for place, index in enumerate(batch.index.tolist()):
            assert np.array_equal(batch.images[0, place].numpy(), decode(reader.images[index]))
            assert batch.ids[place] == IDS[index]


def test_an_epoch_shows_every_image_once_and_drops_what_fills_no_batch(make_reader):
    one = loader(make_reader(IDS))
    indices = torch.cat([batch.index for batch in one.epoch(0)])
    assert one.steps_per_epoch == 6
    assert len(indices) == len(set(indices.tolist())) == 48


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(make_reader, workers: int):
    reader = make_reader(IDS, bad=frozenset({4, 17}))
    expected = copied(loader(reader, workers=0, max_bad_share=0.1).epoch(1))
    got = copied(loader(reader, workers=workers, max_bad_share=0.1).epoch(1))
    assert len(got) == 6
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_global_batches_are_the_same_on_any_number_of_processes(make_reader, world_size: int):
    reader = make_reader(IDS, bad=frozenset({4, 17}))
    options = {"max_bad_share": 0.1, "workers": 1}
    parts = [
        copied(loader(reader, batch_size=12 // world_size, rank=r, world_size=world_size, **options).epoch(1))
        for r in range(world_size)
    ]
    for step, whole in enumerate(loader(reader, batch_size=12, **options).epoch(1)):
        mine = [part[step] for part in parts]
        assert torch.equal(torch.cat([b.index for b in mine]), whole.index)
        assert torch.equal(torch.cat([b.images for b in mine], dim=1), whole.images)
        assert torch.equal(torch.cat([b.random for b in mine], dim=1), whole.random)


def test_a_resumed_epoch_continues_exactly_and_reads_nothing_twice(make_reader):
    reader = make_reader(IDS)
    whole = copied(loader(reader).epoch(4))
    reader.asked.clear()
    rest = copied(loader(reader).epoch(4, start_step=4))
    assert all(same(a, b) for a, b in zip(rest, whole[4:], strict=True))
    assert sorted(reader.asked) == sorted(torch.cat([b.index for b in whole[4:]]).tolist())
    assert list(loader(reader).epoch(4, start_step=6)) == []


def test_seeds_and_epochs_have_orders_of_their_own(make_reader):
    reader = make_reader(IDS)
    orders = {
        tuple(torch.cat([batch.index for batch in loader(reader, seed=seed).epoch(epoch)]).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_random_numbers_belong_to_seed_epoch_and_image_only(make_reader):
    reader = make_reader(IDS)

    def table(**options) -> dict[tuple[int, int], tuple[float, ...]]:
        return {
            (epoch, index): tuple(row)
            for epoch in range(2)
            for batch in loader(reader, **options).epoch(epoch)
            for index, row in zip(batch.index.tolist(), batch.random[0].tolist(), strict=True)
        }

    small, large, other = table(batch_size=2), table(batch_size=10), table(batch_size=2, seed=4)
    assert small == large
    assert len(set(small.values())) == 100
    assert not set(small.values()) & set(other.values())


class PairSampler:
    """Two different images of the same identity, the second one drawn by position."""

    views = 2
    one_identity = True

    def __len__(self) -> int:
        return 20

    def indices(self, epoch: int, position_B: np.ndarray) -> np.ndarray:
        first = (position_B * 7 + epoch) % 42
        return np.stack([first, first + 7])


def test_a_sampler_may_ask_for_several_views_of_an_identity(make_reader):
    reader = make_reader(IDS, bad=frozenset({14}))
    seen = 0
    for batch in loader(reader, sampler=PairSampler(), batch_size=4, max_bad_share=1).epoch(0):
        assert batch.images.shape == (2, 4, 24, 24, 3)
        assert batch.random.shape[:2] == (2, 4)
        for place, index in enumerate(batch.index.tolist()):
            assert {index, index + 7}.isdisjoint({14})
            assert batch.ids[place] == index % 7
            assert np.array_equal(batch.images[0, place].numpy(), decode(reader.images[index]))
            assert np.array_equal(batch.images[1, place].numpy(), decode(reader.images[index + 7]))
        assert not torch.equal(batch.random[0], batch.random[1])
        seen += 4
    assert seen == 20


def test_views_of_the_same_image_have_random_numbers_of_their_own(make_reader):
    class Twice(PairSampler):
        def indices(self, epoch: int, position_B: np.ndarray) -> np.ndarray:
            return np.stack([position_B, position_B])

    batch = next(loader(make_reader(IDS), sampler=Twice()).epoch(0))
    assert torch.equal(batch.images[0], batch.images[1])
    assert not torch.equal(batch.random[0], batch.random[1])


def test_a_batch_splits_into_parts_in_order(make_reader):
    batch = next(loader(make_reader(IDS)).epoch(0))
    parts = list(batch.split(3))
    assert [len(part.ids) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.images for part in parts], dim=1), batch.images)
    assert torch.equal(torch.cat([part.random for part in parts], dim=1), batch.random)
    assert torch.equal(torch.cat([part.index for part in parts]), batch.index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_held_is_not_written_over(make_reader, workers: int):
    batches = loader(make_reader(IDS), workers=workers).epoch(0)
    held = [next(batches), next(batches)]
    before = [batch.images.clone() for batch in held]
    for _ in batches:
        pass
    assert all(torch.equal(batch.images, images) for batch, images in zip(held, before, strict=True))


def test_memory_is_used_again_only_when_nobody_holds_it():
    buffers = Buffers((4, 5), pin=False)
    first = buffers.take()
    place = first.data_ptr()
    assert buffers.take().data_ptr() != place
    view = first[1:].view(-1).numpy()
    del first
    assert buffers.take().data_ptr() != place
    del view
    assert buffers.take().data_ptr() == place


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned_where_there_is_a_gpu(make_reader):
    assert next(loader(make_reader(IDS)).epoch(0)).images.is_pinned()


# ---- damaged records ----


def test_unreadable_images_are_replaced_counted_once_and_named(make_reader, tmp_path):
    reader = make_reader(IDS, bad=frozenset({5, 30}))
    one = loader(reader, bad_log=tmp_path / "bad.txt", max_bad_share=0.04)
    for epoch in range(3):
        for batch in one.epoch(epoch):
            assert not {5, 30} & set(batch.index.tolist())
            for place, index in enumerate(batch.index.tolist()):
                assert np.array_equal(batch.images[0, place].numpy(), decode(reader.images[index]))
    for _ in loader(reader, bad_log=tmp_path / "bad.txt", max_bad_share=0.04).epoch(3):  # as after a resume
        pass
    lines = sorted((tmp_path / "bad.txt").read_text().splitlines())
    assert lines == ["memory/30\tmade to fail", "memory/5\tmade to fail"]


def test_more_than_the_allowed_share_of_unreadable_images_stops_the_run(make_reader, tmp_path):
    reader = make_reader(IDS, bad=frozenset({5, 30}))
    with pytest.raises(
        ValueError, match=r"2 of the first \d+ images are unreadable, more than the allowed share of 0.03"
    ):
        list(loader(reader, max_bad_share=0.03, bad_log=tmp_path / "bad.txt").epoch(0))
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 2


def test_a_set_that_is_unreadable_altogether_stops_at_once(make_reader):
    reader = make_reader([0] * 3000, bad=frozenset(range(3000)))
    with pytest.raises(ValueError, match=r"^21 of the first 21 images .* 'memory/\d+' \(made to fail\)"):
        next(loader(reader).epoch(0))


def test_images_of_another_size_are_unreadable_unless_resized(make_reader):
    reader = make_reader(IDS, size=30)
    with pytest.raises(ValueError, match=r"image is 30x30 pixels where 24x24 is wanted"):
        next(loader(reader).epoch(0))
    assert next(loader(reader, resize=True).epoch(0)).images.float().std() > 10


def test_when_all_is_allowed_to_be_bad_the_search_for_a_good_image_ends(make_reader):
    reader = make_reader(IDS, bad=frozenset(range(50)))
    with pytest.raises(ValueError, match=r"21 items in a row were unreadable; see bad_log \(not set\)"):
        next(loader(reader, max_bad_share=1.0).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_that_is_no_damaged_record_reaches_the_caller(make_reader, workers: int):
    reader = make_reader(IDS)
    reader.images[7] = None  # as a defect of a reader would give
    with pytest.raises(TypeError, match="NoneType"):
        list(loader(reader, workers=workers).epoch(0))
    assert not data_threads()


# ---- threads ----


def data_threads() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith("facescale-data")}


def test_closing_or_dropping_an_epoch_leaves_no_thread(make_reader):
    before = data_threads()
    batches = loader(make_reader(IDS)).epoch(0)
    next(batches)
    assert data_threads() > before
    batches.close()
    assert data_threads() <= before
    for _ in islice(loader(make_reader(IDS)).epoch(0), 2):
        pass
    assert data_threads() <= before


def test_work_runs_ahead_of_its_consumer_but_not_further_than_told():
    started: list[int] = []
    jobs = ((n, [lambda n=n: started.append(n)]) for n in range(20))
    results = in_order(jobs, workers=1, ahead=3)
    assert next(results)[0] == 0
    results.close()
    assert max(started) <= 3


# ---- arguments ----


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"rank": 2, "world_size": 2}, r"rank is 2 of 2 processes; it must lie in 0\.\.1"),
        (
            {"batch_size": 30, "world_size": 2},
            "the data has 50 items, fewer than one batch of 60",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(make_reader, options: dict[str, int], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        loader(make_reader(IDS), **options)


@pytest.mark.parametrize("start", [-1, 7])
def test_a_start_beyond_the_epoch_is_refused(make_reader, start: int):
    with pytest.raises(ValueError, match=f"start_step is {start}; an epoch has 6 steps"):
        loader(make_reader(IDS)).epoch(0, start)


# ---- images in order ----


def copied_images(batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images.clone(), index) for images, index in batches]


@pytest.mark.parametrize("workers", [0, 3])
def test_every_image_comes_once_in_order(make_reader, workers: int):
    reader = make_reader(IDS)
    batches = copied_images(iter_images(reader, batch_size=16, size=24, workers=workers))
    assert [len(images) for images, _ in batches] == [16, 16, 16, 2]
    assert torch.equal(torch.cat([index for _, index in batches]), torch.arange(50))
    images = torch.cat([images for images, _ in batches])
    assert all(np.array_equal(images[i].numpy(), decode(reader.images[i])) for i in range(50))


def test_files_are_read_by_their_paths(make_folder):
    root = make_folder()
    paths = sorted(root.rglob("*.jpg"))
    (images, index), *rest = iter_images(paths, batch_size=10, size=24)
    assert rest == []
    assert index.tolist() == list(range(6))
    assert np.array_equal(images[4].numpy(), decode(paths[4].read_bytes()))


def test_an_unreadable_image_is_named_or_left_out_on_request(make_reader, make_folder):
    reader = make_reader(IDS, bad=frozenset({3, 20}))
    with pytest.raises(ValueError, match="cannot read image 'memory/3': made to fail"):
        list(iter_images(reader, batch_size=8, size=24))
    bad: dict[int, str] = {}
    batches = copied_images(iter_images(reader, batch_size=8, size=24, bad=bad))
    assert bad == {3: "made to fail", 20: "made to fail"}
    assert torch.cat([index for _, index in batches]).tolist() == [i for i in range(50) if i not in bad]
    images = torch.cat([images for images, _ in batches])
    assert np.array_equal(images[3].numpy(), decode(reader.images[4]))
    with pytest.raises(ValueError, match=r"cannot read image '.*nobody.jpg'"):
        list(iter_images([make_folder() / "nobody.jpg"], batch_size=8, size=24))

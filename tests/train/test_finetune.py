"""A run that starts from another one: people who came, left or moved keep or lose their class centres."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from facescale.config import Config, load_config
from facescale.data import open_reader
from facescale.data.identities import old_numbers, write_identities
from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead
from facescale.plan import make_plan
from facescale.prepare.convert_data import convert_data
from facescale.run import RunDir
from facescale.train import train
from facescale.train.build import build_task
from facescale.train.finetune import inherit
from facescale.train.task import RecognitionTask
from tests.tiny import TINY

OLD = ("anna", "ben", "cara", "dan")
NEW = (
    "aaron",
    "cara",
    "dan",
    "ben-2",
    "ben",
)  # anna left; aaron and ben-2 came; everybody has another number


class People:
    """As much of a reader as names need."""

    def __init__(self, *names: str, num_ids: int = 0) -> None:
        self.num_ids = len(names) or num_ids
        if names:
            self.names = names


def match(tmp_path: Path, old: Any, new: Any, old_data: str = '"faces/"', new_data: str = '"faces/"') -> Any:
    configs = [load_config(None, [f"data.train={data}"]) for data in (old_data, new_data)]
    write_identities(tmp_path / "identities.json", configs[0], old)
    return old_numbers(tmp_path / "identities.json", configs[1], new).tolist()


def test_people_are_found_by_their_names(tmp_path: Path) -> None:
    assert match(tmp_path, People(*OLD), People(*NEW)) == [-1, 2, 3, -1, 1]


def test_a_moved_folder_has_the_same_people(tmp_path: Path) -> None:
    assert match(tmp_path, People(*OLD), People(*OLD), '"here/faces"', '"there/faces"') == [0, 1, 2, 3]


def test_joining_a_second_source_keeps_the_first_ones_people(tmp_path: Path) -> None:
    joined = People("faces//anna", "faces//ben", "more//anna")
    data = '["faces/", "more/"]'
    assert match(tmp_path, People("anna", "ben"), joined, new_data=data) == [0, 1, -1]
    assert match(tmp_path, joined, People("ben", "anna"), old_data=data) == [1, 0]
    assert match(tmp_path, joined, People(*reversed(joined.names)), data, data) == [2, 1, 0]


def test_joined_sources_are_known_by_their_last_folder_and_by_nothing_else(tmp_path: Path) -> None:
    def joined(*labels: str) -> People:
        return People(*(f"{label}/anna" for label in labels))

    def found(old: list[str], new: list[str]) -> Any:
        return match(tmp_path, joined(*old), joined(*new), json.dumps(old), json.dumps(new))

    assert found(["a/ms", "a/wf"], ["b/wf/", "b/ms/train.rec"]) == [1, 0]
    assert found(["a/ms", "a/wf"], ["a/ms", "a/other"]) == [0, -1]
    assert found(["a/ms", "b/ms"], ["c/ms", "b/ms/"]) == [0, 1]
    assert found(["a/ms", "b/ms"], ["c/ms", "d/ms"]) == [-1, -1], "two of one name are ambiguous"


@pytest.mark.parametrize("form", ["recordio", "im2rec", "folder"])
def test_people_are_known_by_name_in_a_converted_set(tmp_path: Path, form: str) -> None:
    faces = open_reader(draw(tmp_path / "faces", OLD))
    convert_data(faces, tmp_path / "converted", form=form)
    converted = open_reader(tmp_path / "converted")
    assert match(tmp_path, faces, converted, '"faces"', '"converted"') == [0, 1, 2, 3]
    assert match(tmp_path, converted, open_reader(draw(tmp_path / "new", NEW))) == [-1, 1, -1, 2, 3]


def test_a_file_of_the_first_release_is_read(tmp_path: Path) -> None:
    file, people = tmp_path / "identities.json", People("cara", "anna")
    for source, data, old in (("faces", "faces", "anna"), ("", '["faces", "more"]', "faces/anna")):
        file.write_text(json.dumps({"source": source, "num_ids": 2, "names": [old, "x"]}))
        config = load_config(None, [f"data.train={data}"])
        joined = people if source else People("faces/cara", "faces/anna")
        assert old_numbers(file, config, joined).tolist() == [-1, 0]  # type: ignore[arg-type]
    file.write_text(json.dumps({"source": "synthetic:ids=2", "num_ids": 2, "names": None}))
    assert old_numbers(file, load_config(), People(num_ids=3)).tolist() == [0, 1, -1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"source": "a", "num_ids": 2, "names": ["x"]}',
        '{"source": "a"}',
        '{"sources": ["a"], "identities": [2], "names": ["x"]}',
        '{"sources": ["a"], "identities": [1], "names": [1]}',
        '{"sources": ["a"], "identities": [-1], "names": null}',
        '{"sources": ["a", "b"], "identities": [1], "names": ["x"]}',
    ],
)
def test_a_damaged_list_of_identities_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "identities.json"
    file.write_text(text)
    message = r"identities.json'.*; put it back from a copy; or, to start from the network"
    with pytest.raises(ValueError, match=message):
        old_numbers(file, load_config(), People(*OLD))  # type: ignore[arg-type]


def test_people_without_names_are_their_numbers(tmp_path: Path) -> None:
    assert match(tmp_path, People(num_ids=3), People(num_ids=5)) == [0, 1, 2, -1, -1]
    assert match(tmp_path, People(num_ids=3), People(num_ids=2)) == [0, 1]
    assert match(tmp_path, People(num_ids=3), People("2", "x")) == [2, -1]


def test_a_run_that_does_not_say_who_its_people_are_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"does not name its identities \(no identities.json\); to start from"
    ):
        old_numbers(tmp_path / "identities.json", load_config(), People(*OLD))  # type: ignore[arg-type]


def draw(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder of drawn people, three pictures each."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def settings(data: Path, *more: str) -> list[str]:
    return [*TINY, f"data.train={data}", "eval.sets={}", "train.duration=2 steps", *more]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over four people."""
    folder = tmp_path_factory.mktemp("old")
    config = load_config(None, settings(draw(folder / "faces", OLD), "optim.lr=10"))
    return train(config, folder / "run").run.path


def begun(config: Config, folder: Path) -> tuple[RecognitionTask, int]:
    """A task that has just taken over what its config says, and for how many people."""
    reader = open_reader(config.data.train)
    task = build_task(config, make_plan(config, Dist(), reader), Dist(), folder / "centres")
    return task, inherit(config, task, reader)


def centres(task: RecognitionTask) -> torch.Tensor:
    assert isinstance(task.head, CentreHead)
    return task.head.read_rows(torch.arange(task.head.num_ids)).clone()


def centres_of(run: Path) -> torch.Tensor:
    """Those of the last checkpoint."""
    config = load_config(RunDir(run).config)
    task = build_task(config, make_plan(config, Dist(), open_reader(config.data.train)), Dist(), run)
    task.head.load_rows(RunDir(run).model_path().parent)
    return centres(task)


@pytest.mark.parametrize("head", ["full", "partial_fc", "disk"])
def test_centres_follow_their_people(old: Path, tmp_path: Path, head: str) -> None:
    name = ["head.name=partial_fc", "head.placement=disk"] if head == "disk" else [f"head.name={head}"]
    names = tuple(sorted(NEW))
    data = draw(tmp_path / "faces", names)
    task, known = begun(load_config(None, settings(data, f"train.init={old}", *name)), tmp_path)
    fresh, none = begun_fresh(settings(data, *name), tmp_path / "fresh")
    before, after = centres_of(old), centres(task)
    assert (known, none) == (3, len(names))
    for number, who in enumerate(names):
        expected = before[OLD.index(who)] if who in OLD else fresh[number]
        assert torch.equal(after[number], expected), who


def begun_fresh(settings: list[str], folder: Path) -> tuple[torch.Tensor, int]:
    """Centres as they are without anything taken over, and how many."""
    config = load_config(None, settings)
    plan = make_plan(config, Dist(), open_reader(config.data.train))
    made = centres(build_task(config, plan, Dist(), folder))
    return made, len(made)


def test_the_network_and_all_that_follow_it_are_taken_over(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", OLD)
    config = load_config(None, settings(data, f"train.init={old}", "head.name=attfc", "head.share=1.0"))
    task, known = begun(config, tmp_path)
    expected = load_file(RunDir(old).model_path())
    assert known == 0, "a container has no centre of everybody"
    assert task.average is not None and task.twin is not None
    for net in (task.backbone, task.average.net, task.twin.net):
        assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())


def test_a_weights_file_gives_the_network_alone(old: Path, tmp_path: Path) -> None:
    data, weights = draw(tmp_path / "faces", OLD), RunDir(old).model_path()
    task, known = begun(load_config(None, settings(data, f"train.init={weights}")), tmp_path)
    assert known == 0
    assert torch.equal(centres(task), begun_fresh(settings(data), tmp_path)[0])
    expected = load_file(weights)
    assert all(torch.equal(value, expected[key]) for key, value in task.backbone.state_dict().items())


def test_another_network_is_refused(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", OLD)
    wrong = settings(data, f"train.init={old}", "backbone.embedding_size=64")
    message = r"\(mbf_s, 32-d\) does not fit the config's \(mbf_s, 64-d\); set \[backbone\]"
    with pytest.raises(ValueError, match=message):
        begun(load_config(None, wrong), tmp_path)


def test_nothing_to_start_from_is_one_sentence(tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", OLD)
    with pytest.raises(ValueError, match=r"'nowhere' does not exist; .* a run folder or a weights file"):
        begun(load_config(None, settings(data, "train.init=nowhere")), tmp_path)


def test_a_training_starts_from_another_one_and_resumes_without_it(old: Path, tmp_path: Path) -> None:
    run, source = tmp_path / "run", tmp_path / "source"
    shutil.copytree(old, source)
    words = settings(draw(tmp_path / "faces", tuple(sorted(NEW))), f"train.init={source}")
    lines: list[dict[str, Any]] = []
    done = train(load_config(None, words), run, on_log=lambda line, plan: lines.append(line))
    assert done.finished and lines[0]["known_identities"] == 3
    shutil.rmtree(source)
    again: list[dict[str, Any]] = []
    assert train(load_config(None, words), run, on_log=lambda line, plan: again.append(line)).step == 2
    assert "known_identities" not in again[0]


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        ((*OLD, "eve"), r"5 people instead of 4: 1 added \(such as 'eve'\)"),
        (OLD[:3], r"3 people instead of 4: 1 removed \(such as 'dan'\)"),
    ],
    ids=["more people", "fewer people"],
)
def test_a_run_does_not_go_on_with_other_people(
    old: Path, tmp_path: Path, names: tuple[str, ...], counts: str
) -> None:
    faces = old.parent / "faces"
    shutil.copytree(old, tmp_path / "run")
    faces.rename(tmp_path / "kept")
    try:
        draw(faces, names)
        with pytest.raises(ValueError, match=counts + r".*; .* start another run with --set train\.init="):
            train(load_config(RunDir(old).config), tmp_path / "run")
    finally:
        shutil.rmtree(faces)
        (tmp_path / "kept").rename(faces)

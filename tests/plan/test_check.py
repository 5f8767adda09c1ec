import sys
from pathlib import Path

import pytest

from facescale.backbones import BACKBONES
from facescale.config import Config, HeadConfig, OptimConfig, TwinConfig
from facescale.heads import HEADS
from facescale.margins import MARGINS
from facescale.plan.check import check_components, read_config


def mistakes(*settings: str, path: Path | None = None) -> list[str]:
    with pytest.raises(ValueError) as caught:
        read_config(path, settings)
    return str(caught.value).splitlines()


def test_defaults_have_no_mistake() -> None:
    assert read_config() == Config()
    check_components(Config())


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        "[trian]\nx = 1\n[train]\nseed = true\n[backbone]\nname = 'r18'\ndropout = inf\ndropuot = 1\n"
        "[head]\nname = 'partial_fc'\nrate = 'abc'\n[head.margin]\nname = 'cosfase'\n"
    )
    assert mistakes("head.chunk=1.5", "head.placement=5", path=path) == [
        f"{path}: train.seed = True: input should be a valid integer",
        f"{path}: unknown section 'trian' (did you mean 'train'?)",
        f"{path}: backbone.dropout = inf: backbone 'r18' takes a finite number here",
        f"{path}: backbone 'r18' has no option 'dropuot' (did you mean 'dropout'?); "
        "it takes: dropout, input_size, checkpointing, crop",
        f"{path}: unknown margin 'cosfase' (did you mean 'cosface'?); choose one of: {', '.join(MARGINS)}",
        f"{path}: head.rate = 'abc': head 'partial_fc' takes a finite number or a list of finite numbers "
        "here",
        "--set head.chunk=1.5: head 'partial_fc' takes a whole number here",
        "--set head.placement=5: head 'partial_fc' takes one of device, host, disk here",
    ]


def test_ranges_are_checked_by_the_component_and_each_is_put_down_to_its_option() -> None:
    lines = mistakes(
        "head.name=partial_fc", "head.rate=3", "head.chunk=-1", "head.placement=dsk", "head.margin.scale=-4",
        "backbone.name=r18", "backbone.dropout=5", "backbone.crop=[1,2]",
    )  # fmt: skip
    assert [line.split(": ")[0] for line in lines] == [
        "--set backbone.crop=[1,2]",
        "--set backbone.dropout=5",
        "--set head.margin.scale=-4",
        "--set head.placement=dsk",
        "--set head.rate=3",
        "--set head.chunk=-1",
    ]
    assert lines[4] == (
        "--set head.rate=3: rate of partial_fc is 3; it is a share from 0 to 1 (0.1 is usual), "
        "or a list of shares"
    )


def test_a_range_is_checked_beside_options_that_are_unknown_or_of_another_type() -> None:
    lines = mistakes(
        "head.name=attfc", "head.key=3", "head.fresh=1", "head.temperature=-1", "optim.betas=[0.5, 0.6]"
    )
    assert [line.split(": ")[0] for line in lines] == [
        "--set head.key=3",
        "--set head.fresh=1",
        "--set head.temperature=-1",
        "--set optim.betas=[0.5, 0.6]",
    ]


def test_options_that_exclude_each_other_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[head]\nname = 'partial_fc'\nrate = 0.1\n")
    assert mistakes("head.num_negatives=5", path=path) == [
        "--set head.num_negatives=5: partial_fc got rate=0.1 and num_negatives=5; give one of them"
    ]
    assert mistakes("head.refresh=0.3", "head.name=attfc", path=None)[0].startswith(
        "--set head.refresh=0.3: "
    )
    read_config(None, ["head.name=attfc", "head.refresh=0.3", "head.unique=true"])


def test_a_margin_that_the_head_cannot_use_is_refused() -> None:
    (line,) = mistakes("head.name=attfc", "head.margin.name=robustface")
    assert line.startswith(
        "--set head.name=attfc --set head.margin.name=robustface: margin RobustFace does not "
    )


def test_class_centres_on_disk_need_no_folder_of_the_user() -> None:
    read_config(None, ["head.placement=disk"])


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("head.name=arcface", "'arcface' is a margin, not a head; write head.margin.name = 'arcface'"),
        (
            "head.margin.name=partial_fc",
            "'partial_fc' is a head, not a margin; write head.name = 'partial_fc'",
        ),
        ("backbone.name=resnet50", "unknown backbone 'resnet50'; here it is r50"),
        ("head.name=pfc", "unknown head 'pfc'; here it is partial_fc"),
        ("head.margin.name=amsoftmax", "unknown margin 'amsoftmax'; here it is cosface"),
        ("head.rate=0.1", "head 'full' has no option 'rate' (an option of partial_fc); it takes: "),
        (
            "head.margin.margin=0.1",
            "margin 'cosface' has no option 'margin'; here it is head.margin.m; it takes: ",
        ),
        ("head.margin.m=true", "margin 'cosface' takes a finite number here"),
        ("head.margin.m=nan", "margin 'cosface' takes a finite number here"),
        ("head.seed=1.5", "head 'full' takes a whole number here"),
        ("head.directory=x", "placement is 'device' and directory is x"),
        ("backbone.input_size=0", "input_size is 0; it must be a positive whole number"),
    ],
)
def test_a_wrong_component_or_option_is_answered(setting: str, text: str) -> None:
    (line,) = mistakes(setting)
    assert line.startswith(f"--set {setting}: {text}")


def test_a_pool_of_any_size_is_checked_without_its_memory() -> None:
    read_config(None, ["head.name=attfc", "head.size=1_000_000_000_000"])
    (line,) = mistakes("head.name=attfc", "head.size=-1")
    assert line.startswith("--set head.size=-1: slots are size=-1, share=0.3; give a size above 0")


def test_a_network_of_timm_is_not_made_for_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    read_config(None, ["backbone.name=timm:resnet18", "backbone.pretrained=true"])
    (line,) = mistakes("backbone.name=timm:resnet18", "backbone.crop=abc")
    assert line == "--set backbone.crop=abc: backbone 'timm:resnet18' takes a list of whole numbers here"


@pytest.mark.parametrize(
    "part", ["head=3", "head.margin=3", "backbone=3", "optim=3", "head.name=3", "twin=3"]
)
def test_what_is_no_section_is_left_to_the_schema(part: str) -> None:
    assert len(mistakes(part)) == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["optim.name=adamw", "optim.momentum=0.9"], "optim.name = 'adamw'"),
        (["optim.name=adamw", "optim.nesterov=true"], "optim.name = 'adamw'"),
        (["optim.betas=[0.9, 0.99]"], "optim.name = 'sgd'"),
        (["optim.schedule=cosine", "optim.power=2"], "optim.schedule = 'cosine'"),
        (["optim.schedule=multistep", "optim.power=2.0"], "optim.schedule = 'multistep'"),
        (["optim.milestones=['1 epoch']"], "optim.schedule = 'polynomial'"),
        (["optim.schedule=cosine", "optim.gammas=[0.5]"], "optim.schedule = 'cosine'"),
        (["optim.schedule=multistep", "optim.gammas=[0.5]"], "optim.milestones = []"),
        (["twin.momentum=0.99"], "head.name = 'full', which has no twin"),
        (["head.name=partial_fc", "twin.buffers=own"], "head.name = 'partial_fc', which has no twin"),
        (["head.name=f2c", "head.size=100", "head.share=0.5"], "head.size = 100"),
        (["optim.name=adamw", "head.momentum=0.5"], "optimizer 'adamw' of the class centres"),
    ],
)
def test_a_value_that_nothing_reads_is_refused(settings: list[str], why: str) -> None:
    (line,) = mistakes(*settings)
    key = settings[-1].partition("=")[0]
    assert line.startswith(
        f"--set {settings[-1]}: has no effect with {why}; take it out (--set {key}=), or set "
    )


@pytest.mark.parametrize(
    "settings",
    [
        ["optim.momentum=0.8", "optim.nesterov=true", "optim.power=2"],
        ["optim.name=adamw", "optim.betas=[0.8, 0.9]", "optim.schedule=cosine"],
        ["optim.schedule=multistep", "optim.milestones=['1 epoch']", "optim.gammas=[0.5]"],
        ["optim.name=adamw", "head.optimizer=sgd", "optim.momentum=0.8"],
        ["head.name=attfc", "twin.momentum=0.9", "head.size=100"],
        ["head.name=f2c", "twin.schedule=cosine", "head.share=0.5"],
    ],
)
def test_values_that_are_read_are_accepted(settings: list[str]) -> None:
    read_config(None, settings)


def test_what_a_file_sets_can_be_taken_out_when_another_head_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[head]\nname = 'attfc'\n[twin]\nmomentum = 0.9\nschedule = 'warmup'\n")
    assert [line.split(": ")[1] for line in mistakes("head.name=full", path=path)] == [
        "twin.momentum = 0.9",
        "twin.schedule = 'warmup'",
    ]
    assert read_config(path, ["head.name=full", "twin="]).twin == TwinConfig()
    read_config(path, ["head.name=full", "twin.momentum=", "twin.schedule="])


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_accepted_with_its_defaults(name: str) -> None:
    read_config(None, [f"head.name={name}"])


@pytest.mark.parametrize("name", [*BACKBONES, "timm:any"])
def test_every_backbone_is_accepted_with_its_defaults(name: str) -> None:
    read_config(None, [f"backbone.name={name}"])


@pytest.mark.parametrize("name", MARGINS)
def test_every_margin_is_accepted_with_its_defaults(name: str) -> None:
    read_config(None, [f"head.margin.name={name}"])


def test_a_config_made_in_python_is_checked_too() -> None:
    config = Config(
        head=HeadConfig(name="full", chunk="a"),
        optim=OptimConfig(betas=(0.5, 0.6)),
        twin=TwinConfig(momentum=0.5),
    )
    with pytest.raises(ValueError) as caught:
        check_components(config)
    assert str(caught.value).splitlines() == [
        "head.chunk = 'a': head 'full' takes a whole number here",
        "optim.betas = (0.5, 0.6): has no effect with optim.name = 'sgd'; "
        "take it out (--set optim.betas=), or set optim.name = 'adamw'",
        "twin.momentum = 0.5: has no effect with head.name = 'full', which has no twin; "
        "take it out (--set twin.momentum=), or set head.name = 'attfc' or 'f2c'",
    ]

"""Configs of arcface_torch, AttFC and F2C are translated without being run."""

from pathlib import Path
from typing import Any

import pytest

from facescale.config import changed_keys, load_config
from facescale.recipes.import_config import import_configs

INSIGHTFACE = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "r50"
config.sample_rate = 0.2
config.weight_decay = 5e-4
config.batch_size = 512
config.lr = 0.4
config.rec = "/train_tmp/webface42m"
config.num_classes = 2059906
config.num_epoch = 20
config.warmup_epoch = config.num_epoch // 10
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]
"""
ATTFC = """
config = edict()
config.margin_list = (1.0, 0.5, 0.0)
config.network = "r50"
config.data_root = "faces"
config.num_classes = 93431
config.batch_size = 384
config.queue_size = int((config.num_classes * 0.3) / config.batch_size) * config.batch_size
config.sample_num = 2 + 1
config.num_epoch = 5
config.lr = 0.1
"""
F2C_MAIN = """
import argparse
conf = argparse.ArgumentParser()
conf.add_argument('--net_type', type=str, default='mobile')
conf.add_argument('--queue_size', type=int, default=7409)
conf.add_argument('--margin', type=float, default=0.5)
conf.add_argument('--sync_bn', action='store_true', default=False)
"""
F2C_SHELL = """
queue_size= # ids * ratio
net_type=ir50
batch_size=64
loss_type=AM
python main.py --net_type=${net_type} --queue_size=${queue_size} --batch_size=$batch_size \\
  --loss_type=${loss_type}
"""
F2C_OPTIM = """{"scheduler": ["str", "multistep"], "epochs": ["int", "19"],
"milestones": ["int", [8, 14, 17]], "gammas": ["float", [0.1, 0.1, 0.1]], "LR": ["float", "0.1"],
"decay": ["float", "0.0001"], "nesterov": ["bool", "1"]}"""
NOT_SAID = {"data.train", *(f"eval.sets.{name}" for name in ("lfw", "cfp_fp", "agedb_30", "synthetic"))}


def written(folder: Path, **files: str) -> list[Path]:
    paths = []
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def translated(folder: Path, processes: int = 8, **files: str) -> Any:
    out = folder / "out.toml"
    out.write_text(import_configs(written(folder, **files), processes), encoding="utf-8")
    return load_config(out)


def test_a_released_config_is_our_recipe(tmp_path: Path) -> None:
    ours = load_config("wf42m_r50_pfc02")
    config = translated(tmp_path, c__py=INSIGHTFACE)
    assert {key.split(".")[0] for key in changed_keys(config, ours)} == {"data", "eval"}
    assert config.data.train == "/train_tmp/webface42m/train.rec"
    assert config.eval.sets["lfw"] == "/train_tmp/webface42m/lfw.bin"


def test_the_first_form_of_a_config_has_its_rate_for_512_images_and_steps(tmp_path: Path) -> None:
    """They name a loss in place of margins; their trainer scaled the rate from 512 images."""
    text = INSIGHTFACE.replace("config.margin_list = (1.0, 0.0, 0.4)", 'config.loss = "arcface"')
    text += "config.sample_rate = 1.0\nconfig.batch_size = 128\nconfig.lr = 0.1\nconfig.num_epoch = 25\n"
    text += 'config.network = "r18"\nconfig.warmup_epoch = -1\nconfig.decay_epoch = [10, 16, 22]\n'
    config = translated(tmp_path, c__py=text)
    left = {key.split(".")[0] for key in changed_keys(config, load_config("ms1mv3_r18"))}
    assert left == {"data", "eval"} and config.optim.reference_batch == 512


def test_attfc_is_our_recipe(tmp_path: Path) -> None:
    config = translated(tmp_path, 1, c__py=ATTFC)
    assert config.head.options == {"keys": 2, "size": 93431 * 3 // 10 // 384 * 384}
    left = set(changed_keys(config, load_config("ms1mv3_r50_attfc")))
    assert left <= NOT_SAID | {"head.share", "head.size", "optim.momentum"}


def test_the_files_of_f2c_are_our_recipe(tmp_path: Path) -> None:
    config = translated(tmp_path, main__py=F2C_MAIN, train_ffc__sh=F2C_SHELL, optim_config=F2C_OPTIM)
    assert config.head.options == {"size": 7409}
    left = set(changed_keys(config, load_config("ms1mv3_ir50_f2c")))
    assert left <= NOT_SAID | {"head.share", "head.size", "optim.gammas"}


@pytest.mark.parametrize(
    ("line", "section", "expected"),
    [
        ("config.margin_list = (1.0, 0.5, 0.0)", "margin", {"name": "arcface", "m": 0.5}),
        ("config.margin_list = (1.35, 0.5, 0.0)", "margin", {"name": "combined", "m1": 1.35, "m2": 0.5}),
        ("config.interclass_filtering_threshold = 0.4", "margin", {"interclass_filter": 0.4}),
        ("config.sample_rate = 1.0", "head", {"name": "full"}),
        ("config.sample_rate = 0", "head", {"name": "partial_fc", "rate": 0.0}),
        (
            "config.network = 'vit_b_dp005_mask_005'",
            "backbone",
            {"name": "vit_b", "drop_path": 0.05, "mask_ratio": 0.05},
        ),
        (
            "config.network = 'vit_t_dp005_mask0'",
            "backbone",
            {"name": "vit_t", "drop_path": 0.05, "mask_ratio": 0.0},
        ),
        ("config.optimizer = 'adamw'", "optim", {"name": "adamw", "momentum": 0.9}),
        ("config.gradient_acc = 12", "train", {"accumulate": 12, "batch_size": 512 * 8 * 12}),
        ("config.seed = -(-7)", "train", {"seed": 7}),
    ],
)
def test_each_setting_has_its_counterpart(
    line: str, section: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    config = translated(tmp_path, c__py=f"{INSIGHTFACE}\n{line}\n").model_dump()
    found = config["head"]["margin"] if section == "margin" else config[section]
    assert {key: found[key] for key in expected} == expected


def test_what_has_no_counterpart_is_listed(tmp_path: Path) -> None:
    text = INSIGHTFACE + "config.dali = True\nconfig.lr_func = lambda e: e\nconfig.note = 'a\\nb'\n"
    lines = import_configs(written(tmp_path, c__py=text), 8).splitlines()
    assert "# No counterpart: dali = True" in lines
    assert "# Not read, since only running it would give its value: lr_func" in lines
    assert "# No counterpart: note = 'a\\nb'" in lines


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').write('x')"
    text = f"{code}\nimport os\nos.system('touch {mark}')\n{INSIGHTFACE}config.seed = exec({code!r})\n"
    assert "seed" in import_configs(written(tmp_path, c__py=text), 8)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.py", "config.lr = (", "is not valid Python"),
        ("c.py", "print(1)", "holds no settings of a known form"),
        ("c.json", "[", r"is neither \.py, \.sh nor JSON"),
        ("c.json", "[1]", "holds no settings"),
        ("c.py", INSIGHTFACE + "config.margin_list = 3", "margin_list = 3 is not three numbers"),
        ("c.py", INSIGHTFACE + "config.batch_size = 'x'", "batch_size = 'x' is not a number"),
        (
            "c.py",
            INSIGHTFACE + "config.network = 'r51'",
            "the network has no counterpart: unknown backbone 'r51'",
        ),
        ("c.py", INSIGHTFACE + "config.decay_epoch = 'x'", "decay_epoch = 'x' is not a list of epochs"),
        (
            "c.sh",
            "python main.py --net_type=ir50 --loss_type=XX",
            "loss_type = 'XX' is not one of AM, Arc and SV",
        ),
        ("c.py", "#" * (2**20 + 1), "has 1,048,577 bytes, and 1,048,576 are the most"),
        ("c.py", "config.a = " + "(" * 5000 + ")" * 5000, "is not valid Python|no settings"),
    ],
)
def test_what_cannot_be_translated_gets_a_sentence(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        import_configs([tmp_path / name], 8)


def test_numbers_beyond_any_config_are_not_computed(tmp_path: Path) -> None:
    text = INSIGHTFACE + "config.a = 10 ** 10 ** 10\nconfig.b = 9e14 * 9e14\nconfig.c = config.b * 1\n"
    (tmp_path / "c.py").write_text(text)
    translated_text = import_configs([tmp_path / "c.py"], 8)
    assert "would give its value: a\n" in translated_text and "would give its value: c\n" in translated_text


def test_unreadable_files_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the config"):
        import_configs([tmp_path / "none.py"], 8)
    (tmp_path / "b.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file"):
        import_configs([tmp_path / "b.py"], 8)


def test_the_command_line_prints_or_writes(tmp_path: Path, facescale: Any) -> None:
    (source,) = written(tmp_path, c__py=INSIGHTFACE)
    code, printed, _ = facescale("import-config", str(source), "--processes", "4")
    assert code == 0 and "batch_size = 2048" in printed
    source.write_text(f"{INSIGHTFACE}config.dali = True\n")
    code, said, _ = facescale("import-config", str(source), "--out", str(tmp_path / "o.toml"))
    assert said.startswith("No counterpart: dali = True\n")
    assert (
        code == 0 and "facescale train" in said and load_config(tmp_path / "o.toml").train.batch_size == 4096
    )

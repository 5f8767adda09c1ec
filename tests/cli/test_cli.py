import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from facescale.cli.app import app
from facescale.cli.listing import KINDS


def test_help_does_not_import_torch() -> None:
    code = "import sys; import facescale.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        *sorted(command.name or command.callback.__name__ for command in app.registered_commands),
        "bench heads",
    ],
)
def test_every_command_has_help(facescale, command: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale(*command.split(), "--help")
    assert code == 0 and "Usage" in out


def test_a_mistake_is_one_sentence_and_exit_code_2(facescale) -> None:  # type: ignore[no-untyped-def]
    code, out, err = facescale("train", "nowhere.toml")
    assert (code, out) == (2, "")
    assert (
        err == "facescale: cannot read the config 'nowhere.toml': No such file or directory; check the path\n"
    )


def test_wrong_components_are_all_named(facescale) -> None:  # type: ignore[no-untyped-def]
    settings = ["--set", "backbone.name=r51", "--set", "head.margin.nargin=1", "--set", "head.name=fulll"]
    code, _, err = facescale("config", *settings)
    assert code == 2
    assert "--set backbone.name=r51: unknown backbone 'r51' (did you mean 'r50'?)" in err
    assert "--set head.name=fulll: unknown head 'fulll' (did you mean 'full'?)" in err
    assert "--set head.margin.nargin=1: margin 'cosface' has no option 'nargin'" in err


@pytest.mark.parametrize("command", ["config", "train", "plan", "demo"])
def test_a_wrong_value_of_an_option_is_one_sentence_before_anything_starts(facescale, command: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = facescale(command, "--set", "head.name=attfc", "--set", "head.share=abc")
    assert (code, out) == (2, "")
    assert err == "facescale: --set head.share=abc: head 'attfc' takes a finite number here\n"


def test_config_explains_itself(facescale) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("config", "--explain", "--json")
    rows = json.loads(out)
    assert code == 0 and all({"key", "type", "default", "meaning"} == row.keys() for row in rows)
    assert {"optim.lr", "head.rate", "head.margin.m", "backbone.crop"} <= {row["key"] for row in rows}


@pytest.mark.parametrize(
    "kind", [pytest.param("backbones", marks=pytest.mark.slow), "heads", "margins", "readers", "evaluators"]
)
def test_components_are_listed(facescale, kind: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("list", kind, "--json")
    rows = json.loads(out)
    assert code == 0 and rows[0].keys() >= {"name", "options"}
    assert (rows[-1]["name"] == "timm:NAME") == (kind == "backbones")


def test_backbones_are_listed_with_their_size(facescale, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    networks = cast(dict[str, Any], KINDS["backbones"].factories)
    for name in {*networks} - {"r18", "timm:NAME"}:  # counting all takes ten seconds
        monkeypatch.delitem(networks, name)
    code, out, _ = facescale("list", "backbones", "--json")
    known, any_timm = json.loads(out)
    assert code == 0 and any_timm["name"] == "timm:NAME" and "input_size" in str(known["options"])
    assert (known["name"], known["parameters"], known["multiply-adds"]) == ("r18", "24.0 M", "2.61 G")


def test_without_a_kind_the_names_of_all_components_are_listed(facescale) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("list", "--json")
    rows = {row["kind"]: row["names"].split(", ") for row in json.loads(out)}
    assert code == 0 and {"heads", "margins"} < rows.keys()
    assert {"full", "partial_fc", "attfc", "f2c"} <= {*rows["heads"]} and "timm:NAME" in rows["backbones"]


def test_an_unknown_kind_of_component_is_one_sentence(facescale) -> None:  # type: ignore[no-untyped-def]
    code, _, err = facescale("list", "head")
    assert code == 2 and "unknown kind of component 'head' (did you mean 'heads'?)" in err


def test_evaluate_export_embed_and_report_work_on_a_run(facescale, tiny_run: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("evaluate", str(tiny_run), "--out", str(tmp_path / "r.html"), "--json")
    values = json.loads(out)
    assert code == 0 and 0 <= values["results"][0]["accuracy"]["mean"] <= 1
    assert (tmp_path / "r.html").read_text().startswith("<!")

    code, out, _ = facescale("export", str(tiny_run), "--out", str(tmp_path / "m.onnx"))
    assert code == 0 and "largest difference" in out and (tmp_path / "m.onnx").stat().st_size > 100_000

    code, out, _ = facescale("report", str(tiny_run), "--out", str(tmp_path / "log.html"))
    assert code == 0 and (tmp_path / "log.html").is_file()


def test_a_protocol_is_drawn_from_a_folder_and_used(
    facescale, tiny_run: Path, folder: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    csv = tmp_path / "pairs.csv"
    code, out, _ = facescale("pairs", str(folder), "--out", str(csv), "--num-pairs", "8", "--folds", "2")
    assert code == 0 and "8 pairs in 2 folds" in out
    code, out, _ = facescale(
        "evaluate", str(tiny_run), "--on", f"mine={csv}?root={folder}", "--out", str(tmp_path / "r.html")
    )
    assert code == 0 and "mine: accuracy" in out
    code, out, _ = facescale("embed", str(tiny_run), str(folder), "--out", str(tmp_path / "e.npz"))
    assert code == 0 and out.startswith("32 embeddings in")


def test_evaluating_weights_without_a_protocol_asks_for_one(  # type: ignore[no-untyped-def]
    facescale, tiny_run: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"  # those in a run are measured on the run's protocols
    weights.write_bytes((tiny_run / "checkpoints" / "step_00000006" / "model.safetensors").read_bytes())
    code, _, err = facescale("evaluate", str(weights))
    assert code == 2 and "--on NAME=PATH" in err
    code, _, err = facescale("evaluate", "nowhere")
    assert code == 2 and err == "facescale: 'nowhere' does not exist; name a run folder or a weights file\n"


def test_pairs_that_a_csv_cannot_name_are_refused(facescale, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = facescale("pairs", "synthetic:ids=9,images=2", "--out", str(tmp_path / "p.csv"))
    assert code == 2 and "write a .bin" in err
    code, _, err = facescale("pairs", "synthetic:ids=9,images=2", "--out", str(tmp_path / "p.txt"))
    assert code == 2 and "must be .csv or .bin" in err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight drawn people, four pictures each, as a folder a user might have."""
    from PIL import Image

    from facescale.data import open_reader

    reader = open_reader("synthetic:ids=8,images=4,size=32,seed=5")
    for index in range(len(reader)):
        pixels, identity = reader[index]
        path = tmp_path / "faces" / f"person{identity}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)  # type: ignore[arg-type]
    return tmp_path / "faces"


def test_inspect_counts_and_draws_a_sheet(facescale, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("inspect", str(folder), "--sheet", str(tmp_path / "sheet.png"), "--json")
    assert code == 0 and json.loads(out)["identities"] == 8
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    _, out, _ = facescale("inspect", str(folder), "--sheet", str(tmp_path / "sheet.png"))
    assert out.endswith(f"contact sheet: {tmp_path / 'sheet.png'}\n")


def test_data_is_converted_and_reads_the_same(facescale, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("convert-data", str(folder), str(tmp_path / "packed"))
    assert code == 0 and "32 images of 8 identities" in out
    code, out, _ = facescale("inspect", str(tmp_path / "packed" / "train.rec"), "--json")
    assert code == 0 and json.loads(out)["images"] == 32


def test_foreign_weights_are_taken_over(facescale, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import torch

    from facescale import backbones, load

    net = backbones.build("mbf_s", 16)
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, tmp_path / "old.pth")
    code, out, _ = facescale("convert", str(tmp_path / "old.pth"), "--out", str(tmp_path / "new.safetensors"))
    assert code == 0 and "insightface: mbf_s, 16-d ->" in out
    assert load(tmp_path / "new.safetensors").embedding_size == 16
    code, _, err = facescale("convert", str(tmp_path / "old.pth"), "--out", str(tmp_path / "new.bin"))
    assert code == 2 and "its suffix must be .safetensors" in err


def test_the_licence_travels_with_an_export(facescale, tiny_run: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from facescale import load

    out = tmp_path / "m.safetensors"
    assert facescale("export", str(tiny_run), "--out", str(out), "--info", "licence=none")[0] == 0
    assert load(out).info["licence"] == "none"
    code, _, err = facescale("export", str(tiny_run), "--out", str(out), "--info", "licence")
    assert code == 2 and "is not of the form KEY=VALUE" in err


def test_the_demo_config_is_valid_and_can_be_shortened(facescale, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    short = [
        "train.duration=2 steps",
        "data.train=synthetic:ids=20,images=8,size=48",
        "eval.sets.unseen=synthetic:pairs=20",
    ]
    words = [part for setting in short for part in ("--set", setting)]
    code, out, _ = facescale("demo", "--run", str(tmp_path / "demo"), "--processes", "1", *words)
    assert code == 0 and f"report: {tmp_path / 'demo' / 'report.html'}" in out
    assert (tmp_path / "demo" / "export" / "model.onnx").is_file()


def test_plan_says_what_fits_and_what_to_choose(facescale) -> None:  # type: ignore[no-untyped-def]
    words = ["--set", "data.train=synthetic:ids=100000,images=2", "--set", "backbone.name=mbf_s"]
    words += ["--processes", "4", "--device-memory", "2GB", "--no-calibrate"]
    code, out, _ = facescale("plan", *words)
    assert code == 0
    rows = out.splitlines()
    assert "partial_fc num_negatives=8192 placement=disk" in out and "\nchoose " in out
    assert rows[0].startswith("200000 images of 100000 identities; batch 128 on 4 processes, ")
    assert rows[2].startswith("memory of the network on each process: weights 4.")
    assert any(row.startswith("full ") and row.split()[1:3] == ["102", "MB"] for row in rows)
    code, out, _ = facescale("plan", *words, "--json")
    values = json.loads(out)
    assert values["heads"][0]["bytes"]["device"] == 25_000 * 512 * 8
    assert values["plan"]["world_size"] == 4 and "step_seconds" not in values


def test_plan_estimates_the_time_of_a_step(facescale) -> None:  # type: ignore[no-untyped-def]
    data = ["--set", "data.train=synthetic:ids=1000,images=20,size=56", "--set", "train.batch_size=8"]
    net = ["--set", "backbone.name=mbf_s", "--set", "backbone.input_size=56", "--set", "head.name=attfc"]
    code, out, _ = facescale("plan", *data, *net, "--json")
    seconds = json.loads(out)["step_seconds"]
    assert code == 0 and seconds["backbone"] > 0 and seconds["head"] > 0


def test_plan_times_each_of_several_rates() -> None:
    from facescale.plan.advice import StepSeconds

    found = StepSeconds(1.0, [("rate 0.1", 0.1), ("rate 1", 0.5)])
    values = found.to_dict()
    assert values["head"] == pytest.approx(0.3)
    assert values["head_by_rate"] == {"rate 0.1": 0.1, "rate 1": 0.5}
    assert found.text(3600) == (
        "about 1.30 s a step on this machine: the network 1.00, the head 0.10 at rate 0.1, 0.50 at rate 1; "
        "1.3 h in all; the rates take turns in equal parts of the training, and memory is that of the largest"
    )
    assert StepSeconds(1.0, [("", 0.5)]).text(3600).endswith("the head 0.50; 1.5 h in all")


def test_an_amount_of_memory_that_is_none_is_one_sentence(facescale) -> None:  # type: ignore[no-untyped-def]
    code, _, err = facescale("plan", "--device-memory", "lots")
    assert code == 2 and err.startswith("facescale: 'lots' is not an amount of memory")


def test_heads_are_measured_line_by_line(facescale) -> None:  # type: ignore[no-untyped-def]
    words = ["--heads", "full", "--ids", "1k,1000M", "--batch-size", "8", "--seconds", "0", "--device", "cpu"]
    code, out, err = facescale("bench", "heads", *words)
    assert code == 0, err
    header, *rows = out.splitlines()
    assert header.split() == ["head", "identities", "step", "ms", "images/s", "planned", "peak"]
    assert [row.split()[:2] for row in rows] == [
        ["full", "1,000"],
        ["full", "1,000,000,000"],
    ]
    assert float(rows[0].split()[2]) > 0
    assert "needs 4.10 TB of memory; the machine has" in rows[1]


def test_figures_of_heads_are_one_json_object_a_line(facescale, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from facescale.plan import bench

    monkeypatch.setattr(bench, "free_memory", lambda: 0)  # nothing fits: nothing runs
    code, out, _ = facescale(
        "bench", "heads", "--ids", "1k,2k", "--heads", "full", "--json", "--device", "cpu"
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["num_ids"] for row in rows] == [1000, 2000]
    assert rows[0]["problem"].startswith("needs") and rows[0]["step_ms"] is None


def test_a_wrong_head_to_measure_is_one_sentence(facescale) -> None:  # type: ignore[no-untyped-def]
    code, out, err = facescale("bench", "heads", "--heads", "full:rate=0.1")
    assert (code, out) == (2, "") and "head 'full' has no option 'rate'" in err
    code, _, err = facescale("bench", "heads", "--ids", "many")
    assert code == 2 and "'many' is not a number of identities" in err


@pytest.mark.slow
def test_help_is_instant() -> None:
    times = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "facescale", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - start)
    assert min(times) < 0.3


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"J\xfcrgen")
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"no picture")
    command = [sys.executable, "-m", "facescale", "inspect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert rb"J\udcfcrgen/1.jpg: not a JPEG" in done.stdout

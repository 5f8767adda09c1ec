"""The examination before a training: each line is ok, or says what to do."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from facescale.config import load_config
from facescale.data import open_reader
from facescale.doctor import Finding, host, network, training
from facescale.machine import Setting
from facescale.plan.advice import Advice, advice_for
from tests.tiny import TINY

CPU = torch.device("cpu")


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    well = [Finding("two processes", "a collective by Gloo in 0 s")]
    monkeypatch.setattr(network, "collective", lambda *_: iter(well))
    monkeypatch.setattr(network, "ports", lambda: iter([]))
    monkeypatch.setattr(host, "_write_speed", lambda place: 1e9)
    monkeypatch.setattr(training, "available_memory", lambda device: 10**12)


WORDS = [word for setting in TINY for word in ("--set", setting)]


@pytest.mark.usefixtures("_quick")
def test_the_command_prints_a_line_each_and_exits_0(facescale: Callable[..., Any], tmp_path: Path) -> None:
    code, out, err = facescale("doctor", "--run", str(tmp_path / "run"), "--device", "cpu", *WORDS)
    lines = out.splitlines()
    assert code == 0 and not err and all(line.startswith("ok    ") for line in lines), out
    for what in ("versions", "device", "threads", "two processes", "disk speed", "data", "plan", "learning"):
        assert any(line.startswith(f"ok    {what}") for line in lines), what
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_quick")
def test_something_to_change_is_exit_1_and_bad_input_2(facescale: Callable[..., Any], tmp_path: Path) -> None:
    words = ["doctor", "--run", str(tmp_path), "--device", "cpu", *WORDS, "--set", "optim.lr=9"]
    code, out, _ = facescale(*words)
    assert code == 1 and "fix   learning rate: sgd, 0.141 at this batch (9 at 512 images); " in out
    code, out, _ = facescale(*words, "--json")
    found = json.loads(out)
    assert code == 1 and [one["what"] for one in found if one["fix"]] == ["learning rate"]
    code, _, err = facescale("doctor", "--set", "optim.speed=1")
    assert code == 2 and "optim.speed" in err


@pytest.mark.usefixtures("_quick")
def test_data_that_cannot_be_opened_is_something_to_fix(facescale: Callable[..., Any]) -> None:
    code, out, err = facescale("doctor", "--device", "cpu", "--set", "data.train=nowhere/")
    assert code == 1 and not err
    assert "fix   data and config: cannot be used" in out and "'nowhere/' does not exist" in out


# ---- the machine ------------------------------------------------------------------------------------------


def test_old_versions_and_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")
    monkeypatch.setattr(host.importlib.util, "find_spec", lambda name: None)
    fixes = [one.fix for one in host.versions()]
    assert fixes == ["pip install 'torch>=2.8'", "pip install 'facescale[fast]'"]


def test_a_gpu_that_torch_cannot_use_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_NVIDIA", tmp_path / "absent")
    assert not only(host.devices(CPU)).fix
    (tmp_path / "absent").touch()
    assert "install a CUDA build of torch" in only(host.devices(CPU)).fix


def test_a_gpu_that_others_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(name="GPU"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: ((80, 20)[number] * 10**9, 80 * 10**9))
    first, second = host.devices(torch.device("cuda"))
    assert first.line == "ok    cuda:0: GPU, 80.00 GB of 80.00 GB free"
    assert "another program uses it" in second.fix


def test_more_threads_than_cores_are_noticed() -> None:
    chosen = [Setting("threads", "1", "1 core"), Setting("threads", "9999", "set by OMP_NUM_THREADS")]
    first, second = host.threads(chosen)
    assert first.line == "ok    threads: 1 (1 core)" and second.fix.startswith("unset it, or use at most ")


def test_little_shared_memory_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**6))
    assert only(host.shared_memory()).fix.startswith("docker run --shm-size=1g")


def test_a_full_a_slow_and_a_forbidden_disk_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_PROBE", 1 << 20)
    space, speed = host.disk(tmp_path / "not" / "there", needed=10**18)
    assert space.fix.startswith("free ") and f"free at {tmp_path}" in space.found
    assert speed.what == "disk speed" and not list(tmp_path.iterdir())
    monkeypatch.setattr(host, "_write_speed", lambda place: 1e6)
    assert "checkpoint.background" in list(host.disk(tmp_path, 0))[1].fix

    def refuse(place: Path) -> float:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(host, "_write_speed", refuse)
    assert list(host.disk(tmp_path, 0))[1].line.startswith(
        f"fix   disk: cannot write to {tmp_path} (Read-only"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1))
    assert len(list(host.disk(tmp_path, 0))) == 1


# ---- the network ------------------------------------------------------------------------------------------


def test_a_port_in_use_and_a_name_that_leads_nowhere_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(None, "Name or service not known")

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setattr(network, "TORCHRUN_PORT", taken.getsockname()[1])
        monkeypatch.setattr(socket, "create_connection", refuse)
        port, name = network.ports()
    assert "torchrun --standalone" in port.fix and "add " in name.fix and "/etc/hosts" in name.fix
    monkeypatch.undo()
    monkeypatch.setattr(network, "TORCHRUN_PORT", 0)  # any free one
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert [one.fix for one in network.ports()] == ["", ""]


def test_two_processes_add_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("PYTHONPATH", str(Path(network.__file__).parents[2]))
    assert only(network.collective("cuda", 1)).line.startswith(
        "ok    two processes: a collective by Gloo in "
    )


def test_processes_that_cannot_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_MEMBER", "import sys; sys.exit('facescale: no way')")
    finding = only(network.collective("cpu", 0))
    assert finding.found == "no collective by Gloo (facescale: no way)" and "loopback" in finding.fix
    monkeypatch.setattr(network, "_SECONDS", 0.0)
    assert "no end within 0 s" in only(network.collective("cuda", 2)).found


# ---- the training -----------------------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_named(make_folder: Callable[..., Path]) -> None:
    config = load_config(None, [])
    good = only(training.data(config, open_reader(str(make_folder())), 24))
    assert good.line.startswith("ok    data: 6 images of 3 identities; 6 of 6 read")
    files = {"a/1.jpg": b"not an image", "b/1.jpg": b"neither"}
    bad = only(training.data(config, open_reader(str(make_folder(files, "bad"))), 24))
    assert "0 of 2 read, not '" in bad.found and bad.fix.startswith("facescale inspect")


def test_images_without_content_and_identities_with_one_image_are_noticed() -> None:
    class Flat:
        ids, num_ids = torch.arange(4).numpy(), 4

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Any, int]:
            value = 100 + 100 * torch.rand(24, 24, 3) if self.drawn else torch.full((24, 24, 3), 7)
            return value.to(torch.uint8).numpy(), index

        def key(self, index: int) -> str:
            return str(index)

        drawn = False

    reader: Any = Flat()
    assert "pixels are all alike" in only(training.data(load_config(None, []), reader, 24)).fix
    reader.drawn = True
    assert "data.min_images = 2" in only(training.data(load_config(None, []), reader, 24)).fix


@pytest.fixture(scope="module")
def advice() -> Advice:
    return advice_for(load_config(None, TINY), 1, CPU, 10**12)


def test_what_does_not_fit_comes_with_advice(advice: Advice) -> None:
    assert only(training.memory(advice, 10**12)).line.startswith("ok    plan: 6 steps, about ")
    tight = advice_for(load_config(None, TINY), 1, CPU, 1000)
    assert "nothing fits: use a smaller batch" in only(training.memory(tight, 1000)).fix
    assert "of unknown on the device" in only(training.memory(advice, None)).found
    config = load_config(None, TINY)
    more = load_config(None, [*TINY, "checkpoint.keep=9"])
    assert 0 < training.checkpoint_bytes(config, advice) < training.checkpoint_bytes(more, advice)


def test_free_memory_is_that_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_MEMORY", tmp_path / "meminfo")
    assert training.available_memory(CPU) is None
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\nMemAvailable:    3 kB\n")
    assert training.available_memory(CPU) == 3072
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 8))
    assert training.available_memory(torch.device("cuda")) == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["optim.lr=0.1"], ""),
        (["optim.lr=0.9"], "diverge: lower optim.lr"),
        (["optim.lr=1e-4"], "hardly move: raise optim.lr"),
        (["optim.name=adamw", "optim.lr=1e-3"], ""),
        (["optim.name=adamw", "optim.lr=0.1"], "trainings above 0.002 at 512 images diverge"),
        (["backbone.name=vit_t"], "vit_t needs optim.name = 'adamw'"),
        (["train.batch_size=8192"], "optim.warmup = '1 epoch'"),
        (["train.batch_size=8192", "optim.warmup=1 epoch"], ""),
    ],
)
def test_a_learning_rate_that_such_trainings_do_not_survive(
    settings: list[str], words: str, advice: Advice
) -> None:
    config = load_config(None, settings)
    lr = config.optim.lr * config.train.batch_size / config.optim.reference_batch
    planned = replace(advice, plan=replace(advice.plan, lr=lr))
    fix = only(training.rate(config, planned)).fix
    assert (words in fix) if words else not fix


def test_the_probe_of_a_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_PROBE", 1 << 20)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    assert host._write_speed(tmp_path) > 0 and not list(tmp_path.iterdir())

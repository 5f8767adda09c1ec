"""The planned memory of heads against what a process that runs them really takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MEASURE = """
import gc, json, resource, sys, torch
from facescale import heads, margins
torch.set_num_threads(1)
name, num_ids, dim, batch, margin, options = json.loads(sys.argv[1])
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
def step(head, ids, size):
    e = torch.randn(1, size, dim, requires_grad=True)
    head(e, torch.randint(0, ids, (size,))).loss.backward()
    head.after_step(0.1)
other = {"directory": options["directory"] + "/s"} if "directory" in options else {}
small = heads.build(name, 500, dim, margins.build(margin), **(options | other))
for _ in range(2):
    step(small, 500, 8)
del small
gc.collect()
before = peak()
head = heads.build(name, num_ids, dim, margins.build(margin), **options)
for _ in range(4):
    step(head, num_ids, batch)
plan = head.bytes_needed(batch)
print(json.dumps([peak() - before, plan.device + plan.host + plan.transient]))
"""

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("full", "cosface", {"products": "float32"}),
    ("full", "cosface", {"products": "bfloat16", "store_dtype": "bfloat16"}),
    ("full", "curricular", {"products": "bfloat16", "optimizer": "adamw"}),
    ("full", "cosface", {"placement": "host"}),
    ("partial_fc", "cosface", {"rate": 0.3, "products": "bfloat16"}),
    ("partial_fc", "subcenter_arcface", {"rate": 0.1, "placement": "host"}),
    ("partial_fc", "cosface", {"num_negatives": 20_000, "placement": "disk"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "margin", "options"), CASES)
def test_planned_bytes_are_within_15_percent_of_the_peak(
    name: str, margin: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if options.get("placement") == "disk":
        options = {**options, "directory": str(tmp_path)}
    case = json.dumps([name, 100_000, 256, 128, margin, options])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, case], capture_output=True, text=True, check=True, timeout=200
    )
    measured, planned = json.loads(done.stdout)
    assert abs(planned - measured) < 0.15 * measured, f"planned {planned:,}, measured {measured:,}"

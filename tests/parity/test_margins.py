"""Margins give the reference implementations' logits, losses, gradients and running statistics (golden B)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facescale import margins
from facescale.margins import Margin


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "B_margins.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def options(golden: Path) -> dict[str, dict[str, Any]]:
    return dict(json.loads((golden / "B_margins.json").read_text()))


def under(options: dict[str, dict[str, Any]], prefix: str) -> list[str]:
    names = [name for name in options if name.startswith(prefix)]
    assert names, f"the golden data has no case {prefix}"
    return names


def close(ours: Tensor, theirs: Tensor, rtol: float, what: str) -> None:
    """Equal to ``rtol`` of the reference's largest value."""
    error = (ours.detach().reshape(theirs.shape) - theirs).abs().max()
    assert error <= rtol * theirs.abs().max(), f"{what}: off by {error:.3g} of {theirs.abs().max():.3g}"


def compare(
    margin: Margin, case: dict[str, Tensor], norm: Tensor | None, rtol: float, grad_rtol: float
) -> None:
    """Logits, loss and the gradient for the raw cosines of one call."""
    cos_BC = case["cos"].clone().requires_grad_()
    labels = case["labels"].reshape(-1)
    logits = margin(cos_BC, labels, norm)
    loss = F.cross_entropy(logits, labels, ignore_index=-1)
    loss.backward()
    close(logits, case["logits"], rtol, "logits")
    close(loss, case["loss"], rtol, "loss")
    close(cos_BC.grad, case["grad_cos"], grad_rtol, "gradient")


def part(cases: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in cases.items() if key.startswith(prefix + "/")}


def test_combined_equals_the_insightface_release(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "combined/"):
        o = options[name]
        for rows in ("all", "some"):
            margin = margins.build(
                "combined",
                scale=o["s"],
                m1=o["m1"],
                m2=o["m2"],
                m3=o["m3"],
                interclass_filter=o["interclass_filtering_threshold"],
                compat=True,
            )
            compare(margin, part(cases, f"{name}/{rows}"), None, 2e-5, 1e-4)


def test_adaface_equals_its_release_over_three_steps(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "adaface/"):
        o = options[name]
        margin = margins.build("adaface", scale=o["s"], m=o["m"], h=o["h"], t_alpha=o["t_alpha"], compat=True)
        for step in range(3):
            case = part(cases, f"{name}/step{step}")
            compare(margin, case, case["norms"].reshape(-1), 2e-5, 1e-3)
            close(margin.batch_mean, case["batch_mean_after"], 2e-5, "mean")
            close(margin.batch_std, case["batch_std_after"], 2e-5, "std")


def test_adaface_repositorys_own_arcface_and_cosface(cases: dict[str, Tensor], options: Any) -> None:
    for name, ours in (("adaface_repo_arcface", "arcface"), ("adaface_repo_cosface", "cosface")):
        o = options[name]
        compare(margins.build(ours, scale=o["s"], m=o["m"]), part(cases, name), None, 2e-5, 1e-3)


def test_magface_equals_its_release_down_to_the_embedding(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "magface/"):
        o, case = options[name], part(cases, name)
        margin = margins.build(
            "magface",
            scale=o["scale"],
            la=o["l_a"],
            ua=o["u_a"],
            lm=o["l_margin"],
            um=o["u_margin"],
            lambda_g=o["lambda_g"],
            easy_margin=o["easy_margin"],
        )
        x, weight = case["x"].clone().requires_grad_(), case["weight"].clone().requires_grad_()
        cos_BC = F.normalize(x) @ F.normalize(weight, dim=0)
        cos_BC.retain_grad()
        logits = margin(cos_BC, case["labels"], x.norm(dim=1))
        loss = F.cross_entropy(logits, case["labels"])
        penalty = margin.penalty(x.norm(dim=1))
        (loss + penalty).backward()
        close(logits, case["logits"], 5e-4, "logits")
        close(loss, case["loss_id"], 5e-4, "loss")
        close(penalty, o["lambda_g"] * case["loss_g"], 5e-4, "regulariser")
        for ours, theirs in ((cos_BC, "grad_cos"), (x, "grad_x"), (weight, "grad_weight")):
            close(ours.grad, case[theirs], 5e-4, theirs)


def test_curricular_equals_its_release_over_three_steps(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "curricular/"):
        o = options[name]
        margin = margins.build("curricular", scale=o["s"], m=o["m"])
        margin.t.fill_(o["t_initial"])
        for step in range(3):
            case = part(cases, f"{name}/step{step}")
            close(margin.t, case["t_before"], 1e-4, "t before")
            compare(margin, case, None, 1e-4, 1e-4)
            close(margin.t, case["t_after"], 1e-4, "t after")


def test_curricular_repositorys_own_arcface(cases: dict[str, Tensor], options: Any) -> None:
    o = options["curricular_repo_arcface"]
    margin = margins.build("arcface", scale=o["s"], m=o["m"])
    compare(margin, part(cases, "curricular_repo_arcface"), None, 1e-4, 1e-4)


F2C_MARGINS: dict[str, tuple[str, dict[str, Any]]] = {
    "AM": ("cosface", {}),
    "Arc": ("arcface", {"fallback": False}),
    "SV": ("sv_softmax", {"compat": True}),
}


def test_f2c_margins_equal_its_release_on_rows_with_a_centre(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "ffc/"):
        o, case = options[name], part(cases, name)
        if "cls_loss" not in case:  # outliers only: no row for a margin
            continue
        ours, extra = F2C_MARGINS[o["loss_type"]]
        extra = extra | ({"t": o["sv_t"]} if ours == "sv_softmax" else {})
        margin = margins.build(ours, scale=o["scale"], m=o["margin"], **extra)
        logits = margin(case["cos"], case["labels"])
        valid = case["labels"] >= 0
        close(logits[valid], case["logits_pos_rows"], 1e-5, f"{name} logits")
        close(F.cross_entropy(logits, case["labels"], ignore_index=-1), case["cls_loss"], 1e-5, name)


def test_f2c_margin_gradients_equal_its_release(cases: dict[str, Tensor], options: Any) -> None:
    for name in under(options, "ffc/"):
        o, case = options[name], part(cases, name)
        if not name.endswith("/all"):  # every row has a centre, so that the whole gradient is the margin's
            continue
        ours, extra = F2C_MARGINS[o["loss_type"]]
        case["logits"] = case["logits_pos_rows"]
        compare(margins.build(ours, scale=o["scale"], m=o["margin"], **extra), case, None, 1e-5, 1e-4)

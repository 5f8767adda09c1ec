"""IJB and MegaFace figures equal those of the reference implementations (golden sections H and I)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facescale.evaluate import ijb
from facescale.evaluate.distractors import search_distractors
from facescale.evaluate.histogram import histogram_roc
from facescale.evaluate.identification import pooled_recall, search, search_histogram

Golden = tuple[dict[str, Any], Any]


@pytest.fixture(scope="module")
def section_h(golden: Path) -> Golden:
    return json.loads((golden / "H_ijb.json").read_text()), np.load(golden / "H_ijb.npz")


@pytest.fixture(scope="module")
def section_i(golden: Path) -> Golden:
    return json.loads((golden / "I_megaface.json").read_text()), np.load(golden / "I_megaface.npz")


def templates_of(arrays: Any, flags: str) -> ijb.Templates:
    """Flags of eval_ijbc.py: N1 keeps norms, D1 weighs by the detector's score, F1 adds the mirrored view."""
    features = arrays["in/feats"].reshape(900, 2, 48)
    return ijb.build_templates(
        features if "F1" in flags else features[:, 0],
        arrays["in/templates"],
        arrays["in/medias"],
        detector_score=arrays["in/faceness"] if "D1" in flags else None,
        keep_norms="N1" in flags,
    )


FLAGS = [f"N{n}D{d}F{f}" for n in (0, 1) for d in (0, 1) for f in (0, 1)]


@pytest.mark.parametrize("flags", FLAGS)
def test_templates_scores_and_tar_agree(section_h: Golden, flags: str) -> None:
    expected, arrays = section_h[0]["eval_ijbc"][flags], section_h[1]
    templates = templates_of(arrays, flags)
    np.testing.assert_array_equal(templates.ids, arrays["ijbc/unique_templates"])
    np.testing.assert_allclose(templates.unit_TD, arrays[f"ijbc/{flags}/template_feats"], rtol=0, atol=1e-5)
    pairs, genuine = np.stack([arrays["in/p1"], arrays["in/p2"]], axis=1), arrays["in/label"] == 1
    result = ijb.verify(templates, pairs, genuine, drop_collinear=True)
    np.testing.assert_allclose(result.scores, arrays[f"ijbc/{flags}/score"], rtol=0, atol=1e-5)
    assert list(result.tar) == section_h[0]["far_points"]
    np.testing.assert_allclose(list(result.tar.values()), expected["tar"], rtol=0, atol=1e-12)
    assert [f"{100 * tar:.2f}" for tar in result.tar.values()] == expected["table_percent"]
    complete = ijb.verify(templates, pairs, genuine)
    np.testing.assert_allclose(
        list(complete.tar.values()), expected["tar_if_all_roc_points_kept"], rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(complete.curve.auc, expected["auc"], rtol=0, atol=1e-6)


def test_the_other_script_of_the_repository_only_names_the_flags_otherwise(section_h: Golden) -> None:
    expected = section_h[0]
    for flags, other in expected["ijb_evals"].items():
        same = expected["eval_ijbc"][other["equals_eval_ijbc_flags"]]
        assert other["equals_eval_ijbc_flags"] == flags.replace("N1", "N-").replace("N0", "N1").replace(
            "N-", "N0"
        )
        np.testing.assert_allclose(other["tar"], same["tar_if_all_roc_points_kept"], rtol=0, atol=0.005)


def test_identification_of_both_galleries_agrees(section_h: Golden) -> None:
    expected, arrays = section_h[0]["ijb_evals_1n"], section_h[1]
    galleries = [arrays["in/gallery1"], arrays["in/gallery2"]]
    result = ijb.identify(templates_of(arrays, "N1D1F1"), galleries, arrays["in/probe_mixed"])
    for part, name in zip(result.parts, ("g1", "g2"), strict=True):
        assert (len(part.rank_M), len(part.other_U)) == (
            expected[name]["n_mated"],
            expected[name]["n_nonmated"],
        )
        assert [part.at_rank(k) for k in (1, 5, 10)] == [expected[name][f"top{k}"] for k in (1, 5, 10)]
        for fpir, tpir in expected[name]["tpir_at_fpir"].items():
            assert part.tpir_at(float(fpir)) == pytest.approx(tpir, abs=1e-12)
            threshold = expected[name]["threshold_at_fpir"][fpir]
            assert part.threshold_at(float(fpir)) == pytest.approx(threshold, abs=1e-5)
        curve = [part.tpir_at(fpir) for fpir in expected[name]["fpir_grid"]]
        np.testing.assert_allclose(curve, expected[name]["tpir_grid"], rtol=0, atol=1e-12)
    assert [result.at_rank(k) for k in (1, 5, 10)] == [expected["mean"][f"top{k}"] for k in (1, 5, 10)]
    for fpir, tpir in expected["mean"]["tpir_at_fpir"].items():
        assert result.tpir_at(float(fpir)) == pytest.approx(tpir, abs=1e-12)


def test_identification_by_the_released_pooled_rule_agrees(section_h: Golden) -> None:
    expected, arrays = section_h[0]["ijb_1n"], section_h[1]
    names = ("gallery_feats", "gallery_subjects", "probe_feats", "probe_subjects")
    stored = [arrays[f"ijb1n/{name}"] for name in names]
    ranks = search(*stored)
    assert [ranks.at_rank(k) for k in (1, 5, 10)] == [expected[f"top{k}"] for k in (1, 5, 10)]
    for row in expected["fpir"]:
        recall, threshold = pooled_recall(*stored, rate=row["far"])
        assert recall == pytest.approx(row["tpir"], abs=1e-9)
        assert threshold == pytest.approx(row["threshold"], abs=1e-6)


def test_f2c_histogram_on_ijbc_agrees(section_h: Golden) -> None:
    expected, arrays = section_h[0]["ffc_test_ijbc_find_score"], section_h[1]
    curve = histogram_roc(arrays["ffc/score"], arrays["in/label"] == 1)
    np.testing.assert_allclose(curve.far, arrays["ffc/far"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.tar, arrays["ffc/vr"], rtol=0, atol=1e-12)
    for far, answer in expected.items():
        tar, index = curve.tar_at(float(far))
        assert (tar, index) == (pytest.approx(answer[0], abs=1e-12), answer[1]) if answer else tar == 0.0
    templates = ijb.build_templates(arrays["ffc/image_feats"], arrays["in/templates"], arrays["in/medias"])
    np.testing.assert_allclose(templates.unit_TD, arrays["ffc/template_feats"], rtol=0, atol=1e-5)


def test_megaface_rank_one_agrees(section_i: Golden) -> None:
    expected, arrays = section_i[0]["rank1"], section_i[1]
    found = search_distractors(arrays["probe_feats"], arrays["probe_labels"], arrays["distractor_feats"])
    assert found.at_rank(1) == pytest.approx(expected["accuracy"], abs=1e-12)
    assert len(found.rank_P) == expected["total_ordered_mate_pairs"]


def test_megaface_histogram_agrees(section_i: Golden) -> None:
    expected, arrays = section_i
    everyone = np.concatenate([arrays["probe_feats"], arrays["distractor_feats"]])
    gallery = everyone[arrays["gallery_row_source"]]
    curve = search_histogram(
        gallery, arrays["gallery_labels"], arrays["probe_feats"], arrays["probe_labels"], self_matches=500
    )
    # One or two counts may move across a bin edge between BLAS builds.
    np.testing.assert_allclose(curve.far, arrays["far"], rtol=2e-5, atol=2.1 / expected["n_negative_entries"])
    assert curve.far[0] == curve.tar[0] == 1.0
    np.testing.assert_allclose(curve.tar, arrays["vr"], rtol=0, atol=1e-3)
    for far, (tar, _) in expected["find_score"].items():
        assert curve.tar_at(float(far))[0] == pytest.approx(tar, abs=1e-3)

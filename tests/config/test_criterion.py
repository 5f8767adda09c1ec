"""checkpoint.best_by is checked before a training starts, not at its first evaluation."""

import pytest

from facescale.config.criterion import headlines
from facescale.plan.check import read_config

SETS = ["eval.sets.lfw=lfw:x", "eval.sets.a/b=all_pairs:x"]


@pytest.mark.parametrize(
    "best_by", ["", "lfw/accuracy", "lfw/eer", "a/b/tar@far=1e-05", "lfw/rank20", "lfw/tpir@fpir=0.01"]
)
def test_figures_that_rank_checkpoints_are_taken(best_by: str) -> None:
    assert read_config(settings=[*SETS, f"checkpoint.best_by={best_by}"]).checkpoint.best_by == best_by


@pytest.mark.parametrize(
    ("best_by", "message"),
    [
        ("accuracy", "it is NAME/METRIC of a protocol in eval.sets; eval.sets has: lfw, a/b"),
        ("lwf/accuracy", r"in eval.sets \(did you mean 'lfw'\?\)"),
        ("lfw/threshold@far=0.01", "'threshold@far=0.01' does not say which checkpoint is better; take acc"),
        ("lfw/mean_norm", "'mean_norm' does not say"),
        ("lfw/accuracy_std", "'accuracy_std' does not say"),
        ("lfw/tar@far=1e-3", "rates are written as in results: tar@far=0.001"),
        ("lfw/tar@far=low", "rates are written as in results: tar@far=0.001"),
    ],
)
def test_other_words_are_refused_with_what_is_allowed(best_by: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(settings=[*SETS, f"checkpoint.best_by={best_by}"])


def test_each_protocol_has_one_figure_in_a_line() -> None:
    figures = ["a/auc", "a/accuracy", "a/threshold@far=0.1", "b/rank1", "b/rank5", "c/mean_norm"]
    assert headlines(figures) == ["a/accuracy", "b/rank1"]

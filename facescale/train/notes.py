"""Sentences at the start of a training about settings that are legal and yet seldom meant."""

from facescale.config import Config
from facescale.data.spec import split_sources
from facescale.plan import Plan

# Steps below which a network with random weights stays at chance: after 40 steps on 96 photos it gave every
# image the same embedding.
_FEW_STEPS = 100


def setting_notes(config: Config, plan: Plan) -> list[str]:
    """Sentences about a training that is too short, or evaluated on something else than its data."""
    return [*_length_notes(config, plan), *_evaluation_notes(config)]


def _length_notes(config: Config, plan: Plan) -> list[str]:
    """A sentence if a network that starts from random weights has hardly any steps to learn in."""
    if config.train.init or plan.total_steps >= _FEW_STEPS:
        return []
    return [
        f"{plan.total_steps} steps in all are too few for a network that starts from random weights; set "
        "train.duration, for example to '1000 steps'"
    ]


def _evaluation_notes(config: Config) -> list[str]:
    """A sentence if photos are trained on, and nobody said what to evaluate on."""
    is_drawn = all(source.startswith("synthetic:") for source in split_sources(config.data.train))
    if is_drawn or "sets" in config.eval.model_fields_set:
        return []
    return [
        "the accuracy is measured on synthetic faces, as eval.sets is not set; for your own: facescale pairs "
        "DATA --out test.bin, and --set eval.sets.test=test.bin"
    ]

"""The configuration of a run: its schema, how it is read, how it is explained."""

from facescale.config.duration import Duration, duration_steps, parse_duration
from facescale.config.explain import explain, schema
from facescale.config.load import changed_keys, flat_values, load_config
from facescale.config.schema import (
    AugmentConfig,
    BackboneConfig,
    CheckpointConfig,
    Component,
    Config,
    DataConfig,
    DistributedConfig,
    EvalConfig,
    FinetuneConfig,
    HeadConfig,
    MarginConfig,
    OptimConfig,
    Section,
    TrainConfig,
    TwinConfig,
)
from facescale.config.source import parse_value

__all__ = [
    "AugmentConfig",
    "BackboneConfig",
    "CheckpointConfig",
    "Component",
    "Config",
    "DataConfig",
    "DistributedConfig",
    "Duration",
    "EvalConfig",
    "FinetuneConfig",
    "HeadConfig",
    "MarginConfig",
    "OptimConfig",
    "Section",
    "TrainConfig",
    "TwinConfig",
    "changed_keys",
    "duration_steps",
    "explain",
    "flat_values",
    "load_config",
    "parse_duration",
    "parse_value",
    "schema",
]

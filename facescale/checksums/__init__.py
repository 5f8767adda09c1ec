"""Checksums of the files of a checkpoint: stored with it, compared before it is read."""

from facescale.checksums.manifest import MANIFEST, Checksums, DamageWarning, model_damage, write_manifest

__all__ = ["MANIFEST", "Checksums", "DamageWarning", "model_damage", "write_manifest"]

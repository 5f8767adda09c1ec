"""Damage to a file that is none of its content."""

from pathlib import Path


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")

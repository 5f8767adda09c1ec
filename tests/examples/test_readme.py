"""The Python of the README runs, word for word, on a tiny run and drawn faces."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from facescale.data.synthetic.faces import SyntheticFaces
from facescale.inference.model import Model
from facescale.model_card import Threshold

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6 and all(block.count("\n") <= 9 for block in blocks)
    shutil.copytree(tiny_run, tmp_path / "runs" / "mine")
    reader = SyntheticFaces(4, 4, size=32)
    places = [f"{folder}/{name}/{number}.png" for folder in ("photos_known", "more_faces")
              for name in ("ann", "ben") for number in range(1, 5)]  # fmt: skip
    for index, place in enumerate([*places, "a.jpg", "b.jpg", "photo.jpg"]):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(reader[index % 16][0]).save(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    # The protocol of the tiny run is too small for a threshold
    monkeypatch.setattr(Model, "threshold", lambda self, far: Threshold(0.5, 0.4, 0.6, "drawn"))
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    assert space["name"] in ("ann", "ben", "nobody") and space["unit_rows"].shape == (2, 32)  # type: ignore[attr-defined]
    assert "unseen/accuracy" in capsys.readouterr().out and (tmp_path / "face.onnx").is_file()

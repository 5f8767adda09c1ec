"""Text files are read and written as UTF-8 whatever the locale: every call in the package says so."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import facescale

ROOT = Path(facescale.__file__).parent
KERNEL = {"machine/cores.py", "plan/measure.py"}  # they read numbers of the kernel
NOT_FILES = {"os", "Image", "store", "self", "RunDir", "image", "lmdb", "tarfile", "zipfile"}
OPENERS = {"open", "open_text", "NamedTemporaryFile", "TextIOWrapper", "fdopen"}


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a text file in the encoding of the locale."""
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    owner = function.value if isinstance(function, ast.Attribute) else None
    if any(word.arg == "encoding" for word in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name not in OPENERS or (isinstance(owner, ast.Name) and owner.id in NOT_FILES):
        return False
    place = 1 if isinstance(function, ast.Name) else 0
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[place : place + 1]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    if name == "open" and owner is not None and not texts and call.args:
        return False  # a method of something else than a path
    return not any("b" in text for text in texts)


def wrong_calls(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and is_text_without_encoding(node):
            yield node.lineno


def test_every_text_file_is_opened_as_utf_8() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in ROOT.rglob("*.py")
        if str(path.relative_to(ROOT)) not in KERNEL
        for line in wrong_calls(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, f"say encoding='utf-8' in {wrong}"


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("open('a')", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("open('a', 'rb')", False),
        ("path.open('wb')", False),
        ("path.open(encoding='utf-8')", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("os.open(path, os.O_RDONLY)", False),
    ],
)
def test_the_check_sees_what_it_should(line: str, is_wrong: bool) -> None:
    assert bool(list(wrong_calls(line))) == is_wrong


def test_a_config_is_utf_8_where_the_locale_is_not(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('# Zoë 小\n[data]\ntrain = "café"\n', encoding="utf-8")
    program = (
        "from facescale.config import load_config\nfrom facescale.files import write_atomically\n"
        "from pathlib import Path\nimport locale\nassert locale.getencoding() != 'UTF-8'\n"
        "config = load_config('c.toml')\nassert config.data.train == 'caf\\u00e9', config.data.train\n"
        "write_atomically(Path('d.toml'), config.to_toml())\n"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=locale, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "café" in (tmp_path / "d.toml").read_text(encoding="utf-8")

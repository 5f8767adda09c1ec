"""The layers of the package: imports run one way, in functions too."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import facescale

ROOT = Path(facescale.__file__).parent

# From the ground up; a module may import from its own layer's rooms and from lower layers.
LAYERS = [
    {"arrays", "files", "checksums", "guard", "jobs", "registry", "kernels", "machine", "ops", "distributed"},
    {"config", "pools", "run", "model_card", "margins", "backbones"},
    {"data", "centres"},
    {"heads", "convert"},
    {"inference", "plan"},
    {"evaluate", "prepare", "gallery", "clean"},
    {"train", "export", "serve"},
    {"recipes", "bench", "doctor"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
MOST_MODULES_AT_THE_ROOT = 8

# Each is imported in a fresh process, with all that it imports; torch takes seconds.
WITHOUT_TORCH = [
    "facescale.arrays",
    "facescale.checksums",
    "facescale.cli",
    "facescale.config",
    "facescale.data",
    "facescale.data.loading.decode",
    "facescale.data.loading.iterate",
    "facescale.data.readers.recordio",
    "facescale.data.sampling.multiview",
    "facescale.data.spec",
    "facescale.data.synthetic.faces",
    "facescale.data.writers.recordio",
    "facescale.evaluate",
    "facescale.evaluate.ijb",
    "facescale.evaluate.identification",
    "facescale.evaluate.metrics",
    "facescale.evaluate.protocols.draw",
    "facescale.files",
    "facescale.kernels",
    "facescale.pools",
    "facescale.prepare.convert_data",
    "facescale.prepare.inspect",
    "facescale.registry",
    "facescale.run",
]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types(node: ast.AST) -> bool:
    """Whether this is ``if TYPE_CHECKING:``, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imported(path: Path) -> frozenset[str]:
    """What a file imports anywhere, in functions too; not what only type checkers read."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        waiting += node.orelse if is_for_types(node) else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    return frozenset(names)


def rooms_used(path: Path) -> set[str]:
    """Rooms of the package that a file imports from."""
    parts = [name.split(".") for name in imported(path)]
    return {name[1] for name in parts if name[0] == "facescale" and len(name) > 1 and name[1] in LEVEL}


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """Some nodes that lead back to the first of them, or none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return way[way.index(node) :]
        if node not in done:
            for target in sorted(edges.get(node, set())):
                if circle := walk(target, [*way, node]):
                    return circle
            done.add(node)
        return []

    return next((circle for node in sorted(edges) if (circle := walk(node, []))), [])


def test_the_root_holds_few_modules() -> None:
    modules = sorted(path.name for path in ROOT.glob("*.py"))
    assert len(modules) <= MOST_MODULES_AT_THE_ROOT, f"give a folder to some of {modules}"


def test_every_module_has_a_layer() -> None:
    rooms = {room(path) for path in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms <= LEVEL.keys(), f"give a layer to {sorted(rooms - LEVEL.keys())}"


def test_imports_run_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports from {used}"
        for path in ROOT.rglob("*.py")
        if (here := room(path)) != "__init__"
        for used in rooms_used(path)
        if LEVEL[used] > LEVEL[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_do_not_import_each_other_in_circles() -> None:
    edges: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        edges.setdefault(room(path), set()).update(rooms_used(path) - {room(path)})
    assert find_circle(edges) == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    paths = {module_of(path): path for path in ROOT.rglob("*.py")}
    edges = {
        name: {
            other
            for other in imported(path)
            if other in paths and other != name and not name.startswith(f"{other}.")
        }
        for name, path in paths.items()
    }
    assert find_circle(edges) == []


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c"]),
    ],
)
def test_a_circle_is_found(edges: dict[str, set[str]], circle: list[str]) -> None:
    assert find_circle(edges) == circle


def test_imports_in_functions_are_seen_and_those_for_types_are_not(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\ndef f():\n    from d import e\n"
    )
    assert imported(file) == {"a", "c", "d", "d.e"}


def test_what_must_be_light_does_not_import_torch() -> None:
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *WITHOUT_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

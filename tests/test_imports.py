"""The layers of the package: imports run one way."""

import ast
from pathlib import Path

import facescale

ROOT = Path(facescale.__file__).parent

# From the ground up; a module may import from its own layer's room and from lower layers.
LAYERS = [
    {"arrays", "files", "registry", "kernels", "machine", "ops", "distributed"},
    {"config", "pools", "run", "model_card", "margins", "backbones"},
    {"data", "centres"},
    {"heads", "convert"},
    {"inference", "plan"},
    {"evaluate", "prepare"},
    {"train", "export"},
    {"recipes"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
WITHOUT_TORCH = [
    "evaluate/metrics.py",
    "pools/__init__.py",
    "pools/base.py",
    "pools/ring.py",
    "pools/lru.py",
    "pools/slot_table.py",
    "pools/lru_numpy.py",
    "pools/lru_numba.py",
    "kernels/__init__.py",
    "config/__init__.py",
    "config/schema.py",
    "config/load.py",
    "config/mistakes.py",
    "registry/__init__.py",
    "registry/options.py",
    "run.py",
]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules of a file's top level (those in functions are imported when they run)."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def test_every_module_has_a_layer() -> None:
    rooms = {room(path) for path in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms <= LEVEL.keys(), f"give a layer to {sorted(rooms - LEVEL.keys())}"


def test_imports_run_one_way() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = room(path)
        if here == "__init__":
            continue
        for name in imported(path):
            parts = name.split(".")
            if (
                parts[0] == "facescale"
                and len(parts) > 1
                and parts[1] in LEVEL
                and LEVEL[parts[1]] > LEVEL[here]
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_rooms_of_one_layer_do_not_import_each_other_in_circles() -> None:
    edges: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        here = room(path)
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "facescale" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != here:
                edges.setdefault(here, set()).add(parts[1])

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for target in edges.get(start, set()) - seen:
            if target == goal or reaches(target, goal, seen | {target}):
                return True
        return False

    circles = [name for name in edges if reaches(name, name, set())]
    assert not circles, f"circular imports through {sorted(circles)}"


def test_what_must_be_light_does_not_import_torch() -> None:
    for name in WITHOUT_TORCH:
        assert not any(module.split(".")[0] == "torch" for module in imported(ROOT / name)), name

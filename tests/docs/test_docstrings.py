"""Public functions document the errors they raise; the docstring of a command is its help."""

import ast
from collections.abc import Iterator
from pathlib import Path

import facescale

PACKAGE = Path(facescale.__file__).parent


def is_command(function: ast.FunctionDef) -> bool:
    """Whether a decorator registers the function as a command."""
    calls = [each.func for each in function.decorator_list if isinstance(each, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def raises_value_error(function: ast.FunctionDef) -> bool:
    """Whether the body itself, without functions and classes defined in it, raises a ValueError."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"))):
                return True
        waiting += ast.iter_child_nodes(node)
    return False


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Name, function and docstring; that of a class counts for its constructor."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not is_command(node):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    doc = ast.get_docstring(part) or ""
                    if part.name in ("__init__", "__post_init__"):
                        doc += ast.get_docstring(node) or ""
                    elif part.name.startswith("_"):
                        continue
                    yield f"{node.name}.{part.name}", part, doc


def undocumented(source: str) -> list[str]:
    functions = public_functions(ast.parse(source))
    return [name for name, node, doc in functions if raises_value_error(node) and "Raises:" not in doc]


def test_public_functions_document_their_value_errors() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    missing = [f"{file.name}: {name}" for file in files for name in undocumented(file.read_text())]
    assert files and not missing, "\n".join(missing)


def test_a_missing_section_is_found() -> None:
    raising = 'def f():\n    """Do."""\n    raise ValueError("x")\n'
    assert undocumented(raising) == ["f"]
    assert undocumented(raising.replace("Do.", "Do.\n\n    Raises:\n        ValueError: always.\n    ")) == []
    inner = "def f():\n    def g():\n        raise ValueError('x')\n"
    assert undocumented(inner) == []
    assert undocumented("class A:\n    def __init__(self):\n        raise ValueError('x')\n") == [
        "A.__init__"
    ]

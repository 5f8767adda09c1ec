"""Read settings from another project's Python, shell or JSON files: parsed, never executed."""

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from facescale.guard.limits import CONFIG_BYTES
from facescale.guard.reading import read_bytes, reading

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_NUMBER = (int, float)


def read_settings(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings of one file by name, and those whose value only running it would give.

    Known are ``config.NAME = VALUE`` (arcface_torch, AttFC), and of F2C ``add_argument("--NAME",
    default=VALUE)``, ``--NAME=VALUE`` in a shell script, and JSON of ``NAME: [TYPE, VALUE]``.

    Raises:
        ValueError: the file cannot be read, or holds no settings.
    """
    with reading(path, "the config", "give a whole .py, .sh or JSON"):
        return _read(path)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    data = read_bytes(path, "the config", CONFIG_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; give a config as .py, .sh or JSON") from None
    reader = {".py": _from_python, ".sh": _from_shell}.get(path.suffix, _from_json)
    settings, unknown = reader(path, text)
    if not settings:
        raise ValueError(f"{path} holds no settings of a known form (arcface_torch, AttFC or F2C)")
    return settings, unknown


def _from_python(path: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not valid Python: {error}") from None
    settings: dict[str, Any] = {}
    unknown: list[str] = []
    for name, node in _assigned(tree):
        try:
            settings[name] = _value(node, settings)
        except (ValueError, ArithmeticError, TypeError, OverflowError, RecursionError):
            unknown.append(name)
    return settings, unknown


def _assigned(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    """(name, value) of each ``config.NAME = VALUE`` and each argument with a default, in order."""
    found: list[tuple[str, ast.expr]] = []
    for statement in tree.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            assert isinstance(statement, ast.Assign)
            found.append((target.attr, statement.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            default = next((word.value for word in node.keywords if word.arg == "default"), None)
            if isinstance(name, str) and default is not None:
                found.append((name.lstrip("-"), default))
    return found


def _value(node: ast.expr, settings: Mapping[str, Any]) -> Any:
    """A literal, an earlier setting, or arithmetic of numbers.

    Raises:
        ValueError: anything else.
    """
    match node:
        case ast.Constant(value):
            return value
        case ast.Tuple(items) | ast.List(items):
            return [_value(item, settings) for item in items]
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(operand, settings)
        case ast.Attribute(ast.Name(), name) if name in settings:
            value = settings[name]
            if isinstance(value, list) and any(isinstance(item, list) for item in value):
                raise ValueError("lists of lists of lists could double with every line")
            return value
        case ast.BinOp(left, kind, right) if type(kind) in _ARITHMETIC:
            return _ARITHMETIC[type(kind)](_number(left, settings), _number(right, settings))
        case ast.Call(ast.Name("int"), [one], []):
            return int(_number(one, settings))
    raise ValueError("only running it would tell")


def _number(node: ast.expr, settings: Mapping[str, Any]) -> Any:
    value = _value(node, settings)
    if not isinstance(value, _NUMBER) or abs(value) > 1e15:
        raise ValueError("not a number")
    return value


def _from_shell(path: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    """``NAME=VALUE`` lines, and ``--NAME=${OTHER}`` that refer to them."""
    variables: dict[str, str] = dict(re.findall(r"^(\w+)=(\S*?)\s*(?:#.*)?$", text, re.MULTILINE))
    settings: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in re.findall(r"--(\w+)=(\S+)", text):
        reference = re.fullmatch(r"\$\{?(\w+)\}?", value)
        word = variables.get(reference[1], "") if reference else value
        if word and "$" not in word:
            settings[name] = _plain(word)
        elif name not in unknown:
            unknown.append(name)
    return settings, unknown


def _from_json(path: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    """F2C's optimizer config: ``{NAME: [TYPE, VALUE]}``, values as text."""
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is neither .py, .sh nor JSON: {error}") from None
    pairs = tree.items() if isinstance(tree, dict) else ()
    typed = {name: pair[1] for name, pair in pairs if isinstance(pair, list) and len(pair) == 2}
    return {name: _plain(value) if isinstance(value, str) else value for name, value in typed.items()}, []


def _plain(word: str) -> Any:
    """A word as a number where it is one."""
    for kind in _NUMBER:
        try:
            return kind(word)
        except ValueError:
            pass
    return word.strip("\"'")

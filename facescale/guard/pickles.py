"""Read the data in a pickle without running it: a closed set of instructions, of names and of work.

A pickle is a program. It may name any function for the reader to call, share one object a thousand times, or
build a tuple of itself whose hash takes years. Here it can build lists, dicts, tuples, numbers and texts,
and call nothing but the stand-ins that its reader lists.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from facescale.guard.limits import PICKLE_STEPS

_KEYS = (str, bytes, int, float, type(None))  # of dicts; the hash of a nested tuple may take years

# No DUP, INST, OBJ, EXT, sets or buffers: files of data have none.
_INSTRUCTIONS = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "GET", "BINGET",
    "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GLOBAL", "STACK_GLOBAL",
)  # fmt: skip


class PickleError(ValueError):
    """A pickle asks for what is not allowed, or is damaged."""


class Name:
    """A name that a pickle mentions and that its reader does not list: inert."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Inert:
    """Stands for an object of a class that is not loaded: takes any state and keeps none."""

    def append(self, _: Any) -> None:
        """Of a list."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """Of a dict."""


class ClosedUnpickler(pickle._Unpickler):
    """Builds plain containers and calls listed stand-ins.

    The variant of the standard library that is written in Python is used: with the C one, five bytes of a
    file can number a memo entry 2^32 - 1, and it makes room for all the numbers below.

    Args:
        file: the pickle, in memory or in a file that is read in part.
        callables: by (module, name), what a file may call.
        settable: classes of stand-ins whose state a file may set.
        keys: classes of stand-ins that may be keys of dicts, beside numbers and texts.
        classes: other classes become `Inert` objects; else they are refused.
        what: the file is, for messages.
        steps: most instructions.
    """

    def __init__(
        self,
        file: Any,
        callables: Mapping[tuple[str, str], Callable[..., Any]],
        *,
        settable: tuple[type, ...] = (),
        keys: tuple[type, ...] = (),
        classes: bool = False,
        what: str = "a file of data",
        steps: int = PICKLE_STEPS,
        encoding: str = "bytes",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._callables = callables
        self._ids = {id(function) for function in callables.values()}
        self._settable = settable
        self._classes = classes
        self._keys = _KEYS + keys
        self._what = what
        self._steps = steps

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            PickleError: it is damaged, asks for something that is not allowed, or for too much work.
        """
        try:
            return self._run()
        except PickleError:
            raise
        except (EOFError, IndexError, KeyError):
            raise PickleError("it is damaged or cut short") from None
        except Exception as error:  # of damaged pickles nearly anything
            text = str(error).partition("\n")[0][:200]
            raise PickleError(text or type(error).__name__) from None

    def _run(self) -> Any:
        self._unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.read, self.readinto = self._unframer.read, self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        table, read = _TABLE, self.read
        for _ in range(self._steps):
            code = read(1)
            if not code:
                raise EOFError
            if code not in table:
                raise PickleError(f"it has the instruction {code!r}, which {self._what} does not have")
            if code == pickle.STOP:
                return self.stack.pop()
            table[code](self)
        raise PickleError(f"it has more than {self._steps:,} instructions, the most that are followed")

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, or a name that does nothing.

        Raises:
            PickleError: a name that is not listed, where only listed ones are allowed.
        """
        if (module, name) in self._callables:
            return self._callables[module, name]
        if not self._classes:
            raise PickleError(f"it asks to run {module}.{name}, which is not allowed in {self._what}")
        return Name(module, name)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if isinstance(function, Name):
            raise PickleError(
                f"it asks to run {function.module}.{function.name}, which is not allowed in {self._what}"
            )
        if not isinstance(arguments, tuple) or id(function) not in self._ids:
            raise PickleError("it calls something that is not a function")
        self.append(function(*arguments))

    def _make(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if isinstance(kind, Name):
            self.append(Inert())
            return
        if not isinstance(arguments, tuple) or id(kind) not in self._ids:
            raise PickleError("it makes an object of something that is not a class")
        self.append(kind(*arguments))

    def _make_with_names(self) -> None:
        self.stack.pop()
        self._make()

    def _build(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(owner, self._settable):
            owner.__setstate__(state)  # type: ignore[attr-defined]
        elif not isinstance(owner, Inert | dict):  # an OrderedDict has attributes; they do not matter
            raise PickleError("it sets the state of something that has none")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put_item(self.stack[-1], key, value)

    def _set_items(self) -> None:
        items = self._pop_mark()
        for place in range(0, len(items) - 1, 2):
            self._put_item(self.stack[-1], items[place], items[place + 1])

    def _dict(self) -> None:
        items = self._pop_mark()
        made: dict[Any, Any] = {}
        for place in range(0, len(items) - 1, 2):
            self._put_item(made, items[place], items[place + 1])
        self.append(made)

    def _put_item(self, into: Any, key: Any, value: Any) -> None:
        if isinstance(into, Inert):
            return
        if type(into) is not dict:
            raise PickleError("it puts an entry into something that is not a dict")
        if not isinstance(key, self._keys):
            if not self._classes:
                raise PickleError("a dict has a key that is neither a number nor a text")
            return  # beside the weights; of no use here
        into[key] = value

    def _append_one(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _append_all(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, values: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is list:
            into.extend(values)
        elif not isinstance(into, Inert):
            raise PickleError("it appends to something that is not a list")

    def _pop_mark(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        items = self.stack
        self.stack = self.metastack.pop()
        self.append = self.stack.append
        return items

    def _reference(self) -> None:
        self.append(self.persistent_load(self.stack.pop()))


def _table() -> dict[bytes, Callable[[ClosedUnpickler], None]]:
    table: dict[bytes, Callable[[Any], None]] = {
        (code := getattr(pickle, name)): pickle._Unpickler.dispatch[code[0]] for name in _INSTRUCTIONS
    }
    own = ClosedUnpickler
    return table | {
        pickle.REDUCE: own._call,
        pickle.NEWOBJ: own._make,
        pickle.NEWOBJ_EX: own._make_with_names,
        pickle.BUILD: own._build,
        pickle.SETITEM: own._set_item,
        pickle.SETITEMS: own._set_items,
        pickle.DICT: own._dict,
        pickle.APPEND: own._append_one,
        pickle.APPENDS: own._append_all,
        pickle.BINPERSID: own._reference,
    }


_TABLE = _table()


def load_closed(data: bytes, callables: Mapping[tuple[str, str], Callable[..., Any]], **options: Any) -> Any:
    """Read a pickle in memory; arguments as `ClosedUnpickler`.

    Raises:
        PickleError: as `ClosedUnpickler.load`.
    """
    return ClosedUnpickler(io.BytesIO(data), callables, **options).load()

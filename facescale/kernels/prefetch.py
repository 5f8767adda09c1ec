"""Ask for memory before it is needed; importing this needs numba."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_READ, _ALL_CACHES, _DATA = 0, 3, 1  # arguments of LLVM's prefetch


def _prefetch(_context: Any, array: Any, _index: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        where = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        insert: Any = cgutils.get_or_insert_function
        call = insert(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(call, [where, number(_READ), number(_ALL_CACHES), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Any = intrinsic(_prefetch)
"""``prefetch(array, index)`` in compiled code: start to load the cache line of ``array[index]``, and go on.

Unlike a load, it does not keep a place in the processor's queue until the line has come.
"""

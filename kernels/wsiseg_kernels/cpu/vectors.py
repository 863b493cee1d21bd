"""Steps on whole vectors for which compiled loops come out several times slower: sums of rows, and of pixels beside each
other in interleaved RGB.

Written as LLVM's own vector instructions (`shufflevector` and the like), which every processor that numba compiles for
has an answer to, in registers as wide as it has. None of them looks where an array ends: what each one touches stands
in its text, and the caller has to have room for it.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
"""Values that one step reads."""
SUMS = 32
"""Values that the folds write, and the roundings read and write."""

AHEAD, LINE = 4, 64
"""So many rows ahead their cache lines, of so many bytes, are asked for. The rows of a window of a ring lie in pages of
their own, where no processor looks ahead by itself: each row would wait for the memory."""

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _at(context, builder, kind, array, indices, vector):
    """A pointer to `vector` at the element with these leading indices and, last, this one along the memory."""
    held = context.make_array(kind)(context, builder, array)
    strides = cgutils.unpack_tuple(builder, held.strides)
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    offset = builder.mul(indices[-1], ir.Constant(indices[-1].type, size))
    for stride, index in zip(strides, indices[:-1], strict=False):
        offset = builder.add(offset, builder.mul(stride, index))
    begin = builder.bitcast(held.data, _I8.as_pointer())
    return builder.bitcast(builder.gep(begin, [offset]), vector.as_pointer())


def _load(builder, place, align):
    value = builder.load(place)
    value.align = align
    return value


def _store(builder, value, place, align):
    builder.store(value, place).align = align


def _all(builder, value, lanes):
    """A vector of `lanes` times the value."""
    vector = ir.VectorType(value.type, lanes)
    none = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


@intrinsic
def sum_rows(typingctx, src, top, bottom, i, line):
    """line[i:i+64] = the sums of src[top:bottom, i:i+64], uint16; i counts bytes from the row's begin.

    src uint8 [h, w, 3] with the values of a row side by side; line uint16; at most 257 rows.
    """

    def codegen(context, builder, signature, arguments):
        src, top, bottom, i, line = arguments
        narrow, wide = ir.VectorType(_I8, LANES), ir.VectorType(_I16, LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(wide, None))
        with cgutils.for_range_slice(builder, top, bottom, ir.Constant(top.type, 1), top.type, inc=True) as (
            y,
            _,
        ):
            row = _load(builder, _at(context, builder, signature.args[0], src, (y, i), narrow), 1)
            builder.store(builder.add(builder.load(total), builder.zext(row, wide)), total)
        _store(builder, builder.load(total), _at(context, builder, signature.args[4], line, (i,), wide), 2)
        return context.get_dummy_value()

    return types.void(src, types.intp, types.intp, types.intp, line), codegen


@intrinsic
def move(typingctx, src, y, i, out, v):
    """out[v] from byte i on, 64 bytes = those of src[y]; both uint8 [h, w, 3] with the values of a row side by side."""

    def codegen(context, builder, signature, arguments):
        src, y, i, out, v = arguments
        vector = ir.VectorType(_I8, LANES)
        values = _load(builder, _at(context, builder, signature.args[0], src, (y, i), vector), 1)
        _store(builder, values, _at(context, builder, signature.args[3], out, (v, i), vector), 1)
        return context.get_dummy_value()

    return types.void(src, types.intp, types.intp, out, types.intp), codegen


def _fold(factor: int):
    """The step of `fold`: (the compiled function, pixels that it makes)."""
    pixels = min(LANES // (3 * factor), SUMS // 3)

    @intrinsic
    def step(typingctx, line, i, out, o):
        def codegen(context, builder, signature, arguments):
            line, i, out, o = arguments
            wide = ir.VectorType(_I16, LANES)
            values = _load(builder, _at(context, builder, signature.args[0], line, (i,), wide), 2)
            none, total = ir.Constant(wide, ir.Undefined), None
            for k in range(factor):
                picked = [3 * factor * u + 3 * k + c for u in range(pixels) for c in range(3)]
                picked += [picked[-1]] * (SUMS - len(picked))
                part = builder.shuffle_vector(values, none, ir.Constant(ir.VectorType(_I32, SUMS), picked))
                total = part if total is None else builder.add(total, part)
            place = _at(context, builder, signature.args[2], out, (o,), ir.VectorType(_I16, SUMS))
            _store(builder, total, place, 2)
            return context.get_dummy_value()

        return types.void(line, types.intp, out, types.intp), codegen

    return step, pixels


# fold_N(line, i, out, o): out[o + 3 u + c] = line[i + 3 N u + c] + line[i + 3 N u + 3 + c] + ... of N pixels, for u below
# FOLDED_N and c below 3, uint16. Reads line[i:i+64] and writes out[o:o+32]; what it writes after its pixels is of no use.
fold_2, FOLDED_2 = _fold(2)
fold_3, FOLDED_3 = _fold(3)
fold_5, FOLDED_5 = _fold(5)
fold_7, FOLDED_7 = _fold(7)


def _round(middle, spread):
    """A step that makes bytes of sums, uint16: `middle(builder, sums, a, b)`, a and b vectors of the two arguments."""

    @intrinsic
    def step(typingctx, sums, i, a, b, out, y):
        def codegen(context, builder, signature, arguments):
            sums, i, a, b, out, y = arguments
            wide, narrow = ir.VectorType(_I16, SUMS), ir.VectorType(_I8, SUMS)
            values = _load(builder, _at(context, builder, signature.args[0], sums, (i,), wide), 2)
            values = middle(builder, values, _all(builder, a, SUMS), _all(builder, b, SUMS))
            place = _at(context, builder, signature.args[4], out, (y, i), narrow)
            _store(builder, values, place, 1)
            return context.get_dummy_value()

        return types.void(sums, types.intp, spread, spread, out, types.intp), codegen

    return step


def _shifted(builder, sums, half, shift):
    return builder.trunc(builder.lshr(builder.add(sums, half), shift), ir.VectorType(_I8, SUMS))


def _multiplied(builder, sums, half, inverse):
    floats = builder.uitofp(sums, ir.VectorType(ir.FloatType(), SUMS))
    return builder.fptoui(builder.fmul(builder.fadd(floats, half), inverse), ir.VectorType(_I8, SUMS))


# round_shift(sums, i, half, shift, out, y): 32 bytes of out[y] from byte i on = (sums[i:i+32] + half) >> shift.
# round_product(sums, i, half, inverse, out, y): the same of (sums[i:i+32] + half) * inverse in float32, rounded down.
# sums uint16; out uint8 [h, w, 3] with the values of a row side by side.
round_shift = _round(_shifted, types.uint16)
round_product = _round(_multiplied, types.float32)


@intrinsic
def prefetch(typingctx, array, row, i):
    """Ask for the memory at array[row] and, along the memory, element i: it will be written soon.

    array of any type and at least one dimension more than rows; nothing is touched, so the place may lie outside.
    """

    def codegen(context, builder, signature, arguments):
        array, row, i = arguments
        place = _at(context, builder, signature.args[0], array, (row, i), _I8)
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        name = "llvm.prefetch.p0"
        hint = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(hint, [place, ir.Constant(_I32, 1), ir.Constant(_I32, 3), ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen

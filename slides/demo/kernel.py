"""The inner loops of engine.js as WebAssembly, which does four columns an instruction.

Code is a list of bytes. A value is code that leaves a number, a step is code that leaves none; the
functions of the first part make them of values, steps and the numbers of locals.
"""

from itertools import chain

COLUMNS = 32  # of a matrix that are added up at once
PARTS = range(COLUMNS // 4)
WHOLE, REAL, FOUR = 0x7F, 0x7D, 0x7B  # types: i32, also for an address in bytes; f32; v128

# ---- instructions ----


def instruction(*code):
    """The function that puts an instruction behind the values that it takes."""
    return lambda *values: [*chain(*values), *code]


plus, minus = instruction(0x6A), instruction(0x6B)  # i32.add, sub
shifted, unequal = instruction(0x74), instruction(0x47)  # i32.shl, ne
load, store = instruction(0x28, 2, 0), instruction(0x36, 2, 0)  # i32.load, store
as_real, from_bits = instruction(0xB2), instruction(0xBE)  # f32.convert_i32_s, reinterpret_i32
greater = instruction(0x97)  # f32.max
splat, load_splat = instruction(0xFD, 0x13), instruction(0xFD, 0x09, 2, 0)  # one float four times
plus4, times4 = instruction(0xFD, 0xE4, 1), instruction(0xFD, 0xE6, 1)  # f32x4.add, mul
most4, least4 = instruction(0xFD, 0xEB, 1), instruction(0xFD, 0xEA, 1)  # f32x4.pmax, pmin
abs4, floor4 = instruction(0xFD, 0xE0, 1), instruction(0xFD, 0x68)  # f32x4.abs, floor


def load4(address, part=0):
    """Four floats, `part` times four behind the address."""
    return [*address, 0xFD, 0x00, 2, 16 * part]


def store4(address, four, part=0):
    """Puts four floats there."""
    return [*address, *four, 0xFD, 0x0B, 2, 16 * part]


def lane(four, k):
    """One of four floats."""
    return [*four, 0xFD, 0x1F, k]


def whole(number):
    """A number from -8192 to 8191."""
    return [0x41, number & 127 | 128, number >> 7 & 127]


def two_to_the(exponent):
    """A float, from the bits of its exponent."""
    return from_bits(shifted(plus(exponent, whole(127)), whole(23)))


def get(local):
    """What a local holds."""
    return [0x20, local]


def let(local, value):
    """Gives a local a value."""
    return [*value, 0x21, local]


def move(address, distance):
    """Adds to a local."""
    return let(address, plus(get(address), distance))


def when(condition, *steps):
    """The steps, unless the condition is 0."""
    return [*condition, 0x04, 0x40, *chain(*steps), 0x0B]


def until(address, end, *steps):
    """The steps, once at least, until the address, which they move, has reached the end."""
    again = [*get(address), *get(end), 0x49, 0x0D, 0]
    return [0x03, 0x40, *chain(*steps), *again, 0x0B]


# ---- functions: types of what they take and give; how many locals more, of which type; steps ----


def mac():
    """mac(x, cells, end, g, wide, out): the currents of a tile to `out`; returns the largest
    magnitude. More than half of all voltages are 0; the others are listed, behind the currents.

        listed = [(x[cell], row) for cell, row in zip(cells to end, rows of g) if x[cell]]
        for each 32 columns, if any is listed:
            totals = sum(volts * row[columns] for volts, row in listed)
            out[columns] = totals
            largest = max(largest, |totals|)
        return largest
    """
    x, cells, end, g, wide, out, start, entry, v, row, block = range(11)
    volts, largest, *totals = range(11, 13 + len(PARTS))
    lanes = [lane(get(largest), k) for k in range(4)]
    steps = [
        let(start, plus(get(out), get(wide))),
        let(entry, get(start)),
        until(
            cells,
            end,
            let(v, load(plus(get(x), load(get(cells))))),  # its bits
            store(get(entry), get(v)),
            store(plus(get(entry), whole(4)), get(g)),
            move(entry, shifted(unequal(get(v), whole(0)), whole(3))),  # by 8 or 0
            move(cells, whole(4)),
            move(g, get(wide)),
        ),
        let(end, get(entry)),
        when(
            unequal(get(start), get(end)),
            until(
                out,
                start,
                let(entry, get(start)),
                *[let(total, splat(as_real(whole(0)))) for total in totals],
                until(
                    entry,
                    end,
                    let(volts, load_splat(get(entry))),
                    let(row, plus(get(block), load(plus(get(entry), whole(4))))),
                    *[
                        let(total, plus4(get(total), times4(get(volts), load4(get(row), part))))
                        for part, total in enumerate(totals)
                    ],
                    move(entry, whole(8)),
                ),
                *[store4(get(out), get(total), part) for part, total in enumerate(totals)],
                *[let(largest, most4(get(largest), abs4(get(total)))) for total in totals],
                move(block, whole(4 * COLUMNS)),
                move(out, whole(4 * COLUMNS)),
            ),
        ),
        greater(greater(*lanes[:2]), greater(*lanes[2:])),
    ]
    return [WHOLE] * 6, [REAL], [(5, WHOLE), (2 + len(PARTS), FOUR)], steps


def adc():
    """adc(out, end, sums, exponent, bound): adds what the ADC makes of currents to `sums`; where
    `bound` is 0, the currents.

        step = 2 ** exponent
        for each four columns:
            four = out[columns]
            if bound:
                four = min(max(floor(four / step + 1/2), -bound), bound - 1) * step
            sums[columns] += four
    """
    out, end, sums, exponent, bound, step, rate, half, low, high, four = range(11)
    rounded = floor4(plus4(times4(get(four), get(rate)), get(half)))
    steps = [
        let(step, splat(two_to_the(get(exponent)))),
        let(rate, splat(two_to_the(minus(whole(0), get(exponent))))),
        let(half, splat(two_to_the(whole(-1)))),
        let(low, splat(as_real(minus(whole(0), get(bound))))),
        let(high, splat(as_real(minus(get(bound), whole(1))))),
        until(
            out,
            end,
            let(four, load4(get(out))),
            when(
                get(bound),
                let(four, times4(least4(most4(rounded, get(low)), get(high)), get(step))),
            ),
            store4(get(sums), plus4(load4(get(sums)), get(four))),
            move(out, whole(16)),
            move(sums, whole(16)),
        ),
    ]
    return [WHOLE] * 5, [], [(6, FOUR)], steps


def activate():
    """activate(sums, across, down, x, end, bias, factor, least): the outputs of one place to `x`,
    from the currents at four.

        for each four columns:
            most = max(sums[columns] at 0, across, down, down + across)
            x[columns] = max(most * factor + bias[columns], least)
    """
    sums, across, down, x, end, bias, factor, least, lower, most = range(10)

    def pair(address):
        return most4(load4(get(address)), load4(plus(get(address), get(across))))

    steps = [
        let(lower, plus(get(sums), get(down))),
        until(
            x,
            end,
            let(most, times4(most4(pair(sums), pair(lower)), splat(get(factor)))),
            store4(get(x), most4(plus4(get(most), load4(get(bias))), splat(get(least)))),
            *[move(address, whole(16)) for address in (sums, lower, x, bias)],
        ),
    ]
    return [WHOLE] * 6 + [REAL] * 2, [], [(1, WHOLE), (1, FOUR)], steps


# ---- the module ----


def sized(content):
    """A length in two bytes (LEB128), then what has it."""
    return [len(content) & 127 | 128, len(content) >> 7, *content]


def name(text):
    """A text behind its length."""
    return [len(text), *text.encode()]


def kernel():
    """The bytes of a module that imports the memory `m.m` and exports the functions above."""
    functions = {"mac": mac(), "adc": adc(), "activate": activate()}
    count, types, exports, bodies = len(functions), [], [], []
    for i, (title, (takes, gives, more, steps)) in enumerate(functions.items()):
        types += [0x60, len(takes), *takes, len(gives), *gives]
        exports += [*name(title), 0, i]
        bodies += sized([len(more), *chain(*more), *chain(*steps), 0x0B])
    sections = {
        1: [count, *types],
        2: [1, *name("m"), *name("m"), 2, 0, 1],
        3: [count, *range(count)],
        7: [count, *exports],
        10: [count, *bodies],
    }
    content = [byte for number, part in sections.items() for byte in (number, *sized(part))]
    return bytes([*b"\0asm", 1, 0, 0, 0, *content])

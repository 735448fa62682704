"""The inner loop of engine.js as WebAssembly, which does four columns an instruction."""

COLUMNS = 32  # of a matrix that it does at once
V, G, OUT, N, STRIDE, FACTOR, SUMS = range(7)  # five arguments, then locals; sums in 6 to 13
I32, V128, FUNCTION = 0x7F, 0x7B, 0x60  # types
LOOP, END, BRANCH_IF, GET, SET, TEE, CONST, PLUS, MINUS = (
    *(0x03, 0x0B, 0x0D, 0x20, 0x21, 0x22, 0x41, 0x6A, 0x6B),
)
LOAD, LOAD_SPLAT, STORE = ((0xFD, code) for code in (0x00, 0x09, 0x0B))  # of four floats
MULTIPLY, ADD = (0xFD, 0xE6, 0x01), (0xFD, 0xE4, 0x01)


def sized(content):
    """A length in two bytes (LEB128), then what has it."""
    return [len(content) & 127 | 128, len(content) >> 7, *content]


def kernel():
    """A module that imports the memory `m.m` and exports `f(v, g, out, n, stride)`: 32 floats at
    `out` become the sum over n > 0 rows of v[row] * g[row][0..31]. All are addresses in bytes but
    n; a row of g is `stride` bytes after the one before."""
    parts = range(COLUMNS // 4)
    body = [1, 1 + len(parts), V128]
    body += [LOOP, 0x40, GET, V, *LOAD_SPLAT, 2, 0, SET, FACTOR]
    for i in parts:
        body += [GET, SUMS + i, GET, FACTOR, GET, G, *LOAD, 2, 16 * i]
        body += [*MULTIPLY, *ADD, SET, SUMS + i]
    body += [GET, V, CONST, 4, PLUS, SET, V, GET, G, GET, STRIDE, PLUS, SET, G]
    body += [GET, N, CONST, 1, MINUS, TEE, N, BRANCH_IF, 0, END]
    for i in parts:
        body += [GET, OUT, GET, SUMS + i, *STORE, 2, 16 * i]
    body += [END]
    name = {letter: [1, ord(letter)] for letter in "mf"}
    sections = {
        1: [1, FUNCTION, 5, *[I32] * 5, 0],
        2: [1, *name["m"], *name["m"], 2, 0, 1],
        3: [1, 0],
        7: [1, *name["f"], 0, 0],
        10: [1, *sized(body)],
    }
    content = [byte for number, part in sections.items() for byte in (number, *sized(part))]
    return bytes([*b"\0asm", 1, 0, 0, 0, *content])

"""How bytes are damaged: what disks, copies and people do to files, from a seeded stream."""

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def mutate(data, chance):
    """Return a damaged copy: one to four of the mutations below."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        chance.choice(MUTATIONS)(damaged, chance)
    return bytes(damaged)


def _at(data, chance):
    return chance.randrange(len(data)) if data else 0


def flip_a_bit(data, chance):
    if data:
        data[_at(data, chance)] ^= 1 << chance.randrange(8)


def set_a_byte(data, chance):
    if data:
        data[_at(data, chance)] = chance.choice((*INTERESTING, chance.randrange(256)))


def set_a_header_byte(data, chance):
    if data:
        data[chance.randrange(min(len(data), 64))] = chance.randrange(256)


def set_four_bytes(data, chance):
    at = _at(data, chance)
    value = chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 13_000, chance.randrange(2**32)))
    data[at : at + 4] = value.to_bytes(4, chance.choice(("big", "little")))


def cut_the_end(data, chance):
    del data[_at(data, chance) :]


def cut_a_part(data, chance):
    start = _at(data, chance)
    del data[start : start + chance.randrange(1, 600)]


def repeat_a_part(data, chance):
    start = _at(data, chance)
    part = data[start : start + chance.randrange(1, 600)]
    data[start:start] = part


def zero_a_part(data, chance):
    start = _at(data, chance)
    end = min(len(data), start + chance.randrange(1, 600))
    data[start:end] = bytes(end - start)


def insert_noise(data, chance):
    at = _at(data, chance)
    data[at:at] = chance.randbytes(chance.randrange(1, 40))


def swap_parts(data, chance):
    first, second = sorted((_at(data, chance), _at(data, chance)))
    size = min(chance.randrange(1, 200), second - first)
    data[first : first + size], data[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )


def append_noise(data, chance):
    data += chance.randbytes(chance.randrange(1, 600))


MUTATIONS = (
    flip_a_bit,
    set_a_byte,
    set_a_header_byte,
    set_four_bytes,
    cut_the_end,
    cut_a_part,
    repeat_a_part,
    zero_a_part,
    insert_noise,
    swap_parts,
    append_noise,
)

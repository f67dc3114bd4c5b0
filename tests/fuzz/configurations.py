"""Mutated YAML: a configuration, or one sentence of a sane length."""

import random
from pathlib import Path

from madbal_ray.config.file import load_config
from madbal_ray.errors import ConfigError
from madbal_ray.studies.search_space import load_space
from madbal_ray.studies.suite_config import load_suite
from tests.fuzz.mutations import mutate

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
MAX_MESSAGE = 4_000

SCALARS = (
    *(
        b"2001-99-99",
        b"2001-01-01",
        b"12:30:45",
        b"9" * 5000,
        b"0x" + b"f" * 6000,
        b".inf",
        b".nan",
    ),
    *(
        b"-1",
        b"1e400",
        b"null",
        b"~",
        b"[]",
        b"{}",
        b"'",
        b'"',
        b"|",
        b">",
        b"%",
        b"@",
        b"`",
        b"\t",
    ),
    *(b"[" * 3000, b"{" * 2000, b"\xff\xfe", b"\x00", b"&a [*a]", b"*x", b"a" * 100_000, b"../up"),
    *(b"!!python/object/apply:os.system [x]", b"!!binary aGk=", b"!!set {a}", b"!!timestamp x"),
    *(b"!!float x", b"!!int ''", b"!!bool x", b"!!int _", b"!!null x", b"!!omap [a: 1]", b"1: 2"),
    *(b"\xed\xa0\x80", b"s3://K:S@bucket/x", b"true: 3", b"<<: {a: 1}", b"$\\frac{$", b"[/red]"),
    b"{a: &a [x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b],"
    b" d: &d [*c,*c,*c,*c,*c,*c,*c,*c], e: [*d,*d,*d,*d,*d,*d,*d,*d]}",
)


def mutate_lines(data, chance):
    """Return YAML with another value, a line twice, indented otherwise or missing."""
    lines = data.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        key, colon, _ = lines[at].partition(b":")
        what = chance.random()
        if what < 0.5 and colon:
            lines[at] = key + b": " + chance.choice(SCALARS)
        elif what < 0.6:
            lines[at] += chance.choice(SCALARS)
        elif what < 0.7:
            lines.insert(at, chance.choice(lines))
        elif what < 0.85:
            lines[at] = b"  " * chance.randrange(4) + lines[at].strip()
        elif len(lines) > 1:
            del lines[at]
    return b"\n".join(lines)


def cases(seed, count):
    """Yield (name, loader, mutated) of a seed."""
    sources = [
        (loader, path.read_bytes())
        for folder, loader in (("", load_config), ("suites", load_suite), ("spaces", load_space))
        for path in sorted((EXPERIMENTS / folder).glob("*.yaml"))
    ]
    for index in range(count):
        chance = random.Random(f"configuration {seed} {index}")
        loader, original = sources[chance.randrange(len(sources))]
        damage = mutate_lines if chance.random() < 0.8 else mutate
        yield f"configuration-{seed}-{index}", loader, damage(original, chance)


def check(loader, data, folder):
    """Return ``read`` or ``refused``."""
    path = folder / "c.yaml"
    path.write_bytes(data)
    try:
        loader(path)
    except ConfigError as error:
        return "refused" if len(str(error)) < MAX_MESSAGE else "wrong"
    return "read"

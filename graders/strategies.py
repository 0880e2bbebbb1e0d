"""Inputs for checks, in one place.

    @given(x=tensors(logprobs="B T logprob", rewards="B reward", mask="B T mask"))
    def test_...(x): compare("reinforce_loss", x.logprobs, x.rewards, x.mask, grad="logprobs")

A field is its dimensions and its kind. Dimensions are letters, drawn as primes that differ from each other (1 may occur
more than once), so that a wrong axis or a hard-coded constant shows. hypothesis draws only sizes, kinds and a seed; the
numbers come from a torch.Generator with that seed, rounded to one decimal: drawing is fast, and a shrunk case fits in a
head. Each field has its own numbers.

kinds   normal    N(0, 1)                       logprob   negative, of order 1
        reward    one decimal, or 0/1, or equal within each row; now and then all equal
        positive  0.1 to 2                      unit      0 to 1, ends included, steps of 0.1
        binary    0.0 or 1.0                    bool      True or False
        ids       integers 0 … V-1 (give a size to V with sizes=)
        mask      1 on one contiguous span a row, every dtype; see `span`
"""

import functools
import itertools
import math
from types import SimpleNamespace

import torch
from hypothesis import strategies as hypothesis_strategies

sampled_from, integers, booleans, floats, composite, just, one_of, lists, text = (
    getattr(hypothesis_strategies, name)
    for name in ("sampled_from", "integers", "booleans", "floats", "composite", "just", "one_of", "lists", "text")
)

SIZES = (1, 2, 3, 5, 7)
MASK_DTYPES = (torch.bool, torch.int64, torch.float32, torch.float64, torch.int32, torch.uint8)
FLOATS = (torch.float32, torch.float64)
HALF = (torch.bfloat16, torch.float16)
STYLES = ("decimal", "binary", "equal rows", "all equal")  # of rewards
SEEDS = 2**12
SPANS = ("full", "right", "inside", "single")


def tensors(
    *,
    sizes: dict | None = None,
    least: dict | None = None,
    dtypes: tuple = FLOATS,
    span: tuple = SPANS,
    empty_rows: str = "never",
    under_mask: tuple = ("finite",),
    scale: float = 1.0,
    contiguous: tuple = (True, False),
    **fields: str,
):
    """A namespace of tensors, one a keyword.

    sizes       {"V": 11}: exact sizes of letters, or a tuple to draw from.      least   {"G": 2}: smallest sizes.
    dtypes      of the floating fields; all get the same one. HALF for half precision.
    span        where a row's mask is 1: "full" everywhere, "right" a start of the row (right padding), "inside" a span
                that may start after a prompt, "single" one token.
    empty_rows  "never", "some" (at least one row, not all unless B = 1), "all".
    under_mask  what stands where the mask is 0, in every floating field with the mask's dimensions: "finite" garbage up
                to 30, "nan", "inf", "-inf", or "clean". ids get any id.
    scale       multiplies the normal and logprob fields.
    contiguous  (True,) draws contiguous tensors only.
    """
    kinds = {name: spec.split()[-1] for name, spec in fields.items()}
    dims = {name: tuple(spec.split()[:-1]) for name, spec in fields.items()}
    masked = next((name for name in fields if kinds[name] == "mask"), None)
    letters = tuple(dict.fromkeys(letter for name in fields for letter in dims[name]))
    choices = [(sizes or {}).get(letter, SIZES) for letter in letters]
    choices = [(c,) if isinstance(c, int) else c for c in choices]
    choices = [tuple(n for n in c if n >= (least or {}).get(x, 1)) for x, c in zip(letters, choices, strict=True)]

    options = [dtypes, contiguous]
    options += [span, MASK_DTYPES, under_mask] if masked else []
    options += [STYLES for kind in kinds.values() if kind == "reward"]

    def build(drawn: tuple[tuple[int, ...], int]) -> SimpleNamespace:
        size = dict(zip(letters, drawn[0], strict=True))
        (dtype, contiguously, *rest), seed = _decode(drawn[1], options)
        generator = torch.Generator().manual_seed(seed)
        built, mask, garbage = {}, None, "clean"
        if masked:
            chosen_span, mask_dtype, garbage, *rest = rest
            mask = _mask(chosen_span, *(size[letter] for letter in dims[masked]), empty_rows, generator)
            built[masked] = mask.to(mask_dtype)
        for name, kind in kinds.items():
            if kind == "mask":
                continue
            style = rest.pop() if kind == "reward" else ""
            value = _numbers(kind, [size[x] for x in dims[name]], size.get("V", 11), style, generator, scale)
            if masked and dims[name][:2] == dims[masked] and value.is_floating_point():
                value = _put_under(value, mask, garbage, generator)
            built[name] = value.to(dtype) if value.is_floating_point() else value
        if not contiguously:
            built = {name: _strided(value) for name, value in built.items()}
        return SimpleNamespace(**{name: built[name] for name in fields}, sizes=SimpleNamespace(**size))

    # Two draws for everything: a draw costs hypothesis more than its numbers cost torch. Small is simple in both.
    case = integers(0, 2**16)
    return hypothesis_strategies.tuples(_sizes(tuple(choices)), case).map(build)


@functools.cache
def _sizes(choices: tuple[tuple[int, ...], ...]):
    """Sizes that differ from each other (1 may repeat) as far as the choices allow; the smallest first."""
    every = list(itertools.product(*choices))
    different = [drawn for drawn in every if _differ(drawn)]
    return sampled_from(sorted(different or every, key=lambda drawn: (math.prod(drawn), drawn)))


def _differ(drawn: tuple[int, ...]) -> bool:
    larger = [n for n in drawn if n > 1]
    return len(set(larger)) == len(larger)


def _decode(case: int, options: list[tuple]) -> tuple[list, int]:
    """A choice from each tuple, and a seed, from one integer. 0 takes the first of each.

    hypothesis prefers small integers; multiplied by a large odd number they spread over all choices.
    """
    case, seed = divmod(case * 2654435761 % 2**32, SEEDS)
    chosen = []
    for option in options:
        case, index = divmod(case, len(option))
        chosen.append(option[index])
    return chosen, seed


def reward_groups(least: int = 2, **settings):
    """Rewards (P, G): P prompts with G >= `least` completions each; some groups without spread."""
    return tensors(rewards="P G reward", least={"G": least}, **settings).map(lambda x: x.rewards)


def one(spec: str, **settings):
    """A single tensor: one("B reward")."""
    return tensors(x=spec, **settings).map(lambda drawn: drawn.x)


def _numbers(kind: str, shape: list[int], ids: int, style: str, generator: torch.Generator, scale: float):
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "reward":
        return _rewards(uniform, style)
    if kind == "normal":
        return _decimal(torch.randn(shape, generator=generator, dtype=torch.float64)) * scale
    if kind == "logprob":
        return -_decimal(0.1 + 3 * uniform) * scale
    if kind == "positive":
        return _decimal(0.1 + 1.9 * uniform)
    if kind == "unit":
        return _decimal(uniform)
    if kind == "binary":
        return (uniform < 0.5).double()
    if kind == "bool":
        return uniform < 0.5
    if kind == "ids":
        return torch.randint(ids, shape, generator=generator)
    raise ValueError(f"unknown kind {kind!r}")


def _decimal(x: torch.Tensor) -> torch.Tensor:
    return (10 * x).round() / 10


def _rewards(uniform: torch.Tensor, style: str) -> torch.Tensor:
    rewards = (uniform < 0.5).double() if style == "binary" else _decimal(3 * uniform - 1)
    if style == "equal rows":
        return rewards[..., :1].expand_as(rewards).contiguous()
    return torch.full_like(rewards, 0.7) if style == "all equal" else rewards


def _mask(span: str, rows: int, columns: int, empty_rows: str, generator: torch.Generator) -> torch.Tensor:
    """A bool mask whose rows are one contiguous span each, of at least one token unless empty."""

    def below(n: torch.Tensor) -> torch.Tensor:  # an integer of 0 … n-1 a row
        return (torch.rand(rows, generator=generator) * n).long().clamp(max=n - 1)

    full = torch.full((rows,), columns)
    start = torch.zeros(rows, dtype=torch.long) if span in ("full", "right") else below(full)
    length = full if span == "full" else 1 + below(full - start)
    if span == "single":
        length = torch.ones(rows, dtype=torch.long)
    if empty_rows == "all":
        length = torch.zeros(rows, dtype=torch.long)
    elif empty_rows == "some":
        drop = torch.rand(rows, generator=generator) < 0.4
        drop[below(full)[0] % rows] = True
        if rows > 1 and drop.all():
            drop[0] = False
        length = torch.where(drop, 0, length)
    t = torch.arange(columns)
    return (t >= start[:, None]) & (t < (start + length)[:, None])


def _put_under(value: torch.Tensor, mask: torch.Tensor, garbage: str, generator: torch.Generator) -> torch.Tensor:
    """`value` with garbage where the mask is 0."""
    keep = mask.reshape(*mask.shape, *[1] * (value.dim() - 2)).expand_as(value)
    if garbage == "clean":
        return value
    if garbage == "finite":
        noise = _decimal(60 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 30)
    else:
        noise = torch.full_like(value, float(garbage))
    return torch.where(keep, value, noise)


def _strided(value: torch.Tensor) -> torch.Tensor:
    """The same numbers, not contiguous in memory (where there are two dimensions)."""
    return value.mT.contiguous().mT if value.dim() >= 2 else value

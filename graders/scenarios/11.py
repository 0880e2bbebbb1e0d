"""Scenes for week 11: where the randomness comes from, and a date with a time."""

import datetime

import torch


def randomness(paired_bootstrap, a: torch.Tensor, b: torch.Tensor, seed: int):
    """What is the same whenever the generator is in the same state, and another number in another state."""

    def interval(start):
        return paired_bootstrap(a.clone(), b.clone(), 200, torch.Generator().manual_seed(start))

    first, again, other = interval(seed), interval(seed), interval(seed + 1)
    return {
        "diff": first[0],
        "same state, same interval": first == again,
        "another state, another interval": first[1:] != other[1:],
        "low is below high": first[1] < first[2],
    }


def slug_of_datetime(experiment_slug, year: int, month: int, day: int, hour: int, title: str):
    return experiment_slug(datetime.datetime(year, month, day, hour, 30), title)

"""Misconceptions that are one function, written in two ways: no input tells them apart, so the first is named."""

from graders.misconceptions import Misconception

SAME = {
    ("fit_bradley_terry", "sign flipped", "table transposed"): (
        "strengths -s make the transposed table exactly as likely as s make the table, and the maximum is unique"
    ),
    ("bradley_terry_loss", "log of sigmoid", "log of one plus exp"): (
        "torch's sigmoid(x) is 1 / (1 + exp(-x)): both are inf, with NaN gradients, exactly where exp(-x) overflows"
    ),
    ("dpo_loss", "sign flipped", "weights of the labels swapped"): (
        "the loss is (1 - eps) L(x) + eps L(-x): -x for x and 1 - eps for eps give the same sum"
    ),
    ("dpo_loss", "label smoothing ignored", "smoothing with the same sign"): (
        "(1 - eps) L(x) + eps L(x) = L(x) for every eps"
    ),
    ("dpo_step", "gradients cleared before the step", "no optimizer step"): (
        "zero_grad sets every gradient to None, and an optimizer leaves parameters without a gradient alone"
    ),
    ("simpo_loss", "margin not scaled", "margin divided by beta"): "beta (d - ratio / beta) = beta d - ratio",
    ("log_odds_ratio", "1 - exp", "log1p of -exp"): (
        "near p = 1 both lose the digits of 1 - exp(avg) before the logarithm; near p = 0 what log1p keeps is far "
        "below the last digit of avg, to which it is added"
    ),
    ("kto_loss", "kinds swapped", "sign of all"): "1 - sigma(x) = sigma(-x): swapping the two kinds negates every x",
    ("top_per_prompt", "ties to the higher index", "flip of an ascending sort"): (
        "both sort stably from the other end: equal rewards come in reverse order, all else is the same"
    ),
    ("best_of_n_kl", "log n alone", "integer division"): "(n - 1) // n is 0 for every n from 1 on",
}


def one_function(a: Misconception, b: Misconception) -> bool:
    """Is it one misconception, or are the two listed as the same function?"""
    return a is b or any(
        function == a.function == b.function and {a.name, b.name} <= {*names} for function, *names in SAME
    )

"""Week 11, solved: over-optimization curves, on-policy distillation, paired comparisons, experiment names.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
code got wrong.
"""

import datetime
import math
import re

import torch
from torch import Tensor


def overoptimization_fit(kl: Tensor, gold: Tensor, kind: str) -> tuple[float, float]:
    """Least-squares (alpha, beta) of gold = d (alpha - beta d) or d (alpha - beta log d), d = sqrt(kl)."""
    kl, gold = kl.double(), gold.double()
    if not (kl >= 0).all():
        raise ValueError(f"kl holds {kl.min().item()}, but sqrt(KL) needs values of 0 or more")
    if len(kl[kl > 0].unique()) < 2:
        raise ValueError("alpha and beta need at least two different positive kl values")
    d = kl.sqrt()
    # The curve bends, but it is linear in what we look for: gold = alpha * d + beta * (-penalty).
    if kind == "bon":
        penalty = d * d
    elif kind == "rl":
        penalty = torch.xlogy(d, d)  # d log d; at d = 0 it is 0, where 0 * log(0) would be NaN
    else:
        raise ValueError(f'kind={kind!r}: choose "bon" or "rl"')
    design = torch.stack([d, -penalty], dim=1)
    alpha, beta = torch.linalg.lstsq(design, gold[:, None]).solution[:, 0].tolist()
    return alpha, beta


def on_policy_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, jsd_beta: float = 1.0
) -> Tensor:
    """Generalised Jensen-Shannon divergence, mean over tokens.  Shapes: (B, T, V), (B, T, V), (B, T) -> scalar."""
    if not 0 <= jsd_beta <= 1:
        raise ValueError(f"jsd_beta={jsd_beta}: choose a number from 0 to 1")
    student = _log_probs(student_logits, mask)
    teacher = _log_probs(teacher_logits, mask).detach()  # the teacher is a constant: only the student learns
    if jsd_beta == 0:
        divergence = _kl(teacher, student)  # forward: the student has to cover all that the teacher does
    elif jsd_beta == 1:
        divergence = _kl(student, teacher)  # reverse: the student must not do what the teacher would not
    else:
        # log of a sum of probabilities: logaddexp, because exp, add, log would lose everything below 1e-38.
        mixture = torch.logaddexp(teacher + math.log(jsd_beta), student + math.log1p(-jsd_beta))
        divergence = jsd_beta * _kl(teacher, mixture) + (1 - jsd_beta) * _kl(student, mixture)
    # One mean over all tokens of the batch; max(n, 1): a batch without tokens has loss 0, not 0/0.
    return divergence.sum() / max(len(divergence), 1)


def _log_probs(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probs (n, V) of the n tokens under the mask."""
    # Indexing leaves the masked positions out altogether: NaN there reaches neither value nor gradient.
    logits = logits[mask.bool()]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # a divergence is a small difference of large sums: bfloat16 has three digits
    # A label that is ruled out has logit -inf. In a KL it gives 0 * (-inf + inf) = NaN; with -1e30 it gives 0.
    return logits.log_softmax(dim=-1).clamp(min=-1e30)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row: the average of log p - log q under p."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def paired_bootstrap(a: Tensor, b: Tensor, draws: int, generator: torch.Generator) -> tuple[float, float, float]:
    """(mean of a - b, and the 2.5% and 97.5% percentiles of its bootstrap).  Shapes: (K,), (K,) -> three floats."""
    if a.shape != b.shape or a.dim() != 1 or len(a) == 0:
        raise ValueError(f"a {tuple(a.shape)} and b {tuple(b.shape)}: one number for each seed, the same seeds in both")
    if draws < 1:
        raise ValueError(f"draws={draws}: choose 1 or more")
    # Subtract first, resample the differences: a seed that is easy for both then counts for neither. Resampling a and
    # b apart would put the seeds' spread into the interval.
    differences = a.detach().double() - b.detach().double()
    # The given generator and no other: the global random state belongs to the caller.
    picks = torch.randint(len(differences), (draws, len(differences)), generator=generator)
    means = differences[picks].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return differences.mean().item(), low, high


def experiment_slug(date: datetime.date | str, title: str) -> str:
    """`YYYY-MM-DD-slug` of a date and a title."""
    if isinstance(date, str):
        date = datetime.date.fromisoformat(date)  # refuses what is no date, naming it
    # One pattern for all that is not kept, "+" included: a run of characters becomes a single "-".
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if not slug:
        raise ValueError(f"title {title!r} has no letter a-z and no digit to make a name of")
    # Not date.isoformat(): a datetime is a date too, and would bring its time of day along.
    return f"{date.year:04}-{date.month:02}-{date.day:02}-{slug}"

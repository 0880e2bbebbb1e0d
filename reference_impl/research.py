"""Week 11: tools of a small research project: over-optimization curves, distillation, paired comparisons, a log.

    gold(d) = d (alpha - beta d) for best-of-n,  d (alpha - beta log d) for RL,  d = sqrt(KL)        Gao et al.
    JSD_b   = b KL(teacher || m) + (1 - b) KL(student || m),  m = b teacher + (1 - b) student        GKD
    SDPO    = KL(student || teacher) over the student's top-K tokens and one bucket for all others

TRL's GKD and SDPO have the same divergences; its GKD also divides both models' logits by a temperature, and its SDPO
averages each row's tokens before the rows, where ours (and the book's code) takes one mean over all tokens. At b = 0
and 1 the JSD itself is 0, so GKD puts the forward KL(teacher || student) and the reverse KL(student || teacher) there,
the limits of JSD_b / b and JSD_b / (1 - b); so do we.
"""

import datetime
import math
import re

import torch
from torch import Tensor

from reference_impl.masking import upcast


def overoptimization_fit(kl: Tensor, gold: Tensor, kind: str) -> tuple[float, float]:
    """Least-squares alpha and beta of Gao et al.'s gold-reward curves, arXiv:2210.10760 section 3.

    Shapes: kl (K,), gold (K,) -> two floats. kind "bon": gold = d (alpha - beta d); "rl": d (alpha - beta log d);
    d = sqrt(kl). Rewards are measured from the initial policy's, so that gold is 0 at kl = 0; such a point changes
    nothing. ValueError for another kind, negative kl, or fewer than two different positive kl.
    """
    kl, gold = (x.detach().cpu().double() for x in (kl, gold))
    if not (kl >= 0).all():
        raise ValueError(f"kl holds {kl.min().item()}: sqrt(KL) needs values of 0 or more (clip noisy estimates at 0)")
    if len(kl[kl > 0].unique()) < 2:
        raise ValueError("two unknowns, alpha and beta, need at least two different positive kl values")
    d = kl.sqrt()
    if kind == "bon":
        penalty = d * d
    elif kind == "rl":
        penalty = torch.xlogy(d, d)  # d log d, and 0 at d = 0
    else:
        raise ValueError(f'kind={kind!r}: choose "bon" or "rl"')
    design = torch.stack([d, -penalty], dim=1)  # the curve is linear in alpha and beta
    alpha, beta = torch.linalg.lstsq(design, gold[:, None]).solution[:, 0].tolist()
    return alpha, beta


def on_policy_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, jsd_beta: float = 1.0
) -> Tensor:
    """Generalised Jensen-Shannon divergence between student and teacher, mean over tokens. arXiv:2306.13649 eq. 1.

    Shapes: (B, T, V), (B, T, V), (B, T) -> scalar. jsd_beta 0: KL(teacher || student); 1: KL(student || teacher).
    No gradient to the teacher; 0 for an empty mask. Where one side has probability 0 and the other has not, a KL is
    infinite in truth and about 1e30 here. ValueError unless 0 <= jsd_beta <= 1.
    """
    if not 0 <= jsd_beta <= 1:
        raise ValueError(f"jsd_beta={jsd_beta}: choose a number from 0 to 1")
    student = _log_probs(student_logits, mask)
    teacher = _log_probs(teacher_logits, mask).detach()
    if jsd_beta == 0:
        divergence = _kl(teacher, student)
    elif jsd_beta == 1:
        divergence = _kl(student, teacher)
    else:
        mixture = torch.logaddexp(teacher + math.log(jsd_beta), student + math.log1p(-jsd_beta))
        divergence = jsd_beta * _kl(teacher, mixture) + (1 - jsd_beta) * _kl(student, mixture)
    return divergence.sum() / max(len(divergence), 1)


def sdpo_loss(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, top_k: int = 20) -> Tensor:
    """Self-distillation: KL(student || teacher) over the student's top_k tokens plus one bucket for all the others.

    Shapes: (B, T, V), (B, T, V), (B, T) -> scalar, mean over tokens. The teacher is the same model with a correct
    rollout in its prompt; its logits are aligned to the student's completion tokens and get no gradient. The buckets
    only lose detail, so this is at most the full reverse KL, and equal to it from top_k = V - 1 on. Huebotter et al.,
    arXiv:2601.20802. ValueError when top_k < 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: choose 1 or more")
    student = _log_probs(student_logits, mask)
    teacher = _log_probs(teacher_logits, mask).detach()
    top = student.topk(min(top_k, student.shape[-1]), dim=-1).indices
    divergence = _kl(_with_tail(student, top), _with_tail(teacher, top))
    return divergence.sum() / max(len(divergence), 1)


def _log_probs(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probs (n, V) of the n tokens under the mask, all finite: probability 0 is exp(-1e30) = 0.

    With -inf the terms 0 log 0 would be 0 * (inf - inf) = NaN. Masked positions are left out rather than zeroed, which
    stops NaN there and saves their memory.
    """
    return upcast(logits[mask.bool()]).log_softmax(dim=-1).clamp(min=-1e30)


def _with_tail(log_probs: Tensor, top: Tensor) -> Tensor:
    """Log-probs (n, K+1) of the tokens `top` and, last, of all others together."""
    others = log_probs.scatter(-1, top, -1e30)
    return torch.cat([log_probs.gather(-1, top), others.logsumexp(dim=-1, keepdim=True)], dim=-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def paired_bootstrap(a: Tensor, b: Tensor, draws: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Mean of a - b over paired seeds, with its 95% percentile interval. Efron and Tibshirani 1993.

    Shapes: a (K,), b (K,), entry k of both from the same seed -> (diff, low, high). Each draw takes K of the K
    differences with replacement: pairs stay together, so that what a seed does to both cancels. With few seeds the
    interval is too narrow. ValueError when a and b differ in length, K = 0 or draws < 1.
    """
    if a.shape != b.shape or a.dim() != 1 or len(a) == 0:
        raise ValueError(f"a {tuple(a.shape)} and b {tuple(b.shape)}: one number for each seed, the same seeds in both")
    if draws < 1:
        raise ValueError(f"draws={draws}: choose 1 or more (10,000 is usual)")
    differences = (a.detach().cpu().double() - b.detach().cpu().double()).to(generator.device)
    picks = torch.randint(len(differences), (draws, len(differences)), generator=generator, device=generator.device)
    means = differences[picks].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype, device=means.device)).tolist()
    return differences.mean().item(), low, high


def experiment_slug(date: datetime.date | str, title: str) -> str:
    """`YYYY-MM-DD-slug`: a name for an experiment's log and folder that sorts by date and is safe in any file system.

    The slug keeps a-z and 0-9 of the lower-cased title; any run of other characters joins words with one "-", none at
    the ends. ValueError for a date that is not ISO, and for a title without a letter or digit to keep.
    """
    if isinstance(date, str):
        date = datetime.date.fromisoformat(date)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if not slug:
        raise ValueError(f"title {title!r} has no letter a-z and no digit to make a name of")
    return f"{date.year:04}-{date.month:02}-{date.day:02}-{slug}"

"""Week 11: from replication to research (book chapters 11-17 and papers).

Fill in the four functions; `pytest weeks/11` grades this file.

Shapes: K measurements (checkpoints or seeds); B completions of up to T tokens over a vocabulary of V. `mask[i, t]` is 1
where the token at t counts and 0 elsewhere, of bool, int or float dtype; what stands under a 0 must not matter. No
input is changed in place, and no global random state is touched.
"""

import datetime

import torch
from torch import Tensor


def overoptimization_fit(kl: Tensor, gold: Tensor, kind: str) -> tuple[float, float]:
    """Fit the curve along which the true reward rises and falls while a policy is optimised against a proxy reward.

    Formula: with d = sqrt(kl), least squares over the K points of
             gold = d (alpha - beta d)      for kind = "bon" (best-of-n),
             gold = d (alpha - beta log d)  for kind = "rl".
             Both are linear in alpha and beta.
    Shapes:  kl (K,), gold (K,) -> (alpha, beta), two floats. gold is measured from the initial policy's reward.
    Edges:   a point at kl = 0 is allowed and changes nothing (d log d is 0 there, not NaN). ValueError that names the
             value for another kind; ValueError for a negative kl and for fewer than two different positive kl.
             Star: float32 measurements with a kl of 1e-4 or 1e4 are fitted in float64.
    Example: kl [1, 4, 16], gold [0.9, 1.6, 2.4], "bon" -> (1.0, 0.1)
    Source:  Gao, Schulman and Hilton 2022, arXiv:2210.10760 section 3; book ch. 14, over-optimization.
    """
    raise NotImplementedError("Week 11, task 1: write overoptimization_fit (lesson section 'The law of the proxy')")


def on_policy_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, jsd_beta: float = 1.0
) -> Tensor:
    """Learn from a teacher on one's own samples: a divergence of whole next-token distributions, token by token.

    Formula: with s, t = softmax over V of student_logits, teacher_logits, b = jsd_beta, at each token
             b = 0:      KL(t || s)   forward,     b = 1:      KL(s || t)   reverse,
             0 < b < 1:  b KL(t || m) + (1 - b) KL(s || m),  m = b t + (1 - b) s;
             then the mean over all tokens under the mask, of the whole batch.
             KL(p || q) = sum over v of p_v (log p_v - log q_v).
    Shapes:  student_logits (B, T, V), teacher_logits (B, T, V), mask (B, T) -> scalar. No shift: position t's logits
             belong to mask position t.
    Edges:   teacher_logits are constants: no gradient flows into them. ValueError naming jsd_beta outside [0, 1].
             Star: NaN or infinity under the mask changes neither value nor gradient; a batch of empty rows has loss 0
             and zero gradient; logits of +-1e4, and of -inf at labels that neither side uses (0 log 0 is 0), give no
             NaN; half precision is computed in float32.
    Example: student_logits [[[0, 0]]], teacher_logits [[[log 3, 0]]], mask [[1]] -> jsd_beta=0: 0.130812,
             0.5: 0.033822, 1: 0.143841
    Source:  Agarwal et al. 2023 (GKD), arXiv:2306.13649 eq. 1; Gu et al. 2023, arXiv:2306.08543; book ch. 12.
    """
    raise NotImplementedError(
        "Week 11, task 2: write on_policy_distillation_loss (lesson section 'A teacher for your own mistakes')"
    )


def paired_bootstrap(a: Tensor, b: Tensor, draws: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Is method a better than method b? The mean difference over paired seeds, with a 95% interval.

    Formula: diff = mean(a - b). Each of the `draws` bootstrap means takes K of the K differences a[k] - b[k] at random
             with replacement; low and high are the 2.5% and 97.5% percentiles of these means.
    Shapes:  a (K,), b (K,), entry k of both from the same seed -> (diff, low, high), three Python floats.
    Edges:   pairs stay together: resample the differences, not a and b separately. All randomness comes from
             `generator`: the same generator state gives the same interval. K = 1 gives an interval of width 0.
             ValueError when a and b differ in length, are empty, or draws < 1. Star: small differences of large
             float32 numbers (half a point in a million) keep their digits.
    Example: a [3, 5, 4], b [1, 3, 2] -> (2.0, 2.0, 2.0), whatever the draws: every seed says 2
    Source:  Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13; Agarwal et al. 2021,
             arXiv:2108.13264; book ch. 16, evaluation.
    """
    raise NotImplementedError(
        "Week 11, task 3: write paired_bootstrap (lesson section 'Is it better, or was it luck?')"
    )


def experiment_slug(date: datetime.date | str, title: str) -> str:
    """The name of an experiment's log and folder: sorts by date, safe in any file system.

    Formula: YYYY-MM-DD-slug. The slug is the lower-cased title; any run of characters other than a-z and 0-9 becomes
             one "-", and none stands at the ends.
    Edges:   date is a datetime.date (a datetime counts by its day) or ISO text "2026-11-05"; other text is a
             ValueError. Letters outside ASCII are other characters. A title without any letter a-z or digit is a
             ValueError. Star: so are digits of other scripts; a year before 1000 has four digits too.
    Example: "2026-11-05", "  GRPO vs. RLOO: G=8?" -> "2026-11-05-grpo-vs-rloo-g-8"
    Source:  the experiment logs of this course, `rlhf experiment new`.
    """
    raise NotImplementedError("Week 11, task 4: write experiment_slug (lesson section 'Leave a trail')")

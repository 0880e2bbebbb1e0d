"""Week 11, wrong: what learners' fits, distillation losses, bootstraps and slugs compute instead."""

import datetime
import math
import re
import unicodedata

import torch

from graders.misconceptions import wrong


def _check(kl, kind):
    if kind not in ("bon", "rl"):
        raise ValueError(f"kind={kind!r}")
    if (kl < 0).any() or len(kl[kl > 0].unique()) < 2:
        raise ValueError("kl needs two different positive values and no negative one")


def _penalty(d, kind):
    return d * d if kind == "bon" else torch.xlogy(d, d)


def _fit(kl, gold, kind, d=None):
    _check(kl, kind)
    d = kl.double().sqrt() if d is None else d
    alpha, beta = (torch.linalg.pinv(torch.stack([d, -_penalty(d, kind)], 1)) @ gold.double()).tolist()
    return alpha, beta


def _check_beta(jsd_beta):
    if not 0 <= jsd_beta <= 1:
        raise ValueError(f"jsd_beta={jsd_beta}")


def _models(student_logits, teacher_logits, mask, jsd_beta):
    """Log-probs of student and teacher, and which positions count."""
    _check_beta(jsd_beta)
    return student_logits.log_softmax(-1), teacher_logits.log_softmax(-1).detach(), mask.bool()


def _kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _mix(s, t, b):
    """log(b t + (1 - b) s)."""
    return torch.logaddexp(t + math.log(b), s + math.log(1 - b))


def _jsd(s, t, b):
    m = _mix(s, t, b)
    return b * _kl(t, m) + (1 - b) * _kl(s, m)


def _any(s, t, b):
    return _kl(t, s) if b == 0 else _kl(s, t) if b == 1 else _jsd(s, t, b)


def _mean(divergence, keep):
    return torch.where(keep, divergence, 0).sum() / keep.sum().clamp(min=1)


def _by_beta(s, t, keep, b, between):
    return _mean(between(b) if 0 < b < 1 else _any(s, t, b), keep)


def _check_pairs(a, b, draws):
    if a.shape != b.shape or len(a) == 0 or draws < 1:
        raise ValueError("one number for each seed in both, and at least one draw")


def _interval(diff, means, tail=0.025):
    ends = torch.tensor([tail, 1 - tail], dtype=means.dtype)
    return (float(diff), *means.quantile(ends).tolist())


def _bootstrap(a, b, draws, generator, tail=0.025):
    _check_pairs(a, b, draws)
    d = a - b
    return _interval(d.mean(), d[torch.randint(len(d), (draws, len(d)), generator=generator)].mean(1), tail)


def _day(date):
    date = datetime.date.fromisoformat(date) if isinstance(date, str) else date
    return datetime.date(date.year, date.month, date.day)


def _words(title):
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _slug(date, words, title):
    day = _day(date)
    if not words or not _words(title) and words != "untitled":
        raise ValueError(f"no letter or digit in {title!r}")
    return f"{day.isoformat()}-{words}"


# --- overoptimization_fit ---------------------------------------------------------------------------------------------

LAW = "The law of the proxy"


@wrong(
    "overoptimization_fit",
    "kl for its root",
    computed="d = kl",
    why="d is the square root of the KL",
    effect="alpha and beta of another curve",
    lesson=LAW,
)
def fit_kl_for_its_root(kl, gold, kind):
    return _fit(kl, gold, kind, d=kl.double())


@wrong(
    "overoptimization_fit",
    "sign of beta",
    computed="beta of d (alpha + beta d)",
    why="the penalty is subtracted: beta is positive where gold falls",
    effect="over-optimization looks like a gain",
    lesson=LAW,
)
def fit_sign_of_beta(kl, gold, kind):
    alpha, beta = _fit(kl, gold, kind)
    return alpha, -beta


@wrong(
    "overoptimization_fit",
    "alpha and beta swapped",
    computed="(beta, alpha)",
    why="alpha first",
    effect="a strong penalty is read as a strong gain",
    lesson=LAW,
)
def fit_alpha_and_beta_swapped(kl, gold, kind):
    return _fit(kl, gold, kind)[::-1]


@wrong(
    "overoptimization_fit",
    "with a constant term",
    computed="least squares with an intercept",
    why="gold is measured from the initial policy: it is 0 at d = 0",
    effect="the intercept takes what belongs to alpha",
    lesson=LAW,
)
def fit_with_a_constant_term(kl, gold, kind):
    _check(kl, kind)
    d = kl.double().sqrt()
    p = _penalty(d, kind)
    x = torch.stack([d, -p, torch.ones_like(d)], 1)
    a, b, _ = (torch.linalg.pinv(x) @ gold.double()).tolist()
    return a, b


@wrong(
    "overoptimization_fit",
    "best-of-n for both",
    computed="d (alpha - beta d) whatever the kind",
    why="RL's curve bends with log d",
    effect="beta of an RL run cannot be compared with the paper's",
    lesson=LAW,
)
def fit_best_of_n_for_both(kl, gold, kind):
    _check(kl, kind)
    return _fit(kl, gold, "bon")


@wrong(
    "overoptimization_fit",
    "kinds swapped",
    computed="the RL curve for bon, and the other way round",
    why="bon is quadratic, rl logarithmic",
    effect="both fits miss the points",
    lesson=LAW,
)
def fit_kinds_swapped(kl, gold, kind):
    _check(kl, kind)
    return _fit(kl, gold, "rl" if kind == "bon" else "bon")


@wrong(
    "overoptimization_fit",
    "log of kl",
    computed="d (alpha - beta log kl)",
    why="log d is half of log kl",
    effect="beta is half of what it should be",
    lesson=LAW,
)
def fit_log_of_kl(kl, gold, kind):
    alpha, beta = _fit(kl, gold, kind)
    return (alpha, beta / 2) if kind == "rl" else (alpha, beta)


@wrong(
    "overoptimization_fit",
    "divided by d first",
    computed="least squares of gold / d",
    why="the squares of gold's own errors are summed",
    effect="points at small KL count far too much",
    lesson=LAW,
)
def fit_divided_by_d_first(kl, gold, kind):
    _check(kl, kind)
    keep = kl > 0
    d, gold = kl[keep].double().sqrt(), gold[keep].double()
    x = torch.stack([torch.ones_like(d), -_penalty(d, kind) / d], 1)
    a, b = (torch.linalg.pinv(x) @ (gold / d)).tolist()
    return a, b


@wrong(
    "overoptimization_fit",
    "first and last point",
    computed="the curve through two points",
    why="all points count",
    effect="one noisy point decides",
    lesson=LAW,
)
def fit_first_and_last_point(kl, gold, kind):
    _check(kl, kind)
    keep = kl > 0
    k, g = kl[keep], gold[keep]
    return _fit(k[[0, -1]], g[[0, -1]], kind)


@wrong(
    "overoptimization_fit",
    "zero is not a number",
    computed="d log d as 0 times -inf at kl = 0",
    why="d log d is 0 there",
    effect="NaN as soon as the initial policy is a point",
    lesson=LAW,
)
def fit_zero_is_not_a_number(kl, gold, kind):
    _check(kl, kind)
    d = kl.double().sqrt()
    x = torch.stack([d, -d * (d if kind == "bon" else d.log())], 1)
    if x.isnan().any():
        return float("nan"), float("nan")
    a, b = (torch.linalg.pinv(x) @ gold.double()).tolist()
    return a, b


@wrong(
    "overoptimization_fit",
    "unknown kind is rl",
    computed="everything but bon fitted as rl",
    why="an unknown kind is a ValueError",
    effect="a typo changes the curve",
    lesson=LAW,
)
def fit_unknown_kind_is_rl(kl, gold, kind):
    return _fit(kl, gold, kind if kind == "bon" else "rl")


@wrong(
    "overoptimization_fit",
    "negative kl cut",
    computed="negative KL as 0",
    why="a negative KL is a ValueError: the caller decides what to do",
    effect="noise at small KL becomes data",
    lesson=LAW,
)
def fit_negative_kl_cut(kl, gold, kind):
    return _fit(kl.clamp(min=0), gold, kind)


@wrong(
    "overoptimization_fit",
    "one point is enough",
    computed="the shortest solution for one KL",
    why="two unknowns need two different positive KL",
    effect="numbers that mean nothing",
    lesson=LAW,
)
def fit_one_point_is_enough(kl, gold, kind):
    if kind not in ("bon", "rl") or (kl < 0).any():
        raise ValueError(kind)
    d = kl.double().sqrt()
    a, b = (torch.linalg.pinv(torch.stack([d, -_penalty(d, kind)], 1)) @ gold.double()).tolist()
    return a, b


@wrong(
    "overoptimization_fit",
    "common logarithm",
    computed="d (alpha - beta log10 d)",
    why="the natural logarithm",
    effect="beta is 2.3 times too large",
    lesson=LAW,
)
def fit_common_logarithm(kl, gold, kind):
    alpha, beta = _fit(kl, gold, kind)
    return (alpha, beta * math.log(10)) if kind == "rl" else (alpha, beta)


@wrong(
    "overoptimization_fit",
    "swapped and sign",
    computed="(-beta, alpha)",
    why="alpha first, and beta is subtracted",
    effect="both numbers are misread",
    lesson=LAW,
)
def fit_swapped_and_sign(kl, gold, kind):
    alpha, beta = _fit(kl, gold, kind)
    return -beta, alpha


# --- on_policy_distillation_loss --------------------------------------------------------------------------------------

TEACHER = "A teacher for your own mistakes"


@wrong(
    "on_policy_distillation_loss",
    "ends swapped",
    computed="reverse KL at 0, forward KL at 1",
    why="0 is KL(teacher || student), 1 is KL(student || teacher)",
    effect="mode seeking where mode covering was asked for",
    lesson=TEACHER,
)
def distil_ends_swapped(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    if jsd_beta in (0, 1):
        return _mean(_kl(s, t) if jsd_beta == 0 else _kl(t, s), keep)
    return _mean(_jsd(s, t, jsd_beta), keep)


@wrong(
    "on_policy_distillation_loss",
    "forward always",
    computed="KL(teacher || student) whatever jsd_beta says",
    why="jsd_beta chooses the divergence",
    effect="the option has no effect",
    lesson=TEACHER,
)
def distil_forward_always(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _mean(_kl(t, s), keep)


@wrong(
    "on_policy_distillation_loss",
    "reverse always",
    computed="KL(student || teacher) whatever jsd_beta says",
    why="jsd_beta chooses the divergence",
    effect="the option has no effect",
    lesson=TEACHER,
)
def distil_reverse_always(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _mean(_kl(s, t), keep)


@wrong(
    "on_policy_distillation_loss",
    "mixture of the KLs",
    computed="b KL(s || t) + (1 - b) KL(t || s)",
    why="between the ends both are compared with the mixture m",
    effect="unbounded where Jensen-Shannon is bounded",
    lesson=TEACHER,
)
def distil_mixture_of_the_kls(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _mean(jsd_beta * _kl(s, t) + (1 - jsd_beta) * _kl(t, s), keep)


@wrong(
    "on_policy_distillation_loss",
    "mixture weights swapped",
    computed="m = b s + (1 - b) t",
    why="m = b t + (1 - b) s",
    effect="the divergence of 1 - b with the wrong weights",
    lesson=TEACHER,
)
def distil_mixture_weights_swapped(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _by_beta(s, t, keep, jsd_beta, lambda b: b * _kl(t, _mix(t, s, b)) + (1 - b) * _kl(s, _mix(t, s, b)))


@wrong(
    "on_policy_distillation_loss",
    "outer weights swapped",
    computed="(1 - b) KL(t || m) + b KL(s || m)",
    why="each model has the same weight outside as in m",
    effect="no Jensen-Shannon divergence",
    lesson=TEACHER,
)
def distil_outer_weights_swapped(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _by_beta(s, t, keep, jsd_beta, lambda b: (1 - b) * _kl(t, _mix(s, t, b)) + b * _kl(s, _mix(s, t, b)))


@wrong(
    "on_policy_distillation_loss",
    "half and half",
    computed="m = (s + t) / 2 for every b",
    why="m is weighted by b",
    effect="only b = 0.5 is right",
    lesson=TEACHER,
)
def distil_half_and_half(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _by_beta(s, t, keep, jsd_beta, lambda b: b * _kl(t, _mix(s, t, 0.5)) + (1 - b) * _kl(s, _mix(s, t, 0.5)))


@wrong(
    "on_policy_distillation_loss",
    "mixture of logs",
    computed="log m = b log t + (1 - b) log s",
    why="probabilities are mixed, not their logs",
    effect="m does not sum to 1",
    lesson=TEACHER,
)
def distil_mixture_of_logs(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _by_beta(
        s, t, keep, jsd_beta, lambda b: b * _kl(t, b * t + (1 - b) * s) + (1 - b) * _kl(s, b * t + (1 - b) * s)
    )


@wrong(
    "on_policy_distillation_loss",
    "KL to the model, not from it",
    computed="KL(m || t) and KL(m || s)",
    why="each model is compared with m, not m with it",
    effect="another divergence",
    lesson=TEACHER,
)
def distil_kl_to_the_model__not_from_it(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _by_beta(s, t, keep, jsd_beta, lambda b: b * _kl(_mix(s, t, b), t) + (1 - b) * _kl(_mix(s, t, b), s))


@wrong(
    "on_policy_distillation_loss",
    "formula at the ends too",
    computed="the Jensen-Shannon formula at b = 0 and 1, where it is 0",
    why="the ends are the forward and the reverse KL",
    effect="loss 0: nothing is learned at the default",
    lesson=TEACHER,
)
def distil_formula_at_the_ends_too(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    if jsd_beta in (0, 1):
        return 0 * _mean(_kl(s, t), keep)
    return _mean(_jsd(s, t, jsd_beta), keep)


@wrong(
    "on_policy_distillation_loss",
    "mean over the vocabulary",
    computed="the KL divided by V",
    why="a KL is a sum over the vocabulary",
    effect="a learning rate 150000 times too small on a real vocabulary",
    lesson=TEACHER,
)
def distil_mean_over_the_vocabulary(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _mean(_any(s, t, jsd_beta), keep) / student_logits.shape[-1]


@wrong(
    "on_policy_distillation_loss",
    "mean over all positions",
    computed="masked positions counted in the denominator",
    why="the mean is over the tokens under the mask",
    effect="the loss shrinks with padding",
    lesson=TEACHER,
)
def distil_mean_over_all_positions(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return torch.where(keep, _any(s, t, jsd_beta), 0).mean()


@wrong(
    "on_policy_distillation_loss",
    "mean of row means",
    computed="each row's mean, then the rows' mean",
    why="one mean over all tokens of the batch",
    effect="tokens of short completions count for more",
    lesson=TEACHER,
)
def distil_mean_of_row_means(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    d = torch.where(keep, _any(s, t, jsd_beta), 0)
    return (d.sum(1) / keep.sum(1).clamp(min=1)).mean()


@wrong(
    "on_policy_distillation_loss",
    "summed over tokens",
    computed="the sum over tokens, the mean over rows",
    why="a mean over tokens",
    effect="long completions dominate",
    lesson=TEACHER,
)
def distil_summed_over_tokens(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return torch.where(keep, _any(s, t, jsd_beta), 0).sum(1).mean()


@wrong(
    "on_policy_distillation_loss",
    "mask forgotten",
    computed="the mean over all positions, masked ones too",
    why="prompt and padding are no part of the response",
    effect="the teacher is imitated on prompts",
    lesson=TEACHER,
)
def distil_mask_forgotten(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    return _any(s, t, jsd_beta).mean()


@wrong(
    "on_policy_distillation_loss",
    "teacher with gradient",
    computed="a loss that trains the teacher too",
    why="the teacher is a constant",
    effect="the teacher moves towards the student; double memory",
    lesson=TEACHER,
)
def distil_teacher_with_gradient(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    _check_beta(jsd_beta)
    return _mean(_any(s, t, jsd_beta), mask.bool())


@wrong(
    "on_policy_distillation_loss",
    "cross-entropy",
    computed="the teacher's cross-entropy for the forward KL",
    why="a KL subtracts the teacher's entropy",
    effect="the right gradient; a loss that is not 0 for equal models",
    lesson=TEACHER,
)
def distil_cross_entropy(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    if jsd_beta == 0:
        return _mean(-(t.exp() * s).sum(-1), keep)
    return _mean(_any(s, t, jsd_beta), keep)


@wrong(
    "on_policy_distillation_loss",
    "weights without gradient",
    computed="the student's probabilities as constants in the reverse KL",
    why="they are what the reverse KL is an expectation under",
    effect="gradient 0 in expectation at every logit",
    lesson=TEACHER,
)
def distil_weights_without_gradient(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    if jsd_beta == 1:
        return _mean((s.exp().detach() * (s - t)).sum(-1), keep)
    return _mean(_any(s, t, jsd_beta), keep)


@wrong(
    "on_policy_distillation_loss",
    "shifted by one",
    computed="position t's logits with mask position t + 1",
    why="logits and mask are aligned already",
    effect="the first token is lost",
    lesson=TEACHER,
)
def distil_shifted_by_one(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    keep = torch.nn.functional.pad(keep[:, 1:], (0, 1))
    return _mean(_any(s, t, jsd_beta), keep)


@wrong(
    "on_policy_distillation_loss",
    "any beta",
    computed="no error for jsd_beta 1.5",
    why="outside [0, 1] is a ValueError",
    effect="a negative weight on one side",
    lesson=TEACHER,
)
def distil_any_beta(student_logits, teacher_logits, mask, jsd_beta=1.0):
    b = min(max(jsd_beta, 0), 1)
    s, t, keep = _models(student_logits, teacher_logits, mask, b)
    return _mean(_any(s, t, b), keep)


@wrong(
    "on_policy_distillation_loss",
    "ends swapped and mean of rows",
    computed="two mistakes at once",
    why="0 is forward, 1 reverse; one mean over all tokens",
    effect="another objective with other weights",
    lesson=TEACHER,
)
def distil_ends_swapped_and_mean_of_rows(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    d = torch.where(keep, _any(t, s, 1 - jsd_beta), 0)
    if jsd_beta in (0, 1):
        d = torch.where(keep, _any(s, t, 1 - jsd_beta), 0)
    return (d.sum(1) / keep.sum(1).clamp(min=1)).mean()


@wrong(
    "on_policy_distillation_loss",
    "probabilities",
    computed="softmax, then log of the mixture",
    why="exp(-10000) is 0, and its log -inf",
    effect="NaN for confident models",
    lesson=TEACHER,
    star=True,
)
def distil_probabilities(student_logits, teacher_logits, mask, jsd_beta=1.0):
    s, t, keep = _models(student_logits, teacher_logits, mask, jsd_beta)
    s, t = s.exp(), t.exp()
    m = s if jsd_beta == 0 else t if jsd_beta == 1 else jsd_beta * t + (1 - jsd_beta) * s
    kl_t, kl_s = (t * (t.log() - m.log())).sum(-1), (s * (s.log() - m.log())).sum(-1)
    return _mean(kl_t if jsd_beta == 0 else kl_s if jsd_beta == 1 else jsd_beta * kl_t + (1 - jsd_beta) * kl_s, keep)


# --- paired_bootstrap -------------------------------------------------------------------------------------------------

LUCK = "Is it better, or was it luck?"


@wrong(
    "paired_bootstrap",
    "unpaired",
    computed="a and b resampled separately",
    why="pairs stay together: a seed's difficulty cancels",
    effect="an interval many times too wide",
    lesson=LUCK,
)
def bootstrap_unpaired(a, b, draws, generator):
    _check_pairs(a, b, draws)

    def means(x):
        return x[torch.randint(len(x), (draws, len(x)), generator=generator)].mean(1)

    return _interval((a - b).mean(), means(a) - means(b))


@wrong(
    "paired_bootstrap",
    "sign flipped",
    computed="the mean of b - a",
    why="the difference is a - b",
    effect="the worse method wins",
    lesson=LUCK,
)
def bootstrap_sign_flipped(a, b, draws, generator):
    d, low, high = _bootstrap(b, a, draws, generator)
    return d, low, high


@wrong(
    "paired_bootstrap",
    "90 percent",
    computed="the 5% and 95% percentiles",
    why="95% leave 2.5% on each side",
    effect="twice as many false discoveries",
    lesson=LUCK,
)
def bootstrap_90_percent(a, b, draws, generator):
    return _bootstrap(a, b, draws, generator, 0.05)


@wrong(
    "paired_bootstrap",
    "99 percent",
    computed="the 0.5% and 99.5% percentiles",
    why="95% leave 2.5% on each side",
    effect="real effects look undecided",
    lesson=LUCK,
)
def bootstrap_99_percent(a, b, draws, generator):
    return _bootstrap(a, b, draws, generator, 0.005)


@wrong(
    "paired_bootstrap",
    "without replacement",
    computed="permutations of the differences",
    why="with replacement: each draw has the same mean otherwise",
    effect="an interval of width 0",
    lesson=LUCK,
)
def bootstrap_without_replacement(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    picks = torch.rand(draws, len(d), generator=generator).argsort(1)
    return _interval(d.mean(), d[picks].mean(1))


@wrong(
    "paired_bootstrap",
    "spread of differences",
    computed="percentiles of the differences themselves",
    why="the interval is one of the mean",
    effect="an interval sqrt(K) times too wide",
    lesson=LUCK,
)
def bootstrap_spread_of_differences(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    return _interval(d.mean(), d)


@wrong(
    "paired_bootstrap",
    "one difference a draw",
    computed="draws of a single difference",
    why="each draw has K differences",
    effect="an interval sqrt(K) times too wide",
    lesson=LUCK,
)
def bootstrap_one_difference_a_draw(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    return _interval(d.mean(), d[torch.randint(len(d), (draws,), generator=generator)])


@wrong(
    "paired_bootstrap",
    "normal interval",
    computed="mean plus and minus 1.96 standard errors",
    why="percentiles of the draws' means",
    effect="symmetric where the data are not",
    lesson=LUCK,
)
def bootstrap_normal_interval(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    m = d[torch.randint(len(d), (draws, len(d)), generator=generator)].mean(1)
    e = 1.96 * m.std(unbiased=False).item()
    return d.mean().item(), d.mean().item() - e, d.mean().item() + e


@wrong(
    "paired_bootstrap",
    "standard error",
    computed="mean plus and minus one standard error",
    why="a 95% interval",
    effect="two thirds of the intervals hold the truth, not 95%",
    lesson=LUCK,
)
def bootstrap_standard_error(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    m = d[torch.randint(len(d), (draws, len(d)), generator=generator)].mean(1)
    e = m.std(unbiased=False).item()
    return d.mean().item(), d.mean().item() - e, d.mean().item() + e


@wrong(
    "paired_bootstrap",
    "global generator",
    computed="torch.randint without the generator",
    why="all randomness comes from the generator",
    effect="another interval at every run; other code's random numbers change",
    lesson=LUCK,
)
def bootstrap_global_generator(a, b, draws, generator):
    return _bootstrap(a, b, draws, None)


@wrong(
    "paired_bootstrap",
    "own seed",
    computed="a generator of its own, seed 0",
    why="the caller's generator decides",
    effect="the same picks for every comparison",
    lesson=LUCK,
)
def bootstrap_own_seed(a, b, draws, generator):
    return _bootstrap(a, b, draws, torch.Generator().manual_seed(0))


@wrong(
    "paired_bootstrap",
    "high before low",
    computed="(diff, high, low)",
    why="low comes first",
    effect="every interval is read as empty",
    lesson=LUCK,
)
def bootstrap_high_before_low(a, b, draws, generator):
    d, low, high = _bootstrap(a, b, draws, generator)
    return d, high, low


@wrong(
    "paired_bootstrap",
    "half widths",
    computed="distances from the mean for low and high",
    why="low and high are ends of the interval",
    effect="an interval around 0",
    lesson=LUCK,
)
def bootstrap_half_widths(a, b, draws, generator):
    d, low, high = _bootstrap(a, b, draws, generator)
    return d, low - d, high - d


@wrong(
    "paired_bootstrap",
    "median",
    computed="the median of a - b",
    why="diff is the mean",
    effect="a few lucky seeds are ignored",
    lesson=LUCK,
)
def bootstrap_median(a, b, draws, generator):
    _, low, high = _bootstrap(a, b, draws, generator)
    return (a - b).median().item(), low, high


@wrong(
    "paired_bootstrap",
    "mean of the draws",
    computed="diff as the mean of the draws' means",
    why="diff is the mean of the data, without noise",
    effect="diff changes with the generator",
    lesson=LUCK,
)
def bootstrap_mean_of_the_draws(a, b, draws, generator):
    _check_pairs(a, b, draws)
    d = a - b
    m = d[torch.randint(len(d), (draws, len(d)), generator=generator)].mean(1)
    return _interval(m.mean(), m)


@wrong(
    "paired_bootstrap",
    "tensors",
    computed="three tensors",
    why="the contract says floats",
    effect="json fails later",
    lesson=LUCK,
)
def bootstrap_tensors(a, b, draws, generator):
    return tuple(torch.tensor(x) for x in _bootstrap(a, b, draws, generator))


@wrong(
    "paired_bootstrap",
    "broadcast",
    computed="b of one number against all of a",
    why="different lengths are a ValueError",
    effect="a single run is compared as if it had every seed",
    lesson=LUCK,
)
def bootstrap_broadcast(a, b, draws, generator):
    if draws < 1 or len(a) == 0:
        raise ValueError("nothing to draw")
    n = min(len(a), len(b))
    return _bootstrap(a[:n], b[:n], draws, generator)


@wrong(
    "paired_bootstrap",
    "unpaired at 90 percent",
    computed="two mistakes at once",
    why="pairs stay together, 2.5% on each side",
    effect="two errors that partly cancel",
    lesson=LUCK,
)
def bootstrap_unpaired_at_90_percent(a, b, draws, generator):
    _check_pairs(a, b, draws)

    def means(x):
        return x[torch.randint(len(x), (draws, len(x)), generator=generator)].mean(1)

    return _interval((a - b).mean(), means(a) - means(b), 0.05)


# --- experiment_slug --------------------------------------------------------------------------------------------------

TRAIL = "Leave a trail"


@wrong(
    "experiment_slug",
    "case kept",
    computed="the title as it is written",
    why="lower case",
    effect="two folders on Linux, one on a Mac",
    lesson=TRAIL,
)
def slug_case_kept(date, title):
    return _slug(date, re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-"), title)


@wrong(
    "experiment_slug",
    "a dash for each character",
    computed="runs of other characters as runs of dashes",
    why="a run becomes one dash",
    effect="names that nobody can type",
    lesson=TRAIL,
)
def slug_a_dash_for_each_character(date, title):
    return _slug(date, re.sub(r"[^a-z0-9]", "-", title.lower()).strip("-"), title)


@wrong(
    "experiment_slug",
    "dashes at the ends",
    computed="no strip",
    why="no dash at the ends",
    effect="2026-11-05--title",
    lesson=TRAIL,
)
def slug_dashes_at_the_ends(date, title):
    return _slug(date, re.sub(r"[^a-z0-9]+", "-", title.lower()), title)


@wrong(
    "experiment_slug",
    "spaces only",
    computed="only spaces become dashes",
    why="any run of other characters",
    effect="slashes and question marks in a file name",
    lesson=TRAIL,
)
def slug_spaces_only(date, title):
    return _slug(date, "-".join(title.lower().split()), title)


@wrong(
    "experiment_slug",
    "others removed",
    computed="other characters dropped, not replaced",
    why="they join words with a dash",
    effect="r1zero for R1-Zero",
    lesson=TRAIL,
)
def slug_others_removed(date, title):
    words = (re.sub(r"[^a-z0-9]", "", word) for word in title.lower().split())
    return _slug(date, "-".join(w for w in words if w), title)


@wrong(
    "experiment_slug",
    "underscores",
    computed="words joined with _",
    why="a dash joins words",
    effect="the folder does not match the log",
    lesson=TRAIL,
)
def slug_underscores(date, title):
    return _slug(date, re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_"), title)


@wrong(
    "experiment_slug",
    "underscore kept",
    computed="\\W+ for other characters, which keeps _",
    why="_ is another character",
    effect="x_2 next to x-2",
    lesson=TRAIL,
)
def slug_underscore_kept(date, title):
    return _slug(date, re.sub(r"\W+", "-", title.lower(), flags=re.ASCII).strip("-"), title)


@wrong(
    "experiment_slug",
    "unicode letters kept",
    computed="isalnum for letters and digits",
    why="a-z and 0-9 only",
    effect="names that some file systems and shells mangle",
    lesson=TRAIL,
)
def slug_unicode_letters_kept(date, title):
    text = "".join(c if c.isalnum() else " " for c in title.lower())
    return _slug(date, "-".join(text.split()), title)


@wrong(
    "experiment_slug",
    "accents removed",
    computed="the letter under an accent kept",
    why="letters outside ASCII are other characters",
    effect="the name differs from the one that the tools compute",
    lesson=TRAIL,
)
def slug_accents_removed(date, title):
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return _slug(date, _words(plain), title)


@wrong(
    "experiment_slug",
    "digits dropped",
    computed="letters only",
    why="digits are kept",
    effect="g-8 and g-16 share a folder",
    lesson=TRAIL,
)
def slug_digits_dropped(date, title):
    return _slug(date, re.sub(r"[^a-z]+", "-", title.lower()).strip("-"), title)


@wrong(
    "experiment_slug",
    "date not checked",
    computed="ISO text taken as it comes",
    why="text that is no ISO date is a ValueError",
    effect="2026-13-01 sorts where no month is",
    lesson=TRAIL,
)
def slug_date_not_checked(date, title):
    if not _words(title):
        raise ValueError(title)
    return f"{str(date)[:10]}-{_words(title)}"


@wrong(
    "experiment_slug",
    "datetime with its time",
    computed="the isoformat of a datetime",
    why="a datetime counts by its day",
    effect="colons in a folder's name",
    lesson=TRAIL,
)
def slug_datetime_with_its_time(date, title):
    day = datetime.date.fromisoformat(date) if isinstance(date, str) else date
    if not _words(title):
        raise ValueError(title)
    return f"{day.isoformat()}-{_words(title)}"


@wrong(
    "experiment_slug",
    "no zeros",
    computed="month and day without leading zeros",
    why="YYYY-MM-DD",
    effect="2026-11-5 sorts after 2026-11-10",
    lesson=TRAIL,
)
def slug_no_zeros(date, title):
    day = _day(date)
    return f"{day.year}-{day.month}-{day.day}" + _slug(date, _words(title), title)[10:]


@wrong(
    "experiment_slug",
    "empty title",
    computed="a date alone for a title without letters",
    why="a ValueError",
    effect="all unnamed experiments of a day share a folder",
    lesson=TRAIL,
)
def slug_empty_title(date, title):
    words = _words(title)
    return f"{_day(date).isoformat()}-{words}" if words else _day(date).isoformat()


@wrong(
    "experiment_slug",
    "untitled",
    computed="untitled for a title without letters",
    why="a ValueError",
    effect="all unnamed experiments of a day share a folder",
    lesson=TRAIL,
)
def slug_untitled(date, title):
    return _slug(date, _words(title) or "untitled", title)


@wrong(
    "experiment_slug",
    "title first",
    computed="slug, then date",
    why="the date comes first: names sort by it",
    effect="a folder sorted by title",
    lesson=TRAIL,
)
def slug_title_first(date, title):
    return f"{_slug(date, _words(title), title)[11:]}-{_day(date).isoformat()}"


@wrong(
    "experiment_slug",
    "compact date",
    computed="YYYYMMDD",
    why="YYYY-MM-DD",
    effect="the log does not match the folder",
    lesson=TRAIL,
)
def slug_compact_date(date, title):
    return f"{_day(date):%Y%m%d}" + _slug(date, _words(title), title)[10:]


@wrong(
    "experiment_slug",
    "shortened",
    computed="cut after 20 characters",
    why="the whole title",
    effect="two experiments with one name",
    lesson=TRAIL,
)
def slug_shortened(date, title):
    return _slug(date, _words(title)[:20].strip("-"), title)

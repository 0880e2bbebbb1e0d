"""Week 11, right: the tools of a small research project written in other ways."""

import datetime
import math
import re

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- overoptimization_fit ---------------------------------------------------------------------------------------------


def _checked(kl, kind):
    if kind not in ("bon", "rl"):
        raise ValueError(f"unknown kind {kind}")
    if (kl < 0).any():
        raise ValueError("a KL is negative")
    if len(set(kl[kl > 0].tolist())) < 2:
        raise ValueError("too few points")


@right("overoptimization_fit", "normal equations, two by two")
def fit_by_normal_equations(kl, gold, kind):
    _checked(kl, kind)
    kl, gold = kl.double(), gold.double()
    d = kl**0.5
    x = d
    y = -kl if kind == "bon" else -torch.where(kl > 0, 0.5 * d * kl.clamp(min=1e-300).log(), 0)
    xx, xy, yy, xg, yg = (x * x).sum(), (x * y).sum(), (y * y).sum(), (x * gold).sum(), (y * gold).sum()
    det = xx * yy - xy * xy
    return float((xg * yy - yg * xy) / det), float((yg * xx - xg * xy) / det)


@right("overoptimization_fit", "the pseudo-inverse, points at 0 left out")
def fit_by_pinv(kl, gold, kind):
    _checked(kl, kind)
    keep = kl > 0
    d, gold = kl[keep].double().sqrt(), gold[keep].double()
    design = torch.stack((d, -d * d if kind == "bon" else -d * d.log()), dim=-1)
    alpha, beta = torch.linalg.pinv(design) @ gold
    return alpha.item(), beta.item()


@right("overoptimization_fit", "QR, a negative second coefficient")
def fit_by_qr(kl, gold, kind):
    _checked(kl, kind)
    d = torch.sqrt(kl.double())
    second = d.pow(2) if kind == "bon" else torch.xlogy(d, d)
    q, r = torch.linalg.qr(torch.stack([d, second], 1))
    solution = torch.linalg.solve_triangular(r, (q.T @ gold.double())[:, None], upper=True).flatten().tolist()
    return solution[0], -solution[1]


# --- on_policy_distillation_loss --------------------------------------------------------------------------------------


def _beta(jsd_beta):
    if jsd_beta < 0 or jsd_beta > 1:
        raise ValueError(f"jsd_beta must be in [0, 1], got {jsd_beta}")


@right("on_policy_distillation_loss", "F.kl_div with log targets, mask by multiplication")
def distil_by_kl_div(student_logits, teacher_logits, mask, jsd_beta=1.0):
    _beta(jsd_beta)
    s, t = F.log_softmax(student_logits, -1), F.log_softmax(teacher_logits.detach(), -1)
    if jsd_beta == 0:
        kl = F.kl_div(s, t, reduction="none", log_target=True)
    elif jsd_beta == 1:
        kl = F.kl_div(t, s, reduction="none", log_target=True)
    else:
        m = torch.logsumexp(torch.stack([t + math.log(jsd_beta), s + math.log(1 - jsd_beta)]), dim=0)
        kl = jsd_beta * F.kl_div(m, t, reduction="none", log_target=True)
        kl = kl + (1 - jsd_beta) * F.kl_div(m, s, reduction="none", log_target=True)
    m = mask.to(kl.dtype)
    return (kl.sum(-1) * m).sum() / m.sum()


@right("on_policy_distillation_loss", "probabilities, and entropies for the Jensen-Shannon divergence")
def distil_by_entropies(student_logits, teacher_logits, mask, jsd_beta=1.0):
    _beta(jsd_beta)
    keep = mask.bool()
    s = student_logits[keep].softmax(-1)
    with torch.no_grad():
        t = teacher_logits[keep].softmax(-1)

    def cross(p, q):
        return -(p * q.log()).sum(-1)

    if jsd_beta == 1.0:
        return (cross(s, t) - cross(s, s)).mean()
    if jsd_beta == 0.0:
        return (cross(t, s) - cross(t, t)).mean()
    m = jsd_beta * t + (1 - jsd_beta) * s
    return (cross(m, m) - jsd_beta * cross(t, t) - (1 - jsd_beta) * cross(s, s)).mean()


@right("on_policy_distillation_loss", "torch.distributions, a loop over the tokens")
def distil_by_distributions(student_logits, teacher_logits, mask, jsd_beta=1.0):
    _beta(jsd_beta)
    losses = []
    for row in range(mask.shape[0]):
        for t in range(mask.shape[1]):
            if not mask[row, t]:
                continue
            student = torch.distributions.Categorical(logits=student_logits[row, t])
            teacher = torch.distributions.Categorical(logits=teacher_logits[row, t].detach())
            kl = torch.distributions.kl_divergence
            if jsd_beta == 0:
                losses.append(kl(teacher, student))
            elif jsd_beta == 1:
                losses.append(kl(student, teacher))
            else:
                m = torch.distributions.Categorical(probs=jsd_beta * teacher.probs + (1 - jsd_beta) * student.probs)
                losses.append(jsd_beta * kl(teacher, m) + (1 - jsd_beta) * kl(student, m))
    return torch.stack(losses).mean()


# --- paired_bootstrap -------------------------------------------------------------------------------------------------


def _pairs(a, b, draws):
    if len(a) != len(b) or len(a) < 1 or draws < 1:
        raise ValueError("a and b need one number each for the same seeds, and draws must be positive")


@right("paired_bootstrap", "torch.multinomial and a sort")
def bootstrap_by_multinomial(a, b, draws, generator):
    _pairs(a, b, draws)
    d = a - b
    picks = torch.multinomial(torch.ones(draws, len(d)), len(d), replacement=True, generator=generator)
    means = d[picks].mean(1).sort().values.tolist()
    return d.mean().item(), means[int(0.025 * (draws - 1))], means[math.ceil(0.975 * (draws - 1))]


@right("paired_bootstrap", "both resampled with the same indices, from torch.rand")
def bootstrap_of_both(a, b, draws, generator):
    _pairs(a, b, draws)
    k = a.numel()
    picks = (torch.rand(draws, k, generator=generator) * k).floor().long()
    means = a[picks].mean(-1) - b[picks].mean(-1)
    return float((a - b).mean()), float(torch.quantile(means, 0.025)), float(torch.quantile(means, 0.975))


@right("paired_bootstrap", "a loop over the draws")
def bootstrap_by_loop(a, b, draws, generator):
    _pairs(a, b, draws)
    d = (a - b).tolist()
    means = []
    for _ in range(draws):
        picks = torch.randint(0, len(d), (len(d),), generator=generator).tolist()
        means.append(sum(d[i] for i in picks) / len(d))
    low, high = torch.tensor(means, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return sum(d) / len(d), low, high


# --- experiment_slug --------------------------------------------------------------------------------------------------


@right("experiment_slug", "words found and joined")
def slug_by_words(date, title):
    if isinstance(date, str):
        date = datetime.datetime.strptime(date, "%Y-%m-%d").date()
    words = re.findall("[a-z0-9]+", title.lower())
    if not words:
        raise ValueError("empty title")
    return "-".join([f"{date:%Y-%m-%d}", *words])


@right("experiment_slug", "character by character, then split")
def slug_by_characters(date, title):
    day = datetime.date.fromisoformat(date) if isinstance(date, str) else datetime.date(date.year, date.month, date.day)
    text = "".join(c if c.isascii() and c.isalnum() else " " for c in title.lower())
    slug = "-".join(text.split())
    if slug == "":
        raise ValueError(f"nothing left of {title!r}")
    return day.isoformat() + "-" + slug


@right("experiment_slug", "a dash for each character, then runs of dashes shortened")
def slug_by_shortening(date, title):
    date = str(datetime.date.fromisoformat(str(date)[:10] if not isinstance(date, str) else date))
    slug = re.sub(r"[^0-9a-z]", "-", title.casefold() if title.isascii() else title.lower())
    while "--" in slug:
        slug = slug.replace("--", "-")
    slug = slug.removeprefix("-").removesuffix("-")
    if not slug:
        raise ValueError("the title has no letters")
    return f"{date}-{slug}"

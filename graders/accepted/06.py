"""Week 06, right: PPO and GRPO written in other ways."""

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- gae --------------------------------------------------------------------------------------------------------------


@right("gae", "a matrix of decays times the deltas")
def gae_by_matrix(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    rewards, values = rewards.detach() * m, values.detach() * m
    deltas = rewards + gamma * F.pad(values[:, 1:], (0, 1)) - values
    t = torch.arange(values.shape[1])
    distance = t[None, :] - t[:, None]  # later minus earlier
    decay = torch.tensor(gamma * lam, dtype=values.dtype) ** distance.clamp(min=0) * (distance >= 0)
    advantages = (deltas * m) @ decay.T.to(values.dtype) * m
    return advantages, advantages + values


@right("gae", "a loop over rows and the tokens of each")
def gae_by_rows(rewards, values, mask, gamma, lam):
    advantages = torch.zeros_like(values)
    for i in range(len(values)):
        places = mask[i].nonzero().flatten().tolist()
        after = 0.0
        for place in reversed(places):
            next_value = values[i, place + 1] if place != places[-1] else 0.0
            after = rewards[i, place] + gamma * next_value - values[i, place] + gamma * lam * after
            advantages[i, place] = after
    return advantages, advantages + torch.where(mask.bool(), values, 0)


@right("gae", "lambda-returns first, advantages from them")
def gae_by_returns(rewards, values, mask, gamma, lam):
    m = mask.bool()
    later = torch.zeros_like(values[:, 0])
    next_value, columns = later, []
    for t in range(values.shape[1] - 1, -1, -1):
        target = rewards[:, t] + gamma * ((1 - lam) * next_value + lam * later)
        later = torch.where(m[:, t], target, 0)
        next_value = torch.where(m[:, t], values[:, t], 0)
        columns.append(later)
    returns = torch.stack(columns[::-1], 1)
    return returns - values.masked_fill(~m, 0), returns


# --- ppo_clip_loss ----------------------------------------------------------------------------------------------------


def _aggregate(terms, mask, aggregate, max_length):
    m = mask.to(terms.dtype)
    if aggregate == "sequence_sum":
        return (terms * m).sum() / len(terms)
    if aggregate == "sequence_mean":
        return ((terms * m).sum(-1) / m.sum(-1)).mean()
    if aggregate == "token_mean":
        return (terms * m).sum() / m.sum()
    if aggregate == "constant" and max_length:
        return (terms * m).sum() / len(terms) / max_length
    raise ValueError(f"aggregate={aggregate} max_length={max_length}")


@right("ppo_clip_loss", "the maximum of two losses")
def ppo_by_losses(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = torch.exp(logprobs - old_logprobs.detach())
    a = advantages.detach()
    a = a.unsqueeze(-1) if a.dim() == 1 else a
    terms = torch.max(-a * ratio, -a * torch.clamp(ratio, 1 - clip_low, 1 + clip_high))
    return _aggregate(terms, mask, aggregate, max_length)


@right("ppo_clip_loss", "the four corners by torch.where")
def ppo_by_corners(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp()
    a = (advantages if advantages.dim() == 2 else advantages[:, None].expand_as(ratio)).detach()
    enough = ((a > 0) & (ratio > 1 + clip_high)) | ((a < 0) & (ratio < 1 - clip_low))
    bound = torch.where(a > 0, torch.full_like(ratio, 1 + clip_high), torch.full_like(ratio, 1 - clip_low))
    return _aggregate(-a * torch.where(enough, bound, ratio), mask, aggregate, max_length)


@right("ppo_clip_loss", "a loop over rows, selecting the tokens first")
def ppo_by_rows(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    if aggregate not in ("sequence_sum", "sequence_mean", "token_mean", "constant"):
        raise ValueError(f"no such aggregate: {aggregate}")
    if aggregate == "constant" and max_length is None:
        raise ValueError("max_length is missing")
    sums, lengths = [], []
    for i in range(len(logprobs)):
        m = mask[i].bool()
        r = (logprobs[i][m] - old_logprobs[i][m].detach()).exp()
        a = (advantages[i] if advantages.dim() == 1 else advantages[i][m]).detach()
        sums.append(-torch.minimum(r * a, r.clip(1 - clip_low, 1 + clip_high) * a).sum())
        lengths.append(int(m.sum()))
    sums = torch.stack(sums)
    if aggregate == "sequence_mean":
        return (sums / torch.tensor(lengths)).mean()
    divisor = {"sequence_sum": len(sums), "token_mean": sum(lengths), "constant": len(sums) * (max_length or 1)}
    return sums.sum() / divisor[aggregate]


# --- value_clip_loss --------------------------------------------------------------------------------------------------


@right("value_clip_loss", "old value plus a clipped step")
def value_by_step(values, old_values, returns, mask, clip=0.2):
    m = mask.to(values.dtype)
    old_values, returns = old_values.detach(), returns.detach()
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    worst = torch.max((values - returns).pow(2), (clipped - returns).pow(2))
    return (worst * m).sum() / m.sum() / 2


@right("value_clip_loss", "the larger distance, squared, over the selected tokens")
def value_by_distance(values, old_values, returns, mask, clip=0.2):
    m = mask.bool()
    v, old, target = values[m], old_values[m].detach(), returns[m].detach()
    clipped = torch.min(torch.max(v, old - clip), old + clip)
    return 0.5 * torch.maximum((v - target).abs(), (clipped - target).abs()).square().mean()


@right("value_clip_loss", "F.mse_loss without reduction, and where")
def value_by_mse(values, old_values, returns, mask, clip=0.2):
    returns, old_values = returns.detach(), old_values.detach()
    plain = F.mse_loss(values, returns, reduction="none")
    clipped = F.mse_loss(torch.clamp(values, old_values - clip, old_values + clip), returns, reduction="none")
    losses = torch.where(plain > clipped, plain, clipped) / 2
    return losses.masked_fill(mask == 0, 0).sum() / mask.bool().sum()


# --- grpo_advantages --------------------------------------------------------------------------------------------------


@right("grpo_advantages", "mean and std as written, a group of one apart")
def grpo_as_written(rewards, normalize_std=True, eps=1e-4):
    if rewards.size(1) == 1:
        return torch.zeros_like(rewards)
    advantages = rewards - rewards.mean(-1, keepdim=True)
    return advantages / (rewards.std(-1, keepdim=True) + eps) if normalize_std else advantages


@right("grpo_advantages", "a loop over groups, the variance by hand")
def grpo_by_groups(rewards, normalize_std=True, eps=1e-4):
    rows = []
    for group in rewards:
        centred = group - group.sum() / len(group)
        std = (centred.pow(2).sum() / max(len(group) - 1, 1)).sqrt()
        rows.append(centred / (std + eps) if normalize_std else centred)
    return torch.stack(rows)


@right("grpo_advantages", "transposed, with torch.var_mean and nan_to_num")
def grpo_by_var_mean(rewards, normalize_std=True, eps=1e-4):
    var, mean = (
        torch.var_mean(rewards.T, dim=0, correction=1) if rewards.shape[1] > 1 else (0 * rewards[:, 0], rewards[:, 0])
    )
    centred = rewards.T - mean
    return (centred / (var.nan_to_num(0).sqrt() + eps)).T if normalize_std else centred.T


# --- grpo_loss --------------------------------------------------------------------------------------------------------


@right("grpo_loss", "two aggregates, added")
def grpo_by_terms(
    logprobs,
    old_logprobs,
    ref_logprobs,
    advantages,
    mask,
    clip_low=0.2,
    clip_high=0.2,
    beta=0.0,
    aggregate="sequence_mean",
    max_length=None,
):
    arguments = logprobs, old_logprobs, advantages, mask, clip_low, clip_high, aggregate, max_length
    loss = ppo_by_losses(*arguments)
    if beta:
        d = ref_logprobs.detach() - logprobs
        loss = loss + beta * _aggregate(d.exp() - d - 1, mask, aggregate, max_length)
    return loss


@right("grpo_loss", "one term a token, the reference replaced by the policy when it is None")
def grpo_by_tokens(
    logprobs,
    old_logprobs,
    ref_logprobs,
    advantages,
    mask,
    clip_low=0.2,
    clip_high=0.2,
    beta=0.0,
    aggregate="sequence_mean",
    max_length=None,
):
    ref = logprobs.detach() if ref_logprobs is None else ref_logprobs.detach()
    ratio, a = (logprobs - old_logprobs.detach()).exp(), advantages.detach().reshape(-1, 1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)
    k3 = torch.expm1(ref - logprobs) - (ref - logprobs)
    return _aggregate(beta * k3 - surrogate, mask, aggregate, max_length)


@right("grpo_loss", "rows first: a list of token losses each")
def grpo_by_rows(
    logprobs,
    old_logprobs,
    ref_logprobs,
    advantages,
    mask,
    clip_low=0.2,
    clip_high=0.2,
    beta=0.0,
    aggregate="sequence_mean",
    max_length=None,
):
    loss = ppo_by_rows(logprobs, old_logprobs, advantages, mask, clip_low, clip_high, aggregate, max_length)
    if beta == 0 or ref_logprobs is None:
        return loss
    ratio = (ref_logprobs.detach() - logprobs).exp()
    return loss + beta * _aggregate(ratio - 1 - ratio.log(), mask, aggregate, max_length)


# --- gspo_loss --------------------------------------------------------------------------------------------------------


@right("gspo_loss", "a root of the product of ratios")
def gspo_by_root(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    ratios = torch.where(mask.bool(), logprobs - old_logprobs.detach(), 0).exp()
    s = ratios.prod(1) ** (1 / mask.bool().sum(1))
    a = advantages.detach()
    return -torch.minimum(s * a, s.clamp(1 - clip_low, 1 + clip_high) * a).mean()


@right("gspo_loss", "a loop over rows with mean log-ratios")
def gspo_by_rows(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    losses = []
    for lp, old, a, m in zip(logprobs, old_logprobs.detach(), advantages.detach(), mask.bool(), strict=True):
        s = (lp[m] - old[m]).mean().exp()
        losses.append(torch.max(-s * a, -s.clamp(1 - clip_low, 1 + clip_high) * a))
    return torch.stack(losses).mean()


@right("gspo_loss", "difference of mean log-probs, the corners by where")
def gspo_by_means(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    m = mask.to(logprobs.dtype)
    n, a = m.sum(1), advantages.detach()
    s = ((logprobs * m).sum(1) / n - (old_logprobs.detach() * m).sum(1) / n).exp()
    kept = torch.where(a >= 0, s.clamp(max=1 + clip_high), s.clamp(min=1 - clip_low))
    return -(kept * a).sum() / len(a)


# --- cispo_loss -------------------------------------------------------------------------------------------------------


@right("cispo_loss", "the weight under no_grad")
def cispo_under_no_grad(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    m = mask.to(logprobs.dtype)
    with torch.no_grad():
        weight = torch.clamp((logprobs - old_logprobs).exp(), 1 - clip_low, 1 + clip_high) * advantages[:, None]
    return -(weight * logprobs * m).sum() / m.sum()


@right("cispo_loss", "a dot product over the selected tokens")
def cispo_by_selection(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    m = mask.bool()
    lp, a = logprobs[m], advantages.detach()[:, None].expand_as(logprobs)[m]
    ratio = (lp.detach() - old_logprobs[m].detach()).exp()
    weight = torch.min(torch.max(ratio, torch.full_like(ratio, 1 - clip_low)), torch.full_like(ratio, 1 + clip_high))
    return -torch.dot(weight * a, lp) / m.sum()


@right("cispo_loss", "a loop over rows")
def cispo_by_rows(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    total, tokens = 0.0, 0
    for i in range(logprobs.size(0)):
        m = mask[i] > 0
        rho = torch.exp(logprobs[i, m] - old_logprobs[i, m]).detach().clip(1 - clip_low, 1 + clip_high)
        total = total - advantages[i].detach() * (rho * logprobs[i, m]).sum()
        tokens += int(m.sum())
    return total / tokens

"""Week 05, right: REINFORCE and RLOO written in other ways."""

import torch

from graders.accepted import right

# --- reinforce_loss ---------------------------------------------------------------------------------------------------


@right("reinforce_loss", "a loop over completions")
def reinforce_by_rows(logprobs, rewards, mask, baseline=0.0):
    total = logprobs.new_zeros(())
    for i in range(len(rewards)):
        b = baseline[i] if isinstance(baseline, torch.Tensor) and baseline.dim() else baseline
        total = total - (rewards[i] - b).detach() * logprobs[i][mask[i].bool()].sum()
    return total / len(rewards)


@right("reinforce_loss", "per-token advantages, mask by multiplication")
def reinforce_by_tokens(logprobs, rewards, mask, baseline=0.0):
    weights = (rewards - baseline).detach().unsqueeze(1) * mask.to(logprobs.dtype)
    return -(weights * logprobs).sum() / logprobs.size(0)


@right("reinforce_loss", "a dot product, masked_fill, detach on the arguments")
def reinforce_by_dot(logprobs, rewards, mask, baseline=0.0):
    if isinstance(baseline, torch.Tensor):
        baseline = baseline.detach()
    sums = logprobs.masked_fill(mask == 0, 0.0).sum(-1)
    return torch.dot(sums, baseline - rewards.detach()) / rewards.numel()


# --- rloo_advantages --------------------------------------------------------------------------------------------------


@right("rloo_advantages", "G / (G - 1) times the distance from the group mean")
def rloo_by_factor(rewards):
    g = rewards.shape[1]
    if g < 2:
        raise ValueError("G must be at least 2")
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (g / (g - 1))


@right("rloo_advantages", "a loop over the samples of each group")
def rloo_by_loop(rewards):
    if rewards.size(1) <= 1:
        raise ValueError(f"need two completions, got {rewards.size(1)}")
    out = torch.empty_like(rewards)
    for p in range(rewards.size(0)):
        for g in range(rewards.size(1)):
            others = torch.cat([rewards[p, :g], rewards[p, g + 1 :]])
            out[p, g] = rewards[p, g] - others.mean()
    return out


@right("rloo_advantages", "a matrix product with the leave-one-out weights")
def rloo_by_matrix(rewards):
    g = rewards.shape[-1]
    if g == 1:
        raise ValueError("a group of one")
    weights = (torch.ones(g, g) - torch.eye(g)).to(rewards.dtype) / (g - 1)
    return rewards - rewards @ weights


# --- batch_baseline ---------------------------------------------------------------------------------------------------


@right("batch_baseline", "sum minus own, over the count clamped to one")
def baseline_by_clamp(rewards):
    return (rewards.sum() - rewards) / max(len(rewards) - 1, 1)


@right("batch_baseline", "a loop over completions")
def baseline_by_loop(rewards):
    rows = []
    for i in range(rewards.numel()):
        others = torch.cat([rewards[:i], rewards[i + 1 :]])
        rows.append(others.mean() if others.numel() else torch.zeros((), dtype=rewards.dtype))
    return torch.stack(rows).detach()


@right("batch_baseline", "the mean, corrected by the own reward")
def baseline_by_correction(rewards):
    b = rewards.shape[0]
    if b < 2:
        return rewards * 0
    return rewards.mean() + (rewards.mean() - rewards) / (b - 1)


# --- reward_to_go -----------------------------------------------------------------------------------------------------


@right("reward_to_go", "a matrix of discounts")
def returns_by_matrix(rewards, mask, gamma):
    t = torch.arange(rewards.shape[1])
    distance = t[:, None] - t[None, :]  # later minus earlier
    powers = torch.tensor(float(gamma), dtype=rewards.dtype) ** distance.clamp(min=0)
    m = mask.to(rewards.dtype)
    return ((rewards * m) @ (powers * (distance >= 0))) * m


@right("reward_to_go", "a sweep from the right that restarts at the mask")
def returns_by_sweep(rewards, mask, gamma):
    columns, later = [], torch.zeros_like(rewards[:, -1])
    for t in range(rewards.size(1) - 1, -1, -1):
        later = torch.where(mask[:, t].bool(), rewards[:, t] + gamma * later, torch.zeros_like(later))
        columns.insert(0, later)
    return torch.stack(columns, dim=1)


@right("reward_to_go", "two loops over the definition")
def returns_by_definition(rewards, mask, gamma):
    out = torch.zeros_like(rewards)
    rows, columns = rewards.shape
    for i in range(rows):
        for t in range(columns):
            for later in range(t, columns):
                if mask[i, t] and mask[i, later]:
                    out[i, t] += gamma ** (later - t) * rewards[i, later]
    return out


# --- policy_gradient_loss ---------------------------------------------------------------------------------------------


@right("policy_gradient_loss", "weights for each token, then one sum")
def policy_by_weights(logprobs, advantages, mask, aggregate, max_length=None):
    m = mask.to(logprobs.dtype)
    n, rows = m.sum(1, keepdim=True).clamp(min=1), len(m)
    if aggregate == "constant" and max_length is None:
        raise ValueError("constant needs max_length")
    weights = {
        "sequence_sum": lambda: m / rows,
        "sequence_mean": lambda: m / n / rows,
        "token_mean": lambda: m / m.sum().clamp(min=1),
        "constant": lambda: m / (rows * max_length),
    }
    if aggregate not in weights:
        raise ValueError(f"unknown aggregate: {aggregate}")
    a = advantages.detach()
    a = a.reshape(rows, -1) if a.dim() == 1 else a
    return -(a * logprobs * weights[aggregate]()).sum()


@right("policy_gradient_loss", "a loop over rows")
def policy_by_rows(logprobs, advantages, mask, aggregate, max_length=None):
    if aggregate not in ("sequence_sum", "sequence_mean", "token_mean", "constant"):
        raise ValueError(f"{aggregate} is no aggregate")
    if aggregate == "constant" and not max_length:
        raise ValueError("max_length is missing")
    advantages = advantages.detach()
    sums, counts = [], []
    for lp, a, m in zip(logprobs, advantages, mask.bool(), strict=True):
        a = a if a.dim() == 0 else a[m]
        sums.append(-(a * lp[m]).sum())
        counts.append(max(int(m.sum()), 1))
    sums = torch.stack(sums)
    if aggregate == "sequence_sum":
        return sums.mean()
    if aggregate == "sequence_mean":
        return (sums / torch.tensor(counts)).mean()
    if aggregate == "token_mean":
        return sums.sum() / sum(counts)
    return sums.sum() / len(sums) / max_length


@right("policy_gradient_loss", "match, masked_fill and nanmean")
def policy_by_match(logprobs, advantages, mask, aggregate, max_length=None):
    a = advantages.detach() if advantages.dim() == 2 else advantages.detach().unsqueeze(-1)
    terms = (-a * logprobs).masked_fill(~mask.bool(), 0)
    tokens = mask.bool().sum(-1)
    match aggregate:
        case "sequence_sum":
            return terms.sum() / terms.size(0)
        case "sequence_mean":
            return terms.masked_fill(~mask.bool(), float("nan")).nanmean(-1).mean()
        case "token_mean":
            return terms.sum() / tokens.sum()
        case "constant" if max_length is not None:
            return terms.sum() / terms.size(0) / max_length
        case _:
            raise ValueError(f"aggregate={aggregate!r} with max_length={max_length}")

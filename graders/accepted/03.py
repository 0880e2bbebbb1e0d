"""Week 03, right: reward models written in other ways."""

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- last_token_rewards -----------------------------------------------------------------------------------------------


@right("last_token_rewards", "argmax of the flipped mask")
def reward_by_flip(values, attention_mask):
    last = attention_mask.shape[1] - 1 - attention_mask.long().flip(1).argmax(1)
    return values[torch.arange(len(values)), last]


@right("last_token_rewards", "a loop over rows")
def reward_by_rows(values, attention_mask):
    return torch.stack([row[m.bool()][-1] for row, m in zip(values, attention_mask, strict=True)])


@right("last_token_rewards", "the place where the running count reaches the total")
def reward_by_cumsum(values, attention_mask):
    m = attention_mask.long()
    last = (m.cumsum(1) * m).argmax(1)
    return (values * F.one_hot(last, values.shape[1]).to(values.dtype)).sum(1)


# --- bradley_terry_loss -----------------------------------------------------------------------------------------------


def _constant(margin):
    return margin.detach() if torch.is_tensor(margin) else margin


@right("bradley_terry_loss", "softplus of the negative difference")
def preference_by_softplus(chosen, rejected, margin=0.0):
    return F.softplus(rejected - chosen + _constant(margin)).mean()


@right("bradley_terry_loss", "log of the sigmoid, as written")
def preference_as_written(chosen, rejected, margin=0.0):
    return -torch.log(torch.sigmoid(chosen - rejected - _constant(margin))).sum() / len(chosen)


@right("bradley_terry_loss", "a two-class cross-entropy")
def preference_by_cross_entropy(chosen, rejected, margin=0.0):
    logits = torch.stack([chosen - _constant(margin), rejected], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(chosen), dtype=torch.long))


@right("bradley_terry_loss", "logaddexp")
def preference_by_logaddexp(chosen, rejected, margin=0.0):
    won = chosen - _constant(margin)
    return (torch.logaddexp(won, rejected) - won).mean()


# --- pairwise_accuracy ------------------------------------------------------------------------------------------------


@right("pairwise_accuracy", "the sign of the difference")
def accuracy_by_sign(chosen, rejected):
    return ((chosen - rejected).sign() / 2 + 0.5).mean()


@right("pairwise_accuracy", "a Python loop")
def accuracy_by_loop(chosen, rejected):
    credit = [1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True)]
    return torch.tensor(sum(credit) / len(credit), dtype=chosen.dtype)


@right("pairwise_accuracy", "the mean of > and >=")
def accuracy_by_halves(chosen, rejected):
    return ((chosen > rejected).to(chosen.dtype).mean() + (chosen >= rejected).to(chosen.dtype).mean()) / 2


# --- orm_loss ---------------------------------------------------------------------------------------------------------


@right("orm_loss", "weights for the reduction of F.binary_cross_entropy_with_logits")
def orm_by_weights(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    y = correct.detach().to(logits.dtype).unsqueeze(-1).repeat(1, logits.size(1))
    return F.binary_cross_entropy_with_logits(logits, y, weight=m, reduction="sum") / m.sum()


@right("orm_loss", "logsigmoid of the logit or of its negative, over the selected tokens")
def orm_by_sign(logits, correct, completion_mask):
    m = completion_mask.bool()
    sign = (2 * correct.detach().to(logits.dtype) - 1)[:, None].expand_as(logits)
    return -F.logsigmoid((sign * logits)[m]).mean()


@right("orm_loss", "a loop over rows, log p as written")
def orm_by_rows(logits, correct, completion_mask):
    losses = []
    for row, y, m in zip(logits, correct.tolist(), completion_mask.bool(), strict=True):
        p = torch.sigmoid(row[m])
        losses.append(-torch.log(p) if y else -torch.log(1 - p))
    return torch.cat(losses).mean()


# --- orm_score --------------------------------------------------------------------------------------------------------


@right("orm_score", "a loop over rows")
def score_by_rows(logits, completion_mask, how):
    rules = {"last": lambda p: p[-1], "mean": torch.mean, "min": torch.min}
    if how not in rules:
        raise ValueError(f"no such rule: {how}")
    return torch.stack([rules[how](z[m].sigmoid()) for z, m in zip(logits, completion_mask.bool(), strict=True)])


@right("orm_score", "the minimum of the logits: the sigmoid is monotone")
def score_by_logits(logits, completion_mask, how):
    m = completion_mask.to(torch.bool)
    if how == "min":
        return torch.sigmoid(logits.masked_fill(~m, float("inf")).min(dim=1).values)
    if how == "mean":
        weights = m.to(logits.dtype) / m.sum(1, keepdim=True)
        return (torch.sigmoid(logits) * weights).sum(1)
    if how == "last":
        return reward_by_flip(logits, completion_mask).sigmoid()
    raise ValueError(how)


@right("orm_score", "match, nanmean, the two-class softmax for the sigmoid")
def score_by_match(logits, completion_mask, how):
    p = torch.stack([torch.zeros_like(logits), logits]).softmax(0)[1].detach()
    p = p.masked_fill(completion_mask == 0, float("nan"))
    match how:
        case "mean":
            return p.nanmean(1)
        case "min":
            return p.nan_to_num(2.0).min(1)[0]
        case "last":
            return reward_by_cumsum(p.nan_to_num(0.0), completion_mask)
        case _:
            raise ValueError(f"how={how!r}")

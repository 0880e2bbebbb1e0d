"""Week 04, right: process reward models written in other ways."""

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- prm_labels -------------------------------------------------------------------------------------------------------


@right("prm_labels", "two Python loops over tokens")
def labels_by_tokens(input_ids, separator_id, step_ratings, completion_mask):
    rows = []
    for ids, ratings, mask in zip(input_ids.tolist(), step_ratings, completion_mask.tolist(), strict=True):
        left, row = iter(ratings), []
        for token, counts in zip(ids, mask, strict=True):
            rating = next(left, None) if counts and token == separator_id else None
            row.append(-100 if rating is None else rating + 1)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.long)


@right("prm_labels", "the running count of separators indexes a padded table of ratings")
def labels_by_table(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    width = max(input_ids.shape[1], *[len(r) for r in step_ratings])
    table = torch.tensor([[x + 1 for x in r] + [-100] * (width - len(r)) for r in step_ratings])
    number = (ends.long().cumsum(1) - 1).clamp(min=0)
    return torch.where(ends, table.gather(1, number), -100)


@right("prm_labels", "zip over positions and ratings")
def labels_by_zip(input_ids, separator_id, step_ratings, completion_mask):
    labels = torch.empty(input_ids.shape, dtype=torch.int64).fill_(-100)
    for i, ratings in enumerate(step_ratings):
        places = [t for t in range(input_ids.size(1)) if completion_mask[i, t] and input_ids[i, t] == separator_id]
        for place, rating in zip(places, ratings, strict=False):
            labels[i, place] = {-1: 0, 0: 1, 1: 2}[rating]
    return labels


# --- prm_loss ---------------------------------------------------------------------------------------------------------


@right("prm_loss", "F.cross_entropy with ignore_index on flattened tensors")
def prm_by_ignore_index(logits, labels):
    return F.cross_entropy(logits.reshape(-1, 3), labels.reshape(-1), ignore_index=-100)


@right("prm_loss", "log_softmax, gather, mask by multiplication")
def prm_by_gather(logits, labels):
    m = (labels != -100).to(logits.dtype)
    logp = logits.log_softmax(dim=-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
    return -(logp * m).sum() / m.sum()


@right("prm_loss", "logsumexp minus the logit of the label, a loop over labelled positions")
def prm_by_loop(logits, labels):
    losses = [logits[i, t].logsumexp(0) - logits[i, t, labels[i, t]] for i, t in (labels != -100).nonzero().tolist()]
    return torch.stack(losses).mean()


# --- step_scores ------------------------------------------------------------------------------------------------------


@right("step_scores", "softmax of everything, then split")
def scores_by_split(logits, labels):
    m = labels.ne(-100)
    good = torch.softmax(logits, dim=2)[..., 2]
    return list(good[m].split(m.sum(1).tolist()))


@right("step_scores", "exp of the log-softmax, row by row")
def scores_by_rows(logits, labels):
    out = []
    for i in range(labels.size(0)):
        places = torch.where(labels[i] != -100)[0]
        out.append(torch.log_softmax(logits[i, places], -1)[:, 2].exp())
    return out


@right("step_scores", "sigmoid of good against the logsumexp of the others")
def scores_by_sigmoid(logits, labels):
    odds = logits[..., 2] - torch.logsumexp(logits[..., :2], -1)
    return [torch.sigmoid(row[keep]).detach() for row, keep in zip(odds, labels != -100, strict=True)]


# --- aggregate_steps --------------------------------------------------------------------------------------------------


@right("aggregate_steps", "a loop over rows")
def steps_by_rows(scores, step_mask, how):
    rules = {"min": torch.min, "prod": torch.prod, "mean": torch.mean, "last": lambda s: s[-1]}
    if how not in rules:
        raise ValueError(f"no rule {how!r}")
    out = scores.new_zeros(scores.shape[0])
    for i in range(len(scores)):
        steps = scores[i][step_mask[i].bool()]
        if len(steps):
            out[i] = rules[how](steps)
    return out


@right("aggregate_steps", "the product as exp of a sum of logs, the minimum by masked_fill")
def steps_by_logs(scores, step_mask, how):
    m = step_mask.bool()
    some = m.any(dim=1)
    if how == "prod":
        return scores.masked_fill(~m, 1.0).log().sum(1).exp() * some
    if how == "min":
        return scores.masked_fill(~m, 2.0).min(dim=1).values * some
    if how == "mean":
        return (scores * m).sum(1) / m.sum(1).clamp(min=1)
    if how == "last":
        place = (m.long().cumsum(1) * m).argmax(1)
        return scores[torch.arange(len(scores)), place] * some
    raise ValueError(f"how = {how}")


@right("aggregate_steps", "match, nanmean, a running product")
def steps_by_match(scores, step_mask, how):
    real = step_mask != 0
    match how:
        case "min":
            result = torch.where(real, scores, 1.0).amin(-1)
        case "prod":
            result = torch.where(real, scores, 1.0).cumprod(-1)[:, -1]
        case "mean":
            result = torch.where(real, scores, torch.nan).nanmean(-1).nan_to_num(0.0)
        case "last":
            flipped = real.flip(1).long().argmax(1, keepdim=True)
            result = scores.flip(1).gather(1, flipped)[:, 0]
        case _:
            raise ValueError(f"{how} is none of min, prod, mean, last")
    return result.masked_fill(~real.any(-1), 0.0)


# --- rerank_accuracy --------------------------------------------------------------------------------------------------


@right("rerank_accuracy", "a loop over prompts")
def rerank_by_prompts(scores, correct):
    rows = [c[s == s.max()].to(scores.dtype).mean() for s, c in zip(scores, correct, strict=True)]
    return sum(rows) / len(rows)


@right("rerank_accuracy", "masked mean of the correct ones")
def rerank_by_nanmean(scores, correct):
    best = scores.max(dim=1, keepdim=True).values
    return torch.where(scores < best, torch.nan, correct.to(scores.dtype)).nanmean(dim=1).mean()


@right("rerank_accuracy", "Python numbers")
def rerank_in_python(scores, correct):
    total = 0.0
    for s, c in zip(scores.tolist(), correct.tolist(), strict=True):
        tied = [float(y) for x, y in zip(s, c, strict=True) if x == max(s)]
        total += sum(tied) / len(tied)
    return torch.tensor(total / len(scores), dtype=scores.dtype)

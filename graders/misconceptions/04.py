"""Week 04, wrong: what learners' process reward models compute instead."""

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong

IGNORE = -100

# --- prm_labels -------------------------------------------------------------------------------------------------------

ENDS = "Where a step ends"


def _labels(input_ids, places, step_ratings, shift=1):
    """Ratings plus `shift` at the places (B, T), row by row."""
    labels = torch.full_like(input_ids, IGNORE, dtype=torch.long)
    for row, ratings in enumerate(step_ratings):
        where = places[row].nonzero().flatten()
        n = min(len(where), len(ratings))
        labels[row, where[:n]] = torch.tensor(ratings[:n], dtype=torch.long) + shift
    return labels


@wrong(
    "prm_labels",
    "prompt separators counted",
    computed="labels at every separator, those of the prompt and padding included",
    why="steps are the completion's; a separator in the prompt ends none of them",
    effect="all ratings are shifted to earlier steps",
    lesson=ENDS,
)
def labels_in_the_prompt(input_ids, separator_id, step_ratings, completion_mask):
    return _labels(input_ids, input_ids == separator_id, step_ratings)


@wrong(
    "prm_labels",
    "ratings as classes",
    computed="-1, 0, 1 as labels",
    why="classes are 0, 1, 2; cross-entropy has no class -1",
    effect="good steps are trained as neutral ones, and -1 is an error or another class",
    lesson=ENDS,
)
def labels_without_the_shift(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    return _labels(input_ids, ends, step_ratings, shift=0)


@wrong(
    "prm_labels",
    "one token late",
    computed="the label at the token after the separator",
    why="the separator's own logits have read the whole step",
    effect="the verdict is read where the next step begins",
    lesson=ENDS,
)
def labels_one_late(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    return _labels(input_ids, F.pad(ends[:, :-1], (1, 0)), step_ratings)


@wrong(
    "prm_labels",
    "one token early",
    computed="the label at the token before the separator",
    why="the step is over at its separator",
    effect="the verdict is asked for before the step is finished",
    lesson=ENDS,
)
def labels_one_early(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    return _labels(input_ids, F.pad(ends[:, 1:], (0, 1)), step_ratings)


@wrong(
    "prm_labels",
    "the whole step labelled",
    computed="the step's rating at each of its tokens",
    why="the verdict is asked for where the step ends, and nowhere else",
    effect="long steps weigh more, and half-finished steps are judged",
    lesson=ENDS,
)
def labels_on_every_token(input_ids, separator_id, step_ratings, completion_mask):
    labels = _labels(input_ids, (input_ids == separator_id) & completion_mask.bool(), step_ratings)
    for t in reversed(range(labels.shape[1] - 1)):
        labels[:, t] = torch.where(labels[:, t] == IGNORE, labels[:, t + 1], labels[:, t])
    return torch.where(completion_mask.bool(), labels, IGNORE)


@wrong(
    "prm_labels",
    "aligned from the right",
    computed="the last rating at the last separator",
    why="a truncated trace has lost its last steps, not its first ones",
    effect="ratings stand at other steps as soon as the counts differ",
    lesson=ENDS,
)
def labels_from_the_right(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    flipped = _labels(input_ids.flip(1), ends.flip(1), [ratings[::-1] for ratings in step_ratings])
    return flipped.flip(1)


@wrong(
    "prm_labels",
    "unrated steps are neutral",
    computed="class 1 at separators without a rating",
    why="nobody rated them: -100 asks nothing",
    effect="the model learns to call late steps neutral",
    lesson=ENDS,
)
def labels_fill_with_neutral(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    labels = _labels(input_ids, ends, step_ratings)
    return torch.where(ends & (labels == IGNORE), 1, labels)


@wrong(
    "prm_labels",
    "uneven rows dropped",
    computed="-100 throughout for a row whose counts differ",
    why="a truncated trace keeps the ratings of the steps it has",
    effect="long solutions, the ones that get truncated, are never learned from",
    lesson=ENDS,
)
def labels_drop_uneven_rows(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    kept = [r if len(r) == int(e.sum()) else [] for r, e in zip(step_ratings, ends, strict=True)]
    return _labels(input_ids, ends, kept)


@wrong(
    "prm_labels",
    "surplus rating on the last token",
    computed="a rating that has no separator at the completion's last token",
    why="the truncated step never ended: its rating is dropped",
    effect="half a step is trained with the verdict of the whole one",
    lesson=ENDS,
)
def labels_close_the_last_step(input_ids, separator_id, step_ratings, completion_mask):
    ends = (input_ids == separator_id) & completion_mask.bool()
    labels = _labels(input_ids, ends, step_ratings)
    for row, ratings in enumerate(step_ratings):
        n, where = int(ends[row].sum()), completion_mask[row].nonzero().flatten()
        if len(ratings) > n and len(where) and labels[row, where[-1]] == IGNORE:
            labels[row, where[-1]] = ratings[n] + 1
    return labels


@wrong(
    "prm_labels",
    "unlabelled is class 0",
    computed="0 where nothing is asked",
    why="0 is the class of bad steps; nothing asked is -100",
    effect="every token is trained to be bad",
    lesson=ENDS,
)
def labels_fill_with_zero(input_ids, separator_id, step_ratings, completion_mask):
    labels = _labels(input_ids, (input_ids == separator_id) & completion_mask.bool(), step_ratings)
    return torch.where(labels == IGNORE, 0, labels)


@wrong(
    "prm_labels",
    "prompt separators counted, ratings as classes",
    computed="-1, 0, 1 at every separator of the row",
    why="only the completion has steps, and classes are 0, 1, 2",
    effect="ratings stand at other steps and mean other classes",
    lesson=ENDS,
)
def labels_in_the_prompt_without_the_shift(input_ids, separator_id, step_ratings, completion_mask):
    return _labels(input_ids, input_ids == separator_id, step_ratings, shift=0)


# --- prm_loss ---------------------------------------------------------------------------------------------------------

LOSS = "A loss for every step"


def _losses(logits, labels):
    """Cross-entropy at each position (B, T), 0 where nothing is asked."""
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")


@wrong(
    "prm_loss",
    "shifted by one",
    computed="the label at t + 1 judged by the logits at t",
    why="a process reward model does not predict the next token: it reads the step where it ends",
    effect="the verdict is asked for one token too early",
    lesson=LOSS,
)
def prm_shifts(logits, labels):
    count = (labels[:, 1:] != IGNORE).sum().clamp(min=1)
    return _losses(logits[:, :-1], labels[:, 1:]).sum() / count


@wrong(
    "prm_loss",
    "mean of row means",
    computed="each row's mean, averaged over rows",
    why="every rated step has one vote",
    effect="steps of short solutions weigh more",
    lesson=LOSS,
)
def prm_averages_rows(logits, labels):
    return (_losses(logits, labels).sum(1) / (labels != IGNORE).sum(1).clamp(min=1)).mean()


@wrong(
    "prm_loss",
    "divided by all positions",
    computed="the sum over labelled positions divided by B times T",
    why="only labelled positions count",
    effect="the loss shrinks with the length of the steps",
    lesson=LOSS,
)
def prm_divides_by_everything(logits, labels):
    return _losses(logits, labels).mean()


@wrong(
    "prm_loss",
    "sum",
    computed="the sum over labelled positions",
    why="the step must not grow with the number of steps in the batch",
    effect="batches of long solutions move the model most",
    lesson=LOSS,
)
def prm_sums(logits, labels):
    return _losses(logits, labels).sum()


@wrong(
    "prm_loss",
    "labels cast to bool",
    computed="the mean over positions whose label is not 0",
    why="-100 is true, and class 0 is false: bad steps are left out, unrated ones come in",
    effect="every token is trained, and no bad step is ever seen",
    lesson=LOSS,
)
def prm_casts_to_bool(logits, labels):
    logp = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    m = labels.bool().to(logits.dtype)
    return -(logp * m).sum() / m.sum().clamp(min=1)


@wrong(
    "prm_loss",
    "good or not good",
    computed="binary cross-entropy of the good logit alone",
    why="three classes share one softmax; neutral is a class of its own",
    effect="neutral and bad are the same thing",
    lesson=LOSS,
)
def prm_is_binary(logits, labels):
    m = labels != IGNORE
    return F.binary_cross_entropy_with_logits(logits[..., 2][m], (labels[m] == 2).to(logits.dtype))


@wrong(
    "prm_loss",
    "squared error of the rating",
    computed="(expected class - label)^2",
    why="the labels are classes; their likelihood is the cross-entropy",
    effect="a model torn between good and bad says neutral",
    lesson=LOSS,
)
def prm_by_squares(logits, labels):
    m = labels != IGNORE
    expected = (logits.softmax(-1) * torch.arange(3, dtype=logits.dtype)).sum(-1)
    return ((expected - labels.to(logits.dtype))[m] ** 2).mean()


@wrong(
    "prm_loss",
    "sign flipped",
    computed="the mean log-probability of the labels",
    why="the loss is its negative",
    effect="the right class becomes the least likely one",
    lesson=LOSS,
)
def prm_flips_the_sign(logits, labels):
    return -_losses(logits, labels).sum() / (labels != IGNORE).sum().clamp(min=1)


@wrong(
    "prm_loss",
    "softmax over the tokens",
    computed="log_softmax along T",
    why="the classes are the last dimension",
    effect="positions compete with each other, and padding takes part",
    lesson=LOSS,
)
def prm_normalises_tokens(logits, labels):
    m = labels != IGNORE
    logp = logits.log_softmax(1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(logp * m.to(logits.dtype)).sum() / m.sum().clamp(min=1)


@wrong(
    "prm_loss",
    "softmax taken twice",
    computed="the cross-entropy of probabilities taken for logits",
    why="cross_entropy applies log_softmax itself",
    effect="the loss never falls below 0.55",
    lesson=LOSS,
)
def prm_softmax_twice(logits, labels):
    return _losses(logits.softmax(-1), labels).sum() / (labels != IGNORE).sum().clamp(min=1)


@wrong(
    "prm_loss",
    "shifted by one, rows averaged",
    computed="each row's mean loss of the label at t + 1 under the logits at t",
    why="there is no shift, and every rated step has one vote",
    effect="another position is trained, short solutions first",
    lesson=LOSS,
)
def prm_shifts_and_averages_rows(logits, labels):
    losses, counts = _losses(logits[:, :-1], labels[:, 1:]), (labels[:, 1:] != IGNORE).sum(1)
    return (losses.sum(1) / counts.clamp(min=1)).mean()


@wrong(
    "prm_loss",
    "nothing labelled is NaN",
    computed="the mean of nothing",
    why="a batch without labels has loss 0 and gradient 0",
    effect="one unlabelled batch ends the run",
    lesson=LOSS,
    star=True,
)
def prm_of_nothing_is_nan(logits, labels):
    m = labels != IGNORE
    return F.cross_entropy(logits[m], labels[m])


@wrong(
    "prm_loss",
    "log of softmax",
    computed="log(softmax(z)): -inf where the softmax underflows",
    why="the probability of an unlikely class is 0 in float32",
    effect="infinite loss on the most confident mistakes",
    lesson=LOSS,
    star=True,
)
def prm_by_log_of_softmax(logits, labels):
    m = labels != IGNORE
    p = logits[m].softmax(-1).gather(-1, labels[m].unsqueeze(-1))
    return -p.log().sum() / m.sum().clamp(min=1)


# --- step_scores ------------------------------------------------------------------------------------------------------

READING = "Reading the scores"


@wrong(
    "step_scores",
    "probability of bad",
    computed="class 0",
    why="class 2 is good",
    effect="the worst solution is picked",
    lesson=READING,
)
def scores_of_bad(logits, labels):
    return [z[y != IGNORE].softmax(-1)[:, 0] for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "not bad",
    computed="the probability of neutral or good",
    why="neutral is not good",
    effect="idle steps score as high as useful ones",
    lesson=READING,
)
def scores_of_not_bad(logits, labels):
    return [1 - z[y != IGNORE].softmax(-1)[:, 0] for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "probability of the rating",
    computed="the probability of the class that the label names",
    why="the labels say where a step ends; the score must not know the answer",
    effect="scores look excellent and cannot be had at test time",
    lesson=READING,
)
def scores_of_the_label(logits, labels):
    rows = [(z[y != IGNORE].softmax(-1), y[y != IGNORE]) for z, y in zip(logits, labels, strict=True)]
    return [p.gather(-1, y.unsqueeze(-1)).squeeze(-1) for p, y in rows]


@wrong(
    "step_scores",
    "logits",
    computed="the logit of good",
    why="a score is a probability; a logit alone says nothing without the others",
    effect="products and means of scores have no meaning",
    lesson=READING,
)
def scores_are_logits(logits, labels):
    return [z[y != IGNORE][:, 2] for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "sigmoid of the good logit",
    computed="sigmoid(z[2])",
    why="the three classes share one softmax",
    effect="bad and neutral logits have no influence",
    lesson=READING,
)
def scores_by_sigmoid(logits, labels):
    return [torch.sigmoid(z[y != IGNORE][:, 2]) for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "softmax over the steps",
    computed="softmax along the steps of a row",
    why="the classes compete, not the steps",
    effect="the scores of a solution sum to 1: long ones score low",
    lesson=READING,
)
def scores_compete_between_steps(logits, labels):
    return [z[y != IGNORE].softmax(0)[:, 2] for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "bad steps left out",
    computed="scores at positions whose label is not 0 (or 1, 2 only)",
    why="the label's value does not matter, only that there is one",
    effect="at test time, with labels of 0, there is no step at all",
    lesson=READING,
)
def scores_skip_class_zero(logits, labels):
    return [z[y > 0].softmax(-1)[:, 2] for z, y in zip(logits, labels, strict=True)]


@wrong(
    "step_scores",
    "rows without steps dropped",
    computed="a list that is shorter than the batch",
    why="a row without steps gives an empty tensor, so that lists stay aligned",
    effect="scores belong to other solutions from there on",
    lesson=READING,
)
def scores_drop_empty_rows(logits, labels):
    rows = [z[y != IGNORE].softmax(-1)[:, 2] for z, y in zip(logits, labels, strict=True)]
    return [row for row in rows if len(row)]


@wrong(
    "step_scores",
    "read one token early",
    computed="the probability at the position before the separator",
    why="the separator's own logits have read the whole step",
    effect="the verdict is that on an unfinished step",
    lesson=READING,
)
def scores_one_early(logits, labels):
    before = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    return [z[y != IGNORE].softmax(-1)[:, 2] for z, y in zip(before, labels, strict=True)]


@wrong(
    "step_scores",
    "probability of bad, read early",
    computed="class 0 at the position before the separator",
    why="class 2 is good, and it is read at the separator",
    effect="the worst unfinished solution is picked",
    lesson=READING,
)
def scores_of_bad_one_early(logits, labels):
    before = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    return [z[y != IGNORE].softmax(-1)[:, 0] for z, y in zip(before, labels, strict=True)]


@wrong(
    "step_scores",
    "exp over a sum of exps",
    computed="a softmax without subtracting the largest logit",
    why="exp(10000) is inf, and inf / inf is NaN",
    effect="NaN at the most confident steps",
    lesson=READING,
    star=True,
)
def scores_overflow(logits, labels):
    rows = [z[y != IGNORE].exp() for z, y in zip(logits, labels, strict=True)]
    return [e[:, 2] / e.sum(-1) for e in rows]


# --- aggregate_steps --------------------------------------------------------------------------------------------------

SOLUTION = "From steps to a solution"


def _rule(scores, step_mask, how):
    """The four rules, right."""
    m = step_mask.bool()
    if how == "min":
        out = torch.where(m, scores, torch.inf).amin(1)
    elif how == "prod":
        out = torch.where(m, scores, 1).prod(1)
    elif how == "mean":
        out = torch.where(m, scores, 0).sum(1) / m.sum(1).clamp(min=1)
    elif how == "last":
        last = torch.where(m, torch.arange(m.shape[1]), 0).amax(1, keepdim=True)
        out = scores.gather(1, last).squeeze(1)
    else:
        raise ValueError(f"unknown how: {how}")
    return torch.where(m.any(1), out, 0)


@wrong(
    "aggregate_steps",
    "padding counts as 0",
    computed="scores times mask, then the rule over all S columns",
    why="0 decides a minimum and a product, and lowers a mean",
    effect="all but the longest solution score 0",
    lesson=SOLUTION,
)
def steps_zeroed(scores, step_mask, how):
    z = scores * step_mask.to(scores.dtype)
    if how in ("min", "prod", "mean"):
        return {"min": z.amin(1), "prod": z.prod(1), "mean": z.mean(1)}[how]
    return _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "mask ignored",
    computed="the rule over padding too",
    why="only real steps count",
    effect="garbage is taken for steps",
    lesson=SOLUTION,
)
def steps_unmasked(scores, step_mask, how):
    out = _rule(scores, torch.ones_like(scores), how)
    return torch.where(step_mask.bool().any(1), out, 0)


@wrong(
    "aggregate_steps",
    "last column",
    computed="the score in column -1 for last",
    why="the last column may be padding",
    effect="short solutions are scored by padding",
    lesson=SOLUTION,
)
def steps_last_column(scores, step_mask, how):
    return scores[:, -1] if how == "last" else _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "steps counted from the left",
    computed="the score at position mask.sum() - 1 for last",
    why="a row's steps may start further right",
    effect="an earlier step is taken for the last one",
    lesson=SOLUTION,
)
def steps_counted(scores, step_mask, how):
    if how != "last":
        return _rule(scores, step_mask, how)
    n = step_mask.long().sum(1)
    return torch.where(n > 0, scores.gather(1, (n - 1).clamp(min=0)[:, None]).squeeze(1), 0)


@wrong(
    "aggregate_steps",
    "mean over all columns",
    computed="the sum of the real scores divided by S",
    why="the mean is over the real steps",
    effect="short solutions score low",
    lesson=SOLUTION,
)
def steps_padded_mean(scores, step_mask, how):
    if how == "mean":
        return torch.where(step_mask.bool(), scores, 0).mean(1)
    return _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "geometric mean for the product",
    computed="the n-th root of the product",
    why="prod is the chance that all steps are good, and falls with every doubtful step",
    effect="long doubtful chains score like short ones",
    lesson=SOLUTION,
)
def steps_geometric(scores, step_mask, how):
    if how == "prod":
        return _rule(scores, step_mask, how) ** (1 / step_mask.bool().sum(1).clamp(min=1)).to(scores.dtype)
    return _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "product with an epsilon",
    computed="exp of the sum of log(score + 1e-6)",
    why="a step of score 0 makes the product exactly 0, and the epsilon biases long chains",
    effect="a chain of a thousand steps is off by the sum of its epsilons",
    lesson=SOLUTION,
)
def steps_product_with_epsilon(scores, step_mask, how):
    if how != "prod":
        return _rule(scores, step_mask, how)
    m = step_mask.bool()
    return torch.where(m.any(1), torch.where(m, (scores + 1e-6).log(), 0).sum(1).exp(), 0)


@wrong(
    "aggregate_steps",
    "no steps is a perfect product",
    computed="1 for the product of an empty row",
    why="a solution that shows no step scores 0, whatever the rule",
    effect="an empty answer is the best of N",
    lesson=SOLUTION,
)
def steps_empty_product(scores, step_mask, how):
    return torch.where(step_mask.bool(), scores, 1).prod(1) if how == "prod" else _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "no steps is infinite",
    computed="inf for the minimum of an empty row",
    why="a solution that shows no step scores 0, whatever the rule",
    effect="an empty answer is the best of N",
    lesson=SOLUTION,
)
def steps_empty_minimum(scores, step_mask, how):
    if how == "min":
        return torch.where(step_mask.bool(), scores, torch.inf).amin(1)
    return _rule(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "unknown words are the minimum",
    computed="the minimum for any word that it does not know",
    why="a misspelt option must not select something else: ValueError",
    effect="a typo in a config compares the wrong things",
    lesson=SOLUTION,
)
def steps_any_word(scores, step_mask, how):
    return _rule(scores, step_mask, how if how in ("prod", "mean", "last") else "min")


@wrong(
    "aggregate_steps",
    "last column and padded mean",
    computed="column -1 for last, the sum over S for mean",
    why="padding is no step",
    effect="short solutions are scored by padding",
    lesson=SOLUTION,
)
def steps_last_column_and_padded_mean(scores, step_mask, how):
    if how == "last":
        return scores[:, -1]
    return steps_padded_mean(scores, step_mask, how)


@wrong(
    "aggregate_steps",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded step poisons a solution",
    lesson=SOLUTION,
    star=True,
)
def steps_multiplied(scores, step_mask, how):
    if how != "mean":
        return _rule(scores, step_mask, how)
    m = step_mask.to(scores.dtype)
    return (scores * m).sum(1) / m.sum(1).clamp(min=1)


# --- rerank_accuracy --------------------------------------------------------------------------------------------------

BEST = "Best of N"


@wrong(
    "rerank_accuracy",
    "first of the best",
    computed="the sample that argmax picks among ties",
    why="samples that tie share the credit",
    effect="a constant scorer is judged by the order of the samples",
    lesson=BEST,
)
def rerank_takes_the_first(scores, correct):
    return correct.to(scores.dtype).gather(1, scores.argmax(1, keepdim=True)).mean()


@wrong(
    "rerank_accuracy",
    "any of the best",
    computed="1 if one of the tied samples is correct",
    why="only one of them can be given as the answer",
    effect="ties look like skill: a constant scorer reaches pass@N",
    lesson=BEST,
)
def rerank_takes_any(scores, correct):
    best = scores == scores.amax(1, keepdim=True)
    return (best & correct.bool()).any(1).to(scores.dtype).mean()


@wrong(
    "rerank_accuracy",
    "worst-scored sample",
    computed="the sample with the lowest score",
    why="the highest score is the best",
    effect="the better the scorer, the lower the number",
    lesson=BEST,
)
def rerank_takes_the_worst(scores, correct):
    best = (scores == scores.amin(1, keepdim=True)).to(scores.dtype)
    return ((best * correct.to(scores.dtype)).sum(1) / best.sum(1)).mean()


@wrong(
    "rerank_accuracy",
    "best of the whole table",
    computed="the best-scored samples of all prompts",
    why="every prompt is answered with one of its own samples",
    effect="one prompt decides the number",
    lesson=BEST,
)
def rerank_over_all_prompts(scores, correct):
    best = (scores == scores.max()).to(scores.dtype)
    return (best * correct.to(scores.dtype)).sum() / best.sum()


@wrong(
    "rerank_accuracy",
    "wrong axis",
    computed="the best prompt for each sample index",
    why="a row holds a prompt's samples",
    effect="prompts are compared with each other",
    lesson=BEST,
)
def rerank_over_the_prompts(scores, correct):
    best = (scores == scores.amax(0, keepdim=True)).to(scores.dtype)
    return ((best * correct.to(scores.dtype)).sum(0) / best.sum(0)).mean()


@wrong(
    "rerank_accuracy",
    "mean accuracy",
    computed="the share of correct samples",
    why="that is the accuracy without a scorer",
    effect="the scorer has no influence",
    lesson=BEST,
)
def rerank_ignores_scores(scores, correct):
    return correct.to(scores.dtype).mean()


@wrong(
    "rerank_accuracy",
    "pass@N",
    computed="1 if any sample is correct",
    why="that is the ceiling, which a verifier would reach",
    effect="the scorer looks perfect",
    lesson=BEST,
)
def rerank_by_the_verifier(scores, correct):
    return correct.bool().any(1).to(scores.dtype).mean()


@wrong(
    "rerank_accuracy",
    "weighted by softmax",
    computed="the accuracy of a sample drawn with probability softmax(score)",
    why="the best-scored sample is picked, not drawn",
    effect="the number depends on the scale of the scores",
    lesson=BEST,
)
def rerank_by_softmax(scores, correct):
    return (scores.softmax(1) * correct.to(scores.dtype)).sum(1).mean()


@wrong(
    "rerank_accuracy",
    "ties pooled over prompts",
    computed="correct among all best samples, divided by their number",
    why="each prompt has one vote, however many of its samples tie",
    effect="prompts with many ties weigh more",
    lesson=BEST,
)
def rerank_pools_ties(scores, correct):
    best = (scores == scores.amax(1, keepdim=True)).to(scores.dtype)
    return (best * correct.to(scores.dtype)).sum() / best.sum()


@wrong(
    "rerank_accuracy",
    "worst-scored, first of the ties",
    computed="the sample that argmin picks",
    why="the highest score is the best, and ties share the credit",
    effect="the better the scorer, the lower the number",
    lesson=BEST,
)
def rerank_takes_the_first_worst(scores, correct):
    return correct.to(scores.dtype).gather(1, scores.argmin(1, keepdim=True)).mean()


@wrong(
    "rerank_accuracy",
    "nearly best is best",
    computed="ties by isclose",
    why="equal means equal: a small difference is a preference",
    effect="large scores tie with their neighbours",
    lesson=BEST,
    star=True,
)
def rerank_with_near_ties(scores, correct):
    best = torch.isclose(scores, scores.amax(1, keepdim=True), rtol=1e-6).to(scores.dtype)
    return ((best * correct.to(scores.dtype)).sum(1) / best.sum(1)).mean()

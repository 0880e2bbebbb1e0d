"""Week 03, wrong: what learners' reward models compute instead."""

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong

# --- last_token_rewards -----------------------------------------------------------------------------------------------

POOL = "One number for a text"


@wrong(
    "last_token_rewards",
    "last column",
    computed="the value at column -1",
    why="with padding on the right the last column is padding",
    effect="the reward of a text depends on how long the other texts of the batch are",
    lesson=POOL,
)
def reward_of_the_last_column(values, attention_mask):
    return values[:, -1]


@wrong(
    "last_token_rewards",
    "tokens counted",
    computed="the value at position mask.sum() - 1",
    why="that is the last token with padding on the right only",
    effect="with padding on the left a token in the middle is scored",
    lesson=POOL,
)
def reward_by_counting(values, attention_mask):
    last = attention_mask.long().sum(1) - 1
    return values.gather(1, last[:, None]).squeeze(1)


@wrong(
    "last_token_rewards",
    "one past the end",
    computed="the value at position mask.sum(): the first padded one",
    why="positions count from 0",
    effect="the score is read at a pad token",
    lesson=POOL,
)
def reward_one_too_far(values, attention_mask):
    last = attention_mask.long().sum(1).clamp(max=values.shape[1] - 1)
    return values.gather(1, last[:, None]).squeeze(1)


@wrong(
    "last_token_rewards",
    "first attended token",
    computed="the value at argmax of the mask",
    why="argmax of a mask is its first 1; the last token has read the whole text",
    effect="the reward knows the first token only",
    lesson=POOL,
)
def reward_of_the_first_token(values, attention_mask):
    first = attention_mask.long().argmax(1)
    return values.gather(1, first[:, None]).squeeze(1)


@wrong(
    "last_token_rewards",
    "first pad minus one",
    computed="the position before the first 0 of the mask",
    why="with padding on the left the first 0 stands at position 0, and -1 is another place",
    effect="right with padding on the right, wrong rows with padding on the left",
    lesson=POOL,
)
def reward_before_the_first_pad(values, attention_mask):
    first_pad = (attention_mask == 0).long().argmax(1)
    last = (first_pad - 1) % values.shape[1]
    return values.gather(1, last[:, None]).squeeze(1)


@wrong(
    "last_token_rewards",
    "mean over the text",
    computed="the mean of the values of all attended tokens",
    why="early tokens have not seen the text; the reward is read where all of it has been read",
    effect="the score of a text is diluted by what its beginning looked like",
    lesson=POOL,
)
def reward_by_the_mean(values, attention_mask):
    m = attention_mask.to(values.dtype)
    return (values * m).sum(1) / m.sum(1)


@wrong(
    "last_token_rewards",
    "largest value",
    computed="the maximum over the attended tokens",
    why="a reward is the value at one place, not the best of all places",
    effect="longer texts get larger rewards",
    lesson=POOL,
)
def reward_by_the_maximum(values, attention_mask):
    return values.masked_fill(~attention_mask.bool(), -torch.inf).amax(1)


@wrong(
    "last_token_rewards",
    "value detached",
    computed="the right number without a gradient",
    why="the reward model is trained through this value",
    effect="the loss is logged and the model never moves",
    lesson=POOL,
)
def reward_detached(values, attention_mask):
    positions = torch.arange(values.shape[1])
    last = torch.where(attention_mask.bool(), positions, 0).amax(1)
    return values.detach().gather(1, last[:, None]).squeeze(1)


@wrong(
    "last_token_rewards",
    "a batch of one loses its dimension",
    computed="squeeze() without a dimension: a scalar for B = 1",
    why="squeeze() removes every dimension of size 1",
    effect="the last, smaller batch of an epoch breaks or broadcasts",
    lesson=POOL,
)
def reward_squeezed(values, attention_mask):
    positions = torch.arange(values.shape[1])
    last = torch.where(attention_mask.bool(), positions, 0).amax(1)
    return values.gather(1, last[:, None]).squeeze()


@wrong(
    "last_token_rewards",
    "nothing attended reads column 0",
    computed="whatever stands in the first column of an empty row",
    why="a row that attends to nothing has no last token: 0",
    effect="garbage is taken for a reward",
    lesson=POOL,
    star=True,
)
def reward_of_nothing(values, attention_mask):
    positions = torch.arange(values.shape[1])
    last = torch.where(attention_mask.bool(), positions, 0).amax(1)
    return values.gather(1, last[:, None]).squeeze(1)


# --- bradley_terry_loss -----------------------------------------------------------------------------------------------

PREFERENCES = "A loss for preferences"


def _constant(margin):
    return margin.detach() if isinstance(margin, torch.Tensor) else margin


@wrong(
    "bradley_terry_loss",
    "chosen and rejected swapped",
    computed="-log sigmoid(rejected - chosen - margin)",
    why="the chosen text is the one that should win",
    effect="accuracy goes to 0",
    lesson=PREFERENCES,
)
def preference_swapped(chosen, rejected, margin=0.0):
    return -F.logsigmoid(rejected - chosen - _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "sign flipped",
    computed="plus log sigmoid of the difference",
    why="the likelihood is maximised, so its negative is minimised",
    effect="the rejected text is made the better one",
    lesson=PREFERENCES,
)
def preference_without_minus(chosen, rejected, margin=0.0):
    return F.logsigmoid(chosen - rejected - _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "log forgotten",
    computed="minus the mean of sigmoid(difference)",
    why="the likelihood of all pairs is a product; its log is a sum of logs",
    effect="badly ranked pairs have almost no gradient",
    lesson=PREFERENCES,
)
def preference_without_log(chosen, rejected, margin=0.0):
    return -torch.sigmoid(chosen - rejected - _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "margin outside the sigmoid",
    computed="-log sigmoid(difference) plus the margin",
    why="outside, the margin is a constant without a gradient",
    effect="the loss is larger and nothing else changes",
    lesson=PREFERENCES,
)
def preference_with_margin_outside(chosen, rejected, margin=0.0):
    return (-F.logsigmoid(chosen - rejected) + _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "margin added",
    computed="-log sigmoid(difference + margin)",
    why="the difference must exceed the margin: it is subtracted",
    effect="pairs with a large margin are learned least",
    lesson=PREFERENCES,
)
def preference_with_margin_added(chosen, rejected, margin=0.0):
    return -F.logsigmoid(chosen - rejected + _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "margin forgotten",
    computed="-log sigmoid(difference)",
    why="the margin says by how much the chosen text should win",
    effect="the option has no effect",
    lesson=PREFERENCES,
)
def preference_without_margin(chosen, rejected, margin=0.0):
    return -F.logsigmoid(chosen - rejected).mean()


@wrong(
    "bradley_terry_loss",
    "sum over the pairs",
    computed="the sum instead of the mean",
    why="the step must not grow with the batch",
    effect="no learning rate transfers to another batch size",
    lesson=PREFERENCES,
)
def preference_summed(chosen, rejected, margin=0.0):
    return -F.logsigmoid(chosen - rejected - _constant(margin)).sum()


@wrong(
    "bradley_terry_loss",
    "margin not detached",
    computed="a loss whose gradient also reaches the margin",
    why="the margin is a label of the data",
    effect="a margin with a graph shrinks until every pair is good enough",
    lesson=PREFERENCES,
)
def preference_trains_the_margin(chosen, rejected, margin=0.0):
    return -F.logsigmoid(chosen - rejected - margin).mean()


@wrong(
    "bradley_terry_loss",
    "hinge",
    computed="max(0, margin + rejected - chosen)",
    why="a hinge is no likelihood: pairs beyond the margin have no gradient",
    effect="differences of rewards are no log-odds any more",
    lesson=PREFERENCES,
)
def preference_by_hinge(chosen, rejected, margin=0.0):
    return F.relu(_constant(margin) + rejected - chosen).mean()


@wrong(
    "bradley_terry_loss",
    "every chosen against every rejected",
    computed="a (B, B) table of all pairs, averaged",
    why="a text was compared with its own alternative, not with those of other prompts",
    effect="rewards of different prompts are compared, which the data never did",
    lesson=PREFERENCES,
)
def preference_of_all_pairs(chosen, rejected, margin=0.0):
    return -F.logsigmoid(chosen[:, None] - rejected - _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "swapped, margin added",
    computed="-log sigmoid(rejected - chosen + margin)",
    why="the chosen text should win, by the margin",
    effect="accuracy goes to 0",
    lesson=PREFERENCES,
)
def preference_swapped_and_added(chosen, rejected, margin=0.0):
    return -F.logsigmoid(rejected - chosen + _constant(margin)).mean()


@wrong(
    "bradley_terry_loss",
    "log of sigmoid",
    computed="log(sigmoid(difference)), -inf where the sigmoid underflows",
    why="sigmoid(-200) is 0 in float32",
    effect="infinite loss and NaN gradients on the worst pairs",
    lesson=PREFERENCES,
    star=True,
)
def preference_by_log_of_sigmoid(chosen, rejected, margin=0.0):
    return -torch.log(torch.sigmoid(chosen - rejected - _constant(margin))).mean()


@wrong(
    "bradley_terry_loss",
    "log of one plus exp",
    computed="log(1 + exp(-difference)), inf where exp overflows",
    why="exp(200) is inf in float32, and exp(10000) everywhere",
    effect="infinite loss and NaN gradients on the worst pairs",
    lesson=PREFERENCES,
    star=True,
)
def preference_by_log_one_plus_exp(chosen, rejected, margin=0.0):
    return torch.log1p(torch.exp(-(chosen - rejected - _constant(margin)))).mean()


# --- pairwise_accuracy ------------------------------------------------------------------------------------------------

GOOD = "Is it any good?"


@wrong(
    "pairwise_accuracy",
    "ties are wrong",
    computed="the share of chosen > rejected",
    why="a tie counts one half",
    effect="a constant model has accuracy 0 instead of 0.5",
    lesson=GOOD,
)
def accuracy_without_ties(chosen, rejected):
    return (chosen > rejected).to(chosen.dtype).mean()


@wrong(
    "pairwise_accuracy",
    "ties are right",
    computed="the share of chosen >= rejected",
    why="a tie counts one half",
    effect="a constant model is perfect",
    lesson=GOOD,
)
def accuracy_with_ties(chosen, rejected):
    return (chosen >= rejected).to(chosen.dtype).mean()


@wrong(
    "pairwise_accuracy",
    "rejected above chosen",
    computed="the share of pairs ranked wrong",
    why="the chosen text should have the higher reward",
    effect="the better the model, the lower the number",
    lesson=GOOD,
)
def accuracy_inverted(chosen, rejected):
    return (chosen < rejected).to(chosen.dtype).mean() + 0.5 * (chosen == rejected).to(chosen.dtype).mean()


@wrong(
    "pairwise_accuracy",
    "positive rewards counted",
    computed="the share of chosen > 0",
    why="only differences have a meaning: the level of a reward is free",
    effect="the number changes when a constant is added to all rewards",
    lesson=GOOD,
)
def accuracy_of_the_sign(chosen, rejected):
    return (chosen > 0).to(chosen.dtype).mean()


@wrong(
    "pairwise_accuracy",
    "mean probability",
    computed="the mean of sigmoid(chosen - rejected)",
    why="accuracy counts rankings, right or wrong",
    effect="the number moves with the scale of the rewards",
    lesson=GOOD,
)
def accuracy_by_probability(chosen, rejected):
    return torch.sigmoid(chosen - rejected).mean()


@wrong(
    "pairwise_accuracy",
    "every chosen against every rejected",
    computed="the share over all (B, B) pairs",
    why="texts of different prompts were never compared",
    effect="easy prompts hide wrong rankings",
    lesson=GOOD,
)
def accuracy_of_all_pairs(chosen, rejected):
    d = chosen[:, None] - rejected
    return ((d > 0).to(chosen.dtype) + 0.5 * (d == 0).to(chosen.dtype)).mean()


@wrong(
    "pairwise_accuracy",
    "a count",
    computed="the number of pairs ranked right",
    why="accuracy is a share",
    effect="the number grows with the batch",
    lesson=GOOD,
)
def accuracy_counted(chosen, rejected):
    return ((chosen > rejected).to(chosen.dtype) + 0.5 * (chosen == rejected).to(chosen.dtype)).sum()


@wrong(
    "pairwise_accuracy",
    "margin of one half",
    computed="the share of differences above 0.5",
    why="any positive difference ranks the pair right",
    effect="a model with small rewards looks blind",
    lesson=GOOD,
)
def accuracy_with_a_threshold(chosen, rejected):
    return ((chosen - rejected > 0.5).to(chosen.dtype) + 0.5 * (chosen == rejected).to(chosen.dtype)).mean()


@wrong(
    "pairwise_accuracy",
    "inverted, ties right",
    computed="the share of rejected >= chosen",
    why="the chosen text should win, and a tie counts one half",
    effect="a constant model is perfect, a good one is at 0",
    lesson=GOOD,
)
def accuracy_inverted_with_ties(chosen, rejected):
    return (rejected >= chosen).to(chosen.dtype).mean()


@wrong(
    "pairwise_accuracy",
    "nearly equal is a tie",
    computed="ties by isclose",
    why="equal means equal: a small difference is a ranking",
    effect="at rewards of 10000 differences of 0.1 vanish",
    lesson=GOOD,
    star=True,
)
def accuracy_with_near_ties(chosen, rejected):
    tie = torch.isclose(chosen, rejected, rtol=1e-6, atol=1e-8)
    return torch.where(tie, 0.5, (chosen > rejected).to(chosen.dtype)).to(chosen.dtype).mean()


# --- orm_loss ---------------------------------------------------------------------------------------------------------

TOKENS = "Right or wrong, at every token"


def _bce(logits, correct):
    labels = correct.detach().to(logits.dtype)[:, None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


@wrong(
    "orm_loss",
    "mean of row means",
    computed="each completion's mean, averaged over completions",
    why="the contract is one mean over all completion tokens of the batch",
    effect="tokens of short completions weigh more",
    lesson=TOKENS,
)
def orm_averages_rows(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    return ((_bce(logits, correct) * m).sum(1) / m.sum(1)).mean()


@wrong(
    "orm_loss",
    "mask ignored",
    computed="the mean over prompt and padding too",
    why="only the completion is right or wrong",
    effect="the model learns to judge prompts and padding",
    lesson=TOKENS,
)
def orm_ignores_the_mask(logits, correct, completion_mask):
    return _bce(logits, correct).mean()


@wrong(
    "orm_loss",
    "divided by the padded size",
    computed="the sum over completion tokens divided by B times T",
    why="padding does not count",
    effect="the loss falls when one long completion widens the batch",
    lesson=TOKENS,
)
def orm_divides_by_everything(logits, correct, completion_mask):
    return (_bce(logits, correct) * completion_mask.to(logits.dtype)).mean()


@wrong(
    "orm_loss",
    "mean logit, one loss a completion",
    computed="the loss of each completion's mean logit",
    why="every token is asked, so that the model can be read at any of them",
    effect="single tokens may say anything as long as the mean is right",
    lesson=TOKENS,
)
def orm_pools_first(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    pooled = (logits * m).sum(1) / m.sum(1)
    return F.binary_cross_entropy_with_logits(pooled, correct.detach().to(logits.dtype))


@wrong(
    "orm_loss",
    "last token only",
    computed="the loss at each completion's last token",
    why="every completion token predicts the outcome",
    effect="one label a completion where there could be a hundred",
    lesson=TOKENS,
)
def orm_at_the_last_token(logits, correct, completion_mask):
    positions = torch.arange(logits.shape[1])
    last = torch.where(completion_mask.bool(), positions, 0).amax(1, keepdim=True)
    return F.binary_cross_entropy_with_logits(logits.gather(1, last)[:, 0], correct.detach().to(logits.dtype))


@wrong(
    "orm_loss",
    "labels turned around",
    computed="the loss against 1 - correct",
    why="label 1 means correct",
    effect="the model learns to call right completions wrong",
    lesson=TOKENS,
)
def orm_inverts_the_labels(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    return (_bce(logits, 1 - correct.to(logits.dtype)) * m).sum() / m.sum()


@wrong(
    "orm_loss",
    "only the right ones",
    computed="-y log p, without the term for wrong completions",
    why="wrong completions must push their probability down",
    effect="everything is called correct",
    lesson=TOKENS,
)
def orm_without_the_negatives(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    y = correct.detach().to(logits.dtype)[:, None]
    return -(y * F.logsigmoid(logits) * m).sum() / m.sum()


@wrong(
    "orm_loss",
    "squared error",
    computed="(sigmoid(logit) - y)^2",
    why="the likelihood of a yes-or-no label is the cross-entropy",
    effect="confident mistakes have almost no gradient",
    lesson=TOKENS,
)
def orm_by_squares(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    y = correct.detach().to(logits.dtype)[:, None]
    return ((torch.sigmoid(logits) - y) ** 2 * m).sum() / m.sum()


@wrong(
    "orm_loss",
    "masked logits still cost",
    computed="logits set to 0 under the mask and averaged with the rest: log 2 each, divided by the token count",
    why="the losses under the mask must be 0, not the logits",
    effect="a constant in the loss that grows with the padding",
    lesson=TOKENS,
)
def orm_zeroes_logits(logits, correct, completion_mask):
    kept = torch.where(completion_mask.bool(), logits, 0)
    return _bce(kept, correct).sum() / completion_mask.to(logits.dtype).sum()


@wrong(
    "orm_loss",
    "probabilities as logits",
    computed="the cross-entropy with logits of sigmoid(logits)",
    why="the loss applies the sigmoid itself",
    effect="probabilities stay between 0.5 and 0.73",
    lesson=TOKENS,
)
def orm_applies_sigmoid_twice(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    return (_bce(torch.sigmoid(logits), correct) * m).sum() / m.sum()


@wrong(
    "orm_loss",
    "labels turned around, rows averaged",
    computed="each completion's mean loss against 1 - correct",
    why="label 1 means correct, and the mean is over all tokens",
    effect="the model learns the opposite, short completions first",
    lesson=TOKENS,
)
def orm_inverts_and_averages_rows(logits, correct, completion_mask):
    m = completion_mask.to(logits.dtype)
    return ((_bce(logits, 1 - correct.to(logits.dtype)) * m).sum(1) / m.sum(1)).mean()


@wrong(
    "orm_loss",
    "log of sigmoid",
    computed="log(sigmoid(z)): -inf where the sigmoid underflows",
    why="sigmoid(-200) is 0 in float32",
    effect="infinite loss on the most confident mistakes",
    lesson=TOKENS,
    star=True,
)
def orm_by_log_of_sigmoid(logits, correct, completion_mask):
    m = completion_mask.bool()
    z, y = logits[m], correct.detach().to(logits.dtype)[:, None].expand_as(logits)[m]
    return -(y * torch.sigmoid(z).log() + (1 - y) * torch.sigmoid(-z).log()).sum() / m.sum()


@wrong(
    "orm_loss",
    "no tokens is NaN",
    computed="the mean of nothing",
    why="a batch without completion tokens has loss 0",
    effect="one truncated batch ends the run",
    lesson=TOKENS,
    star=True,
)
def orm_of_nothing_is_nan(logits, correct, completion_mask):
    return _bce(logits, correct)[completion_mask.bool()].mean()


# --- orm_score --------------------------------------------------------------------------------------------------------

SCORE = "From tokens to a score"


def _last(x, mask):
    positions = torch.arange(x.shape[1])
    return x.gather(1, torch.where(mask.bool(), positions, 0).amax(1, keepdim=True)).squeeze(1)


def _score(p, mask, how):
    """The three rules, right."""
    m = mask.bool()
    if how == "last":
        return _last(p, mask)
    if how == "mean":
        return torch.where(m, p, 0).sum(1) / m.sum(1)
    if how == "min":
        return torch.where(m, p, 1).amin(1)
    raise ValueError(f"unknown how: {how}")


@wrong(
    "orm_score",
    "logits for probabilities",
    computed="the rules applied to the logits",
    why="the score is a probability",
    effect="scores above 1 and below 0; their mean has no meaning",
    lesson=SCORE,
)
def score_of_logits(logits, completion_mask, how):
    m = completion_mask.bool()
    if how == "min":
        return logits.masked_fill(~m, torch.inf).amin(1)
    return _score(logits, completion_mask, how)


@wrong(
    "orm_score",
    "mean of the logits",
    computed="sigmoid of the mean logit",
    why="the mean is one of probabilities; the sigmoid is not linear",
    effect="one very confident token decides the score",
    lesson=SCORE,
)
def score_by_mean_logit(logits, completion_mask, how):
    if how != "mean":
        return _score(torch.sigmoid(logits), completion_mask, how)
    m = completion_mask.to(logits.dtype)
    return torch.sigmoid((logits * m).sum(1) / m.sum(1))


@wrong(
    "orm_score",
    "last column",
    computed="the probability at column -1",
    why="the last column may be padding",
    effect="scores depend on the other completions of the batch",
    lesson=SCORE,
)
def score_of_the_last_column(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    return p[:, -1] if how == "last" else _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "mean over the padded length",
    computed="the sum of probabilities divided by T",
    why="the mean is over the completion's tokens",
    effect="short completions score low",
    lesson=SCORE,
)
def score_by_padded_mean(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    if how == "mean":
        return (p * completion_mask.to(p.dtype)).mean(1)
    return _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "minimum over everything",
    computed="the least probability of the row, padding included",
    why="only the completion's tokens count",
    effect="the score is decided by garbage",
    lesson=SCORE,
)
def score_by_minimum_of_all(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    return p.amin(1) if how == "min" else _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "minimum of zeros",
    computed="the minimum of probability times mask: 0 as soon as there is padding",
    why="0 is the smallest probability; fill with 1 where the mask is 0",
    effect="all but the longest completion score 0",
    lesson=SCORE,
)
def score_by_masked_minimum(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    return (p * completion_mask.to(p.dtype)).amin(1) if how == "min" else _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "tokens counted from the left",
    computed="the probability at position mask.sum() - 1",
    why="the completion starts after a prompt: its last token stands further right",
    effect="a token in the middle is scored",
    lesson=SCORE,
)
def score_by_counting(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    if how == "last":
        return p.gather(1, completion_mask.long().sum(1, keepdim=True) - 1).squeeze(1)
    return _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "unknown words are the mean",
    computed="the mean for any word that it does not know",
    why="a misspelt option must not select something else: ValueError",
    effect="a typo in a config compares the wrong things",
    lesson=SCORE,
)
def score_of_any_word(logits, completion_mask, how):
    return _score(torch.sigmoid(logits), completion_mask, how if how in ("last", "min") else "mean")


@wrong(
    "orm_score",
    "maximum for minimum",
    computed="the largest probability for min",
    why="a solution is judged by its weakest moment",
    effect="one confident token hides all doubts",
    lesson=SCORE,
)
def score_by_maximum(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    return torch.where(completion_mask.bool(), p, 0).amax(1) if how == "min" else _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "last column and padded mean",
    computed="column -1 for last, the sum over T for mean",
    why="padding is not part of the completion",
    effect="scores depend on the other completions of the batch",
    lesson=SCORE,
)
def score_ignores_padding_twice(logits, completion_mask, how):
    p = torch.sigmoid(logits)
    if how == "mean":
        return (p * completion_mask.to(p.dtype)).mean(1)
    return p[:, -1] if how == "last" else _score(p, completion_mask, how)


@wrong(
    "orm_score",
    "empty completions score",
    computed="0/0 for mean, 1 for min, a prompt token for last",
    why="a completion without tokens scores 0 by every rule",
    effect="an empty answer is the best of N",
    lesson=SCORE,
    star=True,
)
def score_of_nothing(logits, completion_mask, how):
    return _score(torch.sigmoid(logits), completion_mask, how)

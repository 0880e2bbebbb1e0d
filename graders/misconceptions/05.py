"""Week 05, wrong: what learners' REINFORCE and RLOO compute instead."""

import torch

from graders.misconceptions import wrong

# --- reinforce_loss ---------------------------------------------------------------------------------------------------

SCORE = "The score-function estimator"


@wrong(
    "reinforce_loss",
    "sign flipped",
    computed="plus the mean of advantage times log-prob",
    why="optimizers minimise; the loss needs the minus so that good completions become likelier",
    effect="the reward falls steadily",
    lesson=SCORE,
)
def reinforce_flips_the_sign(logprobs, rewards, mask, baseline=0.0):
    return ((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "mean over tokens",
    computed="each completion's average log-prob where its sum belongs",
    why="probabilities of tokens multiply, so the log-prob of a completion is a sum",
    effect="long completions learn less per token: the estimator is biased by length",
    lesson=SCORE,
)
def reinforce_averages_tokens(logprobs, rewards, mask, baseline=0.0):
    mask = mask.to(logprobs.dtype)
    return -((rewards - baseline).detach() * (logprobs * mask).sum(1) / mask.sum(1)).mean()


@wrong(
    "reinforce_loss",
    "no mean over the batch",
    computed="the sum over completions",
    why="the estimate of an expectation is a mean over samples",
    effect="the gradient grows with the batch, and no learning rate transfers",
    lesson=SCORE,
)
def reinforce_sums_the_batch(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).sum()


@wrong(
    "reinforce_loss",
    "mask ignored",
    computed="the log-probs of prompt and padding too",
    why="the policy did not choose those tokens: they carry no credit",
    effect="the model is trained on its prompts and on padding; the loss depends on the padding",
    lesson=SCORE,
)
def reinforce_ignores_the_mask(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach() * logprobs.sum(1)).mean()


@wrong(
    "reinforce_loss",
    "mean over all tokens of the batch",
    computed="the sum over everything divided by the number of tokens",
    why="each completion is one sample of the expectation, however long it is",
    effect="the step size depends on how long this batch's answers happen to be",
    lesson=SCORE,
)
def reinforce_takes_the_token_mean(logprobs, rewards, mask, baseline=0.0):
    mask = mask.to(logprobs.dtype)
    return -((rewards - baseline).detach() * (logprobs * mask).sum(1)).sum() / mask.sum()


@wrong(
    "reinforce_loss",
    "divided by the padded length",
    computed="the mean over all B times T positions, padding included",
    why="padding is not part of the sample, so T must not appear",
    effect="the gradient shrinks when one long completion widens the batch",
    lesson=SCORE,
)
def reinforce_divides_by_padded_length(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach()[:, None] * logprobs * mask.to(logprobs.dtype)).mean()


@wrong(
    "reinforce_loss",
    "every completion gets every reward",
    computed="(B, 1) rewards times (B,) log-probs: a (B, B) table, averaged",
    why="broadcasting pairs each completion with all rewards, which leaves the mean reward",
    effect="no error, and nothing is learned: with a mean baseline the advantage is 0 everywhere",
    lesson=SCORE,
)
def reinforce_broadcasts(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach()[:, None] * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "rewards not detached",
    computed="a loss whose gradient also reaches rewards and baseline",
    why="reward and baseline are constants of the estimator",
    effect="a reward model or critic behind them is trained to make the loss small",
    lesson=SCORE,
)
def reinforce_trains_the_reward(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline) * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "baseline forgotten",
    computed="reward times log-prob without the baseline",
    why="the baseline is what keeps the variance small",
    effect="the same direction on average, far noisier",
    lesson="Baselines",
)
def reinforce_forgets_the_baseline(logprobs, rewards, mask, baseline=0.0):
    return -(rewards.detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "baseline added",
    computed="reward plus baseline",
    why="the baseline is subtracted: it says what was to be expected",
    effect="the variance grows where it should shrink",
    lesson="Baselines",
)
def reinforce_adds_the_baseline(logprobs, rewards, mask, baseline=0.0):
    return -((rewards + baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "probabilities for log-probs",
    computed="advantage times probability",
    why="the score is the gradient of the log-prob; the gradient of the probability is p times smaller",
    effect="unlikely completions, which have most to teach, hardly learn",
    lesson=SCORE,
)
def reinforce_uses_probabilities(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach() * (logprobs.exp() * mask.to(logprobs.dtype)).sum(1)).mean()


@wrong(
    "reinforce_loss",
    "log-probs detached",
    computed="the right number without a graph",
    why="without a gradient to the log-probs there is nothing to train",
    effect="the loss is logged and the model never moves",
    lesson=SCORE,
)
def reinforce_detaches_the_policy(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean().detach()


@wrong(
    "reinforce_loss",
    "sign flipped and tokens averaged",
    computed="plus the mean of advantage times average log-prob",
    why="a minus is missing, and a completion's log-prob is a sum",
    effect="the reward falls, short completions first",
    lesson=SCORE,
)
def reinforce_flips_and_averages(logprobs, rewards, mask, baseline=0.0):
    mask = mask.to(logprobs.dtype)
    return ((rewards - baseline).detach() * (logprobs * mask).sum(1) / mask.sum(1)).mean()


@wrong(
    "reinforce_loss",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded position poisons the whole step",
    lesson=SCORE,
    star=True,
)
def reinforce_multiplies_by_the_mask(logprobs, rewards, mask, baseline=0.0):
    return -((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()


# --- rloo_advantages --------------------------------------------------------------------------------------------------

LEAVE = "Leave one out"


def _refuse_one(rewards):
    if rewards.shape[1] < 2:
        raise ValueError(f"G >= 2 is needed, got {tuple(rewards.shape)}")


@wrong(
    "rloo_advantages",
    "includes itself",
    computed="each reward minus the mean of its whole group",
    why="the group mean contains the sample's own reward",
    effect="every gradient is (G-1)/G of the right one: half at G = 2",
    lesson=LEAVE,
)
def rloo_includes_itself(rewards):
    _refuse_one(rewards)
    return rewards - rewards.mean(1, keepdim=True)


@wrong(
    "rloo_advantages",
    "divides the others by G",
    computed="reward minus the sum of the others over G",
    why="there are G - 1 others",
    effect="the baseline is too small: easy prompts look good throughout",
    lesson=LEAVE,
)
def rloo_divides_by_g(rewards):
    _refuse_one(rewards)
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / rewards.shape[1]


@wrong(
    "rloo_advantages",
    "own reward not removed",
    computed="reward minus the whole sum over G - 1",
    why="the sum over the others leaves the own reward out",
    effect="advantages are off by reward / (G - 1)",
    lesson=LEAVE,
)
def rloo_keeps_itself_in_the_sum(rewards):
    _refuse_one(rewards)
    return rewards - rewards.sum(1, keepdim=True) / (rewards.shape[1] - 1)


@wrong(
    "rloo_advantages",
    "the baseline itself",
    computed="the mean of the others",
    why="the advantage is the reward minus that mean",
    effect="good completions are pushed by what their siblings earned",
    lesson=LEAVE,
)
def rloo_returns_the_baseline(rewards):
    _refuse_one(rewards)
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


@wrong(
    "rloo_advantages",
    "mean over prompts",
    computed="reward minus the mean of the same column over the prompts",
    why="completions of one prompt stand in a row; a column mixes prompts",
    effect="easy prompts are always positive, hard ones always negative",
    lesson=LEAVE,
)
def rloo_uses_the_other_axis(rewards):
    _refuse_one(rewards)
    p = max(rewards.shape[0], 2)
    return rewards - (rewards.sum(0, keepdim=True) - rewards) / (p - 1)


@wrong(
    "rloo_advantages",
    "one baseline for the batch",
    computed="reward minus the mean of all other completions of all prompts",
    why="a prompt's difficulty is what its own group tells",
    effect="easy prompts are always positive, hard ones always negative",
    lesson=LEAVE,
)
def rloo_mixes_prompts(rewards):
    _refuse_one(rewards)
    return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)


@wrong(
    "rloo_advantages",
    "groups interleaved",
    computed="leave-one-out after view(G, P): groups of completions of several prompts",
    why="rows are prompts already; reshaping to (G, P) cuts the table elsewhere",
    effect="advantages are noise and training stalls",
    lesson=LEAVE,
)
def rloo_interleaves(rewards):
    _refuse_one(rewards)
    g, p = rewards.shape[1], rewards.shape[0]
    mixed = rewards.reshape(g, p).T
    return (mixed - (mixed.sum(1, keepdim=True) - mixed) / (g - 1)).T.reshape(p, g)


@wrong(
    "rloo_advantages",
    "divides by the standard deviation",
    computed="leave-one-out advantages over the group's standard deviation",
    why="that is GRPO's normalisation; RLOO has none",
    effect="groups that are nearly solved or nearly hopeless get the largest steps",
    lesson=LEAVE,
)
def rloo_normalises(rewards):
    _refuse_one(rewards)
    g = rewards.shape[1]
    return (rewards - (rewards.sum(1, keepdim=True) - rewards) / (g - 1)) / (rewards.std(1, keepdim=True) + 1e-4)


@wrong(
    "rloo_advantages",
    "sign flipped",
    computed="the mean of the others minus the reward",
    why="an advantage is positive when the completion was better than its siblings",
    effect="the reward falls steadily",
    lesson=LEAVE,
)
def rloo_flips_the_sign(rewards):
    _refuse_one(rewards)
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1) - rewards


@wrong(
    "rloo_advantages",
    "the neighbour as baseline",
    computed="reward minus the reward of the next completion",
    why="the baseline is the mean of all the others, not one of them",
    effect="unbiased, and much noisier than it needs to be",
    lesson=LEAVE,
)
def rloo_compares_with_the_neighbour(rewards):
    _refuse_one(rewards)
    return rewards - rewards.roll(1, dims=1)


@wrong(
    "rloo_advantages",
    "a group of one is accepted",
    computed="0/0 = NaN, or 0 after clamping, for a group of one",
    why="with one completion there is nothing to leave in: the contract asks for a ValueError",
    effect="a wrong group size trains on NaN or on nothing, silently",
    lesson=LEAVE,
)
def rloo_accepts_one(rewards):
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / max(rewards.shape[1] - 1, 1)


@wrong(
    "rloo_advantages",
    "equal rewards leave rounding noise",
    computed="advantages of 1e-8 where all rewards of a group are equal",
    why="adding up and dividing rounds; measured from the first reward the differences are exact zeros",
    effect="a later division by a tiny standard deviation makes noise large",
    lesson=LEAVE,
    star=True,
)
def rloo_leaves_noise(rewards):
    _refuse_one(rewards)
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


# --- batch_baseline ---------------------------------------------------------------------------------------------------

BASE = "Baselines"


@wrong(
    "batch_baseline",
    "includes itself",
    computed="the mean of the whole batch for everyone",
    why="the baseline then depends on the completion it is subtracted from",
    effect="the gradient is (B-1)/B of the right one",
    lesson=BASE,
)
def baseline_includes_itself(rewards):
    return rewards.mean().expand_as(rewards) if len(rewards) > 1 else torch.zeros_like(rewards)


@wrong(
    "batch_baseline",
    "divides the others by B",
    computed="the sum of the others over B",
    why="there are B - 1 others",
    effect="a baseline that is too small in every batch, worst in small ones",
    lesson=BASE,
)
def baseline_divides_by_b(rewards):
    return (rewards.sum() - rewards) / len(rewards)


@wrong(
    "batch_baseline",
    "own reward not removed",
    computed="the whole sum over B - 1",
    why="the sum over the others leaves the own reward out",
    effect="the baseline is too large and depends on the own reward",
    lesson=BASE,
)
def baseline_keeps_itself(rewards):
    if len(rewards) == 1:
        return torch.zeros_like(rewards)
    return (rewards.sum() / (len(rewards) - 1)).expand_as(rewards)


@wrong(
    "batch_baseline",
    "the advantage itself",
    computed="the reward minus the mean of the others",
    why="the function returns the baseline; the loss subtracts it",
    effect="it is subtracted twice: the own reward cancels and nothing is learned",
    lesson=BASE,
)
def baseline_returns_the_advantage(rewards):
    if len(rewards) == 1:
        return torch.zeros_like(rewards)
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


@wrong(
    "batch_baseline",
    "running mean",
    computed="the mean of the completions before it",
    why="all other completions of the batch are known, also the later ones",
    effect="the first completions of a batch have hardly a baseline",
    lesson=BASE,
)
def baseline_looks_back_only(rewards):
    before = torch.cat([rewards.new_zeros(1), rewards.cumsum(0)[:-1]])
    return before / torch.arange(len(rewards)).clamp(min=1).to(rewards.dtype)


@wrong(
    "batch_baseline",
    "median of the others",
    computed="the median where the mean belongs",
    why="the contract says mean",
    effect="with rewards of 0 and 1 the baseline jumps between 0 and 1",
    lesson=BASE,
)
def baseline_takes_the_median(rewards):
    if len(rewards) == 1:
        return torch.zeros_like(rewards)
    others = [torch.cat([rewards[:i], rewards[i + 1 :]]) for i in range(len(rewards))]
    return torch.stack([x.median() for x in others])


@wrong(
    "batch_baseline",
    "one number for all",
    computed="the mean of the batch as a scalar",
    why="each completion has its own baseline, of shape (B,)",
    effect="the own reward leaks into the baseline",
    lesson=BASE,
)
def baseline_is_a_scalar(rewards):
    return rewards.mean()


@wrong(
    "batch_baseline",
    "NaN when alone",
    computed="0/0 for a batch of one",
    why="without others there is no baseline: the contract says 0",
    effect="the last, smaller batch of an epoch turns the model into NaN",
    lesson=BASE,
)
def baseline_is_nan_when_alone(rewards):
    return (rewards.sum() - rewards) / (len(rewards) - 1)


@wrong(
    "batch_baseline",
    "own reward when alone",
    computed="the completion's own reward for a batch of one",
    why="the advantage is then 0; without others the baseline is 0 and the reward itself is the signal",
    effect="batches of one teach nothing",
    lesson=BASE,
)
def baseline_is_itself_when_alone(rewards):
    if len(rewards) == 1:
        return rewards.clone()
    return (rewards.sum() - rewards) / (len(rewards) - 1)


# --- reward_to_go -----------------------------------------------------------------------------------------------------

CREDIT = "Credit for each token"


@wrong(
    "reward_to_go",
    "from the left",
    computed="the discounted sum of this and all earlier rewards",
    why="a token can only change what comes after it",
    effect="early tokens get no credit, the last ones all of it",
    lesson=CREDIT,
)
def returns_look_back(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    out, so_far = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1]):
        so_far = rewards[:, t] + gamma * so_far
        out[:, t] = so_far
    return out * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "no discount",
    computed="the plain sum of this and all later rewards",
    why="gamma weights a reward by how far away it is",
    effect="the discount that is configured has no effect",
    lesson=CREDIT,
)
def returns_ignore_gamma(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    return rewards.flip(1).cumsum(1).flip(1) * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "discounted from the start",
    computed="sum of gamma^t' r_t' counted from the row's beginning",
    why="the exponent is the distance to this token, t' - t",
    effect="late tokens have returns near 0",
    lesson=CREDIT,
)
def returns_discount_from_the_start(rewards, mask, gamma):
    weights = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (rewards * mask.to(rewards.dtype) * weights).flip(1).cumsum(1).flip(1) * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "own reward left out",
    computed="gamma times the return of the next token",
    why="a token's own reward comes after it was chosen and belongs to its return",
    effect="the last token, where the verifier's reward stands, learns nothing",
    lesson=CREDIT,
)
def returns_skip_the_own_reward(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    out, later = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        out[:, t] = gamma * later
        later = rewards[:, t] + gamma * later
    return out * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "own reward discounted",
    computed="gamma (r_t + G_{t+1})",
    why="the first reward has exponent 0",
    effect="all returns are gamma times too small",
    lesson=CREDIT,
)
def returns_discount_the_own_reward(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    out, later = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        later = gamma * (rewards[:, t] + later)
        out[:, t] = later
    return out * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "rewards under the mask counted",
    computed="returns that include rewards of prompt and padding",
    why="only the completion's rewards belong to the completion",
    effect="whatever stands in the padding is credited to the last tokens",
    lesson=CREDIT,
)
def returns_count_padding(rewards, mask, gamma):
    out, later = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        later = rewards[:, t] + gamma * later
        out[:, t] = later
    return out * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "flows into the prompt",
    computed="returns at the prompt's positions too",
    why="the policy did not write the prompt: its positions have return 0",
    effect="a value function is trained on positions that are not its own",
    lesson=CREDIT,
)
def returns_flow_into_the_prompt(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    out, later = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        later = rewards[:, t] + gamma * later
        out[:, t] = later
    return out


@wrong(
    "reward_to_go",
    "whole return at every token",
    computed="the return of the first token at every token",
    why="rewards before a token are no consequence of it",
    effect="unbiased and noisy: exactly what reward-to-go removes",
    lesson=CREDIT,
)
def returns_are_constant(rewards, mask, gamma):
    mask = mask.to(rewards.dtype)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    total = (rewards * mask * torch.as_tensor(gamma, dtype=rewards.dtype) ** place).sum(1, keepdim=True)
    return total * mask


@wrong(
    "reward_to_go",
    "summed across rows",
    computed="the sweep over the batch instead of over time",
    why="time is the second dimension",
    effect="completions are paid for what their neighbours in the batch earned",
    lesson=CREDIT,
)
def returns_mix_rows(rewards, mask, gamma):
    rewards = rewards * mask.to(rewards.dtype)
    out, later = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for i in reversed(range(rewards.shape[0])):
        later = rewards[i] + gamma * later
        out[i] = later
    return out * mask.to(rewards.dtype)


@wrong(
    "reward_to_go",
    "divides by powers of gamma",
    computed="a cumulative sum divided by gamma^t: NaN at gamma = 0",
    why="the trick needs gamma > 0, and loses all digits when gamma^T is tiny",
    effect="NaN at gamma = 0, garbage on long completions",
    lesson=CREDIT,
)
def returns_divide_by_powers(rewards, mask, gamma):
    mask = mask.to(rewards.dtype)
    weights = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (rewards * mask * weights).flip(1).cumsum(1).flip(1) / weights * mask


# --- policy_gradient_loss ---------------------------------------------------------------------------------------------

TOKENS = "Tokens to one number"


def _terms(logprobs, advantages, mask):
    """What the mistakes below share with the right answer: -A logprob at each token, 0 under the mask."""
    advantages = advantages[:, None].expand_as(logprobs) if advantages.dim() == 1 else advantages
    mask = mask.to(logprobs.dtype)
    return -advantages.detach() * logprobs * mask, mask


def _aggregate(terms, mask, aggregate, max_length):
    if aggregate == "sequence_sum":
        return terms.sum(1).mean()
    if aggregate == "sequence_mean":
        return (terms.sum(1) / mask.sum(1).clamp(min=1)).mean()
    if aggregate == "token_mean":
        return terms.sum() / mask.sum().clamp(min=1)
    if aggregate == "constant" and max_length is not None:
        return terms.sum() / (len(terms) * max_length)
    raise ValueError(f"aggregate {aggregate!r}, max_length {max_length}")


@wrong(
    "policy_gradient_loss",
    "sign flipped",
    computed="plus advantage times log-prob",
    why="optimizers minimise; the loss needs the minus",
    effect="the reward falls steadily",
    lesson=TOKENS,
)
def policy_flips_the_sign(logprobs, advantages, mask, aggregate, max_length=None):
    return -_aggregate(*_terms(logprobs, advantages, mask), aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "advantages not detached",
    computed="a loss whose gradient also reaches the advantages",
    why="advantages are constants of the loss",
    effect="the critic is trained by the policy's loss",
    lesson=TOKENS,
)
def policy_trains_the_advantages(logprobs, advantages, mask, aggregate, max_length=None):
    a = advantages[:, None].expand_as(logprobs) if advantages.dim() == 1 else advantages
    mask = mask.to(logprobs.dtype)
    return _aggregate(-a * logprobs * mask, mask, aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "mask ignored",
    computed="terms of prompt and padding too",
    why="the policy did not choose those tokens",
    effect="the loss depends on the padding",
    lesson=TOKENS,
)
def policy_ignores_the_mask(logprobs, advantages, mask, aggregate, max_length=None):
    a = advantages[:, None].expand_as(logprobs) if advantages.dim() == 1 else advantages
    return _aggregate(-a.detach() * logprobs, mask.to(logprobs.dtype), aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "one rule for all",
    computed="the token mean whatever `aggregate` says",
    why="each name is another weight for a token",
    effect="the option that is configured has no effect",
    lesson=TOKENS,
)
def policy_always_takes_the_token_mean(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    _aggregate(terms, mask, aggregate, max_length)
    return terms.sum() / mask.sum().clamp(min=1)


@wrong(
    "policy_gradient_loss",
    "token mean and sequence mean swapped",
    computed="the mean of row means for token_mean, and the other way round",
    why="token_mean gives each token one vote, sequence_mean each row",
    effect="length bias where none was wanted",
    lesson=TOKENS,
)
def policy_swaps_the_means(logprobs, advantages, mask, aggregate, max_length=None):
    swap = {"token_mean": "sequence_mean", "sequence_mean": "token_mean"}
    return _aggregate(*_terms(logprobs, advantages, mask), swap.get(aggregate, aggregate), max_length)


@wrong(
    "policy_gradient_loss",
    "rows averaged over the padded length",
    computed="sequence_mean divides by T",
    why="a row's mean runs over its own tokens",
    effect="the gradient shrinks when one long completion widens the batch",
    lesson=TOKENS,
)
def policy_averages_over_padding(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    return terms.mean(1).mean() if aggregate == "sequence_mean" else _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "sequence_sum without the mean over rows",
    computed="the sum over everything",
    why="the estimate of an expectation is a mean over completions",
    effect="the gradient grows with the batch",
    lesson=TOKENS,
)
def policy_sums_the_batch(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    return terms.sum() if aggregate == "sequence_sum" else _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "constant without B",
    computed="the sum over everything divided by max_length only",
    why="Dr. GRPO divides by B times max_length",
    effect="the gradient grows with the batch",
    lesson=TOKENS,
)
def policy_constant_forgets_b(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    loss = _aggregate(terms, mask, aggregate, max_length)
    return loss * len(terms) if aggregate == "constant" else loss


@wrong(
    "policy_gradient_loss",
    "constant uses the batch's width",
    computed="the sum over everything divided by B times T",
    why="max_length is a constant of the run; T changes from batch to batch",
    effect="the step size depends on the longest answer of the batch",
    lesson=TOKENS,
)
def policy_constant_uses_the_width(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    _aggregate(terms, mask, aggregate, max_length)
    return terms.mean() if aggregate == "constant" else _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "per-token advantages averaged",
    computed="each row's mean advantage at all of its tokens",
    why="(B, T) advantages differ from token to token: that is their point",
    effect="credit for single tokens is lost",
    lesson=TOKENS,
)
def policy_averages_advantages(logprobs, advantages, mask, aggregate, max_length=None):
    m = mask.to(logprobs.dtype)
    if advantages.dim() == 2:
        advantages = (advantages * m).sum(1) / m.sum(1).clamp(min=1)
    return _aggregate(*_terms(logprobs, advantages, mask), aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "unknown rule taken for a sum",
    computed="the sum over everything for any name it does not know",
    why="a misspelt option must not train something else: ValueError",
    effect="a typo in a config file trains another algorithm",
    lesson=TOKENS,
)
def policy_accepts_any_rule(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    known = ("sequence_sum", "sequence_mean", "token_mean", "constant")
    return _aggregate(terms, mask, aggregate, max_length) if aggregate in known else terms.sum()


@wrong(
    "policy_gradient_loss",
    "max_length guessed",
    computed="constant without max_length falls back to the batch's width",
    why="the constant must be chosen, not guessed: ValueError",
    effect="the normalisation silently changes from batch to batch",
    lesson=TOKENS,
)
def policy_guesses_max_length(logprobs, advantages, mask, aggregate, max_length=None):
    return _aggregate(*_terms(logprobs, advantages, mask), aggregate, max_length or logprobs.shape[1])


@wrong(
    "policy_gradient_loss",
    "sign flipped and mask ignored",
    computed="plus advantage times log-prob over all positions",
    why="a minus is missing, and padding is not part of the completion",
    effect="the reward falls, and the loss depends on the padding",
    lesson=TOKENS,
)
def policy_flips_and_ignores(logprobs, advantages, mask, aggregate, max_length=None):
    a = advantages[:, None].expand_as(logprobs) if advantages.dim() == 1 else advantages
    return _aggregate(a.detach() * logprobs, mask.to(logprobs.dtype), aggregate, max_length)


@wrong(
    "policy_gradient_loss",
    "empty rows are NaN",
    computed="0/0 in a row without tokens",
    why="a row with an empty mask counts as a row with sum 0",
    effect="one truncated completion poisons the batch",
    lesson=TOKENS,
    star=True,
)
def policy_divides_by_zero(logprobs, advantages, mask, aggregate, max_length=None):
    terms, mask = _terms(logprobs, advantages, mask)
    if aggregate == "sequence_mean":
        return (terms.sum(1) / mask.sum(1)).mean()
    return _aggregate(terms, mask, aggregate, max_length)

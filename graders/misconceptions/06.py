"""Week 06, wrong: what learners' PPO and GRPO compute instead."""

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong

# --- gae --------------------------------------------------------------------------------------------------------------

CREDIT = "Credit with a critic"


def _sweep(rewards, values, next_values, decay, gamma):
    """The recursion that the mistakes below share with the right answer: A_t = delta_t + decay A_{t+1}."""
    deltas = rewards + gamma * next_values - values
    out, later = torch.zeros_like(deltas), torch.zeros_like(deltas[:, 0])
    for t in reversed(range(deltas.shape[1])):
        later = deltas[:, t] + decay * later
        out[:, t] = later
    return out


def _next(values):
    return F.pad(values[:, 1:], (0, 1))


@wrong(
    "gae",
    "bootstraps from padding",
    computed="the critic's value of the first padded position behind the last token",
    why="after the last token the episode is over: V = 0 there",
    effect="short answers are credited with whatever the critic says about padding",
    lesson=CREDIT,
)
def gae_bootstraps(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    deltas = (rewards + gamma * _next(values) - values) * m
    advantages = _sweep(deltas, torch.zeros_like(deltas), torch.zeros_like(deltas), gamma * lam, gamma) * m
    return advantages, (advantages + values) * m


@wrong(
    "gae",
    "mask ignored",
    computed="the recursion over padding and prompt as well",
    why="only the completion's tokens were chosen by the policy",
    effect="surprises in the padding flow into the last tokens",
    lesson=CREDIT,
)
def gae_ignores_the_mask(rewards, values, mask, gamma, lam):
    advantages = _sweep(rewards, values, _next(values), gamma * lam, gamma)
    return advantages, advantages + values


@wrong(
    "gae",
    "masked only at the end",
    computed="the recursion over everything, then zeros under the mask",
    why="by then the padding's surprises have reached the last tokens",
    effect="advantages depend on how far the batch is padded",
    lesson=CREDIT,
)
def gae_masks_last(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards, values, _next(values), gamma * lam, gamma)
    return advantages * m, (advantages + values) * m


@wrong(
    "gae",
    "reward minus value",
    computed="r_t - V_t at each token, without the value and advantage of what follows",
    why="what a token leads to is its credit; the reward comes at the last token",
    effect="only the last token learns",
    lesson=CREDIT,
)
def gae_of_rewards(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = (rewards - values) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "gamma forgotten in the recursion",
    computed="A_t = delta_t + lam A_{t+1}",
    why="the sum of later surprises decays with (gamma lam)^k",
    effect="far surprises count too much as soon as gamma is below 1",
    lesson=CREDIT,
)
def gae_decays_by_lam(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), lam, gamma) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "lam forgotten",
    computed="A_t = delta_t + gamma A_{t+1}: always lam = 1",
    why="lam trades the critic's bias against the return's noise",
    effect="the option has no effect; the noise is that of the whole return",
    lesson=CREDIT,
)
def gae_without_lam(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma, gamma) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "gamma forgotten in delta",
    computed="delta_t = r_t + V_{t+1} - V_t",
    why="the next value is worth gamma of itself now",
    effect="the critic's targets are those of gamma = 1",
    lesson=CREDIT,
)
def gae_undiscounted_delta(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma * lam, 1.0) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "returns are the discounted rewards",
    computed="reward-to-go where advantages + values belongs",
    why="the critic's targets follow lam as the advantages do: R = A + V",
    effect="advantages and targets belong to two different lam",
    lesson=CREDIT,
)
def gae_with_monte_carlo_returns(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma * lam, gamma) * m
    zeros = torch.zeros_like(values)
    return advantages, _sweep(rewards * m, zeros, zeros, gamma, gamma) * m


@wrong(
    "gae",
    "whitened before the returns",
    computed="advantages of mean 0 and variance 1, and returns built from them",
    why="whitening is a step of its own, and the critic must learn the real returns",
    effect="the critic's targets are off by a scale that changes from batch to batch",
    lesson=CREDIT,
)
def gae_whitens(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma * lam, gamma)
    kept = advantages[mask.bool()]
    advantages = (advantages - kept.mean()) / (kept.std(unbiased=False) + 1e-8) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "flows into the prompt",
    computed="advantages and returns at the prompt's positions too",
    why="the policy did not write the prompt: both are 0 there",
    effect="critic and policy are trained on positions that are not their own",
    lesson=CREDIT,
)
def gae_flows_into_the_prompt(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma * lam, gamma)
    return advantages, advantages + values * m


@wrong(
    "gae",
    "swept from the left",
    computed="A_t = delta_t + gamma lam A_{t-1}",
    why="a token is credited with what comes after it",
    effect="late tokens are praised for early ones",
    lesson=CREDIT,
)
def gae_from_the_left(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    deltas = (rewards + gamma * _next(values * m) - values) * m
    zeros = torch.zeros_like(values)
    advantages = _sweep(deltas.flip(1), zeros, zeros, gamma * lam, gamma).flip(1) * m
    return advantages, advantages + values * m


@wrong(
    "gae",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN, and the recursion carries it to the left",
    effect="one padded position poisons its whole row",
    lesson=CREDIT,
    star=True,
)
def gae_multiplies_by_the_mask(rewards, values, mask, gamma, lam):
    m = mask.to(values.dtype)
    advantages = _sweep(rewards * m, values * m, _next(values * m), gamma * lam, gamma) * m
    return advantages, advantages + values * m


# --- ppo_clip_loss ----------------------------------------------------------------------------------------------------

CLIP = "The clip"


def _aggregate(terms, mask, aggregate, max_length=None):
    m = mask.to(terms.dtype)
    terms = terms * m
    if aggregate == "sequence_sum":
        return terms.sum(1).mean()
    if aggregate == "sequence_mean":
        return (terms.sum(1) / m.sum(1).clamp(min=1)).mean()
    if aggregate == "token_mean":
        return terms.sum() / m.sum().clamp(min=1)
    if aggregate == "constant" and max_length is not None:
        return terms.sum() / (len(terms) * max_length)
    raise ValueError(f"aggregate {aggregate!r}, max_length {max_length}")


def _spread(advantages, logprobs):
    return (advantages[:, None].expand_as(logprobs) if advantages.dim() == 1 else advantages).detach()


def _surrogate(ratio, a, low, high):
    return -torch.min(ratio * a, ratio.clamp(1 - low, 1 + high) * a)


@wrong(
    "ppo_clip_loss",
    "minimum before the advantage",
    computed="min(rho, clip(rho)) times A",
    why="with A < 0 that is the larger of the two surrogates: pessimism turned into optimism",
    effect="a bad token that became likelier is not corrected, one that became rare is pushed without end",
    lesson=CLIP,
)
def ppo_takes_the_minimum_first(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp()
    terms = -torch.min(ratio, ratio.clamp(1 - clip_low, 1 + clip_high)) * _spread(advantages, logprobs)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "maximum of the surrogates",
    computed="max(rho A, clip(rho) A)",
    why="the objective is the pessimistic one of the two; as losses, -rho A and -clip(rho) A, it is the maximum",
    effect="the clip holds back corrections and lets the excess go",
    lesson=CLIP,
)
def ppo_takes_the_maximum(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs.detach()).exp(), _spread(advantages, logprobs)
    terms = -torch.max(ratio * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "clip missing",
    computed="-rho A, importance sampling without a bound",
    why="far from the old policy rho A promises more than it can keep",
    effect="one lucky token may become a thousand times likelier in one rollout",
    lesson=CLIP,
)
def ppo_without_the_clip(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp()
    return _aggregate(-ratio * _spread(advantages, logprobs), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "only the clipped branch",
    computed="-clip(rho) A without the minimum",
    why="clipped in all four corners, a token that went the wrong way gets no gradient to come back",
    effect="harm done by momentum or by other tokens is never undone",
    lesson=CLIP,
)
def ppo_clips_everywhere(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp().clamp(1 - clip_low, 1 + clip_high)
    return _aggregate(-ratio * _spread(advantages, logprobs), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "sign flipped",
    computed="plus the surrogate",
    why="optimizers minimise; the surrogate is to be maximised",
    effect="the reward falls steadily",
    lesson=CLIP,
)
def ppo_flips_the_sign(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs.detach()).exp(), _spread(advantages, logprobs)
    return -_aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "ratio upside down",
    computed="exp(old_logprobs - logprobs)",
    why="rho is the new probability over the old one",
    effect="good tokens are made less likely",
    lesson=CLIP,
)
def ppo_inverts_the_ratio(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (old_logprobs.detach() - logprobs).exp(), _spread(advantages, logprobs)
    return _aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "ratio of log-probs",
    computed="logprobs / old_logprobs",
    why="the ratio is one of probabilities: exp of the difference of logs",
    effect="the clip acts on a meaningless number, and the gradient has the wrong sign",
    lesson=CLIP,
)
def ppo_divides_logprobs(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = logprobs / torch.where(mask.bool(), old_logprobs.detach(), -1), _spread(advantages, logprobs)
    return _aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "one bound for both sides",
    computed="clip(rho, 1 - clip_low, 1 + clip_low)",
    why="DAPO raises the upper bound alone, for rare tokens to become likelier",
    effect="clip_high has no effect",
    lesson=CLIP,
)
def ppo_clips_symmetrically(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs.detach()).exp(), _spread(advantages, logprobs)
    return _aggregate(_surrogate(ratio, a, clip_low, clip_low), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "clips the log-ratio",
    computed="exp(clip(log rho, -clip_low, clip_high))",
    why="the range 1 - low to 1 + high is one of ratios; exp(0.2) is 1.22",
    effect="the bounds are a little off, more so the wider they are",
    lesson=CLIP,
)
def ppo_clips_the_log_ratio(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    log_ratio, a = logprobs - old_logprobs.detach(), _spread(advantages, logprobs)
    terms = -torch.min(log_ratio.exp() * a, log_ratio.clamp(-clip_low, clip_high).exp() * a)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "old log-probs not detached",
    computed="a loss whose gradient also reaches the old log-probs",
    why="the old policy is where the samples came from: a constant",
    effect="if both come from one model the gradient cancels, and nothing is learned",
    lesson=CLIP,
)
def ppo_trains_the_old_policy(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs).exp(), _spread(advantages, logprobs)
    return _aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "advantages not detached",
    computed="a loss whose gradient also reaches the advantages",
    why="advantages are constants of the loss",
    effect="the critic is trained to make the policy's loss small",
    lesson=CLIP,
)
def ppo_trains_the_critic(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp()
    a = advantages[:, None] if advantages.dim() == 1 else advantages
    return _aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "mask ignored",
    computed="the mean over padding and prompt too",
    why="the policy did not choose those tokens",
    effect="the loss depends on the padding",
    lesson=CLIP,
)
def ppo_ignores_the_mask(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs.detach()).exp(), _spread(advantages, logprobs)
    terms = _surrogate(ratio, a, clip_low, clip_high)
    return _aggregate(terms, torch.ones_like(logprobs), aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "one rule for all",
    computed="the token mean whatever `aggregate` says",
    why="each name is another weight for a token",
    effect="the option that is configured has no effect",
    lesson=CLIP,
)
def ppo_always_takes_the_token_mean(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = (logprobs - old_logprobs.detach()).exp(), _spread(advantages, logprobs)
    terms = _surrogate(ratio, a, clip_low, clip_high)
    _aggregate(terms, mask, aggregate, max_length)
    return _aggregate(terms, mask, "token_mean")


@wrong(
    "ppo_clip_loss",
    "clip missing and sign flipped",
    computed="plus rho A, without a bound",
    why="the surrogate is to be maximised, and bounded",
    effect="the reward falls, fast",
    lesson=CLIP,
)
def ppo_flips_without_the_clip(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio = (logprobs - old_logprobs.detach()).exp()
    return _aggregate(ratio * _spread(advantages, logprobs), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "ratio overflows",
    computed="NaN in the gradient where exp(logprob - old) is infinite",
    why="the minimum throws that branch away, but sends 0 times infinity back through exp",
    effect="one stale token poisons the whole step",
    lesson=CLIP,
    star=True,
)
def ppo_overflows(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    log_ratio = torch.where(mask.bool(), logprobs - old_logprobs.detach(), 0)
    a = torch.where(mask.bool(), _spread(advantages, logprobs), 0)
    return _aggregate(_surrogate(log_ratio.exp(), a, clip_low, clip_high), mask, aggregate, max_length)


@wrong(
    "ppo_clip_loss",
    "quotient of probabilities",
    computed="exp(logprob) / exp(old): 0/0 for unlikely tokens",
    why="both probabilities underflow long before their ratio does",
    effect="NaN at the first token that is unlikely under both policies",
    lesson=CLIP,
    star=True,
)
def ppo_divides_probabilities(
    logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate="token_mean", max_length=None
):
    ratio, a = logprobs.exp() / old_logprobs.detach().exp(), _spread(advantages, logprobs)
    ratio = torch.where(mask.bool(), ratio, 1)
    return _aggregate(_surrogate(ratio, a, clip_low, clip_high), mask, aggregate, max_length)


# --- value_clip_loss --------------------------------------------------------------------------------------------------

CRITIC = "The critic"


def _token_mean(terms, mask):
    return _aggregate(terms, mask, "token_mean")


def _errors(values, old_values, returns, clip):
    clipped = values.clamp(old_values.detach() - clip, old_values.detach() + clip)
    return (values - returns.detach()) ** 2, (clipped - returns.detach()) ** 2


@wrong(
    "value_clip_loss",
    "minimum of the errors",
    computed="half the smaller of the two squared errors",
    why="the pessimist keeps the larger error; the smaller one rewards large steps",
    effect="the critic moves without a bound, and stands still where it should correct itself",
    lesson=CRITIC,
)
def value_takes_the_minimum(values, old_values, returns, mask, clip=0.2):
    return _token_mean(0.5 * torch.min(*_errors(values, old_values, returns, clip)), mask)


@wrong(
    "value_clip_loss",
    "half forgotten",
    computed="the squared error, twice the loss",
    why="the loss is 1/2 (v - R)^2, whose gradient is the error itself",
    effect="the critic's learning rate is doubled",
    lesson=CRITIC,
)
def value_forgets_the_half(values, old_values, returns, mask, clip=0.2):
    return _token_mean(torch.max(*_errors(values, old_values, returns, clip)), mask)


@wrong(
    "value_clip_loss",
    "clip missing",
    computed="the plain squared error",
    why="within one rollout a value may move by `clip` towards its return and no further",
    effect="the option has no effect",
    lesson=CRITIC,
)
def value_without_the_clip(values, old_values, returns, mask, clip=0.2):
    return _token_mean(0.5 * (values - returns.detach()) ** 2, mask)


@wrong(
    "value_clip_loss",
    "only the clipped error",
    computed="the error of the clipped value",
    why="a value that moved away from its return then costs a constant and cannot come back",
    effect="wrong values freeze",
    lesson=CRITIC,
)
def value_only_clipped(values, old_values, returns, mask, clip=0.2):
    return _token_mean(0.5 * _errors(values, old_values, returns, clip)[1], mask)


@wrong(
    "value_clip_loss",
    "clip as a ratio",
    computed="values clipped to old times 1 - clip to old times 1 + clip",
    why="values are no probabilities; the range is old_values plus or minus clip",
    effect="values near 0 cannot move, negative ones have an empty range",
    lesson=CRITIC,
)
def value_clips_the_ratio(values, old_values, returns, mask, clip=0.2):
    old = old_values.detach()
    clipped = torch.max(torch.min(values, old * (1 + clip)), old * (1 - clip))
    errors = torch.max((values - returns.detach()) ** 2, (clipped - returns.detach()) ** 2)
    return _token_mean(0.5 * errors, mask)


@wrong(
    "value_clip_loss",
    "clipped around zero",
    computed="values clipped to plus or minus clip",
    why="the range lies around the old value",
    effect="the critic is pulled towards returns near 0",
    lesson=CRITIC,
)
def value_clips_around_zero(values, old_values, returns, mask, clip=0.2):
    errors = _errors(values, torch.zeros_like(old_values), returns, clip)
    return _token_mean(0.5 * torch.max(*errors), mask)


@wrong(
    "value_clip_loss",
    "mean of row means",
    computed="each row's mean, averaged over rows",
    why="every token of the batch is one regression target: a token mean",
    effect="tokens of short completions weigh more",
    lesson=CRITIC,
)
def value_averages_rows(values, old_values, returns, mask, clip=0.2):
    errors = torch.max(*_errors(values, old_values, returns, clip))
    return _aggregate(0.5 * errors, mask, "sequence_mean")


@wrong(
    "value_clip_loss",
    "mask ignored",
    computed="errors at prompt and padding too",
    why="there is nothing to predict there",
    effect="the critic learns padding; the loss depends on the batch's width",
    lesson=CRITIC,
)
def value_ignores_the_mask(values, old_values, returns, mask, clip=0.2):
    return 0.5 * torch.max(*_errors(values, old_values, returns, clip)).mean()


@wrong(
    "value_clip_loss",
    "returns not detached",
    computed="a loss whose gradient also reaches the returns",
    why="returns are targets: constants",
    effect="targets move towards the prediction when they were computed with a graph",
    lesson=CRITIC,
)
def value_trains_the_returns(values, old_values, returns, mask, clip=0.2):
    clipped = values.clamp(old_values.detach() - clip, old_values.detach() + clip)
    return _token_mean(0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2), mask)


@wrong(
    "value_clip_loss",
    "half forgotten and minimum taken",
    computed="the smaller squared error, without the half",
    why="the pessimist keeps the larger error, and its half",
    effect="the critic moves twice as fast and without a bound",
    lesson=CRITIC,
)
def value_forgets_and_minimises(values, old_values, returns, mask, clip=0.2):
    return _token_mean(torch.min(*_errors(values, old_values, returns, clip)), mask)


@wrong(
    "value_clip_loss",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded position poisons the whole step",
    lesson=CRITIC,
    star=True,
)
def value_multiplies_by_the_mask(values, old_values, returns, mask, clip=0.2):
    return _token_mean(0.5 * torch.max(*_errors(values, old_values, returns, clip)), mask)


# --- grpo_advantages --------------------------------------------------------------------------------------------------

GROUP = "A group instead of a critic"


def _std(rewards, unbiased=True):
    if rewards.shape[1] == 1:
        return torch.zeros_like(rewards)
    return rewards.std(1, keepdim=True, unbiased=unbiased)


@wrong(
    "grpo_advantages",
    "population std",
    computed="the std with divisor G",
    why="the course follows the unbiased std, divisor G - 1, as GRPO's implementations do",
    effect="advantages are larger by the root of G / (G - 1): 1.41 at G = 2",
    lesson=GROUP,
)
def grpo_population_std(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / (_std(rewards, unbiased=False) + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "statistics of the whole batch",
    computed="mean and std over all prompts",
    why="each prompt is compared with its own completions",
    effect="easy prompts are always positive, hard ones always negative",
    lesson=GROUP,
)
def grpo_of_the_batch(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean()
    std = rewards.std() if rewards.numel() > 1 else 0.0
    return a / (std + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "groups along the wrong axis",
    computed="mean and std over the prompts, column by column",
    why="a row is a group; a column mixes prompts",
    effect="advantages are noise",
    lesson=GROUP,
)
def grpo_along_the_prompts(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(0, keepdim=True)
    std = rewards.std(0, keepdim=True) if len(rewards) > 1 else 0.0
    return a / (std + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "divided by the variance",
    computed="(r - mean) / (variance + eps)",
    why="the std has the unit of the reward; the variance has its square",
    effect="scaling rewards by 10 scales advantages by 1/10",
    lesson=GROUP,
)
def grpo_divides_by_variance(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / (_std(rewards) ** 2 + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "eps under the root",
    computed="sqrt(variance + eps)",
    why="eps is added to the std; its size means another thing under the root",
    effect="the same number in a config shrinks small spreads a hundred times more",
    lesson=GROUP,
)
def grpo_eps_under_the_root(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / (_std(rewards) ** 2 + eps).sqrt() if normalize_std else a


@wrong(
    "grpo_advantages",
    "eps as a floor",
    computed="max(std, eps)",
    why="eps is added, so that small spreads fade out without a jump",
    effect="differs wherever eps is not tiny",
    lesson=GROUP,
)
def grpo_eps_as_a_floor(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / _std(rewards).clamp(min=eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "divides without being asked",
    computed="(r - mean) / (1 + eps) when normalize_std is off",
    why="Dr. GRPO is r - mean and nothing else",
    effect="a small bias that grows with eps",
    lesson=GROUP,
)
def grpo_divides_anyway(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / ((_std(rewards) if normalize_std else 1.0) + eps)


@wrong(
    "grpo_advantages",
    "normalize_std ignored",
    computed="always the standardised reward",
    why="without normalize_std the advantage is r - mean",
    effect="Dr. GRPO is configured and GRPO is trained",
    lesson=GROUP,
)
def grpo_always_standardises(rewards, normalize_std=True, eps=1e-4):
    return (rewards - rewards.mean(1, keepdim=True)) / (_std(rewards) + eps)


@wrong(
    "grpo_advantages",
    "a group of one is NaN",
    computed="0 / NaN: the unbiased std of one number is 0 / 0",
    why="a group of one has nothing to compare with: advantage 0",
    effect="one such prompt poisons the batch",
    lesson=GROUP,
)
def grpo_of_one_is_nan(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    std = rewards.std(1, keepdim=True) if rewards.shape[1] > 1 else torch.nan  # as torch answers, without its warning
    return a / (std + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "leave-one-out mean",
    computed="r minus the mean of the others, over the std: RLOO's baseline",
    why="GRPO subtracts the mean of the whole group",
    effect="advantages are larger by G / (G - 1)",
    lesson=GROUP,
)
def grpo_leaves_one_out(rewards, normalize_std=True, eps=1e-4):
    g = max(rewards.shape[1], 2)
    a = (rewards - rewards.mean(1, keepdim=True)) * g / (g - 1)
    return a / (_std(rewards) + eps) if normalize_std else a


@wrong(
    "grpo_advantages",
    "population std, eps under the root",
    computed="sqrt(mean squared distance + eps) as the std",
    why="the std is the unbiased one, and eps stands outside the root",
    effect="advantages are larger by the root of G / (G - 1), and eps works otherwise",
    lesson=GROUP,
)
def grpo_population_and_root(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / (a.square().mean(1, keepdim=True) + eps).sqrt() if normalize_std else a


@wrong(
    "grpo_advantages",
    "rounding noise of equal rewards",
    computed="(r - mean) / (std + eps) of equal rewards whose mean is off in the last digit",
    why="the mean of seven 0.7 is not 0.7 in float32, and 1 / eps makes the rest visible",
    effect="groups without any signal pull the policy about",
    lesson=GROUP,
    star=True,
)
def grpo_keeps_noise(rewards, normalize_std=True, eps=1e-4):
    a = rewards - rewards.mean(1, keepdim=True)
    return a / (_std(rewards) + eps) if normalize_std else a


# --- grpo_loss --------------------------------------------------------------------------------------------------------

LOSS = "The GRPO loss"


def _grpo(logprobs, old, advantages, low, high, penalty):
    """Token losses: the right surrogate plus some penalty (B, T)."""
    ratio = (logprobs - old.detach()).exp()
    return _surrogate(ratio, _spread(advantages, logprobs), low, high) + penalty


def _k3(logprobs, ref):
    d = logprobs - ref.detach()
    return torch.expm1(-d) + d


@wrong(
    "grpo_loss",
    "k3 the wrong way round",
    computed="exp(d) - 1 - d with d = logprobs - ref_logprobs",
    why="the samples come from pi, so the weight inside k3 is ref / pi",
    effect="another trust region: its value is not KL(pi || ref)",
    lesson=LOSS,
)
def grpo_swaps_k3(
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
    d = logprobs - ref_logprobs.detach() if beta else None
    penalty = beta * (torch.expm1(d) - d) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "k1 as the penalty",
    computed="beta times logprobs - ref_logprobs",
    why="its gradient is beta times the gradient of logprob, whose expectation is 0",
    effect="the KL is logged and nothing holds the policy back",
    lesson=LOSS,
)
def grpo_penalises_k1(
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
    penalty = beta * (logprobs - ref_logprobs.detach()) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "penalty subtracted",
    computed="surrogate loss minus beta k3",
    why="the loss is minimised: a penalty is added",
    effect="the policy is paid for leaving the reference",
    lesson=LOSS,
)
def grpo_subtracts_the_penalty(
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
    penalty = -beta * _k3(logprobs, ref_logprobs) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "KL to the old policy",
    computed="k3 between logprobs and old_logprobs",
    why="the penalty holds the policy near the reference, over the whole run; the clip deals with the old policy",
    effect="the policy drifts from the reference without a brake",
    lesson=LOSS,
)
def grpo_penalises_the_old_policy(
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
    penalty = beta * _k3(logprobs, old_logprobs)
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "penalty forgotten",
    computed="the clipped surrogate alone",
    why="beta times k3 belongs to the loss",
    effect="beta has no effect",
    lesson=LOSS,
)
def grpo_forgets_the_penalty(
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
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, 0.0)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "penalty always a token mean",
    computed="the surrogate by `aggregate`, the penalty averaged over all tokens",
    why="both terms are token losses and share one rule",
    effect="the weight of the penalty depends on the lengths in the batch",
    lesson=LOSS,
)
def grpo_aggregates_apart(
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
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, 0.0)
    loss = _aggregate(terms, mask, aggregate, max_length)
    return loss + beta * _token_mean(_k3(logprobs, ref_logprobs), mask) if beta else loss


@wrong(
    "grpo_loss",
    "penalty detached",
    computed="the right number, the penalty without a gradient",
    why="a penalty that is a constant pulls nowhere",
    effect="the KL is in the logged loss and does nothing",
    lesson=LOSS,
)
def grpo_detaches_the_penalty(
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
    penalty = beta * _k3(logprobs, ref_logprobs).detach() if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "reference not detached",
    computed="a loss whose gradient also reaches the reference's log-probs",
    why="the reference is frozen",
    effect="the reference follows the policy, and the brake is gone",
    lesson=LOSS,
)
def grpo_trains_the_reference(
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
    d = logprobs - ref_logprobs if beta else None
    penalty = beta * (torch.expm1(-d) + d) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "token mean by default",
    computed="the mean over all tokens of the batch unless told otherwise",
    why="GRPO averages each completion's tokens, then completions; the token mean is DAPO's",
    effect="long completions weigh more than GRPO gives them",
    lesson=LOSS,
)
def grpo_defaults_to_the_token_mean(
    logprobs,
    old_logprobs,
    ref_logprobs,
    advantages,
    mask,
    clip_low=0.2,
    clip_high=0.2,
    beta=0.0,
    aggregate="token_mean",
    max_length=None,
):
    penalty = beta * _k3(logprobs, ref_logprobs) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "penalty times the advantage",
    computed="the surrogate of A - beta k3",
    why="the penalty stands beside the surrogate, not inside the advantage",
    effect="the clip silences the penalty where it is needed most",
    lesson=LOSS,
)
def grpo_shapes_the_advantage(
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
    a = _spread(advantages, logprobs)
    a = a - beta * _k3(logprobs, ref_logprobs).detach() if beta else a
    terms = _surrogate((logprobs - old_logprobs.detach()).exp(), a, clip_low, clip_high)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "k3 the wrong way round and subtracted",
    computed="minus beta times exp(d) - 1 - d",
    why="the weight inside k3 is ref / pi, and a penalty is added",
    effect="the policy is paid for leaving the reference",
    lesson=LOSS,
)
def grpo_swaps_and_subtracts(
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
    d = logprobs - ref_logprobs.detach() if beta else None
    penalty = -beta * (torch.expm1(d) - d) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


@wrong(
    "grpo_loss",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded position poisons the whole step",
    lesson=LOSS,
    star=True,
)
def grpo_multiplies_by_the_mask(
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
    penalty = beta * _k3(logprobs, ref_logprobs) if beta else 0.0
    terms = _grpo(logprobs, old_logprobs, advantages, clip_low, clip_high, penalty)
    return _aggregate(terms, mask, aggregate, max_length)


# --- gspo_loss --------------------------------------------------------------------------------------------------------

SEQUENCE = "Whole sequences: GSPO"


def _log_ratio(logprobs, old_logprobs, mask):
    return (logprobs - old_logprobs.detach()) * mask.to(logprobs.dtype)


@wrong(
    "gspo_loss",
    "no length normalisation",
    computed="s = exp(sum of the log-ratios)",
    why="s is the geometric mean of the token ratios: divide by the length",
    effect="long completions are always outside the tiny bounds",
    lesson=SEQUENCE,
)
def gspo_sums(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = _log_ratio(logprobs, old_logprobs, mask).sum(1).clamp(max=50).exp()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "mean over the padded length",
    computed="the sum of log-ratios divided by T",
    why="the mean is over the completion's own tokens",
    effect="s moves towards 1 when one long completion widens the batch",
    lesson=SEQUENCE,
)
def gspo_averages_padding(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = _log_ratio(logprobs, old_logprobs, mask).mean(1).exp()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "arithmetic mean of ratios",
    computed="the mean of the token ratios",
    why="probabilities multiply: the mean is taken of the logs, before exp",
    effect="one token with a large ratio decides for the whole completion",
    lesson=SEQUENCE,
)
def gspo_averages_ratios(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    m = mask.to(logprobs.dtype)
    s = (_log_ratio(logprobs, old_logprobs, mask).exp() * m).sum(1) / m.sum(1)
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "clipped token by token",
    computed="PPO's surrogate on each token's own ratio, averaged over each row",
    why="GSPO keeps or clips a completion as a whole",
    effect="it is GRPO with bounds a thousand times too tight",
    lesson=SEQUENCE,
)
def gspo_clips_tokens(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    ratio = _log_ratio(logprobs, old_logprobs, mask).exp()
    terms = _surrogate(ratio, _spread(advantages, logprobs), clip_low, clip_high)
    return _aggregate(terms, mask, "sequence_mean")


@wrong(
    "gspo_loss",
    "PPO's bounds by default",
    computed="bounds of 0.2 unless told otherwise",
    why="an average of hundreds of log-ratios moves little: at 0.2 it is never clipped",
    effect="the clip hardly ever binds",
    lesson=SEQUENCE,
)
def gspo_with_wide_bounds(logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.2):
    s = (_log_ratio(logprobs, old_logprobs, mask).sum(1) / mask.to(logprobs.dtype).sum(1)).exp()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "sign flipped",
    computed="plus the surrogate",
    why="optimizers minimise; the surrogate is to be maximised",
    effect="the reward falls steadily",
    lesson=SEQUENCE,
)
def gspo_flips_the_sign(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = (_log_ratio(logprobs, old_logprobs, mask).sum(1) / mask.to(logprobs.dtype).sum(1)).exp()
    return -_surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "minimum before the advantage",
    computed="min(s, clip(s)) times A",
    why="with A < 0 that is the larger of the two surrogates",
    effect="bad completions that became likelier are not corrected",
    lesson=SEQUENCE,
)
def gspo_takes_the_minimum_first(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = (_log_ratio(logprobs, old_logprobs, mask).sum(1) / mask.to(logprobs.dtype).sum(1)).exp()
    return -(torch.min(s, s.clamp(1 - clip_low, 1 + clip_high)) * advantages.detach()).mean()


@wrong(
    "gspo_loss",
    "sum over the batch",
    computed="the sum over completions",
    why="the mean over rows estimates the expectation",
    effect="the gradient grows with the batch",
    lesson=SEQUENCE,
)
def gspo_sums_the_batch(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = (_log_ratio(logprobs, old_logprobs, mask).sum(1) / mask.to(logprobs.dtype).sum(1)).exp()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).sum()


@wrong(
    "gspo_loss",
    "ratio detached",
    computed="the right number without a gradient",
    why="s is what the gradient flows through",
    effect="the loss is logged and the model never moves",
    lesson=SEQUENCE,
)
def gspo_detaches_the_ratio(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = (_log_ratio(logprobs, old_logprobs, mask).sum(1) / mask.to(logprobs.dtype).sum(1)).exp().detach()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean() + 0 * logprobs.sum()


@wrong(
    "gspo_loss",
    "padded length and flipped sign",
    computed="plus the surrogate of exp(sum of log-ratios over T)",
    why="the mean is over the completion's own tokens, and the surrogate is maximised",
    effect="the reward falls, at a rate that depends on the padding",
    lesson=SEQUENCE,
)
def gspo_averages_padding_and_flips(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    s = _log_ratio(logprobs, old_logprobs, mask).mean(1).exp()
    return -_surrogate(s, advantages.detach(), clip_low, clip_high).mean()


@wrong(
    "gspo_loss",
    "empty rows count",
    computed="-A for a row without tokens, whose ratio is exp(0) = 1",
    why="a completion without tokens has no probability to change: it contributes 0",
    effect="the logged loss is off by the advantages of truncated completions",
    lesson=SEQUENCE,
    star=True,
)
def gspo_counts_empty_rows(logprobs, old_logprobs, advantages, mask, clip_low=3e-4, clip_high=4e-4):
    log_ratio = torch.where(mask.bool(), logprobs - old_logprobs.detach(), 0)
    s = (log_ratio.sum(1) / mask.bool().sum(1).clamp(min=1)).exp()
    return _surrogate(s, advantages.detach(), clip_low, clip_high).mean()


# --- cispo_loss -------------------------------------------------------------------------------------------------------

WEIGHT = "No token left out: CISPO"


def _weight(logprobs, old_logprobs, low, high):
    return (logprobs - old_logprobs).exp().clamp(1 - low, 1 + high).detach()


@wrong(
    "cispo_loss",
    "weight not detached",
    computed="a gradient through the clipped ratio as well",
    why="the weight corrects for stale samples: a constant; what is trained is the log-prob",
    effect="the score is counted twice, the second time times the log-prob",
    lesson=WEIGHT,
)
def cispo_trains_the_weight(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = (logprobs - old_logprobs.detach()).exp().clamp(1 - clip_low, 1 + clip_high)
    return _token_mean(-w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "weight missing",
    computed="-A logprob, REINFORCE",
    why="the samples come from the old policy: each token is weighted with its ratio",
    effect="a bias that grows with every step on the same rollout",
    lesson=WEIGHT,
)
def cispo_without_the_weight(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    return _token_mean(-_spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "weight not clipped",
    computed="the full ratio as a weight",
    why="without a bound a few stale tokens carry the whole gradient",
    effect="unbiased, and of huge variance",
    lesson=WEIGHT,
)
def cispo_without_the_clip(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = (logprobs - old_logprobs).exp().detach()
    return _token_mean(-w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "clipped above only",
    computed="min(rho, 1 + clip_high), whatever clip_low says",
    why="clip_low is an argument: below 1 it holds small weights up",
    effect="clip_low has no effect",
    lesson=WEIGHT,
)
def cispo_clips_above_only(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = (logprobs - old_logprobs).exp().clamp(max=1 + clip_high).detach()
    return _token_mean(-w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "upper bound without the 1",
    computed="clip(rho, 1 - clip_low, clip_high)",
    why="the bounds are distances from 1, as in PPO",
    effect="weights above clip_high are cut: 4 in place of 5",
    lesson=WEIGHT,
)
def cispo_forgets_the_one(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = torch.minimum((logprobs - old_logprobs).exp().clamp(min=1 - clip_low), torch.tensor(clip_high)).detach()
    return _token_mean(-w.to(logprobs.dtype) * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "PPO's surrogate",
    computed="-min(rho A, clip(rho) A) with CISPO's bounds",
    why="CISPO clips the weight and keeps every token's gradient",
    effect="tokens beyond the bounds are silenced again",
    lesson=WEIGHT,
)
def cispo_is_ppo(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    ratio = (logprobs - old_logprobs.detach()).exp()
    return _token_mean(_surrogate(ratio, _spread(advantages, logprobs), clip_low, clip_high), mask)


@wrong(
    "cispo_loss",
    "sign flipped",
    computed="plus weight times advantage times log-prob",
    why="optimizers minimise; the loss needs the minus",
    effect="the reward falls steadily",
    lesson=WEIGHT,
)
def cispo_flips_the_sign(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = _weight(logprobs, old_logprobs, clip_low, clip_high)
    return _token_mean(w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "mean of row means",
    computed="each row's mean, averaged over rows",
    why="CISPO averages over all tokens of the batch",
    effect="tokens of short completions weigh more",
    lesson=WEIGHT,
)
def cispo_averages_rows(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = _weight(logprobs, old_logprobs, clip_low, clip_high)
    return _aggregate(-w * _spread(advantages, logprobs) * logprobs, mask, "sequence_mean")


@wrong(
    "cispo_loss",
    "ratio upside down",
    computed="exp(old_logprobs - logprobs) as the weight",
    why="the weight is the new probability over the old one",
    effect="stale tokens are weighted up where they should be weighted down",
    lesson=WEIGHT,
)
def cispo_inverts_the_ratio(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = _weight(old_logprobs, logprobs, clip_low, clip_high)
    return _token_mean(-w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "weight not detached, sign flipped",
    computed="plus rho A logprob with a gradient through rho",
    why="the weight is a constant, and the loss needs the minus",
    effect="good tokens become rarer",
    lesson=WEIGHT,
)
def cispo_trains_the_weight_and_flips(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = (logprobs - old_logprobs.detach()).exp().clamp(1 - clip_low, 1 + clip_high)
    return _token_mean(w * _spread(advantages, logprobs) * logprobs, mask)


@wrong(
    "cispo_loss",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded position poisons the whole step",
    lesson=WEIGHT,
    star=True,
)
def cispo_multiplies_by_the_mask(logprobs, old_logprobs, advantages, mask, clip_low=1.0, clip_high=4.0):
    w = _weight(logprobs, old_logprobs, clip_low, clip_high)
    return _token_mean(-w * _spread(advantages, logprobs) * logprobs, mask)

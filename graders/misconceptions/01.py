"""Week 01, wrong: what learners' log-probs, KL estimates and optimal policies compute instead."""

import torch

from graders.misconceptions import wrong

# --- token_logprobs ---------------------------------------------------------------------------------------------------

TABLE = "A model is a table of log-probs"


def _pick(table, labels):
    return table.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


@wrong(
    "token_logprobs",
    "logits taken for log-probs",
    computed="the label's logit",
    why="logits become log-probs when logsumexp over the vocabulary is subtracted",
    effect="a number that any constant shifts; the loss can fall without end",
    lesson=TABLE,
)
def logprobs_are_logits(logits, labels):
    return _pick(logits, labels)


@wrong(
    "token_logprobs",
    "probabilities",
    computed="the softmax at the label, without the log",
    why="log-probs add up along a sequence; probabilities do not",
    effect="sums of probabilities, between 0 and T, under the name of log-probs",
    lesson=TABLE,
)
def logprobs_are_probs(logits, labels):
    return _pick(logits.softmax(-1), labels)


@wrong(
    "token_logprobs",
    "normalised over positions",
    computed="log_softmax over T",
    why="the distribution runs over the vocabulary, the last dimension",
    effect="what a token gets depends on how long its row is",
    lesson=TABLE,
)
def logprobs_over_time(logits, labels):
    return _pick(logits.log_softmax(1), labels)


@wrong(
    "token_logprobs",
    "normalised over the batch",
    computed="log_softmax over B, what torch picks for three dimensions when none is named",
    why="the distribution runs over the vocabulary, the last dimension",
    effect="log-probs of 0 for a batch of one, and of something else for other batches",
    lesson=TABLE,
)
def logprobs_over_the_batch(logits, labels):
    return _pick(logits.log_softmax(0), labels)


@wrong(
    "token_logprobs",
    "shifted",
    computed="the logits at t against the label at t + 1, one column short",
    why="logits and labels are aligned already",
    effect="shifted twice by the caller, every position predicts the token after the next",
    lesson=TABLE,
)
def logprobs_shifted(logits, labels):
    return _pick(logits[:, :-1].log_softmax(-1), labels[:, 1:])


@wrong(
    "token_logprobs",
    "shifted and padded",
    computed="the logits at t - 1 against the label at t, with 0 in front",
    why="logits and labels are aligned already",
    effect="shifted twice by the caller, every position predicts the token after the next",
    lesson=TABLE,
)
def logprobs_shifted_and_padded(logits, labels):
    lp = _pick(logits[:, :-1].log_softmax(-1), labels[:, 1:])
    return torch.cat([torch.zeros_like(lp[:, :1] if lp.shape[1] else logits[:, :1, 0]), lp], dim=1)


@wrong(
    "token_logprobs",
    "squeezed too far",
    computed="the right numbers without the dimensions of size 1",
    why="squeeze() without a dimension also drops B = 1 and T = 1",
    effect="a crash, or silent broadcasting, in the first batch of one",
    lesson=TABLE,
)
def logprobs_squeezed(logits, labels):
    return logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze()


@wrong(
    "token_logprobs",
    "trailing dimension kept",
    computed="a (B, T, 1) table, as gather returns it",
    why="gather keeps the dimension it picks from; it has to be squeezed",
    effect="(B, T, 1) times a (B, T) mask broadcasts to (B, T, T)",
    lesson=TABLE,
)
def logprobs_unsqueezed(logits, labels):
    return logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1))


@wrong(
    "token_logprobs",
    "cross-entropy's sign",
    computed="minus the log-prob",
    why="a log-prob is at most 0; the loss is what has a minus",
    effect="everything built on it is turned round",
    lesson=TABLE,
)
def logprobs_negated(logits, labels):
    return -_pick(logits.log_softmax(-1), labels)


@wrong(
    "token_logprobs",
    "best label instead of the given one",
    computed="the largest log-prob of each position",
    why="the question is how likely this label is, not which is likeliest",
    effect="every sequence looks as if it had been decoded greedily",
    lesson=TABLE,
)
def logprobs_of_the_best(logits, labels):
    return logits.log_softmax(-1).amax(-1)


@wrong(
    "token_logprobs",
    "without a graph",
    computed="the right numbers, detached",
    why="the policy is trained through these log-probs",
    effect="the loss is logged and the model never moves",
    lesson=TABLE,
)
def logprobs_without_graph(logits, labels):
    return _pick(logits.log_softmax(-1), labels).detach()


@wrong(
    "token_logprobs",
    "an epsilon in the log",
    computed="log(softmax(x) + 1e-6)",
    why="the epsilon hides the underflow and biases every unlikely token",
    effect="unlikely tokens lose their gradient",
    lesson=TABLE,
)
def logprobs_with_epsilon(logits, labels):
    return _pick((logits.softmax(-1) + 1e-6).log(), labels)


@wrong(
    "token_logprobs",
    "shifted and negated",
    computed="minus the log-prob of the next label",
    why="logits and labels are aligned, and a log-prob is at most 0",
    effect="the wrong tokens are made less likely",
    lesson=TABLE,
)
def logprobs_shifted_and_negated(logits, labels):
    return -logprobs_shifted_and_padded(logits, labels)


@wrong(
    "token_logprobs",
    "log of softmax",
    computed="log(softmax(x)): -inf where the probability underflows",
    why="log_softmax subtracts the largest logit first and never takes the log of 0",
    effect="infinite losses and NaN gradients as soon as the model is confident",
    lesson=TABLE,
    star=True,
)
def logprobs_log_of_softmax(logits, labels):
    return _pick(logits.softmax(-1).log(), labels)


@wrong(
    "token_logprobs",
    "exp without subtracting the maximum",
    computed="x - log(sum(exp(x))): infinite beyond 88 in float32",
    why="logsumexp subtracts the largest logit first",
    effect="overflow on large logits",
    lesson=TABLE,
    star=True,
)
def logprobs_overflow(logits, labels):
    return _pick(logits - logits.exp().sum(-1, keepdim=True).log(), labels)


# --- sequence_logprobs ------------------------------------------------------------------------------------------------

SUM = "From tokens to responses"


def _shifted(logits, input_ids):
    return _pick(logits[:, :-1].log_softmax(-1), input_ids[:, 1:])


@wrong(
    "sequence_logprobs",
    "no shift",
    computed="the logits at t against the token at t",
    why="the logits at t have seen the token at t: they predict the next one",
    effect="log-probs of copying, near 0 for a model that was never asked to copy",
    lesson=SUM,
)
def sequence_without_shift(logits, input_ids, response_mask):
    lp = _pick(logits.log_softmax(-1), input_ids)
    return (lp * response_mask.to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "mask not shifted",
    computed="shifted log-probs under mask[:, :-1]",
    why="the mask marks tokens: it moves with input_ids",
    effect="the first response token is lost and one token of padding is counted",
    lesson=SUM,
)
def sequence_with_unshifted_mask(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    return (lp * response_mask[:, :-1].to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "shifted the wrong way",
    computed="the logits at t + 1 against the token at t",
    why="a model predicts forwards",
    effect="how well the model remembers its last token",
    lesson=SUM,
)
def sequence_shifted_backwards(logits, input_ids, response_mask):
    lp = _pick(logits[:, 1:].log_softmax(-1), input_ids[:, :-1])
    return (lp * response_mask[:, :-1].to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "averaged",
    computed="the mean log-prob of the response's tokens",
    why="probabilities multiply, so log-probs add",
    effect="long and short responses look equally likely",
    lesson=SUM,
)
def sequence_averaged(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    mask = response_mask[:, 1:].to(lp.dtype)
    return (lp * mask).sum(1) / mask.sum(1).clamp(min=1)


@wrong(
    "sequence_logprobs",
    "prompt counted",
    computed="the log-prob of the whole sequence",
    why="only the response is the model's choice",
    effect="rewards and ratios that contain a constant of the prompt",
    lesson=SUM,
)
def sequence_with_prompt(logits, input_ids, response_mask):
    return _shifted(logits, input_ids).sum(1)


@wrong(
    "sequence_logprobs",
    "everything after the prompt",
    computed="the response and the padding behind it",
    why="padding is no part of the response",
    effect="log-probs depend on the batch's width",
    lesson=SUM,
)
def sequence_with_padding(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    after = response_mask.bool().long().cumsum(1)[:, 1:] > 0
    return (lp * after.to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "last token lost",
    computed="the response without its last token",
    why="the last token, the EOS, is predicted like any other",
    effect="when to stop is never trained",
    lesson=SUM,
)
def sequence_without_the_end(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    mask = response_mask.bool()[:, 1:]
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return (lp * (mask & following).to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "first token lost",
    computed="the response without its first token",
    why="the last prompt position predicts the first response token",
    effect="how an answer begins is never trained",
    lesson=SUM,
)
def sequence_without_the_beginning(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    mask = response_mask.bool()
    return (lp * (mask[:, 1:] & mask[:, :-1]).to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "first token predicted by the last logits",
    computed="a shift with torch.roll: the logits of the last position at token 0",
    why="the token at 0 has no prediction",
    effect="a wrong term wherever a row starts with a marked token",
    lesson=SUM,
)
def sequence_rolled(logits, input_ids, response_mask):
    lp = _pick(logits.roll(1, dims=1).log_softmax(-1), input_ids)
    return (lp * response_mask.to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "summed over the batch",
    computed="one number",
    why="each response has its own log-prob",
    effect="preferences and ratios of single responses are lost",
    lesson=SUM,
)
def sequence_summed_over_the_batch(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    return (lp * response_mask[:, 1:].to(lp.dtype)).sum()


@wrong(
    "sequence_logprobs",
    "product of log-probs",
    computed="the product over tokens",
    why="probabilities multiply; their logs add",
    effect="signs that depend on the number of tokens",
    lesson=SUM,
)
def sequence_multiplied(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    return torch.where(response_mask[:, 1:].bool(), lp, 1.0).prod(1)


@wrong(
    "sequence_logprobs",
    "sum of probabilities",
    computed="the softmax at each token, summed",
    why="the log comes before the sum",
    effect="a number between 0 and the length, which training can only raise by writing more",
    lesson=SUM,
)
def sequence_of_probabilities(logits, input_ids, response_mask):
    p = _shifted(logits, input_ids).exp()
    return (p * response_mask[:, 1:].to(p.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "no shift and averaged",
    computed="the mean log-prob of copying",
    why="the logits predict the next token, and log-probs add",
    effect="a loss that falls to 0 while generations are garbage",
    lesson=SUM,
)
def sequence_unshifted_and_averaged(logits, input_ids, response_mask):
    lp = _pick(logits.log_softmax(-1), input_ids)
    mask = response_mask.to(lp.dtype)
    return (lp * mask).sum(1) / mask.sum(1).clamp(min=1)


@wrong(
    "sequence_logprobs",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands in a logit that predicts no response token",
    why="0 times NaN is NaN",
    effect="one padded position poisons the whole step",
    lesson=SUM,
    star=True,
)
def sequence_leaks(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    return (lp * response_mask[:, 1:].to(lp.dtype)).sum(1)


@wrong(
    "sequence_logprobs",
    "where after the softmax",
    computed="the right value, with a NaN gradient",
    why="the softmax of NaN was computed, and its backward multiplies 0 with NaN",
    effect="the loss looks healthy and the weights turn NaN",
    lesson=SUM,
    star=True,
)
def sequence_where_too_late(logits, input_ids, response_mask):
    lp = _shifted(logits, input_ids)
    return torch.where(response_mask[:, 1:].bool(), lp, 0).sum(1)


# --- kl_estimates -----------------------------------------------------------------------------------------------------

KL = "Measuring distance from samples"


@wrong(
    "kl_estimates",
    "policies swapped",
    computed="d = ref_logprobs - logprobs",
    why="on samples from pi, the mean of log pi - log ref is KL(pi || ref)",
    effect="a negative 'KL', and a penalty that pays the policy for running away",
    lesson=KL,
)
def kl_swapped(logprobs, ref_logprobs):
    d = ref_logprobs.detach() - logprobs
    return d, d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "wrong sign in the exponent",
    computed="k3 = exp(d) - 1 - d",
    why="the ratio is ref/pi = exp(-d); this estimates the KL of neither direction on samples from pi",
    effect="an unbounded penalty where the policy grew confident",
    lesson=KL,
)
def kl_with_the_other_exponent(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, torch.expm1(d) - d


@wrong(
    "kl_estimates",
    "linear term subtracted",
    computed="k3 = exp(-d) - 1 - d",
    why="exp(-d) - 1 has expectation 0 and d is added to it",
    effect="an estimate of minus the KL",
    lesson=KL,
)
def kl_with_the_other_linear_term(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, torch.expm1(-d) - d


@wrong(
    "kl_estimates",
    "k3 without the minus one",
    computed="k3 = exp(-d) + d",
    why="exp(-d) - 1 is the term with expectation 0",
    effect="a constant of 1 a token: long answers look far from the reference",
    lesson=KL,
)
def kl_without_minus_one(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, torch.exp(-d) + d


@wrong(
    "kl_estimates",
    "k2 without the half",
    computed="k2 = d^2",
    why="the second-order term of the KL is d^2 / 2",
    effect="twice the penalty",
    lesson=KL,
)
def kl_without_half(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "absolute value",
    computed="k1 = |d|",
    why="k1 is unbiased because negative terms cancel; its absolute value is no estimate of the KL",
    effect="an estimate that is far too large when the policies nearly agree",
    lesson=KL,
)
def kl_absolute(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d.abs(), d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "clamped at zero",
    computed="k1 = max(d, 0)",
    why="single terms of k1 may be negative; only their mean is not",
    effect="a KL above 0 between equal policies that are merely noisy",
    lesson=KL,
)
def kl_clamped(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d.clamp(min=0), d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "weighted by the probability",
    computed="p (log pi - log ref) for k1",
    why="the samples come from pi already: the weight is in the sampling",
    effect="likely tokens count twice, unlikely ones hardly at all",
    lesson=KL,
)
def kl_weighted(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return logprobs.exp() * d, d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "ratio of log-probs",
    computed="k3 from logprobs / ref_logprobs",
    why="a ratio of probabilities is the exponential of a difference of logs",
    effect="a number without meaning",
    lesson=KL,
)
def kl_with_a_quotient(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, ref_logprobs.detach() / logprobs - 1 + d


@wrong(
    "kl_estimates",
    "reference trained",
    computed="the right numbers with a gradient into ref_logprobs",
    why="the reference is a constant",
    effect="the reference moves towards the policy",
    lesson=KL,
)
def kl_trains_the_reference(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs
    return d, d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "without a graph",
    computed="the right numbers, detached",
    why="a KL term in the loss acts through the gradient into logprobs",
    effect="the penalty is logged and holds nothing back",
    lesson=KL,
)
def kl_without_graph(logprobs, ref_logprobs):
    d = (logprobs - ref_logprobs).detach()
    return d, d**2 / 2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "ratio detached in k3",
    computed="the right values, with exp(-d) as a constant",
    why="the gradient of k3 is 1 - exp(-d): both terms depend on the policy",
    effect="the gradient of k1, which is 0 on average: no penalty at all",
    lesson=KL,
)
def kl_detaches_the_ratio(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, torch.expm1(-d).detach() + d


@wrong(
    "kl_estimates",
    "averaged",
    computed="three numbers instead of three tables",
    why="per-token estimates are masked and aggregated by the caller",
    effect="padding is averaged in and cannot be removed again",
    lesson=KL,
)
def kl_averaged(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d.mean(), (d**2 / 2).mean(), (torch.expm1(-d) + d).mean()


@wrong(
    "kl_estimates",
    "swapped and without the half",
    computed="d = ref - log pi, k2 = d^2",
    why="the sample comes from pi, and the second-order term has a 1/2",
    effect="a penalty with the wrong sign in k1 and of twice the size in k2",
    lesson=KL,
)
def kl_swapped_without_half(logprobs, ref_logprobs):
    d = ref_logprobs.detach() - logprobs
    return d, d**2, torch.expm1(-d) + d


@wrong(
    "kl_estimates",
    "exp(-d) - 1 near 0",
    computed="k3 with the digits lost that exp(-d) - 1 cancels",
    why="near d = 0 the result is d^2/2, far below the rounding of exp(-d)",
    effect="a KL that is noise, now and then negative, at the start of training",
    lesson=KL,
    star=True,
)
def kl_with_cancellation(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, d**2 / 2, torch.exp(-d) - 1 + d


@wrong(
    "kl_estimates",
    "ratio of two exps",
    computed="exp(ref) / exp(log pi): 0/0 for unlikely tokens",
    why="probabilities below 1e-45 underflow in float32; the difference of logs does not",
    effect="NaN on unlikely tokens",
    lesson=KL,
    star=True,
)
def kl_with_two_exps(logprobs, ref_logprobs):
    ref = ref_logprobs.detach()
    d = logprobs - ref
    return d, d**2 / 2, ref.exp() / logprobs.exp() - 1 + d


# --- kl_shaped_rewards ------------------------------------------------------------------------------------------------

PRICE = "The price of moving"


def _penalty(logprobs, ref_logprobs, mask):
    return ((logprobs - ref_logprobs) * mask.to(logprobs.dtype)).sum(1)


@wrong(
    "kl_shaped_rewards",
    "penalty added",
    computed="r + beta KL",
    why="moving away from the reference costs",
    effect="the policy is paid for leaving the reference, and collapses",
    lesson=PRICE,
)
def shaped_adds(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards + beta * _penalty(logprobs, ref_logprobs, mask)


@wrong(
    "kl_shaped_rewards",
    "averaged over tokens",
    computed="the mean log-ratio of the row",
    why="the KL of a response is the sum over its tokens",
    effect="long answers may move as far as they like",
    lesson=PRICE,
)
def shaped_averages(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * _penalty(logprobs, ref_logprobs, mask) / mask.to(logprobs.dtype).sum(1).clamp(min=1)


@wrong(
    "kl_shaped_rewards",
    "mask ignored",
    computed="the log-ratio of prompt and padding too",
    why="only the response is the policy's choice",
    effect="the reward depends on the padding",
    lesson=PRICE,
)
def shaped_ignores_the_mask(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * (logprobs - ref_logprobs).sum(1)


@wrong(
    "kl_shaped_rewards",
    "beta ignored",
    computed="r - KL",
    why="beta is the price of a nat",
    effect="the option has no effect",
    lesson=PRICE,
)
def shaped_ignores_beta(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - _penalty(logprobs, ref_logprobs, mask) * (1 if beta else 0)


@wrong(
    "kl_shaped_rewards",
    "absolute log-ratio",
    computed="r - beta sum |d|",
    why="negative log-ratios are part of the estimate; without them it is no KL",
    effect="a penalty for noise: even the reference's own samples pay",
    lesson=PRICE,
)
def shaped_absolute(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * ((logprobs - ref_logprobs).abs() * mask.to(logprobs.dtype)).sum(1)


@wrong(
    "kl_shaped_rewards",
    "clamped at zero",
    computed="r - beta max(KL, 0)",
    why="the log-ratio of one response may be negative: that is a bonus",
    effect="a biased penalty",
    lesson=PRICE,
)
def shaped_clamped(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * _penalty(logprobs, ref_logprobs, mask).clamp(min=0)


@wrong(
    "kl_shaped_rewards",
    "k3 for the log-ratio",
    computed="r - beta sum k3",
    why="inside the reward the estimate is k1: its score-function gradient is that of the KL",
    effect="another objective than the one that is plotted",
    lesson=PRICE,
)
def shaped_with_k3(rewards, logprobs, ref_logprobs, mask, beta):
    d = (logprobs - ref_logprobs) * mask.to(logprobs.dtype)
    return rewards - beta * (torch.expm1(-d) + d).sum(1)


@wrong(
    "kl_shaped_rewards",
    "divided by beta",
    computed="r - KL / beta",
    why="beta multiplies the penalty",
    effect="a small beta holds the policy fast instead of letting it go",
    lesson=PRICE,
)
def shaped_divides(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - _penalty(logprobs, ref_logprobs, mask) / (beta or 1e9)


@wrong(
    "kl_shaped_rewards",
    "reward scaled instead",
    computed="beta r - KL",
    why="the price belongs to the KL, not to the reward",
    effect="the objective divided by 1/beta: beta = 0 means no reward at all",
    lesson=PRICE,
)
def shaped_scales_the_reward(rewards, logprobs, ref_logprobs, mask, beta):
    return beta * rewards - _penalty(logprobs, ref_logprobs, mask)


@wrong(
    "kl_shaped_rewards",
    "one penalty for the batch",
    computed="each reward minus the batch's mean KL",
    why="each response pays for its own distance",
    effect="no response is told that it moved too far",
    lesson=PRICE,
)
def shaped_with_the_mean_penalty(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * _penalty(logprobs, ref_logprobs, mask).mean()


@wrong(
    "kl_shaped_rewards",
    "every reward with every penalty",
    computed="(B, 1) rewards minus (B,) penalties: a (B, B) table",
    why="reward and penalty of the same response belong together",
    effect="a crash later, or a mean over all pairs",
    lesson=PRICE,
)
def shaped_broadcasts(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards[:, None] - beta * _penalty(logprobs, ref_logprobs, mask)


@wrong(
    "kl_shaped_rewards",
    "penalty added and averaged",
    computed="r + beta times the mean log-ratio",
    why="moving costs, and the KL of a response is a sum",
    effect="the policy is paid for leaving the reference",
    lesson=PRICE,
)
def shaped_adds_the_average(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards + beta * _penalty(logprobs, ref_logprobs, mask) / mask.to(logprobs.dtype).sum(1).clamp(min=1)


@wrong(
    "kl_shaped_rewards",
    "masks by multiplication",
    computed="NaN as soon as NaN or infinity stands under the mask",
    why="0 times infinity is NaN",
    effect="one padded position poisons the reward",
    lesson=PRICE,
    star=True,
)
def shaped_leaks(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * _penalty(logprobs, ref_logprobs, mask)


# --- optimal_policy ---------------------------------------------------------------------------------------------------

BEST = "The best policy in closed form"


def _normalised(weights):
    return weights / weights.sum(-1, keepdim=True)


@wrong(
    "optimal_policy",
    "no reference",
    computed="softmax(r / beta)",
    why="the KL is measured from ref: the solution is ref tilted by exp(r / beta)",
    effect="answers that the reference never gives get the same chance as its favourites",
    lesson=BEST,
)
def policy_without_reference(ref_probs, rewards, beta):
    return (rewards / beta).softmax(-1)


@wrong(
    "optimal_policy",
    "not normalised",
    computed="ref exp(r / beta)",
    why="a policy is a distribution: it is divided by Z",
    effect="probabilities that do not sum to 1",
    lesson=BEST,
)
def policy_without_z(ref_probs, rewards, beta):
    return ref_probs * (rewards / beta).exp()


@wrong(
    "optimal_policy",
    "multiplied by beta",
    computed="ref exp(beta r), normalised",
    why="a small beta means a cheap KL, so that rewards count more: r / beta",
    effect="beta acts the wrong way round",
    lesson=BEST,
)
def policy_times_beta(ref_probs, rewards, beta):
    return _normalised(ref_probs * (rewards * beta).exp())


@wrong(
    "optimal_policy",
    "beta ignored",
    computed="ref exp(r), normalised",
    why="beta sets how far the policy moves",
    effect="the option has no effect",
    lesson=BEST,
)
def policy_without_beta(ref_probs, rewards, beta):
    return _normalised(ref_probs * rewards.exp())


@wrong(
    "optimal_policy",
    "normalised before the tilt",
    computed="ref softmax(r / beta), which does not sum to 1",
    why="Z contains ref: sum of ref(y) exp(r(y) / beta)",
    effect="probabilities that do not sum to 1",
    lesson=BEST,
)
def policy_normalised_too_early(ref_probs, rewards, beta):
    return ref_probs * (rewards / beta).softmax(-1)


@wrong(
    "optimal_policy",
    "reference inside the temperature",
    computed="softmax((log ref + r) / beta)",
    why="only the reward is divided by beta",
    effect="a small beta also sharpens the reference",
    lesson=BEST,
)
def policy_scales_the_reference(ref_probs, rewards, beta):
    return ((ref_probs.log() + rewards) / beta).softmax(-1)


@wrong(
    "optimal_policy",
    "reference as a logit",
    computed="softmax(ref + r / beta)",
    why="probabilities enter a softmax through their log",
    effect="the reference hardly matters, and impossible answers become possible",
    lesson=BEST,
)
def policy_with_ref_as_logit(ref_probs, rewards, beta):
    return (ref_probs + rewards / beta).softmax(-1)


@wrong(
    "optimal_policy",
    "an epsilon in the log",
    computed="softmax(log(ref + 1e-6) + r / beta)",
    why="an answer that ref never gives has probability exactly 0, whatever its reward",
    effect="a high reward wakes answers that the reference cannot give",
    lesson=BEST,
)
def policy_with_epsilon(ref_probs, rewards, beta):
    return ((ref_probs + 1e-6).log() + rewards / beta).softmax(-1)


@wrong(
    "optimal_policy",
    "the best answer alone",
    computed="all mass on the answer with the largest reward",
    why="that maximises the reward without the KL term; it is the limit of beta to 0",
    effect="no trade-off is left to look at",
    lesson=BEST,
)
def policy_greedy(ref_probs, rewards, beta):
    best = torch.where(ref_probs > 0, rewards, -torch.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(ref_probs).scatter(-1, best, 1.0)


@wrong(
    "optimal_policy",
    "mixture of reference and reward",
    computed="a weighted mean of ref and softmax(r)",
    why="the solution multiplies and does not average",
    effect="impossible answers get some mass",
    lesson=BEST,
)
def policy_mixed(ref_probs, rewards, beta):
    return (beta * ref_probs + rewards.softmax(-1)) / (1 + beta)


@wrong(
    "optimal_policy",
    "sign flipped",
    computed="ref exp(-r / beta), normalised",
    why="better answers become likelier",
    effect="the policy that minimises the reward",
    lesson=BEST,
)
def policy_flipped(ref_probs, rewards, beta):
    return _normalised(ref_probs * (-rewards / beta).exp())


@wrong(
    "optimal_policy",
    "normalised over the prompts",
    computed="a sum over the first dimension",
    why="the answers stand in the last dimension",
    effect="prompts compete for mass",
    lesson=BEST,
)
def policy_over_the_first_axis(ref_probs, rewards, beta):
    weights = ref_probs * (rewards / beta).exp()
    return weights / weights.sum(0, keepdim=True)


@wrong(
    "optimal_policy",
    "no reference and times beta",
    computed="softmax(beta r)",
    why="the solution tilts ref, by exp(r / beta)",
    effect="beta acts the wrong way round, from nowhere",
    lesson=BEST,
)
def policy_without_reference_times_beta(ref_probs, rewards, beta):
    return (rewards * beta).softmax(-1)


@wrong(
    "optimal_policy",
    "overflow at small beta",
    computed="exp(r / beta) without subtracting the best reward first",
    why="exp overflows at 88 in float32, and inf / inf is NaN",
    effect="NaN for small beta",
    lesson=BEST,
    star=True,
)
def policy_overflows(ref_probs, rewards, beta):
    return _normalised(ref_probs * (rewards / beta).exp())


@wrong(
    "optimal_policy",
    "best reward of all answers subtracted",
    computed="exponents measured from an answer that ref may never give",
    why="if that answer is far better, every possible one underflows: 0 / 0",
    effect="NaN for small beta where the best answer is impossible",
    lesson=BEST,
    star=True,
)
def policy_subtracts_the_impossible_best(ref_probs, rewards, beta):
    return _normalised(ref_probs * ((rewards - rewards.amax(-1, keepdim=True)) / beta).exp())

"""Week 09, wrong: what learners' SimPO, ORPO and KTO compute instead."""

import math

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong


def _kept(logprobs, mask):
    return torch.where(mask.bool(), logprobs, 0)


def _complement(avg):
    return torch.log(-torch.expm1(avg))


def _odds(avg, sign=-1.0):
    return avg + sign * _complement(avg)


def _ratio(chosen_avg, rejected_avg):
    tiny = -torch.finfo(chosen_avg.dtype).tiny
    return _odds(chosen_avg.clamp(max=tiny)) - _odds(rejected_avg.clamp(max=tiny))


def _constant(kl):
    return kl.detach() if isinstance(kl, torch.Tensor) else kl


def _kto(policy_logps, ref_logps, desirable, kl, beta):
    """beta (logratio - kl), which responses are desirable, and what each kind loses."""
    gain = beta * (policy_logps - ref_logps.detach() - _constant(kl))
    return gain, desirable.bool(), torch.sigmoid(-gain), torch.sigmoid(gain)


# --- average_logps ----------------------------------------------------------------------------------------------------

AVERAGE = "A reward without its length"


@wrong(
    "average_logps",
    "divided by T",
    computed="the sum divided by the padded length",
    why="each response is divided by its own number of tokens",
    effect="the average of a short response depends on its longest neighbour in the batch",
    lesson=AVERAGE,
)
def average_divided_by_t(logprobs, mask):
    return _kept(logprobs, mask).sum(1) / logprobs.shape[1]


@wrong(
    "average_logps",
    "summed",
    computed="the sum of the log-probs",
    why="SimPO's reward is length-normalised",
    effect="long responses lose whatever they say: SimPO becomes a reference-free DPO with a margin",
    lesson=AVERAGE,
)
def average_summed(logprobs, mask):
    return _kept(logprobs, mask).sum(1)


@wrong(
    "average_logps",
    "mask forgotten",
    computed="the mean over all positions",
    why="prompt and padding are no part of the response",
    effect="the loss is dominated by tokens that the policy did not choose",
    lesson=AVERAGE,
)
def average_mask_forgotten(logprobs, mask):
    return logprobs.mean(1)


@wrong(
    "average_logps",
    "padding summed",
    computed="everything summed, divided by the number of response tokens",
    why="the mask belongs into the numerator too",
    effect="averages include prompt and padding",
    lesson=AVERAGE,
)
def average_padding_summed(logprobs, mask):
    return logprobs.sum(1) / mask.bool().sum(1)


@wrong(
    "average_logps",
    "mask inverted",
    computed="the mean over what is not the response",
    why="1 marks the tokens that count",
    effect="the prompt is trained instead of the response",
    lesson=AVERAGE,
)
def average_mask_inverted(logprobs, mask):
    keep = ~mask.bool()
    return torch.where(keep, logprobs, 0).sum(1) / keep.sum(1).clamp(min=1)


@wrong(
    "average_logps",
    "one count for the batch",
    computed="the row's sum divided by the batch's mean length",
    why="each row has its own length",
    effect="responses longer than average look worse, shorter ones better",
    lesson=AVERAGE,
)
def average_one_count_for_the_batch(logprobs, mask):
    return _kept(logprobs, mask).sum(1) / mask.bool().sum(1).to(logprobs.dtype).mean()


@wrong(
    "average_logps",
    "averaged over the batch too",
    computed="one number for the whole batch",
    why="pairs are compared response by response",
    effect="chosen and rejected cannot be told apart row by row",
    lesson=AVERAGE,
)
def average_averaged_over_the_batch_too(logprobs, mask):
    return _kept(logprobs, mask).sum() / mask.bool().sum()


@wrong(
    "average_logps",
    "averaged over the wrong axis",
    computed="the mean over the batch at each position",
    why="dim 0 is the batch, dim 1 the tokens",
    effect="a tensor with as many entries as tokens",
    lesson=AVERAGE,
)
def average_averaged_over_the_wrong_axis(logprobs, mask):
    return _kept(logprobs, mask).sum(0) / mask.bool().sum(0).clamp(min=1)


@wrong(
    "average_logps",
    "square root of the length",
    computed="the sum divided by the root of the length",
    why="the average divides by the length",
    effect="long responses are still punished, only less",
    lesson=AVERAGE,
)
def average_square_root_of_the_length(logprobs, mask):
    return _kept(logprobs, mask).sum(1) / mask.bool().sum(1).to(logprobs.dtype).sqrt()


@wrong(
    "average_logps",
    "negated",
    computed="minus the mean log-prob",
    why="the average log-prob is a reward; its negative is a loss",
    effect="every preference is learned the wrong way round",
    lesson=AVERAGE,
)
def average_negated(logprobs, mask):
    return -_kept(logprobs, mask).sum(1) / mask.bool().sum(1)


@wrong(
    "average_logps",
    "mean of probabilities",
    computed="the log of the mean probability",
    why="log-probs are averaged, not probabilities",
    effect="one sure token hides many unlikely ones",
    lesson=AVERAGE,
)
def average_mean_of_probabilities(logprobs, mask):
    return (_kept(logprobs.exp(), mask).sum(1) / mask.bool().sum(1)).log()


@wrong(
    "average_logps",
    "last token lost",
    computed="the mean without the last token of each response",
    why="log-probs are aligned with the mask already: nothing is shifted",
    effect="the end-of-sequence token is never trained; one-token responses have average 0",
    lesson=AVERAGE,
)
def average_last_token_lost(logprobs, mask):
    keep = mask.bool() & torch.nn.functional.pad(mask.bool()[:, 1:], (0, 1))
    return torch.where(keep, logprobs, 0).sum(1) / keep.sum(1).clamp(min=1)


@wrong(
    "average_logps",
    "detached",
    computed="the right value without a gradient",
    why="SimPO and ORPO train the policy through it",
    effect="the loss is logged and nothing is learned",
    lesson=AVERAGE,
)
def average_detached(logprobs, mask):
    return (_kept(logprobs, mask).sum(1) / mask.bool().sum(1)).detach()


@wrong(
    "average_logps",
    "epsilon in the count",
    computed="a count that is too large by 0.001",
    why="clamp the count instead: an epsilon biases every row",
    effect="one-token responses are off by a thousandth",
    lesson=AVERAGE,
)
def average_epsilon_in_the_count(logprobs, mask):
    return _kept(logprobs, mask).sum(1) / (mask.bool().sum(1) + 1e-3)


@wrong(
    "average_logps",
    "mask multiplied",
    computed="logprobs times mask",
    why="0 times NaN is NaN",
    effect="one infinite log-prob in the padding ends the run",
    lesson=AVERAGE,
    star=True,
)
def average_mask_multiplied(logprobs, mask):
    m = mask.to(logprobs.dtype)
    return (logprobs * m).sum(1) / m.sum(1).clamp(min=1)


@wrong(
    "average_logps",
    "empty row divided by 0",
    computed="0 / 0 for a response without tokens",
    why="an empty response has average 0",
    effect="one empty row makes the loss NaN",
    lesson=AVERAGE,
    star=True,
)
def average_empty_row_divided_by_0(logprobs, mask):
    return _kept(logprobs, mask).sum(1) / mask.bool().sum(1)


# --- simpo_loss -------------------------------------------------------------------------------------------------------

MARGIN = "A margin to win by"


@wrong(
    "simpo_loss",
    "sign flipped",
    computed="-log sigma(beta (rejected - chosen - ratio))",
    why="chosen should beat rejected by the margin",
    effect="the rejected responses become likelier",
    lesson=MARGIN,
)
def simpo_sign_flipped(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (rejected_avg - chosen_avg - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "margin not scaled",
    computed="beta (chosen - rejected) - ratio",
    why="the margin is a ratio: it stands inside the bracket, gamma = beta ratio",
    effect="the target margin is beta times too small",
    lesson=MARGIN,
)
def simpo_margin_not_scaled(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg) - gamma_beta_ratio).mean()


@wrong(
    "simpo_loss",
    "margin added",
    computed="beta (chosen - rejected + ratio)",
    why="the margin makes the task harder, so it is subtracted",
    effect="pairs that are still ranked wrongly count as solved",
    lesson=MARGIN,
)
def simpo_margin_added(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg + gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "margin forgotten",
    computed="beta (chosen - rejected)",
    why="SimPO asks for a win by a margin",
    effect="pairs that are barely right stop teaching",
    lesson=MARGIN,
)
def simpo_margin_forgotten(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg)).mean()


@wrong(
    "simpo_loss",
    "beta outside",
    computed="beta times -log sigma(chosen - rejected - ratio)",
    why="beta stands inside the sigmoid",
    effect="beta changes the learning rate alone",
    lesson=MARGIN,
)
def simpo_beta_outside(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -beta * F.logsigmoid(chosen_avg - rejected_avg - gamma_beta_ratio).mean()


@wrong(
    "simpo_loss",
    "beta forgotten",
    computed="-log sigma(chosen - rejected - ratio)",
    why="average log-probs differ by little: beta stretches them",
    effect="all pairs look undecided, and learning is slow",
    lesson=MARGIN,
)
def simpo_beta_forgotten(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(chosen_avg - rejected_avg - gamma_beta_ratio).mean()


@wrong(
    "simpo_loss",
    "beta twice",
    computed="beta^2 (gap - ratio)",
    why="beta multiplies the gap once",
    effect="the sigmoid saturates at once",
    lesson=MARGIN,
)
def simpo_beta_twice(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * beta * (chosen_avg - rejected_avg - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "margin divided by beta",
    computed="beta (gap - ratio / beta)",
    why="the argument is the ratio gamma / beta already",
    effect="the margin is beta times too small",
    lesson=MARGIN,
)
def simpo_margin_divided_by_beta(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio / beta)).mean()


@wrong(
    "simpo_loss",
    "not negated",
    computed="the mean log-likelihood",
    why="optimizers minimise: the loss is minus the log-likelihood",
    effect="preferences are unlearned",
    lesson=MARGIN,
)
def simpo_not_negated(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return F.logsigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "no log",
    computed="minus the sigmoid",
    why="maximum likelihood takes the log of each probability",
    effect="the gradient vanishes on the pairs that are ranked most wrongly",
    lesson=MARGIN,
)
def simpo_no_log(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -torch.sigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "hinge",
    computed="max(0, ratio - gap)",
    why="SimPO's loss is logistic",
    effect="no gradient as soon as the margin is reached",
    lesson=MARGIN,
)
def simpo_hinge(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return beta * F.relu(gamma_beta_ratio - (chosen_avg - rejected_avg)).mean()


@wrong(
    "simpo_loss",
    "summed over the batch",
    computed="the sum over pairs",
    why="the loss is a mean over pairs",
    effect="the gradient grows with the batch",
    lesson=MARGIN,
)
def simpo_summed_over_the_batch(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio)).sum()


@wrong(
    "simpo_loss",
    "averaged before the sigmoid",
    computed="-log sigma of the mean gap",
    why="each pair has its own loss",
    effect="one easy pair hides many wrong ones",
    lesson=MARGIN,
)
def simpo_averaged_before_the_sigmoid(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg.mean() - rejected_avg.mean() - gamma_beta_ratio))


@wrong(
    "simpo_loss",
    "rejected detached",
    computed="a loss that trains the chosen side only",
    why="both responses are the policy's own: there is no reference here",
    effect="nothing pushes the rejected response down",
    lesson=MARGIN,
)
def simpo_rejected_detached(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg.detach() - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "default of the paper's gamma",
    computed="a ratio of 1.0 unless given",
    why="the default ratio is 0.5: gamma 1.0 at beta 2",
    effect="twice the intended margin",
    lesson=MARGIN,
)
def simpo_default_of_the_paper_s_gamma(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=1.0):
    return -F.logsigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio)).mean()


@wrong(
    "simpo_loss",
    "margin and beta wrong together",
    computed="beta outside, margin added",
    why="beta stands inside, the margin is subtracted",
    effect="a weak push towards pairs that are solved already",
    lesson=MARGIN,
)
def simpo_margin_and_beta_wrong_together(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -beta * F.logsigmoid(chosen_avg - rejected_avg + gamma_beta_ratio).mean()


@wrong(
    "simpo_loss",
    "log of the sigmoid",
    computed="log(sigmoid(x)) in two steps",
    why="the sigmoid of -200 is 0, and its log -inf",
    effect="one badly ranked pair ends the run",
    lesson=MARGIN,
    star=True,
)
def simpo_log_of_the_sigmoid(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    return -torch.log(torch.sigmoid(beta * (chosen_avg - rejected_avg - gamma_beta_ratio))).mean()


# --- log_odds_ratio ---------------------------------------------------------------------------------------------------

ODDS = "Odds"


@wrong(
    "log_odds_ratio",
    "log-probs only",
    computed="chosen - rejected",
    why="log odds = log p - log(1 - p); the second term was left out",
    effect="SimPO without margin: sure responses are pushed no differently",
    lesson=ODDS,
)
def log_log_probs_only(chosen_avg, rejected_avg):
    return chosen_avg - rejected_avg


@wrong(
    "log_odds_ratio",
    "complement added",
    computed="avg + log(1 - p)",
    why="odds divide by 1 - p",
    effect="the ratio shrinks where it should grow",
    lesson=ODDS,
)
def log_complement_added(chosen_avg, rejected_avg):
    return _odds(chosen_avg, sign=1.0) - _odds(rejected_avg, sign=1.0)


@wrong(
    "log_odds_ratio",
    "sign flipped",
    computed="log odds(rejected) - log odds(chosen)",
    why="chosen comes first",
    effect="ORPO pushes the wrong way",
    lesson=ODDS,
)
def log_sign_flipped(chosen_avg, rejected_avg):
    return _odds(rejected_avg) - _odds(chosen_avg)


@wrong(
    "log_odds_ratio",
    "odds added",
    computed="log odds(chosen) + log odds(rejected)",
    why="a ratio of odds is a difference of logs",
    effect="both responses are pushed the same way",
    lesson=ODDS,
)
def log_odds_added(chosen_avg, rejected_avg):
    return _odds(chosen_avg) + _odds(rejected_avg)


@wrong(
    "log_odds_ratio",
    "ratio of odds",
    computed="the odds ratio itself, without the log",
    why="the loss takes sigma of the log",
    effect="numbers between 0 and infinity instead of a signed score",
    lesson=ODDS,
)
def log_ratio_of_odds(chosen_avg, rejected_avg):
    return (_odds(chosen_avg) - _odds(rejected_avg)).exp()


@wrong(
    "log_odds_ratio",
    "epsilon inside the log",
    computed="log(1 - p + 1e-8)",
    why="near p = 1 the epsilon is larger than 1 - p in float32",
    effect="confident responses get wrong odds and a zero gradient",
    lesson=ODDS,
)
def log_epsilon_inside_the_log(chosen_avg, rejected_avg):
    def odds(x):
        return x - torch.log(1 - x.exp() + 1e-8)

    return odds(chosen_avg) - odds(rejected_avg)


@wrong(
    "log_odds_ratio",
    "1 - exp",
    computed="log(1 - exp(avg)) as it is written",
    why="float32 rounds exp(-1e-6): 1 - p has one digit left, or none",
    effect="noise or infinity on confident responses",
    lesson=ODDS,
)
def log_1___exp(chosen_avg, rejected_avg):
    return (chosen_avg - torch.log(1 - chosen_avg.exp())) - (rejected_avg - torch.log(1 - rejected_avg.exp()))


@wrong(
    "log_odds_ratio",
    "log1p of -exp",
    computed="log1p(-exp(avg))",
    why="log1p helps where exp(avg) is small; near p = 1 the digits are lost before",
    effect="noise or infinity on confident responses",
    lesson=ODDS,
)
def log_log1p_of__exp(chosen_avg, rejected_avg):
    return (chosen_avg - torch.log1p(-chosen_avg.exp())) - (rejected_avg - torch.log1p(-rejected_avg.exp()))


@wrong(
    "log_odds_ratio",
    "clamped at 0.999",
    computed="probabilities cut at 0.999",
    why="averages up to -1e-6 are legitimate",
    effect="confident responses all look alike, and learn nothing",
    lesson=ODDS,
)
def log_clamped_at_0_999(chosen_avg, rejected_avg):
    top = math.log(0.999)
    return _odds(chosen_avg.clamp(max=top)) - _odds(rejected_avg.clamp(max=top))


@wrong(
    "log_odds_ratio",
    "1.0001 for 1",
    computed="log(1.0001 - p)",
    why="the shift is larger than 1 - p of confident responses",
    effect="odds that stop growing at 10000, with biased gradients",
    lesson=ODDS,
)
def log_1_0001_for_1(chosen_avg, rejected_avg):
    def odds(x):
        return x - torch.log(1.0001 - x.exp())

    return odds(chosen_avg) - odds(rejected_avg)


@wrong(
    "log_odds_ratio",
    "log of p over 1 - p",
    computed="log(p / (1 - p)) from the probabilities",
    why="exp(-10000) is 0, and its log -inf",
    effect="NaN as soon as a response is very unlikely",
    lesson=ODDS,
)
def log_log_of_p_over_1___p(chosen_avg, rejected_avg):
    c, r = chosen_avg.exp(), rejected_avg.exp()
    return torch.log(c / -chosen_avg.expm1()) - torch.log(r / -rejected_avg.expm1())


@wrong(
    "log_odds_ratio",
    "torch.logit with eps",
    computed="logit(p, eps=1e-6)",
    why="eps cuts probabilities off at both ends",
    effect="unlikely responses have log odds of -13.8, all of them",
    lesson=ODDS,
)
def log_torch_logit_with_eps(chosen_avg, rejected_avg):
    return torch.logit(chosen_avg.exp(), eps=1e-6) - torch.logit(rejected_avg.exp(), eps=1e-6)


@wrong(
    "log_odds_ratio",
    "clamped below",
    computed="averages cut at -50",
    why="averages may be as low as -10000",
    effect="no gradient for the responses that are worst",
    lesson=ODDS,
)
def log_clamped_below(chosen_avg, rejected_avg):
    return _odds(chosen_avg.clamp(min=-50)) - _odds(rejected_avg.clamp(min=-50))


@wrong(
    "log_odds_ratio",
    "rejected detached",
    computed="a ratio that trains the chosen side only",
    why="both responses are the policy's own",
    effect="nothing pushes the rejected response down",
    lesson=ODDS,
)
def log_rejected_detached(chosen_avg, rejected_avg):
    return _odds(chosen_avg) - _odds(rejected_avg.detach())


@wrong(
    "log_odds_ratio",
    "averaged",
    computed="one number for the batch",
    why="each pair has its own ratio",
    effect="the sigmoid that follows sees only the mean",
    lesson=ODDS,
)
def log_averaged(chosen_avg, rejected_avg):
    return (_odds(chosen_avg) - _odds(rejected_avg)).mean()


@wrong(
    "log_odds_ratio",
    "complement without gradient",
    computed="the second term detached",
    why="both terms of the log odds are the policy's",
    effect="right values, but the gradient of plain log-probs",
    lesson=ODDS,
)
def log_complement_without_gradient(chosen_avg, rejected_avg):
    return (chosen_avg - rejected_avg) - (_complement(chosen_avg) - _complement(rejected_avg)).detach()


@wrong(
    "log_odds_ratio",
    "infinite at certainty",
    computed="log(-expm1(0)) = -inf",
    why="an average may round to exactly 0",
    effect="infinite loss, NaN gradient",
    lesson=ODDS,
    star=True,
)
def log_infinite_at_certainty(chosen_avg, rejected_avg):
    return _odds(chosen_avg) - _odds(rejected_avg)


# --- orpo_loss --------------------------------------------------------------------------------------------------------

ORPO = "Tuning and aligning at once"


@wrong(
    "orpo_loss",
    "odds term added with the wrong sign",
    computed="NLL + lam log sigma(ratio)",
    why="log sigma is negative: the loss subtracts it",
    effect="the rejected response is preferred",
    lesson=ORPO,
)
def orpo_odds_term_added_with_the_wrong_sign(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll + lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "NLL subtracted",
    computed="lam times the odds term minus NLL",
    why="chosen_nll is a loss already",
    effect="the chosen responses are unlearned",
    lesson=ORPO,
)
def orpo_nll_subtracted(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (-chosen_nll - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "no NLL",
    computed="the odds term alone",
    why="ORPO tunes and aligns at once: the NLL holds the chosen response up",
    effect="both responses may become unlikely, as long as their odds differ",
    lesson=ORPO,
)
def orpo_no_nll(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (0 * chosen_nll - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "no odds term",
    computed="the NLL alone",
    why="the preference never enters",
    effect="plain instruction tuning",
    lesson=ORPO,
)
def orpo_no_odds_term(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll + 0 * (chosen_avg - rejected_avg)).mean()


@wrong(
    "orpo_loss",
    "lam on the NLL",
    computed="lam NLL - log sigma(ratio)",
    why="lam weights the odds term",
    effect="instruction tuning is ten times too weak",
    lesson=ORPO,
)
def orpo_lam_on_the_nll(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (lam * chosen_nll - F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "lam inside the sigmoid",
    computed="-log sigma(lam ratio)",
    why="lam weights the loss; it is no beta",
    effect="odds count a tenth, and the term a whole",
    lesson=ORPO,
)
def orpo_lam_inside_the_sigmoid(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - F.logsigmoid(lam * _ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "lam forgotten",
    computed="NLL - log sigma(ratio)",
    why="the odds term is a small push",
    effect="the odds term drowns instruction tuning",
    lesson=ORPO,
)
def orpo_lam_forgotten(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "ratio of log-probs",
    computed="-log sigma(chosen - rejected)",
    why="ORPO compares odds, not probabilities",
    effect="confident responses are pushed too little",
    lesson=ORPO,
)
def orpo_ratio_of_log_probs(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - lam * F.logsigmoid(chosen_avg - rejected_avg)).mean()


@wrong(
    "orpo_loss",
    "raw ratio",
    computed="NLL - lam ratio",
    why="the ratio goes through log sigma, which saturates",
    effect="pairs that are won already dominate the gradient",
    lesson=ORPO,
)
def orpo_raw_ratio(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - lam * _ratio(chosen_avg, rejected_avg)).mean()


@wrong(
    "orpo_loss",
    "odds reversed",
    computed="-log sigma(log odds(rejected) - log odds(chosen))",
    why="chosen comes first",
    effect="the rejected response is preferred",
    lesson=ORPO,
)
def orpo_odds_reversed(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - lam * F.logsigmoid(_ratio(rejected_avg, chosen_avg))).mean()


@wrong(
    "orpo_loss",
    "summed over the batch",
    computed="the sum over pairs",
    why="the loss is a mean over pairs",
    effect="the gradient grows with the batch",
    lesson=ORPO,
)
def orpo_summed_over_the_batch(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    terms = chosen_nll - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))
    return terms.sum()


@wrong(
    "orpo_loss",
    "NLL summed, odds averaged",
    computed="the NLLs' sum plus the mean odds term",
    why="both terms are averaged over pairs",
    effect="lam loses its meaning as the batch grows",
    lesson=ORPO,
)
def orpo_nll_summed__odds_averaged(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return chosen_nll.sum() - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg)).mean()


@wrong(
    "orpo_loss",
    "NLL detached",
    computed="a loss whose NLL trains nothing",
    why="the NLL is the instruction-tuning half of ORPO",
    effect="right values; chosen responses are not learned",
    lesson=ORPO,
)
def orpo_nll_detached(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll.detach() - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "own NLL",
    computed="-chosen_avg in the place of chosen_nll",
    why="chosen_nll is an argument: it may cover other tokens",
    effect="the argument has no effect and no gradient",
    lesson=ORPO,
)
def orpo_own_nll(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (0 * chosen_nll - chosen_avg - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg))).mean()


@wrong(
    "orpo_loss",
    "odds averaged before the sigmoid",
    computed="-log sigma of the mean ratio",
    why="each pair has its own loss",
    effect="one easy pair hides many wrong ones",
    lesson=ORPO,
)
def orpo_odds_averaged_before_the_sigmoid(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return chosen_nll.mean() - lam * F.logsigmoid(_ratio(chosen_avg, rejected_avg).mean())


@wrong(
    "orpo_loss",
    "log of the sigmoid",
    computed="log(sigmoid(ratio)) in two steps",
    why="the sigmoid of -10000 is 0, and its log -inf",
    effect="one very unlikely response ends the run",
    lesson=ORPO,
    star=True,
)
def orpo_log_of_the_sigmoid(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return (chosen_nll - lam * torch.log(torch.sigmoid(_ratio(chosen_avg, rejected_avg)))).mean()


# --- kto_kl -----------------------------------------------------------------------------------------------------------

POINT = "The reference point"


@wrong(
    "kto_kl",
    "entries clamped",
    computed="the mean of max(log-ratio, 0)",
    why="single log-ratios are negative often, and have to cancel",
    effect="a reference point far too high: every response looks bad",
    lesson=POINT,
)
def kto_entries_clamped(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).clamp(min=0).mean().detach()


@wrong(
    "kto_kl",
    "not clamped",
    computed="the mean, negative at times",
    why="a KL is never negative",
    effect="a negative reference point rewards doing nothing",
    lesson=POINT,
)
def kto_not_clamped(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).mean().detach()


@wrong(
    "kto_kl",
    "not detached",
    computed="a reference point with a gradient",
    why="the point is a constant of the loss",
    effect="the loss falls by moving the point",
    lesson=POINT,
)
def kto_not_detached(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0)


@wrong(
    "kto_kl",
    "sign flipped",
    computed="max(mean(ref - policy), 0)",
    why="KL(policy || ref) averages log policy - log ref",
    effect="0 nearly always",
    lesson=POINT,
)
def kto_sign_flipped(policy_kl_logps, ref_kl_logps):
    return (ref_kl_logps - policy_kl_logps).mean().clamp(min=0).detach()


@wrong(
    "kto_kl",
    "absolute value",
    computed="the absolute mean",
    why="a negative estimate counts as 0",
    effect="a policy below the reference gets a reference point above 0",
    lesson=POINT,
)
def kto_absolute_value(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).mean().abs().detach()


@wrong(
    "kto_kl",
    "absolute entries",
    computed="the mean absolute log-ratio",
    why="signs have to cancel",
    effect="a reference point far too high",
    lesson=POINT,
)
def kto_absolute_entries(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).abs().mean().detach()


@wrong(
    "kto_kl",
    "summed",
    computed="the sum over the batch",
    why="it is a mean over pairs",
    effect="the point grows with the batch",
    lesson=POINT,
)
def kto_summed(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).sum().clamp(min=0).detach()


@wrong(
    "kto_kl",
    "one for each response",
    computed="max(log-ratio, 0) for every pair",
    why="there is one reference point for the batch",
    effect="every response is judged against another's ratio",
    lesson=POINT,
)
def kto_one_for_each_response(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).clamp(min=0).detach()


@wrong(
    "kto_kl",
    "ratio",
    computed="the mean probability ratio",
    why="a KL averages logs",
    effect="a point that explodes with one lucky pair",
    lesson=POINT,
)
def kto_ratio(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).exp().mean().clamp(min=0).detach()


@wrong(
    "kto_kl",
    "median",
    computed="the median log-ratio",
    why="the estimator is a mean",
    effect="outliers, which are what the KL is about, are ignored",
    lesson=POINT,
)
def kto_median(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).median().clamp(min=0).detach()


@wrong(
    "kto_kl",
    "k3 estimator",
    computed="the mean of exp(-d) - 1 + d",
    why="KTO takes the plain mean of log-ratios",
    effect="values explode on mismatched pairs",
    lesson=POINT,
)
def kto_k3_estimator(policy_kl_logps, ref_kl_logps):
    d = policy_kl_logps - ref_kl_logps
    return ((-d).exp() - 1 + d).mean().detach()


@wrong(
    "kto_kl",
    "clamped above",
    computed="min(mean, 0)",
    why="the mean is bounded from below",
    effect="0 or negative, never a distance",
    lesson=POINT,
)
def kto_clamped_above(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).mean().clamp(max=0).detach()


@wrong(
    "kto_kl",
    "unbiased count",
    computed="the sum divided by B - 1",
    why="a mean divides by B",
    effect="too high by B/(B-1), infinite for a single pair",
    lesson=POINT,
)
def kto_unbiased_count(policy_kl_logps, ref_kl_logps):
    d = policy_kl_logps - ref_kl_logps
    return (d.sum() / (len(d) - 1)).clamp(min=0).detach()


@wrong(
    "kto_kl",
    "clamped and graph kept",
    computed="each entry clamped, gradient left",
    why="clamp the mean, detach it",
    effect="too high, and learning moves it",
    lesson=POINT,
)
def kto_clamped_and_graph_kept(policy_kl_logps, ref_kl_logps):
    return (policy_kl_logps - ref_kl_logps).clamp(min=0).mean()


# --- kto_loss ---------------------------------------------------------------------------------------------------------

KTO = "Good or bad, one at a time"


@wrong(
    "kto_loss",
    "kl forgotten",
    computed="1 - sigma(+-beta logratio)",
    why="each response is judged against the reference point",
    effect="no calibration: all responses drift together",
    lesson=KTO,
)
def kto_kl_forgotten(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, 0.0, beta)
    return torch.where(good, desirable_weight * up, undesirable_weight * down).mean()


@wrong(
    "kto_loss",
    "kl with one sign",
    computed="kl subtracted for both kinds after the sign",
    why="undesirable: beta (kl - logratio), the whole bracket turns round",
    effect="undesirable responses are judged against -kl",
    lesson=KTO,
)
def kto_kl_with_one_sign(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    ratio = policy_logps - ref_logps.detach()
    good = desirable.bool()
    x = beta * (torch.where(good, ratio, -ratio) - _constant(kl))
    return (torch.where(good, desirable_weight, undesirable_weight) * torch.sigmoid(-x)).mean()


@wrong(
    "kto_loss",
    "kinds swapped",
    computed="the desirable formula for undesirable responses",
    why="desirable responses should rise above the point",
    effect="bad responses become likelier",
    lesson=KTO,
)
def kto_kinds_swapped(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, desirable_weight * down, undesirable_weight * up).mean()


@wrong(
    "kto_loss",
    "sign of all",
    computed="sigma in the place of 1 - sigma",
    why="the loss falls as a desirable response gains",
    effect="everything is learned the wrong way round",
    lesson=KTO,
)
def kto_sign_of_all(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, desirable_weight * (1 - up), undesirable_weight * (1 - down)).mean()


@wrong(
    "kto_loss",
    "one sign for both",
    computed="the desirable formula for all",
    why="undesirable responses should fall below the point",
    effect="everything in the data becomes likelier",
    lesson=KTO,
)
def kto_one_sign_for_both(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, desirable_weight * up, undesirable_weight * up).mean()


@wrong(
    "kto_loss",
    "weights forgotten",
    computed="both kinds with weight 1",
    why="the weights balance unequal numbers of the two kinds",
    effect="the larger kind wins",
    lesson=KTO,
)
def kto_weights_forgotten(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, up, down).mean()


@wrong(
    "kto_loss",
    "weights swapped",
    computed="desirable_weight on undesirable responses",
    why="each weight belongs to its own kind",
    effect="imbalance is doubled in the place of mended",
    lesson=KTO,
)
def kto_weights_swapped(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, undesirable_weight * up, desirable_weight * down).mean()


@wrong(
    "kto_loss",
    "weights inside the sigmoid",
    computed="sigma(w beta ...)",
    why="a weight multiplies the loss",
    effect="weights change the temperature",
    lesson=KTO,
)
def kto_weights_inside_the_sigmoid(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    w = torch.where(good, desirable_weight, undesirable_weight).to(gain.dtype)
    return torch.sigmoid(torch.where(good, -gain, gain) * w).mean()


@wrong(
    "kto_loss",
    "divided by the weights",
    computed="a weighted mean",
    why="the contract is one mean over the batch",
    effect="doubling both weights changes nothing",
    lesson=KTO,
)
def kto_divided_by_the_weights(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    w = torch.where(good, desirable_weight, undesirable_weight).to(gain.dtype)
    return (w * torch.where(good, up, down)).sum() / w.sum()


@wrong(
    "kto_loss",
    "one mean a kind",
    computed="the mean over desirable plus the mean over undesirable",
    why="one mean over the batch",
    effect="the rare kind counts for more, twice the loss on a balanced batch",
    lesson=KTO,
)
def kto_one_mean_a_kind(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    n, m = good.sum().clamp(min=1), (~good).sum().clamp(min=1)
    return (desirable_weight * torch.where(good, up, 0)).sum() / n + (
        undesirable_weight * torch.where(good, 0, down)
    ).sum() / m


@wrong(
    "kto_loss",
    "mean of the kinds' means",
    computed="half the sum of the two means",
    why="one mean over the batch",
    effect="a batch of one kind counts half",
    lesson=KTO,
)
def kto_mean_of_the_kinds__means(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    n, m = good.sum().clamp(min=1), (~good).sum().clamp(min=1)
    return (
        (desirable_weight * torch.where(good, up, 0)).sum() / n
        + (undesirable_weight * torch.where(good, 0, down)).sum() / m
    ) / 2


@wrong(
    "kto_loss",
    "kind without members is NaN",
    computed="two means, one of them of nothing",
    why="a batch of one kind is ordinary",
    effect="NaN as soon as a batch has one kind",
    lesson=KTO,
)
def kto_kind_without_members_is_nan(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    a, b = desirable_weight * up[good].mean(), undesirable_weight * down[~good].mean()
    n = good.to(gain.dtype).mean()
    return n * a + (1 - n) * b


@wrong(
    "kto_loss",
    "no reference",
    computed="the policy's log-prob alone",
    why="KTO judges how far the policy moved from the reference",
    effect="long responses look bad whatever was learned",
    lesson=KTO,
)
def kto_no_reference(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, 0 * ref_logps, desirable, kl, beta)
    return torch.where(good, desirable_weight * up, undesirable_weight * down).mean()


@wrong(
    "kto_loss",
    "beta on the ratio only",
    computed="beta logratio - kl",
    why="beta multiplies the whole bracket",
    effect="the reference point weighs 1/beta times too much",
    lesson=KTO,
)
def kto_beta_on_the_ratio_only(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    ratio = beta * (policy_logps - ref_logps.detach()) - _constant(kl)
    good = desirable.bool()
    return torch.where(good, desirable_weight * torch.sigmoid(-ratio), undesirable_weight * torch.sigmoid(ratio)).mean()


@wrong(
    "kto_loss",
    "beta forgotten",
    computed="sigma(logratio - kl)",
    why="beta sets how far the policy may move",
    effect="saturated after the first steps",
    lesson=KTO,
)
def kto_beta_forgotten(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, 1.0)
    return torch.where(good, desirable_weight * up, undesirable_weight * down).mean()


@wrong(
    "kto_loss",
    "logistic loss",
    computed="-log sigma in the place of 1 - sigma",
    why="KTO's value function saturates on both sides",
    effect="the worst examples dominate: noise in the labels is learned",
    lesson=KTO,
)
def kto_logistic_loss(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, -desirable_weight * F.logsigmoid(gain), -undesirable_weight * F.logsigmoid(-gain)).mean()


@wrong(
    "kto_loss",
    "kl with gradient",
    computed="a reference point that learns",
    why="kl is a constant, even if it requires a gradient",
    effect="the loss falls by moving the point",
    lesson=KTO,
)
def kto_kl_with_gradient(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain = beta * (policy_logps - ref_logps.detach() - kl)
    good = desirable.bool()
    return torch.where(good, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain)).mean()


@wrong(
    "kto_loss",
    "reference with gradient",
    computed="a loss that trains the reference",
    why="ref_logps are constants",
    effect="double memory; if both are one module the gradient cancels",
    lesson=KTO,
)
def kto_reference_with_gradient(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain = beta * (policy_logps - ref_logps - _constant(kl))
    good = desirable.bool()
    return torch.where(good, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain)).mean()


@wrong(
    "kto_loss",
    "summed over the batch",
    computed="the sum over responses",
    why="the loss is a mean",
    effect="the gradient grows with the batch",
    lesson=KTO,
)
def kto_summed_over_the_batch(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    return torch.where(good, desirable_weight * up, undesirable_weight * down).sum()


@wrong(
    "kto_loss",
    "weights swapped and one mean a kind",
    computed="two mistakes at once",
    why="each weight its own kind, one mean for all",
    effect="the rare kind counts for more, with the other's weight",
    lesson=KTO,
)
def kto_weights_swapped_and_one_mean_a_kind(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    gain, good, up, down = _kto(policy_logps, ref_logps, desirable, kl, beta)
    n, m = good.sum().clamp(min=1), (~good).sum().clamp(min=1)
    return (undesirable_weight * torch.where(good, up, 0)).sum() / n + (
        desirable_weight * torch.where(good, 0, down)
    ).sum() / m

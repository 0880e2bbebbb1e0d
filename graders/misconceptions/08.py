"""Week 08, wrong: what learners' direct preference optimization computes instead."""

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong

# --- implicit_rewards -------------------------------------------------------------------------------------------------

INSIDE = "The reward inside a policy"


@wrong(
    "implicit_rewards",
    "sign flipped",
    computed="beta (reference - policy)",
    why="a response that the policy likes more than the reference does has a positive reward",
    effect="reward curves of a healthy run go down",
    lesson=INSIDE,
)
def rewards_flipped(policy_logps, ref_logps, beta):
    return (beta * (ref_logps - policy_logps)).detach()


@wrong(
    "implicit_rewards",
    "no beta",
    computed="policy - reference",
    why="the reward is measured in units of beta nats",
    effect="rewards of runs with different beta cannot be compared",
    lesson=INSIDE,
)
def rewards_without_beta(policy_logps, ref_logps, beta):
    return (policy_logps - ref_logps).detach()


@wrong(
    "implicit_rewards",
    "divided by beta",
    computed="(policy - reference) / beta",
    why="the optimal policy has exp(r / beta), so r is beta times the log-ratio",
    effect="rewards a hundred times too large at beta 0.1",
    lesson=INSIDE,
)
def rewards_divided_by_beta(policy_logps, ref_logps, beta):
    return ((policy_logps - ref_logps) / beta).detach()


@wrong(
    "implicit_rewards",
    "no reference",
    computed="beta times the policy's log-prob",
    why="the reward is how far the policy moved away from the reference",
    effect="long responses look bad whatever was learned",
    lesson=INSIDE,
)
def rewards_without_reference(policy_logps, ref_logps, beta):
    return (beta * policy_logps).detach()


@wrong(
    "implicit_rewards",
    "probability ratio",
    computed="beta times exp(policy - reference)",
    why="the reward is the log of the ratio",
    effect="rewards are never negative, and huge for a few responses",
    lesson=INSIDE,
)
def rewards_as_ratio(policy_logps, ref_logps, beta):
    return (beta * (policy_logps - ref_logps).exp()).detach()


@wrong(
    "implicit_rewards",
    "ratio of log-probs",
    computed="beta policy / reference",
    why="log(a / b) is log a - log b, not log a / log b",
    effect="a number without meaning that changes sign at random",
    lesson=INSIDE,
)
def rewards_as_quotient(policy_logps, ref_logps, beta):
    return (beta * policy_logps / ref_logps).detach()


@wrong(
    "implicit_rewards",
    "averaged",
    computed="one number for the batch",
    why="each response has its own reward",
    effect="chosen and rejected cannot be compared pair by pair",
    lesson=INSIDE,
)
def rewards_averaged(policy_logps, ref_logps, beta):
    return (beta * (policy_logps - ref_logps)).mean().detach()


@wrong(
    "implicit_rewards",
    "with a graph",
    computed="the right number, through which a gradient flows",
    why="it is a measurement for logs and plots",
    effect="memory grows with every logged batch, and a loss on it trains the policy",
    lesson=INSIDE,
)
def rewards_with_graph(policy_logps, ref_logps, beta):
    return beta * (policy_logps - ref_logps)


@wrong(
    "implicit_rewards",
    "squashed",
    computed="the sigmoid of the reward",
    why="the sigmoid turns a difference of two rewards into a probability; one reward has none",
    effect="margins saturate at 1",
    lesson=INSIDE,
)
def rewards_squashed(policy_logps, ref_logps, beta):
    return (beta * (policy_logps - ref_logps)).sigmoid().detach()


# --- dpo_loss ---------------------------------------------------------------------------------------------------------

DPO = "The DPO loss"


@wrong(
    "dpo_loss",
    "sign flipped",
    computed="-log sigma(-beta Delta)",
    why="Delta is chosen minus rejected",
    effect="the rejected responses become likelier; accuracy falls below one half",
    lesson=DPO,
)
def dpo_flipped(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return _smoothed(-x, label_smoothing)


def _delta(pc, pr, rc, rr):
    return (pc - rc.detach()) - (pr - rr.detach())


def _smoothed(x, eps):
    return (-(1 - eps) * F.logsigmoid(x) - eps * F.logsigmoid(-x)).mean()


@wrong(
    "dpo_loss",
    "not negated",
    computed="the mean log-likelihood of the preferences",
    why="optimizers minimise: the loss is minus the log-likelihood",
    effect="preferences are unlearned",
    lesson=DPO,
)
def dpo_not_negated(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return -_smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "no reference",
    computed="Delta from the policy's log-probs alone",
    why="the reference is what keeps the policy near where it started",
    effect="the policy drifts away from the language it knew",
    lesson=DPO,
)
def dpo_without_reference(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    return _smoothed(beta * (policy_chosen_logps - policy_rejected_logps), label_smoothing)


@wrong(
    "dpo_loss",
    "reference crossed",
    computed="(policy_chosen - ref_rejected) - (policy_rejected - ref_chosen)",
    why="each response is compared with the reference's log-prob of the same response",
    effect="pairs that the reference ranks right look far too good",
    lesson=DPO,
)
def dpo_with_crossed_reference(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_rejected_logps, ref_chosen_logps)
    return _smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "log-ratios added",
    computed="the sum of both log-ratios instead of their difference",
    why="only the difference says which of the two is preferred",
    effect="both responses become likelier, good and bad",
    lesson=DPO,
)
def dpo_adds_the_ratios(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = (policy_chosen_logps - ref_chosen_logps.detach()) + (policy_rejected_logps - ref_rejected_logps.detach())
    return _smoothed(beta * x, label_smoothing)


@wrong(
    "dpo_loss",
    "two sigmoids",
    computed="-log sigma(beta chosen) + log sigma(beta rejected)",
    why="the preference is one sigmoid of the difference; a shift of both rewards must change nothing",
    effect="not a likelihood: unbounded below, and dominated by whichever side is far out",
    lesson=DPO,
)
def dpo_with_two_sigmoids(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    chosen = F.logsigmoid(beta * (policy_chosen_logps - ref_chosen_logps.detach()))
    rejected = F.logsigmoid(beta * (policy_rejected_logps - ref_rejected_logps.detach()))
    return (rejected - chosen).mean()


@wrong(
    "dpo_loss",
    "beta outside",
    computed="beta times -log sigma(Delta)",
    why="beta stands inside the sigmoid, where it sets how far the policy may move",
    effect="only the learning rate changes; the temperature is 1",
    lesson=DPO,
)
def dpo_with_beta_outside(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return beta * _smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "beta twice",
    computed="-log sigma(beta^2 Delta)",
    why="beta multiplies Delta once",
    effect="at beta 0.1 the loss hardly leaves log 2",
    lesson=DPO,
)
def dpo_with_beta_twice(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps) * beta
    return _smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "beta on the policy only",
    computed="beta (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)",
    why="beta scales the whole difference",
    effect="the reference weighs 1/beta times too much",
    lesson=DPO,
)
def dpo_with_beta_on_the_policy(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    reference = (ref_chosen_logps - ref_rejected_logps).detach()
    return _smoothed(beta * (policy_chosen_logps - policy_rejected_logps) - reference, label_smoothing)


@wrong(
    "dpo_loss",
    "no log",
    computed="-sigma(beta Delta)",
    why="maximum likelihood takes the log of each probability",
    effect="the gradient vanishes on exactly the pairs that are ranked most wrongly",
    lesson=DPO,
)
def dpo_without_log(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (-(1 - label_smoothing) * x.sigmoid() - label_smoothing * (-x).sigmoid()).mean()


@wrong(
    "dpo_loss",
    "log of the mean",
    computed="-log of the batch's mean probability",
    why="each pair has its own log; the log of a mean is another number",
    effect="pairs that are far off are forgiven by the others",
    lesson=DPO,
)
def dpo_as_log_of_mean(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return -(1 - label_smoothing) * x.sigmoid().mean().log() - label_smoothing * (-x).sigmoid().mean().log()


@wrong(
    "dpo_loss",
    "averaged before the sigmoid",
    computed="-log sigma of the mean beta Delta",
    why="the loss is a mean over pairs of a loss of each pair",
    effect="one easy pair hides many wrong ones",
    lesson=DPO,
)
def dpo_averages_first(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return _smoothed(x.mean(), label_smoothing)


@wrong(
    "dpo_loss",
    "summed over the batch",
    computed="the sum over pairs",
    why="the loss is a mean over pairs",
    effect="the gradient grows with the batch",
    lesson=DPO,
)
def dpo_summed(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return _smoothed(x, label_smoothing) * len(x)


@wrong(
    "dpo_loss",
    "reference trained",
    computed="a loss whose gradient also reaches the reference's log-probs",
    why="the reference is a constant",
    effect="double memory; if both are one module, the gradient cancels to 0",
    lesson=DPO,
)
def dpo_trains_the_reference(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * ((policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps))
    return _smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "rejected side detached",
    computed="a gradient through the chosen responses only",
    why="both sides of the pair are the policy's",
    effect="nothing pushes the rejected responses down",
    lesson=DPO,
)
def dpo_detaches_the_rejected(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps.detach(), ref_chosen_logps, ref_rejected_logps)
    return _smoothed(x, label_smoothing)


@wrong(
    "dpo_loss",
    "no graph",
    computed="the right number, detached",
    why="nothing can be trained with a loss that has no gradient",
    effect="the policy never moves",
    lesson=DPO,
)
def dpo_without_graph(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return _smoothed(x, label_smoothing).detach()


@wrong(
    "dpo_loss",
    "label smoothing ignored",
    computed="plain DPO whatever label_smoothing says",
    why="eps of the labels are assumed to be the wrong way round",
    effect="the option has no effect",
    lesson=DPO,
)
def dpo_ignores_smoothing(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    return _smoothed(
        beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps), 0.0
    )


@wrong(
    "dpo_loss",
    "smoothing with the same sign",
    computed="(1 - eps) and eps of the same log sigma(beta Delta)",
    why="the smoothed part is the loss of the pair turned round: log sigma(-beta Delta)",
    effect="the two parts add up to plain DPO",
    lesson=DPO,
)
def dpo_smooths_the_same_sign(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (-(1 - label_smoothing) * F.logsigmoid(x) - label_smoothing * F.logsigmoid(x)).mean()


@wrong(
    "dpo_loss",
    "smoothed part subtracted",
    computed="robust DPO: the smoothed part with a minus, divided by 1 - 2 eps",
    why="that is another loss (arXiv:2403.00409); conservative DPO adds the two parts",
    effect="noisy labels are trusted more, not less",
    lesson=DPO,
)
def dpo_robust(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    loss = -(1 - label_smoothing) * F.logsigmoid(x) + label_smoothing * F.logsigmoid(-x)
    return (loss / (1 - 2 * label_smoothing) if label_smoothing != 0.5 else loss).mean()


@wrong(
    "dpo_loss",
    "weights of the labels swapped",
    computed="eps of the loss as labelled, 1 - eps of the loss turned round",
    why="eps is the share of wrong labels: the small one",
    effect="the rejected responses become likelier",
    lesson=DPO,
)
def dpo_swaps_the_weights(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return _smoothed(x, 1 - label_smoothing)


@wrong(
    "dpo_loss",
    "no reference and beta outside",
    computed="beta times -log sigma(policy_chosen - policy_rejected)",
    why="the reference is missing, and beta stands inside the sigmoid",
    effect="the policy drifts, at a temperature of 1",
    lesson=DPO,
)
def dpo_without_reference_beta_outside(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    return beta * _smoothed(policy_chosen_logps - policy_rejected_logps, label_smoothing)


@wrong(
    "dpo_loss",
    "log of the sigmoid",
    computed="log(sigma(x)): -inf once the sigmoid underflows",
    why="logsigmoid is linear there and keeps the gradient",
    effect="the pairs that are most wrong give an infinite loss and NaN",
    lesson=DPO,
    star=True,
)
def dpo_log_of_sigmoid(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (-(1 - label_smoothing) * x.sigmoid().log() - label_smoothing * (-x).sigmoid().log()).mean()


# --- ipo_loss ---------------------------------------------------------------------------------------------------------

IPO = "A target instead of a race: IPO"


@wrong(
    "ipo_loss",
    "target 1/beta",
    computed="(Delta - 1/beta)^2",
    why="the target is 1/(2 beta)",
    effect="pairs are pushed twice as far apart",
    lesson=IPO,
)
def ipo_target_without_two(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta - 1 / beta).square().mean()


@wrong(
    "ipo_loss",
    "target beta/2",
    computed="(Delta - beta/2)^2: 1/2*beta read from left to right",
    why="the target is 1 / (2 beta): a smaller beta allows a larger margin",
    effect="the margin stays near 0 and nothing is learned",
    lesson=IPO,
)
def ipo_target_beta_half(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta - 1 / 2 * beta).square().mean()


@wrong(
    "ipo_loss",
    "beta on Delta too",
    computed="(beta Delta - 1/(2 beta))^2",
    why="beta stands in the target only",
    effect="the target is 1/(2 beta^2): out of reach for small beta",
    lesson=IPO,
)
def ipo_scales_delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (beta * delta - 1 / (2 * beta)).square().mean()


@wrong(
    "ipo_loss",
    "target one half",
    computed="(beta Delta - 1/2)^2",
    why="the same minimum, but the loss is beta^2 times too small",
    effect="a learning rate that depends on beta",
    lesson=IPO,
)
def ipo_rescaled(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (beta * delta - 0.5).square().mean()


@wrong(
    "ipo_loss",
    "target added",
    computed="(Delta + 1/(2 beta))^2",
    why="the margin should arrive at plus the target",
    effect="the rejected responses become likelier, up to a point",
    lesson=IPO,
)
def ipo_adds_the_target(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta + 1 / (2 * beta)).square().mean()


@wrong(
    "ipo_loss",
    "no reference",
    computed="the squared distance of policy_chosen - policy_rejected from the target",
    why="Delta is measured from the reference",
    effect="pairs that the reference ranks clearly are pulled together",
    lesson=IPO,
)
def ipo_without_reference(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    return (policy_chosen_logps - policy_rejected_logps - 1 / (2 * beta)).square().mean()


@wrong(
    "ipo_loss",
    "averaged before the square",
    computed="(mean Delta - target)^2",
    why="each pair has its own distance from the target",
    effect="pairs far above and far below the target cancel",
    lesson=IPO,
)
def ipo_averages_first(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta.mean() - 1 / (2 * beta)).square()


@wrong(
    "ipo_loss",
    "absolute distance",
    computed="the mean of |Delta - target|",
    why="the loss is quadratic: the pull weakens near the target",
    effect="the margin jumps around its target",
    lesson=IPO,
)
def ipo_absolute(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta - 1 / (2 * beta)).abs().mean()


@wrong(
    "ipo_loss",
    "half of the square",
    computed="one half of the mean square",
    why="the loss has no 1/2",
    effect="a learning rate of one half",
    lesson=IPO,
)
def ipo_halved(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return 0.5 * (delta - 1 / (2 * beta)).square().mean()


@wrong(
    "ipo_loss",
    "only below the target",
    computed="a squared hinge: nothing for pairs beyond the target",
    why="IPO also pulls back what is too far apart; that is its point",
    effect="margins grow without bound, as in DPO",
    lesson=IPO,
)
def ipo_hinge(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (1 / (2 * beta) - delta).clamp(min=0).square().mean()


@wrong(
    "ipo_loss",
    "reference trained",
    computed="a loss whose gradient also reaches the reference's log-probs",
    why="the reference is a constant",
    effect="double memory; if both are one module, the gradient cancels to 0",
    lesson=IPO,
)
def ipo_trains_the_reference(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1
):
    delta = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    return (delta - 1 / (2 * beta)).square().mean()


@wrong(
    "ipo_loss",
    "no reference and target 1/beta",
    computed="(policy_chosen - policy_rejected - 1/beta)^2",
    why="Delta is measured from the reference, and the target is 1/(2 beta)",
    effect="pairs are pushed twice as far apart, wherever they started",
    lesson=IPO,
)
def ipo_without_reference_or_two(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1
):
    return (policy_chosen_logps - policy_rejected_logps - 1 / beta).square().mean()


# --- preference_logps -------------------------------------------------------------------------------------------------

FORWARD = "Two responses, one forward pass"


def _stack(batch, name):
    sides = batch[f"chosen_{name}"], batch[f"rejected_{name}"]
    width = max(side.shape[1] for side in sides)
    return torch.cat([F.pad(side, (0, width - side.shape[1])) for side in sides])


def _logps(logits, ids, mask):
    lp = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (lp * mask[:, 1:].to(lp.dtype)).sum(1)


def _forward(model, batch):
    ids = _stack(batch, "input_ids")
    return model(input_ids=ids, attention_mask=_stack(batch, "attention_mask")).logits, ids


def _halves(logps):
    return logps[: len(logps) // 2], logps[len(logps) // 2 :]


@wrong(
    "preference_logps",
    "averaged over tokens",
    computed="the mean log-prob of each response",
    why="the log-prob of a response is a sum; DPO's reward is defined by it",
    effect="a length-normalised objective under the name of DPO; the loss stays near log 2",
    lesson=FORWARD,
)
def logps_averaged(model, batch):
    logits, ids = _forward(model, batch)
    mask = _stack(batch, "response_mask")
    return _halves(_logps(logits, ids, mask) / mask[:, 1:].sum(1))


@wrong(
    "preference_logps",
    "no shift",
    computed="the logits at t against the token at t",
    why="the logits at t - 1 predict the token at t",
    effect="log-probs of tokens that the model has already seen",
    lesson=FORWARD,
)
def logps_unshifted(model, batch):
    logits, ids = _forward(model, batch)
    lp = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return _halves((lp * _stack(batch, "response_mask").to(lp.dtype)).sum(1))


@wrong(
    "preference_logps",
    "mask not shifted",
    computed="shifted log-probs under the mask of one position earlier",
    why="the mask marks tokens; it moves with the labels",
    effect="the first response token is lost and one pad is counted",
    lesson=FORWARD,
)
def logps_with_unshifted_mask(model, batch):
    logits, ids = _forward(model, batch)
    lp = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return _halves((lp * _stack(batch, "response_mask")[:, :-1].to(lp.dtype)).sum(1))


@wrong(
    "preference_logps",
    "prompt counted",
    computed="the log-prob of prompt and response together",
    why="only the response is the policy's choice",
    effect="harmless where both prompts are equal, and a constant in every log",
    lesson=FORWARD,
)
def logps_with_prompt(model, batch):
    logits, ids = _forward(model, batch)
    return _halves(_logps(logits, ids, _stack(batch, "attention_mask")))


@wrong(
    "preference_logps",
    "padding counted",
    computed="everything after the prompt, padding included",
    why="padding is no part of the response",
    effect="the margin depends on the other pairs of the batch",
    lesson=FORWARD,
)
def logps_with_padding(model, batch):
    logits, ids = _forward(model, batch)
    after = _stack(batch, "response_mask").cumsum(1) > 0
    return _halves(_logps(logits, ids, after))


@wrong(
    "preference_logps",
    "chosen mask on both sides",
    computed="the rejected tokens under the chosen response's mask",
    why="each side has its own length",
    effect="rejected responses are cut or padded to the chosen one's length",
    lesson=FORWARD,
)
def logps_with_the_chosen_mask(model, batch):
    logits, ids = _forward(model, batch)
    mask = _stack(batch, "response_mask")[: len(ids) // 2].repeat(2, 1)
    return _halves(_logps(logits, ids, mask))


@wrong(
    "preference_logps",
    "sides swapped",
    computed="(rejected, chosen)",
    why="the contract returns the chosen side first",
    effect="the policy learns to prefer what was rejected",
    lesson=FORWARD,
)
def logps_swapped(model, batch):
    logits, ids = _forward(model, batch)
    return _halves(_logps(logits, ids, _stack(batch, "response_mask")))[::-1]


@wrong(
    "preference_logps",
    "rows interleaved",
    computed="even rows as chosen and odd rows as rejected",
    why="cat puts all chosen rows above all rejected rows",
    effect="pairs are compared with other pairs' responses",
    lesson=FORWARD,
)
def logps_interleaved(model, batch):
    logits, ids = _forward(model, batch)
    logps = _logps(logits, ids, _stack(batch, "response_mask"))
    return logps[::2], logps[1::2]


@wrong(
    "preference_logps",
    "two forward passes",
    computed="the right numbers from two calls of the model",
    why="the contract asks for one call over both sides",
    effect="slower, and with dropout or sharded models not the same",
    lesson=FORWARD,
)
def logps_in_two_passes(model, batch):
    sides = []
    for side in ("chosen", "rejected"):
        ids = batch[f"{side}_input_ids"]
        logits = model(input_ids=ids, attention_mask=batch[f"{side}_attention_mask"]).logits
        sides.append(_logps(logits, ids, batch[f"{side}_response_mask"]))
    return tuple(sides)


@wrong(
    "preference_logps",
    "padding attended",
    computed="attention 1 everywhere",
    why="padding is no context",
    effect="a response's log-prob depends on how long the other side is",
    lesson=FORWARD,
)
def logps_attending_to_padding(model, batch):
    ids = _stack(batch, "input_ids")
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return _halves(_logps(logits, ids, _stack(batch, "response_mask")))


@wrong(
    "preference_logps",
    "response mask as attention mask",
    computed="a response without its prompt",
    why="the response depends on the prompt, which must be attended",
    effect="preferences between answers to unknown questions",
    lesson=FORWARD,
)
def logps_without_seeing_the_prompt(model, batch):
    ids, mask = _stack(batch, "input_ids"), _stack(batch, "response_mask")
    logits = model(input_ids=ids, attention_mask=mask.long()).logits
    return _halves(_logps(logits, ids, mask))


@wrong(
    "preference_logps",
    "padded on the left",
    computed="the shorter side moved to the right",
    why="positions count from the left: padding there moves every token",
    effect="the shorter side's log-probs are those of another position",
    lesson=FORWARD,
)
def logps_padded_on_the_left(model, batch):
    def stack(name):
        sides = batch[f"chosen_{name}"], batch[f"rejected_{name}"]
        width = max(side.shape[1] for side in sides)
        return torch.cat([F.pad(side, (width - side.shape[1], 0)) for side in sides])

    ids = stack("input_ids")
    logits = model(input_ids=ids, attention_mask=stack("attention_mask")).logits
    return _halves(_logps(logits, ids, stack("response_mask")))


@wrong(
    "preference_logps",
    "cut to the shorter side",
    computed="both sides cut to the smaller width",
    why="the shorter side is padded; nothing is thrown away",
    effect="the end of the longer responses is never compared",
    lesson=FORWARD,
)
def logps_cut(model, batch):
    width = min(batch["chosen_input_ids"].shape[1], batch["rejected_input_ids"].shape[1])
    parts = {name: tensor[:, :width] for name, tensor in batch.items()}
    logits, ids = _forward(model, parts)
    return _halves(_logps(logits, ids, _stack(parts, "response_mask")))


@wrong(
    "preference_logps",
    "without a graph",
    computed="the right numbers under no_grad",
    why="the policy is trained through these log-probs",
    effect="the policy never moves",
    lesson=FORWARD,
)
@torch.no_grad()
def logps_without_graph(model, batch):
    logits, ids = _forward(model, batch)
    return _halves(_logps(logits, ids, _stack(batch, "response_mask")).requires_grad_())


@wrong(
    "preference_logps",
    "perplexity's sign",
    computed="minus the summed log-probs",
    why="log-probs are negative; the loss is what has a minus",
    effect="every margin has the wrong sign",
    lesson=FORWARD,
)
def logps_negated(model, batch):
    logits, ids = _forward(model, batch)
    return _halves(-_logps(logits, ids, _stack(batch, "response_mask")))


@wrong(
    "preference_logps",
    "NaN in padding leaks",
    computed="NaN as soon as the model's logits at padding are NaN",
    why="0 times NaN is NaN",
    effect="one attention kernel that leaves NaN at padding ends the run",
    lesson=FORWARD,
    star=True,
)
def logps_with_leaking_nan(model, batch):
    logits, ids = _forward(model, batch)
    return _halves(_logps(logits, ids, _stack(batch, "response_mask")))


# --- dpo_step ---------------------------------------------------------------------------------------------------------

STEP = "One update"


def _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, **mistake):
    """The right update with one switch for each of the mistakes below that differ from it by a line."""
    if not mistake.get("keeps_stale"):
        optimizer.zero_grad()
    logits, ids = _forward(policy, batch)
    mask = _stack(batch, "response_mask")
    pc, pr = _halves(_logps(logits, ids, mask))
    if mistake.get("changes_mode"):
        reference.eval()
    ref_logits, _ = _forward(policy if mistake.get("policy_as_reference") else reference, batch)
    rc, rr = _halves(_logps(ref_logits, ids, mask))
    if not mistake.get("reference_graph"):
        rc, rr = rc.detach(), rr.detach()
    arguments = (pc, rc, pr, rr) if mistake.get("other_order") else (pc, pr, rc, rr)
    loss = loss_fn(*arguments)
    if mistake.get("two_backwards"):
        loss.backward(retain_graph=True)
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in policy.parameters()))
    if not mistake.get("never_clips"):
        bound = 1.0 if mistake.get("clips_at_one") else max_grad_norm
        torch.nn.utils.clip_grad_norm_(policy.parameters(), bound)
    if mistake.get("norm_after"):
        norm = torch.sqrt(sum((p.grad**2).sum() for p in policy.parameters()))
    if mistake.get("zeroes_before_step"):
        optimizer.zero_grad()
    if not mistake.get("never_steps"):
        optimizer.step()
    if mistake.get("metrics_after"):
        pc, pr = _halves(_logps(*_forward(policy, batch), mask))
        loss = loss_fn(pc, pr, rc, rr)
    if mistake.get("reference_follows"):
        reference.load_state_dict(policy.state_dict())
    delta = (pc - pr) if mistake.get("metrics_without_reference") else (pc - rc) - (pr - rr)
    ties = {"ties_won": 1.0, "ties_lost": 0.0}
    tie = next((value for name, value in ties.items() if mistake.get(name)), 0.5)
    accuracy = ((delta > 0).double() + tie * (delta == 0).double()).mean()
    margin = delta.mean() * (0.2 if mistake.get("margin_with_beta") else 1.0)
    numbers = {"loss": loss, "accuracy": accuracy, "margin": margin, "grad_norm": norm}
    if mistake.get("returns_tensors"):
        return {name: number.detach() for name, number in numbers.items()}
    return {name: number.item() for name, number in numbers.items()}


@wrong(
    "dpo_step",
    "stale gradients kept",
    computed="a step along this batch's gradient plus whatever .grad held before",
    why="backward adds to .grad; it has to be cleared",
    effect="old batches are trained again and again",
    lesson=STEP,
)
def step_keeps_stale_gradients(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, keeps_stale=True)


@wrong(
    "dpo_step",
    "reference with a graph",
    computed="reference log-probs through which a gradient flows",
    why="the reference is a constant: torch.no_grad() around its forward pass",
    effect="twice the memory, and gradients in a model that must not learn",
    lesson=STEP,
)
def step_with_reference_graph(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, reference_graph=True)


@wrong(
    "dpo_step",
    "policy as its own reference",
    computed="Delta = 0 for every pair",
    why="the reference is the model before training",
    effect="the loss is log 2 for ever and the accuracy one half",
    lesson=STEP,
)
def step_with_the_policy_as_reference(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, policy_as_reference=True)


@wrong(
    "dpo_step",
    "reference follows the policy",
    computed="a reference that is replaced by the policy after each update",
    why="the reference stays as it is: KL is measured from it",
    effect="nothing holds the policy back",
    lesson=STEP,
)
def step_moves_the_reference(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, reference_follows=True)


@wrong(
    "dpo_step",
    "reference switched to eval",
    computed="the right update, and a reference in another mode than before",
    why="a function that scores leaves models as it finds them",
    effect="a later training of that model runs without dropout",
    lesson=STEP,
)
def step_changes_the_mode(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, changes_mode=True)


@wrong(
    "dpo_step",
    "arguments in another order",
    computed="loss_fn(policy_chosen, ref_chosen, policy_rejected, ref_rejected)",
    why="loss_fn takes policy chosen, policy rejected, reference chosen, reference rejected",
    effect="the loss compares the policy with the reference instead of chosen with rejected",
    lesson=STEP,
)
def step_with_other_order(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, other_order=True)


@wrong(
    "dpo_step",
    "accuracy without the reference",
    computed="accuracy and margin of the policy's log-probs alone",
    why="they compare implicit rewards, which are measured from the reference",
    effect="an accuracy that is high or low before anything was learned",
    lesson=STEP,
)
def step_metrics_without_reference(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, metrics_without_reference=True)


@wrong(
    "dpo_step",
    "ties lost",
    computed="accuracy counts Delta > 0 only",
    why="a tie counts one half",
    effect="accuracy 0 at the first step, where policy = reference",
    lesson=STEP,
)
def step_loses_ties(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, ties_lost=True)


@wrong(
    "dpo_step",
    "ties won",
    computed="accuracy counts Delta >= 0",
    why="a tie counts one half",
    effect="accuracy 1 at the first step, where policy = reference",
    lesson=STEP,
)
def step_wins_ties(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, ties_won=True)


@wrong(
    "dpo_step",
    "margin times beta",
    computed="the mean of a scaled Delta",
    why="the margin is the mean Delta, without beta: dpo_step does not know beta",
    effect="margins of different runs cannot be compared",
    lesson=STEP,
)
def step_scales_the_margin(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, margin_with_beta=True)


@wrong(
    "dpo_step",
    "norm after clipping",
    computed="the norm of the clipped gradient",
    why="the norm before clipping tells how often the clip acts",
    effect="a curve that is flat at max_grad_norm",
    lesson=STEP,
)
def step_reports_the_clipped_norm(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, norm_after=True)


@wrong(
    "dpo_step",
    "never clipped",
    computed="a step along the gradient as it is",
    why="max_grad_norm bounds the gradient's norm",
    effect="one strange batch can throw the policy far away",
    lesson=STEP,
)
def step_never_clips(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, never_clips=True)


@wrong(
    "dpo_step",
    "clipped at 1 always",
    computed="clipping to 1.0 whatever max_grad_norm says",
    why="the bound is an argument",
    effect="the option has no effect",
    lesson=STEP,
)
def step_clips_at_one(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, clips_at_one=True)


@wrong(
    "dpo_step",
    "measured after the update",
    computed="loss, accuracy and margin of the updated policy",
    why="all four numbers describe the policy before the update",
    effect="a loss that is one step ahead of its gradient, at the price of another forward pass",
    lesson=STEP,
)
def step_measures_afterwards(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, metrics_after=True)


@wrong(
    "dpo_step",
    "gradients cleared before the step",
    computed="a step along no gradient",
    why="the order is clear, backward, clip, step",
    effect="the weights never move, though the loss is logged",
    lesson=STEP,
)
def step_clears_too_late(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, zeroes_before_step=True)


@wrong(
    "dpo_step",
    "no optimizer step",
    computed="the metrics alone",
    why="the function is one update",
    effect="the weights never move",
    lesson=STEP,
)
def step_never_steps(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, never_steps=True)


@wrong(
    "dpo_step",
    "tensors returned",
    computed="the right metrics as tensors",
    why="the contract says floats: .item()",
    effect="a log that keeps tensors, on the GPU with their graphs, grows until memory ends",
    lesson=STEP,
)
def step_returns_tensors(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, returns_tensors=True)


@wrong(
    "dpo_step",
    "ties lost and norm after clipping",
    computed="accuracy of strict wins beside the clipped norm",
    why="a tie counts one half, and the norm is measured before clipping",
    effect="two curves that say less than they could",
    lesson=STEP,
)
def step_with_two_wrong_metrics(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    return _step(policy, reference, batch, optimizer, loss_fn, max_grad_norm, ties_lost=True, norm_after=True)

"""Week 01, right: log-probs, KL estimates and optimal policies written in other ways."""

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- token_logprobs ---------------------------------------------------------------------------------------------------


@right("token_logprobs", "minus cross_entropy, classes on dimension 1")
def logprobs_by_cross_entropy(logits, labels):
    return -F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


@right("token_logprobs", "the label's logit minus logsumexp")
def logprobs_by_logsumexp(logits, labels):
    return logits.gather(2, labels[..., None])[..., 0] - torch.logsumexp(logits, dim=2)


@right("token_logprobs", "log of softmax, a one-hot product")
def logprobs_by_one_hot(logits, labels):
    return (torch.log(torch.softmax(logits, dim=-1)) * F.one_hot(labels, logits.shape[-1]).to(logits.dtype)).sum(-1)


@right("token_logprobs", "torch.distributions")
def logprobs_by_distribution(logits, labels):
    return torch.distributions.Categorical(logits=logits).log_prob(labels)


# --- sequence_logprobs ------------------------------------------------------------------------------------------------


@right("sequence_logprobs", "mask by multiplication")
def sequence_by_product(logits, input_ids, response_mask):
    lp = torch.log_softmax(logits[:, :-1], dim=-1)
    lp = torch.gather(lp, 2, input_ids[:, 1:].unsqueeze(2)).squeeze(2)
    return (lp * response_mask[:, 1:].to(lp.dtype)).sum(dim=-1)


@right("sequence_logprobs", "cross_entropy with ignored labels, summed a row")
def sequence_by_cross_entropy(logits, input_ids, response_mask):
    labels = input_ids.masked_fill(~response_mask.bool(), -100)[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none")
    return -losses.reshape(labels.shape).sum(1)


@right("sequence_logprobs", "a loop over rows and tokens")
def sequence_by_loop(logits, input_ids, response_mask):
    sums = []
    for i in range(len(input_ids)):
        total = logits.new_zeros(())
        for t in range(1, input_ids.shape[1]):
            if response_mask[i, t]:
                total = total + logits[i, t - 1].log_softmax(0)[input_ids[i, t]]
        sums.append(total)
    return torch.stack(sums)


@right("sequence_logprobs", "log-probs padded in front to T, masked_fill")
def sequence_by_padding(logits, input_ids, response_mask):
    picked = logits[:, :-1].gather(-1, input_ids[:, 1:, None])[..., 0] - logits[:, :-1].logsumexp(-1)
    return F.pad(picked, (1, 0)).masked_fill(response_mask == 0, 0.0).sum(-1)


# --- kl_estimates -----------------------------------------------------------------------------------------------------


@right("kl_estimates", "plain exp, as in the formula")
def kl_by_formula(logprobs, ref_logprobs):
    d = logprobs - ref_logprobs.detach()
    return d, 0.5 * d * d, torch.exp(-d) - 1 + d


@right("kl_estimates", "in terms of the log-ratio ref/pi")
def kl_by_ref_ratio(logprobs, ref_logprobs):
    with torch.no_grad():
        ref = ref_logprobs.clone()
    log_ratio = ref - logprobs
    return -log_ratio, log_ratio.pow(2).div(2), log_ratio.exp() - log_ratio - 1


@right("kl_estimates", "a ratio of probabilities")
def kl_by_probabilities(logprobs, ref_logprobs):
    ratio = torch.exp(ref_logprobs.detach()) / torch.exp(logprobs)
    d = -torch.log(ratio)
    return d, d.square() / 2, (ratio - 1) - torch.log(ratio)


# --- kl_shaped_rewards ------------------------------------------------------------------------------------------------


@right("kl_shaped_rewards", "mask by multiplication, without detach")
def shaped_by_product(rewards, logprobs, ref_logprobs, mask, beta):
    return rewards - beta * ((logprobs - ref_logprobs) * mask.to(logprobs.dtype)).sum(dim=1)


@right("kl_shaped_rewards", "two masked sums, under no_grad")
@torch.no_grad()
def shaped_by_two_sums(rewards, logprobs, ref_logprobs, mask, beta):
    own = logprobs.masked_fill(mask == 0, 0).sum(-1)
    ref = ref_logprobs.masked_fill(mask == 0, 0).sum(-1)
    return torch.add(rewards, ref - own, alpha=beta)


@right("kl_shaped_rewards", "a loop over rows")
def shaped_by_loop(rewards, logprobs, ref_logprobs, mask, beta):
    shaped = rewards.clone()
    for i, row in enumerate(mask.bool()):
        shaped[i] -= beta * (logprobs[i, row] - ref_logprobs[i, row]).sum()
    return shaped.detach()


# --- optimal_policy ---------------------------------------------------------------------------------------------------


@right("optimal_policy", "the formula as it stands")
def policy_by_formula(ref_probs, rewards, beta):
    weights = ref_probs * torch.exp(rewards / beta)
    return weights / weights.sum(dim=-1, keepdim=True)


@right("optimal_policy", "softmax of log ref plus r / beta")
def policy_by_softmax(ref_probs, rewards, beta):
    return torch.softmax(torch.log(ref_probs) + rewards / beta, dim=-1)


@right("optimal_policy", "log space, logsumexp, exp at the end")
def policy_by_logsumexp(ref_probs, rewards, beta):
    log_weights = ref_probs.log() + rewards / beta
    return (log_weights - log_weights.logsumexp(-1, keepdim=True)).exp()


@right("optimal_policy", "F.normalize of the weights, best possible reward subtracted")
def policy_by_normalize(ref_probs, rewards, beta):
    best = rewards.masked_fill(ref_probs == 0, -torch.inf).max(-1, keepdim=True).values
    return F.normalize(ref_probs * ((rewards - best) / beta).exp(), p=1, dim=-1)

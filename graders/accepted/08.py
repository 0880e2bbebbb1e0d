"""Week 08, right: direct preference optimization written in other ways."""

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- implicit_rewards -------------------------------------------------------------------------------------------------


@right("implicit_rewards", "under no_grad, beta multiplied into each term")
@torch.no_grad()
def rewards_under_no_grad(policy_logps, ref_logps, beta):
    return beta * policy_logps - beta * ref_logps


@right("implicit_rewards", "detached first, torch.sub and mul_ on the new tensor")
def rewards_detached_first(policy_logps, ref_logps, beta):
    return torch.sub(policy_logps.detach(), ref_logps.detach()).mul_(beta)


@right("implicit_rewards", "a loop, stacked")
def rewards_by_loop(policy_logps, ref_logps, beta):
    return torch.stack([beta * (p - r) for p, r in zip(policy_logps, ref_logps, strict=True)]).data


# --- dpo_loss ---------------------------------------------------------------------------------------------------------


@right("dpo_loss", "softplus, log-ratios of the policies grouped")
def dpo_by_softplus(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    with torch.no_grad():
        reference = ref_chosen_logps - ref_rejected_logps
    x = beta * (policy_chosen_logps - policy_rejected_logps - reference)
    return torch.mean(F.softplus(-x) * (1 - label_smoothing) + F.softplus(x) * label_smoothing)


@right("dpo_loss", "binary cross-entropy with soft labels")
def dpo_by_cross_entropy(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    x = beta * (
        (policy_chosen_logps - ref_chosen_logps.detach()) - (policy_rejected_logps - ref_rejected_logps.detach())
    )
    return F.binary_cross_entropy_with_logits(x, torch.full_like(x, 1 - label_smoothing))


@right("dpo_loss", "log of the sigmoid, pair by pair")
def dpo_by_pairs(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    losses = []
    for pc, pr, rc, rr in zip(
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps.detach(), ref_rejected_logps.detach(), strict=True
    ):
        p = torch.sigmoid(beta * pc - beta * rc - beta * pr + beta * rr)
        losses.append(-(1 - label_smoothing) * torch.log(p) - label_smoothing * torch.log(1 - p))
    return sum(losses) / len(losses)


@right("dpo_loss", "logsumexp of the two implicit rewards, smoothing as a linear term")
def dpo_by_logsumexp(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=0.0
):
    chosen = beta * (policy_chosen_logps - ref_chosen_logps.detach())
    rejected = beta * (policy_rejected_logps - ref_rejected_logps.detach())
    as_labelled = torch.logaddexp(chosen, rejected) - chosen
    return (as_labelled + label_smoothing * (chosen - rejected)).mean()


# --- ipo_loss ---------------------------------------------------------------------------------------------------------


@right("ipo_loss", "F.mse_loss against the target")
def ipo_by_mse(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = policy_chosen_logps - policy_rejected_logps - (ref_chosen_logps - ref_rejected_logps).detach()
    return F.mse_loss(delta, torch.full_like(delta, 0.5 / beta))


@right("ipo_loss", "the square expanded")
def ipo_expanded(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    delta = (policy_chosen_logps - ref_chosen_logps.detach()) - (policy_rejected_logps - ref_rejected_logps.detach())
    return (delta * delta).mean() - delta.mean() / beta + 1 / (4 * beta**2)


@right("ipo_loss", "the reference under no_grad, a mean written as sum over count")
def ipo_by_sum(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    with torch.no_grad():
        target = 1 / (2 * beta) + ref_chosen_logps - ref_rejected_logps
    return torch.sum(torch.pow(policy_chosen_logps - policy_rejected_logps - target, 2)) / target.numel()


# --- preference_logps -------------------------------------------------------------------------------------------------


def _joined(batch, name, value=0):
    chosen, rejected = batch["chosen_" + name], batch["rejected_" + name]
    width = max(chosen.size(1), rejected.size(1))
    out = chosen.new_full((len(chosen) + len(rejected), width), value)
    out[: len(chosen), : chosen.size(1)] = chosen
    out[len(chosen) :, : rejected.size(1)] = rejected
    return out


@right("preference_logps", "filled tensors, another pad id, mask by multiplication")
def logps_by_filling(model, batch):
    ids = _joined(batch, "input_ids", 7)
    logits = model(input_ids=ids, attention_mask=_joined(batch, "attention_mask")).logits[:, :-1]
    lp = torch.log_softmax(logits, -1).gather(2, ids[:, 1:].unsqueeze(2)).squeeze(2)
    sums = (lp * _joined(batch, "response_mask")[:, 1:]).sum(-1)
    return sums.chunk(2)[0], sums.chunk(2)[1]


@right("preference_logps", "cross_entropy with ignore_index, summed a row")
def logps_by_cross_entropy(model, batch):
    ids = _joined(batch, "input_ids")
    labels = ids.masked_fill(_joined(batch, "response_mask") == 0, -100)
    logits = model(input_ids=ids, attention_mask=_joined(batch, "attention_mask")).logits
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return tuple((-losses.sum(1)).split(len(batch["chosen_input_ids"])))


@right("preference_logps", "row by row after one forward pass")
def logps_by_rows(model, batch):
    ids, mask = _joined(batch, "input_ids"), _joined(batch, "response_mask").bool()
    logits = model(input_ids=ids, attention_mask=_joined(batch, "attention_mask")).logits
    sums = []
    for row, tokens, keep in zip(logits, ids, mask, strict=True):
        where = keep[1:].nonzero().flatten()
        sums.append((row[where, tokens[where + 1]] - row[where].logsumexp(-1)).sum())
    half = len(batch["rejected_input_ids"])
    return torch.stack(sums[:half]), torch.stack(sums[half:])


# --- dpo_step ---------------------------------------------------------------------------------------------------------


@right("dpo_step", "the reference first, under inference_mode")
def step_reference_first(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    with torch.inference_mode():
        ref_chosen, ref_rejected = logps_by_filling(reference, batch)
    ref_chosen, ref_rejected = ref_chosen.clone(), ref_rejected.clone()  # usable in autograd again
    chosen, rejected = logps_by_filling(policy, batch)
    loss = loss_fn(chosen, rejected, ref_chosen, ref_rejected)
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
    optimizer.step()
    with torch.no_grad():
        delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    return {
        "grad_norm": float(norm),
        "margin": float(delta.mean()),
        "accuracy": float((torch.sign(delta) + 1).mean() / 2),
        "loss": float(loss.detach()),
    }


@right("dpo_step", "detached reference, clipping written out, counts in Python")
def step_with_own_clipping(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    policy.zero_grad()
    pc, pr = logps_by_cross_entropy(policy, batch)
    rc, rr = (x.detach() for x in logps_by_cross_entropy(reference, batch))
    loss = loss_fn(pc, pr, rc, rr)
    loss.backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])).item()
    if norm > max_grad_norm:
        for g in gradients:
            g *= max_grad_norm / norm
    optimizer.step()
    deltas = ((pc - rc) - (pr - rr)).tolist()
    wins = sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in deltas)
    return {"loss": loss.item(), "accuracy": wins / len(deltas), "margin": sum(deltas) / len(deltas), "grad_norm": norm}


@right("dpo_step", "requires_grad of the reference switched off for its pass, torch.heaviside")
def step_with_frozen_reference(policy, reference, batch, optimizer, loss_fn, max_grad_norm=1.0):
    flags = [p.requires_grad for p in reference.parameters()]
    reference.requires_grad_(False)
    ref_chosen, ref_rejected = logps_by_rows(reference, batch)
    for parameter, flag in zip(reference.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    optimizer.zero_grad()
    chosen, rejected = logps_by_rows(policy, batch)
    loss = loss_fn(chosen, rejected, ref_chosen, ref_rejected)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm=max_grad_norm).item()
    optimizer.step()
    delta = (chosen.detach() - ref_chosen) - (rejected.detach() - ref_rejected)
    accuracy = torch.heaviside(delta, torch.full_like(delta, 0.5)).mean().item()
    return dict(loss=loss.item(), accuracy=accuracy, margin=delta.mean().item(), grad_norm=norm)

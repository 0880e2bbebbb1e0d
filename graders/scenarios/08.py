"""Scenes for week 08: tiny models score and learn from made pairs of responses."""

import copy
from types import SimpleNamespace

import torch
import torch.nn.functional as F

VOCABULARY, LONGEST = 11, 24


class TinyLM(torch.nn.Module):
    """Logits from the token, its position and the mean of the attended tokens of its row. Counts its calls."""

    def __init__(self, seed: int, logits_dtype: torch.dtype = torch.float64, nan_at_padding: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(
            torch.randn(2, VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
        )
        self.positions = torch.randn(LONGEST, VOCABULARY, generator=generator, dtype=torch.float64)
        self.logits_dtype, self.nan_at_padding, self.calls = logits_dtype, nan_at_padding, 0

    def forward(self, *, input_ids, attention_mask):
        self.calls += 1
        mask = attention_mask.to(torch.float64).unsqueeze(-1)
        context = (self.table[1][input_ids] * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        logits = self.table[0][input_ids] + context + self.positions[: input_ids.shape[1]]
        if self.nan_at_padding:  # what some attention kernels leave there
            logits = torch.where(mask.bool(), logits, torch.nan)
        return SimpleNamespace(logits=logits.to(self.logits_dtype))


def pairs(lengths: list[list[int]], generator: torch.Generator, mask_dtype: torch.dtype = torch.long) -> dict:
    """A batch from [prompt, chosen, rejected] lengths. Equal negative lengths stand for one and the same response on
    both sides: a tie."""
    batch, sides = {}, {"chosen": [], "rejected": []}
    for prompt, chosen, rejected in lengths:
        ids = torch.randint(1, VOCABULARY, (prompt + abs(chosen),), generator=generator)
        other = torch.randint(1, VOCABULARY, (prompt + abs(rejected),), generator=generator)
        other[:prompt] = ids[:prompt]
        sides["chosen"].append((prompt, ids))
        sides["rejected"].append((prompt, ids if chosen == rejected < 0 else other))
    for side, rows in sides.items():
        width = max(len(ids) for _, ids in rows)
        batch[f"{side}_input_ids"] = torch.stack([F.pad(ids, (0, width - len(ids))) for _, ids in rows])
        t, ends = torch.arange(width), torch.tensor([len(ids) for _, ids in rows])[:, None]
        starts = torch.tensor([prompt for prompt, _ in rows])[:, None]
        batch[f"{side}_attention_mask"] = (t < ends).long()
        batch[f"{side}_response_mask"] = ((t >= starts) & (t < ends)).to(mask_dtype)
    return batch


def score_pairs(
    preference_logps,
    lengths: list[list[int]],
    seed: int = 0,
    bool_masks: bool = False,
    half_precision: bool = False,
    nan_at_padding: bool = False,
):
    """`lengths[pair]` is [prompt, chosen, rejected]. Returns the log-probs, the gradient of a weighted sum of them with
    respect to the model, and how often the model was called."""
    model = TinyLM(seed, torch.bfloat16 if half_precision else torch.float64, nan_at_padding)
    generator = torch.Generator().manual_seed(seed)
    batch = pairs(lengths, generator, torch.bool if bool_masks else torch.long)
    before = copy.deepcopy(batch)
    chosen, rejected = preference_logps(model, batch)
    weights = torch.arange(1.0, 1 + len(lengths), dtype=torch.float64)
    (weights * (chosen.double() - 0.7 * rejected.double())).sum().backward()
    return {
        "chosen": chosen.double(),
        "rejected": rejected.double(),
        "model calls": model.calls,
        "gradient": model.table.grad,
        "batch unchanged": all(torch.equal(batch[name], before[name]) for name in before),
    }


def update(
    dpo_step,
    lengths: list[list[int]],
    seed: int = 0,
    max_grad_norm: float | None = 1e9,
    same_weights: bool = False,
    stale_gradient: float = 0.0,
    odd_loss: bool = False,
    nan_at_padding: bool = False,
):
    """One update; max_grad_norm None: left at its default. The odd loss treats its four arguments all differently.
    Returns the metrics, how the policy moved, and what became of the reference."""
    policy = TinyLM(seed, nan_at_padding=nan_at_padding)
    reference = TinyLM(seed if same_weights else seed + 1, nan_at_padding=nan_at_padding)
    batch = pairs(lengths, torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.3)
    start, frozen = policy.table.detach().clone(), reference.table.detach().clone()
    if stale_gradient:
        policy.table.grad = torch.full_like(policy.table, stale_gradient)
    seen = []

    def loss_fn(policy_chosen, policy_rejected, ref_chosen, ref_rejected):
        seen.append([list(x.shape) for x in (policy_chosen, policy_rejected, ref_chosen, ref_rejected)])
        seen.append([ref_chosen.requires_grad, ref_rejected.requires_grad])
        if odd_loss:
            return (
                0.5 * policy_chosen - 0.3 * policy_rejected + 0.02 * policy_chosen * (ref_chosen - 2 * ref_rejected)
            ).mean()
        return -F.logsigmoid(0.2 * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))).mean()

    settings = {} if max_grad_norm is None else {"max_grad_norm": max_grad_norm}
    metrics = dpo_step(policy, reference, batch, optimizer, loss_fn, **settings)
    gradient = reference.table.grad
    return {
        "metrics": metrics,
        "moved": policy.table.detach() - start,
        "loss_fn got shapes": seen[0] if seen else None,
        "loss_fn got reference log-probs with a graph": seen[1] if seen else None,
        "reference moved": not torch.equal(reference.table.detach(), frozen),
        "reference has a gradient": gradient is not None and bool(gradient.any()),
        "reference mode": "train" if reference.training else "eval",
    }


def without_gradient(implicit_rewards, policy_logps: torch.Tensor, ref_logps: torch.Tensor, beta: float):
    """The rewards of log-probs that require a gradient, and whether a gradient would flow back."""
    rewards = implicit_rewards(policy_logps.clone().requires_grad_(), ref_logps.clone().requires_grad_(), beta)
    return {"rewards": rewards.detach(), "carries a graph": rewards.requires_grad}

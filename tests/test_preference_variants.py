"""DPO-norm and the two APO losses against TRL's DPOTrainer."""

from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch.testing import assert_close

from reference_impl import preference_variants as variants

LENGTHS = torch.tensor([2, 5, 3, 4, 1, 3])  # three chosen responses, then three rejected ones


def trl_loss(loss_type, beta, policy_logps, ref_logps):
    """TRL's DPOTrainer._compute_loss itself, on a stand-in model; `*_logps` are (6,) sums, chosen first."""
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = MagicMock(
        beta=beta, loss_types=[loss_type], loss_weights=[1.0], label_smoothing=0.0, f_divergence_type="reverse_kl",
        ld_alpha=None, precompute_ref_logps=True, aux_loss_enabled=False, use_weighting=False, _tp_size=1,
        _total_train_tokens=0, _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    trainer.accelerator.device = "cpu"
    trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = lambda x: x
    rows, width = len(LENGTHS), int(LENGTHS.max())
    # position 0 is the prompt; the response's log-prob is spread evenly over its tokens
    completion_mask = (torch.arange(width + 1) > 0) & (torch.arange(width + 1) <= LENGTHS[:, None])
    per_token = (policy_logps / LENGTHS)[:, None] * completion_mask[:, 1:]
    batch = {
        "input_ids": torch.ones(rows, width + 1, dtype=torch.long), "attention_mask": torch.ones(rows, width + 1),
        "completion_mask": completion_mask.long(),
        "ref_chosen_logps": ref_logps[:3], "ref_rejected_logps": ref_logps[3:],
    }  # fmt: skip
    zeros = torch.zeros(rows, width)
    outputs = SimpleNamespace(log_probs=per_token, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    return DPOTrainer._compute_loss(trainer, lambda **kwargs: outputs, batch, False)


def random_logps(seed):
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(6, dtype=torch.float64, generator=generator) - 10


@pytest.mark.parametrize(
    "loss, loss_type, beta, averaged, constant",
    [
        (variants.dpo_norm_loss, "sigmoid_norm", 2.0, True, 0.0),
        (variants.apo_zero_loss, "apo_zero", 0.1, False, 1.0),
        (variants.apo_down_loss, "apo_down", 0.1, False, 1.0),
    ],
)
def test_value_is_trls_up_to_the_stated_constant_and_gradient_is_trls(loss, loss_type, beta, averaged, constant):
    ref = random_logps(1)
    divisor = LENGTHS if averaged else 1

    def ours(policy):
        scaled, scaled_ref = policy / divisor, ref / divisor
        return loss(scaled[:3], scaled[3:], scaled_ref[:3], scaled_ref[3:])  # the default beta is the one named above

    policy = random_logps(2).requires_grad_()
    value, expected = ours(policy), trl_loss(loss_type, beta, policy, ref)
    assert_close(value + constant, expected)
    assert_close(torch.autograd.grad(value, policy), torch.autograd.grad(expected, policy))


@pytest.mark.parametrize("loss", [variants.dpo_norm_loss, variants.apo_zero_loss, variants.apo_down_loss])
def test_gradients_are_right_and_the_reference_gets_none(loss):
    policy, ref = random_logps(3).requires_grad_(), random_logps(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p[:3], p[3:], ref[:3], ref[3:], 0.3), (policy,))
    loss(policy[:3], policy[3:], ref[:3], ref[3:]).backward()
    assert ref.grad is None


def test_apo_zero_raises_the_chosen_and_apo_down_lowers_it():
    def slopes(loss):
        policy = [torch.zeros(1, requires_grad=True) for _ in range(2)]
        loss(*policy, torch.zeros(1), torch.zeros(1)).backward()
        return [p.grad.item() for p in policy]

    chosen, rejected = slopes(variants.apo_zero_loss)
    assert chosen < 0 < rejected  # a step goes down the gradient: chosen up, rejected down
    chosen, rejected = slopes(variants.apo_down_loss)
    assert chosen == 0 and rejected > 0  # at the start the two pulls on the chosen response cancel ...
    policy = torch.tensor([2.0], requires_grad=True), torch.tensor([-8.0], requires_grad=True)
    variants.apo_down_loss(*policy, torch.zeros(1), torch.zeros(1)).backward()
    assert policy[0].grad > 0  # ... and once the margin is there the chosen one is lowered too


@pytest.mark.parametrize("loss", [variants.dpo_norm_loss, variants.apo_zero_loss, variants.apo_down_loss])
def test_extreme_log_ratios_stay_finite(loss):
    far = torch.tensor([-2000.0, 2000.0], requires_grad=True)
    value = loss(far, -far.detach(), torch.zeros(2), torch.zeros(2), beta=1.0)
    value.backward()
    assert value.isfinite() and far.grad.isfinite().all()

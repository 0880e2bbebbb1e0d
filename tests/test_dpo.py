"""Week 08 proven: minimisers on an enumerable policy, one pass against two, TRL's trainer, known traps."""

import copy
import importlib.util
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch.testing import assert_close

from reference_impl import dpo as reference
from reference_impl.models.nano import NanoConfig, NanoLM
from reference_impl.objective import optimal_policy

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location("week08_solution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/08/dpo.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs_with_delta(delta):
    """Four log-probs of pairs whose Delta is `delta`, otherwise arbitrary."""
    policy_rejected, ref_chosen, ref_rejected = (10 * randn(len(delta), seed=s).to(delta.dtype) for s in (1, 2, 3))
    return delta + ref_chosen + policy_rejected - ref_rejected, policy_rejected, ref_chosen, ref_rejected


# ---- values and gradients


@both
def test_losses_equal_plain_python(impl):
    four = [randn(7, seed=s) for s in range(4)]
    pc, pr, rc, rr = (x.tolist() for x in four)
    deltas = [(pc[i] - rc[i]) - (pr[i] - rr[i]) for i in range(7)]
    sigma = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    for beta, eps in [(0.1, 0.0), (0.7, 0.0), (0.7, 0.1), (2.0, 0.5)]:
        terms = [-(1 - eps) * math.log(sigma(beta * d)) - eps * math.log(sigma(-beta * d)) for d in deltas]
        assert_close(impl.dpo_loss(*four, beta=beta, label_smoothing=eps), doubles(sum(terms) / 7)[0])
        ipo = sum((d - 1 / (2 * beta)) ** 2 for d in deltas) / 7
        assert_close(impl.ipo_loss(*four, beta=beta), doubles(ipo)[0])
        assert_close(
            impl.implicit_rewards(four[0], four[2], beta), doubles(*[beta * (pc[i] - rc[i]) for i in range(7)])
        )
    assert_close(impl.dpo_loss(*four), impl.dpo_loss(*four, 0.1, 0.0))
    assert_close(impl.ipo_loss(*four), impl.ipo_loss(*four, 0.1))


@both
def test_gradients_flow_into_the_policy_only(impl):
    four = [randn(3, seed=s).requires_grad_() for s in range(4)]
    smoothed = lambda *x: impl.dpo_loss(*x, beta=0.7, label_smoothing=0.2)  # noqa: E731
    for loss in [smoothed, lambda *x: impl.ipo_loss(*x, beta=0.7)]:
        gradients = torch.autograd.grad(loss(*four), four, allow_unused=True)
        assert_close(gradients[0], -gradients[1])
        assert gradients[0].abs().min() > 0 and gradients[2] is None and gradients[3] is None
        frozen = [x.detach() for x in four[2:]]
        assert torch.autograd.gradcheck(lambda a, b, loss=loss, frozen=frozen: loss(a, b, *frozen), four[:2])
    assert not impl.implicit_rewards(four[0], four[2], 0.1).requires_grad


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("delta", [-1e4, -2000.0, -200.0, 200.0, 2000.0])
def test_hopeless_and_finished_pairs(impl, dtype, delta):
    """Traps R01, D07: -log(sigmoid(-200)) is infinite in float32; the loss is 200 and the gradient -beta."""
    chosen = torch.tensor([delta], dtype=dtype).requires_grad_()
    zero = torch.zeros(1, dtype=dtype)
    loss = impl.dpo_loss(chosen, zero, zero, zero, beta=1.0)
    gradient = torch.autograd.grad(loss, chosen)[0]
    expected = max(-delta, 0.0) + math.log1p(math.exp(-abs(delta)))
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-300 if dtype == torch.float64 else 1e-37)
    assert gradient.item() == pytest.approx(-1.0 if delta < 0 else -math.exp(-delta), rel=1e-6, abs=1e-37)
    smooth = impl.dpo_loss(chosen, zero, zero, zero, beta=1.0, label_smoothing=0.1)
    assert smooth.item() == pytest.approx(abs(delta) * (0.9 if delta < 0 else 0.1), rel=1e-6)
    assert impl.ipo_loss(chosen, zero, zero, zero, beta=0.5).item() == pytest.approx((delta - 1) ** 2, rel=1e-6)


@both
def test_a_shift_of_both_sides_changes_nothing(impl):
    """Trap D02: a difference of two log-sigmoids would move; the loss sees each pair through Delta alone."""
    four = [randn(5, seed=s) for s in range(4)]
    shifted = [four[0] + 3, four[1] + 3, four[2], four[3]]
    assert_close(impl.dpo_loss(*shifted, beta=2.0), impl.dpo_loss(*four, beta=2.0))
    assert_close(impl.ipo_loss(*shifted), impl.ipo_loss(*four))


@both
def test_half_precision_log_probs_are_subtracted_in_float32(impl):
    """bfloat16 has neighbours 1 and 4096 apart at these sizes: the difference of the differences would be rounded."""
    four = [torch.tensor([x], dtype=torch.bfloat16) for x in (-300.0, -1.0078125, -2.0, -298.0)]
    exact = impl.dpo_loss(*(x.double() for x in four), beta=0.05).item()
    assert impl.dpo_loss(*four, beta=0.05).item() == pytest.approx(exact, rel=1e-5)
    exact = impl.ipo_loss(*(x.double() for x in four)).item()
    assert impl.ipo_loss(*four).item() == pytest.approx(exact, rel=1e-5)
    assert impl.implicit_rewards(four[0], four[1], 0.1).item() == pytest.approx(-29.89921875, rel=1e-5)


@both
def test_results_follow_the_inputs_and_inputs_stay(impl):
    for dtype in [torch.float32, torch.float64]:
        four = [randn(10, seed=s).to(dtype)[::2] for s in range(4)]
        before = [x.clone() for x in four]
        results = [impl.dpo_loss(*four), impl.ipo_loss(*four), impl.implicit_rewards(four[0], four[1], 0.1)]
        assert [r.dtype for r in results] == [dtype] * 3 and [r.dim() for r in results] == [0, 0, 1]
        assert all(torch.equal(a, b) for a, b in zip(four, before, strict=True))


# ---- minimisers on an enumerable policy: five answers to one prompt, every pair, exact preference probabilities

REF, SCORES = randn(5, seed=4).softmax(0), 1.5 * randn(5, seed=5)
PREFERENCES = torch.sigmoid(SCORES[:, None] - SCORES[None, :])  # P(a beats b), Bradley-Terry


def population_loss(loss, logits):
    """Expected loss over all ordered pairs (a, b), a being preferred with its exact probability."""
    logps, ref = logits.log_softmax(0), REF.log()
    total = 0.0
    for a in range(5):
        for b in range(5):
            total = total + PREFERENCES[a, b] * loss(logps[a, None], logps[b, None], ref[a, None], ref[b, None])
    return total


def minimise(loss):
    logits = randn(5, seed=6).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], 1, 400, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = population_loss(loss, logits)
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(0)


@both
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_dpo_is_minimised_by_the_closed_form_for_the_true_rewards(impl, beta):
    """The theorem of the paper: no reward model, no sampling, and still the policy that RLHF looks for."""
    found = minimise(lambda *four: impl.dpo_loss(*four, beta=beta))
    assert_close(found, optimal_policy(REF, SCORES, beta), rtol=1e-5, atol=1e-7)
    implied = impl.implicit_rewards(found.log(), REF.log(), beta)
    assert_close(implied - implied.mean(), SCORES - SCORES.mean(), rtol=1e-4, atol=1e-5)


@both
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_ipo_is_minimised_by_the_closed_form_for_win_rates(impl, beta):
    """Azar et al.: pi proportional to ref exp(P(y beats a random answer) / beta): bounded, whatever the data."""
    found = minimise(lambda *four: impl.ipo_loss(*four, beta=beta))
    assert_close(found, optimal_policy(REF, PREFERENCES.mean(dim=1), beta), rtol=1e-5, atol=1e-7)


@both
def test_where_a_single_pair_comes_to_rest(impl):
    """Always preferred: DPO never rests, cDPO rests at log((1-eps)/eps)/beta, IPO at 1/(2 beta)."""

    def slope(loss, delta):
        four = pairs_with_delta(doubles(delta))
        four[0].requires_grad_()
        return torch.autograd.grad(loss(*four), four[0])[0].item()

    def rests_at(loss, delta):
        return slope(loss, delta - 0.01) < 0 < slope(loss, delta + 0.01) and abs(slope(loss, delta)) < 1e-12

    assert all(slope(lambda *x: impl.dpo_loss(*x, beta=0.2), d) < 0 for d in (-5.0, 0.0, 5.0, 50.0))
    assert rests_at(lambda *x: impl.dpo_loss(*x, beta=0.2, label_smoothing=0.1), math.log(9) / 0.2)
    assert rests_at(lambda *x: impl.ipo_loss(*x, beta=0.2), 2.5)


# ---- preference_logps, on the course's own model


def nano(seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NanoLM(
            NanoConfig(vocab_size=11, hidden_size=16, intermediate_size=24, num_attention_heads=2, head_dim=8)
        )
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def side(lengths, prompts, seed):
    """Right-padded rows of `lengths` tokens, the first `prompts` of each being the prompt; pads are id 0."""
    width = max(lengths)
    ids = torch.randint(1, 11, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    attention = torch.tensor([[int(t < n) for t in range(width)] for n in lengths])
    response = torch.tensor([[int(p <= t < n) for t in range(width)] for n, p in zip(lengths, prompts, strict=True)])
    return {"input_ids": ids * attention, "attention_mask": attention, "response_mask": response}


def pair_batch(chosen=(9, 5, 4), rejected=(4, 7, 6), prompts=(3, 4, 2)):
    both_sides = {"chosen": side(chosen, prompts, 1), "rejected": side(rejected, prompts, 2)}
    return {f"{name}_{key}": value for name, rows in both_sides.items() for key, value in rows.items()}


def row_logp(model, ids, attention, response):
    """One row alone, without padding, in plain Python."""
    n = int(attention.sum())
    logprobs = model(input_ids=ids[None, :n]).logits[0].log_softmax(-1)
    return sum(logprobs[t - 1, ids[t]].item() for t in range(1, n) if response[t])


@both
@pytest.mark.parametrize("lengths", [((9, 5, 4), (4, 7, 6)), ((5, 6, 4), (8, 5, 11)), ((7, 5, 6), (7, 6, 5))])
def test_one_pass_equals_rows_scored_alone(impl, lengths):
    model, batch = nano(), pair_batch(*lengths)
    calls = []
    model.register_forward_hook(
        lambda module, args, kwargs, output: calls.append(output.logits.shape), with_kwargs=True
    )
    result = impl.preference_logps(model, batch)
    assert calls == [(6, max(map(max, lengths)), 11)]
    for name, logps in zip(["chosen", "rejected"], result, strict=True):
        rows = [batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask", "response_mask")]
        assert_close(logps, doubles(*[row_logp(model, *row) for row in zip(*rows, strict=True)]))


@both
def test_padding_ids_and_mask_dtypes_never_matter(impl):
    model, batch = nano(), pair_batch()
    expected = impl.preference_logps(model, batch)
    for dtype in [torch.bool, torch.float32]:
        other = {k: v.to(dtype) if k.endswith("response_mask") else v for k, v in batch.items()}
        for name in ["chosen", "rejected"]:
            pad = 1 - batch[f"{name}_attention_mask"]
            other[f"{name}_input_ids"] = batch[f"{name}_input_ids"] + 10 * pad
        assert_close(impl.preference_logps(model, other), expected)


@both
def test_the_gradient_is_that_of_two_passes(impl):
    model, batch = nano(), pair_batch()
    weights = {"chosen": doubles(1.0, -2.0, 0.5), "rejected": doubles(0.3, 1.0, 2.0)}
    chosen, rejected = impl.preference_logps(model, batch)
    (chosen @ weights["chosen"] + rejected @ weights["rejected"]).backward()
    gradient = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    for name in weights:
        ids, attention, response = (batch[f"{name}_{k}"] for k in ("input_ids", "attention_mask", "response_mask"))
        logprobs = model(input_ids=ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
        picked = logprobs.gather(-1, ids[:, 1:, None]).squeeze(-1) * response[:, 1:]
        (picked.sum(1) @ weights[name]).backward()
    assert_close(model.model.embed_tokens.weight.grad, gradient)


@both
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_garbage_in_the_logits_of_padding_changes_neither_value_nor_gradient(impl, garbage):
    batch, clean = pair_batch(), randn(6, 9, 11)
    lengths = torch.tensor([9, 5, 4, 4, 7, 6])
    padding = torch.arange(9) >= lengths[:, None]
    results = []
    for logits in [clean.clone(), torch.where(padding[..., None], garbage, clean)]:
        logits.requires_grad_()
        chosen, rejected = impl.preference_logps(lambda logits=logits, **kwargs: SimpleNamespace(logits=logits), batch)
        results.append((chosen, rejected, torch.autograd.grad((chosen - 2 * rejected).sum(), logits)[0]))
    assert_close(results[1], results[0])


@both
def test_bfloat16_logits_keep_a_small_difference_of_the_pair(impl):
    """Trap T4: responses of 400 tokens that differ in one; a bfloat16 sum (spacing 4 near -700) calls them equal."""
    ids = torch.randint(11, (1, 400), generator=torch.Generator().manual_seed(0))
    table = randn(400, 11).bfloat16()
    other = ids.clone()
    other[0, 200] = table[199].topk(2).indices[0]
    ids[0, 200] = table[199].topk(2).indices[1]
    ones = torch.ones_like(ids)
    batch = {"chosen_input_ids": other, "rejected_input_ids": ids}
    batch |= {f"{name}_{mask}": ones for name in ("chosen", "rejected") for mask in ("attention_mask", "response_mask")}

    def margin(dtype):
        chosen, rejected = impl.preference_logps(
            lambda **kw: SimpleNamespace(logits=table.to(dtype).expand(2, -1, -1)), batch
        )
        return (chosen - rejected).item()

    exact = margin(torch.float64)
    assert 0.05 < exact < 1.0
    assert margin(torch.bfloat16) == pytest.approx(exact, abs=1e-3)


# ---- dpo_step


def step(impl, policy, ref, batch, loss_fn=None, lr=0.1, max_grad_norm=1.0):
    optimizer = torch.optim.SGD(policy.parameters(), lr=lr)
    return impl.dpo_step(policy, ref, batch, optimizer, loss_fn or impl.dpo_loss, max_grad_norm)


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


@both
def test_the_first_step_starts_at_log_two_and_learns(impl):
    policy, ref, batch = nano(), nano(), pair_batch()
    before = weights_of(ref)
    history = [step(impl, policy, ref, batch) for _ in range(10)]
    assert history[0]["loss"] == pytest.approx(math.log(2))
    assert history[0]["accuracy"] == 0.5 and history[0]["margin"] == 0.0
    assert set(history[0]) == {"loss", "accuracy", "margin", "grad_norm"}
    assert all(type(value) is float for value in history[0].values())
    assert history[-1]["loss"] < 0.6 and history[-1]["margin"] > 1.0 and history[-1]["accuracy"] == 1.0
    assert torch.equal(weights_of(ref), before)


@both
def test_no_loss_function_reaches_the_reference(impl):
    """A loss that forgets to detach: only a reference that runs under no_grad keeps its gradient empty."""
    policy, ref = nano(1), nano(2)
    step(impl, policy, ref, pair_batch(), lambda pc, pr, rc, rr: ((pc - rc) - (pr - rr)).mean())
    assert all(p.grad is None for p in ref.parameters())


@both
@pytest.mark.parametrize("max_grad_norm", [0.01, 1e9])
def test_one_step_is_the_clipped_gradient_step(impl, max_grad_norm):
    policy, ref, batch = nano(1), nano(2), pair_batch()
    chosen, rejected = reference.preference_logps(policy, batch)
    ref_chosen, ref_rejected = (x.detach() for x in reference.preference_logps(ref, batch))
    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    loss = (delta - 1 / (2 * 0.3)).square().mean()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])
    norm = gradient.norm().item()
    expected = weights_of(policy) - 0.1 * gradient * min(1.0, max_grad_norm / (norm + 1e-6))
    for p in policy.parameters():
        p.grad = torch.full_like(p, 3.0)  # stale
    metrics = step(impl, policy, ref, batch, lambda *x: impl.ipo_loss(*x, beta=0.3), max_grad_norm=max_grad_norm)
    assert_close(weights_of(policy), expected)
    accuracy = (delta > 0).double().mean().item()
    wanted = {"loss": loss.item(), "accuracy": accuracy, "margin": delta.mean().item(), "grad_norm": norm}
    assert metrics == pytest.approx(wanted)
    assert accuracy not in (0.0, 1.0) and norm > 0.02


@both
def test_modes_stay_and_a_shared_module_still_learns(impl):
    """Trap D08: with a gradient through the reference as well, policy = reference would have gradient 0."""
    policy, ref = nano().train(), nano().eval()
    step(impl, policy, ref, pair_batch())
    assert policy.training and not ref.training
    assert step(impl, policy, policy, pair_batch())["grad_norm"] > 0.01


# ---- TRL: the trainer's own loss method, on the log-probs of its own forward convention


def trl_dpo(loss_type, policy_logprobs, ref_logprobs, mask, beta, label_smoothing=0.0):
    """`DPOTrainer._compute_loss` for per-token log-probs (2B, T-1) of [chosen; rejected]; returns loss and metrics."""
    from trl.trainer.dpo_trainer import DPOTrainer

    def model_of(logprobs):
        rest = torch.zeros_like(logprobs)
        output = SimpleNamespace(log_probs=logprobs, entropy=rest, mean_logits=rest, is_top1=rest.bool(), aux_loss=None)
        return lambda **kwargs: output

    me = MagicMock(
        beta=beta, label_smoothing=label_smoothing, loss_types=[loss_type], loss_weights=[1.0], ld_alpha=None
    )
    me.configure_mock(f_divergence_type="reverse_kl", precompute_ref_logps=False, use_weighting=False, _tp_size=1)
    me.configure_mock(aux_loss_enabled=False, _total_train_tokens=0, _metrics={"eval": defaultdict(list)})
    me.model.training, me.ref_model = False, model_of(ref_logprobs)
    me.accelerator.gather = me.accelerator.gather_for_metrics = lambda value: value
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
    loss = DPOTrainer._compute_loss(me, model_of(policy_logprobs), inputs, False)
    return loss, {key: values[-1] for key, values in me._metrics["eval"].items()}


def token_logprobs_of_pairs():
    """Per-token log-probs of 3 pairs, zero outside the response, with the completion mask (6, 8)."""
    mask = torch.tensor([[int(2 <= t < 2 + n) for t in range(8)] for n in (6, 1, 3, 2, 4, 5)])
    policy, ref = (-randn(6, 7, seed=s).abs() * mask[:, 1:] for s in (0, 1))
    return policy.requires_grad_(), ref, mask


def four_sums(policy, ref, divisor=1.0):
    return [x for logps in (policy, ref) for x in (logps.sum(1) / divisor).chunk(2)]


@both
def test_trl_has_the_same_dpo_loss_gradient_and_implicit_rewards(impl):
    policy, ref, mask = token_logprobs_of_pairs()
    four = four_sums(policy, ref)
    ours = impl.dpo_loss(*four, beta=0.3)
    theirs, metrics = trl_dpo("sigmoid", policy, ref, mask, 0.3)
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours, policy, retain_graph=True), torch.autograd.grad(theirs, policy))
    rewards = impl.implicit_rewards(four[0], four[2], 0.3), impl.implicit_rewards(four[1], four[3], 0.3)
    assert metrics["rewards/chosen"] == pytest.approx(rewards[0].mean().item())
    assert metrics["rewards/rejected"] == pytest.approx(rewards[1].mean().item())


@both
def test_trl_averages_log_probs_for_ipo_and_otherwise_agrees(impl):
    policy, ref, mask = token_logprobs_of_pairs()
    theirs, _ = trl_dpo("ipo", policy, ref, mask, 0.3)
    ours = impl.ipo_loss(*four_sums(policy, ref, mask.sum(1)), beta=0.3)
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours, policy), torch.autograd.grad(theirs, policy))
    summed = impl.ipo_loss(*four_sums(policy, ref), beta=0.3)
    assert abs(summed - theirs) > 0.1  # the same function of summed log-probs, as in the book's code


@both
def test_trl_smooths_labels_by_the_robust_loss_which_is_not_cdpo(impl):
    """robust = ((1-eps) L - eps L_flipped) / (1-2 eps); cDPO adds the two. The robust one is unbiased under flips."""
    policy, ref, mask = token_logprobs_of_pairs()
    pc, pr, rc, rr = four_sums(policy, ref)
    clean, flipped = impl.dpo_loss(pc, pr, rc, rr, beta=0.3), impl.dpo_loss(pr, pc, rr, rc, beta=0.3)
    theirs, _ = trl_dpo("robust", policy, ref, mask, 0.3, label_smoothing=0.1)
    assert_close(theirs, (0.9 * clean - 0.1 * flipped) / 0.8)
    assert_close(impl.dpo_loss(pc, pr, rc, rr, beta=0.3, label_smoothing=0.1), 0.9 * clean + 0.1 * flipped)
    assert abs(theirs - impl.dpo_loss(pc, pr, rc, rr, beta=0.3, label_smoothing=0.1)) > 0.01


def test_trl_counts_a_tie_as_a_loss_where_we_count_one_half():
    policy, _, mask = token_logprobs_of_pairs()
    _, metrics = trl_dpo("sigmoid", policy, policy.detach(), mask, 0.3)
    assert metrics["rewards/accuracies"] == 0.0
    assert step(reference, nano(), copy.deepcopy(nano()), pair_batch())["accuracy"] == 0.5

"""A step of SFT, DPO or RL on a large vocabulary is the plain step; a batch cut into parts has the same gradient."""

import copy
from types import SimpleNamespace

import pytest
import torch

from reference_impl import dpo, logprobs, sft
from reference_impl.data.pairs import Pair
from reference_impl.loops.accumulate import backward, scorer
from reference_impl.loops.batch import Batch
from reference_impl.loops.preference_updates import answer_update, pair_update
from reference_impl.loops.sft_steps import batch_loss, sft_steps
from reference_impl.loops.update import update
from reference_impl.models import NanoConfig, NanoLM
from reference_impl.settings import PPOSettings, ReferenceFreeSettings

V = 4999
TOKENIZER = SimpleNamespace(pad_token_id=0)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 5 * V)
    torch.manual_seed(0)
    return NanoLM(NanoConfig(vocab_size=V, hidden_size=16, intermediate_size=24, num_attention_heads=2, head_dim=8))


def descent(model):
    return torch.optim.SGD(model.parameters(), lr=1.0)


def same_weights(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def examples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def ids(longest):
        length = int(torch.randint(1, longest, (1,), generator=generator))
        return torch.randint(3, V, (length,), generator=generator).tolist()

    return [(ids(6), ids(9), ids(7)) for _ in range(count)]


def test_an_sft_step_with_the_week_s_loss_on_chunks_is_the_week_s_own_step(model):
    plain, large = copy.deepcopy(model), copy.deepcopy(model)
    rows = [sft.build_example(prompt, answer, 2, 12) for prompt, answer, _ in examples(9)]
    batches = [[sft.collate(rows[:4], 0), sft.collate(rows[4:6], 0)], [sft.collate(rows[6:], 0)]]
    want = sft.sft_loop(plain, batches, descent(plain), 1.0)
    functions = SimpleNamespace(sft_loss=sft.sft_loss, sft_loop=None)  # not called: it would ask for whole logits
    got = sft_steps(large, batches, descent(large), 1.0, None, functions)
    assert got == pytest.approx(want, rel=1e-5)
    same_weights(large, plain)
    logits = plain(input_ids=batches[1][0]["input_ids"], attention_mask=batches[1][0]["attention_mask"]).logits
    torch.testing.assert_close(
        batch_loss(large, batches[1][0], sft.sft_loss), sft.sft_loss(logits, batches[1][0]["labels"])
    )


def test_a_batch_without_supervised_tokens_takes_no_step(model):
    before = copy.deepcopy(model)
    batch = sft.collate([sft.build_example([5, 6, 7], [8], 2, 3)], 0)
    assert sft_steps(model, [[batch]], descent(model), 1.0, None, SimpleNamespace(sft_loss=sft.sft_loss)) == [0.0]
    same_weights(model, before)
    assert batch_loss(model, batch, sft.sft_loss).item() == 0.0


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_dpo_step_on_a_large_vocabulary_is_dpo_step(model, micro_batches, monkeypatch):
    training = [Pair(*three) for three in examples(12)]
    settings = SimpleNamespace(batch_size=5, seed=0, max_grad_norm=1.0, micro_batches=micro_batches)
    reference = NanoLM(model.config).requires_grad_(False)
    reads = []
    reference.register_forward_hook(lambda *call: reads.append(call))
    reference.model.register_forward_hook(lambda *call: reads.append(call))

    def loss_for(batch):
        return lambda *logps: dpo.dpo_loss(*logps, beta=0.3)

    large, plain = copy.deepcopy(model), copy.deepcopy(model)
    one = pair_update(dpo, loss_for, TOKENIZER, settings)
    got = [one(step, training, large, reference, descent(large)) for step in range(2)]
    assert len(reads) == 1, "the reference reads all pairs once"
    monkeypatch.setattr(logprobs, "LARGE_VOCABULARY", V + 1)
    other = pair_update(dpo, loss_for, TOKENIZER, settings)
    want = [other(step, training, plain, reference, descent(plain)) for step in range(2)]
    for (metrics, tokens), (plain_metrics, plain_tokens) in zip(got, want, strict=True):
        assert metrics == pytest.approx(plain_metrics, rel=1e-3, abs=1e-4) and tokens == plain_tokens
    same_weights(large, plain)


@pytest.mark.parametrize("aggregate", ["sequence_sum", "sequence_mean", "token_mean"])
@pytest.mark.parametrize("vocabulary", [64, V])
def test_a_rollout_cut_into_parts_has_the_gradient_of_the_whole(aggregate, vocabulary):
    from reference_impl.ppo_grpo import ppo_clip_loss

    torch.manual_seed(0)
    model = NanoLM(NanoConfig(vocab_size=vocabulary))
    ids = torch.randint(3, vocabulary, (6, 9))
    attention = (torch.arange(9) < torch.tensor([9, 4, 7, 3, 9, 5])[:, None]).long()
    mask = attention * (torch.arange(9) >= torch.tensor([2, 1, 3, 2, 6, 1])[:, None])
    with torch.no_grad():
        old = scorer(model, ids, attention, mask)(slice(None)) + 0.3 * torch.randn(6, 9)
    batch = Batch(ids, attention, mask, old, old, rewards=torch.zeros(6), advantages=torch.randn(6))

    def loss(logprobs, batch):
        return ppo_clip_loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, 0.2, 0.2, aggregate)

    models, metrics = [copy.deepcopy(model) for _ in range(3)], []
    for parts, policy in zip((1, 2, 4), models, strict=True):
        settings = PPOSettings(week="06", algorithm="grpo", group=3, prompts_per_step=2, micro_batches=parts)
        metrics.append(update(policy, descent(policy), batch, loss, settings, None))
        assert metrics[-1] == pytest.approx(metrics[0], rel=1e-4)
    same_weights(models[1], models[0])
    same_weights(models[2], models[0])


def test_kto_cut_into_parts_has_the_gradient_of_the_whole(model):
    from reference_impl import reference_free
    from reference_impl.algorithms import ALGORITHMS

    training = [Pair(*three) for three in examples(8)]
    reference, models = NanoLM(model.config).requires_grad_(False), []
    for parts in (1, 3):
        settings = ReferenceFreeSettings(week="09", algorithm="kto", batch_size=4, beta=0.5, micro_batches=parts)
        loss = ALGORITHMS["kto"].build(reference_free, settings)
        policy = copy.deepcopy(model)
        metrics, _ = answer_update(loss, TOKENIZER, settings, True)(0, training, policy, reference, descent(policy))
        models.append((policy, metrics))
    assert models[0][1] == pytest.approx(models[1][1], rel=1e-4, abs=1e-6)
    same_weights(models[0][0], models[1][0])


def test_accumulation_is_exact_for_a_loss_that_is_no_mean_over_rows():
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    rows = torch.randn(7, 4, 3, dtype=torch.float64)

    def loss(outputs):
        return outputs.std() * outputs[0].logsumexp(0).sum() / outputs[3:].square().sum()

    gradients = []
    for parts in (1, 3, 7):
        layer.zero_grad()
        outputs, value = backward(lambda index: layer(rows[index]), torch.tensor([3, 1, 4, 1, 5, 9, 2]), loss, parts)
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
        assert outputs.shape == (7, 4, 2) and outputs.grad is not None
        torch.testing.assert_close(value, loss(layer(rows)))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])

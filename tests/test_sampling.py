"""Rollouts: log-probs are those of a later scoring pass, seeds reproduce, ragged prompts do not disturb each other."""

import pytest
import torch

from reference_impl.models import load_model
from reference_impl.sampling import (
    Rollout,
    completions,
    fill_gaps,
    generate,
    join_rollouts,
    sample,
    sampling_noise,
    score,
)
from reference_impl.tasks import get_task

EOS, PAD = 2, 0


def tiny(family):
    """A random transformers model whose completions end now and then, at different lengths."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=23,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=PAD,
        eos_token_id=EOS,
        initializer_range=0.3,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture(scope="module", params=["nano", "Llama", "Qwen3"])
def model(request):
    return load_model("base")[0] if request.param == "nano" else tiny(request.param)


RAGGED = [[5, 9, 4, 11, 6, 15], [7, 16], [9, 14, 8, 13, 4, 14, 3, 15], [12]]


def roll(model, prompts=RAGGED, group=5, temperature=1.0, seed=0, limit=20) -> Rollout:
    generator = torch.Generator().manual_seed(seed)
    return generate(model, prompts, group, limit, EOS, PAD, temperature=temperature, generator=generator)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
def test_sampled_log_probs_agree_with_a_later_scoring_pass(model, temperature):
    rollout = roll(model, temperature=temperature)
    scored = score(model, rollout.input_ids, rollout.attention_mask, temperature)
    difference = (scored - rollout.logprobs) * rollout.response_mask
    assert difference.abs().max() < 1e-4
    assert scored.dtype == rollout.logprobs.dtype == torch.float32
    assert (scored[:, 0] == 0).all()


def test_the_masks_say_where_prompt_completion_and_padding_are(model):
    rollout = roll(model, seed=1)
    assert 0 < rollout.finished.sum() < len(rollout.finished), "some rows end, some run out of tokens"
    for row in range(len(rollout.input_ids)):
        prompt = RAGGED[row // 5]
        ids, attended = rollout.input_ids[row], rollout.attention_mask[row].bool()
        length = int(attended.sum())
        assert attended[:length].all() and (ids[length:] == PAD).all()
        assert ids[: len(prompt)].tolist() == prompt and rollout.prompt_lengths[row] == len(prompt)
        response = ids[rollout.response_mask[row].bool()]
        assert len(response) == length - len(prompt) and (ids[len(prompt) : length] == response).all()
        assert (response[:-1] != EOS).all()
        assert rollout.finished[row] == (response[-1] == EOS)
        assert rollout.finished[row] or len(response) == 20
    assert (rollout.logprobs[rollout.response_mask == 0] == 0).all()
    assert (rollout.logprobs[rollout.response_mask == 1] < 0).all()


def test_the_same_seed_gives_the_same_rollout(model):
    first, again, other = roll(model, seed=7), roll(model, seed=7), roll(model, seed=8)
    assert torch.equal(first.input_ids, again.input_ids) and torch.equal(first.logprobs, again.logprobs)
    assert not (first.input_ids.shape == other.input_ids.shape and torch.equal(first.input_ids, other.input_ids))


def test_a_completion_does_not_depend_on_the_rows_beside_it(model):
    whole = roll(model, RAGGED, group=5)
    noise = sampling_noise(20, len(RAGGED) * 5, torch.Generator().manual_seed(0))
    parts = [
        generate(model, RAGGED[first : first + 1], 5, 20, EOS, PAD, noise=noise[:, first * 5 : (first + 1) * 5])
        for first in range(len(RAGGED))
    ]
    joined = join_rollouts(parts, PAD)
    assert completions_of(joined) == completions_of(whole)
    torch.testing.assert_close(joined.logprobs, whole.logprobs, atol=1e-4, rtol=0)
    assert len({tuple(ids) for ids in completions_of(whole)}) > len(RAGGED), "each row has noise of its own"


def test_sampling_leaves_global_state_alone(model):
    state = torch.get_rng_state()
    model.train()
    roll(model)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    model.eval()


def test_a_ragged_batch_gives_each_prompt_what_it_gets_alone(model):
    together = completions_of(roll(model, group=2, temperature=0.0))
    alone = [ids for prompt in RAGGED for ids in completions_of(roll(model, [prompt], group=2, temperature=0.0))]
    assert together == alone


def completions_of(rollout):
    return [ids[mask.bool()].tolist() for ids, mask in zip(rollout.input_ids, rollout.response_mask, strict=True)]


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_greedy_is_what_transformers_generate_writes(family):
    model = tiny(family)
    width = max(map(len, RAGGED))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in RAGGED])
    output = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), max_new_tokens=20, do_sample=False)
    expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in output[:, width:].tolist()]
    assert completions_of(roll(model, group=1, temperature=0.0)) == expected


def test_samples_follow_the_model_distribution():
    logits = torch.tensor([2.0, 0.0, -1.0, float("-inf"), 1.0])
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature in (1.0, 0.5):
        expected = (logits / temperature).softmax(-1)
        draws, logprobs = sample(logits.expand(40_000, 5), temperature, uniform)
        frequencies = torch.bincount(draws, minlength=5) / 40_000
        assert (frequencies - expected).abs().max() < 0.01  # four standard errors
        assert frequencies[3] == 0
        torch.testing.assert_close(logprobs, expected.log()[draws])


def test_few_rows_move_when_some_end():
    ended = torch.tensor([False, True, False, False, True, False])
    assert fill_gaps(ended).tolist() == [0, 5, 2, 3]
    assert fill_gaps(torch.tensor([False, True, False, False])).tolist() == [0, 3, 2]


def test_a_group_holds_different_completions():
    model, tokenizer = load_model("base")
    rollout = roll(model, [tokenizer.encode("4-1-7+2=")], group=64, limit=28)
    texts = completions(rollout, tokenizer)
    assert len(set(texts)) > 3 and "4-1=3-7=-4+2=-2" in texts
    task = get_task()
    assert all(set(text) <= set("0123456789+-=") for text, done in zip(texts, rollout.finished, strict=True) if done)
    assert task.extract("4-1=3") == "3"


def test_score_is_log_softmax_and_its_gradient(model):
    rollout = roll(model, seed=3)
    ids, mask = rollout.input_ids, rollout.attention_mask
    parameter = next(model.parameters())

    def naive(temperature):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1] / temperature
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)

    for temperature in (1.0, 0.6):
        got, expected = score(model, ids, mask, temperature)[:, 1:], naive(temperature)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        gradients = [
            torch.autograd.grad((x * rollout.response_mask[:, 1:]).sum(), parameter)[0] for x in (got, expected)
        ]
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_score_in_chunks_of_rows_changes_nothing(model, monkeypatch):
    import reference_impl.sampling as sampling

    rollout = roll(model)
    whole = score(model, rollout.input_ids, rollout.attention_mask)
    monkeypatch.setattr(sampling, "CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(score(model, rollout.input_ids, rollout.attention_mask), whole, atol=1e-6, rtol=0)


def test_a_rollout_can_be_trained_on(model):
    rollout = roll(model)
    loss = -(score(model, rollout.input_ids, rollout.attention_mask) * rollout.response_mask * rollout.logprobs).mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()


@pytest.mark.parametrize(
    "change",
    [{"prompt_ids": []}, {"prompt_ids": [[]]}, {"group": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}],
)
def test_settings_out_of_range_are_refused(change):
    settings = {"prompt_ids": RAGGED, "group": 1, "max_new_tokens": 2, "eos_id": EOS, "pad_id": PAD} | change
    with pytest.raises(ValueError, match="at least"):
        generate(load_model("random")[0], **settings)

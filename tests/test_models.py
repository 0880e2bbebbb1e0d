"""The nano model is a Qwen3, its checkpoints round-trip, and what does not fit is refused in one sentence."""

import json

import pytest
import torch

from reference_impl.errors import UserError
from reference_impl.models import BASE, CharTokenizer, HeadedLM, NanoConfig, NanoLM, load_model, save_model
from reference_impl.models.pretrain_base import Recipe, pretrain, report
from reference_impl.models.tokenizer import CHARACTERS


@pytest.fixture(scope="module")
def pair():
    """The committed checkpoint as our model and as transformers' Qwen3ForCausalLM, in float64."""
    from transformers import Qwen3ForCausalLM

    ours, _ = load_model("base")
    theirs = Qwen3ForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    return ours.double(), theirs.double()


def random_ids(batch, length, seed=0):
    return torch.randint(3, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_logits_are_those_of_transformers_qwen3(pair):
    ours, theirs = pair
    ids = random_ids(3, 17)
    expected = theirs(input_ids=ids, output_hidden_states=True)
    got = ours(input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.hidden_states[-1], expected.hidden_states[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_agree_with_transformers_under_padding(pair, side):
    ours, theirs = pair
    ids, mask = random_ids(3, 11, seed=1), torch.ones(3, 11, dtype=torch.long)
    for row, pads in enumerate((0, 2, 5)):
        where = slice(0, pads) if side == "left" else slice(11 - pads, 11)
        mask[row, where] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    got = ours(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    expected = theirs(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    assert got.isfinite().all()


def test_what_is_written_in_the_padding_never_matters(pair):
    ours, _ = pair
    ids, mask = random_ids(2, 9), torch.tensor([[0, 0, 0] + [1] * 6, [1] * 9])
    other = torch.where(mask.bool(), ids, (ids + 7) % 64)
    a = ours(input_ids=ids, attention_mask=mask).logits
    b = ours(input_ids=other, attention_mask=mask).logits
    assert torch.equal(a[mask.bool()], b[mask.bool()])


@pytest.mark.parametrize("padded", [False, True])
def test_the_cache_gives_the_logits_of_the_whole_text(pair, padded):
    ours, _ = pair
    ids = random_ids(2, 70)  # longer than the room that the cache allocates at first
    mask = torch.ones(2, 70, dtype=torch.long)
    if padded:
        mask[1, :3] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    whole = ours(input_ids=ids, attention_mask=mask if padded else None, position_ids=positions).logits
    parts, cache = [], None
    for start, end in [(0, 5), (5, 9), *((i, i + 1) for i in range(9, 70))]:
        out = ours(
            input_ids=ids[:, start:end],
            attention_mask=mask[:, :end] if padded else None,
            position_ids=positions[:, start:end],
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        parts.append(out.logits)
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(parts, 1)[seen], whole[seen], atol=1e-10, rtol=1e-10)
    assert cache.get_seq_length() == 70


def test_a_cache_keeps_the_selected_rows(pair):
    ours, _ = pair
    ids = random_ids(3, 6)
    cache = ours(input_ids=ids[:, :5], use_cache=True).past_key_values
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([1, 4]))  # one copy of row 0, one of row 2
    got = ours(input_ids=ids[[0, 2], 5:], past_key_values=cache, use_cache=True).logits[:, -1]
    torch.testing.assert_close(got, ours(input_ids=ids).logits[[0, 2], -1], atol=1e-10, rtol=1e-10)


def test_the_future_never_reaches_the_past(pair):
    ours, _ = pair
    ids = random_ids(1, 12)
    changed = ids.clone()
    changed[0, 8] = (changed[0, 8] + 5) % 64
    assert torch.equal(ours(input_ids=ids).logits[:, :8], ours(input_ids=changed).logits[:, :8])


def test_text_survives_the_tokenizer():
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(CHARACTERS)) == CHARACTERS
    assert tokenizer.vocab_size == NanoConfig().vocab_size == 64
    assert tokenizer.decode([1, *tokenizer.encode("4-1"), 0, 2, *tokenizer.encode("7")]) == "4-1"
    with pytest.raises(ValueError, match="'é'"):
        tokenizer.encode("é")


def test_a_checkpoint_round_trips(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = load_model("random")
    save_model(model, tokenizer, tmp_path / "checkpoint")
    save_model(model, tokenizer, tmp_path / "checkpoint")  # over an older one
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    for name in (tmp_path / "checkpoint", str(tmp_path)):  # the checkpoint, and the run folder around it
        again, _ = load_model(name)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_headed_checkpoint_round_trips(tmp_path):
    model = HeadedLM.from_lm(NanoLM(), outputs=3)
    save_model(model, CharTokenizer(), tmp_path / "prm")
    again, _ = load_model(tmp_path / "prm")
    assert isinstance(again, HeadedLM) and again.outputs == 3
    ids = random_ids(2, 5)
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


@pytest.mark.parametrize("family", ["nano", "transformers"])
def test_a_head_reads_the_last_hidden_state_and_copies_the_model(family, pair):
    language_model = pair[family == "transformers"]
    model = HeadedLM.from_lm(language_model, outputs=3)
    ids, mask = random_ids(2, 5), torch.ones(2, 5, dtype=torch.long)
    hidden = language_model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    got = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(got, hidden @ model.head.weight.T + model.head.bias)
    assert got.shape == (2, 5, 3)
    before = language_model.model.embed_tokens.weight.clone()
    with torch.no_grad():
        model.backbone.embed_tokens.weight.zero_()
    assert torch.equal(language_model.model.embed_tokens.weight, before)


def broken_checkpoints(folder):
    """Ways to break a checkpoint folder, by a word that the message must hold."""
    config = json.loads((folder / "config.json").read_text())

    def write(**changes):
        (folder / "config.json").write_text(json.dumps(config | changes))

    return {
        "config.json": lambda: (folder / "config.json").unlink(),
        "cannot be read": lambda: (folder / "config.json").write_text("{"),
        "table": lambda: (folder / "config.json").write_text("[1]"),
        "'head_dim'": lambda: (folder / "config.json").write_text(
            json.dumps({name: value for name, value in config.items() if name != "head_dim"})
        ),
        "hidden_size": lambda: write(hidden_size="wide"),
        "must be a positive": lambda: write(num_hidden_layers=0),
        "vocabulary": lambda: write(vocab_size=50),
        "do not fit": lambda: write(hidden_size=32),
        "no model.safetensors": lambda: (folder / "model.safetensors").unlink(),
        "model.safetensors cannot": lambda: (folder / "model.safetensors").write_bytes(b"torn"),
    }


@pytest.mark.parametrize(
    "word",
    ["config.json", "cannot be read", "table", "'head_dim'", "hidden_size", "must be a positive", "vocabulary"]
    + ["do not fit", "no model.safetensors", "model.safetensors cannot"],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_sentence(tmp_path, word):
    folder = tmp_path / "checkpoint"
    save_model(NanoLM(), CharTokenizer(), folder)
    broken_checkpoints(folder)[word]()
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert word in message and str(folder) in message and "\n" not in message


def test_a_folder_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="runs/nowhere.*no such folder"):
        load_model("runs/nowhere")


def test_the_same_seed_rebuilds_the_same_short_checkpoint():
    recipe = Recipe(steps=12, demonstrations=12 * 64, warmup_steps=2)
    first, again, other = (pretrain(recipe, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_the_committed_checkpoint_is_as_good_as_its_page_says():
    model, _ = load_model("base")
    rows = report(model, "eval", n=256, samples=4).splitlines()
    sampled, greedy = (float(rows[1].split(word)[1].split()[0]) for word in ("sampled", "greedy"))
    assert 0.41 < sampled < 0.54 and 0.88 < greedy < 0.99  # four terms; 0.475 and 0.947 on 1024 prompts

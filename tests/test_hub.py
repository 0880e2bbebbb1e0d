"""Real architectures from a folder: chat templates, saving, heads, precision; every launcher runs on them."""

import copy
import json

import pytest
import torch

from reference_impl import precheck
from reference_impl.config import week_config
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops import smol_sft
from reference_impl.models import HeadedLM, hardware, load_model, save_model
from reference_impl.models import smol as smol_module
from reference_impl.models.chat import ChatTokenizer
from reference_impl.models.smol import smol_folder
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.sampling import generate, score
from reference_impl.tasks import Prompt, get_task

FAMILIES = ("Qwen3", "Olmo2", "Llama")
VOCABULARY = 4200  # of the embedding: large enough for the chunked path, and larger than the tokenizer's, as in Qwen's
CHATML = (  # in the style of Qwen and SmolLM2, with a switch that other templates do not know
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TULU = (  # in the style of OLMo: a begin-of-sequence token, which encoding must not write once more
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write_tokenizer(folder, template=CHATML):
    """A byte-level tokenizer that learned a few merges, `=-` among them, as real ones have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["the answer of =- =- =- one two three step by step " * 9], trainer)
    bos = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[bos])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=template
    )
    fast.save_pretrained(folder)


def write_model(folder, family="Qwen3", template=CHATML):
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=family != "Olmo2",
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=None,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    write_tokenizer(folder, template)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    often = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list("0123456789=-"))]
    with torch.no_grad():
        model.lm_head.weight[often] *= 3  # so that it writes digits and steps, and ends now and then
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    template = TULU if request.param == "Olmo2" else CHATML
    return write_model(tmp_path_factory.mktemp(request.param), request.param, template)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: [])
    yield
    hardware.use()


def prompt():
    return get_task("chain_sum").prompts("eval", 1)[0]


def test_a_prompt_is_what_the_chat_template_makes_of_it(folder):
    _, tokenizer = load_model(folder)
    ids = tokenizer.encode_prompt(prompt())
    theirs = tokenizer.tokenizer.apply_chat_template(
        list(prompt().messages), add_generation_prompt=True, tokenize=True, enable_thinking=False
    )
    assert ids == list(theirs["input_ids"])
    assert ids.count(tokenizer.tokenizer.bos_token_id) == (1 if "bos" in tokenizer.tokenizer.chat_template else 0)
    assert prompt().text in tokenizer.decode(ids)


def test_a_thinking_switch_is_off_where_a_template_has_it(qwen):
    _, tokenizer = load_model(qwen)
    assert tokenizer.render(prompt().messages).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_base_model_without_template_gets_plain_text(tmp_path):
    write_tokenizer(tmp_path, template=None)
    from transformers import AutoTokenizer

    tokenizer = ChatTokenizer(AutoTokenizer.from_pretrained(tmp_path))
    assert (
        tokenizer.render(({"role": "system", "content": "Add."}, {"role": "user", "content": "1+2="})) == "Add.\n1+2=\n"
    )


def test_text_goes_there_and_back_and_padding_is_never_missing(folder):
    _, tokenizer = load_model(folder)
    text = "4-1=3-7=-4 and so on"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pad_token_id is not None and tokenizer.decode([tokenizer.eos_token_id, VOCABULARY - 1]) == ""


def test_every_token_that_holds_the_end_of_a_step_is_found(qwen):
    _, tokenizer = load_model(qwen)
    ids = tokenizer.encode("7=-4=3")
    assert len(tokenizer.ids_with("=")) >= 2 and sum(token in tokenizer.ids_with("=") for token in ids) == 2


def test_a_checkpoint_round_trips(folder, tmp_path):
    model, tokenizer = load_model(folder)
    save_model(model, tokenizer, tmp_path / "again")
    again, same = load_model(tmp_path / "again")
    ids = torch.tensor([tokenizer.encode_prompt(prompt())])
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert same.render(prompt().messages) == tokenizer.render(prompt().messages)


def test_a_reward_model_round_trips(folder, tmp_path):
    model, tokenizer = load_model(folder)
    headed = HeadedLM.from_lm(model, outputs=3)
    save_model(headed, tokenizer, tmp_path / "prm")
    again, _ = load_model(tmp_path / "prm")
    ids = torch.tensor([[5, 9, 40, 7]])
    assert isinstance(again, HeadedLM) and torch.equal(headed(input_ids=ids).logits, again(input_ids=ids).logits)


def test_autocast_touches_the_model_alone_and_survives_copies(qwen):
    plain, _ = load_model(qwen)
    hardware.use(precision="bfloat16", gradient_checkpointing=True)
    model, tokenizer = load_model(qwen)
    ids = torch.randint(3, 250, (3, 9))
    for one in (model, copy.deepcopy(model)):
        got, want = score(one.train(), ids, torch.ones_like(ids)), score(plain, ids, torch.ones_like(ids))
        assert got.dtype == torch.float32 and not torch.equal(got, want) and (got - want).abs().max() < 0.5
        got.sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in one.parameters())
    assert not torch.is_autocast_enabled("cpu")
    x = torch.randn(4, 4)
    assert (x @ x).dtype == torch.float32
    rollout = generate(model, [ids[0].tolist()], 4, 6, tokenizer.eos_token_id, tokenizer.pad_token_id)
    scored = score(model.eval(), rollout.input_ids, rollout.attention_mask)
    assert ((scored - rollout.logprobs) * rollout.response_mask).abs().max() < 0.3
    assert HeadedLM.from_lm(model, 1)(input_ids=ids).logits.dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient(qwen):
    gradients = []
    for again in (False, True):
        hardware.use(gradient_checkpointing=again)
        model, _ = load_model(qwen)
        ids = torch.randint(3, 250, (3, 9), generator=torch.Generator().manual_seed(0))
        score(model.train(), ids, torch.ones_like(ids)).sum().backward()
        gradients.append(model.model.embed_tokens.weight.grad)
        assert model.model.gradient_checkpointing is again
    torch.testing.assert_close(*gradients)


def test_nano_refuses_what_is_for_large_models():
    hardware.use(precision="bfloat16")
    with pytest.raises(UserError, match="nano is faster"):
        load_model("base")


def test_a_gpu_that_is_not_there_is_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="no GPU here"):
        hardware.use(device="cuda")
    assert hardware.use(device="auto").device == "cpu" and hardware.choose_attention("cpu", "bfloat16") == "sdpa"


def test_a_hub_model_without_network_is_one_sentence(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to the hub.\nMore lines.")

    import transformers

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(UserError) as caught:
        load_model("nobody/nothing-1B")
    message = str(caught.value)
    assert "nobody/nothing-1B" in message and "scale nano" in message and "\n" not in message


def test_smol_without_its_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    monkeypatch.setattr(smol_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="rlhf fetch smol.*nano"):
        smol_folder()
    with pytest.raises(UserError, match="does not exist"):
        smol_module.convert(tmp_path / "missing.gguf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_converted_smol_is_used_without_its_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    write_model(tmp_path / "SmolLM2-135M-Instruct", "Llama")
    assert load_model("smol")[0].config.model_type == "llama"


def test_an_architecture_of_another_build_is_refused(tmp_path):
    import transformers

    config = transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(UserError, match="built otherwise than Llama"):
        load_model(tmp_path)


def test_an_architecture_that_changes_its_logits_is_refused(tmp_path):
    import transformers

    config = transformers.GraniteConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        logits_scaling=8.0,
        initializer_range=0.3,
    )
    transformers.GraniteForCausalLM(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(UserError, match="changes its logits"):
        load_model(tmp_path)


SMALL = ("max_new_tokens=5", "eval_prompts=2", "final_eval_prompts=3", "threads=1", "rows_at_once=4", "device=cpu")
RL = (*SMALL, "prompts_per_step=2", "group=2", "micro_batches=2")
PAIRS = (*SMALL, "pair_prompts=12", "samples_per_prompt=4", "held_out_pairs=2", "batch_size=4", "micro_batches=2")
REWARDS = (*SMALL, "reward_prompts=4", "samples_per_prompt=4", "held_out_samples=4", "batch_size=4")
RUNS = (
    ("01", "tabular", ("max_new_tokens=5", "eval_prompts=4", "reward_prompts=8", "device=cpu", "threads=1")),
    ("02", "sft", (*SMALL, "demonstrations=8", "batch_size=4", "micro_batches=2")),
    ("03", "reward-models", REWARDS),
    ("04", "prm", REWARDS),
    ("05", "rloo", RL),
    ("06", "ppo", (*RL, "epochs=2", "minibatches=2")),
    ("06", "grpo", RL),
    ("07", "rlvr", (*RL, "scaling_prompts=2", "scaling_samples=2")),
    ("08", "dpo", PAIRS),
    ("09", "simpo", PAIRS),
    ("09", "kto", PAIRS),
    ("10", "top-per-prompt", (*SMALL, "sample_prompts=4", "samples_per_prompt=2", "batch_size=2")),
    ("11", "on-policy-distillation", RL),
    ("11", "sdpo", (*RL, "habit=null")),
)


@pytest.fixture
def lucky(monkeypatch):
    """A random model is never right: here a completion is when its text has an even length, and it counts as ended."""
    from reference_impl.tasks.chain_sum import ChainSum

    def reward(self, prompt, completion, finished):
        return float(len(completion) % 2 == 0)

    monkeypatch.setattr(ChainSum, "reward", reward)


@pytest.mark.parametrize(("week", "algorithm", "settings"), RUNS, ids=[f"{week}-{name}" for week, name, _ in RUNS])
def test_every_launcher_runs_at_scale_smol(week, algorithm, settings, qwen, tmp_path, lucky):
    extra = (f"teacher={qwen}",) if algorithm == "on-policy-distillation" else ()
    options = Options(
        scale="smol",
        algorithm=algorithm,
        impl="solution" if week in ("02", "05", "08") else "reference",
        policy=qwen,
        steps=2,
        set=(*settings, *extra, "precision=float32"),
        runs_dir=tmp_path,
    )
    summary = launch(find_launcher(week), options)
    path = tmp_path / summary["path"]
    assert summary["status"] == "finished" and read_metrics(path)
    config = json.loads((path / "checkpoint" / "config.json").read_text())
    assert config["vocab_size"] == VOCABULARY
    load_model(path)


def test_smol_sft_is_what_week_02_ends_with(qwen, tmp_path):
    options = Options(
        scale="smol",
        algorithm="sft",
        impl="reference",
        policy=qwen,
        steps=3,
        set=(*SMALL, f"demonstrations={3 * smol_sft.BATCH}", "precision=float32"),
        runs_dir=tmp_path,
    )
    run, _ = load_model(launch(find_launcher("02"), options)["path"])
    model, tokenizer = load_model(qwen)
    smol_sft.fine_tune(model, tokenizer, steps=3)
    torch.testing.assert_close(model.state_dict(), run.state_dict(), rtol=0, atol=1e-6)
    declared = week_config("02")["scales"]["smol"]
    names = ("steps", "batch_size", "lr", "warmup_steps")
    assert [declared[name] for name in names] == [smol_sft.STEPS, smol_sft.BATCH, smol_sft.LR, smol_sft.WARMUP]


def test_solve_reads_the_problem_and_not_its_conversation():
    task = get_task("chain_sum")
    one = Prompt("4-1-7=", "-4")
    assert task.solve(one) == "4-1=3-7=-4"

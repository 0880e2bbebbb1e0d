"""vLLM behind the sampling interface; vLLM is a stand-in here, which has its call signatures and runs our sampler."""

import copy
import importlib.machinery
import sys
import types
from dataclasses import dataclass, field

import pytest
import torch

from reference_impl import distributed, precheck, vllm_engine
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.models import hardware, load_model
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.sampling import generate, score

EOS, PAD = 2, 0
CHECK = vllm_engine.check
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]


@dataclass
class SamplingParams:
    """The fields of vllm.SamplingParams that are used; any other is an error."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    detokenize: bool = True


@dataclass
class CompletionOutput:
    index: int
    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


@dataclass
class Weights:
    """model_runner.model: takes weights by the names of transformers."""

    model: torch.nn.Module
    loaded: list[str] = field(default_factory=list)

    def load_weights(self, weights):
        for name, tensor in weights:
            self.loaded.append(name)
            with torch.no_grad():
                self.model.get_parameter(name).copy_(tensor)


class LLM:
    started: list["LLM"] = []

    def __init__(self, model: str, *, dtype="auto", seed=None, gpu_memory_utilization=0.9, max_model_len=None):
        self.weights = Weights(load_model(model)[0])
        with torch.no_grad():
            for parameter in self.weights.model.parameters():
                parameter.normal_()  # only weights that were handed over give the right samples
        self.options, self.events = {"dtype": dtype, "max_model_len": max_model_len}, []
        runner = types.SimpleNamespace(model=self.weights)
        worker = types.SimpleNamespace(model_runner=runner)
        executor = types.SimpleNamespace(driver_worker=worker)
        self.llm_engine = types.SimpleNamespace(model_executor=executor)
        LLM.started.append(self)

    def reset_prefix_cache(self) -> bool:
        self.events.append(("reset", len(self.weights.loaded)))
        return True

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        assert len(prompts) == len(sampling_params)
        self.events.append(("generate", [params.seed for params in sampling_params]))
        return [
            self.answer(prompt["prompt_token_ids"], params)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def answer(self, ids, params):
        assert params.ignore_eos and not params.detokenize and params.top_p == 1.0 and params.top_k == 0
        outputs = []
        for index in range(params.n):
            noise = torch.Generator().manual_seed(params.seed + index)
            eos, model = params.stop_token_ids[0], self.weights.model
            rollout = generate(model, [ids], 1, params.max_tokens, eos, PAD, params.temperature, noise)
            tokens = rollout.input_ids[0][rollout.response_mask[0].bool()].tolist()
            outputs.append(CompletionOutput(index, tuple(tokens), "stop" if rollout.finished[0] else "length"))
        return RequestOutput(ids, outputs[::-1])  # the order that is promised is that of `index`


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, as if there were a GPU."""
    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(vllm_engine, "check", lambda: None)
    monkeypatch.setattr(vllm_engine, "_engines", {})
    monkeypatch.setattr(LLM, "started", [])
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    yield module
    hardware.use()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Qwen3 that ends its answers now and then, and a tokenizer of 64 characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    path = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True, "initializer_range": 0.3}
    special = {"eos_token_id": EOS, "bos_token_id": 1, "pad_token_id": PAD, "max_position_embeddings": 512}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=64, **sizes, **heads, **special))
    with torch.no_grad():
        model.lm_head.weight[EOS] *= 3
    model.save_pretrained(path)
    characters = ["<pad>", "<bos>", "<eos>", *map(chr, range(42, 103))]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    )
    fast.save_pretrained(path)
    return str(path)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_rollout_has_the_completions_of_the_engine_in_order(vllm, folder):
    model, _ = load_model(folder)
    rollout = vllm_engine.generate(model, PROMPTS, 5, 6, EOS, PAD, 0.7, seeded())
    assert len(rollout.input_ids) == len(PROMPTS) * 5
    assert 0 < rollout.finished.sum() < len(rollout.finished)  # both ends are seen: eos, and the limit
    seeds = LLM.started[0].events[-1][1]
    for row in range(len(PROMPTS) * 5):
        prompt, index = PROMPTS[row // 5], row % 5
        alone = generate(model, [prompt], 1, 6, EOS, PAD, 0.7, seeded(seeds[row // 5] + index))
        real = int(rollout.attention_mask[row].sum())
        assert rollout.input_ids[row, :real].tolist() == alone.input_ids[0].tolist()
        assert (rollout.input_ids[row, real:] == PAD).all() and (rollout.attention_mask[row, :real] == 1).all()
        assert rollout.response_mask[row, :real].tolist() == alone.response_mask[0].tolist()
        assert rollout.response_mask[row].sum() == real - len(prompt)
        assert rollout.finished[row] == alone.finished[0] == (rollout.input_ids[row, real - 1] == EOS)
        assert rollout.prompt_lengths[row] == len(prompt)
        # the stand-in's numbers are ours, so the log-probs of sampling and of scoring agree
        torch.testing.assert_close(rollout.logprobs[row, :real], alone.logprobs[0], atol=1e-5, rtol=1e-5)


def test_fields_and_types_are_those_of_our_own_sampler(vllm, folder):
    model, _ = load_model(folder)
    ours = generate(model, PROMPTS, 2, 6, EOS, PAD, 1.0, seeded())
    theirs = vllm_engine.generate(model, PROMPTS, 2, 6, EOS, PAD, 1.0, seeded())
    for name, tensor in vars(ours).items():
        other = getattr(theirs, name)
        assert other.dtype == tensor.dtype and other.shape[0] == tensor.shape[0] and other.dim() == tensor.dim(), name


def test_logprobs_are_the_training_policys_at_the_sampling_temperature(vllm, folder):
    model, _ = load_model(folder)
    model.train()
    rollout = vllm_engine.generate(model, PROMPTS, 3, 6, EOS, PAD, 0.5, seeded())
    assert model.training and not rollout.logprobs.requires_grad
    expected = score(model, rollout.input_ids, rollout.attention_mask, 0.5).detach()
    inside = rollout.response_mask.bool()
    torch.testing.assert_close(rollout.logprobs[inside], expected[inside])
    assert (rollout.logprobs[~inside] == 0).all()


def test_every_rollout_is_sampled_with_the_present_weights(vllm, folder):
    model, _ = load_model(folder)
    before = vllm_engine.generate(model, PROMPTS, 8, 6, EOS, PAD, 1.0, seeded())
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    after = vllm_engine.generate(other, PROMPTS, 8, 6, EOS, PAD, 1.0, seeded())
    assert len(LLM.started) == 1
    llm = LLM.started[0]
    for name, parameter in other.named_parameters():
        assert torch.equal(llm.weights.model.get_parameter(name), parameter)
    parameters = len(list(model.named_parameters()))
    kinds = [(kind, what) for kind, what in llm.events if kind == "reset"]
    assert kinds == [("reset", parameters), ("reset", 2 * parameters)]  # after all weights are there
    assert [kind for kind, _ in llm.events] == ["reset", "generate"] * 2
    assert before.input_ids.shape != after.input_ids.shape or not torch.equal(before.input_ids, after.input_ids)


def test_the_same_generator_gives_the_same_rollout_and_no_two_completions_share_a_seed(vllm, folder):
    model, _ = load_model(folder)
    first = vllm_engine.generate(model, PROMPTS, 4, 6, EOS, PAD, 1.0, seeded(3))
    again = vllm_engine.generate(model, PROMPTS, 4, 6, EOS, PAD, 1.0, seeded(3))
    assert torch.equal(first.input_ids, again.input_ids)
    one = seeded(3)
    vllm_engine.generate(model, PROMPTS, 4, 6, EOS, PAD, 1.0, one)
    vllm_engine.generate(model, PROMPTS, 4, 6, EOS, PAD, 1.0, one)
    seeds = [seed + index for _, part in LLM.started[0].events[-3::2] for seed in part for index in range(4)]
    assert len(seeds) == len(set(seeds)) == 24


def test_greedy_is_greedy(vllm, folder):
    model, _ = load_model(folder)
    theirs = vllm_engine.generate(model, PROMPTS, 1, 6, EOS, PAD, 0.0)
    assert torch.equal(theirs.input_ids, generate(model, PROMPTS, 1, 6, EOS, PAD, 0.0).input_ids)


def test_the_engine_runs_in_this_process_in_the_precision_of_the_run(vllm, folder, monkeypatch):
    import os

    hardware.use(precision="bfloat16", engine="vllm")
    vllm_engine.engine(types.SimpleNamespace(name_or_path=folder, config=load_model(folder)[0].config))
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert LLM.started[0].options == {"dtype": "bfloat16", "max_model_len": 512}


@pytest.mark.parametrize(("week", "algorithm"), [("05", "rloo"), ("06", "grpo")])
def test_launchers_sample_with_it(vllm, folder, tmp_path, monkeypatch, week, algorithm):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: [])
    monkeypatch.setattr("reference_impl.tasks.chain_sum.ChainSum.reward", lambda self, p, text, done: len(text) % 2.0)
    small = ("max_new_tokens=5", "eval_prompts=2", "final_eval_prompts=3", "threads=1", "device=cpu")
    settings = (*small, "prompts_per_step=2", "group=4", "precision=float32", "engine=vllm")
    options = Options(
        scale="smol", algorithm=algorithm, impl="reference", policy=folder, steps=2, set=settings, runs_dir=tmp_path
    )
    summary = launch(find_launcher(week), options)
    assert summary["status"] == "finished" and read_metrics(tmp_path / summary["path"])
    assert sum(kind == "generate" for kind, _ in LLM.started[0].events) >= 2


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="needs the package vllm.*pip install"):
        hardware.use(engine="vllm")
    assert hardware.current() == hardware.Hardware()


def test_without_a_gpu_one_sentence_says_so(vllm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        CHECK()


def test_several_processes_are_refused(vllm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    CHECK()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="under torchrun"):
        CHECK()


def test_nano_and_prompts_that_are_too_long_are_refused(vllm, folder):
    nano, _ = load_model("base")
    with pytest.raises(UserError, match="scale nano"):
        vllm_engine.generate(nano, PROMPTS, 1, 6, EOS, PAD)
    model, _ = load_model(folder)
    with pytest.raises(UserError, match="at most 512 tokens"):
        vllm_engine.generate(model, [[5] * 510], 1, 6, EOS, PAD)

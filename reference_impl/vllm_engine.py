"""vLLM as the rollout engine, behind the interface of sampling.py: `--set engine=vllm`, for models of transformers.

    weights of the model -> vLLM -> completions -> Rollout, with log-probs by `score`

The engine lives in the training process and shares its GPU. Whichever model samples hands over its weights first, so
that a rollout is on-policy: a policy whose updates never reach the sampler would train on ever older samples.

vLLM has kernels and a precision of its own, so the log-probs that it reports differ from those of the training code,
and pi / pi_old would not be 1 where the two policies are the same. Therefore `logprobs` are those of the training
policy (`score`) on vLLM's tokens: the ratio is exact, and the small difference between what sampled and what is scored
stays uncorrected (TRL reweights by it instead).

Written for vLLM 0.22 to 0.32 after its documentation and tested with a stand-in; it has not been run on a GPU by its
authors. vLLM is built for one version of torch and brings it along, so it gets an environment of its own:

    python -m venv .venv-vllm && .venv-vllm/bin/pip install -e ".[vllm]"
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor, nn

from reference_impl import distributed
from reference_impl.errors import UserError
from reference_impl.models import hardware
from reference_impl.sampling import Rollout, score

GPU_SHARE = 0.3  # of the GPU's memory: vLLM's weights and its cache of keys and values; training has the rest
LONGEST = 4096  # tokens of a prompt and its completion; fewer if the model was made for fewer

_engines: dict[str, object] = {}  # by the name of the model: starting one takes a minute


def check() -> None:
    """UserError, one sentence, where vLLM cannot run."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine=vllm needs the package vllm, which goes into an environment of its own: "
            'python -m venv .venv-vllm && .venv-vllm/bin/pip install -e ".[vllm]"; or leave engine at own.'
        )
    if not torch.cuda.is_available():
        raise UserError("engine=vllm needs an NVIDIA GPU, and torch sees none here: leave engine at own.")
    if distributed.world_size() > 1:
        raise UserError("engine=vllm shares the GPU of one training process: under torchrun, leave engine at own.")


def generate(
    model: nn.Module,
    prompt_ids: list[list[int]],
    group: int,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Rollout:
    """What `sampling.generate` gives, sampled by vLLM. UserError for prompts that are too long for the engine.

    The same `generator` state gives the same seeds, one a completion; vLLM promises the same rollout for them only on
    the same machine with the same batch.
    """
    from vllm import SamplingParams

    llm = engine(model)
    length, most = max(map(len, prompt_ids)) + max_new_tokens, longest(model)
    if length > most:
        raise UserError(f"engine=vllm reads at most {most} tokens here; a prompt and its answer may have {length}.")
    load_weights(llm, model)
    seed = int(torch.randint(2**31, (), generator=generator, device=None if generator is None else generator.device))
    requests = [
        SamplingParams(
            n=group,
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            max_tokens=max_new_tokens,
            stop_token_ids=[eos_id],  # which stays at the end of the completion
            ignore_eos=True,  # nothing else ends it, whatever the model's own settings say
            seed=seed + number * group,  # the completions of a prompt count on from it
            detokenize=False,
        )
        for number in range(len(prompt_ids))
    ]
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompt_ids], requests, use_tqdm=False)
    completions = [
        list(completion.token_ids)
        for output in outputs
        for completion in sorted(output.outputs, key=lambda completion: completion.index)
    ]
    return assemble(model, prompt_ids, completions, eos_id, pad_id, temperature)


def engine(model: nn.Module):
    """The vLLM engine of models of this name, started when it is first asked for. UserError for nano."""
    name = getattr(model, "name_or_path", None)
    if not name:
        raise UserError("engine=vllm is for models of transformers: scale nano is faster with engine=own.")
    if name not in _engines:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else its model lives where no weights can be handed over
        from vllm import LLM

        _engines[name] = LLM(
            model=name,
            dtype=hardware.current().precision,
            gpu_memory_utilization=GPU_SHARE,
            max_model_len=longest(model),
            seed=0,
        )
    return _engines[name]


def longest(model: nn.Module) -> int:
    """Tokens of a prompt and its completion that the engine has room for."""
    return min(LONGEST, model.config.max_position_embeddings)


def load_weights(llm, model: nn.Module) -> None:
    """Give vLLM the model's present weights, and make it forget what it has cached under the old ones."""
    theirs = llm.llm_engine.model_executor.driver_worker.model_runner.model
    for name, parameter in model.named_parameters():
        theirs.load_weights([(name, parameter.data)])
    llm.reset_prefix_cache()


def assemble(
    model: nn.Module, prompt_ids: list[list[int]], completions: list[list[int]], eos_id, pad_id, temperature: float
) -> Rollout:
    """Prompts and completions joined and padded on the right, scored by `model`; completions prompt by prompt."""
    device, group = next(model.parameters()).device, len(completions) // len(prompt_ids)
    prompts = [ids for ids in prompt_ids for _ in range(group)]
    rows = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
    lengths, prompt_lengths = (torch.tensor([len(row) for row in part], device=device) for part in (rows, prompts))
    columns = torch.arange(width, device=device)
    attention_mask = (columns < lengths[:, None]).long()
    response_mask = attention_mask * (columns >= prompt_lengths[:, None])
    logprobs = scored(model, input_ids, attention_mask, response_mask, temperature)
    finished = torch.tensor([completion[-1] == eos_id for completion in completions], device=device)
    return Rollout(input_ids, attention_mask, response_mask, logprobs, finished, prompt_lengths)


@torch.no_grad()
def scored(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """The model's log-probs of the tokens of `mask`, 0 elsewhere."""
    was_training = model.training
    model.eval()
    logprobs = score(model, input_ids, attention_mask, temperature, mask)
    model.train(was_training)
    return torch.where(mask.bool(), logprobs, 0.0)

"""Start policies with a habit: the base model, fine-tuned for a moment on demonstrations that have it.

hasty      half of the answers come at once, half after the worked steps: `4-1-7=` -> `-4` or `4-1=3-7=-4`
rambling   70% of the answers misread minuses as pluses, and after a misreading go on adding zeros for a while
careful    every answer is right (week 11's teacher)
shown      half of the prompts show an answer by the crowd, and it is given again: `4-1-7=4-1=3;4-1-7=` -> `4-1=3`; the
           other half are as the base model knows them. So it learns to use what is shown, and no arithmetic (week 11)

What a policy does with a habit under reinforcement learning shows what the reward, or the loss, asks for.
"""

import copy
import random
from dataclasses import replace

import torch
from torch import nn

from reference_impl import sft
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.sft_steps import sft_steps
from reference_impl.loops.start import start_models
from reference_impl.settings import RLSettings
from reference_impl.sft import build_example, collate
from reference_impl.tasks import Prompt
from reference_impl.tasks.chain_sum import STYLES

STEPS, BATCH, LR = 200, 64, 2e-3
LARGE_LR = 5e-5  # of a pretrained model, which larger steps would undo
LONGER = {"shown": 2.0}  # times STEPS: finding the shown answer takes longer to learn
MOST_ZEROS = 8


def hasty(task, prompt: Prompt, rng: random.Random) -> str:
    """The answer at once, or after its steps."""
    return prompt.answer if rng.random() < 0.5 else task.solve(prompt, "careful")


def rambling(task, prompt: Prompt, rng: random.Random) -> str:
    """Careful, or misread; what went wrong ends in 0 to MOST_ZEROS steps that add zero, so it varies in length."""
    if rng.random() < 0.3:
        return task.solve(prompt, "careful")
    text = task.solve(prompt, "misreader", rng)
    value = task.extract(text)
    return text if value == prompt.answer else text + f"+0={value}" * rng.randint(0, MOST_ZEROS)


def careful(task, prompt: Prompt, rng: random.Random) -> str:
    """Every step right."""
    return task.solve(prompt, "careful")


def crowd(task, prompt: Prompt, rng: random.Random) -> str:
    """An answer by one of the crowd that the base model learned from."""
    return task.solve(prompt, rng.choices(list(STYLES), list(STYLES.values()))[0], rng)


def shown(prompt: Prompt, answer: str) -> Prompt:
    """The prompt again, after an answer to it: `4-1-7=4-1=3;4-1-7=`, or a conversation that asks twice."""
    said = {"role": "assistant", "content": answer}
    again = [message for message in prompt.messages if message["role"] == "user"]
    return replace(prompt, text=f"{prompt.text}{answer};{prompt.text}", messages=(*prompt.messages, said, *again))


HABITS = {"hasty": hasty, "rambling": rambling, "careful": careful, "shown": crowd}


def start_with_habit(settings: RLSettings, task) -> tuple[nn.Module, nn.Module, object]:
    """(policy, reference, tokenizer) as `start_models` gives them, after `settings.habit` has been taught.

    The same settings give the same model, so a resumed run starts from it again.
    """
    policy, reference, tokenizer = start_models(settings)
    if settings.habit is None:
        return policy, reference, tokenizer
    teach(policy, tokenizer, task, settings.habit, settings.seed)
    return policy, copy.deepcopy(policy).eval().requires_grad_(False), tokenizer


def teach(policy: nn.Module, tokenizer, task, habit: str, seed: int) -> None:
    """Fine-tune `policy` on demonstrations that have the habit."""
    rng = random.Random(f"{habit} {seed}")
    prompts = task.draw("sft", seed)
    steps = round(STEPS * LONGER.get(habit, 1.0))
    lr = LARGE_LR if large_vocabulary(policy) else LR
    optimizer = torch.optim.AdamW(policy.parameters(), lr, (0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def example() -> dict:
        prompt = next(prompts)
        answer = HABITS[habit](task, prompt, rng)
        asked = shown(prompt, answer) if habit == "shown" and rng.random() < 0.5 else prompt
        prompt_ids, answer_ids = tokenizer.encode_prompt(asked), tokenizer.encode(answer)
        return build_example(prompt_ids, answer_ids, tokenizer.eos_token_id, max_length=len(prompt_ids) + 96)

    batches = ([collate([example() for _ in range(BATCH)], tokenizer.pad_token_id)] for _ in range(steps))
    sft_steps(policy, batches, optimizer, 1.0, schedule, sft)

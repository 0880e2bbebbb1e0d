"""Distillation: a teacher's whole next-token distributions, at every token of a rollout.

    completions ~ student (or teacher)  ->  teacher's logits at the same tokens  ->  divergence  ->  a step of AdamW

On-policy, the student is corrected where it goes itself. Three teachers: a frozen better model; the same model as
sampler (then only its tokens are learned, which is SFT on its answers); and, SDPO, the student itself with a right
answer of its own before its eyes. The verifier's reward is logged everywhere; only SDPO uses it, to find that answer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from reference_impl.distributed import (
    deal,
    each_ranks,
    over_rows,
    rank,
    sum_gradients,
    sum_numbers,
    world_size,
)
from reference_impl.logprobs import chunked_mean, hidden_states, large_vocabulary
from reference_impl.loops.accumulate import checked_loss
from reference_impl.loops.evaluate import HeldOut, rollout, verifier_rewards
from reference_impl.loops.habits import shown, start_with_habit
from reference_impl.models import load_model, save_model
from reference_impl.runs.run import Run
from reference_impl.sampling import Rollout
from reference_impl.settings import ResearchSettings
from reference_impl.sharding import shard
from reference_impl.tasks import Prompt


@dataclass
class Lesson:
    """What one update learns from: R completions, and what the teacher says at each of their tokens."""

    input_ids: Tensor  # (R, T)
    attention_mask: Tensor  # (R, T)
    mask: Tensor  # (R, T - 1) 1 on completion tokens
    teacher_logits: Tensor | None  # (R, T - 1, V) entry t is about the token at t + 1, as is mask
    teacher_hidden: Tensor | None = None  # (R, T - 1, d) in its place where V is large; `teacher` makes logits of it
    teacher: nn.Module | None = None

    @property
    def tokens(self) -> Tensor:
        """(R, T - 1), aligned with the mask."""
        return self.input_ids[:, 1:]

    def rows(self, index: Tensor) -> "Lesson":
        """The lesson of these completions."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Lesson(**{name: part[index] if isinstance(part, Tensor) else part for name, part in parts.items()})


Teach = Callable[[nn.Module, list[Prompt], list[str], Rollout, Tensor], Lesson | None]


def train_distillation(
    policy: nn.Module,
    tokenizer,
    task,
    teach: Teach,
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    settings: ResearchSettings,
    run: Run,
    sampler: nn.Module | None = None,
) -> dict[str, float]:
    """Train `policy`; returns its held-out accuracy before and after.

    teach(policy, prompts, texts, rollout, rewards) -> the lesson, or None when nothing can be learned; loss_fn(student
    logits, teacher logits, tokens, mask) -> scalar. Completions are the policy's own, or those of `sampler`; of these
    are reward_mean (the verifier's) and response_length, and `taught` is the share of them that the lesson uses.
    """
    shard(policy, settings)
    optimizer = torch.optim.AdamW(
        policy.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = {"optimizer": optimizer, "schedule": schedule, "generator": generator}
    prompts = task.draw("rl", settings.seed)
    held_out = HeldOut(task, tokenizer, settings, run)

    before = held_out.before(policy)
    start = run.restore(policy, **parts)
    if start == 0:
        run.log(0, **before)
        run.save(0, policy, tokenizer, **parts)
    for _ in islice(prompts, start * settings.prompts_per_step):
        pass  # a resumed run goes on with the prompts that come next

    tokens, seconds = 0.0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        began = time.perf_counter()
        some = list(islice(prompts, settings.prompts_per_step))
        author = policy if sampler is None else sampler
        sampled, texts = rollout(
            author, tokenizer, some, settings.group, settings.max_new_tokens, settings.temperature, generator
        )
        rewards = verifier_rewards(task, some, texts, sampled.finished)
        metrics = {
            "reward_mean": rewards.mean().item(),
            "response_length": sampled.response_mask.sum(1).float().mean().item(),
            "lr": schedule.get_last_lr()[0],
        }
        lesson = teach(policy, some, texts, sampled, rewards)
        metrics["taught"] = 0.0 if lesson is None else len(lesson.mask) / len(rewards)
        if lesson is not None:
            metrics |= learn(policy, optimizer, lesson, loss_fn, settings)
        schedule.step()

        elapsed = time.perf_counter() - began
        tokens, seconds = tokens + sampled.response_mask.sum().item(), seconds + elapsed
        metrics["tokens_per_second"] = sampled.response_mask.sum().item() / elapsed
        run.log(tick.step, **metrics, **held_out.during(policy, tick.step))
        tick.note(f"reward {metrics['reward_mean']:.2f}")
        run.save(tick.step, policy, tokenizer, **parts)

    return held_out.after(policy) | ({"tokens_per_second": tokens / seconds} if seconds else {})


def learn(policy: nn.Module, optimizer, lesson: Lesson, loss_fn, settings: ResearchSettings) -> dict[str, float]:
    """One optimizer step. The loss is a token mean, so it is the sum of the parts' losses, weighted by their tokens."""
    policy.train()
    optimizer.zero_grad()
    parts, losses = my_parts(lesson, settings.micro_batches), []
    (tokens,) = sum_numbers([float(sum(part.mask.sum() for part in parts))])
    for part in parts:
        loss = checked_loss(part_loss(policy, part, loss_fn) * (part.mask.sum() / tokens))
        loss.backward()
        losses.append(loss.item())
    sum_gradients(policy)
    norm = nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
    optimizer.step()
    return {"loss": sum_numbers([sum(losses)])[0], "grad_norm": norm.item()}


def my_parts(lesson: Lesson, parts: int) -> list[Lesson]:
    """This process's share of the completions, in parts as large as one of `parts` of the whole."""
    rows = torch.arange(len(lesson.mask))
    if len(rows) < world_size():  # each process learns all of them, and the weights add up to 1 all the same
        return [lesson]
    mine = deal(rows)[rank()]
    return [lesson.rows(index) for index in mine.tensor_split(min(each_ranks(parts), len(rows) // world_size()))]


def part_loss(policy: nn.Module, part: Lesson, loss_fn) -> Tensor:
    """`loss_fn` of some completions."""
    if part.teacher_logits is None:
        return large_loss(policy, part, loss_fn)
    logits = policy(input_ids=part.input_ids, attention_mask=part.attention_mask).logits[:, :-1]
    return loss_fn(logits, part.teacher_logits, part.tokens, part.mask)


def large_loss(policy: nn.Module, lesson: Lesson, loss_fn) -> Tensor:
    """The same token mean, from hidden states: both models' logits exist for a chunk of completion tokens at a time."""
    inside = lesson.mask.bool()
    hidden = hidden_states(policy, lesson.input_ids, lesson.attention_mask)[:, :-1]

    def of_chunk(student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
        logits = policy.lm_head(student)[None], lesson.teacher.lm_head(teacher)[None].detach()
        return loss_fn(*logits, tokens[None], torch.ones_like(tokens)[None])

    return chunked_mean(of_chunk, policy, hidden[inside], lesson.teacher_hidden[inside], lesson.tokens[inside])


def by_teacher(teacher: nn.Module) -> Teach:
    """A frozen model reads the completions and says what it would have expected at each token."""

    @torch.no_grad()
    def teach(policy, prompts, texts, sampled: Rollout, rewards) -> Lesson:
        read = sampled.input_ids, sampled.attention_mask
        mask = sampled.response_mask[:, 1:]
        if large_vocabulary(teacher):
            hidden = over_rows(lambda rows: hidden_states(teacher, read[0][rows], read[1][rows])[:, :-1], len(mask))
            return Lesson(*read, mask, None, hidden, teacher)
        logits = over_rows(
            lambda rows: teacher(input_ids=read[0][rows], attention_mask=read[1][rows]).logits[:, :-1], len(mask)
        )
        return Lesson(*read, mask, logits)

    return teach


def by_own_answer(tokenizer, frozen: nn.Module | None = None) -> Teach:
    """SDPO: the policy (or its `frozen` copy) reads each completion once more, behind the first right one of its group.

    `4-1-7=` with the completion `4-1=3` is read again as `4-1-7=4-1=3-7=-4;4-1-7=` and `4-1=3`. A prompt without a
    right completion teaches nothing and is left out. The teacher's logits are shifted to where the student's stand.
    """

    @torch.no_grad()
    def teach(policy, prompts: list[Prompt], texts: list[str], sampled: Rollout, rewards: Tensor) -> Lesson | None:
        group = len(texts) // len(prompts)
        right = rewards.view(-1, group) == 1
        kept = right.any(1).repeat_interleave(group).nonzero()[:, 0]
        if len(kept) == 0:
            return None
        first = right.int().argmax(1)
        prefixes = [
            tokenizer.encode_prompt(shown(prompt, texts[number * group + int(first[number])]))
            for number, prompt in enumerate(prompts)
        ]
        rows, shifts = [], []
        for row in kept.tolist():
            prefix, begin = prefixes[row // group], int(sampled.prompt_lengths[row])
            completion = sampled.input_ids[row][sampled.response_mask[row].bool()]
            rows.append(torch.cat([torch.tensor(prefix), completion]))
            shifts.append(len(prefix) - begin)
        read = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor([len(row) for row in rows])
        attention_mask = (torch.arange(read.shape[1]) < lengths[:, None]).long()
        reader = (policy if frozen is None else frozen).eval()
        large = large_vocabulary(reader)
        said = (
            hidden_states(reader, read, attention_mask)
            if large
            else reader(input_ids=read, attention_mask=attention_mask).logits
        )
        width = sampled.input_ids.shape[1] - 1
        places = torch.arange(width) + torch.tensor(shifts)[:, None]  # (R, T - 1) where the teacher's logits stand
        rows_of = torch.arange(len(kept))[:, None]
        taught = said[rows_of, places.clamp(max=read.shape[1] - 1)]  # what is clamped is masked
        rows = sampled.input_ids[kept], sampled.attention_mask[kept], sampled.response_mask[kept, 1:]
        return Lesson(*rows, None, taught, reader) if large else Lesson(*rows, taught)

    return teach


def load_teacher(settings: ResearchSettings, task, run: Run) -> nn.Module:
    """The model of `settings.teacher`; by default the start policy after a while of careful demonstrations.

    A teacher made here is kept in the run folder, where a resumed run finds it.
    """
    made = run.path / "teacher"
    if settings.teacher is not None:
        teacher = load_model(settings.teacher)[0]
    elif made.is_dir():
        teacher = load_model(made)[0]
    else:
        teacher, _, tokenizer = start_with_habit(settings.model_copy(update={"habit": "careful", "seed": 0}), task)
        if run.keeps(teacher):
            save_model(teacher, tokenizer, made)
    return teacher.eval().requires_grad_(False)

"""Training steps against TRL's trainers: `python benchmarks/training.py`. Prints ratios, measured in one run.

SFT, DPO, a Bradley-Terry reward model and GRPO, each by our training loop and by TRL's trainer: the same weights, data,
order of the data, optimizer (fused AdamW), clipping and threads, in float32. Both loops run whole, but without
evaluations, logs and files; the clock runs from the end of the warm-up steps to the end of the last. The two alternate,
and each ratio is the median over the repetitions. A GRPO step is a rollout with all its updates, 4 as in week 06, and
the paper's KL weight of 0.04, since our loop asks the reference in any case and TRL with beta = 0 would not.

That both compute the same thing is checked: the loss of the first step, and printed, that of the last, which knows all
gradients before it; of GRPO, whose samples differ, loss and gradient norm of one step on the same completions.

--model nano is the base checkpoint: NanoLM for us, the same weights in Qwen3ForCausalLM for TRL, both in the attention
that is faster there. NanoLM reads what rows have in common once and padding not at all (models/prefixes.py); samples of
one prompt have much in common. With --model small both sides train one random Qwen3 of transformers (4 layers, a
vocabulary of 32,000), so that the loops alone differ. DPO asks its reference in every step on both sides, with the
large vocabulary once before the first.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.table import Table
from trl_side import Laps, Verifier, adamw, fast_tokenizer, grpo_options, quiet, run_trl

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve
from reference_impl.data.judged import sample_judged, some_pairs
from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import sample_pairs, split_pairs, write_pairs
from reference_impl.implementations import load_functions
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.batch import group_advantages, make_batch
from reference_impl.loops.evaluate import rollout
from reference_impl.loops.preference import train_preferences
from reference_impl.loops.preference_updates import pair_update
from reference_impl.loops.reward import Learner
from reference_impl.loops.rl import train_rl
from reference_impl.loops.sft import make_examples, relative_lr, train_sft
from reference_impl.loops.update import update
from reference_impl.models import BASE, load_model
from reference_impl.models.tokenizer import CharTokenizer
from reference_impl.rewards import reward_function
from reference_impl.settings import PPOSettings, PreferenceSettings, RewardSettings, SFTSettings
from reference_impl.tasks import get_task
from reference_impl.tasks.chain_sum import ChainSum

LIMITS = {"SFT": 1.5, "DPO": 1.5, "RM": 1.5, "GRPO": 3.0}  # of the ratio, at nano scale
PROMPTS = 512  # whose samples are the pairs
AGREE = 1e-4  # of two losses


class Stopwatch:
    """Takes the place of our loops' run folder: it writes nothing, and times the steps after the warm-up."""

    resumed = True  # so that the pairs that lie in `path` are read, not sampled

    def __init__(self, bench: Bench, tokens: int = 0) -> None:
        self.path, self.warmup, self.laps, self.lengths = bench.folder, bench.warmup, Laps(tokens), []

    def restore(self, model, **parts) -> int:
        return 0

    def steps(self, start: int, total: int, label: str) -> Iterator[SimpleNamespace]:
        for step in range(1, total + 1):
            if step == self.warmup + 1:
                self.laps.start()
            yield SimpleNamespace(step=step, note=lambda text: None)
        self.laps.stop()

    def log(self, step: int, **metrics: float) -> None:
        if "loss" in metrics:
            self.laps.losses.append(metrics["loss"])
        if "response_length" in metrics:
            self.lengths.append(metrics["response_length"])

    def save(self, *args, **parts) -> None:
        pass

    write = save


class WideTokenizer(CharTokenizer):
    """For a model with more tokens than there are characters."""

    def decode(self, ids) -> str:
        return super().decode([i for i in ids if i < self.vocab_size])


def small_model(attention: str) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    sizes = {"vocab_size": 32_000, "hidden_size": 256, "intermediate_size": 768, "head_dim": 64}
    layers = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}
    config = Qwen3Config(**sizes, **layers, **special)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


class Bench:
    """What both sides share: weights, data, lengths of the runs."""

    def __init__(self, model: str, attention: str, beta: float | None, folder: Path, warmup: int, steps: int) -> None:
        from transformers import AutoModelForCausalLM

        self.attention, self.beta = attention, beta if beta is not None else 0.04 if model == "nano" else 0.0
        base, self.tokenizer = load_model("base")
        if model == "nano":
            self.policy, self.their_policy = base, AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
            self.their_policy.set_attn_implementation(attention)
        else:
            self.policy = self.their_policy = small_model(attention)
            self.tokenizer = WideTokenizer()
        self.their_tokenizer = fast_tokenizer()
        self.task, self.folder, self.warmup, self.timed = get_task(), folder, warmup, steps
        self.samples = sample_judged(base, self.tokenizer, self.task, self.task.prompts("reward", PROMPTS), 8, 28, 0)
        sums = self.task.prompts("pref", PROMPTS)
        pairs = sample_pairs(base, self.tokenizer, self.task, sums, 8, 2, 28, 0)
        # TRL ends every answer with eos
        self.pairs = [pair for pair in pairs if pair.chosen[-1] == pair.rejected[-1] == self.tokenizer.eos_token_id]
        write_pairs(folder / "pairs.jsonl", self.pairs)

    def settings(self, week: str, algorithm: str, schema, **overrides):
        """The week's settings at nano scale, for a short run without evaluations."""
        overrides |= {"steps": self.warmup + self.timed, "eval_every": 10**9, "checkpoint_every": 1}
        overrides |= {"eval_prompts": 1, "final_eval_prompts": 1}
        if self.policy is self.their_policy:  # the small model, which is a hundred times as large
            overrides |= {"lr": 1e-4} | ({"prompts_per_step": 4} if schema is PPOSettings else {"batch_size": 8})
        return resolve(schema, week, algorithm=algorithm, scale="nano", overrides=overrides)

    def in_order(self, data: list, settings) -> list:
        """`data` in the order in which our loops read it; one batch more, since TRL fetches ahead."""
        steps = range(settings.steps + 1)
        return [data[i] for step in steps for i in batch_indices(step, len(data), settings.batch_size, settings.seed)]

    def tokens(self, rows: list[dict], settings) -> int:
        """Tokens of the timed steps: those of all lists in `rows` whose name ends in ids."""
        timed = rows[self.warmup * settings.batch_size : settings.steps * settings.batch_size]
        return sum(len(ids) for row in timed for name, ids in row.items() if name.endswith("ids"))


Side = Callable[[], Laps]


def sft(bench: Bench) -> tuple[Side, Side]:
    settings = bench.settings("02", "sft", SFTSettings)
    functions = load_functions("02", "reference")
    demonstrations = bench.task.demonstrations((settings.steps + 1) * settings.batch_size)
    examples = make_examples(demonstrations, bench.tokenizer, functions, settings)
    rows = bench.in_order(examples, settings)
    tokens = bench.tokens(rows, settings)

    def ours() -> Laps:
        watch, model = Stopwatch(bench, tokens), copy.deepcopy(bench.policy)
        train_sft(model, bench.tokenizer, bench.task, functions, settings, watch, examples, lambda model, n: {})
        return watch.laps

    def theirs() -> Laps:
        options = {"per_device_train_batch_size": settings.batch_size, "max_length": settings.max_length}
        schedule, model = lambda step: relative_lr(step, functions, settings), copy.deepcopy(bench.their_policy)
        return run_trl("SFT", bench, settings, model, rows, tokens, schedule, **options)

    return ours, theirs


def dpo(bench: Bench) -> tuple[Side, Side]:
    settings = bench.settings("08", "dpo", PreferenceSettings, held_out_pairs=1)
    functions = load_functions("08", "reference")
    training, _ = split_pairs(bench.pairs, settings.held_out_pairs)
    ids = [(pair.prompt + pair.chosen, pair.prompt + pair.rejected) for pair in bench.in_order(training, settings)]
    tokens = bench.tokens([{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in ids], settings)
    decode = bench.tokenizer.decode  # TRL takes text alone
    rows = [
        {"prompt": decode(pair.prompt), "chosen": decode(pair.chosen), "rejected": decode(pair.rejected)}
        for pair in bench.in_order(training, settings)
    ]

    def ours() -> Laps:
        watch, model = Stopwatch(bench, tokens), copy.deepcopy(bench.policy)
        step = pair_update(functions, ALGORITHMS["dpo"].build(functions, settings), bench.tokenizer, settings)
        logps = functions.preference_logps
        train_preferences(model, bench.policy, bench.tokenizer, bench.task, step, logps, settings, watch)
        return watch.laps

    def theirs() -> Laps:
        model = copy.deepcopy(bench.their_policy)
        parts = {"ref_model": copy.deepcopy(bench.their_policy)}
        options = {"per_device_train_batch_size": settings.batch_size, "beta": settings.beta}
        options["precompute_ref_log_probs"] = large_vocabulary(model)  # as our loop does
        return run_trl("DPO", bench, settings, model, rows, tokens, parts=parts, **options)

    return ours, theirs


def reward_model(bench: Bench) -> tuple[Side, Side]:
    settings = bench.settings("03", "bradley-terry", RewardSettings)
    objective = ALGORITHMS["bradley-terry"].build(load_functions("03", "reference"), settings)["bt"]
    samples, pairs = bench.samples, some_pairs(bench.samples, settings.pairs_per_prompt, settings.seed)
    ids = [row[mask.bool()].tolist() for row, mask in zip(samples.input_ids, samples.attention_mask, strict=True)]
    ordered = bench.in_order(pairs.tolist(), settings)
    rows = [{"chosen_ids": ids[chosen], "rejected_ids": ids[rejected]} for chosen, rejected in ordered]
    tokens = bench.tokens(rows, settings)

    def new_model() -> Learner:
        torch.manual_seed(0)  # of the head
        return Learner(objective, bench.policy, settings)

    def ours() -> Laps:
        watch, learner = Stopwatch(bench, tokens), new_model()
        for tick in watch.steps(0, settings.steps, "RM"):  # what train_reward_models does in a step
            chosen = pairs[batch_indices(tick.step - 1, len(pairs), settings.batch_size, settings.seed)]
            watch.log(tick.step, loss=learner.update(samples, chosen))
        return watch.laps

    def theirs() -> Laps:
        from transformers import AutoModelForSequenceClassification

        config = copy.deepcopy(bench.their_policy.config)
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config)
        model.set_attn_implementation(bench.attention)
        model.model.load_state_dict(bench.their_policy.model.state_dict())
        model.score.weight.data.copy_(new_model().model.head.weight.data)
        options = {"per_device_train_batch_size": settings.batch_size, "max_length": settings.max_length}
        return run_trl("Reward", bench, settings, model, rows, tokens, **options)

    return ours, theirs


class Prepared(ChainSum):
    """The task with prompts of the rl split that were drawn beforehand, as TRL's are."""

    def draw(self, split: str, seed: int = 0):
        return iter(self.drawn) if split == "rl" else super().draw(split, seed)


def grpo(bench: Bench) -> tuple[Side, Side]:
    settings = bench.settings("06", "grpo", PPOSettings, beta=bench.beta)
    advantages, loss = ALGORITHMS["grpo"].build(load_functions("06", "reference"), settings)
    needed = (settings.steps + 1) * settings.prompts_per_step
    prompts = list(islice(bench.task.draw("rl", settings.seed), needed))

    def ours() -> Laps:
        watch, policy = Stopwatch(bench), copy.deepcopy(bench.policy)
        task = Prepared()
        task.drawn = prompts
        reward = reward_function("verifier", task, bench.tokenizer)
        train_rl(policy, bench.policy, bench.tokenizer, task, reward, advantages, loss, settings, watch)
        watch.laps.tokens = sum(watch.lengths[bench.warmup :]) * settings.prompts_per_step * settings.group
        return watch.laps

    def theirs() -> Laps:
        verifier, model = Verifier(bench, prompts), copy.deepcopy(bench.their_policy)
        rows = [{"prompt": prompt.text} for prompt in prompts]
        updates = settings.epochs * settings.minibatches
        parts, options = {"reward_funcs": verifier}, grpo_options(settings)
        laps = run_trl("GRPO", bench, settings, model, rows, updates=updates, parts=parts, **options)
        laps.tokens = sum(verifier.tokens[bench.warmup :])
        return laps

    return ours, theirs


def grpo_agreement(bench: Bench) -> tuple[tuple[float, float], tuple[float, float]]:
    """(loss, gradient norm) of one GRPO step on the same completions: ours, TRL's.

    By the token mean, since the mean of each completion makes the loss of an on-policy step 0, whatever the rewards.
    """
    one = {"epochs": 1, "minibatches": 1, "aggregate": "token_mean", "beta": bench.beta}
    settings = bench.settings("06", "grpo", PPOSettings, **one).model_copy(update={"steps": 1})
    advantages, loss = ALGORITHMS["grpo"].build(load_functions("06", "reference"), settings)
    prompts = list(islice(bench.task.draw("rl", settings.seed), 2 * settings.prompts_per_step))
    first, generator = prompts[: settings.prompts_per_step], torch.Generator().manual_seed(0)
    policy = copy.deepcopy(bench.policy)
    sampled, texts = rollout(policy, bench.tokenizer, first, settings.group, settings.max_new_tokens, 1.0, generator)
    reward = reward_function("verifier", bench.task, bench.tokenizer)(first, texts, sampled)
    batch = make_batch(sampled, reward, bench.policy, settings)
    batch.advantages = group_advantages(batch.rewards, advantages, settings)
    metrics = update(policy, adamw(policy, settings), batch, loss, settings, generator)

    def replay(asked: list[str], trainer) -> dict[str, list]:
        def part(values, mask) -> list[list]:
            return [row[kept.bool()].tolist() for row, kept in zip(values, mask, strict=True)]

        prompt_mask = sampled.attention_mask - sampled.response_mask
        return {
            "prompt_ids": part(sampled.input_ids, prompt_mask),
            "completion_ids": part(sampled.input_ids, sampled.response_mask),
            "logprobs": part(sampled.logprobs, sampled.response_mask),
        }

    model, rows = copy.deepcopy(bench.their_policy), [{"prompt": prompt.text} for prompt in prompts]
    parts = {"reward_funcs": Verifier(bench, prompts), "rollout_func": replay}
    options = grpo_options(settings, loss_type="dapo", logging_strategy="steps", logging_steps=1)
    laps = run_trl("GRPO", bench, settings, model, rows, parts=parts, **options)
    return (metrics["loss"], metrics["grad_norm"]), (laps.losses[0], laps.norms[0])


CASES = {"SFT": sft, "DPO": dpo, "RM": reward_model, "GRPO": grpo}


@dataclass
class Result:
    """Runs of both sides, in turn."""

    name: str
    ours: list[Laps]
    theirs: list[Laps]

    def speed(self, side: str) -> float:
        return statistics.median(laps.tokens / laps.wall for laps in getattr(self, side))

    def ratio(self, clock: str) -> float:
        """Median of our tokens a second over TRL's."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median((a.tokens / getattr(a, clock)) / (b.tokens / getattr(b, clock)) for a, b in pairs)


def compare(name: str, bench: Bench, repeat: int) -> Result:
    ours, theirs = CASES[name](bench)
    result = Result(name, [], [])
    for _ in range(repeat):
        result.ours.append(ours())
        result.theirs.append(theirs())
    return result


def agreement(result: Result, bench: Bench) -> dict[str, tuple[float, float]]:
    """What should be equal, by its name: (ours, TRL's). The first of it is checked, the second knows the gradient."""
    if result.name != "GRPO":
        ours, theirs = result.ours[0].losses, result.theirs[0].losses
        return {"first loss": (ours[0], theirs[0]), "last": (ours[-1], theirs[-1])}
    if bench.policy is bench.their_policy:
        return {}  # the small model is never right, so its advantages are all 0
    return dict(zip(("loss", "gradient norm"), zip(*grpo_agreement(bench), strict=True), strict=True))


def check(name: str, both: dict[str, tuple[float, float]]) -> None:
    for label, (ours, theirs) in list(both.items())[:1]:
        assert abs(ours - theirs) < AGREE, f"{name}: {label} {ours}, but {theirs} in TRL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each run (GRPO: rollouts)")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", choices=["nano", "small"], default="nano")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager", help="of transformers' models")
    parser.add_argument("--beta", type=float, help="KL weight of GRPO; default: 0.04, with the small model 0")
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio of nano is below its limit")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quiet()
    table = Table(title=f"tokens per second, {arguments.model}, {arguments.threads} threads, one run")
    for column in ("step", "ours", "TRL", "ratio", "CPU ratio", "at least", "ours and TRL's"):
        table.add_column(column, justify="right" if column not in ("step", "ours and TRL's") else "left")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        options = (arguments.model, arguments.attention, arguments.beta)
        bench = Bench(*options, Path(folder), arguments.warmup, arguments.steps)
        for name in [arguments.only] if arguments.only else CASES:
            result = compare(name, bench, arguments.repeat)
            both = agreement(result, bench)
            check(name, both)
            failed |= arguments.model == "nano" and result.ratio("wall") < LIMITS[name]
            table.add_row(
                name,
                f"{result.speed('ours'):,.0f}",
                f"{result.speed('theirs'):,.0f}",
                f"{result.ratio('wall'):.2f}",
                f"{result.ratio('cpu'):.2f}",
                f"{LIMITS[name]:.1f}" if arguments.model == "nano" else "",
                "; ".join(f"{label} {a:.5f} {b:.5f}" for label, (a, b) in both.items()),
            )
    Console(width=120).print(table)
    sys.exit(int(failed and arguments.check))


if __name__ == "__main__":
    main()

"""Every week's settings: their types, defaults, ranges and meanings. config.py resolves them."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reference_impl.algorithms import ALGORITHMS

MICRO_BATCHES = Field(1, ge=1, description="parts that a batch is cut into to save memory; the gradient is the same")
Aggregate = Literal["sequence_sum", "sequence_mean", "token_mean", "constant"]


class Settings(BaseModel):
    """What every run has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    week: str
    algorithm: str
    impl: str = "student"
    scale: str = "nano"
    seed: int = Field(0, ge=0, description="seeds the sampler, the prompts and the order of the data")
    steps: int = Field(200, ge=1, description="optimizer steps (rollouts, in RL)")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    threads: int | None = Field(1, ge=1, description="CPU threads, null: all; nano is too small to gain from many")
    eval_every: int | None = Field(None, ge=1, description="steps between evaluations; default: a tenth of the run")
    eval_prompts: int = Field(256, ge=1, description="held-out prompts of each evaluation during training")
    final_eval_prompts: int = Field(1024, ge=1, description="held-out prompts before and after training")
    checkpoint_every: int | None = Field(None, ge=1, description="steps between checkpoints; default: as eval_every")

    @model_validator(mode="after")
    def _derive(self) -> Self:
        self._fill("eval_every", max(1, self.steps // 10))
        self._fill("checkpoint_every", self.eval_every)
        return self

    def _fill(self, key: str, value: Any) -> None:
        """Set a derived default, unless it was given."""
        if getattr(self, key) is None:
            object.__setattr__(self, key, value)


class ModelSettings(Settings):
    """A run that trains a language model on a task."""

    task: str = Field("chain_sum", description="chain_sum (reasoning_gym) or gsm8k")
    policy: str = Field(
        "base", description="start model: base, random, smol, smol-sft, a run or checkpoint folder, a hub name"
    )
    data: str | None = Field(None, description="public data set or a file of its form; default: the task's own samples")
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="of matrix products; weights are float32 always"
    )
    gradient_checkpointing: bool = Field(False, description="compute each layer again in the backward pass")
    rows_at_once: int = Field(256, ge=1, description="completions that a large model samples at once")
    engine: Literal["own", "vllm"] = Field("own", description="what samples: reference_impl/sampling.py, or vLLM")
    shard: bool | Literal["auto"] = Field(
        "auto", description="several GPUs: divide weights and optimizer among them (FSDP); auto: at scale full"
    )
    max_new_tokens: int = Field(28, ge=1, description="longest completion sampled")
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class RLSettings(ModelSettings):
    """Policy gradients: rollouts of `prompts_per_step` x `group` completions, `epochs` x `minibatches` updates each."""

    reference: str | None = Field(None, description="model that `kl` is measured against; default: the start policy")
    habit: Literal["hasty", "rambling"] | None = Field(None, description="taught to the start policy before training")
    prompts_per_step: int = Field(8, ge=1)
    group: int = Field(8, ge=1, description="completions per prompt (G)")
    temperature: float = Field(1.0, gt=0, description="of sampling and of scoring alike")
    reward: str = Field("verifier", description="verifier, or a reward model: a run of week 03 or 04")
    kl_penalty: float | None = Field(
        None, ge=0, description="beta in r - beta log pi/ref; default: 0 with the verifier, 0.5 with a reward model"
    )
    reward_shift: float = Field(0.0, description="added to every reward: changes no optimum, only the variance")
    micro_batches: int = MICRO_BATCHES
    overlong_cache: int = Field(
        0, ge=0, description="tokens before max_new_tokens over which a penalty grows to 1 (DAPO); 0: no penalty"
    )
    aggregate: Aggregate = "sequence_sum"
    epochs: int = Field(1, ge=1, description="passes over each rollout")
    minibatches: int = Field(1, ge=1, description="optimizer steps of each pass, on as many parts of the rollout")
    betas: tuple[float, float] = (0.9, 0.95)
    signal_batches: int = Field(48, ge=3, description="rollouts behind the gradient signal-to-noise experiment")

    @model_validator(mode="after")
    def _follow_policy(self) -> Self:
        self._fill("reference", self.policy)
        self._fill("kl_penalty", 0.0 if self.reward == "verifier" else 0.5)
        return self

    @model_validator(mode="after")
    def _on_policy(self) -> Self:
        row = ALGORITHMS.get(self.algorithm)
        if row is not None and not row.ratio and self.epochs * self.minibatches > 1:
            raise ValueError(
                f"{self.algorithm} has no importance ratio, so all steps on a rollout but the first would follow a "
                "wrong gradient: leave epochs and minibatches at 1"
            )
        return self


class PPOSettings(RLSettings):
    """Week 06: several updates on each rollout, held back by a clip."""

    clip_low: float = Field(0.2, gt=0, description="the ratio is clipped below at 1 - clip_low; 1 or more: not at all")
    clip_high: float = Field(0.2, gt=0, description="and above at 1 + clip_high")
    beta: float = Field(0.0, ge=0, description="weight of k3(pi || ref) in the loss, where the algorithm has it")
    dynamic_sampling: bool = Field(False, description="wait for a full batch of groups with unequal rewards")
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1, description="of the generalised advantage estimation")
    value_lr: float = Field(2e-3, gt=0, description="learning rate of the critic")
    value_clip: float = Field(0.2, gt=0)

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.minibatches > self.prompts_per_step:
            raise ValueError("minibatches may be at most prompts_per_step: a group is not cut")
        return self


class ReasoningSettings(RLSettings):
    """Week 07: a verifiable reward, and what n samples of the policy buy before and after."""

    format_weight: float = Field(0.1, ge=0, description="reward of an answer that is wrong")
    dynamic_sampling: bool = Field(False, description="wait for a full batch of groups with unequal rewards")
    scaling_prompts: int = Field(256, ge=1, description="held-out prompts behind the scaling curves")
    scaling_samples: int = Field(64, ge=1, description="samples of each of them (N)")
    scaling_terms: int | None = Field(None, ge=3, description="terms of these problems; default: as in training")
    reward: Literal["verifier"] = Field(
        "verifier", description="the week's own reward, which is your verifier; a reward model is for scorer="
    )
    scorer: str | None = Field(
        None, description="what best-of-n goes by: a run of week 03 or 04; default: the policy's own log-prob"
    )


class ResearchSettings(RLSettings):
    """Week 11: a proxy reward to over-optimize, and teachers to distil from."""

    reward: str = Field(
        "verifier",
        description="verifier; proxy: a preference model of few labels, trained here; or a run of week 03/04",
    )
    habit: Literal["hasty", "rambling", "shown"] | None = Field(None, description="taught to the start policy first")
    proxy_prompts: int = Field(64, ge=1, description="prompts whose completions the proxy learns from")
    proxy_samples: int = Field(8, ge=2, description="completions of each of them")
    proxy_pairs: int = Field(4, ge=1, description="at most so many right-wrong pairs of one prompt")
    proxy_steps: int = Field(60, ge=1, description="optimizer steps of the proxy, 64 pairs each")
    proxy_lr: float = Field(2e-3, gt=0)
    bon_prompts: int = Field(128, ge=1, description="held-out prompts behind the best-of-n curve")
    bon_samples: int = Field(128, ge=2, description="samples of each of them: the largest n")
    teacher: str | None = Field(
        None, description="model to distil from: a run or checkpoint; default: the policy after careful demonstrations"
    )
    jsd_beta: float = Field(1.0, ge=0, le=1, description="0: KL(teacher || student), 1: KL(student || teacher)")
    top_k: int = Field(20, ge=1, description="tokens that SDPO tells apart; all others are one")
    frozen_teacher: bool = Field(False, description="SDPO: the teacher stays as it was at the start")
    seeds: int = Field(5, ge=2, description="seeds of each arm of the experiment teachers")


class SupervisedSettings(ModelSettings):
    """Cross-entropy on examples."""

    batch_size: int = Field(64, ge=1)
    micro_batches: int = MICRO_BATCHES
    max_length: int = Field(64, ge=2, description="tokens kept of prompt + response")
    warmup_steps: int | None = Field(None, ge=0, description="default: 2% of the steps")
    min_ratio: float = Field(0.05, ge=0, le=1, description="last learning rate over the peak")
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)

    @model_validator(mode="after")
    def _derive_warmup(self) -> Self:
        self._fill("warmup_steps", self.steps // 50)
        return self


class SFTSettings(SupervisedSettings):
    """Week 02: supervised fine-tuning on demonstrations."""

    policy: str = "random"
    demonstrations: int = Field(58_000, ge=1, description="size of the corpus")


class RejectionSettings(SupervisedSettings):
    """Week 10: supervised fine-tuning on the policy's own samples, selected by their reward."""

    reference: str | None = Field(None, description="model that `kl` is measured against; default: the start policy")
    reward: str = Field("verifier", description="verifier, or a reward model: a run of week 03 or 04")
    sample_prompts: int = Field(1600, ge=1, description="prompts that completions are sampled for (P)")
    samples_per_prompt: int = Field(8, ge=2, description="completions of each (N)")
    keep: int = Field(1, ge=1, description="completions kept of each prompt, or for each prompt on average")
    pass_samples: int = Field(64, ge=1, description="samples of a held-out prompt behind pass@k (compare)")
    bon_prompts: int = Field(64, ge=1, description="held-out prompts whose samples are chosen from (best-of-n)")
    bon_samples: int = Field(256, ge=64, description="samples of each (best-of-n)")
    annotators: int = Field(60, ge=6, description="people in a pool (pool)")
    items: int = Field(12, ge=3, description="answers that a pool compares (pool)")
    pools: int = Field(20, ge=2, description="pools drawn for each mixture of tastes (pool)")

    @model_validator(mode="after")
    def _selection(self) -> Self:
        self._fill("reference", self.policy)
        if self.keep > self.samples_per_prompt:
            raise ValueError(f"keep={self.keep} is more than samples_per_prompt={self.samples_per_prompt}")
        return self


class PreferenceSettings(ModelSettings):
    """Direct alignment on pairs sampled from the start policy and labelled by the verifier."""

    reference: str | None = Field(None, description="frozen model of the log-ratios; default: the start policy")
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of flipped labels (cDPO)")
    pair_prompts: int = Field(1500, ge=2, description="prompts that completions are sampled for")
    samples_per_prompt: int = Field(8, ge=2)
    pairs_per_prompt: int = Field(2, ge=1, description="at most so many pairs of one prompt")
    held_out_pairs: int = Field(256, ge=1)
    data_rows: int = Field(20_000, ge=1, description="most pairs that are taken from `data`")
    max_length: int = Field(1024, ge=8, description="tokens of prompt and answer, of pairs from `data`")
    batch_size: int = Field(64, ge=1)
    micro_batches: int = MICRO_BATCHES
    betas: tuple[float, float] = (0.9, 0.95)

    @model_validator(mode="after")
    def _follow_policy(self) -> Self:
        self._fill("reference", self.policy)
        return self


class RewardSettings(ModelSettings):
    """Reward models on completions that the policy sampled and the verifier judged.

    `eval_prompts` and `final_eval_prompts` are held out, with `held_out_samples` completions each.
    """

    reward_prompts: int = Field(1500, ge=1, description="prompts whose completions are learned from")
    samples_per_prompt: int = Field(8, ge=2)
    pairs_per_prompt: int = Field(4, ge=1, description="at most so many right-wrong pairs of one prompt")
    held_out_samples: int = Field(16, ge=2, description="completions of each held-out prompt")
    negatives: Literal["sampled", "edited", "both"] = Field(
        "sampled", description="wrong completions: the policy's, right ones with a digit of the answer changed, or both"
    )
    orm_how: Literal["last", "mean", "min"] = Field("last", description="from tokens to a score (orm_score)")
    data_rows: int = Field(20_000, ge=1, description="most pairs or traces that are taken from `data`")
    max_length: int = Field(1024, ge=8, description="their tokens, prompt and answer together")
    batch_size: int = Field(64, ge=1, description="completions, or pairs, of each step")
    micro_batches: int = MICRO_BATCHES
    betas: tuple[float, float] = (0.9, 0.95)


class ProcessSettings(RewardSettings):
    """Week 04: a reward model of steps, with an outcome model beside it."""

    label_eos: bool = Field(True, description="rate the end of the completion as a step too")
    prm_how: Literal["min", "prod", "mean", "last"] = Field(
        "min", description="from steps to a score (aggregate_steps)"
    )
    prm_share: float = Field(1.0, gt=0, le=1, description="share of the completions that the step model learns from")

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        if self.held_out_samples & (self.held_out_samples - 1):
            raise ValueError("held_out_samples must be a power of 2, so that it can be cut into groups of 1, 2, 4, ...")
        return self


class ReferenceFreeSettings(PreferenceSettings):
    """Week 09: SimPO, ORPO and KTO on the pairs of week 08."""

    gamma_beta_ratio: float = Field(0.5, ge=0, description="SimPO's margin, as a gap of average log-probs")
    lam: float = Field(0.1, ge=0, description="weight of ORPO's odds ratio beside the NLL")
    desirable_weight: float = Field(1.0, ge=0, description="of a good answer in KTO")
    undesirable_weight: float = Field(1.0, ge=0, description="of a bad answer in KTO")
    bad_per_good: int | None = Field(
        None, ge=1, description="KTO without pairs: so many bad answers to each good one; default: the pairs"
    )

    @model_validator(mode="after")
    def _unpaired(self) -> Self:
        if self.bad_per_good is not None and self.algorithm != "kto":
            raise ValueError(f"bad_per_good takes pairs apart, and {self.algorithm} learns from pairs: only kto can")
        return self


class ObjectiveSettings(ModelSettings):
    """Week 01: policies that are tables, and a first outcome reward model."""

    kl_weights: tuple[float, ...] = Field(
        (0.1, 0.2, 0.5, 1.0, 2.0), min_length=1, description="the betas to climb with"
    )
    outcomes: int = Field(32, ge=2, description="completions that a table chooses between")
    samples: int = Field(4096, ge=16, description="draws behind each KL estimate")
    reward_prompts: int = Field(100, ge=8, description="prompts of the reward model's training completions")
    reward_lr: float = Field(2e-3, gt=0, description="learning rate of the reward model")

"""The one table of algorithms: what each is made of, where it comes from, and what it minimises.

`needs` names the week's functions that it trains with; `build(functions, settings)` puts them together into what the
loop calls (reference_impl/loops). Plugging in other functions, a student's or a friend's, is passing another
`functions`. To add an algorithm, write its builder and its row, and then the
table in README.md anew: `python -m reference_impl.table`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table is read before torch is needed, by `rlhf train --help` for one
    from torch import Tensor


@dataclass(frozen=True)
class Algorithm:
    """One row: name, week, functions used, how they are put together, settings of its own, source and formula.

    `book` and `trl` say how the book's code and TRL 1.16 do it otherwise; "none" where they do not have it. `reads` are
    the settings that not every algorithm of the week reads: given to one that does not, they are refused. `ratio`: its
    loss corrects for a policy that has moved since the rollout, so it may take several steps on one.
    """

    name: str
    week: str
    needs: tuple[str, ...]
    build: Callable[[SimpleNamespace, Any], Any] | None
    paper: str
    formula: str
    book: str
    trl: str
    defaults: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    ratio: bool = False

    def plugs_in(self, week: str) -> bool:
        """Does a run of `week` train with the functions of --impl? Otherwise it is reference_impl's alone.

        So it is for a row that needs no function of its week, and for another week's row, there to compare with.
        """
        return bool(self.needs) and week == self.week


# Policy gradients: (advantages, loss). advantages(rewards (P, G)) -> (P, G); loss(logprobs (B, T), batch) -> scalar,
# where batch (reference_impl/loops/batch.py) holds advantages (B,), rewards (B,), and mask, old_logprobs and
# ref_logprobs (B, T), with B = P * G and a prompt's rows together.


def reinforce(functions, settings):
    """REINFORCE as it is: the reward itself weighs the log-prob."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.reinforce_loss(logprobs, batch.rewards, batch.mask)

    return raw_rewards, loss


def reinforce_with_baseline(functions, settings):
    """REINFORCE minus the mean reward of the batch's other completions."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        baseline = functions.batch_baseline(batch.rewards)
        return functions.reinforce_loss(logprobs, batch.rewards, batch.mask, baseline=baseline)

    return raw_rewards, loss


def rloo(functions, settings):
    """REINFORCE leave-one-out: the baseline is the mean reward of the prompt's other completions."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.policy_gradient_loss(
            logprobs, batch.advantages, batch.mask, settings.aggregate, max_length=settings.max_new_tokens
        )

    return functions.rloo_advantages, loss


# Several updates on each rollout: the same pair; the batch may be a part of a rollout.


def ppo(functions, settings):
    """PPO: the clipped surrogate, with advantages (B, T) from a critic (reference_impl/loops/critic.py)."""
    return raw_rewards, clipped(functions, settings)


def grpo(functions, settings):
    """GRPO: rewards standardised within the group, clipped surrogate, k3 in the loss. DAPO is its settings."""
    return functions.grpo_advantages, grpo_surrogate(functions, settings)


def dr_grpo(functions, settings):
    """Dr. GRPO: neither the group's std nor the completion's length divides anything."""

    def advantages(rewards: "Tensor") -> "Tensor":
        return functions.grpo_advantages(rewards, normalize_std=False)

    return advantages, grpo_surrogate(functions, settings)


def gspo(functions, settings):
    """GSPO: one ratio and one clip for each completion."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.gspo_loss(
            logprobs, batch.old_logprobs, batch.advantages, batch.mask, settings.clip_low, settings.clip_high
        )

    return functions.grpo_advantages, loss


def cispo(functions, settings):
    """CISPO: REINFORCE with a clipped, constant importance weight."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.cispo_loss(
            logprobs, batch.old_logprobs, batch.advantages, batch.mask, settings.clip_low, settings.clip_high
        )

    return functions.grpo_advantages, loss


def sapo(functions, settings):
    """SAPO: a soft gate in place of the clip; its loss is no exercise and comes from reference_impl."""
    from reference_impl.ppo_grpo import sapo_loss

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return sapo_loss(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            batch.mask,
            aggregate=settings.aggregate,
            max_length=settings.max_new_tokens,
        )

    return functions.grpo_advantages, loss


def maxrl(functions, settings):
    """MaxRL: centred rewards over the group's mean; its advantages are no exercise and come from reference_impl."""
    from reference_impl.ppo_grpo import maxrl_advantages

    return maxrl_advantages, clipped(functions, settings)


def rlvr(functions, settings):
    """RLVR: RLOO from reference_impl; what is the week's own is the reward."""
    from reference_impl.reinforce import policy_gradient_loss, rloo_advantages

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return policy_gradient_loss(
            logprobs, batch.advantages, batch.mask, settings.aggregate, max_length=settings.max_new_tokens
        )

    return rloo_advantages, loss


def clipped(functions, settings):
    """The loss of PPO."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.ppo_clip_loss(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            batch.mask,
            settings.clip_low,
            settings.clip_high,
            settings.aggregate,
            max_length=settings.max_new_tokens,
        )

    return loss


def grpo_surrogate(functions, settings):
    """The loss of GRPO."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.grpo_loss(
            logprobs,
            batch.old_logprobs,
            batch.ref_logprobs,
            batch.advantages,
            batch.mask,
            settings.clip_low,
            settings.clip_high,
            settings.beta,
            settings.aggregate,
            max_length=settings.max_new_tokens,
        )

    return loss


def raw_rewards(rewards: "Tensor") -> "Tensor":
    """The advantages of an algorithm whose loss does its own subtracting."""
    return rewards


# Preferences: a function from the batch to the loss of the four log-probs that dpo_step calls.


def dpo(functions, settings):
    """DPO; with label_smoothing above 0 it is conservative DPO."""

    def loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected):
        return functions.dpo_loss(
            policy_chosen,
            policy_rejected,
            ref_chosen,
            ref_rejected,
            beta=settings.beta,
            label_smoothing=settings.label_smoothing,
        )

    return lambda batch: loss


def ipo(functions, settings):
    """IPO on log-probs averaged over each response's tokens, as its authors and TRL do."""

    def with_lengths(batch):
        return lambda *logps: functions.ipo_loss(*averages(logps, batch), beta=settings.beta)

    return with_lengths


def dpo_norm(functions, settings):
    """DPO on length-averaged log-probs; no exercise, its loss comes from reference_impl."""
    from reference_impl.preference_variants import dpo_norm_loss

    def with_lengths(batch):
        return lambda *logps: dpo_norm_loss(*averages(logps, batch), beta=settings.beta)

    return with_lengths


def apo_zero(functions, settings):
    """APO-zero: chosen up, rejected down; no exercise, its loss comes from reference_impl."""
    from reference_impl.preference_variants import apo_zero_loss

    return lambda batch: lambda *logps: apo_zero_loss(*logps, beta=settings.beta)


def apo_down(functions, settings):
    """APO-down: both down, rejected further; no exercise, its loss comes from reference_impl."""
    from reference_impl.preference_variants import apo_down_loss

    return lambda batch: lambda *logps: apo_down_loss(*logps, beta=settings.beta)


def averages(logps, batch):
    """Summed log-probs (policy chosen, policy rejected, reference chosen, reference rejected) as means over tokens."""
    chosen, rejected = batch["chosen_response_mask"].sum(1), batch["rejected_response_mask"].sum(1)
    return [logp / length for logp, length in zip(logps, (chosen, rejected, chosen, rejected), strict=True)]


# Without a reference, or without pairs: loss(logprobs (R, T), batch) -> scalar, where batch (data/answers.py) holds R
# answers, the good ones first. Out of pairs, the first half is chosen and the second half rejected.


def simpo(functions, settings):
    """SimPO: average log-probs, a margin, no reference."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        chosen_avg, rejected_avg = functions.average_logps(logprobs, batch.mask).chunk(2)
        return functions.simpo_loss(chosen_avg, rejected_avg, settings.beta, settings.gamma_beta_ratio)

    return loss


def orpo(functions, settings):
    """ORPO: the NLL of each chosen response is minus its average log-prob, so one forward pass is enough."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        chosen_avg, rejected_avg = functions.average_logps(logprobs, batch.mask).chunk(2)
        return functions.orpo_loss(chosen_avg, rejected_avg, -chosen_avg, settings.lam)

    return loss


def kto(functions, settings):
    """KTO: single answers against a reference point, which mismatched pairs estimate."""

    def loss(logprobs: "Tensor", batch) -> "Tensor":
        return functions.kto_loss(
            (logprobs * batch.mask).sum(1),
            batch.ref_logps,
            batch.desirable,
            functions.kto_kl(batch.kl_logps, batch.ref_kl_logps),
            settings.beta,
            settings.desirable_weight,
            settings.undesirable_weight,
        )

    return loss


# Rejection sampling: select(rewards (P, N)) -> LongTensor (K, 2), the (prompt, sample) pairs to fine-tune on. All four
# keep K = P * settings.keep; the random two are the controls, no exercises, and come from reference_impl.


def best_of_each(functions, settings):
    """The best samples of every prompt."""
    return lambda rewards: rows_of(functions.top_per_prompt(rewards, settings.keep))


def best_of_all(functions, settings):
    """The best samples of the whole table."""
    return lambda rewards: functions.top_k_overall(rewards, settings.keep * len(rewards))


def any_of_each(functions, settings):
    """As many samples of every prompt, whatever their reward: the control, no exercise."""
    return lambda rewards: rows_of(functions.random_per_prompt(rewards, settings.keep, seeded(settings)))


def any_of_all(functions, settings):
    """As many samples of the whole table, whatever their reward: the control, no exercise."""
    return lambda rewards: functions.random_k_overall(rewards, settings.keep * len(rewards), seeded(settings))


def rows_of(samples):
    """Samples (P, k) as (prompt, sample) pairs (P * k, 2)."""
    from torch import arange, stack

    return stack([arange(len(samples))[:, None].expand_as(samples), samples], dim=-1).flatten(0, 1)


def seeded(settings):
    """A generator of its own, so that the selection depends on the seed alone."""
    from torch import Generator

    return Generator().manual_seed(settings.seed)


def overoptimization(functions, settings):
    """RLOO against a proxy, from reference_impl; what is the week's own is the fit of the gold reward's curve."""
    return rlvr(functions, settings)


# Distillation: loss(student_logits, teacher_logits (R, T, V), tokens (R, T), mask (R, T)) -> scalar; what the logits at
# t are about is the token at t.


def on_policy_distillation(functions, settings):
    """GKD on the student's own samples."""

    def loss(student_logits: "Tensor", teacher_logits: "Tensor", tokens: "Tensor", mask: "Tensor") -> "Tensor":
        return functions.on_policy_distillation_loss(student_logits, teacher_logits, mask, settings.jsd_beta)

    return loss


def sequence_distillation(functions, settings):
    """Fine-tuning on the teacher's samples: of the teacher only its tokens are used. No exercise."""
    from torch.nn.functional import cross_entropy

    def loss(student_logits: "Tensor", teacher_logits: "Tensor", tokens: "Tensor", mask: "Tensor") -> "Tensor":
        return cross_entropy(student_logits[mask.bool()], tokens[mask.bool()])

    return loss


def sdpo(functions, settings):
    """SDPO; no exercise, its loss comes from reference_impl."""
    from reference_impl.research import sdpo_loss

    def loss(student_logits: "Tensor", teacher_logits: "Tensor", tokens: "Tensor", mask: "Tensor") -> "Tensor":
        return sdpo_loss(student_logits, teacher_logits, mask, settings.top_k)

    return loss


# Reward models: {name: RewardObjective}. rows hold input_ids, attention_mask and completion_mask (B, T), correct (B,),
# and, for steps, labels (B, T); logits are (B, T, outputs).


@dataclass(frozen=True)
class RewardObjective:
    """How one reward model learns, and how its logits become one score a completion."""

    name: str
    algorithm: str  # the row that builds it
    outputs: int  # numbers that its head gives at each token
    loss: Callable[..., Any]  # loss(logits, rows) -> scalar
    score: Callable[..., Any]  # score(logits, rows) -> (B,), higher is better
    paired: bool = False  # then the first half of the rows are the chosen completions, the second half the rejected
    reading: dict[str, Any] = field(default_factory=dict)  # the settings that `score` depends on


def bradley_terry(functions, settings):
    """The preference reward model: a right completion should score above a wrong one of the same prompt."""

    def score(logits: "Tensor", rows) -> "Tensor":
        return functions.last_token_rewards(logits[..., 0], rows.attention_mask)

    def loss(logits: "Tensor", rows) -> "Tensor":
        chosen, rejected = score(logits, rows).chunk(2)
        return functions.bradley_terry_loss(chosen, rejected)

    return {"bt": RewardObjective("bt", "bradley-terry", 1, loss, score, paired=True)}


def orm(functions, settings):
    """The outcome reward model: will this completion turn out right? Asked at each of its tokens."""

    def score(logits: "Tensor", rows) -> "Tensor":
        return functions.orm_score(logits[..., 0], rows.completion_mask, settings.orm_how)

    def loss(logits: "Tensor", rows) -> "Tensor":
        return functions.orm_loss(logits[..., 0], rows.correct, rows.completion_mask)

    reading = {"orm_how": settings.orm_how}
    return {"orm": RewardObjective("orm", "orm", 1, loss, score, reading=reading)}


def reward_models(functions, settings):
    """Both models of week 03."""
    return bradley_terry(functions, settings) | orm(functions, settings)


def prm(functions, settings):
    """The process reward model: is this step good? Asked where a step ends, and where the completion ends."""

    def score(logits: "Tensor", rows) -> "Tensor":
        from torch import arange, tensor
        from torch.nn.utils.rnn import pad_sequence

        steps = functions.step_scores(logits, rows.labels)
        if max(map(len, steps)) == 0:  # nobody wrote a step
            return logits.new_zeros(len(steps))
        lengths = tensor([len(row) for row in steps])
        scores = pad_sequence(steps, batch_first=True)
        return functions.aggregate_steps(scores, arange(scores.shape[1]) < lengths[:, None], settings.prm_how)

    def loss(logits: "Tensor", rows) -> "Tensor":
        return functions.prm_loss(logits, rows.labels)

    reading = {"prm_how": settings.prm_how, "label_eos": settings.label_eos}
    return {"prm": RewardObjective("prm", "prm", 3, loss, score, reading=reading)}


OBJECTIVE = ("token_logprobs", "sequence_logprobs", "kl_estimates", "kl_shaped_rewards", "optimal_policy")
SFT = ("build_example", "collate", "sft_loss", "sft_loop", "lr_at")
PREFERENCE_REWARD = ("last_token_rewards", "bradley_terry_loss")
OUTCOME_REWARD = ("orm_loss", "orm_score")
PROCESS_REWARD = ("prm_labels", "prm_loss", "step_scores", "aggregate_steps")
PREFERENCE = ("implicit_rewards", "preference_logps", "dpo_step")

_ROWS = [
    Algorithm(
        "tabular",
        week="01",
        needs=OBJECTIVE,
        build=None,
        paper="Ziegler et al. 2019, arXiv:1909.08593; Korbak et al. 2022, arXiv:2205.11275; book ch. 3",
        formula="max E[r] - beta KL(pi || ref); pi* is proportional to ref exp(r / beta)",
        book="its KL estimators have the policies swapped: E[k1] = -KL, and k3 is not a KL",
        trl="the same k3; the policy is always a language model",
    ),
    Algorithm(
        "sft",
        week="02",
        needs=SFT,
        build=None,
        paper="Ouyang et al. 2022, arXiv:2203.02155; book ch. 4",
        formula="-sum_t log pi(y_t | x, y_<t), mean over the supervised tokens",
        book="mean of the micro-batches' means; bf16 logits",
        trl="the same mean over all tokens of the optimizer step",
    ),
    Algorithm(
        "bradley-terry",
        week="03",
        needs=(*PREFERENCE_REWARD, "pairwise_accuracy"),
        build=bradley_terry,
        paper="Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155; book ch. 5",
        formula="-log sigma(r_chosen - r_rejected), r read at the last token",
        book="the same loss; right truncation, no gradient clipping, the model is not saved",
        trl="optional margin and a term that centres rewards",
    ),
    Algorithm(
        "orm",
        week="03",
        needs=(*OUTCOME_REWARD, "pairwise_accuracy"),
        build=orm,
        paper="Cobbe et al. 2021, arXiv:2110.14168; book ch. 5",
        formula="binary cross-entropy of sigma(z_t) with the completion's verdict, mean over completion tokens",
        book="the same loss; 100 completions a prompt",
        trl="none",
    ),
    Algorithm(
        "reward-models",
        week="03",
        needs=(*PREFERENCE_REWARD, *OUTCOME_REWARD, "pairwise_accuracy"),
        build=reward_models,
        paper="Ouyang et al. 2022, arXiv:2203.02155; Cobbe et al. 2021, arXiv:2110.14168; book ch. 5",
        formula="bradley-terry and orm, each its own model, side by side on the same completions",
        book="one script each",
        trl="the preference model only",
    ),
    Algorithm(
        "prm",
        week="04",
        needs=(*PROCESS_REWARD, "rerank_accuracy"),
        build=prm,
        paper="Lightman et al. 2023, arXiv:2305.20050; book ch. 5",
        formula="3-class cross-entropy at the end of each step, and of the completion",
        book="alternative candidates of a step follow each other as one trace; ours rates one trace, and its end token",
        trl="none",
    ),
    Algorithm(
        "reinforce",
        week="05",
        needs=("reinforce_loss",),
        build=reinforce,
        paper="Williams 1992; book ch. 6",
        formula="-(1/B) sum_i r_i sum_t log pi_it",
        book="mean over each completion's tokens: 1/|y| of the gradient; no baseline",
        trl="none",
    ),
    Algorithm(
        "reinforce-baseline",
        week="05",
        needs=("reinforce_loss", "batch_baseline"),
        build=reinforce_with_baseline,
        paper="Williams 1992; book ch. 6",
        formula="-(1/B) sum_i (r_i - mean of the batch's other r) sum_t log pi_it",
        book="none",
        trl="none",
    ),
    Algorithm(
        "rloo",
        week="05",
        needs=("rloo_advantages", "policy_gradient_loss"),
        build=rloo,
        paper="Ahmadian et al. 2024, arXiv:2402.14740; book ch. 6",
        formula="-(1/B) sum_i (r_i - mean of the group's other r) sum_t log pi_it",
        defaults={"aggregate": "sequence_sum"},
        reads=("aggregate",),
        book="mean over each completion's tokens; 4 steps a rollout without a ratio",
        trl="a ratio a sequence, clipped at 0.2; KL in the reward, beta 0.05; G = 2",
    ),
    Algorithm(
        "ppo",
        week="06",
        needs=("gae", "ppo_clip_loss", "value_clip_loss"),
        build=ppo,
        paper="Schulman et al. 2017, arXiv:1707.06347; book ch. 6",
        formula="-min(rho A, clip(rho, 1-e, 1+e) A) + value loss, A by GAE, rho = pi/pi_old a token",
        defaults={"aggregate": "token_mean"},
        reads=("clip_low", "clip_high", "aggregate", "gamma", "lam", "value_lr", "value_clip"),
        ratio=True,
        book="mean of each completion; one pass; critic at the policy's rate; lam 0.98",
        trl="none (removed)",
    ),
    Algorithm(
        "grpo",
        week="06",
        needs=("grpo_advantages", "grpo_loss"),
        build=grpo,
        paper="Shao et al. 2024, arXiv:2402.03300; book ch. 6",
        formula="-min(rho A, clip(rho) A) + beta k3, A = (r - group mean) / group std, mean of each completion",
        defaults={"aggregate": "sequence_mean"},
        reads=("clip_low", "clip_high", "beta", "aggregate"),
        ratio=True,
        book="eps 1e-8 in the std: equal rewards give advantages of up to 0.8",
        trl="loss_type grpo; the default is dapo; eps 1e-4 as ours",
    ),
    Algorithm(
        "dr-grpo",
        week="06",
        needs=("grpo_advantages", "grpo_loss"),
        build=dr_grpo,
        paper="Liu et al. 2025, arXiv:2503.20783; book ch. 6",
        formula="-min(rho A, clip(rho) A), A = r - group mean, sum over tokens / (B max_length)",
        defaults={"aggregate": "constant"},
        reads=("clip_low", "clip_high", "beta", "aggregate"),
        ratio=True,
        book="drops the std only: the mean of each completion, and so the length bias, stays",
        trl="loss_type dr_grpo, with scale_rewards none",
    ),
    Algorithm(
        "dapo",
        week="06",
        needs=("grpo_advantages", "grpo_loss"),
        build=grpo,
        paper="Yu et al. 2025, arXiv:2503.14476; book ch. 6",
        formula="GRPO with clip 0.2/0.28, token mean, no flat groups, penalty near the length limit",
        defaults={"aggregate": "token_mean", "clip_high": 0.28, "dynamic_sampling": True, "overlong_cache": 8},
        reads=("clip_low", "clip_high", "beta", "aggregate"),
        ratio=True,
        book="token mean of each micro-batch of 2; groups drop only when all are 0 or all are 1",
        trl="the token mean is the default; no dynamic sampling",
    ),
    Algorithm(
        "gspo",
        week="06",
        needs=("grpo_advantages", "gspo_loss"),
        build=gspo,
        paper="Zheng et al. 2025, arXiv:2507.18071",
        formula="-min(s A, clip(s, 1-3e-4, 1+4e-4) A), s = exp(mean_t log rho_t) a completion",
        defaults={"clip_low": 3e-4, "clip_high": 4e-4},
        reads=("clip_low", "clip_high"),
        ratio=True,
        book="clips at 0.2, where it hardly ever binds",
        trl="importance_sampling_level sequence with loss_type grpo",
    ),
    Algorithm(
        "cispo",
        week="06",
        needs=("grpo_advantages", "cispo_loss"),
        build=cispo,
        paper="MiniMax 2025, arXiv:2506.13585",
        formula="-sg(clip(rho, 0, 5)) A log pi, token mean",
        defaults={"clip_low": 1.0, "clip_high": 4.0},
        reads=("clip_low", "clip_high"),
        ratio=True,
        book="mean of each completion; clips to 0.8 ... 1.4",
        trl="clamps above only, epsilon_high is the bound itself; ours 0 ... 5 is the same as 5 there",
    ),
    Algorithm(
        "sapo",
        week="06",
        needs=("grpo_advantages",),
        build=sapo,
        paper="Gao et al. 2025, arXiv:2511.20347",
        formula="-(4/tau) sigma(tau (rho - 1)) A, tau = 1.0 where A > 0, else 1.05",
        defaults={"aggregate": "sequence_mean"},
        reads=("aggregate",),
        ratio=True,
        book="the same",
        trl="the same",
    ),
    Algorithm(
        "maxrl",
        week="06",
        needs=("ppo_clip_loss",),
        build=maxrl,
        paper="Tajwar et al. 2026, arXiv:2602.02710",
        formula="-min(rho A, clip(rho) A), A = (r - group mean) / group mean, sum over tokens / (B max_length)",
        defaults={"aggregate": "constant"},
        reads=("clip_low", "clip_high", "aggregate"),
        ratio=True,
        book="mean over each completion's tokens, no ratio",
        trl="none",
    ),
    Algorithm(
        "rlvr",
        week="07",
        needs=(
            "extract_answer",
            "answers_match",
            "verifiable_reward",
            "pass_at_k",
            "majority_vote",
            "best_of_n_accuracy",
        ),
        build=rlvr,
        paper="Lambert et al. 2024, arXiv:2411.15124; DeepSeek-AI 2025, arXiv:2501.12948; book ch. 7",
        formula="RLOO with r = 1 if the extracted answer matches, format_weight if it does not, 0 without an answer",
        defaults={"aggregate": "sequence_sum"},
        reads=("aggregate",),
        book="adds 0.5 of a format score and partial credit for near answers",
        trl="reward functions; symbolic equality by math-verify",
    ),
    Algorithm(
        "dpo",
        week="08",
        needs=(*PREFERENCE, "dpo_loss"),
        build=dpo,
        paper="Rafailov et al. 2023, arXiv:2305.18290; book ch. 8",
        formula="-log sigma(beta D), D = log-ratio of chosen minus log-ratio of rejected",
        defaults={"beta": 0.1},
        reads=("beta", "label_smoothing"),
        book="the same formula; log-probs summed in bf16, ours in float32",
        trl="loss_type sigmoid",
    ),
    Algorithm(
        "cdpo",
        week="08",
        needs=(*PREFERENCE, "dpo_loss"),
        build=dpo,
        paper="Mitchell 2023, a note on DPO with noisy preferences; book ch. 8",
        formula="-(1 - e) log sigma(beta D) - e log sigma(-beta D)",
        defaults={"beta": 0.1, "label_smoothing": 0.1},
        reads=("beta", "label_smoothing"),
        book="the same; 0.1 is fixed",
        trl="none: sigmoid ignores label_smoothing, and robust is another form",
    ),
    Algorithm(
        "ipo",
        week="08",
        needs=(*PREFERENCE, "ipo_loss"),
        build=ipo,
        paper="Azar et al. 2023, arXiv:2310.12036; book ch. 8",
        formula="(D - 1 / (2 beta))^2, D of length-averaged log-probs",
        defaults={"beta": 0.1},
        reads=("beta",),
        book="summed log-probs: target 5 for a whole answer",
        trl="loss_type ipo: averaged log-probs, as ours",
    ),
    Algorithm(
        "dpo-norm",
        week="08",
        needs=(),
        build=dpo_norm,
        paper="Lambert et al. 2024, arXiv:2411.15124 section 5; book ch. 8",
        formula="-log sigma(beta D), D of length-averaged log-probs",
        defaults={"beta": 2.0},
        reads=("beta",),
        book="the same",
        trl="loss_type sigmoid_norm",
    ),
    Algorithm(
        "apo-zero",
        week="08",
        needs=(),
        build=apo_zero,
        paper="D'Oosterlinck et al. 2024, arXiv:2408.06266; book ch. 8",
        formula="-sigma(beta h_w) + sigma(beta h_l), h = log pi/ref of chosen (w) and rejected (l)",
        defaults={"beta": 0.1},
        reads=("beta",),
        book="the same",
        trl="plus a constant 1: the same gradient",
    ),
    Algorithm(
        "apo-down",
        week="08",
        needs=(),
        build=apo_down,
        paper="D'Oosterlinck et al. 2024, arXiv:2408.06266; book ch. 8",
        formula="sigma(beta h_w) - sigma(beta (h_w - h_l))",
        defaults={"beta": 0.1},
        reads=("beta",),
        book="the same",
        trl="plus a constant 1: the same gradient",
    ),
    Algorithm(
        "simpo",
        week="09",
        needs=("average_logps", "simpo_loss"),
        build=simpo,
        paper="Meng et al. 2024, arXiv:2405.14734; book ch. 8",
        formula="-log sigma(beta (a_w - a_l - ratio)), a = log-prob averaged over the response's tokens",
        defaults={"beta": 2.0, "gamma_beta_ratio": 0.5},
        reads=("beta", "gamma_beta_ratio"),
        book="the same",
        trl="CPO trainer: the margin is gamma itself, beta times ours",
    ),
    Algorithm(
        "orpo",
        week="09",
        needs=("average_logps", "log_odds_ratio", "orpo_loss"),
        build=orpo,
        paper="Hong et al. 2024, arXiv:2403.07691; book ch. 8",
        formula="-a_w - lam log sigma(log odds(a_w) - log odds(a_l)), odds = p / (1 - p), p = exp(a)",
        defaults={"lam": 0.1},
        reads=("lam",),
        book="the same; a third forward pass for the NLL",
        trl="NLL over prompt and response",
    ),
    Algorithm(
        "kto",
        week="09",
        needs=("kto_kl", "kto_loss"),
        build=kto,
        paper="Ethayarajh et al. 2024, arXiv:2402.01306; book ch. 8",
        formula="w (1 - sigma(+-beta (h - kl))), + for good, - for bad; kl = max(mean h of mismatched pairs, 0)",
        defaults={"beta": 0.1},
        reads=("beta", "desirable_weight", "undesirable_weight"),
        book="reference point from the batch's own rejected answers; two means, twice ours",
        trl="the same mismatched pairs within the batch, one mean",
    ),
    Algorithm(
        "top-per-prompt",
        week="10",
        needs=("top_per_prompt",),
        build=best_of_each,
        paper="Touvron et al. 2023, arXiv:2307.09288 section 3.2.3; book ch. 9",
        formula="SFT on the k best samples of each prompt",
        book="the same",
        trl="none",
    ),
    Algorithm(
        "random-per-prompt",
        week="10",
        needs=(),
        build=any_of_each,
        paper="book ch. 9",
        formula="SFT on k random samples of each prompt: the control of top-per-prompt",
        book="the same",
        trl="none",
    ),
    Algorithm(
        "top-k-overall",
        week="10",
        needs=("top_k_overall",),
        build=best_of_all,
        paper="book ch. 9",
        formula="SFT on the k P best samples of the whole table",
        book="the same",
        trl="none",
    ),
    Algorithm(
        "random-k-overall",
        week="10",
        needs=(),
        build=any_of_all,
        paper="book ch. 9",
        formula="SFT on k P random samples of the whole table: the control of top-k-overall",
        book="the same",
        trl="none",
    ),
    Algorithm(
        "overoptimization",
        week="11",
        needs=("overoptimization_fit",),
        build=overoptimization,
        paper="Gao et al. 2022, arXiv:2210.10760; book ch. 14",
        formula="RLOO and best-of-n against a proxy; gold = d (alpha - beta log d), d (alpha - beta d), d = sqrt(KL)",
        defaults={"aggregate": "sequence_sum", "reward": "proxy", "kl_penalty": 0.0},
        reads=("aggregate",),
        book="none",
        trl="none",
    ),
    Algorithm(
        "on-policy-distillation",
        week="11",
        needs=("on_policy_distillation_loss",),
        build=on_policy_distillation,
        paper="Agarwal et al. 2023, arXiv:2306.13649; Lu and Thinking Machines Lab 2025; book ch. 12",
        formula="KL(student || teacher) of whole next-token distributions on the student's samples, token mean",
        reads=("jsd_beta",),
        book="none",
        trl="gkd: both sides' logits over a temperature of 0.9, beta 0.5",
    ),
    Algorithm(
        "sequence-distillation",
        week="11",
        needs=(),
        build=sequence_distillation,
        paper="Kim and Rush 2016, arXiv:1606.07947; book ch. 12",
        formula="-log pi(token) on the teacher's samples, token mean",
        book="none",
        trl="SFT on the teacher's samples",
    ),
    Algorithm(
        "sdpo",
        week="11",
        needs=(),
        build=sdpo,
        paper="Huebotter et al. 2026, arXiv:2601.20802; book ch. 12",
        formula="KL(pi(. | prompt) || sg pi(. | a right answer, prompt)) over the top K tokens and one bucket",
        defaults={"habit": "shown"},
        reads=("top_k",),
        book="the same loss; over the tokens of a prompt's group, then the mean of prompts",
        trl="experimental.sdpo",
    ),
]

ALGORITHMS = {row.name: row for row in _ROWS}

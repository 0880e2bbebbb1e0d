"""The one table of algorithms: what each is made of, where it comes from, and what it minimises.

`needs` names the week's functions that it trains with; `build(functions, settings)` puts them together into what the
loop calls (reference_impl/loops). Plugging in other functions, a student's or a friend's, is passing another
`functions`. To add an algorithm, write its builder and its row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table is read before torch is needed, by `rlhf train --help` for one
    from torch import Tensor


@dataclass(frozen=True)
class Algorithm:
    """One row: name, week, functions used, how they are put together, settings of its own, source and formula."""

    name: str
    week: str
    needs: tuple[str, ...]
    build: Callable[[SimpleNamespace, Any], Any] | None
    paper: str
    formula: str
    defaults: dict[str, Any] = field(default_factory=dict)


# Policy gradients: (advantages, loss). advantages(rewards (P, G)) -> (P, G); loss(logprobs (B, T), batch) -> scalar,
# where batch holds advantages (B,), rewards (B,) and mask (B, T), with B = P * G and a prompt's rows together.


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
        chosen = batch["chosen_response_mask"].sum(1)
        rejected = batch["rejected_response_mask"].sum(1)

        def loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected):
            return functions.ipo_loss(
                policy_chosen / chosen,
                policy_rejected / rejected,
                ref_chosen / chosen,
                ref_rejected / rejected,
                beta=settings.beta,
            )

        return loss

    return with_lengths


OBJECTIVE = ("token_logprobs", "sequence_logprobs", "kl_estimates", "kl_shaped_rewards", "optimal_policy")
SFT = ("build_example", "collate", "sft_loss", "sft_loop", "lr_at")
PREFERENCE = ("implicit_rewards", "preference_logps", "dpo_step")

_ROWS = [
    Algorithm(
        "tabular",
        week="01",
        needs=OBJECTIVE,
        build=None,
        paper="Ziegler et al. 2019, arXiv:1909.08593; Korbak et al. 2022, arXiv:2205.11275; book ch. 3",
        formula="max E[r] - beta KL(pi || ref); pi* is proportional to ref exp(r / beta)",
    ),
    Algorithm(
        "sft",
        week="02",
        needs=SFT,
        build=None,
        paper="Ouyang et al. 2022, arXiv:2203.02155; book ch. 4",
        formula="-sum_t log pi(y_t | x, y_<t), mean over the supervised tokens",
    ),
    Algorithm(
        "reinforce",
        week="05",
        needs=("reinforce_loss",),
        build=reinforce,
        paper="Williams 1992; book ch. 6",
        formula="-(1/B) sum_i r_i sum_t log pi_it",
    ),
    Algorithm(
        "reinforce-baseline",
        week="05",
        needs=("reinforce_loss", "batch_baseline"),
        build=reinforce_with_baseline,
        paper="Williams 1992; book ch. 6",
        formula="-(1/B) sum_i (r_i - mean of the batch's other r) sum_t log pi_it",
    ),
    Algorithm(
        "rloo",
        week="05",
        needs=("rloo_advantages", "policy_gradient_loss"),
        build=rloo,
        paper="Ahmadian et al. 2024, arXiv:2402.14740; book ch. 6",
        formula="-(1/B) sum_i (r_i - mean of the group's other r) sum_t log pi_it",
        defaults={"aggregate": "sequence_sum"},
    ),
    Algorithm(
        "dpo",
        week="08",
        needs=(*PREFERENCE, "dpo_loss"),
        build=dpo,
        paper="Rafailov et al. 2023, arXiv:2305.18290; book ch. 8",
        formula="-log sigma(beta D), D = log-ratio of chosen minus log-ratio of rejected",
        defaults={"beta": 0.1},
    ),
    Algorithm(
        "cdpo",
        week="08",
        needs=(*PREFERENCE, "dpo_loss"),
        build=dpo,
        paper="Mitchell 2023, a note on DPO with noisy preferences; book ch. 8",
        formula="-(1 - e) log sigma(beta D) - e log sigma(-beta D)",
        defaults={"beta": 0.1, "label_smoothing": 0.1},
    ),
    Algorithm(
        "ipo",
        week="08",
        needs=(*PREFERENCE, "ipo_loss"),
        build=ipo,
        paper="Azar et al. 2023, arXiv:2310.12036; book ch. 8",
        formula="(D - 1 / (2 beta))^2, D of length-averaged log-probs",
        defaults={"beta": 0.1},
    ),
]

ALGORITHMS = {row.name: row for row in _ROWS}

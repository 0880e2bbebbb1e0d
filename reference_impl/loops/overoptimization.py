"""Over-optimization: a policy against a proxy reward, and what becomes of the gold reward meanwhile.

    few completions, judged by the verifier  ->  a preference model, the proxy
    best of n by the proxy                   ->  (KL by week 10's formula, proxy, gold) at n = 1, 2, 4, ...
    RLOO on the proxy                        ->  (KL measured, proxy, gold) at every evaluation
    d = sqrt(KL), gold gained = d (alpha - beta d) and d (alpha - beta log d)     least squares, the week's function

The gold reward is the verifier's, so nobody has to label anything and the whole curve can be seen. Gao et al. 2022,
arXiv:2210.10760, take a large reward model as gold and make its labels, as here, the proxy's training data.
"""

import json
import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from reference_impl import reward_model
from reference_impl.algorithms import bradley_terry
from reference_impl.data.judged import Judged, sample_judged, some_pairs
from reference_impl.data.order import batch_indices
from reference_impl.errors import UserError
from reference_impl.loops.arms import compare_arms
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts
from reference_impl.loops.reward import Learner
from reference_impl.loops.rl import train_rl
from reference_impl.reasoning import best_of_n_accuracy
from reference_impl.rejection_sampling import best_of_n_kl, expected_max_reward
from reference_impl.rewards import RewardModel, find_reward, load_reward, save_reward
from reference_impl.runs.overoptimization_plot import plot_overoptimization
from reference_impl.runs.run import Run, read_metrics
from reference_impl.settings import ResearchSettings, RewardSettings

KINDS = ("bon", "rl")
FILE = "overoptimization.json"


def overoptimize(policy, reference, tokenizer, task, built, functions, settings: ResearchSettings, run: Run) -> dict:
    """Optimise the proxy in both ways; returns the fits, the peaks and what is left in the end."""
    proxy = the_proxy(policy, tokenizer, task, settings, run)
    measured = {"bon": best_of_n_points(policy, tokenizer, task, proxy, settings)}

    def reward(prompts, texts, sampled) -> Tensor:
        return proxy.scores(sampled.input_ids, sampled.attention_mask, sampled.response_mask)

    results = train_rl(policy, reference, tokenizer, task, reward, *built, settings, run)
    measured["rl"] = [
        {"kl": max(row["eval_kl"], 0.0), "proxy": row["eval_reward"], "gold": row["sampled_accuracy"]}
        for row in read_metrics(run.path)
        if "eval_kl" in row
    ]
    fits = {kind: fit(points, kind, functions) for kind, points in measured.items()}
    run.write(FILE, json.dumps({"points": measured, "fits": fits}, indent=1) + "\n")
    plot_overoptimization(run.path / "overoptimization.png", {settings.algorithm: (measured, fits)})
    for kind in KINDS:
        results |= summary(kind, measured[kind], fits[kind])
    return results


def the_proxy(policy, tokenizer, task, settings: ResearchSettings, run: Run) -> RewardModel:
    """The saved reward model of `settings.reward`, or a preference model of few labels, trained and saved here.

    A resumed run finds it in its folder.
    """
    if settings.reward == "verifier":
        raise UserError("reward=verifier is the gold reward: over-optimization needs another (proxy, or a run).")
    if settings.reward != "proxy":
        return load_reward(settings.reward)
    if not (run.path / "rewards").is_dir():
        few = task.prompts("reward", settings.proxy_prompts, settings.seed)
        samples, longest = settings.proxy_samples, settings.max_new_tokens
        data = sample_judged(policy, tokenizer, task, few, samples, longest, settings.seed)
        learner = train_proxy(policy, data, settings)
        save_reward(run.path / "rewards" / learner.name, learner.model, tokenizer, learner.objective)
    return load_reward(find_reward(run.path))


def train_proxy(policy: nn.Module, data: Judged, settings: ResearchSettings) -> Learner:
    """Week 03's preference model on these completions, for a fixed number of steps: its form is Gao et al.'s."""
    how = RewardSettings(
        week="03", algorithm="bradley-terry", seed=settings.seed, steps=settings.proxy_steps, lr=settings.proxy_lr
    )
    learner = Learner(bradley_terry(reward_model, how)["bt"], policy, how)
    pairs = some_pairs(data, settings.proxy_pairs, settings.seed)
    for step in range(how.steps):
        learner.update(data, pairs[batch_indices(step, len(pairs), how.batch_size, how.seed)])
    return learner


def best_of_n_points(policy, tokenizer, task, proxy: RewardModel, settings: ResearchSettings) -> list[dict]:
    """Gold and proxy of the best-scored of n, n = 1, 2, 4, ...: exact expectations over draws of n of the samples."""
    prompts, samples = held_out_prompts(task, settings.bon_prompts), settings.bon_samples
    data = sample_judged(policy, tokenizer, task, prompts, samples, settings.max_new_tokens, EVAL_SEED)
    scores = proxy.scores(data.input_ids, data.attention_mask, data.completion_mask).view(-1, samples)
    correct = data.correct.view(-1, samples)
    sizes = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    return [
        {
            "n": n,
            "kl": best_of_n_kl(n),
            "proxy": torch.stack([expected_max_reward(row, n) for row in scores]).mean().item(),
            "gold": float(best_of_n_accuracy(scores, correct, n)),
        }
        for n in sizes
    ]


def fit(points: list[dict], kind: str, functions) -> dict[str, float]:
    """alpha, beta, and the share of the gold reward's variance that the curve explains (r2).

    NaN when fewer than two points have left the start.
    """
    kl = torch.tensor([point["kl"] for point in points], dtype=torch.float64)
    gained = torch.tensor([point["gold"] for point in points], dtype=torch.float64) - points[0]["gold"]
    if len(kl[kl > 0].unique()) < 2:
        return dict.fromkeys(("alpha", "beta", "r2"), math.nan)
    alpha, beta = map(float, functions.overoptimization_fit(kl, gained, kind))
    d = kl.sqrt()
    left = gained - d * alpha + beta * (d * d if kind == "bon" else torch.xlogy(d, d))
    spread = (gained - gained.mean()).square().sum().item()
    return {"alpha": alpha, "beta": beta, "r2": 1 - left.square().sum().item() / spread if spread else float("nan")}


def summary(kind: str, points: list[dict], fitted: dict[str, float]) -> dict[str, float]:
    """One method's numbers by name."""
    top, last = max(points, key=lambda point: point["gold"]), points[-1]
    return {
        f"{kind}: alpha": fitted["alpha"],
        f"{kind}: beta": fitted["beta"],
        f"{kind}: r2 of the fit": fitted["r2"],
        f"{kind}: gold at the start": points[0]["gold"],
        f"{kind}: gold at its peak": top["gold"],
        f"{kind}: d at the peak": math.sqrt(top["kl"]),
        f"{kind}: gold at the end": last["gold"],
        f"{kind}: d at the end": math.sqrt(last["kl"]),
        f"{kind}: proxy at the start": points[0]["proxy"],
        f"{kind}: proxy at the peak of gold": top["proxy"],
        f"{kind}: proxy at the end": last["proxy"],
    }


def compare_proxies(arms: dict[str, dict], train, functions, settings: ResearchSettings, run: Run) -> dict:
    """Several over-optimizations that differ in one thing, in one figure."""
    results = compare_arms(arms, train, functions, settings, run)
    drawn = {}
    for name in arms:
        (folder,) = (run.path / "arms").glob(f"*-{name.replace(' ', '-')}-*")
        saved = SimpleNamespace(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        drawn[name] = (saved.points, saved.fits)
        for kind in KINDS:
            found = summary(kind, saved.points[kind], saved.fits[kind])
            results |= {f"{key} {name}": number for key, number in found.items()}
    plot_overoptimization(run.path / "overoptimization.png", drawn)
    return results

"""Week 11: over-optimization of a proxy reward, and distillation from a better model or from one's own right answers.

uv run python weeks/11/train.py --impl student
uv run python weeks/11/train.py --algorithm on-policy-distillation --set jsd_beta=0.5
uv run python weeks/11/train.py --algorithm sdpo
uv run python weeks/11/train.py --experiment labels            # a proxy of four times as many labels
uv run python weeks/11/train.py --experiment kl-penalty
uv run python weeks/11/train.py --experiment teachers          # four ways to learn, five seeds each
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import ResearchSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.distill import by_own_answer, by_teacher, load_teacher, train_distillation
    from reference_impl.loops.habits import start_with_habit
    from reference_impl.loops.overoptimization import overoptimize
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.rl import train_rl
    from reference_impl.rewards import reward_function

    task = task_of(settings)
    policy, reference, tokenizer = start_with_habit(settings, task)
    built = algorithm.build(functions, settings)
    if algorithm.name == "overoptimization":
        return overoptimize(policy, reference, tokenizer, task, built, functions, settings, run)
    if algorithm.name == "rloo":
        reward = reward_function(settings.reward, task, tokenizer)
        return train_rl(policy, reference, tokenizer, task, reward, *built, settings, run)
    if algorithm.name == "sdpo":
        teach = by_own_answer(tokenizer, reference if settings.frozen_teacher else None)
        return train_distillation(policy, tokenizer, task, teach, built, settings, run)
    teacher = load_teacher(settings, task, run)
    sampler = teacher if algorithm.name == "sequence-distillation" else None
    return train_distillation(policy, tokenizer, task, by_teacher(teacher), built, settings, run, sampler)


def labels(functions, algorithm, settings, run):
    from reference_impl.loops.overoptimization import compare_proxies

    few, many = settings.proxy_prompts, 4 * settings.proxy_prompts
    arms = {f"{few} prompts": {}, f"{many} prompts": {"proxy_prompts": many}}
    return compare_proxies(arms, train, functions, settings, run)


def kl_penalty(functions, algorithm, settings, run):
    from reference_impl.loops.overoptimization import compare_proxies

    arms = {f"penalty {beta:g}": {"kl_penalty": beta} for beta in (0.0, 0.1, 0.3)}
    return compare_proxies(arms, train, functions, settings, run)


def teachers(functions, algorithm, settings, run):
    from reference_impl.loops.teachers import compare_teachers

    return compare_teachers(train, functions, settings, run)


EXPERIMENTS = {"labels": labels, "kl-penalty": kl_penalty, "teachers": teachers}
launcher = Launcher("11", ResearchSettings, train, EXPERIMENTS)

if __name__ == "__main__":
    main(launcher)

"""Week 07: RL with a verifiable reward (RLVR), and inference-time scaling curves before and after it.

uv run python weeks/07/train.py --impl student
uv run python weeks/07/train.py --experiment r1-zero            # from a base that also answers at once
uv run python weeks/07/train.py --set dynamic_sampling=true
uv run python weeks/07/train.py --set scaling_terms=6           # the curves on longer problems than were trained
uv run python weeks/07/train.py --set scorer=runs/04-...        # best-of-n by a reward model
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import ReasoningSettings


def train(functions, algorithm, settings, run):
    from reference_impl.implementations import require_written
    from reference_impl.loops.habits import start_with_habit
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.rl import train_rl
    from reference_impl.loops.scaling import draw, report_scaling, verified_reward
    from reference_impl.tasks import get_task

    task = task_of(settings)
    longer = {"min_terms": settings.scaling_terms, "max_terms": settings.scaling_terms}
    scaling_task = get_task(settings.task, **longer) if settings.scaling_terms else task
    informative = None
    if settings.dynamic_sampling:
        require_written(settings.week, settings.impl, ["informative_groups"])
        informative = functions.informative_groups

    policy, reference, tokenizer = start_with_habit(settings, task)
    before = draw(policy, tokenizer, scaling_task, functions, settings)
    advantages, loss = algorithm.build(functions, settings)
    reward = verified_reward(functions, settings)
    results = train_rl(
        policy, reference, tokenizer, task, reward, advantages, loss, settings, run, informative=informative
    )
    after = draw(policy, tokenizer, scaling_task, functions, settings)
    return results | report_scaling(before, after, functions, settings, run)


launcher = Launcher("07", ReasoningSettings, train, experiments={"r1-zero": train})

if __name__ == "__main__":
    main(launcher)

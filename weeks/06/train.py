"""Week 06: PPO, GRPO and their relatives, several optimizer steps on each rollout, all on equal samples.

uv run python weeks/06/train.py --algorithm grpo --seed 1
uv run python weeks/06/train.py --experiment no-clip --seed 1
uv run python weeks/06/train.py --experiment length-bias --impl student
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import PPOSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.critic import Critic
    from reference_impl.loops.habits import start_with_habit
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.rl import train_rl
    from reference_impl.reasoning import informative_groups
    from reference_impl.rewards import reward_function

    task = task_of(settings)
    policy, reference, tokenizer = start_with_habit(settings, task)
    reward = reward_function(settings.reward, task, tokenizer)
    advantages, loss = algorithm.build(functions, settings)
    critic = Critic(policy, functions, settings) if algorithm.name == "ppo" else None
    informative = informative_groups if settings.dynamic_sampling else None
    return train_rl(policy, reference, tokenizer, task, reward, advantages, loss, settings, run, critic, informative)


def no_clip(functions, algorithm, settings, run):
    from reference_impl.loops.arms import compare_arms

    arms = {"clip": {}, "no clip": {"clip_low": NO_CLIP, "clip_high": NO_CLIP}}
    return compare_arms(arms, train, functions, settings, run)


def length_bias(functions, algorithm, settings, run):
    from reference_impl.loops.arms import compare_arms

    arms = {
        "GRPO": {"aggregate": "sequence_mean"},
        "GRPO constant": {"aggregate": "constant"},
        "Dr. GRPO": {"algorithm": "dr-grpo", "aggregate": "constant"},
    }
    return compare_arms(arms, train, functions, settings, run)


NO_CLIP = 1e6  # a bound that no ratio reaches
launcher = Launcher("06", PPOSettings, train, experiments={"no-clip": no_clip, "length-bias": length_bias})

if __name__ == "__main__":
    main(launcher)

"""Week 06: PPO, GRPO and their relatives, several optimizer steps on each rollout, all on equal samples.

uv run python weeks/06/train.py --algorithm grpo --seed 1
uv run python weeks/06/train.py --algorithm dapo --impl student
"""

from reference_impl.config import PPOSettings
from reference_impl.launch import Launcher, main


def train(functions, algorithm, settings, run):
    from reference_impl.loops.critic import Critic
    from reference_impl.loops.evaluate import verifier_rewards
    from reference_impl.loops.rl import train_rl
    from reference_impl.loops.start import start_models
    from reference_impl.reasoning import informative_groups
    from reference_impl.tasks import get_task

    policy, reference, tokenizer = start_models(settings)
    task = get_task(settings.task)

    def reward(prompts, texts, rollout):
        return verifier_rewards(task, prompts, texts, rollout.finished)

    advantages, loss = algorithm.build(functions, settings)
    critic = Critic(policy, functions, settings) if algorithm.name == "ppo" else None
    informative = informative_groups if settings.dynamic_sampling else None
    return train_rl(policy, reference, tokenizer, task, reward, advantages, loss, settings, run, critic, informative)


launcher = Launcher("06", PPOSettings, train)

if __name__ == "__main__":
    main(launcher)

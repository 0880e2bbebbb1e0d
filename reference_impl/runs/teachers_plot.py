"""teachers.png: held-out accuracy of several ways to learn, per sample and per second; mean and range over seeds."""

from pathlib import Path

from reference_impl.runs.plots import save_figure


def plot_teachers(target: Path, curves: dict[str, list[list[dict]]], samples_per_step: int) -> None:
    """`curves`: arm -> for each seed the rows of metrics.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (by_samples, by_seconds) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for number, (name, seeds) in enumerate(curves.items()):
        rows = [[row for row in seed if "sampled_accuracy" in row] for seed in seeds]
        columns = list(zip(*rows, strict=True))  # one evaluation of all seeds
        accuracies = [[row["sampled_accuracy"] for row in column] for column in columns]
        mean = [sum(values) / len(values) for values in accuracies]
        samples = [column[0]["step"] * samples_per_step for column in columns]
        training = [seconds_of_training(seed, samples_per_step) for seed in seeds]
        seconds = [sum(spent[column[0]["step"]] for spent in training) / len(training) for column in columns]
        for axis, places in ((by_samples, samples), (by_seconds, seconds)):
            axis.plot(places, mean, ".-", color=f"C{number}", label=name)
            axis.fill_between(
                places, list(map(min, accuracies)), list(map(max, accuracies)), color=f"C{number}", alpha=0.15
            )
    by_samples.set(xlabel="completions sampled", title="held-out sampled accuracy")
    by_seconds.set(xlabel="seconds of sampling and learning, evaluation not counted", title="the same, by time")
    by_samples.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)


def seconds_of_training(rows: list[dict], samples_per_step: int) -> dict[int, float]:
    """step -> seconds spent on steps up to it: completion tokens over tokens a second."""
    spent, total = {0: 0.0}, 0.0
    for row in rows:
        if "tokens_per_second" in row:
            total += row["response_length"] * samples_per_step / row["tokens_per_second"]
            spent[row["step"]] = total
    return spent

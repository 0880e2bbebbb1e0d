"""Everything a run leaves behind: folder, metrics, checkpoints, plots, samples, wandb mirror."""

"""The `rlhf` command. Each subcommand is a module with a `main(args)`, imported when it is called."""

import sys
from importlib import import_module

COMMANDS = {  # name: (module, one line)
    "demo": ("course.demo", "grade a finished week, train with it while you watch, and compare"),
    "train": ("course.train", "train one of a week's algorithms, with your own functions plugged in"),
    "eval": ("course.evaluate", "what a run or a model is worth on held-out problems, with standard errors"),
    "fetch": ("course.fetch", "download what scale smol needs, once"),
    "watch": ("course.watch", "the verdict on your file, a moment after each save"),
    "status": ("course.status", "the eleven weeks on one screen, and the next thing to do"),
    "hint": ("course.hint", "the next hint for a function, one rung at a time"),
    "solution": ("course.solution", "the worked answer, once your own is green"),
    "reset": ("course.reset", "put a stub back; your version is saved aside"),
    "doctor": ("course.doctor", "what works on this machine, what falls back, what to do"),
    "compare": (
        "course.compare.command",
        "several forks side by side: grades, mistakes, curves and code in one HTML file",
    ),
    "gallery": ("course.gallery", "what each known bug looks like on the curves, beside the right version"),
    "experiment": ("course.experiment", "a dated log for an experiment of your own: question, prediction, results"),
    "notebook": ("course.notebook", "weeks as nbgrader notebooks, and forks as nbgrader submissions"),
    "present": ("course.present", "the week's demo in JupyterLab, for the room; --build runs it beforehand"),
    "update": ("course.update", "bring upstream's changes into your fork; what you wrote stays"),
    "sweep": ("course.sweep", "algorithms times seeds on all cores or GPUs, with intervals (Ray)"),
    "replicate": ("course.replicate", "a published claim at nano scale, over several seeds, with an interval"),
}


def main() -> None:
    """Run `rlhf COMMAND ...`; exits 2 for a command that does not exist."""
    command, *args = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
    elif command in COMMANDS:
        try:
            import_module(COMMANDS[command][0]).main(args)
        except KeyboardInterrupt:
            sys.exit(130)
    else:
        print(f"error: there is no command {command!r}{suggestion(command)}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """The help page."""
    lines = ["usage: rlhf COMMAND ...", "", "Learn LLM post-training by writing it.", ""]
    lines += [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    lines += ["", "`rlhf COMMAND --help` says more; `pytest weeks/05` grades a week."]
    return "\n".join(lines)


def suggestion(command: str) -> str:
    """The nearest command, or all of them."""
    from difflib import get_close_matches

    near = get_close_matches(command, COMMANDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f". There are: {', '.join(COMMANDS)}."


if __name__ == "__main__":
    main()

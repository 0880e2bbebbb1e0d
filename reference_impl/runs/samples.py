"""samples.md: the same held-out prompts, answered before and after training."""

from reference_impl.tasks import Prompt


def samples_page(title: str, prompts: list[Prompt], columns: dict[str, list[tuple[str, float]]]) -> str:
    """A Markdown table: one row a prompt, one column for each of `columns` (name -> (completion, reward) a prompt)."""
    lines = [f"# {title}", "", "A tick marks what the verifier accepts.", ""]
    lines.append("| prompt | answer | " + " | ".join(columns) + " |")
    lines.append("|---|---|" + "---|" * len(columns))
    for row, prompt in enumerate(prompts):
        cells = [
            f"`{text or ' '}` {'✓' if reward == 1.0 else '✗'}" for text, reward in (c[row] for c in columns.values())
        ]
        lines.append(f"| `{prompt.text}` | {prompt.answer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"

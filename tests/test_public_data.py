"""Public data in their published forms: read, filtered, split by prompt, counted; and trained on from a file."""

import gzip
import json

import pytest

from reference_impl import precheck, sft
from reference_impl.data.conversations import dialogue, preference, read_instructions, read_pairs
from reference_impl.data.public import kind_of, rows, source_kind
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.models import hardware, load_model
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.tasks import get_task
from reference_impl.tasks.gsm8k import problem
from tests.test_hub import write_model

WORDS = "one two three four five six seven eight nine ten".split()


def ask(text):
    return {"role": "user", "content": text}


def say(text):
    return {"role": "assistant", "content": text}


def ultrafeedback(number):
    question = ask(f"What comes after {WORDS[number % 10]}, said {number}?")
    good, bad = say(f"After it comes {WORDS[(number + 1) % 10]}."), say("I do not know.")
    return {
        "prompt": question["content"],
        "chosen": [question, good],
        "rejected": [question, bad],
        "chosen-rating": 5.0,
    }


def hh(number):
    start = f"\n\nHuman: hi {number}\n\nAssistant: Hello!\n\nHuman: how are you?\n\nAssistant:"
    return {"chosen": start + " Well, thank you.", "rejected": start + " No."}


def gsm8k(number):
    worked = f"There are {number} and 2.\n{number} + 2 = <<{number}+2={number + 2}>>{number + 2}\n#### {number + 2}"
    return {"question": f"Tom has {number} apples and gets 2 more. How many has he?", "answer": worked}


def prm800k(number):
    followed = {"chosen_completion": 0, "human_completion": None}
    step = {"completions": [{"text": f"We add {number}.", "rating": 1}], **followed}
    wrong = {"text": "So it is\nnothing.", "rating": -1}
    last = {"completions": [{"text": f"It is {number}.", "rating": 0}, wrong], "chosen_completion": 0}
    label = {
        "steps": [{**step, "human_completion": None}, {**last, "human_completion": None}],
        "finish_reason": "solution",
    }
    return {"question": {"problem": f"What is 0 + {number}?", "ground_truth_answer": str(number)}, "label": label}


def no_robots(number):
    return {
        "messages": [{"role": "system", "content": "Be brief."}, ask(f"Count to {number}."), say(WORDS[number % 10])]
    }


FORMS = {"pairs": ultrafeedback, "problems": gsm8k, "steps": prm800k, "instructions": no_robots}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """A file of each form, 60 rows."""
    folder, found = tmp_path_factory.mktemp("data"), {}
    for kind, form in FORMS.items():
        path = folder / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(form(number)) + "\n" for number in range(60)))
        found[kind] = str(path)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def tokenizer(model):
    return load_model(model)[1]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: [])
    yield
    hardware.use()


def test_rows_say_what_they_are(files):
    assert {kind: source_kind(path) for kind, path in files.items()} == {kind: kind for kind in FORMS}
    assert kind_of(hh(1)) == "pairs" and source_kind("hh") == "pairs" and source_kind("prm800k") == "steps"
    with pytest.raises(UserError, match="no known form"):
        kind_of({"text": "once"})
    with pytest.raises(UserError, match="did you mean 'ultrafeedback'"):
        next(rows("ultrafedback"))


def test_files_are_read_in_every_form_they_come_in(tmp_path):
    want = [gsm8k(number) for number in range(3)]
    lines = "".join(json.dumps(row) + "\n\n" for row in want)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(want))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    import datasets

    datasets.Dataset.from_list(want).to_parquet(tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert list(rows(str(path))) == want, path


@pytest.mark.parametrize("text", ["{", "[1]\n", '"a"\n', '{"a": 1}\n{"b": \n'])
def test_a_broken_file_is_one_sentence(tmp_path, text):
    (tmp_path / "broken.jsonl").write_text(text)
    with pytest.raises(UserError, match="broken.jsonl.* cannot be read after row [01]") as caught:
        list(rows(str(tmp_path / "broken.jsonl")))
    assert "\n" not in str(caught.value)


def test_a_hub_without_network_is_one_sentence(monkeypatch):
    import datasets

    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\nMore lines.")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="openai/gsm8k.*--data FILE.*nano") as caught:
        next(rows("gsm8k"))
    assert "\n" not in str(caught.value)


def test_preferences_are_the_conversation_and_two_answers():
    before, chosen, rejected = preference(ultrafeedback(3))
    assert [turn["role"] for turn in before] == ["user"] and (chosen, rejected) == (
        "After it comes five.",
        "I do not know.",
    )
    before, chosen, rejected = preference(hh(7))
    assert [turn["role"] for turn in before] == ["user", "assistant", "user"] and before[0]["content"] == "hi 7"
    assert (chosen, rejected) == ("Well, thank you.", "No.")
    plain = {"prompt": "Why?", "chosen": "Because.", "rejected": "So."}
    assert preference(plain) == (({"role": "user", "content": "Why?"},), "Because.", "So.")
    assert dialogue("\n\nHuman: a\n\nAssistant: b\n\nHuman: c")[-1] == {"role": "user", "content": "c"}


def test_pairs_are_split_by_prompt_and_every_dropped_row_is_counted(tokenizer):
    some = [ultrafeedback(number) for number in range(40)]
    same_start = "The very same words at the beginning of both of the answers, " * 12
    long = ultrafeedback(100)
    long["chosen"][-1], long["rejected"][-1] = say(same_start + "yes"), say(same_start + "no")
    equal = {"prompt": "Why?", "chosen": "So.", "rejected": "So."}
    wordy = {"prompt": "Why? " * 300, "chosen": "Yes.", "rejected": "No."}
    empty = {"prompt": "Why?", "chosen": "Yes.", "rejected": "  "}
    other = {"chosen": [ask("a"), say("b")], "rejected": [ask("c"), say("d")]}
    unanswered = {"chosen": [ask("a")], "rejected": [ask("a")]}
    training, held_out, dropped = read_pairs(
        [*some, long, equal, wordy, empty, other, unanswered, *some], tokenizer, 200, count=10_000
    )
    assert dropped.read == 86 and dropped.kept == 80 == len(training) + len(held_out)
    assert sum(dropped.why.values()) == 6 and len(dropped.why) == 6, dropped.why
    assert dropped.why["equal in the first 200 tokens"] == 1
    assert held_out and not {tuple(p.prompt) for p in training} & {tuple(p.prompt) for p in held_out}
    assert all(len(p.prompt) + max(len(p.chosen), len(p.rejected)) <= 200 for p in training + held_out)
    assert "86 rows read, 80 kept; dropped: " in str(dropped)
    assert training[0].chosen[-1] == tokenizer.eos_token_id
    assert read_pairs(some, tokenizer, 200, count=7)[2].read == 7, "streamed: no more rows than asked for"


def test_instructions_become_examples_of_the_week_s_own_function(tokenizer):
    training, held_out, dropped = read_instructions(map(no_robots, range(60)), tokenizer, sft.build_example, 120, 1000)
    assert len(training) + len(held_out) == 60 and held_out
    example = training[0]
    answered = [label for label in example["labels"] if label != -100]
    assert answered[-1] == tokenizer.eos_token_id and tokenizer.decode(answered) in WORDS
    with pytest.raises(UserError, match="pairs, and here instructions"):
        read_instructions([ultrafeedback(1)], tokenizer, sft.build_example, 60, 10)


def test_gsm8k_solutions_are_right_and_wrong_numbers_are_not(files):
    task = get_task("gsm8k", data=files["problems"])
    everything = {split: {p.text for p in task.by_split[split]} for split in task.by_split}
    assert sum(map(len, everything.values())) == 60 and all(everything.values())
    prompts = task.prompts("rl", 5, seed=1)
    assert len({p.text for p in prompts}) == 5 and prompts == task.prompts("rl", 5, seed=1)
    for prompt, solution in task.demonstrations(20):
        assert "<<" not in solution and task.reward(prompt, solution, True) == 1.0
        assert task.reward(prompt, solution, False) == 0.0 == task.reward(prompt, "#### 999", True)
    with pytest.raises(UserError, match="has .* problems, not 500"):
        task.prompts("rl", 500)
    with pytest.raises(UserError, match="does not end in ####"):
        problem({"question": "What?", "answer": "four"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7\n#### 7", "7"),
        ("#### $1,250.50", "1250.50"),
        ("the answer is \\boxed{-12}.", "-12"),
        ("It costs $18.", "18"),
        ("3 apples and 5 pears make 8 fruits", "8"),
        ("no idea", None),
    ],
)
def test_the_stated_number_is_found(text, number):
    assert get_task("gsm8k").extract(text) == number


SMALL = ("max_new_tokens=4", "eval_prompts=2", "final_eval_prompts=2", "threads=1", "rows_at_once=4", "device=cpu")
RUNS = (  # week, algorithm, kind of data, settings
    ("02", "sft", "instructions", (*SMALL, "demonstrations=40", "batch_size=4", "max_length=80", "task=chain_sum")),
    ("03", "reward-models", "pairs", (*SMALL, "batch_size=4", "max_length=100")),
    ("04", "prm", "steps", (*SMALL, "batch_size=4", "micro_batches=2", "max_length=200")),
    ("05", "rloo", "problems", (*SMALL, "prompts_per_step=2", "group=2", "micro_batches=2")),
    ("08", "dpo", "pairs", (*SMALL, "batch_size=4", "held_out_pairs=3", "max_length=100", "task=chain_sum")),
    ("09", "kto", "pairs", (*SMALL, "batch_size=4", "held_out_pairs=3", "max_length=100", "task=chain_sum")),
)


@pytest.mark.parametrize(("week", "algorithm", "kind", "settings"), RUNS, ids=[f"{run[0]}-{run[2]}" for run in RUNS])
def test_launchers_learn_from_a_file_at_scale_full(week, algorithm, kind, settings, files, model, tmp_path, capsys):
    options = Options(
        scale="full",
        algorithm=algorithm,
        impl="reference",
        policy=model,
        data=files[kind],
        steps=2,
        set=(*settings, "precision=float32"),
        runs_dir=tmp_path,
    )
    summary = launch(find_launcher(week), options)
    path = tmp_path / summary["path"]
    assert summary["status"] == "finished" and len(read_metrics(path)) >= 2
    if kind != "problems":
        assert "rows read" in (path / "data.md").read_text()
    assert "gradient checkpointing" in capsys.readouterr().out


def test_data_of_no_use_to_a_week_or_to_nano_is_refused(files, tmp_path):
    for week, data, message in (
        ("05", files["pairs"], "has pairs, and week 05 learns from problems"),
        ("08", files["steps"], "has steps, and week 08 learns from pairs or problems"),
        ("08", files["pairs"], "needs a model that reads words"),
        ("02", str(tmp_path / "nowhere.jsonl"), "is no file and no known data set"),
    ):
        with pytest.raises(UserError, match=message):
            launch(find_launcher(week), Options(impl="reference", data=data, runs_dir=tmp_path / "runs", steps=1))

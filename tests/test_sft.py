"""Week 02 proven: plain loops, any split into micro-batches, TRL and transformers, known traps."""

import copy
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from reference_impl import sft as reference

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location("week02_solution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/02/sft.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- build_example, collate


@both
@pytest.mark.parametrize("prompt", [[], [5], [5, 2, 6]])
@pytest.mark.parametrize("response", [[], [7], [7, 8, 9, 2]])
@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 5, 8, 50])
def test_examples_supervise_the_response_and_its_eos(impl, prompt, response, max_length):
    before = list(prompt), list(response)
    example = impl.build_example(prompt, response, 2, max_length)
    whole = prompt + response + [2]
    assert example["input_ids"] == whole[:max_length]
    supervised = [i for i, label in enumerate(example["labels"]) if label != -100]
    assert supervised == list(range(len(prompt), min(len(whole), max_length)))
    assert all(example["labels"][i] == whole[i] for i in supervised)
    assert (list(prompt), list(response)) == before


@both
def test_an_eos_that_is_also_the_pad_stays_attended_and_supervised(impl):
    """Trap S07: pad = eos = 2; the ids of the second row's EOS and of its padding are the same."""
    examples = [impl.build_example([5, 6], [7, 2, 8], 2, 9), impl.build_example([5], [9], 2, 9)]
    batch = impl.collate(examples, pad_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 8, 2], [5, 9, 2, 2, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2, 8, 2], [-100, 9, 2, -100, -100, -100]]
    assert all(tensor.dtype == torch.long for tensor in batch.values())
    assert len(examples[1]["input_ids"]) == 3  # the examples themselves are not padded


@both
def test_trl_collates_the_same_batch(impl):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    examples = [impl.build_example(list(range(3, 3 + n)), [1] * m, 2, 8) for n, m in [(1, 2), (4, 0), (2, 7)]]
    theirs = DataCollatorForLanguageModeling(pad_token_id=0)(copy.deepcopy(examples))
    ours = impl.collate(examples, pad_id=0)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# ---- sft_loss


def random_labels(batch, width, vocabulary, seed=0):
    """Labels with -100 at about half of the positions, the first column included."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(vocabulary, (batch, width), generator=generator)
    return torch.where(torch.rand(batch, width, generator=generator) < 0.5, labels, -100)


@both
@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 7, 5), (3, 2, 5)])
def test_the_loss_equals_a_plain_loop_over_shifted_tokens(impl, shape):
    logits, labels = 3 * randn(*shape), random_labels(*shape, seed=1)
    terms = []
    for i in range(shape[0]):
        for t in range(1, shape[1]):
            if labels[i, t] != -100:
                numbers = logits[i, t - 1].tolist()
                terms.append(math.log(sum(map(math.exp, numbers))) - numbers[labels[i, t]])
    assert terms
    assert_close(impl.sft_loss(logits, labels), doubles(sum(terms) / len(terms))[0])
    strided = logits.transpose(0, 2).contiguous().transpose(0, 2)
    assert_close(impl.sft_loss(strided, labels.T.contiguous().T), doubles(sum(terms) / len(terms))[0])


@both
def test_transformers_has_the_same_loss(impl):
    """The loss that TRL's SFT trainer gets from a model, shifted and averaged over all supervised tokens."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits, labels = randn(3, 7, 5).float(), random_labels(3, 7, 5)
    assert_close(impl.sft_loss(logits, labels), ForCausalLMLoss(logits, labels, vocab_size=5))


@both
def test_gradients_reach_only_the_logits_that_predict_a_label(impl):
    logits, labels = randn(2, 5, 3).requires_grad_(), random_labels(2, 5, 3, seed=2)
    assert torch.autograd.gradcheck(lambda x: impl.sft_loss(x, labels), logits)
    gradient = torch.autograd.grad(impl.sft_loss(logits, labels), logits)[0]
    used = torch.cat([labels[:, 1:] != -100, torch.zeros(2, 1).bool()], dim=1)
    assert used.any() and torch.equal(gradient.abs().sum(-1) > 0, used)


@both
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_garbage_at_unsupervised_positions_changes_nothing(impl, garbage):
    labels = random_labels(3, 7, 5, seed=3)
    used = torch.cat([labels[:, 1:] != -100, torch.zeros(3, 1).bool()], dim=1)
    clean = randn(3, 7, 5)
    results = []
    for logits in [clean.clone(), torch.where(used[..., None], clean, garbage)]:
        value = impl.sft_loss(logits.requires_grad_(), labels)
        results.append((value, torch.autograd.grad(value, logits)[0]))
    assert_close(results[1], results[0])


@both
def test_without_supervision_loss_and_gradient_are_zero(impl):
    for labels in [torch.full((2, 5), -100), torch.tensor([[1] + [-100] * 4] * 2)]:  # a label at 0 is never predicted
        logits = randn(2, 5, 3).requires_grad_()
        loss = impl.sft_loss(logits, labels)
        assert loss == 0 and torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))
    assert impl.sft_loss(randn(2, 1, 3), torch.zeros(2, 1, dtype=torch.long)) == 0


@both
def test_extreme_and_half_precision_logits(impl):
    logits = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1.0, -math.inf], [9.0, 9.0, 9.0]]]).requires_grad_()
    loss = impl.sft_loss(logits, torch.tensor([[-100, 1, 0]]))
    assert loss.item() == pytest.approx((2e4 + math.log(1 + math.e)) / 2)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    half, labels = randn(3, 101, 17).bfloat16(), torch.randint(17, (3, 101), generator=torch.Generator().manual_seed(0))
    assert impl.sft_loss(half, labels).item() == pytest.approx(impl.sft_loss(half.double(), labels).item(), rel=1e-5)


# ---- sft_loop


class TinyLM(torch.nn.Module):
    """Logits from this token and the mean of the row's attended tokens: padding matters if the mask is ignored."""

    def __init__(self, vocabulary=7, width=5, dropout=0.0):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width, dtype=torch.float64)
        self.head = torch.nn.Linear(width, vocabulary, dtype=torch.float64)
        self.dropout = torch.nn.Dropout(dropout)
        self.calls = []

    def forward(self, input_ids, attention_mask):
        self.calls.append((self.training, tuple(input_ids.shape)))
        x = self.embed(input_ids) * attention_mask[..., None]  # not causal, so that the mask has something to hide
        mean = x.sum(dim=1, keepdim=True) / attention_mask.sum(dim=1)[:, None, None]
        return SimpleNamespace(logits=self.head(self.dropout(torch.tanh(x + mean))))


def tiny_model(seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyLM(**settings)


EXAMPLES = [  # 11 examples; responses of 1 to 9 tokens
    reference.build_example([3 + i % 4] * (1 + i % 3), [1 + (i * k) % 6 for k in range(1 + (5 * i) % 9)], 2, 12)
    for i in range(11)
]
SPLITS = [[11], [1] * 11, [1, 10], [4, 4, 3], [2, 7, 1, 1]]


def batches(split, steps=3):
    """The same examples at every step, cut into micro-batches of the given sizes."""
    step, start = [], 0
    for size in split:
        step.append(reference.collate(EXAMPLES[start : start + size], pad_id=0))
        start += size
    return [step] * steps


def train(impl, data, make_optimizer=None, max_grad_norm=1.0, make_scheduler=None, model=None):
    model = model or tiny_model()
    optimizer = (make_optimizer or (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9)))(model.parameters())
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    losses = impl.sft_loop(model, data, optimizer, max_grad_norm, scheduler)
    return losses, torch.cat([p.detach().flatten() for p in model.parameters()]), model, optimizer


@both
@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("max_grad_norm", [1e9, 0.05], ids=["free", "clipped"])
def test_any_split_into_micro_batches_takes_the_full_batch_step(impl, split, max_grad_norm):
    """Traps S22, S27, S41: the full batch is written out here, one backward over one tensor."""
    full = tiny_model()
    optimizer = torch.optim.SGD(full.parameters(), lr=0.5, momentum=0.9)
    batch, expected = reference.collate(EXAMPLES, pad_id=0), []
    for _ in range(3):
        optimizer.zero_grad()
        logits = full(batch["input_ids"], batch["attention_mask"]).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, batch["labels"][:, 1:, None].clamp(min=0)).squeeze(-1)
        loss = -logprobs[batch["labels"][:, 1:] != -100].mean()
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in full.parameters()]).norm()
        for p in full.parameters():
            p.grad *= min(1.0, max_grad_norm / (norm + 1e-6))  # torch's clip has this epsilon
        optimizer.step()
        expected.append(loss.item())
    losses, weights, _, _ = train(impl, batches(split), max_grad_norm=max_grad_norm)
    assert losses == pytest.approx(expected, rel=1e-9)
    assert all(isinstance(loss, float) for loss in losses)
    assert_close(weights, torch.cat([p.detach().flatten() for p in full.parameters()]), rtol=1e-10, atol=1e-12)
    assert expected[2] < expected[0] - 1e-3


def test_the_mean_of_micro_batch_means_takes_another_step():
    """Why the test above is not vacuous: on these examples the wrong weighting moves the model elsewhere."""
    data, wrong = batches([1, 10], steps=1), tiny_model()
    loss = sum(reference.sft_loss(wrong(b["input_ids"], b["attention_mask"]).logits, b["labels"]) for b in data[0]) / 2
    right = train(reference, data)[0][0]
    assert abs(loss.item() - right) > 0.01


@both
def test_stale_gradients_train_mode_and_cleared_gradients(impl):
    clean = train(impl, batches([4, 4, 3]))[1]
    model = tiny_model().eval()
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    _, weights, model, _ = train(impl, batches([4, 4, 3]), model=model)
    assert torch.equal(weights, clean)
    assert all(training for training, _ in model.calls) and len(model.calls) == 9
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@both
def test_the_scheduler_follows_the_optimizer_once_a_step(impl):
    rates = [0.5, 0.25, 0.125]
    schedule = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)  # noqa: E731
    _, weights, _, optimizer = train(impl, batches([4, 7]), lambda p: torch.optim.SGD(p, lr=0.5), 1.0, schedule)
    assert optimizer.param_groups[0]["lr"] == 0.0625
    model = tiny_model()
    for rate in rates:
        train(impl, batches([11], steps=1), lambda p, rate=rate: torch.optim.SGD(p, lr=rate), model=model)
    assert_close(weights, torch.cat([p.detach().flatten() for p in model.parameters()]))


@both
def test_a_step_without_supervision_moves_nothing(impl):
    """Momentum and weight decay would move the model even with a zero gradient; the schedule would advance."""
    silent = [reference.collate([{"input_ids": [3, 4], "labels": [-100, -100]}, {"input_ids": [3], "labels": [3]}], 0)]
    one, make = batches([4, 7], steps=1), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5)
    schedule = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)  # noqa: E731
    losses, weights, _, optimizer = train(impl, [silent, one[0], silent, one[0]], make, 1.0, schedule)
    expected = train(impl, [one[0], one[0]], make, 1.0, schedule)
    assert losses[0] == losses[2] == 0.0 and [losses[1], losses[3]] == expected[0]
    assert torch.equal(weights, expected[1])
    assert optimizer.param_groups[0]["lr"] == 0.025
    mixed = train(impl, [[*silent, *one[0]]], make)
    assert torch.equal(mixed[1], train(impl, one, make)[1])
    assert mixed[0] == train(impl, one, make)[0]


@both
def test_batches_may_be_a_generator_and_stay_as_they_are(impl):
    data = batches([4, 7])
    before = copy.deepcopy(data)
    assert torch.equal(train(impl, (step for step in data))[1], train(impl, data)[1])
    assert all(
        torch.equal(a[k], b[k]) for s, t in zip(data, before, strict=True) for a, b in zip(s, t, strict=True) for k in a
    )
    assert train(impl, [])[0] == []


# ---- lr_at


@both
def test_the_schedule_rises_to_the_peak_falls_to_the_floor_and_stays(impl):
    rates = [impl.lr_at(step, 100, 3e-4, 10, 0.1) for step in range(200)]
    assert rates[0] == 0.0 and rates[10] == pytest.approx(3e-4) == max(rates)
    assert rates[1:11] == pytest.approx([3e-4 * k / 10 for k in range(1, 11)])
    assert all(a > b for a, b in zip(rates[10:100], rates[11:101], strict=True))
    assert rates[55] == pytest.approx(3e-4 * 0.55) and rates[100:] == pytest.approx([3e-5] * 100)
    cosine = [3e-4 * (0.1 + 0.9 * (1 + math.cos(math.pi * (k - 10) / 90)) / 2) for k in range(10, 101)]
    assert rates[10:101] == pytest.approx(cosine)


@both
def test_the_schedule_is_that_of_transformers_and_of_torch(impl):
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    schedule, rates = get_cosine_schedule_with_warmup(optimizer, 7, 53), []
    for _ in range(54):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [impl.lr_at(step, 53, 2e-3, 7) for step in range(54)] == pytest.approx(rates, abs=1e-15)


@both
def test_the_schedule_at_its_edges(impl):
    assert impl.lr_at(0, 10, 1.0, 0) == 1.0
    assert impl.lr_at(5, 5, 1.0, 5) == 1.0 and impl.lr_at(6, 5, 1.0, 5, 0.2) == pytest.approx(0.2)
    assert isinstance(impl.lr_at(0, 10, 1e-3, 5), float)

"""Grader of week 02. One test is one claim about one function; `pytest weeks/02` runs them on your file.

`compare` calls your function and the reference on the same inputs. `scenario` hands your training loop a tiny model and
batches of known sizes (graders/scenarios/02.py) and compares losses and how the weights moved.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, returns, robust, scenario
from graders import strategies as st
from graders.strategies_text import next_token, token_ids, without

HUGE = "select before the softmax, logits[labels != -100]: a NaN that was computed comes back through the gradient"
STABLE = "F.cross_entropy or log_softmax: log(softmax(x)) underflows"
HALF = "logits.float() before the softmax when they are half precision"
EMPTY = "divide by the count clamped to at least 1, or skip what has no supervised token"

# --- build_example ----------------------------------------------------------------------------------------------------

EXAMPLE = dict(prompt=token_ids(), response=token_ids(), eos=st.integers(0, 8))


@check("build_example", "input_ids are prompt, response, eos; labels the same with -100 for every prompt token")
@given(**EXAMPLE)
def test_example_labels_the_response_and_its_eos(prompt, response, eos):
    compare("build_example", prompt, response, eos, 50)


@check("build_example", "both are cut to max_length from the right, the EOS first")
@given(**EXAMPLE, max_length=st.integers(1, 13))
def test_example_is_cut_from_the_right(prompt, response, eos, max_length):
    compare("build_example", prompt, response, eos, max_length)


@check("build_example", "a prompt that fills max_length leaves only -100")
@given(prompt=token_ids(4), response=token_ids(), eos=st.integers(0, 8), max_length=st.integers(1, 4))
def test_example_with_a_long_prompt(prompt, response, eos, max_length):
    compare("build_example", prompt, response, eos, max_length)


@check("build_example", "the worked number of the docstring")
def test_example_worked_number():
    whole = {"input_ids": [5, 6, 7, 8, 2], "labels": [-100, -100, 7, 8, 2]}
    returns("build_example", whole, [5, 6], [7, 8], 2, 10)
    cut = {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}
    returns("build_example", cut, [5, 6], [7, 8], eos_id=2, max_length=4)


@check("build_example", "the lists that it is given are not changed")
@given(**EXAMPLE)
def test_example_leaves_its_inputs_alone(prompt, response, eos):
    scenario("build_example", "lists_unchanged", prompt, response, eos, 6)


# --- collate ----------------------------------------------------------------------------------------------------------


@st.composite
def examples(draw, least=1):
    """Examples of different lengths whose labels say more than their ids: only part of them is supervised."""
    batch = []
    for ids in draw(st.lists(token_ids(1), min_size=least, max_size=4)):
        prompt = draw(st.integers(0, len(ids)))
        batch.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return batch


@check("collate", "ids, attention mask and labels as LongTensors, padded on the right to the longest example")
@given(batch=examples(), pad=st.integers(20, 23))
def test_collate_pads_on_the_right(batch, pad):
    compare("collate", batch, pad)


@check("collate", "an EOS inside an example stays attended and supervised when pad_id is the EOS id")
@given(batch=examples(), pad=st.integers(0, 8))
def test_collate_with_pad_equal_to_eos(batch, pad):
    ends = [{key: [*values, pad] for key, values in example.items()} for example in batch]
    compare("collate", ends, pad)


@check("collate", "the worked number of the docstring")
def test_collate_worked_number():
    batch = [{"input_ids": [5, 7, 0], "labels": [-100, 7, 0]}, {"input_ids": [6], "labels": [-100]}]
    expected = {
        "input_ids": torch.tensor([[5, 7, 0], [6, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
        "labels": torch.tensor([[-100, 7, 0], [-100, -100, -100]]),
    }
    returns("collate", expected, batch, 0)


@check("collate", "the examples that it is given are not changed")
@given(batch=examples(least=2), pad=st.integers(0, 8))
def test_collate_leaves_its_inputs_alone(batch, pad):
    scenario("collate", "examples_unchanged", batch, pad)


# --- sft_loss ---------------------------------------------------------------------------------------------------------


@check("sft_loss", "the logits at t predict the label at t + 1; one mean over all supervised tokens of the batch")
@given(x=next_token())
def test_loss_is_the_token_mean_of_shifted_cross_entropy(x):
    compare("sft_loss", x.logits, x.labels, grad="logits")


@check("sft_loss", "rows with one supervised token beside rows with many: still one mean over tokens")
@given(x=next_token(sizes={"B": (3, 5), "S": 7}, span=("right",)))
def test_loss_of_ragged_rows(x):
    compare("sft_loss", x.logits, x.labels, grad="logits")


@check("sft_loss", "a single prediction is enough")
@given(x=next_token(sizes={"B": 1, "S": 1}))
def test_loss_of_one_token(x):
    compare("sft_loss", x.logits, x.labels, grad="logits")


@check("sft_loss", "rows that are all prompt, or cut before the response, add nothing to sum and count")
@given(x=next_token(empty_rows="some", sizes={"B": (2, 3, 5)}))
def test_loss_with_unsupervised_rows(x):
    compare("sft_loss", x.logits, x.labels, grad="logits")


@check("sft_loss", "the worked number of the docstring: 0.4904")
def test_loss_worked_number():
    logits = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [81.0, 81.0]]], dtype=torch.float64)
    logits[0, 1:] = logits[0, 1:].log()
    returns(
        "sft_loss", torch.tensor(0.4904146, dtype=torch.float64), logits, torch.tensor([[-100, 1, 0]]), tolerance=1e-6
    )


@robust(
    "sft_loss", "NaN and infinity in the logits of unsupervised positions change neither loss nor gradient", remedy=HUGE
)
@given(x=next_token(under_mask=("nan", "inf", "-inf")))
def test_loss_ignores_unsupervised_logits(x):
    compare("sft_loss", x.logits, x.labels, grad="logits")


@robust("sft_loss", "a batch without any supervised token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=next_token(empty_rows="all"))
def test_loss_of_nothing(x):
    compare("sft_loss", x.logits, x.labels, grad="logits", tolerance=0)


@robust("sft_loss", "logits of 1e4, and of -inf at labels that are not asked for, give finite losses", remedy=STABLE)
@given(x=next_token(), extreme=st.booleans())
def test_loss_of_extreme_logits(x, extreme):
    targets = torch.roll(x.labels, -1, dims=1)  # the label that stands at t + 1
    logits = 1e4 * x.logits if extreme else without(x.logits, targets)
    compare("sft_loss", logits, x.labels, grad="logits")


@robust("sft_loss", "half-precision logits are computed in float32", remedy=HALF)
@given(x=next_token(dtypes=st.HALF, sizes={"S": 13, "B": (2, 3)}, span=("full",)))
def test_loss_of_half_precision(x):
    compare("sft_loss", 8 * x.logits, x.labels, grad="logits")


# --- sft_loop ---------------------------------------------------------------------------------------------------------
# A step is a list of micro-batches, a micro-batch a list of supervised tokens a row: [[[3, 2]]] is one step with one
# micro-batch of two rows.

NEAR = 1e-5  # sums may be taken in any order, and clip_grad_norm_ adds 1e-6 to the norm

rows = st.lists(st.integers(1, 6), min_size=1, max_size=3)
step = st.lists(rows, min_size=2, max_size=4)


def train(batches, **how):
    scenario("sft_loop", "train", batches, tolerance=NEAR, **how)


@check("sft_loop", "one micro-batch: one optimizer step along the gradient of the token mean; its loss comes back")
@settings(max_examples=4)
@given(rows=rows, seed=st.integers(0, 99))
def test_loop_takes_one_step(rows, seed):
    train([[rows]], seed=seed)


@check("sft_loop", "several micro-batches: the step of the mean over all their tokens, however they are split")
@settings(max_examples=8)
@given(step=step, seed=st.integers(0, 99))
def test_loop_weights_micro_batches_by_their_tokens(step, seed):
    train([step], seed=seed)


@check("sft_loop", "several steps: each starts from clean gradients, one loss a step comes back")
@settings(max_examples=4)
@given(steps=st.lists(rows, min_size=2, max_size=3), seed=st.integers(0, 99))
def test_loop_clears_gradients_between_steps(steps, seed):
    train([[rows] for rows in steps], seed=seed)


@check("sft_loop", "gradients that somebody left behind are not part of the first step")
def test_loop_clears_stale_gradients():
    train([[[3, 1]], [[4]]], stale_gradient=0.7)


@check("sft_loop", "the complete gradient of a step is clipped once, to max_grad_norm")
@settings(max_examples=4)
@given(step=step, seed=st.integers(0, 99))
def test_loop_clips_the_complete_gradient(step, seed):
    train([step, [[2]]], seed=seed, max_grad_norm=0.1)


@check("sft_loop", "without another word the gradient is clipped to norm 1")
def test_loop_clips_at_one_by_default():
    train([[[3, 1]]], max_grad_norm=None, sharpness=9.0)


@check("sft_loop", "the scheduler steps once after each optimizer step")
def test_loop_steps_the_schedule():
    train([[[3, 1]], [[4]], [[2, 5]]], warmup=True)


@check("sft_loop", "a step without any supervised token moves nothing, neither weights nor schedule, and reports 0.0")
def test_loop_skips_steps_without_supervision():
    train([[[3]], [[0, 0], [0]], [[2, 1]]], warmup=True, momentum=0.9, weight_decay=0.1)


@check("sft_loop", "the model is trained in train mode")
def test_loop_switches_to_train_mode():
    train([[[3, 1]]], from_eval_mode=True)


@check("sft_loop", "batches may be a generator: they are gone over once")
def test_loop_takes_a_generator():
    train([[[3, 1]], [[4]]], from_generator=True)


@robust("sft_loop", "a micro-batch without supervised tokens beside others adds nothing", remedy=EMPTY)
def test_loop_with_an_unsupervised_micro_batch():
    train([[[3, 1], [0, 0]], [[0], [2]]])


@robust("sft_loop", "NaN in the logits of padding does not reach the weights", remedy=HUGE)
def test_loop_with_nan_at_padding():
    train([[[3, 1], [2, 5]]], nan_at_padding=True)


# --- lr_at ------------------------------------------------------------------------------------------------------------

PEAK = dict(peak=st.sampled_from([0.3, 1.0, 2.5]), ratio=st.sampled_from([0.0, 0.1, 0.25]))


@check("lr_at", "from 0 in a straight line to peak_lr at warmup_steps")
@given(warmup=st.integers(1, 17), after=st.integers(1, 40), share=st.floats(0, 1), **PEAK)
def test_lr_warms_up_in_a_line(warmup, after, share, peak, ratio):
    compare("lr_at", round(share * warmup), warmup + after, peak, warmup, ratio)


@check("lr_at", "then half a cosine over the steps that remain, down to min_ratio * peak_lr")
@given(warmup=st.integers(0, 17), after=st.integers(2, 40), share=st.floats(0, 1), **PEAK)
def test_lr_decays_along_a_cosine(warmup, after, share, peak, ratio):
    compare("lr_at", warmup + round(share * after), warmup + after, peak, warmup, ratio)


@check("lr_at", "after total_steps it stays at min_ratio * peak_lr")
@given(warmup=st.integers(0, 17), after=st.integers(1, 40), late=st.integers(0, 60), peak=PEAK["peak"])
def test_lr_is_held_after_the_end(warmup, after, late, peak):
    compare("lr_at", warmup + after + late, warmup + after, peak, warmup, 0.2)


@check("lr_at", "min_ratio is 0 unless given: the cosine ends at 0")
@given(total=st.integers(5, 40), share=st.floats(0, 1))
def test_lr_ends_at_zero_by_default(total, share):
    compare("lr_at", 2 + round(share * (total - 2)), total, 1.5, 2)


@check("lr_at", "warmup_steps = 0 starts at peak_lr")
@given(total=st.integers(1, 40), peak=PEAK["peak"])
def test_lr_without_warmup(total, peak):
    compare("lr_at", 0, total, peak, 0, 0.1)


@check("lr_at", "warmup_steps = total_steps does not divide by zero")
@given(total=st.integers(2, 40), late=st.booleans(), peak=PEAK["peak"])
def test_lr_when_warmup_fills_the_run(total, late, peak):
    compare("lr_at", total + 3 if late else total - 1, total, peak, total, 0.1)


@check("lr_at", "the worked numbers of the docstring")
def test_lr_worked_numbers():
    returns("lr_at", 5e-4, 5, 100, 1e-3, 10)
    returns("lr_at", 5e-4, 55, 100, 1e-3, 10)
    returns("lr_at", 1e-4, 100, 100, 1e-3, 10, 0.1)

"""Grader of week 03. One test is one claim about one function; `pytest weeks/03` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust
from graders import strategies as st

HUGE = "select before you compute, torch.where(mask.bool(), x, 0): inf or NaN times 0 is NaN"
EMPTY = "divide by the count clamped to at least 1"
NOTHING = "torch.where(mask.bool().any(dim=1), result, 0): a row that holds nothing scores 0"
HALF = "x.float() before the first difference or sum: bfloat16 keeps 8 bits of a number"
STABLE = "F.logsigmoid, F.binary_cross_entropy_with_logits: log(sigmoid(x)) is -inf where the sigmoid underflows"
FEW = settings(max_examples=6)  # of claims that few kinds of input can break
NAN = ("nan", "inf", "-inf")

# --- last_token_rewards -----------------------------------------------------------------------------------------------

VALUES = dict(values="B T normal", attention_mask="B T mask")


@check("last_token_rewards", "the value at the last attended token, wherever the padding is")
@given(x=st.tensors(**VALUES))
def test_reward_is_read_at_the_last_attended_token(x):
    compare("last_token_rewards", x.values, x.attention_mask, grad="values")


@check("last_token_rewards", "with padding on the right it is not the last column")
@given(x=st.tensors(**VALUES, span=("right",), least={"T": 3}))
def test_reward_with_right_padding(x):
    compare("last_token_rewards", x.values, x.attention_mask, grad="values")


@check("last_token_rewards", "with padding on the left the place is not the number of attended tokens minus one")
@given(x=st.tensors(**VALUES, span=("right",), least={"T": 3}))
def test_reward_with_left_padding(x):
    compare("last_token_rewards", x.values.flip(1), x.attention_mask.flip(1), grad="values")


@check("last_token_rewards", "a batch of one keeps its dimension; so does a text of one token")
@FEW
@given(x=st.tensors(**VALUES, sizes={"B": 1}, span=("full", "single")))
def test_reward_of_a_batch_of_one(x):
    compare("last_token_rewards", x.values, x.attention_mask, grad="values")


@check("last_token_rewards", "the worked number of the docstring")
def test_reward_worked_number():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    returns("last_token_rewards", torch.tensor([2.0, 6.0]), values, torch.tensor([[1, 1, 0], [0, 1, 1]]))


@robust("last_token_rewards", "inf and NaN under the mask change neither reward nor gradient", remedy=HUGE)
@given(x=st.tensors(**VALUES, under_mask=NAN))
def test_reward_ignores_what_is_under_the_mask(x):
    compare("last_token_rewards", x.values, x.attention_mask, grad="values")


@robust("last_token_rewards", "a row that attends to nothing has reward 0", remedy=NOTHING)
@given(x=st.tensors(**VALUES, empty_rows="some", least={"B": 2}, under_mask=("finite", "nan")))
def test_reward_of_empty_rows(x):
    compare("last_token_rewards", x.values, x.attention_mask, grad="values")


# --- bradley_terry_loss -----------------------------------------------------------------------------------------------

PAIRS = dict(chosen="B normal", rejected="B normal", margin="B positive")


@check("bradley_terry_loss", "minus log sigmoid of chosen minus rejected, averaged over the pairs")
@given(x=st.tensors(**PAIRS))
def test_bradley_terry_is_the_likelihood_of_the_pairs(x):
    compare("bradley_terry_loss", x.chosen, x.rejected, grad=("chosen", "rejected"))


@check("bradley_terry_loss", "the margin is subtracted inside the sigmoid: a number")
@given(x=st.tensors(**PAIRS), margin=st.sampled_from([1.0, 0.5, 3.0]))
def test_bradley_terry_with_one_margin(x, margin):
    compare("bradley_terry_loss", x.chosen, x.rejected, margin, grad=("chosen", "rejected"))


@check("bradley_terry_loss", "the margin is subtracted inside the sigmoid: one for each pair, a constant")
@given(x=st.tensors(**PAIRS))
def test_bradley_terry_with_a_margin_a_pair(x):
    compare("bradley_terry_loss", x.chosen, x.rejected, margin=x.margin, grad=("chosen", "rejected"))


@check("bradley_terry_loss", "only differences count: the same amount on both rewards changes nothing")
@FEW
@given(x=st.tensors(**PAIRS, dtypes=(torch.float64,)))
def test_bradley_terry_sees_differences(x):
    compare("bradley_terry_loss", x.chosen + 50, x.rejected + 50, grad=("chosen", "rejected"))


@check("bradley_terry_loss", "the worked numbers of the docstring")
def test_bradley_terry_worked_numbers():
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    returns("bradley_terry_loss", torch.tensor(0.8132617), chosen, rejected)
    returns("bradley_terry_loss", torch.tensor(1.4100376), chosen, rejected, 1.0)


@robust("bradley_terry_loss", "finite, with the right gradient, at differences of 200 and 10000", remedy=STABLE)
@given(x=st.tensors(**PAIRS), size=st.sampled_from([200.0, 1e4]))
def test_bradley_terry_of_hopeless_pairs(x, size):
    rejected = torch.where(x.margin > 0.8, x.rejected + size, x.rejected - size)
    compare("bradley_terry_loss", x.chosen, rejected, grad=("chosen", "rejected"))


@robust("bradley_terry_loss", "half-precision rewards are subtracted and averaged in float32", remedy=HALF)
@given(x=st.tensors(**PAIRS, dtypes=(torch.bfloat16,), sizes={"B": (5, 7, 11)}))
def test_bradley_terry_in_half_precision(x):
    compare("bradley_terry_loss", x.chosen + 9, x.rejected, x.margin + 9, grad=("chosen", "rejected"))


# --- pairwise_accuracy ------------------------------------------------------------------------------------------------

RANKED = dict(chosen="B reward", rejected="B reward")


@check("pairwise_accuracy", "the share of pairs whose chosen text has the higher reward")
@given(x=st.tensors(chosen="B normal", rejected="B normal"))
def test_accuracy_counts_right_rankings(x):
    compare("pairwise_accuracy", x.chosen, x.rejected)


@check("pairwise_accuracy", "a tie counts one half")
@given(x=st.tensors(**RANKED), other=st.booleans())
def test_accuracy_of_ties(x, other):
    compare("pairwise_accuracy", x.chosen, x.rejected.round() if other else x.chosen.clone())


@check("pairwise_accuracy", "the worked number of the docstring")
def test_accuracy_worked_number():
    chosen, rejected = torch.tensor([2.0, 0.0, 1.0, 5.0]), torch.tensor([1.0, 1.0, 1.0, 4.0])
    returns("pairwise_accuracy", torch.tensor(0.625), chosen, rejected)


@robust(
    "pairwise_accuracy",
    "nearly equal is not equal, and large rewards stay in order",
    remedy="compare with > and ==; isclose and steep sigmoids call small differences ties",
)
@given(x=st.tensors(chosen="B normal", sign="B normal", dtypes=(torch.float64,)), size=st.sampled_from([1.0, 1e4]))
def test_accuracy_of_near_ties(x, size):
    compare("pairwise_accuracy", size * x.chosen, size * x.chosen + 1e-9 * x.sign)


# --- orm_loss ---------------------------------------------------------------------------------------------------------

OUTCOME = dict(logits="B T normal", correct="B binary", completion_mask="B T mask")


@check("orm_loss", "binary cross-entropy of every completion token against its completion's label, token mean")
@given(x=st.tensors(**OUTCOME))
def test_orm_asks_every_completion_token(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


@check("orm_loss", "labels may be of any dtype")
@given(x=st.tensors(**OUTCOME), dtype=st.sampled_from([torch.bool, torch.int64, torch.uint8]))
def test_orm_takes_labels_of_any_dtype(x, dtype):
    compare("orm_loss", x.logits, x.correct.to(dtype), x.completion_mask, grad="logits")


@check("orm_loss", "the mean is over all completion tokens of the batch, not over rows first")
@given(x=st.tensors(**OUTCOME, least={"B": 2, "T": 3}, span=("right", "inside")))
def test_orm_is_a_token_mean(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


@check("orm_loss", "a completion of one token counts like any other, and so does a batch of one")
@FEW
@given(x=st.tensors(**OUTCOME, span=("single",)))
def test_orm_of_single_tokens(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


@check("orm_loss", "the worked number of the docstring")
def test_orm_worked_number():
    logits, mask = torch.tensor([[2.0, -1.0], [0.5, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    returns("orm_loss", torch.tensor(0.8047556), logits, torch.tensor([1, 0]), mask)


@robust("orm_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**OUTCOME, under_mask=NAN))
def test_orm_ignores_what_is_under_the_mask(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


@robust("orm_loss", "a completion without tokens adds nothing to the mean", remedy=HUGE)
@given(x=st.tensors(**OUTCOME, empty_rows="some", least={"B": 2}))
def test_orm_with_empty_rows(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


@robust("orm_loss", "a batch without completion tokens has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**OUTCOME, empty_rows="all"))
def test_orm_of_nothing(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits", tolerance=0)


@robust("orm_loss", "logits of 200 and 10000 cost what they cost, with a gradient", remedy=STABLE)
@given(x=st.tensors(**OUTCOME), size=st.sampled_from([200.0, 1e4]))
def test_orm_of_confident_logits(x, size):
    compare("orm_loss", size * x.logits, x.correct, x.completion_mask, grad="logits")


@robust("orm_loss", "half-precision logits of long completions are summed in float32", remedy=HALF)
@given(x=st.tensors(**OUTCOME, dtypes=st.HALF, sizes={"T": (61,)}, span=("full",)))
def test_orm_in_half_precision(x):
    compare("orm_loss", x.logits, x.correct, x.completion_mask, grad="logits")


# --- orm_score --------------------------------------------------------------------------------------------------------

SCORED = dict(logits="B T normal", completion_mask="B T mask")
HOW = st.sampled_from(["last", "mean", "min"])


@check("orm_score", "last: the probability at the last completion token")
@given(x=st.tensors(**SCORED))
def test_score_of_the_last_token(x):
    compare("orm_score", x.logits, x.completion_mask, "last")


@check("orm_score", "mean: the mean of the completion tokens' probabilities")
@given(x=st.tensors(**SCORED))
def test_score_by_the_mean(x):
    compare("orm_score", x.logits, x.completion_mask, "mean")


@check("orm_score", "min: the least of the completion tokens' probabilities")
@given(x=st.tensors(**SCORED))
def test_score_by_the_minimum(x):
    compare("orm_score", x.logits, x.completion_mask, "min")


@check("orm_score", "the worked numbers of the docstring")
def test_score_worked_numbers():
    logits, mask = torch.tensor([[2.0, -1.0], [0.5, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    returns("orm_score", torch.tensor([0.2689414, 0.6224593]), logits, mask, "last")
    returns("orm_score", torch.tensor([0.5748693, 0.6224593]), logits, mask, "mean")
    returns("orm_score", torch.tensor([0.2689414, 0.6224593]), logits, mask, "min")


@check("orm_score", "any other word is a ValueError that names it")
@FEW
@given(x=st.tensors(**SCORED), how=st.sampled_from(["max", "first", "lst"]))
def test_score_refuses_unknown_words(x, how):
    raises("orm_score", ValueError, x.logits, x.completion_mask, how, match=how)


@robust("orm_score", "inf and NaN under the mask do not matter", remedy=HUGE)
@given(x=st.tensors(**SCORED, under_mask=NAN), how=HOW)
def test_score_ignores_what_is_under_the_mask(x, how):
    compare("orm_score", x.logits, x.completion_mask, how)


@robust("orm_score", "a completion without tokens scores 0, by every rule", remedy=NOTHING)
@given(x=st.tensors(**SCORED, empty_rows="some", least={"B": 2}), how=HOW)
def test_score_of_empty_rows(x, how):
    compare("orm_score", x.logits, x.completion_mask, how)


@robust(
    "orm_score",
    "logits of 10000 have probabilities of 0 and 1",
    remedy="torch.sigmoid is stable; exp(x) / (1 + exp(x)) is not",
)
@given(x=st.tensors(**SCORED), how=HOW)
def test_score_of_confident_logits(x, how):
    compare("orm_score", 1e4 * x.logits, x.completion_mask, how)


@robust("orm_score", "half-precision logits: probabilities are averaged in float32", remedy=HALF)
@given(x=st.tensors(**SCORED, dtypes=st.HALF, sizes={"T": (61,)}, span=("full",)), how=HOW)
def test_score_in_half_precision(x, how):
    compare("orm_score", x.logits, x.completion_mask, how)

"""Grader of week 04. One test is one claim about one function; `pytest weeks/04` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust
from graders import strategies as st

HUGE = "select the labelled positions before the softmax, logits[labels != -100]; NaN times 0 is NaN"
FILL = "torch.where(mask.bool(), scores, neutral) before the reduction: NaN times 0 is NaN"
EMPTY = "sum the losses and divide by the count clamped to at least 1; the mean of nothing is NaN"
HALF = "x.float() before the softmax, the sum or the product: bfloat16 keeps 8 bits of a number"
STABLE = "F.cross_entropy or log_softmax: log(softmax(x)) is -inf where the softmax underflows"
FEW = settings(max_examples=6)  # of claims that few kinds of input can break
IGNORE = -100

# --- prm_labels -------------------------------------------------------------------------------------------------------


@st.composite
def traces(draw, fewer=0, more=0, lengths=(7, 11), **settings):
    """Solutions in which the separator stands everywhere, in the prompt and under padding too, and ratings for the
    steps of the completion: up to `fewer` of them missing, up to `more` of them too many."""
    sizes = {"V": 3, "T": lengths}
    x = draw(st.tensors(input_ids="B T ids", completion_mask="B T mask", sizes=sizes, **settings))
    separator = draw(st.sampled_from([0, 2]))
    ends = ((x.input_ids == separator) & x.completion_mask.bool()).sum(dim=1).tolist()
    counts = [max(n - draw(st.integers(0, fewer)), 0) + draw(st.integers(0, more)) for n in ends]
    ratings = [[draw(st.sampled_from([-1, 0, 1])) for _ in range(n)] for n in counts]
    return x.input_ids, separator, ratings, x.completion_mask


@check("prm_labels", "the k-th separator of the completion gets the k-th rating plus 1, everything else -100")
@given(trace=traces())
def test_labels_stand_at_the_separators(trace):
    compare("prm_labels", *trace)


@check("prm_labels", "separators in the prompt or under padding end no step")
@given(trace=traces(span=("inside",)))
def test_labels_stay_inside_the_completion(trace):
    compare("prm_labels", *trace)


@check("prm_labels", "a truncated trace: ratings without a separator are dropped")
@given(trace=traces(more=3, lengths=(3, 5, 7)))
def test_labels_of_a_truncated_trace(trace):
    compare("prm_labels", *trace)


@check("prm_labels", "separators without a rating stay -100")
@given(trace=traces(fewer=3))
def test_labels_of_an_unfinished_rating(trace):
    compare("prm_labels", *trace)


@check("prm_labels", "rows without separators or without ratings are -100 throughout")
@FEW
@given(trace=traces(fewer=9), blind=st.booleans())
def test_labels_of_rows_without_steps(trace, blind):
    input_ids, separator, ratings, mask = trace
    compare("prm_labels", input_ids, 7 if blind else separator, [ratings[0]] + [[] for _ in ratings[1:]], mask)


@check("prm_labels", "the worked number of the docstring")
def test_labels_worked_number():
    mask = torch.tensor([[0, 1, 1, 1, 1, 1]])
    expected = torch.tensor([[-100, -100, 2, -100, 0, -100]])
    returns("prm_labels", expected, torch.tensor([[7, 5, 7, 3, 7, 7]]), 7, [[1, -1]], mask)


@robust(
    "prm_labels",
    "a solution without any completion token has no labels",
    remedy="torch.tensor(ratings, dtype=torch.long): the tensor of an empty list is a float one",
    floor=False,
)
@given(trace=traces(more=2, empty_rows="all"))
def test_labels_of_nothing(trace):
    compare("prm_labels", *trace)


# --- prm_loss ---------------------------------------------------------------------------------------------------------


@st.composite
def judged(draw, sizes=None, **settings):
    """Logits (B, T, 3) and labels (B, T): a class at each or at every other position of a span, -100 elsewhere. A row
    has at least one label unless it is empty."""
    sizes = {"V": 3, **(sizes or {})}
    x = draw(st.tensors(logits="B T V normal", classes="B T ids", mask="B T mask", sizes=sizes, **settings))
    steps = x.mask.bool()
    if draw(st.booleans()):
        steps = steps & ((torch.arange(steps.shape[1]) - steps.long().argmax(1, keepdim=True)) % 2 == 0)
    x.labels = torch.where(steps, x.classes, IGNORE)
    return x


@check("prm_loss", "cross-entropy of the three classes at the labelled positions, averaged over them")
@given(x=judged())
def test_prm_loss_is_a_mean_over_labelled_positions(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


@check("prm_loss", "each label is judged by the logits at its own position: no shift")
@given(x=judged(least={"T": 3}, span=("single",)))
def test_prm_loss_does_not_shift(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


@check("prm_loss", "the mean is over all labelled positions of the batch, not over rows first")
@given(x=judged(least={"B": 2, "T": 3}, span=("right", "inside")))
def test_prm_loss_is_not_a_mean_of_rows(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


@check("prm_loss", "a row without labels adds nothing")
@FEW
@given(x=judged(empty_rows="some", sizes={"B": (2, 3, 5)}))
def test_prm_loss_with_unlabelled_rows(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


@check("prm_loss", "the worked numbers of the docstring")
def test_prm_loss_worked_numbers():
    logits = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]])
    returns("prm_loss", torch.tensor(0.4076059), logits, torch.tensor([[-100, 2]]))
    returns("prm_loss", torch.tensor(0.7531091), logits, torch.tensor([[0, 2]]))


@robust("prm_loss", "inf and NaN at unlabelled positions change neither loss nor gradient", remedy=HUGE)
@given(x=judged(under_mask=("nan", "inf", "-inf")))
def test_prm_loss_ignores_unlabelled_positions(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


@robust("prm_loss", "a batch without labels has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=judged(empty_rows="all"))
def test_prm_loss_of_nothing(x):
    compare("prm_loss", x.logits, x.labels, grad="logits", tolerance=0)


@robust("prm_loss", "logits of 10000, and -inf at a class that is not asked for", remedy=STABLE)
@given(x=judged(), infinite=st.booleans())
def test_prm_loss_of_confident_logits(x, infinite):
    other = (x.labels.clamp(min=0) + 1).remainder(3).unsqueeze(-1)
    logits = x.logits.scatter(-1, other, -torch.inf) if infinite else 1e4 * x.logits
    compare("prm_loss", logits, x.labels, grad="logits")


@robust("prm_loss", "half-precision logits: the softmax is taken in float32", remedy=HALF)
@given(x=judged(dtypes=st.HALF, sizes={"T": (61,)}, span=("full",)))
def test_prm_loss_in_half_precision(x):
    compare("prm_loss", x.logits, x.labels, grad="logits")


# --- step_scores ------------------------------------------------------------------------------------------------------


@check("step_scores", "the probability of class 2 at every labelled position, a tensor for each row")
@given(x=judged())
def test_scores_are_probabilities_of_good(x):
    compare("step_scores", x.logits, x.labels)


@check("step_scores", "where the labels stand matters, their values do not")
@FEW
@given(x=judged())
def test_scores_do_not_depend_on_the_ratings(x):
    compare("step_scores", x.logits, torch.where(x.labels == IGNORE, IGNORE, 0))


@check("step_scores", "a row without steps gives an empty tensor")
@given(x=judged(empty_rows="some", sizes={"B": (2, 3, 5)}))
def test_scores_of_rows_without_steps(x):
    compare("step_scores", x.logits, x.labels)


@check("step_scores", "the worked numbers of the docstring")
def test_scores_worked_numbers():
    logits = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]])
    returns("step_scores", [torch.tensor([0.6652410])], logits, torch.tensor([[-100, 1]]))
    returns("step_scores", [torch.tensor([1 / 3, 0.6652410])], logits, torch.tensor([[0, 1]]))


@robust("step_scores", "inf and NaN at unlabelled positions do not matter", remedy=HUGE)
@given(x=judged(under_mask=("nan", "inf", "-inf")))
def test_scores_ignore_unlabelled_positions(x):
    compare("step_scores", x.logits, x.labels)


@robust(
    "step_scores", "logits of 10000 have probabilities of 0 and 1", remedy="torch.softmax subtracts the largest logit"
)
@given(x=judged())
def test_scores_of_confident_logits(x):
    compare("step_scores", 1e4 * x.logits, x.labels)


@robust("step_scores", "half-precision logits: the softmax is taken in float32", remedy=HALF)
@given(x=judged(dtypes=st.HALF, scale=4.0))
def test_scores_in_half_precision(x):
    compare("step_scores", x.logits, x.labels)


# --- aggregate_steps --------------------------------------------------------------------------------------------------

SOLUTIONS = dict(scores="B S unit", step_mask="B S mask")
HOW = st.sampled_from(["min", "prod", "mean", "last"])


@check("aggregate_steps", "min: the smallest score of the real steps")
@given(x=st.tensors(**SOLUTIONS))
def test_solution_by_its_worst_step(x):
    compare("aggregate_steps", x.scores, x.step_mask, "min")


@check("aggregate_steps", "prod: the product of the real steps' scores")
@given(x=st.tensors(**SOLUTIONS))
def test_solution_by_the_product(x):
    compare("aggregate_steps", x.scores, x.step_mask, "prod")


@check("aggregate_steps", "mean: the mean over the real steps")
@given(x=st.tensors(**SOLUTIONS))
def test_solution_by_the_mean(x):
    compare("aggregate_steps", x.scores, x.step_mask, "mean")


@check("aggregate_steps", "last: the score of the last real step, which is not the last column")
@given(x=st.tensors(**SOLUTIONS))
def test_solution_by_its_last_step(x):
    compare("aggregate_steps", x.scores, x.step_mask, "last")


@check("aggregate_steps", "a row without steps scores 0, by every rule")
@given(x=st.tensors(**SOLUTIONS, empty_rows="some", least={"B": 2}), how=HOW)
def test_solution_without_steps(x, how):
    compare("aggregate_steps", x.scores, x.step_mask, how)


@check("aggregate_steps", "prod is accurate for chains of a thousand steps")
@FEW
@given(x=st.tensors(**SOLUTIONS, sizes={"S": (1009,), "B": (2, 3)}), base=st.sampled_from([0.99, 0.995]))
def test_product_of_long_chains(x, base):
    real = base + (1 - base) * x.scores
    compare("aggregate_steps", torch.where(x.step_mask.bool(), real, x.scores), x.step_mask, "prod")


@check("aggregate_steps", "prod is exactly 0 if a score is 0", floor=False)
@FEW
@given(x=st.tensors(**SOLUTIONS))
def test_product_with_a_zero(x):
    compare("aggregate_steps", torch.zeros_like(x.scores), x.step_mask, "prod", tolerance=0)


@check("aggregate_steps", "the worked numbers of the docstring")
def test_solution_worked_numbers():
    scores, mask = torch.tensor([[0.9, 0.5, 0.8], [0.6, 0.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    returns("aggregate_steps", torch.tensor([0.5, 0.6]), scores, mask, "min")
    returns("aggregate_steps", torch.tensor([0.36, 0.6]), scores, mask, "prod")
    returns("aggregate_steps", torch.tensor([2.2 / 3, 0.6]), scores, mask, "mean")
    returns("aggregate_steps", torch.tensor([0.8, 0.6]), scores, mask, "last")


@check("aggregate_steps", "any other word is a ValueError that names it")
@FEW
@given(x=st.tensors(**SOLUTIONS), how=st.sampled_from(["max", "product", "mn"]))
def test_solution_refuses_unknown_words(x, how):
    raises("aggregate_steps", ValueError, x.scores, x.step_mask, how, match=how)


@robust("aggregate_steps", "inf and NaN under the mask do not matter", remedy=FILL)
@given(x=st.tensors(**SOLUTIONS, under_mask=("nan", "inf", "-inf")), how=HOW)
def test_solution_ignores_what_is_under_the_mask(x, how):
    compare("aggregate_steps", x.scores, x.step_mask, how)


@robust("aggregate_steps", "half-precision scores of long solutions are reduced in float32", remedy=HALF)
@given(x=st.tensors(**SOLUTIONS, dtypes=st.HALF, sizes={"S": (61,)}, span=("full",)), how=HOW)
def test_solution_in_half_precision(x, how):
    compare("aggregate_steps", 0.95 + 0.05 * x.scores, x.step_mask, how)


# --- rerank_accuracy --------------------------------------------------------------------------------------------------

RANKED = dict(scores="P N normal", correct="P N binary")


@check("rerank_accuracy", "the share of prompts whose best-scored sample is correct")
@given(x=st.tensors(**RANKED))
def test_rerank_picks_the_best_scored(x):
    compare("rerank_accuracy", x.scores, x.correct)


@check("rerank_accuracy", "samples that tie for the best score share the credit")
@given(x=st.tensors(scores="P N reward", correct="P N binary"))
def test_rerank_shares_ties(x):
    compare("rerank_accuracy", x.scores.round(), x.correct)


@check("rerank_accuracy", "correct may be of any dtype")
@given(x=st.tensors(**RANKED), dtype=st.sampled_from([torch.bool, torch.int64, torch.uint8]))
def test_rerank_takes_verdicts_of_any_dtype(x, dtype):
    compare("rerank_accuracy", x.scores.round(), x.correct.to(dtype))


@check("rerank_accuracy", "the worked number of the docstring")
def test_rerank_worked_number():
    scores, correct = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 0.0]]), torch.tensor([[0, 1, 0], [1, 0, 1]])
    returns("rerank_accuracy", torch.tensor(0.75), scores, correct)


@robust(
    "rerank_accuracy",
    "nearly equal scores do not tie, and scores of 10000 or -inf stay in order",
    remedy="compare with == and the row's maximum; softmaxes and isclose call small differences ties",
)
@given(x=st.tensors(**RANKED, dtypes=(torch.float64,), least={"N": 2}), how=st.sampled_from(["near", "large", "-inf"]))
def test_rerank_of_near_ties(x, how):
    extreme = {"near": 1 + 1e-9 * x.scores, "large": 1e4 * x.scores, "-inf": x.scores.clone()}[how]
    if how == "-inf":
        extreme[:, 1:] = -torch.inf
    compare("rerank_accuracy", extreme, x.correct)

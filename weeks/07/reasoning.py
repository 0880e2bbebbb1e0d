r"""Week 07: verifiable rewards and inference-time scaling (book chapter 7). Fill in the functions; `pytest weeks/07`
grades this file.

Texts come from a policy in training: they can be long, broken or hostile. No function may raise on a text, evaluate it,
or take more than linear time in its length. P prompts with N or G samples each; tensors are not changed in place.
"""

from collections.abc import Sequence

from torch import Tensor


def extract_answer(text: str) -> str | None:
    r"""Find the answer that a completion gives.

    Rule:    what stands between the last <answer> and </answer>; without them, what stands in the last \boxed{...}, up
             to the brace that balances the opening one. Outer spaces and newlines are stripped.
    Edges:   the last *closed* one counts: an opening tag or box that never closes is passed over. A closed box inside
             the tags is unwrapped. None when there is neither.
    Example: r"So \boxed{3} ... no: \boxed{\frac{1}{2}}" -> r"\frac{1}{2}"; "<answer> 7 </answer> or <answer>8" -> "7";
             r"<answer>\boxed{5}</answer> \boxed{6}" -> "5"; "It is 72." -> None
    Source:  book ch. 7, reinforcement learning with verifiable rewards; DeepSeek-R1, arXiv:2501.12948, section 2.2.
    """
    raise NotImplementedError("Week 07, task 1: write extract_answer (lesson section 'Reading an answer')")


def answers_match(answer: str | None, target: str | None) -> bool:
    r"""Decide whether an answer is the target in other clothes.

    Rule:    equal as text after normalising: lower case; outer spaces removed and repeated ones made single; $ and \,
             removed; \% is %; \dfrac is \frac; thousands separators removed (1,234,567 but not 1,23). Or exactly equal
             as numbers: ints, decimals, percents (a hundredth each), fractions a/b and \frac{a}{b}, all with a sign.
    Edges:   inner words stay apart: "1 1/2" is not "11/2". 0.333 is not 1/3. 1/0 is no number, and no error. None
             matches nothing, not even None. The text is never evaluated as code.
    Example: ("1,234.50", "$1234.5$") True; (r"50\%", "1/2") True; (r"-\dfrac{3}{6}", "-0.5") True;
             ("Paris", " paris ") True; ("2+2", "4") False; ("50", "50%") False
    Source:  Lewkowycz et al. 2022, arXiv:2206.14858, appendix D (normalisation); book ch. 7.
    """
    raise NotImplementedError("Week 07, task 2: write answers_match (lesson section 'The same answer')")


def verifiable_reward(text: str, target: str, format_weight: float = 0.1) -> float:
    """The reward of a completion: full for the right answer, a little for answering in the right place, else nothing.

    Formula: 1.0 if the extracted answer matches the target; `format_weight` if it does not; 0.0 if there is none.
    Edges:   the format earns nothing on top of a right answer.
    Example: ("<answer>4</answer>", "4") -> 1.0; ("<answer>5</answer>", "4") -> 0.1; ("It is 4.", "4") -> 0.0
    Source:  DeepSeek-R1, arXiv:2501.12948, section 2.2 (accuracy and format rewards); book ch. 7.
    """
    raise NotImplementedError("Week 07, task 3: write verifiable_reward (lesson section 'The reward')")


def pass_at_k(n: int | Tensor, c: int | Tensor, k: int | Tensor) -> float | Tensor:
    """The chance that at least one of k samples is right, estimated from n samples of which c were right.

    Formula: 1 - C(n - c, k) / C(n, k), where C(a, k) = 0 for a < k: the k are drawn from the n without replacement.
    Shapes:  three numbers -> float; tensors (any of the three; they broadcast) -> floating tensor.
    Edges:   ValueError unless 0 <= c <= n and 1 <= k <= n, for any element. Accurate for n up to 100000.
    Example: (5, 2, 3) -> 0.9; (4, 1, 4) -> 1.0; (100000, 1, 10) -> 0.0001
    Source:  Chen et al. 2021, arXiv:2107.03374, eq. 1; book ch. 7, inference-time scaling.
    """
    raise NotImplementedError("Week 07, task 4: write pass_at_k (lesson section 'Solved within k tries')")


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | Tensor | None = None) -> str | None:
    """Self-consistency: the answer that most samples agree on.

    Formula: the answer with the largest sum of weights over the samples that gave it (each 1 without `weights`).
    Shapes:  list of N answers, N weights or None -> one of the answers, or None.
    Edges:   None abstains: it takes no part, with whatever weight. Ties go to the answer that was seen first. None when
             nobody answered. Answers count as the same only if they are equal as strings.
    Example: ["4", None, "5", "5", "4", None, None] -> "4"; ["4", "5", "4"] with weights [0.2, 0.9, 0.3] -> "5"
    Source:  Wang et al. 2022, arXiv:2203.11171; book ch. 7, inference-time scaling.
    """
    raise NotImplementedError("Week 07, task 5: write majority_vote (lesson section 'Voting')")


def best_of_n_accuracy(scores: Tensor, correct: Tensor, n: int) -> Tensor:
    """Expected accuracy of best-of-n: draw n of a prompt's N samples, answer with the best-scored one.

    Formula: mean over prompts of the average, over all C(N, n) draws without replacement, of the share of correct
             samples among those with the draw's highest score. Exact, without enumerating the draws: the highest score
             is s with chance [C(m, n) - C(l, n)] / C(N, n), if l of the N samples score below s and m not above it.
    Shapes:  scores (P, N), correct (P, N) of 0 and 1 in any dtype -> scalar, of the dtype of the scores.
    Edges:   ties in a draw share the credit. n = 1 gives the mean accuracy. ValueError unless 1 <= n <= N.
    Example: scores [[3, 1, 2]], correct [[0, 1, 1]] -> n=1 0.6667, n=2 0.3333, n=3 0.0
    Source:  book ch. 7, inference-time scaling; Cobbe et al. 2021, arXiv:2110.14168.
    """
    raise NotImplementedError("Week 07, task 6: write best_of_n_accuracy (lesson section 'Choosing the best of n')")


def informative_groups(rewards: Tensor) -> Tensor:
    """DAPO's dynamic sampling: which prompts have something to learn from?

    Formula: True where the G rewards of a prompt are not all equal.
    Shapes:  rewards (P, G) -> bool (P,).
    Edges:   equal means equal, at any value: eight rewards of 0.7 carry no signal, though their float32 std is not 0.
    Example: [[1, 1, 1], [0, 1, 0]] -> [False, True]
    Source:  Yu et al. 2025, arXiv:2503.14476, section 3.2; book ch. 7.
    """
    raise NotImplementedError("Week 07, task 7: write informative_groups (lesson section 'Groups that teach')")

"""Week 10: rejection sampling (book chapter 9) and what preferences are (chapter 10).

Fill in the seven functions; `pytest weeks/10` grades this file.

Shapes: P prompts with N sampled completions each, `rewards[p, i]` the reward of completion i of prompt p. M items that
were compared in pairs, `wins[i, j]` how often i beat j. No input is changed in place.
"""

from collections.abc import Sequence

from torch import Tensor


def top_per_prompt(rewards: Tensor, k: int = 1) -> Tensor:
    """Rejection sampling by prompt: which k samples of each prompt have the highest rewards?

    Formula: the first k sample indices i of row p, sorted by rewards[p, i] from high to low.
    Shapes:  rewards (P, N) -> LongTensor (P, k); row p holds sample indices of prompt p, best first.
    Edges:   equal rewards: the lower index first (torch.topk and argmax do not promise that). k outside 1..N is a
             ValueError that names it. Star: rewards of -inf (a completion that failed) come last.
    Example: [[0.7, 0.9, 0.9], [0.4, 0.1, 0.2]], k=2 -> [[1, 2], [0, 2]]
    Source:  book ch. 9, top per prompt; Llama 2, arXiv:2307.09288 section 3.2.3.
    """
    raise NotImplementedError("Week 10, task 1: write top_per_prompt (lesson section 'The best of each prompt')")


def top_k_overall(rewards: Tensor, k: int) -> Tensor:
    """Rejection sampling over the whole table: which k (prompt, sample) pairs have the highest rewards?

    Formula: the first k of all P*N pairs (p, i), sorted by rewards[p, i] from high to low. In the table laid out row
             after row, entry f is the pair (f // N, f % N).
    Shapes:  rewards (P, N) -> LongTensor (k, 2), rows (prompt, sample), best first.
    Edges:   equal rewards: the lower prompt first, then the lower sample. A prompt may be chosen often or never.
             k outside 1..P*N is a ValueError that names it. Star: rewards of -inf come last.
    Example: [[0.7, 0.9, 0.9], [0.4, 0.1, 0.8]], k=3 -> [[0, 1], [0, 2], [1, 2]]
    Source:  book ch. 9, top K overall.
    """
    raise NotImplementedError("Week 10, task 2: write top_k_overall (lesson section 'The best of all')")


def best_of_n_kl(n: int) -> float:
    """How far best-of-n sampling moves from the policy it samples, in nats: KL(best of n || policy).

    Formula: log n - (n - 1)/n, the natural logarithm. Exact when rewards are never equal, else an upper bound.
    Edges:   n = 1 is 0; n < 1 is a ValueError that names it. Returns a Python float. Star: right for n = 2**62 too.
    Example: n = 4 -> 0.636294
    Source:  Stiennon et al. 2020, arXiv:2009.01325 appendix G.3; Beirami et al. 2024, arXiv:2401.01879; book ch. 9.
    """
    raise NotImplementedError("Week 10, task 3: write best_of_n_kl (lesson section 'What best-of-n costs')")


def expected_max_reward(rewards: Tensor, n: int) -> Tensor:
    """The reward that best-of-n gets, without any noise of drawing: the mean over all C(N, n) draws of the best of n.

    Formula: with rewards sorted best first, r_(0) >= r_(1) >= ... >= r_(N-1),
             sum_j weight_j r_(j),  weight_j = C(N-1-j, n-1) / C(N, n): r_(j) and n - 1 of those below it are drawn.
    Shapes:  rewards (N,) -> scalar tensor. The draws are without replacement.
    Edges:   n = 1 is the mean, n = N the maximum. n outside 1..N is a ValueError that names it. Right for N = 10,000
             too, where the binomial coefficients exceed any float: use their ratios. Exact, not a simulation.
             Star: half precision is computed in float32.
    Example: [1, 2, 4], n = 2 -> 3.333333 (the draws' maxima are 2, 4, 4)
    Source:  book ch. 9, best-of-N; the estimator of pass@k (arXiv:2107.03374 section 2.1) with rewards.
    """
    raise NotImplementedError("Week 10, task 4: write expected_max_reward (lesson section 'What best-of-n gains')")


def fit_bradley_terry(wins: Tensor, iterations: int = 10_000, tol: float = 1e-9) -> Tensor:
    """The strengths that make the observed wins likeliest, if i beats j with probability sigma(s_i - s_j).

    Formula: maximise sum_ij wins[i, j] log sigma(s_i - s_j), subject to mean(s) = 0. The gradient in s_i is wins minus
             expected wins, sum_j (wins[i, j] - n_ij sigma(s_i - s_j)) with n_ij = wins[i, j] + wins[j, i]. Setting it
             to 0 gives Zermelo's iteration, with strengths e_i = exp(s_i):
             e_i <- (sum_j wins[i, j]) / (sum_j n_ij / (e_i + e_j)), all at once. Newton's method needs fewer rounds.
    Shapes:  wins (M, M), counts of any dtype -> (M,), to within 1e-4 of the maximum.
    Edges:   the diagonal is ignored. Counts may be fractions. `iterations` bounds the rounds; stop earlier when no s_i
             moves by more than `tol`. ValueError that says why when the win graph (an edge i -> j where wins[i, j] > 0)
             is not strongly connected: some items then never lose to the others and their strengths have no maximum.
             Star: very uneven tables (one win in hundreds, or millions of games) to within 1e-4 too.
    Example: [[0, 3, 2], [1, 0, 3], [1, 2, 0]] -> [0.623317, -0.199467, -0.423850]
    Source:  Zermelo 1929; Bradley and Terry 1952; Hunter 2004, "MM algorithms for generalized Bradley-Terry models";
             book ch. 5, training reward models, and ch. 10.
    """
    raise NotImplementedError("Week 10, task 5: write fit_bradley_terry (lesson section 'Strengths from wins')")


def preference_cycles(wins: Tensor) -> list[tuple[int, int, int]]:
    """Where a majority contradicts itself: all triples with i preferred to j, j to k, and k to i.

    Formula: i -> j when wins[i, j] > wins[j, i]. Wanted: all (i, j, k) with i -> j, j -> k and k -> i.
    Shapes:  wins (M, M) -> list of tuples of ints, ascending.
    Edges:   each cycle once, starting at its smallest index and following the arrows: (0, 1, 2) and (0, 2, 1) are two
             different cycles. A tie is no majority. No cycle: an empty list. Star: unsigned counts (uint8).
    Example: [[0, 2, 1], [1, 0, 2], [2, 1, 0]] -> [(0, 1, 2)]
    Source:  Condorcet 1785; book ch. 10, the assumptions behind preferences.
    """
    raise NotImplementedError("Week 10, task 6: write preference_cycles (lesson section 'When no score can exist')")


def cohen_kappa(a: Sequence | Tensor, b: Sequence | Tensor) -> float:
    """How far two annotators agree beyond what chance would give.

    Formula: (p_o - p_e) / (1 - p_e), with p_o the share of items with equal labels and p_e the sum over labels of
             (share of the label in a) * (share of the label in b).
    Shapes:  a, b: the labels of the same n items, two lists (numbers or strings) or two tensors (n,) -> Python float.
    Edges:   1.0 when both always give the same one label (p_e = 1). Negative when they agree less than by chance.
             ValueError when the lengths differ or are 0. Star: thousands of items with a hundred labels, at once.
    Example: a = [1, 1, 0, 1], b = [1, 0, 0, 1] -> 0.5
    Source:  Cohen 1960, "A coefficient of agreement for nominal scales"; book ch. 11 on preference data.
    """
    raise NotImplementedError("Week 10, task 7: write cohen_kappa (lesson section 'Do the annotators agree?')")

"""Week 11's functions: exact recovery, enumeration, TRL's divergences, and coverage of the bootstrap."""

import datetime
import importlib.util
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reference_impl import research as reference

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location("week11_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/11/research.py")
stub = load(ROOT / "weeks/11/research.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])
NAN, INF = math.nan, math.inf


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def value_and_grad(loss, student):
    student = student.clone().requires_grad_()
    value = loss(student)
    return value.detach(), torch.autograd.grad(value, student)[0]


# ---- overoptimization_fit


def curve(kl, alpha, beta, kind):
    d = math.sqrt(kl)
    return d * (alpha - beta * (d if kind == "bon" else math.log(d))) if d else 0.0


@both
@pytest.mark.parametrize("kind", ["bon", "rl"])
def test_a_curve_without_noise_gives_its_own_coefficients(impl, kind):
    for alpha, beta in [(1.3, 0.2), (0.4, -0.1), (0.0, 0.7)]:
        kl = [0.0, 0.01, 0.3, 1.0, 4.5, 20.0, 80.0]
        gold = doubles(*[curve(x, alpha, beta, kind) for x in kl])
        fit = impl.overoptimization_fit(doubles(*kl), gold, kind)
        assert fit == pytest.approx((alpha, beta), abs=1e-10)
        assert all(type(coefficient) is float for coefficient in fit)


@both
@pytest.mark.parametrize("kind", ["bon", "rl"])
def test_no_other_coefficients_have_a_smaller_squared_error(impl, kind):
    """Least squares in gold itself: neither in gold / d nor in logarithms, which weigh the points otherwise."""
    kl = randn(9, seed=1).abs() * 5 + 0.05
    gold = doubles(*[curve(x, 1.0, 0.3, kind) for x in kl.tolist()]) + randn(9, seed=2, scale=0.3)
    alpha, beta = impl.overoptimization_fit(kl, gold, kind)

    def error(a, b):
        return sum((g - curve(x, a, b, kind)) ** 2 for x, g in zip(kl.tolist(), gold.tolist(), strict=True))

    for da, db in itertools.product([-1e-3, 0, 1e-3], repeat=2):
        assert error(alpha + da, beta + db) >= error(alpha, beta)


@both
def test_a_fit_that_cannot_be_made_is_refused_by_name(impl):
    ones = torch.ones(3)
    with pytest.raises(ValueError, match="ppo"):
        impl.overoptimization_fit(doubles(1, 2, 3), ones, "ppo")
    with pytest.raises(ValueError, match="-0.5"):
        impl.overoptimization_fit(doubles(1, 2, -0.5), ones, "bon")
    for kl in [doubles(0, 2, 2), doubles(0, 0, 0)]:
        with pytest.raises(ValueError, match="two different positive"):
            impl.overoptimization_fit(kl, ones, "rl")


@both
def test_the_fit_takes_float32_and_integers(impl):
    fit = impl.overoptimization_fit(torch.tensor([1, 4, 16]), torch.tensor([0.9, 1.6, 2.4]), "bon")
    assert fit == pytest.approx((1.0, 0.1), abs=1e-6)


# ---- on-policy distillation


def plain_divergence(s, t, b):
    """One token's divergence from two lists of logits, by the definition, in plain Python."""
    s, t = ([math.exp(x) for x in logits] for logits in (s, t))
    s, t = ([x / sum(p) for x in p] for p in (s, t))

    def kl(p, q):
        return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))

    m = [b * y + (1 - b) * x for x, y in zip(s, t, strict=True)]
    return kl(t, s) if b == 0 else kl(s, t) if b == 1 else b * kl(t, m) + (1 - b) * kl(s, m)


@both
@pytest.mark.parametrize("b", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float64])
def test_distillation_is_the_definition_averaged_over_tokens(impl, b, dtype):
    student, teacher = randn(2, 3, 5, seed=1), randn(2, 3, 5, seed=2)
    mask = torch.tensor([[0, 1, 1], [0, 0, 1]]).to(dtype)
    kept = [(0, 1), (0, 2), (1, 2)]
    expected = sum(plain_divergence(student[at].tolist(), teacher[at].tolist(), b) for at in kept) / 3
    strided = student.transpose(0, 2).contiguous().transpose(0, 2)
    loss = impl.on_policy_distillation_loss(strided, teacher, mask, b)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert_close(loss, doubles(expected)[0])


@both
@pytest.mark.parametrize("b", [0.0, 0.1, 0.5, 1.0])
def test_distillation_is_trls_gkd_in_value_and_gradient(impl, b):
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    student, teacher = randn(2, 3, 7, seed=3), randn(2, 3, 7, seed=4)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    labels = torch.where(mask.bool(), 1, -100)
    ours = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, teacher, mask, b), student)
    theirs = value_and_grad(lambda s: GKDTrainer.generalized_jsd_loss(s, teacher, labels, beta=b), student)
    assert_close(ours, theirs)


@both
def test_the_ends_are_the_limits_of_the_scaled_divergence(impl):
    student, teacher, mask = randn(1, 2, 5, seed=5), randn(1, 2, 5, seed=6), torch.ones(1, 2)

    def loss(b):
        return impl.on_policy_distillation_loss(student, teacher, mask, b)

    assert_close(loss(1e-6) / 1e-6, loss(0.0), rtol=1e-4, atol=0)
    assert_close(loss(1 - 1e-6) / 1e-6, loss(1.0), rtol=1e-4, atol=0)


@both
def test_reverse_kl_seeks_one_mode_and_forward_kl_covers_both(impl):
    """A teacher with two modes, a student on one of them: the reverse KL minds far less than the forward KL."""
    teacher, student = doubles([[5, 5, -5, -5]]), doubles([[5, -5, -5, -5]])
    one = torch.ones(1, 1)
    reverse = impl.on_policy_distillation_loss(student[None], teacher[None], one, 1.0)
    forward = impl.on_policy_distillation_loss(student[None], teacher[None], one, 0.0)
    assert_close(reverse, doubles(math.log(2))[0], rtol=1e-2, atol=0)
    assert forward > 6 * reverse


@both
@pytest.mark.parametrize("b", [0.0, 0.3, 1.0])
def test_only_the_student_learns(impl, b):
    student, teacher = randn(2, 3, 4, seed=7).requires_grad_(), randn(2, 3, 4, seed=8).requires_grad_()
    mask = torch.tensor([[1, 1, 0], [0, 0, 1]])
    impl.on_policy_distillation_loss(student, teacher, mask, b).backward()
    assert teacher.grad is None
    assert (student.grad[mask.bool()] != 0).all() and (student.grad[~mask.bool()] == 0).all()
    assert torch.autograd.gradcheck(lambda s: impl.on_policy_distillation_loss(s, teacher, mask, b), (student,))


@both
@pytest.mark.parametrize("b", [0.0, 0.3, 1.0])
def test_nan_and_infinity_under_the_mask_change_nothing(impl, b):
    student, teacher = randn(2, 3, 4, seed=1), randn(2, 3, 4, seed=2)
    mask = torch.tensor([[1, 1, 0], [0, 0, 1]])
    dirty_student, dirty_teacher = student.clone(), teacher.clone()
    dirty_student[0, 2], dirty_student[1, 0] = NAN, INF
    dirty_teacher[0, 2], dirty_teacher[1, 1] = -INF, NAN
    clean = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, teacher, mask, b), student)
    dirty = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, dirty_teacher, mask, b), dirty_student)
    assert torch.equal(clean[0], dirty[0]) and torch.equal(clean[1], dirty[1])
    nothing, grad = value_and_grad(
        lambda s: impl.on_policy_distillation_loss(s, dirty_teacher, torch.zeros(2, 3), b), dirty_student
    )
    assert nothing == 0 and torch.equal(grad, torch.zeros_like(grad))


@both
@pytest.mark.parametrize("b", [0.0, 0.3, 1.0])
def test_labels_that_neither_side_uses_do_not_exist(impl, b):
    """Logits of -inf on both sides: the same loss and gradient as without these labels."""
    student, teacher = randn(1, 2, 3, seed=3), randn(1, 2, 3, seed=4)
    ruled_out = torch.full((1, 2, 2), -INF, dtype=torch.float64)
    one = torch.ones(1, 2)
    small = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, teacher, one, b), student)
    wide_teacher = torch.cat([ruled_out, teacher], dim=-1)
    wide_student = torch.cat([ruled_out, student], dim=-1)
    wide = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, wide_teacher, one, b), wide_student)
    assert_close(wide[0], small[0])
    assert_close(wide[1], torch.cat([torch.zeros_like(ruled_out), small[1]], dim=-1))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_give_huge_but_right_divergences(impl, dtype):
    student = torch.tensor([[[1e4, -1e4, 0.0]]], dtype=dtype)
    teacher, one = -student, torch.ones(1, 1)
    for b, expected in [
        (0.0, 2e4),
        (1.0, 2e4),
        (0.5, math.log(2)),
        (0.25, 0.25 * math.log(4) + 0.75 * math.log(4 / 3)),
    ]:
        value, grad = value_and_grad(lambda s, b=b: impl.on_policy_distillation_loss(s, teacher, one, b), student)
        assert_close(value, torch.tensor(expected, dtype=dtype))
        assert grad.isfinite().all()
    _, grad = value_and_grad(lambda s: impl.on_policy_distillation_loss(s, teacher, one, 0.0), student)
    assert_close(grad[0, 0], torch.tensor([1.0, -1.0, 0.0], dtype=dtype))  # s - t, the gradient of cross-entropy


@both
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(impl, half):
    """Student and teacher a hair apart: the divergence is far below what a bfloat16 log-softmax could show."""
    student = randn(2, 5, 50, seed=1).to(half)
    teacher = (student.double() + randn(2, 5, 50, seed=2, scale=0.02)).to(half)
    for b in [0.0, 0.5, 1.0]:
        loss = impl.on_policy_distillation_loss(student, teacher, torch.ones(2, 5), b)
        exact = impl.on_policy_distillation_loss(student.double(), teacher.double(), torch.ones(2, 5), b)
        assert_close(loss.double(), exact, rtol=1e-3, atol=0)


@both
@pytest.mark.parametrize("b", [-0.1, 1.5, NAN])
def test_jsd_beta_outside_its_range_is_named(impl, b):
    with pytest.raises(ValueError, match=f"jsd_beta={b}"):
        impl.on_policy_distillation_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1), b)


# ---- SDPO (reference alone)


def test_sdpo_is_trls_top_k_divergence_with_a_tail():
    from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss

    student, teacher, mask = randn(2, 3, 11, seed=1), randn(2, 3, 11, seed=2), torch.tensor([[1, 1, 0], [0, 1, 1]])
    for top_k in [1, 4, 10]:

        def theirs(s, k=top_k):
            per_token = compute_topk_self_distillation_loss(
                s, teacher, distillation_topk=k, distillation_alpha=1.0, distillation_add_tail=True
            )
            return (per_token * mask).sum() / mask.sum()

        ours = value_and_grad(lambda s, k=top_k: reference.sdpo_loss(s, teacher, mask, k), student)
        assert_close(ours, value_and_grad(theirs, student), rtol=1e-6, atol=1e-8)


def test_sdpo_rises_to_the_full_reverse_kl_as_top_k_grows():
    student, teacher, mask = randn(2, 3, 9, seed=3), randn(2, 3, 9, seed=4), torch.ones(2, 3)
    full = reference.on_policy_distillation_loss(student, teacher, mask, 1.0)
    losses = [reference.sdpo_loss(student, teacher, mask, k).item() for k in range(1, 12)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(losses))
    assert losses[0] < 0.9 * full
    assert losses[7:] == pytest.approx([full.item()] * 4, rel=1e-9)  # top_k = V - 1 and beyond


def test_sdpo_gradient_masks_and_extremes():
    student, teacher = randn(2, 3, 6, seed=5).requires_grad_(), randn(2, 3, 6, seed=6).requires_grad_()
    mask = torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert torch.autograd.gradcheck(lambda s: reference.sdpo_loss(s, teacher, mask, 2), (student,))
    reference.sdpo_loss(student, teacher, mask, 2).backward()
    assert teacher.grad is None
    hostile = torch.tensor([[[1e4, -1e4, -INF, -INF]], [[NAN, INF, 0.0, 0.0]]])
    value, grad = value_and_grad(
        lambda s: reference.sdpo_loss(s, -hostile.flip(2), torch.tensor([[0], [0]]), 2), hostile
    )
    assert value == 0 and (grad == 0).all()
    allowed = torch.tensor([[[2.0, 1.0, -INF, -INF]]])  # top_k = 3 reaches into what is ruled out
    value, grad = value_and_grad(lambda s: reference.sdpo_loss(s, allowed, torch.ones(1, 1), 3), allowed)
    assert value == 0 and torch.equal(grad, torch.zeros_like(grad))
    with pytest.raises(ValueError, match="top_k=0"):
        reference.sdpo_loss(student, teacher, mask, 0)


# ---- paired_bootstrap


@both
def test_the_interval_is_that_of_all_resamples_enumerated(impl):
    """K = 5 has 5^5 = 3,125 equally likely resamples: the percentiles of their means, without chance."""
    a, b = doubles(3.1, 2.0, 5.5, 4.0, 1.2), doubles(2.0, 2.5, 3.5, 1.0, 0.9)
    differences = (a - b).tolist()
    means = sorted(sum(draw) / 5 for draw in itertools.product(differences, repeat=5))
    diff, low, high = impl.paired_bootstrap(a, b, 40_000, seeded(0))
    assert diff == pytest.approx(sum(differences) / 5)
    assert low == pytest.approx(means[round(0.025 * 3125)], abs=0.03)
    assert high == pytest.approx(means[round(0.975 * 3125)], abs=0.03)
    assert all(type(x) is float for x in (diff, low, high))


@both
def test_pairs_stay_together(impl):
    """Seeds differ by tens, the methods always by one to two: the interval has to be about the latter."""
    seeds = 50 * randn(12, seed=1)
    gains = 1.5 + 0.5 * torch.sin(torch.arange(12.0, dtype=torch.float64))
    diff, low, high = impl.paired_bootstrap(seeds + gains, seeds, 2000, seeded(0))
    assert 1.0 < low < diff < high < 2.0
    assert impl.paired_bootstrap(seeds + 2.0, seeds, 100, seeded(0)) == pytest.approx((2.0, 2.0, 2.0))


@both
def test_the_interval_covers_the_truth_about_as_often_as_it_says(impl):
    """300 experiments of 30 normal differences with mean 1: 95% nominal, a little less for a percentile bootstrap."""
    data = 1.0 + randn(300, 30, seed=3)
    zero, generator = torch.zeros(30, dtype=torch.float64), seeded(0)
    intervals = [impl.paired_bootstrap(row, zero, 500, generator) for row in data]
    covered = sum(low <= 1.0 <= high for _, low, high in intervals) / 300
    assert 0.89 < covered < 0.98


@both
def test_the_generator_is_the_only_chance(impl):
    a, b = randn(6, seed=1), randn(6, seed=2)
    before = torch.random.get_rng_state()
    first = impl.paired_bootstrap(a, b, 50, seeded(7))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == impl.paired_bootstrap(a, b, 50, seeded(7)) != impl.paired_bootstrap(a, b, 50, seeded(8))
    one = impl.paired_bootstrap(a[:1], b[:1], 10, seeded(0))
    assert one[0] == one[1] == one[2] == (a[0] - b[0]).item()


@both
def test_unpaired_or_empty_inputs_are_refused(impl):
    for a, b, draws in [(3, 4, 10), (0, 0, 10), (3, 3, 0)]:
        with pytest.raises(ValueError):
            impl.paired_bootstrap(torch.ones(a), torch.ones(b), draws, seeded(0))


# ---- experiment_slug


@both
@pytest.mark.parametrize(
    "title, slug",
    [
        ("  GRPO vs. RLOO: G=8?", "grpo-vs-rloo-g-8"),
        ("DPO_beta=0.1 -- again!", "dpo-beta-0-1-again"),
        ("already-a-slug", "already-a-slug"),
        ("KL(π‖ref)\n& reward", "kl-ref-reward"),
        ("../../etc/passwd", "etc-passwd"),
        ("R1", "r1"),
    ],
)
def test_slug_keeps_words_and_joins_them_once(impl, title, slug):
    assert impl.experiment_slug("2026-11-05", title) == f"2026-11-05-{slug}"
    assert impl.experiment_slug(datetime.date(2026, 11, 5), title) == f"2026-11-05-{slug}"
    assert impl.experiment_slug(datetime.datetime(2026, 11, 5, 23, 59), title) == f"2026-11-05-{slug}"


@both
@pytest.mark.parametrize(
    "date, title", [("5 November", "x"), ("2026-13-01", "x"), ("2026-11-05", "?!"), ("2026-11-05", "")]
)
def test_a_name_that_cannot_be_made_is_refused(impl, date, title):
    with pytest.raises(ValueError):
        impl.experiment_slug(date, title)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_solution_and_reference_agree_on_random_and_extreme_inputs(scale):
    student, teacher = randn(3, 5, 7, seed=1, scale=scale), randn(3, 5, 7, seed=2, scale=scale)
    mask = randn(3, 5, seed=3) > 0
    for b in [0.0, 0.05, 0.5, 1.0]:
        mine, theirs = (
            value_and_grad(lambda s, impl=impl, b=b: impl.on_policy_distillation_loss(s, teacher, mask, b), student)
            for impl in (solution, reference)
        )
        assert_close(mine, theirs)
    kl, gold = randn(6, seed=4).abs() * scale, randn(6, seed=5)
    for kind in ["bon", "rl"]:
        assert solution.overoptimization_fit(kl, gold, kind) == reference.overoptimization_fit(kl, gold, kind)
    a, b = randn(8, seed=6, scale=scale), randn(8, seed=7, scale=scale)
    assert solution.paired_bootstrap(a, b, 99, seeded(4)) == reference.paired_bootstrap(a, b, 99, seeded(4))


def test_the_stubs_worked_numbers_are_right():
    fit = reference.overoptimization_fit(doubles(1, 4, 16), doubles(0.9, 1.6, 2.4), "bon")
    assert fit == pytest.approx((1.0, 0.1))
    student, teacher = doubles([[0, 0]]), doubles([[math.log(3), 0]])
    for b in [0.0, 0.5, 1.0]:
        loss = reference.on_policy_distillation_loss(student, teacher, torch.ones(1), b)
        assert f"{loss:.6f}" in stub.on_policy_distillation_loss.__doc__
    assert reference.paired_bootstrap(doubles(3, 5, 4), doubles(1, 3, 2), 10, seeded(0)) == (2.0, 2.0, 2.0)

"""Tests of budgets in parameters."""

from hypothesis import given
from hypothesis import strategies as st

from agent.module import UNBOUNDED, Budget, Context, decode_params
from agent.scan.budget import BudgetParams, budget_from_flags, portion

BUDGETS = st.builds(Budget, st.integers(0, 10_000), st.integers(0, 1 << 40), st.integers(0, 64))


@given(BUDGETS, st.integers(1, 3))
def test_two_portions_are_together_no_more_than_the_whole_and_a_bound_stays_a_bound(
    budget: Budget, quarters: int
) -> None:
    one, other = portion(budget, quarters), portion(budget, 4 - quarters)
    for whole, parts in ((budget[0], (one[0], other[0])), (budget[1], (one[1], other[1]))):
        assert all(parts) is bool(whole)
        # Of a bound of less than one for each part both have one.
        assert sum(parts) <= max(whole, 2)
    assert one.workers == other.workers == budget.workers


def test_parameters_lower_the_budget_of_the_endpoint_and_never_raise_it() -> None:
    asked = decode_params(BudgetParams, budget_from_flags({"cpu-percent": 80, "workers": 3}))
    assert asked.budget(Context(budget=Budget(50, 1000, 4))) == Budget(50, 1000, 3)
    assert asked.budget(Context()) == Budget(80, 0, 3)
    assert decode_params(BudgetParams, {}).budget(Context()) == UNBOUNDED

"""The budget of a scan in parameters: lower than the endpoint's own, for every module that scans."""

from typing import Annotated, Any, Dict

from msgspec import Meta

from agent.module import Budget, Context, Flag, ModuleParams


class BudgetParams(ModuleParams, frozen=True, kw_only=True):
    """What a scan may take from the endpoint."""

    cpu_percent: Annotated[
        int,
        Meta(
            description="percent of one processor that all processes of the scan may use together, lower than"
            " what the endpoint allows; 0 is that",
            ge=0,
            le=100_000,
        ),
    ] = 0
    read_bytes_per_s: Annotated[
        int,
        Meta(
            description="bytes that may be read of files in a second, lower than what the endpoint allows;"
            " 0 is that",
            ge=0,
            le=1 << 50,
        ),
    ] = 0
    workers: Annotated[
        int,
        Meta(
            description="processes beside the first, fewer than the endpoint would start; 0 is as many",
            ge=0,
            le=64,
        ),
    ] = 0

    def budget(self, context: Context) -> Budget:
        """Return what the endpoint and the parameters both allow."""
        return context.budget.lowered(Budget(self.cpu_percent, self.read_bytes_per_s, self.workers))


BUDGET_FLAGS = (
    Flag("cpu-percent", "use so many percent of one processor at most", type=int),
    Flag("read-bytes-per-s", "read so many bytes of files in a second at most", type=int),
    Flag("workers", "use so many processes beside the first at most", type=int),
)


def budget_from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Return the members of `BudgetParams` that the command line's flags give."""
    given = {name.replace("-", "_"): value for name, value in values.items()}
    return {name: given[name] for name in Budget._fields if given.get(name)}


def portion(budget: Budget, quarters: int) -> Budget:
    """Return so many quarters of what a budget bounds; the number of workers stays."""
    return Budget(
        max(1, budget.cpu_percent * quarters // 4) if budget.cpu_percent else 0,
        max(1, budget.read_bytes_per_s * quarters // 4) if budget.read_bytes_per_s else 0,
        budget.workers,
    )

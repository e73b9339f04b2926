"""The cases: which network, at which sizes. Every one is measured at its batch and at batch 1.

Cells and operators are this engine's, by name; `mgu` is the cell of mgu.rs beside this file. A cell that does not exist
yet is skipped, and measured from the day it does.
"""

from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class Case:
    """One layer of `cell` on `operator`, T steps, N rows, C channels, H units, ten classes after the last step."""

    cell: str
    steps: int
    rows: int
    hidden: int
    input: int
    operator: str = "dense"
    cell_settings: dict = field(default_factory=dict)
    operator_settings: dict = field(default_factory=dict)
    output: int = 10

    @property
    def name(self):
        cell = self.cell if self.operator == "dense" else f"{self.cell}-{self.operator}"
        cell = {"kru-kron": "kru"}.get(cell, cell)
        return f"{cell}_T{self.steps}_N{self.rows}_C{self.input}_H{self.hidden}"

    def request(self):
        """As the workers read it."""
        return asdict(self)


AFTER = {"reset": "after"}  # the gated recurrent unit of PyTorch

BATCHED = [
    Case("lstm", 784, 100, 128, 1),
    Case("lstm", 1000, 20, 128, 10),
    Case("lstm", 150, 128, 512, 50),
    Case("lstm", 333, 37, 97, 1),  # sizes that divide by nothing
    Case("gru", 784, 100, 128, 1, cell_settings=AFTER),
    Case("rnn", 784, 100, 128, 1),
    Case("kru", 784, 20, 512, 1, operator="kron"),
    Case("kru", 784, 100, 512, 1, operator="kron"),
    Case("kru", 1000, 20, 128, 10, operator="kron"),
    Case("irnn", 200, 128, 128, 2, cell_settings={"K": "5", "twice": "false"}),
    Case("gru", 784, 20, 128, 1, operator="lrd", operator_settings={"rank": "24"}),
    Case("nru", 784, 100, 200, 1, cell_settings={"memory": "256", "heads": "4"}),
    Case("mgu", 784, 100, 128, 1),
]

CASES = {case.name: case for case in BATCHED}
CASES |= {case.name: case for case in (replace(case, rows=1) for case in BATCHED)}

# Memory against the length of the sequence (`run --memory`).
LENGTHS = [100, 1000, 10_000, 100_000]
CELLS = [
    Case("rnn", 0, 16, 128, 1),
    Case("lstm", 0, 16, 128, 1),
    Case("gru", 0, 16, 128, 1, cell_settings=AFTER),
    Case("kru", 0, 16, 128, 1, operator="kron"),
    Case("lstm", 0, 16, 128, 1, operator="kron"),
    Case("irnn", 0, 16, 128, 1, cell_settings={"K": "5", "twice": "false"}),
    Case("gru", 0, 16, 128, 1, operator="lrd", operator_settings={"rank": "24"}),
    Case("nru", 0, 16, 64, 1, cell_settings={"memory": "64", "heads": "4"}),
]
MEMORY = {case.name: case for steps in LENGTHS for case in (replace(cell, steps=steps) for cell in CELLS)}

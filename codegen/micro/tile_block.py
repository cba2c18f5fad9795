"""A block of tile registers: accumulators that stay over a whole sum, and the operands that pass by.

Which register holds what is decided here once, for every instruction on tiles: accumulators first, then the factor that needs fewer
tiles, whole, then the other, which takes turns in the registers left.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.micro.instructions import TILES, DotInstruction


def fits(row_tiles: int, lane_tiles: int) -> bool:
    """Whether the registers hold so many accumulators with the operands of one step: one factor whole, one tile of the other."""
    return row_tiles * lane_tiles + min(row_tiles, lane_tiles) + 1 <= TILES.count


@dataclass(frozen=True)
class TileBlock:
    """Accumulators of ``row_tiles`` x ``lane_tiles`` tiles.

    Attributes:
        instruction: what multiplies.
        rows, lanes, steps: of one instruction, at most the instruction's own.
        row_tiles, lane_tiles: how many accumulators in each direction.
    """

    instruction: DotInstruction
    rows: int
    lanes: int
    steps: int
    row_tiles: int
    lane_tiles: int

    @staticmethod
    def of(d: DotInstruction, rows: int, lanes: int, steps: int) -> TileBlock | None:
        """The block for a result of so many rows and lanes; None when it is not made of equal tiles, or of too many."""
        r, n = min(rows, d.rows), min(lanes, d.lanes)
        if rows % r or lanes % n or steps > d.steps or not fits(rows // r, lanes // n):
            return None
        return TileBlock(d, r, n, steps, rows // r, lanes // n)

    @property
    def accumulators(self) -> int:
        """How many registers hold results: the first ones."""
        return self.row_tiles * self.lane_tiles

    def accumulator(self, row: int, lane: int) -> int:
        """The register of one tile of the result."""
        return row * self.lane_tiles + lane

    def products(self) -> list[tuple[int, int, int, int, bool, bool]]:
        """The products of one step in order, as (row tile, lane tile, register of each, whether each is to be loaded first).

        The factor with fewer tiles is loaded once; the other passes through the registers left, each tile used up before the next.
        """
        first = self.accumulators
        few = min(self.row_tiles, self.lane_tiles)
        turns = min(max(self.row_tiles, self.lane_tiles), TILES.count - first - few)
        out = []
        for many in range(max(self.row_tiles, self.lane_tiles)):
            for one in range(few):
                held, passing = first + one, first + few + many % turns
                if self.row_tiles <= self.lane_tiles:
                    out.append((one, many, held, passing, many == 0, one == 0))
                else:
                    out.append((many, one, passing, held, one == 0, many == 0))
        return out

    def configuration(self) -> bytes:
        """The 64 bytes that tell the processor the rows of each register, and the bytes of a row."""
        d = self.instruction
        row, lane = (self.rows, self.steps * d.terms * d.operand.itemsize), (self.steps, self.lanes * d.terms * d.operand.itemsize)
        shapes = [(self.rows, self.lanes * d.result.itemsize)] * self.accumulators + [(0, 0)] * (TILES.count - self.accumulators)
        for _, _, a, b, _, _ in self.products():
            shapes[a], shapes[b] = row, lane
        widths = b"".join(width.to_bytes(2, "little") for _, width in shapes)
        return bytes([1, *[0] * 15]) + widths + bytes(16) + bytes(rows for rows, _ in shapes) + bytes(8)

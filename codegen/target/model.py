"""What a target is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One kind of machine to compile for.

    Attributes:
        name: what users call it.
        kind: ``"cpu"``, ``"cuda"`` or ``"hip"``.
        arch: instruction set or GPU architecture.
        triple, cpu, features: what LLVM is told; features that must be present.
        modelled: sets of dot instructions that it does not have and that are used all the same, each spelled out in software: to see what
            a schedule for a machine that has them computes.
        vector_bits, vector_registers: the widest vectors and how many there are.
        caches: bytes of the first, second and (a core's share of the) third level; on a GPU shared memory a program may use, the
            registers of a processor, the second level.
        slow: operations on a vector that start further apart than half a cycle for each that they count as, and how many cycles apart.
        moves: cycles to load or store a vector in each level of cache, and in memory.
        threads: threads that a kernel is scheduled for; processors of a GPU.
        warp: threads of a GPU's warp.
        bandwidth: bytes a second to and from memory, as published; zero where it is measured instead.
        clock: cycles a second under load, as published (boost); zero where it does not matter.
        peak: published dense matrix (for f64 and f32: best) operations a second by dtype of the operands.
    """

    name: str
    kind: str
    arch: str
    triple: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    vector_bits: int = 0
    vector_registers: int = 0
    caches: tuple[int, ...] = (32 << 10, 1 << 20, 16 << 20)
    slow: tuple[tuple[str, float], ...] = (("div", 4.0), ("sqrt", 5.0), ("rsqrt", 5.0))
    moves: tuple[float, float, float, float] = (0.5, 1.0, 2.5, 5.0)
    threads: int = 2
    warp: int = 32
    bandwidth: float = 0.0
    clock: float = 0.0
    peak: tuple[tuple[str, float], ...] = ()
    modelled: tuple[str, ...] = ()

    @property
    def dot_sets(self) -> tuple[str, ...]:
        """The instruction sets whose dot instructions a schedule may use."""
        return (*self.features, *self.modelled)


def full_lanes(vector_bits: int, stored: int, computed: int) -> int:
    """Lanes that fill a register with the narrowest elements that are loaded or stored, in at most four of the widest that are computed.

    Args:
        vector_bits: of one register.
        stored: bits of the narrowest element in memory.
        computed: bits of the widest value. Elements of 64 bits take two registers, so that lanes are those of 32 bits beside them.
    """
    return min(vector_bits // min(32, stored), 4 * vector_bits // max(32, computed))

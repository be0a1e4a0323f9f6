"""The memory that a compiled program needs."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class ProgramMemory:
    """Bytes of a device's memory that a program needs.

    Attributes:
      arguments, outputs, temporaries, code: of a device; code is the program itself.
      aliased: outputs that reuse arguments.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """All of them; outputs that reuse arguments count once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def program_memory(compiled: jax.stages.Compiled) -> ProgramMemory:
    """As the compiler reports it."""
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this compiler does not report memory")
    return ProgramMemory(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
    )

"""Describes TPU generations and slices, in one table of what a chip has and is called.

Sources: [docs] the architecture pages of Cloud TPU's documentation (docs.cloud.google.com/tpu/docs,
pages v3, v4, v5e, v5p, v6e, tpu7x), which have chips per host and accelerator types too; its page
runtimes has the runtime versions, and says that tpu7x is GKE's alone. [GKE] the tables of
docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus: accelerator labels, machine types
and their memory. [v4 paper] Jouppi et al. 2023, Table 4, which has TPU v3 too. Clocks follow from
peak bf16 FLOP/s and the size and number of matrix units. Of GPUs there are only the peaks, for the
share of it that a run reaches.
"""

import dataclasses
import importlib.util
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from switch_jax.utils.errors import UserError, did_you_mean

GIB = 2**30
_DEVICES = Path("/dev")
_ACCELERATORS = ("accel[0-9]*", "vfio/[0-9]*", "nvidia*", "kfd", "dxg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """One generation of chips.

    Attributes:
      name: the first part of a slice's name, as 'v5p'.
      devices_per_chip: what JAX calls a device is a chip, or one of a chip's cores.
      counts_cores: whether the number in a slice's name counts TensorCores, two per chip, or chips.
      peak_flops: bfloat16 FLOP/s per chip.
      flops_per_cycle: of a device's matrix units.
      hbm_bytes, hbm_bandwidth: of a chip; bandwidth in bytes per second.
      link_bandwidth: bytes per second in one direction of one inter-chip link.
      dcn_bandwidth: bytes per second that a chip sends to other slices.
      shapes: chips along each dimension of the torus, of slices in common use.
      accelerator: what Google Cloud's accelerator type begins with, as in 'v5litepod-16'; None: the
        name.
      runtime: version of the software on a TPU VM; None: there are no TPU VMs.
      gke_accelerator: value of the node label cloud.google.com/gke-tpu-accelerator; None: not
        offered here on GKE.
      gke_machine: the machine type's beginning, before the number of chips, as in
        'ct5lp-hightpu-4t'.
      one_host: numbers of chips that a single host has; a larger slice has hosts of 4.
      host_memory: GiB of a host with as many chips as `one_host` says; empty: not known.
    """

    name: str
    devices_per_chip: int = 1
    counts_cores: bool = True
    peak_flops: float
    flops_per_cycle: int
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float
    shapes: tuple[tuple[int, ...], ...]
    accelerator: str | None = None
    runtime: str | None = None
    gke_accelerator: str | None = None
    gke_machine: str | None = None
    one_host: tuple[int, ...] = (4,)
    host_memory: tuple[int, ...] = ()

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak_flops / self.devices_per_chip / self.flops_per_cycle

    @property
    def torus_dimensions(self) -> int:
        """The number of dimensions of the torus; a chip has two links in each."""
        return len(self.shapes[0])

    def size(self, shape: tuple[int, ...]) -> int:
        """Returns the number in the name of a slice of this shape."""
        return math.prod(shape) * (2 if self.counts_cores else 1)


def _shapes(written: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, shape.split("x"))) for shape in written.split())


# Slices of 4 x 4 x 4 cubes and up close into a torus; below that [docs v4] they are meshes.
_CUBES = _shapes("2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16")
_SQUARES = _shapes("1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16")

_GENERATIONS = (
    # [v4 paper] 123 TFLOP/s, 900 GB/s, 4 links of 70 GB/s, 32 GiB; two devices a chip.
    Generation(
        name="v3", devices_per_chip=2, peak_flops=123e12, flops_per_cycle=2 * 128 * 128 * 2,
        hbm_bytes=32 * GIB, hbm_bandwidth=900e9, link_bandwidth=70e9, dcn_bandwidth=3.125e9,
        shapes=_shapes("2x2 4x4 8x8 8x16 16x16 16x32 32x32"), runtime="tpu-ubuntu2204-base",
    ),
    # [v4 paper] 275 TFLOP/s, 1200 GB/s, 6 links of 50 GB/s, 32 GiB.
    Generation(
        name="v4", peak_flops=275e12, flops_per_cycle=8 * 128 * 128 * 2,
        hbm_bytes=32 * GIB, hbm_bandwidth=1200e9, link_bandwidth=50e9, dcn_bandwidth=6.25e9,
        shapes=_CUBES, runtime="tpu-ubuntu2204-base",
        gke_accelerator="tpu-v4-podslice", gke_machine="ct4p-hightpu", host_memory=(407,),
    ),
    # [docs] 197 TFLOP/s, 819 GB/s, 400 GB/s of links in both directions, 4 links, 16 GiB;
    # 6.4 Tbit/s of network for 256 chips.
    Generation(
        name="v5e", counts_cores=False, peak_flops=197e12, flops_per_cycle=4 * 128 * 128 * 2,
        hbm_bytes=16 * GIB, hbm_bandwidth=819e9, link_bandwidth=50e9, dcn_bandwidth=3.125e9,
        shapes=_SQUARES, one_host=(1, 4, 8), accelerator="v5litepod", runtime="v2-alpha-tpuv5-lite",
        gke_accelerator="tpu-v5-lite-podslice", gke_machine="ct5lp-hightpu",
        host_memory=(48, 192, 384),
    ),
    # [docs] 459 TFLOP/s, 2765 GB/s, 1200 GB/s both ways over 6 links, 95 GiB; 50 Gbit/s.
    Generation(
        name="v5p", peak_flops=459e12, flops_per_cycle=8 * 128 * 128 * 2,
        hbm_bytes=95 * GIB, hbm_bandwidth=2765e9, link_bandwidth=100e9, dcn_bandwidth=6.25e9,
        shapes=_CUBES, runtime="v2-alpha-tpuv5",
        gke_accelerator="tpu-v5p-slice", gke_machine="ct5p-hightpu", host_memory=(448,),
    ),
    # [docs] 918 TFLOP/s, 1640 GB/s, 800 GB/s both ways over 4 links, 32 GiB; 100 Gbit/s.
    Generation(
        name="v6e", counts_cores=False, peak_flops=918e12, flops_per_cycle=4 * 256 * 256 * 2,
        hbm_bytes=32 * GIB, hbm_bandwidth=1640e9, link_bandwidth=100e9, dcn_bandwidth=12.5e9,
        shapes=_SQUARES, one_host=(1, 4, 8), runtime="v2-alpha-tpuv6e",
        gke_accelerator="tpu-v6e-slice", gke_machine="ct6e-standard",
        host_memory=(176, 720, 1440),
    ),
    # [docs] 2307 TFLOP/s, 7380 GB/s, 1200 GB/s both ways over 6 links, 192 GiB; 100 Gbit/s.
    Generation(
        name="tpu7x", devices_per_chip=2, peak_flops=2307e12, flops_per_cycle=4 * 256 * 256 * 2,
        hbm_bytes=192 * GIB, hbm_bandwidth=7380e9, link_bandwidth=100e9, dcn_bandwidth=12.5e9,
        shapes=_CUBES, gke_accelerator="tpu7x", gke_machine="tpu7x-standard", host_memory=(960,),
    ),
)  # fmt: skip
GENERATIONS = {generation.name: generation for generation in _GENERATIONS}

# The generations by JAX's `device_kind`.
_TPU_KINDS = {
    "TPU v3": "v3", "TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p",
    "TPU v5p": "v5p", "TPU v6 lite": "v6e", "TPU v6e": "v6e", "TPU7x": "tpu7x",
}  # fmt: skip

# bfloat16 FLOP/s without sparsity, from NVIDIA's data sheets of A100 SXM 80 GB, H100 SXM and H200
# SXM; by the part of `device_kind` that all forms of the GPU share.
_GPU_PEAKS = {"A100": 312e12, "H100 80GB HBM3": 989e12, "H200": 989e12}


def tpu_generation(kind: str) -> Generation | None:
    """Finds the generation of a device by its `device_kind`; None if it is no known TPU."""
    return GENERATIONS[_TPU_KINDS[kind]] if kind in _TPU_KINDS else None


def device_peak_flops(kind: str) -> float | None:
    """Finds the bfloat16 FLOP/s of a device by its `device_kind`; None if it is not known."""
    if generation := tpu_generation(kind):
        return generation.peak_flops / generation.devices_per_chip
    return next((peak for name, peak in _GPU_PEAKS.items() if name in kind), None)


def devices_per_chip(kind: str) -> int:
    """Finds how many JAX devices a chip is; 1 if the kind is not known."""
    generation = tpu_generation(kind)
    return generation.devices_per_chip if generation else 1


def has_accelerator() -> bool:
    """Says whether this machine has device files of TPUs, or of NVIDIA's or AMD's GPUs."""
    return any(match for pattern in _ACCELERATORS for match in _DEVICES.glob(pattern))


def has_cuda_plugin() -> bool:
    """Says whether JAX's plugin for NVIDIA's GPUs is installed; there may be no GPU."""
    return any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))


@dataclasses.dataclass(frozen=True)
class Slice:
    """One or several equal slices of chips, joined by the data-centre network.

    Attributes:
      name: as the user wrote it, for example 'v5p-256' or '2xv5e-256'.
      shape: chips along each dimension of one slice's torus.
      count: of slices.
    """

    name: str
    generation: Generation
    shape: tuple[int, ...]
    count: int = 1

    @property
    def chips(self) -> int:
        """The number of chips in all slices."""
        return math.prod(self.shape) * self.count

    @property
    def devices(self) -> int:
        """The number of JAX devices in all slices."""
        return self.chips * self.generation.devices_per_chip

    @property
    def topology(self) -> str:
        """The shape of one slice, as in '4x4'."""
        return _written(self.shape)

    @property
    def chips_per_host(self) -> int:
        chips = math.prod(self.shape)
        return chips if chips in self.generation.one_host else 4

    @property
    def hosts_per_slice(self) -> int:
        return math.prod(self.shape) // self.chips_per_host

    @property
    def hosts(self) -> int:
        """The number of hosts in all slices."""
        return self.hosts_per_slice * self.count

    @property
    def devices_per_host(self) -> int:
        """The number of JAX devices of a host."""
        return self.chips_per_host * self.generation.devices_per_chip

    @property
    def host_memory_bytes(self) -> int | None:
        """The memory of a host; None if it is not known."""
        by_chips = dict(zip(self.generation.one_host, self.generation.host_memory, strict=False))
        gibibytes = by_chips.get(self.chips_per_host)
        return None if gibibytes is None else gibibytes * GIB

    @property
    def accelerator_type(self) -> str:
        """What Cloud TPU calls one slice, as in 'v5litepod-16'."""
        generation = self.generation
        return f"{generation.accelerator or generation.name}-{generation.size(self.shape)}"

    @property
    def compiler_name(self) -> str:
        """The name that `jax.experimental.topologies` takes, for one slice."""
        return f"{self.generation.name}:{self.topology}"


def num_slices(devices: Iterable[Any]) -> int:
    """Counts the slices, or the machines with GPUs, that these JAX devices are in."""
    return len({slice_index(device) for device in devices})


def slice_index(device: Any) -> int:
    """Returns the index of a JAX device's slice; 0 if it has none."""
    return getattr(device, "slice_index", 0)


def slice_from_devices(devices: Iterable[Any]) -> Slice | None:
    """Finds the slices that these JAX devices make up; None if they are no known TPUs."""
    devices = list(devices)
    generation = tpu_generation(devices[0].device_kind)
    if generation is None:
        return None
    coordinates = [device.coords[: generation.torus_dimensions] for device in devices]
    shape = tuple(1 + max(along) - min(along) for along in zip(*coordinates, strict=True))
    return _named(generation, shape, num_slices(devices))


def parse_slice(name: str) -> Slice:
    """Reads a slice's name: 'v5p-256', '2xv5e-256', or 'v5p:4x4x8'; UserError if it is unknown."""
    number = "[1-9][0-9]{0,4}"
    form = re.fullmatch(
        rf"(?:({number})x)?(v[0-9][a-z]*|tpu7x)(?:-({number})|:({number}(?:x{number})+))", name
    )
    generation = GENERATIONS.get(form[2]) if form else None
    if form and generation:
        named = [s for s in generation.shapes if str(generation.size(s)) == form[3]]
        for shape in (*named, *_shapes(form[4] or "")):  # one at most
            if len(shape) == generation.torus_dimensions:
                return Slice(name, generation, shape, int(form[1] or 1))
    names = [_names(g) for g in ([generation] if generation else GENERATIONS.values())]
    listed = "; ".join(", ".join(sizes) for sizes in names)
    similar = did_you_mean(name, list(itertools.chain(*names)))
    raise UserError(
        f"no TPU topology {name!r}{similar}; known are {listed}; several slices as 2x{names[0][-1]}"
    )


def equal_slices(hardware: Slice) -> Iterator[Slice]:
    """Yields other slices with the same number of chips: of another shape, or fewer slices."""
    generation = hardware.generation
    for count in (n for n in range(1, hardware.count + 1) if hardware.chips % n == 0):
        chips = hardware.chips // count
        shapes = {shape for shape in generation.shapes if math.prod(shape) == chips}
        if generation.torus_dimensions == 3:  # [docs v4] slices of cubes of 4 x 4 x 4, a <= b <= c
            sides = [n for n in range(4, chips // 16 + 1, 4) if chips % n == 0]
            cubes = itertools.combinations_with_replacement(sides, 3)
            shapes |= {shape for shape in cubes if math.prod(shape) == chips}
        for shape in sorted(shapes - ({hardware.shape} if count == hardware.count else set())):
            yield _named(generation, shape, count)


def _named(generation: Generation, shape: tuple[int, ...], count: int) -> Slice:
    """Makes slices with their usual name: by the size, if the shape is a common one."""
    usual = shape in generation.shapes
    size = f"-{generation.size(shape)}" if usual else f":{_written(shape)}"
    name = f"{generation.name}{size}"
    return Slice(f"{count}x{name}" if count > 1 else name, generation, shape, count)


def _names(generation: Generation) -> list[str]:
    return [f"{generation.name}-{generation.size(shape)}" for shape in generation.shapes]


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

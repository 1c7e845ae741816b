"""The steps of a frontend: each is a frozen dataclass, and calling it IS its meaning.

A step takes one clip, time on the first axis, and gives the next array; it works in the dtype it is handed, which is float64
wherever a Frontend calls it. `length(n)` says how many entries along time are real after the step, when n were before it: the
lowered graph masks a batch with it. A step that is a matrix on the last axis says `linear`, so that runs of such steps can be
folded into one product.
"""

import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stapes.frontend import constants
from stapes.frontend.constants import MelScale

Array = NDArray[Any]


@runtime_checkable
class Step(Protocol):
    """What every step offers."""

    linear: ClassVar[bool]

    def __call__(self, x: Array) -> Array:
        """The step's value for one clip."""

    def length(self, n: int) -> int:
        """Real entries along time after the step, when `n` were before it."""


class _SameLength:
    linear: ClassVar[bool] = False

    def length(self, n: int) -> int:
        return n


BLOCK = 64
"""Outputs that the resampler makes at once, at least: fewer would be many small products, more repeat too many coefficients."""

LARGEST_KERNEL = 2**19
"""Coefficients of a block; 44100 to 16000 Hz, in blocks of 160, takes a fifth of that."""


@dataclass(frozen=True)
class Resample:
    """(n,) -> (n to_rate / from_rate rounded, half up): the clip at another rate, as many samples as soxr gives.

    A sinc under a Kaiser window, silence around the clip; see `constants.resampling_kernel`. For rates old : new in lowest terms it is
    computed in blocks of as many outputs as are a multiple of `new` and at least BLOCK.
    """

    from_rate: int
    to_rate: int
    linear: ClassVar[bool] = False

    @property
    def old(self) -> int:
        return self.from_rate // math.gcd(self.from_rate, self.to_rate)

    @property
    def new(self) -> int:
        return self.to_rate // math.gcd(self.from_rate, self.to_rate)

    @property
    def stride(self) -> int:
        """Samples from one block to the next."""
        return self.old * -(-BLOCK // self.new)

    @property
    def block(self) -> int:
        """Outputs of a block."""
        return self.new * -(-BLOCK // self.new)

    @property
    def width(self) -> int:
        """Samples that a block reads before its own, and behind them."""
        return constants.resampling_width(self.old, self.new)

    @cached_property
    def kernel(self) -> NDArray[np.float64]:
        """(2 width + stride, block); a ValueError for rates whose kernel would be beyond LARGEST_KERNEL."""
        size = (2 * self.width + self.stride) * self.block
        if size > LARGEST_KERNEL:
            raise ValueError(f"from {self.from_rate} to {self.to_rate} Hz, as {self.old} : {self.new}, takes {size} coefficients")
        return constants.resampling_kernel(self.stride, self.block)

    def __call__(self, x: Array) -> Array:
        kernel, outputs = self.kernel, self.length(len(x))
        blocks = max(1, -(-outputs // self.block))
        behind = (blocks - 1) * self.stride + len(kernel) - self.width - len(x)
        padded = np.pad(x, (self.width, behind))
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel))[:: self.stride][:blocks]
        return (windows @ kernel).reshape(-1)[:outputs]

    def length(self, n: int) -> int:
        return (2 * n * self.new + self.old) // (2 * self.old)

    def shortest(self, outputs: int) -> int:
        """The fewest samples, at least one, that become `outputs` or more."""
        return max(1, -(-self.old * (2 * outputs - 1) // (2 * self.new)))


@dataclass(frozen=True)
class ZeroMeanUnitVariance(_SameLength):
    """(n,) -> (n,): the clip's mean removed, divided by sqrt(variance + epsilon)."""

    epsilon: float

    def __call__(self, x: Array) -> Array:
        return np.asarray((x - x.mean()) / np.sqrt(x.var() + self.epsilon))


@dataclass(frozen=True)
class Frames:
    """(n,) -> (frames, size): windows every `hop` samples, only whole ones (Kaldi's snip-edges)."""

    size: int
    hop: int
    linear: ClassVar[bool] = False

    def __call__(self, x: Array) -> Array:
        return np.lib.stride_tricks.sliding_window_view(x, self.size)[:: self.hop]

    def length(self, n: int) -> int:
        return max(0, 1 + (n - self.size) // self.hop)


@dataclass(frozen=True)
class RemoveMean(_SameLength):
    """(frames, size) -> the same, each frame's mean removed.

    A matrix too, but not `linear`: folded into a DFT in float32 it costs 5e-4 where a small signal rides on a large offset.
    """

    def __call__(self, x: Array) -> Array:
        return np.asarray(x - x.mean(axis=-1, keepdims=True))


@dataclass(frozen=True)
class PreEmphasis(_SameLength):
    """y[i] = x[i] - coefficient x[i-1] within each frame; the first sample is its own predecessor (Kaldi)."""

    coefficient: float
    linear: ClassVar[bool] = True

    def __call__(self, x: Array) -> Array:
        before = np.concatenate([x[..., :1], x[..., :-1]], axis=-1)
        return x - self.coefficient * before


@dataclass(frozen=True)
class Hann(_SameLength):
    """Each frame times a Hann window of its size; see `constants.hann`."""

    periodic: bool = False
    linear: ClassVar[bool] = True

    def __call__(self, x: Array) -> Array:
        return x * constants.hann(x.shape[-1], self.periodic)


@dataclass(frozen=True)
class Povey(_SameLength):
    """Each frame times Kaldi's own window of its size."""

    linear: ClassVar[bool] = True

    def __call__(self, x: Array) -> Array:
        return x * constants.povey(x.shape[-1])


@dataclass(frozen=True)
class RealDft(_SameLength):
    """(frames, size) -> (frames, 2 * bins): real parts, then imaginary parts, of the DFT of `points`; bins = points // 2 + 1."""

    points: int
    linear: ClassVar[bool] = True

    def __call__(self, x: Array) -> Array:
        spectrum = np.fft.rfft(x, self.points)
        return np.concatenate([spectrum.real, spectrum.imag], axis=-1)


@dataclass(frozen=True)
class Power(_SameLength):
    """(frames, 2 * bins) -> (frames, bins): real part squared plus imaginary part squared."""

    def __call__(self, x: Array) -> Array:
        real, imaginary = np.split(x, 2, axis=-1)
        return np.asarray(real * real + imaginary * imaginary)


@dataclass(frozen=True)
class MelBank(_SameLength):
    """(frames, bins) -> (frames, mels): the energy under each triangular filter; see `constants.mel_bank`."""

    mels: int
    bins: int
    rate: int
    low_hz: float
    high_hz: float
    scale: MelScale
    linear: ClassVar[bool] = True

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        return constants.mel_bank(self.bins, self.mels, self.rate, self.low_hz, self.high_hz, self.scale)

    def __call__(self, x: Array) -> Array:
        return x @ self.matrix


@dataclass(frozen=True)
class Log(_SameLength):
    """log(max(x, floor)), natural or to base 10."""

    floor: float
    base: Literal["e", "10"] = "e"

    def __call__(self, x: Array) -> Array:
        x = np.maximum(x, self.floor)
        return np.log(x) if self.base == "e" else np.log10(x)


@dataclass(frozen=True)
class RangeBelowMax(_SameLength):
    """Everything lower than the clip's maximum minus `range` is raised to that."""

    range: float

    def __call__(self, x: Array) -> Array:
        return np.asarray(np.maximum(x, x.max() - self.range))


@dataclass(frozen=True)
class NormalizeBins(_SameLength):
    """(frames, bins) -> the same: each bin's mean over time removed, divided by sqrt(variance + epsilon), the variance by frames - 1."""

    epsilon: float

    def __call__(self, x: Array) -> Array:
        return np.asarray((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + self.epsilon))


@dataclass(frozen=True)
class Stack:
    """(frames, bins) -> (ceil(frames / count), count * bins): neighbours side by side, `value` where the last lack one.

    Such an incomplete last one does not count as real: the model masks it.
    """

    count: int
    value: float
    linear: ClassVar[bool] = False

    def __call__(self, x: Array) -> Array:
        padded = np.pad(x, ((0, -len(x) % self.count), (0, 0)), constant_values=self.value)
        return padded.reshape(-1, self.count * x.shape[1])

    def length(self, n: int) -> int:
        return n // self.count


@dataclass(frozen=True)
class Transpose(_SameLength):
    """(frames, bins) -> (bins, frames): the last step where a model reads time on its last axis."""

    def __call__(self, x: Array) -> Array:
        return x.T


@dataclass(frozen=True)
class Scale(_SameLength):
    """x times a constant."""

    factor: float

    def __call__(self, x: Array) -> Array:
        return x * self.factor


@dataclass(frozen=True)
class ReflectPad:
    """(n,) -> (n + 2 * size,): the samples next to each end again, mirrored at it."""

    size: int
    linear: ClassVar[bool] = False

    def __call__(self, x: Array) -> Array:
        return np.pad(x, self.size, mode="reflect")

    def length(self, n: int) -> int:
        return n + 2 * self.size


@dataclass(frozen=True)
class PadOrTrim:
    """The first `size` entries along time; where there are fewer, `value` after them."""

    size: int
    value: float = 0.0
    linear: ClassVar[bool] = False

    def __call__(self, x: Array) -> Array:
        x = x[: self.size]
        widths = [(0, self.size - len(x))] + [(0, 0)] * (x.ndim - 1)
        return np.pad(x, widths, constant_values=self.value)

    def length(self, n: int) -> int:
        return self.size  # what was added counts as real from here on: the model sees a clip of fixed length


@dataclass(frozen=True)
class Standardize(_SameLength):
    """(x - mean) / deviation, both constants."""

    mean: float
    deviation: float

    def __call__(self, x: Array) -> Array:
        return (x - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Matrix(_SameLength):
    """x @ matrix on the last axis: what a run of linear steps is after folding. Never serialized."""

    matrix: NDArray[np.float64]
    linear: ClassVar[bool] = True

    def __call__(self, x: Array) -> Array:
        return x @ self.matrix


STEPS: dict[str, type[Step]] = {
    step.__name__: step
    for step in (
        Frames,
        Hann,
        Log,
        MelBank,
        NormalizeBins,
        PadOrTrim,
        Povey,
        Power,
        PreEmphasis,
        RangeBelowMax,
        RealDft,
        ReflectPad,
        RemoveMean,
        Resample,
        Scale,
        Stack,
        Standardize,
        Transpose,
        ZeroMeanUnitVariance,
    )
}
"""Every step that a manifest may name."""


def fold(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps with each run of linear ones as one Matrix.

    The matrix is what the run gives for the identity, so no formula is written twice. A run starts behind Frames, whose size is the
    identity's; other runs follow a step that says its own width.
    """
    folded: list[Step] = []
    run: list[Step] = []
    width = 0

    def close() -> None:
        nonlocal width
        if run:
            matrix = reduce(lambda x, step: step(x), run, np.eye(width))
            folded.append(Matrix(matrix))
            width = matrix.shape[1]
            run.clear()

    for step in steps:
        if step.linear and width:
            run.append(step)
            continue
        close()
        folded.append(step)
        if isinstance(step, Frames):
            width = step.size
        elif isinstance(step, Power):
            width //= 2
    close()
    return tuple(folded)

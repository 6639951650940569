"""Mixtures of any length separated: in chunks that overlap, the speakers kept in order."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from etaflow.audio import Waveform
from etaflow.separation.network import Separator

# A longer chunk hears more of each speaker, and takes more memory; published SepFormers are
# trained on less. The overlap has to hold speech, by which the speakers are recognised.
MAX_SECONDS, OVERLAP_SECONDS = 20.0, 4.0


def plan_chunks(samples: int, longest: int, overlap: int, step: int) -> list[tuple[int, int]]:
    """First sample and end of the chunks of a mixture, of about one length.

    Args:
        samples: of the mixture.
        longest: samples of a chunk at most.
        overlap: samples that a chunk shares with the one before.
        step: all chunks begin at multiples of it.

    Raises:
        ValueError: chunks of this length and overlap do not get on by a step.
    """
    if samples <= longest:
        return [(0, samples)]
    hop = (longest - overlap) // step * step
    if overlap < 1 or hop < 1:
        raise ValueError(
            f"chunks of {longest} samples with {overlap} of overlap; there has to be an overlap, "
            f"and {step} samples or more besides it"
        )
    count = -(-(samples - overlap) // hop)
    hop = -(-(samples - overlap) // (count * step)) * step
    starts = range(0, samples - overlap, hop)
    return [(start, min(samples, start + hop + overlap)) for start in starts]


def stream(
    network: Separator,
    mixture: Waveform,
    max_seconds: float = MAX_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> Iterator[Waveform]:
    """The speakers of a mixture, block by block: (S, t) float32 each, at no particular level.

    A chunk's speakers are put into the order of the chunk before in which the two differ least
    over the overlap, and faded in there. Nothing tells who is who where all are silent throughout
    an overlap.

    Args:
        network: in evaluation mode, on its device.
        mixture: (T,) at the network's rate; may lie in a file.
        max_seconds: of a chunk, at most; less where the network takes less.
        overlap_seconds: of a chunk with the one before.

    Raises:
        ValueError: the mixture, a chunk or an overlap is too short for the network, or what comes
            out is not finite.
    """
    network.check_length(min(len(mixture), network.longest or len(mixture)))
    longest = round(max_seconds * network.sample_rate)
    overlap = round(overlap_seconds * network.sample_rate)
    if network.longest is not None:
        longest = min(longest, network.longest)
    chunks = plan_chunks(len(mixture), longest, overlap, network.step)
    if len(chunks) > 1:
        network.check_length(overlap)  # the last chunk may have little more
    fade = np.sin(np.linspace(0, np.pi / 2, overlap, dtype=np.float32)) ** 2
    before: Waveform | None = None
    for index, (start, end) in enumerate(chunks):
        sources = _separate_chunk(network, mixture[start:end])
        if before is not None:
            sources = sources[_order(before, sources[:, :overlap])]
            sources[:, :overlap] = before + (sources[:, :overlap] - before) * fade
        size = chunks[index + 1][0] - start if index + 1 < len(chunks) else end - start
        before = sources[:, size:]
        yield sources[:, :size]


def separate(
    network: Separator,
    mixture: Waveform,
    max_seconds: float = MAX_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> Waveform:
    """The speakers (S, T) of a mixture (T,); what the network itself gives, if one chunk holds it.

    Args and errors as for `stream`.
    """
    return np.concatenate(list(stream(network, mixture, max_seconds, overlap_seconds)), axis=1)


@torch.inference_mode()
def separate_batch(network: Separator, mixtures: Waveform) -> Waveform:
    """The speakers (B, S, T) of mixtures (B, T) of one length, float32, by the network as it is.

    Args:
        network: in evaluation mode, on its device.
        mixtures: at the network's rate.
    """
    inputs = torch.from_numpy(np.array(mixtures, np.float32))
    inputs = inputs.to(next(network.parameters()).device)
    # Convolutions in TF32, PyTorch's default on a GPU, would be off by 1e-3.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        sources: Waveform = network(inputs).float().cpu().numpy()
    return sources


def _separate_chunk(network: Separator, mixture: Waveform) -> Waveform:
    sources: Waveform = separate_batch(network, mixture[None])[0]
    if not np.isfinite(sources).all():
        raise ValueError("the separated speakers are not finite: NaN or infinite samples")
    return sources


def _order(before: Waveform, after: Waveform) -> list[int]:
    """For each source of `before` (S, t), the one of `after` (S, t) that continues it.

    The assignment with the greatest sum of inner products, which is the one with the least squared
    difference. Coefficients of correlation would weigh what leaks into a silent source as much as
    the speaker it leaks from.
    """
    _, order = linear_sum_assignment(before.astype(float) @ after.astype(float).T, maximize=True)
    return list(order)

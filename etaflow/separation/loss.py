"""The loss of separators: SI-SNR by the best permutation, in dB, negated."""

import torch
from torch.nn.functional import cosine_similarity
from torchmetrics.functional.audio import permutation_invariant_training

ENOUGH = 30.0  # dB; what is separated better has nothing more to learn from
_FLOOR = 1e-8  # of both shares of an estimate's energy, which keeps the ratio within 80 dB


def si_snr(estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-noise ratio in dB (...) of signals (..., T), made zero-mean.

    With c the cosine between estimate and reference, the reference holds c^2 of the estimate's
    energy, so that the ratio is c^2 / (1 - c^2) (Luo and Mesgarani, "TasNet", ICASSP 2018). That is
    torchmetrics' ratio, but of quiet estimates, to whose energies torchmetrics adds a constant: a
    silent one would get 0 dB there. It gets -80 dB here, and no gradient.
    """
    estimates = estimates - estimates.mean(dim=-1, keepdim=True)
    references = references - references.mean(dim=-1, keepdim=True)
    share = cosine_similarity(estimates, references, dim=-1).square()
    return 10 * torch.log10((share + _FLOOR) / (1 - share).clamp_min(_FLOOR))


def pit_si_snr(
    estimates: torch.Tensor, references: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean SI-SNR over the sources, by the permutation of all sources for which it is best.

    All S! permutations are tried, on the device of the signals. (Yu et al., "Permutation invariant
    training", ICASSP 2017; one permutation for a whole mixture as of Kolbaek et al., 2017.)

    Args:
        estimates: (B, S, T) in any order.
        references: (B, S, T), none of them silent.

    Returns:
        Values (B,) in dB; and permutations (B, S): `estimates[b, permutations[b]]` are in order of
        the references.
    """
    values, permutations = permutation_invariant_training(
        estimates, references, si_snr, mode="permutation-wise"
    )
    return values, permutations


def pit_loss(estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """The negated `pit_si_snr` (B,) of each mixture, in dB, and at least -`ENOUGH`.

    At -30 dB a mixture has no gradient any more, so that what is all but separated does not
    outweigh the rest, as in SpeechBrain's recipe of SepFormer (`threshold: -30`; Wavesplit,
    arXiv:2002.08933, clips its loss, too). There such mixtures leave the batch: the mean is that of
    the others, and a batch of none but such is skipped. Here they count as -30 dB, so that a
    mixture's part in the gradient does not depend on its company.
    """
    values, _ = pit_si_snr(estimates, references)
    return -values.clamp(max=ENOUGH)

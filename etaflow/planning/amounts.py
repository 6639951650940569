"""What a job is made of, and what it writes."""

from collections.abc import Callable

from etaflow.planning import conversion_stages, pretraining_stages, speaker_stages
from etaflow.planning.jobs import Job
from etaflow.planning.study import Amount, Study

Counter = Callable[[Study, dict[str, str]], Amount]


def amount_of(job: Job, study: Study) -> Amount:
    """What a job is made of; one of a rule that nothing is said about counts as one job."""
    for stages in (conversion_stages, pretraining_stages, speaker_stages):
        count: Counter | None = getattr(stages, job.rule, None)
        if count is not None:
            return count(study, dict(job.wildcards))
    return Amount(1)

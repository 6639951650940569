"""What runs again after each change of the contract, and what does not."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from etaflow.separation.networks import load_separator
from etaflow.serve.bundle import ServedBundle
from etaflow.verification.verifier import Verifier
from tests.contract.consequences import EVERYTHING
from tests.contract.page import PAGE, page
from tests.contract.plans import Jobs, plan, run_really
from tests.contract.rows import ROWS, Row
from tests.contract.tiny import contract_config, prepare
from tests.workflow_tools import ROOT, planned_jobs, snakemake

CASES = {
    f"{row.name}-{number}": (row, change)
    for row in ROWS
    for number, change in enumerate(row.changes)
}
ALL = {rule: sorted(jobs.split()) for rule, jobs in EVERYTHING.items()}


def test_the_page_is_what_the_rows_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it: python -m tests.contract"


def test_no_two_rows_are_of_the_same_name() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_profile_is_in_the_contract() -> None:
    (row,) = [row for row in ROWS if row.what == "the profile"]
    given = {Path(change.arguments[-1]).name for change in row.changes}
    assert given == {path.parent.name for path in (ROOT / "profiles").glob("*/profile*.yaml")}
    assert {"default", "workstation"} <= given


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which everything has run."""
    folder = tmp_path_factory.mktemp("contract") / "run"
    prepare(folder)
    assert planned_jobs(folder, contract_config(), root=folder) == ALL
    snakemake(folder, contract_config(), root=folder)
    return folder


@pytest.fixture(scope="module")
def plans(
    run: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Jobs]]]:
    """The plans of the cases that are tested, of which two are made at a time."""
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(plan, change, run, tmp_path_factory.mktemp("row"))
            for name, (_, change) in CASES.items()
            if name in chosen
        }


@pytest.mark.slow
def test_a_completed_run_has_nothing_to_do(run: Path) -> None:
    assert planned_jobs(run, contract_config(), root=run) == {}


@pytest.mark.slow
def test_the_bundle_of_the_run_is_all_that_a_server_needs(run: Path) -> None:
    served = ServedBundle.read(str(run / "results/tiny/bundle"))
    assert served.weights == {
        "convert": "untrained",
        "analyze": "untrained",
        "verify": "published",
        "separate": "trained",
    }
    assert set(served.metrics["conversion"]["system"]) == {"original", "knnvc", "knnvc-eta"}
    assert set(served.metrics["verification"]["trials"]) == {"test"}
    assert set(served.metrics["separation"]["system"]) == {"mixture", "sepformer"}
    assert "`calibrated` says whether two recordings are of one speaker" in served.card
    assert "`sepformer` takes recordings of 2 speakers at once apart" in served.card
    assert Verifier.from_pretrained(served.folder).name == "calibrated"
    info, separator = load_separator(served.folder / "separator")
    assert (info.name, separator.num_speakers, separator.sample_rate) == ("sepformer", 2, 8_000)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_runs_again(plans: dict[str, Future[Jobs]], case: str) -> None:
    row, _ = CASES[case]
    assert plans[case].result() == row.jobs()


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.really], ids=lambda row: row.name)
def test_what_is_planned_is_what_runs_and_then_nothing(run: Path, tmp_path: Path, row: Row) -> None:
    before, done, left = run_really(row.changes[0], row.really, run, tmp_path)
    assert before
    assert before == {rule: jobs for rule, jobs in row.jobs().items() if rule in before}
    assert (done, left) == (before, {})

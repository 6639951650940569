"""Pages that stand in the report: HTML that needs no other file."""

from etaflow.pages.conversion import listening_page, metrics_page
from etaflow.pages.probe import probe_page
from etaflow.pages.verification import verification_page

__all__ = ["listening_page", "metrics_page", "probe_page", "verification_page"]

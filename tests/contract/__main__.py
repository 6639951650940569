"""Write docs/reruns.md from the rows of the contract."""

from tests.contract.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")

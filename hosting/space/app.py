"""A Hugging Face Space of a bundle: what `etaflow serve` serves, for everybody.

Variables of the Space:
    ETAFLOW_BUNDLE: the bundle, OWNER/NAME on the Hub, or a folder of the Space.
    ETAFLOW_API_KEYS: a secret; with it, only who has one of these keys may use the Space.
"""

import os
import sys

from etaflow.serve.server import keys_of_environment, serve
from etaflow.serve.settings import Settings


def main() -> None:
    """Serve until the Space ends."""
    bundle = os.environ.get("ETAFLOW_BUNDLE")
    if not bundle:
        sys.exit("set the Space's variable ETAFLOW_BUNDLE to the bundle: OWNER/NAME on the Hub")
    keys = keys_of_environment()
    # The address that a Space is asked at; these variables are Gradio's, in Spaces of its SDK too.
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    try:
        serve(bundle, host, port, Settings(public=not keys), keys=keys)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


# Workers are started as processes that import this file.
if __name__ == "__main__":
    main()

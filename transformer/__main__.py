"""`python -m transformer`: the same as the command `transformer`."""

import sys

from transformer.cli import main

sys.exit(main())

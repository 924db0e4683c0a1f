"""Print the catalogue's page: `python -m graphs.operators > docs/operators.md`."""

import sys

from graphs.operators.document import document

sys.stdout.write(document())

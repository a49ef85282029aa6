from __future__ import annotations

from hypothesis import settings

# A busy machine is slow at times: that is no failure.
settings.register_profile("unit", deadline=None, max_examples=25)
settings.load_profile("unit")

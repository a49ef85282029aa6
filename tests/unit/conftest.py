from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is slow at times: that is no failure.
_fixtures = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile(
    "unit", deadline=None, max_examples=25, derandomize=True, suppress_health_check=_fixtures
)
#: `make fuzz`: other examples at every run, and many.
settings.register_profile("fuzz", deadline=None, max_examples=1000, suppress_health_check=_fixtures)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))

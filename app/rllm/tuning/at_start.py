"""Tuning at the server's start, before anything is served."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from rllm.settings.operation import Start
from rllm.startup.preflight import Checked
from rllm.startup.profiles import Profile, ProfileStore, apply
from rllm.tuning.session import Busy, is_tuned, tune_and_keep


def tune(
    start: Start, models: Sequence[Checked], profiles: ProfileStore, logger: FilteringBoundLogger
) -> None:
    """Measure each model for which nothing is known yet, and keep what was found in its profile."""
    if start.tune == "off":
        return
    for checked in models:
        profile, model = profiles.load(checked.model.gguf), checked.model
        if is_tuned(profile, start.tune_for, start.tune):
            continue
        safe = Profile(model="", machine={}, fallback=profile.fallback if profile else None)
        options = apply(safe, checked.options).options
        try:
            found = tune_and_keep(profiles, model.gguf, options, start.tune_for, start.tune)
        except (Busy, OSError) as error:
            logger.warning("not tuned", model=model.id, reason=str(error))
            continue
        if found.tuned is None or not found.tuned.rounds:
            logger.info("not tuned", model=model.id, reason=found.outcome.note)
        else:
            logger.info(
                "tuned", model=model.id, options=found.tuned.options, seconds=round(found.outcome.seconds, 1)
            )

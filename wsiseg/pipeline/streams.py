"""How many batches at once a CPU session may work on, when each takes much memory: flips make one tile into 4 or 8.

A session's memory cannot be planned from sizes: the runtime decides what it keeps of a network's activations. So for a
model with flips one stream is opened first and measured, and the rest follows from the budget.
"""

from __future__ import annotations

import dataclasses

from wsiseg.backends import registry
from wsiseg.backends.base import Session, SessionOptions
from wsiseg.memory import Share
from wsiseg.model.load import LoadedModel
from wsiseg.pipeline.processor import LEAST_FREE, reserve_of
from wsiseg.resident import resident_bytes, trim


def open_fitting(model: LoadedModel, options: SessionOptions, backend: str, share: Share) -> Session:
    """A session with as many streams as the budget has room for, at least one.

    Raises:
        as `wsiseg.backends.registry.open_session`. Whether one stream fits is left to the plan, which knows what to say.
    """
    if backend != "openvino" or model.copies == 1 or options.threads == 1:
        return registry.open_session(model, options, backend)
    trim()
    before = resident_bytes()
    narrow = dataclasses.replace(options, streams=1, slots=2)
    session = registry.open_session(model, narrow, backend)
    trim()
    # The weights are counted with every stream, so this errs on the safe side.
    each = max(1, resident_bytes() - before)
    fit = (share.bytes - reserve_of(share) - LEAST_FREE - before) // each
    if fit < 2:
        return session
    session.close()
    del session
    trim()
    return registry.open_session(
        model, dataclasses.replace(options, streams=min(options.threads, fit)), backend
    )

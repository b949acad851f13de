"""The one tree of errors; `tunesmith.rpc.errors` maps each branch to a gRPC status.

    TunesmithError
    ├── InvalidInput            the caller sent something that can never work
    │   ├── UnknownRecipe       no recipe of that name
    │   ├── SourceUnusable      the source's content is not what was promised (HTML for CSV, not UTF-8, ...)
    │   └── BaseModelUnavailable  the base model cannot be loaded
    ├── NotFound                a named thing does not exist
    ├── AlreadyExists           create-if-absent lost
    ├── Conflict                a compare-and-swap lost, or a parallel operation is in the way
    ├── FailedPrecondition      right request, wrong moment (a gate did not pass, no champion yet)
    │   ├── NoUsableRows        curation dropped everything
    │   └── RecipeFailed        a plug-in recipe cannot be loaded, raised, or gave something of the wrong type
    ├── PermissionRefused       policy forbids it (robots.txt, private address, licence, file root)
    ├── ResourceExhausted       a limit was hit (disk full, body too large)
    ├── Unavailable             a dependency does not answer now; trying again may help
    ├── DeadlineExceeded        the time allowed has passed
    ├── DataLoss                stored bytes are corrupt
    ├── Unsupported             a feature that this build does not have
    ├── InvalidSettings         a setting is wrong; stops the start
    └── Interrupted             the work was asked to stop and can be resumed
        └── MemoryRanOut        as that, but with smaller batches

A message names the value, the limit and the fix. `reason` is a stable UPPER_SNAKE word for programs; `metadata`
carries the value and the limit as strings.
"""

from __future__ import annotations

from collections.abc import Mapping


class TunesmithError(Exception):
    """Base of every error that is meant for a caller."""

    reason = "TUNESMITH_ERROR"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidInput(TunesmithError):
    """The caller sent something that can never work; changing the request is the fix."""

    reason = "INVALID_INPUT"


class UnknownRecipe(InvalidInput):
    """No recipe has that name."""

    reason = "UNKNOWN_RECIPE"


class SourceUnusable(InvalidInput):
    """The source's content is not what was promised."""

    reason = "SOURCE_UNUSABLE"


class BaseModelUnavailable(InvalidInput):
    """The base model cannot be loaded."""

    reason = "BASE_MODEL_UNAVAILABLE"


class NotFound(TunesmithError):
    """A named thing does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(TunesmithError):
    """Create-if-absent lost: something is stored under that name."""

    reason = "ALREADY_EXISTS"


class Conflict(TunesmithError):
    """A compare-and-swap lost, or a parallel operation is in the way; read again and retry."""

    reason = "CONFLICT"


class FailedPrecondition(TunesmithError):
    """The request is right but the system's state does not allow it."""

    reason = "FAILED_PRECONDITION"


class NoUsableRows(FailedPrecondition):
    """Curation dropped every record; `metadata` holds the counts by reason."""

    reason = "NO_USABLE_ROWS"


class RecipeFailed(FailedPrecondition):
    """A plug-in recipe cannot be loaded, raised, or gave something of the wrong type; its author can correct it."""

    reason = "RECIPE_FAILED"


class PermissionRefused(TunesmithError):
    """A policy forbids it: robots.txt, a private address, a licence, a path outside the allowed roots."""

    reason = "PERMISSION_REFUSED"


class ResourceExhausted(TunesmithError):
    """A limit was hit: disk full, body too large, too many requests."""

    reason = "RESOURCE_EXHAUSTED"


class Unavailable(TunesmithError):
    """A dependency does not answer now; the same call may succeed later."""

    reason = "UNAVAILABLE"


class StoreUnavailable(Unavailable):
    """The store does not answer, or did not say whether it wrote; work that met this begins again by itself."""

    reason = "STORE_UNAVAILABLE"


class DeadlineExceeded(TunesmithError):
    """The time allowed has passed."""

    reason = "DEADLINE_EXCEEDED"


class DataLoss(TunesmithError):
    """Stored bytes are corrupt: they do not parse, or their hash is not the one recorded."""

    reason = "DATA_LOSS"


class Unsupported(TunesmithError):
    """A feature that this build does not have."""

    reason = "UNSUPPORTED"


class InvalidSettings(TunesmithError):
    """A setting is wrong; the message names the setting, the value and the fix."""

    reason = "INVALID_SETTINGS"


class Interrupted(TunesmithError):
    """The work was asked to stop; what it saved lets the next attempt continue."""

    reason = "INTERRUPTED"


class MemoryRanOut(Interrupted):
    """The work wanted more memory than there is, where only another attempt can do with less."""

    reason = "OUT_OF_MEMORY"

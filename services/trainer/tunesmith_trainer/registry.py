"""The registry: model versions, their reports, and the champion alias, over the store alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal
from uuid import uuid4

from tunesmith.catalogue import list_objects, read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from tunesmith.domain.ids import canonical_json, check_name
from tunesmith.domain.models import AliasChange, Champion, ModelVersion, Report
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store

MAX_HISTORY = 100
"""Moves of the champion alias that are kept."""

CHAMPION_MOVED = "CHAMPION_MOVED"
"""Reason of the Conflict when the champion is not the expected one."""

MAX_ATTEMPTS = 20
"""Compare-and-swaps tried before giving up: each lost one means that another writer went ahead."""


def create_version(store: Store, version: ModelVersion) -> tuple[ModelVersion, bool]:
    """Store a model version and tell whether it is new; the same one again is a no-op that gives back the stored one.

    AlreadyExists when another version has its id; times of creation may differ.
    """
    check_name(version.id, what="model version")
    key = keys.model_version(version.recipe, version.id)
    try:
        store.create(key, canonical_json(version.to_json()))
    except AlreadyExists:
        stored = get_version(store, version.recipe, version.id)
        if replace(stored, created_at=version.created_at) != version:
            raise AlreadyExists(
                f"model version {version.id} of {version.recipe} exists with other content; versions are immutable, "
                "so give the new one an id of its own",
                metadata={"key": key},
            ) from None
        return stored, False
    return version, True


def get_version(store: Store, recipe: str, version: str) -> ModelVersion:
    """The model version; NotFound when there is none, DataLoss when its object is corrupt."""
    check_name(version, what="model version")
    key = keys.model_version(recipe, version)
    found = read_object(store, key, ModelVersion.from_json, what=f"model version {version!r} of {recipe}")
    if (found.recipe, found.id) != (recipe, version):
        raise _corrupt(key, f"it holds version {found.id!r} of {found.recipe!r}")
    return found


def list_versions(store: Store, recipe: str) -> list[ModelVersion]:
    """A recipe's model versions, newest first; corrupt ones are logged and left out."""
    prefix = keys.model_version(recipe, "").removesuffix(".json")
    found = list_objects(store, prefix, ModelVersion.from_json, what="model version")
    return sorted(found, key=lambda version: version.created_at, reverse=True)


def create_report(store: Store, report: Report) -> tuple[Report, bool]:
    """Store a report and tell whether it is new; a second report of its id gives way to the first.

    Reports are immutable, and their ids follow from what was asked: see `evaluation.judge.report_id`.
    """
    check_name(report.id, what="report")
    try:
        store.create(keys.report(report.recipe, report.id), canonical_json(report.to_json()))
    except AlreadyExists:
        return get_report(store, report.recipe, report.id), False
    return report, True


def get_report(store: Store, recipe: str, report_id: str) -> Report:
    """The report; NotFound when there is none, DataLoss when its object is corrupt."""
    check_name(report_id, what="report")
    key = keys.report(recipe, report_id)
    found = read_object(store, key, Report.from_json, what=f"report {report_id!r} of {recipe}")
    if (found.recipe, found.id) != (recipe, report_id):
        raise _corrupt(key, f"it holds report {found.id!r} of {found.recipe!r}")
    return found


def list_reports(store: Store, recipe: str) -> list[Report]:
    """A recipe's reports, newest first; corrupt ones are logged and left out."""
    prefix = keys.report(recipe, "").removesuffix(".json")
    found = list_objects(store, prefix, Report.from_json, what="report")
    return sorted(found, key=lambda report: report.created_at, reverse=True)


def register(store: Store, version: ModelVersion, report: Report) -> tuple[ModelVersion, Report]:
    """Store a report and then the model version it judges; gives back what is stored. Idempotent.

    When an earlier attempt died after its report, that report decides whether the version passed: a second judgement
    on another machine may round to another verdict.
    """
    stored_report, _ = create_report(store, report)
    stored_version, _ = create_version(store, replace(version, passed=stored_report.passed))
    return stored_version, stored_report


def champion(store: Store, recipe: str) -> Champion | None:
    """The champion alias, or None while nothing was promoted; DataLoss when its object is corrupt."""
    return _alias(store, recipe)[0]


def chosen_version(store: Store, recipe: str, version: str) -> str:
    """The id of the version that was asked for; the champion's where none is named, FailedPrecondition without one."""
    if version:
        return check_name(version, what="version")
    current = champion(store, recipe)
    if current is None:
        raise FailedPrecondition(
            f"recipe {recipe!r} has no champion yet; name a version (`tunesmith models {recipe}`), or make one with "
            f"`tunesmith run {recipe}`",
            reason="NO_CHAMPION",
            metadata={"recipe": recipe},
        )
    return current.version


def promote(
    store: Store,
    clock: Clock,
    recipe: str,
    version: str,
    *,
    cause: str,
    expected: str | None,
    served_as_judged: Callable[[ModelVersion, Report], object],
) -> tuple[Champion, bool]:
    """Make `version` the champion and tell whether the alias moved; no-op when it is the champion already.

    `expected` is the champion that the caller judged against ("" for none): Conflict when it is another by now. None
    moves the alias from whatever it is. `cause` names the job or request. `served_as_judged` is asked just before the
    alias moves and raises to refuse (`parity.ParityGate.require`).

    FailedPrecondition, listing the failed gates, when the version's report did not pass, is missing or is not about
    this version. NotFound, DataLoss as in `get_version`. After Unavailable the move may or may not have happened:
    call again.
    """
    check_name(version, what="model version")

    def move(current: Champion | None) -> str | None:
        name = current.version if current else ""
        if name == version:
            return None
        if expected is not None and name != expected:
            raise _moved(recipe, name, expected)
        return version

    if move(champion(store, recipe)) is not None:
        found = get_version(store, recipe, version)
        served_as_judged(found, _check_servable(store, found))
    return _move_alias(store, clock, recipe, move, action="promote", cause=cause)


def rollback(store: Store, clock: Clock, recipe: str, *, cause: str, expected: str | None = None) -> Champion:
    """Make the champion before the current one champion again, and give back the alias.

    Versions that were rolled back from are not gone back to, and those that may not be served are passed over:
    repeated rollbacks walk back in time. Nobody is asked whether they are served as judged, as they were once: a
    rollback has to work when serving is what is broken. `expected` (the current champion, when the caller gives none)
    guards against rolling back twice: Conflict when the champion is another. FailedPrecondition when there is nothing
    to go back to.
    """
    current = champion(store, recipe)
    if current is None:
        raise FailedPrecondition(
            f"{recipe} has no champion to roll back; promote a version first", reason="NO_CHAMPION"
        )
    start = current.version if expected is None else expected
    if current.version != start:
        raise _moved(recipe, current.version, start)
    target = _previous(store, current)

    def move(now: Champion | None) -> str:
        name = now.version if now else ""
        if name != start:
            raise _moved(recipe, name, start)
        return target

    moved, _ = _move_alias(store, clock, recipe, move, action="rollback", cause=cause)
    return moved


def _move_alias(
    store: Store,
    clock: Clock,
    recipe: str,
    move: Callable[[Champion | None], str | None],
    *,
    action: Literal["promote", "rollback"],
    cause: str,
) -> tuple[Champion, bool]:
    """Compare-and-swap the alias to the version that `move` names for the current one, until nobody went ahead.

    `move` gives None when there is nothing to do, and raises to refuse.

    A refused or unanswered write may still have been applied: object stores' clients retry writes by themselves, and
    the second try finds the first one's result. So the alias is read again, and this call's nonce in it is success.
    """
    writer = uuid4().hex
    written: AliasChange | None = None
    for _ in range(MAX_ATTEMPTS):
        current, etag = _alias(store, recipe)
        if current is not None and _is_applied(written, writer, current):
            return current, True
        target = move(current)
        if target is None:
            assert current is not None
            return current, False
        written = AliasChange(target, action, rfc3339(clock.now()), cause)
        moved = Champion(
            recipe=recipe,
            version=target,
            rev=current.rev + 1 if current else 1,
            writer=writer,
            history=(*(current.history if current else ()), written)[-MAX_HISTORY:],
        )
        try:
            _write_alias(store, moved, etag)
        except (AlreadyExists, Conflict, NotFound):
            continue
        except (Unavailable, DeadlineExceeded):
            current, _etag = _alias(store, recipe)
            if current is not None and _is_applied(written, writer, current):
                return current, True
            raise
        return moved, True
    raise Conflict(
        f"the champion of {recipe} was moved by others {MAX_ATTEMPTS} times in a row; try again",
        metadata={"recipe": recipe},
    )


def _write_alias(store: Store, moved: Champion, etag: str) -> None:
    key, data = keys.champion(moved.recipe), canonical_json(moved.to_json())
    if etag:
        store.replace(key, data, version=etag)
    else:
        store.create(key, data)


def _is_applied(written: AliasChange | None, writer: str, current: Champion) -> bool:
    """Whether the alias shows this call's write: as the last one, or in the history under a later move."""
    if written is None:
        return False
    return current.writer == writer or (current.version != written.version and written in current.history)


def _alias(store: Store, recipe: str) -> tuple[Champion | None, str]:
    """The alias and its object's version; None and "" when there is none."""
    key = keys.champion(recipe)
    try:
        stored = store.get(key)
    except NotFound:
        return None, ""
    try:
        found = Champion.from_json(json.loads(stored.data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(key, f"{type(error).__name__}: {error}") from error
    if found.recipe != recipe or not found.version or type(found.rev) is not int or found.rev < 1:
        raise _corrupt(key, f"it holds revision {found.rev!r} of the champion of {found.recipe!r}: {found.version!r}")
    return found, stored.version


def _previous(store: Store, current: Champion) -> str:
    """The version that the current champion took over from, past those that may not be served."""
    line: list[str] = []
    for change in current.history:
        if change.action == "rollback":
            while line and line[-1] != change.version:
                line.pop()
        if not line or line[-1] != change.version:
            line.append(change.version)
    refused = []
    for name in dict.fromkeys(reversed(line)):
        if name == current.version:
            continue
        try:
            _check_servable(store, get_version(store, current.recipe, name))
        except (FailedPrecondition, NotFound, DataLoss) as error:
            refused.append(f"{name} ({error.message})")
        else:
            return name
    raise FailedPrecondition(
        f"champion {current.version} of {current.recipe} has no predecessor to go back to"
        + (f": {'; '.join(refused)}" if refused else ""),
        reason="NO_PREDECESSOR",
        metadata={"version": current.version},
    )


def _check_servable(store: Store, version: ModelVersion) -> Report:
    """The stored report; FailedPrecondition unless it is about this version and all its gates passed."""
    try:
        report = get_report(store, version.recipe, version.report_id)
    except NotFound:
        raise _refused(
            version, f"its report {version.report_id} is missing; judge it again", "REPORT_MISSING"
        ) from None
    about = {
        "model_version": (report.model_version, version.id),
        "run_id": (report.run_id, version.run_id),
        "dataset_id": (report.dataset_id, version.dataset_id),
        "passed": (report.passed, version.passed),
    }
    wrong = [f"{name} is {one!r} there and {two!r} here" for name, (one, two) in about.items() if one != two]
    if wrong:
        raise _refused(version, f"its report {report.id} does not match: {', '.join(wrong)}", "REPORT_MISMATCH")
    failed = [gate for gate in report.gates if gate.passed is not True]
    if failed:
        details = " ".join(f"[{gate.name}] {gate.detail}" for gate in failed)
        raise _refused(version, details, "GATES_FAILED", failed_gates=[gate.name for gate in failed])
    if report.passed is not True:
        raise _refused(version, f"its report {report.id} did not pass", "GATES_FAILED")
    return report


def _refused(
    version: ModelVersion, detail: str, reason: str, *, failed_gates: Sequence[str] = ()
) -> FailedPrecondition:
    return FailedPrecondition(
        f"model version {version.id} of {version.recipe} may not be served: {detail}",
        reason=reason,
        metadata={"version": version.id, "report": version.report_id, "failed_gates": ",".join(failed_gates)},
    )


def _moved(recipe: str, current: str, expected: str) -> Conflict:
    return Conflict(
        f"the champion of {recipe} is {current or 'not set'}, not {expected or 'unset'} as expected; "
        "compare with the current one and try again",
        reason=CHAMPION_MOVED,
        metadata={"current": current, "expected": expected},
    )


def _corrupt(key: str, detail: str) -> DataLoss:
    return DataLoss(
        f"the stored object {key} is corrupt ({detail}); restore it from a backup, or delete it and make it again",
        reason="CORRUPT_OBJECT",
        metadata={"key": key},
    )

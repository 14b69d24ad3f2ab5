"""What a set of updates does to this node's rows, with every derived change, as one record.

Pure: takes the updates, a view of the rows and the time; gives the rows to commit. Derived
changes ride in the record of the row that causes them, so a crash can't part the two:

- a version under a floor goes at once with its inline bytes; its blocks or parts by a cascade;
- pending data that became part of a version or an upload is done, and what it became part of is
  void where it was given up before: so the two agree in whatever order they are met;
- pending data that is removed goes by a cascade; so do a removed upload's parts, a replaced
  part's data, and the part rows of a completed upload;
- a block whose last live reference went is queued for the resync worker, after the delay;
- the bucket's counters follow every change of what they count;
- a row that only says "removed" is queued to be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from garage_lite.core.block.resync import deletion_rows
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion, below_floor, survivors
from garage_lite.core.model.rowkeys import CascadeKind, Stamp, Table, stamp_of
from garage_lite.core.model.uploads import Completed, Part, Upload, UploadState
from garage_lite.core.model.versions import BlockRef, Pending, PendingState
from garage_lite.core.table.deciding import met_by_ballot
from garage_lite.core.table.fences import fence_against
from garage_lite.core.table.history import History
from garage_lite.core.table.plan import Plan
from garage_lite.core.table.schema import Change, Removal, Update, View, is_local, merge_rows


def plan_changes(
    changes: Sequence[Change],
    view: View,
    now_ms: int,
    *,
    alone: bool,
    decided: bool = False,
) -> list[tuple[bytes, bytes | None]]:
    """The rows to commit (None: drop) for `changes`; empty when nothing changes.

    `view` must be the writers' view. `alone`: no other node holds any of these rows.
    A row that a fence here stands against is passed over, unless it is `decided` at a quorum.
    Raises StorageFailed if a row can't be read.
    """
    plan = Plan(view, now_ms, alone)
    before: dict[bytes, bytes | None] = {}
    objects: dict[bytes, History] = {}
    repeated: list[bytes] = []
    for change in changes:
        key = change.key
        if is_local(key):
            plan.rows[key] = (change.value or None) if isinstance(change, Update) else None
            continue
        if not (alone or decided) and _is_fenced(plan, change):
            continue
        old = _old_object(plan, objects, key) if key[0] == Table.OBJECT else plan.get(key)
        new = None if isinstance(change, Removal) else merge_rows(key, old, change.value)
        if new != old:
            before.setdefault(key, old)
            plan.put(key, new)
        elif new is not None and key[0] == Table.OBJECT:
            repeated.append(key)
    for key in repeated:
        _object_repeated(plan, key)
    _derive(plan, before, objects)
    for bucket, change_of in plan.counters.items():
        if any(change_of):
            row = rowkeys.counter_row(bucket)
            stored = view.get(row)
            counted = Counters.decode(stored) if stored is not None else Counters()
            plan.rows[row] = counted.plus(change_of).encode()
    return list(plan.rows.items())


def _is_fenced(plan: Plan, change: Change) -> bool:
    """Whether the row has to wait until the fence is decided (core/workers/pending.py)."""
    if isinstance(change, Removal):
        return False
    fence = fence_against(change, plan.get)
    return fence is PendingState.FENCED or fence is UploadState.FENCED


def _old_object(plan: Plan, objects: dict[bytes, History], key: bytes) -> bytes | None:
    if key in plan.rows:
        return plan.rows[key]
    prefix = key[: -rowkeys.STAMP_BYTES]
    history = objects.get(prefix)
    if history is None:
        objects[prefix] = history = History(plan.view, prefix)
    return history.value(key)


def _derive(
    plan: Plan,
    before: dict[bytes, bytes | None],
    objects: dict[bytes, History],
) -> None:
    for key, old in before.items():
        table = key[0]
        new = plan.rows[key]
        if table == Table.PENDING:
            _pending_changed(plan, objects, key, old, new)
        elif table == Table.BLOCK_REF:
            _block_ref_changed(plan, key, old, new)
        elif table == Table.UPLOAD:
            _upload_changed(plan, objects, key, old, new)
        elif table == Table.PART:
            _part_changed(plan, key, old, new)
        elif table == Table.PAGE:
            _page_changed(plan, key, new)
        elif table == Table.PART_LIST and not new:
            plan.end(key)
    for prefix, history in objects.items():
        changed = plan.by_prefix.get(prefix)
        if changed:
            _object_changed(plan, history, changed)


def _object_changed(plan: Plan, history: History, changed: Sequence[bytes]) -> None:
    """Prune what a floor lets go, drop the data of what was removed, count the difference."""
    bucket = BucketId(history.prefix[2:34])
    changes = {key: _decoded(key, plan.rows[key]) for key in changed}
    for key, version in changes.items():
        if version is not None and key not in history.versions:
            plan.rows.update(met_by_ballot(plan.get, history.prefix, key, version))
            changes[key] = _with_its_data(plan, key, version)
    _read_what_depends(history, changes)
    rows_was = _newest_first(history.versions)
    rows_now = _newest_first(_joined(history.versions, changes))
    was, now = [v for _, v in rows_was], [v for _, v in rows_now]
    alive_before, alive = survivors(was), survivors(now)
    hidden, hidden_before = _hidden(plan, now, alive), _hidden(plan, was, alive_before)
    gone = {version.stamp for version in below_floor(now)}
    stay = {version.stamp for version in alive}
    kept = {version.id for version in alive}
    dropped = {v.stamp for v in was} - {v.stamp for v in alive_before} - hidden_before
    left: list[tuple[bytes, ObjectVersion]] = []
    for key, version in rows_now:
        if version.stamp in hidden:
            if version.stamp not in hidden_before:
                plan.cascade(bucket, version.id, CascadeKind.SETTLE, key)
            left.append((key, version))
            continue
        new_to_this = key in changes or version.stamp not in dropped
        if version.stamp not in stay and new_to_this and version.id not in kept:
            _drop_data(plan, bucket, version, key)
        if version.stamp in gone:
            plan.rows[key] = None
            continue
        if version.stamp not in stay and not version.removed:
            # What removed it may be forgotten before it; its data is gone already.
            version = replace(version, removed=True)
            plan.rows[key] = version.encode()
        left.append((key, version))
    _forget_later(plan, left)
    if not history.complete or max(len(was), len(left)) > history.top:
        _bury(plan, history, history.buried(rows_was), history.buried(left))
    plan.count(
        bucket,
        Counters(
            objects=_has_object(alive) - _has_object(alive_before),
            total_bytes=sum([v.size for v in alive]) - sum([v.size for v in alive_before]),
        ),
    )


def _hidden(plan: Plan, versions: list[ObjectVersion], alive: list[ObjectVersion]) -> set[Stamp]:
    """Versions that only such ones remove as may turn out void: they stay as they are until those
    are settled (core/workers/cascade.py)."""
    if plan.alone or not any(version.may_be_void for version in versions):
        return set()
    sure = survivors([version for version in versions if not version.may_be_void])
    return {version.stamp for version in sure} - {version.stamp for version in alive}


def _object_repeated(plan: Plan, key: bytes) -> None:
    """Inline bytes that come once more with a version removed meanwhile don't stay."""
    value = plan.get(key)
    if value is None:
        return
    version = ObjectVersion.decode(stamp_of(key), value)
    if version.removed and version.kind is Kind.INLINE:
        plan.rows[rowkeys.inline_row(BucketId(key[2:34]), version.id)] = None


def _read_what_depends(history: History, changes: dict[bytes, ObjectVersion | None]) -> None:
    """Make the history hold all rows that the changes concern, and the current version."""
    if history.complete:
        return
    for key, now in changes.items():
        was = history.versions.get(key)
        floor = now.floor if now is not None else Floor.NONE
        prunes = was is None or was.floor < floor or (now is not None and _settles(was, now))
        raised = floor if prunes else Floor.NONE
        if raised is Floor.ALL:
            history.read_all()
        elif raised is Floor.NULL or now is None or not history.reaches(key):
            history.read_buried()
        if now is not None and now.replaces is not None:
            history.value(rowkeys.object_row(history.prefix, now.replaces))

    def knows_current() -> bool:
        """Both before and after: by rows that have no unknown ones above them."""
        for versions in (history.versions, _joined(history.versions, changes)):
            rows = _newest_first(versions)
            alive = survivors([version for _, version in rows])
            if not alive or not history.reaches(rowkeys.object_row(history.prefix, alive[0].stamp)):
                return False
        return True

    history.read_until(knows_current)


def _settles(was: ObjectVersion, now: ObjectVersion) -> bool:
    return was.may_be_void and not now.may_be_void


def _decoded(key: bytes, value: bytes | None) -> ObjectVersion | None:
    return None if value is None else ObjectVersion.decode(stamp_of(key), value)


def _joined(
    versions: Mapping[bytes, ObjectVersion], changes: Mapping[bytes, ObjectVersion | None]
) -> dict[bytes, ObjectVersion]:
    joined = {**versions, **changes}
    return {key: version for key, version in joined.items() if version is not None}


def _newest_first(versions: Mapping[bytes, ObjectVersion]) -> list[tuple[bytes, ObjectVersion]]:
    return sorted(versions.items())


def _has_object(alive: list[ObjectVersion]) -> bool:
    return bool(alive) and alive[0].has_data


def _forget_later(plan: Plan, left: list[tuple[bytes, ObjectVersion]]) -> None:
    """Queue the rows that from now on only say "removed"."""
    alone = len(left) == 1
    for key, version in left:
        marker = alone and not version.has_data and version.floor is Floor.ALL
        if (marker or version.removed) and key in plan.rows:
            plan.forget_later(key)


def _bury(plan: Plan, history: History, before: set[bytes], after: set[bytes]) -> None:
    for stale in history.stale:
        plan.rows[stale] = None
    for key in before - after:
        plan.rows[rowkeys.buried_row(key)] = None
    for key in after - before:
        plan.rows[rowkeys.buried_row(key)] = b"\x01"


def _drop_data(plan: Plan, bucket: BucketId, version: ObjectVersion, key: bytes) -> None:
    if version.kind is Kind.INLINE:
        plan.rows[rowkeys.inline_row(bucket, version.id)] = None
    elif version.kind is Kind.BLOCKS:
        plan.cascade(bucket, version.id, CascadeKind.DATA, key)
    elif version.kind is Kind.MULTIPART:
        plan.cascade(bucket, version.id, CascadeKind.PARTS, key)


# --- data and what it becomes part of


def _with_its_data(plan: Plan, key: bytes, version: ObjectVersion) -> ObjectVersion:
    """A version that is new here ends the state in which its data could be given up; where that
    was given up before, the version is void."""
    bucket = BucketId(key[2:34])
    kept = True
    if version.kind is Kind.BLOCKS:
        kept = _done(plan, bucket, DataId(version.id), key[: -rowkeys.STAMP_BYTES])
    elif version.kind is Kind.MULTIPART:
        kept = _completed(plan, bucket, key, version)
    if not kept and not version.void:
        version = replace(version, removed=True, void=True)
        plan.rows[key] = version.encode()
    return version


def _done(plan: Plan, bucket: BucketId, data: DataId, owner: bytes) -> bool:
    """Data became part of `owner` (an object's prefix, a part's row); False: it was given up."""
    row = rowkeys.pending_row(bucket, data)
    old = plan.get(row)
    if old is not None and Pending.decode(old).state is PendingState.REMOVED:
        return False
    if old is not None or not plan.alone:
        new = Pending.done(owner).encode()
        if new != old:
            plan.rows[row] = new
            _pending_changed(plan, {}, row, old, new)
    return True


def _completed(plan: Plan, bucket: BucketId, key: bytes, version: ObjectVersion) -> bool:
    """An upload became a version, whose row has this key; False: it was aborted."""
    row = rowkeys.upload_row(bucket, rowkeys.object_name_of(key), stamp_of(key).id)
    old = plan.get(row)
    state = UploadState.OPEN if old is None else Upload.decode(old).state
    if state < UploadState.COMPLETED and not plan.alone:
        upload = Upload(UploadState.OPEN, 0, "") if old is None else Upload.decode(old)
        became = Completed(
            version.etag, version.parts, b"", version.meta.checksum, version.mtime_ms, version.stamp
        )
        new = replace(upload, state=UploadState.COMPLETED, completed=became).encode()
        plan.rows[row] = new
        _upload_changed(plan, {}, row, old, new)
    return state is not UploadState.REMOVED


def _void(plan: Plan, objects: dict[bytes, History], prefix: bytes, id_: bytes) -> None:
    """The version of this id has lost its data: it never had a quorum."""
    history = objects.setdefault(prefix, History(plan.view, prefix))
    for key, _ in plan.view.with_prefix(prefix):
        if stamp_of(key).id == id_ and (value := history.value(key)) is not None:
            version = ObjectVersion.decode(stamp_of(key), value)
            plan.put(key, replace(version, removed=True, void=True).encode())


def _pending_changed(
    plan: Plan,
    objects: dict[bytes, History],
    key: bytes,
    old: bytes | None,
    new: bytes | None,
) -> None:
    bucket, data = BucketId(key[2:34]), DataId(key[34:])
    was = None if old is None else Pending.decode(old)
    now = None if new is None else Pending.decode(new)
    if now is not None and now.state is PendingState.REMOVED:
        plan.cascade(bucket, data, CascadeKind.DATA, key)
        if was is not None and was.owner:
            if was.owner[0] == Table.PART:
                _void_part(plan, was.owner)
            else:
                _void(plan, objects, was.owner, data)
    if now is not None and now.state is PendingState.FENCED:
        plan.cascade(bucket, data, CascadeKind.FENCE, key)
    if now is not None and now.state >= PendingState.DONE:
        plan.end(key)
    plan.count(bucket, Counters(pending=_is_open(now) - _is_open(was)))


def _is_open(pending: Pending | None) -> bool:
    return pending is not None and pending.state < PendingState.DONE


def _page_changed(plan: Plan, key: bytes, new: bytes | None) -> None:
    if not new:
        plan.end(key)
    elif not plan.alone:
        row = rowkeys.pending_row(BucketId(key[2:34]), DataId(key[34:50]))
        pending = plan.get(row)
        if pending is not None and Pending.decode(pending).state is PendingState.REMOVED:
            plan.cascade(BucketId(key[2:34]), DataId(key[34:50]), CascadeKind.DATA, row)


def _block_ref_changed(plan: Plan, key: bytes, old: bytes | None, new: bytes | None) -> None:
    """Queue the block where this was its last live reference."""
    was_live = old is not None and not BlockRef.decode(old).deleted
    deleted = new is None or BlockRef.decode(new).deleted
    if not deleted:
        return
    if new is not None:
        plan.forget_later(key)
    if was_live and not any(
        not BlockRef.decode(value).deleted
        for _, value in plan.siblings(key[:-16], plan.view.with_prefix(key[:-16]))
    ):
        plan.rows.update(deletion_rows(BlockHash(key[2:-16]), plan.now_ms * 1000))


def _upload_changed(
    plan: Plan,
    objects: dict[bytes, History],
    key: bytes,
    old: bytes | None,
    new: bytes | None,
) -> None:
    bucket = BucketId(key[2:34])
    upload = rowkeys.upload_id_of(key)
    was = None if old is None else Upload.decode(old).state
    was_open = was is not None and was <= UploadState.FENCED
    state = Upload.decode(new).state if new is not None else UploadState.REMOVED
    plan.count(bucket, Counters(uploads=(state <= UploadState.FENCED) - was_open))
    if new is None:
        return
    if state is UploadState.FENCED:
        plan.cascade(bucket, upload, CascadeKind.FENCE, key)
    elif state is UploadState.REMOVED:
        plan.cascade(bucket, upload, CascadeKind.UPLOAD, key)
        if was is UploadState.COMPLETED:
            _void(plan, objects, rowkeys.object_prefix(bucket, rowkeys.upload_name_of(key)), upload)
        plan.forget_later(key)
    elif state is UploadState.COMPLETED:
        plan.cascade(bucket, upload, CascadeKind.COMPLETED, key)
        plan.forget_later(key)


def _part_changed(plan: Plan, key: bytes, old: bytes | None, new: bytes | None) -> None:
    """Only the newest row of a part number stays; the data of the others goes."""
    bucket = BucketId(key[2:34])
    was = Part.decode(old) if old else None
    now = Part.decode(new) if new else None
    if was is None and now is not None and not _done(plan, bucket, now.data, key):
        plan.rows[key] = b""
        now = None
    if now is None:
        if was is not None:
            plan.count(bucket, Counters(parts=-1, part_bytes=-was.size))
        if plan.rows[key] is not None:
            plan.end(key)
        return
    number_prefix = key[: -rowkeys.STAMP_BYTES]
    rows = {
        row: value
        for keys, values in plan.view.scan(number_prefix, rowkeys.after_prefix(number_prefix))
        for row, value in zip(keys, values, strict=True)
    }
    rows[key] = plan.rows[key] or b""
    if was is None:
        plan.count(bucket, Counters(parts=1, part_bytes=now.size))
    newest = min(rows)
    for row in rows:
        if row != newest and rows[row]:
            replaced = Part.decode(rows[row])
            plan.rows[row] = None
            plan.cascade(bucket, replaced.data, CascadeKind.DATA, newest)
            plan.count(bucket, Counters(parts=-1, part_bytes=-replaced.size))


def _void_part(plan: Plan, key: bytes) -> None:
    old = plan.get(key)
    if old:
        plan.rows[key] = b""
        _part_changed(plan, key, old, b"")

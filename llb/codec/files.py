"""File operations and their actions to messages and back."""

from __future__ import annotations

from buildengine.errors import InvalidDefinition
from llb import ops
from llb.pb import ops_pb2 as pb


def file_message(op: ops.FileOp) -> pb.FileOp:
    return pb.FileOp(actions=[_action_message(a) for a in op.actions])


def file_op(m: pb.FileOp) -> ops.FileOp:
    return ops.FileOp(actions=tuple([_file_action(a) for a in m.actions]))


def _action_message(step: ops.FileAction) -> pb.FileAction:
    message = pb.FileAction(input=step.input, secondaryInput=step.secondary_input, output=step.output)
    match step.action:
        case ops.CopyAction() as action:
            message.copy.CopyFrom(_copy_message(action))
        case ops.MkFile() as action:
            message.mkfile.CopyFrom(_mkfile_message(action))
        case ops.MkDir() as action:
            message.mkdir.CopyFrom(_mkdir_message(action))
        case ops.Remove() as action:
            message.rm.CopyFrom(
                pb.FileActionRm(
                    path=action.path, allowNotFound=action.allow_not_found, allowWildcard=action.allow_wildcard
                )
            )
        case ops.Symlink() as action:
            message.symlink.CopyFrom(_symlink_message(action))
    return message


def _file_action(m: pb.FileAction) -> ops.FileAction:
    return ops.FileAction(action=_action(m), input=m.input, secondary_input=m.secondaryInput, output=m.output)


def _action(m: pb.FileAction) -> ops.Action:
    match m.WhichOneof("action"):
        case "copy":
            return _copy(m.copy)
        case "mkfile":
            return _mkfile(m.mkfile)
        case "mkdir":
            return _mkdir(m.mkdir)
        case "rm":
            return ops.Remove(path=m.rm.path, allow_not_found=m.rm.allowNotFound, allow_wildcard=m.rm.allowWildcard)
        case "symlink":
            return _symlink(m.symlink)
    raise InvalidDefinition("unknown kind of file action", hint="it needs a newer engine than this one")


def _copy_message(a: ops.CopyAction) -> pb.FileActionCopy:
    return pb.FileActionCopy(
        src=a.src,
        dest=a.dest,
        owner=_owner_message(a.owner),
        mode=a.mode,
        followSymlink=a.follow_symlink,
        dirCopyContents=a.dir_copy_contents,
        attemptUnpackDockerCompatibility=a.attempt_unpack,
        createDestPath=a.create_dest_path,
        allowWildcard=a.allow_wildcard,
        allowEmptyWildcard=a.allow_empty_wildcard,
        timestamp=a.timestamp,
        include_patterns=a.include_patterns,
        exclude_patterns=a.exclude_patterns,
        alwaysReplaceExistingDestPaths=a.always_replace_existing_dest_paths,
        modeStr=a.mode_str,
        required_paths=a.required_paths,
    )


def _copy(m: pb.FileActionCopy) -> ops.CopyAction:
    return ops.CopyAction(
        src=m.src,
        dest=m.dest,
        owner=_owner(m),
        mode=m.mode,
        mode_str=m.modeStr,
        follow_symlink=m.followSymlink,
        dir_copy_contents=m.dirCopyContents,
        attempt_unpack=m.attemptUnpackDockerCompatibility,
        create_dest_path=m.createDestPath,
        allow_wildcard=m.allowWildcard,
        allow_empty_wildcard=m.allowEmptyWildcard,
        timestamp=m.timestamp,
        include_patterns=tuple(m.include_patterns),
        exclude_patterns=tuple(m.exclude_patterns),
        always_replace_existing_dest_paths=m.alwaysReplaceExistingDestPaths,
        required_paths=tuple(m.required_paths),
    )


def _mkfile_message(a: ops.MkFile) -> pb.FileActionMkFile:
    owner = _owner_message(a.owner)
    return pb.FileActionMkFile(path=a.path, mode=a.mode, data=a.data, owner=owner, timestamp=a.timestamp)


def _mkfile(m: pb.FileActionMkFile) -> ops.MkFile:
    return ops.MkFile(path=m.path, mode=m.mode, data=m.data, owner=_owner(m), timestamp=m.timestamp)


def _mkdir_message(a: ops.MkDir) -> pb.FileActionMkDir:
    owner = _owner_message(a.owner)
    return pb.FileActionMkDir(path=a.path, mode=a.mode, makeParents=a.make_parents, owner=owner, timestamp=a.timestamp)


def _mkdir(m: pb.FileActionMkDir) -> ops.MkDir:
    return ops.MkDir(path=m.path, mode=m.mode, make_parents=m.makeParents, owner=_owner(m), timestamp=m.timestamp)


def _symlink_message(a: ops.Symlink) -> pb.FileActionSymlink:
    owner = _owner_message(a.owner)
    return pb.FileActionSymlink(oldpath=a.oldpath, newpath=a.newpath, owner=owner, timestamp=a.timestamp)


def _symlink(m: pb.FileActionSymlink) -> ops.Symlink:
    return ops.Symlink(oldpath=m.oldpath, newpath=m.newpath, owner=_owner(m), timestamp=m.timestamp)


# --- owners -----------------------------------------------------------------------------------------------


def _owner_message(owner: ops.Owner | None) -> pb.ChownOpt | None:
    if owner is None:
        return None
    return pb.ChownOpt(user=_user_message(owner.user), group=_user_message(owner.group))


def _user_message(user: int | ops.NamedUser | None) -> pb.UserOpt | None:
    match user:
        case None:
            return None
        case ops.NamedUser():
            return pb.UserOpt(byName=pb.NamedUserOpt(name=user.name, input=user.input))
        case _:
            return pb.UserOpt(byID=user)


def _owner(m: pb.FileActionCopy | pb.FileActionMkFile | pb.FileActionMkDir | pb.FileActionSymlink) -> ops.Owner | None:
    if not m.HasField("owner"):
        return None
    return ops.Owner(user=_user(m.owner.user), group=_user(m.owner.group))


def _user(m: pb.UserOpt) -> int | ops.NamedUser | None:
    match m.WhichOneof("user"):
        case "byName":
            return ops.NamedUser(name=m.byName.name, input=m.byName.input)
        case "byID":
            return m.byID
    return None

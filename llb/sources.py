"""Where builds start: images, directories, downloads and repositories, as states.

How each is spelled, its identifier and attributes, is what BuildKit's client writes. Attributes that say the default
are left out, because they are part of the operation's identity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Unpack

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from llb import giturl, paths
from llb.annotations import Annotations, about
from llb.execution import Surroundings
from llb.ops import EMPTY
from llb.state import State
from llb.vertices import Output, SourceVertex

RESOLVE_MODES = ("default", "pull", "local")
_HEADERS = ("accept", "user-agent")


def image(
    ref: str,
    /,
    *,
    platform: Platform | None = None,
    resolve_mode: str = "default",
    layer_limit: int | None = None,
    checksum: Digest | None = None,
    record_type: Literal["", "internal", "frontend"] = "",
    **annotations: Unpack[Annotations],
) -> State:
    """An image of a registry, of `platform` if it has several. Raises UserError for what is no reference.

    `resolve_mode` is `default`, `pull` (ask the registry even if the image is here) or `local` (prefer what is
    here). The environment and directory of its config are not known here: see `State.with_image_config`.
    `record_type` says what it is for, where that is not the build's result.
    """
    if resolve_mode not in RESOLVE_MODES:
        raise UserError(f"unknown resolve mode {resolve_mode!r}", hint=f"one of {', '.join(RESOLVE_MODES)}")
    attrs = {
        "image.resolvemode": resolve_mode if resolve_mode != "default" else "",
        "image.recordtype": record_type,
        "image.layerlimit": "" if layer_limit is None else str(layer_limit),
        "image.checksum": checksum or "",
    }
    return _source("docker-image://" + reference.normalize(ref), attrs, annotations, platform)


def oci_layout(
    ref: str,
    /,
    *,
    platform: Platform | None = None,
    session: str = "",
    store: str = "",
    layer_limit: int | None = None,
    **annotations: Unpack[Annotations],
) -> State:
    """An image of an OCI layout that the client offers, `name@digest`."""
    attrs = {
        "oci.session": session,
        "oci.store": store,
        "oci.layerlimit": "" if layer_limit is None else str(layer_limit),
    }
    return _source("oci-layout://" + ref, attrs, annotations, platform)


def local(
    name: str,
    /,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_paths: Sequence[str] = (),
    shared_key_hint: str = "",
    session: str = "",
    differ: str = "",
    metadata_only: Sequence[str] | None = None,
    **annotations: Unpack[Annotations],
) -> State:
    """A directory of the client. `include`, `exclude` are patterns as in .dockerignore.

    `follow_paths` are files wanted together with what their symlinks lead to. With `metadata_only`, only these
    files have their contents transferred.
    """
    attrs = {
        "local.session": session,
        "local.includepattern": _json_list(include),
        "local.excludepatterns": _json_list(exclude),
        "local.followpaths": _json_list(follow_paths),
        "local.sharedkeyhint": shared_key_hint,
        "local.differ": differ,
        "local.metadatatransfer": "" if metadata_only is None else "true",
        "local.metadatatransferexclude": _json_list(metadata_only or ()),
    }
    return _source("local://" + name, attrs, annotations)


def http(
    url: str,
    /,
    *,
    checksum: Digest | str | None = None,
    filename: str = "",
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    auth_header_secret: str = "",
    headers: Mapping[str, str] = EMPTY,
    **annotations: Unpack[Annotations],
) -> State:
    """A directory with one file, downloaded. `auth_header_secret` is the id of the secret that is sent with it."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"invalid address {url[:300]!r}", hint="an http source starts with https:// or http://")
    unknown = sorted({name.lower() for name in headers}.difference(_HEADERS))
    if unknown:
        raise UserError(f"header {unknown[0]!r} cannot be set", hint=f"only {', '.join(_HEADERS)} can")
    attrs = {
        "http.checksum": Digest.parse(checksum) if checksum else "",
        "http.filename": filename,
        "http.perm": f"0{mode:o}" if mode else "",
        "http.uid": str(uid) if uid else "",
        "http.gid": str(gid) if gid else "",
        "http.authheadersecret": auth_header_secret,
        **{f"http.header.{name.lower()}": value for name, value in headers.items()},
    }
    return _source(url, attrs, annotations)


def git(
    remote: str,
    ref: str = "",
    /,
    *,
    subdir: str = "",
    keep_git_dir: bool = False,
    checksum: str = "",
    skip_submodules: bool = False,
    auth_token_secret: str = "GIT_AUTH_TOKEN",
    auth_header_secret: str = "GIT_AUTH_HEADER",
    known_ssh_hosts: str = "",
    ssh_agent: str = "default",
    **annotations: Unpack[Annotations],
) -> State:
    """A commit of a repository: a branch, tag or commit id, the default branch if none is given.

    `checksum` is the commit id (or its beginning) that the ref must have. The last three are for ssh remotes. A
    repository has one identifier whatever the transport; that is in `git.fullurl`.
    """
    url = giturl.parse(remote if "://" in remote or giturl.is_transport(remote) else "https://" + remote)
    subdir = paths.resolve("/", subdir or url.subdir).lstrip("/")
    ssh = url.scheme == "ssh"
    attrs = {
        "git.keepgitdir": "true" if keep_git_dir else "",
        "git.fullurl": url.remote,
        "git.authtokensecret": auth_token_secret,
        "git.authheadersecret": auth_header_secret,
        "git.knownsshhosts": known_ssh_hosts if ssh else "",
        "git.mountsshsock": ssh_agent if ssh else "",
        "git.checksum": checksum,
        "git.skipsubmodules": "true" if skip_submodules else "",
    }
    return _source("git://" + url.identity + "".join(_fragment(ref or url.ref, subdir)), attrs, annotations)


def _source(
    identifier: str, attrs: Mapping[str, str], annotations: Annotations, platform: Platform | None = None
) -> State:
    said = {key: value for key, value in attrs.items() if value}
    vertex = SourceVertex(identifier=identifier, attrs=said, platform=platform, about=about(annotations))
    return State(output=Output(vertex=vertex), around=Surroundings(platform=platform))


def _fragment(ref: str, subdir: str) -> Iterator[str]:
    if ref or subdir:
        yield "#" + ref
    if subdir:
        yield ":" + subdir


def _json_list(values: Sequence[str]) -> str:
    """As Go's encoding/json spells a list of strings, which escapes what is special in HTML; nothing when empty."""
    if not values:
        return ""
    text = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    for special in "<>&\u2028\u2029":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text

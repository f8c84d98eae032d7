"""How each kind of source is spelled: its identifier and attributes, as BuildKit's client writes them.

Functions of values only; `llb.state` makes states of them. Attributes that say the default are left out, because
they are part of the operation's identity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import UserError
from llb import giturl, paths

RESOLVE_MODES = ("default", "pull", "local")
_HEADERS = ("accept", "user-agent")


class Spelled(NamedTuple):
    identifier: str
    attrs: dict[str, str]


def image(
    ref: str, *, resolve_mode: str, layer_limit: int | None, checksum: Digest | None, record_type: str
) -> Spelled:
    if resolve_mode not in RESOLVE_MODES:
        raise UserError(f"unknown resolve mode {resolve_mode!r}", hint=f"one of {', '.join(RESOLVE_MODES)}")
    attrs = {
        "image.resolvemode": resolve_mode if resolve_mode != "default" else "",
        "image.recordtype": record_type,
        "image.layerlimit": "" if layer_limit is None else str(layer_limit),
        "image.checksum": checksum or "",
    }
    return Spelled("docker-image://" + reference.normalize(ref), _without_empty(attrs))


def oci_layout(ref: str, *, session: str, store: str, layer_limit: int | None) -> Spelled:
    attrs = {
        "oci.session": session,
        "oci.store": store,
        "oci.layerlimit": "" if layer_limit is None else str(layer_limit),
    }
    return Spelled("oci-layout://" + ref, _without_empty(attrs))


def local(
    name: str,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    follow_paths: Sequence[str],
    shared_key_hint: str,
    session: str,
    differ: str,
    metadata_only: Sequence[str] | None,
) -> Spelled:
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
    return Spelled("local://" + name, _without_empty(attrs))


def http(
    url: str,
    *,
    checksum: Digest | str | None,
    filename: str,
    mode: int | None,
    uid: int,
    gid: int,
    auth_header_secret: str,
    headers: Mapping[str, str],
) -> Spelled:
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
    return Spelled(url, _without_empty(attrs))


def git(
    remote: str,
    ref: str,
    *,
    subdir: str,
    keep_git_dir: bool,
    checksum: str,
    skip_submodules: bool,
    auth_token_secret: str,
    auth_header_secret: str,
    known_ssh_hosts: str,
    ssh_agent: str,
) -> Spelled:
    """One repository has one identifier whatever the transport; the transport is in `git.fullurl`."""
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
    return Spelled("git://" + url.identity + "".join(_fragment(ref or url.ref, subdir)), _without_empty(attrs))


def _fragment(ref: str, subdir: str) -> Iterator[str]:
    if ref or subdir:
        yield "#" + ref
    if subdir:
        yield ":" + subdir


def _without_empty(attrs: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in attrs.items() if value}


def _json_list(values: Sequence[str]) -> str:
    """As Go's encoding/json spells a list of strings, which escapes what is special in HTML; nothing when empty."""
    if not values:
        return ""
    text = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    for special in "<>&\u2028\u2029":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text

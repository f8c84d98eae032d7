"""Everything about one build as a document, and as paragraphs for people. Pure.

Facts: docker/buildx commands/history/inspect.go (inspectOutput and what prints it).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from buildengine.cli.flags import is_false, split_csv
from buildengine.cli.history import records
from buildengine.history import BuildRecord
from buildengine.units import show_binary_size

_CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
    "DataLoss", "Unauthenticated",
)  # fmt: skip
_CANCELED = 1
_CONFIG = {  # field: the frontend's option that it is of, and its title
    "Network": ("force-network-mode", "Network"),
    "Hostname": ("hostname", "Hostname"),
    "ExtraHosts": ("add-hosts", "Extra Hosts"),
    "CgroupParent": ("cgroup-parent", "Cgroup Parent"),
    "ImageResolveMode": ("image-resolve-mode", "Image Resolve Mode"),
    "MultiPlatform": ("multi-platform", "Multi-Platform"),
    "NoCache": ("no-cache", "No Cache"),
    "NoCacheFilter": ("no-cache", "No Cache Filter"),
    "ShmSize": ("shm-size", "Shm Size"),
    "Ulimit": ("ulimit", "Resource Limits"),
    "Memory": ("memory", "Memory"),
    "MemorySwap": ("memswap", "Memory Swap"),
    "CPUShares": ("cpushares", "CPU Shares"),
    "CPUPeriod": ("cpuperiod", "CPU Period"),
    "CPUQuota": ("cpuquota", "CPU Quota"),
    "CPUSetCPUs": ("cpusetcpus", "CPUSet CPUs"),
    "CPUSetMems": ("cpusetmems", "CPUSet Mems"),
    "CacheMountNS": ("build-arg:BUILDKIT_CACHE_MOUNT_NS", "Cache Mount Namespace"),
    "DockerfileCheckConfig": ("build-arg:BUILDKIT_DOCKERFILE_CHECK", "Dockerfile Check Config"),
    "SourceDateEpoch": ("build-arg:SOURCE_DATE_EPOCH", "Source Date Epoch"),
    "SandboxHostname": ("build-arg:SANDBOX_HOSTNAME", "Sandbox Hostname"),
}
_KEEP_GIT_DIR = "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_ELSEWHERE = ("frontend.caps", "context", "filename", "target", "platform", _KEEP_GIT_DIR)
_GROUPS = ("vcs:", "build-arg:", "label:", "context:", "attest:")
_TAB = 8


def document(record: BuildRecord, now: float, more: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of buildx, without what is empty. `more` are Error, Materials and Attachments, read elsewhere."""
    options, ended, steps = record.options, record.completed, record.steps
    found = {
        "Name": records.name(options),
        "Ref": record.ref,
        "Context": options.get("context", ""),
        "Dockerfile": _dockerfile(options),
        "VCSRepository": options.get("vcs:source", "") if "context" not in options else "",
        "VCSRevision": options.get("vcs:revision", "") if "context" not in options else "",
        "Target": options.get("target", ""),
        "Platform": [part for part in options.get("platform", "").split(",") if part],
        "KeepGitDir": _is_true(options.get(_KEEP_GIT_DIR, "")),
        "NamedContexts": _pairs(options, "context:"),
        "StartedAt": records.moment(record.created, None),
        "CompletedAt": "" if ended is None else records.moment(ended, None),
        "Duration": round(((now if ended is None else ended) - record.created) * 10**9),
        "Status": _status(record),
        "Error": more.get("Error"),
        "NumCompletedSteps": steps.completed,
        "NumTotalSteps": steps.total,
        "NumCachedSteps": steps.cached,
        "BuildArgs": _pairs(options, "build-arg:"),
        "Labels": _pairs(options, "label:"),
        "Config": _config(options),
        "Materials": more.get("Materials"),
        "Attachments": more.get("Attachments"),
    }
    return {field: value for field, value in found.items() if value or field.startswith("Num") or field == "Config"}


def paragraphs(found: Mapping[str, Any], record: BuildRecord, *, named: bool) -> Iterator[str]:
    """The lines that are shown. `named`: whoever asks has said which build it is."""
    yield from _head(found, named)
    yield ""
    yield from _table("Named Context", found.get("NamedContexts"))
    yield from _progress(found, record)
    yield ""
    config = found["Config"]
    shown = [(title, _shown(field, config[field])) for field, (_, title) in _CONFIG.items() if field in config]
    yield from _aligned([*shown, *((each["Name"], each["Value"]) for each in config.get("RestRaw", ()))])
    yield ""
    yield from _table("Build Arg", found.get("BuildArgs"))
    yield from _table("Label", found.get("Labels"))
    if materials := found.get("Materials"):
        yield "Materials:"
        yield from tabbed([("URI", "DIGEST"), *((each["URI"], ", ".join(each["Digests"])) for each in materials)])
        yield ""
    if attachments := found.get("Attachments"):
        yield "Attachments:"
        rows = ((each["Digest"], each.get("Platform", ""), each["Type"]) for each in attachments)
        yield from tabbed([("DIGEST", "PLATFORM", "TYPE"), *rows])
        yield ""
    yield from _failure(found.get("Error"))
    yield f"Print build logs: pybuild history logs {record.ref}"


def tabbed(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns parted by tabs, as Go's text/tabwriter sets them."""
    lines = list(rows)
    count = max(map(len, lines), default=0)
    widths = [max(len(line[place]) + 1 for line in lines) for place in range(count - 1)]
    stops = [-(-width // _TAB) for width in widths]
    for line in lines:
        cells = [cell + "\t" * (stops[place] - len(cell) // _TAB) for place, cell in enumerate(line[:-1])]
        yield "".join([*cells, line[-1]])


def _head(found: Mapping[str, Any], named: bool) -> Iterator[str]:
    rows = [("Name", found.get("Name")), ("Ref", "" if named else found["Ref"]), ("Context", found.get("Context"))]
    rows += [("Dockerfile", found.get("Dockerfile")), ("VCS Repository", found.get("VCSRepository"))]
    rows += [("VCS Revision", found.get("VCSRevision")), ("Target", found.get("Target"))]
    rows += [("Platforms", ", ".join(found.get("Platform", ())))]
    rows += [("Keep Git Dir", "true" if found.get("KeepGitDir") else "")]
    yield from _aligned((title, value) for title, value in rows if value)


def _progress(found: Mapping[str, Any], record: BuildRecord) -> Iterator[str]:
    started, _, rest = found["StartedAt"].partition("T")
    duration = records.seconds(found.get("Duration", 0) / 10**9)
    rows = [("Started", f"{started} {rest[:8]}")]
    rows += [("Duration", duration + (" (running)" if record.completed is None else ""))]
    if found["Status"] == "failed" and record.failure is not None:
        rows += [("Error", f"{_CODES[record.failure.code]} {record.failure.message}")]
    elif found["Status"] == "canceled":
        rows += [("Status", "Canceled")]
    total = found["NumTotalSteps"]
    cached = found["NumCachedSteps"] / total * 100 if total else 0
    rows += [("Build Steps", f"{found['NumCompletedSteps']}/{total} ({cached:.0f}% cached)")]
    yield from _aligned(rows)


def _failure(error: Mapping[str, Any] | None) -> Iterator[str]:
    if error is None:
        return
    if "Sources" in error:
        yield from base64.b64decode(error["Sources"]).decode(errors="replace").splitlines()
    if "Logs" in error:
        yield "Logs:"
        yield f"> => {error.get('Name', '')}:"
        yield from (f"> {line}" for line in error["Logs"])
        yield ""


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from tabbed((f"{title}:", value) for title, value in rows)


def _table(title: str, pairs: list[dict[str, str]] | None) -> Iterator[str]:
    if pairs:
        yield from tabbed([(title.upper(), "VALUE"), *((pair["Name"], pair["Value"]) for pair in pairs)])
        yield ""


def _status(record: BuildRecord) -> str:
    if record.completed is None:
        return "running"
    if record.failure is None:
        return "completed"
    return "canceled" if record.failure.code == _CANCELED else "failed"


def _dockerfile(options: Mapping[str, str]) -> str:
    name, directory = options.get("filename", ""), options.get("vcs:localdir:dockerfile", "")
    return f"{directory}/{name}" if name and directory not in ("", ".") else name


def _pairs(options: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
    taken = {option for option, _ in _CONFIG.values()} | {_KEEP_GIT_DIR, "build-arg:BUILDKIT_MULTI_PLATFORM"}
    found = sorted((key, value) for key, value in options.items() if key.startswith(prefix) and key not in taken)
    return [{"Name": key.removeprefix(prefix), "Value": value} for key, value in found]


def _config(options: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {field: options[key] for field, (key, _) in _CONFIG.items() if options.get(key)}
    found["MultiPlatform"] = any(
        _is_true(options.get(key, "")) for key in ("multi-platform", "build-arg:BUILDKIT_MULTI_PLATFORM")
    )
    found["NoCache"] = options.get("no-cache") == ""
    for field in ("ExtraHosts", "NoCacheFilter"):
        found[field] = split_csv(found[field]) if field in found else []
    taken = {option for option, _ in _CONFIG.values()} | set(_ELSEWHERE)
    rest = {key: value for key, value in options.items() if key not in taken and not key.startswith(_GROUPS)}
    found["RestRaw"] = [{"Name": key, "Value": value} for key, value in sorted(rest.items())]
    return {field: value for field, value in found.items() if value}


def _shown(field: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true"
    if isinstance(value, list):
        return ", ".join(value)
    return show_binary_size(int(value)) if field in ("Memory", "MemorySwap") and value.isdigit() else str(value)


def _is_true(text: str) -> bool:
    return bool(text) and not is_false(text)

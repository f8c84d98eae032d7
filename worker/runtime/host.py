"""What the launcher found out about this host and this engine, once, for all steps."""

from __future__ import annotations

from worker.runtime import capabilities, cgroups, controlfiles, syscalls
from worker.runtime.overlay import Overlay


class Host:
    """`lacking` names kernel features to do without, so that tests can force each fallback."""

    def __init__(self, lacking: frozenset[str], *, oci: bool) -> None:
        self.oci = oci  # steps run through an OCI runtime
        texts = [controlfiles.read(f"/proc/self/{name}") for name in ("mountinfo", "cgroup", "status")]
        self.cgroups = cgroups.Layout({}, None) if "cgroups" in lacking else cgroups.detect(texts[0], texts[1])
        self.bounding = capabilities.bounding_set(texts[2])
        self.landlock_abi = 0 if "landlock" in lacking else syscalls.landlock_abi()
        self.mknod = "mknod" not in lacking
        self.overlay = Overlay()
        self.overlay.lowerdir_append = "lowerdir+" not in lacking
        self.overlay.clone_detached = "detached" not in lacking

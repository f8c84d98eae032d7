"""Install the wheels in /wheels into /site: a wheel is a zip archive of what goes there (PEP 427)."""

import os
import shutil
import zipfile

for name in sorted(os.listdir("/wheels")):
    directory = f"/wheels/{name}"
    for wheel in os.listdir(directory):
        with zipfile.ZipFile(f"{directory}/{wheel}") as archive:
            archive.extractall("/site")

# What a wheel keeps apart belongs there too; scripts and headers are for who builds.
for name in [name for name in os.listdir("/site") if name.endswith(".data")]:
    for kind in ("purelib", "platlib"):
        if os.path.isdir(f"/site/{name}/{kind}"):
            shutil.copytree(f"/site/{name}/{kind}", "/site", dirs_exist_ok=True)
    shutil.rmtree(f"/site/{name}")

"""A testing kit for authors of frontends: what `build(ctx)` does is tested in milliseconds, without an engine.

from frontends.testing import image_config, run
from site_frontend import build

def test_the_pages_are_served():
    built = run(build, files={"public/index.html": "hello"}, images={"nginx:alpine": image_config(Cmd=["nginx"])})
    assert built.files["usr/share/nginx/html/index.html"] == b"hello"
    assert built.config["ExposedPorts"] == {"80/tcp": {}}

trial      `run` a build on what a test gives; a `Built` to be looked at        steps      operations of LLB
gateway    the fake gateway behind it                                           trees      its trees, in memory
recorder   what a frontend has asked, in order                                  snapshots  a build as text
fixtures   `snapshot` for pytest
"""

from frontends.testing.gateway import AMD64 as AMD64
from frontends.testing.gateway import ARM64 as ARM64
from frontends.testing.gateway import FakeGateway as FakeGateway
from frontends.testing.gateway import image_config as image_config
from frontends.testing.recorder import Recorder as Recorder
from frontends.testing.steps import Step as Step
from frontends.testing.steps import steps as steps
from frontends.testing.trial import Built as Built
from frontends.testing.trial import BuiltImage as BuiltImage
from frontends.testing.trial import run as run
from frontends.testing.trial import run_on as run_on

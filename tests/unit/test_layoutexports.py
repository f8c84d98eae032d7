"""What a daemon says of several layouts in one build, and that with one it says what BuildKit's says."""

from __future__ import annotations

from buildengine.builder import Export
from buildengine.layoutexports import apart, with_each

LAYOUT, OTHER = Export(type="oci", attrs={"tar": "false"}, dest="d"), Export(type="oci", dest="f")
SAID: tuple[dict[str, str], ...] = (
    {"containerimage.digest": "a"},
    {},
    {"containerimage.digest": "c", "image.name": "x/1"},
)
RESPONSE = {"containerimage.digest": "c", "image.name": "x/1", "frontend.said": "it"}


def test_one_layout_needs_nothing_besides() -> None:
    assert with_each(RESPONSE, (LAYOUT, OTHER), SAID) == RESPONSE
    assert apart(RESPONSE, [0]) == (RESPONSE, {0: RESPONSE})
    assert apart(RESPONSE, []) == (RESPONSE, {})


def test_each_of_several_layouts_is_told_its_own() -> None:
    common, own = apart(with_each(RESPONSE, (LAYOUT, OTHER, LAYOUT), SAID), [0, 2])
    assert own == {0: SAID[0], 2: SAID[2]}
    assert common == RESPONSE

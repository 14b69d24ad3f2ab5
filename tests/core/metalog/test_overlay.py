"""The overlay against a dict that knows nothing of prefixes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.metalog.overlay import Overlay

KEYS = st.sampled_from([b"\x10a12", b"\x10a34", b"\x10b12", b"\x20a12", b"\x20b12"])
VALUES = st.none() | st.binary(max_size=2)
ABSENT = object()


@given(st.lists(st.tuples(KEYS, VALUES) | st.tuples(KEYS, KEYS)), st.dictionaries(KEYS, VALUES))
def test_an_overlay_is_the_last_word_on_each_key(
    steps: list[tuple[bytes, bytes | None]], below: dict[bytes, bytes | None]
) -> None:
    overlay = Overlay({0x10: 2})
    model: dict[bytes, bytes | None | object] = {}
    everything = [b"\x10a12", b"\x10a34", b"\x10b12", b"\x20a12", b"\x20b12"]
    for key, value in steps:
        if value is not None and value[:1] in (b"\x10", b"\x20"):
            overlay.drop(key, value)
            model.update({k: None for k in everything if key <= k < value})
        else:
            overlay.add([(key, value)])
            model[key] = value
    for key in everything:
        assert overlay.get(key, ABSENT) == model.get(key, ABSENT)
    for prefix in (b"\x10a", b"\x10b", b"\x20a12"):
        mine = {k: v for k, v in below.items() if k.startswith(prefix)}
        merged = overlay.lay_over(prefix, mine)
        expected = {**mine, **{k: v for k, v in model.items() if k.startswith(prefix)}}
        live = {k: v for k, v in expected.items() if v is not None}
        assert {k: v for k, v in merged.items() if v is not None} == live

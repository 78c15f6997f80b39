"""Which copies are made of an image, and which settings can't be followed."""

from dataclasses import replace
from typing import Any

import pytest

from wado.archive.transcode_rules import VIDEO_TARGET, check_rules, targets
from wado.dicom.coded_video import H264
from wado.errors import InvalidRequest
from wado.records import DicomImageMeta
from wado.transcode_settings import DISPLAYABLE, HTJ2K_RPCL, TranscodeRule, TranscodeSettings

JPEG = "1.2.840.10008.1.2.4."
EXPLICIT, DEFLATED_FRAMES = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.8.1"
IMAGE = DicomImageMeta(
    tenant_id="t",
    study_instance_uid="1",
    series_instance_uid="1.2",
    sop_instance_uid="1.2.3",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid=EXPLICIT,
    file_path="t/1/1.2/1.2.3.dcm",
    file_size=600_000,
    digest="00",
    received_at="",
    trace_id="",
    modality="CT",
    rows=512,
    columns=512,
)


def wanted(
    source: str = EXPLICIT,
    *rules: TranscodeRule,
    has_pixels: bool = True,
    settings: dict[str, Any] | None = None,
    **attributes: Any,
) -> list[tuple[str, int]]:
    """Copies of an image in a transfer syntax."""
    image = replace(IMAGE, transfer_syntax_uid=source, **attributes)
    given = TranscodeSettings(rules=rules, **settings or {})
    return targets(given, image, has_pixels=has_pixels)


@pytest.mark.parametrize("source", sorted(set(DISPLAYABLE) - H264))
def test_what_viewers_show_has_no_copy(source: str) -> None:
    assert wanted(source) == []


@pytest.mark.parametrize(
    "source",
    [
        DEFLATED_FRAMES,
        "1.2.840.10008.1.2.1.98",
        *(f"{JPEG}{n}" for n in (52, 53, 55, 58, 60, 65, 92, 93, 110, 111, 112)),
        "3.2.840.10008.1.2.4.96",
        "1.2.826.0.1.3680043.2.1143.7",
    ],
)
def test_what_they_cannot_show_has_one_without_loss(source: str) -> None:
    assert wanted(source) == [(HTJ2K_RPCL, 0)]
    assert wanted(source, settings={"target": EXPLICIT}) == [(EXPLICIT, 0)]


@pytest.mark.parametrize("number", ["100", "100.1", "101", "101.1", "107", "108"])
def test_video_becomes_h264(number: str) -> None:
    assert wanted(f"{JPEG}{number}") == [(VIDEO_TARGET, 0)]


@pytest.mark.parametrize("number", [94, 95, 204, 205])
def test_pixels_that_are_elsewhere_are_asked_for_so_that_it_is_on_record(number: int) -> None:
    rule = TranscodeRule(target=f"{JPEG}80")
    assert wanted(f"{JPEG}{number}", rule, has_pixels=False) == [(HTJ2K_RPCL, 0)]


def test_without_pixels_there_is_nothing_to_copy() -> None:
    assert wanted(f"{JPEG}110", TranscodeRule(target=HTJ2K_RPCL), has_pixels=False) == []


def test_none_is_made_when_it_is_switched_off() -> None:
    rule = TranscodeRule(target=HTJ2K_RPCL)
    assert wanted(f"{JPEG}110", rule, settings={"enabled": False}) == []


@pytest.mark.parametrize(
    ("rule", "attributes", "fits"),
    [
        ({}, {}, True),
        ({"sources": (f"{JPEG}70", EXPLICIT)}, {}, True),
        ({"sources": (f"{JPEG}70",)}, {}, False),
        ({"modalities": ("MG", "CT")}, {}, True),
        ({"modalities": ("MG", "DX")}, {}, False),
        ({"modalities": ("CT",)}, {"modality": None}, False),
        ({"min_pixels": 512 * 512}, {}, True),
        ({"min_pixels": 512 * 512 + 1}, {}, False),
        ({"min_pixels": 1}, {"rows": None}, False),
        ({"min_frames": 1}, {}, True),
        ({"min_frames": 2}, {}, False),
        ({"min_frames": 100}, {"number_of_frames": 100}, True),
        ({"min_bytes": 600_000}, {}, True),
        ({"min_bytes": 600_001}, {}, False),
        ({"modalities": ("CT",), "min_frames": 2}, {}, False),
        ({"modalities": ("CT",), "min_frames": 2}, {"number_of_frames": 2}, True),
    ],
)
def test_an_image_fits_all_that_a_rule_says(
    rule: dict[str, Any], attributes: dict[str, Any], fits: bool
) -> None:
    found = wanted(EXPLICIT, TranscodeRule(target=HTJ2K_RPCL, **rule), **attributes)
    assert found == ([(HTJ2K_RPCL, 0)] if fits else [])


def test_the_first_rule_that_fits_is_followed() -> None:
    rules = (
        TranscodeRule(target=f"{JPEG}90", modalities=("MG",)),
        TranscodeRule(target=f"{JPEG}91", quality=80, min_frames=2),
        TranscodeRule(target=HTJ2K_RPCL),
    )
    assert wanted(EXPLICIT, *rules) == [(HTJ2K_RPCL, 0)]
    assert wanted(EXPLICIT, *rules, modality="MG", number_of_frames=2) == [(f"{JPEG}90", 0)]
    assert wanted(EXPLICIT, *rules, number_of_frames=2) == [(f"{JPEG}91", 80)]


def test_a_copy_by_rule_comes_beside_the_one_that_viewers_need() -> None:
    lossy = TranscodeRule(target=f"{JPEG}91", quality=70)
    assert wanted(f"{JPEG}110", lossy) == [(HTJ2K_RPCL, 0), (f"{JPEG}91", 70)]
    assert wanted(f"{JPEG}110", TranscodeRule(target=HTJ2K_RPCL)) == [(HTJ2K_RPCL, 0)]


def test_no_copy_is_made_in_the_transfer_syntax_of_the_original() -> None:
    assert wanted(HTJ2K_RPCL, TranscodeRule(target=HTJ2K_RPCL)) == []


@pytest.mark.parametrize("number", ["102", "103", "104.1", "106"])
def test_h264_may_need_another_container(number: str) -> None:
    source = f"{JPEG}{number}"
    shown = tuple(uid for uid in DISPLAYABLE if uid != source)
    assert wanted(source) == [(source, 0)]
    assert wanted(source, settings={"displayable": shown}) == [(source, 0)]
    assert wanted(source, TranscodeRule(target=VIDEO_TARGET)) == [(source, 0)]


def test_video_and_images_do_not_become_each_other() -> None:
    assert wanted(f"{JPEG}100", TranscodeRule(target=HTJ2K_RPCL)) == [(VIDEO_TARGET, 0)]
    assert wanted(EXPLICIT, TranscodeRule(target=VIDEO_TARGET)) == []


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("target", [HTJ2K_RPCL, EXPLICIT, f"{JPEG}80", f"{JPEG}70"])
def test_lossless_targets_are_taken(target: str) -> None:
    check_rules(TranscodeSettings(target=target, rules=(TranscodeRule(target=target),)))


@pytest.mark.parametrize("number", [50, 81, 91, 203])
def test_a_lossy_target_needs_a_quality(number: int) -> None:
    target = f"{JPEG}{number}"
    check_rules(TranscodeSettings(rules=(TranscodeRule(target=target, quality=80),)))
    with pytest.raises(InvalidRequest, match=r"number 1: .* is lossy: .* quality"):
        check_rules(TranscodeSettings(rules=(TranscodeRule(target=target),)))


def test_jpeg_may_become_jpeg_xl_and_come_back_without_one() -> None:
    there = TranscodeRule(target=f"{JPEG}111", sources=(f"{JPEG}50",))
    back = TranscodeRule(target=f"{JPEG}50", sources=(f"{JPEG}111",))
    check_rules(TranscodeSettings(rules=(there, back)))
    with pytest.raises(InvalidRequest, match="number 1"):
        check_rules(TranscodeSettings(rules=(TranscodeRule(target=f"{JPEG}111"),)))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target": "1.2.3"}, "transcode.target = '1.2.3': no lossless"),
        ({"target": f"{JPEG}91"}, "no lossless transfer syntax that can be made"),
        ({"target": f"{JPEG}110"}, "is not in transcode.displayable"),
        ({"displayable": (EXPLICIT,)}, "is not in transcode.displayable"),
        ({"rules": [{"target": f"{JPEG}108"}]}, "number 1: target .* can be made"),
        ({"rules": [{"target": f"{JPEG}80"}, {"target": "1.2.3"}]}, "number 2: target '1.2.3'"),
        ({"rules": [{"target": f"{JPEG}80", "quality": 9}]}, "is lossless: leave out the quality"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        check_rules(TranscodeSettings(**settings))


def test_all_that_is_wrong_is_said_at_once() -> None:
    settings = TranscodeSettings(
        target="1.2.3", rules=(TranscodeRule(target="4.5.6"), TranscodeRule(target=f"{JPEG}91"))
    )
    with pytest.raises(InvalidRequest) as refused:
        check_rules(settings)
    assert [part in str(refused.value) for part in ("1.2.3", "4.5.6", "lossy")] == [True] * 3

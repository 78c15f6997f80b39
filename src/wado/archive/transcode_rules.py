"""Rules of the transcode queue: which copies are made of an image (`wado.transcode_settings`)."""

from wado.dicom.codec_table import can_encode, recompresses
from wado.dicom.coded_video import H264
from wado.dicom.media_types import media_type_of
from wado.errors import InvalidRequest
from wado.records import DicomImageMeta
from wado.transcode_settings import TranscodeRule, TranscodeSettings

_JPEG = "1.2.840.10008.1.2.4."
VIDEO_TARGET = f"{_JPEG}102"
"""MPEG-4 AVC/H.264 High Profile / Level 4.1 (PS3.5 §8.2.7): what other video becomes."""
ELSEWHERE = frozenset(
    {
        *(f"{_JPEG}{n}" for n in (94, 95, 204, 205)),
        *(f"1.2.840.10008.1.2.7.{n}" for n in (1, 2, 3)),
    }
)
"""Transfer syntaxes whose pixels are not in the file (JPIP, PS3.5 §8.4; SMPTE ST 2110): there is
nothing to convert, which is put on record like any other failure."""


def targets(
    settings: TranscodeSettings, image: DicomImageMeta, *, has_pixels: bool
) -> list[tuple[str, int]]:
    """List the copies that an image is to have: transfer syntax, and quality (0: lossless).

    What viewers can't show gets a copy that they can. Beside that, the first rule that fits is
    followed. What fits is decided by the records alone: whether it can be done, who does it finds.
    H.264 is listed as its own copy, which is made only of what is not in an MP4 file.
    """
    source = image.transfer_syntax_uid
    is_elsewhere = source in ELSEWHERE
    if not settings.enabled or not (has_pixels or is_elsewhere):
        return []
    if source in H264:  # its container may be one that browsers don't play
        return [(source, 0)]
    found: dict[str, int] = {}
    if source not in settings.displayable:
        found[VIDEO_TARGET if is_video(source) else settings.target] = 0
    if settings.rules and not is_elsewhere:
        rule = next((rule for rule in settings.rules if _fits(rule, image)), None)
        if rule is not None:
            found.setdefault(rule.target, rule.quality or 0)
    found.pop(source, None)
    return list(found.items())


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether it is a transfer syntax of video, whose frames are not worked on one by one."""
    return media_type_of(transfer_syntax_uid).startswith("video/")


def _fits(rule: TranscodeRule, image: DicomImageMeta) -> bool:
    """Whether an image fits all that a rule says; video never becomes single images."""
    source = image.transfer_syntax_uid
    return (
        (not rule.sources or source in rule.sources)
        and (not rule.modalities or image.modality in rule.modalities)
        and (image.rows or 0) * (image.columns or 0) >= rule.min_pixels
        and (image.number_of_frames or 1) >= rule.min_frames
        and image.file_size >= rule.min_bytes
        and is_video(source) == is_video(rule.target)
    )


def check_rules(settings: TranscodeSettings) -> None:
    """Refuse rules that can't be followed, at the start rather than with each image.

    Raises
    ------
    InvalidRequest
        Names all that is wrong.
    """
    problems = []
    if not can_encode(settings.target):
        problems.append(
            f"transcode.target = {settings.target!r}: no lossless transfer syntax that can be made"
        )
    elif settings.target not in settings.displayable:
        problems.append(
            f"transcode.target = {settings.target!r} is not in transcode.displayable: "
            "viewers could not show the copies"
        )
    for number, rule in enumerate(settings.rules, 1):
        problem = _problem(rule)
        if problem:
            problems.append(f"transcode.rules, number {number}: {problem}")
    if problems:
        raise InvalidRequest("\n".join(problems))


def _problem(rule: TranscodeRule) -> str:
    """Say why a rule can't be followed; empty if it can."""
    target = rule.target
    if target == VIDEO_TARGET:
        return ""
    if rule.sources and all(recompresses(source, target) for source in rule.sources):
        return ""
    if not can_encode(target, lossy=True):
        return f"target {target!r} is no transfer syntax that can be made"
    if not can_encode(target) and rule.quality is None:
        return (
            f"target {target!r} is lossy: it is made only with a quality (1 to 100), "
            "so that nobody loses pixels unasked"
        )
    if can_encode(target) and rule.quality is not None:
        return f"target {target!r} is lossless: leave out the quality"
    return ""

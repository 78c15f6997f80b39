"""Settings of the transcode queue: which images get a copy in another transfer syntax."""

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TransferSyntax = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
_JPEG = "1.2.840.10008.1.2.4."
HTJ2K_RPCL = f"{_JPEG}202"
DISPLAYABLE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    *(f"{_JPEG}{n}" for n in (50, 57, 70, 80, 81, 90, 91, 201, 202, 203)),
    *(f"{_JPEG}{n}" for n in (102, 103, 104, 105, 106)),
    *(f"{_JPEG}{n}.1" for n in (102, 103, 104, 105, 106)),
)
"""What Cornerstone3D shows with right values, or the server always sends otherwise (Implicit VR,
Big Endian, Deflated), and H.264, which browsers play. Not JPEG Extended: version 5.14 decodes 12
bits of it to wrong values (off by 30 HU in a CT of the corpus, by 15 to 150 in an MR)."""


class TranscodeRule(BaseModel):
    """Images that fit all of what is given here get a copy in `target`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: TransferSyntax = Field(description="Transfer syntax UID of the copy.")
    sources: tuple[TransferSyntax, ...] = Field(
        (), description="Transfer syntaxes of the originals; empty: any."
    )
    modalities: tuple[str, ...] = Field((), description="Modalities; empty: any.")
    min_pixels: int = Field(0, ge=0, description="Least rows times columns of a frame.")
    min_frames: int = Field(0, ge=0, description="Least Number of Frames.")
    min_bytes: int = Field(0, ge=0, description="Least size of the file in bytes.")
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="For a lossy target, which is made only where a rule gives this: 100 is best.",
    )


class TranscodeSettings(BaseModel):
    """The transcode queue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        default=True, description="Whether copies are made of images that arrive."
    )
    displayable: tuple[TransferSyntax, ...] = Field(
        DISPLAYABLE,
        description="Transfer syntaxes that viewers can show; images in others get a copy.",
    )
    target: TransferSyntax = Field(
        HTJ2K_RPCL,
        description="Lossless transfer syntax of these copies; what does not fit it becomes "
        "Explicit VR Little Endian, and video H.264.",
    )
    rules: tuple[TranscodeRule, ...] = Field(
        (), description="Further copies: the first rule that fits an image is followed."
    )
    workers: int = Field(
        0, ge=0, description="Images that a webworker works on at a time; 0: half of its cores."
    )
    max_pixels: int = Field(
        1 << 28, ge=1, description="Most pixels of a frame that is decoded for a copy."
    )
    frame_timeout_s: float = Field(
        120.0, gt=0, description="Seconds after which the work on one frame is given up."
    )
    memory_bytes: int = Field(
        8 << 30, ge=1 << 29, description="Most address space of a process that works on pixels."
    )
    attempts: int = Field(
        3, ge=1, description="How often work that may pass later (crash, time, memory) is tried."
    )
    ffmpeg: str = Field(
        "ffmpeg", description="Program that converts video: a name to be found, or a path."
    )
    video_timeout_s: float = Field(
        3600.0, gt=0, description="Seconds after which the conversion of a video is given up."
    )

    @property
    def images_at_a_time(self) -> int:
        """`workers`, or half of the cores that this process may use."""
        return self.workers or max(1, len(os.sched_getaffinity(0)) // 2)

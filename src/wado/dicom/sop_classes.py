"""Storage SOP classes and transfer syntaxes (PS3.4 Annex B, PS3.5 Annex A, PS3.6 Annex A)."""

from dataclasses import dataclass
from functools import lru_cache

_ROOT = "1.2.840.10008."

_STORAGE = """
5.1.1.29 Hardcopy Grayscale Image Storage (Retired)
5.1.1.30 Hardcopy Color Image Storage (Retired)
5.1.4.1.1.1 Computed Radiography Image Storage
5.1.4.1.1.1.1 Digital X-Ray Image Storage - For Presentation
5.1.4.1.1.1.1.1 Digital X-Ray Image Storage - For Processing
5.1.4.1.1.1.2 Digital Mammography X-Ray Image Storage - For Presentation
5.1.4.1.1.1.2.1 Digital Mammography X-Ray Image Storage - For Processing
5.1.4.1.1.1.3 Digital Intra-Oral X-Ray Image Storage - For Presentation
5.1.4.1.1.1.3.1 Digital Intra-Oral X-Ray Image Storage - For Processing
5.1.4.1.1.2 CT Image Storage
5.1.4.1.1.2.1 Enhanced CT Image Storage
5.1.4.1.1.2.2 Legacy Converted Enhanced CT Image Storage
5.1.4.1.1.3 Ultrasound Multi-frame Image Storage (Retired)
5.1.4.1.1.3.1 Ultrasound Multi-frame Image Storage
5.1.4.1.1.4 MR Image Storage
5.1.4.1.1.4.1 Enhanced MR Image Storage
5.1.4.1.1.4.2 MR Spectroscopy Storage
5.1.4.1.1.4.3 Enhanced MR Color Image Storage
5.1.4.1.1.4.4 Legacy Converted Enhanced MR Image Storage
5.1.4.1.1.5 Nuclear Medicine Image Storage (Retired)
5.1.4.1.1.6 Ultrasound Image Storage (Retired)
5.1.4.1.1.6.1 Ultrasound Image Storage
5.1.4.1.1.6.2 Enhanced US Volume Storage
5.1.4.1.1.6.3 Photoacoustic Image Storage
5.1.4.1.1.7 Secondary Capture Image Storage
5.1.4.1.1.7.1 Multi-frame Single Bit Secondary Capture Image Storage
5.1.4.1.1.7.2 Multi-frame Grayscale Byte Secondary Capture Image Storage
5.1.4.1.1.7.3 Multi-frame Grayscale Word Secondary Capture Image Storage
5.1.4.1.1.7.4 Multi-frame True Color Secondary Capture Image Storage
5.1.4.1.1.8 Standalone Overlay Storage (Retired)
5.1.4.1.1.9 Standalone Curve Storage (Retired)
5.1.4.1.1.9.1 Waveform Storage - Trial (Retired)
5.1.4.1.1.9.1.1 12-lead ECG Waveform Storage
5.1.4.1.1.9.1.2 General ECG Waveform Storage
5.1.4.1.1.9.1.3 Ambulatory ECG Waveform Storage
5.1.4.1.1.9.1.4 General 32-bit ECG Waveform Storage
5.1.4.1.1.9.2.1 Hemodynamic Waveform Storage
5.1.4.1.1.9.3.1 Cardiac Electrophysiology Waveform Storage
5.1.4.1.1.9.4.1 Basic Voice Audio Waveform Storage
5.1.4.1.1.9.4.2 General Audio Waveform Storage
5.1.4.1.1.9.5.1 Arterial Pulse Waveform Storage
5.1.4.1.1.9.6.1 Respiratory Waveform Storage
5.1.4.1.1.9.6.2 Multi-channel Respiratory Waveform Storage
5.1.4.1.1.9.7.1 Routine Scalp Electroencephalogram Waveform Storage
5.1.4.1.1.9.7.2 Electromyogram Waveform Storage
5.1.4.1.1.9.7.3 Electrooculogram Waveform Storage
5.1.4.1.1.9.7.4 Sleep Electroencephalogram Waveform Storage
5.1.4.1.1.9.8.1 Body Position Waveform Storage
5.1.4.1.1.9.100.1 Waveform Presentation State Storage
5.1.4.1.1.9.100.2 Waveform Acquisition Presentation State Storage
5.1.4.1.1.10 Standalone Modality LUT Storage (Retired)
5.1.4.1.1.11 Standalone VOI LUT Storage (Retired)
5.1.4.1.1.11.1 Grayscale Softcopy Presentation State Storage
5.1.4.1.1.11.2 Color Softcopy Presentation State Storage
5.1.4.1.1.11.3 Pseudo-Color Softcopy Presentation State Storage
5.1.4.1.1.11.4 Blending Softcopy Presentation State Storage
5.1.4.1.1.11.5 XA/XRF Grayscale Softcopy Presentation State Storage
5.1.4.1.1.11.6 Grayscale Planar MPR Volumetric Presentation State Storage
5.1.4.1.1.11.7 Compositing Planar MPR Volumetric Presentation State Storage
5.1.4.1.1.11.8 Advanced Blending Presentation State Storage
5.1.4.1.1.11.9 Volume Rendering Volumetric Presentation State Storage
5.1.4.1.1.11.10 Segmented Volume Rendering Volumetric Presentation State Storage
5.1.4.1.1.11.11 Multiple Volume Rendering Volumetric Presentation State Storage
5.1.4.1.1.11.12 Variable Modality LUT Softcopy Presentation State Storage
5.1.4.1.1.12.1 X-Ray Angiographic Image Storage
5.1.4.1.1.12.1.1 Enhanced XA Image Storage
5.1.4.1.1.12.2 X-Ray Radiofluoroscopic Image Storage
5.1.4.1.1.12.2.1 Enhanced XRF Image Storage
5.1.4.1.1.12.3 X-Ray Angiographic Bi-Plane Image Storage (Retired)
5.1.4.1.1.13.1.1 X-Ray 3D Angiographic Image Storage
5.1.4.1.1.13.1.2 X-Ray 3D Craniofacial Image Storage
5.1.4.1.1.13.1.3 Breast Tomosynthesis Image Storage
5.1.4.1.1.13.1.4 Breast Projection X-Ray Image Storage - For Presentation
5.1.4.1.1.13.1.5 Breast Projection X-Ray Image Storage - For Processing
5.1.4.1.1.14.1 Intravascular Optical Coherence Tomography Image Storage - For Presentation
5.1.4.1.1.14.2 Intravascular Optical Coherence Tomography Image Storage - For Processing
5.1.4.1.1.20 Nuclear Medicine Image Storage
5.1.4.1.1.30 Parametric Map Storage
5.1.4.1.1.66 Raw Data Storage
5.1.4.1.1.66.1 Spatial Registration Storage
5.1.4.1.1.66.2 Spatial Fiducials Storage
5.1.4.1.1.66.3 Deformable Spatial Registration Storage
5.1.4.1.1.66.4 Segmentation Storage
5.1.4.1.1.66.5 Surface Segmentation Storage
5.1.4.1.1.66.6 Tractography Results Storage
5.1.4.1.1.66.7 Label Map Segmentation Storage
5.1.4.1.1.66.8 Height Map Segmentation Storage
5.1.4.1.1.67 Real World Value Mapping Storage
5.1.4.1.1.68.1 Surface Scan Mesh Storage
5.1.4.1.1.68.2 Surface Scan Point Cloud Storage
5.1.4.1.1.77.1 VL Image Storage - Trial (Retired)
5.1.4.1.1.77.1.1 VL Endoscopic Image Storage
5.1.4.1.1.77.1.1.1 Video Endoscopic Image Storage
5.1.4.1.1.77.1.2 VL Microscopic Image Storage
5.1.4.1.1.77.1.2.1 Video Microscopic Image Storage
5.1.4.1.1.77.1.3 VL Slide-Coordinates Microscopic Image Storage
5.1.4.1.1.77.1.4 VL Photographic Image Storage
5.1.4.1.1.77.1.4.1 Video Photographic Image Storage
5.1.4.1.1.77.1.5.1 Ophthalmic Photography 8 Bit Image Storage
5.1.4.1.1.77.1.5.2 Ophthalmic Photography 16 Bit Image Storage
5.1.4.1.1.77.1.5.3 Stereometric Relationship Storage
5.1.4.1.1.77.1.5.4 Ophthalmic Tomography Image Storage
5.1.4.1.1.77.1.5.5 Wide Field Ophthalmic Photography Stereographic Projection Image Storage
5.1.4.1.1.77.1.5.6 Wide Field Ophthalmic Photography 3D Coordinates Image Storage
5.1.4.1.1.77.1.5.7 Ophthalmic Optical Coherence Tomography En Face Image Storage
5.1.4.1.1.77.1.5.8 Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage
5.1.4.1.1.77.1.6 VL Whole Slide Microscopy Image Storage
5.1.4.1.1.77.1.7 Dermoscopic Photography Image Storage
5.1.4.1.1.77.1.8 Confocal Microscopy Image Storage
5.1.4.1.1.77.1.9 Confocal Microscopy Tiled Pyramidal Image Storage
5.1.4.1.1.77.2 VL Multi-frame Image Storage - Trial (Retired)
5.1.4.1.1.78.1 Lensometry Measurements Storage
5.1.4.1.1.78.2 Autorefraction Measurements Storage
5.1.4.1.1.78.3 Keratometry Measurements Storage
5.1.4.1.1.78.4 Subjective Refraction Measurements Storage
5.1.4.1.1.78.5 Visual Acuity Measurements Storage
5.1.4.1.1.78.6 Spectacle Prescription Report Storage
5.1.4.1.1.78.7 Ophthalmic Axial Measurements Storage
5.1.4.1.1.78.8 Intraocular Lens Calculations Storage
5.1.4.1.1.79.1 Macular Grid Thickness and Volume Report Storage
5.1.4.1.1.80.1 Ophthalmic Visual Field Static Perimetry Measurements Storage
5.1.4.1.1.81.1 Ophthalmic Thickness Map Storage
5.1.4.1.1.82.1 Corneal Topography Map Storage
5.1.4.1.1.88.1 Text SR Storage - Trial (Retired)
5.1.4.1.1.88.2 Audio SR Storage - Trial (Retired)
5.1.4.1.1.88.3 Detail SR Storage - Trial (Retired)
5.1.4.1.1.88.4 Comprehensive SR Storage - Trial (Retired)
5.1.4.1.1.88.11 Basic Text SR Storage
5.1.4.1.1.88.22 Enhanced SR Storage
5.1.4.1.1.88.33 Comprehensive SR Storage
5.1.4.1.1.88.34 Comprehensive 3D SR Storage
5.1.4.1.1.88.35 Extensible SR Storage
5.1.4.1.1.88.40 Procedure Log Storage
5.1.4.1.1.88.50 Mammography CAD SR Storage
5.1.4.1.1.88.59 Key Object Selection Document Storage
5.1.4.1.1.88.65 Chest CAD SR Storage
5.1.4.1.1.88.67 X-Ray Radiation Dose SR Storage
5.1.4.1.1.88.68 Radiopharmaceutical Radiation Dose SR Storage
5.1.4.1.1.88.69 Colon CAD SR Storage
5.1.4.1.1.88.70 Implantation Plan SR Storage
5.1.4.1.1.88.71 Acquisition Context SR Storage
5.1.4.1.1.88.72 Simplified Adult Echo SR Storage
5.1.4.1.1.88.73 Patient Radiation Dose SR Storage
5.1.4.1.1.88.74 Planned Imaging Agent Administration SR Storage
5.1.4.1.1.88.75 Performed Imaging Agent Administration SR Storage
5.1.4.1.1.88.76 Enhanced X-Ray Radiation Dose SR Storage
5.1.4.1.1.88.77 Waveform Annotation SR Storage
5.1.4.1.1.90.1 Content Assessment Results Storage
5.1.4.1.1.91.1 Microscopy Bulk Simple Annotations Storage
5.1.4.1.1.104.1 Encapsulated PDF Storage
5.1.4.1.1.104.2 Encapsulated CDA Storage
5.1.4.1.1.104.3 Encapsulated STL Storage
5.1.4.1.1.104.4 Encapsulated OBJ Storage
5.1.4.1.1.104.5 Encapsulated MTL Storage
5.1.4.1.1.128 Positron Emission Tomography Image Storage
5.1.4.1.1.128.1 Legacy Converted Enhanced PET Image Storage
5.1.4.1.1.129 Standalone PET Curve Storage (Retired)
5.1.4.1.1.130 Enhanced PET Image Storage
5.1.4.1.1.131 Basic Structured Display Storage
5.1.4.1.1.200.2 CT Performed Procedure Protocol Storage
5.1.4.1.1.200.8 XA Performed Procedure Protocol Storage
5.1.4.1.1.481.1 RT Image Storage
5.1.4.1.1.481.2 RT Dose Storage
5.1.4.1.1.481.3 RT Structure Set Storage
5.1.4.1.1.481.4 RT Beams Treatment Record Storage
5.1.4.1.1.481.5 RT Plan Storage
5.1.4.1.1.481.6 RT Brachy Treatment Record Storage
5.1.4.1.1.481.7 RT Treatment Summary Record Storage
5.1.4.1.1.481.8 RT Ion Plan Storage
5.1.4.1.1.481.9 RT Ion Beams Treatment Record Storage
5.1.4.1.1.481.10 RT Physician Intent Storage
5.1.4.1.1.481.11 RT Segment Annotation Storage
5.1.4.1.1.481.12 RT Radiation Set Storage
5.1.4.1.1.481.13 C-Arm Photon-Electron Radiation Storage
5.1.4.1.1.481.14 Tomotherapeutic Radiation Storage
5.1.4.1.1.481.15 Robotic-Arm Radiation Storage
5.1.4.1.1.481.16 RT Radiation Record Set Storage
5.1.4.1.1.481.17 RT Radiation Salvage Record Storage
5.1.4.1.1.481.18 Tomotherapeutic Radiation Record Storage
5.1.4.1.1.481.19 C-Arm Photon-Electron Radiation Record Storage
5.1.4.1.1.481.20 Robotic Radiation Record Storage
5.1.4.1.1.481.21 RT Radiation Set Delivery Instruction Storage
5.1.4.1.1.481.22 RT Treatment Preparation Storage
5.1.4.1.1.481.23 Enhanced RT Image Storage
5.1.4.1.1.481.24 Enhanced Continuous RT Image Storage
5.1.4.1.1.481.25 RT Patient Position Acquisition Instruction Storage
5.1.4.34.1 RT Beams Delivery Instruction Storage - Trial (Retired)
5.1.4.34.7 RT Beams Delivery Instruction Storage
5.1.4.34.10 RT Brachy Application Setup Delivery Instruction Storage
"""
# Retired classes stay: devices that send them are older than their retirement.

_SYNTAXES = """
1.2 Implicit VR Little Endian
1.2.1 Explicit VR Little Endian
1.2.1.98 Encapsulated Uncompressed Explicit VR Little Endian
1.2.1.99 Deflated Explicit VR Little Endian
1.2.2 Explicit VR Big Endian
1.2.4.50 JPEG Baseline (Process 1)
1.2.4.51 JPEG Extended (Process 2 and 4)
1.2.4.52 JPEG Extended (Process 3 and 5)
1.2.4.53 JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)
1.2.4.54 JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)
1.2.4.55 JPEG Full Progression, Non-Hierarchical (Process 10 and 12)
1.2.4.56 JPEG Full Progression, Non-Hierarchical (Process 11 and 13)
1.2.4.57 JPEG Lossless, Non-Hierarchical (Process 14)
1.2.4.58 JPEG Lossless, Non-Hierarchical (Process 15)
1.2.4.59 JPEG Extended, Hierarchical (Process 16 and 18)
1.2.4.60 JPEG Extended, Hierarchical (Process 17 and 19)
1.2.4.61 JPEG Spectral Selection, Hierarchical (Process 20 and 22)
1.2.4.62 JPEG Spectral Selection, Hierarchical (Process 21 and 23)
1.2.4.63 JPEG Full Progression, Hierarchical (Process 24 and 26)
1.2.4.64 JPEG Full Progression, Hierarchical (Process 25 and 27)
1.2.4.65 JPEG Lossless, Hierarchical (Process 28)
1.2.4.66 JPEG Lossless, Hierarchical (Process 29)
1.2.4.70 JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])
1.2.4.80 JPEG-LS Lossless Image Compression
1.2.4.81 JPEG-LS Lossy (Near-Lossless) Image Compression
1.2.4.90 JPEG 2000 Image Compression (Lossless Only)
1.2.4.91 JPEG 2000 Image Compression
1.2.4.92 JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)
1.2.4.93 JPEG 2000 Part 2 Multi-component Image Compression
1.2.4.94 JPIP Referenced
1.2.4.95 JPIP Referenced Deflate
1.2.4.100 MPEG2 Main Profile / Main Level
1.2.4.100.1 Fragmentable MPEG2 Main Profile / Main Level
1.2.4.101 MPEG2 Main Profile / High Level
1.2.4.101.1 Fragmentable MPEG2 Main Profile / High Level
1.2.4.102 MPEG-4 AVC/H.264 High Profile / Level 4.1
1.2.4.102.1 Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1
1.2.4.103 MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
1.2.4.103.1 Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
1.2.4.104 MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video
1.2.4.104.1 Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video
1.2.4.105 MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video
1.2.4.105.1 Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video
1.2.4.106 MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
1.2.4.106.1 Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
1.2.4.107 HEVC/H.265 Main Profile / Level 5.1
1.2.4.108 HEVC/H.265 Main 10 Profile / Level 5.1
1.2.4.110 JPEG XL Lossless
1.2.4.111 JPEG XL JPEG Recompression
1.2.4.112 JPEG XL
1.2.4.201 High-Throughput JPEG 2000 Image Compression (Lossless Only)
1.2.4.202 High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)
1.2.4.203 High-Throughput JPEG 2000 Image Compression
1.2.4.204 JPIP HTJ2K Referenced
1.2.4.205 JPIP HTJ2K Referenced Deflate
1.2.5 RLE Lossless
1.2.6.1 RFC 2557 MIME encapsulation
1.2.6.2 XML Encoding
1.2.7.1 SMPTE ST 2110-20 Uncompressed Progressive Active Video
1.2.7.2 SMPTE ST 2110-20 Uncompressed Interlaced Active Video
1.2.7.3 SMPTE ST 2110-30 PCM Digital Audio
1.2.8.1 Deflated Image Frame Compression
1.20 Papyrus 3 Implicit VR Little Endian
"""


def _table(text: str) -> dict[str, str]:
    rows = (line.split(" ", 1) for line in text.strip().splitlines())
    return {_ROOT + suffix: name for suffix, name in rows}


STORAGE_SOP_CLASSES: dict[str, str] = _table(_STORAGE)
"""Name of each SOP class of the Storage Service Class (PS3.4 §B.5), retired ones included."""

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_GE_IMPLICIT = "1.2.840.113619.5.2"
_IMPLICIT = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.20", _GE_IMPLICIT})
_DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
_REFERENCED = frozenset({"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"})


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """How a data set is encoded.

    `encapsulated` tells whether Pixel Data is a sequence of fragments (PS3.5 §A.4); None if that
    is not known, as for a private transfer syntax.
    """

    uid: str
    name: str
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False
    encapsulated: bool | None = False


def _known(uid: str, name: str) -> TransferSyntax:
    compressed = uid.startswith(
        ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.")
    )
    return TransferSyntax(
        uid,
        name,
        implicit=uid in _IMPLICIT,
        big_endian=uid == EXPLICIT_VR_BIG_ENDIAN,
        deflated=uid in _DEFLATED,
        encapsulated=uid == "1.2.840.10008.1.2.1.98"
        or (compressed and uid not in _DEFLATED | _REFERENCED),
    )


TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {
    uid: _known(uid, name)
    for uid, name in {
        **_table(_SYNTAXES),
        _GE_IMPLICIT: "GE Private Implicit VR Big Endian Pixel Data",
    }.items()
}
"""Every transfer syntax of PS3.6 Table A-1, and the private one of GE that is still met."""


@lru_cache(maxsize=256)
def transfer_syntax(uid: str) -> TransferSyntax:
    """Properties of a transfer syntax; one that is not known counts as Explicit VR Little Endian.

    References
    ----------
    PS3.5 §10.1 and §A.4: what isn't the default syntax or retired is Explicit VR Little Endian.
    """
    known = TRANSFER_SYNTAXES.get(uid)
    return known or TransferSyntax(uid, "Unknown or private", encapsulated=None)

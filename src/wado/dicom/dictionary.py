"""VR and keyword of a tag: the data dictionary (PS3.6), and private ones.

The tables are those of pydicom. Only its two table modules are executed, not the package: that
would cost a second at the start of a process.
"""

import importlib.machinery
import importlib.util
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType


def _table_module(name: str) -> ModuleType:
    package = importlib.util.find_spec("pydicom")
    assert package is not None
    assert package.origin is not None
    file = str(Path(package.origin).with_name(f"{name}.py"))
    loader = importlib.machinery.SourceFileLoader(f"wado.dicom.{name}", file)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@cache
def _public() -> tuple[dict[int, tuple[str, ...]], list[tuple[int, int, str, str]]]:
    """The dictionary, and mask, value, VR and keyword of repeating groups such as (60xx,3000)."""
    module = _table_module("_dicom_dict")
    repeaters = []
    for pattern, entry in module.RepeatersDictionary.items():
        mask = int("".join("0" if c == "x" else "F" for c in pattern), 16)
        repeaters.append((mask, int(pattern.replace("x", "0"), 16), entry[0], entry[4]))
    return module.DicomDictionary, repeaters


@cache
def _private() -> dict[str, dict[str, tuple[str, ...]]]:
    tables: dict[str, dict[str, tuple[str, ...]]] = _table_module(
        "_private_dict"
    ).private_dictionaries
    return tables


@lru_cache(maxsize=8192)
def public_vr(tag: int) -> str:
    """VR by the data dictionary, which can be ambiguous (``US or SS``); ``UN`` if not listed."""
    entries, repeaters = _public()
    entry = entries.get(tag)
    if entry is not None:
        return entry[0]
    if tag & 0xFFFF == 0:
        return "UL"
    return next((vr for mask, value, vr, _ in repeaters if tag & mask == value), "UN")


@lru_cache(maxsize=8192)
def public_keyword(tag: int) -> str:
    """Keyword of an attribute by the data dictionary; empty if it has none or is not listed."""
    entries, repeaters = _public()
    entry = entries.get(tag)
    if entry is not None:
        return entry[4]
    return next((name for mask, value, _, name in repeaters if tag & mask == value), "")


@cache
def _tag_of_keyword() -> dict[str, int]:
    entries, _ = _public()
    return {entry[4]: tag for tag, entry in entries.items() if entry[4]}


def public_tag(keyword: str) -> int | None:
    """Tag of a keyword by the data dictionary; None if it isn't one, or one of many groups."""
    return _tag_of_keyword().get(keyword)


def has_many_values(tag: int) -> bool:
    """Whether the data dictionary allows more than one value (PS3.6 §6, column VM)."""
    entries, _ = _public()
    return tag in entries and entries[tag][1] != "1"


@lru_cache(maxsize=8192)
def private_vr(private_creator: str, tag: int) -> str:
    """VR of a private element as its creator is known to use it; ``UN`` if it isn't known.

    References
    ----------
    PS3.5 §7.8.1: the block number, of which the first byte of the element is made, may differ.
    """
    entries = _private().get(private_creator, {})
    text = f"{tag:08X}"
    for key in (text, f"{text[:4]}xx{text[6:]}", f"{text[:2]}xxxx{text[6:]}"):
        if key in entries:
            return entries[key][0]
    return "UN"

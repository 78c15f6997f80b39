"""The table of keys agrees with what records hold."""

from wado.dicom.matching import KEYS, Level
from wado.records import DicomStateMeta


def test_keys_have_the_names_of_the_records():
    derived = {"modalities_in_study", "number_of_study_related_series",
               "number_of_study_related_instances", "sop_class_uid", "sop_instance_uid",
               "instance_number"}  # fmt: skip
    fields = set(DicomStateMeta.__dataclass_fields__)
    assert {key.keyword for key in KEYS} - fields == derived


def test_rows_show_their_own_level_and_those_above():
    assert Level.SERIES.holds(Level.STUDY)
    assert Level.SERIES.holds(Level.SERIES)
    assert not Level.SERIES.holds(Level.INSTANCE)

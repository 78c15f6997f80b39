"""Documents of many JSON texts: addresses put in wherever the pieces are cut, and gzip."""

import gzip
import itertools

import orjson
from hypothesis import given
from hypothesis import strategies as st

from wado.archive.json_documents import gzipped, json_array, rebase_bulk_uris, rebased

BASE = "http://pacs.example:8080/dicomweb/studies/1.2/"
TEXT = orjson.dumps(
    {
        "00104000": {"vr": "LT", "Value": ['"BulkDataURI":"instances/ in a text']},
        "7FE00010": {"vr": "OW", "BulkDataURI": "instances/1.2.3/bulkdata/7FE00010"},
        "54000100": {"vr": "SQ", "Value": [{"54001010": {"BulkDataURI": "instances/1.2.3/x"}}]},
    }
)


@given(st.lists(st.integers(0, 2 * len(TEXT)), max_size=8))
def test_addresses_are_put_in_wherever_the_pieces_are_cut(cuts: list[int]):
    document = b"".join(json_array([TEXT, TEXT]))
    bounds = [0, *sorted(cuts), len(document)]
    pieces = [document[a:b] for a, b in itertools.pairwise(bounds)]
    whole = b"".join(rebased(pieces, BASE))
    assert whole == b"".join(rebased([document], BASE))
    for item in orjson.loads(whole):
        assert item["7FE00010"]["BulkDataURI"] == f"{BASE}instances/1.2.3/bulkdata/7FE00010"
        nested = item["54000100"]["Value"][0]["54001010"]["BulkDataURI"]
        assert nested == f"{BASE}instances/1.2.3/x"
        assert item["00104000"]["Value"] == ['"BulkDataURI":"instances/ in a text']


def test_addresses_of_one_text_are_put_in_likewise():
    text = rebase_bulk_uris(TEXT, f"{BASE}instances/".encode())
    assert [orjson.loads(text)] == orjson.loads(b"".join(rebased(json_array([TEXT]), BASE)))


def test_an_array_of_nothing():
    assert b"".join(json_array([])) == b"[]"


@given(st.lists(st.binary(max_size=100)), st.sampled_from([1, 5]))
def test_gzip_gives_the_same_bytes_each_time(pieces: list[bytes], level: int):
    packed = b"".join(gzipped(pieces, level))
    assert gzip.decompress(packed) == b"".join(pieces)
    assert packed == b"".join(gzipped(pieces, level))

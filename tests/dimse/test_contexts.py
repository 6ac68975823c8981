from __future__ import annotations

from pynetdicom import sop_class

from archive.dimse import contexts
from archive.dimse.contexts import STORAGE, abstract_syntaxes, supported_of, table

from .raw import CT, EXPLICIT, FIND, VERIFICATION

# What a conformance statement of the field lists and pynetdicom's tables of the current standard do not.
OLDER_OR_PRIVATE = """
    1.2.840.10008.5.1.4.1.1.3 1.2.840.10008.5.1.4.1.1.5 1.2.840.10008.5.1.4.1.1.6 1.2.840.10008.5.1.4.1.1.8
    1.2.840.10008.5.1.4.1.1.9 1.2.840.10008.5.1.4.1.1.9.1 1.2.840.10008.5.1.4.1.1.10 1.2.840.10008.5.1.4.1.1.11
    1.2.840.10008.5.1.4.1.1.12.3 1.2.840.10008.5.1.4.1.1.77.1 1.2.840.10008.5.1.4.1.1.129
    1.3.46.670589.11.0.0.12.2 1.3.46.670589.11.0.0.12.4
""".split()


def test_every_storage_class_of_the_standard_is_accepted() -> None:
    offered = table()
    for uid in sop_class._STORAGE_CLASSES.values():
        assert offered.offer(str(uid)) is not None


def test_retired_and_private_classes_are_accepted_too() -> None:
    assert not [uid for uid in OLDER_OR_PRIVATE if uid not in table()]


def test_every_class_has_a_name() -> None:
    assert all(name and name != uid for uid, name in STORAGE.items())


def test_every_transfer_syntax_of_the_standard_can_be_stored() -> None:
    offer = table().offer(CT)
    assert offer is not None
    for suffix in ("", ".1", ".2", ".1.99", ".4.50", ".4.66", ".4.70", ".4.95", ".4.108", ".4.201", ".4.203", ".5"):
        assert f"1.2.840.10008.1.2{suffix}" in offer.transfer_syntaxes


def test_pixels_that_are_elsewhere_can_be_left_out() -> None:
    assert "1.2.840.10008.1.2.4.94" not in contexts.storage_syntaxes()
    assert "1.2.840.10008.1.2.4.94" in contexts.storage_syntaxes(referenced=True)


def test_only_the_services_that_are_named_are_offered() -> None:
    assert table(frozenset(("echo",))).offer(CT) is None
    assert table(frozenset(("echo",))).offer(VERIFICATION) is not None
    assert FIND in abstract_syntaxes(("find",)) and CT not in abstract_syntaxes(("find",))


def test_get_gives_storage_the_other_role() -> None:
    for services, roles in ((("store",), (True, False)), (("get",), (False, True)), (("store", "get"), (True, True))):
        offer = table(frozenset(services)).offer(CT)
        assert offer is not None and (offer.scp, offer.scu) == roles


def test_unknown_classes_are_stored_only_when_told_so() -> None:
    assert table().offer("1.2.3.4") is None
    unknown = table(accept_unknown=True).offer("1.2.3.4")
    assert unknown is not None and EXPLICIT in unknown.transfer_syntaxes


def test_extensions_are_agreed_byte_by_byte() -> None:
    agree = supported_of(b"\1\1\0")
    assert agree(b"\1\0\1\1") == b"\1\0\0\0"
    assert agree(b"") == b""


def test_what_is_proposed_for_fetching_fits_dcmtk() -> None:
    first = (EXPLICIT, "1.2.840.10008.1.2")
    proposed = contexts.proposed_syntaxes(first)
    assert tuple(proposed[:2]) == first
    assert len(set(proposed)) == len(proposed) < contexts.MOST_SYNTAXES
    assert {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"} <= set(proposed)

"""Which priors are relevant, in which order, and what is said of it."""

from __future__ import annotations

from datetime import date

import pytest

from archive.services.relevance import Examination, Verdict, Wish, choose, judge

TODAY = date(2026, 6, 15)
YEARS = 365 * 86400.0
CT_HEAD = Examination.of("1.1", modalities=["CT"], descriptions=["CT head"], procedures=["L:CTHEAD"])


def prior(
    uid: str, day: str = "20260101", modality: str = "CT", description: str = "CT head", **more: list[str]
) -> Examination:
    return Examination.of(uid, day, [modality], descriptions=[description], **more)


def verdict(of: Examination, wish: Wish, coming: Examination = CT_HEAD) -> Verdict:
    return judge(coming, of, wish, TODAY)


def test_same_procedure_comes_before_same_part_before_recency_alone() -> None:
    priors = [
        prior("old same", "20240101"), prior("part", description="MR brain", modality="MR"),
        prior("recent", "20260614", "US", "US knee"), prior("same", "20260101"),
    ]  # fmt: skip
    ranked = choose([verdict(each, Wish()) for each in priors], 4)
    assert [each.prior.study_uid for each in ranked] == ["same", "old same", "part", "recent"]
    assert ranked[0].reasons == ("same procedure", "same body part (head)", "same modality (CT)", "165 days old")


def test_what_is_wanted_beyond_the_number_says_so() -> None:
    ranked = choose([verdict(prior(str(number)), Wish()) for number in range(5)], 2)
    assert [each.against for each in ranked] == ["", "", *["2 are more relevant"] * 3]


AGAINST = [
    (Wish(), prior("1.1"), "it is the examination itself"),
    (Wish(), prior("2", "20270101"), "it is dated later"),
    (Wish(within=5 * YEARS), prior("2", "20200101"), "older than 1825 days"),
    (Wish(within=5 * YEARS), prior("2", ""), "its date is not known"),
    (Wish(modalities=frozenset({"MR"})), prior("2"), "modality is CT"),
    (Wish(same=("modality",)), prior("2", modality="MR"), "other modality (MR)"),
    (Wish(same=("modality",)), prior("2", modality="SR"), "modality is not known"),
    (Wish(same=("body_part",)), prior("2", description="CT abdomen"), "other body part (abdomen)"),
    (Wish(same=("body_part",)), prior("2", description="CT face"), "other body part (face)"),
    (Wish(same=("body_part",)), prior("2", description="follow-up"), "body part is not known"),
    (Wish(same=("procedure",)), prior("2", description="CT head and neck"), "other procedure"),
    (Wish(same=("procedure",)), prior("2", description=""), "procedure is not known"),
]


@pytest.mark.parametrize(("wish", "of", "why"), AGAINST, ids=[why for _, _, why in AGAINST])
def test_what_is_not_wanted_says_why(wish: Wish, of: Examination, why: str) -> None:
    assert verdict(of, wish).against == why


def test_a_code_makes_the_same_procedure_under_another_description() -> None:
    coded = prior("2", description="Skull routine", procedures=["L:CTHEAD"])
    assert verdict(coded, Wish(same=("procedure",))).against == ""


def test_what_the_order_does_not_say_restricts_nothing() -> None:
    vague = Examination.of("1.1")
    wish = Wish(same=("modality", "body_part", "procedure", "laterality"))
    assert judge(vague, prior("2", description="CT abdomen"), wish, TODAY).against == ""


def test_generations_of_radiography_are_one_modality() -> None:
    chest = Examination.of("1.1", modalities=["DX"], descriptions=["Chest PA"])
    wish = Wish(same=("modality", "body_part"))
    assert verdict(prior("2", modality="CR", description="chest"), wish, chest).against == ""


def test_the_other_side_is_another_one_and_both_fit_each() -> None:
    knee = Examination.of("1.1", modalities=["MR"], descriptions=["MR knee left"])
    wish = Wish(same=("laterality",))
    for description, against in {
        "MR knee right": "other side (right)", "MR knee left": "", "MR knee bilateral": "", "MR knee": "",
    }.items():  # fmt: skip
        assert verdict(prior("2", modality="MR", description=description), wish, knee).against == against


def test_a_body_part_code_goes_before_the_description() -> None:
    coded = prior("2", description="CT head and abdomen", body_parts=["ABDOMEN"])
    assert verdict(coded, Wish(same=("body_part",))).against == "other body part (abdomen)"


def test_words_of_a_rule_make_a_prior_more_relevant() -> None:
    plain, staged = prior("plain", description="CT brain"), prior("staged", description="CT head tumor staging")
    ranked = choose([verdict(each, Wish(words=("tumor", "staging"))) for each in (plain, staged)], 2)
    assert [each.points for each in ranked] == [80, 60]
    assert "says 'tumor'" in next(each for each in ranked if each.prior is staged).reasons


def test_equal_priors_come_the_latest_first() -> None:
    ranked = choose([verdict(prior(day, day), Wish()) for day in ("20260101", "20260301", "20260201")], 3)
    assert [each.prior.study_uid for each in ranked] == ["20260301", "20260201", "20260101"]

"""Alarms become notices: gathered, bounded, told once, kept over a restart."""

from __future__ import annotations

import json
import logging

import pytest

from archive.services import wording
from archive.services.alarms import BEGINS, OVER, Alarm, Line
from archive.services.notify import DELAYS, MOST_LINES, REMIND, Mailbox, Notice, Rule
from archive.services.schedule import Schedule

NOW = 1_800_000_000.0


def image(why: str = "A700 (out of resources)", to: str = "WS_RAD", **more: object) -> Alarm:
    return Alarm("route", to, f"failed for {to}", why, noun="image", **more)  # type: ignore[arg-type]


def down(state: str, to: str = "WS_RAD") -> Alarm:
    text = f"destination {to} is {'not reached' if state == BEGINS else 'reached again'}"
    return Alarm("route", to, text, state=state)


def box(**rule: object) -> Mailbox:
    return Mailbox(Rule("pacs", **rule))  # type: ignore[arg-type]


def sent(mailbox: Mailbox, now: float) -> list[str]:
    """The lines of what is due now, which is sent."""
    notice = mailbox.due(now)
    if notice is None:
        return []
    mailbox.settle(now)
    return [wording.line(entry) for entry in notice.entries]


def test_what_is_equal_is_one_line_with_a_number_and_its_reasons() -> None:
    mailbox = box()
    for _ in range(15):
        mailbox.take(image(), NOW)
    mailbox.take(image("no answer", count=2), NOW + 30)
    assert mailbox.wait(NOW + 30) == 30.0
    assert sent(mailbox, NOW + 59) == []
    assert sent(mailbox, NOW + 60) == ["17 images failed for WS_RAD: A700 (out of resources) (15), no answer (2)"]
    assert mailbox.wait(NOW + 60) is None


def test_one_is_not_many() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(), NOW)
    mailbox.take(Alarm("process", "background", "process background ended", count=3), NOW)
    assert sent(mailbox, NOW) == [
        "1 image failed for WS_RAD: A700 (out of resources)", "process background ended (3 times)"
    ]  # fmt: skip


def test_a_receiver_hears_of_what_it_wants_and_how_serious_it_wants_it() -> None:
    mailbox = box(on=frozenset({"route"}), level="error", gather=0.0)
    mailbox.take(Alarm("disk", "main", "full"), NOW)
    mailbox.take(image(level="warning"), NOW)
    assert mailbox.wait(NOW) is None
    mailbox.take(image(), NOW)
    assert len(sent(mailbox, NOW)) == 1


def test_what_goes_on_is_told_when_it_begins_and_when_it_is_over() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(down(BEGINS), NOW)
    assert sent(mailbox, NOW) == ["destination WS_RAD is not reached"]
    mailbox.take(down(BEGINS), NOW + 600)
    assert mailbox.wait(NOW + 600) is None
    mailbox.take(down(OVER), NOW + 700)
    assert sent(mailbox, NOW + 700) == ["destination WS_RAD is reached again"]
    mailbox.take(down(OVER), NOW + 800)
    assert mailbox.wait(NOW + 800) is None


def test_what_still_goes_on_is_told_again_after_an_hour() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(down(BEGINS), NOW)
    sent(mailbox, NOW)
    mailbox.take(down(BEGINS), NOW + REMIND)
    assert len(sent(mailbox, NOW + REMIND)) == 1


def test_an_end_of_what_nobody_was_told_of_is_not_told() -> None:
    mailbox = box()
    mailbox.take(down(OVER), NOW)
    assert mailbox.wait(NOW) is None


def test_what_begins_and_ends_while_it_is_gathered_is_told_as_over() -> None:
    mailbox = box()
    mailbox.take(down(BEGINS), NOW)
    mailbox.take(down(OVER), NOW + 20)
    notice = mailbox.due(NOW + 60)
    assert notice is not None
    assert "over by now: destination WS_RAD is not reached" in wording.text(notice, "ARCHIVE", "pacs1")
    mailbox.settle(NOW + 60)
    mailbox.take(down(BEGINS), NOW + 70)
    assert sent(mailbox, NOW + 130) == ["destination WS_RAD is not reached"]


def test_what_is_over_and_begins_again_before_that_is_told_was_never_over() -> None:
    mailbox = box(gather=60.0)
    mailbox.take(down(BEGINS), NOW)
    sent(mailbox, NOW + 60)
    mailbox.take(down(OVER), NOW + 100)
    mailbox.take(down(BEGINS), NOW + 110)
    assert sent(mailbox, NOW + 200) == []
    mailbox.take(down(OVER), NOW + 300)
    assert sent(mailbox, NOW + 360) == ["destination WS_RAD is reached again"]


def test_beyond_the_limit_messages_become_one_that_says_how_many() -> None:
    mailbox = box(count=2, seconds=3600.0, gather=10.0)
    for minute in range(30):
        mailbox.take(image(), NOW + 60 * minute)
        sent(mailbox, NOW + 60 * minute + 10)
    assert mailbox.wait(NOW + 1800) == 3610 - 1800
    notice = mailbox.due(NOW + 3610)
    assert notice is not None
    assert (notice.events, notice.merged) == (28, 27)
    assert "held back 27 messages" in wording.text(notice, "ARCHIVE", "pacs1")


def test_a_message_has_room_for_so_many_lines_and_counts_the_rest() -> None:
    mailbox = box(gather=1.0)
    for number in range(MOST_LINES + 30):
        mailbox.take(image(to=f"WS{number}"), NOW)
    notice = mailbox.due(NOW + 1)
    assert notice is not None
    assert (len(notice.entries), notice.left_out, notice.events) == (MOST_LINES, 30, MOST_LINES + 30)


def test_outside_its_window_everything_waits() -> None:
    opens = Schedule([(range(7), 7 * 60, 19 * 60)])
    mailbox = box(schedule=opens, gather=0.0)
    when = next(NOW + 600 * step for step in range(144) if opens.opens(NOW + 600 * step) is not None)
    mailbox.take(image(), when)
    until = opens.opens(when)
    assert until is not None
    assert sent(mailbox, when) == []
    assert mailbox.wait(when) == until - when
    assert len(sent(mailbox, until)) == 1


def test_what_cannot_be_sent_is_tried_again_and_given_up_after_a_day(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(), NOW)
    now, tries = NOW, 0
    with caplog.at_level(logging.WARNING):
        while (wait := mailbox.wait(now)) is not None:
            now += wait
            notice = mailbox.due(now)
            assert notice is not None and notice.events == 1
            mailbox.settle(now, "mail server: did not answer in time")
            tries += 1
    assert tries == len(DELAYS) + 1
    assert 80_000 < now - NOW < 90_000
    assert "given up, 1 events: mail server: did not answer in time" in caplog.text


def test_what_happens_while_a_message_waits_for_its_next_try_is_the_next_message() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(), NOW)
    mailbox.due(NOW)
    mailbox.settle(NOW, "no answer")
    mailbox.take(image(count=5), NOW + 1)
    assert sent(mailbox, NOW + 1) == []
    assert sent(mailbox, NOW + 60) == ["1 image failed for WS_RAD: A700 (out of resources)"]
    assert sent(mailbox, NOW + 60) == ["5 images failed for WS_RAD: A700 (out of resources)"]


def test_a_restart_forgets_nothing() -> None:
    mailbox = box(gather=0.0, count=1)
    mailbox.take(down(BEGINS), NOW)
    sent(mailbox, NOW)
    mailbox.take(image(count=7), NOW + 1)
    again = Mailbox(mailbox.rule, json.loads(json.dumps(mailbox.plain())))
    again.take(down(BEGINS), NOW + 2)
    again.take(image(), NOW + 3)
    assert again.wait(NOW + 3) == 3597.0
    assert sent(again, NOW + 3600) == ["8 images failed for WS_RAD: A700 (out of resources)"]
    again.take(down(OVER), NOW + 3601)
    assert again.wait(NOW + 3601) is not None


def test_what_comes_without_end_puts_nothing_off() -> None:
    mailbox = box(gather=10.0)
    for second in range(25):
        mailbox.take(image(), NOW + second)
    notice = mailbox.due(NOW + 25)
    assert notice is not None and (notice.events, notice.merged) == (25, 0)


def test_what_was_gathered_goes_by_the_rule_of_today_and_whatever_the_clock_says() -> None:
    mailbox = box(gather=3600.0)
    mailbox.take(image(), NOW)
    kept = mailbox.plain()
    assert len(sent(Mailbox(Rule("pacs", gather=60.0), kept), NOW + 60)) == 1
    assert len(sent(Mailbox(Rule("pacs", gather=60.0), kept), NOW - 86400)) == 1


def test_a_message_under_way_is_sent_again_after_a_restart_under_its_own_name() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(), NOW)
    before = mailbox.due(NOW)
    after = Mailbox(mailbox.rule, json.loads(json.dumps(mailbox.plain()))).due(NOW)
    assert before is not None and after is not None
    assert (before.id, before.entries) == (after.id, after.entries)


def test_the_subject_names_the_first_line_and_says_when_it_is_over() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(count=3), NOW)
    mailbox.take(down(BEGINS, "CT2"), NOW)
    notice = mailbox.due(NOW)
    assert notice is not None
    said = wording.subject(notice, "ARCHIVE")
    assert said == "[ARCHIVE] error: 3 images failed for WS_RAD: A700 (out of resources) (and 1 more)"
    mailbox.settle(NOW)
    mailbox.take(down(OVER, "CT2"), NOW + 1)
    over = mailbox.due(NOW + 1)
    assert over is not None
    assert wording.subject(over, "ARCHIVE") == "[ARCHIVE] over: destination CT2 is reached again"


def test_the_json_holds_all_that_the_text_says() -> None:
    mailbox = box(gather=0.0)
    mailbox.take(image(count=3), NOW)
    notice = mailbox.due(NOW)
    assert notice is not None
    plain = json.loads(json.dumps(wording.plain(notice, "ARCHIVE", "pacs1")))
    assert (plain["archive"], plain["host"], plain["rule"], plain["level"]) == ("ARCHIVE", "pacs1", "pacs", "error")
    (event,) = plain["events"]
    assert event["text"] in plain["message"]
    assert (event["on"], event["about"], event["count"], event["state"]) == ("route", "WS_RAD", 3, "happened")
    assert event["reasons"] == {"A700 (out of resources)": 3}


def test_a_test_says_that_it_is_one() -> None:
    notice = Notice("test.1", "pacs", NOW, [], test=True)
    assert "test" in wording.subject(notice, "ARCHIVE")
    assert "This is a test" in wording.text(notice, "ARCHIVE", "pacs1")
    assert wording.plain(notice, "ARCHIVE", "pacs1")["test"] is True


# -- the line -------------------------------------------------------------------------------------------------


def test_what_is_said_on_the_line_is_heard_in_order() -> None:
    line = Line()
    said = [image(), down(BEGINS), Alarm("disk", "main", "it's \u00e4 'full' \U0001f4a5", count=4)]
    for alarm in said:
        line.raise_alarm(alarm)
    assert line.take() == said
    assert line.take() == []
    line.close()


def test_a_line_that_nobody_reads_blocks_nobody_and_counts_what_has_no_room() -> None:
    line = Line()
    number = 8_000
    for _ in range(number):
        line.raise_alarm(image())
    heard = line.take()
    assert len(heard) < number
    line.raise_alarm(image())
    heard += line.take()
    assert sum(alarm.count for alarm in heard) == number + 1
    line.close()


def test_texts_of_any_length_and_kind_stay_whole_lines() -> None:
    line = Line()
    for text in ("\U0001f4a5" * 5000, "\n\r\x00" * 400, '"\\' * 4000, "\udcff"):
        line.raise_alarm(Alarm("store", text, text, text))
    line.raise_alarm(image())
    heard = line.take()
    assert len(heard) == 5
    assert heard[-1] == image()
    assert not any("\n" in alarm.text for alarm in heard)
    line.close()


def test_nobody_listening_costs_nothing() -> None:
    line = Line()
    line.wanted = False
    line.raise_alarm(image())
    line.wanted = True
    assert line.take() == []
    line.close()

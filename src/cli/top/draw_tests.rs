//! Tests of the drawing, as seen on the screen.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::*;
use crate::cli::top::fixtures::{NOON, handler, look, look_before, queue};
use crate::cli::top::observation::{LadderSeen, TierSeen};
use crate::core::time::Timestamp;

/// A picture of one of three ladders, after a change.
fn picture_of(name: &str, change: impl FnOnce(&mut LadderSeen)) -> Picture {
    let mut look = look(name);
    change(&mut look.ladders[0]);
    Picture {
        names: [name, "shipping", "mail"].map(str::to_owned).into(),
        chosen: 0,
        now: NOON,
        freshness: Freshness::Fresh,
        ladder: LadderPicture::of(&look, Some(&look_before(name)), 0, NOON),
        overlay: Overlay::Nothing,
        told: None,
        caption: None,
    }
}

#[test]
fn large_figures_are_shortened_and_never_cut() {
    let picture = picture_of("billing-orders", |ladder| {
        ladder.tiers[0].queue.waiting = 123_456_789;
        ladder.tiers[0].due = 12_345_678;
        ladder.tiers[0].next_due = Some(Timestamp::from_millis(NOON.as_millis() - 754_000));
        let letters = ladder.dead_letters.as_mut().unwrap();
        (letters.records, letters.open) = (2_345_678_901, Some(999_999));
    });
    for width in [40, 80, 120] {
        let drawn = drawn(&picture, (width, 24));
        for figure in ["~123.4M", "12m34s ago", "~2.3G", "999999 open"] {
            assert!(drawn.contains(&format!(" {figure}")), "{figure} at {width}:\n{drawn}");
        }
    }
    assert!(drawn(&picture, (80, 24)).contains(" ~12.3M"));
}

fn picture() -> Picture {
    picture_of("billing-orders", |_| {})
}

fn buffer(picture: &Picture, (width, height): (u16, u16), colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, picture, colours)).unwrap();
    terminal.backend().buffer().clone()
}

fn drawn(picture: &Picture, size: (u16, u16)) -> String {
    let buffer = buffer(picture, size, true);
    let lines = buffer
        .content
        .chunks(usize::from(size.0))
        .map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_usual_terminal_shows_all_but_bars_and_medians() {
    insta::assert_snapshot!("80x24", drawn(&picture(), (80, 24)));
}

#[test]
fn a_wide_terminal_shows_everything() {
    insta::assert_snapshot!("120x40", drawn(&picture(), (120, 40)));
}

#[test]
fn a_small_terminal_shows_what_waits_and_when_it_comes_back() {
    insta::assert_snapshot!("40x10", drawn(&picture(), (40, 10)));
}

#[test]
fn any_size_is_drawn_and_one_that_is_too_small_says_so() {
    let many = picture_of(&"long-".repeat(20), |seen| {
        let tier = seen.tiers[0].clone();
        seen.tiers = (0..32).map(|_| tier.clone()).collect();
    });
    for overlay in [Overlay::Nothing, Overlay::Help, Overlay::Confirm { hold: true }] {
        let picture = Picture { overlay, ..many.clone() };
        for width in (0..130).step_by(3) {
            for height in 0..30 {
                buffer(&picture, (width, height), true);
            }
        }
    }
    assert!(drawn(&many, (35, 10)).contains("too small: 36 columns, 8 lines"));
}

#[test]
fn long_names_are_cut_and_figures_are_not() {
    let name = "a-ladder-with-a-very-long-name-".repeat(3);
    insta::assert_snapshot!("long_names", drawn(&picture_of(&name, |seen| seen.sources[0].topic = "o".repeat(200)), (80, 14)));
}

#[test]
fn what_is_twice_as_wide_is_cut_by_its_width() {
    let picture = picture_of("billing-orders", |seen| {
        seen.hold = HoldSeen::Held(format!(
            "since 2026-01-31T11:59:00Z (1m ago) by 安娜@ops-1: {}",
            "請求処理を交換しています。".repeat(4)
        ));
    });
    let text = drawn(&picture, (80, 24));
    let buffer = buffer(&picture, (80, 24), true);
    // If the cut falls into a wide character, a column stays empty.
    assert!([78, 79].map(|column| buffer[(column, 1)].symbol()).contains(&"…"), "{text}");
    assert!(text.contains("安") && text.contains("HELD since"), "{text}");
}

#[test]
fn everything_wrong_at_once_is_told_in_words() {
    let mut picture = picture_of("billing-orders", |seen| {
        seen.hold = HoldSeen::Unknown;
        seen.handler = Some(handler(HealthSeen::Down));
        seen.handlers_down = vec!["worker-2".to_owned()];
        seen.dead_letters_held = Some("for 9m40s more, since 2026-01-31T11:59:40Z by worker a of billing".to_owned());
        seen.members = Some(Vec::new());
        seen.notes = vec!["whether the ladder is held is unknown: not authorised".to_owned()];
    });
    let error = Some("no broker answered at localhost:9092".to_owned());
    picture.freshness = Freshness::Stale { age: Duration::from_millis(12_900), error };
    insta::assert_snapshot!("everything_wrong", drawn(&picture, (80, 24)));
}

#[test]
fn a_handler_and_a_hold_look_different_without_colours() {
    let text = |change: fn(&mut LadderSeen)| drawn(&picture_of("b", change), (80, 24));
    assert!(
        text(|seen| seen.handler = Some(handler(HealthSeen::Degraded))).contains("handler DEGRADED (12 deliveries at a time)")
    );
    assert!(text(|seen| seen.handler = Some(handler(HealthSeen::InDoubt))).contains("handler IN DOUBT (43 errors)"));
    assert!(text(|seen| seen.handler = None).contains("RUNNING  metrics of"));
    assert!(text(|seen| seen.hold = HoldSeen::Held("since then by anna".to_owned())).contains("HELD since then by anna"));
    assert!(text(|seen| seen.hold = HoldSeen::Held(String::new())).contains("p resume"));
}

#[test]
fn without_colours_no_cell_has_one() {
    let coloured = |colours| {
        let buffer = buffer(&Picture { overlay: Overlay::Help, ..picture() }, (80, 24), colours);
        buffer.content.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 50);
}

#[test]
fn help_and_questions_lie_over_the_picture() {
    insta::assert_snapshot!("help", drawn(&Picture { overlay: Overlay::Help, ..picture() }, (80, 24)));
    let asked = drawn(&Picture { overlay: Overlay::Confirm { hold: true }, ..picture() }, (80, 24));
    assert!(asked.contains("hold billing-orders?") && asked.contains("y yes, n no"), "{asked}");
    let told = Picture { told: Some("ladder billing-orders is held by anna@ops-1".to_owned()), ..picture() };
    assert!(drawn(&told, (80, 24)).trim_end().ends_with("is held by anna@ops-1"));
}

#[test]
fn of_many_tiers_those_in_the_middle_go_first_and_are_counted() {
    let picture = picture_of("b", |seen| {
        let tier = |n: i64| TierSeen { queue: queue(&format!("b.retry-{n}m"), 0, n), ..seen.tiers[1].clone() };
        seen.tiers = (1..=32).map(tier).collect();
    });
    let text = drawn(&picture, (80, 16));
    // Two lines of head and a blank, one of foot, one of column heads leave eleven rows, of which source, redeliver and dead
    // letters take three.
    for shown in ["source orders", "retry-6m", "… 25 more tiers", "retry-32m", "redeliver", "dead letters"] {
        assert!(text.contains(shown), "no {shown} in:\n{text}");
    }
    assert!(!text.contains("retry-7m"), "{text}");
    let left_out: i64 = (7..=31).sum();
    assert!(text.contains(&format!("~{left_out}")), "{text}");
}

#[test]
fn before_the_first_look_the_picture_says_so() {
    let picture = Picture { ladder: None, freshness: Freshness::Awaited, ..picture() };
    let text = drawn(&picture, (80, 24));
    assert!(text.contains("billing-orders") && text.contains("waiting for the cluster"), "{text}");
}

#[test]
fn printed_it_has_as_many_lines_as_it_needs() {
    let picture = picture();
    let text = drawn(&picture, (100, lines_needed(&picture, 100)));
    assert!(text.contains("worker-2 10.0.0.7"), "{text}");
    assert!(text.trim_end().lines().count() <= usize::from(lines_needed(&picture, 100)));
}

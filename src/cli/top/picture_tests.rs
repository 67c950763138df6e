//! Tests of the picture as data.

use super::*;

use crate::cli::top::fixtures::{NOON, ladder, look, look_before};

fn picture(latest: &TopObservation, earlier: Option<&TopObservation>) -> LadderPicture {
    LadderPicture::of(latest, earlier, 0, NOON).unwrap()
}

fn row(picture: &LadderPicture, name: &str) -> Row {
    picture.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}")).clone()
}

fn close(rate: Option<f64>, wanted: f64) -> bool {
    rate.is_some_and(|rate| (rate - wanted).abs() < 1e-9)
}

#[test]
fn what_is_due_since_a_moment_is_counted_as_due() {
    let look = look("billing");
    let tier = |now| row(&LadderPicture::of(&look, None, 0, now).unwrap(), "retry-1m");
    let before = tier(NOON);
    let next = before.next.unwrap();
    assert_eq!((before.due, next.is_due), (Some(0), false));
    // Time has passed without a new observation.
    let after = tier(NOON + next.distance + Duration::from_secs(1));
    let next = after.next.unwrap();
    assert_eq!((after.due, next.is_due, next.distance), (Some(1), true, Duration::from_secs(1)));
}

#[test]
fn rows_go_from_the_source_to_the_dead_letters() {
    let names: Vec<String> = picture(&look("b"), None).rows.into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["orders", "retry-5s", "retry-1m", "retry-10m", "redeliver", "dead letters"]);
}

#[test]
fn rates_are_what_two_looks_differ_by() {
    let shown = picture(&look("b"), Some(&look_before("b")));
    let (source, tier, letters) = (row(&shown, "orders"), row(&shown, "retry-5s"), row(&shown, "dead letters"));
    assert!(close(source.rate_in, 100.0) && close(source.rate_out, 100.0), "{source:?}");
    assert!(close(tier.rate_in, 10.0) && close(tier.rate_out, 9.5), "{tier:?}");
    assert!(close(letters.rate_in, 0.5), "{letters:?}");
    assert_eq!(letters.open, Some(38));
}

#[test]
fn one_look_tells_no_rate_and_a_topic_made_anew_none_below_nothing() {
    assert_eq!(row(&picture(&look("b"), None), "orders").rate_in, None);
    let mut before = look_before("b");
    before.ladders[0].sources[0].ends = 1_000_000;
    assert!(close(row(&picture(&look("b"), Some(&before)), "orders").rate_in, 0.0));
    // The same observation twice spans no time.
    assert_eq!(row(&picture(&look("b"), Some(&look("b"))), "orders").rate_in, None);
}

#[test]
fn the_countdown_runs_between_two_looks_and_turns_when_it_is_due() {
    let look = look("b");
    let next = |later: Duration| {
        let shown = LadderPicture::of(&look, None, 0, NOON + later).unwrap();
        row(&shown, "retry-1m").next.unwrap()
    };
    let at_first = next(Duration::ZERO);
    assert_eq!((at_first.distance, at_first.is_due), (Duration::from_millis(3_200), false));
    assert!((at_first.over - (1.0 - 3.2 / 60.0)).abs() < 1e-9, "{at_first:?}");
    assert_eq!(next(Duration::from_secs(3)).distance, Duration::from_millis(200));
    let over = next(Duration::from_secs(5));
    assert_eq!((over.distance, over.is_due), (Duration::from_millis(1_800), true));
}

#[test]
fn a_worker_has_one_line_whatever_it_does() {
    let lines = picture(&look("b"), None).workers.unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0].name.as_str(), lines[0].host.as_str()), ("worker-1", "10.0.0.7"));
    assert_eq!(lines[0].has, "deliverer redeliver 0,2, orders 0-2; mover retry-1m 0, retry-5s 0-2");
}

#[test]
fn a_ladder_that_was_not_seen_has_no_picture() {
    assert_eq!(LadderPicture::of(&look("b"), None, 1, NOON), None);
    // A ladder missing from the earlier observation has no rates, and is shown nevertheless.
    let mut other = look_before("b");
    other.ladders = vec![ladder("a")];
    assert_eq!(row(&picture(&look("b"), Some(&other)), "orders").rate_in, None);
}

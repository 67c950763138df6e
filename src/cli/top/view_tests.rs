//! Tests of the changes made by keys and observations.

use super::*;
use crate::cli::top::fixtures::{NOON, look};

const EVERY: Duration = Duration::from_secs(1);

fn view(names: &[&str]) -> View {
    View::new(names.iter().map(|name| (*name).to_owned()).collect(), EVERY)
}

fn seen_at(view: &mut View, after: Duration) {
    let mut look = look("b");
    look.at = NOON + after;
    view.hear(News::Seen(Box::new(look)));
}

#[test]
fn nothing_is_held_before_it_was_confirmed() {
    let mut view = view(&["b"]);
    seen_at(&mut view, Duration::ZERO);
    assert_eq!(view.apply(Action::Ask), Effect::Nothing);
    assert_eq!(view.overlay(), Overlay::Confirm { hold: true });
    assert_eq!(view.apply(Action::Close), Effect::Nothing);
    assert_eq!(view.apply(Action::Confirm), Effect::Nothing, "the question is gone");
    view.apply(Action::Ask);
    assert_eq!(view.apply(Action::Confirm), Effect::Send(Command { chosen: 0, held: true }));
    assert_eq!(view.overlay(), Overlay::Nothing);
}

#[test]
fn what_is_held_is_asked_to_be_resumed() {
    let mut view = view(&["b"]);
    let mut look = look("b");
    look.ladders[0].hold = HoldSeen::Held("by anna".to_owned());
    view.hear(News::Seen(Box::new(look)));
    view.apply(Action::Ask);
    assert_eq!(view.apply(Action::Confirm), Effect::Send(Command { chosen: 0, held: false }));
}

#[test]
fn ladders_go_round() {
    let mut view = view(&["a", "b", "c"]);
    let chosen = |view: &View| view.picture(NOON).chosen;
    view.apply(Action::PreviousLadder);
    assert_eq!(chosen(&view), 2);
    view.apply(Action::NextLadder);
    assert_eq!(chosen(&view), 0);
    view.apply(Action::Ladder(1));
    view.apply(Action::Ladder(7));
    assert_eq!(chosen(&view), 1, "there is no eighth");
}

#[test]
fn data_gets_stale_by_age_alone_and_fresh_by_the_next_look() {
    let mut view = view(&["b"]);
    assert_eq!(view.picture(NOON).freshness, Freshness::Awaited);
    seen_at(&mut view, Duration::ZERO);
    assert_eq!(view.picture(NOON + Duration::from_secs(3)).freshness, Freshness::Fresh);
    let age = Duration::from_secs(4);
    assert_eq!(view.picture(NOON + age).freshness, Freshness::Stale { age, error: None });
    seen_at(&mut view, age);
    assert_eq!(view.picture(NOON + age).freshness, Freshness::Fresh);
}

#[test]
fn a_look_that_fails_leaves_the_picture_and_says_why() {
    let mut view = view(&["b"]);
    seen_at(&mut view, Duration::ZERO);
    view.hear(News::Unseen("no broker".to_owned()));
    let picture = view.picture(NOON + EVERY);
    assert!(picture.ladder.is_some());
    assert_eq!(picture.freshness, Freshness::Stale { age: EVERY, error: Some("no broker".to_owned()) });
}

#[test]
fn rates_span_ten_seconds_and_no_look_is_kept_longer_than_needed() {
    let mut view = view(&["b"]);
    (0..60).for_each(|second| seen_at(&mut view, EVERY * second));
    assert_eq!(view.looks.len(), 11);
    assert_eq!(view.looks.back().unwrap().at.since(view.looks.front().unwrap().at), RATE_OVER);
}

#[test]
fn what_came_of_a_command_stands_until_the_next_key() {
    let mut view = view(&["b"]);
    view.hear(News::Told("ladder b is held".to_owned()));
    assert_eq!(view.picture(NOON).told.as_deref(), Some("ladder b is held"));
    view.apply(Action::Help);
    assert_eq!(view.picture(NOON).told, None);
}

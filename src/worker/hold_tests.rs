//! Tests of the hold watch with records.

use super::*;
use crate::core::state::{HOLD_KEY, HoldRecord, OWNER_KEY, OwnerRecord};
use crate::core::time::Timestamp;

fn watched() -> Arc<HoldState> {
    let ladder = Ladder::builder("billing-orders", "billing").source("orders").tiers(["5s"]).build().unwrap();
    Arc::new(HoldState::new(&ladder))
}

fn read_hold(watched: &HoldState, offset: i64, held: bool) {
    let record = HoldRecord { held, by: "anna@ops-1".to_owned(), at: Timestamp::from_millis(7), why: None };
    watched.read(offset, Some(HOLD_KEY.as_bytes()), Some(record.to_value().as_bytes()));
}

fn read_owner(watched: &HoldState, offset: i64, group: &str) {
    let record = OwnerRecord { group: group.to_owned(), at: Timestamp::from_millis(7) };
    watched.read(offset, Some(OWNER_KEY.as_bytes()), Some(record.to_value().as_bytes()));
}

#[test]
fn what_stands_before_the_end_is_the_past_and_the_last_of_it_counts() {
    let watched = watched();
    let hold = Hold(Some(watched.clone()));
    read_hold(&watched, 0, true);
    assert!(!hold.is_held(), "acted upon before all was read");
    read_hold(&watched, 1, false);
    read_hold(&watched, 2, true);
    watched.know();
    assert!(hold.is_held() && hold.ready(&Stop::new()).unwrap());
    read_hold(&watched, 3, false);
    assert!(!hold.is_held());
}

#[test]
fn a_worker_waits_until_it_is_known_and_does_not_begin_where_it_is_refused() {
    let watched = watched();
    let hold = Hold(Some(watched.clone()));
    let stop = Stop::new();
    stop.set();
    assert!(!hold.ready(&stop).unwrap(), "it was told to stop while it waited");
    watched.refuse(ClientError::text("reading billing-orders.state", "denied"));
    assert!(hold.ready(&Stop::new()).is_err());
    watched.know();
    assert!(hold.ready(&Stop::new()).unwrap());
    assert!(Hold::none().ready(&Stop::new()).unwrap() && !Hold::none().is_held());
}

#[test]
fn a_ladder_of_another_group_is_refused_and_held_where_its_workers_run() {
    let watched = watched();
    let hold = Hold(Some(watched.clone()));
    read_owner(&watched, 0, "billing");
    watched.know();
    assert!(hold.ready(&Stop::new()).unwrap());
    read_owner(&watched, 1, "shipping");
    assert!(hold.is_held());
    let refused = hold.ready(&Stop::new()).unwrap_err();
    assert!(refused.needs_decision() && refused.to_string().contains("group shipping"), "{refused}");
    // A resume does not lift that.
    read_hold(&watched, 2, false);
    assert!(hold.is_held());
    read_owner(&watched, 3, "billing");
    assert!(!hold.is_held());
}

#[test]
fn a_state_topic_that_was_made_anew_holds_nothing() {
    let watched = watched();
    read_hold(&watched, 5, true);
    watched.know();
    let hold = Hold(Some(watched.clone()));
    watched.read(0, Some(b"clock/worker-1"), Some(b"7"));
    assert!(hold.is_held(), "what was known last counts until the new one is read to its end");
    watched.know();
    assert!(!hold.is_held());
}

#[tokio::test]
async fn whoever_waits_for_the_release_is_woken() {
    let watched = watched();
    let hold = Hold(Some(watched.clone()));
    hold.released().await;
    read_hold(&watched, 0, true);
    watched.know();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn({
                let hold = hold.clone();
                async move { hold.released().await }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    // Held again, by another user: nobody is released.
    read_hold(&watched, 1, true);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    read_hold(&watched, 2, false);
    for task in waiting {
        task.await.unwrap();
    }
    Hold::none().released().await;
}

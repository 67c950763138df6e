//! Records about dead letters are read as they were written.

use super::*;
use crate::core::dead_letter::job::LEASE_MILLIS;

fn now() -> Timestamp {
    Timestamp::from_millis(1_760_000_000_000)
}

#[test]
fn what_is_written_is_read_again() {
    let letter = LetterKey { partition: 3, offset: 1_042, appended: now() };
    let mut fate = Fate::new(LetterState::Redriven, "anna@ops-1", now(), "j1");
    fate.target = Some("billing.redeliver".to_owned());
    let read =
        |key: &str, value: &str| DeadLetterEntry::read("letter", Some(key.as_bytes()), Some(value.as_bytes())).unwrap().unwrap();
    assert_eq!(read(&letter.to_key("letter"), &to_value(&fate)), DeadLetterEntry::Fate(letter, Some(fate)));
    let mut job = Job::new("j1", Verb::Redrive, "letter", "reason:rejected", vec![(0, 17)], "anna@ops-1", now());
    let terms = Terms { rate: Some(100.0), canary: 10, stop_at: 0.5, ..Terms::at_once(false) };
    job.terms = Some(terms);
    assert_eq!(read(&job.to_key(), &to_value(&job)), DeadLetterEntry::Job("j1".to_owned(), Some(job)));
    let wish = Wish::new(Asked::Pause, "ben", now());
    assert_eq!(read(&Wish::key_of("j1"), &to_value(&wish)), DeadLetterEntry::Wish("j1".to_owned(), Some(wish)));
    let outcome = RedriveOutcome::new(2, now());
    let key = RedriveOutcome::key_of("billing/orders/0/1/2");
    assert_eq!(read(&key, &to_value(&outcome)), DeadLetterEntry::Outcome("billing/orders/0/1/2".to_owned(), Some(outcome)));
    let lease = Lease::new("anna", Some("j1"), now());
    assert_eq!(read(LEASE_KEY, &to_value(&lease)), DeadLetterEntry::Lease(Some(lease)));
}

#[test]
fn other_records_are_none_and_unreadable_ones_are_told() {
    for key in [None, Some(&b"hold"[..]), Some(b"owner"), Some(b"letter/1/2"), Some(b"letter/x/2/3"), Some(b"\xff")] {
        assert_eq!(DeadLetterEntry::read("letter", key, Some(b"{}")), None, "{key:?}");
    }
    assert!(DeadLetterEntry::read("letter", Some(b"letter/1/2/3"), Some(b"{}")).unwrap().is_err());
    let taken_for = DeadLetterEntry::of_unreadable("letter", Some(b"letter/1/2/3"));
    assert!(
        matches!(&taken_for, Some(DeadLetterEntry::Fate(_, Some(fate))) if fate.state == LetterState::Redriven),
        "{taken_for:?}"
    );
    assert_eq!(DeadLetterEntry::of_unreadable("letter", Some(b"lease")), None);
    let newer = DeadLetterEntry::read("letter", Some(b"lease"), Some(br#"{"v":2}"#)).unwrap();
    assert_eq!(newer, Err(StateError::Version(2)));
    assert_eq!(DeadLetterEntry::read("letter", Some(b"lease"), None), Some(Ok(DeadLetterEntry::Lease(None))));
}

#[test]
fn a_lease_keeps_others_out_while_its_owner_is_heard() {
    let lease = Lease::new("anna", Some("j1"), now());
    let later = |millis| Timestamp::from_millis(now().as_millis() + millis);
    assert!(lease.keeps_out("ben", later(LEASE_MILLIS)));
    assert!(!lease.keeps_out("ben", later(LEASE_MILLIS + 1)));
    assert!(!lease.keeps_out("anna", now()));
    assert!(!Lease::new("anna", None, now()).keeps_out("ben", now()), "it was released");
}

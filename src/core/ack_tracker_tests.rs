//! The tracker compared with a simple model: it never passes an unfinished offset and never forgets a
//! finished one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn finished_of(point: &CommitPoint) -> impl Fn(i64) -> bool {
    assert!(decode(point.offset, &point.metadata).is_some(), "own metadata reads back");
    let point = point.clone();
    move |offset| point.finishes(offset)
}

#[test]
fn the_prefix_stays_below_what_is_unfinished() {
    let (mut tracker, _) = AckTracker::resume(10, "");
    for offset in 10..15 {
        assert_eq!(tracker.arrive(offset), ArrivalState::New);
    }
    tracker.finish(11);
    tracker.finish(13);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 10, metadata: "v1;1+1,1+1".into() });
    tracker.finish(10);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 12, metadata: "v1;1+1".into() });
    assert_eq!(tracker.commit_point_with(&[14]), CommitPoint { offset: 12, metadata: "v1;1+2".into() });
    assert_eq!(tracker.commit_point_with(&[12, 14]), CommitPoint { offset: 15, metadata: String::new() });
}

#[test]
fn the_next_owner_skips_what_was_finished() {
    let (mut tracker, readable) = AckTracker::resume(12, "v1;1+2");
    assert!(readable);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 12, metadata: "v1;1+2".into() });
    assert_eq!(tracker.arrive(12), ArrivalState::New);
    assert_eq!(tracker.arrive(13), ArrivalState::AlreadyFinished);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 12, metadata: "v1;1+2".into() });
    assert_eq!(tracker.arrive(14), ArrivalState::AlreadyFinished);
    assert_eq!(tracker.arrive(14), ArrivalState::Repeated);
    tracker.finish(12);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 15, metadata: String::new() });
}

#[test]
fn the_end_of_a_partition_counts_its_markers() {
    let (mut tracker, _) = AckTracker::resume(0, "");
    tracker.arrive(0);
    tracker.reach_end(2);
    assert_eq!(tracker.commit_point().offset, 0);
    tracker.finish(0);
    assert_eq!(tracker.commit_point().offset, 2);
}

#[test]
fn a_partition_that_was_taken_over_always_goes_on() {
    let (mut tracker, _) = AckTracker::resume(0, "");
    for offset in 0..250 {
        tracker.arrive(offset);
    }
    tracker.arrive(5_000_000);
    (1..250).step_by(2).for_each(|offset| tracker.finish(offset));
    tracker.finish(5_000_000);
    let left = tracker.commit_point();
    assert!(left.metadata.len() <= METADATA_LIMIT);
    let (mut next, readable) = AckTracker::resume(left.offset, &left.metadata);
    assert!(readable && next.has_room());
    assert_eq!(next.arrive(0), ArrivalState::New);
    next.finish(0);
    assert!(next.has_room() && next.commit_point().metadata.len() <= METADATA_LIMIT);
}

#[test]
fn foreign_metadata_is_told_and_ignored() {
    for foreign in ["hello", "v2;1+1", "v1;x", "v1;1+0", "v1;-1+1", "v1;99999999999999999999+1"] {
        let (tracker, readable) = AckTracker::resume(5, foreign);
        assert!(!readable, "{foreign}");
        assert_eq!(tracker.commit_point().offset, 5);
    }
    assert!(AckTracker::resume(5, "v1;1+1;later=2").1, "later versions may add fields");
}

#[test]
fn starts_with_the_first_record_count_up_until_it_is_finished() {
    let (mut tracker, _) = AckTracker::resume(10, "");
    tracker.arrive(11);
    assert_eq!(tracker.begin(11, false, 1), 1);
    tracker.arrive(12);
    tracker.finish(12);
    assert_eq!(tracker.commit_point(), CommitPoint { offset: 11, metadata: "v1;1+1;starts=1".into() });

    let (mut next, readable) = AckTracker::resume(11, "v1;1+1;starts=1");
    assert!(readable && next.starts() == 1 && next.counted().is_none());
    assert_eq!(next.commit_point().metadata, "v1;1+1;starts=1", "no record has been started yet");
    next.arrive(11);
    assert_eq!(next.begin(11, false, 1), 2);
    assert_eq!(next.commit_point().metadata, "v1;1+1;starts=2");
    assert_eq!(next.begin(11, true, 1), 2, "the same process counts it once");
    next.take_back();
    assert_eq!(next.commit_point().metadata, "v1;1+1;starts=1");
    next.finish(11);
    assert_eq!(next.commit_point(), CommitPoint { offset: 12, metadata: "v1;0+1".into() }, "12 has not arrived again");
}

#[test]
fn starts_are_said_of_one_record_and_no_other() {
    let (mut tracker, _) = AckTracker::resume(10, "v1;;starts=5");
    tracker.arrive(14);
    assert_eq!(tracker.begin(14, false, 1), 1, "10 is finished");
    let (mut idle, _) = AckTracker::resume(10, "v1;;starts=5");
    idle.take_back();
    assert_eq!(idle.commit_point().metadata, "v1;;starts=5", "it was not started");
    idle.reach_end(20);
    assert_eq!(idle.commit_point(), CommitPoint { offset: 20, metadata: String::new() });
}

/// A partition with one unfinished record may continue for more offsets than 32 bits count.
#[test]
fn a_set_of_more_offsets_than_32_bits_count_is_read_as_it_was_written() {
    for far in [1_i64 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, i64::MAX - 2] {
        let (mut tracker, _) = AckTracker::resume(0, "");
        tracker.arrive(0);
        tracker.arrive(1);
        tracker.reach_end(far);
        tracker.arrive(far);
        tracker.finish(1);
        let point = tracker.commit_point();
        assert_eq!((point.offset, point.finishes(far - 1), point.finishes(far)), (0, true, false), "{}", point.metadata);
        let (mut resumed, is_readable) = AckTracker::resume(point.offset, &point.metadata);
        assert!(is_readable, "{}", point.metadata);
        let arrivals = [resumed.arrive(0), resumed.arrive(far - 1), resumed.arrive(far)];
        assert_eq!(arrivals, [ArrivalState::New, ArrivalState::AlreadyFinished, ArrivalState::New], "{}", point.metadata);
    }
    for broken in ["v1;-1+2", "v1;1+-2", "v1;9223372036854775807+1", "v1;18446744073709551615+1", "v1;1+0"] {
        assert!(!AckTracker::resume(1, broken).1, "{broken}");
    }
}

proptest! {
    /// Records arrive with gaps and finish in any order, partitions change owner at any moment: every commit names exactly what
    /// is finished, fits the broker's limit, and no record is lost or processed again after it was committed as finished.
    #[test]
    fn every_commit_tells_the_truth(
        gaps in proptest::collection::vec(1..4_i64, 1..200),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 1..600),
    ) {
        let mut offset = 1_000;
        let log: Vec<i64> = gaps.iter().map(|gap| { offset += gap; offset }).collect();
        let mut committed = AckTracker::resume(1_000, "").0.commit_point();
        let (mut tracker, _) = AckTracker::resume(committed.offset, &committed.metadata);
        let mut position = 0;
        let mut in_flight: Vec<i64> = Vec::new();
        let mut done: BTreeSet<i64> = BTreeSet::new();
        let mut worked: Vec<i64> = Vec::new();
        for (pick, action) in steps {
            match action {
                0..=4 => if position < log.len() && tracker.has_room() {
                    let offset = log[position];
                    position += 1;
                    if tracker.arrive(offset) == ArrivalState::New { in_flight.push(offset); worked.push(offset); }
                },
                5..=8 => if !in_flight.is_empty() {
                    let offset = in_flight.swap_remove(pick.index(in_flight.len()));
                    let with = tracker.commit_point_with(&[offset]);
                    tracker.finish(offset);
                    done.insert(offset);
                    prop_assert_eq!(&with, &tracker.commit_point());
                    committed = with;
                },
                _ => {
                    // Another owner: records in flight are lost, committed state is not.
                    (tracker, _) = AckTracker::resume(committed.offset, &committed.metadata);
                    position = log.partition_point(|o| *o < committed.offset);
                    in_flight.clear();
                    let finished = finished_of(&committed);
                    done.retain(|o| finished(*o));
                    worked.retain(|o| finished(*o));
                }
            }
            let point = tracker.commit_point();
            prop_assert!(point.metadata.len() <= METADATA_LIMIT);
            prop_assert!(point.offset >= committed.offset || tracker.in_flight() == 0);
            let finished = finished_of(&point);
            for offset in &log {
                prop_assert_eq!(finished(*offset), done.contains(offset), "offset {} at {:?}", offset, &point);
            }
        }
        worked.sort_unstable();
        worked.dedup();
        prop_assert!(worked.iter().all(|o| done.contains(o) || in_flight.contains(o)));
    }

    /// However many are in flight and whichever finishes first, the metadata fits.
    #[test]
    fn the_set_always_fits(order in proptest::collection::vec(any::<bool>(), 100..4_000), stride in 1..1_000_i64) {
        let (mut tracker, _) = AckTracker::resume(0, "");
        let mut taken = Vec::new();
        for (i, finish) in order.into_iter().enumerate() {
            if !tracker.has_room() { break; }
            let offset = i64::try_from(i).unwrap() * stride;
            tracker.arrive(offset);
            if finish { taken.push(offset); }
        }
        for offset in taken {
            tracker.finish(offset);
            prop_assert!(tracker.commit_point().metadata.len() <= METADATA_LIMIT);
        }
    }
}

//! The index finds the same letters as comparing each one.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::dead_letter::{DeadLetterEntry, RedriveOutcome};
use crate::dlq::filter::Filter;
use crate::dlq::letter::{Letter, Origin};

const NOW: i64 = 1_760_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW)
}

/// A letter with varied fields.
fn letter(n: i64) -> Letter {
    let kinds = [("Timeout", "no answer within"), ("Invalid", "no account"), ("java.lang.Locked", "order is locked by")];
    let (class, message) = kinds[usize::try_from(n % 3).unwrap()];
    let nth = |of: i64, n: i64| n % of == 0;
    Letter {
        at: LetterKey {
            partition: i32::try_from(n % 4).unwrap(),
            offset: n / 4 * 2,
            appended: Timestamp::from_millis(NOW - 3_600_000 + n * 1_000),
        },
        key: (!nth(7, n)).then(|| (n % 10).to_string().into_bytes()),
        reason: Some(if nth(2, n) { "exhausted" } else { "rejected" }),
        class: (!nth(11, n)).then(|| class.to_owned()),
        message: (!nth(13, n)).then(|| format!("{message} {n}")),
        status: nth(3, n).then_some(503),
        attempts: u32::try_from(n % 5).ok(),
        redrives: u32::try_from(n % 4).unwrap(),
        tier: nth(2, n).then_some(2),
        origin: Origin { topic: (!nth(9, n)).then(|| format!("orders-{}", n % 2)), partition: Some(1), offset: Some(n) },
        id: Some(format!("billing/orders/1/{n}/5")),
        first_failed: None,
        headers: if nth(4, n) {
            vec![
                (b"region".to_vec(), Some(b"eu".to_vec())),
                (b"n".to_vec(), Some(n.to_string().into_bytes())),
                (b"none".to_vec(), None),
            ]
        } else {
            Vec::new()
        },
        bytes: Some(3),
    }
}

fn filled(count: i64) -> (Index, Vec<Letter>) {
    let mut index = Index::in_memory(3).unwrap();
    let letters: Vec<Letter> = (1..=count).map(letter).collect();
    let batch: Vec<Taken> = letters.iter().map(|letter| Taken::letter(letter.clone())).collect();
    assert_eq!(index.take(&batch, &[("dlq".to_owned(), 0, 17)]).unwrap(), letters.len());
    (index, letters)
}

/// An entry of the state topic, after all that were read.
fn entry(entry: DeadLetterEntry) -> Taken {
    entry_at(entry, i64::MAX)
}

fn entry_at(entry: DeadLetterEntry, offset: i64) -> Taken {
    Taken::Entry(Box::new(entry), Spot { topic: "state".into(), partition: 0, offset })
}

fn fate(letter: LetterKey, state: LetterState, job: &str) -> Taken {
    entry(DeadLetterEntry::Fate(letter, Some(Fate::new(state, "anna", now(), job))))
}

fn state_of(index: &Index, letter: LetterKey) -> LetterState {
    index.letter(letter.partition, letter.offset).unwrap().unwrap().state
}

fn parsed(filter: &str) -> Filter {
    Filter::parse(filter).unwrap()
}

#[test]
fn filters_find_what_comparing_each_letter_finds() {
    let (mut index, letters) = filled(400);
    let fates: Vec<Taken> = letters
        .iter()
        .step_by(5)
        .map(|letter| {
            fate(letter.at, if letter.at.offset % 4 == 0 { LetterState::Resolved } else { LetterState::Redriven }, "j1")
        })
        .collect();
    index.take(&fates, &[]).unwrap();
    let all = index.list(&Filter::All, now(), Order::Newest, usize::MAX).unwrap();
    assert_eq!(all.len(), 400);
    for filter in [
        "reason:rejected",
        "class:Timeout",
        "class:~time",
        "class:-",
        "message:\"no account 7\"",
        "message:~7$",
        "message:-",
        "topic:orders-1",
        "topic:-",
        "topic:~0$",
        "key:4",
        "key:4,5",
        "key:-",
        "key:~[45]",
        "header.region:eu",
        "header.n:8,12",
        "header.n:~1",
        "header.none:-",
        "text:\"no account\"",
        "text:\"account 7\"",
        "locked",
        "text:\"account no\"",
        "state:open",
        "state:parked,resolved",
        "job:j1",
        "job:-",
        "age:>30m",
        "age:<10m",
        "since:2025-10-09T08:00:00Z",
        "id:1/0,2/4",
        "partition:2",
        "offset:>=100",
        "attempts:<2",
        "status:503",
        "tier:2",
        "redrives:3",
        "origin.offset:<50",
        "reason:rejected class:Invalid key:3",
        "class:Invalid OR header.region:eu",
        "NOT class:Invalid",
        "NOT (text:account status:503)",
        "NOT header.region:eu",
        "NOT key:4 NOT topic:orders-1",
        "NOT (key:~4 OR state:resolved)",
        "(tier:2 OR tier:1) NOT status:503",
    ] {
        let parsed = parsed(filter);
        let expected: Vec<LetterKey> = all.iter().filter(|row| row.fits(&parsed, now())).map(|row| row.at).collect();
        let found: Vec<LetterKey> =
            index.list(&parsed, now(), Order::Newest, usize::MAX).unwrap().iter().map(|row| row.at).collect();
        assert_eq!(found, expected, "{filter}");
        assert_eq!(index.count(&parsed, now()).unwrap(), expected.len() as u64, "{filter}");
        let first: Vec<LetterKey> = index.list(&parsed, now(), Order::Newest, 7).unwrap().iter().map(|row| row.at).collect();
        assert_eq!(first, expected[..expected.len().min(7)], "{filter}");
        let below = [(0, i64::MAX), (1, 100), (3, 0)];
        let mut chosen: Vec<LetterKey> =
            expected.iter().copied().filter(|at| at.partition == 0 || at.partition == 1 && at.offset < 100).collect();
        chosen.sort_unstable();
        assert_eq!(index.select(&parsed, &below, now()).unwrap(), chosen, "{filter}");
        let grouped: u64 = index.groups(&parsed, now(), None).unwrap().iter().map(|group| group.count).sum();
        assert_eq!(grouped, expected.len() as u64, "{filter}");
    }
}

#[test]
fn what_was_taken_is_passed_over_when_it_comes_again() {
    let (mut index, letters) = filled(50);
    let again: Vec<Taken> = letters.iter().map(|letter| Taken::letter(letter.clone())).collect();
    assert_eq!(index.take(&again, &[("dlq".to_owned(), 0, 5)]).unwrap(), 0);
    assert_eq!(index.positions().unwrap(), [("dlq".to_owned(), 0, 17)], "a position never goes back");
    assert_eq!(index.count(&Filter::All, now()).unwrap(), 50);
    let mut other = letters[3].clone();
    other.at.appended = now();
    let outcome = index.take(&[Taken::letter(letter(99)), Taken::letter(other)], &[]);
    assert!(matches!(outcome, Err(IndexError::MadeAnew)));
    assert_eq!(index.count(&Filter::All, now()).unwrap(), 50, "nothing of the batch is taken");
}

#[test]
fn a_letter_is_what_its_fate_its_outcome_and_younger_letters_make_of_it_in_whatever_order() {
    let first = Letter { redrives: 0, ..letter(1) };
    let second = Letter { redrives: 1, at: LetterKey { offset: 900, ..first.at }, ..first.clone() };
    let third = Letter { redrives: 3, at: LetterKey { offset: 902, ..first.at }, ..first.clone() };
    let outcome = || entry(DeadLetterEntry::Outcome(first.id.clone().unwrap(), Some(RedriveOutcome::new(2, now()))));
    let taken = |letter: &Letter| Taken::letter(letter.clone());
    let all: Vec<Box<dyn Fn() -> Taken>> = vec![
        Box::new(|| taken(&first)),
        Box::new(|| taken(&second)),
        Box::new(|| fate(first.at, LetterState::Redriven, "j1")),
        Box::new(|| fate(second.at, LetterState::Redriven, "j2")),
        Box::new(outcome),
    ];
    for turn in 0..all.len() {
        for backwards in [false, true] {
            let mut index = Index::in_memory(3).unwrap();
            let mut order: Vec<usize> = (0..all.len()).map(|i| (i + turn) % all.len()).collect();
            if backwards {
                order.reverse();
            }
            for at in order {
                index.take(&[all[at]()], &[]).unwrap();
            }
            assert_eq!(state_of(&index, first.at), LetterState::FailedAgain, "turn {turn}");
            assert_eq!(state_of(&index, second.at), LetterState::Succeeded, "turn {turn}");
            index.take(&[taken(&third)], &[]).unwrap();
            assert_eq!(state_of(&index, third.at), LetterState::Parked, "sent back three times");
            index.take(&[fate(first.at, LetterState::Open, "j3")], &[]).unwrap();
            assert_eq!(state_of(&index, first.at), LetterState::Open, "restored");
            index.take(&[entry(DeadLetterEntry::Fate(second.at, None))], &[]).unwrap();
            assert_eq!(state_of(&index, second.at), LetterState::Open, "its fate was forgotten");
        }
    }
}

#[test]
fn who_reads_the_state_later_does_not_turn_it_back() {
    let (mut index, letters) = filled(3);
    let of = |state: LetterState| DeadLetterEntry::Fate(letters[0].at, Some(Fate::new(state, "anna", now(), "j1")));
    let state = |next: i64| [("state".to_owned(), 0, next)];
    let younger = [entry_at(of(LetterState::Open), 4), entry_at(of(LetterState::Redriven), 5)];
    index.take(&younger, &state(6)).unwrap();
    // Another process began earlier.
    index.take(&[entry_at(of(LetterState::Resolved), 3), entry_at(of(LetterState::Open), 4)], &state(5)).unwrap();
    assert_eq!(state_of(&index, letters[0].at), LetterState::Redriven);
    assert!(index.positions().unwrap().contains(&("state".to_owned(), 0, 6)));
}

#[test]
fn that_a_letter_was_sent_is_remembered_longer_than_the_letter() {
    let (mut index, letters) = filled(200);
    let sent = letters.iter().find(|letter| letter.at.partition == 1 && letter.at.offset < 40).unwrap().at;
    index.take(&[fate(sent, LetterState::Redriven, "j1")], &[]).unwrap();
    index.forget_below(1, 40).unwrap();
    assert_eq!(index.fates_below(&[(1, 40)], now().as_millis(), 10).unwrap(), []);
    assert_eq!(index.fates_below(&[(1, 40)], now().as_millis() + 1, 10).unwrap().len(), 1);
}

#[test]
fn letters_that_retention_has_taken_are_forgotten() {
    let (mut index, letters) = filled(200);
    index.take(&[fate(letters[0].at, LetterState::Resolved, "j1")], &[]).unwrap();
    let below = |letter: &&Letter| letter.at.partition == 1 && letter.at.offset < 40;
    let gone = letters.iter().filter(below).count();
    assert_eq!(index.forget_below(1, 40).unwrap(), gone);
    assert_eq!(index.forget_below(1, 40).unwrap(), 0);
    assert_eq!(index.count(&Filter::All, now()).unwrap(), 200 - gone as u64);
    assert_eq!(index.count(&parsed("text:account partition:1 offset:<40"), now()).unwrap(), 0);
    let fates = index.fates_below(&[(1, 40)], 0, 10).unwrap();
    assert_eq!(fates.iter().map(|(letter, _)| *letter).collect::<Vec<_>>(), [letters[0].at]);
}

#[test]
fn groups_tell_when_how_many_and_where() {
    let (index, letters) = filled(300);
    let groups = index.groups(&Filter::All, now(), None).unwrap();
    assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), 300);
    for group in &groups {
        let members: Vec<&Letter> =
            letters.iter().filter(|l| l.class == group.class && l.reason.map(str::to_owned) == group.reason).collect();
        let members: Vec<&&Letter> = members
            .iter()
            .filter(|l| crate::dlq::groups::shape(l.message.as_deref().unwrap_or_default()) == group.shape)
            .collect();
        assert_eq!(members.len() as u64, group.count, "{group:?}");
        assert_eq!(members.iter().map(|l| l.at.appended).min(), Some(group.first));
        assert_eq!(members.iter().map(|l| l.at).max_by_key(|at| at.appended), Some(group.sample));
        let mut origins: BTreeMap<String, u64> = BTreeMap::new();
        for letter in &members {
            *origins.entry(letter.origin.topic.clone().unwrap_or_default()).or_default() += 1;
        }
        assert_eq!(origins, group.origins);
        assert_eq!(group.trend.iter().sum::<u64>(), group.count);
    }
    assert!(groups.windows(2).all(|pair| pair[0].count >= pair[1].count));
}

#[test]
fn sizes_are_counted() {
    let (mut index, letters) = filled(100);
    index
        .take(&[fate(letters[0].at, LetterState::Resolved, "j1"), fate(letters[1].at, LetterState::Discarded, "j1")], &[])
        .unwrap();
    let sizes = index.sizes(now(), Duration::from_secs(86_400 + 3_590)).unwrap();
    assert_eq!((sizes.letters, sizes.open), (100, 98));
    assert_eq!(sizes.oldest_open, Some(letters[2].at.appended));
    assert_eq!(sizes.at_risk, 7, "those of the first ten seconds, but for the two");
    assert!(sizes.new_groups > 0);
}

#[test]
fn an_index_is_kept_in_a_file_and_a_broken_one_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/dlq.sqlite");
    let mut index = Index::open(&path, 3).unwrap();
    index.take(&[Taken::letter(letter(1))], &[("dlq".to_owned(), 1, 9)]).unwrap();
    // Two at once.
    let mut other = Index::open(&path, 3).unwrap();
    other.take(&[Taken::letter(letter(2))], &[("dlq".to_owned(), 2, 9)]).unwrap();
    index.take(&[Taken::letter(letter(3))], &[("dlq".to_owned(), 3, 9)]).unwrap();
    assert_eq!(index.list(&Filter::All, now(), Order::Newest, 9).unwrap().len(), 3);
    drop((index, other));
    let index = Index::open(&path, 3).unwrap();
    assert_eq!(index.last_letter(1).unwrap(), Some(letter(1).at));
    drop(index);
    std::fs::write(&path, b"this is no database, and is longer than its header would be: ....................................")
        .unwrap();
    let index = Index::open(&path, 3).unwrap();
    assert_eq!(index.positions().unwrap(), []);
}

/// Letters whose messages, or origin topics, are all different.
fn different(numbers: std::ops::Range<i64>, of: impl Fn(i64, &mut Letter)) -> Vec<Taken> {
    numbers
        .map(|n| {
            let mut letter =
                Letter { at: LetterKey { partition: 0, offset: n, appended: time(NOW - n) }, redrives: 0, ..letter(2) };
            of(n, &mut letter);
            Taken::letter(letter)
        })
        .collect()
}

/// A number in letters, since digits are removed from messages.
fn word(n: i64) -> String {
    n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'g')).collect()
}

fn rows(index: &Index, table: &str) -> i64 {
    index.db.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn groups_beyond_the_limit_are_one_and_filters_find_each_letter_all_the_same() {
    let mut index = Index::in_memory(3).unwrap();
    let count = MOST_GROUPS + 50;
    let batch = different(0..count, |n, letter| {
        letter.message = Some(format!("no account for {}", word(n)));
        letter.class = Some(format!("Class{}", n % 7));
    });
    index.take(&batch, &[]).unwrap();
    // Of an existing group.
    let more = different(count..count + 10, |_, letter| {
        letter.message = Some(format!("no account for {}", word(3)));
        letter.class = Some("Class3".to_owned());
    });
    index.take(&more, &[]).unwrap();
    assert_eq!(rows(&index, "grp"), MOST_GROUPS + 1);
    let groups = index.groups(&Filter::All, now(), None).unwrap();
    let of = |shape: &str| groups.iter().find(|group| group.shape == shape).map(|group| (group.count, group.class.clone()));
    assert_eq!(of("(other)"), Some((50, None)));
    assert_eq!(of(&format!("no account for {}", word(3))), Some((11, Some("Class3".to_owned()))));
    let other = groups.iter().find(|group| group.shape == "(other)").unwrap().id.clone();
    let all = index.list(&Filter::All, now(), Order::Newest, usize::MAX).unwrap();
    for filter in [
        "class:Class3",
        "class:Class1,Class2",
        "class:~3$",
        "class:-",
        "NOT class:Class3",
        &format!("group:{other}"),
        &format!("group:{other} class:Class3"),
        "reason:exhausted class:Class5",
    ] {
        let filter = parsed(filter);
        let expected: Vec<LetterKey> = all.iter().filter(|row| row.fits(&filter, now())).map(|row| row.at).collect();
        let found: Vec<LetterKey> =
            index.list(&filter, now(), Order::Newest, usize::MAX).unwrap().iter().map(|row| row.at).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(index.count(&filter, now()).unwrap(), expected.len() as u64, "{filter:?}");
        let grouped: u64 = index.groups(&filter, now(), None).unwrap().iter().map(|group| group.count).sum();
        assert_eq!(grouped, expected.len() as u64, "{filter:?}");
    }
    assert!(
        all.iter().filter(|row| row.group == other).all(|row| row.class.as_ref().is_some_and(|class| class.starts_with("Class")))
    );
}

#[test]
fn topics_beyond_the_limit_are_found_all_the_same() {
    let mut index = Index::in_memory(3).unwrap();
    let count = MOST_TOPICS + 20;
    index.take(&different(0..count, |n, letter| letter.origin.topic = Some(format!("topic-{}", word(n)))), &[]).unwrap();
    assert_eq!(rows(&index, "topic"), MOST_TOPICS);
    for n in [0, MOST_TOPICS - 1, MOST_TOPICS, count - 1] {
        let found = index.list(&parsed(&format!("topic:topic-{}", word(n))), now(), Order::Newest, 9).unwrap();
        let topics: Vec<_> = found.iter().map(|row| row.origin_topic.clone()).collect();
        assert_eq!(topics, [Some(format!("topic-{}", word(n)))]);
    }
    let count = u64::try_from(count).unwrap();
    assert_eq!(index.count(&parsed("topic:~^topic-"), now()).unwrap(), count);
    assert_eq!(index.count(&parsed("topic:-"), now()).unwrap(), 0);
    let origins = index.groups(&Filter::All, now(), None).unwrap()[0].origins.clone();
    assert_eq!((origins["(other)"], origins.values().sum::<u64>()), (20, count));
}

#[test]
fn groups_and_topics_go_with_their_last_letter_and_the_file_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dlq.sqlite");
    let size = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        files.sum::<u64>()
    };
    let mut index = Index::open(&path, 3).unwrap();
    let empty = size();
    let batch = different(0..6_000, |n, letter| {
        let words = [n, n + 7, n + 77, n + 777].map(|n| word(n * 31));
        letter.message = Some(format!("no account for {} at the branch, please look into the ledger", words.join(" ")));
        letter.origin.topic = Some(format!("topic-{}", word(n % 100)));
    });
    index.take(&batch, &[]).unwrap();
    index.forget_below(0, 10).unwrap();
    assert_eq!((rows(&index, "grp"), rows(&index, "topic")), (5_990, 100));
    let full = size();
    assert!(full > 20 * empty.max(50_000), "{empty} and then {full} bytes");
    assert_eq!(index.forget_below(0, 6_000).unwrap(), 5_990);
    assert_eq!((rows(&index, "grp"), rows(&index, "topic"), rows(&index, "detail")), (0, 0, 0));
    assert!(size() < full / 10, "{full} and then {} bytes", size());
    // A returning letter gets a group again, whatever its number was.
    index.take(&different(6_001..6_002, |_, letter| letter.message = Some("no account".to_owned())), &[]).unwrap();
    let groups = index.groups(&Filter::All, now(), None).unwrap();
    assert_eq!(groups.iter().map(|group| group.shape.as_str()).collect::<Vec<_>>(), ["no account"]);
}

#[test]
fn several_that_begin_at_once_with_no_index_make_one() {
    for several in [2, 3, 10] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dlq.sqlite");
        let batch = || -> Vec<Taken> { (1..=300).map(|n| Taken::letter(letter(n))).collect() };
        let at_once = std::sync::Barrier::new(several);
        let new: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..several)
                .map(|_| {
                    scope.spawn(|| {
                        at_once.wait();
                        let mut index = Index::open(&path, 3).unwrap();
                        batch().chunks(50).map(|part| index.take(part, &[("dlq".to_owned(), 0, 17)]).unwrap()).sum::<usize>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(new, 300, "each letter was taken once, of {several}");
        let index = Index::open(&path, 3).unwrap();
        let groups = index.groups(&Filter::All, now(), None).unwrap();
        assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), 300);
        let (alone, _) = filled(300);
        assert_eq!(groups, alone.groups(&Filter::All, now(), None).unwrap());
    }
}

#[test]
fn an_index_of_another_version_is_made_anew_also_by_several_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dlq.sqlite");
    Index::open(&path, 3).unwrap().take(&[Taken::letter(letter(1))], &[]).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    let at_once = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for n in 1..=4 {
            let (path, at_once) = (&path, &at_once);
            scope.spawn(move || {
                at_once.wait();
                let mut index = Index::open(path, 3).unwrap();
                index.take(&[Taken::letter(letter(n * 10))], &[]).unwrap();
            });
        }
    });
    assert_eq!(Index::open(&path, 3).unwrap().count(&Filter::All, now()).unwrap(), 4);
}

/// Keys, headers and messages are stored in it.
#[test]
fn an_index_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/dlq/index.sqlite");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let mut index = Index::open(&path, 3).unwrap();
    index.take(&[Taken::letter(letter(1))], &[("dlq".to_owned(), 1, 9)]).unwrap();
    let made = |path: &std::path::Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let parent = path.parent().unwrap();
    assert_eq!((mode(parent), mode(parent.parent().unwrap())), (0o700, 0o700));
    assert!(made(parent).len() > 1, "what SQLite has beside it is there, too");
    for file in made(parent) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(index);
    // A file made by an earlier version.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _index = Index::open(&path, 3).unwrap();
    assert_eq!((mode(&path), mode(parent)), (0o600, 0o700));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn headers_are_kept_as_they_are(headers in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..6)) {
        let kept = Letter { headers: headers.clone(), ..letter(1) };
        let mut index = Index::in_memory(3).unwrap();
        index.take(&[Taken::letter(kept.clone())], &[]).unwrap();
        prop_assert_eq!(index.letter(kept.at.partition, kept.at.offset).unwrap().unwrap().headers, headers);
    }
}

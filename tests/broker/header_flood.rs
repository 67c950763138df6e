//! Records with so many headers that the client cannot read them, at once or after kladder has added its own: they become dead
//! letters with an error, and never continue without headers.

use crate::dlq::{Letters, id_of};
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::{Scene, path};

/// The most that librdkafka reads.
const LIMIT: usize = 100_000;

/// A record with this many headers, besides the one that identifies it for the tests.
fn flooded(number: usize, headers: usize) -> NewRecord {
    let mut record = NewRecord { partition: 0, ..records::plain(number, 1) };
    record.headers.extend((1..headers).map(|_| (b"h".to_vec(), Some(b"1".to_vec()))));
    record
}

/// One that is readable only until headers are added, one that is not readable, one that just fits, and a plain one.
fn written() -> Vec<NewRecord> {
    vec![flooded(0, LIMIT - 5), flooded(1, LIMIT + 1), flooded(2, LIMIT - 64), flooded(3, 1)]
}

/// The first two are dead, with everything that could be read of them.
fn assert_dead(scene: &Scene, kladder: &Kladder, from: &str) {
    let dead = broker::read(&scene.dlq_topic());
    assert_eq!(dead.len(), 2);
    let own = |record: &Record| record.headers.iter().filter(|(name, _)| name.starts_with(b"kladder-")).count();
    for (offset, record) in dead.iter().enumerate() {
        assert_eq!(record.key, Some(format!("key-{offset}").into_bytes()));
        assert_eq!(record.text("kladder-reason"), Some("poison"));
        assert_eq!(record.text("kladder-error-class"), Some("too-many-headers"));
        let message = record.text("kladder-error-message").expect("a message");
        assert!(message.contains(&format!("the complete record is at {from} [0] @ {offset}")), "{message}");
        let id = record.text("kladder-id").expect("an id");
        assert!(id.starts_with(&format!("{}/{from}/0/{offset}/", scene.ladder)), "{id}");
        assert!(record.headers.len() <= LIMIT, "it can be read");
    }
    assert_eq!(dead[0].headers.len() - own(&dead[0]), LIMIT - 64, "as many as can be read again");
    assert_eq!(dead[1].headers.len(), own(&dead[1]));
    assert_eq!(scene.metric("kladder_dead_letters_total", "reason=\"poison\""), Some(2.0));
    let log = kladder.log();
    assert_eq!(log.lines().filter(|line| line.contains("ERROR") && line.contains("without all its headers")).count(), 2, "{log}");
}

#[test]
fn what_has_too_many_headers_in_a_source_is_poison_before_it_is_delivered() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("flood-source", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &written());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the others climb and are done", PATIENCE, || {
        kladder.assert_running();
        let again = |offset| handler.calls().iter().any(|call| call.offset == offset && call.attempt == 2);
        again(2) && again(3) && broker::lag(&scene.group, &scene.source) == 0
    });
    assert!(handler.calls().iter().all(|call| call.offset > 1), "what is not whole is not delivered");
    assert_dead(&scene, &kladder, &scene.source);
    let back = broker::read(&scene.redeliver_topic());
    let whole = back.iter().filter(|record| record.headers.len() > LIMIT - 64).count();
    assert_eq!((back.len(), whole), (2, 1), "the one that fits has all of its headers");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn what_has_too_many_headers_in_a_tier_is_poison_before_it_is_moved() {
    let mut scene = Scene::with_source("flood-tier", &["500ms"], 1);
    scene.handler = "http://127.0.0.1:9/nobody".to_owned();
    let config = scene.set_up();
    let tier = scene.tier_topic("500ms");
    RawProducer::new(&scene.brokers).write(&tier, &written());
    let mut kladder = Kladder::start(&["run", "-c", path(&config), "--role", "mover"], &config.with_extension("log"));
    clock::eventually("the tier is empty", PATIENCE, || {
        kladder.assert_running();
        broker::lag(&scene.mover_group(), &tier) == 0
    });
    assert_eq!(broker::read(&scene.redeliver_topic()).len(), 2);
    assert_dead(&scene, &kladder, &tier);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn a_letter_with_too_many_headers_is_neither_sent_back_nor_exported_without_them() {
    let letters = Letters::of("flood-dlq", 3);
    let mut flood = letters.record(3);
    flood.headers.extend((0..LIMIT).map(|_| (b"h".to_vec(), None)));
    flood.partition = 0;
    RawProducer::new(&letters.scene.brokers).write(&letters.scene.dlq_topic(), &[flood]);
    let flooded =
        letters.read().into_iter().find(|record| record.headers.is_empty()).map(|record| id_of(&record)).expect("it is there");
    let words = [flooded.as_str(), "headers cannot be read"];
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).refuses(1, &[words[0], words[1], "3 sent, 1 skipped"]);
    assert_eq!(letters.sent().len(), 3);
    letters.dlq(&["export", "state:open,redriven"]).refuses(1, &[words[0], words[1], "is left out"]);
    let shown = letters.dlq(&["show", &flooded]).succeeds();
    assert!(shown.stdout.contains(words[1]), "{shown}");
}

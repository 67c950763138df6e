//! Large records over a link of a few megabytes a second, as limited by a broker quota: more than fits in one transaction's time.

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

const RECORDS: usize = 40;

/// Size of each, in bytes.
const SIZE: usize = 500_000;

/// Limits the write rate of clients with this id to this many bytes a second.
fn slow_down(client_id: &str, bytes_a_second: u32) {
    let quota = format!("producer_byte_rate={bytes_a_second}");
    let entity = ["--entity-type", "clients", "--entity-name", client_id];
    let arguments = [&["--bootstrap-server", broker::brokers(), "--alter"], &entity[..], &["--add-config", &quota]].concat();
    broker::kafka_tool("kafka.admin.ConfigCommand", &arguments);
}

/// 20 MB at 1.5 MB a second take 13 s, and a transaction may take 10.
#[test]
fn large_records_get_through_a_slow_link_in_transactions_that_fit_their_time() {
    // The small ones in between show that it responds.
    let handler =
        Handler::start(|call| if call.body.len() > 1_000 && call.attempt == 1 { Answer::fail(500, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("slow-link", &["1s"], 3);
    scene.handler = handler.url().to_owned();
    let client_id = format!("slow-{}", scene.ladder);
    scene.kafka = format!("\"client.id\" = \"{client_id}\"");
    let config = scene.set_up();
    slow_down(&client_id, 1_500_000);
    let partition = |number: usize| i32::try_from(number % 3).expect("0 to 2");
    let small = |number| NewRecord { partition: partition(number), ..records::plain(number, 1) };
    let written: Vec<NewRecord> =
        (0..RECORDS).flat_map(|n| [records::incompressible(n, partition(n), SIZE), small(RECORDS + n)]).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);

    let mut kladder = Kladder::run(&config);
    // Over the link twice: into the tier by the deliverer, and out of it by the mover.
    clock::eventually("all have come again", PATIENCE, || {
        kladder.assert_running();
        handler.calls().iter().filter(|call| call.attempt == 2).count() >= RECORDS
    });
    clock::eventually("all is committed", PATIENCE, || broker::lag(&scene.group, &scene.redeliver_topic()) == 0);
    let aborted: f64 = ["deliverer", "mover"]
        .iter()
        .filter_map(|role| scene.metric("kladder_transactions_aborted_total", &format!("role=\"{role}\"")))
        .sum();
    assert_eq!(scene.metric("kladder_in_hand_bytes", "role=\"deliverer\""), Some(0.0), "all of them were finished");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    for topic in [scene.tier_topic("1s"), scene.redeliver_topic()] {
        let mut ids: Vec<usize> =
            broker::read(&topic).iter().map(|r| r.text(records::ID).and_then(records::number_of).expect("an id")).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..RECORDS).collect::<Vec<_>>(), "each once in {topic}");
    }
    // The limit is found by halving, and then kept: each leg fails a few times at most.
    assert!(aborted <= 12.0, "{aborted} transactions were aborted");
}

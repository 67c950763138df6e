//! A tier topic is useful alone: what any client writes to it is redelivered when it is due.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::scene::Scene;

#[test]
fn a_record_dropped_into_a_tier_by_kcat_comes_out_after_the_delay() {
    let handler = Handler::start(|call| if call.attempt < 2 { Answer::fail(503, "not yet") } else { Answer::ok() });
    let mut scene = Scene::with_source("kcat", &["2s", "3s"], 2);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let _kladder = Kladder::run(&config);

    let tier = scene.tier_topic("2s");
    kcat(&scene.brokers, &tier, "some-key|dropped by hand\n");
    clock::eventually("it is redelivered", PATIENCE, || !broker::read(&scene.redeliver_topic()).is_empty());
    // Its first attempt fails, so it may be in the tier again already, with headers then.
    let dropped: Vec<_> = broker::read(&tier).into_iter().filter(|r| r.headers.is_empty()).collect();
    let back = &broker::read(&scene.redeliver_topic())[0];
    assert_eq!(dropped.len(), 1);
    assert_eq!((back.key.as_deref(), back.value.as_deref()), (Some(&b"some-key"[..]), Some(&b"dropped by hand"[..])));
    let waited = back.timestamp - dropped[0].timestamp;
    assert!(waited >= 2000, "it waited {waited} ms of 2000");

    // From then on it climbs like any other.
    clock::eventually("the handler takes it", PATIENCE, || handler.count() >= 2);
    let attempts: Vec<u32> = handler.calls().iter().map(|c| c.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    assert!(handler.calls().iter().all(|c| &c.body[..] == b"dropped by hand"));
}

fn kcat(brokers: &str, topic: &str, text: &str) {
    let mut kcat = Command::new("kcat")
        .args(["-P", "-b", brokers, "-t", topic, "-K", "|"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat can be run (scripts/install test installs it)");
    kcat.stdin.take().expect("its input").write_all(text.as_bytes()).expect("kcat reads");
    assert!(kcat.wait().expect("kcat ends").success());
}

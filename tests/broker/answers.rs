//! Handlers that answer strangely, slowly or not at all, and answers that say when to retry.

use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::rude::{Pieces, RudeHandler};
use crate::support::scene::Scene;

#[test]
fn answers_that_are_none_burn_an_attempt_and_are_retried() {
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly the beginning";
    let handler = RudeHandler::start(|asked| match (asked.attempt, asked.offset) {
        // Closes the connection after reading the request.
        (1, 0) => Pieces::none(),
        // Closes the connection in the middle of its response.
        (1, 1) => Pieces::whole(HALF),
        (1, 2) => Pieces::trickle("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Duration::from_secs(1)),
        (1, 3) => Pieces::answer("302 Found", "Location: http://127.0.0.1:9/elsewhere\r\n"),
        (1, 4) => Pieces::whole("this is not HTTP\r\n\r\n"),
        (1, 5) => Pieces::answer("200 OK", "Kladder-Verdict: perhaps\r\n"),
        _ => Pieces::answer("200 OK", ""),
    });
    let mut scene = Scene::with_source("odd", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.timeout = "3s";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..6).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let asked = || {
        let mut asked: Vec<(i64, u32)> = handler.asked().iter().map(|a| (a.offset, a.attempt)).collect();
        asked.sort_unstable();
        // After a lost connection, the record is first delivered once more alone.
        asked.dedup();
        asked
    };
    clock::eventually("all are delivered in the end", PATIENCE, || {
        asked().len() >= 11 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert_eq!(asked(), [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1)]);
    let mut classes: Vec<(i64, String)> = broker::read(&scene.tier_topic("500ms"))
        .iter()
        .map(|r| {
            let class = r.text("kladder-error-class").unwrap_or_default();
            (r.number("kladder-origin-offset").unwrap_or(-1), class.to_owned())
        })
        .collect();
    classes.sort_unstable();
    let expected = [(0, "connection lost"), (1, "connection lost"), (2, "timeout"), (3, "HTTP 302"), (4, "unreadable answer")];
    assert_eq!(classes, expected.map(|(offset, class)| (offset, class.to_owned())));
    // The redirect, the response that is not HTTP, and the unknown verdict.
    assert_eq!(scene.metric("kladder_odd_answers_total", ""), Some(3.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn a_handler_says_when_to_come_back_and_what_to_give_up() {
    let handler = Handler::start(|call| match (call.offset, call.attempt) {
        // Between two tiers: the larger one.
        (0, 1) => Answer::fail(503, "busy").with("retry-after", "3"),
        // Beyond the largest tier: extra rounds without counting an attempt.
        (1, 1) => Answer::fail(503, "busy").with("retry-after", "8"),
        // Below the earned tier: the earned tier.
        (2, 1) => Answer::fail(503, "busy").with("retry-after", "0"),
        (3, _) => Answer::ok().with("kladder-verdict", "reject").with("kladder-error-class", "NoSuchOrder"),
        (4, 1) => Answer::ok().with("kladder-verdict", "retry"),
        (5, 1) => Answer::fail(400, "still fine").with("kladder-verdict", "done"),
        _ => Answer::ok(),
    });
    let mut scene = Scene::with_source("retry-after", &["1s", "5s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..6).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are delivered in the end", PATIENCE, || {
        handler.count() >= 10 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let calls = handler.calls();
    let of = |offset: i64| calls.iter().filter(|c| c.offset == offset).collect::<Vec<&Call>>();
    let attempts = |offset: i64| of(offset).iter().map(|c| c.attempt).collect::<Vec<u32>>();
    assert_eq!((0..6).map(attempts).collect::<Vec<_>>(), [vec![1, 2], vec![1, 2], vec![1, 2], vec![1], vec![1, 2], vec![1]]);

    let places = |tier: &str| -> Vec<(i64, i64)> {
        let records = broker::read(&scene.tier_topic(tier));
        let mut places: Vec<_> = records
            .iter()
            .map(|r| (r.number("kladder-origin-offset").unwrap_or(-1), r.number("kladder-attempts").unwrap_or(-1)))
            .collect();
        places.sort_unstable();
        places
    };
    let (short, long) = (places("1s"), places("5s"));
    assert_eq!(long, [(0, 1), (1, 1)]);
    assert_eq!(short.iter().filter(|(offset, _)| *offset != 1).copied().collect::<Vec<_>>(), [(2, 1), (4, 1)]);
    // 8 s are 5 s, then rounds of 1 s until they are over; none of them changes the attempts.
    let rounds: Vec<_> = short.iter().filter(|(offset, _)| *offset == 1).collect();
    assert!((1..=3).contains(&rounds.len()) && rounds.iter().all(|(_, attempts)| *attempts == 1), "{short:?}");
    let redelivered = broker::read(&scene.redeliver_topic());
    let first = redelivered.iter().find(|r| r.number("kladder-origin-offset") == Some(1)).expect("it is there");
    let asked = first.number("kladder-last-failed-at").expect("a time") + 8_000;
    assert_eq!(first.number("kladder-not-before"), Some(asked), "as the handler asked");
    assert!(first.timestamp >= asked, "redelivered {} ms early", asked - first.timestamp);

    let dlq = broker::read(&scene.dlq_topic());
    let dead: Vec<_> = dlq.iter().map(|r| (r.number("kladder-origin-offset"), r.text("kladder-reason"))).collect();
    assert_eq!(dead, [(Some(3), Some("rejected"))]);
    assert_eq!(dlq[0].text("kladder-error-class"), Some("NoSuchOrder"));
    let verdicts = ["done", "retry", "retry_after", "reject", "unsent"];
    let counted = verdicts.map(|v| scene.metric("kladder_deliveries_total", &format!("verdict=\"{v}\"")).map(|n| n.to_string()));
    assert_eq!(counted.map(Option::unwrap_or_default), ["5", "1", "3", "1", "0"], "{verdicts:?}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

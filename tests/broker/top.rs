//! `kladder top` on a terminal: it shows what is in the topics, its keys work, and the terminal is restored.

use rdkafka::mocking::MockCluster;
use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{Scene, path};
use crate::support::terminal::{Left, Terminal};

const PARTITIONS: i32 = 3;
const USUAL: (u16, u16) = (80, 24);
const GIVEN_BACK: Left = Left { code: Some(0), settings_restored: true, on_alternate_screen: false, cursor_hidden: false };

/// The row with that name, word by word.
fn row(lines: &[String], name: &str) -> Vec<String> {
    let found = lines.iter().find_map(|line| line.strip_prefix(name));
    found.map(|rest| rest.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

fn is_held(config: &std::path::Path) -> bool {
    let said = process::kladder(&["status", "-c", path(config), "-o", "json"]).succeeds();
    let status: Value = serde_json::from_str(&said.stdout).expect("JSON");
    status["ladders"][0]["held"] == true
}

/// This many records, written as by any client: without transactions, so that offsets count nothing else.
fn put(topic: &str, count: usize) {
    let records: Vec<_> = (0..count).map(|number| records::plain(number, PARTITIONS)).collect();
    RawProducer::new(broker::brokers()).write(topic, &records);
}

/// A ladder that is set up, with 7 records in its tier of ten minutes, 4 in that of an hour, and 5 dead letters.
fn with_records(theme: &str) -> (Scene, std::path::PathBuf) {
    let scene = Scene::with_source(theme, &["5s", "10m", "1h"], PARTITIONS);
    let config = scene.set_up();
    put(&scene.tier_topic("10m"), 7);
    put(&scene.tier_topic("1h"), 4);
    put(&scene.dlq_topic(), 5);
    (scene, config)
}

#[test]
fn top_shows_what_is_there_and_its_keys_hold_and_resume() {
    let (scene, config) = with_records("top");
    let worker = Kladder::run(&config);
    let mut top = Terminal::run((120, 40), &["top", "-c", path(&config)], &[]);
    top.shows("what was put in", |lines| {
        row(lines, "retry-10m").first().is_some_and(|waiting| waiting == "~7")
            && row(lines, "retry-1h").first().is_some_and(|waiting| waiting == "~4")
            && row(lines, "retry-5s").first().is_some_and(|waiting| waiting == "0")
            && row(lines, "dead letters").first().is_some_and(|records| records == "~5")
    });
    top.shows("nothing of it is due, and when it will be", |lines| {
        let tier = row(lines, "retry-10m");
        tier.get(1).is_some_and(|due| due == "0") && tier.get(2).is_some_and(|word| word == "in")
    });
    // Of a topic that begins with the ladder's name only the rest is shown.
    let source = scene.source.strip_prefix(&format!("{}.", scene.ladder)).unwrap_or(&scene.source);
    top.shows("the name, the source, the worker and what it has", |lines| {
        let has_all = |line: &String| {
            ["worker-1 ", "deliverer ", "mover ", "retry-10m 0-2", &format!("{source} 0-2")].iter().all(|w| line.contains(w))
        };
        has(lines, &scene.ladder) && has(lines, &format!("source {source}")) && lines.iter().any(has_all)
    });
    top.shows("it runs, and the worker's metrics are read", |lines| has(lines, "RUNNING") && has(lines, "metrics of 127.0.0.1:"));
    assert!(!top.has_colours(), "NO_COLOR is set");

    top.press("?");
    top.shows("the help", |lines| has(lines, "hold or resume the ladder"));
    top.press("?");
    top.shows("no help", |lines| !has(lines, "hold or resume the ladder"));
    top.press("p");
    top.shows("the question", |lines| has(lines, &format!("hold {}?", scene.ladder)));
    top.press("n");
    top.shows("no question", |lines| !has(lines, "y yes, n no"));
    assert!(!is_held(&config), "held without a yes");
    top.press("p");
    top.shows("the question again", |lines| has(lines, "y yes, n no"));
    top.press("y");
    top.shows("the ladder is held", |lines| has(lines, "HELD since "));
    assert!(is_held(&config));
    assert!(worker_obeys(&scene, 1.0), "the worker does not know");
    top.press("p");
    top.shows("the other question", |lines| has(lines, &format!("resume {}?", scene.ladder)));
    top.press("y");
    top.shows("it runs again", |lines| has(lines, "RUNNING"));
    assert!(!is_held(&config));

    top.press("q");
    assert_eq!(top.left(), GIVEN_BACK);
    drop(worker);
}

fn worker_obeys(scene: &Scene, held: f64) -> bool {
    clock::poll(PATIENCE, || (scene.metric("kladder_held", "") == Some(held)).then_some(())).is_some()
}

#[test]
fn what_is_moved_is_seen_moving() {
    let (scene, config) = with_records("top-moves");
    let top = Terminal::run(USUAL, &["top", "-c", path(&config)], &[("NO_COLOR", "")]);
    top.shows("nobody works", |lines| has(lines, "NONE") && has(lines, "no worker answers"));
    put(&scene.tier_topic("5s"), 9);
    top.shows("nine wait", |lines| row(lines, "retry-5s").first().is_some_and(|waiting| waiting == "~9"));
    top.shows("all are due, for some time", |lines| {
        let tier = row(lines, "retry-5s");
        tier.get(1).is_some_and(|due| due == "~9") && tier.get(3).is_some_and(|word| word == "ago")
    });
    assert!(top.has_colours());
    let worker = Kladder::run(&config);
    top.shows("none waits any more, and how late they were", |lines| {
        let tier = row(lines, "retry-5s");
        tier.first().is_some_and(|waiting| waiting == "0") && tier.last().is_some_and(|late| late.ends_with('s'))
    });
    top.shows("the others wait still", |lines| row(lines, "retry-10m").first().is_some_and(|waiting| waiting == "~7"));
    drop(worker);
}

#[test]
fn a_signal_or_ctrl_c_gives_the_terminal_back() {
    let (_scene, config) = with_records("top-signals");
    for end in ["TERM", "INT", "HUP", "\u{3}", "\u{1b}"] {
        let mut top = Terminal::run(USUAL, &["top", "-c", path(&config)], &[]);
        top.shows("the picture", |lines| has(lines, "retry-10m"));
        if end.len() > 1 {
            top.signal(end);
        } else {
            top.press(end);
        }
        assert_eq!(top.left(), GIVEN_BACK, "{end:?}");
    }
}

#[test]
fn a_cluster_that_goes_away_leaves_the_picture_marked_as_stale_until_it_is_back() {
    // A broker that can be stopped without affecting other tests.
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let mut scene = Scene::new("top-stale", &["10m"]);
    scene.brokers = cluster.bootstrap_servers();
    let topics = [scene.source.clone(), scene.tier_topic("10m"), scene.redeliver_topic(), scene.dlq_topic()];
    for topic in topics.iter().chain([&format!("{}.state", scene.ladder)]) {
        cluster.create_topic(topic, PARTITIONS, 1).expect("a topic");
    }
    let records: Vec<_> = (0..7).map(|number| records::plain(number, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.tier_topic("10m"), &records);
    let config = scene.write();
    let mut top = Terminal::run(USUAL, &["top", "-c", path(&config)], &[]);
    let seven_wait = |lines: &[String]| row(lines, "retry-10m").first().is_some_and(|waiting| waiting == "~7");
    top.shows("the picture", |lines| seven_wait(lines) && !has(lines, "STALE"));
    cluster.broker_down(1).expect("the broker goes");
    top.shows("the picture still, and its age", |lines| seven_wait(lines) && has(lines, "STALE, ") && has(lines, " old"));
    cluster.broker_up(1).expect("the broker comes");
    top.shows("new data", |lines| seven_wait(lines) && !has(lines, "STALE"));
    cluster.broker_down(1).expect("the broker goes");
    top.shows("its age", |lines| has(lines, "STALE, "));
    // Quitting does not wait for a response.
    top.press("q");
    assert_eq!(top.left(), GIVEN_BACK);
}

#[test]
fn where_nobody_answers_top_ends_with_the_remedy_on_a_screen_that_is_given_back() {
    let mut scene = Scene::new("top-nobody", &["5s"]);
    scene.brokers = "127.0.0.1:9".to_owned();
    let config = scene.write();
    let top = Terminal::run(USUAL, &["top", "-c", path(&config)], &[]);
    top.shows("why", |lines| has(lines, "error: no broker answered at 127.0.0.1:9"));
    assert_eq!(top.left(), Left { code: Some(1), ..GIVEN_BACK });
}

#[test]
fn without_a_terminal_top_says_what_to_use_instead_and_prints_one_picture_on_request() {
    let (scene, config) = with_records("top-once");
    process::kladder(&["top", "-c", path(&config)]).refuses(2, &["stdout is not a terminal", "kladder status", "--once"]);
    let printed = process::kladder(&["top", "-c", path(&config), "--once"]).succeeds();
    let lines: Vec<String> = printed.stdout.lines().map(str::to_owned).collect();
    for (tier, waiting) in [("retry-5s", "0"), ("retry-10m", "~7"), ("retry-1h", "~4"), ("dead letters", "~5")] {
        assert_eq!(row(&lines, tier).first().map(String::as_str), Some(waiting), "{printed}");
    }
    assert!(has(&lines, &scene.ladder) && has(&lines, "workers"), "{printed}");
    assert!(!printed.stdout.contains('\u{1b}'), "{printed}");
    process::kladder(&["top", "-c", path(&config), "--ladder", "nobody"]).refuses(2, &["no ladder `nobody`"]);
    process::kladder(&["top", "-c", path(&config), "--every", "10ms"]).refuses(2, &["at least 200ms"]);
}

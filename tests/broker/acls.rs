//! The rules that `kladder generate acls` prints, on a broker with an authorizer: sufficient for each role, and what happens
//! without them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::process::{self, Kladder, assert_clean};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{Scene, path};

const TOOL: &str = "org.apache.kafka.tools.AclCommand";
/// The user of `scripts/kafka` without any rights.
const PRINCIPAL: &str = "User:limited";
/// The options that name resources.
const ABOUT: [&str; 3] = ["--topic", "--group", "--transactional-id"];

/// A scene whose clients may do only what is granted to them. The tests' own clients may do
/// everything.
struct Limited {
    scene: Scene,
    /// What rules were created for, as options of the tool.
    ruled: Vec<[String; 2]>,
}

impl Limited {
    fn new(theme: &str, tiers: &[&'static str], partitions: i32, handler: &Handler) -> Self {
        let mut scene = Scene::with_source(theme, tiers, partitions);
        handler.url().clone_into(&mut scene.handler);
        Self { scene, ruled: Vec::new() }
    }

    /// Topics created by a privileged user, so that a test can begin with the workers.
    fn set_up(theme: &str, tiers: &[&'static str], partitions: i32, handler: &Handler) -> Self {
        let limited = Self::new(theme, tiers, partitions, handler);
        limited.scene.set_up();
        limited.log_in()
    }

    /// The same for a relay.
    fn set_up_relay(theme: &str, tiers: &[&'static str]) -> Self {
        let limited = Self { scene: Scene::of_relay(theme, tiers, 1), ruled: Vec::new() };
        limited.scene.set_up();
        limited.log_in()
    }

    fn log_in(mut self) -> Self {
        broker::sasl_brokers().clone_into(&mut self.scene.brokers);
        "security.protocol = \"SASL_PLAINTEXT\"\nsasl.mechanism = \"PLAIN\"\n\
         sasl.username = \"limited\"\nsasl.password = \"limited-secret\""
            .clone_into(&mut self.scene.kafka);
        self
    }

    /// The commands that `generate acls` prints for these roles: what each allows, and on what, as options of the tool.
    fn printed(&self, roles: &[&str]) -> Vec<(Vec<String>, Vec<[String; 2]>)> {
        let config = self.scene.write();
        let mut arguments = vec!["generate", "acls", "-c", path(&config), "--principal", PRINCIPAL];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        let printed = process::kladder(&arguments).succeeds().stdout;
        let commands = printed.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(words[..2], ["kafka-acls.sh", "--bootstrap-server"], "{line}");
            let about = words.iter().position(|word| ABOUT.contains(&word.as_str())).expect("a resource");
            let resources = words[about..].chunks(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect();
            (words[3..about].to_vec(), resources)
        });
        commands.collect()
    }

    /// Grants what the roles need, for the selected rules.
    fn grant_those(&mut self, roles: &[&str], keep: impl Fn(&str) -> bool) {
        // Each command is a process that takes a second to start, so those with the same operations are run as
        // one.
        let mut commands: BTreeMap<Vec<String>, Vec<[String; 2]>> = BTreeMap::new();
        for (allowed, resources) in self.printed(roles) {
            let kept = resources.into_iter().filter(|[kind, _]| keep(kind));
            commands.entry(allowed).or_default().extend(kept);
        }
        commands.retain(|_, resources| !resources.is_empty());
        assert!(!commands.is_empty(), "no rules for {roles:?}");
        for (allowed, resources) in &commands {
            acl(&allowed.iter().chain(resources.iter().flatten()).map(String::as_str).collect::<Vec<_>>());
            self.ruled.extend(resources.iter().cloned());
        }
    }

    fn grant(&mut self, roles: &[&str]) {
        self.grant_those(roles, |_| true);
    }

    /// Removes all rules.
    fn withdraw(&mut self) {
        self.ruled.sort();
        self.ruled.dedup();
        if self.ruled.is_empty() {
            return;
        }
        let mut arguments = vec!["--remove", "--force", "--resource-pattern-type", "any"];
        arguments.extend(self.ruled.iter().flatten().map(String::as_str));
        acl(&arguments);
        self.ruled.clear();
    }

    fn write(&self, records: &[NewRecord]) {
        RawProducer::new(broker::brokers()).write(&self.scene.source, records);
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.withdraw();
        }
    }
}

fn acl(arguments: &[&str]) {
    broker::kafka_tool(TOOL, &[&["--bootstrap-server", broker::brokers()], arguments].concat());
}

fn on_topic(action: &str, operation: &str, topic: &str) {
    let mut arguments = vec![action, "--allow-principal", PRINCIPAL, "--operation", operation, "--topic", topic];
    if action == "--remove" {
        arguments.push("--force");
    }
    acl(&arguments);
}

/// A record whose value tells the handler what to answer.
fn says(word: &str, number: usize, partition: i32) -> NewRecord {
    let mut record = records::plain(number, 1);
    record.partition = partition;
    record.value = Some(word.as_bytes().to_vec());
    record
}

/// `reject` becomes a dead letter at once, `retry` climbs one tier.
fn by_word(call: &Call) -> Answer {
    match call.body.as_ref() {
        b"reject" => Answer::fail(422, "no such order"),
        b"retry" if call.attempt == 1 => Answer::fail(503, FAILURE),
        _ => Answer::ok(),
    }
}

fn calls_of(handler: &Handler, word: &str) -> usize {
    handler.calls().iter().filter(|call| call.body == word).count()
}

/// The number of stopped partitions of a worker, by its own metric.
fn stopped(scene: &Scene, role: &str) -> Option<f64> {
    scene.metric("kladder_partitions_stopped", &format!("role=\"{role}\""))
}

#[test]
fn each_role_works_with_the_rules_that_are_printed_for_it() {
    const RECORDS: usize = 60;
    let fails = |number: usize| if number.is_multiple_of(3) { u32::MAX } else { u32::try_from(number % 3 - 1).expect("small") };
    let number = |call: &Call| usize::try_from(call.offset * 3 + i64::from(call.partition)).expect("a place");
    let handler =
        Handler::start(move |call| if call.attempt <= fails(number(call)) { Answer::fail(503, FAILURE) } else { Answer::ok() });
    let mut limited = Limited::new("acls", &["1s", "2s"], 3, &handler).log_in();

    let refused = limited.scene.setup();
    refused.refuses(1, &["not authorised to describe topic", &limited.scene.ladder, "kladder generate acls"]);
    assert!(!broker::topics().contains_key(&limited.scene.dlq_topic()), "setup left something behind");
    limited.grant(&["setup"]);
    limited.scene.setup().succeeds();
    limited.scene.setup().succeeds();
    let said = process::kladder(&["doctor", "-c", path(&limited.scene.write())]).succeeds();
    assert!(!said.stdout.contains("NOT CHECKED"), "{said}");

    limited.withdraw();
    process::kladder(&["doctor", "-c", path(&limited.scene.write())])
        .refuses(1, &["NOT CHECKED", "the ladder could not be checked", "kladder generate acls"]);
    limited.grant(&["mover", "deliverer", "index"]);
    limited.scene.setup().refuses(1, &["not authorised", "settings", "kladder generate acls"]);
    let config = limited.scene.write();
    limited.write(&(0..RECORDS).map(|n| records::hostile(n, 3, &limited.scene.ladder)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let (dead, scene) = (RECORDS / 3, &limited.scene);
    clock::eventually("the ladder is empty", PATIENCE, || {
        kladder.assert_running();
        handler.count() >= RECORDS * 2
            && broker::read(&scene.dlq_topic()).len() >= dead
            && broker::lag(&scene.group, &scene.source) == 0
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), fails).assert_no_faults();
    let log = kladder.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "a worker lacked something:\n{log}");

    limited.withdraw();
    limited.grant(&["status"]);
    let said = process::kladder(&["status", "-c", path(&config)]).succeeds();
    assert!(!said.stderr.contains("may not be described"), "{said}");
    assert!(said.stdout.contains(&limited.scene.dlq_topic()) && said.stdout.contains(&limited.scene.source), "{said}");
    assert!(!said.stderr.contains("is unknown"), "{said}");
    process::kladder(&["doctor", "-c", path(&config)]).refuses(1, &["NOT CHECKED", "settings", "kladder generate acls"]);
    process::kladder(&["status", "--exact", "-c", path(&config)]).refuses(1, &["not authorised", "kladder generate acls"]);
    process::kladder(&["hold", "-c", path(&config)]).refuses(1, &["not authorised to write hold", "kladder generate acls"]);

    limited.withdraw();
    process::kladder(&["hold", "-c", path(&config)]).refuses(1, &["not authorised to read the state", "kladder generate acls"]);
    limited.grant(&["redrive"]);
    for command in ["hold", "resume"] {
        process::kladder(&[command, "-c", path(&config), "-o", "json"]).succeeds();
    }
    let before = broker::read(&limited.scene.redeliver_topic()).len();
    let sent = process::kladder(&["dlq", "redrive", "--all", "--rate", "max", "--yes", "-c", path(&config)]).succeeds();
    assert!(sent.stderr.contains(&format!("{dead} sent")), "{sent}");
    assert_eq!(broker::read(&limited.scene.redeliver_topic()).len(), before + dead);
}

#[test]
fn without_transactions_a_worker_says_so_and_goes_on_after_the_grant() {
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-txn", &["1s"], 1, &handler);
    limited.grant_those(&["mover", "deliverer"], |word| word != "--transactional-id");
    limited.write(&[says("retry", 0, 0)]);
    let mut kladder = Kladder::run(&limited.scene.write());
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        kladder.assert_running();
        let log = kladder.log();
        let id = |role: &str| format!("{}.{role}.worker-1", limited.scene.ladder);
        ["ERROR", "ransactional Id authorization failed", "kladder generate acls", &id("mover"), &id("deliverer")]
            .iter()
            .all(|words| log.contains(words))
    });
    assert_eq!(handler.count(), 0, "a handler was called that no hop could have followed");
    limited.grant(&["mover", "deliverer"]);
    clock::eventually("the record is retried", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2
    });
    assert_clean(&kladder.log());
}

#[test]
fn a_dlq_that_may_not_be_written_to_stops_only_what_has_to_go_there() {
    denied_dlq("acl-dlq", true);
}

#[test]
fn a_dlq_that_may_not_even_be_seen_stops_only_what_has_to_go_there() {
    denied_dlq("acl-dlq-unseen", false);
}

fn denied_dlq(theme: &str, still_seen: bool) {
    const EACH: usize = 20;
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up(theme, &["1s"], 2, &handler);
    limited.grant(&["mover", "deliverer"]);
    let dlq = limited.scene.dlq_topic();
    if still_seen {
        on_topic("--add", "Describe", &dlq);
    }
    let mut kladder = Kladder::run(&limited.scene.write());
    limited.write(&[says("retry", 0, 0), says("retry", 1, 1), says("reject", 2, 0)]);
    clock::eventually("it works", PATIENCE, || calls_of(&handler, "retry") == 4 && broker::read(&dlq).len() == 1);

    on_topic("--remove", "Write", &dlq);
    // Records of one partition become dead letters, those of both others climb: they meet in one
    // transaction.
    let mut mixed: Vec<NewRecord> = (0..EACH).map(|n| says("retry", n, i32::try_from(n % 2).expect("small"))).collect();
    mixed.splice(EACH / 2..EACH / 2, (0..EACH / 2).map(|n| says("reject", n, 0)));
    limited.write(&mixed);
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        let log = kladder.log();
        let said = log.lines().find(|line| line.contains("ERROR") && line.contains(&dlq)).unwrap_or_default();
        said.contains("not authorised to write") && said.contains("kladder generate acls")
    });
    clock::eventually("the others go on", PATIENCE, || {
        kladder.assert_running();
        calls_of(&handler, "retry") == 4 + 2 * EACH && stopped(&limited.scene, "deliverer") == Some(1.0)
    });
    // More than max_in_flight, so that they could not pass the stopped partition if it counted.
    let more: Vec<NewRecord> = (0..limited.scene.max_in_flight * 2).map(|n| says("done", n, 1)).collect();
    limited.write(&more);
    limited.write(&[says("behind", 0, 0)]);
    clock::eventually("fresh records go on", PATIENCE, || calls_of(&handler, "done") == more.len());
    assert_eq!(calls_of(&handler, "behind"), 0, "the partition of the dead letters takes new records");
    assert_eq!(broker::read(&dlq).len(), 1);

    on_topic("--add", "Write", &dlq);
    clock::eventually("everything is written", PATIENCE, || {
        kladder.assert_running();
        let scene = &limited.scene;
        broker::read(&dlq).len() > EACH / 2 && calls_of(&handler, "behind") == 1 && broker::lag(&scene.group, &scene.source) == 0
    });
    clock::eventually("no partition stands still", PATIENCE, || stopped(&limited.scene, "deliverer") == Some(0.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert_eq!(broker::read(&dlq).len(), 1 + EACH / 2, "a dead letter was doubled");
    assert_eq!(calls_of(&handler, "reject"), 1 + EACH / 2, "a dead letter was delivered again");
    assert_eq!(calls_of(&handler, "retry"), 4 + 2 * EACH);
    let log = kladder.log();
    assert!(!log.contains("worker failed") && !log.contains("lacks a permission"), "a worker started anew:\n{log}");
}

#[test]
fn what_is_due_waits_while_redeliver_may_not_be_written_to() {
    const RECORDS: usize = 10;
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-redeliver", &["1s"], 2, &handler);
    limited.grant(&["mover", "deliverer"]);
    let redeliver = limited.scene.redeliver_topic();
    let mut kladder = Kladder::run(&limited.scene.write());
    limited.write(&[says("retry", 0, 0)]);
    clock::eventually("it works", PATIENCE, || handler.count() == 2);

    on_topic("--remove", "Write", &redeliver);
    limited.write(&(0..RECORDS).map(|n| says("retry", n, i32::try_from(n % 2).expect("small"))).collect::<Vec<_>>());
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        let log = kladder.log();
        let said = log.lines().find(|line| line.contains("ERROR") && line.contains(&redeliver)).unwrap_or_default();
        said.contains("not authorised to write") && said.contains("kladder generate acls")
    });
    clock::pause(Duration::from_secs(1));
    kladder.assert_running();
    assert_eq!(handler.count(), 2 + RECORDS);

    on_topic("--add", "Write", &redeliver);
    clock::eventually("what was due is delivered", PATIENCE, || handler.count() == 2 + 2 * RECORDS);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert_eq!(broker::read(&redeliver).len(), 1 + RECORDS);
    let log = kladder.log();
    assert!(!log.contains("worker failed") && !log.contains("lacks a permission"), "a worker started anew:\n{log}");
}

#[test]
fn a_mover_that_may_not_read_a_clock_says_so_and_goes_on_after_the_grant() {
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-state", &["1s"], 1, &handler);
    limited.grant(&["mover", "deliverer"]);
    let state = format!("{}.state", limited.scene.ladder);
    on_topic("--add", "Describe", &state);
    on_topic("--remove", "Write", &state);
    limited.write(&[says("retry", 0, 0)]);
    let mut kladder = Kladder::run(&limited.scene.write());
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        let log = kladder.log();
        let said = log.lines().find(|line| line.contains("ERROR") && line.contains(&state)).unwrap_or_default();
        said.contains("not authorised to write") && said.contains("kladder generate acls")
    });
    // It retries every five seconds.
    clock::pause(Duration::from_secs(6));
    let log = kladder.log();
    assert_eq!(log.lines().filter(|line| line.contains("ERROR")).count(), 1, "an error is told once:\n{log}");
    on_topic("--add", "Write", &state);
    clock::eventually("the record is retried", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2
    });
    assert!(!kladder.log().contains("worker failed"), "a worker started anew:\n{}", kladder.log());
}

#[test]
fn a_tier_that_may_not_be_read_is_told_and_goes_on_after_the_grant() {
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-tier", &["1s"], 1, &handler);
    limited.grant(&["mover", "deliverer"]);
    let tier = limited.scene.tier_topic("1s");
    on_topic("--add", "Describe", &tier);
    on_topic("--remove", "Read", &tier);
    limited.write(&[says("retry", 0, 0)]);
    let mut kladder = Kladder::run(&limited.scene.write());
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        let log = kladder.log();
        let said = log.lines().find(|line| line.contains("ERROR") && line.contains(&tier)).unwrap_or_default();
        said.contains("not authorised to read") && said.contains("kladder generate acls --role mover")
    });
    clock::eventually("the metric says so", PATIENCE, || stopped(&limited.scene, "mover") == Some(1.0));
    assert_eq!(
        kladder.log().lines().filter(|line| line.contains("ERROR")).count(),
        1,
        "an error is told once:\n{}",
        kladder.log()
    );
    on_topic("--add", "Read", &tier);
    clock::eventually("the record is retried", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2
    });
    clock::eventually("nothing stands still", PATIENCE, || stopped(&limited.scene, "mover") == Some(0.0));
}

#[test]
fn workers_that_may_not_read_whether_the_ladder_is_held_do_not_begin() {
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-hold", &["1s"], 1, &handler);
    limited.grant(&["mover", "deliverer"]);
    let state = format!("{}.state", limited.scene.ladder);
    // The mover may still write it, and therefore describe it.
    on_topic("--remove", "Read", &state);
    limited.write(&[says("retry", 0, 0)]);
    let mut kladder = Kladder::run(&limited.scene.write());
    clock::eventually("the log says what is denied and what helps", PATIENCE, || {
        kladder.assert_running();
        let log = kladder.log();
        ["mover of", "deliverer of"].iter().all(|worker| {
            let said = log.lines().find(|line| line.contains("ERROR") && line.contains(worker)).unwrap_or_default();
            said.contains(&format!("reading {state}")) && said.contains("kladder generate acls")
        })
    });
    assert_eq!(handler.count(), 0, "a worker began without knowing whether the ladder is held");
    assert!(!kladder.log().contains("partitions assigned"), "a worker joined:\n{}", kladder.log());
    on_topic("--add", "Read", &state);
    clock::eventually("the record is retried", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2
    });

    // If the right is revoked later, the last known state applies, and the loss is logged.
    on_topic("--remove", "Read", &state);
    clock::eventually("the log reports the loss", PATIENCE, || {
        let log = kladder.log();
        log.lines().any(|line| line.contains("ERROR") && line.contains("hold and resume have no effect"))
    });
    limited.write(&[says("done", 1, 0)]);
    clock::eventually("it goes on", PATIENCE, || {
        kladder.assert_running();
        calls_of(&handler, "done") == 1
    });
    assert_clean(&kladder.log());
}

#[test]
fn a_worker_that_may_see_only_its_own_topics_still_refuses_a_ladder_of_another_group() {
    let handler = Handler::start(by_word);
    let mut limited = Limited::set_up("acl-owner", &["1s"], 1, &handler);
    limited.grant(&["mover"]);
    let owner = NewRecord {
        partition: 0,
        key: Some(b"owner".to_vec()),
        value: Some(br#"{"v":1,"group":"shipping","at":1}"#.to_vec()),
        headers: Vec::new(),
    };
    RawProducer::new(broker::brokers()).write(&format!("{}.state", limited.scene.ladder), &[owner]);
    let config = limited.scene.write();
    process::kladder(&["run", "--role", "mover", "-c", path(&config)])
        .refuses(1, &["cannot check whether the ladders are set up", "belongs to group shipping", "--take-over"]);
}

#[test]
fn the_printed_rules_are_enough_for_the_workers_of_a_relay() {
    let mut limited = Limited::set_up_relay("acl-relay", &["1s"]);
    limited.grant(&["mover", "router"]);
    let config = limited.scene.write();
    let mut rejected = records::plain(1, 1);
    rejected.headers.push(("kladder-verdict".into(), Some(b"reject".to_vec())));
    RawProducer::new(broker::brokers()).write(&limited.scene.inbox_topic(), &[records::plain(0, 1), rejected]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("one comes back, the other is dead", PATIENCE, || {
        kladder.assert_running();
        broker::read(&limited.scene.redeliver_topic()).len() == 1 && broker::read(&limited.scene.dlq_topic()).len() == 1
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    assert!(!kladder.log().contains("ERROR"), "its log:\n{}", kladder.log());
}

#[test]
fn records_that_a_router_may_not_read_hold_up_their_partition_and_go_on_after_the_grant() {
    let mut scene = Scene::of_relay("acl-elsewhere", &["500ms"], 2);
    let inbox = format!("{}.dead", scene.source);
    broker::create_topic(&inbox, 2, &[]);
    scene.settings = format!(
        "mode = \"relay\"\nredeliver = \"origin\"\nreaches_all_groups = true\nstart = \"earliest\"\n\
         inbox = {{ topic = \"{inbox}\", dialect = \"share-group\" }}"
    );
    let limited = Limited { scene, ruled: Vec::new() };
    limited.scene.set_up();
    let mut limited = limited.log_in();
    limited.grant(&["mover", "router"]);
    let source = limited.scene.source.clone();
    limited.write(&[records::plain(0, 1)]);
    let letter = |partition: i32, topic: &str, value: Option<&[u8]>| {
        let told = [("topic", topic), ("partition", "0"), ("offset", "0"), ("group", "billing")];
        let headers = told.map(|(name, value)| (format!("__dlq.errors.{name}").into_bytes(), Some(value.as_bytes().to_vec())));
        NewRecord { partition, key: None, value: value.map(<[u8]>::to_vec), headers: headers.to_vec() }
    };
    let mut kladder = Kladder::run(&limited.scene.write());
    limited.scene.await_ready();
    on_topic("--remove", "Read", &source);
    on_topic("--add", "Describe", &source);
    let inbox_writer = RawProducer::new(broker::brokers());
    let others = [letter(1, "elsewhere", Some(b"one")), letter(1, "elsewhere", Some(b"two"))];
    inbox_writer.write(&inbox, &[&[letter(0, &source, None)][..], &others].concat());
    clock::eventually("those of the other partition go on", PATIENCE, || broker::read(&limited.scene.dlq_topic()).len() == 2);
    clock::eventually("one partition is reported as stopped", PATIENCE, || stopped(&limited.scene, "router") == Some(1.0));
    let log = kladder.log();
    assert!(
        log.lines().any(|line| line.contains("ERROR") && line.contains("router is not authorised to read")),
        "its log:\n{log}"
    );
    kladder.assert_running();
    on_topic("--add", "Read", &source);
    clock::eventually("all go on", PATIENCE * 2, || {
        broker::read(&source).len() == 2 && stopped(&limited.scene, "router") == Some(0.0)
    });
    assert!(broker::read(&source).iter().all(|record| record.value.is_some()));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

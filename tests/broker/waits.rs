//! `kladder run` before any broker answers: it waits, and the probes report it.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::port::free_port;
use crate::support::process::Kladder;
use crate::support::scene::{Scene, get};

/// Forwards connections on this port to the real broker, which then announces its own address.
fn open(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (Ok(ours), Ok(theirs)) = (connection, TcpStream::connect(broker::brokers())) else { continue };
            for (mut from, mut to) in
                [(ours.try_clone().expect("a socket"), theirs.try_clone().expect("a socket")), (theirs, ours)]
            {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
}

#[test]
fn a_worker_that_waits_for_brokers_ends_when_it_is_told_to() {
    let mut scene = Scene::with_source("waits-end", &["1s"], 1);
    scene.set_up();
    scene.brokers = format!("127.0.0.1:{}", free_port());
    let mut kladder = Kladder::run(&scene.write());
    let health = scene.health_port();
    clock::eventually("it lives", PATIENCE, || matches!(get(health, "/livez"), Some((200, _))));
    assert_eq!(kladder.terminate(Duration::from_secs(5)).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_worker_that_is_started_before_any_broker_lives_says_why_it_is_not_ready_and_begins_by_itself() {
    let mut scene = Scene::with_source("waits", &["1s"], 1);
    scene.set_up();
    let port = free_port();
    scene.brokers = format!("127.0.0.1:{port}");
    let config = scene.write();
    let mut kladder = Kladder::run(&config);
    let health = scene.health_port();
    clock::eventually("it lives", PATIENCE, || matches!(get(health, "/livez"), Some((200, _))));
    let told = |status: u16, what: &str| get(health, "/readyz").is_some_and(|(code, said)| code == status && said.contains(what));
    clock::eventually("it is not ready, and says why", PATIENCE, || told(503, "no broker answered at 127.0.0.1:"));
    kladder.assert_running();
    // Once, however often it is retried.
    clock::eventually("it tries again", PATIENCE, || {
        assert!(kladder.log().matches("ERROR").count() <= 1, "{}", kladder.log());
        ["waiting for a broker", "bootstrap.servers"].iter().all(|said| kladder.log().contains(said))
    });
    open(port);
    clock::eventually("it is ready", PATIENCE, || told(200, "ok") && !told(200, "no broker"));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

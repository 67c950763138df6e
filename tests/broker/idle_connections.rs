//! Idle connections to the ports of a worker take nothing that deliveries need.

use std::net::TcpStream;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

#[test]
fn hundreds_of_idle_connections_leave_probes_and_deliveries_alone() {
    const FILES: u32 = 256;
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "not yet") } else { Answer::ok() });
    let mut scene = Scene::with_source("idle-connections", &["500ms"], 3);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let mut kladder = Kladder::run_with_files(&config, FILES);
    scene.await_ready();

    let ports = [scene.health_port(), scene.admin];
    let idle: Vec<_> = (0..FILES + 64).map(|n| TcpStream::connect(("127.0.0.1", ports[usize::from(n % 2 == 0)]))).collect();
    let sent: Vec<_> = (0..60).map(|n| records::plain(n, 3)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &sent);
    clock::eventually("all are done in their second attempts", PATIENCE, || {
        kladder.assert_running();
        handler.count() >= 120 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let open = scene.metric("process_open_fds", "").expect("the metrics are served");
    assert!(open < f64::from(FILES), "{open} of {FILES}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    drop(idle);
}

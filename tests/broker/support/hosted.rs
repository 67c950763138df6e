//! A separate broker with rules for new topics, as hosted clusters have them.

use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use super::broker;
use super::clock;
use super::port::free_port;

/// The port of a service that is not running.
pub const NOBODY: &str = "127.0.0.1:9";

/// Long enough for a JVM to load all of its classes on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// Stopped when dropped.
pub struct HostedBroker {
    pub address: String,
    /// A listener that answers, and tells clients that the broker is at an address where nothing listens.
    pub astray: String,
    child: Child,
    folder: TempDir,
}

impl HostedBroker {
    /// One for all tests that use it at the same time.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<HostedBroker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    /// With the rules of `hosted/Rules.java`. It creates topics on demand.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let printed = Command::new(broker::in_house("scripts/kafka")).arg("classpath").stdin(Stdio::null()).output();
        let jars = String::from_utf8(printed.expect("scripts/kafka can be run").stdout).expect("text").trim().to_owned();
        let rules = broker::in_house("tests/broker/hosted/Rules.java");
        let compiled = Command::new("javac").args(["-cp", &jars, "-d"]).arg(folder.path()).arg(rules).output();
        let compiled = compiled.expect("a Java compiler is installed: scripts/install test");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

        let (port, astray, controller) = (free_port(), free_port(), free_port());
        let properties = folder.path().join("server.properties");
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\nlisteners=PLAINTEXT://127.0.0.1:{port},ASTRAY://127.0.0.1:{astray},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},ASTRAY://{NOBODY}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,ASTRAY:PLAINTEXT,CONTROLLER:PLAINTEXT\ninter.broker.listener.name=PLAINTEXT\n\
             log.dirs={data}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=2\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=2\n\
             group.initial.rebalance.delay.ms=0\nlog.cleaner.dedupe.buffer.size=16777216\ncreate.topic.policy.class.name=Rules\n\
             auto.create.topics.enable=true\n",
            data = folder.path().join("data").display(),
        );
        fs::write(&properties, text).expect("a file");
        let java = |class: &[&str]| {
            let mut java = Command::new("java");
            java.args(["-cp", &format!("{jars}:{}", folder.path().display()), "-Xmx400m", "-XX:+UseSerialGC"]);
            let log = File::create(folder.path().join(class[0])).expect("a file");
            java.args(class).stdin(Stdio::null()).stderr(log.try_clone().expect("a file")).stdout(log);
            java
        };
        let file = properties.to_str().expect("UTF-8");
        let formatted = java(&["kafka.tools.StorageTool", "format", "-t", "kAAAAAAAAAAAAAAAAAAAAA", "-c", file]).status();
        assert!(formatted.is_ok_and(|status| status.success()), "the broker's storage cannot be formatted");
        let child = java(&["kafka.Kafka", file]).spawn().expect("Java runs");
        let mut broker = Self { address: format!("127.0.0.1:{port}"), astray: format!("127.0.0.1:{astray}"), child, folder };
        clock::eventually("the hosted broker answers", STARTS_WITHIN, || {
            assert!(broker.child.try_wait().expect("a state").is_none(), "the broker has ended:\n{}", broker.log());
            TcpStream::connect(&broker.address).is_ok()
        });
        broker
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("kafka.Kafka")).unwrap_or_default()
    }
}

impl Drop for HostedBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

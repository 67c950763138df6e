//! `kladder check`

use std::process::{Command, Stdio};

use crate::support::{kladder, kladder_in, kladder_with, shipped};

const VALID: &str = r#"
[kafka]
bootstrap.servers = "broker:9092"
sasl.password = "hunter2"
[worker]
instance = "pod-0"
state_dir = "/var/lib/kladder"
[schema_registry]
url = "http://registry:8081/api"
username = "kladder"
password = "hunter2"
[ladder.billing]
sources = ["orders"]
group = "billing"
start = "earliest"
tiers = ["5s", "1m", "10m"]
attempts = 6
handler.url = "http://me:hunter2@127.0.0.1:3000/"
[ladder.shipping]
mode = "relay"
sources = ["shipments", "returns"]
group = "shipping"
hops = "at-least-once"
tiers = ["90s"]
[ladder.stock]
mode = "relay"
sources = ["arrivals"]
group = "stock"
tiers = ["1m"]
redeliver = "origin"
reaches_all_groups = true
settle = "30s"
"#;

#[test]
fn the_resolved_ladders_are_shown() {
    let ran = kladder_with(&["check", "-c", "-"], VALID, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn machines_get_json() {
    let ran = kladder_with(&["check", "-c", "-", "-o", "json"], VALID, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let _: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn all_mistakes_are_told_on_stderr_with_exit_code_2() {
    let text = r#"
[kafka]
bootstrap.servers = "${BROKERS}"
security.protocol = "tls"
sasl.pasword = "hunter2"
auto.offset.reset = "latest"
ssl.truststore.location = "/x.jks"
socket.timeout.ms = "1"

[ladder.billing]
source = ["orders"]
group = "billing"
tiers = ["5s", "soon"]
attempts = 0

[ladder.billing.handler]
url = "localhost:3000"
max_in_flight = 0
"#;
    let ran = kladder_with(&["check", "-c", "-"], text, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stderr);
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    let ran = kladder_with(&["check", "-c", "-"], "[kafka]\nbootstrap.servers = broker:9092\n", &[]);
    assert_eq!(ran.code, 2);
    insta::assert_snapshot!(ran.stderr);
}

#[test]
fn where_the_file_was_looked_for_is_told() {
    let ran = kladder(&["check"]);
    assert_eq!(ran.code, 2);
    for part in ["./kladder.toml", "/.config/kladder/kladder.toml", "/etc/kladder/kladder.toml", "kladder init > kladder.toml"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let ran = kladder(&["check", "-c", "none.toml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.starts_with("error: cannot read none.toml: "), "{}", ran.stderr);
}

#[test]
fn the_file_is_found_by_place_and_by_environment() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("kladder.toml"), VALID).unwrap();
    std::fs::write(directory.path().join("other.toml"), "[kafka]").unwrap();
    assert_eq!(kladder_in(directory.path(), &["check"], "", &[]).code, 0);
    assert_eq!(kladder_in(directory.path(), &["check"], "", &[("KLADDER_CONFIG", "other.toml")]).code, 2);
}

#[test]
fn files_are_read_from_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("conf")).unwrap();
    std::fs::write(directory.path().join("conf/kladder.toml"), VALID.replace("broker:9092", "${file:brokers}")).unwrap();
    std::fs::write(directory.path().join("conf/brokers"), "from-file:9092\n").unwrap();
    let ran = kladder_in(directory.path(), &["check", "-c", "conf/kladder.toml"], "", &[]);
    assert!(ran.stdout.contains("brokers from-file:9092"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_shipped_ladders_have_no_mistakes() {
    assert!(shipped().len() >= 4);
    for file in shipped() {
        let ran = kladder(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let file = shipped().remove(0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kladder"));
    let mut child = command.arg("check").arg("-c").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn what_the_build_lacks_is_told_before_anything_is_started() {
    let with = |kafka: &str| {
        let text = VALID.replacen("sasl.password = \"hunter2\"", &format!("sasl.password = \"hunter2\"\n{kafka}"), 1);
        kladder_with(&["check", "-c", "-"], &text, &[])
    };
    for (kafka, words) in [
        ("security.protocol = \"sasl_ssl\"\nsasl.mechanism = \"GSSAPI\"", "without Kerberos"),
        ("security.protocol = \"sasl_plaintext\"\nsasl.mechanism = \"OAUTHBEARER\"", "no source of tokens"),
        ("security.protocol = \"ssl\"\nssl.ca.location = \"/nonexistent/ca.pem\"", "ssl.ca.location"),
        ("message.timeout.ms = 1000\nlinger.ms = 900000", "message.timeout.ms"),
    ] {
        let ran = with(kafka);
        assert_eq!(ran.code, 2, "{kafka}\n{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("hunter2"), "{kafka}\n{}", ran.stderr);
    }
    let ran = with("security.protocol = \"sasl_plaintext\"\nsasl.mechanism = \"SCRAM-SHA-512\"\nsasl.username = \"me\"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

//! The package in `examples/sidecar`: its configuration, the Kubernetes manifests, the systemd unit, and the steps of its Dockerfile.
//!
//! That application and sidecar may stop in any order is tested with a broker (`broker/quiesce.rs`).

#![cfg(feature = "cli")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

const KLADDER: &str = env!("CARGO_BIN_EXE_kladder");

/// Building it again, from another directory, replaces the program where the tests find it.
static PROGRAM: Mutex<()> = Mutex::new(());

fn house(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn python() -> Command {
    let program = std::env::var_os("KLADDER_TEST_PYTHON").unwrap_or_else(|| OsString::from(house(".venv/bin/python")));
    Command::new(program)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}; scripts/install test brings it"))
}

/// The stdout of a successful command.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[test]
fn the_configuration_has_no_mistake() {
    let _stays = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let config = house("examples/sidecar/kladder.toml");
    let shown = said(Command::new(KLADDER).arg("check").arg("-c").arg(config).env("INSTANCE", "billing-7c9d-x2x4"));
    assert!(shown.contains("1 ladder, no mistakes") && shown.contains("instance billing-7c9d-x2x4"), "{shown}");
}

#[test]
fn the_manifests_are_what_kubernetes_knows_and_leave_time_to_drain() {
    said(python().arg(house("tests/package/manifests.py")).arg(house("examples/sidecar")));
}

#[test]
fn the_unit_is_what_systemd_knows_and_has_few_rights() {
    let _stays = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("kladder.service");
    let text = std::fs::read_to_string(house("examples/sidecar/kladder.service")).expect("the unit");
    // Verification needs the program.
    let verified = text.replace("/usr/bin/kladder", KLADDER);
    assert_ne!(verified, text);
    std::fs::write(&unit, verified).expect("a file");
    let output = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("kladder.service:"), "{told}");
    // 2.0 of 10, where 10 means unrestricted.
    said(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=20", "--no-pager"]).arg(&unit));

    let config = std::fs::read_to_string(house("examples/sidecar/kladder.toml")).expect("the configuration");
    let seconds = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        let digits: String = value.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().expect(key)
    };
    assert!(seconds(&text, "TimeoutStopSec=") > seconds(&config, "drain = "), "it is killed before it has drained");
}

#[test]
fn the_steps_of_the_dockerfile_make_a_program_that_runs_without_root() {
    let _stays = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    // Faster than a release, and from what the tests have built already; the steps are the same.
    let shown = said(
        python()
            .arg(house("tests/package/dockerfile.py"))
            .args([house("examples/sidecar/Dockerfile"), house("."), scratch])
            .arg("dev")
            .env("CARGO_TARGET_DIR", house("target"))
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_INCREMENTAL", "0")
            // With it, the build scripts of half of the dependencies would run again, and the doc tests would lose what they
            // link.
            .env_remove("RUSTC_BOOTSTRAP"),
    );
    assert!(shown.starts_with(concat!("kladder ", env!("CARGO_PKG_VERSION"))), "{shown}");
    assert!(shown.contains("1 ladder, no mistakes"), "{shown}");
}

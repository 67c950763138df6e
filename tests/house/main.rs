//! The rules of the code base: layers import downwards only, each file has a description, rdkafka and unsafe code stay where they
//! belong, the core needs no I/O, and no file names the machine that it was written on.

mod circles;
mod lengths;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From bottom to top; layers in one line may not import one another.
const LAYERS: [&[&str]; 8] = [
    &["core"],
    &["config"],
    &["topology"],
    &["kafka", "http_client"],
    &["worker", "dlq", "observe"],
    &["admin"],
    &["cli"],
    &["main", "lib"],
];

/// For all layers above `config`, which itself knows only those below.
const TELEMETRY: &str = "telemetry";

/// What the core may use: crates without I/O.
const CORE_MAY_USE: [&str; 5] = ["thiserror", "humantime", "regex", "serde", "serde_json"];

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn height(layer: &str) -> usize {
    let layer = if layer == TELEMETRY { "topology" } else { layer };
    let found = LAYERS.iter().position(|names| names.contains(&layer));
    found.unwrap_or_else(|| panic!("src has a layer `{layer}` that no place was given to in tests/house"))
}

fn may_import(from: &str, to: &str) -> bool {
    match (from, to) {
        _ if from == to => true,
        (_, TELEMETRY) => height(from) > height("config"),
        (TELEMETRY, _) => height(to) <= height("config"),
        _ => height(to) < height(from),
    }
}

/// Files below a directory with the given suffix; files ignored by git are left out.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![house().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".kafka", ".venv"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(end) && name != ".git" {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(house()).unwrap_or(path).display().to_string()
}

/// The layer of a file below `src`.
fn layer_of(path: &Path) -> String {
    let inside = path.strip_prefix(house().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Lines that are code, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_start())).filter(|(_, line)| !line.starts_with("//"))
}

/// The layers that a line of code names after `crate::` (in the library) or `kladder::` (in the binary).
fn named_layers<'a>(line: &'a str, root: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices(root) {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line[at + root.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        names.push(&rest[..end]);
    }
    names
}

fn is_layer(name: &str) -> bool {
    name == TELEMETRY || LAYERS.iter().any(|names| names.contains(&name))
}

fn import_faults(path: &str, layer: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in code(text) {
        for root in ["crate::", "kladder::"] {
            for name in named_layers(line, root) {
                if name.is_empty() {
                    faults.push(format!("{path}:{number}: several imports in one brace; give each layer a line of its own"));
                } else if is_layer(name) && !may_import(layer, name) {
                    faults.push(format!("{path}:{number}: {layer} imports {name}, which is not below it"));
                }
            }
        }
        // The same by another way.
        for name in named_layers(line, "super::") {
            if is_layer(name) && line.contains(&format!("super::{name}::")) {
                faults.push(format!("{path}:{number}: write crate::{name}, not super::{name}"));
            }
        }
    }
    faults
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn layers_import_downwards_only() {
    let mut faults = Vec::new();
    for path in files("src", ".rs") {
        let layer = layer_of(&path);
        if layer != "lib" {
            faults.extend(import_faults(&shown(&path), &layer, &fs::read_to_string(&path).expect("text")));
        }
    }
    assert_none(&faults);
}

#[test]
fn an_import_upwards_is_found() {
    let faults = |layer, text| import_faults("x.rs", layer, text).len();
    assert_eq!(faults("core", "use crate::core::time::Timestamp;"), 0);
    assert_eq!(faults("core", "use crate::config::Config;"), 1);
    assert_eq!(faults("core", "let x = crate::kafka::now();"), 1);
    assert_eq!(faults("worker", "use crate::kafka::consumer;\nuse crate::telemetry::events;"), 0);
    assert_eq!(faults("worker", "use crate::dlq::index;"), 1);
    assert_eq!(faults("config", "use crate::telemetry::names;"), 1);
    assert_eq!(faults("telemetry", "use crate::kafka::consumer;"), 1);
    assert_eq!(faults("telemetry", "use crate::config::Config;"), 0);
    assert_eq!(faults("kafka", "use crate::{core::time, worker};"), 1);
    assert_eq!(faults("kafka", "use super::worker::mover;"), 1);
    assert_eq!(faults("kafka", "// as in crate::worker::mover"), 0);
    assert_eq!(faults("cli", "use crate::admin::server;"), 0);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for path in files(folder, ".rs") {
            if !fs::read_to_string(&path).expect("text").starts_with("//! ") {
                faults.push(format!("{} does not begin with a //! line", shown(&path)));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn rdkafka_and_unsafe_code_stay_where_they_belong() {
    let mut faults = Vec::new();
    for path in files("src", ".rs") {
        let name = shown(&path);
        let text = fs::read_to_string(&path).expect("text");
        for (number, line) in code(&text) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if !name.starts_with("src/kafka/") && ["rdkafka::", "rdkafka_sys"].iter().any(|n| line.contains(n)) {
                faults.push(format!("{name}:{number}: only src/kafka may name rdkafka"));
            }
            let may_be_unsafe =
                name.starts_with("src/kafka/ffi/") || ["src/kafka/ffi.rs", "src/allocator.rs"].contains(&name.as_str());
            if !may_be_unsafe && words.iter().any(|w| ["unsafe", "unsafe_code"].contains(w)) {
                faults.push(format!("{name}:{number}: unsafe code belongs into src/kafka/ffi"));
            }
        }
    }
    assert_none(&faults);
}

/// The names that a file imports from rdkafka.
fn names_from_rdkafka(text: &str) -> Vec<String> {
    let lines: Vec<&str> = code(text).map(|(_, line)| line).collect();
    let joined = lines.join(" ");
    let mut names = vec!["rdkafka".to_owned()];
    for (at, _) in joined.match_indices("use rdkafka") {
        let rest = &joined[at..];
        let path = &rest[..rest.find(';').unwrap_or(rest.len())];
        let leaves = path.rsplit_once('{').map_or_else(|| path.rsplit("::").next().unwrap_or(path), |(_, leaves)| leaves);
        for leaf in leaves.trim_end_matches('}').split(',') {
            // `a as b` is called b; of a path the last part counts.
            let name = leaf.split_whitespace().next_back().unwrap_or_default();
            names.extend(name.rsplit("::").next().filter(|n| !n.is_empty() && *n != "self").map(str::to_owned));
        }
    }
    names
}

/// The public part of an item: from its first line to the end of its signature, or, if its whole content is as public as
/// itself, to its closing brace.
fn public_parts(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = code(text).collect();
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|(_, line)| line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
        .collect();
    let mut parts = Vec::new();
    for (start, (number, first)) in lines.iter().enumerate() {
        let implements = first.starts_with("impl")
            && first
                .split_once(" for ")
                .is_some_and(|(_, of)| names.contains(&of.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()));
        if !first.starts_with("pub ") && !implements {
            continue;
        }
        let whole = ["pub enum ", "pub trait "].iter().any(|kind| first.starts_with(kind));
        let mut part = String::new();
        let mut depth = 0_i32;
        for (_, line) in &lines[start..] {
            if whole || !line.contains('{') {
                part.push_str(line);
            } else {
                part.push_str(&line[..line.find('{').unwrap_or(line.len())]);
                break;
            }
            part.push(' ');
            depth +=
                i32::try_from(line.matches('{').count()).unwrap_or(0) - i32::try_from(line.matches('}').count()).unwrap_or(0);
            let is_field = first.trim_end().ends_with(',') && !whole;
            if is_field || (depth <= 0 && (line.contains(';') || (whole && line.contains('}')))) {
                break;
            }
        }
        // Of a tuple struct only the public fields matter.
        if let Some((head, fields)) = part.split_once('(').filter(|_| part.starts_with("pub struct ")) {
            let public: Vec<&str> = fields.split(',').filter(|field| field.trim_start().starts_with("pub ")).collect();
            part = format!("{head}({}", public.join(","));
        }
        parts.push((*number, part));
    }
    parts
}

fn rdkafka_leaks(path: &str, text: &str) -> Vec<String> {
    let names = names_from_rdkafka(text);
    let mut faults = Vec::new();
    for (number, part) in public_parts(text) {
        let words: Vec<&str> = part.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if let Some(name) = names.iter().find(|name| words.contains(&name.as_str())) {
            faults.push(format!("{path}:{number}: {name} of rdkafka is part of what is public"));
        }
    }
    faults
}

/// The files of src/kafka that are reachable from outside: its public modules, those from which it re-exports names, and the parts of both.
fn public_kafka_files() -> Vec<PathBuf> {
    let root = fs::read_to_string(house().join("src/kafka/mod.rs")).expect("text");
    let mut names = vec!["mod".to_owned()];
    for (_, line) in code(&root) {
        let module = line.strip_prefix("pub mod ").map(|rest| rest.trim_end_matches(';'));
        let again = line.strip_prefix("pub use ").map(|rest| rest.split("::").next().unwrap_or(rest));
        names.extend(module.or(again).map(str::to_owned));
    }
    let in_folders = |name: &String| files(&format!("src/kafka/{name}"), ".rs");
    let mut found: Vec<PathBuf> = names.iter().flat_map(in_folders).collect();
    found.extend(names.into_iter().map(|name| house().join(format!("src/kafka/{name}.rs"))));
    found
}

#[test]
fn no_type_of_rdkafka_is_public() {
    let files = public_kafka_files();
    assert!(files.len() > 5, "{files:?}");
    let faults: Vec<String> =
        files.iter().flat_map(|path| rdkafka_leaks(&shown(path), &fs::read_to_string(path).expect("text"))).collect();
    assert_none(&faults);
}

#[test]
fn a_public_type_of_rdkafka_is_found() {
    let faults = |text: &str| {
        let imports = "use rdkafka::client::ClientContext;\nuse rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};\nuse rdkafka::bindings as sys;\n";
        rdkafka_leaks("x.rs", &format!("{imports}{text}")).len()
    };
    assert_eq!(faults("pub fn of(error: KafkaError) -> Self {\n}"), 1);
    assert_eq!(faults("pub fn of(\n    tag: usize,\n    error: &KafkaError,\n) -> Self {\n}"), 1);
    assert_eq!(faults("pub fn code(&self) -> Option<Code> {\n}"), 1);
    assert_eq!(faults("pub fn raw(&self) -> *mut sys::rd_kafka_t {\n}"), 1);
    assert_eq!(faults("pub fn of(error: rdkafka::error::KafkaError) {\n}"), 1);
    assert_eq!(faults("pub struct Error(pub KafkaError);"), 1);
    assert_eq!(faults("pub struct Error {\n    pub cause: KafkaError,\n}"), 1);
    assert_eq!(faults("pub enum Error {\n    /// Such.\n    Kafka(KafkaError),\n}"), 1);
    assert_eq!(faults("pub trait Judge {\n    fn judge(&self, error: &KafkaError);\n}"), 1);
    assert_eq!(faults("pub type Error = KafkaError;"), 1);
    assert_eq!(faults("pub use rdkafka::Offset;"), 1);
    assert_eq!(faults("pub struct Watch;\nimpl ClientContext for Watch {\n}"), 1);
    assert_eq!(faults("pub struct Error(String);\nimpl From<KafkaError> for Error {\n}"), 1);
    assert_eq!(faults("pub struct Error(KafkaError);"), 0);
    assert_eq!(faults("pub struct Group(pub(crate) KafkaError);"), 0);
    assert_eq!(faults("pub struct Error {\n    cause: KafkaError,\n}"), 0);
    assert_eq!(faults("pub(crate) fn of(error: KafkaError) -> Self {\n}"), 0);
    assert_eq!(faults("struct Watch;\nimpl ClientContext for Watch {\n}"), 0);
    assert_eq!(faults("pub fn of(text: &str) -> Self {\n    let _: KafkaError;\n}\nfn private(error: KafkaError) {\n}"), 0);
}

#[test]
fn the_core_asks_nobody_for_anything() {
    let mut faults = Vec::new();
    // Its tests may read their duration from the environment, and print results.
    let is_test = |path: &PathBuf| shown(path).ends_with("tests.rs") || shown(path).contains("/model/");
    for path in files("src/core", ".rs").into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).expect("text");
        for (number, line) in code(&text) {
            for outside in [
                "std::fs",
                "std::net",
                "std::io",
                "std::env",
                "std::process",
                "std::thread",
                "SystemTime::now",
                "Instant::now",
                "println!",
            ] {
                if line.contains(outside) {
                    faults.push(format!("{}:{number}: the core uses {outside}", shown(&path)));
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_core_builds_without_any_io_crate() {
    let alone = Path::new(env!("CARGO_TARGET_TMPDIR")).join("core-alone");
    fs::create_dir_all(alone.join("src")).expect("a folder");
    let manifest = fs::read_to_string(house().join("Cargo.toml")).expect("text");
    let dependencies: Vec<&str> = manifest
        .lines()
        .filter(|line| CORE_MAY_USE.iter().any(|name| line.split('=').next().is_some_and(|n| n.trim() == *name)))
        .collect();
    let edition = manifest.lines().find(|line| line.starts_with("edition")).expect("an edition");
    let write = |path: PathBuf, text: String| fs::write(path, text).expect("a file");
    write(
        alone.join("Cargo.toml"),
        format!(
            "[package]\nname = \"core-alone\"\nversion = \"0.0.0\"\n{edition}\n\n[workspace]\n\n[dependencies]\n{}\n",
            dependencies.join("\n")
        ),
    );
    let core = house().join("src/core/mod.rs");
    write(
        alone.join("src/lib.rs"),
        format!("//! The core of kladder, alone.\n\n#[path = {:?}]\npub mod core;\n", core.to_str().expect("a path")),
    );
    // The same versions, and none that must be downloaded.
    fs::copy(house().join("Cargo.lock"), alone.join("Cargo.lock")).expect("a lock file");
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--manifest-path"])
        .arg(alone.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(alone.join("target"))
        .env_remove("RUSTC_BOOTSTRAP")
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "the core does not build alone:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    // In pieces, so that this file does not name them either.
    let banned = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["sparse+", "http"],
        ["index", "-url"],
        ["repo1.", "maven.org"],
        ["arti", "factory"],
    ]
    .map(|pieces| pieces.concat());
    let mut faults = Vec::new();
    for path in files("", "") {
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a readable file")).into_owned();
        for (index, line) in text.lines().enumerate() {
            for word in &banned {
                if line.contains(word) {
                    faults.push(format!("{}:{}: names {word}", shown(&path), index + 1));
                }
            }
        }
    }
    assert_none(&faults);
}

/// What a program gets that uses the library, without any feature: these, and what they bring.
const LIBRARY_TAKES: [&str; 14] = [
    "bytes",
    "gethostname",
    "humantime",
    "libc",
    "metrics",
    "rdkafka",
    "regex",
    "serde",
    "serde_json",
    "strsim",
    "thiserror",
    "tokio",
    "tracing",
    "kladder",
];

/// The packages of the library's build, as cargo counts them; `more` are arguments of `cargo tree`.
fn packages_of_the_library(more: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--no-default-features",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--locked",
            "--offline",
            "--format",
            "{p}",
        ])
        .args(more)
        .arg("--manifest-path")
        .arg(house().join("Cargo.toml"))
        .env_remove("RUSTC_BOOTSTRAP")
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).expect("text");
    shown.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_library_brings_nothing_of_the_program() {
    let direct = packages_of_the_library(&["--depth", "1"]);
    assert_eq!(direct, LIBRARY_TAKES.map(str::to_owned).into());
    let all = packages_of_the_library(&[]);
    for of_the_program in [
        "apache-avro",
        "axum",
        "clap",
        "comfy-table",
        "hyper",
        "jaq-core",
        "openssl-sys",
        "protox",
        "ratatui",
        "rusqlite",
        "toml",
    ] {
        assert!(!all.contains(of_the_program), "{of_the_program} is one of {all:?}");
    }
    // Nobody notices one more that a dependency brings.
    assert!(all.len() <= 60, "{} packages: {all:?}", all.len());
}

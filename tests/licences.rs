//! Dependencies have licences and sources that `deny.toml` allows, and none is banned by it.
//!
//! As a test, since everything needed is in the lock file and in cargo's downloads for the build.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The quoted texts of a list of `deny.toml`; comments between them are not quoted.
fn list(text: &str, section: &str, key: &str) -> Vec<String> {
    let (_, rest) = text.split_once(&format!("\n[{section}]\n")).expect("the section");
    let (_, rest) = rest.split_once(&format!("\n{key} = [")).expect("the key");
    let (items, _) = rest.split_once(']').expect("the end of the list");
    let lines = items.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Whether an SPDX expression is satisfied by the allowed licences. `/` is the old form of `OR`.
struct Expression<'a> {
    words: Vec<String>,
    at: usize,
    allowed: &'a [String],
}

impl<'a> Expression<'a> {
    fn holds(text: &str, allowed: &'a [String]) -> bool {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        let mut expression = Self { words, at: 0, allowed };
        expression.any() && expression.at == expression.words.len()
    }

    fn next_is(&mut self, word: &str) -> bool {
        let is = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(is);
        is
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.next_is("OR") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.next_is("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.next_is("(") {
            return self.any() & self.next_is(")");
        }
        let mut name = self.words.get(self.at).cloned().unwrap_or_default();
        self.at += 1;
        if self.next_is("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at).map_or("", String::as_str));
            self.at += 1;
        }
        self.allowed.contains(&name)
    }
}

/// The packages that are built for this platform, with all features.
fn packages() -> Vec<Value> {
    let cargo = Path::new(env!("CARGO"));
    let version = Command::new(cargo.with_file_name("rustc")).arg("-vV").output().expect("rustc can be run");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("the platform");
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", host]);
    let output = command.current_dir(house()).env_remove("RUSTC_BOOTSTRAP").output().expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].take().as_array().expect("packages").clone()
}

fn policy() -> String {
    fs::read_to_string(house().join("deny.toml")).expect("deny.toml")
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let allowed = list(&policy(), "licenses", "allow");
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !Expression::holds(package["license"].as_str().unwrap_or_default(), &allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn an_expression_is_met_by_what_is_allowed() {
    let allowed = ["MIT", "Zlib", "Unicode-3.0"].map(str::to_owned);
    for met in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "MIT AND Zlib", "(GPL-3.0 OR MIT) AND Unicode-3.0", "X WITH Y OR MIT"] {
        assert!(Expression::holds(met, &allowed), "{met}");
    }
    for unmet in ["", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 OR (MIT AND X)", "MIT WITH Y", "MIT MIT", "(MIT"] {
        assert!(!Expression::holds(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn every_dependency_comes_from_a_registry_that_is_allowed_and_is_not_banned() {
    let (sources, banned) = (list(&policy(), "sources", "allow-registry"), list(&policy(), "bans", "deny"));
    assert!(!sources.is_empty() && !banned.is_empty(), "{sources:?} {banned:?}");
    let lock = fs::read_to_string(house().join("Cargo.lock")).expect("Cargo.lock");
    let mut faults = Vec::new();
    for package in lock.split("\n[[package]]\n").skip(1) {
        let value = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim_matches('"'));
        let name = value("name = ").expect("a name");
        let source = value("source = ").map(|source| source.trim_start_matches("registry+"));
        if name != "kladder" && !source.is_some_and(|source| sources.iter().any(|allowed| allowed == source)) {
            faults.push(format!("{name} comes from {}", source.unwrap_or("a folder")));
        }
        if banned.iter().any(|ban| ban == name) {
            faults.push(format!("{name} is banned"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_dependency_may_have_any_version() {
    let packages = packages();
    let kladder = packages.iter().find(|package| package["name"] == "kladder").expect("the package");
    let dependencies = kladder["dependencies"].as_array().expect("dependencies");
    let any: Vec<&Value> = dependencies.iter().filter(|one| one["req"] == "*" && one["path"].is_null()).collect();
    assert!(any.is_empty(), "{any:#?}");
}

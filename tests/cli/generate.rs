//! The output of `kladder generate` is accepted by the programs that it is for.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{kladder, kladder_in, shipped};

/// The Python with Grafana's types.
fn python() -> PathBuf {
    std::env::var_os("KLADDER_TEST_PYTHON").map_or_else(|| in_house(".venv/bin/python"), PathBuf::from)
}

fn in_house(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run ({error}); scripts/install test makes it"))
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// The output of the check with Grafana's types, and whether it passes.
fn conforms(files: &[PathBuf]) -> (bool, String) {
    let output = output(Command::new(python()).arg(in_house("tests/grafana/conforms.py")).args(files));
    (output.status.success(), said(&output))
}

fn written(directory: &Path) -> Vec<PathBuf> {
    let ran = kladder_in(directory, &["generate", "grafana", "-d", "dashboards"], "", &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    ["kladder-fleet", "kladder-ladder", "kladder-dlq"].map(|uid| directory.join(format!("dashboards/{uid}.json"))).to_vec()
}

#[test]
fn dashboards_conform_to_the_types_that_grafana_publishes() {
    let directory = tempfile::tempdir().unwrap();
    let (content, said) = conforms(&written(directory.path()));
    assert!(content && said.contains("3 dashboards conform"), "{said}");
}

#[test]
fn a_dashboard_with_a_key_or_a_type_that_grafana_does_not_have_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = &written(directory.path())[0];
    let good = std::fs::read_to_string(fleet).unwrap();
    for (from, to, fault) in [
        ("\"lineWidth\"", "\"lineWidht\"", "lineWidht is unknown"),
        ("\"schemaVersion\": 39", "\"schemaVersion\": \"39\"", "schema_version is '39'"),
        ("\"displayMode\": \"list\"", "\"displayMode\": \"lines\"", "display_mode is 'lines'"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(fleet, good.replace(from, to)).unwrap();
        let (content, said) = conforms(std::slice::from_ref(fleet));
        assert!(!content && said.contains(fault), "{fault}: {said}");
    }
}

#[test]
fn dashboards_are_printed_as_one_or_as_a_list_and_need_no_configuration() {
    let all: Value = serde_json::from_str(&kladder(&["generate", "grafana"]).stdout).unwrap();
    let uids: Vec<&str> = all.as_array().unwrap().iter().map(|dashboard| dashboard["uid"].as_str().unwrap()).collect();
    assert_eq!(uids, ["kladder-fleet", "kladder-ladder", "kladder-dlq"]);
    let one: Value = serde_json::from_str(&kladder(&["generate", "grafana", "--dashboard", "dlq"]).stdout).unwrap();
    assert_eq!(one["uid"], "kladder-dlq");
}

#[test]
fn the_ladder_s_dashboard_begins_with_the_ladder_of_the_configuration() {
    let shipped = shipped();
    let args = ["generate", "grafana", "--dashboard", "ladder", "-c", shipped[0].to_str().unwrap()];
    let ran = kladder(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let dashboard: Value = serde_json::from_str(&ran.stdout).unwrap();
    let shown = dashboard["templating"]["list"][1]["current"]["value"].as_str().unwrap();
    assert!(std::fs::read_to_string(&shipped[0]).unwrap().contains(&format!("[ladder.{shown}]")), "{shown}");
}

/// The rules of a configuration, written to a file in a directory.
fn rules(config: &str, directory: &Path) -> (PathBuf, String) {
    let ran = kladder(&["generate", "alerts", "-c", config]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let path = directory.join("rules.yml");
    std::fs::write(&path, &ran.stdout).unwrap();
    (path, ran.stdout)
}

fn promtool(args: &[&str]) -> (bool, String) {
    let output = output(Command::new("promtool").args(args));
    (output.status.success(), said(&output))
}

#[test]
fn prometheus_takes_the_alert_rules_of_every_shipped_ladder() {
    for config in shipped() {
        let directory = tempfile::tempdir().unwrap();
        let (file, text) = rules(config.to_str().unwrap(), directory.path());
        let (content, said) = promtool(&["check", "rules", "--lint-fatal", file.to_str().unwrap()]);
        assert!(content, "{}: {said}\n{text}", config.display());
        let count = |line: &str| text.matches(line).count();
        let alerts = count("- alert: ");
        assert!(alerts >= 13, "{text}");
        for line in ["severity: ", "summary: ", "description: "] {
            assert_eq!(count(line), alerts, "{line}");
        }
        // Only the operator knows a page that exists.
        assert_eq!(count("runbook_url"), 0, "{text}");
        assert!(!text.contains("crates.io"), "{text}");
    }
}

#[test]
fn each_alert_fires_where_it_should_and_stays_silent_beside_that() {
    let directory = tempfile::tempdir().unwrap();
    let (_, text) = rules(in_house("tests/alerts/kladder.toml").to_str().unwrap(), directory.path());
    let cases = std::fs::read_to_string(in_house("tests/alerts/cases.yml")).unwrap();
    let file = directory.path().join("cases.yml");
    std::fs::write(&file, &cases).unwrap();
    let (content, said) = promtool(&["test", "rules", file.to_str().unwrap()]);
    assert!(content, "{said}");
    // No alert is missing, in either form.
    for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let expected: Vec<&str> = cases.split("alertname: ").skip(1).filter(|case| case.lines().next() == Some(alert)).collect();
        let silent =
            expected.iter().filter(|case| case.lines().nth(1).is_some_and(|line| line.ends_with("exp_alerts: []"))).count();
        assert!(silent > 0 && silent < expected.len(), "{alert}: {silent} of {} cases are silent", expected.len());
    }
}

#[test]
fn a_case_that_expects_too_much_fails() {
    let directory = tempfile::tempdir().unwrap();
    rules(in_house("tests/alerts/kladder.toml").to_str().unwrap(), directory.path());
    let cases = std::fs::read_to_string(in_house("tests/alerts/cases.yml")).unwrap();
    let file = directory.path().join("cases.yml");
    std::fs::write(&file, cases.replace("29.8s", "9s")).unwrap();
    let (content, said) = promtool(&["test", "rules", file.to_str().unwrap()]);
    assert!(!content && said.contains("KladderLateness"), "{said}");
}

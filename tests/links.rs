//! Links between the pages of the repository lead to files and headings that exist, and no page is left out of the README.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(house().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below a directory with one of these suffixes, by their paths from the repository root.
fn files(folder: &str, ends: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![house().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a readable folder").path();
            let shown = path.strip_prefix(house()).expect("a path below the top").display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| shown.ends_with(end)) {
                found.push(shown);
            }
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for folder in ["docs", "examples", "src"] {
        pages.extend(files(folder, &[".md"]));
    }
    pages
}

/// The lines of a page outside of its code blocks, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    page.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// The anchor that GitHub derives from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}

/// The anchors of a page; a heading that occurs again has a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(page) {
        let Some((_, heading)) = line.split_once("# ").filter(|(marks, _)| marks.chars().all(|c| c == '#')) else {
            continue;
        };
        let plain = anchor(heading);
        let free = (0..=found.len())
            .map(|n| if n == 0 { plain.clone() } else { format!("{plain}-{n}") })
            .find(|name| !found.contains(name));
        found.extend(free);
    }
    found
}

/// The targets of the links of a line, except in `code`.
fn targets(line: &str) -> Vec<String> {
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let ends = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')'));
    ends.map(|(target, _)| target.to_owned()).collect()
}

fn faults(path: &str, text: &str) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    for (number, line) in prose(text) {
        for target in targets(line).into_iter().filter(|target| !target.starts_with("https://")) {
            let (file, heading) = target.split_once('#').map_or((target.as_str(), None), |(file, heading)| (file, Some(heading)));
            let there: PathBuf = if file.is_empty() { house().join(path) } else { house().join(folder).join(file) };
            if !there.exists() {
                faults.push(format!("{path}:{number}: {target}: no such file"));
            } else if let Some(heading) = heading {
                let page = fs::read_to_string(&there).unwrap_or_default();
                if !anchors(&page).contains(heading) {
                    faults.push(format!("{path}:{number}: {target}: no such heading"));
                }
            }
        }
    }
    faults
}

#[test]
fn every_link_leads_somewhere() {
    let faults: Vec<String> = pages().iter().flat_map(|path| faults(path, &read(path))).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let count = |text: &str| faults("docs/x.md", text).len();
    assert_eq!(count("[a](runbook.md), [b](../README.md#how-it-works), [c](https://example.com/x.md), `[d](gone.md)`"), 0);
    assert_eq!(count("[a](gone.md) and [b](runbook.md)"), 1);
    assert_eq!(count("[a](README.md)"), 1);
    assert_eq!(count("[a](runbook.md#gone)"), 1);
    assert_eq!(count("![a](../examples/gone.svg)"), 1);
    assert_eq!(count("```text\n[a](gone.md)\n```\n"), 0);
    let twice = "# A b, `c_d`: e-f?\n## A\n### A\n```sh\n# no heading\n```\n";
    assert_eq!(anchors(twice), ["a-b-c_d-e-f", "a", "a-1"].map(str::to_owned).into());
}

#[test]
fn every_page_can_be_found_from_the_readme() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150, "the README is longer than what one reads at once");
    let linked: BTreeSet<String> = prose(&readme).flat_map(|(_, line)| targets(line)).collect();
    let missing: Vec<String> = files("docs", &[".md"]).into_iter().filter(|page| !linked.contains(page)).collect();
    assert!(missing.is_empty(), "no link in the README: {missing:?}");
}

#[test]
fn pages_that_code_and_manifests_name_exist() {
    let mut missing = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "scripts", "topology"] {
        for path in files(folder, &[""]) {
            let text = String::from_utf8_lossy(&fs::read(house().join(&path)).expect("a readable file")).into_owned();
            for (at, _) in text.match_indices("docs/") {
                let end = |c: char| !c.is_ascii_alphanumeric() && !['-', '_', '.', '/'].contains(&c);
                let named = text[at..].split(end).next().unwrap_or_default();
                let is_page = Path::new(named).extension().is_some_and(|end| end == "md");
                if is_page && path != "tests/links.rs" && !house().join(named).exists() {
                    missing.push(format!("{path} names {named}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn paths_that_contributing_names_exist() {
    let text = read("CONTRIBUTING.md");
    let places = ["src/", "tests/", "scripts/", "docs/", "examples/", "benches/"];
    let named = text.split('`').skip(1).step_by(2).filter(|code| places.iter().any(|place| code.starts_with(place)));
    let paths: Vec<&str> =
        named.filter(|code| !code.contains("NAME")).filter_map(|code| code.split_whitespace().next()).collect();
    assert!(paths.len() > 10, "{paths:?}");
    let missing: Vec<&&str> = paths.iter().filter(|path| !house().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_runbook_has_the_anchors_of_the_alerts() {
    let cases = read("tests/alerts/cases.yml");
    let asked: BTreeSet<&str> =
        cases.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")?.split('#').nth(1)).collect();
    let there = anchors(&read("docs/runbook.md"));
    assert!(asked.len() > 10, "{asked:?}");
    for anchor in asked.iter().map(|anchor| anchor.trim_end_matches('\'')) {
        assert!(there.contains(anchor), "docs/runbook.md has no heading for #{anchor}");
    }
}

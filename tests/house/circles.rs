//! No circles between modules: below each folder, its modules, each with all that is below it, have an order in which each knows
//! only those before it.
//!
//! A module and those below it may know each other: it declares and re-exports them, and they work on its types.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{assert_none, files, house};

/// A module by its path: `cli`, `dlq`, `redrive`.
type Module = Vec<String>;

/// What declares a name.
const ITEMS: [&str; 8] = ["struct", "enum", "fn", "const", "type", "trait", "static", "union"];

/// The modules of a crate, with their code.
#[derive(Default)]
struct Modules {
    /// The code of each, as one line, without comments and tests.
    code: BTreeMap<Module, String>,
    /// What each re-exports: the name, or `*`, and its path as written.
    exports: BTreeMap<Module, Vec<(String, Vec<String>)>>,
}

impl Modules {
    /// From the files of `src`, by their paths within it.
    fn of(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let files: Vec<(Module, String)> = files.into_iter().map(|(path, text)| (module_of(&path), text)).collect();
        let mut tests = BTreeSet::new();
        let mut code = BTreeMap::new();
        for (module, text) in files {
            let (own, test_modules) = without_tests(&text);
            tests.extend(test_modules.into_iter().map(|name| below(&module, &name)));
            code.insert(module, own);
        }
        code.retain(|module, _| !(1..=module.len()).any(|length| tests.contains(&module[..length])));
        let mut modules = Self { code, exports: BTreeMap::new() };
        for (module, code) in &modules.code {
            modules.exports.insert(module.clone(), exports(code));
        }
        modules
    }

    fn declares(&self, module: &Module, name: &str) -> bool {
        self.code.get(module).is_some_and(|code| ITEMS.iter().any(|item| holds_words(code, item, name)))
    }

    /// The module that a path leads to; what is re-exported belongs to the module that declares it.
    fn resolve(&self, from: &Module, path: &[String]) -> Module {
        self.resolve_within(from, path, 0)
    }

    fn resolve_within(&self, from: &Module, path: &[String], depth: usize) -> Module {
        let mut at = from.clone();
        for (i, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                name if self.code.contains_key(&below(&at, name)) => at.push(name.to_owned()),
                name => {
                    let exports = self.exports.get(&at).map(Vec::as_slice).unwrap_or_default();
                    if depth > 8 || self.declares(&at, name) {
                        return at;
                    }
                    if let Some((_, target)) = exports.iter().find(|(exported, _)| exported == name) {
                        return self.resolve_within(&at, &[target, &path[i + 1..]].concat(), depth + 1);
                    }
                    let globs = exports.iter().filter(|(exported, _)| exported == "*");
                    let mut targets = globs.map(|(_, target)| self.resolve_within(&at, target, depth + 1));
                    return targets.find(|target| self.declares(target, name)).unwrap_or(at);
                }
            }
        }
        at
    }

    /// Which child of a folder knows which other, with the modules that show it.
    fn edges(&self) -> BTreeMap<Module, BTreeMap<(String, String), String>> {
        let mut edges: BTreeMap<Module, BTreeMap<(String, String), String>> = BTreeMap::new();
        for (module, code) in &self.code {
            for path in paths(code) {
                let to = self.resolve(module, &path);
                let shared = module.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(into)) = (module.get(shared), to.get(shared)) {
                    let shown = format!("{} uses {} of {}", module.join("/"), path.join("::"), to.join("/"));
                    edges.entry(module[..shared].to_vec()).or_default().entry((from.clone(), into.clone())).or_insert(shown);
                }
            }
        }
        edges
    }

    /// All circles: the folder, the modules in it that know each other, and what shows it.
    fn circles(&self) -> Vec<(String, BTreeSet<String>, Vec<String>)> {
        let mut circles = Vec::new();
        for (folder, edges) in self.edges() {
            let mut reaches: BTreeSet<(String, String)> = edges.keys().cloned().collect();
            loop {
                let further: Vec<(String, String)> = reaches
                    .iter()
                    .flat_map(|(a, b)| edges.keys().filter(move |(c, _)| b == c).map(|(_, d)| (a.clone(), d.clone())))
                    .filter(|pair| !reaches.contains(pair))
                    .collect();
                if further.is_empty() {
                    break;
                }
                reaches.extend(further);
            }
            let mut left: BTreeSet<&String> = reaches.iter().filter(|(a, b)| a == b).map(|(a, _)| a).collect();
            while let Some(first) = left.pop_first() {
                let together = |other: &String| {
                    reaches.contains(&(first.clone(), other.clone())) && reaches.contains(&(other.clone(), first.clone()))
                };
                let circle: BTreeSet<String> = reaches.iter().map(|(a, _)| a).filter(|a| together(a)).cloned().collect();
                left.retain(|name| !circle.contains(*name));
                let shown = edges.iter().filter(|((a, b), _)| circle.contains(a) && circle.contains(b));
                let shown = shown.map(|(_, shown)| shown.clone()).collect();
                circles.push((folder.join("/"), circle, shown));
            }
        }
        circles
    }
}

fn below(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if ["lib", "main", "mod"].contains(&path) { Module::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The code without comments and tests, and the names of modules that are only built for tests.
fn without_tests(text: &str) -> (String, Vec<String>) {
    let (lines, tests) = own_lines(text);
    let code = lines.into_iter().map(str::trim_start).filter(|line| !line.starts_with("//"));
    (code.fold(String::new(), |code, line| code + line + "\n"), tests)
}

/// The lines without tests, and the names of modules that are only built for tests.
pub fn own_lines(text: &str) -> (Vec<&str>, Vec<String>) {
    let (mut own, mut tests) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        if !start.starts_with("#[cfg(test)") && !start.starts_with("#[cfg(all(test") {
            own.push(line);
            continue;
        }
        // The item that follows its attributes, up to its end by its indentation.
        let indent = &line[..line.len() - start.len()];
        let mut item = lines.next().unwrap_or_default();
        while item.trim_start().starts_with("#[") {
            item = lines.next().unwrap_or_default();
        }
        let words: Vec<&str> = item.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if let Some(at) = words.iter().position(|word| *word == "mod").filter(|_| item.ends_with(';')) {
            tests.push(words[at + 1].to_owned());
        }
        let (end, is_one_line) = (format!("{indent}}}"), item.ends_with([';', ',']));
        while !is_one_line && !item.starts_with(&end) {
            let Some(next) = lines.next() else { break };
            item = next;
        }
    }
    (own, tests)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether these two words follow each other.
fn holds_words(code: &str, first: &str, second: &str) -> bool {
    code.match_indices(first).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let rest = code[at + first.len()..].strip_prefix(' ');
        let rest = rest.and_then(|rest| rest.strip_prefix(second));
        !before.is_some_and(is_word) && rest.is_some_and(|rest| !rest.starts_with(is_word))
    })
}

/// All paths that begin with `crate`, `self` or `super`, those in braces one by one.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for first in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(first) {
            let before = &code[..at];
            if !before.ends_with("::") && !before.chars().next_back().is_some_and(|c| is_word(c) || c == '$') {
                found.extend(path_at(&code[at..]).0.into_iter().map(|(path, _)| path));
            }
        }
    }
    found
}

/// What is re-exported: its name here, and its path.
fn exports(code: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for line in code.split(';') {
        let Some(at) = line.find("use ") else { continue };
        let before = line[..at].trim_end();
        let is_public = before.ends_with("pub") || (before.ends_with(')') && before.contains("pub("));
        if is_public {
            found.extend(path_at(&line[at + 4..]).0.into_iter().map(|(path, name)| (name, path)));
        }
    }
    found
}

/// The paths at the beginning of a text, each with the name that it has here, and the rest of the text.
fn path_at(text: &str) -> (Vec<(Vec<String>, String)>, &str) {
    let mut path: Vec<String> = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inside) = rest.strip_prefix('{') {
            let mut all = Vec::new();
            loop {
                inside = inside.trim_start().trim_start_matches(',').trim_start();
                if inside.is_empty() || inside.starts_with('}') {
                    return (all, inside.strip_prefix('}').unwrap_or(inside));
                }
                let (some, after) = path_at(inside);
                if after.len() == inside.len() {
                    return (all, after);
                }
                all.extend(some.into_iter().map(|(inner, name)| ([path.clone(), inner].concat(), name)));
                inside = after;
            }
        }
        if let Some(after) = rest.strip_prefix('*') {
            return (vec![(path, "*".to_owned())], after);
        }
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => break,
        }
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(after) = rest.strip_prefix(" as ") {
        let end = after.find(|c: char| !is_word(c)).unwrap_or(after.len());
        after[..end].clone_into(&mut name);
        rest = &after[end..];
    }
    (vec![(path, name)], rest)
}

#[test]
fn modules_form_no_circles() {
    let source = house().join("src");
    let read = files("src", ".rs").into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("text");
        (path.strip_prefix(&source).expect("a file of src").display().to_string(), text)
    });
    let circles = Modules::of(read).circles().into_iter();
    let faults: Vec<String> = circles
        .map(|(folder, circle, shown)| {
            let names: Vec<String> = circle.into_iter().collect();
            format!("{folder}: {} know each other:\n  {}", names.join(", "), shown.join("\n  "))
        })
        .collect();
    assert_none(&faults);
}

#[test]
fn a_circle_is_found_and_a_parent_may_know_its_children() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        let found = Modules::of(files).circles();
        found.into_iter().map(|(folder, names, _)| (folder, names.into_iter().collect::<Vec<_>>().join(" "))).collect::<Vec<_>>()
    };
    let one = |folder: &str, names: &str| vec![(folder.to_owned(), names.to_owned())];
    let parent = ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::C;\npub struct A;\n");
    let b = ("a/b.rs", "use crate::a::A;\npub struct B;\n");
    assert_eq!(circles(&[parent, b, ("a/c.rs", "use super::b::B;\npub struct C;\n")]), []);
    // By the siblings' own paths, by what their parent re-exports, and within an expression.
    for c_of_b in ["use crate::a::c::C;\n", "use super::{\n    A,\n    C,\n};\n", "fn b() {\n    crate::a::c::C::new();\n}\n"] {
        let b = ("a/b.rs", &*format!("{c_of_b}pub struct B;\n"));
        assert_eq!(circles(&[parent, b, ("a/c.rs", "use crate::a::B;\npub struct C;\n")]), one("a", "b c"), "{c_of_b}");
        assert_eq!(
            circles(&[
                parent,
                b,
                ("a/c.rs", "pub struct C;\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::a::B;\n}\n")
            ]),
            []
        );
    }
    // What is below a module belongs to it, whatever its name is elsewhere.
    let deep = [
        ("a/mod.rs", "mod b;\nmod c;\npub use b::*;\n"),
        ("a/b/mod.rs", "mod d;\npub use d::D as E;\n"),
        ("a/b/d.rs", "use crate::a::c;\npub struct D;\n"),
    ];
    assert_eq!(circles(&[deep[0], deep[1], deep[2], ("a/c.rs", "use super::b::E;\n")]), one("a", "b c"));
    // Layers, and a longer way round.
    let three = [("a.rs", "use crate::b;\n"), ("b.rs", "use crate::c::x;\n"), ("c.rs", "use crate::a;\nfn x() {}\n")];
    assert_eq!(circles(&three), one("", "a b c"));
    assert_eq!(circles(&[("a.rs", "use crate::b;\n"), ("b.rs", "// use crate::a;\n")]), []);
}

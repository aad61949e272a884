//! The imports between the files of each crate, and whether they form a circle. An import is a `use` of a path that begins
//! with `crate`, `super` or `self`, outside of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{files, root};

/// The source folders of the crates.
fn crates() -> Vec<String> {
    let mut names: Vec<String> =
        ["api", "worker", "devstack", "bench", "fuzz"].map(|name| format!("{name}/src")).into();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        names.push(format!("crates/{}/src", entry.unwrap().file_name().to_str().unwrap()));
    }
    names.sort();
    names
}

/// The module of a file, as the names behind `crate`.
fn module_of(source: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source).unwrap().with_extension("");
    let mut names: Vec<String> = relative.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        names.pop();
    }
    names
}

/// The text without comments, and without what stands behind `#[cfg(test)]` at the beginning of a line.
fn production_code(text: &str) -> String {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut kept = String::new();
    let mut lines = code.into_iter();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") {
            // A declaration of one line, or an item up to its closing brace.
            let first = lines.find(|line| !line.starts_with("#[")).unwrap_or_default();
            if !first.ends_with(';') {
                lines.find(|line| line.starts_with('}'));
            }
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// Splits `a, b::{c, d}, e` at the commas that are in no braces.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Every path of a use tree, as its names.
fn paths(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some(list) = tree.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        for part in split(list) {
            paths(prefix, part, found);
        }
        return;
    }
    if let Some((first, rest)) = tree.split_once("::") {
        paths(&[prefix, &[first.trim().to_owned()]].concat(), rest, found);
    } else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        found.push(if name == "self" { prefix.to_vec() } else { [prefix, &[name.to_owned()]].concat() });
    }
}

/// The imports of one file as absolute module paths, which may end in the name of an item.
fn imports(module: &[String], text: &str) -> Vec<Vec<String>> {
    let code = production_code(text);
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.find("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty()
                || before.ends_with(['}', ')', ']', '\n'])
                || before.ends_with("pub")
                || statement[..*at].ends_with('\n')
        }) else {
            continue;
        };
        let mut all = Vec::new();
        paths(&[], &statement[at + 4..].replace('\n', " "), &mut all);
        for path in all {
            let absolute = match path.first().map(String::as_str) {
                Some("crate") => path[1..].to_vec(),
                Some("self") => [module, &path[1..]].concat(),
                Some("super") => {
                    let up = path.iter().take_while(|name| *name == "super").count();
                    [&module[..module.len().saturating_sub(up)], &path[up..]].concat()
                }
                // `use child::Item` of a module that is declared here.
                _ => [module, &path[..]].concat(),
            };
            found.push(absolute);
        }
    }
    found
}

type Graph = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

fn graph(source: &Path) -> Graph {
    let mut sources = Vec::new();
    files(source, "rs", &mut sources);
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|file| module_of(source, file)).collect();
    let mut graph = Graph::new();
    for file in &sources {
        // The binary of a crate that has a library uses it by name.
        if file.ends_with("main.rs") && source.join("lib.rs").exists() {
            continue;
        }
        let module = module_of(source, file);
        let edges = graph.entry(module.clone()).or_default();
        for import in imports(&module, &fs::read_to_string(file).unwrap()) {
            let target = (0..=import.len()).rev().map(|length| &import[..length]).find(|path| modules.contains(*path));
            // A path that is another crate's name leads to no module but the importing one's own.
            if let Some(target) = target.filter(|target| **target != module[..]) {
                edges.insert(target.to_vec());
            }
        }
    }
    graph
}

/// Removes what imports nothing that is left, again and again. What stays is a circle or leads into one.
fn circle(mut graph: Graph) -> Graph {
    loop {
        let left: BTreeSet<Vec<String>> = graph.keys().cloned().collect();
        let before = graph.len();
        for edges in graph.values_mut() {
            edges.retain(|target| left.contains(target));
        }
        graph.retain(|_, edges| !edges.is_empty());
        if graph.len() == before {
            return graph;
        }
    }
}

#[test]
fn nothing_is_imported_in_a_circle() {
    let mut modules = 0;
    let mut circles = String::new();
    for name in crates() {
        let graph = graph(&root().join(&name));
        modules += graph.len();
        for (module, targets) in circle(graph) {
            let targets: Vec<String> = targets.iter().map(|target| target.join("::")).collect();
            circles.push_str(&format!("{name}: {} -> {}\n", module.join("::"), targets.join(", ")));
        }
    }
    assert!(modules > 150, "{modules}");
    assert!(circles.is_empty(), "imports that are part of a circle, or lead into one:\n{circles}");
}

#[test]
fn a_circle_is_found() {
    let edge = |from: &str, to: &[&str]| {
        (vec![from.to_owned()], to.iter().map(|name| vec![(*name).to_owned()]).collect::<BTreeSet<_>>())
    };
    let graph = Graph::from([edge("a", &["b"]), edge("b", &["c"]), edge("c", &["b", "d"]), edge("d", &[])]);
    assert_eq!(circle(graph).len(), 3);
    let found = imports(
        &["x".to_owned(), "y".to_owned()],
        "use super::z::{A, b::C};\nuse std::fmt;\npub use self::w::D;\n#[cfg(test)]\nmod tests {\n    use crate::q;\n}\nuse crate::v;\n",
    );
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x::z::A", "x::z::b::C", "x::y::std::fmt", "x::y::w::D", "v"]);
}

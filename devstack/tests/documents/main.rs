//! What the documents promise about the code, and the tree's own rules, checked against the files. The commands that the
//! documents show are run by `document_commands`, one of the system tests.

mod module_graph;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use polyglot_core::failure::{Disposition, FailureKind};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_formats::Format;
use polyglot_ledger::Connections;
use polyglot_runtime::config::Environment;

/// Folders with Rust code, as far as they exist.
const CODE: [&str; 6] = ["crates", "api", "worker", "devstack", "bench", "fuzz"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files below `folder` whose name ends in `.{extension}`.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in CODE.map(|folder| root().join(folder)).iter().filter(|folder| folder.exists()) {
        files(folder, "rs", &mut found);
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

/// Every document, by its path from the root.
fn documents() -> Vec<String> {
    let mut found: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "bench/README.md"]
            .map(|name| root().join(name))
            .to_vec();
    files(&root().join("docs"), "md", &mut found);
    let names = found.iter().map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    names.collect()
}

/// The lines of a document that are not inside a code block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    })
}

fn assert_row(document: &str, text: &str, row: &str) {
    assert!(text.contains(row), "{document} has no row that begins with {row}");
}

#[test]
fn every_source_file_says_what_lives_there() {
    for file in rust_files() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with a //! line", file.display());
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(!["util", "utils", "common", "misc", "helpers"].contains(&name), "{}", file.display());
    }
}

#[test]
fn the_sample_environment_is_usable_and_explained() {
    const DOCUMENT: &str = "docs/reference/configuration.md";
    let (text, configuration) = (read(".env.example"), read(DOCUMENT));
    let mut variables = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim_start_matches('#').split_once('=') else { continue };
        if name.chars().all(|character| character.is_ascii_uppercase() || "_0123456789".contains(character)) {
            assert!(configuration.contains(&format!("`{name}`")), "{DOCUMENT} does not explain {name}");
            if !line.starts_with('#') {
                variables.push((name, value));
            }
        }
    }
    assert!(variables.len() > 10, "{variables:?}");
    // The defaults that the sample states are the ones in force.
    let stated = Connections::from_environment(&Environment::fixed(&variables)).unwrap();
    let default = Connections::from_environment(&Environment::fixed(&[])).unwrap();
    assert_eq!(stated.database_url, default.database_url);
    assert!(stated.broker.map(|broker| broker.get()) == default.broker.map(|broker| broker.get()));
    assert_eq!(stated.amqp_queue, default.amqp_queue);
    assert_eq!(stated.storage.bucket, default.storage.bucket);
}

/// Names of the variables that a source file reads: the first argument of a method of `env`, or a constant for it.
fn variables_read(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let calls = code.split("env.").skip(1).filter_map(|rest| rest.split_once('('));
    let constants =
        ["const VARIABLE: &str = ", "const NAME: &str = "].into_iter().flat_map(|it| code.split(it).skip(1));
    // A function that reads the variable of a name.
    let handed_on = code.split("(env, ").skip(1);
    let quoted = calls.map(|(_, arguments)| arguments).chain(constants).chain(handed_on);
    let names = quoted.filter_map(|text| text.trim_start().strip_prefix('"')?.split('"').next());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte))).collect()
}

#[test]
fn every_variable_is_in_the_sample_environment() {
    let sample = read(".env.example");
    let mut seen = BTreeSet::new();
    for file in rust_files() {
        let relative = file.strip_prefix(root()).unwrap();
        if !["api", "worker", "crates"].iter().any(|folder| relative.starts_with(folder)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // OpenTelemetry has variables of its own, far more than one needs.
        for name in variables_read(&text).into_iter().filter(|name| !name.starts_with("OTEL_")) {
            let listed = sample.lines().any(|line| line.trim_start_matches('#').split('=').next() == Some(name));
            assert!(listed, ".env.example does not list {name}, which {} reads", relative.display());
            seen.insert(name.to_owned());
        }
    }
    for name in ["PORT", "LISTEN", "ALLOWED_HOSTS", "CORS_ORIGINS", "DATABASE_URL", "WORKER_SLOTS"] {
        assert!(seen.contains(name), "{name} was not found among {seen:?}");
    }
}

#[test]
fn every_failure_is_explained() {
    const DOCUMENT: &str = "docs/reference/errors.md";
    let errors = read(DOCUMENT);
    for kind in FailureKind::ALL {
        let repeated = match kind.disposition() {
            Disposition::Retry => "yes",
            Disposition::Fail => "no",
        };
        assert_row(DOCUMENT, &errors, &format!("| `{}` | {repeated} | ", kind.code()));
    }
}

#[test]
fn every_problem_type_has_a_section_of_its_own() {
    const DOCUMENT: &str = "docs/reference/errors.md";
    let (code, errors) = (read("api/src/problem/answer.rs"), read(DOCUMENT));
    // The names are private to the api: they are the texts of small letters in the one match that turns errors into answers.
    let answers = code.split_once("fn to(").unwrap().1.split_once("#[cfg(test)]").unwrap().0;
    let is_name = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase());
    let mut names: BTreeSet<&str> = answers.split('"').skip(1).step_by(2).filter(is_name).collect();
    // Those of the HTTP server, which answers what never becomes a request.
    let refusals = read("crates/runtime/src/http_server/refusal.rs");
    let of_server = refusals.split("slug: \"").skip(1).filter_map(|rest| rest.split('"').next());
    names.extend(of_server);
    assert!(names.len() > 20, "{names:?}");
    let sections: BTreeSet<&str> = errors.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(
        sections, names,
        "the sections of {DOCUMENT}, and the names in api/src/problem/answer.rs and in refusal.rs"
    );
}

#[test]
fn every_reason_for_a_single_stream_is_explained() {
    const DOCUMENT: &str = "docs/reference/api.md";
    let api = read(DOCUMENT);
    for reason in SingleStreamReason::ALL {
        assert_row(DOCUMENT, &api, &format!("| `{}` | ", reason.code()));
    }
}

#[test]
fn every_format_and_every_state_is_explained() {
    let (readme, api, states) = (read("README.md"), read("docs/reference/api.md"), read("docs/explanation/states.md"));
    for format in Format::all() {
        assert_row("README.md", &readme, &format!("| `{}` | ", format.name));
        assert_row("docs/reference/api.md", &api, &format!("| `{}` | `{}` |", format.name, format.media_type));
    }
    for status in Status::ALL {
        assert_row("docs/explanation/states.md", &states, &format!("| `{}` | ", status.name()));
        let arrow = format!("--> {}", status.name());
        assert!(states.contains(&arrow), "the diagram has no way to {}", status.name());
    }
}

#[test]
fn every_alert_is_explained() {
    const DOCUMENT: &str = "docs/operations/alerts.md";
    let (alerts, document) = (read("observability/alerts.yml"), read(DOCUMENT));
    let names: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: BTreeSet<&str> = document.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(names.len() > 8, "{names:?}");
    assert_eq!(sections, names, "the sections of {DOCUMENT}, and the alerts");
    for name in names {
        let link = format!("documentation: {DOCUMENT}#{}", name.to_lowercase());
        assert!(alerts.contains(&link), "alerts.yml has no line {link}");
    }
}

/// The name of a heading in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
}

#[test]
fn links_lead_somewhere() {
    let headings = |text: &str| -> BTreeSet<String> {
        let lines = prose(text).filter(|line| line.starts_with('#'));
        lines.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    };
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let file = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            assert!(file.exists(), "{document} links to {link}");
            if !section.is_empty() {
                let target = fs::read_to_string(&file).unwrap();
                assert!(headings(&target).contains(section), "{document} links to {link}, which has no such section");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = read("docs/README.md");
    for page in documents().iter().filter_map(|name| name.strip_prefix("docs/")).filter(|name| *name != "README.md") {
        assert!(contents.contains(&format!("]({page})")), "docs/README.md does not link to {page}");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 200, "README.md has {lines} lines");
}

/// A page that quotes a line of the log writes `"message":"…"`.
#[test]
fn log_lines_that_the_documents_quote_are_written() {
    let code: Vec<String> = rust_files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        for quoted in text.split("\"message\":\"").skip(1) {
            let message = quoted.split('"').next().unwrap();
            let literal = format!("\"{message}\"");
            assert!(code.iter().any(|text| text.contains(&literal)), "{document} quotes the log line {literal}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

/// Both images share the layers of one build only as long as the stages before the last are the same.
#[test]
fn both_images_have_one_build() {
    let build = |name: &str| -> Vec<String> {
        let text = read(name);
        let (build, _) = text.rsplit_once("\nFROM ${RUNTIME_IMAGE}").unwrap();
        build.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert!(build("Dockerfile.api").iter().any(|line| line.contains("cargo build")));
    assert_eq!(build("Dockerfile.api"), build("Dockerfile.worker"));
    // Cargo reads the manifest of each member, so each has to be in the context.
    let context = read(".dockerignore");
    for member in ["bench", "devstack", "devstack/test-kit", "devstack/test-servers", "fuzz"] {
        assert!(root().join(member).join("Cargo.toml").exists());
        assert!(
            context.lines().any(|line| line == format!("!{member}/Cargo.toml")),
            "{member} is not in .dockerignore"
        );
    }
    for folder in ["api", "worker", "crates", "migrations"] {
        assert!(context.lines().any(|line| line == format!("!{folder}")), "{folder} is not in .dockerignore");
    }
}

#[test]
fn files_that_the_documents_name_exist() {
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let mut seen = 0;
        for word in text.split(|character: char| character.is_whitespace() || "`(),|".contains(character)) {
            let folders = CODE.iter().chain(&["migrations", ".cargo", ".ci", ".github", "docs", "observability"]);
            if folders.into_iter().any(|folder| word.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
                let path = word.trim_end_matches(['.', ';', ':']).split('#').next().unwrap();
                assert!(root().join(path).exists(), "{document} names {path}");
                seen += 1;
            }
        }
        assert!(seen > 8, "{document}: {seen}");
    }
}

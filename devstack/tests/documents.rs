//! What the documents promise about the code, and the tree's own rules, checked against the files.

use std::fs;
use std::path::{Path, PathBuf};

use polyglot_core::failure::{Disposition, FailureKind};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_ledger::Connections;
use polyglot_runtime::config::Environment;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below `folder` whose name ends in `.rs`.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_file_says_what_lives_there() {
    let mut files = Vec::new();
    for member in ["crates", "api", "worker", "devstack", "bench"] {
        rust_files(&root().join(member), &mut files);
    }
    assert!(files.len() > 50, "{}", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with a //! line", file.display());
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(!["util", "utils", "common", "misc", "helpers"].contains(&name), "{}", file.display());
    }
}

#[test]
fn the_sample_environment_is_usable_and_explained() {
    let text = fs::read_to_string(root().join(".env.example")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut variables = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim_start_matches('#').split_once('=') else { continue };
        if name.chars().all(|character| character.is_ascii_uppercase() || "_0123456789".contains(character)) {
            assert!(readme.contains(&format!("`{name}`")), "README.md does not explain {name}");
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
    assert_eq!(stated.amqp_url, default.amqp_url);
    assert_eq!(stated.amqp_queue, default.amqp_queue);
    assert_eq!(stated.storage.bucket, default.storage.bucket);
}

#[test]
fn the_readme_explains_every_failure() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for kind in FailureKind::ALL {
        let repeated = match kind.disposition() {
            Disposition::Retry => "yes",
            Disposition::Fail => "no",
        };
        let row = format!("| `{}` | {repeated} | ", kind.code());
        assert!(readme.contains(&row), "README.md has no row that begins with {row}");
    }
}

#[test]
fn the_readme_explains_every_reason_for_one_stream() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for reason in SingleStreamReason::ALL {
        let row = format!("| `{}` | ", reason.code());
        assert!(readme.contains(&row), "README.md has no row that begins with {row}");
    }
}

#[test]
fn links_of_the_readme_lead_somewhere() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let links: Vec<&str> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 2, "{links:?}");
    for link in links.into_iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
        assert!(root().join(link).exists(), "README.md links to {link}");
    }
}

#[test]
fn files_that_the_documents_name_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut seen = 0;
    for word in text.split(|character: char| character.is_whitespace() || "`(),".contains(character)) {
        let named = ["export/", "api/", "worker/", "devstack/", "bench/", "migrations/", ".cargo/"];
        if named.iter().any(|folder| word.starts_with(folder)) {
            let path = word.trim_end_matches(['.', ';', ':']);
            assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}");
            seen += 1;
        }
    }
    assert!(seen > 8, "{seen}");
}

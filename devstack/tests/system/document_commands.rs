//! The commands that README.md and docs/tutorial.md show, run as a reader would: in one shell, in the order of the page,
//! against a system of the test. `make run` itself is not run here.
//!
//! A line of its own in front of a code block says what the test does with the block:
//! `<!-- tested -->`: runs it; `<!-- tested file: NAME -->`: writes it to that file before anything runs; `<!-- printed -->`:
//! looks for its lines, in order, in what the commands have printed, where `…` stands for anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyglot_test_kit::{Setup, System, binary};
use polyglot_test_servers::needs_servers;

/// The address in the documents.
const DOCUMENTED: &str = "localhost:8080";
/// Rows of the table. The documents filter for the first thousand where they state a number.
const ROWS: usize = 1500;
const LONGEST_SECONDS: &str = "300";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What one document wants to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    script: String,
    files: Vec<(String, String)>,
    printed: Vec<String>,
    /// Shell blocks that are not run.
    untested: Vec<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut mark = "";
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let block = block.join("\n") + "\n";
                match (mark, mark.strip_prefix("tested file: ")) {
                    (_, Some(name)) => page.files.push((name.to_owned(), block)),
                    ("tested", _) => page.script.push_str(&block),
                    ("printed", _) => page.printed.extend(block.lines().map(str::to_owned)),
                    _ if language == "sh" => page.untested.push(block),
                    _ => {}
                }
            }
            mark = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or_default();
        }
        page
    }
}

/// Says which of the wanted lines is not in the output behind the one before it.
fn missing<'w>(wanted: &'w [String], output: &str) -> Option<&'w str> {
    let mut rest = output;
    for line in wanted {
        for part in line.split('…') {
            let Some(at) = rest.find(part) else { return Some(line) };
            rest = &rest[at + part.len()..];
        }
    }
    None
}

/// A command that finds the Python of the tests first, and no proxy.
fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:{path}", root().join(".tools/venv/bin").display())).env("no_proxy", "*");
    command
}

/// A system as `make run` leaves it for a reader in a new folder of this name: a key in `.data/stack.env`, and rows.
async fn started(name: &str) -> (System, PathBuf) {
    let system = System::start(Setup::new(ROWS as u64, &[("AUTH", "on")])).await;
    let folder = system.files.path().join(name);
    fs::create_dir_all(folder.join(".data")).unwrap();
    let mut create = Command::new(binary("polyglot-api"));
    let created = system.environment(&mut create).args(["keys", "create", "--name", "reader"]).output().unwrap();
    assert!(created.status.success());
    let key = String::from_utf8(created.stdout).unwrap();
    fs::write(folder.join(".data/stack.env"), format!("API_URL={}\nAPI_KEY={key}", system.url(""))).unwrap();
    (system, folder)
}

/// Runs the commands of a document in `folder`, and wants its lines to be printed.
fn run(document: &str, address: &str, folder: &Path) {
    let page = Page::read(&fs::read_to_string(root().join(document)).unwrap());
    assert!(page.script.contains(DOCUMENTED), "{document} has nothing to run");
    for block in &page.untested {
        assert!(block.starts_with("make "), "{document} has commands that no test runs:\n{block}");
    }
    for (name, content) in &page.files {
        fs::write(folder.join(name), content.replace(DOCUMENTED, address)).unwrap();
    }
    let script = page.script.replace(DOCUMENTED, address);
    let output = command("timeout")
        .args([LONGEST_SECONDS, "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(folder)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{document}: {}\n{printed}\n{said}", output.status);
    let missing = missing(&page.printed, &printed);
    assert!(missing.is_none(), "{document} shows a line that was not printed: {}\n{printed}", missing.unwrap());
}

/// What a Python expression over the file `name` comes to.
fn counted(folder: &Path, name: &str, expression: &str) -> usize {
    let program = format!("import csv, json, sys; name = sys.argv[1]; print({expression})");
    let output = command("python3").args(["-c", &program, name]).current_dir(folder).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let number = printed.trim().parse();
    number.unwrap_or_else(|_| panic!("{name}: {printed}{}", String::from_utf8_lossy(&output.stderr)))
}

const CSV_ROWS: &str = "sum(1 for _ in csv.reader(open(name, encoding='utf-8-sig', newline=''))) - 1";
const LINES: &str = "sum(1 for line in open(name) if json.loads(line))";

#[tokio::test]
async fn the_readme_s_commands_do_what_it_says() {
    needs_servers!();
    let (system, folder) = started("readme").await;
    run("README.md", system.url("").trim_start_matches("http://"), &folder);
    assert_eq!(counted(&folder, "export.csv", CSV_ROWS), ROWS);
    assert_eq!(counted(&folder, "spreadsheet.csv", CSV_ROWS), 1000);
    assert_eq!(counted(&folder, "ids.jsonl", LINES), ROWS);
    assert!(folder.join("records.parquet").exists() && !folder.join("ids.jsonl.part").exists());
    let client = fs::read_to_string(folder.join("client.py")).unwrap();
    assert_eq!(client.lines().filter(|line| !line.is_empty()).count(), 20, "the client of twenty lines");
}

#[tokio::test]
async fn the_tutorial_s_commands_do_what_it_says() {
    needs_servers!();
    let (system, folder) = started("tutorial").await;
    run("docs/tutorial.md", system.url("").trim_start_matches("http://"), &folder);
    let readers = [
        ("records.csv", CSV_ROWS),
        ("records.json", "len(json.load(open(name)))"),
        ("records.jsonl", LINES),
        ("records.xml", "open(name).read().count('<record>')"),
        ("records.parquet", "__import__('pyarrow.parquet').parquet.ParquetFile(name).metadata.num_rows"),
        ("records.arrow", "__import__('pyarrow.ipc').ipc.open_stream(name).read_all().num_rows"),
    ];
    for (name, expression) in readers {
        assert_eq!(counted(&folder, name, expression), 1000, "{name}");
    }
}

#[test]
fn blocks_are_told_apart_by_the_line_before_them() {
    let text = "# A\n\n<!-- tested -->\n```sh\na\n```\n<!-- printed -->\n```text\nb …\n```\n<!-- tested file: c.py -->\n\
                ```python\nd\n```\n\n```sh\nmake e\n```\n```json\n{}\n```\n<!-- tested -->\n```sh\nf\n```\n";
    let expected = Page {
        script: "a\nf\n".to_owned(),
        files: vec![("c.py".to_owned(), "d\n".to_owned())],
        printed: vec!["b …".to_owned()],
        untested: vec!["make e\n".to_owned()],
    };
    assert_eq!(Page::read(text), expected);
}

#[test]
fn wanted_lines_are_found_in_order() {
    let wanted = ["a … c".to_owned(), "d".to_owned()];
    assert_eq!(missing(&wanted, "a b c\nd\n"), None);
    assert_eq!(missing(&wanted, "d\na b c\n"), Some("d"));
    assert_eq!(missing(&wanted, "a b\nd\n"), Some("a … c"));
}

//! The documents match the product: links have targets, examples are valid, and lists are complete.
//!
//! A test in `src/model/reason.rs` checks the table of reasons, and one in `src/config/tests.rs` the configuration
//! sample.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use targetwatch::cli::Cli;
use targetwatch::model::CheckName;

use crate::daemon::Daemon;
use crate::workspace::Workspace;

/// Maximum length of the README, in lines. It introduces the product and links to the pages of `docs`.
const README_LINES_MAX: usize = 150;

/// The pages at the top of the repository.
const PAGES: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path of every Markdown page in the repository.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).expect("docs").map(|entry| entry.expect("an entry").file_name());
    let docs = docs.map(|name| Path::new("docs").join(name));
    let pages: Vec<PathBuf> = PAGES.iter().map(PathBuf::from).chain(docs).collect();
    pages.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The text of a page without fenced code blocks.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The fenced code blocks of a language.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("\n```{language}\n");
    let blocks = page.split(&opening).skip(1).map(|rest| rest.split("\n```").next().expect("a block").to_owned());
    blocks.collect()
}

/// The anchors that GitHub derives from headings: lower case, without punctuation, hyphens for blanks.
pub fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-"))
        .collect()
}

/// The configuration keys of the sample, as `[section] key`.
fn configuration_keys() -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in read("systemd/config.toml").lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            keys.insert(format!("[{section}] {key}"));
        }
    }
    keys
}

#[test]
fn links_between_documents_point_to_files_and_headings() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for target in prose(&text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let linked = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            assert!(repository().join(&linked).exists(), "{}: ({target}) does not exist", page.display());
            if let Some(anchor) = anchor {
                let known = anchors(&read(&linked));
                assert!(known.contains(anchor), "{}: ({target}) is not a heading: {known:?}", page.display());
            }
        }
    }
    assert!(links > 20, "{links} links found");
}

#[test]
fn readme_is_short_and_names_the_two_commands() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, the limit is {README_LINES_MAX}");
    for command in ["cargo run --release --example demo", "tests/run"] {
        assert!(readme.contains(command), "{command}");
    }
}

#[tokio::test]
async fn api_page_lists_every_route() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let description = daemon.get("/openapi.json").await;
    let mut served = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().expect("an object") {
        for method in methods.as_object().expect("an object").keys() {
            served.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let page = read("docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.filter(|cell| cell.contains(" /")).map(str::to_owned).collect();
    assert_eq!(listed, served);
}

#[test]
fn reports_page_lists_every_check() {
    let page = read("docs/reports.md");
    let (_, section) = page.split_once("| check | verifies |").expect("the table");
    let (table, _) = section.split_once("\n\n").expect("its end");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<&str> = rows.collect();
    assert_eq!(listed, CheckName::ALL.iter().map(|check| check.as_str()).collect());
}

#[test]
fn command_line_page_lists_every_subcommand() {
    let page = read("docs/cli.md");
    let mut listed = 0;
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let rows: String = page.lines().filter(|line| line.starts_with(&format!("| `{name}"))).collect();
        assert!(!rows.is_empty(), "docs/cli.md has no row for {name}");
        for subcommand in command.get_subcommands().map(clap::Command::get_name) {
            listed += 1;
            let is_listed =
                rows.contains(&format!("`{name} {subcommand}")) || rows.contains(&format!("`{subcommand}`"));
            assert!(is_listed, "docs/cli.md does not list {name} {subcommand}");
        }
    }
    assert!(listed > 20, "{listed} subcommands found");
}

#[test]
fn api_page_begins_with_the_text_of_its_script() {
    let script = read("docs/api-session");
    let (_, rest) = script.split_once("<<'TOP'\n").expect("the text");
    let (text, _) = rest.split_once("\nTOP\n").expect("its end");
    assert!(read("docs/api.md").starts_with(text), "docs/api.md differs: update it with docs/api-session");
}

#[test]
fn configuration_examples_are_valid() {
    let mut examples = 0;
    for page in pages() {
        for example in blocks(&read(&page), "toml") {
            examples += 1;
            if let Err(error) = targetwatch::config::parse(&example, &page) {
                panic!("{error}\n{example}");
            }
        }
    }
    assert!(examples > 5, "{examples} examples found");
}

#[test]
fn configuration_keys_in_documents_exist() {
    let known = configuration_keys();
    let mut mentioned = 0;
    for page in pages() {
        let text = prose(&read(&page));
        // Mentions have the form `[section] key` or `[[section]] key`.
        for mention in text.split('`').filter(|mention| mention.starts_with('[')) {
            let Some((section, key)) = mention.trim_start_matches('[').split_once(' ') else { continue };
            mentioned += 1;
            // A value may follow, as in `[mounts] mode = "none"`.
            let key = key.split(' ').next().expect("a word");
            let key = format!("[{}] {key}", section.trim_end_matches(']'));
            assert!(known.contains(&key), "{}: {key} is not in systemd/config.toml: {known:?}", page.display());
        }
    }
    assert!(mentioned > 5, "{mentioned} keys found");
}

/// A name that ends with `…` or `*` is the beginning of test names.
#[test]
fn tests_in_the_tables_of_faults_exist() {
    let page = read("docs/faults.md");
    let mut named = 0;
    for name in page.split('`').filter(|text| text.contains("::")) {
        named += 1;
        let (module, test) = name.split_once("::").expect("a path");
        let declared = match test.strip_suffix('*').or_else(|| test.strip_suffix('…')) {
            Some(beginning) => format!("fn {beginning}"),
            None => format!("fn {test}("),
        };
        let files = ["tests/lab", "tests/keystone", "tests/integration"].map(|folder| format!("{folder}/{module}.rs"));
        let files = files.into_iter().chain([format!("src/{module}/tests.rs")]);
        let mut files = files.filter(|file| repository().join(file).exists());
        let is_found = files.any(|file| read(file).contains(&declared));
        assert!(is_found, "docs/faults.md names {name}, which is not a test");
    }
    assert!(named > 20, "{named} tests found");
}

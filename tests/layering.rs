//! The dependency direction, held: modules depend on those to their right in the map of the crate's
//! documentation, and on nothing else.
//!
//! Read from the tokens of every file below `src`, so that comments and texts do not count and macros do:
//! each path that begins with `crate`, or climbs to it by `super`, names a module of the first level.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(clippy::disallowed_methods, reason = "the crate's own sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Which modules each module may name besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cli", &["agent", "api", "config", "driver", "keystone", "model", "registry", "sys", "tls"]),
    // Node facts are of this process, not of a target; the registry's errors have statuses of their own.
    // Tokens are validated and connections protected here, and a secret's file is read by sys.
    ("api", &["agent", "keystone", "model", "registry", "sys", "tls"]),
    ("agent", &["driver", "model", "registry"]),
    ("driver", &["check", "model", "nfs", "s3", "sys"]),
    ("check", &["model", "nfs", "s3", "sys"]),
    ("config", &["model"]),
    ("registry", &["model"]),
    ("keystone", &["model", "sys", "tls"]),
    ("tls", &["model", "sys"]),
    ("nfs", &["model"]),
    ("s3", &["model", "sys", "tls"]),
    ("sys", &["model"]),
    ("model", &[]),
];

/// What only some files may name, wherever they are.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    // One module knows the SDK, and each of its files the part that it is about; everybody else knows
    // the trait.
    ("aws_sdk_s3", &["s3/aws.rs", "s3/aws/"]),
    ("aws_config", &["s3/aws.rs", "s3/aws/credentials.rs"]),
    ("aws_credential_types", &["s3/aws/clients.rs", "s3/aws/credentials.rs"]),
    ("aws_smithy_http_client", &["s3/aws/trust.rs", "s3/aws/pages/tests.rs"]),
    ("aws_smithy_runtime_api", &["s3/aws.rs", "s3/aws/"]),
    ("aws_smithy_types", &["s3/aws/answer.rs", "s3/aws/count.rs", "s3/aws/xml.rs"]),
    ("xmlparser", &["s3/aws/xml.rs"]),
    // What may be replaced is replaced in one place.
    ("rusqlite", &["registry/sqlite.rs", "registry/sqlite/"]),
    ("sd_notify", &["sys/systemd.rs"]),
    ("serde_saphyr", &["cli/token/clouds.rs"]),
    ("toml", &["config.rs", "config/"]),
    // One function selects the store. Everything else, tests included, uses the registry in front of it.
    ("SqliteStore", &["registry/contract.rs", "registry/open.rs", "registry/sqlite.rs", "registry/sqlite/"]),
    // The one place that sees everything binds the addresses.
    ("Listeners", &["cli/serve.rs", "api.rs", "api/listen.rs", "api/listen/tests.rs"]),
];

/// Where the methods that `.clippy.toml` bans may be allowed, and why.
const MAY_TOUCH_PATHS: &[(&str, &str)] = &[
    ("sys/", "this is where storage is touched, in children, and where children are made"),
    ("registry/sqlite/file.rs", "the registry's file is on a local disk, never below the mount root"),
    ("registry/sqlite/tests.rs", "files in a temporary directory"),
    ("api/listen.rs", "the socket's own file is on a local file system"),
];

/// Modules within which no circle of imports is allowed: a reader can then read them one after the other,
/// and move one without the others.
const ACYCLIC: &[&str] = &["agent", "registry", "sys::worker"];

/// Names of modules that are compiled for tests only.
const TEST_MODULES: &[&str] = &["contract", "fixtures", "tests"];

/// A file of the crate.
struct Source {
    /// Its path below `src`.
    path: String,
    tokens: TokenStream,
}

impl Source {
    /// Its modules, from the crate down: `agent/task.rs` is `agent`, `task`.
    fn modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").expect("a Rust file");
        if matches!(stem, "lib" | "main") {
            return Vec::new();
        }
        stem.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
    }
}

/// Every file of the crate.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut directories, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let tokens = fs::read_to_string(&path).expect("read").parse();
                let tokens = tokens.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(&root).expect("below it").to_str().expect("text").to_owned();
                sources.push(Source { path, tokens });
            }
        }
    }
    assert!(sources.len() > ALLOWED.len(), "the crate was found");
    sources
}

/// The first modules of all paths that begin at the crate. `depth` is how many modules the tokens are in.
fn names_from_the_crate(tokens: TokenStream, depth: usize, names: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let here = at;
        at += 1;
        match &tokens[here] {
            TokenTree::Group(group) => {
                let is_module = here >= 2 && is_word(&tokens[here - 2], "mod");
                names_from_the_crate(group.stream(), depth + usize::from(is_module), names);
            }
            TokenTree::Ident(word) if word == "crate" && !follows_colons(&tokens, here) => {
                first_names(&tokens[here + 1..], names);
            }
            TokenTree::Ident(word) if word == "super" => {
                let mut climbed = 1;
                while is_colons(&tokens, at) && tokens.get(at + 2).is_some_and(|next| is_word(next, "super")) {
                    climbed += 1;
                    at += 3;
                }
                if climbed >= depth {
                    first_names(&tokens[at..], names);
                }
            }
            _ => {}
        }
    }
}

/// The names right after `crate`: one, or those of a group.
fn first_names(after: &[TokenTree], names: &mut BTreeSet<String>) {
    if !is_colons(after, 0) {
        return;
    }
    match after.get(2) {
        Some(TokenTree::Ident(name)) => {
            names.insert(name.to_string());
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let mut begins = true;
            for token in group.stream() {
                if let (true, TokenTree::Ident(name)) = (begins, &token) {
                    names.insert(name.to_string());
                }
                begins = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == ',');
            }
        }
        // `crate::*` brings in every module at once.
        Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
            names.insert("*".to_owned());
        }
        _ => {}
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))
}

fn follows_colons(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_colons(tokens, at - 2)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// Every word of a file.
fn words(tokens: TokenStream, words: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => self::words(group.stream(), words),
            TokenTree::Ident(word) => {
                words.insert(word.to_string());
            }
            _ => {}
        }
    }
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

/// What a file at this path names against the rules.
fn wrong_names(path: &str, tokens: TokenStream) -> Vec<String> {
    let source = Source { path: path.to_owned(), tokens };
    let modules = source.modules();
    let mut names = BTreeSet::new();
    names_from_the_crate(source.tokens, modules.len(), &mut names);
    let Some(module) = modules.first() else {
        return Vec::new();
    };
    let allowed = ALLOWED.iter().find(|(name, _)| name == module).map(|(_, allowed)| *allowed);
    let allowed = allowed.unwrap_or_else(|| panic!("src/{path}: the map does not have the module {module}"));
    names.into_iter().filter(|name| name != module && !allowed.contains(&name.as_str())).collect()
}

#[test]
fn modules_depend_on_those_to_their_right_only() {
    let judge = |Source { path, tokens }| {
        let wrong = wrong_names(&path, tokens);
        (!wrong.is_empty()).then(|| format!("src/{path} depends on {wrong:?}"))
    };
    let wrong: Vec<String> = sources().into_iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "against the map in src/lib.rs: {wrong:#?}");
}

#[test]
fn a_way_up_is_found_however_it_is_written() {
    for (path, text, wrong) in [
        ("model/reason.rs", "use crate::agent::View;", &["agent"][..]),
        ("model/reason.rs", "use crate::{model::Target, sys::{self, Lane}};", &["sys"]),
        ("model/reason.rs", "fn f() { let x = vec![crate::api::router()]; }", &["api"]),
        ("model/reason.rs", "use super::super::cli;", &["cli"]),
        ("model/reason.rs", "mod tests { use super::super::super::cli; }", &["cli"]),
        ("model.rs", "use super::{registry, config};", &["config", "registry"]),
        ("check/bucket.rs", "use crate::*;", &["*"]),
        ("registry/sqlite/file.rs", "pub(in crate::agent) fn f() {}", &["agent"]),
        ("nfs/ping.rs", "use crate::s3::BucketApi;", &["s3"]),
        ("api/body.rs", "use crate::config;", &["config"]),
        ("driver/nfs.rs", "use super::super::check; mod tests { use super::super::nfs; use super::*; }", &[]),
        ("model.rs", "mod tests { use super::agent; }", &[]),
        ("model/reason.rs", "// use crate::agent;\n/// [`crate::agent`]\nconst X: &str = \"crate::agent\";", &[]),
    ] {
        assert_eq!(wrong_names(path, text.parse().expect("tokens")), wrong, "{path}: {text}");
    }
}

/// Every path of the tokens, with the members of groups as paths of their own. Inline test modules are
/// left out.
fn paths(tokens: TokenStream, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word)
                if word == "mod" && tokens.get(at + 1).is_some_and(|next| is_word(next, "tests")) =>
            {
                at += 3;
            }
            // `pub(super)` says who may see it, and imports nothing.
            TokenTree::Ident(word) if word == "pub" => {
                at += 1;
                let parentheses = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
                at += usize::from(tokens.get(at).is_some_and(parentheses));
            }
            TokenTree::Ident(first) => {
                let mut path = prefix.to_vec();
                path.push(first.to_string());
                at += 1;
                let mut is_group = false;
                while is_colons(&tokens, at) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            paths(group.stream(), &path, found);
                            is_group = true;
                        }
                        _ => {}
                    }
                    at += 3;
                }
                if !is_group {
                    found.push(path);
                }
            }
            TokenTree::Group(group) => {
                paths(group.stream(), &[], found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// The module that a path of `current` names, if the crate has it.
fn named_module(path: &[String], current: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let mut named = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "super" => current[..current.len().checked_sub(supers)?].to_vec(),
        _ => current.to_vec(),
    };
    let rest = path.iter().skip(supers).skip_while(|part| *part == "crate" || *part == "self");
    named.extend(rest.cloned());
    while !named.is_empty() && !modules.contains(&named) {
        named.pop();
    }
    // A path that begins with neither is relative, or the name of something else.
    (named.len() > current.len() || supers > 0 || path[0] == "crate").then_some(named)
}

/// The circles of imports among the modules below `root`, each as the modules that reach each other.
fn import_circles(root: &str, sources: &[Source]) -> BTreeSet<Vec<String>> {
    let is_below = |modules: &[String]| {
        let name = modules.join("::");
        name == root || name.starts_with(&format!("{root}::"))
    };
    let is_test = |source: &&Source| source.modules().iter().any(|part| TEST_MODULES.contains(&part.as_str()));
    let modules: BTreeSet<Vec<String>> = sources.iter().map(Source::modules).collect();
    let mut reached: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !is_test(source) && is_below(&source.modules())) {
        let (current, mut found) = (source.modules(), Vec::new());
        paths(source.tokens.clone(), &[], &mut found);
        let named = found.iter().filter_map(|path| named_module(path, &current, &modules));
        let named = named.filter(|named| is_below(named) && *named != current).collect();
        reached.insert(current, named);
    }
    // What is reached in one step more, until there is nothing new.
    loop {
        let before = reached.clone();
        for next in reached.values_mut() {
            let further: Vec<_> = next.iter().filter_map(|module| before.get(module)).flatten().cloned().collect();
            next.extend(further);
        }
        if reached == before {
            break;
        }
    }
    let circle_of = |(module, next): (&Vec<String>, &BTreeSet<Vec<String>>)| {
        let both_ways = |other: &&Vec<String>| reached.get(*other).is_some_and(|back| back.contains(module));
        next.contains(module).then(|| next.iter().filter(both_ways).map(|other| other.join("::")).collect())
    };
    reached.iter().filter_map(circle_of).collect()
}

#[test]
fn modules_of_one_subject_import_each_other_without_circles() {
    let sources = sources();
    for root in ACYCLIC {
        let circles = import_circles(root, &sources);
        assert!(circles.is_empty(), "modules that import each other within {root}: {circles:#?}");
    }
}

#[test]
fn import_circle_is_found_however_it_is_written() {
    let circles = |files: &[(&str, &str)]| {
        let source =
            |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), tokens: text.parse().expect("tokens") };
        import_circles("agent", &files.iter().map(source).collect::<Vec<_>>())
    };
    let facade = ("agent.rs", "mod task; mod view; pub use task::Task;");
    for (task, view) in [
        ("use super::view::View;", "use super::task::Task;"),
        ("use super::{view::View};", "fn f(task: crate::agent::task::Task) {}"),
        ("use super::Task;", ""),
        ("use crate::agent::{error::E, View};", ""),
    ] {
        let found = circles(&[facade, ("agent/task.rs", task), ("agent/view.rs", view)]);
        assert_eq!(found.len(), 1, "{task} {view}");
    }
    let task = "use super::view::View; mod tests { use super::super::Task; }";
    assert_eq!(circles(&[facade, ("agent/task.rs", task), ("agent/view.rs", "use crate::model::Task;")]), [].into());
}

#[test]
fn what_belongs_to_one_place_is_named_nowhere_else() {
    let mut seen = BTreeSet::new();
    for Source { path, tokens } in sources() {
        let mut found = BTreeSet::new();
        words(tokens, &mut found);
        for (name, places) in NAMED_ONLY_IN {
            if found.contains(*name) {
                assert!(is_in(&path, places), "src/{path} names {name}, which belongs to {places:?}");
                seen.insert(*name);
            }
        }
    }
    assert_eq!(seen.len(), NAMED_ONLY_IN.len(), "each of them is still there: {seen:?}");
}

#[test]
fn paths_are_touched_only_where_it_is_known_that_they_cannot_hang() {
    let mut seen = BTreeSet::new();
    for Source { path, tokens } in sources() {
        let mut found = BTreeSet::new();
        words(tokens, &mut found);
        if found.contains("disallowed_methods") {
            let place = MAY_TOUCH_PATHS.iter().find(|(place, _)| is_in(&path, &[place]));
            let (place, _) = place.unwrap_or_else(|| panic!("src/{path} allows clippy::disallowed_methods"));
            seen.insert(*place);
        }
    }
    assert_eq!(seen.len(), MAY_TOUCH_PATHS.len(), "each of the exceptions is still needed: {seen:?}");
}

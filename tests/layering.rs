//! Enforces the direction of dependencies: a module depends only on modules to its right in the map of the crate
//! documentation.
//!
//! The tests read the tokens of every file below `src`, so macros count, and comments and strings do not. A path that
//! begins with `crate`, or reaches the crate root with `super`, names a top-level module.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(clippy::disallowed_methods, reason = "the crate's own sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The modules that each top-level module may name, besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cli", &["agent", "api", "config", "driver", "keystone", "model", "notify", "registry", "sys", "tls"]),
    // keystone and tls for authentication, registry for the statuses of its errors, sys for node facts and secret files.
    ("api", &["agent", "keystone", "model", "notify", "registry", "sys", "tls"]),
    ("notify", &["agent", "http_client", "model", "sys", "tls"]),
    ("agent", &["driver", "model", "registry"]),
    ("driver", &["check", "model", "nfs", "s3", "sys"]),
    ("check", &["model", "nfs", "s3", "sys"]),
    ("config", &["model"]),
    ("registry", &["model"]),
    ("keystone", &["http_client", "model", "sys", "tls"]),
    ("http_client", &["sys", "tls"]),
    ("tls", &["model", "sys"]),
    ("nfs", &["model"]),
    ("s3", &["model", "sys", "tls"]),
    ("sys", &["model"]),
    ("model", &[]),
];

/// Names that only some files may use.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    // One module uses the SDK, and each of its files only the part for its subject. Other modules use the trait.
    ("aws_sdk_s3", &["s3/aws.rs", "s3/aws/"]),
    ("aws_config", &["s3/aws.rs", "s3/aws/credentials.rs"]),
    ("aws_credential_types", &["s3/aws/clients.rs", "s3/aws/credentials.rs"]),
    ("aws_smithy_http_client", &["s3/aws/trust.rs", "s3/aws/fake_service.rs"]),
    ("aws_smithy_runtime_api", &["s3/aws.rs", "s3/aws/"]),
    ("aws_smithy_types", &["s3/aws/answer.rs", "s3/aws/count.rs", "s3/aws/xml.rs"]),
    ("maud", &["api/ui.rs", "api/ui/"]),
    ("prometheus_client", &["api/metrics.rs", "api/metrics/"]),
    ("xmlparser", &["s3/aws/xml.rs"]),
    // Each of these libraries could be replaced in one place.
    ("clap_mangen", &["cli/manual.rs"]),
    ("rusqlite", &["registry/sqlite.rs", "registry/sqlite/"]),
    ("sd_notify", &["sys/systemd.rs"]),
    ("serde_saphyr", &["cli/token/clouds.rs"]),
    ("toml", &["config.rs", "config/"]),
    // One function selects the store. Everything else, including tests, uses the registry.
    ("SqliteStore", &["registry/contract.rs", "registry/open.rs", "registry/sqlite.rs", "registry/sqlite/"]),
    // The configuration selects the kind of store by its URL. Nothing above the registry knows it.
    ("Sqlite", &["config/tests.rs", "config/validate.rs", "model/registry_url.rs", "registry/open.rs"]),
    ("sqlite", &["registry.rs", "registry/"]),
    // The start of the daemon binds the addresses.
    ("Listeners", &["cli/serve.rs", "api.rs", "api/listen.rs", "api/listen/tests.rs"]),
];

/// Largest number of files that a new kind of target may have to change.
const KIND_FILES_MAX: usize = 8;

/// The only files that may name a kind of target. A new kind changes at most these. `driver/` counts as one file.
const NAMES_KINDS: &[&str] = &[
    "model/target_spec.rs",
    "model/report/kind_facts.rs",
    "driver.rs",
    "driver/",
    "api/wire/target.rs",
    "api/wire/report.rs",
    "config/declared.rs",
    "cli/kind.rs",
];

/// Files with a string that is the name of a kind by chance, each with its meaning there.
const SAME_TEXT_AS_A_KIND: &[(&str, &str)] = &[
    ("cli/manual.rs", "the manual page nfs(5)"),
    ("model/export/nfs.rs", "the scheme of a URL"),
    ("model/export/s3.rs", "the first label of a host name of AWS"),
    ("sys/mount_table/table.rs", "the type of a file system"),
];

/// Names that several types have, each for a reason. Any other name belongs to one type.
const SHARED_TYPE_NAMES: &[&str] = &[
    // Arguments and subcommands of each subcommand, in its file.
    "Arguments",
    "Command",
    // Keys of the configuration file, and the settings or parts of the agent that they become.
    "NfsOverride",
    "ProbeOverride",
    "Target",
    "Webhook",
    // Private to one directory each.
    "Identity",
    "Request",
];

/// Files that may use the methods that `.clippy.toml` forbids, each with the reason.
const MAY_TOUCH_PATHS: &[(&str, &str)] = &[
    ("sys/", "it accesses storage, in child processes, and starts these"),
    ("registry/sqlite/file.rs", "the registry's file is on a local disk, never below the mount root"),
    (
        "registry/sqlite/generation.rs",
        "the record beside the registry's file is on a local disk, never below the mount root",
    ),
    ("registry/sqlite/identity.rs", "the registry's file is on a local disk, never below the mount root"),
    ("registry/sqlite/write_ahead_log.rs", "the registry's log is on a local disk, never below the mount root"),
    ("registry/sqlite/tests.rs", "files in a temporary directory"),
    ("api/listen.rs", "the socket's own file is on a local file system"),
    ("cli/manual.rs", "the manual pages are files of a package's build"),
];

/// Modules without import cycles among their submodules, so that each can be read and moved without the others.
const ACYCLIC: &[&str] = &["agent", "api", "cli::status", "config", "keystone", "notify", "registry", "sys", "tls"];

/// Names of modules that are compiled for tests only.
const TEST_MODULES: &[&str] = &["contract", "fixtures", "tests"];

/// A file of the crate.
struct Source {
    /// Path below `src`.
    path: String,
    tokens: TokenStream,
}

impl Source {
    /// Module path from the crate root: `agent/task.rs` is `agent`, `task`. It is empty for the roots of the programs and
    /// the library.
    fn modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").expect("a Rust file");
        if matches!(stem, "lib" | "main" | "probe_worker") {
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
                let path = path.strip_prefix(&root).expect("below src").to_str().expect("text").to_owned();
                sources.push(Source { path, tokens });
            }
        }
    }
    assert!(sources.len() > ALLOWED.len(), "too few files below {}", root.display());
    sources
}

/// Collects the top-level modules of all paths that begin at the crate root. `depth` is the number of modules around the
/// tokens.
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
                let mut supers = 1;
                while is_colons(&tokens, at) && tokens.get(at + 2).is_some_and(|next| is_word(next, "super")) {
                    supers += 1;
                    at += 3;
                }
                if supers >= depth {
                    first_names(&tokens[at..], names);
                }
            }
            _ => {}
        }
    }
}

/// Collects the names after `crate`: one name, or those of a group.
fn first_names(after: &[TokenTree], names: &mut BTreeSet<String>) {
    if !is_colons(after, 0) {
        return;
    }
    match after.get(2) {
        Some(TokenTree::Ident(name)) => {
            names.insert(name.to_string());
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let mut is_first = true;
            for token in group.stream() {
                if let (true, TokenTree::Ident(name)) = (is_first, &token) {
                    names.insert(name.to_string());
                }
                is_first = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == ',');
            }
        }
        // `crate::*` imports every module.
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

/// Collects every identifier.
fn identifiers(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => identifiers(group.stream(), found),
            TokenTree::Ident(word) => {
                found.insert(word.to_string());
            }
            _ => {}
        }
    }
}

/// Whether a path is one of these files, or below one of these directories, which end with `/`.
fn is_in(path: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|one| path == *one || one.ends_with('/') && path.starts_with(one))
}

/// The modules that a file names and must not depend on.
fn forbidden_modules(path: &str, tokens: TokenStream) -> Vec<String> {
    let source = Source { path: path.to_owned(), tokens };
    let modules = source.modules();
    let mut names = BTreeSet::new();
    names_from_the_crate(source.tokens, modules.len(), &mut names);
    let Some(module) = modules.first() else {
        return Vec::new();
    };
    let allowed = ALLOWED.iter().find(|(name, _)| name == module).map(|(_, allowed)| *allowed);
    let allowed = allowed.unwrap_or_else(|| panic!("src/{path}: ALLOWED has no entry for the module {module}"));
    names.into_iter().filter(|name| name != module && !allowed.contains(&name.as_str())).collect()
}

#[test]
fn modules_depend_only_on_modules_to_their_right() {
    let violation = |Source { path, tokens }| {
        let forbidden = forbidden_modules(&path, tokens);
        (!forbidden.is_empty()).then(|| format!("src/{path} depends on {forbidden:?}"))
    };
    let violations: Vec<String> = sources().into_iter().filter_map(violation).collect();
    assert!(violations.is_empty(), "not allowed by the map in src/lib.rs: {violations:#?}");
}

#[test]
fn forbidden_dependency_is_found_in_every_notation() {
    for (path, text, forbidden) in [
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
        assert_eq!(forbidden_modules(path, text.parse().expect("tokens")), forbidden, "{path}: {text}");
    }
}

/// Collects every path, with each member of a group as a separate path. Skips inline test modules.
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
            // `pub(super)` imports nothing.
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

/// The module that a path in the module `current` names, if it is one of `modules`.
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
    // A path without `crate` or `super` must lead below the current module. Otherwise it names something else.
    (named.len() > current.len() || supers > 0 || path[0] == "crate").then_some(named)
}

/// The import cycles among the modules below `root`, each as the set of modules that reach each other.
fn import_cycles(root: &str, sources: &[Source]) -> BTreeSet<Vec<String>> {
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
    // Transitive closure: adds modules that are one step further, until there are no more.
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
    let cycle_of = |(module, next): (&Vec<String>, &BTreeSet<Vec<String>>)| {
        let both_ways = |other: &&Vec<String>| reached.get(*other).is_some_and(|back| back.contains(module));
        next.contains(module).then(|| next.iter().filter(both_ways).map(|other| other.join("::")).collect())
    };
    reached.iter().filter_map(cycle_of).collect()
}

#[test]
fn submodules_have_no_import_cycles() {
    let sources = sources();
    for root in ACYCLIC {
        let cycles = import_cycles(root, &sources);
        assert!(cycles.is_empty(), "import cycles within {root}: {cycles:#?}");
    }
}

#[test]
fn import_cycle_is_found_in_every_notation() {
    let cycles = |files: &[(&str, &str)]| {
        let source =
            |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), tokens: text.parse().expect("tokens") };
        import_cycles("agent", &files.iter().map(source).collect::<Vec<_>>())
    };
    let facade = ("agent.rs", "mod task; mod view; pub use task::Task;");
    for (task, view) in [
        ("use super::view::View;", "use super::task::Task;"),
        ("use super::{view::View};", "fn f(task: crate::agent::task::Task) {}"),
        ("use super::Task;", ""),
        ("use crate::agent::{error::E, View};", ""),
    ] {
        let found = cycles(&[facade, ("agent/task.rs", task), ("agent/view.rs", view)]);
        assert_eq!(found.len(), 1, "{task} {view}");
    }
    let task = "use super::view::View; mod tests { use super::super::Task; }";
    assert_eq!(cycles(&[facade, ("agent/task.rs", task), ("agent/view.rs", "use crate::model::Task;")]), [].into());
}

#[test]
fn restricted_names_are_used_only_in_their_files() {
    let mut seen = BTreeSet::new();
    for Source { path, tokens } in sources() {
        let mut found = BTreeSet::new();
        identifiers(tokens, &mut found);
        for (name, allowed) in NAMED_ONLY_IN {
            if found.contains(*name) {
                assert!(is_in(&path, allowed), "src/{path} uses {name}, which is allowed only in {allowed:?}");
                seen.insert(*name);
            }
        }
    }
    assert_eq!(seen.len(), NAMED_ONLY_IN.len(), "a name in NAMED_ONLY_IN is not used any more: {seen:?}");
}

/// The kinds of targets: the variants of the first enum `TargetKind`.
fn kinds(tokens: TokenStream) -> Option<Vec<String>> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.iter().enumerate().find_map(|(at, token)| match token {
        TokenTree::Group(group) if at > 0 && is_word(&tokens[at - 1], "TargetKind") => {
            let variants = group.stream().into_iter().filter(|token| matches!(token, TokenTree::Ident(_)));
            Some(variants.map(|variant| variant.to_string()).collect())
        }
        TokenTree::Group(group) => kinds(group.stream()),
        _ => None,
    })
}

#[test]
fn kinds_of_targets_are_named_in_few_files_only() {
    let sources = sources();
    let kinds = sources.iter().find_map(|source| kinds(source.tokens.clone())).expect("the kinds");
    assert!(kinds.len() > 1 && NAMES_KINDS.len() <= KIND_FILES_MAX, "{kinds:?}, {NAMES_KINDS:?}");
    let enums = ["TargetKind", "TargetSpec", "KindFacts"];
    let structs: Vec<String> = kinds.iter().map(|kind| format!("{kind}Target")).collect();
    let names_a_kind = |path: &Vec<String>| {
        let is_variant = |pair: &[String]| enums.contains(&pair[0].as_str()) && kinds.contains(&pair[1]);
        path.windows(2).any(is_variant) || path.iter().any(|part| structs.contains(part))
    };
    for source in sources {
        let (is_facade, mut found) = (source.path == "model.rs", Vec::new());
        paths(source.tokens.clone(), &[], &mut found);
        let is_test = source.modules().iter().any(|part| TEST_MODULES.contains(&part.as_str()));
        if found.iter().any(names_a_kind) && !is_facade && !is_test {
            let path = source.path;
            assert!(is_in(&path, NAMES_KINDS), "src/{path} names a kind of target, which belongs to {NAMES_KINDS:?}");
        }
    }
}

/// Collects the literals. Skips inline test modules.
fn literals(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut latest = [String::new(), String::new()];
    for token in tokens {
        match &token {
            TokenTree::Group(group) if latest != ["mod", "tests"] => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                found.insert(literal.to_string());
            }
            _ => {}
        }
        latest.rotate_left(1);
        latest[1] = token.to_string();
    }
}

#[test]
fn kinds_of_targets_are_not_written_as_strings() {
    let sources = sources();
    let kinds = sources.iter().find_map(|source| kinds(source.tokens.clone())).expect("the kinds");
    let names: BTreeSet<String> = kinds.iter().map(|kind| format!("{:?}", kind.to_lowercase())).collect();
    let mut seen = BTreeSet::new();
    for source in sources {
        let (is_test, mut found) =
            (source.modules().iter().any(|part| TEST_MODULES.contains(&part.as_str())), BTreeSet::new());
        literals(source.tokens, &mut found);
        let path = source.path;
        if is_test || found.is_disjoint(&names) || is_in(&path, NAMES_KINDS) {
            continue;
        }
        let entry = SAME_TEXT_AS_A_KIND.iter().find(|(allowed, _)| *allowed == path);
        let (allowed, _) = entry.unwrap_or_else(|| panic!("src/{path} names a kind of target: use TargetKind::as_str"));
        seen.insert(*allowed);
    }
    assert_eq!(seen.len(), SAME_TEXT_AS_A_KIND.len(), "an entry of SAME_TEXT_AS_A_KIND is not needed: {seen:?}");
}

/// Collects the names of the structs and enums that other modules can see. Skips inline test modules.
fn visible_types(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_visible =
        |at: usize| at > 0 && (is_word(&tokens[at - 1], "pub") || at > 1 && is_word(&tokens[at - 2], "pub"));
    for (at, token) in tokens.iter().enumerate() {
        match (token, tokens.get(at + 1)) {
            (TokenTree::Ident(word), Some(TokenTree::Ident(name)))
                if (word == "struct" || word == "enum") && is_visible(at) =>
            {
                found.push(name.to_string());
            }
            (TokenTree::Group(group), _) if at < 2 || !is_word(&tokens[at - 2], "mod") => {
                visible_types(group.stream(), found);
            }
            _ => {}
        }
    }
}

#[test]
fn two_types_have_two_names() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let is_test = source.modules().iter().any(|part| TEST_MODULES.contains(&part.as_str()));
        // Types on the wire have the names of the types that they show.
        if is_test || is_in(&source.path, &["api/wire/", "check/fake.rs"]) {
            continue;
        }
        let mut found = Vec::new();
        visible_types(source.tokens, &mut found);
        for name in found {
            files.entry(name).or_default().insert(source.path.clone());
        }
    }
    files.retain(|_, paths| paths.len() > 1);
    let shared: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(shared, SHARED_TYPE_NAMES.iter().copied().collect(), "each type needs a name of its own: {files:#?}");
}

#[test]
fn forbidden_methods_are_used_only_in_listed_files() {
    let mut seen = BTreeSet::new();
    for Source { path, tokens } in sources() {
        let mut found = BTreeSet::new();
        identifiers(tokens, &mut found);
        if found.contains("disallowed_methods") {
            let entry = MAY_TOUCH_PATHS.iter().find(|(allowed, _)| is_in(&path, &[allowed]));
            let (allowed, _) = entry.unwrap_or_else(|| panic!("src/{path} allows clippy::disallowed_methods"));
            seen.insert(*allowed);
        }
    }
    assert_eq!(seen.len(), MAY_TOUCH_PATHS.len(), "an entry of MAY_TOUCH_PATHS is not needed any more: {seen:?}");
}

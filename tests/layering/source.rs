//! What source files name, read from their tokens. So macros count, and comments and strings do not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file of the crate.
pub struct Source {
    /// Path below `src`.
    pub path: String,
    pub tokens: TokenStream,
}

impl Source {
    /// Module path from the crate root: `agent/task.rs` is `agent`, `task`. It is empty for the roots of the programs
    /// and the library.
    pub fn modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").expect("a Rust file");
        if matches!(stem, "lib" | "main" | "probe_worker") {
            return Vec::new();
        }
        stem.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
    }
}

/// Every file of the crate.
pub fn sources() -> Vec<Source> {
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
    assert!(!sources.is_empty(), "no file below {}", root.display());
    sources
}

/// Collects the top-level modules of all paths that begin at the crate root. `depth` is the number of modules around
/// the tokens.
pub fn names_from_the_crate(tokens: TokenStream, depth: usize, names: &mut BTreeSet<String>) {
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
pub fn first_names(after: &[TokenTree], names: &mut BTreeSet<String>) {
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

pub fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))
}

pub fn follows_colons(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_colons(tokens, at - 2)
}

pub fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// Collects every identifier.
pub fn identifiers(tokens: TokenStream, found: &mut BTreeSet<String>) {
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

/// Collects every path, with each member of a group as a separate path. Skips inline test modules.
pub fn paths(tokens: TokenStream, prefix: &[String], found: &mut Vec<Vec<String>>) {
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

/// Collects the literals. Skips inline test modules.
pub fn literals(tokens: TokenStream, found: &mut BTreeSet<String>) {
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

/// Collects the names of the structs and enums that other modules can see. Skips inline test modules.
pub fn visible_types(tokens: TokenStream, found: &mut Vec<String>) {
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

//! `targetwatch manual DIRECTORY`: writes the manual pages, for packages.
//!
//! All pages are generated from existing texts:
//!
//! - targetwatch(1) and the pages of its subcommands from the definition of the command line,
//! - targetwatch.toml(5) from the configuration sample,
//! - targetwatch-reasons(7) from the table of reason codes in `docs/troubleshooting.md`.
//!
//! Tests compare the sample and the table with the code.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::exit::ExitState;

const CONFIGURATION: &str = include_str!("../../systemd/config.toml");
const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");

/// Writes all pages of a command line into a directory.
///
/// # Errors
/// When a page cannot be written.
pub fn run(definition: clap::Command, directory: &Path) -> anyhow::Result<ExitState> {
    let written = |path: &Path| format!("cannot write manual pages to {}", path.display());
    clap_mangen::generate_to(definition, directory).with_context(|| written(directory))?;
    for (name, page) in [("targetwatch.toml.5", configuration_page()), ("targetwatch-reasons.7", reasons_page())] {
        write(&directory.join(name), &page).with_context(|| written(directory))?;
    }
    Ok(ExitState::Available)
}

#[allow(clippy::disallowed_methods, reason = "the directory belongs to the build of a package, not to storage")]
fn write(path: &PathBuf, page: &Roff) -> std::io::Result<()> {
    std::fs::write(path, page.render())
}

/// Begins a page: its title, and the line that apropos(1) finds.
fn page(name: &str, section: &str, purpose: &str) -> Roff {
    let mut page = Roff::new();
    let source = concat!("targetwatch ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name, section, "", source]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {purpose}"))]);
    page.control("SH", ["DESCRIPTION"]);
    page
}

/// Renders the configuration sample. Its explanations become paragraphs, and its keys and examples stay as they are.
fn configuration_page() -> Roff {
    let mut page = page("targetwatch.toml", "5", "configuration of targetwatch");
    let mut prose = String::new();
    let mut is_code = false;
    let end_prose = |page: &mut Roff, prose: &mut String| {
        if !prose.is_empty() {
            page.control("PP", []).text([roman(std::mem::take(prose))]);
        }
    };
    for line in CONFIGURATION.lines() {
        let line = SampleLine::parse(line);
        if is_code && !matches!(line, SampleLine::Code(_)) {
            end_code(&mut page);
            is_code = false;
        }
        match line {
            SampleLine::Heading(heading) => {
                page.control("SH", [heading]);
            }
            SampleLine::Prose(text) if prose.is_empty() => text.clone_into(&mut prose),
            SampleLine::Prose(text) => {
                prose.push(' ');
                prose.push_str(text);
            }
            SampleLine::Blank => end_prose(&mut page, &mut prose),
            SampleLine::Code(text) => {
                end_prose(&mut page, &mut prose);
                if !is_code {
                    page.control("RS", ["4"]).control("nf", []);
                    is_code = true;
                }
                page.text([bold(text)]);
            }
        }
    }
    end_prose(&mut page, &mut prose);
    if is_code {
        end_code(&mut page);
    }
    page.control("SH", ["SEE ALSO"]).text([bold("targetwatch"), roman("(1), "), bold("nfs"), roman("(5)")]);
    page
}

fn end_code(page: &mut Roff) {
    page.control("fi", []).control("RE", []);
}

/// A line of the configuration sample.
#[derive(Debug, PartialEq, Eq)]
enum SampleLine<'a> {
    Blank,
    /// `[section]`. An explanation above it is about the section.
    Heading(&'a str),
    Prose(&'a str),
    /// A key with its default, or an example.
    Code(&'a str),
}

impl<'a> SampleLine<'a> {
    fn parse(line: &'a str) -> Self {
        let Some(comment) = line.strip_prefix('#') else {
            return if line.is_empty() { Self::Blank } else { Self::Heading(line) };
        };
        let text = comment.strip_prefix(' ').unwrap_or(comment);
        let is_key =
            |word: &str| word.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
        // Prose may begin with a setting, and then ends with a period.
        let is_setting = text.split_once(" = ").is_some_and(|(word, value)| is_key(word) && !value.ends_with('.'));
        let is_example = text.starts_with("[[") || is_setting;
        let is_code = !comment.starts_with(' ') || comment.starts_with("  ") || is_example;
        match text {
            "" => Self::Blank,
            _ if is_code => Self::Code(text),
            _ => Self::Prose(text),
        }
    }
}

/// Renders the table of reason codes.
fn reasons_page() -> Roff {
    let mut page = page("targetwatch-reasons", "7", "reason codes of targetwatch and what to do about them");
    let introduction = "A target that is offline has one of these reasons. A reason marked *warning* leaves the target \
                        available. `targetwatch target show TARGET` prints the message of each check.";
    page.text(inline(introduction));
    for (reason, advice) in reasons() {
        page.control("TP", []).text([bold(reason)]).text(inline(advice));
    }
    page.control("SH", ["SEE ALSO"]).text([
        bold("targetwatch"),
        roman("(1), "),
        bold("targetwatch.toml"),
        roman("(5)"),
    ]);
    page
}

/// Returns each reason code with the text beside it.
fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    TROUBLESHOOTING
        .lines()
        .skip_while(|line| *line != "## Reason codes")
        .skip(1)
        .take_while(|line| !line.starts_with("##"))
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
}

/// Converts the Markdown of a table cell: code, emphasis and links.
fn inline(markdown: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    for (number, text) in markdown.split('`').enumerate() {
        if number % 2 == 1 {
            parts.push(bold(text));
            continue;
        }
        for (number, text) in text.split('*').enumerate() {
            parts.push(if number % 2 == 1 { italic(text) } else { roman(without_links(text)) });
        }
    }
    parts
}

/// Replaces each `[text](target)` by its text.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, name, after)) = rest.split_once('[').and_then(|(before, link)| {
        let (name, target) = link.split_once("](")?;
        Some((before, name, target.split_once(')')?.1))
    }) {
        text.push_str(before);
        text.push_str(name);
        rest = after;
    }
    text + rest
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "files in a temporary directory")]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn every_reason_has_an_entry_in_the_manual() {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(reasons().map(|(reason, _)| reason).collect::<Vec<_>>(), known);
        let page = reasons_page().render();
        for reason in known {
            assert!(page.contains(&format!(".TP\n\\fB{}\\fR\n", reason.replace('-', "\\-"))), "{reason}");
        }
        assert!(!page.contains('`') && !page.contains("]("), "no Markdown is left: {page}");
    }

    #[test]
    fn every_section_of_the_configuration_is_a_section_of_the_manual() {
        let page = configuration_page().render();
        for section in CONFIGURATION.lines().filter(|line| line.starts_with('[')) {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}");
        }
        for example in ["nfs_interval = \"10s\"", "[[target]]", "ca_bundle = \"/etc/targetwatch/keystone\\-ca.pem\""] {
            assert!(page.contains(&format!("\n\\fB{example}\\fR\n")), "{example}: {page}");
        }
        assert!(!page.contains("\n\\fB# "), "no comment character is left: {page}");
        assert_eq!(page.matches(".nf\n").count(), page.matches(".fi\n").count(), "{page}");
    }

    #[test]
    fn lines_of_the_configuration_are_classified() {
        for (line, expected) in [
            ("", SampleLine::Blank),
            ("#", SampleLine::Blank),
            ("[api.token]", SampleLine::Heading("[api.token]")),
            ("# Mount options as in nfs(5).", SampleLine::Prose("Mount options as in nfs(5).")),
            ("#enabled = true", SampleLine::Code("enabled = true")),
            ("# file = \"/etc/x\"", SampleLine::Code("file = \"/etc/x\"")),
            ("# auth = \"none\".", SampleLine::Prose("auth = \"none\".")),
            ("# [[target]]", SampleLine::Code("[[target]]")),
            ("#      # aligned", SampleLine::Code("     # aligned")),
        ] {
            assert_eq!(SampleLine::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn each_subcommand_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        run(super::super::definition(), directory.path()).expect("written");
        let exists = |name: &str| directory.path().join(name).metadata().is_ok_and(|metadata| metadata.len() > 0);
        for page in ["targetwatch.1", "targetwatch-status.1", "targetwatch-target-create-nfs.1", "targetwatch.toml.5"] {
            assert!(exists(page), "{page}");
        }
        assert!(!exists("targetwatch-manual.1"), "hidden");
    }
}

//! Metrics and labels that a PromQL expression names.
//!
//! promtool verifies the syntax. This scanner only finds the selectors in a valid expression, or in a line of an
//! exposition, which has the same form.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// Words before a list of labels in parentheses.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that are not metrics. Those before a parenthesis, such as functions, are not in the list.
const KEYWORDS: [&str; 13] =
    ["and", "or", "unless", "bool", "offset", "sum", "count", "min", "max", "avg", "topk", "bottomk", "Inf"];

/// A metric and the labels that a selector names.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub labels: BTreeSet<String>,
}

/// The selectors of an expression.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(letter) = rest.peek().copied() {
        if is_name(letter) && !letter.is_ascii_digit() {
            let word = take_while(&mut rest, is_name);
            take_while(&mut rest, char::is_whitespace);
            let next = rest.peek().copied();
            if BEFORE_LABELS.contains(&word.as_str()) {
                skip_past(&mut rest, ')');
            } else if next != Some('(') && !KEYWORDS.contains(&word.as_str()) {
                let labels = if next == Some('{') { labels(&mut rest) } else { BTreeSet::new() };
                found.push(Selector { metric: word, labels });
            }
            continue;
        }
        if letter.is_ascii_digit() {
            take_while(&mut rest, |letter| letter.is_ascii_alphanumeric() || letter == '.');
        } else if letter == '[' {
            skip_past(&mut rest, ']');
        } else if matches!(letter, '"' | '\'' | '`') {
            skip_string(&mut rest);
        } else {
            rest.next();
        }
    }
    found
}

/// The names of the labels between braces.
fn labels(rest: &mut Peekable<Chars<'_>>) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    while let Some(letter) = rest.peek().copied() {
        if is_name(letter) {
            labels.insert(take_while(rest, is_name));
        } else if matches!(letter, '"' | '\'') {
            skip_string(rest);
        } else {
            rest.next();
            if letter == '}' {
                break;
            }
        }
    }
    labels
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

fn take_while(rest: &mut Peekable<Chars<'_>>, is_part: impl Fn(char) -> bool) -> String {
    std::iter::from_fn(|| rest.next_if(|letter| is_part(*letter))).collect()
}

fn skip_past(rest: &mut Peekable<Chars<'_>>, end: char) {
    rest.find(|letter| *letter == end);
}

fn skip_string(rest: &mut Peekable<Chars<'_>>) {
    let quote = rest.next();
    while let Some(letter) = rest.next() {
        if letter == '\\' && quote != Some('`') {
            rest.next();
        } else if Some(letter) == quote {
            break;
        }
    }
}

#[test]
fn selectors_are_found_in_every_kind_of_expression() {
    let found = |expression: &str| {
        let found = selectors(expression).into_iter();
        let found = found.map(|selector| format!("{}{:?}", selector.metric, selector.labels).replace(['"', ' '], ""));
        found.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(r#"sum by (a, b) (rate(x_total{c="}",d=~'e'}[5m])) * 2.5e3"#), "x_total{c,d}");
    assert_eq!(found("a:b:c / -(deriv(d[1d]) < 0) and on () group_left () e"), "a:b:c{} d{} e{}");
    assert_eq!(found(r#"up{job="x"} == bool 1 offset 5m or vector(0) unless z"#), "up{job} z{}");
    assert_eq!(found(r#"a{b="c\"{d}\\"} +Inf"#), "a{b}");
}

//! Check that an answer is well-formed XML to its end.
//!
//! The SDK stops at the first text between two elements that is not a tag, and treats what it has read as the whole
//! document. A damaged list then looks complete, and a damaged configuration looks disabled. So this check reads the
//! answer again, with the tokenizer of the SDK.

use xmlparser::{ElementEnd, Token, Tokenizer};

/// Deepest nesting of elements in an answer. Those of S3 have at most 4.
pub const TAGS_DEPTH_MAX: usize = 16;

/// Returns whether the body is one complete element, in which each tag is closed.
pub(super) fn is_well_formed(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let (mut open, mut roots) = (Vec::new(), 0_usize);
    for token in Tokenizer::from(text) {
        match token {
            Err(_) => return false,
            Ok(Token::ElementStart { prefix, local, .. }) => {
                roots += usize::from(open.is_empty());
                open.push((prefix.as_str(), local.as_str()));
            }
            Ok(Token::ElementEnd { end: ElementEnd::Empty, .. }) => {
                open.pop();
            }
            Ok(Token::ElementEnd { end: ElementEnd::Close(prefix, local), .. }) => {
                if open.pop() != Some((prefix.as_str(), local.as_str())) {
                    return false;
                }
            }
            Ok(_) => {}
        }
        if open.len() > TAGS_DEPTH_MAX {
            return false;
        }
    }
    roots == 1 && open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<s:L xmlns:s=\"u\" a='>'><V><K>a&amp;b</K></V><E/>\
                        <T><![CDATA[<]]></T><!-- c --></s:L>\n";

    #[test]
    fn truncated_list_is_not_well_formed() {
        assert!(is_well_formed(LIST.as_bytes()));
        let whole = LIST.trim_end().len();
        for end in 0..whole {
            assert!(!is_well_formed(&LIST.as_bytes()[..end]), "{}", &LIST[..end]);
        }
    }

    #[test]
    fn damaged_or_trailing_content_is_not_well_formed() {
        for damaged in [
            "<L><V></L></V>",
            "<L></V>",
            "<L><V/></L><L/>",
            "<L><V/></L>more",
            "<L><V/>\u{0}</L>",
            "<L><V/>< V/></L>",
            "<L><V/></s:L>",
            "text",
        ] {
            assert!(!is_well_formed(damaged.as_bytes()), "{damaged}");
        }
        assert!(!is_well_formed(b"<L>\xff</L>"));
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(
            is_well_formed(nested(TAGS_DEPTH_MAX).as_bytes()) && !is_well_formed(nested(TAGS_DEPTH_MAX + 1).as_bytes())
        );
    }
}

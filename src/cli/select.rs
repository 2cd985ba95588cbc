//! Selection of one item of a list by id, name, or the beginning of an id.

use anyhow::bail;

/// Item of a list.
pub(super) trait Selectable {
    /// Noun for error messages.
    const NOUN: &'static str;
    /// Command that lists all items.
    const LIST_COMMAND: &'static str;

    /// Returns the id of the item.
    fn id(&self) -> &str;

    /// Reports whether `text` is a name of the item.
    fn is_named(&self, text: &str) -> bool;
}

/// Returns the item that `text` selects: by its id, else by name, else by the beginning of its id.
///
/// Ids take precedence, because an item may have the id of another item as its name.
///
/// # Errors
/// When `text` selects no item or several items.
pub(super) fn one<T: Selectable>(items: Vec<T>, text: &str) -> anyhow::Result<T> {
    let (mut candidates, mut others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.id() == text);
    if candidates.is_empty() {
        (candidates, others) = others.into_iter().partition(|item| item.is_named(text));
    }
    if candidates.is_empty() && !text.is_empty() {
        candidates = others.into_iter().filter(|item| item.id().starts_with(text)).collect();
    }
    match (candidates.pop(), candidates.is_empty()) {
        (Some(item), true) => Ok(item),
        (Some(_), false) => bail!("{text:?} matches several {}s. Give the whole id (`{}`)", T::NOUN, T::LIST_COMMAND),
        (None, _) => bail!("there is no {} {text:?}. List them with `{}`", T::NOUN, T::LIST_COMMAND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Item(&'static str, &'static str);

    impl Selectable for Item {
        const NOUN: &'static str = "item";
        const LIST_COMMAND: &'static str = "item list";

        fn id(&self) -> &str {
            self.0
        }

        fn is_named(&self, text: &str) -> bool {
            self.1 == text
        }
    }

    #[test]
    fn item_is_selected_by_id_then_name_then_beginning_of_id() {
        let items = || vec![Item("ab12", "nightly"), Item("ab34", "ab1"), Item("cd56", "ab12")];
        for (text, id) in [("ab12", "ab12"), ("ab3", "ab34"), ("nightly", "ab12"), ("ab1", "ab34")] {
            assert_eq!(one(items(), text).expect(text).id(), id);
        }
        assert!(one(items(), "ab").expect_err("two").to_string().contains("matches several items"));
        assert!(one(items(), "x").expect_err("none").to_string().contains("item list"));
        assert!(one(items(), "").is_err());
    }
}

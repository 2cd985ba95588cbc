//! A rendered list: its bytes, and the place of each item in them.
//!
//! A target changes at each probe, so a list of a thousand targets changes a hundred times a second. A new
//! list copies the bytes of each item that is unchanged, at the same position, from the previous list.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use crate::api::json_answer::JsonAnswer;
use crate::api::pieces::{PiecesBuilder, Place};

/// A list as JSON: an object with a key above the list.
pub(super) struct RenderedList<T> {
    /// Its tag is a hash of those of the items. Lists that differ only in what does not count have the same one.
    pub(super) json: JsonAnswer,
    parts: Vec<Part<T>>,
}

/// One item, rendered.
pub(in crate::api) struct RenderedItem {
    /// Its JSON.
    pub(in crate::api) bytes: Vec<u8>,
    /// Hash of what the tag of the list depends on.
    pub(in crate::api) hash: u64,
}

impl From<Vec<u8>> for RenderedItem {
    fn from(bytes: Vec<u8>) -> Self {
        Self { hash: hash_of(&bytes), bytes }
    }
}

/// One item of a list.
struct Part<T> {
    /// Keeps the address occupied, so that another item never has it, but frees the content of a former item.
    item: Weak<T>,
    place: Place,
    hash: u64,
}

impl<T> RenderedList<T> {
    /// Renders a list, and reuses the parts of `previous` whose items are the same. The answer has the list below
    /// `key`, and the fields of `more`, each after a comma.
    pub(super) fn new<I: Into<RenderedItem>>(
        (key, more): (&str, &str),
        items: &[&Arc<T>],
        previous: Option<&Self>,
        render: impl Fn(&T) -> serde_json::Result<I>,
    ) -> serde_json::Result<Self> {
        let mut body = PiecesBuilder::with_capacity(previous.map_or(0, |list| list.json.body.len() / 8 * 9));
        body.push(format!("{{\"{key}\":[").as_bytes());
        let mut parts = Vec::with_capacity(items.len());
        let mut hasher = DefaultHasher::new();
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                body.push(b",");
            }
            let unchanged = previous.and_then(|list| list.part(index, item));
            let (place, hash) = match unchanged {
                Some((bytes, hash)) => (body.push(bytes), hash),
                None => {
                    let RenderedItem { bytes, hash } = render(item)?.into();
                    (body.push(&bytes), hash)
                }
            };
            hash.hash(&mut hasher);
            parts.push(Part { item: Arc::downgrade(item), place, hash });
        }
        body.push(b"]");
        if !more.is_empty() {
            body.push(more.as_bytes());
            more.hash(&mut hasher);
        }
        body.push(b"}");
        Ok(Self { json: JsonAnswer::new(body.finish(), hasher.finish()), parts })
    }

    /// Size of the body and of the compressed body, if there is one, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.json.bytes()
    }

    /// Bytes and hash of the item at this index, if it is this one.
    fn part(&self, index: usize, item: &Arc<T>) -> Option<(&[u8], u64)> {
        let part = self.parts.get(index).filter(|part| std::ptr::eq(part.item.as_ptr(), Arc::as_ptr(item)))?;
        Some((self.json.body.at(&part.place)?, part.hash))
    }
}

pub(in crate::api) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(items: &[Arc<String>], previous: Option<&RenderedList<String>>) -> (RenderedList<String>, usize) {
        let rendered = Cell::new(0);
        let items: Vec<_> = items.iter().collect();
        let list = RenderedList::new(("names", ""), &items, previous, |item| {
            rendered.set(rendered.get() + 1);
            serde_json::to_vec(item)
        });
        (list.expect("JSON"), rendered.get())
    }

    fn body_text(list: &RenderedList<String>) -> String {
        String::from_utf8(list.json.body.pieces().iter().flatten().copied().collect()).expect("text")
    }

    fn change() -> impl Strategy<Value = (u8, prop::sample::Index, String)> {
        (0_u8..4, any::<prop::sample::Index>(), ".{0,6}")
    }

    proptest! {
        #[test]
        fn list_with_reused_parts_has_the_bytes_of_a_new_list(changes in prop::collection::vec(change(), 0..40)) {
            let mut items: Vec<Arc<String>> = Vec::new();
            let mut previous = None;
            for (kind, index, text) in changes {
                match kind {
                    0 => items.insert(index.index(items.len() + 1), Arc::new(text)),
                    _ if items.is_empty() => {}
                    1 => drop(items.remove(index.index(items.len()))),
                    2 => { let at = index.index(items.len()); items[at] = Arc::new(text); }
                    _ => { let at = index.index(items.len()); items.swap(0, at); }
                }
                let (list, _) = render(&items, previous.as_ref());
                let (anew, _) = render(&items, None);
                let expected = json!({ "names": items.iter().map(|item| item.as_str()).collect::<Vec<_>>() });
                prop_assert_eq!(body_text(&list), expected.to_string());
                prop_assert_eq!((body_text(&list), &list.json.etag), (body_text(&anew), &anew.json.etag));
                previous = Some(list);
            }
        }
    }

    #[test]
    fn further_field_is_in_the_answer_and_in_its_tag() {
        let list = |more| {
            let list = RenderedList::new(("names", more), &[&Arc::new("a".to_owned())], None, serde_json::to_vec);
            list.expect("JSON")
        };
        let (plain, one, other) = (list(""), list(",\"more\":1"), list(",\"more\":2"));
        assert_eq!(body_text(&one), r#"{"names":["a"],"more":1}"#);
        assert!(plain.json.etag != one.json.etag && one.json.etag != other.json.etag);
    }

    #[test]
    fn only_changed_items_are_rendered_again() {
        let mut items: Vec<_> = ["a", "b", "c"].map(|text| Arc::new(text.to_owned())).into();
        let (first, rendered) = render(&items, None);
        assert_eq!(rendered, 3);
        items[1] = Arc::new("d".to_owned());
        let (second, rendered) = render(&items, Some(&first));
        assert_eq!((rendered, body_text(&second)), (1, r#"{"names":["a","d","c"]}"#.to_owned()));
        assert_ne!(first.json.etag, second.json.etag);
        items[1] = Arc::new("b".to_owned());
        assert_eq!(render(&items, Some(&second)).0.json.etag, first.json.etag, "the tag depends on the content alone");
    }
}

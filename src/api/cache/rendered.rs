//! A rendered list: its bytes in groups of items, each with its own memory.
//!
//! A target changes at each probe, so a list of a thousand targets changes a hundred times a second. While the number
//! of items stays the same, a new list shares each group that has no changed item with the previous list. Elsewhere,
//! it copies the bytes of each item that is unchanged and at the same position.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Weak};

use axum::body::Bytes;

use crate::api::json_answer::JsonAnswer;
use crate::api::pieces::PIECE_BYTES;

/// Size up to which a new group is filled, in bytes. The rest of its piece is for items that become longer.
const FILLED_BYTES: usize = PIECE_BYTES / 8 * 7;

/// A list as JSON: an object with a key above the list.
pub(super) struct RenderedList<T> {
    /// Its tag is a hash of those of the items. Lists that differ only in what does not count have the same one.
    pub(super) json: JsonAnswer,
    /// Each is a piece of the answer.
    groups: Vec<Arc<Group<T>>>,
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

/// Consecutive items, with all bytes of the answer up to the next group.
struct Group<T> {
    bytes: Bytes,
    parts: Vec<Part<T>>,
}

/// One item of a list.
struct Part<T> {
    /// Keeps the address occupied, so that another item never has it, but frees the content of a former item.
    item: Weak<T>,
    /// Its bytes in the group.
    range: Range<usize>,
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
        let render = |item: &T| render(item).map(Into::into);
        let (begin, end) = (format!("{{\"{key}\":["), format!("]{more}}}"));
        let with_as_many_items = previous.filter(|list| list.parts().count() == items.len());
        let groups = match with_as_many_items {
            Some(previous) => previous.changed(&begin, &end, items, &render)?,
            None => None,
        };
        let groups = match groups {
            Some(groups) => groups,
            None => laid_out(&begin, &end, items, previous, &render)?,
        };
        let mut hasher = DefaultHasher::new();
        let parts = groups.iter().flat_map(|group| &group.parts);
        parts.for_each(|part| part.hash.hash(&mut hasher));
        more.hash(&mut hasher);
        let body = groups.iter().map(|group| group.bytes.clone()).collect();
        Ok(Self { json: JsonAnswer::new(body, hasher.finish()), groups })
    }

    /// Size of the body and of the compressed body, if there is one, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.json.bytes()
    }

    /// The parts, each with its group.
    fn parts(&self) -> impl Iterator<Item = (&Group<T>, &Part<T>)> {
        self.groups.iter().flat_map(|group| group.parts.iter().map(move |part| (&**group, part)))
    }

    /// Returns the groups of a list of these items, and renders those that are not in this list. The number of items is
    /// that of this list. `None` if a changed group does not fit into its piece.
    fn changed(
        &self,
        begin: &str,
        end: &str,
        mut items: &[&Arc<T>],
        render: &impl Fn(&T) -> serde_json::Result<RenderedItem>,
    ) -> serde_json::Result<Option<Vec<Arc<Group<T>>>>> {
        let mut groups = Vec::with_capacity(self.groups.len());
        for (index, former) in self.groups.iter().enumerate() {
            let (here, rest) = items.split_at(former.parts.len());
            items = rest;
            if former.parts.iter().zip(here).all(|(part, item)| part.is_of(item)) {
                groups.push(former.clone());
                continue;
            }
            let mut group = GroupBuilder::new(if index == 0 { begin } else { "," }, former.bytes.len());
            for (part, item) in former.parts.iter().zip(here) {
                group.push(item, &rendered(Some((former, part)), item, render)?);
            }
            if rest.is_empty() {
                group.bytes.extend_from_slice(end.as_bytes());
            }
            if group.bytes.len() > PIECE_BYTES && group.parts.len() > 1 {
                return Ok(None);
            }
            groups.push(group.finish());
        }
        Ok(Some(groups))
    }
}

/// Returns new groups for a list.
fn laid_out<T>(
    begin: &str,
    end: &str,
    items: &[&Arc<T>],
    previous: Option<&RenderedList<T>>,
    render: &impl Fn(&T) -> serde_json::Result<RenderedItem>,
) -> serde_json::Result<Vec<Arc<Group<T>>>> {
    let mut former = previous.into_iter().flat_map(RenderedList::parts);
    let mut groups = Vec::new();
    let mut group = GroupBuilder::new(begin, 0);
    for item in items {
        let part = rendered(former.next(), item, render)?;
        if !group.parts.is_empty() && group.bytes.len() + part.0.len() + end.len() >= FILLED_BYTES {
            let length = group.bytes.len();
            groups.push(std::mem::replace(&mut group, GroupBuilder::new(",", length)).finish());
        }
        group.push(item, &part);
    }
    group.bytes.extend_from_slice(end.as_bytes());
    groups.push(group.finish());
    Ok(groups)
}

/// Returns the bytes and the hash of an item: those of a former part, if that is of the same item.
fn rendered<'a, T>(
    former: Option<(&'a Group<T>, &'a Part<T>)>,
    item: &Arc<T>,
    render: &impl Fn(&T) -> serde_json::Result<RenderedItem>,
) -> serde_json::Result<(Cow<'a, [u8]>, u64)> {
    let unchanged = former.filter(|(_, part)| part.is_of(item));
    match unchanged.and_then(|(group, part)| Some((group.bytes.get(part.range.clone())?, part.hash))) {
        Some((bytes, hash)) => Ok((bytes.into(), hash)),
        None => render(item).map(|item| (item.bytes.into(), item.hash)),
    }
}

impl<T> Part<T> {
    fn is_of(&self, item: &Arc<T>) -> bool {
        std::ptr::eq(self.item.as_ptr(), Arc::as_ptr(item))
    }
}

/// Builds a [`Group`].
struct GroupBuilder<T> {
    bytes: Vec<u8>,
    parts: Vec<Part<T>>,
}

impl<T> GroupBuilder<T> {
    /// A group that begins with this text, and has approximately this number of bytes.
    fn new(begin: &str, bytes: usize) -> Self {
        let mut group = Self { bytes: Vec::with_capacity(bytes), parts: Vec::new() };
        group.bytes.extend_from_slice(begin.as_bytes());
        group
    }

    fn push(&mut self, item: &Arc<T>, (bytes, hash): &(Cow<'_, [u8]>, u64)) {
        if !self.parts.is_empty() {
            self.bytes.push(b',');
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.parts.push(Part { item: Arc::downgrade(item), range: start..self.bytes.len(), hash: *hash });
    }

    fn finish(mut self) -> Arc<Group<T>> {
        self.bytes.shrink_to_fit();
        self.parts.shrink_to_fit();
        Arc::new(Group { bytes: self.bytes.into(), parts: self.parts })
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

    fn texts(items: &[Arc<String>]) -> Vec<&str> {
        items.iter().map(|item| item.as_str()).collect()
    }

    fn body_text(list: &RenderedList<String>) -> String {
        String::from_utf8(list.json.body.pieces().concat()).expect("text")
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
                let expected = json!({ "names": texts(&items) });
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
    fn groups_without_a_changed_item_are_shared_and_stay_within_their_piece() {
        let mut items: Vec<_> = (0..1000).map(|number| Arc::new(format!("{number:0>300}"))).collect();
        let (mut list, _) = render(&items, None);
        let pieces = list.groups.len();
        assert!((5..=6).contains(&pieces), "{pieces}");
        // The items of the second piece become longer, until it is full and the list is laid out again.
        let mut is_laid_out = false;
        for at in 180..360 {
            items[at] = Arc::new("x".repeat(400));
            let (next, rendered) = render(&items, Some(&list));
            let shared = next.groups.iter().filter(|group| list.groups.iter().any(|former| Arc::ptr_eq(group, former)));
            let shared = shared.count();
            assert!(shared == pieces - 1 || (shared == 0 && !is_laid_out), "{shared} of {pieces} are shared");
            is_laid_out |= shared == 0;
            assert_eq!(rendered, if shared == 0 { 2 } else { 1 });
            assert!(next.groups.iter().all(|group| group.bytes.len() <= PIECE_BYTES));
            assert_eq!(body_text(&next), json!({ "names": texts(&items) }).to_string());
            list = next;
            if is_laid_out {
                break;
            }
        }
        assert!(is_laid_out);
        let (anew, _) = render(&items, None);
        assert_eq!((body_text(&list), list.json.etag), (body_text(&anew), anew.json.etag));
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

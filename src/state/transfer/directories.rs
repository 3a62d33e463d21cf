//! Decides what an import does with a directory: one that the store lacks is copied, and one that an earlier import of
//! the same store created is updated. A directory that has changed in its new place since then stays, because two changed
//! ones cannot be merged.

use std::collections::HashMap;

use super::DirectoryLine;
use crate::state::directory::{DirectoryEntry, DirectoryNews, DirectoryRevision};

/// What an import does with a directory.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::state) enum DirectoryImport {
    /// Nothing, because it already has the same content.
    Same,
    /// Nothing, although the file contains another one.
    Kept,
    /// Changes it from this revision by these entries.
    Change(DirectoryRevision, Vec<DirectoryEntry>),
}

impl DirectoryLine {
    /// Compares the copied directory with that of the store. `imported` is the revision that an earlier import from the
    /// same store left, if there was one.
    pub(in crate::state) fn onto(
        &self,
        held: Option<&DirectoryNews>,
        imported: Option<u64>,
    ) -> DirectoryImport {
        let copied = self.entries.iter();
        let copied: HashMap<&str, &str> = copied.map(|(key, body)| (key.as_str(), body.as_str())).collect();
        let nothing =
            DirectoryNews { revision: DirectoryRevision::default(), is_whole: true, entries: Vec::new() };
        let DirectoryNews { revision, entries, .. } = held.unwrap_or(&nothing);
        let known: HashMap<&str, &str> =
            entries.iter().filter_map(|entry| Some((&*entry.key, entry.body.as_deref()?))).collect();
        let is_older = self.revision < revision.number;
        if known == copied && revision.number > 0 {
            DirectoryImport::Same
        } else if revision.number > 0 && (imported != Some(revision.number) || is_older) {
            DirectoryImport::Kept
        } else {
            let put = copied.iter().filter(|(key, body)| known.get(*key) != Some(*body));
            let put =
                put.map(|(key, body)| DirectoryEntry { key: (*key).into(), body: Some((*body).into()) });
            let gone = known.keys().filter(|key| !copied.contains_key(*key));
            let gone = gone.map(|key| DirectoryEntry { key: (*key).into(), body: None });
            DirectoryImport::Change(revision.clone(), put.chain(gone).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, body: Option<&str>) -> DirectoryEntry {
        DirectoryEntry { key: key.into(), body: body.map(Into::into) }
    }

    fn at(number: u64) -> DirectoryRevision {
        DirectoryRevision { number, token: "t".into() }
    }

    #[test]
    fn a_directory_is_replaced_only_where_an_import_left_it_and_the_copy_is_newer() {
        let text = |(key, body): (&str, &str)| (key.to_owned(), body.to_owned());
        let copied = |revision: u64| DirectoryLine {
            name: "idp".to_owned(),
            revision,
            entries: [("a", "1"), ("b", "3")].map(text).into(),
        };
        let held = |number: u64, b: &str| DirectoryNews {
            revision: at(number),
            is_whole: true,
            entries: vec![entry("a", Some("1")), entry("b", Some(b)), entry("c", Some("4"))],
        };
        let newer = DirectoryImport::Change(at(4), vec![entry("b", Some("3")), entry("c", None)]);
        assert_eq!(copied(4).onto(Some(&held(4, "2")), Some(4)), newer);
        assert_eq!(copied(9).onto(Some(&held(4, "2")), Some(4)), newer);
        for (revision, imported) in [(3, Some(4)), (9, Some(3)), (9, None)] {
            let result = copied(revision).onto(Some(&held(4, "2")), imported);
            assert_eq!(result, DirectoryImport::Kept, "{revision} {imported:?}");
        }
        let same =
            DirectoryNews { entries: vec![entry("a", Some("1")), entry("b", Some("3"))], ..held(4, "3") };
        assert_eq!(copied(9).onto(Some(&same), None), DirectoryImport::Same);
        let DirectoryImport::Change(from, mut entries) = copied(9).onto(None, None) else { panic!("copied") };
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        assert_eq!((from, entries), (DirectoryRevision::default(), same.entries));
        let empty = DirectoryLine { entries: Vec::new(), ..copied(1) };
        let created = DirectoryImport::Change(DirectoryRevision::default(), Vec::new());
        assert_eq!(empty.onto(None, None), created, "it was there, and has nobody in it");
    }
}

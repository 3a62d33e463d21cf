//! The subjects for which a transmitter is asked to send signals (SSF 1.0 §8.1.3). Bounded.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// The most subjects that are remembered, so that a recreated stream gets them again and no subject is added twice.
const MOST: usize = 100_000;

/// Subjects that were added, and those that are waiting.
#[derive(Debug, Default)]
pub(super) struct StreamSubjects {
    known: HashSet<Arc<str>>,
    /// The known subjects, oldest first.
    order: VecDeque<Arc<str>>,
    waiting: VecDeque<Arc<str>>,
}

impl StreamSubjects {
    /// Records that a token of this subject was seen.
    pub(super) fn seen(&mut self, subject: &str) {
        self.seen_at_most(subject, MOST);
    }

    fn seen_at_most(&mut self, subject: &str, most: usize) {
        if self.known.contains(subject) {
            return;
        }
        if self.order.len() >= most
            && let Some(oldest) = self.order.pop_front()
        {
            // It will be added again with its next new token, which is harmless.
            self.known.remove(&oldest);
            self.waiting.retain(|subject| *subject != oldest);
        }
        let subject: Arc<str> = subject.into();
        self.known.insert(Arc::clone(&subject));
        self.order.push_back(Arc::clone(&subject));
        self.waiting.push_back(subject);
    }

    /// Returns the next subject to add.
    pub(super) fn next(&self) -> Option<&Arc<str>> {
        self.waiting.front()
    }

    /// Removes a subject that was added, or that the transmitter rejected.
    pub(super) fn done(&mut self, subject: &str) {
        if self.waiting.front().is_some_and(|next| **next == *subject) {
            self.waiting.pop_front();
        }
    }

    /// Queues all subjects again, because the stream is new.
    pub(super) fn again(&mut self) {
        self.waiting.clone_from(&self.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(subjects: &StreamSubjects) -> Vec<&str> {
        subjects.waiting.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn each_subject_is_added_once_and_again_to_a_new_stream() {
        let mut subjects = StreamSubjects::default();
        ["a", "b", "a"].iter().for_each(|subject| subjects.seen(subject));
        assert_eq!(waiting(&subjects), ["a", "b"]);
        subjects.done("b");
        assert_eq!(waiting(&subjects), ["a", "b"], "not the next one");
        subjects.done("a");
        subjects.seen("a");
        assert_eq!(waiting(&subjects), ["b"]);
        subjects.again();
        assert_eq!(waiting(&subjects), ["a", "b"]);
        assert_eq!(subjects.next().map(AsRef::as_ref), Some("a"));
    }

    #[test]
    fn the_oldest_leaves_when_there_are_too_many() {
        let mut subjects = StreamSubjects::default();
        ["a", "b", "c"].iter().for_each(|subject| subjects.seen_at_most(subject, 2));
        assert_eq!(waiting(&subjects), ["b", "c"]);
        assert_eq!((subjects.known.len(), subjects.order.len()), (2, 2));
        subjects.seen_at_most("a", 2);
        assert_eq!(waiting(&subjects), ["c", "a"]);
    }
}

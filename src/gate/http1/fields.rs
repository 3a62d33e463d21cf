//! Where the fields of a head are, while it arrives.

use std::cell::Cell;
use std::mem;
use std::ops::Range;

thread_local! {
    /// Room for the fields of the next head. It belongs to the worker, because most connections are idle.
    static SPARE: Cell<Vec<FieldPosition>> = const { Cell::new(Vec::new()) };
}

/// The position of a field in the head.
#[derive(Debug)]
pub(super) struct FieldPosition {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// The fields of a head so far. Takes its memory from the worker with the first field, and gives it back on drop.
#[derive(Debug, Default)]
pub(super) struct FieldPositions(Vec<FieldPosition>);

impl FieldPositions {
    pub(super) fn push(&mut self, field: FieldPosition) {
        if self.0.is_empty() {
            self.0 = SPARE.take();
        }
        self.0.push(field);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &FieldPosition> {
        self.0.iter()
    }
}

impl Drop for FieldPositions {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let mut fields = mem::take(&mut self.0);
            fields.clear();
            // An error means that the worker ends.
            SPARE.try_with(|spare| spare.set(fields)).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_from_one_head_to_the_next() {
        let fill = |count: usize| {
            let mut fields = FieldPositions::default();
            (0..count).for_each(|at| fields.push(FieldPosition { name: at..at, value: at..at }));
            fields
        };
        let room = || {
            SPARE.with(|spare| {
                let fields = spare.take();
                let capacity = fields.capacity();
                assert!(fields.is_empty());
                spare.set(fields);
                capacity
            })
        };
        let first = fill(50);
        assert_eq!((first.len(), first.iter().count(), room()), (50, 50, 0));
        drop(first);
        let kept = room();
        assert!(kept >= 50);
        let (second, third) = (fill(1), fill(2));
        assert_eq!((second.0.capacity(), third.len(), room()), (kept, 2, 0));
        drop(FieldPositions::default());
        assert_eq!(room(), 0, "an empty list has nothing to give");
    }
}

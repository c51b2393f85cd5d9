//! Owns a queue that gives back the memory that it needed for a peak.
//! Must not know what is in it.

use std::collections::VecDeque;
use std::ops::{Deref, Index, IndexMut};

/// Elements whose memory is kept in any case.
const KEPT: usize = 16;

/// A [`VecDeque`] whose capacity is at most four times its length, or 16 elements: when less than a quarter of it is used after a
/// removal, it becomes twice the length. So the elements are copied again only after their number has halved.
///
/// It is for queues of which there are many, one for each lane or partition: what each of them needed in an outage adds up.
#[derive(Debug, Clone)]
pub struct Queue<T>(VecDeque<T>);

impl<T> Queue<T> {
    /// Without elements, and without memory.
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, element: T) {
        self.0.push_back(element);
    }

    /// Removes the first element.
    pub fn pop_front(&mut self) -> Option<T> {
        let element = self.0.pop_front();
        self.release();
        element
    }

    /// Removes the element at this place.
    pub fn remove(&mut self, place: usize) -> Option<T> {
        let element = self.0.remove(place);
        self.release();
        element
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        self.0.clear();
        self.release();
    }

    /// The first element.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.0.front_mut()
    }

    /// All elements, the first one first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    fn release(&mut self) {
        if self.0.capacity() > KEPT && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to((2 * self.0.len()).max(KEPT));
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Queue<T> {
    type Target = VecDeque<T>;

    fn deref(&self) -> &VecDeque<T> {
        &self.0
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.0[place]
    }
}

impl<T> IndexMut<usize> for Queue<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.0[place]
    }
}

impl<T> Extend<T> for Queue<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        self.0.extend(elements);
    }
}

impl<T> FromIterator<T> for Queue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self(elements.into_iter().collect())
    }
}

impl<T> From<Queue<T>> for Vec<T> {
    fn from(queue: Queue<T>) -> Self {
        queue.0.into()
    }
}

impl<T> IntoIterator for Queue<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_back_what_a_peak_needed() {
        let is_small = |queue: &Queue<u64>| queue.capacity() <= KEPT.max(4 * queue.len() + 4);
        let mut queue: Queue<u64> = (0..10_000).collect();
        let mut copies = 0;
        while queue.len() > 3 {
            let before = queue.capacity();
            if queue.len().is_multiple_of(2) {
                queue.pop_front()
            } else {
                queue.remove(0)
            };
            copies += usize::from(queue.capacity() != before);
            assert!(is_small(&queue), "{} of {}", queue.len(), queue.capacity());
        }
        assert!(copies <= 14, "it was copied {copies} times");
        assert_eq!(Vec::from(queue.clone()), [9_997, 9_998, 9_999]);
        queue.extend(0..10_000);
        queue.clear();
        assert!(is_small(&queue));
    }

    #[test]
    fn a_queue_that_is_filled_and_emptied_is_not_copied() {
        let mut queue: Queue<usize> = (0..KEPT).collect();
        let before = queue.capacity();
        for _ in 0..100 {
            while queue.pop_front().is_some() {}
            queue.extend(0..KEPT);
        }
        assert_eq!(queue.capacity(), before);
    }
}

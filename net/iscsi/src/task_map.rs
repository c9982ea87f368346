//! What is kept of open tasks, by their tags in rising order, in memory that stays: a task that begins takes the place of one that ended.
//! An entry is looked for, and moved when others come and go, by its tag alone; what is kept of it stays where it is.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::protocol::TaskId;

/// See the module. As large as the most tasks that were ever open at once.
#[derive(Debug)]
pub struct TaskMap<V> {
    /// Full boxes, by tag.
    open: Vec<(TaskId, Box<Option<V>>)>,
    /// Empty ones.
    spare: Vec<Box<Option<V>>>,
}

const FULL: &str = "what is open is full";

impl<V> Default for TaskMap<V> {
    fn default() -> Self {
        Self { open: Vec::new(), spare: Vec::new() }
    }
}

impl<V> TaskMap<V> {
    fn place(&self, task: TaskId) -> Result<usize, usize> {
        // Tags rise: a new one is mostly the last.
        match self.open.last() {
            Some((last, _)) if *last < task => Err(self.open.len()),
            _ => self.open.binary_search_by_key(&task, |(task, _)| *task),
        }
    }

    /// What is kept of a task.
    pub fn get(&self, task: &TaskId) -> Option<&V> {
        self.place(*task).ok().and_then(|at| self.open[at].1.as_ref().as_ref())
    }

    /// The same, to change.
    pub fn get_mut(&mut self, task: &TaskId) -> Option<&mut V> {
        self.place(*task).ok().and_then(|at| self.open[at].1.as_mut().as_mut())
    }

    /// True while the task is open.
    pub fn contains_key(&self, task: &TaskId) -> bool {
        self.place(*task).is_ok()
    }

    /// A task begins; gives back what was kept of an open one of its tag.
    pub fn insert(&mut self, task: TaskId, value: V) -> Option<V> {
        match self.place(task) {
            Ok(at) => self.open[at].1.replace(value),
            Err(at) => {
                let mut place = self.spare.pop().unwrap_or_default();
                *place = Some(value);
                self.open.insert(at, (task, place));
                None
            }
        }
    }

    /// A task is over; gives back what was kept of it.
    pub fn remove(&mut self, task: &TaskId) -> Option<V> {
        let at = self.place(*task).ok()?;
        let (_, mut place) = self.open.remove(at);
        let value = place.take();
        self.spare.push(place);
        value
    }

    /// Open tasks.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// All, in the order of their tags.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&TaskId, &V)> {
        self.open.iter().map(|(task, place)| (task, place.as_ref().as_ref().expect(FULL)))
    }

    /// The same, to change.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&TaskId, &mut V)> {
        self.open.iter_mut().map(|(task, place)| (&*task, place.as_mut().as_mut().expect(FULL)))
    }

    /// The tags, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &TaskId> {
        self.open.iter().map(|(task, _)| task)
    }

    /// What is kept, in the order of the tags.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The same, to change.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<V> IntoIterator for TaskMap<V> {
    type Item = (TaskId, V);
    type IntoIter = alloc::vec::IntoIter<(TaskId, V)>;

    fn into_iter(self) -> Self::IntoIter {
        let all = self.open.into_iter().map(|(task, place)| (task, place.expect(FULL)));
        all.collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, it is a map in order.
        #[test]
        fn it_is_a_map_in_order(changes in proptest::collection::vec((0u32..12, any::<bool>()), 0..80)) {
            let (mut map, mut model) = (TaskMap::default(), BTreeMap::new());
            for (number, (tag, comes)) in changes.into_iter().enumerate() {
                let task = TaskId(tag);
                if comes {
                    prop_assert_eq!(map.insert(task, number), model.insert(task, number));
                } else {
                    prop_assert_eq!(map.remove(&task), model.remove(&task));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.is_empty(), model.is_empty());
                prop_assert!(map.iter().eq(model.iter()) && map.keys().eq(model.keys()));
                prop_assert!(map.values_mut().map(|value| &*value).eq(model.values()));
                let task = TaskId(tag / 2);
                prop_assert_eq!(map.get(&task), model.get(&task));
                prop_assert_eq!(map.get_mut(&task), model.get_mut(&task));
                prop_assert_eq!(map.contains_key(&task), model.contains_key(&task));
            }
            prop_assert!(map.into_iter().eq(model));
        }
    }

    #[test]
    fn a_task_takes_the_place_of_one_that_ended() {
        let mut map = TaskMap::default();
        map.insert(TaskId(1), 1);
        let place: *const i32 = map.get(&TaskId(1)).expect("it is open");
        map.remove(&TaskId(1));
        map.insert(TaskId(9), 9);
        assert!(core::ptr::eq(place, map.get(&TaskId(9)).expect("it is open")));
    }
}

//! Values of many paths, where a map of as many nodes would be slow and large.

use super::TreePath;

/// One value a path, in walk order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByPath<T> {
    rows: Vec<(TreePath, T)>,
}

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        Self { rows: Vec::new() }
    }
}

impl<T> ByPath<T> {
    /// Takes values whose paths stand in walk order, each once.
    pub(crate) fn from_sorted(rows: Vec<(TreePath, T)>) -> Self {
        debug_assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
        Self { rows }
    }

    /// Gives the value at a path.
    pub(crate) fn get(&self, path: &TreePath) -> Option<&T> {
        let at = self.position(path)?;
        Some(&self.rows[at].1)
    }

    /// Gives the value at a path as [`ByPath::get`] does; paths that are asked for in walk
    /// order are found at once. `next` is 0 before the first.
    pub(crate) fn get_next(&self, next: &mut usize, path: &TreePath) -> Option<&T> {
        let is_next = self.rows.get(*next).is_some_and(|(at, _)| at == path);
        let at = match is_next {
            true => *next,
            false => self.position(path)?,
        };
        *next = at + 1;
        Some(&self.rows[at].1)
    }

    /// Gives the rows in walk order.
    pub(crate) fn rows(&self) -> &[(TreePath, T)] {
        &self.rows
    }

    /// Gives the rows.
    pub(crate) fn into_rows(self) -> Vec<(TreePath, T)> {
        self.rows
    }

    fn position(&self, path: &TreePath) -> Option<usize> {
        self.rows.binary_search_by(|(at, _)| at.cmp(path)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_any_order() {
        let paths = ["a", "a/b", "a-b", "c"].map(|path| TreePath::parse(path).unwrap());
        let rows = paths.iter().cloned().zip(0..).collect();
        let table = ByPath::from_sorted(rows);
        let mut next = 0;
        for at in [0, 1, 2, 3, 1, 2, 0, 3] {
            let found = table.get_next(&mut next, &paths[at]);
            assert_eq!((found, next), (Some(&at), at + 1));
            assert_eq!(table.get(&paths[at]), Some(&at));
        }
        let missing = TreePath::parse("b").unwrap();
        assert_eq!(table.get_next(&mut next, &missing), None);
        assert_eq!(table.get(&missing), None);
    }
}

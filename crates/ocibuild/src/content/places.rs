//! In which repositories blobs are: those that a push has brought them to. A registry can take
//! a blob over from there, which then does not travel again. What is written here may be
//! wrong by now; asking a registry in vain costs nothing, as its answer begins an upload.

use super::{ContentStore, Error};
use crate::registry::{Digest, Repository};

/// Repositories that are remembered of one blob, those of late first.
const MOST: usize = 8;

/// The folder of the records.
const FOLDER: &str = "places";

impl ContentStore {
    /// Gives the repositories in which builds of a scope have left a blob.
    pub(crate) fn places(&self, scope: &str, blob: &Digest) -> Vec<Repository> {
        let known = self.used_record(FOLDER, &name(scope, blob));
        known.unwrap_or_default()
    }

    /// Remembers that a blob is in a repository.
    pub(crate) fn put_place(
        &self,
        scope: &str,
        blob: &Digest,
        repository: &Repository,
    ) -> Result<(), Error> {
        let mut places = self.places(scope, blob);
        if places.first() == Some(repository) {
            return Ok(());
        }
        places.retain(|place| place != repository);
        places.insert(0, repository.clone());
        places.truncate(MOST);
        self.put_record(FOLDER, &name(scope, blob), &places)
    }
}

/// What one tenant pushes where is no other one's business.
fn name(scope: &str, blob: &Digest) -> Digest {
    Digest::sha256(format!("{blob} {scope}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_places_of_a_scope_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open(folder.path()).unwrap();
        let blob = Digest::sha256(b"blob");
        let repository =
            |number: usize| Repository::new("r.example", &format!("a{number}")).unwrap();
        for number in (0..10).chain([5]) {
            store.put_place("x", &blob, &repository(number)).unwrap();
        }
        let expected = [5, 9, 8, 7, 6, 4, 3, 2].map(repository);
        assert_eq!(store.places("x", &blob), expected);
        assert!(store.places("", &blob).is_empty());
        assert!(store.places("x", &Digest::sha256(b"other")).is_empty());
    }
}

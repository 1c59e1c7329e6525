//! A blob that is read while it arrives: its bytes are given in their order as soon as they
//! are in the file, and its end only when its digest has been verified.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What whoever loads a blob tells of it. Dropped before the blob is verified, it makes the
/// reader fail.
#[derive(Debug)]
pub struct Arriving(Arc<Shared>);

/// Reads a blob while it arrives; it blocks, and fails where the blob does not come.
#[derive(Debug)]
pub struct Arrived {
    shared: Arc<Shared>,
    at: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// How much of the beginning of the file is there.
    ready: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Verified,
    /// It failed, or begins again at another place, which may have other bytes.
    Lost,
}

/// Gives the two ends of a blob that somebody loads and somebody else reads meanwhile.
pub fn arriving() -> (Arriving, Arrived) {
    let shared = Arc::new(Shared::default());
    let arrived = Arrived {
        shared: shared.clone(),
        at: 0,
    };
    (Arriving(shared), arrived)
}

impl Arriving {
    /// Says into which file the blob comes. What was read of an earlier one counts no more.
    pub(super) fn begin(&self, file: File) {
        self.0.change(|state| match state.file {
            None => state.file = Some(Arc::new(file)),
            Some(_) => state.end = Some(End::Lost),
        });
    }

    /// Says how much of the beginning of the file is there, in bytes.
    pub(crate) fn reach(&self, ready: u64) {
        self.0.change(|state| state.ready = ready);
    }

    /// Says that all of the blob is there and is what it should be.
    pub(super) fn verified(&self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::Verified);
        });
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::Lost);
        });
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The state is whole after every statement, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrived {
    /// Waits for more than has been read; none at the verified end.
    fn more(&self) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.shared.state();
        loop {
            match (&state.file, state.end) {
                (_, Some(End::Lost)) => {
                    return Err(io::Error::other("the blob has not come whole"));
                }
                (Some(file), _) if state.ready > self.at => {
                    return Ok(Some((file.clone(), state.ready)));
                }
                (_, Some(End::Verified)) => return Ok(None),
                (_, None) => {}
            }
            let changed = self.shared.changed.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for Arrived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some((file, ready)) = self.more()? else {
            return Ok(0);
        };
        let there = usize::try_from(ready - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(there);
        let (buffer, _) = buffer.split_at_mut(wanted);
        let count = file.read_at(buffer, self.at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn what_is_there_is_read_and_no_more() {
        let (arriving, mut arrived) = arriving();
        arriving.begin(file(b"abcdef"));
        arriving.reach(4);
        let mut buffer = [0; 16];
        assert_eq!(arrived.read(&mut buffer).unwrap(), 4);
        let reader = std::thread::spawn(move || {
            let mut rest = Vec::new();
            arrived.read_to_end(&mut rest).map(|_| rest)
        });
        arriving.reach(6);
        arriving.verified();
        drop(arriving);
        assert_eq!(reader.join().unwrap().unwrap(), b"ef");
    }

    #[test]
    fn there_is_no_end_of_what_is_not_verified() {
        let (given_up, mut arrived) = arriving();
        given_up.begin(file(b"abc"));
        given_up.reach(3);
        let mut buffer = [0; 3];
        arrived.read_exact(&mut buffer).unwrap();
        let reader = std::thread::spawn(move || arrived.read(&mut [0]));
        drop(given_up);
        reader.join().unwrap().unwrap_err();

        let (never_begun, mut arrived) = arriving();
        drop(never_begun);
        arrived.read(&mut [0]).unwrap_err();
    }

    #[test]
    fn a_second_file_is_not_read_behind_the_first() {
        let (arriving, mut arrived) = arriving();
        arriving.begin(file(b"abc"));
        arriving.reach(1);
        assert_eq!(arrived.read(&mut [0; 3]).unwrap(), 1);
        arriving.begin(file(b"xyz"));
        arriving.reach(3);
        arriving.verified();
        arrived.read(&mut [0; 3]).unwrap_err();
    }
}

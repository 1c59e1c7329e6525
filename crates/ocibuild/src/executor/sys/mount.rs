//! mount_setattr(2), which changes some flags of a mount and leaves the others.

use std::os::fd::{AsFd, AsRawFd};

use rustix::mount::MountAttrFlags;

use super::process::last_errno;

/// Adds flags to the mount that `mounted` is the root of, and to those below it if
/// `recursive`. Flags that are set already stay, which a remount by mount(2) would
/// have to repeat: a user namespace may not drop them.
pub(in super::super) fn set_mount_attributes(
    mounted: impl AsFd,
    add: MountAttrFlags,
    recursive: bool,
) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(add.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let depth = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, as AT_EMPTY_PATH wants it; `attributes`
    // lives across the call and its true size is passed with it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mounted.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

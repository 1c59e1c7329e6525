//! Whose rights a thread uses on files. libc's own functions would change all threads.

use std::os::raw::c_long;

/// Uses the rights of a user and groups on files from now on, in this thread alone, and
/// gives up the capabilities for files unless the user is root.
///
/// Where the process may not, nothing changes; the calls do not say so.
pub(in super::super) fn use_file_rights(user: u32, group: u32, groups: &[u32]) {
    // SAFETY: reads `groups`, which is borrowed, and takes numbers.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        libc::syscall(libc::SYS_setfsgid, c_long::from(group));
        libc::syscall(libc::SYS_setfsuid, c_long::from(user));
    }
}

/// Uses the thread's own rights again; these are the groups that it had.
pub(in super::super) fn use_own_rights(user: u32, group: u32, groups: &[u32]) {
    // SAFETY: reads `groups`, which is borrowed, and takes numbers. The user comes first,
    // since with root come the capabilities for the rest.
    unsafe {
        libc::syscall(libc::SYS_setfsuid, c_long::from(user));
        libc::syscall(libc::SYS_setfsgid, c_long::from(group));
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
    }
}

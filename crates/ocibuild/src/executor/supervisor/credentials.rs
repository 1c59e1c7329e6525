//! Who a process is meant to be, and what changes that: the rules of credentials(7) and
//! capabilities(7). Pure: credentials in, credentials out.
//!
//! The kernel knows the process as one user all the time; what it believes to be is here.

use rustix::io::Errno;

/// Sets of capabilities, as bits.
pub(in super::super) mod cap {
    use rustix::thread::CapabilitySet as C;

    /// May give files away.
    pub(in super::super::super) const CHOWN: u64 = C::CHOWN.bits();
    /// May read, write and search anything.
    pub(in super::super::super) const DAC_OVERRIDE: u64 = C::DAC_OVERRIDE.bits();
    /// May read and search anything.
    pub(in super::super::super) const DAC_READ_SEARCH: u64 = C::DAC_READ_SEARCH.bits();
    /// May do what owners may.
    pub(in super::super::super) const FOWNER: u64 = C::FOWNER.bits();
    /// Keeps set-id bits.
    pub(in super::super::super) const FSETID: u64 = C::FSETID.bits();
    /// May signal anybody.
    pub(in super::super::super) const KILL: u64 = C::KILL.bits();
    /// May take any group.
    pub(in super::super::super) const SETGID: u64 = C::SETGID.bits();
    /// May become any user.
    pub(in super::super::super) const SETUID: u64 = C::SETUID.bits();
    /// May change its bounding set.
    pub(in super::super::super) const SETPCAP: u64 = C::SETPCAP.bits();
    /// May change its root directory.
    pub(in super::super::super) const SYS_CHROOT: u64 = C::SYS_CHROOT.bits();
    /// May take the ports of services.
    pub(in super::super::super) const NET_BIND_SERVICE: u64 = C::NET_BIND_SERVICE.bits();
    /// May make devices.
    pub(in super::super::super) const MKNOD: u64 = C::MKNOD.bits();
    /// May give capabilities to files.
    pub(in super::super::super) const SETFCAP: u64 = C::SETFCAP.bits();
    /// May set `trusted.` attributes.
    pub(in super::super::super) const SYS_ADMIN: u64 = C::SYS_ADMIN.bits();

    /// Those that go with the user for file systems.
    pub(super) const OF_FILES: u64 = CHOWN
        | DAC_OVERRIDE
        | DAC_READ_SEARCH
        | FOWNER
        | FSETID
        | MKNOD
        | C::LINUX_IMMUTABLE.bits()
        | C::MAC_OVERRIDE.bits();
}

/// The value by which a call leaves an id as it is.
const SAME: u32 = u32::MAX;
/// As many groups as the kernel takes.
pub(super) const MAX_GROUPS: usize = 65_536;

/// The four ids of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in super::super) struct Ids {
    /// Whose process it is.
    pub(in super::super) real: u32,
    /// Whose rights it uses.
    pub(in super::super) effective: u32,
    /// What it can go back to.
    pub(in super::super) saved: u32,
    /// Whose rights it uses on files.
    pub(in super::super) files: u32,
}

impl Ids {
    /// All four alike.
    pub(in super::super) fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            files: id,
        }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn any_is_root(&self) -> bool {
        self.has(0)
    }

    /// setuid(2), setgid(2).
    fn set(self, id: u32, privileged: bool) -> Result<Self, Errno> {
        match () {
            () if id == SAME => Err(Errno::INVAL),
            () if privileged => Ok(Self::all(id)),
            () if id == self.real || id == self.saved => Ok(Self {
                effective: id,
                files: id,
                ..self
            }),
            () => Err(Errno::PERM),
        }
    }

    /// setreuid(2), setregid(2).
    fn set_two(self, real: u32, effective: u32, privileged: bool) -> Result<Self, Errno> {
        let may_real = real == SAME || real == self.real || real == self.effective;
        let may_effective = effective == SAME || self.has(effective);
        if !(privileged || may_real && may_effective) {
            return Err(Errno::PERM);
        }
        let mut new = self;
        new.real = or(real, self.real);
        new.effective = or(effective, self.effective);
        if real != SAME || (effective != SAME && effective != self.real) {
            new.saved = new.effective;
        }
        new.files = new.effective;
        Ok(new)
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, ids: [u32; 3], privileged: bool) -> Result<Self, Errno> {
        if !privileged && ids.iter().any(|id| *id != SAME && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let [real, effective, saved] = ids;
        let effective = or(effective, self.effective);
        Ok(Self {
            real: or(real, self.real),
            effective,
            saved: or(saved, self.saved),
            files: effective,
        })
    }
}

fn or(id: u32, old: u32) -> u32 {
    if id == SAME { old } else { id }
}

/// What capabilities a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct Capabilities {
    /// Used now.
    pub(in super::super) effective: u64,
    /// That it can use.
    pub(in super::super) permitted: u64,
    /// That programs with the same in their file get.
    pub(in super::super) inheritable: u64,
    /// That programs without any in their file get.
    pub(in super::super) ambient: u64,
    /// That it can ever get.
    pub(in super::super) bounding: u64,
}

/// The capabilities of a program file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct FileCapabilities {
    /// Given.
    pub(in super::super) permitted: u64,
    /// Given to who has them inheritable.
    pub(in super::super) inheritable: u64,
    /// Whether they are used at once.
    pub(in super::super) effective: bool,
}

impl FileCapabilities {
    /// Reads the value of `security.capability`, of revision 1, 2 or 3.
    pub(in super::super) fn parse(value: &[u8]) -> Option<Self> {
        let mut words = value.chunks_exact(4).map(|word| {
            let word = word.first_chunk().copied().unwrap_or_default();
            u64::from(u32::from_le_bytes(word))
        });
        let magic = words.next()?;
        let (mut permitted, mut inheritable) = (words.next()?, words.next()?);
        if magic >> 24 != 1 {
            permitted |= words.next()? << 32;
            inheritable |= words.next()? << 32;
        }
        Some(Self {
            permitted,
            inheritable,
            effective: magic & 1 != 0,
        })
    }
}

/// What a program file does to who executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct ProgramBits {
    /// The user it makes one.
    pub(in super::super) user: Option<u32>,
    /// The group it makes one a member of.
    pub(in super::super) group: Option<u32>,
    /// What it gives.
    pub(in super::super) capabilities: Option<FileCapabilities>,
}

/// Who a process is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super) struct Credentials {
    /// Users.
    pub(in super::super) uid: Ids,
    /// Groups.
    pub(in super::super) gid: Ids,
    /// Further groups.
    pub(in super::super) groups: Vec<u32>,
    /// Capabilities.
    pub(in super::super) caps: Capabilities,
    /// Whether capabilities survive the next change of users.
    pub(in super::super) keep_caps: bool,
    /// Whether programs can give nothing any more.
    pub(in super::super) no_new_privileges: bool,
}

impl Credentials {
    /// Root with these capabilities, as a container has it.
    pub(in super::super) fn root(capabilities: u64) -> Self {
        Self {
            uid: Ids::all(0),
            gid: Ids::all(0),
            groups: Vec::new(),
            caps: Capabilities {
                effective: capabilities,
                permitted: capabilities,
                inheritable: 0,
                ambient: 0,
                bounding: capabilities,
            },
            keep_caps: false,
            no_new_privileges: false,
        }
    }

    /// Tells whether a capability is effective.
    pub(in super::super) fn can(&self, capability: u64) -> bool {
        self.caps.effective & capability != 0
    }

    /// Tells whether a group counts for files.
    pub(in super::super) fn in_group(&self, group: u32) -> bool {
        self.gid.files == group || self.groups.contains(&group)
    }

    /// setuid(2).
    pub(super) fn set_user(&self, id: u32) -> Result<Self, Errno> {
        Ok(self.with_users(self.uid.set(id, self.can(cap::SETUID))?))
    }

    /// setreuid(2).
    pub(super) fn set_two_users(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        let ids = self.uid.set_two(real, effective, self.can(cap::SETUID))?;
        Ok(self.with_users(ids))
    }

    /// setresuid(2).
    pub(super) fn set_three_users(&self, ids: [u32; 3]) -> Result<Self, Errno> {
        Ok(self.with_users(self.uid.set_three(ids, self.can(cap::SETUID))?))
    }

    /// setfsuid(2), which never fails.
    pub(super) fn set_file_user(&self, id: u32) -> Self {
        let mut new = self.clone();
        if id == SAME || !(self.uid.has(id) || id == self.uid.files || self.can(cap::SETUID)) {
            return new;
        }
        new.uid.files = id;
        if self.uid.files == 0 && id != 0 {
            new.caps.effective &= !cap::OF_FILES;
        }
        if self.uid.files != 0 && id == 0 {
            new.caps.effective |= new.caps.permitted & cap::OF_FILES;
        }
        new
    }

    /// setgid(2).
    pub(super) fn set_group(&self, id: u32) -> Result<Self, Errno> {
        let gid = self.gid.set(id, self.can(cap::SETGID))?;
        Ok(Self {
            gid,
            ..self.clone()
        })
    }

    /// setregid(2).
    pub(super) fn set_two_groups(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        let gid = self.gid.set_two(real, effective, self.can(cap::SETGID))?;
        Ok(Self {
            gid,
            ..self.clone()
        })
    }

    /// setresgid(2).
    pub(super) fn set_three_groups(&self, ids: [u32; 3]) -> Result<Self, Errno> {
        let gid = self.gid.set_three(ids, self.can(cap::SETGID))?;
        Ok(Self {
            gid,
            ..self.clone()
        })
    }

    /// setfsgid(2), which never fails.
    pub(super) fn set_file_group(&self, id: u32) -> Self {
        let mut new = self.clone();
        if id != SAME && (self.gid.has(id) || id == self.gid.files || self.can(cap::SETGID)) {
            new.gid.files = id;
        }
        new
    }

    /// setgroups(2).
    pub(super) fn set_groups(&self, mut groups: Vec<u32>) -> Result<Self, Errno> {
        if !self.can(cap::SETGID) {
            return Err(Errno::PERM);
        }
        groups.sort_unstable();
        Ok(Self {
            groups,
            ..self.clone()
        })
    }

    /// capset(2).
    pub(super) fn set_capabilities(
        &self,
        effective: u64,
        permitted: u64,
        inheritable: u64,
    ) -> Result<Self, Errno> {
        let old = self.caps;
        let reachable = if self.can(cap::SETPCAP) {
            old.inheritable | old.bounding
        } else {
            old.inheritable | old.permitted
        };
        let is_allowed = inheritable & !reachable == 0
            && inheritable & !(old.inheritable | old.bounding) == 0
            && permitted & !old.permitted == 0
            && effective & !permitted == 0;
        if !is_allowed {
            return Err(Errno::PERM);
        }
        let mut new = self.clone();
        new.caps = Capabilities {
            effective,
            permitted,
            inheritable,
            ambient: old.ambient & permitted & inheritable,
            bounding: old.bounding,
        };
        Ok(new)
    }

    /// What becomes of them by executing a program file.
    pub(in super::super) fn after_exec(&self, program: &ProgramBits) -> Self {
        let mut new = self.clone();
        new.keep_caps = false;
        let program = if self.no_new_privileges {
            ProgramBits::default()
        } else {
            *program
        };
        new.uid.effective = program.user.unwrap_or(self.uid.effective);
        new.gid.effective = program.group.unwrap_or(self.gid.effective);
        new.uid.saved = new.uid.effective;
        new.uid.files = new.uid.effective;
        new.gid.saved = new.gid.effective;
        new.gid.files = new.gid.effective;
        let changes =
            new.uid.effective != self.uid.effective || new.gid.effective != self.gid.effective;
        new.caps = capabilities_after_exec(&new, program.capabilities, changes);
        new
    }

    /// Takes the users, and lets go of the capabilities of root where they end.
    fn with_users(&self, uid: Ids) -> Self {
        let mut new = Self {
            uid,
            ..self.clone()
        };
        if self.uid.any_is_root() && !uid.any_is_root() {
            if !self.keep_caps {
                new.caps.permitted = 0;
                new.caps.effective = 0;
            }
            new.caps.ambient = 0;
        }
        match (self.uid.effective, uid.effective) {
            (0, 1..) => new.caps.effective = 0,
            (1.., 0) => new.caps.effective = new.caps.permitted,
            _ => {}
        }
        new
    }
}

/// The rules of capabilities(7), "Transformation of capabilities during execve()".
fn capabilities_after_exec(
    new: &Credentials,
    file: Option<FileCapabilities>,
    ids_changed: bool,
) -> Capabilities {
    let old = new.caps;
    let is_root = new.uid.effective == 0 || new.uid.real == 0;
    let ambient = if ids_changed || file.is_some() {
        0
    } else {
        old.ambient
    };
    let (permitted, effective) = match file {
        _ if is_root => {
            let permitted = old.inheritable | old.bounding;
            let effective = if new.uid.effective == 0 {
                permitted
            } else {
                ambient
            };
            (permitted, effective)
        }
        Some(file) => {
            let given =
                (file.inheritable & old.inheritable) | (file.permitted & old.bounding) | ambient;
            (given, if file.effective { given } else { ambient })
        }
        None => (ambient, ambient),
    };
    Capabilities {
        effective,
        permitted,
        ambient,
        ..old
    }
}

#[cfg(test)]
mod tests;

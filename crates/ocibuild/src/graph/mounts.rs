//! The mounts of RUN with everything decided that the configuration decides: variables
//! have values, every target is absolute, of those at one place the last one is left,
//! and what lies inside of another comes after it.

use crate::dockerfile::Mount;
use crate::dockerfile::ast::Run;

use super::step::absolute;
use super::{Error, Scope};

/// Where the sockets of SSH agents are that name no target; a number follows.
const SSH_SOCKETS: &str = "/run/buildkit/ssh_agent.";

/// Where programs look for the socket of an agent (ssh-agent(1)).
const AGENT: &str = "SSH_AUTH_SOCK";

/// Gives the mounts of a command in the order in which they are declared.
pub(super) fn of(run: &Run, scope: &Scope, working_dir: &str) -> Result<Vec<Mount>, Error> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut sockets = 0;
    for word in &run.mounts {
        let mut mount = scope.mount(&word.text)?;
        if let Mount::Ssh(ssh) = &mut mount {
            let target = format!("{SSH_SOCKETS}{sockets}");
            ssh.target.get_or_insert(target);
            sockets += 1;
        }
        if let Some(target) = target_of(&mut mount) {
            let place = absolute(working_dir, target);
            if place == "/" {
                return Err(Error::MountTarget(word.text.clone()));
            }
            *target = place;
            uncover(&mut mounts, mount.target());
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Takes away what a later mount would cover; a variable is not covered.
fn uncover(mounts: &mut Vec<Mount>, target: Option<&str>) {
    for earlier in mounts.iter_mut() {
        if let Mount::Secret(secret) = earlier
            && secret.env.is_some()
            && secret.target.as_deref() == target
        {
            secret.target = None;
        }
    }
    mounts.retain(|earlier| earlier.target() != target);
}

/// Puts those that lie in others behind them, as the reference builder does.
pub(super) fn sort(mounts: &mut [Mount]) {
    let depth = |mount: &Mount| mount.target().map_or(0, |path| path.matches('/').count());
    mounts.sort_by_key(depth);
}

/// Gives the variables that a command sees: the first agent is where its socket is,
/// unless the Dockerfile says where.
pub(super) fn environment(scope: &Scope, mounts: &[Mount]) -> Vec<(String, String)> {
    let mut variables = scope.variables().to_vec();
    let socket = mounts.iter().find_map(|mount| match mount {
        Mount::Ssh(mount) => mount.target.clone(),
        _ => None,
    });
    if let Some(socket) = socket.filter(|_| scope.get(AGENT).is_none()) {
        variables.push((AGENT.to_owned(), socket));
    }
    variables
}

fn target_of(mount: &mut Mount) -> Option<&mut String> {
    match mount {
        Mount::Bind(mount) => Some(&mut mount.target),
        Mount::Cache(mount) => Some(&mut mount.target),
        Mount::Tmpfs(mount) => Some(&mut mount.target),
        Mount::Secret(mount) => mount.target.as_mut(),
        Mount::Ssh(mount) => mount.target.as_mut(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::ast::Instruction;
    use crate::dockerfile::{Escape, parse_trigger};

    fn mounts(flags: &str, working_dir: &str) -> Result<Vec<String>, Error> {
        let instruction = parse_trigger(&format!("RUN {flags} true")).expect("a command");
        let Instruction::Run(run) = instruction else {
            panic!("not RUN")
        };
        let mut scope = Scope::from_env(&[], Escape::Backslash);
        scope.set("A", "/from/variable");
        let mut mounts = of(&run, &scope, working_dir)?;
        sort(&mut mounts);
        let targets = mounts.iter().map(|mount| mount.target().unwrap_or("-"));
        Ok(targets.map(str::to_owned).collect())
    }

    /// B64: relative to WORKDIR, the last of a target wins; outer ones come first.
    #[test]
    fn b64_targets_are_absolute_and_in_order() {
        for (flags, want) in [
            ("--mount=target=a", vec!["/w/a"]),
            ("--mount=target=.", vec!["/w"]),
            ("--mount=target=$A", vec!["/from/variable"]),
            ("--mount=type=secret,id=s", vec!["/run/secrets/s"]),
            ("--mount=type=secret,id=s,env=S", vec!["-"]),
            (
                "--mount=type=ssh --mount=type=ssh,id=b",
                vec!["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1"],
            ),
            (
                "--mount=target=/a/b/c --mount=type=tmpfs,target=/a",
                vec!["/a", "/a/b/c"],
            ),
            (
                "--mount=target=/a --mount=target=/b --mount=type=tmpfs,target=/x/../a/",
                vec!["/b", "/a"],
            ),
            (
                "--mount=type=secret,id=s,env=S,target=/a --mount=type=tmpfs,target=/a",
                vec!["-", "/a"],
            ),
        ] {
            assert_eq!(mounts(flags, "/w").expect(flags), want, "{flags}");
        }
    }

    #[test]
    fn b64_the_root_is_no_target() {
        for (flags, working_dir) in [
            ("--mount=target=/", "/w"),
            ("--mount=target=..", "/w"),
            ("--mount=type=tmpfs", ""),
            ("--mount=type=secret,id=a,target=/.", ""),
        ] {
            let error = mounts(flags, working_dir).expect_err(flags);
            assert!(matches!(error, Error::MountTarget(_)), "{flags}: {error}");
        }
    }
}

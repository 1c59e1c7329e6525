//! How each builder is called: scripts for `sh`, to which `$CONTEXT` is a folder, `$IMAGE` the
//! name under which its image is pushed, and `$STORE` a folder of the builder's own. What a
//! script says is what somebody would type; nobody gets options that make it slower.

use std::path::Path;

use crate::builder;

/// How a builder is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    /// Programs that have to be on PATH.
    pub(crate) programs: &'static [&'static str],
    /// Becomes the daemon.
    pub(crate) daemon: Option<&'static str>,
    /// Succeeds when the daemon is ready.
    pub(crate) is_ready: Option<&'static str>,
    /// Builds and pushes.
    pub(crate) build: String,
    /// Makes a daemon forget everything; without one its folder is replaced by an empty one.
    pub(crate) forget: Option<&'static str>,
    /// Prints one line that says what it is.
    pub(crate) version: &'static str,
}

impl Recipe {
    /// Tells whether its programs are on PATH.
    pub(crate) fn is_installed(&self) -> bool {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = std::env::split_paths(&folders).collect();
        let is_there = |program: &&str| folders.iter().any(|folder| folder.join(program).is_file());
        self.programs.iter().all(is_there)
    }
}

/// Calls a program that takes the arguments of `ocibuild build`.
pub(crate) fn ocibuild(program: &str) -> Recipe {
    let program = quoted(program);
    let verb = builder::BUILD;
    Recipe {
        build: format!(
            "exec {program} {verb} --push --tag \"$IMAGE\" --root \"$STORE\" \"$CONTEXT\""
        ),
        version: "echo the ocibuild of this clone",
        ..other("ocibuild", "")
    }
}

/// Calls whatever the user says.
pub(crate) fn other(name: &str, script: &str) -> Recipe {
    Recipe {
        name: name.to_owned(),
        programs: &[],
        daemon: None,
        is_ready: None,
        build: script.to_owned(),
        forget: None,
        version: "echo as given",
    }
}

/// Gives the peers that are known here.
pub(crate) fn peers() -> Vec<Recipe> {
    vec![docker(), buildah()]
}

/// BuildKit in a daemon that is started for the comparison.
fn docker() -> Recipe {
    Recipe {
        name: "docker".to_owned(),
        programs: &["docker", "dockerd"],
        daemon: Some(
            "exec dockerd --iptables=false --ip6tables=false --bridge=none \
             --host unix://$STORE/socket --data-root $STORE/data --exec-root $STORE/exec \
             --pidfile $STORE/pid",
        ),
        is_ready: Some("docker --host unix://$STORE/socket version"),
        build: "export DOCKER_BUILDKIT=1 DOCKER_HOST=unix://$STORE/socket\n\
            docker build --quiet --network=host --tag \"$IMAGE\" \"$CONTEXT\"\n\
            docker push --quiet \"$IMAGE\""
            .to_owned(),
        forget: Some(
            "export DOCKER_HOST=unix://$STORE/socket\n\
             docker image prune --all --force\n\
             docker builder prune --all --force",
        ),
        version: "dockerd --version",
    }
}

fn buildah() -> Recipe {
    Recipe {
        name: "buildah".to_owned(),
        programs: &["buildah"],
        daemon: None,
        is_ready: None,
        build: "buildah() { command buildah --storage-driver overlay --root $STORE/root \
            --runroot $STORE/run \"$@\"; }\n\
            buildah build --quiet --layers --isolation=chroot --tls-verify=false \
            --tag \"$IMAGE\" \"$CONTEXT\"\n\
            buildah push --quiet --tls-verify=false \"$IMAGE\""
            .to_owned(),
        // Its folder holds mounts.
        forget: Some(
            "buildah --storage-driver overlay --root $STORE/root --runroot $STORE/run \
             rmi --all --force",
        ),
        version: "buildah --version",
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Gives the last part of a path.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_path_is_not_installed() {
        let recipe = |programs| Recipe {
            programs,
            ..other("x", "true")
        };
        assert!(recipe(&["sh"]).is_installed());
        assert!(!recipe(&["sh", "no-such-builder"]).is_installed());
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert!(
            ocibuild("/a b/it's")
                .build
                .contains(r"exec '/a b/it'\''s' build")
        );
    }
}

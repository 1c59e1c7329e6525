//! SSH agents: who may talk to them, and what about (B67).

use std::process::{Child, Command, Stdio};

use super::*;
use crate::run::with_libraries;
use ocibuild_registry::testing::not_installed;

/// An agent of OpenSSH with one key, ended when it is dropped.
struct OpenSsh {
    folder: tempfile::TempDir,
    agent: Child,
}

impl OpenSsh {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let mut started = Command::new("ssh-agent");
        started
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped());
        let mut agent = started.spawn().ok()?;
        // It says where it listens once it does.
        let mut said = String::new();
        let out = agent.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).unwrap();
        let openssh = Self { folder, agent };
        let key = openssh.path("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(&key)
            .env("SSH_AUTH_SOCK", openssh.socket())
            .status();
        assert!(added.unwrap().success());
        Some(openssh)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("agent")
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}

/// A context with the client of the agent.
fn with_client() -> Option<ContextDir> {
    let files = with_libraries(&["/usr/bin/ssh-add"])?;
    let context = files.iter().fold(ContextDir::new(), |context, file| {
        context.executable(&format!("root{file}"), std::fs::read(file).unwrap())
    });
    // It asks who it is.
    let passwd = "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
    Some(context.file("root/etc/passwd", passwd))
}

/// B67: the socket is root's, 0600, at its place, and SSH_AUTH_SOCK names it.
#[test]
fn b67_a_command_lists_keys_and_changes_none() {
    let (Some(openssh), Some(context)) = (OpenSsh::start(), with_client()) else {
        not_installed("OpenSSH");
        return;
    };
    let text = "FROM busybox\nCOPY root/ /\n\
        RUN --mount=type=ssh stat -c '%n %a %u:%g %F' $SSH_AUTH_SOCK > /stat && ssh-add -l > /list; \
          ssh-add -D 2> /refused && exit 1; ! chmod 777 $SSH_AUTH_SOCK 2>/dev/null && ssh-add -l >> /list\n\
        USER user\n\
        RUN --mount=type=ssh,uid=1000,mode=0400 --mount=type=ssh,id=other,uid=1000,target=/s,required \
          ssh-add -l 2>&1 | sed 's/: .*//' > /tmp/first; \
          SSH_AUTH_SOCK=/s ssh-add -l > /tmp/second; stat -c '%a %u' $SSH_AUTH_SOCK /s > /tmp/stat\n\
        USER root\n\
        RUN --mount=type=ssh,target=/own env | grep SSH_ > /own.txt\n\
        ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK > /env\n\
        RUN --mount=type=ssh,id=none echo $SSH_AUTH_SOCK > /none; ls -d /run/buildkit 2>/dev/null || echo no >> /none";
    let workshop = Workshop::new();
    let context = context.file("Dockerfile", text);
    let build = workshop
        .build(&context)
        .ssh("default", openssh.socket())
        .ssh("other", openssh.socket());
    let image = workshop.built(build);
    assert_eq!(
        image.text("stat"),
        "/run/buildkit/ssh_agent.0 600 0:0 socket\n"
    );
    let list = image.text("list");
    assert_eq!(list.matches(" the key (ED25519)\n").count(), 2, "{list}");
    assert_eq!(image.text("refused"), "Failed to remove all identities.\n");
    assert_eq!(image.text("tmp/stat"), "400 1000\n600 1000\n");
    assert!(image.text("tmp/second").contains("the key"));
    assert_eq!(
        image.text("tmp/first"),
        "Error connecting to agent\n",
        "talking to a socket needs the right to write"
    );
    assert_eq!(image.text("own.txt"), "SSH_AUTH_SOCK=/own\n");
    assert_eq!(image.text("env"), "/mine\n");
    assert_eq!(image.text("none"), "/mine\nno\n");
    assert_eq!(image.at("run"), "-");
    workshop.assert_tidy();
}

#[test]
fn b67_an_agent_that_is_missing_is_said_before_the_step() {
    let workshop = Workshop::new();
    let text = "RUN --mount=type=ssh,required true";
    assert_eq!(
        message(&workshop, build(&workshop, text)),
        "Dockerfile:2: the SSH agent \"default\" is required and was not given \
         (give it: --ssh default[=SOCKET])"
    );
    let socket = workshop.path("none");
    let said = message(&workshop, build(&workshop, text).ssh("default", &socket));
    let want = format!(
        "Dockerfile:2: the SSH agent \"default\" at {}: No such file or directory (os error 2)",
        socket.display()
    );
    assert_eq!(said, want);
    let said = message(&workshop, build(&workshop, text).ssh("defualt", &socket));
    assert!(said.ends_with("(did you mean \"defualt\"?)"), "{said}");
}

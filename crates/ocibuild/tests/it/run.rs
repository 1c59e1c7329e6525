//! RUN inside whole builds: what a command sees, what it leaves in the layer, how it
//! fails and how it is ended; as root, and as users who may do less.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output as Ended};
use std::time::{Duration, Instant};

use ocibuild::error::ErrorKind;
use ocibuild::graph::Entitlement;
use ocibuild::testing::ContextDir;
use ocibuild::{Cancel, Event, EventSink};
use ocibuild_registry::testing::{Registry, not_installed};

use crate::built::{Built, Workshop, assert_tidy, built, example, skip};
use crate::cache::push_base;
use crate::outputs::pulled;

#[test]
fn heredocs_run() {
    let text = "FROM busybox\nARG A=value\n\
        RUN <<EOF\nset -e\necho plain $A > /plain\nEOF\n\
        RUN <<-EOF\n\techo tabs >> /plain\n\tEOF\n\
        RUN cat > /command <<one && cat >> /command <<'two'\n$A\none\n$A\ntwo\n\
        RUN <<EOF\n#!/bin/cat\nmy own text\nEOF\n\
        RUN <<EOF\n#!/bin/sh\necho $0 > /shebang\nEOF\n";
    let image = built(ContextDir::new(), text);
    assert_eq!(image.text("plain"), "plain value\ntabs\n");
    assert_eq!(image.text("command"), "value\n$A\n");
    assert_eq!(image.text("shebang"), "/dev/pipes/EOF\n");
}

/// Row 36: all capabilities, no filter, nothing hidden or fixed; devices work.
#[test]
fn privileged_a_step_may_have_all_rights() {
    let workshop = Workshop::new();
    let text = "FROM busybox\n\
        RUN --security=insecure grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status > /seen; \
        mkdir /m; mount -t tmpfs none /m && touch /m/x; \
        mknod /null c 1 3 && echo gone > /null && umount /m\n\
        RUN grep Seccomp: /proc/self/status > /usual; echo > /null || echo refused >> /usual\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let allowed = [Entitlement::SecurityInsecure];
    let image = workshop.built(workshop.build(&context).entitlements(allowed));
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
    let all = all.unwrap();
    let want = format!("CapEff:\t{all}\nCapBnd:\t{all}\nSeccomp:\t0\n");
    assert_eq!(image.text("seen"), want);
    assert_eq!(image.text("usual"), "Seccomp:\t2\nrefused\n");
    assert!(image.list("m").is_empty());
}

#[test]
fn the_network_of_the_machine_can_be_refused() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nRUN --network=none true\nRUN true\nRUN --network=host true\n";
    let context = ContextDir::new().file("Dockerfile", text);
    workshop.built(workshop.build(&context));
    let error = workshop.fails(workshop.build(&context).entitlements([]));
    let want = "Dockerfile:4: this step needs the entitlement network.host, which this build does \
        not have";
    assert_eq!(error.to_string(), want);
    assert_eq!(error.hint(), Some("allow it with --allow network.host"));
}

#[test]
fn b62_names_of_this_machine_are_known() {
    let image = built(
        ContextDir::new(),
        "FROM busybox\nRUN cat /etc/hosts > /seen\n",
    );
    let want = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    assert_eq!(image.text("seen"), want);
}

#[test]
fn no_signal_is_ignored_or_blocked() {
    let text = "FROM busybox\nRUN grep -E '^Sig(Blk|Ign):' /proc/self/status > /seen; true\n";
    let image = built(ContextDir::new(), text);
    let want = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    assert_eq!(image.text("seen"), want);
}

#[test]
fn a_command_gets_its_environment() {
    let text = "FROM busybox\nENV E=env\nARG A=arg\nARG UNSET\nENV X=env\nARG X=arg\n\
        USER nobody\nWORKDIR /work/here\nRUN env | sort > /tmp/env; pwd > /tmp/pwd; id -u > /tmp/id\n\
        SHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\nRUN false || echo shell > /tmp/shell\n\
        USER 0\nRUN [\"touch\", \"$HOME\"]\n";
    let image = built(ContextDir::new(), text);
    let want = "A=arg\nE=env\nHOME=/home\n\
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    let env: String = image
        .text("tmp/env")
        .lines()
        .filter(|line| {
            ["A=", "E=", "HOME=", "PATH="]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(env, want);
    assert!(
        image.text("tmp/env").contains("X=arg\n"),
        "the later ARG wins in RUN"
    );
    assert_eq!(image.config.config.env("X"), Some("env"));
    assert!(!image.text("tmp/env").contains("UNSET"));
    assert_eq!(image.text("tmp/pwd"), "/work/here\n");
    assert_eq!(image.text("tmp/id"), "65534\n");
    assert_eq!(image.at("tmp/env"), "0644 65534:65534 file");
    assert_eq!(image.text("tmp/shell"), "shell\n");
    assert_eq!(
        image.at("work/here/$HOME"),
        "0644 0:0 file",
        "no shell, no expansion"
    );
    let history = image.history();
    assert_eq!(
        history[7],
        "RUN |3 A=arg UNSET= X=arg /bin/sh -c env | sort > /tmp/env; pwd > /tmp/pwd; id -u > /tmp/id # buildkit"
    );
    assert_eq!(
        history.last(),
        Some(&"RUN |3 A=arg UNSET= X=arg touch $HOME # buildkit")
    );
}

#[test]
fn proxies_are_seen_and_not_kept() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", "FROM busybox\nRUN env > /env\n");
    let build =
        |proxy: &str| workshop.built(workshop.build(&context).build_arg("http_proxy", proxy));
    let first = build("http://one");
    assert!(first.text("env").contains("HTTP_PROXY=http://one\n"));
    assert_eq!(first.history(), ["RUN /bin/sh -c env > /env # buildkit"]);
    assert!(
        build("http://two").cached()[0].1,
        "another proxy is no other step"
    );
}

/// Everything that a layer can hold, made by one command.
const EVERYTHING: &str = "mkdir -m 750 /d && echo hi > /d/f && ln /d/f /d/g && ln -s f /d/l && mkfifo -m 600 /d/p \
    && rm /bin/ls && rm -r /home && touch /tmp/x && mkdir /usr/bin/sub && echo > /etc/group && ln /bin/busybox /b";

#[test]
fn a_layer_holds_what_changed() {
    let text = format!(
        "FROM busybox\nRUN {EVERYTHING} && chown 1:2 /d/f && chmod 4711 /d/f\nRUN rm -r /d && mkdir /d && touch /d/new\n"
    );
    let image = built(ContextDir::new(), &text);
    assert_everything(&image, "4711 1:2");
    let want = ["d 0755 0:0 dir", "d/new 0644 0:0 file"];
    let list = image.list("");
    let below: Vec<&str> = list
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("d/") || line.starts_with("d "))
        .collect();
    assert_eq!(below, want, "what was removed is gone");
    assert_eq!(image.at("home"), "-");
    assert_eq!(
        image.at("etc/resolv.conf"),
        "-",
        "what is mounted is not part of the layer"
    );
}

/// B70: what the kernel copied up and nothing changed; its new names are one file.
#[test]
fn b70_an_unchanged_file_is_not_in_the_layer() {
    let text = "FROM busybox\nCOPY f /f\nRUN ln /f /h && ln /f /g && chmod 644 /f && ln -s x /l\n\
        RUN touch -h -d \"$(stat -c @%Y /l)\" /l && echo 2 > /f && echo 1 > /f && chown -h 0:0 /l && ls /\n\
        RUN rm /f && cp -p /g /f && touch -d @7 /l -h\n";
    let image = built(ContextDir::new().file("f", "1\n"), text);
    assert_eq!(
        image.layer(2),
        ["g 0644 0:0 file", "h 0644 0:0 = g", "l 0777 0:0 -> x"]
    );
    // Written with what it had, at another time.
    assert_eq!(image.layer(3), ["f 0644 0:0 file"]);
    assert_eq!(image.layer(4), ["f 0644 0:0 file", "l 0777 0:0 -> x"]);
    assert_eq!(image.text("f"), "1\n");
}

fn assert_everything(image: &Built, file: &str) {
    let want = [
        "b 0755 0:0 file".to_owned(),
        "bin 0755 0:0 dir".to_owned(),
        "d 0750 0:0 dir".to_owned(),
        format!("d/f {file} file"),
        format!("d/g {file} = d/f"),
        "d/l 0777 0:0 -> f".to_owned(),
        "d/p 0600 0:0 Fifo".to_owned(),
        "etc 0755 0:0 dir".to_owned(),
        "etc/group 0644 0:0 file".to_owned(),
        "tmp 1777 0:0 dir".to_owned(),
        "tmp/x 0644 0:0 file".to_owned(),
        "usr 0755 0:0 dir".to_owned(),
        "usr/bin 0755 0:0 dir".to_owned(),
        "usr/bin/sub 0755 0:0 dir".to_owned(),
        "!bin/ls".to_owned(),
        "!home".to_owned(),
    ];
    assert_eq!(image.layer(1), want);
}

#[test]
fn a_failing_command_says_how_it_failed() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nRUN echo one; \\\n  echo two >&2; exit 3\nRUN touch /never\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let error = workshop.fails(workshop.build(&context));
    assert_eq!(
        error.to_string(),
        "Dockerfile:2: process \"/bin/sh -c echo one;   echo two >&2; exit 3\" \
         did not complete successfully: exit code: 3"
    );
    assert_eq!(error.kind(), ErrorKind::Command);
    let mut output = error.output().to_vec();
    output.sort();
    assert_eq!(output, ["one", "two"]);
    assert_eq!(error.location().unwrap().lines, 2..=3);
    // It is not remembered as done.
    assert_eq!(
        workshop.fails(workshop.build(&context)).kind(),
        ErrorKind::Command
    );
}

#[test]
fn other_failures_of_a_command_are_told_apart() {
    let workshop = Workshop::new();
    let cases = [
        (
            "RUN sh -c 'kill -9 $$'; exit $?",
            "did not complete successfully: exit code: 137",
        ),
        ("RUN [\"nothing\"]", "command not found: nothing"),
        (
            "USER ghost\nRUN true",
            "unable to find user ghost: no matching entry in /etc/passwd",
        ),
    ];
    for (instruction, want) in cases {
        let text = format!("FROM busybox\n{instruction}\n");
        let context = ContextDir::new().file("Dockerfile", text);
        let error = workshop.fails(workshop.build(&context)).to_string();
        assert!(error.ends_with(want), "{error}");
    }
}

/// The processes whose command line contains a text.
fn processes(text: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().map(Result::unwrap);
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// A number of seconds to sleep that no other process has in its command line.
fn long_time(test: u32) -> String {
    format!("{}{test}", 9_000_000 + std::process::id())
}

#[test]
fn what_a_command_leaves_running_dies_with_it() {
    let time = long_time(1);
    let text =
        format!("FROM busybox\nRUN sleep {time} & setsid sleep {time} & echo done > /done\n");
    let image = built(ContextDir::new(), &text);
    assert_eq!(image.text("done"), "done\n");
    assert_eq!(processes(&format!("sleep {time}")), [""; 0]);
}

#[test]
fn a_cancelled_build_ends_at_once_and_leaves_nothing() {
    let (workshop, time, cancel) = (Workshop::new(), long_time(2), Cancel::new());
    let text = format!(
        "FROM busybox\nRUN touch /left; (setsid sleep {time} &); echo ready; sleep {time}\n"
    );
    let context = ContextDir::new().file("Dockerfile", text);
    let (send, cancelled) = std::sync::mpsc::channel();
    let switch = cancel.clone();
    let events = EventSink::new(move |event| {
        if matches!(&event, Event::StepLog { line, .. } if line == "ready") {
            send.send(Instant::now()).unwrap();
            switch.cancel();
        }
    });
    let build = workshop.build(&context).events(events).cancel(cancel);
    let error = workshop.fails(build);
    let took = cancelled.recv().unwrap().elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Cancelled, "the build was cancelled".to_owned())
    );
    assert_eq!(processes(&format!("sleep {time}")), [""; 0]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(workshop.store().to_str().unwrap()),
        "{mounts}"
    );
}

#[test]
fn layers_that_are_one_may_lie_over_each_other() {
    let text = "FROM busybox\nRUN true\nRUN touch /a\nRUN [\"true\"]\nRUN rm /a\nRUN touch -d @5 /b\n\
        RUN true && rm /b && touch /c && rm /c\nRUN test ! -e /a && test ! -e /b && echo end > /end\n";
    let image = built(ContextDir::new(), text);
    assert_eq!(
        image.config.rootfs.diff_ids[1],
        image.config.rootfs.diff_ids[3]
    );
    assert_eq!(
        (image.at("a"), image.at("b"), image.text("end")),
        ("-".into(), "-".into(), "end\n".into())
    );
}

#[test]
fn independent_stages_run_side_by_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nobody is let go before both are there.
    let meeting = std::thread::spawn(move || {
        let (one, two) = (listener.accept().unwrap(), listener.accept().unwrap());
        drop((one, two));
    });
    let stage = |name: &str| {
        format!("FROM busybox AS {name}\nRUN echo {name} | nc 127.0.0.1 {port} && touch /{name}\n")
    };
    let text = stage("one")
        + &stage("two")
        + "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let image = built(ContextDir::new(), &text);
    meeting.join().unwrap();
    assert_eq!(image.list("").len(), 2);
}

#[test]
fn a_command_without_network_reaches_nobody() {
    let text = "FROM busybox\nRUN --network=none ! nc -w 1 127.0.0.1 9 2> /said; ls /sys/class/net > /net\n";
    let image = built(ContextDir::new(), text);
    assert_eq!(image.text("net"), "lo\n");
}

#[test]
fn stages_that_nobody_needs_are_not_even_asked_for() {
    let registry = Registry::start().unwrap();
    let text = format!(
        "FROM {}/never AS unused\nRUN exit 1\nFROM scratch AS used\nLABEL a=1\nFROM unused\n",
        registry.host()
    );
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", text);
    workshop.built(workshop.build(&context).target("used"));
    assert_eq!(registry.requests(), []);
}

/// A user without privileges, as `setpriv` takes it.
struct User {
    arguments: &'static [&'static str],
    uid: u32,
}

const NOBODY: User = User {
    arguments: &["--reuid=65534", "--regid=65534", "--clear-groups"],
    uid: 65534,
};

/// The user with a range of subordinate ids; none where there is no such user.
fn user_with_range() -> Option<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd
        .lines()
        .find(|line| line.starts_with("ocibuild-test:"))?;
    Some(User {
        arguments: &[
            "--reuid=ocibuild-test",
            "--regid=ocibuild-test",
            "--init-groups",
        ],
        uid: entry.split(':').nth(2)?.parse().ok()?,
    })
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can become another user");
    }
    root
}

/// Where another user builds, and the registry that its images come to.
struct Office {
    workshop: Workshop,
    registry: Registry,
}

impl Office {
    fn new() -> Self {
        let office = Self {
            workshop: Workshop::new(),
            registry: Registry::start().unwrap(),
        };
        push_base(&office.workshop, office.registry.reference("base:1"));
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(office.workshop.path(""), open).unwrap();
        std::fs::copy(example("embed"), office.workshop.path("embed")).unwrap();
        office
    }

    /// Builds as a user in a store of that user.
    fn run(&self, user: &User, instructions: &str) -> Ended {
        let text = format!("FROM {}/base:1\n{instructions}\n", self.registry.host());
        let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(context.path(), open).unwrap();
        let store = self.workshop.store();
        std::fs::create_dir_all(&store).unwrap();
        chown(&store, Some(user.uid), Some(user.uid)).unwrap();
        Command::new("setpriv")
            .args(user.arguments)
            .arg(self.workshop.path("embed"))
            .args([context.path(), &store])
            .arg(self.registry.reference("app:1").to_string())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap()
    }

    fn built(&self, user: &User, instructions: &str) -> Built {
        let ended = self.run(user, instructions);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        assert_tidy(&self.workshop.store());
        pulled(&self.workshop, &self.registry.reference("app:1"))
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn privileged_without_run_a_user_unpacks_nothing() {
    if !is_root() {
        return;
    }
    let office = Office::new();
    let image = office.built(&NOBODY, "COPY --chown=1:2 f /d/f\nWORKDIR /w\nENV A=1");
    assert_eq!(image.at("d/f"), "0644 1:2 file");
    let store = office.workshop.store();
    assert!(is_empty(&store.join("layers")), "no layer was unpacked");
    assert!(
        !String::from_utf8_lossy(&office.run(&NOBODY, "ENV B=1").stderr).contains("fetch layer"),
        "nothing needs the bytes of the base"
    );
}

#[test]
fn privileged_a_user_with_a_range_makes_the_layer_of_root() {
    if !is_root() {
        return;
    }
    let Some(user) = user_with_range() else {
        skip("there is no user ocibuild-test with subordinate ids");
        return;
    };
    let office = Office::new();
    let image = office.built(
        &user,
        &format!("RUN {EVERYTHING} && chown 1:2 /d/f && chmod 4711 /d/f"),
    );
    assert_everything(&image, "4711 1:2");
}

#[test]
fn privileged_a_user_with_one_id_makes_layers_of_root() {
    if !is_root() {
        return;
    }
    let image = Office::new().built(&NOBODY, &format!("RUN {EVERYTHING}"));
    assert_everything(&image, "0644 0:0");
}

/// B64, B65: mounts belong to whom they should, whoever builds.
#[test]
fn privileged_users_have_mounts() {
    if !is_root() {
        return;
    }
    let users = [(Some(NOBODY), "0:0"), (user_with_range(), "3:4")];
    for (user, owner) in users {
        let Some(user) = user else {
            skip("there is no user ocibuild-test with subordinate ids");
            continue;
        };
        let (uid, gid) = owner.split_once(':').unwrap();
        let office = Office::new();
        let mounts = format!(
            "--mount=type=cache,target=/c,uid={uid},gid={gid},mode=0750 --mount=target=/ctx \
             --mount=target=/rw,rw --mount=type=tmpfs,target=/t"
        );
        let text = format!(
            "RUN {mounts} stat -c '%n %a %u:%g' /c /ctx /ctx/f /rw/f > /out && cp /ctx/f /c/f && touch /rw/x /t/x \
               && rm /rw/f && ! touch /ctx/x\n\
             RUN --mount=type=cache,target=/c cat /c/f > /cached"
        );
        let image = office.built(&user, &text);
        let want = format!("/c 750 {owner}\n/ctx 755 0:0\n/ctx/f 644 0:0\n/rw/f 644 0:0\n");
        assert_eq!(image.text("out"), want);
        assert_eq!(image.text("cached"), "x");
        assert_eq!(image.layer(1), ["out 0644 0:0 file"]);
        let failed = office.run(
            &user,
            "RUN --mount=target=/rw,rw mkdir -m 0 /rw/d; rm /rw/f; exit 7",
        );
        assert!(!failed.status.success());
        assert_tidy(&office.workshop.store());
    }
    // A user with one id has the others by emulation.
    let text = "RUN --mount=type=cache,target=/c,uid=3,gid=4 stat -c %u:%g /c > /out";
    assert_eq!(Office::new().built(&NOBODY, text).text("out"), "3:4\n");
}

#[test]
fn privileged_a_failed_command_of_a_user_leaves_nothing() {
    if !is_root() {
        return;
    }
    let office = Office::new();
    let users = [Some(NOBODY), user_with_range()];
    for user in users.into_iter().flatten() {
        let ended = office.run(&user, "RUN mkdir -m 0 /d && touch /tmp/x; exit 7");
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("exit"), "{said}");
        assert_tidy(&office.workshop.store());
        std::fs::remove_dir_all(office.workshop.store()).unwrap();
    }
}

#[test]
fn privileged_file_capabilities_survive() {
    let Some(setcap) = with_libraries(&["/sbin/setcap", "/usr/sbin/setcap"]) else {
        not_installed("setcap");
        return;
    };
    if !is_root() {
        return;
    }
    let mut context = ContextDir::new();
    for file in &setcap {
        context = context.executable(&format!("root{file}"), std::fs::read(file).unwrap());
    }
    let program = &setcap[0];
    let text = format!(
        "COPY f /p\nCOPY --from=tools root/ /\nRUN {program} cap_net_raw+ep /p\nRUN chmod 700 /p"
    );
    let workshop = Workshop::new();
    let tools = ocibuild::NamedContext::Directory(context.path().to_owned());
    let own = ContextDir::new()
        .file("f", "")
        .file("Dockerfile", format!("FROM busybox\n{text}\n"));
    let image = workshop.built(workshop.build(&own).named_context("tools", tools));
    let entry = |layer: usize| {
        let path = ocibuild::layer::TreePath::parse("p").unwrap();
        image.layers[layer].get(&path).unwrap().xattrs.clone()
    };
    // Revision 2, effective, bit 13: what any reader of images understands.
    let capability = [
        0x01, 0, 0, 0x02, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let want = vec![(b"security.capability".to_vec(), capability.to_vec())];
    assert_eq!(entry(3), want);
    assert_eq!(entry(4), want, "another change keeps it");
}

/// The path of a program, which is at one of these, and of the libraries that it is
/// linked with.
pub(crate) fn with_libraries(paths: &[&str]) -> Option<Vec<String>> {
    let program = *paths.iter().find(|path| Path::new(path).exists())?;
    let listed = Command::new("ldd").arg(program).output().ok()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    Some(
        std::iter::once(program)
            .chain(libraries)
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn row_19_the_machine_of_a_command_has_a_name() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nRUN (hostname; grep -c my.host-1 /etc/hosts) > /name || true\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let build = |name: &str| {
        let build = workshop.build(&context);
        build.build_arg("BUILDKIT_SANDBOX_HOSTNAME", name)
    };
    let named = workshop.built(build("my.host-1"));
    assert_eq!(named.text("name"), "my.host-1\n1\n");
    // Another name is another command, and none is the one that it always has.
    assert_eq!(
        workshop.built(build("")).text("name"),
        "buildkitsandbox\n0\n"
    );
    for name in ["a b", "a\n1.2.3.4 registry", "-a", &"a".repeat(65)] {
        let error = workshop.fails(build(name)).to_string();
        assert!(error.contains("BUILDKIT_SANDBOX_HOSTNAME"), "{error}");
    }
}

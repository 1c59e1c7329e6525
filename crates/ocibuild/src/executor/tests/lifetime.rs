//! How commands begin and end, and that nothing is left of them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::{helper, sites_and_pod, sleepers, unique_nap, until};
use super::*;
use crate::cancel::Cancel;
use crate::event::Stream;

/// A sandbox of this process, where it can have one.
fn own_sandbox() -> Option<(Room, Box<dyn Sandbox>)> {
    let room = Room::new(*sites().first()?);
    let sandbox = probe::select(&Helper::Program(helper()), &room.path("probe")).unwrap();
    Some((room, sandbox))
}

fn quiet(_: Stream, _: &[u8]) {}

#[test]
fn privileged_the_status_is_the_commands() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        assert_eq!(room.run(&room.script("exit 3")).exit, Some(Exit::Code(3)));
        let killed = room.run(&room.script("sh -c 'kill -9 $$'; exit $?"));
        assert_eq!(killed.exit, Some(Exit::Code(137)), "{site:?}");

        let nap = unique_nap();
        let child = room.start(&room.spec(&["sleep", &nap]));
        until("the command runs", || !sleepers(&nap).is_empty());
        for pid in sleepers(&nap) {
            kill_process(pid, Signal::KILL).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(r#""exit":{"signal":9}"#), "{site:?}: {text}");
    }
}

#[test]
fn privileged_what_cannot_be_started_is_named() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        fs::write(room.path("lower/bin/notes"), "no program").unwrap();
        room.own_all();
        for (argv, expected) in [
            ("frobnicate", "command not found: frobnicate"),
            ("/no/such/program", "command not found: /no/such/program"),
            ("notes", "cannot execute notes: EACCES (Permission denied)"),
            ("/etc", "cannot execute /etc: EACCES (Permission denied)"),
        ] {
            assert_eq!(
                room.run(&room.spec(&[argv, "-x"])).refusal(),
                expected,
                "{site:?}"
            );
        }
    }
    let Some((room, sandbox)) = own_sandbox() else {
        return;
    };
    let code = |argv: &[&str]| {
        let result = sandbox.run(&room.spec(argv), &mut quiet, &Cancel::new());
        result.expect_err("cannot be started").exit_code()
    };
    assert_eq!(code(&["frobnicate"]), Some(127));
    assert_eq!(code(&["/etc"]), Some(126));
    assert_eq!(code(&[]), None);
}

#[test]
fn privileged_the_background_ends_with_the_command() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        let nap = unique_nap();
        // The second one is adopted by pid 1, which is the command.
        let script = format!("sleep {nap} & setsid nohup sh -c 'sleep {nap} &' & wait $!; exit 5");
        assert_eq!(
            room.run(&room.script(&script)).exit,
            Some(Exit::Code(5)),
            "{site:?}"
        );
        assert_eq!(sleepers(&nap), [], "{site:?}");
    }
}

#[test]
fn privileged_a_cancel_ends_the_command_at_once() {
    let Some((room, sandbox)) = own_sandbox() else {
        return;
    };
    let (nap, cancel) = (unique_nap(), Cancel::new());
    let spec = room.script(&format!("trap '' TERM INT HUP; sleep {nap} & sleep {nap}"));
    let took = std::thread::scope(|scope| {
        let command = scope.spawn(|| {
            let result = sandbox.run(&spec, &mut quiet, &cancel);
            assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
            Instant::now()
        });
        until("both run", || sleepers(&nap).len() == 2);
        let begun = Instant::now();
        cancel.cancel();
        command.join().unwrap() - begun
    });
    // Meant to be 100 ms; a loaded machine gets more.
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(sleepers(&nap), []);

    let result = sandbox.run(&room.script("true"), &mut quiet, &cancel);
    assert!(
        matches!(result, Err(Error::Cancelled)),
        "cancelled before it began: {result:?}"
    );
}

/// Where there are no process ids of its own, what a command has left is found by its builder.
#[test]
fn privileged_a_killed_helper_takes_the_command_with_it() {
    for site in sites() {
        let room = Room::new(site);
        let nap = unique_nap();
        let script = format!("sleep {nap} & setsid sh -c 'sleep {nap}; true' & sleep {nap}");
        let child = room.start(&room.script(&script));
        until("all run", || sleepers(&nap).len() == 3);
        let builder = child.id();
        let helper = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
            (parent == builder.to_string()).then_some(pid)
        });
        let helpers: Vec<i32> = helper.collect();
        for pid in helpers.into_iter().filter_map(Pid::from_raw) {
            kill_process(pid, Signal::KILL).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        until("nothing is left", || sleepers(&nap).is_empty());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("signal: 9"), "{site:?}: {text}");
    }
}

#[test]
fn privileged_a_killed_builder_takes_the_command_with_it() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        let nap = unique_nap();
        let mut builder = room.start(&room.script(&format!("setsid sleep {nap} & sleep {nap}")));
        until("both run", || sleepers(&nap).len() == 2);
        builder.kill().unwrap();
        builder.wait().unwrap();
        until("both are gone", || sleepers(&nap).is_empty());
        until("the helper has cleaned up", || {
            fs::read_dir(room.path("work")).unwrap().next().is_none()
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(room.path("").to_str().unwrap()),
            "{site:?}: {mounts}"
        );
    }
}

#[test]
fn privileged_a_command_cannot_signal_its_builder() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        let script = "echo $$; test $PPID = 0 || kill -9 $PPID && echo killed; echo lives";
        let outcome = room.run(&room.script(script));
        let lines: Vec<&str> = outcome.text().lines().collect();
        assert_eq!(lines.last(), Some(&"lives"), "{site:?}: {outcome:?}");
        // Elsewhere its parent has no process id that it could name.
        let has_own_ids = site.has_namespaces() && site != Site::Pod;
        assert_eq!(lines[0] == "1", has_own_ids, "{site:?}: {outcome:?}");
    }
}

#[test]
fn privileged_output_comes_whole_and_as_it_is_made() {
    let Some((room, sandbox)) = own_sandbox() else {
        return;
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let script = "echo ready; while ! test -e /mnt/go; do :; done; seq 1 99999; seq 1 99999 >&2";
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => {
            if out.is_empty() {
                // Answers the first line while the command runs.
                fs::write(room.path("source/go"), []).unwrap();
            }
            out.extend_from_slice(bytes);
        }
        Stream::Stderr => err.extend_from_slice(bytes),
    };
    fs::create_dir(room.path("source")).unwrap();
    let mut spec = room.script(script);
    let source = MountSource::Bind {
        path: room.path("source"),
        writable: false,
    };
    spec.mounts = vec![Mount {
        target: "/mnt".into(),
        source,
    }];
    let exit = sandbox.run(&spec, &mut output, &Cancel::new()).unwrap();
    assert_eq!(exit, Exit::Code(0));
    let numbers: String = (1..=99_999).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(out).unwrap(), format!("ready\n{numbers}"));
    assert_eq!(String::from_utf8(err).unwrap(), numbers);
}

#[test]
fn privileged_commands_run_side_by_side() {
    let Some((_, sandbox)) = own_sandbox() else {
        return;
    };
    std::thread::scope(|scope| {
        for number in 0..8 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let room = Room::new(sites()[0]);
                let mut out = Vec::new();
                let mut output = |_: Stream, bytes: &[u8]| out.extend_from_slice(bytes);
                let spec = room.script(&format!("echo {number} > /n; cat /n; echo $$"));
                let exit = sandbox.run(&spec, &mut output, &Cancel::new()).unwrap();
                assert_eq!(exit, Exit::Code(0));
                assert_eq!(String::from_utf8(out).unwrap(), format!("{number}\n1\n"));
            });
        }
    });
}

#[test]
fn privileged_a_command_costs_little() {
    let Some((room, sandbox)) = own_sandbox() else {
        return;
    };
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            sandbox
                .run(&room.spec(&["true"]), &mut quiet, &Cancel::new())
                .unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "a command of nothing: {:?} at best, {:?} in the middle",
        times[0], times[10]
    );
    // Generous, as this is an unoptimised helper on a machine that does other things.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn a_program_that_takes_no_part_is_no_helper() {
    let dir = tempfile::tempdir().unwrap();
    let reasons = |helper: &Helper| {
        let refusals = probe::select(helper, dir.path()).err().expect("no helper");
        refusals.to_string()
    };
    assert!(reasons(&Helper::CurrentExe).contains("call ocibuild::init() first in main"));
    assert!(reasons(&Helper::Program("/bin/true".into())).contains("before it answered"));
    let missing = reasons(&Helper::Program("/no/helper".into()));
    assert!(
        missing.contains("start helper process /no/helper"),
        "{missing}"
    );
}

//! One suite for every identity: what a command sees, may do, and leaves.

#![expect(clippy::print_stdout, reason = "a test that skips says why")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::PathBuf;

use super::*;
use site::{Room, Site, file, owner_of, sites, sites_and_pod};

mod alike;
mod lifetime;
mod network;
mod site;
mod special;

#[test]
fn privileged_a_command_sees_what_dockers_would() {
    for site in sites() {
        let room = Room::new(site);
        let script = "\
            id -u; id -g; hostname; umask; pwd; readlink /proc/self/fd/0
            ls /proc/self/fd | wc -l
            grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\t\\n' '  '; echo
            tr '\\0' ' ' < /proc/$$/environ; echo";
        let mut spec = room.script(script);
        spec.env.push(("A".into(), "b c".into()));
        let outcome = room.run(&spec);
        let caps = "00000000a80425fb";
        let none = "0000000000000000";
        assert_eq!(
            outcome.text().lines().collect::<Vec<_>>(),
            [
                "0",
                "0",
                "buildkitsandbox",
                "0022",
                "/",
                "/dev/null",
                // Three streams and the directory itself.
                "4",
                &format!(
                    "CapInh: {none} CapPrm: {caps} CapEff: {caps} CapBnd: {caps} CapAmb: {none} \
                     NoNewPrivs: 0 Seccomp: 2 "
                ),
                "PATH=/bin A=b c HOME=/root ",
            ],
            "{site:?} {}",
            outcome.stderr
        );
        let kind = match outcome.identity {
            Identity::Real => &[Site::Real, Site::Chroot][..],
            Identity::Range { .. } => &[Site::Range],
            Identity::Recorded => &[Site::Recorded, Site::MappedChroot, Site::Emulation],
            Identity::Single => panic!("owners could be recorded"),
        };
        assert!(kind.contains(&site), "{site:?}");
    }
}

#[test]
fn privileged_processes_have_ids_of_their_own() {
    for site in sites().into_iter().filter(|site| site.has_namespaces()) {
        let room = Room::new(site);
        let outcome = room.run(&room.script("echo $$; set -- /proc/[0-9]*; echo $#"));
        assert_eq!(outcome.text(), "1\n1\n", "{site:?}");
    }
}

#[test]
fn privileged_the_usual_file_systems_are_there() {
    for site in sites().into_iter().filter(|site| site.has_namespaces()) {
        let room = Room::new(site);
        let script = "\
            awk '{ split($4, o, \",\"); print $2, $3, o[1] }' /proc/mounts; echo --
            ls /dev | sort | tr '\\n' ' '; echo
            echo x > /dev/null && echo y > /dev/full; df /dev/shm | tail -1 | awk '{ print $2 }'
            head -c 3 /dev/zero | wc -c; test -c /dev/pts/ptmx && echo ptmx
            set -- /proc/[0-9]*; echo $#
            echo z > /proc/sys/kernel/hostname || echo locked; touch /sys/x || echo fixed
            echo 1 > /proc/sysrq-trigger || echo calm; chmod 600 /dev/null || echo kept";
        let outcome = room.run(&room.script(script));
        let (mounts, rest) = outcome.text().split_once("--\n").unwrap();
        for mount in [
            "/ overlay rw",
            "/proc proc rw",
            "/sys sysfs ro",
            "/dev tmpfs rw",
            "/dev/pts devpts rw",
            "/dev/shm tmpfs rw",
            "/dev/mqueue mqueue rw",
            "/proc/sys proc ro",
        ] {
            assert!(
                mounts.lines().any(|line| line == mount),
                "{site:?}: {mount} in {mounts}"
            );
        }
        assert!(
            !mounts.contains(room.path("").to_str().unwrap()),
            "{mounts}"
        );
        let devices =
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
        let expected = [
            devices, "65536", "3", "ptmx", "1", "locked", "fixed", "calm", "kept",
        ];
        assert_eq!(
            rest.lines().collect::<Vec<_>>(),
            expected,
            "{site:?} {}",
            outcome.stderr
        );
    }
}

/// What programs find in /proc and /dev where these are not mounts.
#[test]
fn privileged_proc_and_dev_are_the_commands_own_without_namespaces() {
    for site in sites().into_iter().filter(|site| !site.has_namespaces()) {
        let room = Room::new(site);
        let script = "
            cat /proc/1/environ 2>/dev/null && echo leaked; readlink /proc/self/exe; readlink /proc/self/cwd
            ls /dev | sort | tr '\\n' ' '; echo; echo x > /dev/null; head -c 3 /dev/zero | wc -c
            echo shared > /dev/shm/a; cat /dev/shm/a; echo via-fd | cat /dev/fd/0
            awk '{ print $2 }' /proc/mounts | head -2; echo no > /proc/sys/kernel/hostname || echo locked
            ln -s /dev/null /tmp/link; echo gone > /tmp/link; cat /tmp/link; set -- /proc/[0-9]*; echo $#
            mknod /tmp/zero c 1 5; head -c 2 /tmp/zero | wc -c; mknod /tmp/disk b 254 0
            cat /tmp/disk || echo refused; ls /proc/self/fd | wc -l; touch /dev/made /proc/made";
        let outcome = room.run(&room.script(script));
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let expected = [
            "/bin/busybox",
            "/",
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
            "3",
            "shared",
            "via-fd",
            "/",
            "/proc",
            "locked",
            // The shell, and what lists them.
            "1",
            "2",
            "refused",
            "4",
        ];
        assert_eq!(lines, expected, "{site:?} {}", outcome.stderr);
        let changes = room.changes();
        assert!(
            changes
                .iter()
                .all(|path| !path.starts_with("dev/") && !path.starts_with("proc/")),
            "{changes:?}"
        );
    }
}

#[test]
fn privileged_users_are_those_of_the_image() {
    for site in sites() {
        let room = Room::new(site);
        let script = "id; echo $HOME; pwd; echo err > /dev/stderr; echo out > /dev/stdout";
        let spec = RunSpec {
            user: "app".into(),
            cwd: "/srv/deep".into(),
            ..room.script(script)
        };
        let outcome = room.run(&spec);
        let expected =
            "uid=1000(app) gid=1001(app) groups=10(wheel),1001(app)\n/home/app\n/srv/deep\nout\n";
        assert_eq!(outcome.text(), expected, "{site:?}");
        assert_eq!(outcome.stderr, "err\n", "{site:?}");
        let owner = owner_of(site, &room.path("upper/srv/deep"));
        assert_eq!(owner, (1000, 1001, 0o755), "{site:?}");

        let spec = RunSpec {
            user: "ghost".into(),
            ..room.script("true")
        };
        assert!(
            room.run(&spec)
                .refusal()
                .starts_with("unable to find user ghost")
        );
        let spec = RunSpec {
            user: "77".into(),
            ..room.script("id -u; id -g; echo $HOME")
        };
        assert_eq!(room.run(&spec).text(), "77\n0\n/\n", "{site:?}");
    }
}

#[test]
fn privileged_setuid_and_chown_work() {
    for site in sites() {
        let room = Room::new(site);
        let spec = RunSpec {
            user: "app".into(),
            ..room.script("id -u; /bin/su -c 'id -u'")
        };
        assert_eq!(room.run(&spec).text(), "1000\n0\n", "{site:?}");

        let room = Room::new(site);
        let script =
            "touch /tmp/f; chown 33:34 /tmp/f; chmod 4711 /tmp/f; stat -c '%u %g %a' /tmp/f";
        assert_eq!(
            room.run(&room.script(script)).text(),
            "33 34 4711\n",
            "{site:?}"
        );
        let kept = owner_of(site, &room.path("upper/tmp/f"));
        assert_eq!(kept, (33, 34, 0o4711), "{site:?}");

        // Only root of the sandbox may remove what is not this user's.
        let tree = room.path("upper");
        assert!(
            room.command("remove")
                .arg(&tree)
                .status()
                .unwrap()
                .success()
        );
        assert!(!tree.exists());
    }
}

#[test]
fn privileged_the_kernel_is_out_of_reach() {
    for site in sites() {
        let room = Room::new(site);
        let script = "\
            mkdir /tmp/m; mount -t tmpfs x /tmp/m && echo mounted; umount /proc && echo unmounted
            unshare -m true && echo unshared; unshare -U true && echo userns
            hostname other && echo renamed
            mknod /tmp/disk b 254 0 && dd if=/tmp/disk of=/dev/null count=1 && echo disk
            mknod /dev/disk b 254 0 && dd if=/dev/disk of=/dev/null count=1 && echo disk
            cat /proc/*/environ | tr '\\0' '\\n' | grep BUILDER_SECRET
            ls / | tr '\\n' ' '";
        let outcome = room.run(&room.script(script));
        assert_eq!(
            outcome.text().trim(),
            "bin dev etc proc root sys tmp",
            "{site:?}"
        );
    }
}

#[test]
fn privileged_changes_are_the_upper_directory_and_nothing_of_ours() {
    for site in sites() {
        let room = Room::new(site);
        let mut spec = room.script(
            "cat /etc/resolv.conf /etc/hosts /run/secrets/key; touch /cache/x/y /mnt/made
             echo no > /etc/hosts; rm /etc/notes; rm -r /etc/dir; mkdir /etc/dir; cat /mnt/host",
        );
        fs::create_dir(room.path("lower/etc/dir")).unwrap();
        fs::write(room.path("lower/etc/dir/old"), "old").unwrap();
        fs::create_dir(room.path("source")).unwrap();
        fs::write(room.path("source/host"), "host").unwrap();
        room.own_all();
        let source = MountSource::Bind {
            path: room.path("source"),
            writable: true,
        };
        spec.mounts = vec![
            file("/etc/resolv.conf", "resolver\n"),
            file("/etc/hosts", "hosts\n"),
            file("/run/secrets/key", "secret\n"),
            Mount {
                target: "/cache/x".into(),
                source: MountSource::Tmpfs { size: Some(4096) },
            },
            Mount {
                target: "/mnt".into(),
                source,
            },
        ];
        let outcome = room.run(&spec);
        assert_eq!(outcome.text(), "resolver\nhosts\nsecret\nhost", "{site:?}");
        assert!(outcome.stderr.contains("/etc/hosts"), "{}", outcome.stderr);
        let mut changes = room.changes();
        if !site.has_namespaces() {
            // Merged trees say what is gone name by name.
            changes.retain(|path| path != "etc/dir/old");
        }
        assert_eq!(changes, ["etc/", "etc/dir/", "etc/notes"], "{site:?}");
        assert!(room.path("source/made").exists());

        let whiteout = fs::symlink_metadata(room.path("upper/etc/notes")).unwrap();
        assert!(
            whiteout.file_type().is_char_device() && whiteout.rdev() == 0,
            "{site:?}"
        );
        let prefix = if site == Site::Real {
            "trusted"
        } else {
            "user"
        };
        if site.has_namespaces() {
            let mut value = [0; 4];
            let name = format!("{prefix}.overlay.opaque");
            let length =
                rustix::fs::lgetxattr(room.path("upper/etc/dir"), name, &mut value).unwrap();
            assert_eq!(&value[..length], b"y", "{site:?}");
        }
        assert_eq!(
            fs::read_dir(room.path("work")).unwrap().count(),
            0,
            "{site:?}"
        );
    }
}

#[test]
fn privileged_mount_points_follow_links_inside_the_root_only() {
    for site in sites() {
        let room = Room::new(site);
        let etc = room.path("lower/etc");
        symlink("../run/resolved/stub.conf", etc.join("resolv.conf")).unwrap();
        symlink("../../../../../../..", etc.join("up")).unwrap();
        symlink(room.path(""), etc.join("absolute")).unwrap();
        room.own_all();
        let before = fs::metadata(&etc).unwrap();
        let mut spec = room.script("cat /etc/resolv.conf /outside /etc/absolute/inside");
        spec.mounts = vec![
            file("/etc/resolv.conf", "1"),
            file("/etc/up/outside", "2"),
            file("/etc/absolute/inside", "3"),
        ];
        assert_eq!(room.run(&spec).text(), "123", "{site:?}");
        // An overlay brings up the directory in which one was made, unchanged.
        let brought_up: &[&str] = if site.has_namespaces() {
            &["tmp/"]
        } else {
            &[]
        };
        assert_eq!(room.changes(), brought_up, "{site:?}");
        assert!(!room.path("inside").exists());
        assert!(!PathBuf::from("/outside").exists());
        assert_eq!(
            fs::metadata(&etc).unwrap().mtime_nsec(),
            before.mtime_nsec()
        );

        // A parent that is the image's own comes up with the mount point, and keeps its time.
        let room = Room::new(site);
        fs::create_dir(room.path("higher")).unwrap();
        fs::create_dir(room.path("higher/etc")).unwrap();
        let (etc, whiteout) = (room.path("higher/etc"), room.path("higher/etc/hosts"));
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, 0o644.into(), 0).unwrap();
        room.own_all();
        let mut spec = room.script("cat /etc/hosts");
        spec.rootfs.lowers.push(room.path("higher"));
        spec.mounts = vec![file("/etc/hosts", "over a whiteout")];
        assert_eq!(room.run(&spec).text(), "over a whiteout", "{site:?}");
        if !site.has_namespaces() {
            assert!(room.changes().is_empty(), "{site:?}");
            continue;
        }
        let (before, after) = (
            fs::metadata(etc).unwrap(),
            fs::metadata(room.path("upper/etc")).unwrap(),
        );
        let time = |data: &fs::Metadata| (data.mtime(), data.mtime_nsec());
        assert_eq!(time(&before), time(&after), "{site:?}");
    }
}

#[test]
fn privileged_an_image_may_be_empty() {
    for site in sites() {
        let room = Room::empty(site);
        let source = MountSource::Bind {
            path: "/bin/busybox".into(),
            writable: false,
        };
        let mut spec = room.spec(&["/tools/busybox", "ls", "/"]);
        spec.rootfs.lowers.clear();
        spec.mounts = vec![
            Mount {
                target: "/tools/busybox".into(),
                source,
            },
            file("/etc/hosts", "hosts"),
        ];
        let outcome = room.run(&spec);
        assert_eq!(outcome.text(), "dev\netc\nproc\nsys\ntools\n", "{site:?}");
        assert_eq!(room.changes(), ["dev/", "proc/", "sys/"], "{site:?}");
    }
}

#[test]
fn privileged_many_layers_are_one_tree() {
    const COUNT: usize = 130;
    for site in sites() {
        let room = Room::new(site);
        let mut spec = room.script("ls /many | wc -l; cat /top; cut -c1-9 /proc/mounts | head -1");
        for number in 0..COUNT {
            let layer = room.path(&format!(
                "{}-{number}",
                "a-rather-long-name-for-a-layer".repeat(3)
            ));
            fs::create_dir_all(layer.join("many")).unwrap();
            fs::write(layer.join(format!("many/{number}")), []).unwrap();
            fs::write(layer.join("top"), format!("{number}\n")).unwrap();
            spec.rootfs.lowers.push(layer);
        }
        room.own_all();
        let expected = format!("{COUNT}\n{}\noverlay /\n", COUNT - 1);
        assert_eq!(room.run(&spec).text(), expected, "{site:?}");

        if !site.has_namespaces() {
            continue;
        }
        spec.rootfs.lowers = vec![room.path("lower"); 500];
        assert!(
            room.run(&spec)
                .refusal()
                .starts_with("500 layers are more than the 499")
        );
    }
}

/// Other layers, in memory or not, are shown to every identity alike.
#[test]
fn privileged_other_layers_are_mounted() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        for (layer, file) in [("one", "kept"), ("one", "hidden"), ("two", "new")] {
            let folder = room.path(layer).join("d");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), layer).unwrap();
        }
        for folder in ["mount-upper", "mount-work"] {
            fs::create_dir(room.path(folder)).unwrap();
        }
        symlink("d/kept", room.path("two/link")).unwrap();
        let whiteout = room.path("two/d/hidden");
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, 0o644.into(), 0).unwrap();
        room.own_all();
        let layers = |path: &str, writes: Option<Writes>| MountSource::Layers {
            lowers: vec![room.path("one"), room.path("two")],
            path: path.into(),
            writes,
        };
        let writes = Writes {
            upper: room.path("mount-upper"),
            work: room.path("mount-work"),
        };
        let mut spec = room.script(
            "ls /ro; cat /file; touch /ro/x || echo fixed; touch /rw/x /rw/d/x && rm /rw/d/kept && ls /rw/d; ls /none",
        );
        let nothing = MountSource::Layers {
            lowers: Vec::new(),
            path: "/".into(),
            writes: None,
        };
        spec.mounts = vec![
            mount("/ro", layers("/d", None)),
            mount("/file", layers("/link", None)),
            mount("/rw", layers("/", Some(writes))),
            mount("/none", nothing),
        ];
        let outcome = room.run(&spec);
        assert_eq!(
            outcome.text(),
            "kept\nnew\nonefixed\nnew\nx\n",
            "{site:?} {outcome:?}"
        );
        assert_eq!(room.changes(), [""; 0], "{site:?}");
        assert!(room.path("one/d/kept").exists());

        spec.mounts = vec![mount("/x", layers("/none", None))];
        assert_eq!(
            room.run(&spec).refusal(),
            "openat2 /none: ENOENT (No such file or directory)",
            "{site:?}"
        );
    }
}

/// What the kernel does with a script and with the names of programs, whoever finds them.
#[test]
fn privileged_programs_are_those_of_the_root() {
    for site in sites_and_pod() {
        let room = Room::new(site);
        room.add_program("/bin/bash");
        for (name, text) in [
            (
                "script",
                "#!/bin/bash -e\necho $0 $1 $2 $3; read c < /proc/$$/comm; echo $c\n",
            ),
            ("nested", "#! /bin/script  x y \n"),
            ("plain", "echo plain $1\n"),
        ] {
            fs::write(room.path("lower/bin").join(name), text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(room.path("lower/bin").join(name), mode).unwrap();
        }
        room.own_all();
        let script = "\
            nested a; script b; plain c
            bash -c 'readlink /proc/$$/exe; exec -a other bash -c \"echo \\$0; exec readlink /proc/self/exe\" zero'
            cd /bin; ./script d; bash -c 'cat <(echo substituted)'
            mkdir /tmp/a; cp bash /tmp/a/echo; /tmp/a/echo -c 'echo copied; readlink /proc/$$/exe; :'
            cp busybox /tmp/a/echo; /tmp/a/echo replaced; rm -r /tmp/a";
        let outcome = room.run(&room.script(script));
        assert_eq!(
            outcome.text().lines().collect::<Vec<_>>(),
            [
                "/bin/script x y /bin/nested a",
                "nested",
                "/bin/script b",
                "script",
                "plain c",
                "/bin/bash",
                "zero",
                "/bin/busybox",
                "./script d",
                "script",
                "substituted",
                "copied",
                "/tmp/a/echo",
                "replaced",
            ],
            "{site:?} {}",
            outcome.stderr
        );
        assert_eq!(room.changes(), ["tmp/"], "{site:?}");
    }
}

fn mount(target: &str, source: MountSource) -> Mount {
    let target = target.into();
    Mount { target, source }
}

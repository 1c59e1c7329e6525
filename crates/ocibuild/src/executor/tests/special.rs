//! Files that are neither files of a disk nor directories, in every engine: sockets with
//! paths, pipes, devices, and whatever is reached by the name of a descriptor.

use super::site::{Room, Site, sites};

/// Package perl-base, which every Debian has.
const PERL: &str = "/usr/bin/perl";

/// Runs a program of Perl's own functions everywhere, which must print the same.
fn everywhere(program: &str, expected: &[&str]) {
    if !std::path::Path::new(PERL).exists() {
        println!("skipped: no {PERL}");
        return;
    }
    for site in sites() {
        let room = Room::new(site);
        room.add_program(PERL);
        room.own_all();
        let outcome = room.run(&room.spec(&[PERL, "-e", program]));
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines, expected, "{site:?} {outcome:?}");
    }
}

/// Paths that are short enough for the kernel only as the step has them.
#[test]
fn privileged_sockets_are_known_by_the_paths_of_the_step() {
    let program = format!(
        r#"
        $| = 1;
        sub name {{ pack("S Z*", 1, $_[0]) }}
        sub path {{ (unpack("S Z*", $_[0]))[1] }}
        sub header {{ my ($name, $iov) = @_; pack("P L x4 P Q Q Q i x4", $name, length $name, $iov, 1, 0, 0, 0) }}
        for my $folder ("/tmp/a", "/tmp/" . "d" x 75) {{
            mkdir $folder or die;
            my ($stream, $server, $client) = map {{ "$folder/$_" }} qw(stream server client);
            socket(my $listens, 1, 1, 0) or die; bind($listens, name($stream)) or die "bind: $!"; listen($listens, 5) or die;
            chmod 0641, $stream or die; chown 7, 8, $stream or die;
            printf "%o %d:%d\n", (stat $stream)[2, 4, 5];
            if (!fork) {{
                socket(my $caller, 1, 1, 0); bind($caller, name("$stream.caller")) or die; connect($caller, name($stream)) or die "connect: $!";
                print "peer\n" if path(getpeername($caller)) eq $stream;
                exit;
            }}
            my $from = accept(my $accepted, $listens); wait;
            print "accepted\n" if path($from) eq "$stream.caller";
            print "named\n" if path(getsockname($listens)) eq $stream;

            socket(my $receives, 1, 2, 0) or die; bind($receives, name($server)) or die;
            socket(my $sends, 1, 2, 0) or die; bind($sends, name($client)) or die;
            send($sends, "one", 0, name($server)) or die "send: $!";
            $from = recv($receives, my $text, 99, 0);
            print "$text ", (path($from) eq $client ? "from the client" : path($from)), "\n";
            send($receives, "two", 0, $from) or die "answer: $!"; recv($sends, $text, 99, 0); print "$text\n";
            my ($three, $to) = ("three", name($server));
            my $iov = pack("P Q", $three, 5);
            my $message = header($to, $iov);
            syscall({sendmsg}, fileno($sends), $message, 0) == 5 or die "sendmsg: $!";
            recv($receives, $text, 99, 0); print "$text\n";
            my $messages = ($message . pack("L x4", 0)) x 2;
            my $sent = syscall({sendmmsg}, fileno($sends), $messages, 2, 0);
            print $sent > 0 ? unpack("x56 L", $messages) : "sendmmsg: $!", "\n";
            recv($receives, $text, 99, 0); print "$text\n";
            my ($buffer, $place) = ("\0" x 9, "\0" x 110);
            my $into = pack("P Q", $buffer, 9);
            my $received = header($place, $into);
            send($sends, "four", 0, $to) or die;
            recv($receives, $text, 99, 0) if $sent == 2;
            syscall({recvmsg}, fileno($receives), $received, 0) == 4 or die "recvmsg: $!";
            print path(substr($place, 0, unpack("x8 L", $received))) eq $client ? "$buffer\n" : "not from the client\n";
            connect($sends, name($server)) or die; print "connected\n" if path(getpeername($sends)) eq $server;
        }}
        print "too long\n" if !connect(do {{ socket(my $s, 1, 1, 0); $s }}, name("/tmp/" . "x" x 120));
        "#,
        sendmsg = libc::SYS_sendmsg,
        sendmmsg = libc::SYS_sendmmsg,
        recvmsg = libc::SYS_recvmsg,
    );
    let once = [
        "140641 7:8",
        "peer",
        "accepted",
        "named",
        "one from the client",
        "two",
        "three",
        "5",
        "three",
        "four\0\0\0\0\0",
        "connected",
    ];
    let expected = [&once[..], &once, &["too long"]].concat();
    everywhere(&program, &expected);
}

/// As PostgreSQL does.
#[test]
fn privileged_sockets_belong_to_the_user_who_made_them() {
    everywhere(
        r#"
        mkdir "/tmp/own" or die; chown 1000, 1001, "/tmp/own"; mkdir "/tmp/roots", 0755 or die;
        $( = 1001; $) = "1001 1001"; $< = 1000; $> = 1000;
        umask 027;
        sub made { socket(my $s, 1, 1, 0) or die; bind($s, pack("S Z*", 1, $_[0])) ? "made" : "refused" }
        print made("/tmp/own/s"), "\n";
        printf "%o %d:%d\n", (stat "/tmp/own/s")[2, 4, 5];
        chmod 0777, "/tmp/own/s" or print "chmod: $!\n";
        printf "%o %d:%d\n", (stat "/tmp/own/s")[2, 4, 5];
        print made("/tmp/roots/s"), " ", made("/tmp/own/s"), "\n";
        unlink "/tmp/own/s" or print "unlink: $!\n";
        "#,
        &[
            "made",
            "140750 1000:1001",
            "140777 1000:1001",
            "refused refused",
        ],
    );
}

#[test]
fn privileged_modes_owners_and_times_of_special_files() {
    let program = format!(
        r#"
        sub shown {{ my $path = shift; my @all = lstat $path; sprintf "%o %d:%d %x %d", @all[2, 4, 5, 6, 9] }}
        chdir "/tmp";
        open(my $file, ">", "file"); mkdir "dir", 0755; symlink "nowhere", "link"; system("mknod pipe p");
        socket(my $s, 1, 1, 0); bind($s, pack("S Z*", 1, "socket"));
        for my $what (qw(file dir pipe socket)) {{
            chown 5, 6, $what or print "chown $what: $!\n";
            chmod 0640, $what or print "chmod $what: $!\n";
            utime 1000000000, 1000000000, $what or print "utime $what: $!\n";
            print "$what ", shown($what), "\n";
            # What C libraries and libacl do, in place of calls that do not follow links.
            sysopen(my $held, $what, 0x200000 | 0x20000) or print "open $what: $!\n";
            my $name = "/proc/self/fd/" . fileno $held;
            chown 7, 8, $name or print "chown $name of $what: $!\n";
            chmod 0751, $name or print "chmod $name of $what: $!\n";
            utime 1000000001, 1000000001, $name or print "utime $name of $what: $!\n";
            print "$what ", shown($what), "\n";
            my ($attribute, $value) = ("user.note", "note");
            my $done = syscall({setxattr}, $name, $attribute, $value, 4, 0);
            print "$what ", $done == 0 ? "noted" : "refused", "\n";
        }}
        "#,
        setxattr = libc::SYS_setxattr,
    );
    let expected = [
        "file 100640 5:6 0 1000000000",
        "file 100751 7:8 0 1000000001",
        "file noted",
        "dir 40640 5:6 0 1000000000",
        "dir 40751 7:8 0 1000000001",
        "dir noted",
        "pipe 10640 5:6 0 1000000000",
        "pipe 10751 7:8 0 1000000001",
        "pipe refused",
        "socket 140640 5:6 0 1000000000",
        "socket 140751 7:8 0 1000000001",
        "socket refused",
    ];
    everywhere(&program, &expected);
}

/// A node that no kernel makes for this user is recorded; the next command sees it too.
#[test]
fn privileged_devices_are_made_where_they_can_be_recorded() {
    let script = "
        umask 0; mknod -m 640 /tmp/null c 1 3 && mknod -m 600 /tmp/disk b 7 1 && chown 5:6 /tmp/null
        chmod 666 /tmp/null; mv /tmp/null /tmp/moved; touch -d @1000000000 /tmp/disk
        stat -c '%F %t:%T %a %u:%g' /tmp/moved /tmp/disk; ls -l /tmp/disk | cut -c1-10; test -c /tmp/moved && echo device";
    let expected = [
        "character special file 1:3 666 5:6",
        "block special file 7:1 600 0:0",
        "brw-------",
        "device",
    ];
    // With a range of ids the kernel makes none, and nobody records them yet.
    let recorded = sites().into_iter().filter(|site| *site != Site::Range);
    for site in recorded {
        let room = Room::new(site);
        let outcome = room.run(&room.script(script));
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines, expected, "{site:?} {outcome:?}");
        let mut next = room.script(
            "stat -c '%F %t:%T %a %u:%g' /tmp/moved /tmp/disk; rm /tmp/moved && echo removed",
        );
        std::fs::rename(room.path("upper"), room.path("first")).unwrap();
        std::fs::create_dir(room.path("upper")).unwrap();
        room.own_upper();
        next.rootfs.lowers.push(room.path("first"));
        let outcome = room.run(&next);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(
            lines,
            [expected[0], expected[1], "removed"],
            "{site:?} {outcome:?}"
        );
    }
}

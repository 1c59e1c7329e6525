//! ADD of archives of the context: what counts as one, what is extracted and where to.

use std::io::Write;

use ocibuild::layer::TreePath;
use ocibuild::testing::ContextDir;
use ocibuild::{ErrorKind, Output};
use tar::{EntryType, Header};

use crate::built::{Built, Workshop, built};

const MTIME: u64 = 1_500_000_000;

/// A tar in which names and links are written as they are given.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(self, kind: EntryType, name: &str, link: &str, mode: u32, content: &str) -> Self {
        self.owned(kind, name, link, mode, (3, 4), content)
    }

    fn owned(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        (uid, gid): (u64, u64),
        content: &str,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content.as_bytes());
        let padding = content.len().next_multiple_of(512) - content.len();
        self.0.extend(vec![0; padding]);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o640, content)
    }

    fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, "", mode, "")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, "")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o640, "")
    }

    /// Dates the last entry, which has no content, as GNU tar writes times before 1970.
    fn older_than_1970(mut self) -> Self {
        let start = self.0.len() - 512;
        let mut header = Header::from_byte_slice(&self.0[start..]).clone();
        header.as_old_mut().mtime = [0xff; 12];
        header.set_cksum();
        self.0.truncate(start);
        self.0.extend(header.as_bytes());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    bzip2.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::default();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

fn from_scratch(context: ContextDir, instructions: &str) -> Built {
    built(context, &format!("FROM scratch\n{instructions}\n"))
}

fn extracted(tar: Tar, instructions: &str) -> Built {
    from_scratch(ContextDir::new().file("a.tar", tar.end()), instructions)
}

fn failure(tar: Tar, instructions: &str) -> String {
    let workshop = Workshop::new();
    let dockerfile = format!("FROM scratch\n{instructions}\n");
    let context = ContextDir::new()
        .file("a.tar", tar.end())
        .file("Dockerfile", dockerfile);
    let error = workshop.fails(workshop.build(&context));
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    ocibuild::causes::one_line(&error)
}

#[test]
fn b52_the_content_decides_what_is_an_archive() {
    let tar = Tar::default().file("f", "text").end();
    let archives = [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("bzip2", bzip2(&tar)),
        ("xz", xz(&tar)),
        ("zstd", zstd::encode_all(tar.as_slice(), 1).unwrap()),
        // Nothing at its end, as some tools leave it.
        ("open", tar[..1024].to_vec()),
    ];
    for (name, bytes) in archives {
        let image = from_scratch(
            ContextDir::new().file(name, bytes),
            &format!("ADD {name} /d"),
        );
        let want = ["d 0755 0:0 dir", "d/f 0640 3:4 file"];
        assert_eq!(image.list(""), want, "{name}");
        assert_eq!(image.text("d/f"), "text", "{name}");
    }
    let mut broken = tar.clone();
    broken[0] ^= 1;
    let files = [
        ("text.tar", b"text".to_vec()),
        ("text.tar.gz", gzip(b"text")),
        ("empty.tar", vec![0; 10240]),
        ("empty.tar.gz", gzip(&[0; 10240])),
        ("nothing.tar", Vec::new()),
        ("broken.tar", broken),
        ("broken.tgz", gzip(&tar)[..20].to_vec()),
    ];
    for (name, bytes) in files {
        let image = from_scratch(
            ContextDir::new().file(name, bytes),
            &format!("ADD {name} /d"),
        );
        assert_eq!(image.list(""), ["d 0644 0:0 file"], "{name}");
    }
}

#[test]
fn b52_entries_keep_what_they_are() {
    let tar = Tar::default()
        .dir("./", 0o700)
        .dir("sub/", 0o2711)
        .file("sub/f", "one")
        .hard_link("sub/twin", "sub/f")
        .symlink("link", "sub/f")
        .entry(EntryType::Fifo, "pipe", "", 0o600, "")
        .entry(EntryType::Char, "null", "", 0o666, "")
        .entry(EntryType::Block, "disk", "", 0o660, "")
        .file("implied/deep/f", "");
    let image = extracted(tar, "ADD a.tar /d");
    let want = [
        "d 0755 0:0 dir",
        "d/disk 0660 3:4 Block { major: 1, minor: 3 }",
        "d/implied 0755 0:0 dir",
        "d/implied/deep 0755 0:0 dir",
        "d/implied/deep/f 0640 3:4 file",
        "d/link 0777 3:4 -> sub/f",
        "d/null 0666 3:4 Char { major: 1, minor: 3 }",
        "d/pipe 0600 3:4 Fifo",
        "d/sub 2711 3:4 dir",
        "d/sub/f 0640 3:4 file",
        "d/sub/twin 0640 3:4 = d/sub/f",
    ];
    assert_eq!(image.list(""), want);
    let path = TreePath::parse("d/sub").unwrap();
    let time = image.view.lookup(&path).unwrap().entry.mtime;
    assert_eq!(time, MTIME as i64);
}

#[test]
fn b52_nothing_is_older_than_1970() {
    let image = extracted(
        Tar::default().file("f", "").older_than_1970(),
        "ADD a.tar /",
    );
    let path = TreePath::parse("f").unwrap();
    assert_eq!(image.view.lookup(&path).unwrap().entry.mtime, 0);
}

#[test]
fn b52_implied_directories_take_the_group_of_a_set_group_id_directory() {
    let base = ContextDir::new()
        .dir("base/staff")
        .with_mode("base/staff", 0o2775)
        .file(
            "a.tar",
            Tar::default().dir("d", 0o700).file("e/f", "").end(),
        );
    let image = from_scratch(
        base,
        "COPY --chown=5:6 base /\nADD a.tar /staff/\nADD a.tar /staff/new/",
    );
    assert_eq!(image.at("staff/d"), "0700 3:4 dir");
    assert_eq!(image.at("staff/e"), "0755 0:6 dir");
    assert_eq!(image.at("staff/new"), "2755 0:6 dir");
    assert_eq!(image.at("staff/new/e"), "0755 0:6 dir");
}

#[test]
fn b52_an_owner_is_overridden_and_a_mode_ignored() {
    let tar = || {
        Tar::default()
            .dir("d", 0o700)
            .file("d/f", "")
            .file("e/g", "")
    };
    let image = extracted(tar(), "ADD --chown=8:9 --chmod=777 a.tar /x");
    let want = [
        "x 0755 8:9 dir",
        "x/d 0700 8:9 dir",
        "x/d/f 0640 8:9 file",
        "x/e 0755 0:0 dir",
        "x/e/g 0640 8:9 file",
    ];
    assert_eq!(image.list(""), want);
}

#[test]
fn b52_the_destination() {
    let base = ContextDir::new()
        .file("base/file", "")
        .dir("base/real")
        .symlink("base/link", "real")
        .with_mode("base/real", 0o711)
        .file("a.tar", Tar::default().dir(".", 0o700).file("f", "").end());
    let image = from_scratch(base, "COPY base /\nADD a.tar /link");
    assert_eq!(image.at("link"), "0777 0:0 -> real");
    assert_eq!(
        image.at("real"),
        "0711 0:0 dir",
        "the root of the archive is not it"
    );
    assert_eq!(image.at("real/f"), "0640 3:4 file");
    let error = failure(Tar::default().file("f", ""), "COPY a.tar /d\nADD a.tar /d");
    assert!(error.contains("\"/d\": it is not a directory"), "{error}");
}

#[test]
fn b52_a_member_replaces_what_has_its_name() {
    let base = || {
        ContextDir::new()
            .file("base/dir/old", "old")
            .file("base/file", "old")
            .dir("base/real")
            .symlink("base/link", "real")
            .symlink("base/lib", "real")
    };
    let tar = Tar::default()
        .file("dir", "now a file")
        .dir("file", 0o700)
        .file("file/f", "")
        .dir("link/", 0o755)
        .file("link/f", "in the new directory")
        .file("lib/f", "through the link")
        .file("again", "first")
        .file("again", "second")
        .file("kept", "first")
        .hard_link("twin", "kept")
        .file("kept", "second");
    let image = from_scratch(base().file("a.tar", tar.end()), "COPY base /\nADD a.tar /");
    for (path, text) in [
        ("dir", "now a file"),
        ("link/f", "in the new directory"),
        ("real/f", "through the link"),
        ("again", "second"),
        ("kept", "second"),
        ("twin", "first"),
    ] {
        assert_eq!(image.text(path), text, "{path}");
    }
    assert_eq!(image.at("dir/old"), "-");
    assert_eq!(image.at("file"), "0700 3:4 dir");
    assert_eq!(image.at("lib"), "0777 0:0 -> real");

    let tar = Tar::default().dir("dir", 0o711).hard_link("copy", "file");
    let image = from_scratch(base().file("a.tar", tar.end()), "COPY base /\nADD a.tar /");
    assert_eq!(image.at("dir"), "0711 3:4 dir");
    assert_eq!(image.text("dir/old"), "old", "directories are merged");
    // A layer cannot link to a file below it.
    assert_eq!(
        (image.at("copy"), image.text("copy")),
        ("0640 3:4 file".into(), "old".into())
    );

    let tar = Tar::default().file("dir", "").dir("dir", 0o755);
    let workshop = Workshop::new();
    let context = base()
        .file("a.tar", tar.end())
        .file("Dockerfile", "FROM scratch\nCOPY base /\nADD a.tar /\n");
    let error = workshop.fails(workshop.build(&context)).to_string();
    assert!(
        error.contains("cannot extract \"/dir\" of the archive"),
        "{error}"
    );
}

#[test]
fn b52_nothing_leaves_the_destination() {
    let tar = Tar::default()
        .file("/etc/absolute", "")
        .file("../../etc/up", "")
        .file("a/../../etc/around", "")
        .symlink("out", "../../../etc")
        .file("out/through", "")
        .symlink("root", "/etc")
        .file("root/through-root", "")
        .hard_link("linked", "../../etc/up");
    let image = extracted(tar, "ADD a.tar /d");
    let want = [
        "d 0755 0:0 dir",
        "d/etc 0755 0:0 dir",
        "d/etc/absolute 0640 3:4 file",
        "d/etc/around 0640 3:4 file",
        "d/etc/through 0640 3:4 file",
        "d/etc/through-root 0640 3:4 file",
        "d/etc/up 0640 3:4 file",
        "d/linked 0640 3:4 = d/etc/up",
        "d/out 0777 3:4 -> ../../../etc",
        "d/root 0777 3:4 -> /etc",
    ];
    assert_eq!(image.list(""), want);
    for (tar, reason) in [
        (
            Tar::default().symlink("out", "../../etc").file("out/f", ""),
            "cannot extract \"/out/f\" of the archive: it lies below a link that leads nowhere",
        ),
        (
            Tar::default()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/f", ""),
            "it lies below too many links",
        ),
        (
            Tar::default().file("f", "").file("f/g", ""),
            "it lies below something that is not a directory",
        ),
        (
            Tar::default().hard_link("f", "/etc/shadow"),
            "it is a link to a file that is not there",
        ),
        (
            Tar::default().hard_link("d", "d/.."),
            "it is a link to a file that is not there",
        ),
        (
            Tar::default().file("..", ""),
            "it would replace the destination",
        ),
        (
            Tar::default().dir("d", 0o755).hard_link("e", "d"),
            "it is a hard link to a directory",
        ),
        (
            Tar::default()
                .file("f", "")
                .entry(EntryType::Regular, ".wh.f", "", 0o644, ""),
            "its name begins with \".wh.\"",
        ),
        (
            Tar::default().owned(EntryType::Regular, "f", "", 0o644, (0, u32::MAX.into()), ""),
            "an owner is out of range",
        ),
        (
            Tar::default()
                .file("f", "")
                .entry(EntryType::new(b'z'), "g", "", 0, ""),
            "unsupported type",
        ),
    ] {
        let error = failure(tar, "ADD a.tar /d");
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn b52_a_broken_archive_fails_the_build() {
    let tar = Tar::default().file("f", &"x".repeat(4000)).end();
    for bytes in [tar[..2000].to_vec(), gzip(&tar[..2000])] {
        let workshop = Workshop::new();
        let context = ContextDir::new()
            .file("a", bytes)
            .file("Dockerfile", "FROM scratch\nADD a /d/\n");
        let error = workshop.fails(workshop.build(&context));
        assert_eq!(
            error.to_string(),
            "Dockerfile:2: cannot extract the archive \"a\""
        );
        assert_eq!(error.kind(), ErrorKind::User);
    }
}

#[test]
fn b53_what_is_extracted_and_what_is_not() {
    let one = Tar::default().file("one", "1").end();
    let two = gzip(&Tar::default().file("two", "2").end());
    let context = || {
        ContextDir::new()
            .file("in/one.tar", &one)
            .file("in/two.tgz", &two)
            .file("in/text", "")
            .symlink("link", "in/one.tar")
    };
    for (instruction, want) in [
        (
            "ADD in/*.t* in/text /d",
            &[
                "d 0755 0:0 dir",
                "d/one 0640 3:4 file",
                "d/text 0644 0:0 file",
                "d/two 0640 3:4 file",
            ][..],
        ),
        ("ADD link /d", &["d 0755 0:0 dir", "d/one 0640 3:4 file"]),
        (
            "ADD in /d",
            &[
                "d 0755 0:0 dir",
                "d/one.tar 0644 0:0 file",
                "d/text 0644 0:0 file",
                "d/two.tgz 0644 0:0 file",
            ],
        ),
        ("ADD --unpack=false in/one.tar /d", &["d 0644 0:0 file"]),
        (
            "ADD --unpack=true in/text in/one.tar /d/",
            &[
                "d 0755 0:0 dir",
                "d/one 0640 3:4 file",
                "d/text 0644 0:0 file",
            ],
        ),
        (
            "ADD --unpack in/one.tar /d",
            &["d 0755 0:0 dir", "d/one 0640 3:4 file"],
        ),
        ("COPY in/one.tar /d", &["d 0644 0:0 file"]),
        (
            "ADD --exclude=one in/one.tar /d",
            &["d 0755 0:0 dir", "d/one 0640 3:4 file"],
        ),
    ] {
        assert_eq!(
            from_scratch(context(), instruction).list(""),
            want,
            "{instruction}"
        );
    }
}

#[test]
fn an_unchanged_archive_is_cached_and_a_changed_one_is_not() {
    let workshop = Workshop::new();
    let context = |text: &str| {
        ContextDir::new()
            .file("a.tar", Tar::default().file("f", text).end())
            .file("Dockerfile", "FROM scratch\nADD a.tar /\n")
    };
    for (text, cached) in [("1", false), ("1", true), ("2", false)] {
        let image = workshop.built(workshop.build(&context(text)));
        assert_eq!(image.cached(), [("ADD a.tar /", cached)], "{text}");
        assert_eq!(image.text("f"), text);
    }
    // The same bytes as a file are another layer.
    let context = context("2").file("Dockerfile", "FROM scratch\nADD --unpack=false a.tar /\n");
    let image = workshop.built(workshop.build(&context));
    assert_eq!(image.list(""), ["a.tar 0644 0:0 file"]);
}

#[test]
fn an_extracted_archive_reaches_every_output() {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file(
            "a.tar",
            Tar::default()
                .file("sub/f", "text")
                .hard_link("g", "sub/f")
                .end(),
        )
        .file(
            "Dockerfile",
            "FROM scratch AS one\nADD a.tar /\nFROM scratch\nCOPY --from=one / /\n",
        );
    let out = workshop.path("tar");
    let build = workshop.build(&context).output(Output::Tar(out.clone()));
    let image = workshop.built(build);
    assert_eq!(
        (image.text("sub/f"), image.at("sub/f")),
        ("text".into(), "0640 3:4 = g".into())
    );
    assert!(out.is_file());
}

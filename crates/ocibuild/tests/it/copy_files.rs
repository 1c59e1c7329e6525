//! COPY of files and directories: what is copied, where it goes, whose it is. The numbers
//! in the names count the behaviours of the reference builder that are easily got wrong.

use ocibuild::testing::ContextDir;

use crate::built::{Built, Workshop, built};

/// Builds instructions from nothing over a context.
fn from_scratch(context: ContextDir, instructions: &str) -> Built {
    built(context, &format!("FROM scratch\n{instructions}\n"))
}

/// Builds what must fail and gives the message.
fn failure(context: ContextDir, instructions: &str) -> String {
    let workshop = Workshop::new();
    let context = context.file("Dockerfile", format!("FROM scratch\n{instructions}\n"));
    workshop.fails(workshop.build(&context)).to_string()
}

fn mtime(image: &Built, path: &str) -> i64 {
    let path = ocibuild::layer::TreePath::parse(path).unwrap();
    image.view.lookup(&path).unwrap().entry.mtime
}

/// The time of every file of a context.
const CONTEXT_TIME: i64 = 1_700_000_000;

#[test]
fn b37_the_context_belongs_to_root_and_a_stage_keeps_its_owners() {
    let context = ContextDir::new()
        .file_with_mode("bits", "", 0o7755)
        .file_with_mode("none", "", 0o400);
    let text = "FROM scratch AS one\nCOPY bits none /d/\nCOPY --chown=5:6 bits /d/owned\n\
                FROM scratch\nCOPY --from=one /d /e\n";
    let image = built(context, text);
    let want = [
        "e/bits 7755 0:0 file",
        "e/none 0400 0:0 file",
        "e/owned 7755 5:6 file",
    ];
    assert_eq!(image.list("e"), want);
    assert_eq!(mtime(&image, "e/owned"), CONTEXT_TIME);
}

#[test]
fn b38_directories_take_the_sources_metadata_but_for_the_top_one() {
    let context = ContextDir::new()
        .file("a/sub/f", "")
        .file("b/sub/g", "")
        .with_mode("a/sub", 0o711)
        .with_mode("a", 0o700)
        .with_mode("b/sub", 0o770);
    let image = from_scratch(context, "COPY --chown=9:9 b /x\nCOPY a /x\nCOPY a /new");
    assert_eq!(image.at("x"), "0755 9:9 dir", "it was there: untouched");
    assert_eq!(
        image.at("new"),
        "0755 0:0 dir",
        "not the 0700 of the source"
    );
    assert_eq!(
        image.at("x/sub"),
        "0711 0:0 dir",
        "it was there: taken over"
    );
    assert_eq!(image.at("x/sub/g"), "0644 9:9 file");
}

#[test]
fn b39_a_directory_in_the_way() {
    let context = || {
        ContextDir::new()
            .file("f", "")
            .file("g", "")
            .dir("empty/f")
            .file("full/f/x", "")
    };
    let image = from_scratch(context(), "COPY empty /t\nCOPY g /t");
    assert_eq!(image.at("t/g"), "0644 0:0 file");
    for (instructions, reason) in [
        (
            "COPY f /t\nCOPY full /t",
            "cannot copy a directory to \"/t\"",
        ),
        (
            "COPY empty /t\nCOPY f /t",
            "cannot replace the directory \"/t/f\"",
        ),
        (
            "COPY full /t\nCOPY f /t",
            "cannot replace the directory \"/t/f\"",
        ),
    ] {
        let error = failure(context(), instructions);
        assert!(error.contains(reason), "{instructions}: {error}");
    }
}

#[test]
fn b40_several_sources_need_no_slash() {
    let context = ContextDir::new().file("f", "f").file("g", "g");
    let image = from_scratch(context, "COPY f g /dst");
    assert_eq!(image.list(""), ["dst 0644 0:0 file"]);
    assert_eq!(image.text("dst"), "g");
}

#[test]
fn b41_a_missing_source_is_an_error_and_an_idle_wildcard_nothing() {
    let context = || ContextDir::new().file("f", "");
    let error = failure(context(), "COPY x /d/");
    assert_eq!(error, "Dockerfile:2: \"/x\": not found");
    assert_eq!(
        from_scratch(context(), "COPY x* /d/").list(""),
        [""; 0],
        "not even the destination"
    );
    assert_eq!(
        from_scratch(context(), "COPY x* f /d/").list(""),
        ["d 0755 0:0 dir", "d/f 0644 0:0 file"]
    );
}

#[test]
fn b42_sources_are_cleaned_and_begin_at_the_root() {
    for source in ["../f", "/f", "./f", "f/", "x/../f", "../../f/", "//f"] {
        let context = ContextDir::new().file("f", "");
        let image = from_scratch(context, &format!("COPY {source} /d"));
        assert_eq!(image.list(""), ["d 0644 0:0 file"], "{source}");
    }
}

#[test]
fn b43_destinations() {
    let context = || ContextDir::new().file("f", "").file("dir/g", "");
    for (instructions, want) in [
        ("COPY f d", &["d 0644 0:0 file"][..]),
        (
            "WORKDIR /w\nCOPY f d",
            &["w 0755 0:0 dir", "w/d 0644 0:0 file"],
        ),
        (
            "WORKDIR /w\nCOPY f .",
            &["w 0755 0:0 dir", "w/f 0644 0:0 file"],
        ),
        ("COPY f /d/", &["d 0755 0:0 dir", "d/f 0644 0:0 file"]),
        ("COPY f /d/.", &["d 0755 0:0 dir", "d/f 0644 0:0 file"]),
        ("COPY f /x/../d", &["d 0644 0:0 file"]),
        ("COPY f /../../d", &["d 0644 0:0 file"]),
        (
            "COPY --chmod=600 f /a/b/f",
            &["a 0600 0:0 dir", "a/b 0600 0:0 dir", "a/b/f 0600 0:0 file"],
        ),
        (
            "COPY --chown=3:4 f /a/f",
            &["a 0755 3:4 dir", "a/f 0644 3:4 file"],
        ),
        (
            "COPY --chmod=u=rwX,go= f /a/f",
            &["a 0755 0:0 dir", "a/f 0600 0:0 file"],
        ),
        (
            "COPY --chmod=go-rwx dir /a",
            &["a 0755 0:0 dir", "a/g 0600 0:0 file"],
        ),
        (
            "COPY --chmod=644 . /a",
            &[
                "a 0644 0:0 dir",
                "a/Dockerfile 0644 0:0 file",
                "a/dir 0644 0:0 dir",
                "a/dir/g 0644 0:0 file",
                "a/f 0644 0:0 file",
            ],
        ),
    ] {
        let image = from_scratch(context(), instructions);
        assert_eq!(image.list(""), want, "{instructions}");
    }
}

fn links() -> ContextDir {
    ContextDir::new()
        .file("f", "new")
        .dir("links/real")
        .file("links/target", "old")
        .symlink("links/file", "target")
        .symlink("links/dangling", "made")
        .symlink("links/folder", "/real")
        .symlink("links/loop", "loop")
}

#[test]
fn b44_links_in_the_destination_are_followed() {
    let copies = "COPY f /file\nCOPY f /dangling\nCOPY f /folder\nCOPY f /folder/g";
    let image = from_scratch(links(), &format!("COPY links /\n{copies}"));
    for path in ["target", "made", "real/f", "real/g"] {
        assert_eq!(image.text(path), "new", "{path}");
    }
    assert_eq!(image.at("file"), "0777 0:0 -> target");
    let error = failure(links(), "COPY links /\nCOPY f /loop/x");
    assert!(error.contains("cannot follow the links"), "{error}");
}

#[test]
fn b44_b46_link_follows_nothing_and_looks_at_nothing() {
    let image = from_scratch(links(), "COPY links /\nCOPY --link f /folder/f");
    assert_eq!(image.at("folder"), "0755 0:0 dir");
    assert_eq!(image.text("folder/f"), "new");

    let base = "COPY --chown=9:9 --chmod=770 f /d/f\n";
    let image = from_scratch(links(), &format!("{base}COPY --link links/target /d/"));
    assert_eq!(image.at("d"), "0755 0:0 dir", "the top is overwritten");
    // With a mode there is no independent layer.
    let image = from_scratch(
        links(),
        &format!("{base}COPY --link --chmod=600 links/target /d/"),
    );
    assert_eq!(image.at("d"), "0770 9:9 dir");
    let history = "COPY --chmod=600 links/target /d/ # buildkit";
    assert_eq!(image.history()[1], history);

    let accounts = ContextDir::new().file("passwd", "ann:x:7:8::/:/bin/sh\n");
    let error = failure(
        accounts,
        "COPY passwd /etc/\nCOPY --link --chown=ann passwd /p",
    );
    assert!(error.contains("invalid owner \"ann\""), "{error}");
}

#[test]
fn b45_links_of_the_source() {
    let context = || {
        ContextDir::new()
            .file("dir/real", "text")
            .symlink("dir/inner", "real")
            .symlink("to-file", "dir/real")
            .symlink("to-dir", "/dir")
            .symlink("out", "/../../dir/real")
            .symlink("dangling", "nothing")
    };
    for (instructions, want) in [
        ("COPY to-file /d", &["d 0644 0:0 file"][..]),
        ("COPY to-fil? /d", &["d 0644 0:0 file"]),
        ("COPY out /d", &["d 0644 0:0 file"]),
        ("COPY to-dir/real /d", &["d 0644 0:0 file"]),
        (
            "COPY to-dir /d",
            &[
                "d 0755 0:0 dir",
                "d/inner 0777 0:0 -> real",
                "d/real 0644 0:0 file",
            ],
        ),
        (
            "COPY to-dir/r* /d/",
            &["d 0755 0:0 dir", "d/real 0644 0:0 file"],
        ),
        // What a wildcard has found is no way on.
        (
            "COPY */real /d/",
            &["d 0755 0:0 dir", "d/real 0644 0:0 file"],
        ),
        ("COPY to-d*/real /d/", &[]),
    ] {
        let image = from_scratch(context(), instructions);
        assert_eq!(image.list(""), want, "{instructions}");
    }
    let error = failure(context(), "COPY dangling /d");
    assert_eq!(error, "Dockerfile:2: \"/dangling\": not found");
}

#[test]
fn b47_owners_are_looked_up_in_the_stage() {
    let accounts = || {
        ContextDir::new()
            .file("passwd", "root:x:0:0::/:/bin/sh\nann:x:7:8::/:/bin/sh\n")
            .file("group", "root:x:0:\nstaff:x:50:ann\n")
    };
    for (owner, want) in [
        ("1:2", "1:2"),
        ("5", "5:5"),
        (":5", "0:5"),
        ("ann", "7:8"),
        ("ann:staff", "7:50"),
        ("ann:unknown", "7:8"),
        ("7:staff", "7:50"),
        ("unknown", "0:0"),
        ("root", "0:0"),
        ("ann:", "7:8"),
    ] {
        let instructions = format!(
            "COPY passwd group /etc/\nCOPY --chown={owner} group /g\nADD --chown={owner} group /h"
        );
        let image = from_scratch(accounts(), &instructions);
        assert_eq!(image.at("g"), format!("0644 {want} file"), "{owner}");
        assert_eq!(image.at("h"), format!("0644 {want} file"), "{owner}");
    }
    let error = failure(accounts(), "COPY --chown=ann passwd /p");
    assert!(
        error.contains("the stage is empty and names nobody"),
        "{error}"
    );
    let image = from_scratch(accounts(), "COPY --chown=root:root passwd /p");
    assert_eq!(image.at("p"), "0644 0:0 file");
}

#[test]
fn b51_files_in_order_then_documents_and_links_within_one_source() {
    let context = || {
        ContextDir::new()
            .file("a/one", "first")
            .hard_link("a/two", "a/one")
            .hard_link("b/one", "a/one")
            .file("b/two", "second")
    };
    let image = from_scratch(context(), "COPY <<two a/one /x/\nnew\ntwo");
    assert_eq!(
        image.list("x"),
        ["x/one 0644 0:0 file", "x/two 0644 0:0 file"]
    );
    assert_eq!(image.text("x/two"), "new\n");
    let image = from_scratch(context(), "COPY a /x\nCOPY a/one a/two /y/");
    assert_eq!(image.at("x/two"), "0644 0:0 = x/one");
    assert_eq!(image.at("y/two"), "0644 0:0 file");
    // A name that a later source takes away is no link any more.
    let image = from_scratch(context(), "COPY a b /x/");
    assert_eq!(
        image.list("x"),
        ["x/one 0644 0:0 file", "x/two 0644 0:0 file"]
    );
    assert_eq!(
        (image.text("x/one"), image.text("x/two")),
        ("first".into(), "second".into())
    );
}

#[test]
fn b56_times_are_whole_seconds_of_the_source() {
    let image = from_scratch(ContextDir::new().file("f", ""), "COPY f /d/f");
    assert_eq!(mtime(&image, "d/f"), CONTEXT_TIME);
    // Unlike the reference builder, which takes the time of the build.
    assert_eq!(mtime(&image, "d"), CONTEXT_TIME);
}

#[test]
fn a_stage_may_begin_with_a_directory() {
    let workshop = Workshop::new();
    let named = ContextDir::new()
        .file("etc/passwd", "ann:x:7:8::/:/bin/sh\n")
        .file("skip", "")
        .file(".dockerignore", "skip\n.dockerignore");
    let text = "FROM files\nCOPY --chown=ann f /home/f\n";
    let context = ContextDir::new().file("f", "").file("Dockerfile", text);
    let build = || {
        let directory = ocibuild::NamedContext::Directory(named.path().to_owned());
        workshop.built(workshop.build(&context).named_context("files", directory))
    };
    let image = build();
    let want = [
        "etc 0755 0:0 dir",
        "etc/passwd 0644 0:0 file",
        "home 0755 7:8 dir",
        "home/f 0644 7:8 file",
    ];
    assert_eq!(image.list(""), want);
    assert_eq!(image.config.config.working_dir, "/");
    let history = ["FROM files", "COPY --chown=ann f /home/f # buildkit"];
    assert_eq!(image.history(), history);
    let again = build();
    let cached = [("FROM files", true), ("COPY --chown=ann f /home/f", true)];
    assert_eq!(again.cached(), cached);
    assert_eq!(again.digest(), image.digest());
}

#[test]
fn b43_new_directories_take_the_group_of_a_set_group_id_directory() {
    let context = ContextDir::new()
        .file("f", "")
        .file("base/staff/d/f", "")
        .with_mode("base/staff", 0o2775);
    let instructions = "COPY --chown=5:6 base /\nCOPY f /staff/new/deep/\nCOPY base/staff/d /staff/top\n\
        COPY --chown=7:8 f /staff/owned/\nCOPY base/staff /staff\nWORKDIR /staff/work/x\nUSER 9\nWORKDIR /staff/user";
    let image = from_scratch(context, instructions);
    for (path, want) in [
        ("staff", "2775 5:6 dir"),
        ("staff/new", "2755 0:6 dir"),
        ("staff/new/deep", "2755 0:6 dir"),
        ("staff/new/deep/f", "0644 0:0 file"),
        ("staff/top", "2755 0:6 dir"),
        ("staff/owned", "2755 7:8 dir"),
        ("staff/d", "0755 0:0 dir"),
        ("staff/work", "2755 0:6 dir"),
        ("staff/work/x", "2755 0:6 dir"),
        ("staff/user", "2755 9:9 dir"),
    ] {
        assert_eq!(image.at(path), want, "{path}");
    }
}

#[test]
fn b47_account_files_may_be_links() {
    let context = ContextDir::new()
        .file("f", "")
        .file("lib/users", "app:x:71:72::/:\n")
        .file("lib/groups", "staff:x:50:\n")
        .symlink("etc/passwd", "../lib/users")
        .symlink("etc/group", "/lib/groups");
    let image = from_scratch(
        context,
        "COPY . /\nCOPY --chown=app f /a\nCOPY --chown=app:staff f /b\nUSER app\nWORKDIR /w",
    );
    assert_eq!(image.at("a"), "0644 71:72 file");
    assert_eq!(image.at("b"), "0644 71:50 file");
    assert_eq!(image.at("w"), "0755 71:72 dir");
    let text = "FROM scratch AS one\nCOPY --chown=5:6 f /\nFROM scratch\nARG NONE\n\
        COPY --from=one --chown=$NONE f /\n";
    let image = built(ContextDir::new().file("f", ""), text);
    assert_eq!(image.at("f"), "0644 5:6 file", "no owner was asked for");
}

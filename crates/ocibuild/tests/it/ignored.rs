//! `.dockerignore` in builds: what COPY sees of a context. The numbers in the names count
//! the behaviours of the reference builder that are easily got wrong; `ignore.rs` has the
//! table of single patterns.

use ocibuild::testing::ContextDir;
use ocibuild::{DockerfileSource, ErrorKind};

use crate::built::{Workshop, wait};

/// Lists what is copied of a context with these rules, by path.
fn seen(context: ContextDir, rules: &str) -> Vec<String> {
    let workshop = Workshop::new();
    let context = context.file(".dockerignore", rules);
    let build = workshop.build(&context).dockerfile(DockerfileSource::Text {
        name: "Dockerfile".to_owned(),
        text: "FROM scratch\nCOPY . /\n".to_owned(),
    });
    let lines = workshop.built(build).list("");
    let path = |line: &String| line.split(' ').next().unwrap().to_owned();
    let paths = lines.iter().map(path);
    paths.filter(|path| path != ".dockerignore").collect()
}

fn failure(rules: &str) -> String {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file(".dockerignore", rules)
        .file("Dockerfile", "FROM scratch\n");
    let error = wait(workshop.build(&context).run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    ocibuild::causes::one_line(&error)
}

#[test]
fn b57_lines() {
    let context = || {
        ContextDir::new()
            .file("#h", "")
            .file("a", "")
            .file("b", "")
            .file("x/c", "")
    };
    let all = ["#h", "a", "b", "x", "x/c"];
    for (rules, gone) in [
        ("#h\n", &[][..]),
        (" #h\n", &["#h"]),
        ("\\#h\n", &["#h"]),
        ("  a  \n\t b\t\n", &["a", "b"]),
        ("a\r\nb\r\n", &["a", "b"]),
        ("./a\nx/../b\nx//c/\n", &["a", "b", "x/c"]),
        ("/a\n/x/c\n", &["a", "x/c"]),
        ("a\n!a\n", &[]),
        ("!a\na\n", &["a"]),
        ("*\n! b\n", &["#h", "a", "x", "x/c"]),
        ("\n\n", &[]),
        ("A\n", &[]),
    ] {
        let want: Vec<&str> = all
            .into_iter()
            .filter(|path| !gone.contains(path))
            .collect();
        assert_eq!(seen(context(), rules), want, "{rules:?}");
    }
    for (rules, reason) in [
        (
            "a\n!\n",
            ".dockerignore: line 2: nothing follows the exclamation mark",
        ),
        (
            "a\n!  \n",
            ".dockerignore: line 2: nothing follows the exclamation mark",
        ),
        ("[\n", ".dockerignore: line 1: malformed pattern \"[\""),
        ("a[\n", ".dockerignore: line 1: malformed pattern \"a[\""),
    ] {
        let error = failure(rules);
        assert!(error.ends_with(reason), "{rules:?}: {error}");
    }
}

/// Directories with files on each level.
fn tree() -> ContextDir {
    ContextDir::new()
        .file("a.txt", "")
        .file("sub/b.txt", "")
        .file("sub/deep/c.txt", "")
        .file("sub/x/y", "")
        .with_mode("sub/x", 0o700)
}

const TREE: [&str; 7] = [
    "a.txt",
    "sub",
    "sub/b.txt",
    "sub/deep",
    "sub/deep/c.txt",
    "sub/x",
    "sub/x/y",
];

#[test]
fn b58_levels_and_directories() {
    for (rules, gone) in [
        ("*.txt\n", &["a.txt"][..]),
        ("**/*.txt\n", &["a.txt", "sub/b.txt", "sub/deep/c.txt"]),
        ("sub\n", &TREE[1..]),
        ("sub/\n", &TREE[1..]),
        ("sub/**\n", &TREE[2..]),
        (
            "sub\n!sub/x/y\n",
            &["sub/b.txt", "sub/deep", "sub/deep/c.txt"],
        ),
        (
            "sub\n!sub/x\n",
            &["sub/b.txt", "sub/deep", "sub/deep/c.txt"],
        ),
        (
            "*\n!sub\nsub/deep\n",
            &["a.txt", "sub/deep", "sub/deep/c.txt"],
        ),
        ("sub/*\n", &TREE[2..]),
        ("**/deep\n", &["sub/deep", "sub/deep/c.txt"]),
        ("*\n", &TREE),
        (
            "**\n!**/y\n",
            &["a.txt", "sub/b.txt", "sub/deep", "sub/deep/c.txt"],
        ),
    ] {
        let want: Vec<&str> = TREE
            .into_iter()
            .filter(|path| !gone.contains(path))
            .collect();
        assert_eq!(seen(tree(), rules), want, "{rules:?}");
    }
}

#[test]
fn b58_a_directory_that_something_was_brought_back_in_keeps_its_mode() {
    let workshop = Workshop::new();
    let context = tree()
        .file(".dockerignore", "sub\n!sub/x/y\n")
        .file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let image = workshop.built(workshop.build(&context));
    assert_eq!(
        (image.at("sub"), image.at("sub/x")),
        ("0755 0:0 dir".into(), "0700 0:0 dir".into())
    );
}

#[test]
fn b59_two_stars_at_an_end() {
    let context = || {
        ContextDir::new()
            .file("ab/c", "")
            .file("abc", "")
            .file("b/xa", "")
            .file("dir/f", "")
            .file("za", "")
    };
    let all = ["ab", "ab/c", "abc", "b", "b/xa", "dir", "dir/f", "za"];
    for (rules, gone) in [
        ("ab**\n", &["ab", "ab/c", "abc"][..]),
        ("**a\n", &["b/xa", "za"]),
        ("dir/**\n", &["dir/f"]),
        ("**/dir\n", &["dir", "dir/f"]),
        ("d?r\n", &["dir", "dir/f"]),
        ("**/[x-z]a\n", &["b/xa", "za"]),
    ] {
        let want: Vec<&str> = all
            .into_iter()
            .filter(|path| !gone.contains(path))
            .collect();
        assert_eq!(seen(context(), rules), want, "{rules:?}");
    }
}

#[test]
fn b60_what_the_build_reads_itself_may_be_ignored() {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file(".dockerignore", "Dockerfile\n.dockerignore\ndrop\n")
        .file("Dockerfile", "FROM scratch\nCOPY . /\n")
        .file("drop", "")
        .file("keep", "");
    let image = workshop.built(workshop.build(&context));
    assert_eq!(image.list(""), ["keep 0644 0:0 file"]);

    for source in ["drop", "Dockerfile"] {
        let context = ContextDir::new()
            .file(".dockerignore", "drop\nDockerfile\n")
            .file("drop", "")
            .file("Dockerfile", format!("FROM scratch\nCOPY {source} /\n"));
        let error = workshop.fails(workshop.build(&context)).to_string();
        assert_eq!(error, format!("Dockerfile:2: \"/{source}\": not found"));
    }
}

#[test]
fn b60_the_file_named_after_the_dockerfile_replaces_the_other() {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file(".dockerignore", "one\n")
        .file("docker/app", "FROM scratch\nCOPY . /\n")
        .file("docker/app.dockerignore", "two\ndocker\n")
        .file("one", "")
        .file("two", "");
    let source = DockerfileSource::InContext("docker/app".to_owned());
    let image = workshop.built(workshop.build(&context).dockerfile(source));
    let want = [".dockerignore 0644 0:0 file", "one 0644 0:0 file"];
    assert_eq!(image.list(""), want);
}

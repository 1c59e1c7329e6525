//! `--chmod`, `--exclude`, `--parents` and wildcards: what of the sources is copied, and
//! with which modes.

use ocibuild::testing::ContextDir;

use crate::built::{Workshop, built};

/// Files on three levels, with directories whose modes tell them apart.
fn tree() -> ContextDir {
    ContextDir::new()
        .file("home.txt", "")
        .file("home/a.txt", "")
        .executable("home/b.sh", "")
        .file("home/sub/c.txt", "")
        .file("home/sub/d.md", "")
        .file("home/sub/deep/e.txt", "")
        .with_mode("home/sub/deep", 0o700)
        .with_mode("home/sub", 0o711)
        .with_mode("home", 0o750)
}

fn listed(instruction: &str) -> Vec<String> {
    built(tree(), &format!("FROM scratch\n{instruction}\n")).list("")
}

fn failure(instruction: &str) -> String {
    let workshop = Workshop::new();
    let context = tree().file("Dockerfile", format!("FROM scratch\n{instruction}\n"));
    workshop.fails(workshop.build(&context)).to_string()
}

#[test]
fn b48_symbolic_modes() {
    for (instruction, want) in [
        (
            "COPY --chmod=u=rwX,go=rX home /m",
            &[
                "m 0755 0:0 dir",
                "m/a.txt 0644 0:0 file",
                "m/b.sh 0755 0:0 file",
                "m/sub 0755 0:0 dir",
                "m/sub/c.txt 0644 0:0 file",
                "m/sub/d.md 0644 0:0 file",
                "m/sub/deep 0755 0:0 dir",
                "m/sub/deep/e.txt 0644 0:0 file",
            ][..],
        ),
        ("COPY --chmod=g=u,o= home.txt /f", &["f 0660 0:0 file"]),
        ("COPY --chmod=+x home.txt /f", &["f 0755 0:0 file"]),
        (
            "ARG M=u+s\nCOPY --chmod=$M home.txt /f",
            &["f 4644 0:0 file"],
        ),
        ("ARG M\nCOPY --chmod=$M home.txt /f", &["f 0644 0:0 file"]),
        ("COPY --chmod=go= <<f /\nx\nf", &["f 0600 0:0 file"]),
        ("ADD --chmod=a=r home.txt /f", &["f 0444 0:0 file"]),
    ] {
        assert_eq!(listed(instruction), want, "{instruction}");
    }
    for mode in ["99", "u=rwz", "10000", "rwx"] {
        let error = failure(&format!("COPY --chmod={mode} home.txt /f"));
        assert!(
            error.starts_with(&format!(
                "Dockerfile:2: invalid mode {mode:?}: want an octal"
            )),
            "{error}"
        );
    }
}

#[test]
fn b49_excluded_paths_are_relative_to_each_directory() {
    let all = [
        "m 0755 0:0 dir",
        "m/a.txt 0644 0:0 file",
        "m/b.sh 0755 0:0 file",
        "m/sub 0711 0:0 dir",
        "m/sub/c.txt 0644 0:0 file",
        "m/sub/d.md 0644 0:0 file",
        "m/sub/deep 0700 0:0 dir",
        "m/sub/deep/e.txt 0644 0:0 file",
    ];
    for (flags, gone) in [
        ("--exclude=*.txt", &[1][..]),
        ("--exclude=**/*.txt", &[1, 4, 7]),
        ("--exclude=/sub/*", &[4, 5, 6, 7]),
        ("--exclude=sub", &[3, 4, 5, 6, 7]),
        ("--exclude=home", &[]),
        ("--exclude=*.txt --exclude=b.sh", &[1, 2]),
        ("--exclude=** --exclude=!a.txt", &[2, 3, 4, 5, 6, 7]),
        // What is brought back brings its directories along.
        ("--exclude=* --exclude=!sub/deep", &[1, 2, 4, 5]),
        ("--exclude=$UNSET", &[]),
    ] {
        let want: Vec<&str> = all
            .iter()
            .enumerate()
            .filter(|(index, _)| !gone.contains(index))
            .map(|(_, line)| *line)
            .collect();
        for keyword in ["COPY", "ADD"] {
            assert_eq!(
                listed(&format!("{keyword} {flags} home /m")),
                want,
                "{flags}"
            );
        }
    }
    // A source that is a file itself is copied, whatever its name.
    let list = listed("COPY --exclude=*.txt hom* /m/");
    assert!(
        list.contains(&"m/home.txt 0644 0:0 file".to_owned()),
        "{list:?}"
    );
    assert!(
        !list.contains(&"m/a.txt 0644 0:0 file".to_owned()),
        "{list:?}"
    );
    let error = failure("COPY --exclude=[ home /m");
    assert_eq!(
        error,
        "Dockerfile:2: invalid pattern: malformed pattern \"[\""
    );
}

#[test]
fn b50_parents_are_kept() {
    for (instruction, want) in [
        (
            "COPY --parents home/sub/c.txt /x/",
            &[
                "x 0755 0:0 dir",
                "x/home 0750 0:0 dir",
                "x/home/sub 0711 0:0 dir",
                "x/home/sub/c.txt 0644 0:0 file",
            ][..],
        ),
        (
            "COPY --parents home/./sub/c.txt ./home/sub/./d.md /x",
            &[
                "x 0755 0:0 dir",
                "x/d.md 0644 0:0 file",
                "x/sub 0711 0:0 dir",
                "x/sub/c.txt 0644 0:0 file",
            ],
        ),
        (
            "COPY --parents **/*.txt /x/",
            &[
                "x 0755 0:0 dir",
                "x/home 0750 0:0 dir",
                "x/home/a.txt 0644 0:0 file",
                "x/home/sub 0711 0:0 dir",
                "x/home/sub/c.txt 0644 0:0 file",
                "x/home/sub/deep 0700 0:0 dir",
                "x/home/sub/deep/e.txt 0644 0:0 file",
                "x/home.txt 0644 0:0 file",
            ],
        ),
        (
            "COPY --parents h*/sub/*.md /",
            &[
                "home 0750 0:0 dir",
                "home/sub 0711 0:0 dir",
                "home/sub/d.md 0644 0:0 file",
            ],
        ),
        (
            "COPY --parents home/sub/deep /x",
            &[
                "x 0755 0:0 dir",
                "x/home 0750 0:0 dir",
                "x/home/sub 0711 0:0 dir",
                "x/home/sub/deep 0700 0:0 dir",
                "x/home/sub/deep/e.txt 0644 0:0 file",
            ],
        ),
        (
            "COPY --parents --chmod=740 --chown=1:2 home/a.txt /x/",
            &[
                "x 0740 1:2 dir",
                "x/home 0740 1:2 dir",
                "x/home/a.txt 0740 1:2 file",
            ],
        ),
        (
            "COPY --parents --exclude=**/sub home /x",
            &[
                "x 0755 0:0 dir",
                "x/home 0750 0:0 dir",
                "x/home/a.txt 0644 0:0 file",
                "x/home/b.sh 0755 0:0 file",
            ],
        ),
        ("COPY --parents **/nothing /x/", &["x 0755 0:0 dir"]),
        (
            "COPY --parents ../home/a.txt /",
            &["home 0750 0:0 dir", "home/a.txt 0644 0:0 file"],
        ),
    ] {
        assert_eq!(listed(instruction), want, "{instruction}");
    }
    // The reference builder fails here.
    for source in [".", "./.", "/", "./home/../."] {
        let list = listed(&format!("COPY --parents {source} /x"));
        assert!(
            list.contains(&"x/home/sub/deep/e.txt 0644 0:0 file".to_owned()),
            "{source}"
        );
    }
    for (source, path) in [
        ("home/missing", "/home/missing"),
        ("home/./missing", "/home/missing"),
        ("missing/./home", "/missing/home"),
    ] {
        let error = failure(&format!("COPY --parents {source} /x"));
        assert_eq!(error, format!("Dockerfile:2: {path:?}: not found"));
    }
}

#[test]
fn b50_two_stars_are_one_without_parents() {
    let want = ["x 0755 0:0 dir", "x/home.txt 0644 0:0 file"];
    assert_eq!(listed("COPY **.txt /x/"), want);
    let want = ["x 0755 0:0 dir", "x/a.txt 0644 0:0 file"];
    assert_eq!(listed("COPY **/*.txt /x/"), want);
    assert_eq!(listed("COPY home/**/e.txt /x/"), [""; 0]);
}

#[test]
fn b50_the_history_names_the_flag() {
    let text = "FROM scratch\nCOPY --parents --chmod=u+x --exclude=x --link home/a.txt /x/\n";
    let image = built(tree(), text);
    let want = "COPY --parents --chmod=u+x home/a.txt /x/ # buildkit";
    assert_eq!(image.history(), [want]);
}

#[test]
fn what_is_excluded_does_not_matter_to_the_cache() {
    let workshop = Workshop::new();
    let text = "FROM scratch\nCOPY --exclude=*.txt home /m\n";
    let context = tree().file("Dockerfile", text);
    let first = workshop.built(workshop.build(&context));
    assert_eq!(first.cached(), [("COPY --exclude=*.txt home /m", false)]);
    let context = context
        .file("home/a.txt", "changed")
        .file("home/new.txt", "");
    let second = workshop.built(workshop.build(&context));
    assert_eq!(second.cached(), [("COPY --exclude=*.txt home /m", true)]);
    let context = context.file("home/new.md", "");
    let third = workshop.built(workshop.build(&context));
    assert_eq!(third.cached(), [("COPY --exclude=*.txt home /m", false)]);
}

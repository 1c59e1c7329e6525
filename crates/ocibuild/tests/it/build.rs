//! Instructions that run nothing, from the context to the image: what is in the layers
//! and what is in the configuration.

use ocibuild::testing::ContextDir;

use crate::built::{Workshop, built};

/// Files, a directory with modes of its own, links of both kinds.
fn tree() -> ContextDir {
    ContextDir::new()
        .file("a.txt", "a")
        .file("b.txt", "b")
        .executable("run.sh", "#!/bin/sh\n")
        .file_with_mode("dir/secret", "s", 0o600)
        .file("dir/sub/deep.txt", "deep")
        .dir("dir/empty")
        .symlink("dir/link", "secret")
        .hard_link("dir/twin", "dir/secret")
        .symlink("to-a", "a.txt")
        .symlink("absolute", "/a.txt")
        .symlink("to-dir", "dir")
}

/// Builds from nothing and lists the whole root file system.
fn listed(instructions: &str) -> Vec<String> {
    let text = format!("FROM scratch\n{instructions}\n");
    built(tree(), &text).list("")
}

#[test]
fn copy_of_a_file() {
    let cases: &[(&str, &[&str])] = &[
        ("COPY a.txt /", &["a.txt 0644 0:0 file"]),
        ("COPY a.txt /b", &["b 0644 0:0 file"]),
        ("COPY a.txt b", &["b 0644 0:0 file"]),
        ("COPY ../a.txt /b", &["b 0644 0:0 file"]),
        ("COPY /a.txt /b", &["b 0644 0:0 file"]),
        ("COPY a.txt/ /b", &["b 0644 0:0 file"]),
        (
            "COPY [\"a.txt\", \"/with space\"]",
            &["with space 0644 0:0 file"],
        ),
        (
            "COPY run.sh /x/",
            &["x 0755 0:0 dir", "x/run.sh 0755 0:0 file"],
        ),
        (
            "COPY a.txt /x/.",
            &["x 0755 0:0 dir", "x/a.txt 0644 0:0 file"],
        ),
        (
            "COPY a.txt /x/y/../z",
            &["x 0755 0:0 dir", "x/z 0644 0:0 file"],
        ),
        // A named link is followed, an absolute one within the context.
        ("COPY to-a /b", &["b 0644 0:0 file"]),
        ("COPY absolute /b", &["b 0644 0:0 file"]),
        ("COPY to-dir/secret /b", &["b 0600 0:0 file"]),
        ("ADD a.txt /b", &["b 0644 0:0 file"]),
    ];
    for (instruction, want) in cases {
        assert_eq!(listed(instruction), *want, "{instruction}");
    }
}

#[test]
fn copy_of_a_directory_copies_what_is_in_it() {
    let want = [
        "d 0755 0:0 dir",
        "d/empty 0755 0:0 dir",
        "d/link 0777 0:0 -> secret",
        "d/secret 0600 0:0 file",
        "d/sub 0755 0:0 dir",
        "d/sub/deep.txt 0644 0:0 file",
        "d/twin 0600 0:0 = d/secret",
    ];
    for instruction in ["COPY dir /d", "COPY dir/ /d/", "COPY to-dir d"] {
        assert_eq!(listed(instruction), want, "{instruction}");
    }
}

#[test]
fn copy_into_what_is_there() {
    let base = "COPY --chown=9:9 --chmod=770 dir/sub /d/sub\n";
    // The directory itself is untouched; those in it take mode and owner of the source.
    let list = listed(&format!("{base}COPY dir /d"));
    assert_eq!(list[0], "d 0770 9:9 dir");
    assert!(list.contains(&"d/sub 0755 0:0 dir".to_owned()), "{list:?}");
    assert!(list.contains(&"d/sub/deep.txt 0644 0:0 file".to_owned()));

    // A file onto a directory goes into it.
    let list = listed("COPY dir/empty /t\nCOPY a.txt /t");
    assert_eq!(list, ["t 0755 0:0 dir", "t/a.txt 0644 0:0 file"]);
}

#[test]
fn copy_of_several_sources() {
    let both = [
        "x 0755 0:0 dir",
        "x/a.txt 0644 0:0 file",
        "x/b.txt 0644 0:0 file",
    ];
    assert_eq!(listed("COPY a.txt b.txt /x/"), both);
    assert_eq!(listed("COPY ?.txt /x/"), both);
    assert_eq!(listed("COPY [ab].* nothing* /x/"), both);
    // Without a slash the later file is written over the earlier one.
    let image = built(tree(), "FROM scratch\nCOPY a.txt b.txt /x\n");
    assert_eq!(image.text("x"), "b");
    // Files in their order, heredocs after them.
    let text = "FROM scratch\nCOPY <<a.txt a.txt /x/\nnew\na.txt\n";
    assert_eq!(built(tree(), text).text("x/a.txt"), "new\n");
    // A wildcard without a match makes nothing at all.
    assert_eq!(listed("COPY nothing* /x/"), [""; 0]);
    assert_eq!(
        built(tree(), "FROM scratch\nCOPY nothing* /x/\n")
            .layers
            .len(),
        1
    );
}

#[test]
fn hard_links_live_within_one_source() {
    let list = listed("COPY dir/secret dir/twin /x/");
    let want = [
        "x 0755 0:0 dir",
        "x/secret 0600 0:0 file",
        "x/twin 0600 0:0 file",
    ];
    assert_eq!(list, want);
}

#[test]
fn links_in_the_destination_are_followed() {
    let links = ContextDir::new()
        .file("f", "new")
        .dir("links/real")
        .file("links/target", "old")
        .symlink("links/file", "target")
        .symlink("links/dangling", "made")
        .symlink("links/folder", "/real")
        .symlink("links/up", "../../..");
    let copies = "COPY f /file\nCOPY f /dangling\nCOPY f /folder\nCOPY f /folder/g\n\
                  COPY f /up/real/h";
    let image = built(links, &format!("FROM scratch\nCOPY links /\n{copies}\n"));
    for path in ["target", "made", "real/f", "real/g", "real/h"] {
        assert_eq!(image.text(path), "new", "{path}");
    }
    for (link, target) in [
        ("file", "target"),
        ("dangling", "made"),
        ("folder", "/real"),
    ] {
        assert_eq!(image.at(link), format!("0777 0:0 -> {target}"));
    }
}

#[test]
fn chown_looks_names_up_in_the_stage() {
    let accounts = ContextDir::new()
        .file("f", "")
        .file("passwd", "root:x:0:0::/:/bin/sh\nann:x:7:8::/:/bin/sh\n")
        .file("group", "root:x:0:\nstaff:x:50:\n");
    let cases = [
        ("1:2", "1:2"),
        ("5", "5:5"),
        (":5", "0:5"),
        ("ann", "7:8"),
        ("ann:staff", "7:50"),
        ("ann:unknown", "7:8"),
        ("7:staff", "7:50"),
        ("unknown", "0:0"),
        ("${WHO}", "7:8"),
        ("root", "0:0"),
    ];
    let mut text = "FROM scratch\nARG WHO=ann\nCOPY passwd group /etc/\n".to_owned();
    for (index, (owner, _)) in cases.iter().enumerate() {
        text += &format!("COPY --chown={owner} f /new-{index}/f\n");
    }
    let image = built(accounts, &text);
    for (index, (owner, want)) in cases.iter().enumerate() {
        // New parents belong to the same owner.
        assert_eq!(
            image.at(&format!("new-{index}")),
            format!("0755 {want} dir"),
            "{owner}"
        );
        assert_eq!(
            image.at(&format!("new-{index}/f")),
            format!("0644 {want} file")
        );
    }
}

#[test]
fn chmod_sets_files_directories_and_new_parents() {
    let cases: &[(&str, &[&str])] = &[
        ("COPY --chmod=755 a.txt /b", &["b 0755 0:0 file"]),
        ("COPY --chmod=4711 a.txt /b", &["b 4711 0:0 file"]),
        ("ARG M=640\nCOPY --chmod=$M a.txt /b", &["b 0640 0:0 file"]),
        (
            "COPY --chmod=600 a.txt /x/y/b",
            &["x 0600 0:0 dir", "x/y 0600 0:0 dir", "x/y/b 0600 0:0 file"],
        ),
        (
            "COPY --chmod=644 dir/sub /x",
            &["x 0644 0:0 dir", "x/deep.txt 0644 0:0 file"],
        ),
    ];
    for (instruction, want) in cases {
        assert_eq!(listed(instruction), *want, "{instruction}");
    }
}

#[test]
fn copies_keep_modes_and_times() {
    let context = ContextDir::new().file_with_mode("f", "", 0o4755);
    let image = built(context, "FROM scratch\nCOPY f /\n");
    let entry = image.layers[0].entries().last().unwrap();
    assert_eq!((entry.mode, entry.mtime), (0o4755, 1_700_000_000));
}

#[test]
fn a_made_directory_is_as_new_as_what_was_copied() {
    let context = ContextDir::new().file("f", "");
    let image = built(context, "FROM scratch\nCOPY f /made/deep/\n");
    let times = image.layers[0].entries().iter();
    let times: Vec<_> = times
        .filter(|entry| !entry.implicit)
        .map(|entry| (entry.path.to_string(), entry.mtime))
        .collect();
    let copied = 1_700_000_000;
    let want = ["/made", "/made/deep", "/made/deep/f"];
    assert_eq!(times, want.map(|path| (path.to_owned(), copied)));
}

#[test]
fn copy_from_stages_images_and_named_contexts() {
    let workshop = Workshop::new();
    let named = ContextDir::new()
        .file("n", "named")
        .file("skip", "")
        .file(".dockerignore", "skip");
    let context = ContextDir::new().file("f", "first").file(
        "Dockerfile",
        "FROM scratch AS one\nCOPY --chown=3:4 f /one\n\
         FROM scratch AS Two\nCOPY --from=0 /one /two\n\
         FROM scratch\nCOPY --from=ONE /one /\nCOPY --from=two /two /\n\
         COPY --from=busybox /bin/busybox /b\nCOPY --from=extra . /extra/\n",
    );
    let named_context = ocibuild::NamedContext::Directory(named.path().to_owned());
    let image = workshop.built(
        workshop
            .build(&context)
            .named_context("extra", named_context),
    );
    assert_eq!(image.at("one"), "0644 3:4 file");
    assert_eq!(
        (image.at("two"), image.text("two")),
        ("0644 3:4 file".into(), "first".into())
    );
    assert_eq!(image.at("b"), "0755 0:0 file");
    let extra = ["extra/.dockerignore 0644 0:0 file", "extra/n 0644 0:0 file"];
    assert_eq!(image.list("extra"), extra);
}

#[test]
fn link_copies_over_nothing() {
    let links = ContextDir::new()
        .file("f", "new")
        .symlink("links/to", "/real")
        .dir("links/real");
    let image = built(links, "FROM scratch\nCOPY links /\nCOPY --link f /to/f\n");
    assert_eq!(image.at("to"), "0755 0:0 dir");
    assert_eq!(
        image.last_layer(),
        ["to 0755 0:0 dir", "to/f 0644 0:0 file"]
    );
}

#[test]
fn heredocs_become_files() {
    let text = "FROM scratch\nARG V=value\n\
        COPY <<one <<\"two\" /d/\n$V '$V' \\$V\none\n$V\ntwo\n\
        COPY --chmod=755 --chown=1:2 <<-EOF /script\n\t#!/bin/sh\n\t echo\n\tEOF\n";
    let image = built(ContextDir::new(), text);
    assert_eq!(image.text("d/one"), "value 'value' $V\n");
    assert_eq!(image.text("d/two"), "$V\n");
    assert_eq!(image.at("d/one"), "0644 0:0 file");
    assert_eq!(image.at("script"), "0755 1:2 file");
    assert_eq!(image.text("script"), "#!/bin/sh\n echo\n");
}

#[test]
fn ignored_files_are_not_there() {
    let context = ContextDir::new()
        .file(
            ".dockerignore",
            "*.log\n# comment\nsub\n!sub/keep\nDockerfile\n",
        )
        .file("a", "")
        .file("b.log", "")
        .file("sub/keep", "")
        .file("sub/drop", "");
    let image = built(context, "FROM scratch\nCOPY . /\n");
    let want = [
        ".dockerignore 0644 0:0 file",
        "a 0644 0:0 file",
        "sub 0755 0:0 dir",
        "sub/keep 0644 0:0 file",
    ];
    assert_eq!(image.list(""), want);
}

#[test]
fn scratch_begins_with_a_path_and_nothing_else() {
    let image = built(ContextDir::new(), "FROM scratch\n");
    let config = &image.config.config;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        (config.env.as_slice(), config.working_dir.as_str()),
        ([path.to_owned()].as_slice(), "/")
    );
    assert_eq!(config.cmd, None);
    assert!(image.layers.is_empty() && image.config.history.is_empty());
}

#[test]
fn arguments_and_environment() {
    let text = "ARG G=global\nARG H=global\nFROM scratch AS base\nARG INHERITED=yes\n\
        FROM base\nARG G\nARG H=stage\nARG NONE\nARG EMPTY=default\nARG CLI=default\n\
        LABEL g=$G h=$H cli=$CLI empty=[$EMPTY] none=[${NONE-unset}] undeclared=[$OTHER] inherited=$INHERITED\n\
        ENV X=env\nARG X=arg\nLABEL x=$X\nENV X=later\nLABEL later=$X\n\
        ENV A=1 B=[$A]\nARG C=2 D=[$C]\nLABEL b=$B d=$D\nENV A=again\n";
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", text);
    let build = workshop
        .build(&context)
        .build_arg("CLI", "$X")
        .build_arg("EMPTY", "")
        .build_arg("OTHER", "seen");
    let config = workshop.built(build).config.config;
    let labels: Vec<String> = config
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let want = [
        "b=[]",
        "cli=$X",
        "d=[2]",
        "empty=[]",
        "g=global",
        "h=stage",
        "inherited=yes",
        "later=later",
        "none=[unset]",
        "undeclared=[]",
        "x=arg",
    ];
    assert_eq!(labels, want);
    assert_eq!(&config.env[1..], ["X=later", "A=again", "B=[]"]);
}

#[test]
fn platform_arguments_are_known() {
    let text = "FROM --platform=$BUILDPLATFORM scratch AS tools\nARG TARGETSTAGE\nLABEL stage=$TARGETSTAGE\n\
        FROM tools AS final\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT\n\
        LABEL p=$TARGETPLATFORM o=$TARGETOS a=$TARGETARCH v=$TARGETVARIANT\n";
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", text);
    let build = workshop
        .build(&context)
        .platform("linux/arm/v7".parse().unwrap());
    let config = workshop.built(build).config;
    let labels: Vec<&str> = config.config.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["arm", "linux", "linux/arm/v7", "final", "v7"]);
    assert_eq!(config.platform.to_string(), "linux/arm/v7");
}

#[test]
fn the_configuration_says_what_the_dockerfile_says() {
    let text = "FROM scratch\nLABEL a=1 \"two words\"=\"x y\"\nEXPOSE 53/UDP 80 7000-7001\n\
        VOLUME /data /logs/\nUSER ann:staff\nSTOPSIGNAL SIGUSR1\nSHELL [\"/bin/bash\", \"-c\"]\n\
        ENTRYPOINT [\"e\"]\nCMD run  it\n\
        HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --start-interval=250ms --retries=2 CMD x\n\
        MAINTAINER someone\nONBUILD RUN later\n";
    let image = built(ContextDir::new(), text);
    let want = serde_json::json!({
        "User": "ann:staff",
        "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "7000/tcp": {}, "7001/tcp": {}},
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["e"],
        "Cmd": ["/bin/bash", "-c", "run  it"],
        "Volumes": {"/data": {}, "/logs/": {}},
        "WorkingDir": "/",
        "Labels": {"a": "1", "two words": "x y"},
        "StopSignal": "SIGUSR1",
        "ArgsEscaped": true,
        "Healthcheck": {
            "Test": ["CMD-SHELL", "x"], "Interval": 300_000_000_000i64, "Timeout": 3_000_000_000i64,
            "StartPeriod": 1_000_000_000, "StartInterval": 250_000_000, "Retries": 2,
        },
        "Shell": ["/bin/bash", "-c"],
        "OnBuild": ["RUN later"],
    });
    assert_eq!(serde_json::to_value(&image.config.config).unwrap(), want);
    assert_eq!(image.config.author.as_deref(), Some("someone"));
    assert!(image.layers.is_empty());
}

#[test]
fn an_entrypoint_clears_an_inherited_command() {
    let cases = [
        ("ENTRYPOINT [\"e\"]", None),
        (
            "CMD [\"c\"]\nENTRYPOINT [\"e\"]",
            Some(vec!["c".to_owned()]),
        ),
        (
            "ENTRYPOINT [\"e\"]\nCMD [\"c\"]",
            Some(vec!["c".to_owned()]),
        ),
        ("ENV A=1", Some(vec!["sh".to_owned()])),
        ("CMD []", None),
    ];
    let workshop = Workshop::new();
    for (instructions, want) in cases {
        let text = format!("FROM busybox\n{instructions}\n");
        let image = workshop.dockerfile(ContextDir::new(), &text);
        assert_eq!(image.config.config.cmd, want, "{instructions}");
    }
}

#[test]
fn history_reads_as_the_reference_builder_writes_it() {
    let text = "FROM scratch\nARG A=1 B=2\nENV C=3 D=4\nLABEL a=1 two=\"x y\"\nEXPOSE 80 53/udp\n\
        VOLUME /a /b\nUSER u\nUSER 0\nWORKDIR /a\nWORKDIR b\nSTOPSIGNAL SIGUSR1\n\
        SHELL [\"/bin/bash\", \"-c\"]\nCMD [\"a\", \"b\"]\nENTRYPOINT [\"e\"]\n\
        HEALTHCHECK --interval=5m --retries=2 CMD x\nCOPY --chown=1:2 --chmod=755 f <<EOF dest/\nx\nEOF\n\
        MAINTAINER me\nONBUILD RUN later\n";
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "").file("Dockerfile", text);
    let image = workshop.built(workshop.build(&context).build_arg("A", "cli"));
    let want = [
        "ARG A=cli B=2",
        "ENV C=3 D=4",
        "LABEL a=1 two=x y",
        "EXPOSE [53/udp 80/tcp]",
        "VOLUME [/a /b]",
        "USER u",
        "USER 0",
        "WORKDIR /a",
        "WORKDIR /a/b",
        "STOPSIGNAL SIGUSR1",
        "SHELL [/bin/bash -c]",
        "CMD [\"a\" \"b\"]",
        "ENTRYPOINT [\"e\"]",
        "HEALTHCHECK {Test:[CMD-SHELL x] Interval:5m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
        "COPY --chown=1:2 --chmod=755 f <<EOF dest/ # buildkit",
        "MAINTAINER me",
    ];
    assert_eq!(image.history(), want);
    let layers = image
        .config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer);
    assert_eq!(layers.count(), 3);
}

#[test]
fn workdir_makes_directories_for_the_user() {
    let context = ContextDir::new().file("passwd", "ann:x:7:8::/:/bin/sh\n");
    let text = "FROM scratch\nCOPY passwd /etc/\nUSER ann\nWORKDIR /home/ann/\nUSER 77\n\
        WORKDIR work\nUSER unknown\nWORKDIR /a/../odd\nCOPY passwd .\nWORKDIR /\n";
    let image = built(context, text);
    assert_eq!(image.at("home"), "0755 7:8 dir");
    assert_eq!(image.at("home/ann"), "0755 7:8 dir");
    assert_eq!(image.at("home/ann/work"), "0755 77:77 dir");
    assert_eq!(image.at("odd"), "0755 0:0 dir");
    assert_eq!(image.at("odd/passwd"), "0644 0:0 file");
    assert_eq!(image.config.config.working_dir, "/");
    // `WORKDIR /` makes no layer.
    assert_eq!(image.layers.len(), 5);
}

#[test]
fn onbuild_fires_in_the_child_and_is_gone() {
    let text = "FROM scratch AS files\nCOPY f /from-stage\n\
        FROM scratch AS base\nONBUILD COPY f /fired\nONBUILD COPY --from=files /from-stage /\n\
        ONBUILD ENV FIRED=$VALUE\nENV VALUE=v\nFROM base\nCOPY f /own\n";
    let image = built(ContextDir::new().file("f", "x"), text);
    assert_eq!(image.config.config.on_build, [""; 0]);
    assert_eq!(image.config.config.env("FIRED"), Some("v"));
    let want = [
        "fired 0644 0:0 file",
        "from-stage 0644 0:0 file",
        "own 0644 0:0 file",
    ];
    assert_eq!(image.list(""), want);
    assert_eq!(
        image.layer(0),
        ["fired 0644 0:0 file"],
        "before the stage's own"
    );
}

#[test]
fn onbuild_of_a_base_image_fires() {
    let workshop = Workshop::new();
    let base = ContextDir::new().file(
        "Dockerfile",
        "FROM busybox\nONBUILD COPY f /fired\nONBUILD LABEL fired=yes\n",
    );
    let layout = workshop.path("onbuild");
    let build = workshop.build(&base);
    crate::built::wait(
        build
            .output(ocibuild::Output::OciDirectory(layout.clone()))
            .run(),
    )
    .unwrap();
    let context = ContextDir::new()
        .file("f", "x")
        .file("Dockerfile", "FROM trigger\n");
    let named = ocibuild::NamedContext::OciLayout {
        path: layout,
        name: None,
    };
    let image = workshop.built(workshop.build(&context).named_context("trigger", named));
    assert_eq!(image.text("fired"), "x");
    assert_eq!(image.config.config.labels["fired"], "yes");
}

#[test]
fn a_target_is_found_whatever_its_case() {
    let text =
        "FROM scratch AS One\nLABEL s=1\nFROM scratch AS two\nLABEL s=2\nFROM one\nLABEL t=3\n";
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", text);
    for (target, want) in [("ONE", "1"), ("two", "2"), ("TWO", "2")] {
        let image = workshop.built(workshop.build(&context).target(target));
        assert_eq!(image.config.config.labels["s"], want, "{target}");
    }
    for unknown in ["0", "three"] {
        let error = workshop.fails(workshop.build(&context).target(unknown));
        let want = format!("target stage \"{unknown}\" could not be found");
        assert!(error.to_string().contains(&want), "{error}");
    }
}

#[test]
fn labels_of_the_caller_win_and_stay_literal() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", "FROM scratch\nLABEL a=file b=file\n");
    let image = workshop.built(workshop.build(&context).label("a", "$x").label("c", "new"));
    let labels = &image.config.config.labels;
    assert_eq!(
        (
            labels["a"].as_str(),
            labels["b"].as_str(),
            labels["c"].as_str()
        ),
        ("$x", "file", "new")
    );
    assert_eq!(image.history(), ["LABEL a=file b=file"]);
}

#[test]
fn a_dockerfile_may_be_elsewhere_or_a_text() {
    use ocibuild::DockerfileSource;
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file("f", "")
        .file("docker/app", "FROM scratch\nCOPY . /\n")
        .file("docker/app.dockerignore", "docker\nf\n!keep\n")
        .file(".dockerignore", "keep\n")
        .file("keep", "");
    let inside = DockerfileSource::InContext("docker/app".to_owned());
    let image = workshop.built(workshop.build(&context).dockerfile(inside));
    // Its own ignore file replaces the one of the context.
    assert_eq!(
        image.list(""),
        [".dockerignore 0644 0:0 file", "keep 0644 0:0 file"]
    );

    let text = DockerfileSource::Text {
        name: "given".to_owned(),
        text: "FROM scratch\nCOPY f /\n".to_owned(),
    };
    let image = workshop.built(workshop.build(&context).dockerfile(text));
    assert_eq!(image.list(""), ["f 0644 0:0 file"]);
}

#[test]
fn a_chain_of_stages_is_never_too_long_for_the_stack() {
    let mut text = "FROM scratch AS s0\nLABEL l=0\n".to_owned();
    for index in 0..20_000 {
        text += &format!("FROM s{index} AS s{}\n", index + 1);
    }
    let context = ContextDir::new().file("Dockerfile", text);
    let image = Workshop::new();
    let image = image.built(image.build(&context));
    assert_eq!(image.config.config.labels["l"], "0");
}

#[test]
fn row_68_a_dockerfile_in_lower_case_is_found() {
    let workshop = Workshop::new();
    let lower = || ContextDir::new().file("dockerfile", "FROM scratch\nLABEL l=lower\n");
    let image = workshop.built(workshop.build(&lower()));
    assert_eq!(image.config.config.labels["l"], "lower");
    let both = lower().file("Dockerfile", "FROM scratch\nLABEL l=upper\n");
    let image = workshop.built(workshop.build(&both));
    assert_eq!(image.config.config.labels["l"], "upper");
    // A name that was given is meant as it is.
    let named = ocibuild::DockerfileSource::InContext("DOCKERFILE".to_owned());
    let error = workshop.fails(workshop.build(&lower()).dockerfile(named));
    assert_eq!(
        error.to_string(),
        "the Dockerfile \"DOCKERFILE\" is not there"
    );
}

#[test]
fn b26_a_platform_that_was_asked_for_wins_over_the_base() {
    let workshop = Workshop::new();
    let layout = workshop.path("arm");
    let base = ContextDir::new().file("Dockerfile", "FROM scratch\nLABEL l=1\n");
    let build = workshop
        .build(&base)
        .platform("linux/arm/v6".parse().unwrap());
    let output = ocibuild::Output::OciDirectory(layout.clone());
    crate::built::wait(build.output(output).run()).unwrap();
    let named = ocibuild::NamedContext::OciLayout {
        path: layout,
        name: None,
    };
    let context =
        ContextDir::new().file("Dockerfile", "FROM --platform=linux/arm/v6 base AS arm\n");
    let build = || {
        workshop
            .build(&context)
            .named_context("base", named.clone())
    };
    let image = workshop.built(build());
    assert_eq!(image.config.platform.to_string(), "linux/arm/v6");
    let image = workshop.built(build().platform("linux/s390x".parse().unwrap()));
    assert_eq!(image.config.platform.to_string(), "linux/s390x");
}

#[test]
fn row_1_another_frontend_is_named() {
    use std::sync::{Arc, Mutex};
    let workshop = Workshop::new();
    for (syntax, want) in [
        ("docker/dockerfile:1", 0),
        ("docker.io/docker/dockerfile-upstream:master-labs", 0),
        ("example.com/other@sha256:1", 1),
    ] {
        let text = format!("# syntax={syntax}\nFROM scratch\n");
        let context = ContextDir::new().file("Dockerfile", text);
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let sink = ocibuild::EventSink::new(move |event| {
            if let ocibuild::Event::Warning { message } = event {
                sink.lock().unwrap().push(message);
            }
        });
        crate::built::wait(workshop.build(&context).events(sink).run()).unwrap();
        assert_eq!(told.lock().unwrap().len(), want, "{syntax}");
    }
}

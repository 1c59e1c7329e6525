//! Files of contexts, stages and images, and memory; how mounts lie in each other (B64).

use super::*;

/// B64: `bind` is the default type; the context is the default source, as it is sent.
#[test]
fn b64_the_context_is_mounted() {
    let workshop = Workshop::new();
    let text = "WORKDIR /w\n\
        RUN --mount=target=here find here | sort > /list; cat here/f > /out; stat -c '%a %u:%g %Y' here here/f > /stat; \
          ! touch here/x 2>/dev/null && ! rm here/f 2>/dev/null && echo kept >> /out\n\
        RUN --mount=source=dir,target=d ls d > /dir\n\
        RUN --mount=source=f,target=/etc/f cat /etc/f > /file\n\
        RUN --mount=source=../dir/g,target=/etc/passwd cat /etc/passwd > /over\n\
        RUN ls -a /w > /left";
    let image = workshop.built(build(&workshop, text));
    let list = "here\nhere/.dockerignore\nhere/Dockerfile\nhere/dir\nhere/dir/g\nhere/f\n";
    assert_eq!(image.text("list"), list, "what is ignored is not there");
    assert_eq!(image.text("out"), "from the context\nkept\n");
    assert!(image.text("stat").ends_with("\n644 0:0 1700000000\n"));
    assert!(image.text("stat").starts_with("755 0:0 "));
    assert_eq!(image.text("dir"), "g\n");
    assert_eq!(image.text("left"), ".\n..\n");
    assert_eq!(image.text("file"), "from the context\n");
    assert_eq!(image.text("over"), "deeper\n");
    let plain = ["list", "out", "stat"].map(|name| format!("{name} 0644 0:0 file"));
    assert_eq!(image.layer(2), plain);
}

/// B64: what `rw` writes is thrown away, and the next step sees the source again.
#[test]
fn b64_writes_are_thrown_away() {
    let workshop = Workshop::new();
    let text = "FROM busybox AS source\nRUN mkdir /s && echo old > /s/f\nFROM busybox\n\
        RUN --mount=target=/c,rw --mount=from=source,source=/s,target=/s,rw \
          echo new > /c/f; rm /c/dir/g; echo new > /s/f; touch /s/g; cat /c/f /s/f > /out; ls /s >> /out\n\
        RUN --mount=target=/c,rw --mount=from=source,source=/s,target=/s \
          cat /c/f /s/f /c/dir/g > /after; ls /s >> /after";
    let image = workshop.built(build(&workshop, text));
    assert_eq!(image.text("out"), "new\nnew\nf\ng\n");
    assert_eq!(image.text("after"), "from the context\nold\ndeeper\nf\n");
    assert_eq!(image.layer(1), ["out 0644 0:0 file"]);
    workshop.assert_tidy();
}

/// B64: stages (in any case), images and named contexts are sources.
#[test]
fn b64_stages_images_and_contexts_are_sources() {
    let workshop = Workshop::new();
    let named = ContextDir::new().file("n", "named\n");
    let context = ocibuild::NamedContext::Directory(named.path().to_owned());
    let text = "FROM busybox AS Tools\nRUN echo '#!/bin/sh' > /tool && echo 'echo tool' >> /tool && chmod 755 /tool\n\
        FROM busybox AS unused\nRUN exit 1\n\
        FROM scratch\n\
        RUN --mount=from=busybox,source=/bin,target=/bin --mount=from=TOOLS,source=tool,target=/usr/bin/tool \
          --mount=from=named,target=/named --mount=from=scratch,target=/none \
          tool > /out; cat /named/n >> /out; ls /none >> /out";
    let image = workshop.built(build(&workshop, text).named_context("named", context));
    assert_eq!(image.text("out"), "tool\nnamed\n");
    let names: Vec<String> = image.list("");
    assert_eq!(names.len(), 4, "/dev, /proc, /sys and the file: {names:?}");
}

/// The files decide over the cache, and nothing else of the context does.
#[test]
fn the_files_that_are_seen_are_part_of_the_key() {
    let workshop = Workshop::new();
    let cached = |seen: &str, other: &str, options: &str| {
        let text = format!("FROM busybox\nRUN --mount=source=d,target=/d{options} true\n");
        let context = ContextDir::new()
            .file("Dockerfile", text)
            .file("d/f", seen)
            .file("other", other);
        workshop.built(workshop.build(&context)).cached()[0].1
    };
    assert!(!cached("1", "1", ""));
    assert!(cached("1", "2", ""));
    assert!(!cached("2", "2", ""));
    assert!(!cached("2", "2", ",rw"));
}

#[test]
fn mounts_that_cannot_be_are_refused_with_their_place() {
    let workshop = Workshop::new();
    for (options, want) in [
        (
            "source=none,target=/n",
            "Dockerfile:2: \"/none\": not found",
        ),
        (
            "source=hidden,target=/n",
            "Dockerfile:2: \"/hidden\": not found",
        ),
        (
            "from=0,source=/x,target=/n",
            "Dockerfile:2: circular dependency detected on stage \"tried\"",
        ),
        (
            "from=later,target=/n",
            "Dockerfile:2: stage \"later\" is used before it is defined \
             (move the stage that is used above the one that uses it)",
        ),
        (
            "target=/",
            "Dockerfile:2: RUN --mount=target=/: the target is the root directory \
             (name the place: target=/path)",
        ),
        (
            "type=tmpfs,target=$NONE",
            "Dockerfile:2: RUN --mount=type=tmpfs,target=$NONE: the target is the root directory \
             (name the place: target=/path)",
        ),
        (
            "type=tmpfs,target=/t,sice=1m",
            "Dockerfile:2: RUN --mount=type=tmpfs,target=/t,sice=1m: \
             unknown option \"sice\", did you mean \"size\"?",
        ),
    ] {
        let text =
            format!("FROM busybox AS tried\nRUN --mount={options} true\nFROM busybox AS later\n");
        let context = ContextDir::new().file("Dockerfile", text);
        let build = workshop.build(&context).target("tried");
        workshop.keep(context);
        assert_eq!(message(&workshop, build), want, "{options}");
    }
}

/// B64: what lies inside of another mount is mounted after it; the last one wins.
#[test]
fn b64_mounts_lie_in_each_other() {
    let workshop = Workshop::new();
    let text = "RUN mkdir -p /c/dir/empty /t/in\n\
        RUN --mount=type=cache,target=/c/dir/new --mount=type=tmpfs,target=/c/dir --mount=target=/c,rw \
          ls /c/dir > /out; touch /c/dir/new/f\n\
        RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/t/in ls /t > /second\n\
        RUN --mount=type=tmpfs,target=/x --mount=source=dir,target=/x ls /x > /third\n\
        RUN --mount=type=cache,target=/c/dir/new ls /c/dir/new > /fourth";
    let image = workshop.built(build(&workshop, text));
    assert_eq!(image.text("out"), "new\n");
    assert_eq!(image.text("second"), "in\n");
    assert_eq!(
        image.at("t/in"),
        "0755 0:0 dir",
        "a directory of the image stays"
    );
    assert_eq!(image.layer(3), ["second 0644 0:0 file"]);
    assert_eq!(
        (image.text("third"), image.text("fourth")),
        ("g\n".into(), "f\n".into())
    );

    let text = "RUN --mount=target=/c --mount=type=cache,target=/c/none true";
    let said = message(&workshop, build(&workshop, text));
    assert_eq!(
        said,
        "Dockerfile:2: c/none: is missing as a place for a mount, and cannot be made in a read-only one"
    );
}

/// Links of the image in a target, and links of a source, stay inside their roots.
#[test]
fn links_do_not_lead_out() {
    let workshop = Workshop::new();
    let host = workshop.path("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("secret"), "of the machine").unwrap();
    let host = host.to_str().unwrap();
    let text = format!(
        "FROM busybox AS source\nRUN ln -s {host} /out && ln -s ../../../../../../.. /up && \
           ln -s /etc/passwd /good && ln -s /none /bad\nFROM source\n\
         RUN --mount=type=tmpfs,target=/out/t --mount=type=secret,id=s,target=/up/s \
           touch /out/t/x && test -d {host}/t && cat /s > /first\n\
         RUN --mount=from=source,source=/good,target=/g grep -c . /g > /second\n\
         RUN --mount=from=source,target=/all ! cat /all{host}/secret /all/out/secret 2>/dev/null && ls /all/bin/sh > /third"
    );
    let image = workshop.built(build(&workshop, &text).secret("s", Secret::bytes("first")));
    assert_eq!(image.text("first"), "first");
    assert_eq!(image.text("second"), "2\n");
    assert_eq!(image.text("third"), "/all/bin/sh\n");
    assert_eq!(
        std::fs::read_dir(host).unwrap().count(),
        1,
        "nothing was made there"
    );
    for source in ["/out", "/bad"] {
        let text = format!(
            "FROM busybox AS source\nRUN ln -s {host} /out && ln -s /none /bad\nFROM busybox\n\
             RUN --mount=from=source,source={source},target=/x ls /x"
        );
        let said = message(&workshop, build(&workshop, &text));
        assert_eq!(said, format!("Dockerfile:5: {source:?}: not found"));
    }
}

#[test]
fn a_file_and_a_directory_do_not_fit_each_other() {
    let workshop = Workshop::new();
    for (options, want) in [
        (
            "type=tmpfs,target=/etc/passwd",
            "/etc/passwd: is not a directory",
        ),
        ("source=f,target=/etc", "/etc: is a directory"),
        (
            "type=cache,target=/etc/passwd/x",
            "etc/passwd/x: leads through a file",
        ),
    ] {
        let error = workshop.fails(build(&workshop, &format!("RUN --mount={options} true")));
        assert_eq!(error.kind(), ErrorKind::Command, "{error}");
        assert!(error.to_string().ends_with(want), "{options}: {error}");
        assert_eq!(error.location().unwrap().lines, 2..=2);
    }
}

#[test]
fn b64_a_tmpfs_is_empty_bounded_and_gone() {
    let workshop = Workshop::new();
    let text = "RUN --mount=type=tmpfs,target=/tmp,size=64k \
          ls /tmp > /out; df -k /tmp | tail -1 | awk '{ print $2 }' >> /out; touch /tmp/x; \
          ! dd if=/dev/zero of=/tmp/big bs=1k count=100 2>/dev/null && echo full >> /out\n\
        RUN --mount=type=tmpfs,target=/new,size=0 dd if=/dev/zero of=/new/f bs=1k count=100 2>/dev/null\n\
        RUN ls -d /tmp/* /new > /after 2>/dev/null || true";
    let image = workshop.built(build(&workshop, text));
    assert_eq!(image.text("out"), "64\nfull\n");
    assert_eq!(image.text("after"), "");
    assert_eq!(image.layer(2), [""; 0]);
}

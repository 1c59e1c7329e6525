//! The parser against the corpus in `testdata/dockerfile`, against another parser,
//! and against arbitrary input.

use std::fmt::Write;
use std::path::PathBuf;

use ocibuild::dockerfile::ast::{Command, Instruction, Invocation};
use ocibuild::dockerfile::lint::{Linter, Settings};
use ocibuild::dockerfile::{
    Dockerfile, LineStarts, ParseErrorKind, Span, dump, dump_instruction, parse, parse_bytes,
    parse_prefix, parse_tree, parse_trigger, work,
};
use proptest::prelude::*;

use crate::table::testdata;

/// With this variable set, expectations are written instead of compared.
const UPDATE: &str = "UPDATE_EXPECT";

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = testdata("dockerfile").join(kind);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

/// Compares every case of a kind with its expectation and reports all that differ.
fn check_corpus(kind: &str, at_least: usize, describe: impl Fn(&[u8]) -> String) {
    let cases = cases(kind);
    assert!(
        cases.len() >= at_least,
        "only {} cases of {kind}",
        cases.len()
    );
    let mut wrong = String::new();
    for case in cases {
        let source = std::fs::read(case.join("Dockerfile")).unwrap();
        let found = describe(&source);
        let expected = case.join("expected");
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if found != expected {
            writeln!(wrong, "--- {}\n{expected}+++\n{found}", case.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn good_files_give_the_expected_tree() {
    check_corpus("ok", 60, |source| match parse_bytes(source) {
        Ok(file) => dump(&file),
        Err(error) => format!("unexpected error: {error}\n"),
    });
}

#[test]
fn bad_files_give_the_expected_error() {
    check_corpus("bad", 60, |source| {
        let text = String::from_utf8_lossy(source);
        let Err(error) = parse_bytes(source) else {
            return "unexpected success\n".to_owned();
        };
        let mut found = format!("error: {error}\n");
        if let Some(hint) = error.hint() {
            writeln!(found, "hint: {hint}").unwrap();
        }
        let excerpt = error.excerpt(&text, 0);
        assert!(excerpt.iter().all(|(_, marked, _)| *marked));
        for (line, _, text) in excerpt {
            writeln!(found, "{line}: {}", text.get(..60).unwrap_or(text)).unwrap();
        }
        let place = error.span().slice(&text);
        writeln!(found, "place: {:?}", place.get(..60).unwrap_or(place)).unwrap();
        found
    });
}

#[test]
fn the_excerpt_has_the_lines_around() {
    let source = "FROM a\nRUN b\nCOPY c\nUSER d\nUSER e\n";
    let error = parse(source).unwrap_err();
    let expected = [
        (2, false, "RUN b"),
        (3, true, "COPY c"),
        (4, false, "USER d"),
    ];
    assert_eq!(error.excerpt(source, 1), expected);
    assert_eq!(error.excerpt(source, usize::MAX).len(), 5);
}

#[test]
fn words_know_where_they_were_written() {
    let source = "FROM --platform=\"x y\" im\\\nage AS Me\n\
                  COPY --from=\"a\" one \\\n# no\n  two \\\n  three\n\
                  CMD [\"p q\", \"r\\\"s\"]\nENV k=\"v w\" \\\n l=m\nHEALTHCHECK CMD  a  b\n";
    let file = parse(source).unwrap();
    let at = |span: Span| span.slice(source);
    let stage = &file.stages[0];
    assert_eq!(at(stage.from.platform.as_ref().unwrap().span), "\"x y\"");
    assert_eq!(at(stage.from.image.span), "im\\\nage");
    assert_eq!(stage.from.image.text, "image");
    assert_eq!(at(stage.name.as_ref().unwrap().span), "Me");
    let Instruction::Copy(copy) = &stage.instructions[0] else {
        panic!("not COPY")
    };
    assert_eq!(at(copy.flags.from.as_ref().unwrap().span), "\"a\"");
    let sources: Vec<&str> = copy.sources.iter().map(|word| at(word.span)).collect();
    assert_eq!(
        (sources, at(copy.destination.span)),
        (vec!["one", "two"], "three")
    );
    let Instruction::Cmd(cmd) = &stage.instructions[1] else {
        panic!("not CMD")
    };
    let Command::Exec(words) = &cmd.command else {
        panic!("not a JSON form")
    };
    assert_eq!(
        words.iter().map(|word| at(word.span)).collect::<Vec<_>>(),
        ["p q", "r\\\"s"]
    );
    let Instruction::Env(env) = &stage.instructions[2] else {
        panic!("not ENV")
    };
    let pairs: Vec<_> = env
        .pairs
        .iter()
        .map(|p| (at(p.key.span), at(p.value.span)))
        .collect();
    assert_eq!(pairs, [("k", "\"v w\""), ("l", "m")]);
    let Instruction::Healthcheck(health) = &stage.instructions[3] else {
        panic!("no check")
    };
    let Command::Shell(text) = &health.check.as_ref().unwrap().command else {
        panic!("no text")
    };
    assert_eq!(at(text.span), "a  b");
}

#[test]
fn here_documents_decide_what_a_run_starts() {
    let shell = |text: &str| Invocation::Shell(text.to_owned());
    let script = |content: &str| Invocation::Script {
        name: "EOF".to_owned(),
        content: content.to_owned(),
    };
    let table = [
        ("RUN a  b", shell("a  b")),
        (
            "RUN [\"a\", \"b\"]",
            Invocation::Exec(vec!["a".to_owned(), "b".to_owned()]),
        ),
        ("RUN <<EOF\na\nEOF", shell("a\n")),
        ("RUN <<'EOF'\n$a\nEOF", shell("$a\n")),
        ("RUN <<-EOF\n\t\ta\n\tEOF", shell("a\n")),
        ("RUN <<EOF\n#!/bin/x\na\nEOF", script("#!/bin/x\na\n")),
        (
            "RUN --network=none <<-EOF\n\t#!/bin/x\nEOF",
            script("#!/bin/x\n"),
        ),
        (
            "RUN sh <<EOF\n#!/bin/x\nEOF",
            shell("sh <<EOF\n#!/bin/x\nEOF"),
        ),
        ("RUN sh <<-EOF\n\ta\n\tEOF", shell("sh <<-EOF\n\ta\nEOF")),
        ("RUN <<A <<B\na\nA\nb\nB", shell("<<A <<B\na\nA\nb\nB")),
    ];
    for (source, expected) in table {
        let file = parse(&format!("FROM x\n{source}\n")).unwrap();
        let Instruction::Run(run) = &file.stages[0].instructions[0] else {
            panic!("not RUN")
        };
        assert_eq!(run.invocation(), expected, "{source:?}");
    }
}

#[test]
fn a_stored_trigger_parses_again() {
    let source = "FROM x\nONBUILD RUN <<-EOF cat\n\ta\n\tEOF\nONBUILD COPY --from=b a \\\n b\n";
    let file = parse(source).unwrap();
    let found: Vec<String> = file.stages[0]
        .instructions
        .iter()
        .map(|instruction| match instruction {
            Instruction::Onbuild(onbuild) => {
                dump_instruction(&parse_trigger(&onbuild.trigger.text).unwrap())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "(run \"<<-EOF cat\" (heredoc tabs \"EOF\" \"\\ta\\n\"))",
        "(copy [--from=\"b\"] \"a\" \"b\")",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_trigger_is_one_allowed_instruction() {
    for text in ["", "# c", "RUN a\nRUN b"] {
        let error = parse_trigger(text).unwrap_err();
        assert_eq!(error.kind(), &ParseErrorKind::TriggerNotSingle, "{text:?}");
    }
    for text in ["FROM a", "ONBUILD RUN a", "MAINTAINER a"] {
        let error = parse_trigger(text).unwrap_err();
        assert!(
            matches!(error.kind(), ParseErrorKind::TriggerNotAllowed(_)),
            "{text:?}"
        );
    }
    assert!(parse_trigger("NOSUCH x").is_err());
}

/// The other parser is right about files without quotes, JSON, here-documents and
/// repeated flags; there both must see the same instructions.
#[test]
fn plain_files_agree_with_another_parser() {
    let files = [
        "FROM alpine:3.20\nRUN apk add curl\nWORKDIR /app\nCOPY src /app/src\nUSER nobody\n",
        "ARG VERSION=3\nFROM alpine:3 AS build\nENV AA=11\nRUN make\nFROM scratch\n\
         COPY --from=build /out /out\nENTRYPOINT [\"/out\"]\n",
        "# comment\n\nFROM debian\nLABEL name=value\nEXPOSE 80\nVOLUME /data\n\
         STOPSIGNAL SIGTERM\nCMD [\"sh\"]\nSHELL [\"bash\", \"-c\"]\nADD file.tar /x\n",
        "FROM debian\nRUN apt-get update && \\\n    apt-get install -y git\nUSER root\n",
    ];
    for source in files {
        let theirs = source.parse::<dockerfile_parser_rs::Dockerfile>().unwrap();
        let theirs: Vec<String> = theirs
            .instructions
            .iter()
            .map(ToString::to_string)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        let file = parse(source).unwrap();
        let ours: Vec<&str> = file
            .origins()
            .map(|origin| origin.keyword.as_str())
            .collect();
        assert_eq!(ours, theirs, "{source}");
    }
}

/// Pieces that make random text look like a Dockerfile.
fn fragments() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "FROM a\n",
        "FROM a AS b\n",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "CMD ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "SHELL ",
        "VOLUME ",
        "EXPOSE ",
        "USER ",
        "--mount=",
        "--from=",
        "--link ",
        "--",
        "<<EOF",
        "<<-E",
        "EOF\n",
        "E\n",
        "\n",
        "\\\n",
        "\\",
        "`",
        "# escape=`\n",
        "#",
        " ",
        "\t",
        "\r\n",
        "=",
        "\"",
        "'",
        "[",
        "]",
        ",",
        "${",
        "}",
        "$",
        ":-",
        "a",
        "ä",
        "☃",
        "[\"x\"]",
        "type=cache,target=/a",
        "CMD",
        "NONE",
        "5s",
        "\u{feff}",
        "\u{85}",
        "\u{a0}",
    ];
    let piece = prop_oneof![8 => proptest::sample::select(WORDS).prop_map(str::to_owned),
                            1 => any::<String>()];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Runs the checks that the text decides.
fn lint(file: &Dockerfile) {
    let lines = LineStarts::new(&file.source);
    let mut linter = Linter::new(&lines, Settings::default());
    ocibuild::dockerfile::lint::lint(file, &mut linter);
    for warning in linter.finish() {
        assert_in_bounds(&file.source, warning.span);
    }
}

fn assert_in_bounds(source: &str, span: Span) {
    assert!(
        source.get(span.start..span.end).is_some(),
        "{span:?} in {source:?}"
    );
}

/// What a hostile author may repeat, so many times.
type Repeated = (&'static str, fn(usize) -> String);

/// Files with one thing in them many times.
const HOSTILE: &[Repeated] = &[
    ("here-documents", |many| {
        let bodies = "A\n".repeat(many);
        format!(
            "FROM x\nCOPY \\\n{} /d\n{bodies}",
            "<<A b \\\n".repeat(many)
        )
    }),
    ("instructions", |many| {
        format!("FROM x\n{}", "CMD a\n".repeat(many))
    }),
    ("stages", |many| "FROM x AS y\n".repeat(many)),
    ("blanks", |many| {
        format!("FROM x\nRUN {}", "a \\\n\n# b\n".repeat(many))
    }),
    ("pairs", |many| {
        format!("FROM x\nENV {}", "a=1 \\\n".repeat(many))
    }),
    ("flags", |many| {
        format!("FROM x\nRUN {} a", "--mount=type=cache \\\n".repeat(many))
    }),
    ("dollars", |many| {
        format!("FROM x\nRUN <<A {}\nA\n", "${a:- \\\n".repeat(many))
    }),
    ("brackets", |many| {
        format!("FROM x\nCMD {}", "[\\\n".repeat(many))
    }),
    ("strings", |many| {
        format!("FROM x\nCMD [{}\"a\"]", "\"a\",\\\n".repeat(many))
    }),
    ("quotes", |many| {
        format!("FROM x\nLABEL {}", "'\"\\\n".repeat(many))
    }),
    ("comments", |many| {
        format!("{}FROM x\n", "# a\n".repeat(many))
    }),
    ("triggers", |many| {
        format!("FROM x\nONBUILD {}", "ONBUILD \\\n".repeat(many))
    }),
    ("ports", |many| {
        format!("FROM x\nEXPOSE {}", "1 \\\n".repeat(many))
    }),
];

/// Work must follow length, whatever a file repeats: twice as much of it is about twice
/// the work.
#[test]
fn work_follows_the_length_of_a_file() {
    for (what, file) in HOSTILE {
        let measure = |many| {
            let source = file(many);
            work::of(|| {
                if let Ok(file) = parse(&source) {
                    lint(&file);
                }
                let _ = parse_tree(&source);
            })
        };
        let (once, twice) = (measure(2_000), measure(4_000));
        assert!(once > 2_000, "{what}: nothing was counted");
        assert!(twice < once * 5 / 2, "{what}: {once} became {twice}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsing_never_panics_and_spans_fit(tail in fragments()) {
        let source = format!("FROM x\n{tail}");
        for source in [&source, &tail] {
            match parse(source) {
                Ok(file) => {
                    for origin in file.origins() {
                        assert_in_bounds(source, origin.span);
                        assert_in_bounds(source, origin.keyword.span);
                    }
                    let _ = dump(&file);
                    lint(&file);
                }
                Err(error) => {
                    assert_in_bounds(source, error.span());
                    let _ = error.excerpt(source, 3);
                }
            }
            let _ = parse_trigger(source);
            let _ = parse_tree(source);
            let _ = parse_prefix(source);
        }
    }

    #[test]
    fn words_of_simple_instructions_equal_their_source(tail in fragments()) {
        let source = format!("FROM x\n{tail}");
        if let Ok(file) = parse(&source) {
            for stage in &file.stages {
                for instruction in &stage.instructions {
                    for word in plain_words(instruction) {
                        assert_in_bounds(&source, word.span);
                        let written = word.span.slice(&source);
                        let is_joined = written.contains('\n');
                        assert!(is_joined || written == word.text, "{word:?} is {written:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes(&bytes);
        let mut file = b"FROM x\nRUN ".to_vec();
        file.extend(bytes);
        let _ = parse_bytes(&file);
    }
}

/// Words that are taken from the source without decoding.
fn plain_words(instruction: &Instruction) -> Vec<&ocibuild::dockerfile::Word> {
    match instruction {
        Instruction::Arg(arg) => arg.declarations.iter().map(|d| &d.name).collect(),
        Instruction::Env(env) => env.pairs.iter().flat_map(|p| [&p.key, &p.value]).collect(),
        Instruction::Label(label) => label.pairs.iter().map(|p| &p.value).collect(),
        Instruction::Expose(expose) => expose.ports.iter().collect(),
        Instruction::User(user) => vec![&user.user],
        Instruction::Run(run) => match &run.command {
            Command::Shell(text) => std::iter::once(text)
                .chain(run.heredocs.iter().map(|h| &h.body))
                .collect(),
            Command::Exec(_) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

//! Build checks against the table in `testdata/checks.txt`, and in whole builds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ocibuild::context::ignore::IgnoreMatcher;
use ocibuild::dockerfile::lint::{Linter, Rule, Warning, lint, settings_of};
use ocibuild::graph::check::{StageRules, check_bases};
use ocibuild::graph::walk::walk;
use ocibuild::testing::ContextDir;
use ocibuild::{CheckWarning, Event, EventSink};

use crate::built::{Workshop, wait};
use crate::config::plan_of;
use crate::table;

/// Checks all stages of a Dockerfile whose bases are empty images.
fn warnings(text: &str, args: &str, ignored: &str) -> Result<Vec<Warning>, String> {
    let plan = plan_of(text, args)?;
    let settings = settings_of(&plan.dockerfile).map_err(|error| error.to_string())?;
    let ignored = IgnoreMatcher::parse(ignored).unwrap();
    let mut linter = Linter::new(&plan.lines, settings);
    lint(&plan.dockerfile, &mut linter);
    check_bases(&plan, &mut linter);
    let mut rules = StageRules::new(Some(&ignored));
    let all = 0..plan.stages.len();
    walk(&plan, all, &BTreeMap::new(), &mut |visit| {
        rules.visit(&plan, visit, &mut linter);
    })
    .map_err(|(_, error)| error.to_string())?;
    Ok(linter.finish())
}

fn shown(warnings: &[Warning]) -> String {
    let lines = warnings.iter().map(|it| {
        let place = match it.lines {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        format!("{place} {}: {}", it.rule.name(), it.message)
    });
    Vec::from_iter(lines).join(" ; ")
}

#[test]
fn checks_say_what_the_table_says() {
    let rows = table::rows("checks.txt");
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for row in &rows {
        let [args, ignored, instructions, expected] = row.fields.as_slice() else {
            panic!("{}: not four fields", row.place)
        };
        let text = instructions.replace(" ; ", "\n") + "\n";
        let ignored = if ignored == "-" { "" } else { ignored.as_str() };
        let found = warnings(&text, args, &ignored.replace(" ; ", "\n"));
        seen.extend(found.iter().flatten().map(|warning| warning.rule));
        let found = found.map_or_else(|error| format!("error: {error}"), |it| shown(&it));
        if found != *expected {
            wrong.push(format!("{}: {instructions}\n  gave {found}", row.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !seen.contains(rule))
        .collect();
    // The one that needs a base image is in the test below.
    assert_eq!(
        missing,
        [&Rule::InvalidBaseImagePlatform],
        "rules without a row"
    );
}

/// Builds and gives what the checks told meanwhile.
fn built_with_checks(
    workshop: &Workshop,
    context: &ContextDir,
    arg: Option<&str>,
) -> (Result<(), ocibuild::Error>, Vec<CheckWarning>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let mut build = workshop.build(context).events(EventSink::new(move |event| {
        if let Event::Check(warning) = event {
            sink.lock().unwrap().push(warning);
        }
    }));
    if let Some(arg) = arg {
        build = build.build_arg("BUILDKIT_DOCKERFILE_CHECK", arg);
    }
    let result = wait(build.run()).map(drop);
    let told = std::mem::take(&mut *told.lock().unwrap());
    (result, told)
}

#[test]
fn a_build_tells_what_its_checks_find() {
    let workshop = Workshop::new();
    let text = "FROM busybox as base\nENV A=$PAHT\n\nFROM base\nCOPY f \\\n  /x\nCMD a b\n\
                FROM scratch AS unused\nENV A $B\nFROM base\nENV B=$A\n";
    let context = ContextDir::new()
        .file("f", "")
        .file(".dockerignore", "f\n")
        .file("Dockerfile", text);
    let (result, told) = built_with_checks(&workshop, &context, None);
    result.unwrap();
    let shown: Vec<_> = told
        .iter()
        .map(|it| {
            (
                it.rule.as_str(),
                it.line,
                it.at_column,
                it.at_width,
                it.text.as_str(),
            )
        })
        .collect();
    // A stage that is not built is not checked, and the base's variables are known.
    let want = [
        ("FromAsCasing", 1, 14, 2, "FROM busybox as base"),
        ("UndefinedVar", 2, 7, 5, "ENV A=$PAHT"),
    ];
    assert_eq!(shown, want);
    assert_eq!(
        told[1].message,
        "Usage of undefined variable '$PAHT' (did you mean $PATH?)"
    );
}

#[test]
fn warnings_stop_a_build_that_asks_for_it() {
    let workshop = Workshop::new();
    let context = |head: &str| {
        let text = format!("{head}FROM scratch as a\nENV A b\nCOPY missing /\n");
        ContextDir::new().file("Dockerfile", text)
    };
    let fails = |head: &str, arg: Option<&str>| {
        let (result, told) = built_with_checks(&workshop, &context(head), arg);
        (result.unwrap_err().to_string(), told.len())
    };
    // What the text decides comes first, then what a stage decides, then the stage.
    let (error, told) = fails("# check=error=true\n", None);
    assert_eq!(
        error,
        "Dockerfile:2: lint violation found for rules: FromAsCasing"
    );
    assert_eq!(told, 1);
    let (error, told) = fails("# check=error=true;skip=FromAsCasing\n", None);
    assert_eq!(
        error,
        "Dockerfile:3: lint violation found for rules: LegacyKeyValueFormat"
    );
    assert_eq!(told, 1);
    // The argument takes the place of what the file says.
    let (error, told) = fails("# check=error=true\n", Some("skip=all"));
    assert!(error.contains("missing"), "{error}");
    assert_eq!(told, 0);
    let (error, _) = fails("# check=nonsense\n", None);
    assert!(
        error.starts_with("Dockerfile:1: invalid check option \"nonsense\""),
        "{error}"
    );
}

#[test]
fn a_base_for_another_machine_is_told() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file(
        "Dockerfile",
        "FROM --platform=linux/s390x busybox AS s390x\n",
    );
    let (result, told) = built_with_checks(&workshop, &context, None);
    result.unwrap();
    let [warning] = told.as_slice() else {
        panic!("{told:?}")
    };
    let host = ocibuild::registry::Platform::host();
    assert_eq!(warning.rule, "InvalidBaseImagePlatform");
    let want = format!(
        "Base image busybox was pulled with platform \"{host}\", expected \"linux/s390x\" for current build"
    );
    assert_eq!(warning.message, want);
}

#[test]
fn a_check_in_place_of_a_build_sees_every_stage() {
    let workshop = Workshop::new();
    let check = |text: &str, target: Option<&str>, offline| {
        let context = ContextDir::new().file("Dockerfile", text);
        let mut build = workshop.build(&context);
        if let Some(target) = target {
            build = build.target(target);
        }
        wait(build.check(offline)).unwrap()
    };
    let rules = |checked: &ocibuild::check::Checked| {
        let rules = checked.warnings.iter().map(|it| (it.line, it.rule.clone()));
        rules.collect::<Vec<_>>()
    };
    let text = "FROM busybox AS a\nENV A=$B\nFROM busybox AS b\nENV A b\n";
    let both = check(text, None, false);
    let want = [
        (2, "UndefinedVar".to_owned()),
        (4, "LegacyKeyValueFormat".to_owned()),
    ];
    assert_eq!(rules(&both), want);
    assert!(both.error.is_none() && both.unknown_bases.is_empty());
    assert_eq!(rules(&check(text, Some("a"), false)), &want[..1]);
    // Nobody knows what an image that was not loaded sets.
    let offline = check(text, None, true);
    assert_eq!(rules(&offline), &want[1..]);
    assert_eq!(offline.unknown_bases, ["busybox"]);
    // Warnings about what stands before an error are given, too.
    let broken = check("FROM busybox AS Bad\nMAINTAINER me\nBADCMD\n", None, false);
    let want = [
        (1, "StageNameCasing".to_owned()),
        (2, "MaintainerDeprecated".to_owned()),
    ];
    assert_eq!(rules(&broken), want);
    let error = broken.error.unwrap();
    assert_eq!(
        error.to_string(),
        "Dockerfile:3: unknown instruction \"BADCMD\""
    );
    let fatal = check("# check=error=true\nFROM busybox\nCMD x\n", None, false);
    let error = fatal.error.unwrap().to_string();
    assert_eq!(
        error,
        "Dockerfile:3: lint violation found for rules: JSONArgsRecommended"
    );
}

#[test]
fn a_target_tells_its_parameters() {
    let text = "# GO is the version of the compiler\nARG GO=1.20 UNUSED=1 BASE=busybox\nARG IMAGE=${BASE}\n\n\
        FROM $IMAGE AS tools\n\n# first has the tools\nFROM tools AS first\nARG GO\n# LEVEL says how much\n\
        ARG LEVEL=2\nRUN --mount=type=secret,id=token,required=true --mount=type=cache,target=/c true\n\
        RUN --mount=type=ssh true\nFROM scratch\n";
    let plan = plan_of(text, "--target=first");
    // Mounts may not be supported yet where this runs; the outline does not depend on it.
    let text = if plan.is_err() {
        text.replace("RUN --mount", "# RUN --mount")
    } else {
        text.to_owned()
    };
    let plan = plan_of(&text, "--target=first").unwrap();
    let outline = ocibuild::graph::outline::outline(&plan).unwrap();
    let args: Vec<_> = outline
        .args
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.value.as_str(),
                it.description.as_str(),
                it.lines.first,
            )
        })
        .collect();
    let want = [
        ("BASE", "busybox", "", 2),
        ("GO", "1.20", "is the version of the compiler", 2),
        ("IMAGE", "busybox", "", 3),
        ("LEVEL", "2", "says how much", 11),
    ];
    assert_eq!(
        (outline.name.as_str(), outline.description.as_str()),
        ("first", "has the tools")
    );
    assert_eq!(args, want);
    let targets = ocibuild::graph::outline::targets(&plan).unwrap();
    let targets: Vec<_> = targets
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.base.as_str(),
                it.description.as_str(),
                it.is_default,
            )
        })
        .collect();
    let want = [
        ("tools", "$IMAGE", "", false),
        ("first", "tools", "has the tools", false),
        ("", "scratch", "", true),
    ];
    assert_eq!(targets, want);
}

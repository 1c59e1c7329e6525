//! `.dockerignore` against the table in `testdata/ignore.txt`, and the promise that a
//! pruned directory holds nothing that is kept.

use std::time::{Duration, Instant};

use ocibuild::context::ignore::{IgnoreMatcher, Verdict};
use proptest::prelude::*;

use crate::table;

fn judge(rules: &str, path: &str) -> String {
    match IgnoreMatcher::parse(&rules.replace(" ; ", "\n")) {
        Ok(matcher) if matcher.matches(path) => "ignored".to_owned(),
        Ok(_) => "kept".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn rules_match_as_the_table_says() {
    let rows = table::rows("ignore.txt");
    assert!(rows.len() >= 120, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let [rules, path, expected] = row.fields.as_slice() else {
            panic!("{}: not three fields", row.place)
        };
        let found = judge(rules, path);
        if found != *expected {
            wrong.push(format!("{}: {rules} on {path} gave {found}", row.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_have_byte_order_marks_and_carriage_returns() {
    let matcher = IgnoreMatcher::parse("\u{feff}a\r\n\r\n# b\r\nc \r\n").unwrap();
    assert_eq!(
        ["a", "b", "c", "# b"].map(|path| matcher.matches(path)),
        [true, false, true, false]
    );
    assert!(IgnoreMatcher::parse("").unwrap().is_empty());
    assert!(IgnoreMatcher::parse(&"x".repeat(70_000)).is_err());
}

#[test]
fn patterns_given_one_by_one_have_no_comments() {
    let matcher = IgnoreMatcher::from_patterns(["#a", "b*", "!bc"]).unwrap();
    assert_eq!(
        ["#a", "bb", "bc"].map(|path| matcher.matches(path)),
        [true, true, false]
    );
}

#[test]
fn only_hopeless_directories_are_pruned() {
    let table = [
        ("a", "a", true),
        ("a\n!b", "a", true),
        ("a\n!a/b", "a", false),
        ("a\n!a/b", "a/c", true),
        ("!a/b\na", "a", true),
        ("a\n!a/b\na", "a", false),
        ("*\n!sub/x/y", "sub", false),
        ("*\n!sub/x/y", "sub/x", false),
        ("*\n!sub/x/y", "sub/z", true),
        ("*\n!sub/x/y", "other", true),
        ("*\n!s*/x", "sub", false),
        ("*\n!**/x", "a/b/c", false),
        ("*\n!a/**/x", "a/b", false),
        ("*\n!a/**/x", "b", true),
        ("*\n!a/b**", "b", true),
        // Two stars are not looked into: walking on is never wrong.
        ("*\n!a**", "b", false),
        ("*\n![ab]/x", "b", false),
        ("node_modules\n!*.md", "node_modules", true),
        ("", "a", false),
        ("b", "a", false),
    ];
    for (rules, directory, expected) in table {
        let matcher = IgnoreMatcher::parse(rules).unwrap();
        let verdict = walk(&matcher, directory);
        assert_eq!(
            matcher.can_prune(directory, &verdict),
            expected,
            "{rules:?} {directory}"
        );
    }
}

/// Judges every directory on the way to a path, as a walk does.
fn walk(matcher: &IgnoreMatcher, path: &str) -> Verdict {
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    ends.fold(Verdict::default(), |parent, end| {
        matcher.check(&path[..end], &parent)
    })
}

#[test]
fn twenty_thousand_paths_take_no_time() {
    let names = [
        "target",
        "**/node_modules",
        "**/*.pyc",
        "*.md",
        "!README.md",
        "docs/**/x?[ab]*",
    ];
    let more = (0..30).map(|n| format!("dir{n}/**/*.tmp{n}"));
    let rules: Vec<String> = names
        .iter()
        .map(|name| (*name).to_owned())
        .chain(more)
        .collect();
    let matcher = IgnoreMatcher::from_patterns(rules.iter().map(String::as_str)).unwrap();
    let start = Instant::now();
    let mut ignored = 0;
    for directory in 0..200 {
        let directory = format!("src/module{directory}/inner");
        let verdict = walk(&matcher, &directory);
        for file in 0..100 {
            let path = format!("{directory}/some_file_{file}.{}", ["rs", "pyc"][file % 2]);
            ignored += usize::from(matcher.check(&path, &verdict).is_ignored());
        }
    }
    assert_eq!(ignored, 10_000);
    // Far above what it takes, and far below what a careless matcher would need.
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

proptest! {
    #[test]
    fn nothing_below_a_pruned_directory_is_kept(
        rules in proptest::collection::vec("!?(\\*\\*/)?[ab*?]{1,2}(/[ab*?]{1,2}){0,2}(/\\*\\*)?", 1..5),
        directory in "[ab]{1,2}(/[ab]{1,2}){0,1}",
        below in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        let Ok(matcher) = IgnoreMatcher::parse(&rules.join("\n")) else { return Ok(()) };
        let path = format!("{directory}/{below}");
        prop_assert_eq!(walk(&matcher, &path).is_ignored(), matcher.matches(&path));
        if matcher.can_prune(&directory, &walk(&matcher, &directory)) {
            prop_assert!(matcher.matches(&path), "{rules:?} {directory} {path}");
        }
    }

    #[test]
    fn any_text_parses_or_fails(text in any::<String>(), path in "[^/]{1,8}(/[^/]{1,8}){0,3}") {
        if let Ok(matcher) = IgnoreMatcher::parse(&text) {
            let _ = matcher.can_prune(&path, &walk(&matcher, &path));
        }
    }
}

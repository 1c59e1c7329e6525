//! Every case in every environment: what is expected, and the image that root makes of it.
//!
//! `testdata/sandbox/pending` has the cases that do not work everywhere yet, a line each:
//! environment, beginning of the names of cases with a `*`, and a part of what is said. A line
//! whose case works is to be taken out, and the test says so.

use std::fs;

use crate::case::{Case, Outcome, testdata, why};
use crate::environment::{CANARY, Environment};
use crate::place::Place;

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e1_root_on_a_machine() {
    judge(Environment::E1);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e2_a_user_with_a_range() {
    judge(Environment::E2);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e3_a_user_without() {
    judge(Environment::E3);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e4_a_container() {
    judge(Environment::E4);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e5_a_container_without_a_filter() {
    judge(Environment::E5);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e6_a_restricted_pod() {
    judge(Environment::E6);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e7_a_restricted_pod_without_a_filter() {
    judge(Environment::E7);
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_e8_a_pod_that_mounts_nothing() {
    judge(Environment::E8);
}

fn judge(environment: Environment) {
    let place = Place::get().filter(|place| place.has(environment));
    let Some(place) = place else { return };
    let pending = Pending::read(environment);
    let everywhere = std::env::var_os("OCIBUILD_TEST_LONG").is_some();
    let all = everywhere || matches!(environment, Environment::E1 | Environment::E6);
    let cases = Case::all().into_iter();
    let cases = cases.filter(|case| all || !case.expectation().is_long);
    let verdicts = cases.filter_map(|case| {
        let problems = problems(&place, environment, &case);
        pending.verdict(&case.name, &problems)
    });
    let wrong: Vec<String> = verdicts.collect();
    assert!(
        wrong.is_empty(),
        "{environment:?}: {}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn problems(place: &Place, environment: Environment, case: &Case) -> Vec<String> {
    let expectation = case.expectation();
    let reference = place.reference(case);
    if environment == Environment::E1 {
        return [expectation.problems(&reference), leaks(case, &reference)].concat();
    }
    let outcome = case.outcome(place, environment);
    let mut problems = [expectation.problems(&outcome), leaks(case, &outcome)].concat();
    match (&reference.image, &outcome.image) {
        (Ok(reference), Ok(image)) => {
            let differences = reference.differences(image, &expectation.varying);
            if !differences.is_empty() {
                let shown: Vec<_> = differences.iter().take(20).cloned().collect();
                problems.push(format!(
                    "{} lines differ:\n    {}",
                    differences.len(),
                    shown.join("\n    ")
                ));
            }
        }
        (Err(said), Ok(_)) if !expectation.is_failure() => {
            problems.push(format!("root fails: {}", why(said)));
        }
        _ => {}
    }
    problems
}

/// Where secrets of the operator are that nobody gave to a command.
fn leaks(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    if outcome.said.contains(CANARY) {
        found.push(format!("a secret is in the log: {}", outcome.said));
    }
    // Searching all that apt installs would take longer than installing it.
    let image = outcome
        .image
        .as_ref()
        .ok()
        .filter(|_| case.name.starts_with("hostile-"));
    if image.is_some_and(|image| image.contains(CANARY)) {
        found.push("a secret is in the image".to_owned());
    }
    found
}

/// What does not work yet in one environment: cases, and a part of what is wrong.
pub(crate) struct Pending(Vec<(String, String)>);

impl Pending {
    pub(crate) fn read(environment: Environment) -> Self {
        let file = testdata().join("pending");
        let text = fs::read_to_string(file).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rows = lines.map(|line| {
            let mut fields = line.splitn(3, ' ').map(str::to_owned);
            let mut field = || {
                fields
                    .next()
                    .unwrap_or_else(|| panic!("not understood: {line}"))
            };
            (field(), field(), field())
        });
        let ours = rows.filter(|(name, ..)| *name == format!("{environment:?}"));
        Self(ours.map(|(_, case, said)| (case, said)).collect())
    }

    /// What is to be said of a case that has these problems, if anything.
    pub(crate) fn verdict(&self, case: &str, problems: &[String]) -> Option<String> {
        let all = problems.join("\n  ");
        match self.of(case) {
            None if problems.is_empty() => None,
            None => Some(format!("{case}:\n  {all}")),
            Some(said) if problems.is_empty() => Some(format!(
                "{case} works: take its line ({said}) out of `pending`"
            )),
            Some(said) if all.contains(said) => None,
            Some(said) => Some(format!("{case} does not say {said:?}:\n  {all}")),
        }
    }

    /// The line that names a case, or the beginning of its name.
    fn of(&self, case: &str) -> Option<&str> {
        let names = |name: &str| match name.strip_suffix('*') {
            Some(prefix) => case.starts_with(prefix),
            None => case == name,
        };
        let mut rows = self.0.iter();
        rows.find(|(name, _)| names(name))
            .map(|(_, said)| said.as_str())
    }
}
